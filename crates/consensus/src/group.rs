//! One Raft group at this node.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use openraft::{
    ChangeMembers, Raft, ServerState,
    async_runtime::WatchReceiver,
    errors::{
        ChangeMembershipError, ClientWriteError, Fatal, InitializeError, LinearizableReadError, RaftError,
    },
};
use rustydb_env::{Env, TaskGroup, ambient, sync::watch};
use rustydb_storage::log::Log;
use rustydb_types::{
    ids::{GroupId, LogIndex, NodeId, Term},
    position::LogPosition,
};

use crate::{
    config::ConsensusConfig,
    error::ConsensusError,
    machine::Leadership,
    node_state::{NodeState, NodeStateMachine},
    proposer::{READ_INDEX, RaftProposer, ReadError},
    quorum::Quorum,
    state_machine::{MachineCell, Snapshot, StateMachine},
    type_config::{Member, TypeConfig, Vote, position_of},
};

/// openraft's handle of a group, with what is needed beside it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RaftHandle {
    raft: Raft<TypeConfig, StateMachine>,
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
            match linearizer.await_ready(&self.raft).await {
                Ok(_) => Ok(()),
                Err(_) => Err(ReadError::Stopped),
            }
        };
        ambient::timeout(self.config.read_timeout, read).await.unwrap_or(Err(ReadError::NoQuorum))
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
}

impl RaftStatus {
    /// How many voters must agree.
    #[must_use]
    pub fn quorum(&self) -> Quorum {
        Quorum::of(self.voters.len())
    }
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
    /// When a leader was heard last in this life of the node.
    heard: parking_lot::Mutex<Option<rustydb_env::Instant>>,
}

/// What a group is made of.
pub(crate) struct GroupParts {
    pub(crate) id: GroupId,
    pub(crate) node: NodeId,
    pub(crate) env: Env,
    pub(crate) config: Arc<ConsensusConfig>,
    pub(crate) raft: Raft<TypeConfig, StateMachine>,
    pub(crate) cell: Arc<MachineCell>,
    pub(crate) proposer: Arc<RaftProposer>,
    /// When it may vote.
    pub(crate) elections_from: rustydb_env::Instant,
    /// When it may ask for votes, if that is later.
    pub(crate) campaigns_from: rustydb_env::Instant,
    pub(crate) failure: watch::Sender<Option<ConsensusError>>,
    pub(crate) log: Log,
}

