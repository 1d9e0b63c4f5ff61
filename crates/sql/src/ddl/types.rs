//! CREATE TYPE ... AS ENUM, CREATE DOMAIN, and what changes and drops them.

use std::sync::Arc;

use rustydb_txn::{TableLockId, TableLockMode, Transaction};
use rustydb_types::datatype::DataType;
use rustydb_types::ids::{ColumnId, Oid};
use rustydb_types::value::Value;
use sqlparser::ast::{
    AlterColumnOperation, AlterTable, AlterTableOperation, AlterType, AlterTypeAddValuePosition,
    AlterTypeOperation, CheckConstraint, CreateDomain, Expr as AstExpr, Ident, ObjectName,
    RenameTableNameKind, TableConstraint, UserDefinedTypeRepresentation,
};

use super::{alter, change, current, not_there, skipped, view};
use crate::bind::context::Relation;
use crate::bind::errors::{fail, syntax, unsupported};
use crate::bind::from::last_ident;
use crate::bind::kept;
use crate::bind::types::{by_number, domain_row};
use crate::bind::{AnalyzeContext, Binder};
use crate::catalog::descriptor::KnownTypes;
use crate::catalog::store::CatalogWriter;
use crate::catalog::temporary;
use crate::catalog::types::{DomainCheck, EnumLabel, position_at, spread};
use crate::catalog::{ColumnDescriptor, StoredExpr, TableDescriptor, TypeDescriptor, TypeKind, UserType};
use crate::error::{Severity, SqlError, SqlState};
use crate::exec::ExecContext;
use crate::session::syntax::is_not_null_mark;

/// Longest label, in bytes.
const LABEL_SIZE_MAX: usize = 63;

fn label_text(label: &Ident) -> Result<String, SqlError> {
    if label.value.len() > LABEL_SIZE_MAX {
        let message = format!("invalid enum label \"{}\"", label.value);
        return Err(fail(SqlState::INVALID_NAME, message)
            .with_detail(format!("Labels must be {LABEL_SIZE_MAX} bytes or less.")));
    }
    Ok(label.value.clone())
}

fn exists(name: &str) -> SqlError {
    fail(SqlState::DUPLICATE_OBJECT, format!("type \"{name}\" already exists"))
}

/// A new type without what it is.
fn described(
    name: &ObjectName,
    kind: TypeKind,
    now: &AnalyzeContext,
    catalog: &mut CatalogWriter<'_>,
) -> Result<TypeDescriptor, SqlError> {
    let schema = Binder::new(now, &[]).creation_schema(name)?;
    let name = last_ident(name)?.value;
    // Each relation is a type, too.
    if now.catalog.type_named(schema, &name).is_some()
        || now.catalog.table_named(schema, &name).is_some()
        || now.catalog.view_named(schema, &name).is_some()
    {
        return Err(exists(&name));
    }
    let mut array_name = format!("_{name}");
    let taken = |candidate: &str| {
        now.catalog
            .types()
            .any(|known| known.schema == schema && (known.array_name == candidate || known.name == candidate))
    };
    while taken(&array_name) || array_name.len() > LABEL_SIZE_MAX {
        if array_name.len() >= LABEL_SIZE_MAX {
            array_name.truncate(array_name.floor_char_boundary(LABEL_SIZE_MAX - 1));
            if taken(&array_name) {
                return Err(exists(&array_name));
            }
            continue;
        }
        array_name.insert(0, '_');
    }
    let (oid, array_oid) = (catalog.new_oid()?, catalog.new_oid()?);
    let acl =
        super::privileges::initial(&now.catalog, now.user_oid, crate::catalog::acl::AclKind::Type, schema);
    Ok(TypeDescriptor { oid, array_oid, schema, name, array_name, owner: now.user_oid, acl, kind })
}

