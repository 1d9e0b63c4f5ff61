//! ALTER TABLE, and the work that fills an index from the rows that are there.

use bytes::Bytes;
use rustydb_txn::{Direction, LockWait, RowLock, ScanRequest, TableLockMode, Transaction};
use rustydb_types::ids::{ColumnId, Oid};
use rustydb_types::value::Value;
use sqlparser::ast::{
    AlterColumnOperation, AlterTable, AlterTableOperation, DropBehavior, Ident, RenameTableNameKind,
};

use super::check::{self, CheckSpec};
use super::create::{self, KeySpec};
use super::foreign::{self, Dropped, ForeignKeySpec};
use super::{Demand, change_of, current, lock_table, privileges, relation_exists, sequence, skipped, view};
use crate::bind::errors::{fail, unsupported};
use crate::bind::from::{column_type, last_ident};
use crate::bind::scope::{Level, Scope};
use crate::bind::{Binder, kept};
use crate::catalog::store::CatalogWriter;
use crate::catalog::{
    CheckDescriptor, ColumnDescriptor, ComputedDescriptor, IndexKind, TableDescriptor, keys,
};
use crate::error::{SqlError, SqlState};
use crate::exec::ExecContext;
use crate::exec::rows::{self, RowLayout};
use crate::exec::write::TableWriter;
use crate::plan::Row;
use crate::scalar::EvalContext;

/// Rows that a rewrite reads at a time.
const CHUNK_ROWS: usize = 512;

/// ALTER TABLE.
pub(super) async fn table(
    alter: &AlterTable,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let mode = (TableLockMode::AccessExclusive, Demand::Owner);
    let Some(mut table) = lock_table(&alter.name, alter.if_exists, mode, txn, context).await? else {
        let message = format!("relation \"{}\" does not exist", last_ident(&alter.name)?.value);
        skipped(SqlState::SUCCESSFUL_COMPLETION, message, context);
        return Ok(());
    };
    foreign::refuse_pending(&table, "ALTER TABLE", context)?;
    for operation in &alter.operations {
        if let AlterTableOperation::AlterColumn {
            column_name,
            op: AlterColumnOperation::AddGenerated { generated_as, sequence_options },
        } = operation
        {
            let options = sequence_options.as_deref().unwrap_or_default();
            let name = alter.on_cluster.as_ref();
            sequence::add_identity(column_name, (*generated_as, options), name, &mut table, txn, context)
                .await?;
            continue;
        }
        operate(operation, &mut table, txn, context).await?;
    }
    Ok(())
}

