//! One SQL value in memory.
//!
//! A value does not know its SQL type: `text`, `varchar(n)`, `char(n)`, `name` and `"char"` are all
//! [`Value::Text`], every `oid`-like type is [`Value::Oid`]; the [`DataType`](crate::datatype::DataType)
//! beside it says which. Small values are held inline, so that a row of integers never allocates.
//!
//! Invariant: `size_of::<Value>() <= 24`. [`Value::compare`] is PostgreSQL's btree order of the type
//! (text by bytes, NaN above every number, -0 equal to 0); nulls sort last and equal each other,
//! which is what sorting and grouping want. SQL's three-valued comparison belongs to the caller.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::datatype::BaseType;
use crate::enum_type::EnumValue;
use crate::json::Json;
use crate::numeric::Numeric;
use crate::value_error::ValueError;

/// A date that is before all others.
pub const DATE_NEGATIVE_INFINITY: i32 = i32::MIN;
/// A date that is after all others.
pub const DATE_INFINITY: i32 = i32::MAX;
/// A timestamp that is before all others.
pub const TIMESTAMP_NEGATIVE_INFINITY: i64 = i64::MIN;
/// A timestamp that is after all others.
pub const TIMESTAMP_INFINITY: i64 = i64::MAX;

/// One SQL value.
#[derive(Clone, Debug)]
pub enum Value {
    /// SQL NULL of any type.
    Null,
    /// `boolean`
    Bool(bool),
    /// `smallint`
    Int2(i16),
    /// `integer`
    Int4(i32),
    /// `bigint`
    Int8(i64),
    /// `real`
    Float4(f32),
    /// `double precision`
    Float8(f64),
    /// `numeric`
    Numeric(Box<Numeric>),
    /// Every string type.
    Text(Arc<str>),
    /// `bytea`
    Bytea(Arc<[u8]>),
    /// Days since 2000-01-01; the extremes are the infinities.
    Date(i32),
    /// Microseconds since midnight, `0 ..= 86_400_000_000`.
    Time(i64),
    /// Microseconds since 2000-01-01 00:00 without zone; the extremes are the infinities.
    Timestamp(i64),
    /// Microseconds since 2000-01-01 00:00 UTC; the extremes are the infinities.
    Timestamptz(i64),
    /// `interval`
    Interval(Box<Interval>),
    /// `uuid`, in the order in which its digits print.
    Uuid([u8; 16]),
    /// `oid`, `xid` and every `reg*` type.
    Oid(u32),
    /// `pg_lsn`
    Lsn(u64),
    /// Every array type, with `int2vector` and `oidvector`.
    Array(Box<ArrayValue>),
    /// A row value.
    Record(Arc<[Value]>),
    /// `jsonb`; `json` is its text.
    Jsonb(Arc<Json>),
    /// A value of an enumeration.
    Enum(EnumValue),
}

/// A time span: months, days and microseconds are kept apart because neither has a fixed length.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interval {
    /// Whole months.
    pub months: i32,
    /// Whole days.
    pub days: i32,
    /// The rest, in microseconds.
    pub micros: i64,
}

impl Interval {
    /// The span in microseconds with months of 30 days and days of 24 hours: the order of intervals.
    pub fn normalised(&self) -> i128 {
        let days = i128::from(self.months) * 30 + i128::from(self.days);
        days * 86_400_000_000 + i128::from(self.micros)
    }
}

impl PartialEq for Interval {
    fn eq(&self, other: &Interval) -> bool {
        self.normalised() == other.normalised()
    }
}
impl Eq for Interval {}
impl PartialOrd for Interval {
    fn partial_cmp(&self, other: &Interval) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Interval {
    fn cmp(&self, other: &Interval) -> Ordering {
        self.normalised().cmp(&other.normalised())
    }
}

/// Extent of one dimension of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArrayDimension {
    /// Number of elements.
    pub length: i32,
    /// Subscript of the first element, 1 unless said otherwise.
    pub lower: i32,
}

impl ArrayDimension {
    /// A dimension of so many elements from this subscript on.
    ///
    /// # Errors
    /// 54000 when the subscripts would go beyond those that an integer has.
    pub fn new(length: i32, lower: i32) -> Result<ArrayDimension, ValueError> {
        match lower.checked_add(length) {
            Some(_) => Ok(ArrayDimension { length, lower }),
            None => Err(ValueError::new("54000", format!("array lower bound is too large: {lower}"))),
        }
    }
}

