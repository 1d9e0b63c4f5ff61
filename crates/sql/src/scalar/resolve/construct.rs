//! Constructs of the grammar: comparisons of rows, CASE, IN, ANY, COALESCE, arrays, ...

use rustydb_types::datatype::{BaseType, Category, DataType};

use super::super::cast::CastContext;
use super::super::expr::{BoolTest, CompareOp, Expr};
use super::coercion::{coerce, coerce_to_boolean, common_type, unify};
use super::resolve_operator;
use crate::error::{SqlError, SqlState};

pub(super) fn compare_rows(name: &str, lefts: Vec<Expr>, rights: Vec<Expr>) -> Result<Expr, SqlError> {
    let op = CompareOp::from_name(name).ok_or_else(|| {
        SqlError::new(SqlState::UNDEFINED_FUNCTION, format!("operator does not exist: record {name} record"))
    })?;
    if lefts.len() != rights.len() {
        return Err(SqlError::new(SqlState::SYNTAX_ERROR, "unequal number of entries in row expressions"));
    }
    let mut pairs = Vec::with_capacity(lefts.len());
    for (left, right) in lefts.into_iter().zip(rights) {
        pairs.push((left, right));
    }
    let each = |op: &str, pairs: &[(Expr, Expr)]| {
        pairs
            .iter()
            .map(|(left, right)| resolve_operator(op, left.clone(), right.clone()))
            .collect::<Result<Vec<_>, _>>()
    };
    match op {
        CompareOp::Eq => Ok(Expr::and(each("=", &pairs)?)),
        CompareOp::Ne => Ok(Expr::Or(each("<>", &pairs)?)),
        _ => {
            // (a, b) < (c, d)  is  a < c OR (a = c AND b < d); the last pair keeps the equality.
            let strict = if matches!(op, CompareOp::Lt | CompareOp::Le) { "<" } else { ">" };
            let Some((last, firsts)) = pairs.split_last() else {
                return Err(SqlError::new(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "cannot compare rows of zero length",
                ));
            };
            let mut result = resolve_operator(name, last.0.clone(), last.1.clone())?;
            for (left, right) in firsts.iter().rev() {
                let before = resolve_operator(strict, left.clone(), right.clone())?;
                let equal = resolve_operator("=", left.clone(), right.clone())?;
                result = Expr::Or(vec![before, Expr::and(vec![equal, result])]);
            }
            Ok(result)
        }
    }
}

/// A comparison of operands whose types an operator accepts; brings both to one order.
pub(super) fn compare(op: CompareOp, left: Expr, right: Expr) -> Result<Expr, SqlError> {
    let (left, right) = comparable(left, right)?;
    Ok(Expr::Compare { op, left: Box::new(left), right: Box::new(right) })
}

pub(super) fn comparable(left: Expr, right: Expr) -> Result<(Expr, Expr), SqlError> {
    let (a, b) = (left.ty().base, right.ty().base);
    let rank = |base: BaseType| match base {
        BaseType::Date => 1,
        BaseType::Timestamp => 2,
        BaseType::Timestamptz => 3,
        _ => 0,
    };
    if a != b && rank(a) > 0 && rank(b) > 0 {
        let target = DataType::plain(if rank(a) > rank(b) { a } else { b });
        return Ok((
            coerce(left, target, CastContext::Implicit)?,
            coerce(right, target, CastContext::Implicit)?,
        ));
    }
    if a == BaseType::Bpchar && b == BaseType::Bpchar {
        // char(n) compares without its padding, which its cast to text strips.
        let text = DataType::TEXT;
        return Ok((coerce(left, text, CastContext::Implicit)?, coerce(right, text, CastContext::Implicit)?));
    }
    Ok((left, right))
}

/// `left IS [NOT] DISTINCT FROM right`
///
/// # Errors
/// As [`resolve_operator`] with `=`.
pub fn resolve_distinct(left: Expr, right: Expr, negated: bool) -> Result<Expr, SqlError> {
    if let (Expr::Row(lefts), Expr::Row(rights)) = (&left, &right)
        && lefts.len() == rights.len()
    {
        // Rows are distinct when one pair of fields is.
        let parts = lefts.iter().cloned().zip(rights.iter().cloned());
        let parts = parts
            .map(|(left, right)| resolve_distinct(left, right, negated))
            .collect::<Result<Vec<_>, _>>()?;
        return Ok(if negated { Expr::and(parts) } else { Expr::Or(parts) });
    }
    match resolve_operator("=", left, right)? {
        Expr::Compare { left, right, .. } => Ok(Expr::Distinct { left, right, negated }),
        _ => Err(SqlError::not_supported("IS DISTINCT FROM over rows is not supported")),
    }
}

