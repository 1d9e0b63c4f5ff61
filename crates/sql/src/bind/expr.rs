//! Expressions: from parsed to bound.

use std::sync::Arc;

use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::value::Value;
use sqlparser::ast::{
    self, AccessExpr, BinaryOperator, DuplicateTreatment, Expr as AstExpr, Function, FunctionArg,
    FunctionArgExpr, FunctionArguments, Ident, ObjectName, Query, Subscript, UnaryOperator,
    Value as AstValue,
};

use super::context::Binder;
use super::errors::{at, at_literal, at_operator, fail, syntax, unsupported};
use super::from::function_arg;
use super::kept::Written;
use super::query::{is_unknown, require_equality, sort_key};
use super::scope::{Level, Resolve, require_column};
use super::select::strip;
use crate::error::{SqlError, SqlState};
use crate::exec::subquery::{Subquery, SubqueryKind};
use crate::plan::{AggregateCall, TableFunction};
use crate::scalar::{BoolTest, CompareOp, Expr};

/// A sign before a power is that of its base; the parser has it the other way round.
fn power_of_signed(op: &UnaryOperator, operand: &AstExpr) -> Option<AstExpr> {
    if !matches!(op, UnaryOperator::Minus | UnaryOperator::Plus) {
        return None;
    }
    if let AstExpr::UnaryOp { op: inner, expr } = operand {
        return power_of_signed(op, &power_of_signed(inner, expr)?);
    }
    let AstExpr::BinaryOp { left, op: BinaryOperator::PGExp, right } = operand else { return None };
    let signed = AstExpr::UnaryOp { op: *op, expr: left.clone() };
    let left = Box::new(power_of_signed(op, left).unwrap_or(signed));
    Some(AstExpr::BinaryOp { left, op: BinaryOperator::PGExp, right: right.clone() })
}

/// Binds what is within a clause in which no function that yields rows may stand.
fn without_sets<T>(place: &dyn Resolve, clause: &'static str, bind: impl FnOnce() -> T) -> T {
    let before = place.forbid_sets(Some(clause));
    let bound = bind();
    place.forbid_sets(before);
    bound
}

/// The field of a record, by its name.
fn field(record: Expr, name: &Ident) -> Result<Expr, SqlError> {
    let ty = record.ty();
    if ty.base != BaseType::Record {
        let message =
            format!("column notation .{} applied to type {ty}, which is not a composite type", name.value);
        return Err(fail(SqlState::WRONG_OBJECT_TYPE, message));
    }
    let shape = ty.row_shape().unwrap_or_default();
    match shape.iter().position(|(known, _)| *known == name.value) {
        Some(index) => Ok(super::from::fields_of(&record, &shape).swap_remove(index)),
        None => {
            let message = format!("could not identify column \"{}\" in record data type", name.value);
            Err(fail(SqlState::UNDEFINED_COLUMN, message))
        }
    }
}

/// A name with one part.
pub(super) fn simple_name(name: &str) -> ObjectName {
    ObjectName::from(vec![Ident::new(name)])
}

