//! The writes of a transaction before its commit.
//!
//! Of each key two values at most are kept: the last of an earlier command, which the present command reads, and
//! the last of all, which is committed. An undo log exists while a savepoint is open.

use std::collections::BTreeMap;

use bytes::Bytes;
use rustydb_types::ids::Version;
use smallvec::SmallVec;

use crate::error::TxnError;
use crate::layer::{Item, ItemRun, Limits, ScanBounds};
use crate::sequencer::PreparedWrite;

/// A place in a transaction to go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SavepointId(u64);

/// Bytes that a written row costs beside key and value.
const OVERHEAD_BYTES: usize = 128;

#[derive(Clone, Debug)]
struct OwnRow {
    base: Version,
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
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct OwnWrites {
    rows: BTreeMap<Bytes, OwnRow>,
    size_bytes: usize,
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

    pub(super) fn write(&mut self, key: Bytes, base: Version, value: Option<Bytes>, command: u32) {
        if !self.savepoints.is_empty() {
            self.undo.push((key.clone(), self.rows.get(&key).cloned()));
        }
        let key_size = key.len();
        let row = self.rows.entry(key).or_insert_with(|| {
            self.size_bytes += key_size;
            OwnRow { base, values: SmallVec::new() }
        });
        self.size_bytes = self.size_bytes.saturating_sub(row.size_bytes());
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
        self.rows.iter().filter_map(|(key, row)| {
            let (_, value) = row.values.last()?;
            let nothing = value.is_none() && row.base == Version::ZERO;
            (!nothing).then(|| PreparedWrite { key: key.clone(), base: row.base, value: value.clone() })
        })
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
                self.size_bytes = self.size_bytes.saturating_sub(key.len() + row.size_bytes());
            }
            if let Some(row) = former {
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
        own.write(key.into(), Version::ZERO, Some(value.into()), command);
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
        own.write("k".into(), Version::ZERO, None, 2);
        own.write("l".into(), Version::new(3), None, 2);
        let keys: Vec<Bytes> = own.prepared().map(|write| write.key).collect();
        assert_eq!(keys, vec![Bytes::from("l")]);
    }
}
