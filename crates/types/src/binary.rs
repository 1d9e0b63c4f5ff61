//! Binary form of every type, as PostgreSQL's send and receive functions have it (big-endian).

use num_bigint::{BigInt, Sign};
use num_traits::{Signed, ToPrimitive, Zero};

use crate::datatype::BaseType;
use crate::numeric::{Numeric, SCALE_MAX};
use crate::value::{ArrayDimension, ArrayValue, Interval, Value};
use crate::value_error::ValueError;

/// Appends the binary form of a value that is not NULL.
pub fn binary_out(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => {}
        Value::Bool(flag) => out.push(u8::from(*flag)),
        Value::Int2(n) => out.extend(n.to_be_bytes()),
        Value::Int4(n) | Value::Date(n) => out.extend(n.to_be_bytes()),
        Value::Int8(n) | Value::Time(n) | Value::Timestamp(n) | Value::Timestamptz(n) => {
            out.extend(n.to_be_bytes());
        }
        Value::Float4(n) => out.extend(n.to_be_bytes()),
        Value::Float8(n) => out.extend(n.to_be_bytes()),
        Value::Oid(n) => out.extend(n.to_be_bytes()),
        Value::Lsn(n) => out.extend(n.to_be_bytes()),
        Value::Text(text) => out.extend(text.as_bytes()),
        Value::Enum(value) => out.extend(value.text().as_bytes()),
        Value::Bytea(bytes) => out.extend(bytes.iter()),
        Value::Uuid(bytes) => out.extend(bytes),
        Value::Interval(interval) => {
            out.extend(interval.micros.to_be_bytes());
            out.extend(interval.days.to_be_bytes());
            out.extend(interval.months.to_be_bytes());
        }
        Value::Numeric(n) => numeric_out(out, n),
        Value::Jsonb(json) => {
            // The version, then text.
            out.push(1);
            out.extend(json.to_string().as_bytes());
        }
        Value::Array(array) => {
            let has_null = array.elements.iter().any(Value::is_null);
            out.extend((array.dimensions.len() as i32).to_be_bytes());
            out.extend(i32::from(has_null).to_be_bytes());
            out.extend(array.element.oid().to_be_bytes());
            for dimension in &array.dimensions {
                out.extend(dimension.length.to_be_bytes());
                out.extend(dimension.lower.to_be_bytes());
            }
            for element in &array.elements {
                sized(out, element);
            }
        }
        Value::Record(fields) => {
            out.extend((fields.len() as i32).to_be_bytes());
            for field in fields.iter() {
                let ty = natural_type(field);
                out.extend(ty.oid().to_be_bytes());
                sized(out, field);
            }
        }
    }
}

/// The type that a bare value most likely has; a record's fields do not keep theirs.
pub fn natural_type(value: &Value) -> BaseType {
    match value {
        Value::Null | Value::Text(_) => BaseType::Text,
        Value::Bool(_) => BaseType::Bool,
        Value::Int2(_) => BaseType::Int2,
        Value::Int4(_) => BaseType::Int4,
        Value::Int8(_) => BaseType::Int8,
        Value::Float4(_) => BaseType::Float4,
        Value::Float8(_) => BaseType::Float8,
        Value::Numeric(_) => BaseType::Numeric,
        Value::Bytea(_) => BaseType::Bytea,
        Value::Date(_) => BaseType::Date,
        Value::Time(_) => BaseType::Time,
        Value::Timestamp(_) => BaseType::Timestamp,
        Value::Timestamptz(_) => BaseType::Timestamptz,
        Value::Interval(_) => BaseType::Interval,
        Value::Uuid(_) => BaseType::Uuid,
        Value::Oid(_) => BaseType::Oid,
        Value::Lsn(_) => BaseType::PgLsn,
        Value::Array(array) => array.element.array().unwrap_or(BaseType::TextArray),
        Value::Record(_) => BaseType::Record,
        Value::Jsonb(_) => BaseType::Jsonb,
        Value::Enum(value) => value.of().map_or(BaseType::Text, BaseType::Enum),
    }
}

fn sized(out: &mut Vec<u8>, value: &Value) {
    if value.is_null() {
        out.extend((-1i32).to_be_bytes());
        return;
    }
    let at = out.len();
    out.extend([0; 4]);
    binary_out(out, value);
    let size = (out.len() - at - 4) as i32;
    if let Some(slot) = out.get_mut(at..at + 4) {
        slot.copy_from_slice(&size.to_be_bytes());
    }
}

