//! A transaction: reads of a snapshot, buffered writes, locks, one commit.

mod aside;
mod commit;
mod locking;
mod own;
mod read;
mod staging;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::Mutex;
use rustydb_env::Bug;
use rustydb_types::ids::{RequestId, Term, Version};

use crate::core::{Core, TxnShared};
use crate::entry::{Attachment, Base, KEY_SIZE_MAX};
use crate::error::TxnError;
use crate::layer::Pin;
use crate::locks::LockTarget;
use crate::validation::ReadSet;

pub use commit::CommitReceipt;
pub use locking::RowLockOutcome;
pub use own::SavepointId;
use own::{OwnWrite, OwnWrites};
use staging::Staging;

/// What a transaction is kept apart from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isolation {
    /// Each statement has a snapshot of its own.
    ReadCommitted,
    /// One snapshot; a row changed since cannot be written (snapshot isolation).
    RepeatableRead,
    /// One snapshot; nothing that was read may have changed at the commit.
    Serializable,
}

/// What a transaction may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read and write, at the leader.
    ReadWrite,
    /// Read what is applied, linearizably.
    ReadOnly,
    /// Read what this replica has applied, however old that is.
    ReadLocal,
}

/// How a transaction is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnOptions {
    /// See [`Isolation`].
    pub isolation: Isolation,
    /// See [`Access`].
    pub access: Access,
    /// Under which name the outcome of the commit can be asked for. All zero: it cannot. Of one session the
    /// counters must rise; a commit under one that is not above the last is refused.
    pub request: RequestId,
}

/// A locked row.
#[derive(Clone, Copy, Debug)]
struct LockedRow {
    /// The newest live row when the lock was granted, which cannot change while it is held.
    base: Base,
    /// Whether a value of the transaction itself has left in a chunk.
    staged: bool,
}

/// An open transaction. Dropping it rolls back.
pub struct Transaction {
    core: Arc<Core>,
    options: TxnOptions,
    shared: Arc<TxnShared>,
    pin: Pin,
    /// The snapshot of the whole transaction, while a statement reads by a newer one.
    former: Option<Pin>,
    /// Whether the snapshot has been read from: the first statement takes a new one.
    used: bool,
    command: u32,
    own: OwnWrites,
    /// Locks in the order of asking, which is the order of release.
    held: Vec<LockTarget>,
    locked: HashMap<Bytes, LockedRow>,
    reads: Option<Mutex<ReadSet>>,
    /// Under which leadership recent writes are recorded for `reads`.
    epoch: u64,
    attachments: Vec<Attachment>,
    /// The commit is recorded even if nothing was written.
    keeps_outcome: bool,
    staging: Staging,
    /// Prefixes of keys that only this transaction can reach; none is a prefix of another.
    private: BTreeSet<Bytes>,
    /// What was written beside the transaction under such prefixes.
    asides: Mutex<BTreeMap<Bytes, Bytes>>,
    /// Flushes of the layers when the snapshot was taken, or before.
    flushes: u64,
    /// A mark of whoever uses it.
    is_marked: bool,
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction")
            .field("id", &self.shared.id)
            .field("options", &self.options)
            .field("snapshot", &self.pin.version())
            .finish_non_exhaustive()
    }
}

impl Transaction {
    pub(crate) fn open(core: &Arc<Core>, options: TxnOptions) -> Result<Transaction, TxnError> {
        let writes = options.access == Access::ReadWrite;
        let shared = if writes {
            core.open_transaction()?
        } else {
            let (term, began) = (Term::new(0), core.layers.applied());
            Arc::new(TxnShared::new(core.registry.next_id(), term, began))
        };
        let serializable = writes && options.isolation == Isolation::Serializable;
        let flushes = core.layers.flushes();
        let epoch = serializable.then(|| core.sequencer.with_recent(|recent, last| recent.start(last)));
        let pin = take_pin(core, &shared, writes);
        if let Some(epoch) = epoch {
            core.sequencer.with_recent(|recent, _| recent.opened(epoch, pin.version()));
        }
        Ok(Transaction {
            core: Arc::clone(core),
            options,
            shared,
            pin,
            former: None,
            used: false,
            command: 1,
            own: OwnWrites::default(),
            held: Vec::new(),
            locked: HashMap::new(),
            epoch: epoch.unwrap_or(0),
            reads: serializable.then(|| Mutex::new(ReadSet::new(core.config.read_ranges_max))),
            attachments: Vec::new(),
            is_marked: false,
            keeps_outcome: false,
            staging: Staging::new(flushes),
            private: BTreeSet::new(),
            asides: Mutex::default(),
            flushes,
        })
    }

