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
    /// A vote is promised before it is on the disk.
    VoteNotSynced,
    /// A conflicting tail is taken for cut off before that is on the disk.
    TailCutNotSynced,
    /// A segment of the log is used before its name is durable.
    NamesNotSynced,
    /// A segment of the log gets its name before what it begins with is durable.
    SegmentNotSynced,
    /// A log that is opened takes what it finds for durable.
    RecoveryNotSynced,
    /// What a crash left behind the end of the log stays there.
    TornTailKept,
    /// A log that ends before what was synced is taken for whole.
    EndNotCompared,
    /// A follower keeps its own entries where a leader has others, and takes only those behind them.
    ConflictKept,
    /// The engine does not sync what it commits.
    EngineNotSynced,
    /// The pointer to the engine in use is changed without being synced.
    PointerNotSynced,
    /// A flush notes a position whose newest rows it has left out.
    FlushMissesNewest,
    /// A snapshot leaves out what became of commits.
    SnapshotWithoutOutcomes,
    /// A snapshot is marked with what is applied when it is ready, and not with what is in it.
    SnapshotMarkedLate,
    /// A commit that comes twice takes place twice.
    CopyCommitted,
    /// To ask for the outcome of a commit does not keep it from taking place later.
    FenceForgotten,
    /// A proposal of which nobody knows what became is told to be refused.
    UnknownToldRefused,
    /// Who has read a commit in flight goes on after that was refused.
    RefusedCommitKept,
    /// A leader reads by its lease after that has run out.
    LeaseOutlived,
    /// A new leader reads by its lease before it has applied what earlier ones acknowledged.
    LeaseBeforeApplied,
    /// A leader that hands over reads by its lease.
    LeaseAfterTransfer,
    /// A voter that was restarted votes at once, whomever it had acknowledged before.
    VoteWithinLease,
    /// A member that has lost its log goes on with an empty one, as if it had never voted nor acknowledged anything.
    LogLossForgotten,
    /// A node that reads its log again takes learners for voters.
    LearnersCounted,
    /// A member gives up on votes and campaigns again at once, however long a vote takes.
    CampaignsAtOnce,
    /// Rows are shown that are not known to be committed.
    RowsShownEarly,
    /// Chunks of a large transaction are seen before it commits.
    StagedVisible,
    /// A SERIALIZABLE commit is numbered although what it has read was changed meanwhile.
    CommitNotValidated,
    /// A row is overwritten that was changed after the snapshot it was read in.
    ChangedRowWritten,
    /// A statement at READ COMMITTED sees what the one before it saw.
    StatementSnapshotKept,
    /// What is rolled back to a savepoint stays.
    SavepointKept,
    /// A gateway that lost the leader takes a commit that was about to take place for one that did.
    FateAssumed,
    /// A gateway that lost the leader takes a commit that was about to take place for one that did not.
    FateDenied,
    /// A commit whose outcome was recorded and dropped is taken for one that never was.
    FateGuessed,
    /// A gateway that lost the leader takes the last transaction that it knows of for one that is open.
    OpenAssumed,
    /// A replica leaves out a row of a commit now and then, another one than the others.
    RowLeftOut,
}

impl Bug {
    /// All of them.
    pub const ALL: &[Bug] = &[
        Bug::EntriesNotSynced,
        Bug::VoteNotSynced,
        Bug::TailCutNotSynced,
        Bug::NamesNotSynced,
        Bug::SegmentNotSynced,
        Bug::RecoveryNotSynced,
        Bug::TornTailKept,
        Bug::EndNotCompared,
        Bug::ConflictKept,
        Bug::EngineNotSynced,
        Bug::PointerNotSynced,
        Bug::FlushMissesNewest,
        Bug::SnapshotWithoutOutcomes,
        Bug::SnapshotMarkedLate,
        Bug::CopyCommitted,
        Bug::FenceForgotten,
        Bug::UnknownToldRefused,
        Bug::RefusedCommitKept,
        Bug::LeaseOutlived,
        Bug::LeaseBeforeApplied,
        Bug::LeaseAfterTransfer,
        Bug::VoteWithinLease,
        Bug::LogLossForgotten,
        Bug::LearnersCounted,
        Bug::CampaignsAtOnce,
        Bug::RowsShownEarly,
        Bug::StagedVisible,
        Bug::CommitNotValidated,
        Bug::ChangedRowWritten,
        Bug::StatementSnapshotKept,
        Bug::SavepointKept,
        Bug::FateAssumed,
        Bug::FateDenied,
        Bug::FateGuessed,
        Bug::OpenAssumed,
        Bug::RowLeftOut,
    ];
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
