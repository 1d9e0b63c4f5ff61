//! The lock table of one group.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::mode::{AdvisoryId, LockTarget, Mode, TableLockId};
use crate::error::TxnError;

/// A transaction, for the lock table. Never reused within a process.
pub(crate) type TxnId = u64;

/// What marks the numbers of sessions among those of transactions.
const SESSION: TxnId = 1 << 63;

/// What a lock is on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Locked {
    /// A table.
    Table(TableLockId),
    /// The row with this key.
    Row(Bytes),
    /// All rows that a large transaction has written.
    Staged,
    /// Numbers that applications lock.
    Advisory(AdvisoryId),
}

/// A lock that is held or waited for, as people are shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockView {
    /// The transaction, as [`Transaction::id`](crate::Transaction::id) names it.
    pub transaction: u64,
    /// What it is on.
    pub on: Locked,
    /// The mode by the name that PostgreSQL's `pg_locks` gives it.
    pub mode: &'static str,
    /// It is held; otherwise the transaction waits for it.
    pub is_granted: bool,
}

/// All locks of one group at its leader.
pub(crate) struct LockTable {
    inner: Mutex<Inner>,
    locks_max: usize,
}

#[derive(Default)]
struct Inner {
    locks: HashMap<LockTarget, Lock>,
    /// What each waiting transaction waits for; a transaction waits for one thing at a time.
    waiting: HashMap<TxnId, LockTarget>,
    next_ticket: u64,
    /// Holders and waiters in all.
    entries: usize,
    /// Changes when all locks are forgotten.
    epoch: u64,
    /// How many sessions have held locks of their own.
    sessions: u64,
    /// The open transaction of each session that has locks of its own, which waits and holds for it, too.
    transactions: HashMap<TxnId, TxnId>,
    /// The other way round.
    owners: HashMap<TxnId, TxnId>,
}

#[derive(Default)]
struct Lock {
    holders: SmallVec<[Holder; 2]>,
    queue: VecDeque<Request>,
}

struct Holder {
    txn: TxnId,
    /// The modes held, as bits.
    modes: u8,
}

struct Request {
    txn: TxnId,
    ticket: u64,
    mode: Mode,
    granted: oneshot::Sender<()>,
}

/// What came of asking for a lock.
pub(crate) enum Acquired {
    /// It is held now; the caller must remember to release it.
    Granted,
    /// The transaction held it, or a stronger one, before.
    Held,
    /// It will be granted later.
    Wait(LockWaiter),
}

/// A place in the queue of a lock. Dropping it gives the place up, or the lock, if that was granted unseen.
pub(crate) struct LockWaiter {
    table: Arc<LockTable>,
    target: LockTarget,
    txn: TxnId,
    ticket: u64,
    /// Whether the transaction held a weaker lock on the target before.
    upgrade: bool,
    granted: Option<oneshot::Receiver<()>>,
}

impl LockWaiter {
    /// Whether the transaction held a weaker lock on the target before.
    pub(crate) const fn is_upgrade(&self) -> bool {
        self.upgrade
    }

    /// Waits for the grant.
    ///
    /// # Errors
    /// [`TxnError::Fallen`] when a change of leadership ended all locks.
    ///
    /// # Cancellation
    /// Dropping the future and then the waiter gives up the place.
    pub(crate) async fn wait(&mut self) -> Result<(), TxnError> {
        let Some(granted) = &mut self.granted else { return Ok(()) };
        let result = granted.await;
        self.granted = None;
        result.map_err(|_| TxnError::Fallen { reason: "the leader changed" })
    }
}

impl Drop for LockWaiter {
    fn drop(&mut self) {
        if self.granted.is_some() {
            self.table.give_up(self);
        }
    }
}

impl LockTable {
    pub(crate) fn new(locks_max: usize) -> Arc<LockTable> {
        Arc::new(LockTable { inner: Mutex::default(), locks_max })
    }

