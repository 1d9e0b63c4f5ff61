//! The gateway of a node: makes sessions, knows where databases are led, and asks there for the fate of commits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustydb_env::{Env, Instant};
use rustydb_txn::{Authority, Fate, KvStore};
use rustydb_types::ids::{DatabaseId, NodeId, RequestId, SessionId, Version};

use super::cluster::ClusterPort;
use super::frame::{RequestFrame, ResponseFrame, SessionContext};
use super::lives::Lives;
use super::peer::{SessionKey, SessionOpen, SessionPeer};
use super::session::GatewaySession;
use crate::error::{SqlError, SqlState};
use crate::session::activity::Activities;
use crate::session::core::{OutcomeResolver, Session, SessionParts};
use crate::session::executor::Executor;
use crate::session::interrupt::Interrupts;
use crate::system::{DatabaseRecord, DatabaseState};

/// How long a client waits for a leader of its database.
pub const LEADER_WAIT: Duration = Duration::from_secs(10);

/// How long the fate of a commit is asked for.
const OUTCOME_WAIT: Duration = Duration::from_secs(10);

/// How long one of several nodes is asked for it.
const ASK_WAIT: Duration = Duration::from_secs(2);

/// How long a node that another has followed as leader may take to show that it goes on.
const SIGN_WAIT: Duration = Duration::from_millis(300);

/// How often it is asked for that.
const SIGN_INTERVAL: Duration = Duration::from_secs(1);

/// Pause between two attempts to find a leader.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Makes the executor of a database over its store.
pub type MakeExecutor<E> = Box<dyn Fn(&DatabaseRecord, &KvStore) -> Arc<E> + Send + Sync>;

/// Where clients' sessions begin, one per node.
pub struct Gateway<E: Executor> {
    env: Env,
    cluster: Arc<dyn ClusterPort>,
    make_executor: MakeExecutor<E>,
    /// Executors of databases, which hold their catalog caches. Those of databases that are gone are dropped.
    executors: Mutex<BTreeMap<DatabaseId, Arc<E>>>,
    /// What other nodes have applied of databases, as their answers told.
    seen: Mutex<BTreeMap<DatabaseId, Version>>,
    next_session: AtomicU64,
    /// The sessions that run here, of this node's clients and of others'.
    activities: Arc<Activities>,
    /// The lives of nodes that sessions are of.
    lives: Arc<Lives>,
    /// The way to other nodes; without it only databases that this node leads are served.
    peer: Option<Arc<dyn SessionPeer>>,
}

impl<E: Executor> Gateway<E> {
    /// The gateway of a node.
    #[must_use]
    pub fn new(env: Env, cluster: Arc<dyn ClusterPort>, make_executor: MakeExecutor<E>) -> Self {
        Self {
            env,
            cluster,
            make_executor,
            executors: Mutex::default(),
            seen: Mutex::default(),
            next_session: AtomicU64::new(1),
            activities: Arc::default(),
            lives: Arc::default(),
            peer: None,
        }
    }

    /// Lets sessions run at other nodes.
    #[must_use]
    pub fn with_peer(mut self, peer: Arc<dyn SessionPeer>) -> Self {
        self.peer = Some(peer);
        self
    }

    pub(super) fn env(&self) -> &Env {
        &self.env
    }

    pub(super) fn peer(&self) -> Option<&Arc<dyn SessionPeer>> {
        self.peer.as_ref()
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Arc<dyn ClusterPort> {
        &self.cluster
    }

    /// The lives of nodes that sessions are of which run here.
    #[must_use]
    pub const fn lives(&self) -> &Arc<Lives> {
        &self.lives
    }

    /// A number that no other session of this life of the node has.
    pub fn next_session(&self) -> SessionId {
        SessionId::new(self.next_session.fetch_add(1, Ordering::Relaxed))
    }

    /// Begins the session of a client that has proved who it is.
    ///
    /// # Errors
    /// 3D000 for a database that is not there, 55000 for one that is not ready, 57P03 when no leader serves it in
    /// time, 22023 and the like for settings.
    pub async fn connect(
        self: &Arc<Self>,
        number: SessionId,
        context: &SessionContext,
        interrupts: Arc<Interrupts>,
    ) -> Result<GatewaySession<E>, SqlError> {
        // A database that was just made may be ready everywhere but in what this node knows.
        let deadline = self.env.now() + LEADER_WAIT;
        let record = loop {
            let system = self.cluster.system();
            let record = system.database_named(&context.database).ok_or_else(|| {
                SqlError::new(
                    SqlState::INVALID_CATALOG_NAME,
                    format!("database \"{}\" does not exist", context.database),
                )
            })?;
            if record.state == DatabaseState::Ready {
                break record.clone();
            }
            if self.env.now() < deadline {
                interrupts.check()?;
                self.env.sleep(RETRY_PAUSE).await;
                continue;
            }
            return Err(SqlError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("database \"{}\" is not ready", context.database),
            ));
        };
        let key = SessionKey { incarnation: self.cluster.incarnation(), session: number };
        GatewaySession::begin(Arc::clone(self), record, key, context.clone(), interrupts).await
    }

