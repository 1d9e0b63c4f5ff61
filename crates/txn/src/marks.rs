//! Marks: what the state hash was at the last positions, so that replicas that are not equally far can be compared.

use std::collections::VecDeque;

use rustydb_types::ids::LogIndex;
use rustydb_types::position::LogPosition;

/// Positions that are remembered: what is applied while a question travels, at any rate that the log takes.
const MARKS_MAX: usize = 8192;

/// The state hash at one position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The last entry applied.
    pub position: LogPosition,
    /// The hash of the state then: equal on every replica.
    pub hash: u128,
}

/// What is known of the state at an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkAt {
    /// The mark.
    Known(Mark),
    /// The index is not applied yet.
    NotYet,
    /// It is no longer, or never was, remembered here.
    Passed,
}

/// The marks of one store, in the order of the log.
#[derive(Debug, Default)]
pub(crate) struct Marks(VecDeque<Mark>);

impl Marks {
    /// Those of a state that was just read from the disk.
    pub(crate) fn starting(position: Option<LogPosition>, hash: u128) -> Marks {
        Marks(position.map(|position| Mark { position, hash }).into_iter().collect())
    }

    pub(crate) fn note(&mut self, mark: Mark) {
        if self.0.len() >= MARKS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(mark);
    }

    pub(crate) fn last(&self) -> Option<Mark> {
        self.0.back().copied()
    }

    pub(crate) fn at(&self, index: LogIndex) -> MarkAt {
        if self.0.back().is_none_or(|last| last.position.index < index) {
            return MarkAt::NotYet;
        }
        let place = self.0.binary_search_by_key(&index, |mark| mark.position.index);
        place.ok().and_then(|place| self.0.get(place)).map_or(MarkAt::Passed, |mark| MarkAt::Known(*mark))
    }
}

#[cfg(test)]
mod tests {
    use rustydb_types::ids::Term;

    use super::*;

    fn mark(index: u64) -> Mark {
        Mark { position: LogPosition::new(Term::new(1), LogIndex::new(index)), hash: u128::from(index) }
    }

    #[test]
    fn the_last_positions_are_known_and_older_ones_have_passed() {
        let mut marks = Marks::starting(Some(mark(5).position), 5);
        let count = u64::try_from(MARKS_MAX).unwrap();
        (6..6 + count).for_each(|index| marks.note(mark(index)));
        assert_eq!(marks.at(LogIndex::new(5)), MarkAt::Passed);
        assert_eq!(marks.at(LogIndex::new(6)), MarkAt::Known(mark(6)));
        assert_eq!(marks.at(LogIndex::new(5 + count)), MarkAt::Known(mark(5 + count)));
        assert_eq!(marks.at(LogIndex::new(6 + count)), MarkAt::NotYet);
        assert_eq!(marks.last(), Some(mark(5 + count)));
        assert_eq!(Marks::default().at(LogIndex::new(0)), MarkAt::NotYet);
    }
}
