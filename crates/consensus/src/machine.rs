//! The port to the state machine: what applies the entries of a group.
//!
//! Implemented by the transactional store, and by small models in tests and simulations.
//!
//! Invariants that an implementation keeps: `flushed <= applied`; the applied position and the membership are kept
//! atomically with the state, so that after a crash they name exactly the state that is there.

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use rustydb_types::{
    ids::{LogIndex, NodeId, Term},
    position::LogPosition,
};

/// Up to where a state has applied its group's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The last applied entry.
    pub position: Option<LogPosition>,
    /// The last applied membership, opaque to the state machine; empty when there was none.
    pub membership: Bytes,
}

/// What an entry carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyPayload {
    /// A leader's first entry: changes nothing.
    Blank,
    /// A new membership, to be kept as [`Applied::membership`].
    Membership(Bytes),
    /// A decided transaction.
    Command(Bytes),
}

/// One entry to apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplyEntry {
    /// Its place.
    pub position: LogPosition,
    /// What it carries.
    pub payload: ApplyPayload,
}

/// Who leads, told to the state machine so that it opens or closes for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// This node, and this term's blank entry is applied: everything of earlier terms is, too.
    Leader {
        /// The term it leads.
        term: Term,
    },
    /// Not this node, or not yet.
    Follower {
        /// Who does, if known.
        leader: Option<NodeId>,
    },
}

/// The state machine cannot go on; its node must stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("state machine: {reason}")]
pub struct MachineError {
    /// What happened.
    pub reason: String,
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A snapshot in the making; an error is fatal.
pub type SnapshotFuture = BoxFuture<Result<Box<dyn MachineSnapshot>, MachineError>>;

/// Room in the making; an error is fatal.
pub type RoomFuture = BoxFuture<Result<(), MachineError>>;

/// What is wrong with a stored state, once it is found.
pub type DamageFuture = BoxFuture<String>;

/// The state hash at one position: equal on every replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The last entry applied.
    pub position: LogPosition,
    /// The hash of the state then.
    pub hash: u128,
}

/// What is known of the state at an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkAt {
    /// The mark.
    Known(Mark),
    /// The index is not applied yet.
    NotYet,
    /// It is not remembered.
    Passed,
}

/// A state machine.
pub trait Machine: Send + 'static {
    /// Up to where the state has applied the log.
    fn applied(&self) -> Applied;

    /// What to wait for before more is applied, if there is anything. [`Machine::apply`] holds up the thread on which
    /// all groups live; whatever takes long belongs here. The future does not hold on to the machine.
    fn room(&self) -> Option<RoomFuture> {
        None
    }

    /// Applies entries in their order. They follow what is applied without a gap.
    ///
    /// # Errors
    /// Fatal: the state cannot be trusted any more.
    fn apply(&mut self, entries: &[ApplyEntry]) -> Result<(), MachineError>;

    /// Up to where the state survives a crash. The log is purged no further.
    fn flushed(&self) -> Option<LogPosition>;

    /// A handle to the state at some moment between the call and the end of the future, or, while the disk is full,
    /// to the last durable one before. It is durable, so that [`Machine::flushed`] reaches it. The future does not
    /// hold on to the machine.
    fn snapshot(&mut self) -> SnapshotFuture;

    /// Begins to take in a snapshot beside the present state, which stays as it is until
    /// [`MachineInstaller::finish`].
    ///
    /// # Errors
    /// The state is unchanged.
    fn installer(&mut self) -> Result<Box<dyn MachineInstaller>, MachineError>;

    /// Who leads, whenever that changes.
    fn leadership(&self, leadership: Leadership);

    /// The hash of the present state; [`None`] before the first entry, and of a machine that keeps none.
    fn mark(&self) -> Option<Mark> {
        None
    }

    /// What the hash was at one of the last positions.
    fn mark_at(&self, _index: LogIndex) -> MarkAt {
        MarkAt::Passed
    }

    /// A sign, since the last call, that this state is not that of the other replicas.
    fn suspicion(&mut self) -> Option<String> {
        None
    }

    /// Why the state cannot be read at all: what is applied is not known, and nothing can be applied until another state
    /// is installed. Known from the opening on.
    fn lost(&self) -> Option<String> {
        None
    }

    /// What is wrong with the stored state, as far as was met: from then on nothing can be applied until another state is
    /// installed.
    fn damage(&self) -> Option<String> {
        None
    }

    /// Ends when there is [`Machine::damage`]. The future does not hold on to the machine.
    fn damaged(&self) -> DamageFuture {
        Box::pin(std::future::pending())
    }

    /// Gives the state to nobody from here on, also after a restart, until [`Machine::release`]. Entries go on being
    /// applied.
    ///
    /// # Errors
    /// It is withheld in this life of the node only.
    fn withhold(&mut self, _reason: &str) -> Result<(), MachineError> {
        Ok(())
    }

    /// Gives the state out again.
    ///
    /// # Errors
    /// It stays withheld.
    fn release(&mut self) -> Result<(), MachineError> {
        Ok(())
    }

    /// Whether the state is withheld.
    fn is_withheld(&self) -> bool {
        false
    }
}

/// A state at one moment, pinned until dropped.
pub trait MachineSnapshot: Send {
    /// The moment.
    fn applied(&self) -> &Applied;

    /// The hash of the state; [`None`] of a machine that keeps none.
    fn mark(&self) -> Option<Mark> {
        None
    }

    /// The next piece of at most about so many bytes; [`None`] at the end.
    ///
    /// # Errors
    /// The state cannot be read.
    fn next_chunk(&mut self, bytes_max: usize) -> Result<Option<Bytes>, MachineError>;
}

/// Takes in a snapshot.
pub trait MachineInstaller: Send {
    /// Takes the next piece.
    ///
    /// # Errors
    /// The piece is none, or there is no room. Nothing of the present state has changed.
    fn write_chunk(&mut self, chunk: &[u8]) -> Result<(), MachineError>;

    /// Whether what was taken in is what its hash says.
    ///
    /// # Errors
    /// It cannot be read.
    fn adds_up(&self) -> Result<bool, MachineError>;

    /// Makes what was taken in durable beside the present state, so that what is left to do cannot fail for want of room.
    ///
    /// # Errors
    /// Not all of it is there, or there is no room. Nothing of the present state has changed.
    fn seal(&mut self) -> Result<(), MachineError>;

    /// Replaces the present state by what was taken in, in one durable step.
    ///
    /// # Errors
    /// Fatal.
    fn finish(self: Box<Self>, applied: Applied) -> Result<(), MachineError>;
}
