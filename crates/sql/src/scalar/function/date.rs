//! Dates and times.

use num_bigint::BigInt;
use rustydb_types::datatype::BaseType;
use rustydb_types::datetime::{self, DAY, HOUR, MINUTE, SECOND, UNIX_OFFSET_SECONDS, Zone};
use rustydb_types::numeric::Numeric;
use rustydb_types::value::{Interval, TIMESTAMP_INFINITY, TIMESTAMP_NEGATIVE_INFINITY, Value};

use super::super::cast;
use super::super::catalogue::{FunctionFn, Invocation};
use super::{Answer, int, mismatch, text};
use crate::error::{SqlError, SqlState};

pub(super) fn find(name: &str, args: &[BaseType]) -> Option<FunctionFn> {
    Some(match name {
        "now" | "transaction_timestamp" => |_, call| Ok(Value::Timestamptz(call.ctx.transaction_time)),
        "statement_timestamp" => |_, call| Ok(Value::Timestamptz(call.ctx.statement_time)),
        "clock_timestamp" => |_, call| Ok(Value::Timestamptz(call.ctx.session.clock())),
        "extract" => |a, call| extract(a, call, true),
        "date_part" => |a, call| extract(a, call, false),
        "date_trunc" if args.len() == 2 => date_trunc,
        "isfinite" => |a, _| {
            Ok(Value::Bool(match &a[0] {
                Value::Date(days) => *days != i32::MAX && *days != i32::MIN,
                Value::Timestamp(at) | Value::Timestamptz(at) => {
                    *at != TIMESTAMP_INFINITY && *at != TIMESTAMP_NEGATIVE_INFINITY
                }
                _ => true,
            }))
        },
        "make_date" => |a, _| {
            let (year, month, day) = (int(a, 0)? as i32, int(a, 1)? as i32, int(a, 2)? as i32);
            let year_number = if year < 0 { year + 1 } else { year };
            if year == 0 || !datetime::is_valid_date(year_number, month, day) {
                return Err(SqlError::new(
                    SqlState::DATETIME_FIELD_OVERFLOW,
                    format!("date field value out of range: {year}-{month:02}-{day:02}"),
                ));
            }
            Ok(Value::Date(datetime::check_date(datetime::days(year_number, month, day))?))
        },
        "to_timestamp" if args == [BaseType::Float8] => |a, _| match &a[0] {
            Value::Float8(n) => {
                if n.is_infinite() {
                    let end = if *n > 0.0 { TIMESTAMP_INFINITY } else { TIMESTAMP_NEGATIVE_INFINITY };
                    return Ok(Value::Timestamptz(end));
                }
                if n.is_nan() {
                    return Err(SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, "timestamp cannot be NaN"));
                }
                let micros = (n - UNIX_OFFSET_SECONDS as f64) * 1e6;
                Ok(Value::Timestamptz(datetime::check_timestamp(micros.round_ties_even() as i128)?))
            }
            _ => Err(mismatch()),
        },
        "timezone" if args.first() == Some(&BaseType::Text) => |a, _| {
            let name = text(a, 0)?;
            let zone = Zone::by_name(name).ok_or_else(|| {
                SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("time zone \"{name}\" not recognized"),
                )
            })?;
            match &a[1] {
                Value::Timestamp(local) => Ok(Value::Timestamptz(cast::to_utc(*local, zone))),
                Value::Timestamptz(utc) => Ok(Value::Timestamp(cast::to_local(*utc, zone))),
                _ => Err(mismatch()),
            }
        },
        "overlaps" => overlaps,
        "timeofday" => |_, call| {
            let zone = call.ctx.session.timezone();
            let utc = call.ctx.session.clock();
            let named = (zone.abbreviation_at(utc), zone.offset_at(utc));
            let template = "Dy Mon DD HH24:MI:SS.US YYYY TZ";
            let shown = super::to_char::timestamp(cast::to_local(utc, zone), Some(named), template);
            Ok(shown.map_or(Value::Null, Value::text))
        },
        "justify_hours" => |a, _| {
            interval(&a[0]).map(|i| {
                let days = i.days + (i.micros / DAY) as i32;
                span(i.months, days, i.micros % DAY)
            })
        },
        "age" if args.len() == 2 => |a, call| match (&a[0], &a[1]) {
            (Value::Timestamp(x), Value::Timestamp(y)) => Ok(age(*x, *y)),
            (Value::Timestamptz(x), Value::Timestamptz(y)) => {
                let zone = call.ctx.session.timezone();
                Ok(age(cast::to_local(*x, zone), cast::to_local(*y, zone)))
            }
            _ => Err(mismatch()),
        },
        "age" => |a, call| {
            let zone = call.ctx.session.timezone();
            let today = cast::to_local(call.ctx.transaction_time, zone).div_euclid(DAY) * DAY;
            match &a[0] {
                Value::Timestamp(at) => Ok(age(today, *at)),
                Value::Timestamptz(at) => Ok(age(today, cast::to_local(*at, zone))),
                _ => Err(mismatch()),
            }
        },
        _ => return None,
    })
}