/// CREATE TYPE.
pub(super) async fn create(
    name: &ObjectName,
    representation: Option<&UserDefinedTypeRepresentation>,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let labels = match representation {
        Some(UserDefinedTypeRepresentation::Enum { labels }) => labels,
        Some(UserDefinedTypeRepresentation::Composite { .. }) => {
            return Err(unsupported("CREATE TYPE of a composite type"));
        }
        Some(UserDefinedTypeRepresentation::Range { .. }) => return Err(unsupported("CREATE TYPE AS RANGE")),
        _ => return Err(unsupported("CREATE TYPE of a base type")),
    };
    let mut texts: Vec<String> = Vec::with_capacity(labels.len());
    for label in labels {
        let text = label_text(label)?;
        if texts.contains(&text) {
            // As PostgreSQL, whose index of labels says it.
            let message = "duplicate key value violates unique constraint \"pg_enum_typid_label_index\"";
            return Err(fail(SqlState::UNIQUE_VIOLATION, message)
                .with_detail(format!("Label \"{text}\" stands in the list twice.")));
        }
        texts.push(text);
    }
    let mut catalog = change(txn, context).await?;
    let now = current(catalog.txn, context)?;
    let mut created = described(name, TypeKind::Enum(Vec::new()), &now, &mut catalog)?;
    let mut numbered = Vec::with_capacity(texts.len());
    for text in texts {
        numbered.push((catalog.new_oid()?, text));
    }
    created.kind = TypeKind::Enum(spread(numbered));
    save(&created, &mut catalog).await
}

/// Writes a type, if this node can hold it.
async fn save(descriptor: &TypeDescriptor, catalog: &mut CatalogWriter<'_>) -> Result<(), SqlError> {
    let own = Arc::new(descriptor.clone());
    let _held = crate::catalog::UserTypes::new([&own].into_iter(), |_| None)?;
    catalog.put_type(descriptor).await
}

/// The type that a statement is about, read under the catalog's lock.
fn find(name: &ObjectName, now: &AnalyzeContext) -> Result<TypeDescriptor, SqlError> {
    let binder = Binder::new(now, &[]);
    match binder.find_type(name)? {
        Some(found) => Ok(found.as_ref().clone()),
        None => {
            let own = last_ident(name)?.value;
            if DataType::parse(&own).is_some() && binder.split_name(name)?.0.is_none() {
                let message = format!("must be owner of type {own}");
                return Err(fail(SqlState::INSUFFICIENT_PRIVILEGE, message));
            }
            Err(missing(name))
        }
    }
}

pub(super) fn missing(name: &ObjectName) -> SqlError {
    let parts: Vec<&str> =
        name.0.iter().filter_map(|part| part.as_ident()).map(|part| part.value.as_str()).collect();
    fail(SqlState::UNDEFINED_OBJECT, format!("type \"{}\" does not exist", parts.join(".")))
}

/// ALTER TYPE of an enumeration's labels and name.
pub(super) async fn alter_enum(
    alter: &AlterType,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let mut catalog = change(txn, context).await?;
    let now = current(catalog.txn, context)?;
    let mut found = find(&alter.name, &now)?;
    now.authority.require_owner(found.owner, "type", &found.name)?;
    if let AlterTypeOperation::Rename(rename) = &alter.operation {
        return self::rename(found, &rename.new_name.value, &now, &mut catalog).await;
    }
    let shown = Binder::new(&now, &[]).shown_type(&found);
    let TypeKind::Enum(labels) = &mut found.kind else {
        return Err(fail(SqlState::WRONG_OBJECT_TYPE, format!("{shown} is not an enum")));
    };
    let place_of = |labels: &[EnumLabel], label: &Ident| {
        labels.iter().position(|known| known.text == label.value).ok_or_else(|| {
            let message = format!("\"{}\" is not an existing enum label", label.value);
            fail(SqlState::INVALID_PARAMETER_VALUE, message)
        })
    };
    match &alter.operation {
        AlterTypeOperation::AddValue(added) => {
            let text = label_text(&added.value)?;
            if labels.iter().any(|known| known.text == text) {
                let message = format!("enum label \"{text}\" already exists");
                if added.if_not_exists {
                    skipped(SqlState::DUPLICATE_OBJECT, message, context);
                    return Ok(());
                }
                return Err(fail(SqlState::DUPLICATE_OBJECT, message));
            }
            let place = match &added.position {
                None => labels.len(),
                Some(AlterTypeAddValuePosition::Before(label)) => place_of(labels, label)?,
                Some(AlterTypeAddValuePosition::After(label)) => place_of(labels, label)? + 1,
            };
            let Some(position) = position_at(labels, place) else {
                let message = format!("there is no room for another label of type {shown} there");
                return Err(fail(SqlState::PROGRAM_LIMIT_EXCEEDED, message)
                    .with_detail("Labels were added too often between the same two.")
                    .with_hint("Make another type with all labels, and change the columns to it."));
            };
            labels.insert(place, EnumLabel { oid: catalog.new_oid()?, position, text });
        }
        AlterTypeOperation::RenameValue(rename) => {
            let place = place_of(labels, &rename.from)?;
            let text = label_text(&rename.to)?;
            if labels.iter().any(|known| known.text == text) {
                let message = format!("enum label \"{text}\" already exists");
                return Err(fail(SqlState::DUPLICATE_OBJECT, message));
            }
            relabel(&found, (&rename.from.value, &text), &now, &mut catalog).await?;
            let TypeKind::Enum(labels) = &mut found.kind else { return Ok(()) };
            if let Some(label) = labels.get_mut(place) {
                label.text = text;
            }
        }
        AlterTypeOperation::Rename(_) => {}
    }
    save(&found, &mut catalog).await
}

