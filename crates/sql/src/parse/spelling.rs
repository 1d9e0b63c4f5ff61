//! PostgreSQL's spellings that the parser does not know, brought to ones that it does. What is put in the place of a
//! token stands where that stood, so that errors are still shown where they are.

use std::collections::BTreeMap;

use sqlparser::ast::Ident;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Word};

/// The name of the call that the lower bound of BETWEEN SYMMETRIC becomes the argument of. No function can have it: it
/// is a name in quotes with a blank in it, and the binder takes it away.
const SYMMETRIC: &str = "between symmetric";

/// Whether a name is that of the call that the lower bound of BETWEEN SYMMETRIC becomes the argument of.
#[must_use]
pub fn is_symmetric(name: &Ident) -> bool {
    name.quote_style.is_some() && name.value == SYMMETRIC
}

/// The name under which an argument stands that was written with VARIADIC.
const VARIADIC: &str = "variadic argument";

/// Whether a name is that of an argument that was written with VARIADIC.
#[must_use]
pub fn is_variadic(name: &Ident) -> bool {
    name.quote_style.is_some() && name.value == VARIADIC
}

fn is_blank(token: &Token) -> bool {
    matches!(token, Token::Whitespace(_))
}

fn is_word(token: &Token, wanted: &str) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value == wanted)
}

/// A literal of a type whose name the parser does not know, `mood 'sad'`, becomes a cast, `'sad'::mood`.
fn cast_literals(tokens: &mut Vec<TokenWithSpan>) {
    let significant: Vec<usize> =
        (0..tokens.len()).filter(|at| tokens.get(*at).is_some_and(|token| !is_blank(&token.token))).collect();
    let mut found = Vec::new();
    for (place, pair) in significant.windows(2).enumerate() {
        let [name, literal] = pair else { continue };
        let is_name = matches!(tokens.get(*name).map(|token| &token.token),
            Some(Token::Word(word)) if word.keyword == Keyword::NoKeyword);
        let is_literal =
            matches!(tokens.get(*literal).map(|token| &token.token), Some(Token::SingleQuotedString(_)));
        let before = place.checked_sub(1).and_then(|before| significant.get(before));
        let before = before.and_then(|before| tokens.get(*before)).map(|token| &token.token);
        let opens = match before {
            Some(Token::Word(word)) => word.keyword != Keyword::NoKeyword && word.keyword != Keyword::AS,
            Some(Token::Period | Token::RParen | Token::RBracket | Token::SingleQuotedString(_)) | None => {
                false
            }
            Some(_) => true,
        };
        if is_name && is_literal && opens {
            found.push((*name, *literal));
        }
    }
    for (name, literal) in found.into_iter().rev() {
        let (Some(word), Some(text)) = (tokens.get(name).cloned(), tokens.get(literal).cloned()) else {
            continue;
        };
        let sign = TokenWithSpan { token: Token::DoubleColon, span: text.span };
        let _replaced = tokens.splice(name..=literal, [text, sign, word]);
    }
}

