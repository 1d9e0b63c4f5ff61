//! A running node.

pub mod http;
pub mod reconcile;
