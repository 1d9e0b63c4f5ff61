//! The views of the SQL standard's information schema.

use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::datetime::Zone;
use rustydb_types::ids::Oid;
use rustydb_types::value::Value;

use super::classes::{
    attnum, checks, column_type, foreign_keys, indexes, is_not_null, schema_name, shown_default, text,
};
use super::relation::Rows;
use super::{cluster, definition, facts, privileges, sequences, shape};
use crate::catalog::virtual_table::VirtualContext;
use crate::catalog::{Identity, IndexKind, SequenceDescriptor, TableDescriptor, TypeDescriptor, TypeRef};

/// Octets that a string without a declared length may have, as PostgreSQL reports it.
const OCTETS_MAX: i32 = 1 << 30;
/// Most octets of one character in UTF-8.
const OCTETS_OF_CHARACTER: i32 = 4;

/// What computes the rows of a view; `None` for views that are always empty.
pub(super) fn source_of(name: &str) -> Option<fn(&VirtualContext<'_>) -> Rows> {
    Some(match name {
        "applicable_roles" => privileges::applicable_roles,
        "character_sets" => character_sets,
        "column_privileges" => privileges::column_privileges,
        "role_column_grants" => privileges::role_column_grants,
        "role_table_grants" => privileges::role_table_grants,
        "table_privileges" => privileges::table_privileges,
        "check_constraints" => check_constraints,
        "collations" => collations,
        "columns" => columns,
        "constraint_column_usage" => constraint_column_usage,
        "constraint_table_usage" => constraint_table_usage,
        "domain_constraints" => super::types::domain_constraints,
        "domains" => super::types::domains,
        "enabled_roles" => enabled_roles,
        "information_schema_catalog_name" => catalog_name,
        "key_column_usage" => key_column_usage,
        "referential_constraints" => referential_constraints,
        "schemata" => schemata,
        "sequences" => sequences::sequences,
        "table_constraints" => table_constraints,
        "tables" => tables,
        "views" => super::views::views,
        _ => return None,
    })
}

pub(super) fn yes_or_no(yes: bool) -> Value {
    text(if yes { "YES" } else { "NO" })
}

fn catalog_name(context: &VirtualContext<'_>) -> Rows {
    vec![vec![text(context.database)]]
}

fn character_sets(context: &VirtualContext<'_>) -> Rows {
    let utf8 = text("UTF8");
    vec![vec![
        Value::Null,
        Value::Null,
        utf8.clone(),
        text("UCS"),
        utf8,
        text(context.database),
        Value::Null,
        Value::Null,
    ]]
}

fn collations(context: &VirtualContext<'_>) -> Rows {
    let row = |name| vec![text(context.database), text("pg_catalog"), text(name), text("NO PAD")];
    ["default", "C", "POSIX"].into_iter().map(row).collect()
}

fn enabled_roles(context: &VirtualContext<'_>) -> Rows {
    let all = cluster::is_superuser(context);
    (context.system.roles.values())
        .filter(|role| all || role.name == context.user)
        .map(|role| vec![text(&role.name)])
        .collect()
}

fn role_name(context: &VirtualContext<'_>, role: Oid) -> Value {
    context.system.roles.get(&role).map_or(Value::Null, |role| text(&role.name))
}

fn schemata(context: &VirtualContext<'_>) -> Rows {
    (context.catalog.schemas())
        .map(|schema| {
            let mut row = vec![text(context.database), text(&schema.name), role_name(context, schema.owner)];
            row.resize(7, Value::Null);
            row
        })
        .collect()
}

fn tables(context: &VirtualContext<'_>) -> Rows {
    let own = context.catalog.temporary_schema().map(|schema| schema.name.as_str());
    let row = |schema: &str, name: &str, view: bool, insertable: bool| {
        vec![
            text(context.database),
            text(schema),
            text(name),
            text(match own {
                Some(own) if own == schema => "LOCAL TEMPORARY",
                _ if view => "VIEW",
                _ => "BASE TABLE",
            }),
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
            yes_or_no(insertable),
            yes_or_no(false),
            Value::Null,
        ]
    };
    let system = context.registry.iter().map(|relation| {
        let shape = shape::find(relation.schema(), relation.name());
        row(relation.schema(), relation.name(), shape.is_none_or(|shape| shape.kind == "v"), false)
    });
    let stored = context
        .catalog
        .tables()
        .map(|table| row(schema_name(context, table.schema), &table.name, false, true));
    let views = context.catalog.views();
    let views = views.map(|view| {
        row(schema_name(context, view.schema), &view.name, true, super::views::is_updatable(view))
    });
    system.chain(stored).chain(views).collect()
}

