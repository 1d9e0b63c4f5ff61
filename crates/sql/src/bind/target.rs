//! What INSERT, UPDATE and DELETE write to: a table, or the table below a view that is simple enough.

use std::sync::Arc;

use rustydb_types::ids::Oid;
use sqlparser::ast::{Distinct, GroupByExpr, Ident, ObjectName, Query, Select, SetExpr, TableFactor};

use super::context::{Binder, Relation};
use super::errors::{at, fail};
use super::from::{narrow, own_name_start, rename, table_columns};
use super::kept::{BoundCheck, RowRules};
use super::scope::{Level, Scope, ScopeColumn};
use crate::catalog::TableDescriptor;
use crate::catalog::acl::Privileges;
use crate::catalog::view::{CheckOption, ViewDescriptor};
use crate::error::{SqlError, SqlState};
use crate::scalar::Expr;

/// What a statement does with the rows of its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
}

impl Change {
    /// The privilege that it takes.
    pub(crate) const fn privilege(self) -> Privileges {
        match self {
            Self::Insert => Privileges::INSERT,
            Self::Update => Privileges::UPDATE,
            Self::Delete => Privileges::DELETE,
        }
    }

    /// As errors say it: the verb, and the word of a trigger's event.
    const fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Insert => ("insert into", "inserting into", "INSERT"),
            Self::Update => ("update", "updating", "UPDATE"),
            Self::Delete => ("delete from", "deleting from", "DELETE"),
        }
    }
}

/// What a statement writes to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The table whose rows change.
    pub table: Arc<TableDescriptor>,
    /// The relation that the statement names.
    pub relation: Oid,
    /// The name of the relation that the statement names.
    pub name: String,
    /// Whether that is a view.
    pub is_view: bool,
    /// The columns that the statement sees, over a row of the table.
    columns: Vec<ScopeColumn>,
    /// The conditions of the views on the way, the lowest first, with their names.
    conditions: Vec<(String, Expr)>,
    /// What new rows have to satisfy because views ask for it.
    pub checks: Vec<BoundCheck>,
}

impl Target {
    fn of_table(table: Arc<TableDescriptor>) -> Self {
        let columns = table_columns(&table, &table.name, 0);
        let name = table.name.clone();
        let relation = table.oid;
        Self { table, relation, name, is_view: false, columns, conditions: Vec::new(), checks: Vec::new() }
    }

    /// The columns under another name of the relation, the values of the table's row beginning at `base`.
    pub(crate) fn columns(&self, alias: &str, base: usize) -> Vec<ScopeColumn> {
        let column = |column: &ScopeColumn| ScopeColumn {
            relation: Some(alias.to_owned()),
            expr: column.expr.clone().map_columns(&mut |index| index + base),
            ..column.clone()
        };
        self.columns.iter().map(column).collect()
    }

    /// What a row must satisfy to be one of the target's.
    pub(crate) fn condition(&self) -> Option<Expr> {
        let parts: Vec<Expr> = self.conditions.iter().map(|(_, condition)| condition.clone()).collect();
        (!parts.is_empty()).then(|| Expr::and(parts))
    }

    /// Notes which columns of it are read.
    pub(crate) fn read_by(&mut self, binder: &Binder<'_>) {
        let read = binder.need_read_back(self.relation);
        for column in &mut self.columns {
            column.read = Some(Arc::clone(&read));
        }
    }

