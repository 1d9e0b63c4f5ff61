//! The functions over regular expressions. Positions count characters from 1.

use regex::{Captures, Regex};
use rustydb_types::datatype::BaseType;
use rustydb_types::value::Value;

use super::super::catalogue::FunctionFn;
use super::{Answer, int, pattern, set, text};
use crate::error::{SqlError, SqlState};

pub(super) fn find(name: &str, args: &[BaseType]) -> Option<FunctionFn> {
    let bytes = args.first() == Some(&BaseType::Bytea);
    Some(match name {
        _ if bytes => return None,
        "substring" if args.len() == 2 && args.get(1) == Some(&BaseType::Text) => |a, _| {
            let regex = pattern::compile(text(a, 1)?, "")?;
            let found = regex.captures(text(a, 0)?);
            Ok(found
                .and_then(|found| found.get(usize::from(found.len() > 1)).map(|m| Value::text(m.as_str())))
                .unwrap_or(Value::Null))
        },
        "regexp_replace" if args.len() <= 4 && args.get(3) != Some(&BaseType::Int4) => |a, _| {
            let flags = flag(a, 3);
            let regex = pattern::compile(text(a, 1)?, flags)?;
            let nth = if flags.contains('g') { 0 } else { 1 };
            replace(text(a, 0)?, &regex, text(a, 2)?, 0, nth)
        },
        "regexp_replace" => |a, _| {
            let regex = pattern::compile(text(a, 1)?, flag(a, 5))?;
            let nth = match a.get(4) {
                Some(n) => n.as_i64().unwrap_or(0),
                None if flag(a, 5).contains('g') => 0,
                None => 1,
            };
            replace(text(a, 0)?, &regex, text(a, 2)?, from(a, 3)?, positive(nth, 0, "n")? as usize)
        },
        "regexp_match" => |a, _| {
            let regex = pattern::compile(text(a, 1)?, flag(a, 2))?;
            Ok(regex.captures(text(a, 0)?).map_or(Value::Null, |found| set::groups(&found)))
        },
        "regexp_like" => {
            |a, _| Ok(Value::Bool(pattern::compile(text(a, 1)?, flag(a, 2))?.is_match(text(a, 0)?)))
        }
        "regexp_count" => |a, _| {
            let regex = pattern::compile(text(a, 1)?, flag(a, 3))?;
            Ok(Value::Int4(matches(&regex, text(a, 0)?, from(a, 2)?).count() as i32))
        },
        "regexp_substr" => |a, _| {
            let regex = pattern::compile(text(a, 1)?, flag(a, 4))?;
            let found = nth_match(&regex, a, 3)?;
            let group = subexpression(a, 5)?;
            Ok(found
                .and_then(|found| found.get(group).map(|m| Value::text(m.as_str())))
                .unwrap_or(Value::Null))
        },
        "regexp_instr" => |a, _| {
            let regex = pattern::compile(text(a, 1)?, flag(a, 5))?;
            let at_end = match a.get(4).and_then(Value::as_i64).unwrap_or(0) {
                0 => false,
                1 => true,
                other => return Err(bad("endoption", other)),
            };
            let found = nth_match(&regex, a, 3)?;
            let place = found.and_then(|found| {
                found.get(subexpression(a, 6).ok()?).map(|m| if at_end { m.end() } else { m.start() })
            });
            let whole = text(a, 0)?;
            Ok(Value::Int4(
                place.map_or(0, |at| whole.get(..at).map_or(0, |head| head.chars().count() as i32 + 1)),
            ))
        },
        "regexp_split_to_array" => |a, _| {
            let regex = pattern::compile(text(a, 1)?, flag(a, 2))?;
            Ok(Value::array(
                BaseType::Text,
                split(&regex, text(a, 0)?).into_iter().map(Value::text).collect(),
            ))
        },
        _ => return None,
    })
}

fn flag(args: &[Value], at: usize) -> &str {
    args.get(at).and_then(Value::as_str).unwrap_or("")
}

fn bad(name: &str, value: i64) -> SqlError {
    SqlError::new(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("invalid value for parameter \"{name}\": {value}"),
    )
}

fn positive(n: i64, least: i64, name: &str) -> Result<i64, SqlError> {
    if n < least { Err(bad(name, n)) } else { Ok(n) }
}

/// The byte where a search starts, from a position in characters.
fn from(args: &[Value], at: usize) -> Result<usize, SqlError> {
    let Some(start) = args.get(at).and_then(Value::as_i64) else { return Ok(0) };
    let start = positive(start, 1, "start")?;
    let whole = text(args, 0)?;
    Ok(whole.char_indices().nth(start as usize - 1).map_or(whole.len(), |(at, _)| at))
}

fn subexpression(args: &[Value], at: usize) -> Result<usize, SqlError> {
    Ok(positive(args.get(at).and_then(Value::as_i64).unwrap_or(0), 0, "subexpr")? as usize)
}

fn nth_match<'t>(regex: &Regex, args: &'t [Value], at: usize) -> Result<Option<Captures<'t>>, SqlError> {
    let start = from(args, 2)?;
    let nth = positive(args.get(at).map_or(Ok(1), |_| int(args, at))?, 1, "n")?;
    Ok(matches(regex, text(args, 0)?, start).nth(nth as usize - 1))
}

/// All matches from a byte on; an empty one moves on by a character.
pub(super) fn matches<'t>(regex: &Regex, whole: &'t str, from: usize) -> impl Iterator<Item = Captures<'t>> {
    let mut at = Some(from);
    std::iter::from_fn(move || {
        let found = regex.captures_at(whole, at?)?;
        let span = found.get(0)?.range();
        at = if span.is_empty() {
            whole.get(span.end..)?.chars().next().map(|c| span.end + c.len_utf8())
        } else {
            Some(span.end)
        };
        Some(found)
    })
}

/// What lies between matches; empty matches at an edge or behind another match do not split.
pub(super) fn split<'t>(regex: &Regex, whole: &'t str) -> Vec<&'t str> {
    let mut parts = Vec::new();
    let mut end = 0;
    for found in matches(regex, whole, 0) {
        let Some(span) = found.get(0).map(|m| m.range()) else { continue };
        if span.is_empty() && (span.start == end || span.end == whole.len()) {
            continue;
        }
        parts.push(whole.get(end..span.start).unwrap_or(""));
        end = span.end;
    }
    parts.push(whole.get(end..).unwrap_or(""));
    parts
}

/// Replaces the `nth` match, or all when `nth` is 0.
fn replace(whole: &str, regex: &Regex, replacement: &str, start: usize, nth: usize) -> Answer {
    let mut out = String::with_capacity(whole.len());
    let mut end = 0;
    for (index, found) in matches(regex, whole, start).enumerate() {
        if nth != 0 && index + 1 != nth {
            continue;
        }
        let Some(span) = found.get(0).map(|m| m.range()) else { continue };
        out.push_str(whole.get(end..span.start).unwrap_or(""));
        expand(&mut out, replacement, &found);
        end = span.end;
        if nth != 0 {
            break;
        }
    }
    out.push_str(whole.get(end..).unwrap_or(""));
    super::string::built(out)
}

fn expand(out: &mut String, replacement: &str, found: &Captures<'_>) {
    let mut chars = replacement.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('&') => out.push_str(found.get(0).map_or("", |m| m.as_str())),
            Some(digit @ '1'..='9') => {
                let group = digit as usize - '0' as usize;
                out.push_str(found.get(group).map_or("", |m| m.as_str()));
            }
            Some('\\') | None => out.push('\\'),
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
        }
    }
}
