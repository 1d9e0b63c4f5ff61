//! The system group's content: which databases, roles, nodes and settings the cluster has.
//!
//! Every node holds a replica of the system group and reads its own; changes are [`SystemCommand`]s, executed as one
//! transaction at the system group's leader.
//!
//! ```text
//! 0x01                 counters: next object identifier, next group number
//! 0x02 database oid    DatabaseRecord
//! 0x03 role oid        RoleRecord
//! 0x04 node id         NodeRecord
//! 0x05 setting name    setting value
//! ```
//!
//! Invariants: object identifiers and group numbers are given out once; names of databases and of roles are unique;
//! a database goes creating, ready, dropping, gone and never back.

pub mod command;
pub mod record;

pub use command::{RoleChange, SystemCommand, SystemError};
pub use record::{Counters, DatabaseRecord, DatabaseState, NodeRecord, RoleRecord, SystemSnapshot};