/// What `information_schema.columns` derives from a type.
#[derive(Default)]
pub(super) struct TypeColumns {
    pub characters: Option<i32>,
    pub octets: Option<i32>,
    pub precision: Option<i32>,
    pub radix: Option<i32>,
    pub scale: Option<i32>,
    pub datetime: Option<i32>,
}

pub(super) fn type_columns(data_type: DataType) -> TypeColumns {
    let mut shown = TypeColumns::default();
    match data_type.base {
        BaseType::Text => shown.octets = Some(OCTETS_MAX),
        BaseType::Varchar | BaseType::Bpchar => {
            shown.characters = data_type.length().and_then(|length| i32::try_from(length).ok());
            shown.octets =
                shown.characters.map_or(Some(OCTETS_MAX), |length| length.checked_mul(OCTETS_OF_CHARACTER));
        }
        BaseType::Int2 | BaseType::Int4 | BaseType::Int8 => {
            shown.precision = Some(i32::from(data_type.base.type_len()) * 8);
            (shown.radix, shown.scale) = (Some(2), Some(0));
        }
        BaseType::Float4 => (shown.precision, shown.radix) = (Some(24), Some(2)),
        BaseType::Float8 => (shown.precision, shown.radix) = (Some(53), Some(2)),
        BaseType::Numeric => {
            shown.radix = Some(10);
            if let Some(modifier) = data_type.numeric_modifier() {
                shown.precision = Some(i32::from(modifier.precision));
                shown.scale = Some(i32::from(modifier.scale));
            }
        }
        BaseType::Date => shown.datetime = Some(0),
        BaseType::Time | BaseType::Timestamp | BaseType::Timestamptz | BaseType::Interval => {
            shown.datetime =
                Some(data_type.time_precision().and_then(|digits| i32::try_from(digits).ok()).unwrap_or(6));
        }
        _ => {}
    }
    shown
}

/// A column as `information_schema.columns` shows it.
struct Column<'a> {
    schema: &'a str,
    table: &'a str,
    name: &'a str,
    number: i16,
    default: Value,
    identity: Option<(Identity, &'a SequenceDescriptor)>,
    nullable: bool,
    data_type: DataType,
    /// The domain that it is of.
    domain: Option<&'a TypeDescriptor>,
    updatable: bool,
    /// The expression of a generated column.
    generated: Value,
}

impl Column<'_> {
    fn row(self, context: &VirtualContext<'_>) -> Vec<Value> {
        let database = context.database;
        let shown = type_columns(self.data_type);
        let number = |value: Option<i32>| value.map_or(Value::Null, Value::Int4);
        let collation = facts::shown_collation(facts::of_data_type(self.data_type).collation);
        let is_array =
            self.data_type.base.element().is_some() && self.data_type.base.type_name().starts_with('_');
        let name = match self.data_type.base.enumeration() {
            _ if is_array => "ARRAY",
            Some(_) => "USER-DEFINED",
            None => self.data_type.base.sql_name(),
        };
        let of_domain = |part: &str| self.domain.map_or(Value::Null, |_| text(part));
        let own = |number: fn(&SequenceDescriptor) -> i64| {
            self.identity.map_or(Value::Null, |(_, sequence)| text(number(sequence).to_string()))
        };
        let in_collation = |part: &str| if collation.is_some() { text(part) } else { Value::Null };
        vec![
            text(database),
            text(self.schema),
            text(self.table),
            text(self.name),
            Value::Int4(i32::from(self.number)),
            self.default,
            yes_or_no(self.nullable),
            text(name),
            number(shown.characters),
            number(shown.octets),
            number(shown.precision),
            number(shown.radix),
            number(shown.scale),
            number(shown.datetime),
            Value::Null, // interval_type
            Value::Null, // interval_precision
            Value::Null, // character_set_catalog
            Value::Null, // character_set_schema
            Value::Null, // character_set_name
            in_collation(database),
            in_collation("pg_catalog"),
            collation.map_or(Value::Null, text),
            of_domain(database),
            of_domain(self.domain.map_or("", |domain| schema_name(context, domain.schema))),
            of_domain(self.domain.map_or("", |domain| &domain.name)),
            text(database),
            text(super::types::udt_schema(context, self.data_type.base)),
            text(self.data_type.base.type_name()),
            Value::Null,                   // scope_catalog
            Value::Null,                   // scope_schema
            Value::Null,                   // scope_name
            Value::Null,                   // maximum_cardinality
            text(self.number.to_string()), // dtd_identifier
            yes_or_no(false),              // is_self_referencing
            yes_or_no(self.identity.is_some()),
            self.identity.map_or(Value::Null, |(identity, _)| {
                text(if identity == Identity::Always { "ALWAYS" } else { "BY DEFAULT" })
            }),
            own(|sequence| sequence.start),
            own(|sequence| sequence.increment),
            own(|sequence| sequence.max),
            own(|sequence| sequence.min),
            yes_or_no(self.identity.is_some_and(|(_, sequence)| sequence.cycle)),
            text(if self.generated.is_null() { "NEVER" } else { "ALWAYS" }),
            self.generated,
            yes_or_no(self.updatable),
        ]
    }
}

