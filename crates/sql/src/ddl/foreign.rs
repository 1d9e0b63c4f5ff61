//! FOREIGN KEY constraints: their definition, the rows that are there already, and what depends on them.

use std::sync::Arc;

use rustydb_txn::{TableLockId, TableLockMode, Transaction};
use rustydb_types::datatype::DataType;
use rustydb_types::ids::{ColumnId, Oid};
use rustydb_types::value::Value;
use sqlparser::ast::{
    ConstraintReferenceMatchKind, DeferrableInitial, ForeignKeyConstraint, Ident, ObjectName,
    ReferentialAction as Written, TableConstraint,
};

use super::{alter, change_of, check, current, lock_table};
use crate::bind::errors::{fail, syntax, unsupported};
use crate::bind::from::{column_type, last_ident};
use crate::bind::{AnalyzeContext, Binder};
use crate::catalog::store::CatalogWriter;
use crate::catalog::{
    CatalogSnapshot, ForeignKeyDescriptor, IndexDescriptor, ReferentialAction, TableDescriptor,
};
use crate::error::{Severity, SqlError, SqlState};
use crate::exec::ExecContext;
use crate::scalar::{CastContext, Expr, coerce};

/// Most columns of a foreign key.
const COLUMN_COUNT_MAX: usize = 32;

/// A foreign key that is to be created.
#[derive(Clone, Debug)]
pub(super) struct ForeignKeySpec {
    name: Option<String>,
    columns: Vec<Ident>,
    table: ObjectName,
    referenced: Vec<Ident>,
    on_delete: ReferentialAction,
    on_update: ReferentialAction,
    is_full: bool,
    deferrable: Option<bool>,
    /// NOT VALID: the rows that are there are not looked at.
    pub not_valid: bool,
}

fn action(written: Option<Written>) -> ReferentialAction {
    match written {
        None | Some(Written::NoAction) => ReferentialAction::NoAction,
        Some(Written::Restrict) => ReferentialAction::Restrict,
        Some(Written::Cascade) => ReferentialAction::Cascade,
        Some(Written::SetNull) => ReferentialAction::SetNull,
        Some(Written::SetDefault) => ReferentialAction::SetDefault,
    }
}

impl ForeignKeySpec {
    /// The constraint as it is written behind a column, or among the columns.
    pub(super) fn new(
        name: Option<&Ident>,
        column: Option<&Ident>,
        written: &ForeignKeyConstraint,
    ) -> Result<Self, SqlError> {
        let is_full = match written.match_kind {
            None | Some(ConstraintReferenceMatchKind::Simple) => false,
            Some(ConstraintReferenceMatchKind::Full) => true,
            Some(ConstraintReferenceMatchKind::Partial) => {
                return Err(unsupported("MATCH PARTIAL"));
            }
        };
        let mut deferrable = None;
        if let Some(asked) = &written.characteristics {
            if asked.enforced.is_some() {
                return Err(syntax("syntax error at or near \"ENFORCED\""));
            }
            let is_deferred = asked.initially == Some(DeferrableInitial::Deferred);
            deferrable = match (asked.deferrable, is_deferred) {
                (Some(false), true) => {
                    let message = "constraint declared INITIALLY DEFERRED must be DEFERRABLE";
                    return Err(fail(SqlState::SYNTAX_ERROR, message));
                }
                (Some(true), _) | (None, true) => Some(is_deferred),
                (Some(false) | None, false) => None,
            };
        }
        Ok(Self {
            name: name.or(written.name.as_ref()).map(|name| name.value.clone()),
            columns: column.map_or_else(|| written.columns.clone(), |column| vec![column.clone()]),
            table: written.foreign_table.clone(),
            referenced: written.referred_columns.clone(),
            on_delete: action(written.on_delete),
            on_update: action(written.on_update),
            is_full,
            deferrable,
            not_valid: false,
        })
    }

    /// The foreign key that a table constraint is, if it is one.
    pub(super) fn of_constraint(constraint: &TableConstraint) -> Result<Option<Self>, SqlError> {
        match constraint {
            TableConstraint::ForeignKey(key) => Self::new(None, None, key).map(Some),
            _ => Ok(None),
        }
    }
}

