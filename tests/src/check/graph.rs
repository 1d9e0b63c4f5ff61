//! Dependencies between transactions, and circles among them.
//!
//! An edge says that one transaction comes before another, and why, as a set of bits:
//!
//! ```text
//! WW        the other overwrote what the one wrote
//! WR        the other read what the one wrote
//! RW        the other overwrote what the one read
//! PROCESS   the same process did the one before the other
//! REALTIME  the one was over before the other began
//! ```
//!
//! A circle without `RW` is forbidden from READ COMMITTED on. Snapshot isolation forbids circles in which no two `RW`
//! follow one another, serializability all circles (Adya 1999; Cerone, Bernardi and Gotsman 2015). Real time is not
//! an edge for each pair but a chain of moments: [`Graph::moments`] nodes, as many as there are operations.

use std::collections::{BTreeMap, VecDeque};

/// See the module.
pub const WW: u8 = 1;
/// See the module.
pub const WR: u8 = 2;
/// See the module.
pub const RW: u8 = 4;
/// See the module.
pub const PROCESS: u8 = 8;
/// See the module.
pub const REALTIME: u8 = 16;

/// Transactions by number, then moments.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    edges: Vec<Vec<(usize, u8)>>,
}

/// Which circles are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circles {
    /// Any.
    All,
    /// With exactly one `RW`.
    OneRw,
    /// In which no two `RW` follow one another; others may be.
    NoTwoRw,
}

impl Graph {
    /// A graph without edges.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        Self { edges: vec![Vec::new(); nodes] }
    }

    /// One comes before the other. A transaction is not before itself.
    pub fn link(&mut self, from: usize, to: usize, why: u8) {
        if from != to {
            match self.edges[from].iter_mut().find(|(other, _)| *other == to) {
                Some((_, reasons)) => *reasons |= why,
                None => self.edges[from].push((to, why)),
            }
        }
    }

    /// Adds real time: `intervals` gives for each transaction its begin and, if that is known, its end.
    pub fn moments(&mut self, intervals: &[(u64, Option<u64>)]) {
        let mut ends: Vec<(u64, usize)> =
            intervals.iter().enumerate().filter_map(|(node, (_, end))| Some(((*end)?, node))).collect();
        ends.sort_unstable();
        let first = self.edges.len();
        self.edges.resize(first + ends.len(), Vec::new());
        for (moment, (_, node)) in ends.iter().enumerate() {
            self.edges[*node].push((first + moment, REALTIME));
            if moment > 0 {
                self.edges[first + moment - 1].push((first + moment, REALTIME));
            }
        }
        for (node, (began, _)) in intervals.iter().enumerate() {
            let before = ends.partition_point(|(ended, _)| ended < began);
            if before > 0 {
                self.edges[first + before - 1].push((node, REALTIME));
            }
        }
    }

    /// A short circle of edges that have one of the reasons `among`: its nodes, and why each is before the next.
    /// An edge with several reasons counts as the first of them in the order of the module.
    #[must_use]
    pub fn circle(&self, among: u8, circles: Circles) -> Option<Vec<(usize, u8)>> {
        let single = |reasons: u8| {
            let reasons = reasons & among;
            reasons & reasons.wrapping_neg()
        };
        // A node of the search is a transaction and how it was come to: see `next`.
        let layers = if circles == Circles::All { 1 } else { 2 };
        let next = |state: usize| {
            let (node, layer) = (state / layers, state % layers);
            self.edges[node].iter().filter_map(move |(to, reasons)| {
                let why = single(*reasons);
                let layer = match (circles, why) {
                    (_, 0) => return None,
                    (Circles::All, _) => 0,
                    // Layer 1: the one RW lies behind.
                    (Circles::OneRw, RW) if layer == 1 => return None,
                    (Circles::OneRw, RW) => 1,
                    (Circles::OneRw, _) => layer,
                    // Layer 1: the last step was an RW.
                    (Circles::NoTwoRw, RW) if layer == 1 => return None,
                    (Circles::NoTwoRw, RW) => 1,
                    (Circles::NoTwoRw, _) => 0,
                };
                Some((to * layers + layer, why))
            })
        };
        let states = self.edges.len() * layers;
        if circles == Circles::OneRw {
            return self.one_rw(among, single, next);
        }
        let components = components(states, |state| next(state).map(|(to, _)| to));
        let smallest = components.iter().min_by_key(|component| component.len())?;
        let inside: std::collections::BTreeSet<usize> = smallest.iter().copied().collect();
        let path =
            shortest(smallest[0], smallest[0], |state| next(state).filter(|(to, _)| inside.contains(to)))?;
        Some(path.into_iter().map(|(state, why)| (state / layers, why)).collect())
    }

    /// For each `RW`, whether a way without any leads back; only inside a component, so this is cheap when all is well.
    fn one_rw<I: Iterator<Item = (usize, u8)>>(
        &self,
        among: u8,
        single: impl Fn(u8) -> u8,
        next: impl Fn(usize) -> I,
    ) -> Option<Vec<(usize, u8)>> {
        let all = components(self.edges.len(), |node| {
            self.edges[node].iter().filter(|(_, reasons)| reasons & among != 0).map(|(to, _)| *to)
        });
        let mut best: Option<Vec<(usize, u8)>> = None;
        for component in all {
            let inside: std::collections::BTreeSet<usize> = component.iter().copied().collect();
            for from in &component {
                for (to, reasons) in &self.edges[*from] {
                    if single(*reasons) != RW || !inside.contains(to) {
                        continue;
                    }
                    let back = shortest(to * 2 + 1, from * 2 + 1, |state| {
                        next(state).filter(|(to, _)| inside.contains(&(to / 2)))
                    });
                    if let Some(back) = back
                        && best.as_ref().is_none_or(|best| back.len() + 1 < best.len())
                    {
                        let mut circle = vec![(*from, RW)];
                        circle.extend(back.into_iter().map(|(state, why)| (state / 2, why)));
                        best = Some(circle);
                    }
                }
            }
        }
        best
    }
}

