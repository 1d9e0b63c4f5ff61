//! Numbers.

use rustydb_types::datatype::BaseType;
use rustydb_types::numeric::Numeric;
use rustydb_types::value::Value;
use rustydb_types::value_error::ValueError;

use super::super::arithmetic;
use super::super::catalogue::FunctionFn;
use super::{Answer, int, mismatch};
use crate::error::{SqlError, SqlState};

pub(super) fn find(name: &str, args: &[BaseType]) -> Option<FunctionFn> {
    let first = args.first().copied();
    Some(match name {
        "abs" => |a, call| arithmetic::absolute(&a[0], &a[0], call.ctx),
        "ceil" | "ceiling" => |a, _| rounding(&a[0], f64::ceil, Numeric::ceil),
        "floor" => |a, _| rounding(&a[0], f64::floor, Numeric::floor),
        "round" => |a, _| match a {
            [Value::Numeric(n), digits] => number(n.round(digits.as_i64().unwrap_or(0))),
            [value, ..] => rounding(value, f64::round_ties_even, |n| n.round(0)),
            _ => Err(mismatch()),
        },
        "trunc" if first != Some(BaseType::Date) => |a, _| match a {
            [Value::Numeric(n), digits] => number(n.trunc(digits.as_i64().unwrap_or(0))),
            [value, ..] => rounding(value, f64::trunc, |n| n.trunc(0)),
            _ => Err(mismatch()),
        },
        "sign" => |a, _| match &a[0] {
            Value::Float8(n) => Ok(Value::Float8(if n.is_nan() || *n == 0.0 { *n } else { n.signum() })),
            Value::Numeric(n) => number(n.signum().map_or(Numeric::NaN, |s| Numeric::from(i64::from(s)))),
            _ => Err(mismatch()),
        },
        "mod" => |a, call| arithmetic::modulo(&a[0], &a[1], call.ctx),
        "div" => |a, _| match (&a[0], &a[1]) {
            (Value::Numeric(x), Value::Numeric(y)) => number(x.div_trunc(y)?),
            _ => Err(mismatch()),
        },
        "power" | "pow" => |a, call| arithmetic::power(&a[0], &a[1], call.ctx),
        "sqrt" => |a, _| match &a[0] {
            Value::Numeric(n) => number(n.sqrt()?),
            other => sqrt_float(other),
        },
        "cbrt" => |a, _| cbrt(&a[0]),
        "exp" => |a, _| match &a[0] {
            Value::Numeric(n) => number(n.exp()?),
            other => {
                let x = float(other)?;
                let result = x.exp();
                arithmetic::check_float(result, x.is_infinite(), x.is_infinite())?;
                Ok(Value::Float8(result))
            }
        },
        "ln" => |a, _| match &a[0] {
            Value::Numeric(n) => number(n.ln()?),
            other => logarithm(other, f64::ln),
        },
        "log" | "log10" => |a, _| match a {
            [Value::Numeric(base), Value::Numeric(n)] => number(n.log(base)?),
            [Value::Numeric(n)] => number(n.log(&Numeric::from(10i64))?),
            [other] => logarithm(other, f64::log10),
            _ => Err(mismatch()),
        },
        "gcd" => |a, _| match (&a[0], &a[1]) {
            (Value::Numeric(x), Value::Numeric(y)) => number(x.gcd(y)),
            (x, _) => same_width(gcd(int(a, 0)?, int(a, 1)?), x),
        },
        "lcm" => |a, _| match (&a[0], &a[1]) {
            (Value::Numeric(x), Value::Numeric(y)) => number(x.lcm(y)),
            (x, _) => {
                let (m, n) = (i128::from(int(a, 0)?), i128::from(int(a, 1)?));
                let divisor = gcd(int(a, 0)?, int(a, 1)?);
                same_width(if divisor == 0 { 0 } else { (m / divisor * n).abs() }, x)
            }
        },
        "factorial" => |a, _| number(Numeric::factorial(int(a, 0)?)?),
        "random" if args.is_empty() => |_, call| Ok(Value::Float8(call.ctx.session.random_float())),
        "setseed" => |a, call| {
            let seed = float(&a[0])?;
            if !(-1.0..=1.0).contains(&seed) {
                let message = format!(
                    "setseed parameter {} is out of allowed range [-1,1]",
                    rustydb_types::text::text_out(
                        &a[0],
                        BaseType::Float8.into(),
                        &rustydb_types::text::TextContext::UTC
                    )
                );
                return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message));
            }
            call.ctx.session.set_seed(seed);
            Ok(Value::text(""))
        },
        "bit_count" => |a, _| match &a[0] {
            Value::Bytea(bytes) => {
                Ok(Value::Int8(bytes.iter().map(|byte| i64::from(byte.count_ones())).sum()))
            }
            _ => Err(mismatch()),
        },
        "pi" => |_, _| Ok(Value::Float8(std::f64::consts::PI)),
        "scale" => |a, _| finite(a, |n| Value::Int4(n.scale() as i32)),
        "min_scale" => |a, _| finite(a, |n| Value::Int4(n.trim_scale().scale() as i32)),
        "trim_scale" => |a, _| match &a[0] {
            Value::Numeric(n) => number(n.trim_scale()),
            _ => Err(mismatch()),
        },
        "width_bucket" if args.len() == 4 => width_bucket,
        "width_bucket" => bucket_of_thresholds,
        "to_hex" => |a, _| {
            Ok(Value::text(match &a[0] {
                Value::Int4(n) => format!("{n:x}"),
                other => format!("{:x}", other.as_i64().unwrap_or(0)),
            }))
        },
        _ => return None,
    })
}

