//! DROP TABLE, DROP INDEX, DROP SCHEMA.

use rustydb_txn::{TableLockId, TableLockMode, Transaction};
use rustydb_types::ids::Oid;
use sqlparser::ast::ObjectName;

use super::foreign::{self, Dropped};
use super::{
    Demand, change, change_of, current, lock_table, not_there, owns_schema, sequence, skipped, types, view,
};
use crate::bind::context::Relation;
use crate::bind::errors::fail;
use crate::bind::from::last_ident;
use crate::bind::{AnalyzeContext, Binder};
use crate::catalog::TableDescriptor;
use crate::error::{SqlError, SqlState};
use crate::exec::ExecContext;

/// DROP TABLE.
pub(super) async fn tables(
    names: &[ObjectName],
    if_exists: bool,
    cascade: bool,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let mode = (TableLockMode::AccessExclusive, Demand::OwnerOrSchema);
    let mut dropped = Vec::with_capacity(names.len());
    for name in names {
        let now = current(txn, context)?;
        if let Some(Relation::View(view)) = Binder::new(&now, &[]).find_relation(name)? {
            return Err(fail(SqlState::WRONG_OBJECT_TYPE, format!("\"{}\" is not a table", view.name))
                .with_hint("Use DROP VIEW to remove a view."));
        }
        // Tables that go together may refer to each other.
        if let Some(table) = lock_table(name, true, mode, txn, context).await? {
            dropped.push(table.oid);
        }
    }
    for name in names {
        match lock_table(name, true, mode, txn, context).await? {
            Some(table) => {
                foreign::refuse_pending(&table, "DROP TABLE", context)?;
                let what = format!("table {}", table.name);
                view::drop_dependents((table.oid, None), &what, &[], cascade, txn, context).await?;
                foreign::drop_dependents(&table, Dropped::Table(&dropped), cascade, txn, context).await?;
                let mut catalog = change_of(table.oid, txn, context).await?;
                sequence::drop_owned(&table, None, cascade, &mut catalog, context).await?;
                catalog.drop_table(&table).await?;
            }
            None => not_there((SqlState::UNDEFINED_TABLE, "table"), name, if_exists, txn, context)?,
        }
    }
    Ok(())
}

/// DROP INDEX.
pub(super) async fn indexes(
    names: &[ObjectName],
    if_exists: bool,
    cascade: bool,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    for name in names {
        let found = find_index(name, &current(txn, context)?)?;
        let Some((table_oid, index_oid)) = found else {
            not_there((SqlState::UNDEFINED_OBJECT, "index"), name, if_exists, txn, context)?;
            continue;
        };
        let may_drop = |now: &AnalyzeContext| match now.catalog.index(index_oid) {
            Some((table, index)) if !owns_schema(table.schema, now) => {
                now.authority.require_owner(table.owner, "index", &index.name)
            }
            _ => Ok(()),
        };
        may_drop(&current(txn, context)?)?;
        let lock = TableLockId::new(table_oid.get());
        txn.lock_table(lock, TableLockMode::AccessExclusive, context.lock_wait).await?;
        let now = current(txn, context)?;
        may_drop(&now)?;
        let Some((table, index)) = now.catalog.index(index_oid) else { continue };
        if index.constraint.is_some() {
            let message = format!(
                "cannot drop index {0} because constraint {0} on table {1} requires it",
                index.name, table.name
            );
            return Err(fail(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message).with_hint(format!(
                "You can drop constraint {} on table {} instead.",
                index.name, table.name
            )));
        }
        foreign::drop_dependents(table, Dropped::Index(index), cascade, txn, context).await?;
        let mut catalog = change_of(table_oid, txn, context).await?;
        let now = current(catalog.txn, context)?;
        let Some((table, index)) = now.catalog.index(index_oid) else { continue };
        let mut changed: TableDescriptor = table.as_ref().clone();
        changed.indexes.retain(|other| other.oid != index_oid);
        changed.forget_computed();
        catalog.drop_storage(index.storage).await?;
        catalog.put_table(&changed).await?;
    }
    Ok(())
}

/// The table and the index that a name of an index means.
fn find_index(name: &ObjectName, now: &AnalyzeContext) -> Result<Option<(Oid, Oid)>, SqlError> {
    let binder = Binder::new(now, &[]);
    let (schema, own) = binder.split_name(name)?;
    let path: Vec<&str> = match schema {
        Some(schema) => vec![schema.value.as_str()],
        None => now.path().collect(),
    };
    Ok(path.iter().find_map(|schema| {
        let schema = now.catalog.schema_named(schema)?;
        now.catalog.index_named(schema.oid, &own.value).map(|(table, index)| (table.oid, index.oid))
    }))
}

