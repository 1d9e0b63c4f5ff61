//! FROM: relations, joins and the names that they bring.

use std::sync::Arc;

use rustydb_types::datatype::DataType;
use rustydb_types::value::Value;
use sqlparser::ast::{
    self, Expr as AstExpr, FunctionArg, FunctionArgExpr, Ident, JoinConstraint, JoinOperator, ObjectName,
    TableAlias, TableFactor, TableWithJoins,
};

use super::context::{Binder, Relation, TableUse};
use super::errors::{at, fail, undefined_column, unsupported};
use super::expr::simple_name;
use super::scope::{Level, Resolve, Scope, ScopeColumn};
use crate::catalog::TableDescriptor;
use crate::catalog::acl::Privileges;
use crate::catalog::descriptor::TypeRef;
use crate::catalog::view::ViewRelation;
use crate::error::{SqlError, SqlState};
use crate::exec::rows::RowLayout;
use crate::pgcatalog::keywords;
use crate::plan::{AccessPath, ColumnInfo, Join, JoinAlgorithm, JoinKind, Node, Scan, TableFunction};
use crate::scalar::{self, Expr};

/// A plan with the names of its columns.
pub(crate) type Bound<'a> = (Node, Scope<'a>);

/// The type of a stored column.
pub(crate) fn column_type(stored: TypeRef) -> DataType {
    stored.data_type()
}

/// A full scan of a table.
///
/// # Errors
/// XX001 when a stored default cannot be read.
pub(crate) fn full_scan(table: &Arc<TableDescriptor>, alias: &str, locator: bool) -> Result<Scan, SqlError> {
    let layout = Arc::new(RowLayout::new(table)?);
    Ok(Scan {
        table: Arc::clone(table),
        alias: alias.to_owned(),
        columns: (0..table.columns.len()).collect(),
        wanted: layout.wanted(&[]),
        blank: layout.blank_row().to_vec(),
        layout,
        locator,
        path: AccessPath::default(),
        computed: super::kept::computed_of(table)?,
        filter: None,
        rows: 0.0,
    })
}

/// The names of a table's columns, whose values begin at `base` in the row.
pub(crate) fn table_columns(table: &TableDescriptor, alias: &str, base: usize) -> Vec<ScopeColumn> {
    let column = |(place, column): (usize, &crate::catalog::ColumnDescriptor)| {
        let data_type = column_type(column.data_type);
        ScopeColumn {
            relation: Some(alias.to_owned()),
            name: column.name.clone(),
            data_type,
            expr: Expr::Column { index: base + place, ty: data_type },
            merged: false,
            hidden: false,
            nullable: false,
            is_whole: false,
            origin: Some((table.oid.get(), column.id.get())),
            read: None,
        }
    };
    table.columns.iter().enumerate().map(column).collect()
}

/// Where a name begins in the text that is bound.
pub(super) fn own_name_start(name: &ObjectName) -> u64 {
    name.0.first().and_then(|part| part.as_ident()).map_or(0, |ident| ident.span.start.column)
}

/// Of the columns of a relation, those that a view's query knows, under the names by which it does.
pub(super) fn narrow(columns: &mut Vec<ScopeColumn>, known: Option<&ViewRelation>) {
    let Some(known) = known else { return };
    let numbered = |number: u32| {
        let mut found =
            columns.iter().find(|column| column.origin.is_some_and(|(_, own)| own == number))?.clone();
        found.name = known.columns.iter().find(|column| column.number == number)?.name.clone();
        Some(found)
    };
    *columns = known.columns.iter().filter_map(|column| numbered(column.number)).collect();
}

/// Moves the columns of a scope to the right in the row.
fn shift(columns: &mut [ScopeColumn], by: usize) {
    for column in columns {
        column.expr = column.expr.clone().map_columns(&mut |index| index + by);
    }
}

/// Tables that one FROM may join: their plan is a tree as deep as they are many.
const TABLES_MAX: usize = 400;

