//! Strings.

use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::value::Value;

use super::super::catalogue::{FunctionFn, Invocation};
use super::{Answer, array, int, text};
use crate::error::{SqlError, SqlState};

/// Longest text that a function builds, in bytes.
const TEXT_MAX: usize = 256 << 20;

pub(super) fn find(name: &str, args: &[BaseType]) -> Option<FunctionFn> {
    let bytes = args.first() == Some(&BaseType::Bytea);
    Some(match name {
        "length" | "octet_length" if bytes => |a, _| match &a[0] {
            Value::Bytea(bytes) => Ok(Value::Int4(bytes.len() as i32)),
            _ => Ok(Value::Null),
        },
        "substr" | "substring" if bytes && args.get(1) == Some(&BaseType::Int4) => |a, _| {
            let Value::Bytea(bytes) = &a[0] else { return Err(super::mismatch()) };
            let (from, count) = span(a)?;
            Ok(Value::Bytea(bytes.iter().skip(from).take(count).copied().collect::<Vec<u8>>().into()))
        },
        "bit_length" if bytes => |a, _| match &a[0] {
            Value::Bytea(bytes) => Ok(Value::Int4(bytes.len() as i32 * 8)),
            _ => Ok(Value::Null),
        },
        _ if bytes => return None,
        "length" | "char_length" | "character_length" | "textlen" if args == [BaseType::Bpchar] => {
            |a, _| Ok(Value::Int4(text(a, 0)?.trim_end_matches(' ').chars().count() as i32))
        }
        "length" | "char_length" | "character_length" | "textlen" if args.len() == 1 => {
            |a, _| Ok(Value::Int4(text(a, 0)?.chars().count() as i32))
        }
        "octet_length" => |a, _| Ok(Value::Int4(text(a, 0)?.len() as i32)),
        "lower" => |a, _| Ok(Value::text(text(a, 0)?.to_lowercase())),
        "upper" => |a, _| Ok(Value::text(text(a, 0)?.to_uppercase())),
        "initcap" => |a, _| {
            let mut inside = false;
            let mut out = String::new();
            for c in text(a, 0)?.chars() {
                if inside {
                    out.extend(c.to_lowercase())
                } else {
                    out.extend(c.to_uppercase())
                }
                inside = c.is_alphanumeric();
            }
            Ok(Value::text(out))
        },
        "substr" | "substring" if args.get(1) == Some(&BaseType::Int4) => |a, _| {
            let (from, count) = span(a)?;
            Ok(Value::text(text(a, 0)?.chars().skip(from).take(count).collect::<String>()))
        },
        "bit_length" => |a, _| Ok(Value::Int4(text(a, 0)?.len() as i32 * 8)),
        "overlay" => |a, _| {
            let (whole, new) = (text(a, 0)?, text(a, 1)?);
            let start = int(a, 2)?;
            if start <= 0 {
                return Err(SqlError::new(
                    SqlState::SUBSTRING_ERROR,
                    "negative substring length not allowed",
                ));
            }
            let length = a.get(3).and_then(Value::as_i64).unwrap_or(new.chars().count() as i64);
            let head: String = whole.chars().take(start as usize - 1).collect();
            let skip = usize::try_from(start - 1 + length).unwrap_or(0);
            let tail: String = whole.chars().skip(skip).collect();
            built(format!("{head}{new}{tail}"))
        },
        "btrim" | "trim" => |a, _| trim(a, true, true),
        "ltrim" => |a, _| trim(a, true, false),
        "rtrim" => |a, _| trim(a, false, true),
        "strpos" | "position" => |a, _| {
            // `position(needle in hay)` arrives as position(hay, needle).
            let (hay, needle) = (text(a, 0)?, text(a, 1)?);
            let at =
                hay.find(needle).map_or(0, |at| hay.get(..at).map_or(0, |head| head.chars().count() + 1));
            Ok(Value::Int4(at as i32))
        },
        "replace" => |a, _| {
            let (whole, from, to) = (text(a, 0)?, text(a, 1)?, text(a, 2)?);
            if from.is_empty() {
                return Ok(a[0].clone());
            }
            // Many short places may become long ones: the size is known before anything is built.
            let growth = to.len().saturating_sub(from.len());
            if growth > 0 && whole.matches(from).count().saturating_mul(growth) > TEXT_MAX {
                return Err(too_long());
            }
            built(whole.replace(from, to))
        },
        "split_part" => |a, _| {
            let (whole, delimiter, field) = (text(a, 0)?, text(a, 1)?, int(a, 2)?);
            if field == 0 {
                return Err(SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    "field position must not be zero",
                ));
            }
            let parts: Vec<&str> =
                if delimiter.is_empty() { vec![whole] } else { whole.split(delimiter).collect() };
            let at = if field > 0 { field - 1 } else { parts.len() as i64 + field };
            Ok(Value::text(usize::try_from(at).ok().and_then(|at| parts.get(at)).copied().unwrap_or("")))
        },
        "left" => |a, _| {
            let whole = text(a, 0)?;
            let n = int(a, 1)?;
            let count = if n >= 0 { n } else { (whole.chars().count() as i64 + n).max(0) };
            Ok(Value::text(whole.chars().take(count as usize).collect::<String>()))
        },
        "right" => |a, _| {
            let whole = text(a, 0)?;
            let n = int(a, 1)?;
            let length = whole.chars().count() as i64;
            let skip = if n >= 0 { (length - n).max(0) } else { -n };
            Ok(Value::text(whole.chars().skip(skip as usize).collect::<String>()))
        },
        "lpad" => |a, _| pad(a, true),
        "rpad" => |a, _| pad(a, false),
        "repeat" => |a, _| {
            let (whole, count) = (text(a, 0)?, int(a, 1)?.max(0) as usize);
            if whole.len().saturating_mul(count) > TEXT_MAX {
                return Err(too_long());
            }
            Ok(Value::text(whole.repeat(count)))
        },
        "reverse" => |a, _| Ok(Value::text(text(a, 0)?.chars().rev().collect::<String>())),
        "concat" => |a, call| {
            let mut out = Joined::default();
            for (value, ty) in a.iter().zip(call.arg_types) {
                if !value.is_null() {
                    out.push(&array::wire_text(value, *ty, call.ctx))?;
                }
            }
            built(out.text)
        },
        "concat_ws" => |a, call| {
            let Some(separator) = a[0].as_str() else { return Ok(Value::Null) };
            let mut out = Joined::default();
            for (index, (value, ty)) in
                a.iter().zip(call.arg_types).skip(1).filter(|(value, _)| !value.is_null()).enumerate()
            {
                if index > 0 {
                    out.push(separator)?;
                }
                out.push(&array::wire_text(value, *ty, call.ctx))?;
            }
            built(out.text)
        },
        "quote_ident" => |a, _| built(quote_ident(text(a, 0)?)),
        "quote_literal" => |a, call| {
            let ty = call.arg_types.first().copied().unwrap_or(DataType::TEXT);
            built(quote_literal(&as_text(&a[0], ty, call)))
        },
        "quote_nullable" => |a, call| {
            let ty = call.arg_types.first().copied().unwrap_or(DataType::TEXT);
            let quoted = (!a[0].is_null()).then(|| quote_literal(&as_text(&a[0], ty, call)));
            built(quoted.unwrap_or_else(|| "NULL".to_owned()))
        },
        "format" => |a, call| format(a, call.arg_types, call.ctx),
        "ascii" => |a, _| Ok(Value::Int4(text(a, 0)?.chars().next().map_or(0, |c| c as i32))),
        "chr" => |a, _| {
            let n = int(a, 0)?;
            match u32::try_from(n).ok().filter(|n| *n > 0).and_then(char::from_u32) {
                Some(c) => Ok(Value::text(c.to_string())),
                None if n < 0 => {
                    Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "character number must be positive"))
                }
                None if n == 0 => {
                    Err(SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "null character not permitted"))
                }
                None => Err(SqlError::new(
                    SqlState::PROGRAM_LIMIT_EXCEEDED,
                    "requested character not valid for encoding: ".to_owned() + &n.to_string(),
                )),
            }
        },
        "translate" => |a, _| {
            let from: Vec<char> = text(a, 1)?.chars().collect();
            let to: Vec<char> = text(a, 2)?.chars().collect();
            Ok(Value::text(
                text(a, 0)?
                    .chars()
                    .filter_map(|c| match from.iter().position(|f| *f == c) {
                        Some(at) => to.get(at).copied(),
                        None => Some(c),
                    })
                    .collect::<String>(),
            ))
        },
        "starts_with" => |a, _| Ok(Value::Bool(text(a, 0)?.starts_with(text(a, 1)?))),
        _ => return None,
    })
}