async fn rename(
    mut found: TypeDescriptor,
    name: &str,
    now: &AnalyzeContext,
    catalog: &mut CatalogWriter<'_>,
) -> Result<(), SqlError> {
    if now.catalog.type_named(found.schema, name).is_some()
        || now.catalog.table_named(found.schema, name).is_some()
    {
        return Err(exists(name));
    }
    name.clone_into(&mut found.name);
    let array_name = format!("_{name}");
    if array_name.len() <= LABEL_SIZE_MAX
        && !now.catalog.types().any(|known| {
            known.schema == found.schema && (known.array_name == array_name || known.name == array_name)
        })
    {
        found.array_name = array_name;
    }
    save(&found, catalog).await
}

/// The tables with columns of a type or of arrays of it, or of domains over it, and those columns.
fn users(of: &TypeDescriptor, now: &AnalyzeContext) -> Vec<(TableDescriptor, Vec<ColumnId>)> {
    let types = now.catalog.known_types();
    let is_of = |oid: u32| {
        oid == of.oid.get()
            || oid == of.array_oid.get()
            || types.domains(oid).iter().any(|domain| {
                domain.oid == of.oid
                    || matches!(&domain.kind, TypeKind::Domain { base, .. }
                        if base.oid == of.oid.get() || base.oid == of.array_oid.get())
            })
    };
    let found = now.catalog.tables().filter_map(|table| {
        let columns = table.columns.iter().filter(|column| is_of(column.data_type.oid));
        let columns: Vec<_> = columns.map(|column| column.id).collect();
        (!columns.is_empty()).then(|| (table.as_ref().clone(), columns))
    });
    found.collect()
}

/// What the catalog keeps that names a type beside columns of it.
struct Kept {
    /// Text, and what it is as messages have it.
    texts: Vec<(String, String)>,
}

impl Kept {
    fn of(of: &TypeDescriptor, now: &AnalyzeContext) -> Self {
        let mark = by_number(of.oid.get());
        let mut texts = Vec::new();
        let mut note = |text: &str, what: String| {
            if text.contains(&mark) {
                texts.push((text.to_owned(), what));
            }
        };
        for table in now.catalog.tables() {
            let name = &table.name;
            for check in &table.checks {
                note(check.expr.as_str(), format!("constraint {} on table {name}", check.name));
            }
            for column in &table.columns {
                let what = || format!("column {} of table {name}", column.name);
                if let Some(default) = &column.default {
                    note(default.as_str(), format!("default value for {}", what()));
                }
                if let Some(generated) = &column.generated {
                    note(generated.as_str(), what());
                }
            }
            for computed in &table.computed {
                let of_index =
                    |index: &&crate::catalog::IndexDescriptor| index.computed().any(|id| id == computed.id);
                let index = table.indexes.iter().find(of_index).map_or("", |index| &index.name);
                note(computed.expr.as_str(), format!("index {index}"));
            }
        }
        for view in now.catalog.views() {
            note(&view.query, format!("view {}", view.name));
        }
        for domain in now.catalog.types() {
            let TypeKind::Domain { checks, default, .. } = &domain.kind else { continue };
            for check in checks {
                note(check.expr.as_str(), format!("constraint {} on type {}", check.name, domain.name));
            }
            if let Some(default) = default {
                note(default.as_str(), format!("default value of type {}", domain.name));
            }
        }
        Self { texts }
    }
}

/// A kept text with another label in its literals of a type; none where one stands in what cannot be told apart.
fn relabelled(text: &str, of: &TypeDescriptor, (old, new): (&str, &str)) -> Option<String> {
    let literal = |label: &str| format!("'{}'::{}", label.replace('\'', "''"), by_number(of.oid.get()));
    let changed = text.replace(&literal(old), &literal(new));
    // Literals of arrays have labels in them.
    let of_arrays = format!("'::{}[]", by_number(of.oid.get()));
    (!changed.contains(&of_arrays) || !changed.contains(old)).then_some(changed)
}

