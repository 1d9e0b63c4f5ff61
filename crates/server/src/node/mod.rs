//! A running node: its groups, its ports, and what keeps them in order.
//!
//! ```text
//!   pg clients          other nodes, rustydb-cli          Prometheus
//!       |                        |                            |
//!  pg server (sql)      gRPC (consensus): raft,           HTTP (sql)
//!       |               sessions, admin                       |
//!       '---- gateway ---- cluster port ---- groups ---- status
//!                               |               |
//!                          system view <--- reconcile loop
//! ```
//!
//! The words in parentheses are runtimes: consensus, its log and its network have one of their own, so that a
//! heavy query never costs an election.

mod act;
mod addresses;
mod admin;
mod audit;
mod cluster_port;
mod databases;
mod front;
pub mod http;
mod membership;
pub mod reconcile;
mod records;
mod removal;
mod replicas;
mod start;
mod status;
mod system;
mod tls;
mod watch;

pub(crate) use tls::problems as certificate_problems;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustydb_env::sync::Signal;
use rustydb_env::{Env, Instant, TaskGroup};
use rustydb_interconnect::ClusterIdentity;
use rustydb_proto::v1::{ExecuteSystemRequest, execute_system_response};
use rustydb_sql::memory::WorkMemory;
use rustydb_sql::system::{NodeRecord, SystemCommand};
use rustydb_types::ids::{GroupId, Incarnation, NodeId};
use tokio::sync::Notify;
use tonic::Status;
use tonic::transport::{ClientTlsConfig, Endpoint};

use crate::config::Config;
use crate::identity::{DataFolder, IdentityError, Part};
use crate::memory::MemoryPlan;
use addresses::Addresses;
use databases::Databases;
use membership::MemberClient;
use replicas::Replicas;
use system::{EXECUTE_DEADLINE, SystemRefusal, SystemView};

/// The two worlds that a node's tasks run in.
#[derive(Debug, Clone)]
pub struct Environments {
    /// Consensus, its log and its network.
    pub consensus: Env,
    /// SQL.
    pub sql: Env,
}

/// The ports, bound before anything else so that a port in use is found first.
#[derive(Debug)]
pub struct Listeners {
    /// For PostgreSQL clients.
    pub postgres: TcpListener,
    /// For other nodes and the CLI.
    pub interconnect: TcpListener,
    /// For health and metrics.
    pub http: TcpListener,
}

/// Why a node cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The data folder cannot be used.
    #[error("{}", with_source(.0))]
    Identity(#[from] IdentityError),
    /// The log cannot be opened.
    #[error("the log: {0}")]
    Log(#[from] rustydb_storage::log::LogError),
    /// A group cannot be opened or changed.
    #[error(transparent)]
    Consensus(#[from] rustydb_consensus::ConsensusError),
    /// There is no such group here.
    #[error("no group {group} here")]
    NoGroup {
        /// The group.
        group: GroupId,
    },
    /// A certificate or key cannot be used.
    #[error("{key}: {}: {reason}", path.display())]
    Certificate {
        /// The configuration key.
        key: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        reason: String,
    },
    /// The data folder is of another cluster than the configured members.
    #[error(
        "data folder {} belongs to cluster {own}, but the node at {place} belongs to cluster {theirs}",
        dir.display()
    )]
    ForeignData {
        /// The folder.
        dir: std::path::PathBuf,
        /// Its cluster.
        own: String,
        /// A place of `cluster.peers` or `cluster.join`.
        place: String,
        /// The cluster of the node there.
        theirs: String,
    },
    /// A listener cannot be used.
    #[error("a port cannot be listened on: {0}")]
    Listen(std::io::Error),
    /// A change of the system group did not take place.
    #[error("the cluster's records: {reason}")]
    System {
        /// Why.
        reason: String,
    },
    /// Something failed that the node cannot go on without.
    #[error("{reason}")]
    Fatal {
        /// What.
        reason: String,
    },
}

