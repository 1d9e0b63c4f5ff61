//! Queries: WITH, set operations, VALUES, ORDER BY and LIMIT around a SELECT.

use std::sync::Arc;

use rustydb_types::datatype::{BaseType, Category, DataType};
use sqlparser::ast::{
    self, Expr as AstExpr, LimitClause, OrderBy, OrderByExpr, OrderByKind, Query, SetExpr, SetOperator,
    SetQuantifier, Value, Values, With,
};

use super::context::{Binder, Cte};
use super::errors::{at, fail, syntax, unsupported};
use super::from::derived_scope;
use super::scope::{Level, Scope};
use super::select::SelectParts;
use crate::error::{SqlError, SqlState};
use crate::plan::{ColumnInfo, Node, SetOperation, SortKey};
use crate::scalar::Expr;

/// A plan with the description of its columns.
pub(crate) type BoundQuery = (Node, Vec<ColumnInfo>);

impl Binder<'_> {
    /// Binds a query at a level of its own below `level`, sharing that level's outer columns: a derived table.
    ///
    /// # Errors
    /// As PostgreSQL's analysis.
    pub(crate) fn bind_subquery_level(
        &self,
        query: &Query,
        level: &Level<'_>,
    ) -> Result<BoundQuery, SqlError> {
        // A derived table may use what the enclosing level may use from outside, under the same outer numbers, so it
        // is bound within that level.
        let bound = self.bind_query(query, level)?;
        self.settle_unknown(bound)
    }

    /// Gives output columns of unknown type the type text, as PostgreSQL does where a query ends.
    ///
    /// # Errors
    /// None in practice: anything untyped can be text.
    pub(crate) fn settle_unknown(&self, (node, columns): BoundQuery) -> Result<BoundQuery, SqlError> {
        let mut settled = columns.clone();
        for column in settled.iter_mut().filter(|column| is_unknown(column.data_type)) {
            column.data_type = DataType::TEXT;
        }
        Ok((self.coerce_columns(node, &columns, &settled)?, settled))
    }

    /// Binds a query.
    ///
    /// # Errors
    /// As PostgreSQL's analysis.
    pub(crate) fn bind_query(&self, query: &Query, level: &Level<'_>) -> Result<BoundQuery, SqlError> {
        let is_top = self.is_outermost();
        self.nested(|| {
            let known = self.ctes.borrow().len();
            if let Some(with) = &query.with {
                self.bind_with(with, level, is_top)?;
            }
            let result = self.bind_query_body(query, level);
            self.ctes.borrow_mut().truncate(known);
            result
        })
    }

    /// Binds the queries of a WITH; `is_top`: of the whole statement, where they may change rows.
    pub(crate) fn bind_with(&self, with: &With, level: &Level<'_>, is_top: bool) -> Result<(), SqlError> {
        for cte in &with.cte_tables {
            if crate::exec::database::changes_rows(&cte.query) {
                self.bind_changing_cte(cte, is_top)?;
                continue;
            }
            let name = &cte.alias.name;
            let is_candidate = with.recursive && mentions(&cte.query.to_string(), &name.value);
            let recursive = if is_candidate { self.bind_recursive(cte, level)? } else { None };
            let is_recursive = recursive.is_some();
            let bound = match recursive {
                Some(bound) => bound,
                None => self.bind_query(&cte.query, level)?,
            };
            let (plan, mut columns) = self.settle_unknown(bound)?;
            rename_columns(&mut columns, cte)?;
            // Within a subquery it may depend on the row around it, so its rows are not kept.
            // A recursive query keeps its own.
            let node = if level.outer.is_some() || is_recursive {
                plan
            } else {
                Node::Shared { id: self.new_id(), plan: Arc::new(plan) }
            };
            let name = name.value.clone();
            self.ctes.borrow_mut().push(Cte { name, columns, node, is_silent: false, uses: None });
        }
        Ok(())
    }

    /// A WITH query that changes rows: it is run once, before the statement, and what it returns is kept.
    fn bind_changing_cte(&self, cte: &ast::Cte, is_top: bool) -> Result<(), SqlError> {
        let name = &cte.alias.name;
        if !is_top {
            let message = "WITH clause containing a data-modifying statement must be at the top level";
            return Err(at(fail(SqlState::FEATURE_NOT_SUPPORTED, message), name));
        }
        if !matches!(*self.frame.borrow(), super::view::Frame::Plain) {
            let message = "views must not contain data-modifying statements in WITH";
            return Err(fail(SqlState::FEATURE_NOT_SUPPORTED, message));
        }
        // It sees the queries before it, and what its own WITH adds ends with it.
        let known = self.ctes.borrow().len();
        let (action, mut columns) = self.bind_change(&cte.query)?;
        self.ctes.borrow_mut().truncate(known);
        rename_columns(&mut columns, cte)?;
        let id = self.new_id();
        let is_silent = columns.is_empty();
        let plan = Arc::new(Node::Values { rows: Vec::new(), width: columns.len() });
        self.before.borrow_mut().push((id, action));
        let (name, node) = (name.value.clone(), Node::Shared { id, plan });
        self.ctes.borrow_mut().push(Cte { name, columns, node, is_silent, uses: None });
        Ok(())
    }

    fn bind_query_body(&self, query: &Query, level: &Level<'_>) -> Result<BoundQuery, SqlError> {
        if !query.pipe_operators.is_empty() || query.for_clause.is_some() {
            return Err(unsupported("this query clause"));
        }
        if let (SetExpr::Select(select), false) = (query.body.as_ref(), query.locks.is_empty()) {
            return self.bind_locking_subquery(query, select, level);
        }
        let order_by = order_by_exprs(query.order_by.as_ref())?;
        let (limit, offset) = self.bind_limits(query, level)?;
        let (node, columns) = match query.body.as_ref() {
            SetExpr::Select(select) => self.bind_select(select, order_by, level)?,
            body => {
                if !query.locks.is_empty() {
                    return Err(fail(
                        SqlState::FEATURE_NOT_SUPPORTED,
                        "FOR UPDATE is not allowed with UNION/INTERSECT/EXCEPT",
                    ));
                }
                let (node, columns) = self.bind_set_expr(body, level)?;
                let keys = self.output_order(order_by, &columns, level)?;
                (sorted(node, keys), columns)
            }
        };
        Ok((limited(node, limit, offset), columns))
    }

    pub(crate) fn bind_limits(
        &self,
        query: &Query,
        level: &Level<'_>,
    ) -> Result<(Option<Expr>, Option<Expr>), SqlError> {
        let (limit, offset) = match &query.limit_clause {
            Some(LimitClause::LimitOffset { limit, offset, limit_by }) if limit_by.is_empty() => {
                (limit.as_ref(), offset.as_ref().map(|offset| &offset.value))
            }
            Some(LimitClause::OffsetCommaLimit { .. }) => {
                return Err(syntax("LIMIT #,# syntax is not supported")
                    .with_hint("Use separate LIMIT and OFFSET clauses."));
            }
            Some(_) => return Err(unsupported("LIMIT BY")),
            None => (None, None),
        };
        let one = AstExpr::Value(Value::Number("1".into(), false).into());
        let limit = match &query.fetch {
            Some(fetch) if fetch.with_ties || fetch.percent => {
                return Err(unsupported("FETCH WITH TIES or PERCENT"));
            }
            Some(fetch) => Some(fetch.quantity.as_ref().unwrap_or(&one)),
            None => limit,
        };
        let place = Scope::empty(level);
        let bind = |expr: Option<&AstExpr>, clause: &str| -> Result<Option<Expr>, SqlError> {
            let Some(expr) = expr.filter(|expr| !matches!(expr, AstExpr::Value(v) if v.value == Value::Null))
            else {
                return Ok(None);
            };
            let bound =
                self.bind_expr(expr, &place).map_err(|error| super::window::not_allowed_in(error, clause))?;
            let ty = bound.ty();
            let limit = if ty.base.category() == Category::Numeric {
                self.cast(bound, DataType::INT8)
            } else if is_unknown(ty) {
                self.coerce_implicit(bound, DataType::INT8)
            } else {
                let message = format!("argument of {clause} must be type bigint, not type {ty}");
                Err(fail(SqlState::DATATYPE_MISMATCH, message))
            };
            Ok(Some(limit.map_err(|error| at(error, expr))?))
        };
        Ok((bind(limit, "LIMIT")?, bind(offset, "OFFSET")?))
    }

    /// Binds what stands between WITH and ORDER BY when it is not a lone SELECT.
    pub(crate) fn bind_set_expr(&self, body: &SetExpr, level: &Level<'_>) -> Result<BoundQuery, SqlError> {
        match body {
            SetExpr::Select(select) => self.bind_select(select, &[], level),
            SetExpr::Query(query) => self.bind_query(query, level),
            SetExpr::Values(values) => self.bind_values(values, level),
            SetExpr::SetOperation { left, op, set_quantifier, right } => self.nested(|| {
                let operation = match op {
                    SetOperator::Union => SetOperation::Union,
                    SetOperator::Intersect => SetOperation::Intersect,
                    SetOperator::Except | SetOperator::Minus => SetOperation::Except,
                };
                let all = match set_quantifier {
                    SetQuantifier::All => true,
                    SetQuantifier::Distinct | SetQuantifier::None => false,
                    _ => return Err(unsupported("a set operation BY NAME")),
                };
                let left = self.bind_set_expr(left, level)?;
                let right = self.bind_set_expr(right, level)?;
                self.combine_sets(operation, all, left, right)
            }),
            SetExpr::Table(table) => {
                let name = table.table_name.clone().unwrap_or_default();
                let sql = match &table.schema_name {
                    Some(schema) => format!("SELECT * FROM {schema}.{name}"),
                    None => format!("SELECT * FROM {name}"),
                };
                let select = crate::parse::parse_query(&sql)?;
                self.bind_query(&select, level)
            }
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                Err(unsupported("a data-modifying statement in WITH"))
            }
        }
    }

    fn combine_sets(
        &self,
        operation: SetOperation,
        all: bool,
        left: BoundQuery,
        right: BoundQuery,
    ) -> Result<BoundQuery, SqlError> {
        let name = match operation {
            SetOperation::Union => "UNION",
            SetOperation::Intersect => "INTERSECT",
            SetOperation::Except => "EXCEPT",
        };
        if left.1.len() != right.1.len() {
            return Err(syntax(format!("each {name} query must have the same number of columns")));
        }
        let mut columns = Vec::with_capacity(left.1.len());
        for (index, (left, right)) in left.1.iter().zip(&right.1).enumerate() {
            let sides = [left, right].map(|column| Expr::Column { index, ty: column.data_type });
            let data_type = self.common_type(&sides, name)?;
            if !(all && operation == SetOperation::Union) {
                require_equality(data_type)?;
            }
            columns.push(ColumnInfo { name: left.name.clone(), data_type, origin: None });
        }
        let left = self.coerce_columns(left.0, &left.1, &columns)?;
        let right = self.coerce_columns(right.0, &right.1, &columns)?;
        Ok((Node::SetOp { operation, all, left: Box::new(left), right: Box::new(right) }, columns))
    }

    /// Brings the columns of a node to other types.
    pub(crate) fn coerce_columns(
        &self,
        node: Node,
        from: &[ColumnInfo],
        to: &[ColumnInfo],
    ) -> Result<Node, SqlError> {
        if from.iter().zip(to).all(|(from, to)| from.data_type == to.data_type) {
            return Ok(node);
        }
        // Literals of unknown type are settled where they stand, so that '1' UNION 1 reads the text as a number.
        let coerce = |expr: Expr, to: &ColumnInfo| self.coerce_implicit(expr, to.data_type);
        match node {
            Node::Limit { input, limit, offset } => {
                let input = Box::new(self.coerce_columns(*input, from, to)?);
                Ok(Node::Limit { input, limit, offset })
            }
            Node::Project { input, exprs } => {
                let exprs =
                    exprs.into_iter().zip(to).map(|(expr, to)| coerce(expr, to)).collect::<Result<_, _>>()?;
                Ok(Node::Project { input, exprs })
            }
            node => {
                let columns = from.iter().enumerate();
                let columns = columns.map(|(index, column)| Expr::Column { index, ty: column.data_type });
                let exprs = columns.zip(to).map(|(expr, to)| coerce(expr, to)).collect::<Result<_, _>>()?;
                Ok(Node::Project { input: Box::new(node), exprs })
            }
        }
    }

    fn bind_values(&self, values: &Values, level: &Level<'_>) -> Result<BoundQuery, SqlError> {
        let place = Scope::empty(level);
        let mut rows = Vec::with_capacity(values.rows.len());
        for row in &values.rows {
            let bound = row
                .content
                .iter()
                .map(|expr| {
                    self.bind_expr(expr, &place)
                        .map_err(|error| super::window::not_allowed_in(error, "VALUES"))
                })
                .collect::<Result<Vec<Expr>, _>>()?;
            rows.push(bound);
        }
        let width = rows.first().map_or(0, Vec::len);
        if rows.iter().any(|row| row.len() != width) {
            return Err(syntax("VALUES lists must all be the same length"));
        }
        let mut columns = Vec::with_capacity(width);
        for place in 0..width {
            let column: Vec<Expr> = rows.iter().filter_map(|row| row.get(place)).cloned().collect();
            let data_type = self.common_type(&column, "VALUES")?;
            for row in &mut rows {
                if let Some(slot) = row.get_mut(place) {
                    *slot = self.coerce_implicit(slot.clone(), data_type)?;
                }
            }
            columns.push(ColumnInfo { name: format!("column{}", place + 1), data_type, origin: None });
        }
        Ok((Node::Values { rows, width }, columns))
    }

    /// ORDER BY over a result: by number or by name of a column only.
    fn output_order(
        &self,
        order_by: &[OrderByExpr],
        columns: &[ColumnInfo],
        level: &Level<'_>,
    ) -> Result<Vec<SortKey>, SqlError> {
        let place = derived_scope("", columns, level);
        let mut keys = Vec::new();
        for item in order_by {
            let expr = match ordinal(&item.expr, columns.len(), "ORDER BY")? {
                Some(index) => Expr::Column { index, ty: columns[index].data_type },
                None => match &item.expr {
                    AstExpr::Identifier(name) => super::scope::require_column(&place, None, name)?,
                    other => {
                        let error = fail(
                            SqlState::FEATURE_NOT_SUPPORTED,
                            "invalid UNION/INTERSECT/EXCEPT ORDER BY clause",
                        );
                        return Err(at(
                            error
                                .with_detail("Only result column names can be used, not expressions or functions.")
                                .with_hint(
                                    "Add the expression/function to every SELECT, or move the UNION into a FROM clause.",
                                ),
                            other,
                        ));
                    }
                },
            };
            keys.push(sort_key(expr, item)?);
        }
        Ok(keys)
    }

    /// Binds a SELECT with the ORDER BY that belongs to it.
    fn bind_select(
        &self,
        select: &sqlparser::ast::Select,
        order_by: &[OrderByExpr],
        level: &Level<'_>,
    ) -> Result<BoundQuery, SqlError> {
        let SelectParts { node, columns, .. } = self.bind_select_parts(select, order_by, false, level)?;
        Ok((node, columns))
    }
}

