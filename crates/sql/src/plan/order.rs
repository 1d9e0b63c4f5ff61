//! The order of inner joins: which two relations are joined first, and which side of each join is looked through.
//!
//! ```text
//!   a, b, c, d  ── conditions of one relation go to it ──► leaves with estimated rows
//!               ── cheapest way to each set of leaves  ──► ((b * a) * d) * c
//!               ── values back where they were written ──► pick
//! ```
//!
//! Each step joins one more leaf to what is joined already, which may stand on either side: a hash table is made of
//! the right one. With up to [`EXACT_MAX`] leaves every order is tried, set by set; with more the cheapest next step
//! is taken each time. Equal values form classes, so that `a = b AND b = c` may join `a` with `c`.

use std::ops::Range;

use super::cost;
use super::node::{Join, JoinAlgorithm, JoinKind, Node};
use super::optimize::{Optimizer, filtered, origin, rows};
use super::path::{column_span, conjuncts};
use crate::scalar::{CompareOp, Expr};

/// Most leaves of which every order is tried.
const EXACT_MAX: usize = 9;
/// Most leaves that are put into an order at all: a set of them is a number's bits.
const LEAF_MAX: usize = 64;
/// Making an entry of a hash table, finding one, and making a row of a pair.
const BUILD: f64 = cost::ROW * 1.5;
const PROBE: f64 = cost::ROW;
const PAIR: f64 = cost::ROW / 2.0;
/// The share of pairs that satisfies a condition over several relations of which nothing is known.
const CONDITION: f64 = 1.0 / 3.0;
/// Distinct values of what nothing is known of.
const DISTINCT: f64 = 200.0;

/// Whether the rows of a join are all pairs that satisfy its conditions, wherever these are asked.
fn is_free(join: &Join) -> bool {
    join.kind == JoinKind::Inner && matches!(join.algorithm, JoinAlgorithm::NestedLoop)
}

/// Whether the relations of a join can be put into another order.
pub(super) fn can_order(join: &Join) -> bool {
    fn count(node: &Node) -> usize {
        match node {
            Node::Join(join) if is_free(join) => count(&join.left) + count(&join.right),
            Node::Filter { input, .. } => count(input),
            _ => 1,
        }
    }
    is_free(join) && count(&join.left) + count(&join.right) <= LEAF_MAX
}

/// One relation of a join of several.
struct Leaf {
    node: Node,
    /// Its values among those of the whole join as it was written.
    columns: Range<usize>,
    rows: f64,
    cost: f64,
}

/// A condition over several leaves.
struct Condition {
    expr: Expr,
    leaves: u64,
    /// The share of pairs that satisfies it.
    share: f64,
}

/// Columns that are equal: one of each leaf, and how many distinct values it has.
struct Class {
    members: Vec<(usize, Expr, f64)>,
}

impl Class {
    /// The share of the combinations of some leaves' rows in which its columns are equal.
    fn share(&self, leaves: u64) -> f64 {
        let counts =
            self.members.iter().filter(|(leaf, ..)| leaves >> leaf & 1 > 0).map(|(.., distinct)| *distinct);
        let (mut all, mut least) = (1.0, f64::MAX);
        for count in counts {
            all *= count.max(1.0);
            least = least.min(count.max(1.0));
        }
        if least == f64::MAX { 1.0 } else { least / all }
    }
}

/// The cheapest way that was found to join some leaves.
#[derive(Clone, Copy)]
struct Way {
    cost: f64,
    rows: f64,
    /// What was joined before, the leaf that was added, and whether that stands on the left.
    last: Option<(u64, usize, bool)>,
}

/// A part of the join that is made, with the place that each of its values had in the join as it was written.
struct Made {
    node: Node,
    layout: Vec<usize>,
}

/// What is known of a join of several.
struct Joined {
    leaves: Vec<Leaf>,
    conditions: Vec<Condition>,
    classes: Vec<Class>,
}

fn leaf_of(leaves: &[Leaf], column: usize) -> Option<usize> {
    leaves.iter().position(|leaf| leaf.columns.contains(&column))
}

/// The leaves whose values an expression reads.
fn leaves_of(expr: &Expr, leaves: &[Leaf]) -> u64 {
    let mut found = 0;
    expr.visit(&mut |part| {
        if let Expr::Column { index, .. } = part
            && let Some(leaf) = leaf_of(leaves, *index)
        {
            found |= 1 << leaf;
        }
    });
    found
}

