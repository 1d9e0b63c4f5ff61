//! What a member does that has lost its log: it joins in again without breaking what it may have promised.
//!
//! The log held votes and acknowledged entries. A member that forgets them and goes on could vote twice in a term,
//! acknowledge entries of a leader that it has helped to depose, or elect one that lacks what was committed with its
//! help. So:
//!
//! ```text
//!   asking      every other member says for whom it has voted, which members it knows, and how far its log is;
//!               until all have, this member takes part in nothing
//!   following   the highest of their terms is its own, durably; it takes entries and acknowledges what it has on its
//!               disk; it neither votes nor campaigns, and tells nobody where it stands
//!   mended      it has, durably, all that the leader of its term had in its log at some moment after the asking
//! ```
//!
//! Why that is enough. A candidate that this member had voted for had its term on its own disk before it asked, and it is
//! among those that were asked: so the term that is taken is at least that, and whatever an earlier leader still sends
//! is refused, as if the vote were remembered. An entry that was committed with the help of a lost acknowledgement is on
//! the disks of all but one of a majority; without this member's vote only somebody who has it can be elected, and so it
//! is in the log of whoever leads then. Before the member votes again it has got it from there. Members that have lost
//! their logs themselves do not answer, so two of them do not mend each other.
//!
//! Learners are asked as voters are: one may have been made a voter by an entry that only it and this member had, and
//! have campaigned with this member's vote. To be made a learner was committed before, so a majority names it.
//!
//! A member that never answers holds this up. A state is not touched by any of this; what
//! was applied was committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::VoteRequest;
use rustydb_env::ambient;
use rustydb_proto::v1::{self, raft_frame::Body, raft_refusal::Reason};
use rustydb_types::{
    ids::{GroupId, NodeId},
    position::LogPosition,
};
use tokio::sync::oneshot;

use crate::{
    calls::Calls,
    codec,
    config::ConsensusConfig,
    error::ConsensusError,
    group::{Group, RaftHandle},
    groups::Groups,
    proposer::RaftProposer,
    state_machine::MachineCell,
    transport::Lane,
    type_config::{StoredMembership, Vote, position_of},
};

/// Pause before those that did not answer are asked again, and between two looks at how far the log is.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Pause between two looks at a log that is filling.
const LOOK: Duration = Duration::from_millis(5);

/// Where a member stands.
struct Standing {
    vote: Vote,
    last: Option<LogPosition>,
    members: BTreeSet<NodeId>,
}

/// What is known of a group that has lost its log, before it is opened.
pub(crate) enum Inquiry {
    /// The others are being asked.
    Asking,
    /// All have answered.
    Answered {
        /// As it was opened for the asking.
        proposer: Arc<RaftProposer>,
        /// The same.
        cell: Arc<MachineCell>,
        /// The highest vote among theirs.
        vote: Vote,
    },
}

/// Asks a member where it stands. [`None`] when it does not say.
async fn ask(
    calls: &Arc<Calls>,
    config: &ConsensusConfig,
    group: GroupId,
    node: NodeId,
    log_lost: bool,
) -> Option<Standing> {
    let body = Body::Standing(v1::RaftStandingAsk { log_lost });
    let call = calls.start(node, Lane::Consensus, group, body).ok()?;
    let answer = match ambient::timeout(config.read_timeout, call).await {
        Ok(Ok(Body::StandingAnswer(answer))) => answer,
        _ => return None,
    };
    let stored = codec::stored_membership_from_wire(answer.membership.as_ref()?).ok()?;
    Some(Standing {
        vote: codec::required_vote("standing", answer.vote.as_ref()).ok()?,
        last: answer.last.as_ref().map(|last| position_of(&codec::log_id_from_wire(last))),
        members: members_of(&stored),
    })
}

/// Voters and learners.
fn members_of(stored: &StoredMembership) -> BTreeSet<NodeId> {
    stored.membership().nodes().map(|(node, _)| NodeId::new(*node)).collect()
}

