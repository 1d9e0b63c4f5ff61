//! IN, ANY and ALL.

use rustydb_types::datatype::{BaseType, DataType};

use super::operand::{as_text, unwidened};
use super::{Deparse, Parent};
use crate::bind::errors::unsupported;
use crate::error::SqlError;
use crate::scalar::Expr;

impl Deparse<'_> {
    /// IN: one constant is compared, several are an array, and what looks at the row is compared one by one.
    pub(super) fn in_list(
        &self,
        out: &mut String,
        input: &Expr,
        list: &[Expr],
        negated: bool,
        indent: usize,
    ) -> Result<(), SqlError> {
        let looks_at_row = |expr: &&Expr| {
            let mut looks = false;
            expr.visit(&mut |part| looks |= matches!(part, Expr::Column { .. }));
            looks
        };
        let (vars, constants): (Vec<&Expr>, Vec<&Expr>) = list.iter().partition(looks_at_row);
        let name = if negated { "<>" } else { "=" };
        // A comparison needs no parentheses within a chain.
        let single = |out: &mut String, item: &Expr| {
            self.binary(out, name, &as_text(unwidened(input)), &as_text(unwidened(item)), indent)
        };
        let array = |out: &mut String| self.member(out, input, &constants, negated, indent);
        match (constants.len(), vars.len()) {
            (2.., 0) => array(out),
            (1, 0) | (0, 1) => single(out, list.first().unwrap_or(input)),
            _ => self.wrapped(out, !self.pretty, |out| {
                let mut first = true;
                let mut separate = |out: &mut String| {
                    if !std::mem::replace(&mut first, false) {
                        out.push_str(if negated { " AND " } else { " OR " });
                    }
                };
                if constants.len() > 1 {
                    separate(out);
                    self.wrapped(out, self.pretty, array)?;
                }
                for item in list {
                    if constants.len() > 1 && !looks_at_row(&item) {
                        continue;
                    }
                    separate(out);
                    single(out, item)?;
                }
                Ok(())
            }),
        }
    }

    pub(super) fn member(
        &self,
        out: &mut String,
        input: &Expr,
        constants: &[&Expr],
        negated: bool,
        indent: usize,
    ) -> Result<(), SqlError> {
        let is_varchar = input.ty().base == BaseType::Varchar;
        self.wrapped(out, !self.pretty, |out| {
            self.operand(out, &as_text(unwidened(input)), true, Parent::Other, indent)?;
            out.push_str(if negated { " <> ALL (" } else { " = ANY (" });
            // There is no comparison of varchar: both sides are taken as text.
            if is_varchar && !self.pretty {
                out.push('(');
            }
            out.push_str("ARRAY[");
            for (place, item) in constants.iter().enumerate() {
                if place > 0 {
                    out.push_str(", ");
                }
                self.write(out, item, true, indent)?;
            }
            out.push(']');
            if is_varchar {
                out.push_str(if self.pretty { "::text[]" } else { ")::text[]" });
            }
            out.push(')');
            Ok(())
        })
    }

    pub(super) fn quantified(
        &self,
        out: &mut String,
        comparison: &Expr,
        (left, array): (&Expr, &Expr),
        all: bool,
        indent: usize,
    ) -> Result<(), SqlError> {
        let (name, compared) = match comparison {
            Expr::Compare { op, left, right } => (op.name(), [left, right]),
            Expr::Binary { operator, left, right, .. } => (operator.name, [left, right]),
            _ => return Err(unsupported("this ANY or ALL where it is kept")),
        };
        let [left_side, right_side] = compared;
        // Two of char(n) are compared without their blanks, by an operator of its own in PostgreSQL.
        let is_padded = left.ty().base == BaseType::Bpchar
            && array.ty().element().is_some_and(|ty| ty.base == BaseType::Bpchar);
        // What the operator takes a side as.
        let taken = |side: &Expr| match side {
            Expr::Cast { ty, .. } if !is_padded => Some(*ty),
            _ => None,
        };
        self.wrapped(out, !self.pretty, |out| {
            match taken(left_side) {
                Some(ty) => self.cast(out, left, ty, indent)?,
                None => self.operand(out, left, true, Parent::Other, indent)?,
            }
            out.push_str(&format!(" {name} {} (", if all { "ALL" } else { "ANY" }));
            match taken(right_side).and_then(DataType::array) {
                Some(ty) => self.cast(out, array, ty, indent)?,
                _ => self.operand(out, array, true, Parent::Other, indent)?,
            }
            out.push(')');
            Ok(())
        })
    }
}
