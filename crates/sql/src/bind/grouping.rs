//! GROUP BY with several grouping sets: ROLLUP, CUBE, GROUPING SETS, and GROUPING().
//!
//! Every item of GROUP BY stands for a list of sets, a plain expression for one set of one key; the sets of the whole
//! clause are the cross product of those lists. The parser reads ROLLUP and CUBE within GROUPING SETS as functions of
//! these names.

use sqlparser::ast::{Expr as AstExpr, Function, FunctionArguments, Ident, Select};

use super::aggregate::Grouped;
use super::context::Binder;
use super::errors::{at, fail, syntax, unsupported};
use super::from::function_arg;
use super::scope::{Resolve, Scope};
use super::select::strip;
use crate::error::{SqlError, SqlState};
use crate::plan::{Aggregate, GroupingSet, Node};
use crate::scalar::Expr;

/// Most elements of a CUBE, as in PostgreSQL.
const CUBE_MAX: usize = 12;
/// Most sets of one GROUP BY, as in PostgreSQL.
const SETS_MAX: usize = 4096;
/// Most arguments of GROUPING: as many as its result has bits for, as in PostgreSQL.
const GROUPING_ARGS_MAX: usize = 31;

/// Keys by their numbers.
type Set = Vec<usize>;

/// A bound GROUP BY.
#[derive(Debug, Default)]
pub(crate) struct Grouping {
    /// The keys, once each, over the rows of FROM.
    pub groups: Vec<Expr>,
    /// The expressions as written, each with the number of its key.
    pub written: Vec<(AstExpr, usize)>,
    /// The grouping sets; one with all keys when the clause names only plain expressions.
    pub sets: Vec<Set>,
}

impl Grouping {
    /// The keys that are in all sets: what depends on them is known in every group.
    pub(crate) fn common(&self) -> Vec<Expr> {
        let is_common = |key: &usize| self.sets.iter().all(|set| set.contains(key));
        let keys = self.groups.iter().enumerate().filter(|(key, _)| is_common(key));
        keys.map(|(_, group)| group.clone()).collect()
    }
}

fn too_many_sets() -> SqlError {
    let message = format!("too many grouping sets present (maximum {SETS_MAX})");
    fail(SqlState::STATEMENT_TOO_COMPLEX, message)
}

/// Whether a call is meant as one of the words that SQL keeps for grouping.
fn is_word(function: &Function, word: &str) -> bool {
    let [part] = function.name.0.as_slice() else { return false };
    part.as_ident().is_some_and(|name| name.quote_style.is_none() && name.value.eq_ignore_ascii_case(word))
}

/// The arguments of such a word, which takes nothing else.
fn call_args(function: &Function) -> Result<Vec<&AstExpr>, SqlError> {
    match &function.args {
        FunctionArguments::List(list)
            if !list.args.is_empty()
                && list.clauses.is_empty()
                && list.duplicate_treatment.is_none()
                && function.filter.is_none() =>
        {
            list.args.iter().map(function_arg).collect()
        }
        _ => Err(syntax(format!("{} takes a list of expressions and nothing else", function.name))),
    }
}

/// Every set with what is left of the elements when some of the last are taken away.
fn rollup(elements: &[Set]) -> Vec<Set> {
    (0..=elements.len()).rev().map(|count| elements.iter().take(count).flatten().copied().collect()).collect()
}

/// Every choice among the elements.
fn cube(elements: &[Set]) -> Result<Vec<Set>, SqlError> {
    if elements.len() > CUBE_MAX {
        let message = format!("CUBE is limited to {CUBE_MAX} elements");
        // The parser does not say where the word stands.
        return Err(fail(SqlState::TOO_MANY_COLUMNS, message));
    }
    let chosen = |choice: usize| {
        let elements = elements.iter().enumerate();
        elements
            .filter(move |(place, _)| choice >> place & 1 == 1)
            .flat_map(|(_, keys)| keys)
            .copied()
            .collect()
    };
    Ok((0..1_usize << elements.len()).rev().map(chosen).collect())
}

/// The aggregation over the sets of a GROUP BY.
///
/// # Errors
/// 0A000 for an ordered-set aggregate whose direct arguments are keys, which some of the sets may be without.
pub(crate) fn aggregate(
    input: Node,
    bound: Grouped,
    mut sets: Vec<Set>,
    written_count: usize,
) -> Result<Aggregate, SqlError> {
    let Grouped { groups, calls, groupings } = bound;
    let always_one = matches!(sets.as_slice(), [set] if set.is_empty());
    let is_plain = matches!(sets.as_slice(), [set] if set.len() == written_count);
    if is_plain && groupings.is_empty() {
        sets = Vec::new();
    }
    if !is_plain && calls.iter().flat_map(|call| &call.direct).any(reads_row) {
        return Err(unsupported(
            "a group key as direct argument of an ordered-set aggregate with grouping sets",
        ));
    }
    let complete = |set: Set| {
        let dependent = if set.is_empty() { groups.len() } else { written_count };
        GroupingSet {
            is_empty: set.is_empty(),
            keys: set.into_iter().chain(dependent..groups.len()).collect(),
        }
    };
    let sets = sets.into_iter().map(complete).collect();
    Ok(Aggregate { input, groups, calls, always_one, sets, groupings, estimate: None })
}

/// Whether an expression reads a column of its row.
fn reads_row(expr: &Expr) -> bool {
    let mut reads = false;
    expr.visit(&mut |part| reads |= matches!(part, Expr::Column { .. }));
    reads
}

