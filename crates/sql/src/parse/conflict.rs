//! What ON CONFLICT names beside columns: expressions, and the condition of an index. The parser knows columns alone, so
//! the whole stands in the tree as one column with a name that none can have.

use sqlparser::ast::{Expr, Ident, SelectItem, Statement};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use crate::error::SqlError;

/// What such a name begins with, and what stands between the expressions and the condition in it.
const MARK: char = '\u{1}';
/// After so many that have no end no further one is looked for: each look goes through the rest of the text.
const IN_VAIN_MAX: usize = 16;

/// What a unique index is found by.
#[derive(Clone, Debug)]
pub struct Inference {
    /// The parts of its key.
    pub key: Vec<Expr>,
    /// What the rows of the statement are known to satisfy.
    pub condition: Option<Expr>,
}

fn word(token: Option<&Token>) -> &str {
    match token {
        Some(Token::Word(word)) if word.quote_style.is_none() => word.value.as_str(),
        _ => "",
    }
}

/// Puts a name in the place of what is more than a list of columns.
pub(super) fn mark(tokens: &mut Vec<TokenWithSpan>) {
    let is_rare = |token: &TokenWithSpan| word(Some(&token.token)) == "conflict";
    if !tokens.iter().any(is_rare) {
        return;
    }
    let significant: Vec<usize> = (0..tokens.len())
        .filter(|at| !matches!(tokens.get(*at).map(|token| &token.token), Some(Token::Whitespace(_)) | None))
        .collect();
    let at = |place: usize| significant.get(place).and_then(|at| tokens.get(*at)).map(|token| &token.token);
    let mut found = Vec::new();
    let (mut behind, mut in_vain) = (0, 0);
    for place in 0..significant.len() {
        let begins = word(at(place)) == "on"
            && word(at(place + 1)) == "conflict"
            && at(place + 2) == Some(&Token::LParen);
        if !begins || place < behind || in_vain > IN_VAIN_MAX {
            continue;
        }
        let (mut depth, mut close, mut end) = (0_usize, None, None);
        let mut is_plain = true;
        for next in place + 2..significant.len() {
            match at(next) {
                Some(Token::LParen) => depth += 1,
                Some(Token::RParen) => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 && close.is_none() {
                        close = Some(next);
                    }
                }
                token if depth == 0 && word(token) == "do" => {
                    end = Some(next);
                    break;
                }
                Some(Token::Word(_) | Token::Comma) => {}
                _ => is_plain = false,
            }
            // A second word behind one is an operator class or the like.
            let is_word = |place| matches!(at(place), Some(Token::Word(_)));
            is_plain &= !(depth == 1 && is_word(next) && is_word(next + 1)) && depth < 2;
        }
        let (Some(close), Some(end)) = (close, end) else {
            in_vain += 1;
            continue;
        };
        behind = end;
        if is_plain && close + 1 == end {
            continue;
        }
        let text = |from: usize, to: usize| {
            let words = (from..to).filter_map(&at).map(ToString::to_string).collect::<Vec<_>>();
            words.join(" ")
        };
        let condition = if word(at(close + 1)) == "where" { text(close + 2, end) } else { String::new() };
        found.push((place + 3, end, format!("{MARK}{}{MARK}{condition}", text(place + 3, close))));
    }
    for (start, end, value) in found.into_iter().rev() {
        let (Some(first), Some(last)) = (significant.get(start), significant.get(end - 1)) else { continue };
        let Some(span) = tokens.get(*first).map(|token| token.span) else { continue };
        let name = Word { value, quote_style: Some('"'), keyword: Keyword::NoKeyword };
        let new = |token| TokenWithSpan { token, span };
        let _replaced = tokens.splice(*first..=*last, [new(Token::Word(name)), new(Token::RParen)]);
    }
}

/// What the only column of ON CONFLICT stands for, if it does.
///
/// # Errors
/// 42601 when it does not parse.
pub fn of_columns(columns: &[Ident]) -> Result<Option<Inference>, SqlError> {
    let [only] = columns else { return Ok(None) };
    let Some((key, condition)) = only.value.strip_prefix(MARK).and_then(|text| text.split_once(MARK)) else {
        return Ok(None);
    };
    let condition = if condition.is_empty() { None } else { Some(super::parse_expr(condition)?) };
    let items = match super::parse(&format!("SELECT {key}"))?.pop() {
        Some(Statement::Query(query)) => super::lone_select(&query).map(|select| select.projection.clone()),
        _ => None,
    };
    let key = items.unwrap_or_default().into_iter().map(|item| match item {
        SelectItem::UnnamedExpr(expr) => Ok(expr),
        _ => Err(SqlError::not_supported("an operator class in ON CONFLICT is not supported")),
    });
    Ok(Some(Inference { key: key.collect::<Result<_, _>>()?, condition }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_within_another_is_no_second_one() {
        for (sql, marks) in [
            ("insert into t values (1) on conflict (a, on conflict (b + 1) do nothing) do nothing", 1),
            ("insert into t values (1) on conflict (lower(a)) on conflict (b) do nothing", 1),
            ("insert into t values (1) on conflict (lower(a)) do nothing", 1),
            ("insert into t values (1) on conflict (a) do nothing", 0),
            (&format!("insert into t values (1) {} do nothing", "on conflict (".repeat(40_000)), 0),
        ] {
            let tokens = crate::parse::tokens(sql).expect("tokens");
            let is_mark = |token: &&TokenWithSpan| matches!(&token.token, Token::Word(word) if word.value.starts_with(MARK));
            assert_eq!(tokens.iter().filter(is_mark).count(), marks, "{sql:.120}");
        }
    }
}
