//! The aggregates over pairs of numbers: correlation, covariance and linear regression.
//!
//! Sums are taken as PostgreSQL's `float8_regr_accum` takes them (Youngs and Cramer), so that the last digits agree.

use rustydb_types::value::Value;
use rustydb_types::value_error::ValueError;

use crate::error::SqlError;

/// What is asked of the pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Statistic {
    Count,
    AverageX,
    AverageY,
    SquaresX,
    SquaresY,
    Products,
    Slope,
    Intercept,
    Determination,
    Correlation,
    CovariancePopulation,
    CovarianceSample,
}

impl Statistic {
    /// The statistic of an aggregate's name.
    pub(super) fn from_name(name: &str) -> Option<Statistic> {
        Some(match name {
            "regr_count" => Statistic::Count,
            "regr_avgx" => Statistic::AverageX,
            "regr_avgy" => Statistic::AverageY,
            "regr_sxx" => Statistic::SquaresX,
            "regr_syy" => Statistic::SquaresY,
            "regr_sxy" => Statistic::Products,
            "regr_slope" => Statistic::Slope,
            "regr_intercept" => Statistic::Intercept,
            "regr_r2" => Statistic::Determination,
            "corr" => Statistic::Correlation,
            "covar_pop" => Statistic::CovariancePopulation,
            "covar_samp" => Statistic::CovarianceSample,
            _ => return None,
        })
    }
}

/// The sums over the pairs seen so far.
#[derive(Clone, Debug)]
pub(super) struct Regression {
    statistic: Statistic,
    count: f64,
    sum_x: f64,
    squares_x: f64,
    sum_y: f64,
    squares_y: f64,
    products: f64,
}

impl Regression {
    pub(super) fn new(statistic: Statistic) -> Self {
        Self { statistic, count: 0.0, sum_x: 0.0, squares_x: 0.0, sum_y: 0.0, squares_y: 0.0, products: 0.0 }
    }

    /// Takes in a pair.
    ///
    /// # Errors
    /// 22003 when a sum of finite numbers is none.
    pub(super) fn update(&mut self, y: f64, x: f64) -> Result<(), SqlError> {
        let before = (self.count, self.sum_x, self.sum_y);
        self.count += 1.0;
        self.sum_x += x;
        self.sum_y += y;
        if before.0 == 0.0 {
            if !x.is_finite() {
                (self.squares_x, self.products) = (f64::NAN, f64::NAN);
            }
            if !y.is_finite() {
                (self.squares_y, self.products) = (f64::NAN, f64::NAN);
            }
            return Ok(());
        }
        let (step_x, step_y) = (x * self.count - self.sum_x, y * self.count - self.sum_y);
        let scale = 1.0 / (self.count * before.0);
        self.squares_x += step_x * step_x * scale;
        self.squares_y += step_y * step_y * scale;
        self.products += step_x * step_y * scale;
        let is_finite_x = !before.1.is_infinite() && !x.is_infinite();
        let is_finite_y = !before.2.is_infinite() && !y.is_infinite();
        let too_large = (is_finite_x && (self.sum_x.is_infinite() || self.squares_x.is_infinite()))
            || (is_finite_y && (self.sum_y.is_infinite() || self.squares_y.is_infinite()))
            || (is_finite_x && is_finite_y && self.products.is_infinite());
        if too_large {
            return Err(ValueError::new("22003", "value out of range: overflow").into());
        }
        for sum in [&mut self.squares_x, &mut self.squares_y, &mut self.products] {
            if sum.is_infinite() {
                *sum = f64::NAN;
            }
        }
        Ok(())
    }

    /// The statistic; NULL where there are too few pairs, or all on one line parallel to an axis.
    pub(super) fn finish(&self) -> Value {
        let Self { count, sum_x, squares_x, sum_y, squares_y, products, .. } = *self;
        let needed = match self.statistic {
            Statistic::Count => return Value::Int8(count as i64),
            Statistic::CovarianceSample => 2.0,
            _ => 1.0,
        };
        if count < needed {
            return Value::Null;
        }
        let defined = match self.statistic {
            Statistic::Correlation => squares_x != 0.0 && squares_y != 0.0,
            Statistic::Slope | Statistic::Intercept | Statistic::Determination => squares_x != 0.0,
            _ => true,
        };
        if !defined {
            return Value::Null;
        }
        Value::Float8(match self.statistic {
            Statistic::Count => count,
            Statistic::AverageX => sum_x / count,
            Statistic::AverageY => sum_y / count,
            Statistic::SquaresX => squares_x,
            Statistic::SquaresY => squares_y,
            Statistic::Products => products,
            Statistic::Slope => products / squares_x,
            Statistic::Intercept => (sum_y - sum_x * products / squares_x) / count,
            Statistic::Determination if squares_y == 0.0 => 1.0,
            Statistic::Determination => (products * products) / (squares_x * squares_y),
            Statistic::Correlation => products / (squares_x * squares_y).sqrt(),
            Statistic::CovariancePopulation => products / count,
            Statistic::CovarianceSample => products / (count - 1.0),
        })
    }
}
