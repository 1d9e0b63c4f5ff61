//! One group as readers see it: what is submitted, where it lies, and the recent entries themselves.
//!
//! ```text
//!   first            first + written.len()                  last
//!   | written: place on disk of each |  only in the tail     |
//!                     | tail: recent entries in memory       |
//! ```
//! Entries that are not yet written are always in the tail; the tail reaches back as far as the budget allows.

use std::collections::VecDeque;

use bytes::Bytes;
use rustydb_types::ids::{LogIndex, Term};
use rustydb_types::position::LogPosition;

use super::handle::LogEntry;
use super::record::GroupPoints;
use super::segment::SegmentId;

/// Where the frame of an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) segment: SegmentId,
    pub(super) offset: u32,
    pub(super) size: u32,
}

/// A recent entry. The ordinal tells it from an entry of the same index that replaced it.
#[derive(Clone, Debug)]
pub(super) struct Cached {
    pub(super) ordinal: u64,
    pub(super) entry: LogEntry,
}

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupState {
    pub(super) points: GroupPoints,
    /// The last vote that is durable.
    pub(super) durable_vote: Option<Bytes>,
    first: LogIndex,
    written: VecDeque<Location>,
    tail: VecDeque<Cached>,
    terms: VecDeque<(LogIndex, Term)>,
}

/// How far an index lies behind another; zero if it lies before.
fn distance(from: LogIndex, to: LogIndex) -> usize {
    usize::try_from(to.get().saturating_sub(from.get())).unwrap_or(usize::MAX)
}

impl GroupState {
    /// A group without entries in memory, whose next entry follows `points.last`.
    pub(super) fn new(points: GroupPoints) -> Self {
        let first = points.last.map_or(LogIndex::new(0), |last| last.index.next());
        Self { durable_vote: points.vote.clone(), points, first, ..Self::default() }
    }

    /// The index of the first entry; of the next one if there is none.
    pub(super) const fn first(&self) -> LogIndex {
        self.first
    }

    /// The last entry that lies in an earlier segment than this one.
    pub(super) fn last_before(&self, segment: SegmentId) -> Option<LogIndex> {
        let earlier = self.written.partition_point(|location| location.segment < segment) as u64;
        earlier.checked_sub(1).map(|behind| LogIndex::new(self.first.get() + behind))
    }

    /// The index behind the last entry.
    pub(super) fn next(&self) -> LogIndex {
        match self.tail.back() {
            Some(cached) => cached.entry.index.next(),
            None => self.written_end(),
        }
    }

    /// The index that the next entry must have, if that is determined.
    pub(super) fn expected(&self) -> Option<LogIndex> {
        self.points.last.map(|last| last.index.next())
    }

    /// The index behind the last entry that is written.
    pub(super) fn written_end(&self) -> LogIndex {
        LogIndex::new(self.first.get() + self.written.len() as u64)
    }

    fn has_entries(&self) -> bool {
        !self.tail.is_empty() || !self.written.is_empty()
    }

    fn follow(&mut self, position: LogPosition) {
        if !self.has_entries() {
            self.first = position.index;
            self.terms.clear();
        }
        if self.terms.back().is_none_or(|(_, term)| *term != position.term) {
            self.terms.push_back((position.index, position.term));
        }
        self.points.last = Some(position);
    }

    /// An entry was submitted.
    pub(super) fn append(&mut self, ordinal: u64, entry: LogEntry) {
        self.follow(LogPosition::new(entry.term, entry.index));
        self.tail.push_back(Cached { ordinal, entry });
    }

    /// An entry was found on disk.
    pub(super) fn recovered(&mut self, position: LogPosition, location: Location) {
        self.follow(position);
        self.written.push_back(location);
    }

    /// An entry was written. Nothing to do if it was truncated, replaced or purged meanwhile.
    pub(super) fn set_written(&mut self, index: LogIndex, ordinal: u64, location: Location) {
        if self.cached(index).is_some_and(|cached| cached.ordinal == ordinal) && index == self.written_end() {
            self.written.push_back(location);
        }
    }

    /// Entries behind `keep` are gone.
    pub(super) fn truncate(&mut self, keep: Option<LogIndex>) {
        // Keeping more than there is keeps all.
        let end =
            keep.map_or(self.first, |keep| keep.next().max(self.first)).min(self.next().max(self.first));
        self.written.truncate(distance(self.first, end));
        while self.tail.back().is_some_and(|cached| cached.entry.index >= end) {
            self.tail.pop_back();
        }
        while self.terms.back().is_some_and(|(first, _)| *first >= end) {
            self.terms.pop_back();
        }
        let purged = self.points.purged.as_ref().map(|(position, _)| *position);
        self.points.last = match (end.previous(), self.terms.back()) {
            (Some(last), Some((_, term))) if end > self.first => Some(LogPosition::new(*term, last)),
            _ => purged,
        };
    }

