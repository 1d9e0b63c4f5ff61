//! Passes on who leads.

use std::sync::atomic::Ordering;

use openraft::async_runtime::WatchReceiver;
use rustydb_env::Bug;
use rustydb_types::ids::{NodeId, Term};

use super::{Group, GroupEvent, state_of};
use crate::{
    error::ConsensusError,
    machine::Leadership,
    node_state::{NodeState, NodeStateMachine},
    type_config::position_of,
};

/// Tells the state machine who leads, and the watchers of the group what changed.
pub(super) struct Watcher {
    group: Group,
    steps: NodeStateMachine,
    told: Option<Leadership>,
}

impl Watcher {
    pub(super) fn new(group: &Group) -> Self {
        Self { group: group.clone(), steps: NodeStateMachine::new(), told: None }
    }

    pub(super) async fn run(mut self) {
        let stopping = self.group.inner.tasks.stopping();
        let mut server = self.group.inner.handle.raft.server_metrics();
        let mut applied_term = self.group.inner.cell.watch_applied_term();
        loop {
            self.look();
            // Cancel-safe: each of the three loses nothing when dropped.
            tokio::select! {
                biased;
                () = stopping.wait() => return,
                changed = server.changed() => if changed.is_err() { return self.report_stop() },
                changed = applied_term.changed() => if changed.is_err() { return },
            }
        }
    }

    /// openraft's core has ended. Unless it was told to, the node cannot go on.
    fn report_stop(&self) {
        let inner = &self.group.inner;
        inner.cell.with(|machine| machine.leadership(Leadership::Follower { leader: None }));
        if inner.closing.load(Ordering::Acquire) {
            return;
        }
        let reason = match &inner.handle.raft.metrics().borrow_watched().running_state {
            Ok(()) => "the core ended without a reason".to_owned(),
            Err(fatal) => fatal.to_string(),
        };
        tracing::error!(group = inner.id.get(), node = inner.node.get(), %reason, "the group has stopped");
        let error = ConsensusError::Stopped { group: inner.id, reason };
        inner.failure.send_if_modified(|present| {
            let first = present.is_none();
            present.get_or_insert(error);
            first
        });
    }

    fn look(&mut self) {
        let inner = &self.group.inner;
        let (vote, state, leader, membership) = {
            let server = inner.handle.raft.server_metrics();
            let server = server.borrow_watched();
            (server.vote, server.state, server.current_leader, *server.membership_config.log_id())
        };
        let state = state_of(state);
        for passed in self.steps.observe(state) {
            tracing::info!(group = inner.id.get(), node = inner.node.get(), term = vote.leader_id.term, state = %passed, "state");
        }
        let term = Term::new(vote.leader_id.term);
        let leader = leader.map(NodeId::new);
        let leads =
            state == NodeState::Leader && vote.committed && vote.leader_id.voted_for == inner.node.get();
        let is_current = inner.cell.applied_term() == term || inner.env.has_bug(Bug::LeaseBeforeApplied);
        let leadership = if leads && is_current {
            Leadership::Leader { term }
        } else {
            Leadership::Follower { leader: leader.filter(|leader| *leader != inner.node) }
        };
        if self.told != Some(leadership) {
            // Two terms in a row at this node: the first must end before the second begins.
            if let (Some(Leadership::Leader { .. }), Leadership::Leader { .. }) = (self.told, leadership) {
                inner.cell.with(|machine| machine.leadership(Leadership::Follower { leader: None }));
            }
            inner.cell.with(|machine| machine.leadership(leadership));
            self.told = Some(leadership);
        }
        let event = GroupEvent { term, leader, membership: membership.as_ref().map(position_of) };
        inner.events.send_if_modified(|present| {
            let changed = *present != event;
            *present = event;
            changed
        });
    }
}
