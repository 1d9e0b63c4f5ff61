//! INSERT, UPDATE, DELETE and SELECT ... FOR UPDATE.

use std::sync::Arc;

use rustydb_txn::RowLock;
use rustydb_types::value::Value;
use sqlparser::ast::{
    self, Assignment, AssignmentTarget, ConflictTarget, Delete, Expr as AstExpr, FromTable, Ident, Insert,
    LockType, NonBlock, ObjectName, OnConflictAction, OnInsert, Query, Select, SelectItem, SetExpr, Spanned,
    TableFactor, TableObject, TableWithJoins, Update, UpdateTableFromKind,
};

use super::context::{Binder, TableUse};
use super::errors::{at, fail, syntax, undefined_column, unsupported};
use super::from::{column_type, full_scan, last_ident};
use super::query::{order_by_exprs, sorted};
use super::scope::{Level, Scope};
use super::select::strip;
use super::target::{Change, Target};
use crate::catalog::acl::Privileges;
use crate::catalog::{ColumnDescriptor, Identity, TableDescriptor};
use crate::error::{SqlError, SqlState};
use crate::plan::path::{conjuncts, implies};
use crate::plan::statement::{
    Action, ConflictAction, DeletePlan, InsertPlan, LockPlan, LockedTable, RowWait, UpdatePlan,
};
use crate::plan::{ColumnInfo, Join, JoinAlgorithm, JoinKind, Node};
use crate::scalar::Expr;

/// A bound statement with the columns that it returns.
pub(crate) type BoundAction = (Action, Vec<ColumnInfo>);

/// The expressions of a lone SELECT; none when what it selects cannot be counted before names are resolved.
fn select_list(query: &Query) -> Vec<&AstExpr> {
    let SetExpr::Select(select) = query.body.as_ref() else { return Vec::new() };
    let expr = |item| match item {
        &SelectItem::UnnamedExpr(ref expr) | &SelectItem::ExprWithAlias { ref expr, .. } => Some(expr),
        _ => None,
    };
    select.projection.iter().map(expr).collect::<Option<_>>().unwrap_or_default()
}

/// The columns that an INSERT names, and what becomes of values for identity columns among them.
struct Targets {
    places: Vec<usize>,
    overriding: Overriding,
}

/// The OVERRIDING clause of an INSERT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overriding {
    Nothing,
    /// A given value counts, also where a column is generated always.
    SystemValue,
    /// A given value is passed over for the one that is generated.
    UserValue,
}

impl Overriding {
    /// The parser has no word for the clause: see `parse::normalise`.
    fn of(insert: &Insert) -> Self {
        match (insert.overwrite, insert.has_table_keyword) {
            (true, _) => Self::SystemValue,
            (false, true) => Self::UserValue,
            (false, false) => Self::Nothing,
        }
    }

    /// Whether a value that is given for a column counts.
    fn takes(self, column: &ColumnDescriptor) -> Result<bool, SqlError> {
        if column.generated.is_some() {
            let message = format!("cannot insert a non-DEFAULT value into column \"{}\"", column.name);
            return Err(fail(SqlState::GENERATED_ALWAYS, message).with_detail(generated(&column.name)));
        }
        match (column.identity, self) {
            (None, _) | (_, Self::SystemValue) | (Some(Identity::ByDefault), Self::Nothing) => Ok(true),
            (Some(_), Self::UserValue) => Ok(false),
            (Some(Identity::Always), Self::Nothing) => {
                let message = format!("cannot insert a non-DEFAULT value into column \"{}\"", column.name);
                Err(fail(SqlState::GENERATED_ALWAYS, message)
                    .with_detail(always(&column.name))
                    .with_hint("Use OVERRIDING SYSTEM VALUE to override."))
            }
        }
    }
}

fn generated(column: &str) -> String {
    format!("Column \"{column}\" is a generated column.")
}

fn always(column: &str) -> String {
    format!("Column \"{column}\" is an identity column defined as GENERATED ALWAYS.")
}

/// 42P10 where no index is meant.
fn no_constraint() -> SqlError {
    let message = "there is no unique or exclusion constraint matching the ON CONFLICT specification";
    fail(SqlState::INVALID_COLUMN_REFERENCE, message)
}

