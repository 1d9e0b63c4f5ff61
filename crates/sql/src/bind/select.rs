//! SELECT: from FROM to the select list.

use std::cell::Cell;

use rustydb_types::datatype::DataType;
use rustydb_types::ids::Oid;
use sqlparser::ast::{
    Distinct, Expr as AstExpr, GroupByExpr, OrderByExpr, Select, SelectItem, SelectItemQualifiedWildcardKind,
};

use super::aggregate::{GroupedPlace, UngroupedPlace};
use super::context::Binder;
use super::errors::{at, fail, syntax, undefined_table, unsupported};
use super::from::last_ident;
use super::query::{ordinal, require_equality, sort_key, sorted};
use super::scope::{Level, Resolve, Scope};
use super::set::{Expanded, SetCall, SetPlace};
use super::window::WindowPlace;
use crate::error::{SqlError, SqlState};
use crate::plan::{ColumnInfo, Node, SortKey};
use crate::scalar::Expr;

/// Most entries of a select list, as in PostgreSQL.
const TARGETS_MAX: usize = 1664;

/// A bound SELECT.
#[derive(Debug)]
pub(crate) struct SelectParts {
    /// Its rows.
    pub node: Node,
    /// Its columns.
    pub columns: Vec<ColumnInfo>,
}

/// A bound item of a select list.
#[derive(Clone, Debug)]
pub(crate) struct OutputItem {
    /// What the client sees.
    pub column: ColumnInfo,
    /// The value.
    pub exprs: Vec<Expr>,
}

