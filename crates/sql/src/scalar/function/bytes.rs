//! Byte strings: their bits and bytes, what is cut from their ends, and their encodings as text.

use rustydb_types::datatype::BaseType;
use rustydb_types::value::Value;

use super::super::catalogue::FunctionFn;
use super::{Answer, int, mismatch, text};
use crate::error::{SqlError, SqlState};

pub(super) fn find(name: &str, args: &[BaseType]) -> Option<FunctionFn> {
    if matches!(name, "convert_to") {
        return Some(|a, _| Encoding::named(text(a, 1)?, true)?.write(text(a, 0)?));
    }
    if args.first() != Some(&BaseType::Bytea) {
        return None;
    }
    Some(match name {
        "length" if args.len() == 2 => |a, _| {
            let decoded = Encoding::named(text(a, 1)?, false)?.read(bytes(a, 0)?)?;
            Ok(Value::Int4(decoded.chars().count() as i32))
        },
        "btrim" => |a, _| trim(a, true, true),
        "ltrim" => |a, _| trim(a, true, false),
        "rtrim" => |a, _| trim(a, false, true),
        "position" => |a, _| {
            let (hay, needle) = (bytes(a, 0)?, bytes(a, 1)?);
            let at = if needle.is_empty() {
                Some(0)
            } else {
                hay.windows(needle.len()).position(|part| part == needle)
            };
            Ok(Value::Int4(at.map_or(0, |at| at as i32 + 1)))
        },
        "overlay" => |a, _| {
            let (whole, new) = (bytes(a, 0)?, bytes(a, 1)?);
            let start = int(a, 2)?;
            if start <= 0 {
                return Err(SqlError::new(
                    SqlState::SUBSTRING_ERROR,
                    "negative substring length not allowed",
                ));
            }
            let length = a.get(3).and_then(Value::as_i64).unwrap_or(new.len() as i64);
            let head = whole.get(..(start as usize - 1).min(whole.len())).unwrap_or_default();
            let rest = usize::try_from(start - 1 + length).unwrap_or(0).min(whole.len());
            let tail = whole.get(rest..).unwrap_or_default();
            Ok(Value::Bytea([head, new, tail].concat().into()))
        },
        "get_byte" => |a, _| {
            let whole = bytes(a, 0)?;
            let at = index(int(a, 1)?, whole.len())?;
            Ok(Value::Int4(whole.get(at).copied().map_or(0, i32::from)))
        },
        "set_byte" => |a, _| {
            let mut whole = bytes(a, 0)?.to_vec();
            let at = index(int(a, 1)?, whole.len())?;
            let new = int(a, 2)? as u8;
            whole.get_mut(at).map(|byte| std::mem::replace(byte, new));
            Ok(Value::Bytea(whole.into()))
        },
        "get_bit" => |a, _| {
            let whole = bytes(a, 0)?;
            let at = index(int(a, 1)?, whole.len() * 8)?;
            Ok(Value::Int4(whole.get(at / 8).copied().map_or(0, |byte| i32::from(byte >> (at % 8) & 1))))
        },
        "set_bit" => |a, _| {
            let mut whole = bytes(a, 0)?.to_vec();
            let at = index(int(a, 1)?, whole.len() * 8)?;
            let new = int(a, 2)?;
            if !matches!(new, 0 | 1) {
                return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "new bit must be 0 or 1"));
            }
            if let Some(byte) = whole.get_mut(at / 8) {
                let mask = 1 << (at % 8);
                *byte = if new == 1 { *byte | mask } else { *byte & !mask };
            }
            Ok(Value::Bytea(whole.into()))
        },
        "convert" => |a, _| {
            let decoded = Encoding::named(text(a, 1)?, false)?.read(bytes(a, 0)?)?;
            Encoding::named(text(a, 2)?, true)?.write(&decoded)
        },
        "convert_from" => |a, _| Ok(Value::text(Encoding::named(text(a, 1)?, false)?.read(bytes(a, 0)?)?)),
        _ => return None,
    })
}

fn bytes(args: &[Value], at: usize) -> Result<&[u8], SqlError> {
    match args.get(at) {
        Some(Value::Bytea(bytes)) => Ok(bytes),
        _ => Err(mismatch()),
    }
}

