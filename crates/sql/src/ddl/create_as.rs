//! CREATE TABLE AS: a table with the columns and the rows of a query.

use std::sync::Arc;

use rustydb_txn::{TableLockId, TableLockMode, Transaction};
use rustydb_types::ids::ColumnId;
use sqlparser::ast::{ColumnDef, CreateTable, Ident, Query};

use super::create::{COLUMN_COUNT_MAX, table_options};
use super::{current, relation_exists, skipped, temporary};
use crate::bind::context::TableUse;
use crate::bind::errors::{at, fail, syntax, unsupported};
use crate::bind::from::last_ident;
use crate::bind::scope::Level;
use crate::bind::{AnalyzeContext, Binder};
use crate::catalog::descriptor::KnownTypes;
use crate::catalog::{ColumnDescriptor, TableDescriptor, TypeRef};
use crate::error::{SqlError, SqlState};
use crate::exec::ExecContext;
use crate::exec::cursor::Execution;
use crate::exec::run::RunState;
use crate::exec::write::TableWriter;
use crate::parse::create_as::NO_TYPE;
use crate::pgcatalog::lookup::SystemLookup;
use crate::plan::optimize::optimize;
use crate::plan::{ColumnInfo, Node};

/// CREATE TABLE AS; answers with its tag.
pub(super) async fn table(
    create: &CreateTable,
    query: &Query,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<String, SqlError> {
    let is_name = |column: &ColumnDef| column.data_type.to_string().trim_matches('"') == NO_TYPE;
    if !create.constraints.is_empty() || !create.columns.iter().all(is_name) {
        return Err(syntax("CREATE TABLE AS takes names of columns and no more"));
    }
    // The tables that it reads are locked first, then the catalog, as every change does.
    let now = current(txn, context)?;
    let tables = {
        let binder = Binder::new(&now, &[]);
        let _checked = bound(&binder, query)?;
        binder.tables.take()
    };
    for (table, _) in tables {
        txn.lock_table(TableLockId::new(table.get()), TableLockMode::AccessShare, context.lock_wait).await?;
    }
    let (mut catalog, now, schema) =
        temporary::begin_creation(&create.name, create.temporary, txn, context).await?;
    let binder = Binder::new(&now, &[]);
    let name = last_ident(&create.name)?.value;
    if now.catalog.has_relation(schema, &name) {
        if !create.if_not_exists {
            return Err(relation_exists(&name));
        }
        skipped(SqlState::DUPLICATE_TABLE, format!("relation \"{name}\" already exists"), context);
        return Ok("CREATE TABLE AS".into());
    }
    let (node, columns) = bound(&binder, query)?;
    super::privileges::require(&binder, &now, context)?;
    let described = described(create, &columns)?;
    described.iter().try_for_each(|column| binder.require_type(column.data_type))?;
    drop(binder);
    super::refuse_type_name(schema, &name, &now)?;
    let table = TableDescriptor {
        oid: catalog.new_oid()?,
        schema,
        name,
        owner: context.analyze.user_oid,
        acl: super::privileges::initial(
            &now.catalog,
            now.user_oid,
            crate::catalog::acl::AclKind::Table,
            schema,
        ),
        columns: described,
        next_column: u32::try_from(columns.len()).unwrap_or(u32::MAX).saturating_add(1),
        indexes: Vec::new(),
        checks: Vec::new(),
        foreign_keys: Vec::new(),
        computed: Vec::new(),
        storage: catalog.new_storage()?,
        row_key: Vec::new(),
        options: table_options(&create.table_options)?,
        at_commit: temporary::at_commit(create.on_commit, schema)?,
        types: KnownTypes(Arc::clone(now.catalog.known_types())),
    };
    catalog.put_table(&table).await?;
    let count = fill(table, node, &now, txn, context).await?;
    Ok(format!("SELECT {count}"))
}

/// The query with settled types.
fn bound(binder: &Binder<'_>, query: &Query) -> Result<(Node, Vec<ColumnInfo>), SqlError> {
    if !query.locks.is_empty() {
        return Err(unsupported("FOR UPDATE in CREATE TABLE AS"));
    }
    let bound = binder.bind_query(query, &Level::default())?;
    let locks = !binder.before.borrow().is_empty();
    if locks || binder.tables.borrow().iter().any(|(_, used)| *used > TableUse::Read) {
        return Err(unsupported("FOR UPDATE in CREATE TABLE AS"));
    }
    binder.settle_unknown(bound)
}

/// The columns of the query under the names that are given, or their own.
fn described(create: &CreateTable, columns: &[ColumnInfo]) -> Result<Vec<ColumnDescriptor>, SqlError> {
    if create.columns.len() > columns.len() {
        return Err(syntax("too many column names were specified"));
    }
    if columns.len() > COLUMN_COUNT_MAX {
        let message = format!("tables can have at most {COLUMN_COUNT_MAX} columns");
        return Err(fail(SqlState::TOO_MANY_COLUMNS, message));
    }
    let named = named_columns(columns, |place| create.columns.get(place).map(|written| &written.name))?;
    let described = |(place, (name, data_type)): (u32, (String, TypeRef))| ColumnDescriptor {
        id: ColumnId::new(place),
        name,
        data_type,
        not_null: false,
        default: None,
        missing: None,
        identity: None,
        generated: None,
        acl: None,
    };
    Ok((1..).zip(named).map(described).collect())
}

/// The columns of a query that a relation is made of, under the names that are written or their own.
pub(super) fn named_columns<'n>(
    columns: &[ColumnInfo],
    written: impl Fn(usize) -> Option<&'n Ident>,
) -> Result<Vec<(String, TypeRef)>, SqlError> {
    let mut named: Vec<(String, TypeRef)> = Vec::with_capacity(columns.len());
    for (place, column) in columns.iter().enumerate() {
        let written = written(place);
        let name = written.map_or(&column.name, |written| &written.value);
        if named.iter().any(|(known, _)| known == name) {
            let error =
                fail(SqlState::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once"));
            return Err(written.map_or(error.clone(), |written| at(error, written)));
        }
        if !column.data_type.base.is_storable() {
            let message = format!("column \"{name}\" has pseudo-type {}", column.data_type);
            return Err(fail(SqlState::INVALID_TABLE_DEFINITION, message));
        }
        let data_type = column.data_type.into();
        named.push((name.clone(), data_type));
    }
    Ok(named)
}

/// Runs the query into the table, which nobody else knows of yet; how many rows there were.
async fn fill(
    table: TableDescriptor,
    node: Node,
    now: &AnalyzeContext,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<u64, SqlError> {
    let virtuals =
        crate::catalog::virtual_table::VirtualContext { catalog: &now.catalog, ..context.virtuals() };
    let lookup =
        SystemLookup { context: virtuals, search_path: &now.search_path, authority: Some(&now.authority) };
    let context = ExecContext { analyze: now, lookup: &lookup, ..context.clone() };
    let node = optimize(node, &now.catalog);
    let schema = now.catalog.schema(table.schema).map(|schema| schema.name.clone()).unwrap_or_default();
    let numbers = Arc::clone(context.database.row_numbers());
    let (rules, authority) = (Arc::default(), &now.authority);
    let writer = TableWriter::new(Arc::new(table), schema, numbers, context.lock_wait, &rules, authority)?;
    let pool = Arc::clone(context.database.work_memory());
    let state = RunState::new(context.work_mem, pool, Arc::clone(&context.interrupts));
    let mut execution = Execution { params: Vec::new(), state, input: None, touched: None };
    let mut count = 0;
    while let Some(batch) = execution.next(&node, txn, &context)? {
        for row in batch {
            writer.insert(txn, &row, &context).await?;
            count += 1;
            // After each, so that wide rows do not pile up.
            txn.flush_if_large().await?;
        }
        context.breathe().await?;
    }
    Ok(count)
}
