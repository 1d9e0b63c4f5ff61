//! CHECK constraints: their definition, their names, and the rows that are there already.

use std::sync::Arc;

use rustydb_txn::Transaction;
use rustydb_types::ids::Oid;
use rustydb_types::value::Value;
use sqlparser::ast::{CheckConstraint, Expr as AstExpr, Ident, Spanned, TableConstraint};

use super::{alter, change_of, current};
use crate::bind::errors::{fail, syntax};
use crate::bind::kept::{self, BoundCheck};
use crate::bind::{AnalyzeContext, Binder};
use crate::catalog::store::CatalogWriter;
use crate::catalog::{CatalogSnapshot, CheckDescriptor, TableDescriptor};
use crate::error::{SqlError, SqlState};
use crate::exec::ExecContext;

/// Longest name of an object, in bytes.
const NAME_SIZE_MAX: usize = 63;

/// A CHECK constraint that is to be created.
#[derive(Clone, Debug)]
pub(super) struct CheckSpec {
    /// The written name, if any.
    name: Option<String>,
    /// The condition.
    expr: AstExpr,
    /// NO INHERIT: kept, though nothing inherits.
    no_inherit: bool,
    /// NOT VALID: the rows that are there are not looked at.
    pub not_valid: bool,
}

impl CheckSpec {
    /// The constraint as it is written behind a column or among them.
    pub(super) fn new(name: Option<&Ident>, check: &CheckConstraint) -> Result<Self, SqlError> {
        if check.enforced.is_some() {
            return Err(syntax("syntax error at or near \"ENFORCED\""));
        }
        Ok(Self {
            name: name.or(check.name.as_ref()).map(|name| name.value.clone()),
            expr: check.expr.as_ref().clone(),
            no_inherit: check.no_inherit,
            not_valid: false,
        })
    }

    /// The CHECK that a table constraint is, if it is one.
    pub(super) fn of_constraint(constraint: &TableConstraint) -> Result<Option<Self>, SqlError> {
        match constraint {
            TableConstraint::Check(check) => Self::new(None, check).map(Some),
            _ => Ok(None),
        }
    }
}

/// Whether a constraint of the table has this name.
pub(super) fn has_constraint(table: &TableDescriptor, name: &str) -> bool {
    table.checks.iter().any(|check| check.name == name)
        || table.foreign_keys.iter().any(|key| key.name == name)
        || table.indexes.iter().any(|index| index.constraint.is_some() && index.name == name)
}

/// Whether a constraint of any table in the schema has this name; `table` is read as it will be.
pub(super) fn is_taken(now: &CatalogSnapshot, table: &TableDescriptor, name: &str) -> bool {
    has_constraint(table, name)
        || (now.tables()).any(|other| {
            other.schema == table.schema && other.oid != table.oid && has_constraint(other, name)
        })
}

/// 42710 for a constraint that the table has already.
pub(super) fn constraint_exists(name: &str, table: &str) -> SqlError {
    fail(SqlState::DUPLICATE_OBJECT, format!("constraint \"{name}\" for relation \"{table}\" already exists"))
}

/// The first name of the form `table_column_check`, with this last word, that no constraint of the schema has.
pub(super) fn free_name(
    now: &CatalogSnapshot,
    table: &TableDescriptor,
    column: Option<&str>,
    word: &str,
) -> String {
    let mut number = 0;
    loop {
        let label = if number == 0 { word.to_owned() } else { format!("{word}{number}") };
        let name = object_name(&table.name, column, &label);
        if !is_taken(now, table, &name) {
            return name;
        }
        number += 1;
    }
}

/// Names joined by `_`, the longer of the first two cut until all fits: `makeObjectName`.
fn object_name(first: &str, second: Option<&str>, label: &str) -> String {
    let mut first = first.to_owned();
    let mut second = second.map(str::to_owned);
    loop {
        let parts = [Some(first.as_str()), second.as_deref(), Some(label)];
        let name = parts.into_iter().flatten().collect::<Vec<_>>().join("_");
        if name.len() <= NAME_SIZE_MAX {
            return name;
        }
        match &mut second {
            Some(second) if second.len() >= first.len() => second.pop(),
            _ => first.pop(),
        };
    }
}

/// Adds constraints to a table's descriptor. Among those of one CREATE TABLE the message for a name that occurs twice
/// is another one than for a name that the table has already.
pub(super) fn add(
    catalog: &mut CatalogWriter<'_>,
    now: &AnalyzeContext,
    table: &mut TableDescriptor,
    specs: &[CheckSpec],
    is_new_table: bool,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    for spec in specs {
        let kept = kept::keep_check(now, &spec.expr, table, &context.eval(&[]))?;
        let name = match &spec.name {
            Some(name) if has_constraint(table, name) => {
                return Err(if is_new_table {
                    let message = format!("check constraint \"{name}\" already exists");
                    fail(SqlState::DUPLICATE_OBJECT, message)
                } else {
                    constraint_exists(name, &table.name)
                });
            }
            Some(name) => name.clone(),
            None => {
                let column = match kept.columns.as_slice() {
                    [only] => table.column_index_of(*only).and_then(|place| table.columns.get(place)),
                    _ => None,
                };
                free_name(&now.catalog, table, column.map(|column| column.name.as_str()), "check")
            }
        };
        let oid: Oid = catalog.new_oid()?;
        table.checks.push(CheckDescriptor {
            oid,
            name,
            expr: kept.text,
            columns: kept.columns,
            validated: !spec.not_valid,
            no_inherit: spec.no_inherit,
        });
    }
    Ok(())
}

