//! Relations about tables, indexes, columns and constraints.

use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::ids::Oid;
use rustydb_types::keycodec::{self, KeyOrder};
use rustydb_types::value::{ArrayValue, Value};

use super::relation::Rows;
use super::{definition, facts, sequences, shape};
use crate::catalog::acl::Privileges;
use crate::catalog::statistics::KeyBytes;
use crate::catalog::virtual_table::VirtualContext;
use crate::catalog::{
    CheckDescriptor, ColumnDescriptor, ForeignKeyDescriptor, Identity, IndexDescriptor, IndexKind,
    StoredExpr, TableDescriptor, snapshot,
};

/// `pg_am.oid` of tables.
const HEAP: u32 = 2;
/// `pg_am.oid` of indexes.
const BTREE: u32 = 403;
/// Bytes in a page, as the estimates count them.
const PAGE_BYTES: f64 = 8192.0;

/// A text-like value.
pub(super) fn text(text: impl AsRef<str>) -> Value {
    Value::text(text)
}

/// A number of an object.
pub(super) fn oid(oid: Oid) -> Value {
    Value::Oid(oid.get())
}

/// A count that fits everywhere where PostgreSQL's limits hold.
pub(super) fn int2(number: usize) -> Value {
    Value::Int2(i16::try_from(number).unwrap_or(i16::MAX))
}

/// Whether NULL is refused in the column.
pub(super) fn is_not_null(table: &TableDescriptor, column: &ColumnDescriptor) -> bool {
    column.not_null
        || table.primary_key().is_some_and(|key| key.key.iter().any(|part| part.column == column.id))
}

/// `attnum` of a column.
pub(super) fn attnum(column: rustydb_types::ids::ColumnId) -> i16 {
    i16::try_from(column.get()).unwrap_or(i16::MAX)
}

/// Names of the tables' schemas; a table never outlives its schema.
pub(super) fn schema_name<'a>(context: &VirtualContext<'a>, schema: Oid) -> &'a str {
    context.catalog.schema(schema).map_or("", |schema| schema.name.as_str())
}

/// Every index with its table, in the order of the tables.
pub(super) fn indexes<'a>(
    context: &VirtualContext<'a>,
) -> impl Iterator<Item = (&'a TableDescriptor, &'a IndexDescriptor)> {
    context.catalog.tables().flat_map(|table| table.indexes.iter().map(move |index| (&**table, index)))
}

/// Every CHECK constraint with its table, in the order of the tables.
pub(super) fn checks<'a>(
    context: &VirtualContext<'a>,
) -> impl Iterator<Item = (&'a TableDescriptor, &'a CheckDescriptor)> {
    context.catalog.tables().flat_map(|table| table.checks.iter().map(move |check| (&**table, check)))
}

/// Every foreign key with its table, in the order of the tables.
pub(super) fn foreign_keys<'a>(
    context: &VirtualContext<'a>,
) -> impl Iterator<Item = (&'a TableDescriptor, &'a ForeignKeyDescriptor)> {
    context.catalog.tables().flat_map(|table| table.foreign_keys.iter().map(move |key| (&**table, key)))
}

/// Whether a table refers to one by a foreign key, or is referred to.
fn has_foreign_keys(context: &VirtualContext<'_>, table: &TableDescriptor) -> bool {
    !table.foreign_keys.is_empty() || context.catalog.referencing(table.oid).next().is_some()
}

/// `pg_namespace`
pub(super) fn pg_namespace(context: &VirtualContext<'_>) -> Rows {
    let row = |schema: &crate::catalog::SchemaDescriptor| {
        // Those of the system are as they came, which is not told.
        let said = schema.acl.as_ref().filter(|_| {
            schema.owner != snapshot::BOOTSTRAP_ROLE || schema.oid.get() >= Oid::FIRST_USER.get()
        });
        let acl = super::privileges::acl(context, said);
        vec![oid(schema.oid), text(&schema.name), oid(schema.owner), acl]
    };
    context.catalog.schemas().map(|schema| row(schema)).collect()
}

