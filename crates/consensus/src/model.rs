//! The smallest state machine with which a group can be tested: lists of numbers, to which commands append.
//!
//! It flushes like the real one: what is applied is in memory until a snapshot is asked for, and after a crash the
//! state is the last flushed one, from where the log is applied again. It checks what a machine may rely on: that
//! entries come in order and without a gap, and snapshots with their positions.
//!
//! Format of a command: key and value, each 8 bytes little-endian. Of a snapshot: the same pairs, then hash and sum.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use rustydb_types::{
    ids::{GroupId, Term},
    position::LogPosition,
};

use crate::{
    groups::MachineFactory,
    machine::{
        Applied, ApplyEntry, ApplyPayload, Leadership, Machine, MachineError, MachineInstaller,
        MachineSnapshot, SnapshotFuture,
    },
    proposer::RaftProposer,
};

/// What a model holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelState {
    /// Up to where it is applied.
    pub applied: Applied,
    /// The values appended to each key, in order.
    pub lists: BTreeMap<u64, Vec<u64>>,
    /// Of all commands in their order: equal on replicas that applied the same.
    pub hash: u64,
    /// Of all pairs, whatever their order.
    pub sum: u64,
}

impl ModelState {
    fn append(&mut self, key: u64, value: u64) {
        self.lists.entry(key).or_default().push(value);
        self.hash = mix(mix(self.hash, key), value);
        self.sum = self.sum.wrapping_add(share(key, value));
    }
}

/// Of a pair in the sum.
fn share(key: u64, value: u64) -> u64 {
    mix(mix(0, key), value)
}

/// One step of a hash that depends on the order.
fn mix(hash: u64, value: u64) -> u64 {
    (hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_add(1)
}

/// Encodes a command.
#[must_use]
pub fn append_command(key: u64, value: u64) -> Bytes {
    let mut command = Vec::with_capacity(16);
    command.extend_from_slice(&key.to_le_bytes());
    command.extend_from_slice(&value.to_le_bytes());
    Bytes::from(command)
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_le_bytes)
}

fn error(reason: impl Into<String>) -> MachineError {
    MachineError { reason: reason.into() }
}

/// The state of one group at one node, and what of it would survive a crash.
#[derive(Clone, Debug, Default)]
pub struct ModelCell {
    inner: Arc<Mutex<ModelInner>>,
    /// Term that this node leads with its blank entry applied; 0 when it does not.
    leads: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct ModelInner {
    present: ModelState,
    flushed: ModelState,
    spoils: u64,
}

impl ModelCell {
    /// The applied state.
    #[must_use]
    pub fn present(&self) -> ModelState {
        self.inner.lock().present.clone()
    }

    /// Up to where the state survives a crash.
    #[must_use]
    pub fn flushed(&self) -> Option<LogPosition> {
        self.inner.lock().flushed.applied.position
    }

    /// The term in which this node may serve, if any.
    #[must_use]
    pub fn leads(&self) -> Option<Term> {
        match self.leads.load(Ordering::Acquire) {
            0 => None,
            term => Some(Term::new(term)),
        }
    }

    /// So many of the next snapshots that are read are not what their sum says.
    pub fn spoil_snapshots(&self, count: u64) {
        self.inner.lock().spoils = count;
    }

    /// How many snapshots are still to be spoilt.
    #[must_use]
    pub fn spoils(&self) -> u64 {
        self.inner.lock().spoils
    }

    /// Forgets what was not flushed.
    pub fn crash(&self) {
        let mut inner = self.inner.lock();
        inner.present = inner.flushed.clone();
        self.leads.store(0, Ordering::Release);
    }
}

/// The disk of one node's models.
#[derive(Clone, Debug, Default)]
pub struct ModelStore {
    cells: Arc<Mutex<BTreeMap<GroupId, ModelCell>>>,
}

impl ModelStore {
    /// The state of a group.
    #[must_use]
    pub fn cell(&self, group: GroupId) -> ModelCell {
        self.cells.lock().entry(group).or_default().clone()
    }

    /// Forgets what was not flushed, in all groups.
    pub fn crash(&self) {
        for cell in self.cells.lock().values() {
            cell.crash();
        }
    }
}

impl MachineFactory for ModelStore {
    fn open(&self, group: GroupId, _proposer: &Arc<RaftProposer>) -> Result<Box<dyn Machine>, MachineError> {
        Ok(Box::new(ModelMachine::new(self.cell(group))))
    }

    fn remove(&self, group: GroupId) -> Result<(), MachineError> {
        self.cells.lock().remove(&group);
        Ok(())
    }
}

/// Applies commands to a [`ModelCell`].
#[derive(Clone, Debug)]
pub struct ModelMachine {
    cell: ModelCell,
}

impl ModelMachine {
    /// Over a cell.
    #[must_use]
    pub fn new(cell: ModelCell) -> Self {
        Self { cell }
    }
}

impl Machine for ModelMachine {
    fn applied(&self) -> Applied {
        self.cell.inner.lock().present.applied.clone()
    }