/// An array: its elements in row-major order, and the shape over them.
/// An empty array has no dimensions. At most six dimensions.
#[derive(Clone, Debug)]
pub struct ArrayValue {
    /// Type of the elements.
    pub element: BaseType,
    /// One entry per dimension; the product of the lengths is `elements.len()`.
    pub dimensions: Vec<ArrayDimension>,
    /// The elements; nulls allowed.
    pub elements: Vec<Value>,
}

impl ArrayValue {
    /// A one-dimensional array with subscripts from 1.
    pub fn from_elements(element: BaseType, elements: Vec<Value>) -> ArrayValue {
        let dimensions = if elements.is_empty() {
            Vec::new()
        } else {
            vec![ArrayDimension { length: elements.len() as i32, lower: 1 }]
        };
        ArrayValue { element, dimensions, elements }
    }

    /// An `int2vector` or `oidvector`: one dimension with subscripts from 0.
    pub fn vector(element: BaseType, elements: Vec<Value>) -> ArrayValue {
        let dimensions = vec![ArrayDimension { length: elements.len() as i32, lower: 0 }];
        ArrayValue { element, dimensions, elements }
    }
}

impl Value {
    /// A text value.
    pub fn text(text: impl AsRef<str>) -> Value {
        Value::Text(Arc::from(text.as_ref()))
    }

    /// A one-dimensional array value.
    pub fn array(element: BaseType, elements: Vec<Value>) -> Value {
        Value::Array(Box::new(ArrayValue::from_elements(element, elements)))
    }

    /// SQL NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The value of a boolean; null and other types give `None`.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// An integer of any width, or an oid.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Int2(n) => Some(i64::from(*n)),
            Value::Int4(n) => Some(i64::from(*n)),
            Value::Int8(n) => Some(*n),
            Value::Oid(n) => Some(i64::from(*n)),
            _ => None,
        }
    }

    /// The text of a string value.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Bytes that this value holds on the heap, about; for memory budgets.
    pub fn heap_size(&self) -> usize {
        match self {
            Value::Text(text) => text.len() + 16,
            Value::Bytea(bytes) => bytes.len() + 16,
            Value::Numeric(_) => 64,
            Value::Interval(_) => 16,
            Value::Jsonb(json) => json.heap_size(),
            Value::Array(array) => 64 + array.elements.iter().map(|v| 24 + v.heap_size()).sum::<usize>(),
            Value::Record(fields) => fields.iter().map(|v| 24 + v.heap_size()).sum::<usize>() + 16,
            _ => 0,
        }
    }

    /// PostgreSQL's btree order. Nulls sort last. Integers of different widths compare by value;
    /// values of unrelated types (never produced by a typed plan) compare by variant.
    pub fn compare(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Int4(a), Value::Int4(b)) => a.cmp(b),
            (Value::Int8(a), Value::Int8(b)) => a.cmp(b),
            (Value::Text(a), Value::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Value::Null, Value::Null) => Ordering::Equal,
            (Value::Null, _) => Ordering::Greater,
            (_, Value::Null) => Ordering::Less,
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Int2(a), Value::Int2(b)) => a.cmp(b),
            (Value::Float4(a), Value::Float4(b)) => compare_floats(f64::from(*a), f64::from(*b)),
            (Value::Float8(a), Value::Float8(b)) => compare_floats(*a, *b),
            (Value::Float4(a), Value::Float8(b)) => compare_floats(f64::from(*a), *b),
            (Value::Float8(a), Value::Float4(b)) => compare_floats(*a, f64::from(*b)),
            (Value::Numeric(a), Value::Numeric(b)) => a.cmp(b),
            (Value::Bytea(a), Value::Bytea(b)) => a.cmp(b),
            (Value::Date(a), Value::Date(b)) => a.cmp(b),
            (Value::Time(a), Value::Time(b))
            | (Value::Timestamp(a), Value::Timestamp(b))
            | (Value::Timestamptz(a), Value::Timestamptz(b)) => a.cmp(b),
            (Value::Interval(a), Value::Interval(b)) => a.cmp(b),
            (Value::Uuid(a), Value::Uuid(b)) => a.cmp(b),
            (Value::Oid(a), Value::Oid(b)) => a.cmp(b),
            (Value::Lsn(a), Value::Lsn(b)) => a.cmp(b),
            (Value::Array(a), Value::Array(b)) => compare_arrays(a, b),
            (Value::Record(a), Value::Record(b)) => compare_slices(a, b),
            (Value::Jsonb(a), Value::Jsonb(b)) => a.compare(b),
            (Value::Enum(a), Value::Enum(b)) => a.position().cmp(&b.position()),
            _ => match (self.as_i64(), other.as_i64()) {
                (Some(a), Some(b)) => a.cmp(&b),
                _ => self.rank().cmp(&other.rank()),
            },
        }
    }

    /// Equality as grouping sees it: nulls equal each other. Agrees with [`Value::compare`].
    pub fn sql_eq(&self, other: &Value) -> bool {
        self.compare(other) == Ordering::Equal
    }

    /// Feeds a hasher such that values which compare equal hash equally.
    pub fn hash_value<H: Hasher>(&self, state: &mut H) {
        match self {
            Value::Null => state.write_u8(0),
            Value::Bool(flag) => state.write_u8(if *flag { 2 } else { 1 }),
            Value::Int2(n) => state.write_i64(i64::from(*n)),
            Value::Int4(n) => state.write_i64(i64::from(*n)),
            Value::Int8(n) => state.write_i64(*n),
            Value::Oid(n) => state.write_i64(i64::from(*n)),
            Value::Float4(n) => hash_float(f64::from(*n), state),
            Value::Float8(n) => hash_float(*n, state),
            Value::Numeric(n) => n.hash(state),
            Value::Text(text) => {
                state.write(text.as_bytes());
                state.write_u8(0xff);
            }
            Value::Bytea(bytes) => {
                state.write(bytes);
                state.write_u8(0xfe);
            }
            Value::Date(n) => state.write_i32(*n),
            Value::Time(n) | Value::Timestamp(n) | Value::Timestamptz(n) => state.write_i64(*n),
            Value::Interval(interval) => state.write_i128(interval.normalised()),
            Value::Uuid(bytes) => state.write(bytes),
            Value::Lsn(n) => state.write_u64(*n),
            Value::Enum(value) => state.write_u64(value.position()),
            Value::Jsonb(json) => json.hash(state),
            Value::Array(array) => {
                array.dimensions.hash(state);
                for element in &array.elements {
                    element.hash_value(state);
                }
            }
            Value::Record(fields) => {
                for field in fields.iter() {
                    field.hash_value(state);
                }
            }
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Value::Bool(_) => 0,
            Value::Int2(_) | Value::Int4(_) | Value::Int8(_) | Value::Oid(_) => 1,
            Value::Float4(_) | Value::Float8(_) => 2,
            Value::Numeric(_) => 3,
            Value::Text(_) => 4,
            Value::Bytea(_) => 5,
            Value::Date(_) => 6,
            Value::Time(_) => 7,
            Value::Timestamp(_) => 8,
            Value::Timestamptz(_) => 9,
            Value::Interval(_) => 10,
            Value::Uuid(_) => 11,
            Value::Lsn(_) => 12,
            Value::Array(_) => 13,
            Value::Record(_) => 14,
            Value::Jsonb(_) => 15,
            Value::Enum(_) => 16,
            Value::Null => 17,
        }
    }
}

