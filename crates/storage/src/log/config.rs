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
    /// With less than this free on the file system the log says that it is full. Default 256 MiB.
    pub reserve_bytes: u64,
}

impl LogConfig {
    /// The smallest segment.
    pub const SEGMENT_BYTES_MIN: u32 = 16 << 10;
    /// The largest segment.
    pub const SEGMENT_BYTES_MAX: u32 = 1 << 30;

    /// What is wrong with it, if anything.
    pub(super) const fn fault(&self) -> Option<&'static str> {
        if self.segment_bytes < Self::SEGMENT_BYTES_MIN || self.segment_bytes > Self::SEGMENT_BYTES_MAX {
            return Some("segment_bytes is not between 16 KiB and 1 GiB");
        }
        if !self.segment_bytes.is_multiple_of(4096) {
            return Some("segment_bytes is not a multiple of 4 KiB");
        }
        if self.spare_count == 0 || self.queue_bytes_max == 0 || self.batch_bytes_max == 0 {
            return Some("spare_count, queue_bytes_max and batch_bytes_max must not be zero");
        }
        None
    }

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
