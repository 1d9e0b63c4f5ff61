//! Changes of `jsonb`.

use std::sync::Arc;

use rustydb_types::json::Json;
use rustydb_types::json::text::{Item, Kind};
use rustydb_types::value::Value;

use super::{elements, invalid, made, of};
use crate::error::{SqlError, SqlState};
use crate::scalar::function::{Answer, mismatch};

/// What is done where a path ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    /// The value is put there, or added.
    Create,
    /// The value is put there, if there is one.
    Replace,
    /// The value is put before the one there.
    Before,
    /// The value is put behind the one there.
    After,
    /// What is there goes.
    Delete,
}

impl Change {
    fn adds(self) -> bool {
        matches!(self, Change::Create | Change::Before | Change::After)
    }
}

/// `jsonb_set`
pub(super) fn set(json: &Json, path: &Value, value: &Json, creates: bool) -> Result<Json, SqlError> {
    if json.is_scalar() {
        return Err(invalid("cannot set path in scalar"));
    }
    let is_empty = matches!(json, Json::Array(elements) if elements.is_empty())
        || matches!(json, Json::Object(pairs) if pairs.is_empty());
    if is_empty && !creates {
        return Ok(json.clone());
    }
    change(json, path, Some(value), if creates { Change::Create } else { Change::Replace })
}

/// `jsonb_set_lax`
pub(super) fn set_lax(args: &[Value]) -> Answer {
    let [json, path, value, rest @ ..] = args else { return Err(mismatch()) };
    let defaults = (Value::Bool(true), Value::text("use_json_null"));
    let creates = rest.first().unwrap_or(&defaults.0);
    let treatment = rest.get(1).unwrap_or(&defaults.1);
    if json.is_null() || path.is_null() || creates.is_null() {
        return Ok(Value::Null);
    }
    let treatment = treatment.as_str().ok_or_else(|| {
        invalid("null_value_treatment must be \"delete_key\", \"return_target\", \"use_json_null\", or \"raise_exception\"")
    })?;
    let creates = creates.as_bool() != Some(false);
    if !value.is_null() {
        return set(of(json)?, path, of(value)?, creates).map(made);
    }
    match treatment {
        "raise_exception" => Err(SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, "JSON value must not be null")
            .with_detail("Exception was raised because null_value_treatment is \"raise_exception\".")
            .with_hint(
                "To avoid, either change the null_value_treatment argument or ensure that an SQL NULL is not passed.",
            )),
        "use_json_null" => set(of(json)?, path, &Json::Null, creates).map(made),
        "delete_key" => delete_path(of(json)?, path).map(made),
        "return_target" => Ok(json.clone()),
        _ => Err(invalid(
            "null_value_treatment must be \"delete_key\", \"return_target\", \"use_json_null\", or \"raise_exception\"",
        )),
    }
}

/// `jsonb_insert`
pub(super) fn insert(json: &Json, path: &Value, value: &Json, is_after: bool) -> Result<Json, SqlError> {
    if json.is_scalar() {
        return Err(invalid("cannot set path in scalar"));
    }
    change(json, path, Some(value), if is_after { Change::After } else { Change::Before })
}

/// `#-`
pub(super) fn delete_path(json: &Json, path: &Value) -> Result<Json, SqlError> {
    if json.is_scalar() {
        return Err(invalid("cannot delete path in scalar"));
    }
    change(json, path, None, Change::Delete)
}

fn change(json: &Json, path: &Value, value: Option<&Json>, what: Change) -> Result<Json, SqlError> {
    let path = elements(path)?;
    if path.is_empty() {
        return Ok(json.clone());
    }
    let changed = at_path(json, path, 0, value, what)?;
    changed.check()?;
    Ok(changed)
}

fn at_path(
    json: &Json,
    path: &[Value],
    level: usize,
    value: Option<&Json>,
    what: Change,
) -> Result<Json, SqlError> {
    let Some(step) = path.get(level) else { return Ok(json.clone()) };
    let is_last = level + 1 == path.len();
    match json {
        Json::Object(pairs) => in_object(pairs, step_text(step, level)?, is_last, value, what, |inner| {
            at_path(inner, path, level + 1, value, what)
        }),
        Json::Array(list) => {
            let step = step_text(step, level)?;
            let Some(index) = super::access::index(step) else {
                let message = format!("path element at position {} is not an integer: \"{step}\"", level + 1);
                return Err(SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, message));
            };
            in_array(list, index, is_last, value, what, |inner| at_path(inner, path, level + 1, value, what))
        }
        scalar => Ok(scalar.clone()),
    }
}

fn step_text(step: &Value, level: usize) -> Result<&str, SqlError> {
    step.as_str().ok_or_else(|| {
        let message = format!("path element at position {} is null", level + 1);
        SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, message)
    })
}

