//! Arrays, and `||`, which joins arrays, strings and bytes.

use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::value::{ArrayDimension, ArrayValue, Value};

use super::super::EvalContext;
use super::super::cast;
use super::super::catalogue::FunctionFn;
use super::{Answer, int, mismatch};
use crate::error::{SqlError, SqlState};

pub(super) fn find(name: &str, _args: &[BaseType]) -> Option<FunctionFn> {
    Some(match name {
        "array_length" => |a, _| Ok(dimension(a)?.map_or(Value::Null, |d| Value::Int4(d.length))),
        "array_lower" => |a, _| Ok(dimension(a)?.map_or(Value::Null, |d| Value::Int4(d.lower))),
        "array_upper" => {
            |a, _| Ok(dimension(a)?.map_or(Value::Null, |d| Value::Int4(d.lower + d.length - 1)))
        }
        "array_ndims" => |a, _| {
            let count = array(&a[0])?.dimensions.len() as i32;
            Ok(if count == 0 { Value::Null } else { Value::Int4(count) })
        },
        "array_dims" => |a, _| {
            let shape: String = array(&a[0])?
                .dimensions
                .iter()
                .map(|d| format!("[{}:{}]", d.lower, d.lower + d.length - 1))
                .collect();
            Ok(if shape.is_empty() { Value::Null } else { Value::text(shape) })
        },
        "cardinality" => |a, _| Ok(Value::Int4(array(&a[0])?.elements.len() as i32)),
        "array_append" => |a, call| append(&a[0], &a[1], element_type(call.ty)),
        "array_prepend" => |a, call| prepend(&a[0], &a[1], element_type(call.ty)),
        "array_cat" => |a, _| concat(&a[0], &a[1]),
        "array_position" => |a, _| match &a[0] {
            Value::Array(inner) => {
                let lower = inner.dimensions.first().map_or(1, |d| i64::from(d.lower));
                let from = a.get(2).and_then(Value::as_i64).unwrap_or(lower);
                let found = inner
                    .elements
                    .iter()
                    .enumerate()
                    .map(|(at, v)| (at as i64 + lower, v))
                    .find(|(at, v)| *at >= from && v.sql_eq(&a[1]));
                Ok(found.map_or(Value::Null, |(at, _)| Value::Int4(at as i32)))
            }
            _ => Ok(Value::Null),
        },
        "array_positions" => |a, _| match &a[0] {
            Value::Array(inner) => {
                let lower = inner.dimensions.first().map_or(1, |d| d.lower);
                let found = inner
                    .elements
                    .iter()
                    .enumerate()
                    .filter(|(_, v)| v.sql_eq(&a[1]))
                    .map(|(at, _)| Value::Int4(at as i32 + lower))
                    .collect();
                Ok(Value::array(BaseType::Int4, found))
            }
            _ => Ok(Value::Null),
        },
        "trim_array" => |a, _| match (&a[0], a[1].as_i64()) {
            (Value::Array(inner), Some(count)) => {
                let length = inner.dimensions.first().map_or(0, |dimension| i64::from(dimension.length));
                if !(0..=length).contains(&count) {
                    return Err(SqlError::new(
                        SqlState::ARRAY_SUBSCRIPT_ERROR,
                        format!("number of elements to trim must be between 0 and {length}"),
                    ));
                }
                let mut trimmed = inner.clone();
                let width = inner.elements.len().checked_div(length as usize).unwrap_or(0);
                trimmed.elements.truncate((length - count) as usize * width);
                if trimmed.elements.is_empty() {
                    trimmed.dimensions.clear();
                } else if let Some(first) = trimmed.dimensions.first_mut() {
                    // What is left is numbered from 1.
                    first.length -= count as i32;
                    first.lower = 1;
                }
                Ok(Value::Array(trimmed))
            }
            _ => Ok(Value::Null),
        },
        "array_remove" => |a, _| match &a[0] {
            Value::Array(inner) if inner.dimensions.len() > 1 => Err(SqlError::not_supported(
                "removing elements from multidimensional arrays is not supported",
            )),
            Value::Array(inner) => {
                let mut left = inner.clone();
                left.elements.retain(|element| !element.sql_eq(&a[1]));
                if left.elements.is_empty() {
                    left.dimensions.clear();
                } else if let Some(only) = left.dimensions.first_mut() {
                    // Its subscripts still begin where they did.
                    only.length = i32::try_from(left.elements.len()).unwrap_or(i32::MAX);
                }
                Ok(Value::Array(left))
            }
            _ => Ok(Value::Null),
        },
        "array_replace" => |a, _| match &a[0] {
            Value::Array(inner) => {
                let mut changed = inner.clone();
                for element in &mut changed.elements {
                    if element.sql_eq(&a[1]) {
                        *element = a[2].clone();
                    }
                }
                Ok(Value::Array(changed))
            }
            _ => Ok(Value::Null),
        },
        "array_to_string" => |a, call| {
            let (Value::Array(inner), Value::Text(delimiter)) = (&a[0], &a[1]) else {
                return Ok(Value::Null);
            };
            let null_text = a.get(2).and_then(Value::as_str);
            let ty = DataType::plain(inner.element);
            let mut out = super::string::Joined::default();
            let mut is_first = true;
            for element in &inner.elements {
                let shown = match (element.is_null(), null_text) {
                    (true, None) => continue,
                    (true, Some(text)) => text.to_owned(),
                    (false, _) => wire_text(element, ty, call.ctx),
                };
                if !is_first {
                    out.push(delimiter)?;
                }
                is_first = false;
                out.push(&shown)?;
            }
            Ok(Value::text(out.text))
        },
        "string_to_array" => |a, _| {
            let Value::Text(whole) = &a[0] else { return Ok(Value::Null) };
            let null_text = a.get(2).and_then(Value::as_str);
            let parts = split(whole, a[1].as_str());
            let elements = parts
                .into_iter()
                .map(|part| if Some(part.as_str()) == null_text { Value::Null } else { Value::text(part) })
                .collect();
            Ok(Value::array(BaseType::Text, elements))
        },
        "array_fill" => |a, call| {
            let Value::Array(lengths) = &a[1] else {
                return Err(SqlError::new(
                    SqlState::NULL_VALUE_NOT_ALLOWED,
                    "dimension array or low bound array cannot be null",
                ));
            };
            let lengths: Vec<i64> = lengths.elements.iter().map(|v| v.as_i64().unwrap_or(0).max(0)).collect();
            let total = lengths
                .iter()
                .try_fold(1i64, |total, n| total.checked_mul(*n))
                .filter(|n| *n <= 1 << 24)
                .ok_or_else(|| {
                    SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "array size exceeds the maximum allowed")
                })?;
            let dimensions = if total == 0 || lengths.is_empty() {
                Vec::new()
            } else {
                let lowers = match a.get(2) {
                    Some(Value::Array(lowers)) => {
                        lowers.elements.iter().map(|v| v.as_i64().unwrap_or(1)).collect()
                    }
                    _ => vec![1; lengths.len()],
                };
                if lowers.len() != lengths.len() {
                    return Err(SqlError::new(
                        SqlState::ARRAY_SUBSCRIPT_ERROR,
                        "wrong number of array subscripts",
                    ));
                }
                let shape = lengths.iter().zip(lowers);
                shape
                    .map(|(n, lower)| ArrayDimension::new(*n as i32, lower as i32))
                    .collect::<Result<Vec<_>, _>>()?
            };
            let count = if lengths.is_empty() { 0 } else { total as usize };
            Ok(Value::Array(Box::new(ArrayValue {
                element: element_type(call.ty),
                dimensions,
                elements: vec![a[0].clone(); count],
            })))
        },
        _ => return None,
    })
}

