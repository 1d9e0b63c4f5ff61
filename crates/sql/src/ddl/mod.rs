//! Changes of the schema and maintenance of tables.
//!
//! A change takes its table's lock first, then the catalog's, reads the catalog anew, and writes descriptors in the
//! same transaction as any row it has to write; so it is all there or not at all, for everybody.

mod alter;
mod analyze;
mod check;
mod create;
mod create_as;
mod drop;
mod foreign;
mod like;
mod maintain;
pub(crate) mod owned;
pub(crate) mod privileges;
mod sequence;
pub(crate) mod temporary;
mod types;
mod view;

use rustydb_txn::{TableLockId, TableLockMode, Transaction};
use sqlparser::ast::{AlterIndexOperation, AlterTableType, ObjectType, Statement};

use crate::bind::errors::{fail, unsupported};
use crate::bind::privilege::denied;
use crate::bind::{AnalyzeContext, Binder};
use crate::catalog::acl::{AclKind, Privileges};
use crate::catalog::store::CatalogWriter;
use crate::catalog::{ColumnDescriptor, TableDescriptor};
use crate::error::{Severity, SqlError, SqlState};
use crate::exec::ExecContext;

/// Executes a statement that changes the schema or maintains tables; answers with its tag.
///
/// # Errors
/// As PostgreSQL; 0A000 for what is not built.
pub async fn execute(
    statement: &Statement,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<String, SqlError> {
    let tag = match statement {
        Statement::CreateTable(create) if create.query.is_some() => {
            let Some(query) = &create.query else { return Err(unsupported("this CREATE TABLE AS")) };
            return create_as::table(create, query, txn, context).await;
        }
        Statement::CreateTable(create) => return create::table(create, txn, context).await,
        Statement::CreateIndex(create) => return create::index(create, txn, context).await,
        Statement::CreateSchema { schema_name, if_not_exists, .. } => {
            create::schema(schema_name, *if_not_exists, txn, context).await?;
            "CREATE SCHEMA"
        }
        // See `session::syntax::sequence`.
        Statement::AlterTable(alter) if alter.table_type == Some(AlterTableType::Dynamic) => {
            sequence::alter(alter, txn, context).await?;
            "ALTER SEQUENCE"
        }
        // See `session::syntax::types`.
        Statement::AlterTable(alter) if alter.table_type == Some(AlterTableType::Iceberg) => {
            types::alter_type(alter, !alter.if_exists, txn, context).await?;
            if alter.if_exists { "ALTER TYPE" } else { "ALTER DOMAIN" }
        }
        Statement::AlterTable(alter) if sequence::is_meant(alter, txn, context)? => {
            sequence::alter(alter, txn, context).await?;
            "ALTER TABLE"
        }
        Statement::AlterIndex { name, operation: AlterIndexOperation::RenameIndex { index_name } } => {
            drop::rename_index(name, index_name, txn, context).await?;
            "ALTER INDEX"
        }
        Statement::AlterSchema(alter) => {
            create::alter_schema(alter, txn, context).await?;
            "ALTER SCHEMA"
        }
        // See `parse::view`.
        Statement::AlterTable(alter)
            if alter.table_type == Some(AlterTableType::External) || view::is_meant(alter, txn, context)? =>
        {
            view::alter(alter, txn, context).await?;
            if alter.table_type.is_some() { "ALTER VIEW" } else { "ALTER TABLE" }
        }
        Statement::AlterTable(alter) => {
            alter::table(alter, txn, context).await?;
            "ALTER TABLE"
        }
        Statement::Drop { object_type, if_exists, names, cascade, purge, .. } => match object_type {
            ObjectType::Type => {
                types::drop_types(names, *purge, *if_exists, *cascade, txn, context).await?;
                if *purge { "DROP DOMAIN" } else { "DROP TYPE" }
            }
            ObjectType::Table => {
                drop::tables(names, *if_exists, *cascade, txn, context).await?;
                "DROP TABLE"
            }
            ObjectType::Index => {
                drop::indexes(names, *if_exists, *cascade, txn, context).await?;
                "DROP INDEX"
            }
            ObjectType::Sequence => {
                sequence::drop(names, *if_exists, *cascade, txn, context).await?;
                "DROP SEQUENCE"
            }
            ObjectType::View => {
                view::drop(names, *if_exists, *cascade, txn, context).await?;
                "DROP VIEW"
            }
            ObjectType::Schema => {
                drop::schemas(names, *if_exists, *cascade, txn, context).await?;
                "DROP SCHEMA"
            }
            other => return Err(unsupported(format!("DROP {other}"))),
        },
        Statement::Truncate(truncate) => {
            maintain::truncate(truncate, txn, context).await?;
            "TRUNCATE TABLE"
        }
        Statement::Lock(lock) => {
            maintain::lock(lock, txn, context).await?;
            "LOCK TABLE"
        }
        Statement::Analyze(analyze) => {
            maintain::analyze(analyze.table_name.as_ref(), &analyze.columns, txn, context).await?;
            "ANALYZE"
        }
        Statement::Vacuum(vacuum) => {
            maintain::vacuum(vacuum, txn, context).await?;
            "VACUUM"
        }
        Statement::Comment { object_type, object_name, comment, if_exists } => {
            maintain::comment(object_type, object_name, comment.as_deref(), *if_exists, txn, context).await?;
            "COMMENT"
        }
        Statement::Pragma { .. } => {
            if let Some(change) = crate::parse::privilege::OwnedChange::of_statement(statement) {
                owned::execute(&change, txn, context).await?;
                return Ok(change.tag().to_owned());
            }
            let change = crate::parse::privilege::PrivilegeChange::of_statement(statement);
            let change = change.ok_or_else(|| unsupported("PRAGMA"))?;
            privileges::execute(&change, txn, context).await?;
            change.tag()
        }
        Statement::CreateType { name, representation } => {
            types::create(name, representation.as_ref(), txn, context).await?;
            "CREATE TYPE"
        }
        Statement::AlterType(alter) => {
            types::alter_enum(alter, txn, context).await?;
            "ALTER TYPE"
        }
        Statement::CreateDomain(create) => {
            types::create_domain(create, txn, context).await?;
            "CREATE DOMAIN"
        }
        Statement::CreateView(create) => {
            view::create(create, txn, context).await?;
            "CREATE VIEW"
        }
        Statement::CreateSequence {
            temporary,
            if_not_exists,
            name,
            data_type,
            sequence_options,
            owned_by,
        } => {
            let owned_by = owned_by.as_ref();
            let (data_type, options) = (data_type.as_ref(), sequence_options);
            sequence::create(*temporary, *if_not_exists, name, data_type, options, owned_by, txn, context)
                .await?;
            "CREATE SEQUENCE"
        }
        other => {
            let text = other.to_string();
            let words: Vec<&str> = text.split_whitespace().take(2).collect();
            return Err(unsupported(words.join(" ")));
        }
    };
    Ok(tag.to_owned())
}

pub(crate) use foreign::deferrable as deferrable_constraints;

/// A context with the catalog as it is now, under the locks that the transaction took, its own changes included.
fn current(txn: &mut Transaction, context: &ExecContext<'_>) -> Result<AnalyzeContext, SqlError> {
    txn.begin_statement();
    let catalog = context.database.catalog(txn)?;
    Ok(AnalyzeContext { catalog, ..context.analyze.clone() })
}

/// Begins a change of the catalog.
async fn change<'t>(
    txn: &'t mut Transaction,
    context: &ExecContext<'_>,
) -> Result<CatalogWriter<'t>, SqlError> {
    CatalogWriter::begin(txn, context.lock_wait, context.session.random()).await
}