impl Group {
    pub(crate) fn start(parts: GroupParts) -> Self {
        let GroupParts {
            id,
            node,
            env,
            config,
            raft,
            cell,
            proposer,
            elections_from,
            campaigns_from,
            failure,
            log,
        } = parts;
        let handle = RaftHandle { raft, group: id, config: config.clone(), log };
        proposer.attach(handle.clone());
        let (events, _unwatched) = watch::channel(GroupEvent::default());
        let tasks = TaskGroup::new(&env);
        let preferred = parking_lot::Mutex::new(None);
        let heard = parking_lot::Mutex::default();
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
                heard,
            }),
        };
        let tasks = &group.inner.tasks;
        tasks.spawn("proposals", group.inner.proposer.clone().pump(tasks.stopping()));
        tasks.spawn("leadership", Watcher::new(&group).run());
        tasks.spawn("elections", group.clone().join_elections());
        tasks.spawn("upkeep", group.clone().upkeep());
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

    pub(crate) fn cell(&self) -> &Arc<MachineCell> {
        &self.inner.cell
    }

    /// Whether this node may vote again after its start.
    pub(crate) fn takes_part_in_elections(&self) -> bool {
        self.inner.env.now() >= self.inner.elections_from
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
        }
    }

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
            // A leader without a vote may campaign before its removal is committed, and then leads in one term what it
            // is a candidate for in the next.
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
        let mut events = self.watch();
        self.inner.proposer.distrust_lease(status.term);
        let trigger = self.inner.handle.raft.trigger();
        trigger.transfer_leader(to.get()).await.map_err(|fatal| self.inner.handle.stopped(fatal))?;
        let elected = events.wait_for(|event| event.term > status.term && event.leader.is_some());
        match self.inner.env.timeout(self.inner.config.election_timeout_max * 3, elected).await {
            Ok(Ok(())) if events.borrow().leader == Some(to) => Ok(()),
            Ok(Ok(())) => Err(ConsensusError::Busy { group, reason: "another voter was elected".to_owned() }),
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

    /// Hands leadership to the voter with the longest log of those that answered lately. Does nothing when this node
    /// does not lead or no other voter answers.
    ///
    /// # Errors
    /// As [`Group::transfer_leader`].
    pub async fn step_down(&self) -> Result<(), ConsensusError> {
        let status = self.status();
        if status.state != NodeState::Leader {
            return Ok(());
        }
        let answering = self.answering();
        let fit = |node: &NodeId| status.voters.contains(node) && answering.contains(node);
        let best = status.matched.iter().filter(|(node, _)| fit(node)).max_by_key(|(_, at)| *at);
        match best {
            Some((node, _)) => self.transfer_leader(*node).await,
            None => Ok(()),
        }
    }

    /// At the leader: members that answered within two election timeouts.
    fn answering(&self) -> BTreeSet<NodeId> {
        let metrics = self.inner.handle.raft.metrics();
        let metrics = metrics.borrow_watched();
        let heard = metrics.heartbeat.iter().flatten();
        let lately = heard.filter(|(_, at)| at.is_some_and(|at| self.is_lately(at.0)));
        lately.map(|(node, _)| NodeId::new(*node)).collect()
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

    /// After a restart a voter waits for one lease before it votes or campaigns: the leader it acknowledged before
    /// may still read by that lease, and the vote does not remember it.
    async fn join_elections(self) {
        self.inner.env.sleep_until(self.inner.elections_from.max(self.inner.campaigns_from)).await;
        self.inner.handle.raft.runtime_config().elect(true);
    }

    /// Keeps the log short and the leadership where it is wanted.
    async fn upkeep(self) {
        let stopping = self.inner.tasks.stopping();
        loop {
            let interval = self.inner.config.upkeep_interval;
            if self.inner.env.timeout(interval, stopping.wait()).await.is_ok() {
                return;
            }
            if let Err(error) = self.shorten_log().await {
                tracing::debug!(group = self.inner.id.get(), %error, "no snapshot");
            }
            self.inner.handle.log.check_space();
            let preferred = *self.inner.preferred.lock();
            if let Some(preferred) = preferred {
                self.hand_over_to(preferred).await;
            }
        }
    }

    /// Takes a snapshot when much was applied since the last one. Whatever little a group writes, its entries do not
    /// stay further behind than that either: all groups share the log, which is as long as the oldest entry is old.
    async fn shorten_log(&self) -> Result<(), ConsensusError> {
        let bound_bytes = self.inner.config.snapshot_log_bytes;
        if self.inner.cell.bytes_since_snapshot() >= bound_bytes {
            return self.snapshot().await;
        }
        let log = self.inner.handle.log.group(self.inner.id);
        let Some(through) = log.last_behind(bound_bytes) else { return Ok(()) };
        let (snapshot, applied) = {
            let metrics = self.inner.handle.raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.snapshot.map(|at| at.index), metrics.last_applied.map(|at| at.index))
        };
        if snapshot >= Some(through.get()) {
            let trigger = self.inner.handle.raft.trigger();
            trigger.purge_log(through.get()).await.map_err(|fatal| self.inner.handle.stopped(fatal))
        } else if applied > snapshot {
            self.snapshot().await
        } else {
            Ok(())
        }
    }

    async fn hand_over_to(&self, preferred: NodeId) {
        let status = self.status();
        let at = status.matched.iter().find(|(node, _)| *node == preferred).and_then(|(_, at)| *at);
        let caught_up = at.is_some() && at >= status.commit_index && status.uncommitted_entries == 0;
        if status.state != NodeState::Leader || preferred == self.inner.node || !caught_up || status.joint {
            return;
        }
        if let Err(error) = self.transfer_leader(preferred).await {
            tracing::info!(group = self.inner.id.get(), node = preferred.get(), %error, "the preferred node does not lead yet");
        }
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

/// Tells the state machine who leads, and the watchers of the group what changed.
struct Watcher {
    group: Group,
    steps: NodeStateMachine,
    told: Option<Leadership>,
}

impl Watcher {
    fn new(group: &Group) -> Self {
        Self { group: group.clone(), steps: NodeStateMachine::new(), told: None }
    }

    async fn run(mut self) {
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
        let leadership = if leads && inner.cell.applied_term() == term {
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
