//! Makes rows narrow: columns that nobody asks for are not read, and go no further than where they were asked for last.
//!
//! From the top down each node is told which of its values are needed, and tells where they are in its rows afterwards;
//! expressions above are renumbered. So a node that only puts values in another order or leaves some out ends here,
//! save where the rows themselves are what is asked for: at the top, under DISTINCT and under set operations.

use super::node::{Join, JoinAlgorithm, Node, Scan};
use crate::scalar::Expr;

/// Where the values of a node's rows are now; absent for those that are gone.
type Places = Vec<Option<usize>>;

fn same(width: usize) -> Places {
    (0..width).map(Some).collect()
}

/// A node with the same rows, of which all values are needed as they are.
#[must_use]
pub fn exact(node: Node) -> Node {
    let width = node.width();
    let (node, places) = narrow(node, &vec![true; width]);
    if node.width() == width && places == same(width) {
        return node;
    }
    Node::Pick { columns: places.into_iter().map(Option::unwrap_or_default).collect(), input: Box::new(node) }
}

/// Notes the columns that expressions read.
fn mark<'e>(exprs: impl IntoIterator<Item = &'e Expr>, needed: &mut [bool]) {
    for expr in exprs {
        expr.visit(&mut |part| {
            if let Expr::Column { index, .. } = part
                && let Some(slot) = needed.get_mut(*index)
            {
                *slot = true;
            }
        });
    }
}

/// Renumbers the columns that expressions read.
fn renumber<'e>(exprs: impl IntoIterator<Item = &'e mut Expr>, places: &Places) {
    for expr in exprs {
        let place = |index: usize| places.get(index).copied().flatten().unwrap_or(index);
        *expr = std::mem::replace(expr, Expr::null()).map_columns(&mut |index| place(index));
    }
}

fn narrow(node: Node, needed: &[bool]) -> (Node, Places) {
    let width = node.width();
    match node {
        Node::Scan(scan) => narrow_scan(*scan, needed),
        Node::Filter { input, mut predicate } => {
            let mut wanted = needed.to_vec();
            mark([&predicate], &mut wanted);
            let (input, places) = narrow(*input, &wanted);
            renumber([&mut predicate], &places);
            (Node::Filter { input: Box::new(input), predicate }, places)
        }
        Node::Pick { input, columns } => {
            let mut wanted = vec![false; input.width()];
            for (column, _) in columns.iter().zip(needed).filter(|(_, needed)| **needed) {
                if let Some(slot) = wanted.get_mut(*column) {
                    *slot = true;
                }
            }
            let (input, places) = narrow(*input, &wanted);
            let place = |column: &usize| places.get(*column).copied().flatten();
            (input, columns.iter().map(place).collect())
        }
        Node::Project { input, exprs } => narrow_project(*input, exprs, needed),
        Node::ProjectSet { input, mut exprs } => {
            let mut wanted = vec![false; input.width()];
            mark(exprs.iter().flat_map(|(_, args)| args), &mut wanted);
            let (input, places) = narrow(*input, &wanted);
            renumber(exprs.iter_mut().flat_map(|(_, args)| args), &places);
            (Node::ProjectSet { input: Box::new(input), exprs }, same(width))
        }
        Node::Join(join) => narrow_join(*join, needed),
        Node::Aggregate(mut aggregate) => {
            let mut wanted = vec![false; aggregate.input.width()];
            mark(&aggregate.groups, &mut wanted);
            for call in &aggregate.calls {
                mark(call.args.iter().chain(&call.direct).chain(&call.filter), &mut wanted);
                mark(call.order_by.iter().map(|key| &key.expr), &mut wanted);
            }
            let (input, places) = narrow(aggregate.input, &wanted);
            aggregate.input = input;
            renumber(&mut aggregate.groups, &places);
            for call in &mut aggregate.calls {
                renumber(call.args.iter_mut().chain(&mut call.direct).chain(&mut call.filter), &places);
                renumber(call.order_by.iter_mut().map(|key| &mut key.expr), &places);
            }
            (Node::Aggregate(aggregate), same(width))
        }
        Node::Window(mut window) => {
            let mut wanted = needed.to_vec();
            wanted.truncate(window.input.width());
            mark(&window.partition, &mut wanted);
            mark(window.order.iter().map(|key| &key.expr), &mut wanted);
            mark(window.calls.iter().flat_map(|call| call.exprs()), &mut wanted);
            let (input, mut places) = narrow(window.input, &wanted);
            window.input = input;
            renumber(&mut window.partition, &places);
            renumber(window.order.iter_mut().map(|key| &mut key.expr), &places);
            renumber(window.calls.iter_mut().flat_map(|call| call.exprs_mut()), &places);
            let computed = window.input.width()..;
            places.extend(computed.take(window.calls.len()).map(Some));
            (Node::Window(window), places)
        }
        Node::Sort { input, mut keys, bound } => {
            let mut wanted = needed.to_vec();
            mark(keys.iter().map(|key| &key.expr), &mut wanted);
            let (input, places) = narrow(*input, &wanted);
            renumber(keys.iter_mut().map(|key| &mut key.expr), &places);
            (Node::Sort { input: Box::new(input), keys, bound }, places)
        }
        Node::Limit { input, limit, offset } => {
            let (input, places) = narrow(*input, needed);
            (Node::Limit { input: Box::new(input), limit, offset }, places)
        }
        Node::Distinct { input, on } => (Node::Distinct { input: Box::new(exact(*input)), on }, same(width)),
        Node::SetOp { operation, all, left, right } => {
            let (left, right) = (Box::new(exact(*left)), Box::new(exact(*right)));
            (Node::SetOp { operation, all, left, right }, same(width))
        }
        leaf @ (Node::Values { .. }
        | Node::Virtual { .. }
        | Node::Function { .. }
        | Node::Shared { .. }
        | Node::Recursive { .. }
        | Node::WorkTable { .. }) => (leaf, same(width)),
    }
}

