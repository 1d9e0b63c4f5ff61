//! `pg_type`, `pg_enum`, and what else tells of types that users made.

use std::sync::LazyLock;

use rustydb_types::datatype::BaseType;
use rustydb_types::ids::Oid;
use rustydb_types::value::Value;

use super::classes::{oid, schema_name, text};
use super::information_schema::{type_columns, yes_or_no};
use super::lookup::SystemLookup;
use super::relation::{Rows, parse_rows};
use super::{definition, facts, shape};
use crate::bind::kept;
use crate::bind::types::{domain_row, with_names};
use crate::catalog::descriptor::KnownTypes;
use crate::catalog::types::{DomainCheck, LABEL_STEP};
use crate::catalog::virtual_table::VirtualContext;
use crate::catalog::{StoredExpr, TypeDescriptor, TypeKind, UserType};

/// What is the same in all rows of built-in types.
const BUILT_IN: &[(&str, &str)] = &[
    ("typnamespace", "11"),
    ("typowner", "10"),
    ("typisdefined", "t"),
    ("typrelid", "0"),
    ("typanalyze", "0"),
    ("typnotnull", "f"),
    ("typbasetype", "0"),
    ("typtypmod", "-1"),
    ("typndims", "0"),
];

/// The rows of the built-in types.
static ROWS: LazyLock<Rows> = LazyLock::new(|| {
    shape::find("pg_catalog", "pg_type")
        .and_then(|shape| parse_rows(shape, include_str!("data/pg_type.tsv"), BUILT_IN))
        .unwrap_or_default()
});

/// Functions of `pg_proc` that read and write values, by number: in, out, receive, send.
const ENUM_FUNCTIONS: [u32; 4] = [3506, 3507, 3532, 3533];
const ARRAY_FUNCTIONS: [u32; 4] = [750, 751, 2400, 2401];
const DOMAIN_IN: u32 = 2597;
const DOMAIN_RECV: u32 = 2598;
/// `array_subscript_handler`
const ARRAY_SUBSCRIPT: u32 = 6179;

/// The name by which a session finds a type that a user made.
pub(super) fn written(context: &VirtualContext<'_>, number: u32) -> Option<String> {
    let setting = context.settings.iter().find(|(name, _)| name == "search_path");
    let search_path: Vec<String> = setting.map_or_else(Vec::new, |(_, path)| {
        path.split(',').map(|name| name.trim().trim_matches('"').to_owned()).collect()
    });
    SystemLookup { context: *context, search_path: &search_path, authority: None }.user_type_text(number)
}

/// A kept text with the names that types have now.
pub(super) fn shown_text(context: &VirtualContext<'_>, kept: &str) -> String {
    with_names(kept, |number| written(context, number))
}

/// The default of a domain for people.
fn default_text(context: &VirtualContext<'_>, default: &StoredExpr) -> String {
    shown_text(context, default.as_str())
}

/// `pg_get_constraintdef` of a domain's constraint.
pub(super) fn check_text(
    context: &VirtualContext<'_>,
    domain: &TypeDescriptor,
    check: &DomainCheck,
) -> String {
    let types = context.catalog.known_types();
    let base = types.get(domain.oid.get()).map(UserType::data_type).unwrap_or(BaseType::Text.into());
    let row = domain_row(&domain.name, base, &KnownTypes(std::sync::Arc::clone(types)));
    let form = (false, rustydb_types::datetime::Zone::UTC);
    let shown = kept::shown_row_expr(&check.expr, (&row, &row), kept::KeptFor::Domain, form);
    let shown = shown.unwrap_or_else(|_| check.expr.as_str().to_owned());
    let suffix = if check.validated { "" } else { " NOT VALID" };
    format!("CHECK ({}){suffix}", shown_text(context, &shown))
}

