//! `[raft]`: elections, replication and its bounds.
//!
//! Batching has no switch: appends are pipelined, and what waits while a write is on its way to the disk goes
//! with the next one. There is no linger, so there is no batch timeout either.

use serde::{Deserialize, Serialize};

use super::units::{ByteSize, TimeSpan};

/// `[raft]`: one set of figures for all groups of a node; equal on all nodes of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RaftConfig {
    /// Time between a leader's heartbeats; default 50ms, range 10ms to 5s.
    pub heartbeat_interval: TimeSpan,
    /// Least random wait of a follower that hears no leader; default 200ms; at least 3 heartbeats, so that one
    /// lost packet starts no election.
    pub election_timeout_min: TimeSpan,
    /// Greatest random wait, and the length of a leader's lease; default 400ms. Together with the minimum it
    /// keeps the gap after the death of a leader under one second.
    pub election_timeout_max: TimeSpan,
    /// Most entries in one append message; default 1000, range 1 to 100000.
    pub max_entries_per_append: u64,
    /// Most bytes in one append message; default 1MiB, range 64KiB to 16MiB.
    pub max_append_size: ByteSize,
    /// Log written by a group since its last snapshot that makes it take the next one, and the length beyond which
    /// the log of a node, which all its groups share, is shortened; default 256MiB. Counted in bytes, because
    /// entries differ in size by a factor of thousands.
    pub snapshot_log_size: ByteSize,
    /// Most proposals of a group that are not yet committed; default 100000. At the bound commits wait, then
    /// fail with an error of class 53.
    pub max_uncommitted_entries: u64,
    /// Most bytes of proposals of a group that are not yet committed; default 100MiB. Same effect.
    pub max_uncommitted_size: ByteSize,
}

impl Default for RaftConfig {
    fn default() -> RaftConfig {
        RaftConfig {
            heartbeat_interval: TimeSpan::from_millis(50),
            election_timeout_min: TimeSpan::from_millis(200),
            election_timeout_max: TimeSpan::from_millis(400),
            max_entries_per_append: 1000,
            max_append_size: ByteSize::from_mib(1),
            snapshot_log_size: ByteSize::from_mib(256),
            max_uncommitted_entries: 100_000,
            max_uncommitted_size: ByteSize::from_mib(100),
        }
    }
}
