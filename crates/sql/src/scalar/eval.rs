//! Evaluation. Operands are borrowed where they stand, so comparing columns and constants copies
//! and allocates nothing; AND, OR, CASE, COALESCE and IN stop as soon as the result is known.

use std::borrow::Cow;
use std::cmp::Ordering;

use rustydb_types::datatype::BaseType;
use rustydb_types::value::{ArrayDimension, ArrayValue, Value};
use smallvec::SmallVec;

use super::EvalContext;
use super::cast;
use super::catalogue::Invocation;
use super::expr::{BoolTest, Expr};
use crate::error::{SqlError, SqlState};

/// How deep rows of rows may nest: as text, each level doubles the quotes of those inside it.
const RECORD_DEPTH_MAX: usize = 10;

/// How many levels of rows there are in some values.
fn record_depth(values: &[Value]) -> usize {
    let depth = |value: &Value| match value {
        Value::Record(fields) => 1 + record_depth(fields),
        _ => 0,
    };
    values.iter().map(depth).max().unwrap_or(0)
}

impl Expr {
    /// The value of the expression for one row.
    ///
    /// # Errors
    /// Those of its operators and functions.
    pub fn eval(&self, row: &[Value], ctx: &EvalContext<'_>) -> Result<Value, SqlError> {
        Ok(self.eval_ref(row, ctx)?.into_owned())
    }

    /// Whether a condition holds for one row: null counts as false.
    ///
    /// # Errors
    /// Those of its operators and functions.
    pub fn holds(&self, row: &[Value], ctx: &EvalContext<'_>) -> Result<bool, SqlError> {
        Ok(self.truth(row, ctx)? == Some(true))
    }

    fn truth(&self, row: &[Value], ctx: &EvalContext<'_>) -> Result<Option<bool>, SqlError> {
        Ok(self.eval_ref(row, ctx)?.as_bool())
    }

