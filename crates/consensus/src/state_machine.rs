//! openraft's state machine over a [`Machine`].
//!
//! The machine sits in a cell that three parties share: openraft's worker, which applies; a receiver of a snapshot,
//! which writes beside the present state; and the group, which tells it who leads. The worker is the only one that
//! holds the cell for more than a moment.

use std::{
    io,
    ops::Range,
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
use rustydb_env::{Bug, ambient, sync::watch};
use rustydb_types::{
    ids::{LogIndex, Term},
    position::LogPosition,
};
use tokio::sync::Notify;

use crate::{
    codec::{self, Body},
    machine::{Applied, ApplyEntry, ApplyPayload, Machine, MachineError, MachineInstaller, MachineSnapshot},
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
    gaps: Gaps,
    /// Up to where a state that replaced a wrong one is ahead of what openraft has had applied.
    replaced_through: Mutex<Option<LogPosition>>,
    /// While the state is given up: what openraft takes for applied. Entries are passed over meanwhile; the log has them
    /// for the state that is to come. Held by whoever applies or replaces.
    floor: Mutex<Option<Applied>>,
    /// Why the state may be wrong, until somebody looks into it.
    suspicion: Mutex<Option<String>>,
    suspected: Notify,
}

/// What became of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    Applied,
    /// The state is given up; another one is to come.
    PassedOver,
}

/// Whether entries may be missing between those that are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gaps {
    /// One that is missing ends the node.
    Fatal,
    /// As openraft's storage suite makes them.
    #[cfg(test)]
    Taken,
}

/// An entry came to be applied that is not the one after the last: the state would not be that of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OrderError {
    /// Another index.
    #[error("entry {found} came to be applied where index {expected} must come")]
    Gap {
        /// The index after the last applied one.
        expected: LogIndex,
        /// What came.
        found: LogPosition,
    },
    /// An earlier term than that of the entry before.
    #[error("entry {found} came to be applied after one of term {before}")]
    TermWentBack {
        /// The term of the last applied entry.
        before: Term,
        /// What came.
        found: LogPosition,
    },
}

/// Whether entries follow each other, and the applied one, as the log has them.
fn check_order(
    mut applied: Option<LogPosition>,
    entries: &[ApplyEntry],
    gaps: Gaps,
) -> Result<(), OrderError> {
    for ApplyEntry { position: found, .. } in entries {
        let expected = applied.map_or(LogIndex::new(0), |applied| applied.index.next());
        if gaps == Gaps::Fatal && found.index != expected {
            return Err(OrderError::Gap { expected, found: *found });
        }
        match applied {
            Some(LogPosition { term: before, .. }) if found.term < before => {
                return Err(OrderError::TermWentBack { before, found: *found });
            }
            _ => applied = Some(*found),
        }
    }
    Ok(())
}

impl MachineCell {
    pub(crate) fn new(machine: Box<dyn Machine>) -> Arc<Self> {
        Self::of(machine, Gaps::Fatal)
    }

    /// A cell that takes entries with gaps between them.
    #[cfg(test)]
    pub(crate) fn with_gaps(machine: Box<dyn Machine>) -> Arc<Self> {
        Self::of(machine, Gaps::Taken)
    }

    fn of(machine: Box<dyn Machine>, gaps: Gaps) -> Arc<Self> {
        let term = machine.applied().position.map_or(Term::new(0), |position| position.term);
        let (applied_term, _unwatched) = watch::channel(term);
        let machine = Mutex::new(machine);
        Arc::new(Self {
            machine,
            applied_term,
            bytes_since_snapshot: AtomicU64::new(0),
            gaps,
            replaced_through: Mutex::default(),
            floor: Mutex::default(),
            suspicion: Mutex::default(),
            suspected: Notify::new(),
        })
    }

    /// Up to where openraft may take the log for applied. Of a state that is given up: what was passed over, too.
    pub(crate) fn applied(&self) -> Applied {
        let floor = self.floor.lock();
        floor.clone().unwrap_or_else(|| self.with(|machine| machine.applied()))
    }

    /// Gives up a stored state that cannot be read. `floor` is what it had applied at least.
    pub(crate) fn lose(&self, reason: &str, floor: Applied) -> Result<(), MachineError> {
        self.with(|machine| machine.withhold(reason))?;
        *self.floor.lock() = Some(floor);
        Ok(())
    }

