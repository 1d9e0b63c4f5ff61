//! The cluster as SQL sessions see it: [`ClusterPort`] over this node.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rustydb_pg::access::{AccessRule, AddressRange, Method};
use rustydb_pg::scram::Verifier;
use rustydb_sql::error::{SqlError, SqlState};
use rustydb_sql::gateway::ClusterPort;
use rustydb_sql::system::{DatabaseState, SystemCommand, SystemSnapshot};
use rustydb_txn::KvStore;
use rustydb_types::ids::{DatabaseId, Incarnation, NodeId};

use super::Inner;
use super::reconcile::REPLICAS_MAX;
use super::system::SystemRefusal;
use crate::config::{AuthConfig, AuthMethod};

/// Longest wait until a command's effect is seen here.
const VISIBLE: Duration = Duration::from_secs(30);

impl ClusterPort for Inner {
    fn node(&self) -> NodeId {
        self.me
    }

    fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    fn system(&self) -> Arc<SystemSnapshot> {
        self.system.latest()
    }

    fn store(&self, database: DatabaseId) -> Option<KvStore> {
        let group = self.system.latest().databases.get(&database)?.group;
        self.databases.store(group)
    }

    fn placement(&self) -> Vec<NodeId> {
        self.system.latest().staying().take(REPLICAS_MAX).collect()
    }

    fn execute_system(&self, command: SystemCommand) -> BoxFuture<'_, Result<(), SqlError>> {
        async move {
            Inner::execute_system(self, &command).await.map_err(|refusal| refused(&refusal))?;
            let seen = self.wait_for(VISIBLE, "the change to be seen here", |node| {
                let recorded = node.system.latest();
                match &command {
                    SystemCommand::CreateDatabase { name, .. } => recorded
                        .database_named(name)
                        .is_some_and(|database| database.state == DatabaseState::Ready),
                    SystemCommand::DropDatabase { name } => recorded.database_named(name).is_none(),
                    // What is carried out changes nothing when it is decided again.
                    other => other.decide(&recorded).map_or(true, |changes| changes.is_empty()),
                }
            });
            seen.await.map_err(|status| SqlError::new(SqlState::CANNOT_CONNECT_NOW, status.message()))?;
            self.show_to_all().await;
            Ok(())
        }
        .boxed()
    }

    fn password_verifier(&self, password: &str) -> Result<String, SqlError> {
        if Verifier::is_verifier(password) {
            return Ok(password.to_owned());
        }
        self.verifier(password).map_err(|error| SqlError::new(SqlState::INTERNAL_ERROR, error.to_string()))
    }
}

fn refused(refusal: &SystemRefusal) -> SqlError {
    match refusal {
        SystemRefusal::NotLeader => SqlError::new(SqlState::CANNOT_CONNECT_NOW, refusal.to_string()),
        SystemRefusal::Refused { sqlstate, message } => {
            let state = SqlState::from_code(sqlstate);
            SqlError::new(state, message.clone())
        }
    }
}

/// The configured rules in the front end's form.
pub(crate) fn access_rules(config: &AuthConfig) -> Vec<AccessRule> {
    let some = |name: &String| Some(name.clone()).filter(|name| name != "all");
    let rule = |rule: &crate::config::AuthRule| AccessRule {
        from: match rule.network() {
            Some((address, prefix)) => AddressRange::Network { address, prefix },
            None => AddressRange::All,
        },
        role: some(&rule.role),
        database: some(&rule.database),
        tls_only: rule.tls,
        method: match rule.method {
            AuthMethod::Trust => Method::Trust,
            AuthMethod::ScramSha256 => Method::Scram,
            AuthMethod::Reject => Method::Reject,
        },
    };
    config.rules.iter().map(rule).collect()
}
