//! The port through which sessions see the cluster they run in.
//!
//! Implemented by the server's node and by the simulator.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use rustydb_txn::KvStore;
use rustydb_types::ids::{DatabaseId, Incarnation, NodeId};

use crate::error::SqlError;
use crate::system::{SystemCommand, SystemSnapshot};

/// The cluster, as a session sees it from this node.
pub trait ClusterPort: Send + Sync + 'static {
    /// This node.
    fn node(&self) -> NodeId;

    /// This life of this node.
    fn incarnation(&self) -> Incarnation;

    /// What the system group says, as far as it is applied here. Cheap: called for every login and every statement
    /// that looks at roles or databases.
    fn system(&self) -> Arc<SystemSnapshot>;

    /// The store of a database, if this node holds a replica of it that is open.
    fn store(&self, database: DatabaseId) -> Option<KvStore>;

    /// The nodes that a new database is to be placed on.
    fn placement(&self) -> Vec<NodeId>;

    /// Executes a command at the leader of the system group, wherever that is. Returns when its effect is visible
    /// to [`ClusterPort::system`] here and at every node that answers in time, and for CREATE and DROP DATABASE when
    /// the database serves, or is gone. Gives up after a deadline of its own.
    ///
    /// # Errors
    /// The refusal with its SQLSTATE; 08007 when the outcome is not known; 57P03 when there is no leader.
    fn execute_system(&self, command: SystemCommand) -> BoxFuture<'_, Result<(), SqlError>>;

    /// The SCRAM verifier of a password, so that a password in clear goes no further than the session that reads
    /// it. A text that is a verifier already is kept.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    fn password_verifier(&self, password: &str) -> Result<String, SqlError>;
}