/// The answer to a member that asks where this one stands.
pub(crate) async fn answer(
    raft: &RaftHandle,
    from: NodeId,
    asked: v1::RaftStandingAsk,
) -> Result<Body, (Reason, String)> {
    let raft = raft.raft();
    let stopped = |reason: String| (Reason::Stopped, reason);
    if asked.log_lost {
        // Whoever does not lead keeps no account of the other's log.
        let allowed = raft.trigger().allow_next_revert(&from.get(), true).await;
        let _follower = allowed.map_err(|error| stopped(error.to_string()))?;
    }
    // Answered by the core, behind all that it has decided so far; of this term nobody gets a vote.
    let nobody = VoteRequest::new(Vote::new(0, from.get()), None);
    let known = raft.pre_vote(nobody).await.map_err(|error| stopped(error.to_string()))?;
    let membership = raft.metrics().borrow_watched().membership_config.clone();
    Ok(Body::StandingAnswer(v1::RaftStandingAnswer {
        vote: Some(codec::vote_to_wire(&known.vote)),
        last: known.last_log_id.as_ref().map(codec::log_id_to_wire),
        membership: Some(codec::stored_membership_to_wire(&membership)),
    }))
}

impl Groups {
    /// Asks all other members, opens the group when all have answered.
    pub(crate) async fn inquire(self, id: GroupId, proposer: Arc<RaftProposer>, cell: Arc<MachineCell>) {
        let me = self.node();
        let mut known: BTreeMap<NodeId, Standing> = BTreeMap::new();
        let mut told = None;
        let applied = cell.applied().membership;
        let (voters, mut members) = codec::decode_stored_membership(&applied)
            .map(|stored| {
                let voters: BTreeSet<NodeId> = stored.membership().voter_ids().map(NodeId::new).collect();
                (voters, members_of(&stored))
            })
            .unwrap_or_default();
        if voters == BTreeSet::from([me]) {
            let reason = "the log is damaged".to_owned();
            return self.fail(ConsensusError::OnlyCopy { group: id, reason });
        }
        loop {
            if self.is_removed(id) {
                return;
            }
            let others = members.iter().filter(|node| **node != me && !known.contains_key(*node));
            let missing: BTreeSet<NodeId> = others.copied().collect();
            if missing.is_empty() && !members.is_empty() {
                break;
            }
            if told.as_ref() != Some(&missing) {
                tracing::warn!(
                    group = id.get(),
                    node = me.get(),
                    ?missing,
                    "the log was lost; these nodes must say for whom they have voted before this one takes part again"
                );
                told = Some(missing.clone());
            }
            let asked = missing.into_iter().map(|node| {
                let (calls, config) = (self.calls(), self.config());
                async move { Some((node, ask(calls, config, id, node, true).await?)) }
            });
            for (node, standing) in join_all(asked).await.into_iter().flatten() {
                members.extend(&standing.members);
                known.insert(node, standing);
            }
            ambient::sleep(ASK_AGAIN).await;
        }
        let highest = known.values().map(|standing| standing.vote).max_by_key(|vote| vote.leader_id.term);
        let Some(vote) = highest else { return };
        // Whoever leads that term says so itself.
        let vote = Vote { committed: false, ..vote };
        tracing::info!(
            group = id.get(),
            node = me.get(),
            term = vote.leader_id.term,
            "all have answered; following"
        );
        self.answered(id, Inquiry::Answered { proposer, cell, vote });
        if let Err(error) = self.open_group(id).await {
            self.fail(error);
        }
    }
}

impl Group {
    /// Follows until there is nothing any more that was promised and is not here; then takes part in elections.
    pub(crate) async fn mend(self) {
        let stopping = self.tasks().stopping();
        loop {
            tokio::select! {
                biased;
                () = stopping.wait() => return,
                has_all = self.has_all() => if has_all && self.note_mended().await { return },
            }
            if self.env().timeout(ASK_AGAIN, stopping.wait()).await.is_ok() {
                return;
            }
        }
    }

    /// Whether this member has, durably, what the leader of its term has in its log now.
    async fn has_all(&self) -> bool {
        let vote = self.handle().vote();
        let leader = NodeId::new(vote.leader_id.voted_for);
        if !vote.committed || leader == self.node() {
            return false;
        }
        let config = self.handle().config();
        let Some(theirs) = ask(self.calls(), config, self.id(), leader, false).await else { return false };
        // A leader's own first entry stands for all before it.
        let last = theirs.last.filter(|last| last.term.get() == vote.leader_id.term);
        let Some(last) = last.filter(|_| theirs.vote == vote) else { return false };
        let log = self.handle().group_log();
        let filling = async {
            while log.state().last < Some(last) && self.handle().vote() == vote {
                ambient::sleep(LOOK).await;
            }
        };
        if ambient::timeout(config.change_timeout, filling).await.is_err() || self.handle().vote() != vote {
            return false;
        }
        // What was submitted before is durable when this is.
        let (done, written) = oneshot::channel();
        log.append(Vec::new(), Box::new(move |result| drop(done.send(result))));
        matches!(written.await, Ok(Ok(())))
    }
}
