//! CREATE TABLE ... (LIKE other): what the other table has, written as SQL and parsed as if it had been written there.

use rustydb_types::ids::{ColumnId, Oid};
use sqlparser::ast::{CreateIndex, CreateTable, Ident, ObjectName, Statement};

use crate::bind::context::Relation;
use crate::bind::errors::{at, fail, undefined_relation};
use crate::bind::privilege::denied;
use crate::bind::types::{by_number, kept_name};
use crate::bind::{AnalyzeContext, Binder};
use crate::catalog::acl::{AclKind, Privileges};
use crate::catalog::{Identity, IndexDescriptor, IndexKind, TableDescriptor, TypeRef, ViewDescriptor};
use crate::error::{SqlError, SqlState};
use crate::parse::like::{Like, of_column};
use crate::pgcatalog::definition::{self, quoted};

/// `pg_class`, the class of comments on tables and columns.
const CLASS_RELATION: u32 = 1259;

/// A CREATE TABLE without LIKE, and what follows it.
#[derive(Debug)]
pub(super) struct Expanded {
    /// The table.
    pub create: CreateTable,
    /// Indexes without a constraint.
    pub indexes: Vec<CreateIndex>,
    /// Comments on its columns, by their names.
    pub comments: Vec<(String, String)>,
}

/// Puts what other tables have in the place of each LIKE; none when there is none.
///
/// # Errors
/// As PostgreSQL.
pub(super) fn expanded(create: &CreateTable, now: &AnalyzeContext) -> Result<Option<Expanded>, SqlError> {
    if create.columns.iter().all(|column| of_column(column).is_none()) {
        return Ok(None);
    }
    let mut expanded = Expanded { create: create.clone(), indexes: Vec::new(), comments: Vec::new() };
    expanded.create.columns.clear();
    for column in &create.columns {
        let Some(like) = of_column(column) else {
            expanded.create.columns.push(column.clone());
            continue;
        };
        let parts = like.name.iter().map(|part| Ident::with_quote('"', part.clone())).collect::<Vec<_>>();
        let name = ObjectName::from(parts);
        match Binder::new(now, &[]).find_relation(&name)? {
            Some(Relation::Table(table)) => {
                let may = |one| now.authority.may(one, AclKind::Table, table.owner, table.acl.as_ref());
                if !may(Privileges::SELECT) {
                    return Err(denied("table", &table.name));
                }
                add_table(&mut expanded, &table, &like, now)?;
            }
            Some(Relation::View(view)) => add_view(&mut expanded, &view)?,
            Some(_) => {
                let own = like.name.last().cloned().unwrap_or_default();
                let message = format!("relation \"{own}\" is invalid in LIKE clause");
                return Err(fail(SqlState::WRONG_OBJECT_TYPE, message));
            }
            None => return Err(at(undefined_relation(&name), &column.name)),
        }
    }
    Ok(Some(expanded))
}

fn type_text(stored: TypeRef) -> String {
    if stored.is_domain() { by_number(stored.oid) } else { kept_name(stored.data_type()) }
}

/// Parses the elements of a table, and adds them.
fn add(expanded: &mut Expanded, elements: &[String]) -> Result<(), SqlError> {
    let text = format!("CREATE TABLE t ({})", elements.join(", "));
    match crate::parse::parse(&text)?.pop() {
        Some(Statement::CreateTable(parsed)) => {
            expanded.create.columns.extend(parsed.columns);
            expanded.create.constraints.extend(parsed.constraints);
            Ok(())
        }
        _ => Err(SqlError::internal("what LIKE copies is no table")),
    }
}

fn add_view(expanded: &mut Expanded, view: &ViewDescriptor) -> Result<(), SqlError> {
    let columns = view.columns.iter();
    let elements: Vec<String> =
        columns.map(|column| format!("{} {}", quoted(&column.name), type_text(column.data_type))).collect();
    add(expanded, &elements)
}

