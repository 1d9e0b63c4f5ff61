//! The real stores of a simulated node: transactions over redb over the simulated disk, as a server opens them.
//!
//! A store is small here, so that flushes, full layers and snapshots happen all the time. Every replica writes down
//! the hash of its state at the same positions; the first that differs is found at once, not at the end.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rustydb_consensus::{
    MachineFactory,
    kv::{KvMachine, KvProposer},
    machine::{
        Applied, ApplyEntry, ApplyPayload, DamageFuture, Leadership, Machine, MachineError, MachineInstaller,
        Mark, MarkAt, RoomFuture, SnapshotFuture,
    },
    proposer::RaftProposer,
};
use rustydb_env::Env;
use rustydb_storage::engine::{self, EngineKind};
use rustydb_txn::entry::{Entry, EntryKind};
use rustydb_txn::{Authority, EngineOpener, KvConfig, KvStore, OutcomeBounds};
use rustydb_types::{
    ids::{GroupId, LogIndex, Term},
    position::LogPosition,
};

use super::{machines::Machines, run::one_of};

/// Replicas compare their hashes at positions that are a multiple of this, and wherever a batch ends.
const COMPARED_EVERY: u64 = 4;
/// Bytes that an engine may cache: few, so that pages are read from the disk.
const CACHE_BYTES: usize = 64 << 10;
/// When a store is flushed: at so many bytes, and this often when it is not filled. The first, or in each life one of them.
const FLUSHES: [(usize, Duration); 3] = [
    (4 << 10, Duration::from_millis(800)),
    (16 << 10, Duration::from_millis(1500)),
    (64 << 10, Duration::from_millis(4000)),
];

/// The hashes of all replicas' states by position.
#[derive(Clone, Debug, Default)]
pub struct Hashes {
    inner: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    at: BTreeMap<(GroupId, LogPosition), u128>,
    wrong: Vec<String>,
}

impl Hashes {
    fn note(&self, group: GroupId, position: LogPosition, hash: u128) {
        let mut seen = self.inner.lock();
        let first = *seen.at.entry((group, position)).or_insert(hash);
        if first != hash && seen.wrong.len() < 5 {
            seen.wrong
                .push(format!("group {group}: replicas differ at {position}: {first:032x} and {hash:032x}"));
        }
    }

    /// Where replicas differed.
    #[must_use]
    pub fn wrong(&self) -> Vec<String> {
        self.inner.lock().wrong.clone()
    }

    /// At how many positions hashes were noted.
    #[must_use]
    pub fn count(&self) -> usize {
        self.inner.lock().at.len()
    }
}

struct Open {
    store: KvStore,
    machine: Arc<Mutex<KvMachine>>,
}

/// The stores of one node.
#[derive(Clone)]
pub struct Stores {
    open: Arc<Mutex<BTreeMap<GroupId, Open>>>,
    hashes: Hashes,
    is_varied: bool,
    outcomes: OutcomeBounds,
    tampering: Arc<Mutex<Tampering>>,
}

/// Whether a replica is made wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Tampering {
    #[default]
    Never,
    /// The next commit is applied with another value.
    Wanted,
    /// It was.
    Done,
}

impl Stores {
    /// The stores of a node that is down; all nodes of a cluster share `hashes`.
    #[must_use]
    pub fn new(hashes: Hashes) -> Self {
        Self {
            open: Arc::default(),
            hashes,
            is_varied: false,
            outcomes: OutcomeBounds::default(),
            tampering: Arc::default(),
        }
    }

    /// The same, flushed seldom in some of its lives.
    #[must_use]
    pub fn varied(hashes: Hashes) -> Self {
        Self { is_varied: true, ..Self::new(hashes) }
    }

    /// The same, with other bounds for what is remembered of commits.
    #[must_use]
    pub fn remembering(self, outcomes: OutcomeBounds) -> Self {
        Self { outcomes, ..self }
    }

    /// The store of a group, if it is open.
    #[must_use]
    pub fn store(&self, group: GroupId) -> Option<KvStore> {
        self.open.lock().get(&group).map(|open| open.store.clone())
    }

    /// Lets the replica apply the next commit with another last byte of its last row.
    pub fn tamper(&self) {
        *self.tampering.lock() = Tampering::Wanted;
    }

    /// Whether it has.
    #[must_use]
    pub fn has_tampered(&self) -> bool {
        *self.tampering.lock() == Tampering::Done
    }

    /// Computes the hash of a group's state anew from what is stored, and says whether it is as it should be.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn recompute_hash(&self, group: GroupId) -> Result<bool, MachineError> {
        let machine = self.open.lock().get(&group).map(|open| open.machine.clone());
        machine.map_or(Ok(true), |machine| machine.lock().recompute_hash())
    }
}

impl Machines for Stores {
    fn factory(&self, env: &Env) -> Arc<dyn MachineFactory> {
        Arc::new(StoresOfLife { env: env.clone(), stores: self.clone() })
    }

    fn crash(&self) {
        let dead = std::mem::take(&mut *self.open.lock());
        drop(dead);
    }

    fn leads(&self, group: GroupId) -> Option<Term> {
        match *self.store(group)?.authority().borrow() {
            Authority::Here { term } => Some(term),
            Authority::At(_) | Authority::Unknown => None,
        }
    }

    fn applied(&self, group: GroupId) -> Option<(LogPosition, u128)> {
        let machine = self.open.lock().get(&group)?.machine.clone();
        let machine = machine.lock();
        Some((machine.applied().position?, machine.state_hash()))
    }

    fn flushed(&self, group: GroupId) -> Option<LogPosition> {
        let machine = self.open.lock().get(&group)?.machine.clone();
        machine.lock().flushed()
    }
}

