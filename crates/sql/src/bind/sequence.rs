//! Calls that move sequences on, and defaults that name them.
//!
//! A default names its sequence by number (`nextval('16390'::regclass)`), as PostgreSQL's stored expressions do: it
//! follows the sequence when that is renamed, and it is found when the sequence is to be dropped.

use std::sync::Arc;

use rustydb_types::datatype::BaseType;
use rustydb_types::ids::Oid;
use rustydb_types::value::Value;
use sqlparser::ast;

use super::context::{Binder, Relation, TableUse};
use super::errors::{at, fail};
use crate::catalog::SequenceDescriptor;
use crate::error::{SqlError, SqlState};
use crate::plan::Node;
use crate::scalar::Expr;
use crate::scalar::cast::split_name;

/// The view `pg_sequences`, as PostgreSQL defines it.
pub(super) const PG_SEQUENCES: &str = "SELECT n.nspname AS schemaname, c.relname AS sequencename, \
    pg_catalog.pg_get_userbyid(c.relowner)::name AS sequenceowner, s.seqtypid::regtype AS data_type, \
    s.seqstart AS start_value, s.seqmin AS min_value, s.seqmax AS max_value, s.seqincrement AS increment_by, \
    s.seqcycle AS cycle, s.seqcache AS cache_size, \
    pg_catalog.pg_sequence_last_value(c.oid::regclass) AS last_value \
    FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid \
    LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace";

impl Binder<'_> {
    /// The one row of `SELECT FROM` a sequence.
    pub(super) fn sequence_row(&self, sequence: &SequenceDescriptor) -> Result<Node, SqlError> {
        let named = || vec![Expr::constant(Value::Oid(sequence.oid.get()), BaseType::RegClass.into())];
        let call = |name: &str| crate::scalar::resolve_function(name, named());
        let row = vec![
            call("rustydb_sequence_position")?,
            Expr::constant(Value::Int8(0), rustydb_types::datatype::DataType::INT8),
            call("rustydb_sequence_is_called")?,
        ];
        Ok(Node::Values { rows: vec![row], width: 3 })
    }

    /// Notes that a call moves a sequence on, and locks the sequence where it is known which.
    pub(super) fn note_sequence_call(&self, call: &Expr) {
        let Expr::Call { function, args, .. } = call else { return };
        let name = match function.name {
            "nextval" => "nextval()",
            "setval" => "setval()",
            // It is the commit that sends.
            "pg_notify" => "pg_notify()",
            _ => return,
        };
        self.advances.set(Some(name));
        let named = match args.first() {
            Some(Expr::Const { value: Value::Oid(oid), .. }) => Some(Oid::new(*oid)),
            Some(Expr::Cast { input, .. }) => match input.as_ref() {
                Expr::Const { value: Value::Text(text), .. } => match text.parse() {
                    Ok(number) => Some(Oid::new(number)),
                    Err(_) => self.sequence_by_text(text).map(|found| found.oid),
                },
                Expr::Const { value, .. } => {
                    value.as_i64().and_then(|oid| u32::try_from(oid).ok()).map(Oid::new)
                }
                _ => None,
            },
            _ => None,
        };
        if let Some(oid) = named.filter(|oid| self.context.catalog.sequence(*oid).is_some()) {
            self.note_table(oid, TableUse::Read);
        }
    }

    /// A literal that names no relation, where a sequence is to be named.
    pub(super) fn check_sequence_name(&self, function: &str, args: &[&ast::Expr]) -> Result<(), SqlError> {
        let (true, Some(written)) = (matches!(function, "nextval" | "currval" | "setval"), args.first())
        else {
            return Ok(());
        };
        let ast::Expr::Value(value) = written else { return Ok(()) };
        let ast::Value::SingleQuotedString(text) = &value.value else { return Ok(()) };
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let (schema, name) = split_name(text);
        let parts = schema.into_iter().chain(std::iter::once(name)).map(ast::Ident::new).collect::<Vec<_>>();
        if is_number || self.find_relation(&ast::ObjectName::from(parts))?.is_some() {
            return Ok(());
        }
        let index = self.search_schemas().any(|schema| {
            let schema = self.context.catalog.schema_named(schema);
            schema.is_some_and(|schema| self.context.catalog.has_relation(schema.oid, text))
        });
        if index {
            return Ok(());
        }
        Err(at(fail(SqlState::UNDEFINED_TABLE, format!("relation \"{text}\" does not exist")), *written))
    }

    fn sequence_by_text(&self, text: &str) -> Option<Arc<SequenceDescriptor>> {
        let (schema, name) = split_name(text);
        let catalog = &self.context.catalog;
        let find = |schema: &str| catalog.sequence_named(catalog.schema_named(schema)?.oid, &name).cloned();
        match schema {
            Some(schema) => find(&schema),
            None => self.search_schemas().find_map(find),
        }
    }

    /// The sequence that a name means; `None` when there is no relation of this name.
    ///
    /// # Errors
    /// 42809 when the relation is no sequence.
    pub fn find_sequence(&self, name: &ast::ObjectName) -> Result<Option<Arc<SequenceDescriptor>>, SqlError> {
        match self.find_relation(name)? {
            Some(Relation::Sequence(sequence)) => Ok(Some(sequence)),
            Some(_) => {
                let message = format!("\"{}\" is not a sequence", self.split_name(name)?.1.value);
                Err(fail(SqlState::WRONG_OBJECT_TYPE, message))
            }
            None => Ok(None),
        }
    }
}

/// A sequence as a stored default names it.
#[must_use]
pub(crate) fn by_number(sequence: u32) -> String {
    format!("'{sequence}'::regclass")
}

/// The default that takes its value from a sequence.
#[must_use]
pub fn default_from(sequence: Oid) -> String {
    format!("nextval({})", by_number(sequence.get()))
}

/// Where in a stored default sequences are named: the numbers with their places in the text. Within a literal of the
/// text quotes are doubled, so nothing there looks like it.
pub fn sequences_in(default: &str) -> Vec<(std::ops::Range<usize>, Oid)> {
    let mut found = Vec::new();
    for (end, _) in default.match_indices("'::regclass") {
        let before = default.get(..end).unwrap_or_default();
        let digits = before.bytes().rev().take_while(u8::is_ascii_digit).count();
        let start = end - digits;
        let is_open = before.get(..start).is_some_and(|before| before.ends_with('\''));
        if let (true, Some(Ok(oid))) = (is_open, before.get(start..).map(str::parse)) {
            found.push((start..end, Oid::new(oid)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_found_where_they_are_named_and_not_in_literals() {
        let numbers =
            |text: &str| -> Vec<u32> { sequences_in(text).iter().map(|(_, oid)| oid.get()).collect() };
        assert_eq!(numbers(&default_from(Oid::new(16_390))), [16_390]);
        assert_eq!(
            numbers("('1'::text || (nextval('7'::regclass))::text) || currval('8'::regclass)"),
            [7, 8]
        );
        for none in
            ["'nextval(''7''::regclass)'::text", "'7'::text", "nextval('s'::regclass)", "''::regclass"]
        {
            assert_eq!(numbers(none), [0; 0], "{none}");
        }
    }
}
