//! Execution: plans over a transaction.
//!
//! Operators are plain functions that read through the transaction's snapshot; only what waits is async: locks, bulk
//! writes that are staged, and the commit. A statement that changes rows reads a batch, then locks and writes row by
//! row; its own writes are invisible to its reads, so it never meets a row twice.

pub mod aggregate;
pub mod copy;
pub mod cursor;
pub mod database;
pub(crate) mod deferred;
pub mod distinct;
pub mod explain;
pub mod join;
pub(crate) mod meter;
pub mod modify;
pub mod operator;
mod partition;
pub mod recursive;
pub(crate) mod reference;
pub mod rows;
pub mod run;
pub mod scan;
pub mod sequence;
pub mod service;
pub mod sort;
pub mod spill;
pub mod subquery;
pub mod sweep;
pub mod text;
pub mod window;
mod window_frame;
pub mod write;

#[cfg(test)]
mod slt_tests;
#[cfg(test)]
mod tests;

pub use cursor::{Cursor, Fetched};
pub use database::{Database, ExecContext};
