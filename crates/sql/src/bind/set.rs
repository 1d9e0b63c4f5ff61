//! Functions that yield rows, anywhere in a select list or ORDER BY: they run side by side, each row of theirs beside a copy
//! of the row that they were called for.

use std::cell::{Cell, RefCell};

use rustydb_types::datatype::DataType;
use sqlparser::ast::{Expr as AstExpr, Ident};

use super::aggregate::SET_BASE;
use super::errors::{fail, unsupported};
use super::scope::{Resolve, ScopeColumn};
use super::select::OutputItem;
use crate::error::{SqlError, SqlState};
use crate::plan::{AggregateCall, Node, SortKey, TableFunction};
use crate::scalar::Expr;

/// A call of a function that yields rows.
#[derive(Clone, Debug)]
pub(crate) struct SetCall {
    function: TableFunction,
    args: Vec<Expr>,
}

/// A place in which functions that yield rows may stand.
#[derive(Debug)]
pub(super) struct SetPlace<'p> {
    inner: &'p dyn Resolve,
    calls: RefCell<Vec<SetCall>>,
    /// The clause in which none may stand, if what is being bound is within one.
    forbidden: Cell<Option<&'static str>>,
}

impl<'p> SetPlace<'p> {
    /// A place around another.
    pub(crate) fn new(inner: &'p dyn Resolve) -> Self {
        Self { inner, calls: RefCell::default(), forbidden: Cell::default() }
    }

    /// The calls that were met.
    pub(crate) fn into_calls(self) -> Vec<SetCall> {
        self.calls.into_inner()
    }
}

/// The calls with their arguments moved to the rows of a plan.
pub(crate) fn settled(mut calls: Vec<SetCall>, settle: &dyn Fn(Expr) -> Expr) -> Vec<SetCall> {
    for arg in calls.iter_mut().flat_map(|call| &mut call.args) {
        *arg = settle(std::mem::replace(arg, Expr::null()));
    }
    calls
}

impl Resolve for SetPlace<'_> {
    fn column(&self, relation: Option<&str>, name: &Ident) -> Result<Option<Expr>, SqlError> {
        self.inner.column(relation, name)
    }

    fn star_column(&self, column: &ScopeColumn) -> Result<Expr, SqlError> {
        self.inner.star_column(column)
    }

    fn whole_row(&self, relation: &str) -> Result<Option<Expr>, SqlError> {
        self.inner.whole_row(relation)
    }

    fn has_relation(&self, relation: &str) -> bool {
        self.inner.has_relation(relation)
    }

    fn aggregate_place(&self) -> Result<&dyn Resolve, SqlError> {
        self.inner.aggregate_place()
    }

    fn add_aggregate(&self, call: AggregateCall) -> Result<Expr, SqlError> {
        self.inner.add_aggregate(call)
    }

    fn window_place(&self) -> Option<&super::window::WindowPlace<'_>> {
        self.inner.window_place()
    }

    fn grouped(&self, expr: &AstExpr) -> Option<Expr> {
        self.inner.grouped(expr)
    }

    fn takes_grouping(&self) -> bool {
        self.inner.takes_grouping()
    }

    fn grouping_key(&self, index: usize) -> Option<usize> {
        self.inner.grouping_key(index)
    }

    fn add_grouping(&self, keys: Vec<usize>) -> Result<Expr, SqlError> {
        self.inner.add_grouping(keys)
    }

    fn add_set(&self, function: TableFunction, args: Vec<Expr>, ty: DataType) -> Result<Expr, SqlError> {
        if let Some(clause) = self.forbidden.get() {
            let message = format!("set-returning functions are not allowed in {clause}");
            return Err(fail(SqlState::FEATURE_NOT_SUPPORTED, message));
        }
        let mut calls = self.calls.borrow_mut();
        calls.push(SetCall { function, args });
        Ok(Expr::Column { index: SET_BASE + calls.len() - 1, ty })
    }

    fn forbid_sets(&self, clause: Option<&'static str>) -> Option<&'static str> {
        self.forbidden.replace(clause)
    }
}

fn has_set(expr: &Expr) -> bool {
    let mut found = false;
    expr.visit(&mut |part| found |= matches!(part, Expr::Column { index, .. } if *index >= SET_BASE));
    found
}

/// The call that an expression is the plain result of.
fn whole_call<'c>(expr: &Expr, calls: &'c [SetCall]) -> Option<&'c SetCall> {
    match expr {
        Expr::Column { index, .. } => calls.get(index.checked_sub(SET_BASE)?),
        _ => None,
    }
}

/// What became of a select list whose functions yield rows.
pub(crate) enum Expanded {
    /// The node yields the rows of the select list itself, sorted.
    Whole(Node),
    /// The items and keys stand over the rows of the node now.
    Beneath(Node, Vec<OutputItem>, Vec<SortKey>),
}

/// Puts the node that runs the functions on top of a plan. ORDER BY that uses none of them comes before it, if nothing
/// else comes between: then only the rows that are wanted are made.
///
/// # Errors
/// 0A000 for a function over the rows of another.
pub(crate) fn expand(
    calls: Vec<SetCall>,
    node: Node,
    items: Vec<OutputItem>,
    mut keys: Vec<SortKey>,
    is_distinct: bool,
) -> Result<Expanded, SqlError> {
    if calls.iter().flat_map(|call| &call.args).any(has_set) {
        return Err(unsupported("a set-returning function over another one's rows"));
    }
    let mut input = node;
    if !is_distinct && !keys.iter().any(|key| has_set(&key.expr)) {
        input = super::query::sorted(input, std::mem::take(&mut keys));
        let exprs = items.iter().flat_map(|item| &item.exprs);
        if exprs.clone().all(|expr| whole_call(expr, &calls).is_some() || !has_set(expr)) {
            let part = |expr: &Expr| match whole_call(expr, &calls) {
                Some(call) => (Some(call.function), call.args.clone()),
                None => (None, vec![expr.clone()]),
            };
            let exprs = exprs.map(part).collect();
            return Ok(Expanded::Whole(Node::ProjectSet { input: Box::new(input), exprs }));
        }
    }
    // What the items and keys read of the rows beneath goes along.
    let mut read: Vec<(usize, DataType)> = Vec::new();
    for expr in items.iter().flat_map(|item| &item.exprs).chain(keys.iter().map(|key| &key.expr)) {
        expr.visit(&mut |part| {
            if let Expr::Column { index, ty } = part
                && *index < SET_BASE
                && !read.iter().any(|(known, _)| known == index)
            {
                read.push((*index, *ty));
            }
        });
    }
    let count = read.len();
    let along = read.iter().map(|(index, ty)| (None, vec![Expr::Column { index: *index, ty: *ty }]));
    let exprs = along.chain(calls.into_iter().map(|call| (Some(call.function), call.args))).collect();
    let node = Node::ProjectSet { input: Box::new(input), exprs };
    let place = |index: usize| match index.checked_sub(SET_BASE) {
        Some(call) => count + call,
        None => read.iter().position(|(known, _)| *known == index).unwrap_or(0),
    };
    let settle = |expr: Expr| expr.map_columns(&mut |index| place(index));
    let (items, keys) = super::window::settled(items, keys, &settle);
    Ok(Expanded::Beneath(node, items, keys))
}
