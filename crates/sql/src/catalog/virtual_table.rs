//! Relations whose rows are computed: the system catalogs.
//!
//! A virtual relation has a schema, a name, an object identifier and columns as a table has; the binder and the
//! planner treat it as one, and the executor asks it for its rows. It computes them from the catalog snapshot of the
//! statement and from what the session knows, and reads nothing else.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use rustydb_txn::KvStore;
use rustydb_types::datatype::DataType;
use rustydb_types::value::Value;

use super::snapshot::CatalogSnapshot;
use crate::error::SqlError;
use crate::session::activity::Activities;
use crate::system::SystemSnapshot;

/// A column of a virtual relation.
#[derive(Clone, Debug)]
pub struct VirtualColumn {
    /// The column's name.
    pub name: &'static str,
    /// Its type.
    pub data_type: DataType,
}

/// What a virtual relation computes its rows from.
#[derive(Clone, Copy, Debug)]
pub struct VirtualContext<'a> {
    /// The catalog of the database as the statement sees it.
    pub catalog: &'a CatalogSnapshot,
    /// Databases, roles and nodes, as this node knows them.
    pub system: &'a SystemSnapshot,
    /// All virtual relations, which the catalogs list too.
    pub registry: &'a VirtualRegistry,
    /// Name of the connected database.
    pub database: &'a str,
    /// Name of the role whose permissions apply.
    pub user: &'a str,
    /// Settings of the session, by name.
    pub settings: &'a [(String, String)],
    /// What goes on at this node; absent where nothing does.
    pub live: Option<Live<'a>>,
}

/// What goes on at the node that a statement runs at, which is the one that leads its database.
#[derive(Clone, Copy)]
pub struct Live<'a> {
    /// The sessions that run here.
    pub activities: &'a Activities,
    /// The store of the database, with its locks.
    pub store: &'a KvStore,
}

impl std::fmt::Debug for Live<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

/// A relation whose rows are computed.
pub trait VirtualRelation: Debug + Send + Sync {
    /// The schema it is in: `pg_catalog` or `information_schema`.
    fn schema(&self) -> &'static str {
        "pg_catalog"
    }
    /// Its name.
    fn name(&self) -> &'static str;
    /// Its `pg_class.oid`, PostgreSQL's where it has a fixed one.
    fn oid(&self) -> u32;
    /// Its columns.
    fn columns(&self) -> &[VirtualColumn];
    /// Its rows, each as wide as its columns.
    ///
    /// # Errors
    /// When a value cannot be computed.
    fn rows(&self, context: &VirtualContext<'_>) -> Result<Vec<Vec<Value>>, SqlError>;
}

/// All virtual relations, by schema and name.
#[derive(Clone, Debug, Default)]
pub struct VirtualRegistry {
    relations: BTreeMap<(&'static str, &'static str), Arc<dyn VirtualRelation>>,
}

impl VirtualRegistry {
    /// The relations that every database has.
    #[must_use]
    pub fn builtin() -> Self {
        let mut registry = Self::default();
        crate::pgcatalog::register(&mut registry);
        registry
    }

    /// Adds or replaces a relation.
    pub fn add(&mut self, relation: Arc<dyn VirtualRelation>) {
        self.relations.insert((relation.schema(), relation.name()), relation);
    }

    /// A relation by schema and name.
    #[must_use]
    pub fn get(&self, schema: &str, name: &str) -> Option<&Arc<dyn VirtualRelation>> {
        self.relations.iter().find(|((s, n), _)| *s == schema && *n == name).map(|(_, relation)| relation)
    }

    /// All relations by schema and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn VirtualRelation>> {
        self.relations.values()
    }
}
