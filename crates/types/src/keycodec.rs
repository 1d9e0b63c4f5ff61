//! Order-preserving keys: the bytes of encoded tuples sort as the tuples do.
//!
//! ```text
//!   column = presence, body        ascending: body as below; descending: every body byte inverted
//!   presence: 0x01 value, 0x02 null (nulls last); nulls first: 0x00 null, 0x01 value
//!
//!   bool            1 byte
//!   int2/4/8, date, time, timestamps   big-endian with the sign bit flipped
//!   oid, lsn        big-endian
//!   enumeration     position, big-endian
//!   float4/8        IEEE bits: positive flips the sign, negative inverts all; -0 is 0; one NaN, last
//!   numeric         class byte (NaN > Infinity > positive > zero > negative > -Infinity),
//!                   exponent as i32, decimal digit pairs + 1, terminator 0; negative inverted
//!   text, bytea     bytes with 0x00 written 0x00 0xFF, ended by 0x00 0x01 (never splits a prefix)
//!   interval        its length in microseconds as i128
//!   uuid            16 bytes
//!   array, record   each element like a column, ended by 0x00
//!   jsonb           see `json::codec`
//! ```
//!
//! Equal values of numeric and interval share a key whatever their scale or parts, so such a key
//! gives back the value but not its scale; the row holds the exact one.
//! Formats are stored: see docs/formats/keys.md.

use std::cmp::Ordering;

use num_bigint::BigInt;

use crate::datatype::BaseType;
use crate::json;
use crate::numeric::Numeric;
use crate::value::{ArrayDimension, ArrayValue, Interval, Value};
use crate::value_error::ValueError;

/// How one column of a key sorts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct KeyOrder {
    /// Largest first.
    pub descending: bool,
    /// Nulls before all values, else after.
    pub nulls_first: bool,
}

impl KeyOrder {
    /// PostgreSQL's default: smallest first, nulls last.
    pub const ASCENDING: KeyOrder = KeyOrder { descending: false, nulls_first: false };
    /// `DESC`: largest first, nulls first.
    pub const DESCENDING: KeyOrder = KeyOrder { descending: true, nulls_first: true };

    /// Order of two values in such a column.
    pub fn compare(self, a: &Value, b: &Value) -> Ordering {
        match (a.is_null(), b.is_null()) {
            (true, true) => Ordering::Equal,
            (true, false) if self.nulls_first => Ordering::Less,
            (true, false) => Ordering::Greater,
            (false, true) if self.nulls_first => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) if self.descending => b.compare(a),
            (false, false) => a.compare(b),
        }
    }
}

const VALUE: u8 = 1;
const NULL_FIRST: u8 = 0;
const NULL_LAST: u8 = 2;
const END: u8 = 0;

/// Appends one column.
pub fn encode(out: &mut Vec<u8>, value: &Value, order: KeyOrder) {
    if value.is_null() {
        out.push(if order.nulls_first { NULL_FIRST } else { NULL_LAST });
        return;
    }
    out.push(VALUE);
    let from = out.len();
    body(out, value);
    if order.descending
        && let Some(written) = out.get_mut(from..)
    {
        written.iter_mut().for_each(|byte| *byte = !*byte);
    }
}

/// A key of several ascending columns.
pub fn encode_tuple(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::with_capacity(values.len() * 10);
    for value in values {
        encode(&mut out, value, KeyOrder::ASCENDING);
    }
    out
}

/// The smallest key above every key that begins with `prefix`; `None` when there is none.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

