//! One Raft group at this node.

mod agreement;
mod members;
mod upkeep;
mod watcher;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use openraft::{
    Raft, RaftMetrics, ServerState,
    async_runtime::WatchReceiver,
    errors::{Fatal, LinearizableReadError, RaftError},
};
use rustydb_env::{Bug, Env, Instant, TaskGroup, ambient, sync::watch};
use rustydb_storage::log::{GroupLog, Log, LogPlace};
use rustydb_types::{
    ids::{GroupId, LogIndex, NodeId, Term},
    position::LogPosition,
};

pub use self::agreement::{Agreement, Health};
use self::watcher::Watcher;
use crate::{
    acknowledgements::Acknowledgements,
    calls::Calls,
    campaigns::Campaigns,
    config::ConsensusConfig,
    error::ConsensusError,
    node_state::NodeState,
    proposer::{READ_INDEX, RaftProposer, ReadError},
    quorum::Quorum,
    state_machine::{MachineCell, Snapshot, StateMachine},
    type_config::{TypeConfig, Vote},
};

/// Pause before a read that waits for answers of a majority looks for them again.
const ASK_AGAIN: Duration = Duration::from_millis(1);

/// openraft's handle of a group, with what is needed beside it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RaftHandle {
    raft: Raft<TypeConfig, StateMachine>,
    acknowledgements: Arc<Acknowledgements>,
    group: GroupId,
    config: Arc<ConsensusConfig>,
    log: Log,
}

impl RaftHandle {
    /// Whether proposals are refused for want of space.
    pub(crate) fn log_is_full(&self) -> bool {
        self.log.is_full()
    }

    /// Whether a leader's entries are taken.
    pub(crate) fn log_takes_entries(&self) -> bool {
        self.log.takes_entries()
    }

    /// The group's own part of the log.
    pub(crate) fn group_log(&self) -> GroupLog {
        self.log.group(self.group)
    }

    pub(crate) fn raft(&self) -> &Raft<TypeConfig, StateMachine> {
        &self.raft
    }

    pub(crate) fn config(&self) -> &ConsensusConfig {
        &self.config
    }

    /// The vote as it is now.
    pub(crate) fn vote(&self) -> Vote {
        self.raft.metrics().borrow_watched().vote
    }

    pub(crate) async fn install_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<Vote, Fatal<TypeConfig>> {
        match self.raft.install_full_snapshot(vote, snapshot).await {
            Ok(answer) => Ok(answer.vote),
            Err(fatal) => Err(fatal),
        }
    }

    /// Asks a majority whether this node still leads, and waits until what was committed then is applied.
    pub(crate) async fn read_index(&self) -> Result<(), ReadError> {
        let asked = ambient::now();
        let read = async {
            let linearizer = match self.raft.get_read_linearizer(READ_INDEX).await {
                Ok(linearizer) => linearizer,
                Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                    return Err(ReadError::NotLeader { leader: forward.leader_id.map(NodeId::new) });
                }
                Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                    return Err(ReadError::NoQuorum);
                }
                Err(RaftError::Fatal(_)) => return Err(ReadError::Stopped),
            };
            if linearizer.await_ready(&self.raft).await.is_err() {
                return Err(ReadError::Stopped);
            }
            // openraft may have counted an answer to what was sent before it was asked. Its heartbeats are on their way
            // then, and what it gave is still the position to read at: the committed one did not go back meanwhile.
            while !self.is_acknowledged_since(asked)? {
                ambient::sleep(ASK_AGAIN).await;
            }
            Ok(())
        };
        ambient::timeout(self.config.read_timeout, read).await.unwrap_or(Err(ReadError::NoQuorum))
    }

    /// When, or after when, a majority acknowledged the leader that these are the metrics of.
    pub(crate) fn acknowledged(&self, leader: &RaftMetrics<TypeConfig>) -> Option<Instant> {
        let voters = leader.membership_config.get_joint_config();
        self.acknowledgements.of_majority(leader.id, leader.current_term, voters)
    }

    /// Whether a majority has acknowledged this node as the leader at that time or later.
    fn is_acknowledged_since(&self, time: Instant) -> Result<bool, ReadError> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            return Err(ReadError::NotLeader { leader: metrics.current_leader.map(NodeId::new) });
        }
        Ok(self.acknowledged(&metrics).is_some_and(|at| at >= time))
    }

    fn stopped(&self, reason: impl std::fmt::Display) -> ConsensusError {
        ConsensusError::Stopped { group: self.group, reason: reason.to_string() }
    }
}

