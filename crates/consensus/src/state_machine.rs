//! openraft's state machine over a [`Machine`].
//!
//! The machine sits in a cell that three parties share: openraft's worker, which applies; a receiver of a snapshot,
//! which writes beside the present state; and the group, which tells it who leads. The worker is the only one that
//! holds the cell for more than a moment.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    storage::{ApplyResponder, EntryResponder, RaftStateMachine},
};
use parking_lot::Mutex;
use rustydb_env::ambient;
use rustydb_env::sync::watch;
use rustydb_types::ids::Term;

use crate::{
    codec::{self, Body},
    machine::{Applied, ApplyEntry, ApplyPayload, Machine, MachineInstaller, MachineSnapshot},
    type_config::{Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig, log_id_of, position_of},
};

/// Entries that are applied together at most, and about how many bytes: what a backlog holds in memory.
const BATCH_ENTRIES_MAX: usize = 1024;
const BATCH_BYTES_MAX: u64 = 256 << 10;
/// A batch from which on others get their turn on the thread before the next one.
const LONG_BATCH_BYTES: u64 = 64 << 10;

/// Bytes of a snapshot that are moved at once when it does not cross the network.
const LOCAL_CHUNK_BYTES: usize = 1 << 20;

/// The machine of a group and what is known of its progress.
pub(crate) struct MachineCell {
    machine: Mutex<Box<dyn Machine>>,
    /// The term of the last applied entry: a leader's own term shows here once its blank entry is applied.
    applied_term: watch::Sender<Term>,
    /// Bytes of entries applied since the last snapshot was asked for.
    bytes_since_snapshot: AtomicU64,
}

impl MachineCell {
    pub(crate) fn new(machine: Box<dyn Machine>) -> Arc<Self> {
        let term = machine.applied().position.map_or(Term::new(0), |position| position.term);
        let (applied_term, _unwatched) = watch::channel(term);
        Arc::new(Self { machine: Mutex::new(machine), applied_term, bytes_since_snapshot: AtomicU64::new(0) })
    }

    /// Does something short with the machine.
    pub(crate) fn with<R>(&self, action: impl FnOnce(&mut dyn Machine) -> R) -> R {
        action(&mut **self.machine.lock())
    }

    pub(crate) fn watch_applied_term(&self) -> watch::Receiver<Term> {
        self.applied_term.subscribe()
    }

    pub(crate) fn applied_term(&self) -> Term {
        *self.applied_term.borrow()
    }

    pub(crate) fn bytes_since_snapshot(&self) -> u64 {
        self.bytes_since_snapshot.load(Ordering::Relaxed)
    }

    fn advance_term(&self, term: Term) {
        self.applied_term.send_if_modified(|present| {
            let changed = *present != term;
            *present = term;
            changed
        });
    }

    fn apply(&self, entries: &[ApplyEntry], bytes: u64) -> io::Result<()> {
        let Some(last) = entries.last() else { return Ok(()) };
        self.with(|machine| machine.apply(entries)).map_err(io::Error::other)?;
        self.bytes_since_snapshot.fetch_add(bytes, Ordering::Relaxed);
        self.advance_term(last.position.term);
        Ok(())
    }
}

/// What openraft applies to.
#[derive(Clone)]
pub struct StateMachine {
    cell: Arc<MachineCell>,
}

/// A snapshot on its way: out of this node's machine, or into it.
pub enum SnapshotData {
    /// To be read from.
    Outgoing(Box<dyn MachineSnapshot>),
    /// All pieces are taken in; only the last step is missing.
    Incoming(Box<dyn MachineInstaller>),
}

impl StateMachine {
    pub(crate) fn new(cell: Arc<MachineCell>) -> Self {
        Self { cell }
    }

    fn membership(applied: &Applied) -> io::Result<StoredMembership> {
        if applied.membership.is_empty() {
            return Ok(StoredMembership::default());
        }
        codec::decode_stored_membership(&applied.membership).map_err(io::Error::other)
    }

    fn meta(applied: &Applied) -> io::Result<SnapshotMeta> {
        Ok(SnapshotMeta {
            last_log_id: applied.position.map(log_id_of),
            last_membership: Self::membership(applied)?,
        })
    }

