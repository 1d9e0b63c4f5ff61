//! Temporary objects: what ends with the session that made it.
//!
//! A session's temporary tables, sequences and views are rows of the store like those of others, replicated and part of
//! transactions, so they outlive a change of leaders as the session does. Only their descriptors are kept apart, by
//! session, with a version of their own:
//!
//! - nobody else reads them, so making one is no change of the catalog that others have to read anew, and waits for no
//!   change that somebody else has under way;
//! - the name of the schema, `pg_temp_N`, need not be told from those of other sessions;
//! - when the session is over they go together; if its node dies with it, the leader of the database finds them by the
//!   life of the node that the session belonged to.
//!
//! Their numbers are taken from a range of their own, by a sequence that no catalog knows, beside all transactions.

use bytes::Bytes;
use rustydb_txn::{Direction, LockWait, RowLock, ScanRequest, Transaction};
use rustydb_types::ids::{Incarnation, SessionId};

use super::descriptor::{self, TableDescriptor};
use super::keys::{self, Kind};
use super::sequence::SequenceDescriptor;
use crate::error::SqlError;

/// Gives numbers to temporary objects and their storages, from [`FIRST_TEMPORARY`](rustydb_types::ids::Oid::FIRST_TEMPORARY) on.
pub trait Numbers: Sync {
    /// A number that no other object has. `random` is new each time.
    ///
    /// # Errors
    /// Storage errors.
    fn next_number(&self, txn: &Transaction, random: u64) -> Result<u32, SqlError>;
}

/// The session that a transaction is of.
pub(super) fn owner(txn: &Transaction) -> Owner {
    let request = txn.options().request;
    (request.incarnation, request.session)
}

/// The key of the version of what the transaction's session has of temporary objects.
pub(super) fn version_key(txn: &Transaction) -> Vec<u8> {
    keys::temporary(owner(txn), &keys::VERSION)
}

/// That version as the transaction's snapshot has it; nothing when there are no temporary objects.
pub(super) fn version(txn: &Transaction) -> Result<Option<Bytes>, SqlError> {
    if txn.is_marked() { Ok(txn.get(&version_key(txn))?) } else { Ok(None) }
}

/// That version as it is now.
pub(super) fn latest_version(txn: &Transaction) -> Result<Option<Bytes>, SqlError> {
    if txn.is_marked() { Ok(txn.get_latest(&version_key(txn))?) } else { Ok(None) }
}

/// Reads what the transaction's session has of temporary objects, under the keys that such objects have in the catalog.
pub(super) fn each(
    txn: &Transaction,
    mut take: impl FnMut(&[u8], &[u8]) -> Result<(), SqlError>,
) -> Result<(), SqlError> {
    let prefix = keys::temporary_prefix(owner(txn));
    scan(txn, &prefix, |key, value| match keys::of_temporary(key) {
        Some((_, key)) => take(&key, value),
        None => Ok(()),
    })
}

fn scan(
    txn: &Transaction,
    prefix: &[u8],
    mut take: impl FnMut(&[u8], &[u8]) -> Result<(), SqlError>,
) -> Result<(), SqlError> {
    let (mut start, mut end) = (Bytes::copy_from_slice(prefix), Bytes::from(keys::after_prefix(prefix)));
    loop {
        let request =
            ScanRequest { start, end, direction: Direction::Forward, max_bytes: 64 << 10, max_rows: 1024 };
        let chunk = txn.scan(request)?;
        for (key, value) in chunk.iter() {
            take(key, value)?;
        }
        match chunk.rest() {
            Some(rest) => (start, end) = rest,
            None => return Ok(()),
        }
    }
}

/// A session, by the life of the node that its client is connected to.
pub type Owner = (Incarnation, SessionId);

/// The first session at or behind one that has temporary objects.
///
/// # Errors
/// Storage errors.
pub fn next_owner(txn: &Transaction, from: Owner) -> Result<Option<Owner>, SqlError> {
    let start = Bytes::copy_from_slice(&keys::temporary_prefix(from));
    let (end, direction) = (keys::temporary_range().1.into(), Direction::Forward);
    let found = txn.scan(ScanRequest { start, end, direction, max_bytes: 1, max_rows: 1 })?;
    Ok(found.iter().next().and_then(|(key, _)| keys::of_temporary(key)).map(|(owner, _)| owner))
}

/// Whether a temporary table of another session has a column of one of these types.
///
/// # Errors
/// Storage errors; XX001 when a descriptor cannot be read.
pub fn others_use_type(txn: &Transaction, types: &[u32]) -> Result<bool, SqlError> {
    let (own, mut found) = (owner(txn), false);
    scan(txn, &keys::temporary_range().0, |key, value| {
        let Some((owner, key)) = keys::of_temporary(key) else { return Ok(()) };
        if owner != own && key.get(1) == Some(&(Kind::Table as u8)) {
            let table = descriptor::decode::<TableDescriptor>(value)?;
            found |= table.columns.iter().any(|column| types.contains(&column.data_type.oid));
        }
        Ok(())
    })?;
    Ok(found)
}

/// Removes all that a session has of temporary objects. Their rows are left to be swept.
///
/// # Errors
/// Storage errors; XX001 when a descriptor cannot be read.
pub async fn forget(txn: &mut Transaction, owner: Owner, wait: LockWait) -> Result<(), SqlError> {
    let (mut doomed, mut storages) = (Vec::new(), Vec::new());
    scan(txn, &keys::temporary_prefix(owner), |key, value| {
        doomed.push(Bytes::copy_from_slice(key));
        let kind = keys::of_temporary(key).and_then(|(_, key)| key.get(1).copied());
        if kind == Some(Kind::Table as u8) {
            let table = descriptor::decode::<TableDescriptor>(value)?;
            storages.push(table.storage);
            let others = table.indexes.iter().map(|index| index.storage);
            storages.extend(others.filter(|storage| *storage != table.storage));
        } else if kind == Some(Kind::Sequence as u8) {
            let sequence = descriptor::decode::<SequenceDescriptor>(value)?;
            doomed.push(Bytes::copy_from_slice(&keys::sequence(sequence.mark)));
        }
        Ok(())
    })?;
    for key in doomed {
        txn.lock_row(&key, RowLock::ForUpdate, wait).await?;
        txn.delete(key)?;
    }
    for storage in storages {
        let key = keys::object(Kind::Sweep, storage.get());
        txn.lock_row(&key, RowLock::ForUpdate, wait).await?;
        txn.put(key.into(), Bytes::new())?;
    }
    Ok(())
}