/// How a group stands at this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftStatus {
    /// The group.
    pub group: GroupId,
    /// The term this node is in.
    pub term: Term,
    /// What this node is in the group.
    pub state: NodeState,
    /// Who leads, if known: a leader that was heard lately, or this node while a majority answers it.
    pub leader: Option<NodeId>,
    /// The last entry in this node's log; [`None`] when it is empty.
    pub last_log_index: Option<LogIndex>,
    /// The last entry that this node knows to be committed.
    pub commit_index: Option<LogIndex>,
    /// The last entry applied here.
    pub last_applied: Option<LogIndex>,
    /// Entries in this node's log that it does not know to be committed.
    pub uncommitted_entries: u64,
    /// Nodes with a vote.
    pub voters: BTreeSet<NodeId>,
    /// Nodes without a vote.
    pub learners: BTreeSet<NodeId>,
    /// A change of voters is under way.
    pub joint: bool,
    /// The last change of members is not known to be committed. Until it is, the loss of one node may take the
    /// majority of the members before the change.
    pub members_changing: bool,
    /// At the leader: the last entry known to be on each other member's disk.
    pub matched: Vec<(NodeId, Option<LogIndex>)>,
    /// At the leader: the other members that answered within two election timeouts.
    pub answering: BTreeSet<NodeId>,
}

impl RaftStatus {
    /// How many voters must agree.
    #[must_use]
    pub fn quorum(&self) -> Quorum {
        Quorum::of(self.voters.len())
    }
}

/// How far a group is at this node: what of [`RaftStatus`] costs nothing to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftProgress {
    /// The term this node is in.
    pub term: Term,
    /// What this node is in the group.
    pub state: NodeState,
    /// The last entry in this node's log; [`None`] when it is empty.
    pub last_log_index: Option<LogIndex>,
    /// The last entry that this node knows to be committed.
    pub commit_index: Option<LogIndex>,
    /// The last entry applied here.
    pub last_applied: Option<LogIndex>,
}

/// What changes rarely and others want to hear of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupEvent {
    /// The term this node is in.
    pub term: Term,
    /// Who leads, if known.
    pub leader: Option<NodeId>,
    /// The entry that brought the present membership.
    pub membership: Option<LogPosition>,
}

/// A group at this node. Cheap to clone.
#[derive(Clone)]
pub struct Group {
    inner: Arc<GroupInner>,
}

struct GroupInner {
    id: GroupId,
    node: NodeId,
    env: Env,
    config: Arc<ConsensusConfig>,
    handle: RaftHandle,
    cell: Arc<MachineCell>,
    proposer: Arc<RaftProposer>,
    events: watch::Sender<GroupEvent>,
    preferred: parking_lot::Mutex<Option<NodeId>>,
    tasks: TaskGroup,
    /// Told when the group stops by itself.
    failure: watch::Sender<Option<ConsensusError>>,
    /// The group is being shut down: that it stops is no failure.
    closing: AtomicBool,
    /// Before this moment the node takes no part in elections.
    elections_from: rustydb_env::Instant,
    campaigns_from: rustydb_env::Instant,
    campaigns: Arc<Campaigns>,
    /// Held while it is settled whether this member campaigns, so that who looked last has the say.
    elections: parking_lot::Mutex<()>,
    /// When a leader was heard last in this life of the node.
    heard: parking_lot::Mutex<Option<rustydb_env::Instant>>,
    calls: Arc<Calls>,
    agreement: parking_lot::Mutex<Agreement>,
    place: Arc<LogPlace>,
    /// The log was lost: the member follows, and takes no part in elections.
    mending: AtomicBool,
    /// Why this member's state is to be replaced whatever the others say.
    distrusted: parking_lot::Mutex<Option<String>>,
}

