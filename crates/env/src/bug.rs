//! Bugs that are planted on purpose, to see that the simulation finds such things.
//!
//! Each is a mistake that somebody could make. Only a simulated world can have one, and only in a build with the
//! feature `planted_bugs`, which nothing but the tests asks for; in every other build [`Env::has_bug`](crate::Env::has_bug)
//! is the constant `false`.

use std::fmt;

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Bug {
    /// The log says that entries are durable when they are written and not yet synced.
    EntriesNotSynced,
    /// A commit that comes twice takes place twice.
    CopyCommitted,
    /// A leader reads by its lease after that has run out.
    LeaseOutlived,
    /// Rows are shown that are not known to be committed.
    RowsShownEarly,
    /// A gateway that lost the leader takes a commit that was about to take place for one that did.
    FateAssumed,
    /// A SERIALIZABLE commit is numbered although what it has read was changed meanwhile.
    CommitNotValidated,
}

impl Bug {
    /// All of them.
    pub const ALL: &[Bug] = &[
        Bug::EntriesNotSynced,
        Bug::CopyCommitted,
        Bug::LeaseOutlived,
        Bug::RowsShownEarly,
        Bug::FateAssumed,
        Bug::CommitNotValidated,
    ];
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
