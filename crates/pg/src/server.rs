//! The listener: accepts connections, counts them, and ends them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ring::rand::SecureRandom as _;
use rustydb_env::{Env, TaskGroup};
use rustydb_sql::gateway::Gateway;
use rustydb_sql::session::executor::Executor;
use rustydb_sql::session::interrupt::Interrupts;
use tokio::net::TcpListener;

use crate::access::AccessRule;
use crate::connection;
use crate::metrics::Metrics;
use crate::scram;
use crate::tls::TlsIdentity;

/// Limits and rules of the front end.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Most connections at a time.
    pub connection_count_max: usize,
    /// How many of these are kept for superusers.
    pub superuser_count_reserved: usize,
    /// Largest message of a client that is logged in; a larger one ends the connection.
    pub message_size_max: usize,
    /// Longest time from connecting to being logged in.
    pub authentication_timeout: Duration,
    /// Settings that sessions begin with, before the client's own.
    pub settings: Vec<(String, String)>,
    /// Who may connect.
    pub rules: Vec<AccessRule>,
    /// Certificate and key; without them TLS is not offered.
    pub tls: Option<TlsIdentity>,
}

/// What all connections share.
pub(crate) struct Shared<E: Executor> {
    pub(crate) env: Env,
    pub(crate) config: ServerConfig,
    pub(crate) gateway: Arc<Gateway<E>>,
    pub(crate) metrics: Arc<Metrics>,
    /// Connections by the number that clients know them by, with their secrets. As many as there are connections.
    pub(crate) sessions: Mutex<BTreeMap<u32, (u32, Arc<Interrupts>)>>,
    /// Connections that are open.
    pub(crate) open: AtomicUsize,
    /// From which salts for unknown roles are made.
    pub(crate) mock_secret: [u8; 32],
}

/// A running front end.
pub struct Server<E: Executor> {
    shared: Arc<Shared<E>>,
    tasks: TaskGroup,
}

impl<E: Executor> Server<E> {
    /// Serves clients of a listener until [`Server::shutdown`].
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn start(
        env: &Env,
        config: ServerConfig,
        listener: TcpListener,
        gateway: Arc<Gateway<E>>,
    ) -> Result<Self, scram::ScramError> {
        let mut mock_secret = [0; 32];
        ring::rand::SystemRandom::new().fill(&mut mock_secret).map_err(|_| scram::ScramError::Random)?;
        let shared = Arc::new(Shared {
            env: env.clone(),
            config,
            gateway,
            metrics: Arc::default(),
            sessions: Mutex::default(),
            open: AtomicUsize::new(0),
            mock_secret,
        });
        let tasks = TaskGroup::new(env);
        tasks.spawn("pg-accept", accept(Arc::clone(&shared), listener, tasks.clone()));
        Ok(Self { shared, tasks })
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// Ends all sessions with 57P01, then what is left.
    pub async fn shutdown(&self, deadline: Duration) {
        for (_, interrupts) in self.shared.sessions.lock().values() {
            interrupts.terminate();
        }
        self.tasks.shutdown(deadline).await;
    }
}

async fn accept<E: Executor>(shared: Arc<Shared<E>>, listener: TcpListener, tasks: TaskGroup) {
    let stopping = tasks.stopping();
    loop {
        tokio::select! {
            biased;
            () = stopping.wait() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    shared.metrics.connections_total.add(1);
                    // Beyond twice the limit not even the refusal is served: half-open connections are bounded too.
                    if shared.open.load(Ordering::SeqCst) >= shared.config.connection_count_max.saturating_mul(2) {
                        shared.metrics.connections_refused_total.add(1);
                        continue;
                    }
                    let _nodelay = stream.set_nodelay(true);
                    tasks.spawn("pg-connection", connection::serve(Arc::clone(&shared), stream, address));
                }
                // Out of file descriptors, most likely: the listener stays, so try again when some are free.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    shared.env.sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}