/// The relations of a join, and the conditions of all joins within it, over its values as it was written.
fn flatten(node: Node, base: usize, leaves: &mut Vec<Leaf>, conditions: &mut Vec<Expr>) {
    let moved = |part: Expr| part.map_columns(&mut |index| index + base);
    match node {
        Node::Join(join) if is_free(&join) => {
            let width = join.left.width();
            conditions.extend(join.condition.map(conjuncts).unwrap_or_default().into_iter().map(moved));
            flatten(join.left, base, leaves, conditions);
            flatten(join.right, base + width, leaves, conditions);
        }
        Node::Filter { input, predicate } if matches!(input.as_ref(), Node::Join(join) if is_free(join)) => {
            conditions.extend(conjuncts(predicate).into_iter().map(moved));
            flatten(*input, base, leaves, conditions);
        }
        node => {
            let columns = base..base + node.width();
            leaves.push(Leaf { node, columns, rows: 1.0, cost: 0.0 });
        }
    }
}

/// The two columns that a condition says are equal, if they have one type.
fn equal_columns(expr: &Expr) -> Option<(&Expr, &Expr)> {
    match expr {
        Expr::Compare { op: CompareOp::Eq, left, right }
            if matches!((left.as_ref(), right.as_ref()), (Expr::Column { .. }, Expr::Column { .. }))
                && left.ty().base == right.ty().base =>
        {
            Some((left, right))
        }
        _ => None,
    }
}

/// Puts columns that are equal into classes; gives the conditions that are none of them. A class has one column of
/// each leaf at most, so that it says no more than what was written.
fn classes(conditions: Vec<Expr>, leaves: &[Leaf]) -> (Vec<Vec<(usize, Expr)>>, Vec<Expr>) {
    let mut found: Vec<Vec<(usize, Expr)>> = Vec::new();
    let mut rest = Vec::new();
    for condition in conditions {
        let members = equal_columns(&condition).and_then(|(left, right)| {
            let member = |side: &Expr| match side {
                Expr::Column { index, .. } => Some((leaf_of(leaves, *index)?, side.clone())),
                _ => None,
            };
            Some([member(left)?, member(right)?])
        });
        let Some(members) = members else {
            rest.push(condition);
            continue;
        };
        let place = |found: &[Vec<(usize, Expr)>], member: &(usize, Expr)| {
            found.iter().position(|class| class.contains(member))
        };
        let [first, second] = members;
        let (a, b) = (place(&found, &first), place(&found, &second));
        if a.is_some() && a == b {
            // It follows from the others.
            continue;
        }
        let class = |place: Option<usize>, member: (usize, Expr)| {
            place.and_then(|place| found.get(place).cloned()).unwrap_or_else(|| vec![member])
        };
        let mut joined = class(a, first);
        joined.extend(class(b, second));
        let mut seen = 0_u64;
        let is_apart = joined.iter().all(|(leaf, _)| {
            let is_new = seen >> leaf & 1 == 0;
            seen |= 1 << leaf;
            is_new
        });
        if !is_apart {
            rest.push(condition);
            continue;
        }
        let mut former: Vec<usize> = a.into_iter().chain(b).collect();
        former.sort_unstable();
        for place in former.into_iter().rev() {
            found.swap_remove(place);
        }
        found.push(joined);
    }
    (found, rest)
}

/// A condition that compares a column with a value that is the same for all rows.
fn fixed_column(condition: &Expr) -> Option<(&Expr, &Expr)> {
    let Expr::Compare { op: CompareOp::Eq, left, right } = condition else { return None };
    let is_fixed = |side: &Expr| matches!(side, Expr::Const { .. } | Expr::Param { .. } | Expr::Outer { .. });
    match (left.as_ref(), right.as_ref()) {
        (Expr::Column { .. }, value) if is_fixed(value) => Some((left, right)),
        (value, Expr::Column { .. }) if is_fixed(value) => Some((right, left)),
        _ => None,
    }
}

/// What the branches of an OR say of one leaf, where each says something.
fn restriction(expr: &Expr, leaf: u64, leaves: &[Leaf]) -> Option<Expr> {
    let Expr::Or(branches) = expr else { return None };
    let mut said = Vec::with_capacity(branches.len());
    for branch in branches {
        let own: Vec<Expr> =
            conjuncts(branch.clone()).into_iter().filter(|part| leaves_of(part, leaves) == leaf).collect();
        if own.is_empty() {
            return None;
        }
        said.push(Expr::and(own));
    }
    Some(Expr::Or(said))
}