fn add_table(
    expanded: &mut Expanded,
    table: &TableDescriptor,
    like: &Like,
    now: &AnalyzeContext,
) -> Result<(), SqlError> {
    let including = like.including;
    let in_primary = |id: ColumnId| {
        table.primary_key().is_some_and(|primary| primary.key.iter().any(|part| part.column == id))
    };
    let mut elements = Vec::new();
    for column in &table.columns {
        let mut text = format!("{} {}", quoted(&column.name), type_text(column.data_type));
        if column.not_null || in_primary(column.id) {
            text.push_str(" NOT NULL");
        }
        if let Some(identity) = column.identity.filter(|_| including.identity) {
            text.push_str(&identity_text(table.oid, column.id, identity, now));
        } else if let Some(generated) = column.generated.as_ref().filter(|_| including.generated) {
            text.push_str(&format!(" GENERATED ALWAYS AS ({}) STORED", generated.as_str()));
        } else if let Some(default) = &column.default
            && including.defaults
            && column.identity.is_none()
            && column.generated.is_none()
        {
            text.push_str(&format!(" DEFAULT {}", default.as_str()));
        }
        elements.push(text);
    }
    if including.constraints {
        for check in &table.checks {
            let name = quoted(&check.name);
            let suffix = if check.no_inherit { " NO INHERIT" } else { "" };
            elements.push(format!("CONSTRAINT {name} CHECK ({}){suffix}", check.expr.as_str()));
        }
    }
    let name = |id: ColumnId| {
        let column = table.column_index_of(id).and_then(|place| table.columns.get(place));
        column.map(|column| quoted(&column.name))
    };
    for index in table.indexes.iter().filter(|_| including.indexes) {
        match index.constraint {
            Some(_) => elements.push(constraint_text(index, &name)),
            None => expanded.indexes.push(index_of(table, index, &expanded.create.name)?),
        }
    }
    if including.comments {
        for column in &table.columns {
            if let Some(comment) = now.catalog.comment(CLASS_RELATION, table.oid, column.id.get()) {
                expanded.comments.push((column.name.clone(), comment.to_owned()));
            }
        }
    }
    add(expanded, &elements)
}

fn identity_text(table: Oid, column: ColumnId, identity: Identity, now: &AnalyzeContext) -> String {
    let how = if identity == Identity::Always { "ALWAYS" } else { "BY DEFAULT" };
    let options = now.catalog.sequences_of(table, Some(column)).next().map_or_else(String::new, |own| {
        let cycle = if own.cycle { "CYCLE" } else { "NO CYCLE" };
        format!(
            " (INCREMENT BY {} MINVALUE {} MAXVALUE {} START WITH {} CACHE {} {cycle})",
            own.increment, own.min, own.max, own.start, own.cache
        )
    });
    format!(" GENERATED {how} AS IDENTITY{options}")
}

fn constraint_text(index: &IndexDescriptor, name: &impl Fn(ColumnId) -> Option<String>) -> String {
    let columns =
        |ids: &mut dyn Iterator<Item = ColumnId>| ids.filter_map(name).collect::<Vec<_>>().join(", ");
    let kind = if index.kind == IndexKind::Primary { "PRIMARY KEY" } else { "UNIQUE" };
    let mut text = format!("{kind} ({})", columns(&mut index.key.iter().map(|part| part.column)));
    if !index.include.is_empty() {
        text.push_str(&format!(" INCLUDE ({})", columns(&mut index.include.iter().copied())));
    }
    text
}

/// An index of a table as one of another, with a name that is still to be found.
fn index_of(
    table: &TableDescriptor,
    index: &IndexDescriptor,
    other: &ObjectName,
) -> Result<CreateIndex, SqlError> {
    let text = definition::index(table, index, None, false);
    let (_, rest) = text.split_once(" USING ").ok_or_else(|| SqlError::internal("an index has no method"))?;
    let unique = if index.is_unique() { "UNIQUE " } else { "" };
    let parsed = crate::parse::parse(&format!("CREATE {unique}INDEX ON t USING {rest}"))?.pop();
    match parsed {
        Some(Statement::CreateIndex(mut create)) => {
            create.table_name = other.clone();
            Ok(create)
        }
        _ => Err(SqlError::internal("what LIKE copies is no index")),
    }
}
