//! A running node.

pub mod reconcile;
