//! Objects written as SQL text, as PostgreSQL's `pg_get_*` functions write them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::LazyLock;

use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::datetime::Zone;
use rustydb_types::ids::ColumnId;
use sqlparser::ast::{self, Expr};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use crate::bind::kept;
use crate::catalog::{
    CheckDescriptor, ComputedDescriptor, ForeignKeyDescriptor, IndexDescriptor, IndexKeyColumn, IndexKind,
    ReferentialAction, TableDescriptor,
};

/// Words that cannot be names without quotes.
static RESERVED: LazyLock<BTreeSet<&'static str>> =
    LazyLock::new(|| include_str!("data/reserved.tsv").lines().collect());

/// A name as it is written in SQL: quoted when it must be.
#[must_use]
pub fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !RESERVED.contains(name);
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// A name with its schema in front, if one is given.
#[must_use]
pub fn qualified(schema: Option<&str>, name: &str) -> String {
    match schema {
        Some(schema) => format!("{}.{}", quoted(schema), quoted(name)),
        None => quoted(name),
    }
}

/// The name of a key column, quoted.
fn key_column(table: &TableDescriptor, part: &IndexKeyColumn, pretty: bool) -> String {
    if let Some(expr) = table.computed_of(part.column) {
        return computed(table, expr, pretty);
    }
    let column = table.column_index_of(part.column).and_then(|place| table.columns.get(place));
    column.map_or_else(String::new, |column| quoted(&column.name))
}

/// Names of columns by their numbers, quoted.
fn names_of(table: &TableDescriptor, columns: &[ColumnId]) -> String {
    let columns = columns.iter().filter_map(|id| table.columns.get(table.column_index_of(*id)?));
    columns.map(|column| quoted(&column.name)).collect::<Vec<_>>().join(", ")
}

/// What an index holds beside columns, as it is written in the definition: in parentheses, unless it is a call or a
/// condition.
#[must_use]
pub fn computed(table: &TableDescriptor, computed: &ComputedDescriptor, pretty: bool) -> String {
    let kept_for = kept::kind_of(table, computed.id);
    let text = kept::shown_row_expr(&computed.expr, (table, table), kept_for, (pretty, Zone::UTC))
        .unwrap_or_else(|_| computed.expr.as_str().to_owned());
    let is_bare = kept_for == kept::KeptFor::IndexPredicate || is_call(&text);
    if is_bare { text } else { format!("({text})") }
}

/// Whether a text is a call of a function and nothing else.
fn is_call(text: &str) -> bool {
    matches!(crate::parse::parse_expr(text), Ok(sqlparser::ast::Expr::Function(_)))
}

/// One column of an index by place from 1, without its order: `pg_get_indexdef(oid, n, pretty)`.
#[must_use]
pub fn index_column(
    table: &TableDescriptor,
    index: &IndexDescriptor,
    place: usize,
    pretty: bool,
) -> Option<String> {
    index.key.get(place.checked_sub(1)?).map(|part| key_column(table, part, pretty))
}

/// The statement that makes an index; `schema` is that of the table where it must be written.
#[must_use]
pub fn index(table: &TableDescriptor, index: &IndexDescriptor, schema: Option<&str>, pretty: bool) -> String {
    let key: Vec<String> = (index.key.iter())
        .map(|part| {
            let order = match (part.descending, part.nulls_first) {
                (false, false) => "",
                (false, true) => " NULLS FIRST",
                (true, true) => " DESC",
                (true, false) => " DESC NULLS LAST",
            };
            format!("{}{order}", key_column(table, part, pretty))
        })
        .collect();
    let mut text = format!(
        "CREATE {}INDEX {} ON {} USING btree ({})",
        if index.is_unique() { "UNIQUE " } else { "" },
        quoted(&index.name),
        qualified(schema, &table.name),
        key.join(", "),
    );
    if !index.include.is_empty() {
        let _ = write!(text, " INCLUDE ({})", names_of(table, &index.include));
    }
    if !index.options.is_empty() {
        let options: Vec<String> = index
            .options
            .iter()
            .map(|(name, value)| format!("{}='{}'", quoted(name), value.replace('\'', "''")))
            .collect();
        // Writing into a string cannot fail.
        let _ = write!(text, " WITH ({})", options.join(", "));
    }
    if let Some(predicate) = index.predicate.and_then(|id| table.computed_of(id)) {
        let _ = write!(text, " WHERE {}", computed(table, predicate, pretty));
    }
    text
}

