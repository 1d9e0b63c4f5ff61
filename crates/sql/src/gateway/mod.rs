//! The gateway: where a client's session lives, whichever node runs its statements.
//!
//! [`peer`] is the port through which a session reaches the leader of its database at another node, [`frame`] what
//! travels through it.

pub mod frame;
pub mod peer;

pub use frame::{RequestFrame, ResponseFrame, SessionContext};
pub use peer::{RemoteSession, SessionClosed, SessionKey, SessionOpen, SessionPeer};