fn body(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => {}
        Value::Bool(flag) => out.push(u8::from(*flag)),
        Value::Int2(n) => out.extend(((*n as u16) ^ 0x8000).to_be_bytes()),
        Value::Int4(n) | Value::Date(n) => out.extend(((*n as u32) ^ 0x8000_0000).to_be_bytes()),
        Value::Int8(n) | Value::Time(n) | Value::Timestamp(n) | Value::Timestamptz(n) => {
            out.extend(((*n as u64) ^ (1 << 63)).to_be_bytes());
        }
        Value::Oid(n) => out.extend(n.to_be_bytes()),
        Value::Lsn(n) => out.extend(n.to_be_bytes()),
        Value::Enum(value) => out.extend(value.position().to_be_bytes()),
        Value::Float4(n) => {
            let bits = if n.is_nan() { 0x7fc0_0000 } else { (n + 0.0).to_bits() };
            out.extend((if bits >> 31 == 1 { !bits } else { bits | (1 << 31) }).to_be_bytes());
        }
        Value::Float8(n) => {
            let bits = if n.is_nan() { 0x7ff8 << 48 } else { (n + 0.0).to_bits() };
            out.extend((if bits >> 63 == 1 { !bits } else { bits | (1 << 63) }).to_be_bytes());
        }
        Value::Numeric(n) => encode_numeric(out, n),
        Value::Text(text) => escaped(out, text.as_bytes()),
        Value::Bytea(bytes) => escaped(out, bytes),
        Value::Interval(interval) => {
            out.extend(((interval.normalised() as u128) ^ (1 << 127)).to_be_bytes());
        }
        Value::Uuid(bytes) => out.extend(bytes),
        Value::Array(array) => {
            for element in &array.elements {
                encode(out, element, KeyOrder::ASCENDING);
            }
            // Elements begin with 1 or 2; the end sorts before them.
            out.push(END);
            out.push(array.dimensions.len() as u8);
            for dimension in &array.dimensions {
                body(out, &Value::Int4(dimension.length));
                body(out, &Value::Int4(dimension.lower));
            }
        }
        Value::Record(fields) => {
            for field in fields.iter() {
                encode(out, field, KeyOrder::ASCENDING);
            }
            out.push(END);
        }
        Value::Jsonb(json) => json::encode_key::<Parts>(out, json),
    }
}

/// The parts of `jsonb` as keys have them.
struct Parts;

impl json::KeyWriter for Parts {
    fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
        escaped(out, bytes);
    }

    fn number(out: &mut Vec<u8>, number: &Numeric) {
        encode_numeric(out, number);
    }
}

fn escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        out.push(*byte);
        if *byte == 0 {
            out.push(0xff);
        }
    }
    out.extend([0, 1]);
}

fn encode_numeric(out: &mut Vec<u8>, n: &Numeric) {
    let Numeric::Finite { .. } = n else {
        out.push(match n {
            Numeric::NegativeInfinity => 1,
            Numeric::Infinity => 5,
            _ => 6,
        });
        return;
    };
    if n.is_zero() {
        out.push(3);
        return;
    }
    let Numeric::Finite { coefficient, scale } = n else { return };
    let digits = coefficient.magnitude().to_string();
    // value = 0.DIGITS * 10^exponent
    let exponent = digits.len() as i32 - *scale as i32;
    let digits = digits.trim_end_matches('0');
    let negative = n.is_negative();
    out.push(if negative { 2 } else { 4 });
    let from = out.len();
    out.extend(((exponent as u32) ^ 0x8000_0000).to_be_bytes());
    for pair in digits.as_bytes().chunks(2) {
        let high = pair.first().map_or(0, |d| d - b'0');
        let low = pair.get(1).map_or(0, |d| d - b'0');
        out.push(high * 10 + low + 1);
    }
    out.push(END);
    if negative && let Some(written) = out.get_mut(from..) {
        written.iter_mut().for_each(|byte| *byte = !*byte);
    }
}

/// Reads one column of type `base` and moves `input` behind it.
///
/// # Errors
/// XX001 when the bytes are no such column.
pub fn decode(input: &mut &[u8], base: BaseType, order: KeyOrder) -> Result<Value, ValueError> {
    match take(input, 1)?.first() {
        Some(&VALUE) => {}
        Some(&NULL_FIRST) if order.nulls_first => return Ok(Value::Null),
        Some(&NULL_LAST) if !order.nulls_first => return Ok(Value::Null),
        _ => return Err(corrupt()),
    }
    let mut reader = Reader { input, invert: order.descending };
    reader.value(base)
}