    /// Asks for a lock; `may_wait` says whether to queue.
    ///
    /// # Errors
    /// [`TxnError::Deadlock`] when waiting would close a circle, [`TxnError::LockNotAvailable`] when it would
    /// have to wait and may not, [`TxnError::Overloaded`] at the bound of locks.
    pub(crate) fn acquire(
        self: &Arc<LockTable>,
        txn: TxnId,
        target: &LockTarget,
        mode: Mode,
        may_wait: bool,
    ) -> Result<Acquired, TxnError> {
        let mut inner = self.inner.lock();
        if let Some(lock) = inner.locks.get_mut(target) {
            let own = lock.holders.iter().find(|holder| holder.txn == txn).map(|holder| holder.modes);
            if own.is_some_and(|held| mode.is_covered_by(held, target)) {
                return Ok(Acquired::Held);
            }
            if !lock.must_wait(txn, own.is_some(), mode, target) {
                let fresh = lock.grant(txn, mode);
                inner.entries += usize::from(fresh);
                return Ok(if fresh { Acquired::Granted } else { Acquired::Held });
            }
            if !may_wait {
                return Err(TxnError::LockNotAvailable);
            }
            if inner.entries >= self.locks_max {
                return Err(TxnError::Overloaded { what: "locks" });
            }
            return self.enqueue(&mut inner, txn, target, mode, own.is_some()).map(Acquired::Wait);
        }
        if inner.entries >= self.locks_max {
            return Err(TxnError::Overloaded { what: "locks" });
        }
        let mut lock = Lock::default();
        lock.grant(txn, mode);
        inner.locks.insert(target.clone(), lock);
        inner.entries += 1;
        Ok(Acquired::Granted)
    }

    fn enqueue(
        self: &Arc<LockTable>,
        inner: &mut Inner,
        txn: TxnId,
        target: &LockTarget,
        mode: Mode,
        upgrade: bool,
    ) -> Result<LockWaiter, TxnError> {
        inner.next_ticket += 1;
        let ticket = inner.next_ticket;
        let (granted, receiver) = oneshot::channel();
        let request = Request { txn, ticket, mode, granted };
        if let Some(lock) = inner.locks.get_mut(target) {
            if upgrade {
                lock.queue.push_front(request);
            } else {
                lock.queue.push_back(request);
            }
        }
        inner.entries += 1;
        inner.waiting.insert(txn, target.clone());
        if inner.closes_a_circle(txn) {
            inner.withdraw(txn, target, ticket);
            return Err(TxnError::Deadlock);
        }
        Ok(LockWaiter {
            table: Arc::clone(self),
            target: target.clone(),
            txn,
            ticket,
            upgrade,
            granted: Some(receiver),
        })
    }

    /// Releases locks, in the order given, and grants what becomes free.
    pub(crate) fn release<'a>(&self, txn: TxnId, targets: impl IntoIterator<Item = &'a LockTarget>) {
        let mut inner = self.inner.lock();
        for target in targets {
            inner.release(txn, target);
        }
    }

    /// A new holder of locks that outlive transactions, with what [`LockTable::epoch`] is now.
    pub(crate) fn new_session(&self) -> (TxnId, u64) {
        let mut inner = self.inner.lock();
        inner.sessions += 1;
        (inner.sessions | SESSION, inner.epoch)
    }

    /// Changes when all locks are forgotten.
    pub(crate) fn epoch(&self) -> u64 {
        self.inner.lock().epoch
    }

    /// From now on a transaction waits and holds for a session, too; none does without one.
    pub(crate) fn join(&self, session: TxnId, txn: Option<TxnId>) {
        let mut inner = self.inner.lock();
        let former = match txn {
            Some(txn) => {
                inner.owners.insert(txn, session);
                inner.transactions.insert(session, txn)
            }
            None => inner.transactions.remove(&session),
        };
        if let Some(former) = former.filter(|former| Some(*former) != txn) {
            inner.owners.remove(&former);
        }
    }

    /// Notes a mode that a held one covers, so that it stays when that one is released.
    pub(crate) fn add_mode(&self, txn: TxnId, target: &LockTarget, mode: Mode) {
        let mut inner = self.inner.lock();
        let lock = inner.locks.get_mut(target);
        if let Some(holder) = lock.and_then(|lock| lock.holders.iter_mut().find(|holder| holder.txn == txn)) {
            holder.modes |= mode.bit();
        }
    }

    /// Releases one mode of a lock, and grants what becomes free.
    pub(crate) fn release_mode(&self, txn: TxnId, target: &LockTarget, mode: Mode) {
        let mut inner = self.inner.lock();
        let Some(lock) = inner.locks.get_mut(target) else { return };
        if let Some(holder) = lock.holders.iter_mut().find(|holder| holder.txn == txn) {
            holder.modes &= !mode.bit();
            if holder.modes == 0 {
                inner.release(txn, target);
            } else {
                inner.grant_waiting(target);
            }
        }
    }

    /// Forgets every lock; all who wait are told.
    pub(crate) fn clear(&self) {
        let mut inner = self.inner.lock();
        let former = std::mem::take(&mut *inner);
        inner.next_ticket = former.next_ticket;
        inner.sessions = former.sessions;
        inner.epoch = former.epoch + 1;
        drop(inner);
        // Waiters are woken in the order in which they began to wait, whatever the order of the map.
        let mut requests: Vec<Request> =
            former.locks.into_values().flat_map(|lock| lock.queue.into_iter()).collect();
        requests.sort_unstable_by_key(|request| request.ticket);
        drop(requests);
    }

    /// What is held and waited for, for people: locks on tables, and those on rows that somebody waits for. At most
    /// `count_max` of them.
    pub(crate) fn view(&self, count_max: usize) -> Vec<LockView> {
        let inner = self.inner.lock();
        let shown = inner.locks.iter().filter(|(target, lock)| {
            matches!(target, LockTarget::Table(_) | LockTarget::Advisory(_)) || !lock.queue.is_empty()
        });
        let entries = shown.flat_map(|(target, lock)| {
            let on = match target {
                LockTarget::Table(id) => Locked::Table(*id),
                LockTarget::Row(key) => Locked::Row(key.clone()),
                LockTarget::Staged(_) => Locked::Staged,
                LockTarget::Advisory(id) => Locked::Advisory(*id),
            };
            let held = lock.holders.iter().flat_map(|holder| {
                let modes = Mode::all().filter(|mode| holder.modes & mode.bit() != 0);
                modes.map(|mode| (holder.txn, mode, true))
            });
            let waiting = lock.queue.iter().map(|request| (request.txn, request.mode, false));
            held.chain(waiting).map(move |(transaction, mode, is_granted)| LockView {
                transaction,
                mode: mode.name(target),
                on: on.clone(),
                is_granted,
            })
        });
        let mut view: Vec<LockView> = entries.take(count_max).collect();
        view.sort_unstable_by(|left, right| {
            (left.transaction, &left.on, left.mode).cmp(&(right.transaction, &right.on, right.mode))
        });
        view
    }

    /// The transactions that stand in the way of what a transaction waits for; none when it does not wait.
    pub(crate) fn blockers(&self, txn: TxnId) -> Vec<TxnId> {
        let mut blockers = self.inner.lock().blockers(txn);
        blockers.sort_unstable();
        blockers.dedup();
        blockers
    }

    /// Holders and waiters in all.
    pub(crate) fn len(&self) -> usize {
        self.inner.lock().entries
    }

    /// Takes a request back, or the lock if it was granted meanwhile and the waiter never learnt of it. A
    /// strengthened lock stays strong: the transaction still counts on what it held before.
    fn give_up(&self, waiter: &LockWaiter) {
        let mut inner = self.inner.lock();
        if !inner.withdraw(waiter.txn, &waiter.target, waiter.ticket) && !waiter.upgrade {
            inner.release(waiter.txn, &waiter.target);
        }
    }
}

