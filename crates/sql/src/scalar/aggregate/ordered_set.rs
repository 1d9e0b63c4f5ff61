//! Ordered-set aggregates: `percentile_cont(0.5) WITHIN GROUP (ORDER BY x)` and its kin, and the hypothetical ones,
//! which tell where a row would stand among those of its group. They are computed from all values of the group, which
//! the executor keeps and sorts.

use std::cmp::Ordering;

use rustydb_types::datatype::BaseType;
use rustydb_types::text::{self, TextContext};
use rustydb_types::value::{ArrayValue, Value};

use super::super::catalogue::{Function, FunctionKind};
use super::super::{EvalContext, arithmetic};
use crate::error::{SqlError, SqlState};

/// What is computed of the ordered values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderedSet {
    /// `percentile_cont`
    Continuous,
    /// `percentile_disc`
    Discrete,
    /// `mode`
    Mode,
    /// `rank`
    Rank,
    /// `dense_rank`
    DenseRank,
    /// `percent_rank`
    PercentRank,
    /// `cume_dist`
    CumulativeDistribution,
}

impl OrderedSet {
    /// The ordered-set aggregate that a function is, if it is one.
    #[must_use]
    pub fn of(function: &Function) -> Option<OrderedSet> {
        if function.kind != FunctionKind::Aggregate {
            return None;
        }
        Some(match function.name {
            "percentile_cont" => OrderedSet::Continuous,
            "percentile_disc" => OrderedSet::Discrete,
            "mode" => OrderedSet::Mode,
            "rank" => OrderedSet::Rank,
            "dense_rank" => OrderedSet::DenseRank,
            "percent_rank" => OrderedSet::PercentRank,
            "cume_dist" => OrderedSet::CumulativeDistribution,
            _ => return None,
        })
    }

    /// Whether its direct arguments are a row to be placed among the others.
    #[must_use]
    pub fn is_hypothetical(self) -> bool {
        !matches!(self, OrderedSet::Continuous | OrderedSet::Discrete | OrderedSet::Mode)
    }

    /// Computes it from the rows of a group, which are sorted as `compare` says.
    ///
    /// # Errors
    /// 22003 for a percentile that is not between 0 and 1.
    pub fn compute(
        self,
        direct: &[Value],
        rows: &[Vec<Value>],
        compare: &dyn Fn(&[Value], &[Value]) -> Ordering,
    ) -> Result<Value, SqlError> {
        if self.is_hypothetical() {
            return Ok(self.place(direct, rows, compare));
        }
        if self == OrderedSet::Mode {
            return Ok(mode(rows));
        }
        match direct.first() {
            Some(Value::Array(wanted)) => {
                let mut elements = Vec::with_capacity(wanted.elements.len());
                for fraction in &wanted.elements {
                    elements.push(self.percentile(fraction, rows)?);
                }
                if rows.is_empty() {
                    return Ok(Value::Null);
                }
                let first = rows.first().and_then(|row| row.first());
                let element = match (self, first) {
                    (OrderedSet::Discrete, Some(value)) => rustydb_types::binary::natural_type(value),
                    (_, Some(Value::Interval(_))) => BaseType::Interval,
                    _ => BaseType::Float8,
                };
                Ok(Value::Array(Box::new(ArrayValue {
                    element,
                    dimensions: wanted.dimensions.clone(),
                    elements,
                })))
            }
            Some(fraction) => self.percentile(fraction, rows),
            None => Ok(Value::Null),
        }
    }

    fn percentile(self, fraction: &Value, rows: &[Vec<Value>]) -> Result<Value, SqlError> {
        let Value::Float8(fraction) = fraction else { return Ok(Value::Null) };
        if !(0.0..=1.0).contains(fraction) {
            let shown = text::text_out(&Value::Float8(*fraction), BaseType::Float8.into(), &TextContext::UTC);
            return Err(SqlError::new(
                SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
                format!("percentile value {shown} is not between 0 and 1"),
            ));
        }
        let value = |at: usize| rows.get(at).and_then(|row| row.first()).cloned().unwrap_or(Value::Null);
        if rows.is_empty() {
            return Ok(Value::Null);
        }
        if self == OrderedSet::Discrete {
            let place = (fraction * rows.len() as f64).ceil() as usize;
            return Ok(value(place.saturating_sub(1)));
        }
        let place = fraction * (rows.len() - 1) as f64;
        let (low, high) = (value(place.floor() as usize), value(place.ceil() as usize));
        if place.floor() >= place.ceil() {
            return Ok(low);
        }
        between(&low, &high, place - place.floor())
    }

    /// Where the row of the direct arguments would stand.
    fn place(
        self,
        direct: &[Value],
        rows: &[Vec<Value>],
        compare: &dyn Fn(&[Value], &[Value]) -> Ordering,
    ) -> Value {
        let before = rows.partition_point(|row| compare(row, direct).is_lt());
        match self {
            OrderedSet::PercentRank if rows.is_empty() => Value::Float8(0.0),
            OrderedSet::PercentRank => Value::Float8(before as f64 / rows.len() as f64),
            OrderedSet::CumulativeDistribution => {
                let upto = rows.partition_point(|row| compare(row, direct).is_le());
                Value::Float8((upto + 1) as f64 / (rows.len() + 1) as f64)
            }
            OrderedSet::DenseRank => {
                let lower = rows.get(..before).unwrap_or_default();
                let steps = lower.windows(2).filter(|pair| compare(&pair[0], &pair[1]).is_ne()).count();
                Value::Int8((steps + usize::from(!lower.is_empty()) + 1) as i64)
            }
            _ => Value::Int8(before as i64 + 1),
        }
    }
}

/// A value between two others.
fn between(low: &Value, high: &Value, share: f64) -> Result<Value, SqlError> {
    if let (Value::Float8(low), Value::Float8(high)) = (low, high) {
        return Ok(Value::Float8(low + share * (high - low)));
    }
    let ctx = EvalContext::constant(&[]);
    let span = arithmetic::subtract(high, low, &ctx)?;
    let part = arithmetic::multiply(&span, &Value::Float8(share), &ctx)?;
    arithmetic::add(&part, low, &ctx)
}

/// The value that is there most often, the first of several.
fn mode(rows: &[Vec<Value>]) -> Value {
    let mut best: Option<(&Value, usize)> = None;
    let mut values = rows.iter().filter_map(|row| row.first()).peekable();
    while let Some(value) = values.next() {
        let mut count = 1;
        while values.next_if(|next| value.sql_eq(next)).is_some() {
            count += 1;
        }
        if best.is_none_or(|(_, most)| count > most) {
            best = Some((value, count));
        }
    }
    best.map_or(Value::Null, |(value, _)| value.clone())
}
