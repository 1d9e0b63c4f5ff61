//! Resolution of operators, functions and types for the binder, which adds what only it knows: parameter types, the
//! names of the search path, and the functions that SQL spells with special syntax.

use rustydb_types::datatype::{BaseType, Category, DataType};
use rustydb_types::value::Value;
use sqlparser::ast::{Expr as AstExpr, Ident, ObjectName};

use super::context::Binder;
use super::errors::fail;
use super::query::is_unknown;
use super::scope::Resolve;
use crate::error::{SqlError, SqlState};
use crate::plan::TableFunction;
use crate::scalar::catalogue::Catalogue;
use crate::scalar::{self, AggregateFunction, CastContext, Expr, resolve};

/// A function that yields rows, with its arguments and the type of its values.
pub(crate) type BoundTableFunction = (TableFunction, Vec<Expr>, DataType);

impl Binder<'_> {
    /// Notes the types that resolution gave to parameters.
    pub(super) fn settle(&self, expr: Expr) -> Expr {
        if !self.params.borrow().is_empty() {
            expr.visit(&mut |part| {
                if let Expr::Param { index, ty } = part
                    && !ty.is_unknown()
                {
                    self.set_param_type(*index, *ty);
                }
            });
        }
        expr
    }

    /// A binary operator.
    pub(crate) fn operator(&self, name: &str, left: Expr, right: Expr) -> Result<Expr, SqlError> {
        Ok(self.settle(scalar::resolve_operator(name, left, right)?))
    }

    /// A prefix operator.
    pub(crate) fn unary_operator(&self, name: &str, operand: Expr) -> Result<Expr, SqlError> {
        Ok(self.settle(scalar::resolve_unary(name, operand)?))
    }

    /// A function by its name, which may be qualified with `pg_catalog`.
    pub(crate) fn function(&self, name: &ObjectName, mut args: Vec<Expr>) -> Result<Expr, SqlError> {
        // What drivers declare as the result of a call is an argument of type void, which counts for nothing.
        args.retain(|arg| !matches!(arg, Expr::Param { ty, .. } if *ty == DataType::VOID));
        let (schema, own) = self.split_name(name)?;
        let is_of_schema = own.value.starts_with("_pg_");
        let home = if is_of_schema { "information_schema" } else { "pg_catalog" };
        if schema.map_or(is_of_schema, |schema| schema.value != home) {
            let schema = schema.map_or_else(String::new, |schema| format!("{}.", schema.value));
            let message = format!("function {schema}{} does not exist", own.value);
            return Err(fail(SqlState::UNDEFINED_FUNCTION, message));
        }
        let bound = match (own.value.as_str(), args.len()) {
            ("coalesce", _) => resolve::resolve_coalesce(args)?,
            ("greatest", _) => resolve::resolve_extreme(args, true)?,
            ("least", _) => resolve::resolve_extreme(args, false)?,
            ("nullif", 2) => {
                let mut args = args.into_iter();
                match (args.next(), args.next()) {
                    (Some(left), Some(right)) => resolve::resolve_nullif(left, right)?,
                    _ => return Err(SqlError::internal("nullif lost its arguments")),
                }
            }
            ("current_catalog", 0) => scalar::resolve_function("current_database", args)?,
            (name, _) => with_shape(scalar::resolve_function(name, args)?),
        };
        let bound = self.settle(bound);
        self.note_sequence_call(&bound);
        Ok(bound)
    }

    /// COALESCE.
    pub(crate) fn coalesce(&self, args: Vec<Expr>) -> Result<Expr, SqlError> {
        Ok(self.settle(resolve::resolve_coalesce(args)?))
    }

    /// `IS [NOT] DISTINCT FROM`.
    pub(crate) fn distinct(&self, left: Expr, right: Expr, negated: bool) -> Result<Expr, SqlError> {
        Ok(self.settle(resolve::resolve_distinct(left, right, negated)?))
    }

    /// IN with a list.
    pub(crate) fn in_list(&self, input: Expr, list: Vec<Expr>, negated: bool) -> Result<Expr, SqlError> {
        Ok(self.settle(resolve::resolve_in_list(input, list, negated)?))
    }

    /// BETWEEN.
    pub(crate) fn between(
        &self,
        input: Expr,
        low: Expr,
        high: Expr,
        negated: bool,
    ) -> Result<Expr, SqlError> {
        Ok(self.settle(resolve::resolve_between(input, low, high, negated)?))
    }

    /// A comparison with the elements of an array.
    pub(crate) fn quantified_array(
        &self,
        left: Expr,
        name: &str,
        array: Expr,
        all: bool,
    ) -> Result<Expr, SqlError> {
        Ok(self.settle(resolve::resolve_quantified(name, left, array, all)?))
    }

    /// CASE.
    pub(crate) fn case(
        &self,
        operand: Option<Expr>,
        branches: Vec<(Expr, Expr)>,
        otherwise: Option<Expr>,
    ) -> Result<Expr, SqlError> {
        Ok(self.settle(resolve::resolve_case(operand, branches, otherwise)?))
    }

    /// ARRAY[...], whose elements may be given a type.
    pub(crate) fn array(&self, elements: Vec<Expr>, element: Option<DataType>) -> Result<Expr, SqlError> {
        let Some(element) = element else { return Ok(self.settle(resolve::resolve_array(elements)?)) };
        let elements =
            elements.into_iter().map(|part| self.cast(part, element)).collect::<Result<Vec<_>, _>>()?;
        let ty = element.array().unwrap_or(DataType::TEXT_ARRAY);
        Ok(Expr::Array { elements, ty })
    }

    /// The element of an array.
    pub(crate) fn subscript(&self, array: Expr, index: Expr) -> Result<Expr, SqlError> {
        if array.ty().base == BaseType::Jsonb {
            let is_text = is_unknown(index.ty()) || index.ty().base.category() == Category::String;
            let index = self.coerce_implicit(index, if is_text { DataType::TEXT } else { DataType::INT4 })?;
            return self.operator("->", array, index);
        }
        if array.ty().base == BaseType::Name {
            // A name counts as an array of 64 characters that begins at 0.
            let int4 = |number| Expr::constant(Value::Int4(number), DataType::INT4);
            let index = self.coerce_assignment(index, DataType::INT4, "subscript")?;
            let within = self.between(index.clone(), int4(0), int4(63), false)?;
            let from = self.operator("+", index, int4(1))?;
            let text = self.coerce_implicit(array, DataType::TEXT)?;
            let part = self.function(&super::expr::simple_name("substr"), vec![text, from, int4(1)])?;
            return self.case(None, vec![(within, self.cast(part, DataType::CHAR)?)], None);
        }
        Ok(self.settle(resolve::resolve_subscript(array, vec![index])?))
    }

    /// An explicit cast.
    pub(crate) fn cast(&self, expr: Expr, target: DataType) -> Result<Expr, SqlError> {
        Ok(self.settle(scalar::coerce(expr, target, CastContext::Explicit)?))
    }

    /// Brings an expression to a type where PostgreSQL converts silently.
    pub(crate) fn coerce_implicit(&self, expr: Expr, target: DataType) -> Result<Expr, SqlError> {
        Ok(self.settle(scalar::coerce(expr, target, CastContext::Implicit)?))
    }

    /// Brings an expression to the type of the column it is stored in.
    pub(crate) fn coerce_assignment(
        &self,
        expr: Expr,
        target: DataType,
        column: &str,
    ) -> Result<Expr, SqlError> {
        let from = expr.ty();
        let coerced = scalar::coerce(expr, target, CastContext::Assignment).map_err(|error| {
            let cannot = [SqlState::CANNOT_COERCE, SqlState::DATATYPE_MISMATCH];
            if !cannot.contains(&error.state()) {
                return error;
            }
            fail(
                SqlState::DATATYPE_MISMATCH,
                format!(
                    "column \"{column}\" is of type {} but expression is of type {}",
                    target.base.sql_name(),
                    from.base.sql_name()
                ),
            )
            .with_hint("You will need to rewrite or cast the expression.")
        })?;
        Ok(self.settle(coerced))
    }

    /// The one type that expressions are brought to.
    pub(crate) fn common_type(&self, exprs: &[Expr], what: &str) -> Result<DataType, SqlError> {
        scalar::common_type(&exprs.iter().collect::<Vec<_>>(), what)
    }

    /// Whether a function of this name is an aggregate.
    pub(crate) fn is_aggregate(&self, name: &str) -> bool {
        let aggregate = crate::scalar::catalogue::FunctionKind::Aggregate;
        Catalogue::get().functions(name).iter().any(|function| {
            // The hypothetical ones are told from window functions by WITHIN GROUP alone.
            function.kind == aggregate
                && !scalar::aggregate::OrderedSet::of(function).is_some_and(|kind| kind.is_hypothetical())
        })
    }

    /// An aggregate with its arguments converted; an ordered-set aggregate only where it has WITHIN GROUP.
    pub(crate) fn aggregate(
        &self,
        name: &str,
        args: Vec<Expr>,
        is_ordered: bool,
    ) -> Result<(AggregateFunction, Vec<Expr>), SqlError> {
        let (function, args) = scalar::resolve_aggregate(name, args)?
            .ok_or_else(|| fail(SqlState::UNDEFINED_FUNCTION, format!("aggregate {name} does not exist")))?;
        if !is_ordered && scalar::aggregate::OrderedSet::of(function.function).is_some() {
            let message = format!("WITHIN GROUP is required for ordered-set aggregate {name}");
            return Err(fail(SqlState::WRONG_OBJECT_TYPE, message));
        }
        Ok((function, args.into_iter().map(|arg| self.settle(arg)).collect()))
    }

    /// A function that yields rows; `None` for any other function.
    pub(crate) fn bind_table_function(
        &self,
        name: &Ident,
        args: &[&AstExpr],
        place: &dyn Resolve,
    ) -> Result<Option<BoundTableFunction>, SqlError> {
        let set = crate::scalar::catalogue::FunctionKind::SetReturning;
        if !Catalogue::get().functions(&name.value).iter().any(|function| function.kind == set) {
            return Ok(None);
        }
        let args = args.iter().map(|arg| self.bind_expr(arg, place)).collect::<Result<Vec<_>, _>>()?;
        let call = self.settle(with_shape(scalar::resolve_function(&name.value, args)?));
        match (resolve::set_returning(&call), call) {
            (Some(function), Expr::Call { args, ty, .. }) => {
                Ok(Some((TableFunction::Set(function), args, ty)))
            }
            _ => Ok(None),
        }
    }
}

/// The call of a function whose result is a record of known fields, with a type that knows them.
fn with_shape(call: Expr) -> Expr {
    let Expr::Call { function, args, arg_types, ty } = call else { return call };
    let shape = match function.name {
        "_pg_expandarray" => {
            let element = args.first().and_then(|array| array.ty().element()).unwrap_or(DataType::INT4);
            Some([("x", element), ("n", DataType::INT4)])
        }
        "json_each" => Some([("key", DataType::TEXT), ("value", DataType::JSON)]),
        "jsonb_each" => Some([("key", DataType::TEXT), ("value", DataType::JSONB)]),
        "json_each_text" | "jsonb_each_text" => Some([("key", DataType::TEXT), ("value", DataType::TEXT)]),
        _ => None,
    };
    let ty = shape.map_or(ty, |shape| DataType::record_of(&shape.map(|(name, ty)| (name.to_owned(), ty))));
    Expr::Call { function, args, arg_types, ty }
}
