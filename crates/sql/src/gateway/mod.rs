//! The gateway: where a client's session lives, whichever node runs its statements.
//!
//! [`peer`] is the port through which a session reaches the leader of its database at another node, [`frame`] what
//! travels through it. [`cluster`] is the port through which it sees databases, roles and the stores of this node.

pub mod cluster;
mod fate;
mod forward;
pub mod frame;
pub mod host;
mod listening;
pub mod lives;
pub mod local;
pub mod peer;
mod portals;
pub mod session;
mod taken;

pub use cluster::ClusterPort;
pub use frame::{RequestFrame, ResponseFrame, SessionContext};
pub use host::Host;
pub use lives::Lives;
pub use local::Gateway;
pub use peer::{RemoteSession, SessionClosed, SessionKey, SessionOpen, SessionPeer};
pub use session::GatewaySession;