/// `input IS [NOT] TRUE | FALSE | UNKNOWN`
///
/// # Errors
/// 42804 when the input is not boolean.
pub fn resolve_bool_test(input: Expr, test: BoolTest, negated: bool) -> Result<Expr, SqlError> {
    let what = match test {
        BoolTest::True => "IS TRUE",
        BoolTest::False => "IS FALSE",
        BoolTest::Unknown => "IS UNKNOWN",
    };
    let input = Box::new(coerce_to_boolean(input, what)?);
    Ok(Expr::IsBool { input, test, negated })
}

/// `input [NOT] IN (list)`
///
/// # Errors
/// As [`resolve_operator`] with `=`.
pub fn resolve_in_list(input: Expr, list: Vec<Expr>, negated: bool) -> Result<Expr, SqlError> {
    let mut all: Vec<&Expr> = vec![&input];
    all.extend(list.iter());
    let plain = list.iter().all(|item| !matches!(item, Expr::Row(_)));
    if plain
        && let Ok(common) = common_type(&all, "IN")
        && common.base != BaseType::Bpchar
    {
        // One comparison decides that the type has an equality; then all items share it.
        let common = common.without_modifier();
        let probe = coerce(input.clone(), common, CastContext::Implicit)?;
        resolve_operator("=", probe.clone(), probe.clone())?;
        let list = list
            .into_iter()
            .map(|item| coerce(item, common, CastContext::Implicit))
            .collect::<Result<Vec<_>, _>>()?;
        return Ok(Expr::InList { input: Box::new(probe), list, negated });
    }
    let name = if negated { "<>" } else { "=" };
    let parts = list
        .into_iter()
        .map(|item| resolve_operator(name, input.clone(), item))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(if negated { Expr::and(parts) } else { Expr::Or(parts) })
}

/// `input [NOT] BETWEEN low AND high`
///
/// # Errors
/// As [`resolve_operator`].
pub fn resolve_between(input: Expr, low: Expr, high: Expr, negated: bool) -> Result<Expr, SqlError> {
    if negated {
        let below = resolve_operator("<", input.clone(), low)?;
        let above = resolve_operator(">", input, high)?;
        return Ok(Expr::Or(vec![below, above]));
    }
    let from = resolve_operator(">=", input.clone(), low)?;
    let to = resolve_operator("<=", input, high)?;
    Ok(Expr::and(vec![from, to]))
}

/// `left operator ANY | ALL (array)`
///
/// # Errors
/// 42809 when the right side is no array or the operator does not yield a boolean.
pub fn resolve_quantified(name: &str, left: Expr, array: Expr, all: bool) -> Result<Expr, SqlError> {
    let array = if array.ty().is_unknown() {
        let base = match left.ty().base {
            BaseType::Unknown => BaseType::Text,
            known => known,
        };
        let target = DataType::plain(base).array().unwrap_or(DataType::TEXT_ARRAY);
        coerce(array, target, CastContext::Implicit)?
    } else {
        array
    };
    let element = array.ty().element().filter(|_| array.ty().base.category() == Category::Array);
    let Some(element) = element else {
        return Err(SqlError::new(
            SqlState::WRONG_OBJECT_TYPE,
            "op ANY/ALL (array) requires array on right side",
        ));
    };
    // Resolve over placeholders, then see what the operator made of the types.
    let element_expr = Expr::Column { index: 1, ty: element.without_modifier() };
    let left = if left.ty().is_unknown() {
        coerce(left, element.without_modifier(), CastContext::Implicit)?
    } else {
        left
    };
    let left_expr = Expr::Column { index: 0, ty: left.ty() };
    let comparison = resolve_operator(name, left_expr, element_expr)?;
    if comparison.ty() != DataType::BOOL {
        return Err(SqlError::new(
            SqlState::WRONG_OBJECT_TYPE,
            "op ANY/ALL (array) requires operator to yield boolean",
        ));
    }
    Ok(Expr::Quantified {
        comparison: Box::new(comparison),
        left: Box::new(left),
        array: Box::new(array),
        all,
    })
}

