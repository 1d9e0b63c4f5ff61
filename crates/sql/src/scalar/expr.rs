//! The bound expression: every name resolved, every type known.
//!
//! Invariant: operands already have the types that their operator wants; [`Expr::Cast`] nodes were
//! put in by [`resolve`](super::resolve). Evaluation therefore never looks up anything by name.

use std::fmt::Debug;
use std::sync::Arc;

use rustydb_types::datatype::DataType;
use rustydb_types::value::Value;

use super::EvalContext;
use super::cast::CastMethod;
use super::catalogue::{Function, Operator, Volatility};
use crate::bind::types::BoundDomain;
use crate::error::SqlError;

/// A bound scalar expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// A constant.
    Const {
        /// Its value.
        value: Value,
        /// Its type; `unknown` for an untyped literal.
        ty: DataType,
    },
    /// All columns of a relation as one record.
    WholeRow {
        /// Its columns.
        fields: Vec<Expr>,
        /// Whether it is NULL when all of its columns are, as those of the missing side of an outer join.
        nullable: bool,
        /// The record's type, which knows the names.
        ty: DataType,
    },
    /// A field of a record.
    Field {
        /// The record.
        record: Box<Expr>,
        /// Which field, from 0.
        index: usize,
        /// The field's type.
        ty: DataType,
    },
    /// A column of the input row.
    Column {
        /// Position in the row, from 0.
        index: usize,
        /// Its type.
        ty: DataType,
    },
    /// A column of the enclosing query's row.
    Outer {
        /// Position in [`EvalContext::outer`], from 0.
        index: usize,
        /// Its type.
        ty: DataType,
    },
    /// A parameter.
    Param {
        /// Position from 0: `$1` is 0.
        index: usize,
        /// Its type; `unknown` until something coerces it.
        ty: DataType,
    },
    /// True when all are; stops at the first false.
    And(Vec<Expr>),
    /// True when one is; stops at the first true.
    Or(Vec<Expr>),
    /// Negation of three-valued logic.
    Not(Box<Expr>),
    /// `IS [NOT] NULL`
    IsNull {
        /// What is tested.
        input: Box<Expr>,
        /// `IS NOT NULL`.
        negated: bool,
    },
    /// `IS [NOT] TRUE | FALSE | UNKNOWN`
    IsBool {
        /// What is tested.
        input: Box<Expr>,
        /// Against what.
        test: BoolTest,
        /// With `NOT`.
        negated: bool,
    },
    /// A comparison in the type's default order.
    Compare {
        /// Which one.
        op: CompareOp,
        /// Left operand.
        left: Box<Expr>,
        /// Right operand, of a type with the same order.
        right: Box<Expr>,
    },
    /// `IS [NOT] DISTINCT FROM`
    Distinct {
        /// Left operand.
        left: Box<Expr>,
        /// Right operand.
        right: Box<Expr>,
        /// `IS NOT DISTINCT FROM`.
        negated: bool,
    },
    /// A strict operator with two operands.
    Binary {
        /// Its row in the catalogue.
        operator: &'static Operator,
        /// Left operand.
        left: Box<Expr>,
        /// Right operand.
        right: Box<Expr>,
        /// Type of the result.
        ty: DataType,
    },
    /// A strict prefix operator.
    Unary {
        /// Its row in the catalogue.
        operator: &'static Operator,
        /// The operand.
        input: Box<Expr>,
        /// Type of the result.
        ty: DataType,
    },
    /// A function call.
    Call {
        /// Its row in the catalogue.
        function: &'static Function,
        /// The arguments, defaults and variadic ones spread out.
        args: Vec<Expr>,
        /// Types of the arguments.
        arg_types: Vec<DataType>,
        /// Type of the result.
        ty: DataType,
    },
    /// A conversion.
    Cast {
        /// What is converted.
        input: Box<Expr>,
        /// How.
        method: CastMethod,
        /// From which type.
        from: DataType,
        /// Into which type.
        ty: DataType,
        /// An explicit cast cuts strings silently.
        explicit: bool,
    },
    /// `CASE WHEN ... THEN ... ELSE ... END`
    Case {
        /// Conditions and results.
        branches: Vec<(Expr, Expr)>,
        /// The result when no condition is true.
        otherwise: Option<Box<Expr>>,
        /// Type of the result.
        ty: DataType,
    },
    /// The first that is not null.
    Coalesce {
        /// Candidates of one type.
        args: Vec<Expr>,
        /// Their type.
        ty: DataType,
    },
    /// NULL when the condition is true, else the value.
    NullIf {
        /// `left = right`.
        condition: Box<Expr>,
        /// `left`.
        value: Box<Expr>,
    },
    /// `GREATEST` or `LEAST`, which skip nulls.
    Extreme {
        /// Candidates of one type.
        args: Vec<Expr>,
        /// `GREATEST`.
        greatest: bool,
        /// Their type.
        ty: DataType,
    },
    /// `input [NOT] IN (list)`, all of one comparable type.
    InList {
        /// What is searched.
        input: Box<Expr>,
        /// Where.
        list: Vec<Expr>,
        /// `NOT IN`.
        negated: bool,
    },
    /// `left operator ANY | ALL (array)`
    Quantified {
        /// Comparison of `row[0]` (left) and `row[1]` (an element).
        comparison: Box<Expr>,
        /// Left operand.
        left: Box<Expr>,
        /// The array.
        array: Box<Expr>,
        /// `ALL`, else `ANY`.
        all: bool,
    },
    /// `ARRAY[...]`; elements that are arrays themselves add a dimension.
    Array {
        /// The elements.
        elements: Vec<Expr>,
        /// Type of the array.
        ty: DataType,
    },
    /// `array[i][j]`
    Subscript {
        /// The array.
        array: Box<Expr>,
        /// One subscript per dimension.
        indexes: Vec<Expr>,
        /// Type of the element.
        ty: DataType,
    },
    /// `array[from:to]...`
    Slice {
        /// The array.
        array: Box<Expr>,
        /// First and last subscript of each dimension, where they are given.
        bounds: Vec<(Option<Expr>, Option<Expr>)>,
        /// Type of the result.
        ty: DataType,
    },
    /// A value that is brought to a domain: it stays as it is, or is refused.
    Domain {
        /// The value, of the domain's type.
        input: Box<Expr>,
        /// The domain.
        domain: Arc<BoundDomain>,
    },
    /// `ROW(...)`
    Row(Vec<Expr>),
    /// A subquery that yields one value.
    Subquery(Arc<dyn SubqueryExpr>),
}

