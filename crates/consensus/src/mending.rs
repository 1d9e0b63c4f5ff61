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
//! is in the log of whoever leads then. Before the member votes again it has got it from there.
//!
//! Learners are asked as voters are: one may have been made a voter by an entry that only it and this member had, and
//! have campaigned with this member's vote. To be made a learner was committed before, so a majority names it.
//!
//! **Who was removed need not answer**, once somebody knows that this was committed. Those that must answer are in the
//! last members that are known to be committed, and in all that were named after those. Let c be in none of them. Who
//! knows of the removal heard it from a leader of some term, and has at least that term; so this member takes it,
//! and c counts for nothing in any term up to that. In a later one c is not elected: a majority of the members before
//! has the removal, c has not, and whoever of them had it would not vote for c. This member is no exception. If it
//! had the removal before it lost its log, it did not vote for c in that term afterwards, and before, in a later term than
//! the removal's, it would not have taken the removal. Now it votes for nobody until it is mended, and then it has
//! the removal again. Members that were added later are named by whoever made up a majority of those that are asked.
//! What is committed and what is at the end of the log is read from openraft's own state, before the vote is: so the vote
//! is never older.
//!
//! **Members that have lost their logs, too,** say just that, and answer for nothing. All others must have answered,
//! and of no set of voters may a majority have lost its logs. Then every majority, of those that voted and of those that
//! acknowledged, had a sound member, which answers: a leader's term is known to the one that voted for it, and each
//! committed entry is on a sound disk. As long as the lost ones do not vote, a majority of sound members elects,
//! one of which has the entry; so the argument above holds for each of them. A term that only lost members knew was never led
//! in, and who campaigned in it has forgotten it, and restarted, so that no answer reaches it. A member that was mended
//! counts as sound: it knows the term, and has the entries, of all sound ones of then.
//! If a majority has lost its logs, an entry may be on none of the disks that are left, and nobody could tell. That is
//! said and waited for; the way out is a data folder that is put back as it was, or a new cluster.
//!
//! A sound member that never answers and was not removed holds this up. A state is not touched by any of this; what was
//! applied was committed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::raft::VoteRequest;
use rustydb_env::ambient;
use rustydb_proto::v1::{self, raft_frame::Body, raft_refusal::Reason};
use rustydb_types::ids::{GroupId, NodeId};
use tokio::sync::oneshot;

use crate::{
    calls::Calls,
    codec,
    config::ConsensusConfig,
    error::ConsensusError,
    group::{Group, RaftHandle},
    groups::Groups,
    inquiry::{Answer, Known, Standing, Verdict},
    proposer::RaftProposer,
    state_machine::MachineCell,
    transport::Lane,
    type_config::{Vote, position_of},
};

/// Pause before those that did not answer are asked again, and between two looks at how far the log is.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Pause between two looks at a log that is filling.
const LOOK: Duration = Duration::from_millis(5);

/// What is known of a group that has lost its log, before it is opened.
pub(crate) enum Inquiry {
    /// The others are being asked.
    Asking,
    /// Enough is known.
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
) -> Option<Body> {
    let body = Body::Standing(v1::RaftStandingAsk { log_lost });
    let call = calls.start(node, Lane::Consensus, group, body).ok()?;
    ambient::timeout(config.read_timeout, call).await.ok()?.ok()
}

/// What a node said, if it can be read.
fn understood(answer: &Body) -> Option<Answer> {
    let answer = match answer {
        Body::StandingAnswer(answer) if answer.log_lost => return Some(Answer::Lost),
        Body::StandingAnswer(answer) => answer,
        Body::Refusal(refusal) if refusal.reason() == Reason::UnknownGroup => return Some(Answer::Unknown),
        _ => return None,
    };
    let members = |named: Option<&v1::RaftStoredMembership>| codec::stored_membership_from_wire(named?).ok();
    Some(Answer::Stands(Standing {
        vote: codec::required_vote("standing", answer.vote.as_ref()).ok()?,
        committed: members(answer.committed.as_ref())?,
        effective: members(answer.membership.as_ref())?,
    }))
}

