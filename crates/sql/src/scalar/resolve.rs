//! Which operator, function or conversion a name means: PostgreSQL's chapter 10.
//!
//! An untyped literal or parameter has type `unknown` until something here gives it one.
//! All constructors return expressions whose operands have the types that evaluation expects.

use rustydb_types::datatype::{BaseType, Category, DataType};
use rustydb_types::value::Value;

use super::aggregate::AggregateFunction;
use super::cast::{self, CastContext, CastMethod};
use super::catalogue::{Catalogue, Function, FunctionKind, Operator};
use super::expr::{BoolTest, CompareOp, Expr};
use super::{EvalContext, function};
use crate::error::{SqlError, SqlState};

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
    let (function, args, arg_types, ty) =
        match_function(name, args, |function| function.kind != FunctionKind::Aggregate)?;
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

/// The parameter types of a call with `count` arguments; `None` when that many do not fit.
fn spread(function: &Function, count: usize) -> Option<Vec<BaseType>> {
    if let Some(element) = function.variadic {
        let fixed = function.args.len() - 1;
        if count < fixed + 1 {
            return None;
        }
        let mut params = function.args.get(..fixed)?.to_vec();
        params.resize(count, element);
        return Some(params);
    }
    let most = function.args.len();
    let fewest = most - function.defaults;
    (fewest..=most).contains(&count).then(|| function.args.get(..count).map(<[_]>::to_vec))?
}

/// Why no candidate was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    None,
    Ambiguous,
}

