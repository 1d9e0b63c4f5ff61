//! Parts of `json` and `jsonb`.

use std::ops::ControlFlow;
use std::sync::Arc;

use rustydb_types::json::Json;
use rustydb_types::json::text::{self, Item, Kind};
use rustydb_types::value::Value;

use super::{invalid, item_text, json_text, made, of};
use crate::error::SqlError;
use crate::scalar::function::{Answer, mismatch};

type Emit<'a> = &'a mut dyn FnMut(Value) -> Result<ControlFlow<()>, SqlError>;

fn given(json: &Json, as_text: bool) -> Value {
    if as_text { json_text(json) } else { made(json.clone()) }
}

fn given_item(item: &Item<'_>, as_text: bool) -> Answer {
    if as_text { item_text(item) } else { Ok(Value::text(item.text)) }
}

/// A field or an element of `jsonb`.
pub(super) fn part(json: &Value, place: &Value, as_text: bool) -> Answer {
    let json = of(json)?;
    let found = match place {
        Value::Text(key) => json.get(key),
        // A scalar counts as an array of one.
        index if json.is_scalar() => index.as_i64().filter(|at| matches!(at, 0 | -1)).map(|_| json),
        index => json.at(index.as_i64().ok_or_else(mismatch)?),
    };
    Ok(found.map_or(Value::Null, |found| given(found, as_text)))
}

/// What a path leads to in `jsonb`.
pub(super) fn path(json: &Value, path: &[Value], as_text: bool) -> Answer {
    let mut json = of(json)?;
    for step in path {
        let Some(step) = step.as_str() else { return Ok(Value::Null) };
        let found = match json {
            Json::Object(_) => json.get(step),
            Json::Array(_) => index(step).and_then(|index| json.at(index)),
            _ => None,
        };
        match found {
            Some(found) => json = found,
            None => return Ok(Value::Null),
        }
    }
    Ok(given(json, as_text))
}

/// A step of a path as a place in an array.
pub(super) fn index(step: &str) -> Option<i64> {
    let step = step.trim_start();
    step.strip_prefix('+').unwrap_or(step).parse::<i32>().ok().map(i64::from)
}

fn field<'i, 't>(pairs: &'i [(&'t str, Item<'t>)], key: &str) -> Result<Option<&'i Item<'t>>, SqlError> {
    for (known, item) in pairs.iter().rev() {
        if text::unquote(known)? == key {
            return Ok(Some(item));
        }
    }
    Ok(None)
}

fn element<'i, 't>(items: &'i [Item<'t>], index: i64) -> Option<&'i Item<'t>> {
    let index = if index < 0 { i64::try_from(items.len()).ok()?.checked_add(index)? } else { index };
    items.get(usize::try_from(index).ok()?)
}

/// A field or an element of `json`.
pub(super) fn part_of_text(json: &Value, place: &Value, as_text: bool) -> Answer {
    let parsed = text::parse(json.as_str().ok_or_else(mismatch)?)?;
    let found = match (&parsed.kind, place) {
        (Kind::Object(pairs), Value::Text(key)) => field(pairs, key)?,
        (Kind::Array(items), index) => index.as_i64().and_then(|index| element(items, index)),
        _ => None,
    };
    found.map_or(Ok(Value::Null), |found| given_item(found, as_text))
}

/// What a path leads to in `json`.
pub(super) fn path_of_text(json: &Value, path: &[Value], as_text: bool) -> Answer {
    let parsed = text::parse(json.as_str().ok_or_else(mismatch)?)?;
    let mut item = &parsed;
    for step in path {
        let Some(step) = step.as_str() else { return Ok(Value::Null) };
        let found = match &item.kind {
            Kind::Object(pairs) => field(pairs, step)?,
            Kind::Array(items) => index(step).and_then(|index| element(items, index)),
            _ => None,
        };
        match found {
            Some(found) => item = found,
            None => return Ok(Value::Null),
        }
    }
    given_item(item, as_text)
}

