//! What a statement is bound against, and the binder's own state.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::ids::Oid;
use sqlparser::ast::{Ident, ObjectName};

use super::errors::{at, fail, undefined_relation, unsupported};
use super::kept::Forms;
use super::privilege::{Authority, Needs, denied};
use crate::catalog::acl::Privileges;
use crate::catalog::virtual_table::{VirtualRegistry, VirtualRelation};
use crate::catalog::{CatalogSnapshot, SequenceDescriptor, TableDescriptor};
use crate::error::{SqlError, SqlState};
use crate::plan::statement::Action;
use crate::plan::{ColumnInfo, Node};

/// What a statement is bound against.
#[derive(Clone, Debug)]
pub struct AnalyzeContext {
    /// The catalog as the statement's transaction sees it.
    pub catalog: Arc<CatalogSnapshot>,
    /// Relations whose rows are computed.
    pub virtuals: Arc<VirtualRegistry>,
    /// Schemas that unqualified names are looked up in, in order, without those that the role may not use; `pg_catalog`
    /// is looked in first when absent.
    pub search_path: Vec<String>,
    /// Name of the connected database.
    pub database: String,
    /// Name of the role whose permissions apply.
    pub user: String,
    /// Number of that role.
    pub user_oid: Oid,
    /// What that role may do.
    pub authority: Arc<Authority>,
}

impl AnalyzeContext {
    /// The schemas that the unqualified name of a relation is looked up in.
    pub fn path(&self) -> impl Iterator<Item = &str> {
        path(&self.search_path, &self.catalog)
    }
}

/// The schemas of a search path with those that come first without being named: that of the session's temporary objects
/// and `pg_catalog`.
pub fn path<'a>(search_path: &'a [String], catalog: &'a CatalogSnapshot) -> impl Iterator<Item = &'a str> {
    let temporary = catalog.temporary_schema().map(|schema| schema.name.as_str());
    let is_named = |name: &str| search_path.iter().any(|schema| schema == name);
    let temporary = temporary.filter(|name| !is_named(name) && !is_named("pg_temp"));
    let implicit = (!is_named("pg_catalog")).then_some("pg_catalog");
    temporary.into_iter().chain(implicit).chain(search_path.iter().map(String::as_str))
}

/// A relation that a name means.
#[derive(Clone, Debug)]
pub enum Relation {
    /// A stored table.
    Table(Arc<TableDescriptor>),
    /// A sequence.
    Sequence(Arc<SequenceDescriptor>),
    /// A view that somebody made.
    View(Arc<crate::catalog::ViewDescriptor>),
    /// A computed relation.
    Virtual(Arc<dyn VirtualRelation>),
}

/// A common table expression in scope.
#[derive(Clone, Debug)]
pub struct Cte {
    /// Its name.
    pub name: String,
    /// Its columns.
    pub columns: Vec<ColumnInfo>,
    /// What it computes.
    pub node: Node,
    /// Whether it changes rows and returns none.
    pub is_silent: bool,
    /// Where it was used, if somebody asks.
    pub(crate) uses: Option<super::recursive::Uses>,
}

/// Binds one statement.
#[derive(Debug)]
pub struct Binder<'a> {
    /// What it is bound against.
    pub context: &'a AnalyzeContext,
    /// Types of the parameters, as far as they are known.
    pub params: RefCell<Vec<Option<DataType>>>,
    /// Common table expressions in scope, innermost last.
    pub ctes: RefCell<Vec<Cte>>,
    /// Tables that the statement reads, with whether it changes or locks rows of them.
    pub tables: RefCell<Vec<(Oid, TableUse)>>,
    /// Whether the statement reads relations that are computed.
    pub uses_virtual: Cell<bool>,
    /// The function by which the statement moves a sequence on.
    pub advances: Cell<Option<&'static str>>,
    /// Subqueries that lock rows and WITH queries that change rows: each is run once, before the statement, and its rows
    /// are those of the [`crate::plan::Node::Shared`] with its number.
    pub before: RefCell<Vec<(usize, Action)>>,
    /// What is remembered of an expression that the catalog is to keep; absent for what is only executed.
    pub(crate) kept: Option<RefCell<Forms>>,
    /// The query of a view that is being bound here, or that is to be kept.
    pub(crate) frame: RefCell<super::view::Frame>,
    /// Views whose queries are being bound, outermost first.
    pub(crate) within_views: RefCell<Vec<Oid>>,
    /// The privileges that the statement needs.
    pub(crate) needs: RefCell<Needs>,
    /// Numbers given out within the statement.
    next_id: Cell<usize>,
    /// How deep the statement is nested here.
    depth: Cell<usize>,
}

