//! What transactions did and saw, and whether some one order of them explains it all.
//!
//! Transactions append unique values to lists and read lists. The lists at the end give the order of the appends to
//! each; from it follow the edges of a graph whose nodes are the transactions that took effect:
//!
//! ```text
//!   appended v ──► appended what stands behind v                 it was overwritten
//!   appended v ──► read a list that ends with v                  it was read
//!   read a list ──► appended what stands behind what was read    it was not seen
//!   acknowledged ──► began later, linearizable                   real time
//! ```
//!
//! A circle means that no order explains what was seen: a lost update, a torn snapshot, write skew, a stale read.
//! This is Elle's method for append lists (Kingsbury and Alvaro, VLDB 2020), with real time, hence for strict
//! serializability. Apart from the graph: acknowledged is there once, refused is not there, unknown is wholly there
//! or wholly absent, and each read is a prefix of the end.

use std::collections::{BTreeMap, BTreeSet};

use rustydb_types::ids::GroupId;

use super::oracle::{Counts, Told};
use crate::check::graph::{Circles, Graph, REALTIME, RW, WR, WW};

/// Lists by number.
pub type Lists = BTreeMap<u64, Vec<u64>>;

/// What one transaction did and saw.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where.
    pub group: GroupId,
    /// Its place in real time: see [`History::tick`].
    pub began: u64,
    /// When its end was known, if it was.
    pub ended: u64,
    /// Whether it must see what was acknowledged before it began.
    pub is_linearizable: bool,
    /// Lists and what was found there, own appends included.
    pub reads: Vec<(u64, Vec<u64>)>,
    /// Lists and values appended.
    pub appends: Vec<(u64, u64)>,
    /// What the client was told in the end.
    pub told: Told,
}

/// All transactions of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    ticks: u64,
    values: u64,
    changes: u64,
    records: Vec<Record>,
    wrong: Vec<String>,
    counts: Counts,
}

impl History {
    /// The next moment: later than all before.
    pub fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }

    /// A value that was never used before.
    pub fn next_value(&mut self) -> u64 {
        self.values += 1;
        self.values
    }

    /// How many values there were so far.
    #[must_use]
    pub fn values(&self) -> u64 {
        self.values
    }

    /// Whether one of so many changes is left; if so, it is taken.
    pub fn may_change(&mut self, changes_max: u64) -> bool {
        self.changes += 1;
        self.changes <= changes_max
    }

    /// A transaction is over.
    pub fn record(&mut self, record: Record) {
        match record.told {
            Told::Acknowledged if record.appends.is_empty() => self.counts.reads += 1,
            Told::Acknowledged => self.counts.acknowledged += 1,
            Told::Refused => self.counts.refused += 1,
            Told::Unknown => self.counts.unknown += 1,
        }
        self.counts.steps += (record.reads.len() + record.appends.len()) as u64;
        self.records.push(record);
    }

    /// Something was seen that may never be seen.
    pub fn wrong(&mut self, wrong: String) {
        self.wrong.push(wrong);
    }

    /// How many transactions ended how.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Holds everything against the lists of a group at the end. Gives what is wrong.
    #[must_use]
    pub fn check(&self, group: GroupId, end: &Lists) -> Vec<String> {
        let mut wrong = self.wrong.clone();
        let records: Vec<&Record> = self.records.iter().filter(|record| record.group == group).collect();
        let mut there: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        for (list, values) in end {
            for value in values {
                *there.entry((*list, *value)).or_default() += 1;
            }
        }
        let mut effective = Vec::new();
        for record in &records {
            if check_fate(record, &mut there, &mut wrong) {
                effective.push(*record);
            }
        }
        for ((list, value), times) in there {
            wrong.push(format!("value {value} of list {list} is there {times} times and was never appended"));
        }
        for record in &effective {
            for (list, saw) in &record.reads {
                if !end.get(list).map_or(&[][..], Vec::as_slice).starts_with(saw) {
                    wrong.push(format!("{record:?} saw in list {list} what is no prefix of the end"));
                }
            }
        }
        if wrong.is_empty() {
            wrong.extend(find_circle(&effective, end));
        }
        wrong.into_iter().map(|wrong| format!("group {group}: {wrong}")).collect()
    }
}

/// Whether a transaction took effect; takes what it appended out of `there`.
fn check_fate(record: &Record, there: &mut BTreeMap<(u64, u64), u64>, wrong: &mut Vec<String>) -> bool {
    let mut present = BTreeSet::new();
    for place in &record.appends {
        let times = there.remove(place).unwrap_or(0);
        present.insert(times > 0);
        if times > 1 {
            wrong.push(format!("{place:?} is there {times} times: {record:?}"));
        }
    }
    if present.len() > 1 {
        wrong.push(format!("in part there: {record:?}"));
    }
    let is_there = present.contains(&true);
    match record.told {
        Told::Acknowledged if present.contains(&false) => {
            wrong.push(format!("acknowledged and lost: {record:?}"))
        }
        Told::Refused if is_there => wrong.push(format!("refused and there: {record:?}")),
        Told::Acknowledged | Told::Refused | Told::Unknown => {}
    }
    is_there || record.told == Told::Acknowledged
}

