//! The Postgres wire front end.

pub mod access;
pub mod metrics;
pub mod scram;
pub mod startup;
pub mod tls;
