//! `[storage]`, `[log]` and `[memory]`: what a node keeps and what it may use.

use serde::{Deserialize, Serialize};

use super::units::{ByteSize, MemoryBudget, TimeSpan};

/// Which ordered-key engine holds flushed rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineChoice {
    /// One redb file per database: the default.
    #[default]
    Redb,
    /// sled, for those who ask for it; its limits are in `docs/operations.md`.
    Sled,
    /// In memory only. A node on it forgets its databases at each start and is filled again from its log, which
    /// then is never purged; for tests and experiments.
    Memory,
}

/// `[storage]`: the engine behind the tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    /// `redb`, `sled` or `memory`; default `redb`. It is fixed by the first start of a data folder.
    pub engine: EngineChoice,
    /// Longest time that an applied change stays in memory only before it is flushed into the engine; default
    /// 30s, range 100ms to 1h. The log makes it durable before that. A short time means a short recovery; a long
    /// one writes less, because rows that change again and rows of one page are written once.
    pub flush_interval: TimeSpan,
}

impl Default for StorageConfig {
    fn default() -> StorageConfig {
        StorageConfig { engine: EngineChoice::Redb, flush_interval: TimeSpan::from_secs(30) }
    }
}

/// `[log]`: the write-ahead log that all groups of a node share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Size of a segment file; default 64MiB, range 8MiB to 1GiB. Segments are the unit of purging, and an entry takes
    /// at most half of one.
    pub segment_size: ByteSize,
    /// Free disk space below which writes are refused with 53100 while reads go on; default 256MiB.
    /// It leaves room to recover in.
    pub disk_reserve: ByteSize,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig { segment_size: ByteSize::from_mib(64), disk_reserve: ByteSize::from_mib(256) }
    }
}

/// `[memory]`: one budget, from which every cache and buffer is carved.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryConfig {
    /// Memory that the node plans with: engine caches, recent versions, log tail and work memory; at least
    /// 128MiB; default `auto`, a quarter of the machine's memory.
    pub budget: MemoryBudget,
}
