//! What all parts of one store share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use rustydb_env::Env;
use rustydb_env::sync::{Signal, watch};
use rustydb_types::ids::{NodeId, Term, Version};
use rustydb_types::position::LogPosition;

use crate::apply::ApplyState;
use crate::audit::Audits;
use crate::config::KvConfig;
use crate::error::TxnError;
use crate::feed::Feed;
use crate::layer::{Found, Layers};
use crate::locks::{LockTable, TxnId};
use crate::outcomes::OutcomeTable;
use crate::overlay::Overlay;
use crate::owners::Owners;
use crate::proposer::Proposer;
use crate::sequencer::Sequencer;
use crate::staged::StagedIndex;
use crate::stores::Stores;

/// Who leads the group, as far as this node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// This node, in this term.
    Here {
        /// The term.
        term: Term,
    },
    /// Another node.
    At(NodeId),
    /// Nobody that this node knows of.
    Unknown,
}

/// One store. Reached by transactions, by apply and by the flush.
pub(crate) struct Core {
    pub(crate) env: Env,
    pub(crate) config: KvConfig,
    pub(crate) layers: Arc<Layers>,
    pub(crate) overlay: Overlay,
    pub(crate) locks: Arc<LockTable>,
    pub(crate) sequencer: Sequencer,
    pub(crate) registry: Registry,
    pub(crate) owners: Owners,
    pub(crate) outcomes: RwLock<OutcomeTable>,
    pub(crate) staged: StagedIndex,
    pub(crate) apply: Mutex<ApplyState>,
    pub(crate) stores: Stores,
    /// The position up to which the engine has everything. Held by whoever flushes or installs.
    pub(crate) flushed: Mutex<Option<LogPosition>>,
    pub(crate) proposer: Arc<dyn Proposer>,
    pub(crate) authority: watch::Sender<Authority>,
    pub(crate) applied: watch::Sender<Version>,
    pub(crate) feed: Feed,
    /// Of commits with attachments alone, without their writes.
    pub(crate) attached: Feed,
    /// Wakes the flush before its interval is over.
    pub(crate) flush_wanted: tokio::sync::Notify,
    /// Audits that wait for their entries.
    pub(crate) audits: Audits,
    /// The state differs from that of the other replicas: nothing is read or decided here.
    pub(crate) withheld: AtomicBool,
    /// Wakes the sweep before its interval is over.
    pub(crate) sweep_wanted: tokio::sync::Notify,
    pub(crate) stopping: Signal,
}

impl Core {
    /// Whether the state must not be read.
    pub(crate) fn is_withheld(&self) -> bool {
        self.withheld.load(Ordering::SeqCst)
    }

    pub(crate) fn not_leader(&self) -> TxnError {
        let leader = match *self.authority.borrow() {
            Authority::At(node) => Some(node),
            _ => None,
        };
        TxnError::NotLeader { leader }
    }

    /// The newest numbered version of a key. `noted` learns how far in flight it was.
    pub(crate) fn newest(&self, key: &[u8], noted: &AtomicU64) -> Result<Option<Found>, TxnError> {
        if let Some(found) = self.overlay.get(key, Version::MAX, noted) {
            return Ok(Some(found));
        }
        let in_flight = self.overlay.staged_visible(Version::MAX, noted);
        Ok(self.layers.current().get(key, Version::MAX, &in_flight)?)
    }

