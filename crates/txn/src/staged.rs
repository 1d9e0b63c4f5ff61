//! Staged transactions: those too large for one entry.
//!
//! Chunks of provisional rows come first, each an entry of its own; the entry that commits them is small, and
//! says at which version all of them count. The number of a staged transaction is the sequence of its first chunk.
//! Its share of the state hash is summed up as its rows come, so that the commit costs no pass over them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use rustydb_types::ids::{Term, Version};

use crate::entry::Reader;

/// What is known of a staged transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StagedTxn {
    /// The leadership under which it was opened; a later leader aborts it.
    pub(crate) term: Term,
    /// Provisional rows so far, deletes included.
    pub(crate) rows: u64,
    /// The sum of the contents of its rows, as in the state hash.
    pub(crate) content: u128,
    /// The sum of their places.
    pub(crate) place: u128,
    /// The sum of the shares of the rows that it replaces.
    pub(crate) replaced: u128,
    /// The version at which it was committed.
    pub(crate) committed: Option<Version>,
}

impl StagedTxn {
    pub(crate) const fn new(term: Term) -> StagedTxn {
        StagedTxn { term, rows: 0, content: 0, place: 0, replaced: 0, committed: None }
    }

    /// What its rows add to the state hash once they count at `version`, the replaced rows taken off.
    pub(crate) fn hash_at(&self, version: Version) -> u128 {
        let places = self.place.wrapping_mul(u128::from(version.get()));
        self.content.wrapping_add(places).wrapping_sub(self.replaced)
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(72);
        bytes.put_u64_le(self.term.get());
        bytes.put_u64_le(self.rows);
        bytes.put_u128_le(self.content);
        bytes.put_u128_le(self.place);
        bytes.put_u128_le(self.replaced);
        bytes.put_u64_le(self.committed.unwrap_or(Version::ZERO).get());
        bytes.freeze()
    }

    pub(crate) fn decode(bytes: &Bytes) -> Option<StagedTxn> {
        let mut reader = Reader::new(bytes);
        let (term, rows) = (Term::new(reader.u64()?), reader.u64()?);
        let mut sum = || reader.array().map(u128::from_le_bytes);
        let (content, place, replaced) = (sum()?, sum()?, sum()?);
        let committed = Some(Version::new(reader.u64()?)).filter(|version| *version > Version::ZERO);
        reader.is_at_end().then_some(StagedTxn { term, rows, content, place, replaced, committed })
    }
}

/// All staged transactions whose rows are still provisional somewhere.
#[derive(Debug, Default)]
pub(crate) struct StagedTable {
    /// Open ones, and committed ones whose rows are still to be moved.
    pub(crate) rows: BTreeMap<Version, StagedTxn>,
    /// Dropped ones whose rows are still to be removed from the engine.
    pub(crate) garbage: BTreeSet<Version>,
}

impl StagedTable {
    /// Those that are neither committed nor dropped.
    pub(crate) fn open(&self) -> impl Iterator<Item = (Version, &StagedTxn)> {
        self.rows.iter().filter(|(_, txn)| txn.committed.is_none()).map(|(id, txn)| (*id, txn))
    }

    /// The committed ones, with their versions.
    pub(crate) fn resolved(&self) -> BTreeMap<Version, Version> {
        self.rows.iter().filter_map(|(id, txn)| Some((*id, txn.committed?))).collect()
    }

    /// The open ones' share of the state hash.
    pub(crate) fn hash(&self) -> u128 {
        self.open().fold(0, |sum, (id, txn)| {
            let places = txn.place.wrapping_mul(u128::from(id.get()).wrapping_mul(3));
            sum.wrapping_add(txn.content.wrapping_mul(5)).wrapping_add(places)
        })
    }
}

/// What the engine still has of an ended staged transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// Rows of one that was dropped, to be removed.
    Dropped(Version),
    /// Rows of one that was committed at `version`, to be moved to their place.
    Committed {
        /// The version at which they count.
        version: Version,
        /// Its number.
        id: Version,
    },
}

/// What the last flush found ended: only that may be cleared up, since the engine's own record of it must be as
/// durable as the change.
#[derive(Debug, Default)]
pub(crate) struct Leavings {
    dropped: BTreeSet<Version>,
    /// By version of commit, which is the order in which rows of one key must be moved.
    committed: BTreeMap<Version, Version>,
}

impl Leavings {
    pub(crate) fn of(rows: &BTreeMap<Version, StagedTxn>, garbage: &BTreeSet<Version>) -> Leavings {
        let committed = rows.iter().filter_map(|(id, txn)| Some((txn.committed?, *id))).collect();
        Leavings { dropped: garbage.clone(), committed }
    }

    pub(crate) fn first(&self) -> Option<Leaving> {
        match self.dropped.first() {
            Some(id) => Some(Leaving::Dropped(*id)),
            None => self
                .committed
                .first_key_value()
                .map(|(version, id)| Leaving::Committed { version: *version, id: *id }),
        }
    }

    pub(crate) fn cleared(&mut self, leaving: Leaving) {
        match leaving {
            Leaving::Dropped(id) => drop(self.dropped.remove(&id)),
            Leaving::Committed { version, .. } => drop(self.committed.remove(&version)),
        }
    }
}

/// The table, shared by apply and the flush.
#[derive(Debug, Default)]
pub(crate) struct StagedIndex {
    pub(crate) table: RwLock<StagedTable>,
    pub(crate) leavings: Mutex<Leavings>,
}

impl StagedIndex {
    /// The index of what an engine holds.
    pub(crate) fn new(table: StagedTable) -> StagedIndex {
        let leavings = Mutex::new(Leavings::of(&table.rows, &table.garbage));
        StagedIndex { table: RwLock::new(table), leavings }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_staged_transaction_survives_the_round_trip() {
        let mut txn = StagedTxn::new(Term::new(3));
        txn.content = 1 << 100;
        txn.replaced = 7;
        assert_eq!(StagedTxn::decode(&txn.encode()), Some(txn.clone()));
        txn.committed = Some(Version::new(9));
        assert_eq!(StagedTxn::decode(&txn.encode()), Some(txn));
    }
}
