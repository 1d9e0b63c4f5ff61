//! SERIALIZABLE: what a transaction read, and what others wrote meanwhile.
//!
//! At commit the keys written since the transaction's snapshot, applied or in flight, are looked up in its read
//! ranges; any hit refuses it. So among SERIALIZABLE transactions that write, the order of commits is the serial
//! order, and one that only reads stands at its snapshot (backward validation: Kung and Robinson, 1981).
//!
//! Both sides are bounded. Ranges beyond the bound are joined with their neighbours, which can only refuse more.
//! Written keys are kept only while a SERIALIZABLE transaction is open; beyond the bound the oldest go, and
//! transactions whose snapshot is older than what is left are refused.

use std::collections::{BTreeMap, VecDeque};

use bytes::{BufMut, Bytes, BytesMut};
use rustydb_types::ids::Version;

/// The ranges that one transaction has read, half-open; an absent end is the end of all keys.
#[derive(Debug)]
pub(crate) struct ReadSet {
    ranges: Vec<(Bytes, Option<Bytes>)>,
    ranges_max: usize,
}

impl ReadSet {
    pub(crate) const fn new(ranges_max: usize) -> ReadSet {
        ReadSet { ranges: Vec::new(), ranges_max }
    }

    pub(crate) fn add_key(&mut self, key: &[u8]) {
        let mut end = BytesMut::with_capacity(key.len() + 1);
        end.put_slice(key);
        end.put_u8(0);
        let end = end.freeze();
        self.add_range(end.slice(..key.len()), Some(end));
    }

    pub(crate) fn add_range(&mut self, start: Bytes, end: Option<Bytes>) {
        self.ranges.push((start, end));
        if self.ranges.len() > self.ranges_max {
            self.normalize();
            while self.ranges.len() > self.ranges_max / 2 {
                self.halve();
            }
        }
    }

    /// Sorts the ranges and joins those that meet.
    fn normalize(&mut self) {
        self.ranges.sort_unstable();
        let mut joined: Vec<(Bytes, Option<Bytes>)> = Vec::with_capacity(self.ranges.len());
        for (start, end) in self.ranges.drain(..) {
            match joined.last_mut() {
                Some((_, last)) if last.as_ref().is_none_or(|last| start <= *last) => {
                    let further = match (&*last, &end) {
                        (Some(last), Some(end)) => end > last,
                        (Some(_), None) => true,
                        (None, _) => false,
                    };
                    if further {
                        *last = end;
                    }
                }
                _ => joined.push((start, end)),
            }
        }
        self.ranges = joined;
    }

    /// Joins each pair of neighbours with what lies between them.
    fn halve(&mut self) {
        let joined = self
            .ranges
            .chunks(2)
            .filter_map(|pair| Some((pair.first()?.0.clone(), pair.last()?.1.clone())))
            .collect();
        self.ranges = joined;
    }

    /// Whether a range of written keys, both ends included, meets what was read. The set must be normalized.
    fn meets(&self, first: &Bytes, last: &Bytes) -> bool {
        let after = self.ranges.partition_point(|(start, _)| start <= last);
        let nearest = after.checked_sub(1).and_then(|index| self.ranges.get(index));
        nearest.is_some_and(|(_, end)| end.as_ref().is_none_or(|end| first < end))
    }
}

/// Keys written by one commit: one key twice, or the two ends of a range that covers many.
type Written = (Bytes, Bytes);

/// The keys written lately, by version.
#[derive(Debug, Default)]
pub(crate) struct RecentWrites {
    commits: VecDeque<(Version, Vec<Written>)>,
    size_bytes: usize,
    /// Everything above this version is recorded.
    floor: Version,
    /// Snapshots of open SERIALIZABLE transactions, with their number.
    open: BTreeMap<Version, usize>,
    /// SERIALIZABLE transactions that are open and have no snapshot yet.
    starting: usize,
    /// Counts leaderships: what a transaction of an earlier one says no longer counts.
    epoch: u64,
}

impl RecentWrites {
    fn is_recording(&self) -> bool {
        !self.open.is_empty() || self.starting > 0
    }

    /// Forgets everything at a change of leadership.
    pub(crate) fn reset(&mut self) {
        *self = RecentWrites { epoch: self.epoch + 1, ..RecentWrites::default() };
    }

    /// From now on writes are recorded; `last` is the highest version numbered so far. Returns the epoch, by which
    /// the transaction names itself from then on.
    pub(crate) fn start(&mut self, last: Version) -> u64 {
        if !self.is_recording() {
            self.commits.clear();
            self.size_bytes = 0;
            self.floor = last;
        }
        self.starting += 1;
        self.epoch
    }

    /// The transaction that started has its snapshot.
    pub(crate) fn opened(&mut self, epoch: u64, snapshot: Version) {
        if epoch != self.epoch {
            return;
        }
        self.starting = self.starting.saturating_sub(1);
        *self.open.entry(snapshot).or_default() += 1;
    }

    /// The transaction has taken another snapshot in place of its first.
    pub(crate) fn moved(&mut self, epoch: u64, from: Version, to: Version) {
        self.starting += usize::from(epoch == self.epoch);
        self.opened(epoch, to);
        self.closed(epoch, from);
    }

