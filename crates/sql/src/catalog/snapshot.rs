//! The catalog as one transaction sees it: immutable, shared, indexed by name and number.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rustydb_types::ids::Oid;

use super::acl::{Acl, AclKind, PUBLIC_ROLE, Privileges};
use super::descriptor::{IndexDescriptor, SchemaDescriptor, TableDescriptor};
use super::foreign::ForeignKeyDescriptor;
use super::sequence::SequenceDescriptor;
use super::statistics::TableStatistics;

/// `pg_namespace.oid` of `pg_catalog`.
pub const PG_CATALOG: Oid = Oid::new(11);
/// `pg_namespace.oid` of `public`.
pub const PUBLIC: Oid = Oid::new(2200);
/// `pg_namespace.oid` of `information_schema`.
pub const INFORMATION_SCHEMA: Oid = Oid::new(13_201);
/// `pg_authid.oid` of the role that owns what nobody else owns.
pub const BOOTSTRAP_ROLE: Oid = Oid::new(10);

/// `pg_authid.oid` of `pg_database_owner`, which owns the schema `public` of a database until somebody else does.
pub const DATABASE_OWNER_ROLE: Oid = Oid::new(6171);
/// The name of that role.
pub const DATABASE_OWNER_NAME: &str = "pg_database_owner";
/// `pg_namespace`, the class of comments on schemas.
pub const CLASS_SCHEMA: u32 = 2615;

/// Everything the catalog says at one catalog version.
#[derive(Clone, Debug, Default)]
pub struct CatalogSnapshot {
    /// The stored bytes of the version row; equal bytes mean the same catalog.
    version: Vec<u8>,
    /// By number, built-in schemas included.
    schemas: BTreeMap<Oid, Arc<SchemaDescriptor>>,
    /// By number.
    tables: BTreeMap<Oid, Arc<TableDescriptor>>,
    /// Number of a table, by schema and name.
    table_names: HashMap<(Oid, String), Oid>,
    /// Number of the table of an index, by number of the index.
    index_tables: BTreeMap<Oid, Oid>,
    /// Number of an index, by schema and name.
    index_names: HashMap<(Oid, String), Oid>,
    /// Numbers of the tables with foreign keys to a table, itself included, by its number.
    referencing: BTreeMap<Oid, std::collections::BTreeSet<Oid>>,
    /// By number.
    sequences: BTreeMap<Oid, Arc<SequenceDescriptor>>,
    /// Number of a sequence, by schema and name.
    sequence_names: HashMap<(Oid, String), Oid>,
    /// By number.
    views: BTreeMap<Oid, Arc<super::ViewDescriptor>>,
    /// Number of a view, by schema and name.
    view_names: HashMap<(Oid, String), Oid>,
    /// By number.
    types: BTreeMap<Oid, Arc<super::TypeDescriptor>>,
    /// Number of a type, by schema and name; those of arrays are not in it.
    type_names: HashMap<(Oid, String), Oid>,
    /// What the types mean.
    known: Arc<super::UserTypes>,
    /// What ALTER DEFAULT PRIVILEGES said.
    default_acls: Vec<super::acl::DefaultAcl>,
    /// By number of the table.
    statistics: BTreeMap<Oid, Arc<TableStatistics>>,
    /// By class, object and sub-object.
    comments: BTreeMap<(u32, Oid, u32), String>,
}

impl CatalogSnapshot {
    /// The catalog of a database in which nothing was created: the built-in schemas.
    #[must_use]
    pub fn empty(version: Vec<u8>) -> Self {
        let mut snapshot = Self { version, ..Self::default() };
        for (oid, name) in
            [(PG_CATALOG, "pg_catalog"), (INFORMATION_SCHEMA, "information_schema"), (PUBLIC, "public")]
        {
            let owner = if oid == PUBLIC { DATABASE_OWNER_ROLE } else { BOOTSTRAP_ROLE };
            let mut acl = Acl::initial(AclKind::Schema, owner);
            acl.grant(owner, PUBLIC_ROLE, Privileges::USAGE, false);
            snapshot.add_schema(SchemaDescriptor { oid, name: name.into(), owner, acl: Some(acl) });
        }
        snapshot.add_comment(CLASS_SCHEMA, PUBLIC, 0, "standard public schema".into());
        snapshot
    }

