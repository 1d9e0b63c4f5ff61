//! The operators. Each dispatches on its operands' variants; resolution has made them fit.

use num_traits::ToPrimitive;
use rustydb_types::binary::natural_type;
use rustydb_types::datatype::BaseType;
use rustydb_types::datetime::{self, DAY};
use rustydb_types::numeric::Numeric;
use rustydb_types::value::{
    DATE_INFINITY, DATE_NEGATIVE_INFINITY, Interval, TIMESTAMP_INFINITY, TIMESTAMP_NEGATIVE_INFINITY, Value,
};
use rustydb_types::value_error::ValueError;

use super::catalogue::OperatorFn;
use super::{EvalContext, cast, function};
use crate::error::SqlError;

type Answer = Result<Value, SqlError>;

/// The implementation of an operator; `None` when RustyDB does not have it.
pub(super) fn find(name: &str, left: Option<BaseType>, right: BaseType) -> Option<OperatorFn> {
    let Some(left) = left else {
        return Some(match name {
            "-" => negate,
            "+" => identity,
            "@" => absolute,
            "|/" => |a, _, _| function::math::sqrt_float(a),
            "||/" => |a, _, _| function::math::cbrt(a),
            "~" => bit_not,
            _ => return None,
        });
    };
    if matches!(left, BaseType::Json | BaseType::Jsonb)
        && let Some(found) = function::json::find_operator(name, left, right)
    {
        return Some(found);
    }
    let strings = left.is_text_like() && right.is_text_like();
    Some(match name {
        "=" | "<>" | "<" | "<=" | ">" | ">=" => |a, b, _| Ok(Value::Bool(a.sql_eq(b))),
        "+" => add,
        "-" => subtract,
        "*" => multiply,
        "/" => divide,
        "%" => modulo,
        "^" => power,
        "&" | "|" | "#" | "<<" | ">>" if bit_type(left) && (left == right || right == BaseType::Int4) => {
            match name {
                "&" => |a, b, _| integers(a, b, |x, y| Some(x & y)),
                "|" => |a, b, _| integers(a, b, |x, y| Some(x | y)),
                "#" => |a, b, _| integers(a, b, |x, y| Some(x ^ y)),
                "<<" => |a, b, _| shift(a, b, true),
                _ => |a, b, _| shift(a, b, false),
            }
        }
        "||" => match (left, right) {
            (BaseType::AnyCompatibleArray, BaseType::AnyCompatibleArray) => {
                |a, b, _| function::array::concat(a, b)
            }
            (BaseType::AnyCompatibleArray, _) => |a, b, _| function::array::append(a, b, natural_type(b)),
            (_, BaseType::AnyCompatibleArray) => |a, b, _| function::array::prepend(a, b, natural_type(a)),
            _ => |a, b, ctx| function::array::concat_operator(a, b, ctx),
        },
        "~~" | "!~~" | "~~*" | "!~~*" if left == BaseType::Bytea => match name {
            "~~" => |a, b, _| function::pattern::like_bytes(a, b, false),
            "!~~" => |a, b, _| function::pattern::like_bytes(a, b, true),
            _ => return None,
        },
        "~~" => |a, b, _| function::pattern::like(a, b, false, false),
        "!~~" => |a, b, _| function::pattern::like(a, b, false, true),
        "~~*" => |a, b, _| function::pattern::like(a, b, true, false),
        "!~~*" => |a, b, _| function::pattern::like(a, b, true, true),
        "~" if strings => |a, b, _| function::pattern::matches(a, b, false, false),
        "!~" if strings => |a, b, _| function::pattern::matches(a, b, false, true),
        "~*" if strings => |a, b, _| function::pattern::matches(a, b, true, false),
        "!~*" if strings => |a, b, _| function::pattern::matches(a, b, true, true),
        "~<~" | "~<=~" | "~>~" | "~>=~" if left == BaseType::Bpchar => {
            // Blanks at the end do not count.
            match name {
                "~<~" => |a, b, _| padded_order(a, b).map(|order| Value::Bool(order.is_lt())),
                "~<=~" => |a, b, _| padded_order(a, b).map(|order| Value::Bool(order.is_le())),
                "~>~" => |a, b, _| padded_order(a, b).map(|order| Value::Bool(order.is_gt())),
                _ => |a, b, _| padded_order(a, b).map(|order| Value::Bool(order.is_ge())),
            }
        }
        "~<~" => |a, b, _| Ok(Value::Bool(a.compare(b).is_lt())),
        "~<=~" => |a, b, _| Ok(Value::Bool(a.compare(b).is_le())),
        "~>~" => |a, b, _| Ok(Value::Bool(a.compare(b).is_gt())),
        "~>=~" => |a, b, _| Ok(Value::Bool(a.compare(b).is_ge())),
        "^@" => |a, b, _| match (a.as_str(), b.as_str()) {
            (Some(a), Some(b)) => Ok(Value::Bool(a.starts_with(b))),
            _ => Ok(Value::Null),
        },
        "@>" => |a, b, _| function::array::contains(a, b),
        "<@" => |a, b, _| function::array::contains(b, a),
        "&&" => |a, b, _| function::array::overlaps(a, b),
        _ => return None,
    })
}

