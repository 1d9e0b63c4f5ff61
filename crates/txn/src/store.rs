//! The store: the waist between how commits become durable and everything that uses them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::{Mutex, RwLock};
use rustydb_env::sync::{Signal, watch};
use rustydb_env::{Bug, Env};
use rustydb_types::ids::{RequestId, Version};

use crate::config::KvConfig;
use crate::core::{Authority, Core, Registry};
use crate::entry::{EntryBuilder, EntryKind};
use crate::error::{ApplyError, TxnError};
use crate::feed::{Feed, FeedSubscriber};
use crate::layer::Layers;
use crate::locks::{LockTable, LockView, SessionLocks};
use crate::machine::StateMachine;
use crate::meta;
use crate::outcomes::Fate;
use crate::overlay::Overlay;
use crate::owners::Owners;
use crate::proposer::Proposer;
use crate::sequencer::{Sequencer, Submission};
use crate::staged::StagedIndex;
use crate::stores::{EngineOpener, Stores};
use crate::transaction::{Access, Transaction, TxnOptions};

/// A transactional, multi-version, ordered key-value store. Cheap to clone.
#[derive(Clone)]
pub struct KvStore {
    core: Arc<Core>,
}

impl std::fmt::Debug for KvStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KvStore").field("dir", &self.core.config.dir).finish_non_exhaustive()
    }
}

/// Figures for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvStats {
    /// Entries numbered and not yet applied.
    pub in_flight_entries: usize,
    /// Bytes of such entries.
    pub in_flight_size_bytes: usize,
    /// Bytes of versions that only memory has.
    pub unflushed_size_bytes: usize,
    /// Bytes of versions that old snapshots keep in memory.
    pub retained_size_bytes: usize,
    /// Locks held and waited for.
    pub locks: usize,
    /// Staged transactions that are neither committed nor dropped.
    pub staged_open: usize,
    /// Bytes of the engine's files.
    pub file_size_bytes: u64,
}

impl KvStore {
    /// Opens the store in `config.dir`, with the state that was last flushed; the log brings the rest. The state
    /// machine goes to whoever drives the log. A store whose files are damaged is opened empty and
    /// [lost](StateMachine::lost): it waits for a snapshot.
    ///
    /// # Errors
    /// [`ApplyError`] when the files cannot be opened or read. Blocks for the disk.
    pub fn open(
        env: &Env,
        config: KvConfig,
        opener: EngineOpener,
        proposer: Arc<dyn Proposer>,
    ) -> Result<(KvStore, StateMachine), ApplyError> {
        let stores = Stores::open(env, config.dir.clone(), opener)?;
        let bounds = config.outcomes;
        let read = |stores: &Stores| {
            let view = stores.engine().view()?;
            let loaded = meta::load(&*view, bounds)?;
            Ok::<_, ApplyError>((view, loaded))
        };
        let (view, loaded) = match read(&stores) {
            Err(ApplyError::Storage(error)) if error.is_damage() => {
                stores.lose(error.to_string())?;
                read(&stores)?
            }
            read => read?,
        };
        let withheld = stores.is_withheld()?;
        let applied = loaded.state.sequence;
        let layers = Layers::new(view, applied, loaded.staged.resolved());
        let overlay = Overlay::default();
        overlay.clear(applied);
        let core = Arc::new(Core {
            env: env.clone(),
            locks: LockTable::new(config.locks_max),
            layers,
            overlay,
            sequencer: Sequencer::new(applied),
            registry: Registry::default(),
            owners: Owners::default(),
            outcomes: RwLock::new(loaded.outcomes),
            staged: StagedIndex::new(loaded.staged),
            flushed: Mutex::new(loaded.state.position),
            apply: Mutex::new(loaded.state),
            stores,
            proposer,
            authority: watch::channel(Authority::Unknown).0,
            applied: watch::channel(applied).0,
            feed: Feed::default(),
            attached: Feed::default(),
            audits: Mutex::default(),
            withheld: AtomicBool::new(withheld),
            flush_wanted: tokio::sync::Notify::new(),
            sweep_wanted: tokio::sync::Notify::new(),
            stopping: Signal::default(),
            config,
        });
        let machine = StateMachine::new(Arc::clone(&core), env);
        Ok((KvStore { core }, machine))
    }

    pub(crate) const fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Who leads, to look at and to watch.
    #[must_use]
    pub fn authority(&self) -> watch::Receiver<Authority> {
        self.core.authority.subscribe()
    }