/// Opens stores in one life of a node.
struct StoresOfLife {
    env: Env,
    stores: Stores,
}

impl StoresOfLife {
    fn folder(group: GroupId) -> PathBuf {
        PathBuf::from(format!("/groups/{group}"))
    }
}

impl MachineFactory for StoresOfLife {
    fn open(&self, group: GroupId, proposer: &Arc<RaftProposer>) -> Result<Box<dyn Machine>, MachineError> {
        let env = self.env.clone();
        let (flush_size_bytes, flush_interval) =
            if self.stores.is_varied { one_of(&mut env.rng(), FLUSHES) } else { FLUSHES[0] };
        let opener: EngineOpener =
            Arc::new(move |path| engine::open(EngineKind::Redb, &env, path, CACHE_BYTES));
        let config = KvConfig {
            flush_size_bytes,
            flush_interval,
            unflushed_size_bytes_max: flush_size_bytes * 4,
            window_entries_max: 16,
            window_wait: Duration::from_millis(500),
            commit_wait: Duration::from_millis(1500),
            read_ranges_max: 8,
            validation_size_bytes_max: 8 << 10,
            stage_size_bytes: 128,
            stage_begin_size_bytes: 256,
            base_check_interval: 4,
            outcomes: self.stores.outcomes,
            ..KvConfig::new(Self::folder(group))
        };
        let proposer = Arc::new(KvProposer::new(Arc::clone(proposer)));
        let (store, machine) = KvStore::open(&self.env, config, opener, proposer)
            .map_err(|error| MachineError { reason: format!("group {group}: {error:?}") })?;
        let machine = Arc::new(Mutex::new(KvMachine::new(machine)));
        let open = Open { store, machine: Arc::clone(&machine) };
        let former = self.stores.open.lock().insert(group, open);
        drop(former);
        Ok(Box::new(Witnessed { group, machine, stores: self.stores.clone() }))
    }

    fn remove(&self, group: GroupId) -> Result<(), MachineError> {
        let former = self.stores.open.lock().remove(&group);
        drop(former);
        let failed = |error: std::io::Error| MachineError { reason: error.to_string() };
        self.env.disk().remove_dir_all(&Self::folder(group)).map_err(failed)
    }
}

/// The real machine; the harness looks at it, too.
struct Witnessed {
    group: GroupId,
    machine: Arc<Mutex<KvMachine>>,
    stores: Stores,
}

/// An entry of a commit as a replica that goes wrong has it: its last byte is that of the last row.
fn tampered(entry: &ApplyEntry) -> Option<ApplyEntry> {
    let ApplyPayload::Command(command) = &entry.payload else { return None };
    let decoded = Entry::decode(command).ok()?;
    decoded.writes.last()?.value.as_ref()?;
    let mut bytes = command.to_vec();
    *bytes.last_mut()? ^= 0x80;
    let payload = ApplyPayload::Command(bytes.into());
    (decoded.header.kind == EntryKind::Commit).then_some(ApplyEntry { payload, ..entry.clone() })
}

impl Machine for Witnessed {
    fn applied(&self) -> Applied {
        self.machine.lock().applied()
    }

    fn room(&self) -> Option<RoomFuture> {
        self.machine.lock().room()
    }

    fn apply(&mut self, entries: &[ApplyEntry]) -> Result<(), MachineError> {
        let compared =
            |entry: &ApplyEntry, _: &ApplyEntry| !entry.position.index.get().is_multiple_of(COMPARED_EVERY);
        for batch in entries.chunk_by(compared) {
            let mut machine = self.machine.lock();
            let mut tampering = self.stores.tampering.lock();
            let wanted = *tampering == Tampering::Wanted;
            let place = batch.iter().position(|entry| wanted && tampered(entry).is_some());
            if let Some(place) = place {
                *tampering = Tampering::Done;
                let mut batch = batch.to_vec();
                if let Some(entry) = batch.get_mut(place)
                    && let Some(wrong) = tampered(entry)
                {
                    *entry = wrong;
                }
                machine.apply(&batch)?;
            } else {
                machine.apply(batch)?;
            }
            drop(tampering);
            if let Some(last) = batch.last() {
                self.stores.hashes.note(self.group, last.position, machine.state_hash());
            }
        }
        Ok(())
    }

    fn flushed(&self) -> Option<LogPosition> {
        self.machine.lock().flushed()
    }

    fn snapshot(&mut self) -> SnapshotFuture {
        self.machine.lock().snapshot()
    }

    fn installer(&mut self) -> Result<Box<dyn MachineInstaller>, MachineError> {
        self.machine.lock().installer()
    }

    fn leadership(&self, leadership: Leadership) {
        self.machine.lock().leadership(leadership);
    }

    fn mark(&self) -> Option<Mark> {
        self.machine.lock().mark()
    }

    fn mark_at(&self, index: LogIndex) -> MarkAt {
        self.machine.lock().mark_at(index)
    }

    fn suspicion(&mut self) -> Option<String> {
        self.machine.lock().suspicion()
    }

    fn lost(&self) -> Option<String> {
        self.machine.lock().lost()
    }

    fn damage(&self) -> Option<String> {
        self.machine.lock().damage()
    }

    fn damaged(&self) -> DamageFuture {
        self.machine.lock().damaged()
    }

    fn withhold(&mut self, reason: &str) -> Result<(), MachineError> {
        self.machine.lock().withhold(reason)
    }

    fn release(&mut self) -> Result<(), MachineError> {
        self.machine.lock().release()
    }

    fn is_withheld(&self) -> bool {
        self.machine.lock().is_withheld()
    }
}
