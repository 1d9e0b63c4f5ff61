//! Exact decimal numbers with PostgreSQL's rules for scale, rounding, NaN and infinities.
//!
//! A finite number is `coefficient / 10^scale`. The scale is what prints: `1.50` and `1.5` are equal
//! but keep their own scales. The result scale of division, square root and the transcendental
//! functions follows `numeric.c` (at least 16 significant digits, never less than the inputs' scales).
//!
//! Invariants: `scale <= 16383`; at most 131072 digits before the point, checked where numbers grow;
//! rounding is half away from zero. Order: `-Infinity < finite < Infinity < NaN`, and NaN equals NaN.

mod functions;
mod text;

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use num_bigint::{BigInt, Sign};
use num_traits::{One, Signed, ToPrimitive, Zero};

use crate::datatype::NumericModifier;
use crate::value_error::ValueError;

/// Most digits behind the point that a number can display.
pub const SCALE_MAX: u32 = 16_383;
/// Most digits before the point.
pub const WEIGHT_MAX: u64 = 131_072;
/// Fewest significant digits of a quotient or root.
const SIGNIFICANT_DIGITS_MIN: i64 = 16;
/// Most digits behind the point that division and roots choose by themselves.
const RESULT_SCALE_MAX: i64 = 1000;

/// A `numeric` value.
#[derive(Clone, Debug)]
pub enum Numeric {
    /// A number: `coefficient / 10^scale`.
    Finite {
        /// The digits with their sign.
        coefficient: BigInt,
        /// Digits behind the point.
        scale: u32,
    },
    /// `Infinity`
    Infinity,
    /// `-Infinity`
    NegativeInfinity,
    /// `NaN`
    NaN,
}

/// Ten to the power of `exponent`.
pub(crate) fn power_of_ten(exponent: u32) -> BigInt {
    match 10u64.checked_pow(exponent) {
        Some(small) => BigInt::from(small),
        None => BigInt::from(10u8).pow(exponent),
    }
}

/// `numerator / denominator`, rounded half away from zero. The denominator is positive.
fn divide_rounded(numerator: &BigInt, denominator: &BigInt) -> BigInt {
    let half: BigInt = denominator >> 1u8;
    let exact_half_rounds_up = denominator.is_one();
    let magnitude = numerator.abs();
    let rounded = if exact_half_rounds_up {
        magnitude
    } else if (denominator & BigInt::one()).is_zero() {
        (magnitude + half) / denominator
    } else {
        (magnitude * 2u8 + denominator) / (denominator * 2u8)
    };
    if numerator.is_negative() { -rounded } else { rounded }
}

impl Numeric {
    /// Zero.
    pub fn zero() -> Numeric {
        Numeric::Finite { coefficient: BigInt::zero(), scale: 0 }
    }

    /// `coefficient / 10^scale`.
    pub fn new(coefficient: BigInt, scale: u32) -> Numeric {
        Numeric::Finite { coefficient, scale }
    }

    /// `NaN`
    pub fn is_nan(&self) -> bool {
        matches!(self, Numeric::NaN)
    }

    /// Neither NaN nor an infinity.
    pub fn is_finite(&self) -> bool {
        matches!(self, Numeric::Finite { .. })
    }

    /// Equal to zero.
    pub fn is_zero(&self) -> bool {
        matches!(self, Numeric::Finite { coefficient, .. } if coefficient.is_zero())
    }

    /// Below zero (also `-Infinity`).
    pub fn is_negative(&self) -> bool {
        match self {
            Numeric::Finite { coefficient, .. } => coefficient.is_negative(),
            Numeric::NegativeInfinity => true,
            _ => false,
        }
    }

    /// -1, 0, 1; `None` for NaN.
    pub fn signum(&self) -> Option<i32> {
        match self {
            Numeric::Finite { coefficient, .. } => Some(match coefficient.sign() {
                Sign::Minus => -1,
                Sign::NoSign => 0,
                Sign::Plus => 1,
            }),
            Numeric::Infinity => Some(1),
            Numeric::NegativeInfinity => Some(-1),
            Numeric::NaN => None,
        }
    }

