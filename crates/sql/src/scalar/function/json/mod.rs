//! Functions and operators of `json` and `jsonb`.

pub(in super::super) mod access;
pub(in super::super) mod change;
pub(in super::super) mod output;

use std::sync::Arc;

use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::json::Json;
use rustydb_types::json::text::{self, Item, Kind};
use rustydb_types::value::{ArrayValue, Value};

use self::output::Writer;
use super::super::catalogue::{FunctionFn, Invocation, OperatorFn};
use super::{Answer, mismatch};
use crate::error::{SqlError, SqlState};

pub(super) fn find(name: &str, _args: &[BaseType]) -> Option<FunctionFn> {
    Some(match name {
        "to_json" => |a, call| Ok(Value::text(output::of(arg(a, 0)?, arg_type(call, 0), call.ctx)?)),
        "to_jsonb" => |a, call| parsed(&output::of(arg(a, 0)?, arg_type(call, 0), call.ctx)?),
        "row_to_json" | "array_to_json" => |a, call| {
            let has_lines = a.get(1).and_then(Value::as_bool) == Some(true);
            let mut writer = Writer::new(call.ctx, has_lines);
            writer.value(arg(a, 0)?, arg_type(call, 0))?;
            Ok(Value::text(writer.finish()))
        },
        "json_build_array" => |a, call| build_array(a, call).map(Value::text),
        "jsonb_build_array" => |a, call| parsed(&build_array(a, call)?),
        "json_build_object" => |a, call| build_object(a, call, false).map(Value::text),
        "jsonb_build_object" => |a, call| parsed(&build_object(a, call, true)?),
        "json_object" => |a, _| object_of_texts(a).map(Value::text),
        "jsonb_object" => |a, _| parsed(&object_of_texts(a)?),
        "json_array_length" | "jsonb_array_length" => |a, _| array_length(arg(a, 0)?),
        "json_typeof" => |a, _| Ok(Value::text(text::parse(super::text(a, 0)?)?.type_name())),
        "jsonb_typeof" => |a, _| Ok(Value::text(jsonb(a, 0)?.type_name())),
        "json_strip_nulls" => |a, _| {
            let mut out = String::new();
            change::write_without_nulls(&text::parse(super::text(a, 0)?)?, &mut out);
            Ok(Value::text(out))
        },
        "jsonb_strip_nulls" => |a, _| Ok(made(change::without_nulls(jsonb(a, 0)?))),
        "jsonb_pretty" => |a, _| {
            let mut out = String::new();
            jsonb(a, 0)?.write_pretty(&mut out, 0);
            Ok(Value::text(out))
        },
        "json_extract_path" => |a, _| access::path_of_text(arg(a, 0)?, rest(a), false),
        "json_extract_path_text" => |a, _| access::path_of_text(arg(a, 0)?, rest(a), true),
        "jsonb_extract_path" => |a, _| access::path(arg(a, 0)?, rest(a), false),
        "jsonb_extract_path_text" => |a, _| access::path(arg(a, 0)?, rest(a), true),
        "json_object_field" | "json_array_element" => {
            |a, _| access::part_of_text(arg(a, 0)?, arg(a, 1)?, false)
        }
        "json_object_field_text" | "json_array_element_text" => {
            |a, _| access::part_of_text(arg(a, 0)?, arg(a, 1)?, true)
        }
        "jsonb_object_field" | "jsonb_array_element" => |a, _| access::part(arg(a, 0)?, arg(a, 1)?, false),
        "jsonb_object_field_text" | "jsonb_array_element_text" => {
            |a, _| access::part(arg(a, 0)?, arg(a, 1)?, true)
        }
        "jsonb_set" => |a, _| {
            let creates = a.get(3).and_then(Value::as_bool) != Some(false);
            change::set(jsonb(a, 0)?, arg(a, 1)?, jsonb(a, 2)?, creates).map(made)
        },
        "jsonb_set_lax" => |a, _| change::set_lax(a),
        "jsonb_insert" => |a, _| {
            let is_after = a.get(3).and_then(Value::as_bool) == Some(true);
            change::insert(jsonb(a, 0)?, arg(a, 1)?, jsonb(a, 2)?, is_after).map(made)
        },
        "jsonb_concat" => |a, _| change::concat(jsonb(a, 0)?, jsonb(a, 1)?),
        "jsonb_delete" => |a, _| match a {
            [json, key] => change::delete(json, key),
            // VARIADIC text[]
            [json, keys @ ..] => change::delete(json, &Value::array(BaseType::Text, keys.to_vec())),
            [] => Err(mismatch()),
        },
        "jsonb_delete_path" => |a, _| change::delete_path(jsonb(a, 0)?, arg(a, 1)?).map(made),
        "jsonb_contains" => |a, _| Ok(Value::Bool(jsonb(a, 0)?.contains(jsonb(a, 1)?))),
        "jsonb_contained" => |a, _| Ok(Value::Bool(jsonb(a, 1)?.contains(jsonb(a, 0)?))),
        "jsonb_exists" | "jsonb_exists_any" => |a, _| access::exists(arg(a, 0)?, arg(a, 1)?, false),
        "jsonb_exists_all" => |a, _| access::exists(arg(a, 0)?, arg(a, 1)?, true),
        _ => return None,
    })
}

