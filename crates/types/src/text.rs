//! Text form of every type: what PostgreSQL reads and prints (ISO dates, hex bytea, shortest floats).

use std::fmt::Write;

use crate::datatype::{BaseType, DataType};
use crate::datetime::{self, Zone};
use crate::interval_fields::IntervalFields;
use crate::json;
use crate::value::{ArrayDimension, ArrayValue, Value};
use crate::value_error::ValueError;

/// What reading and printing depend on beside the type.
#[derive(Clone, Copy, Debug)]
pub struct TextContext {
    /// Zone of `timestamptz`.
    pub zone: Zone,
    /// Current time, microseconds since 2000-01-01 UTC, for `now`, `today`, ...
    pub now: i64,
}

impl TextContext {
    /// UTC with a clock that stands at 2000-01-01.
    pub const UTC: TextContext = TextContext { zone: Zone::UTC, now: 0 };
}

/// Prints a value. NULL prints as nothing; callers handle it before.
pub fn text_out(value: &Value, ty: DataType, ctx: &TextContext) -> String {
    let mut out = String::new();
    write_text(&mut out, value, ty, ctx);
    out
}

/// Appends the text of a value.
pub fn write_text(out: &mut String, value: &Value, ty: DataType, ctx: &TextContext) {
    match value {
        Value::Null => {}
        Value::Bool(flag) => out.push(if *flag { 't' } else { 'f' }),
        Value::Int2(n) => drop(write!(out, "{n}")),
        Value::Int4(n) => drop(write!(out, "{n}")),
        Value::Int8(n) => drop(write!(out, "{n}")),
        Value::Oid(n) => drop(write!(out, "{n}")),
        Value::Float4(n) => out.push_str(&format_float4(*n)),
        Value::Float8(n) => out.push_str(&format_float8(*n)),
        Value::Numeric(n) => drop(write!(out, "{n}")),
        Value::Text(text) => out.push_str(text),
        Value::Bytea(bytes) => {
            out.push_str("\\x");
            for byte in bytes.iter() {
                let _ = write!(out, "{byte:02x}");
            }
        }
        Value::Date(days) => out.push_str(&datetime::format_date(*days)),
        Value::Time(micros) => out.push_str(&datetime::format_time(*micros)),
        Value::Timestamp(micros) => out.push_str(&datetime::format_timestamp(*micros)),
        Value::Timestamptz(utc) => out.push_str(&datetime::format_timestamptz(*utc, ctx.zone)),
        Value::Interval(interval) => out.push_str(&datetime::format_interval(interval)),
        Value::Uuid(bytes) => drop(write!(out, "{}", uuid::Uuid::from_bytes(*bytes))),
        Value::Lsn(n) => drop(write!(out, "{:X}/{:X}", n >> 32, n & 0xffff_ffff)),
        Value::Array(array) => write_array(out, array, ty, ctx),
        Value::Record(fields) => write_record(out, fields, ctx),
        Value::Jsonb(json) => json.write(out),
        Value::Enum(value) => out.push_str(value.text()),
    }
}

/// A double in the fewest digits that read back equal.
pub fn format_float8(n: f64) -> String {
    special_float(n).unwrap_or_else(|| layout_float(&format!("{n:e}"), 15))
}

/// A real in the fewest digits that read back equal.
pub fn format_float4(n: f32) -> String {
    special_float(f64::from(n)).unwrap_or_else(|| layout_float(&format!("{n:e}"), 6))
}

fn special_float(n: f64) -> Option<String> {
    if n.is_nan() {
        Some("NaN".to_owned())
    } else if n.is_infinite() {
        Some(if n > 0.0 { "Infinity" } else { "-Infinity" }.to_owned())
    } else {
        None
    }
}

/// Lays out `d.ddde±x`: plain from 1e-4 up to `digits` digits, else with an exponent.
fn layout_float(scientific: &str, digits: i32) -> String {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let figures: String = mantissa.chars().filter(|c| *c != '.').collect();
    if exponent < -4 || exponent >= digits {
        let mark = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{mantissa}e{mark}{:02}", exponent.abs());
    }
    if exponent < 0 {
        let zeros = "0".repeat((-exponent - 1) as usize);
        return format!("{sign}0.{zeros}{figures}");
    }
    let whole = exponent as usize + 1;
    if figures.len() <= whole {
        let zeros = "0".repeat(whole - figures.len());
        return format!("{sign}{figures}{zeros}");
    }
    let (before, after) = figures.split_at(whole);
    format!("{sign}{before}.{after}")
}

