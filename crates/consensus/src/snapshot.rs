//! Snapshots over the network: pieces with a window, out of one machine and into another.
//!
//! Memory is bounded by the window on both sides: the sender reads a piece from its pinned state only when the
//! window has room, and the receiver answers a piece only after it has written it. What was received becomes the
//! state in one step, by openraft's worker, after the last piece.

use std::{collections::VecDeque, sync::Arc};

use openraft::{
    errors::{NetworkError, ReplicationClosed, StreamingError, Timeout},
    network::RPCTypes,
    raft::SnapshotResponse,
};
use rustydb_env::{Env, ambient};
use rustydb_proto::v1::{self, raft_frame::Body};
use tokio::sync::mpsc;

use crate::{
    calls::Call,
    codec,
    group::RaftHandle,
    machine::MachineInstaller,
    network::{Network, unexpected, unreadable},
    runtime::BoxFuture,
    state_machine::{self, MachineCell, Snapshot, SnapshotData},
    transport::{FrameSink, Lane},
    type_config::{SnapshotMeta, TypeConfig, Vote},
};

/// Sends a whole snapshot; ends when it is installed, or refused by a higher vote.
pub(crate) async fn send(
    network: &Network,
    vote: Vote,
    snapshot: Snapshot,
    mut cancel: BoxFuture<ReplicationClosed>,
) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
    let config = network.factory.config.clone();
    let SnapshotData::Outgoing(mut handle) = snapshot.snapshot else {
        return Err(StreamingError::Network(NetworkError::from_string("a received snapshot is not sent on")));
    };
    let transfer = ambient::rng().u64();
    let mut header = Some(codec::snapshot_header(&vote, &snapshot.meta));
    let mut unanswered: VecDeque<Call> = VecDeque::with_capacity(config.snapshot_window);
    let mut number = 0;
    let mut at_end = false;
    loop {
        while !at_end && unanswered.len() < config.snapshot_window {
            let chunk = state_machine::next_chunk(&mut *handle, config.snapshot_chunk_bytes)
                .map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
            at_end = chunk.is_none();
            let body = Body::Snapshot(v1::RaftSnapshotChunk {
                transfer,
                number,
                header: header.take(),
                data: chunk.unwrap_or_default(),
                last: at_end,
            });
            number += 1;
            unanswered.push_back(network.start(Lane::Bulk, body)?);
        }
        let Some(oldest) = unanswered.pop_front() else {
            return Err(StreamingError::Network(NetworkError::from_string(
                "the snapshot ended without an answer",
            )));
        };
        let is_last = at_end && unanswered.is_empty();
        let answer = ambient::timeout(config.snapshot_timeout, oldest);
        let answer = match futures_util::future::select(cancel, answer).await {
            futures_util::future::Either::Left((closed, _)) => return Err(StreamingError::Closed(closed)),
            futures_util::future::Either::Right((answer, still)) => {
                cancel = still;
                answer
            }
        };
        let body = match answer {
            Ok(Ok(body)) => body,
            Ok(Err(lost)) => return Err(StreamingError::Network(NetworkError::new(&lost))),
            Err(_) => {
                let (id, target) = (network.factory.node.get(), network.to.get());
                let timeout = config.snapshot_timeout;
                return Err(StreamingError::Timeout(Timeout {
                    action: RPCTypes::InstallSnapshot,
                    id,
                    target,
                    timeout,
                }));
            }
        };
        let Body::SnapshotAnswer(answer) = body else { return Err(unexpected(body).into()) };
        let theirs = codec::required_vote("snapshot answer", answer.vote.as_ref()).map_err(unreadable)?;
        // A higher vote ends the transfer at any piece.
        if is_last || theirs > vote {
            return Ok(SnapshotResponse::new(theirs));
        }
    }
}

/// A piece that arrived, and the way back.
pub(crate) struct Piece {
    pub(crate) call: u64,
    pub(crate) chunk: v1::RaftSnapshotChunk,
    pub(crate) answers: Arc<dyn FrameSink>,
}

/// What was sent and is not what its hash says, or cannot be stored, is refused after this part of the time that a
/// transfer may be idle.
const REFUSAL_PAUSE_PART: u32 = 10;

/// Takes in one transfer after its first piece.
pub(crate) struct Receiver {
    pub(crate) env: Env,
    pub(crate) group: u64,
    pub(crate) raft: RaftHandle,
    pub(crate) cell: Arc<MachineCell>,
    pub(crate) idle_timeout: std::time::Duration,
}

