//! Sessions of clients whose database this node leads: the gateway calls the session directly.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustydb_env::{Env, Instant};
use rustydb_txn::{Authority, KvStore, Outcome};
use rustydb_types::ids::{DatabaseId, RequestId, SessionId};

use super::cluster::ClusterPort;
use super::frame::SessionContext;
use super::peer::SessionKey;
use crate::error::{SqlError, SqlState};
use crate::session::core::{OutcomeResolver, Session, SessionParts};
use crate::session::executor::Executor;
use crate::session::interrupt::Interrupts;
use crate::system::{DatabaseRecord, DatabaseState};

/// How long a client waits for a leader of its database.
pub const LEADER_WAIT: Duration = Duration::from_secs(10);

/// How long the fate of a commit is asked for.
const OUTCOME_WAIT: Duration = Duration::from_secs(10);

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
}

impl<E: Executor> Gateway<E> {
    /// The gateway of a node.
    #[must_use]
    pub fn new(env: Env, cluster: Arc<dyn ClusterPort>, make_executor: MakeExecutor<E>) -> Self {
        Self { env, cluster, make_executor, executors: Mutex::default(), next_session: AtomicU64::new(1) }
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
        &self,
        number: SessionId,
        context: &SessionContext,
        interrupts: Arc<Interrupts>,
    ) -> Result<Session<E>, SqlError> {
        let system = self.cluster.system();
        let record = system.database_named(&context.database).ok_or_else(|| {
            SqlError::new(
                SqlState::INVALID_CATALOG_NAME,
                format!("database \"{}\" does not exist", context.database),
            )
        })?;
        if record.state != DatabaseState::Ready {
            return Err(SqlError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("database \"{}\" is not ready", context.database),
            ));
        }
        let store = self.leading_store(record).await?;
        let executor = {
            let mut executors = self.executors.lock();
            executors.retain(|id, _| system.databases.contains_key(id));
            Arc::clone(executors.entry(record.id).or_insert_with(|| (self.make_executor)(record, &store)))
        };
        let parts = SessionParts {
            env: self.env.clone(),
            cluster: Arc::clone(&self.cluster),
            executor,
            resolver: resolver(self.env.clone(), store.clone()),
            store,
            database: record.id,
            key: SessionKey { incarnation: self.cluster.incarnation(), session: number },
            interrupts,
        };
        Session::new(parts, context)
    }

    /// The database's store, once this node leads it.
    async fn leading_store(&self, record: &DatabaseRecord) -> Result<KvStore, SqlError> {
        let deadline = self.env.now() + LEADER_WAIT;
        let nobody = || {
            SqlError::new(
                SqlState::CANNOT_CONNECT_NOW,
                format!("no leader of database \"{}\" can be reached from this node", record.name),
            )
            .with_hint("Try again, or connect to another node.")
        };
        let store = self.cluster.store(record.id).ok_or_else(nobody)?;
        let mut authority = store.authority();
        loop {
            if matches!(*authority.borrow_and_update(), Authority::Here { .. }) {
                return Ok(store);
            }
            match self.env.timeout_at(deadline, authority.changed()).await {
                Ok(Ok(())) => {}
                _ => return Err(nobody()),
            }
        }
    }
}

/// Asks the store for the fate of a commit until it is known or the time is over.
fn resolver(env: Env, store: KvStore) -> OutcomeResolver {
    Arc::new(move |request: RequestId| {
        let (env, store) = (env.clone(), store.clone());
        Box::pin(async move {
            let deadline: Instant = env.now() + OUTCOME_WAIT;
            while env.now() < deadline {
                match env.timeout_at(deadline, store.outcome(request)).await {
                    Ok(Ok(Outcome::Committed(_))) => return Some(true),
                    Ok(Ok(Outcome::NotCommitted)) => return Some(false),
                    Ok(Err(_)) => env.sleep(Duration::from_millis(50)).await,
                    Err(_) => return None,
                }
            }
            None
        })
    })
}
