//! WITH RECURSIVE: a query that reads the rows which it gave last, until it gives none.
//!
//! The term without recursion is bound first and decides the columns; the other one sees those as a relation of the
//! query's name. Where that relation may stand is checked on the bound plan.

use std::sync::Arc;

use parking_lot::Mutex;
use sqlparser::ast::{Cte as AstCte, Ident, SetExpr, SetOperator, SetQuantifier};

use super::context::{Binder, Cte};
use super::errors::{at, fail, unsupported};
use super::query::BoundQuery;
use super::scope::Level;
use crate::error::{SqlError, SqlState};
use crate::plan::{ColumnInfo, JoinKind, Node, SetOperation};
use crate::scalar::Expr;

/// Where a name was used.
pub(crate) type Uses = Arc<Mutex<Vec<Ident>>>;

impl Binder<'_> {
    /// Binds a query of WITH RECURSIVE; `None` when it does not refer to itself.
    ///
    /// # Errors
    /// 42P19 when it refers to itself where it may not, 42804 when the types of its terms differ.
    pub(crate) fn bind_recursive(
        &self,
        cte: &AstCte,
        level: &Level<'_>,
    ) -> Result<Option<BoundQuery>, SqlError> {
        let name = cte.alias.name.value.as_str();
        let SetExpr::SetOperation { left, op: SetOperator::Union, set_quantifier, right } =
            cte.query.body.as_ref()
        else {
            let (bound, uses) =
                self.with_own_name(name, &[], None, || self.bind_query(&cte.query, level).map(|_| ()));
            return match uses.first() {
                Some(_) => {
                    let message = format!(
                        "recursive query \"{name}\" does not have the form non-recursive-term UNION [ALL] \
                         recursive-term"
                    );
                    Err(at(fail(SqlState::INVALID_RECURSION, message), &cte.alias.name))
                }
                // What is wrong with it is found when it is bound as any other.
                None => {
                    drop(bound);
                    Ok(None)
                }
            };
        };
        let all = match set_quantifier {
            SetQuantifier::All => true,
            SetQuantifier::Distinct | SetQuantifier::None => false,
            _ => return Err(unsupported("a set operation BY NAME")),
        };
        let known = self.ctes.borrow().len();
        if let Some(with) = &cte.query.with {
            self.bind_with(with, level, false)?;
        }
        let bound = self.bind_terms(cte, (left, right, all), level);
        self.ctes.borrow_mut().truncate(known);
        bound
    }

    fn bind_terms(
        &self,
        cte: &AstCte,
        (left, right, all): (&SetExpr, &SetExpr, bool),
        level: &Level<'_>,
    ) -> Result<Option<BoundQuery>, SqlError> {
        let name = cte.alias.name.value.as_str();
        let (initial, uses) = self.with_own_name(name, &[], None, || self.bind_set_expr(left, level));
        if let Some(used) = uses.first() {
            let message = format!(
                "recursive reference to query \"{name}\" must not appear within its non-recursive term"
            );
            return Err(at(fail(SqlState::INVALID_RECURSION, message), used));
        }
        let (initial, columns) = self.settle_unknown(initial?)?;
        let mut named = columns.clone();
        for (column, alias) in named.iter_mut().zip(&cte.alias.columns) {
            column.name.clone_from(&alias.name.value);
        }
        let id = self.new_id();
        let own = Node::WorkTable { id, name: name.to_owned(), width: named.len() };
        let (step, uses) = self.with_own_name(name, &named, Some(own), || self.bind_set_expr(right, level));
        let Some(used) = uses.first() else { return Ok(None) };
        let (step, given) = step?;
        let query = &cte.query;
        let clauses = [
            (query.order_by.is_some(), "ORDER BY"),
            (query.limit_clause.is_some(), "LIMIT"),
            (query.fetch.is_some(), "FETCH"),
            (!query.locks.is_empty(), "FOR UPDATE/SHARE"),
        ];
        if let Some((_, clause)) = clauses.iter().find(|(present, _)| *present) {
            let message = format!("{clause} in a recursive query is not implemented");
            return Err(fail(SqlState::FEATURE_NOT_SUPPORTED, message));
        }
        let place = |what: &str| {
            let message = format!("recursive reference to query \"{name}\" must not appear {what}");
            at(fail(SqlState::INVALID_RECURSION, message), used)
        };
        let found = references(&step, id, &place)?;
        if found < uses.len() {
            let message =
                format!("recursive reference to query \"{name}\" must not appear within a subquery");
            return Err(at(fail(SqlState::INVALID_RECURSION, message), uses.last().unwrap_or(used)));
        }
        if let Some(second) = uses.get(1) {
            let message = format!("recursive reference to query \"{name}\" must not appear more than once");
            return Err(at(fail(SqlState::INVALID_RECURSION, message), second));
        }
        let step = self.same_columns(name, (step, &given), &columns)?;
        let node = Node::Recursive {
            id,
            initial: Box::new(initial),
            step: Box::new(step),
            all,
            // Within a subquery its rows depend on the row around it.
            is_shared: level.outer.is_none(),
        };
        Ok(Some((node, columns)))
    }

    /// Runs `bind` while a name means the query itself; where it was used.
    fn with_own_name<T>(
        &self,
        name: &str,
        columns: &[ColumnInfo],
        node: Option<Node>,
        bind: impl FnOnce() -> Result<T, SqlError>,
    ) -> (Result<T, SqlError>, Vec<Ident>) {
        let uses = Uses::default();
        let known = self.ctes.borrow().len();
        self.ctes.borrow_mut().push(Cte {
            name: name.to_owned(),
            columns: columns.to_vec(),
            node: node.unwrap_or_else(Node::one_row),
            is_silent: false,
            uses: Some(Arc::clone(&uses)),
        });
        let bound = bind();
        self.ctes.borrow_mut().truncate(known);
        let uses = std::mem::take(&mut *uses.lock());
        (bound, uses)
    }

    /// Brings the recursive term to the types of the other one, which must be those of both together.
    fn same_columns(
        &self,
        name: &str,
        (node, given): (Node, &[ColumnInfo]),
        wanted: &[ColumnInfo],
    ) -> Result<Node, SqlError> {
        if given.len() != wanted.len() {
            return Err(super::errors::syntax("each UNION query must have the same number of columns"));
        }
        for (index, (own, other)) in wanted.iter().zip(given).enumerate() {
            let sides = [own, other].map(|column| Expr::Column { index, ty: column.data_type });
            let overall = self.common_type(&sides, "UNION")?;
            if overall != own.data_type {
                let message = format!(
                    "recursive query \"{name}\" column {} has type {} in non-recursive term but type {overall} \
                     overall",
                    index + 1,
                    own.data_type,
                );
                return Err(fail(SqlState::DATATYPE_MISMATCH, message)
                    .with_hint("Cast the output of the non-recursive term to the correct type."));
            }
        }
        self.coerce_columns(node, given, wanted)
    }
}

