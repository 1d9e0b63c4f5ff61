//! What travels between nodes, over gRPC: Raft's frames, and sessions that run at the leader of their database.
//!
//! ```text
//! this node                                                     another node
//! Transport::send ─ queue ─► Exchange stream (consensus) ─────► Inbound::request
//!                                          (bulk)        ◄───── FrameSink::send
//! SessionPeer::open ───────► Open stream, one per session ────► SessionHost::open
//! ```
//!
//! Raft's messages, its snapshots and the sessions take three connections, so that none waits behind another.
//! Every stream names, in its metadata, the cluster, who calls and who is meant; a node refuses what is of
//! another cluster or meant for another node, as happens when addresses are given away anew.
//! Nothing here knows what a frame means.

mod channel;
mod identity;
mod peers;
mod raft_service;
mod session_client;
mod session_service;

pub use channel::ChannelError;
pub use identity::{Caller, ClusterIdentity, Local};
pub use peers::Peers;
pub use raft_service::{RaftServer, raft_service};
pub use session_client::SessionClient;
pub use session_service::{SessionHost, SessionServer, session_service};

/// Largest message on the wire: an entry may be as large as half a segment of the log.
pub const MESSAGE_SIZE_MAX: usize = 512 << 20;
