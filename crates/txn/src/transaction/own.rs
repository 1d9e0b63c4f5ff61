//! The writes of a transaction before its commit.
//!
//! Of each key two values at most are kept: the last of an earlier command, which the present command reads, and
//! the last of all, which is committed. An undo log exists while a savepoint is open.
//!
//! Of a large transaction rows leave in chunks: a chunk's rows are marked when it is numbered and leave when it is
//! applied, unless they were written again meanwhile. A row that the present command wrote may leave only if no
//! earlier value of the transaction is lost by it, since the command still reads that one. The rows of a chunk that
//! took no effect stay, as if they had never left; where that is not known, a copy of them may be staged all the same.

use std::collections::BTreeMap;

use bytes::Bytes;
use rustydb_types::ids::Version;
use smallvec::SmallVec;

use crate::entry::Base;
use crate::error::TxnError;
use crate::layer::{Item, ItemRun, Limits, ScanBounds};
use crate::sequencer::PreparedWrite;

/// A place in a transaction to go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SavepointId(u64);

/// Bytes that a written row costs beside key and value.
const OVERHEAD_BYTES: usize = 128;

/// A write as it enters.
#[derive(Clone, Debug)]
pub(super) struct OwnWrite {
    pub(super) base: Base,
    pub(super) value: Option<Bytes>,
    /// Whether a value of the transaction has left in a chunk.
    pub(super) staged_before: bool,
}

#[derive(Clone, Debug)]
struct OwnRow {
    base: Base,
    /// Whether an earlier value may have left in a chunk: then even the deletion of a row that is nowhere else must
    /// be told.
    staged_before: bool,
    /// Whether a chunk of unknown fate held the row: then, too, a deletion must be told. What the chunk may have
    /// left behind is hidden by what is here, and is replaced by the next chunk.
    copied: bool,
    /// The chunk on its way that holds the last value.
    chunk: Option<u64>,
    /// Commands and their last values, oldest first.
    values: SmallVec<[(u32, Option<Bytes>); 1]>,
}

impl OwnRow {
    fn size_bytes(&self) -> usize {
        self.values.iter().map(|(_, value)| OVERHEAD_BYTES + value.as_ref().map_or(0, Bytes::len)).sum()
    }

    /// The value that `command` reads.
    fn before(&self, command: u32) -> Option<&Option<Bytes>> {
        self.values.iter().rev().find(|(written, _)| *written < command).map(|(_, value)| value)
    }

    /// Whether the transaction leaves no trace of the row.
    fn is_nothing(&self) -> bool {
        let deleted = self.values.last().is_some_and(|(_, value)| value.is_none());
        deleted && self.base.version == Version::ZERO && !self.staged_before && !self.copied
    }

    /// Whether the row may leave during `command`, and with which command's writes.
    fn leaves(&self, command: u32) -> Option<Leaves> {
        if self.chunk.is_some() || self.is_nothing() {
            return None;
        }
        let (written, _) = self.values.last()?;
        if *written < command {
            Some(Leaves::Earlier)
        } else {
            (self.values.len() == 1 && !self.staged_before).then_some(Leaves::Present)
        }
    }

    fn prepared(&self, key: &Bytes) -> Option<PreparedWrite> {
        let (_, value) = self.values.last()?;
        Some(PreparedWrite { key: key.clone(), base: self.base, value: value.clone() })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    /// Written by an earlier command.
    Earlier,
    /// Written by the present one.
    Present,
}

/// Rows that leave together.
#[derive(Debug)]
pub(super) struct ChunkRows {
    /// The command that they count as written by.
    pub(super) command: u32,
    /// In order of key.
    pub(super) writes: Vec<PreparedWrite>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct OwnWrites {
    rows: BTreeMap<Bytes, OwnRow>,
    size_bytes: usize,
    /// Bytes of the rows that are in a chunk on its way.
    leaving_size_bytes: usize,
    /// Where too little could leave: the command, and the size at which to look again.
    stuck: Option<(u32, usize)>,
    /// What the rows were before each write since the oldest savepoint.
    undo: Vec<(Bytes, Option<OwnRow>)>,
    /// Open savepoints and where the undo log stood.
    savepoints: Vec<(SavepointId, usize)>,
    next_savepoint: u64,
}

impl OwnWrites {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) const fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Bytes of the rows that are in no chunk on its way.
    pub(super) const fn staying_size_bytes(&self) -> usize {
        self.size_bytes.saturating_sub(self.leaving_size_bytes)
    }

    pub(super) fn has_savepoint(&self) -> bool {
        !self.savepoints.is_empty()
    }