/// Why a transfer ended early.
#[derive(Debug, thiserror::Error)]
enum ReceiveError {
    #[error("piece {found} came where {expected} was expected")]
    Gap { expected: u64, found: u64 },
    #[error(transparent)]
    Codec(#[from] codec::CodecError),
    #[error("the first piece has no header")]
    NoHeader,
    #[error(
        "its rows are not those of its hash: either they were changed on the way, or the state it is of is wrong"
    )]
    Unsound,
    #[error(transparent)]
    Machine(#[from] crate::machine::MachineError),
    #[error("the group has stopped: {0}")]
    Stopped(String),
}

impl Receiver {
    /// Takes pieces until the last, the first error, or silence for too long.
    pub(crate) async fn run(self, mut pieces: mpsc::Receiver<Piece>) {
        let mut taking: Option<(Vote, SnapshotMeta, Box<dyn MachineInstaller>)> = None;
        let mut expected = 0;
        // A sender that went away leaves its transfer here; what was taken in is dropped with the installer.
        while let Ok(Some(piece)) = self.env.timeout(self.idle_timeout, pieces.recv()).await {
            let last = piece.chunk.last;
            let result = self.take(&mut taking, expected, piece.chunk).await;
            expected += 1;
            let ended = last || result.is_err();
            if result.is_err() {
                // What was taken in so far takes up room.
                taking = None;
            }
            if matches!(result, Err(ReceiveError::Unsound | ReceiveError::Machine(_))) {
                // The sender begins anew at once, and what it sends may be large.
                self.env.sleep(self.idle_timeout / REFUSAL_PAUSE_PART).await;
            }
            let body = match result {
                Ok(vote) => {
                    Body::SnapshotAnswer(v1::RaftSnapshotAnswer { vote: Some(codec::vote_to_wire(&vote)) })
                }
                Err(error) => {
                    let is_unsound = matches!(error, ReceiveError::Unsound);
                    if is_unsound {
                        tracing::error!(group = self.group, %error, "a snapshot was not taken in");
                    } else {
                        tracing::warn!(group = self.group, %error, "a snapshot was not taken in");
                    }
                    let reason = match error {
                        ReceiveError::Unsound => v1::raft_refusal::Reason::NoState,
                        ReceiveError::Machine(_) => v1::raft_refusal::Reason::Busy,
                        _ => v1::raft_refusal::Reason::Malformed,
                    };
                    Body::Refusal(v1::RaftRefusal { reason: reason.into(), message: error.to_string() })
                }
            };
            let frame = v1::RaftFrame { group: self.group, call: piece.call, body: Some(body) };
            // The sender's deadline deals with an answer that is not taken.
            let _lost = piece.answers.send(frame);
            if ended {
                return;
            }
        }
    }

    async fn take(
        &self,
        taking: &mut Option<(Vote, SnapshotMeta, Box<dyn MachineInstaller>)>,
        expected: u64,
        chunk: v1::RaftSnapshotChunk,
    ) -> Result<Vote, ReceiveError> {
        if chunk.number != expected {
            return Err(ReceiveError::Gap { expected, found: chunk.number });
        }
        if let Some(header) = &chunk.header {
            let (vote, meta) = codec::snapshot_meta(header)?;
            let present = self.raft.vote();
            if present > vote {
                return Ok(present);
            }
            *taking = Some((vote, meta, self.cell.with(|machine| machine.installer())?));
        }
        let Some((vote, _, installer)) = taking else { return Err(ReceiveError::NoHeader) };
        if !chunk.data.is_empty() {
            installer.write_chunk(&chunk.data)?;
        }
        if !chunk.last {
            return Ok(*vote);
        }
        let Some((vote, meta, mut installer)) = taking.take() else { return Err(ReceiveError::NoHeader) };
        // Nothing of the present state has changed yet, and the sender tries again.
        if !installer.adds_up()? {
            return Err(ReceiveError::Unsound);
        }
        // A full disk is met here, and not where openraft can only stop.
        installer.seal()?;
        let snapshot = Snapshot { meta, snapshot: SnapshotData::Incoming(installer) };
        let installed = self.raft.install_snapshot(vote, snapshot).await;
        installed.map_err(|error| ReceiveError::Stopped(error.to_string()))
    }
}
