//! Advisory locks: on numbers instead of rows, held by a session, in or beyond its transactions.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustydb_env::Env;

use super::mode::{AdvisoryId, LockTarget, LockWait, Mode, RowLock};
use super::table::{Acquired, LockTable, LockWaiter, TxnId};
use crate::error::TxnError;

/// A lock that is waited for. Dropping it gives it up.
pub struct AdvisoryWait {
    waiter: LockWaiter,
    env: Env,
}

impl AdvisoryWait {
    /// Waits as long as `wait` says.
    ///
    /// # Errors
    /// [`TxnError::LockTimeout`], [`TxnError::LockNotAvailable`] when it is not to be waited for;
    /// [`TxnError::Fallen`] when a change of leadership ended all locks.
    ///
    /// # Cancellation
    /// Safe: the place in the queue is given up.
    pub async fn granted(mut self, wait: LockWait) -> Result<(), TxnError> {
        match wait {
            LockWait::For(duration) => match self.env.timeout(duration, self.waiter.wait()).await {
                Ok(result) => result,
                Err(_) => Err(TxnError::LockTimeout),
            },
            LockWait::Forever => self.waiter.wait().await,
            LockWait::NoWait | LockWait::SkipLocked => Err(TxnError::LockNotAvailable),
        }
    }
}

/// How often a lock is held.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Until it is released, or the session ends.
    session: u32,
    /// Until the transaction ends.
    transaction: u32,
}

/// The advisory locks of one session. Dropping them releases them.
///
/// They are as good as the leadership under which they were taken: a change of leadership forgets them, and
/// [`SessionLocks::is_lost`] tells.
pub struct SessionLocks {
    table: Arc<LockTable>,
    env: Env,
    id: TxnId,
    epoch: u64,
    held: BTreeMap<(AdvisoryId, bool), Count>,
}

const fn mode(is_shared: bool) -> Mode {
    Mode::row(if is_shared { RowLock::ForShare } else { RowLock::ForUpdate })
}

impl std::fmt::Debug for SessionLocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionLocks").field("id", &self.id).field("held", &self.held).finish_non_exhaustive()
    }
}

impl SessionLocks {
    pub(crate) fn new(table: &Arc<LockTable>, env: &Env) -> Self {
        let (id, epoch) = table.new_session();
        Self { table: Arc::clone(table), env: env.clone(), id, epoch, held: BTreeMap::new() }
    }

    /// The number under which locks are listed.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Whether locks that outlive transactions are held.
    #[must_use]
    pub fn outlive(&self) -> bool {
        self.held.values().any(|count| count.session > 0)
    }

