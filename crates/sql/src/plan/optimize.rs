//! The optimizer: rewrites a plan into one that gives the same rows with less work.
//!
//! In order: predicates move down to where their columns come from; scans choose their paths; joins choose their
//! algorithms, inner ones of several relations their order; sorts that an index makes needless go; what nobody asks for
//! is left out of the rows.

use rustydb_types::ids::Oid;

use super::cost;
use super::narrow;
use super::node::{Join, JoinAlgorithm, JoinKind, Node, Scan, SortKey};
use super::order;
use super::path::{self, Condition, column_span, conjuncts};
use super::selectivity::Known;
use crate::catalog::CatalogSnapshot;
use crate::scalar::{CompareOp, Expr, resolve_operator};

/// Optimizes a plan.
#[must_use]
pub fn optimize(node: Node, catalog: &CatalogSnapshot) -> Node {
    narrow::exact(Optimizer { catalog }.push(node, Vec::new()))
}

pub(super) struct Optimizer<'a> {
    pub(super) catalog: &'a CatalogSnapshot,
}

/// What a lookup of a scan's rows for each row of another relation comes to.
pub(super) struct Lookup {
    found: path::Match,
    /// Rows that each finds.
    rows: f64,
    /// What each costs.
    pub(super) cost: f64,
}

/// The node with a filter on top, if there is anything to filter by.
pub(super) fn filtered(node: Node, parts: Vec<Expr>) -> Node {
    if parts.is_empty() { node } else { Node::Filter { input: Box::new(node), predicate: Expr::and(parts) } }
}

