//! Relations about sequences.

use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::value::Value;

use super::classes::{attnum, default_number, foreign_keys, oid, schema_name, shown_default, text};
use super::lookup::SystemLookup;
use super::relation::Rows;
use super::{PG_CLASS, shape};
use crate::bind::sequence::sequences_in;
use crate::catalog::virtual_table::VirtualContext;

/// `pg_sequence`
pub(super) fn pg_sequence(context: &VirtualContext<'_>) -> Rows {
    let row = |sequence: &crate::catalog::SequenceDescriptor| {
        vec![
            oid(sequence.oid),
            Value::Oid(sequence.data_type),
            Value::Int8(sequence.start),
            Value::Int8(sequence.increment),
            Value::Int8(sequence.max),
            Value::Int8(sequence.min),
            Value::Int8(sequence.cache),
            Value::Bool(sequence.cycle),
        ]
    };
    context.catalog.sequences().map(|sequence| row(sequence)).collect()
}

/// `information_schema.sequences`: those of identity columns are not shown.
pub(super) fn sequences(context: &VirtualContext<'_>) -> Rows {
    let shown = |sequence: &&std::sync::Arc<crate::catalog::SequenceDescriptor>| {
        sequence.owned_by.is_none_or(|owner| !owner.is_identity)
    };
    let row = |sequence: &crate::catalog::SequenceDescriptor| {
        let base = BaseType::from_oid(sequence.data_type).unwrap_or(BaseType::Int8);
        vec![
            text(context.database),
            text(schema_name(context, sequence.schema)),
            text(&sequence.name),
            text(base.sql_name()),
            Value::Int4(i32::from(base.type_len()) * 8),
            Value::Int4(2),
            Value::Int4(0),
            text(sequence.start.to_string()),
            text(sequence.min.to_string()),
            text(sequence.max.to_string()),
            text(sequence.increment.to_string()),
            text(if sequence.cycle { "YES" } else { "NO" }),
        ]
    };
    context.catalog.sequences().filter(shown).map(|sequence| row(sequence)).collect()
}

/// `pg_depend`, of sequences, foreign keys and views alone: which column each sequence belongs to, which defaults take
/// values from it, which columns and index a foreign key needs, and which relations a view.
pub(super) fn pg_depend(context: &VirtualContext<'_>) -> Rows {
    let class = Value::Oid(PG_CLASS);
    let defaults = Value::Oid(shape::find("pg_catalog", "pg_attrdef").map_or(0, |shape| shape.oid));
    let mut rows = Rows::new();
    for sequence in context.catalog.sequences() {
        let Some(owner) = sequence.owned_by else { continue };
        rows.push(vec![
            class.clone(),
            oid(sequence.oid),
            Value::Int4(0),
            class.clone(),
            oid(owner.table),
            Value::Int4(i32::from(attnum(owner.column))),
            text(if owner.is_identity { "i" } else { "a" }),
        ]);
    }
    let constraints = Value::Oid(shape::find("pg_catalog", "pg_constraint").map_or(0, |shape| shape.oid));
    for (table, key) in foreign_keys(context) {
        let own = key.columns.iter().map(|column| (table.oid, i32::from(attnum(*column)), "a"));
        let other = key.referenced.iter().map(|column| (key.table, i32::from(attnum(*column)), "n"));
        for (object, column, kind) in own.chain(other).chain([(key.index, 0, "n")]) {
            rows.push(vec![
                constraints.clone(),
                oid(key.oid),
                Value::Int4(0),
                class.clone(),
                oid(object),
                Value::Int4(column),
                text(kind),
            ]);
        }
    }
    for table in context.catalog.tables() {
        for column in &table.columns {
            for (_, sequence) in shown_default(column).map(sequences_in).unwrap_or_default() {
                rows.push(vec![
                    defaults.clone(),
                    Value::Oid(default_number(table.oid, column.id)),
                    Value::Int4(0),
                    class.clone(),
                    oid(sequence),
                    Value::Int4(0),
                    text("n"),
                ]);
            }
        }
    }
    rows.extend(super::views::dependencies(context));
    rows
}

/// A column's default as PostgreSQL writes it, with its sequences by the names they have now.
pub(super) fn default_text(context: &VirtualContext<'_>, default: &str, data_type: DataType) -> String {
    let named = sequences_in(default);
    if named.is_empty() {
        return super::types::column_default(context, default, data_type);
    }
    let setting = context.settings.iter().find(|(name, _)| name == "search_path");
    let search_path: Vec<String> = setting.map_or_else(Vec::new, |(_, path)| {
        path.split(',').map(|name| name.trim().trim_matches('"').to_owned()).collect()
    });
    let lookup = SystemLookup { context: *context, search_path: &search_path, authority: None };
    let mut shown = default.to_owned();
    for (place, sequence) in named.into_iter().rev() {
        let name = lookup.written(sequence.get()).unwrap_or_else(|| sequence.to_string());
        shown.replace_range(place, &name.replace('\'', "''"));
    }
    shown
}