    fn eval_ref<'v>(&'v self, row: &'v [Value], ctx: &EvalContext<'v>) -> Result<Cow<'v, Value>, SqlError> {
        let missing = || SqlError::internal("expression reads a value that is not there");
        let owned = |value: Value| Ok(Cow::Owned(value));
        match self {
            Expr::Const { value, .. } => Ok(Cow::Borrowed(value)),
            Expr::Column { index, .. } => row.get(*index).map(Cow::Borrowed).ok_or_else(missing),
            Expr::Outer { index, .. } => ctx.outer.get(*index).map(Cow::Borrowed).ok_or_else(missing),
            Expr::Param { index, .. } => match ctx.params.get(*index) {
                Some(value) => Ok(Cow::Borrowed(value)),
                None => Err(SqlError::new(
                    SqlState::UNDEFINED_PARAMETER,
                    format!("there is no parameter ${}", index + 1),
                )),
            },
            Expr::Compare { op, left, right } => {
                let left = left.eval_ref(row, ctx)?;
                if left.is_null() {
                    return owned(Value::Null);
                }
                let right = right.eval_ref(row, ctx)?;
                if right.is_null() {
                    return owned(Value::Null);
                }
                owned(Value::Bool(op.holds(left.compare(&right))))
            }
            Expr::Binary { operator, left, right, .. } => {
                let left = left.eval_ref(row, ctx)?;
                if left.is_null() {
                    return self.null_operand(operator.name, right, row, ctx).map(Cow::Owned);
                }
                let right = right.eval_ref(row, ctx)?;
                if right.is_null() && !takes_null(operator.function) {
                    return owned(Value::Null);
                }
                owned((operator.eval)(&left, &right, ctx)?)
            }
            Expr::Unary { operator, input, .. } => {
                let input = input.eval_ref(row, ctx)?;
                if input.is_null() {
                    return owned(Value::Null);
                }
                owned((operator.eval)(&input, &input, ctx)?)
            }
            Expr::And(parts) => {
                let mut result = Some(true);
                for part in parts {
                    match part.truth(row, ctx)? {
                        Some(false) => return owned(Value::Bool(false)),
                        None => result = None,
                        Some(true) => {}
                    }
                }
                owned(result.map_or(Value::Null, Value::Bool))
            }
            Expr::Or(parts) => {
                let mut result = Some(false);
                for part in parts {
                    match part.truth(row, ctx)? {
                        Some(true) => return owned(Value::Bool(true)),
                        None => result = None,
                        Some(false) => {}
                    }
                }
                owned(result.map_or(Value::Null, Value::Bool))
            }
            Expr::Not(input) => owned(input.truth(row, ctx)?.map_or(Value::Null, |flag| Value::Bool(!flag))),
            Expr::IsNull { input, negated } => {
                let input = input.eval_ref(row, ctx)?;
                // A row value is null when all its fields are, not null when none is.
                let result = match input.as_ref() {
                    Value::Record(fields) if *negated => fields.iter().all(|field| !field.is_null()),
                    Value::Record(fields) => fields.iter().all(Value::is_null),
                    value => value.is_null() != *negated,
                };
                owned(Value::Bool(result))
            }
            Expr::IsBool { input, test, negated } => {
                let found = input.truth(row, ctx)?;
                let wanted = match test {
                    BoolTest::True => Some(true),
                    BoolTest::False => Some(false),
                    BoolTest::Unknown => None,
                };
                owned(Value::Bool((found == wanted) != *negated))
            }
            Expr::Distinct { left, right, negated } => {
                let left = left.eval_ref(row, ctx)?;
                let right = right.eval_ref(row, ctx)?;
                owned(Value::Bool((left.compare(&right) != Ordering::Equal) != *negated))
            }
            Expr::Call { function, args, arg_types, ty } => {
                let mut values: SmallVec<[Value; 4]> = SmallVec::with_capacity(args.len());
                for arg in args {
                    let value = arg.eval(row, ctx)?;
                    if function.strict && value.is_null() {
                        return owned(Value::Null);
                    }
                    values.push(value);
                }
                let Some(eval) = function.eval else {
                    return Err(SqlError::not_supported(format!(
                        "function {} cannot be used here",
                        function.name
                    )));
                };
                owned(eval(&values, &Invocation { function, arg_types, ty: *ty, ctx })?)
            }
            Expr::Cast { input, method, from, ty, explicit } => {
                let value = input.eval(row, ctx)?;
                owned(cast::cast(value, *method, *from, *ty, *explicit, ctx)?)
            }
            Expr::Case { branches, otherwise, .. } => {
                for (condition, result) in branches {
                    if condition.truth(row, ctx)? == Some(true) {
                        return result.eval_ref(row, ctx);
                    }
                }
                match otherwise {
                    Some(expr) => expr.eval_ref(row, ctx),
                    None => owned(Value::Null),
                }
            }
            Expr::Coalesce { args, .. } => {
                for arg in args {
                    let value = arg.eval_ref(row, ctx)?;
                    if !value.is_null() {
                        return Ok(value);
                    }
                }
                owned(Value::Null)
            }
            Expr::Domain { input, domain } => {
                let value = input.eval_ref(row, ctx)?;
                domain.check(&value, ctx)?;
                Ok(value)
            }
            Expr::NullIf { condition, value } => {
                if condition.truth(row, ctx)? == Some(true) {
                    return owned(Value::Null);
                }
                value.eval_ref(row, ctx)
            }
            Expr::Extreme { args, greatest, .. } => {
                let mut best: Option<Cow<'v, Value>> = None;
                for arg in args {
                    let value = arg.eval_ref(row, ctx)?;
                    if value.is_null() {
                        continue;
                    }
                    let better = best.as_ref().is_none_or(|best| {
                        let order = value.compare(best);
                        if *greatest { order.is_gt() } else { order.is_lt() }
                    });
                    if better {
                        best = Some(value);
                    }
                }
                Ok(best.unwrap_or(Cow::Owned(Value::Null)))
            }
            Expr::InList { input, list, negated } => {
                let input = input.eval_ref(row, ctx)?;
                if input.is_null() {
                    return owned(Value::Null);
                }
                let mut saw_null = false;
                for item in list {
                    let item = item.eval_ref(row, ctx)?;
                    if item.is_null() {
                        saw_null = true;
                    } else if input.sql_eq(&item) {
                        return owned(Value::Bool(!negated));
                    }
                }
                owned(if saw_null { Value::Null } else { Value::Bool(*negated) })
            }
            Expr::Quantified { comparison, left, array, all } => {
                let array = array.eval_ref(row, ctx)?;
                let Value::Array(array) = array.as_ref() else { return owned(Value::Null) };
                let left = left.eval(row, ctx)?;
                let mut operands = [left, Value::Null];
                let mut saw_null = false;
                for element in &array.elements {
                    operands[1] = element.clone();
                    match comparison.eval(&operands, ctx)?.as_bool() {
                        None => saw_null = true,
                        Some(flag) if flag != *all => return owned(Value::Bool(flag)),
                        Some(_) => {}
                    }
                }
                owned(if saw_null { Value::Null } else { Value::Bool(*all) })
            }
            Expr::Array { elements, ty } => {
                let mut values = Vec::with_capacity(elements.len());
                for element in elements {
                    values.push(element.eval(row, ctx)?);
                }
                let nested = elements.first().is_some_and(|first| first.ty() == *ty);
                let element = ty.base.element().unwrap_or(BaseType::Text);
                if nested {
                    nest(element, values).map(Cow::Owned)
                } else {
                    owned(Value::array(element, values))
                }
            }
            Expr::Subscript { array, indexes, .. } => {
                let array = array.eval_ref(row, ctx)?;
                let Value::Array(array) = array.as_ref() else { return owned(Value::Null) };
                let mut subscripts: SmallVec<[i64; 2]> = SmallVec::new();
                for index in indexes {
                    match index.eval_ref(row, ctx)?.as_i64() {
                        Some(n) => subscripts.push(n),
                        None => return owned(Value::Null),
                    }
                }
                owned(subscript(array, &subscripts).cloned().unwrap_or(Value::Null))
            }
            Expr::Slice { array, bounds, .. } => {
                let array = array.eval_ref(row, ctx)?;
                let Value::Array(array) = array.as_ref() else { return owned(Value::Null) };
                let mut taken: SmallVec<[(i64, i64); 2]> = SmallVec::new();
                for (place, (from, to)) in bounds.iter().enumerate() {
                    let dimension = array.dimensions.get(place);
                    let lower = dimension.map_or(1, |dimension| i64::from(dimension.lower));
                    let length = dimension.map_or(0, |dimension| i64::from(dimension.length));
                    let bound = |bound: &Option<Expr>, default: i64| match bound {
                        Some(expr) => Ok::<_, SqlError>(expr.eval_ref(row, ctx)?.as_i64()),
                        None => Ok(Some(default)),
                    };
                    let (Some(from), Some(to)) = (bound(from, lower)?, bound(to, lower + length - 1)?) else {
                        return owned(Value::Null);
                    };
                    taken.push((from.max(lower), to.min(lower + length - 1)));
                }
                owned(Value::Array(Box::new(slice(array, &taken))))
            }
            Expr::Field { record, index, .. } => {
                let field = match &*record.eval_ref(row, ctx)? {
                    Value::Record(fields) => fields.get(*index).cloned(),
                    _ => None,
                };
                owned(field.unwrap_or(Value::Null))
            }
            Expr::Row(fields) | Expr::WholeRow { fields, .. } => {
                let fields =
                    fields.iter().map(|field| field.eval(row, ctx)).collect::<Result<Vec<_>, _>>()?;
                if matches!(self, Expr::WholeRow { nullable: true, .. }) && fields.iter().all(Value::is_null)
                {
                    return owned(Value::Null);
                }
                if record_depth(&fields) >= RECORD_DEPTH_MAX {
                    let message = format!("rows are nested deeper than {RECORD_DEPTH_MAX} levels");
                    return Err(SqlError::new(SqlState::STATEMENT_TOO_COMPLEX, message));
                }
                owned(Value::Record(fields.into()))
            }
            Expr::Subquery(query) => owned(query.eval(row, ctx)?),
        }
    }

    /// A null left operand: null, save for the array operators, which take nulls as elements.
    fn null_operand(
        &self,
        _name: &str,
        right: &Expr,
        row: &[Value],
        ctx: &EvalContext<'_>,
    ) -> Result<Value, SqlError> {
        let Expr::Binary { operator, .. } = self else { return Ok(Value::Null) };
        if !takes_null(operator.function) {
            return Ok(Value::Null);
        }
        let right = right.eval(row, ctx)?;
        (operator.eval)(&Value::Null, &right, ctx)
    }
}