    /// Digits behind the point that print; 0 when not finite.
    pub fn scale(&self) -> u32 {
        match self {
            Numeric::Finite { scale, .. } => *scale,
            _ => 0,
        }
    }

    /// The coefficient brought to another scale, rounded half away from zero.
    pub(crate) fn rescaled(coefficient: &BigInt, from: u32, to: u32) -> BigInt {
        match to.cmp(&from) {
            Ordering::Equal => coefficient.clone(),
            Ordering::Greater => coefficient * power_of_ten(to - from),
            Ordering::Less => divide_rounded(coefficient, &power_of_ten(from - to)),
        }
    }

    /// Rounds to `digits` behind the point (before it, if negative), half away from zero.
    pub fn round(&self, digits: i64) -> Numeric {
        let Numeric::Finite { coefficient, scale } = self else { return self.clone() };
        let digits = digits.clamp(-(WEIGHT_MAX as i64), i64::from(SCALE_MAX));
        if digits >= 0 {
            let target = digits as u32;
            return Numeric::new(Numeric::rescaled(coefficient, *scale, target), target);
        }
        let unit = power_of_ten((-digits) as u32);
        let divisor = &unit * power_of_ten(*scale);
        Numeric::new(divide_rounded(coefficient, &divisor) * unit, 0)
    }

    /// Cuts off behind `digits` digits after the point, toward zero.
    pub fn trunc(&self, digits: i64) -> Numeric {
        let Numeric::Finite { coefficient, scale } = self else { return self.clone() };
        let digits = digits.clamp(-(WEIGHT_MAX as i64), i64::from(SCALE_MAX));
        if digits >= 0 {
            let target = digits as u32;
            if target >= *scale {
                return Numeric::new(Numeric::rescaled(coefficient, *scale, target), target);
            }
            return Numeric::new(coefficient / power_of_ten(*scale - target), target);
        }
        let unit = power_of_ten((-digits) as u32);
        Numeric::new(coefficient / (&unit * power_of_ten(*scale)) * unit, 0)
    }

    /// The largest integer not above.
    pub fn floor(&self) -> Numeric {
        let whole = self.trunc(0);
        if self.is_negative() && whole != *self { whole.sub(&Numeric::from(1i64)) } else { whole }
    }

    /// The smallest integer not below.
    pub fn ceil(&self) -> Numeric {
        self.neg().floor().neg()
    }

    /// The negation.
    pub fn neg(&self) -> Numeric {
        match self {
            Numeric::Finite { coefficient, scale } => Numeric::new(-coefficient, *scale),
            Numeric::Infinity => Numeric::NegativeInfinity,
            Numeric::NegativeInfinity => Numeric::Infinity,
            Numeric::NaN => Numeric::NaN,
        }
    }

    /// The absolute value.
    pub fn abs(&self) -> Numeric {
        if self.is_negative() { self.neg() } else { self.clone() }
    }

    /// The sum; its scale is the larger of both.
    pub fn add(&self, other: &Numeric) -> Numeric {
        match (self, other) {
            (Numeric::Finite { coefficient: a, scale: s }, Numeric::Finite { coefficient: b, scale: t }) => {
                if s == t {
                    return Numeric::new(a + b, *s);
                }
                let scale = *s.max(t);
                Numeric::new(Numeric::rescaled(a, *s, scale) + Numeric::rescaled(b, *t, scale), scale)
            }
            (Numeric::NaN, _) | (_, Numeric::NaN) => Numeric::NaN,
            (Numeric::Infinity, Numeric::NegativeInfinity)
            | (Numeric::NegativeInfinity, Numeric::Infinity) => Numeric::NaN,
            (Numeric::Finite { .. }, infinite) | (infinite, _) => infinite.clone(),
        }
    }

    /// The difference; its scale is the larger of both.
    pub fn sub(&self, other: &Numeric) -> Numeric {
        self.add(&other.neg())
    }