/// Equality as grouping sees it; see [`Value::sql_eq`].
impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        self.sql_eq(other)
    }
}
impl Eq for Value {}
impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Value) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Value {
    fn cmp(&self, other: &Value) -> Ordering {
        self.compare(other)
    }
}
impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash_value(state);
    }
}

/// PostgreSQL's order of floats: NaN equals itself and is above all; -0 equals 0.
pub fn compare_floats(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

fn hash_float<H: Hasher>(n: f64, state: &mut H) {
    let canonical = if n.is_nan() {
        f64::NAN
    } else if n == 0.0 {
        0.0
    } else {
        n
    };
    state.write_u64(canonical.to_bits());
}

fn compare_slices(a: &[Value], b: &[Value]) -> Ordering {
    for (left, right) in a.iter().zip(b) {
        let order = left.compare(right);
        if order != Ordering::Equal {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

fn compare_arrays(a: &ArrayValue, b: &ArrayValue) -> Ordering {
    compare_slices(&a.elements, &b.elements)
        .then_with(|| a.dimensions.len().cmp(&b.dimensions.len()))
        .then_with(|| a.dimensions.cmp(&b.dimensions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_small() {
        assert!(std::mem::size_of::<Value>() <= 24);
    }

    #[test]
    fn floats_and_nulls_have_a_total_order() {
        let ordered = [f64::NEG_INFINITY, -1.0, -0.0, 1.0, f64::INFINITY, f64::NAN];
        for pair in ordered.windows(2) {
            assert_eq!(compare_floats(pair[0], pair[1]), Ordering::Less);
        }
        assert_eq!(compare_floats(-0.0, 0.0), Ordering::Equal);
        assert_eq!(Value::Null.compare(&Value::Int4(i32::MAX)), Ordering::Greater);
        assert_eq!(Value::Int2(3).compare(&Value::Int8(3)), Ordering::Equal);
    }
}