impl Binder<'_> {
    /// Binds an INSERT.
    pub(crate) fn bind_insert(&self, insert: &Insert) -> Result<BoundAction, SqlError> {
        let TableObject::TableName(name) = &insert.table else {
            return Err(unsupported("INSERT into this target"));
        };
        let mut target = self.target(name, Change::Insert)?;
        target.read_by(self);
        let table = Arc::clone(&target.table);
        self.note_table(table.oid, TableUse::Write);
        let level = Level::default();
        let alias = insert
            .table_alias
            .as_ref()
            .map_or_else(|| target.name.clone(), |alias| alias.alias.value.clone());
        let targets = self.insert_targets(&target, insert)?;
        let is_given = insert.source.is_some();
        let written = if is_given { target.numbers(targets.iter()) } else { Vec::new() };
        self.need(target.relation, Privileges::INSERT, written);
        let targets = Targets { places: targets, overriding: Overriding::of(insert) };
        let defaults = self.bind_defaults(&table)?;
        let input = match &insert.source {
            None => Node::Values { rows: vec![defaults.clone()], width: defaults.len() },
            Some(query) => self.insert_source(&table, query, &targets, &insert.columns, &defaults, &level)?,
        };
        let scope = Scope { columns: target.columns(&alias, 0), level: &level };
        let on_conflict = match &insert.on {
            None => None,
            Some(OnInsert::OnConflict(conflict)) => {
                Some(self.bind_conflict(&target, &alias, conflict, &level)?)
            }
            Some(_) => return Err(unsupported("ON DUPLICATE KEY UPDATE")),
        };
        let (returning, columns) = self.bind_returning(insert.returning.as_deref(), &scope)?;
        let upserted = on_conflict.as_ref().and_then(|action| action.update.as_ref());
        let upserted = upserted.into_iter().flat_map(|(assignments, _)| assignments);
        let given = targets.places.iter().filter(|_| is_given).copied();
        let rules = self.bind_target_rules(&target)?.giving(given.chain(upserted.map(|(place, _)| *place)));
        // An upsert may change any of the columns that it names.
        let references = match on_conflict.as_ref().and_then(|action| action.update.as_ref()) {
            Some(_) => self.references_of_upsert(&table)?,
            None => self.references_of_insert(&table)?,
        };
        let plan = InsertPlan { table, input, rules, references, on_conflict, returning };
        Ok((Action::Insert(Box::new(plan)), columns))
    }

    /// The places of the columns that an INSERT names, all when it names none.
    fn insert_targets(&self, target: &Target, insert: &Insert) -> Result<Vec<usize>, SqlError> {
        let names = insert.columns.as_slice();
        if names.is_empty() {
            let given = match insert.source.as_deref().map(|query| (query, query.body.as_ref())) {
                None => 0,
                Some((_, SetExpr::Values(values))) => values.rows.first().map_or(0, |row| row.content.len()),
                Some((query, _)) if target.is_view => match select_list(query).len() {
                    0 => target.width(),
                    count => count,
                },
                Some(_) => target.width(),
            };
            let count = if target.is_view { given.min(target.width()) } else { target.width() };
            return (0..count).map(|column| target.place_at(column, Change::Insert)).collect();
        }
        let mut targets = Vec::with_capacity(names.len());
        for name in names {
            let ident = last_ident(name)?;
            let place = target.place(&ident, Change::Insert)?;
            if targets.contains(&place) {
                let message = format!("column \"{}\" specified more than once", ident.value);
                return Err(at(fail(SqlState::DUPLICATE_COLUMN, message), &ident));
            }
            targets.push(place);
        }
        Ok(targets)
    }

    /// The default of each column, brought to its type.
    pub(crate) fn bind_defaults(&self, table: &TableDescriptor) -> Result<Vec<Expr>, SqlError> {
        let level = Level::default();
        let place = Scope::empty(&level);
        table
            .columns
            .iter()
            .map(|column| {
                let ty = column_type(column.data_type);
                let default = column.default.clone().or_else(|| self.domain_default(column.data_type));
                match default {
                    None => Ok(Expr::constant(Value::Null, ty)),
                    Some(sql) => {
                        let expr = self.bind_expr(&crate::parse::parse_expr(sql.as_str())?, &place)?;
                        self.coerce_assignment(expr, ty, &column.name)
                    }
                }
            })
            .collect()
    }

    /// The rows to insert, as wide as the table.
    fn insert_source(
        &self,
        table: &TableDescriptor,
        query: &Query,
        targets: &Targets,
        written: &[ObjectName],
        defaults: &[Expr],
        level: &Level<'_>,
    ) -> Result<Node, SqlError> {
        let Targets { places: targets, overriding } = targets;
        let checked =
            |place: usize| table.columns.get(place).map_or(Ok(true), |column| overriding.takes(column));
        // The first expression without a column is where there are too many.
        let check_count = |count: usize, surplus: Option<&AstExpr>| {
            if count > targets.len() {
                let error = syntax("INSERT has more expressions than target columns");
                Err(surplus.map_or(error.clone(), |surplus| at(error, surplus)))
            } else if count < targets.len() && !written.is_empty() {
                let error = syntax("INSERT has more target columns than expressions");
                let without = written.get(count).and_then(|name| name.0.last()?.as_ident());
                Err(without.map_or(error.clone(), |name| at(error, name)))
            } else {
                Ok(())
            }
        };
        let target = |place: usize| {
            table.columns.get(place).map(|column| (column_type(column.data_type), column.name.as_str()))
        };
        if let SetExpr::Values(values) = query.body.as_ref()
            && query.with.is_none()
            && query.order_by.is_none()
            && query.limit_clause.is_none()
        {
            let place = Scope::empty(level);
            let mut rows = Vec::with_capacity(values.rows.len());
            let width = values.rows.first().map_or(0, |row| row.content.len());
            for source in &values.rows {
                if source.content.len() != width {
                    return Err(syntax("VALUES lists must all be the same length"));
                }
                check_count(source.content.len(), source.content.get(targets.len()))?;
                let mut row = defaults.to_vec();
                for (expr, column) in source.content.iter().zip(targets) {
                    if is_default(expr) || !checked(*column)? {
                        continue;
                    }
                    let bound = self.bind_expr(expr, &place)?;
                    if let (Some(slot), Some((ty, name))) = (row.get_mut(*column), target(*column)) {
                        *slot = self.coerce_assignment(bound, ty, name).map_err(|error| at(error, expr))?;
                    }
                }
                rows.push(row);
            }
            return Ok(Node::Values { rows, width: defaults.len() });
        }
        let (input, columns) = self.bind_query(query, level)?;
        let selected = select_list(query);
        check_count(columns.len(), selected.get(targets.len()).copied())?;
        let mut exprs = defaults.to_vec();
        // An untyped literal in the select list takes the type of its target, so it is settled where it stands.
        let (input, sources): (Node, Vec<Expr>) = match input {
            Node::Project { input, exprs } => (*input, exprs),
            other => {
                let columns = columns.iter().enumerate();
                let exprs =
                    columns.map(|(index, column)| Expr::Column { index, ty: column.data_type }).collect();
                (other, exprs)
            }
        };
        for (place, (source, column)) in sources.into_iter().zip(targets).enumerate() {
            if !checked(*column)? {
                continue;
            }
            if let (Some(slot), Some((ty, name))) = (exprs.get_mut(*column), target(*column)) {
                *slot = self
                    .coerce_assignment(source, ty, name)
                    .map_err(|error| selected.get(place).map_or(error.clone(), |expr| at(error, *expr)))?;
            }
        }
        Ok(Node::Project { input: Box::new(input), exprs })
    }

    /// The unique indexes over just these columns, without an expression or a condition.
    fn inferred_by_columns(&self, target: &Target, names: &[Ident]) -> Result<Vec<usize>, SqlError> {
        let table = &target.table;
        let unique = table.indexes.iter().enumerate().filter(|(_, index)| index.is_unique());
        let mut whole = unique.filter(|(_, index)| index.computed().next().is_none());
        let mut wanted = names
            .iter()
            .map(|name| {
                let place =
                    target.place(name, Change::Insert).map_err(|_unknown| undefined_column(None, name))?;
                Ok(table.columns.get(place).map(|column| column.id))
            })
            .collect::<Result<Vec<_>, SqlError>>()?;
        wanted.sort();
        let found: Vec<usize> = whole
            .by_ref()
            .filter(|(_, index)| {
                let mut key: Vec<_> = index.key.iter().map(|part| Some(part.column)).collect();
                key.sort();
                key == wanted
            })
            .map(|(place, _)| place)
            .collect();
        if found.is_empty() {
            return Err(no_constraint());
        }
        Ok(found)
    }

    /// The unique indexes over just these expressions, and with no condition but what follows from the one that is
    /// given; none when only columns are named.
    fn inferred(&self, target: &Target, names: &[Ident]) -> Result<Option<Vec<usize>>, SqlError> {
        let Some(inference) = crate::parse::conflict::of_columns(names)? else { return Ok(None) };
        let table = &target.table;
        if target.is_view {
            return Err(unsupported("ON CONFLICT that names an expression of a view"));
        }
        let level = Level::default();
        let scope = Scope { columns: super::from::table_columns(table, &table.name, 0), level: &level };
        let mut wanted = Vec::with_capacity(inference.key.len());
        for part in &inference.key {
            wanted.push(self.bind_expr(part, &scope)?);
        }
        let given = match &inference.condition {
            Some(condition) => conjuncts(self.bind_condition(condition, &scope, "WHERE")?),
            None => Vec::new(),
        };
        let computed = self.bind_computed(table)?;
        let part = |id| {
            let column = table.column_index_of(id).and_then(|index| Some((index, table.columns.get(index)?)));
            let column =
                column.map(|(index, column)| Expr::Column { index, ty: column_type(column.data_type) });
            column.or_else(|| {
                let place = table.computed.iter().position(|own| own.id == id)?;
                computed.get(place).cloned()
            })
        };
        let fits = |index: &crate::catalog::IndexDescriptor| {
            let key: Vec<Option<Expr>> = index.key.iter().map(|own| part(own.column)).collect();
            let is_wanted = |own: &Option<Expr>| own.as_ref().is_some_and(|own| wanted.contains(own));
            let has = |one: &Expr| key.iter().flatten().any(|own| own == one);
            let holds = match index.predicate.map(part) {
                None => true,
                Some(None) => false,
                Some(Some(predicate)) => {
                    conjuncts(predicate).iter().all(|part| given.iter().any(|given| implies(given, part)))
                }
            };
            index.is_unique() && holds && key.iter().all(is_wanted) && wanted.iter().all(has)
        };
        let found = table.indexes.iter().enumerate().filter(|(_, index)| fits(index));
        let found: Vec<usize> = found.map(|(place, _)| place).collect();
        if found.is_empty() { Err(no_constraint()) } else { Ok(Some(found)) }
    }

    fn bind_conflict(
        &self,
        target: &Target,
        alias: &str,
        conflict: &ast::OnConflict,
        level: &Level<'_>,
    ) -> Result<ConflictAction, SqlError> {
        let table = &target.table;
        let unique = || table.indexes.iter().enumerate().filter(|(_, index)| index.is_unique());
        let among: Vec<usize> = match &conflict.conflict_target {
            None => unique().map(|(place, _)| place).collect(),
            Some(ConflictTarget::OnConstraint(name)) => {
                let name = last_ident(name)?;
                let found =
                    unique().find(|(_, index)| index.name == name.value && index.constraint.is_some());
                let message =
                    format!("constraint \"{}\" for table \"{}\" does not exist", name.value, table.name);
                vec![found.ok_or_else(|| fail(SqlState::UNDEFINED_OBJECT, message))?.0]
            }
            Some(ConflictTarget::Columns(names)) => match self.inferred(target, names)? {
                Some(found) => found,
                None => self.inferred_by_columns(target, names)?,
            },
        };
        let update = match &conflict.action {
            OnConflictAction::DoNothing => None,
            OnConflictAction::DoUpdate(_) if conflict.conflict_target.is_none() => {
                return Err(syntax(
                    "ON CONFLICT DO UPDATE requires inference specification or constraint name",
                ));
            }
            OnConflictAction::DoUpdate(update) => {
                // The row that is there, then the row that was to be inserted.
                let mut columns = target.columns(alias, 0);
                columns.extend(target.columns("excluded", table.columns.len()));
                let mut scope = Scope { columns, level };
                for column in scope.columns.iter_mut().skip(target.width()) {
                    // An unqualified name means the row that is there.
                    column.merged = true;
                    // It is no row of the table that is read.
                    column.read = None;
                }
                let assignments = self.bind_assignments(target, &update.assignments, &scope)?;
                let written = target.numbers(assignments.iter().map(|(place, _)| place));
                self.need(target.relation, Privileges::UPDATE, written);
                let filter = match &update.selection {
                    Some(selection) => Some(self.bind_condition(selection, &scope, "WHERE")?),
                    None => None,
                };
                Some((assignments, both(target.condition(), filter)))
            }
        };
        Ok(ConflictAction { among, update })
    }

    fn bind_assignments(
        &self,
        target: &Target,
        assignments: &[Assignment],
        scope: &Scope<'_>,
    ) -> Result<Vec<(usize, Expr)>, SqlError> {
        let table = &target.table;
        let mut defaults = None;
        let mut bound: Vec<(usize, Expr)> = Vec::new();
        let mut assign = |name: &ObjectName, value: &AstExpr| -> Result<(), SqlError> {
            let ident = last_ident(name)?;
            let place = target.place(&ident, Change::Update)?;
            if bound.iter().any(|(known, _)| *known == place) {
                let message = format!("multiple assignments to same column \"{}\"", ident.value);
                return Err(at(syntax(message), &ident));
            }
            let Some(column) = table.columns.get(place) else { return Ok(()) };
            let expr = if is_default(value) {
                if defaults.is_none() {
                    defaults = Some(self.bind_defaults(table)?);
                }
                defaults.as_ref().and_then(|defaults| defaults.get(place)).cloned().unwrap_or_else(Expr::null)
            } else if column.generated.is_some() {
                let message = format!("column \"{}\" can only be updated to DEFAULT", column.name);
                return Err(fail(SqlState::GENERATED_ALWAYS, message).with_detail(generated(&column.name)));
            } else if column.identity == Some(Identity::Always) {
                let message = format!("column \"{}\" can only be updated to DEFAULT", column.name);
                return Err(fail(SqlState::GENERATED_ALWAYS, message).with_detail(always(&column.name)));
            } else {
                let expr = self.bind_expr(value, scope)?;
                self.coerce_assignment(expr, column_type(column.data_type), &column.name)
                    .map_err(|error| at(error, value))?
            };
            bound.push((place, expr));
            Ok(())
        };
        for assignment in assignments {
            match (&assignment.target, strip(&assignment.value)) {
                (AssignmentTarget::ColumnName(name), _) => assign(name, &assignment.value)?,
                (AssignmentTarget::Tuple(names), AstExpr::Tuple(values)) => {
                    if names.len() != values.len() {
                        let error = syntax("number of columns does not match number of values");
                        return Err(values
                            .first()
                            .map_or(error.clone(), |first| at(error, &before(first.span()))));
                    }
                    for (name, value) in names.iter().zip(values) {
                        assign(name, value)?;
                    }
                }
                (AssignmentTarget::Tuple(names), AstExpr::Subquery(query)) => {
                    let width =
                        self.bind_query(query, &Level { outer: Some(scope), ..Level::default() })?.1.len();
                    if names.len() != width {
                        let error = syntax("number of columns does not match number of values");
                        return Err(at(error, &before(query.span())));
                    }
                    for (place, name) in names.iter().enumerate() {
                        assign(name, &AstExpr::Subquery(Box::new(column_of(query, place, width)?)))?;
                    }
                }
                (AssignmentTarget::Tuple(names), AstExpr::Function(call)) if is_row(call) => {
                    let values = row_values(call)?;
                    if names.len() != values.len() {
                        return Err(syntax("number of columns does not match number of values"));
                    }
                    for (name, value) in names.iter().zip(values) {
                        assign(name, value)?;
                    }
                }
                (AssignmentTarget::Tuple(names), value) if names.len() == 1 => {
                    for name in names {
                        assign(name, value)?;
                    }
                }
                (AssignmentTarget::Tuple(_), value) => {
                    let message =
                        "source for a multiple-column UPDATE item must be a sub-SELECT or ROW() expression";
                    return Err(at(fail(SqlState::FEATURE_NOT_SUPPORTED, message), value));
                }
            }
        }
        Ok(bound)
    }

    fn bind_returning(
        &self,
        returning: Option<&[SelectItem]>,
        scope: &Scope<'_>,
    ) -> Result<(Option<Vec<Expr>>, Vec<ColumnInfo>), SqlError> {
        let Some(returning) = returning else { return Ok((None, Vec::new())) };
        let items = self
            .bind_projection(returning, scope, scope)
            .map_err(|error| super::window::not_allowed_in(error, "RETURNING"))?;
        let mut exprs = Vec::with_capacity(items.len());
        let mut columns = Vec::with_capacity(items.len());
        for item in items {
            let mut column = item.column;
            let mut expr = item.exprs.into_iter().next().unwrap_or_else(Expr::null);
            if super::query::is_unknown(column.data_type) {
                column.data_type = rustydb_types::datatype::DataType::TEXT;
                expr = self.coerce_implicit(expr, column.data_type)?;
            }
            exprs.push(expr);
            columns.push(column);
        }
        Ok((Some(exprs), columns))
    }

    /// The target of an UPDATE or DELETE with the other relations of the statement: the target's row and its locator
    /// come first in the combined row.
    fn bind_target<'l>(
        &self,
        target: &TableFactor,
        others: &[TableWithJoins],
        change: Change,
        level: &'l Level<'l>,
    ) -> Result<(Target, Node, Scope<'l>), SqlError> {
        let TableFactor::Table { name, alias, .. } = target else {
            return Err(unsupported("this target"));
        };
        let mut target = self.target(name, change)?;
        target.read_by(self);
        if change == Change::Delete {
            self.need(target.relation, Privileges::DELETE, Vec::new());
        }
        let table = Arc::clone(&target.table);
        self.note_table(table.oid, TableUse::Write);
        let visible = alias.as_ref().map_or_else(|| target.name.clone(), |alias| alias.name.value.clone());
        let scan = full_scan(&table, &visible, true)?;
        let width = scan.width();
        let mut scope = Scope { columns: target.columns(&visible, 0), level };
        let mut node = Node::Scan(Box::new(scan));
        if !others.is_empty() {
            let (right, right_scope) = self.bind_from(others, level, false)?;
            if right_scope.own_relation(&visible) {
                let message = format!("table name \"{visible}\" specified more than once");
                return Err(fail(SqlState::DUPLICATE_ALIAS, message));
            }
            for mut column in right_scope.columns {
                column.expr = column.expr.map_columns(&mut |index| index + width);
                scope.columns.push(column);
            }
            node = Node::Join(Box::new(Join {
                left: node,
                right,
                kind: JoinKind::Inner,
                condition: None,
                algorithm: JoinAlgorithm::NestedLoop,
            }));
        }
        Ok((target, node, scope))
    }

    /// Binds an UPDATE.
    pub(crate) fn bind_update(&self, update: &Update) -> Result<BoundAction, SqlError> {
        let level = Level::default();
        if !update.table.joins.is_empty() || update.limit.is_some() || !update.order_by.is_empty() {
            return Err(syntax("UPDATE takes one table"));
        }
        let others = match &update.from {
            None => [].as_slice(),
            Some(UpdateTableFromKind::AfterSet(from) | UpdateTableFromKind::BeforeSet(from)) => {
                from.as_slice()
            }
        };
        let (target, node, scope) =
            self.bind_target(&update.table.relation, others, Change::Update, &level)?;
        let table = Arc::clone(&target.table);
        let assignments = self.bind_assignments(&target, &update.assignments, &scope)?;
        let written = target.numbers(assignments.iter().map(|(place, _)| place));
        self.need(target.relation, Privileges::UPDATE, written);
        let predicate = match &update.selection {
            Some(selection) => Some(self.bind_condition(selection, &scope, "WHERE")?),
            None => None,
        };
        let predicate = both(target.condition(), predicate);
        let (returning, columns) = self.bind_returning(update.returning.as_deref(), &scope)?;
        let input = filtered(node, predicate.clone());
        let rules = self.bind_target_rules(&target)?.giving(assignments.iter().map(|(place, _)| *place));
        let column = |place: &usize| table.columns.get(*place).map(|column| column.id);
        // What is generated may change with any column.
        let generated = rules.generated.iter().map(|(place, _)| place);
        let changed = assignments.iter().map(|(place, _)| place).chain(generated);
        let assigned: Vec<_> = changed.filter_map(column).collect();
        let references = self.references_of_update(&table, &assigned)?;
        let plan = UpdatePlan { table, input, predicate, assignments, rules, references, returning };
        Ok((Action::Update(Box::new(plan)), columns))
    }

    /// Binds a DELETE.
    pub(crate) fn bind_delete(&self, delete: &Delete) -> Result<BoundAction, SqlError> {
        let level = Level::default();
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
        let [target] = from.as_slice() else { return Err(syntax("DELETE takes one table")) };
        if !target.joins.is_empty() || !delete.tables.is_empty() {
            return Err(syntax("DELETE takes one table"));
        }
        let others = delete.using.as_deref().unwrap_or_default();
        let (target, node, scope) = self.bind_target(&target.relation, others, Change::Delete, &level)?;
        let table = Arc::clone(&target.table);
        let predicate = match &delete.selection {
            Some(selection) => Some(self.bind_condition(selection, &scope, "WHERE")?),
            None => None,
        };
        let predicate = both(target.condition(), predicate);
        let (returning, columns) = self.bind_returning(delete.returning.as_deref(), &scope)?;
        let input = filtered(node, predicate.clone());
        let rules = self.bind_rules(&table)?;
        let references = self.references_of_delete(&table)?;
        Ok((
            Action::Delete(Box::new(DeletePlan { table, input, predicate, rules, references, returning })),
            columns,
        ))
    }

    /// Binds a statement that changes rows, with a WITH before it.
    pub(crate) fn bind_change(&self, query: &Query) -> Result<BoundAction, SqlError> {
        if let Some(with) = &query.with {
            self.bind_with(with, &Level::default(), true)?;
        }
        match query.body.as_ref() {
            SetExpr::Insert(ast::Statement::Insert(insert)) => self.bind_insert(insert),
            SetExpr::Update(ast::Statement::Update(update)) => self.bind_update(update),
            SetExpr::Delete(ast::Statement::Delete(delete)) => self.bind_delete(delete),
            _ => Err(unsupported("this statement after WITH")),
        }
    }

    /// Binds a statement that locks the rows it returns.
    pub(crate) fn bind_locking(&self, query: &Query, select: &Select) -> Result<BoundAction, SqlError> {
        if query.with.is_some() {
            let message = "FOR UPDATE is not allowed with WITH";
            return Err(fail(SqlState::FEATURE_NOT_SUPPORTED, message));
        }
        let (plan, columns) = self.bind_lock_plan(query, select, &Level::default())?;
        Ok((Action::Lock(Box::new(plan)), columns))
    }

    /// Binds a subquery that locks the rows it returns, as that of a worker that takes the next row of a queue. It is
    /// run once, before the statement, so it cannot depend on the rows of the statement.
    pub(crate) fn bind_locking_subquery(
        &self,
        query: &Query,
        select: &Select,
        level: &Level<'_>,
    ) -> Result<(Node, Vec<ColumnInfo>), SqlError> {
        let own = Level { outer: level.outer, ..Level::default() };
        let (plan, columns) = self.bind_lock_plan(query, select, &own)?;
        if !own.used.borrow().is_empty() {
            return Err(unsupported("FOR UPDATE in a subquery that depends on the rows around it"));
        }
        let id = self.new_id();
        self.before.borrow_mut().push((id, Action::Lock(Box::new(plan))));
        let plan = Arc::new(Node::Values { rows: Vec::new(), width: columns.len() });
        Ok((Node::Shared { id, plan }, columns))
    }

    fn bind_lock_plan(
        &self,
        query: &Query,
        select: &Select,
        level: &Level<'_>,
    ) -> Result<(LockPlan, Vec<ColumnInfo>), SqlError> {
        let refused = [
            (select.distinct.is_some(), "DISTINCT clause"),
            (select.having.is_some(), "HAVING clause"),
            (
                !matches!(&select.group_by, ast::GroupByExpr::Expressions(exprs, _) if exprs.is_empty()),
                "GROUP BY clause",
            ),
        ];
        if let Some((_, clause)) = refused.iter().find(|(present, _)| *present) {
            return Err(fail(
                SqlState::FEATURE_NOT_SUPPORTED,
                format!("FOR UPDATE is not allowed with {clause}"),
            ));
        }
        let (node, scope) = self.bind_from(&select.from, level, true)?;
        let predicate = match &select.selection {
            Some(selection) => Some(self.bind_condition(selection, &scope, "WHERE")?),
            None => None,
        };
        let mut tables = Vec::new();
        if !lockable(&node, 0, &mut tables) {
            return Err(unsupported("FOR UPDATE over an outer join or a relation that is not a table"));
        }
        for clause in &query.locks {
            let lock = match clause.lock_type {
                LockType::Update => RowLock::ForUpdate,
                LockType::Share => RowLock::ForShare,
            };
            let wait = match clause.nonblock {
                None => RowWait::Wait,
                Some(NonBlock::Nowait) => RowWait::NoWait,
                Some(NonBlock::SkipLocked) => RowWait::SkipLocked,
            };
            let of = clause.of.as_ref().map(last_ident).transpose()?;
            let mut any = false;
            for (alias, table) in &mut tables {
                if of.as_ref().is_none_or(|of| of.value == *alias) {
                    table.lock = Some((lock, wait));
                    any = true;
                }
            }
            if let (Some(of), false) = (of, any) {
                let message =
                    format!("relation \"{}\" in FOR UPDATE clause not found in FROM clause", of.value);
                return Err(at(fail(SqlState::UNDEFINED_TABLE, message), &of));
            }
        }
        let items = self.bind_projection(&select.projection, &scope, &scope).map_err(|error| {
            if error.state() == SqlState::GROUPING_ERROR {
                let message = "FOR UPDATE is not allowed with aggregate functions";
                fail(SqlState::FEATURE_NOT_SUPPORTED, message)
            } else if error.state() == SqlState::WINDOWING_ERROR {
                fail(SqlState::FEATURE_NOT_SUPPORTED, "FOR UPDATE is not allowed with window functions")
            } else {
                error
            }
        })?;
        let keys = self.bind_order(order_by_exprs(query.order_by.as_ref())?, &items, &scope)?;
        let mut exprs = Vec::with_capacity(items.len());
        let mut columns = Vec::with_capacity(items.len());
        for item in items {
            exprs.push(item.exprs.into_iter().next().unwrap_or_else(Expr::null));
            columns.push(item.column);
        }
        let input = sorted(filtered(node, predicate.clone()), keys);
        let (limit, offset) = self.bind_limits(query, level)?;
        let tables =
            tables.into_iter().map(|(_, table)| table).filter(|table| table.lock.is_some()).collect();
        Ok((LockPlan { input, predicate, tables, exprs, limit, offset }, columns))
    }
}