/// What differs between rows of `pg_class`.
struct Class<'a> {
    oid: u32,
    name: &'a str,
    schema: Oid,
    owner: Oid,
    access_method: u32,
    file: u32,
    pages: i32,
    tuples: f32,
    has_index: bool,
    kind: &'static str,
    columns: usize,
    checks: usize,
    has_triggers: bool,
    identity: &'static str,
    options: Value,
    acl: Value,
}

impl Class<'_> {
    fn row(self) -> Vec<Value> {
        let no = Value::Bool(false);
        vec![
            Value::Oid(self.oid),
            text(self.name),
            oid(self.schema),
            Value::Oid(0), // reltype
            Value::Oid(0), // reloftype
            oid(self.owner),
            Value::Oid(self.access_method),
            Value::Oid(self.file),
            Value::Oid(0), // reltablespace
            Value::Int4(self.pages),
            Value::Float4(self.tuples),
            Value::Int4(0), // relallvisible
            Value::Oid(0),  // reltoastrelid
            Value::Bool(self.has_index),
            no.clone(),                                               // relisshared
            text(if self.schema.is_temporary() { "t" } else { "p" }), // relpersistence
            text(self.kind),
            int2(self.columns),
            int2(self.checks),
            Value::Bool(self.kind == "v"), // relhasrules
            Value::Bool(self.has_triggers),
            no.clone(),        // relhassubclass
            no.clone(),        // relrowsecurity
            no.clone(),        // relforcerowsecurity
            Value::Bool(true), // relispopulated
            text(self.identity),
            no,            // relispartition
            Value::Oid(0), // relrewrite
            Value::Oid(0), // relfrozenxid
            Value::Oid(0), // relminmxid
            self.acl,
            self.options,
            Value::Null, // relpartbound
        ]
    }
}

fn options(options: &std::collections::BTreeMap<String, String>) -> Value {
    if options.is_empty() {
        return Value::Null;
    }
    let words = options.iter().map(|(name, value)| text(format!("{name}={value}"))).collect();
    Value::array(BaseType::Text, words)
}

/// `pg_class`
pub(super) fn pg_class(context: &VirtualContext<'_>) -> Rows {
    let mut rows = Rows::new();
    for relation in context.registry.iter() {
        let kind = shape::find(relation.schema(), relation.name()).map_or("v", |shape| shape.kind);
        let class = Class {
            oid: relation.oid(),
            name: relation.name(),
            schema: virtual_schema(context, relation.schema()),
            owner: snapshot::BOOTSTRAP_ROLE,
            access_method: if kind == "r" { HEAP } else { 0 },
            file: 0,
            pages: 0,
            tuples: -1.0,
            has_index: false,
            kind,
            columns: relation.columns().len(),
            checks: 0,
            has_triggers: false,
            identity: "n",
            acl: Value::Null,
            options: Value::Null,
        };
        rows.push(class.row());
    }
    for table in context.catalog.tables() {
        let statistics = context.catalog.statistics(table.oid);
        let bytes = statistics.map_or(0.0, |statistics| statistics.bytes);
        let class = Class {
            oid: table.oid.get(),
            name: &table.name,
            schema: table.schema,
            owner: table.owner,
            access_method: HEAP,
            file: table.storage.get(),
            pages: (bytes / PAGE_BYTES).ceil() as i32,
            tuples: statistics.map_or(-1.0, |statistics| statistics.rows as f32),
            has_index: !table.indexes.is_empty(),
            kind: "r",
            columns: table.columns.iter().map(|column| column.id.get() as usize).max().unwrap_or(0),
            checks: table.checks.len(),
            // Foreign keys are kept by triggers there, and clients ask for the keys of those tables alone.
            has_triggers: has_foreign_keys(context, table),
            identity: "d",
            acl: super::privileges::acl(context, table.acl.as_ref()),
            options: options(&table.options),
        };
        rows.push(class.row());
    }
    for sequence in context.catalog.sequences() {
        let class = Class {
            oid: sequence.oid.get(),
            name: &sequence.name,
            schema: sequence.schema,
            owner: sequence.owner,
            access_method: 0,
            file: sequence.oid.get(),
            pages: 1,
            tuples: 1.0,
            has_index: false,
            kind: "S",
            columns: 3,
            checks: 0,
            has_triggers: false,
            identity: "n",
            acl: super::privileges::acl(context, sequence.acl.as_ref()),
            options: Value::Null,
        };
        rows.push(class.row());
    }
    for view in context.catalog.views() {
        let class = Class {
            oid: view.oid.get(),
            name: &view.name,
            schema: view.schema,
            owner: view.owner,
            access_method: 0,
            file: 0,
            pages: 0,
            tuples: -1.0,
            has_index: false,
            kind: "v",
            columns: view.columns.len(),
            checks: 0,
            has_triggers: false,
            identity: "n",
            acl: super::privileges::acl(context, view.acl.as_ref()),
            options: super::views::options(view),
        };
        rows.push(class.row());
    }
    for (table, index) in indexes(context) {
        let tuples = context.catalog.statistics(table.oid).map_or(0.0, |statistics| statistics.rows as f32);
        let class = Class {
            oid: index.oid.get(),
            name: &index.name,
            schema: table.schema,
            owner: table.owner,
            access_method: BTREE,
            file: index.storage.get(),
            pages: 1,
            tuples,
            has_index: false,
            kind: "i",
            columns: index.key.len(),
            checks: 0,
            has_triggers: false,
            identity: "n",
            acl: Value::Null,
            options: options(&index.options),
        };
        rows.push(class.row());
    }
    rows
}

