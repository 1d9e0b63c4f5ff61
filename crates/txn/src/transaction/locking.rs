//! Locks of a transaction.

use bytes::Bytes;
use rustydb_types::ids::Version;

use super::{Isolation, LockedRow, Transaction};
use crate::error::TxnError;
use crate::locks::{Acquired, LockTarget, LockWait, LockWaiter, Mode, RowLock, TableLockId, TableLockMode};

/// What became of a row lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowLockOutcome {
    /// It is held, and the row is as the snapshot has it.
    Unchanged,
    /// It is held, and the row was changed or deleted after the snapshot (READ COMMITTED only): read it again with
    /// [`get_latest`](Transaction::get_latest) and decide anew.
    Changed,
    /// It was not free and was not to be waited for ([`LockWait::SkipLocked`]).
    Skipped,
}

impl Transaction {
    /// Locks a row, whether it exists or not. A lock that is free is granted without suspension.
    ///
    /// # Errors
    /// [`TxnError::ReadOnly`], [`TxnError::Deadlock`], [`TxnError::LockTimeout`], [`TxnError::LockNotAvailable`];
    /// [`TxnError::Serialization`] when the row is newer than the snapshot (REPEATABLE READ and above), or the
    /// leader changed meanwhile.
    ///
    /// # Cancellation
    /// Safe: the place in the queue is given up.
    pub async fn lock_row(
        &mut self,
        key: &[u8],
        lock: RowLock,
        wait: LockWait,
    ) -> Result<RowLockOutcome, TxnError> {
        if !self.can_write() {
            return Err(TxnError::ReadOnly);
        }
        self.shared.check()?;
        let key = Bytes::copy_from_slice(key);
        let target = LockTarget::Row(key.clone());
        match self.acquire(&target, Mode::row(lock), wait).await {
            Err(TxnError::LockNotAvailable) if wait == LockWait::SkipLocked => {
                return Ok(RowLockOutcome::Skipped);
            }
            result => result?,
        }
        self.shared.check()?;
        let (base, changed) = self.base_of(&key)?;
        if self.own.latest(&key).is_some() {
            // The row was written here before; whatever the snapshot has, the own write counts.
            return Ok(RowLockOutcome::Unchanged);
        }
        if changed && self.options.isolation != Isolation::ReadCommitted {
            return Err(TxnError::Serialization { reason: "a concurrent update" });
        }
        self.locked.insert(key, LockedRow { base });
        Ok(if changed { RowLockOutcome::Changed } else { RowLockOutcome::Unchanged })
    }

    /// Locks a table.
    ///
    /// # Errors
    /// As [`lock_row`](Transaction::lock_row), without the comparison of versions.
    ///
    /// # Cancellation
    /// Safe: the place in the queue is given up.
    pub async fn lock_table(
        &mut self,
        table: TableLockId,
        mode: TableLockMode,
        wait: LockWait,
    ) -> Result<(), TxnError> {
        if !self.can_write() {
            // A snapshot at a replica needs no lock: it does not see what comes after it.
            return if mode == TableLockMode::AccessShare { Ok(()) } else { Err(TxnError::ReadOnly) };
        }
        self.shared.check()?;
        self.acquire(&LockTarget::Table(table), Mode::table(mode), wait).await?;
        self.shared.check()
    }

    async fn acquire(&mut self, target: &LockTarget, mode: Mode, wait: LockWait) -> Result<(), TxnError> {
        let may_wait = matches!(wait, LockWait::Forever | LockWait::For(_));
        match self.core.locks.acquire(self.shared.id, target, mode, may_wait)? {
            Acquired::Held => Ok(()),
            Acquired::Granted => {
                self.held.push(target.clone());
                Ok(())
            }
            Acquired::Wait(waiter) => {
                self.wait_for(waiter, wait).await?;
                self.held.push(target.clone());
                Ok(())
            }
        }
    }

    async fn wait_for(&mut self, mut waiter: LockWaiter, wait: LockWait) -> Result<(), TxnError> {
        match wait {
            LockWait::For(duration) => match self.core.env.timeout(duration, waiter.wait()).await {
                Ok(result) => result,
                Err(_) => Err(TxnError::LockTimeout),
            },
            _ => waiter.wait().await,
        }
    }

    /// The newest live version of a row whose lock is held, and whether it differs from what the snapshot sees.
    pub(super) fn base_of(&self, key: &[u8]) -> Result<(Version, bool), TxnError> {
        let at = self.pin.version();
        let newest = self.core.newest(key, &self.shared.read_through)?;
        let changed = match &newest {
            Some(found) if found.version > at => found.value.is_some() || self.get_snapshot(key)?.is_some(),
            Some(_) => false,
            // Nothing is left of the row, not even its deletion: the snapshot may be older than the flush.
            None if self.core.layers.flushes() == self.flushes => false,
            None => self.get_snapshot(key)?.is_some(),
        };
        Ok((newest.map_or(Version::ZERO, |found| found.live_version()), changed))
    }
}