fn columns(context: &VirtualContext<'_>) -> Rows {
    let mut rows = Rows::new();
    let domain_of = |stored: TypeRef| {
        let found = context.catalog.type_descriptor(Oid::new(stored.oid)).filter(|_| stored.is_domain());
        found.map(std::convert::AsRef::as_ref)
    };
    for relation in context.registry.iter() {
        let not_null = shape::find(relation.schema(), relation.name()).map(|shape| shape.not_null.as_slice());
        for (place, column) in relation.columns().iter().enumerate() {
            let shown = Column {
                schema: relation.schema(),
                table: relation.name(),
                name: column.name,
                number: i16::try_from(place + 1).unwrap_or(i16::MAX),
                default: Value::Null,
                identity: None,
                nullable: !not_null.and_then(|flags| flags.get(place)).copied().unwrap_or(false),
                data_type: column.data_type,
                domain: None,
                updatable: false,
                generated: Value::Null,
            };
            rows.push(shown.row(context));
        }
    }
    for table in context.catalog.tables() {
        for column in &table.columns {
            let data_type = column_type(column);
            let shown =
                shown_default(column).map(|default| sequences::default_text(context, default, data_type));
            let own = context.catalog.sequences_of(table.oid, Some(column.id)).next();
            let shown = Column {
                schema: schema_name(context, table.schema),
                table: &table.name,
                name: &column.name,
                number: attnum(column.id),
                default: shown.clone().filter(|_| column.generated.is_none()).map_or(Value::Null, text),
                identity: column.identity.zip(own.map(std::convert::AsRef::as_ref)),
                nullable: !is_not_null(table, column)
                    && !domain_of(column.data_type).is_some_and(|domain| {
                        matches!(domain.kind, crate::catalog::TypeKind::Domain { not_null: true, .. })
                    }),
                data_type,
                domain: domain_of(column.data_type),
                updatable: true,
                generated: shown.filter(|_| column.generated.is_some()).map_or(Value::Null, text),
            };
            rows.push(shown.row(context));
        }
    }
    for view in context.catalog.views() {
        let updatable = super::views::updatable_columns(view);
        for ((column, data_type, number), updatable) in super::views::columns(view).zip(updatable) {
            let shown = Column {
                schema: schema_name(context, view.schema),
                table: &view.name,
                name: &column.name,
                number,
                default: Value::Null,
                identity: None,
                nullable: true,
                data_type,
                domain: domain_of(column.data_type),
                updatable,
                generated: Value::Null,
            };
            rows.push(shown.row(context));
        }
    }
    rows
}

/// The name under which the standard shows a column's NOT NULL.
fn not_null_name(table: &TableDescriptor, number: i16) -> String {
    format!("{}_{}_{number}_not_null", table.schema, table.oid)
}