/// A sort key with the direction and the place of NULLs that an ORDER BY item asks for.
///
/// # Errors
/// 42883 for a type without an order.
pub(crate) fn sort_key(expr: Expr, item: &OrderByExpr) -> Result<SortKey, SqlError> {
    if !expr.ty().base.is_comparable() {
        let message = format!("could not identify an ordering operator for type {}", expr.ty().base);
        let error = fail(SqlState::UNDEFINED_FUNCTION, message)
            .with_hint("Use an explicit ordering operator or modify the query.");
        return Err(at(error, &item.expr));
    }
    let descending = matches!(item.options.sort, Some(sqlparser::ast::OrderBySort::Desc));
    Ok(SortKey { expr, descending, nulls_first: item.options.nulls_first.unwrap_or(descending) })
}

/// Refuses to compare values of a type that has no equality.
///
/// # Errors
/// 42883
pub(crate) fn require_equality(ty: DataType) -> Result<(), SqlError> {
    if ty.base.is_comparable() {
        return Ok(());
    }
    let message = format!("could not identify an equality operator for type {}", ty.base);
    Err(fail(SqlState::UNDEFINED_FUNCTION, message))
}

/// The items of an ORDER BY.
pub(crate) fn order_by_exprs(order_by: Option<&OrderBy>) -> Result<&[OrderByExpr], SqlError> {
    match order_by.map(|order_by| &order_by.kind) {
        None => Ok(&[]),
        Some(OrderByKind::Expressions(items)) => Ok(items),
        Some(OrderByKind::All(_)) => Err(unsupported("ORDER BY ALL")),
    }
}