    async fn pin(&self) -> io::Result<Snapshot> {
        self.cell.bytes_since_snapshot.store(0, Ordering::Relaxed);
        let handle = self.cell.with(|machine| machine.snapshot()).await.map_err(io::Error::other)?;
        Ok(Snapshot { meta: Self::meta(handle.applied())?, snapshot: SnapshotData::Outgoing(handle) })
    }
}

/// A snapshot as openraft passes it around.
pub(crate) type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// An entry as the machine wants it, and its size.
fn apply_entry(entry: &Entry) -> io::Result<(ApplyEntry, u64)> {
    let payload = match &entry.payload {
        EntryPayload::Blank => ApplyPayload::Blank,
        EntryPayload::Membership(membership) => {
            let stored = StoredMembership::new(Some(entry.log_id), membership.clone());
            ApplyPayload::Membership(codec::encode_stored_membership(&stored))
        }
        EntryPayload::Normal(command) => {
            match codec::decode_body(command.body()).map_err(io::Error::other)? {
                Body::Command(command) => ApplyPayload::Command(command),
                other => {
                    return Err(io::Error::other(format!(
                        "entry {} carries {other:?}, not a command",
                        entry.log_id
                    )));
                }
            }
        }
    };
    let bytes = match &payload {
        ApplyPayload::Command(command) => command.len() as u64,
        ApplyPayload::Blank | ApplyPayload::Membership(_) => 0,
    };
    Ok((ApplyEntry { position: position_of(&entry.log_id), payload }, bytes))
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = self.cell.with(|machine| machine.applied());
        Ok((applied.position.map(log_id_of), Self::membership(&applied)?))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        // Fused: gathering a batch asks once more behind the end.
        let mut entries = entries.fuse();
        let mut apply: Vec<ApplyEntry> = Vec::new();
        let mut answers: Vec<ApplyResponder<TypeConfig>> = Vec::new();
        while let Some(first) = entries.next().await {
            apply.clear();
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(item) = next {
                let (entry, answer) = item?;
                let (entry, size) = apply_entry(&entry)?;
                bytes += size;
                apply.push(entry);
                answers.extend(answer);
                let full = apply.len() >= BATCH_ENTRIES_MAX || bytes >= BATCH_BYTES_MAX;
                next = if full { None } else { entries.next().now_or_never().flatten() };
            }
            self.cell.apply(&apply, bytes)?;
            for answer in answers.drain(..) {
                answer.send(());
            }
            if bytes >= LONG_BATCH_BYTES {
                // A backlog is applied piece by piece without waiting for anything: acknowledgements and heartbeats
                // of this thread must get their turn between, or the lease runs out over a bulk load.
                ambient::yield_now().await;
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        let applied = Applied {
            position: meta.last_log_id.as_ref().map(position_of),
            membership: codec::encode_stored_membership(&meta.last_membership),
        };
        let installer = match snapshot {
            SnapshotData::Incoming(installer) => installer,
            SnapshotData::Outgoing(mut handle) => {
                let mut installer =
                    self.cell.with(|machine| machine.installer()).map_err(io::Error::other)?;
                while let Some(chunk) = handle.next_chunk(LOCAL_CHUNK_BYTES).map_err(io::Error::other)? {
                    installer.write_chunk(&chunk).map_err(io::Error::other)?;
                }
                installer
            }
        };
        installer.finish(applied).map_err(io::Error::other)?;
        if let Some(log_id) = &meta.last_log_id {
            self.cell.advance_term(position_of(log_id).term);
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        // The state itself is the snapshot, at any moment; only an empty one is none.
        if self.cell.with(|machine| machine.applied()).position.is_none() {
            return Ok(None);
        }
        self.pin().await.map(Some)
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        self.pin().await
    }
}

/// A piece of a snapshot for the network.
pub(crate) fn next_chunk(handle: &mut dyn MachineSnapshot, bytes_max: usize) -> io::Result<Option<Bytes>> {
    handle.next_chunk(bytes_max).map_err(io::Error::other)
}