    /// An empty catalog in which these types are known by their numbers.
    #[must_use]
    pub fn of_types(known: &Arc<super::UserTypes>) -> Self {
        Self { known: Arc::clone(known), ..Self::empty(Vec::new()) }
    }

    /// The same catalog under another version, to which temporary objects are added.
    #[must_use]
    pub(super) fn with_version(&self, version: Vec<u8>) -> Self {
        Self { version, ..self.clone() }
    }

    /// Finds out, when all temporary objects are added, what the types of their columns mean.
    pub(super) fn settle_temporary(&mut self) {
        let known = Arc::clone(&self.known);
        for (_, table) in self.tables.range_mut(Oid::FIRST_TEMPORARY..=Oid::LAST_TEMPORARY) {
            let table = Arc::make_mut(table);
            let columns = table.columns.iter_mut().map(|column| &mut column.data_type);
            let computed = table.computed.iter_mut().map(|computed| &mut computed.data_type);
            columns.chain(computed).for_each(|stored| known.settle(stored));
            table.types = super::descriptor::KnownTypes(Arc::clone(&known));
        }
        for (_, view) in self.views.range_mut(Oid::FIRST_TEMPORARY..=Oid::LAST_TEMPORARY) {
            let columns = &mut Arc::make_mut(view).columns;
            columns.iter_mut().for_each(|column| known.settle(&mut column.data_type));
        }
    }

    /// The schema of the session's temporary objects, if it has some.
    #[must_use]
    pub fn temporary_schema(&self) -> Option<&Arc<SchemaDescriptor>> {
        self.schemas.range(Oid::FIRST_TEMPORARY..=Oid::LAST_TEMPORARY).next().map(|(_, schema)| schema)
    }

    /// Adds or replaces a schema.
    pub fn add_schema(&mut self, schema: SchemaDescriptor) {
        self.schemas.insert(schema.oid, Arc::new(schema));
    }

    /// Removes a schema, as the stored mark of a dropped `public` asks.
    pub fn remove_schema(&mut self, oid: Oid) {
        self.schemas.remove(&oid);
        self.comments.remove(&(CLASS_SCHEMA, oid, 0));
    }

    /// Adds a table with its indexes.
    pub fn add_table(&mut self, table: TableDescriptor) {
        for index in &table.indexes {
            self.index_tables.insert(index.oid, table.oid);
            self.index_names.insert((table.schema, index.name.clone()), index.oid);
        }
        for key in &table.foreign_keys {
            self.referencing.entry(key.table).or_default().insert(table.oid);
        }
        self.table_names.insert((table.schema, table.name.clone()), table.oid);
        self.tables.insert(table.oid, Arc::new(table));
    }

    /// Adds a sequence.
    pub fn add_sequence(&mut self, sequence: SequenceDescriptor) {
        self.sequence_names.insert((sequence.schema, sequence.name.clone()), sequence.oid);
        self.sequences.insert(sequence.oid, Arc::new(sequence));
    }

    /// Adds a view.
    pub fn add_view(&mut self, view: super::ViewDescriptor) {
        self.view_names.insert((view.schema, view.name.clone()), view.oid);
        self.views.insert(view.oid, Arc::new(view));
    }

    /// Adds what ALTER DEFAULT PRIVILEGES said.
    pub fn add_default_acl(&mut self, default: super::acl::DefaultAcl) {
        self.default_acls.push(default);
    }

    /// All that ALTER DEFAULT PRIVILEGES said.
    #[must_use]
    pub fn default_acls(&self) -> &[super::acl::DefaultAcl] {
        &self.default_acls
    }

    /// Adds a type.
    pub fn add_type(&mut self, descriptor: super::TypeDescriptor) {
        self.type_names.insert((descriptor.schema, descriptor.name.clone()), descriptor.oid);
        self.types.insert(descriptor.oid, Arc::new(descriptor));
    }