/// Gives a label its new name in all that the catalog keeps as text.
async fn relabel(
    of: &TypeDescriptor,
    (old, new): (&str, &str),
    now: &AnalyzeContext,
    catalog: &mut CatalogWriter<'_>,
) -> Result<(), SqlError> {
    let refused = |what: String| {
        let message = format!("renaming a label that {what} names");
        Err(unsupported(message).with_hint("Drop it, rename the label, and make it again."))
    };
    let change = |text: &mut StoredExpr, what: String| match relabelled(text.as_str(), of, (old, new)) {
        Some(changed) => {
            *text = StoredExpr::new(changed);
            Ok(())
        }
        None => refused(what),
    };
    // A view keeps its query as it was written, where a label need not say of which type it is.
    let literal = format!("'{}'", old.replace('\'', "''"));
    let own: Vec<(Oid, Vec<ColumnId>)> =
        users(of, now).into_iter().map(|(table, columns)| (table.oid, columns)).collect();
    for view in now.catalog.views().filter(|view| view.query.contains(&literal)) {
        let is_near = view.query.contains(&by_number(of.oid.get()))
            || view.relations.iter().any(|known| {
                own.iter().any(|(table, _)| *table == known.relation)
                    || now.catalog.view(known.relation).is_some()
            });
        if is_near {
            return refused(format!("view {}", view.name));
        }
    }
    for table in now.catalog.tables() {
        let (mut changed, name) = (table.as_ref().clone(), &table.name);
        for check in &mut changed.checks {
            change(&mut check.expr, format!("constraint {} on table {name}", check.name))?;
        }
        let of_type = own.iter().find(|(own, _)| *own == table.oid).map(|(_, columns)| columns.as_slice());
        for column in &mut changed.columns {
            let what = format!("column {} of table {name}", column.name);
            // What rows from before the column hold is kept as text, too.
            if of_type.unwrap_or_default().contains(&column.id) {
                if column.missing.as_deref() == Some(old) {
                    column.missing = Some(new.to_owned());
                } else if column.data_type.data_type().element().is_some()
                    && column.missing.as_deref().is_some_and(|missing| missing.contains(old))
                {
                    return refused(what);
                }
            }
            for text in column.default.iter_mut().chain(&mut column.generated) {
                change(text, what.clone())?;
            }
        }
        for computed in &mut changed.computed {
            change(&mut computed.expr, format!("an index on table {name}"))?;
        }
        if changed != **table {
            catalog.put_table(&changed).await?;
        }
    }
    for domain in now.catalog.types().filter(|domain| domain.oid != of.oid) {
        let mut changed = domain.as_ref().clone();
        if let TypeKind::Domain { checks, default, .. } = &mut changed.kind {
            let texts = checks.iter_mut().map(|check| &mut check.expr).chain(default);
            for text in texts {
                change(text, format!("type {}", domain.name))?;
            }
        }
        if changed != **domain {
            catalog.put_type(&changed).await?;
        }
    }
    Ok(())
}

/// Binds the condition of a domain's constraint, and gives it a name.
fn check_of(
    check: &CheckConstraint,
    name: Option<&Ident>,
    (domain, base): (&str, DataType),
    taken: &[DomainCheck],
    catalog: &mut CatalogWriter<'_>,
    now: &AnalyzeContext,
    context: &ExecContext<'_>,
) -> Result<DomainCheck, SqlError> {
    let row = domain_row(domain, base, &KnownTypes(Arc::clone(now.catalog.known_types())));
    let (kept, _) = kept::keep_row_expr(now, &check.expr, &row, kept::KeptFor::Domain, &context.eval(&[]))?;
    let name = match name {
        Some(name) => name.value.clone(),
        None => {
            let mut number = 0;
            loop {
                let label = if number == 0 { String::new() } else { number.to_string() };
                let name = format!("{domain}_check{label}");
                if !taken.iter().any(|known| known.name == name) {
                    break name;
                }
                number += 1;
            }
        }
    };
    if taken.iter().any(|known| known.name == name) {
        let message = format!("constraint \"{name}\" for domain \"{domain}\" already exists");
        return Err(fail(SqlState::DUPLICATE_OBJECT, message));
    }
    Ok(DomainCheck { oid: catalog.new_oid()?, name, expr: kept.text, validated: true })
}