async fn operate(
    operation: &AlterTableOperation,
    table: &mut TableDescriptor,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    match operation {
        AlterTableOperation::AddConstraint { constraint, not_valid } => {
            if let Some(mut spec) = ForeignKeySpec::of_constraint(constraint)? {
                spec.not_valid = *not_valid;
                return foreign::add_to_table(&[spec], table, txn, context).await;
            }
            match CheckSpec::of_constraint(constraint)? {
                Some(mut spec) => {
                    spec.not_valid = *not_valid;
                    check::add_to_table(&[spec], table, txn, context).await
                }
                None => {
                    let key = create::key_of_constraint(constraint)?;
                    if *not_valid {
                        let kind = if key.kind == IndexKind::Primary { "PRIMARY KEY" } else { "UNIQUE" };
                        let message = format!("{kind} constraints cannot be marked NOT VALID");
                        return Err(fail(SqlState::FEATURE_NOT_SUPPORTED, message));
                    }
                    add_key(&key, table, txn, context).await
                }
            }
        }
        AlterTableOperation::ValidateConstraint { name } => {
            if foreign::validate(&name.value, table, txn, context).await? {
                return Ok(());
            }
            check::validate(&name.value, table, txn, context).await
        }
        AlterTableOperation::AddColumn { if_not_exists, column_def, .. } => {
            let name = &column_def.name.value;
            if table.column_index(name).is_some() {
                let message = format!("column \"{name}\" of relation \"{}\" already exists", table.name);
                if *if_not_exists {
                    skipped(SqlState::DUPLICATE_COLUMN, message, context);
                    return Ok(());
                }
                return Err(fail(SqlState::DUPLICATE_COLUMN, message));
            }
            add_column(column_def, table, txn, context).await
        }
        AlterTableOperation::DropColumn { column_names, if_exists, drop_behavior, .. } => {
            let cascade = *drop_behavior == Some(DropBehavior::Cascade);
            for name in column_names {
                drop_column(name, *if_exists, cascade, table, txn, context).await?;
            }
            Ok(())
        }
        AlterTableOperation::DropConstraint { if_exists, name, drop_behavior } => {
            let cascade = *drop_behavior == Some(DropBehavior::Cascade);
            drop_constraint(&name.value, *if_exists, cascade, table, txn, context).await
        }
        AlterTableOperation::RenameColumn { old_column_name, new_column_name } => {
            if table.column_index(&new_column_name.value).is_some() {
                let message = format!(
                    "column \"{}\" of relation \"{}\" already exists",
                    new_column_name.value, table.name
                );
                return Err(fail(SqlState::DUPLICATE_COLUMN, message));
            }
            let place = place_of(table, old_column_name)?;
            let former = table.clone();
            if let Some(column) = table.columns.get_mut(place) {
                column.name.clone_from(&new_column_name.value);
            }
            check::rename_columns(&former, table)?;
            kept::rename_computed(&former, table)?;
            save(table, txn, context).await
        }
        AlterTableOperation::RenameTable { table_name } => {
            let (RenameTableNameKind::To(name) | RenameTableNameKind::As(name)) = table_name;
            let name = last_ident(name)?.value;
            let mut catalog = change_of(table.oid, txn, context).await?;
            if current(catalog.txn, context)?.catalog.has_relation(table.schema, &name) {
                return Err(relation_exists(&name));
            }
            table.name = name;
            catalog.put_table(table).await
        }
        AlterTableOperation::RenameConstraint { old_name, new_name } => {
            if check::rename(&old_name.value, &new_name.value, table, txn, context).await?
                || foreign::rename(&old_name.value, &new_name.value, table, txn, context).await?
            {
                return Ok(());
            }
            let mut catalog = change_of(table.oid, txn, context).await?;
            if current(catalog.txn, context)?.catalog.has_relation(table.schema, &new_name.value) {
                return Err(relation_exists(&new_name.value));
            }
            let found = table
                .indexes
                .iter_mut()
                .find(|index| index.constraint.is_some() && index.name == old_name.value);
            match found {
                Some(_)
                    if table.checks.iter().any(|check| check.name == new_name.value)
                        || table.foreign_keys.iter().any(|key| key.name == new_name.value) =>
                {
                    return Err(check::constraint_exists(&new_name.value, &table.name));
                }
                Some(index) => index.name.clone_from(&new_name.value),
                None => {
                    let (name, table) = (&old_name.value, &table.name);
                    let message = format!("constraint \"{name}\" for table \"{table}\" does not exist");
                    return Err(fail(SqlState::UNDEFINED_OBJECT, message));
                }
            }
            catalog.put_table(table).await
        }
        AlterTableOperation::AlterColumn { column_name, op } => {
            alter_column(column_name, op, table, txn, context).await
        }
        AlterTableOperation::OwnerTo { new_owner } => {
            let mut catalog = change_of(table.oid, txn, context).await?;
            let now = current(catalog.txn, context)?;
            let new = privileges::new_owner(new_owner, Some(table.schema), &now, context)?;
            privileges::change_owner(&mut table.owner, &mut table.acl, new);
            catalog.put_table(table).await?;
            for sequence in now.catalog.sequences_of(table.oid, None) {
                let mut sequence = sequence.as_ref().clone();
                privileges::change_owner(&mut sequence.owner, &mut sequence.acl, new);
                catalog.put_sequence(&sequence).await?;
            }
            Ok(())
        }
        AlterTableOperation::SetOptionsParens { options } => {
            for option in options {
                if let sqlparser::ast::SqlOption::KeyValue { key, value } = option {
                    table.options.insert(key.value.clone(), value.to_string());
                }
            }
            save(table, txn, context).await
        }
        other => Err(unsupported(format!("ALTER TABLE {other}"))),
    }
}

fn place_of(table: &TableDescriptor, name: &Ident) -> Result<usize, SqlError> {
    table.column_index(&name.value).ok_or_else(|| {
        let message = format!("column \"{}\" of relation \"{}\" does not exist", name.value, table.name);
        fail(SqlState::UNDEFINED_COLUMN, message)
    })
}

pub(super) fn no_constraint(name: &str, table: &str) -> SqlError {
    fail(SqlState::UNDEFINED_OBJECT, format!("constraint \"{name}\" of relation \"{table}\" does not exist"))
}

pub(super) async fn save(
    table: &TableDescriptor,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    change_of(table.oid, txn, context).await?.put_table(table).await
}

