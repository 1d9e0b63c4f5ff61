//! Bounds and intervals of one store.

use std::path::PathBuf;
use std::time::Duration;

use crate::outcomes::OutcomeBounds;

/// How one store behaves. Internal: the server carves the figures from its own configuration.
#[derive(Clone, Debug)]
pub struct KvConfig {
    /// The folder of the store: engine files and the pointer to the current one. Created if absent.
    pub dir: PathBuf,
    /// Bytes of new versions at which the active generation is frozen and flushed.
    pub flush_size_bytes: usize,
    /// Age at which a generation is frozen and flushed whatever its size.
    pub flush_interval: Duration,
    /// Bytes of versions not yet flushed at which applying flushes in place, so that memory stays bounded when
    /// the disk is slower than the log.
    pub unflushed_size_bytes_max: usize,
    /// Bytes of flushed generations that old snapshots may keep alive; beyond it the oldest snapshot is given up.
    pub snapshot_size_bytes_max: usize,
    /// Entries numbered and not yet applied at which commits wait.
    pub window_entries_max: usize,
    /// Bytes of such entries at which commits wait.
    pub window_size_bytes_max: usize,
    /// How long a commit waits for room in the window before it is refused.
    pub window_wait: Duration,
    /// How long a commit waits to be applied before its outcome is called unknown.
    pub commit_wait: Duration,
    /// Row and table locks held or waited for in all.
    pub locks_max: usize,
    /// Bytes of one transaction's writes held in memory.
    pub transaction_size_bytes_max: usize,
    /// The largest log entry. It must fit in what the log takes, since an entry that the log refuses after consensus
    /// has taken it stops the node.
    pub entry_size_bytes_max: usize,
    /// Bytes of one chunk of a staged transaction.
    pub stage_size_bytes: usize,
    /// Bytes of buffered writes at which a transaction begins to be staged. A transaction that stays below is one
    /// entry.
    pub stage_begin_size_bytes: usize,
    /// How long a chunk waits for room before its transaction is refused: bulk work yields to everything else.
    pub stage_wait: Duration,
    /// Of so many entries one has everything that it replaces looked up and compared, wherever it is stored. Of the
    /// others only what is in memory is: to read each old row from the engine at each replica costs a tenth of a write.
    pub base_check_interval: u64,
    /// How many outcomes of transactions are kept, and for how long.
    pub outcomes: OutcomeBounds,
    /// Key ranges that one SERIALIZABLE transaction remembers before it coarsens them.
    pub read_ranges_max: usize,
    /// Bytes of recently written keys kept to validate SERIALIZABLE transactions.
    pub validation_size_bytes_max: usize,
}

impl KvConfig {
    /// The figures of a node with the default memory budget.
    #[must_use]
    pub fn new(dir: PathBuf) -> KvConfig {
        KvConfig {
            dir,
            flush_size_bytes: 64 << 20,
            flush_interval: Duration::from_secs(3),
            unflushed_size_bytes_max: 192 << 20,
            snapshot_size_bytes_max: 128 << 20,
            window_entries_max: 100_000,
            window_size_bytes_max: 100_000_000,
            window_wait: Duration::from_secs(5),
            commit_wait: Duration::from_secs(30),
            locks_max: 2_000_000,
            transaction_size_bytes_max: 256 << 20,
            entry_size_bytes_max: 30 << 20,
            stage_size_bytes: 1 << 20,
            stage_begin_size_bytes: 8 << 20,
            stage_wait: Duration::from_secs(60),
            base_check_interval: 16,
            outcomes: OutcomeBounds::default(),
            read_ranges_max: 4096,
            validation_size_bytes_max: 16 << 20,
        }
    }
}
