//! How a node goes out of a cluster.
//!
//! ```text
//! remove:   enough of the others answer -> its record says "leaving" -> what it leads is handed over
//!           -> every database's group lets it go -> the system group lets it go                        (reconcile)
//!           -> it is told, notes it in its folder and stops -> its record goes, its number stays noted
//! ```
//!
//! From the mark on, every step is one that the reconcile plan finds by itself, so whoever dies in the middle costs only
//! time, and a second `node remove` just waits for the same end. A node that was away when it was removed asks whom it
//! knows, at its start and while it hears no leader; the others hear it no more in any case.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rustydb_proto::v1::{
    ClusterStatusRequest, DismissRequest, NodeStatusRequest, NodeStatusResponse, RemoveNodeRequest,
};
use rustydb_sql::system::SystemCommand;
use rustydb_types::ids::{GroupId, NodeId};
use tonic::Status;

use super::admin::forward;
use super::membership::PEER_PATIENCE;
use super::{Inner, NodeError};
use crate::config::Config;

/// Longest wait for the end of a removal; the one who asked waits longer for the answer.
const REMOVAL: Duration = Duration::from_secs(50);

/// Longest wait for another leader of the system group when this one is to be removed.
const SUCCESSION: Duration = Duration::from_secs(10);

/// Longest wait for the removed node to say that it has heard.
const DISMISSAL: Duration = Duration::from_secs(2);

/// At the leader of the system group: removes a node from every group, for ever; gives how many members are left. A
/// removal that was begun before goes on.
pub(crate) async fn remove(node: &Arc<Inner>, leaving: NodeId) -> Result<u32, Status> {
    let recorded = node.system.latest();
    if !recorded.removed.contains(&leaving) {
        let Some(record) = recorded.nodes.get(&leaving) else {
            return Err(Status::not_found(format!("node {leaving} is not a member of this cluster")));
        };
        if !record.leaving {
            mark(node, leaving).await?;
        }
        node.reconcile_now();
        if leaving == node.me {
            return through_successor(node, leaving).await;
        }
        let is_gone = |node: &Inner| node.system.latest().removed.contains(&leaving);
        if node.wait_for(REMOVAL, "the removal", is_gone).await.is_err() {
            let where_left = whereabouts(node, leaving);
            return Err(Status::deadline_exceeded(format!(
                "node {leaving} is still a member of {where_left} after {REMOVAL:?}; it goes on leaving as soon as a \
                 majority of the other voters answers; ask again to wait for it"
            )));
        }
    }
    node.show_to_all().await;
    Ok(u32::try_from(node.system.latest().nodes.len()).unwrap_or(u32::MAX))
}

/// Marks a node as leaving, if the others can do without it.
async fn mark(node: &Arc<Inner>, leaving: NodeId) -> Result<(), Status> {
    let _one_at_a_time = node.removing.lock().await;
    refuse_loss(node, leaving).await?;
    tracing::info!(node = %leaving, "removing a node");
    let marked = node.execute_system(&SystemCommand::MarkLeaving { id: leaving }).await;
    marked.map_err(|refusal| Status::failed_precondition(refusal.to_string()))?;
    // So that whoever is next sees that it does not count any more.
    let is_seen = |node: &Inner| node.system.latest().parting().contains(&leaving);
    node.wait_for(SUCCESSION, "the mark to be seen here", is_seen).await
}

/// This node leads, and is the one to go: it hands over, and its successor removes it.
async fn through_successor(node: &Arc<Inner>, leaving: NodeId) -> Result<u32, Status> {
    let is_led_by_other =
        |node: &Inner| node.replicas.leader(GroupId::SYSTEM).is_some_and(|leader| leader != node.me);
    node.wait_for(SUCCESSION, "another leader of the system group", is_led_by_other).await?;
    let Some(mut successor) = node.other_system_leader().await? else {
        return Err(Status::unavailable("the leadership of the system group came back; ask again"));
    };
    let request = RemoveNodeRequest { node_id: leaving.get() };
    successor.remove_node(forward(request)).await.map(|answer| answer.into_inner().members)
}

/// The groups that still have a node, for people.
fn whereabouts(node: &Inner, leaving: NodeId) -> String {
    let recorded = node.system.latest();
    let groups = node.replicas.view();
    let has_it = |group: GroupId| groups.get(&group).is_some_and(|local| local.has_member(leaving));
    let databases = recorded.databases.values().filter(|database| has_it(database.group));
    let mut names: Vec<String> =
        databases.map(|database| format!("database \"{}\"", database.name)).collect();
    if has_it(GroupId::SYSTEM) {
        names.push("the system group".to_owned());
    }
    if names.is_empty() { "the cluster's records".to_owned() } else { names.join(", ") }
}

