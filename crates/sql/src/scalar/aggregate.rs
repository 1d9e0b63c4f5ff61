//! Aggregates: one state per group, fed row by row. DISTINCT, FILTER and ORDER BY are the executor's.

mod ordered_set;
mod regression;

use rustydb_types::datatype::{BaseType, Category, DataType};
use rustydb_types::numeric::Numeric;
use rustydb_types::value::Value;

use self::regression::{Regression, Statistic};
use super::EvalContext;
use super::arithmetic;
use super::catalogue::Function;
use super::eval::nest;
use super::function;
use crate::error::{SqlError, SqlState};

pub use self::ordered_set::OrderedSet;

/// A resolved aggregate.
#[derive(Clone, Debug, PartialEq)]
pub struct AggregateFunction {
    /// Its row in the catalogue.
    pub function: &'static Function,
    /// Types of its arguments.
    pub arg_types: Vec<DataType>,
    /// Type of its result.
    pub ty: DataType,
}

impl AggregateFunction {
    /// Type of the result.
    pub fn result_type(&self) -> DataType {
        self.ty
    }
}

/// What an aggregate has seen of its group.
#[derive(Clone, Debug)]
pub struct AggregateState {
    kind: Kind,
    ty: DataType,
    element: BaseType,
    of_arrays: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    Count(i64),
    SumInteger {
        sum: i128,
        count: i64,
    },
    SumFloat {
        sum: f64,
        count: i64,
        real: bool,
    },
    SumOther {
        sum: Option<Value>,
        count: i64,
    },
    Average(Box<Kind>),
    Extreme {
        best: Option<Value>,
        greatest: bool,
    },
    Bool {
        result: Option<bool>,
        and: bool,
    },
    Bits {
        result: Option<Value>,
        op: char,
    },
    Strings {
        text: Option<String>,
        bytes: Option<Vec<u8>>,
    },
    Array(Vec<Value>),
    /// The text of an array or an object under way, without its end.
    Json {
        text: Option<String>,
        types: [DataType; 2],
        is_object: bool,
    },
    SpreadFloat {
        count: f64,
        sum: f64,
        squares: f64,
        spread: Spread,
    },
    SpreadNumeric {
        count: i64,
        sum: Numeric,
        squares: Numeric,
        spread: Spread,
    },
    Pairs(Regression),
    /// Computed from the ordered values of the group, which the executor keeps.
    Ordered,
}

#[derive(Clone, Copy, Debug)]
struct Spread {
    root: bool,
    sample: bool,
}

impl AggregateState {
    /// The state of an empty group.
    ///
    /// # Errors
    /// 0A000 for an aggregate that RustyDB does not compute.
    pub fn new(aggregate: &AggregateFunction) -> Result<AggregateState, SqlError> {
        let input = aggregate.arg_types.first().map_or(BaseType::Any, |ty| ty.base);
        let integer = matches!(input, BaseType::Int2 | BaseType::Int4 | BaseType::Int8);
        let float = matches!(input, BaseType::Float4 | BaseType::Float8);
        let sum = || {
            if integer {
                Kind::SumInteger { sum: 0, count: 0 }
            } else if float {
                Kind::SumFloat { sum: 0.0, count: 0, real: input == BaseType::Float4 }
            } else {
                Kind::SumOther { sum: None, count: 0 }
            }
        };
        let spread = |root: bool, sample: bool| {
            let spread = Spread { root, sample };
            if float {
                Kind::SpreadFloat { count: 0.0, sum: 0.0, squares: 0.0, spread }
            } else {
                Kind::SpreadNumeric { count: 0, sum: Numeric::zero(), squares: Numeric::zero(), spread }
            }
        };
        let kind = match aggregate.function.name {
            "count" => Kind::Count(0),
            "sum" => sum(),
            "avg" => Kind::Average(Box::new(match sum() {
                Kind::SumFloat { .. } => Kind::SumFloat { sum: 0.0, count: 0, real: false },
                other => other,
            })),
            "min" => Kind::Extreme { best: None, greatest: false },
            "max" => Kind::Extreme { best: None, greatest: true },
            "bool_and" | "every" => Kind::Bool { result: None, and: true },
            "bool_or" => Kind::Bool { result: None, and: false },
            "bit_and" => Kind::Bits { result: None, op: '&' },
            "bit_or" => Kind::Bits { result: None, op: '|' },
            "bit_xor" => Kind::Bits { result: None, op: '#' },
            "string_agg" => Kind::Strings { text: None, bytes: None },
            "array_agg" => Kind::Array(Vec::new()),
            "json_agg" | "jsonb_agg" | "json_object_agg" | "jsonb_object_agg" => {
                let ty = |at: usize| aggregate.arg_types.get(at).copied().unwrap_or(DataType::TEXT);
                let is_object = aggregate.function.name.ends_with("object_agg");
                Kind::Json { text: None, types: [ty(0), ty(1)], is_object }
            }
            "stddev" | "stddev_samp" => spread(true, true),
            "stddev_pop" => spread(true, false),
            "variance" | "var_samp" => spread(false, true),
            "var_pop" => spread(false, false),
            _ if OrderedSet::of(aggregate.function).is_some() => Kind::Ordered,
            other => match Statistic::from_name(other) {
                Some(statistic) => Kind::Pairs(Regression::new(statistic)),
                None => return Err(SqlError::not_supported(format!("aggregate {other} is not supported"))),
            },
        };
        let element = aggregate.ty.base.element().unwrap_or(input);
        let of_arrays = input.category() == Category::Array;
        Ok(AggregateState { kind, ty: aggregate.ty, element, of_arrays })
    }

