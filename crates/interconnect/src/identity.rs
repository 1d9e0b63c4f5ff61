//! Who speaks, and to whom: checked at the start of every stream.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::RwLock;
use rustydb_types::ids::NodeId;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Status};

const CLUSTER: &str = "rustydb-cluster";
const FROM: &str = "rustydb-from";
const TO: &str = "rustydb-to";

/// The cluster that this node belongs to, not known before the node is taken into one, and who belongs to it no more.
/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ClusterIdentity {
    id: Arc<RwLock<Option<String>>>,
    removed: Arc<RwLock<BTreeSet<NodeId>>>,
}

impl ClusterIdentity {
    /// The cluster's id, once there is one.
    #[must_use]
    pub fn get(&self) -> Option<String> {
        self.id.read().clone()
    }

    /// Sets the cluster's id. It is set once; whoever calls has made it durable before.
    pub fn set(&self, id: &str) {
        *self.id.write() = Some(id.to_owned());
    }

    /// Hears and speaks to a node no more. Gives whether that is new.
    pub fn expel(&self, node: NodeId) -> bool {
        self.removed.write().insert(node)
    }

    /// Whether a node is no member any more.
    #[must_use]
    pub fn is_expelled(&self, node: NodeId) -> bool {
        self.removed.read().contains(&node)
    }
}

/// This node as it presents itself. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Local {
    /// Its number.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterIdentity,
}

/// Who opened a stream, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its number.
    pub node: NodeId,
}

impl Local {
    /// Adds to a request who calls and who is meant.
    ///
    /// # Errors
    /// This node belongs to no cluster yet.
    pub(crate) fn sign<T>(&self, to: NodeId, message: T) -> Result<Request<T>, Status> {
        let cluster = self
            .cluster
            .get()
            .ok_or_else(|| Status::failed_precondition("this node belongs to no cluster"))?;
        let cluster = MetadataValue::try_from(cluster)
            .map_err(|_| Status::internal("the cluster's id cannot be sent"))?;
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert(CLUSTER, cluster);
        metadata.insert(FROM, MetadataValue::from(self.node.get()));
        metadata.insert(TO, MetadataValue::from(to.get()));
        Ok(request)
    }

    /// Checks who calls and who is meant.
    ///
    /// # Errors
    /// The caller is of another cluster, was removed from this one, means another node, or does not say.
    pub(crate) fn check(&self, metadata: &MetadataMap) -> Result<Caller, Status> {
        let text = |key: &str| metadata.get(key).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Some(own) = self.cluster.get() else {
            return Err(Status::failed_precondition(format!("node {} belongs to no cluster", self.node)));
        };
        if text(CLUSTER) != own {
            return Err(Status::permission_denied(format!("node {} belongs to another cluster", self.node)));
        }
        if text(TO).parse() != Ok(self.node.get()) {
            return Err(Status::permission_denied(format!(
                "this is node {}, not node {}",
                self.node,
                text(TO)
            )));
        }
        match text(FROM).parse() {
            Ok(0) | Err(_) => Err(Status::invalid_argument("the caller does not say who it is")),
            Ok(node) if node == self.node.get() => {
                Err(Status::permission_denied(format!("the caller says that it is this node, {node}")))
            }
            Ok(node) if self.cluster.is_expelled(NodeId::new(node)) => {
                Err(Status::permission_denied(format!("node {node} was removed from this cluster")))
            }
            Ok(node) => Ok(Caller { node: NodeId::new(node) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(node: u64, cluster: &str) -> Local {
        let identity = ClusterIdentity::default();
        if !cluster.is_empty() {
            identity.set(cluster);
        }
        Local { node: NodeId::new(node), cluster: identity }
    }

    fn call(from: &Local, to: u64, at: &Local) -> Result<Caller, Status> {
        at.check(from.sign(NodeId::new(to), ())?.metadata())
    }

    #[test]
    fn only_members_that_mean_this_node_are_let_in() {
        let (one, two) = (local(1, "c"), local(2, "c"));
        assert_eq!(call(&one, 2, &two).unwrap(), Caller { node: NodeId::new(1) });
        assert_eq!(call(&one, 3, &two).unwrap_err().code(), tonic::Code::PermissionDenied);
        assert_eq!(call(&local(1, "d"), 2, &two).unwrap_err().code(), tonic::Code::PermissionDenied);
        assert_eq!(call(&local(2, "c"), 2, &two).unwrap_err().code(), tonic::Code::PermissionDenied);
        assert_eq!(call(&one, 2, &local(2, "")).unwrap_err().code(), tonic::Code::FailedPrecondition);
        assert_eq!(call(&local(1, ""), 2, &two).unwrap_err().code(), tonic::Code::FailedPrecondition);
        assert!(two.cluster.expel(NodeId::new(1)) && !two.cluster.expel(NodeId::new(1)));
        let refusal = call(&one, 2, &two).unwrap_err();
        assert_eq!(refusal.message(), "node 1 was removed from this cluster");
        assert_eq!(two.check(&MetadataMap::new()).unwrap_err().code(), tonic::Code::PermissionDenied);
    }
}