/// The default of a domain, over no row.
fn default_of(
    expr: &AstExpr,
    (domain, base): (&str, DataType),
    now: &AnalyzeContext,
    context: &ExecContext<'_>,
) -> Result<Option<StoredExpr>, SqlError> {
    let row = domain_row(domain, base, &KnownTypes(Arc::clone(now.catalog.known_types())));
    let Some(column) = row.columns.first() else { return Ok(None) };
    kept::keep_default(now, expr, column, &context.eval(&[]))
}

/// CREATE DOMAIN.
pub(super) async fn create_domain(
    create: &CreateDomain,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let mut catalog = change(txn, context).await?;
    let now = current(catalog.txn, context)?;
    let binder = Binder::new(&now, &[]);
    let base = binder.declared_type(&create.data_type)?;
    binder.require_type(base)?;
    let data_type = base.data_type();
    if !data_type.base.is_storable() {
        let message = format!("\"{data_type}\" is not a valid base type for a domain");
        return Err(fail(SqlState::DATATYPE_MISMATCH, message));
    }
    if create.collation.is_some() {
        return Err(unsupported("COLLATE of a domain"));
    }
    drop(binder);
    let kind = TypeKind::Domain { base, not_null: false, default: None, checks: Vec::new() };
    let mut created = described(&create.name, kind, &now, &mut catalog)?;
    let name = created.name.clone();
    let TypeKind::Domain { not_null, default, checks, .. } = &mut created.kind else { return Ok(()) };
    if let Some(expr) = &create.default {
        *default = default_of(expr, (&name, data_type), &now, context)?;
    }
    for constraint in &create.constraints {
        let TableConstraint::Check(check) = constraint else {
            return Err(syntax("this constraint is not possible for domains"));
        };
        if is_not_null_mark(check) {
            *not_null = true;
            continue;
        }
        let made =
            check_of(check, check.name.as_ref(), (&name, data_type), checks, &mut catalog, &now, context)?;
        checks.push(made);
    }
    save(&created, &mut catalog).await
}

/// ALTER DOMAIN, and what ALTER TYPE says of owner and schema; see [`crate::session::syntax`].
pub(super) async fn alter_type(
    alter: &AlterTable,
    is_domain: bool,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let Some(operation) = alter.operations.first() else { return Ok(()) };
    // Tables are locked before the catalog, as every change does.
    let now = current(txn, context)?;
    let found = find(&alter.name, &now)?;
    now.authority.require_owner(found.owner, "type", &found.name)?;
    let shown = Binder::new(&now, &[]).shown_type(&found);
    if is_domain && !matches!(found.kind, TypeKind::Domain { .. }) {
        return Err(fail(SqlState::WRONG_OBJECT_TYPE, format!("{shown} is not a domain")));
    }
    let asks = matches!(
        operation,
        AlterTableOperation::AddConstraint { not_valid: false, .. }
            | AlterTableOperation::ValidateConstraint { .. }
            | AlterTableOperation::AlterColumn { op: AlterColumnOperation::SetNotNull, .. }
    );
    if asks {
        for (table, _) in users(&found, &now) {
            let lock = TableLockId::new(table.oid.get());
            txn.lock_table(lock, TableLockMode::ShareRowExclusive, context.lock_wait).await?;
        }
    }
    let mut catalog = change(txn, context).await?;
    let now = current(catalog.txn, context)?;
    let mut found = find(&alter.name, &now)?;
    match operation {
        AlterTableOperation::OwnerTo { new_owner } => {
            let new = super::privileges::new_owner(new_owner, Some(found.schema), &now, context)?;
            super::privileges::change_owner(&mut found.owner, &mut found.acl, new);
            return catalog.put_type(&found).await;
        }
        AlterTableOperation::RenameTable { table_name } => {
            let (RenameTableNameKind::To(name) | RenameTableNameKind::As(name)) = table_name;
            let name = last_ident(name)?.value;
            return rename(found, &name, &now, &mut catalog).await;
        }
        _ => {}
    }
    let data_type = now.catalog.known_types().get(found.oid.get()).map(UserType::data_type);
    let name = found.name.clone();
    let own = (name.as_str(), data_type.unwrap_or(DataType::TEXT));
    let TypeKind::Domain { not_null, default, checks, .. } = &mut found.kind else {
        return Err(unsupported("this form of ALTER TYPE"));
    };
    let undefined = |name: &str| {
        let message = format!("constraint \"{name}\" of domain \"{}\" does not exist", own.0);
        fail(SqlState::UNDEFINED_OBJECT, message)
    };
    match operation {
        AlterTableOperation::AlterColumn { op, .. } => match op {
            AlterColumnOperation::SetDefault { value } => {
                *default = default_of(value, own, &now, context)?;
            }
            AlterColumnOperation::DropDefault => *default = None,
            AlterColumnOperation::SetNotNull => *not_null = true,
            AlterColumnOperation::DropNotNull => *not_null = false,
            _ => return Err(unsupported("this form of ALTER DOMAIN")),
        },
        AlterTableOperation::AddConstraint { constraint, not_valid } => {
            let TableConstraint::Check(check) = constraint else {
                return Err(syntax("this constraint is not possible for domains"));
            };
            if is_not_null_mark(check) {
                *not_null = true;
            } else {
                let name = check.name.as_ref();
                let mut made = check_of(check, name, own, checks, &mut catalog, &now, context)?;
                made.validated = !not_valid;
                checks.push(made);
            }
        }
        AlterTableOperation::DropConstraint { if_exists, name, .. } => {
            let Some(place) = checks.iter().position(|check| check.name == name.value) else {
                if *if_exists {
                    let error = undefined(&name.value);
                    skipped(SqlState::SUCCESSFUL_COMPLETION, error.message(), context);
                    return Ok(());
                }
                return Err(undefined(&name.value));
            };
            let _dropped = checks.remove(place);
        }
        AlterTableOperation::RenameConstraint { old_name, new_name } => {
            if checks.iter().any(|check| check.name == new_name.value) {
                let message = format!("constraint \"{}\" for domain {shown} already exists", new_name.value);
                return Err(fail(SqlState::DUPLICATE_OBJECT, message));
            }
            let check = checks.iter_mut().find(|check| check.name == old_name.value);
            check.ok_or_else(|| undefined(&old_name.value))?.name.clone_from(&new_name.value);
        }
        AlterTableOperation::ValidateConstraint { name } => {
            let check = checks.iter_mut().find(|check| check.name == name.value);
            check.ok_or_else(|| undefined(&name.value))?.validated = true;
        }
        _ => return Err(unsupported("this form of ALTER DOMAIN")),
    }
    save(&found, &mut catalog).await?;
    if asks { check_values(&found, txn, context).await } else { Ok(()) }
}

