//! All Raft groups of a node: many groups, one log, one transport.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use openraft::{
    Raft,
    errors::RaftError,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, VoteRequest,
    },
};
use parking_lot::{Mutex, RwLock};
use rustydb_env::{Bug, Env, TaskGroup, sync::watch};
use rustydb_proto::v1::{self, RaftFrame, raft_frame::Body, raft_refusal::Reason};
use rustydb_storage::log::{Log, LogPlace};
use rustydb_types::{
    ids::{GroupId, NodeId},
    position::LogPosition,
};
use tokio::sync::mpsc;

use crate::{
    acknowledgements::Acknowledgements,
    calls::Calls,
    campaigns::Campaigns,
    codec,
    config::ConsensusConfig,
    error::ConsensusError,
    group::{Group, GroupParts},
    log_store::LogStore,
    machine::{Machine, MachineError},
    mending::{self, Inquiry},
    network::NetworkFactory,
    plausible,
    proposer::RaftProposer,
    repair::{Giver, StateAsk},
    runtime::{BoxFuture, poll_once, set_tick_grid},
    snapshot::{Piece, Receiver},
    state_machine::{MachineCell, StateMachine},
    transport::{FrameSink, Inbound, Lane, Transport},
    type_config::{TypeConfig, Vote},
    working::{Working, held_bytes},
};

/// Opens and removes the state machines of groups.
pub trait MachineFactory: Send + Sync + 'static {
    /// Opens the state machine of a group, empty when there was none. `proposer` is where its transactions go.
    ///
    /// # Errors
    /// The group cannot be opened.
    fn open(&self, group: GroupId, proposer: &Arc<RaftProposer>) -> Result<Box<dyn Machine>, MachineError>;

    /// Deletes the state of a group that is not open. Deleting what is not there changes nothing.
    ///
    /// # Errors
    /// Something is left; it may be tried again.
    fn remove(&self, group: GroupId) -> Result<(), MachineError>;
}

/// What the groups of a node are made of.
pub struct GroupsParts {
    /// Clock, tasks, randomness.
    pub env: Env,
    /// Timing and bounds.
    pub config: ConsensusConfig,
    /// The node's log.
    pub log: Log,
    /// Where it is, and which groups have lost what they had in an earlier one.
    pub place: Arc<LogPlace>,
    /// The way to the other nodes.
    pub transport: Arc<dyn Transport>,
    /// The state machines.
    pub machines: Arc<dyn MachineFactory>,
    /// This node.
    pub node: NodeId,
    /// The other nodes that may be members: who is asked when the log is lost and the state does not name any.
    pub peers: BTreeSet<NodeId>,
}

/// All groups of this node. Cheap to clone.
#[derive(Clone)]
pub struct Groups {
    inner: Arc<GroupsInner>,
}

/// Who sends a snapshot, which transfer that is, and the way to the one that takes it in.
type Receiving = (NodeId, u64, mpsc::Sender<Piece>);
/// A transfer, and the way to the one that gives it.
type Giving = (u64, mpsc::Sender<StateAsk>);

struct GroupsInner {
    env: Env,
    config: Arc<ConsensusConfig>,
    log: Log,
    place: Arc<LogPlace>,
    /// Groups that have lost their logs and are not open yet.
    inquiries: Mutex<BTreeMap<GroupId, Inquiry>>,
    calls: Arc<Calls>,
    machines: Arc<dyn MachineFactory>,
    node: NodeId,
    peers: BTreeSet<NodeId>,
    groups: RwLock<BTreeMap<GroupId, Group>>,
    /// Numbers that were used and are not used again.
    removed: Mutex<BTreeSet<GroupId>>,
    /// Only one group is opened or removed at a time.
    changing: tokio::sync::Mutex<()>,
    /// Transfers of snapshots into this node, one per group, and who sends them.
    receiving: Mutex<BTreeMap<GroupId, Receiving>>,
    /// States that are given to members whose own is wrong, one per member and group.
    giving: Mutex<BTreeMap<(GroupId, NodeId), Giving>>,
    /// Requests in work, per peer.
    working: Mutex<BTreeMap<NodeId, Working>>,
    /// Why the node must stop, once it must.
    failure: watch::Sender<Option<ConsensusError>>,
    tasks: TaskGroup,
}