fn virtual_schema(context: &VirtualContext<'_>, name: &str) -> Oid {
    context.catalog.schema_named(name).map_or(snapshot::PG_CATALOG, |schema| schema.oid)
}

/// What differs between rows of `pg_attribute`.
struct Attribute<'a> {
    relation: u32,
    name: &'a str,
    data_type: DataType,
    type_oid: u32,
    number: i16,
    not_null: bool,
    has_default: bool,
    has_missing: bool,
    identity: Option<Identity>,
    is_generated: bool,
    acl: Value,
}

impl Attribute<'_> {
    fn row(self) -> Vec<Value> {
        // A column that is gone has no type.
        let facts = if self.type_oid == 0 { facts::of_type(0) } else { facts::of_data_type(self.data_type) };
        vec![
            Value::Oid(self.relation),
            text(self.name),
            Value::Oid(self.type_oid),
            Value::Int4(-1), // attstattarget
            Value::Int2(self.data_type.base.type_len()),
            Value::Int2(self.number),
            Value::Int4(i32::from(
                self.data_type.base.category() == rustydb_types::datatype::Category::Array,
            )),
            Value::Int4(-1), // attcacheoff
            Value::Int4(self.data_type.modifier),
            Value::Bool(facts.by_value),
            text(facts.align),
            text(facts.storage),
            text(""), // attcompression
            Value::Bool(self.not_null),
            Value::Bool(self.has_default),
            Value::Bool(self.has_missing),
            text(match self.identity {
                Some(Identity::Always) => "a",
                Some(Identity::ByDefault) => "d",
                None => "",
            }), // attidentity
            text(if self.is_generated { "s" } else { "" }), // attgenerated
            Value::Bool(false),                             // attisdropped
            Value::Bool(true),                              // attislocal
            Value::Int4(0),                                 // attinhcount
            Value::Oid(facts.collation),
            self.acl,
            Value::Null, // attoptions
            Value::Null, // attfdwoptions
            Value::Null, // attmissingval
        ]
    }
}

/// The type of a stored column; one that this release does not know counts as text.
pub(super) fn column_type(column: &ColumnDescriptor) -> DataType {
    column.data_type.data_type()
}

