//! Dates and times from their parts, in bins, as text and from text.

use rustydb_types::datatype::BaseType;
use rustydb_types::datetime::{self, DAY, HOUR, MINUTE, SECOND, Zone};
use rustydb_types::numeric::Numeric;
use rustydb_types::value::{Interval, TIMESTAMP_INFINITY, TIMESTAMP_NEGATIVE_INFINITY, Value};
use rustydb_types::value_error::ValueError;

use super::super::cast;
use super::super::catalogue::{FunctionFn, Invocation};
use super::{Answer, from_char, int, mismatch, number_format, text, to_char};
use crate::error::{SqlError, SqlState};

pub(super) fn find(name: &str, args: &[BaseType]) -> Option<FunctionFn> {
    use BaseType as T;
    Some(match name {
        "make_time" => |a, _| Ok(Value::Time(clock(int(a, 0)?, int(a, 1)?, seconds(a, 2)?)?)),
        "make_timestamp" => |a, _| Ok(Value::Timestamp(moment(a)?)),
        "make_timestamptz" => |a, call| {
            let zone = match a.get(6) {
                Some(name) => zone(name.as_str().unwrap_or(""))?,
                None => call.ctx.session.timezone(),
            };
            Ok(Value::Timestamptz(cast::to_utc(moment(a)?, zone)))
        },
        "make_interval" => |a, _| {
            let part = |at: usize| a.get(at).and_then(Value::as_i64).unwrap_or(0);
            let out = || ValueError::out_of_range(T::Interval);
            let months = i32::try_from(part(0) * 12 + part(1)).map_err(|_| out())?;
            let days = i32::try_from(part(2) * 7 + part(3)).map_err(|_| out())?;
            let micros = (seconds(a, 6).unwrap_or(0.0) * 1e6).round_ties_even();
            if !micros.is_finite() || micros.abs() > 9e18 {
                return Err(out().into());
            }
            let clock = part(4) * HOUR + part(5) * MINUTE;
            let micros = clock.checked_add(micros as i64).ok_or_else(out)?;
            Ok(Value::Interval(Box::new(Interval { months, days, micros })))
        },
        "date_bin" => |a, _| {
            let Value::Interval(stride) = &a[0] else { return Err(mismatch()) };
            match (&a[1], &a[2]) {
                (Value::Timestamp(at), Value::Timestamp(origin)) => {
                    Ok(Value::Timestamp(bin(stride, *at, *origin)?))
                }
                (Value::Timestamptz(at), Value::Timestamptz(origin)) => {
                    Ok(Value::Timestamptz(bin(stride, *at, *origin)?))
                }
                _ => Err(mismatch()),
            }
        },
        "justify_days" => |a, _| justify(a, false),
        "justify_interval" => |a, _| justify(a, true),
        "timezone" if args.first() == Some(&T::Interval) => |a, _| {
            let Value::Interval(offset) = &a[0] else { return Err(mismatch()) };
            if offset.months != 0 || offset.days != 0 {
                return Err(SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    "interval time zone must not include months or days",
                ));
            }
            let zone = Zone::Fixed((offset.micros / SECOND) as i32);
            match &a[1] {
                Value::Timestamp(local) => Ok(Value::Timestamptz(cast::to_utc(*local, zone))),
                Value::Timestamptz(utc) => Ok(Value::Timestamp(cast::to_local(*utc, zone))),
                _ => Err(mismatch()),
            }
        },
        "date_trunc" if args.len() == 3 => |a, _| {
            let zone = zone(text(a, 2)?)?;
            let Value::Timestamptz(utc) = &a[1] else { return Err(mismatch()) };
            let unit = text(a, 0)?.to_ascii_lowercase();
            let local = super::date::truncate(cast::to_local(*utc, zone), &unit, T::Timestamptz)?;
            Ok(Value::Timestamptz(cast::to_utc(local, zone)))
        },
        "to_char" => |a, call| {
            let template = text(a, 1)?;
            let found = match &a[0] {
                Value::Timestamp(at) => to_char::timestamp(*at, None, template),
                Value::Timestamptz(utc) => {
                    let zone = call.ctx.session.timezone();
                    let named = (zone.abbreviation_at(*utc), zone.offset_at(*utc));
                    to_char::timestamp(cast::to_local(*utc, zone), Some(named), template)
                }
                Value::Interval(span) => to_char::interval(span, template)?,
                Value::Numeric(n) => Some(number_format::to_char(n, template)?),
                Value::Float8(n) => Some(number_format::to_char(&Numeric::from_f64(*n), template)?),
                Value::Float4(n) => Some(number_format::to_char(&Numeric::from_f32(*n), template)?),
                other => Some(number_format::to_char(
                    &Numeric::from(other.as_i64().ok_or_else(mismatch)?),
                    template,
                )?),
            };
            Ok(found.map_or(Value::Null, Value::text))
        },
        "to_number" if args.len() == 2 => |a, _| {
            Ok(if text(a, 1)?.is_empty() {
                Value::Null
            } else {
                Value::Numeric(Box::new(number_format::to_number(text(a, 0)?, text(a, 1)?)?))
            })
        },
        "to_date" => |a, _| {
            let (local, _) = from_char::read(text(a, 0)?, text(a, 1)?)?;
            Ok(Value::Date(datetime::check_date(local.div_euclid(DAY))?))
        },
        "to_timestamp" if args.len() == 2 => to_timestamp,
        _ => return None,
    })
}

