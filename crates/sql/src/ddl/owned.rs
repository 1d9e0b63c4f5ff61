//! REASSIGN OWNED and DROP OWNED, and what keeps a role from being dropped.

use std::collections::BTreeSet;

use rustydb_txn::Transaction;
use rustydb_types::ids::Oid;
use sqlparser::ast::{Ident, ObjectName};

use super::privileges::{change_owner, role_of};
use super::{change, current, drop, sequence, types, view};
use crate::bind::errors::fail;
use crate::catalog::CatalogSnapshot;
use crate::catalog::acl::Acl;
use crate::error::{SqlError, SqlState};
use crate::exec::ExecContext;
use crate::parse::privilege::OwnedChange;

/// What of a database a role owns or has privileges on, in PostgreSQL's words.
#[must_use]
pub(crate) fn objects_of(role: Oid, catalog: &CatalogSnapshot) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |owner: Oid, acl: Option<&Acl>, what: String| {
        if owner == role {
            found.push(format!("owner of {what}"));
        } else if acl.is_some_and(|acl| acl.names(role)) {
            found.push(format!("privileges for {what}"));
        }
    };
    for schema in catalog.schemas() {
        note(schema.owner, schema.acl.as_ref(), format!("schema {}", schema.name));
    }
    for table in catalog.tables() {
        note(table.owner, table.acl.as_ref(), format!("table {}", table.name));
        for column in table.columns.iter().filter(|_| table.owner != role) {
            let what = format!("column {} of table {}", column.name, table.name);
            note(table.owner, column.acl.as_ref(), what);
        }
    }
    for view in catalog.views() {
        note(view.owner, view.acl.as_ref(), format!("view {}", view.name));
    }
    for sequence in catalog.sequences() {
        note(sequence.owner, sequence.acl.as_ref(), format!("sequence {}", sequence.name));
    }
    for own in catalog.types() {
        note(own.owner, own.acl.as_ref(), format!("type {}", own.name));
    }
    for own in catalog.default_acls() {
        if own.role == role || own.acl.names(role) {
            found.push(format!("default privileges on new {}s", own.kind.word()));
        }
    }
    found
}

/// Executes REASSIGN OWNED or DROP OWNED.
pub(super) async fn execute(
    asked: &OwnedChange,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let now = current(txn, context)?;
    let found = |name| role_of(name, now.user_oid, context.system);
    let roles = asked.roles.iter().map(found).collect::<Result<BTreeSet<_>, _>>()?;
    let to = asked.to.as_ref().map(found).transpose()?;
    let verb = if to.is_some() { "reassign" } else { "drop" };
    for role in roles.iter().chain(&to) {
        if !now.authority.owns(*role) {
            let message = format!("permission denied to {verb} objects");
            return Err(fail(SqlState::INSUFFICIENT_PRIVILEGE, message));
        }
        if *role == crate::catalog::snapshot::BOOTSTRAP_ROLE && Some(*role) != to {
            let message = format!(
                "cannot {verb} objects owned by a role because they are required by the database system"
            );
            return Err(fail(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message));
        }
    }
    match to {
        Some(to) => reassign(&roles, to, txn, context).await,
        None => drop_all(&roles, asked.cascade, txn, context).await,
    }
}

async fn reassign(
    roles: &BTreeSet<Oid>,
    to: Oid,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let mut catalog = change(txn, context).await?;
    let now = current(catalog.txn, context)?;
    for table in now.catalog.tables().filter(|own| roles.contains(&own.owner)) {
        let mut changed = table.as_ref().clone();
        change_owner(&mut changed.owner, &mut changed.acl, to);
        catalog.put_table(&changed).await?;
    }
    for view in now.catalog.views().filter(|own| roles.contains(&own.owner)) {
        let mut changed = view.as_ref().clone();
        change_owner(&mut changed.owner, &mut changed.acl, to);
        catalog.put_view(&changed).await?;
    }
    for sequence in now.catalog.sequences().filter(|own| roles.contains(&own.owner)) {
        let mut changed = sequence.as_ref().clone();
        change_owner(&mut changed.owner, &mut changed.acl, to);
        catalog.put_sequence(&changed).await?;
    }
    for own in now.catalog.types().filter(|own| roles.contains(&own.owner)) {
        let mut changed = own.as_ref().clone();
        change_owner(&mut changed.owner, &mut changed.acl, to);
        catalog.put_type(&changed).await?;
    }
    for schema in now.catalog.schemas().filter(|own| roles.contains(&own.owner)) {
        let mut changed = schema.as_ref().clone();
        change_owner(&mut changed.owner, &mut changed.acl, to);
        catalog.put_schema(changed.oid, Some(&changed)).await?;
    }
    Ok(())
}

