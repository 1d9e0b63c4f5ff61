//! Access paths: which index answers which part of a predicate.

use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::value::Value;

use super::cost::{self, DEFAULT_ROWS};
use super::node::{Probe, Scan};
use super::selectivity::Known;
use crate::bind::from::column_type;
use crate::catalog::{IndexDescriptor, TableDescriptor, TableStatistics};
use crate::scalar::{CastContext, CompareOp, Expr, coerce};

/// The parts of a conjunction. What all branches of a disjunction ask is a part of its own.
#[must_use]
pub fn conjuncts(expr: Expr) -> Vec<Expr> {
    match expr {
        Expr::And(parts) => parts.into_iter().flat_map(conjuncts).collect(),
        Expr::Or(branches) => factored(branches),
        other => vec![other],
    }
}

/// `(a AND b) OR (a AND c)` as `a` and `b OR c`.
fn factored(branches: Vec<Expr>) -> Vec<Expr> {
    let all: Vec<Vec<Expr>> = branches.iter().cloned().map(conjuncts).collect();
    let Some((first, others)) = all.split_first() else { return vec![Expr::Or(branches)] };
    let is_common = |part: &&Expr| !part.is_volatile() && others.iter().all(|other| other.contains(part));
    let common: Vec<Expr> = first.iter().filter(is_common).cloned().collect();
    if common.is_empty() {
        return vec![Expr::Or(branches)];
    }
    let mut rest = Vec::with_capacity(all.len());
    for branch in all {
        let left: Vec<Expr> = branch.into_iter().filter(|part| !common.contains(part)).collect();
        if left.is_empty() {
            // It asks no more than what all ask.
            return common;
        }
        rest.push(Expr::and(left));
    }
    common.into_iter().chain([Expr::Or(rest)]).collect()
}

/// The smallest and the largest column that an expression reads.
#[must_use]
pub fn column_span(expr: &Expr) -> Option<(usize, usize)> {
    let mut span: Option<(usize, usize)> = None;
    expr.visit(&mut |part| {
        if let Expr::Column { index, .. } = part {
            span = Some(span.map_or((*index, *index), |(low, high)| (low.min(*index), high.max(*index))));
        }
    });
    span
}

/// A condition on one column of a table that an index may answer.
#[derive(Clone, Debug)]
pub struct Condition {
    /// The place of the column in the table.
    pub column: usize,
    /// How it is compared; equality for an IN list.
    pub op: CompareOp,
    /// With what: several values for an IN list.
    pub values: Vec<Expr>,
    /// The place of the conjunct it comes from; absent for a join condition.
    pub conjunct: Option<usize>,
}

/// The condition that a conjunct puts on a column whose other side reads no column.
#[must_use]
pub fn condition(expr: &Expr, conjunct: usize, scan: &Scan) -> Option<Condition> {
    let table = &scan.table;
    let free = |expr: &Expr| column_span(expr).is_none() && !expr.is_volatile();
    let column = |expr: &Expr| match expr {
        Expr::Column { index, .. } if *index < table.columns.len() => Some(*index),
        // Indexes may be ordered by it.
        other => {
            let place = scan.computed.iter().position(|computed| computed == other)?;
            Some(table.columns.len() + place)
        }
    };
    let (place, op, values) = match expr {
        Expr::Compare { op, left, right } if *op != CompareOp::Ne => match (column(left), column(right)) {
            (Some(place), None) if free(right) => (place, *op, vec![right.as_ref().clone()]),
            (None, Some(place)) if free(left) => (place, op.swapped(), vec![left.as_ref().clone()]),
            _ => return None,
        },
        Expr::InList { input, list, negated: false } if list.iter().all(free) => {
            (column(input)?, CompareOp::Eq, list.clone())
        }
        _ => return None,
    };
    let of_column = table.columns.get(place).map(|column| column.data_type);
    let stored = column_type(of_column.or_else(|| table.computed_at(place).map(|it| it.data_type))?);
    let values = values.into_iter().map(|value| keyed(stored, value)).collect::<Option<_>>()?;
    Some(Condition { column: place, op, values, conjunct: Some(conjunct) })
}

