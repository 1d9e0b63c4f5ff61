//! The position of an entry in the log of one group.
//!
//! Invariant on every node and group: `purged <= flushed <= applied <= committed <= last`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{LogIndex, Term};

/// Which entry: its term and its index. Ordered by term first, as Raft orders logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogPosition {
    /// The term in which a leader proposed the entry.
    pub term: Term,
    /// The place of the entry in its group's log.
    pub index: LogIndex,
}

impl LogPosition {
    /// The position of the entry at `index` that was proposed in `term`.
    #[must_use]
    pub const fn new(term: Term, index: LogIndex) -> Self {
        Self { term, index }
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.term, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_term_is_later_whatever_the_index() {
        let early = LogPosition::new(Term::new(1), LogIndex::new(9));
        let late = LogPosition::new(Term::new(2), LogIndex::new(3));
        assert!(early < late);
        assert_eq!(late.to_string(), "2-3");
    }
}