/// How often a plan reads the rows of a recursive query; an error where it may not.
fn references(node: &Node, id: usize, place: &dyn Fn(&str) -> SqlError) -> Result<usize, SqlError> {
    let within = |node: &Node| references(node, id, place);
    Ok(match node {
        Node::WorkTable { id: own, .. } => usize::from(*own == id),
        Node::Values { .. } | Node::Scan(_) | Node::Virtual { .. } | Node::Function { .. } => 0,
        Node::Filter { input, .. }
        | Node::Project { input, .. }
        | Node::Pick { input, .. }
        | Node::ProjectSet { input, .. }
        | Node::Sort { input, .. }
        | Node::Distinct { input, .. }
        | Node::Limit { input, .. } => within(input)?,
        Node::Window(window) => within(&window.input)?,
        Node::Aggregate(aggregate) => match within(&aggregate.input)? {
            0 => 0,
            _ => {
                let message = "aggregate functions are not allowed in a recursive query's recursive term";
                return Err(fail(SqlState::INVALID_RECURSION, message));
            }
        },
        Node::Join(join) => {
            let (left, right) = (within(&join.left)?, within(&join.right)?);
            let is_null_side = match join.kind {
                JoinKind::Inner => false,
                JoinKind::Left => right > 0,
                JoinKind::Right => left > 0,
                JoinKind::Full => left + right > 0,
            };
            if is_null_side {
                return Err(place("within an outer join"));
            }
            left + right
        }
        Node::SetOp { operation, left, right, .. } => {
            let (left, right) = (within(left)?, within(right)?);
            if right > 0 && *operation == SetOperation::Except {
                return Err(place("within EXCEPT"));
            }
            left + right
        }
        Node::Shared { plan, .. } => match within(plan)? {
            0 => 0,
            _ => return Err(unsupported("a recursive reference in a WITH query of the recursive term")),
        },
        Node::Recursive { initial, step, .. } => match within(initial)? + within(step)? {
            0 => 0,
            _ => return Err(unsupported("a recursive reference in another recursive query")),
        },
    })
}
