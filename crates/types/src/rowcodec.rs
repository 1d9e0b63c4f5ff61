//! Compact rows: column ids with values, of which a reader decodes only what it asks for.
//!
//! ```text
//!   row    = version (1 byte, = 1), count varint, count x entry, bodies
//!   entry  = column id varint, size varint        (0: null; else body size + 1)
//!   body   = little-endian number | UTF-8 | bytes | ... by the column's type
//! ```
//!
//! The directory stands before the bodies, so a column that is not wanted costs two varints.
//! A column that was added after the row was written has no entry: the caller's default holds.
//! A dropped column's entry is never asked for. Column ids are never reused in a table.
//! Formats are stored: see docs/formats/rows.md.

use crate::binary;
use crate::datatype::BaseType;
use crate::enum_type::EnumType;
use crate::value::{ArrayValue, Value};
use crate::value_error::ValueError;

const VERSION: u8 = 1;

/// Encodes a row; ids and values in step, ids ascending.
pub fn encode(columns: &[u32], values: &[Value]) -> Vec<u8> {
    debug_assert_eq!(columns.len(), values.len());
    let mut bodies = Vec::with_capacity(values.len() * 8);
    let mut out = Vec::with_capacity(values.len() * 12 + 2);
    out.push(VERSION);
    put_varint(&mut out, columns.len() as u64);
    for (column, value) in columns.iter().zip(values) {
        put_varint(&mut out, u64::from(*column));
        if value.is_null() {
            put_varint(&mut out, 0);
            continue;
        }
        let from = bodies.len();
        body(&mut bodies, value);
        put_varint(&mut out, (bodies.len() - from) as u64 + 1);
    }
    out.extend(bodies);
    out
}

/// A column that a reader wants.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Its id in the table.
    pub column: u32,
    /// Its type.
    pub base: BaseType,
    /// Where its value goes in the output.
    pub slot: usize,
}

/// Decodes the wanted columns (by ascending id) into their slots of `out`. Slots of columns that
/// the row does not have are left as they are, so fill them with defaults before.
///
/// # Errors
/// XX001 when the bytes are no row, or a body does not fit its type.
pub fn decode(row: &[u8], wanted: &[Wanted], out: &mut [Value]) -> Result<(), ValueError> {
    let mut directory = row;
    if directory.split_off_first() != Some(&VERSION) {
        return Err(corrupt());
    }
    let count = get_varint(&mut directory)?;
    let mut bodies = directory;
    for _ in 0..count {
        get_varint(&mut bodies)?;
        get_varint(&mut bodies)?;
    }
    let mut wanted = wanted.iter().peekable();
    for _ in 0..count {
        let column = get_varint(&mut directory)?;
        let size = get_varint(&mut directory)?;
        let bytes = if size == 0 {
            None
        } else {
            let size = usize::try_from(size - 1).map_err(|_| corrupt())?;
            let (bytes, rest) = bodies.split_at_checked(size).ok_or_else(corrupt)?;
            bodies = rest;
            Some(bytes)
        };
        while wanted.next_if(|want| u64::from(want.column) < column).is_some() {}
        while let Some(want) = wanted.next_if(|want| u64::from(want.column) == column) {
            let value = match bytes {
                None => Value::Null,
                Some(bytes) => read(bytes, want.base)?,
            };
            if let Some(slot) = out.get_mut(want.slot) {
                *slot = value;
            }
        }
        if wanted.peek().is_none() {
            return Ok(());
        }
    }
    Ok(())
}

fn corrupt() -> ValueError {
    ValueError::new("XX001", "malformed row")
}

fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push((n as u8) | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn get_varint(input: &mut &[u8]) -> Result<u64, ValueError> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *input.split_off_first().ok_or_else(corrupt)?;
        n |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(n);
        }
    }
    Err(corrupt())
}

fn body(out: &mut Vec<u8>, value: &Value) {
    let integer = |out: &mut Vec<u8>, n: i64| {
        // Only the bytes that differ from the sign, so small numbers are small.
        let bytes = n.to_le_bytes();
        let mut length = 8;
        while length > 1 {
            let shift = 64 - (length - 1) * 8;
            if (n << shift) >> shift != n {
                break;
            }
            length -= 1;
        }
        out.extend(bytes.iter().take(length));
    };
    match value {
        Value::Int2(n) => integer(out, i64::from(*n)),
        Value::Int4(n) | Value::Date(n) => integer(out, i64::from(*n)),
        Value::Int8(n) | Value::Time(n) | Value::Timestamp(n) | Value::Timestamptz(n) => {
            integer(out, *n);
        }
        Value::Jsonb(json) => crate::json::encode(out, json),
        // An enumeration's label may be renamed; its position stays.
        Value::Enum(value) => integer(out, value.position() as i64),
        Value::Array(array) if matches!(array.element, BaseType::Enum(_)) => {
            let position = |element: &Value| match element {
                Value::Enum(value) => Value::Int8(value.position() as i64),
                _ => Value::Null,
            };
            let ArrayValue { dimensions, elements, .. } = array.as_ref();
            let elements = elements.iter().map(position).collect();
            let dimensions = dimensions.clone();
            let positions = ArrayValue { element: BaseType::Int8, dimensions, elements };
            binary::binary_out(out, &Value::Array(Box::new(positions)));
        }
        // The rarer types keep their wire form, which is complete and checked when read.
        other => binary::binary_out(out, other),
    }
}

