//! The state machine: the side of a store that consensus drives.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use rustydb_env::{Env, TaskGroup};
use rustydb_storage::engine::EngineError;
use rustydb_types::ids::{LogIndex, NodeId, Term, Version};
use rustydb_types::position::LogPosition;

use crate::core::{Authority, Core};
use crate::error::{ApplyError, Suspicion};
use crate::hash;
use crate::layer::{ROWS, decode_row};
use crate::marks::{Mark, MarkAt};
use crate::snapshot::{SnapshotInstaller, SnapshotReader};

/// A log entry to be applied.
#[derive(Clone, Debug)]
pub struct ApplyEntry {
    /// Its place in the log.
    pub position: LogPosition,
    /// The same as consensus encodes it; kept with the state and given back by [`StateMachine::applied`].
    pub opaque_position: Bytes,
    /// What it says.
    pub payload: ApplyPayload,
}

/// What a log entry says.
#[derive(Clone, Debug)]
pub enum ApplyPayload {
    /// Nothing: a new leader's first entry.
    Blank,
    /// Consensus's own; kept with the state.
    Membership(Bytes),
    /// An entry as the sequencer proposed it.
    Command(Bytes),
}

/// How far the state is. All of it is kept in one engine batch with the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The last entry applied.
    pub position: Option<LogPosition>,
    /// The same as consensus encoded it; empty before the first.
    pub opaque_position: Bytes,
    /// The last membership applied.
    pub membership: Option<Bytes>,
    /// The last commit applied.
    pub version: Version,
}

/// Who leads, as consensus knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// This node, in this term, and this term's blank entry is applied.
    Leader {
        /// The term.
        term: Term,
    },
    /// Another node, or nobody known.
    Follower {
        /// The other node.
        leader: Option<NodeId>,
    },
}

/// Steps of clearing up after one flush.
const COLLECT_STEPS: usize = 16;

/// Applies the log to one store. Owned by consensus; dropping it ends the store's background work.
pub struct StateMachine {
    core: Arc<Core>,
    tasks: TaskGroup,
}

impl StateMachine {
    pub(crate) fn new(core: Arc<Core>, env: &Env) -> StateMachine {
        let tasks = TaskGroup::new(env);
        tasks.spawn("txn-flush", flush_loop(Arc::clone(&core), tasks.stopping()));
        tasks.spawn("txn-sweep", crate::sweep::sweep_loop(Arc::clone(&core), tasks.stopping()));
        StateMachine { core, tasks }
    }

    /// How far the state is.
    #[must_use]
    pub fn applied(&self) -> Applied {
        let state = self.core.apply.lock();
        Applied {
            position: state.position,
            opaque_position: state.opaque.clone(),
            membership: state.membership.clone(),
            version: state.sequence,
        }
    }

    /// Applies entries, in log order. Memory work, save where the engine is read for a row that is overwritten,
    /// or where the disk lags so far behind that the flush has to be done first.
    ///
    /// # Errors
    /// [`ApplyError`]: the node must stop. Nothing is applied after it.
    pub fn apply(&mut self, entries: &[ApplyEntry]) -> Result<(), ApplyError> {
        if self.core.layers.unflushed_size_bytes() >= self.core.config.unflushed_size_bytes_max {
            flush_for_room(&self.core)?;
        }
        self.core.apply_entries(entries)
    }

    /// What to wait for before more is applied, where the disk lags far behind: the flush. Without the wait
    /// [`apply`](StateMachine::apply) does it first, and blocks for as long.
    ///
    /// # Errors
    /// The future's: as [`apply`](StateMachine::apply).
    pub fn room(&self) -> Option<impl Future<Output = Result<(), ApplyError>> + Send + use<>> {
        if self.core.layers.unflushed_size_bytes() < self.core.config.unflushed_size_bytes_max {
            return None;
        }
        let core = Arc::clone(&self.core);
        Some(async move {
            let flushing = Arc::clone(&core);
            core.env.blocking(move || flush_for_room(&flushing)).await
        })
    }

    /// The position up to which the log may be purged: everything up to it is durable without the log.
    #[must_use]
    pub fn flushed(&self) -> Option<LogPosition> {
        *self.core.flushed.lock()
    }