impl Optimizer<'_> {
    /// Optimizes a node on whose rows the given conditions are put.
    pub(super) fn push(&self, node: Node, mut parts: Vec<Expr>) -> Node {
        match node {
            Node::Filter { input, predicate } => {
                parts.extend(conjuncts(predicate));
                self.push(*input, parts)
            }
            Node::Scan(mut scan) => {
                parts.extend(scan.filter.take().map(conjuncts).unwrap_or_default());
                scan.filter = (!parts.is_empty()).then(|| Expr::and(parts));
                self.choose_path(&mut scan);
                Node::Scan(scan)
            }
            Node::Join(join) if order::can_order(&join) => self.order(*join, parts),
            Node::Join(join) => self.push_join(*join, parts),
            Node::Project { input, exprs } => {
                let movable = |part: &Expr| {
                    let mut stable = !part.is_volatile();
                    part.visit(&mut |part| {
                        if let Expr::Column { index, .. } = part {
                            stable &= exprs.get(*index).is_some_and(|expr| !expr.is_volatile());
                        }
                    });
                    stable
                };
                let (moved, kept): (Vec<Expr>, Vec<Expr>) = parts.into_iter().partition(movable);
                let substitute = |part: Expr| {
                    part.transform(&mut |part| match part {
                        Expr::Column { index, .. } => exprs.get(index).cloned().unwrap_or_else(Expr::null),
                        other => other,
                    })
                };
                let moved = moved.into_iter().map(substitute).collect();
                let input = Box::new(self.push(*input, moved));
                filtered(Node::Project { input, exprs }, kept)
            }
            Node::Sort { input, keys, bound } => {
                // Whether a row passes does not depend on where it stands.
                let (moved, kept) = parts.into_iter().partition(|part| !part.is_volatile());
                let mut input = self.push(*input, moved);
                if kept.is_empty() && bound.is_none() && in_index_order(&mut input, &keys) {
                    return input;
                }
                filtered(Node::Sort { input: Box::new(input), keys, bound }, kept)
            }
            Node::Limit { input, limit, offset } => {
                let mut input = self.push(*input, Vec::new());
                bound_sort(&mut input, limit.as_ref(), offset.as_ref());
                filtered(Node::Limit { input: Box::new(input), limit, offset }, parts)
            }
            Node::ProjectSet { input, exprs } => {
                let input = Box::new(self.push(*input, Vec::new()));
                filtered(Node::ProjectSet { input, exprs }, parts)
            }
            Node::Aggregate(mut aggregate) => {
                aggregate.input = self.push(aggregate.input, Vec::new());
                aggregate.estimate = self.distinct(&aggregate.input, &aggregate.groups);
                filtered(Node::Aggregate(aggregate), parts)
            }
            Node::Window(mut window) => {
                // A row that is filtered out later still counts for the others.
                window.input = self.push(window.input, Vec::new());
                filtered(Node::Window(window), parts)
            }
            Node::Distinct { input, on } => {
                let input = Box::new(self.push(*input, Vec::new()));
                filtered(Node::Distinct { input, on }, parts)
            }
            Node::SetOp { operation, all, left, right } => {
                let left = Box::new(self.push(*left, Vec::new()));
                let right = Box::new(self.push(*right, Vec::new()));
                filtered(Node::SetOp { operation, all, left, right }, parts)
            }
            node @ Node::WorkTable { .. } => filtered(node, parts),
            Node::Recursive { id, initial, step, all, is_shared } => {
                let initial = Box::new(optimize(*initial, self.catalog));
                let step = Box::new(optimize(*step, self.catalog));
                filtered(Node::Recursive { id, initial, step, all, is_shared }, parts)
            }
            Node::Shared { id, plan } => {
                let plan = std::sync::Arc::new(optimize(plan.as_ref().clone(), self.catalog));
                filtered(Node::Shared { id, plan }, parts)
            }
            Node::Pick { input, columns } => {
                let place = |index: usize| columns.get(index).copied().unwrap_or(index);
                let parts = parts.into_iter().map(|part| part.map_columns(&mut |index| place(index)));
                let input = Box::new(self.push(*input, parts.collect()));
                Node::Pick { input, columns }
            }
            leaf @ (Node::Values { .. } | Node::Virtual { .. } | Node::Function { .. }) => {
                filtered(leaf, parts)
            }
        }
    }

    /// How many distinct values some expressions over a node's rows have, if statistics tell.
    fn distinct(&self, node: &Node, exprs: &[Expr]) -> Option<f64> {
        let mut count = 1.0;
        for expr in exprs {
            let Expr::Column { index, .. } = expr else { return None };
            let (scan, place) = origin(node, *index)?;
            let statistics = self.catalog.statistics(scan.table.oid)?;
            let column = statistics.columns.get(&scan.table.columns.get(place)?.id.get())?;
            count *= column.distinct_of(statistics.rows).min(scan.rows.max(1.0));
        }
        Some(count)
    }

    fn choose_path(&self, scan: &mut Scan) {
        let statistics = self.catalog.statistics(Oid::new(scan.table.oid.get()));
        path::choose(scan, statistics.map(AsRef::as_ref));
    }

    fn push_join(&self, mut join: Join, parts: Vec<Expr>) -> Node {
        let width = join.left.width();
        let own = join.condition.take().map(conjuncts).unwrap_or_default();
        let is_left =
            |part: &Expr| column_span(part).is_some_and(|(_, high)| high < width) && !part.is_volatile();
        // The right side of a lateral join has the left row around it, not what is around the join.
        let stays = |part: &Expr| {
            matches!(join.algorithm, JoinAlgorithm::Lateral { .. })
                && (part.looks_outside() || part.is_volatile())
        };
        let is_right = |part: &Expr| {
            column_span(part).is_some_and(|(low, _)| low >= width) && !part.is_volatile() && !stays(part)
        };
        let mut to_left = Vec::new();
        let mut to_right = Vec::new();
        let mut above = Vec::new();
        let mut condition = Vec::new();
        // A condition from above may go to a side whose rows all survive the join, or be part of an inner join.
        for part in parts {
            if is_left(&part) && matches!(join.kind, JoinKind::Inner | JoinKind::Left) {
                to_left.push(part);
            } else if is_right(&part) && matches!(join.kind, JoinKind::Inner | JoinKind::Right) {
                to_right.push(part);
            } else if join.kind == JoinKind::Inner {
                condition.push(part);
            } else {
                above.push(part);
            }
        }
        // A condition of the join itself may go to a side whose unmatched rows do not appear.
        for part in own {
            if is_left(&part) && matches!(join.kind, JoinKind::Inner | JoinKind::Right) {
                to_left.push(part);
            } else if is_right(&part) && matches!(join.kind, JoinKind::Inner | JoinKind::Left) {
                to_right.push(part);
            } else {
                condition.push(part);
            }
        }
        let to_right =
            to_right.into_iter().map(|part| part.map_columns(&mut |index| index - width)).collect();
        join.left = self.push(join.left, to_left);
        join.right = self.push(join.right, to_right);
        if matches!(join.algorithm, JoinAlgorithm::NestedLoop) {
            self.choose_algorithm(&mut join, &mut condition, width);
        }
        join.condition = (!condition.is_empty()).then(|| Expr::and(condition));
        filtered(Node::Join(Box::new(join)), above)
    }

    pub(super) fn choose_algorithm(&self, join: &mut Join, condition: &mut Vec<Expr>, width: usize) {
        let mut pairs: Vec<(usize, Expr, Expr)> = Vec::new();
        for (place, part) in condition.iter().enumerate() {
            let Expr::Compare { op: CompareOp::Eq, left, right } = part else { continue };
            let (Some(a), Some(b)) = (column_span(left), column_span(right)) else { continue };
            let (on_left, on_right) = if a.1 < width && b.0 >= width {
                (left, right)
            } else if b.1 < width && a.0 >= width {
                (right, left)
            } else {
                continue;
            };
            if on_left.is_volatile() || on_right.is_volatile() {
                continue;
            }
            let on_right = on_right.as_ref().clone().map_columns(&mut |index| index - width);
            pairs.push((place, on_left.as_ref().clone(), on_right));
        }
        if pairs.is_empty() {
            return;
        }
        if matches!(join.kind, JoinKind::Inner | JoinKind::Left) && self.choose_lookup(join, &pairs) {
            // The whole condition is asked again of each pair, which costs little next to the lookup.
            return;
        }
        let places: Vec<usize> = pairs.iter().map(|(place, _, _)| *place).collect();
        let (left, right) = pairs.into_iter().map(|(_, left, right)| (left, right)).unzip();
        join.algorithm = JoinAlgorithm::Hash { left, right };
        let mut place = 0;
        condition.retain(|_| {
            place += 1;
            !places.contains(&(place - 1))
        });
    }

    /// Chooses lookups of the right side when they read less than reading it whole.
    fn choose_lookup(&self, join: &mut Join, pairs: &[(usize, Expr, Expr)]) -> bool {
        let left_rows = rows(&join.left);
        let Node::Scan(scan) = &mut join.right else { return false };
        let Some(lookup) = self.lookup(scan, pairs.iter().map(|(_, left, right)| (left, right))) else {
            return false;
        };
        if left_rows * lookup.cost >= cost::of_scan(scan, self.catalog).total + left_rows * cost::HASHED_ROW {
            return false;
        }
        scan.path.index = lookup.found.index;
        scan.path.probes = lookup.found.probes;
        scan.path.unique = lookup.found.unique;
        scan.rows = lookup.rows;
        join.algorithm = JoinAlgorithm::IndexLookup;
        true
    }

    /// What it comes to to look a scan's rows up by values that equal values of each row of another relation: pairs of
    /// those and of the scan's own.
    pub(super) fn lookup<'e>(
        &self,
        scan: &Scan,
        pairs: impl Iterator<Item = (&'e Expr, &'e Expr)>,
    ) -> Option<Lookup> {
        if !scan.path.probes.is_empty() {
            return None;
        }
        let conditions: Vec<Condition> = pairs
            .filter_map(|(other, own)| match own {
                Expr::Column { index, .. } => {
                    let stored = scan.table.columns.get(*index)?;
                    let stored = crate::bind::from::column_type(stored.data_type);
                    let value = path::keyed(stored, other.clone())?;
                    Some(Condition { column: *index, op: CompareOp::Eq, values: vec![value], conjunct: None })
                }
                _ => None,
            })
            .collect();
        let filter = scan.filter.clone().map(conjuncts).unwrap_or_default();
        let found = path::best(scan, &conditions, &filter)?;
        let statistics = self.catalog.statistics(scan.table.oid).map(AsRef::as_ref);
        let total = statistics.map_or(cost::DEFAULT_ROWS, |statistics| statistics.rows.max(1.0));
        let rows = if found.unique {
            1.0
        } else {
            let known = Known::of(scan, statistics, total);
            let share = |condition: &Condition| known.equal(condition.column, None);
            total * conditions.iter().take(found.equal).map(share).product::<f64>()
        };
        let per_row = if found.index.is_some() { cost::INDEXED_ROW } else { cost::ROW };
        Some(Lookup { found, rows, cost: cost::LOOKUP + rows * per_row })
    }
}