    /// A session that runs here, where the database's leader is.
    pub(super) fn run_here(
        self: &Arc<Self>,
        record: &DatabaseRecord,
        store: KvStore,
        key: SessionKey,
        context: &SessionContext,
        interrupts: Arc<Interrupts>,
    ) -> Result<Session<E>, SqlError> {
        self.lives.note(key.incarnation);
        let executor = {
            let system = self.cluster.system();
            let mut executors = self.executors.lock();
            executors.retain(|id, _| system.databases.contains_key(id));
            Arc::clone(executors.entry(record.id).or_insert_with(|| (self.make_executor)(record, &store)))
        };
        let resolver: OutcomeResolver = {
            let (gateway, record) = (Arc::clone(self), record.clone());
            Arc::new(move |request, since| {
                let (gateway, record) = (Arc::clone(&gateway), record.clone());
                Box::pin(async move { gateway.outcome(&record, request, since).await.is_committed() })
            })
        };
        let parts = SessionParts {
            env: self.env.clone(),
            cluster: Arc::clone(&self.cluster),
            executor,
            resolver,
            store,
            database: record.id,
            token_key: record.token_key.clone(),
            key,
            interrupts,
            activities: Arc::clone(&self.activities),
        };
        Session::new(parts, context)
    }

    /// A version of a database that is applied somewhere, as new as is known here; zero when nothing is.
    pub(super) fn applied(&self, record: &DatabaseRecord) -> Version {
        let here = self.cluster.store(record.id).map_or(Version::ZERO, |store| store.applied());
        let there = self.seen.lock().get(&record.id).copied().unwrap_or(Version::ZERO);
        here.max(there)
    }

    /// Another node has applied a version of a database.
    pub(super) fn saw(&self, record: &DatabaseRecord, applied: Version) {
        let mut seen = self.seen.lock();
        if let Some(newest) = seen.get_mut(&record.id) {
            *newest = applied.max(*newest);
            return;
        }
        let system = self.cluster.system();
        seen.retain(|id, _| system.databases.contains_key(id));
        seen.insert(record.id, applied);
    }

    /// Where the database is led, as far as this node knows.
    pub(super) fn locate(&self, record: &DatabaseRecord) -> Place {
        match self.cluster.store(record.id) {
            Some(store) => {
                let authority = *store.authority().borrow();
                match authority {
                    Authority::Here { .. } => Place::Here(store),
                    Authority::At(node) => Place::At(node),
                    Authority::Unknown => Place::Unknown,
                }
            }
            None => Place::Unknown,
        }
    }

    /// Whether this node knows that another node than `node` leads the database.
    pub(super) fn is_led_elsewhere(&self, record: &DatabaseRecord, node: NodeId) -> bool {
        match self.locate(record) {
            Place::Here(_) => true,
            Place::At(leader) => leader != node,
            Place::Unknown => false,
        }
    }

    /// Ends when this node knows that another node than `node` leads the database; never without a replica here.
    pub(super) async fn led_elsewhere(&self, record: &DatabaseRecord, node: NodeId) {
        let Some(store) = self.cluster.store(record.id) else { return std::future::pending().await };
        let mut authority = store.authority();
        let elsewhere = |authority: &Authority| match authority {
            Authority::Here { .. } => true,
            Authority::At(leader) => *leader != node,
            Authority::Unknown => false,
        };
        if authority.wait_for(elsewhere).await.is_err() {
            std::future::pending().await
        }
    }

    /// Ends when a batch at `node` need not be waited for: another node leads the database, and `node` does not answer.
    /// A node that goes on notices by itself that it leads no more, and says what became of the batch.
    pub(super) async fn deserted(&self, record: &DatabaseRecord, node: NodeId) {
        let Some(peer) = &self.peer else { return std::future::pending().await };
        loop {
            self.led_elsewhere(record, node).await;
            // The answer may be on its way.
            self.env.sleep(RETRY_PAUSE).await;
            // Asks to end what a session does that there never was.
            let key = SessionKey { incarnation: self.cluster.incarnation(), session: self.next_session() };
            if peer.cancel(node, key, self.env.now() + SIGN_WAIT).await.is_err() {
                return;
            }
            self.env.sleep(SIGN_INTERVAL).await;
        }
    }