/// What a group is made of.
pub(crate) struct GroupParts {
    pub(crate) id: GroupId,
    pub(crate) node: NodeId,
    pub(crate) env: Env,
    pub(crate) config: Arc<ConsensusConfig>,
    pub(crate) raft: Raft<TypeConfig, StateMachine>,
    pub(crate) acknowledgements: Arc<Acknowledgements>,
    pub(crate) campaigns: Arc<Campaigns>,
    pub(crate) cell: Arc<MachineCell>,
    pub(crate) proposer: Arc<RaftProposer>,
    /// When it may vote.
    pub(crate) elections_from: rustydb_env::Instant,
    /// When it may ask for votes, if that is later.
    pub(crate) campaigns_from: rustydb_env::Instant,
    pub(crate) failure: watch::Sender<Option<ConsensusError>>,
    pub(crate) log: Log,
    pub(crate) place: Arc<LogPlace>,
    pub(crate) calls: Arc<Calls>,
}

impl Group {
    pub(crate) fn start(parts: GroupParts) -> Self {
        let GroupParts {
            id,
            node,
            env,
            config,
            raft,
            acknowledgements,
            campaigns,
            cell,
            proposer,
            elections_from,
            campaigns_from,
            failure,
            log,
            place,
            calls,
        } = parts;
        let handle = RaftHandle { raft, acknowledgements, group: id, config: config.clone(), log };
        proposer.attach(handle.clone());
        let (events, _unwatched) = watch::channel(GroupEvent::default());
        let tasks = TaskGroup::new(&env);
        let is_mending = place.is_mending(id) && !env.has_bug(Bug::LogLossForgotten);
        let preferred = parking_lot::Mutex::new(None);
        let heard = parking_lot::Mutex::default();
        // What was found in an earlier life still counts.
        let withheld = cell.with(|machine| machine.is_withheld());
        let agreement = Agreement {
            health: if withheld { Health::Diverged } else { Health::Sound },
            ..Agreement::default()
        };
        let group = Self {
            inner: Arc::new(GroupInner {
                id,
                node,
                env,
                config,
                handle,
                cell,
                proposer,
                events,
                preferred,
                tasks,
                failure,
                closing: AtomicBool::new(false),
                elections_from,
                campaigns_from,
                campaigns,
                elections: parking_lot::Mutex::default(),
                heard,
                calls,
                agreement: parking_lot::Mutex::new(agreement),
                mending: AtomicBool::new(is_mending),
                place,
                distrusted: parking_lot::Mutex::default(),
            }),
        };
        let settling = Arc::downgrade(&group.inner);
        group.inner.campaigns.settled_by(Box::new(move || {
            if let Some(inner) = settling.upgrade() {
                Self { inner }.settle_elections();
            }
        }));
        let tasks = &group.inner.tasks;
        tasks.spawn("proposals", group.inner.proposer.clone().pump(tasks.stopping()));
        tasks.spawn("leadership", Watcher::new(&group).run());
        tasks.spawn("elections", group.clone().keep_elections());
        tasks.spawn("upkeep", group.clone().upkeep());
        tasks.spawn("agreement", group.clone().keep_agreement());
        if group.is_mending() {
            tasks.spawn("mending", group.clone().mend());
        }
        group
    }