/// `pg_attribute`
pub(super) fn pg_attribute(context: &VirtualContext<'_>) -> Rows {
    let mut rows = Rows::new();
    for relation in context.registry.iter() {
        let not_null = shape::find(relation.schema(), relation.name()).map(|shape| shape.not_null.as_slice());
        for (place, column) in relation.columns().iter().enumerate() {
            let attribute = Attribute {
                relation: relation.oid(),
                name: column.name,
                data_type: column.data_type,
                type_oid: column.data_type.oid(),
                number: i16::try_from(place + 1).unwrap_or(i16::MAX),
                not_null: not_null.and_then(|flags| flags.get(place)).copied().unwrap_or(false),
                has_default: false,
                has_missing: false,
                identity: None,
                is_generated: false,
                acl: Value::Null,
            };
            rows.push(attribute.row());
        }
    }
    for table in context.catalog.tables() {
        rows.extend(dropped_columns(table));
        for column in &table.columns {
            let attribute = Attribute {
                relation: table.oid.get(),
                name: &column.name,
                data_type: column_type(column),
                type_oid: column.data_type.oid,
                number: attnum(column.id),
                not_null: is_not_null(table, column),
                has_default: shown_default(column).is_some(),
                has_missing: column.missing.is_some(),
                identity: column.identity,
                is_generated: column.generated.is_some(),
                acl: super::privileges::acl(context, column.acl.as_ref()),
            };
            rows.push(attribute.row());
        }
    }
    for sequence in context.catalog.sequences() {
        let columns =
            [("last_value", DataType::INT8), ("log_cnt", DataType::INT8), ("is_called", DataType::BOOL)];
        for ((name, data_type), number) in columns.into_iter().zip(1..) {
            let attribute = Attribute {
                relation: sequence.oid.get(),
                name,
                data_type,
                type_oid: data_type.oid(),
                number,
                not_null: true,
                has_default: false,
                has_missing: false,
                identity: None,
                is_generated: false,
                acl: Value::Null,
            };
            rows.push(attribute.row());
        }
    }
    for view in context.catalog.views() {
        for (shown, data_type, number) in super::views::columns(view) {
            let attribute = Attribute {
                relation: view.oid.get(),
                name: &shown.name,
                data_type,
                type_oid: shown.data_type.oid,
                number,
                not_null: false,
                has_default: false,
                has_missing: false,
                identity: None,
                is_generated: false,
                acl: Value::Null,
            };
            rows.push(attribute.row());
        }
    }
    for table in context.catalog.tables() {
        for index in &table.indexes {
            let parts = index.key.iter().map(|part| part.column).chain(index.include.iter().copied());
            for (place, id) in parts.enumerate() {
                let column = table.column_index_of(id).and_then(|at| table.columns.get(at));
                let computed = table.computed_of(id);
                let named = computed.map(|computed| (index_column_name(table, computed), computed.data_type));
                let named = named.or_else(|| column.map(|column| (column.name.clone(), column.data_type)));
                let Some((name, stored)) = named else { continue };
                let attribute = Attribute {
                    relation: index.oid.get(),
                    name: &name,
                    data_type: crate::bind::from::column_type(stored),
                    type_oid: stored.oid,
                    number: i16::try_from(place + 1).unwrap_or(i16::MAX),
                    not_null: false,
                    has_default: false,
                    has_missing: false,
                    identity: None,
                    is_generated: false,
                    acl: Value::Null,
                };
                rows.push(attribute.row());
            }
        }
    }
    rows
}

/// The name that PostgreSQL gives to a column of an index that is an expression.
fn index_column_name(table: &TableDescriptor, computed: &crate::catalog::ComputedDescriptor) -> String {
    let text = definition::computed(table, computed, false);
    let call = text.split_once('(').map(|(name, _)| name).filter(|name| !name.is_empty());
    call.unwrap_or("expr").to_owned()
}

/// The rows of columns that are no more: who reads `pg_attribute` counts on numbers without gaps.
fn dropped_columns(table: &TableDescriptor) -> impl Iterator<Item = Vec<Value>> + '_ {
    let is_gone = |id: &u32| table.columns.iter().all(|column| column.id.get() != *id);
    (1..table.next_column).filter(is_gone).map(|id| {
        let name = format!("........pg.dropped.{id}........");
        let attribute = Attribute {
            relation: table.oid.get(),
            name: &name,
            data_type: DataType::TEXT,
            type_oid: 0,
            number: i16::try_from(id).unwrap_or(i16::MAX),
            not_null: false,
            has_default: false,
            has_missing: false,
            identity: None,
            is_generated: false,
            acl: Value::Null,
        };
        let mut row = attribute.row();
        if let Some(is_dropped) = row.get_mut(IS_DROPPED) {
            *is_dropped = Value::Bool(true);
        }
        row
    })
}

