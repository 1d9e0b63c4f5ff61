//! Which operator, function or conversion a name means: PostgreSQL's chapter 10.
//!
//! An untyped literal or parameter has type `unknown` until something here gives it one.
//! All constructors return expressions whose operands have the types that evaluation expects.

mod candidates;
mod coercion;
mod construct;
mod polymorphic;

use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::value::Value;

use self::candidates::{Failure, choose, exact_operator, function_error, operator_error, spread};
use self::coercion::coerce_to_base;
use self::construct::{compare, compare_rows};
use self::polymorphic::settle_polymorphic;
use super::aggregate::AggregateFunction;
use super::cast::{self, CastContext};
use super::catalogue::{Catalogue, Function, FunctionKind, Operator};
use super::expr::Expr;
use super::{EvalContext, function};
use crate::error::SqlError;

pub use self::coercion::{coerce, coerce_to_boolean, common_data_type, common_type, fold};
pub use self::construct::{
    resolve_array, resolve_between, resolve_bool_test, resolve_case, resolve_coalesce, resolve_distinct,
    resolve_extreme, resolve_in_list, resolve_nullif, resolve_quantified, resolve_slice, resolve_subscript,
};

/// A binary operator applied to two operands.
///
/// # Errors
/// 42883 when no operator fits, 42725 when several fit equally well.
pub fn resolve_operator(name: &str, left: Expr, right: Expr) -> Result<Expr, SqlError> {
    let name = if name == "!=" { "<>" } else { name };
    if let (Expr::Row(lefts), Expr::Row(rights)) = (&left, &right) {
        return compare_rows(name, lefts.clone(), rights.clone());
    }
    let inputs = [left.ty().base, right.ty().base];
    let candidates = Catalogue::get().operators(name);
    let binary: Vec<&'static Operator> = candidates.iter().filter(|op| op.left.is_some()).collect();
    let params = |op: &&'static Operator| vec![op.left.unwrap_or(op.right), op.right];
    let exact = exact_operator(&binary, inputs);
    let chosen = match exact {
        Some(op) => Some(op),
        None => choose(&binary, params, &inputs)
            .map_err(|ambiguous| operator_error(ambiguous, name, Some(left.ty()), right.ty()))?,
    };
    let operator = chosen.ok_or_else(|| operator_error(Failure::None, name, Some(left.ty()), right.ty()))?;
    let mut declared = params(&operator);
    let result = settle_polymorphic(&mut declared, &[left.ty(), right.ty()], operator.result)?;
    let left = coerce_to_base(left, declared[0])?;
    let right = coerce_to_base(right, declared[1])?;
    if let Some(op) = operator.compare {
        return compare(op, left, right);
    }
    Ok(Expr::Binary { operator, left: Box::new(left), right: Box::new(right), ty: result })
}

/// A prefix operator.
///
/// # Errors
/// 42883 when no operator fits, 42725 when several fit equally well.
pub fn resolve_unary(name: &str, input: Expr) -> Result<Expr, SqlError> {
    if let (Expr::Const { value, ty }, "-" | "+") = (&input, name)
        && let Some(folded) = negated_constant(value, *ty, name)
    {
        return Ok(folded);
    }
    let inputs = [input.ty().base];
    let prefix: Vec<&'static Operator> =
        Catalogue::get().operators(name).iter().filter(|op| op.left.is_none()).collect();
    let exact = prefix.iter().copied().find(|op| op.right == inputs[0]);
    let chosen = match exact {
        Some(op) => Some(op),
        None => choose(&prefix, |op| vec![op.right], &inputs)
            .map_err(|failure| operator_error(failure, name, None, input.ty()))?,
    };
    let operator = chosen.ok_or_else(|| operator_error(Failure::None, name, None, input.ty()))?;
    let input = coerce_to_base(input, operator.right)?;
    Ok(Expr::Unary { operator, input: Box::new(input), ty: DataType::plain(operator.result) })
}

/// A negative number literal is a constant of its own; `-2147483648` is an integer.
fn negated_constant(value: &Value, ty: DataType, name: &str) -> Option<Expr> {
    if name == "+" {
        return None;
    }
    let value = match value {
        Value::Int4(n) => Value::Int4(n.checked_neg()?),
        Value::Int8(n) => match n.checked_neg()? {
            low if low == i64::from(i32::MIN) => {
                // The lexer read 2147483648 as bigint; PostgreSQL keeps bigint here as well.
                Value::Int8(low)
            }
            other => Value::Int8(other),
        },
        Value::Numeric(n) => Value::Numeric(Box::new(n.neg())),
        _ => return None,
    };
    Some(Expr::Const { value, ty })
}

