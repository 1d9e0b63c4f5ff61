//! Between consensus and the transactional store: each has a port of its own, this joins them.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use rustydb_consensus::machine as raft;
use rustydb_consensus::proposer::{self, RaftProposer};
use rustydb_txn as txn;

fn stop(error: impl std::fmt::Display) -> raft::MachineError {
    raft::MachineError { reason: error.to_string() }
}

fn applied(applied: &txn::Applied) -> raft::Applied {
    raft::Applied { position: applied.position, membership: applied.membership.clone().unwrap_or_default() }
}

/// A store's state machine, driven by consensus.
pub(crate) struct KvMachine(pub(crate) txn::StateMachine);

impl raft::Machine for KvMachine {
    fn applied(&self) -> raft::Applied {
        applied(&self.0.applied())
    }

    fn apply(&mut self, entries: &[raft::ApplyEntry]) -> Result<(), raft::MachineError> {
        let entry = |entry: &raft::ApplyEntry| txn::ApplyEntry {
            position: entry.position,
            opaque_position: Bytes::new(),
            payload: match &entry.payload {
                raft::ApplyPayload::Blank => txn::ApplyPayload::Blank,
                raft::ApplyPayload::Membership(bytes) => txn::ApplyPayload::Membership(bytes.clone()),
                raft::ApplyPayload::Command(bytes) => txn::ApplyPayload::Command(bytes.clone()),
            },
        };
        let entries: Vec<txn::ApplyEntry> = entries.iter().map(entry).collect();
        self.0.apply(&entries).map_err(stop)
    }

    fn flushed(&self) -> Option<rustydb_types::position::LogPosition> {
        self.0.flushed()
    }

    fn snapshot(&mut self) -> Result<Box<dyn raft::MachineSnapshot>, raft::MachineError> {
        // Flushing is disk work and this call may block; the thread's other tasks are moved away first.
        let work = self.0.snapshot();
        let reader = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work));
        let reader = reader.map_err(stop)?;
        let applied = applied(reader.applied());
        Ok(Box::new(Snapshot { reader, applied }))
    }

    fn installer(&mut self) -> Result<Box<dyn raft::MachineInstaller>, raft::MachineError> {
        Ok(Box::new(Installer(self.0.installer().map_err(stop)?)))
    }

    fn leadership(&self, leadership: raft::Leadership) {
        self.0.leadership(match leadership {
            raft::Leadership::Leader { term } => txn::Leadership::Leader { term },
            raft::Leadership::Follower { leader } => txn::Leadership::Follower { leader },
        });
    }
}

struct Snapshot {
    reader: txn::SnapshotReader,
    applied: raft::Applied,
}

impl raft::MachineSnapshot for Snapshot {
    fn applied(&self) -> &raft::Applied {
        &self.applied
    }

    fn next_chunk(&mut self, bytes_max: usize) -> Result<Option<Bytes>, raft::MachineError> {
        self.reader.next_chunk(bytes_max).map_err(stop)
    }
}

struct Installer(txn::SnapshotInstaller);

impl raft::MachineInstaller for Installer {
    fn write_chunk(&mut self, chunk: &[u8]) -> Result<(), raft::MachineError> {
        self.0.write_chunk(&Bytes::copy_from_slice(chunk)).map_err(stop)
    }

    fn finish(self: Box<Self>, applied: raft::Applied) -> Result<(), raft::MachineError> {
        let installed = self.0.finish().map_err(stop)?;
        if installed.position == applied.position {
            Ok(())
        } else {
            Err(stop("a snapshot holds another position than was announced"))
        }
    }
}

/// Takes a store's proposals to its group.
pub(crate) struct KvProposer(pub(crate) Arc<RaftProposer>);

impl txn::Proposer for KvProposer {
    fn propose(&self, proposal: txn::Proposal) -> Result<(), txn::ProposeError> {
        let done = proposal.done;
        self.0
            .propose(proposer::Proposal {
                term: proposal.term,
                entry: proposal.entry,
                done: Box::new(move |outcome| done(outcome.map_err(refused))),
            })
            .map_err(refused)
    }

    fn linearize(&self) -> txn::Linearize {
        match self.0.linearize() {
            proposer::Linearize::Now => txn::Linearize::Now,
            proposer::Linearize::Wait(wait) => {
                txn::Linearize::Wait(wait.map(|outcome| outcome.map_err(unreadable)).boxed())
            }
        }
    }
}

fn refused(error: proposer::ProposeError) -> txn::ProposeError {
    match error {
        proposer::ProposeError::NotLeader { term } => txn::ProposeError::NotLeader { term },
        proposer::ProposeError::Refused => txn::ProposeError::Refused,
        proposer::ProposeError::Overloaded => txn::ProposeError::Overloaded,
        proposer::ProposeError::Unknown => txn::ProposeError::Unknown,
    }
}

fn unreadable(error: proposer::ReadError) -> txn::TxnError {
    match error {
        proposer::ReadError::NotLeader { leader } => txn::TxnError::NotLeader { leader },
        _ => txn::TxnError::NotLeader { leader: None },
    }
}