/// A subquery inside an expression; the executor implements it.
pub trait SubqueryExpr: Debug + Send + Sync {
    /// Type of its value.
    fn ty(&self) -> DataType;
    /// Its value for one row of the enclosing query.
    ///
    /// # Errors
    /// Whatever the subquery fails with; 21000 when it yields more than one row.
    fn eval(&self, row: &[Value], ctx: &EvalContext<'_>) -> Result<Value, SqlError>;
    /// What tells it from the other subqueries of the statement.
    fn id(&self) -> usize;
    /// What it is, for who knows.
    fn as_any(&self) -> &dyn std::any::Any;
    /// Visits the expressions over the enclosing query's row.
    fn columns(&self, visit: &mut dyn FnMut(&Expr));
    /// The same subquery with its expressions over the enclosing query's row rebuilt.
    fn with_inputs(&self, map: &mut dyn FnMut(Expr) -> Expr) -> Arc<dyn SubqueryExpr>;
}

/// Two are equal when they are the same subquery of the statement and read the same of the rows around it.
impl PartialEq for dyn SubqueryExpr {
    fn eq(&self, other: &dyn SubqueryExpr) -> bool {
        fn read(query: &dyn SubqueryExpr) -> Vec<Expr> {
            let mut read = Vec::new();
            query.columns(&mut |expr| read.push(expr.clone()));
            read
        }
        std::ptr::addr_eq(self, other) || (self.id() == other.id() && read(self) == read(other))
    }
}

/// What `IS` tests a boolean against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoolTest {
    /// `IS TRUE`
    True,
    /// `IS FALSE`
    False,
    /// `IS UNKNOWN`
    Unknown,
}

/// The six comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareOp {
    /// `=`
    Eq,
    /// `<>`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
}