/// The column of a table that a value of a node's rows is, unchanged.
pub(super) fn origin(node: &Node, index: usize) -> Option<(&Scan, usize)> {
    match node {
        Node::Scan(scan) => Some((scan, index)),
        Node::Filter { input, .. } | Node::Sort { input, .. } => origin(input, index),
        Node::Pick { input, columns } => origin(input, *columns.get(index)?),
        Node::Project { input, exprs } => match exprs.get(index)? {
            Expr::Column { index, .. } => origin(input, *index),
            _ => None,
        },
        Node::Join(join) => {
            let width = join.left.width();
            if index < width { origin(&join.left, index) } else { origin(&join.right, index - width) }
        }
        _ => None,
    }
}

/// Estimated rows of a node.
#[must_use]
pub fn rows(node: &Node) -> f64 {
    match node {
        Node::Values { rows, .. } => rows.len() as f64,
        Node::Scan(scan) => scan.rows,
        Node::Virtual { .. } => 500.0,
        Node::Function { .. } => 100.0,
        Node::Shared { plan, .. } => rows(plan),
        Node::Recursive { initial, step, .. } => rows(initial) + 10.0 * rows(step),
        Node::WorkTable { .. } => 10.0,
        Node::Filter { input, .. } => (rows(input) * 0.25).max(1.0),
        Node::Project { input, .. } | Node::Pick { input, .. } | Node::Sort { input, .. } => rows(input),
        Node::Window(window) => rows(&window.input),
        Node::ProjectSet { input, .. } => rows(input) * 10.0,
        Node::Join(join) => {
            let (left, right) = (rows(&join.left), rows(&join.right));
            match &join.algorithm {
                JoinAlgorithm::IndexLookup | JoinAlgorithm::Lateral { .. } => left * right.max(1.0),
                JoinAlgorithm::Hash { .. } => left.max(right),
                JoinAlgorithm::NestedLoop => left * right * if join.condition.is_some() { 0.25 } else { 1.0 },
            }
        }
        Node::Aggregate(aggregate) => {
            let input = rows(&aggregate.input);
            match aggregate.estimate {
                _ if aggregate.always_one => 1.0,
                Some(groups) if aggregate.sets.is_empty() => groups.min(input).max(1.0),
                _ => (input * 0.1).max(1.0) * aggregate.sets.len().max(1) as f64,
            }
        }
        Node::Distinct { input, .. } => (rows(input) * 0.5).max(1.0),
        Node::SetOp { left, right, .. } => rows(left) + rows(right),
        Node::Limit { input, limit, .. } => match limit {
            Some(Expr::Const { value, .. }) => {
                rows(input).min(value.as_i64().map_or(f64::MAX, |limit| limit as f64))
            }
            _ => rows(input),
        },
    }
}