    /// One of the nodes that have a replica of the database now, another one each turn.
    pub(super) fn replica(&self, record: &DatabaseRecord, turn: usize) -> Option<NodeId> {
        let system = self.cluster.system();
        let replicas = &system.databases.get(&record.id).unwrap_or(record).replicas;
        replicas.get(turn % replicas.len().max(1)).copied()
    }

    /// Asks whoever leads the database for the fate of a commit until it is known or the time is over; `since` is a
    /// version from before it.
    pub(super) async fn outcome(
        &self,
        record: &DatabaseRecord,
        request: RequestId,
        since: Version,
    ) -> Learnt {
        let deadline = self.env.now() + OUTCOME_WAIT;
        let mut turn = 0;
        while self.env.now() < deadline {
            let answer = match self.locate(record) {
                Place::Here(store) => match self.env.timeout_at(deadline, store.fate(request, since)).await {
                    Ok(Ok(Fate::Committed(_))) => Learnt::Committed,
                    Ok(Ok(Fate::Aborted)) => Learnt::NotCommitted,
                    Ok(Ok(Fate::Forgotten)) => Learnt::Forgotten,
                    Ok(Err(_)) | Err(_) => Learnt::Nothing,
                },
                Place::At(node) => {
                    let asked = async {
                        tokio::select! {
                            biased;
                            answer = self.outcome_at(node, record, (request, since), deadline) => answer,
                            // Whoever leads by now is asked next.
                            () = self.led_elsewhere(record, node) => None,
                        }
                    };
                    self.env.timeout_at(deadline, asked).await.ok().flatten().unwrap_or(Learnt::Nothing)
                }
                // A node without a replica asks those that have one in turn.
                Place::Unknown if self.cluster.store(record.id).is_none() => {
                    turn += 1;
                    let node = self.replica(record, turn);
                    let limit = deadline.min(self.env.now() + ASK_WAIT);
                    match node.map(|node| self.outcome_at(node, record, (request, since), limit)) {
                        Some(asked) => self.env.timeout_at(limit, asked).await.ok().flatten(),
                        None => None,
                    }
                    .unwrap_or(Learnt::Nothing)
                }
                Place::Unknown => Learnt::Nothing,
            };
            if answer != Learnt::Nothing {
                return answer;
            }
            self.env.sleep(RETRY_PAUSE).await;
        }
        Learnt::Nothing
    }

    async fn outcome_at(
        &self,
        node: NodeId,
        record: &DatabaseRecord,
        (request, since): (RequestId, Version),
        deadline: Instant,
    ) -> Option<Learnt> {
        let peer = self.peer.as_ref()?;
        let context = SessionContext { database: record.name.clone(), ..SessionContext::default() };
        let key = SessionKey { incarnation: self.cluster.incarnation(), session: self.next_session() };
        let open = SessionOpen { group: record.group, key, context: context.encode() };
        let mut remote = peer.open(node, open, deadline).await.ok()?;
        for frame in (RequestFrame::Outcome { request, since }).encode() {
            remote.requests.send(frame).await.ok()?;
        }
        match ResponseFrame::decode(remote.responses.recv().await?.ok()?).ok()? {
            ResponseFrame::Outcome { committed: Some(true) } => Some(Learnt::Committed),
            ResponseFrame::Outcome { committed: Some(false) } => Some(Learnt::NotCommitted),
            ResponseFrame::Outcome { committed: None } => Some(Learnt::Forgotten),
            _ => None,
        }
    }
}

/// What was learnt of the fate of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learnt {
    Committed,
    /// And never will be.
    NotCommitted,
    /// It is too long ago: nobody will ever know.
    Forgotten,
    /// Nobody could be asked in time.
    Nothing,
}

impl Learnt {
    /// [`None`] when that is not known.
    pub(super) const fn is_committed(self) -> Option<bool> {
        match self {
            Self::Committed => Some(true),
            Self::NotCommitted => Some(false),
            Self::Forgotten | Self::Nothing => None,
        }
    }
}

/// Where a database is led.
pub(super) enum Place {
    Here(KvStore),
    At(NodeId),
    Unknown,
}
