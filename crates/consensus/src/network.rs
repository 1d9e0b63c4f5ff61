//! openraft's network over [`Calls`]: requests out, answers in, with deadlines and a window.
//!
//! Appends are pipelined: up to a window of them is on its way before the first is answered. Their answers come in
//! any order and are handed to openraft in the order of the requests.
//!
//! An append that carries nothing but a newer committed position is held for [`COMMIT_HELD_FOR`]: under load the next
//! entries come within that time and carry it too, which halves the messages of a round. A follower needs it only to
//! apply, which no client waits for.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt};
use openraft::{
    OptionalSend,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::{RPCOption, RPCTypes, RaftNetworkFactory, v2::RaftNetworkV2},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
        TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use rustydb_env::{Instant, Sleep, ambient};
use rustydb_proto::v1::{self, raft_frame::Body};
use rustydb_types::ids::{GroupId, NodeId};

use crate::{
    acknowledgements::Acknowledgements,
    calls::{Call, Calls},
    campaigns::Campaigns,
    codec,
    config::ConsensusConfig,
    runtime::{BoxFuture, prolong},
    snapshot,
    state_machine::{Snapshot, SnapshotData},
    transport::Lane,
    type_config::{LogId, Member, TypeConfig, Vote},
};

type RpcError = RPCError<TypeConfig>;

/// The longest that a committed position waits for entries to go with.
const COMMIT_HELD_FOR: Duration = Duration::from_millis(5);

/// Makes the network of one group.
#[derive(Clone)]
pub(crate) struct NetworkFactory {
    pub(crate) node: NodeId,
    pub(crate) group: GroupId,
    pub(crate) calls: Arc<Calls>,
    pub(crate) config: Arc<ConsensusConfig>,
    pub(crate) acknowledgements: Arc<Acknowledgements>,
    pub(crate) campaigns: Arc<Campaigns>,
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = Network;

    async fn new_client(&mut self, target: u64, _node: &Member) -> Network {
        Network { to: NodeId::new(target), factory: self.clone() }
    }
}

/// One member of a group, as another sees it.
pub(crate) struct Network {
    pub(crate) to: NodeId,
    pub(crate) factory: NetworkFactory,
}

impl Network {
    fn unreachable(error: &(impl std::error::Error + 'static)) -> RpcError {
        RPCError::Unreachable(Unreachable::new(error))
    }

    fn timeout(&self, action: RPCTypes, timeout: Duration) -> RpcError {
        let (id, target) = (self.factory.node.get(), self.to.get());
        RPCError::Timeout(Timeout { action, id, target, timeout })
    }

    pub(crate) fn start(&self, lane: Lane, body: Body) -> Result<Call, RpcError> {
        self.factory
            .calls
            .start(self.to, lane, self.factory.group, body)
            .map_err(|error| Self::unreachable(&error))
    }

    /// Notes whether an answer to what was sent at `sent` acknowledges this node as the leader of a term.
    fn note(&self, term: u64, sent: Instant, result: &StreamAppendResult<TypeConfig>) {
        // Who has other entries has looked at the vote first.
        if !matches!(result, Err(StreamAppendError::HigherVote(_))) {
            self.factory.acknowledgements.note(self.to.get(), term, sent);
        }
    }

    /// One request, one answer.
    async fn call(&self, action: RPCTypes, body: Body, deadline: Duration) -> Result<Body, RpcError> {
        let call = self.start(Lane::Consensus, body)?;
        match ambient::timeout(deadline, call).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(lost)) => Err(RPCError::Network(NetworkError::new(&lost))),
            Err(_) => Err(self.timeout(action, deadline)),
        }
    }

    async fn ask_for_vote(
        &self,
        request: VoteRequest<TypeConfig>,
        pre_vote: bool,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let campaigns = &self.factory.campaigns;
        let patience = if pre_vote { campaigns.pre_vote_patience() } else { campaigns.patience() };
        prolong(ambient::now() + patience);
        let body = Body::Vote(v1::RaftVoteRequest {
            vote: Some(codec::vote_to_wire(&request.vote)),
            last: request.last_log_id.as_ref().map(codec::log_id_to_wire),
            leadership_transfer: request.leadership_transfer,
            pre_vote,
        });
        match self.call(RPCTypes::Vote, body, patience).await? {
            Body::VoteAnswer(_) if pre_vote && !self.factory.campaigns.is_allowed() => {
                Err(RPCError::Unreachable(Unreachable::from_string("this member does not campaign any more")))
            }
            Body::VoteAnswer(answer) => {
                let vote = codec::required_vote("vote answer", answer.vote.as_ref()).map_err(unreadable)?;
                let last = answer.last.as_ref().map(codec::log_id_from_wire);
                Ok(VoteResponse::new(vote, last, answer.granted))
            }
            other => Err(unexpected(other)),
        }
    }
}

