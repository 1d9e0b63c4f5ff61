//! The transactional store as a group's state machine, and the group's proposer as the store's.
//!
//! ```text
//!   txn::KvStore ── txn::Proposer ──► KvProposer ──► RaftProposer ──► openraft
//!   txn::StateMachine ◄── KvMachine ◄── apply ────────────────────────┘
//! ```
//!
//! Nothing is decided here: both sides mean the same by the same names, and this module only translates.

use std::sync::Arc;

use bytes::Bytes;
use rustydb_txn::{StateMachine, TxnError};
use rustydb_types::ids::LogIndex;

use crate::{
    machine::{
        Applied, ApplyEntry, ApplyPayload, DamageFuture, Leadership, Machine, MachineError, MachineInstaller,
        MachineSnapshot, Mark, MarkAt, RoomFuture, SnapshotFuture,
    },
    proposer::{Linearize, Proposal, ProposeError, RaftProposer, ReadError},
};

/// Gives a store's proposals to its Raft group.
pub struct KvProposer(Arc<RaftProposer>);

impl KvProposer {
    /// The proposer of one group.
    #[must_use]
    pub fn new(proposer: Arc<RaftProposer>) -> Self {
        Self(proposer)
    }
}

fn propose_error(error: ProposeError) -> rustydb_txn::ProposeError {
    match error {
        ProposeError::NotLeader { term } => rustydb_txn::ProposeError::NotLeader { term },
        ProposeError::Refused => rustydb_txn::ProposeError::Refused,
        ProposeError::Overloaded => rustydb_txn::ProposeError::Overloaded,
        ProposeError::DiskFull => rustydb_txn::ProposeError::DiskFull,
        ProposeError::Unknown => rustydb_txn::ProposeError::Unknown,
    }
}

fn read_error(error: ReadError) -> TxnError {
    match error {
        ReadError::NotLeader { leader } => TxnError::NotLeader { leader },
        // Without a majority nobody leads that could be named.
        ReadError::NoQuorum => TxnError::NotLeader { leader: None },
        ReadError::Stopped => TxnError::Stopped,
    }
}

impl rustydb_txn::Proposer for KvProposer {
    fn propose(&self, proposal: rustydb_txn::Proposal) -> Result<(), rustydb_txn::ProposeError> {
        let done = proposal.done;
        let proposal = Proposal {
            term: proposal.term,
            entry: proposal.entry,
            done: Box::new(move |result| done(result.map_err(propose_error))),
        };
        self.0.propose(proposal).map_err(propose_error)
    }

    fn linearize(&self) -> rustydb_txn::Linearize {
        match self.0.linearize() {
            Linearize::Now => rustydb_txn::Linearize::Now,
            Linearize::Wait(wait) => {
                rustydb_txn::Linearize::Wait(Box::pin(async move { wait.await.map_err(read_error) }))
            }
        }
    }
}

/// A store's state machine as its Raft group drives it.
pub struct KvMachine(StateMachine);

impl KvMachine {
    /// The state machine that [`rustydb_txn::KvStore::open`] gave.
    #[must_use]
    pub fn new(machine: StateMachine) -> Self {
        Self(machine)
    }

    /// The hash of the applied state: equal on every replica at the same applied position.
    #[must_use]
    pub fn state_hash(&self) -> u128 {
        self.0.state_hash()
    }

    /// Computes the rows' share of the hash anew from everything stored, and says whether it is as it should be.
    /// Blocks for as long as reading everything takes.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn recompute_hash(&self) -> Result<bool, MachineError> {
        self.0.recompute_hash().map_err(|error| fatal(&error))
    }
}

fn fatal(error: &rustydb_txn::ApplyError) -> MachineError {
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        reason = format!("{reason}: {cause}");
        source = cause.source();
    }
    MachineError { reason }
}

fn applied(applied: &rustydb_txn::Applied) -> Applied {
    Applied { position: applied.position, membership: applied.membership.clone().unwrap_or_default() }
}

fn mark(mark: rustydb_txn::Mark) -> Mark {
    Mark { position: mark.position, hash: mark.hash }
}

fn apply_entry(entry: &ApplyEntry) -> rustydb_txn::ApplyEntry {
    rustydb_txn::ApplyEntry {
        position: entry.position,
        // The position says it all: one leader per term.
        opaque_position: Bytes::new(),
        payload: match &entry.payload {
            ApplyPayload::Blank => rustydb_txn::ApplyPayload::Blank,
            ApplyPayload::Membership(membership) => rustydb_txn::ApplyPayload::Membership(membership.clone()),
            ApplyPayload::Command(command) => rustydb_txn::ApplyPayload::Command(command.clone()),
        },
    }
}