fn write_array(out: &mut String, array: &ArrayValue, ty: DataType, ctx: &TextContext) {
    if matches!(ty.base, BaseType::Int2Vector | BaseType::OidVector) {
        for (at, element) in array.elements.iter().enumerate() {
            if at > 0 {
                out.push(' ');
            }
            write_text(out, element, DataType::plain(array.element), ctx);
        }
        return;
    }
    if array.elements.is_empty() {
        out.push_str("{}");
        return;
    }
    if array.dimensions.iter().any(|dimension| dimension.lower != 1) {
        for dimension in &array.dimensions {
            let _ = write!(out, "[{}:{}]", dimension.lower, dimension.lower + dimension.length - 1);
        }
        out.push('=');
    }
    let mut elements = array.elements.iter();
    write_dimension(out, &array.dimensions, &mut elements, DataType::plain(array.element), ctx);
}

fn write_dimension(
    out: &mut String,
    dimensions: &[ArrayDimension],
    elements: &mut std::slice::Iter<'_, Value>,
    ty: DataType,
    ctx: &TextContext,
) {
    let Some((first, rest)) = dimensions.split_first() else { return };
    out.push('{');
    for at in 0..first.length {
        if at > 0 {
            out.push(',');
        }
        if !rest.is_empty() {
            write_dimension(out, rest, elements, ty, ctx);
            continue;
        }
        match elements.next() {
            None | Some(Value::Null) => out.push_str("NULL"),
            Some(element) => {
                let text = text_out(element, ty, ctx);
                let special = |c: char| {
                    matches!(c, '{' | '}' | ',' | '"' | '\\') || c.is_ascii_whitespace() || c == '\x0b'
                };
                if text.is_empty() || text.eq_ignore_ascii_case("null") || text.contains(special) {
                    write_quoted(out, &text);
                } else {
                    out.push_str(&text);
                }
            }
        }
    }
    out.push('}');
}