/// The place of `attisdropped` in a row of `pg_attribute`.
const IS_DROPPED: usize = 18;

/// A column's default as PostgreSQL shows it: that of an identity column is its sequence alone.
pub(super) fn shown_default(column: &ColumnDescriptor) -> Option<&str> {
    let default = column.generated.as_ref().or(column.default.as_ref());
    default.map(StoredExpr::as_str).filter(|_| column.identity.is_none())
}

/// The number of a column's default: see [`pg_attrdef`].
pub(super) fn default_number(table: Oid, column: rustydb_types::ids::ColumnId) -> u32 {
    (table.get().wrapping_mul(2048).wrapping_add(column.get())) | (1 << 31)
}

/// `pg_attrdef`. Defaults are part of their columns and have no identifiers; the number given here is made of the
/// table's and the column's, and lies above those that objects get.
pub(super) fn pg_attrdef(context: &VirtualContext<'_>) -> Rows {
    let mut rows = Rows::new();
    for table in context.catalog.tables() {
        for column in &table.columns {
            let Some(default) = shown_default(column) else { continue };
            rows.push(vec![
                Value::Oid(default_number(table.oid, column.id)),
                oid(table.oid),
                Value::Int2(attnum(column.id)),
                text(sequences::default_text(context, default, column_type(column))),
            ]);
        }
    }
    rows
}

/// `pg_index`
pub(super) fn pg_index(context: &VirtualContext<'_>) -> Rows {
    let vector = |element, values: Vec<Value>| Value::Array(Box::new(ArrayValue::vector(element, values)));
    let mut rows = Rows::new();
    for (table, index) in indexes(context) {
        let types: Vec<DataType> = (index.key.iter())
            .map(|part| {
                let column = table.column_index_of(part.column).and_then(|place| table.columns.get(place));
                let computed = table.computed_of(part.column).map(|computed| computed.data_type);
                let stored = column.map(|column| column.data_type).or(computed);
                stored.map_or(DataType::TEXT, crate::catalog::TypeRef::data_type)
            })
            .collect();
        let number = |id: rustydb_types::ids::ColumnId| {
            Value::Int2(if table.computed_of(id).is_some() { 0 } else { attnum(id) })
        };
        let key = index.key.iter().map(|part| part.column);
        let keys = key.chain(index.include.iter().copied()).map(number).collect();
        let exprs: Vec<&str> = (index.key.iter())
            .filter_map(|part| table.computed_of(part.column))
            .map(|computed| computed.expr.as_str())
            .collect();
        let predicate = index.predicate.and_then(|id| table.computed_of(id));
        let collations = types.iter().map(|ty| Value::Oid(facts::of_data_type(*ty).collation)).collect();
        let classes = types.iter().map(|ty| Value::Oid(facts::operator_class(ty.base))).collect();
        let flags = (index.key.iter())
            .map(|part| Value::Int2(i16::from(part.descending) | i16::from(part.nulls_first) << 1))
            .collect();
        let (yes, no) = (Value::Bool(true), Value::Bool(false));
        rows.push(vec![
            oid(index.oid),
            oid(table.oid),
            int2(index.key.len() + index.include.len()),
            int2(index.key.len()),
            Value::Bool(index.is_unique()),
            no.clone(), // indnullsnotdistinct
            Value::Bool(index.kind == IndexKind::Primary),
            no.clone(),  // indisexclusion
            yes.clone(), // indimmediate
            no.clone(),  // indisclustered
            yes.clone(), // indisvalid
            no.clone(),  // indcheckxmin
            yes.clone(), // indisready
            yes,         // indislive
            no,          // indisreplident
            vector(BaseType::Int2, keys),
            vector(BaseType::Oid, collations),
            vector(BaseType::Oid, classes),
            vector(BaseType::Int2, flags),
            if exprs.is_empty() { Value::Null } else { text(exprs.join(", ")) }, // indexprs
            predicate.map_or(Value::Null, |predicate| text(predicate.expr.as_str())), // indpred
        ]);
    }
    rows
}