/// Where `substr(text, start [, length])` begins (from 0) and how much it takes.
fn span(args: &[Value]) -> Result<(usize, usize), SqlError> {
    let start = int(args, 1)?;
    let end = match args.get(2).and_then(Value::as_i64) {
        Some(length) if length < 0 => {
            return Err(SqlError::new(SqlState::SUBSTRING_ERROR, "negative substring length not allowed"));
        }
        Some(length) => start.saturating_add(length),
        None => i64::MAX,
    };
    let from = start.max(1);
    Ok(((from - 1) as usize, usize::try_from(end.saturating_sub(from)).unwrap_or(0)))
}

fn too_long() -> SqlError {
    SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "requested length too large")
}

/// A value cast to text, which is not always what a client is sent.
fn as_text(value: &Value, ty: DataType, call: &Invocation<'_>) -> String {
    match value {
        Value::Bool(flag) => flag.to_string(),
        value => array::wire_text(value, ty, call.ctx),
    }
}

/// A text that is put together piece by piece, and does not grow too long.
#[derive(Debug, Default)]
pub(super) struct Joined {
    pub(super) text: String,
}

impl Joined {
    /// Adds a piece.
    ///
    /// # Errors
    /// 54000 when the text would be too long.
    pub(super) fn push(&mut self, piece: &str) -> Result<(), SqlError> {
        if self.text.len().saturating_add(piece.len()) > TEXT_MAX {
            return Err(too_long());
        }
        self.text.push_str(piece);
        Ok(())
    }
}