fn index(n: i64, count: usize) -> Result<usize, SqlError> {
    usize::try_from(n).ok().filter(|at| *at < count).ok_or_else(|| {
        SqlError::new(
            SqlState::ARRAY_SUBSCRIPT_ERROR,
            format!("index {n} out of valid range, 0..{}", count as i64 - 1),
        )
    })
}

fn trim(args: &[Value], left: bool, right: bool) -> Answer {
    let (whole, set) = (bytes(args, 0)?, bytes(args, 1)?);
    let kept = |byte: &u8| !set.contains(byte);
    let from = if left { whole.iter().position(kept).unwrap_or(whole.len()) } else { 0 };
    let to = if right { whole.iter().rposition(kept).map_or(0, |at| at + 1) } else { whole.len() };
    Ok(Value::Bytea(whole.get(from..to).unwrap_or_default().into()))
}

/// An encoding of text.
#[derive(Clone, Copy, Debug)]
enum Encoding {
    Utf8,
    Latin1,
    /// Bytes that say nothing of what they mean.
    SqlAscii,
}

/// Names of PostgreSQL's other encodings, without punctuation.
const OTHERS: &str = " eucjp euccn euckr euctw eucjis2004 latin2 latin3 latin4 latin5 latin6 latin7 latin8 latin9 latin10 win1250 win1251 win1252 win1253 win1254 win1255 win1256 win1257 win1258 win866 win874 koi8r koi8u iso88595 iso88596 iso88597 iso88598 sjis big5 gbk uhc gb18030 johab shiftjis2004 muleinternal ";

impl Encoding {
    /// The encoding of a name; punctuation and case do not matter.
    fn named(name: &str, is_target: bool) -> Result<Encoding, SqlError> {
        let plain: String =
            name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
        Ok(match plain.as_str() {
            "utf8" | "unicode" => Encoding::Utf8,
            "latin1" | "iso88591" => Encoding::Latin1,
            "sqlascii" => Encoding::SqlAscii,
            other if OTHERS.contains(&format!(" {other} ")) => {
                return Err(SqlError::not_supported(format!("encoding {name} is not supported")));
            }
            _ => {
                let which = if is_target { "destination" } else { "source" };
                return Err(SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("invalid {which} encoding name \"{name}\""),
                ));
            }
        })
    }

    fn read(self, bytes: &[u8]) -> Result<String, SqlError> {
        let bad = |bytes: &[u8]| {
            let shown: Vec<String> = bytes.iter().take(4).map(|byte| format!("0x{byte:02x}")).collect();
            SqlError::new(
                SqlState::from_code("22021"),
                format!("invalid byte sequence for encoding \"UTF8\": {}", shown.join(" ")),
            )
        };
        if bytes.contains(&0) {
            return Err(bad(&[0]));
        }
        match self {
            Encoding::Latin1 => Ok(bytes.iter().map(|byte| char::from(*byte)).collect()),
            Encoding::Utf8 | Encoding::SqlAscii => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(text.to_owned()),
                Err(error) => {
                    let rest = bytes.get(error.valid_up_to()..).unwrap_or_default();
                    let width = match rest.first() {
                        Some(0xf0..=0xf7) => 4,
                        Some(0xe0..=0xef) => 3,
                        Some(0xc0..=0xdf) => 2,
                        _ => 1,
                    };
                    Err(bad(rest.get(..width.min(rest.len())).unwrap_or_default()))
                }
            },
        }
    }

    fn write(self, text: &str) -> Answer {
        let bytes = match self {
            Encoding::Utf8 | Encoding::SqlAscii => text.as_bytes().to_vec(),
            Encoding::Latin1 => text
                .chars()
                .map(|c| {
                    u8::try_from(u32::from(c)).map_err(|_| {
                        let sequence: Vec<String> =
                            c.to_string().bytes().map(|byte| format!("0x{byte:02x}")).collect();
                        SqlError::new(
                            SqlState::from_code("22P05"),
                            format!(
                                "character with byte sequence {} in encoding \"UTF8\" has no equivalent in encoding \"LATIN1\"",
                                sequence.join(" ")
                            ),
                        )
                    })
                })
                .collect::<Result<Vec<u8>, _>>()?,
        };
        Ok(Value::Bytea(bytes.into()))
    }
}
