//! The system group as this node sees it, and how it is changed.
//!
//! Every node holds a replica; [`SystemView`] reads it after every change and hands out an immutable snapshot.
//! A command is carried out at the leader: read everything, decide, write, as one serializable transaction.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use rustydb_env::sync::watch;
use rustydb_proto::v1::AwaitSystemRequest;
use rustydb_sql::system::{NodeRecord, SystemCommand, SystemSnapshot};
use rustydb_types::ids::Version;
use tonic::Status;

use super::Inner;

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

/// Longest time that a change of the system group waits for nodes that have not seen it.
const SHOWN: Duration = Duration::from_secs(1);

/// The latest snapshot of the system group on this node.
#[derive(Debug)]
pub(crate) struct SystemView {
    sender: watch::Sender<Arc<SystemSnapshot>>,
    /// The version of the group up to which the snapshot says everything.
    seen: watch::Sender<Version>,
    /// Snapshots are taken in one by one.
    replacing: Mutex<()>,
}

impl SystemView {
    pub(crate) fn new() -> SystemView {
        SystemView {
            sender: watch::channel(Arc::default()).0,
            seen: watch::channel(Version::ZERO).0,
            replacing: Mutex::new(()),
        }
    }

    /// What the local replica says now.
    pub(crate) fn latest(&self) -> Arc<SystemSnapshot> {
        self.sender.borrow().clone()
    }

    /// Takes in what was read at a version. An older reading than the present one is left aside.
    pub(crate) fn replace(&self, snapshot: SystemSnapshot, version: Version) {
        let _one = self.replacing.lock();
        if version < *self.seen.borrow() {
            return;
        }
        self.sender.send_if_modified(|present| {
            let changed = **present != snapshot;
            if changed {
                *present = Arc::new(snapshot);
            }
            changed
        });
        self.seen.send_if_modified(|seen| std::mem::replace(seen, version) != version);
    }

    /// A version that whoever has seen it has also seen all that [`Self::latest`] said before this call. A snapshot is
    /// shown just before its version is, so a replacement that is under way is waited for.
    pub(crate) fn seen_version(&self) -> Version {
        let _one = self.replacing.lock();
        *self.seen.borrow()
    }

    /// The version of the group up to which [`Self::latest`] says everything.
    pub(crate) fn seen(&self) -> watch::Receiver<Version> {
        self.seen.subscribe()
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

impl Inner {
    /// Waits until every node that answers has seen what this one has, so that a client that was told of a change
    /// finds it wherever it connects next. A node that does not answer in [`SHOWN`] is not waited for.
    pub(crate) async fn show_to_all(&self) {
        let version = self.system.seen_version();
        let recorded = self.system.latest();
        let others = recorded.nodes.values().filter(|node| node.id != self.me);
        let show = |node: &NodeRecord| {
            let (id, address) = (node.id, node.interconnect_address.clone());
            async move {
                let asked = async {
                    let mut client = self.admin_client(&address).await?;
                    let mut last = String::new();
                    // The first call after the other node was away finds only that the kept connection has ended.
                    for _ in 0..2 {
                        let request = AwaitSystemRequest { version: version.get() };
                        match client.await_system(request).await {
                            Ok(_) => return Ok(()),
                            Err(status) => last = status.message().to_owned(),
                        }
                    }
                    Err(last)
                };
                match self.env.timeout(SHOWN, asked).await {
                    Ok(Ok(())) => {}
                    Ok(Err(reason)) => tracing::info!(node = %id, reason, "has not seen a change yet"),
                    Err(_) => tracing::info!(node = %id, "has not seen a change in time"),
                }
            }
        };
        join_all(others.map(show)).await;
    }

    /// Waits until this node has seen the system group up to a version.
    pub(crate) async fn await_system(&self, version: Version) -> Result<(), Status> {
        let mut seen = self.system.seen();
        let waited = self.env.timeout(SHOWN, seen.wait_for(|seen| *seen >= version)).await;
        match waited {
            Ok(Ok(())) => Ok(()),
            _ => Err(Status::deadline_exceeded(format!("version {version} of the records is not here yet"))),
        }
    }
}
