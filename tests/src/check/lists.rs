//! Judges histories of appends to lists and reads of them.
//!
//! Values are unique per list, so the longest read of a list is the order of its versions, and every other read must
//! be a beginning of it. From that follow the dependencies, and from these the circles that a [`Level`] forbids.
//! Apart from circles, these are told at every level:
//!
//! | name | what was seen |
//! |---|---|
//! | `duplicate` | a value twice in one list |
//! | `phantom` | a value that nobody appended |
//! | `G1a` | a value whose transaction was refused |
//! | `G1b` | a list that ends between two appends of one transaction of somebody else |
//! | `incompatible-order` | two lists neither of which begins with the other: a version was lost or forked |
//! | `lost-append` | an acknowledged append that a read of its list, begun later, has not, and no longer read either |
//! | `internal` | a read that misses an own append or, from snapshots on, contradicts an earlier read of its own |
//!
//! Circles are named as in Elle: `G0`, `G1c`, `G-single`, `G-nonadjacent`, `G2`, with `-process` or `-realtime` behind
//! when the order of a process or of real time is needed to close them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::graph::{Circles, Graph, PROCESS, REALTIME, RW, WR, WW};
use super::history::{Operation, Step, Told};

/// What a history must keep. Real time counts at each of them, which PostgreSQL promises, and so do we: a transaction
/// that begins after another was acknowledged comes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// READ COMMITTED as PostgreSQL's: no circles of writes and reads of them.
    ReadCommitted,
    /// REPEATABLE READ as PostgreSQL's: strong snapshot isolation.
    Snapshot,
    /// SERIALIZABLE: strict serializability.
    Serializable,
}

impl Level {
    /// All of them, the weakest first.
    pub const ALL: [Self; 3] = [Self::ReadCommitted, Self::Snapshot, Self::Serializable];

    /// Its name in SQL.
    #[must_use]
    pub fn sql(self) -> &'static str {
        match self {
            Self::ReadCommitted => "READ COMMITTED",
            Self::Snapshot => "REPEATABLE READ",
            Self::Serializable => "SERIALIZABLE",
        }
    }
}

/// Something that must not have been seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// Its name: see the module.
    pub name: String,
    /// What happened, for people; may have several lines.
    pub what: String,
}

impl std::fmt::Display for Anomaly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.what)
    }
}

/// Judges a history. Gives what is wrong with it; nothing if it is right.
#[must_use]
pub fn check(operations: &[Operation], level: Level) -> Vec<Anomaly> {
    let mut judge = Judge::new(operations);
    judge.direct(level);
    if judge.wrong.is_empty() {
        judge.circles(level);
    }
    judge.wrong
}

/// A list and a value of it.
type Place = (u64, u64);

struct Judge<'a> {
    operations: &'a [Operation],
    /// Who appended what.
    appender: HashMap<Place, usize>,
    /// Last value that an operation appended to a list, for those that appended several to it.
    last_own: HashMap<(usize, u64), u64>,
    /// The order of versions.
    orders: BTreeMap<u64, Vec<u64>>,
    wrong: Vec<Anomaly>,
}

impl<'a> Judge<'a> {
    fn new(operations: &'a [Operation]) -> Self {
        let mut judge = Self {
            operations,
            appender: HashMap::new(),
            last_own: HashMap::new(),
            orders: BTreeMap::new(),
            wrong: Vec::new(),
        };
        for (at, operation) in operations.iter().enumerate() {
            for step in &operation.steps {
                if let Step::Append { key, value } = step {
                    judge.appender.insert((*key, *value), at);
                    judge.last_own.insert((at, *key), *value);
                }
            }
        }
        for (_, key, found) in reads(operations) {
            let order = judge.orders.entry(key).or_default();
            if found.len() > order.len() {
                *order = found.to_vec();
            }
        }
        judge
    }

    fn tell(&mut self, name: &str, what: String) {
        self.wrong.push(Anomaly { name: name.to_owned(), what });
    }