fn write_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        if c == '"' || c == '\\' {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

fn write_record(out: &mut String, fields: &[Value], ctx: &TextContext) {
    out.push('(');
    for (at, field) in fields.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        if field.is_null() {
            continue;
        }
        let text = text_out(field, DataType::RECORD, ctx);
        let special = |c: char| matches!(c, '(' | ')' | ',' | '"' | '\\') || c.is_ascii_whitespace();
        if text.is_empty() || text.contains(special) {
            out.push('"');
            out.push_str(&text.replace('\\', "\\\\").replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(&text);
        }
    }
    out.push(')');
}

/// Reads text as a type whose modifier may say how: what a bare number counts in `interval hour`. The value is still
/// to be fitted to the modifier.
///
/// # Errors
/// As [`text_in`].
pub fn text_in_as(input: &str, ty: DataType, ctx: &TextContext) -> Result<Value, ValueError> {
    match IntervalFields::of_modifier(ty.modifier) {
        Some(fields) if ty.base == BaseType::Interval => {
            Ok(Value::Interval(Box::new(datetime::parse_interval_of(input, Some(fields))?)))
        }
        _ => text_in(input, ty.base, ctx),
    }
}

/// Reads a value of a type, without applying a length modifier (see `fit_modifier`).
///
/// # Errors
/// 22P02, 22003, 22007, 22008 as PostgreSQL gives them; 0A000 for types that have no input.
pub fn text_in(input: &str, base: BaseType, ctx: &TextContext) -> Result<Value, ValueError> {
    let trimmed = input.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
    Ok(match base {
        BaseType::Bool => {
            Value::Bool(parse_bool(trimmed).ok_or_else(|| ValueError::syntax("boolean", input))?)
        }
        BaseType::Int2 => Value::Int2(parse_integer(input, trimmed, base)?),
        BaseType::Int4 => Value::Int4(parse_integer(input, trimmed, base)?),
        BaseType::Int8 => Value::Int8(parse_integer(input, trimmed, base)?),
        BaseType::Float4 => {
            let n = parse_float(input, trimmed, base)? as f32;
            let exact: f32 = trimmed.parse().unwrap_or(n);
            let spelled =
                trimmed.trim_start_matches(['+', '-']).starts_with(|c: char| c.is_ascii_alphabetic());
            if exact.is_infinite() && !spelled || exact == 0.0 && has_nonzero_digit(trimmed) {
                return Err(ValueError::new("22003", format!("\"{input}\" is out of range for type real")));
            }
            Value::Float4(exact)
        }
        BaseType::Float8 => Value::Float8(parse_float(input, trimmed, base)?),
        BaseType::Numeric => Value::Numeric(Box::new(input.parse().map_err(|error: ValueError| {
            if error.state == "22P02" { ValueError::syntax("numeric", input) } else { error }
        })?)),
        BaseType::Bytea => Value::Bytea(parse_bytea(input)?.into()),
        BaseType::Date => Value::Date(datetime::parse_date(input, ctx.zone.to_local(ctx.now))?),
        BaseType::Time => Value::Time(datetime::parse_time(input, ctx.zone.to_local(ctx.now))?),
        BaseType::Timestamp => {
            Value::Timestamp(datetime::parse_timestamp(input, ctx.zone.to_local(ctx.now))?)
        }
        BaseType::Timestamptz => Value::Timestamptz(datetime::parse_timestamptz(input, ctx.now, ctx.zone)?),
        BaseType::Interval => Value::Interval(Box::new(datetime::parse_interval(input)?)),
        BaseType::Uuid => Value::Uuid(parse_uuid(input)?),
        BaseType::PgLsn => {
            let parsed = trimmed.split_once('/').and_then(|(high, low)| {
                let part = |text: &str| u32::from_str_radix(text, 16).ok().filter(|_| text.len() <= 8);
                Some((u64::from(part(high)?) << 32) | u64::from(part(low)?))
            });
            Value::Lsn(parsed.ok_or_else(|| ValueError::syntax("pg_lsn", input))?)
        }
        BaseType::Char => {
            let first = input.chars().next().map(String::from).unwrap_or_default();
            Value::text(first)
        }
        BaseType::Name => Value::text(truncate_name(input)),
        BaseType::Int2Vector | BaseType::OidVector => {
            let element = base.element().unwrap_or(BaseType::Oid);
            let elements = trimmed
                .split_ascii_whitespace()
                .map(|word| text_in(word, element, ctx))
                .collect::<Result<Vec<_>, _>>()?;
            Value::Array(Box::new(ArrayValue::vector(element, elements)))
        }
        BaseType::Json => {
            json::text::parse(input)?;
            Value::text(input)
        }
        BaseType::Jsonb => Value::Jsonb(json::text::read(input)?.into()),
        BaseType::Enum(of) => Value::Enum(of.read(input)?),
        _ if base.is_text_like() => Value::text(input),
        _ if base.is_oid_like() => Value::Oid(parse_oid(input, trimmed, base)?),
        _ => match base.element() {
            Some(element) => parse_array(input, element, ctx)?,
            None => {
                return Err(ValueError::new("0A000", format!("cannot accept a value of type {base}")));
            }
        },
    })
}

/// A name cut to 63 bytes at a character's edge.
pub fn truncate_name(name: &str) -> &str {
    let mut end = name.len().min(63);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or(name)
}

fn parse_bool(text: &str) -> Option<bool> {
    let lower = text.to_ascii_lowercase();
    let starts = |word: &str, least: usize| lower.len() >= least && word.starts_with(&lower);
    if starts("true", 1) || starts("yes", 1) || lower == "on" || lower == "1" {
        Some(true)
    } else if starts("false", 1) || starts("no", 1) || starts("off", 2) || lower == "0" {
        Some(false)
    } else {
        None
    }
}

fn parse_integer<T: TryFrom<i128>>(input: &str, trimmed: &str, base: BaseType) -> Result<T, ValueError> {
    let digits = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ValueError::syntax(base.sql_name(), input));
    }
    trimmed
        .parse::<i128>()
        .ok()
        .and_then(|n| T::try_from(n).ok())
        .ok_or_else(|| ValueError::input_out_of_range(base.sql_name(), input))
}

fn parse_oid(input: &str, trimmed: &str, base: BaseType) -> Result<u32, ValueError> {
    let n: i64 = parse_integer(input, trimmed, BaseType::Oid).map_err(|error| {
        if error.state == "22P02" { ValueError::syntax(base.sql_name(), input) } else { error }
    })?;
    u32::try_from(n)
        .or_else(|_| i32::try_from(n).map(|n| n as u32))
        .map_err(|_| ValueError::input_out_of_range(base.sql_name(), input))
}

