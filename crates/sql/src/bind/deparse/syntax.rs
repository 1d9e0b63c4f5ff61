//! CASE, and calls that SQL writes with words of their own.

use rustydb_types::datatype::DataType;
use rustydb_types::value::Value;

use super::operand::uncompared;
use super::{Deparse, INDENT, Parent};
use crate::error::SqlError;
use crate::scalar::Expr;

impl Deparse<'_> {
    /// A call that SQL writes with words between its arguments.
    pub(super) fn syntax(
        &self,
        out: &mut String,
        name: &str,
        args: &[Expr],
        indent: usize,
    ) -> Result<(), SqlError> {
        let part = |out: &mut String, before: &str, arg: Option<&Expr>, wrap: bool| match arg {
            Some(arg) => {
                out.push_str(before);
                self.wrapped(out, wrap, |out| self.write(out, arg, false, indent))
            }
            None => Ok(()),
        };
        let (first, second, third, fourth) = (args.first(), args.get(1), args.get(2), args.get(3));
        match name {
            "timezone" => {
                out.push('(');
                if let (Some(zone), Some(time)) = (first, second) {
                    self.operand(out, time, false, Parent::Other, indent)?;
                    out.push_str(" AT TIME ZONE ");
                    self.operand(out, zone, false, Parent::Other, indent)?;
                }
            }
            "extract" => {
                out.push_str("EXTRACT(");
                match first {
                    Some(Expr::Const { value: Value::Text(field), .. }) => out.push_str(field),
                    _ => return Err(SqlError::internal("EXTRACT without a field")),
                }
                part(out, " FROM ", second, false)?;
            }
            "overlay" => {
                part(out, "OVERLAY(", first, false)?;
                part(out, " PLACING ", second, false)?;
                part(out, " FROM ", third, false)?;
                part(out, " FOR ", fourth, false)?;
            }
            "position" => {
                part(out, "POSITION(", second, true)?;
                part(out, " IN ", first, true)?;
            }
            "substring" => {
                part(out, "SUBSTRING(", first, false)?;
                part(out, " FROM ", second, false)?;
                part(out, " FOR ", third, false)?;
            }
            "btrim" | "ltrim" | "rtrim" => {
                out.push_str(match name {
                    "btrim" => "TRIM(BOTH",
                    "ltrim" => "TRIM(LEADING",
                    _ => "TRIM(TRAILING",
                });
                part(out, " ", second, false)?;
                part(out, " FROM ", first, false)?;
            }
            _ => return Err(SqlError::internal("a call has no syntax of its own")),
        }
        out.push(')');
        Ok(())
    }

    pub(super) fn case(
        &self,
        out: &mut String,
        operand: Option<&Expr>,
        branches: &[(Expr, Expr)],
        (otherwise, ty): (Option<&Expr>, DataType),
        indent: usize,
    ) -> Result<(), SqlError> {
        let inner = indent + INDENT;
        self.keyword(out, "CASE", indent);
        if let Some(operand) = operand {
            out.push(' ');
            self.write(out, operand, true, inner)?;
        }
        for (condition, result) in branches {
            self.keyword(out, "WHEN ", inner);
            match (operand, condition) {
                (Some(_), Expr::Compare { left, right, .. }) => {
                    self.write(out, &uncompared(left, right).1, false, inner)?;
                }
                _ => self.write(out, condition, false, inner)?,
            }
            out.push_str(" THEN ");
            self.write(out, result, true, inner)?;
        }
        self.keyword(out, "ELSE ", inner);
        match otherwise {
            Some(otherwise) => self.write(out, otherwise, true, inner)?,
            None => self.constant(out, &Value::Null, ty, true)?,
        }
        self.keyword(out, "END", indent);
        Ok(())
    }

    /// Begins a word of CASE, which has a line of its own also where the text is not pretty.
    pub(super) fn keyword(&self, out: &mut String, word: &str, indent: usize) {
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', indent));
        out.push_str(word);
    }
}
