//! The port to the other nodes: frames out, frames in.
//!
//! A transport carries [`RaftFrame`]s between two nodes, in order per lane while it works, and may lose any of them.
//! It knows nothing of what they mean. Matching answers to requests, deadlines and pipelining are done here in
//! `consensus`, once, so that the simulated transport and the one over gRPC run the same code.
//!
//! ```text
//!  openraft ─ network ─ calls ──► Transport::send ~~~~► Inbound::request ─ raft ─► FrameSink::send
//!                         ▲                                                            │
//!                         └── Inbound::answer ◄~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~┘
//! ```
//!
//! Bounds: a transport queues a bounded number of frames per peer and lane and refuses what comes beyond.

use std::sync::Arc;

use rustydb_proto::v1::RaftFrame;
use rustydb_types::ids::NodeId;

/// Which of the two connections to a peer a frame takes, so that a snapshot never delays a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Votes, heartbeats, entries.
    Consensus,
    /// Snapshots.
    Bulk,
}

impl Lane {
    /// All of them.
    pub const ALL: [Lane; 2] = [Lane::Consensus, Lane::Bulk];
}

/// Why a frame was not taken. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// There is no connection to the node now, or no address for it.
    #[error("node {to} cannot be reached")]
    Unreachable {
        /// The node.
        to: NodeId,
    },
    /// Too many frames wait already.
    #[error("too many messages wait for node {to}")]
    Full {
        /// The node.
        to: NodeId,
    },
}

/// Sends frames to peers.
pub trait Transport: Send + Sync + 'static {
    /// Queues one request for a peer; never blocks. That it was taken does not mean that it arrives.
    ///
    /// # Errors
    /// [`TransportError`] when the frame was not taken.
    fn send(&self, to: NodeId, lane: Lane, frame: RaftFrame) -> Result<(), TransportError>;
}

/// The way back to whoever sent a request.
pub trait FrameSink: Send + Sync {
    /// Queues one answer; never blocks.
    ///
    /// # Errors
    /// [`TransportError`] when the frame was not taken: the caller's deadline deals with it.
    fn send(&self, frame: RaftFrame) -> Result<(), TransportError>;
}

/// Where a transport delivers what arrives. Implemented by [`crate::Groups`].
///
/// A transport has checked before who the peer is: its cluster, its number.
pub trait Inbound: Send + Sync {
    /// A request of a peer; its answer goes into `answers`. Must be called in the order of arrival. Never blocks.
    fn request(&self, from: NodeId, frame: RaftFrame, answers: &Arc<dyn FrameSink>);

    /// An answer to a request that was sent by [`Transport::send`].
    fn answer(&self, from: NodeId, frame: RaftFrame);

    /// The connection broke: what is unanswered on it stays so.
    fn lost(&self, peer: NodeId, lane: Lane);
}