async fn add_key(
    spec: &KeySpec,
    table: &mut TableDescriptor,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    if spec.kind == IndexKind::Primary && table.primary_key().is_some() {
        let message = format!("multiple primary keys for table \"{}\" are not allowed", table.name);
        return Err(fail(SqlState::INVALID_TABLE_DEFINITION, message));
    }
    let former = table.clone();
    let mut catalog = change_of(table.oid, txn, context).await?;
    let now = current(catalog.txn, context)?;
    create::add_index(&mut catalog, &now.catalog, table, spec)?;
    let place = table.indexes.len().saturating_sub(1);
    if spec.kind == IndexKind::Primary {
        // The rows move under their new key, so that lookups by it need no second step.
        let storage = catalog.new_storage()?;
        catalog.drop_storage(former.storage).await?;
        table.storage = storage;
        if let Some(primary) = table.indexes.get_mut(place) {
            primary.storage = storage;
            table.row_key = primary.key.iter().map(|part| part.column).collect();
        }
        for position in 0..place {
            let storage = catalog.new_storage()?;
            if let Some(index) = table.indexes.get_mut(position) {
                catalog.drop_storage(index.storage).await?;
                index.storage = storage;
            }
        }
    }
    catalog.put_table(table).await?;
    if spec.kind == IndexKind::Primary {
        rewrite(&former, table, txn, context).await
    } else {
        fill_index(table, place, txn, context).await
    }
}

/// All rows of a table, chunk by chunk, as the transaction sees them now with its own earlier writes.
pub(super) struct Rows {
    rest: Option<(Bytes, Bytes)>,
    layout: RowLayout,
}

impl Rows {
    pub(super) fn of(table: &TableDescriptor) -> Result<Self, SqlError> {
        let (start, end) = keys::storage_range(table.storage);
        Ok(Self { rest: Some((start.into(), end.into())), layout: RowLayout::new(table)? })
    }

    pub(super) fn next(&mut self, txn: &mut Transaction) -> Result<Option<Vec<(Bytes, Row)>>, SqlError> {
        let Some((start, end)) = self.rest.take() else { return Ok(None) };
        // The table is locked, so a newer snapshot has the same rows; an old one would be given up over a long scan.
        txn.renew_snapshot();
        let direction = Direction::Forward;
        let chunk =
            txn.scan(ScanRequest { start, end, direction, max_bytes: 256 << 10, max_rows: CHUNK_ROWS })?;
        self.rest = chunk.rest();
        let rows = chunk
            .iter()
            .map(|(key, value)| Ok((Bytes::copy_from_slice(key), self.layout.decode_all(value)?)));
        Ok(Some(rows.collect::<Result<_, SqlError>>()?))
    }
}

/// A fresh snapshot under the table's lock: what was committed before the lock was granted is in it.
pub(super) fn refresh(txn: &mut Transaction) {
    txn.begin_statement();
    txn.read_newest();
}

fn writer(table: &TableDescriptor, context: &ExecContext<'_>) -> Result<TableWriter, SqlError> {
    let schema =
        context.analyze.catalog.schema(table.schema).map(|schema| schema.name.clone()).unwrap_or_default();
    let rules = Binder::new(context.analyze, &[]).bind_rules(table)?.without_checks();
    TableWriter::new(
        std::sync::Arc::new(table.clone()),
        schema,
        std::sync::Arc::clone(context.database.row_numbers()),
        context.lock_wait,
        &std::sync::Arc::new(rules),
        &context.analyze.authority,
    )
}

/// Writes the entries of an index for all rows.
pub(super) async fn fill_index(
    table: &TableDescriptor,
    place: usize,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    refresh(txn);
    let Some(index) = table.indexes.get(place) else { return Ok(()) };
    let mut all = Rows::of(table)?;
    let writer = writer(table, context)?;
    while let Some(rows) = all.next(txn)? {
        for (key, row) in rows {
            let row_key = key.get(5..).unwrap_or_default();
            let wide = writer.wide(&row)?;
            if !writer.is_in(index, &wide) {
                continue;
            }
            let (entry, exclusive) = rows::entry_key(table, index, &wide, row_key)?;
            txn.lock_row(&entry, RowLock::ForUpdate, LockWait::Forever).await?;
            if exclusive && txn.get_latest(&entry)?.is_some() {
                return Err(not_unique(table, place, &row, context));
            }
            txn.put(entry, Bytes::copy_from_slice(row_key))?;
        }
        txn.flush_if_large().await?;
        context.breathe().await?;
    }
    Ok(())
}

fn not_unique(table: &TableDescriptor, place: usize, row: &[Value], context: &ExecContext<'_>) -> SqlError {
    let name = table.indexes.get(place).map(|index| index.name.clone()).unwrap_or_default();
    let detail = match writer(table, context) {
        Ok(writer) => writer.duplicate(place, row).fields().detail.clone().unwrap_or_default(),
        Err(error) => return error,
    };
    fail(SqlState::UNIQUE_VIOLATION, format!("could not create unique index \"{name}\""))
        .with_detail(detail.replace("already exists.", "is duplicated."))
        .with_table(String::new(), table.name.clone())
        .with_constraint(name)
}

/// Gives a table and its indexes fresh storages.
async fn move_storages(table: &mut TableDescriptor, catalog: &mut CatalogWriter<'_>) -> Result<(), SqlError> {
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
    Ok(())
}

