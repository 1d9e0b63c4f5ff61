//! The Postgres wire front end: sockets, TLS, logins, and messages to and from sessions.
//!
//! ```text
//! socket --bytes--> connection: start-up, TLS, SCRAM --messages--> sql::session::Session
//!        <-bytes--      one buffer, sent when the input is used up <-messages--
//! ```
//!
//! Invariants: before a client is logged in it can make the server hold 10 kB and no more, for no longer than the
//! authentication timeout; after that one message of at most the configured size and one output buffer; a malformed
//! frame ends its connection and nothing else.

pub mod access;
mod connection;
pub mod metrics;
pub mod scram;
pub mod server;
pub mod startup;
pub mod tls;

pub use server::{Server, ServerConfig};
