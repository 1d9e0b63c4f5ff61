//! CREATE VIEW, ALTER VIEW, DROP VIEW, and what views mean for changes of the relations that they are made of.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustydb_txn::{TableLockId, TableLockMode, Transaction};
use rustydb_types::ids::Oid;
use sqlparser::ast::{
    AlterTable, AlterTableOperation, CreateTableOptions, CreateView, Expr as AstExpr, Ident, ObjectName,
    Query, RenameTableNameKind, SqlOption, Value,
};

use super::create_as::named_columns;
use super::{change_of, current, not_there, relation_exists, skipped, temporary};
use crate::bind::context::{Relation, TableUse};
use crate::bind::errors::{fail, syntax, unsupported};
use crate::bind::from::last_ident;
use crate::bind::view::{Found, without_stars};
use crate::bind::{AnalyzeContext, Binder};
use crate::catalog::view::{CheckOption, ViewColumn, ViewDescriptor, ViewRelation};
use crate::error::{Severity, SqlError, SqlState};
use crate::exec::ExecContext;
use crate::parse::view::{parse_view_query, words};
use crate::plan::ColumnInfo;

/// CREATE VIEW.
pub(super) async fn create(
    create: &CreateView,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    refuse_options(create)?;
    // The relations are locked first, then the catalog, as every change does.
    let now = current(txn, context)?;
    let relations = {
        let binder = Binder::new(&now, &[]);
        let _checked = binder.keep_query(&create.query)?;
        read_relations(&binder)?
    };
    for relation in &relations {
        txn.lock_table(TableLockId::new(relation.get()), TableLockMode::AccessShare, context.lock_wait)
            .await?;
    }
    let name = last_ident(&create.name)?.value;
    let reads_temporary = relations.iter().any(|relation| relation.is_temporary());
    if reads_temporary && !temporary::is_meant(&create.name, create.temporary, &now)? {
        let message = format!("view \"{name}\" will be a temporary view");
        context
            .session
            .notice(fail(SqlState::SUCCESSFUL_COMPLETION, message).with_severity(Severity::Notice));
    }
    let is_temporary = create.temporary || reads_temporary;
    let (mut catalog, now, schema) =
        temporary::begin_creation(&create.name, is_temporary, txn, context).await?;
    let former = now.catalog.view_named(schema, &name).cloned();
    if now.catalog.has_relation(schema, &name) && !(create.or_replace && former.is_some()) {
        return Err(if create.or_replace {
            fail(SqlState::WRONG_OBJECT_TYPE, format!("\"{name}\" is not a view"))
        } else {
            relation_exists(&name)
        });
    }
    super::refuse_type_name(schema, &name, &now)?;
    let mut view = described(create, &now)?;
    (view.schema, view.name) = (schema, name);
    // Another relation has got such a name meanwhile: without a lock it could go while the view comes.
    if view
        .relations
        .iter()
        .any(|known| !relations.contains(&known.relation) && known.relation.get() >= Oid::FIRST_USER.get())
    {
        let message = format!("a relation of view \"{}\" was replaced", view.name);
        return Err(fail(SqlState::SERIALIZATION_FAILURE, message));
    }
    match former {
        Some(former) => {
            now.authority.require_owner(former.owner, "view", &former.name)?;
            refuse_other_columns(&former, &view)?;
            (view.oid, view.owner) = (former.oid, former.owner);
            view.acl.clone_from(&former.acl);
            let lock = TableLockId::new(former.oid.get());
            catalog.txn.lock_table(lock, TableLockMode::AccessExclusive, context.lock_wait).await?;
        }
        None => {
            view.oid = catalog.new_oid()?;
            view.acl = super::privileges::initial(
                &now.catalog,
                now.user_oid,
                crate::catalog::acl::AclKind::Table,
                schema,
            );
        }
    }
    catalog.put_view(&view).await
}

fn refuse_options(create: &CreateView) -> Result<(), SqlError> {
    let refused = [
        (create.materialized, "CREATE MATERIALIZED VIEW"),
        (create.if_not_exists, "IF NOT EXISTS in CREATE VIEW"),
        (create.with_no_schema_binding || create.secure || create.or_alter, "this form of CREATE VIEW"),
        (create.to.is_some() || create.copy_grants, "this form of CREATE VIEW"),
        (create.params.is_some() || !create.cluster_by.is_empty(), "this form of CREATE VIEW"),
        (create.columns.iter().any(|column| column.data_type.is_some()), "types of a view's columns"),
        (create.columns.iter().any(|column| column.options.is_some()), "options of a view's columns"),
    ];
    match refused.into_iter().find(|(is_there, _)| *is_there) {
        Some((_, what)) => Err(unsupported(what)),
        None => Ok(()),
    }
}