/// The implementation of an operator whose left operand is `json` or `jsonb`.
pub(in super::super) fn find_operator(name: &str, left: BaseType, right: BaseType) -> Option<OperatorFn> {
    Some(match (left, name) {
        (BaseType::Json, "->") => |a, b, _| access::part_of_text(a, b, false),
        (BaseType::Json, "->>") => |a, b, _| access::part_of_text(a, b, true),
        (BaseType::Json, "#>") => |a, b, _| access::path_of_text(a, elements(b)?, false),
        (BaseType::Json, "#>>") => |a, b, _| access::path_of_text(a, elements(b)?, true),
        (BaseType::Jsonb, "->") => |a, b, _| access::part(a, b, false),
        (BaseType::Jsonb, "->>") => |a, b, _| access::part(a, b, true),
        (BaseType::Jsonb, "#>") => |a, b, _| access::path(a, elements(b)?, false),
        (BaseType::Jsonb, "#>>") => |a, b, _| access::path(a, elements(b)?, true),
        (BaseType::Jsonb, "@>") => |a, b, _| Ok(Value::Bool(of(a)?.contains(of(b)?))),
        (BaseType::Jsonb, "<@") => |a, b, _| Ok(Value::Bool(of(b)?.contains(of(a)?))),
        (BaseType::Jsonb, "?" | "?|") => |a, b, _| access::exists(a, b, false),
        (BaseType::Jsonb, "?&") => |a, b, _| access::exists(a, b, true),
        (BaseType::Jsonb, "||") if right == BaseType::Jsonb => |a, b, _| change::concat(of(a)?, of(b)?),
        (BaseType::Jsonb, "-") => |a, b, _| change::delete(a, b),
        (BaseType::Jsonb, "#-") => |a, b, _| change::delete_path(of(a)?, b).map(made),
        _ => return None,
    })
}