fn table_constraints(context: &VirtualContext<'_>) -> Rows {
    let deferring =
        |table: &TableDescriptor, name: &str, kind: &str, distinct: Value, deferrable: Option<bool>| {
            let schema = schema_name(context, table.schema);
            vec![
                text(context.database),
                text(schema),
                text(name),
                text(context.database),
                text(schema),
                text(&table.name),
                text(kind),
                yes_or_no(deferrable.is_some()),
                yes_or_no(deferrable == Some(true)),
                yes_or_no(true),
                distinct,
            ]
        };
    let row = |table: &TableDescriptor, name: &str, kind: &str, distinct: Value| {
        deferring(table, name, kind, distinct, None)
    };
    let mut rows = Rows::new();
    for (table, index) in indexes(context).filter(|(_, index)| index.constraint.is_some()) {
        rows.push(match index.kind {
            IndexKind::Primary => row(table, &index.name, "PRIMARY KEY", Value::Null),
            _ => row(table, &index.name, "UNIQUE", yes_or_no(true)),
        });
    }
    for (table, check) in checks(context) {
        rows.push(row(table, &check.name, "CHECK", Value::Null));
    }
    for (table, key) in foreign_keys(context) {
        rows.push(deferring(table, &key.name, "FOREIGN KEY", Value::Null, key.deferrable));
    }
    for table in context.catalog.tables() {
        for column in table.columns.iter().filter(|column| is_not_null(table, column)) {
            rows.push(row(table, &not_null_name(table, attnum(column.id)), "CHECK", Value::Null));
        }
    }
    rows
}

fn referential_constraints(context: &VirtualContext<'_>) -> Rows {
    let mut rows = Rows::new();
    for (table, key) in foreign_keys(context) {
        let Some(parent) = context.catalog.table(key.table) else { continue };
        // An index without a constraint has no name here.
        let unique = parent.indexes.iter().find(|index| index.oid == key.index && index.constraint.is_some());
        let schema = unique.map_or(Value::Null, |_| text(schema_name(context, parent.schema)));
        rows.push(vec![
            text(context.database),
            text(schema_name(context, table.schema)),
            text(&key.name),
            unique.map_or(Value::Null, |_| text(context.database)),
            schema,
            unique.map_or(Value::Null, |index| text(&index.name)),
            text(if key.is_full { "FULL" } else { "NONE" }),
            text(key.on_update.name()),
            text(key.on_delete.name()),
        ]);
    }
    rows
}

fn check_constraints(context: &VirtualContext<'_>) -> Rows {
    let mut rows = Rows::new();
    for (table, check) in checks(context) {
        // The view cuts the word off the constraint's definition, and no more.
        let definition = definition::check(table, check, false, Zone::UTC);
        rows.push(vec![
            text(context.database),
            text(schema_name(context, table.schema)),
            text(&check.name),
            text(super::types::shown_text(context, definition.trim_start_matches("CHECK "))),
        ]);
    }
    for (domain, check) in super::types::domain_checks(context) {
        let definition = super::types::check_text(context, domain, check);
        rows.push(vec![
            text(context.database),
            text(schema_name(context, domain.schema)),
            text(&check.name),
            text(definition.trim_start_matches("CHECK ")),
        ]);
    }
    for table in context.catalog.tables() {
        for column in table.columns.iter().filter(|column| is_not_null(table, column)) {
            rows.push(vec![
                text(context.database),
                text(schema_name(context, table.schema)),
                text(not_null_name(table, attnum(column.id))),
                text(format!("{} IS NOT NULL", column.name)),
            ]);
        }
    }
    rows
}

/// A key column of a constraint: its table's schema, table, column, constraint, place from 1.
type Key<'a> = (&'a str, &'a str, &'a str, &'a str, usize);

/// Each column of each foreign key, with its place in the key that it refers to.
fn foreign_columns<'a>(context: &VirtualContext<'a>) -> Vec<(Key<'a>, Option<usize>)> {
    let mut found = Vec::new();
    for (table, key) in foreign_keys(context) {
        let index = context.catalog.index(key.index).map(|(_, index)| index);
        for (place, (own, other)) in key.columns.iter().zip(&key.referenced).enumerate() {
            let column = table.column_index_of(*own).and_then(|place| table.columns.get(place));
            let Some(column) = column else { continue };
            let schema = schema_name(context, table.schema);
            let there = index.and_then(|index| index.key.iter().position(|part| part.column == *other));
            let own = (schema, table.name.as_str(), column.name.as_str(), key.name.as_str(), place + 1);
            found.push((own, there.map(|place| place + 1)));
        }
    }
    found
}

