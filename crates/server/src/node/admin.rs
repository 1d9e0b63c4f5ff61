//! The admin service: what operators and other nodes ask of this one.
//!
//! Requests that change the cluster are carried out by the leader of the system group; any other member passes
//! them on, once. A request that was passed on is not passed on again, so two nodes that disagree about the
//! leader never send one back and forth.

use std::sync::Arc;

use rustydb_proto::v1::admin_server::Admin;
use rustydb_proto::v1::{
    AddNodeRequest, AddNodeResponse, AdminError, AdoptRequest, AdoptResponse, AuditReplicaRequest,
    AwaitSystemRequest, AwaitSystemResponse, ClusterStatusRequest, ClusterStatusResponse, DismissRequest,
    DismissResponse, ExecuteSystemRequest, ExecuteSystemResponse, InitClusterRequest, InitClusterResponse,
    MarkAuditRequest, MarkAuditResponse, NodeStatusRequest, NodeStatusResponse, RemoveNodeRequest,
    RemoveNodeResponse, RepairReplicaRequest, RepairReplicaResponse, TransferLeaderRequest,
    TransferLeaderResponse, execute_system_response,
};
use rustydb_types::ids::{NodeId, Version};
use tonic::{Request, Response, Status};

use super::audit::AuditEvents;
use super::http::StatusSource;
use super::system::SystemRefusal;
use super::{Inner, membership, removal};

/// Metadata key of a request that another member passed on.
pub(crate) const FORWARDED: &str = "rustydb-forwarded";

/// The service of one node.
pub(crate) struct AdminService {
    node: Arc<Inner>,
}

impl AdminService {
    pub(crate) fn new(node: Arc<Inner>) -> AdminService {
        AdminService { node }
    }
}

fn was_forwarded<T>(request: &Request<T>) -> bool {
    request.metadata().contains_key(FORWARDED)
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn node_status(
        &self,
        _request: Request<NodeStatusRequest>,
    ) -> Result<Response<NodeStatusResponse>, Status> {
        // Who asks may be about to hand over a leadership: a log that is not written to has not looked at its disk.
        self.node.log.check_space();
        Ok(Response::new(self.node.status()))
    }

    async fn cluster_status(
        &self,
        _request: Request<ClusterStatusRequest>,
    ) -> Result<Response<ClusterStatusResponse>, Status> {
        Ok(Response::new(self.node.cluster_status()?))
    }

    async fn init_cluster(
        &self,
        request: Request<InitClusterRequest>,
    ) -> Result<Response<InitClusterResponse>, Status> {
        let cluster_id = membership::init(&self.node, &request.into_inner().superuser_password).await?;
        Ok(Response::new(InitClusterResponse { cluster_id }))
    }

    async fn add_node(&self, request: Request<AddNodeRequest>) -> Result<Response<AddNodeResponse>, Status> {
        if !was_forwarded(&request)
            && let Some(mut leader) = self.node.other_system_leader().await?
        {
            return leader.add_node(forward(request.into_inner())).await;
        }
        let request = request.into_inner();
        let node_id =
            membership::add(&self.node, &request.interconnect_address, request.expected_node_id).await?;
        Ok(Response::new(AddNodeResponse { node_id }))
    }

    async fn adopt(&self, request: Request<AdoptRequest>) -> Result<Response<AdoptResponse>, Status> {
        membership::adopted(&self.node, &request.into_inner()).await?;
        let own = self.node.own_record();
        Ok(Response::new(AdoptResponse {
            node_id: own.id.get(),
            postgres_address: own.pg_address,
            http_address: own.http_address,
        }))
    }

    async fn remove_node(
        &self,
        request: Request<RemoveNodeRequest>,
    ) -> Result<Response<RemoveNodeResponse>, Status> {
        if !was_forwarded(&request)
            && let Some(mut leader) = self.node.other_system_leader().await?
        {
            return leader.remove_node(forward(request.into_inner())).await;
        }
        let members = removal::remove(&self.node, NodeId::new(request.into_inner().node_id)).await?;
        Ok(Response::new(RemoveNodeResponse { members }))
    }

    async fn dismiss(&self, request: Request<DismissRequest>) -> Result<Response<DismissResponse>, Status> {
        removal::dismissed(&self.node, &request.into_inner())?;
        Ok(Response::new(DismissResponse {}))
    }

    async fn execute_system(
        &self,
        request: Request<ExecuteSystemRequest>,
    ) -> Result<Response<ExecuteSystemResponse>, Status> {
        // Only members send this, and they send it to the leader; who leads no more says so.
        let command = serde_json::from_slice(&request.into_inner().command)
            .map_err(|error| Status::invalid_argument(format!("unknown command: {error}")))?;
        let result = match self.node.execute_here(&command).await {
            Ok(()) => execute_system_response::Result::Output(bytes::Bytes::new()),
            Err(SystemRefusal::NotLeader) => {
                return Err(Status::unavailable("this node does not lead the system group"));
            }
            Err(SystemRefusal::Refused { sqlstate, message }) => {
                execute_system_response::Result::Error(AdminError {
                    sqlstate,
                    message,
                    ..AdminError::default()
                })
            }
        };
        Ok(Response::new(ExecuteSystemResponse { result: Some(result) }))
    }

    async fn await_system(
        &self,
        request: Request<AwaitSystemRequest>,
    ) -> Result<Response<AwaitSystemResponse>, Status> {
        self.node.await_system(Version::new(request.into_inner().version)).await?;
        Ok(Response::new(AwaitSystemResponse {}))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        let forwarded = was_forwarded(&request);
        let request = request.into_inner();
        if !forwarded && let Some(mut leader) = self.node.other_leader(request.group_id).await? {
            return leader.transfer_leader(forward(request)).await;
        }
        membership::transfer(&self.node, request.group_id, request.to).await?;
        Ok(Response::new(TransferLeaderResponse {}))
    }

    type AuditReplicaStream = AuditEvents;

    async fn audit_replica(
        &self,
        request: Request<AuditReplicaRequest>,
    ) -> Result<Response<AuditEvents>, Status> {
        Ok(Response::new(self.node.audit_replica(&request.into_inner())?))
    }

    async fn mark_audit(
        &self,
        request: Request<MarkAuditRequest>,
    ) -> Result<Response<MarkAuditResponse>, Status> {
        let forwarded = was_forwarded(&request);
        let request = request.into_inner();
        if !forwarded && let Some(mut leader) = self.node.other_leader(request.group_id).await? {
            return leader.mark_audit(forward(request)).await;
        }
        self.node.mark_audit(&request).await?;
        Ok(Response::new(MarkAuditResponse {}))
    }

    async fn repair_replica(
        &self,
        request: Request<RepairReplicaRequest>,
    ) -> Result<Response<RepairReplicaResponse>, Status> {
        self.node.repair_replica(&request.into_inner())?;
        Ok(Response::new(RepairReplicaResponse {}))
    }
}

/// Marks a request as passed on.
pub(crate) fn forward<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(FORWARDED, tonic::metadata::MetadataValue::from_static("1"));
    request
}