impl Lock {
    /// Whether a request must queue: behind conflicting holders, and behind conflicting requests unless it
    /// strengthens a lock that its transaction holds.
    fn must_wait(&self, txn: TxnId, upgrade: bool, mode: Mode, target: &LockTarget) -> bool {
        let excluded = mode.excludes(target);
        let held = self.holders.iter().any(|it| it.txn != txn && it.modes & excluded != 0);
        held || (!upgrade && self.queue.iter().any(|it| it.mode.bit() & excluded != 0))
    }

    /// Adds a holder; false when the transaction was one before.
    fn grant(&mut self, txn: TxnId, mode: Mode) -> bool {
        if let Some(holder) = self.holders.iter_mut().find(|holder| holder.txn == txn) {
            holder.modes |= mode.bit();
            return false;
        }
        self.holders.push(Holder { txn, modes: mode.bit() });
        true
    }
}

impl Inner {
    fn release(&mut self, txn: TxnId, target: &LockTarget) {
        let Some(lock) = self.locks.get_mut(target) else { return };
        let before = lock.holders.len();
        lock.holders.retain(|holder| holder.txn != txn);
        self.entries -= before - lock.holders.len();
        self.grant_waiting(target);
    }

    /// Grants every request that nothing before it stands against.
    fn grant_waiting(&mut self, target: &LockTarget) {
        let Some(lock) = self.locks.get_mut(target) else { return };
        let mut ahead = 0_u8;
        let mut index = 0;
        while let Some(request) = lock.queue.get(index) {
            let excluded = request.mode.excludes(target);
            let held = lock.holders.iter().any(|it| it.txn != request.txn && it.modes & excluded != 0);
            if held || ahead & excluded != 0 {
                ahead |= request.mode.bit();
                index += 1;
                continue;
            }
            let Some(request) = lock.queue.remove(index) else { break };
            self.waiting.remove(&request.txn);
            // The entry counted as a waiter goes on as a holder, unless its transaction was a holder already.
            self.entries -= usize::from(!lock.grant(request.txn, request.mode));
            // A waiter that is gone gives the lock back when it is dropped.
            let _gone = request.granted.send(());
        }
        if lock.holders.is_empty() && lock.queue.is_empty() {
            self.locks.remove(target);
        }
    }