/// Locks the tables that foreign keys of a table refer to, so that neither their rows nor they themselves change until
/// the constraints stand. `own` is the name of a table that is being created; a key may refer to it.
pub(super) async fn lock_referenced(
    specs: &[ForeignKeySpec],
    own: Option<&ObjectName>,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    for spec in specs {
        if own.is_some_and(|own| is_own(own, &spec.table)) {
            continue;
        }
        let now = current(txn, context)?;
        Binder::new(&now, &[]).table(&spec.table).map_err(|error| {
            if error.state() == SqlState::WRONG_OBJECT_TYPE {
                let name = last_ident(&spec.table).map(|name| name.value).unwrap_or_default();
                fail(SqlState::WRONG_OBJECT_TYPE, format!("referenced relation \"{name}\" is not a table"))
            } else {
                error
            }
        })?;
        lock_table(
            &spec.table,
            false,
            (TableLockMode::ShareRowExclusive, super::Demand::References(&spec.referenced)),
            txn,
            context,
        )
        .await?;
    }
    Ok(())
}

/// Whether a name means the table that is being created under another.
fn is_own(own: &ObjectName, name: &ObjectName) -> bool {
    let (own, name) = (own.0.as_slice(), name.0.as_slice());
    let is_same = |a: &[_], b: &[_]| {
        let values = |part: &sqlparser::ast::ObjectNamePart| part.as_ident().map(|ident| ident.value.clone());
        a.iter().map(values).collect::<Vec<_>>() == b.iter().map(values).collect::<Vec<_>>()
    };
    match (own, name) {
        ([.., own], [name]) => is_same(std::slice::from_ref(own), std::slice::from_ref(name)),
        _ => is_same(own, name),
    }
}

/// Places of columns that a foreign key names.
fn named(table: &TableDescriptor, names: &[Ident]) -> Result<Vec<ColumnId>, SqlError> {
    if names.len() > COLUMN_COUNT_MAX {
        let message = format!("cannot have more than {COLUMN_COUNT_MAX} keys in a foreign key");
        return Err(fail(SqlState::TOO_MANY_COLUMNS, message));
    }
    names
        .iter()
        .map(|name| {
            let column = table.columns.iter().find(|column| column.name == name.value);
            column.map(|column| column.id).ok_or_else(|| {
                let message =
                    format!("column \"{}\" referenced in foreign key constraint does not exist", name.value);
                fail(SqlState::UNDEFINED_COLUMN, message)
            })
        })
        .collect()
}

/// The unique index that a foreign key refers to, and the columns of it that are meant.
fn target<'t>(
    spec: &ForeignKeySpec,
    parent: &'t TableDescriptor,
) -> Result<(&'t IndexDescriptor, Vec<ColumnId>), SqlError> {
    let name = &parent.name;
    if spec.referenced.is_empty() {
        let Some(primary) = parent.primary_key() else {
            let message = format!("there is no primary key for referenced table \"{name}\"");
            return Err(fail(SqlState::UNDEFINED_OBJECT, message));
        };
        return Ok((primary, primary.key.iter().map(|part| part.column).collect()));
    }
    let columns = named(parent, &spec.referenced)?;
    if columns.iter().enumerate().any(|(place, column)| columns.iter().skip(place + 1).any(|c| c == column)) {
        let message = "foreign key referenced-columns list must not contain duplicates";
        return Err(fail(SqlState::INVALID_FOREIGN_KEY, message));
    }
    let fits = |index: &&IndexDescriptor| {
        index.is_unique()
            && index.predicate.is_none()
            && index.key.len() == columns.len()
            && index.key.iter().all(|part| columns.contains(&part.column))
    };
    match parent.indexes.iter().find(fits) {
        Some(index) => Ok((index, columns)),
        None => {
            let message =
                format!("there is no unique constraint matching given keys for referenced table \"{name}\"");
            Err(fail(SqlState::INVALID_FOREIGN_KEY, message))
        }
    }
}

/// Refuses a foreign key over columns of types that cannot be compared by the index of the other table.
fn check_types(
    name: &str,
    (child, columns): (&TableDescriptor, &[ColumnId]),
    (parent, referenced): (&TableDescriptor, &[ColumnId]),
) -> Result<(), SqlError> {
    for (own, other) in columns.iter().zip(referenced) {
        let column = |table: &TableDescriptor, id: ColumnId| {
            let column = table.columns.get(table.column_index_of(id)?)?;
            Some((column.name.clone(), column_type(column.data_type)))
        };
        let (Some((own, from)), Some((other, to))) = (column(child, *own), column(parent, *other)) else {
            continue;
        };
        let plain = |ty: DataType| DataType::from(ty.base);
        let value = Expr::Const { value: Value::Null, ty: plain(from) };
        let can_compare = crate::bind::references::is_symmetric(from, to)
            || (!from.is_unknown() && coerce(value, plain(to), CastContext::Implicit).is_ok());
        if !can_compare {
            let message = format!("foreign key constraint \"{name}\" cannot be implemented");
            return Err(fail(SqlState::DATATYPE_MISMATCH, message).with_detail(format!(
                "Key columns \"{own}\" and \"{other}\" are of incompatible types: {} and {}.",
                plain(from),
                plain(to)
            )));
        }
    }
    Ok(())
}