/// The answer of a member that has lost its own log.
pub(crate) fn lost_too() -> Body {
    Body::StandingAnswer(v1::RaftStandingAnswer { log_lost: true, ..v1::RaftStandingAnswer::default() })
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
    let members = raft.with_raft_state(|state| {
        let members = &state.membership_state;
        (Arc::clone(members.committed()), Arc::clone(members.effective()))
    });
    let (committed, effective) = members.await.map_err(|error| stopped(error.to_string()))?;
    // Answered by the core, behind all that it has decided so far; of this term nobody gets a vote.
    let nobody = VoteRequest::new(Vote::new(0, from.get()), None);
    let known = raft.pre_vote(nobody).await.map_err(|error| stopped(error.to_string()))?;
    Ok(Body::StandingAnswer(v1::RaftStandingAnswer {
        vote: Some(codec::vote_to_wire(&known.vote)),
        last: known.last_log_id.as_ref().map(codec::log_id_to_wire),
        membership: Some(codec::stored_membership_to_wire(&effective)),
        log_lost: false,
        committed: Some(codec::stored_membership_to_wire(&committed)),
    }))
}

impl Groups {
    /// Asks all other members, opens the group when enough is known.
    pub(crate) async fn inquire(self, id: GroupId, proposer: Arc<RaftProposer>, cell: Arc<MachineCell>) {
        let (me, peers) = (self.node(), self.peers());
        let applied = codec::decode_stored_membership(&cell.applied().membership).ok();
        let mut known = Known::new(me, applied);
        let mut told = None;
        let (vote, can_elect) = loop {
            if self.is_removed(id) {
                return;
            }
            let verdict = known.verdict(peers);
            match &verdict {
                Verdict::Enough { vote, can_elect } => break (*vote, *can_elect),
                Verdict::OnlyCopy => {
                    let reason = "the log is damaged or gone".to_owned();
                    return self.fail(ConsensusError::OnlyCopy { group: id, reason });
                }
                Verdict::Missing(_) | Verdict::TooManyLost(_) => {}
            }
            if told.as_ref() != Some(&verdict) {
                tell(id, me, &verdict);
                told = Some(verdict);
            }
            let asked = known.to_ask(peers).into_iter().map(|node| {
                let (calls, config) = (self.calls(), self.config());
                async move { (node, ask(calls, config, id, node, true).await) }
            });
            for (node, answer) in join_all(asked).await {
                if let Some(answer) = answer.as_ref().and_then(understood) {
                    known.take(node, answer);
                }
            }
            ambient::sleep(ASK_AGAIN).await;
        };
        // Whoever leads that term says so itself.
        let vote = Vote { committed: false, ..vote };
        let (group, node, term) = (id.get(), me.get(), vote.leader_id.term);
        tracing::info!(group, node, term, "all have answered; following");
        if !can_elect {
            tracing::warn!(
                group,
                node,
                "without the members that have lost their logs no majority elects a leader: if none leads now, \
                 put the data folder of one of them back as it was"
            );
        }
        self.answered(id, Inquiry::Answered { proposer, cell, vote });
        if let Err(error) = self.open_group(id).await {
            self.fail(error);
        }
    }
}

/// Says what is waited for, and what can be done.
fn tell(group: GroupId, me: NodeId, verdict: &Verdict) {
    let (group, node) = (group.get(), me.get());
    match verdict {
        Verdict::Missing(missing) => tracing::warn!(
            group,
            node,
            ?missing,
            "the log was lost; these nodes must say for whom they have voted before this one takes part again"
        ),
        Verdict::TooManyLost(lost) => tracing::error!(
            group,
            node,
            ?lost,
            "a majority of the voters have lost their logs, and what they acknowledged may be nowhere: \
             put the data folder of one of these nodes back as it was, or begin a new cluster"
        ),
        Verdict::OnlyCopy | Verdict::Enough { .. } => {}
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
        let answer = ask(self.calls(), config, self.id(), leader, false).await;
        let Some(Body::StandingAnswer(theirs)) = answer else { return false };
        let votes = codec::required_vote("standing", theirs.vote.as_ref()).is_ok_and(|theirs| theirs == vote);
        // A leader's own first entry stands for all before it.
        let last = theirs.last.as_ref().map(|last| position_of(&codec::log_id_from_wire(last)));
        let last = last.filter(|last| votes && last.term.get() == vote.leader_id.term);
        let Some(last) = last else { return false };
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