/// A scalar or set-returning function. Set-returning ones come back as [`Expr::Call`] too; the
/// binder finds them by [`Function::kind`] and hands them to the executor.
///
/// # Errors
/// 42883 when no function fits, 42725 when several fit equally well.
pub fn resolve_function(name: &str, args: Vec<Expr>) -> Result<Expr, SqlError> {
    if let [only] = args.as_slice()
        && Catalogue::get().functions(name).is_empty()
        && let Some(target) = DataType::parse_name(name)
        && (only.ty().is_unknown() || cast::method(only.ty().base, target.base).is_some())
        && name != "char"
    {
        // `int4(x)`, `text(x)`, ...: a type's name used as a function is a cast.
        let target = target.without_modifier();
        return coerce(args.into_iter().next().unwrap_or_else(Expr::null), target, CastContext::Explicit);
    }
    let (function, args, arg_types, ty) = match_function(name, args, |function| {
        !matches!(function.kind, FunctionKind::Aggregate | FunctionKind::Window)
    })?;
    Ok(Expr::Call { function, args, arg_types, ty })
}

/// The set-returning function that `expr` is, if it is one.
pub fn set_returning(expr: &Expr) -> Option<&'static Function> {
    match expr {
        Expr::Call { function, .. } if function.kind == FunctionKind::SetReturning => Some(function),
        _ => None,
    }
}

/// Evaluates a set-returning function into its rows (one column each).
///
/// # Errors
/// The function's own.
pub fn eval_set(
    function: &'static Function,
    args: &[Value],
    emit: &mut dyn FnMut(Value) -> Result<std::ops::ControlFlow<()>, SqlError>,
    ctx: &EvalContext<'_>,
) -> Result<(), SqlError> {
    function::set::eval(function, args, emit, ctx)
}

/// An aggregate with its arguments converted; `None` when the name is no aggregate's.
/// `count(*)` has no arguments.
///
/// # Errors
/// 42883 or 42725.
pub fn resolve_aggregate(
    name: &str,
    args: Vec<Expr>,
) -> Result<Option<(AggregateFunction, Vec<Expr>)>, SqlError> {
    let is_aggregate = |function: &Function| function.kind == FunctionKind::Aggregate;
    if !Catalogue::get().functions(name).iter().any(is_aggregate) {
        return Ok(None);
    }
    let (function, args, arg_types, ty) = match_function(name, args, is_aggregate)?;
    Ok(Some((AggregateFunction { function, arg_types, ty }, args)))
}

/// A window function with its arguments converted and the type of its result; `None` when the name is no window
/// function's.
///
/// # Errors
/// 42883 or 42725.
pub fn resolve_window(name: &str, args: Vec<Expr>) -> Result<Option<(Vec<Expr>, DataType)>, SqlError> {
    let is_window = |function: &Function| function.kind == FunctionKind::Window;
    if !Catalogue::get().functions(name).iter().any(is_window) {
        return Ok(None);
    }
    let (_, args, _, ty) = match_function(name, args, is_window)?;
    Ok(Some((args, ty)))
}

type Matched = (&'static Function, Vec<Expr>, Vec<DataType>, DataType);

fn match_function(
    name: &str,
    args: Vec<Expr>,
    wanted: impl Fn(&Function) -> bool,
) -> Result<Matched, SqlError> {
    let types: Vec<DataType> = args.iter().map(Expr::ty).collect();
    let inputs: Vec<BaseType> = types.iter().map(|ty| ty.base).collect();
    let candidates: Vec<(&'static Function, Vec<BaseType>)> = Catalogue::get()
        .functions(name)
        .iter()
        .filter(|function| wanted(function))
        .filter_map(|function| spread(function, inputs.len()).map(|params| (function, params)))
        .collect();
    let exact = candidates.iter().find(|(_, params)| *params == inputs);
    let chosen = match exact {
        Some(found) => Some(found.clone()),
        None => {
            // Without variadic expansion first: PostgreSQL prefers a plain match of the same types.
            choose(&candidates, |(_, params)| params.clone(), &inputs)
                .map_err(|failure| function_error(failure, name, &types))?
        }
    };
    let (function, mut declared) = chosen.ok_or_else(|| function_error(Failure::None, name, &types))?;
    let ty = settle_polymorphic(&mut declared, &types, function.result)?;
    let mut converted = Vec::with_capacity(args.len());
    for (arg, target) in args.into_iter().zip(&declared) {
        converted.push(coerce_to_base(arg, *target)?);
    }
    let arg_types = converted.iter().map(Expr::ty).collect();
    Ok((function, converted, arg_types, ty))
}