/// Respells what the parser does not know.
pub(super) fn respell(tokens: &mut Vec<TokenWithSpan>) {
    cast_literals(tokens);
    let is_rare = |token: &TokenWithSpan| match &token.token {
        Token::Word(word) => {
            matches!(
                word.value.as_str(),
                "symmetric" | "asymmetric" | "isnull" | "similar" | "variadic" | "trim"
            )
        }
        _ => false,
    };
    if !tokens.iter().any(is_rare) {
        return;
    }
    let significant: Vec<(usize, &Token)> = tokens
        .iter()
        .enumerate()
        .filter(|(_, token)| !is_blank(&token.token))
        .map(|(at, token)| (at, &token.token))
        .collect();
    // What stands in the place of a token.
    let mut edits: BTreeMap<usize, Vec<Token>> = BTreeMap::new();
    for (place, (at, token)) in significant.iter().enumerate() {
        let Token::Word(word) = token else { continue };
        if word.quote_style.is_some() {
            continue;
        }
        let rest = significant.get(place + 1..).unwrap_or_default();
        let before = place.checked_sub(1).and_then(|before| significant.get(before));
        let follows = |wanted: &str| before.is_some_and(|(_, token)| is_word(token, wanted));
        // Any word may name a column here.
        if follows("as") || before.is_some_and(|(_, token)| **token == Token::Period) {
            continue;
        }
        match word.value.as_str() {
            "asymmetric" if follows("between") => {
                edits.insert(*at, Vec::new());
            }
            // The bound ends before the first AND that is not inside of something.
            "symmetric" if follows("between") => {
                if let Some((end, and)) = find_outside(rest, "and") {
                    edits.insert(*at, vec![quoted(SYMMETRIC), Token::LParen]);
                    edits.insert(end, vec![Token::RParen, and.clone()]);
                }
            }
            // `x ISNULL` is `x IS NULL`.
            "isnull" if before.is_some() => {
                edits.insert(*at, vec![Token::make_keyword("IS"), Token::make_keyword("NULL")]);
            }
            // `f(VARIADIC array)`
            "variadic" => {
                edits.insert(*at, vec![quoted(VARIADIC), Token::RArrow]);
            }
            // `trim(BOTH FROM x, characters)` is `btrim(x, characters)`.
            "trim" if rest.first().is_some_and(|(_, token)| **token == Token::LParen) => {
                let word = |place: usize, wanted: &str| {
                    rest.get(place).filter(|(_, token)| is_word(token, wanted)).map(|(at, _)| *at)
                };
                let sides = [("both", "btrim"), ("leading", "ltrim"), ("trailing", "rtrim")];
                let side = sides.iter().find_map(|(side, name)| Some((word(1, side)?, *name)));
                let (from, name) = match side {
                    Some((_, name)) => (word(2, "from"), name),
                    None => (word(1, "from"), "btrim"),
                };
                if let Some(from) = from {
                    edits.insert(*at, vec![plain(name)]);
                    edits.insert(from, Vec::new());
                    if let Some((side, _)) = side {
                        edits.insert(side, Vec::new());
                    }
                }
            }
            // `substring(x SIMILAR pattern ESCAPE escape)` is `substring(x FROM pattern FOR escape)`.
            "similar" if !rest.first().is_some_and(|(_, token)| is_word(token, "to")) => {
                if let Some((escape, _)) = find_outside(rest, "escape") {
                    edits.insert(*at, vec![Token::make_keyword("FROM")]);
                    edits.insert(escape, vec![Token::make_keyword("FOR")]);
                }
            }
            _ => {}
        }
    }
    if edits.is_empty() {
        return;
    }
    let mut respelled = Vec::with_capacity(tokens.len() + 2 * edits.len());
    for (at, token) in std::mem::take(tokens).into_iter().enumerate() {
        match edits.remove(&at) {
            None => respelled.push(token),
            Some(instead) => {
                respelled
                    .extend(instead.into_iter().map(|new| TokenWithSpan { token: new, span: token.span }));
            }
        }
    }
    *tokens = respelled;
}

/// The first such word that is in no parentheses, brackets or CASE of its own, before those around it end.
fn find_outside<'t>(tokens: &[(usize, &'t Token)], wanted: &str) -> Option<(usize, &'t Token)> {
    let mut depth = 0usize;
    for (at, token) in tokens {
        match token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket => depth = depth.checked_sub(1)?,
            word if is_word(word, "case") => depth += 1,
            word if is_word(word, "end") => depth = depth.checked_sub(1)?,
            word if depth == 0 && is_word(word, wanted) => return Some((*at, word)),
            _ => {}
        }
    }
    None
}

fn plain(name: &str) -> Token {
    Token::Word(Word { value: name.to_owned(), quote_style: None, keyword: Keyword::NoKeyword })
}

fn quoted(name: &str) -> Token {
    Token::Word(Word { value: name.to_owned(), quote_style: Some('"'), keyword: Keyword::NoKeyword })
}
