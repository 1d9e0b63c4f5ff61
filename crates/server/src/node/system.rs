//! The system group as this node sees it, and how it is changed.
//!
//! Every node holds a replica; [`SystemView`] reads it after every change and hands out an immutable snapshot.
//! A command is carried out at the leader: read everything, decide, write, as one serializable transaction.

use std::sync::Arc;
use std::time::Duration;

use rustydb_env::sync::watch;
use rustydb_sql::system::{SystemCommand, SystemSnapshot};

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SystemRefusal {
    /// Another node must be asked.
    #[error("this node does not lead the system group")]
    NotLeader,
    /// It must not be carried out, or it failed.
    #[error("{message}")]
    Refused {
        /// PostgreSQL's code for it.
        sqlstate: String,
        /// Why.
        message: String,
    },
}

impl SystemRefusal {
    pub(crate) fn refused(sqlstate: &str, message: impl Into<String>) -> SystemRefusal {
        SystemRefusal::Refused { sqlstate: sqlstate.to_owned(), message: message.into() }
    }
}

/// Longest time that a change of the system group may take before its caller is told that it failed.
pub(crate) const EXECUTE_DEADLINE: Duration = Duration::from_secs(15);

/// The latest snapshot of the system group on this node.
#[derive(Debug)]
pub(crate) struct SystemView {
    sender: watch::Sender<Arc<SystemSnapshot>>,
}

impl SystemView {
    pub(crate) fn new() -> SystemView {
        SystemView { sender: watch::channel(Arc::default()).0 }
    }

    /// What the local replica says now.
    pub(crate) fn latest(&self) -> Arc<SystemSnapshot> {
        self.sender.borrow().clone()
    }

    /// Takes in a newer snapshot.
    pub(crate) fn replace(&self, snapshot: SystemSnapshot) {
        self.sender.send_if_modified(|present| {
            let changed = **present != snapshot;
            if changed {
                *present = Arc::new(snapshot);
            }
            changed
        });
    }

    /// Told of every change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<SystemSnapshot>> {
        self.sender.subscribe()
    }
}

/// A command as it travels to the leader.
pub(crate) fn encode(command: &SystemCommand) -> Result<bytes::Bytes, SystemRefusal> {
    serde_json::to_vec(command)
        .map(bytes::Bytes::from)
        .map_err(|error| SystemRefusal::refused("XX000", error.to_string()))
}