    /// Whether all that it takes in is kept.
    pub fn gathers(&self) -> bool {
        matches!(self.kind, Kind::Strings { .. } | Kind::Array(_) | Kind::Json { .. })
    }

    /// Takes in one row's arguments; none for `count(*)`.
    ///
    /// # Errors
    /// 22003 when a sum grows too large.
    pub fn update(&mut self, args: &[Value], ctx: &EvalContext<'_>) -> Result<(), SqlError> {
        let null = Value::Null;
        let value = args.first().unwrap_or(&null);
        if let Kind::Json { text, types, is_object } = &mut self.kind {
            return function::json::output::gather(text, (value, args.get(1)), *types, *is_object, ctx);
        }
        if value.is_null() && !args.is_empty() && !matches!(self.kind, Kind::Array(_)) {
            return Ok(());
        }
        self.kind.update(value, args.get(1))
    }

    /// Whether rows can be taken back exactly.
    pub fn retracts(&self) -> bool {
        match &self.kind {
            Kind::Count(_) | Kind::SumInteger { .. } => true,
            Kind::Average(inner) => matches!(**inner, Kind::SumInteger { .. }),
            _ => false,
        }
    }

    /// Takes back one row that was taken in, where that is possible.
    pub fn retract(&mut self, args: &[Value]) {
        let value = args.first().unwrap_or(&Value::Null);
        if value.is_null() && !args.is_empty() {
            return;
        }
        let kind = match &mut self.kind {
            Kind::Average(inner) => inner.as_mut(),
            kind => kind,
        };
        match kind {
            Kind::Count(count) => *count -= 1,
            Kind::SumInteger { sum, count } => {
                *sum -= i128::from(value.as_i64().unwrap_or(0));
                *count -= 1;
            }
            _ => {}
        }
    }

    /// The aggregate's value.
    ///
    /// # Errors
    /// 22003 when the result does not fit its type.
    pub fn finish(self) -> Result<Value, SqlError> {
        let out =
            || SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("{} out of range", self.ty.base));
        Ok(match self.kind {
            Kind::Count(n) => Value::Int8(n),
            Kind::SumInteger { count: 0, .. } | Kind::SumFloat { count: 0, .. } => Value::Null,
            Kind::SumInteger { sum, .. } if self.ty.base == BaseType::Int8 => {
                Value::Int8(i64::try_from(sum).map_err(|_| out())?)
            }
            Kind::SumInteger { sum, .. } => Value::Numeric(Box::new(Numeric::from(sum))),
            Kind::SumFloat { sum, real: true, .. } => Value::Float4(sum as f32),
            Kind::SumFloat { sum, .. } => Value::Float8(sum),
            Kind::SumOther { sum, .. } => sum.unwrap_or(Value::Null),
            Kind::Average(inner) => average(*inner)?,
            Kind::Extreme { best, .. } => best.unwrap_or(Value::Null),
            Kind::Bool { result, .. } => result.map_or(Value::Null, Value::Bool),
            Kind::Bits { result, .. } => result.unwrap_or(Value::Null),
            Kind::Strings { text: Some(text), .. } => Value::text(text),
            Kind::Strings { bytes: Some(bytes), .. } => Value::Bytea(bytes.into()),
            Kind::Strings { .. } => Value::Null,
            Kind::Json { text: None, .. } => Value::Null,
            Kind::Json { text: Some(mut text), is_object, .. } => {
                text.push_str(if is_object { " }" } else { "]" });
                if self.ty.base == BaseType::Jsonb {
                    Value::Jsonb(rustydb_types::json::text::read(&text)?.into())
                } else {
                    Value::text(text)
                }
            }
            Kind::Array(elements) if elements.is_empty() => Value::Null,
            Kind::Array(elements) if self.of_arrays => {
                if elements.iter().any(Value::is_null) {
                    return Err(SqlError::new(
                        SqlState::NULL_VALUE_NOT_ALLOWED,
                        "cannot accumulate null arrays",
                    ));
                }
                nest(self.element, elements)?
            }
            Kind::Array(elements) => Value::array(self.element, elements),
            Kind::SpreadFloat { count, squares, spread, .. } => {
                let divisor = if spread.sample { count - 1.0 } else { count };
                if divisor <= 0.0 {
                    Value::Null
                } else {
                    let variance = squares / divisor;
                    Value::Float8(if spread.root { variance.sqrt() } else { variance })
                }
            }
            Kind::Pairs(pairs) => pairs.finish(),
            Kind::Ordered => Value::Null,
            Kind::SpreadNumeric { count, sum, squares, spread } => {
                numeric_spread(count, &sum, &squares, spread)?
            }
        })
    }
}