    /// Gives up a state that is wrong: from here on entries are passed over.
    pub(crate) fn give_up(&self) {
        let mut floor = self.floor.lock();
        if floor.is_none() {
            *floor = Some(self.with(|machine| machine.applied()));
        }
    }

    /// Whether the state is given up.
    pub(crate) fn is_given_up(&self) -> bool {
        self.floor.lock().is_some()
    }

    /// Ends when the stored state is found damaged, and says how.
    pub(crate) async fn damaged(&self) -> String {
        let damaged = self.with(|machine| machine.damaged());
        damaged.await
    }

    /// Puts another state into the place of one that is given up. It is of a position that openraft knows to be
    /// committed, and may have had applied or not. What was passed over behind it is [missing](Self::missing) still.
    pub(crate) fn replace(
        &self,
        installer: Box<dyn MachineInstaller>,
        applied: Applied,
    ) -> Result<(), MachineError> {
        let mut floor = self.floor.lock();
        let through = applied.position;
        if floor.is_none() && self.with(|machine| machine.applied()).position > through {
            // A snapshot of the leader has taken its place meanwhile.
            return Ok(());
        }
        installer.finish(applied)?;
        if floor.as_ref().is_none_or(|floor| floor.position <= through) {
            *self.replaced_through.lock() = through;
            *floor = None;
        }
        drop(floor);
        if let Some(through) = through {
            self.advance_term(through.term);
        }
        Ok(())
    }

    /// The entries that the state lacks of those that were passed over.
    pub(crate) fn missing(&self) -> Option<Range<u64>> {
        let floor = self.floor.lock();
        let through = floor.as_ref()?.position?;
        let applied = self.with(|machine| machine.applied()).position;
        Some(applied.map_or(0, |applied| applied.index.get() + 1)..through.index.get() + 1)
    }

    /// Applies entries that were passed over, as they are in the log. With the last of them the state is as good as any.
    pub(crate) fn make_up(&self, entries: &[Entry]) -> io::Result<()> {
        let mut floor = self.floor.lock();
        let Some(through) = floor.as_ref().and_then(|floor| floor.position) else { return Ok(()) };
        let entries =
            entries.iter().map(|entry| Ok(apply_entry(entry)?.0)).collect::<io::Result<Vec<_>>>()?;
        self.apply(&entries, 0)?;
        if self.with(|machine| machine.applied()).position >= Some(through) {
            *floor = None;
        }
        Ok(())
    }

    /// Ends when there is a sign that the state is wrong.
    pub(crate) async fn suspected(&self) {
        self.suspected.notified().await;
    }

    /// Has the state looked at.
    pub(crate) fn suspect(&self) {
        self.suspected.notify_one();
    }

    /// The sign.
    pub(crate) fn take_suspicion(&self) -> Option<String> {
        self.suspicion.lock().take()
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

    /// Applies entries, or passes over them when the state is given up, or found damaged by that.
    fn take(&self, entries: &[ApplyEntry], bytes: u64) -> io::Result<Taken> {
        let mut floor = self.floor.lock();
        if floor.is_none() {
            let Err(error) = self.apply(entries, bytes) else { return Ok(Taken::Applied) };
            if self.with(|machine| machine.damage()).is_none() {
                return Err(error);
            }
            *floor = Some(self.with(|machine| machine.applied()));
        }
        if let Some(floor) = floor.as_mut() {
            for entry in entries.iter().filter(|entry| Some(entry.position) > floor.position) {
                if let ApplyPayload::Membership(membership) = &entry.payload {
                    floor.membership = membership.clone();
                }
            }
            floor.position = floor.position.max(entries.last().map(|entry| entry.position));
        }
        Ok(Taken::PassedOver)
    }

    fn apply(&self, entries: &[ApplyEntry], bytes: u64) -> io::Result<()> {
        let replaced = *self.replaced_through.lock();
        let covered = entries.partition_point(|entry| Some(entry.position) <= replaced);
        let entries = entries.get(covered..).unwrap_or_default();
        let Some(last) = entries.last() else { return Ok(()) };
        let suspicion = self.with(|machine| {
            check_order(machine.applied().position, entries, self.gaps).map_err(io::Error::other)?;
            machine.apply(entries).map_err(io::Error::other)?;
            io::Result::Ok(machine.suspicion())
        })?;
        if let Some(suspicion) = suspicion {
            self.suspicion.lock().get_or_insert(suspicion);
            self.suspected.notify_one();
        }
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
        let pinned = match self.cell.is_given_up() {
            true => None,
            false => {
                let pinning = self.cell.with(|machine| machine.snapshot());
                match pinning.await {
                    Ok(handle) => Some(handle),
                    Err(_damage) if self.cell.with(|machine| machine.damage()).is_some() => None,
                    Err(error) => return Err(io::Error::other(error)),
                }
            }
        };
        // openraft wants to know how far a state is that is given to nobody, too.
        let handle = pinned.unwrap_or_else(|| Box::new(Nothing { applied: self.cell.applied() }));
        let applied = match ambient::has_bug(Bug::SnapshotMarkedLate) {
            true => self.cell.applied(),
            false => handle.applied().clone(),
        };
        Ok(Snapshot { meta: Self::meta(&applied)?, snapshot: SnapshotData::Outgoing(handle) })
    }
}

/// The snapshot of a state that is given up.
struct Nothing {
    applied: Applied,
}

impl MachineSnapshot for Nothing {
    fn applied(&self) -> &Applied {
        &self.applied
    }