/// Asks all stored values of a domain whether they are still values of it.
async fn check_values(
    domain: &TypeDescriptor,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let now = current(txn, context)?;
    let binder = Binder::new(&now, &[]);
    let mut asked = Vec::new();
    for (table, columns) in users(domain, &now) {
        let mut places = Vec::new();
        for column in columns {
            let found =
                table.column_index_of(column).and_then(|place| Some((place, table.columns.get(place)?)));
            if let Some((place, described)) = found
                && let Some(bound) = binder.bind_domain(described.data_type.oid)?
            {
                places.push((place, described.name.clone(), bound));
            }
        }
        asked.push((table, places));
    }
    drop(binder);
    for (table, places) in asked {
        alter::refresh(txn);
        let mut all = alter::Rows::of(&table)?;
        while let Some(rows) = all.next(txn)? {
            for (_, row) in rows {
                for (place, column, bound) in &places {
                    let value = row.get(*place).unwrap_or(&Value::Null);
                    bound.check(value, &context.eval(&[])).map_err(|error| refused(error, column, &table))?;
                }
            }
            context.breathe().await?;
        }
    }
    Ok(())
}

/// What PostgreSQL says when a stored value is none of a domain's any more.
fn refused(error: SqlError, column: &str, table: &TableDescriptor) -> SqlError {
    let message = match error.state() {
        SqlState::NOT_NULL_VIOLATION => {
            format!("column \"{column}\" of table \"{}\" contains null values", table.name)
        }
        SqlState::CHECK_VIOLATION => format!(
            "column \"{column}\" of table \"{}\" contains values that violate the new constraint",
            table.name
        ),
        _ => return error,
    };
    fail(error.state(), message)
}