    /// Whether this node leads, as far as it knows.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        matches!(*self.core.authority.borrow(), Authority::Here { .. })
    }

    /// The version up to which everything is applied here, to look at and to watch.
    #[must_use]
    pub fn applied_changes(&self) -> watch::Receiver<Version> {
        self.core.applied.subscribe()
    }

    /// Subscribes to committed changes from now on. `bound` changes wait for the subscriber at most; beyond that
    /// it is told that it lagged.
    #[must_use]
    pub fn changes(&self, bound: usize) -> FeedSubscriber {
        self.core.feed.subscribe(bound)
    }

    /// Subscribes to commits with attachments from now on, which come without their writes, those of staged
    /// transactions too. `bound` of them wait for the subscriber at most; beyond that, and when the state was replaced,
    /// it is told that it lagged.
    #[must_use]
    pub fn attached(&self, bound: usize) -> FeedSubscriber {
        self.core.attached.subscribe(bound)
    }

    /// Begins a transaction. Does not suspend at a leader that holds its lease.
    ///
    /// # Errors
    /// [`TxnError::NotLeader`] for read-write elsewhere than at the leader, for linearizable reads where no leader
    /// can be asked, and for all while the state is [withheld](StateMachine::withhold); [`TxnError::Stopped`].
    pub async fn begin(&self, options: TxnOptions) -> Result<Transaction, TxnError> {
        if self.core.stopping.is_set() {
            return Err(TxnError::Stopped);
        }
        if options.access != Access::ReadLocal {
            self.core.linearize().await?;
        } else if self.core.is_withheld() {
            return Err(self.core.not_leader());
        }
        Transaction::open(&self.core, options)
    }

    /// What became of the transaction under `request`, asked for at any time after it began; `since` is a version from
    /// before it was committed, such as that of its snapshot. One that has no outcome yet is fenced first, so that the
    /// answer never changes, but that a committed or aborted one may be forgotten later.
    ///
    /// # Errors
    /// [`TxnError::NotLeader`]; [`TxnError::UnknownOutcome`] when the fence itself got lost: ask again.
    pub async fn fate(&self, request: RequestId, since: Version) -> Result<Fate, TxnError> {
        let since = if self.core.env.has_bug(Bug::FateGuessed) { Version::new(u64::MAX) } else { since };
        self.core.linearize().await?;
        let known = self.core.outcomes.read().fate(&request, since, self.core.layers.applied());
        if let Some(fate) = known {
            return Ok(fate);
        }
        self.fence(request).await?;
        let fate = self.core.outcomes.read().fate(&request, since, self.core.layers.applied());
        fate.ok_or(TxnError::UnknownOutcome)
    }

    /// Commits a fence for a request.
    pub(crate) async fn fence(&self, request: RequestId) -> Result<(), TxnError> {
        let entry = EntryBuilder::new(EntryKind::Fence, request, Version::ZERO, &[]);
        let mut fence = Submission::bare(EntryKind::Fence, request, entry);
        let answer = self.core.submit_waiting(&mut fence).await?;
        self.core.answer(answer).await?;
        Ok(())
    }

    /// The version up to which everything is applied here.
    #[must_use]
    pub fn applied(&self) -> Version {
        self.core.layers.applied()
    }

    /// What is held and waited for here, for people: locks on tables, and those on rows that somebody waits for. At
    /// most `count_max` of them, in the order of their transactions.
    #[must_use]
    pub fn locks(&self, count_max: usize) -> Vec<LockView> {
        self.core.locks.view(count_max)
    }

    /// Makes sure that this node leads still, or that it has applied what was committed by now.
    ///
    /// # Errors
    /// [`TxnError::NotLeader`] when no leader can be asked.
    pub async fn confirm(&self) -> Result<(), TxnError> {
        self.core.linearize().await
    }

    /// A holder of locks that outlive transactions, for one session.
    #[must_use]
    pub fn session_locks(&self) -> SessionLocks {
        SessionLocks::new(&self.core.locks, &self.core.env)
    }

    /// The transactions that stand in the way of the lock that a transaction waits for; none when it does not wait.
    #[must_use]
    pub fn blockers(&self, transaction: u64) -> Vec<u64> {
        self.core.locks.blockers(transaction)
    }

    /// Figures for metrics.
    #[must_use]
    pub fn stats(&self) -> KvStats {
        let (in_flight_entries, in_flight_size_bytes) = self.core.sequencer.in_flight();
        KvStats {
            in_flight_entries,
            in_flight_size_bytes,
            unflushed_size_bytes: self.core.layers.unflushed_size_bytes(),
            retained_size_bytes: self.core.layers.retained_size_bytes(),
            locks: self.core.locks.len(),
            staged_open: self.core.staged.table.read().open().count(),
            file_size_bytes: self.core.stores.engine().stats().file_size_bytes,
        }
    }
}
