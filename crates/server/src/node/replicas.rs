//! The Raft groups of this node, as the reconcile plan sees and changes them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustydb_consensus::{ConsensusError, Group, Groups, Health, RaftStatus};
use rustydb_env::Env;
use rustydb_interconnect::Peers;
use rustydb_proto::v1::GroupStatus;
use rustydb_types::ids::{GroupId, LogIndex, NodeId};
use tokio::sync::Notify;

use super::NodeError;
use super::reconcile::LocalGroup;

/// Entries that a member may lack and still count as caught up: what is on its way under load.
const CAUGHT_UP_WITHIN: u64 = 1_000;

/// Opens, closes and changes groups.
pub(crate) struct Replicas {
    env: Env,
    groups: Groups,
    peers: Peers,
    me: NodeId,
    /// Groups with a watcher.
    watched: Mutex<BTreeSet<GroupId>>,
    /// The address that the records gave for each node, so that a found one is not overwritten by an old record.
    recorded: Mutex<BTreeMap<NodeId, String>>,
    /// Told by the groups' watchers.
    changed: Arc<Notify>,
}

impl Replicas {
    pub(crate) fn new(env: Env, groups: Groups, peers: Peers, me: NodeId) -> Replicas {
        Replicas {
            env,
            groups,
            peers,
            me,
            watched: Mutex::default(),
            recorded: Mutex::default(),
            changed: Arc::default(),
        }
    }

    /// The groups themselves.
    pub(crate) fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Uses an address for a node from now on.
    pub(crate) fn set_address(&self, node: NodeId, address: &str) {
        if node != self.me {
            self.peers.set_address(node, address);
        }
    }

    /// Where a node was recorded, which is no member any more and is not spoken to from now on.
    pub(crate) fn forget(&self, node: NodeId) -> Option<String> {
        self.peers.forget(node);
        self.recorded.lock().remove(&node)
    }

    /// Uses the address in a node's record, if the record is new or has changed.
    pub(crate) fn note_recorded_address(&self, node: NodeId, address: &str) {
        let mut recorded = self.recorded.lock();
        if recorded.get(&node).is_none_or(|present| present != address) {
            recorded.insert(node, address.to_owned());
            self.set_address(node, address);
        }
    }