    /// Whether a change of leadership has ended what was held.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.table.epoch() != self.epoch
    }

    /// The open transaction of the session, by its number: who waits for one of them waits for both.
    pub fn within(&self, transaction: Option<u64>) {
        self.table.join(self.id, transaction);
    }

    /// Takes a lock if it is free; whether it is held now.
    ///
    /// # Errors
    /// [`TxnError::Overloaded`] at the bound of locks.
    pub fn try_take(
        &mut self,
        lock: AdvisoryId,
        is_shared: bool,
        for_transaction: bool,
    ) -> Result<bool, TxnError> {
        match self.table.acquire(self.id, &LockTarget::Advisory(lock), mode(is_shared), false) {
            Ok(_) => {
                self.count(lock, is_shared, for_transaction);
                Ok(true)
            }
            Err(TxnError::LockNotAvailable) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn count(&mut self, lock: AdvisoryId, is_shared: bool, for_transaction: bool) {
        self.table.add_mode(self.id, &LockTarget::Advisory(lock), mode(is_shared));
        let count = self.held.entry((lock, is_shared)).or_default();
        let held = if for_transaction { &mut count.transaction } else { &mut count.session };
        *held = held.saturating_add(1);
    }

    /// Asks for a lock: it is held now, or when what is given back says so. Either is to be [noted](Self::note) then.
    ///
    /// # Errors
    /// [`TxnError::Deadlock`], [`TxnError::Overloaded`].
    pub fn begin_wait(&self, lock: AdvisoryId, is_shared: bool) -> Result<Option<AdvisoryWait>, TxnError> {
        let target = LockTarget::Advisory(lock);
        Ok(match self.table.acquire(self.id, &target, mode(is_shared), true)? {
            Acquired::Wait(waiter) => Some(AdvisoryWait { waiter, env: self.env.clone() }),
            Acquired::Granted | Acquired::Held => None,
        })
    }

    /// A lock has been granted.
    pub fn note(&mut self, lock: AdvisoryId, is_shared: bool, for_transaction: bool) {
        self.count(lock, is_shared, for_transaction);
    }

    /// Releases a lock that outlives transactions once; false when it is not held so.
    pub fn release(&mut self, lock: AdvisoryId, is_shared: bool) -> bool {
        let Some(count) = self.held.get_mut(&(lock, is_shared)) else { return false };
        if count.session == 0 {
            return false;
        }
        count.session -= 1;
        self.release_unheld(lock, is_shared);
        true
    }

    fn release_unheld(&mut self, lock: AdvisoryId, is_shared: bool) {
        let is_held =
            self.held.get(&(lock, is_shared)).is_some_and(|count| count.session > 0 || count.transaction > 0);
        if !is_held && self.held.remove(&(lock, is_shared)).is_some() {
            self.table.release_mode(self.id, &LockTarget::Advisory(lock), mode(is_shared));
        }
    }

    /// Releases all locks that outlive transactions.
    pub fn release_all(&mut self) {
        for count in self.held.values_mut() {
            count.session = 0;
        }
        self.release_all_unheld();
    }

    /// The transaction has ended, and its locks with it.
    pub fn end_transaction(&mut self) {
        self.within(None);
        for count in self.held.values_mut() {
            count.transaction = 0;
        }
        self.release_all_unheld();
    }

    fn release_all_unheld(&mut self) {
        for (lock, is_shared) in self.held.keys().copied().collect::<Vec<_>>() {
            self.release_unheld(lock, is_shared);
        }
    }
}

impl Drop for SessionLocks {
    fn drop(&mut self) {
        self.release_all();
        self.end_transaction();
    }
}

#[cfg(test)]
mod tests {
    use rustydb_env::sim::Simulation;

    use super::*;

    fn sessions() -> (Simulation, SessionLocks, SessionLocks) {
        let simulation = Simulation::new(1);
        let node = simulation.add_node();
        let env = simulation.env(node);
        let table = LockTable::new(100);
        let (first, second) = (SessionLocks::new(&table, &env), SessionLocks::new(&table, &env));
        (simulation, first, second)
    }

    const ONE: AdvisoryId = AdvisoryId::One(1);

    #[test]
    fn locks_are_counted_and_released_as_often() {
        let (_simulation, mut first, mut second) = sessions();
        assert!(first.try_take(ONE, false, false).unwrap());
        assert!(first.try_take(ONE, false, false).unwrap());
        assert!(first.try_take(ONE, false, true).unwrap());
        assert!(!second.try_take(ONE, false, false).unwrap());
        assert!(second.try_take(AdvisoryId::Pair(0, 1), false, false).unwrap());
        assert!(first.release(ONE, false) && first.release(ONE, false));
        assert!(!first.release(ONE, false) && !first.outlive());
        assert!(!second.try_take(ONE, true, false).unwrap());
        first.end_transaction();
        assert!(second.try_take(ONE, true, false).unwrap());
        assert!(first.try_take(ONE, true, false).unwrap());
        assert!(!first.try_take(ONE, false, false).unwrap());
        drop(second);
        assert!(first.try_take(ONE, false, false).unwrap());
    }

    #[test]
    fn what_is_exclusive_goes_and_what_is_shared_stays() {
        let (_simulation, mut first, mut second) = sessions();
        assert!(first.try_take(ONE, false, false).unwrap());
        assert!(first.try_take(ONE, true, false).unwrap());
        assert!(!second.try_take(ONE, true, false).unwrap());
        assert!(first.release(ONE, false));
        assert!(second.try_take(ONE, true, false).unwrap());
        assert!(!second.try_take(ONE, false, false).unwrap());
        first.release_all();
        assert!(second.try_take(ONE, false, false).unwrap());
    }

    #[test]
    fn a_change_of_leadership_is_told() {
        let (_simulation, mut first, mut second) = sessions();
        assert!(first.try_take(ONE, false, false).unwrap());
        first.table.clear();
        assert!(first.is_lost() && second.is_lost());
        assert!(second.try_take(ONE, false, false).unwrap());
        // What is gone is not released for those who have it now.
        drop(first);
        assert_eq!(second.table.len(), 1);
    }
}
