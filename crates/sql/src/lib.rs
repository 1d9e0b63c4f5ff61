//! Catalog, binding, planning and execution over any KvStore; sessions and their forwarding.

pub mod bind;
pub mod catalog;
pub mod copy;
pub mod ddl;
pub mod error;
pub mod exec;
pub mod gateway;
pub mod memory;
pub mod parse;
pub mod pgcatalog;
pub mod plan;
pub mod scalar;
pub mod session;
pub mod system;