    /// The group's number.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.inner.id
    }

    /// Where proposals go.
    #[must_use]
    pub fn proposer(&self) -> &Arc<RaftProposer> {
        &self.inner.proposer
    }

    pub(crate) fn handle(&self) -> &RaftHandle {
        &self.inner.handle
    }

    pub(crate) fn calls(&self) -> &Arc<Calls> {
        &self.inner.calls
    }

    pub(crate) fn cell(&self) -> &Arc<MachineCell> {
        &self.inner.cell
    }

    /// Whether this node may vote again after its start.
    pub(crate) fn takes_part_in_elections(&self) -> bool {
        self.inner.env.now() >= self.inner.elections_from && !self.is_mending()
    }

    /// Whether the log was lost and what it may have promised is not all here again.
    #[must_use]
    pub fn is_mending(&self) -> bool {
        self.inner.mending.load(Ordering::Acquire)
    }

    /// Notes durably that nothing is missing any more, and takes part in elections from here on.
    pub(crate) async fn note_mended(&self) -> bool {
        let inner = &self.inner;
        let (place, id) = (Arc::clone(&inner.place), inner.id);
        if let Err(error) = inner.env.blocking(move || place.mended(id)).await {
            tracing::warn!(group = id.get(), %error, "that the log is whole again is not noted yet");
            return false;
        }
        inner.mending.store(false, Ordering::Release);
        tracing::info!(
            group = id.get(),
            node = inner.node.get(),
            "the log is whole again; this member votes again"
        );
        self.settle_elections();
        true
    }

    pub(crate) fn node(&self) -> NodeId {
        self.inner.node
    }

    pub(crate) fn env(&self) -> &Env {
        &self.inner.env
    }

    pub(crate) fn tasks(&self) -> &TaskGroup {
        &self.inner.tasks
    }

    /// Ticks when the term, the leader or the membership changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<GroupEvent> {
        self.inner.events.subscribe()
    }

    /// Whether the group has members.
    #[must_use]
    pub fn is_initialized(&self) -> bool {
        self.status().voters.first().is_some()
    }

    /// Whether this node leads and may read and write.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.status().state == NodeState::Leader
    }

    /// How the group stands here.
    #[must_use]
    pub fn status(&self) -> RaftStatus {
        let metrics = self.inner.handle.raft.metrics();
        let metrics = metrics.borrow_watched();
        let index =
            |log_id: Option<crate::type_config::LogId>| log_id.map(|log_id| LogIndex::new(log_id.index));
        let commit_index = index(metrics.local_committed);
        let last_log_index = metrics.last_log_index.map(LogIndex::new);
        let next = |index: Option<LogIndex>| index.map_or(0, |index| index.get() + 1);
        let membership = metrics.membership_config.membership();
        let matched = metrics.replication.as_ref().map_or_else(Vec::new, |replication| {
            replication
                .iter()
                .filter(|(node, _)| **node != self.inner.node.get())
                .map(|(node, matched)| (NodeId::new(*node), index(*matched)))
                .collect()
        });
        let heard = metrics.heartbeat.iter().flatten();
        let answering = heard
            .filter(|(node, at)| **node != self.inner.node.get() && at.is_some_and(|at| self.is_lately(at.0)))
            .map(|(node, _)| NodeId::new(*node));
        // openraft goes on naming a leader that is dead or cut off; it leads nobody.
        let lately = if metrics.state == ServerState::Leader {
            let alone = membership.voter_ids().count() <= 1;
            alone || metrics.last_quorum_acked.is_some_and(|at| self.is_lately(at.0))
        } else {
            self.inner.heard.lock().is_some_and(|at| self.is_lately(at))
        };
        RaftStatus {
            group: self.inner.id,
            term: Term::new(metrics.current_term),
            state: state_of(metrics.state),
            leader: metrics.current_leader.filter(|_| lately).map(NodeId::new),
            last_log_index,
            commit_index,
            last_applied: index(metrics.last_applied),
            uncommitted_entries: next(last_log_index).saturating_sub(next(commit_index)),
            voters: membership.voter_ids().map(NodeId::new).collect(),
            learners: membership.learner_ids().map(NodeId::new).collect(),
            joint: membership.get_joint_config().len() > 1,
            members_changing: membership.get_joint_config().len() > 1
                || index(*metrics.membership_config.log_id()) > commit_index,
            matched,
            answering: answering.collect(),
        }
    }

    /// How far the group is here.
    #[must_use]
    pub fn progress(&self) -> RaftProgress {
        let metrics = self.inner.handle.raft.metrics();
        let metrics = metrics.borrow_watched();
        let index =
            |log_id: Option<crate::type_config::LogId>| log_id.map(|log_id| LogIndex::new(log_id.index));
        RaftProgress {
            term: Term::new(metrics.current_term),
            state: state_of(metrics.state),
            last_log_index: metrics.last_log_index.map(LogIndex::new),
            commit_index: index(metrics.local_committed),
            last_applied: index(metrics.last_applied),
        }
    }

    /// At the leader: members that answered within two election timeouts.
    fn answering(&self) -> BTreeSet<NodeId> {
        self.status().answering
    }

    /// Whether a moment is so near that what was true then may still be.
    fn is_lately(&self, at: rustydb_env::Instant) -> bool {
        self.inner.env.now().saturating_since(at) <= self.inner.config.election_timeout_max * 2
    }

    /// Notes that a leader was heard.
    pub(crate) fn note_heard(&self) {
        *self.inner.heard.lock() = Some(self.inner.env.now());
    }

    /// Which node should lead when it is caught up. The leader hands over in its upkeep.
    pub fn prefer_leader(&self, node: Option<NodeId>) {
        *self.inner.preferred.lock() = node;
    }

    /// Takes a snapshot now and purges the log behind it.
    ///
    /// # Errors
    /// [`ConsensusError::Stopped`].
    pub async fn snapshot(&self) -> Result<(), ConsensusError> {
        let trigger = self.inner.handle.raft.trigger();
        trigger.snapshot().await.map_err(|fatal| self.inner.handle.stopped(fatal))
    }

    /// Ends the group at this node: leadership is handed over, what runs is stopped.
    pub async fn shutdown(&self, deadline: Duration) {
        self.inner.closing.store(true, Ordering::Release);
        let started = self.inner.env.now();
        if let Ok(Err(error)) = self.inner.env.timeout(deadline / 2, self.step_down()).await {
            tracing::debug!(group = self.inner.id.get(), %error, "leadership was not handed over");
        }
        let left = deadline.saturating_sub(self.inner.env.now() - started);
        let stopped = self.inner.env.timeout(left, self.inner.handle.raft.shutdown()).await;
        if stopped.is_err() {
            tracing::warn!(group = self.inner.id.get(), "the group did not stop in time");
        }
        let left = deadline.saturating_sub(self.inner.env.now() - started);
        self.inner.tasks.shutdown(left).await;
    }

    /// Lets this member campaign as soon as it may, and not before.
    async fn keep_elections(self) {
        let stopping = self.inner.tasks.stopping();
        let mut changes = self.inner.campaigns.watch();
        loop {
            let from = self.settle_elections();
            let may = async {
                match from {
                    Some(from) => self.inner.env.sleep_until(from).await,
                    None => std::future::pending().await,
                }
            };
            // Cancel-safe: whatever happened is looked at anew.
            tokio::select! {
                biased;
                () = stopping.wait() => return,
                changed = changes.changed() => if changed.is_err() { return },
                () = may => {}
            }
        }
    }

    /// Lets this member campaign, or not; gives the moment from which it may, when that is to come.
    ///
    /// After a restart a voter waits for one lease before it votes or campaigns: the leader it acknowledged before
    /// may still read by that lease, and the vote does not remember it.
    pub(crate) fn settle_elections(&self) -> Option<rustydb_env::Instant> {
        let inner = &self.inner;
        let _settling = inner.elections.lock();
        let is_allowed = self.may_campaign();
        inner.campaigns.allow(is_allowed);
        inner.handle.raft.runtime_config().elect(is_allowed);
        let from = self.campaigns_from();
        (inner.env.now() < from).then_some(from)
    }

    /// From when on this member may campaign, if nothing else is in the way.
    fn campaigns_from(&self) -> rustydb_env::Instant {
        let inner = &self.inner;
        let from = inner.elections_from.max(inner.campaigns_from);
        inner.campaigns.rests_until().map_or(from, |rested| rested.max(from))
    }

    /// Whether this member can be elected now.
    pub(crate) fn may_campaign(&self) -> bool {
        self.inner.env.now() >= self.campaigns_from() && self.is_sound() && !self.is_mending()
    }
}

fn state_of(state: ServerState) -> NodeState {
    match state {
        ServerState::Learner | ServerState::Shutdown => NodeState::Joining,
        ServerState::Follower => NodeState::Follower,
        ServerState::Candidate => NodeState::Candidate,
        ServerState::Leader => NodeState::Leader,
    }
}