/// `pg_type`
pub(super) fn pg_type(context: &VirtualContext<'_>) -> Rows {
    let mut rows = ROWS.clone();
    let Some(shape) = shape::find("pg_catalog", "pg_type") else { return rows };
    let proc = |number| Value::Oid(number);
    for own in context.catalog.types() {
        let mut row = |fields: &[(&str, Value)]| {
            let value = |name: &str| {
                fields
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map_or(Value::Null, |(_, value)| value.clone())
            };
            rows.push(shape.columns.iter().map(|column| value(column.name)).collect());
        };
        let common = [
            ("typnamespace", oid(own.schema)),
            ("typowner", oid(own.owner)),
            ("typisdefined", Value::Bool(true)),
            ("typdelim", text(",")),
            ("typispreferred", Value::Bool(false)),
            ("typrelid", Value::Oid(0)),
            ("typanalyze", Value::Oid(0)),
            ("typmodin", Value::Oid(0)),
            ("typmodout", Value::Oid(0)),
            ("typndims", Value::Int4(0)),
            ("typacl", super::privileges::acl(context, own.acl.as_ref())),
        ];
        let functions = |[input, output, receive, send]: [u32; 4]| {
            [
                ("typinput", proc(input)),
                ("typoutput", proc(output)),
                ("typreceive", proc(receive)),
                ("typsend", proc(send)),
            ]
        };
        let stored = |length: i16, by_value: bool, align: &'static str, storage: &'static str| {
            [
                ("typlen", Value::Int2(length)),
                ("typbyval", Value::Bool(by_value)),
                ("typalign", text(align)),
                ("typstorage", text(storage)),
            ]
        };
        match &own.kind {
            TypeKind::Enum(_) => {
                let fields = [
                    ("oid", oid(own.oid)),
                    ("typname", text(&own.name)),
                    ("typtype", text("e")),
                    ("typcategory", text("E")),
                    ("typsubscript", Value::Oid(0)),
                    ("typelem", Value::Oid(0)),
                    ("typarray", oid(own.array_oid)),
                    ("typnotnull", Value::Bool(false)),
                    ("typbasetype", Value::Oid(0)),
                    ("typtypmod", Value::Int4(-1)),
                    ("typcollation", Value::Oid(0)),
                ];
                let own = [functions(ENUM_FUNCTIONS), stored(4, true, "i", "p")].concat();
                row(&[&common[..], &fields[..], &own[..]].concat());
            }
            TypeKind::Domain { base, not_null, default, .. } => {
                let data_type = base.data_type();
                let below = facts::of_type(data_type.oid());
                let numbers = base_functions(data_type.base);
                let fields = [
                    ("oid", oid(own.oid)),
                    ("typname", text(&own.name)),
                    ("typtype", text("d")),
                    ("typcategory", text(data_type.base.category().letter().to_string())),
                    ("typsubscript", Value::Oid(0)),
                    ("typelem", Value::Oid(0)),
                    // Arrays of domains are not there.
                    ("typarray", Value::Oid(0)),
                    ("typnotnull", Value::Bool(*not_null)),
                    ("typbasetype", Value::Oid(base.oid)),
                    ("typtypmod", Value::Int4(base.modifier)),
                    ("typcollation", Value::Oid(below.collation)),
                    (
                        "typdefault",
                        default.as_ref().map_or(Value::Null, |own| text(default_text(context, own))),
                    ),
                    (
                        "typdefaultbin",
                        default.as_ref().map_or(Value::Null, |own| text(default_text(context, own))),
                    ),
                ];
                let length = data_type.base.type_len();
                let functions = functions([DOMAIN_IN, numbers[1], DOMAIN_RECV, numbers[3]]);
                let own = [functions, stored(length, below.by_value, below.align, below.storage)].concat();
                row(&[&common[..], &fields[..], &own[..]].concat());
                continue;
            }
        }
        let fields = [
            ("oid", oid(own.array_oid)),
            ("typname", text(&own.array_name)),
            ("typtype", text("b")),
            ("typcategory", text("A")),
            ("typsubscript", Value::Oid(ARRAY_SUBSCRIPT)),
            ("typelem", oid(own.oid)),
            ("typarray", Value::Oid(0)),
            ("typnotnull", Value::Bool(false)),
            ("typbasetype", Value::Oid(0)),
            ("typtypmod", Value::Int4(-1)),
            ("typcollation", Value::Oid(0)),
        ];
        let array = [functions(ARRAY_FUNCTIONS), stored(-1, false, "i", "x")].concat();
        row(&[&common[..], &fields[..], &array[..]].concat());
    }
    rows
}

