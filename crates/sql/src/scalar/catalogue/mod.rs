//! The built-in operators and functions, read from PostgreSQL's own catalog as data.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::value::Value;

use super::EvalContext;
use super::expr::CompareOp;
use crate::error::SqlError;

/// How far a function's result may be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Volatility {
    /// The same arguments always give the same result.
    Immutable,
    /// The same within one statement.
    Stable,
    /// Each call may differ.
    Volatile,
}

/// What a row of the function catalogue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionKind {
    /// One value from one row.
    Scalar,
    /// Several rows from one; the executor runs it.
    SetReturning,
    /// One value from many rows.
    Aggregate,
    /// One value from a row and the rows around it.
    Window,
}

/// Evaluates a binary operator; a prefix operator gets its operand twice.
pub type OperatorFn = fn(&Value, &Value, &EvalContext<'_>) -> Result<Value, SqlError>;

/// Evaluates a function.
pub type FunctionFn = fn(&[Value], &Invocation<'_>) -> Result<Value, SqlError>;

/// What a function may ask besides its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Invocation<'a> {
    /// The function itself, for those that share an implementation.
    pub function: &'static Function,
    /// Types of the arguments.
    pub arg_types: &'a [DataType],
    /// Type of the result.
    pub ty: DataType,
    /// The surroundings.
    pub ctx: &'a EvalContext<'a>,
}

/// A built-in operator.
#[derive(Debug)]
pub struct Operator {
    /// `pg_operator.oid`
    pub oid: u32,
    /// Its name, such as `+`.
    pub name: &'static str,
    /// Type of the left operand; `None` for a prefix operator.
    pub left: Option<BaseType>,
    /// Type of the right operand.
    pub right: BaseType,
    /// Type of the result.
    pub result: BaseType,
    /// Name of the function behind it.
    pub function: &'static str,
    /// How far its result may be relied on.
    pub volatility: Volatility,
    /// It is one of the six comparisons.
    pub compare: Option<CompareOp>,
    /// How it is computed.
    pub eval: OperatorFn,
}

impl PartialEq for Operator {
    fn eq(&self, other: &Operator) -> bool {
        self.oid == other.oid
    }
}

/// A built-in function.
#[derive(Debug)]
pub struct Function {
    /// `pg_proc.oid`
    pub oid: u32,
    /// Its name.
    pub name: &'static str,
    /// Scalar, set-returning or aggregate.
    pub kind: FunctionKind,
    /// How far its result may be relied on.
    pub volatility: Volatility,
    /// NULL when an argument is.
    pub strict: bool,
    /// Element type of the last parameter when it takes any number of arguments.
    pub variadic: Option<BaseType>,
    /// How many trailing parameters have defaults.
    pub defaults: usize,
    /// Type of the result.
    pub result: BaseType,
    /// Types of the parameters.
    pub args: Vec<BaseType>,
    /// How it is computed; `None` for aggregates and set-returning functions.
    pub eval: Option<FunctionFn>,
}

impl PartialEq for Function {
    fn eq(&self, other: &Function) -> bool {
        self.oid == other.oid
    }
}

/// All built-in operators and functions by name.
#[derive(Debug)]
pub struct Catalogue {
    operators: BTreeMap<&'static str, Vec<Operator>>,
    functions: BTreeMap<&'static str, Vec<Function>>,
}

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| Catalogue {
    operators: read(include_str!("operators.txt"), parse_operator, |op| op.name),
    functions: read(
        concat!(include_str!("functions.txt"), include_str!("own_functions.txt")),
        parse_function,
        |function| function.name,
    ),
});

impl Catalogue {
    /// The one catalogue.
    pub fn get() -> &'static Catalogue {
        &CATALOGUE
    }

    /// The overloads of an operator.
    pub fn operators(&self, name: &str) -> &[Operator] {
        self.operators.get(name).map_or(&[], Vec::as_slice)
    }

    /// The overloads of a function.
    pub fn functions(&self, name: &str) -> &[Function] {
        self.functions.get(name).map_or(&[], Vec::as_slice)
    }

    /// Every operator, by name.
    pub fn all_operators(&self) -> impl Iterator<Item = &Operator> {
        self.operators.values().flatten()
    }

    /// Every function, by name.
    pub fn all_functions(&self) -> impl Iterator<Item = &Function> {
        self.functions.values().flatten()
    }
}

fn read<T>(
    text: &'static str,
    parse: fn(&mut std::str::Split<'static, char>) -> Option<T>,
    name: fn(&T) -> &'static str,
) -> BTreeMap<&'static str, Vec<T>> {
    let mut rows: BTreeMap<&'static str, Vec<T>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with("# ")) {
        if let Some(row) = parse(&mut line.split(' ')) {
            rows.entry(name(&row)).or_default().push(row);
        }
    }
    rows
}

fn volatility(letter: &str) -> Volatility {
    match letter {
        "i" => Volatility::Immutable,
        "s" => Volatility::Stable,
        _ => Volatility::Volatile,
    }
}

fn parse_operator(fields: &mut std::str::Split<'static, char>) -> Option<Operator> {
    let oid = fields.next()?.parse().ok()?;
    let name = fields.next()?;
    let left = BaseType::from_type_name(fields.next()?);
    let right = BaseType::from_type_name(fields.next()?)?;
    let result = BaseType::from_type_name(fields.next()?)?;
    let function = fields.next()?;
    let volatility = volatility(fields.next()?);
    let compare = CompareOp::from_name(name).filter(|_| result == BaseType::Bool);
    let eval = super::arithmetic::find(name, left, right)?;
    Some(Operator { oid, name, left, right, result, function, volatility, compare, eval })
}

fn parse_function(fields: &mut std::str::Split<'static, char>) -> Option<Function> {
    let oid = fields.next()?.parse().ok()?;
    let name = fields.next()?;
    let kind = match fields.next()? {
        "f" => FunctionKind::Scalar,
        "s" => FunctionKind::SetReturning,
        "w" => FunctionKind::Window,
        _ => FunctionKind::Aggregate,
    };
    let volatility = volatility(fields.next()?);
    let strict = fields.next()? == "t";
    let variadic = BaseType::from_type_name(fields.next()?);
    let defaults = fields.next()?.parse().ok()?;
    let result = BaseType::from_type_name(fields.next()?)?;
    let args = fields.map(BaseType::from_type_name).collect::<Option<Vec<_>>>()?;
    let eval = if kind == FunctionKind::Scalar {
        // A function without an implementation does not exist.
        Some(super::function::find(name, &args)?)
    } else {
        None
    };
    Some(Function { oid, name, kind, volatility, strict, variadic, defaults, result, args, eval })
}