fn read(bytes: &[u8], base: BaseType) -> Result<Value, ValueError> {
    let integer = || {
        let last = *bytes.last().ok_or_else(corrupt)?;
        if bytes.len() > 8 {
            return Err(corrupt());
        }
        let mut full = [if last & 0x80 == 0 { 0 } else { 0xff }; 8];
        for (to, from) in full.iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(i64::from_le_bytes(full))
    };
    let narrow = |n: i64| i32::try_from(n).map_err(|_| corrupt());
    Ok(match base {
        BaseType::Int2 => Value::Int2(i16::try_from(integer()?).map_err(|_| corrupt())?),
        BaseType::Int4 => Value::Int4(narrow(integer()?)?),
        BaseType::Date => Value::Date(narrow(integer()?)?),
        BaseType::Int8 => Value::Int8(integer()?),
        BaseType::Time => Value::Time(integer()?),
        BaseType::Timestamp => Value::Timestamp(integer()?),
        BaseType::Timestamptz => Value::Timestamptz(integer()?),
        BaseType::Jsonb => Value::Jsonb(crate::json::decode(bytes).map_err(|_| corrupt())?.into()),
        BaseType::Enum(of) => enumerated(of, integer()?)?,
        BaseType::EnumArray(of) => {
            let positions = binary::binary_in(bytes, BaseType::Int8Array).map_err(|_| corrupt())?;
            let Value::Array(mut array) = positions else { return Err(corrupt()) };
            array.element = BaseType::Enum(of);
            for element in &mut array.elements {
                if let Value::Int8(position) = element {
                    *element = enumerated(of, *position)?;
                }
            }
            Value::Array(array)
        }
        // Text was checked when it came in; a stored NUL cannot occur, but is no reason to fail.
        _ if base.is_text_like() => Value::text(std::str::from_utf8(bytes).map_err(|_| corrupt())?),
        other => binary::binary_in(bytes, other).map_err(|_| corrupt())?,
    })
}

fn enumerated(of: EnumType, position: i64) -> Result<Value, ValueError> {
    of.at(position as u64).map(Value::Enum).ok_or_else(corrupt)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::numeric::Numeric;

    proptest! {
        #[test]
        fn rows_come_back(a: i16, b: i32, c: i64, d: f64, text in ".{0,12}", n: i64, scale in 0u32..30, null: bool) {
            let number = Value::Numeric(Box::new(Numeric::new(n.into(), scale)));
            let values = [Value::Int2(a), Value::Int4(b), Value::Int8(c), Value::Float8(d), Value::text(&text), if null { Value::Null } else { number.clone() }];
            let columns = [1, 2, 3, 200, 300, 70_000];
            let row = encode(&columns, &values);
            let bases = [BaseType::Int2, BaseType::Int4, BaseType::Int8, BaseType::Float8, BaseType::Text, BaseType::Numeric];
            let wanted: Vec<Wanted> = columns.iter().zip(bases).enumerate().map(|(slot, (column, base))| Wanted { column: *column, base, slot }).collect();
            let mut out = vec![Value::Bool(true); 6];
            decode(&row, &wanted, &mut out).expect("own encoding");
            prop_assert_eq!(&out[..], &values[..]);
            if !null {
                prop_assert_eq!(format!("{:?}", out[5]), format!("{number:?}"), "the scale is kept");
            }
            // A subset, with a column that the row does not have.
            let few = [Wanted { column: 2, base: BaseType::Int4, slot: 1 }, Wanted { column: 250, base: BaseType::Int4, slot: 0 }];
            let mut out = vec![Value::Int4(77), Value::Null];
            decode(&row, &few, &mut out).expect("own encoding");
            prop_assert_eq!(out, vec![Value::Int4(77), Value::Int4(b)]);
        }

        #[test]
        fn any_bytes_decode_or_fail_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), base in prop::sample::select(BaseType::ALL)) {
            let wanted = [Wanted { column: 1, base, slot: 0 }];
            let _ = decode(&bytes, &wanted, &mut [Value::Null]);
        }
    }
}