fn has_nonzero_digit(text: &str) -> bool {
    text.split(['e', 'E']).next().unwrap_or("").bytes().any(|b| (b'1'..=b'9').contains(&b))
}

fn parse_float(input: &str, trimmed: &str, base: BaseType) -> Result<f64, ValueError> {
    let syntax = || ValueError::syntax(base.sql_name(), input);
    let unsigned = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
    if unsigned.starts_with(|c: char| c.is_ascii_alphabetic()) {
        let sign = if trimmed.starts_with('-') { -1.0 } else { 1.0 };
        return match unsigned.to_ascii_lowercase().as_str() {
            "nan" => Ok(f64::NAN),
            "inf" | "infinity" => Ok(sign * f64::INFINITY),
            _ => Err(syntax()),
        };
    }
    let n: f64 = trimmed.parse().map_err(|_| syntax())?;
    if n.is_infinite() || n == 0.0 && has_nonzero_digit(trimmed) {
        return Err(ValueError::new(
            "22003",
            format!("\"{input}\" is out of range for type {}", base.sql_name()),
        ));
    }
    Ok(n)
}

fn parse_bytea(input: &str) -> Result<Vec<u8>, ValueError> {
    if let Some(hex) = input.strip_prefix("\\x") {
        let digits: Vec<char> = hex.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let mut bytes = Vec::with_capacity(digits.len() / 2);
        let nibble = |c: char| {
            c.to_digit(16)
                .ok_or_else(|| ValueError::new("22023", format!("invalid hexadecimal digit: \"{c}\"")))
        };
        for pair in digits.chunks(2) {
            match *pair {
                [high, low] => bytes.push((nibble(high)? * 16 + nibble(low)?) as u8),
                _ => return Err(ValueError::new("22023", "invalid hexadecimal data: odd number of digits")),
            }
        }
        return Ok(bytes);
    }
    let mut bytes = Vec::with_capacity(input.len());
    let mut rest = input.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'\\', [b'\\', after @ ..]) => {
                bytes.push(b'\\');
                rest = after;
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = after;
            }
            (b'\\', _) => return Err(ValueError::syntax("bytea", input)),
            (other, after) => {
                bytes.push(*other);
                rest = after;
            }
        }
    }
    Ok(bytes)
}

fn parse_uuid(input: &str) -> Result<[u8; 16], ValueError> {
    let syntax = || ValueError::syntax("uuid", input);
    let inner = match input.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}').ok_or_else(syntax)?,
        None => input,
    };
    let mut bytes = [0u8; 16];
    let mut digits = inner.chars().peekable();
    for (at, byte) in bytes.iter_mut().enumerate() {
        let mut nibble = || digits.next().and_then(|c| c.to_digit(16)).ok_or_else(syntax);
        *byte = (nibble()? * 16 + nibble()?) as u8;
        if at % 2 == 1 && at < 15 && digits.peek() == Some(&'-') {
            digits.next();
        }
    }
    if digits.next().is_some() { Err(syntax()) } else { Ok(bytes) }
}

fn parse_array(input: &str, element: BaseType, ctx: &TextContext) -> Result<Value, ValueError> {
    let malformed = |detail: &str| {
        ValueError::new("22P02", format!("malformed array literal: \"{input}\"")).with_detail(detail)
    };
    let mut text = input.trim();
    let mut lowers: Vec<i32> = Vec::new();
    if text.starts_with('[') {
        let (bounds, rest) =
            text.split_once('=').ok_or_else(|| malformed("Missing \"=\" after array dimensions."))?;
        for bound in bounds.trim().trim_start_matches('[').trim_end_matches(']').split("][") {
            let lower = bound.split_once(':').map_or("1", |(lower, _)| lower);
            lowers.push(
                lower
                    .trim()
                    .parse()
                    .map_err(|_| malformed("\"[\" must introduce explicitly-specified array dimensions."))?,
            );
        }
        text = rest.trim_start();
    }
    if !text.starts_with('{') {
        return Err(malformed("Array value must start with \"{\" or dimension information."));
    }
    let mut parser = ArrayParser {
        rest: text.char_indices().peekable(),
        elements: Vec::new(),
        lengths: Vec::new(),
        element,
        ctx,
    };
    parser.dimension(0).ok_or_else(|| malformed("Unexpected array element.")).and_then(|inner| inner)?;
    if parser.rest.any(|(_, c)| !c.is_whitespace()) {
        return Err(malformed("Junk after closing right brace."));
    }
    if parser.elements.is_empty() {
        return Ok(Value::array(element, Vec::new()));
    }
    let dimensions = parser
        .lengths
        .iter()
        .enumerate()
        .map(|(at, length)| ArrayDimension::new(*length, lowers.get(at).copied().unwrap_or(1)))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Value::Array(Box::new(ArrayValue { element, dimensions, elements: parser.elements })))
}