/// A text, unless it grew too long.
pub(super) fn built(out: String) -> Answer {
    if out.len() > TEXT_MAX { Err(too_long()) } else { Ok(Value::text(out)) }
}

fn trim(args: &[Value], left: bool, right: bool) -> Answer {
    let set: Vec<char> = args.get(1).and_then(Value::as_str).unwrap_or(" ").chars().collect();
    let mut rest = text(args, 0)?;
    if left {
        rest = rest.trim_start_matches(set.as_slice());
    }
    if right {
        rest = rest.trim_end_matches(set.as_slice());
    }
    Ok(Value::text(rest))
}

fn pad(args: &[Value], left: bool) -> Answer {
    let whole: Vec<char> = text(args, 0)?.chars().collect();
    let length = int(args, 1)?.max(0) as usize;
    if length > TEXT_MAX / 4 {
        return Err(too_long());
    }
    let fill = args.get(2).and_then(Value::as_str).unwrap_or(" ");
    let missing = if fill.is_empty() { 0 } else { length.saturating_sub(whole.len()) };
    let padding: String = fill.chars().cycle().take(missing).collect();
    let kept: String = whole.iter().take(length).collect();
    Ok(Value::text(if left { padding + &kept } else { kept + &padding }))
}

/// Words that must be quoted as identifiers.
const RESERVED: &str = " all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean both case cast char character check coalesce collate collation column concurrently constraint create cross current_catalog current_date current_role current_schema current_time current_timestamp current_user dec decimal default deferrable desc distinct do else end except exists extract false fetch float for foreign freeze from full grant greatest group grouping having ilike in initially inner inout int integer intersect interval into is isnull join lateral leading least left like limit localtime localtimestamp national natural nchar none normalize not notnull null nullif numeric offset on only or order out outer overlaps overlay placing position precision primary real references returning right row select session_user setof similar smallint some substring symmetric table tablesample then time timestamp to trailing treat trim true union unique user using values varchar variadic verbose when where window with xmlattributes xmlconcat xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable ";