    /// Makes everything applied durable.
    ///
    /// # Errors
    /// [`ApplyError::Storage`].
    pub fn flush(&self) -> impl Future<Output = Result<Option<LogPosition>, ApplyError>> + Send + use<> {
        let core = Arc::clone(&self.core);
        async move {
            let flushing = Arc::clone(&core);
            core.env
                .blocking(move || {
                    flush_and_collect(&flushing, true)?;
                    Ok(*flushing.flushed.lock())
                })
                .await
        }
    }

    /// Flushes and pins the state for a follower or a backup: see [`SnapshotReader`]. While the disk has no room for a
    /// flush, it is the state of the last one.
    ///
    /// # Errors
    /// [`ApplyError::Storage`].
    pub fn snapshot(&self) -> impl Future<Output = Result<SnapshotReader, ApplyError>> + Send + use<> {
        let core = Arc::clone(&self.core);
        async move {
            let flushing = Arc::clone(&core);
            let pin = move || match flushing.flush() {
                Ok(flushed) => SnapshotReader::new(flushed.view),
                // What is durable is a state, too, only an older one, and the log still has the rest.
                Err(ApplyError::Storage(EngineError::DiskFull { .. })) => {
                    SnapshotReader::new(flushing.flushed_view()?)
                }
                Err(error) => Err(error),
            };
            core.env.blocking(pin).await
        }
    }

    /// Begins to fill a new store: see [`SnapshotInstaller`].
    ///
    /// # Errors
    /// [`ApplyError`] when the new store cannot be created.
    pub fn installer(&self) -> Result<SnapshotInstaller, ApplyError> {
        SnapshotInstaller::new(Arc::clone(&self.core))
    }

    /// Tells the store who leads. For a leader: call it when the blank entry of its term is applied. While the state
    /// is withheld, this node leads nothing.
    pub fn leadership(&self, leadership: Leadership) {
        let authority = match leadership {
            Leadership::Leader { .. } if self.core.is_withheld() => Authority::Unknown,
            Leadership::Leader { term } => Authority::Here { term },
            Leadership::Follower { leader: Some(node) } => Authority::At(node),
            Leadership::Follower { leader: None } => Authority::Unknown,
        };
        self.core.lead(authority);
    }

    /// The state hash: equal on every replica at the same applied position.
    #[must_use]
    pub fn state_hash(&self) -> u128 {
        self.core.hash_of(&self.core.apply.lock())
    }

    /// The state hash with the position that it is of; [`None`] before the first entry.
    #[must_use]
    pub fn mark(&self) -> Option<Mark> {
        self.core.apply.lock().marks.last()
    }

    /// What the state hash was at an index.
    #[must_use]
    pub fn mark_at(&self, index: LogIndex) -> MarkAt {
        self.core.apply.lock().marks.at(index)
    }

    /// The first row since the last call that was not what an entry overwrote. This replica or the one that led then
    /// is wrong: compare [marks](StateMachine::mark) with the other replicas.
    pub fn suspicion(&mut self) -> Option<Suspicion> {
        self.core.apply.lock().suspicion.take()
    }

    /// Gives the state to nobody from here on, also after a restart: it differs from that of the other replicas.
    /// What is open ends, and this node leads nothing. Entries go on being applied, and the state can be replaced by
    /// a snapshot; what is replaced then is kept aside. Blocks for the disk.
    ///
    /// # Errors
    /// [`ApplyError::Disk`]: it is withheld in this life of the node only.
    pub fn withhold(&self, reason: &str) -> Result<(), ApplyError> {
        self.core.withheld.store(true, Ordering::SeqCst);
        self.core.lead(Authority::Unknown);
        self.core.stores.withhold(reason)
    }