impl Groups {
    /// The groups of a node, none of them open yet.
    #[must_use]
    pub fn new(parts: GroupsParts) -> Self {
        let GroupsParts { env, config, log, place, transport, machines, node, peers } = parts;
        let tasks = TaskGroup::new(&env);
        set_tick_grid(config.heartbeat_interval);
        let inner = GroupsInner {
            env,
            config: Arc::new(config),
            log,
            place,
            inquiries: Mutex::default(),
            calls: Calls::new(transport),
            machines,
            node,
            peers,
            groups: RwLock::default(),
            removed: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            receiving: Mutex::default(),
            giving: Mutex::default(),
            working: Mutex::default(),
            failure: watch::channel(None).0,
            tasks,
        };
        Self { inner: Arc::new(inner) }
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.inner.node
    }

    /// An open group.
    #[must_use]
    pub fn get(&self, group: GroupId) -> Option<Group> {
        self.inner.groups.read().get(&group).cloned()
    }

    /// All open groups.
    #[must_use]
    pub fn all(&self) -> Vec<Group> {
        self.inner.groups.read().values().cloned().collect()
    }

    /// Ends when a group has stopped by itself, because its log or its state cannot be trusted any more, or when a
    /// write or sync of the log has failed, though no group may have noticed: the node must stop.
    pub async fn failed(&self) -> ConsensusError {
        tokio::select! {
            biased;
            error = self.group_failed() => error,
            error = self.inner.log.failed() => ConsensusError::LogFailed { reason: error.to_string() },
        }
    }