fn numeric_out(out: &mut Vec<u8>, n: &Numeric) {
    let mut header = |digits: u16, weight: i16, sign: u16, scale: u16| {
        out.extend(digits.to_be_bytes());
        out.extend(weight.to_be_bytes());
        out.extend(sign.to_be_bytes());
        out.extend(scale.to_be_bytes());
    };
    let (coefficient, scale) = match n {
        Numeric::NaN => return header(0, 0, 0xC000, 0),
        Numeric::Infinity => return header(0, 0, 0xD000, 0x20),
        Numeric::NegativeInfinity => return header(0, 0, 0xF000, 0x20),
        Numeric::Finite { coefficient, scale } => (coefficient, *scale),
    };
    // Pad so that the digits behind the point fill groups of four.
    let padding = (4 - scale % 4) % 4;
    let aligned = coefficient.abs() * BigInt::from(10u8).pow(padding);
    let behind = ((scale + padding) / 4) as i64;
    let mut groups: Vec<u16> = Vec::new();
    let mut rest = aligned;
    let base = BigInt::from(10_000u16);
    while !rest.is_zero() {
        groups.push((&rest % &base).to_u16().unwrap_or(0));
        rest /= &base;
    }
    let weight = groups.len() as i64 - 1 - behind;
    groups.reverse();
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let weight = if groups.is_empty() { 0 } else { weight as i16 };
    let sign = if coefficient.is_negative() { 0x4000 } else { 0 };
    header(groups.len() as u16, weight, sign, scale as u16);
    for group in groups {
        out.extend(group.to_be_bytes());
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], ValueError> {
        let (head, tail) = self.0.split_at_checked(count).ok_or_else(short)?;
        self.0 = tail;
        Ok(head)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], ValueError> {
        <[u8; N]>::try_from(self.take(N)?).map_err(|_| short())
    }
    fn i16(&mut self) -> Result<i16, ValueError> {
        Ok(i16::from_be_bytes(self.array()?))
    }
    fn i32(&mut self) -> Result<i32, ValueError> {
        Ok(i32::from_be_bytes(self.array()?))
    }
    fn i64(&mut self) -> Result<i64, ValueError> {
        Ok(i64::from_be_bytes(self.array()?))
    }
}

fn short() -> ValueError {
    ValueError::new("08P01", "insufficient data left in message")
}

/// Reads the binary form of a value.
///
/// # Errors
/// 22P03 when bytes are left over, 08P01 when they are too few, 22021 for bad UTF-8.
pub fn binary_in(bytes: &[u8], base: BaseType) -> Result<Value, ValueError> {
    let mut reader = Reader(bytes);
    let value = read_binary(&mut reader, base)?;
    if reader.0.is_empty() { Ok(value) } else { Err(ValueError::binary()) }
}

fn read_binary(reader: &mut Reader<'_>, base: BaseType) -> Result<Value, ValueError> {
    Ok(match base {
        BaseType::Bool => Value::Bool(reader.array::<1>()? != [0]),
        BaseType::Int2 => Value::Int2(reader.i16()?),
        BaseType::Int4 => Value::Int4(reader.i32()?),
        BaseType::Int8 => Value::Int8(reader.i64()?),
        BaseType::Float4 => Value::Float4(f32::from_be_bytes(reader.array()?)),
        BaseType::Float8 => Value::Float8(f64::from_be_bytes(reader.array()?)),
        BaseType::Date => Value::Date(reader.i32()?),
        BaseType::Time => Value::Time(reader.i64()?),
        BaseType::Timestamp => Value::Timestamp(reader.i64()?),
        BaseType::Timestamptz => Value::Timestamptz(reader.i64()?),
        BaseType::Interval => {
            let micros = reader.i64()?;
            let days = reader.i32()?;
            Value::Interval(Box::new(Interval { months: reader.i32()?, days, micros }))
        }
        BaseType::Uuid => Value::Uuid(reader.array()?),
        BaseType::PgLsn => Value::Lsn(u64::from_be_bytes(reader.array()?)),
        BaseType::Bytea => {
            let all = reader.take(reader.0.len())?;
            Value::Bytea(all.into())
        }
        BaseType::Numeric => Value::Numeric(Box::new(numeric_in(reader)?)),
        _ if base.is_text_like() => {
            let all = reader.take(reader.0.len())?;
            let text = std::str::from_utf8(all)
                .map_err(|_| ValueError::new("22021", "invalid byte sequence for encoding \"UTF8\""))?;
            if text.contains('\0') {
                return Err(ValueError::new("22021", "invalid byte sequence for encoding \"UTF8\": 0x00"));
            }
            if base == BaseType::Json {
                crate::json::text::parse(text)?;
            }
            Value::text(text)
        }
        BaseType::Jsonb => {
            let [version] = reader.array()?;
            if version != 1 {
                return Err(ValueError::new("XX000", format!("unsupported jsonb version number {version}")));
            }
            let all = reader.take(reader.0.len())?;
            let text = std::str::from_utf8(all)
                .map_err(|_| ValueError::new("22021", "invalid byte sequence for encoding \"UTF8\""))?;
            Value::Jsonb(crate::json::text::read(text)?.into())
        }
        BaseType::Enum(of) => {
            let all = reader.take(reader.0.len())?;
            let text = std::str::from_utf8(all)
                .map_err(|_| ValueError::new("22021", "invalid byte sequence for encoding \"UTF8\""))?;
            Value::Enum(of.read(text)?)
        }
        _ if base.is_oid_like() => Value::Oid(u32::from_be_bytes(reader.array()?)),
        _ => match base.element() {
            Some(element) => array_in(reader, element)?,
            None => {
                return Err(ValueError::new(
                    "42883",
                    format!("no binary input function available for type {base}"),
                ));
            }
        },
    })
}