/// What differs between rows of `pg_constraint`.
struct Constraint<'a> {
    oid: Oid,
    name: &'a str,
    kind: &'static str,
    validated: bool,
    index: u32,
    no_inherit: bool,
    columns: Vec<Value>,
    condition: Value,
    foreign: Option<&'a ForeignKeyDescriptor>,
}

impl Constraint<'_> {
    fn row(self, table: &TableDescriptor) -> Vec<Value> {
        self.of(table.schema, (table.oid, Oid::new(0)))
    }

    fn of_domain(self, domain: &crate::catalog::TypeDescriptor) -> Vec<Value> {
        self.of(domain.schema, (Oid::new(0), domain.oid))
    }

    fn of(self, schema: Oid, (table, domain): (Oid, Oid)) -> Vec<Value> {
        let mut row = vec![
            oid(self.oid),
            text(self.name),
            oid(schema),
            text(self.kind),
            Value::Bool(self.foreign.is_some_and(|key| key.deferrable.is_some())),
            Value::Bool(self.foreign.is_some_and(|key| key.deferrable == Some(true))),
            Value::Bool(self.validated),
            oid(table),
            oid(domain),
            Value::Oid(self.index),
            Value::Oid(0), // conparentid
            self.foreign.map_or(Value::Oid(0), |key| oid(key.table)),
            text(self.foreign.map_or(' ', |key| key.on_update.letter()).to_string()),
            text(self.foreign.map_or(' ', |key| key.on_delete.letter()).to_string()),
            text(self.foreign.map_or(" ", |key| if key.is_full { "f" } else { "s" })),
            Value::Bool(true), // conislocal
            Value::Int4(0),    // coninhcount
            Value::Bool(self.no_inherit),
            match self.columns.is_empty() {
                true => Value::Null,
                false => Value::array(BaseType::Int2, self.columns),
            },
        ];
        row.push(self.foreign.map_or(Value::Null, |key| {
            let referenced = key.referenced.iter().map(|column| Value::Int2(attnum(*column)));
            Value::array(BaseType::Int2, referenced.collect())
        }));
        // conpfeqop, conppeqop, conffeqop: what compares keys is not told. confdelsetcols, conexclop: of other constraints.
        row.resize(25, Value::Null);
        row.push(self.condition);
        row
    }
}

/// `pg_constraint`
pub(super) fn pg_constraint(context: &VirtualContext<'_>) -> Rows {
    let mut rows = Rows::new();
    for (table, index) in indexes(context) {
        let Some(constraint) = index.constraint else { continue };
        let constraint = Constraint {
            oid: constraint,
            name: &index.name,
            kind: if index.kind == IndexKind::Primary { "p" } else { "u" },
            validated: true,
            index: index.oid.get(),
            no_inherit: true,
            columns: index.key.iter().map(|part| Value::Int2(attnum(part.column))).collect(),
            condition: Value::Null,
            foreign: None,
        };
        rows.push(constraint.row(table));
    }
    for (table, check) in checks(context) {
        let constraint = Constraint {
            oid: check.oid,
            name: &check.name,
            kind: "c",
            validated: check.validated,
            index: 0,
            no_inherit: check.no_inherit,
            columns: check.columns.iter().map(|column| Value::Int2(attnum(*column))).collect(),
            condition: text(check.expr.as_str()),
            foreign: None,
        };
        rows.push(constraint.row(table));
    }
    for (table, key) in foreign_keys(context) {
        let constraint = Constraint {
            oid: key.oid,
            name: &key.name,
            kind: "f",
            validated: key.validated,
            index: key.index.get(),
            no_inherit: true,
            columns: key.columns.iter().map(|column| Value::Int2(attnum(*column))).collect(),
            condition: Value::Null,
            foreign: Some(key),
        };
        rows.push(constraint.row(table));
    }
    for (domain, check) in super::types::domain_checks(context) {
        let constraint = Constraint {
            oid: check.oid,
            name: &check.name,
            kind: "c",
            validated: check.validated,
            index: 0,
            no_inherit: false,
            columns: Vec::new(),
            condition: text(check.expr.as_str()),
            foreign: None,
        };
        rows.push(constraint.of_domain(domain));
    }
    rows
}