impl Binder<'_> {
    /// Binds a whole FROM clause; an empty one is a single row without columns.
    ///
    /// # Errors
    /// As PostgreSQL's analysis of FROM.
    pub(crate) fn bind_from<'l>(
        &self,
        from: &[TableWithJoins],
        level: &'l Level<'l>,
        lock: bool,
    ) -> Result<Bound<'l>, SqlError> {
        let count: usize = from.iter().map(|item| 1 + item.joins.len()).sum();
        if count > TABLES_MAX {
            let message = format!("FROM lists {count} tables; {TABLES_MAX} can be joined");
            return Err(fail(SqlState::STATEMENT_TOO_COMPLEX, message));
        }
        let mut all: Option<Bound<'l>> = None;
        for item in from {
            let (next, lateral) = self.bind_joins(item, level, lock, all.as_ref().map(|(_, scope)| scope))?;
            all = Some(match all {
                None => next,
                Some(left) => {
                    check_aliases(&left.1, &next.1)?;
                    combine(left, next, JoinKind::Inner, lateral)
                }
            });
        }
        Ok(all.unwrap_or_else(|| (Node::one_row(), Scope::empty(level))))
    }

    fn bind_joins<'l>(
        &self,
        item: &TableWithJoins,
        level: &'l Level<'l>,
        lock: bool,
        before: Option<&Scope<'l>>,
    ) -> Result<(Bound<'l>, Vec<Expr>), SqlError> {
        let (mut left, lateral) = self.bind_factor(&item.relation, level, lock, before)?;
        if !lateral.is_empty() && !item.joins.is_empty() {
            return Err(unsupported("a lateral reference to an earlier FROM item from within a join"));
        }
        for join in &item.joins {
            let (right, lateral) = self.bind_factor(&join.relation, level, lock, Some(&left.1))?;
            check_aliases(&left.1, &right.1)?;
            left = self.bind_join(left, right, &join.join_operator, lateral)?;
        }
        Ok((left, lateral))
    }

    fn bind_join<'l>(
        &self,
        left: Bound<'l>,
        right: Bound<'l>,
        operator: &JoinOperator,
        lateral: Vec<Expr>,
    ) -> Result<Bound<'l>, SqlError> {
        let (kind, constraint) = match operator {
            JoinOperator::Join(constraint)
            | JoinOperator::Inner(constraint)
            | JoinOperator::CrossJoin(constraint) => (JoinKind::Inner, constraint),
            JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => {
                (JoinKind::Left, constraint)
            }
            JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => {
                (JoinKind::Right, constraint)
            }
            JoinOperator::FullOuter(constraint) => (JoinKind::Full, constraint),
            _ => return Err(unsupported("this kind of join")),
        };
        if !lateral.is_empty() && matches!(kind, JoinKind::Right | JoinKind::Full) {
            return Err(fail(
                SqlState::INVALID_COLUMN_REFERENCE,
                "invalid reference to FROM-clause entry: the combining JOIN type must be INNER or LEFT for a LATERAL reference",
            ));
        }
        match constraint {
            JoinConstraint::None => Ok(combine(left, right, kind, lateral)),
            JoinConstraint::On(condition) => {
                let (node, scope) = combine(left, right, kind, lateral);
                let condition = self.bind_condition(condition, &scope, "JOIN/ON")?;
                Ok((with_condition(node, condition), scope))
            }
            JoinConstraint::Using(names) => {
                let names = names.iter().map(last_ident).collect::<Result<Vec<_>, _>>()?;
                self.bind_using(left, right, kind, &names, lateral)
            }
            JoinConstraint::Natural => {
                let shared = left.1.columns.iter().filter(|column| !column.merged && !column.hidden);
                let shared = shared.filter(|column| {
                    right.1.columns.iter().any(|other| !other.merged && other.name == column.name)
                });
                let names: Vec<Ident> = shared.map(|column| Ident::new(column.name.clone())).collect();
                self.bind_using(left, right, kind, &names, lateral)
            }
        }
    }

    /// Joins by equal columns of the same name; each pair becomes one column, first in the order of `*`.
    fn bind_using<'l>(
        &self,
        left: Bound<'l>,
        right: Bound<'l>,
        kind: JoinKind,
        names: &[Ident],
        lateral: Vec<Expr>,
    ) -> Result<Bound<'l>, SqlError> {
        let find = |scope: &Scope<'_>, name: &Ident| -> Result<ScopeColumn, SqlError> {
            scope.own(None, name)?.cloned().ok_or_else(|| undefined_column(None, name))
        };
        let width = left.0.width();
        let mut merged = Vec::new();
        let mut conditions = Vec::new();
        for name in names {
            let left_column = find(&left.1, name)?;
            let mut right_column = find(&right.1, name)?;
            shift(std::slice::from_mut(&mut right_column), width);
            conditions.push(self.operator("=", left_column.expr.clone(), right_column.expr.clone())?);
            let expr = match kind {
                JoinKind::Inner | JoinKind::Left => left_column.expr.clone(),
                JoinKind::Right => right_column.expr.clone(),
                JoinKind::Full => self.coalesce(vec![left_column.expr.clone(), right_column.expr.clone()])?,
            };
            let origin = if kind == JoinKind::Full { None } else { left_column.origin };
            merged.push(ScopeColumn {
                read: None,
                relation: None,
                name: name.value.clone(),
                data_type: expr.ty(),
                expr,
                merged: false,
                hidden: false,
                nullable: false,
                is_whole: false,
                origin,
            });
        }
        let (node, mut scope) = combine(left, right, kind, lateral);
        for column in &mut scope.columns {
            if names.iter().any(|name| name.value == column.name) {
                column.merged = true;
            }
        }
        // An earlier merged column has no relation to be named by, so nothing can mean it any more.
        scope.columns.retain(|column| !(column.merged && column.relation.is_none()));
        merged.append(&mut scope.columns);
        scope.columns = merged;
        let node = if conditions.is_empty() { node } else { with_condition(node, Expr::and(conditions)) };
        Ok((node, scope))
    }

    /// Binds one relation; `before` is what a lateral one may refer to. The expressions over the rows before it that a
    /// lateral one uses come with it.
    fn bind_factor<'l>(
        &self,
        factor: &TableFactor,
        level: &'l Level<'l>,
        lock: bool,
        before: Option<&Scope<'l>>,
    ) -> Result<(Bound<'l>, Vec<Expr>), SqlError> {
        let plain = |bound: Bound<'l>| Ok((bound, Vec::new()));
        match factor {
            TableFactor::Table { name, alias, args: None, sample: None, with_ordinality: false, .. } => {
                plain(self.bind_relation(name, alias.as_ref(), level, lock)?)
            }
            TableFactor::Table { name, alias, args: Some(args), with_ordinality: false, .. }
                if is_options_to_table(name) =>
            {
                let [FunctionArg::Unnamed(FunctionArgExpr::Expr(options))] = args.args.as_slice() else {
                    return Err(crate::bind::errors::unsupported("pg_options_to_table with these arguments"));
                };
                let visible = alias.clone().unwrap_or_else(|| TableAlias {
                    explicit: true,
                    name: Ident::new("pg_options_to_table"),
                    columns: Vec::new(),
                    at: None,
                });
                let subquery = Box::new(crate::parse::parse_query(&options_to_table(options))?);
                let derived =
                    TableFactor::Derived { lateral: true, subquery, alias: Some(visible), sample: None };
                if !matches!(*self.frame.borrow(), super::view::Frame::Plain) {
                    return Err(unsupported("pg_options_to_table in a view"));
                }
                self.bind_factor(&derived, level, lock, before)
            }
            TableFactor::Table { name, alias, args: Some(args), with_ordinality, .. } => {
                self.bind_function(name, &args.args, *with_ordinality, alias.as_ref(), level, before)
            }
            TableFactor::Function { lateral: _, name, args, with_ordinality, alias } => {
                self.bind_function(name, args, *with_ordinality, alias.as_ref(), level, before)
            }
            TableFactor::UNNEST { alias, array_exprs, with_offset: false, with_ordinality, .. } => {
                let name = ObjectName::from(vec![Ident::new("unnest")]);
                let args: Vec<FunctionArg> = array_exprs
                    .iter()
                    .map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr.clone())))
                    .collect();
                self.bind_function(&name, &args, *with_ordinality, alias.as_ref(), level, before)
            }
            TableFactor::Derived { lateral, subquery, alias, .. } => {
                let inner = Level {
                    outer: before.map(|scope| -> &dyn Resolve { scope }),
                    used: std::cell::RefCell::default(),
                };
                let is_lateral = *lateral && before.is_some();
                let (node, columns) =
                    self.bind_subquery_level(subquery, if is_lateral { &inner } else { level })?;
                let name = alias.as_ref().map(|alias| alias.name.value.clone());
                let Some(name) = name else {
                    return Err(fail(SqlState::SYNTAX_ERROR, "subquery in FROM must have an alias")
                        .with_hint("For example, FROM (SELECT ...) [AS] foo."));
                };
                let mut scope = derived_scope(&name, &columns, level);
                rename(&mut scope, alias.as_ref(), &name)?;
                Ok(((node, scope), inner.used.into_inner()))
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                let ((node, mut scope), lateral) = self.bind_joins(table_with_joins, level, lock, before)?;
                if let Some(alias) = alias {
                    for column in &mut scope.columns {
                        column.relation = Some(alias.name.value.clone());
                    }
                    scope.columns.retain(|column| !column.merged);
                    rename(&mut scope, Some(alias), &alias.name.value)?;
                }
                Ok(((node, scope), lateral))
            }
            TableFactor::Table { sample: Some(_), .. } => Err(unsupported("TABLESAMPLE")),
            _ => Err(unsupported("this kind of FROM item")),
        }
    }

    fn bind_relation<'l>(
        &self,
        name: &ObjectName,
        alias: Option<&TableAlias>,
        level: &'l Level<'l>,
        lock: bool,
    ) -> Result<Bound<'l>, SqlError> {
        let (schema, own_name) = self.split_name(name)?;
        let visible = alias.map_or_else(|| own_name.value.clone(), |alias| alias.name.value.clone());
        let known = self.known_relation(own_name_start(name));
        if schema.is_none()
            && known.is_none()
            && let Some(cte) = self.ctes.borrow().iter().rev().find(|cte| cte.name == own_name.value)
        {
            if let Some(uses) = &cte.uses {
                uses.lock().push(own_name.clone());
            }
            if cte.is_silent {
                let message = format!("WITH query \"{}\" does not have a RETURNING clause", cte.name);
                return Err(at(fail(SqlState::FEATURE_NOT_SUPPORTED, message), own_name));
            }
            let mut scope = derived_scope(&visible, &cte.columns, level);
            rename(&mut scope, alias, &visible)?;
            return Ok((cte.node.clone(), scope));
        }
        let relation = match &known {
            Some(known) => self.relation_of(known)?,
            None => self.relation(name)?,
        };
        let visible = match &known {
            Some(known) if alias.is_none() => known.visible.clone(),
            _ => visible,
        };
        let relation = self.note_name(name, alias, &visible, relation)?;
        let read = super::privilege::read_of(self, &relation);
        if lock && let Relation::Table(table) = &relation {
            self.need(table.oid, Privileges::UPDATE, Vec::new());
        }
        let (node, mut scope) = self.bind_found(relation, (&visible, alias, known.as_ref()), level, lock)?;
        for column in &mut scope.columns {
            column.read.clone_from(&read);
        }
        Ok((node, scope))
    }

    /// The rows of a relation that a name means, under the names by which the statement refers to it.
    fn bind_found<'l>(
        &self,
        relation: Relation,
        (visible, alias, known): (&str, Option<&TableAlias>, Option<&ViewRelation>),
        level: &'l Level<'l>,
        lock: bool,
    ) -> Result<Bound<'l>, SqlError> {
        match relation {
            Relation::Table(table) => {
                self.note_table(table.oid, if lock { TableUse::LockRows } else { TableUse::Read });
                let mut scope = Scope { columns: table_columns(&table, visible, 0), level };
                narrow(&mut scope.columns, known);
                rename(&mut scope, alias, visible)?;
                scope.columns.push(ScopeColumn::tableoid(visible, table.oid.get()));
                Ok((Node::Scan(Box::new(full_scan(&table, visible, lock)?)), scope))
            }
            Relation::Sequence(sequence) => {
                self.note_table(sequence.oid, TableUse::Read);
                let node = self.sequence_row(&sequence)?;
                let columns: Vec<ColumnInfo> = ["last_value", "log_cnt", "is_called"]
                    .into_iter()
                    .zip([DataType::INT8, DataType::INT8, DataType::BOOL])
                    .zip(1..)
                    .map(|((name, data_type), number)| ColumnInfo {
                        name: name.to_owned(),
                        data_type,
                        origin: Some((sequence.oid.get(), number)),
                    })
                    .collect();
                let mut scope = derived_scope(visible, &columns, level);
                rename(&mut scope, alias, visible)?;
                scope.columns.push(ScopeColumn::tableoid(visible, sequence.oid.get()));
                Ok((node, scope))
            }
            Relation::View(view) => {
                if lock {
                    return Err(unsupported("FOR UPDATE over a view"));
                }
                let (node, columns) = self.bind_view(&view)?;
                let mut scope = derived_scope(visible, &columns, level);
                narrow(&mut scope.columns, known);
                rename(&mut scope, alias, visible)?;
                Ok((node, scope))
            }
            Relation::Virtual(relation) if relation.name() == "pg_sequences" => {
                // Where sequences stand is the store's, so it is a view, as in PostgreSQL.
                let query = crate::parse::parse_query(super::sequence::PG_SEQUENCES)?;
                let (node, columns) =
                    self.within(super::view::Frame::Plain, || self.bind_query(&query, &Level::default()))?;
                let mut scope = derived_scope(visible, &columns, level);
                rename(&mut scope, alias, visible)?;
                scope.columns.push(ScopeColumn::tableoid(visible, relation.oid()));
                Ok((node, scope))
            }
            Relation::Virtual(relation) => {
                let columns: Vec<ColumnInfo> = relation
                    .columns()
                    .iter()
                    .zip(1..)
                    .map(|(column, number)| ColumnInfo {
                        name: column.name.to_owned(),
                        data_type: column.data_type,
                        origin: Some((relation.oid(), number)),
                    })
                    .collect();
                let mut scope = derived_scope(visible, &columns, level);
                narrow(&mut scope.columns, known);
                rename(&mut scope, alias, visible)?;
                scope.columns.push(ScopeColumn::tableoid(visible, relation.oid()));
                let width = columns.len();
                Ok((Node::Virtual { relation, width }, scope))
            }
        }
    }

    fn bind_function<'l>(
        &self,
        name: &ObjectName,
        args: &[FunctionArg],
        ordinality: bool,
        alias: Option<&TableAlias>,
        level: &'l Level<'l>,
        before: Option<&Scope<'l>>,
    ) -> Result<(Bound<'l>, Vec<Expr>), SqlError> {
        let (_, own_name) = self.split_name(name)?;
        if own_name.value == keywords::FUNCTION && args.is_empty() && !ordinality {
            return Ok((keyword_rows(alias, level)?, Vec::new()));
        }
        // A function may always refer to what stands before it.
        let inner = Level {
            outer: before.map(|scope| -> &dyn Resolve { scope }),
            used: std::cell::RefCell::default(),
        };
        let place = Scope::empty(if before.is_some() { &inner } else { level });
        let args = args.iter().map(function_arg).collect::<Result<Vec<&AstExpr>, _>>()?;
        if own_name.value == "unnest" && args.len() > 1 {
            let (node, columns) = self.bind_unnest(&args, ordinality, &place)?;
            let visible = alias.map_or_else(|| own_name.value.clone(), |alias| alias.name.value.clone());
            let mut scope = derived_scope(&visible, &columns, level);
            rename(&mut scope, alias, &visible)?;
            return Ok(((node, scope), inner.used.into_inner()));
        }
        let (function, args, data_type) = match self
            .bind_table_function(own_name, &args, &place)
            .map_err(|error| super::window::not_allowed_in(error, "functions in FROM"))?
        {
            Some(found) => found,
            None => {
                let args =
                    args.iter().map(|arg| self.bind_expr(arg, &place)).collect::<Result<Vec<_>, _>>()?;
                let call = self.function(name, args)?;
                let data_type = call.ty();
                (TableFunction::Scalar, vec![call], data_type)
            }
        };
        let visible = alias.map_or_else(|| own_name.value.clone(), |alias| alias.name.value.clone());
        let named_result = own_name.value.contains("_array_elements") && own_name.value.starts_with("json");
        let name = if named_result { "value".to_owned() } else { visible.clone() };
        let mut columns = vec![ColumnInfo { name, data_type, origin: None }];
        if ordinality {
            columns.push(ColumnInfo { name: "ordinality".into(), data_type: DataType::INT8, origin: None });
        }
        let mut node = Node::Function { function, args, ordinality };
        if let Some(shape) = data_type.row_shape() {
            // A record whose fields are known is a row of them.
            let mut exprs = fields_of(&Expr::Column { index: 0, ty: data_type }, &shape);
            exprs.extend(ordinality.then_some(Expr::Column { index: 1, ty: DataType::INT8 }));
            node = Node::Project { input: Box::new(node), exprs };
            columns.splice(
                ..1,
                shape.iter().map(|(name, ty)| ColumnInfo {
                    name: name.clone(),
                    data_type: *ty,
                    origin: None,
                }),
            );
        }
        let mut scope = derived_scope(&visible, &columns, level);
        rename(&mut scope, alias, &visible)?;
        if let [only] = scope.columns.as_mut_slice() {
            only.is_whole = data_type.row_shape().is_none();
        }
        Ok(((node, scope), inner.used.into_inner()))
    }

    /// `unnest` of several arrays: side by side, with NULL where one has ended.
    fn bind_unnest(
        &self,
        arrays: &[&AstExpr],
        ordinality: bool,
        place: &dyn Resolve,
    ) -> Result<(Node, Vec<ColumnInfo>), SqlError> {
        let name = Ident::new("unnest");
        let number = |value| Expr::constant(Value::Int8(value), DataType::INT8);
        let mut exprs = Vec::with_capacity(arrays.len() + 1);
        let mut columns = Vec::with_capacity(arrays.len() + 1);
        let mut lengths = Vec::with_capacity(arrays.len());
        for array in arrays {
            let bound = self
                .bind_table_function(&name, &[array], place)
                .map_err(|error| super::window::not_allowed_in(error, "functions in FROM"))?;
            let Some((function, args, data_type)) = bound else {
                return Err(SqlError::internal("unnest yields no rows"));
            };
            if ordinality {
                let length = self.function(&simple_name("cardinality"), args.clone())?;
                lengths.push(self.coalesce(vec![length, number(0)])?);
            }
            exprs.push((Some(function), args));
            columns.push(ColumnInfo { name: name.value.clone(), data_type, origin: None });
        }
        if ordinality {
            let longest = self.function(&simple_name("greatest"), lengths)?;
            let call = scalar::resolve_function("generate_series", vec![number(1), longest])?;
            let (Some(function), Expr::Call { args, ty, .. }) =
                (scalar::resolve::set_returning(&call), self.settle(call))
            else {
                return Err(SqlError::internal("generate_series yields no rows"));
            };
            exprs.push((Some(TableFunction::Set(function)), args));
            columns.push(ColumnInfo { name: "ordinality".into(), data_type: ty, origin: None });
        }
        let one = Node::Values { rows: vec![Vec::new()], width: 0 };
        Ok((Node::ProjectSet { input: Box::new(one), exprs }, columns))
    }
}