struct ArrayParser<'a> {
    rest: std::iter::Peekable<std::str::CharIndices<'a>>,
    elements: Vec<Value>,
    lengths: Vec<i32>,
    element: BaseType,
    ctx: &'a TextContext,
}

impl ArrayParser<'_> {
    fn skip_space(&mut self) -> Option<char> {
        while self.rest.next_if(|(_, c)| c.is_whitespace()).is_some() {}
        self.rest.peek().map(|(_, c)| *c)
    }

    /// Reads `{...}`; `None` means malformed, an inner error is an element's own.
    fn dimension(&mut self, depth: usize) -> Option<Result<(), ValueError>> {
        self.rest.next();
        if depth >= 6 {
            return None;
        }
        let mut count = 0;
        let mut scalars = false;
        if self.skip_space()? == '}' {
            self.rest.next();
            // Only the whole array may be empty.
            return (depth == 0).then_some(Ok(()));
        }
        loop {
            if self.skip_space()? == '{' {
                // Either all items of a level are arrays or none is.
                if scalars {
                    return None;
                }
                if let Err(error) = self.dimension(depth + 1)? {
                    return Some(Err(error));
                }
            } else {
                if self.lengths.len() > depth + 1 {
                    return None;
                }
                scalars = true;
                let (text, quoted) = self.token()?;
                if !quoted && text.eq_ignore_ascii_case("null") {
                    self.elements.push(Value::Null);
                } else {
                    match text_in(&text, self.element, self.ctx) {
                        Ok(value) => self.elements.push(value),
                        Err(error) => return Some(Err(error)),
                    }
                }
            }
            count += 1;
            match (self.skip_space()?, self.rest.next()) {
                (',', _) => {}
                ('}', _) => break,
                _ => return None,
            }
        }
        while self.lengths.len() <= depth {
            self.lengths.push(-1);
        }
        let length = self.lengths.get_mut(depth)?;
        if *length >= 0 && *length != count {
            return None;
        }
        *length = count;
        Some(Ok(()))
    }

    fn token(&mut self) -> Option<(String, bool)> {
        let mut text = String::new();
        if self.rest.next_if(|(_, c)| *c == '"').is_some() {
            loop {
                match self.rest.next()?.1 {
                    '"' => return Some((text, true)),
                    '\\' => text.push(self.rest.next()?.1),
                    c => text.push(c),
                }
            }
        }
        let mut escaped = false;
        while let Some((_, c)) = self.rest.next_if(|(_, c)| !matches!(c, ',' | '}' | '{' | '"')) {
            if c == '\\' {
                text.push(self.rest.next()?.1);
                escaped = true;
            } else {
                text.push(c);
            }
        }
        let trimmed = text.trim_end();
        if trimmed.is_empty() && !escaped {
            return None;
        }
        Some((trimmed.to_owned(), escaped))
    }
}