/// The shortest way of at least one step: each state with the reason of the step that leaves it.
fn shortest<I: Iterator<Item = (usize, u8)>>(
    from: usize,
    to: usize,
    next: impl Fn(usize) -> I,
) -> Option<Vec<(usize, u8)>> {
    let mut before: BTreeMap<usize, (usize, u8)> = BTreeMap::new();
    let mut queue = VecDeque::from([from]);
    while let Some(state) = queue.pop_front() {
        for (reached, why) in next(state) {
            if before.contains_key(&reached) || (reached == from && reached != to) {
                continue;
            }
            before.insert(reached, (state, why));
            if reached == to {
                let mut path = Vec::new();
                let mut at = to;
                while path.is_empty() || at != from {
                    let (earlier, why) = before[&at];
                    path.push((earlier, why));
                    at = earlier;
                }
                path.reverse();
                return Some(path);
            }
            queue.push_back(reached);
        }
    }
    None
}

/// Strongly connected components of more than one node (Tarjan, without recursion).
fn components<I: Iterator<Item = usize>>(nodes: usize, next: impl Fn(usize) -> I) -> Vec<Vec<usize>> {
    const UNSEEN: usize = usize::MAX;
    let (mut index, mut low) = (vec![UNSEEN; nodes], vec![0; nodes]);
    let (mut stack, mut is_on_stack) = (Vec::new(), vec![false; nodes]);
    let (mut count, mut found) = (0, Vec::new());
    for root in 0..nodes {
        if index[root] != UNSEEN {
            continue;
        }
        let mut calls: Vec<(usize, Vec<usize>)> = Vec::new();
        let mut entered = Some(root);
        loop {
            if let Some(node) = entered.take() {
                (index[node], low[node]) = (count, count);
                count += 1;
                stack.push(node);
                is_on_stack[node] = true;
                calls.push((node, next(node).collect()));
            }
            let Some((node, rest)) = calls.last_mut() else { break };
            let node = *node;
            match rest.pop() {
                Some(to) if index[to] == UNSEEN => entered = Some(to),
                Some(to) if is_on_stack[to] => low[node] = low[node].min(index[to]),
                Some(_) => {}
                None => {
                    calls.pop();
                    if let Some((caller, _)) = calls.last() {
                        low[*caller] = low[*caller].min(low[node]);
                    }
                    if low[node] == index[node] {
                        let start = stack.iter().rposition(|on| *on == node).unwrap_or(0);
                        let component = stack.split_off(start);
                        component.iter().for_each(|node| is_on_stack[*node] = false);
                        if component.len() > 1 {
                            found.push(component);
                        }
                    }
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(usize, usize, u8)]) -> Graph {
        let mut graph = Graph::new(6);
        edges.iter().for_each(|(from, to, why)| graph.link(*from, *to, *why));
        graph
    }

    #[test]
    fn circles_are_told_apart_by_their_rw() {
        let all = WW | WR | RW;
        let single = graph(&[(0, 1, RW), (1, 2, WW), (2, 0, WR)]);
        assert_eq!(single.circle(WW | WR, Circles::All), None);
        assert_eq!(single.circle(all, Circles::OneRw).unwrap().len(), 3);
        assert_eq!(single.circle(all, Circles::NoTwoRw).unwrap().len(), 3);
        let skew = graph(&[(0, 1, RW), (1, 0, RW), (1, 2, WW)]);
        assert_eq!(skew.circle(all, Circles::OneRw), None);
        assert_eq!(skew.circle(all, Circles::NoTwoRw), None);
        assert_eq!(skew.circle(all, Circles::All).unwrap().len(), 2);
        let apart = graph(&[(0, 1, RW), (1, 2, WR), (2, 3, RW), (3, 0, WR)]);
        assert_eq!(apart.circle(all, Circles::OneRw), None);
        assert_eq!(apart.circle(all, Circles::NoTwoRw).unwrap().len(), 4);
        assert_eq!(graph(&[(0, 1, RW), (1, 2, WR), (0, 2, WW)]).circle(all, Circles::All), None);
    }

    #[test]
    fn an_edge_with_two_reasons_is_the_stronger() {
        let both = graph(&[(0, 1, RW | WW), (1, 0, RW)]);
        assert_eq!(both.circle(WW | WR | RW, Circles::OneRw).unwrap().len(), 2);
    }

    #[test]
    fn real_time_is_a_chain_of_moments() {
        let mut graph = Graph::new(3);
        graph.moments(&[(0, Some(1)), (2, Some(5)), (3, None)]);
        graph.link(2, 0, RW);
        assert!(graph.circle(WW | WR | RW, Circles::All).is_none());
        assert!(graph.circle(WW | WR | RW | REALTIME, Circles::All).is_some());
        let mut graph = Graph::new(3);
        graph.moments(&[(0, Some(1)), (2, Some(5)), (3, None)]);
        graph.link(2, 1, RW);
        assert!(graph.circle(WW | WR | RW | REALTIME, Circles::All).is_none(), "they overlap");
    }
}