impl Binder<'_> {
    /// Binds a SELECT with the ORDER BY that belongs to it.
    ///
    /// # Errors
    /// As PostgreSQL's analysis.
    pub(crate) fn bind_select_parts(
        &self,
        select: &Select,
        order_by: &[OrderByExpr],
        lock: bool,
        level: &Level<'_>,
    ) -> Result<SelectParts, SqlError> {
        self.refuse_unsupported(select)?;
        let (mut node, scope) = self.bind_from(&select.from, level, lock)?;
        if let Some(selection) = &select.selection {
            let predicate = self.bind_condition(selection, &scope, "WHERE")?;
            node = Node::Filter { input: Box::new(node), predicate };
        }
        let group_by = match &select.group_by {
            GroupByExpr::Expressions(exprs, modifiers) if modifiers.is_empty() => exprs.as_slice(),
            _ => return Err(unsupported("GROUP BY ALL or GROUP BY with modifiers")),
        };
        if group_by.is_empty() && select.having.is_none() {
            let ungrouped = UngroupedPlace { scope: &scope, saw_aggregate: Cell::new(false) };
            let place = WindowPlace::new(&ungrouped, &select.named_window);
            let sets = SetPlace::new(&place);
            let before = self.before.borrow().len();
            let bound = self.bind_projection(&select.projection, &sets, &scope).and_then(|items| {
                let keys = self.bind_order(order_by, &items, &sets)?;
                self.bind_named_windows(&place)?;
                Ok((keys, items))
            });
            let sets = sets.into_calls();
            let calls = place.into_calls();
            if !ungrouped.saw_aggregate.get() {
                let (keys, items) = bound?;
                if lock && !calls.is_empty() {
                    let message = "FOR UPDATE is not allowed with window functions";
                    return Err(fail(SqlState::FEATURE_NOT_SUPPORTED, message));
                }
                let (node, settle) = super::window::stack(calls, node, &|expr| expr);
                let (items, keys) = super::window::settled(items, keys, &settle);
                let sets = super::set::settled(sets, &settle);
                return self.finish_select(select, node, (items, sets), keys, &scope);
            }
            // All of it is bound again.
            self.before.borrow_mut().truncate(before);
        }
        self.bind_grouped(select, group_by, order_by, node, &scope)
    }

    fn refuse_unsupported(&self, select: &Select) -> Result<(), SqlError> {
        // That of the whole statement is taken before.
        if let Some(into) = &select.into {
            let error = syntax("SELECT ... INTO is not allowed here");
            return Err(into.targets.first().map_or(error.clone(), |target| at(error, target)));
        }
        let refused = [
            (select.top.is_some(), "TOP"),
            (!select.lateral_views.is_empty(), "LATERAL VIEW"),
            (select.prewhere.is_some(), "PREWHERE"),
            (select.qualify.is_some(), "QUALIFY"),
            (!select.connect_by.is_empty(), "CONNECT BY"),
        ];
        match refused.iter().find(|(present, _)| *present) {
            Some((_, what)) => Err(unsupported(what)),
            None => Ok(()),
        }
    }

    fn bind_grouped(
        &self,
        select: &Select,
        group_by: &[AstExpr],
        order_by: &[OrderByExpr],
        input: Node,
        scope: &Scope<'_>,
    ) -> Result<SelectParts, SqlError> {
        let grouping = self.bind_group_by(group_by, select, scope)?;
        let dependent = self.dependent_columns(&grouping.common(), scope);
        let grouping_sets = grouping.sets;
        let grouped = GroupedPlace::new(scope, grouping.written, grouping.groups, dependent);
        let place = WindowPlace::new(&grouped, &select.named_window);
        let sets = SetPlace::new(&place);
        let items = self.bind_projection(&select.projection, &sets, scope)?;
        let having = match &select.having {
            Some(having) => Some(self.bind_condition(having, &grouped, "HAVING")?),
            None => None,
        };
        let keys = self.bind_order(order_by, &items, &sets)?;
        let sets = sets.into_calls();
        self.bind_named_windows(&place)?;
        let windows = place.into_calls();
        let written_count = grouped.written_count();
        let (bound, settle) = grouped.finish();
        let aggregate = super::grouping::aggregate(input, bound, grouping_sets, written_count)?;
        let mut node = Node::Aggregate(Box::new(aggregate));
        if let Some(having) = having {
            node = Node::Filter { input: Box::new(node), predicate: settle(having) };
        }
        let (items, keys) = super::window::settled(items, keys, &settle);
        let sets = super::set::settled(sets, &settle);
        let (node, settle) = super::window::stack(windows, node, &settle);
        let (items, keys) = super::window::settled(items, keys, &settle);
        let sets = super::set::settled(sets, &settle);
        self.finish_select(select, node, (items, sets), keys, scope)
    }

    /// A GROUP BY item: a number or an output name stands for the expression in the select list.
    pub(super) fn group_item(
        &self,
        expr: &AstExpr,
        select: &Select,
        scope: &Scope<'_>,
    ) -> Result<AstExpr, SqlError> {
        let output = |index: usize| match select.projection.get(index) {
            Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) => {
                Some(expr.clone())
            }
            _ => None,
        };
        if let Some(index) = ordinal(expr, select.projection.len(), "GROUP BY")? {
            return output(index).ok_or_else(|| unsupported("GROUP BY position of *"));
        }
        if let AstExpr::Identifier(name) = expr
            && scope.own(None, name)?.is_none()
        {
            let named = select.projection.iter().find_map(|item| match item {
                SelectItem::ExprWithAlias { expr, alias } if alias.value == name.value => Some(expr.clone()),
                _ => None,
            });
            if let Some(named) = named {
                return Ok(named);
            }
        }
        Ok(strip(expr).clone())
    }

    /// Columns of tables whose whole primary key is grouped by.
    fn dependent_columns(&self, groups: &[Expr], scope: &Scope<'_>) -> Vec<Expr> {
        let mut dependent = Vec::new();
        let relations: Vec<&str> =
            scope.columns.iter().filter_map(|column| column.relation.as_deref()).collect();
        for relation in relations {
            let columns: Vec<_> =
                scope.columns.iter().filter(|column| column.relation.as_deref() == Some(relation)).collect();
            let table = columns.iter().find_map(|column| column.origin).map(|(table, _)| Oid::new(table));
            let Some(key) = table.and_then(|table| self.context.catalog.table(table)?.primary_key()) else {
                continue;
            };
            let covered = key.key.iter().all(|part| {
                columns.iter().any(|column| {
                    column.origin.is_some_and(|(_, number)| number == part.column.get())
                        && groups.contains(&column.expr)
                })
            });
            if covered {
                dependent.extend(columns.iter().map(|column| column.expr.clone()));
            }
        }
        dependent
    }

    /// Binds a select list.
    pub(crate) fn bind_projection(
        &self,
        projection: &[SelectItem],
        place: &dyn Resolve,
        scope: &Scope<'_>,
    ) -> Result<Vec<OutputItem>, SqlError> {
        let too_many = || {
            let message = format!("target lists can have at most {TARGETS_MAX} entries");
            SqlError::new(SqlState::TOO_MANY_COLUMNS, message)
        };
        if projection.len() > TARGETS_MAX {
            return Err(too_many());
        }
        let mut items = Vec::with_capacity(projection.len());
        for item in projection {
            match item {
                SelectItem::UnnamedExpr(expr) => {
                    items.push(self.bind_item(expr, output_name(expr), place, scope)?)
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    items.push(self.bind_item(expr, alias.value.clone(), place, scope)?);
                }
                SelectItem::Wildcard(options) => {
                    if scope.columns.is_empty() {
                        return Err(syntax("SELECT * with no tables specified is not valid"));
                    }
                    let shown = || scope.columns.iter().filter(|column| !column.merged && !column.hidden);
                    for column in shown() {
                        column.note_read();
                        items.push(self.star_item(column, place)?);
                    }
                    let (start, end) = crate::parse::view::place_of(&options.wildcard_token);
                    self.note_star(start, end, shown());
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                    let relation = last_ident(name)?;
                    if !scope.own_relation(&relation.value) {
                        return Err(undefined_table(&relation));
                    }
                    let is_of = |column: &&super::scope::ScopeColumn| {
                        !column.hidden && column.relation.as_deref() == Some(relation.value.as_str())
                    };
                    for column in scope.columns.iter().filter(is_of) {
                        column.note_read();
                        items.push(self.star_item(column, place)?);
                    }
                    let (_, end) = crate::parse::view::place_of(&options.wildcard_token);
                    let start = super::from::own_name_start(name);
                    self.note_star(start, end, scope.columns.iter().filter(is_of));
                }
                _ => return Err(unsupported("this select list item")),
            }
        }
        if items.len() > TARGETS_MAX { Err(too_many()) } else { Ok(items) }
    }

    fn star_item(
        &self,
        column: &super::scope::ScopeColumn,
        place: &dyn Resolve,
    ) -> Result<OutputItem, SqlError> {
        let expr = place.star_column(column)?;
        let column =
            ColumnInfo { name: column.name.clone(), data_type: column.data_type, origin: column.origin };
        Ok(OutputItem { column, exprs: vec![expr] })
    }

    fn bind_item(
        &self,
        expr: &AstExpr,
        name: String,
        place: &dyn Resolve,
        scope: &Scope<'_>,
    ) -> Result<OutputItem, SqlError> {
        let bound = self.bind_expr(expr, place)?;
        let origin = match &bound {
            Expr::Column { .. } => {
                scope.columns.iter().find(|column| column.expr == bound).and_then(|column| column.origin)
            }
            _ => None,
        };
        let column = ColumnInfo { name, data_type: bound.ty(), origin };
        Ok(OutputItem { column, exprs: vec![bound] })
    }

    /// Binds ORDER BY: a number or an output name first, then an expression over the columns of FROM.
    pub(crate) fn bind_order(
        &self,
        order_by: &[OrderByExpr],
        items: &[OutputItem],
        place: &dyn Resolve,
    ) -> Result<Vec<SortKey>, SqlError> {
        let mut keys = Vec::with_capacity(order_by.len());
        for item in order_by {
            let output = match ordinal(&item.expr, items.len(), "ORDER BY")? {
                Some(index) => items.get(index),
                None => match &item.expr {
                    AstExpr::Identifier(name) => {
                        let mut named = items.iter().filter(|output| output.column.name == name.value);
                        let first = named.next();
                        if named.any(|other| first.is_some_and(|first| first.exprs != other.exprs)) {
                            let message = format!("ORDER BY \"{}\" is ambiguous", name.value);
                            return Err(at(fail(SqlState::AMBIGUOUS_COLUMN, message), name));
                        }
                        first
                    }
                    _ => None,
                },
            };
            let expr = match output {
                Some(output) => output.exprs.first().cloned().unwrap_or_else(Expr::null),
                None => self.bind_expr(&item.expr, place)?,
            };
            keys.push(sort_key(expr, item)?);
        }
        Ok(keys)
    }

    /// Puts sort, projection and DISTINCT on top.
    fn finish_select(
        &self,
        select: &Select,
        node: Node,
        (mut items, sets): (Vec<OutputItem>, Vec<SetCall>),
        mut keys: Vec<SortKey>,
        scope: &Scope<'_>,
    ) -> Result<SelectParts, SqlError> {
        let columns: Vec<ColumnInfo> = items.iter().map(|item| item.column.clone()).collect();
        let mut node = node;
        if !sets.is_empty() {
            if matches!(select.distinct, Some(Distinct::On(_))) {
                return Err(unsupported("DISTINCT ON with a set-returning function"));
            }
            let is_distinct = matches!(select.distinct, Some(Distinct::Distinct));
            match super::set::expand(sets, node, items, keys, is_distinct)? {
                Expanded::Whole(node) => return Ok(SelectParts { node, columns }),
                Expanded::Beneath(beneath, over, by) => (node, items, keys) = (beneath, over, by),
            }
        }
        let exprs: Vec<Expr> = items.into_iter().filter_map(|item| item.exprs.into_iter().next()).collect();
        let node = match &select.distinct {
            None | Some(Distinct::All) => Node::Project { input: Box::new(sorted(node, keys)), exprs },
            Some(Distinct::Distinct) => {
                for (expr, written) in exprs.iter().zip(&select.projection) {
                    require_equality(expr.ty()).map_err(|error| match written {
                        SelectItem::UnnamedExpr(written)
                        | SelectItem::ExprWithAlias { expr: written, .. } => at(error, written),
                        _ => error,
                    })?;
                }
                let mut output_keys = Vec::with_capacity(keys.len());
                for key in keys {
                    let Some(index) = exprs.iter().position(|expr| *expr == key.expr) else {
                        return Err(fail(
                            SqlState::INVALID_COLUMN_REFERENCE,
                            "for SELECT DISTINCT, ORDER BY expressions must appear in select list",
                        ));
                    };
                    output_keys.push(SortKey {
                        expr: Expr::Column { index, ty: key.expr.ty() },
                        descending: key.descending,
                        nulls_first: key.nulls_first,
                    });
                }
                let project = Node::Project { input: Box::new(node), exprs };
                sorted(Node::Distinct { input: Box::new(project), on: None }, output_keys)
            }
            Some(Distinct::On(on)) => self.distinct_on(on, node, exprs, keys, scope)?,
        };
        Ok(SelectParts { node, columns })
    }

    /// DISTINCT ON: the first row of each key in the order of ORDER BY, which must begin with the key.
    fn distinct_on(
        &self,
        on: &[AstExpr],
        node: Node,
        exprs: Vec<Expr>,
        mut keys: Vec<SortKey>,
        scope: &Scope<'_>,
    ) -> Result<Node, SqlError> {
        let mut key_exprs = Vec::with_capacity(on.len());
        for expr in on {
            key_exprs.push(match ordinal(expr, exprs.len(), "SELECT DISTINCT ON")? {
                Some(index) => exprs.get(index).cloned().unwrap_or_else(Expr::null),
                None => self.bind_expr(expr, scope).map_err(super::window::not_supported_in_distinct_on)?,
            });
        }
        let leading = keys.iter().take(key_exprs.len());
        if leading.clone().any(|key| !key_exprs.contains(&key.expr)) {
            return Err(fail(
                SqlState::INVALID_COLUMN_REFERENCE,
                "SELECT DISTINCT ON expressions must match initial ORDER BY expressions",
            ));
        }
        for expr in &key_exprs {
            if !keys.iter().any(|key| key.expr == *expr) {
                keys.push(SortKey { expr: expr.clone(), descending: false, nulls_first: false });
            }
        }
        let count = key_exprs.len();
        let wide = key_exprs.into_iter().chain(exprs.iter().cloned()).collect();
        let input = Node::Project { input: Box::new(sorted(node, keys)), exprs: wide };
        let distinct = Node::Distinct { input: Box::new(input), on: Some(count) };
        let narrow = exprs.iter().enumerate();
        let narrow =
            narrow.map(|(index, expr)| Expr::Column { index: count + index, ty: expr.ty() }).collect();
        Ok(Node::Project { input: Box::new(distinct), exprs: narrow })
    }
}