    /// Entries up to `through` are gone.
    pub(super) fn purge(&mut self, through: LogPosition, opaque: Bytes) {
        let first = through.index.next();
        if first > self.first {
            let dropped = distance(self.first, first).min(self.written.len());
            self.written.drain(..dropped);
            while self.tail.front().is_some_and(|cached| cached.entry.index < first) {
                self.tail.pop_front();
            }
            while self.terms.get(1).is_some_and(|(start, _)| *start <= first) {
                self.terms.pop_front();
            }
            self.first = first;
        }
        if !self.has_entries() {
            self.terms.clear();
            self.points.last = Some(through);
        }
        self.points.purged = Some((through, opaque));
    }

    /// The terms of the entries, each with the first of its run that is there.
    pub(super) fn terms(&self) -> impl Iterator<Item = (LogIndex, Term)> {
        self.terms.iter().map(|(first, term)| (self.first.max(*first), *term))
    }

    /// The first entry in memory.
    pub(super) fn cached_first(&self) -> Option<LogIndex> {
        self.tail.front().map(|cached| cached.entry.index)
    }

    /// A recent entry, if it is in memory.
    pub(super) fn cached(&self, index: LogIndex) -> Option<&Cached> {
        let front = self.tail.front()?.entry.index;
        if index < front { None } else { self.tail.get(distance(front, index)) }
    }

    /// Where an entry lies, if it is written.
    pub(super) fn location(&self, index: LogIndex) -> Option<Location> {
        if index < self.first { None } else { self.written.get(distance(self.first, index)).copied() }
    }

    /// Whether this entry is still only in memory.
    pub(super) fn is_unwritten(&self, index: LogIndex, ordinal: u64) -> bool {
        index >= self.written_end() && self.cached(index).is_some_and(|cached| cached.ordinal == ordinal)
    }

    /// Drops the oldest entry from memory if it is this one.
    pub(super) fn evict(&mut self, index: LogIndex, ordinal: u64) {
        let is_front = |cached: &Cached| cached.entry.index == index && cached.ordinal == ordinal;
        if self.tail.front().is_some_and(is_front) {
            self.tail.pop_front();
        }
    }

    /// Forgets an entry that could not be written, and all behind it.
    pub(super) fn forget_from(&mut self, index: LogIndex, ordinal: u64) {
        if self.cached(index).is_some_and(|cached| cached.ordinal == ordinal) {
            self.truncate(index.previous().filter(|_| index > self.first));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> LogEntry {
        LogEntry { index: LogIndex::new(index), term: Term::new(term), body: Bytes::new() }
    }

    fn last(group: &GroupState) -> Option<(u64, u64)> {
        group.points.last.map(|last| (last.term.get(), last.index.get()))
    }

    #[test]
    fn truncation_and_purge_keep_the_last_position_right() {
        let mut group = GroupState::default();
        for (index, term) in [(0, 1), (1, 1), (2, 2), (3, 3)] {
            group.append(index, entry(index, term));
        }
        group.truncate(Some(LogIndex::new(2)));
        assert_eq!(last(&group), Some((2, 2)));
        group.purge(LogPosition::new(Term::new(1), LogIndex::new(1)), Bytes::new());
        assert_eq!((last(&group), group.first().get()), (Some((2, 2)), 2));
        group.truncate(Some(LogIndex::new(1)));
        assert_eq!(last(&group), Some((1, 1)));
        group.append(9, entry(2, 5));
        assert_eq!(last(&group), Some((5, 2)));
        group.purge(LogPosition::new(Term::new(6), LogIndex::new(40)), Bytes::new());
        assert_eq!((last(&group), group.next().get()), (Some((6, 40)), 41));
    }

    #[test]
    fn an_entry_that_replaced_another_is_not_marked_written_by_it() {
        let location = Location { segment: SegmentId(1), offset: 64, size: 40 };
        let mut group = GroupState::default();
        group.append(1, entry(0, 1));
        group.truncate(None);
        group.append(2, entry(0, 2));
        group.set_written(LogIndex::new(0), 1, location);
        assert_eq!(group.location(LogIndex::new(0)), None);
        assert!(group.is_unwritten(LogIndex::new(0), 2));
        group.set_written(LogIndex::new(0), 2, location);
        assert_eq!(group.location(LogIndex::new(0)), Some(location));
        group.evict(LogIndex::new(0), 1);
        assert!(group.cached(LogIndex::new(0)).is_some());
        group.evict(LogIndex::new(0), 2);
        assert_eq!(group.next(), LogIndex::new(1));
    }
}