/// Each key column of each PRIMARY KEY and UNIQUE constraint.
fn keys<'a>(context: &VirtualContext<'a>) -> Vec<Key<'a>> {
    let mut keys = Vec::new();
    for (table, index) in indexes(context).filter(|(_, index)| index.constraint.is_some()) {
        for (place, part) in index.key.iter().enumerate() {
            let column = table.column_index_of(part.column).and_then(|place| table.columns.get(place));
            let Some(column) = column else { continue };
            let schema = schema_name(context, table.schema);
            keys.push((schema, table.name.as_str(), column.name.as_str(), index.name.as_str(), place + 1));
        }
    }
    keys
}

fn key_column_usage(context: &VirtualContext<'_>) -> Rows {
    let database = || text(context.database);
    let number = |place: usize| Value::Int4(i32::try_from(place).unwrap_or(i32::MAX));
    (keys(context).into_iter().map(|key| (key, None)))
        .chain(foreign_columns(context))
        .map(|((schema, table, column, constraint, place), there)| {
            vec![
                database(),
                text(schema),
                text(constraint),
                database(),
                text(schema),
                text(table),
                text(column),
                number(place),
                there.map_or(Value::Null, number),
            ]
        })
        .collect()
}

fn constraint_column_usage(context: &VirtualContext<'_>) -> Rows {
    let database = || text(context.database);
    let of_checks = checks(context).flat_map(|(table, check)| {
        let named =
            |column| table.columns.get(table.column_index_of(column)?).map(|column| column.name.as_str());
        let schema = schema_name(context, table.schema);
        let columns = check.columns.iter().filter_map(move |column| named(*column));
        columns.map(move |column| (schema, table.name.as_str(), column, check.name.as_str()))
    });
    let of_keys =
        keys(context).into_iter().map(|(schema, table, column, name, _)| (schema, table, column, name));
    // A foreign key uses the columns that it refers to; the constraint itself is in the schema of its own table.
    let of_foreign_keys = foreign_keys(context).flat_map(|(own, key)| {
        let parent = context.catalog.table(key.table);
        let columns = key.referenced.iter().filter_map(move |column| {
            let parent = parent?;
            Some((parent, parent.columns.get(parent.column_index_of(*column)?)?))
        });
        let own = schema_name(context, own.schema);
        columns.map(move |(parent, column)| {
            let schema = schema_name(context, parent.schema);
            (schema, parent.name.as_str(), column.name.as_str(), key.name.as_str(), own)
        })
    });
    of_keys
        .chain(of_checks)
        .map(|(schema, table, column, constraint)| (schema, table, column, constraint, schema))
        .chain(of_foreign_keys)
        .map(|(schema, table, column, constraint, own)| {
            vec![database(), text(schema), text(table), text(column), database(), text(own), text(constraint)]
        })
        .collect()
}

/// The view names tables that a constraint refers to, which PostgreSQL also fills for keys of the table itself.
fn constraint_table_usage(context: &VirtualContext<'_>) -> Rows {
    let database = || text(context.database);
    let of_foreign_keys = foreign_keys(context).filter_map(|(own, key)| {
        let parent = context.catalog.table(key.table)?;
        let (own, schema) = (schema_name(context, own.schema), schema_name(context, parent.schema));
        Some(vec![database(), text(schema), text(&parent.name), database(), text(own), text(&key.name)])
    });
    // CHECK constraints refer to no table, the view holds.
    indexes(context)
        .filter(|(_, index)| index.constraint.is_some())
        .map(|(table, index)| {
            let schema = schema_name(context, table.schema);
            vec![database(), text(schema), text(&table.name), database(), text(schema), text(&index.name)]
        })
        .chain(of_foreign_keys)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_described_as_the_standard_asks() {
        let shown = type_columns(DataType::varchar(40));
        assert_eq!((shown.characters, shown.octets), (Some(40), Some(160)));
        let shown = type_columns(DataType::numeric(12, 2));
        assert_eq!((shown.precision, shown.radix, shown.scale), (Some(12), Some(10), Some(2)));
        let shown = type_columns(DataType::INT8);
        assert_eq!((shown.precision, shown.radix, shown.scale), (Some(64), Some(2), Some(0)));
        assert_eq!(type_columns(DataType { base: BaseType::Timestamp, modifier: 3 }).datetime, Some(3));
        assert_eq!(type_columns(DataType::DATE).datetime, Some(0));
    }
}