    /// Takes a request back; false when it is no longer in the queue.
    fn withdraw(&mut self, txn: TxnId, target: &LockTarget, ticket: u64) -> bool {
        let Some(lock) = self.locks.get_mut(target) else { return false };
        let queued = lock.queue.len();
        lock.queue.retain(|request| request.ticket != ticket);
        if lock.queue.len() == queued {
            return false;
        }
        self.entries -= 1;
        self.waiting.remove(&txn);
        self.grant_waiting(target);
        true
    }

    /// Whether following who waits for whom from `start` leads back to it. A session and its transaction are one: only
    /// one of them waits at a time.
    fn closes_a_circle(&self, start: TxnId) -> bool {
        let one = |id: TxnId| self.owners.get(&id).copied().unwrap_or(id);
        let blockers = |id: TxnId| {
            let other = self.transactions.get(&id).map(|txn| self.blockers(*txn)).unwrap_or_default();
            self.blockers(id).into_iter().chain(other).map(one)
        };
        let start = one(start);
        let mut seen: Vec<TxnId> = Vec::new();
        let mut open: Vec<TxnId> = blockers(start).collect();
        while let Some(txn) = open.pop() {
            if txn == start {
                return true;
            }
            if !seen.contains(&txn) {
                seen.push(txn);
                open.extend(blockers(txn));
            }
        }
        false
    }

