//! Lock modes and what they exclude, as PostgreSQL's chapter 13.3 has them.

use std::time::Duration;

use bytes::Bytes;
use rustydb_types::ids::Version;

/// The strength of a row lock, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowLock {
    /// `FOR KEY SHARE`: the key of the row must stay.
    ForKeyShare,
    /// `FOR SHARE`: the row must stay as it is.
    ForShare,
    /// `FOR NO KEY UPDATE`: the row will change, but not its key.
    ForNoKeyUpdate,
    /// `FOR UPDATE`: the row will be deleted, or its key will change.
    ForUpdate,
}

/// PostgreSQL's eight table lock modes, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableLockMode {
    /// `SELECT`.
    AccessShare,
    /// `SELECT ... FOR UPDATE` and its like.
    RowShare,
    /// `INSERT`, `UPDATE`, `DELETE`, `COPY FROM`.
    RowExclusive,
    /// `VACUUM`, `ANALYZE`.
    ShareUpdateExclusive,
    /// `CREATE INDEX`.
    Share,
    /// `CREATE TRIGGER` and some forms of `ALTER TABLE`.
    ShareRowExclusive,
    /// Excludes all but plain reading.
    Exclusive,
    /// `DROP TABLE`, `TRUNCATE`, most forms of `ALTER TABLE`.
    AccessExclusive,
}

/// What is locked as a table: a number that the layer above gives a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableLockId(u32);

impl TableLockId {
    /// Names a number as the identity of a table lock.
    #[must_use]
    pub const fn new(raw: u32) -> TableLockId {
        TableLockId(raw)
    }

    /// The bare number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// What an advisory lock is on: numbers to which applications give a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdvisoryId {
    /// One number of 64 bits.
    One(i64),
    /// Two numbers of 32 bits, which are never the same as one of 64.
    Pair(i32, i32),
}

/// How long to wait for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockWait {
    /// Until it is granted, the transaction ends, or a deadlock shows.
    Forever,
    /// Not longer than this.
    For(Duration),
    /// Not at all: an error if it is not free.
    NoWait,
    /// Not at all: the row is passed over if it is not free. For rows only; else as `NoWait`.
    SkipLocked,
}

/// What can be locked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum LockTarget {
    Table(TableLockId),
    Row(Bytes),
    /// All rows that a transaction has staged, by its number: held by it until its end, and shared for a moment by
    /// whoever waits for that.
    Staged(Version),
    Advisory(AdvisoryId),
}

/// A mode of either kind, as a bit in a mask; the kind follows from the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode(u8);

/// For each table mode, the modes that it excludes, as bits in the order of [`TableLockMode`].
const TABLE_CONFLICTS: [u8; 8] = [
    0b1000_0000, // AccessShare
    0b1100_0000, // RowShare
    0b1111_0000, // RowExclusive
    0b1111_1000, // ShareUpdateExclusive
    0b1110_1100, // Share
    0b1111_1100, // ShareRowExclusive
    0b1111_1110, // Exclusive
    0b1111_1111, // AccessExclusive
];

/// For each row mode, the modes that it excludes, as bits in the order of [`RowLock`].
const ROW_CONFLICTS: [u8; 4] = [
    0b1000, // ForKeyShare
    0b1100, // ForShare
    0b1110, // ForNoKeyUpdate
    0b1111, // ForUpdate
];

impl Mode {
    pub(crate) const fn row(lock: RowLock) -> Mode {
        Mode(lock as u8)
    }

    pub(crate) const fn table(mode: TableLockMode) -> Mode {
        Mode(mode as u8)
    }

    /// Every mode that a mask may hold, weakest first.
    pub(crate) fn all() -> impl Iterator<Item = Mode> {
        (0..8).map(Mode)
    }