fn padded_order(a: &Value, b: &Value) -> Result<std::cmp::Ordering, SqlError> {
    match (a.as_str(), b.as_str()) {
        (Some(a), Some(b)) => Ok(a.trim_end_matches(' ').cmp(b.trim_end_matches(' '))),
        _ => Err(mismatch()),
    }
}

fn bit_type(base: BaseType) -> bool {
    matches!(base, BaseType::Int2 | BaseType::Int4 | BaseType::Int8)
}

fn mismatch() -> SqlError {
    SqlError::internal("operator applied to values of the wrong type")
}

fn narrow(n: Option<i64>, base: BaseType) -> Answer {
    let out = || SqlError::from(ValueError::out_of_range(base));
    let n = n.ok_or_else(out)?;
    Ok(match base {
        BaseType::Int2 => Value::Int2(i16::try_from(n).map_err(|_| out())?),
        BaseType::Int4 => Value::Int4(i32::try_from(n).map_err(|_| out())?),
        _ => Value::Int8(n),
    })
}

/// Integers of any two widths; the result has the wider one's.
fn integers(a: &Value, b: &Value, op: fn(i64, i64) -> Option<i64>) -> Answer {
    let base = match (a, b) {
        (Value::Int8(_), _) | (_, Value::Int8(_)) => BaseType::Int8,
        (Value::Int4(_), _) | (_, Value::Int4(_)) => BaseType::Int4,
        _ => BaseType::Int2,
    };
    match (a.as_i64(), b.as_i64()) {
        (Some(x), Some(y)) => narrow(op(x, y), base),
        _ => Err(mismatch()),
    }
}

fn shift(a: &Value, b: &Value, left: bool) -> Answer {
    let by = b.as_i64().ok_or_else(mismatch)? as u32;
    Ok(match a {
        Value::Int2(n) if left => Value::Int2(i32::from(*n).wrapping_shl(by) as i16),
        Value::Int2(n) => Value::Int2(i32::from(*n).wrapping_shr(by) as i16),
        Value::Int4(n) if left => Value::Int4(n.wrapping_shl(by)),
        Value::Int4(n) => Value::Int4(n.wrapping_shr(by)),
        Value::Int8(n) if left => Value::Int8(n.wrapping_shl(by)),
        Value::Int8(n) => Value::Int8(n.wrapping_shr(by)),
        _ => return Err(mismatch()),
    })
}

fn bit_not(a: &Value, _: &Value, _: &EvalContext<'_>) -> Answer {
    Ok(match a {
        Value::Int2(n) => Value::Int2(!n),
        Value::Int4(n) => Value::Int4(!n),
        Value::Int8(n) => Value::Int8(!n),
        _ => return Err(mismatch()),
    })
}

fn identity(a: &Value, _: &Value, _: &EvalContext<'_>) -> Answer {
    Ok(a.clone())
}

fn negate(a: &Value, _: &Value, _: &EvalContext<'_>) -> Answer {
    Ok(match a {
        Value::Int2(_) | Value::Int4(_) | Value::Int8(_) => return integers(a, a, |x, _| x.checked_neg()),
        Value::Float4(n) => Value::Float4(-n),
        Value::Float8(n) => Value::Float8(-n),
        Value::Numeric(n) => Value::Numeric(Box::new(n.neg())),
        Value::Interval(i) => {
            let out = || SqlError::from(ValueError::out_of_range(BaseType::Interval));
            Value::Interval(Box::new(Interval {
                months: i.months.checked_neg().ok_or_else(out)?,
                days: i.days.checked_neg().ok_or_else(out)?,
                micros: i.micros.checked_neg().ok_or_else(out)?,
            }))
        }
        _ => return Err(mismatch()),
    })
}

