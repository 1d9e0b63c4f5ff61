//! Rows in files by the hash of a key: what does not fit in memory as a whole may fit part by part.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use rustydb_types::value::Value;

use super::spill::{SpillArea, SpillReader, SpillWriter};
use super::subquery::HashedRow;
use crate::error::SqlError;

/// Into how many files rows are divided.
const COUNT: u64 = 32;
/// How often a part that does not fit is divided again. Rows of one key always stay together.
pub(crate) const DEPTH_MAX: u32 = 4;

/// Files that are being written.
#[derive(Debug)]
pub(crate) struct Partitions {
    files: Vec<SpillWriter>,
    depth: u32,
}

impl Partitions {
    /// Files for rows that were divided so often before.
    pub(crate) fn new(area: &Arc<SpillArea>, depth: u32) -> Self {
        Self { files: (0..COUNT).map(|_| area.create()).collect(), depth }
    }

    /// Writes a row to the file of its key.
    ///
    /// # Errors
    /// 53100 when the disk is full; those of the disk.
    pub(crate) fn push(&mut self, key: &HashedRow, row: &[Value]) -> Result<(), SqlError> {
        let mut hasher = DefaultHasher::new();
        // Each division takes another hash, or all of a part would come to one file again.
        self.depth.hash(&mut hasher);
        key.hash(&mut hasher);
        let place = usize::try_from(hasher.finish() % COUNT).unwrap_or(0);
        match self.files.get_mut(place) {
            Some(file) => file.push(row),
            None => Err(SqlError::internal("a row belongs to no file")),
        }
    }

    /// The files, to be read, each with how often its rows were divided.
    ///
    /// # Errors
    /// As [`Partitions::push`].
    pub(crate) fn finish(self) -> Result<Vec<(SpillReader, u32)>, SqlError> {
        let depth = self.depth + 1;
        self.files.into_iter().map(|file| Ok((file.finish(true)?, depth))).collect()
    }
}