    /// The numbers of columns, by their places in the table's row, where the statement names the table itself.
    pub(crate) fn numbers<'p>(&self, places: impl Iterator<Item = &'p usize>) -> Vec<u32> {
        if self.is_view {
            return Vec::new();
        }
        places.filter_map(|place| self.table.columns.get(*place)).map(|column| column.id.get()).collect()
    }

    /// How many columns the statement sees.
    pub(crate) fn width(&self) -> usize {
        self.columns.len()
    }

    /// The place in the table's row of a column that is to be written.
    pub(crate) fn place(&self, name: &Ident, change: Change) -> Result<usize, SqlError> {
        let found = self.columns.iter().position(|column| column.name == name.value).ok_or_else(|| {
            let message = format!("column \"{}\" of relation \"{}\" does not exist", name.value, self.name);
            at(fail(SqlState::UNDEFINED_COLUMN, message), name)
        })?;
        self.place_at(found, change)
    }

    /// The same of a column by its place among those that the statement sees.
    pub(crate) fn place_at(&self, column: usize, change: Change) -> Result<usize, SqlError> {
        match self.columns.get(column) {
            Some(ScopeColumn { expr: Expr::Column { index, .. }, .. }) => Ok(*index),
            column => {
                let name = column.map(|column| column.name.as_str()).unwrap_or_default();
                let (verb, ..) = change.words();
                let message = format!("cannot {verb} column \"{name}\" of view \"{}\"", self.name);
                Err(fail(SqlState::FEATURE_NOT_SUPPORTED, message).with_detail(
                    "View columns that are not columns of their base relation are not updatable.",
                ))
            }
        }
    }

    /// Whether some column can be written.
    fn is_writable(&self) -> bool {
        self.columns.iter().any(|column| matches!(column.expr, Expr::Column { .. }))
    }
}

/// Why rows of a view cannot be changed, as the query tells by its form.
fn obstacle(query: &Query, select: Option<&Select>) -> Option<&'static str> {
    let Some(select) = select else {
        let is_set = matches!(query.body.as_ref(), SetExpr::SetOperation { .. });
        return Some(if is_set {
            "Views containing UNION, INTERSECT, or EXCEPT are not automatically updatable."
        } else {
            "Views that do not select from a single table or view are not automatically updatable."
        });
    };
    let groups = !matches!(&select.group_by, GroupByExpr::Expressions(by, modifiers) if by.is_empty() && modifiers.is_empty());
    let obstacles = [
        (
            matches!(select.distinct, Some(Distinct::Distinct | Distinct::On(_))),
            "Views containing DISTINCT are not automatically updatable.",
        ),
        (groups, "Views containing GROUP BY are not automatically updatable."),
        (select.having.is_some(), "Views containing HAVING are not automatically updatable."),
        (query.with.is_some(), "Views containing WITH are not automatically updatable."),
        (
            query.limit_clause.is_some() || query.fetch.is_some(),
            "Views containing LIMIT or OFFSET are not automatically updatable.",
        ),
        (
            !matches!(select.from.as_slice(), [from] if from.joins.is_empty()
                && matches!(from.relation, TableFactor::Table { args: None, .. })),
            "Views that do not select from a single table or view are not automatically updatable.",
        ),
    ];
    obstacles.into_iter().find(|(is_there, _)| *is_there).map(|(_, why)| why)
}

/// Why rows of a view with this query cannot be changed, as far as its form tells.
pub(crate) fn not_updatable(query: &Query) -> Option<&'static str> {
    obstacle(query, crate::parse::lone_select(query))
}

