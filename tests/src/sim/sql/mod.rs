//! SQL over the simulated cluster: real sessions, gateways and executors on every node, below the wire.
//!
//! ```text
//!   client ── messages of the protocol ──► gateway of some node ──► session, if the node leads the database
//!                                             '── frames over the simulated links ──► host at the leader
//! ```
//!
//! Clients send text and read rows and SQLSTATEs, and nothing else decides what they believe.

pub mod check;
pub mod connection;
pub mod links;
pub mod node;
mod orphans;
pub mod plan;
mod series;
mod series_crash;
mod tickets;
pub mod workload;

pub use orphans::run_orphans;
pub use series_crash::{SeriesReport, run_series};
pub use tickets::run_tickets;
pub use workload::run_sql;
