//! Roots, powers, exponentials and logarithms of numerics, to the digits that PostgreSQL gives.
//!
//! Everything is computed on scaled integers with guard digits and rounded once at the end.

use num_bigint::{BigInt, BigUint};
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::{Numeric, RESULT_SCALE_MAX, SIGNIFICANT_DIGITS_MIN, WEIGHT_MAX, divide_rounded, power_of_ten};
use crate::value_error::ValueError;

/// Digits kept beyond the wanted ones while computing.
const GUARD_DIGITS: u32 = 12;

fn overflow() -> ValueError {
    ValueError::new("22003", "value overflows numeric format")
}

fn clamp_scale(scale: i64) -> u32 {
    scale.clamp(0, RESULT_SCALE_MAX) as u32
}

/// `base` to the power of `exponent`, as `m * 2^e`: `(m, e)`, with no more than so many bits of `m`. What is beyond them
/// is cut off at each multiplication, so the error is at most `4 * exponent` times as large as the last bit.
fn power_truncated(base: &BigUint, mut exponent: u64, bits: u64) -> (BigUint, u64) {
    let cut = |value: BigUint, shift: u64| {
        let beyond = value.bits().saturating_sub(bits);
        (value >> beyond, shift + beyond)
    };
    let mut result = (BigUint::one(), 0);
    let mut square = cut(base.clone(), 0);
    loop {
        if exponent & 1 == 1 {
            result = cut(&result.0 * &square.0, result.1 + square.1);
        }
        exponent >>= 1;
        if exponent == 0 {
            return result;
        }
        square = cut(&square.0 * &square.0, 2 * square.1);
    }
}

impl Numeric {
    /// The square root.
    ///
    /// # Errors
    /// 2201F for a negative number.
    pub fn sqrt(&self) -> Result<Numeric, ValueError> {
        let Numeric::Finite { coefficient, scale } = self else {
            return match self {
                Numeric::NegativeInfinity => Err(negative_root()),
                other => Ok(other.clone()),
            };
        };
        if coefficient.is_negative() {
            return Err(negative_root());
        }
        let (weight, _) = self.weight_and_first_digit();
        let result_weight = if weight >= 0 { weight * 4 / 2 + 1 } else { 1 - (1 - weight * 4) / 2 };
        let result_scale = clamp_scale((SIGNIFICANT_DIGITS_MIN - result_weight).max(i64::from(*scale)));
        Ok(self.root_to_scale(coefficient, *scale, result_scale))
    }

    /// The square root of a number that is not negative, rounded to `scale` digits.
    ///
    /// # Errors
    /// 2201F for a negative number.
    pub fn sqrt_to_scale(&self, scale: u32) -> Result<Numeric, ValueError> {
        match self {
            Numeric::Finite { coefficient, scale: own } if !coefficient.is_negative() => {
                Ok(self.root_to_scale(coefficient, *own, scale))
            }
            _ => self.sqrt(),
        }
    }

    fn root_to_scale(&self, coefficient: &BigInt, scale: u32, result_scale: u32) -> Numeric {
        // sqrt(c / 10^s) = sqrt(c * 10^(2d - s)) / 10^d, with one extra digit for rounding.
        let digits = (result_scale + 1).max(scale.div_ceil(2));
        let root = (coefficient * power_of_ten(2 * digits - scale)).sqrt();
        Numeric::new(root, digits).round(i64::from(result_scale))
    }

    /// `e` to the power of the number.
    ///
    /// # Errors
    /// 22003 when the result is too large.
    pub fn exp(&self) -> Result<Numeric, ValueError> {
        match self {
            Numeric::NaN => return Ok(Numeric::NaN),
            Numeric::Infinity => return Ok(Numeric::Infinity),
            Numeric::NegativeInfinity => return Ok(Numeric::zero()),
            Numeric::Finite { .. } => {}
        }
        // std::f64::consts::LOG10_E = log10(e): the decimal weight of the result.
        let weight = (self.to_f64() * std::f64::consts::LOG10_E).clamp(-2000.0, 2e9) as i64;
        if weight > WEIGHT_MAX as i64 {
            return Err(overflow());
        }
        let scale = clamp_scale((SIGNIFICANT_DIGITS_MIN - weight).max(i64::from(self.scale())));
        Ok(self.exp_to_scale(scale))
    }