fn interval(value: &Value) -> Result<Interval, SqlError> {
    match value {
        Value::Interval(i) => Ok(**i),
        _ => Err(mismatch()),
    }
}

fn span(months: i32, days: i32, micros: i64) -> Value {
    Value::Interval(Box::new(Interval { months, days, micros }))
}

/// The difference in years, months and days of the calendar.
fn age(later: i64, earlier: i64) -> Value {
    if later < earlier {
        return match age(earlier, later) {
            Value::Interval(i) => span(-i.months, -i.days, -i.micros),
            other => other,
        };
    }
    let (to, from) = (datetime::civil(later.div_euclid(DAY)), datetime::civil(earlier.div_euclid(DAY)));
    let mut months = (to.year - from.year) * 12 + to.month - from.month;
    let mut days = to.day - from.day;
    let mut micros = later.rem_euclid(DAY) - earlier.rem_euclid(DAY);
    if micros < 0 {
        micros += DAY;
        days -= 1;
    }
    if days < 0 {
        days += datetime::days_in_month(from.year, from.month);
        months -= 1;
    }
    span(months, days, micros)
}

/// Units that `extract` refuses of a date.
fn date_lacks(unit: &str) -> bool {
    unit.starts_with("timezone") || clock_field(0, unit).is_some()
}

/// Units that exist, whether or not a type has them.
const UNITS: [&str; 23] = [
    "microseconds",
    "milliseconds",
    "second",
    "minute",
    "hour",
    "day",
    "dow",
    "isodow",
    "doy",
    "week",
    "month",
    "quarter",
    "year",
    "isoyear",
    "decade",
    "century",
    "millennium",
    "epoch",
    "julian",
    "timezone",
    "timezone_hour",
    "timezone_minute",
    "microsecond",
];

fn unknown_unit(unit: &str, ty: BaseType) -> SqlError {
    if UNITS.contains(&unit) {
        return SqlError::not_supported(format!("unit \"{unit}\" not supported for type {ty}"));
    }
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("unit \"{unit}\" not recognized for type {ty}"))
}

