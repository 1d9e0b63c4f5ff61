//! What can go wrong with a transaction, and in applying the log.

use std::sync::Arc;

use rustydb_storage::engine::EngineError;
use rustydb_types::ids::{NodeId, Term, Version};
use rustydb_types::position::LogPosition;

/// Why a transaction, or a call of it, failed. Every variant but [`TxnError::UnknownOutcome`] means that nothing
/// of the transaction was or will be committed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TxnError {
    /// This node does not lead the group.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who does, if known.
        leader: Option<NodeId>,
    },
    /// The transaction cannot be ordered with others and may be tried again (40001).
    #[error("could not serialize access: {reason}")]
    Serialization {
        /// What stood against it.
        reason: &'static str,
    },
    /// The leadership in which the transaction began is over, or a commit in flight that it stood on was refused
    /// (40001). What fell with it says nothing about the transaction itself: run again, it meets the same rows anew.
    #[error("the transaction fell: {reason}")]
    Fallen {
        /// With what it fell.
        reason: &'static str,
    },
    /// Waiting would close a circle of waiting transactions (40P01).
    #[error("deadlock detected")]
    Deadlock,
    /// The lock was not granted within the asked time (55P03).
    #[error("the lock was not granted in time")]
    LockTimeout,
    /// The lock is held by another transaction and waiting was not asked for (55P03).
    #[error("the lock is held by another transaction")]
    LockNotAvailable,
    /// The snapshot was given up to keep memory bounded (72000).
    #[error("the snapshot is too old")]
    SnapshotTooOld,
    /// The commit was proposed and its fate is not known here (08007). Ask [`KvStore::fate`](crate::KvStore::fate).
    #[error("whether the transaction was committed is not known")]
    UnknownOutcome,
    /// A bound on work in flight, or on locks, was met and did not clear in time (53000).
    #[error("the group is overloaded: {what}")]
    Overloaded {
        /// Which bound.
        what: &'static str,
    },
    /// The disk is too full to accept writes (53100).
    #[error("the disk is full")]
    DiskFull,
    /// A write in a read-only transaction (25006).
    #[error("the transaction is read-only")]
    ReadOnly,
    /// The changes that cannot be staged exceed what a transaction may hold in memory (54000): those made while a
    /// savepoint is open, and those by which one command replaces changes of its own transaction.
    #[error(
        "the changes of the transaction take {size_bytes} bytes of memory where {bound_bytes} are allowed"
    )]
    TooManyChanges {
        /// The size met.
        size_bytes: usize,
        /// The bound.
        bound_bytes: usize,
    },
    /// One row or key exceeds what can be held (54000).
    #[error("too large: {size_bytes} bytes where {bound_bytes} are allowed")]
    TooLarge {
        /// The size met.
        size_bytes: usize,
        /// The bound.
        bound_bytes: usize,
    },
    /// No savepoint of this number is open (3B001).
    #[error("no such savepoint")]
    NoSuchSavepoint,
    /// The engine failed.
    #[error("storage failed")]
    Storage(#[source] Arc<EngineError>),
    /// The store is shut down, or was stopped by a fatal error.
    #[error("the store is stopped")]
    Stopped,
}

/// The kinds of [`TxnError`] that callers branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxnErrorKind {
    /// Go to another node.
    NotLeader,
    /// Run the transaction again.
    Retry,
    /// The fate must be asked for.
    Unknown,
    /// The caller's fault, or a limit.
    Refused,
    /// The node cannot serve.
    Fatal,
}

impl TxnError {
    /// What a caller can do about it.
    #[must_use]
    pub fn kind(&self) -> TxnErrorKind {
        match self {
            TxnError::NotLeader { .. } => TxnErrorKind::NotLeader,
            TxnError::Serialization { .. } | TxnError::Fallen { .. } | TxnError::Deadlock => {
                TxnErrorKind::Retry
            }
            TxnError::UnknownOutcome => TxnErrorKind::Unknown,
            TxnError::Storage(_) | TxnError::Stopped => TxnErrorKind::Fatal,
            _ => TxnErrorKind::Refused,
        }
    }
}

impl From<EngineError> for TxnError {
    fn from(error: EngineError) -> TxnError {
        match error {
            EngineError::DiskFull { .. } => TxnError::DiskFull,
            EngineError::ViewExpired => TxnError::SnapshotTooOld,
            other => TxnError::Storage(Arc::new(other)),
        }
    }
}

/// An entry overwrites another row than it names: this replica differs from the one that led when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "entry {position} overwrites a row of version {expected}, but here the row is of version {found}{}",
    if expected == found { " and differs" } else { "" }
)]
pub struct Suspicion {
    /// The entry.
    pub position: LogPosition,
    /// The version that the entry names; zero for no row.
    pub expected: Version,
    /// The version of the row here; zero for none.
    pub found: Version,
}

/// Why applying the log must stop. Every variant is fatal for the node: its state would differ from that of the
/// other replicas.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// An entry in a format that this program does not know; an older program must not skip it.
    #[error("entry {position} has format version {version}, known is {}", crate::entry::FORMAT_VERSION)]
    UnknownVersion {
        /// Where.
        position: LogPosition,
        /// The version met.
        version: u8,
    },
    /// An entry of a kind that this program does not know.
    #[error("entry {position} is of unknown kind {kind}")]
    UnknownKind {
        /// Where.
        position: LogPosition,
        /// The kind met.
        kind: u8,
    },
    /// An entry that does not decode.
    #[error("entry {position} is damaged: {what}")]
    Damaged {
        /// Where.
        position: LogPosition,
        /// What was wrong.
        what: &'static str,
    },
    /// Entries did not come in order.
    #[error("entry {position} came after {applied}")]
    OutOfOrder {
        /// The entry.
        position: LogPosition,
        /// What was applied before.
        applied: LogPosition,
    },
    /// An entry refers to a staged transaction that is not there.
    #[error("entry {position} names the staged transaction {staged}, which is not there")]
    UnknownStaged {
        /// Where.
        position: LogPosition,
        /// The staged transaction.
        staged: Version,
    },
    /// What was found on disk is not what this program writes.
    #[error("the stored {what} cannot be read")]
    Stored {
        /// Which record.
        what: &'static str,
    },
    /// The engine failed.
    #[error("storage failed")]
    Storage(#[from] EngineError),
    /// The disk failed outside the engine.
    #[error("disk failed")]
    Disk(#[from] std::io::Error),
    /// An earlier fatal error.
    #[error("the state machine is stopped")]
    Stopped,
}

/// A proposal was not accepted, or got lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead in the term of the proposal; the entry is not in the log.
    #[error("not the leader of term {term}")]
    NotLeader {
        /// The term of the proposal.
        term: Term,
    },
    /// Refused before it reached the log.
    #[error("refused before it reached the log")]
    Refused,
    /// A bound of the log or of consensus was met; the entry is not in the log.
    #[error("too much in flight")]
    Overloaded,
    /// The entry may or may not become part of the log.
    #[error("the fate of the proposal is unknown")]
    Unknown,
    /// The log's disk is full; the entry is not in the log.
    #[error("the disk of the log is full")]
    DiskFull,
}