/// A PRIMARY KEY or UNIQUE constraint as it is written behind its name.
#[must_use]
pub fn constraint(table: &TableDescriptor, index: &IndexDescriptor) -> String {
    let kind = if index.kind == IndexKind::Primary { "PRIMARY KEY" } else { "UNIQUE" };
    let key: Vec<String> = index.key.iter().map(|part| key_column(table, part, false)).collect();
    let include = if index.include.is_empty() {
        String::new()
    } else {
        format!(" INCLUDE ({})", names_of(table, &index.include))
    };
    format!("{kind} ({}){include}", key.join(", "))
}

/// A FOREIGN KEY constraint as it is written behind its name; `name` is that of the other table.
#[must_use]
pub fn foreign_key(
    table: &TableDescriptor,
    key: &ForeignKeyDescriptor,
    parent: &TableDescriptor,
    name: &str,
) -> String {
    let mut out = format!(
        "FOREIGN KEY ({}) REFERENCES {name}({})",
        names_of(table, &key.columns),
        names_of(parent, &key.referenced)
    );
    if key.is_full {
        out.push_str(" MATCH FULL");
    }
    for (event, action) in [("UPDATE", key.on_update), ("DELETE", key.on_delete)] {
        if action != ReferentialAction::NoAction {
            out.push_str(&format!(" ON {event} {}", action.name()));
        }
    }
    if let Some(is_deferred) = key.deferrable {
        out.push_str(if is_deferred { " DEFERRABLE INITIALLY DEFERRED" } else { " DEFERRABLE" });
    }
    if !key.validated {
        out.push_str(" NOT VALID");
    }
    out
}

/// A CHECK constraint as it is written behind its name.
#[must_use]
pub fn check(table: &TableDescriptor, check: &CheckDescriptor, pretty: bool, zone: Zone) -> String {
    format!(
        "CHECK ({}){}{}",
        check_condition(table, check, pretty, zone),
        if check.no_inherit { " NO INHERIT" } else { "" },
        if check.validated { "" } else { " NOT VALID" },
    )
}

/// The condition of a CHECK constraint.
#[must_use]
pub fn check_condition(table: &TableDescriptor, check: &CheckDescriptor, pretty: bool, zone: Zone) -> String {
    // What does not bind any more is shown as it is kept.
    kept::shown(&check.expr, table, pretty, zone).unwrap_or_else(|_| check.expr.as_str().to_owned())
}

/// A column's default as PostgreSQL would write it. Plain literals get their type, as its deparser gives it; other
/// expressions are kept as they were written.
#[must_use]
pub fn default_text(default: &str, data_type: DataType) -> String {
    let parsed =
        Parser::new(&PostgreSqlDialect {}).try_with_sql(default).and_then(|mut parser| parser.parse_expr());
    match parsed {
        Ok(expr) => literal(&expr, data_type).unwrap_or_else(|| default.to_owned()),
        Err(_) => default.to_owned(),
    }
}

fn is_string(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if matches!(value.value, ast::Value::SingleQuotedString(_)))
}

