//! Bound expressions written as SQL text, as PostgreSQL's `ruleutils.c` writes them: with the conversions that were
//! put in, with literals that say their type, and, unless it is to be pretty, with every parenthesis.
//!
//! The text is what the catalog keeps, so it must mean the same wherever it is bound again. A literal that was given
//! a type is written as the value it has at this moment: `'now'::timestamp` as the time that it is.
//!
//! The expression comes from a binder that keeps (see [`super::kept`]): its numbers stand as [`Expr::Outer`], since
//! else they would be folded with their conversions, and what was written with a syntax of its own is listed.

mod list;
mod operand;
mod syntax;

use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::datetime::Zone;
use rustydb_types::text::{self, TextContext};
use rustydb_types::value::Value;

pub(crate) use self::operand::padded_list;
use self::operand::uncompared;
use super::errors::unsupported;
use super::kept::{Forms, Written};
use super::types::{by_number, kept_name};
use crate::error::SqlError;
use crate::pgcatalog::definition::quoted;
use crate::scalar::cast::CastMethod;
use crate::scalar::{BoolTest, EvalContext, Expr};

/// Columns by which a pretty CASE is set in.
const INDENT: usize = 4;

/// What is needed to write an expression over a table's row.
#[derive(Debug)]
pub(crate) struct Deparse<'a> {
    /// Names of the row's columns.
    pub columns: &'a [String],
    /// What the binder kept beside the expression.
    pub forms: &'a Forms,
    /// What literals that look at the clock or the session are read with.
    pub eval: &'a EvalContext<'a>,
    /// Zone in which points in time are written.
    pub zone: Zone,
    /// Without parentheses that are not needed.
    pub pretty: bool,
    /// What else an expression of a plan reads; absent where the text is kept.
    pub plan: Option<&'a PlanNames<'a>>,
}

/// What an expression of a plan reads beside its row.
#[derive(Debug)]
pub(crate) struct PlanNames<'a> {
    /// Texts of the values around it.
    pub outer: &'a [String],
    /// Gives a subquery its number.
    pub subquery: &'a dyn SubqueryNames,
}

/// Who numbers the subqueries of a plan.
pub(crate) trait SubqueryNames: std::fmt::Debug {
    /// The text of a subquery.
    fn name(&self, subquery: &dyn crate::scalar::SubqueryExpr) -> String;
}

/// What an operand stands in; decides whether it needs parentheses where the text is pretty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parent<'e> {
    /// An operator with two operands, and whether the operand is the first.
    Operator(&'e str, bool),
    /// AND, OR.
    Chain { is_and: bool },
    /// NOT.
    Not,
    /// Anything else.
    Other,
}