pub(super) fn absolute(a: &Value, _: &Value, _: &EvalContext<'_>) -> Answer {
    Ok(match a {
        Value::Int2(_) | Value::Int4(_) | Value::Int8(_) => return integers(a, a, |x, _| x.checked_abs()),
        Value::Float4(n) => Value::Float4(n.abs()),
        Value::Float8(n) => Value::Float8(n.abs()),
        Value::Numeric(n) => Value::Numeric(Box::new(n.abs())),
        _ => return Err(mismatch()),
    })
}

/// Two floats; the result is real only when both are.
fn floats(a: &Value, b: &Value, op: fn(f64, f64) -> f64, zero_is_fine: fn(f64, f64) -> bool) -> Answer {
    let of = |value: &Value| match value {
        Value::Float4(n) => Some(f64::from(*n)),
        Value::Float8(n) => Some(*n),
        _ => None,
    };
    let (x, y) = (of(a).ok_or_else(mismatch)?, of(b).ok_or_else(mismatch)?);
    let is_real = matches!((a, b), (Value::Float4(_), Value::Float4(_)));
    let result = if is_real { f64::from(op(x, y) as f32) } else { op(x, y) };
    check_float(result, x.is_infinite() || y.is_infinite(), zero_is_fine(x, y))?;
    Ok(if is_real { Value::Float4(result as f32) } else { Value::Float8(result) })
}

/// Overflow and underflow are errors unless the operands explain them.
pub(super) fn check_float(result: f64, infinite_is_fine: bool, zero_is_fine: bool) -> Result<(), SqlError> {
    if result.is_infinite() && !infinite_is_fine {
        return Err(ValueError::new("22003", "value out of range: overflow").into());
    }
    if result == 0.0 && !zero_is_fine {
        return Err(ValueError::new("22003", "value out of range: underflow").into());
    }
    Ok(())
}

fn numeric(result: Numeric) -> Answer {
    Ok(Value::Numeric(Box::new(result.check_size()?)))
}

fn date_plus(days: i32, by: i64) -> Answer {
    if days == DATE_INFINITY || days == DATE_NEGATIVE_INFINITY {
        return Ok(Value::Date(days));
    }
    Ok(Value::Date(datetime::check_date(i64::from(days) + by)?))
}

fn inverse(i: &Interval) -> Result<Interval, SqlError> {
    match negate(&Value::Interval(Box::new(*i)), &Value::Null, &EvalContext::constant(&[]))? {
        Value::Interval(i) => Ok(*i),
        _ => Err(mismatch()),
    }
}

/// A timestamp with zone moves by months and days in local time, by microseconds in UTC.
pub(super) fn timestamptz_plus(utc: i64, i: &Interval, ctx: &EvalContext<'_>) -> Answer {
    if i.months == 0 && i.days == 0 {
        return Ok(Value::Timestamptz(datetime::add_interval(utc, i)?));
    }
    let zone = ctx.session.timezone();
    let calendar = Interval { months: i.months, days: i.days, micros: 0 };
    let local = datetime::add_interval(cast::to_local(utc, zone), &calendar)?;
    let rest = Interval { months: 0, days: 0, micros: i.micros };
    Ok(Value::Timestamptz(datetime::add_interval(cast::to_utc(local, zone), &rest)?))
}

fn interval_sum(a: &Interval, b: &Interval) -> Answer {
    let out = || SqlError::from(ValueError::out_of_range(BaseType::Interval));
    Ok(Value::Interval(Box::new(Interval {
        months: a.months.checked_add(b.months).ok_or_else(out)?,
        days: a.days.checked_add(b.days).ok_or_else(out)?,
        micros: a.micros.checked_add(b.micros).ok_or_else(out)?,
    })))
}