/// `pg_description`
pub(super) fn pg_description(context: &VirtualContext<'_>) -> Rows {
    (context.catalog.comments())
        .map(|(class, object, sub, comment)| {
            let sub = i32::try_from(sub).unwrap_or(i32::MAX);
            vec![oid(object), Value::Oid(class), Value::Int4(sub), text(comment)]
        })
        .collect()
}

/// `pg_tables`
pub(super) fn pg_tables(context: &VirtualContext<'_>) -> Rows {
    let owner = |oid| context.system.roles.get(&oid).map_or(Value::Null, |role| text(&role.name));
    let row = |schema: &str, name: &str, owner, indexed, triggers| {
        let no = Value::Bool(false);
        let fixed = (Value::Bool(indexed), no.clone(), Value::Bool(triggers), no);
        vec![text(schema), text(name), owner, Value::Null, fixed.0, fixed.1, fixed.2, fixed.3]
    };
    let stored = context.catalog.tables().map(|table| {
        let (indexed, triggers) = (!table.indexes.is_empty(), has_foreign_keys(context, table));
        row(schema_name(context, table.schema), &table.name, owner(table.owner), indexed, triggers)
    });
    let system = (context.registry.iter())
        .filter(|relation| {
            shape::find(relation.schema(), relation.name()).is_some_and(|shape| shape.kind == "r")
        })
        .map(|relation| {
            row(relation.schema(), relation.name(), owner(snapshot::BOOTSTRAP_ROLE), false, false)
        });
    stored.chain(system).collect()
}

/// `pg_indexes`
pub(super) fn pg_indexes(context: &VirtualContext<'_>) -> Rows {
    indexes(context)
        .map(|(table, index)| {
            let schema = schema_name(context, table.schema);
            let definition = definition::index(table, index, Some(schema), false);
            let definition = super::types::shown_text(context, &definition);
            vec![text(schema), text(&table.name), text(&index.name), Value::Null, text(definition)]
        })
        .collect()
}

/// `pg_stats`: what ANALYZE found out.
pub(super) fn pg_stats(context: &VirtualContext<'_>) -> Rows {
    let viewer = super::visible::Viewer::of(context);
    let mut rows = Rows::new();
    for table in context.catalog.tables() {
        let Some(statistics) = context.catalog.statistics(table.oid) else { continue };
        for column in &table.columns {
            if viewer.as_ref().is_some_and(|own| !own.may_column(Privileges::SELECT, table, column)) {
                continue;
            }
            let Some(found) = statistics.columns.get(&column.id.get()) else { continue };
            let mut row = vec![
                text(schema_name(context, table.schema)),
                text(&table.name),
                text(&column.name),
                Value::Bool(false),
                Value::Float4(found.null_fraction as f32),
                Value::Int4(i32::try_from(found.width).unwrap_or(i32::MAX)),
                Value::Float4(found.distinct as f32),
            ];
            let base = column_type(column).base;
            let decoded =
                |bytes: &KeyBytes| keycodec::decode(&mut bytes.0.as_slice(), base, KeyOrder::ASCENDING).ok();
            let array = |values: Option<Vec<Value>>| match values {
                Some(values) if !values.is_empty() => Value::array(base, values),
                _ => Value::Null,
            };
            let shares: Vec<Value> =
                found.common.iter().map(|(_, share)| Value::Float4(*share as f32)).collect();
            row.push(array(found.common.iter().map(|(value, _)| decoded(value)).collect()));
            row.push(if shares.is_empty() { Value::Null } else { Value::array(BaseType::Float4, shares) });
            row.push(array(found.bounds.iter().map(decoded).collect()));
            row.resize(14, Value::Null);
            rows.push(row);
        }
    }
    rows
}