/// DROP TYPE and DROP DOMAIN.
pub(super) async fn drop_types(
    names: &[ObjectName],
    is_domain: bool,
    if_exists: bool,
    cascade: bool,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let mut all: Vec<TypeDescriptor> = Vec::new();
    for name in names {
        let now = current(txn, context)?;
        if let Ok(Some((element, true))) = Binder::new(&now, &[]).type_or_array(name) {
            let shown = Binder::new(&now, &[]).shown_type(&element);
            let message = format!("cannot drop type {shown}[] because type {shown} requires it");
            return Err(fail(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message)
                .with_hint(format!("You can drop type {shown} instead.")));
        }
        let found = match find(name, &now) {
            Ok(found) => found,
            Err(error)
                if matches!(error.state(), SqlState::UNDEFINED_OBJECT | SqlState::INVALID_SCHEMA_NAME) =>
            {
                let binder = Binder::new(&now, &[]);
                refuse_relation(name, is_domain, binder.find_relation(name)?)?;
                let schema = binder.split_name(name)?.0;
                match schema.filter(|schema| now.catalog.schema_named(&schema.value).is_none()) {
                    Some(_) => {
                        not_there((SqlState::UNDEFINED_OBJECT, "type"), name, if_exists, txn, context)?
                    }
                    None if if_exists => {
                        skipped(SqlState::SUCCESSFUL_COMPLETION, missing(name).message(), context);
                    }
                    None => return Err(missing(name)),
                }
                continue;
            }
            Err(error) => return Err(error),
        };
        if is_domain && !matches!(found.kind, TypeKind::Domain { .. }) {
            let shown = Binder::new(&now, &[]).shown_type(&found);
            return Err(fail(SqlState::WRONG_OBJECT_TYPE, format!("\"{shown}\" is not a domain")));
        }
        if !super::owns_schema(found.schema, &now) {
            now.authority.require_owner(found.owner, "type", &found.name)?;
        }
        all.push(found);
    }
    drop_found(all, cascade, txn, context).await
}

/// Each relation is a type, too, which does not go without it.
fn refuse_relation(name: &ObjectName, is_domain: bool, found: Option<Relation>) -> Result<(), SqlError> {
    let kind = match found {
        Some(Relation::Table(_)) => "table",
        Some(Relation::View(_)) => "view",
        _ => return Ok(()),
    };
    let own = last_ident(name)?.value;
    Err(if is_domain {
        fail(SqlState::WRONG_OBJECT_TYPE, format!("\"{own}\" is not a domain"))
    } else {
        let message = format!("cannot drop type {own} because {kind} {own} requires it");
        fail(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message)
            .with_hint(format!("You can drop {kind} {own} instead."))
    })
}