    pub(super) fn write(&mut self, key: Bytes, written: OwnWrite, command: u32) {
        let OwnWrite { base, value, staged_before } = written;
        if !self.savepoints.is_empty() {
            self.undo.push((key.clone(), self.rows.get(&key).cloned()));
        }
        let key_size = key.len();
        let row = self.rows.entry(key).or_insert_with(|| {
            self.size_bytes += key_size;
            OwnRow { base, staged_before, copied: false, chunk: None, values: SmallVec::new() }
        });
        self.size_bytes = self.size_bytes.saturating_sub(row.size_bytes());
        if row.chunk.take().is_some() {
            // What is on its way will be replaced by a later chunk.
            row.staged_before = true;
            self.leaving_size_bytes = self.leaving_size_bytes.saturating_sub(key_size + row.size_bytes());
        }
        row.values.retain(|(written, _)| *written != command);
        if row.values.len() > 1 {
            row.values.remove(0);
        }
        row.values.push((command, value));
        self.size_bytes += row.size_bytes();
    }

    /// What `command` reads of its transaction's own writes.
    pub(super) fn get(&self, key: &[u8], command: u32) -> Option<Option<Bytes>> {
        self.rows.get(key)?.before(command).cloned()
    }

    /// The last value written, by whatever command.
    pub(super) fn latest(&self, key: &[u8]) -> Option<Option<Bytes>> {
        self.rows.get(key)?.values.last().map(|(_, value)| value.clone())
    }

    pub(super) fn run(&self, bounds: &ScanBounds, command: u32, limits: Limits) -> ItemRun {
        let items = bounds.of_map(&self.rows).filter_map(|(key, row)| {
            let value = row.before(command)?.clone();
            Some(Item { key: key.clone(), version: Version::MAX, value })
        });
        ItemRun::collect(items, limits)
    }

    /// What is to be committed, in order of key. A row that came and went within the transaction is left out.
    pub(super) fn prepared(&self) -> impl Iterator<Item = PreparedWrite> {
        let staying = self.rows.iter().filter(|(_, row)| row.chunk.is_none() && !row.is_nothing());
        staying.filter_map(|(key, row)| row.prepared(key))
    }

    /// Chooses rows of about `size_bytes` that may leave during `command`, those of earlier commands or those of
    /// the present one, whichever are more. `None` if they are too few to be worth a chunk.
    pub(super) fn choose(&mut self, command: u32, size_bytes: usize) -> Option<ChunkRows> {
        if self.stuck.is_some_and(|(at, size)| at == command && self.staying_size_bytes() < size) {
            return None;
        }
        let mut sizes = [0_usize; 2];
        for (key, row) in &self.rows {
            if let Some(leaves) = row.leaves(command)
                && let Some(size) = sizes.get_mut(leaves as usize)
            {
                *size += key.len() + row.size_bytes();
                if *size >= size_bytes {
                    break;
                }
            }
        }
        let [earlier, present] = sizes;
        let leaves = if earlier >= present { Leaves::Earlier } else { Leaves::Present };
        if earlier.max(present) < (size_bytes / 2).max(1) {
            self.stuck = Some((command, self.staying_size_bytes() + size_bytes));
            return None;
        }
        let mut chosen = 0;
        let rows = self.rows.iter().filter(|(_, row)| row.leaves(command) == Some(leaves));
        let rows = rows.take_while(|(key, row)| {
            let fits = chosen < size_bytes;
            chosen += key.len() + row.size_bytes();
            fits
        });
        let writes = rows.filter_map(|(key, row)| row.prepared(key)).collect();
        let command = if leaves == Leaves::Present { command } else { command.saturating_sub(1) };
        Some(ChunkRows { command, writes })
    }

    /// Marks rows as on their way in `chunk`.
    pub(super) fn leave(&mut self, chunk: u64, keys: &[Bytes]) {
        for key in keys {
            if let Some(row) = self.rows.get_mut(key) {
                row.chunk = Some(chunk);
                self.leaving_size_bytes += key.len() + row.size_bytes();
            }
        }
    }

    /// Forgets the rows of a chunk that is applied. Returns whether the row at each key is gone: one that was written
    /// again meanwhile stays.
    pub(super) fn left(&mut self, chunk: u64, key: &Bytes) -> bool {
        if self.rows.get(key).is_none_or(|row| row.chunk != Some(chunk)) {
            return false;
        }
        if let Some(row) = self.rows.remove(key) {
            let size = key.len() + row.size_bytes();
            self.size_bytes = self.size_bytes.saturating_sub(size);
            self.leaving_size_bytes = self.leaving_size_bytes.saturating_sub(size);
        }
        true
    }