fn to_timestamp(args: &[Value], call: &Invocation<'_>) -> Answer {
    let (local, offset) = from_char::read(text(args, 0)?, text(args, 1)?)?;
    let zone = offset.map_or_else(|| call.ctx.session.timezone(), Zone::Fixed);
    Ok(Value::Timestamptz(cast::to_utc(local, zone)))
}

/// A zone by its name.
pub(super) fn zone(name: &str) -> Result<Zone, SqlError> {
    Zone::by_name(name).ok_or_else(|| {
        SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("time zone \"{name}\" not recognized"))
    })
}

fn seconds(args: &[Value], at: usize) -> Result<f64, SqlError> {
    match args.get(at) {
        Some(Value::Float8(n)) => Ok(*n),
        _ => Err(mismatch()),
    }
}

fn clock(hour: i64, minute: i64, second: f64) -> Result<i64, SqlError> {
    let micros = (second * 1e6).round_ties_even();
    let valid = (0..=24).contains(&hour) && (0..60).contains(&minute) && (0.0..=60.0).contains(&second);
    let total = if valid { hour * HOUR + minute * MINUTE + micros as i64 } else { i64::MAX };
    if total > DAY {
        return Err(SqlError::new(
            SqlState::DATETIME_FIELD_OVERFLOW,
            format!("time field value out of range: {hour}:{minute:02}:{second}"),
        ));
    }
    Ok(total)
}

fn moment(args: &[Value]) -> Result<i64, SqlError> {
    let (year, month, day) = (int(args, 0)? as i32, int(args, 1)? as i32, int(args, 2)? as i32);
    let counted = if year < 0 { year + 1 } else { year };
    if year == 0 || !datetime::is_valid_date(counted, month, day) {
        return Err(SqlError::new(
            SqlState::DATETIME_FIELD_OVERFLOW,
            format!("date field value out of range: {year}-{month:02}-{day:02}"),
        ));
    }
    let time = clock(int(args, 3)?, int(args, 4)?, seconds(args, 5)?)?;
    let days = datetime::days(counted, month, day);
    Ok(datetime::check_timestamp(i128::from(days) * i128::from(DAY) + i128::from(time))?)
}

fn bin(stride: &Interval, at: i64, origin: i64) -> Result<i64, SqlError> {
    if at == TIMESTAMP_INFINITY || at == TIMESTAMP_NEGATIVE_INFINITY {
        return Ok(at);
    }
    if origin == TIMESTAMP_INFINITY || origin == TIMESTAMP_NEGATIVE_INFINITY {
        return Err(SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, "origin out of range"));
    }
    if stride.months != 0 {
        return Err(SqlError::not_supported(
            "timestamps cannot be binned into intervals containing months or years",
        ));
    }
    let width = i128::from(stride.days) * i128::from(DAY) + i128::from(stride.micros);
    if width <= 0 {
        return Err(SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, "stride must be greater than zero"));
    }
    let distance = i128::from(at) - i128::from(origin);
    Ok(datetime::check_timestamp(i128::from(origin) + distance.div_euclid(width) * width)?)
}

/// Days over 30 become months; with `all`, hours over 24 become days first and signs agree.
fn justify(args: &[Value], all: bool) -> Answer {
    let Value::Interval(span) = &args[0] else { return Err(mismatch()) };
    let mut span = **span;
    let out = || ValueError::out_of_range(BaseType::Interval);
    if all {
        span.days = span.days.checked_add((span.micros / DAY) as i32).ok_or_else(out)?;
        span.micros %= DAY;
    }
    span.months = span.months.checked_add(span.days / 30).ok_or_else(out)?;
    span.days %= 30;
    if all {
        if span.months > 0 && (span.days < 0 || (span.days == 0 && span.micros < 0)) {
            span.days += 30;
            span.months -= 1;
        } else if span.months < 0 && (span.days > 0 || (span.days == 0 && span.micros > 0)) {
            span.days -= 30;
            span.months += 1;
        }
        if span.days > 0 && span.micros < 0 {
            span.micros += DAY;
            span.days -= 1;
        } else if span.days < 0 && span.micros > 0 {
            span.micros -= DAY;
            span.days += 1;
        }
    } else if span.months > 0 && span.days < 0 {
        span.days += 30;
        span.months -= 1;
    } else if span.months < 0 && span.days > 0 {
        span.days -= 30;
        span.months += 1;
    }
    Ok(Value::Interval(Box::new(span)))
}