/// The fields of a record, each as an expression.
pub(super) fn fields_of(record: &Expr, shape: &[(String, DataType)]) -> Vec<Expr> {
    if let Expr::WholeRow { fields, nullable: false, .. } = record {
        return fields.clone();
    }
    let field = |(index, (_, ty)): (usize, &(String, DataType))| Expr::Field {
        record: Box::new(record.clone()),
        index,
        ty: *ty,
    };
    shape.iter().enumerate().map(field).collect()
}

fn is_options_to_table(name: &ObjectName) -> bool {
    last_ident(name).is_ok_and(|name| name.value == "pg_options_to_table")
}

/// `pg_options_to_table(options)` as a query: a row for each `name=value`.
fn options_to_table(options: &AstExpr) -> String {
    format!(
        "SELECT CASE WHEN strpos(o, '=') > 0 THEN left(o, strpos(o, '=') - 1) ELSE o END AS option_name, \
         CASE WHEN strpos(o, '=') > 0 THEN substr(o, strpos(o, '=') + 1) END AS option_value \
         FROM pg_catalog.unnest({options}) AS o"
    )
}

/// The rows of `pg_get_keywords()`.
fn keyword_rows<'l>(alias: Option<&TableAlias>, level: &'l Level<'l>) -> Result<Bound<'l>, SqlError> {
    let visible = alias.map_or(keywords::FUNCTION, |alias| &alias.name.value);
    let columns = keywords::COLUMNS.map(|(name, data_type)| ColumnInfo {
        name: name.to_owned(),
        data_type,
        origin: None,
    });
    let mut scope = derived_scope(visible, &columns, level);
    rename(&mut scope, alias, visible)?;
    let row = |values: [Value; 5]| {
        let typed = values.into_iter().zip(keywords::COLUMNS);
        typed.map(|(value, (_, data_type))| Expr::constant(value, data_type)).collect()
    };
    Ok((Node::Values { rows: keywords::rows().map(row).collect(), width: columns.len() }, scope))
}