/// Makes a scan yield rows in the order of the keys, if one of its table's indexes has it.
fn in_index_order(node: &mut Node, keys: &[SortKey]) -> bool {
    let Node::Scan(scan) = node else { return false };
    let columns: Option<Vec<usize>> = keys
        .iter()
        .map(|key| match &key.expr {
            Expr::Column { index, .. } if *index < scan.table.columns.len() => Some(*index),
            _ => None,
        })
        .collect();
    let Some(columns) = columns else { return false };
    if scan.path.unique && scan.path.probes.len() == 1 {
        return true;
    }
    // Several ranges are read in the order of their keys, but the columns after them begin anew in each.
    if scan.path.probes.len() > 1 {
        return false;
    }
    let full = scan.path.probes.is_empty();
    let candidates: Vec<Option<usize>> = if full {
        let own = scan.table.indexes.iter().position(|index| scan.table.is_row_key(index));
        own.map(|_| None).into_iter().chain((0..scan.table.indexes.len()).map(Some)).collect()
    } else {
        vec![scan.path.index]
    };
    let skip = scan.path.probes.first().map_or(0, |probe| probe.prefix.len());
    for candidate in candidates {
        let index = match candidate {
            Some(place) => scan.table.indexes.get(place),
            None => scan.table.indexes.iter().find(|index| scan.table.is_row_key(index)),
        };
        let Some(index) = index else { continue };
        let parts: Vec<_> = index.key.iter().skip(skip).collect();
        let mut direction = None;
        let fits = columns.iter().zip(keys).enumerate().all(|(place, (column, key))| {
            let Some(part) = parts.get(place) else {
                // After the whole unique key there are no ties left to order.
                return index.kind == crate::catalog::IndexKind::Primary;
            };
            let not_null = scan.table.columns.get(*column).is_some_and(|column| column.not_null);
            let reverse = part.descending != key.descending;
            let nulls_fit = not_null || (part.nulls_first != reverse) == key.nulls_first;
            let same = *direction.get_or_insert(reverse) == reverse;
            scan.table.column_index_of(part.column) == Some(*column) && same && nulls_fit
        });
        // Reading a whole table through a secondary index only to save a sort does not pay.
        if fits && !(full && candidate.is_some()) {
            scan.path.index = candidate;
            scan.path.reverse = direction.unwrap_or(false);
            return true;
        }
    }
    false
}

