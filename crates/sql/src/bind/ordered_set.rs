//! Calls with WITHIN GROUP: ordered-set aggregates.

use sqlparser::ast::{DuplicateTreatment, Expr as AstExpr, Function, FunctionArguments, Ident};

use super::context::Binder;
use super::errors::{at, at_literal, fail, syntax};
use super::from::function_arg;
use super::query::sort_key;
use super::scope::Resolve;
use crate::error::{SqlError, SqlState};
use crate::plan::AggregateCall;
use crate::scalar::aggregate::OrderedSet;
use crate::scalar::catalogue::Catalogue;
use crate::scalar::{AggregateFunction, Expr};

impl Binder<'_> {
    /// Binds `name(direct arguments) WITHIN GROUP (ORDER BY values)`.
    ///
    /// # Errors
    /// 42809 and 42883 for functions that are not of that kind, and as [`Binder::bind_expr`].
    pub(crate) fn bind_ordered_set(
        &self,
        function: &Function,
        place: &dyn Resolve,
    ) -> Result<Expr, SqlError> {
        let (_, name) = self.split_name(&function.name)?;
        let FunctionArguments::List(list) = &function.args else {
            return Err(syntax("WITHIN GROUP needs a function with arguments"));
        };
        if matches!(list.duplicate_treatment, Some(DuplicateTreatment::Distinct)) {
            return Err(syntax("cannot use DISTINCT with WITHIN GROUP"));
        }
        if !list.clauses.is_empty() {
            return Err(syntax("cannot use multiple ORDER BY clauses with WITHIN GROUP"));
        }
        if function.over.is_some() {
            return Err(fail(
                SqlState::FEATURE_NOT_SUPPORTED,
                format!("OVER is not supported for ordered-set aggregate {}", name.value),
            ));
        }
        let written = list.args.iter().map(function_arg).collect::<Result<Vec<_>, _>>()?;
        let aggregated: Vec<&AstExpr> = function.within_group.iter().map(|item| &item.expr).collect();
        let inner = place.aggregate_place()?;
        let bind = |expr: &AstExpr| {
            self.bind_expr(expr, inner).map_err(|error| {
                if error.message() == "aggregate functions are not allowed here" {
                    at(fail(SqlState::GROUPING_ERROR, "aggregate function calls cannot be nested"), expr)
                } else {
                    error
                }
            })
        };
        let mut direct = written.iter().copied().map(bind).collect::<Result<Vec<_>, _>>()?;
        let mut values = aggregated.iter().copied().map(bind).collect::<Result<Vec<_>, _>>()?;
        let resolved = self
            .resolve_ordered_set(name, &mut direct, &mut values)
            .map_err(|error| at_literal(error, written.iter().chain(&aggregated).copied()))?;
        // A direct argument has one value for the whole group.
        for arg in &written {
            self.bind_expr(arg, place).map_err(|error| {
                if error.state() == SqlState::GROUPING_ERROR {
                    error.with_detail(
                        "Direct arguments of an ordered-set aggregate must use only grouped columns.",
                    )
                } else {
                    error
                }
            })?;
        }
        let order_by = values
            .into_iter()
            .zip(&function.within_group)
            .map(|(value, item)| sort_key(value, item))
            .collect::<Result<_, _>>()?;
        let filter = match &function.filter {
            Some(filter) => Some(self.bind_condition(filter, inner, "FILTER")?),
            None => None,
        };
        let call =
            AggregateCall { function: resolved, args: Vec::new(), direct, distinct: false, filter, order_by };
        place.add_aggregate(call)
    }

    /// The aggregate of a name, with its arguments converted.
    fn resolve_ordered_set(
        &self,
        name: &Ident,
        direct: &mut Vec<Expr>,
        values: &mut Vec<Expr>,
    ) -> Result<AggregateFunction, SqlError> {
        let named = Catalogue::get().functions(&name.value);
        let Some(kind) = named.iter().find_map(OrderedSet::of) else {
            // What else has that name and takes such arguments is told apart from what does not exist.
            let args: Vec<Expr> = direct.iter().chain(values.iter()).cloned().collect();
            if self.is_aggregate(&name.value) {
                self.aggregate(&name.value, args, true)?;
                let message =
                    format!("{} is not an ordered-set aggregate, so it cannot have WITHIN GROUP", name.value);
                return Err(fail(SqlState::WRONG_OBJECT_TYPE, message));
            }
            crate::scalar::resolve_function(&name.value, args)?;
            let message = format!("WITHIN GROUP specified, but {} is not an aggregate function", name.value);
            return Err(fail(SqlState::WRONG_OBJECT_TYPE, message));
        };
        if kind.is_hypothetical() {
            if direct.len() != values.len() {
                let types = direct.iter().chain(values.iter()).map(|arg| arg.ty().base.to_string());
                let message = format!(
                    "function {}({}) does not exist",
                    name.value,
                    types.collect::<Vec<_>>().join(", ")
                );
                return Err(fail(SqlState::UNDEFINED_FUNCTION, message).with_hint(format!(
                    "To use the hypothetical-set aggregate {}, the number of hypothetical direct arguments (here {}) must match the number of ordering columns (here {}).",
                    name.value,
                    direct.len(),
                    values.len()
                )));
            }
            for (direct, value) in direct.iter_mut().zip(values.iter_mut()) {
                let common = self.common_type(&[value.clone(), direct.clone()], "WITHIN GROUP")?;
                *direct = self.coerce_implicit(direct.clone(), common)?;
                *value = self.coerce_implicit(value.clone(), common)?;
            }
        }
        let count = direct.len();
        let all = direct.drain(..).chain(values.drain(..)).collect();
        let (function, mut args) = self.aggregate(&name.value, all, true)?;
        *values = args.split_off(count);
        *direct = args;
        Ok(function)
    }
}
