//! Rows beside the transaction: written at once, whatever becomes of it. Sequences rest on them.
//!
//! ```text
//!   get_aside: the newest numbered value, whatever the snapshot
//!   put_aside: a commit of its own, numbered before this returns and before anything that the transaction does later
//! ```
//!
//! Such a write is not taken back by a rollback, and no lock is held for it. Who has seen one falls with it if it is
//! refused, as with any commit that was read in flight: nothing that was computed from it is shown or committed before
//! it is on a majority. Under a prefix that is private to the transaction there is nobody to share it with; there the
//! rows are kept in memory and are committed with the transaction, though a savepoint does not take them back.
//!
//! Bounds: what is in flight; there is no waiting here, so a little more may be in flight than for commits.

use std::sync::Arc;

use bytes::Bytes;
use rustydb_types::ids::Version;

use super::own::OwnWrite;
use super::{Access, Transaction};
use crate::entry::{Base, EntryBuilder, EntryKind, KEY_SIZE_MAX, NOBODY};
use crate::error::TxnError;
use crate::sequencer::{PreparedWrite, Submission, Submitted};

impl Transaction {
    /// The newest numbered value at `key`, whatever the snapshot, written beside any transaction or within one.
    ///
    /// # Errors
    /// [`TxnError::SnapshotTooOld`], [`TxnError::Storage`]; [`TxnError::Fallen`] when what was read before was refused.
    pub fn get_aside(&self, key: &[u8]) -> Result<Option<Bytes>, TxnError> {
        if self.is_private(key) {
            return Ok(self.asides.lock().get(key).cloned());
        }
        if !self.can_write() {
            return self.get_snapshot(key);
        }
        self.shared.check()?;
        Ok(self.core.newest(key, &self.shared.read_through)?.and_then(|found| found.value))
    }

    /// Writes a row beside the transaction. Writers of one key must be kept apart by the caller.
    ///
    /// # Errors
    /// [`TxnError::ReadOnly`]; [`TxnError::Serialization`] when another wrote the row meanwhile, when commits are being
    /// refused, or when too much is in flight; [`TxnError::TooLarge`] for a key; else those of a commit.
    pub fn put_aside(&self, key: Bytes, value: Bytes) -> Result<(), TxnError> {
        if self.options.access != Access::ReadWrite {
            return Err(TxnError::ReadOnly);
        }
        if key.len() > KEY_SIZE_MAX {
            return Err(TxnError::TooLarge { size_bytes: key.len(), bound_bytes: KEY_SIZE_MAX });
        }
        self.shared.check()?;
        if self.is_private(&key) {
            self.asides.lock().insert(key, value);
            return Ok(());
        }
        let flushes = self.core.layers.flushes();
        let base = match self.core.newest(&key, &self.shared.read_through)? {
            Some(found) => match &found.value {
                Some(old) => Base::of(&key, found.version, old),
                None => Base::NONE,
            },
            None => Base::NONE,
        };
        let mut entry = EntryBuilder::new(EntryKind::Commit, NOBODY, Version::ZERO, &[]);
        entry.write(&key, base, Some(&value));
        let mut submission = Submission {
            writes: vec![PreparedWrite { key, base, value: Some(value) }],
            shared: Some(Arc::clone(&self.shared)),
            flushes,
            is_aside: true,
            ..Submission::bare(EntryKind::Commit, NOBODY, entry)
        };
        match self.core.submit(&mut submission)? {
            // The answer is nobody's: whoever needs it waits for all that was read.
            Submitted::Numbered(_) => Ok(()),
            // Commits are being refused, or too many are in flight: the whole transaction may be tried again.
            Submitted::Wait(_) => Err(TxnError::Serialization {
                reason: "there was no room for a write beside the transaction",
            }),
        }
    }

    /// Before the commit: what was written beside it under prefixes of its own is written with it.
    pub(super) fn adopt_asides(&mut self) {
        for (key, value) in std::mem::take(&mut *self.asides.lock()) {
            // What was deleted in the transaction itself stays so.
            if self.own.latest(&key).is_some() {
                continue;
            }
            let write = OwnWrite { base: Base::NONE, value: Some(value), staged_before: false };
            self.own.write(key, write, self.command);
        }
    }
}
