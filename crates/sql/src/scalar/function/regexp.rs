//! The functions over regular expressions. Positions count characters from 1.

use rustydb_types::datatype::BaseType;
use rustydb_types::value::Value;

use super::super::EvalContext;
use super::super::catalogue::FunctionFn;
use super::matching::{Captured, Pattern};
use super::string::Joined;
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
                .and_then(|found| found.text(usize::from(found.len() > 1)).map(Value::text))
                .unwrap_or(Value::Null))
        },
        // A pattern of SQL whose part between two escaped quotes is wanted.
        "substring" if args == [BaseType::Text; 3] => |a, _| {
            let escape = pattern::escape_character(text(a, 2)?)?;
            let regex = pattern::compile(&pattern::similar_escape(text(a, 1)?, escape)?, "")?;
            let found = regex.captures(text(a, 0)?);
            Ok(found
                .and_then(|found| found.text(usize::from(found.len() > 1)).map(Value::text))
                .unwrap_or(Value::Null))
        },
        "regexp_replace" if args.len() <= 4 && args.get(3) != Some(&BaseType::Int4) => |a, call| {
            let flags = flag(a, 3);
            let regex = pattern::compile(text(a, 1)?, flags)?;
            let nth = if flags.contains('g') { 0 } else { 1 };
            replace(text(a, 0)?, &regex, text(a, 2)?, (0, nth), call.ctx)
        },
        "regexp_replace" => |a, call| {
            let regex = pattern::compile(text(a, 1)?, flag(a, 5))?;
            let nth = match a.get(4) {
                Some(n) => n.as_i64().unwrap_or(0),
                None if flag(a, 5).contains('g') => 0,
                None => 1,
            };
            let nth = positive(nth, 0, "n")? as usize;
            replace(text(a, 0)?, &regex, text(a, 2)?, (from(a, 3)?, nth), call.ctx)
        },
        "regexp_match" => |a, call| {
            let regex = pattern::compile(text(a, 1)?, single(a, 2, call)?)?;
            Ok(regex.captures(text(a, 0)?).map_or(Value::Null, |found| set::groups(&found)))
        },
        "regexp_like" => |a, call| {
            Ok(Value::Bool(pattern::compile_test(text(a, 1)?, single(a, 2, call)?)?.is_match(text(a, 0)?)))
        },
        "regexp_count" => |a, call| {
            let regex = pattern::compile(text(a, 1)?, single(a, 3, call)?)?;
            let mut count = 0;
            for _ in matches(&regex, text(a, 0)?, from(a, 2)?) {
                check_cancel(call.ctx)?;
                count += 1;
            }
            Ok(Value::Int4(count))
        },
        "regexp_substr" => |a, call| {
            let regex = pattern::compile(text(a, 1)?, single(a, 4, call)?)?;
            let found = nth_match(&regex, a, 3)?;
            let group = subexpression(a, 5)?;
            Ok(found.and_then(|found| found.text(group).map(Value::text)).unwrap_or(Value::Null))
        },
        "regexp_instr" => |a, call| {
            let regex = pattern::compile(text(a, 1)?, single(a, 5, call)?)?;
            let at_end = match a.get(4).and_then(Value::as_i64).unwrap_or(0) {
                0 => false,
                1 => true,
                other => return Err(bad("endoption", other)),
            };
            let group = subexpression(a, 6)?;
            let found = nth_match(&regex, a, 3)?;
            let place = found
                .and_then(|found| found.span(group).map(|span| if at_end { span.end } else { span.start }));
            let whole = text(a, 0)?;
            Ok(Value::Int4(
                place.map_or(0, |at| whole.get(..at).map_or(0, |head| head.chars().count() as i32 + 1)),
            ))
        },
        "regexp_split_to_array" => |a, call| {
            let regex = pattern::compile(text(a, 1)?, single(a, 2, call)?)?;
            Ok(Value::array(
                BaseType::Text,
                split(&regex, text(a, 0)?, call.ctx)?.into_iter().map(Value::text).collect(),
            ))
        },
        _ => return None,
    })
}

