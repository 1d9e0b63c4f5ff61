//! Temporary tables, sequences and views: how they are made, and what the ends of a transaction and of a session do to
//! them. See [`crate::catalog::temporary`].

use rustydb_txn::{Direction, LockWait, ScanRequest, TableLockId, TableLockMode, Transaction};
use rustydb_types::ids::Oid;
use sqlparser::ast::{ObjectName, OnCommit};

use super::{change as change_base, current};
use crate::bind::errors::{at, fail};
use crate::bind::{AnalyzeContext, Binder};
use crate::catalog::acl::Privileges;
use crate::catalog::store::CatalogWriter;
use crate::catalog::temporary;
use crate::catalog::{AtCommit, CatalogSnapshot, SchemaDescriptor, TableDescriptor, keys};
use crate::error::{SqlError, SqlState};
use crate::exec::ExecContext;

/// Begins a change of the session's temporary objects.
pub(super) async fn change<'t>(
    txn: &'t mut Transaction,
    context: &'t ExecContext<'_>,
) -> Result<CatalogWriter<'t>, SqlError> {
    txn.mark();
    context.session.note_temporary();
    let numbers = context.database.sequences();
    CatalogWriter::begin_temporary(txn, context.lock_wait, context.session.random(), numbers).await
}

/// Whether a relation of this name is to be a temporary one.
///
/// # Errors
/// 42P16 when it is, and the name says otherwise.
pub(super) fn is_meant(name: &ObjectName, temporary: bool, now: &AnalyzeContext) -> Result<bool, SqlError> {
    match Binder::new(now, &[]).split_name(name)?.0 {
        Some(schema) => {
            let known = now.catalog.schema_named(&schema.value);
            if schema.value == "pg_temp" || known.is_some_and(|known| known.oid.is_temporary()) {
                return Ok(true);
            }
            if temporary && known.is_some() {
                let message = "cannot create temporary relation in non-temporary schema";
                return Err(at(fail(SqlState::INVALID_TABLE_DEFINITION, message), schema));
            }
            Ok(false)
        }
        None if temporary => Ok(true),
        None => {
            let first = now
                .search_path
                .iter()
                .find(|name| name.as_str() == "pg_temp" || now.catalog.schema_named(name).is_some());
            let is_own =
                |name: &String| now.catalog.schema_named(name).is_some_and(|own| own.oid.is_temporary());
            Ok(first.is_some_and(|name| name == "pg_temp" || is_own(name)))
        }
    }
}

/// Begins the creation of a relation: a change of the catalog, what the catalog is by then, and the schema that the
/// relation comes into.
///
/// # Errors
/// 3F000 and 42501 for the schema; 42P16 for a temporary relation in another one.
pub(super) async fn begin_creation<'t>(
    name: &ObjectName,
    temporary: bool,
    txn: &'t mut Transaction,
    context: &'t ExecContext<'_>,
) -> Result<(CatalogWriter<'t>, AnalyzeContext, Oid), SqlError> {
    let now = current(txn, context)?;
    if !is_meant(name, temporary, &now)? {
        let catalog = change_base(txn, context).await?;
        let now = current(catalog.txn, context)?;
        let schema = Binder::new(&now, &[]).creation_schema(name)?;
        return Ok((catalog, now, schema));
    }
    if !now.authority.database.has(Privileges::TEMPORARY) {
        let message =
            format!("permission denied to create temporary tables in database \"{}\"", now.database);
        return Err(fail(SqlState::INSUFFICIENT_PRIVILEGE, message));
    }
    let mut catalog = change(txn, context).await?;
    let mut now = current(catalog.txn, context)?;
    if now.catalog.temporary_schema().is_none() {
        let oid = catalog.new_oid()?;
        let session = catalog.txn.options().request.session;
        let schema =
            SchemaDescriptor { oid, name: format!("pg_temp_{session}"), owner: now.user_oid, acl: None };
        catalog.put_schema(oid, Some(&schema)).await?;
        now = current(catalog.txn, context)?;
    }
    let schema = now.catalog.temporary_schema().map(|schema| schema.oid);
    let schema = schema.ok_or_else(|| SqlError::internal("the temporary schema is not there"))?;
    Ok((catalog, now, schema))
}