/// Writes all rows of `former` as rows of `table`, whose storages are empty.
async fn rewrite(
    former: &TableDescriptor,
    table: &TableDescriptor,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    rewrite_with(former, table, None, txn, context).await
}

/// What makes a row of a table as it is to be of one as it was.
type Remake<'a> = &'a (dyn Fn(&Transaction, &mut Row) -> Result<(), SqlError> + Sync);

/// As [`rewrite`], with each row made anew.
async fn rewrite_with(
    former: &TableDescriptor,
    table: &TableDescriptor,
    remake: Option<Remake<'_>>,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    refresh(txn);
    let writer = writer(table, context)?;
    let mut all = Rows::of(former)?;
    while let Some(rows) = all.next(txn)? {
        for (_, mut row) in rows {
            if let Some(remake) = remake {
                remake(txn, &mut row)?;
            }
            writer.generate(&mut row, context)?;
            check_not_null(table, &row)?;
            // The writer knows of no CHECK: rows that a NOT VALID one spared are spared here as well.
            if let crate::exec::write::Inserted::Conflict(place, _) =
                writer.insert(txn, &row, context).await?
            {
                return Err(not_unique(table, place, &row, context));
            }
        }
        txn.flush_if_large().await?;
        context.breathe().await?;
    }
    Ok(())
}

fn check_not_null(table: &TableDescriptor, row: &[Value]) -> Result<(), SqlError> {
    match table.columns.iter().zip(row).find(|(column, value)| column.not_null && value.is_null()) {
        Some((column, _)) => {
            let message =
                format!("column \"{}\" of relation \"{}\" contains null values", column.name, table.name);
            Err(fail(SqlState::NOT_NULL_VIOLATION, message)
                .with_table(String::new(), table.name.clone())
                .with_column(column.name.clone()))
        }
        None => Ok(()),
    }
}

/// Asks all rows whether they satisfy NOT NULL of their columns, and some CHECK constraints.
pub(super) async fn check_rows(
    table: &TableDescriptor,
    checks: &[Oid],
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    refresh(txn);
    let checks = check::bound(table, |check| checks.contains(&check.oid), context)?;
    let mut all = Rows::of(table)?;
    while let Some(rows) = all.next(txn)? {
        for (_, row) in &rows {
            check_not_null(table, row)?;
            check::check_row(table, &checks, row, context)?;
        }
        context.breathe().await?;
    }
    Ok(())
}

/// Shows all rows to `ask`, which may refuse one.
pub(super) async fn each_row(
    table: &TableDescriptor,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
    mut ask: impl FnMut(&[Value], &Transaction) -> Result<(), SqlError>,
) -> Result<(), SqlError> {
    refresh(txn);
    let mut all = Rows::of(table)?;
    while let Some(rows) = all.next(txn)? {
        for (_, row) in &rows {
            ask(row, txn)?;
        }
        context.breathe().await?;
    }
    Ok(())
}

async fn add_column(
    column: &sqlparser::ast::ColumnDef,
    table: &mut TableDescriptor,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let now = current(txn, context)?;
    let (mut specs, mut sequences) = (Vec::new(), Vec::new());
    let binder = Binder::new(&now, &[]);
    let former = table.clone();
    let mut checks = Vec::new();
    let mut generated = Vec::new();
    let mut declared = create::Declared {
        keys: &mut specs,
        checks: &mut checks,
        sequences: &mut sequences,
        generated: &mut generated,
    };
    create::add_column(&binder, table, column, &mut declared, context)?;
    let mut computed = None;
    if !sequences.is_empty() {
        let mut catalog = change_of(table.oid, txn, context).await?;
        let now = current(catalog.txn, context)?;
        sequence::create_for_columns(&sequences, table, &now.catalog, &mut catalog, context).await?;
    }
    let now = current(txn, context)?;
    for column in &generated {
        create::generate(table, column, &now, context)?;
    }
    let binder = Binder::new(&now, &[]);
    let Some(added) = table.columns.last_mut() else { return Ok(()) };
    let ty = column_type(added.data_type);
    let domain = binder.bind_domain(added.data_type.oid)?;
    let default = added.default.clone().or_else(|| binder.domain_default(added.data_type));
    if let Some(domain) = domain {
        // Each row that is there is asked whether the value is one of the domain.
        let level = Level::default();
        let bound = match &default {
            Some(default) => {
                binder.bind_expr(&crate::parse::parse_expr(default.as_str())?, &Scope::empty(&level))?
            }
            None => crate::scalar::Expr::constant(Value::Null, ty),
        };
        let bound = binder.coerce_assignment(bound, ty, &added.name)?;
        computed = Some(crate::scalar::Expr::Domain { input: Box::new(bound), domain });
    } else if let Some(default) = &added.default {
        // Rows that are there read the default's value of this moment, which is what PostgreSQL stores for them.
        let level = Level::default();
        let bound = binder.bind_expr(&crate::parse::parse_expr(default.as_str())?, &Scope::empty(&level))?;
        let bound = binder.coerce_assignment(bound, ty, &added.name)?;
        if bound.is_volatile() {
            computed = Some(bound);
        } else {
            let value = bound.eval(&[], &context.eval(&[]))?;
            added.missing = (!value.is_null()).then(|| crate::exec::text::print(&value, ty));
        }
    }
    drop(binder);
    if !generated.is_empty() {
        let mut catalog = change_of(table.oid, txn, context).await?;
        move_storages(table, &mut catalog).await?;
        catalog.put_table(table).await?;
        let remake = |_: &Transaction, row: &mut Row| {
            row.push(Value::Null);
            Ok(())
        };
        rewrite_with(&former, table, Some(&remake), txn, context).await?;
    } else if let Some(default) = computed {
        // Each row has a value of its own: all are written anew.
        let mut catalog = change_of(table.oid, txn, context).await?;
        move_storages(table, &mut catalog).await?;
        catalog.put_table(table).await?;
        let value = |txn: &Transaction, row: &mut Row| {
            row.push(evaluated(&default, &[], &now, txn, context)?);
            Ok(())
        };
        rewrite_with(&former, table, Some(&value), txn, context).await?;
    } else {
        save(table, txn, context).await?;
    }
    if table.columns.last().is_some_and(|column| column.not_null && column.missing.is_none()) {
        check_rows(table, &[], txn, context).await?;
    }
    if !checks.is_empty() {
        check::add_to_table(&checks, table, txn, context).await?;
    }
    for spec in &specs {
        add_key(spec, table, txn, context).await?;
    }
    let foreign_keys = create::foreign_keys_of(column)?;
    if foreign_keys.is_empty() {
        return Ok(());
    }
    foreign::add_to_table(&foreign_keys, table, txn, context).await
}

