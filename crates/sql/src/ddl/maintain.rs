//! TRUNCATE, ANALYZE, VACUUM, COMMENT.

use rustydb_txn::{LockWait, TableLockId, TableLockMode, Transaction};
use rustydb_types::ids::Oid;
use sqlparser::ast::{
    CommentObject, Ident, LockTableMode, ObjectName, Truncate, TruncateIdentityOption, VacuumStatement,
};

use super::{Demand, change_of, current, foreign, lock_table, sequence};
use crate::bind::context::Relation;
use crate::bind::errors::{fail, unsupported};
use crate::bind::from::last_ident;
use crate::bind::{AnalyzeContext, Binder};
use crate::catalog::TableDescriptor;
use crate::catalog::acl::Privileges;
use crate::catalog::snapshot::CLASS_SCHEMA;
use crate::catalog::store::CatalogWriter;
use crate::error::{Severity, SqlError, SqlState};
use crate::exec::ExecContext;

/// `pg_class`, the class of comments on tables, columns and indexes.
const CLASS_RELATION: u32 = 1259;
/// `pg_type`, the class of comments on types.
const CLASS_TYPE: u32 = 1247;

/// TRUNCATE: the tables get fresh storages; the old rows wait to be swept.
pub(super) async fn truncate(
    truncate: &Truncate,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let mode = TableLockMode::AccessExclusive;
    let mut named = Vec::with_capacity(truncate.table_names.len());
    for target in &truncate.table_names {
        let demand = (mode, Demand::Any(Privileges::TRUNCATE));
        if let Some(table) = lock_table(&target.name, truncate.if_exists, demand, txn, context).await?
            && !named.contains(&table.oid)
        {
            named.push(table.oid);
        }
    }
    let cascade = truncate.cascade == Some(sqlparser::ast::CascadeOption::Cascade);
    let mut all = named.clone();
    loop {
        // Those that CASCADE adds may be referred to by others by the time they are locked.
        let found = foreign::truncated(&current(txn, context)?.catalog, all.clone(), cascade)?;
        if found.len() == all.len() {
            break;
        }
        let now = current(txn, context)?;
        for table in found.iter().skip(all.len()).filter_map(|oid| now.catalog.table(*oid)) {
            Demand::Any(Privileges::TRUNCATE).check(table, &now)?;
        }
        for oid in found.iter().skip(all.len()) {
            txn.lock_table(TableLockId::new(oid.get()), mode, context.lock_wait).await?;
            if let Some(table) = current(txn, context)?.catalog.table(*oid) {
                let notice = format!("truncate cascades to table \"{}\"", table.name);
                let notice = SqlError::new(SqlState::SUCCESSFUL_COMPLETION, notice);
                context.session.notice(notice.with_severity(Severity::Notice));
            }
        }
        all = found;
    }
    for oid in all {
        let Some(mut table) = current(txn, context)?.catalog.table(oid).map(|table| table.as_ref().clone())
        else {
            continue;
        };
        foreign::refuse_pending(&table, "TRUNCATE", context)?;
        let mut catalog = change_of(oid, txn, context).await?;
        empty(&mut table, &mut catalog).await?;
        if matches!(truncate.identity, Some(TruncateIdentityOption::Restart)) {
            sequence::restart_owned(table.oid, &mut catalog, context).await?;
        }
    }
    Ok(())
}

/// Gives a table storages without rows.
pub(super) async fn empty(
    table: &mut TableDescriptor,
    catalog: &mut CatalogWriter<'_>,
) -> Result<(), SqlError> {
    let former = table.storage;
    table.storage = catalog.new_storage()?;
    catalog.drop_storage(former).await?;
    for index in &mut table.indexes {
        if index.storage == former {
            index.storage = table.storage;
        } else {
            catalog.drop_storage(index.storage).await?;
            index.storage = catalog.new_storage()?;
        }
    }
    catalog.put_table(table).await
}

