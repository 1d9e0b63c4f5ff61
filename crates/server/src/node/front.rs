//! The PostgreSQL front end of a node: its listener, its gateway, the executors of its databases, and the host of
//! sessions whose clients are connected to other nodes.

use std::net::TcpListener as StdListener;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use rustydb_env::Env;
use rustydb_interconnect::{SessionClient, SessionHost};
use rustydb_pg::{Server, ServerConfig};
use rustydb_sql::catalog::virtual_table::VirtualRegistry;
use rustydb_sql::exec::Database;
use rustydb_sql::exec::service::SqlExecutor;
use rustydb_sql::gateway::{
    ClusterPort, Gateway, Host, RemoteSession, SessionClosed, SessionKey, SessionOpen,
};
use tokio::net::TcpListener;

use super::{Inner, NodeError, cluster_port, tls};
use crate::config::Config;
use crate::config::units::TimeSpan;

/// Connections that are kept for superusers, so that an operator gets in when clients have taken all others.
const RESERVED_FOR_SUPERUSERS: usize = 3;

/// The front end as a node keeps it.
pub(super) type Front = Server<SqlExecutor>;

/// Runs sessions for the gateways of other nodes.
pub(super) struct SessionsOfOthers(Host<SqlExecutor>);

impl SessionsOfOthers {
    /// No more than this node takes from clients of its own, for each of the other nodes of a cluster of seven.
    pub(super) fn new(env: &Env, gateway: Arc<Gateway<SqlExecutor>>, config: &Config) -> Self {
        const OTHER_NODES_MAX: usize = 6;
        Self(Host::new(env.clone(), gateway, config.session.max_connections * OTHER_NODES_MAX))
    }

    /// Takes no more sessions and ends those that are open.
    pub(super) fn stop(&self) {
        self.0.stop();
    }
}

impl SessionHost for SessionsOfOthers {
    fn open(&self, open: SessionOpen) -> BoxFuture<'_, Result<RemoteSession, SessionClosed>> {
        self.0.open(open)
    }

    fn cancel(&self, key: SessionKey) -> bool {
        self.0.cancel(key)
    }
}

fn server_config(config: &Config) -> Result<ServerConfig, NodeError> {
    let session = &config.session;
    let milliseconds = |name: &str, span: TimeSpan| (name.to_owned(), span.get().as_millis().to_string());
    Ok(ServerConfig {
        connection_count_max: session.max_connections,
        superuser_count_reserved: RESERVED_FOR_SUPERUSERS.min(session.max_connections / 2),
        message_size_max: usize::try_from(session.max_message_size.get()).unwrap_or(usize::MAX),
        authentication_timeout: session.authentication_timeout.get(),
        settings: vec![
            milliseconds("idle_session_timeout", session.idle_session_timeout),
            milliseconds("idle_in_transaction_session_timeout", session.idle_in_transaction_session_timeout),
            milliseconds("statement_timeout", session.statement_timeout),
            milliseconds("lock_timeout", session.lock_timeout),
        ],
        rules: cluster_port::access_rules(&config.auth),
        tls: tls::postgres(&config.tls)?,
    })
}

/// The gateway of a node: one executor per database, made when its first session comes.
pub(super) fn gateway(env: &Env, node: &Arc<Inner>, peer: SessionClient) -> Arc<Gateway<SqlExecutor>> {
    let virtuals = Arc::new(VirtualRegistry::builtin());
    let memory = Arc::clone(&node.work_memory);
    let (executors_env, executors_node) = (env.clone(), Arc::clone(node));
    let make = Box::new(move |_record: &_, store: &rustydb_txn::KvStore| {
        let life = executors_env.rng().u64();
        let database = Database::new(store.clone(), Arc::clone(&virtuals), life, Arc::clone(&memory));
        let system = Arc::clone(&executors_node);
        let source = Arc::new(move || ClusterPort::system(&*system));
        Arc::new(SqlExecutor::new(database, source, executors_env.clone()))
    });
    let cluster = Arc::clone(node) as Arc<dyn ClusterPort>;
    Arc::new(Gateway::new(env.clone(), cluster, make).with_peer(Arc::new(peer)))
}

/// Serves PostgreSQL clients on the runtime of `env`.
pub(super) async fn serve(
    env: &Env,
    gateway: Arc<Gateway<SqlExecutor>>,
    config: &Config,
    listener: StdListener,
) -> Result<Front, NodeError> {
    let server_config = server_config(config)?;
    let fatal = |reason: String| NodeError::Fatal { reason };
    let runtime = env.clone();
    // The listener belongs to the runtime on which it is served.
    env.spawn("postgres listener", async move {
        let listener = TcpListener::from_std(listener).map_err(NodeError::Listen)?;
        Server::start(&runtime, server_config, listener, gateway).map_err(|error| fatal(error.to_string()))
    })
    .await
    .map_err(|error| fatal(error.to_string()))?
}
