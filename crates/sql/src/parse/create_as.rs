//! The names of columns in CREATE TABLE AS, which the parser takes with types only.

use sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace, Word};

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
            Some(Token::RParen) if is_word(place + 2, "as") => break,
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