/// Begins a change of an object, or of what belongs to it.
async fn change_of<'t>(
    object: rustydb_types::ids::Oid,
    txn: &'t mut Transaction,
    context: &'t ExecContext<'_>,
) -> Result<CatalogWriter<'t>, SqlError> {
    if object.is_temporary() { temporary::change(txn, context).await } else { change(txn, context).await }
}

/// Something is there already, or is not, and that is no error: a notice.
fn skipped(state: SqlState, message: impl std::fmt::Display, context: &ExecContext<'_>) {
    let notice = fail(state, format!("{message}, skipping"));
    context.session.notice(notice.with_severity(Severity::Notice));
}

/// DROP of a name that means nothing: the error, which is of the schema if that is missing already, or a notice.
fn not_there(
    (state, kind): (SqlState, &str),
    name: &sqlparser::ast::ObjectName,
    if_exists: bool,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let now = current(txn, context)?;
    let (schema, own) = Binder::new(&now, &[]).split_name(name)?;
    let error = match schema.filter(|schema| now.catalog.schema_named(&schema.value).is_none()) {
        Some(schema) => {
            fail(SqlState::INVALID_SCHEMA_NAME, format!("schema \"{}\" does not exist", schema.value))
        }
        None => fail(state, format!("{kind} \"{}\" does not exist", own.value)),
    };
    if !if_exists {
        return Err(error);
    }
    skipped(SqlState::SUCCESSFUL_COMPLETION, error.message(), context);
    Ok(())
}