/// The value with the key encoding of a stored type, if one has the same order in both. Integers of all widths compare with
/// each other without a cast, so a narrower one is widened here, and a wider constant that fits is narrowed.
#[must_use]
pub fn keyed(stored: DataType, value: Expr) -> Option<Expr> {
    let text = |ty: DataType| matches!(ty.base, BaseType::Text | BaseType::Varchar | BaseType::Name);
    let given = value.ty();
    if stored.base == given.base || (text(stored) && text(given)) {
        return Some(value);
    }
    let (wide, narrow) = (integer_width(stored)?, integer_width(given)?);
    if let Expr::Const { value, .. } = &value {
        let number = value.as_i64()?;
        let value = match wide {
            2 => Value::Int2(i16::try_from(number).ok()?),
            4 => Value::Int4(i32::try_from(number).ok()?),
            _ => Value::Int8(number),
        };
        return Some(Expr::Const { value, ty: stored });
    }
    if narrow < wide { coerce(value, stored, CastContext::Implicit).ok() } else { None }
}

/// Bytes of an integer of a type, if it is one.
const fn integer_width(ty: DataType) -> Option<u8> {
    match ty.base {
        BaseType::Int2 => Some(2),
        BaseType::Int4 => Some(4),
        BaseType::Int8 => Some(8),
        _ => None,
    }
}

/// How well an index answers some conditions.
#[derive(Clone, Debug)]
pub struct Match {
    /// The place of the index; absent for the rows' own order.
    pub index: Option<usize>,
    /// The ranges to read.
    pub probes: Vec<Probe>,
    /// Conjuncts that the probes answer exactly.
    pub answered: Vec<usize>,
    /// Whether each probe finds at most one row.
    pub unique: bool,
    /// Key columns bound by equality.
    pub equal: usize,
    /// Whether the column after them is bounded.
    pub ranged: bool,
}

/// The best index for some conditions, if any helps.
#[must_use]
pub fn best(scan: &Scan, conditions: &[Condition], conjuncts: &[Expr]) -> Option<Match> {
    let table = &scan.table;
    let mut found: Option<Match> = None;
    for (place, index) in table.indexes.iter().enumerate() {
        if !has_all(index, scan, conjuncts) {
            continue;
        }
        let place = (!table.is_row_key(index)).then_some(place);
        let Some(next) = match_index(index, place, table, conditions) else { continue };
        let score = |candidate: &Match| {
            (candidate.unique, candidate.equal, candidate.ranged, candidate.index.is_none())
        };
        if found.as_ref().is_none_or(|known| score(&next) > score(known)) {
            found = Some(next);
        }
    }
    found
}

/// Whether an index has all rows that satisfy some conditions.
fn has_all(index: &IndexDescriptor, scan: &Scan, given: &[Expr]) -> bool {
    let Some(predicate) = index.predicate else { return true };
    let place = scan.table.computed.iter().position(|computed| computed.id == predicate);
    let Some(predicate) = place.and_then(|place| scan.computed.get(place)) else { return false };
    conjuncts(predicate.clone()).iter().all(|part| given.iter().any(|given| implies(given, part)))
}

/// Whether what satisfies `given` satisfies `wanted`, as far as is seen at once.
pub(crate) fn implies(given: &Expr, wanted: &Expr) -> bool {
    if given == wanted {
        return true;
    }
    match (given, wanted) {
        // No comparison with NULL is true.
        (Expr::Compare { left, right, .. }, Expr::IsNull { input, negated: true }) => {
            left == input || right == input
        }
        (Expr::InList { input: own, negated: false, .. }, Expr::IsNull { input, negated: true }) => {
            own == input
        }
        (
            Expr::Compare { op, left, right },
            Expr::Compare { op: wanted_op, left: wanted_left, right: wanted_right },
        ) if left == wanted_left => {
            let (Expr::Const { value, ty }, Expr::Const { value: bound, ty: bound_ty }) =
                (right.as_ref(), wanted_right.as_ref())
            else {
                return false;
            };
            if ty.base != bound_ty.base || value.is_null() || bound.is_null() {
                return false;
            }
            let order = value.compare(bound);
            match (op, wanted_op) {
                (CompareOp::Eq, CompareOp::Gt) | (CompareOp::Ge, CompareOp::Gt) => order.is_gt(),
                (CompareOp::Eq | CompareOp::Ge | CompareOp::Gt, CompareOp::Ge)
                | (CompareOp::Gt, CompareOp::Gt) => order.is_ge(),
                (CompareOp::Eq, CompareOp::Lt) | (CompareOp::Le, CompareOp::Lt) => order.is_lt(),
                (CompareOp::Eq | CompareOp::Le | CompareOp::Lt, CompareOp::Le)
                | (CompareOp::Lt, CompareOp::Lt) => order.is_le(),
                (CompareOp::Eq, CompareOp::Ne) => order.is_ne(),
                _ => false,
            }
        }
        _ => false,
    }
}

