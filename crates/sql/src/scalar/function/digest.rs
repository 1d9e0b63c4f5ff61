//! Digests and the text encodings of bytes.

use rustydb_types::datatype::BaseType;
use rustydb_types::text;
use rustydb_types::value::Value;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

use super::super::catalogue::FunctionFn;
use super::{Answer, mismatch};
use crate::error::{SqlError, SqlState};

pub(super) fn find(name: &str, _args: &[BaseType]) -> Option<FunctionFn> {
    Some(match name {
        "md5" => |a, _| {
            let bytes = match &a[0] {
                Value::Text(text) => text.as_bytes(),
                Value::Bytea(bytes) => bytes,
                _ => return Err(mismatch()),
            };
            Ok(Value::text(hex(&md5(bytes))))
        },
        "sha224" => |a, _| digest(a, |bytes| Sha224::digest(bytes).to_vec()),
        "sha256" => |a, _| digest(a, |bytes| Sha256::digest(bytes).to_vec()),
        "sha384" => |a, _| digest(a, |bytes| Sha384::digest(bytes).to_vec()),
        "sha512" => |a, _| digest(a, |bytes| Sha512::digest(bytes).to_vec()),
        "encode" => |a, _| {
            let (Value::Bytea(bytes), Some(format)) = (&a[0], a[1].as_str()) else { return Err(mismatch()) };
            super::string::built(match format.to_ascii_lowercase().as_str() {
                "hex" => hex(bytes),
                "base64" => base64(bytes),
                "escape" => escape(bytes),
                _ => return Err(unknown(format)),
            })
        },
        "decode" => |a, _| {
            let (Some(text), Some(format)) = (a[0].as_str(), a[1].as_str()) else { return Err(mismatch()) };
            match format.to_ascii_lowercase().as_str() {
                "hex" => Ok(text::text_in(&format!("\\x{text}"), BaseType::Bytea, &text::TextContext::UTC)?),
                "escape" => {
                    if text.starts_with("\\x") {
                        return Err(invalid("invalid input syntax for type bytea".to_owned(), "22P02"));
                    }
                    Ok(text::text_in(text, BaseType::Bytea, &text::TextContext::UTC)?)
                }
                "base64" => Ok(Value::Bytea(from_base64(text)?.into())),
                _ => Err(unknown(format)),
            }
        },
        _ => return None,
    })
}

fn digest(args: &[Value], of: fn(&[u8]) -> Vec<u8>) -> Answer {
    match &args[0] {
        Value::Bytea(bytes) => Ok(Value::Bytea(of(bytes).into())),
        _ => Err(mismatch()),
    }
}

fn unknown(format: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("unrecognized encoding: \"{format}\""))
}

fn invalid(message: String, state: &str) -> SqlError {
    SqlError::new(SqlState::from_code(state), message)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn escape(bytes: &[u8]) -> String {
    let mut out = String::new();
    for byte in bytes {
        match byte {
            b'\\' => out.push_str("\\\\"),
            0 | 0x80.. => out.push_str(&format!("\\{byte:03o}")),
            plain => out.push(char::from(*plain)),
        }
    }
    out
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 with a line break behind every 76 characters, as RFC 2045 has it.
fn base64(bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut column = 0;
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            if place <= chunk.len() {
                let index = (bits >> (18 - 6 * place)) as usize & 63;
                out.push(char::from(ALPHABET.get(index).copied().unwrap_or(b'A')));
            } else {
                out.push('=');
            }
        }
        column += 4;
        if column >= 76 {
            out.push('\n');
            column = 0;
        }
    }
    out
}

fn from_base64(text: &str) -> Result<Vec<u8>, SqlError> {
    let mut out = Vec::new();
    let (mut bits, mut count, mut padding) = (0u32, 0, 0);
    for c in text.chars().filter(|c| !matches!(c, ' ' | '\t' | '\n' | '\r')) {
        if c == '=' {
            padding += 1;
            bits <<= 6;
        } else {
            let symbol = ALPHABET.iter().position(|known| char::from(*known) == c);
            let Some(symbol) = symbol.filter(|_| padding == 0) else {
                let message = format!("invalid symbol \"{c}\" found while decoding base64 sequence");
                return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message));
            };
            bits = bits << 6 | symbol as u32;
        }
        count += 1;
        if count == 4 {
            let bytes = bits.to_be_bytes();
            out.extend(bytes.iter().skip(1).take(3usize.saturating_sub(padding)));
            (bits, count) = (0, 0);
        }
    }
    if count != 0 {
        return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "invalid base64 end sequence")
            .with_hint("Input data is missing padding, is truncated, or is otherwise corrupted."));
    }
    Ok(out)
}

/// RFC 1321.
fn md5(input: &[u8]) -> [u8; 16] {
    const SHIFTS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];
    let mut message = input.to_vec();
    message.push(0x80);
    while message.len() % 64 != 56 {
        message.push(0);
    }
    message.extend((input.len() as u64).wrapping_mul(8).to_le_bytes());
    let mut state: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    for block in message.chunks_exact(64) {
        let words: Vec<u32> = block
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes(<[u8; 4]>::try_from(word).unwrap_or_default()))
            .collect();
        let [mut a, mut b, mut c, mut d] = state;
        for step in 0..64usize {
            let (mix, index) = match step / 16 {
                0 => ((b & c) | (!b & d), step),
                1 => ((d & b) | (!d & c), (5 * step + 1) % 16),
                2 => (b ^ c ^ d, (3 * step + 5) % 16),
                _ => (c ^ (b | !d), (7 * step) % 16),
            };
            let constant = (((step + 1) as f64).sin().abs() * 4_294_967_296.0) as u32;
            let word = words.get(index).copied().unwrap_or(0);
            let shift = SHIFTS.get(step / 16).and_then(|row| row.get(step % 4)).copied().unwrap_or(0);
            let turned = a.wrapping_add(mix).wrapping_add(constant).wrapping_add(word).rotate_left(shift);
            (a, d, c, b) = (d, c, b, b.wrapping_add(turned));
        }
        for (total, part) in state.iter_mut().zip([a, b, c, d]) {
            *total = total.wrapping_add(part);
        }
    }
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().zip(state.iter().flat_map(|word| word.to_le_bytes())) {
        *to = from;
    }
    out
}
