//! Operands as PostgreSQL has them: without the conversions that only this executor needs, or with those that it does
//! not.

use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::value::Value;

use crate::scalar::Expr;
use crate::scalar::cast::CastMethod;

/// A comparison's operands without the conversions that only this executor needs for them: PostgreSQL compares dates
/// with points in time, and `char(n)`, by operators of their own.
pub(super) fn uncompared(left: &Expr, right: &Expr) -> (Expr, Expr) {
    let is_time = |base| matches!(base, BaseType::Date | BaseType::Timestamp | BaseType::Timestamptz);
    let bare = |expr: &Expr| match expr {
        Expr::Cast { input, from, ty, explicit: false, .. }
            if from.base != ty.base && is_time(from.base) && is_time(ty.base) =>
        {
            input.as_ref().clone()
        }
        other => other.clone(),
    };
    let padded = |expr: &Expr| match expr {
        Expr::Cast { input, from, ty, explicit: false, .. }
            if from.base == BaseType::Bpchar && ty.base == BaseType::Text =>
        {
            Some(input.as_ref().clone())
        }
        _ => None,
    };
    // A literal compared with char(n) was made text; one that ends in blanks was text from the start.
    let literal = |expr: &Expr| match expr {
        Expr::Const { value: Value::Text(text), ty } if ty.base == BaseType::Text && !text.ends_with(' ') => {
            Some(Expr::constant(Value::Text(text.clone()), DataType::plain(BaseType::Bpchar)))
        }
        _ => None,
    };
    match (padded(left), padded(right)) {
        (Some(left), Some(right)) => (left, right),
        (Some(left), None) if literal(right).is_some() => {
            (left, literal(right).unwrap_or_else(|| right.clone()))
        }
        (None, Some(right)) if literal(left).is_some() => {
            (literal(left).unwrap_or_else(|| left.clone()), right)
        }
        _ => (bare(left), bare(right)),
    }
}

/// An integer as it is before it was made as wide as those that it is compared with, for which PostgreSQL has operators.
pub(super) fn unwidened(expr: &Expr) -> &Expr {
    let is_integer = |base| matches!(base, BaseType::Int2 | BaseType::Int4 | BaseType::Int8);
    match expr {
        Expr::Cast { input, from, ty, explicit: false, .. }
            if is_integer(from.base) && is_integer(ty.base) =>
        {
            input
        }
        other => other,
    }
}

/// A varchar as the text that it is compared as.
pub(super) fn as_text(expr: &Expr) -> Expr {
    if expr.ty().base != BaseType::Varchar {
        return expr.clone();
    }
    if let Expr::Const { value, .. } = expr {
        return Expr::constant(value.clone(), DataType::TEXT);
    }
    Expr::Cast {
        input: Box::new(expr.clone()),
        method: CastMethod::Relabel,
        from: expr.ty(),
        ty: DataType::TEXT,
        explicit: false,
    }
}

/// IN over `char(n)`, which is bound as so many comparisons, as the list that it is written as.
pub(crate) fn padded_list(input: Expr, bound: Expr, negated: bool) -> Expr {
    let (Expr::Or(parts) | Expr::And(parts)) = &bound else { return bound };
    let mut list = Vec::with_capacity(parts.len());
    for part in parts {
        let Expr::Compare { left, right, .. } = part else { return bound };
        let (left, right) = uncompared(left, right);
        if left != input || right.ty().base != BaseType::Bpchar {
            return bound;
        }
        list.push(right);
    }
    Expr::InList { input: Box::new(input), list, negated }
}