    fn exp_to_scale(&self, scale: u32) -> Numeric {
        let approximate = self.to_f64();
        if approximate * std::f64::consts::LOG10_E < -f64::from(scale) - 2.0 {
            return Numeric::new(BigInt::zero(), scale);
        }
        let whole_digits = (approximate * std::f64::consts::LOG10_E).max(0.0) as u32 + 1;
        // Halve the argument until it is small, sum the series, square back.
        let halvings = (approximate.abs().max(1e-9).log2().ceil().max(0.0) as u32)
            + 8
            + (f64::from(scale + whole_digits).sqrt() * 0.9) as u32;
        let digits = scale + whole_digits + GUARD_DIGITS + halvings / 3 + 4;
        let unit = power_of_ten(digits);
        let Numeric::Finite { coefficient, scale: own } = self else { return Numeric::NaN };
        let mut x = Numeric::rescaled(coefficient, *own, digits.max(*own));
        if *own > digits {
            x = Numeric::rescaled(&x, *own, digits);
        }
        x >>= halvings;
        let mut term = unit.clone();
        let mut sum = unit.clone();
        let mut n = 1u32;
        loop {
            term = &term * &x / &unit / n;
            if term.is_zero() {
                break;
            }
            sum += &term;
            n += 1;
        }
        for _ in 0..halvings {
            sum = &sum * &sum / &unit;
        }
        Numeric::new(sum, digits).round(i64::from(scale))
    }

    /// The natural logarithm.
    ///
    /// # Errors
    /// 2201E for zero and below.
    pub fn ln(&self) -> Result<Numeric, ValueError> {
        if let Some(special) = self.logarithm_domain()? {
            return Ok(special);
        }
        let weight = self.ln_weight();
        let scale = clamp_scale((SIGNIFICANT_DIGITS_MIN - weight).max(i64::from(self.scale())));
        Ok(self.ln_to_scale(scale))
    }

    fn logarithm_domain(&self) -> Result<Option<Numeric>, ValueError> {
        match self {
            Numeric::NaN => Ok(Some(Numeric::NaN)),
            Numeric::Infinity => Ok(Some(Numeric::Infinity)),
            _ if self.is_zero() => Err(ValueError::new("2201E", "cannot take logarithm of zero")),
            _ if self.is_negative() => {
                Err(ValueError::new("2201E", "cannot take logarithm of a negative number"))
            }
            _ => Ok(None),
        }
    }

    /// Decimal weight of the natural logarithm (`estimate_ln_dweight`).
    fn ln_weight(&self) -> i64 {
        let near_one =
            *self >= Numeric::new(BigInt::from(9), 1) && *self <= Numeric::new(BigInt::from(11), 1);
        if near_one {
            let x = self.sub(&Numeric::from(1i64));
            let Numeric::Finite { coefficient, scale } = &x else { return 0 };
            if coefficient.is_zero() {
                return 0;
            }
            return coefficient.magnitude().to_string().len() as i64 - 1 - i64::from(*scale);
        }
        let value = self.ln_f64().abs();
        if value == 0.0 { 0 } else { value.log10() as i64 }
    }

    /// The natural logarithm as a double, also of numbers beyond a double's range.
    fn ln_f64(&self) -> f64 {
        let Numeric::Finite { coefficient, scale } = self else { return f64::NAN };
        let digits = coefficient.magnitude().to_string();
        let head = digits.get(..digits.len().min(17)).unwrap_or("1");
        let exponent = digits.len() as f64 - head.len() as f64 - f64::from(*scale);
        head.parse::<f64>().unwrap_or(1.0).ln() + exponent * std::f64::consts::LN_10
    }

    pub(crate) fn ln_to_scale(&self, scale: u32) -> Numeric {
        let Numeric::Finite { coefficient, scale: own } = self else { return Numeric::NaN };
        // Take roots until the number is near one, then ln x = 2 artanh((x - 1) / (x + 1)).
        let spread = self.ln_f64().abs();
        let halvings = if spread > 0.05 { ((spread / 0.05).log2().ceil() as u32).max(1) } else { 0 };
        let digits = scale + GUARD_DIGITS + halvings / 3 + 20 + (spread.log10().max(0.0) as u32);
        // A number far below one needs its leading zeros on top of the digits.
        let own_digits = digits + own.saturating_sub(coefficient.magnitude().to_string().len() as u32);
        let mut x = Numeric::rescaled(coefficient, *own, own_digits);
        let mut x_digits = own_digits;
        for _ in 0..halvings {
            x = (x * power_of_ten(x_digits)).sqrt();
        }
        if x_digits > digits {
            x = Numeric::rescaled(&x, x_digits, digits);
            x_digits = digits;
        }
        let unit = power_of_ten(x_digits);
        let z = (&x - &unit) * &unit / (&x + &unit);
        let square = &z * &z / &unit;
        let mut power = z.clone();
        let mut sum = z;
        let mut n = 3u32;
        loop {
            power = &power * &square / &unit;
            let term = &power / n;
            if term.is_zero() {
                break;
            }
            sum += term;
            n += 2;
        }
        sum <<= halvings + 1;
        Numeric::new(sum, x_digits).round(i64::from(scale))
    }

