//! The sweep of storages that were dropped or truncated: in small transactions, at each database's leader.
//!
//! A dropped storage is recorded in the catalog until its last row is deleted, so that the sweep goes on after a
//! restart and at the next leader. Nobody reads those rows any more but by an older snapshot, which still finds them.
//! The sweep takes a bounded share of the time, whatever there is to sweep, and a small one while others commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustydb_env::Env;
use rustydb_env::sync::Signal;
use rustydb_txn::{
    Access, Direction, Isolation, KvStore, LockWait, RowLock, ScanRequest, Transaction, TxnError, TxnOptions,
};
use rustydb_types::ids::{DatabaseId, Incarnation, RequestId, SessionId};

use crate::catalog::descriptor::StorageId;
use crate::catalog::keys::{self, Kind};
use crate::catalog::temporary;
use crate::error::SqlError;
use crate::gateway::Lives;
use crate::gateway::cluster::ClusterPort;
use crate::system::SystemSnapshot;

/// How often to look for something to sweep.
const INTERVAL: Duration = Duration::from_secs(2);
/// Rows deleted by one transaction, and about how many bytes of them are read for it.
const STEP_ROWS: usize = 500;
const STEP_SIZE_BYTES: usize = 256 << 10;
/// After a step the sweep rests for this many times as long as the step took,
const REST_FACTOR: u32 = 4;
/// and for this many times as long while others commit: what it deletes is in nobody's way, and each row takes as much
/// of the log, of every replica and of the flush as a row of theirs.
const REST_FACTOR_BUSY: u32 = 24;
/// Others commit when this many transactions were applied during a rest; one may be the step itself.
const BUSY_COMMITS: u64 = 2;
/// Sessions with temporary objects that are looked at in a round.
const OWNERS_MAX: usize = 10_000;
const LOCK_WAIT: LockWait = LockWait::For(Duration::from_secs(1));

/// What one step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    /// Rows were deleted, or a storage was found empty and forgotten; there may be more.
    Something,
    /// There is no dropped storage.
    Nothing,
}

/// How far the sweep of a database has come: a storage, and the first key that is not known to be deleted. Spares a way
/// through what was deleted just now.
#[derive(Clone, Debug, Default)]
pub struct Place(Option<(StorageId, Bytes)>);

/// Sweeps the databases that this node leads until it is told to stop.
pub async fn run(env: Env, cluster: Arc<dyn ClusterPort>, lives: Arc<Lives>, stopping: Signal) {
    lives.note(cluster.incarnation());
    let mut places: BTreeMap<DatabaseId, Place> = BTreeMap::new();
    loop {
        if env.timeout(INTERVAL, stopping.wait()).await.is_ok() {
            return;
        }
        let databases: Vec<DatabaseId> = cluster.system().databases.keys().copied().collect();
        places.retain(|database, _| databases.contains(database));
        lives.retain(&cluster.system());
        let mut with_temporary = 0;
        for database in databases {
            let Some(store) = cluster.store(database) else { continue };
            if store.is_leader() {
                match forget_ended(&store, &lives, &cluster.system()).await {
                    Ok(left) => with_temporary += left,
                    Err(error) => {
                        tracing::debug!(%error, "what sessions of former lives left is still there")
                    }
                }
            }
            let place = places.entry(database).or_default();
            while store.is_leader() {
                let began = env.now();
                match step(&store, place).await {
                    Ok(Swept::Something) => {}
                    Ok(Swept::Nothing) => break,
                    // Refused, or met a lock of somebody's: another time, or at another leader.
                    Err(error) => {
                        tracing::debug!(%error, "a step of sweeping dropped storages failed");
                        break;
                    }
                }
                let (took, applied) = (env.now() - began, store.applied_changes());
                let before = *applied.borrow();
                if env.timeout(took * REST_FACTOR, stopping.wait()).await.is_ok() {
                    return;
                }
                let is_busy = applied.borrow().get().saturating_sub(before.get()) >= BUSY_COMMITS;
                let more = took * (REST_FACTOR_BUSY - REST_FACTOR);
                if is_busy && env.timeout(more, stopping.wait()).await.is_ok() {
                    return;
                }
            }
        }
        lives.note_with_temporary(with_temporary);
    }
}

/// Forgets the temporary objects of sessions that ended with the node of their clients. Gives how many other sessions
/// have some; no more than 10,000 are looked at.
///
/// # Errors
/// As a commit.
pub async fn forget_ended(
    store: &KvStore,
    lives: &Lives,
    system: &SystemSnapshot,
) -> Result<usize, SqlError> {
    let mut from = (Incarnation::new(0), SessionId::new(0));
    let mut left = 0;
    for _ in 0..OWNERS_MAX {
        let mut txn = begin(store).await?;
        let Some(owner) = temporary::next_owner(&txn, from)? else { break };
        if lives.is_over(owner.0, system) {
            temporary::forget(&mut txn, owner, LOCK_WAIT).await?;
            txn.commit().await?;
        } else {
            left += 1;
        }
        from = (owner.0, SessionId::new(owner.1.get().saturating_add(1)));
    }
    Ok(left)
}

async fn begin(store: &KvStore) -> Result<Transaction, TxnError> {
    let nobody = RequestId { incarnation: Incarnation::new(0), session: SessionId::new(0), counter: 0 };
    let options =
        TxnOptions { isolation: Isolation::ReadCommitted, access: Access::ReadWrite, request: nobody };
    let mut txn = store.begin(options).await?;
    txn.begin_statement();
    Ok(txn)
}

/// Deletes some rows of the first dropped storage, or forgets it where none is left.
///
/// # Errors
/// As a commit; nothing has changed then, or the step took effect.
pub async fn step(store: &KvStore, place: &mut Place) -> Result<Swept, TxnError> {
    let mut txn = begin(store).await?;
    let Some((record, storage)) = first(&txn)? else { return Ok(Swept::Nothing) };
    let (start, end) = keys::storage_range(storage);
    let from = place.0.take().filter(|(at, _)| *at == storage).map(|(_, key)| key);
    let from_the_start = from.is_none();
    let rows = page(&txn, from.unwrap_or_else(|| start.into()), end.into(), STEP_ROWS)?;
    let next = rows.last().cloned();
    let doomed = match (rows.is_empty(), from_the_start) {
        (false, _) => rows,
        (true, true) => vec![record],
        // Before the storage is forgotten it is looked through as a whole.
        (true, false) => return Ok(Swept::Something),
    };
    for key in doomed {
        txn.lock_row(&key, RowLock::ForUpdate, LOCK_WAIT).await?;
        txn.delete(key)?;
    }
    txn.commit().await?;
    place.0 = next.map(|key| (storage, key));
    Ok(Swept::Something)
}

/// The record of the first dropped storage.
fn first(txn: &Transaction) -> Result<Option<(Bytes, StorageId)>, TxnError> {
    let (start, end) = keys::kind_range(Kind::Sweep);
    let records = page(txn, start.into(), end.into(), 1)?;
    Ok(records.into_iter().next().and_then(|record| {
        let storage = keys::object_number(&record)?;
        Some((record, StorageId::new(storage)))
    }))
}

/// The first keys of a range.
fn page(txn: &Transaction, start: Bytes, end: Bytes, max_rows: usize) -> Result<Vec<Bytes>, TxnError> {
    let direction = Direction::Forward;
    let chunk = txn.scan(ScanRequest { start, end, direction, max_bytes: STEP_SIZE_BYTES, max_rows })?;
    Ok(chunk.iter().map(|(key, _)| Bytes::copy_from_slice(key)).collect())
}