/// An expression without the parentheses around it.
pub(crate) fn strip(expr: &AstExpr) -> &AstExpr {
    match expr {
        AstExpr::Nested(inner) => strip(inner),
        other => other,
    }
}

/// The name that PostgreSQL gives to a column without an alias.
pub(crate) fn output_name(expr: &AstExpr) -> String {
    named(expr).0
}

/// The name, and whether a type around the expression names the column rather than the expression. Both at once: asked
/// for one after the other at each of many casts, they would take twice as long with every one.
fn named(expr: &AstExpr) -> (String, bool) {
    match expr {
        AstExpr::Nested(inner) => named(inner),
        AstExpr::Cast { expr, data_type, .. } => match named(expr) {
            // A type, and what else names weakly, gives way to the type outside of it.
            (name, is_weak) if is_weak || name == "?column?" => (type_label(data_type).unwrap_or(name), true),
            named => named,
        },
        AstExpr::TypedString(_) | AstExpr::Value(_) => (plain_name(expr), true),
        AstExpr::CompoundFieldAccess { root, access_chain } => {
            let field = access_chain.iter().rev().find_map(|access| match access {
                sqlparser::ast::AccessExpr::Dot(AstExpr::Identifier(field)) => Some(field.value.clone()),
                _ => None,
            });
            field.map_or_else(|| named(root), |field| (field, false))
        }
        // The name of what stands behind ELSE, unless that is a weak one itself.
        AstExpr::Case { else_result, .. } => match else_result.as_deref().map(named) {
            Some((name, false)) if name != "?column?" => (name, false),
            _ => ("case".into(), true),
        },
        _ => (plain_name(expr), false),
    }
}