/// A group by its name, and who votes in it.
struct Voters {
    name: String,
    group: GroupId,
    voters: BTreeSet<NodeId>,
}

/// Refuses what would leave a group without a majority that answers.
async fn refuse_loss(node: &Arc<Inner>, leaving: NodeId) -> Result<(), Status> {
    let recorded = node.system.latest();
    let answers = join_all(recorded.nodes.values().map(|record| async {
        if record.id == node.me {
            return (record.id, Some(BTreeSet::new()));
        }
        (record.id, said(node, record.id, &record.interconnect_address).await)
    }))
    .await;
    // What each node that answers is not fit to vote in.
    let unfit: BTreeMap<NodeId, BTreeSet<GroupId>> =
        answers.into_iter().filter_map(|(node, unfit)| Some((node, unfit?))).collect();
    let view = node.replicas.view();
    let voters = |group: GroupId, otherwise: BTreeSet<NodeId>| {
        view.get(&group).map_or(otherwise, |local| local.voters.clone())
    };
    let system = Voters {
        name: "the system group".to_owned(),
        group: GroupId::SYSTEM,
        voters: voters(GroupId::SYSTEM, recorded.nodes.keys().copied().collect()),
    };
    let databases = recorded.databases.values().map(|database| Voters {
        name: format!("database \"{}\"", database.name),
        group: database.group,
        voters: voters(database.group, database.replicas.iter().copied().collect()),
    });
    let parting = recorded.parting();
    for group in std::iter::once(system).chain(databases) {
        let votes = |node: NodeId| unfit.get(&node).is_some_and(|unfit| !unfit.contains(&group.group));
        if let Some(reason) = loss(leaving, &parting, &group, votes) {
            return Err(Status::failed_precondition(reason));
        }
    }
    Ok(())
}

/// The groups that a node takes no part in the elections of, if it answers.
async fn said(node: &Inner, other: NodeId, address: &str) -> Option<BTreeSet<GroupId>> {
    let mut client = node.admin_client(address).await.ok()?;
    let asked = async {
        // The first call after the other node was away finds only that the kept connection has ended.
        match client.node_status(NodeStatusRequest {}).await {
            Ok(answer) => Ok(answer),
            Err(_) => client.node_status(NodeStatusRequest {}).await,
        }
    };
    let status: NodeStatusResponse = node.env.timeout(PEER_PATIENCE, asked).await.ok()?.ok()?.into_inner();
    if status.node_id != other.get() || Some(status.cluster_id) != node.cluster_id() {
        return None;
    }
    let mending = status.groups.iter().filter(|group| group.health == "mending");
    Some(mending.map(|group| GroupId::new(group.group_id)).collect())
}

/// Why a group cannot spare a node, if so.
fn loss(
    leaving: NodeId,
    parting: &BTreeSet<NodeId>,
    group: &Voters,
    votes: impl Fn(NodeId) -> bool,
) -> Option<String> {
    let name = &group.name;
    let stays = |node: &&NodeId| **node != leaving && !parting.contains(node);
    let left: Vec<NodeId> = group.voters.iter().filter(stays).copied().collect();
    if left.is_empty() {
        return Some(format!(
            "node {leaving} cannot be removed: no voter of {name} would be left; add another node first"
        ));
    }
    let silent: Vec<String> =
        left.iter().filter(|node| !votes(**node)).map(|node| format!("node {node}")).collect();
    let (needed, up) = (left.len() / 2 + 1, left.len() - silent.len());
    (up < needed).then(|| {
        format!(
            "node {leaving} cannot be removed: {} voters of {name} would be left, of which {needed} must agree, and \
             {up} can; {} cannot vote now: start what is down, wait for what is mending, or remove what is lost for \
             good first",
            left.len(),
            silent.join(" and "),
        )
    })
}

/// At the removed node: what the cluster says of it.
pub(crate) fn dismissed(node: &Inner, request: &DismissRequest) -> Result<(), Status> {
    if node.cluster_id().as_deref() != Some(request.cluster_id.as_str()) || request.node_id != node.me.get() {
        return Err(Status::failed_precondition(format!(
            "this is node {} of {}, not node {} of cluster {}",
            node.me,
            node.cluster_id().map_or_else(|| "no cluster".to_owned(), |id| format!("cluster {id}")),
            request.node_id,
            request.cluster_id
        )));
    }
    leave(node);
    Ok(())
}