/// An identifier as SQL text: quoted when it must be.
pub(in super::super) fn quote_ident(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && !RESERVED.contains(&format!(" {name} "));
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn quote_literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", doubled.replace('\\', "\\\\")) } else { format!("'{doubled}'") }
}

fn format(args: &[Value], types: &[DataType], ctx: &super::super::EvalContext<'_>) -> Answer {
    let Some(template) = args[0].as_str() else { return Ok(Value::Null) };
    let bad = |message: String| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message);
    let mut out = String::new();
    let mut next = 1;
    let mut chars = template.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let number =
            |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| -> Result<Option<usize>, SqlError> {
                let mut digits = String::new();
                while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                    digits.push(digit);
                }
                if digits.is_empty() {
                    return Ok(None);
                }
                match digits.parse::<i32>() {
                    Ok(n) => Ok(Some(n as usize)),
                    Err(_) => {
                        Err(SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "number is out of range"))
                    }
                }
            };
        let positioned = |at: usize| {
            if at == 0 {
                return Err(bad("format specifies argument 0, but arguments are numbered from 1".to_owned()));
            }
            Ok(at)
        };
        let argument = |index: usize| match (args.get(index), types.get(index)) {
            (Some(value), Some(ty)) => Ok((value, *ty)),
            _ => Err(bad("too few arguments for format()".to_owned())),
        };
        let mut at = None;
        let mut width = number(&mut chars)?.map(|n| n as i64);
        if let Some(n) = width
            && chars.next_if_eq(&'$').is_some()
        {
            at = Some(positioned(n as usize)?);
            width = None;
        }
        let mut left = false;
        if width.is_none() {
            while chars.next_if_eq(&'-').is_some() {
                left = true;
            }
            width = number(&mut chars)?.map(|n| n as i64);
        }
        if width.is_none() && chars.next_if_eq(&'*').is_some() {
            let index = match number(&mut chars)? {
                Some(n) => {
                    if chars.next_if_eq(&'$').is_none() {
                        return Err(bad("width argument position must be ended by \"$\"".to_owned()));
                    }
                    positioned(n)?
                }
                None => next,
            };
            next = index + 1;
            let (value, ty) = argument(index)?;
            width = match value {
                Value::Null => Some(0),
                value => match array::wire_text(value, ty, ctx).parse::<i32>() {
                    Ok(n) => Some(i64::from(n)),
                    Err(_) => return Err(bad("width argument is no integer".to_owned())),
                },
            };
        }
        let Some(kind) = chars.next() else {
            return Err(bad("unterminated format() type specifier".to_owned())
                .with_hint("For a single \"%\" use \"%%\"."));
        };
        if !matches!(kind, 's' | 'I' | 'L') {
            return Err(bad(format!("unrecognized format() type specifier \"{kind}\""))
                .with_hint("For a single \"%\" use \"%%\"."));
        }
        let index = at.unwrap_or(next);
        next = index + 1;
        let (value, ty) = argument(index)?;
        let plain = (!value.is_null()).then(|| array::wire_text(value, ty, ctx));
        let piece = match (kind, plain) {
            ('s', plain) => plain.unwrap_or_default(),
            ('L', plain) => plain.as_deref().map_or_else(|| "NULL".to_owned(), quote_literal),
            (_, Some(plain)) => quote_ident(&plain),
            (_, None) => {
                return Err(SqlError::new(
                    SqlState::NULL_VALUE_NOT_ALLOWED,
                    "null values cannot be formatted as an SQL identifier",
                ));
            }
        };
        let width = width.unwrap_or(0);
        left |= width < 0;
        let width = usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX);
        if out.len().saturating_add(width) > TEXT_MAX {
            return Err(too_long());
        }
        let fill = " ".repeat(width.saturating_sub(piece.chars().count()));
        if left {
            out.push_str(&piece);
            out.push_str(&fill)
        } else {
            out.push_str(&fill);
            out.push_str(&piece)
        }
    }
    built(out)
}
