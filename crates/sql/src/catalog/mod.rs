//! The catalog of one database: what its tables, indexes and schemas are.
//!
//! The catalog lives as rows in the same key-value store as the data it describes, so a change of schema is part of
//! the transaction that makes it, is replicated like any row, and rolls back like any row.
//!
//! ```text
//! 0x01 0x00                    catalog version: changes with every committed change of schema
//! 0x01 0x01                    allocator: next object identifier, next storage number
//! 0x01 0x02 schema oid         SchemaDescriptor
//! 0x01 0x03 table oid          TableDescriptor, with its columns, indexes and constraints
//! 0x01 0x04 table oid          TableStatistics, written by ANALYZE
//! 0x01 0x05 class, oid, sub    comment
//! 0x01 0x06 storage number     a dropped storage whose rows are still to be swept
//! 0x01 0x07 sequence oid       SequenceDescriptor, without its position
//! 0x01 0x08 view oid           ViewDescriptor
//! 0x01 0x09 type oid           TypeDescriptor
//! 0x01 0x0a its oid            DefaultAcl
//! 0x03 mark                    the position of a sequence, written beside all transactions
//! 0x02 storage number, key     rows of a table or entries of an index
//! 0x04 session, 0x00           version of what the session has of temporary objects
//! 0x04 session, as 0x01        their descriptors: see [`temporary`]
//! ```
//!
//! Invariants: object identifiers and storage numbers are allocated once and never again; a storage number belongs to
//! exactly one table or index, or waits to be swept; a table's descriptor is one row, so a reader sees all of it or
//! none of it.

pub mod acl;
pub mod descriptor;
pub mod foreign;
pub mod keys;
pub mod sequence;
pub mod snapshot;
pub mod statistics;
pub mod store;
pub mod temporary;
pub mod types;
pub mod view;
pub mod virtual_table;

pub use descriptor::{
    AtCommit, CheckDescriptor, ColumnDescriptor, ComputedDescriptor, Identity, IndexDescriptor,
    IndexKeyColumn, IndexKind, SchemaDescriptor, StorageId, StoredExpr, TableDescriptor, TypeRef,
};
pub use foreign::{ForeignKeyDescriptor, ReferentialAction};
pub use sequence::{SequenceDescriptor, SequenceOwner};
pub use snapshot::CatalogSnapshot;
pub use statistics::TableStatistics;
pub use types::{TypeDescriptor, TypeKind, UserType, UserTypes};
pub use view::ViewDescriptor;
