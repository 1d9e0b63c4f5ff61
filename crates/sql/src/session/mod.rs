//! Sessions: what runs a client's statements, at the node that leads the client's database.
//!
//! ```text
//! pg (socket) --Request--> gateway --+-- here --> Session --> txn
//!            <-Response--            +-- SessionPeer --> Host at the leader: Session --> txn
//! ```
//!
//! [`request`] and [`response`] are the language spoken on all these arrows: the bodies of PostgreSQL's own
//! messages, so that a row is encoded once and a forwarded request is not encoded at all.

pub mod activity;
pub mod advisory;
mod copy;
pub mod core;
mod cursor;
pub mod executor;
pub(crate) mod failure;
pub mod interrupt;
pub mod notify;
mod portal;
mod prepared;
mod query;
pub mod random;
pub mod request;
pub mod response;
pub(crate) mod roles;
mod run;
pub(crate) mod sequences;
pub mod settings;
pub mod sink;
pub mod statement;
pub mod syntax;
pub mod temporary;
pub mod token;
mod transaction;
mod utility;

#[cfg(test)]
mod tests;

pub use request::{Request, RequestError};
pub use response::{Format, TransactionStatus};
