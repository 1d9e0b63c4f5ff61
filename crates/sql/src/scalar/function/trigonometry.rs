//! Trigonometry in radians and in degrees, and hyperbolic functions.
//!
//! The forms in degrees are exact where the angle is a multiple of 30 or 45 degrees: as in PostgreSQL's `float.c`, an
//! angle is brought into the first quadrant, and what is computed there is divided by its value at a known angle.

use rustydb_types::datatype::BaseType;
use rustydb_types::value::Value;

use super::super::catalogue::FunctionFn;
use super::Answer;
use super::math::float;
use crate::error::{SqlError, SqlState};

/// One degree in radians, with PostgreSQL's digits.
const RADIANS_PER_DEGREE: f64 = 0.017_453_292_519_943_295;

pub(super) fn find(name: &str, _: &[BaseType]) -> Option<FunctionFn> {
    Some(match name {
        "degrees" => |a, _| {
            let n = float(&a[0])?;
            let result = n / RADIANS_PER_DEGREE;
            super::super::arithmetic::check_float(result, n.is_infinite(), n == 0.0)?;
            Ok(Value::Float8(result))
        },
        "radians" => |a, _| Ok(Value::Float8(float(&a[0])? * RADIANS_PER_DEGREE)),
        "sin" => |a, _| periodic(a, f64::sin),
        "cos" => |a, _| periodic(a, f64::cos),
        "tan" => |a, _| periodic(a, f64::tan),
        "cot" => |a, _| periodic(a, |x| 1.0 / x.tan()),
        "asin" => |a, _| within(a, |x| x.abs() <= 1.0, f64::asin),
        "acos" => |a, _| within(a, |x| x.abs() <= 1.0, f64::acos),
        "atan" => |a, _| Ok(Value::Float8(float(&a[0])?.atan())),
        "atan2" => |a, _| Ok(Value::Float8(float(&a[0])?.atan2(float(&a[1])?))),
        "sinh" => |a, _| Ok(Value::Float8(float(&a[0])?.sinh())),
        "cosh" => |a, _| Ok(Value::Float8(float(&a[0])?.cosh())),
        "tanh" => |a, _| Ok(Value::Float8(float(&a[0])?.tanh())),
        "asinh" => |a, _| Ok(Value::Float8(float(&a[0])?.asinh())),
        "acosh" => |a, _| within(a, |x| x >= 1.0, f64::acosh),
        "atanh" => |a, _| within(a, |x| x.abs() <= 1.0, f64::atanh),
        "sind" => |a, _| periodic(a, sine),
        "cosd" => |a, _| periodic(a, cosine),
        "tand" => |a, _| periodic(a, tangent),
        "cotd" => |a, _| periodic(a, cotangent),
        "asind" => |a, _| within(a, |x| x.abs() <= 1.0, arc_sine),
        "acosd" => |a, _| within(a, |x| x.abs() <= 1.0, arc_cosine),
        "atand" => |a, _| Ok(Value::Float8(float(&a[0])?.atan() / 1f64.atan() * 45.0)),
        "atan2d" => |a, _| Ok(Value::Float8(float(&a[0])?.atan2(float(&a[1])?) / 1f64.atan() * 45.0)),
        _ => return None,
    })
}

fn out_of_range() -> SqlError {
    SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "input is out of range")
}

/// A function of an angle, which must be finite.
fn periodic(args: &[Value], of: fn(f64) -> f64) -> Answer {
    let n = float(&args[0])?;
    if n.is_infinite() {
        return Err(out_of_range());
    }
    Ok(Value::Float8(of(n)))
}

/// A function with a domain; NaN belongs to every one.
fn within(args: &[Value], domain: fn(f64) -> bool, of: fn(f64) -> f64) -> Answer {
    let n = float(&args[0])?;
    if n.is_nan() {
        return Ok(Value::Float8(n));
    }
    if !domain(n) {
        return Err(out_of_range());
    }
    Ok(Value::Float8(of(n)))
}

/// Sine of 0 to 30 degrees.
fn sine_low(x: f64) -> f64 {
    (x * RADIANS_PER_DEGREE).sin() / (30.0 * RADIANS_PER_DEGREE).sin() / 2.0
}

/// Cosine of 0 to 60 degrees.
fn cosine_low(x: f64) -> f64 {
    let below_one = |x: f64| 1.0 - (x * RADIANS_PER_DEGREE).cos();
    1.0 - below_one(x) / below_one(60.0) / 2.0
}

/// Sine of 0 to 90 degrees.
fn sine_quadrant(x: f64) -> f64 {
    if x <= 30.0 { sine_low(x) } else { cosine_low(90.0 - x) }
}

/// Cosine of 0 to 90 degrees.
fn cosine_quadrant(x: f64) -> f64 {
    if x <= 60.0 { cosine_low(x) } else { sine_low(90.0 - x) }
}

/// An angle in the first quadrant, and the signs that sine and cosine have in its own.
fn reduced(x: f64) -> (f64, f64, f64) {
    let (mut x, mut sine, mut cosine) = (x % 360.0, 1.0, 1.0);
    if x < 0.0 {
        (x, sine) = (-x, -sine);
    }
    if x > 180.0 {
        (x, sine) = (360.0 - x, -sine);
    }
    if x > 90.0 {
        (x, cosine) = (180.0 - x, -cosine);
    }
    (x, sine, cosine)
}

fn sine(x: f64) -> f64 {
    let (x, sign, _) = reduced(x);
    sign * sine_quadrant(x)
}

fn cosine(x: f64) -> f64 {
    let (x, _, sign) = reduced(x);
    sign * cosine_quadrant(x)
}

fn tangent(x: f64) -> f64 {
    let (x, sine, cosine) = reduced(x);
    let known = sine_quadrant(45.0) / cosine_quadrant(45.0);
    let result = sine * cosine * (sine_quadrant(x) / cosine_quadrant(x) / known);
    if result == 0.0 { 0.0 } else { result }
}

fn cotangent(x: f64) -> f64 {
    let (x, sine, cosine) = reduced(x);
    let known = cosine_quadrant(45.0) / sine_quadrant(45.0);
    let result = sine * cosine * (cosine_quadrant(x) / sine_quadrant(x) / known);
    if result == 0.0 { 0.0 } else { result }
}

/// Arc sine of 0 to 1.
fn arc_sine_positive(x: f64) -> f64 {
    if x <= 0.5 { x.asin() / 0.5f64.asin() * 30.0 } else { 90.0 - x.acos() / 0.5f64.acos() * 60.0 }
}

fn arc_sine(x: f64) -> f64 {
    if x >= 0.0 { arc_sine_positive(x) } else { -arc_sine_positive(-x) }
}

fn arc_cosine(x: f64) -> f64 {
    if x < 0.0 {
        90.0 + arc_sine_positive(-x)
    } else if x <= 0.5 {
        90.0 - x.asin() / 0.5f64.asin() * 30.0
    } else {
        x.acos() / 0.5f64.acos() * 60.0
    }
}