impl Optimizer<'_> {
    /// Joins of inner joins in the order that costs least, with conditions from above.
    pub(super) fn order(&self, join: Join, mut parts: Vec<Expr>) -> Node {
        let width = join.left.width() + join.right.width();
        let (mut leaves, mut conditions) = (Vec::new(), Vec::new());
        flatten(Node::Join(Box::new(join)), 0, &mut leaves, &mut conditions);
        conditions.append(&mut parts);
        // What may answer differently each time is asked of the rows that are left.
        let (above, conditions): (Vec<Expr>, Vec<Expr>) =
            conditions.into_iter().partition(|part| part.is_volatile() || column_span(part).is_none());
        let mut own: Vec<Vec<Expr>> = leaves.iter().map(|_| Vec::new()).collect();
        let mut among = Vec::new();
        for part in conditions {
            let read = leaves_of(&part, &leaves);
            match own.get_mut(read.trailing_zeros() as usize).filter(|_| read.is_power_of_two()) {
                Some(own) => own.push(part),
                None => {
                    for (place, own) in own.iter_mut().enumerate().filter(|(place, _)| read >> place & 1 > 0)
                    {
                        own.extend(restriction(&part, 1 << place, &leaves));
                    }
                    among.push(part);
                }
            }
        }
        let (classes, rest) = classes(among, &leaves);
        // What is known of one member is known of all.
        for class in &classes {
            let known: Vec<(Expr, Expr)> = (own.iter().flatten())
                .filter_map(fixed_column)
                .filter(|(column, _)| class.iter().any(|(_, member)| member == *column))
                .map(|(column, value)| (column.clone(), value.clone()))
                .collect();
            for (column, value) in known {
                for (leaf, member) in class.iter().filter(|(_, member)| *member != column) {
                    let (left, right) = (Box::new(member.clone()), Box::new(value.clone()));
                    let derived = Expr::Compare { op: CompareOp::Eq, left, right };
                    if let Some(own) = own.get_mut(*leaf).filter(|own| !own.contains(&derived)) {
                        own.push(derived);
                    }
                }
            }
        }
        for (leaf, own) in leaves.iter_mut().zip(own) {
            let start = leaf.columns.start;
            let own = own.into_iter().map(|part| part.map_columns(&mut |index| index - start)).collect();
            let node = std::mem::replace(&mut leaf.node, Node::one_row());
            leaf.node = self.push(node, own);
            (leaf.rows, leaf.cost) = (rows(&leaf.node).max(1.0), cost::of(&leaf.node, self.catalog).total);
        }
        let joined = self.joined(leaves, classes, rest);
        let made =
            if joined.leaves.len() <= EXACT_MAX { joined.by_sets(self) } else { joined.by_steps(self) };
        let mut places = vec![0; width];
        for (place, column) in made.layout.iter().enumerate() {
            if let Some(slot) = places.get_mut(*column) {
                *slot = place;
            }
        }
        let is_moved = places.iter().enumerate().any(|(column, place)| column != *place);
        let node =
            if is_moved { Node::Pick { input: Box::new(made.node), columns: places } } else { made.node };
        filtered(node, above)
    }

    fn joined(&self, leaves: Vec<Leaf>, classes: Vec<Vec<(usize, Expr)>>, rest: Vec<Expr>) -> Joined {
        let distinct = |leaf: usize, expr: &Expr| {
            let (Some(leaf), Expr::Column { index, .. }) = (leaves.get(leaf), expr) else { return DISTINCT };
            let place = index.saturating_sub(leaf.columns.start);
            self.distinct_values(&leaf.node, place).unwrap_or(DISTINCT).min(leaf.rows).max(1.0)
        };
        let class = |members: Vec<(usize, Expr)>| Class {
            members: members
                .into_iter()
                .map(|(leaf, expr)| (leaf, expr.clone(), distinct(leaf, &expr)))
                .collect(),
        };
        let classes = classes.into_iter().map(class).collect();
        let condition = |expr: Expr| {
            let share = match &expr {
                Expr::Compare { op: CompareOp::Eq, left, right } => {
                    let side = |side: &Expr| match side {
                        Expr::Column { index, .. } => {
                            leaf_of(&leaves, *index).map_or(DISTINCT, |leaf| distinct(leaf, side))
                        }
                        _ => DISTINCT,
                    };
                    1.0 / side(left).max(side(right))
                }
                Expr::Or(branches) => (CONDITION * branches.len() as f64 / 10.0).min(CONDITION),
                _ => CONDITION,
            };
            Condition { leaves: leaves_of(&expr, &leaves), expr, share }
        };
        let conditions = rest.into_iter().map(condition).collect();
        Joined { conditions, classes, leaves }
    }

    /// How many distinct values a value of a node's rows has, if statistics or a unique index tell.
    fn distinct_values(&self, node: &Node, place: usize) -> Option<f64> {
        let (scan, column) = origin(node, place)?;
        let statistics = self.catalog.statistics(scan.table.oid);
        let total = statistics.map_or(cost::DEFAULT_ROWS, |known| known.rows.max(1.0));
        let is_key = scan.table.indexes.iter().any(|index| {
            index.is_unique()
                && index.predicate.is_none()
                && matches!(index.key.as_slice(), [only] if scan.table.key_place(only.column) == Some(column))
        });
        if is_key {
            return Some(total);
        }
        let id = scan.table.columns.get(column)?.id;
        Some(statistics?.columns.get(&id.get())?.distinct_of(total))
    }
}