/// The expression of an unnamed function argument.
pub(crate) fn function_arg(arg: &FunctionArg) -> Result<&AstExpr, SqlError> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr),
        FunctionArg::Unnamed(_) => Err(fail(SqlState::SYNTAX_ERROR, "\"*\" is not allowed here")),
        FunctionArg::Named { .. } | FunctionArg::ExprNamed { .. } => {
            Err(unsupported("a named function argument"))
        }
    }
}

/// The last part of a name.
pub(crate) fn last_ident(name: &ObjectName) -> Result<Ident, SqlError> {
    name.0
        .last()
        .and_then(ast::ObjectNamePart::as_ident)
        .cloned()
        .ok_or_else(|| fail(SqlState::SYNTAX_ERROR, "a name is expected"))
}

/// The scope of a subquery or a function in FROM.
pub(crate) fn derived_scope<'l>(alias: &str, columns: &[ColumnInfo], level: &'l Level<'l>) -> Scope<'l> {
    let columns = columns
        .iter()
        .enumerate()
        .map(|(index, column)| ScopeColumn {
            read: None,
            relation: Some(alias.to_owned()),
            name: column.name.clone(),
            data_type: column.data_type,
            expr: Expr::Column { index, ty: column.data_type },
            merged: false,
            hidden: false,
            nullable: false,
            is_whole: false,
            origin: column.origin,
        })
        .collect();
    Scope { columns, level }
}

