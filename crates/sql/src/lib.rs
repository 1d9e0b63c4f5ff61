//! Catalog, binding, planning and execution over any KvStore; sessions and their forwarding.

pub mod catalog;
pub mod copy;
pub mod error;
pub mod gateway;
pub mod pgcatalog;
pub mod scalar;
pub mod session;
pub mod system;