/// Moves `input` behind one column without reading it.
///
/// # Errors
/// XX001 when the bytes are no such column.
pub fn skip(input: &mut &[u8], base: BaseType, order: KeyOrder) -> Result<(), ValueError> {
    decode(input, base, order).map(drop)
}

fn corrupt() -> ValueError {
    ValueError::new("XX001", "malformed key")
}

fn take<'a>(input: &mut &'a [u8], count: usize) -> Result<&'a [u8], ValueError> {
    let (head, tail) = input.split_at_checked(count).ok_or_else(corrupt)?;
    *input = tail;
    Ok(head)
}

struct Reader<'a, 'b> {
    input: &'b mut &'a [u8],
    invert: bool,
}

impl json::KeyReader for Reader<'_, '_> {
    fn byte(&mut self) -> Result<u8, ValueError> {
        Reader::byte(self)
    }

    fn bytes(&mut self) -> Result<Vec<u8>, ValueError> {
        self.escaped()
    }

    fn number(&mut self) -> Result<Numeric, ValueError> {
        self.numeric()
    }
}

impl Reader<'_, '_> {
    fn byte(&mut self) -> Result<u8, ValueError> {
        let byte = *take(self.input, 1)?.first().ok_or_else(corrupt)?;
        Ok(if self.invert { !byte } else { byte })
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], ValueError> {
        let mut bytes = <[u8; N]>::try_from(take(self.input, N)?).map_err(|_| corrupt())?;
        if self.invert {
            bytes.iter_mut().for_each(|byte| *byte = !*byte);
        }
        Ok(bytes)
    }

    fn i32(&mut self) -> Result<i32, ValueError> {
        Ok((u32::from_be_bytes(self.bytes()?) ^ 0x8000_0000) as i32)
    }

    fn i64(&mut self) -> Result<i64, ValueError> {
        Ok((u64::from_be_bytes(self.bytes()?) ^ (1 << 63)) as i64)
    }

    fn escaped(&mut self) -> Result<Vec<u8>, ValueError> {
        let mut bytes = Vec::new();
        loop {
            match self.byte()? {
                0 => match self.byte()? {
                    0xff => bytes.push(0),
                    1 => return Ok(bytes),
                    _ => return Err(corrupt()),
                },
                other => bytes.push(other),
            }
        }
    }

