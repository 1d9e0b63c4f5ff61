//! Calls that SQL spells in ways of its own: named arguments, OVERLAPS, clocks with a precision, BETWEEN SYMMETRIC.

use rustydb_types::datatype::DataType;
use sqlparser::ast::{
    BinaryOperator, Expr as AstExpr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    Value as AstValue,
};

use super::context::Binder;
use super::errors::{at, fail, syntax, unsupported};
use super::scope::Resolve;
use super::select::strip;
use crate::error::{SqlError, SqlState};
use crate::parse::{is_symmetric, is_variadic};
use crate::scalar::Expr;

/// Functions whose parameters have names, and what a parameter is that is left out, if it may be.
const PARAMETERS: &[(&str, &[&str], Option<&str>)] = &[
    ("make_interval", &["years", "months", "weeks", "days", "hours", "mins", "secs"], Some("0")),
    ("make_date", &["year", "month", "day"], None),
    ("make_time", &["hour", "min", "sec"], None),
    ("make_timestamp", &["year", "month", "mday", "hour", "min", "sec"], None),
    ("make_timestamptz", &["year", "month", "mday", "hour", "min", "sec", "timezone"], None),
    ("parse_ident", &["str", "strict"], None),
];

/// The name and value of an argument that is written with its name.
fn named(arg: &FunctionArg) -> Option<(&Ident, &AstExpr)> {
    match arg {
        FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. }
        | FunctionArg::ExprNamed {
            name: AstExpr::Identifier(name), arg: FunctionArgExpr::Expr(expr), ..
        } => Some((name, expr)),
        FunctionArg::Unnamed(FunctionArgExpr::Expr(AstExpr::BinaryOp {
            left,
            op: BinaryOperator::Assignment,
            right,
        })) => match left.as_ref() {
            AstExpr::Identifier(name) => Some((name, right)),
            _ => None,
        },
        _ => None,
    }
}

/// Whether an argument is written with its name.
pub(crate) fn is_named(arg: &FunctionArg) -> bool {
    named(arg).is_some() || !matches!(arg, FunctionArg::Unnamed(_))
}