    fn direct(&mut self, level: Level) {
        for (key, order) in self.orders.clone() {
            let distinct: BTreeSet<u64> = order.iter().copied().collect();
            if distinct.len() != order.len() {
                self.tell("duplicate", format!("list {key} held {order:?}"));
            }
        }
        for (at, key, found) in reads(self.operations) {
            self.read(at, key, found);
        }
        for operation in self.operations.iter().filter(|operation| operation.told == Told::Acknowledged) {
            if let Some(what) = internal(operation, level) {
                self.tell("internal", what);
            }
        }
        self.lost();
    }

    /// What one read says by itself.
    fn read(&mut self, at: usize, key: u64, found: &[u64]) {
        let reader = &self.operations[at];
        let described = reader.describe();
        if !self.orders[&key].starts_with(found) {
            let order = self.orders[&key].clone();
            self.tell("incompatible-order", format!("{described}\n    but list {key} also held {order:?}"));
        }
        // What stands before the end was told of by the shorter reads or is told of by the longest.
        let is_longest = found.len() == self.orders[&key].len();
        let looked_at = if is_longest { found } else { &found[found.len().saturating_sub(1)..] };
        for value in looked_at {
            match self.appender.get(&(key, *value)) {
                None => self.tell("phantom", format!("nobody appended {value} to {key}: {described}")),
                Some(writer) if self.operations[*writer].told == Told::Refused => {
                    let writer = self.operations[*writer].describe();
                    self.tell("G1a", format!("{described}\n    saw {value} of {writer}"));
                }
                Some(_) => {}
            }
        }
        if let Some(last) = found.last()
            && let Some(writer) = self.appender.get(&(key, *last)).copied()
            && writer != at
            && self.last_own.get(&(writer, key)) != Some(last)
        {
            let writer = self.operations[writer].describe();
            self.tell("G1b", format!("{described}\n    saw the middle of {writer}"));
        }
    }

    fn lost(&mut self) {
        let there: BTreeSet<Place> =
            (self.orders.iter()).flat_map(|(key, order)| order.iter().map(|value| (*key, *value))).collect();
        let mut last_read: BTreeMap<u64, u64> = BTreeMap::new();
        for (at, key, _) in reads(self.operations) {
            let began = last_read.entry(key).or_default();
            *began = (*began).max(self.operations[at].began);
        }
        for operation in self.operations.iter().filter(|operation| operation.told == Told::Acknowledged) {
            for step in &operation.steps {
                let Step::Append { key, value } = step else { continue };
                let is_read_later = last_read.get(key).is_some_and(|began| *began > operation.ended);
                if is_read_later && !there.contains(&(*key, *value)) {
                    let what = format!("{value} of list {key} is nowhere: {}", operation.describe());
                    self.wrong.push(Anomaly { name: "lost-append".to_owned(), what });
                }
            }
        }
    }

    /// Looks for the circles that a level forbids, the worst first.
    fn circles(&mut self, level: Level) {
        let (graph, nodes) = self.graph();
        for (suffix, order) in [("", 0), ("-process", PROCESS), ("-realtime", REALTIME | PROCESS)] {
            let mut searches = vec![("G0", WW, Circles::All), ("G1c", WW | WR, Circles::All)];
            if level >= Level::Snapshot {
                searches.push(("G-single", WW | WR | RW, Circles::OneRw));
                searches.push(("G-nonadjacent", WW | WR | RW, Circles::NoTwoRw));
            }
            if level >= Level::Serializable {
                searches.push(("G2", WW | WR | RW, Circles::All));
            }
            for (name, reasons, circles) in searches {
                if let Some(circle) = graph.circle(reasons | order, circles) {
                    let what = describe(self.operations, &nodes, &circle);
                    self.tell(&format!("{name}{suffix}"), what);
                    return;
                }
            }
        }
    }

    /// Whether an operation took effect: it was acknowledged, or somebody saw an append of it.
    fn took_effect(&self, at: usize, seen: &BTreeSet<Place>) -> bool {
        let operation = &self.operations[at];
        operation.told == Told::Acknowledged
            || operation
                .steps
                .iter()
                .any(|step| matches!(step, Step::Append { key, value } if seen.contains(&(*key, *value))))
    }