    fn value(&mut self, base: BaseType) -> Result<Value, ValueError> {
        Ok(match base {
            BaseType::Bool => Value::Bool(self.byte()? != 0),
            BaseType::Int2 => Value::Int2((u16::from_be_bytes(self.bytes()?) ^ 0x8000) as i16),
            BaseType::Int4 => Value::Int4(self.i32()?),
            BaseType::Int8 => Value::Int8(self.i64()?),
            BaseType::Date => Value::Date(self.i32()?),
            BaseType::Time => Value::Time(self.i64()?),
            BaseType::Timestamp => Value::Timestamp(self.i64()?),
            BaseType::Timestamptz => Value::Timestamptz(self.i64()?),
            BaseType::PgLsn => Value::Lsn(u64::from_be_bytes(self.bytes()?)),
            BaseType::Enum(of) => Value::Enum(of.at(u64::from_be_bytes(self.bytes()?)).ok_or_else(corrupt)?),
            BaseType::Uuid => Value::Uuid(self.bytes()?),
            BaseType::Float4 => {
                let bits = u32::from_be_bytes(self.bytes()?);
                Value::Float4(f32::from_bits(if bits >> 31 == 1 { bits ^ (1 << 31) } else { !bits }))
            }
            BaseType::Float8 => {
                let bits = u64::from_be_bytes(self.bytes()?);
                Value::Float8(f64::from_bits(if bits >> 63 == 1 { bits ^ (1 << 63) } else { !bits }))
            }
            BaseType::Numeric => Value::Numeric(Box::new(self.numeric()?)),
            BaseType::Bytea => Value::Bytea(self.escaped()?.into()),
            BaseType::Interval => {
                let micros = (u128::from_be_bytes(self.bytes()?) ^ (1 << 127)) as i128;
                const DAY: i128 = 86_400_000_000;
                let days = micros / DAY;
                let months = i32::try_from(days / 30).map_err(|_| corrupt())?;
                Value::Interval(Box::new(Interval {
                    months,
                    days: (days % 30) as i32,
                    micros: (micros % DAY) as i64,
                }))
            }
            BaseType::Jsonb => Value::Jsonb(json::decode_key(self)?.into()),
            _ if base.is_text_like() => {
                let text = String::from_utf8(self.escaped()?).map_err(|_| corrupt())?;
                Value::Text(text.into())
            }
            _ if base.is_oid_like() => Value::Oid(u32::from_be_bytes(self.bytes()?)),
            _ => {
                let element = base.element().ok_or_else(corrupt)?;
                let mut elements = Vec::new();
                loop {
                    match self.byte()? {
                        END => break,
                        VALUE => elements.push(self.value(element)?),
                        NULL_LAST => elements.push(Value::Null),
                        _ => return Err(corrupt()),
                    }
                }
                let count = self.byte()?;
                let mut dimensions = Vec::new();
                for _ in 0..count {
                    let (length, lower) = (self.i32()?, self.i32()?);
                    dimensions.push(ArrayDimension::new(length, lower).map_err(|_| corrupt())?);
                }
                Value::Array(Box::new(ArrayValue { element, dimensions, elements }))
            }
        })
    }