    /// Finds out, when all is added, what the types mean that relations and types are made of.
    ///
    /// # Errors
    /// 53200 when there is no room for further enumerations.
    pub fn settle_types(&mut self) -> Result<(), rustydb_types::value_error::ValueError> {
        if self.types.is_empty() {
            return Ok(());
        }
        let schemas = &self.schemas;
        let name = |schema| schemas.get(&schema).map(|schema| schema.name.clone());
        let known = Arc::new(super::UserTypes::new(self.types.values(), name)?);
        for descriptor in self.types.values_mut() {
            if matches!(descriptor.kind, super::TypeKind::Domain { .. })
                && let super::TypeKind::Domain { base, .. } = &mut Arc::make_mut(descriptor).kind
            {
                known.settle(base);
            }
        }
        for table in self.tables.values_mut() {
            let table = Arc::make_mut(table);
            let columns = table.columns.iter_mut().map(|column| &mut column.data_type);
            let computed = table.computed.iter_mut().map(|computed| &mut computed.data_type);
            columns.chain(computed).for_each(|stored| known.settle(stored));
            table.types = super::descriptor::KnownTypes(Arc::clone(&known));
        }
        for view in self.views.values_mut() {
            let columns = &mut Arc::make_mut(view).columns;
            columns.iter_mut().for_each(|column| known.settle(&mut column.data_type));
        }
        self.known = known;
        Ok(())
    }

    /// Sets what ANALYZE found out about a table.
    pub fn add_statistics(&mut self, table: Oid, statistics: TableStatistics) {
        self.statistics.insert(table, Arc::new(statistics));
    }

    /// Sets a comment; an empty one takes away that of a built-in schema.
    pub fn add_comment(&mut self, class: u32, object: Oid, sub: u32, text: String) {
        if text.is_empty() {
            self.comments.remove(&(class, object, sub));
        } else {
            self.comments.insert((class, object, sub), text);
        }
    }

    /// The stored bytes of the version row; equal bytes mean the same catalog.
    #[must_use]
    pub fn version(&self) -> &[u8] {
        &self.version
    }

    /// All schemas by number.
    pub fn schemas(&self) -> impl Iterator<Item = &Arc<SchemaDescriptor>> {
        self.schemas.values()
    }

    /// A schema by number.
    #[must_use]
    pub fn schema(&self, oid: Oid) -> Option<&Arc<SchemaDescriptor>> {
        self.schemas.get(&oid)
    }

    /// A schema by name; `pg_temp` is that of the session's temporary objects.
    #[must_use]
    pub fn schema_named(&self, name: &str) -> Option<&Arc<SchemaDescriptor>> {
        if name == "pg_temp" {
            return self.temporary_schema();
        }
        self.schemas.values().find(|schema| schema.name == name)
    }

