//! Advisory locks of a session, as `pg_advisory_lock()` and its kin ask for them.
//!
//! Expressions are computed without waiting, so a lock that is not free is asked for when the batch of rows in which
//! the function stands has been computed.

use rustydb_txn::{AdvisoryId, KvStore, LockWait, SessionLocks, TxnError};

use super::failure::store_error;
use crate::error::{Severity, SqlError, SqlState};

/// A lock that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdvisoryLock {
    /// What is locked.
    pub on: AdvisoryId,
    /// Whether others may share it.
    pub is_shared: bool,
    /// Whether it ends with the transaction.
    pub for_transaction: bool,
}

/// The advisory locks that a session holds and waits for.
#[derive(Debug, Default)]
pub struct Advisory {
    locks: Option<SessionLocks>,
    wanted: Vec<AdvisoryLock>,
    /// Whether the gateway knows that some outlive transactions.
    is_told: bool,
}

/// Most locks that one batch of rows may wait for.
const WANTED_MAX: usize = 100_000;

fn error_of(error: TxnError) -> SqlError {
    match error {
        TxnError::Overloaded { .. } => {
            SqlError::new(SqlState::OUT_OF_MEMORY, "out of shared memory").with_hint("Release some locks.")
        }
        other => store_error(other),
    }
}

impl Advisory {
    /// Takes a lock if it is free; whether it is held now.
    ///
    /// # Errors
    /// 53200 at the bound of locks.
    pub fn try_take(
        &mut self,
        lock: AdvisoryLock,
        store: &KvStore,
        transaction: Option<u64>,
    ) -> Result<bool, SqlError> {
        let locks = self.locks.get_or_insert_with(|| {
            let locks = store.session_locks();
            locks.within(transaction);
            locks
        });
        locks.try_take(lock.on, lock.is_shared, lock.for_transaction).map_err(error_of)
    }

    /// Takes a lock now if it is free, or else when the rows have been computed.
    ///
    /// # Errors
    /// 53200 at the bound of locks.
    pub fn take(
        &mut self,
        lock: AdvisoryLock,
        store: &KvStore,
        transaction: Option<u64>,
    ) -> Result<(), SqlError> {
        // The order in which they are asked for is the order in which they are taken.
        if !self.wanted.is_empty() || !self.try_take(lock, store, transaction)? {
            if self.wanted.len() >= WANTED_MAX {
                let message = "too many advisory locks are waited for at once";
                return Err(SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message));
            }
            self.wanted.push(lock);
        }
        Ok(())
    }

    /// Releases a lock that outlives transactions; false when it is not held so.
    pub fn release(&mut self, on: AdvisoryId, is_shared: bool) -> bool {
        self.locks.as_mut().is_some_and(|locks| locks.release(on, is_shared))
    }

    /// Releases all locks that outlive transactions.
    pub fn release_all(&mut self) {
        if let Some(locks) = &mut self.locks {
            locks.release_all();
        }
    }

    /// A transaction is open, as its store names it.
    ///
    /// # Errors
    /// 57P01, which ends the session, when a change of leadership has ended locks that outlive transactions.
    pub fn begin_transaction(&mut self, transaction: u64) -> Result<(), SqlError> {
        self.wanted.clear();
        let Some(locks) = &self.locks else { return Ok(()) };
        if locks.is_lost() {
            let outlived = locks.outlive();
            self.locks = None;
            return if outlived { Err(lost()) } else { Ok(()) };
        }
        locks.within(Some(transaction));
        Ok(())
    }

    /// The transaction is over.
    pub fn end_transaction(&mut self) {
        self.wanted.clear();
        if let Some(locks) = &mut self.locks {
            locks.end_transaction();
        }
    }

    /// Whether locks that outlive transactions are held, if the gateway has not been told.
    pub fn news(&self) -> Option<bool> {
        let outlive = self.locks.as_ref().is_some_and(SessionLocks::outlive);
        (outlive != self.is_told).then_some(outlive)
    }

    /// The same, told now.
    pub fn take_news(&mut self) -> Option<bool> {
        let news = self.news();
        self.is_told = news.unwrap_or(self.is_told);
        news
    }

    /// The number under which the session's locks are listed.
    #[must_use]
    pub fn id(&self) -> Option<u64> {
        self.locks.as_ref().map(SessionLocks::id)
    }
}

/// Why a session ends whose locks are gone.
#[must_use]
pub fn lost() -> SqlError {
    let message =
        "terminating connection because its advisory locks ended when the leader of the database changed";
    SqlError::new(SqlState::ADMIN_SHUTDOWN, message)
        .with_hint("Connect again, take the locks again, and look what others did meanwhile.")
        .with_severity(Severity::Fatal)
}

/// Takes what [`Advisory::take`] could not take at once, one after the other; whether something was waited for.
///
/// # Errors
/// 40P01, 55P03; 40001 when a change of leadership ended all locks.
///
/// # Cancellation
/// Safe: what is not granted yet is given up.
pub async fn take_wanted(advisory: &parking_lot::Mutex<Advisory>, wait: LockWait) -> Result<bool, SqlError> {
    let wanted = std::mem::take(&mut advisory.lock().wanted);
    let has_waited = !wanted.is_empty();
    for lock in wanted {
        let begun = match &mut advisory.lock().locks {
            Some(locks) => locks.begin_wait(lock.on, lock.is_shared).map_err(error_of)?,
            None => continue,
        };
        if let Some(waiting) = begun {
            waiting.granted(wait).await.map_err(error_of)?;
        }
        if let Some(locks) = &mut advisory.lock().locks {
            locks.note(lock.on, lock.is_shared, lock.for_transaction);
        }
    }
    Ok(has_waited)
}