impl Binder<'_> {
    /// What a statement writes to by this name.
    ///
    /// # Errors
    /// 42P01 when there is no such relation; 42809 when it is neither a table nor a view; 55000 for a view that is not
    /// simple enough.
    pub(crate) fn target(&self, name: &ObjectName, change: Change) -> Result<Target, SqlError> {
        match self.relation(name)? {
            Relation::View(view) => self.view_target(&view, change),
            _ => Ok(Target::of_table(self.table(name)?)),
        }
    }

    fn view_target(&self, view: &Arc<ViewDescriptor>, change: Change) -> Result<Target, SqlError> {
        let refused = |why: &str| {
            let (verb, doing, event) = change.words();
            fail(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, format!("cannot {verb} view \"{}\"", view.name))
                .with_detail(why)
                .with_hint(format!(
                    "To enable {doing} the view, provide an INSTEAD OF {event} trigger or an unconditional ON {event} DO INSTEAD rule."
                ))
        };
        const NO_TABLE: &str =
            "Views that do not select from a single table or view are not automatically updatable.";
        self.in_view(view, |query| {
            let select = crate::parse::lone_select(query);
            if let Some(why) = obstacle(query, select) {
                return Err(refused(why));
            }
            let Some((select, TableFactor::Table { name, alias, .. })) =
                select.and_then(|select| Some((select, &select.from.first()?.relation)))
            else {
                return Err(refused(NO_TABLE));
            };
            let Some(known) = self.known_relation(own_name_start(name)) else {
                return Err(refused(NO_TABLE));
            };
            let mut target = match self.relation_of(&known)? {
                Relation::Table(table) => {
                    self.need(table.oid, change.privilege(), Vec::new());
                    Target::of_table(table)
                }
                Relation::View(below) => {
                    self.need(below.oid, change.privilege(), Vec::new());
                    self.view_target(&below, change)?
                }
                Relation::Sequence(_) | Relation::Virtual(_) => return Err(refused(NO_TABLE)),
            };
            let visible =
                alias.as_ref().map_or_else(|| known.visible.clone(), |alias| alias.name.value.clone());
            let level = Level::default();
            let mut scope = Scope { columns: target.columns(&visible, 0), level: &level };
            narrow(&mut scope.columns, Some(&known));
            rename(&mut scope, alias.as_ref(), &visible)?;
            let items =
                self.bind_projection(&select.projection, &scope, &scope).map_err(|error| {
                    match error.state() {
                        SqlState::GROUPING_ERROR => {
                            refused("Views that return aggregate functions are not automatically updatable.")
                        }
                        SqlState::WINDOWING_ERROR => {
                            refused("Views that return window functions are not automatically updatable.")
                        }
                        SqlState::FEATURE_NOT_SUPPORTED => refused(
                            "Views that return set-returning functions are not automatically updatable.",
                        ),
                        _ => error,
                    }
                })?;
            if let Some(selection) = &select.selection {
                let condition = self.bind_condition(selection, &scope, "WHERE")?;
                target.conditions.push((view.name.clone(), condition));
            }
            let check = |(name, expr): &(String, Expr)| BoundCheck {
                name: name.clone(),
                expr: expr.clone(),
                is_view: true,
            };
            match view.check_option {
                Some(CheckOption::Cascaded) => {
                    target.checks = target.conditions.iter().map(check).collect();
                }
                Some(CheckOption::Local) => {
                    let own = target.conditions.last().filter(|_| select.selection.is_some()).map(check);
                    target.checks.extend(own);
                }
                None => {}
            }
            let columns = items.into_iter().zip(&view.columns).zip(1..).map(|((item, own), number)| {
                let expr = item.exprs.into_iter().next().unwrap_or_else(Expr::null);
                ScopeColumn {
                    relation: Some(view.name.clone()),
                    name: own.name.clone(),
                    data_type: expr.ty(),
                    expr,
                    merged: false,
                    hidden: false,
                    nullable: false,
                    is_whole: false,
                    origin: Some((view.oid.get(), number)),
                    read: None,
                }
            });
            target.columns = columns.collect();
            target.name.clone_from(&view.name);
            target.relation = view.oid;
            target.is_view = true;
            if change != Change::Delete && !target.is_writable() {
                return Err(refused("Views that have no updatable columns are not automatically updatable."));
            }
            Ok(target)
        })
    }

    /// What is computed of rows that are written to a target: constraints of its table, then what views ask of them.
    pub(crate) fn bind_target_rules(&self, target: &Target) -> Result<Arc<RowRules>, SqlError> {
        let rules = self.bind_rules(&target.table)?;
        if target.checks.is_empty() {
            return Ok(rules);
        }
        // The lowest view is asked first.
        let checks = rules.checks.iter().chain(&target.checks).cloned().collect::<Vec<_>>().into();
        Ok(Arc::new(RowRules { checks, ..rules.as_ref().clone() }))
    }
}