/// The place of the result column that an integer in ORDER BY or GROUP BY means.
pub(crate) fn ordinal(expr: &AstExpr, count: usize, clause: &str) -> Result<Option<usize>, SqlError> {
    let AstExpr::Value(value) = expr else { return Ok(None) };
    match &value.value {
        Value::Number(text, _) => {
            let number = text
                .parse::<usize>()
                .map_err(|_| at(syntax(format!("non-integer constant in {clause}")), expr))?;
            if number == 0 || number > count {
                let message = format!("{clause} position {text} is not in select list");
                return Err(at(fail(SqlState::INVALID_COLUMN_REFERENCE, message), expr));
            }
            Ok(Some(number - 1))
        }
        Value::Placeholder(_) => Ok(None),
        _ => Err(at(syntax(format!("non-integer constant in {clause}")), expr)),
    }
}

/// The node in order, if there is an order.
pub(crate) fn sorted(node: Node, keys: Vec<SortKey>) -> Node {
    if keys.is_empty() { node } else { Node::Sort { input: Box::new(node), keys, bound: None } }
}

/// The node limited, if there is a limit.
pub(crate) fn limited(node: Node, limit: Option<Expr>, offset: Option<Expr>) -> Node {
    if limit.is_none() && offset.is_none() {
        node
    } else {
        Node::Limit { input: Box::new(node), limit, offset }
    }
}

/// Whether a type is that of an untyped literal.
pub(crate) fn is_unknown(data_type: DataType) -> bool {
    data_type.base == BaseType::Unknown
}

/// Whether SQL text contains a word.
fn mentions(sql: &str, word: &str) -> bool {
    sql.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|part| part == word)
}

/// Gives the columns of a WITH query the names that are written behind its own.
fn rename_columns(columns: &mut [ColumnInfo], cte: &ast::Cte) -> Result<(), SqlError> {
    if cte.alias.columns.len() > columns.len() {
        let message = format!(
            "WITH query \"{}\" has {} columns available but {} columns specified",
            cte.alias.name.value,
            columns.len(),
            cte.alias.columns.len()
        );
        return Err(at(fail(SqlState::INVALID_COLUMN_REFERENCE, message), &cte.alias.name));
    }
    for (column, alias) in columns.iter_mut().zip(&cte.alias.columns) {
        column.name.clone_from(&alias.name.value);
    }
    Ok(())
}