/// Applies the column names of an alias.
pub(super) fn rename(
    scope: &mut Scope<'_>,
    alias: Option<&TableAlias>,
    visible: &str,
) -> Result<(), SqlError> {
    let Some(alias) = alias else { return Ok(()) };
    if alias.columns.len() > scope.columns.len() {
        return Err(fail(
            SqlState::INVALID_COLUMN_REFERENCE,
            format!(
                "table \"{visible}\" has {} columns available but {} columns specified",
                scope.columns.len(),
                alias.columns.len()
            ),
        ));
    }
    for (column, name) in scope.columns.iter_mut().zip(&alias.columns) {
        column.name.clone_from(&name.name.value);
    }
    Ok(())
}

/// Refuses two relations of the same name.
fn check_aliases(left: &Scope<'_>, right: &Scope<'_>) -> Result<(), SqlError> {
    let clash = right
        .columns
        .iter()
        .filter_map(|column| column.relation.as_deref())
        .find(|name| left.own_relation(name));
    match clash {
        Some(name) => {
            Err(fail(SqlState::DUPLICATE_ALIAS, format!("table name \"{name}\" specified more than once")))
        }
        None => Ok(()),
    }
}

/// Puts two relations side by side.
fn combine<'l>(left: Bound<'l>, right: Bound<'l>, kind: JoinKind, lateral: Vec<Expr>) -> Bound<'l> {
    let width = left.0.width();
    let mut scope = left.1;
    let mut right_columns = right.1.columns;
    shift(&mut right_columns, width);
    if matches!(kind, JoinKind::Right | JoinKind::Full) {
        scope.columns.iter_mut().for_each(|column| column.nullable = true);
    }
    if matches!(kind, JoinKind::Left | JoinKind::Full) {
        right_columns.iter_mut().for_each(|column| column.nullable = true);
    }
    scope.columns.append(&mut right_columns);
    let algorithm = if lateral.is_empty() {
        JoinAlgorithm::NestedLoop
    } else {
        JoinAlgorithm::Lateral { outer: lateral }
    };
    let join = Join { left: left.0, right: right.0, kind, condition: None, algorithm };
    (Node::Join(Box::new(join)), scope)
}

/// Sets the condition of a join that was just made.
fn with_condition(node: Node, condition: Expr) -> Node {
    match node {
        Node::Join(mut join) => {
            join.condition = Some(condition);
            Node::Join(join)
        }
        other => Node::Filter { input: Box::new(other), predicate: condition },
    }
}
