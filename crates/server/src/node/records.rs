//! Reading and changing the system group's rows.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustydb_env::sync::watch;
use rustydb_sql::system::{SystemCommand, SystemSnapshot};
use rustydb_txn::{
    Access, Direction, Isolation, KvStore, LockWait, RowLock, ScanRequest, Transaction, TxnError,
    TxnErrorKind, TxnOptions,
};
use rustydb_types::ids::{GroupId, Incarnation, RequestId, SessionId, Version};

use super::system::SystemRefusal;
use super::{Inner, NodeError};

/// The rows are few and small; more than this at once means that something else wrote here.
const ROWS_PER_CHUNK: usize = 1_000;
/// Tries of one command against concurrent ones before the caller is told.
const TRIES: usize = 20;

fn read(transaction: &Transaction) -> Result<SystemSnapshot, TxnError> {
    let mut snapshot = SystemSnapshot::default();
    let (mut start, mut end) = (Bytes::from_static(&[0]), Bytes::new());
    loop {
        let chunk = transaction.scan(ScanRequest {
            start,
            end,
            direction: Direction::Forward,
            max_bytes: 64 << 10,
            max_rows: ROWS_PER_CHUNK,
        })?;
        for (key, value) in chunk.iter() {
            if let Err(error) = snapshot.absorb(key, value) {
                // One record of a later release must not hide the others.
                tracing::error!(%error, "a record of the cluster cannot be read");
            }
        }
        match chunk.rest() {
            Some(rest) => (start, end) = rest,
            None => return Ok(snapshot),
        }
    }
}

fn options(access: Access) -> TxnOptions {
    // Outcomes of these commits are not asked for by id: a command may be repeated.
    let request = RequestId { incarnation: Incarnation::new(0), session: SessionId::new(0), counter: 0 };
    TxnOptions { isolation: Isolation::Serializable, access, request }
}

async fn execute(store: &KvStore, command: &SystemCommand) -> Result<(), ExecuteError> {
    let mut transaction = store.begin(options(Access::ReadWrite)).await?;
    transaction.begin_statement();
    let recorded = read(&transaction)?;
    let changes = command.decide(&recorded).map_err(|error| ExecuteError::Refused {
        sqlstate: error.sqlstate().to_owned(),
        message: error.to_string(),
    })?;
    if changes.is_empty() {
        return Ok(());
    }
    for (key, value) in changes {
        transaction.lock_row(&key, RowLock::ForUpdate, LockWait::NoWait).await?;
        match value {
            Some(value) => transaction.put(key, value)?,
            None => transaction.delete(key)?,
        }
    }
    transaction.commit().await?;
    Ok(())
}

/// Ends at the next change, or never when there is nothing to watch.
async fn next(applied: Option<watch::Receiver<Version>>) {
    if let Some(mut applied) = applied
        && applied.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

enum ExecuteError {
    Refused { sqlstate: String, message: String },
    Txn(TxnError),
}

impl From<TxnError> for ExecuteError {
    fn from(error: TxnError) -> ExecuteError {
        ExecuteError::Txn(error)
    }
}

impl Inner {
    /// Reads this node's replica of the system group again.
    pub(crate) async fn refresh_system(&self) -> Result<(), NodeError> {
        let Some(store) = self.databases.store(GroupId::SYSTEM) else { return Ok(()) };
        let failed = |error: TxnError| NodeError::System { reason: error.to_string() };
        let mut transaction = store.begin(options(Access::ReadLocal)).await.map_err(failed)?;
        transaction.begin_statement();
        self.system.replace(read(&transaction).map_err(failed)?, transaction.snapshot());
        Ok(())
    }

    /// Keeps the view of the system group as new as this node's replica, until the node stops. It is apart from the
    /// reconcile loop, which may be busy with a group for seconds.
    pub(crate) async fn keep_system_view(self: Arc<Self>) {
        /// How often a replica is looked for that is not open yet.
        const MISSING: Duration = Duration::from_millis(100);
        /// How often it is read without a change, should a reading have failed.
        const PRESENT: Duration = Duration::from_secs(1);
        loop {
            let applied = self.databases.store(GroupId::SYSTEM).map(|store| store.applied_changes());
            let look_again = if applied.is_some() { PRESENT } else { MISSING };
            if let Err(error) = self.refresh_system().await {
                tracing::warn!(%error, "the records of the cluster cannot be read");
            }
            tokio::select! {
                biased;
                () = self.stopping.wait() => return,
                () = next(applied) => {}
                () = self.env.sleep(look_again) => {}
            }
        }
    }

    /// Carries out a command on the system group, which this node must lead.
    pub(crate) async fn execute_here(&self, command: &SystemCommand) -> Result<(), SystemRefusal> {
        let _one_at_a_time = self.executing.lock().await;
        let Some(store) = self.databases.store(GroupId::SYSTEM) else { return Err(SystemRefusal::NotLeader) };
        let mut last = String::new();
        for _ in 0..TRIES {
            match execute(&store, command).await {
                Ok(()) => {
                    self.reconcile_now();
                    return Ok(());
                }
                Err(ExecuteError::Refused { sqlstate, message }) => {
                    return Err(SystemRefusal::Refused { sqlstate, message });
                }
                Err(ExecuteError::Txn(error)) => match error.kind() {
                    TxnErrorKind::NotLeader => return Err(SystemRefusal::NotLeader),
                    // A command may be repeated, so what may have happened is simply tried again.
                    TxnErrorKind::Retry | TxnErrorKind::Unknown => last = error.to_string(),
                    _ => return Err(SystemRefusal::refused("58000", error.to_string())),
                },
            }
        }
        Err(SystemRefusal::refused("40001", last))
    }
}
