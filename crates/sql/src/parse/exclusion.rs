//! What the parser does not read of the frame of a window. An offset that is a literal gets parentheses. EXCLUDE becomes
//! a last item of the window's ORDER BY, under a name that no column is likely to have; the binder takes it away.

use sqlparser::ast::{Expr, OrderByExpr};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use crate::plan::window::Exclusion;

const KINDS: [(&[&str], &str, Exclusion); 4] = [
    (&["current", "row"], "frame excludes current row", Exclusion::CurrentRow),
    (&["group"], "frame excludes group", Exclusion::Group),
    (&["ties"], "frame excludes ties", Exclusion::Ties),
    (&["no", "others"], "frame excludes no others", Exclusion::NoOthers),
];

/// The ORDER BY of a window without the item that stands for EXCLUDE, and what that means.
#[must_use]
pub fn window_exclusion(order_by: &[OrderByExpr]) -> (&[OrderByExpr], Exclusion) {
    if let Some((OrderByExpr { expr: Expr::Identifier(name), .. }, rest)) = order_by.split_last()
        && name.quote_style.is_some()
        && let Some((_, _, exclusion)) = KINDS.iter().find(|(_, known, _)| *known == name.value)
    {
        return (rest, *exclusion);
    }
    (order_by, Exclusion::NoOthers)
}

fn is_word(token: &Token, wanted: &str) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value == wanted)
}

/// Respells each EXCLUDE that ends a frame.
pub(super) fn respell(tokens: &mut Vec<TokenWithSpan>) {
    let mut place = 0;
    while let Some(token) = tokens.get(place) {
        if is_word(&token.token, "exclude") {
            respell_one(tokens, place);
        } else if matches!(token.token, Token::SingleQuotedString(_)) && is_offset(tokens, place) {
            let (token, span) = (token.clone(), token.span);
            let around = |token: Token| TokenWithSpan { token, span };
            tokens.splice(place..=place, [around(Token::LParen), token, around(Token::RParen)]);
            place += 2;
        }
        place += 1;
    }
}

/// Whether a literal is the offset of a frame. The parser takes it for an interval unless it stands in parentheses.
fn is_offset(tokens: &[TokenWithSpan], literal: usize) -> bool {
    let is_blank = |token: &&TokenWithSpan| matches!(token.token, Token::Whitespace(_));
    let mut before = tokens.iter().take(literal).rev().filter(|token| !is_blank(token));
    let (last, last_but_one) = (before.next(), before.next());
    let behind = tokens.iter().skip(literal + 1).find(|token| !is_blank(token));
    let is_one = |token: Option<&TokenWithSpan>, words: &[&str]| {
        token.is_some_and(|token| words.iter().any(|word| is_word(&token.token, word)))
    };
    let units = ["rows", "range", "groups"];
    is_one(last, &units)
        || (is_one(last, &["between"]) && is_one(last_but_one, &units))
        || (is_one(last, &["and"]) && is_one(behind, &["preceding", "following"]))
}

fn respell_one(tokens: &mut Vec<TokenWithSpan>, exclude: usize) {
    let is_blank = |token: &Token| matches!(token, Token::Whitespace(_));
    let significant: Vec<usize> = tokens
        .iter()
        .enumerate()
        .skip(exclude + 1)
        .filter(|(_, token)| !is_blank(&token.token))
        .map(|(at, _)| at)
        .take(3)
        .collect();
    let token = |at: usize| tokens.get(at).map(|token| &token.token);
    let found = KINDS.iter().find(|(words, _, _)| {
        let fits =
            words.iter().zip(&significant).all(|(word, at)| token(*at).is_some_and(|t| is_word(t, word)));
        fits && significant.get(words.len()).is_some_and(|at| token(*at) == Some(&Token::RParen))
    });
    let Some((words, name, _)) = found else { return };
    let Some(end) = significant.get(words.len() - 1).copied() else { return };
    // Back to the parenthesis that opens the window, past the word that begins the frame.
    let (mut depth, mut frame, mut is_ordered) = (0usize, None, false);
    for at in (0..exclude).rev() {
        match token(at) {
            Some(Token::RParen) => depth += 1,
            Some(Token::LParen) if depth == 0 => break,
            Some(Token::LParen) => depth -= 1,
            Some(token)
                if depth == 0 && ["rows", "range", "groups"].iter().any(|unit| is_word(token, unit)) =>
            {
                frame = frame.or(Some(at));
            }
            Some(token) if depth == 0 && is_word(token, "order") => is_ordered = true,
            _ => {}
        }
    }
    let Some(frame) = frame else { return };
    let Some(span) = tokens.get(frame).map(|token| token.span) else { return };
    let quoted =
        Token::Word(Word { value: (*name).to_owned(), quote_style: Some('"'), keyword: Keyword::NoKeyword });
    let mut added = if is_ordered {
        vec![Token::Comma]
    } else {
        vec![Token::make_keyword("ORDER"), Token::make_keyword("BY")]
    };
    added.push(quoted);
    tokens.drain(exclude..=end);
    tokens.splice(frame..frame, added.into_iter().map(|token| TokenWithSpan { token, span }));
}