/// Drops a column of a table, and what depends on it.
pub(super) async fn drop_column_of(
    table: Oid,
    name: &str,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    txn.lock_table(
        rustydb_txn::TableLockId::new(table.get()),
        TableLockMode::AccessExclusive,
        context.lock_wait,
    )
    .await?;
    let now = current(txn, context)?;
    let Some(mut table) = now.catalog.table(table).map(|table| table.as_ref().clone()) else { return Ok(()) };
    drop_column(&Ident::new(name), true, true, &mut table, txn, context).await
}

async fn drop_column(
    name: &Ident,
    if_exists: bool,
    cascade: bool,
    table: &mut TableDescriptor,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    if if_exists && table.column_index(&name.value).is_none() {
        let message = format!("column \"{}\" of relation \"{}\" does not exist", name.value, table.name);
        skipped(SqlState::SUCCESSFUL_COMPLETION, message, context);
        return Ok(());
    }
    let place = place_of(table, name)?;
    let Some(id) = table.columns.get(place).map(|column| column.id) else { return Ok(()) };
    let what = format!("column {} of table {}", name.value, table.name);
    view::drop_dependents((table.oid, Some(id.get())), &what, &[], cascade, txn, context).await?;
    drop_generated(table, (&name.value, id), cascade, txn, context).await?;
    foreign::drop_dependents(table, Dropped::Column(&name.value, id), cascade, txn, context).await?;
    reread(table, txn, context)?;
    let place = place_of(table, name)?;
    if table.row_key.contains(&id) {
        drop_row_key(table, txn, context).await?;
    }
    let mut catalog = change_of(table.oid, txn, context).await?;
    let uses = |computed: &ComputedDescriptor| computed.columns.contains(&id);
    let computed: Vec<ColumnId> =
        table.computed.iter().filter(|computed| uses(computed)).map(|computed| computed.id).collect();
    drop_indexes(&mut catalog, table, |index| {
        index.key.iter().any(|part| part.column == id)
            || index.include.contains(&id)
            || index.computed().any(|part| computed.contains(&part))
    })
    .await?;
    table.columns.remove(place);
    table.checks.retain(|check| !check.columns.contains(&id));
    table.foreign_keys.retain(|key| !key.columns.contains(&id));
    catalog.put_table(table).await?;
    sequence::drop_owned(table, Some(id), cascade, &mut catalog, context).await?;
    // Another column may have taken its values from there.
    if let Some(now) = current(catalog.txn, context)?.catalog.table(table.oid) {
        table.clone_from(now);
    }
    Ok(())
}

/// Takes what another change has made of the table's descriptor.
fn reread(
    table: &mut TableDescriptor,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    if let Some(now) = current(txn, context)?.catalog.table(table.oid) {
        table.clone_from(now);
    }
    Ok(())
}