/// Checks, bound, of which the rows that are there are asked.
pub(super) fn bound(
    table: &TableDescriptor,
    wanted: impl Fn(&CheckDescriptor) -> bool,
    context: &ExecContext<'_>,
) -> Result<Arc<[BoundCheck]>, SqlError> {
    let mut asked = table.clone();
    asked.checks.retain(wanted);
    Binder::new(context.analyze, &[]).bind_checks(&asked)
}

/// Refuses a row that is there and fails one of the constraints.
pub(super) fn check_row(
    table: &TableDescriptor,
    checks: &[BoundCheck],
    row: &[Value],
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    for check in checks {
        if check.expr.eval(row, &context.eval(&[]))? == Value::Bool(false) {
            let message = format!(
                "check constraint \"{}\" of relation \"{}\" is violated by some row",
                check.name, table.name
            );
            let schema = context.analyze.catalog.schema(table.schema);
            let schema = schema.map(|schema| schema.name.clone()).unwrap_or_default();
            return Err(fail(SqlState::CHECK_VIOLATION, message)
                .with_table(schema, table.name.clone())
                .with_constraint(check.name.clone()));
        }
    }
    Ok(())
}

/// Writes the conditions anew for other names of the columns.
pub(super) fn rename_columns(former: &TableDescriptor, table: &mut TableDescriptor) -> Result<(), SqlError> {
    for (place, check) in former.checks.iter().enumerate() {
        let expr = kept::renamed(&check.expr, former, table)?;
        if let Some(check) = table.checks.get_mut(place) {
            check.expr = expr;
        }
    }
    Ok(())
}

/// Writes the conditions anew for other types of the columns.
pub(super) fn retype_columns(table: &mut TableDescriptor) -> Result<(), SqlError> {
    let texts = table.checks.iter().map(|check| kept::retyped(&check.expr, table));
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    for (check, text) in table.checks.iter_mut().zip(texts) {
        check.expr = text;
    }
    Ok(())
}

/// Puts constraints of a statement in the order in which they stand in it, which the parser gives up.
pub(super) fn sort(specs: &mut [CheckSpec]) {
    let start = |spec: &CheckSpec| spec.expr.span().start;
    if specs.iter().all(|spec| start(spec).line > 0) {
        specs.sort_by_key(|spec| (start(spec).line, start(spec).column));
    }
}

/// RENAME CONSTRAINT of a CHECK; false when the table has none of this name.
pub(super) async fn rename(
    old: &str,
    new: &str,
    table: &mut TableDescriptor,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<bool, SqlError> {
    if !table.checks.iter().any(|check| check.name == old) {
        return Ok(false);
    }
    if has_constraint(table, new) {
        return Err(constraint_exists(new, &table.name));
    }
    for check in table.checks.iter_mut().filter(|check| check.name == old) {
        new.clone_into(&mut check.name);
    }
    change_of(table.oid, txn, context).await?.put_table(table).await?;
    Ok(true)
}

/// ADD CONSTRAINT of a CHECK: names of those that the rows are to be asked of.
async fn append(
    specs: &[CheckSpec],
    table: &mut TableDescriptor,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<Vec<Oid>, SqlError> {
    let before = table.checks.len();
    let mut catalog = change_of(table.oid, txn, context).await?;
    let now = current(catalog.txn, context)?;
    add(&mut catalog, &now, table, specs, false, context)?;
    catalog.put_table(table).await?;
    Ok(table.checks.iter().skip(before).filter(|check| check.validated).map(|check| check.oid).collect())
}

/// ADD CONSTRAINT of CHECKs, which the rows that are there are asked of unless it is NOT VALID.
pub(super) async fn add_to_table(
    specs: &[CheckSpec],
    table: &mut TableDescriptor,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let asked = append(specs, table, txn, context).await?;
    if asked.is_empty() { Ok(()) } else { alter::check_rows(table, &asked, txn, context).await }
}

/// VALIDATE CONSTRAINT: the rows that were there before a NOT VALID constraint are asked.
pub(super) async fn validate(
    name: &str,
    table: &mut TableDescriptor,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let Some(check) = table.checks.iter_mut().find(|check| check.name == name) else {
        if !has_constraint(table, name) {
            return Err(alter::no_constraint(name, &table.name));
        }
        let message = format!(
            "constraint \"{name}\" of relation \"{}\" is not a foreign key or check constraint",
            table.name
        );
        return Err(fail(SqlState::WRONG_OBJECT_TYPE, message));
    };
    if check.validated {
        return Ok(());
    }
    check.validated = true;
    let asked = [check.oid];
    alter::save(table, txn, context).await?;
    alter::check_rows(table, &asked, txn, context).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_as_postgresql_cuts_them() {
        assert_eq!(object_name("t", Some("a"), "check"), "t_a_check");
        assert_eq!(object_name("t", None, "check1"), "t_check1");
        let long = object_name(&"t".repeat(60), Some(&"c".repeat(40)), "check");
        assert_eq!(long, format!("{}_{}_check", "t".repeat(28), "c".repeat(28)));
    }
}
