//! CREATE VIEW: what the parser does not keep of it, or does not know.

use sqlparser::ast::{
    CreateTableOptions, CreateView, Expr, Ident, Query, SqlOption, Value,
    helpers::attached_token::AttachedToken,
};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace};

/// What is taken out of the tokens of a CREATE VIEW.
#[derive(Debug)]
pub struct ViewText {
    /// The query as it was written.
    query: String,
    /// WITH CHECK OPTION: `local` or `cascaded`.
    check: Option<&'static str>,
}

fn word(token: Option<&TokenWithSpan>) -> &str {
    match token.map(|token| &token.token) {
        Some(Token::Word(word)) if word.quote_style.is_none() => word.value.as_str(),
        _ => "",
    }
}

/// The text of the query of a CREATE VIEW whose tokens these are, if they are, in the text of which they are made.
/// `WITH CHECK OPTION` goes from the tokens.
#[must_use]
pub fn take(sql: &str, tokens: &mut [TokenWithSpan]) -> Option<ViewText> {
    let mut places: Vec<usize> = (tokens.iter().enumerate())
        .filter(|(_, token)| !matches!(token.token, Token::Whitespace(_) | Token::EOF))
        .map(|(at, _)| at)
        .collect();
    let at = |places: &[usize], place: usize| -> Option<usize> { places.get(place).copied() };
    let is_view = (1..6).any(|place| word(at(&places, place).and_then(|at| tokens.get(at))) == "view");
    if word(at(&places, 0).and_then(|at| tokens.get(at))) != "create" || !is_view {
        return None;
    }
    let mut depth = 0_usize;
    let start = places.iter().position(|at| match tokens.get(*at).map(|token| &token.token) {
        Some(Token::LParen) => {
            depth += 1;
            false
        }
        Some(Token::RParen) => {
            depth = depth.saturating_sub(1);
            false
        }
        _ => depth == 0 && word(tokens.get(*at)) == "as",
    })? + 1;
    let last = |back: usize| {
        word(
            places.len().checked_sub(back).and_then(|place| places.get(place)).and_then(|at| tokens.get(*at)),
        )
    };
    let (check, count) = match (last(4), last(3), last(2), last(1)) {
        ("with", "local", "check", "option") => (Some("local"), 4),
        ("with", "cascaded", "check", "option") => (Some("cascaded"), 4),
        (_, "with", "check", "option") => (Some("cascaded"), 3),
        _ => (None, 0),
    };
    for at in places.split_off(places.len().saturating_sub(count)) {
        if let Some(token) = tokens.get_mut(at) {
            token.token = Token::Whitespace(Whitespace::Space);
        }
    }
    let first = tokens.get(*places.get(start)?)?.span.start.column;
    let end = tokens.get(*places.last()?)?.span.end.column;
    let (first, end) = (usize::try_from(first).ok()?, usize::try_from(end).ok()?);
    let query = sql.chars().skip(first.saturating_sub(1)).take(end.saturating_sub(first)).collect();
    Some(ViewText { query, check })
}

/// Puts what was taken into the tree: the text as its comment, and the clause as the option that PostgreSQL makes of
/// it, too.
pub fn put(view: ViewText, create: &mut CreateView) {
    create.comment = Some(view.query);
    if let Some(check) = view.check {
        let value = Expr::Value(Value::SingleQuotedString(check.to_owned()).with_empty_span());
        let option = SqlOption::KeyValue { key: Ident::new("check_option"), value };
        match &mut create.options {
            CreateTableOptions::With(options) => options.push(option),
            options => *options = CreateTableOptions::With(vec![option]),
        }
    }
}

/// ALTER VIEW becomes ALTER TABLE, whose forms it shares; whether it was one.
pub fn normalise_alter(tokens: &mut [TokenWithSpan]) -> bool {
    let mut significant =
        tokens.iter_mut().filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF));
    let (Some(first), Some(second)) = (significant.next(), significant.next()) else { return false };
    let is_meant = word(Some(first)) == "alter" && word(Some(second)) == "view";
    if is_meant {
        second.token = Token::make_keyword("TABLE");
    }
    is_meant
}

/// Whether a query is the short form `TABLE name` or has it in it, where names have no places.
#[must_use]
pub fn is_short(tokens: &[TokenWithSpan]) -> bool {
    tokens.iter().any(|token| {
        matches!(&token.token, Token::Word(word) if word.quote_style.is_none() && word.keyword == Keyword::TABLE)
    })
}

/// Where the star of a wildcard stands, in characters from 1, and where it has ended.
#[must_use]
pub fn place_of(star: &AttachedToken) -> (u64, u64) {
    (star.0.span.start.column, star.0.span.end.column)
}

/// The words of a text with the word that stands before each and a point, if there is one.
///
/// # Errors
/// 42601 when it is no SQL.
pub fn words(sql: &str) -> Result<Vec<(Option<String>, String)>, crate::error::SqlError> {
    let tokens = super::tokens(sql)?;
    let significant: Vec<&Token> = tokens
        .iter()
        .map(|token| &token.token)
        .filter(|token| !matches!(token, Token::Whitespace(_)))
        .collect();
    let name = |token: &Token| match token {
        Token::Word(word) => Some(word.value.clone()),
        _ => None,
    };
    let mut found = Vec::new();
    for (place, token) in significant.iter().enumerate() {
        let Some(own) = name(token) else { continue };
        let before = place.checked_sub(2).and_then(|two| significant.get(two..place));
        let qualifier = match before {
            Some([qualifier, Token::Period]) => name(qualifier),
            _ => None,
        };
        found.push((qualifier, own));
    }
    Ok(found)
}

/// The query of a text, each place in it counted in characters from 1 on line 1.
///
/// # Errors
/// 42601 when it does not parse; 0A000 for a form whose names have no places.
pub fn parse_view_query(sql: &str) -> Result<Query, crate::error::SqlError> {
    let mut tokens = sqlparser::tokenizer::Tokenizer::new(&sqlparser::dialect::PostgreSqlDialect {}, sql)
        .tokenize_with_location()
        .map_err(|error| {
            crate::error::SqlError::new(crate::error::SqlState::SYNTAX_ERROR, error.to_string())
        })?;
    super::flatten(sql, &mut tokens);
    super::normalise(&mut tokens);
    if is_short(&tokens) {
        return Err(crate::error::SqlError::not_supported("TABLE in a view is not supported"));
    }
    let mut parser = sqlparser::parser::Parser::new(&sqlparser::dialect::PostgreSqlDialect {})
        .with_recursion_limit(super::DEPTH_MAX)
        .with_tokens_with_locations(tokens);
    parser.parse_query().map(|query| *query).map_err(super::syntax_error)
}
