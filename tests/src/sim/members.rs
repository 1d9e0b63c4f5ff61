//! Changes of leaders and members, asked for at whoever leads.

use std::time::Duration;

use rustydb_consensus::{ConsensusError, Group};
use rustydb_types::ids::{GroupId, NodeId};

use super::{cluster::Cluster, machines::Machines};

/// How long a change is waited for. It may still take effect later.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before a change is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Asks the leader to hand over to another node. Gives whether it said that it did.
pub async fn transfer<M: Machines>(cluster: &Cluster<M>, group: GroupId, to: NodeId) -> bool {
    let is_other = cluster.leader(group).is_some_and(|(leader, _)| leader != to);
    let moved = at_leader(cluster, group, |group| async move { group.transfer_leader(to).await }).await;
    is_other && moved.is_some()
}

/// Asks the leader to remove a member. It may refuse, or be gone. Gives whether it said that it did.
pub async fn remove<M: Machines>(cluster: &Cluster<M>, group: GroupId, node: NodeId) -> bool {
    at_leader(cluster, group, |group| async move { group.remove(node).await }).await.is_some()
}

/// Asks the leader to make a node a voter. It may refuse, or be gone.
pub async fn take_in<M: Machines>(cluster: &Cluster<M>, group: GroupId, node: NodeId) {
    let taking_in = |group: Group| async move {
        group.add_learner(node).await?;
        group.promote(node).await
    };
    let _may_fail = at_leader(cluster, group, taking_in).await;
}

/// Makes all nodes voters of all groups again. Gives the groups in which that does not succeed in time.
pub async fn restore<M: Machines>(cluster: &Cluster<M>, patience: Duration) -> Vec<String> {
    let env = cluster.sim().harness();
    let until = env.now() + patience;
    let mut wrong = Vec::new();
    for group in cluster.groups() {
        loop {
            let voters = cluster.leader(*group).and_then(|(leader, _)| {
                let status = cluster.group(leader, *group)?.status();
                (!status.joint).then_some(status.voters)
            });
            let voters = voters.unwrap_or_default();
            let missing: Vec<NodeId> = cluster.ids().difference(&voters).copied().collect();
            if missing.is_empty() {
                break;
            }
            if env.now() > until {
                wrong.push(format!("group {group}: {missing:?} cannot be made voters, beside {voters:?}"));
                break;
            }
            for node in missing {
                take_in(cluster, *group, node).await;
            }
            cluster.sleep(RETRY_PAUSE).await;
        }
    }
    wrong
}

async fn at_leader<M, C>(cluster: &Cluster<M>, group: GroupId, change: impl FnOnce(Group) -> C) -> Option<()>
where
    M: Machines,
    C: Future<Output = Result<(), ConsensusError>> + Send + 'static,
{
    let (leader, _) = cluster.leader(group)?;
    let group = cluster.group(leader, group)?;
    let changing = cluster.at(leader, "change of members", change(group));
    let changed = cluster.sim().harness().timeout(CHANGE_TIMEOUT, changing).await;
    changed.ok()??.ok()
}
