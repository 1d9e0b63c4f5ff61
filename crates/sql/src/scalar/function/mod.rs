//! The built-in functions, by family. Each takes its arguments' values; strict functions never see
//! a null. A function without an implementation here does not exist for resolution.

mod are;
pub(super) mod array;
mod bytes;
mod date;
mod digest;
mod enumeration;
mod from_char;
mod hash;
mod identifier;
pub(super) mod json;
mod make;
mod matching;
pub(super) mod math;
mod number_format;
pub(super) mod pattern;
mod regexp;
mod sequence;
pub(super) mod set;
mod string;
mod system;
mod to_char;
mod trigonometry;

use rustydb_types::datatype::BaseType;
use rustydb_types::value::Value;

use super::catalogue::FunctionFn;
use crate::error::SqlError;

pub(super) use string::quote_ident;

type Answer = Result<Value, SqlError>;

/// The implementation of a function; `None` when RustyDB does not have it.
pub(super) fn find(name: &str, args: &[BaseType]) -> Option<FunctionFn> {
    math::find(name, args)
        .or_else(|| trigonometry::find(name, args))
        .or_else(|| bytes::find(name, args))
        .or_else(|| identifier::find(name, args))
        .or_else(|| hash::find(name, args))
        .or_else(|| string::find(name, args))
        .or_else(|| pattern::find(name, args))
        .or_else(|| regexp::find(name, args))
        .or_else(|| digest::find(name, args))
        .or_else(|| date::find(name, args))
        .or_else(|| make::find(name, args))
        .or_else(|| array::find(name, args))
        .or_else(|| enumeration::find(name, args))
        .or_else(|| json::find(name, args))
        .or_else(|| sequence::find(name, args))
        .or_else(|| system::find(name, args))
}

fn mismatch() -> SqlError {
    SqlError::internal("function applied to values of the wrong type")
}

fn text(args: &[Value], at: usize) -> Result<&str, SqlError> {
    args.get(at).and_then(Value::as_str).ok_or_else(mismatch)
}

fn int(args: &[Value], at: usize) -> Result<i64, SqlError> {
    args.get(at).and_then(Value::as_i64).ok_or_else(mismatch)
}
