//! Carries out the reconcile plan.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rustydb_sql::session::token::TokenKey;
use rustydb_sql::system::SystemCommand;
use rustydb_types::ids::{GroupId, NodeId};

use super::membership::FIRST;
use super::reconcile::{Action, Balance, plan};
use super::{Inner, NodeError, watch};

/// Pause between two looks when nothing happens; a change is looked at at once.
const CALM: Duration = Duration::from_millis(250);
/// Pause while there is something to do.
const BUSY: Duration = Duration::from_millis(20);
/// Leaders are moved only after this long without any change.
const BALANCE_AFTER: Duration = Duration::from_secs(5);
/// Longest time for one action; an action that is not done by then is planned again.
const ACTION_DEADLINE: Duration = Duration::from_secs(10);

/// Runs until the node stops.
pub(crate) async fn run(node: Arc<Inner>) {
    let mut changed = node.system.subscribe();
    let mut calm_since = node.env.now();
    loop {
        keep_own_record(&node).await;
        let recorded = node.system.latest();
        let places = recorded.nodes.values().map(|record| (record.id, record.interconnect_address.clone()));
        for (id, address) in places.clone() {
            node.replicas.note_recorded_address(id, &address);
        }
        node.addresses.keep(places).await;
        for removed in &recorded.removed {
            node.forget(*removed);
        }
        let balance = if node.env.now().saturating_since(calm_since) >= BALANCE_AFTER {
            Balance::Allowed
        } else {
            Balance::Wait
        };
        leave_full_disk(&node).await;
        let mut actions = founding(&node);
        actions.extend(leftovers(&node));
        actions.extend(plan(node.me, &node.system.latest(), &node.replicas.view(), balance));
        let pause = if actions.is_empty() { CALM } else { BUSY };
        if !actions.is_empty() {
            calm_since = node.env.now();
            carry_out(&node, actions).await;
        }
        tokio::select! {
            biased;
            () = node.stopping.wait() => return,
            _ = changed.changed() => {}
            () = node.wake.notified() => {}
            () = node.replicas.changed() => {}
            () = node.env.sleep(pause) => {}
        }
    }
}

/// What the founder of a cluster has to do until its first rows are there.
fn founding(node: &Inner) -> Vec<Action> {
    let mut actions = Vec::new();
    if node.cluster_id().is_none() {
        return actions;
    }
    match node.replicas.view().get(&GroupId::SYSTEM) {
        None => actions.push(Action::Open(GroupId::SYSTEM)),
        Some(system) if !system.initialized && node.is_founder() => {
            actions.push(Action::Initialize);
        }
        Some(_) => {}
    }
    actions
}

/// While this node's disk is full: hands each group that it leads to a voter with room. If there is none it goes on
/// leading, since reads need a leader too.
async fn leave_full_disk(node: &Inner) {
    if !node.log.is_full() {
        return;
    }
    for (group, local) in node.replicas.view().into_iter().filter(|(_, local)| local.leads) {
        for to in local.voters.intersection(&local.caught_up).filter(|to| **to != node.me) {
            if !node.is_fit_to_lead(*to).await {
                continue;
            }
            tracing::info!(%group, %to, "handing over a leadership because the disk is full");
            match node.replicas.transfer(group, *to).await {
                Ok(()) => break,
                Err(error) => tracing::info!(%group, %to, %error, "the leadership was not handed over"),
            }
        }
    }
}

/// Groups of which files or log are left although they were dropped while this node was away.
fn leftovers(node: &Inner) -> Vec<Action> {
    let recorded = node.system.latest();
    let known = |group: &GroupId| {
        *group == GroupId::SYSTEM || recorded.databases.values().any(|database| database.group == *group)
    };
    let on_disk = node.databases.on_disk().unwrap_or_else(|error| {
        tracing::warn!(%error, "the folder of the groups cannot be read; what was dropped is removed once it can");
        Vec::new()
    });
    let left = on_disk.into_iter().chain(node.replicas.groups().in_log());
    left.filter(|group| !known(group) && group.get() < recorded.counters.next_group)
        .map(Action::Remove)
        .collect()
}

/// Writes the first rows if they are missing, and this node's record if it changed.
async fn keep_own_record(node: &Arc<Inner>) {
    let recorded = node.system.latest();
    let own = node.own_record();
    let command = if recorded.roles.is_empty() {
        let leads = node.replicas.view().get(&GroupId::SYSTEM).is_some_and(|system| system.leads);
        if !(leads && node.is_founder()) {
            return;
        }
        let (role, database) = (FIRST.to_owned(), FIRST.to_owned());
        let token_key = TokenKey::random(&mut node.env.rng());
        SystemCommand::Bootstrap { role, database, nodes: vec![own], token_key }
    } else {
        match recorded.nodes.get(&node.me) {
            Some(present) => {
                let own = super::with_marks_of(own, present);
                if *present == own {
                    return;
                }
                SystemCommand::PutNode { node: own }
            }
            None => return,
        }
    };
    if let Err(refusal) = node.execute_system(&command).await {
        tracing::debug!(%refusal, "own record not written yet");
    }
}