pub(super) fn add(a: &Value, b: &Value, ctx: &EvalContext<'_>) -> Answer {
    match (a, b) {
        (Value::Int4(x), Value::Int4(y)) => match x.checked_add(*y) {
            Some(sum) => Ok(Value::Int4(sum)),
            None => Err(ValueError::out_of_range(BaseType::Int4).into()),
        },
        (
            Value::Int2(_) | Value::Int4(_) | Value::Int8(_),
            Value::Int2(_) | Value::Int4(_) | Value::Int8(_),
        ) => integers(a, b, i64::checked_add),
        (Value::Numeric(x), Value::Numeric(y)) => numeric(x.add(y)),
        (Value::Float4(_) | Value::Float8(_), _) => floats(a, b, |x, y| x + y, |_, _| true),
        (Value::Date(days), Value::Int4(n)) | (Value::Int4(n), Value::Date(days)) => {
            date_plus(*days, i64::from(*n))
        }
        (Value::Date(days), Value::Interval(i)) | (Value::Interval(i), Value::Date(days)) => {
            Ok(Value::Timestamp(datetime::add_interval(cast::date_to_timestamp(*days)?, i)?))
        }
        (Value::Date(days), Value::Time(time)) | (Value::Time(time), Value::Date(days)) => {
            let i = Interval { months: 0, days: 0, micros: *time };
            Ok(Value::Timestamp(datetime::add_interval(cast::date_to_timestamp(*days)?, &i)?))
        }
        (Value::Timestamp(at), Value::Interval(i)) | (Value::Interval(i), Value::Timestamp(at)) => {
            Ok(Value::Timestamp(datetime::add_interval(*at, i)?))
        }
        (Value::Timestamptz(at), Value::Interval(i)) | (Value::Interval(i), Value::Timestamptz(at)) => {
            timestamptz_plus(*at, i, ctx)
        }
        (Value::Time(time), Value::Interval(i)) | (Value::Interval(i), Value::Time(time)) => {
            Ok(Value::Time((time + i.micros % DAY).rem_euclid(DAY)))
        }
        (Value::Interval(x), Value::Interval(y)) => interval_sum(x, y),
        _ => Err(mismatch()),
    }
}

pub(super) fn subtract(a: &Value, b: &Value, ctx: &EvalContext<'_>) -> Answer {
    match (a, b) {
        (
            Value::Int2(_) | Value::Int4(_) | Value::Int8(_),
            Value::Int2(_) | Value::Int4(_) | Value::Int8(_),
        ) => integers(a, b, i64::checked_sub),
        (Value::Numeric(x), Value::Numeric(y)) => numeric(x.sub(y)),
        (Value::Float4(_) | Value::Float8(_), _) => floats(a, b, |x, y| x - y, |_, _| true),
        (Value::Date(x), Value::Date(y)) => {
            let infinite = |days: i32| days == DATE_INFINITY || days == DATE_NEGATIVE_INFINITY;
            if infinite(*x) || infinite(*y) {
                return Err(ValueError::new("22008", "cannot subtract infinite dates").into());
            }
            Ok(Value::Int4(x - y))
        }
        (Value::Date(days), Value::Int4(n)) => date_plus(*days, -i64::from(*n)),
        (Value::Timestamp(x), Value::Timestamp(y)) | (Value::Timestamptz(x), Value::Timestamptz(y)) => {
            let infinite = |at: i64| at == TIMESTAMP_INFINITY || at == TIMESTAMP_NEGATIVE_INFINITY;
            if infinite(*x) || infinite(*y) {
                return Err(ValueError::new("22008", "cannot subtract infinite timestamps").into());
            }
            let micros = x.checked_sub(*y).ok_or_else(|| ValueError::out_of_range(BaseType::Interval))?;
            let days = (micros / DAY) as i32;
            Ok(Value::Interval(Box::new(Interval { months: 0, days, micros: micros % DAY })))
        }
        (Value::Time(x), Value::Time(y)) => {
            Ok(Value::Interval(Box::new(Interval { months: 0, days: 0, micros: x - y })))
        }
        (_, Value::Interval(i)) => add(a, &Value::Interval(Box::new(inverse(i)?)), ctx),
        (Value::Lsn(x), Value::Lsn(y)) => {
            Ok(Value::Numeric(Box::new(Numeric::from(i128::from(*x) - i128::from(*y)))))
        }
        _ => Err(mismatch()),
    }
}