impl CompareOp {
    /// The comparison with this operator name.
    pub fn from_name(name: &str) -> Option<CompareOp> {
        Some(match name {
            "=" => CompareOp::Eq,
            "<>" | "!=" => CompareOp::Ne,
            "<" => CompareOp::Lt,
            "<=" => CompareOp::Le,
            ">" => CompareOp::Gt,
            ">=" => CompareOp::Ge,
            _ => return None,
        })
    }

    /// The operator's name.
    pub fn name(self) -> &'static str {
        match self {
            CompareOp::Eq => "=",
            CompareOp::Ne => "<>",
            CompareOp::Lt => "<",
            CompareOp::Le => "<=",
            CompareOp::Gt => ">",
            CompareOp::Ge => ">=",
        }
    }

    /// The comparison with its operands exchanged.
    pub fn swapped(self) -> CompareOp {
        match self {
            CompareOp::Lt => CompareOp::Gt,
            CompareOp::Le => CompareOp::Ge,
            CompareOp::Gt => CompareOp::Lt,
            CompareOp::Ge => CompareOp::Le,
            same => same,
        }
    }

    /// Whether an order satisfies the comparison.
    pub fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            CompareOp::Eq => order.is_eq(),
            CompareOp::Ne => order.is_ne(),
            CompareOp::Lt => order.is_lt(),
            CompareOp::Le => order.is_le(),
            CompareOp::Gt => order.is_gt(),
            CompareOp::Ge => order.is_ge(),
        }
    }
}

impl Expr {
    /// A constant of a type.
    pub fn constant(value: Value, ty: DataType) -> Expr {
        Expr::Const { value, ty }
    }

    /// An untyped string literal.
    pub fn literal(text: &str) -> Expr {
        Expr::Const { value: Value::text(text), ty: DataType::UNKNOWN }
    }

    /// An untyped NULL.
    pub fn null() -> Expr {
        Expr::Const { value: Value::Null, ty: DataType::UNKNOWN }
    }

    /// A number as the lexer sees it: integer, bigint or numeric by its size and form.
    ///
    /// # Errors
    /// 22003 for a number that `numeric` cannot hold.
    pub fn number(text: &str) -> Result<Expr, SqlError> {
        if let Ok(n) = text.parse::<i32>() {
            return Ok(Expr::constant(Value::Int4(n), DataType::INT4));
        }
        if let Ok(n) = text.parse::<i64>() {
            return Ok(Expr::constant(Value::Int8(n), DataType::INT8));
        }
        let number = text.parse()?;
        Ok(Expr::constant(Value::Numeric(Box::new(number)), DataType::NUMERIC))
    }

