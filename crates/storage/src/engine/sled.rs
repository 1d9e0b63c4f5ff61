//! sled, the selectable engine: a log-structured tree in a folder.
//!
//! It is here for those who ask for it. Its limits, so that nobody has to find them out:
//! * it brings its own threads and opens its own files, so it does not run in the simulation;
//! * its `flush` asks the kernel to write but not the device to keep, so every synced batch is followed by
//!   a sync of the whole file system through the node's disk port;
//! * it has no snapshots: this module keeps, in memory, the overwritten values that a living view may still
//!   need, up to 256 MiB; beyond that the oldest views get [`EngineError::ViewExpired`];
//! * it may write tens of bytes per user byte, and a batch is held in memory twice while it is applied.
//!
//! ```text
//!   one tree; key = space number, user key
//!   view(version v) reads sled first, then the undo entries of batches newer than v:
//!       an entry's pre-image (value or absence) wins over what sled said
//! ```
//! A batch records its pre-images before it touches sled. So a reader that meets a new value in sled finds
//! the old one in the undo entries afterwards, whatever the timing.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};
use rustydb_env::{Disk, Env};
use sled::IVec;

use super::{
    BatchFiller, Direction, Durability, Engine, EngineError, EngineStats, EngineView, EngineWriter, KeyRange,
    RowVisitor, Space,
};

/// Longest wait for a former opening of the same folder to end.
const UNLOCK_WAIT: Duration = Duration::from_secs(10);
const UNLOCK_PAUSE: Duration = Duration::from_millis(5);

/// Most bytes of overwritten values kept for living views.
const UNDO_SIZE_BYTES_MAX: usize = 256 << 20;

/// Rows that a scan takes from sled before it looks for pre-images.
const SCAN_CHUNK_ROWS: usize = 512;

/// As for redb: refuse a batch in time rather than fail in the middle.
const FREE_SIZE_BYTES_MIN: u64 = 32 << 20;

/// An engine in one sled folder.
pub struct SledEngine {
    tree: sled::Db,
    disk: Arc<dyn Disk>,
    path: PathBuf,
    undo: Arc<Undo>,
    /// Held for the length of a batch: batches run one after another.
    writing: Mutex<()>,
    poisoned: AtomicBool,
}

/// Overwritten values by batch, oldest first.
#[derive(Default)]
struct Undo {
    state: RwLock<UndoState>,
}

#[derive(Default)]
struct UndoState {
    /// Number of the newest batch that sled holds in full: what a new view sees.
    applied: u64,
    /// Views older than this were given up.
    version_kept_min: u64,
    size_bytes: usize,
    batches: VecDeque<UndoBatch>,
    /// How many living views there are per version.
    views: BTreeMap<u64, usize>,
}

struct UndoBatch {
    version: u64,
    size_bytes: usize,
    before: BTreeMap<Vec<u8>, Option<IVec>>,
}

impl UndoState {
    /// Drops the batches that no living view needs, then the oldest ones beyond the bound.
    fn trim(&mut self) {
        let version_needed_min = self.views.keys().next().copied().unwrap_or(self.applied);
        while let Some(batch) = self.batches.front() {
            let needed = batch.version > version_needed_min;
            if needed && self.size_bytes <= UNDO_SIZE_BYTES_MAX {
                return;
            }
            if needed {
                self.version_kept_min = batch.version;
            }
            self.size_bytes -= batch.size_bytes;
            self.batches.pop_front();
        }
    }
}

impl SledEngine {
    /// Opens or creates the engine in the folder `path`.
    ///
    /// # Errors
    /// [`EngineError::Io`] or [`EngineError::Damaged`] as sled reports it.
    pub fn open(env: &Env, path: &Path, cache_size_bytes: usize) -> Result<SledEngine, EngineError> {
        let config = sled::Config::default()
            .path(path)
            .cache_capacity(cache_size_bytes as u64)
            // Syncs are ours: see `sync`.
            .flush_every_ms(None);
        let deadline = env.now() + UNLOCK_WAIT;
        let tree = loop {
            match config.open() {
                Ok(tree) => break tree,
                Err(error) if is_locked(&error) && env.now() < deadline => {
                    // Nobody tells: the thread pauses, as it does in the opening itself.
                    let _timed_out = Condvar::new().wait_for(&mut Mutex::new(()).lock(), UNLOCK_PAUSE);
                }
                Err(error) => return Err(translate(path, error)),
            }
        };
        let engine = SledEngine {
            tree,
            disk: Arc::clone(env.disk()),
            path: path.to_path_buf(),
            undo: Arc::default(),
            writing: Mutex::new(()),
            poisoned: AtomicBool::new(false),
        };
        engine.sync()?;
        if let Some(folder) = path.parent() {
            engine.disk.sync_dir(folder).map_err(|source| engine.io_failed(source))?;
        }
        Ok(engine)
    }