fn literal(expr: &Expr, data_type: DataType) -> Option<String> {
    match expr {
        Expr::Nested(inner) => literal(inner, data_type),
        Expr::Value(value) => match &value.value {
            ast::Value::SingleQuotedString(text) => match data_type.base {
                // A literal becomes a constant of the column's type; these types print bare.
                BaseType::Bool => match text.as_str() {
                    "t" | "true" | "on" | "yes" | "1" => Some("true".into()),
                    "f" | "false" | "off" | "no" | "0" => Some("false".into()),
                    _ => None,
                },
                BaseType::Int4 if text.parse::<u32>().is_ok() => Some(text.clone()),
                BaseType::Numeric if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => {
                    Some(text.clone())
                }
                base => {
                    // Constants of strings carry the type without its length; numbers keep precision and scale.
                    let shown = DataType::from(base);
                    Some(format!("'{}'::{shown}", text.replace('\'', "''")))
                }
            },
            ast::Value::Boolean(flag) => Some(flag.to_string()),
            ast::Value::Null => Some(match data_type.base {
                BaseType::Text | BaseType::Int4 | BaseType::Bool => format!("NULL::{data_type}"),
                base => format!("NULL::{}", DataType::from(base)),
            }),
            ast::Value::Number(number, _) => Some(number.clone()),
            _ => None,
        },
        Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => match &**expr {
            Expr::Value(value) => match &value.value {
                ast::Value::Number(number, _) => {
                    let shown = match number.parse::<i64>() {
                        Ok(n) if n <= i64::from(i32::MAX) + 1 => BaseType::Int4,
                        Ok(_) => BaseType::Int8,
                        Err(_) => BaseType::Numeric,
                    };
                    Some(format!("'-{number}'::{}", shown.sql_name()))
                }
                _ => None,
            },
            _ => None,
        },
        Expr::Cast { kind: ast::CastKind::DoubleColon | ast::CastKind::Cast, expr, data_type, .. } => {
            let to = DataType::parse(&data_type.to_string())?;
            if matches!(&**expr, Expr::Value(value) if matches!(value.value, ast::Value::Null)) {
                return Some(format!("NULL::{to}"));
            }
            match literal(expr, to)? {
                // A literal becomes a constant of the type, with the length that the cast gives it.
                constant if is_string(expr) => {
                    let text = constant.rsplit_once("::").map_or(constant.as_str(), |(text, _)| text);
                    Some(if text.starts_with('\'') { format!("{text}::{to}") } else { constant })
                }
                inner => Some(format!("({inner})::{to}")),
            }
        }
        Expr::Function(function) => {
            // A call without arguments: the SQL-standard words are written large, other functions small.
            let name = function.name.to_string();
            let lower = name.to_ascii_lowercase();
            let word = matches!(
                lower.as_str(),
                "current_timestamp"
                    | "current_date"
                    | "current_time"
                    | "localtimestamp"
                    | "localtime"
                    | "current_user"
                    | "session_user"
                    | "current_role"
                    | "current_catalog"
                    | "current_schema"
            );
            match &function.args {
                ast::FunctionArguments::None if word => Some(lower.to_ascii_uppercase()),
                ast::FunctionArguments::List(list) if list.args.is_empty() && list.clauses.is_empty() => {
                    Some(format!("{lower}()"))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_sql_needs_it() {
        for (name, written) in [
            ("accounts", "accounts"),
            ("_x1", "_x1"),
            ("Name", "\"Name\""),
            ("1a", "\"1a\""),
            ("a b", "\"a b\""),
            ("select", "\"select\""),
            ("q\"q", "\"q\"\"q\""),
            ("name", "name"),
            ("", "\"\""),
        ] {
            assert_eq!(quoted(name), written);
        }
    }

    #[test]
    fn defaults_are_written_as_postgresql_writes_them() {
        // Expected texts are pg_get_expr's for `create table t (c TYPE default TEXT)`.
        for (default, data_type, written) in [
            ("0", DataType::INT4, "0"),
            ("0", DataType::numeric(12, 2), "0"),
            ("-1", DataType::INT4, "'-1'::integer"),
            ("-1.5", DataType::NUMERIC, "'-1.5'::numeric"),
            ("'none'", DataType::TEXT, "'none'::text"),
            ("'it''s'", DataType::varchar(9), "'it''s'::character varying"),
            ("'x'", DataType::bpchar(3), "'x'::bpchar"),
            ("'x'::text", DataType::TEXT, "'x'::text"),
            ("FALSE", DataType::BOOL, "false"),
            ("'t'", DataType::BOOL, "true"),
            ("'5'", DataType::INT4, "5"),
            ("'5'", DataType::INT8, "'5'::bigint"),
            ("'-7'", DataType::INT4, "'-7'::integer"),
            ("'1.50'", DataType::NUMERIC, "1.50"),
            ("-5", DataType::INT8, "'-5'::integer"),
            ("(NOW())", DataType::TIMESTAMPTZ, "now()"),
            ("NOW()", DataType::TIMESTAMPTZ, "now()"),
            ("current_timestamp", DataType::TIMESTAMPTZ, "CURRENT_TIMESTAMP"),
            ("'2020-01-01'", DataType::DATE, "'2020-01-01'::date"),
            ("'none'::TEXT", DataType::TEXT, "'none'::text"),
            ("CAST('x' AS VARCHAR(3))", DataType::TEXT, "'x'::character varying(3)"),
            ("now()::DATE", DataType::DATE, "(now())::date"),
            ("CURRENT_TIMESTAMP::DATE", DataType::DATE, "(CURRENT_TIMESTAMP)::date"),
            ("'5'::INT", DataType::INT4, "5"),
            ("5::NUMERIC", DataType::NUMERIC, "(5)::numeric"),
            ("1 + 2", DataType::INT4, "1 + 2"),
        ] {
            assert_eq!(default_text(default, data_type), written, "{default} of {data_type}");
        }
    }
}
