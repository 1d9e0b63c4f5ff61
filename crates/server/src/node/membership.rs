//! How a cluster begins and how nodes come into it.
//!
//! ```text
//! init:  identity (founder) -> system group {me} -> bootstrap rows -> password
//! add:   ask the node who it is -> it adopts the cluster's id -> its record -> learner -> voter   (reconcile)
//! ```
//!
//! Every step may be repeated; a node that died in the middle continues where it was. A node that comes with an
//! empty folder under a number that is a member's has lost its votes and is refused.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rustydb_proto::v1::admin_client::AdminClient;
use rustydb_proto::v1::{AddNodeRequest, AdoptRequest, Member, NodeStatusRequest};
use rustydb_sql::system::{
    DatabaseRecord, DatabaseState, NodeRecord, RoleChange, SystemCommand, SystemError,
};
use rustydb_types::ids::{GroupId, NodeId};
use tonic::Status;

use super::reconcile::REPLICAS_MAX;
use super::{Inner, NodeError, removal};
use crate::config::Config;
use crate::identity::IdentityError;

/// Longest wait for a step that needs a majority.
const STEP: Duration = Duration::from_secs(30);

/// Longest wait for another node to say who it is.
pub(crate) const PEER_PATIENCE: Duration = Duration::from_secs(1);

/// Name of the superuser and of the first database.
pub(crate) const FIRST: &str = "postgres";

/// Forms a new cluster with this node as its only member; returns its id.
pub(crate) async fn init(node: &Arc<Inner>, password: &str) -> Result<String, Status> {
    let is_formed = || node.system.latest().database_named(FIRST).is_some();
    let role_has_password =
        || node.system.latest().role_named(FIRST).is_some_and(|role| role.verifier.is_some());
    if let Some(cluster) = node.cluster_id()
        && is_formed()
        && (password.is_empty() || role_has_password())
    {
        let member = IdentityError::Member { node: node.me.get(), cluster };
        return Err(Status::failed_precondition(member.to_string()));
    }
    let cluster_id = node.found_cluster().map_err(|error| Status::failed_precondition(error.to_string()))?;
    tracing::info!(cluster = cluster_id, "forming a cluster");
    node.reconcile_now();
    node.wait_for(STEP, "the first database", |node| node.system.latest().database_named(FIRST).is_some())
        .await?;
    if !password.is_empty() {
        let verifier = node.verifier(password).map_err(|error| Status::internal(error.to_string()))?;
        let verifier = Some(Some(verifier));
        let change = RoleChange { verifier, ..RoleChange::default() };
        let command = SystemCommand::AlterRole { name: FIRST.to_owned(), change };
        node.execute_system(&command).await.map_err(|refusal| Status::internal(refusal.to_string()))?;
    }
    Ok(cluster_id)
}

/// At the leader of the system group: takes in the node at an address; returns its number once it votes.
pub(crate) async fn add(node: &Arc<Inner>, address: &str, expected: u64) -> Result<u64, Status> {
    let Some(cluster_id) = node.cluster_id() else {
        return Err(Status::failed_precondition(
            "this node belongs to no cluster: run `rustydb-cli cluster init`",
        ));
    };
    let mut joining = node
        .admin_client(address)
        .await
        .map_err(|reason| Status::unavailable(format!("{address} does not answer: {reason}")))?;
    let status = joining.node_status(NodeStatusRequest {}).await?.into_inner();
    let number = status.node_id;
    if expected != 0 && expected != number {
        return Err(Status::failed_precondition(format!("{address} is node {number}, not node {expected}")));
    }
    let id = NodeId::new(number);
    let recorded = node.system.latest();
    if recorded.removed.contains(&id) {
        return Err(Status::failed_precondition(SystemError::NodeRemoved(id).to_string()));
    }
    if recorded.nodes.get(&id).is_some_and(|present| present.leaving) {
        return Err(Status::failed_precondition(format!("node {number} is being removed")));
    }
    let known = recorded.nodes.contains_key(&id);
    if status.cluster_id.is_empty() {
        if known || id == node.me {
            return Err(Status::failed_precondition(format!(
                "node {number} is a member and comes back with an empty data folder: its votes are lost; \
                 give it an unused node.id and add it as a new node"
            )));
        }
        let request = AdoptRequest { cluster_id, members: members(node) };
        joining.adopt(request).await?;
    } else if status.cluster_id != cluster_id {
        return Err(Status::failed_precondition(format!(
            "node {number} belongs to cluster {}, not to {cluster_id}",
            status.cluster_id
        )));
    }
    let record = NodeRecord {
        id,
        name: format!("node-{number}"),
        pg_address: status.postgres_address,
        interconnect_address: status.interconnect_address,
        http_address: status.http_address,
        release: status.version,
        labels: Default::default(),
        leaving: false,
    };
    tracing::info!(joining = number, address, "taking in a node");
    node.execute_system(&SystemCommand::PutNode { node: record })
        .await
        .map_err(|refusal| Status::unavailable(refusal.to_string()))?;
    node.reconcile_now();
    let voted = node
        .wait_for(STEP, "the node to become a voter of every group", |node| node.lacking(id).is_none())
        .await;
    voted.map_err(|late| match node.lacking(id) {
        Some(lacking) => Status::new(late.code(), format!("{}: {lacking}", late.message())),
        None => late,
    })?;
    Ok(number)
}

