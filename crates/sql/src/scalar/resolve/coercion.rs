//! Conversions and the common type of several expressions.

use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::value::Value;

use super::super::EvalContext;
use super::super::cast::{self, CastContext, CastMethod};
use super::super::expr::Expr;
use super::candidates::can_coerce;
use crate::error::{SqlError, SqlState};

pub(super) fn unify(args: Vec<Expr>, what: &str) -> Result<(Vec<Expr>, DataType), SqlError> {
    let ty = common_type(&args.iter().collect::<Vec<_>>(), what)?;
    let args =
        args.into_iter().map(|arg| coerce(arg, ty, CastContext::Implicit)).collect::<Result<Vec<_>, _>>()?;
    Ok((args, ty))
}

/// The type that several expressions share (UNION, CASE, VALUES, ...); `text` when all are untyped.
///
/// # Errors
/// 42804 when there is none; `what` names the construct in the message.
pub fn common_type(exprs: &[&Expr], what: &str) -> Result<DataType, SqlError> {
    let types: Vec<DataType> = exprs.iter().map(|expr| expr.ty()).collect();
    common_data_type(&types, what)
}

/// The type that several types share; `text` when all are unknown.
///
/// # Errors
/// 42804 when there is none; `what` names the construct in the message.
pub fn common_data_type(types: &[DataType], what: &str) -> Result<DataType, SqlError> {
    let Some(first) = types.first() else { return Ok(DataType::TEXT) };
    if !first.is_unknown() && types.iter().all(|ty| ty == first) {
        return Ok(*first);
    }
    let mut chosen: Option<BaseType> = None;
    for ty in types.iter().map(|ty| ty.base).filter(|base| *base != BaseType::Unknown) {
        match chosen {
            None => chosen = Some(ty),
            Some(current) if current == ty => {}
            Some(current) if current.category() != ty.category() => {
                return Err(SqlError::new(
                    SqlState::DATATYPE_MISMATCH,
                    format!("{what} types {current} and {ty} cannot be matched"),
                ));
            }
            Some(current) => {
                if !current.is_preferred() && can_coerce(current, ty) && !can_coerce(ty, current) {
                    chosen = Some(ty);
                }
            }
        }
    }
    let Some(chosen) = chosen else { return Ok(DataType::TEXT) };
    for ty in types {
        if !can_coerce(ty.base, chosen) {
            return Err(SqlError::new(
                SqlState::CANNOT_COERCE,
                format!("{what} could not convert type {} to {chosen}", ty.base),
            ));
        }
    }
    let modifier = match types.iter().find(|ty| ty.base == chosen) {
        Some(found) if types.iter().all(|ty| ty == found) => found.modifier,
        _ => -1,
    };
    Ok(DataType { base: chosen, modifier })
}

pub(super) fn common_base(types: &[BaseType]) -> Option<BaseType> {
    let types: Vec<DataType> = types.iter().map(|base| DataType::plain(*base)).collect();
    if types.is_empty() {
        return None;
    }
    common_data_type(&types, "").ok().map(|ty| ty.base)
}

/// A condition: anything that converts to boolean by itself.
///
/// # Errors
/// 42804 with `what` (`WHERE`, `AND`, `JOIN/ON`, ...) in the message.
pub fn coerce_to_boolean(expr: Expr, what: &str) -> Result<Expr, SqlError> {
    let ty = expr.ty();
    if ty == DataType::BOOL {
        return Ok(expr);
    }
    if ty.is_unknown() {
        return coerce(expr, DataType::BOOL, CastContext::Implicit);
    }
    Err(SqlError::new(
        SqlState::DATATYPE_MISMATCH,
        format!("argument of {what} must be type boolean, not type {}", ty.base),
    ))
}

pub(super) fn coerce_to_base(expr: Expr, target: BaseType) -> Result<Expr, SqlError> {
    if expr.ty().base == target || target == BaseType::Any {
        return Ok(expr);
    }
    coerce(expr, DataType::plain(target), CastContext::Implicit)
}

/// Converts an expression to a type, if the context allows it.
///
/// # Errors
/// 42846 (explicit) or 42804 (else) when there is no such conversion; the errors of reading a
/// literal as that type.
pub fn coerce(expr: Expr, target: DataType, context: CastContext) -> Result<Expr, SqlError> {
    let from = expr.ty();
    if from == target {
        return Ok(expr);
    }
    if from.is_unknown() {
        return coerce_unknown(expr, target, context);
    }
    // `ARRAY[...]::type[]` converts the elements, so that untyped ones are read as that type.
    let needs_length = target.modifier >= 0 && target.modifier != from.modifier;
    if from.base == target.base && (!needs_length || from.base == BaseType::Record) {
        return Ok(expr);
    }
    let allowed = from.base == target.base
        || cast::context(from.base, target.base).is_some_and(|needed| needed <= context);
    let method = if from.base == target.base {
        Some(CastMethod::Length)
    } else {
        cast::method(from.base, target.base)
    };
    let (true, Some(method)) = (allowed, method) else {
        return Err(cannot_coerce(from, target));
    };
    if method == CastMethod::Relabel
        && !needs_length
        && matches!(expr, Expr::Const { .. })
        && let Expr::Const { value, .. } = expr
    {
        return Ok(Expr::Const { value, ty: target });
    }
    let explicit = context == CastContext::Explicit;
    let cast = Expr::Cast { input: Box::new(expr), method, from, ty: target, explicit };
    // A conversion that fails fails when it is evaluated, which may be never: in a branch of CASE.
    Ok(fold(cast.clone()).unwrap_or(cast))
}

pub(super) fn coerce_unknown(expr: Expr, target: DataType, context: CastContext) -> Result<Expr, SqlError> {
    let explicit = context == CastContext::Explicit;
    match expr {
        Expr::Param { index, .. } => {
            let typed = Expr::Param { index, ty: target.without_modifier() };
            coerce(typed, target, context)
        }
        Expr::Const { value: Value::Null, .. } => Ok(Expr::Const { value: Value::Null, ty: target }),
        other => {
            if target.base == BaseType::Unknown || target.base == BaseType::Any {
                return Ok(other);
            }
            fold(Expr::Cast {
                input: Box::new(other),
                method: CastMethod::Input,
                from: DataType::UNKNOWN,
                ty: target,
                explicit,
            })
        }
    }
}

/// Evaluates a constant expression of immutable parts once.
///
/// # Errors
/// Those of the evaluation.
pub fn fold(expr: Expr) -> Result<Expr, SqlError> {
    if !expr.is_constant() {
        return Ok(expr);
    }
    if let Expr::Cast { input, ty, .. } = &expr
        && let Expr::Const { value: Value::Text(text), .. } = input.as_ref()
        && cast::reads_clock(ty.base, text)
    {
        return Ok(expr);
    }
    let ty = expr.ty();
    let value = expr.eval(&[], &EvalContext::constant(&[]))?;
    Ok(Expr::Const { value, ty })
}

pub(super) fn cannot_coerce(from: DataType, target: DataType) -> SqlError {
    SqlError::new(SqlState::CANNOT_COERCE, format!("cannot cast type {} to {}", from.base, target.base))
}