    fn numeric(&mut self) -> Result<Numeric, ValueError> {
        let class = self.byte()?;
        match class {
            1 => return Ok(Numeric::NegativeInfinity),
            3 => return Ok(Numeric::zero()),
            5 => return Ok(Numeric::Infinity),
            6 => return Ok(Numeric::NaN),
            2 | 4 => {}
            _ => return Err(corrupt()),
        }
        let outer = self.invert;
        self.invert = outer != (class == 2);
        let exponent = self.i32()?;
        let mut digits = String::new();
        loop {
            match self.byte()? {
                END => break,
                pair if pair <= 100 => {
                    digits.push(char::from(b'0' + (pair - 1) / 10));
                    digits.push(char::from(b'0' + (pair - 1) % 10));
                }
                _ => return Err(corrupt()),
            }
        }
        self.invert = outer;
        let coefficient: BigInt = digits.parse().map_err(|_| corrupt())?;
        let scale = i64::from(digits.len() as i32) - i64::from(exponent);
        if scale.abs() > 200_000 {
            return Err(corrupt());
        }
        let magnitude = if scale >= 0 {
            Numeric::new(coefficient, scale as u32).trim_scale()
        } else {
            Numeric::new(coefficient * BigInt::from(10u8).pow((-scale) as u32), 0)
        };
        Ok(if class == 2 { magnitude.neg() } else { magnitude })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numeric() -> impl Strategy<Value = Value> {
        prop_oneof![
            8 => (any::<i64>(), 0u32..25).prop_map(|(n, scale)| Value::Numeric(Box::new(Numeric::new(BigInt::from(n), scale)))),
            4 => (-200i64..200, 0u32..4).prop_map(|(n, scale)| Value::Numeric(Box::new(Numeric::new(BigInt::from(n), scale)))),
            1 => Just(Value::Numeric(Box::new(Numeric::NaN))),
            1 => Just(Value::Numeric(Box::new(Numeric::Infinity))),
            1 => Just(Value::Numeric(Box::new(Numeric::NegativeInfinity))),
        ]
    }

    fn pair() -> impl Strategy<Value = (BaseType, Value, Value)> {
        fn two<S: Strategy<Value = Value> + Clone + 'static>(
            base: BaseType,
            of: S,
        ) -> BoxedStrategy<(BaseType, Value, Value)> {
            let nullable = prop_oneof![9 => of, 1 => Just(Value::Null)];
            (Just(base), nullable.clone(), nullable).boxed()
        }
        let text =
            prop::collection::vec(prop::sample::select(vec!['\0', 'a', 'b', '\u{ff}', '\u{10ffff}']), 0..5)
                .prop_map(|chars| Value::text(chars.into_iter().collect::<String>()));
        prop_oneof![
            two(BaseType::Bool, any::<bool>().prop_map(Value::Bool)),
            two(BaseType::Int2, any::<i16>().prop_map(Value::Int2)),
            two(BaseType::Int4, any::<i32>().prop_map(Value::Int4)),
            two(BaseType::Int8, any::<i64>().prop_map(Value::Int8)),
            two(BaseType::Float4, any::<f32>().prop_map(Value::Float4)),
            two(
                BaseType::Float8,
                prop_oneof![any::<f64>(), Just(0.0), Just(-0.0), Just(f64::NAN)].prop_map(Value::Float8)
            ),
            two(BaseType::Numeric, numeric().boxed()),
            two(BaseType::Text, text.clone().boxed()),
            two(
                BaseType::Bytea,
                prop::collection::vec(prop::sample::select(vec![0u8, 1, 254, 255]), 0..5)
                    .prop_map(|b| Value::Bytea(b.into()))
                    .boxed()
            ),
            two(BaseType::Date, any::<i32>().prop_map(Value::Date)),
            two(
                BaseType::Interval,
                (-20..20i32, -70..70i32, -200_000_000_000i64..200_000_000_000).prop_map(
                    |(months, days, micros)| Value::Interval(Box::new(Interval { months, days, micros }))
                )
            ),
            two(BaseType::Uuid, any::<[u8; 16]>().prop_map(Value::Uuid)),
            two(
                BaseType::TextArray,
                prop::collection::vec(prop_oneof![text, Just(Value::Null)], 0..3)
                    .prop_map(|e| Value::array(BaseType::Text, e))
                    .boxed()
            ),
        ]
    }

    proptest! {
        #[test]
        fn keys_sort_as_their_values((base, a, b) in pair(), descending: bool, nulls_first: bool, tail: i32) {
            let order = KeyOrder { descending, nulls_first };
            let key = |value: &Value, tail: i32| {
                let mut out = Vec::new();
                encode(&mut out, value, order);
                encode(&mut out, &Value::Int4(tail), KeyOrder::ASCENDING);
                out
            };
            let expected = order.compare(&a, &b);
            prop_assert_eq!(key(&a, tail).cmp(&key(&b, tail)), expected);
            // What follows a column decides only among equals.
            let with_tails = key(&a, 1).cmp(&key(&b, 0));
            prop_assert_eq!(with_tails, expected.then(Ordering::Greater));

            let bytes = key(&a, tail);
            let mut rest = bytes.as_slice();
            let back = decode(&mut rest, base, order).expect("own encoding");
            prop_assert_eq!(back.compare(&a), Ordering::Equal);
            prop_assert_eq!(decode(&mut rest, BaseType::Int4, KeyOrder::ASCENDING).expect("tail"), Value::Int4(tail));
        }

        #[test]
        fn any_bytes_decode_or_fail_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), descending: bool) {
            for base in BaseType::ALL {
                let _ = decode(&mut bytes.as_slice(), *base, KeyOrder { descending, nulls_first: false });
            }
        }
    }

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(prefix_end(&[1, 2]), Some(vec![1, 3]));
        assert_eq!(prefix_end(&[1, 0xff]), Some(vec![2]));
        assert_eq!(prefix_end(&[0xff, 0xff]), None);
    }
}