impl Inner {
    /// What a node lacks of a vote in every group that it is to have one in, with no change of their members on its way:
    /// until then the cluster may not survive the loss of a node that it survives afterwards.
    fn lacking(&self, node: NodeId) -> Option<String> {
        let (recorded, groups) = (self.system.latest(), self.replicas.view());
        let lacks_vote = |group: &GroupId| match groups.get(group) {
            None => Some(format!("group {group} is not open here")),
            Some(local) if !local.voters.contains(&node) => {
                Some(format!("node {node} is no voter of group {group}: {:?} are", local.voters))
            }
            Some(local) if local.members_changing => {
                Some(format!("the change of the members of group {group} is not known to be committed"))
            }
            Some(_) => None,
        };
        let has_replicas = recorded.staying().take(REPLICAS_MAX).any(|id| id == node);
        let ready = |database: &&DatabaseRecord| has_replicas && database.state == DatabaseState::Ready;
        let lacks_database = |database: &DatabaseRecord| {
            if database.replicas.contains(&node) {
                return lacks_vote(&database.group);
            }
            Some(format!("no replica of database \"{}\" is recorded for node {node}", database.name))
        };
        lacks_vote(&GroupId::SYSTEM)
            .or_else(|| recorded.databases.values().filter(ready).find_map(lacks_database))
    }
}

/// At the new node: belongs to the cluster from now on.
pub(crate) async fn adopted(node: &Arc<Inner>, request: &AdoptRequest) -> Result<(), Status> {
    for member in &request.members {
        node.replicas.set_address(NodeId::new(member.node_id), &member.interconnect_address);
    }
    node.join_cluster(&request.cluster_id).map_err(|error| Status::failed_precondition(error.to_string()))?;
    tracing::info!(cluster = request.cluster_id, "taken into a cluster");
    node.reconcile_now();
    Ok(())
}

/// Hands a group that this node leads to another node.
pub(crate) async fn transfer(node: &Arc<Inner>, group: u64, to: u64) -> Result<(), Status> {
    let (group, to) = (GroupId::new(group), NodeId::new(to));
    let view = node.replicas.view();
    let Some(local) = view.get(&group) else {
        return Err(Status::not_found(format!("no group {group} here")));
    };
    if local.leader == Some(to) {
        return Ok(());
    }
    if !local.leads {
        return Err(Status::unavailable(format!("this node does not lead group {group}")));
    }
    if !local.voters.contains(&to) {
        return Err(Status::failed_precondition(format!("node {to} is no voter of group {group}")));
    }
    node.replicas.transfer(group, to).await.map_err(|error| Status::unavailable(error.to_string()))?;
    node.wait_for(STEP, "the new leader", move |node| {
        node.replicas.view().get(&group).is_some_and(|local| local.leader == Some(to))
    })
    .await
}