fn flag(args: &[Value], at: usize) -> &str {
    args.get(at).and_then(Value::as_str).unwrap_or("")
}

/// The options of a function that looks for all matches, or for one, and cannot be told which.
pub(super) fn single<'a>(
    args: &'a [Value],
    at: usize,
    call: &super::super::catalogue::Invocation<'_>,
) -> Result<&'a str, SqlError> {
    let flags = flag(args, at);
    if !flags.contains('g') {
        return Ok(flags);
    }
    let name = call.function.name;
    let error = SqlError::new(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("{name}() does not support the \"global\" option"),
    );
    Err(if name == "regexp_match" {
        error.with_hint("Use the regexp_matches function instead.")
    } else {
        error
    })
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

fn nth_match<'t>(regex: &Pattern, args: &'t [Value], at: usize) -> Result<Option<Captured<'t>>, SqlError> {
    let start = from(args, 2)?;
    let nth = positive(args.get(at).map_or(Ok(1), |_| int(args, at))?, 1, "n")?;
    Ok(matches(regex, text(args, 0)?, start).nth(nth as usize - 1))
}

/// All matches from a byte on; an empty one moves on by a character.
pub(super) fn matches<'t>(
    regex: &Pattern,
    whole: &'t str,
    from: usize,
) -> impl Iterator<Item = Captured<'t>> {
    let mut at = Some(from);
    std::iter::from_fn(move || {
        let found = regex.captures_at(whole, at?)?;
        let span = found.span(0)?;
        at = if span.is_empty() {
            whole.get(span.end..)?.chars().next().map(|c| span.end + c.len_utf8())
        } else {
            Some(span.end)
        };
        Some(found)
    })
}

/// What lies between matches; empty matches at an edge or behind another match do not split.
pub(super) fn split<'t>(
    regex: &Pattern,
    whole: &'t str,
    ctx: &EvalContext<'_>,
) -> Result<Vec<&'t str>, SqlError> {
    let mut parts = Vec::new();
    let mut end = 0;
    for found in matches(regex, whole, 0) {
        check_cancel(ctx)?;
        let Some(span) = found.span(0) else { continue };
        if span.is_empty() && (span.start == end || span.end == whole.len()) {
            continue;
        }
        parts.push(whole.get(end..span.start).unwrap_or(""));
        end = span.end;
    }
    parts.push(whole.get(end..).unwrap_or(""));
    Ok(parts)
}

/// Replaces the `nth` match, or all when `nth` is 0.
fn replace(
    whole: &str,
    regex: &Pattern,
    replacement: &str,
    (start, nth): (usize, usize),
    ctx: &EvalContext<'_>,
) -> Answer {
    let mut out = Joined::default();
    let mut end = 0;
    for (index, found) in matches(regex, whole, start).enumerate() {
        check_cancel(ctx)?;
        if nth != 0 && index + 1 != nth {
            continue;
        }
        let Some(span) = found.span(0) else { continue };
        out.push(whole.get(end..span.start).unwrap_or(""))?;
        expand(&mut out, replacement, &found)?;
        end = span.end;
        if nth != 0 {
            break;
        }
    }
    out.push(whole.get(end..).unwrap_or(""))?;
    Ok(Value::text(out.text))
}

fn expand(out: &mut Joined, replacement: &str, found: &Captured<'_>) -> Result<(), SqlError> {
    let mut rest = replacement;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        out.push(plain)?;
        let mut tail = escaped.chars();
        match tail.next() {
            Some('&') => out.push(found.text(0).unwrap_or(""))?,
            Some(digit @ '1'..='9') => {
                let group = digit as usize - '0' as usize;
                out.push(found.text(group).unwrap_or(""))?;
            }
            Some('\\') | None => out.push("\\")?,
            Some(other) => {
                out.push("\\")?;
                out.push(other.encode_utf8(&mut [0; 4]))?;
            }
        }
        rest = tail.as_str();
    }
    out.push(rest)
}

/// A search may be long; whoever waits for it may give up between two matches.
fn check_cancel(ctx: &EvalContext<'_>) -> Result<(), SqlError> {
    ctx.run.map_or(Ok(()), |run| run.state.check_cancel())
}