    /// True when all are; one alone stays itself, none is true.
    pub fn and(mut parts: Vec<Expr>) -> Expr {
        if parts.len() == 1 {
            return parts.remove(0);
        }
        if parts.is_empty() {
            return Expr::constant(Value::Bool(true), DataType::BOOL);
        }
        let mut flat = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Expr::And(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        Expr::And(flat)
    }

    /// Type of the value.
    pub fn ty(&self) -> DataType {
        match self {
            Expr::Const { ty, .. }
            | Expr::Column { ty, .. }
            | Expr::Outer { ty, .. }
            | Expr::Param { ty, .. }
            | Expr::Binary { ty, .. }
            | Expr::Unary { ty, .. }
            | Expr::Call { ty, .. }
            | Expr::Cast { ty, .. }
            | Expr::Case { ty, .. }
            | Expr::Coalesce { ty, .. }
            | Expr::Extreme { ty, .. }
            | Expr::Array { ty, .. }
            | Expr::Subscript { ty, .. } => *ty,
            Expr::And(_)
            | Expr::Or(_)
            | Expr::Not(_)
            | Expr::IsNull { .. }
            | Expr::IsBool { .. }
            | Expr::Compare { .. }
            | Expr::Distinct { .. }
            | Expr::InList { .. }
            | Expr::Quantified { .. } => DataType::BOOL,
            Expr::NullIf { value, .. } => value.ty(),
            Expr::Domain { input, .. } => input.ty(),
            Expr::Slice { ty, .. } => *ty,
            Expr::Row(_) => DataType::RECORD,
            Expr::WholeRow { ty, .. } | Expr::Field { ty, .. } => *ty,
            Expr::Subquery(query) => query.ty(),
        }
    }

    /// Calls `visit` on each direct operand.
    pub fn children(&self, visit: &mut dyn FnMut(&Expr)) {
        match self {
            Expr::Const { .. } | Expr::Column { .. } | Expr::Outer { .. } | Expr::Param { .. } => {}
            Expr::And(parts) | Expr::Or(parts) | Expr::Row(parts) | Expr::WholeRow { fields: parts, .. } => {
                parts.iter().for_each(visit);
            }
            Expr::Not(input)
            | Expr::IsNull { input, .. }
            | Expr::IsBool { input, .. }
            | Expr::Unary { input, .. }
            | Expr::Field { record: input, .. }
            | Expr::Domain { input, .. }
            | Expr::Cast { input, .. } => visit(input),
            Expr::Compare { left, right, .. }
            | Expr::Distinct { left, right, .. }
            | Expr::Binary { left, right, .. } => {
                visit(left);
                visit(right);
            }
            Expr::Call { args, .. }
            | Expr::Coalesce { args, .. }
            | Expr::Extreme { args, .. }
            | Expr::Array { elements: args, .. } => args.iter().for_each(visit),
            Expr::Case { branches, otherwise, .. } => {
                for (condition, result) in branches {
                    visit(condition);
                    visit(result);
                }
                if let Some(otherwise) = otherwise {
                    visit(otherwise);
                }
            }
            Expr::NullIf { condition, value } => {
                visit(condition);
                visit(value);
            }
            Expr::InList { input, list, .. } => {
                visit(input);
                list.iter().for_each(visit);
            }
            // The comparison is over a row of its own, so it is no operand of this row.
            Expr::Quantified { left, array, .. } => {
                visit(left);
                visit(array);
            }
            Expr::Subscript { array, indexes, .. } => {
                visit(array);
                indexes.iter().for_each(visit);
            }
            Expr::Slice { array, bounds, .. } => {
                visit(array);
                bounds.iter().flat_map(|(from, to)| from.iter().chain(to)).for_each(visit);
            }
            Expr::Subquery(query) => query.columns(visit),
        }
    }

    /// Calls `visit` on this expression and everything below, parents first.
    pub fn visit(&self, visit: &mut dyn FnMut(&Expr)) {
        visit(self);
        self.children(&mut |child| child.visit(visit));
    }

    /// Rebuilds the expression bottom up; of a subquery, what it reads of this row.
    #[must_use]
    pub fn transform(self, change: &mut dyn FnMut(Expr) -> Expr) -> Expr {
        #[expect(clippy::boxed_local, reason = "the box is the expression's own field")]
        fn one(input: Box<Expr>, change: &mut dyn FnMut(Expr) -> Expr) -> Box<Expr> {
            Box::new((*input).transform(change))
        }
        fn all(inputs: Vec<Expr>, change: &mut dyn FnMut(Expr) -> Expr) -> Vec<Expr> {
            inputs.into_iter().map(|input| input.transform(change)).collect()
        }
        let rebuilt = match self {
            leaf @ (Expr::Const { .. } | Expr::Column { .. } | Expr::Outer { .. } | Expr::Param { .. }) => {
                leaf
            }
            Expr::Subquery(query) => Expr::Subquery(query.with_inputs(&mut |input| input.transform(change))),
            Expr::And(parts) => Expr::And(all(parts, change)),
            Expr::Or(parts) => Expr::Or(all(parts, change)),
            Expr::Row(parts) => Expr::Row(all(parts, change)),
            Expr::WholeRow { fields, nullable, ty } => {
                Expr::WholeRow { fields: all(fields, change), nullable, ty }
            }
            Expr::Field { record, index, ty } => Expr::Field { record: one(record, change), index, ty },
            Expr::Not(input) => Expr::Not(one(input, change)),
            Expr::IsNull { input, negated } => Expr::IsNull { input: one(input, change), negated },
            Expr::IsBool { input, test, negated } => {
                Expr::IsBool { input: one(input, change), test, negated }
            }
            Expr::Compare { op, left, right } => {
                Expr::Compare { op, left: one(left, change), right: one(right, change) }
            }
            Expr::Distinct { left, right, negated } => {
                Expr::Distinct { left: one(left, change), right: one(right, change), negated }
            }
            Expr::Binary { operator, left, right, ty } => {
                Expr::Binary { operator, left: one(left, change), right: one(right, change), ty }
            }
            Expr::Unary { operator, input, ty } => Expr::Unary { operator, input: one(input, change), ty },
            Expr::Call { function, args, arg_types, ty } => {
                Expr::Call { function, args: all(args, change), arg_types, ty }
            }
            Expr::Cast { input, method, from, ty, explicit } => {
                Expr::Cast { input: one(input, change), method, from, ty, explicit }
            }
            Expr::Case { branches, otherwise, ty } => Expr::Case {
                branches: branches
                    .into_iter()
                    .map(|(when, then)| (when.transform(change), then.transform(change)))
                    .collect(),
                otherwise: otherwise.map(|expr| one(expr, change)),
                ty,
            },
            Expr::Coalesce { args, ty } => Expr::Coalesce { args: all(args, change), ty },
            Expr::NullIf { condition, value } => {
                Expr::NullIf { condition: one(condition, change), value: one(value, change) }
            }
            Expr::Domain { input, domain } => Expr::Domain { input: one(input, change), domain },
            Expr::Extreme { args, greatest, ty } => Expr::Extreme { args: all(args, change), greatest, ty },
            Expr::InList { input, list, negated } => {
                Expr::InList { input: one(input, change), list: all(list, change), negated }
            }
            Expr::Quantified { comparison, left, array, all } => {
                Expr::Quantified { comparison, left: one(left, change), array: one(array, change), all }
            }
            Expr::Array { elements, ty } => Expr::Array { elements: all(elements, change), ty },
            Expr::Subscript { array, indexes, ty } => {
                Expr::Subscript { array: one(array, change), indexes: all(indexes, change), ty }
            }
            Expr::Slice { array, bounds, ty } => Expr::Slice {
                array: one(array, change),
                bounds: bounds
                    .into_iter()
                    .map(|(from, to)| {
                        let from = from.map(|bound| bound.transform(change));
                        (from, to.map(|bound| bound.transform(change)))
                    })
                    .collect(),
                ty,
            },
        };
        change(rebuilt)
    }

    /// Renumbers the columns of the input row.
    #[must_use]
    pub fn map_columns(self, renumber: &mut dyn FnMut(usize) -> usize) -> Expr {
        self.transform(&mut |expr| match expr {
            Expr::Column { index, ty } => Expr::Column { index: renumber(index), ty },
            other => other,
        })
    }

    /// The least stable part decides.
    pub fn volatility(&self) -> Volatility {
        let mut most = Volatility::Immutable;
        self.visit(&mut |expr| {
            let own = match expr {
                Expr::Call { function, .. } => function.volatility,
                Expr::Binary { operator, .. } | Expr::Unary { operator, .. } => operator.volatility,
                Expr::Cast { from, ty, .. } => super::cast::volatility(*from, *ty),
                // A value that is refused is refused when it is computed, not before.
                Expr::Domain { .. } => Volatility::Stable,
                Expr::Subquery(_) => Volatility::Volatile,
                _ => Volatility::Immutable,
            };
            most = most.max(own);
        });
        most
    }

    /// Two evaluations in one statement may differ.
    pub fn is_volatile(&self) -> bool {
        self.volatility() == Volatility::Volatile
    }

    /// Values of the row around the query may matter.
    pub fn looks_outside(&self) -> bool {
        let mut looks = false;
        self.visit(&mut |expr| looks |= matches!(expr, Expr::Outer { .. } | Expr::Subquery(_)));
        looks
    }

    /// Neither the row, parameters nor the session matter.
    pub fn is_constant(&self) -> bool {
        let mut constant = self.volatility() == Volatility::Immutable;
        self.visit(&mut |expr| {
            constant &= !matches!(
                expr,
                Expr::Column { .. } | Expr::Outer { .. } | Expr::Param { .. } | Expr::Subquery(_)
            );
        });
        constant
    }
}
