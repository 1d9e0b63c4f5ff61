//! The binder's errors, worded and numbered as PostgreSQL's.

use sqlparser::ast::{Expr, Ident, ObjectName, Query, Spanned, Value};
use sqlparser::tokenizer::Location;

use crate::error::{SqlError, SqlState};

/// An error with a SQLSTATE and a message.
pub(crate) fn fail(state: SqlState, message: impl Into<String>) -> SqlError {
    SqlError::new(state, message)
}

/// 0A000 naming what is not supported.
pub(crate) fn unsupported(what: impl std::fmt::Display) -> SqlError {
    fail(SqlState::FEATURE_NOT_SUPPORTED, format!("{what} is not supported"))
}

/// 42601.
pub(crate) fn syntax(message: impl Into<String>) -> SqlError {
    fail(SqlState::SYNTAX_ERROR, message)
}

/// A part of a statement that knows where it stands.
pub trait Located {
    /// Where it begins.
    fn start(&self) -> Location;
}

impl Located for Ident {
    fn start(&self) -> Location {
        self.span.start
    }
}

impl Located for Expr {
    fn start(&self) -> Location {
        self.span().start
    }
}

impl Located for ObjectName {
    fn start(&self) -> Location {
        self.span().start
    }
}

impl Located for Query {
    fn start(&self) -> Location {
        self.span().start
    }
}

impl Located for Location {
    fn start(&self) -> Location {
        *self
    }
}

/// Columns that a packed position can tell apart.
const COLUMN_BITS: u32 = 20;

/// Marks where in the statement an error is, unless it is marked already. Line and column are packed into the
/// position until [`unpack`] turns them into a character offset.
pub(crate) fn at(error: SqlError, node: &impl Located) -> SqlError {
    let start = node.start();
    let (line, column) = (u32::try_from(start.line), u32::try_from(start.column));
    match (line, column) {
        (Ok(line @ 1..), Ok(column)) if line < 1 << (32 - COLUMN_BITS) && column < 1 << COLUMN_BITS => {
            if error.fields().position.is_some() {
                error
            } else {
                error.at(line << COLUMN_BITS | column)
            }
        }
        _ => error,
    }
}

/// Marks, of an error about a literal's text, the one among some expressions that is this literal.
pub(crate) fn at_literal<'a>(error: SqlError, among: impl IntoIterator<Item = &'a Expr>) -> SqlError {
    if error.state().class() != "22" {
        return error;
    }
    let is_it = |expr: &&Expr| match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => {
                error.message().contains(&format!("\"{text}\""))
            }
            _ => false,
        },
        _ => false,
    };
    match among.into_iter().map(super::select::strip).find(is_it) {
        Some(literal) => at(error, literal),
        None => error,
    }
}

/// Marks the operator that does not exist, or the expression when only guesses could tell where it stands.
pub(crate) fn at_operator(error: SqlError, left: &Expr, operator: &str, right: &Expr) -> SqlError {
    let is_plain = matches!(left, Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Value(_))
        && !matches!(right, Expr::Nested(_));
    let (end, next) = (left.span().end, right.span().start);
    let between = next.column.checked_sub(end.column).filter(|_| is_plain && end.line == next.line);
    let blanks = between.and_then(|between| between.checked_sub(operator.chars().count() as u64));
    match blanks {
        // As many blanks before it as behind it.
        Some(blanks) if blanks.is_multiple_of(2) && error.state() == SqlState::UNDEFINED_FUNCTION => {
            at(error, &Location { line: end.line, column: end.column + blanks / 2 })
        }
        _ => at(error, left),
    }
}

/// Turns the packed position of an error of analysis into a character offset, counted from 1. The session puts all
/// tokens on one line, whose columns are these offsets; other places are left out.
#[must_use]
pub fn unpack(mut error: SqlError) -> SqlError {
    let fields = error.fields_mut();
    fields.position = fields
        .position
        .and_then(|packed| (packed >> COLUMN_BITS == 1).then_some(packed & ((1 << COLUMN_BITS) - 1)));
    error
}

/// 42702.
pub(crate) fn ambiguous_column(name: &Ident) -> SqlError {
    at(fail(SqlState::AMBIGUOUS_COLUMN, format!("column reference \"{}\" is ambiguous", name.value)), name)
}

/// 42P01 for a qualifier that names nothing.
pub(crate) fn undefined_table(relation: &Ident) -> SqlError {
    let message = format!("missing FROM-clause entry for table \"{}\"", relation.value);
    at(fail(SqlState::UNDEFINED_TABLE, message), relation)
}

/// 42703.
pub(crate) fn undefined_column(relation: Option<&Ident>, name: &Ident) -> SqlError {
    let message = match relation {
        Some(relation) => format!("column {}.{} does not exist", relation.value, name.value),
        None => format!("column \"{}\" does not exist", name.value),
    };
    at(fail(SqlState::UNDEFINED_COLUMN, message), relation.unwrap_or(name))
}

/// 42P01 for a relation that is in no schema of the search path.
pub(crate) fn undefined_relation(name: &sqlparser::ast::ObjectName) -> SqlError {
    let written = name.0.iter().filter_map(|part| part.as_ident()).map(|ident| ident.value.as_str());
    let message = format!("relation \"{}\" does not exist", written.collect::<Vec<_>>().join("."));
    at(fail(SqlState::UNDEFINED_TABLE, message), name)
}

/// 42803 for a column outside the groups.
pub(crate) fn not_grouped(relation: Option<&str>, name: &Ident) -> SqlError {
    let column = match relation {
        Some(relation) => format!("{relation}.{}", name.value),
        None => name.value.clone(),
    };
    let message =
        format!("column \"{column}\" must appear in the GROUP BY clause or be used in an aggregate function");
    at(fail(SqlState::GROUPING_ERROR, message), name)
}