    /// A transaction with this snapshot has ended.
    pub(crate) fn closed(&mut self, epoch: u64, snapshot: Version) {
        if epoch != self.epoch {
            return;
        }
        if let Some(count) = self.open.get_mut(&snapshot) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&snapshot);
            }
        }
        if !self.is_recording() {
            self.commits.clear();
            self.size_bytes = 0;
        } else if self.starting == 0
            && let Some(oldest) = self.open.keys().next().copied()
        {
            while self.commits.front().is_some_and(|(version, _)| *version <= oldest) {
                self.forget_oldest();
            }
        }
    }

    /// Records the keys of a commit.
    pub(crate) fn record(
        &mut self,
        version: Version,
        keys: impl Iterator<Item = Written>,
        bound_bytes: usize,
    ) {
        if !self.is_recording() {
            return;
        }
        let keys: Vec<Written> = keys.collect();
        self.size_bytes += size_bytes(&keys);
        self.commits.push_back((version, keys));
        while self.size_bytes > bound_bytes {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((version, keys)) = self.commits.pop_front() {
            self.size_bytes = self.size_bytes.saturating_sub(size_bytes(&keys));
            self.floor = self.floor.max(version);
        }
    }

    /// The record up to here is not complete: who has an older snapshot is refused.
    pub(crate) fn forget_through(&mut self, version: Version) {
        self.floor = self.floor.max(version);
    }

    /// Forgets what was refused.
    pub(crate) fn drop_from(&mut self, from: Version) {
        while self.commits.back().is_some_and(|(version, _)| *version >= from) {
            if let Some((_, keys)) = self.commits.pop_back() {
                self.size_bytes = self.size_bytes.saturating_sub(size_bytes(&keys));
            }
        }
    }

    /// Whether nothing that was read since `snapshot` has been written since.
    pub(crate) fn is_valid(&self, snapshot: Version, reads: &mut ReadSet) -> bool {
        if snapshot < self.floor {
            return false;
        }
        reads.normalize();
        let first = self.commits.partition_point(|(version, _)| *version <= snapshot);
        !self
            .commits
            .range(first..)
            .any(|(_, keys)| keys.iter().any(|(first, last)| reads.meets(first, last)))
    }
}

fn size_bytes(keys: &[Written]) -> usize {
    64 + keys.iter().map(|(first, _)| 64 + first.len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &'static str) -> Written {
        (name.into(), name.into())
    }

    #[test]
    fn a_written_key_within_a_read_range_refuses() {
        let mut writes = RecentWrites::default();
        writes.start(Version::new(5));
        writes.opened(0, Version::new(5));
        writes.record(Version::new(6), [key("m")].into_iter(), 1000);
        let mut reads = ReadSet::new(10);
        reads.add_range("a".into(), Some("m".into()));
        reads.add_key(b"n");
        assert!(writes.is_valid(Version::new(5), &mut reads));
        reads.add_range("b".into(), None);
        assert!(!writes.is_valid(Version::new(5), &mut reads));
        assert!(writes.is_valid(Version::new(6), &mut reads), "the snapshot has seen it");
        writes.drop_from(Version::new(6));
        assert!(writes.is_valid(Version::new(5), &mut reads), "it was refused");
    }

    #[test]
    fn coarse_ranges_cover_all_that_was_read() {
        let mut reads = ReadSet::new(8);
        for number in 0..100_u8 {
            reads.add_key(&[number * 2]);
        }
        assert!(reads.ranges.len() <= 8);
        reads.normalize();
        for number in 0..100_u8 {
            let key = Bytes::copy_from_slice(&[number * 2]);
            assert!(reads.meets(&key, &key));
        }
    }

    #[test]
    fn beyond_the_bound_old_snapshots_are_refused() {
        let mut writes = RecentWrites::default();
        writes.start(Version::ZERO);
        writes.opened(0, Version::ZERO);
        for version in 1..100 {
            writes.record(Version::new(version), [key("x")].into_iter(), 1000);
        }
        let mut reads = ReadSet::new(8);
        reads.add_key(b"never written");
        assert!(!writes.is_valid(Version::ZERO, &mut reads));
        assert!(writes.is_valid(Version::new(99), &mut reads));
        writes.closed(0, Version::ZERO);
        assert!(writes.commits.is_empty());
    }

    #[test]
    fn the_end_of_a_transaction_of_an_earlier_leadership_changes_nothing() {
        let mut writes = RecentWrites::default();
        let former = writes.start(Version::ZERO);
        writes.opened(former, Version::ZERO);
        writes.reset();
        let present = writes.start(Version::ZERO);
        writes.opened(present, Version::ZERO);
        writes.record(Version::new(1), [key("x")].into_iter(), 1000);
        writes.closed(former, Version::ZERO);
        let mut reads = ReadSet::new(8);
        reads.add_key(b"x");
        assert!(!writes.is_valid(Version::ZERO, &mut reads));
    }

    #[test]
    fn nothing_is_recorded_without_a_serializable_transaction() {
        let mut writes = RecentWrites::default();
        writes.record(Version::new(1), [key("x")].into_iter(), 1000);
        assert!(writes.commits.is_empty());
    }
}
