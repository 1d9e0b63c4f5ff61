//! A store without replicas: entries are applied in the order proposed, by one task.
//!
//! Nothing is durable but what was flushed: for tests of what stands above, and for scratch data. Bounded: at
//! [`QUEUE_MAX`] entries a proposal is refused as overloaded.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustydb_env::{Env, TaskGroup};
use rustydb_storage::engine::{EngineKind, MemoryEngine};
use rustydb_types::ids::LogIndex;
use rustydb_types::position::LogPosition;
use tokio::sync::Notify;

use crate::config::KvConfig;
use crate::error::{ApplyError, ProposeError};
use crate::machine::{ApplyEntry, ApplyPayload, Leadership, StateMachine};
use crate::proposer::{Linearize, Proposal, Proposer};
use crate::store::KvStore;
use crate::stores::EngineOpener;

/// Entries that may wait to be applied.
const QUEUE_MAX: usize = 200_000;

#[derive(Default)]
struct Queue {
    proposals: Mutex<VecDeque<Proposal>>,
    arrived: Notify,
}

/// Takes entries as they come; the only leader, in the term it was made for.
#[derive(Clone, Default)]
pub struct LocalProposer {
    queue: Arc<Queue>,
}

impl Proposer for LocalProposer {
    fn propose(&self, proposal: Proposal) -> Result<(), ProposeError> {
        let mut proposals = self.queue.proposals.lock();
        if proposals.len() >= QUEUE_MAX {
            return Err(ProposeError::Overloaded);
        }
        proposals.push_back(proposal);
        drop(proposals);
        self.queue.arrived.notify_one();
        Ok(())
    }

    fn linearize(&self) -> Linearize {
        Linearize::Now
    }
}

/// A store of its own with the task that applies to it. Dropping it ends both.
pub struct LocalKv {
    kv: KvStore,
    tasks: TaskGroup,
}

impl std::fmt::Debug for LocalKv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalKv").field("kv", &self.kv).finish_non_exhaustive()
    }
}

impl LocalKv {
    /// A store in memory, whose commits are applied `delay` after they were proposed. `dir` holds only the pointer
    /// to the engine.
    ///
    /// # Errors
    /// [`ApplyError`] when the folder cannot be written.
    pub fn in_memory(env: &Env, dir: PathBuf, delay: Duration) -> Result<LocalKv, ApplyError> {
        let opener: EngineOpener = Arc::new(|_| Ok(Arc::new(MemoryEngine::new())));
        LocalKv::open(env, KvConfig::new(dir), opener, delay)
    }

    /// A store over an engine of the given kind.
    ///
    /// # Errors
    /// [`ApplyError`] when the files cannot be opened.
    pub fn with_engine(
        env: &Env,
        config: KvConfig,
        kind: EngineKind,
        cache_size_bytes: usize,
        delay: Duration,
    ) -> Result<LocalKv, ApplyError> {
        let at = env.clone();
        let opener: EngineOpener =
            Arc::new(move |path| rustydb_storage::engine::open(kind, &at, path, cache_size_bytes));
        LocalKv::open(env, config, opener, delay)
    }

    fn open(
        env: &Env,
        config: KvConfig,
        opener: EngineOpener,
        delay: Duration,
    ) -> Result<LocalKv, ApplyError> {
        let proposer = LocalProposer::default();
        let (kv, machine) = KvStore::open(env, config, opener, Arc::new(proposer.clone()))?;
        let last = machine.applied().position.unwrap_or_default();
        let term = last.term.next();
        machine.leadership(Leadership::Leader { term });
        let tasks = TaskGroup::new(env);
        let next = LogPosition::new(term, last.index.next());
        tasks.spawn("txn-local", apply_loop(env.clone(), proposer, machine, next, delay));
        Ok(LocalKv { kv, tasks })
    }

    /// The store.
    #[must_use]
    pub fn kv(&self) -> KvStore {
        self.kv.clone()
    }

    /// Ends the tasks.
    pub async fn shutdown(self, deadline: Duration) {
        self.tasks.shutdown(deadline).await;
    }
}

async fn apply_loop(
    env: Env,
    proposer: LocalProposer,
    mut machine: StateMachine,
    mut next: LogPosition,
    delay: Duration,
) {
    loop {
        proposer.queue.arrived.notified().await;
        if !delay.is_zero() {
            env.sleep(delay).await;
        }
        loop {
            let proposals: Vec<Proposal> = {
                let mut queue = proposer.queue.proposals.lock();
                let count = queue.len().min(1024);
                queue.drain(..count).collect()
            };
            if proposals.is_empty() {
                break;
            }
            let mut entries = Vec::with_capacity(proposals.len());
            let mut callbacks = Vec::with_capacity(proposals.len());
            for proposal in proposals {
                if proposal.term != next.term {
                    (proposal.done)(Err(ProposeError::NotLeader { term: proposal.term }));
                    continue;
                }
                let payload = ApplyPayload::Command(proposal.entry);
                entries.push(ApplyEntry { position: next, opaque_position: Bytes::new(), payload });
                next = LogPosition::new(next.term, LogIndex::new(next.index.get() + 1));
                callbacks.push(proposal.done);
            }
            if let Err(error) = machine.apply(&entries) {
                tracing::error!(%error, "a local store cannot apply its log and stops");
                return;
            }
            if let Some(suspicion) = machine.suspicion() {
                tracing::error!(%suspicion, "a local store is not what its log says and stops");
                return;
            }
            for done in callbacks {
                done(Ok(()));
            }
        }
    }
}