fn average(inner: Kind) -> Result<Value, SqlError> {
    Ok(match inner {
        Kind::SumInteger { count: 0, .. } | Kind::SumFloat { count: 0, .. } => Value::Null,
        Kind::SumInteger { sum, count } => {
            Value::Numeric(Box::new(Numeric::from(sum).div(&Numeric::from(count))?))
        }
        Kind::SumFloat { sum, count, .. } => Value::Float8(sum / count as f64),
        Kind::SumOther { sum: Some(Value::Numeric(sum)), count } => {
            Value::Numeric(Box::new(sum.div(&Numeric::from(count))?))
        }
        Kind::SumOther { sum: Some(sum @ Value::Interval(_)), count } => {
            arithmetic::divide(&sum, &Value::Float8(count as f64), &EvalContext::constant(&[]))?
        }
        _ => Value::Null,
    })
}

fn numeric_spread(count: i64, sum: &Numeric, squares: &Numeric, spread: Spread) -> Result<Value, SqlError> {
    let divisor = if spread.sample { count - 1 } else { count };
    if divisor <= 0 {
        return Ok(Value::Null);
    }
    // (n * sum(x^2) - sum(x)^2) / (n * divisor)
    let n = Numeric::from(count);
    let numerator = n.mul(squares).sub(&sum.mul(sum));
    if numerator.is_finite() && (numerator.is_zero() || numerator.is_negative()) {
        return Ok(Value::Numeric(Box::new(Numeric::zero())));
    }
    let variance = numerator.div(&n.mul(&Numeric::from(divisor)))?;
    // The root keeps the scale of the quotient.
    let result = if spread.root { variance.sqrt_to_scale(variance.scale())? } else { variance };
    Ok(Value::Numeric(Box::new(result)))
}

impl Kind {
    fn update(&mut self, value: &Value, second: Option<&Value>) -> Result<(), SqlError> {
        let constant = EvalContext::constant(&[]);
        match self {
            Kind::Count(n) => *n += 1,
            Kind::SumInteger { sum, count } => {
                *sum += i128::from(value.as_i64().unwrap_or(0));
                *count += 1;
            }
            Kind::SumFloat { sum, count, real } => {
                let n = float(value);
                let total = if *real { f64::from(*sum as f32 + n as f32) } else { *sum + n };
                arithmetic::check_float(total, sum.is_infinite() || n.is_infinite(), true)?;
                *sum = total;
                *count += 1;
            }
            Kind::SumOther { sum, count } => {
                *sum = Some(match sum.take() {
                    None => value.clone(),
                    Some(total) => arithmetic::add(&total, value, &constant)?,
                });
                *count += 1;
            }
            Kind::Average(inner) => inner.update(value, second)?,
            Kind::Extreme { best, greatest } => {
                let better = best.as_ref().is_none_or(|best| {
                    let order = value.compare(best);
                    if *greatest { order.is_gt() } else { order.is_lt() }
                });
                if better {
                    *best = Some(value.clone());
                }
            }
            Kind::Bool { result, and } => {
                let flag = value.as_bool().unwrap_or(false);
                *result = Some(match *result {
                    None => flag,
                    Some(known) if *and => known && flag,
                    Some(known) => known || flag,
                });
            }
            Kind::Bits { result, op } => {
                *result = Some(match result.take() {
                    None => value.clone(),
                    Some(known) => bits(&known, value, *op),
                });
            }
            Kind::Strings { text, bytes } => match value {
                Value::Bytea(piece) => {
                    let all = match bytes {
                        None => bytes.insert(Vec::new()),
                        Some(all) => {
                            if let Some(Value::Bytea(delimiter)) = second {
                                all.extend(delimiter.iter());
                            }
                            all
                        }
                    };
                    all.extend(piece.iter());
                }
                _ => {
                    let all = match text {
                        None => text.insert(String::new()),
                        Some(all) => {
                            all.push_str(second.and_then(Value::as_str).unwrap_or(""));
                            all
                        }
                    };
                    all.push_str(value.as_str().unwrap_or(""));
                }
            },
            // Taken in with the types of the arguments.
            Kind::Json { .. } => {}
            Kind::Array(elements) => elements.push(value.clone()),
            Kind::SpreadFloat { count, sum, squares, .. } => {
                // Youngs and Cramer, as float8_accum has it.
                let n = float(value);
                let was_finite = !sum.is_infinite() && !n.is_infinite();
                *count += 1.0;
                *sum += n;
                if *count > 1.0 {
                    let step = n * *count - *sum;
                    *squares += step * step / (*count * (*count - 1.0));
                    if sum.is_infinite() || squares.is_infinite() {
                        arithmetic::check_float(f64::INFINITY, !was_finite, true)?;
                        *squares = f64::NAN;
                    }
                } else if !n.is_finite() {
                    *squares = f64::NAN;
                }
            }
            Kind::Pairs(pairs) => {
                if let (Value::Float8(y), Some(Value::Float8(x))) = (value, second) {
                    pairs.update(*y, *x)?;
                }
            }
            Kind::Ordered => {}
            Kind::SpreadNumeric { count, sum, squares, .. } => {
                let n = match value {
                    Value::Numeric(n) => (**n).clone(),
                    other => Numeric::from(other.as_i64().unwrap_or(0)),
                };
                *count += 1;
                *squares = squares.add(&n.mul(&n));
                *sum = sum.add(&n);
            }
        }
        Ok(())
    }
}

