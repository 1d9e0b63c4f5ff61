//! Reading and printing numerics.

use std::fmt;
use std::str::FromStr;

use num_bigint::BigInt;
use num_traits::{Signed, Zero};

use super::{Numeric, SCALE_MAX, WEIGHT_MAX, power_of_ten};
use crate::value_error::ValueError;

impl fmt::Display for Numeric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (coefficient, scale) = match self {
            Numeric::Finite { coefficient, scale } => (coefficient, *scale as usize),
            Numeric::Infinity => return f.write_str("Infinity"),
            Numeric::NegativeInfinity => return f.write_str("-Infinity"),
            Numeric::NaN => return f.write_str("NaN"),
        };
        if coefficient.is_negative() {
            f.write_str("-")?;
        }
        let digits = coefficient.magnitude().to_string();
        if scale == 0 {
            return f.write_str(&digits);
        }
        let split = digits.len().saturating_sub(scale);
        let (whole, fraction) = digits.split_at(split);
        let whole = if whole.is_empty() { "0" } else { whole };
        write!(f, "{whole}.{fraction:0>scale$}")
    }
}

impl FromStr for Numeric {
    type Err = ValueError;

    fn from_str(input: &str) -> Result<Numeric, ValueError> {
        let syntax = || ValueError::syntax("numeric", input);
        let text = input.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, text.get(1..).unwrap_or("")),
            Some(b'+') => (false, text.get(1..).unwrap_or("")),
            _ => (false, text),
        };
        if unsigned.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return match unsigned.to_ascii_lowercase().as_str() {
                "nan" if unsigned.len() == text.len() => Ok(Numeric::NaN),
                "infinity" | "inf" if negative => Ok(Numeric::NegativeInfinity),
                "infinity" | "inf" => Ok(Numeric::Infinity),
                _ => Err(syntax()),
            };
        }
        let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
            Some(at) => {
                let (mantissa, rest) = unsigned.split_at(at);
                let digits = rest.get(1..).unwrap_or("");
                let bare = digits.strip_prefix(['+', '-']).unwrap_or(digits);
                if bare.is_empty() || !bare.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(syntax());
                }
                let exponent = digits
                    .strip_prefix('+')
                    .unwrap_or(digits)
                    .parse::<i64>()
                    .ok()
                    .filter(|e| e.abs() < i64::from(i32::MAX) / 2)
                    .ok_or_else(|| ValueError::new("22003", "value overflows numeric format"))?;
                (mantissa, exponent)
            }
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
            return Err(syntax());
        }
        let mut digits = String::with_capacity(whole.len() + fraction.len() + 1);
        digits.push_str(whole);
        digits.push_str(fraction);
        let significant = digits.trim_start_matches('0');
        let scale = fraction.len() as i64 - exponent;
        let overflow = || ValueError::new("22003", "value overflows numeric format");
        if significant.len() as i64 - scale > WEIGHT_MAX as i64 && !significant.is_empty() {
            return Err(overflow());
        }
        if significant.is_empty() {
            let scale = scale.clamp(0, i64::from(SCALE_MAX)) as u32;
            return Ok(Numeric::new(BigInt::zero(), scale));
        }
        if exponent < -i64::from(SCALE_MAX) {
            return Err(overflow());
        }
        if scale - significant.len() as i64 > i64::from(SCALE_MAX) + 1 {
            return Ok(Numeric::new(BigInt::zero(), SCALE_MAX));
        }
        let magnitude = BigInt::from_str(significant).map_err(|_| syntax())?;
        let coefficient = if negative { -magnitude } else { magnitude };
        if scale < 0 {
            return Ok(Numeric::new(coefficient * power_of_ten((-scale) as u32), 0));
        }
        if scale > i64::from(SCALE_MAX) {
            let scale = u32::try_from(scale).map_err(|_| overflow())?;
            return Ok(Numeric::new(Numeric::rescaled(&coefficient, scale, SCALE_MAX), SCALE_MAX));
        }
        Ok(Numeric::new(coefficient, scale as u32))
    }
}
