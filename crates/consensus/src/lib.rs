//! Binds openraft to the log, the state machine and a transport; gives replicated groups.
//!
//! ```text
//!   KvStore ── RaftProposer ──► openraft ──► LogStore ──► storage::log (one per node)
//!                                  │  ▲
//!             Machine ◄── apply ───┘  └── network ── Calls ── Transport (port) ~~~ other nodes
//! ```
//!
//! The only crate that names openraft. Invariants: at most one leader per term and group; entries reach the machine
//! in log order, each once; no proposal is acknowledged before a majority of the voters has it on disk; nothing is
//! read by a lease that another leader could contradict; `purged <= flushed <= applied <= committed <= last`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod codec;
pub mod config;
pub mod error;
pub mod group;
pub mod groups;
mod inquiry;
pub mod kv;
pub mod log_store;
pub mod loopback;
pub mod machine;
pub mod model;
pub mod node_state;
pub mod proposer;
pub mod quorum;
pub mod runtime;
pub mod state_machine;
pub mod transport;
pub mod type_config;

mod acknowledgements;
mod calls;
mod campaigns;
mod mending;
mod network;
mod plausible;
mod repair;
mod snapshot;
mod working;

/// What of the consensus library's own messages is worth logging: it warns of every heartbeat that a dead node does
/// not answer, tells of every message at lower levels, and calls it an error when a call finds that it was stopped, or a
/// change of members, which is tried again, no leader.
pub const LOG_FILTER: &str = "openraft=error,openraft::raft=off,openraft::core::heartbeat=off";

pub use config::ConsensusConfig;
pub use error::ConsensusError;
pub use group::{Agreement, Group, Health, RaftProgress, RaftStatus};
pub use groups::{Groups, GroupsParts, MachineFactory};