    /// Keeps the rows of a chunk that took no effect, so that they leave with another. `copied`: it may have taken
    /// effect after all.
    pub(super) fn stay(&mut self, chunk: u64, keys: &[Bytes], copied: bool) {
        for key in keys {
            if let Some(row) = self.rows.get_mut(key) {
                row.copied |= copied;
                if row.chunk == Some(chunk) {
                    row.chunk = None;
                    let size = key.len() + row.size_bytes();
                    self.leaving_size_bytes = self.leaving_size_bytes.saturating_sub(size);
                }
            }
        }
        self.stuck = None;
    }

    /// A chunk of these rows that was never marked may have taken effect.
    pub(super) fn may_be_copied(&mut self, rows: &ChunkRows) {
        for write in &rows.writes {
            if let Some(row) = self.rows.get_mut(&write.key) {
                row.copied = true;
            }
        }
    }

    pub(super) fn savepoint(&mut self) -> SavepointId {
        self.next_savepoint += 1;
        let id = SavepointId(self.next_savepoint);
        self.savepoints.push((id, self.undo.len()));
        id
    }

    fn place_of(&self, savepoint: SavepointId) -> Result<usize, TxnError> {
        self.savepoints.iter().rposition(|(id, _)| *id == savepoint).ok_or(TxnError::NoSuchSavepoint)
    }

    pub(super) fn rollback_to(&mut self, savepoint: SavepointId) -> Result<(), TxnError> {
        let place = self.place_of(savepoint)?;
        self.savepoints.truncate(place + 1);
        let mark = self.savepoints.last().map_or(0, |(_, mark)| *mark);
        for (key, former) in self.undo.drain(mark..).rev() {
            if let Some(row) = self.rows.remove(&key) {
                let size = key.len() + row.size_bytes();
                self.size_bytes = self.size_bytes.saturating_sub(size);
                if row.chunk.is_some() {
                    self.leaving_size_bytes = self.leaving_size_bytes.saturating_sub(size);
                }
            }
            if let Some(mut row) = former {
                // It may have left meanwhile with the chunk; then it is told once more.
                row.staged_before |= row.chunk.take().is_some();
                self.size_bytes += key.len() + row.size_bytes();
                self.rows.insert(key, row);
            }
        }
        Ok(())
    }

    pub(super) fn release(&mut self, savepoint: SavepointId) -> Result<(), TxnError> {
        let place = self.place_of(savepoint)?;
        self.savepoints.truncate(place);
        if self.savepoints.is_empty() {
            self.undo.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(own: &mut OwnWrites, key: &'static str, value: &'static str, command: u32) {
        let write = OwnWrite { base: Base::NONE, value: Some(value.into()), staged_before: false };
        own.write(key.into(), write, command);
    }

    #[test]
    fn a_command_does_not_read_its_own_writes() {
        let mut own = OwnWrites::default();
        put(&mut own, "k", "one", 1);
        assert_eq!(own.get(b"k", 1), None);
        assert_eq!(own.get(b"k", 2), Some(Some("one".into())));
        put(&mut own, "k", "two", 2);
        put(&mut own, "k", "three", 2);
        assert_eq!(own.get(b"k", 2), Some(Some("one".into())));
        assert_eq!(own.latest(b"k"), Some(Some("three".into())));
        put(&mut own, "k", "four", 3);
        assert_eq!(own.get(b"k", 3), Some(Some("three".into())));
    }

    #[test]
    fn going_back_restores_what_was_there_and_keeps_the_savepoint() {
        let mut own = OwnWrites::default();
        put(&mut own, "a", "one", 1);
        let size = own.size_bytes();
        let outer = own.savepoint();
        put(&mut own, "a", "two", 2);
        let inner = own.savepoint();
        put(&mut own, "b", "three", 3);
        own.rollback_to(outer).unwrap();
        assert_eq!(own.latest(b"a"), Some(Some("one".into())));
        assert_eq!(own.latest(b"b"), None);
        assert_eq!(own.size_bytes(), size);
        assert!(own.rollback_to(inner).is_err());
        put(&mut own, "c", "four", 4);
        own.rollback_to(outer).unwrap();
        assert_eq!(own.latest(b"c"), None);
        own.release(outer).unwrap();
        assert!(own.release(outer).is_err());
        assert!(own.undo.is_empty());
    }

    #[test]
    fn a_row_that_came_and_went_is_not_committed() {
        let mut own = OwnWrites::default();
        put(&mut own, "k", "one", 1);
        let delete = |base| OwnWrite { base, value: None, staged_before: false };
        own.write("k".into(), delete(Base::NONE), 2);
        own.write("l".into(), delete(Base::of(b"l", Version::new(3), b"old")), 2);
        let keys: Vec<Bytes> = own.prepared().map(|write| write.key).collect();
        assert_eq!(keys, vec![Bytes::from("l")]);
    }
}