/// `CASE`; with an operand the conditions are compared to it. `otherwise` may be absent.
///
/// # Errors
/// 42804 when the results have no common type or a condition is not boolean.
pub fn resolve_case(
    operand: Option<Expr>,
    branches: Vec<(Expr, Expr)>,
    otherwise: Option<Expr>,
) -> Result<Expr, SqlError> {
    let ty = {
        // PostgreSQL looks at the ELSE result first.
        let mut results: Vec<&Expr> = otherwise.iter().collect();
        results.extend(branches.iter().map(|(_, result)| result));
        common_type(&results, "CASE")?
    };
    let mut bound = Vec::with_capacity(branches.len());
    for (condition, result) in branches {
        let condition = match &operand {
            Some(operand) => {
                let operand = if operand.ty().is_unknown() {
                    coerce(operand.clone(), DataType::TEXT, CastContext::Implicit)?
                } else {
                    operand.clone()
                };
                resolve_operator("=", operand, condition)?
            }
            None => coerce_to_boolean(condition, "CASE/WHEN")?,
        };
        bound.push((condition, coerce(result, ty, CastContext::Implicit)?));
    }
    let otherwise = match otherwise {
        Some(expr) => Some(Box::new(coerce(expr, ty, CastContext::Implicit)?)),
        None => None,
    };
    Ok(Expr::Case { branches: bound, otherwise, ty })
}

/// `COALESCE(...)`
///
/// # Errors
/// 42804 when the arguments have no common type.
pub fn resolve_coalesce(args: Vec<Expr>) -> Result<Expr, SqlError> {
    let (args, ty) = unify(args, "COALESCE")?;
    Ok(Expr::Coalesce { args, ty })
}

/// `GREATEST(...)` or `LEAST(...)`
///
/// # Errors
/// 42804 when the arguments have no common type.
pub fn resolve_extreme(args: Vec<Expr>, greatest: bool) -> Result<Expr, SqlError> {
    let (args, ty) = unify(args, if greatest { "GREATEST" } else { "LEAST" })?;
    Ok(Expr::Extreme { args, greatest, ty })
}

/// `NULLIF(left, right)`
///
/// # Errors
/// As [`resolve_operator`] with `=`.
pub fn resolve_nullif(left: Expr, right: Expr) -> Result<Expr, SqlError> {
    let condition = resolve_operator("=", left.clone(), right)?;
    let value =
        if left.ty().is_unknown() { coerce(left, DataType::TEXT, CastContext::Implicit)? } else { left };
    Ok(Expr::NullIf { condition: Box::new(condition), value: Box::new(value) })
}

/// `ARRAY[...]`
///
/// # Errors
/// 42804 without a common type; 42P18 for an empty array without a cast.
pub fn resolve_array(elements: Vec<Expr>) -> Result<Expr, SqlError> {
    if elements.is_empty() {
        return Err(SqlError::new(SqlState::INDETERMINATE_DATATYPE, "cannot determine type of empty array")
            .with_hint("Explicitly cast to the desired type, for example ARRAY[]::integer[]."));
    }
    let (elements, ty) = unify(elements, "ARRAY")?;
    let array = if ty.base.category() == Category::Array { Some(ty) } else { ty.array() };
    let ty = array.ok_or_else(|| {
        SqlError::new(SqlState::UNDEFINED_OBJECT, format!("could not find array type for data type {ty}"))
    })?;
    Ok(Expr::Array { elements, ty })
}

/// `array[i]...`
///
/// # Errors
/// 42804 when the value cannot be subscripted.
pub fn resolve_subscript(array: Expr, indexes: Vec<Expr>) -> Result<Expr, SqlError> {
    let ty = subscriptable(&array)?;
    let indexes = indexes
        .into_iter()
        .map(|index| {
            coerce(index, DataType::INT4, CastContext::Assignment).map_err(|error| {
                if error.state() != SqlState::CANNOT_COERCE && error.state() != SqlState::DATATYPE_MISMATCH {
                    return error;
                }
                SqlError::new(SqlState::DATATYPE_MISMATCH, "array subscript must have type integer")
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Expr::Subscript { array: Box::new(array), indexes, ty })
}

/// `array[from:to]...`
///
/// # Errors
/// 42804 when the value cannot be subscripted.
pub fn resolve_slice(array: Expr, bounds: Vec<(Option<Expr>, Option<Expr>)>) -> Result<Expr, SqlError> {
    let element = subscriptable(&array)?;
    let ty = element.array().unwrap_or(array.ty());
    let bound = |bound: Option<Expr>| match bound {
        Some(expr) => coerce(expr, DataType::INT4, CastContext::Assignment).map(Some),
        None => Ok(None),
    };
    let bounds = bounds.into_iter().map(|(from, to)| Ok((bound(from)?, bound(to)?)));
    let bounds = bounds.collect::<Result<Vec<_>, SqlError>>()?;
    Ok(Expr::Slice { array: Box::new(array), bounds, ty })
}

pub(super) fn subscriptable(array: &Expr) -> Result<DataType, SqlError> {
    array.ty().element().ok_or_else(|| {
        SqlError::new(
            SqlState::DATATYPE_MISMATCH,
            format!("cannot subscript type {} because it does not support subscripting", array.ty().base),
        )
    })
}