/// Actions of different groups run side by side, those of one group in order.
async fn carry_out(node: &Arc<Inner>, actions: Vec<Action>) {
    let mut by_group: BTreeMap<GroupId, Vec<Action>> = BTreeMap::new();
    for action in actions {
        by_group.entry(group_of(node, &action)).or_default().push(action);
    }
    let run = |actions: Vec<Action>| async move {
        for action in actions {
            let text = format!("{action:?}");
            match node.env.timeout(ACTION_DEADLINE, act(node, action)).await {
                Ok(Ok(())) => tracing::debug!(action = text, "done"),
                Ok(Err(error)) => {
                    tracing::info!(action = text, %error, "not done yet");
                    return;
                }
                Err(_) => {
                    tracing::warn!(action = text, deadline = ?ACTION_DEADLINE, "took too long");
                    return;
                }
            }
        }
    };
    join_all(by_group.into_values().map(run)).await;
}

fn group_of(node: &Inner, action: &Action) -> GroupId {
    let database = |id| node.system.latest().databases.get(id).map_or(GroupId::SYSTEM, |record| record.group);
    match action {
        Action::Open(group) | Action::Remove(group) | Action::FinishChange(group) => *group,
        Action::Initialize => GroupId::SYSTEM,
        Action::Found { group, .. }
        | Action::AddLearner { group, .. }
        | Action::Promote { group, .. }
        | Action::RemoveMember { group, .. }
        | Action::HandOver { group, .. }
        | Action::Transfer { group, .. } => *group,
        Action::RecordRemoved(_) => GroupId::SYSTEM,
        Action::RecordReady(id) | Action::RecordGone(id) => database(id),
        Action::RecordReplicas { database: id, .. } => database(id),
    }
}

async fn act(node: &Arc<Inner>, action: Action) -> Result<(), NodeError> {
    let execute = |command: SystemCommand| async move {
        node.execute_system(&command)
            .await
            .map_err(|refusal| NodeError::System { reason: refusal.to_string() })
    };
    match action {
        Action::Open(group) => node.replicas.open(group).await,
        Action::Found { group, members, patience } => {
            tracing::info!(%group, ?members, "forming a group");
            node.replicas.found(group, members, patience).await
        }
        Action::Initialize => {
            tracing::info!("forming the system group");
            node.replicas.initialize(GroupId::SYSTEM, vec![node.me]).await
        }
        Action::Remove(group) => {
            tracing::info!(%group, "removing a group");
            node.databases.forget(group);
            node.replicas.remove(group).await
        }
        Action::AddLearner { group, node: learner } => {
            tracing::info!(%group, %learner, "adding a learner");
            node.replicas.add_learner(group, learner).await
        }
        Action::Promote { group, node: voter } => {
            tracing::info!(%group, %voter, "making a learner a voter");
            node.replicas.promote(group, voter).await
        }
        Action::FinishChange(group) => {
            tracing::info!(%group, "ending a change of voters that is half done");
            node.replicas.finish_change(group).await
        }
        Action::RemoveMember { group, node: leaving } => {
            tracing::info!(%group, %leaving, "removing a member");
            node.replicas.remove_member(group, leaving).await
        }
        Action::HandOver { group, to } => hand_over(node, group, &to).await,
        Action::Transfer { group, to } => {
            // A node that is down has no leaderships either, and proposals wait while a transfer goes on.
            if !node.is_fit_to_lead(to).await {
                return Ok(());
            }
            // Open transactions would fail with it; it can wait for a better moment.
            if let Some(store) = node.databases.store(group)
                && !watch::calm_moment(&store, &node.env).await
            {
                return Ok(());
            }
            tracing::info!(%group, %to, "handing over a leadership to even them out");
            node.replicas.transfer(group, to).await
        }
        Action::RecordReady(id) => execute(SystemCommand::DatabaseReady { id }).await,
        Action::RecordGone(id) => execute(SystemCommand::DatabaseGone { id }).await,
        Action::RecordReplicas { database: id, replicas } => {
            execute(SystemCommand::SetReplicas { id, replicas }).await
        }
        Action::RecordRemoved(removed) => {
            node.dismiss(removed).await;
            execute(SystemCommand::RemoveNode { id: removed }).await?;
            tracing::info!(node = %removed, "a node was removed");
            Ok(())
        }
    }
}

/// Hands a group over because this node leaves: to one that is fit to lead if there is one, else to one that votes.
async fn hand_over(node: &Arc<Inner>, group: GroupId, to: &[NodeId]) -> Result<(), NodeError> {
    let mut best = to.first();
    for candidate in to {
        if node.is_fit_to_lead(*candidate).await {
            best = Some(candidate);
            break;
        }
    }
    let Some(to) = best else { return Ok(()) };
    if let Some(store) = node.databases.store(group) {
        // It goes in any case.
        let _is_calm = watch::calm_moment(&store, &node.env).await;
    }
    tracing::info!(%group, %to, "handing over a leadership because this node is being removed");
    node.replicas.transfer(group, *to).await
}
