//! The stores of the groups that are open here, and how one is opened and removed.
//!
//! ```text
//! DATA/groups/GROUP/     engine files of a group; removed as a whole with the group
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use rustydb_consensus::MachineFactory;

use rustydb_consensus::machine::{Machine, MachineError};
use rustydb_consensus::proposer::RaftProposer;
use rustydb_env::Env;
use rustydb_storage::engine::{self, EngineKind};
use rustydb_txn::{EngineOpener, KvConfig, KvStore};
use rustydb_types::ids::GroupId;

use crate::config::{Config, EngineChoice};
use crate::memory::{MemoryPlan, Shares};
use rustydb_consensus::kv::{KvMachine, KvProposer};

/// Opens, keeps and removes the stores of groups.
pub(crate) struct Databases {
    env: Env,
    dir: PathBuf,
    engine: EngineKind,
    memory: MemoryPlan,
    caches: Shares,
    recent: Shares,
    flush_interval: std::time::Duration,
    stores: RwLock<BTreeMap<GroupId, KvStore>>,
}

/// What the caches of an engine do not go below; all that the system group gets, which holds a few records.
const CACHE_LEAST: u64 = 1 << 20;
/// What a group has for recent versions at the least.
const RECENT_LEAST: u64 = 4 << 20;

fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// An error with all that led to it, which names the file.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let said = source.to_string();
        // Some say what led to them themselves.
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        next = source.source();
    }
    text
}

impl Databases {
    pub(crate) fn new(env: &Env, data: &Path, config: &Config, memory: MemoryPlan) -> Databases {
        let engine = match config.storage.engine {
            EngineChoice::Redb => EngineKind::Redb,
            EngineChoice::Sled => EngineKind::Sled,
            EngineChoice::Memory => EngineKind::Memory,
        };
        Databases {
            env: env.clone(),
            dir: data.join("groups"),
            engine,
            memory,
            caches: Shares::new(memory.engine_caches, CACHE_LEAST),
            recent: Shares::new(memory.recent, RECENT_LEAST),
            flush_interval: config.storage.flush_interval.get(),
            stores: RwLock::default(),
        }
    }

    /// The store of a group, if it is open here.
    pub(crate) fn store(&self, group: GroupId) -> Option<KvStore> {
        self.stores.read().get(&group).cloned()
    }

    /// Hands the store out no more: its group is about to be removed.
    pub(crate) fn forget(&self, group: GroupId) {
        self.stores.write().remove(&group);
        self.caches.give_back(group);
        self.recent.give_back(group);
    }

    /// Groups of which files are left, whether they are open or not; none while there is no folder.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(crate) fn on_disk(&self) -> std::io::Result<Vec<GroupId>> {
        let paths = match self.env.disk().list(&self.dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            paths => paths?,
        };
        let number = |path: PathBuf| path.file_name()?.to_str()?.parse().ok().map(GroupId::new);
        Ok(paths.into_iter().filter_map(number).collect())
    }

    /// Bytes that the stores keep in memory and on disk, over all groups.
    pub(crate) fn totals(&self) -> rustydb_txn::KvStats {
        let mut total = rustydb_txn::KvStats::default();
        for store in self.stores.read().values() {
            let stats = store.stats();
            total.in_flight_entries += stats.in_flight_entries;
            total.in_flight_size_bytes += stats.in_flight_size_bytes;
            total.unflushed_size_bytes += stats.unflushed_size_bytes;
            total.retained_size_bytes += stats.retained_size_bytes;
            total.locks += stats.locks;
            total.file_size_bytes += stats.file_size_bytes;
        }
        total
    }

    fn folder(&self, group: GroupId) -> PathBuf {
        self.dir.join(group.to_string())
    }

    fn config(&self, group: GroupId) -> KvConfig {
        let recent = if group == GroupId::SYSTEM { RECENT_LEAST } else { self.recent.take(group) };
        KvConfig {
            flush_interval: self.flush_interval,
            flush_size_bytes: bytes(recent / 2).min(64 << 20),
            unflushed_size_bytes_max: bytes(recent * 2),
            // What cannot be staged is held by its session, beside sorts and hash tables.
            transaction_size_bytes_max: bytes(self.memory.work).max(64 << 20),
            // Old snapshots are rare and belong to one group at a time: a scan right after a bulk load pins what
            // was loaded, and must not be given up for a share that other groups do not use.
            snapshot_size_bytes_max: bytes(self.memory.recent),
            ..KvConfig::new(self.folder(group))
        }
    }
}

impl MachineFactory for Databases {
    fn open(&self, group: GroupId, proposer: &Arc<RaftProposer>) -> Result<Box<dyn Machine>, MachineError> {
        let (env, kind) = (self.env.clone(), self.engine);
        let cache = bytes(if group == GroupId::SYSTEM { CACHE_LEAST } else { self.caches.take(group) });
        let opener: EngineOpener = Arc::new(move |path| engine::open(kind, &env, path, cache));
        let proposer = Arc::new(KvProposer::new(Arc::clone(proposer)));
        let (store, machine) = KvStore::open(&self.env, self.config(group), opener, proposer)
            .map_err(|error| MachineError { reason: format!("group {group}: {}", with_sources(&error)) })?;
        self.stores.write().insert(group, store);
        Ok(Box::new(KvMachine::new(machine)))
    }

    fn remove(&self, group: GroupId) -> Result<(), MachineError> {
        self.forget(group);
        let failed = |error: std::io::Error| MachineError { reason: format!("group {group}: {error}") };
        let disk = self.env.disk();
        disk.remove_dir_all(&self.folder(group)).map_err(failed)?;
        if disk.exists(&self.dir).map_err(failed)? {
            disk.sync_dir(&self.dir).map_err(failed)?;
        }
        Ok(())
    }
}