impl Deparse<'_> {
    /// The text of a whole expression.
    ///
    /// # Errors
    /// 0A000 for an expression that has no text.
    pub(crate) fn text(&self, expr: &Expr) -> Result<String, SqlError> {
        let mut out = String::new();
        self.write(&mut out, expr, false, 0)?;
        Ok(out)
    }

    fn operand(
        &self,
        out: &mut String,
        expr: &Expr,
        shows_implicit: bool,
        parent: Parent<'_>,
        indent: usize,
    ) -> Result<(), SqlError> {
        let wrap = self.pretty && !self.is_simple(expr, parent);
        self.wrapped(out, wrap, |out| self.write(out, expr, shows_implicit, indent))
    }

    fn wrapped(
        &self,
        out: &mut String,
        wrap: bool,
        inner: impl FnOnce(&mut String) -> Result<(), SqlError>,
    ) -> Result<(), SqlError> {
        if wrap {
            out.push('(');
        }
        inner(out)?;
        if wrap {
            out.push(')');
        }
        Ok(())
    }

    fn list(&self, out: &mut String, exprs: &[Expr], indent: usize) -> Result<(), SqlError> {
        for (place, expr) in exprs.iter().enumerate() {
            if place > 0 {
                out.push_str(", ");
            }
            self.write(out, expr, true, indent)?;
        }
        Ok(())
    }

    fn write(
        &self,
        out: &mut String,
        expr: &Expr,
        shows_implicit: bool,
        indent: usize,
    ) -> Result<(), SqlError> {
        let full = !self.pretty;
        match (self.forms.written(expr), expr) {
            (Some(Written::Word(word)), _) => {
                out.push_str(word);
                return Ok(());
            }
            (Some(Written::Syntax), Expr::Call { function, args, .. }) => {
                return self.syntax(out, function.name, args, indent);
            }
            // Rows are not compared by one comparison: then each condition is written in full.
            (Some(Written::Operand(operand)), Expr::Case { branches, otherwise, ty })
                if branches.iter().all(|(condition, _)| matches!(condition, Expr::Compare { .. })) =>
            {
                return self.case(out, Some(operand), branches, (otherwise.as_deref(), *ty), indent);
            }
            _ => {}
        }
        if let Some(plan) = self.plan
            && let Some(text) = self.of_plan(plan, expr)?
        {
            out.push_str(&text);
            return Ok(());
        }
        match expr {
            Expr::Const { value, ty } => self.constant(out, value, *ty, true),
            Expr::Outer { index, .. } => match self.forms.literals.get(*index) {
                Some(Expr::Const { value, ty }) => self.constant(out, value, *ty, true),
                _ => Err(SqlError::internal("a literal was not kept")),
            },
            Expr::Column { index, .. } => match self.columns.get(*index) {
                // The only column of a domain's row is a word of the language.
                Some(_) if self.forms.is_of_domain() => {
                    out.push_str("VALUE");
                    Ok(())
                }
                Some(name) => {
                    out.push_str(&quoted(name));
                    Ok(())
                }
                None => Err(SqlError::internal("a kept expression names no column")),
            },
            Expr::And(parts) => self.chain(out, parts, true, indent),
            Expr::Or(parts) => self.chain(out, parts, false, indent),
            Expr::Not(input) => self.wrapped(out, full, |out| {
                out.push_str("NOT ");
                self.operand(out, input, false, Parent::Not, indent)
            }),
            Expr::IsNull { input, negated } => self.wrapped(out, full, |out| {
                self.operand(out, input, true, Parent::Other, indent)?;
                out.push_str(if *negated { " IS NOT NULL" } else { " IS NULL" });
                Ok(())
            }),
            Expr::IsBool { input, test, negated } => self.wrapped(out, full, |out| {
                self.operand(out, input, false, Parent::Other, indent)?;
                out.push_str(if *negated { " IS NOT " } else { " IS " });
                out.push_str(match test {
                    BoolTest::True => "TRUE",
                    BoolTest::False => "FALSE",
                    BoolTest::Unknown => "UNKNOWN",
                });
                Ok(())
            }),
            Expr::Compare { op, left, right } => self.binary(out, op.name(), left, right, indent),
            Expr::Binary { operator, left, right, .. } => {
                self.binary(out, operator.name, left, right, indent)
            }
            Expr::Unary { operator, input, .. } => self.wrapped(out, full, |out| {
                out.push_str(operator.name);
                out.push(' ');
                self.operand(out, input, true, Parent::Other, indent)
            }),
            Expr::Distinct { left, right, negated } => self.distinct(out, left, right, *negated, indent),
            Expr::Call { function, args, .. } => {
                out.push_str(&quoted(function.name));
                self.wrapped(out, true, |out| self.list(out, args, indent))
            }
            Expr::Cast { input, method, from, ty, explicit } => {
                if let (CastMethod::Input, Expr::Const { value: Value::Text(_), .. }) = (method, &**input)
                    && from.is_unknown()
                {
                    // A literal that looks at the clock or the session: it is what it is now.
                    return self.constant(out, &expr.eval(&[], self.eval)?, *ty, true);
                }
                if !explicit && !shows_implicit {
                    return self.operand(out, input, false, Parent::Other, indent);
                }
                self.cast(out, input, *ty, indent)
            }
            Expr::Case { branches, otherwise, ty } => {
                self.case(out, None, branches, (otherwise.as_deref(), *ty), indent)
            }
            Expr::Coalesce { args, .. } => {
                out.push_str("COALESCE");
                self.wrapped(out, true, |out| self.list(out, args, indent))
            }
            Expr::Extreme { args, greatest, .. } => {
                out.push_str(if *greatest { "GREATEST" } else { "LEAST" });
                self.wrapped(out, true, |out| self.list(out, args, indent))
            }
            Expr::NullIf { condition, .. } => match condition.as_ref() {
                Expr::Compare { left, right, .. } => {
                    let (left, right) = uncompared(left, right);
                    out.push_str("NULLIF(");
                    self.write(out, &left, true, indent)?;
                    out.push_str(", ");
                    self.write(out, &right, true, indent)?;
                    out.push(')');
                    Ok(())
                }
                _ => Err(unsupported("NULLIF over rows in a kept expression")),
            },
            Expr::InList { input, list, negated } => self.in_list(out, input, list, *negated, indent),
            Expr::Quantified { comparison, left, array, all } => {
                self.quantified(out, comparison, (left, array), *all, indent)
            }
            Expr::Array { elements, ty } => {
                out.push_str("ARRAY[");
                self.list(out, elements, indent)?;
                out.push(']');
                if elements.is_empty() {
                    out.push_str(&format!("::{}", kept_name(*ty)));
                }
                Ok(())
            }
            Expr::Subscript { array, indexes, .. } => {
                let wrap = !matches!(**array, Expr::Column { .. });
                self.wrapped(out, wrap, |out| self.write(out, array, shows_implicit, indent))?;
                for index in indexes {
                    out.push('[');
                    self.write(out, index, false, indent)?;
                    out.push(']');
                }
                Ok(())
            }
            Expr::Slice { array, bounds, .. } => {
                let wrap = !matches!(**array, Expr::Column { .. });
                self.wrapped(out, wrap, |out| self.write(out, array, shows_implicit, indent))?;
                for (from, to) in bounds {
                    out.push('[');
                    if let Some(from) = from {
                        self.write(out, from, false, indent)?;
                    }
                    out.push(':');
                    if let Some(to) = to {
                        self.write(out, to, false, indent)?;
                    }
                    out.push(']');
                }
                Ok(())
            }
            Expr::Domain { input, domain } => {
                self.wrapped(out, full, |out| self.operand(out, input, false, Parent::Other, indent))?;
                out.push_str(&format!("::{}", by_number(domain.oid.get())));
                Ok(())
            }
            Expr::Row(parts) => {
                out.push_str("ROW");
                self.wrapped(out, true, |out| self.list(out, parts, indent))
            }
            Expr::Param { .. } | Expr::Subquery(_) | Expr::WholeRow { .. } | Expr::Field { .. } => {
                Err(unsupported("this expression where it is kept"))
            }
        }
    }

    /// What stands in a plan and in no text that is kept.
    fn of_plan(&self, plan: &PlanNames<'_>, expr: &Expr) -> Result<Option<String>, SqlError> {
        let place = |names: &[String], index: usize| names.get(index).cloned().unwrap_or_else(|| "?".into());
        Ok(Some(match expr {
            Expr::Column { index, .. } => place(self.columns, *index),
            Expr::Outer { index, .. } => place(plan.outer, *index),
            Expr::Param { index, .. } => format!("${}", index + 1),
            Expr::Subquery(subquery) => plan.subquery.name(subquery.as_ref()),
            Expr::WholeRow { fields, .. } => {
                let mut text = "ROW(".to_owned();
                self.list(&mut text, fields, 0)?;
                text + ")"
            }
            Expr::Field { record, index, .. } => format!("({}).f{}", self.text(record)?, index + 1),
            Expr::Domain { input, domain } => format!("({})::{}", self.text(input)?, domain.shown),
            Expr::Const { value, ty } if ty.base.is_reg() => {
                let text = text::text_out(value, *ty, &TextContext { zone: self.zone, now: 0 });
                format!("'{text}'::{ty}")
            }
            _ => return Ok(None),
        }))
    }

    fn chain(&self, out: &mut String, parts: &[Expr], is_and: bool, indent: usize) -> Result<(), SqlError> {
        self.wrapped(out, !self.pretty, |out| {
            for (place, part) in parts.iter().enumerate() {
                if place > 0 {
                    out.push_str(if is_and { " AND " } else { " OR " });
                }
                self.operand(out, part, false, Parent::Chain { is_and }, indent)?;
            }
            Ok(())
        })
    }

    fn binary(
        &self,
        out: &mut String,
        name: &str,
        left: &Expr,
        right: &Expr,
        indent: usize,
    ) -> Result<(), SqlError> {
        let (left, right) = uncompared(left, right);
        self.wrapped(out, !self.pretty, |out| {
            self.operand(out, &left, true, Parent::Operator(name, true), indent)?;
            out.push_str(&format!(" {name} "));
            self.operand(out, &right, true, Parent::Operator(name, false), indent)
        })
    }

    fn distinct(
        &self,
        out: &mut String,
        left: &Expr,
        right: &Expr,
        negated: bool,
        indent: usize,
    ) -> Result<(), SqlError> {
        let (left, right) = uncompared(left, right);
        let bare = |out: &mut String| {
            self.operand(out, &left, true, Parent::Other, indent)?;
            out.push_str(" IS DISTINCT FROM ");
            self.operand(out, &right, true, Parent::Other, indent)
        };
        if !negated {
            return self.wrapped(out, !self.pretty, bare);
        }
        self.wrapped(out, !self.pretty, |out| {
            out.push_str("NOT ");
            // Under NOT it needs none where the text is pretty.
            self.wrapped(out, !self.pretty, bare)
        })
    }

    fn cast(&self, out: &mut String, input: &Expr, ty: DataType, indent: usize) -> Result<(), SqlError> {
        match input {
            // A constant of the type that only gets a length says its type once.
            Expr::Const { value, ty: own } if own.base == ty.base && own.modifier < 0 && !value.is_null() => {
                self.constant(out, value, *own, false)?;
            }
            _ => {
                self.wrapped(out, !self.pretty, |out| self.operand(out, input, false, Parent::Other, indent))?
            }
        }
        out.push_str(&format!("::{}", kept_name(ty)));
        Ok(())
    }

    fn constant(
        &self,
        out: &mut String,
        value: &Value,
        ty: DataType,
        shows_type: bool,
    ) -> Result<(), SqlError> {
        if let (BaseType::RegClass, Value::Oid(oid)) = (ty.base, value)
            && self.forms.is_of_default()
            && self.eval.catalog.sequence(*oid).is_some()
        {
            // By number: it follows the sequence, and is found when that is dropped.
            out.push_str(&super::sequence::by_number(*oid));
            return Ok(());
        }
        if ty.base.is_reg() {
            return Err(unsupported(format!("a literal of type {ty} where it is kept")));
        }
        let mut label = shows_type && !ty.is_unknown();
        match value {
            Value::Null => out.push_str("NULL"),
            Value::Bool(flag) => {
                out.push_str(if *flag { "true" } else { "false" });
                label = false;
            }
            value => {
                let text = text::text_out(value, ty, &TextContext { zone: self.zone, now: 0 });
                let bare = match ty.base {
                    BaseType::Int4 => !text.starts_with('-'),
                    BaseType::Numeric if ty.modifier < 0 => {
                        text.starts_with(|first: char| first.is_ascii_digit())
                            && text.contains(['.', 'e', 'E'])
                    }
                    _ => false,
                };
                if bare {
                    out.push_str(&text);
                    label = false;
                } else {
                    out.push_str(&format!("'{}'", text.replace('\'', "''")));
                }
            }
        }
        if label {
            out.push_str(&format!("::{}", kept_name(ty)));
        }
        Ok(())
    }

    /// Whether an operand needs no parentheses: `isSimpleNode`.
    fn is_simple(&self, expr: &Expr, parent: Parent<'_>) -> bool {
        if self.forms.written(expr).is_some() {
            return true;
        }
        let separates = matches!(parent, Parent::Chain { .. } | Parent::Not);
        match expr {
            Expr::Cast { input, method, .. } => match method {
                CastMethod::Convert | CastMethod::Length => true,
                _ => self.is_simple(input, Parent::Other),
            },
            Expr::Compare { .. } | Expr::IsNull { .. } | Expr::IsBool { .. } => separates,
            Expr::Unary { .. } => separates,
            Expr::Distinct { negated, .. } => match parent {
                Parent::Chain { .. } => true,
                _ => separates && !negated,
            },
            Expr::Binary { operator, .. } => match parent {
                Parent::Operator(outer, is_first) => binds_tighter(operator.name, outer, is_first),
                _ => separates,
            },
            Expr::Not(_) => matches!(parent, Parent::Chain { .. }),
            Expr::And(_) => matches!(parent, Parent::Chain { .. }),
            Expr::Or(_) => matches!(parent, Parent::Chain { is_and: false }),
            Expr::InList { list, .. } => match list.len() {
                1 => separates,
                _ => false,
            },
            Expr::Quantified { .. } => false,
            _ => true,
        }
    }
}

/// Whether an arithmetic operator needs no parentheses as an operand of another one.
fn binds_tighter(name: &str, outer: &str, is_first: bool) -> bool {
    let rank = |name: &str| match name {
        "+" | "-" => Some(1),
        "*" | "/" | "%" => Some(2),
        _ => None,
    };
    match (rank(name), rank(outer)) {
        (Some(inner), Some(outer)) => inner > outer || (inner == outer && is_first),
        _ => false,
    }
}