    /// A live staged transaction of another than `txn` that has a row at `key`.
    pub(crate) fn staged_by_other(&self, key: &[u8], txn: TxnId) -> Result<Option<Version>, TxnError> {
        for id in self.owners.others(key, txn) {
            if self.layers.current().get_staged(id, key)?.is_some() {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }
}

/// Why an open transaction can go no further.
const ALIVE: u8 = 0;
const REFUSED: u8 = 1;
const DEPOSED: u8 = 2;
const CLOSED: u8 = 3;
const CHUNK_LOST: u8 = 4;

/// What the sequencer knows of an open transaction.
#[derive(Debug)]
pub(crate) struct TxnShared {
    pub(crate) id: TxnId,
    /// The leadership in which the transaction began.
    pub(crate) term: Term,
    /// What was applied at this node when it began, or when what it belongs to was sent.
    began: AtomicU64,
    /// The version of its present snapshot.
    pub(crate) pinned: AtomicU64,
    /// The highest version in flight that it has read.
    pub(crate) read_through: AtomicU64,
    ended: AtomicU8,
}

impl TxnShared {
    pub(crate) const fn new(id: TxnId, term: Term, began: Version) -> TxnShared {
        let (pinned, read_through) = (AtomicU64::new(0), AtomicU64::new(0));
        let began = AtomicU64::new(began.get());
        TxnShared { id, term, began, pinned, read_through, ended: AtomicU8::new(ALIVE) }
    }

    /// The version that was applied when it began, or before.
    pub(crate) fn began(&self) -> Version {
        Version::new(self.began.load(Ordering::Relaxed))
    }

    /// It began no later than that.
    pub(crate) fn began_by(&self, version: Version) {
        self.began.fetch_min(version.get(), Ordering::Relaxed);
    }

    /// Whether the transaction may go on.
    pub(crate) fn check(&self) -> Result<(), TxnError> {
        Err(match self.ended.load(Ordering::Acquire) {
            ALIVE => return Ok(()),
            REFUSED => TxnError::Fallen { reason: "a commit that this transaction had read was refused" },
            CHUNK_LOST => TxnError::Fallen { reason: "a part of the transaction's changes was refused" },
            CLOSED => TxnError::Serialization { reason: "the transaction has ended" },
            _ => TxnError::Fallen { reason: "the leader changed" },
        })
    }

    /// The transaction is committed, rolled back or dropped.
    pub(crate) fn close(&self) {
        self.end(CLOSED);
    }

    /// A part of the transaction was refused, so all of it is.
    pub(crate) fn lose_chunk(&self) {
        self.end(CHUNK_LOST);
    }

    fn end(&self, how: u8) {
        let _earlier = self.ended.compare_exchange(ALIVE, how, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// The open read-write transactions.
#[derive(Default)]
pub(crate) struct Registry {
    inner: Mutex<RegistryInner>,
    /// Counts refusals, so that a snapshot taken beside one is taken again.
    refusals: AtomicU64,
}

#[derive(Default)]
struct RegistryInner {
    next: TxnId,
    open: BTreeMap<TxnId, Arc<TxnShared>>,
}

impl Registry {
    pub(crate) fn next_id(&self) -> TxnId {
        let mut inner = self.inner.lock();
        inner.next += 1;
        inner.next
    }

    pub(crate) fn open(&self, term: Term, began: Version) -> Arc<TxnShared> {
        let mut inner = self.inner.lock();
        inner.next += 1;
        let shared = Arc::new(TxnShared::new(inner.next, term, began));
        inner.open.insert(shared.id, Arc::clone(&shared));
        shared
    }

    pub(crate) fn close(&self, id: TxnId) {
        self.inner.lock().open.remove(&id);
    }

    pub(crate) fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::SeqCst)
    }

    /// Ends every transaction that may have read a version from `from` on.
    pub(crate) fn refuse_from(&self, from: Version) {
        self.refusals.fetch_add(1, Ordering::SeqCst);
        for shared in self.inner.lock().open.values() {
            let pinned = shared.pinned.load(Ordering::SeqCst);
            let read = shared.read_through.load(Ordering::SeqCst);
            if pinned.max(read) >= from.get() {
                shared.end(REFUSED);
            }
        }
    }

    /// Ends every open transaction: the leadership is over.
    pub(crate) fn depose(&self) {
        self.refusals.fetch_add(1, Ordering::SeqCst);
        for shared in std::mem::take(&mut self.inner.lock().open).into_values() {
            shared.end(DEPOSED);
        }
    }
}