/// Whether a key, any of some keys or all of them are there.
pub(super) fn exists(json: &Value, keys: &Value, all: bool) -> Answer {
    let json = of(json)?;
    let has = |key: &str| match json {
        Json::Object(_) => json.get(key).is_some(),
        Json::Array(elements) => {
            elements.iter().any(|element| matches!(element, Json::String(text) if &**text == key))
        }
        Json::String(text) => &**text == key,
        _ => false,
    };
    Ok(Value::Bool(match keys {
        Value::Array(keys) => {
            let mut keys = keys.elements.iter().filter_map(Value::as_str);
            if all { keys.all(has) } else { keys.any(has) }
        }
        key => has(key.as_str().ok_or_else(mismatch)?),
    }))
}

/// The functions that yield the parts of `json` and `jsonb`; `None` for any other.
pub(in super::super) fn each_part(
    name: &str,
    args: &[Value],
    emit: Emit<'_>,
) -> Option<Result<(), SqlError>> {
    let plain = name.strip_prefix("jsonb_").or_else(|| name.strip_prefix("json_"))?;
    let as_text = plain.ends_with("_text");
    let json = args.first()?;
    let run = |emit: Emit<'_>| -> Result<(), SqlError> {
        match (plain, json) {
            ("array_elements" | "array_elements_text", Value::Jsonb(json)) => match &**json {
                Json::Array(elements) => {
                    each(elements.iter().map(|element| Ok(given(element, as_text))), emit)
                }
                Json::Object(_) => Err(invalid("cannot extract elements from an object")),
                _ => Err(invalid("cannot extract elements from a scalar")),
            },
            ("array_elements" | "array_elements_text", Value::Text(json)) => match text::parse(json)?.kind {
                Kind::Array(items) => each(items.iter().map(|item| given_item(item, as_text)), emit),
                Kind::Object(_) => Err(invalid(format!("cannot call {name} on a non-array"))),
                _ => Err(invalid(format!("cannot call {name} on a scalar"))),
            },
            ("each" | "each_text", Value::Jsonb(json)) => match &**json {
                Json::Object(pairs) => {
                    let pair = |(key, value): &(Arc<str>, Json)| {
                        Ok(Value::Record([Value::Text(Arc::clone(key)), given(value, as_text)].into()))
                    };
                    each(pairs.iter().map(pair), emit)
                }
                _ => Err(invalid(format!("cannot call {name} on a non-object"))),
            },
            ("each" | "each_text", Value::Text(json)) => match text::parse(json)?.kind {
                Kind::Object(pairs) => {
                    let pair = |(key, item): &(&str, Item<'_>)| {
                        let key = Value::text(text::unquote(key)?);
                        Ok(Value::Record([key, given_item(item, as_text)?].into()))
                    };
                    each(pairs.iter().map(pair), emit)
                }
                Kind::Array(_) => Err(invalid("cannot deconstruct an array as an object")),
                _ => Err(invalid("cannot deconstruct a scalar")),
            },
            ("object_keys", Value::Jsonb(json)) => match &**json {
                Json::Object(pairs) => {
                    each(pairs.iter().map(|(key, _)| Ok(Value::Text(Arc::clone(key)))), emit)
                }
                Json::Array(_) => Err(invalid(format!("cannot call {name} on an array"))),
                _ => Err(invalid(format!("cannot call {name} on a scalar"))),
            },
            ("object_keys", Value::Text(json)) => match text::parse(json)?.kind {
                Kind::Object(pairs) => {
                    each(pairs.iter().map(|(key, _)| Ok(Value::text(text::unquote(key)?))), emit)
                }
                Kind::Array(_) => Err(invalid(format!("cannot call {name} on an array"))),
                _ => Err(invalid(format!("cannot call {name} on a scalar"))),
            },
            _ => Err(mismatch()),
        }
    };
    matches!(plain, "array_elements" | "array_elements_text" | "each" | "each_text" | "object_keys")
        .then(|| run(emit))
}

fn each(values: impl Iterator<Item = Answer>, emit: Emit<'_>) -> Result<(), SqlError> {
    for value in values {
        if emit(value?)?.is_break() {
            break;
        }
    }
    Ok(())
}
