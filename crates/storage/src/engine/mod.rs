//! Ordered-key engines: where the state of one Raft group rests once it has left memory.
//!
//! An engine is a set of ordered byte maps, one per [`Space`], changed only by atomic batches
//! and read only through immutable views.
//!
//! ```text
//!   write(durability, |writer| put / delete / delete_range)   one batch, all or nothing
//!   view() ── get(space, key) ── scan(space, range, direction, row callback)
//! ```
//!
//! Invariants, each held by [`conformance`](self) for every engine:
//! * a batch is visible in full or not at all, to every view and after every crash;
//! * a view never changes, whatever is written after it was taken;
//! * when `write` with [`Durability::Synced`] returns `Ok`, the batch and all before it survive a power cut;
//! * after a failed write the engine is poisoned: it answers [`EngineError::Poisoned`] until it is opened again.
//!
//! Deliberately absent: transactions, versions and locks. Those belong to the layer above, which writes
//! in large background batches and therefore lets an engine be chosen for its reads.

mod checked;
mod error;
mod memory;
mod redb;
mod sled;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod crash;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustydb_env::Env;

pub use self::error::EngineError;
pub use self::memory::MemoryEngine;
pub use self::redb::RedbEngine;
pub use self::sled::SledEngine;

/// One ordered keyspace within an engine. Spaces share batches and views but never keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Space(u8);

impl Space {
    /// How many spaces an engine holds; a larger number is refused at construction.
    pub const COUNT: u8 = 8;

    /// The space with this number.
    ///
    /// # Panics
    /// At compile time when used in a constant, if `number` is not below [`Space::COUNT`].
    #[must_use]
    pub const fn new(number: u8) -> Space {
        assert!(number < Space::COUNT, "an engine holds a fixed number of spaces");
        Space(number)
    }

    /// The number given at construction.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The number as an index into a per-space table.
    const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The order in which a scan meets its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Ascending byte order.
    Forward,
    /// Descending byte order.
    Backward,
}

/// What holds when a write returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Atomic and visible; durable only with a later synced write.
    Buffered,
    /// Survives a power cut.
    Synced,
}

/// A half-open range of keys, `start <= key < end`; an absent end is the end of the space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRange<'a> {
    /// First key that belongs to the range.
    pub start: &'a [u8],
    /// First key that no longer belongs to the range.
    pub end: Option<&'a [u8]>,
}

impl<'a> KeyRange<'a> {
    /// Every key of a space.
    pub const ALL: KeyRange<'static> = KeyRange { start: &[], end: None };

    /// Keys from `start` up to but without `end`.
    #[must_use]
    pub const fn new(start: &'a [u8], end: &'a [u8]) -> KeyRange<'a> {
        KeyRange { start, end: Some(end) }
    }

    /// Whether no key can lie in the range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end.is_some_and(|end| self.start >= end)
    }
}

/// The callback of a scan: one row, borrowed for the call; `Break` ends the scan.
pub type RowVisitor<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// The callback that fills a batch.
pub type BatchFiller<'a> = dyn FnMut(&mut dyn EngineWriter) -> Result<(), EngineError> + 'a;

/// An immutable picture of an engine, cheap to share and to hold.
pub trait EngineView: Send + Sync {
    /// The value at `key`, if there is one.
    ///
    /// # Errors
    /// [`EngineError`] when the engine cannot be read or the view was given up (see [`EngineError::ViewExpired`]).
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// Calls `visit` for each row of `range` in the asked order until it breaks or the range ends.
    ///
    /// # Errors
    /// As [`EngineView::get`]; rows visited before the error were right.
    fn scan(
        &self,
        space: Space,
        range: KeyRange<'_>,
        direction: Direction,
        visit: &mut RowVisitor<'_>,
    ) -> Result<(), EngineError>;
}

/// The open batch of a write; later calls win over earlier ones for the same key.
pub trait EngineWriter {
    /// Sets `key` to `value`.
    ///
    /// # Errors
    /// [`EngineError`] when the engine fails; the whole batch is then dropped.
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<(), EngineError>;

    /// Removes `key`; absent keys are no error.
    ///
    /// # Errors
    /// As [`EngineWriter::put`].
    fn delete(&mut self, space: Space, key: &[u8]) -> Result<(), EngineError>;

    /// Removes every key of `range`. Costs time by the number of keys removed.
    ///
    /// # Errors
    /// As [`EngineWriter::put`].
    fn delete_range(&mut self, space: Space, range: KeyRange<'_>) -> Result<(), EngineError>;
}

/// What an engine tells of itself, for metrics and the memory budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Bytes that the engine's files take on disk.
    pub file_size_bytes: u64,
    /// Bytes that the engine keeps in memory (cache included), as far as it can tell.
    pub memory_bytes: u64,
}

/// An ordered-key store of one Raft group.
pub trait Engine: Send + Sync {
    /// The engine's current state as an immutable view.
    ///
    /// # Errors
    /// [`EngineError`] when the engine cannot be read.
    fn view(&self) -> Result<Arc<dyn EngineView>, EngineError>;

    /// Applies one batch atomically. Batches of one engine run one after another.
    /// Blocks for as long as the disk takes: call it where blocking is allowed.
    ///
    /// # Errors
    /// [`EngineError::DiskFull`] before anything was changed; any error that `fill` returned, with nothing
    /// changed; any other error leaves the engine poisoned and the batch either absent or, after reopening, whole.
    fn write(&self, durability: Durability, fill: &mut BatchFiller<'_>) -> Result<(), EngineError>;

    /// Gives free space back to the file system where the engine can; otherwise does nothing.
    /// Views stay valid; an engine that cannot compact beside them skips the work and returns `false`.
    ///
    /// # Errors
    /// [`EngineError`] when the disk fails.
    fn compact(&self) -> Result<bool, EngineError>;

    /// Sizes for metrics.
    fn stats(&self) -> EngineStats;
}

/// Which engine a node uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// In memory only: the model that the others are tested against. Nothing survives the process.
    Memory,
    /// redb, the default: a copy-on-write B-tree in one file, over the node's own disk port.
    Redb,
    /// sled, selectable: a log-structured tree in a folder; see [`SledEngine`] for its limits.
    Sled,
}

impl EngineKind {
    /// The name used in configuration files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            EngineKind::Memory => "memory",
            EngineKind::Redb => "redb",
            EngineKind::Sled => "sled",
        }
    }
}

/// Opens the engine at `path`, a file for redb and a folder for sled, creating it when absent.
/// `cache_size_bytes` bounds the engine's own cache.
///
/// # Errors
/// [`EngineError`] when the files cannot be opened or are damaged.
pub fn open(
    kind: EngineKind,
    env: &Env,
    path: &Path,
    cache_size_bytes: usize,
) -> Result<Arc<dyn Engine>, EngineError> {
    Ok(match kind {
        EngineKind::Memory => Arc::new(MemoryEngine::new()),
        EngineKind::Redb => Arc::new(RedbEngine::open(env, path, cache_size_bytes)?),
        EngineKind::Sled => Arc::new(SledEngine::open(env, path, cache_size_bytes)?),
    })
}