/// Who locks or changes the rows of a scan needs them whole.
fn narrow_scan(mut scan: Scan, needed: &[bool]) -> (Node, Places) {
    let mut wanted = needed.to_vec();
    wanted.resize(scan.width(), false);
    mark(&scan.filter, &mut wanted);
    let mut places = same(scan.width());
    if scan.locator {
        scan.wanted = scan.layout.wanted(&wanted);
        return (Node::Scan(Box::new(scan)), places);
    }
    let columns: Vec<usize> = (0..places.len()).filter(|place| wanted.get(*place) == Some(&true)).collect();
    places = vec![None; places.len()];
    for (place, column) in columns.iter().enumerate() {
        if let Some(slot) = places.get_mut(*column) {
            *slot = Some(place);
        }
    }
    renumber(&mut scan.filter, &places);
    scan.wanted = scan.layout.wanted(&wanted);
    for wanted in &mut scan.wanted {
        wanted.slot = places.get(wanted.slot).copied().flatten().unwrap_or(wanted.slot);
    }
    scan.blank = scan.layout.blank(&columns);
    scan.columns = columns;
    (Node::Scan(Box::new(scan)), places)
}

/// What nobody asks for is not computed, save what has effects of its own.
fn narrow_project(input: Node, exprs: Vec<Expr>, needed: &[bool]) -> (Node, Places) {
    let mut places = vec![None; exprs.len()];
    let mut kept = Vec::with_capacity(exprs.len());
    for (place, (expr, needed)) in exprs.into_iter().zip(needed).enumerate() {
        if *needed || expr.is_volatile() {
            if let Some(slot) = places.get_mut(place) {
                *slot = Some(kept.len());
            }
            kept.push(expr);
        }
    }
    let mut wanted = vec![false; input.width()];
    mark(&kept, &mut wanted);
    let (input, below) = narrow(input, &wanted);
    renumber(&mut kept, &below);
    let column = |expr: &Expr| match expr {
        Expr::Column { index, .. } => Some(*index),
        _ => None,
    };
    // Its values are those of its input.
    if let Some(columns) = kept.iter().map(column).collect::<Option<Vec<usize>>>() {
        let places = places.into_iter().map(|place| place.and_then(|place| columns.get(place).copied()));
        return (input, places.collect());
    }
    (Node::Project { input: Box::new(input), exprs: kept }, places)
}

fn narrow_join(mut join: Join, needed: &[bool]) -> (Node, Places) {
    let mut wanted = needed.to_vec();
    mark(&join.condition, &mut wanted);
    let right_wanted = wanted.split_off(join.left.width().min(wanted.len()));
    let (mut left, mut right) = (wanted, right_wanted);
    match &join.algorithm {
        JoinAlgorithm::Hash { left: left_key, right: right_key } => {
            mark(left_key, &mut left);
            mark(right_key, &mut right);
        }
        JoinAlgorithm::Lateral { outer } => mark(outer, &mut left),
        JoinAlgorithm::IndexLookup => {
            if let Node::Scan(scan) = &join.right {
                scan.path.probes.iter().for_each(|probe| mark(probe.exprs(), &mut left));
            }
        }
        JoinAlgorithm::NestedLoop => {}
    }
    let (left, left_places) = narrow(join.left, &left);
    let (right, right_places) = narrow(join.right, &right);
    (join.left, join.right) = (left, right);
    match &mut join.algorithm {
        JoinAlgorithm::Hash { left, right } => {
            renumber(left, &left_places);
            renumber(right, &right_places);
        }
        JoinAlgorithm::Lateral { outer } => renumber(outer, &left_places),
        JoinAlgorithm::IndexLookup => {
            if let Node::Scan(scan) = &mut join.right {
                for probe in &mut scan.path.probes {
                    renumber(probe.exprs_mut(), &left_places);
                }
            }
        }
        JoinAlgorithm::NestedLoop => {}
    }
    let split = join.left.width();
    let mut places = left_places;
    places.extend(right_places.into_iter().map(|place| place.map(|place| place + split)));
    renumber(&mut join.condition, &places);
    (Node::Join(Box::new(join)), places)
}