/// An answer that does not decode.
pub(crate) fn unreadable(error: codec::CodecError) -> RpcError {
    RPCError::Network(NetworkError::new(&error))
}

/// A refusal, or an answer of another kind.
pub(crate) fn unexpected(body: Body) -> RpcError {
    match body {
        Body::Refusal(refusal) => {
            let reason = refusal.reason();
            let text = format!("refused: {} {}", reason.as_str_name(), refusal.message);
            match reason {
                // Asking again at once is of no use.
                v1::raft_refusal::Reason::UnknownGroup
                | v1::raft_refusal::Reason::Stopped
                | v1::raft_refusal::Reason::Busy
                | v1::raft_refusal::Reason::NoState
                | v1::raft_refusal::Reason::DiskFull => RPCError::Unreachable(Unreachable::from_string(text)),
                _ => RPCError::Network(NetworkError::from_string(text)),
            }
        }
        _ => RPCError::Network(NetworkError::from_string("an answer of another kind")),
    }
}

fn append_body(request: &AppendEntriesRequest<TypeConfig>) -> Body {
    Body::Append(v1::RaftAppend {
        vote: Some(codec::vote_to_wire(&request.vote)),
        previous: request.prev_log_id.as_ref().map(codec::log_id_to_wire),
        entries: request.entries.iter().map(codec::entry_to_wire).collect(),
        leader_commit: request.leader_commit.as_ref().map(codec::log_id_to_wire),
    })
}

fn append_result(body: Body, previous: Option<LogId>) -> Result<StreamAppendResult<TypeConfig>, RpcError> {
    let Body::AppendAnswer(answer) = body else { return Err(unexpected(body)) };
    match answer.result {
        Some(v1::raft_append_answer::Result::Matched(matched)) => {
            Ok(Ok(matched.last.as_ref().map(codec::log_id_from_wire)))
        }
        Some(v1::raft_append_answer::Result::Conflict(_)) => match previous {
            Some(previous) => Ok(Err(StreamAppendError::Conflict(previous))),
            None => Err(RPCError::Network(NetworkError::from_string("a conflict at the start of the log"))),
        },
        Some(v1::raft_append_answer::Result::HigherVote(vote)) => {
            Ok(Err(StreamAppendError::HigherVote(codec::vote_from_wire(&vote))))
        }
        None => Err(RPCError::Network(NetworkError::from_string("an append answer without a result"))),
    }
}

impl RaftNetworkV2<TypeConfig> for Network {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let (previous, sent) = (request.prev_log_id, ambient::now());
        let body = self.call(RPCTypes::AppendEntries, append_body(&request), option.soft_ttl()).await?;
        let result = append_result(body, previous)?;
        self.note(request.vote.leader_id.term, sent, &result);
        Ok(AppendEntriesResponse::from(result))
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> Pin<
        Box<
            dyn Future<
                    Output = Result<
                        Pin<
                            Box<
                                dyn Stream<Item = Result<StreamAppendResult<TypeConfig>, RpcError>>
                                    + Send
                                    + 's,
                            >,
                        >,
                        RpcError,
                    >,
                > + Send
                + 's,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let stream = AppendStream {
            network: self,
            input: Some(input),
            held: None,
            established: false,
            unanswered: VecDeque::new(),
            deadline: None,
            matched: None,
            failed: None,
        };
        Box::pin(async move {
            let stream: Pin<Box<dyn Stream<Item = _> + Send + 's>> = Box::pin(stream);
            Ok(stream)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_for_vote(request, false).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_for_vote(request, true).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let cancel: BoxFuture<ReplicationClosed> = Box::pin(cancel);
        snapshot::send(self, vote, snapshot, cancel).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let body = Body::Transfer(v1::RaftTransfer {
            from_leader: Some(codec::vote_to_wire(request.from_leader())),
            to: *request.to_node_id(),
            last: request.last_log_id().map(codec::log_id_to_wire),
        });
        let answer = match self.call(RPCTypes::TransferLeader, body, option.soft_ttl()).await? {
            Body::TransferAnswer(answer) => answer,
            other => return Err(unexpected(other)),
        };
        Ok(match answer.refusal {
            None => Ok(()),
            Some(v1::raft_transfer_answer::Refusal::VoteChanged(vote)) => {
                Err(TransferLeaderError::VoteChanged {
                    expected: *request.from_leader(),
                    actual: codec::vote_from_wire(&vote),
                })
            }
            Some(v1::raft_transfer_answer::Refusal::LogNotFlushed(refusal)) => {
                Err(TransferLeaderError::LogNotFlushed {
                    expected: request.last_log_id().copied(),
                    actual: refusal.actual.as_ref().map(codec::log_id_from_wire),
                })
            }
        })
    }
}