    async fn group_failed(&self) -> ConsensusError {
        let mut failure = self.inner.failure.subscribe();
        loop {
            if let Some(error) = failure.borrow_and_update().clone() {
                return error;
            }
            if failure.changed().await.is_err() {
                // Nobody can report any more, and nothing has failed.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Groups that have something in the log, or have lost what they had: those to open after a restart.
    #[must_use]
    pub fn in_log(&self) -> Vec<GroupId> {
        let groups: BTreeSet<GroupId> =
            self.inner.log.groups().into_iter().chain(self.inner.place.mending()).collect();
        groups.into_iter().collect()
    }

    /// Whether a group has lost its log and does not take part in elections yet. It may not be open yet either.
    #[must_use]
    pub fn is_mending(&self, group: GroupId) -> bool {
        self.inner.place.is_mending(group)
    }

    pub(crate) fn calls(&self) -> &Arc<Calls> {
        &self.inner.calls
    }

    pub(crate) fn peers(&self) -> &BTreeSet<NodeId> {
        &self.inner.peers
    }

    pub(crate) fn config(&self) -> &ConsensusConfig {
        &self.inner.config
    }

    pub(crate) fn is_removed(&self, group: GroupId) -> bool {
        self.inner.removed.lock().contains(&group)
    }

    /// The node cannot go on.
    pub(crate) fn fail(&self, error: ConsensusError) {
        self.inner.failure.send_if_modified(|present| {
            let first = present.is_none();
            present.get_or_insert(error);
            first
        });
    }

    /// What is known now of a group that is not open.
    pub(crate) fn answered(&self, group: GroupId, inquiry: Inquiry) {
        self.inner.inquiries.lock().insert(group, inquiry);
    }

    /// What a group is opened with: its machine, and what the others' votes say of its own, if it has lost that.
    async fn begin(&self, id: GroupId) -> Result<Begun, ConsensusError> {
        let inner = &self.inner;
        if self.is_mending(id) {
            let mut inquiries = inner.inquiries.lock();
            match inquiries.remove(&id) {
                Some(Inquiry::Answered { proposer, cell, vote }) => {
                    return Ok(Begun { proposer, cell, vote: Some(vote) });
                }
                Some(Inquiry::Asking) => {
                    inquiries.insert(id, Inquiry::Asking);
                    return Err(asking(id));
                }
                None => {}
            }
        }
        let proposer = RaftProposer::new(&inner.config);
        let cell = MachineCell::new(inner.machines.open(id, &proposer)?);
        let has_lost = self.is_mending(id) || self.note_lost(id, &cell).await?;
        if !has_lost || inner.env.has_bug(Bug::LogLossForgotten) {
            return Ok(Begun { proposer, cell, vote: None });
        }
        self.start_inquiry(id, proposer, cell);
        Err(asking(id))
    }

    fn start_inquiry(&self, id: GroupId, proposer: Arc<RaftProposer>, cell: Arc<MachineCell>) {
        self.inner.inquiries.lock().insert(id, Inquiry::Asking);
        let inquiry = self.clone().inquire(id, proposer, cell);
        let stopping = self.inner.tasks.stopping();
        self.inner.tasks.spawn("inquiry", async move {
            tokio::select! {
                biased;
                () = stopping.wait() => {}
                () = inquiry => {}
            }
        });
    }

    /// Whether something was applied of which the log shows no trace, neither entries nor a vote: then they are lost, and
    /// that is noted, durably. Nobody applies without having had them.
    async fn note_lost(&self, id: GroupId, cell: &MachineCell) -> Result<bool, ConsensusError> {
        let inner = &self.inner;
        let state = inner.log.group(id).state();
        let is_blank = state.vote.is_none() && state.last.is_none() && state.purged.is_none();
        let Some(applied) = cell.applied().position.filter(|_| is_blank) else { return Ok(false) };
        tracing::error!(group = id.get(), %applied, "the log of this group is gone: it has neither entries nor a vote");
        let place = Arc::clone(&inner.place);
        let noted = inner.env.blocking(move || place.lost(id)).await;
        noted.map_err(|error| ConsensusError::Stopped { group: id, reason: error.to_string() })?;
        Ok(true)
    }

    /// Opens a group: what is in its log and committed is applied again before this returns, so nothing older than
    /// what was seen before a restart can be read. Opening an open group gives that one. A group without members
    /// waits for [`Group::initialize`] or for a leader that adds this node.
    ///
    /// # Errors
    /// The state or the log cannot be opened.
    pub async fn open_group(&self, id: GroupId) -> Result<Group, ConsensusError> {
        self.open(id, None).await
    }

    /// Opens a new group whose first members are agreed on, as [`Groups::open_group`]. Every one of them calls this
    /// with the same members, so each has the entry that names them before it can vote: whichever of them die,
    /// a majority elects a leader. This node campaigns after `patience`, so that who should lead comes first.
    ///
    /// # Errors
    /// As [`Groups::open_group`].
    pub async fn found_group(
        &self,
        id: GroupId,
        members: &BTreeSet<NodeId>,
        patience: Duration,
    ) -> Result<Group, ConsensusError> {
        self.open(id, Some((members, patience))).await
    }

    async fn open(
        &self,
        id: GroupId,
        founding: Option<(&BTreeSet<NodeId>, Duration)>,
    ) -> Result<Group, ConsensusError> {
        let _changing = self.inner.changing.lock().await;
        if let Some(group) = self.get(id) {
            return Ok(group);
        }
        if self.inner.removed.lock().contains(&id) {
            return Err(ConsensusError::Removed { group: id });
        }
        let inner = &self.inner;
        let Begun { proposer, cell, vote } = self.begin(id).await?;
        let log = LogStore::new(inner.log.group(id), inner.config.append_bytes_max).keeping_members_of(&cell);
        let campaigns = Arc::new(Campaigns::new(Arc::clone(&inner.config)));
        let log = log.telling_votes(&campaigns);
        if let Some(vote) = vote {
            log.adopt_vote(&vote).await.map_err(|error| ConsensusError::Stopped {
                group: id,
                reason: format!("the vote was not written: {error}"),
            })?;
        }
        if let Some((members, _)) = founding {
            let names = members.iter().map(|node| node.get()).collect();
            log.name_first_members(names).await.map_err(|error| ConsensusError::Stopped {
                group: id,
                reason: format!("the first entry was not written: {error}"),
            })?;
        }
        let now = inner.env.now();
        let campaigns_from = now + founding.map_or(Duration::ZERO, |(_, patience)| patience);
        let waits = log.has_voted() && !inner.env.has_bug(Bug::VoteWithinLease);
        let elections_from = if waits { now + inner.config.leader_lease() } else { now };
        let mut config = inner.config.to_openraft(format!("group {id}"));
        config.enable_elect = false;
        let acknowledgements = Arc::<Acknowledgements>::default();
        let network = NetworkFactory {
            acknowledgements: Arc::clone(&acknowledgements),
            campaigns: Arc::clone(&campaigns),
            node: inner.node,
            group: id,
            calls: inner.calls.clone(),
            config: inner.config.clone(),
        };
        let stopped = |reason: String| ConsensusError::Stopped { group: id, reason };
        let config = Arc::new(config.validate().map_err(|error| stopped(error.to_string()))?);
        let lose = |reason: &str| {
            let read = |error: std::io::Error| stopped(error.to_string());
            if log.nodes().map_err(read)?.is_some_and(|nodes| nodes == [inner.node].into()) {
                // Found again at the next start, unless the files are brought back.
                cell.with(|machine| machine.release())?;
                return Err(ConsensusError::OnlyCopy { group: id, reason: reason.to_owned() });
            }
            Ok(cell.lose(reason, log.floor().map_err(read)?)?)
        };
        if let Some(reason) = unusable(&cell, log.purged()) {
            lose(&reason)?;
        }
        let raft = loop {
            let machine = StateMachine::new(cell.clone());
            let opening =
                Raft::new(inner.node.get(), Arc::clone(&config), network.clone(), log.clone(), machine);
            // What is committed is applied first, and that may meet a damage. Dropped, the opening has begun nothing.
            let reason = tokio::select! {
                biased;
                raft = opening => match (raft, cell.with(|machine| machine.damage())) {
                    (Ok(raft), _) => break raft,
                    (Err(_), Some(reason)) if !cell.is_given_up() => reason,
                    (Err(fatal), _) => return Err(stopped(fatal.to_string())),
                },
                reason = cell.damaged(), if !cell.is_given_up() => reason,
            };
            lose(&reason)?;
        };
        let group = Group::start(GroupParts {
            id,
            node: inner.node,
            env: inner.env.clone(),
            config: inner.config.clone(),
            raft,
            acknowledgements,
            campaigns,
            cell,
            proposer,
            elections_from,
            campaigns_from,
            failure: inner.failure.clone(),
            log: inner.log.clone(),
            place: inner.place.clone(),
            calls: inner.calls.clone(),
        });
        inner.groups.write().insert(id, group.clone());
        Ok(group)
    }

    /// Opens a group and gives it its first members, unless it has some.
    ///
    /// # Errors
    /// As [`Groups::open_group`] and [`Group::initialize`].
    pub async fn create_group(
        &self,
        id: GroupId,
        members: &BTreeSet<NodeId>,
    ) -> Result<Group, ConsensusError> {
        let group = self.open_group(id).await?;
        group.initialize(members).await?;
        Ok(group)
    }

    /// Ends a group at this node and deletes its log and state. Its number is not used again. Removing what is not
    /// there changes nothing.
    ///
    /// # Errors
    /// The state is not wholly deleted; it may be tried again.
    pub async fn remove_group(&self, id: GroupId) -> Result<(), ConsensusError> {
        let _changing = self.inner.changing.lock().await;
        self.inner.removed.lock().insert(id);
        let group = self.inner.groups.write().remove(&id);
        self.inner.receiving.lock().remove(&id);
        self.inner.giving.lock().retain(|(group, _), _| *group != id);
        if let Some(group) = group {
            group.shutdown(self.inner.config.change_timeout).await;
        }
        let (done, removed) = tokio::sync::oneshot::channel();
        self.inner.log.remove_group(id, Box::new(move |result| drop(done.send(result))));
        match removed.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(ConsensusError::Stopped { group: id, reason: error.to_string() }),
            Err(_) => {
                return Err(ConsensusError::Stopped { group: id, reason: "the log has stopped".to_owned() });
            }
        }
        self.inner.machines.remove(id)?;
        self.inner.inquiries.lock().remove(&id);
        self.forget_mending(id).await
    }

    async fn forget_mending(&self, id: GroupId) -> Result<(), ConsensusError> {
        let place = Arc::clone(&self.inner.place);
        let forgotten = self.inner.env.blocking(move || place.mended(id)).await;
        forgotten.map_err(|error| ConsensusError::Stopped { group: id, reason: error.to_string() })
    }

    /// Ends all groups: leadership is handed over first.
    pub async fn shutdown(&self, deadline: Duration) {
        let groups: Vec<Group> = std::mem::take(&mut *self.inner.groups.write()).into_values().collect();
        let stopping = groups.iter().map(|group| group.shutdown(deadline));
        futures_util::future::join_all(stopping).await;
        self.inner.tasks.shutdown(deadline).await;
    }
}

/// Why the stored state of a group cannot be gone on with: it is damaged, or gone.
fn unusable(cell: &MachineCell, purged: Option<LogPosition>) -> Option<String> {
    if let Some(reason) = cell.with(|machine| machine.lost().or_else(|| machine.damage())) {
        return Some(reason);
    }
    let applied = cell.with(|machine| machine.applied()).position;
    let is_gone = applied.map(|applied| applied.index) < purged.map(|purged| purged.index);
    is_gone.then(|| {
        let place = |at: Option<LogPosition>| at.map_or_else(|| "nothing".to_owned(), |at| at.to_string());
        format!(
            "the stored state has applied {}, and the log is purged through {}",
            place(applied),
            place(purged)
        )
    })
}

/// Why a group that has lost its log is not open yet.
fn asking(group: GroupId) -> ConsensusError {
    let reason = "it has lost its log and waits for the other members".to_owned();
    ConsensusError::Busy { group, reason }
}

/// What a group is opened with.
struct Begun {
    proposer: Arc<RaftProposer>,
    cell: Arc<MachineCell>,
    /// The highest vote of the others, where the own one is lost.
    vote: Option<Vote>,
}

/// What a request comes to.
type Handled = BoxFuture<Result<Body, (Reason, String)>>;

impl GroupsInner {
    /// The work that a request asks for; openraft hears of it in the order of the calls.
    fn handle(&self, from: NodeId, group: &Group, body: Body) -> Result<Handled, (Reason, String)> {
        let malformed = |error: codec::CodecError| (Reason::Malformed, error.to_string());
        let raft = group.handle().raft().clone();
        Ok(match body {
            Body::Append(append) => {
                // Before openraft sees it: what it has taken can only wait for room. Some is taken while the disk is
                // full, so that a leader can begin, and serve reads, when the disks of all are full.
                if !append.entries.is_empty() && !group.handle().log_takes_entries() {
                    return Err((Reason::DiskFull, String::new()));
                }
                let request = append_request(append).map_err(malformed)?;
                let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
                let heard = group.clone();
                Box::pin(async move {
                    match raft.append_entries(request).await {
                        Ok(answer) => {
                            if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
                                heard.note_heard();
                            }
                            Ok(append_answer(answer, last))
                        }
                        Err(error) => Err(stopped(error)),
                    }
                })
            }
            Body::Vote(vote) => {
                if !group.takes_part_in_elections() {
                    return Err((Reason::WaitingOutLease, String::new()));
                }
                let request = vote_request(&vote).map_err(malformed)?;
                Box::pin(async move {
                    let answer =
                        if vote.pre_vote { raft.pre_vote(request).await } else { raft.vote(request).await };
                    let answer = answer.map_err(stopped)?;
                    Ok(Body::VoteAnswer(v1::RaftVoteAnswer {
                        vote: Some(codec::vote_to_wire(&answer.vote)),
                        granted: answer.vote_granted,
                        last: answer.last_log_id.as_ref().map(codec::log_id_to_wire),
                    }))
                })
            }
            Body::Transfer(transfer) => {
                if !group.takes_part_in_elections() || !group.is_sound() {
                    return Err((Reason::WaitingOutLease, String::new()));
                }
                let from =
                    codec::required_vote("transfer", transfer.from_leader.as_ref()).map_err(malformed)?;
                let last = transfer.last.as_ref().map(codec::log_id_from_wire);
                let request = TransferLeaderRequest::new(from, transfer.to, last);
                Box::pin(async move {
                    let refusal = match raft.handle_transfer_leader(request).await {
                        Ok(Ok(())) => None,
                        Ok(Err(TransferLeaderError::VoteChanged { actual, .. })) => {
                            Some(v1::raft_transfer_answer::Refusal::VoteChanged(codec::vote_to_wire(&actual)))
                        }
                        Ok(Err(TransferLeaderError::LogNotFlushed { actual, .. })) => {
                            Some(v1::raft_transfer_answer::Refusal::LogNotFlushed(v1::RaftLogNotFlushed {
                                actual: actual.as_ref().map(codec::log_id_to_wire),
                            }))
                        }
                        Err(error) => return Err((Reason::Stopped, error.to_string())),
                    };
                    Ok(Body::TransferAnswer(v1::RaftTransferAnswer { refusal }))
                })
            }
            Body::Standing(asked) => {
                let handle = group.handle().clone();
                Box::pin(async move { mending::answer(&handle, from, asked).await })
            }
            Body::Mark(ask) => {
                let answer = Body::MarkAnswer(group.answer_mark(&ask));
                Box::pin(std::future::ready(Ok(answer)))
            }
            _ => return Err((Reason::Malformed, "not a request".to_owned())),
        })
    }

    /// Passes a piece of a snapshot to the one that takes it in.
    fn snapshot_piece(&self, group: &Group, from: NodeId, piece: Piece) -> Result<(), (Reason, String)> {
        let transfer = piece.chunk.transfer;
        let mut receiving = self.receiving.lock();
        if piece.chunk.number == 0 {
            let (sender, receiver) = mpsc::channel(self.config.snapshot_window);
            let taking = Receiver {
                env: self.env.clone(),
                group: group.id().get(),
                raft: group.handle().clone(),
                cell: group.cell().clone(),
                idle_timeout: self.config.snapshot_timeout,
            };
            self.tasks.spawn("snapshot", taking.run(receiver));
            // An unfinished earlier transfer ends with its sender.
            receiving.insert(group.id(), (from, transfer, sender));
        }
        match receiving.get(&group.id()) {
            Some((sends, present, sender)) if (*sends, *present) == (from, transfer) => sender
                .try_send(piece)
                .map_err(|_| (Reason::Busy, "the transfer ended or is behind".to_owned())),
            _ => Err((Reason::Malformed, "no such transfer".to_owned())),
        }
    }

    /// Passes a question for a piece of the state to the one that gives it.
    fn state_piece(&self, group: &Group, from: NodeId, ask: StateAsk) -> Result<(), (Reason, String)> {
        let (transfer, key) = (ask.ask.transfer, (group.id(), from));
        let mut giving = self.giving.lock();
        if ask.ask.number == 0 {
            let (sender, receiver) = mpsc::channel(1);
            let giver = Giver {
                env: self.env.clone(),
                group: group.clone(),
                idle_timeout: self.config.snapshot_timeout,
                chunk_bytes: self.config.snapshot_chunk_bytes,
            };
            self.tasks.spawn("state for repair", giver.run(receiver));
            // An unfinished earlier transfer ends with its sender.
            giving.insert(key, (transfer, sender));
        }
        match giving.get(&key) {
            Some((present, sender)) if *present == transfer => {
                sender.try_send(ask).map_err(|_| (Reason::Busy, "the transfer ended or is behind".to_owned()))
            }
            _ => Err((Reason::Malformed, "no such transfer".to_owned())),
        }
    }

    fn begin_work(&self, peer: NodeId, bytes: usize) -> bool {
        self.working.lock().entry(peer).or_default().begin(bytes)
    }

    fn end_work(&self, peer: NodeId, bytes: usize) {
        if let Some(working) = self.working.lock().get_mut(&peer) {
            working.end(bytes);
        }
    }
}

fn stopped(error: RaftError<TypeConfig>) -> (Reason, String) {
    (Reason::Stopped, error.to_string())
}

fn refusal(frame_group: u64, call: u64, (reason, message): (Reason, String)) -> RaftFrame {
    let body = Body::Refusal(v1::RaftRefusal { reason: reason.into(), message });
    RaftFrame { group: frame_group, call, body: Some(body) }
}

fn append_request(append: v1::RaftAppend) -> Result<AppendEntriesRequest<TypeConfig>, codec::CodecError> {
    let vote = codec::required_vote("append", append.vote.as_ref())?;
    plausible::append(&append)?;
    let entries = append.entries.into_iter().map(codec::entry_from_wire).collect::<Result<Vec<_>, _>>()?;
    Ok(AppendEntriesRequest {
        vote,
        prev_log_id: append.previous.as_ref().map(codec::log_id_from_wire),
        entries,
        leader_commit: append.leader_commit.as_ref().map(codec::log_id_from_wire),
    })
}

fn append_answer(answer: AppendEntriesResponse<TypeConfig>, last: Option<crate::type_config::LogId>) -> Body {
    use v1::raft_append_answer::Result as Outcome;
    let matched = |last: Option<crate::type_config::LogId>| {
        Outcome::Matched(v1::RaftMatched { last: last.as_ref().map(codec::log_id_to_wire) })
    };
    let result = match answer {
        AppendEntriesResponse::Success => matched(last),
        AppendEntriesResponse::PartialSuccess(last) => matched(last),
        AppendEntriesResponse::Conflict => Outcome::Conflict(v1::RaftConflict {}),
        AppendEntriesResponse::HigherVote(vote) => Outcome::HigherVote(codec::vote_to_wire(&vote)),
    };
    Body::AppendAnswer(v1::RaftAppendAnswer { result: Some(result) })
}

fn vote_request(vote: &v1::RaftVoteRequest) -> Result<VoteRequest<TypeConfig>, codec::CodecError> {
    plausible::vote_request(vote)?;
    let mut request = VoteRequest::new(
        codec::required_vote("vote request", vote.vote.as_ref())?,
        vote.last.as_ref().map(codec::log_id_from_wire),
    );
    request.leadership_transfer = vote.leadership_transfer;
    Ok(request)
}

impl Inbound for Groups {
    fn request(&self, from: NodeId, frame: RaftFrame, answers: &Arc<dyn FrameSink>) {
        let RaftFrame { group: number, call, body } = frame;
        // An answer that is not taken is lost like one on the wire: the sender's deadline deals with it.
        let refuse = |why: (Reason, String)| {
            let _lost = answers.send(refusal(number, call, why));
        };
        let id = GroupId::new(number);
        if matches!(body, Some(Body::Standing(_))) && self.is_mending(id) {
            let _lost = answers.send(RaftFrame { group: number, call, body: Some(mending::lost_too()) });
            return;
        }
        let Some(group) = self.get(id) else {
            return refuse((Reason::UnknownGroup, String::new()));
        };
        let body = match body {
            Some(Body::Snapshot(chunk)) => {
                let piece = Piece { call, chunk, answers: answers.clone() };
                if let Err(why) = self.inner.snapshot_piece(&group, from, piece) {
                    refuse(why);
                }
                return;
            }
            Some(Body::State(ask)) => {
                let ask = StateAsk { call, ask, answers: answers.clone() };
                if let Err(why) = self.inner.state_piece(&group, from, ask) {
                    refuse(why);
                }
                return;
            }
            Some(body) => body,
            None => return refuse((Reason::Malformed, "an empty frame".to_owned())),
        };
        let bytes = held_bytes(&body);
        if !self.inner.begin_work(from, bytes) {
            return refuse((Reason::Busy, String::new()));
        }
        let mut work = match self.inner.handle(from, &group, body) {
            Ok(work) => work,
            Err(why) => {
                self.inner.end_work(from, bytes);
                return refuse(why);
            }
        };
        let inner = self.inner.clone();
        let answers = answers.clone();
        let finish = move |inner: &GroupsInner, result: Result<Body, (Reason, String)>| {
            inner.end_work(from, bytes);
            let frame = match result {
                Ok(body) => RaftFrame { group: number, call, body: Some(body) },
                Err(why) => refusal(number, call, why),
            };
            let _lost = answers.send(frame);
        };
        // The first poll puts the request into openraft's queue, here and now: so requests stay in order.
        match poll_once(&mut work) {
            Poll::Ready(result) => finish(&inner, result),
            Poll::Pending => {
                let task = async move {
                    let result = work.await;
                    finish(&inner, result);
                };
                // It ends with openraft's answer, which comes in any case, if only because the group stops.
                drop(self.inner.env.spawn("request", task));
            }
        }
    }

    fn answer(&self, from: NodeId, frame: RaftFrame) {
        self.inner.calls.answer(from, frame);
    }

    fn lost(&self, peer: NodeId, lane: Lane) {
        self.inner.calls.lost(peer, lane);
    }
}