fn extract(args: &[Value], call: &Invocation<'_>, exact: bool) -> Answer {
    let unit = text(args, 0)?.to_ascii_lowercase();
    let ty = call.arg_types.get(1).map_or(BaseType::Timestamp, |ty| ty.base);
    let (local, utc, is_date) = match &args[1] {
        Value::Interval(i) => return field(interval_field(i, &unit), &unit, ty, exact),
        Value::Time(micros) => {
            return field(
                clock_field(*micros, &unit).or_else(|| (unit == "epoch").then_some((i128::from(*micros), 6))),
                &unit,
                ty,
                exact,
            );
        }
        Value::Date(days) => {
            let at = cast::date_to_timestamp(*days)?;
            // `date_part` sees a date as midnight; `extract` refuses the clock's units.
            (at, at, exact)
        }
        Value::Timestamp(at) => (*at, *at, false),
        Value::Timestamptz(at) => (cast::to_local(*at, call.ctx.session.timezone()), *at, false),
        _ => return Err(mismatch()),
    };
    if (local == TIMESTAMP_INFINITY || local == TIMESTAMP_NEGATIVE_INFINITY)
        && UNITS.contains(&unit.as_str())
        && !(is_date && date_lacks(&unit))
    {
        let steady = matches!(
            unit.as_str(),
            "epoch" | "year" | "decade" | "century" | "millennium" | "julian" | "isoyear"
        );
        let positive = local == TIMESTAMP_INFINITY;
        return Ok(match (steady, exact) {
            (false, _) => Value::Null,
            (true, true) => {
                Value::Numeric(Box::new(if positive { Numeric::Infinity } else { Numeric::NegativeInfinity }))
            }
            (true, false) => Value::Float8(if positive { f64::INFINITY } else { f64::NEG_INFINITY }),
        });
    }
    let day_number = local.div_euclid(DAY);
    let date = datetime::civil(day_number);
    let year = if date.year > 0 { date.year } else { date.year - 1 };
    let whole = |n: i32| Some((i128::from(n), 0));
    let found = match unit.as_str() {
        "year" | "y" | "years" => whole(year),
        "month" | "mon" | "months" => whole(date.month),
        "day" | "d" | "days" => whole(date.day),
        "quarter" => whole((date.month - 1) / 3 + 1),
        "dow" => whole(datetime::day_of_week(day_number)),
        "isodow" => whole((datetime::day_of_week(day_number) + 6) % 7 + 1),
        "doy" => whole((day_number - datetime::days(date.year, 1, 1) + 1) as i32),
        "week" => whole(datetime::iso_week(day_number).1),
        "isoyear" => {
            let year = datetime::iso_week(day_number).0;
            whole(if year > 0 { year } else { year - 1 })
        }
        "decade" => whole(date.year.div_euclid(10)),
        "century" => whole(if year > 0 { (year + 99) / 100 } else { -((99 - year) / 100) }),
        "millennium" => whole(if year > 0 { (year + 999) / 1000 } else { -((999 - year) / 1000) }),
        "julian" if !is_date => {
            let clock = Numeric::from(local.rem_euclid(DAY)).div(&Numeric::from(DAY))?;
            let number = Numeric::from(day_number + 2_451_545).add(&clock);
            return Ok(if exact { Value::Numeric(Box::new(number)) } else { Value::Float8(number.to_f64()) });
        }
        "julian" => whole((day_number + 2_451_545) as i32),
        "epoch" if is_date => Some((i128::from(day_number) * 86_400 + i128::from(UNIX_OFFSET_SECONDS), 0)),
        "epoch" => Some((i128::from(utc) + i128::from(UNIX_OFFSET_SECONDS) * i128::from(SECOND), 6)),
        "timezone" if ty == BaseType::Timestamptz => Some((i128::from((local - utc) / SECOND), 0)),
        "timezone_hour" if ty == BaseType::Timestamptz => Some((i128::from((local - utc) / HOUR), 0)),
        "timezone_minute" if ty == BaseType::Timestamptz => {
            Some((i128::from((local - utc) / MINUTE % 60), 0))
        }
        _ if is_date => None,
        _ => clock_field(local.rem_euclid(DAY), &unit),
    };
    field(found, &unit, ty, exact)
}

/// A field's digits and scale.
type Field = Option<(i128, u32)>;

fn clock_field(micros: i64, unit: &str) -> Field {
    let digits = i128::from;
    Some(match unit {
        "hour" | "hours" | "h" => (digits(micros / HOUR), 0),
        "minute" | "minutes" | "min" => (digits(micros / MINUTE % 60), 0),
        "second" | "seconds" | "sec" => (digits(micros % MINUTE), 6),
        "millisecond" | "milliseconds" | "ms" => (digits(micros % MINUTE), 3),
        "microsecond" | "microseconds" | "us" => (digits(micros % MINUTE), 0),
        _ => return None,
    })
}

fn interval_field(i: &Interval, unit: &str) -> Field {
    let whole = |n: i32| Some((i128::from(n), 0));
    match unit {
        "year" | "years" => whole(i.months / 12),
        "month" | "months" | "mon" => whole(i.months % 12),
        "day" | "days" => whole(i.days),
        "quarter" => whole(i.months % 12 / 3 + 1),
        "decade" => whole(i.months / 120),
        "century" => whole(i.months / 1200),
        "millennium" => whole(i.months / 12_000),
        "epoch" => {
            // A year counts 365.25 days here, a month 30.
            let days = i128::from(i.months / 12) * 1461 * 6
                + i128::from(i.months % 12) * 30 * 24
                + i128::from(i.days) * 24;
            Some((days * i128::from(HOUR) + i128::from(i.micros), 6))
        }
        _ => clock_field(i.micros, unit),
    }
}

fn field(found: Field, unit: &str, ty: BaseType, exact: bool) -> Answer {
    let (digits, scale) = found.ok_or_else(|| unknown_unit(unit, ty))?;
    let number = Numeric::new(BigInt::from(digits), scale);
    Ok(if exact { Value::Numeric(Box::new(number)) } else { Value::Float8(number.to_f64()) })
}