    /// All tables by number.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<TableDescriptor>> {
        self.tables.values()
    }

    /// A table by number.
    #[must_use]
    pub fn table(&self, oid: Oid) -> Option<&Arc<TableDescriptor>> {
        self.tables.get(&oid)
    }

    /// A table by schema and name.
    #[must_use]
    pub fn table_named(&self, schema: Oid, name: &str) -> Option<&Arc<TableDescriptor>> {
        // A tuple key cannot be borrowed in parts; the clone costs less than the statement that asks.
        self.tables.get(self.table_names.get(&(schema, name.to_owned()))?)
    }

    /// An index and its table, by number of the index.
    #[must_use]
    pub fn index(&self, oid: Oid) -> Option<(&Arc<TableDescriptor>, &IndexDescriptor)> {
        let table = self.tables.get(self.index_tables.get(&oid)?)?;
        Some((table, table.indexes.iter().find(|index| index.oid == oid)?))
    }

    /// An index and its table, by schema and name.
    #[must_use]
    pub fn index_named(&self, schema: Oid, name: &str) -> Option<(&Arc<TableDescriptor>, &IndexDescriptor)> {
        self.index(*self.index_names.get(&(schema, name.to_owned()))?)
    }

    /// The foreign keys that refer to a table, with the tables that have them.
    pub fn referencing(
        &self,
        table: Oid,
    ) -> impl Iterator<Item = (&Arc<TableDescriptor>, &ForeignKeyDescriptor)> {
        let tables =
            self.referencing.get(&table).into_iter().flatten().filter_map(|oid| self.tables.get(oid));
        tables.flat_map(move |child| {
            let keys = child.foreign_keys.iter().filter(move |key| key.table == table);
            keys.map(move |key| (child, key))
        })
    }

    /// All sequences by number.
    pub fn sequences(&self) -> impl Iterator<Item = &Arc<SequenceDescriptor>> {
        self.sequences.values()
    }

    /// A sequence by number.
    #[must_use]
    pub fn sequence(&self, oid: Oid) -> Option<&Arc<SequenceDescriptor>> {
        self.sequences.get(&oid)
    }

    /// A sequence by schema and name.
    #[must_use]
    pub fn sequence_named(&self, schema: Oid, name: &str) -> Option<&Arc<SequenceDescriptor>> {
        self.sequences.get(self.sequence_names.get(&(schema, name.to_owned()))?)
    }

    /// The sequences that belong to a table, or to one of its columns.
    pub fn sequences_of(
        &self,
        table: Oid,
        column: Option<rustydb_types::ids::ColumnId>,
    ) -> impl Iterator<Item = &Arc<SequenceDescriptor>> {
        self.sequences().filter(move |sequence| sequence.is_of(table, column))
    }

    /// All views by number.
    pub fn views(&self) -> impl Iterator<Item = &Arc<super::ViewDescriptor>> {
        self.views.values()
    }

    /// A view by number.
    #[must_use]
    pub fn view(&self, oid: Oid) -> Option<&Arc<super::ViewDescriptor>> {
        self.views.get(&oid)
    }

    /// A view by schema and name.
    #[must_use]
    pub fn view_named(&self, schema: Oid, name: &str) -> Option<&Arc<super::ViewDescriptor>> {
        self.views.get(self.view_names.get(&(schema, name.to_owned()))?)
    }

    /// All types that users made, by number.
    pub fn types(&self) -> impl Iterator<Item = &Arc<super::TypeDescriptor>> {
        self.types.values()
    }

    /// A type by number, also by that of its arrays.
    #[must_use]
    pub fn type_descriptor(&self, oid: Oid) -> Option<&Arc<super::TypeDescriptor>> {
        let of_array = || self.types.values().find(|descriptor| descriptor.array_oid == oid);
        self.types.get(&oid).or_else(of_array)
    }

    /// A type by schema and name.
    #[must_use]
    pub fn type_named(&self, schema: Oid, name: &str) -> Option<&Arc<super::TypeDescriptor>> {
        self.types.get(self.type_names.get(&(schema, name.to_owned()))?)
    }

    /// What the types mean.
    #[must_use]
    pub fn known_types(&self) -> &Arc<super::UserTypes> {
        &self.known
    }

    /// The type that values of a type have.
    #[must_use]
    pub fn data_type(&self, oid: u32, modifier: i32) -> Option<rustydb_types::datatype::DataType> {
        let own = || self.known.get(oid).map(super::UserType::data_type);
        rustydb_types::datatype::DataType::from_oid(oid, modifier).or_else(own)
    }

    /// The views whose queries name a relation, or use a column of it.
    pub fn views_of(
        &self,
        relation: Oid,
        column: Option<u32>,
    ) -> impl Iterator<Item = &Arc<super::ViewDescriptor>> {
        self.views().filter(move |view| view.depends_on(relation, column))
    }

    /// Whether a relation, be it table, index, sequence or view, of this name is in the schema: they share one name space.
    #[must_use]
    pub fn has_relation(&self, schema: Oid, name: &str) -> bool {
        let key = (schema, name.to_owned());
        self.table_names.contains_key(&key)
            || self.index_names.contains_key(&key)
            || self.sequence_names.contains_key(&key)
            || self.view_names.contains_key(&key)
    }

    /// What ANALYZE found out about a table.
    #[must_use]
    pub fn statistics(&self, table: Oid) -> Option<&Arc<TableStatistics>> {
        self.statistics.get(&table)
    }

    /// The comment on an object.
    #[must_use]
    pub fn comment(&self, class: u32, object: Oid, sub: u32) -> Option<&str> {
        self.comments.get(&(class, object, sub)).map(String::as_str)
    }

    /// All comments: class, object, sub-object, text.
    pub fn comments(&self) -> impl Iterator<Item = (u32, Oid, u32, &str)> {
        self.comments.iter().map(|((class, object, sub), text)| (*class, *object, *sub, text.as_str()))
    }
}