impl Binder<'_> {
    /// Binds GROUP BY.
    ///
    /// # Errors
    /// 54001 and 54011 for more sets than PostgreSQL takes, and as [`Binder::bind_expr`].
    pub(crate) fn bind_group_by(
        &self,
        group_by: &[AstExpr],
        select: &Select,
        scope: &Scope<'_>,
    ) -> Result<Grouping, SqlError> {
        let mut grouping = Grouping { sets: vec![Vec::new()], ..Grouping::default() };
        for item in group_by {
            let own = self.group_sets(item, select, scope, &mut grouping)?;
            if grouping.sets.len().saturating_mul(own.len()) > SETS_MAX {
                return Err(too_many_sets());
            }
            let with_own = |set: &Set| {
                let set = set.clone();
                own.iter().map(move |own| set.iter().chain(own).copied().collect::<Set>()).collect::<Vec<_>>()
            };
            grouping.sets = grouping.sets.iter().flat_map(with_own).collect();
        }
        for set in &mut grouping.sets {
            set.sort_unstable();
            set.dedup();
        }
        Ok(grouping)
    }

    /// The sets that one item stands for.
    fn group_sets(
        &self,
        item: &AstExpr,
        select: &Select,
        scope: &Scope<'_>,
        grouping: &mut Grouping,
    ) -> Result<Vec<Set>, SqlError> {
        let mut element = |exprs: &[&AstExpr]| -> Result<Set, SqlError> {
            let keys = exprs.iter().map(|expr| self.group_key(expr, select, scope, grouping));
            Ok(keys.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
        };
        let mut elements = |lists: &[Vec<AstExpr>]| {
            lists.iter().map(|list| element(&list.iter().collect::<Vec<_>>())).collect::<Result<Vec<_>, _>>()
        };
        match item {
            AstExpr::Rollup(lists) => Ok(rollup(&elements(lists)?)),
            AstExpr::Cube(lists) => cube(&elements(lists)?),
            AstExpr::GroupingSets(lists) => {
                let mut sets = Vec::new();
                for list in lists {
                    match list.as_slice() {
                        [AstExpr::Function(function)]
                            if is_word(function, "rollup") || is_word(function, "cube") =>
                        {
                            let args = call_args(function)?;
                            let elements =
                                args.iter().map(|arg| element(&[*arg])).collect::<Result<Vec<_>, _>>()?;
                            match is_word(function, "cube") {
                                true => sets.extend(cube(&elements)?),
                                false => sets.extend(rollup(&elements)),
                            }
                        }
                        list => sets.push(element(&list.iter().collect::<Vec<_>>())?),
                    }
                    if sets.len() > SETS_MAX {
                        return Err(too_many_sets());
                    }
                }
                Ok(sets)
            }
            item => Ok(vec![element(&[item])?]),
        }
    }

    /// The keys that an expression stands for: those of its parts when it is a list in parentheses.
    fn group_key(
        &self,
        expr: &AstExpr,
        select: &Select,
        scope: &Scope<'_>,
        grouping: &mut Grouping,
    ) -> Result<Set, SqlError> {
        if let AstExpr::Tuple(exprs) = strip(expr) {
            let keys = exprs.iter().map(|expr| self.group_key(expr, select, scope, grouping));
            return Ok(keys.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect());
        }
        let expr = self.group_item(expr, select, scope)?;
        let bound = self.bind_expr(&expr, scope).map_err(|error| {
            if error.message() == "aggregate functions are not allowed here" {
                let message = "aggregate functions are not allowed in GROUP BY";
                return at(fail(SqlState::GROUPING_ERROR, message), &expr);
            }
            super::window::not_allowed_in(error, "GROUP BY")
        })?;
        super::query::require_equality(bound.ty()).map_err(|error| at(error, &expr))?;
        let key = match grouping.groups.iter().position(|group| *group == bound) {
            Some(key) => key,
            None => {
                grouping.groups.push(bound);
                grouping.groups.len() - 1
            }
        };
        grouping.written.push((expr, key));
        Ok(vec![key])
    }

    /// GROUPING(...): which of some keys are not in the set that a row is of, the last key in the lowest bit.
    ///
    /// # Errors
    /// 42803 where it may not stand and for what is no key, 54023 for too many arguments.
    pub(crate) fn bind_grouping(
        &self,
        function: &Function,
        name: &Ident,
        place: &dyn Resolve,
    ) -> Result<Expr, SqlError> {
        let args = call_args(function)?;
        if args.len() > GROUPING_ARGS_MAX {
            let message = format!("GROUPING must have fewer than {} arguments", GROUPING_ARGS_MAX + 1);
            return Err(at(fail(SqlState::TOO_MANY_ARGUMENTS, message), name));
        }
        if !place.takes_grouping() {
            return Err(at(fail(SqlState::GROUPING_ERROR, "grouping operations are not allowed here"), name));
        }
        let mut keys = Vec::with_capacity(args.len());
        for arg in args {
            let arg = strip(arg);
            let bound = place.grouped(arg).map_or_else(|| self.bind_expr(arg, place), Ok);
            let key = match &bound {
                Ok(Expr::Outer { .. }) => return Err(unsupported("GROUPING of another query's keys")),
                Ok(Expr::Column { index, .. }) => place.grouping_key(*index),
                Ok(_) => None,
                Err(error) if error.state() == SqlState::GROUPING_ERROR => None,
                Err(error) => return Err(error.clone()),
            };
            let message = "arguments to GROUPING must be grouping expressions of the associated query level";
            keys.push(key.ok_or_else(|| at(fail(SqlState::GROUPING_ERROR, message), arg))?);
        }
        place.add_grouping(keys)
    }
}

/// Whether a call is GROUPING(...).
pub(crate) fn is_grouping(function: &Function) -> bool {
    is_word(function, "grouping")
}