/// Applies a type's modifier to a value of the type: cuts or pads strings, rounds numbers and times.
///
/// # Errors
/// 22001 for a string that is too long (unless `explicit`, which cuts), 22003 for a numeric.
pub fn fit_modifier(value: Value, ty: DataType, explicit: bool) -> Result<Value, ValueError> {
    if ty.modifier < 0 {
        return Ok(value);
    }
    match (ty.base, value) {
        (BaseType::Varchar | BaseType::Bpchar, Value::Text(text)) => {
            let Some(length) = ty.length() else { return Ok(Value::Text(text)) };
            let fitted = fit_length(&text, length, ty, explicit)?;
            Ok(match fitted {
                Some(changed) => Value::text(changed),
                None => Value::Text(text),
            })
        }
        (BaseType::Numeric, Value::Numeric(n)) => match ty.numeric_modifier() {
            Some(modifier) => Ok(Value::Numeric(Box::new(n.fit(modifier)?))),
            None => Ok(Value::Numeric(n)),
        },
        (_, Value::Time(n)) => Ok(Value::Time(datetime::round_micros(n, ty.time_precision().unwrap_or(6)))),
        (_, Value::Timestamp(n)) if n != i64::MIN && n != i64::MAX => {
            Ok(Value::Timestamp(datetime::round_micros(n, ty.time_precision().unwrap_or(6))))
        }
        (_, Value::Timestamptz(n)) if n != i64::MIN && n != i64::MAX => {
            Ok(Value::Timestamptz(datetime::round_micros(n, ty.time_precision().unwrap_or(6))))
        }
        (_, Value::Interval(mut interval)) => {
            if let Some(fields) = IntervalFields::of_modifier(ty.modifier) {
                fields.cut(&mut interval);
            }
            interval.micros = datetime::round_micros(interval.micros, ty.time_precision().unwrap_or(6));
            Ok(Value::Interval(interval))
        }
        (_, Value::Array(mut array)) => {
            let Some(element) = ty.element() else { return Ok(Value::Array(array)) };
            array.elements = array
                .elements
                .into_iter()
                .map(|value| fit_modifier(value, element, explicit))
                .collect::<Result<Vec<_>, _>>()?;
            Ok(Value::Array(array))
        }
        (_, other) => Ok(other),
    }
}

