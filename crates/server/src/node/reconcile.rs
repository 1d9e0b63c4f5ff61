//! What a node must do so that its groups become what the system group says.
//!
//! [`plan`] is a plain function from what is recorded and what is there to the next actions. It is asked again
//! after every change and every few hundred milliseconds, so an action that failed, or a node that died between
//! any two of them, costs nothing but time: the next plan names what is still missing.
//!
//! ```text
//! recorded          on each replica                              by one node
//! ----------------  -------------------------------------------  ------------------------------------------
//! creating          open the group with its first members        its leader records `ready`
//! ready             open the group if it is missing              its leader adds missing replicas
//! dropping          remove the group and its files               the system leader records it as gone
//! (no record)       remove a group whose number was given out
//! leaving (a node)  hand over what it leads                      the system leader records replicas without it;
//!                                                                each group's leader removes it, the system group's
//!                                                                last; then its record goes
//! ```
//!
//! Invariants: group numbers grow and are never reused, so a group below the next number and without a record
//! was dropped, however old the local replica of the system group is. The members of a
//! database do not change before it is ready, so all replicas that are opened while it is being created begin
//! with the same first entry, which names them. A replica never votes before it has that entry: if the members came
//! from one node by `initialize`, its death after it had asked for votes would leave others that can neither elect
//! nor be initialized. A member is removed only if it is recorded as leaving, which nothing takes back, so that a leader
//! whose records are old removes nobody who is to stay; and only while a majority of those that are left answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustydb_sql::system::{DatabaseRecord, DatabaseState, SystemSnapshot};
use rustydb_types::ids::{DatabaseId, GroupId, NodeId};

/// Most replicas of a database: with more, a commit waits for more disks and survives hardly more.
pub const REPLICAS_MAX: usize = 7;

/// How long the replicas of a new group wait for the one that should lead it.
const FIRST_LEADER_PATIENCE: Duration = Duration::from_secs(1);

/// What a node sees of one of its groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalGroup {
    /// Whether the group has members, or is just an empty replica.
    pub initialized: bool,
    /// Whether this node leads it.
    pub leads: bool,
    /// Who leads it, as far as this node knows.
    pub leader: Option<NodeId>,
    /// Its voters.
    pub voters: BTreeSet<NodeId>,
    /// Its learners.
    pub learners: BTreeSet<NodeId>,
    /// A change of members is not known to be committed.
    pub members_changing: bool,
    /// A change of voters is half done: those before it and after it must both agree.
    pub joint: bool,
    /// The state here differs from that of the other members and is withheld.
    pub diverged: bool,
    /// At the leader: members that answered lately, itself among them.
    pub answering: BTreeSet<NodeId>,
    /// At the leader: members that have all but the last entries.
    pub caught_up: BTreeSet<NodeId>,
}

impl LocalGroup {
    /// Whether a node votes in the group, or learns.
    pub fn has_member(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }

    /// Whether the leader may take a voter out: of those that are left, a majority answers it.
    fn can_spare(&self, voter: NodeId) -> bool {
        let left = self.voters.iter().filter(|node| **node != voter);
        let answering = left.clone().filter(|node| self.answering.contains(node)).count();
        answering * 2 > left.count()
    }
}

/// One thing to do. Every action may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open the replica of a group here.
    Open(GroupId),
    /// Open the replica of a new group here, which knows the group's first members from the start.
    Found {
        /// The group.
        group: GroupId,
        /// Its first voters.
        members: Vec<NodeId>,
        /// How long this node leaves it to others to lead the group.
        patience: Duration,
    },
    /// Make this node the only member of the system group: a cluster begins.
    Initialize,
    /// Remove the replica of a group here, with its files.
    Remove(GroupId),
    /// Make a node a learner of a group that this node leads.
    AddLearner {
        /// The group.
        group: GroupId,
        /// The node.
        node: NodeId,
    },
    /// Make a learner a voter of a group that this node leads.
    Promote {
        /// The group.
        group: GroupId,
        /// The node.
        node: NodeId,
    },
    /// End a change of voters of a group that this node leads, which it, or an earlier leader, has begun.
    FinishChange(GroupId),
    /// Take a node out of a group that this node leads.
    RemoveMember {
        /// The group.
        group: GroupId,
        /// The node.
        node: NodeId,
    },
    /// Hand a group that this node leads to one of these, because this node leaves.
    HandOver {
        /// The group.
        group: GroupId,
        /// Who may lead it next, the best first.
        to: Vec<NodeId>,
    },
    /// Hand a group that this node leads to another.
    Transfer {
        /// The group.
        group: GroupId,
        /// Who leads it next.
        to: NodeId,
    },
    /// Record that a database serves.
    RecordReady(DatabaseId),
    /// Record that a dropped database is gone.
    RecordGone(DatabaseId),
    /// Record which nodes hold a database.
    RecordReplicas {
        /// The database.
        database: DatabaseId,
        /// The nodes.
        replicas: Vec<NodeId>,
    },
    /// Tell a node that no group has any more that it was removed, and record it.
    RecordRemoved(NodeId),
}