fn with_source(error: &IdentityError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// What the parts of a node share.
pub(crate) struct Inner {
    env: Env,
    me: NodeId,
    incarnation: Incarnation,
    starts: u64,
    started: Instant,
    config: Config,
    memory: MemoryPlan,
    /// What all statements take from it.
    work_memory: Arc<WorkMemory>,
    log: rustydb_storage::log::Log,
    folder: Mutex<DataFolder>,
    cluster: ClusterIdentity,
    system: SystemView,
    replicas: Replicas,
    databases: Arc<Databases>,
    addresses: Addresses,
    /// The lives of nodes that sessions are of, once there is a gateway.
    lives: std::sync::OnceLock<Arc<rustydb_sql::gateway::Lives>>,
    /// What the PostgreSQL front end counts, once it serves.
    front_counts: std::sync::OnceLock<Arc<rustydb_pg::metrics::Metrics>>,
    tls: Option<ClientTlsConfig>,
    /// Connections to the admin service of other nodes, by address. As many as there are addresses.
    clients: Mutex<BTreeMap<String, MemberClient>>,
    /// Which member did not take this node in when it asked last, and why.
    refused_by: Mutex<Option<String>>,
    /// Commands on the system group are decided one at a time.
    executing: tokio::sync::Mutex<()>,
    /// Nodes are removed one at a time.
    removing: tokio::sync::Mutex<()>,
    /// This node was removed from its cluster.
    dismissed: Signal,
    wake: Notify,
    stopping: Signal,
}

/// A running node.
pub struct Node {
    inner: Arc<Inner>,
    peers: rustydb_interconnect::Peers,
    log: rustydb_storage::log::Log,
    tasks: Arc<TaskGroup>,
    sql_tasks: TaskGroup,
    front: front::Front,
    host: Arc<front::SessionsOfOthers>,
}

impl Node {
    /// Starts a node: locks its data, reads its log again, opens its groups, serves its ports.
    ///
    /// # Errors
    /// The data folder is not this node's, or something that it needs cannot be opened.
    pub async fn start(
        environments: Environments,
        config: Config,
        listeners: Listeners,
    ) -> Result<Node, NodeError> {
        start::start(environments, config, listeners).await
    }

    /// Ends when the node must not go on, with the reason.
    pub async fn failed(&self) -> NodeError {
        NodeError::Fatal { reason: self.inner.replicas.groups().failed().await.to_string() }
    }

    /// Ends when the node was removed from its cluster. Its folder says so by then, and it is to be shut down.
    pub async fn dismissed(&self) {
        self.inner.dismissed.wait().await;
    }

    /// Hands over leaderships, ends sessions, stops everything. Each step has a part of the deadline.
    pub async fn shutdown(self, deadline: Duration) {
        let part = deadline / 4;
        self.inner.stopping.set();
        // Leaders go first, so that other nodes serve while this one still ends its sessions.
        self.inner.replicas.groups().shutdown(part).await;
        tracing::debug!("groups ended");
        self.host.stop();
        self.front.shutdown(part).await;
        tracing::debug!("sessions ended");
        self.sql_tasks.shutdown(part).await;
        tracing::debug!("HTTP ended");
        self.peers.shutdown(part).await;
        tracing::debug!("connections to peers ended");
        self.tasks.shutdown(part).await;
        tracing::debug!("the interconnect ended");
        // What was submitted is written before the process ends.
        let closed = self.inner.env.timeout(part, self.log.close()).await;
        if closed.is_err() {
            tracing::warn!("the log did not close in time");
        }
    }
}

impl Inner {
    pub(crate) fn cluster_id(&self) -> Option<String> {
        self.cluster.get()
    }

    pub(crate) fn is_founder(&self) -> bool {
        self.folder.lock().is_founder()
    }

    /// This node's record, as it should be.
    pub(crate) fn own_record(&self) -> NodeRecord {
        let listen = &self.config.listen;
        NodeRecord {
            id: self.me,
            name: format!("node-{}", self.me),
            pg_address: listen.advertised(&listen.postgres),
            interconnect_address: listen.advertised(&listen.interconnect),
            http_address: listen.advertised(&listen.http),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            labels: BTreeMap::new(),
            leaving: false,
        }
    }

    /// Makes this node the founder of a new cluster, or says which one it founded already.
    pub(crate) fn found_cluster(&self) -> Result<String, IdentityError> {
        let mut folder = self.folder.lock();
        let id = match folder.cluster_id() {
            // A founder that was cut short goes on; one whose cluster is formed is refused by its caller.
            Some(present) if folder.is_founder() => present.to_owned(),
            Some(present) => {
                return Err(IdentityError::Member { node: self.me.get(), cluster: present.to_owned() });
            }
            None => uuid::Uuid::new_v4().to_string(),
        };
        folder.adopt(&id, Part::Founder)?;
        self.cluster.set(&id);
        Ok(id)
    }

    pub(crate) fn join_cluster(&self, id: &str) -> Result<(), IdentityError> {
        self.folder.lock().adopt(id, Part::Joiner)?;
        self.cluster.set(id);
        Ok(())
    }

    pub(crate) fn reconcile_now(&self) {
        self.wake.notify_one();
    }

    /// Waits until something holds, looking again often.
    pub(crate) async fn wait_for(
        &self,
        patience: Duration,
        what: &str,
        holds: impl Fn(&Inner) -> bool,
    ) -> Result<(), Status> {
        const LOOK_AGAIN: Duration = Duration::from_millis(10);
        let deadline = self.env.now() + patience;
        while !holds(self) {
            if self.env.now() >= deadline {
                return Err(Status::deadline_exceeded(format!("waited {patience:?} in vain for {what}")));
            }
            self.env.sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// What is stored of a password.
    pub(crate) fn verifier(&self, password: &str) -> Result<String, rustydb_pg::scram::ScramError> {
        rustydb_pg::scram::Verifier::from_password(password, rustydb_pg::scram::ITERATIONS_DEFAULT)
            .map(|verifier| verifier.to_string())
    }

    /// A client of the admin service at an address; connections are kept.
    pub(crate) async fn admin_client(&self, address: &str) -> Result<MemberClient, String> {
        if let Some(client) = self.clients.lock().get(address) {
            return Ok(client.clone());
        }
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
            .map_err(|error| error.to_string())?
            .connect_timeout(Duration::from_secs(1))
            .timeout(Duration::from_secs(60));
        if let Some(tls) = &self.tls {
            endpoint = endpoint.tls_config(tls.clone()).map_err(|error| error.to_string())?;
        }
        // It connects when it is first used, and again after the other side was away.
        let client = MemberClient::new(endpoint.connect_lazy());
        self.clients.lock().insert(address.to_owned(), client.clone());
        Ok(client)
    }

    /// A client of the node that leads a group, unless that is this node.
    pub(crate) async fn other_leader(&self, group: u64) -> Result<Option<MemberClient>, Status> {
        let group = GroupId::new(group);
        if self.replicas.leads(group) {
            return Ok(None);
        }
        let Some(leader) = self.replicas.leader(group).filter(|leader| *leader != self.me) else {
            return if self.cluster_id().is_none() {
                Ok(None)
            } else {
                Err(Status::unavailable(format!("group {group} has no leader now")))
            };
        };
        let recorded = self.system.latest();
        let Some(record) = recorded.nodes.get(&leader) else {
            return Err(Status::unavailable(format!("node {leader} is not known here yet")));
        };
        self.admin_client(&record.interconnect_address).await.map(Some).map_err(Status::unavailable)
    }

    pub(crate) async fn other_system_leader(&self) -> Result<Option<MemberClient>, Status> {
        self.other_leader(GroupId::SYSTEM.get()).await
    }

    /// Whether another node answers, serves, and has room on its disk: whether it may lead.
    pub(crate) async fn is_fit_to_lead(&self, node: NodeId) -> bool {
        const PATIENCE: Duration = Duration::from_millis(500);
        let recorded = self.system.latest();
        let Some(record) = recorded.nodes.get(&node) else { return false };
        let Ok(mut client) = self.admin_client(&record.interconnect_address).await else { return false };
        let asked = client.node_status(rustydb_proto::v1::NodeStatusRequest {});
        let answer = self.env.timeout(PATIENCE, asked).await;
        let Ok(Ok(answer)) = answer else { return false };
        let status = answer.into_inner();
        status.ready && !status.disk_full
    }

    /// Carries out a command on the system group, here or at its leader, trying again while there is no leader.
    /// Commands may be repeated: one that was carried out twice is refused or changes nothing the second time.
    pub(crate) async fn execute_system(&self, command: &SystemCommand) -> Result<(), SystemRefusal> {
        const PAUSE: Duration = Duration::from_millis(50);
        let deadline = self.env.now() + EXECUTE_DEADLINE;
        loop {
            match self.execute_somewhere(command).await {
                Err(SystemRefusal::NotLeader) if self.env.now() < deadline => self.env.sleep(PAUSE).await,
                Err(SystemRefusal::NotLeader) => {
                    return Err(SystemRefusal::refused("57P03", "the system group has no leader now"));
                }
                outcome => return outcome,
            }
        }
    }

    async fn execute_somewhere(&self, command: &SystemCommand) -> Result<(), SystemRefusal> {
        let Ok(other) = self.other_system_leader().await else { return Err(SystemRefusal::NotLeader) };
        let Some(mut leader) = other else { return self.execute_here(command).await };
        let request = ExecuteSystemRequest { command: system::encode(command)? };
        let call = leader.execute_system(request);
        match self.env.timeout(EXECUTE_DEADLINE, call).await {
            Ok(Ok(answer)) => match answer.into_inner().result {
                Some(execute_system_response::Result::Error(error)) => {
                    Err(SystemRefusal::Refused { sqlstate: error.sqlstate, message: error.message })
                }
                _ => Ok(()),
            },
            Ok(Err(status)) if status.code() == tonic::Code::Unavailable => Err(SystemRefusal::NotLeader),
            Ok(Err(status)) => Err(SystemRefusal::refused("58000", status.message())),
            Err(_) => Err(SystemRefusal::NotLeader),
        }
    }
}

/// A node's own record with what others decide of it: the labels that operators gave it, and whether it is leaving.
pub(crate) fn with_marks_of(own: NodeRecord, present: &NodeRecord) -> NodeRecord {
    NodeRecord { labels: present.labels.clone(), leaving: present.leaving, ..own }
}