/// The tables of a tree of inner joins with where their rows stand; false when something else is among them.
fn lockable(node: &Node, base: usize, tables: &mut Vec<(String, LockedTable)>) -> bool {
    match node {
        Node::Scan(scan) => {
            let table = LockedTable { table: Arc::clone(&scan.table), base, lock: None };
            tables.push((scan.alias.clone(), table));
            true
        }
        Node::Join(join) if join.kind == JoinKind::Inner => {
            lockable(&join.left, base, tables) && lockable(&join.right, base + join.left.width(), tables)
        }
        _ => false,
    }
}

/// The place before what is written there: that of a parenthesis.
fn before(span: sqlparser::tokenizer::Span) -> sqlparser::tokenizer::Location {
    let mut start = span.start;
    start.column = start.column.saturating_sub(1);
    start
}

/// Whether it is `ROW(...)`.
fn is_row(call: &ast::Function) -> bool {
    matches!(call.name.0.as_slice(), [part]
        if part.as_ident().is_some_and(|name| name.value == "row" && name.quote_style.is_none()))
}

/// The values of `ROW(...)`.
fn row_values(call: &ast::Function) -> Result<Vec<&AstExpr>, SqlError> {
    let ast::FunctionArguments::List(list) = &call.args else { return Ok(Vec::new()) };
    list.args.iter().map(super::from::function_arg).collect()
}

/// One column of a query, as a query.
fn column_of(query: &Query, place: usize, width: usize) -> Result<Query, SqlError> {
    let names: Vec<String> = (0..width).map(|place| format!("c{place}")).collect();
    let text = format!("SELECT c{place} FROM (SELECT 1) x ({})", names.join(", "));
    let mut outer = crate::parse::parse_query(&text)?;
    if let SetExpr::Select(select) = outer.body.as_mut()
        && let Some(TableFactor::Derived { subquery, .. }) =
            select.from.first_mut().map(|from| &mut from.relation)
    {
        **subquery = query.clone();
    }
    Ok(outer)
}

fn filtered(node: Node, predicate: Option<Expr>) -> Node {
    match predicate {
        Some(predicate) => Node::Filter { input: Box::new(node), predicate },
        None => node,
    }
}

fn is_default(expr: &AstExpr) -> bool {
    matches!(expr, AstExpr::Identifier(Ident { value, quote_style: None, .. }) if value == "default")
}

/// Both of two conditions.
fn both(first: Option<Expr>, second: Option<Expr>) -> Option<Expr> {
    match (first, second) {
        (Some(first), Some(second)) => Some(Expr::and(vec![first, second])),
        (first, second) => first.or(second),
    }
}