/// An interval times a number, with the fraction of months and days carried down.
fn scale_interval(i: &Interval, factor: f64) -> Answer {
    let out = || SqlError::from(ValueError::out_of_range(BaseType::Interval));
    let tidy = |n: f64| (n * 1e6).round_ties_even() / 1e6;
    let small = |n: f64| if n.is_nan() || n.abs() > f64::from(i32::MAX) { Err(out()) } else { Ok(n as i32) };
    let months = f64::from(i.months) * factor;
    let days = f64::from(i.days) * factor;
    let whole_months = small(months)?;
    let mut whole_days = small(days)?;
    let month_days = tidy((months - f64::from(whole_months)) * 30.0);
    let mut seconds = tidy((days - f64::from(whole_days) + month_days - month_days.trunc()) * 86_400.0);
    if seconds.abs() >= 86_400.0 {
        let extra = (seconds / 86_400.0).trunc();
        whole_days = whole_days.checked_add(extra as i32).ok_or_else(out)?;
        seconds -= extra * 86_400.0;
    }
    whole_days = whole_days.checked_add(month_days as i32).ok_or_else(out)?;
    let micros = (i.micros as f64 * factor + seconds * 1e6).round_ties_even();
    if micros.is_nan() || micros.abs() >= 9.223_372_036_854_775e18 {
        return Err(out());
    }
    Ok(Value::Interval(Box::new(Interval { months: whole_months, days: whole_days, micros: micros as i64 })))
}

pub(super) fn multiply(a: &Value, b: &Value, _: &EvalContext<'_>) -> Answer {
    match (a, b) {
        (
            Value::Int2(_) | Value::Int4(_) | Value::Int8(_),
            Value::Int2(_) | Value::Int4(_) | Value::Int8(_),
        ) => integers(a, b, i64::checked_mul),
        (Value::Numeric(x), Value::Numeric(y)) => numeric(x.mul(y)),
        (Value::Interval(i), Value::Float8(n)) | (Value::Float8(n), Value::Interval(i)) => {
            scale_interval(i, *n)
        }
        (Value::Float4(_) | Value::Float8(_), _) => floats(a, b, |x, y| x * y, |x, y| x == 0.0 || y == 0.0),
        _ => Err(mismatch()),
    }
}

pub(super) fn divide(a: &Value, b: &Value, _: &EvalContext<'_>) -> Answer {
    if matches!(b.as_i64(), Some(0)) || matches!(b, Value::Float8(0.0) | Value::Float4(0.0)) {
        return match a {
            Value::Float8(n) if n.is_nan() => Ok(a.clone()),
            Value::Float4(n) if n.is_nan() => Ok(a.clone()),
            _ => Err(ValueError::division_by_zero().into()),
        };
    }
    match (a, b) {
        (
            Value::Int2(_) | Value::Int4(_) | Value::Int8(_),
            Value::Int2(_) | Value::Int4(_) | Value::Int8(_),
        ) => integers(a, b, i64::checked_div),
        (Value::Numeric(x), Value::Numeric(y)) => numeric(x.div(y)?),
        (Value::Interval(i), Value::Float8(n)) => scale_interval(i, 1.0 / n),
        (Value::Float4(_) | Value::Float8(_), _) => {
            floats(a, b, |x, y| x / y, |x, y| x == 0.0 || y.is_infinite())
        }
        _ => Err(mismatch()),
    }
}

pub(super) fn modulo(a: &Value, b: &Value, _: &EvalContext<'_>) -> Answer {
    match (a, b) {
        (Value::Numeric(x), Value::Numeric(y)) => numeric(x.rem(y)?),
        _ if matches!(b.as_i64(), Some(0)) => Err(ValueError::division_by_zero().into()),
        _ => integers(a, b, |x, y| Some(x.wrapping_rem(y))),
    }
}

pub(super) fn power(a: &Value, b: &Value, _: &EvalContext<'_>) -> Answer {
    match (a, b) {
        (Value::Numeric(x), Value::Numeric(y)) => numeric(x.power(y)?),
        (Value::Float8(x), Value::Float8(y)) => {
            if *x == 0.0 && *y < 0.0 {
                return Err(ValueError::new("2201F", "zero raised to a negative power is undefined").into());
            }
            if *x < 0.0 && y.is_finite() && y.fract() != 0.0 {
                return Err(ValueError::new(
                    "2201F",
                    "a negative number raised to a non-integer power yields a complex result",
                )
                .into());
            }
            let result = x.powf(*y);
            let infinite = x.is_infinite() || y.is_infinite();
            check_float(result, infinite, *x == 0.0 || infinite)?;
            Ok(Value::Float8(result))
        }
        _ => Err(mismatch()),
    }
}

/// A numeric as an integer, for functions that count with it.
pub(super) fn to_i64(n: &Numeric) -> Option<i64> {
    match n.trunc(0) {
        Numeric::Finite { coefficient, .. } => coefficient.to_i64(),
        _ => None,
    }
}