/// Whether leaders may be moved to spread them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Everything has been calm for a while.
    Allowed,
    /// Something changed lately.
    Wait,
}

/// The next actions of node `me`.
pub fn plan(
    me: NodeId,
    recorded: &SystemSnapshot,
    groups: &BTreeMap<GroupId, LocalGroup>,
    balance: Balance,
) -> Vec<Action> {
    let mut actions = Vec::new();
    let parting = recorded.parting();
    let leads_system = groups.get(&GroupId::SYSTEM).is_some_and(|group| group.leads);
    for database in recorded.databases.values() {
        plan_database(me, database, groups.get(&database.group), leads_system, &parting, &mut actions);
    }
    let known: BTreeSet<GroupId> = recorded.databases.values().map(|database| database.group).collect();
    for group in groups.keys().filter(|group| **group != GroupId::SYSTEM && !known.contains(group)) {
        if group.get() < recorded.counters.next_group {
            actions.push(Action::Remove(*group));
        }
    }
    if let Some(system) = groups.get(&GroupId::SYSTEM).filter(|system| system.leads) {
        plan_cluster(me, recorded, system, groups, &parting, &mut actions);
    }
    if actions.is_empty() && balance == Balance::Allowed {
        actions.extend(plan_balance(me, groups, &parting));
    }
    actions
}

/// What the leader of the system group does for the cluster as a whole.
fn plan_cluster(
    me: NodeId,
    recorded: &SystemSnapshot,
    system: &LocalGroup,
    groups: &BTreeMap<GroupId, LocalGroup>,
    parting: &BTreeSet<NodeId>,
    actions: &mut Vec<Action>,
) {
    let replicas: Vec<NodeId> = recorded.staying().take(REPLICAS_MAX).collect();
    for database in recorded.databases.values() {
        if database.state == DatabaseState::Ready && database.replicas != replicas {
            let (database, replicas) = (database.id, replicas.clone());
            actions.push(Action::RecordReplicas { database, replicas });
        }
    }
    // The records reach a node as long as the system group has it: so that group lets it go last.
    let is_held = |node: &NodeId| {
        let holds = |database: &DatabaseRecord| {
            let has_it = |local: &LocalGroup| local.has_member(*node) || local.members_changing;
            database.replicas.contains(node) || groups.get(&database.group).is_some_and(has_it)
        };
        recorded.databases.values().any(holds)
    };
    let free: BTreeSet<NodeId> = parting.iter().copied().filter(|node| !is_held(node)).collect();
    let members: Vec<NodeId> = recorded.staying().collect();
    if parting.contains(&me) {
        return plan_hand_over(me, GroupId::SYSTEM, system, parting, actions);
    }
    plan_members(GroupId::SYSTEM, system, &members, &free, actions);
    for node in recorded.nodes.values().filter(|node| free.contains(&node.id)) {
        if !system.has_member(node.id) && !system.members_changing {
            actions.push(Action::RecordRemoved(node.id));
        }
    }
}

/// The replica that should lead a new group: consecutive groups take consecutive replicas.
fn first_leader(database: &DatabaseRecord) -> Option<NodeId> {
    let count = u64::try_from(database.replicas.len()).ok()?;
    let at = database.group.get().checked_rem(count)?;
    database.replicas.get(usize::try_from(at).ok()?).copied()
}