/// What comes before what: see the module. Its first nodes are the records.
fn graph(records: &[&Record], end: &Lists) -> Graph {
    let appender: BTreeMap<(u64, u64), usize> = (records.iter().enumerate())
        .flat_map(|(node, record)| record.appends.iter().map(move |place| (*place, node)))
        .collect();
    let mut graph = Graph::new(records.len());
    let mut link = |from: Option<&usize>, to: Option<&usize>, why: u8| {
        if let (Some(from), Some(to)) = (from, to) {
            graph.link(*from, *to, why);
        }
    };
    for (list, values) in end {
        let nodes = values.iter().map(|value| appender.get(&(*list, *value)));
        for (one, next) in nodes.clone().zip(nodes.skip(1)) {
            link(one, next, WW);
        }
    }
    for (node, record) in records.iter().enumerate() {
        for (list, saw) in &record.reads {
            let last = saw.last().and_then(|value| appender.get(&(*list, *value)));
            link(last, Some(&node), WR);
            // An own append that was read is not what stands behind the read.
            let next = end.get(list).and_then(|values| values.get(saw.len()));
            link(Some(&node), next.and_then(|value| appender.get(&(*list, *value))), RW);
        }
    }
    let interval = |record: &&Record| {
        // One that may be stale comes after nothing.
        let began = if record.is_linearizable { record.began } else { 0 };
        (began, (record.told == Told::Acknowledged).then_some(record.ended))
    };
    graph.moments(&records.iter().map(interval).collect::<Vec<_>>());
    graph
}

fn find_circle(records: &[&Record], end: &Lists) -> Option<String> {
    let circle = graph(records, end).circle(WW | WR | RW | REALTIME, Circles::All)?;
    let told: Vec<String> = (circle.iter())
        .filter_map(|(node, _)| records.get(*node))
        .map(|record| format!("{record:?}"))
        .collect();
    Some(format!("no order explains these:\n    {}", told.join("\n    ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId::new(3);

    /// A transaction from `began` to `ended`.
    fn record(began: u64, ended: u64, reads: &[(u64, &[u64])], appends: &[(u64, u64)]) -> Record {
        Record {
            group: GROUP,
            began,
            ended,
            is_linearizable: true,
            reads: reads.iter().map(|(list, saw)| (*list, saw.to_vec())).collect(),
            appends: appends.to_vec(),
            told: Told::Acknowledged,
        }
    }

    fn check(records: Vec<Record>, end: &[(u64, &[u64])]) -> Vec<String> {
        let mut history = History::default();
        records.into_iter().for_each(|record| history.record(record));
        history.check(GROUP, &end.iter().map(|(list, values)| (*list, values.to_vec())).collect())
    }

    #[test]
    fn right_histories_pass() {
        let told = vec![
            record(1, 5, &[(1, &[])], &[(1, 10)]),
            record(2, 4, &[(1, &[])], &[]),
            record(6, 9, &[(1, &[10])], &[(1, 11), (2, 20)]),
            record(7, 8, &[(1, &[10]), (2, &[])], &[]),
        ];
        assert_eq!(check(told, &[(1, &[10, 11]), (2, &[20])]), Vec::<String>::new());
    }

    #[test]
    fn fates_are_held_against_the_end() {
        let one = |told| vec![Record { told, ..record(1, 2, &[], &[(1, 10), (2, 20)]) }];
        assert_eq!(check(one(Told::Acknowledged), &[]).len(), 1, "lost");
        assert_eq!(check(one(Told::Unknown), &[]).len(), 0, "unknown and absent");
        assert_eq!(check(one(Told::Unknown), &[(1, &[10]), (2, &[20])]).len(), 0, "unknown and there");
        assert_eq!(check(one(Told::Unknown), &[(1, &[10])]).len(), 1, "half of it");
        assert_eq!(check(one(Told::Unknown), &[(1, &[10, 10]), (2, &[20])]).len(), 1, "doubled");
        assert_eq!(check(one(Told::Refused), &[(1, &[10]), (2, &[20])]).len(), 1, "refused and there");
        assert_eq!(check(vec![], &[(1, &[7])]).len(), 1, "from nowhere");
    }

    #[test]
    fn anomalies_are_circles() {
        let lost_update = vec![record(1, 10, &[(1, &[])], &[(1, 10)]), record(2, 9, &[(1, &[])], &[(1, 11)])];
        assert_eq!(check(lost_update, &[(1, &[10, 11])]).len(), 1, "a lost update");
        let skew = vec![record(1, 10, &[(1, &[])], &[(2, 20)]), record(2, 9, &[(2, &[])], &[(1, 10)])];
        assert_eq!(check(skew, &[(1, &[10]), (2, &[20])]).len(), 1, "write skew");
        let stale = vec![record(1, 2, &[], &[(1, 10)]), record(3, 4, &[(1, &[])], &[])];
        assert_eq!(check(stale.clone(), &[(1, &[10])]).len(), 1, "a stale read");
        let allowed = stale.into_iter().map(|record| Record { is_linearizable: false, ..record }).collect();
        assert_eq!(check(allowed, &[(1, &[10])]).len(), 0, "a local read may be stale");
        let torn = vec![record(1, 9, &[], &[(1, 10), (2, 20)]), record(2, 8, &[(1, &[10]), (2, &[])], &[])];
        assert_eq!(check(torn, &[(1, &[10]), (2, &[20])]).len(), 1, "a torn snapshot");
        let dirty = vec![record(1, 2, &[(1, &[66])], &[])];
        assert_eq!(check(dirty, &[]).len(), 1, "a read of what never was");
    }
}