/// ALTER INDEX ... RENAME TO. The constraint of an index is named like it.
pub(super) async fn rename_index(
    name: &ObjectName,
    new_name: &ObjectName,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let Some((table_oid, index_oid)) = find_index(name, &current(txn, context)?)? else {
        let message = format!("relation \"{}\" does not exist", last_ident(name)?.value);
        return Err(fail(SqlState::UNDEFINED_TABLE, message));
    };
    let new_name = last_ident(new_name)?.value;
    let may_change = |now: &AnalyzeContext| match now.catalog.index(index_oid) {
        Some((table, index)) => now.authority.require_owner(table.owner, "index", &index.name),
        None => Ok(()),
    };
    may_change(&current(txn, context)?)?;
    // As in PostgreSQL, readers and writers of the table go on.
    let lock = TableLockId::new(table_oid.get());
    txn.lock_table(lock, TableLockMode::ShareUpdateExclusive, context.lock_wait).await?;
    let mut catalog = change_of(table_oid, txn, context).await?;
    let now = current(catalog.txn, context)?;
    may_change(&now)?;
    let Some((table, _)) = now.catalog.index(index_oid) else { return Ok(()) };
    if now.catalog.has_relation(table.schema, &new_name) {
        return Err(super::relation_exists(&new_name));
    }
    let mut changed: TableDescriptor = table.as_ref().clone();
    let is_constraint =
        changed.indexes.iter().any(|index| index.oid == index_oid && index.constraint.is_some());
    if is_constraint && super::check::has_constraint(&changed, &new_name) {
        return Err(super::check::constraint_exists(&new_name, &changed.name));
    }
    if let Some(index) = changed.indexes.iter_mut().find(|index| index.oid == index_oid) {
        index.name = new_name;
    }
    catalog.put_table(&changed).await
}

/// DROP SCHEMA.
pub(super) async fn schemas(
    names: &[ObjectName],
    if_exists: bool,
    cascade: bool,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    for name in names {
        let name = last_ident(name)?.value;
        let now = current(txn, context)?;
        let found = now.catalog.schema_named(&name).filter(|found| found.name == name);
        let Some(schema) = found.cloned() else {
            let message = format!("schema \"{name}\" does not exist");
            if if_exists {
                skipped(SqlState::SUCCESSFUL_COMPLETION, message, context);
                continue;
            }
            return Err(fail(SqlState::INVALID_SCHEMA_NAME, message));
        };
        now.authority.require_owner(schema.owner, "schema", &name)?;
        if matches!(name.as_str(), "pg_catalog" | "information_schema") {
            let message = format!("cannot drop schema {name} because it is required by the database system");
            return Err(fail(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message));
        }
        let inside: Vec<_> =
            now.catalog.tables().filter(|table| table.schema == schema.oid).cloned().collect();
        let sequences: Vec<_> =
            now.catalog.sequences().filter(|sequence| sequence.schema == schema.oid).cloned().collect();
        let views: Vec<_> = now.catalog.views().filter(|view| view.schema == schema.oid).cloned().collect();
        let own_types: Vec<_> = (now.catalog.types())
            .filter(|own| own.schema == schema.oid)
            .map(|own| own.as_ref().clone())
            .collect();
        let is_empty = inside.is_empty() && sequences.is_empty() && views.is_empty() && own_types.is_empty();
        if !(cascade || is_empty) {
            let message = format!("cannot drop schema {name} because other objects depend on it");
            return Err(fail(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message)
                .with_hint("Use DROP ... CASCADE to drop the dependent objects too."));
        }
        for oid in inside.iter().map(|table| table.oid).chain(sequences.iter().map(|own| own.oid)) {
            let lock = TableLockId::new(oid.get());
            txn.lock_table(lock, TableLockMode::AccessExclusive, context.lock_wait).await?;
        }
        let views: Vec<_> = views.iter().map(|view| view.oid).collect();
        let tables = inside.iter().map(|table| (table.oid, format!("table {}", table.name)));
        for (oid, what) in tables.chain(views.iter().map(|view| (*view, "view".to_owned()))) {
            view::drop_dependents((oid, None), &what, &views, cascade, txn, context).await?;
        }
        view::remove(&views, txn, context).await?;
        let all: Vec<_> = inside.iter().map(|table| table.oid).collect();
        for table in &inside {
            foreign::drop_dependents(table, Dropped::Table(&all), cascade, txn, context).await?;
        }
        let mut catalog = change(txn, context).await?;
        for table in &inside {
            let table = current(catalog.txn, context)?.catalog.table(table.oid).cloned();
            if let Some(table) = table {
                catalog.drop_table(&table).await?;
            }
        }
        for sequence in &sequences {
            sequence::clear_users(sequence.oid, &[], &mut catalog, context).await?;
            catalog.drop_sequence(sequence).await?;
        }
        // What is outside of the schema may have columns of its types.
        types::drop_found(own_types, true, txn, context).await?;
        let mut catalog = change(txn, context).await?;
        let now = current(catalog.txn, context)?;
        for own in now.catalog.default_acls().iter().filter(|own| own.schema == Some(schema.oid)) {
            catalog.put_default_acl(own.oid, None).await?;
        }
        catalog.put_schema(schema.oid, None).await?;
    }
    Ok(())
}