/// What a statement does with a table; decides the table lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableUse {
    /// Reads rows: ACCESS SHARE.
    Read,
    /// Locks rows: ROW SHARE.
    LockRows,
    /// Changes rows: ROW EXCLUSIVE.
    Write,
}

/// Deepest nesting of queries and expressions that is bound; beyond it the stack could end.
const DEPTH_MAX: usize = 200;

impl<'a> Binder<'a> {
    /// A binder for one statement whose first parameters have the given types.
    #[must_use]
    pub fn new(context: &'a AnalyzeContext, params: &[Option<DataType>]) -> Self {
        Self {
            context,
            params: RefCell::new(params.to_vec()),
            ctes: RefCell::default(),
            tables: RefCell::default(),
            uses_virtual: Cell::new(false),
            advances: Cell::new(None),
            before: RefCell::default(),
            kept: None,
            frame: RefCell::default(),
            within_views: RefCell::default(),
            needs: RefCell::default(),
            next_id: Cell::new(0),
            depth: Cell::new(0),
        }
    }

    /// A number that is new in this statement.
    pub(crate) fn new_id(&self) -> usize {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        id
    }

    /// Whether nothing encloses what is bound next.
    pub(crate) fn is_outermost(&self) -> bool {
        self.depth.get() == 0
    }