/// 42601 for an action that would write to a generated column.
fn refuse_generated(
    table: &TableDescriptor,
    columns: &[ColumnId],
    spec: &ForeignKeySpec,
) -> Result<(), SqlError> {
    let is_generated = |id: &ColumnId| {
        let place = table.column_index_of(*id);
        place.and_then(|place| table.columns.get(place)).is_some_and(|column| column.generated.is_some())
    };
    if !columns.iter().any(is_generated) {
        return Ok(());
    }
    use ReferentialAction::{Cascade, SetDefault, SetNull};
    let event = match (spec.on_update, spec.on_delete) {
        (Cascade | SetNull | SetDefault, _) => "UPDATE",
        (_, SetNull | SetDefault) => "DELETE",
        _ => return Ok(()),
    };
    let message = format!("invalid ON {event} action for foreign key constraint containing generated column");
    Err(fail(SqlState::SYNTAX_ERROR, message))
}

/// Adds constraints to a table's descriptor. The tables that they refer to are locked.
pub(super) fn add(
    catalog: &mut CatalogWriter<'_>,
    now: &AnalyzeContext,
    table: &mut TableDescriptor,
    (specs, own): (&[ForeignKeySpec], Option<&ObjectName>),
) -> Result<(), SqlError> {
    for spec in specs {
        let columns = named(table, &spec.columns)?;
        refuse_generated(table, &columns, spec)?;
        let found;
        let parent = if own.is_some_and(|own| is_own(own, &spec.table)) {
            &*table
        } else {
            found = Binder::new(now, &[]).table(&spec.table)?;
            // Its own descriptor may have changed in this very statement.
            if found.oid == table.oid { &*table } else { &*found }
        };
        let (index, referenced) = target(spec, parent)?;
        let (index, parent_oid) = (index.oid, parent.oid);
        super::temporary::refuse_mixed(table.oid, parent_oid)?;
        if columns.len() != referenced.len() {
            let message = "number of referencing and referenced columns for foreign key disagree";
            return Err(fail(SqlState::INVALID_FOREIGN_KEY, message));
        }
        let name = match &spec.name {
            Some(name) if check::has_constraint(table, name) => {
                return Err(check::constraint_exists(name, &table.name));
            }
            Some(name) => name.clone(),
            None => {
                let names: Vec<&str> = spec.columns.iter().map(|name| name.value.as_str()).collect();
                check::free_name(&now.catalog, table, Some(&names.join("_")), "fkey")
            }
        };
        check_types(&name, (table, &columns), (parent, &referenced))?;
        let oid: Oid = catalog.new_oid()?;
        table.foreign_keys.push(ForeignKeyDescriptor {
            oid,
            name,
            columns,
            table: parent_oid,
            referenced,
            index,
            is_full: spec.is_full,
            on_delete: spec.on_delete,
            on_update: spec.on_update,
            deferrable: spec.deferrable,
            validated: !spec.not_valid,
        });
    }
    Ok(())
}

/// ADD CONSTRAINT of foreign keys, which the rows that are there are asked of unless it is NOT VALID.
pub(super) async fn add_to_table(
    specs: &[ForeignKeySpec],
    table: &mut TableDescriptor,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    lock_referenced(specs, None, txn, context).await?;
    let before = table.foreign_keys.len();
    let mut catalog = change_of(table.oid, txn, context).await?;
    let now = current(catalog.txn, context)?;
    add(&mut catalog, &now, table, (specs, None))?;
    catalog.put_table(table).await?;
    let asked: Vec<Oid> =
        table.foreign_keys.iter().skip(before).filter(|key| key.validated).map(|key| key.oid).collect();
    ask(table, &asked, txn, context).await
}