/// Tells the sort below a limit how many rows are wanted, or lets an index give them in order.
fn bound_sort(node: &mut Node, limit: Option<&Expr>, offset: Option<&Expr>) {
    let Some(limit) = limit else { return };
    let wanted = match offset {
        None => Some(limit.clone()),
        Some(offset) => resolve_operator("+", limit.clone(), offset.clone()).ok(),
    };
    match node {
        Node::Project { input, .. } => bound_sort(input, Some(limit), offset),
        Node::Sort { input, keys, bound } => {
            if in_any_index_order(input, keys) {
                *node = std::mem::replace(input.as_mut(), Node::one_row());
            } else {
                *bound = wanted;
            }
        }
        _ => {}
    }
}

/// As [`in_index_order`], also through a secondary index: only the first rows are read.
fn in_any_index_order(node: &mut Node, keys: &[SortKey]) -> bool {
    let Node::Scan(scan) = node else { return false };
    if scan.filter.is_some() || !scan.path.probes.is_empty() {
        return false;
    }
    for place in 0..scan.table.indexes.len() {
        let mut trial = scan.clone();
        trial.path.index = Some(place);
        // One open probe makes the check look at this index alone.
        trial.path.probes = vec![super::node::Probe::default()];
        let mut trial = Node::Scan(trial);
        if in_index_order(&mut trial, keys)
            && let Node::Scan(mut ordered) = trial
        {
            ordered.path.probes.clear();
            *scan = ordered;
            return true;
        }
    }
    false
}