/// `||` over arrays is not strict.
fn takes_null(function: &str) -> bool {
    matches!(function, "array_append" | "array_prepend" | "array_cat")
}

/// Arrays of one shape as an array with one dimension more.
pub(super) fn nest(element: BaseType, values: Vec<Value>) -> Result<Value, SqlError> {
    let mut inner: Option<Vec<ArrayDimension>> = None;
    let mut elements = Vec::new();
    let count = values.len() as i32;
    for value in values {
        let array = match value {
            Value::Array(array) => *array,
            _ => ArrayValue::from_elements(element, Vec::new()),
        };
        match &inner {
            Some(known) if *known != array.dimensions => {
                return Err(SqlError::new(
                    SqlState::ARRAY_SUBSCRIPT_ERROR,
                    "multidimensional arrays must have array expressions with matching dimensions",
                ));
            }
            Some(_) => {}
            None => inner = Some(array.dimensions),
        }
        elements.extend(array.elements);
    }
    if elements.is_empty() {
        return Ok(Value::array(element, elements));
    }
    let mut dimensions = vec![ArrayDimension { length: count, lower: 1 }];
    dimensions.extend(inner.unwrap_or_default());
    Ok(Value::Array(Box::new(ArrayValue { element, dimensions, elements })))
}

/// The part of an array between two subscripts of each dimension, those behind them whole. It has subscripts from 1.
fn slice(array: &ArrayValue, taken: &[(i64, i64)]) -> ArrayValue {
    if taken.len() > array.dimensions.len() || taken.iter().any(|(from, to)| from > to) {
        return ArrayValue::from_elements(array.element, Vec::new());
    }
    let mut dimensions = Vec::with_capacity(array.dimensions.len());
    // Where the part begins and how much of each dimension it takes, as counts from 0.
    let mut ranges: Vec<(usize, usize)> = Vec::with_capacity(array.dimensions.len());
    for (place, dimension) in array.dimensions.iter().enumerate() {
        let lower = i64::from(dimension.lower);
        let whole = (lower, lower + i64::from(dimension.length) - 1);
        let (from, to) = taken.get(place).copied().unwrap_or(whole);
        let count = |number: i64| usize::try_from(number).unwrap_or(0);
        ranges.push((count(from - lower), count(to - from + 1)));
        dimensions.push(ArrayDimension { length: (to - from + 1) as i32, lower: 1 });
    }
    let mut elements = Vec::with_capacity(ranges.iter().map(|(_, length)| length).product());
    take_ranges(&array.elements, &array.dimensions, &ranges, &mut elements);
    ArrayValue { element: array.element, dimensions, elements }
}

fn take_ranges(
    elements: &[Value],
    dimensions: &[ArrayDimension],
    ranges: &[(usize, usize)],
    out: &mut Vec<Value>,
) {
    let (Some((_, below)), Some(((start, length), rest))) = (dimensions.split_first(), ranges.split_first())
    else {
        out.extend(elements.iter().cloned());
        return;
    };
    let size =
        below.iter().map(|dimension| usize::try_from(dimension.length).unwrap_or(0)).product::<usize>();
    for part in elements.chunks(size.max(1)).skip(*start).take(*length) {
        take_ranges(part, below, rest, out);
    }
}

fn subscript<'a>(array: &'a ArrayValue, subscripts: &[i64]) -> Option<&'a Value> {
    if subscripts.len() != array.dimensions.len() {
        return None;
    }
    let mut at: usize = 0;
    for (index, dimension) in subscripts.iter().zip(&array.dimensions) {
        let offset = index - i64::from(dimension.lower);
        if offset < 0 || offset >= i64::from(dimension.length) {
            return None;
        }
        at = at * dimension.length as usize + offset as usize;
    }
    array.elements.get(at)
}