    /// Gives the state out again. Blocks for the disk.
    ///
    /// # Errors
    /// [`ApplyError::Disk`]: it stays withheld.
    pub fn release(&self) -> Result<(), ApplyError> {
        self.core.stores.release()?;
        self.core.withheld.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Whether the state is withheld.
    #[must_use]
    pub fn is_withheld(&self) -> bool {
        self.core.is_withheld()
    }

    /// Why what was stored could not be read when the store was opened: it is empty in its stead, and nothing can be
    /// applied until a snapshot is in its place.
    #[must_use]
    pub fn lost(&self) -> Option<String> {
        self.core.stores.lost()
    }

    /// What is wrong with the files of the engine in use, as far as anybody has met it. From then on nothing can be
    /// applied until a snapshot is in its place.
    #[must_use]
    pub fn damage(&self) -> Option<String> {
        self.core.stores.damage().reason()
    }

    /// Ends when there is [damage](StateMachine::damage).
    pub fn damaged(&self) -> impl Future<Output = String> + Send + use<> {
        self.core.stores.damage().found()
    }

    /// Computes the share of the rows anew from everything stored, and says whether it is as it should be. Blocks
    /// for as long as reading everything takes. While a staged transaction is being moved to its place there is
    /// nothing to compare, and the answer is yes.
    ///
    /// # Errors
    /// [`ApplyError::Storage`].
    pub fn recompute_hash(&self) -> Result<bool, ApplyError> {
        // What staged transactions left is brought to its place first.
        self.core.flush()?;
        while self.core.collect_step()? {}
        let flushed = self.core.flush()?;
        let picture = crate::meta::load(&*flushed.view, self.core.config.outcomes)?;
        if !picture.staged.resolved().is_empty() {
            return Ok(true);
        }
        Ok(rehash_rows(&*flushed.view)? == picture.state.rows_hash)
    }

    /// Ends the background work.
    pub async fn shutdown(self, deadline: Duration) {
        self.core.stopping.set();
        self.core.lead(Authority::Unknown);
        self.tasks.shutdown(deadline).await;
    }
}

fn rehash_rows(view: &dyn rustydb_storage::engine::EngineView) -> Result<u128, ApplyError> {
    let mut sum = 0_u128;
    let mut readable = true;
    let (all, forward) =
        (rustydb_storage::engine::KeyRange::ALL, rustydb_storage::engine::Direction::Forward);
    view.scan(ROWS, all, forward, &mut |key, row| {
        match decode_row(row) {
            Some((version, value)) => sum = sum.wrapping_add(hash::row(key, version, value)),
            None => readable = false,
        }
        std::ops::ControlFlow::Continue(())
    })?;
    if readable { Ok(sum) } else { Err(ApplyError::Stored { what: "row" }) }
}

fn flush_for_room(core: &Core) -> Result<(), ApplyError> {
    match core.flush() {
        // The log is on the same disk and refuses new entries; what is committed must still be applied.
        Ok(_) | Err(ApplyError::Storage(EngineError::DiskFull { .. })) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn flush_loop(core: Arc<Core>, stopping: rustydb_env::sync::Signal) {
    // Said once, not at every try.
    let mut is_full = false;
    loop {
        tokio::select! {
            biased;
            () = stopping.wait() => return,
            () = core.stopping.wait() => return,
            () = core.flush_wanted.notified() => {}
            () = core.env.sleep(core.config.flush_interval) => core.retry_drained(),
        }
        let to_flush =
            core.layers.unflushed_size_bytes() > 0 || core.apply.lock().position != *core.flushed.lock();
        if !to_flush && core.staged.leavings.lock().first().is_none() {
            continue;
        }
        let flushing = Arc::clone(&core);
        match core.env.blocking(move || flush_and_collect(&flushing, to_flush)).await {
            Ok(()) | Err(ApplyError::Stopped) => is_full = false,
            Err(ApplyError::Storage(EngineError::DiskFull { path, .. })) => {
                if !std::mem::replace(&mut is_full, true) {
                    tracing::warn!(path = %path.display(), "the disk is too full to flush; trying again");
                }
            }
            // It is replaced from elsewhere, or the node is stopped, by whoever was told of the damage.
            Err(ApplyError::Storage(error)) if error.is_damage() => tokio::select! {
                biased;
                () = stopping.wait() => return,
                () = core.stopping.wait() => return,
                () = core.stores.damage().mended() => {}
            },
            Err(error) => {
                tracing::error!(%error, "the flush failed; the store stops");
                core.apply.lock().stopped = true;
                core.stopping.set();
                return;
            }
        }
    }
}

/// A flush, and then some steps of clearing up; the rest of them after the next flush, so that none waits long.
fn flush_and_collect(core: &Core, to_flush: bool) -> Result<(), ApplyError> {
    if to_flush {
        core.flush()?;
    }
    for _ in 0..COLLECT_STEPS {
        if !core.collect_step()? {
            return Ok(());
        }
    }
    core.flush_wanted.notify_one();
    Ok(())
}