fn plan_database(
    me: NodeId,
    database: &DatabaseRecord,
    local: Option<&LocalGroup>,
    leads_system: bool,
    parting: &BTreeSet<NodeId>,
    actions: &mut Vec<Action>,
) {
    let group = database.group;
    match (database.state, local) {
        (DatabaseState::Creating, None) => {
            if database.replicas.contains(&me) {
                let first = first_leader(database) == Some(me);
                let patience = if first { Duration::ZERO } else { FIRST_LEADER_PATIENCE };
                actions.push(Action::Found { group, members: database.replicas.clone(), patience });
            }
        }
        (DatabaseState::Ready, None) => {
            if database.replicas.contains(&me) {
                actions.push(Action::Open(group));
            }
        }
        (DatabaseState::Creating, Some(local)) => {
            if local.leads {
                actions.push(Action::RecordReady(database.id));
            }
        }
        (DatabaseState::Ready, Some(local)) => {
            if local.leads && parting.contains(&me) {
                plan_hand_over(me, group, local, parting, actions);
            } else if local.leads {
                let mut parting = parting.clone();
                parting.retain(|node| !database.replicas.contains(node));
                plan_members(group, local, &database.replicas, &parting, actions);
            }
        }
        (DatabaseState::Dropping, Some(_)) => actions.push(Action::Remove(group)),
        (DatabaseState::Dropping, None) => {
            if leads_system {
                actions.push(Action::RecordGone(database.id));
            }
        }
    }
}

/// One step towards the wanted members: membership changes one by one. Nodes that come are not held up by one that
/// leaves, nor the other way round.
fn plan_members(
    group: GroupId,
    local: &LocalGroup,
    wanted: &[NodeId],
    parting: &BTreeSet<NodeId>,
    actions: &mut Vec<Action>,
) {
    if local.joint {
        return actions.push(Action::FinishChange(group));
    }
    let missing = |node: &&NodeId| !local.voters.contains(node) && !parting.contains(node);
    for node in wanted.iter().filter(missing) {
        if !local.learners.contains(node) {
            return actions.push(Action::AddLearner { group, node: *node });
        }
        if local.caught_up.contains(node) {
            return actions.push(Action::Promote { group, node: *node });
        }
    }
    let mut leaving = parting.iter().filter(|node| local.has_member(**node));
    let spared = leaving.find(|node| local.learners.contains(node) || local.can_spare(**node));
    if let Some(node) = spared.filter(|_| !local.members_changing) {
        actions.push(Action::RemoveMember { group, node: *node });
    }
}

/// This node leaves: whoever stays and has everything leads next.
fn plan_hand_over(
    me: NodeId,
    group: GroupId,
    local: &LocalGroup,
    parting: &BTreeSet<NodeId>,
    actions: &mut Vec<Action>,
) {
    let fit = |node: &&NodeId| {
        **node != me
            && !parting.contains(node)
            && local.answering.contains(node)
            && local.caught_up.contains(node)
    };
    let to: Vec<NodeId> = local.voters.iter().filter(fit).copied().collect();
    if !to.is_empty() {
        actions.push(Action::HandOver { group, to });
    }
}

/// Moves one leadership from this node to the one with the fewest, when that evens them out.
fn plan_balance(
    me: NodeId,
    groups: &BTreeMap<GroupId, LocalGroup>,
    parting: &BTreeSet<NodeId>,
) -> Option<Action> {
    let mut counts: BTreeMap<NodeId, usize> = BTreeMap::new();
    for group in groups.values() {
        for voter in &group.voters {
            counts.entry(*voter).or_default();
        }
        // While some group has no leader, counting the others says little.
        *counts.entry(group.leader?).or_default() += 1;
    }
    let mine = counts.get(&me).copied().unwrap_or_default();
    let mut best: Option<(usize, GroupId, NodeId)> = None;
    for (group, local) in groups.iter().filter(|(_, local)| local.leads) {
        let fit = |node: &&NodeId| **node != me && !parting.contains(node);
        for to in local.voters.intersection(&local.caught_up).filter(fit) {
            let theirs = counts.get(to).copied().unwrap_or_default();
            if mine >= theirs + 2 && best.is_none_or(|(fewest, ..)| theirs < fewest) {
                best = Some((theirs, *group, *to));
            }
        }
    }
    best.map(|(_, group, to)| Action::Transfer { group, to })
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