/// LOCK TABLE.
pub(super) async fn lock(
    lock: &sqlparser::ast::Lock,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let mode = match lock.lock_mode {
        Some(LockTableMode::AccessShare) => TableLockMode::AccessShare,
        Some(LockTableMode::RowShare) => TableLockMode::RowShare,
        Some(LockTableMode::RowExclusive) => TableLockMode::RowExclusive,
        Some(LockTableMode::ShareUpdateExclusive) => TableLockMode::ShareUpdateExclusive,
        Some(LockTableMode::Share) => TableLockMode::Share,
        Some(LockTableMode::ShareRowExclusive) => TableLockMode::ShareRowExclusive,
        Some(LockTableMode::Exclusive) => TableLockMode::Exclusive,
        Some(LockTableMode::AccessExclusive) | None => TableLockMode::AccessExclusive,
    };
    let lock_wait = if lock.nowait { LockWait::NoWait } else { context.lock_wait };
    let context = ExecContext { lock_wait, ..context.clone() };
    for target in &lock.tables {
        let writes = Privileges::UPDATE.with(Privileges::DELETE).with(Privileges::TRUNCATE);
        let demand = match mode {
            TableLockMode::AccessShare => writes.with(Privileges::SELECT).with(Privileges::INSERT),
            TableLockMode::RowShare | TableLockMode::RowExclusive => writes.with(Privileges::INSERT),
            _ => writes,
        };
        lock_table(&target.name, false, (mode, Demand::Any(demand)), txn, &context).await.map_err(
            |error| {
                if error.state() != SqlState::LOCK_NOT_AVAILABLE || !lock.nowait {
                    return error;
                }
                let name = last_ident(&target.name).map(|name| name.value).unwrap_or_default();
                fail(SqlState::LOCK_NOT_AVAILABLE, format!("could not obtain lock on relation \"{name}\""))
            },
        )?;
    }
    Ok(())
}