impl Binder<'_> {
    /// A call whose last argument is VARIADIC: the elements of an array are arguments of their own. `None` for others.
    ///
    /// # Errors
    /// 0A000 where the function takes no array instead and the array is not written out.
    pub(crate) fn bind_variadic(
        &self,
        function: &Function,
        name: &Ident,
        list: &[FunctionArg],
        place: &dyn Resolve,
    ) -> Result<Option<Expr>, SqlError> {
        let Some((last, before)) = list.split_last() else { return Ok(None) };
        let Some((_, array)) = named(last).filter(|(label, _)| is_variadic(label)) else { return Ok(None) };
        let bind = |args: Vec<FunctionArg>| {
            let mut plain = function.clone();
            if let FunctionArguments::List(list) = &mut plain.args {
                list.args = args;
            }
            self.bind_expr(&AstExpr::Function(plain), place).map(Some)
        };
        if let AstExpr::Array(written) = strip(array) {
            let elements = written
                .elem
                .iter()
                .map(|element| FunctionArg::Unnamed(FunctionArgExpr::Expr(element.clone())));
            return bind(before.iter().cloned().chain(elements).collect());
        }
        // Joining the elements is what these two do, with nothing or with their first argument between.
        let separator = match (name.value.as_str(), before) {
            ("concat", []) => Expr::literal(""),
            ("concat_ws", [FunctionArg::Unnamed(FunctionArgExpr::Expr(separator))]) => {
                self.bind_expr(separator, place)?
            }
            _ => {
                return Err(unsupported(format!(
                    "VARIADIC with an array that is computed, in {}",
                    name.value
                )));
            }
        };
        let args = vec![self.bind_expr(array, place)?, separator];
        self.function(&super::expr::simple_name("array_to_string"), args).map(Some)
    }

    /// The same call with every argument in its place.
    ///
    /// # Errors
    /// 42601 for a misplaced or repeated argument, 42883 for a name that the function does not have.
    pub(crate) fn positional(
        &self,
        function: &Function,
        name: &Ident,
        list: &[FunctionArg],
        place: &dyn Resolve,
    ) -> Result<Function, SqlError> {
        let mut seen: Vec<&Ident> = Vec::new();
        let mut given: Vec<(Option<&Ident>, &AstExpr)> = Vec::new();
        for arg in list {
            if let Some((name, expr)) = named(arg) {
                if seen.iter().any(|known| known.value == name.value) {
                    let message = format!("argument name \"{}\" used more than once", name.value);
                    return Err(at(syntax(message), name));
                }
                seen.push(name);
                given.push((Some(name), expr));
                continue;
            }
            match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) if seen.is_empty() => {
                    given.push((None, expr))
                }
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => {
                    return Err(at(syntax("positional argument cannot follow named argument"), expr));
                }
                _ => return Err(unsupported("this function argument")),
            }
        }
        let missing = || {
            let mut types = Vec::new();
            for (label, expr) in &given {
                let ty = self.bind_expr(expr, place)?.ty().base;
                types.push(label.map_or_else(|| ty.to_string(), |label| format!("{} => {ty}", label.value)));
            }
            Err(fail(
                SqlState::UNDEFINED_FUNCTION,
                format!("function {}({}) does not exist", name.value, types.join(", ")),
            )
            .with_hint("No function matches the given name and argument types. You might need to add explicit type casts."))
        };
        let Some((_, parameters, default)) = PARAMETERS.iter().find(|(known, _, _)| *known == name.value)
        else {
            return missing();
        };
        let mut slots: Vec<Option<AstExpr>> = vec![None; parameters.len()];
        for (index, (label, expr)) in given.iter().enumerate() {
            let index = match label {
                None => Some(index),
                Some(label) => parameters.iter().position(|parameter| *parameter == label.value),
            };
            match index.and_then(|index| slots.get_mut(index)) {
                Some(slot) if slot.is_none() => *slot = Some((*expr).clone()),
                _ => return missing(),
            }
        }
        // What is missing at the end may have a default of its own.
        while slots.last().is_some_and(Option::is_none) {
            slots.pop();
        }
        let mut args = Vec::with_capacity(slots.len());
        for slot in slots {
            let expr = match (slot, default) {
                (Some(expr), _) => expr,
                (None, Some(default)) => AstExpr::value(AstValue::Number((*default).to_owned(), false)),
                (None, None) => return missing(),
            };
            args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)));
        }
        let mut placed = function.clone();
        if let FunctionArguments::List(list) = &mut placed.args {
            list.args = args;
        }
        Ok(placed)
    }

    /// `(start, end) OVERLAPS (start, end)`
    pub(crate) fn bind_overlaps(
        &self,
        left: &AstExpr,
        right: &AstExpr,
        place: &dyn Resolve,
    ) -> Result<Expr, SqlError> {
        let mut args = Vec::with_capacity(4);
        for (side, expr) in [("left", left), ("right", right)] {
            let parts: &[AstExpr] = match expr {
                AstExpr::Tuple(parts) => parts,
                other => std::slice::from_ref(other),
            };
            if parts.len() != 2 {
                let message = format!("wrong number of parameters on {side} side of OVERLAPS expression");
                return Err(at(syntax(message), expr));
            }
            for part in parts {
                args.push(self.bind_expr(part, place)?);
            }
        }
        self.function(&super::expr::simple_name("overlaps"), args).map_err(|error| at(error, left))
    }

    /// `current_timestamp(3)` and its kin; `None` for other calls.
    pub(crate) fn bind_precise_clock(&self, name: &str, args: &[&AstExpr]) -> Result<Option<Expr>, SqlError> {
        let target = match name {
            "current_timestamp" => "timestamp(?) with time zone",
            "localtimestamp" => "timestamp(?)",
            "localtime" => "time(?)",
            _ => return Ok(None),
        };
        let [AstExpr::Value(value)] = args else { return Ok(None) };
        let AstValue::Number(digits, _) = &value.value else { return Ok(None) };
        // More digits than six are as many as there are.
        let digits = digits.parse::<u32>().map_or(6, |digits| digits.min(6));
        let target = DataType::parse(&target.replace('?', &digits.to_string()))
            .ok_or_else(|| SqlError::internal("a clock's type has no precision"))?;
        self.bind_clock(name)?.map(|clock| self.cast(clock, target)).transpose()
    }

    /// BETWEEN SYMMETRIC, whose bounds may stand in either order; `None` when `low` is that of a plain BETWEEN.
    pub(crate) fn bind_symmetric(
        &self,
        input: &AstExpr,
        low: &AstExpr,
        high: &AstExpr,
        negated: bool,
        place: &dyn Resolve,
    ) -> Result<Option<Expr>, SqlError> {
        let AstExpr::Function(marker) = low else { return Ok(None) };
        let FunctionArguments::List(list) = &marker.args else { return Ok(None) };
        let ([name], [FunctionArg::Unnamed(FunctionArgExpr::Expr(low))]) =
            (marker.name.0.as_slice(), list.args.as_slice())
        else {
            return Ok(None);
        };
        if !name.as_ident().is_some_and(is_symmetric) {
            return Ok(None);
        }
        let bind = |expr: &AstExpr| self.bind_expr(expr, place);
        let (input, low, high) = (bind(input)?, bind(strip(low))?, bind(high)?);
        let upward = self.between(input.clone(), low.clone(), high.clone(), negated)?;
        let downward = self.between(input, high, low, negated)?;
        Ok(Some(if negated { Expr::and(vec![upward, downward]) } else { Expr::Or(vec![upward, downward]) }))
    }
}
