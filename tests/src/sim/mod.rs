//! The simulated cluster: real consensus, real log, simulated clocks, disks and network, all from one seed.
//!
//! ```text
//!   run(seed): a cluster of 3 or 5 nodes
//!              clients append unique values and read lists        ─┐ for a while
//!              a nemesis crashes, pauses, cuts, slows and loses    ─┘
//!              then everything heals and must converge
//!   checked all the time: one leader per term, equal state at equal position, nothing applied goes back
//!   checked at the end:   acknowledged is there once, refused is not there, unknown at most once,
//!                         every read saw what was acknowledged before it began, reads are prefixes of the end
//! ```
//!
//! The same seed gives the same trace hash; a seed that failed once stays in [`REGRESSIONS`].
//! Replay: `cargo run -p rustydb-tests --bin sim -- --seed N`.

pub mod cluster;
pub mod invariants;
pub mod nemesis;
pub mod oracle;
pub mod run;

pub use run::{Report, run};

/// Seeds that found a fault once: with 1, a power cut just after the first members were named lost them.
pub const REGRESSIONS: &[u64] = &[1];