    /// The transactions that must end before `txn` is granted what it waits for.
    fn blockers(&self, txn: TxnId) -> Vec<TxnId> {
        let Some(target) = self.waiting.get(&txn) else { return Vec::new() };
        let Some(lock) = self.locks.get(target) else { return Vec::new() };
        let Some(place) = lock.queue.iter().position(|request| request.txn == txn) else { return Vec::new() };
        let excluded = lock.queue.get(place).map_or(0, |request| request.mode.excludes(target));
        let holders =
            lock.holders.iter().filter(|it| it.txn != txn && it.modes & excluded != 0).map(|it| it.txn);
        let ahead = lock.queue.iter().take(place).filter(|it| it.mode.bit() & excluded != 0).map(|it| it.txn);
        holders.chain(ahead).collect()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::super::mode::RowLock;
    use super::*;

    fn row(key: &'static str) -> LockTarget {
        LockTarget::Row(key.into())
    }

    fn acquire(table: &Arc<LockTable>, txn: TxnId, key: &'static str, lock: RowLock) -> Acquired {
        table.acquire(txn, &row(key), Mode::row(lock), true).unwrap()
    }

    fn wait(acquired: Acquired) -> LockWaiter {
        match acquired {
            Acquired::Wait(waiter) => waiter,
            _ => panic!("was granted at once"),
        }
    }

    fn is_granted(waiter: &mut LockWaiter) -> bool {
        waiter.wait().now_or_never().is_some_and(|result| result.is_ok())
    }

    #[test]
    fn locks_are_granted_in_the_order_of_asking() {
        let table = LockTable::new(100);
        assert!(matches!(acquire(&table, 1, "k", RowLock::ForUpdate), Acquired::Granted));
        let mut second = wait(acquire(&table, 2, "k", RowLock::ForShare));
        let mut third = wait(acquire(&table, 3, "k", RowLock::ForUpdate));
        let mut fourth = wait(acquire(&table, 4, "k", RowLock::ForShare));
        table.release(1, [&row("k")]);
        assert!(is_granted(&mut second));
        assert!(!is_granted(&mut third));
        assert!(!is_granted(&mut fourth), "a share must not pass the update that waits before it");
        table.release(2, [&row("k")]);
        assert!(is_granted(&mut third));
        table.release(3, [&row("k")]);
        assert!(is_granted(&mut fourth));
        table.release(4, [&row("k")]);
        assert_eq!(table.len(), 0);
        assert!(table.inner.lock().locks.is_empty());
    }

    #[test]
    fn the_request_that_closes_a_circle_is_refused() {
        let table = LockTable::new(100);
        acquire(&table, 1, "a", RowLock::ForUpdate);
        acquire(&table, 2, "b", RowLock::ForUpdate);
        acquire(&table, 3, "c", RowLock::ForUpdate);
        let _first = wait(acquire(&table, 1, "b", RowLock::ForUpdate));
        let _second = wait(acquire(&table, 2, "c", RowLock::ForUpdate));
        let refused = table.acquire(3, &row("a"), Mode::row(RowLock::ForUpdate), true);
        assert!(matches!(refused, Err(TxnError::Deadlock)));
        table.release(3, [&row("c")]);
    }

    #[test]
    fn two_sharers_that_both_want_to_write_are_a_deadlock() {
        let table = LockTable::new(100);
        acquire(&table, 1, "a", RowLock::ForShare);
        acquire(&table, 2, "a", RowLock::ForShare);
        let mut first = wait(acquire(&table, 1, "a", RowLock::ForUpdate));
        let refused = table.acquire(2, &row("a"), Mode::row(RowLock::ForUpdate), true);
        assert!(matches!(refused, Err(TxnError::Deadlock)));
        table.release(2, [&row("a")]);
        assert!(is_granted(&mut first));
        table.release(1, [&row("a")]);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn giving_up_lets_the_next_pass_and_returns_an_unseen_grant() {
        let table = LockTable::new(100);
        acquire(&table, 1, "a", RowLock::ForShare);
        let second = wait(acquire(&table, 2, "a", RowLock::ForUpdate));
        let mut third = wait(acquire(&table, 3, "a", RowLock::ForShare));
        drop(second);
        assert!(is_granted(&mut third));
        let fourth = wait(acquire(&table, 4, "a", RowLock::ForUpdate));
        table.release(1, [&row("a")]);
        table.release(3, [&row("a")]);
        drop(fourth);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn the_view_shows_tables_and_contended_rows() {
        let table = LockTable::new(100);
        let target = LockTarget::Table(TableLockId::new(7));
        let mode = Mode::table(super::super::mode::TableLockMode::RowExclusive);
        assert!(matches!(table.acquire(1, &target, mode, true), Ok(Acquired::Granted)));
        acquire(&table, 1, "alone", RowLock::ForUpdate);
        acquire(&table, 1, "wanted", RowLock::ForNoKeyUpdate);
        let _waiter = wait(acquire(&table, 2, "wanted", RowLock::ForUpdate));
        let entry =
            |transaction, on: Locked, mode, is_granted| LockView { transaction, on, mode, is_granted };
        assert_eq!(
            table.view(100),
            [
                entry(1, Locked::Table(TableLockId::new(7)), "RowExclusiveLock", true),
                entry(1, Locked::Row("wanted".into()), "ExclusiveLock", true),
                entry(2, Locked::Row("wanted".into()), "AccessExclusiveLock", false),
            ]
        );
        assert_eq!(table.view(2).len(), 2);
        assert_eq!((table.blockers(2), table.blockers(1)), (vec![1], Vec::new()));
    }

    #[test]
    fn a_session_and_its_transaction_are_one_in_a_circle() {
        let table = LockTable::new(100);
        let advisory = LockTarget::Advisory(AdvisoryId::One(7));
        let mode = Mode::row(RowLock::ForUpdate);
        let (first, _) = table.new_session();
        let (second, _) = table.new_session();
        table.join(first, Some(1));
        table.join(second, Some(2));
        assert!(matches!(table.acquire(first, &advisory, mode, true), Ok(Acquired::Granted)));
        assert!(matches!(acquire(&table, 2, "a", RowLock::ForUpdate), Acquired::Granted));
        let waiter = wait(table.acquire(second, &advisory, mode, true).unwrap());
        assert!(matches!(table.acquire(1, &row("a"), mode, true), Err(TxnError::Deadlock)));
        // The next transaction of the session holds nothing of the former one.
        table.release(2, [&row("a")]);
        table.join(second, Some(3));
        assert!(matches!(table.acquire(1, &row("a"), mode, true), Ok(Acquired::Granted)));
        drop(waiter);
        assert_eq!(table.epoch(), 0);
        table.clear();
        assert_eq!((table.epoch(), table.len()), (1, 0));
    }

    #[test]
    fn the_number_of_locks_is_bounded() {
        let table = LockTable::new(1);
        acquire(&table, 1, "a", RowLock::ForShare);
        let refused = table.acquire(1, &row("b"), Mode::row(RowLock::ForShare), true);
        assert!(matches!(refused, Err(TxnError::Overloaded { .. })));
    }

    #[test]
    fn forgetting_all_locks_tells_those_who_wait() {
        let table = LockTable::new(100);
        acquire(&table, 1, "a", RowLock::ForUpdate);
        let mut second = wait(acquire(&table, 2, "a", RowLock::ForUpdate));
        table.clear();
        assert!(matches!(second.wait().now_or_never(), Some(Err(TxnError::Fallen { .. }))));
        table.release(1, [&row("a")]);
        assert_eq!(table.len(), 0);
    }
}