/// Splits at a delimiter; a null delimiter splits into characters, an empty text into nothing.
pub(super) fn split(whole: &str, delimiter: Option<&str>) -> Vec<String> {
    match delimiter {
        _ if whole.is_empty() => Vec::new(),
        None => whole.chars().map(String::from).collect(),
        Some("") => vec![whole.to_owned()],
        Some(delimiter) => whole.split(delimiter).map(str::to_owned).collect(),
    }
}

fn element_type(ty: DataType) -> BaseType {
    ty.base.element().unwrap_or(BaseType::Text)
}

fn array(value: &Value) -> Result<&ArrayValue, SqlError> {
    match value {
        Value::Array(inner) => Ok(inner),
        _ => Err(mismatch()),
    }
}

fn dimension(args: &[Value]) -> Result<Option<ArrayDimension>, SqlError> {
    let at = usize::try_from(int(args, 1)? - 1).unwrap_or(usize::MAX);
    Ok(array(&args[0])?.dimensions.get(at).copied())
}

/// A value as a client would see it (`t`, not `true`).
pub(super) fn wire_text(value: &Value, ty: DataType, ctx: &EvalContext<'_>) -> String {
    match value {
        Value::Bool(flag) => if *flag { "t" } else { "f" }.to_owned(),
        _ => cast::print(value, ty, ctx),
    }
}

