//! What plans cost, in the unit of PostgreSQL's costs: a row that is read in the order of its key is a hundredth.
//!
//! There are no pages: rows are found through an ordered store whose blocks are in memory, so looking up a key costs
//! about as much as reading four rows of a scan, and a row that a secondary index names is looked up itself.

use super::node::{JoinAlgorithm, Node, Scan};
use super::optimize::rows;
use crate::catalog::CatalogSnapshot;

/// Reading a row of a table in the order of its keys.
pub const ROW: f64 = 0.01;
/// Finding where a range of keys begins.
pub const LOOKUP: f64 = 4.0 * ROW;
/// Reading a row that an entry of a secondary index names, and the entry.
pub const INDEXED_ROW: f64 = 3.0 * ROW;
/// Evaluating an expression over a row.
pub const EXPRESSION: f64 = ROW / 4.0;
/// Keeping a row in a hash table, or finding one there.
pub const HASHED_ROW: f64 = ROW / 2.0;
/// Comparing two rows while sorting.
const COMPARISON: f64 = 2.0 * EXPRESSION;
/// Rows of a table that was never analyzed.
pub const DEFAULT_ROWS: f64 = 1000.0;

/// What a plan costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Until its first row.
    pub startup: f64,
    /// Until its last one.
    pub total: f64,
}

impl Cost {
    /// The same with so much more for each of some rows.
    fn per_row(self, count: f64, each: f64) -> Self {
        Self { startup: self.startup, total: self.total + count * each }
    }

    /// All of it, and more, before the first row.
    fn blocking(self, more: f64) -> Self {
        Self { startup: self.total + more, total: self.total + more }
    }
}

/// The rows of a table that a scan goes through.
fn rows_read(scan: &Scan, catalog: &CatalogSnapshot) -> f64 {
    let total = catalog.statistics(scan.table.oid).map_or(DEFAULT_ROWS, |known| known.rows.max(1.0));
    match (scan.path.probes.len(), scan.path.unique) {
        (0, _) => total,
        (probes, true) => (probes as f64).min(total),
        // What the ranges leave was estimated with the filter; there are no fewer rows in them.
        _ => scan.rows.min(total),
    }
}

pub(super) fn of_scan(scan: &Scan, catalog: &CatalogSnapshot) -> Cost {
    let read = rows_read(scan, catalog);
    let row = if scan.path.index.is_some() { INDEXED_ROW } else { ROW };
    let startup = if scan.path.probes.is_empty() && scan.path.index.is_none() { 0.0 } else { LOOKUP };
    let lookups = LOOKUP * scan.path.probes.len().max(usize::from(startup > 0.0)) as f64;
    let filter = if scan.filter.is_some() { EXPRESSION } else { 0.0 };
    Cost { startup, total: lookups }.per_row(read, row + filter)
}

fn sorting(count: f64, kept: f64) -> f64 {
    COMPARISON * count * kept.max(2.0).log2()
}

/// What a plan costs with what is known of its tables.
#[must_use]
pub fn of(node: &Node, catalog: &CatalogSnapshot) -> Cost {
    let below = |node: &Node| of(node, catalog);
    match node {
        Node::Values { rows, .. } => Cost::default().per_row(rows.len() as f64, EXPRESSION),
        Node::Scan(scan) => of_scan(scan, catalog),
        Node::Virtual { .. } | Node::WorkTable { .. } => Cost::default().per_row(rows(node), ROW),
        Node::Function { .. } => Cost { startup: EXPRESSION, total: EXPRESSION }.per_row(rows(node), ROW),
        Node::Shared { plan, .. } => below(plan).per_row(rows(plan), EXPRESSION),
        Node::Recursive { initial, step, .. } => {
            let (first, again) = (below(initial), below(step));
            Cost { startup: first.startup, total: first.total + 10.0 * again.total }
        }
        Node::Filter { input, .. } => below(input).per_row(rows(input), EXPRESSION),
        Node::Project { input, exprs } => {
            below(input).per_row(rows(input), EXPRESSION * computed(exprs) as f64)
        }
        Node::Pick { input, .. } => below(input),
        Node::ProjectSet { input, .. } => below(input).per_row(rows(node), EXPRESSION),
        Node::Join(join) => {
            let (left, right) = (below(&join.left), below(&join.right));
            let (left_rows, right_rows) = (rows(&join.left), rows(&join.right));
            let pairs = rows(node);
            let condition = if join.condition.is_some() { EXPRESSION } else { 0.0 };
            match join.algorithm {
                JoinAlgorithm::NestedLoop => {
                    Cost { startup: left.startup + right.total, total: left.total + right.total }
                        .per_row(left_rows * right_rows, EXPRESSION + condition)
                }
                JoinAlgorithm::Hash { .. } => {
                    let built = right.blocking(right_rows * HASHED_ROW);
                    Cost { startup: built.total + left.startup, total: built.total + left.total }
                        .per_row(left_rows, HASHED_ROW)
                        .per_row(pairs, EXPRESSION + condition)
                }
                JoinAlgorithm::IndexLookup | JoinAlgorithm::Lateral { .. } => {
                    Cost { startup: left.startup + right.startup, total: left.total }
                        .per_row(left_rows, right.total)
                        .per_row(pairs, condition)
                }
            }
        }
        Node::Aggregate(aggregate) => {
            let each = HASHED_ROW * f64::from(u8::from(!aggregate.groups.is_empty()))
                + EXPRESSION * aggregate.calls.len() as f64;
            below(&aggregate.input).blocking(rows(&aggregate.input) * each).per_row(rows(node), EXPRESSION)
        }
        Node::Window(window) => {
            let count = rows(&window.input);
            let keys = window.partition.len() + window.order.len();
            let sort = if keys > 0 { sorting(count, count) } else { 0.0 };
            below(&window.input).blocking(sort).per_row(count, EXPRESSION * window.calls.len() as f64)
        }
        Node::Sort { input, bound, .. } => {
            let count = rows(input);
            let kept = match bound {
                Some(crate::scalar::Expr::Const { value, .. }) => {
                    value.as_i64().map_or(count, |bound| bound as f64)
                }
                _ => count,
            };
            below(input).blocking(sorting(count, kept.min(count))).per_row(kept.min(count), EXPRESSION)
        }
        Node::Distinct { input, .. } => below(input).per_row(rows(input), HASHED_ROW),
        Node::SetOp { left, right, operation, all } => {
            let (a, b) = (below(left), below(right));
            let together = Cost { startup: a.startup, total: a.total + b.total };
            if *all && *operation == super::SetOperation::Union {
                return together;
            }
            together.blocking((rows(left) + rows(right)) * HASHED_ROW).per_row(rows(node), EXPRESSION)
        }
        Node::Limit { input, .. } => {
            let whole = below(input);
            let share = (rows(node) / rows(input).max(1.0)).min(1.0);
            Cost { startup: whole.startup, total: whole.startup + (whole.total - whole.startup) * share }
        }
    }
}

/// How many of some expressions are more than a column or a constant.
fn computed(exprs: &[crate::scalar::Expr]) -> usize {
    use crate::scalar::Expr;
    exprs.iter().filter(|expr| !matches!(expr, Expr::Column { .. } | Expr::Const { .. })).count()
}