    fn io_failed(&self, source: std::io::Error) -> EngineError {
        EngineError::Io { path: self.path.clone(), source }
    }

    /// Makes all applied batches survive a power cut.
    fn sync(&self) -> Result<(), EngineError> {
        self.tree.flush().map_err(|error| translate(&self.path, error))?;
        self.disk.sync_filesystem(&self.path).map_err(|error| self.io_failed(error))
    }

    fn check(&self) -> Result<(), EngineError> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(EngineError::Poisoned { path: self.path.clone() });
        }
        Ok(())
    }

    fn apply(
        &self,
        durability: Durability,
        changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    ) -> Result<(), EngineError> {
        let mut before = BTreeMap::new();
        let mut size_bytes = 0;
        let mut batch = sled::Batch::default();
        for (key, change) in changes {
            let old = self.tree.get(&key).map_err(|error| translate(&self.path, error))?;
            size_bytes += key.len() + old.as_ref().map_or(0, |value| value.len());
            match change {
                Some(value) => batch.insert(key.as_slice(), value),
                None => batch.remove(key.as_slice()),
            }
            before.insert(key, old);
        }
        {
            let mut undo = self.undo.state.write();
            undo.size_bytes += size_bytes;
            let version = undo.applied + 1;
            undo.batches.push_back(UndoBatch { version, size_bytes, before });
            undo.trim_for_writer();
        }
        self.tree.apply_batch(batch).map_err(|error| translate(&self.path, error))?;
        self.undo.state.write().applied += 1;
        if durability == Durability::Synced { self.sync() } else { Ok(()) }
    }
}

impl UndoState {
    /// As [`UndoState::trim`], but keeps the newest batch: readers of its predecessor may be reading sled now.
    fn trim_for_writer(&mut self) {
        let newest = self.batches.pop_back();
        self.trim();
        self.batches.extend(newest);
    }
}

/// Whether the folder is still locked. sled gives its lock up in a thread of its own, some time after the last handle
/// is gone; another process is kept away by the lock of the node's data folder.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(source) if source.to_string().contains("could not acquire lock"))
}

fn translate(path: &Path, error: sled::Error) -> EngineError {
    match error {
        sled::Error::Io(source) => EngineError::Io { path: path.to_path_buf(), source },
        other => EngineError::Damaged { path: path.to_path_buf(), source: Box::new(other) },
    }
}

fn full_key(space: Space, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(1 + key.len());
    full.push(space.get());
    full.extend_from_slice(key);
    full
}

/// The range of full keys that `range` of `space` covers.
fn full_range(space: Space, range: &KeyRange<'_>) -> (Vec<u8>, Vec<u8>) {
    let end = range.end.map_or_else(|| vec![space.get() + 1], |end| full_key(space, end));
    (full_key(space, range.start), end)
}

impl Engine for SledEngine {
    fn view(&self) -> Result<Arc<dyn EngineView>, EngineError> {
        self.check()?;
        let mut undo = self.undo.state.write();
        let version = undo.applied;
        *undo.views.entry(version).or_default() += 1;
        Ok(Arc::new(SledView {
            tree: self.tree.clone(),
            undo: Arc::clone(&self.undo),
            version,
            path: self.path.clone(),
        }))
    }

    fn write(&self, durability: Durability, fill: &mut BatchFiller<'_>) -> Result<(), EngineError> {
        self.check()?;
        let available_bytes = self.disk.available_bytes(&self.path).map_err(|error| self.io_failed(error))?;
        if available_bytes < FREE_SIZE_BYTES_MIN {
            return Err(EngineError::DiskFull {
                path: self.path.clone(),
                available_bytes,
                needed_bytes: FREE_SIZE_BYTES_MIN,
            });
        }
        let _writing = self.writing.lock();
        let mut writer = SledWriter { tree: &self.tree, path: &self.path, changes: BTreeMap::new() };
        fill(&mut writer)?;
        self.apply(durability, writer.changes).inspect_err(|_| self.poisoned.store(true, Ordering::Release))
    }

    fn compact(&self) -> Result<bool, EngineError> {
        // sled collects its own garbage while it writes.
        self.check()?;
        Ok(false)
    }

    fn stats(&self) -> EngineStats {
        EngineStats {
            file_size_bytes: self.tree.size_on_disk().unwrap_or(0),
            memory_bytes: self.undo.state.read().size_bytes as u64,
        }
    }
}