    /// The product; its scale is the sum of both.
    pub fn mul(&self, other: &Numeric) -> Numeric {
        match (self, other) {
            (Numeric::Finite { coefficient: a, scale: s }, Numeric::Finite { coefficient: b, scale: t }) => {
                let product = Numeric::new(a * b, s + t);
                if s + t > SCALE_MAX { product.round(i64::from(SCALE_MAX)) } else { product }
            }
            _ => match (self.signum(), other.signum()) {
                (Some(a), Some(b)) if a * b > 0 => Numeric::Infinity,
                (Some(a), Some(b)) if a * b < 0 => Numeric::NegativeInfinity,
                _ => Numeric::NaN,
            },
        }
    }

    /// The quotient with the scale that PostgreSQL chooses.
    ///
    /// # Errors
    /// 22012 when the divisor is zero.
    pub fn div(&self, other: &Numeric) -> Result<Numeric, ValueError> {
        if let Some(special) = self.divide_special(other)? {
            return Ok(special);
        }
        Ok(self.div_to_scale(other, self.quotient_scale(other)))
    }

    /// The quotient rounded to `scale` digits; both are finite and the divisor is not zero.
    pub(crate) fn div_to_scale(&self, other: &Numeric, scale: u32) -> Numeric {
        let (Numeric::Finite { coefficient: a, scale: s }, Numeric::Finite { coefficient: b, scale: t }) =
            (self, other)
        else {
            return Numeric::NaN;
        };
        // a / 10^s / (b / 10^t) = a * 10^(t + scale - s) / b, at the wanted scale.
        let exponent = i64::from(*t) + i64::from(scale) - i64::from(*s);
        let shift = power_of_ten(exponent.unsigned_abs() as u32);
        let (mut numerator, mut denominator) =
            if exponent >= 0 { (a * shift, b.clone()) } else { (a.clone(), b * shift) };
        if denominator.is_negative() {
            numerator = -numerator;
            denominator = -denominator;
        }
        Numeric::new(divide_rounded(&numerator, &denominator), scale)
    }

    /// The quotient cut to an integer (`div`).
    ///
    /// # Errors
    /// 22012 when the divisor is zero.
    pub fn div_trunc(&self, other: &Numeric) -> Result<Numeric, ValueError> {
        if let Some(special) = self.divide_special(other)? {
            return Ok(special);
        }
        let (Numeric::Finite { coefficient: a, scale: s }, Numeric::Finite { coefficient: b, scale: t }) =
            (self, other)
        else {
            return Ok(Numeric::NaN);
        };
        let scale = *s.max(t);
        let quotient = Numeric::rescaled(a, *s, scale) / Numeric::rescaled(b, *t, scale);
        Ok(Numeric::new(quotient, 0))
    }

    /// The remainder with the sign of the dividend.
    ///
    /// # Errors
    /// 22012 when the divisor is zero.
    pub fn rem(&self, other: &Numeric) -> Result<Numeric, ValueError> {
        match (self, other) {
            (Numeric::NaN, _) | (_, Numeric::NaN) => Ok(Numeric::NaN),
            (_, divisor) if divisor.is_zero() => Err(ValueError::division_by_zero()),
            (Numeric::Infinity | Numeric::NegativeInfinity, _) => Ok(Numeric::NaN),
            (_, Numeric::Infinity | Numeric::NegativeInfinity) => Ok(self.clone()),
            (Numeric::Finite { coefficient: a, scale: s }, Numeric::Finite { coefficient: b, scale: t }) => {
                let scale = *s.max(t);
                let remainder = Numeric::rescaled(a, *s, scale) % Numeric::rescaled(b, *t, scale);
                Ok(Numeric::new(remainder, scale))
            }
        }
    }

