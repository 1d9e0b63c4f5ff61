//! What clients were told, held against what is there at the end.

use std::collections::{BTreeMap, BTreeSet};

use rustydb_consensus::model::ModelState;
use rustydb_types::ids::GroupId;

/// What a client was told of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is done.
    Acknowledged,
    /// It was not and never will be done.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// A list of one group.
pub type Place = (GroupId, u64);

/// All that clients did and saw.
#[derive(Clone, Debug, Default)]
pub struct History {
    next: u64,
    told: BTreeMap<(Place, u64), Told>,
    acknowledged: BTreeMap<Place, BTreeSet<u64>>,
    reads: Vec<(Place, BTreeSet<u64>, Vec<u64>)>,
    counts: Counts,
}

/// How many operations ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Appends that were acknowledged.
    pub acknowledged: u64,
    /// Appends that were refused.
    pub refused: u64,
    /// Appends of which nobody knows.
    pub unknown: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Reads and appends of lists within all of these.
    pub steps: u64,
}

impl Counts {
    /// Takes in those of another run.
    pub const fn add(&mut self, other: Counts) {
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.reads += other.reads;
        self.steps += other.steps;
    }
}

impl History {
    /// A value that was never used before.
    pub fn next_value(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// How many values there were so far.
    #[must_use]
    pub fn values(&self) -> u64 {
        self.next
    }

    /// An append ended.
    pub fn appended(&mut self, place: Place, value: u64, told: Told) {
        self.told.insert((place, value), told);
        self.counts.steps += 1;
        match told {
            Told::Acknowledged => {
                self.counts.acknowledged += 1;
                self.acknowledged.entry(place).or_default().insert(value);
            }
            Told::Refused => self.counts.refused += 1,
            Told::Unknown => self.counts.unknown += 1,
        }
    }

    /// What a read that begins now must see.
    #[must_use]
    pub fn acknowledged(&self, place: Place) -> BTreeSet<u64> {
        self.acknowledged.get(&place).cloned().unwrap_or_default()
    }

    /// A read was answered.
    pub fn read(&mut self, place: Place, must_see: BTreeSet<u64>, saw: Vec<u64>) {
        self.counts.reads += 1;
        self.counts.steps += 1;
        self.reads.push((place, must_see, saw));
    }

    /// How many operations ended how.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Holds everything against the state at the end. Gives what is wrong; nothing when all is right.
    #[must_use]
    pub fn check(&self, group: GroupId, state: &ModelState) -> Vec<String> {
        let mut wrong = Vec::new();
        let list = |key: u64| state.lists.get(&key).map_or(&[][..], Vec::as_slice);
        let mut seen: BTreeMap<(u64, u64), usize> = BTreeMap::new();
        for (key, values) in &state.lists {
            for value in values {
                *seen.entry((*key, *value)).or_default() += 1;
            }
        }
        for (((of, key), value), told) in self.told.iter().filter(|((place, _), _)| place.0 == group) {
            let times = seen.remove(&(*key, *value)).unwrap_or(0);
            let right = match told {
                Told::Acknowledged => times == 1,
                Told::Refused => times == 0,
                Told::Unknown => times <= 1,
            };
            if !right {
                wrong.push(format!(
                    "group {of}: value {value} of list {key} was {told:?} and is there {times} times"
                ));
            }
        }
        for ((key, value), times) in seen {
            wrong.push(format!(
                "group {group}: value {value} of list {key} was never appended and is there {times} times"
            ));
        }
        for ((of, key), must_see, saw) in self.reads.iter().filter(|(place, _, _)| place.0 == group) {
            if !list(*key).starts_with(saw) {
                wrong.push(format!(
                    "group {of}: a read of list {key} saw {saw:?}, which is no prefix of the end"
                ));
            }
            let missing: Vec<&u64> = must_see.iter().filter(|value| !saw.contains(value)).collect();
            if !missing.is_empty() {
                wrong.push(format!(
                    "group {of}: a read of list {key} missed {missing:?}, acknowledged before it began"
                ));
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId::new(3);

    fn state(values: &[u64]) -> ModelState {
        ModelState { lists: [(1, values.to_vec())].into(), ..ModelState::default() }
    }

    #[test]
    fn planted_faults_are_found_and_right_histories_pass() {
        let place = (GROUP, 1);
        let mut history = History::default();
        history.appended(place, 1, Told::Acknowledged);
        history.appended(place, 2, Told::Refused);
        history.appended(place, 3, Told::Unknown);
        assert!(history.check(GROUP, &state(&[1])).is_empty());
        assert!(history.check(GROUP, &state(&[1, 3])).is_empty());
        assert_eq!(history.check(GROUP, &state(&[])).len(), 1, "a lost value");
        assert_eq!(history.check(GROUP, &state(&[1, 1])).len(), 1, "a doubled value");
        assert_eq!(history.check(GROUP, &state(&[1, 2])).len(), 1, "a refused value");
        assert_eq!(history.check(GROUP, &state(&[1, 3, 3])).len(), 1, "a doubled unknown value");
        assert_eq!(history.check(GROUP, &state(&[1, 9])).len(), 1, "a value from nowhere");
        let must_see = history.acknowledged(place);
        history.read(place, must_see.clone(), vec![1]);
        assert!(history.check(GROUP, &state(&[1, 3])).is_empty());
        history.read(place, must_see, vec![]);
        assert_eq!(history.check(GROUP, &state(&[1, 3])).len(), 1, "a stale read");
        history.read(place, BTreeSet::new(), vec![3]);
        assert_eq!(history.check(GROUP, &state(&[1, 3])).len(), 2, "a read of another order");
    }
}
