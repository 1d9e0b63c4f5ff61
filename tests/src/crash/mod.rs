//! The crash lab: what is on the disk after the power failed, the disk failed, or its bytes changed.
//!
//! ```text
//!   power     real servers write on loop-mounted ext4; the file system is shut down under them without a flush
//!   steps     a node over the simulated disk; the power fails at each write and sync, or that operation fails
//!   flips     a log of 64 KiB, in which each bit flips in turn
//!   damage    real clusters; bits of files at rest flip on one replica
//! ```
//!
//! One rule decides all of them: what was acknowledged is there once, what is unknown is wholly there or wholly
//! absent, and a node that cannot say so does not serve. Run by `cargo run -p rustydb-tests --bin crash-lab`.

pub mod damage;
pub mod dice;
pub mod disk;
pub mod flips;
pub mod ledger;
pub mod parts;
pub mod power;
pub mod steps;

pub use dice::Dice;