fn fit_length(text: &str, length: usize, ty: DataType, explicit: bool) -> Result<Option<String>, ValueError> {
    let count = text.chars().count();
    if count > length {
        let cut: String = text.chars().take(length).collect();
        let blank_rest = text.chars().skip(length).all(|c| c == ' ');
        if explicit || blank_rest {
            return Ok(Some(cut));
        }
        return Err(ValueError::new("22001", format!("value too long for type {ty}")));
    }
    if ty.base == BaseType::Bpchar && count < length {
        return Ok(Some(format!("{text}{}", " ".repeat(length - count))));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscripts_of_an_array_do_not_go_beyond_an_integer() {
        let read = |text| text_in(text, BaseType::Int4.array().unwrap(), &TextContext::UTC);
        for text in ["[2147483647:2147483647]={1}", "[2147483646:2147483647]={1,2}"] {
            assert_eq!(read(text).unwrap_err().kind(), "54000", "{text}");
        }
        let last = read("[2147483645:2147483646]={1,2}").unwrap();
        let ty = DataType::plain(BaseType::Int4.array().unwrap());
        assert_eq!(text_out(&last, ty, &TextContext::UTC), "[2147483645:2147483646]={1,2}");
        // One dimension, no nulls, integers, one element from the last subscript on.
        let words: [i32; 7] = [1, 0, 23, 1, i32::MAX, 4, 1];
        let bytes: Vec<u8> = words.into_iter().flat_map(i32::to_be_bytes).collect();
        assert_eq!(crate::binary::binary_in(&bytes, ty.base).unwrap_err().kind(), "54000");
    }

    /// Each text is read and printed; the expected output is PostgreSQL 15's.
    #[test]
    fn values_print_as_postgresql_prints_them() {
        let cases: &[(&str, &str, &str)] = &[
            ("double precision", "1e20", "1e+20"),
            ("double precision", "100000000000000", "100000000000000"),
            ("double precision", "1e15", "1e+15"),
            ("double precision", "0.0001", "0.0001"),
            ("double precision", "0.00001", "1e-05"),
            ("double precision", "-inf", "-Infinity"),
            ("real", "1e6", "1e+06"),
            ("real", "123456", "123456"),
            ("numeric", "-0012.500", "-12.500"),
            ("numeric", "1e3", "1000"),
            ("numeric", "1.5e-3", "0.0015"),
            ("numeric", "NaN", "NaN"),
            ("boolean", " YES ", "t"),
            ("bytea", "ab\\\\c\\001", "\\x61625c6301"),
            ("date", "2024-02-29", "2024-02-29"),
            ("date", "0044-03-15 BC", "0044-03-15 BC"),
            ("date", "Jan 5, 1999", "1999-01-05"),
            ("date", "1999-Jan-08", "1999-01-08"),
            ("date", "20240131", "2024-01-31"),
            ("date", "infinity", "infinity"),
            ("time", "04:05:06.789", "04:05:06.789"),
            ("time", "04:05 PM", "16:05:00"),
            ("timestamp", "2024-01-31T10:20:30.5Z", "2024-01-31 10:20:30.5"),
            ("timestamp", "epoch", "1970-01-01 00:00:00"),
            ("timestamptz", "2024-07-01 12:00:00+02", "2024-07-01 10:00:00+00"),
            ("timestamptz", "2024-07-01 12:00:00 America/New_York", "2024-07-01 16:00:00+00"),
            ("interval", "1 year 2 mons 3 days 04:05:06.7", "1 year 2 mons 3 days 04:05:06.7"),
            ("interval", "1.5 days", "1 day 12:00:00"),
            ("interval", "-1 day +02:03", "-1 days +02:03:00"),
            ("interval", "1 week ago", "-7 days"),
            ("interval", "P1Y2M3DT4H", "1 year 2 mons 3 days 04:00:00"),
            ("uuid", "A0EEBC999C0B4EF8BB6D6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
            ("integer[]", "{1,2, null}", "{1,2,NULL}"),
            ("text[]", "{\"a b\",c,\"NULL\"}", "{\"a b\",c,\"NULL\"}"),
            ("integer[]", "{{1,2},{3,4}}", "{{1,2},{3,4}}"),
            ("int2vector", "1 2 3", "1 2 3"),
        ];
        for (ty, input, expected) in cases {
            let ty = DataType::parse(ty).expect("a known type");
            let value = text_in(input, ty.base, &TextContext::UTC)
                .unwrap_or_else(|error| panic!("{ty} {input}: {error}"));
            assert_eq!(text_out(&value, ty, &TextContext::UTC), *expected, "{ty} {input}");
        }
    }

    #[test]
    fn bad_input_gets_postgresqls_sqlstate() {
        let cases: &[(&str, &str, &str)] = &[
            ("integer", "abc", "22P02"),
            ("integer", "2147483648", "22003"),
            ("smallint", "40000", "22003"),
            ("boolean", "maybe", "22P02"),
            ("date", "2023-02-29", "22008"),
            ("date", "hello", "22007"),
            ("time", "25:00", "22008"),
            ("interval", "1 fortnight", "22007"),
            ("uuid", "123", "22P02"),
            ("double precision", "1e400", "22003"),
            ("numeric", "1x", "22P02"),
            ("integer[]", "{1,2", "22P02"),
            ("bytea", "\\x1", "22023"),
        ];
        for (ty, input, state) in cases {
            let ty = DataType::parse(ty).expect("a known type");
            let found = text_in(input, ty.base, &TextContext::UTC).map_err(|error| error.state);
            assert_eq!(found.err(), Some(*state), "{ty} {input}");
        }
        let long = fit_modifier(Value::text("abcd"), DataType::varchar(3), false);
        assert_eq!(long.map_err(|error| error.state).err(), Some("22001"));
        let wide = "1000".parse::<crate::numeric::Numeric>().map(|n| Value::Numeric(Box::new(n)));
        let fitted = fit_modifier(wide.expect("a number"), DataType::numeric(5, 2), false);
        assert_eq!(fitted.map_err(|error| error.state).err(), Some("22003"));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(3000))]
        #[test]
        fn any_text_reads_or_fails_without_panic(
            text in "[0-9]{0,20}[-+:./ ]{0,2}[0-9a-zT]{0,12}[-+:. ]{0,2}[0-9]{0,19}[ a-z{}\",\\\\]{0,6}",
            base in proptest::sample::select(&[BaseType::Time, BaseType::Date, BaseType::Timestamp, BaseType::Timestamptz, BaseType::Interval, BaseType::Numeric, BaseType::Float4, BaseType::Float8, BaseType::Int8, BaseType::Int4Array, BaseType::TextArray, BaseType::Uuid, BaseType::Bytea, BaseType::PgLsn, BaseType::Bool][..]),
        ) {
            if let Ok(value) = text_in(&text, base, &TextContext::UTC) {
                let printed = text_out(&value, DataType::plain(base), &TextContext::UTC);
                let again = text_in(&printed, base, &TextContext::UTC);
                proptest::prop_assert!(again.is_ok_and(|again| again == value), "{base}: {text:?} -> {printed:?}");
            }
        }
    }
}