    fn apply(&mut self, entries: &[ApplyEntry]) -> Result<(), MachineError> {
        let mut inner = self.cell.inner.lock();
        for entry in entries {
            match &entry.payload {
                ApplyPayload::Blank => {}
                ApplyPayload::Membership(membership) => inner.present.applied.membership = membership.clone(),
                ApplyPayload::Command(command) => {
                    let (key, value) = command.split_at_checked(8).unwrap_or_default();
                    match (number(key), number(value)) {
                        (Some(key), Some(value)) => inner.present.append(key, value),
                        _ => {
                            return Err(error(format!(
                                "entry {} is no command of the model",
                                entry.position
                            )));
                        }
                    }
                }
            }
            inner.present.applied.position = Some(entry.position);
        }
        Ok(())
    }

    fn flushed(&self) -> Option<LogPosition> {
        self.cell.inner.lock().flushed.applied.position
    }

    fn snapshot(&mut self) -> SnapshotFuture {
        let mut inner = self.cell.inner.lock();
        inner.flushed = inner.present.clone();
        let state = inner.present.clone();
        let pairs =
            state.lists.iter().flat_map(|(key, list)| list.iter().map(|value| (*key, *value))).collect();
        let snapshot = ModelSnapshot { cell: self.cell.clone(), state, pairs, next: 0, ended: false };
        Box::pin(async move { Ok(Box::new(snapshot) as Box<dyn MachineSnapshot>) })
    }

    fn installer(&mut self) -> Result<Box<dyn MachineInstaller>, MachineError> {
        Ok(Box::new(ModelInstaller { cell: self.cell.clone(), taken: Vec::new() }))
    }

    fn leadership(&self, leadership: Leadership) {
        let term = match leadership {
            Leadership::Leader { term } => term.get(),
            Leadership::Follower { .. } => 0,
        };
        self.cell.leads.store(term, Ordering::Release);
    }
}

struct ModelSnapshot {
    cell: ModelCell,
    state: ModelState,
    pairs: Vec<(u64, u64)>,
    next: usize,
    ended: bool,
}

impl MachineSnapshot for ModelSnapshot {
    fn applied(&self) -> &Applied {
        &self.state.applied
    }

    fn next_chunk(&mut self, bytes_max: usize) -> Result<Option<Bytes>, MachineError> {
        if self.ended {
            return Ok(None);
        }
        let mut chunk = Vec::new();
        for (key, value) in self.pairs.iter().skip(self.next).take((bytes_max / 16).max(1)) {
            chunk.extend_from_slice(&key.to_le_bytes());
            chunk.extend_from_slice(&value.to_le_bytes());
            self.next += 1;
        }
        if self.next == self.pairs.len() {
            let mut inner = self.cell.inner.lock();
            let spoilt = inner.spoils > 0;
            inner.spoils = inner.spoils.saturating_sub(1);
            chunk.extend_from_slice(&self.state.hash.to_le_bytes());
            chunk.extend_from_slice(&self.state.sum.wrapping_add(u64::from(spoilt)).to_le_bytes());
            self.ended = true;
        }
        Ok(Some(Bytes::from(chunk)))
    }
}

struct ModelInstaller {
    cell: ModelCell,
    taken: Vec<u8>,
}

/// Bytes of hash and sum behind the pairs of a snapshot.
const SNAPSHOT_END: usize = 16;

impl ModelInstaller {
    /// The state, and the sum that came with it.
    fn state(&self) -> Result<(ModelState, u64), MachineError> {
        let split =
            self.taken.len().checked_sub(SNAPSHOT_END).ok_or_else(|| error("a snapshot without an end"))?;
        let (pairs, end) = self.taken.split_at(split);
        let mut state = ModelState::default();
        for pair in pairs.chunks_exact(16) {
            let (key, value) = pair.split_at_checked(8).unwrap_or_default();
            match (number(key), number(value)) {
                (Some(key), Some(value)) => state.append(key, value),
                _ => return Err(error("a snapshot of uneven length")),
            }
        }
        let (hash, sum) = end.split_at_checked(8).unwrap_or_default();
        state.hash = number(hash).ok_or_else(|| error("a snapshot without a hash"))?;
        let sum = number(sum).ok_or_else(|| error("a snapshot without a sum"))?;
        Ok((state, sum))
    }
}

impl MachineInstaller for ModelInstaller {
    fn write_chunk(&mut self, chunk: &[u8]) -> Result<(), MachineError> {
        self.taken.extend_from_slice(chunk);
        Ok(())
    }

    fn adds_up(&self) -> Result<bool, MachineError> {
        self.state().map(|(state, sum)| state.sum == sum)
    }

    fn seal(&mut self) -> Result<(), MachineError> {
        self.state().map(drop)
    }

    fn finish(self: Box<Self>, applied: Applied) -> Result<(), MachineError> {
        let (mut state, _) = self.state()?;
        state.applied = applied;
        let mut inner = self.cell.inner.lock();
        inner.present = state.clone();
        inner.flushed = state;
        Ok(())
    }
}