/// What is asked of the role before a table is locked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Demand<'a> {
    /// That it owns the table.
    Owner,
    /// That it owns the table or its schema.
    OwnerOrSchema,
    /// That it has one of these privileges.
    Any(Privileges),
    /// That foreign keys of it may refer to these columns, or to its primary key.
    References(&'a [sqlparser::ast::Ident]),
}

impl Demand<'_> {
    fn check(self, table: &TableDescriptor, now: &AnalyzeContext) -> Result<(), SqlError> {
        let authority = &now.authority;
        let may = |one: &str| {
            let one = Privileges::named(one).unwrap_or(Privileges::NONE);
            authority.may(one, AclKind::Table, table.owner, table.acl.as_ref())
        };
        match self {
            Self::OwnerOrSchema if owns_schema(table.schema, now) => Ok(()),
            Self::Owner | Self::OwnerOrSchema => authority.require_owner(table.owner, "table", &table.name),
            Self::Any(privileges) if privileges.names().any(may) => Ok(()),
            Self::References(named) => {
                let held = |column: &ColumnDescriptor| {
                    let acl = column.acl.as_ref();
                    acl.is_some_and(|acl| acl.held(&authority.roles).has(Privileges::REFERENCES))
                };
                let of_key = |column: &&ColumnDescriptor| match named {
                    [] => table.row_key.contains(&column.id),
                    named => named.iter().any(|name| name.value == column.name),
                };
                let mut columns = table.columns.iter().filter(of_key).peekable();
                if may("REFERENCES") || columns.peek().is_some() && columns.all(held) {
                    return Ok(());
                }
                Err(denied("table", &table.name))
            }
            Self::Any(_) => Err(denied("table", &table.name)),
        }
    }
}

/// Whether the role owns a schema, whose owner may drop what is in it.
fn owns_schema(schema: rustydb_types::ids::Oid, now: &AnalyzeContext) -> bool {
    now.catalog.schema(schema).is_some_and(|schema| now.authority.owns(schema.owner))
}

/// Locks a table and reads its descriptor anew; `None` when it is not there and need not be.
async fn lock_table(
    name: &sqlparser::ast::ObjectName,
    if_exists: bool,
    (mode, demand): (TableLockMode, Demand<'_>),
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<Option<TableDescriptor>, SqlError> {
    // The name may mean another table by the time the lock is granted; then that one is locked.
    for _ in 0..8 {
        let now = current(txn, context)?;
        let found = match Binder::new(&now, &[]).table(name) {
            Ok(found) => found,
            Err(error) if if_exists && error.state() == SqlState::UNDEFINED_TABLE => return Ok(None),
            Err(error) => return Err(error),
        };
        demand.check(&found, &now)?;
        txn.lock_table(TableLockId::new(found.oid.get()), mode, context.lock_wait).await?;
        let now = current(txn, context)?;
        if let Ok(again) = Binder::new(&now, &[]).table(name)
            && again.oid == found.oid
        {
            return Ok(Some(again.as_ref().clone()));
        }
    }
    Err(fail(SqlState::SERIALIZATION_FAILURE, format!("relation {name} keeps being replaced")))
}

/// Refuses a relation with the name of a type: each has a type of its own name.
fn refuse_type_name(
    schema: rustydb_types::ids::Oid,
    name: &str,
    now: &AnalyzeContext,
) -> Result<(), SqlError> {
    if now.catalog.type_named(schema, name).is_none() {
        return Ok(());
    }
    Err(fail(SqlState::DUPLICATE_OBJECT, format!("type \"{name}\" already exists")).with_hint(
        "A relation has an associated type of the same name, so you must use a name that doesn't conflict with any \
         existing type.",
    ))
}

/// The error for a relation that is there already.
fn relation_exists(name: &str) -> SqlError {
    fail(SqlState::DUPLICATE_TABLE, format!("relation \"{name}\" already exists"))
}
