//! The names of columns in CREATE TABLE AS, which the parser takes with types only.

use sqlparser::ast::{Expr, ObjectName, Query, SelectInto, SetExpr, Statement};
use sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace, Word};

use crate::error::SqlError;

/// The type that such a column has in the tree; it cannot be written without quotes, and does not exist.
pub const NO_TYPE: &str = "no type";

/// Gives each name in `CREATE TABLE name (a, b) AS` a type.
pub(super) fn add_types(tokens: &mut Vec<TokenWithSpan>) {
    let significant: Vec<usize> = (tokens.iter().enumerate())
        .filter(|(_, token)| !matches!(token.token, Token::Whitespace(_)))
        .map(|(at, _)| at)
        .collect();
    let token =
        |place: usize| significant.get(place).and_then(|at| tokens.get(*at)).map(|token| &token.token);
    let is_word = |place: usize, wanted: &str| matches!(token(place), Some(Token::Word(word)) if word.quote_style.is_none() && word.value == wanted);
    if !is_word(0, "create") || !(1..4).any(|place| is_word(place, "table")) {
        return;
    }
    let Some(open) = (0..significant.len()).find(|place| token(*place) == Some(&Token::LParen)) else {
        return;
    };
    let mut names = Vec::new();
    let mut place = open + 1;
    loop {
        let (Some(Token::Word(_)), Some(at)) = (token(place), significant.get(place)) else { return };
        names.push(*at);
        match token(place + 1) {
            Some(Token::Comma) => place += 2,
            Some(Token::RParen) if ["as", "on", "with"].iter().any(|word| is_word(place + 2, word)) => {
                break;
            }
            _ => return,
        }
    }
    for at in names.into_iter().rev() {
        let Some(span) = tokens.get(at).map(|token| token.span) else { continue };
        let word = Word {
            value: NO_TYPE.to_owned(),
            quote_style: Some('"'),
            keyword: sqlparser::keywords::Keyword::NoKeyword,
        };
        let new = |token| TokenWithSpan { token, span };
        tokens.splice(at + 1..at + 1, [new(Token::Whitespace(Whitespace::Space)), new(Token::Word(word))]);
    }
}

/// SELECT INTO as the CREATE TABLE AS that it is.
///
/// # Errors
/// 0A000 for a form that is not known.
pub fn of_select_into(query: &Query) -> Result<Statement, SqlError> {
    let mut query = query.clone();
    let into = match query.body.as_mut() {
        SetExpr::Select(select) => select.into.take(),
        _ => None,
    };
    let Some(SelectInto { temporary, targets, .. }) = into else {
        return Err(SqlError::not_supported("this SELECT INTO is not supported"));
    };
    let name = match targets.as_slice() {
        [Expr::Identifier(name)] => ObjectName::from(vec![name.clone()]),
        [Expr::CompoundIdentifier(parts)] => ObjectName::from(parts.clone()),
        _ => return Err(SqlError::not_supported("SELECT INTO of this is not supported")),
    };
    let mut statements = super::parse("CREATE TABLE t AS SELECT 1")?;
    match statements.pop() {
        Some(Statement::CreateTable(mut create)) => {
            create.name = name;
            create.temporary = temporary;
            create.query = Some(Box::new(query));
            Ok(Statement::CreateTable(create))
        }
        _ => Err(SqlError::internal("SELECT INTO is no CREATE TABLE")),
    }
}