fn members(node: &Inner) -> Vec<Member> {
    let record = |record: &NodeRecord| Member {
        node_id: record.id.get(),
        postgres_address: record.pg_address.clone(),
        interconnect_address: record.interconnect_address.clone(),
        http_address: record.http_address.clone(),
        role: String::new(),
        leaving: record.leaving,
    };
    node.system.latest().nodes.values().map(record).collect()
}

/// Asks the configured nodes for admission until one takes this node in. Ends when it belongs to a cluster.
pub(crate) async fn ask_for_admission(node: Arc<Inner>, config: Config) {
    const PAUSE: Duration = Duration::from_secs(1);
    let own = node.own_record();
    let mut told = String::new();
    while node.cluster_id().is_none() && !config.cluster.join.is_empty() {
        for address in &config.cluster.join {
            let request = AddNodeRequest {
                interconnect_address: own.interconnect_address.clone(),
                expected_node_id: node.me.get(),
            };
            let asked = async {
                let mut member = node.admin_client(address).await?;
                member.add_node(request).await.map_err(|status| status.message().to_owned())
            };
            let outcome = tokio::select! {
                biased;
                () = node.stopping.wait() => return,
                outcome = asked => outcome,
            };
            match outcome {
                Ok(_) => return,
                Err(reason) => {
                    // Said once in the log, not every second.
                    if reason != told {
                        tracing::warn!(address, reason, "not admitted yet");
                    }
                    *node.refused_by.lock() = Some(format!("{address}: {reason}"));
                    told = reason;
                }
            }
        }
        tokio::select! {
            biased;
            () = node.stopping.wait() => return,
            () = node.env.sleep(PAUSE) => {}
        }
    }
}

/// At the start, before clients are served: whoever answers at a configured place belongs to this node's cluster.
/// Otherwise the data lies in the wrong place, and clients of one cluster would find the data of another. A place
/// where nobody answers in time says nothing.
pub(crate) async fn refuse_foreign_data(node: &Inner, config: &Config) -> Result<(), NodeError> {
    let Some(own) = node.cluster_id() else { return Ok(()) };
    let places = config.cluster.peers.iter().chain(&config.cluster.join);
    let asked = places.map(|place| async move {
        let mut peer = node.admin_client(place).await.ok()?;
        let answer = node.env.timeout(PEER_PATIENCE, peer.node_status(NodeStatusRequest {})).await;
        Some((place, answer.ok()?.ok()?.into_inner().cluster_id))
    });
    for (place, theirs) in join_all(asked).await.into_iter().flatten() {
        if !theirs.is_empty() && theirs != own {
            return Err(NodeError::ForeignData {
                dir: config.node.data_dir.clone(),
                own,
                place: place.clone(),
                theirs,
            });
        }
    }
    Ok(())
}

/// While nobody leads the system group, asks the configured peers for their numbers, in case addresses changed, and
/// all that are known whether this node is a member still: it may have been away when it was removed.
pub(crate) async fn look_for_peers(node: Arc<Inner>, config: Config) {
    const PAUSE: Duration = Duration::from_millis(300);
    let places: Vec<String> = config.cluster.peers.iter().chain(&config.cluster.join).cloned().collect();
    loop {
        tokio::select! {
            biased;
            () = node.stopping.wait() => return,
            () = node.env.sleep(PAUSE) => {}
        }
        let led = node.replicas.view().get(&GroupId::SYSTEM).is_some_and(|system| system.leader.is_some());
        let Some(cluster_id) = node.cluster_id().filter(|_| !led) else { continue };
        for place in &places {
            let Ok(mut peer) = node.admin_client(place).await else { continue };
            let asked = peer.node_status(NodeStatusRequest {});
            let Ok(Ok(answer)) = node.env.timeout(PEER_PATIENCE, asked).await else { continue };
            let status = answer.into_inner();
            if status.cluster_id == cluster_id && status.node_id != node.me.get() {
                node.replicas.set_address(NodeId::new(status.node_id), &status.interconnect_address);
            }
        }
        if removal::is_known_removed(&node, &places).await {
            removal::leave(&node);
            return;
        }
    }
}

/// A client of the admin service that other members offer.
pub(crate) type MemberClient = AdminClient<tonic::transport::Channel>;
