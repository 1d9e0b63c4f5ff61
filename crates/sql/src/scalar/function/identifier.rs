//! Names and Unicode: `parse_ident`, `unistr`, normal forms.

use rustydb_types::datatype::BaseType;
use rustydb_types::value::Value;
use unicode_normalization::{UnicodeNormalization, is_nfc, is_nfd, is_nfkc, is_nfkd};

use super::super::catalogue::FunctionFn;
use super::{Answer, text};
use crate::error::{SqlError, SqlState};

pub(super) fn find(name: &str, _: &[BaseType]) -> Option<FunctionFn> {
    Some(match name {
        "parse_ident" => |a, _| {
            let is_strict = a.get(1).and_then(Value::as_bool).unwrap_or(true);
            let parts = parse_ident(text(a, 0)?, is_strict)?;
            Ok(Value::array(BaseType::Text, parts.into_iter().map(Value::text).collect()))
        },
        "unistr" => |a, _| unistr(text(a, 0)?),
        "normalize" => |a, _| {
            let whole = text(a, 0)?;
            match form(a)?.as_str() {
                "nfc" => collected(whole.nfc()),
                "nfd" => collected(whole.nfd()),
                "nfkc" => collected(whole.nfkc()),
                _ => collected(whole.nfkd()),
            }
        },
        "is_normalized" => |a, _| {
            let whole = text(a, 0)?;
            Ok(Value::Bool(match form(a)?.as_str() {
                "nfc" => is_nfc(whole),
                "nfd" => is_nfd(whole),
                "nfkc" => is_nfkc(whole),
                _ => is_nfkd(whole),
            }))
        },
        _ => return None,
    })
}

/// A text of characters, of which one may have become several.
fn collected(characters: impl Iterator<Item = char>) -> Answer {
    let mut out = super::string::Joined::default();
    for character in characters {
        out.push(character.encode_utf8(&mut [0; 4]))?;
    }
    Ok(Value::text(out.text))
}

/// The normal form that the second argument names.
fn form(args: &[Value]) -> Result<String, SqlError> {
    let name = args.get(1).and_then(Value::as_str).unwrap_or("NFC");
    let lower = name.to_ascii_lowercase();
    if matches!(lower.as_str(), "nfc" | "nfd" | "nfkc" | "nfkd") {
        return Ok(lower);
    }
    Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("invalid normalization form: {name}")))
}

/// The parts of a qualified name, each as the parser would read it.
fn parse_ident(whole: &str, is_strict: bool) -> Result<Vec<String>, SqlError> {
    let bad = |detail: Option<String>| {
        let error = SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("string is not a valid identifier: \"{whole}\""),
        );
        match detail {
            Some(detail) => error.with_detail(detail),
            None => error,
        }
    };
    let is_start = |c: char| c == '_' || c.is_ascii_alphabetic() || !c.is_ascii();
    let is_blank = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c');
    let mut parts = Vec::new();
    let mut rest = whole.trim_start_matches(is_blank);
    let mut after_dot = false;
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut part = String::new();
            let mut characters = quoted.char_indices();
            let end = loop {
                match characters.next() {
                    None => return Err(bad(Some("String has unclosed double quotes.".to_owned()))),
                    Some((at, '"')) if quoted.get(at + 1..).is_some_and(|next| next.starts_with('"')) => {
                        part.push('"');
                        characters.next();
                    }
                    Some((at, '"')) => break at + 1,
                    Some((_, other)) => part.push(other),
                }
            };
            if part.is_empty() {
                return Err(bad(Some("Quoted identifier must not be empty.".to_owned())));
            }
            parts.push(part);
            rest = quoted.get(end..).unwrap_or("");
        } else if rest.starts_with(is_start) {
            let is_part = |c: char| is_start(c) || c.is_ascii_digit() || c == '$';
            let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            let (part, tail) = rest.split_at(end);
            parts.push(part.to_ascii_lowercase());
            rest = tail;
        } else if rest.starts_with('.') {
            return Err(bad(Some("No valid identifier before \".\".".to_owned())));
        } else if after_dot {
            return Err(bad(Some("No valid identifier after \".\".".to_owned())));
        } else {
            return Err(bad(None));
        }
        rest = rest.trim_start_matches(is_blank);
        match rest.strip_prefix('.') {
            Some(tail) => {
                after_dot = true;
                rest = tail.trim_start_matches(is_blank);
            }
            None if rest.is_empty() || !is_strict => return Ok(parts),
            None => return Err(bad(None)),
        }
    }
}

/// A text with `\dddd`, `\+dddddd`, `\udddd` and `\Udddddddd` (hexadecimal digits) replaced by the characters that they number.
fn unistr(whole: &str) -> Answer {
    let invalid = |message: &str| SqlError::new(SqlState::SYNTAX_ERROR, message);
    let mut out = String::with_capacity(whole.len());
    let mut high: Option<u32> = None;
    let mut rest = whole;
    while let Some(c) = rest.chars().next() {
        let unit = if c != '\\' {
            rest = rest.get(c.len_utf8()..).unwrap_or("");
            None
        } else {
            let tail = rest.get(1..).unwrap_or("");
            if let Some(after) = tail.strip_prefix('\\') {
                rest = after;
                None
            } else {
                let (digits, count) = match tail.chars().next() {
                    Some('+') => (tail.get(1..), 6),
                    Some('u') => (tail.get(1..), 4),
                    Some('U') => (tail.get(1..), 8),
                    _ => (Some(tail), 4),
                };
                let digits = digits.unwrap_or("");
                let number = digits
                    .get(..count)
                    .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
                    .and_then(|digits| u32::from_str_radix(digits, 16).ok());
                let Some(number) = number else {
                    let [four, six, eight] = [4, 6, 8].map(|digits| "X".repeat(digits));
                    return Err(invalid("invalid Unicode escape").with_hint(format!(
                        "Unicode escapes must be \\{four}, \\+{six}, \\u{four}, or \\U{eight}."
                    )));
                };
                rest = digits.get(count..).unwrap_or("");
                Some(number)
            }
        };
        let pair = || invalid("invalid Unicode surrogate pair");
        match (high.take(), unit) {
            (Some(first), Some(second @ 0xdc00..=0xdfff)) => {
                let number = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                out.push(char::from_u32(number).ok_or_else(pair)?);
            }
            (Some(_), _) | (None, Some(0xdc00..=0xdfff)) => return Err(pair()),
            (None, Some(first @ 0xd800..=0xdbff)) => high = Some(first),
            (None, Some(number)) => match char::from_u32(number).filter(|c| *c != '\0') {
                Some(c) => out.push(c),
                None => return Err(invalid("invalid Unicode code point")),
            },
            (None, None) => out.push(c),
        }
    }
    if high.is_some() {
        return Err(invalid("invalid Unicode surrogate pair"));
    }
    super::string::built(out)
}