/// What ON COMMIT says of a table in a schema.
///
/// # Errors
/// 42P16 when the table is not temporary.
pub(super) fn at_commit(written: Option<OnCommit>, schema: Oid) -> Result<AtCommit, SqlError> {
    if written.is_some() && !schema.is_temporary() {
        let message = "ON COMMIT can only be used on temporary tables";
        return Err(fail(SqlState::INVALID_TABLE_DEFINITION, message));
    }
    Ok(match written {
        None | Some(OnCommit::PreserveRows) => AtCommit::Keep,
        Some(OnCommit::DeleteRows) => AtCommit::Empty,
        Some(OnCommit::Drop) => AtCommit::Drop,
    })
}

fn tables(catalog: &CatalogSnapshot) -> impl Iterator<Item = &TableDescriptor> {
    catalog.tables().map(AsRef::as_ref).filter(|table| table.oid.is_temporary())
}

/// Does to the session's temporary tables what they were made to have done to them at the end of each transaction.
///
/// # Errors
/// As a change of the catalog.
pub(crate) async fn end_transaction(
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let now = current(txn, context)?;
    let due: Vec<TableDescriptor> =
        tables(&now.catalog).filter(|table| table.at_commit != AtCommit::Keep).cloned().collect();
    let (dropped, emptied): (Vec<_>, Vec<_>) =
        due.into_iter().partition(|table| table.at_commit == AtCommit::Drop);
    for mut table in emptied {
        if is_empty(&table, txn)? {
            continue;
        }
        let mut catalog = change(txn, context).await?;
        super::maintain::empty(&mut table, &mut catalog).await?;
    }
    drop_all(&dropped.iter().map(|table| table.oid).collect::<Vec<_>>(), txn, context).await
}

fn is_empty(table: &TableDescriptor, txn: &Transaction) -> Result<bool, SqlError> {
    let (start, end) = keys::storage_range(table.storage);
    let (start, end, direction) = (start.into(), end.into(), Direction::Forward);
    let found = txn.scan(ScanRequest { start, end, direction, max_bytes: 1, max_rows: 1 })?;
    Ok(found.iter().next().is_none())
}

/// Drops temporary tables with all that depends on them, without a word.
async fn drop_all(dropped: &[Oid], txn: &mut Transaction, context: &ExecContext<'_>) -> Result<(), SqlError> {
    if dropped.is_empty() {
        return Ok(());
    }
    for table in dropped {
        txn.lock_table(TableLockId::new(table.get()), TableLockMode::AccessExclusive, context.lock_wait)
            .await?;
    }
    let mut catalog = change(txn, context).await?;
    loop {
        let now = current(catalog.txn, context)?;
        let Some(table) = tables(&now.catalog).find(|table| dropped.contains(&table.oid)) else {
            return Ok(());
        };
        let mut views: Vec<Oid> = now.catalog.views_of(table.oid, None).map(|view| view.oid).collect();
        let mut place = 0;
        while let Some(view) = views.get(place).copied() {
            let more = now.catalog.views_of(view, None).map(|view| view.oid);
            let more: Vec<Oid> = more.filter(|view| !views.contains(view)).collect();
            views.extend(more);
            place += 1;
        }
        for view in views {
            catalog.drop_view(view).await?;
        }
        for (child, _) in now.catalog.referencing(table.oid).filter(|(child, _)| child.oid != table.oid) {
            let mut child = child.as_ref().clone();
            child.foreign_keys.retain(|key| key.table != table.oid);
            catalog.put_table(&child).await?;
        }
        for sequence in now.catalog.sequences_of(table.oid, None) {
            catalog.drop_sequence(sequence).await?;
        }
        catalog.drop_table(table).await?;
    }
}

/// DISCARD TEMP, and the end of a session: all that the session has of temporary objects goes.
///
/// # Errors
/// Storage errors.
pub(crate) async fn discard(txn: &mut Transaction, wait: LockWait) -> Result<(), SqlError> {
    let request = txn.options().request;
    temporary::forget(txn, (request.incarnation, request.session), wait).await
}

/// Refuses a constraint between a temporary table and one that is none.
///
/// # Errors
/// 42P16
pub(super) fn refuse_mixed(table: Oid, referenced: Oid) -> Result<(), SqlError> {
    let kind = match (table.is_temporary(), referenced.is_temporary()) {
        (true, false) => "temporary",
        (false, true) => "permanent",
        _ => return Ok(()),
    };
    let message = format!("constraints on {kind} tables may reference only {kind} tables");
    Err(fail(SqlState::INVALID_TABLE_DEFINITION, message))
}