fn match_index(
    index: &IndexDescriptor,
    place: Option<usize>,
    table: &TableDescriptor,
    conditions: &[Condition],
) -> Option<Match> {
    let mut found = Match {
        index: place,
        probes: vec![Probe::default()],
        answered: Vec::new(),
        unique: false,
        equal: 0,
        ranged: false,
    };
    for part in &index.key {
        let column = table.key_place(part.column)?;
        let on_column = || conditions.iter().filter(move |condition| condition.column == column);
        // The shortest list multiplies the ranges least.
        let equal =
            on_column().filter(|condition| condition.op == CompareOp::Eq).min_by_key(|c| c.values.len());
        if let Some(equal) = equal
            && found.probes.len().saturating_mul(equal.values.len()) <= 1000
        {
            let extend = |probe: Probe| {
                equal.values.iter().map(move |value| {
                    let mut probe = probe.clone();
                    probe.prefix.push(value.clone());
                    probe
                })
            };
            found.probes = found.probes.into_iter().flat_map(extend).collect();
            found.answered.extend(equal.conjunct);
            found.equal += 1;
            continue;
        }
        let bound = |wanted: [CompareOp; 2]| {
            on_column().find(|condition| wanted.contains(&condition.op)).and_then(|condition| {
                let inclusive = matches!(condition.op, CompareOp::Ge | CompareOp::Le);
                condition.values.first().map(|value| ((value.clone(), inclusive), condition.conjunct))
            })
        };
        let (low, high) = (bound([CompareOp::Gt, CompareOp::Ge]), bound([CompareOp::Lt, CompareOp::Le]));
        found.ranged = low.is_some() || high.is_some();
        // A range has no NULLs, so the bounds are all that the conditions ask.
        found.answered.extend([&low, &high].into_iter().flatten().filter_map(|(_, conjunct)| *conjunct));
        let (low, high) = (low.map(|(low, _)| low), high.map(|(high, _)| high));
        for probe in &mut found.probes {
            probe.low.clone_from(&low);
            probe.high.clone_from(&high);
        }
        break;
    }
    found.unique = index.is_unique() && found.equal == index.key.len();
    (found.equal > 0 || found.ranged).then_some(found)
}

/// Whether reading what an index finds costs less than reading all rows.
fn pays(
    found: &Match,
    scan: &Scan,
    statistics: Option<&TableStatistics>,
    parts: &[Expr],
    total: f64,
) -> bool {
    if found.index.is_none() || found.unique {
        return true;
    }
    // Nothing is known of the table: it may be large, and what is asked for may be little.
    if statistics.is_none() {
        return true;
    }
    let asked: Vec<Expr> = found.answered.iter().filter_map(|place| parts.get(*place).cloned()).collect();
    let read = total * Known::of(scan, statistics, total).all(&asked);
    let lookups = found.probes.len() as f64 * cost::LOOKUP;
    lookups + read * cost::INDEXED_ROW <= total * cost::ROW
}

/// Gives a scan the best path for its filter, and an estimate of its rows.
pub fn choose(scan: &mut Scan, statistics: Option<&TableStatistics>) {
    let parts = scan.filter.take().map(conjuncts).unwrap_or_default();
    let conditions: Vec<Condition> =
        parts.iter().enumerate().filter_map(|(place, part)| condition(part, place, scan)).collect();
    let total = statistics.map_or(DEFAULT_ROWS, |statistics| statistics.rows.max(1.0));
    let mut rows = (total * Known::of(scan, statistics, total).all(&parts)).max(1.0);
    let mut answered = Vec::new();
    if let Some(found) = best(scan, &conditions, &parts)
        && pays(&found, scan, statistics, &parts, total)
    {
        if found.unique {
            rows = rows.min(found.probes.len() as f64);
        }
        scan.path.index = found.index;
        scan.path.probes = found.probes;
        scan.path.unique = found.unique;
        answered = found.answered;
    }
    let rest: Vec<Expr> = parts
        .into_iter()
        .enumerate()
        .filter(|(place, _)| !answered.contains(place))
        .map(|(_, part)| part)
        .collect();
    scan.rows = rows;
    scan.filter = if rest.is_empty() { None } else { Some(Expr::and(rest)) };
}