    /// The logarithm of `self` to `base`.
    ///
    /// # Errors
    /// 2201E for zero and below; 22012 for base one.
    pub fn log(&self, base: &Numeric) -> Result<Numeric, ValueError> {
        if let Some(special) = base.logarithm_domain()? {
            if special.is_nan() || self.is_nan() {
                return Ok(Numeric::NaN);
            }
            self.logarithm_domain()?;
            return Ok(if self.is_finite() { Numeric::zero() } else { Numeric::NaN });
        }
        if let Some(special) = self.logarithm_domain()? {
            return Ok(special);
        }
        let weight_base = base.ln_weight();
        let weight_self = self.ln_weight();
        let scale = clamp_scale(
            (SIGNIFICANT_DIGITS_MIN - (weight_self - weight_base))
                .max(i64::from(base.scale()))
                .max(i64::from(self.scale())),
        );
        let guard = |weight: i64| (i64::from(scale) + 16 - weight).max(16) as u32;
        let divisor = base.ln_to_scale(guard(weight_base));
        if divisor.is_zero() {
            return Err(ValueError::division_by_zero());
        }
        let dividend = self.ln_to_scale(guard(weight_self));
        Ok(dividend.div_to_scale(&divisor, scale))
    }

    /// `self` to the power of `exponent`.
    ///
    /// # Errors
    /// 2201F for a negative number with a fractional exponent, or zero with a negative one; 22003.
    pub fn power(&self, exponent: &Numeric) -> Result<Numeric, ValueError> {
        let one = Numeric::from(1i64);
        if self.is_nan() || exponent.is_nan() {
            let is_one = (!self.is_nan() && *self == one) || (self.is_nan() && exponent.is_zero());
            return Ok(if is_one { one } else { Numeric::NaN });
        }
        if !self.is_finite() || !exponent.is_finite() {
            return self.power_of_infinity(exponent);
        }
        if self.is_zero() && exponent.is_negative() {
            return Err(ValueError::new("2201F", "zero raised to a negative power is undefined"));
        }
        let whole_exponent = exponent.trunc(0) == *exponent;
        if self.is_negative() && !whole_exponent {
            return Err(ValueError::new(
                "2201F",
                "a negative number raised to a non-integer power yields a complex result",
            ));
        }
        if whole_exponent && let Some(n) = exponent.to_i64().and_then(|n| i32::try_from(n).ok()) {
            return self.power_integer(n);
        }
        if self.is_zero() {
            return Ok(Numeric::new(BigInt::zero(), 16));
        }
        let magnitude = self.abs();
        let approximate = exponent.to_f64() * magnitude.ln_f64() * std::f64::consts::LOG10_E;
        if approximate > WEIGHT_MAX as f64 {
            return Err(overflow());
        }
        let weight = approximate.max(-2000.0) as i64;
        let scale = clamp_scale(
            (SIGNIFICANT_DIGITS_MIN - weight).max(i64::from(self.scale())).max(i64::from(exponent.scale())),
        );
        let digits = scale
            + approximate.max(0.0) as u32
            + GUARD_DIGITS
            + exponent.to_f64().abs().max(1.0).log10() as u32
            + 8;
        let logarithm = magnitude.ln_to_scale(digits);
        let product = logarithm.mul(exponent).round(i64::from(digits));
        let result = product.exp_to_scale(scale);
        let is_odd = exponent.rem(&Numeric::from(2i64)).is_ok_and(|rest| !rest.is_zero());
        Ok(if self.is_negative() && is_odd { result.neg() } else { result })
    }