    /// Names the transaction among those of its store's life at this node, as [`LockView`](crate::LockView) does.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.shared.id
    }

    /// The leader's term in which it began, if it may write.
    #[must_use]
    pub fn term(&self) -> Term {
        self.shared.term
    }

    /// Lets it count as begun no later than a version: if its request may have been fenced since, it does not commit.
    pub fn began_by(&self, version: Version) {
        self.shared.began_by(version);
    }

    /// How the transaction was begun.
    #[must_use]
    pub const fn options(&self) -> &TxnOptions {
        &self.options
    }

    /// Sets a mark that means something to whoever uses the transaction, and nothing to the store.
    pub const fn mark(&mut self) {
        self.is_marked = true;
    }

    /// Whether the mark was set.
    #[must_use]
    pub const fn is_marked(&self) -> bool {
        self.is_marked
    }

    /// The version that the transaction's present snapshot sees.
    #[must_use]
    pub fn snapshot(&self) -> Version {
        self.pin.version()
    }

    /// Whether something was written.
    #[must_use]
    pub fn has_writes(&self) -> bool {
        !self.own.is_empty() || self.staging.has_begun()
    }

    /// Lets the commit be recorded under its request even if nothing was written.
    pub fn keep_outcome(&mut self) {
        self.keeps_outcome = self.can_write();
    }

    /// Whether the commit will be recorded under its request: something was written, or it is to be recorded anyway.
    #[must_use]
    pub fn has_outcome(&self) -> bool {
        self.has_writes() || self.keeps_outcome
    }

    fn can_write(&self) -> bool {
        self.options.access == Access::ReadWrite
    }

    /// Begins a statement. What the statements before it wrote becomes readable; what it writes itself does not
    /// (`get_latest` aside). With READ COMMITTED it takes a new snapshot.
    pub fn begin_statement(&mut self) {
        self.command = self.command.saturating_add(1);
        if let Some(former) = self.former.take() {
            self.shared.pinned.store(former.version().get(), Ordering::SeqCst);
            self.pin = former;
        }
        let renews = self.options.isolation == Isolation::ReadCommitted
            && !self.core.env.has_bug(Bug::StatementSnapshotKept);
        if renews || !self.used {
            let former = self.pin.version();
            self.flushes = self.core.layers.flushes();
            self.pin = take_pin(&self.core, &self.shared, self.can_write());
            if self.reads.is_some() {
                let (epoch, snapshot) = (self.epoch, self.pin.version());
                self.core.sequencer.with_recent(|recent, _| recent.moved(epoch, former, snapshot));
            }
        }
        self.used = true;
    }

    /// Reads what is newest from here to the end of the statement, whatever the isolation level: for a change of a
    /// table as a whole, under a lock that keeps others from writing to it. What SERIALIZABLE has read is validated at
    /// the commit as ever, so there it does nothing.
    pub fn read_newest(&mut self) {
        if self.options.isolation == Isolation::RepeatableRead {
            let newest = take_pin(&self.core, &self.shared, self.can_write());
            let former = std::mem::replace(&mut self.pin, newest);
            self.former.get_or_insert(former);
        }
    }

    /// Takes a newer snapshot within a statement that reads nothing by its snapshot, so that a long load does not keep
    /// alive what its first one saw. Does nothing where the transaction has one snapshot for all.
    pub fn renew_snapshot(&mut self) {
        // Only what is applied: a snapshot of what is in flight, of its own chunks too, falls with that.
        let is_newer = self.core.layers.applied() > self.pin.version();
        let may_move = self.options.isolation == Isolation::ReadCommitted || self.former.is_some();
        if may_move && is_newer {
            self.flushes = self.core.layers.flushes();
            self.pin = take_pin(&self.core, &self.shared, false);
        }
    }

    /// Begins the first statement with the snapshot that the transaction was opened with: from REPEATABLE READ on it
    /// is the snapshot of all that follow.
    pub fn begin_first_statement(&mut self) {
        self.used = true;
    }

    /// Writes a row. The caller should hold its row lock; where it does not, the lock is taken if it is free.
    ///
    /// # Errors
    /// [`TxnError::ReadOnly`]; [`TxnError::LockNotAvailable`] when the lock was not taken before and is not free;
    /// [`TxnError::Serialization`] when the row is newer than the snapshot (REPEATABLE READ and above);
    /// [`TxnError::TooManyChanges`] at the bound of what is held in memory, [`TxnError::TooLarge`] for a key.
    pub fn put(&mut self, key: Bytes, value: Bytes) -> Result<(), TxnError> {
        self.write(key, Some(value))
    }

    /// Deletes a row; as [`put`](Transaction::put).
    ///
    /// # Errors
    /// As [`put`](Transaction::put).
    pub fn delete(&mut self, key: Bytes) -> Result<(), TxnError> {
        self.write(key, None)
    }

    fn write(&mut self, key: Bytes, value: Option<Bytes>) -> Result<(), TxnError> {
        if !self.can_write() {
            return Err(TxnError::ReadOnly);
        }
        if key.len() > KEY_SIZE_MAX {
            return Err(TxnError::TooLarge { size_bytes: key.len(), bound_bytes: KEY_SIZE_MAX });
        }
        self.shared.check()?;
        let row = match self.locked.get(&key) {
            Some(row) => *row,
            None => self.lock_for_write(&key)?,
        };
        let bound_bytes = self.core.config.transaction_size_bytes_max;
        if self.own.size_bytes() > bound_bytes {
            return Err(TxnError::TooManyChanges { size_bytes: self.own.size_bytes(), bound_bytes });
        }
        let write = OwnWrite { base: row.base, value, staged_before: row.staged };
        self.own.write(key, write, self.command);
        Ok(())
    }

    /// Says that keys which begin with `prefix` are this transaction's alone: nothing was ever committed under it,
    /// and nobody else can come to know of it before this transaction is committed. Their rows need no locks, and
    /// replace nothing; so a bulk load into a new table costs neither a lock nor a look into the engine per row.
    pub fn make_private(&mut self, prefix: Bytes) {
        self.private.insert(prefix);
    }

    fn is_private(&self, key: &[u8]) -> bool {
        let before = self.private.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        before.is_some_and(|prefix| key.starts_with(prefix))
    }

    /// Makes data ride with the commit in the change feed.
    pub fn attach(&mut self, attachment: Attachment) {
        self.attachments.push(attachment);
    }

    /// Marks a place to go back to.
    pub fn savepoint(&mut self) -> SavepointId {
        self.own.savepoint()
    }

    /// Undoes every write since the savepoint, which stays open; those opened after it are gone. Locks stay.
    ///
    /// # Errors
    /// [`TxnError::NoSuchSavepoint`].
    pub fn rollback_to(&mut self, savepoint: SavepointId) -> Result<(), TxnError> {
        if self.core.env.has_bug(Bug::SavepointKept) {
            return Ok(());
        }
        self.own.rollback_to(savepoint)
    }

    /// Forgets a savepoint and those opened after it; the writes stay.
    ///
    /// # Errors
    /// [`TxnError::NoSuchSavepoint`].
    pub fn release(&mut self, savepoint: SavepointId) -> Result<(), TxnError> {
        self.own.release(savepoint)
    }

    /// Ends the transaction; nothing of it remains.
    pub fn rollback(self) {
        drop(self);
    }

    fn release_locks(&mut self) {
        if !self.held.is_empty() {
            self.core.locks.release(self.shared.id, &self.held);
            self.held.clear();
        }
        self.locked.clear();
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // First: whoever is let in by the release of a lock must find that what was staged can never count.
        self.shared.close();
        self.release_locks();
        if self.staging.has_begun() {
            self.core.sweep_wanted.notify_one();
        }
        if self.can_write() {
            self.core.registry.close(self.shared.id);
        }
        if self.reads.is_some() {
            let (epoch, snapshot) = (self.epoch, self.pin.version());
            self.core.sequencer.with_recent(|recent, _| recent.closed(epoch, snapshot));
        }
    }
}

/// A snapshot of the numbered state for a transaction that writes, of the applied state for one that reads.
/// A refusal beside it lowers what is numbered; then it is taken again.
fn take_pin(core: &Arc<Core>, shared: &TxnShared, numbered: bool) -> Pin {
    loop {
        let refusals = core.registry.refusals();
        let pin = core.layers.pin(numbered.then(|| core.overlay.numbered()));
        shared.pinned.store(pin.version().get(), Ordering::SeqCst);
        if core.registry.refusals() == refusals {
            return pin;
        }
    }
}
