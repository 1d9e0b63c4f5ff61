//! Which share of a table's rows satisfies a condition, by what ANALYZE found out, else by the field's usual guesses.

use rustydb_types::keycodec::{self, KeyOrder};
use rustydb_types::value::Value;

use super::node::Scan;
use super::path;
use crate::catalog::TableStatistics;
use crate::catalog::statistics::ColumnStatistics;
use crate::scalar::{BoolTest, CompareOp, Expr};

/// The share of rows that satisfies a condition of which nothing is known.
const DEFAULT: f64 = 0.25;
/// The share of rows on one side of a value of which nothing is known.
const RANGE: f64 = 1.0 / 3.0;
/// The share of rows within two such values.
const WITHIN: f64 = 0.005;
/// The share of rows that hold NULL where nothing is known.
const NULLS: f64 = 0.005;

/// What is known of the table of a scan.
pub struct Known<'a> {
    scan: &'a Scan,
    statistics: Option<&'a TableStatistics>,
    rows: f64,
}

fn encoded(value: &Expr) -> Option<Vec<u8>> {
    let Expr::Const { value, .. } = value else { return None };
    let mut bytes = Vec::new();
    keycodec::encode(&mut bytes, value, KeyOrder::ASCENDING);
    Some(bytes)
}

fn is_null(value: &Expr) -> bool {
    matches!(value, Expr::Const { value: Value::Null, .. })
}

impl<'a> Known<'a> {
    /// What is known of the table of a scan, which has so many rows.
    #[must_use]
    pub fn of(scan: &'a Scan, statistics: Option<&'a TableStatistics>, rows: f64) -> Self {
        Self { scan, statistics, rows }
    }

    fn column(&self, place: usize) -> Option<&'a ColumnStatistics> {
        let column = self.scan.table.columns.get(place)?;
        self.statistics?.columns.get(&column.id.get())
    }

    /// The share of rows with a value in a column; with any one where the value is not known.
    #[must_use]
    pub fn equal(&self, column: usize, value: Option<&Expr>) -> f64 {
        if value.is_some_and(is_null) {
            return 0.0;
        }
        let is_key = self.scan.table.indexes.iter().any(|index| {
            index.is_unique()
                && index.predicate.is_none()
                && matches!(index.key.as_slice(), [only] if self.scan.table.key_place(only.column) == Some(column))
        });
        match self.column(column) {
            _ if is_key => 1.0 / self.rows.max(1.0),
            Some(known) => known.equal_to(value.and_then(encoded).as_deref(), self.rows),
            None => 1.0 / self.rows.sqrt().max(1.0),
        }
    }

    /// The share of rows with a value on one side of another.
    fn beside(&self, column: usize, op: CompareOp, value: &Expr) -> Option<f64> {
        let known = self.column(column)?;
        let bytes = encoded(value)?;
        let below = known.below(&bytes)?;
        let equal = known.equal_to(Some(&bytes), self.rows);
        let present = 1.0 - known.null_fraction;
        Some(match op {
            CompareOp::Lt => below,
            CompareOp::Le => below + equal,
            CompareOp::Gt => present - below - equal,
            CompareOp::Ge => present - below,
            CompareOp::Eq | CompareOp::Ne => return None,
        })
    }

    /// The share of rows that satisfies all of some conditions, which are taken to have nothing to do with each other
    /// but for two that bound one column.
    #[must_use]
    pub fn all(&self, parts: &[Expr]) -> f64 {
        let mut share = 1.0;
        // The bounded share of each column, and from how many sides.
        let mut ranges: Vec<(usize, f64, [bool; 2])> = Vec::new();
        for part in parts {
            let range = path::condition(part, 0, self.scan)
                .filter(|condition| !matches!(condition.op, CompareOp::Eq | CompareOp::Ne));
            let Some(range) = range else {
                share *= self.one(part);
                continue;
            };
            let is_low = matches!(range.op, CompareOp::Gt | CompareOp::Ge);
            let value = range.values.first();
            if value.is_some_and(is_null) {
                return 0.0;
            }
            let own = value.and_then(|value| self.beside(range.column, range.op, value));
            match ranges.iter_mut().find(|(column, _, sides)| {
                *column == range.column && sides.get(usize::from(is_low)) == Some(&false)
            }) {
                Some((_, both, sides)) => {
                    *both = match own {
                        Some(own) if *both >= 0.0 => {
                            (*both + own - 1.0 + self.nulls(range.column)).max(WITHIN / 10.0)
                        }
                        _ => WITHIN,
                    };
                    *sides = [true; 2];
                }
                None => ranges.push((range.column, own.unwrap_or(-1.0), [!is_low, is_low])),
            }
        }
        for (_, range, _) in ranges {
            share *= if range < 0.0 { RANGE } else { range };
        }
        share.clamp(0.0, 1.0)
    }

    fn nulls(&self, column: usize) -> f64 {
        self.column(column).map_or(0.0, |known| known.null_fraction)
    }

    fn one(&self, part: &Expr) -> f64 {
        if let Some(condition) = path::condition(part, 0, self.scan) {
            let shares = condition.values.iter().map(|value| match condition.op {
                CompareOp::Eq => self.equal(condition.column, Some(value)),
                op => self.beside(condition.column, op, value).unwrap_or(RANGE),
            });
            return shares.sum::<f64>().min(1.0);
        }
        let place = |expr: &Expr| match expr {
            Expr::Column { index, .. } => Some(*index),
            _ => None,
        };
        match part {
            Expr::And(parts) => self.all(parts),
            Expr::Or(parts) => 1.0 - parts.iter().map(|part| 1.0 - self.one(part)).product::<f64>(),
            Expr::Not(input) => 1.0 - self.one(input),
            Expr::Const { value: Value::Bool(flag), .. } => f64::from(u8::from(*flag)),
            Expr::Const { value: Value::Null, .. } => 0.0,
            Expr::Column { index, .. } => {
                let truth = Expr::constant(Value::Bool(true), part.ty());
                self.column(*index).map_or(0.5, |known| known.equal_to(encoded(&truth).as_deref(), self.rows))
            }
            Expr::IsBool { input, test: BoolTest::True, negated: false } => self.one(input),
            Expr::IsNull { input, negated } => {
                let known = place(input).and_then(|place| self.column(place));
                let nulls = known.map_or(NULLS, |known| known.null_fraction);
                if *negated { 1.0 - nulls } else { nulls }
            }
            Expr::Compare { op: CompareOp::Ne, left, right } => {
                let equal = Expr::Compare { op: CompareOp::Eq, left: left.clone(), right: right.clone() };
                let nulls =
                    [left, right].into_iter().find_map(|side| place(side)).map_or(0.0, |at| self.nulls(at));
                (1.0 - self.one(&equal) - nulls).max(0.0)
            }
            Expr::InList { input, list, negated: true } => {
                let within = Expr::InList { input: input.clone(), list: list.clone(), negated: false };
                let nulls = place(input).map_or(0.0, |place| self.nulls(place));
                (1.0 - self.one(&within) - nulls).max(0.0)
            }
            _ => DEFAULT,
        }
    }
}
