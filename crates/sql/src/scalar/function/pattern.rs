//! LIKE, ILIKE and regular expressions.

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
        ("like", [BaseType::Bytea, _]) => |a, _| like_bytes(&a[0], &a[1], false),
        ("notlike", [BaseType::Bytea, _]) => |a, _| like_bytes(&a[0], &a[1], true),
        ("like", [_, _]) => |a, _| like(&a[0], &a[1], false, false),
        ("notlike", [_, _]) => |a, _| like(&a[0], &a[1], false, true),
        ("similar_escape", [_, _]) => |a, _| {
            let Some(pattern) = a[0].as_str() else { return Ok(Value::Null) };
            let escape = match a[1].as_str() {
                Some(escape) => escape_character(escape)?,
                None => Some('\\'),
            };
            similar_escape(pattern, escape).map(Value::text)
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
pub(super) fn escape_character(escape: &str) -> Result<Option<char>, SqlError> {
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

/// A SIMILAR TO pattern as a regular expression. Two escaped quotes part it in three: of what `substring` is to find,
/// the first part is as short as it can be.
pub(super) fn similar_escape(pattern: &str, escape: Option<char>) -> Result<String, SqlError> {
    let mut out = String::from("^(?:");
    let mut in_brackets = false;
    let mut separators = 0;
    let parts = escape.map_or(0, |escape| pattern.matches(&format!("{escape}\"")).count());
    let mut characters = pattern.chars().peekable();
    while let Some(character) = characters.next() {
        // Quantifiers of the first of three parts.
        let lazy = if parts > 0 && separators == 0 { "?" } else { "" };
        match character {
            _ if Some(character) == escape => match characters.next() {
                Some('"') => {
                    separators += 1;
                    match separators {
                        1 => out.push_str(")("),
                        2 => out.push_str(")(?:"),
                        _ => {
                            return Err(SqlError::new(
                                SqlState::from_code("2200C"),
                                "SQL regular expression may not contain more than two escape-double-quote separators",
                            ));
                        }
                    }
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
            '%' => {
                out.push_str(".*");
                out.push_str(lazy);
            }
            '*' | '+' | '?' | '}' => {
                out.push(character);
                out.push_str(lazy);
            }
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

pub(super) use super::matching::{compile, compile_test};

/// `text ~ pattern`
pub(in super::super) fn matches(a: &Value, b: &Value, fold: bool, negated: bool) -> Answer {
    let (text, pattern) = pair(a, b)?;
    let found = compile_test(pattern, if fold { "i" } else { "" })?.is_match(text);
    Ok(Value::Bool(found != negated))
}