pub(super) async fn drop_indexes(
    catalog: &mut CatalogWriter<'_>,
    table: &mut TableDescriptor,
    dropped: impl Fn(&crate::catalog::IndexDescriptor) -> bool,
) -> Result<(), SqlError> {
    let mut kept = Vec::with_capacity(table.indexes.len());
    for index in std::mem::take(&mut table.indexes) {
        if !dropped(&index) {
            kept.push(index);
        } else if index.storage != table.storage {
            catalog.drop_storage(index.storage).await?;
        }
    }
    table.indexes = kept;
    table.forget_computed();
    Ok(())
}

/// Moves the rows from under their primary key to hidden row numbers, and drops the key.
async fn drop_row_key(
    table: &mut TableDescriptor,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let former = table.clone();
    let mut catalog = change_of(table.oid, txn, context).await?;
    table.indexes.retain(|index| index.storage != former.storage);
    table.row_key = Vec::<ColumnId>::new();
    table.storage = catalog.new_storage()?;
    catalog.drop_storage(former.storage).await?;
    for index in &mut table.indexes {
        let storage = catalog.new_storage()?;
        catalog.drop_storage(index.storage).await?;
        index.storage = storage;
    }
    catalog.put_table(table).await?;
    rewrite(&former, table, txn, context).await
}

async fn drop_constraint(
    name: &str,
    if_exists: bool,
    cascade: bool,
    table: &mut TableDescriptor,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    if let Some(place) = table.checks.iter().position(|check| check.name == name) {
        table.checks.remove(place);
        return save(table, txn, context).await;
    }
    if let Some(place) = table.foreign_keys.iter().position(|key| key.name == name) {
        table.foreign_keys.remove(place);
        return save(table, txn, context).await;
    }
    let found = table.indexes.iter().find(|index| index.constraint.is_some() && index.name == name);
    let Some(index) = found else {
        let error = no_constraint(name, &table.name);
        if !if_exists {
            return Err(error);
        }
        skipped(SqlState::SUCCESSFUL_COMPLETION, error.message(), context);
        return Ok(());
    };
    let index = index.clone();
    foreign::drop_dependents(table, Dropped::Index(&index), cascade, txn, context).await?;
    reread(table, txn, context)?;
    if table.is_row_key(&index) {
        return drop_row_key(table, txn, context).await;
    }
    let oid = index.oid;
    let mut catalog = change_of(table.oid, txn, context).await?;
    drop_indexes(&mut catalog, table, |index| index.oid == oid).await?;
    catalog.put_table(table).await
}

async fn alter_column(
    name: &Ident,
    operation: &AlterColumnOperation,
    table: &mut TableDescriptor,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let place = place_of(table, name)?;
    let in_primary = |table: &TableDescriptor| {
        let id = table.columns.get(place).map(|column| column.id);
        table.primary_key().is_some_and(|key| key.key.iter().any(|part| Some(part.column) == id))
    };
    let now = current(txn, context)?;
    let binder = Binder::new(&now, &[]);
    let mut check = false;
    match operation {
        AlterColumnOperation::SetNotNull => {
            check = true;
            if let Some(column) = table.columns.get_mut(place) {
                column.not_null = true;
            }
        }
        AlterColumnOperation::DropNotNull
            if table.columns.get(place).is_some_and(|column| column.identity.is_some()) =>
        {
            let message =
                format!("column \"{}\" of relation \"{}\" is an identity column", name.value, table.name);
            return Err(fail(SqlState::SYNTAX_ERROR, message));
        }
        AlterColumnOperation::SetDefault { .. } | AlterColumnOperation::DropDefault
            if table.columns.get(place).is_some_and(|column| column.generated.is_some()) =>
        {
            let message =
                format!("column \"{}\" of relation \"{}\" is a generated column", name.value, table.name);
            let error = fail(SqlState::SYNTAX_ERROR, message);
            return Err(match operation {
                AlterColumnOperation::DropDefault => {
                    error.with_hint("Use ALTER TABLE ... ALTER COLUMN ... DROP EXPRESSION instead.")
                }
                _ => error,
            });
        }
        AlterColumnOperation::SetDefault { .. } | AlterColumnOperation::DropDefault
            if table.columns.get(place).is_some_and(|column| column.identity.is_some()) =>
        {
            let message =
                format!("column \"{}\" of relation \"{}\" is an identity column", name.value, table.name);
            return Err(fail(SqlState::SYNTAX_ERROR, message));
        }
        AlterColumnOperation::DropNotNull => {
            if in_primary(table) {
                let message = format!("column \"{}\" is in a primary key", name.value);
                return Err(fail(SqlState::INVALID_TABLE_DEFINITION, message));
            }
            if let Some(column) = table.columns.get_mut(place) {
                column.not_null = false;
            }
        }
        AlterColumnOperation::SetDefault { value } => {
            if let Some(column) = table.columns.get_mut(place) {
                column.default = create::check_default(&binder, value, column, context)?;
            }
        }
        AlterColumnOperation::DropDefault => {
            if let Some(column) = table.columns.get_mut(place) {
                column.default = None;
            }
        }
        AlterColumnOperation::SetDataType { data_type, using, .. } => {
            drop(binder);
            return set_type(place, data_type, using.as_ref(), table, txn, context).await;
        }
        other => return Err(unsupported(format!("ALTER COLUMN {other}"))),
    }
    drop(binder);
    if matches!(operation, AlterColumnOperation::SetDefault { .. })
        && let Some(default) = table.columns.get(place).and_then(|column| column.default.clone())
    {
        sequence::hold_named(&default, txn, context).await?;
    }
    save(table, txn, context).await?;
    if check { check_rows(table, &[], txn, context).await } else { Ok(()) }
}

