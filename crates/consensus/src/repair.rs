//! The state of one member for another whose own is wrong.
//!
//! ```text
//!   wrong member ── piece 0? applied at least A ──► sound member: flushes, pins its state
//!                ◄── position, hash, data ────────
//!                ── piece 1? ──► ... ◄── data, last
//! ```
//!
//! One piece is on its way at a time, so memory is bounded by one piece on both sides; a repair is rare and may take
//! its time. A sound member serves one such transfer per member and group, and forgets it when it is asked for nothing
//! within the snapshot timeout.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustydb_env::{Env, ambient};
use rustydb_proto::v1::{self, raft_frame::Body, raft_refusal::Reason};
use rustydb_types::ids::{LogIndex, NodeId};
use tokio::sync::mpsc;

use crate::{
    codec,
    error::ConsensusError,
    group::Group,
    machine::{Applied, MachineError, MachineInstaller, MachineSnapshot, Mark},
    transport::{FrameSink, Lane},
};

/// How often a question is sent again that no lane takes, and the pause before each: a lane that is opened for it has
/// so long.
const OPENING_TRIES: u32 = 10;
const OPENING_PAUSE: Duration = Duration::from_millis(100);

/// Why a wrong state was not replaced; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RepairError {
    /// Nobody else has a vote.
    #[error("there is no other voter")]
    NoSource,
    /// This node leads, and nobody takes over.
    #[error("this node still leads the group")]
    Leads,
    /// Leadership was not handed over.
    #[error("leadership is not handed over: {0}")]
    Handover(#[from] ConsensusError),
    /// A member does not answer.
    #[error("node {source_node} does not answer")]
    Unreachable {
        /// Who was asked.
        source_node: NodeId,
    },
    /// A member has no state to give.
    #[error("node {source_node} gives no state: {reason}")]
    Refused {
        /// Who was asked.
        source_node: NodeId,
        /// What it said.
        reason: String,
    },
    /// The answer cannot be read.
    #[error(transparent)]
    Codec(#[from] codec::CodecError),
    /// The state cannot be taken in.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// No majority holds what was fetched.
    #[error("no majority holds the state of node {source_node}")]
    Unconfirmed {
        /// Whose state it is.
        source_node: NodeId,
    },
    /// The rows are not those of the hash.
    #[error("the state of node {source_node} is not what its hash says")]
    Unsound {
        /// Whose state it is.
        source_node: NodeId,
    },
    /// What the log has behind the state cannot be applied to it.
    #[error("the log does not go on from the state: {0}")]
    Log(#[from] std::io::Error),
    /// The state does not take what the log has behind it.
    #[error("the state does not take entry {index} from the log")]
    Stalled {
        /// The first one that it lacks.
        index: u64,
    },
    /// The state has no room for what the log has behind it.
    #[error("the state has no room for more in time")]
    Full,
    /// The log of this node does not come as far as the state.
    #[error("the log does not catch up with the state in time")]
    Late,
    /// The group ends.
    #[error("the group ends")]
    Ending,
}

/// The state of another member on its way to this one.
pub(crate) struct Transfer {
    source: NodeId,
    number: u64,
    mark: Mark,
    membership: Bytes,
    first: v1::RaftStatePiece,
}

impl Transfer {
    /// Asks a member for its state, of what is applied here or more.
    pub(crate) async fn open(group: &Group, source: NodeId) -> Result<Transfer, RepairError> {
        let number = ambient::rng().u64();
        let applied = group.cell().applied().position;
        let applied_min = applied.map_or(0, |position| position.index.get());
        let ask = v1::RaftStateAsk { transfer: number, number: 0, applied_min };
        let first = next_piece(group, source, ask).await?;
        let missing = |part| codec::CodecError::Missing { what: "state", part };
        let mark = codec::mark_from_wire(first.mark.as_ref().ok_or(missing("a mark"))?)?;
        let membership = first.membership.as_ref().ok_or(missing("a membership"))?;
        let membership = codec::encode_stored_membership(&codec::stored_membership_from_wire(membership)?);
        Ok(Transfer { source, number, mark, membership, first })
    }

    /// The nodes with a vote, as of the state.
    pub(crate) fn voters(&self) -> Result<BTreeSet<NodeId>, codec::CodecError> {
        let stored = codec::decode_stored_membership(&self.membership)?;
        Ok(stored.membership().voter_ids().map(NodeId::new).collect())
    }

    /// Of which position the state is, and its hash.
    pub(crate) const fn mark(&self) -> Mark {
        self.mark
    }

    /// Takes the state in beside the present one.
    pub(crate) async fn take_in(
        self,
        group: &Group,
    ) -> Result<(Box<dyn MachineInstaller>, Applied), RepairError> {
        let mut installer = group.cell().with(|machine| machine.installer())?;
        let (mut piece, mut number) = (self.first, 0);
        loop {
            if !piece.data.is_empty() {
                installer.write_chunk(&piece.data)?;
            }
            if piece.last {
                installer.seal()?;
                let position = Some(self.mark.position);
                return Ok((installer, Applied { position, membership: self.membership }));
            }
            number += 1;
            let ask = v1::RaftStateAsk { transfer: self.number, number, applied_min: 0 };
            piece = next_piece(group, self.source, ask).await?;
        }
    }
}

async fn next_piece(
    group: &Group,
    source: NodeId,
    ask: v1::RaftStateAsk,
) -> Result<v1::RaftStatePiece, RepairError> {
    let unreachable = RepairError::Unreachable { source_node: source };
    let mut tries = 0;
    let call = loop {
        let body = Body::State(ask);
        match group.calls().start(source, Lane::Bulk, group.id(), body) {
            Ok(call) => break call,
            // A lane that is not open yet is opened by what is to be sent, and refuses that.
            Err(_) if tries < OPENING_TRIES => ambient::sleep(OPENING_PAUSE).await,
            Err(_) => return Err(unreachable),
        }
        tries += 1;
    };
    match ambient::timeout(group.handle().config().snapshot_timeout, call).await {
        Ok(Ok(Body::StatePiece(piece))) => Ok(piece),
        Ok(Ok(Body::Refusal(refusal))) => {
            let reason = format!("{:?} {}", refusal.reason(), refusal.message);
            Err(RepairError::Refused { source_node: source, reason })
        }
        _ => Err(unreachable),
    }
}

/// A question for a piece, and the way back.
pub(crate) struct StateAsk {
    pub(crate) call: u64,
    pub(crate) ask: v1::RaftStateAsk,
    pub(crate) answers: Arc<dyn FrameSink>,
}

/// Gives the state of this member in one transfer.
pub(crate) struct Giver {
    pub(crate) env: Env,
    pub(crate) group: Group,
    pub(crate) idle_timeout: Duration,
    pub(crate) chunk_bytes: usize,
}

type Refused = (Reason, String);

impl Giver {
    /// Answers until the last piece, the first error, or silence for too long.
    pub(crate) async fn run(self, mut asks: mpsc::Receiver<StateAsk>) {
        let mut pinned: Option<Box<dyn MachineSnapshot>> = None;
        let mut expected = 0;
        while let Ok(Some(StateAsk { call, ask, answers })) =
            self.env.timeout(self.idle_timeout, asks.recv()).await
        {
            let result = if ask.number == expected {
                self.piece(&mut pinned, &ask).await
            } else {
                Err((Reason::Malformed, format!("piece {} where {expected} comes", ask.number)))
            };
            expected += 1;
            let ended = !matches!(&result, Ok(piece) if !piece.last);
            let body = match result {
                Ok(piece) => Body::StatePiece(piece),
                Err((reason, message)) => Body::Refusal(v1::RaftRefusal { reason: reason.into(), message }),
            };
            // An answer that is not taken is lost: the deadline of who asked deals with it.
            let _lost = answers.send(v1::RaftFrame { group: self.group.id().get(), call, body: Some(body) });
            if ended {
                return;
            }
        }
    }

    async fn piece(
        &self,
        pinned: &mut Option<Box<dyn MachineSnapshot>>,
        ask: &v1::RaftStateAsk,
    ) -> Result<v1::RaftStatePiece, Refused> {
        if !self.group.is_sound() {
            return Err((Reason::NoState, "its own state is wrong".to_owned()));
        }
        let failed = |error: MachineError| (Reason::Stopped, error.to_string());
        let (mut mark, mut membership) = (None, None);
        if ask.number == 0 {
            let snapshot = self.group.cell().with(|machine| machine.snapshot()).await.map_err(failed)?;
            let applied = snapshot.applied().clone();
            let index = applied.position.map_or(LogIndex::new(0), |position| position.index);
            if index < LogIndex::new(ask.applied_min) {
                return Err((Reason::NoState, format!("index {index} is the last one applied")));
            }
            let Some(known) = snapshot.mark() else {
                return Err((Reason::NoState, "it has no hash".to_owned()));
            };
            mark = Some(codec::mark_to_wire(&known));
            let stored = codec::decode_stored_membership(&applied.membership);
            let stored = stored.map_err(|error| (Reason::Stopped, error.to_string()))?;
            membership = Some(codec::stored_membership_to_wire(&stored));
            *pinned = Some(snapshot);
        }
        let Some(snapshot) = pinned else {
            return Err((Reason::Malformed, "no such transfer".to_owned()));
        };
        let data = snapshot.next_chunk(self.chunk_bytes).map_err(failed)?;
        let last = data.is_none();
        Ok(v1::RaftStatePiece { mark, membership, data: data.unwrap_or_default(), last })
    }
}