impl Joined {
    /// Estimated rows of the join of some leaves.
    fn rows(&self, set: u64) -> f64 {
        let of_leaves = self.leaves.iter().enumerate().filter(|(place, _)| set >> place & 1 > 0);
        let mut rows: f64 = of_leaves.map(|(_, leaf)| leaf.rows).product();
        rows *= self.classes.iter().map(|class| class.share(set)).product::<f64>();
        let held = self.conditions.iter().filter(|condition| condition.leaves & !set == 0);
        (rows * held.map(|condition| condition.share).product::<f64>()).max(1.0)
    }

    /// Conditions that say that a value of a leaf equals one of others: both of them, over the values of the whole join.
    fn pairs(&self, set: u64, leaf: usize) -> Vec<(Expr, Expr)> {
        let mut found = Vec::new();
        for class in &self.classes {
            let own = class.members.iter().find(|(member, ..)| *member == leaf);
            let other = class.members.iter().find(|(member, ..)| set >> member & 1 > 0);
            if let (Some((_, own, _)), Some((_, other, _))) = (own, other) {
                found.push((other.clone(), own.clone()));
            }
        }
        for condition in &self.conditions {
            let Expr::Compare { op: CompareOp::Eq, left, right } = &condition.expr else { continue };
            let (on_left, on_right) = (leaves_of(left, &self.leaves), leaves_of(right, &self.leaves));
            let one = 1_u64 << leaf;
            if on_left == one && on_right & !set == 0 && on_right > 0 {
                found.push((right.as_ref().clone(), left.as_ref().clone()));
            } else if on_right == one && on_left & !set == 0 && on_left > 0 {
                found.push((left.as_ref().clone(), right.as_ref().clone()));
            }
        }
        found
    }

    /// The cheapest way to join a leaf to what is joined already.
    fn step(&self, before: (u64, Way), leaf: usize, optimizer: &Optimizer<'_>) -> Option<Way> {
        let ((set, way), added) = (before, self.leaves.get(leaf)?);
        let result = self.rows(set | 1 << leaf);
        let both = way.cost + added.cost + result * PAIR;
        let pairs = self.pairs(set, leaf);
        let (mut cost, mut is_left) = (both + way.rows * added.rows * cost::EXPRESSION, false);
        if !pairs.is_empty() {
            let looked_through = both + way.rows * PROBE + added.rows * BUILD;
            let kept = both + added.rows * PROBE + way.rows * BUILD;
            (cost, is_left) = if kept < looked_through { (kept, true) } else { (looked_through, false) };
            let start = added.columns.start;
            let pairs: Vec<(Expr, Expr)> = pairs
                .into_iter()
                .map(|(other, own)| (other, own.map_columns(&mut |index| index - start)))
                .collect();
            if let Node::Scan(scan) = &added.node
                && let Some(found) = optimizer.lookup(scan, pairs.iter().map(|(other, own)| (other, own)))
            {
                let lookups = way.cost + result * PAIR + way.rows * found.cost;
                if lookups < cost {
                    (cost, is_left) = (lookups, false);
                }
            }
        }
        Some(Way { cost, rows: result, last: Some((set, leaf, is_left)) })
    }

    fn first(&self, leaf: usize) -> Way {
        let (cost, rows) = self.leaves.get(leaf).map_or((0.0, 1.0), |leaf| (leaf.cost, leaf.rows));
        Way { cost, rows, last: None }
    }