/// The generated columns that are computed from a column.
fn generated_from(table: &TableDescriptor, name: &str) -> Result<Vec<ColumnDescriptor>, SqlError> {
    let place = table.column_index(name);
    let binder_context = kept::nowhere(&table.types);
    let binder = Binder::new(&binder_context, &[]);
    let mut found = Vec::new();
    for column in &table.columns {
        let Some(generated) = &column.generated else { continue };
        let mut uses = false;
        binder.bind_generated(generated, column, table)?.visit(&mut |part| {
            uses |= matches!(part, crate::scalar::Expr::Column { index, .. } if Some(*index) == place);
        });
        if uses {
            found.push(column.clone());
        }
    }
    Ok(found)
}

/// Drops the generated columns that are computed from one that goes, or refuses that it goes.
async fn drop_generated(
    table: &mut TableDescriptor,
    (name, _): (&str, ColumnId),
    cascade: bool,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let dependent = generated_from(table, name)?;
    if dependent.is_empty() {
        return Ok(());
    }
    let (what, own) = (format!("column {name} of table {}", table.name), table.name.clone());
    if !cascade {
        let message = format!("cannot drop {what} because other objects depend on it");
        let details: Vec<String> = dependent
            .iter()
            .map(|column| format!("column {} of table {own} depends on {what}", column.name))
            .collect();
        return Err(fail(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message)
            .with_detail(details.join("\n"))
            .with_hint("Use DROP ... CASCADE to drop the dependent objects too."));
    }
    for column in dependent {
        let message = format!("drop cascades to column {} of table {own}", column.name);
        let notice = fail(SqlState::SUCCESSFUL_COMPLETION, message);
        context.session.notice(notice.with_severity(crate::error::Severity::Notice));
        // One that is generated has none that is computed from it, so this ends.
        Box::pin(drop_column(&Ident::new(column.name), false, true, table, txn, context)).await?;
    }
    Ok(())
}

