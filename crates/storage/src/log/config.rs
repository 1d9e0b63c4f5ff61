//! What can be set.

/// Sizes of the log. Set when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Size of a segment file in bytes. Default 64 MiB; from 16 KiB to 1 GiB. May change between starts: each
    /// segment records its own.
    pub segment_bytes: u32,
    /// How many empty segments are kept ready. Default 2, at least 1.
    pub spare_count: usize,
    /// Recent entries kept in memory for replication and apply, in bytes over all groups. Default 32 MiB. Entries
    /// that are not yet written are kept beyond it.
    pub tail_cache_bytes: usize,
    /// At this many bytes submitted and not yet written `GroupLog::ready` waits. Default 64 MiB. At four times
    /// this appends are refused as overloaded.
    pub queue_bytes_max: usize,
    /// Most bytes written by one write and covered by one sync. Default 8 MiB.
    pub batch_bytes_max: usize,
    /// With less than this free on the file system appends are refused as disk full. Default 256 MiB.
    pub reserve_bytes: u64,
}

impl LogConfig {
    /// The largest body of an entry: half a segment, so that it always fits behind a checkpoint.
    #[must_use]
    pub const fn entry_bytes_max(&self) -> usize {
        self.segment_bytes as usize / 2
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            spare_count: 2,
            tail_cache_bytes: 32 << 20,
            queue_bytes_max: 64 << 20,
            batch_bytes_max: 8 << 20,
            reserve_bytes: 256 << 20,
        }
    }
}