fn exact_operator(candidates: &[&'static Operator], inputs: [BaseType; 2]) -> Option<&'static Operator> {
    let [mut left, mut right] = inputs;
    if left == BaseType::Unknown && right == BaseType::Unknown {
        return None;
    }
    if left == BaseType::Unknown {
        left = right;
    } else if right == BaseType::Unknown {
        right = left;
    }
    let exact = candidates.iter().copied().find(|op| op.left == Some(left) && op.right == right);
    let is_array = left == right && left.category() == Category::Array;
    // An untyped literal beside an array is an array of the same type, which only the polymorphic row takes.
    exact.or_else(|| {
        let any = BaseType::AnyArray;
        candidates.iter().copied().find(|op| is_array && op.left == Some(any) && op.right == any)
    })
}

/// PostgreSQL's `func_select_candidate` over candidates that can take the inputs at all.
fn choose<T: Clone>(
    candidates: &[T],
    params: impl Fn(&T) -> Vec<BaseType>,
    inputs: &[BaseType],
) -> Result<Option<T>, Failure> {
    let mut left: Vec<(T, Vec<BaseType>)> = candidates
        .iter()
        .map(|candidate| (candidate.clone(), params(candidate)))
        .filter(|(_, declared)| {
            declared.len() == inputs.len()
                && declared.iter().zip(inputs).all(|(to, from)| can_coerce(*from, *to))
                && polymorphic_consistent(declared, inputs)
        })
        .collect();
    if left.len() <= 1 {
        return Ok(left.pop().map(|(candidate, _)| candidate));
    }
    let keep_best = |left: Vec<(T, Vec<BaseType>)>, score: &dyn Fn(&[BaseType]) -> usize| {
        let best = left.iter().map(|(_, declared)| score(declared)).max().unwrap_or(0);
        left.into_iter().filter(|(_, declared)| score(declared) == best).collect::<Vec<_>>()
    };
    left = keep_best(left, &|declared| {
        declared.iter().zip(inputs).filter(|(to, from)| **from != BaseType::Unknown && to == from).count()
    });
    if left.len() == 1 {
        return Ok(left.pop().map(|(candidate, _)| candidate));
    }
    left = keep_best(left, &|declared| {
        declared
            .iter()
            .zip(inputs)
            .filter(|(to, from)| {
                **from != BaseType::Unknown
                    && (to == from || (to.category() == from.category() && to.is_preferred()))
            })
            .count()
    });
    if left.len() == 1 || !inputs.contains(&BaseType::Unknown) {
        return one_or_ambiguous(left);
    }
    let mut by_category = left.clone();
    let mut resolved = true;
    let mut wanted: Vec<Option<(Category, bool)>> = vec![None; inputs.len()];
    for (position, input) in inputs.iter().enumerate() {
        if *input != BaseType::Unknown {
            continue;
        }
        let at = |declared: &[BaseType]| declared.get(position).copied();
        let categories: Vec<Category> =
            left.iter().filter_map(|(_, d)| at(d)).map(BaseType::category).collect();
        let category = if categories.contains(&Category::String) {
            Category::String
        } else if categories.windows(2).all(|pair| pair[0] == pair[1]) {
            match categories.first() {
                Some(category) => *category,
                None => return Ok(None),
            }
        } else {
            resolved = false;
            break;
        };
        let preferred =
            left.iter().filter_map(|(_, d)| at(d)).any(|to| to.category() == category && to.is_preferred());
        if let Some(slot) = wanted.get_mut(position) {
            *slot = Some((category, preferred));
        }
    }
    if resolved {
        by_category.retain(|(_, declared)| {
            declared.iter().zip(&wanted).all(|(to, wanted)| match wanted {
                Some((category, preferred)) => {
                    to.category() == *category && (!preferred || to.is_preferred())
                }
                None => true,
            })
        });
        if by_category.len() == 1 {
            return Ok(by_category.pop().map(|(candidate, _)| candidate));
        }
        if !by_category.is_empty() {
            left = by_category;
        }
    }
    // The unknown inputs are taken to be of the type of the known ones, if those agree.
    let mut known = inputs.iter().copied().filter(|input| *input != BaseType::Unknown);
    if let Some(first) = known.next()
        && known.all(|other| other == first)
    {
        let fitting: Vec<_> = left
            .iter()
            .filter(|(_, declared)| {
                let all_known = vec![first; declared.len()];
                declared.iter().all(|to| can_coerce(first, *to))
                    && polymorphic_consistent(declared, &all_known)
            })
            .cloned()
            .collect();
        if fitting.len() == 1 {
            return one_or_ambiguous(fitting);
        }
    }
    Err(Failure::Ambiguous)
}

fn one_or_ambiguous<T>(mut left: Vec<(T, Vec<BaseType>)>) -> Result<Option<T>, Failure> {
    if left.len() > 1 {
        return Err(Failure::Ambiguous);
    }
    Ok(left.pop().map(|(candidate, _)| candidate))
}

/// Whether an implicit conversion exists; polymorphic targets take what they must.
fn can_coerce(from: BaseType, to: BaseType) -> bool {
    let is_array = from.category() == Category::Array;
    from == to
        || match to {
            BaseType::Any | BaseType::AnyElement | BaseType::AnyCompatible => true,
            BaseType::AnyNonArray => !is_array,
            BaseType::AnyArray | BaseType::AnyCompatibleArray => is_array || from == BaseType::Unknown,
            _ => from == BaseType::Unknown || cast::context(from, to) == Some(CastContext::Implicit),
        }
}

/// Whether the polymorphic parameters can agree on one type.
fn polymorphic_consistent(declared: &[BaseType], inputs: &[BaseType]) -> bool {
    let mut strict: Option<BaseType> = None;
    let mut compatible: Vec<BaseType> = Vec::new();
    for (to, from) in declared.iter().zip(inputs) {
        if *from == BaseType::Unknown {
            continue;
        }
        let element = match to {
            BaseType::AnyCompatible => {
                compatible.push(*from);
                continue;
            }
            BaseType::AnyCompatibleArray => {
                compatible.extend(from.element());
                continue;
            }
            BaseType::AnyElement | BaseType::AnyNonArray => Some(*from),
            BaseType::AnyArray => from.element(),
            _ => continue,
        };
        match (strict, element) {
            (_, None) => return false,
            (None, Some(_)) => strict = element,
            (Some(known), Some(found)) if known != found => return false,
            _ => {}
        }
    }
    compatible.is_empty() || common_base(&compatible).is_some()
}

/// Replaces polymorphic parameter types by actual ones and answers the result's type.
fn settle_polymorphic(
    declared: &mut [BaseType],
    inputs: &[DataType],
    result: BaseType,
) -> Result<DataType, SqlError> {
    let mut element: Option<BaseType> = None;
    let mut compatible: Vec<BaseType> = Vec::new();
    for (to, from) in declared.iter().zip(inputs) {
        if from.is_unknown() {
            continue;
        }
        match to {
            BaseType::AnyElement | BaseType::AnyNonArray => element = Some(from.base),
            BaseType::AnyArray => element = element.or(from.base.element()),
            BaseType::AnyCompatible => compatible.push(from.base),
            BaseType::AnyCompatibleArray => compatible.extend(from.base.element()),
            _ => {}
        }
    }
    let has = |wanted: &[BaseType]| declared.iter().any(|to| wanted.contains(to));
    if element.is_none() && has(&[BaseType::AnyElement, BaseType::AnyArray, BaseType::AnyNonArray]) {
        if has(&[BaseType::AnyArray]) {
            return Err(SqlError::new(
                SqlState::INDETERMINATE_DATATYPE,
                "could not determine polymorphic type because input has type unknown",
            ));
        }
        element = Some(BaseType::Text);
    }
    let common = if has(&[BaseType::AnyCompatible, BaseType::AnyCompatibleArray]) {
        Some(common_base(&compatible).unwrap_or(BaseType::Text))
    } else {
        None
    };
    let replace = |base: BaseType| match base {
        BaseType::AnyElement | BaseType::AnyNonArray => element,
        BaseType::AnyArray => element.and_then(BaseType::array),
        BaseType::AnyCompatible => common,
        BaseType::AnyCompatibleArray => common.and_then(BaseType::array),
        other => Some(other),
    };
    let unsettled = || {
        SqlError::new(
            SqlState::INDETERMINATE_DATATYPE,
            "could not determine polymorphic type because input has type unknown",
        )
    };
    for (to, from) in declared.iter_mut().zip(inputs) {
        // Vectors stay what they are: functions over any array take them directly.
        *to = match *to {
            BaseType::AnyArray if !from.is_unknown() => from.base,
            other => replace(other).ok_or_else(unsettled)?,
        };
    }
    Ok(DataType::plain(replace(result).ok_or_else(unsettled)?))
}

fn compare_rows(name: &str, lefts: Vec<Expr>, rights: Vec<Expr>) -> Result<Expr, SqlError> {
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
fn compare(op: CompareOp, left: Expr, right: Expr) -> Result<Expr, SqlError> {
    let (left, right) = comparable(left, right)?;
    Ok(Expr::Compare { op, left: Box::new(left), right: Box::new(right) })
}

fn comparable(left: Expr, right: Expr) -> Result<(Expr, Expr), SqlError> {
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
        .map(|index| coerce(index, DataType::INT4, CastContext::Assignment))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Expr::Subscript { array: Box::new(array), indexes, ty })
}

/// `array[from:to]`
///
/// # Errors
/// 42804 when the value cannot be subscripted.
pub fn resolve_slice(array: Expr, from: Option<Expr>, to: Option<Expr>) -> Result<Expr, SqlError> {
    subscriptable(&array)?;
    let bound = |bound: Option<Expr>| match bound {
        Some(expr) => coerce(expr, DataType::INT4, CastContext::Assignment).map(|e| Some(Box::new(e))),
        None => Ok(None),
    };
    Ok(Expr::Slice { array: Box::new(array), from: bound(from)?, to: bound(to)? })
}

fn subscriptable(array: &Expr) -> Result<DataType, SqlError> {
    array.ty().element().ok_or_else(|| {
        SqlError::new(
            SqlState::DATATYPE_MISMATCH,
            format!("cannot subscript type {} because it does not support subscripting", array.ty().base),
        )
    })
}

fn unify(args: Vec<Expr>, what: &str) -> Result<(Vec<Expr>, DataType), SqlError> {
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

fn common_base(types: &[BaseType]) -> Option<BaseType> {
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

fn coerce_to_base(expr: Expr, target: BaseType) -> Result<Expr, SqlError> {
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
    if from.base == target.base && !needs_length {
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
        return Err(cannot_coerce(from, target, context));
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

fn coerce_unknown(expr: Expr, target: DataType, context: CastContext) -> Result<Expr, SqlError> {
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

fn cannot_coerce(from: DataType, target: DataType, context: CastContext) -> SqlError {
    let _ = context;
    SqlError::new(SqlState::CANNOT_COERCE, format!("cannot cast type {} to {}", from.base, target.base))
}

fn operator_error(failure: Failure, name: &str, left: Option<DataType>, right: DataType) -> SqlError {
    let signature = match left {
        Some(left) => format!("{} {name} {}", left.base, right.base),
        None => format!("{name} {}", right.base),
    };
    match failure {
        Failure::None => SqlError::new(
            SqlState::UNDEFINED_FUNCTION,
            format!("operator does not exist: {signature}"),
        )
        .with_hint("No operator matches the given name and argument types. You might need to add explicit type casts."),
        Failure::Ambiguous => SqlError::new(
            SqlState::AMBIGUOUS_FUNCTION,
            format!("operator is not unique: {signature}"),
        )
        .with_hint("Could not choose a best candidate operator. You might need to add explicit type casts."),
    }
}

fn function_error(failure: Failure, name: &str, types: &[DataType]) -> SqlError {
    let list = types.iter().map(|ty| ty.base.to_string()).collect::<Vec<_>>().join(", ");
    match failure {
        Failure::None => SqlError::new(
            SqlState::UNDEFINED_FUNCTION,
            format!("function {name}({list}) does not exist"),
        )
        .with_hint("No function matches the given name and argument types. You might need to add explicit type casts."),
        Failure::Ambiguous => SqlError::new(
            SqlState::AMBIGUOUS_FUNCTION,
            format!("function {name}({list}) is not unique"),
        )
        .with_hint("Could not choose a best candidate function. You might need to add explicit type casts."),
    }
}