struct SledWriter<'e> {
    tree: &'e sled::Db,
    path: &'e Path,
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl EngineWriter for SledWriter<'_> {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        self.changes.insert(full_key(space, key), Some(value.to_vec()));
        Ok(())
    }

    fn delete(&mut self, space: Space, key: &[u8]) -> Result<(), EngineError> {
        self.changes.insert(full_key(space, key), None);
        Ok(())
    }

    fn delete_range(&mut self, space: Space, range: KeyRange<'_>) -> Result<(), EngineError> {
        if range.is_empty() {
            return Ok(());
        }
        let (start, end) = full_range(space, &range);
        for (_, change) in self.changes.range_mut::<Vec<u8>, _>(&start..&end) {
            *change = None;
        }
        for row in self.tree.range(start..end) {
            let (key, _) = row.map_err(|error| translate(self.path, error))?;
            self.changes.insert(key.to_vec(), None);
        }
        Ok(())
    }
}

struct SledView {
    tree: sled::Db,
    undo: Arc<Undo>,
    version: u64,
    path: PathBuf,
}

impl Drop for SledView {
    fn drop(&mut self) {
        let mut undo = self.undo.state.write();
        if let Some(count) = undo.views.get_mut(&self.version) {
            *count -= 1;
            if *count == 0 {
                undo.views.remove(&self.version);
            }
        }
        undo.trim_for_writer();
    }
}

impl SledView {
    /// Rows of `start..end` in ascending order as this view sees them, given what sled said before.
    fn with_undo(
        &self,
        mut rows: BTreeMap<Vec<u8>, IVec>,
        start: &[u8],
        end: &[u8],
    ) -> Result<BTreeMap<Vec<u8>, IVec>, EngineError> {
        let undo = self.undo.state.read();
        if self.version < undo.version_kept_min {
            return Err(EngineError::ViewExpired);
        }
        // Newest first, so that the oldest batch newer than the view has the last word.
        for batch in undo.batches.iter().rev().take_while(|batch| batch.version > self.version) {
            let bounds = (Bound::Included(start), Bound::Excluded(end));
            for (key, before) in batch.before.range::<[u8], _>(bounds) {
                match before {
                    Some(value) => rows.insert(key.clone(), value.clone()),
                    None => rows.remove(key),
                };
            }
        }
        Ok(rows)
    }

    /// The next chunk of `start..end` from the asked side, and the part of the range that is left.
    fn chunk(&self, start: &[u8], end: &[u8], direction: Direction) -> Result<Chunk, EngineError> {
        let mut rows = BTreeMap::new();
        let mut found = self.tree.range(start..end);
        let mut edge = None;
        loop {
            let row = match direction {
                Direction::Forward => found.next(),
                Direction::Backward => found.next_back(),
            };
            let Some(row) = row else { break };
            let (key, value) = row.map_err(|error| translate(&self.path, error))?;
            let key = key.to_vec();
            if rows.len() + 1 == SCAN_CHUNK_ROWS {
                edge = Some(key.clone());
            }
            rows.insert(key, value);
            if edge.is_some() {
                break;
            }
        }
        let (start, end, rest) = match (edge, direction) {
            (None, _) => (start.to_vec(), end.to_vec(), None),
            (Some(mut key), Direction::Forward) => {
                // The smallest key after `key`.
                key.push(0);
                (start.to_vec(), key.clone(), Some((key, end.to_vec())))
            }
            (Some(key), Direction::Backward) => (key.clone(), end.to_vec(), Some((start.to_vec(), key))),
        };
        Ok(Chunk { rows: self.with_undo(rows, &start, &end)?, rest })
    }
}

struct Chunk {
    rows: BTreeMap<Vec<u8>, IVec>,
    rest: Option<(Vec<u8>, Vec<u8>)>,
}

impl EngineView for SledView {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let key = full_key(space, key);
        let now = self.tree.get(&key).map_err(|error| translate(&self.path, error))?;
        let undo = self.undo.state.read();
        if self.version < undo.version_kept_min {
            return Err(EngineError::ViewExpired);
        }
        let first_newer = undo.batches.partition_point(|batch| batch.version <= self.version);
        let before = undo.batches.iter().skip(first_newer).find_map(|batch| batch.before.get(&key));
        Ok(before.cloned().unwrap_or(now).map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(
        &self,
        space: Space,
        range: KeyRange<'_>,
        direction: Direction,
        visit: &mut RowVisitor<'_>,
    ) -> Result<(), EngineError> {
        if range.is_empty() {
            return Ok(());
        }
        let mut rest = Some(full_range(space, &range));
        while let Some((start, end)) = rest {
            let chunk = self.chunk(&start, &end, direction)?;
            rest = chunk.rest;
            let mut rows = chunk.rows.iter();
            loop {
                let row = match direction {
                    Direction::Forward => rows.next(),
                    Direction::Backward => rows.next_back(),
                };
                let Some((key, value)) = row else { break };
                let Some(user_key) = key.get(1..) else { continue };
                if let ControlFlow::Break(()) = visit(user_key, value) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