/// The relations that a query reads; 0A000 when it does more with one.
fn read_relations(binder: &Binder<'_>) -> Result<Vec<Oid>, SqlError> {
    let used = binder.tables.take();
    if used.iter().any(|(_, used)| *used > TableUse::Read) {
        return Err(unsupported("FOR UPDATE in a view"));
    }
    Ok(used.into_iter().map(|(oid, _)| oid).collect())
}

/// WITH CHECK OPTION, and what is written for it as an option.
fn check_option(create: &CreateView) -> Result<Option<CheckOption>, SqlError> {
    let CreateTableOptions::With(options) = &create.options else { return Ok(None) };
    let mut found = None;
    for option in options {
        let SqlOption::KeyValue { key, value } = option else {
            return Err(unsupported("this option of a view"));
        };
        let text = match value {
            AstExpr::Value(value) => match &value.value {
                Value::SingleQuotedString(text) => text.clone(),
                other => other.to_string(),
            },
            AstExpr::Identifier(word) => word.value.clone(),
            other => other.to_string(),
        };
        match (key.value.as_str(), text.as_str()) {
            ("check_option", "local") => found = Some(CheckOption::Local),
            ("check_option", "cascaded") => found = Some(CheckOption::Cascaded),
            ("check_option", other) => {
                let message = format!("invalid value for enum option \"check_option\": {other}");
                return Err(fail(SqlState::INVALID_PARAMETER_VALUE, message)
                    .with_detail("Valid values are \"local\" and \"cascaded\"."));
            }
            ("security_barrier" | "security_invoker", _) => {
                return Err(unsupported(format!("the option {} of views", key.value)));
            }
            (other, _) => {
                let message = format!("unrecognized parameter \"{other}\"");
                return Err(fail(SqlState::INVALID_PARAMETER_VALUE, message));
            }
        }
    }
    Ok(found)
}

/// Binds a text until it has no wildcard; its columns, and what its names mean.
fn settled(text: String, now: &AnalyzeContext) -> Result<(String, Vec<ColumnInfo>, Found, Query), SqlError> {
    let mut text = text;
    for _ in 0..2 {
        let query = parse_view_query(&text)?;
        let binder = Binder::new(now, &[]);
        let ((_, columns), found) = binder.keep_query(&query)?;
        if found.stars.is_empty() {
            return Ok((text, columns, found, query));
        }
        text = without_stars(&text, &found.stars);
    }
    Err(unsupported("this wildcard in a view"))
}

/// The columns that a query uses: those whose names are written in it, behind the name of their relation or alone, and
/// those by which NATURAL joins. A name alone counts for each relation that has such a column.
fn used_columns(text: &str, relations: &[ViewRelation]) -> Result<Vec<(Oid, u32)>, SqlError> {
    let words = words(text)?;
    let is_natural = words.iter().any(|(_, word)| word == "natural");
    let mut used = BTreeSet::new();
    for known in relations {
        for column in &known.columns {
            let is_written = words.iter().any(|(qualifier, word)| {
                *word == column.name && qualifier.as_ref().is_none_or(|qualifier| *qualifier == known.visible)
            });
            let is_shared = || {
                let has = |other: &&ViewRelation| other.columns.iter().any(|own| own.name == column.name);
                is_natural && relations.iter().filter(has).count() > 1
            };
            if is_written || is_shared() {
                used.insert((known.relation, column.number));
            }
        }
    }
    Ok(used.into_iter().collect())
}

/// The view that a statement defines, without its number, schema and name.
fn described(create: &CreateView, now: &AnalyzeContext) -> Result<ViewDescriptor, SqlError> {
    // Once as it was written, so that errors have their places.
    let binder = Binder::new(now, &[]);
    let ((_, columns), _) = binder.keep_query(&create.query)?;
    let text = create.comment.clone().ok_or_else(|| unsupported("this form of CREATE VIEW"))?;
    let (query, again, found, _) = settled(text, now)?;
    if again.iter().map(|column| column.data_type).ne(columns.iter().map(|column| column.data_type)) {
        return Err(unsupported("this query in a view"));
    }
    if create.columns.len() > columns.len() {
        return Err(syntax("CREATE VIEW specifies more column names than columns"));
    }
    let named = named_columns(&columns, |place| create.columns.get(place).map(|column| &column.name))?;
    named.iter().try_for_each(|(_, data_type)| binder.require_type(*data_type))?;
    let shown = named.into_iter().map(|(name, data_type)| ViewColumn { name, data_type }).collect();
    let uses = used_columns(&query, &found.relations)?;
    let view = ViewDescriptor {
        oid: Oid::new(0),
        schema: Oid::new(0),
        name: last_ident(&create.name)?.value,
        owner: now.user_oid,
        acl: None,
        columns: shown,
        query,
        relations: found.relations,
        uses,
        check_option: check_option(create)?,
    };
    if view.check_option.is_some()
        && let Some(why) = crate::bind::target::not_updatable(&parse_view_query(&view.query)?)
    {
        let message = "WITH CHECK OPTION is supported only on automatically updatable views";
        return Err(fail(SqlState::FEATURE_NOT_SUPPORTED, message).with_hint(why));
    }
    Ok(view)
}