/// The functions that read and write values of a type.
fn base_functions(base: BaseType) -> [u32; 4] {
    if base.enumeration().is_some() {
        return if base.element().is_some() { ARRAY_FUNCTIONS } else { ENUM_FUNCTIONS };
    }
    let place = |name: &str| {
        shape::find("pg_catalog", "pg_type")?.columns.iter().position(|column| column.name == name)
    };
    let row = ROWS.iter().find(|row| row.first() == Some(&Value::Oid(base.oid())));
    ["typinput", "typoutput", "typreceive", "typsend"].map(|name| {
        let value = row.zip(place(name)).and_then(|(row, place)| row.get(place));
        value.and_then(Value::as_i64).and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
    })
}

/// `pg_enum`
pub(super) fn pg_enum(context: &VirtualContext<'_>) -> Rows {
    let mut rows = Rows::new();
    for own in context.catalog.types() {
        let TypeKind::Enum(labels) = &own.kind else { continue };
        for label in labels {
            rows.push(vec![
                oid(label.oid),
                oid(own.oid),
                Value::Float4((label.position as f64 / LABEL_STEP as f64) as f32),
                text(&label.text),
            ]);
        }
    }
    rows
}

/// Domains with their constraints.
pub(super) fn domain_checks<'a>(
    context: &VirtualContext<'a>,
) -> impl Iterator<Item = (&'a TypeDescriptor, &'a DomainCheck)> {
    context.catalog.types().flat_map(|own| {
        let checks = match &own.kind {
            TypeKind::Domain { checks, .. } => checks.as_slice(),
            TypeKind::Enum(_) => &[],
        };
        checks.iter().map(move |check| (own.as_ref(), check))
    })
}

/// `information_schema.domain_constraints`
pub(super) fn domain_constraints(context: &VirtualContext<'_>) -> Rows {
    let row = |(domain, check): (&TypeDescriptor, &DomainCheck)| {
        let schema = schema_name(context, domain.schema);
        vec![
            text(context.database),
            text(schema),
            text(&check.name),
            text(context.database),
            text(schema),
            text(&domain.name),
            yes_or_no(false),
            yes_or_no(false),
        ]
    };
    domain_checks(context).map(row).collect()
}

/// `information_schema.domains`
pub(super) fn domains(context: &VirtualContext<'_>) -> Rows {
    let mut rows = Rows::new();
    let number = |value: Option<i32>| value.map_or(Value::Null, Value::Int4);
    for own in context.catalog.types() {
        let TypeKind::Domain { base, default, .. } = &own.kind else { continue };
        let data_type = base.data_type();
        let shown = type_columns(data_type);
        let kind = data_type.base;
        let below = context.catalog.type_descriptor(Oid::new(base.oid)).filter(|_| base.is_domain());
        let name = match (kind.element(), kind.enumeration()) {
            _ if below.is_some() => "USER-DEFINED",
            (Some(_), _) => "ARRAY",
            (None, Some(_)) => "USER-DEFINED",
            (None, None) => kind.sql_name(),
        };
        let mut row = vec![
            text(context.database),
            text(schema_name(context, own.schema)),
            text(&own.name),
            text(name),
            number(shown.characters),
            number(shown.octets),
        ];
        row.resize(12, Value::Null);
        row.extend([
            number(shown.precision),
            number(shown.radix),
            number(shown.scale),
            number(shown.datetime),
            Value::Null,
            Value::Null,
            default.as_ref().map_or(Value::Null, |own| text(default_text(context, own))),
            text(context.database),
            text(below.map_or(udt_schema(context, kind), |below| schema_name(context, below.schema))),
            text(below.map_or(kind.type_name(), |below| &below.name)),
        ]);
        row.resize(26, Value::Null);
        row.push(text("1"));
        rows.push(row);
    }
    rows
}

/// The schema of a type.
pub(super) fn udt_schema<'a>(context: &VirtualContext<'a>, kind: BaseType) -> &'a str {
    let own = kind.enumeration().and_then(|own| context.catalog.type_descriptor(Oid::new(own.oid)));
    own.map_or("pg_catalog", |own| schema_name(context, own.schema))
}

/// A default as PostgreSQL writes it, with the names that its types have now.
pub(super) fn column_default(
    context: &VirtualContext<'_>,
    default: &str,
    data_type: rustydb_types::datatype::DataType,
) -> String {
    shown_text(context, &definition::default_text(default, data_type))
}