/// The named table, or all.
async fn targets(
    name: Option<&ObjectName>,
    mode: TableLockMode,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<Vec<TableDescriptor>, SqlError> {
    if let Some(name) = name {
        return Ok(lock_table(name, false, (mode, Demand::Owner), txn, context).await?.into_iter().collect());
    }
    let mut tables = Vec::new();
    let oids: Vec<Oid> = current(txn, context)?.catalog.tables().map(|table| table.oid).collect();
    for oid in oids {
        txn.lock_table(TableLockId::new(oid.get()), mode, context.lock_wait).await?;
        tables.extend(current(txn, context)?.catalog.table(oid).map(|table| table.as_ref().clone()));
    }
    Ok(tables)
}

/// ANALYZE. Columns that are named are looked up; the others are measured with them.
pub(super) async fn analyze(
    name: Option<&ObjectName>,
    columns: &[Ident],
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    for table in targets(name, TableLockMode::ShareUpdateExclusive, txn, context).await? {
        for (place, column) in columns.iter().enumerate() {
            let named = format!("column \"{}\" of relation \"{}\"", column.value, table.name);
            if table.column_index(&column.value).is_none() {
                return Err(fail(SqlState::UNDEFINED_COLUMN, format!("{named} does not exist")));
            }
            if columns.iter().skip(place + 1).any(|later| later.value == column.value) {
                return Err(fail(SqlState::DUPLICATE_COLUMN, format!("{named} appears more than once")));
            }
        }
        let statistics = super::analyze::measure(&table, txn, context).await?;
        change_of(table.oid, txn, context).await?.put_statistics(table.oid, &statistics).await?;
    }
    Ok(())
}

/// VACUUM. There is nothing to clean up: what no snapshot sees of a row is dropped in the background, and so are the
/// rows of dropped and truncated tables (see [`crate::exec::sweep`]).
pub(super) async fn vacuum(
    vacuum: &VacuumStatement,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    if let Some(name) = &vacuum.table_name {
        lock_table(name, false, (TableLockMode::ShareUpdateExclusive, Demand::Owner), txn, context).await?;
    }
    // The parser has no word for VACUUM ANALYZE; see `parse::normalise`.
    if vacuum.reindex { analyze(vacuum.table_name.as_ref(), &[], txn, context).await } else { Ok(()) }
}

/// Refuses what only the owner of an object may do.
fn require_owner(object: Oid, now: &AnalyzeContext) -> Result<(), SqlError> {
    let catalog = &now.catalog;
    let of_index = || catalog.index(object).map(|(table, index)| (table.owner, "index", index.name.clone()));
    let found = (catalog.table(object).map(|own| (own.owner, "table", own.name.clone())))
        .or_else(|| catalog.view(object).map(|own| (own.owner, "view", own.name.clone())))
        .or_else(|| catalog.sequence(object).map(|own| (own.owner, "sequence", own.name.clone())))
        .or_else(|| catalog.schema(object).map(|own| (own.owner, "schema", own.name.clone())))
        .or_else(|| catalog.type_descriptor(object).map(|own| (own.owner, "type", own.name.clone())))
        .or_else(of_index);
    match found {
        Some((owner, what, name)) => now.authority.require_owner(owner, what, &name),
        None => Ok(()),
    }
}

/// COMMENT.
pub(super) async fn comment(
    object: &CommentObject,
    name: &ObjectName,
    text: Option<&str>,
    if_exists: bool,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let now = current(txn, context)?;
    let binder = Binder::new(&now, &[]);
    let key = match object {
        CommentObject::Table => match binder.table(name) {
            Ok(table) => (CLASS_RELATION, table.oid, 0),
            Err(error) if if_exists && error.state() == SqlState::UNDEFINED_TABLE => return Ok(()),
            Err(error) => return Err(error),
        },
        CommentObject::Column => {
            let mut parts = name.0.clone();
            let column = parts.pop().and_then(|part| part.as_ident().cloned());
            let relation = ObjectName(parts);
            if let Some(Relation::View(view)) = binder.find_relation(&relation)? {
                let place = column.as_ref().and_then(|column| view.column_index(&column.value));
                let number = place.and_then(|place| u32::try_from(place + 1).ok()).ok_or_else(|| {
                    fail(SqlState::UNDEFINED_COLUMN, format!("column {name} does not exist"))
                })?;
                drop(binder);
                let key = (CLASS_RELATION, view.oid, number);
                require_owner(key.1, &now)?;
                let text = text.filter(|text| !text.is_empty());
                return change_of(key.1, txn, context).await?.put_comment(key, text).await;
            }
            let table = binder.table(&relation)?;
            let place = column.as_ref().and_then(|column| table.column_index(&column.value));
            let Some(column) = place.and_then(|place| table.columns.get(place)) else {
                let message = format!("column {name} does not exist");
                return Err(fail(SqlState::UNDEFINED_COLUMN, message));
            };
            (CLASS_RELATION, table.oid, column.id.get())
        }
        CommentObject::View => match binder.find_relation(name)? {
            Some(Relation::View(view)) => (CLASS_RELATION, view.oid, 0),
            Some(_) => {
                let message = format!("\"{}\" is not a view", last_ident(name)?.value);
                return Err(fail(SqlState::WRONG_OBJECT_TYPE, message));
            }
            None if if_exists => return Ok(()),
            None => return Err(crate::bind::errors::undefined_relation(name)),
        },
        CommentObject::Type | CommentObject::Domain => match binder.find_type(name)? {
            Some(found) => {
                let is_domain = matches!(found.kind, crate::catalog::TypeKind::Domain { .. });
                if *object == CommentObject::Domain && !is_domain {
                    let message = format!("{} is not a domain", binder.shown_type(&found));
                    return Err(fail(SqlState::WRONG_OBJECT_TYPE, message));
                }
                (CLASS_TYPE, found.oid, 0)
            }
            None if if_exists => return Ok(()),
            None => return Err(super::types::missing(name)),
        },
        CommentObject::Sequence => match binder.find_sequence(name)? {
            Some(sequence) => (CLASS_RELATION, sequence.oid, 0),
            None if if_exists => return Ok(()),
            None => return Err(crate::bind::errors::undefined_relation(name)),
        },
        CommentObject::Schema => {
            let (_, own) = binder.split_name(name)?;
            let Some(schema) = now.catalog.schema_named(&own.value) else {
                let message = format!("schema \"{}\" does not exist", own.value);
                return Err(fail(SqlState::INVALID_SCHEMA_NAME, message));
            };
            (CLASS_SCHEMA, schema.oid, 0)
        }
        CommentObject::Index => {
            let (_, own) = binder.split_name(name)?;
            let found = now.path().find_map(|schema| {
                now.catalog.index_named(now.catalog.schema_named(schema)?.oid, &own.value)
            });
            let Some((_, index)) = found else {
                return Err(fail(
                    SqlState::UNDEFINED_TABLE,
                    format!("relation \"{}\" does not exist", own.value),
                ));
            };
            (CLASS_RELATION, index.oid, 0)
        }
        other => return Err(unsupported(format!("COMMENT ON {other}"))),
    };
    drop(binder);
    require_owner(key.1, &now)?;
    change_of(key.1, txn, context).await?.put_comment(key, text.filter(|text| !text.is_empty())).await
}
