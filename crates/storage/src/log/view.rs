//! How the log of one group stands, as far as memory tells: for whoever watches over it. Nothing is read from the disk.

use bytes::Bytes;
use rustydb_types::ids::{LogIndex, Term};
use rustydb_types::position::LogPosition;

use super::group::GroupState;
use super::handle::LogEntry;

/// The positions of a group's log at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupLogView {
    /// The first entry; the next one if there is none.
    pub first: LogIndex,
    /// The last entry, or the end of the purge if there is none. Includes what is not durable yet.
    pub last: Option<LogPosition>,
    /// The log says that the entries before this one are durable.
    pub durable_end: LogIndex,
    /// Up to where entries are purged.
    pub purged: Option<LogPosition>,
    /// The vote that the log says is durable.
    pub durable_vote: Option<Bytes>,
    /// The terms of the entries: from each index on, in order.
    pub terms: Vec<(LogIndex, Term)>,
    /// A write or a sync of the log has failed: it takes nothing any more, and whoever uses it stops.
    pub is_poisoned: bool,
}

impl GroupLogView {
    /// The term of an entry that the log has.
    #[must_use]
    pub fn term_of(&self, index: LogIndex) -> Option<Term> {
        let is_there = index >= self.first && self.last.is_some_and(|last| index <= last.index);
        let runs = self.terms.partition_point(|(first, _)| *first <= index);
        let run = self.terms.get(runs.checked_sub(1)?).filter(|_| is_there)?;
        Some(run.1)
    }

    /// Whether the log has, durably, the entry of a position that is committed, or had it and has purged it.
    #[must_use]
    pub fn holds(&self, committed: LogPosition) -> bool {
        let is_purged = self.purged.is_some_and(|purged| purged.index >= committed.index);
        let is_durable = committed.index < self.durable_end;
        is_purged || is_durable && self.term_of(committed.index) == Some(committed.term)
    }
}

impl GroupState {
    /// See [`GroupLogView`].
    pub(super) fn view(&self, is_poisoned: bool) -> GroupLogView {
        GroupLogView {
            first: self.first(),
            last: self.points.last,
            durable_end: self.written_end(),
            purged: self.points.purged.as_ref().map(|(position, _)| *position),
            durable_vote: self.durable_vote.clone(),
            terms: self.terms().collect(),
            is_poisoned,
        }
    }

    /// The entries from an index on that are in memory.
    pub(super) fn recent(&self, from: LogIndex) -> Vec<LogEntry> {
        let start = self.cached_first().map_or(from, |first| first.max(from));
        let mut entries = Vec::new();
        while let Some(cached) = self.cached(LogIndex::new(start.get() + entries.len() as u64)) {
            entries.push(cached.entry.clone());
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::super::group::Location;
    use super::super::record::GroupPoints;
    use super::super::segment::SegmentId;
    use super::*;

    fn position(term: u64, index: u64) -> LogPosition {
        LogPosition::new(Term::new(term), LogIndex::new(index))
    }

    fn entry(term: u64, index: u64) -> LogEntry {
        LogEntry { index: LogIndex::new(index), term: Term::new(term), body: Bytes::new() }
    }

    #[test]
    fn a_view_tells_what_is_durable_and_of_which_term() {
        let location = Location { segment: SegmentId(1), offset: 64, size: 40 };
        let mut group = GroupState::new(GroupPoints::default());
        for (ordinal, (term, index)) in [(1, 0), (1, 1), (3, 2)].into_iter().enumerate() {
            group.append(ordinal as u64, entry(term, index));
        }
        group.set_written(LogIndex::new(0), 0, location);
        group.set_written(LogIndex::new(1), 1, location);
        let view = group.view(false);
        assert_eq!(
            [0, 1, 2, 3].map(|index| view.term_of(LogIndex::new(index)).map(Term::get)),
            [Some(1), Some(1), Some(3), None]
        );
        assert!(view.holds(position(1, 1)), "it is there and durable");
        assert!(!view.holds(position(3, 2)), "it is not durable yet");
        assert!(!view.holds(position(2, 1)), "another entry has its place");
        assert_eq!(group.recent(LogIndex::new(1)), [entry(1, 1), entry(3, 2)]);
        group.purge(position(1, 1), Bytes::new());
        let view = group.view(false);
        assert_eq!((view.first.get(), view.term_of(LogIndex::new(1))), (2, None));
        assert!(view.holds(position(1, 1)), "what is purged was durable");
        assert_eq!(group.recent(LogIndex::new(0)), [entry(3, 2)]);
    }
}