    fn power_integer(&self, n: i32) -> Result<Numeric, ValueError> {
        let Numeric::Finite { coefficient, scale } = self else { return Ok(Numeric::NaN) };
        let input_scale = i64::from(*scale);
        if n == 0 || *self == Numeric::from(1i64) {
            return Ok(Numeric::new(power_of_ten(16), 16).round(input_scale.max(16)));
        }
        if coefficient.is_zero() {
            return Ok(Numeric::new(BigInt::zero(), 0).round(input_scale.max(16)));
        }
        let weight = (f64::from(n) * self.abs().ln_f64() * std::f64::consts::LOG10_E).trunc();
        if weight >= WEIGHT_MAX as f64 {
            return Err(overflow());
        }
        let result_scale = clamp_scale(input_scale.max(SIGNIFICANT_DIGITS_MIN));
        if weight + 1.0 < -f64::from(result_scale) {
            return Ok(Numeric::new(BigInt::zero(), result_scale));
        }
        // As many bits as the result has, and some that take up the error of each multiplication.
        let digits = weight.max(0.0) + f64::from(result_scale) + 32.0;
        let bits = (digits * std::f64::consts::LOG2_10) as u64 + 128;
        let magnitude = u64::from(n.unsigned_abs());
        // Without zeros at the end a number whose power lies half way between two results is short enough to be exact.
        let (mut base, mut base_scale) = (coefficient.magnitude().clone(), *scale);
        while base_scale > 0 && (&base % 10u8).is_zero() {
            base /= 10u8;
            base_scale -= 1;
        }
        let raised = power_truncated(&base, magnitude, bits);
        let unit = power_truncated(&BigUint::from(10u8), magnitude * u64::from(base_scale), bits);
        let (above, below) = if n > 0 { (raised, unit) } else { (unit, raised) };
        let (mut numerator, mut denominator) = (BigInt::from(above.0), BigInt::from(below.0));
        numerator *= power_of_ten(result_scale);
        match above.1.checked_sub(below.1) {
            Some(shift) => numerator <<= shift,
            None => denominator <<= below.1 - above.1,
        }
        let result = Numeric::new(divide_rounded(&numerator, &denominator), result_scale);
        Ok(if self.is_negative() && n % 2 != 0 { result.neg() } else { result })
    }

    fn power_of_infinity(&self, exponent: &Numeric) -> Result<Numeric, ValueError> {
        let one = Numeric::from(1i64);
        if *self == one || exponent.is_zero() {
            return Ok(one);
        }
        if self.is_zero() && exponent.is_negative() {
            return Err(ValueError::new("2201F", "zero raised to a negative power is undefined"));
        }
        if exponent.is_finite() {
            let whole = exponent.trunc(0) == *exponent;
            if self.is_negative() && !whole {
                return Err(ValueError::new(
                    "2201F",
                    "a negative number raised to a non-integer power yields a complex result",
                ));
            }
            if exponent.is_negative() {
                return Ok(Numeric::zero());
            }
            let odd = exponent.rem(&Numeric::from(2i64))?.is_zero();
            return Ok(if self.is_negative() && !odd {
                Numeric::NegativeInfinity
            } else {
                Numeric::Infinity
            });
        }
        let magnitude = self.abs();
        if magnitude == one {
            return Ok(one);
        }
        let grows = (magnitude > one) != exponent.is_negative();
        Ok(if grows { Numeric::Infinity } else { Numeric::zero() })
    }

    /// `self!`
    ///
    /// # Errors
    /// 22003 for negative or huge arguments.
    pub fn factorial(n: i64) -> Result<Numeric, ValueError> {
        if n < 0 {
            return Err(ValueError::new("22003", "factorial of a negative number is undefined"));
        }
        if n > 32_177 {
            return Err(overflow());
        }
        let mut product = BigInt::one();
        for factor in 2..=n {
            product *= factor;
        }
        Ok(Numeric::new(product, 0))
    }

    /// Greatest common divisor; its scale is the larger of both.
    pub fn gcd(&self, other: &Numeric) -> Numeric {
        let (Numeric::Finite { coefficient: a, scale: s }, Numeric::Finite { coefficient: b, scale: t }) =
            (self, other)
        else {
            return Numeric::NaN;
        };
        let scale = *s.max(t);
        let mut left = Numeric::rescaled(a, *s, scale).abs();
        let mut right = Numeric::rescaled(b, *t, scale).abs();
        while !right.is_zero() {
            let rest = &left % &right;
            left = std::mem::replace(&mut right, rest);
        }
        Numeric::new(left, scale)
    }

    /// Least common multiple; its scale is the larger of both.
    pub fn lcm(&self, other: &Numeric) -> Numeric {
        if self.is_zero() || other.is_zero() {
            return Numeric::new(BigInt::zero(), self.scale().max(other.scale()));
        }
        let divisor = self.gcd(other);
        match self.div_trunc(&divisor) {
            Ok(quotient) => quotient.mul(other).abs().round(i64::from(divisor.scale())),
            Err(_) => Numeric::NaN,
        }
    }

    /// A small integer's value, cut toward zero, for callers that index with it.
    pub fn to_i32_saturating(&self) -> i32 {
        match self.trunc(0) {
            Numeric::Finite { coefficient, .. } => {
                coefficient.to_i32().unwrap_or(if coefficient.is_negative() { i32::MIN } else { i32::MAX })
            }
            Numeric::NegativeInfinity => i32::MIN,
            _ => i32::MAX,
        }
    }
}

fn negative_root() -> ValueError {
    ValueError::new("2201F", "cannot take square root of a negative number")
}