/// CREATE OR REPLACE VIEW may add columns behind those that are there, and no more.
fn refuse_other_columns(former: &ViewDescriptor, view: &ViewDescriptor) -> Result<(), SqlError> {
    let refuse = |message: String| fail(SqlState::INVALID_TABLE_DEFINITION, message);
    if view.columns.len() < former.columns.len() {
        return Err(refuse("cannot drop columns from view".into()));
    }
    for (old, new) in former.columns.iter().zip(&view.columns) {
        if old.name != new.name {
            let message = format!("cannot change name of view column \"{}\" to \"{}\"", old.name, new.name);
            return Err(refuse(message)
                .with_hint("Use ALTER VIEW ... RENAME COLUMN ... to change name of view column instead."));
        }
        if old.data_type != new.data_type {
            let [before, after] = [old, new].map(|column| crate::bind::from::column_type(column.data_type));
            let name = &old.name;
            return Err(refuse(format!(
                "cannot change data type of view column \"{name}\" from {before} to {after}"
            )));
        }
    }
    Ok(())
}

/// Whether ALTER TABLE is written of a view.
pub(super) fn is_meant(
    alter: &AlterTable,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<bool, SqlError> {
    let now = current(txn, context)?;
    Ok(matches!(Binder::new(&now, &[]).find_relation(&alter.name)?, Some(Relation::View(_))))
}

/// ALTER VIEW, or ALTER TABLE of a view.
pub(super) async fn alter(
    alter: &AlterTable,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let now = current(txn, context)?;
    let found = Binder::new(&now, &[]).find_relation(&alter.name)?;
    let name = last_ident(&alter.name)?.value;
    let oid = match found {
        Some(Relation::View(view)) => view.oid,
        Some(_) => return Err(fail(SqlState::WRONG_OBJECT_TYPE, format!("\"{name}\" is not a view"))),
        None if alter.if_exists => {
            let message = format!("relation \"{name}\" does not exist");
            skipped(SqlState::SUCCESSFUL_COMPLETION, message, context);
            return Ok(());
        }
        None => return Err(crate::bind::errors::undefined_relation(&alter.name)),
    };
    if let Some(found) = now.catalog.view(oid) {
        now.authority.require_owner(found.owner, "view", &found.name)?;
    }
    txn.lock_table(TableLockId::new(oid.get()), TableLockMode::AccessExclusive, context.lock_wait).await?;
    let mut catalog = change_of(oid, txn, context).await?;
    let now = current(catalog.txn, context)?;
    let Some(mut view) = now.catalog.view(oid).map(|view| view.as_ref().clone()) else {
        return Err(crate::bind::errors::undefined_relation(&alter.name));
    };
    for operation in &alter.operations {
        match operation {
            AlterTableOperation::RenameTable { table_name } => {
                let (RenameTableNameKind::To(name) | RenameTableNameKind::As(name)) = table_name;
                let name = last_ident(name)?.value;
                if now.catalog.has_relation(view.schema, &name) {
                    return Err(relation_exists(&name));
                }
                view.name = name;
            }
            AlterTableOperation::RenameColumn { old_column_name, new_column_name } => {
                let (old, new) = (&old_column_name.value, &new_column_name.value);
                let Some(place) = view.column_index(old) else {
                    return Err(fail(SqlState::UNDEFINED_COLUMN, format!("column \"{old}\" does not exist")));
                };
                if view.column_index(new).is_some() {
                    let message = format!("column \"{new}\" of relation \"{}\" already exists", view.name);
                    return Err(fail(SqlState::DUPLICATE_COLUMN, message));
                }
                if let Some(column) = view.columns.get_mut(place) {
                    column.name.clone_from(new);
                }
            }
            AlterTableOperation::OwnerTo { new_owner } => {
                let new = super::privileges::new_owner(new_owner, Some(view.schema), &now, context)?;
                super::privileges::change_owner(&mut view.owner, &mut view.acl, new);
            }
            _ => return Err(unsupported("this form of ALTER VIEW")),
        }
    }
    catalog.put_view(&view).await
}

/// DROP VIEW.
pub(super) async fn drop(
    names: &[ObjectName],
    if_exists: bool,
    cascade: bool,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let mut all = Vec::with_capacity(names.len());
    for name in names {
        let now = current(txn, context)?;
        let found = Binder::new(&now, &[]).find_relation(name)?;
        let own = last_ident(name)?.value;
        let other = |kind: &str| {
            fail(SqlState::WRONG_OBJECT_TYPE, format!("\"{own}\" is not a view"))
                .with_hint(format!("Use DROP {} to remove a {kind}.", kind.to_uppercase()))
        };
        match found {
            None => not_there((SqlState::UNDEFINED_TABLE, "view"), name, if_exists, txn, context)?,
            Some(Relation::View(view)) => {
                if !super::owns_schema(view.schema, &now) {
                    now.authority.require_owner(view.owner, "view", &view.name)?;
                }
                all.push(view);
            }
            Some(Relation::Table(_)) => return Err(other("table")),
            Some(Relation::Sequence(_)) => return Err(other("sequence")),
            Some(Relation::Virtual(_)) => {
                let message = format!("permission denied: \"{own}\" is a system catalog");
                return Err(fail(SqlState::INSUFFICIENT_PRIVILEGE, message));
            }
        }
    }
    // Views that go together may be made of each other.
    let together: Vec<Oid> = all.iter().map(|view| view.oid).collect();
    for view in &all {
        let what = format!("view {}", view.name);
        drop_dependents((view.oid, None), &what, &together, cascade, txn, context).await?;
    }
    remove(&together, txn, context).await
}

/// Locks views and removes them.
pub(super) async fn remove(
    views: &[Oid],
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let Some(object) = views.iter().min().copied() else { return Ok(()) };
    for view in views {
        let lock = TableLockId::new(view.get());
        txn.lock_table(lock, TableLockMode::AccessExclusive, context.lock_wait).await?;
    }
    let mut catalog = change_of(object, txn, context).await?;
    for view in views {
        catalog.drop_view(*view).await?;
    }
    Ok(())
}

/// A view as messages name it: with its schema where the search path does not find it.
fn described_name(view: &ViewDescriptor, now: &AnalyzeContext) -> String {
    let schema = now.catalog.schema(view.schema).map(|schema| schema.name.as_str());
    let name = ObjectName::from(vec![Ident::new(view.name.clone())]);
    let found = Binder::new(now, &[]).find_relation(&name);
    let visible = matches!(found, Ok(Some(Relation::View(found))) if found.oid == view.oid);
    let schema = schema.filter(|_| !visible);
    format!("view {}", crate::pgcatalog::definition::qualified(schema, &view.name))
}

/// Drops the views that are made of a relation, or of one of its columns, or refuses that this goes because of them.
/// Views that go in the same statement, `together`, do not count.
pub(super) async fn drop_dependents(
    (relation, column): (Oid, Option<u32>),
    what: &str,
    together: &[Oid],
    cascade: bool,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let now = current(txn, context)?;
    let mut found: Vec<(Arc<ViewDescriptor>, String)> = Vec::new();
    let mut asked = vec![((relation, column), what.to_owned())];
    while let Some(((relation, column), what)) = asked.pop() {
        for view in now.catalog.views_of(relation, column) {
            if together.contains(&view.oid) || found.iter().any(|(known, _)| known.oid == view.oid) {
                continue;
            }
            asked.push(((view.oid, None), described_name(view, &now)));
            found.push((Arc::clone(view), what.clone()));
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    let name = |view: &Arc<ViewDescriptor>| described_name(view, &now);
    if !cascade {
        let details: Vec<String> =
            found.iter().map(|(view, what)| format!("{} depends on {what}", name(view))).collect();
        let message = format!("cannot drop {what} because other objects depend on it");
        return Err(fail(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message)
            .with_detail(details.join("\n"))
            .with_hint("Use DROP ... CASCADE to drop the dependent objects too."));
    }
    let notices: Vec<String> =
        found.iter().map(|(view, _)| format!("drop cascades to {}", name(view))).collect();
    let notice = match notices.as_slice() {
        [only] => fail(SqlState::SUCCESSFUL_COMPLETION, only.clone()),
        all => {
            let message = format!("drop cascades to {} other objects", all.len());
            fail(SqlState::SUCCESSFUL_COMPLETION, message).with_detail(all.join("\n"))
        }
    };
    context.session.notice(notice.with_severity(Severity::Notice));
    let views: Vec<Oid> = found.iter().map(|(view, _)| view.oid).collect();
    remove(&views, txn, context).await
}

/// 0A000 when a view uses a column whose type is to change.
pub(super) fn refuse_retyped(
    table: Oid,
    (name, column): (&str, u32),
    now: &AnalyzeContext,
) -> Result<(), SqlError> {
    let Some(view) = now.catalog.views_of(table, Some(column)).next() else { return Ok(()) };
    let message = "cannot alter type of a column used by a view or rule";
    let user = described_name(view, now);
    Err(fail(SqlState::FEATURE_NOT_SUPPORTED, message)
        .with_detail(format!("rule _RETURN on {user} depends on column \"{name}\"")))
}