    /// The cheapest way of all.
    fn by_sets(self, optimizer: &Optimizer<'_>) -> Made {
        let count = self.leaves.len();
        let mut ways: Vec<Option<Way>> = vec![None; 1 << count];
        for leaf in 0..count {
            if let Some(slot) = ways.get_mut(1 << leaf) {
                *slot = Some(self.first(leaf));
            }
        }
        for set in 1_u64..1 << count {
            let Some(way) = ways.get(set as usize).copied().flatten() else { continue };
            for leaf in (0..count).filter(|leaf| set >> leaf & 1 == 0) {
                let Some(next) = self.step((set, way), leaf, optimizer) else { continue };
                if let Some(slot) = ways.get_mut((set | 1 << leaf) as usize)
                    && slot.is_none_or(|known| next.cost < known.cost)
                {
                    *slot = Some(next);
                }
            }
        }
        let mut steps = Vec::new();
        let mut set = (1_u64 << count) - 1;
        while let Some((before, leaf, is_left)) =
            ways.get(set as usize).copied().flatten().and_then(|way| way.last)
        {
            steps.push((leaf, is_left));
            set = before;
        }
        steps.push((set.trailing_zeros() as usize, false));
        steps.reverse();
        self.make(&steps, optimizer)
    }

    /// The cheapest next step each time, from the leaf with the fewest rows on.
    fn by_steps(self, optimizer: &Optimizer<'_>) -> Made {
        let count = self.leaves.len().min(LEAF_MAX);
        let rows = |leaf: &usize| self.leaves.get(*leaf).map_or(f64::MAX, |leaf| leaf.rows);
        let first = (0..count).min_by(|a, b| rows(a).total_cmp(&rows(b))).unwrap_or(0);
        let mut steps = vec![(first, false)];
        let (mut set, mut way) = (1_u64 << first, self.first(first));
        while steps.len() < count {
            let rest = (0..count).filter(|leaf| set >> leaf & 1 == 0);
            let next = rest.filter_map(|leaf| self.step((set, way), leaf, optimizer));
            let Some(next) = next.min_by(|a, b| a.cost.total_cmp(&b.cost)) else { break };
            let Some((before, leaf, is_left)) = next.last else { break };
            steps.push((leaf, is_left));
            (set, way) = (before | 1 << leaf, next);
        }
        self.make(&steps, optimizer)
    }

    /// Makes the joins in an order.
    fn make(mut self, steps: &[(usize, bool)], optimizer: &Optimizer<'_>) -> Made {
        let mut made: Option<Made> = None;
        let mut set = 0_u64;
        for (leaf, is_left) in steps {
            let Some(own) = self.leaves.get_mut(*leaf) else { continue };
            let node = std::mem::replace(&mut own.node, Node::one_row());
            let added = Made { node, layout: own.columns.clone().collect() };
            let before = set;
            set |= 1 << leaf;
            let Some(former) = made.take() else {
                made = Some(added);
                continue;
            };
            let mut due = Vec::new();
            for class in &self.classes {
                let new = class.members.iter().find(|(member, ..)| member == leaf);
                let known = class.members.iter().find(|(member, ..)| before >> member & 1 > 0);
                if let (Some((_, new, _)), Some((_, known, _))) = (new, known) {
                    let (left, right) = (Box::new(known.clone()), Box::new(new.clone()));
                    due.push(Expr::Compare { op: CompareOp::Eq, left, right });
                }
            }
            let is_due =
                |condition: &&Condition| condition.leaves & !set == 0 && condition.leaves & !before != 0;
            due.extend(self.conditions.iter().filter(is_due).map(|condition| condition.expr.clone()));
            let (left, right) = if *is_left { (added, former) } else { (former, added) };
            made = Some(join(left, right, due, optimizer));
        }
        made.unwrap_or_else(|| Made { node: Node::one_row(), layout: Vec::new() })
    }
}

fn join(left: Made, right: Made, conditions: Vec<Expr>, optimizer: &Optimizer<'_>) -> Made {
    let width = left.layout.len();
    let layout: Vec<usize> = left.layout.into_iter().chain(right.layout).collect();
    let place = |column: usize| layout.iter().position(|known| *known == column).unwrap_or(column);
    let mut conditions: Vec<Expr> =
        conditions.into_iter().map(|part| part.map_columns(&mut |column| place(column))).collect();
    let mut join = Join {
        left: left.node,
        right: right.node,
        kind: JoinKind::Inner,
        condition: None,
        algorithm: JoinAlgorithm::NestedLoop,
    };
    optimizer.choose_algorithm(&mut join, &mut conditions, width);
    join.condition = (!conditions.is_empty()).then(|| Expr::and(conditions));
    Made { node: Node::Join(Box::new(join)), layout }
}
