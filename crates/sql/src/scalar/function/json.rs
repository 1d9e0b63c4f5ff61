//! `json_build_object`, which drivers ask their questions about tables with.
//!
//! There is no type `json`: the result is text, and spells what PostgreSQL's spells.

use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::value::Value;

use super::super::catalogue::FunctionFn;
use super::super::context::EvalContext;
use super::array;
use crate::error::{SqlError, SqlState};

pub(super) fn find(name: &str, _args: &[BaseType]) -> Option<FunctionFn> {
    (name == "json_build_object").then_some(|a, call| {
        if a.len() % 2 != 0 {
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "argument list must have even number of elements",
            )
            .with_hint("The arguments of json_build_object() must consist of alternating keys and values."));
        }
        let typed: Vec<(&Value, &DataType)> = a.iter().zip(call.arg_types).collect();
        let mut out = String::from("{");
        for (index, pair) in typed.chunks_exact(2).enumerate() {
            let [(key, key_type), (value, value_type)] = pair else { continue };
            if key.is_null() {
                let message = format!("argument {} cannot be null", 2 * index + 1);
                return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
                    .with_hint("Object keys should be text."));
            }
            if index > 0 {
                out.push_str(", ");
            }
            quote(&mut out, &array::wire_text(key, **key_type, call.ctx));
            out.push_str(" : ");
            write(&mut out, value, **value_type, call.ctx);
        }
        out.push('}');
        Ok(Value::text(out))
    })
}

fn write(out: &mut String, value: &Value, data_type: DataType, ctx: &EvalContext<'_>) {
    let text = array::wire_text(value, data_type, ctx);
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Int2(_) | Value::Int4(_) | Value::Int8(_) => out.push_str(&text),
        Value::Float4(_) | Value::Float8(_) | Value::Numeric(_)
            if text.ends_with(|c: char| c.is_ascii_digit()) =>
        {
            out.push_str(&text);
        }
        _ => quote(out, &text),
    }
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            control if control < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
}