    /// The graph, and the operation of each of its first nodes.
    fn graph(&self) -> (Graph, Vec<usize>) {
        let seen: BTreeSet<Place> =
            (self.orders.iter()).flat_map(|(key, order)| order.iter().map(|value| (*key, *value))).collect();
        let nodes: Vec<usize> =
            (0..self.operations.len()).filter(|at| self.took_effect(*at, &seen)).collect();
        let node_of: HashMap<usize, usize> = nodes.iter().enumerate().map(|(node, at)| (*at, node)).collect();
        let writer = |key: u64, value: Option<&u64>| {
            value.and_then(|value| node_of.get(self.appender.get(&(key, *value))?)).copied()
        };
        let mut graph = Graph::new(nodes.len());
        let mut link = |from: Option<usize>, to: Option<usize>, why: u8| {
            if let (Some(from), Some(to)) = (from, to) {
                graph.link(from, to, why);
            }
        };
        let mut place: HashMap<Place, usize> = HashMap::new();
        for (key, order) in &self.orders {
            for (index, value) in order.iter().enumerate() {
                place.insert((*key, *value), index);
                let next = writer(*key, order.get(index + 1));
                link(writer(*key, Some(value)), next, WW);
            }
        }
        for (at, key, found) in reads(self.operations) {
            let reader = node_of.get(&at).copied();
            link(writer(key, found.last()), reader, WR);
            link(reader, writer(key, self.orders[&key].get(found.len())), RW);
        }
        let mut last_of: BTreeMap<u64, usize> = BTreeMap::new();
        for (node, at) in nodes.iter().enumerate() {
            let before = last_of.insert(self.operations[*at].process, node);
            link(before, Some(node), PROCESS);
        }
        let interval = |at: &usize| {
            let operation = &self.operations[*at];
            (operation.began, (operation.told == Told::Acknowledged).then_some(operation.ended))
        };
        graph.moments(&nodes.iter().map(interval).collect::<Vec<_>>());
        (graph, nodes)
    }
}

/// Reads that count: operation, list, what was found.
fn reads(operations: &[Operation]) -> impl Iterator<Item = (usize, u64, &[u64])> {
    let acknowledged =
        operations.iter().enumerate().filter(|(_, operation)| operation.told == Told::Acknowledged);
    acknowledged.flat_map(|(at, operation)| {
        operation.steps.iter().filter_map(move |step| match step {
            Step::List { key, found } => Some((at, *key, found.as_slice())),
            _ => None,
        })
    })
}

/// How an operation contradicts itself.
fn internal(operation: &Operation, level: Level) -> Option<String> {
    let mut expected: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut own: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for step in &operation.steps {
        match step {
            Step::Append { key, value } => {
                own.entry(*key).or_default().push(*value);
                if let Some(list) = expected.get_mut(key) {
                    list.push(*value);
                }
            }
            Step::List { key, found } => {
                let own = own.get(key).map_or(&[][..], Vec::as_slice);
                let contradicts = expected.get(key).is_some_and(|list| list != found);
                if !found.ends_with(own) || (contradicts && level >= Level::Snapshot) {
                    return Some(operation.describe());
                }
                expected.insert(*key, found.clone());
            }
            Step::Write { .. } | Step::Read { .. } => {}
        }
    }
    None
}

fn describe(operations: &[Operation], nodes: &[usize], circle: &[(usize, u8)]) -> String {
    let mut lines = Vec::new();
    for (node, why) in circle {
        let word = match *why {
            WW => "was overwritten by",
            WR => "was read by",
            RW => "did not see the next",
            PROCESS => "came in its process before",
            _ => "was over before",
        };
        match nodes.get(*node) {
            Some(at) => lines.push(format!("{}\n      {word}", operations[*at].describe())),
            // Moments stand between what was over and what began later; they say nothing more.
            None => continue,
        }
    }
    lines.push("the first of these".to_owned());
    format!("\n    {}", lines.join("\n    "))
}