/// The name that a type gives to a column.
fn type_label(written: &sqlparser::ast::DataType) -> Option<String> {
    use sqlparser::ast::{ArrayElemTypeDef, DataType as Written};
    match (DataType::parse(&written.to_string()), written) {
        (Some(known), _) => Some(known.base.type_name().trim_start_matches('_').to_owned()),
        (None, Written::Array(ArrayElemTypeDef::SquareBracket(element, _))) => type_label(element),
        (None, Written::Custom(name, _)) => last_ident(name).ok().map(|name| name.value),
        _ => None,
    }
}

/// The name of an expression that is no cast.
fn plain_name(expr: &AstExpr) -> String {
    let unnamed = || "?column?".to_owned();
    match expr {
        AstExpr::Identifier(name) => name.value.clone(),
        AstExpr::CompoundIdentifier(names) => names.last().map_or_else(unnamed, |name| name.value.clone()),
        AstExpr::Function(function) => {
            last_ident(&function.name).map_or_else(|_| unnamed(), |name| name.value)
        }
        AstExpr::Collate { expr: inner, .. } => output_name(inner),
        AstExpr::BinaryOp { op: sqlparser::ast::BinaryOperator::Overlaps, .. } => "overlaps".into(),
        AstExpr::Exists { negated: false, .. } => "exists".into(),
        AstExpr::Array(_) => "array".into(),
        AstExpr::Extract { .. } => "extract".into(),
        AstExpr::Position { .. } => "position".into(),
        AstExpr::Substring { shorthand, .. } => if *shorthand { "substr" } else { "substring" }.into(),
        AstExpr::Trim { trim_where, .. } => match trim_where {
            Some(sqlparser::ast::TrimWhereField::Leading) => "ltrim".into(),
            Some(sqlparser::ast::TrimWhereField::Trailing) => "rtrim".into(),
            _ => "btrim".into(),
        },
        AstExpr::Overlay { .. } => "overlay".into(),
        AstExpr::Ceil { .. } => "ceil".into(),
        AstExpr::Floor { .. } => "floor".into(),
        AstExpr::AtTimeZone { .. } => "timezone".into(),
        AstExpr::Interval(_) => "interval".into(),
        AstExpr::Tuple(_) => "row".into(),
        AstExpr::TypedString(typed) => type_label(&typed.data_type).unwrap_or_else(unnamed),
        AstExpr::Subquery(query) => match query.body.as_ref() {
            sqlparser::ast::SetExpr::Select(select) => match select.projection.first() {
                Some(SelectItem::UnnamedExpr(expr)) => output_name(expr),
                Some(SelectItem::ExprWithAlias { alias, .. }) => alias.value.clone(),
                _ => unnamed(),
            },
            _ => unnamed(),
        },
        _ => unnamed(),
    }
}