fn number(n: Numeric) -> Answer {
    Ok(Value::Numeric(Box::new(n.check_size()?)))
}

pub(super) fn float(value: &Value) -> Result<f64, SqlError> {
    match value {
        Value::Float8(n) => Ok(*n),
        Value::Float4(n) => Ok(f64::from(*n)),
        _ => Err(mismatch()),
    }
}

fn finite(args: &[Value], of: fn(&Numeric) -> Value) -> Answer {
    match &args[0] {
        Value::Numeric(n) if n.is_finite() => Ok(of(n)),
        _ => Ok(Value::Null),
    }
}

fn rounding(value: &Value, on_float: fn(f64) -> f64, on_numeric: fn(&Numeric) -> Numeric) -> Answer {
    match value {
        Value::Float8(n) => Ok(Value::Float8(on_float(*n))),
        Value::Numeric(n) => number(on_numeric(n)),
        _ => Err(mismatch()),
    }
}

/// The square root of a double.
pub(in super::super) fn sqrt_float(value: &Value) -> Answer {
    let n = float(value)?;
    if n < 0.0 {
        return Err(ValueError::new("2201F", "cannot take square root of a negative number").into());
    }
    Ok(Value::Float8(n.sqrt()))
}

/// The cube root of a double.
pub(in super::super) fn cbrt(value: &Value) -> Answer {
    Ok(Value::Float8(float(value)?.cbrt()))
}

fn logarithm(value: &Value, of: fn(f64) -> f64) -> Answer {
    let n = float(value)?;
    if n == 0.0 {
        return Err(ValueError::new("2201E", "cannot take logarithm of zero").into());
    }
    if n < 0.0 {
        return Err(ValueError::new("2201E", "cannot take logarithm of a negative number").into());
    }
    Ok(Value::Float8(of(n)))
}

fn gcd(a: i64, b: i64) -> i128 {
    let (mut a, mut b) = (i128::from(a).abs(), i128::from(b).abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn same_width(n: i128, like: &Value) -> Answer {
    let out = |base| SqlError::from(ValueError::out_of_range(base));
    match like {
        Value::Int4(_) => Ok(Value::Int4(i32::try_from(n).map_err(|_| out(BaseType::Int4))?)),
        _ => Ok(Value::Int8(i64::try_from(n).map_err(|_| out(BaseType::Int8))?)),
    }
}

fn width_bucket(args: &[Value], _: &super::super::catalogue::Invocation<'_>) -> Answer {
    let bad = |message: &str| SqlError::new(SqlState::INVALID_ARGUMENT_FOR_WIDTH_BUCKET, message);
    let count = int(args, 3)?;
    if count <= 0 {
        return Err(bad("count must be greater than zero"));
    }
    let exact = |value: &Value| match value {
        Value::Numeric(n) => (**n).clone(),
        Value::Float8(n) => Numeric::from_f64(*n),
        _ => Numeric::NaN,
    };
    let (operand, low, high) = (exact(&args[0]), exact(&args[1]), exact(&args[2]));
    if operand.is_nan() || low.is_nan() || high.is_nan() {
        return Err(bad("operand, lower bound, and upper bound cannot be NaN"));
    }
    if !low.is_finite() || !high.is_finite() {
        return Err(bad("lower and upper bounds must be finite"));
    }
    if low == high {
        return Err(bad("lower bound cannot equal upper bound"));
    }
    let (operand, low, high) =
        if low < high { (operand, low, high) } else { (operand.neg(), low.neg(), high.neg()) };
    let bucket = if operand < low {
        0
    } else if operand >= high {
        count + 1
    } else {
        let scaled = operand.sub(&low).mul(&Numeric::from(count)).div_trunc(&high.sub(&low))?;
        arithmetic::to_i64(&scaled).unwrap_or(0) + 1
    };
    i32::try_from(bucket).map(Value::Int4).map_err(|_| ValueError::out_of_range(BaseType::Int4).into())
}

/// `width_bucket(operand, thresholds)`: how many of the sorted thresholds are not above the operand.
fn bucket_of_thresholds(args: &[Value], _: &super::super::catalogue::Invocation<'_>) -> Answer {
    let Value::Array(thresholds) = &args[1] else { return Err(mismatch()) };
    if thresholds.dimensions.len() > 1 {
        return Err(SqlError::new(
            SqlState::ARRAY_SUBSCRIPT_ERROR,
            "thresholds must be one-dimensional array",
        ));
    }
    if thresholds.elements.iter().any(Value::is_null) {
        return Err(SqlError::new(
            SqlState::NULL_VALUE_NOT_ALLOWED,
            "thresholds array must not contain NULLs",
        ));
    }
    let bucket = thresholds.elements.partition_point(|threshold| threshold.compare(&args[0]).is_le());
    Ok(Value::Int4(bucket as i32))
}