/// The function behind `||` of arrays.
pub(in super::super) fn append(list: &Value, element: &Value, base: BaseType) -> Answer {
    Ok(match list {
        Value::Array(inner) if inner.dimensions.len() <= 1 => {
            let mut grown = inner.clone();
            grown.elements.push(element.clone());
            match grown.dimensions.first_mut() {
                Some(first) => *first = ArrayDimension::new(first.length + 1, first.lower)?,
                None => grown.dimensions.push(ArrayDimension { length: 1, lower: 1 }),
            }
            Value::Array(grown)
        }
        Value::Array(_) => {
            return Err(SqlError::new(
                SqlState::DATA_EXCEPTION,
                "argument must be empty or one-dimensional array",
            ));
        }
        _ => Value::array(base, vec![element.clone()]),
    })
}

/// The function behind `||` of arrays.
pub(in super::super) fn prepend(element: &Value, list: &Value, base: BaseType) -> Answer {
    Ok(match list {
        Value::Array(inner) if inner.dimensions.len() <= 1 => {
            let mut grown = inner.clone();
            grown.elements.insert(0, element.clone());
            match grown.dimensions.first_mut() {
                Some(first) => *first = ArrayDimension::new(first.length + 1, first.lower)?,
                None => grown.dimensions.push(ArrayDimension { length: 1, lower: 1 }),
            }
            Value::Array(grown)
        }
        Value::Array(_) => {
            return Err(SqlError::new(
                SqlState::DATA_EXCEPTION,
                "argument must be empty or one-dimensional array",
            ));
        }
        _ => Value::array(base, vec![element.clone()]),
    })
}

/// The function behind `||` of arrays.
pub(in super::super) fn concat(a: &Value, b: &Value) -> Answer {
    let (left, right) = match (a, b) {
        (Value::Array(left), Value::Array(right)) => (left, right),
        (Value::Array(_), _) => return Ok(a.clone()),
        _ => return Ok(b.clone()),
    };
    if left.elements.is_empty() {
        return Ok(b.clone());
    }
    if right.elements.is_empty() {
        return Ok(a.clone());
    }
    let incompatible =
        || SqlError::new(SqlState::ARRAY_SUBSCRIPT_ERROR, "cannot concatenate incompatible arrays");
    let mut joined = left.clone();
    joined.elements.extend(right.elements.iter().cloned());
    let (l, r) = (left.dimensions.len(), right.dimensions.len());
    let added = if l == r {
        if left.dimensions.get(1..) != right.dimensions.get(1..) {
            return Err(incompatible());
        }
        right.dimensions.first().map_or(0, |d| d.length)
    } else if l == r + 1 && left.dimensions.get(1..) == Some(right.dimensions.as_slice()) {
        1
    } else if r == l + 1 && right.dimensions.get(1..) == Some(left.dimensions.as_slice()) {
        joined.dimensions = right.dimensions.clone();
        1
    } else {
        return Err(incompatible());
    };
    if let Some(first) = joined.dimensions.first_mut() {
        *first = ArrayDimension::new(first.length + added, first.lower)?;
    }
    Ok(Value::Array(joined))
}

/// `||`
pub(in super::super) fn concat_operator(a: &Value, b: &Value, ctx: &EvalContext<'_>) -> Answer {
    match (a, b) {
        (Value::Text(left), Value::Text(right)) => {
            let mut joined = String::with_capacity(left.len() + right.len());
            joined.push_str(left);
            joined.push_str(right);
            Ok(Value::text(joined))
        }
        (Value::Bytea(left), Value::Bytea(right)) => {
            Ok(Value::Bytea([left.as_ref(), right.as_ref()].concat().into()))
        }
        (Value::Text(left), other) => Ok(Value::text(format!("{left}{}", plain(other, ctx)))),
        (other, Value::Text(right)) => Ok(Value::text(format!("{}{right}", plain(other, ctx)))),
        _ => Err(mismatch()),
    }
}

fn plain(value: &Value, ctx: &EvalContext<'_>) -> String {
    cast::print(value, DataType::plain(rustydb_types::binary::natural_type(value)), ctx)
}

/// `a @> b`: every element of `b` is in `a`; nulls match nothing.
pub(in super::super) fn contains(a: &Value, b: &Value) -> Answer {
    let (a, b) = (array(a)?, array(b)?);
    let all =
        b.elements.iter().all(|v| !v.is_null() && a.elements.iter().any(|w| !w.is_null() && w.sql_eq(v)));
    Ok(Value::Bool(all))
}

/// `a && b`: some element is in both.
pub(in super::super) fn overlaps(a: &Value, b: &Value) -> Answer {
    let (a, b) = (array(a)?, array(b)?);
    let some =
        b.elements.iter().any(|v| !v.is_null() && a.elements.iter().any(|w| !w.is_null() && w.sql_eq(v)));
    Ok(Value::Bool(some))
}