async fn drop_all(
    roles: &BTreeSet<Oid>,
    cascade: bool,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let now = current(txn, context)?;
    let name = |schema: Oid, name: &str| {
        let schema = now.catalog.schema(schema).map(|schema| schema.name.clone()).unwrap_or_default();
        ObjectName::from(vec![Ident::with_quote('"', schema), Ident::with_quote('"', name)])
    };
    let is_own = |owner: Oid| roles.contains(&owner);
    let views: Vec<_> = (now.catalog.views().filter(|own| is_own(own.owner)))
        .map(|own| name(own.schema, &own.name))
        .collect();
    let tables: Vec<_> = (now.catalog.tables().filter(|own| is_own(own.owner)))
        .map(|own| name(own.schema, &own.name))
        .collect();
    let sequences: Vec<_> = (now.catalog.sequences())
        .filter(|own| is_own(own.owner) && own.owned_by.is_none())
        .map(|own| name(own.schema, &own.name))
        .collect();
    let own_types: Vec<_> =
        (now.catalog.types().filter(|own| is_own(own.owner))).map(|own| own.as_ref().clone()).collect();
    let schemas: Vec<_> = (now.catalog.schemas().filter(|own| is_own(own.owner)))
        .map(|own| ObjectName::from(vec![Ident::with_quote('"', own.name.clone())]))
        .collect();
    view::drop(&views, true, cascade, txn, context).await?;
    drop::tables(&tables, true, cascade, txn, context).await?;
    sequence::drop(&sequences, true, cascade, txn, context).await?;
    types::drop_found(own_types, cascade, txn, context).await?;
    drop::schemas(&schemas, true, cascade, txn, context).await?;
    let mut catalog = change(txn, context).await?;
    let now = current(catalog.txn, context)?;
    let forget = |acl: &mut Option<Acl>| {
        let Some(acl) = acl else { return false };
        let named: Vec<Oid> = roles.iter().copied().filter(|role| acl.names(*role)).collect();
        named.iter().for_each(|role| acl.forget(*role));
        !named.is_empty()
    };
    for table in now.catalog.tables() {
        let mut changed = table.as_ref().clone();
        let mut is_changed = forget(&mut changed.acl);
        for column in &mut changed.columns {
            is_changed |= forget(&mut column.acl);
            column.acl.take_if(|acl| acl.0.is_empty());
        }
        if is_changed {
            catalog.put_table(&changed).await?;
        }
    }
    for view in now.catalog.views() {
        let mut changed = view.as_ref().clone();
        if forget(&mut changed.acl) {
            catalog.put_view(&changed).await?;
        }
    }
    for sequence in now.catalog.sequences() {
        let mut changed = sequence.as_ref().clone();
        if forget(&mut changed.acl) {
            catalog.put_sequence(&changed).await?;
        }
    }
    for own in now.catalog.types() {
        let mut changed = own.as_ref().clone();
        if forget(&mut changed.acl) {
            catalog.put_type(&changed).await?;
        }
    }
    for schema in now.catalog.schemas() {
        let mut changed = schema.as_ref().clone();
        if forget(&mut changed.acl) {
            catalog.put_schema(changed.oid, Some(&changed)).await?;
        }
    }
    for own in now.catalog.default_acls() {
        let mut acl = Some(own.acl.clone());
        if roles.contains(&own.role) {
            catalog.put_default_acl(own.oid, None).await?;
        } else if forget(&mut acl) {
            let changed = crate::catalog::acl::DefaultAcl { acl: acl.unwrap_or_default(), ..own.clone() };
            catalog.put_default_acl(own.oid, Some(&changed)).await?;
        }
    }
    Ok(())
}
