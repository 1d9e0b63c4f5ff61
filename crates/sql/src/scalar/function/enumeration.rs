//! Functions over enumerations.

use rustydb_types::datatype::BaseType;
use rustydb_types::enum_type::{EnumType, EnumValue};
use rustydb_types::value::Value;

use super::{Answer, mismatch};
use crate::error::{SqlError, SqlState};
use crate::scalar::catalogue::{FunctionFn, Invocation};

/// The implementation of a function over enumerations.
pub(super) fn find(name: &str, _args: &[BaseType]) -> Option<FunctionFn> {
    Some(match name {
        "enum_cmp" => |a, _| Ok(Value::Int4(order(a)? as i32)),
        "enum_eq" => |a, _| Ok(Value::Bool(order(a)?.is_eq())),
        "enum_ne" => |a, _| Ok(Value::Bool(order(a)?.is_ne())),
        "enum_lt" => |a, _| Ok(Value::Bool(order(a)?.is_lt())),
        "enum_le" => |a, _| Ok(Value::Bool(order(a)?.is_le())),
        "enum_gt" => |a, _| Ok(Value::Bool(order(a)?.is_gt())),
        "enum_ge" => |a, _| Ok(Value::Bool(order(a)?.is_ge())),
        "enum_smaller" => |a, _| a.iter().min().cloned().ok_or_else(mismatch),
        "enum_larger" => |a, _| a.iter().max().cloned().ok_or_else(mismatch),
        "enum_first" => |_, call| end(of(call)?, |of| of.values().next()),
        "enum_last" => |_, call| end(of(call)?, |of| of.values().next_back()),
        "enum_range" => range,
        _ => return None,
    })
}

fn order(args: &[Value]) -> Result<std::cmp::Ordering, SqlError> {
    match args {
        [left, right] => Ok(left.compare(right)),
        _ => Err(mismatch()),
    }
}

/// The enumeration that a call is about.
fn of(call: &Invocation<'_>) -> Result<EnumType, SqlError> {
    let found = call.arg_types.iter().find_map(|ty| match ty.base {
        BaseType::Enum(of) => Some(of),
        _ => None,
    });
    found
        .ok_or_else(|| SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "could not determine actual enum type"))
}

fn end(of: EnumType, pick: fn(EnumType) -> Option<EnumValue>) -> Answer {
    pick(of).map(Value::Enum).ok_or_else(|| {
        let message = format!("enum {} contains no values", of.definition().shown);
        SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
    })
}

/// All values, or those between two of which either may be NULL.
fn range(args: &[Value], call: &Invocation<'_>) -> Answer {
    let of = of(call)?;
    let (from, to) = match args {
        [from, to] => (from, to),
        _ => (&Value::Null, &Value::Null),
    };
    let within = |value: &Value| {
        (from.is_null() || value.compare(from).is_ge()) && (to.is_null() || value.compare(to).is_le())
    };
    let values = of.values().map(Value::Enum).filter(within).collect();
    Ok(Value::array(BaseType::Enum(of), values))
}
