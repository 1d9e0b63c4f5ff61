//! The system catalogs: `pg_catalog` and `information_schema` as relations whose rows are computed.
//!
//! ```text
//! data/columns.tsv   schema, name, kind, oid and columns of each relation, as PostgreSQL 15 has them
//! data/pg_*.tsv      rows that never change: types, operators, functions, settings' descriptions
//! classes            pg_class, pg_attribute, pg_index, pg_constraint ...: from the catalog snapshot
//! cluster            pg_database, pg_authid, pg_roles ...: from the system group's records
//! activity           pg_stat_activity, pg_locks: from the sessions and locks of the node that answers
//! sequences          pg_sequence, pg_depend, information_schema.sequences
//! views              pg_rewrite, pg_views, and the text of views' queries
//! settings           pg_settings: from what the session knows
//! information_schema the standard's views over the same
//! definition         objects as SQL text: pg_get_indexdef, pg_get_constraintdef, defaults
//! lookup             what functions such as pg_table_is_visible and the reg* types ask
//! ```
//!
//! Names, order and types of columns are PostgreSQL's for every relation, so that programs written for it read them
//! unchanged; `data/extract.sql` takes the files from a server. A relation without rows says that the feature does not
//! exist here. A relation that would be untrue when empty and for which there is no data does not exist at all.
//! Deliberately absent: rows of `pg_depend` but those of sequences, foreign keys and views (the other dependencies are
//! inside the descriptors), of `pg_statistic` (`pg_stats` has them), composite types of tables, and the TOAST schema.

mod activity;
mod classes;
mod cluster;
pub mod definition;
mod facts;
mod information_schema;
pub mod keywords;
pub mod lookup;
mod privileges;
mod relation;
mod sequences;
mod settings;
mod shape;
mod types;
mod views;
mod visible;

use std::sync::Arc;

use crate::catalog::virtual_table::VirtualRegistry;
use relation::{SystemRelation, source_of};

/// `pg_class.oid` of `pg_class`: the class of comments on tables and columns.
pub const PG_CLASS: u32 = 1259;
/// `pg_class.oid` of `pg_namespace`: the class of comments on schemas.
pub const PG_NAMESPACE: u32 = 2615;
/// `pg_class.oid` of `pg_constraint`: the class of comments on constraints.
pub const PG_CONSTRAINT: u32 = 2606;

/// Adds every system catalog to the relations that a database has.
pub fn register(registry: &mut VirtualRegistry) {
    for shape in shape::all() {
        registry.add(Arc::new(SystemRelation::new(shape, source_of(shape))));
    }
}

#[cfg(test)]
mod tests;