/// At the removed node: notes it for ever, and has the process end.
pub(crate) fn leave(node: &Inner) {
    let mut folder = node.folder.lock();
    match folder.mark_removed() {
        Ok(()) => tracing::warn!("{}", folder.removal()),
        // It asks again at its next start.
        Err(error) => tracing::error!(%error, "that this node was removed is not noted in its folder"),
    }
    drop(folder);
    node.dismissed.set();
}

/// At the start: a node that was removed while it was away does not begin.
pub(crate) async fn refuse_removed(node: &Inner, config: &Config) -> Result<(), NodeError> {
    let places: Vec<String> = config.cluster.peers.iter().chain(&config.cluster.join).cloned().collect();
    if !is_known_removed(node, &places).await {
        return Ok(());
    }
    let mut folder = node.folder.lock();
    folder.mark_removed()?;
    Err(folder.removal().into())
}

/// Whether any node of this cluster that answers, at these places or where the others were last, knows that this node
/// was removed. What is recorded of that is true for ever, so one answer is enough.
pub(crate) async fn is_known_removed(node: &Inner, places: &[String]) -> bool {
    let Some(cluster_id) = node.cluster_id() else { return false };
    let others = node.addresses.all().into_iter().filter(|(id, _)| *id != node.me);
    let places: BTreeSet<String> = others.map(|(_, address)| address).chain(places.iter().cloned()).collect();
    let asked = places.iter().map(|place| async move {
        let mut peer = node.admin_client(place).await.ok()?;
        let asked = peer.cluster_status(ClusterStatusRequest {});
        Some(node.env.timeout(PEER_PATIENCE, asked).await.ok()?.ok()?.into_inner())
    });
    let answers = join_all(asked).await;
    let says_so = |answer: &rustydb_proto::v1::ClusterStatusResponse| {
        answer.cluster_id == cluster_id && answer.removed.contains(&node.me.get())
    };
    answers.iter().flatten().any(says_so)
}

impl Inner {
    /// Tells a node that no group has any more. One that cannot be told finds out by itself.
    pub(crate) async fn dismiss(&self, removed: NodeId) {
        let recorded = self.system.latest();
        let (Some(record), Some(cluster_id)) = (recorded.nodes.get(&removed), self.cluster_id()) else {
            return;
        };
        let Ok(mut client) = self.admin_client(&record.interconnect_address).await else { return };
        let request = DismissRequest { cluster_id, node_id: removed.get() };
        match self.env.timeout(DISMISSAL, client.dismiss(request)).await {
            Ok(Ok(_)) => {}
            Ok(Err(status)) => {
                tracing::info!(node = %removed, reason = status.message(), "the removed node was not told");
            }
            Err(_) => tracing::info!(node = %removed, "the removed node was not told in time"),
        }
    }

    /// Hears and speaks to a removed node no more.
    pub(crate) fn forget(&self, removed: NodeId) {
        if removed != self.me && self.cluster.expel(removed) {
            let address = self.replicas.forget(removed);
            if let Some(address) = address {
                self.clients.lock().remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u64]) -> BTreeSet<NodeId> {
        numbers.iter().map(|number| NodeId::new(*number)).collect()
    }

    #[test]
    fn a_majority_of_those_that_are_left_must_be_able_to_vote() {
        let reason = |leaving: u64, voters: &[u64], parting: &[u64], up: &[u64]| {
            let group =
                Voters { name: "the system group".to_owned(), group: GroupId::SYSTEM, voters: ids(voters) };
            loss(NodeId::new(leaving), &ids(parting), &group, |node| ids(up).contains(&node))
        };
        // Of four, the dead one; of three, the dead one.
        assert_eq!(reason(4, &[1, 2, 3, 4], &[], &[1, 2, 3]), None);
        assert_eq!(reason(3, &[1, 2, 3], &[], &[1, 2]), None);
        // A live one, while the other two of three are one.
        let refusal = reason(2, &[1, 2, 3], &[], &[1, 2]).unwrap();
        assert!(refusal.starts_with("node 2 cannot be removed: 2 voters of the system group"), "{refusal}");
        assert!(refusal.contains("node 3 cannot vote now"), "{refusal}");
        // Two are gone of five: the first of them may go, a third may not.
        assert_eq!(reason(4, &[1, 2, 3, 4, 5], &[], &[1, 2, 3]), None);
        assert!(reason(1, &[1, 2, 3, 4, 5], &[], &[1, 2, 3]).is_some());
        // Those that are on their way out do not count.
        assert!(reason(2, &[1, 2, 3], &[3], &[1, 2, 3]).is_none());
        assert!(reason(1, &[1, 2], &[2], &[1, 2]).is_some());
        assert!(reason(1, &[1], &[], &[1]).is_some());
        assert_eq!(reason(2, &[1, 2], &[], &[1, 2]), None);
    }
}