fn in_object(
    pairs: &[(Arc<str>, Json)],
    key: &str,
    is_last: bool,
    value: Option<&Json>,
    what: Change,
    deeper: impl Fn(&Json) -> Result<Json, SqlError>,
) -> Result<Json, SqlError> {
    let mut changed = Vec::with_capacity(pairs.len() + 1);
    let mut is_found = false;
    for (known, inner) in pairs {
        if &**known != key {
            changed.push((Arc::clone(known), inner.clone()));
            continue;
        }
        is_found = true;
        if !is_last {
            changed.push((Arc::clone(known), deeper(inner)?));
        } else if matches!(what, Change::Before | Change::After) {
            return Err(invalid("cannot replace existing key")
                .with_hint("Try using the function jsonb_set to replace key value."));
        } else if let Some(value) = value {
            changed.push((Arc::clone(known), value.clone()));
        }
    }
    if let Some(value) = value.filter(|_| is_last && !is_found && what.adds()) {
        changed.push((key.into(), value.clone()));
    }
    Ok(Json::object(changed))
}

fn in_array(
    list: &[Json],
    index: i64,
    is_last: bool,
    value: Option<&Json>,
    what: Change,
    deeper: impl Fn(&Json) -> Result<Json, SqlError>,
) -> Result<Json, SqlError> {
    let count = i64::try_from(list.len()).unwrap_or(i64::MAX);
    let place = if index < 0 { count + index } else { index };
    let mut changed = Vec::with_capacity(list.len() + 1);
    let mut is_done = false;
    if (place < 0 || list.is_empty())
        && let Some(value) = value.filter(|_| is_last && what.adds())
    {
        changed.push(value.clone());
        is_done = true;
    }
    for (at, inner) in (0..).zip(list) {
        if at != place {
            changed.push(inner.clone());
            continue;
        }
        is_done = true;
        if !is_last {
            changed.push(deeper(inner)?);
            continue;
        }
        if matches!(what, Change::Before | Change::Create | Change::Replace) {
            changed.extend(value.cloned());
        }
        if matches!(what, Change::Before | Change::After) {
            changed.push(inner.clone());
        }
        if what == Change::After {
            changed.extend(value.cloned());
        }
    }
    if let Some(value) = value.filter(|_| is_last && !is_done && what.adds()) {
        changed.push(value.clone());
    }
    Ok(Json::Array(changed))
}

/// `||`
pub(super) fn concat(left: &Json, right: &Json) -> Answer {
    let joined = match (left, right) {
        (Json::Object(a), Json::Object(b)) => Json::object(a.iter().chain(b).cloned().collect()),
        _ => {
            let parts = |json: &Json| match json {
                Json::Array(elements) => elements.clone(),
                other => vec![other.clone()],
            };
            let mut all = parts(left);
            all.extend(parts(right));
            Json::Array(all)
        }
    };
    joined.check()?;
    Ok(made(joined))
}

/// `-` with a key, keys or a place.
pub(super) fn delete(json: &Value, what: &Value) -> Answer {
    let json = of(json)?;
    if json.is_scalar() {
        return Err(invalid("cannot delete from scalar"));
    }
    if let Some(index) = what.as_i64() {
        let Json::Array(list) = json else {
            return Err(invalid("cannot delete from object using integer index"));
        };
        let count = i64::try_from(list.len()).unwrap_or(i64::MAX);
        let place = if index < 0 { count.saturating_add(index) } else { index };
        let kept = (0..).zip(list).filter(|(at, _)| *at != place).map(|(_, element)| element.clone());
        return Ok(made(Json::Array(kept.collect())));
    }
    let keys: Vec<&str> = match what {
        Value::Array(_) => elements(what)?.iter().filter_map(Value::as_str).collect(),
        key => vec![key.as_str().ok_or_else(mismatch)?],
    };
    let goes = |key: &str| keys.contains(&key);
    Ok(made(match json {
        Json::Object(pairs) => Json::Object(pairs.iter().filter(|(key, _)| !goes(key)).cloned().collect()),
        Json::Array(list) => {
            let stays = |element: &&Json| !matches!(element, Json::String(text) if goes(text));
            Json::Array(list.iter().filter(stays).cloned().collect())
        }
        scalar => scalar.clone(),
    }))
}

/// `jsonb_strip_nulls`
pub(super) fn without_nulls(json: &Json) -> Json {
    match json {
        Json::Array(elements) => Json::Array(elements.iter().map(without_nulls).collect()),
        Json::Object(pairs) => {
            let kept = pairs.iter().filter(|(_, value)| !matches!(value, Json::Null));
            Json::Object(kept.map(|(key, value)| (Arc::clone(key), without_nulls(value))).collect())
        }
        scalar => scalar.clone(),
    }
}

/// `json_strip_nulls`, which leaves out blanks, too.
pub(super) fn write_without_nulls(item: &Item<'_>, out: &mut String) {
    match &item.kind {
        Kind::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_without_nulls(item, out);
            }
            out.push(']');
        }
        Kind::Object(pairs) => {
            out.push('{');
            let kept = pairs.iter().filter(|(_, item)| !matches!(item.kind, Kind::Null));
            for (index, (key, item)) in kept.enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(key);
                out.push(':');
                write_without_nulls(item, out);
            }
            out.push('}');
        }
        _ => out.push_str(item.text),
    }
}
