//! What can go wrong in an engine.

use std::error::Error;
use std::io;
use std::path::PathBuf;

/// A failure of an engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The file system has too little room for the next batch; nothing was changed and reads go on.
    #[error("not enough disk space for {path}: {available_bytes} bytes free, {needed_bytes} needed")]
    DiskFull {
        /// The engine's file or folder.
        path: PathBuf,
        /// Bytes free when the write was refused.
        available_bytes: u64,
        /// Bytes that must be free for a write to start.
        needed_bytes: u64,
    },
    /// The disk failed.
    #[error("engine file {path}: {source}")]
    Io {
        /// The engine's file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not what the engine wrote.
    #[error("engine file {path} is damaged: {source}")]
    Damaged {
        /// The engine's file or folder.
        path: PathBuf,
        /// What the engine's own reader said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// An earlier write failed; what reached the disk is unknown until the engine is opened again.
    #[error("engine {path} refuses work after a failed write; restart the node to recover it")]
    Poisoned {
        /// The engine's file or folder.
        path: PathBuf,
    },
    /// The view was held for so long that the engine gave it up to stay within its memory bound.
    #[error("the view is older than the engine can keep")]
    ViewExpired,
    /// The code that filled a batch gave up; nothing was changed.
    #[error("the batch was given up: {0}")]
    Abandoned(#[source] Box<dyn Error + Send + Sync>),
}

impl EngineError {
    /// Whether the files are not what was written to them: nothing but another copy helps.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }
}