/// Drops types, and what depends on them or, without CASCADE, refuses to.
pub(super) async fn drop_found(
    all: Vec<TypeDescriptor>,
    cascade: bool,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    for found in &all {
        let now = current(txn, context)?;
        // It may have gone with one before it.
        let Some(found) = now.catalog.type_descriptor(found.oid).cloned() else { continue };
        let what = format!("type {}", Binder::new(&now, &[]).shown_type(&found));
        if temporary::others_use_type(txn, &[found.oid.get(), found.array_oid.get()])? {
            let message = format!("cannot drop {what} because other objects depend on it");
            return Err(fail(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message)
                .with_detail("A temporary table of another session has a column of it.")
                .with_hint("Wait until that session is over, or end it."));
        }
        let mut dependents: Vec<String> = Vec::new();
        let domains: Vec<TypeDescriptor> = (now.catalog.types())
            .filter(|other| {
                matches!(&other.kind, TypeKind::Domain { base, .. }
                    if base.oid == found.oid.get() || base.oid == found.array_oid.get())
                    && !all.iter().any(|known| known.oid == other.oid)
            })
            .map(|other| other.as_ref().clone())
            .collect();
        let is_own = |oid: u32| oid == found.oid.get() || oid == found.array_oid.get();
        let columns: Vec<(TableDescriptor, ColumnDescriptor)> = (now.catalog.tables())
            .flat_map(|table| {
                let own = table.columns.iter().filter(|column| is_own(column.data_type.oid));
                own.map(|column| (table.as_ref().clone(), column.clone()))
            })
            .collect();
        let views: Vec<_> = (now.catalog.views())
            .filter(|view| view.columns.iter().any(|column| is_own(column.data_type.oid)))
            .cloned()
            .collect();
        dependents.extend(domains.iter().map(|domain| format!("type {}", domain.name)));
        for (table, column) in &columns {
            dependents.push(format!("column {} of table {}", column.name, table.name));
        }
        let kept = Kept::of(&found, &now);
        // What stands at a column of the type goes with it.
        let beside = |what: &str| {
            let of_column = |(table, column): &(TableDescriptor, ColumnDescriptor)| {
                what.ends_with(&format!("column {} of table {}", column.name, table.name))
            };
            !columns.iter().any(of_column)
        };
        let is_view = |what: &String| what.starts_with("view ");
        dependents.extend(kept.texts.iter().map(|(_, what)| what.clone()).filter(|what| beside(what)));
        let of_views = views.iter().map(|view| format!("view {}", view.name));
        let of_views: Vec<String> = of_views.filter(|view| !dependents.contains(view)).collect();
        dependents.extend(of_views);
        if !dependents.is_empty() {
            if !cascade {
                let message = format!("cannot drop {what} because other objects depend on it");
                let details: Vec<String> =
                    dependents.iter().map(|user| format!("{user} depends on {what}")).collect();
                return Err(fail(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message)
                    .with_detail(details.join("\n"))
                    .with_hint("Use DROP ... CASCADE to drop the dependent objects too."));
            }
            let notice = match dependents.as_slice() {
                [only] => fail(SqlState::SUCCESSFUL_COMPLETION, format!("drop cascades to {only}")),
                all => fail(
                    SqlState::SUCCESSFUL_COMPLETION,
                    format!("drop cascades to {} other objects", all.len()),
                )
                .with_detail(
                    all.iter().map(|one| format!("drop cascades to {one}")).collect::<Vec<_>>().join("\n"),
                ),
            };
            context.session.notice(notice.with_severity(Severity::Notice));
        }
        let named: Vec<Oid> = now
            .catalog
            .views()
            .filter(|view| kept.texts.iter().any(|(text, what)| is_view(what) && *text == view.query))
            .map(|view| view.oid)
            .chain(views.iter().map(|view| view.oid))
            .collect();
        for oid in &named {
            view::drop_dependents((*oid, None), &what, &named, true, txn, context).await?;
        }
        view::remove(&named, txn, context).await?;
        for (table, column) in &columns {
            alter::drop_column_of(table.oid, &column.name, txn, context).await?;
        }
        forget_kept(&found, txn, context).await?;
        if !domains.is_empty() {
            Box::pin(drop_found(domains, true, txn, context)).await?;
        }
        let mut catalog = change(txn, context).await?;
        catalog.drop_type(found.oid).await?;
    }
    Ok(())
}

/// Takes away constraints, defaults, generated columns and indexes that name a type that goes.
async fn forget_kept(
    of: &TypeDescriptor,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let mark = by_number(of.oid.get());
    let names = |text: &StoredExpr| text.as_str().contains(&mark);
    let now = current(txn, context)?;
    let tables: Vec<Oid> = now.catalog.tables().map(|table| table.oid).collect();
    for oid in tables {
        let now = current(txn, context)?;
        let Some(table) = now.catalog.table(oid).cloned() else { continue };
        let generated = table.columns.iter().filter(|column| column.generated.as_ref().is_some_and(names));
        for column in generated {
            alter::drop_column_of(oid, &column.name, txn, context).await?;
        }
        let now = current(txn, context)?;
        let Some(table) = now.catalog.table(oid) else { continue };
        let mut changed = table.as_ref().clone();
        changed.checks.retain(|check| !names(&check.expr));
        for column in changed.columns.iter_mut().filter(|column| column.default.as_ref().is_some_and(names)) {
            column.default = None;
        }
        let gone: Vec<_> = changed.computed.iter().filter(|own| names(&own.expr)).map(|own| own.id).collect();
        if changed == **table && gone.is_empty() {
            continue;
        }
        let lock = TableLockId::new(oid.get());
        txn.lock_table(lock, TableLockMode::AccessExclusive, context.lock_wait).await?;
        let mut catalog = change(txn, context).await?;
        if !gone.is_empty() {
            alter::drop_indexes(&mut catalog, &mut changed, |index| {
                index.computed().any(|id| gone.contains(&id))
            })
            .await?;
        }
        catalog.put_table(&changed).await?;
    }
    let mut catalog = change(txn, context).await?;
    let now = current(catalog.txn, context)?;
    for domain in now.catalog.types().filter(|domain| domain.oid != of.oid) {
        let mut changed = domain.as_ref().clone();
        if let TypeKind::Domain { checks, default, .. } = &mut changed.kind {
            checks.retain(|check| !names(&check.expr));
            if default.as_ref().is_some_and(names) {
                *default = None;
            }
        }
        if changed != **domain {
            catalog.put_type(&changed).await?;
        }
    }
    Ok(())
}