/// VALIDATE CONSTRAINT of a foreign key; false when the table has none of this name.
pub(super) async fn validate(
    name: &str,
    table: &mut TableDescriptor,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<bool, SqlError> {
    let Some(key) = table.foreign_keys.iter_mut().find(|key| key.name == name) else { return Ok(false) };
    if key.validated {
        return Ok(true);
    }
    key.validated = true;
    let (parent, asked) = (key.table, [key.oid]);
    let lock = TableLockId::new(parent.get());
    txn.lock_table(lock, TableLockMode::ShareRowExclusive, context.lock_wait).await?;
    alter::save(table, txn, context).await?;
    ask(table, &asked, txn, context).await?;
    Ok(true)
}

/// Asks all rows whether the keys that they refer to are there.
async fn ask(
    table: &TableDescriptor,
    asked: &[Oid],
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    if asked.is_empty() {
        return Ok(());
    }
    let now = current(txn, context)?;
    let references =
        Binder::new(&now, &[]).references_of_insert(&Arc::new(table.clone()))?.unwrap_or_default();
    let links: Vec<_> = references.links.iter().filter(|link| asked.contains(&link.key.oid)).collect();
    alter::each_row(table, txn, context, |row, txn| {
        links.iter().try_for_each(|link| crate::exec::reference::check_row(link, row, txn, context))
    })
    .await
}

/// RENAME CONSTRAINT of a foreign key; false when the table has none of this name.
pub(super) async fn rename(
    old: &str,
    new: &str,
    table: &mut TableDescriptor,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<bool, SqlError> {
    if !table.foreign_keys.iter().any(|key| key.name == old) {
        return Ok(false);
    }
    if check::has_constraint(table, new) {
        return Err(check::constraint_exists(new, &table.name));
    }
    for key in table.foreign_keys.iter_mut().filter(|key| key.name == old) {
        new.clone_into(&mut key.name);
    }
    alter::save(table, txn, context).await?;
    Ok(true)
}

/// The foreign keys of other tables that depend on a part of a table: the tables that have them, and their names.
fn dependents(
    now: &CatalogSnapshot,
    table: Oid,
    depends: &dyn Fn(&ForeignKeyDescriptor) -> bool,
) -> Vec<(Arc<TableDescriptor>, ForeignKeyDescriptor)> {
    let all = now.referencing(table).filter(|(_, key)| depends(key));
    all.map(|(child, key)| (Arc::clone(child), key.clone())).collect()
}

/// What is to be dropped of a table.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dropped<'a> {
    /// All of it, with other tables.
    Table(&'a [Oid]),
    /// A column.
    Column(&'a str, ColumnId),
    /// An index, and whether it is one of a constraint.
    Index(&'a IndexDescriptor),
}

/// Drops the foreign keys that depend on a part of a table which is about to be dropped, or refuses without CASCADE.
pub(super) async fn drop_dependents(
    table: &TableDescriptor,
    dropped: Dropped<'_>,
    cascade: bool,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let depends = |key: &ForeignKeyDescriptor| match dropped {
        Dropped::Table(_) => true,
        Dropped::Column(_, column) => key.referenced.contains(&column),
        Dropped::Index(index) => key.index == index.oid,
    };
    let goes_too = |child: Oid| match dropped {
        Dropped::Table(tables) => tables.contains(&child),
        _ => false,
    };
    let now = current(txn, context)?;
    let mut found = dependents(&now.catalog, table.oid, &depends);
    found.retain(|(child, key)| {
        // A column takes its own table's foreign keys over it along.
        let own = matches!(dropped, Dropped::Column(_, column)
            if child.oid == table.oid && key.columns.contains(&column));
        !goes_too(child.oid) && !own
    });
    if found.is_empty() {
        return Ok(());
    }
    let (what, on) = match dropped {
        Dropped::Table(_) => (format!("table {}", table.name), format!("table {}", table.name)),
        Dropped::Column(name, _) => {
            let what = format!("column {name} of table {}", table.name);
            (what.clone(), what)
        }
        Dropped::Index(index) if index.constraint.is_some() => {
            (format!("constraint {} on table {}", index.name, table.name), format!("index {}", index.name))
        }
        Dropped::Index(index) => (format!("index {}", index.name), format!("index {}", index.name)),
    };
    if !cascade {
        let detail: Vec<String> = found
            .iter()
            .map(|(child, key)| format!("constraint {} on table {} depends on {on}", key.name, child.name))
            .collect();
        let message = format!("cannot drop {what} because other objects depend on it");
        return Err(fail(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message)
            .with_detail(detail.join("\n"))
            .with_hint("Use DROP ... CASCADE to drop the dependent objects too."));
    }
    for (child, key) in &found {
        if child.oid != table.oid {
            let lock = TableLockId::new(child.oid.get());
            txn.lock_table(lock, TableLockMode::AccessExclusive, context.lock_wait).await?;
        }
        let mut catalog = change_of(child.oid, txn, context).await?;
        let now = current(catalog.txn, context)?;
        let Some(child) = now.catalog.table(child.oid) else { continue };
        let mut child = child.as_ref().clone();
        child.foreign_keys.retain(|other| other.oid != key.oid);
        catalog.put_table(&child).await?;
    }
    let describe = |(child, key): &(Arc<TableDescriptor>, ForeignKeyDescriptor)| {
        format!("constraint {} on table {}", key.name, child.name)
    };
    let notice = match found.as_slice() {
        [only] => {
            SqlError::new(SqlState::SUCCESSFUL_COMPLETION, format!("drop cascades to {}", describe(only)))
        }
        all => {
            let each: Vec<String> =
                all.iter().map(|one| format!("drop cascades to {}", describe(one))).collect();
            let message = format!("drop cascades to {} other objects", all.len());
            SqlError::new(SqlState::SUCCESSFUL_COMPLETION, message).with_detail(each.join("\n"))
        }
    };
    context.session.notice(notice.with_severity(Severity::Notice));
    Ok(())
}

/// The constraints that SET CONSTRAINTS names: those of the first schema in which there are some of the name.
///
/// # Errors
/// 42704 when there is none of a name, 42809 when it is to be deferred and cannot be, 3F000 for a schema that is not there.
pub(crate) fn deferrable(
    context: &AnalyzeContext,
    names: &[(Option<String>, String)],
    is_deferred: bool,
) -> Result<Vec<Oid>, SqlError> {
    let catalog = &context.catalog;
    let mut found = Vec::new();
    for (schema, name) in names {
        let schemas: Vec<Oid> = match schema {
            Some(schema) => match catalog.schema_named(schema) {
                Some(schema) => vec![schema.oid],
                None => {
                    let message = format!("schema \"{schema}\" does not exist");
                    return Err(fail(SqlState::INVALID_SCHEMA_NAME, message));
                }
            },
            None => context.path().filter_map(|schema| Some(catalog.schema_named(schema)?.oid)).collect(),
        };
        let of_schema = |schema: &Oid| {
            let tables: Vec<_> = catalog
                .tables()
                .filter(|table| table.schema == *schema && check::has_constraint(table, name))
                .collect();
            (!tables.is_empty()).then_some(tables)
        };
        let Some(tables) = schemas.iter().find_map(of_schema) else {
            return Err(fail(SqlState::UNDEFINED_OBJECT, format!("constraint \"{name}\" does not exist")));
        };
        for table in tables {
            match table.foreign_keys.iter().find(|key| key.name == *name) {
                Some(key) if key.deferrable.is_some() => found.push(key.oid),
                _ if !is_deferred => {}
                _ => {
                    let message = format!("constraint \"{name}\" is not deferrable");
                    return Err(fail(SqlState::WRONG_OBJECT_TYPE, message));
                }
            }
        }
    }
    Ok(found)
}

/// Refuses to change or drop a table of which checks are still to come.
pub(super) fn refuse_pending(
    table: &TableDescriptor,
    what: &str,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    if context.deferred.lock().is_pending(table.oid) {
        let message = format!("cannot {what} \"{}\" because it has pending trigger events", table.name);
        return Err(fail(SqlState::OBJECT_IN_USE, message));
    }
    Ok(())
}

/// The tables that TRUNCATE takes: with CASCADE those that refer to them, too; without it they must be among them.
pub(super) fn truncated(
    now: &CatalogSnapshot,
    mut tables: Vec<Oid>,
    cascade: bool,
) -> Result<Vec<Oid>, SqlError> {
    let mut place = 0;
    while let Some(table) = tables.get(place).copied() {
        place += 1;
        for (child, _) in now.referencing(table) {
            if tables.contains(&child.oid) {
                continue;
            }
            if !cascade {
                let parent = now.table(table).map(|table| table.name.clone()).unwrap_or_default();
                let message = "cannot truncate a table referenced in a foreign key constraint";
                return Err(fail(SqlState::FEATURE_NOT_SUPPORTED, message)
                    .with_detail(format!("Table \"{}\" references \"{parent}\".", child.name))
                    .with_hint(format!(
                        "Truncate table \"{}\" at the same time, or use TRUNCATE ... CASCADE.",
                        child.name
                    )));
            }
            tables.push(child.oid);
        }
    }
    Ok(tables)
}