pub(super) fn invalid(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

fn made(json: Json) -> Value {
    Value::Jsonb(Arc::new(json))
}

fn parsed(text: &str) -> Answer {
    Ok(made(text::read(text)?))
}

fn of(value: &Value) -> Result<&Json, SqlError> {
    match value {
        Value::Jsonb(json) => Ok(json),
        _ => Err(mismatch()),
    }
}

fn arg(args: &[Value], at: usize) -> Result<&Value, SqlError> {
    args.get(at).ok_or_else(mismatch)
}

fn jsonb(args: &[Value], at: usize) -> Result<&Json, SqlError> {
    of(arg(args, at)?)
}

fn rest(args: &[Value]) -> &[Value] {
    args.get(1..).unwrap_or_default()
}

fn arg_type(call: &Invocation<'_>, at: usize) -> DataType {
    call.arg_types.get(at).copied().unwrap_or(DataType::TEXT)
}

fn elements(value: &Value) -> Result<&[Value], SqlError> {
    match value {
        Value::Array(array) if array.dimensions.len() > 1 => {
            Err(SqlError::new(SqlState::ARRAY_SUBSCRIPT_ERROR, "wrong number of array subscripts"))
        }
        Value::Array(array) => Ok(&array.elements),
        _ => Err(mismatch()),
    }
}

fn build_array(args: &[Value], call: &Invocation<'_>) -> Result<String, SqlError> {
    let mut writer = Writer::new(call.ctx, false);
    writer.push('[');
    for (index, (value, ty)) in args.iter().zip(call.arg_types).enumerate() {
        if index > 0 {
            writer.push_str(", ");
        }
        writer.value(value, *ty)?;
    }
    writer.push(']');
    Ok(writer.finish())
}

fn build_object(args: &[Value], call: &Invocation<'_>, is_binary: bool) -> Result<String, SqlError> {
    let name = if is_binary { "jsonb_build_object" } else { "json_build_object" };
    if !args.len().is_multiple_of(2) {
        return Err(invalid("argument list must have even number of elements")
            .with_hint(format!("The arguments of {name}() must consist of alternating keys and values.")));
    }
    let mut writer = Writer::new(call.ctx, false);
    writer.push('{');
    let typed: Vec<(&Value, &DataType)> = args.iter().zip(call.arg_types).collect();
    for (index, pair) in typed.chunks_exact(2).enumerate() {
        let [(key, key_type), (value, value_type)] = pair else { continue };
        if key.is_null() {
            let place = 2 * index + 1;
            return Err(if is_binary {
                invalid(format!("argument {place}: key must not be null"))
            } else {
                invalid(format!("argument {place} cannot be null")).with_hint("Object keys should be text.")
            });
        }
        if index > 0 {
            writer.push_str(", ");
        }
        writer.key(key, **key_type)?;
        writer.push_str(" : ");
        writer.value(value, **value_type)?;
    }
    writer.push('}');
    Ok(writer.finish())
}

/// `json_object` of an array of keys and values in turn, or of one of each.
fn object_of_texts(args: &[Value]) -> Result<String, SqlError> {
    let bad = |message: &str| SqlError::new(SqlState::ARRAY_SUBSCRIPT_ERROR, message);
    let array = |at: usize| -> Result<&ArrayValue, SqlError> {
        match args.get(at) {
            Some(Value::Array(array)) => Ok(array),
            _ => Err(mismatch()),
        }
    };
    let first = array(0)?;
    let pairs: Vec<(&Value, &Value)> = if args.len() > 1 {
        let second = array(1)?;
        if first.dimensions.len() > 1 || first.dimensions.len() != second.dimensions.len() {
            return Err(bad("wrong number of array subscripts"));
        }
        if first.elements.len() != second.elements.len() {
            return Err(bad("mismatched array dimensions"));
        }
        first.elements.iter().zip(&second.elements).collect()
    } else {
        match first.dimensions.as_slice() {
            [] => {}
            [only] if only.length % 2 != 0 => return Err(bad("array must have even number of elements")),
            [_] => {}
            [_, pair] if pair.length == 2 => {}
            [_, _] => return Err(bad("array must have two columns")),
            _ => return Err(bad("wrong number of array subscripts")),
        }
        first.elements.chunks_exact(2).filter_map(|pair| Some((pair.first()?, pair.get(1)?))).collect()
    };
    let mut out = String::from("{");
    for (index, (key, value)) in pairs.into_iter().enumerate() {
        let Some(key) = key.as_str() else {
            let message = "null value not allowed for object key";
            return Err(SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, message));
        };
        if index > 0 {
            out.push_str(", ");
        }
        text::quote(&mut out, key);
        out.push_str(" : ");
        match value.as_str() {
            Some(value) => text::quote(&mut out, value),
            None => out.push_str("null"),
        }
    }
    out.push('}');
    Ok(out)
}

fn array_length(value: &Value) -> Answer {
    let count = |count: usize| Ok(Value::Int4(i32::try_from(count).unwrap_or(i32::MAX)));
    match value {
        Value::Jsonb(json) => match &**json {
            Json::Array(elements) => count(elements.len()),
            Json::Object(_) => Err(invalid("cannot get array length of a non-array")),
            _ => Err(invalid("cannot get array length of a scalar")),
        },
        Value::Text(json) => match text::parse(json)?.kind {
            Kind::Array(items) => count(items.len()),
            Kind::Object(_) => Err(invalid("cannot get array length of a non-array")),
            _ => Err(invalid("cannot get array length of a scalar")),
        },
        _ => Err(mismatch()),
    }
}

/// The text that `->>` and its kin give of a part; NULL of JSON's null.
fn item_text(item: &Item<'_>) -> Answer {
    Ok(match item.kind {
        Kind::Null => Value::Null,
        Kind::String => Value::text(text::unquote(item.text)?),
        _ => Value::text(item.text),
    })
}

fn json_text(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::String(text) => Value::Text(Arc::clone(text)),
        other => Value::text(other.to_string()),
    }
}
