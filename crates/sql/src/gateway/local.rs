//! The gateway of a node: makes sessions, knows where databases are led, and asks there for the fate of commits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustydb_env::{Env, Instant};
use rustydb_txn::{Authority, KvStore, Outcome};
use rustydb_types::ids::{DatabaseId, NodeId, RequestId, SessionId, Version};

use super::cluster::ClusterPort;
use super::frame::{RequestFrame, ResponseFrame, SessionContext};
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
    next_session: AtomicU64,
    /// The sessions that run here, of this node's clients and of others'.
    activities: Arc<Activities>,
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
            next_session: AtomicU64::new(1),
            activities: Arc::default(),
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
        let executor = {
            let system = self.cluster.system();
            let mut executors = self.executors.lock();
            executors.retain(|id, _| system.databases.contains_key(id));
            Arc::clone(executors.entry(record.id).or_insert_with(|| (self.make_executor)(record, &store)))
        };
        let resolver: OutcomeResolver = {
            let (gateway, record) = (Arc::clone(self), record.clone());
            Arc::new(move |request| {
                let (gateway, record) = (Arc::clone(&gateway), record.clone());
                Box::pin(async move { gateway.outcome(&record, request).await })
            })
        };
        let parts = SessionParts {
            env: self.env.clone(),
            cluster: Arc::clone(&self.cluster),
            executor,
            resolver,
            store,
            database: record.id,
            key,
            interrupts,
            activities: Arc::clone(&self.activities),
        };
        Session::new(parts, context)
    }

    /// The version of a database up to which everything is applied here; zero without a replica.
    pub(super) fn applied(&self, record: &DatabaseRecord) -> Version {
        self.cluster.store(record.id).map_or(Version::ZERO, |store| store.applied())
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

    /// Asks whoever leads the database for the fate of a commit until it is known or the time is over.
    pub(super) async fn outcome(&self, record: &DatabaseRecord, request: RequestId) -> Option<bool> {
        let deadline = self.env.now() + OUTCOME_WAIT;
        while self.env.now() < deadline {
            let answer = match self.locate(record) {
                Place::Here(store) => match self.env.timeout_at(deadline, store.outcome(request)).await {
                    Ok(Ok(Outcome::Committed(_))) => Some(true),
                    Ok(Ok(Outcome::NotCommitted)) => Some(false),
                    Ok(Err(_)) | Err(_) => None,
                },
                Place::At(node) => {
                    let asked = async {
                        tokio::select! {
                            biased;
                            answer = self.outcome_at(node, record, request, deadline) => answer,
                            // Whoever leads by now is asked next.
                            () = self.led_elsewhere(record, node) => None,
                        }
                    };
                    self.env.timeout_at(deadline, asked).await.ok().flatten()
                }
                Place::Unknown => None,
            };
            if answer.is_some() {
                return answer;
            }
            self.env.sleep(RETRY_PAUSE).await;
        }
        None
    }

    async fn outcome_at(
        &self,
        node: NodeId,
        record: &DatabaseRecord,
        request: RequestId,
        deadline: Instant,
    ) -> Option<bool> {
        let peer = self.peer.as_ref()?;
        let context = SessionContext { database: record.name.clone(), ..SessionContext::default() };
        let key = SessionKey { incarnation: self.cluster.incarnation(), session: self.next_session() };
        let open = SessionOpen { group: record.group, key, context: context.encode() };
        let mut remote = peer.open(node, open, deadline).await.ok()?;
        for frame in RequestFrame::Outcome(request).encode() {
            remote.requests.send(frame).await.ok()?;
        }
        match ResponseFrame::decode(remote.responses.recv().await?.ok()?).ok()? {
            ResponseFrame::Outcome { committed } => Some(committed),
            _ => None,
        }
    }
}

/// Where a database is led.
pub(super) enum Place {
    Here(KvStore),
    At(NodeId),
    Unknown,
}
