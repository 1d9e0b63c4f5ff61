//! The simulated cluster: real consensus, real log, simulated clocks, disks and network, all from one seed.
//!
//! ```text
//!   a cluster of 3, 5 or 7 nodes, two groups on one log, over
//!      sql: sessions, gateways, executors   or   models: lists in memory, cheap
//!        └─ stores: the real transactional stores on redb
//!   clients run statements or transactions, ask for lost outcomes ─┐ for a while
//!   a nemesis crashes, pauses, cuts, slows, loses, fails disks     ─┘
//!   then everything heals, must serve, and must agree
//!   checked all the time: one leader per term, equal state at equal position, nothing applied goes back,
//!                         logs that agree, what is committed durable at a majority, votes that are kept
//!   checked at the end:   some one order of the transactions explains all that was told and seen
//! ```
//!
//! The same seed gives the same trace hash; a seed that failed once stays in [`REGRESSIONS`].
//! Replay: `cargo run -p rustydb-tests --bin sim -- --seed N [--sql | --models]`.

pub mod campaign;
pub mod churn;
pub mod cluster;
mod commit_crash;
pub mod divergence;
pub mod errand;
pub mod history;
pub mod invariants;
pub mod lists;
pub mod log_rules;
pub mod logs;
mod lost_log;
pub mod machines;
pub mod members;
#[cfg(feature = "planted_bugs")]
pub mod mutations;
pub mod nemesis;
pub mod oracle;
pub mod panics;
mod proposals;
pub mod run;
pub mod scenes;
pub mod sql;
pub mod stores;
pub mod transactions;

pub use commit_crash::{CrashReport, run_commit_crashes};
pub use divergence::{DivergenceReport, Victim, Wrong, run_divergence};
pub use errand::Errand;
pub use lists::run_models;
pub use logs::{run_log, run_log_closed, run_log_cut_at};
pub use lost_log::Loss;
pub use proposals::{ProposalReport, run_proposals};
pub use run::{Course, Report};
pub use scenes::Scene;
pub use sql::{SeriesReport, run_orphans, run_series, run_sql, run_tickets};
pub use transactions::run_stores;

/// What the clients did, the seed and the seconds of campaign runs that found a fault once.
pub const REGRESSIONS: &[(campaign::Kind, u64, u64)] =
    &[(campaign::Kind::Sql, 6, 3), (campaign::Kind::Sql, 8, 3), (campaign::Kind::Sql, 5014, 20)];
