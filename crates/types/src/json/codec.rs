//! The stored forms of `jsonb`: in rows, compact; in keys, in the order of its values.
//!
//! ```text
//!   row    tag, body       0 null, 1 false, 2 true
//!                          3 number and 4 string: length varint, text
//!                          5 array: count varint, elements      6 object: count varint, (length varint, key, value)*
//!   key    1 the empty array at the top; else
//!          2 null   3 string, escaped   4 number   5 false   6 true
//!          7 array and 8 object: count as u32, elements; of an object key (escaped) and value in turn
//! ```

use std::sync::Arc;

use super::{DEPTH_MAX, Json};
use crate::numeric::Numeric;
use crate::value_error::ValueError;

fn corrupt() -> ValueError {
    ValueError::new("XX001", "malformed jsonb")
}

fn put_size(out: &mut Vec<u8>, mut n: usize) {
    while n >= 0x80 {
        out.push((n as u8) | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn size(input: &mut &[u8]) -> Result<usize, ValueError> {
    let mut n = 0usize;
    for shift in (0..35).step_by(7) {
        let byte = *input.split_off_first().ok_or_else(corrupt)?;
        n |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(n);
        }
    }
    Err(corrupt())
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_size(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn text<'b>(input: &mut &'b [u8]) -> Result<&'b str, ValueError> {
    let size = size(input)?;
    let (text, rest) = input.split_at_checked(size).ok_or_else(corrupt)?;
    *input = rest;
    std::str::from_utf8(text).map_err(|_| corrupt())
}

/// Appends the form that rows have.
pub fn encode(out: &mut Vec<u8>, json: &Json) {
    match json {
        Json::Null => out.push(0),
        Json::Bool(flag) => out.push(1 + u8::from(*flag)),
        Json::Number(number) => {
            out.push(3);
            put_text(out, &number.to_string());
        }
        Json::String(text) => {
            out.push(4);
            put_text(out, text);
        }
        Json::Array(elements) => {
            out.push(5);
            put_size(out, elements.len());
            for element in elements {
                encode(out, element);
            }
        }
        Json::Object(pairs) => {
            out.push(6);
            put_size(out, pairs.len());
            for (key, value) in pairs {
                put_text(out, key);
                encode(out, value);
            }
        }
    }
}

/// Reads the form that rows have.
///
/// # Errors
/// XX001 when the bytes are none.
pub fn decode(mut bytes: &[u8]) -> Result<Json, ValueError> {
    let json = value(&mut bytes, 0)?;
    if bytes.is_empty() { Ok(json) } else { Err(corrupt()) }
}

fn value(input: &mut &[u8], depth: usize) -> Result<Json, ValueError> {
    if depth > DEPTH_MAX {
        return Err(corrupt());
    }
    Ok(match *input.split_off_first().ok_or_else(corrupt)? {
        0 => Json::Null,
        1 => Json::Bool(false),
        2 => Json::Bool(true),
        3 => Json::Number(text(input)?.parse().map_err(|_| corrupt())?),
        4 => Json::String(text(input)?.into()),
        5 => {
            // Each element takes a byte at least, so a lying count cannot make us allocate.
            let count = size(input)?;
            let mut elements = Vec::with_capacity(count.min(input.len()));
            for _ in 0..count {
                elements.push(value(input, depth + 1)?);
            }
            Json::Array(elements)
        }
        6 => {
            let count = size(input)?;
            let mut pairs: Vec<(Arc<str>, Json)> = Vec::with_capacity(count.min(input.len()));
            for _ in 0..count {
                let key = text(input)?.into();
                pairs.push((key, value(input, depth + 1)?));
            }
            Json::object(pairs)
        }
        _ => return Err(corrupt()),
    })
}

/// How parts of a key are written that other types have, too.
pub trait KeyWriter {
    /// Appends bytes that end by themselves and sort as they are.
    fn bytes(out: &mut Vec<u8>, bytes: &[u8]);
    /// Appends a number.
    fn number(out: &mut Vec<u8>, number: &Numeric);
}

/// Appends the form that keys have.
pub fn encode_key<W: KeyWriter>(out: &mut Vec<u8>, json: &Json) {
    if matches!(json, Json::Array(elements) if elements.is_empty()) {
        out.push(1);
    } else {
        key_part::<W>(out, json);
    }
}

fn key_part<W: KeyWriter>(out: &mut Vec<u8>, json: &Json) {
    let count = |out: &mut Vec<u8>, count: usize| {
        out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
    };
    match json {
        Json::Null => out.push(2),
        Json::String(text) => {
            out.push(3);
            W::bytes(out, text.as_bytes());
        }
        Json::Number(number) => {
            out.push(4);
            W::number(out, number);
        }
        Json::Bool(flag) => out.push(5 + u8::from(*flag)),
        Json::Array(elements) => {
            out.push(7);
            count(out, elements.len());
            for element in elements {
                key_part::<W>(out, element);
            }
        }
        Json::Object(pairs) => {
            out.push(8);
            count(out, pairs.len());
            for (key, value) in pairs {
                W::bytes(out, key.as_bytes());
                key_part::<W>(out, value);
            }
        }
    }
}

/// How parts of a key are read that other types have, too.
pub trait KeyReader {
    /// The next byte.
    ///
    /// # Errors
    /// XX001 at the end.
    fn byte(&mut self) -> Result<u8, ValueError>;
    /// Bytes that end by themselves.
    ///
    /// # Errors
    /// XX001 when they do not.
    fn bytes(&mut self) -> Result<Vec<u8>, ValueError>;
    /// A number.
    ///
    /// # Errors
    /// XX001 when it is none.
    fn number(&mut self) -> Result<Numeric, ValueError>;
}

/// Reads the form that keys have; numbers come without their scale.
///
/// # Errors
/// XX001 when the bytes are none.
pub fn decode_key<R: KeyReader>(reader: &mut R) -> Result<Json, ValueError> {
    match reader.byte()? {
        1 => Ok(Json::Array(Vec::new())),
        tag => key_value(reader, tag, 0),
    }
}

fn key_value<R: KeyReader>(reader: &mut R, tag: u8, depth: usize) -> Result<Json, ValueError> {
    fn text<R: KeyReader>(reader: &mut R) -> Result<Arc<str>, ValueError> {
        String::from_utf8(reader.bytes()?).map(Arc::from).map_err(|_| corrupt())
    }
    fn count<R: KeyReader>(reader: &mut R) -> Result<u32, ValueError> {
        let bytes = [reader.byte()?, reader.byte()?, reader.byte()?, reader.byte()?];
        Ok(u32::from_be_bytes(bytes))
    }
    if depth > DEPTH_MAX {
        return Err(corrupt());
    }
    Ok(match tag {
        2 => Json::Null,
        3 => Json::String(text(reader)?),
        4 => Json::Number(reader.number()?),
        5 => Json::Bool(false),
        6 => Json::Bool(true),
        7 => {
            let mut elements = Vec::new();
            for _ in 0..count(reader)? {
                let tag = reader.byte()?;
                elements.push(key_value(reader, tag, depth + 1)?);
            }
            Json::Array(elements)
        }
        8 => {
            let mut pairs = Vec::new();
            for _ in 0..count(reader)? {
                let key = text(reader)?;
                let tag = reader.byte()?;
                pairs.push((key, key_value(reader, tag, depth + 1)?));
            }
            Json::object(pairs)
        }
        _ => return Err(corrupt()),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::any_json;
    use super::*;
    use crate::datatype::BaseType;
    use crate::keycodec::{self, KeyOrder};
    use crate::value::Value;

    proptest! {
        #[test]
        fn both_forms_come_back_and_keys_sort_as_values(a in any_json(), b in any_json()) {
            let mut row = Vec::new();
            encode(&mut row, &a);
            let back = decode(&row).expect("own encoding");
            prop_assert_eq!(back.to_string(), a.to_string());
            let key = |json: &Json, order| {
                let mut out = Vec::new();
                keycodec::encode(&mut out, &Value::Jsonb(Arc::new(json.clone())), order);
                out
            };
            for order in [KeyOrder::ASCENDING, KeyOrder::DESCENDING] {
                let bytes = key(&a, order);
                let back = keycodec::decode(&mut bytes.as_slice(), BaseType::Jsonb, order).expect("own key");
                prop_assert_eq!(back, Value::Jsonb(Arc::new(a.clone())));
            }
            let orders = key(&a, KeyOrder::ASCENDING).cmp(&key(&b, KeyOrder::ASCENDING));
            prop_assert_eq!(orders, a.compare(&b));
            let orders = key(&a, KeyOrder::DESCENDING).cmp(&key(&b, KeyOrder::DESCENDING));
            prop_assert_eq!(orders, b.compare(&a));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(&bytes);
        }
    }
}