/// An append on its way.
struct Unanswered {
    call: Call,
    previous: Option<LogId>,
    term: u64,
    sent: Instant,
}

/// Requests of openraft, sent as they come, and their answers in the same order.
///
/// Polled by one task: it takes requests while the window has room, then waits for the oldest answer. An answer
/// other than a match, a broken connection or a deadline ends the stream.
struct AppendStream<'s, S> {
    network: &'s Network,
    input: Option<S>,
    /// A request without entries, and until when it waits for one with entries. openraft counts what is
    /// acknowledged by positions, so that a request which a later one covers needs no answer.
    held: Option<(AppendEntriesRequest<TypeConfig>, Sleep)>,
    /// Whether a request was sent: the first one asks what the peer has, so it never waits.
    established: bool,
    unanswered: VecDeque<Unanswered>,
    /// Of the oldest unanswered request.
    deadline: Option<Sleep>,
    /// The last entry that the peer said it has, on this stream.
    matched: Option<LogId>,
    /// A request that could not be sent: told after the answers to those before it.
    failed: Option<RpcError>,
}

impl<S> AppendStream<'_, S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    /// Sends what openraft has for us and the window takes.
    fn poll_input(&mut self, context: &mut Context<'_>) {
        while self.unanswered.len() < self.network.factory.config.append_window {
            let Some(input) = &mut self.input else { break };
            match input.poll_next_unpin(context) {
                Poll::Pending => break,
                Poll::Ready(None) => self.input = None,
                Poll::Ready(Some(request)) if self.established && request.entries.is_empty() => {
                    let wait =
                        self.held.take().map_or_else(|| ambient::sleep(COMMIT_HELD_FOR), |held| held.1);
                    self.held = Some((request, wait));
                }
                Poll::Ready(Some(request)) => {
                    self.held = None;
                    self.send(&request);
                }
            }
        }
        let Some((request, wait)) = &mut self.held else { return };
        if self.input.is_none() || Pin::new(wait).poll(context).is_ready() {
            let request = request.clone();
            self.held = None;
            self.send(&request);
        }
    }

    fn send(&mut self, request: &AppendEntriesRequest<TypeConfig>) {
        let (previous, term, sent) = (request.prev_log_id, request.vote.leader_id.term, ambient::now());
        self.established = true;
        match self.network.start(Lane::Consensus, append_body(request)) {
            Ok(call) => self.unanswered.push_back(Unanswered { call, previous, term, sent }),
            Err(error) => {
                self.input = None;
                self.failed = Some(error);
            }
        }
    }

    /// Tells a peer that has other entries from one that got our requests out of order: it said it has an entry
    /// and then, to a later request, that it has not. openraft takes the latter for a log that was wiped.
    fn judge(
        &mut self,
        result: Result<StreamAppendResult<TypeConfig>, RpcError>,
    ) -> Result<StreamAppendResult<TypeConfig>, RpcError> {
        match &result {
            Ok(Ok(matched)) => self.matched = self.matched.max(*matched),
            Ok(Err(StreamAppendError::Conflict(at))) if Some(*at) <= self.matched => {
                return Err(RPCError::Network(NetworkError::from_string("requests arrived out of order")));
            }
            _ => {}
        }
        result
    }

    fn end(&mut self) {
        self.input = None;
        self.held = None;
        self.unanswered.clear();
        self.deadline = None;
    }
}

impl<S> Stream for AppendStream<'_, S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    type Item = Result<StreamAppendResult<TypeConfig>, RpcError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        this.poll_input(context);
        let Some(oldest) = this.unanswered.front_mut() else {
            return match this.failed.take() {
                Some(error) => Poll::Ready(Some(Err(error))),
                None if this.input.is_none() => Poll::Ready(None),
                None => Poll::Pending,
            };
        };
        if let Poll::Ready(answer) = Pin::new(&mut oldest.call).poll(context) {
            let (previous, term, sent) = (oldest.previous, oldest.term, oldest.sent);
            this.unanswered.pop_front();
            this.deadline = None;
            let result = match answer {
                Ok(body) => append_result(body, previous),
                Err(lost) => Err(RPCError::Network(NetworkError::new(&lost))),
            };
            if let Ok(result) = &result {
                this.network.note(term, sent, result);
            }
            let result = this.judge(result);
            if !matches!(result, Ok(Ok(_))) {
                this.end();
            }
            return Poll::Ready(Some(result));
        }
        let timeout = this.network.factory.config.append_timeout;
        let deadline = this.deadline.get_or_insert_with(|| ambient::sleep(timeout));
        if Pin::new(deadline).poll(context).is_ready() {
            this.end();
            return Poll::Ready(Some(Err(this.network.timeout(RPCTypes::AppendEntries, timeout))));
        }
        Poll::Pending
    }
}