    fn divide_special(&self, other: &Numeric) -> Result<Option<Numeric>, ValueError> {
        if self.is_nan() || other.is_nan() {
            return Ok(Some(Numeric::NaN));
        }
        if other.is_zero() {
            return Err(ValueError::division_by_zero());
        }
        Ok(match (self.is_finite(), other.is_finite()) {
            (true, true) => None,
            (true, false) => Some(Numeric::zero()),
            (false, false) => Some(Numeric::NaN),
            (false, true) => Some(if self.is_negative() == other.is_negative() {
                Numeric::Infinity
            } else {
                Numeric::NegativeInfinity
            }),
        })
    }

    /// Weight (in base 10000) and first base-10000 digit, as `numeric.c` sees a number.
    fn weight_and_first_digit(&self) -> (i64, i64) {
        let Numeric::Finite { coefficient, scale } = self else { return (0, 0) };
        if coefficient.is_zero() {
            return (0, 0);
        }
        let digits = coefficient.magnitude().to_string();
        let before_point = digits.len() as i64 - i64::from(*scale);
        let weight = (before_point - 1).div_euclid(4);
        let first_len = (before_point - weight * 4) as usize;
        let mut first = digits.get(..first_len.min(digits.len())).unwrap_or("0").to_owned();
        while first.len() < first_len {
            first.push('0');
        }
        (weight, first.parse().unwrap_or(0))
    }

    /// The scale that PostgreSQL chooses for a quotient (`select_div_scale`).
    fn quotient_scale(&self, other: &Numeric) -> u32 {
        let (weight1, first1) = self.weight_and_first_digit();
        let (weight2, first2) = other.weight_and_first_digit();
        let mut quotient_weight = weight1 - weight2;
        if first1 <= first2 {
            quotient_weight -= 1;
        }
        let scale = (SIGNIFICANT_DIGITS_MIN - quotient_weight * 4)
            .max(i64::from(self.scale()))
            .max(i64::from(other.scale()))
            .clamp(0, RESULT_SCALE_MAX);
        scale as u32
    }

    /// Fits the number to `numeric(precision, scale)`.
    ///
    /// # Errors
    /// 22003 when digits before the point are too many, or an infinity is given.
    pub fn fit(&self, modifier: NumericModifier) -> Result<Numeric, ValueError> {
        let overflow = |text: String| {
            let whole = i32::from(modifier.precision) - i32::from(modifier.scale);
            ValueError::new("22003", "numeric field overflow").with_detail(format!(
                "A field with precision {}, scale {} {text}{}.",
                modifier.precision,
                modifier.scale,
                if text.starts_with("cannot") {
                    String::new()
                } else if whole == 0 {
                    "1".to_owned()
                } else {
                    format!("10^{whole}")
                }
            ))
        };
        match self {
            Numeric::NaN => Ok(Numeric::NaN),
            Numeric::Infinity | Numeric::NegativeInfinity => {
                Err(overflow("cannot hold an infinite value".to_owned()))
            }
            Numeric::Finite { .. } => {
                let rounded = self.round(i64::from(modifier.scale));
                let Numeric::Finite { coefficient, scale } = &rounded else { return Ok(rounded) };
                let whole = i32::from(modifier.precision) - i32::from(modifier.scale);
                let limit_exponent = whole + *scale as i32;
                let fits = if limit_exponent < 0 {
                    coefficient.is_zero()
                } else {
                    coefficient.abs() < power_of_ten(limit_exponent as u32)
                };
                if fits {
                    Ok(rounded)
                } else {
                    Err(overflow("must round to an absolute value less than ".to_owned()))
                }
            }
        }
    }

    /// Refuses numbers with more digits than PostgreSQL's format holds.
    ///
    /// # Errors
    /// 22003.
    pub fn check_size(self) -> Result<Numeric, ValueError> {
        if let Numeric::Finite { coefficient, scale } = &self {
            // bits / 3.33 overestimates decimal digits by less than one.
            let digits = coefficient.bits() * 30103 / 100_000;
            if digits > WEIGHT_MAX + u64::from(*scale) {
                return Err(ValueError::new("22003", "value overflows numeric format"));
            }
        }
        Ok(self)
    }