impl Machine for KvMachine {
    fn applied(&self) -> Applied {
        applied(&self.0.applied())
    }

    fn room(&self) -> Option<RoomFuture> {
        let room = self.0.room()?;
        Some(Box::pin(async move { room.await.map_err(|error| fatal(&error)) }))
    }

    fn apply(&mut self, entries: &[ApplyEntry]) -> Result<(), MachineError> {
        let entries: Vec<_> = entries.iter().map(apply_entry).collect();
        self.0.apply(&entries).map_err(|error| fatal(&error))
    }

    fn flushed(&self) -> Option<rustydb_types::position::LogPosition> {
        self.0.flushed()
    }

    fn snapshot(&mut self) -> SnapshotFuture {
        let reader = self.0.snapshot();
        Box::pin(async move {
            let reader = reader.await.map_err(|error| fatal(&error))?;
            let applied = applied(reader.applied());
            Ok(Box::new(KvSnapshot { reader, applied }) as Box<dyn MachineSnapshot>)
        })
    }

    fn installer(&mut self) -> Result<Box<dyn MachineInstaller>, MachineError> {
        let installer = self.0.installer().map_err(|error| fatal(&error))?;
        Ok(Box::new(KvInstaller(installer)))
    }

    fn leadership(&self, leadership: Leadership) {
        self.0.leadership(match leadership {
            Leadership::Leader { term } => rustydb_txn::Leadership::Leader { term },
            Leadership::Follower { leader } => rustydb_txn::Leadership::Follower { leader },
        });
    }

    fn mark(&self) -> Option<Mark> {
        self.0.mark().map(mark)
    }

    fn mark_at(&self, index: LogIndex) -> MarkAt {
        match self.0.mark_at(index) {
            rustydb_txn::MarkAt::Known(known) => MarkAt::Known(mark(known)),
            rustydb_txn::MarkAt::NotYet => MarkAt::NotYet,
            rustydb_txn::MarkAt::Passed => MarkAt::Passed,
        }
    }

    fn suspicion(&mut self) -> Option<String> {
        self.0.suspicion().map(|suspicion| suspicion.to_string())
    }

    fn lost(&self) -> Option<String> {
        self.0.lost()
    }

    fn damage(&self) -> Option<String> {
        self.0.damage()
    }

    fn damaged(&self) -> DamageFuture {
        Box::pin(self.0.damaged())
    }

    fn withhold(&mut self, reason: &str) -> Result<(), MachineError> {
        self.0.withhold(reason).map_err(|error| fatal(&error))
    }

    fn release(&mut self) -> Result<(), MachineError> {
        self.0.release().map_err(|error| fatal(&error))
    }

    fn is_withheld(&self) -> bool {
        self.0.is_withheld()
    }
}

struct KvSnapshot {
    reader: rustydb_txn::SnapshotReader,
    applied: Applied,
}

impl MachineSnapshot for KvSnapshot {
    fn applied(&self) -> &Applied {
        &self.applied
    }

    fn mark(&self) -> Option<Mark> {
        self.reader.mark().map(mark)
    }

    fn next_chunk(&mut self, bytes_max: usize) -> Result<Option<Bytes>, MachineError> {
        self.reader.next_chunk(bytes_max).map_err(|error| fatal(&error))
    }
}

struct KvInstaller(rustydb_txn::SnapshotInstaller);

impl MachineInstaller for KvInstaller {
    fn write_chunk(&mut self, chunk: &[u8]) -> Result<(), MachineError> {
        self.0.write_chunk(chunk).map_err(|error| fatal(&error))
    }

    fn adds_up(&self) -> Result<bool, MachineError> {
        self.0.adds_up().map_err(|error| fatal(&error))
    }

    fn seal(&mut self) -> Result<(), MachineError> {
        self.0.seal().map_err(|error| fatal(&error))
    }

    fn finish(self: Box<Self>, expected: Applied) -> Result<(), MachineError> {
        let installed = self.0.finish().map_err(|error| fatal(&error))?;
        if installed.position == expected.position {
            return Ok(());
        }
        let reason = format!("the snapshot was of {:?}, not of {:?}", installed.position, expected.position);
        Err(MachineError { reason })
    }
}
