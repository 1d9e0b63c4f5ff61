//! LIKE, ILIKE and regular expressions.

use regex::{Regex, RegexBuilder};
use rustydb_types::datatype::BaseType;
use rustydb_types::value::Value;

use super::super::catalogue::FunctionFn;
use super::{Answer, mismatch, text};
use crate::error::{SqlError, SqlState};

/// The functions behind `LIKE .. ESCAPE` and `SIMILAR TO`.
pub(super) fn find(name: &str, args: &[BaseType]) -> Option<FunctionFn> {
    Some(match (name, args) {
        ("like_escape", [BaseType::Text, _]) => |a, _| {
            let escaped = like_escape(text(a, 0)?, escape_character(text(a, 1)?)?);
            escaped.map(Value::text)
        },
        ("similar_to_escape", [_, _]) => |a, _| {
            let escaped = similar_escape(text(a, 0)?, escape_character(text(a, 1)?)?);
            escaped.map(Value::text)
        },
        ("similar_to_escape", [_]) => |a, _| similar_escape(text(a, 0)?, Some('\\')).map(Value::text),
        _ => return None,
    })
}

/// What ESCAPE gives: one character, or none at all.
fn escape_character(escape: &str) -> Result<Option<char>, SqlError> {
    let mut characters = escape.chars();
    let first = characters.next();
    if characters.next().is_some() {
        return Err(SqlError::new(SqlState::INVALID_ESCAPE_SEQUENCE, "invalid escape string")
            .with_hint("Escape string must be empty or one character."));
    }
    Ok(first)
}

/// A LIKE pattern with another escape character, with backslash instead.
fn like_escape(pattern: &str, escape: Option<char>) -> Result<String, SqlError> {
    let mut out = String::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' if escape == Some('\\') => {
                out.push('\\');
                out.extend(characters.next());
            }
            _ if Some(character) == escape => {
                out.push('\\');
                out.extend(characters.next());
            }
            '\\' => out.push_str("\\\\"),
            _ => out.push(character),
        }
    }
    Ok(out)
}

/// A SIMILAR TO pattern as a regular expression.
fn similar_escape(pattern: &str, escape: Option<char>) -> Result<String, SqlError> {
    let mut out = String::from("^(?:");
    let mut in_brackets = false;
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            _ if Some(character) == escape => match characters.next() {
                Some('"') => {
                    return Err(SqlError::not_supported("escape-double-quote separators are not supported"));
                }
                Some(escaped) => {
                    out.push('\\');
                    out.push(escaped);
                }
                None => {}
            },
            '\\' => out.push_str("\\\\"),
            _ if in_brackets => {
                in_brackets = character != ']';
                out.push(character);
            }
            '[' => {
                in_brackets = true;
                out.push('[');
            }
            '%' => out.push_str(".*"),
            '_' => out.push('.'),
            '(' => out.push_str("(?:"),
            '.' | '^' | '$' => {
                out.push('\\');
                out.push(character);
            }
            _ => out.push(character),
        }
    }
    out.push_str(")$");
    Ok(out)
}

fn pair<'a>(a: &'a Value, b: &'a Value) -> Result<(&'a str, &'a str), SqlError> {
    match (a.as_str(), b.as_str()) {
        (Some(a), Some(b)) => Ok((a, b)),
        _ => Err(mismatch()),
    }
}

/// `text LIKE pattern` with backslash as the escape character.
pub(in super::super) fn like(a: &Value, b: &Value, fold: bool, negated: bool) -> Answer {
    let (text, pattern) = pair(a, b)?;
    let found = if fold {
        like_match(text.to_lowercase().as_bytes(), pattern.to_lowercase().as_bytes())?
    } else {
        like_match(text.as_bytes(), pattern.as_bytes())?
    };
    Ok(Value::Bool(found != negated))
}

/// `bytea LIKE bytea`
pub(in super::super) fn like_bytes(a: &Value, b: &Value, negated: bool) -> Answer {
    match (a, b) {
        (Value::Bytea(text), Value::Bytea(pattern)) => Ok(Value::Bool(like_match(text, pattern)? != negated)),
        _ => Err(mismatch()),
    }
}

/// Bytes of one UTF-8 character, so that `_` takes a whole one.
fn width(first: u8) -> usize {
    match first {
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    }
}

