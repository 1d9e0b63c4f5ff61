//! The port through which a gateway runs a session at another node.
//!
//! A remote session is a pair of bounded channels of encoded frames; see [`super::frame`]. The adapter moves bytes
//! and watches the connection, nothing else:
//!
//! ```text
//! gateway --requests--> adapter ==(gRPC or simulated network)==> adapter --requests--> host
//!         <-responses--         <=============================           <-responses--
//! ```
//!
//! Bounds: each channel holds [`FRAME_COUNT_MAX`] frames of little more than [`FRAME_SIZE_MAX`] bytes; who sends
//! into a full one waits, so a slow client slows the executing node and nothing grows.
//! Ends: dropping `requests` ends the remote session, which rolls back what is open. When the connection breaks, or
//! nothing is heard for the adapter's keep-alive time, the adapter yields [`SessionClosed::Lost`] as last response.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use rustydb_env::Instant;
use rustydb_types::ids::{GroupId, Incarnation, NodeId, SessionId};
use tokio::sync::mpsc;

/// Most bytes of content of one frame; what is longer travels in parts.
pub const FRAME_SIZE_MAX: usize = 256 * 1024;

/// Most frames that a channel of a remote session holds.
pub const FRAME_COUNT_MAX: usize = 8;

/// Names a session in the whole cluster, for ever: the life of the gateway's node and the session's number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    /// The life of the node that the client is connected to.
    pub incarnation: Incarnation,
    /// The number of the session there.
    pub session: SessionId,
}

/// Opens a session at another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOpen {
    /// The group of the database.
    pub group: GroupId,
    /// Names the session.
    pub key: SessionKey,
    /// An encoded [`super::SessionContext`].
    pub context: Bytes,
}

/// An open session at another node (as the gateway holds it), or at this one for another's gateway (as the adapter
/// holds it).
#[derive(Debug)]
pub struct RemoteSession {
    /// Encoded [`super::RequestFrame`]s.
    pub requests: mpsc::Sender<Bytes>,
    /// Encoded [`super::ResponseFrame`]s; an error is the last item.
    pub responses: mpsc::Receiver<Result<Bytes, SessionClosed>>,
}

/// Why a remote session ended or could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionClosed {
    /// The node does not lead the database.
    #[error("the node does not lead the database")]
    NotLeader {
        /// Who does, if the node knows.
        leader: Option<NodeId>,
    },
    /// The node has no such database, or not yet.
    #[error("the node does not know the database")]
    UnknownDatabase,
    /// The node holds as many sessions as it may.
    #[error("the node holds too many sessions")]
    TooMany,
    /// The node shuts down: what was asked last may or may not have been done.
    #[error("the node is stopping")]
    Stopping,
    /// The session ended by itself, with the fatal error that was sent before.
    #[error("the session has ended")]
    Ended,
    /// One of the two sides did not understand the other.
    #[error("a frame between nodes was malformed: {0}")]
    Malformed(String),
    /// The node cannot be reached, or the connection broke: what was asked last may or may not have been done.
    #[error("the connection to the node was lost: {0}")]
    Lost(String),
}

/// Opens sessions at other nodes. Implemented over gRPC by `interconnect` and by the simulator.
pub trait SessionPeer: Send + Sync + 'static {
    /// Opens a session at `node`. Gives up at `deadline`.
    ///
    /// # Errors
    /// Why there is none; nothing is left behind at the node then, or it ends by itself.
    fn open(
        &self,
        node: NodeId,
        open: SessionOpen,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<RemoteSession, SessionClosed>>;

    /// Ends what the named session does at `node` now, as a cancel request does. Answers whether there is such a
    /// session. Gives up at `deadline`.
    ///
    /// # Errors
    /// When the node cannot be asked.
    fn cancel(
        &self,
        node: NodeId,
        key: SessionKey,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<bool, SessionClosed>>;
}
