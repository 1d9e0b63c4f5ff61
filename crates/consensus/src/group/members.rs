//! Who belongs to a group, and who of them leads it.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::{
    ChangeMembers, Raft,
    async_runtime::WatchReceiver,
    errors::{ChangeMembershipError, ClientWriteError, InitializeError, RaftError},
};
use rustydb_types::ids::{NodeId, Term};

use super::{Group, RaftStatus};
use crate::{
    error::ConsensusError,
    node_state::NodeState,
    state_machine::StateMachine,
    type_config::{Member, TypeConfig},
};

/// Pause between two looks for a voter that can be elected.
const ASK_AGAIN: Duration = Duration::from_millis(50);

impl Group {
    /// Gives the group its first members. Called at one of them; the others learn it from the log. Calling it
    /// again, anywhere, changes nothing.
    ///
    /// # Errors
    /// [`ConsensusError::Refused`] when this node is not among the members.
    pub async fn initialize(&self, members: &BTreeSet<NodeId>) -> Result<(), ConsensusError> {
        let ids: BTreeSet<u64> = members.iter().map(|node| node.get()).collect();
        let nodes: std::collections::BTreeMap<u64, Member> = ids.iter().map(|node| (*node, Member)).collect();
        match self.inner.handle.raft.initialize(nodes).await {
            Ok(()) => self.wait_for_first_entry().await,
            // Not allowed: there is a log or a vote, so it has members or is about to learn them.
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotInMembers(error))) => {
                Err(ConsensusError::Refused { group: self.inner.id, reason: error.to_string() })
            }
            Err(RaftError::Fatal(fatal)) => Err(self.inner.handle.stopped(fatal)),
        }
    }

    /// openraft answers before the first entry is on disk; a crash then would leave a group without members of
    /// which somebody was told that it has some.
    async fn wait_for_first_entry(&self) -> Result<(), ConsensusError> {
        let mut progress = self.inner.handle.raft.watch_log_progress();
        let flushed = async {
            // The newest flush may be that of a vote that followed the entry, which names no entry: they are flushed
            // in their order, and before this call there was neither.
            let first = |flushed: &openraft::raft::FlushPoint<TypeConfig>| {
                flushed.last_log_id.is_some() || flushed.vote.leader_id.term > 0
            };
            while !progress.get().as_ref().is_some_and(first) {
                progress.changed().await.map_err(|_| self.inner.handle.stopped("the group was closed"))?;
            }
            Ok(())
        };
        let waited = self.inner.env.timeout(self.inner.config.change_timeout, flushed).await;
        waited.unwrap_or(Err(ConsensusError::TimedOut { group: self.inner.id }))
    }

    /// Adds a node that receives the log and has no vote. Adding one that is a member already changes nothing.
    ///
    /// # Errors
    /// See [`ConsensusError`]; only the leader can do this.
    pub async fn add_learner(&self, node: NodeId) -> Result<(), ConsensusError> {
        let status = self.status();
        if status.voters.contains(&node) || status.learners.contains(&node) {
            return self.require_leader(&status);
        }
        self.change(ChangeMembers::AddNodes([(node.get(), Member)].into())).await
    }

    /// Gives a learner a vote, by joint consensus.
    ///
    /// # Errors
    /// See [`ConsensusError`]; only the leader can do this, and only for a learner.
    pub async fn promote(&self, node: NodeId) -> Result<(), ConsensusError> {
        let status = self.status();
        if status.voters.contains(&node) && !status.joint {
            return self.require_leader(&status);
        }
        self.change(ChangeMembers::AddVoterIds([node.get()].into())).await
    }

    /// Takes a node out of the group, by joint consensus if it has a vote.
    ///
    /// # Errors
    /// See [`ConsensusError`]; only the leader can do this. The last voter cannot be removed. A leader that is to be
    /// removed hands over first, and is [`ConsensusError::Busy`]: the next leader removes it.
    pub async fn remove(&self, node: NodeId) -> Result<(), ConsensusError> {
        let status = self.status();
        if node == self.inner.node && status.state == NodeState::Leader && status.voters.len() > 1 {
            // A leader without a vote leads on until its removal is committed and then falls silent: the others would
            // wait for their election timeouts.
            self.step_down().await?;
            return Err(ConsensusError::Busy {
                group: self.inner.id,
                reason: "its leader hands over before it is removed".to_owned(),
            });
        }
        if status.voters.contains(&node) || status.joint {
            self.change(ChangeMembers::RemoveVoters([node.get()].into())).await?;
        }
        if self.status().learners.contains(&node) {
            return self.change(ChangeMembers::RemoveNodes([node.get()].into())).await;
        }
        self.require_leader(&self.status())
    }

    /// Ends a change of voters that was begun, here or by an earlier leader, and is only half done: until then the voters
    /// before it and after it must both agree.
    ///
    /// # Errors
    /// See [`ConsensusError`]; only the leader can do this.
    pub async fn finish_change(&self) -> Result<(), ConsensusError> {
        let voters = {
            let metrics = self.inner.handle.raft.metrics();
            let metrics = metrics.borrow_watched();
            let configs = metrics.membership_config.membership().get_joint_config();
            configs.last().filter(|_| configs.len() > 1).cloned()
        };
        match voters {
            Some(voters) => self.change(ChangeMembers::ReplaceAllVoters(voters)).await,
            None => self.require_leader(&self.status()),
        }
    }

    fn require_leader(&self, status: &RaftStatus) -> Result<(), ConsensusError> {
        if status.state == NodeState::Leader {
            return Ok(());
        }
        Err(ConsensusError::NotLeader { group: self.inner.id, leader: status.leader })
    }

    async fn change(&self, change: ChangeMembers<u64, Member>) -> Result<(), ConsensusError> {
        let group = self.inner.id;
        let changing = self.inner.handle.raft.change_membership(change, false);
        let result = match self.inner.env.timeout(self.inner.config.change_timeout, changing).await {
            Ok(result) => result,
            Err(_) => return Err(ConsensusError::TimedOut { group }),
        };
        let error = match result {
            Ok(_) => return Ok(()),
            Err(RaftError::Fatal(fatal)) => return Err(self.inner.handle.stopped(fatal)),
            Err(RaftError::APIError(error)) => error,
        };
        Err(match error {
            ClientWriteError::ForwardToLeader(forward) => {
                ConsensusError::NotLeader { group, leader: forward.leader_id.map(NodeId::new) }
            }
            ClientWriteError::LogEntryDiscarded(_) => ConsensusError::Unknown { group },
            ClientWriteError::ChangeMembershipError(
                error @ (ChangeMembershipError::InProgress(_)
                | ChangeMembershipError::UncommittedLeaderLog(_)),
            ) => ConsensusError::Busy { group, reason: error.to_string() },
            other => ConsensusError::Refused { group, reason: other.to_string() },
        })
    }

    /// Hands leadership to a voter and waits until it is known to lead. Handing over to the present leader changes
    /// nothing. While it goes on, proposals are refused.
    ///
    /// # Errors
    /// See [`ConsensusError`]. [`ConsensusError::TimedOut`]: some voter, maybe this one, is elected instead.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), ConsensusError> {
        let status = self.status();
        if status.leader == Some(to) {
            return Ok(());
        }
        self.require_leader(&status)?;
        let group = self.inner.id;
        if !status.voters.contains(&to) {
            return Err(ConsensusError::Refused { group, reason: format!("node {to} has no vote") });
        }
        // Nobody could propose until its election would have failed.
        if !self.answering().contains(&to) {
            return Err(ConsensusError::Refused { group, reason: format!("node {to} does not answer") });
        }
        let mut events = self.watch();
        self.inner.proposer.distrust_lease(status.term);
        let trigger = self.inner.handle.raft.trigger();
        trigger.transfer_leader(to.get()).await.map_err(|fatal| self.inner.handle.stopped(fatal))?;
        let elected = events.wait_for(|event| event.term > status.term && event.leader.is_some());
        match self.inner.env.timeout(self.inner.config.election_timeout_max * 3, elected).await {
            Ok(Ok(())) if events.borrow().leader == Some(to) => Ok(()),
            Ok(Ok(())) => {
                Err(ConsensusError::Busy { group, reason: "another voter was elected instead".to_owned() })
            }
            Ok(Err(_)) => Err(self.inner.handle.stopped("the group was closed")),
            Err(_) => {
                self.give_up_leading(status.term).await;
                Err(ConsensusError::TimedOut { group })
            }
        }
    }

    /// After a transfer that nobody took: openraft takes no more proposals in this term, and would go on leading for
    /// ever. Without heartbeats the voters elect somebody, maybe this node.
    async fn give_up_leading(&self, term: Term) {
        /// Heartbeats go on when the wait is over, or cancelled.
        struct Silent<'a>(&'a Raft<TypeConfig, StateMachine>);
        impl Drop for Silent<'_> {
            fn drop(&mut self) {
                self.0.runtime_config().heartbeat(true);
            }
        }
        let mut events = self.watch();
        self.inner.handle.raft.runtime_config().heartbeat(false);
        let _silent = Silent(&self.inner.handle.raft);
        let replaced = events.wait_for(|event| event.term > term && event.leader.is_some());
        if self.inner.env.timeout(self.inner.config.change_timeout, replaced).await.is_err() {
            tracing::warn!(
                group = self.inner.id.get(),
                "nobody was elected after a failed transfer of leadership"
            );
        }
    }

    /// Hands leadership to the voter with the longest log of those that answered lately and can be elected. Waits a moment
    /// for one that cannot be yet. Does nothing when this node does not lead or there is no such voter.
    ///
    /// # Errors
    /// As [`Group::transfer_leader`].
    pub async fn step_down(&self) -> Result<(), ConsensusError> {
        let deadline = self.inner.env.now() + self.inner.config.election_timeout_max * 3;
        loop {
            let status = self.status();
            if status.state != NodeState::Leader {
                return Ok(());
            }
            let answering = self.answering();
            let others = status.matched.iter().filter(|(node, _)| {
                *node != self.inner.node && status.voters.contains(node) && answering.contains(node)
            });
            let asked = others.map(|(node, at)| async move { (self.can_lead(*node).await, *at, *node) });
            let heirs = join_all(asked).await;
            // One that does not say is better than none once it is late: offered leadership, it may still take it.
            let is_late = self.inner.env.now() >= deadline;
            let is_fit = |can_lead: Option<bool>| can_lead.unwrap_or(is_late);
            match heirs.iter().filter(|(can_lead, ..)| is_fit(*can_lead)).max() {
                Some((.., node)) => return self.transfer_leader(*node).await,
                None if heirs.is_empty() || is_late => return Ok(()),
                None => self.inner.env.sleep(ASK_AGAIN).await,
            }
        }
    }
}
