//! Checkers of recorded histories: what clients did, were told and saw, held against an isolation level.
//!
//! ```text
//! history    operations of clients in real time, in Jepsen's form on disk
//! lists      appends to lists and reads of them: the orders of versions, and from them the dependencies
//! graph      dependencies between transactions, and circles among them that a level forbids
//! register   single registers by single statements: linearizable or not
//! second     the same histories, judged by the crate `adya`
//! ```
//!
//! They know nothing of what is tested: the same checkers judge RustyDB and PostgreSQL.
//! The method is Elle's (Kingsbury and Alvaro, VLDB 2020); `register` is Wing and Gong's search with Lowe's memory.

pub mod graph;
pub mod history;
pub mod lists;
#[cfg(test)]
mod planted_tests;
pub mod register;
pub mod second;
#[cfg(test)]
mod simulated_tests;
