//! Locks of a transaction.

use bytes::Bytes;
use rustydb_env::Bug;
use rustydb_types::ids::Version;

use super::{Isolation, LockedRow, Transaction};
use crate::entry::Base;
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
        if self.is_private(key) {
            return Ok(RowLockOutcome::Unchanged);
        }
        let key = Bytes::copy_from_slice(key);
        let target = LockTarget::Row(key.clone());
        loop {
            let fresh = match self.acquire(&target, Mode::row(lock), wait).await {
                Err(TxnError::LockNotAvailable) if wait == LockWait::SkipLocked => {
                    return Ok(RowLockOutcome::Skipped);
                }
                result => result?,
            };
            self.shared.check()?;
            let Some(id) = self.core.staged_by_other(&key, self.shared.id)? else { break };
            // Another transaction has staged the row and holds all it staged by one lock. The row itself must stay
            // free for it meanwhile.
            if fresh {
                self.release_last(&target);
            }
            if !self.await_staged(id, wait).await? {
                return Ok(RowLockOutcome::Skipped);
            }
        }
        if self.own.latest(&key).is_some() {
            // The row was written here before; whatever the snapshot has, the own write counts.
            return Ok(RowLockOutcome::Unchanged);
        }
        self.remember(key)
    }

    /// Waits for the end of another's staged transaction; false if it is not to be waited for.
    async fn await_staged(&mut self, id: Version, wait: LockWait) -> Result<bool, TxnError> {
        let target = LockTarget::Staged(id);
        match self.acquire(&target, Mode::row(RowLock::ForKeyShare), wait).await {
            Ok(_) => self.release_last(&target),
            Err(TxnError::LockNotAvailable) if wait == LockWait::SkipLocked => return Ok(false),
            Err(error) => return Err(error),
        }
        self.shared.check()?;
        Ok(true)
    }

    /// Gives back a lock that was granted just now.
    fn release_last(&mut self, target: &LockTarget) {
        self.held.pop_if(|last| last == target);
        self.core.locks.release(self.shared.id, [target]);
    }

    /// Finds out what a locked row is based on.
    fn remember(&mut self, key: Bytes) -> Result<RowLockOutcome, TxnError> {
        let staged = self.has_staged(&key)?;
        let (base, changed) = self.base_of(&key)?;
        let changed = changed && !staged;
        let forbids = self.options.isolation != Isolation::ReadCommitted
            && !self.core.env.has_bug(Bug::ChangedRowWritten);
        if changed && forbids {
            return Err(TxnError::Serialization { reason: "a concurrent update" });
        }
        self.locked.insert(key, LockedRow { base, staged });
        Ok(if changed { RowLockOutcome::Changed } else { RowLockOutcome::Unchanged })
    }

    fn has_staged(&self, key: &[u8]) -> Result<bool, TxnError> {
        Ok(match self.staging.may_hold(key) {
            Some(id) => self.core.layers.current().get_staged(id, key)?.is_some(),
            None => false,
        })
    }

    /// Locks a row that is about to be written and was not locked before.
    pub(super) fn lock_for_write(&mut self, key: &Bytes) -> Result<LockedRow, TxnError> {
        if self.is_private(key) {
            return Ok(LockedRow { base: Base::NONE, staged: self.has_staged(key)? });
        }
        let target = LockTarget::Row(key.clone());
        let acquired =
            self.core.locks.acquire(self.shared.id, &target, Mode::row(RowLock::ForUpdate), false)?;
        let fresh = matches!(acquired, Acquired::Granted);
        if fresh {
            self.held.push(target.clone());
        }
        if self.core.staged_by_other(key, self.shared.id)?.is_some() {
            if fresh {
                self.release_last(&target);
            }
            return Err(TxnError::LockNotAvailable);
        }
        self.remember(key.clone())?;
        self.locked.get(key).copied().ok_or(TxnError::LockNotAvailable)
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
        let _fresh = self.acquire(&LockTarget::Table(table), Mode::table(mode), wait).await?;
        self.shared.check()
    }

    /// Takes a lock; true when it was not held before in any mode.
    async fn acquire(&mut self, target: &LockTarget, mode: Mode, wait: LockWait) -> Result<bool, TxnError> {
        let may_wait = matches!(wait, LockWait::Forever | LockWait::For(_));
        match self.core.locks.acquire(self.shared.id, target, mode, may_wait)? {
            Acquired::Held => Ok(false),
            Acquired::Granted => {
                self.held.push(target.clone());
                Ok(true)
            }
            Acquired::Wait(waiter) => {
                let fresh = !waiter.is_upgrade();
                self.wait_for(waiter, wait).await?;
                if fresh {
                    self.held.push(target.clone());
                }
                Ok(fresh)
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

    /// The newest live row whose lock is held, and whether it differs from what the snapshot sees.
    pub(super) fn base_of(&self, key: &[u8]) -> Result<(Base, bool), TxnError> {
        let at = self.pin.version();
        let newest = self.core.newest(key, &self.shared.read_through)?;
        let changed = match &newest {
            Some(found) if found.version > at => found.value.is_some() || self.get_snapshot(key)?.is_some(),
            Some(_) => false,
            // Nothing is left of the row, not even its deletion: the snapshot may be older than the flush.
            None if self.core.layers.flushes() == self.flushes => false,
            None => self.get_snapshot(key)?.is_some(),
        };
        let live = newest.and_then(|found| Some((found.version, found.value?)));
        Ok((live.map_or(Base::NONE, |(version, value)| Base::of(key, version, &value)), changed))
    }
}
