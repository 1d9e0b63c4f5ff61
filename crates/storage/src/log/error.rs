//! What can go wrong in the log.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustydb_types::ids::{GroupId, LogIndex};

/// The log could not do what it was asked. Cheap to clone: one failure is told to all who wait.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The device failed while opening or reading.
    #[error("log: device error at {path:?}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the device said.
        #[source]
        source: Arc<io::Error>,
    },
    /// A write or sync failed: what is on disk is unknown, the node must stop.
    #[error("log: poisoned by a failed write or sync")]
    Poisoned {
        /// What the device said at the time.
        #[source]
        source: Arc<io::Error>,
    },
    /// No room for more entries. Nothing was written; works again when space is freed.
    #[error("log: disk full")]
    DiskFull,
    /// Too much is submitted and not yet written. Nothing was written.
    #[error("log: overloaded, {queued_bytes} bytes wait to be written")]
    Overloaded {
        /// Bytes in the queue.
        queued_bytes: usize,
    },
    /// The bytes on disk are not what was written. Repair from peers.
    #[error("log: corrupt file {path:?} at byte {offset}: {detail}")]
    Corrupt {
        /// The segment file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What was found.
        detail: String,
    },
    /// The device does not give back what was written. It may later.
    #[error("log: file {path:?} cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the device said.
        #[source]
        source: Arc<io::Error>,
    },
    /// There is no log where there was one, and with it all votes are lost.
    #[error(
        "log: {path:?} is empty, and this node has had a log there: its votes are lost; put the data folder back \
         as it was, or give the node an empty one and an unused node.id, and add it as a new node"
    )]
    Gone {
        /// The folder.
        path: PathBuf,
    },
    /// A file of a format that this version does not read.
    #[error("log: file {path:?} has format version {found}, this program reads {supported}")]
    UnknownFormat {
        /// The segment file.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// The version that is known.
        supported: u32,
    },
    /// A size that the log cannot work with.
    #[error("log: {fault}")]
    InvalidConfig {
        /// Which.
        fault: &'static str,
    },
    /// Another process uses the folder.
    #[error("log: folder {path:?} is in use by another process")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// Appended entries do not continue the log. Nothing was written.
    #[error("log: group {group} expects index {expected}, got {found}")]
    Gap {
        /// Whose log.
        group: GroupId,
        /// The next index.
        expected: LogIndex,
        /// The index that came.
        found: LogIndex,
    },
    /// An entry larger than half a segment. Nothing was written.
    #[error("log: entry of {size_bytes} bytes exceeds the limit of {limit_bytes}")]
    TooLarge {
        /// Its size.
        size_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// The entries asked for are purged.
    #[error("log: group {group} begins at index {first}, asked for {asked}")]
    Purged {
        /// Whose log.
        group: GroupId,
        /// The first index there is.
        first: LogIndex,
        /// What was asked for.
        asked: LogIndex,
    },
    /// The log is closed.
    #[error("log: closed")]
    Closed,
}

/// What a caller does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogErrorKind {
    /// Refuse the request; it may work later.
    Retry,
    /// Refuse the request, and shed load until there is space.
    DiskFull,
    /// The caller's mistake.
    Misuse,
    /// Stop the node.
    Fatal,
}

impl LogError {
    /// What a caller does about it.
    #[must_use]
    pub const fn kind(&self) -> LogErrorKind {
        match self {
            Self::DiskFull => LogErrorKind::DiskFull,
            Self::Overloaded { .. } => LogErrorKind::Retry,
            Self::Gap { .. } | Self::TooLarge { .. } | Self::Purged { .. } => LogErrorKind::Misuse,
            Self::Io { .. }
            | Self::Poisoned { .. }
            | Self::Corrupt { .. }
            | Self::Unreadable { .. }
            | Self::Gone { .. }
            | Self::UnknownFormat { .. }
            | Self::Locked { .. }
            | Self::InvalidConfig { .. }
            | Self::Closed => LogErrorKind::Fatal,
        }
    }

    /// A device error while opening or reading `path`.
    pub(super) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { path: path.into(), source: Arc::new(source) }
    }

    /// What is at `path` is not given back.
    pub(super) fn unreadable(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Unreadable { path: path.into(), source: Arc::new(source) }
    }
}