    /// Ends at the next change of a leader or of members in any group.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Opens a group; one that has lost its log opens by itself when the other members have answered.
    pub(crate) async fn open(&self, group: GroupId) -> Result<(), NodeError> {
        match self.groups.open_group(group).await {
            Ok(opened) => self.watch(&opened),
            Err(ConsensusError::Busy { .. }) if self.groups.is_mending(group) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Opens a new group with its first members, which this node tries to lead after `patience`.
    pub(crate) async fn found(
        &self,
        group: GroupId,
        members: Vec<NodeId>,
        patience: Duration,
    ) -> Result<(), NodeError> {
        let members = members.into_iter().collect();
        self.watch(&self.groups.found_group(group, &members, patience).await?);
        Ok(())
    }

    fn watch(&self, opened: &Group) {
        if self.watched.lock().insert(opened.id()) {
            let mut events = opened.watch();
            let changed = Arc::clone(&self.changed);
            // It ends with the group, whose watch then closes.
            drop(self.env.spawn("group watcher", async move {
                while events.changed().await.is_ok() {
                    events.borrow_and_update();
                    changed.notify_one();
                }
            }));
        }
    }

    pub(crate) async fn remove(&self, group: GroupId) -> Result<(), NodeError> {
        self.groups.remove_group(group).await?;
        self.watched.lock().remove(&group);
        Ok(())
    }

    fn get(&self, group: GroupId) -> Result<Group, NodeError> {
        self.groups.get(group).ok_or(NodeError::NoGroup { group })
    }

    pub(crate) async fn initialize(&self, group: GroupId, members: Vec<NodeId>) -> Result<(), NodeError> {
        Ok(self.get(group)?.initialize(&members.into_iter().collect()).await?)
    }

    pub(crate) async fn add_learner(&self, group: GroupId, node: NodeId) -> Result<(), NodeError> {
        Ok(self.get(group)?.add_learner(node).await?)
    }

    pub(crate) async fn promote(&self, group: GroupId, node: NodeId) -> Result<(), NodeError> {
        Ok(self.get(group)?.promote(node).await?)
    }

    pub(crate) async fn finish_change(&self, group: GroupId) -> Result<(), NodeError> {
        Ok(self.get(group)?.finish_change().await?)
    }

    pub(crate) async fn remove_member(&self, group: GroupId, node: NodeId) -> Result<(), NodeError> {
        Ok(self.get(group)?.remove(node).await?)
    }

    pub(crate) async fn transfer(&self, group: GroupId, to: NodeId) -> Result<(), NodeError> {
        Ok(self.get(group)?.transfer_leader(to).await?)
    }

    /// Whether this node leads a group and may change it.
    pub(crate) fn leads(&self, group: GroupId) -> bool {
        self.groups.get(group).is_some_and(|group| group.leads())
    }

    /// Who leads a group, as far as this node knows.
    pub(crate) fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.groups.get(group)?.status().leader
    }

    /// Every open group, for the plan.
    pub(crate) fn view(&self) -> BTreeMap<GroupId, LocalGroup> {
        let local = |group: Group| {
            self.watch(&group);
            let status = group.status();
            let caught_up = self.caught_up(&status);
            let local = LocalGroup {
                initialized: group.is_initialized(),
                leads: group.leads(),
                leader: status.leader,
                voters: status.voters,
                learners: status.learners,
                members_changing: status.members_changing,
                joint: status.joint,
                diverged: group.agreement().health == Health::Diverged,
                answering: status.answering.into_iter().chain([self.me]).collect(),
                caught_up,
            };
            (group.id(), local)
        };
        self.groups.all().into_iter().map(local).collect()
    }

    /// At the leader: members that lack only what is on its way.
    fn caught_up(&self, status: &RaftStatus) -> BTreeSet<NodeId> {
        let last = number(status.last_log_index);
        let near = |(_, matched): &&(NodeId, Option<LogIndex>)| {
            matched.is_some_and(|matched| matched.get() + CAUGHT_UP_WITHIN >= last)
        };
        status.matched.iter().filter(near).map(|(node, _)| *node).chain([self.me]).collect()
    }

    /// Every open group, for people. The name is left to the caller.
    pub(crate) fn statuses(&self) -> Vec<(GroupId, GroupStatus)> {
        let status = |group: Group| {
            let status = group.status();
            let learner = status.learners.contains(&self.me);
            let state = if learner { "learner" } else { status.state.name() };
            let ids = |nodes: &BTreeSet<NodeId>| nodes.iter().map(|node| node.get()).collect();
            let agreement = group.agreement();
            let shown = GroupStatus {
                group_id: group.id().get(),
                name: String::new(),
                term: status.term.get(),
                state: state.to_owned(),
                leader_id: status.leader.map_or(0, |leader| leader.get()),
                last_log_index: number(status.last_log_index),
                commit_index: number(status.commit_index),
                last_applied: number(status.last_applied),
                uncommitted_entries: status.uncommitted_entries,
                voters: ids(&status.voters),
                learners: ids(&status.learners),
                members_changing: status.members_changing,
                health: if group.is_mending() { "mending" } else { agreement.health.name() }.to_owned(),
                agreed_index: number(agreement.agreed.map(|agreed| agreed.index)),
                comparisons: agreement.comparisons,
                suspicions: agreement.suspicions,
                divergences: agreement.divergences,
                repairs: agreement.repairs,
            };
            (group.id(), shown)
        };
        self.groups.all().into_iter().map(status).collect()
    }
}

fn number(index: Option<LogIndex>) -> u64 {
    index.map_or(0, |index| index.get())
}