/// Matches greedily and returns to the last `%` on a mismatch, so the time is at most the product
/// of both lengths.
fn like_match(text: &[u8], pattern: &[u8]) -> Result<bool, SqlError> {
    let (mut t, mut p) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    loop {
        let matched = match pattern.get(p) {
            Some(b'%') => {
                back = Some((t, p + 1));
                p += 1;
                continue;
            }
            None if t >= text.len() => return Ok(true),
            Some(b'_') if t < text.len() => {
                t += text.get(t).map_or(1, |first| width(*first));
                p += 1;
                true
            }
            Some(b'\\') if t < text.len() => {
                let Some(literal) = pattern.get(p + 1) else {
                    return Err(SqlError::new(
                        SqlState::INVALID_ESCAPE_SEQUENCE,
                        "LIKE pattern must not end with escape character",
                    ));
                };
                let same = text.get(t) == Some(literal);
                if same {
                    t += 1;
                    p += 2;
                }
                same
            }
            Some(literal) if text.get(t) == Some(literal) => {
                t += 1;
                p += 1;
                true
            }
            _ => false,
        };
        if !matched {
            match back {
                Some((from, after)) if from < text.len() => {
                    t = from + text.get(from).map_or(1, |first| width(*first));
                    p = after;
                    back = Some((t, after));
                }
                _ => return Ok(false),
            }
        }
    }
}

/// Compiles a POSIX regular expression, with PostgreSQL's letters for options.
///
/// # Errors
/// 2201B when it is malformed or uses what the engine does not have (back references, lookaround).
pub(super) fn compile(pattern: &str, flags: &str) -> Result<Regex, SqlError> {
    let mut fold = false;
    let mut multi_line = false;
    let mut dot_all = true;
    let mut body = pattern;
    let mut literal = false;
    for flag in flags.chars() {
        match flag {
            'i' => fold = true,
            'c' => fold = false,
            'n' | 'm' => {
                multi_line = true;
                dot_all = false;
            }
            's' => {
                multi_line = false;
                dot_all = true;
            }
            'q' => literal = true,
            'g' | 't' | 'e' => {}
            other => {
                return Err(SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("invalid regular expression option: \"{other}\""),
                ));
            }
        }
    }
    // Director prefixes of PostgreSQL's advanced syntax.
    if let Some(rest) = body.strip_prefix("***=") {
        literal = true;
        body = rest;
    } else if let Some(rest) = body.strip_prefix("***:") {
        body = rest;
    }
    let translated = if literal { regex::escape(body) } else { translate(body) };
    RegexBuilder::new(&translated)
        .case_insensitive(fold)
        .multi_line(multi_line)
        .dot_matches_new_line(dot_all)
        .size_limit(10 << 20)
        .build()
        .map_err(|error| {
            let reason = error.to_string();
            let last = reason.lines().last().unwrap_or("").trim().to_owned();
            SqlError::new(SqlState::INVALID_REGULAR_EXPRESSION, format!("invalid regular expression: {last}"))
        })
}

/// PostgreSQL's `\m`, `\M`, `\y`, `\Y`, `\A`, `\Z` and bracket forms in the engine's spelling.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.chars().peekable();
    let mut in_bracket = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('m') if !in_bracket => out.push_str(r"\b{start}"),
                Some('M') if !in_bracket => out.push_str(r"\b{end}"),
                Some('y') if !in_bracket => out.push_str(r"\b"),
                Some('Y') if !in_bracket => out.push_str(r"\B"),
                Some('Z') if !in_bracket => out.push_str(r"\z"),
                Some(other) => {
                    out.push('\\');
                    out.push(other);
                }
                None => out.push('\\'),
            },
            '[' if !in_bracket => {
                in_bracket = true;
                out.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                if chars.next_if_eq(&']').is_some() {
                    out.push_str(r"\]");
                }
            }
            '[' => match chars.peek() {
                // `[:alpha:]` stays; a lone bracket inside is a literal.
                Some(':') => {
                    out.push('[');
                    for inner in chars.by_ref() {
                        out.push(inner);
                        if inner == ']' {
                            break;
                        }
                    }
                }
                _ => out.push_str(r"\["),
            },
            ']' if in_bracket => {
                in_bracket = false;
                out.push(']');
            }
            '&' | '~' if in_bracket => {
                out.push('\\');
                out.push(c);
            }
            // The engine would take a second quantifier; POSIX has no meaning for it.
            '*' | '+' if !in_bracket && matches!(chars.peek(), Some('*' | '+')) => {
                out.push(c);
                out.push_str("{,");
            }
            other => out.push(other),
        }
    }
    out
}

thread_local! {
    static LAST: std::cell::RefCell<Vec<(String, bool, Regex)>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Patterns that a thread keeps compiled.
const CACHED_MAX: usize = 16;

/// `text ~ pattern`; the last few patterns of a thread stay compiled.
pub(in super::super) fn matches(a: &Value, b: &Value, fold: bool, negated: bool) -> Answer {
    let (text, pattern) = pair(a, b)?;
    let found = LAST.with_borrow_mut(|cache| {
        if let Some((_, _, regex)) = cache.iter().find(|(p, f, _)| p == pattern && *f == fold) {
            return Ok::<bool, SqlError>(regex.is_match(text));
        }
        let regex = compile(pattern, if fold { "i" } else { "" })?;
        let found = regex.is_match(text);
        if cache.len() >= CACHED_MAX {
            cache.remove(0);
        }
        cache.push((pattern.to_owned(), fold, regex));
        Ok(found)
    })?;
    Ok(Value::Bool(found != negated))
}