    /// Runs `bind` one level deeper.
    pub(crate) fn nested<T>(&self, bind: impl FnOnce() -> Result<T, SqlError>) -> Result<T, SqlError> {
        let depth = self.depth.get();
        if depth >= DEPTH_MAX {
            return Err(fail(SqlState::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded")
                .with_hint(format!("statements may be nested {DEPTH_MAX} levels deep")));
        }
        self.depth.set(depth + 1);
        let result = bind();
        self.depth.set(depth);
        result
    }

    /// The type of a parameter, by number from 0; unknown ones stay open.
    pub(crate) fn param_type(&self, index: usize) -> DataType {
        let mut params = self.params.borrow_mut();
        if params.len() <= index {
            params.resize(index + 1, None);
        }
        params.get(index).copied().flatten().unwrap_or(DataType::from(BaseType::Unknown))
    }

    /// Settles the type of a parameter that was open.
    pub(crate) fn set_param_type(&self, index: usize, data_type: DataType) {
        if let Some(slot) = self.params.borrow_mut().get_mut(index)
            && slot.is_none()
        {
            *slot = Some(data_type);
        }
    }

    /// The types of all parameters; what stayed open is text.
    #[must_use]
    pub fn param_types(&self) -> Vec<DataType> {
        self.params.borrow().iter().map(|ty| ty.unwrap_or(DataType::TEXT)).collect()
    }

    /// Notes what the statement does with a table.
    pub(crate) fn note_table(&self, oid: Oid, usage: TableUse) {
        let mut tables = self.tables.borrow_mut();
        match tables.iter_mut().find(|(known, _)| *known == oid) {
            Some((_, known)) => *known = usage.max(*known),
            None => tables.push((oid, usage)),
        }
    }

    /// The schemas that an unqualified name is looked up in.
    pub(super) fn search_schemas(&self) -> impl Iterator<Item = &str> {
        self.context.path()
    }

    /// The relation that a name means, if any.
    ///
    /// # Errors
    /// When the name has too many parts or names another database.
    pub fn find_relation(&self, name: &ObjectName) -> Result<Option<Relation>, SqlError> {
        let (schema, name) = self.split_name(name)?;
        match schema {
            Some(schema) => {
                if let Some(named) = self.context.catalog.schema_named(&schema.value) {
                    self.need_schema(named).map_err(|error| at(error, schema))?;
                }
                Ok(self.relation_in(&schema.value, &name.value))
            }
            None => Ok(self.search_schemas().find_map(|schema| self.relation_in(schema, &name.value))),
        }
    }

    /// The relation that a name means.
    ///
    /// # Errors
    /// 42P01 when there is none.
    pub fn relation(&self, name: &ObjectName) -> Result<Relation, SqlError> {
        self.find_relation(name)?.ok_or_else(|| undefined_relation(name))
    }

    /// The stored table that a name means.
    ///
    /// # Errors
    /// 42P01 when there is none; 42809 when the relation is not a stored table.
    pub fn table(&self, name: &ObjectName) -> Result<Arc<TableDescriptor>, SqlError> {
        match self.relation(name)? {
            Relation::Table(table) => Ok(table),
            Relation::Sequence(sequence) => {
                Err(fail(SqlState::WRONG_OBJECT_TYPE, format!("\"{}\" is not a table", sequence.name)))
            }
            Relation::View(view) => {
                Err(fail(SqlState::WRONG_OBJECT_TYPE, format!("\"{}\" is not a table", view.name)))
            }
            Relation::Virtual(relation) => Err(fail(
                SqlState::INSUFFICIENT_PRIVILEGE,
                format!("permission denied: \"{}\" is a system catalog", relation.name()),
            )),
        }
    }

    fn relation_in(&self, schema: &str, name: &str) -> Option<Relation> {
        if let Some(relation) = self.context.virtuals.get(schema, name) {
            self.uses_virtual.set(true);
            return Some(Relation::Virtual(Arc::clone(relation)));
        }
        let schema = self.context.catalog.schema_named(schema)?;
        let catalog = &self.context.catalog;
        let table = catalog.table_named(schema.oid, name).map(|table| Relation::Table(Arc::clone(table)));
        table.or_else(|| {
            if let Some(sequence) = catalog.sequence_named(schema.oid, name) {
                return Some(Relation::Sequence(Arc::clone(sequence)));
            }
            catalog.view_named(schema.oid, name).map(|view| Relation::View(Arc::clone(view)))
        })
    }

    /// Splits a name into its schema, if written, and its last part.
    ///
    /// # Errors
    /// 0A000 for another database's name, 42601 for too many parts.
    pub fn split_name<'n>(&self, name: &'n ObjectName) -> Result<(Option<&'n Ident>, &'n Ident), SqlError> {
        let parts: Vec<&Ident> = name.0.iter().filter_map(|part| part.as_ident()).collect();
        match parts.as_slice() {
            [name] => Ok((None, name)),
            [schema, name] => Ok((Some(schema), name)),
            [database, schema, name] if database.value == self.context.database => Ok((Some(schema), name)),
            [_, _, _] => Err(fail(
                SqlState::FEATURE_NOT_SUPPORTED,
                format!("cross-database references are not implemented: \"{name}\""),
            )),
            _ => Err(fail(SqlState::SYNTAX_ERROR, format!("improper qualified name: {name}"))),
        }
    }

    /// The schema in which an object of this name is created.
    ///
    /// # Errors
    /// 3F000 when the schema does not exist or none is selected; 42501 for a system schema.
    pub fn creation_schema(&self, name: &ObjectName) -> Result<Oid, SqlError> {
        let catalog = &self.context.catalog;
        let schema = match self.split_name(name)?.0 {
            Some(schema) => catalog.schema_named(&schema.value).ok_or_else(|| {
                fail(SqlState::INVALID_SCHEMA_NAME, format!("schema \"{}\" does not exist", schema.value))
            })?,
            None => {
                let found = self.context.search_path.iter().filter_map(|schema| catalog.schema_named(schema));
                let mut found = found.filter(|schema| !schema.oid.is_temporary());
                found.next().ok_or_else(|| {
                    fail(SqlState::INVALID_SCHEMA_NAME, "no schema has been selected to create in")
                })?
            }
        };
        if matches!(schema.name.as_str(), "pg_catalog" | "information_schema") {
            return Err(fail(
                SqlState::INSUFFICIENT_PRIVILEGE,
                format!("permission denied for schema {}", schema.name),
            ));
        }
        if schema.oid.is_temporary() {
            return Err(unsupported("a temporary object of this kind"));
        }
        if !self.context.authority.may_in(schema, Privileges::CREATE) {
            return Err(denied("schema", &schema.name));
        }
        Ok(schema.oid)
    }
}
