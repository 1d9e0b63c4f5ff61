//! What a statement that changes rows must know of foreign keys: those of the tables that it may write to, be it through
//! the actions of other foreign keys, and those that refer to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustydb_types::datatype::DataType;
use rustydb_types::ids::Oid;

use crate::bind::kept::RowRules;
use crate::catalog::{ForeignKeyDescriptor, TableDescriptor};
use crate::scalar::Expr;

/// One column of a foreign key with the column that it refers to.
#[derive(Clone, Copy, Debug)]
pub struct LinkColumn {
    /// The place of the column that refers.
    pub child: usize,
    /// Its type.
    pub child_type: DataType,
    /// The place of the column that is referred to.
    pub parent: usize,
    /// Its type.
    pub parent_type: DataType,
}

/// A foreign key between two tables.
#[derive(Clone, Debug)]
pub struct Link {
    /// The constraint.
    pub key: ForeignKeyDescriptor,
    /// The table that refers.
    pub child: Arc<TableDescriptor>,
    /// The name of its schema, for error fields.
    pub child_schema: String,
    /// The table that is referred to.
    pub parent: Arc<TableDescriptor>,
    /// The place of the unique index by which its rows are looked up.
    pub parent_index: usize,
    /// The columns as they are written.
    pub columns: Vec<LinkColumn>,
    /// The place of an index of the child whose first columns are those of the key, if there is one by which its rows
    /// can be looked up.
    pub child_index: Option<usize>,
}

/// A table that the actions of foreign keys write to.
#[derive(Clone, Debug)]
pub struct Target {
    /// The table.
    pub table: Arc<TableDescriptor>,
    /// The name of its schema.
    pub schema: String,
    /// What is computed of its rows.
    pub rules: Arc<RowRules>,
    /// The defaults of its columns.
    pub defaults: Vec<Expr>,
}

/// The foreign keys that a statement has to keep.
#[derive(Clone, Debug, Default)]
pub struct References {
    /// All of them, once each.
    pub links: Vec<Link>,
    /// Places of the links of a table's own foreign keys.
    pub outgoing: BTreeMap<Oid, Vec<usize>>,
    /// Places of the links of the foreign keys that refer to a table.
    pub incoming: BTreeMap<Oid, Vec<usize>>,
    /// The tables that actions write to.
    pub targets: BTreeMap<Oid, Target>,
}