impl Binder<'_> {
    /// Binds an expression that must be a condition.
    ///
    /// # Errors
    /// 42804 when it is not boolean, and as [`Binder::bind_expr`].
    pub(crate) fn bind_condition(
        &self,
        expr: &AstExpr,
        place: &dyn Resolve,
        clause: &str,
    ) -> Result<Expr, SqlError> {
        let bound = self.bind_expr(expr, place).map_err(|error| {
            if error.message() == "aggregate functions are not allowed here" {
                at(
                    fail(
                        SqlState::GROUPING_ERROR,
                        format!("aggregate functions are not allowed in {clause}"),
                    ),
                    expr,
                )
            } else {
                match clause {
                    "WHERE" | "HAVING" | "FILTER" => super::window::not_allowed_in(error, clause),
                    "JOIN/ON" => super::window::not_allowed_in(error, "JOIN conditions"),
                    _ => error,
                }
            }
        })?;
        self.condition(bound, clause).map_err(|error| at(error, expr))
    }

    /// Brings a bound expression to boolean.
    fn condition(&self, bound: Expr, clause: &str) -> Result<Expr, SqlError> {
        let ty = bound.ty();
        if ty.base == BaseType::Bool {
            return Ok(bound);
        }
        if is_unknown(ty) {
            return self.coerce_implicit(bound, DataType::BOOL);
        }
        let message = format!("argument of {clause} must be type boolean, not type {}", ty.base.sql_name());
        Err(fail(SqlState::DATATYPE_MISMATCH, message))
    }

    /// Binds an expression.
    ///
    /// # Errors
    /// As PostgreSQL's analysis.
    pub(crate) fn bind_expr(&self, expr: &AstExpr, place: &dyn Resolve) -> Result<Expr, SqlError> {
        if let Some(grouped) = place.grouped(expr) {
            return Ok(grouped);
        }
        // A long chain of AND or + is a deep tree of the parser's; it is walked without recursion.
        if let AstExpr::BinaryOp { op: op @ (BinaryOperator::And | BinaryOperator::Or), .. } = expr {
            return self.bind_chain(expr, op, place);
        }
        self.nested(|| self.bind_node(expr, place))
    }

    fn bind_chain(
        &self,
        expr: &AstExpr,
        chain: &BinaryOperator,
        place: &dyn Resolve,
    ) -> Result<Expr, SqlError> {
        let mut parts = Vec::new();
        let mut rest = expr;
        while let AstExpr::BinaryOp { left, op, right } = rest
            && op == chain
        {
            parts.push(right.as_ref());
            // Of what is kept, a chain that begins with a chain of its kind is one, with parentheses or without.
            rest = if self.keeps_new() { strip(left) } else { left };
        }
        parts.push(rest);
        let clause = if *chain == BinaryOperator::And { "AND" } else { "OR" };
        let bound = parts
            .into_iter()
            .rev()
            .map(|part| self.bind_condition(part, place, clause))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(match chain {
            BinaryOperator::And if self.kept.is_some() => Expr::And(bound),
            BinaryOperator::And => Expr::and(bound),
            _ => any_of(bound),
        })
    }

    fn bind_node(&self, expr: &AstExpr, place: &dyn Resolve) -> Result<Expr, SqlError> {
        let bind = |expr: &AstExpr| self.bind_expr(expr, place);
        let call = |name: &str, args: Vec<Expr>| {
            self.function(&simple_name(name), args).map_err(|error| at(error, expr))
        };
        let syntax = |name: &str, args: Vec<Expr>| {
            let bound = call(name, args)?;
            self.note_form(&bound, || Written::Syntax);
            Ok(bound)
        };
        match expr {
            AstExpr::Nested(inner) => bind(inner),
            AstExpr::Identifier(name) => self.bind_name(name, place),
            AstExpr::CompoundIdentifier(names) => self.bind_compound(names, place),
            AstExpr::Value(value) => self.bind_literal(&value.value).map_err(|error| at(error, expr)),
            AstExpr::TypedString(typed) => {
                let literal = self.bind_literal(&typed.value.value)?;
                let declared = self.declared_type(&typed.data_type)?;
                self.cast(literal, declared.data_type())
                    .map(|bound| self.literal(bound))
                    .and_then(|bound| self.as_domain(bound, declared))
                    .map_err(|error| at(error, expr))
            }
            AstExpr::Interval(interval) => self.bind_interval(interval, place),
            AstExpr::UnaryOp { op, expr: operand } => {
                self.bind_unary(op, operand, place).map_err(|error| at(error, expr))
            }
            AstExpr::BinaryOp { left, op, right } => self.bind_binary(left, op, right, place),
            AstExpr::IsNull(operand) => Ok(Expr::IsNull { input: Box::new(bind(operand)?), negated: false }),
            AstExpr::IsNotNull(operand) => {
                Ok(Expr::IsNull { input: Box::new(bind(operand)?), negated: true })
            }
            AstExpr::IsTrue(operand) => self.bind_is(operand, BoolTest::True, false, place),
            AstExpr::IsNotTrue(operand) => self.bind_is(operand, BoolTest::True, true, place),
            AstExpr::IsFalse(operand) => self.bind_is(operand, BoolTest::False, false, place),
            AstExpr::IsNotFalse(operand) => self.bind_is(operand, BoolTest::False, true, place),
            AstExpr::IsUnknown(operand) => self.bind_is(operand, BoolTest::Unknown, false, place),
            AstExpr::IsNotUnknown(operand) => self.bind_is(operand, BoolTest::Unknown, true, place),
            AstExpr::IsDistinctFrom(left, right) => self.distinct(bind(left)?, bind(right)?, false),
            AstExpr::IsNotDistinctFrom(left, right) => self.distinct(bind(left)?, bind(right)?, true),
            AstExpr::InList { expr: operand, list, negated } => {
                self.bind_in_list(operand, list, *negated, place)
            }
            AstExpr::InSubquery { expr: operand, subquery, negated } => {
                let bound = self.bind_quantified(operand, "=", subquery, SubqueryKind::Any, place)?;
                Ok(if *negated { negate(bound) } else { bound })
            }
            AstExpr::Between { expr: operand, negated, low, high } => {
                if let Some(bound) = self.bind_symmetric(operand, low, high, *negated, place)? {
                    return Ok(bound);
                }
                self.between(bind(operand)?, bind(low)?, bind(high)?, *negated).map_err(|error| {
                    at(at_literal(error, [operand.as_ref(), low.as_ref(), high.as_ref()]), expr)
                })
            }
            AstExpr::Like { negated, any: false, expr: operand, pattern, escape_char } => self.bind_like(
                if *negated { "!~~" } else { "~~" },
                operand,
                pattern,
                escape_char.as_deref(),
                place,
            ),
            AstExpr::ILike { negated, any: false, expr: operand, pattern, escape_char } => self.bind_like(
                if *negated { "!~~*" } else { "~~*" },
                operand,
                pattern,
                escape_char.as_deref(),
                place,
            ),
            AstExpr::SimilarTo { negated, expr: operand, pattern, escape_char } => {
                let mut args = vec![bind(pattern)?];
                if let Some(escape) = escape_char {
                    args.push(bind(escape)?);
                }
                let pattern = call("similar_to_escape", args)?;
                self.operator(if *negated { "!~" } else { "~" }, bind(operand)?, pattern)
            }
            AstExpr::AnyOp { left, compare_op, right, .. } => {
                self.bind_any_all(left, compare_op, right, SubqueryKind::Any, place)
            }
            AstExpr::AllOp { left, compare_op, right } => {
                self.bind_any_all(left, compare_op, right, SubqueryKind::All, place)
            }
            AstExpr::Cast { expr: operand, data_type, format: None, .. } => {
                let declared = self.declared_type(data_type).map_err(|error| at(error, expr))?;
                let target = declared.data_type();
                // A cast of an array constructor casts its elements, so that an empty one has a type.
                // In a text that was kept, an array that is taken as another one as a whole stands in parentheses.
                let is_whole =
                    self.kept.is_some() && !self.keeps_new() && matches!(**operand, AstExpr::Nested(_));
                if let (AstExpr::Array(array), Some(element)) = (strip(operand), target.base.element())
                    && (!is_whole || array.elem.is_empty())
                {
                    let elements = array.elem.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
                    let array =
                        self.array(elements, Some(DataType { base: element, modifier: target.modifier }));
                    return self.as_domain(array?, declared);
                }
                self.cast(bind(operand)?, target)
                    .map(|bound| self.literal(bound))
                    .and_then(|bound| self.as_domain(bound, declared))
                    .map_err(|error| at(error, expr))
            }
            AstExpr::AtTimeZone { timestamp, time_zone } => {
                syntax("timezone", vec![bind(time_zone)?, bind(timestamp)?])
            }
            AstExpr::Extract { field, expr: operand, .. } => {
                let field = Expr::constant(
                    Value::text(field.to_string().trim_matches(['\'', '"']).to_lowercase()),
                    DataType::TEXT,
                );
                syntax("extract", vec![field, bind(operand)?])
            }
            AstExpr::IsNormalized { expr: operand, form, negated } => {
                let form = form.as_ref().map_or_else(|| "NFC".to_owned(), ToString::to_string);
                let bound = call("is_normalized", vec![bind(operand)?, Expr::literal(&form)])?;
                Ok(if *negated { negate(bound) } else { bound })
            }
            AstExpr::Ceil { expr: operand, .. } => call("ceil", vec![bind(operand)?]),
            AstExpr::Floor { expr: operand, .. } => call("floor", vec![bind(operand)?]),
            AstExpr::Position { expr: needle, r#in } => syntax("position", vec![bind(r#in)?, bind(needle)?]),
            AstExpr::Substring { expr: operand, substring_from, substring_for, special, shorthand } => {
                let name = if *shorthand { "substr" } else { "substring" };
                let mut args = vec![bind(operand)?];
                match substring_from {
                    Some(from) => args.push(bind(from)?),
                    None => args.push(Expr::constant(Value::Int4(1), DataType::INT4)),
                }
                if let Some(count) = substring_for {
                    args.push(bind(count)?);
                }
                let has_words = substring_from.is_some() || substring_for.is_some();
                if *special || *shorthand || !has_words { call(name, args) } else { syntax(name, args) }
            }
            AstExpr::Trim { trim_where, trim_what, expr: operand, trim_characters } => {
                let name = match trim_where {
                    Some(ast::TrimWhereField::Leading) => "ltrim",
                    Some(ast::TrimWhereField::Trailing) => "rtrim",
                    _ => "btrim",
                };
                let mut args = vec![bind(operand)?];
                if let Some(what) = trim_what {
                    args.push(bind(what)?);
                }
                for what in trim_characters.iter().flatten() {
                    args.push(bind(what)?);
                }
                syntax(name, args)
            }
            AstExpr::Overlay { expr: operand, overlay_what, overlay_from, overlay_for } => {
                let mut args = vec![bind(operand)?, bind(overlay_what)?, bind(overlay_from)?];
                if let Some(count) = overlay_for {
                    args.push(bind(count)?);
                }
                syntax("overlay", args)
            }
            // Text is compared by bytes whatever the collation, which is what these two names mean.
            AstExpr::Collate { expr: operand, .. } => bind(operand),
            AstExpr::Case { operand, conditions, else_result, .. } => without_sets(place, "CASE", || {
                self.bind_case(operand.as_deref(), conditions, else_result.as_deref(), place)
            }),
            AstExpr::Exists { subquery, negated } => {
                let bound = self.bind_subquery(subquery, SubqueryKind::Exists, None, place)?;
                Ok(if *negated { negate(bound) } else { bound })
            }
            AstExpr::Subquery(subquery) => self.bind_subquery(subquery, SubqueryKind::Scalar, None, place),
            AstExpr::Function(function) => self.bind_call(function, place).map_err(|error| at(error, expr)),
            AstExpr::Array(array) => {
                let elements = array.elem.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
                self.array(elements, None).map_err(|error| at(at_literal(error, &array.elem), expr))
            }
            AstExpr::Tuple(elements) => {
                let elements = elements.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
                Ok(Expr::Row(elements))
            }
            AstExpr::CompoundFieldAccess { root, access_chain } => {
                // `t.a[i]` is read as the field `a` of `t`: what comes before the first bracket is a column's name.
                let mut name = match &**root {
                    AstExpr::Identifier(first) => vec![first.clone()],
                    _ => Vec::new(),
                };
                let fields = access_chain.iter().map_while(|access| match access {
                    AccessExpr::Dot(AstExpr::Identifier(field)) if !name.is_empty() => Some(field.clone()),
                    _ => None,
                });
                let fields: Vec<Ident> = fields.collect();
                let (root, rest) = if fields.is_empty() {
                    (bind(root)?, access_chain.as_slice())
                } else {
                    let rest = access_chain.get(fields.len()..).unwrap_or_default();
                    name.extend(fields);
                    (bind(&AstExpr::CompoundIdentifier(name))?, rest)
                };
                let mut bound = root;
                let mut rest = rest;
                while let Some((access, behind)) = rest.split_first() {
                    // Subscripts of which one is a range belong together.
                    let subscripts: Vec<&Subscript> = rest
                        .iter()
                        .map_while(|access| match access {
                            AccessExpr::Subscript(subscript) => Some(subscript),
                            AccessExpr::Dot(_) => None,
                        })
                        .collect();
                    if subscripts.iter().any(|one| matches!(one, Subscript::Slice { .. })) {
                        bound = self.slice(bound, &subscripts, place).map_err(|error| at(error, expr))?;
                        rest = rest.get(subscripts.len()..).unwrap_or_default();
                        continue;
                    }
                    if subscripts.len() > 1 && bound.ty().base.element().is_some() {
                        // One for each dimension.
                        let indexes = subscripts.iter().filter_map(|one| match one {
                            Subscript::Index { index } => Some(bind(index)),
                            Subscript::Slice { .. } => None,
                        });
                        let indexes = indexes.collect::<Result<Vec<_>, _>>()?;
                        let element = crate::scalar::resolve::resolve_subscript(bound, indexes);
                        bound = self.settle(element.map_err(|error| at(error, expr))?);
                        rest = rest.get(subscripts.len()..).unwrap_or_default();
                        continue;
                    }
                    rest = behind;
                    bound = match access {
                        AccessExpr::Subscript(Subscript::Index { index }) => {
                            self.subscript(bound, bind(index)?).map_err(|error| {
                                let is_of_index = error.message().starts_with("array subscript");
                                if is_of_index { at(error, index) } else { at(error, expr) }
                            })?
                        }
                        AccessExpr::Dot(AstExpr::Identifier(name)) => {
                            field(bound, name).map_err(|error| at(error, expr))?
                        }
                        _ => return Err(at(unsupported("an array slice"), expr)),
                    };
                }
                Ok(bound)
            }
            _ => Err(at(unsupported("this expression"), expr)),
        }
    }

    /// A part of an array: a single subscript among ranges ends a range from 1.
    fn slice(&self, array: Expr, subscripts: &[&Subscript], place: &dyn Resolve) -> Result<Expr, SqlError> {
        if array.ty().base == BaseType::Jsonb {
            return Err(fail(SqlState::DATATYPE_MISMATCH, "jsonb subscript does not support slices"));
        }
        let bind = |expr: &AstExpr| {
            self.coerce_assignment(self.bind_expr(expr, place)?, DataType::INT4, "subscript")
        };
        let mut bounds = Vec::with_capacity(subscripts.len());
        for subscript in subscripts {
            bounds.push(match subscript {
                Subscript::Index { index } => {
                    (Some(Expr::constant(Value::Int4(1), DataType::INT4)), Some(bind(index)?))
                }
                Subscript::Slice { lower_bound, upper_bound, stride: None } => {
                    (lower_bound.as_ref().map(bind).transpose()?, upper_bound.as_ref().map(bind).transpose()?)
                }
                Subscript::Slice { .. } => return Err(syntax("syntax error at or near \":\"")),
            });
        }
        Ok(self.settle(crate::scalar::resolve::resolve_slice(array, bounds)?))
    }

    /// A bare word: a column, or one of the functions that SQL writes without parentheses.
    fn bind_name(&self, name: &Ident, place: &dyn Resolve) -> Result<Expr, SqlError> {
        if name.quote_style.is_none()
            && matches!(
                name.value.as_str(),
                "current_date"
                    | "current_time"
                    | "current_timestamp"
                    | "localtime"
                    | "localtimestamp"
                    | "current_user"
                    | "session_user"
                    | "user"
                    | "current_role"
                    | "current_catalog"
                    | "current_schema"
            )
            && place.column(None, name)?.is_none()
        {
            let bound = match self.bind_clock(&name.value)? {
                Some(bound) => bound,
                None => self.function(&simple_name(&name.value), Vec::new())?,
            };
            self.note_word(&name.value, &bound);
            return Ok(bound);
        }
        require_column(place, None, name)
    }

    /// Remembers that something was written as a word of SQL.
    fn note_word(&self, name: &str, bound: &Expr) {
        let words = [
            "CURRENT_DATE",
            "CURRENT_TIME",
            "CURRENT_TIMESTAMP",
            "LOCALTIME",
            "LOCALTIMESTAMP",
            "CURRENT_USER",
            "SESSION_USER",
            "USER",
            "CURRENT_ROLE",
            "CURRENT_CATALOG",
            "CURRENT_SCHEMA",
        ];
        if let Some(word) = words.into_iter().find(|word| word.eq_ignore_ascii_case(name)) {
            self.note_form(bound, || Written::Word(word));
        }
    }

    /// The functions of the clock that SQL writes without parentheses; their results are casts of `now()`.
    pub(super) fn bind_clock(&self, name: &str) -> Result<Option<Expr>, SqlError> {
        let target = match name {
            "current_timestamp" => DataType::TIMESTAMPTZ,
            "current_date" => DataType::DATE,
            "localtimestamp" => DataType::TIMESTAMP,
            "localtime" => DataType::TIME,
            "current_time" => return Err(unsupported("type time with time zone")),
            _ => return Ok(None),
        };
        let now = self.function(&simple_name("now"), Vec::new())?;
        self.cast(now, target).map(Some)
    }

    fn bind_compound(&self, names: &[Ident], place: &dyn Resolve) -> Result<Expr, SqlError> {
        match names {
            [relation, name] | [_, relation, name] | [_, _, relation, name] => {
                require_column(place, Some(relation), name)
            }
            _ => Err(syntax("improper qualified name (too many dotted names)")),
        }
    }

    fn bind_literal(&self, value: &AstValue) -> Result<Expr, SqlError> {
        let unknown = |text: &str| Expr::constant(Value::text(text), DataType::from(BaseType::Unknown));
        match value {
            AstValue::Null => Ok(Expr::constant(Value::Null, DataType::from(BaseType::Unknown))),
            AstValue::Boolean(flag) => Ok(self.literal(Expr::constant(Value::Bool(*flag), DataType::BOOL))),
            AstValue::Number(text, _) => self.number_literal(text),
            AstValue::SingleQuotedString(text)
            | AstValue::EscapedStringLiteral(text)
            | AstValue::UnicodeStringLiteral(text)
            | AstValue::NationalStringLiteral(text) => Ok(unknown(text)),
            AstValue::DollarQuotedString(text) => Ok(unknown(&text.value)),
            AstValue::Placeholder(text) if self.kept.is_some() => {
                Err(fail(SqlState::UNDEFINED_PARAMETER, format!("there is no parameter {text}")))
            }
            AstValue::Placeholder(text) => {
                let number = text.strip_prefix('$').and_then(|number| number.parse::<usize>().ok());
                match number {
                    Some(number @ 1..=65_535) => {
                        let index = number - 1;
                        Ok(Expr::Param { index, ty: self.param_type(index) })
                    }
                    _ => Err(fail(SqlState::UNDEFINED_PARAMETER, format!("there is no parameter {text}"))),
                }
            }
            _ => Err(unsupported("this literal")),
        }
    }

    fn bind_interval(&self, interval: &ast::Interval, place: &dyn Resolve) -> Result<Expr, SqlError> {
        let bound = self.bind_expr(&interval.value, place)?;
        let mut name = "interval".to_owned();
        if let Some(first) = &interval.leading_field {
            name.push_str(&format!(" {first}"));
        }
        if let Some(last) = &interval.last_field {
            name.push_str(&format!(" to {last}"));
        }
        if let Some(digits) = interval.fractional_seconds_precision.or(interval.leading_precision) {
            name.push_str(&format!("({digits})"));
        }
        let target = DataType::parse(&name).ok_or_else(|| unsupported("this interval literal"))?;
        self.cast(bound, target).map_err(|error| at(error, interval.value.as_ref()))
    }

    fn bind_unary(
        &self,
        op: &UnaryOperator,
        operand: &AstExpr,
        place: &dyn Resolve,
    ) -> Result<Expr, SqlError> {
        if let Some(power) = power_of_signed(op, operand) {
            return self.bind_expr(&power, place);
        }
        match op {
            UnaryOperator::Not => Ok(negate(self.bind_condition(operand, place, "NOT")?)),
            UnaryOperator::Minus => {
                // The sign belongs to the number, so that the smallest bigint can be written.
                if let AstExpr::Value(value) = operand
                    && let AstValue::Number(text, _) = &value.value
                {
                    return self.number_literal(&format!("-{text}"));
                }
                self.unary_operator("-", self.bind_expr(operand, place)?)
            }
            UnaryOperator::Plus => self.unary_operator("+", self.bind_expr(operand, place)?),
            other => {
                let name = other.to_string();
                self.unary_operator(&name, self.bind_expr(operand, place)?)
            }
        }
    }

    fn bind_binary(
        &self,
        left: &AstExpr,
        op: &BinaryOperator,
        right: &AstExpr,
        place: &dyn Resolve,
    ) -> Result<Expr, SqlError> {
        if *op == BinaryOperator::Overlaps {
            return self.bind_overlaps(left, right, place);
        }
        let name = operator_name(op)?;
        let (bound_left, bound_right) = (self.bind_expr(left, place)?, self.bind_expr(right, place)?);
        self.operator(&name, bound_left, bound_right)
            .map_err(|error| at_operator(at_literal(error, [left, right]), left, &op.to_string(), right))
    }

    fn bind_is(
        &self,
        operand: &AstExpr,
        test: BoolTest,
        negated: bool,
        place: &dyn Resolve,
    ) -> Result<Expr, SqlError> {
        let input = Box::new(self.bind_condition(operand, place, "IS TRUE")?);
        Ok(Expr::IsBool { input, test, negated })
    }

    fn bind_in_list(
        &self,
        operand: &AstExpr,
        list: &[AstExpr],
        negated: bool,
        place: &dyn Resolve,
    ) -> Result<Expr, SqlError> {
        let left = self.bind_expr(operand, place)?;
        let items = list.iter().map(|item| self.bind_expr(item, place)).collect::<Result<Vec<_>, _>>()?;
        let is_padded = self.kept.is_some() && left.ty().base == BaseType::Bpchar && items.len() > 1;
        let bound = self
            .in_list(left.clone(), items, negated)
            .map_err(|error| at(at_literal(error, list.iter().chain([operand])), operand))?;
        Ok(if is_padded { super::deparse::padded_list(left, bound, negated) } else { bound })
    }

    fn bind_like(
        &self,
        operator: &str,
        operand: &AstExpr,
        pattern: &AstExpr,
        escape: Option<&AstExpr>,
        place: &dyn Resolve,
    ) -> Result<Expr, SqlError> {
        let left = self.bind_expr(operand, place)?;
        let mut right = self.bind_expr(pattern, place)?;
        if let Some(escape) = escape {
            let escape = self.bind_expr(escape, place)?;
            right = self.function(&simple_name("like_escape"), vec![right, escape])?;
        }
        self.operator(operator, left, right)
            .map_err(|error| at(at_literal(error, [operand, pattern]), operand))
    }

    fn bind_case(
        &self,
        operand: Option<&AstExpr>,
        conditions: &[ast::CaseWhen],
        else_result: Option<&AstExpr>,
        place: &dyn Resolve,
    ) -> Result<Expr, SqlError> {
        let bound = operand.map(|operand| self.bind_expr(operand, place)).transpose()?;
        let mut branches = Vec::with_capacity(conditions.len());
        for when in conditions {
            let condition = match operand {
                Some(_) => self.bind_expr(&when.condition, place)?,
                None => self.bind_condition(&when.condition, place, "CASE/WHEN")?,
            };
            branches.push((condition, self.bind_expr(&when.result, place)?));
        }
        let otherwise = else_result.map(|result| self.bind_expr(result, place)).transpose()?;
        let case = self.case(bound.clone(), branches, otherwise).map_err(|error| {
            let parts = conditions.iter().flat_map(|when| [&when.condition, &when.result]);
            at_literal(error, parts.chain(operand).chain(else_result))
        })?;
        if let Some(bound) = bound {
            self.note_form(&case, || Written::Operand(bound));
        }
        Ok(case)
    }

    fn bind_any_all(
        &self,
        left: &AstExpr,
        op: &BinaryOperator,
        right: &AstExpr,
        kind: SubqueryKind,
        place: &dyn Resolve,
    ) -> Result<Expr, SqlError> {
        let name = operator_name(op)?;
        match strip(right) {
            AstExpr::Subquery(query) => self.bind_quantified(left, &name, query, kind, place),
            array => {
                let (bound_left, array) = (self.bind_expr(left, place)?, self.bind_expr(array, place)?);
                self.quantified_array(bound_left, &name, array, kind == SubqueryKind::All)
                    .map_err(|error| at(error, left))
            }
        }
    }

    /// `left op ANY (subquery)` or ALL; IN is `= ANY`.
    fn bind_quantified(
        &self,
        left: &AstExpr,
        name: &str,
        query: &Query,
        kind: SubqueryKind,
        place: &dyn Resolve,
    ) -> Result<Expr, SqlError> {
        let left = match strip(left) {
            AstExpr::Tuple(elements) => elements
                .iter()
                .map(|element| self.bind_expr(element, place))
                .collect::<Result<Vec<_>, _>>()?,
            left => vec![self.bind_expr(left, place)?],
        };
        self.bind_subquery(query, kind, Some((name, left)), place)
    }

    /// Binds a subquery as an expression.
    fn bind_subquery(
        &self,
        query: &Query,
        kind: SubqueryKind,
        quantified: Option<(&str, Vec<Expr>)>,
        place: &dyn Resolve,
    ) -> Result<Expr, SqlError> {
        self.refuse_kept_query(query, kind)?;
        let level = Level { outer: Some(place), used: std::cell::RefCell::default() };
        let (node, columns) = self.bind_subquery_level(query, &level)?;
        if kind == SubqueryKind::Scalar && columns.len() != 1 {
            return Err(at(syntax("subquery must return only one column"), query));
        }
        let mut operands = Vec::new();
        let mut test = None;
        if let Some((name, left)) = quantified {
            if left.len() != columns.len() {
                let few = if left.len() < columns.len() { "many" } else { "few" };
                return Err(at(syntax(format!("subquery has too {few} columns")), query));
            }
            if left.len() > 1 && name != "=" {
                return Err(unsupported("a row comparison with a subquery other than ="));
            }
            let count = left.len();
            let mut parts = Vec::with_capacity(count);
            for (index, (left, column)) in left.into_iter().zip(&columns).enumerate() {
                let ty = column.data_type;
                let left = if is_unknown(left.ty()) { self.coerce_implicit(left, ty)? } else { left };
                let operand = Expr::Column { index, ty: left.ty() };
                parts.push(self.operator(name, operand, Expr::Column { index: count + index, ty })?);
                operands.push(left);
            }
            test = Some(Expr::and(parts));
        }
        let ty = match kind {
            SubqueryKind::Scalar => columns.first().map_or(DataType::TEXT, |column| column.data_type),
            SubqueryKind::Array => {
                let element = columns.first().map_or(DataType::TEXT, |column| column.data_type);
                element.array().ok_or_else(|| unsupported(format!("an array of {element}")))?
            }
            _ => DataType::BOOL,
        };
        let hashable = kind == SubqueryKind::Any && test.as_ref().is_some_and(is_equality);
        let node = crate::plan::optimize::optimize(node, &self.context.catalog);
        Ok(Expr::Subquery(Arc::new(Subquery {
            id: self.new_id(),
            kind,
            plan: Arc::new(node),
            ty,
            outer: level.used.into_inner(),
            operands,
            test,
            hashable,
        })))
    }

    fn bind_call(&self, function: &Function, place: &dyn Resolve) -> Result<Expr, SqlError> {
        if let Some(over) = &function.over {
            return self.bind_window_call(function, over, place);
        }
        if !function.within_group.is_empty() {
            return self.bind_ordered_set(function, place);
        }
        let (_, name) = self.split_name(&function.name)?;
        if super::grouping::is_grouping(function) {
            return self.bind_grouping(function, name, place);
        }
        let empty = Vec::new();
        let (list, clauses, distinct) = match &function.args {
            FunctionArguments::None => (&empty, [].as_slice(), false),
            FunctionArguments::List(list) => (
                &list.args,
                list.clauses.as_slice(),
                matches!(list.duplicate_treatment, Some(DuplicateTreatment::Distinct)),
            ),
            FunctionArguments::Subquery(query) => {
                if name.value == "array" {
                    return self.bind_subquery(query, SubqueryKind::Array, None, place);
                }
                return Err(syntax("a subquery is not allowed here"));
            }
        };
        if let Some(bound) = self.bind_variadic(function, name, list, place)? {
            return Ok(bound);
        }
        if list.iter().any(super::special::is_named) {
            let placed = self.positional(function, name, list, place)?;
            return self.bind_call(&placed, place);
        }
        let star = matches!(list.as_slice(), [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)]);
        if self.is_aggregate(&name.value) {
            return self.bind_aggregate(function, name, list, clauses, distinct, star, place);
        }
        if self.needs_over(&name.value, if star { 0 } else { list.len() }) {
            let message = format!("window function {} requires an OVER clause", name.value);
            return Err(fail(SqlState::WRONG_OBJECT_TYPE, message));
        }
        if distinct || star || function.filter.is_some() {
            let what = if star {
                "(*)"
            } else if distinct {
                "DISTINCT"
            } else {
                "FILTER"
            };
            return Err(fail(
                SqlState::WRONG_OBJECT_TYPE,
                format!("{what} specified, but {} is not an aggregate function", name.value),
            ));
        }
        let written = list.iter().map(function_arg).collect::<Result<Vec<_>, _>>()?;
        self.check_sequence_name(&name.value, &written)?;
        if let Some(clock) = self.bind_precise_clock(&name.value, &written)? {
            return Ok(clock);
        }
        let bind_args = |place: &dyn Resolve| {
            let bind = |(index, arg): (usize, &&AstExpr)| match arg {
                // The second argument of normalize() is a word.
                AstExpr::Identifier(form) if index == 1 && name.value == "normalize" => {
                    Ok(Expr::literal(&form.value))
                }
                arg => self.bind_expr(arg, place),
            };
            let bind = || written.iter().enumerate().map(bind).collect::<Result<Vec<_>, _>>();
            if name.value == "coalesce" { without_sets(place, "COALESCE", bind) } else { bind() }
        };
        let args = bind_args(place).map_err(|error| {
            // Asking for the place of aggregates says that there is one, so it is not asked for any other error.
            if error.state() != SqlState::GROUPING_ERROR {
                return error;
            }
            let Ok(inner) = place.aggregate_place() else { return error };
            // That the function is none is said first: it may have been meant as an aggregate.
            let called = bind_args(inner).and_then(|args| self.function(&function.name, args));
            called.err().filter(|error| error.state() == SqlState::UNDEFINED_FUNCTION).unwrap_or(error)
        })?;
        if name.value == "row" && name.quote_style.is_none() && function.name.0.len() == 1 {
            return Ok(Expr::Row(args));
        }
        if args.is_empty()
            && let Some(bound) = self.bind_clock(&name.value)?
        {
            self.note_word(&name.value, &bound);
            return Ok(bound);
        }
        let call = self
            .function(&function.name, args)
            .map_err(|error| at_literal(error, written.iter().copied()))?;
        if matches!(function.args, FunctionArguments::None) {
            self.note_word(&name.value, &call);
        }
        if let Some(set) = crate::scalar::resolve::set_returning(&call)
            && let Expr::Call { args, ty, .. } = call
        {
            return place.add_set(TableFunction::Set(set), args, ty);
        }
        Ok(call)
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one call, taken apart once by the caller")]
    fn bind_aggregate(
        &self,
        function: &Function,
        name: &Ident,
        list: &[FunctionArg],
        clauses: &[ast::FunctionArgumentClause],
        distinct: bool,
        star: bool,
        place: &dyn Resolve,
    ) -> Result<Expr, SqlError> {
        let inner = place.aggregate_place()?;
        let nested = |error: SqlError| {
            if error.message() == "aggregate functions are not allowed here" {
                fail(SqlState::GROUPING_ERROR, "aggregate function calls cannot be nested")
            } else {
                super::window::within_aggregate(error)
            }
        };
        let mut args = Vec::new();
        if !star {
            for arg in list {
                args.push(self.bind_expr(function_arg(arg)?, inner).map_err(nested)?);
            }
            if args.is_empty() && name.value == "count" {
                return Err(fail(
                    SqlState::WRONG_OBJECT_TYPE,
                    "count(*) must be used to call a parameterless aggregate function",
                ));
            }
        }
        let mut order_by = Vec::new();
        for clause in clauses {
            let ast::FunctionArgumentClause::OrderBy(items) = clause else {
                return Err(unsupported("this aggregate clause"));
            };
            for item in items {
                order_by.push(sort_key(self.bind_expr(&item.expr, inner)?, item)?);
            }
        }
        let filter = match &function.filter {
            Some(filter) => Some(self.bind_condition(filter, inner, "FILTER")?),
            None => None,
        };
        let written = args.clone();
        let literals = list.iter().filter_map(|arg| function_arg(arg).ok());
        let (function, args) =
            self.aggregate(&name.value, args, false).map_err(|error| at_literal(error, literals))?;
        if distinct {
            let written = list.iter().filter_map(|arg| function_arg(arg).ok());
            for (arg, written) in args.iter().zip(written) {
                require_equality(arg.ty()).map_err(|error| at(error, written))?;
            }
        }
        if distinct && order_by.iter().any(|key| !written.contains(&key.expr) && !args.contains(&key.expr)) {
            let message = "in an aggregate with DISTINCT, ORDER BY expressions must appear in argument list";
            return Err(fail(SqlState::INVALID_COLUMN_REFERENCE, message));
        }
        place.add_aggregate(AggregateCall { function, args, direct: Vec::new(), distinct, filter, order_by })
    }
}