fn array_in(reader: &mut Reader<'_>, element: BaseType) -> Result<Value, ValueError> {
    let count = reader.i32()?;
    if !(0..=6).contains(&count) {
        return Err(ValueError::new(
            "54000",
            format!("number of array dimensions ({count}) exceeds the maximum allowed (6)"),
        ));
    }
    let _has_null = reader.i32()?;
    let oid = u32::from_be_bytes(reader.array()?);
    if oid != element.oid() {
        return Err(ValueError::new("42804", "wrong element type"));
    }
    let mut dimensions = Vec::new();
    let mut total: usize = usize::from(count > 0);
    for _ in 0..count {
        let (length, lower) = (reader.i32()?, reader.i32()?);
        let count = usize::try_from(length).map_err(|_| ValueError::binary())?;
        total = total.checked_mul(count).ok_or_else(ValueError::binary)?;
        dimensions.push(ArrayDimension::new(length, lower)?);
    }
    // Each element takes at least its length word, so a lying header cannot make us allocate.
    if total > reader.0.len() / 4 {
        return Err(short());
    }
    let mut elements = Vec::with_capacity(total);
    for _ in 0..total {
        let size = reader.i32()?;
        elements.push(match usize::try_from(size) {
            Ok(size) => binary_in(reader.take(size)?, element)?,
            Err(_) if size == -1 => Value::Null,
            Err(_) => return Err(ValueError::binary()),
        });
    }
    if elements.is_empty() {
        dimensions.clear();
    }
    Ok(Value::Array(Box::new(ArrayValue { element, dimensions, elements })))
}

fn numeric_in(reader: &mut Reader<'_>) -> Result<Numeric, ValueError> {
    let count = reader.i16()? as u16;
    let weight = i64::from(reader.i16()?);
    let sign = reader.i16()? as u16;
    let scale = u32::from(reader.i16()? as u16);
    match sign {
        0xC000 => return Ok(Numeric::NaN),
        0xD000 => return Ok(Numeric::Infinity),
        0xF000 => return Ok(Numeric::NegativeInfinity),
        0 | 0x4000 => {}
        _ => return Err(ValueError::new("22P03", "invalid sign in external \"numeric\" value")),
    }
    if scale > SCALE_MAX {
        return Err(ValueError::new("22P03", "invalid scale in external \"numeric\" value"));
    }
    let mut digits = BigInt::zero();
    for _ in 0..count {
        let digit = reader.i16()?;
        if !(0..10_000).contains(&digit) {
            return Err(ValueError::new("22P03", "invalid digit in external \"numeric\" value"));
        }
        digits = digits * 10_000 + digit;
    }
    let exponent = (weight + 1 - i64::from(count)) * 4;
    let magnitude = if exponent >= 0 {
        Numeric::new(digits * BigInt::from(10u8).pow(exponent as u32), 0)
    } else {
        Numeric::new(digits, (-exponent) as u32)
    };
    let rounded = magnitude.trunc(i64::from(scale));
    Ok(match rounded {
        Numeric::Finite { coefficient, scale } if sign == 0x4000 => {
            Numeric::new(BigInt::from_biguint(Sign::Minus, coefficient.magnitude().clone()), scale)
        }
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::datatype::DataType;
    use crate::text::{TextContext, text_in};

    /// Type, text and the bytes that PostgreSQL 15's send function gives.
    #[test]
    fn values_have_postgresqls_binary_form() {
        for line in include_str!("testdata/binary.txt").lines() {
            let [ty, text, hex] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let ty = DataType::parse(ty).expect("a known type");
            let value = text_in(text, ty.base, &TextContext::UTC).expect("a value of the type");
            let mut bytes = Vec::new();
            binary_out(&mut bytes, &value);
            let found: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, hex, "{ty} {text}");
            let back = binary_in(&bytes, ty.base).expect("what was written");
            assert_eq!(format!("{back:?}"), format!("{value:?}"), "{ty} {text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn any_bytes_read_or_fail_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..40),
            base in prop::sample::select(BaseType::ALL),
        ) {
            let _ = binary_in(&bytes, base);
        }
    }
}