fn float(value: &Value) -> f64 {
    match value {
        Value::Float4(n) => f64::from(*n),
        Value::Float8(n) => *n,
        _ => f64::NAN,
    }
}

fn bits(a: &Value, b: &Value, op: char) -> Value {
    let apply = |x: i64, y: i64| match op {
        '&' => x & y,
        '|' => x | y,
        _ => x ^ y,
    };
    match (a, b) {
        (Value::Int2(x), Value::Int2(y)) => Value::Int2(apply(i64::from(*x), i64::from(*y)) as i16),
        (Value::Int4(x), Value::Int4(y)) => Value::Int4(apply(i64::from(*x), i64::from(*y)) as i32),
        (Value::Int8(x), Value::Int8(y)) => Value::Int8(apply(*x, *y)),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scalar::{Expr, resolve_aggregate};

    fn run(name: &str, ty: DataType, values: &[Value]) -> (DataType, String) {
        let args = vec![Expr::Column { index: 0, ty }];
        let (function, _) = resolve_aggregate(name, args).expect("resolves").expect("an aggregate");
        let mut state = AggregateState::new(&function).expect("known");
        for value in values {
            state.update(std::slice::from_ref(value), &EvalContext::constant(&[])).expect("fits");
        }
        let value = state.finish().expect("fits");
        let text = crate::scalar::cast::print(&value, function.ty, &EvalContext::constant(&[]));
        (function.ty, if value.is_null() { "NULL".to_owned() } else { text })
    }

    /// Expected results are PostgreSQL 15's.
    #[test]
    fn aggregates_give_postgresqls_types_and_digits() {
        let ints: Vec<Value> = [1, 2, 4].into_iter().map(Value::Int4).collect();
        let cases = [
            ("sum", DataType::INT8, "7"),
            ("avg", DataType::NUMERIC, "2.3333333333333333"),
            ("min", DataType::INT4, "1"),
            ("max", DataType::INT4, "4"),
            ("count", DataType::INT8, "3"),
            ("stddev", DataType::NUMERIC, "1.5275252316519467"),
            ("var_pop", DataType::NUMERIC, "1.5555555555555556"),
            ("bit_or", DataType::INT4, "7"),
        ];
        for (name, ty, expected) in cases {
            assert_eq!(run(name, DataType::INT4, &ints), (ty, expected.to_owned()), "{name}");
        }
        assert_eq!(run("sum", DataType::INT4, &[Value::Null]).1, "NULL");
        let bigs = [Value::Int8(i64::MAX), Value::Int8(i64::MAX)];
        assert_eq!(run("sum", DataType::INT8, &bigs), (DataType::NUMERIC, "18446744073709551614".to_owned()));
        assert_eq!(run("sum", DataType::INTERVAL, &[Value::Interval(Box::default())]).1, "00:00:00");
    }
}