/// ALTER COLUMN TYPE. Where the stored bytes stay as they are, only the catalog changes; else all rows are written anew.
async fn set_type(
    place: usize,
    data_type: &sqlparser::ast::DataType,
    using: Option<&sqlparser::ast::Expr>,
    table: &mut TableDescriptor,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let now = current(txn, context)?;
    let binder = Binder::new(&now, &[]);
    let declared = binder.declared_type(data_type)?;
    binder.require_type(declared)?;
    let target = declared.data_type();
    let former = table.clone();
    let Some(column) = former.columns.get(place) else { return Ok(()) };
    if !target.base.is_storable() {
        let message = format!("column \"{}\" has pseudo-type {target}", column.name);
        return Err(fail(SqlState::INVALID_TABLE_DEFINITION, message));
    }
    view::refuse_retyped(table.oid, (&column.name, column.id.get()), &now)?;
    if let Some(user) = generated_from(table, &column.name)?.first() {
        let message = "cannot alter type of a column used by a generated column";
        return Err(fail(SqlState::FEATURE_NOT_SUPPORTED, message).with_detail(format!(
            "Column \"{}\" is used by generated column \"{}\".",
            column.name, user.name
        )));
    }
    let is_referred = |key: &crate::catalog::ForeignKeyDescriptor| key.referenced.contains(&column.id);
    let in_foreign_key = former.foreign_keys.iter().any(|key| key.columns.contains(&column.id))
        || now.catalog.referencing(table.oid).any(|(_, key)| is_referred(key));
    let present = column_type(column.data_type);
    if in_foreign_key && present.base != target.base {
        let message = format!(
            "changing the type of column \"{}\", which is part of a foreign key, from {present} to {target}",
            column.name
        );
        return Err(
            unsupported(message).with_hint("Drop the foreign key, change both columns, and add it again.")
        );
    }
    let value = binder.as_domain(new_value(&binder, (&former, column), place, target, using)?, declared)?;
    if column.generated.is_some() && using.is_some() {
        let message = "cannot specify USING when altering type of generated column";
        return Err(fail(SqlState::INVALID_TABLE_DEFINITION, message)
            .with_detail(format!("Column \"{}\" is a generated column.", column.name)));
    }
    let stays = using.is_none()
        && crate::scalar::cast::keeps_bytes(present, target)
        && (!declared.is_domain() || declared.oid == column.data_type.oid);
    let Some(changed) = table.columns.get_mut(place) else { return Ok(()) };
    changed.data_type = declared;
    if !stays {
        changed.missing = None;
    }
    if changed.identity.is_some() && !matches!(target.base.type_len(), 2 | 4 | 8) {
        let message = "identity column type must be smallint, integer, or bigint";
        return Err(fail(SqlState::INVALID_PARAMETER_VALUE, message));
    }
    if let Some(default) = changed.default.clone().filter(|_| changed.identity.is_none()) {
        let parsed = crate::parse::parse_expr(default.as_str())?;
        changed.default = kept::keep_default(&now, &parsed, changed, &context.eval(&[]))
            .map_err(|_| uncastable(&format!("default for column \"{}\"", column.name), target))?;
    }
    check::retype_columns(table)?;
    let same = table.clone();
    kept::rename_computed(&same, table)?;
    for place in 0..table.computed.len() {
        let bound = Binder::new(&now, &[]).bind_computed(table)?;
        if let (Some(computed), Some(bound)) = (table.computed.get_mut(place), bound.get(place)) {
            computed.data_type = bound.ty().into();
        }
    }
    for index in &table.indexes {
        let is_key = index.key.iter().any(|part| part.column == column.id);
        if is_key && !target.base.is_comparable() {
            let message = format!(
                "data type {} has no default operator class for access method \"btree\"",
                target.base
            );
            return Err(fail(SqlState::UNDEFINED_OBJECT, message));
        }
    }
    drop(binder);
    // Over another type a condition may mean something else.
    let uses = |check: &&CheckDescriptor| check.validated && check.columns.contains(&column.id);
    let asked: Vec<Oid> = table.checks.iter().filter(uses).map(|check| check.oid).collect();
    if stays {
        save(table, txn, context).await?;
    } else {
        let mut catalog = change_of(table.oid, txn, context).await?;
        move_storages(table, &mut catalog).await?;
        catalog.put_table(table).await?;
        let remake = |txn: &Transaction, row: &mut Row| {
            let value = evaluated(&value, row, &now, txn, context)?;
            if let Some(slot) = row.get_mut(place) {
                *slot = value;
            }
            Ok(())
        };
        rewrite_with(&former, table, Some(&remake), txn, context).await?;
    }
    if asked.is_empty() { Ok(()) } else { check_rows(table, &asked, txn, context).await }
}

/// The value of an expression over a row that is written anew.
fn evaluated(
    expr: &crate::scalar::Expr,
    row: &[Value],
    now: &crate::bind::AnalyzeContext,
    txn: &Transaction,
    context: &ExecContext<'_>,
) -> Result<Value, SqlError> {
    let lookup = crate::pgcatalog::lookup::SystemLookup {
        context: crate::catalog::virtual_table::VirtualContext {
            catalog: &now.catalog,
            ..context.virtuals()
        },
        search_path: &now.search_path,
        authority: Some(&now.authority),
    };
    expr.eval(row, &EvalContext { txn: Some(txn), catalog: &lookup, ..context.eval(&[]) })
}

/// What ALTER COLUMN TYPE computes the new value of a row from.
fn new_value(
    binder: &Binder<'_>,
    (former, column): (&TableDescriptor, &ColumnDescriptor),
    place: usize,
    target: rustydb_types::datatype::DataType,
    using: Option<&sqlparser::ast::Expr>,
) -> Result<crate::scalar::Expr, SqlError> {
    let level = Level::default();
    let scope = Scope { columns: crate::bind::from::table_columns(former, &former.name, 0), level: &level };
    let value = match using {
        Some(using) => binder.bind_expr(using, &scope)?,
        None => crate::scalar::Expr::Column { index: place, ty: column_type(column.data_type) },
    };
    binder.coerce_assignment(value, target, &column.name).map_err(|_| {
        if using.is_some() {
            let message = format!(
                "result of USING clause for column \"{}\" cannot be cast automatically to type {}",
                column.name,
                target.without_modifier()
            );
            fail(SqlState::DATATYPE_MISMATCH, message).with_hint("You might need to add an explicit cast.")
        } else {
            uncastable(&format!("column \"{}\"", column.name), target)
                .with_hint(format!("You might need to specify \"USING {}::{target}\".", column.name))
        }
    })
}

fn uncastable(what: &str, target: rustydb_types::datatype::DataType) -> SqlError {
    let message = format!("{what} cannot be cast automatically to type {}", target.without_modifier());
    fail(SqlState::DATATYPE_MISMATCH, message)
}