fn date_trunc(args: &[Value], call: &Invocation<'_>) -> Answer {
    let unit = text(args, 0)?.to_ascii_lowercase();
    let ty = call.arg_types.get(1).map_or(BaseType::Timestamp, |ty| ty.base);
    let zone = call.ctx.session.timezone();
    Ok(match &args[1] {
        Value::Timestamp(at) => Value::Timestamp(truncate(*at, &unit, ty)?),
        Value::Timestamptz(utc) => {
            Value::Timestamptz(cast::to_utc(truncate(cast::to_local(*utc, zone), &unit, ty)?, zone))
        }
        Value::Interval(i) => {
            let clock = |unit: i64| span(i.months, i.days, i.micros / unit * unit);
            match unit.as_str() {
                "microseconds" | "microsecond" => clock(1),
                "milliseconds" | "millisecond" => clock(1000),
                "second" => clock(SECOND),
                "minute" => clock(MINUTE),
                "hour" => clock(HOUR),
                "day" => span(i.months, i.days, 0),
                "month" => span(i.months, 0, 0),
                "quarter" => span(i.months / 3 * 3, 0, 0),
                "year" => span(i.months / 12 * 12, 0, 0),
                "decade" => span(i.months / 120 * 120, 0, 0),
                "century" => span(i.months / 1200 * 1200, 0, 0),
                "millennium" => span(i.months / 12_000 * 12_000, 0, 0),
                _ => return Err(uncuttable(&unit, ty)),
            }
        }
        _ => return Err(mismatch()),
    })
}

/// Cuts a local timestamp to a unit.
pub(super) fn truncate(at: i64, unit: &str, ty: BaseType) -> Result<i64, SqlError> {
    if at == TIMESTAMP_INFINITY || at == TIMESTAMP_NEGATIVE_INFINITY {
        return Ok(at);
    }
    let day_number = at.div_euclid(DAY);
    let date = datetime::civil(day_number);
    let first = |year: i32, month: i32| datetime::days(year, month, 1) * DAY;
    Ok(match unit {
        "microseconds" | "microsecond" => at,
        "milliseconds" | "millisecond" => at.div_euclid(1000) * 1000,
        "second" | "seconds" => at.div_euclid(SECOND) * SECOND,
        "minute" | "minutes" => at.div_euclid(MINUTE) * MINUTE,
        "hour" | "hours" => at.div_euclid(HOUR) * HOUR,
        "day" | "days" => day_number * DAY,
        "week" => (day_number - i64::from((datetime::day_of_week(day_number) + 6) % 7)) * DAY,
        "month" | "months" => first(date.year, date.month),
        "quarter" => first(date.year, (date.month - 1) / 3 * 3 + 1),
        "year" | "years" => first(date.year, 1),
        "decade" => first(date.year.div_euclid(10) * 10, 1),
        "century" => first((date.year - 1).div_euclid(100) * 100 + 1, 1),
        "millennium" => first((date.year - 1).div_euclid(1000) * 1000 + 1, 1),
        _ => return Err(uncuttable(unit, ty)),
    })
}

/// Units that name no span cannot be cut to.
fn uncuttable(unit: &str, ty: BaseType) -> SqlError {
    if matches!(unit, "dow" | "isodow" | "doy" | "isoyear" | "epoch" | "julian") {
        let message = format!("unit \"{unit}\" not recognized for type {ty}");
        return SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message);
    }
    unknown_unit(unit, ty)
}

/// `(start, end) OVERLAPS (start, end)`, where an end may be given as a span. Ends are put in order, and a missing one
/// leaves the answer open only where it matters, as in PostgreSQL's `overlaps_timestamp`.
fn overlaps(args: &[Value], call: &Invocation<'_>) -> Answer {
    let period = |from: usize| -> Result<Option<(Value, Value)>, SqlError> {
        let (Some(start), Some(end)) = (args.get(from), args.get(from + 1)) else { return Err(mismatch()) };
        let end = match end {
            Value::Interval(_) if start.is_null() => Value::Null,
            Value::Interval(_) => super::super::arithmetic::add(start, end, call.ctx)?,
            end => end.clone(),
        };
        Ok(match (start.is_null(), end.is_null()) {
            (true, true) => None,
            (true, false) => Some((end, Value::Null)),
            (false, false) if start.compare(&end).is_gt() => Some((end, start.clone())),
            _ => Some((start.clone(), end)),
        })
    };
    let (Some(first), Some(second)) = (period(0)?, period(2)?) else { return Ok(Value::Null) };
    let order = first.0.compare(&second.0);
    if order.is_eq() {
        let known = !first.1.is_null() && !second.1.is_null();
        return Ok(if known { Value::Bool(true) } else { Value::Null });
    }
    let (earlier, later) = if order.is_gt() { (second, first) } else { (first, second) };
    Ok(if earlier.1.is_null() {
        Value::Null
    } else if later.0.compare(&earlier.1).is_lt() {
        Value::Bool(true)
    } else if later.1.is_null() {
        Value::Null
    } else {
        Value::Bool(false)
    })
}