    /// The number without trailing zeros behind the point.
    pub fn trim_scale(&self) -> Numeric {
        let Numeric::Finite { coefficient, scale } = self else { return self.clone() };
        let mut coefficient = coefficient.clone();
        let mut scale = *scale;
        let ten = BigInt::from(10u8);
        while scale > 0 && (&coefficient % &ten).is_zero() {
            coefficient /= &ten;
            scale -= 1;
        }
        Numeric::new(coefficient, scale)
    }

    /// The nearest integer, half away from zero; `None` when not finite or too large.
    pub fn to_i64(&self) -> Option<i64> {
        match self.round(0) {
            Numeric::Finite { coefficient, .. } => coefficient.to_i64(),
            _ => None,
        }
    }

    /// The nearest double.
    pub fn to_f64(&self) -> f64 {
        match self {
            Numeric::Infinity => f64::INFINITY,
            Numeric::NegativeInfinity => f64::NEG_INFINITY,
            Numeric::NaN => f64::NAN,
            Numeric::Finite { coefficient, scale: 0 } => coefficient.to_f64().unwrap_or(f64::NAN),
            Numeric::Finite { .. } => self.to_string().parse().unwrap_or(f64::NAN),
        }
    }

    /// A double by its 15 significant digits, as PostgreSQL casts it.
    pub fn from_f64(number: f64) -> Numeric {
        Numeric::from_float(number, 15)
    }

    /// A real by its 6 significant digits, as PostgreSQL casts it.
    pub fn from_f32(number: f32) -> Numeric {
        Numeric::from_float(f64::from(number), 6)
    }

    fn from_float(number: f64, digits: usize) -> Numeric {
        if number.is_nan() {
            return Numeric::NaN;
        }
        if number.is_infinite() {
            return if number > 0.0 { Numeric::Infinity } else { Numeric::NegativeInfinity };
        }
        let text = format!("{:.*e}", digits - 1, number);
        // `%g` drops trailing zeros of the mantissa.
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let mantissa = if mantissa.contains('.') {
            mantissa.trim_end_matches('0').trim_end_matches('.')
        } else {
            mantissa
        };
        format!("{mantissa}e{exponent}").parse().unwrap_or(Numeric::NaN)
    }
}

impl From<i64> for Numeric {
    fn from(number: i64) -> Numeric {
        Numeric::new(BigInt::from(number), 0)
    }
}

impl From<i128> for Numeric {
    fn from(number: i128) -> Numeric {
        Numeric::new(BigInt::from(number), 0)
    }
}

impl PartialEq for Numeric {
    fn eq(&self, other: &Numeric) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Numeric {}
impl PartialOrd for Numeric {
    fn partial_cmp(&self, other: &Numeric) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Numeric {
    fn cmp(&self, other: &Numeric) -> Ordering {
        let rank = |n: &Numeric| match n {
            Numeric::NegativeInfinity => 0,
            Numeric::Finite { .. } => 1,
            Numeric::Infinity => 2,
            Numeric::NaN => 3,
        };
        match (self, other) {
            (Numeric::Finite { coefficient: a, scale: s }, Numeric::Finite { coefficient: b, scale: t }) => {
                if s == t {
                    return a.cmp(b);
                }
                if a.sign() != b.sign() {
                    return a.sign().cmp(&b.sign());
                }
                let scale = *s.max(t);
                Numeric::rescaled(a, *s, scale).cmp(&Numeric::rescaled(b, *t, scale))
            }
            _ => rank(self).cmp(&rank(other)),
        }
    }
}
impl Hash for Numeric {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.trim_scale() {
            Numeric::Finite { coefficient, scale } => {
                // Trailing zeros before the point stay: they are part of an integer's value.
                coefficient.hash(state);
                scale.hash(state);
            }
            Numeric::Infinity => state.write_u8(1),
            Numeric::NegativeInfinity => state.write_u8(2),
            Numeric::NaN => state.write_u8(3),
        }
    }
}
