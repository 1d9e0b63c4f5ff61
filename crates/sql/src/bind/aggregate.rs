//! Places of a SELECT in which aggregates may stand.

use std::cell::{Cell, RefCell};

use rustydb_types::datatype::BaseType;
use sqlparser::ast::{Expr as AstExpr, Ident};

use super::errors::{fail, not_grouped};
use super::scope::{Resolve, Scope, ScopeColumn};
use crate::error::{SqlError, SqlState};
use crate::plan::AggregateCall;
use crate::scalar::Expr;

/// The first column number of aggregates until the number of group keys is settled.
const CALL_BASE: usize = 1 << 20;

/// The first column number of GROUPING calls until the numbers of group keys and aggregates are settled.
const GROUPING_BASE: usize = CALL_BASE + (1 << 19);

/// The first column number of window functions until those of the row below are settled.
pub(super) const WINDOW_BASE: usize = 1 << 21;

/// Results of functions that yield rows are numbered from here.
pub(super) const SET_BASE: usize = 1 << 22;

/// The select list and ORDER BY of a SELECT that is not known to be grouped.
#[derive(Debug)]
pub(crate) struct UngroupedPlace<'s, 'l> {
    /// The columns of FROM.
    pub scope: &'s Scope<'l>,
    /// Whether an aggregate was met, so that binding has to be repeated as grouped.
    pub saw_aggregate: Cell<bool>,
}

impl Resolve for UngroupedPlace<'_, '_> {
    fn column(&self, relation: Option<&str>, name: &Ident) -> Result<Option<Expr>, SqlError> {
        self.scope.column(relation, name)
    }

    fn whole_row(&self, relation: &str) -> Result<Option<Expr>, SqlError> {
        self.scope.whole_row(relation)
    }

    fn has_relation(&self, relation: &str) -> bool {
        self.scope.has_relation(relation)
    }

    fn aggregate_place(&self) -> Result<&dyn Resolve, SqlError> {
        self.saw_aggregate.set(true);
        Err(fail(SqlState::GROUPING_ERROR, "the query has to be bound as grouped"))
    }

    fn takes_grouping(&self) -> bool {
        true
    }
}

/// The select list, HAVING and ORDER BY of a grouped SELECT: its rows are group keys followed by aggregates.
#[derive(Debug)]
pub(crate) struct GroupedPlace<'s, 'l> {
    /// The columns of FROM.
    scope: &'s Scope<'l>,
    /// GROUP BY as written, each with the number of its key.
    written: Vec<(AstExpr, usize)>,
    /// Group keys over the rows of FROM; columns that depend on a grouped primary key are added as they are used.
    groups: RefCell<Vec<Expr>>,
    /// Columns of FROM that depend on the group keys.
    dependent: Vec<Expr>,
    /// Aggregates in order of appearance.
    calls: RefCell<Vec<AggregateCall>>,
    /// How many of the keys are of GROUP BY.
    written_count: usize,
    /// The keys of each GROUPING, in order of appearance.
    groupings: RefCell<Vec<Vec<usize>>>,
}

/// What was bound at a grouped place.
#[derive(Debug)]
pub(crate) struct Grouped {
    /// The group keys; those that depend on others come last.
    pub groups: Vec<Expr>,
    /// The aggregates.
    pub calls: Vec<AggregateCall>,
    /// The keys of each GROUPING.
    pub groupings: Vec<Vec<usize>>,
}

impl<'s, 'l> GroupedPlace<'s, 'l> {
    /// A place grouped by the given keys.
    pub(crate) fn new(
        scope: &'s Scope<'l>,
        written: Vec<(AstExpr, usize)>,
        groups: Vec<Expr>,
        dependent: Vec<Expr>,
    ) -> Self {
        Self {
            scope,
            written,
            written_count: groups.len(),
            groups: RefCell::new(groups),
            dependent,
            calls: RefCell::default(),
            groupings: RefCell::default(),
        }
    }

    /// How many of the keys are of GROUP BY; those behind them depend on the keys that all sets have.
    pub(crate) fn written_count(&self) -> usize {
        self.written_count
    }

    /// What was bound, and what moves expressions of this place to the final row.
    pub(crate) fn finish(self) -> (Grouped, impl Fn(Expr) -> Expr) {
        let groups = self.groups.into_inner();
        let calls = self.calls.into_inner();
        let count = groups.len();
        let call_count = calls.len();
        let settle = move |expr: Expr| {
            expr.map_columns(&mut |index| match index {
                CALL_BASE..GROUPING_BASE => index - CALL_BASE + count,
                GROUPING_BASE..WINDOW_BASE => index - GROUPING_BASE + count + call_count,
                index => index,
            })
        };
        (Grouped { groups, calls, groupings: self.groupings.into_inner() }, settle)
    }

    /// The column of a group key, which is added when it depends on the others.
    fn group_column(&self, expr: &Expr) -> Option<Expr> {
        let mut groups = self.groups.borrow_mut();
        let index = match groups.iter().position(|group| group == expr) {
            Some(index) => index,
            None if self.dependent.contains(expr) => {
                groups.push(expr.clone());
                groups.len() - 1
            }
            None => return None,
        };
        Some(Expr::Column { index, ty: expr.ty() })
    }
}

impl Resolve for GroupedPlace<'_, '_> {
    fn column(&self, relation: Option<&str>, name: &Ident) -> Result<Option<Expr>, SqlError> {
        match self.scope.own(relation, name)? {
            Some(column) => match self.group_column(&column.expr) {
                Some(expr) => Ok(Some(expr)),
                None => Err(not_grouped(column.relation.as_deref(), name)),
            },
            None => self.scope.level.outer_column(relation, name),
        }
    }

    fn star_column(&self, column: &ScopeColumn) -> Result<Expr, SqlError> {
        self.group_column(&column.expr).ok_or_else(|| {
            not_grouped(column.relation.as_deref(), &sqlparser::ast::Ident::new(column.name.clone()))
        })
    }

    fn whole_row(&self, relation: &str) -> Result<Option<Expr>, SqlError> {
        match self.scope.own_row(relation, &|column| self.star_column(column))? {
            Some(row) => Ok(Some(row)),
            None => self.scope.level.outer_row(relation),
        }
    }

    fn has_relation(&self, relation: &str) -> bool {
        self.scope.has_relation(relation)
    }

    fn aggregate_place(&self) -> Result<&dyn Resolve, SqlError> {
        Ok(self.scope)
    }

    fn add_aggregate(&self, call: AggregateCall) -> Result<Expr, SqlError> {
        let ty = call.function.ty;
        let mut calls = self.calls.borrow_mut();
        calls.push(call);
        Ok(Expr::Column { index: CALL_BASE + calls.len() - 1, ty })
    }

    fn takes_grouping(&self) -> bool {
        true
    }

    fn grouping_key(&self, index: usize) -> Option<usize> {
        (index < self.written_count).then_some(index)
    }

    fn add_grouping(&self, keys: Vec<usize>) -> Result<Expr, SqlError> {
        let mut groupings = self.groupings.borrow_mut();
        groupings.push(keys);
        let index = GROUPING_BASE + groupings.len() - 1;
        Ok(Expr::Column { index, ty: BaseType::Int4.into() })
    }

    fn grouped(&self, expr: &AstExpr) -> Option<Expr> {
        let (_, key) = self.written.iter().find(|(written, _)| written == expr)?;
        let ty = self.groups.borrow().get(*key)?.ty();
        Some(Expr::Column { index: *key, ty })
    }
}