    /// The name that PostgreSQL's `pg_locks` gives the mode; those on rows are named as its locks on tuples.
    pub(crate) fn name(self, target: &LockTarget) -> &'static str {
        let names: &[&'static str] = match target {
            LockTarget::Table(_) => &[
                "AccessShareLock",
                "RowShareLock",
                "RowExclusiveLock",
                "ShareUpdateExclusiveLock",
                "ShareLock",
                "ShareRowExclusiveLock",
                "ExclusiveLock",
                "AccessExclusiveLock",
            ],
            LockTarget::Advisory(_) => &["", "ShareLock", "", "ExclusiveLock"],
            LockTarget::Row(_) | LockTarget::Staged(_) => {
                &["AccessShareLock", "RowShareLock", "ExclusiveLock", "AccessExclusiveLock"]
            }
        };
        names.get(usize::from(self.0)).copied().unwrap_or_default()
    }

    pub(crate) const fn bit(self) -> u8 {
        1 << self.0
    }

    /// The modes, as bits, that this one excludes on `target`.
    pub(crate) fn excludes(self, target: &LockTarget) -> u8 {
        let table: &[u8] = match target {
            LockTarget::Table(_) => &TABLE_CONFLICTS,
            LockTarget::Row(_) | LockTarget::Staged(_) | LockTarget::Advisory(_) => &ROW_CONFLICTS,
        };
        table.get(usize::from(self.0)).copied().unwrap_or(u8::MAX)
    }

    /// Whether holding the modes in `held` makes this one needless: some held mode excludes all that it excludes.
    pub(crate) fn is_covered_by(self, held: u8, target: &LockTarget) -> bool {
        let mine = self.excludes(target);
        (0..8).map(Mode).any(|mode| held & mode.bit() != 0 && mine & !mode.excludes(target) == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicts_are_symmetric() {
        for conflicts in [&TABLE_CONFLICTS[..], &ROW_CONFLICTS[..]] {
            for (left, mask) in conflicts.iter().enumerate() {
                for (right, mirrored) in conflicts.iter().enumerate() {
                    assert_eq!(mask & (1 << right) != 0, mirrored & (1 << left) != 0, "{left} {right}");
                }
            }
        }
    }

    #[test]
    fn two_writers_of_a_table_share_it_and_an_index_build_excludes_them() {
        let table = LockTarget::Table(TableLockId::new(1));
        let excludes = |left: TableLockMode, right: TableLockMode| {
            Mode::table(left).excludes(&table) & Mode::table(right).bit() != 0
        };
        assert!(!excludes(TableLockMode::RowExclusive, TableLockMode::RowExclusive));
        assert!(excludes(TableLockMode::Share, TableLockMode::RowExclusive));
        assert!(!excludes(TableLockMode::Share, TableLockMode::Share));
        assert!(excludes(TableLockMode::ShareUpdateExclusive, TableLockMode::ShareUpdateExclusive));
        assert!(!excludes(TableLockMode::AccessShare, TableLockMode::Exclusive));
        assert!(excludes(TableLockMode::AccessShare, TableLockMode::AccessExclusive));
    }

    #[test]
    fn a_key_share_goes_with_an_update_that_leaves_the_key() {
        let row = LockTarget::Row("r".into());
        let excludes =
            |left: RowLock, right: RowLock| Mode::row(left).excludes(&row) & Mode::row(right).bit() != 0;
        assert!(!excludes(RowLock::ForKeyShare, RowLock::ForNoKeyUpdate));
        assert!(excludes(RowLock::ForKeyShare, RowLock::ForUpdate));
        assert!(excludes(RowLock::ForShare, RowLock::ForNoKeyUpdate));
        assert!(!excludes(RowLock::ForShare, RowLock::ForShare));
        assert!(Mode::row(RowLock::ForShare).is_covered_by(Mode::row(RowLock::ForUpdate).bit(), &row));
        assert!(!Mode::row(RowLock::ForUpdate).is_covered_by(Mode::row(RowLock::ForShare).bit(), &row));
    }
}
