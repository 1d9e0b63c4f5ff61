//! Set-returning functions, as streams of values.

use std::ops::ControlFlow;

use rustydb_types::datatype::BaseType;
use rustydb_types::numeric::Numeric;
use rustydb_types::value::{Interval, Value};

use super::super::EvalContext;
use super::super::arithmetic;
use super::super::catalogue::Function;
use super::array;
use super::matching::Captured;
use super::{pattern, regexp};
use crate::error::{SqlError, SqlState};

type Emit<'a> = &'a mut dyn FnMut(Value) -> Result<ControlFlow<()>, SqlError>;

/// Runs a set-returning function; a null argument gives no rows.
pub(in super::super) fn eval(
    function: &'static Function,
    args: &[Value],
    emit: Emit<'_>,
    ctx: &EvalContext<'_>,
) -> Result<(), SqlError> {
    if function.strict && args.iter().any(Value::is_null) {
        return Ok(());
    }
    if let Some(done) = super::json::access::each_part(function.name, args, emit) {
        return done;
    }
    match (function.name, args) {
        ("unnest", [Value::Array(list)]) => each(list.elements.iter().cloned(), emit),
        ("generate_subscripts", [Value::Array(list), dimension, ..]) => {
            let at = usize::try_from(dimension.as_i64().unwrap_or(0) - 1).unwrap_or(usize::MAX);
            let Some(found) = list.dimensions.get(at) else { return Ok(()) };
            let (from, to) = (found.lower, found.lower + found.length - 1);
            if args.get(2).and_then(Value::as_bool) == Some(true) {
                each((from..=to).rev().map(Value::Int4), emit)
            } else {
                each((from..=to).map(Value::Int4), emit)
            }
        }
        ("_pg_expandarray", [Value::Array(list)]) => {
            let numbers = (1..).map(Value::Int4);
            let pair = |(element, number): (&Value, Value)| Value::Record([element.clone(), number].into());
            each(list.elements.iter().zip(numbers).map(pair), emit)
        }
        // No table is partitioned.
        ("pg_partition_ancestors", [_]) => Ok(()),
        ("generate_series", [start, stop, rest @ ..]) => series(start, stop, rest.first(), emit, ctx),
        ("string_to_table", [Value::Text(whole), delimiter, rest @ ..]) => {
            let null_text = rest.first().and_then(Value::as_str);
            let parts = array::split(whole, delimiter.as_str()).into_iter();
            each(
                parts.map(
                    |part| if Some(part.as_str()) == null_text { Value::Null } else { Value::text(part) },
                ),
                emit,
            )
        }
        ("regexp_split_to_table", [Value::Text(whole), Value::Text(pattern), rest @ ..]) => {
            let flags = rest.first().and_then(Value::as_str).unwrap_or("");
            if flags.contains('g') {
                return Err(SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    "regexp_split_to_table() does not support the \"global\" option",
                ));
            }
            let regex = pattern::compile(pattern, flags)?;
            each(regexp::split(&regex, whole, ctx)?.into_iter().map(Value::text), emit)
        }
        ("regexp_matches", [Value::Text(whole), Value::Text(pattern), rest @ ..]) => {
            let flags = rest.first().and_then(Value::as_str).unwrap_or("");
            let regex = pattern::compile(pattern, flags)?;
            let all = if flags.contains('g') { usize::MAX } else { 1 };
            each(regexp::matches(&regex, whole, 0).take(all).map(|found| groups(&found)), emit)
        }
        ("pg_listening_channels", []) => {
            each(ctx.session.listening_channels().into_iter().map(Value::text), emit)
        }
        ("current_schemas", _) | (_, []) => Ok(()),
        _ => Err(SqlError::not_supported(format!("function {} is not supported in FROM", function.name))),
    }
}

/// The groups of a match, or the whole of it when the pattern has none.
pub(super) fn groups(found: &Captured<'_>) -> Value {
    let text = |group: usize| found.text(group).map_or(Value::Null, Value::text);
    let elements = if found.len() == 1 { vec![text(0)] } else { (1..found.len()).map(text).collect() };
    Value::array(BaseType::Text, elements)
}

fn each(values: impl Iterator<Item = Value>, emit: Emit<'_>) -> Result<(), SqlError> {
    for value in values {
        if emit(value)?.is_break() {
            break;
        }
    }
    Ok(())
}

fn series(
    start: &Value,
    stop: &Value,
    step: Option<&Value>,
    emit: Emit<'_>,
    ctx: &EvalContext<'_>,
) -> Result<(), SqlError> {
    let zero = || SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "step size cannot equal zero");
    if let (Value::Int4(_) | Value::Int8(_), Value::Int4(_) | Value::Int8(_)) = (start, stop) {
        let (Some(mut at), Some(stop)) = (start.as_i64(), stop.as_i64()) else { return Ok(()) };
        let step = step.and_then(Value::as_i64).unwrap_or(1);
        if step == 0 {
            return Err(zero());
        }
        while if step > 0 { at <= stop } else { at >= stop } {
            let value =
                if matches!(start, Value::Int4(_)) { Value::Int4(at as i32) } else { Value::Int8(at) };
            if emit(value)?.is_break() {
                break;
            }
            let Some(next) = at.checked_add(step) else { break };
            at = next;
        }
        return Ok(());
    }
    let one = Value::Numeric(Box::new(Numeric::from(1i64)));
    let step = step.unwrap_or(&one);
    let forward = match step {
        Value::Numeric(n) if n.is_nan() || !n.is_finite() => {
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                if n.is_nan() { "step size cannot be NaN" } else { "step size cannot be infinity" },
            ));
        }
        Value::Numeric(n) if n.is_zero() => return Err(zero()),
        Value::Numeric(n) => !n.is_negative(),
        Value::Interval(i) if **i == Interval::default() => return Err(zero()),
        Value::Interval(i) => i.normalised() > 0,
        _ => return Err(SqlError::internal("generate_series over values without an order")),
    };
    let mut at = start.clone();
    loop {
        let order = at.compare(stop);
        if if forward { order.is_gt() } else { order.is_lt() } {
            return Ok(());
        }
        let next = arithmetic::add(&at, step, ctx)?;
        if emit(at)?.is_break() {
            return Ok(());
        }
        at = next;
    }
}