    fn next_chunk(&mut self, _bytes_max: usize) -> Result<Option<Bytes>, MachineError> {
        Err(MachineError { reason: "the state is wrong and waits to be replaced".to_owned() })
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
        let applied = self.cell.applied();
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
            if !self.cell.is_given_up()
                && let Some(room) = self.cell.with(|machine| machine.room())
                && let Err(error) = room.await
                && self.cell.with(|machine| machine.damage()).is_none()
            {
                return Err(io::Error::other(error));
            }
            if self.cell.take(&apply, bytes)? == Taken::PassedOver {
                // What became of them is not known here: whoever waits must ask where the state is sound.
                answers.clear();
            }
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
        if applied.position <= *self.cell.replaced_through.lock() {
            // A wrong state was replaced meanwhile by one that is further.
            return Ok(());
        }
        let mut floor = self.cell.floor.lock();
        installer.finish(applied).map_err(io::Error::other)?;
        *floor = None;
        drop(floor);
        if let Some(log_id) = &meta.last_log_id {
            self.cell.advance_term(position_of(log_id).term);
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        // The state itself is the snapshot, at any moment; only an empty one is none.
        if self.cell.is_given_up() || self.cell.applied().position.is_none() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ModelCell, ModelMachine, append_command};

    fn entry(term: u64, index: u64) -> ApplyEntry {
        let position = LogPosition::new(Term::new(term), LogIndex::new(index));
        ApplyEntry { position, payload: ApplyPayload::Command(append_command(1, index)) }
    }

    #[test]
    fn an_entry_that_is_not_the_next_one_is_fatal_and_changes_nothing() {
        let state = ModelCell::default();
        let cell = MachineCell::new(Box::new(ModelMachine::new(state.clone())));
        let refused = |entries: &[ApplyEntry]| {
            let before = state.present();
            let error = cell.apply(entries, 0).unwrap_err();
            assert_eq!(state.present(), before);
            *error.get_ref().unwrap().downcast_ref::<OrderError>().unwrap()
        };
        let gap = |expected: u64, found: ApplyEntry| OrderError::Gap {
            expected: LogIndex::new(expected),
            found: found.position,
        };
        assert_eq!(refused(&[entry(1, 1)]), gap(0, entry(1, 1)), "the first one is missing");
        cell.apply(&[entry(1, 0), entry(1, 1), entry(3, 2)], 0).unwrap();
        assert_eq!(refused(&[entry(3, 4)]), gap(3, entry(3, 4)), "one is missing");
        assert_eq!(refused(&[entry(3, 3), entry(3, 5)]), gap(4, entry(3, 5)), "one within a batch");
        assert_eq!(refused(&[entry(3, 2)]), gap(3, entry(3, 2)), "one comes twice");
        let back = OrderError::TermWentBack { before: Term::new(3), found: entry(2, 3).position };
        assert_eq!(refused(&[entry(2, 3)]), back);
        cell.apply(&[entry(3, 3)], 0).unwrap();
    }
}