/// The PostgreSQL name of an operator.
fn operator_name(op: &BinaryOperator) -> Result<String, SqlError> {
    Ok(match op {
        BinaryOperator::NotEq => "<>".into(),
        BinaryOperator::PGCustomBinaryOperator(parts) => match parts.last() {
            Some(last) => last.clone(),
            None => return Err(syntax("an operator is expected")),
        },
        BinaryOperator::PGBitwiseXor => "#".into(),
        BinaryOperator::PGExp => "^".into(),
        BinaryOperator::Custom(name) => name.clone(),
        other => other.to_string(),
    })
}

/// True when one is; one alone stays itself.
fn any_of(mut parts: Vec<Expr>) -> Expr {
    if parts.len() == 1 { parts.remove(0) } else { Expr::Or(parts) }
}

/// The negation of a condition.
fn negate(expr: Expr) -> Expr {
    Expr::Not(Box::new(expr))
}

/// Whether a comparison is equality of columns, as they are, of one type: what a hash table decides.
fn is_equality(test: &Expr) -> bool {
    match test {
        Expr::And(parts) => parts.iter().all(is_equality),
        Expr::Compare { op: CompareOp::Eq, left, right } => {
            matches!((left.as_ref(), right.as_ref()), (Expr::Column { .. }, Expr::Column { .. }))
                && left.ty().base == right.ty().base
        }
        _ => false,
    }
}
