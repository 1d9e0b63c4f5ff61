//! Tests of whole clusters: real processes that are started, killed and asked, and the simulated cluster.

pub mod chaos;
pub mod check;
pub mod clients;
pub mod cluster;
pub mod commit_kill;
pub mod crash;
pub mod differ;
pub mod fuzz;
pub mod gate;
pub mod load;
pub mod postgres;
pub mod raw;
pub mod server;
pub mod sim;
pub mod slt;
pub mod volume;
