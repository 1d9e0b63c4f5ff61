//! CREATE TABLE, CREATE INDEX, CREATE SCHEMA.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustydb_txn::{TableLockMode, Transaction};
use rustydb_types::ids::{ColumnId, Oid};
use sqlparser::ast::{
    self, ColumnOption, CreateIndex, CreateTable, CreateTableOptions, Expr as AstExpr, Ident, IndexColumn,
    IndexType, SchemaName, SqlOption, TableConstraint,
};

use super::check::{self, CheckSpec};
use super::foreign::{self, ForeignKeySpec};
use super::sequence::{self, SequenceSpec};
use super::{Demand, change, change_of, current, like, lock_table, relation_exists, skipped, temporary};
use crate::bind::errors::{at, fail, unsupported};
use crate::bind::from::last_ident;
use crate::bind::kept::{self, KeptFor};
use crate::bind::privilege::denied;
use crate::bind::{AnalyzeContext, Binder};
use crate::catalog::acl::{AclKind, Privileges};
use crate::catalog::descriptor::KnownTypes;
use crate::catalog::store::CatalogWriter;
use crate::catalog::{
    CatalogSnapshot, ColumnDescriptor, ComputedDescriptor, Identity, IndexDescriptor, IndexKeyColumn,
    IndexKind, SchemaDescriptor, StoredExpr, TableDescriptor,
};
use crate::error::{SqlError, SqlState};
use crate::exec::ExecContext;
use crate::scalar::catalogue::Volatility;

/// Most columns of a table.
pub(super) const COLUMN_COUNT_MAX: usize = 1600;
/// Most columns of an index.
const INDEX_COLUMN_COUNT_MAX: usize = 32;

/// A part of a key that is to be created.
#[derive(Clone, Debug)]
pub(super) struct KeyPart {
    /// The column; of an expression, what stands for it in the name of the index.
    pub name: Ident,
    /// The expression, if it is none.
    expr: Option<AstExpr>,
    /// The number of what is computed, once the table has it.
    computed: Option<ColumnId>,
    descending: bool,
    nulls_first: bool,
}

impl KeyPart {
    fn column(name: &Ident) -> Self {
        Self { name: name.clone(), expr: None, computed: None, descending: false, nulls_first: false }
    }
}

/// A key that is to be created.
#[derive(Clone, Debug)]
pub(super) struct KeySpec {
    /// The written name, if any.
    pub name: Option<String>,
    /// What it promises.
    pub kind: IndexKind,
    /// Its columns.
    pub columns: Vec<KeyPart>,
    /// The condition of the rows that it has, by the number of what is computed.
    pub predicate: Option<ColumnId>,
    /// INCLUDE.
    pub include: Vec<Ident>,
    /// Whether it belongs to a constraint.
    pub constraint: bool,
    /// Options in WITH.
    pub options: BTreeMap<String, String>,
}

/// CREATE TABLE.
pub(super) async fn table(
    create: &CreateTable,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<String, SqlError> {
    let now = current(txn, context)?;
    let Some(expanded) = like::expanded(create, &now)? else {
        return plain_table(create, txn, context).await;
    };
    let tag = plain_table(&expanded.create, txn, context).await?;
    for create in &expanded.indexes {
        index(create, txn, context).await?;
    }
    if !expanded.comments.is_empty() {
        let now = current(txn, context)?;
        let table = Binder::new(&now, &[]).table(&create.name)?;
        let mut catalog = change_of(table.oid, txn, context).await?;
        for (column, comment) in &expanded.comments {
            let found = table.column_index(column).and_then(|place| table.columns.get(place));
            if let Some(column) = found {
                catalog.put_comment((CLASS_RELATION, table.oid, column.id.get()), Some(comment)).await?;
            }
        }
    }
    Ok(tag)
}

/// `pg_class`, the class of comments on columns.
const CLASS_RELATION: u32 = 1259;

/// CREATE TABLE without LIKE.
async fn plain_table(
    create: &CreateTable,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<String, SqlError> {
    let refused = [
        (create.like.is_some(), "this form of LIKE"),
        (create.partition_by.is_some() || create.partition_of.is_some(), "a partitioned table"),
        (create.inherits.is_some(), "INHERITS"),
    ];
    if let Some((_, what)) = refused.iter().find(|(present, _)| *present) {
        return Err(unsupported(what));
    }
    let foreign_keys = foreign_keys(create)?;
    foreign::lock_referenced(&foreign_keys, Some(&create.name), txn, context).await?;
    let (mut catalog, now, schema) =
        temporary::begin_creation(&create.name, create.temporary, txn, context).await?;
    let binder = Binder::new(&now, &[]);
    let name = last_ident(&create.name)?.value;
    if now.catalog.has_relation(schema, &name) {
        if !create.if_not_exists {
            return Err(relation_exists(&name));
        }
        skipped(SqlState::DUPLICATE_TABLE, format!("relation \"{name}\" already exists"), context);
        return Ok("CREATE TABLE".into());
    }
    super::refuse_type_name(schema, &name, &now)?;
    let oid = catalog.new_oid()?;
    let mut table = TableDescriptor {
        oid,
        schema,
        name,
        owner: context.analyze.user_oid,
        acl: super::privileges::initial(&now.catalog, now.user_oid, AclKind::Table, schema),
        columns: Vec::new(),
        next_column: 1,
        indexes: Vec::new(),
        checks: Vec::new(),
        foreign_keys: Vec::new(),
        computed: Vec::new(),
        storage: catalog.new_storage()?,
        row_key: Vec::new(),
        options: table_options(&create.table_options)?,
        at_commit: temporary::at_commit(create.on_commit, schema)?,
        types: KnownTypes(Arc::clone(now.catalog.known_types())),
    };
    let (mut keys, mut checks, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
    let mut generated = Vec::new();
    for column in &create.columns {
        let mut declared = Declared {
            keys: &mut keys,
            checks: &mut checks,
            sequences: &mut sequences,
            generated: &mut generated,
        };
        add_column(&binder, &mut table, column, &mut declared, context)?;
    }
    for constraint in &create.constraints {
        match CheckSpec::of_constraint(constraint)? {
            Some(check) => checks.push(check),
            None if matches!(constraint, TableConstraint::ForeignKey(_)) => {}
            None => keys.push(key_of_constraint(constraint)?),
        }
    }
    if table.columns.len() > COLUMN_COUNT_MAX {
        let message = format!("tables can have at most {COLUMN_COUNT_MAX} columns");
        return Err(fail(SqlState::TOO_MANY_COLUMNS, message));
    }
    if keys.iter().filter(|key| key.kind == IndexKind::Primary).count() > 1 {
        let message = format!("multiple primary keys for table \"{}\" are not allowed", table.name);
        return Err(fail(SqlState::INVALID_TABLE_DEFINITION, message));
    }
    for (id, _) in &generated {
        if let Some(column) = table.columns.iter_mut().find(|column| column.id == *id) {
            column.generated = Some(StoredExpr::new("NULL".into()));
        }
    }
    for column in &generated {
        generate(&mut table, column, &now, context)?;
    }
    check::sort(&mut checks);
    check::add(&mut catalog, &now, &mut table, &checks, true, context)?;
    keys.sort_by_key(|key| key.kind != IndexKind::Primary);
    for key in &keys {
        add_index(&mut catalog, &now.catalog, &mut table, key)?;
    }
    // Rows of a table with a primary key are stored by it: no second lookup, no second write.
    if let Some(primary) = table.indexes.iter_mut().find(|index| index.kind == IndexKind::Primary) {
        primary.storage = table.storage;
        table.row_key = primary.key.iter().map(|part| part.column).collect();
    }
    foreign::add(&mut catalog, &now, &mut table, (&foreign_keys, Some(&create.name)))?;
    sequence::create_for_columns(&sequences, &mut table, &now.catalog, &mut catalog, context).await?;
    catalog.put_table(&table).await?;
    Ok("CREATE TABLE".into())
}

/// The foreign keys that a CREATE TABLE declares, those behind columns first.
fn foreign_keys(create: &CreateTable) -> Result<Vec<ForeignKeySpec>, SqlError> {
    let mut specs = Vec::new();
    for column in &create.columns {
        specs.extend(foreign_keys_of(column)?);
    }
    for constraint in &create.constraints {
        specs.extend(ForeignKeySpec::of_constraint(constraint)?);
    }
    Ok(specs)
}

/// The foreign keys that a column declares.
pub(super) fn foreign_keys_of(column: &ast::ColumnDef) -> Result<Vec<ForeignKeySpec>, SqlError> {
    let mut specs = Vec::new();
    for option in &column.options {
        if let ColumnOption::ForeignKey(key) = &option.option {
            specs.push(ForeignKeySpec::new(option.name.as_ref(), Some(&column.name), key)?);
        }
    }
    Ok(specs)
}

/// The options of a CREATE TABLE, kept as written.
pub(super) fn table_options(options: &CreateTableOptions) -> Result<BTreeMap<String, String>, SqlError> {
    let options = match options {
        CreateTableOptions::None => return Ok(BTreeMap::new()),
        CreateTableOptions::With(options) => options,
        _ => return Err(unsupported("this table option")),
    };
    let mut kept = BTreeMap::new();
    for option in options {
        match option {
            SqlOption::KeyValue { key, value } => {
                kept.insert(key.value.clone(), value.to_string().trim_matches('\'').to_owned());
            }
            SqlOption::Ident(name) => {
                kept.insert(name.value.clone(), "true".into());
            }
            _ => return Err(unsupported("this table option")),
        }
    }
    Ok(kept)
}

/// What the columns of a table declare beside themselves.
pub(super) struct Declared<'a> {
    /// Keys.
    pub keys: &'a mut Vec<KeySpec>,
    /// CHECK constraints.
    pub checks: &'a mut Vec<CheckSpec>,
    /// Sequences of serial and identity columns.
    pub sequences: &'a mut Vec<SequenceSpec>,
    /// Expressions of generated columns.
    pub generated: &'a mut Vec<(ColumnId, AstExpr)>,
}

/// Adds a column with its options.
pub(super) fn add_column(
    binder: &Binder<'_>,
    table: &mut TableDescriptor,
    column: &ast::ColumnDef,
    Declared { keys, checks, sequences, generated }: &mut Declared<'_>,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let name = &column.name.value;
    if table.column_index(name).is_some() {
        let message = format!("column \"{name}\" specified more than once");
        return Err(at(fail(SqlState::DUPLICATE_COLUMN, message), &column.name));
    }
    let written = column.data_type.to_string().to_lowercase();
    let serial = sequence::serial(&written);
    let declared_type = match serial {
        Some(base) => rustydb_types::datatype::DataType::from(base).into(),
        None => binder.declared_type(&column.data_type).map_err(|error| at(error, &column.name))?,
    };
    binder.require_type(declared_type)?;
    let data_type = declared_type.data_type();
    if !data_type.base.is_storable() {
        let message = format!("column \"{name}\" has pseudo-type {data_type}");
        return Err(fail(SqlState::INVALID_TABLE_DEFINITION, message));
    }
    let mut described = ColumnDescriptor {
        id: ColumnId::new(table.next_column),
        name: name.clone(),
        data_type: declared_type,
        not_null: serial.is_some(),
        default: None,
        missing: None,
        identity: None,
        generated: None,
        acl: None,
    };
    let mut declared = serial.map(|data_type| SequenceSpec {
        column: described.id,
        data_type,
        options: Vec::new(),
        is_identity: false,
        name: None,
    });
    let contradicts = |what: &str| {
        let message = format!("{what} for column \"{name}\" of table \"{}\"", table.name);
        Err(at(fail(SqlState::SYNTAX_ERROR, message), &column.name))
    };
    for option in &column.options {
        let constraint = option.name.as_ref().map(|name| name.value.clone());
        let key = |kind| KeySpec {
            name: constraint.clone(),
            kind,
            columns: vec![KeyPart::column(&column.name)],
            predicate: None,
            include: Vec::new(),
            constraint: true,
            options: BTreeMap::new(),
        };
        match &option.option {
            ColumnOption::Generated { sequence_options: Some(_), .. }
                if column.options.iter().any(|other| matches!(other.option, ColumnOption::Null)) =>
            {
                return contradicts("conflicting NULL/NOT NULL declarations");
            }
            ColumnOption::Null if declared.is_some() => {
                return contradicts("conflicting NULL/NOT NULL declarations");
            }
            ColumnOption::Null | ColumnOption::Collation(_) => {}
            ColumnOption::NotNull => described.not_null = true,
            ColumnOption::Default(_) if declared.as_ref().is_some_and(|spec| spec.is_identity) => {
                return contradicts("both default and identity specified");
            }
            ColumnOption::Default(_) if generated.iter().any(|(id, _)| *id == described.id) => {
                return contradicts("both default and generation expression specified");
            }
            ColumnOption::Default(_) if declared.is_some() => {
                return contradicts("multiple default values specified");
            }
            ColumnOption::Default(expr) => {
                described.default = check_default(binder, expr, &described, context)?;
            }
            ColumnOption::PrimaryKey(written) => {
                refuse_deferrable(written.characteristics.as_ref())?;
                keys.push(key(IndexKind::Primary));
            }
            ColumnOption::Unique(written) => {
                refuse_deferrable(written.characteristics.as_ref())?;
                keys.push(key(IndexKind::Unique));
            }
            // Among the constraints of the table.
            ColumnOption::ForeignKey(_) => {}
            ColumnOption::Check(check) => checks.push(CheckSpec::new(option.name.as_ref(), check)?),
            ColumnOption::Generated { generated_as, sequence_options: Some(options), .. } => {
                if declared.as_ref().is_some_and(|spec| spec.is_identity) {
                    return contradicts("multiple identity specifications");
                }
                if declared.is_some() || described.default.is_some() {
                    return contradicts("both default and identity specified");
                }
                sequence::check_identity(data_type, options)?;
                described.identity = Some(match generated_as {
                    ast::GeneratedAs::Always => Identity::Always,
                    _ => Identity::ByDefault,
                });
                described.not_null = true;
                declared = Some(SequenceSpec {
                    column: described.id,
                    data_type: data_type.base,
                    options: options.clone(),
                    is_identity: true,
                    name: None,
                });
            }
            ColumnOption::Generated { generation_expr: Some(expr), generation_expr_mode, .. } => {
                if *generation_expr_mode != Some(ast::GeneratedExpressionMode::Stored) {
                    return Err(unsupported("a generated column that is not STORED"));
                }
                if generated.iter().any(|(id, _)| *id == described.id) {
                    return contradicts("multiple generation clauses specified");
                }
                if described.identity.is_some() {
                    return contradicts("both identity and generation expression specified");
                }
                if described.default.is_some() || declared.is_some() {
                    return contradicts("both default and generation expression specified");
                }
                generated.push((described.id, expr.clone()));
            }
            ColumnOption::Generated { .. } | ColumnOption::Identity(_) => {
                return Err(unsupported("a generated column"));
            }
            other => return Err(unsupported(format!("column option {other}"))),
        }
    }
    sequences.extend(declared);
    table.next_column += 1;
    table.columns.push(described);
    Ok(())
}

/// A default of its column's type, as it is kept; none for NULL. Whether it fits the column's length shows when it is
/// used.
pub(super) fn check_default(
    binder: &Binder<'_>,
    expr: &AstExpr,
    column: &ColumnDescriptor,
    context: &ExecContext<'_>,
) -> Result<Option<StoredExpr>, SqlError> {
    kept::keep_default(binder.context, expr, column, &context.eval(&[])).map_err(|error| {
        if error.state() == SqlState::UNDEFINED_COLUMN {
            let message = "cannot use column reference in DEFAULT expression";
            let mut refused = fail(SqlState::FEATURE_NOT_SUPPORTED, message);
            refused.fields_mut().position = error.fields().position;
            refused
        } else {
            error
        }
    })
}

/// A key is checked row by row.
fn refuse_deferrable(characteristics: Option<&ast::ConstraintCharacteristics>) -> Result<(), SqlError> {
    let asked = characteristics.is_some_and(|asked| {
        asked.deferrable == Some(true) || asked.initially == Some(ast::DeferrableInitial::Deferred)
    });
    if asked { Err(unsupported("a DEFERRABLE PRIMARY KEY or UNIQUE constraint")) } else { Ok(()) }
}

/// The key that a table constraint declares.
pub(super) fn key_of_constraint(constraint: &TableConstraint) -> Result<KeySpec, SqlError> {
    let characteristics = match constraint {
        TableConstraint::PrimaryKey(key) => key.characteristics,
        TableConstraint::Unique(key) => key.characteristics,
        _ => None,
    };
    refuse_deferrable(characteristics.as_ref())?;
    match constraint {
        TableConstraint::Unique(key) if key.nulls_distinct == ast::NullsDistinctOption::NotDistinct => {
            return Err(unsupported("NULLS NOT DISTINCT"));
        }
        _ => {}
    }
    let (name, kind, columns, include) = match constraint {
        TableConstraint::PrimaryKey(key) => (&key.name, IndexKind::Primary, &key.columns, &key.include),
        TableConstraint::Unique(key) => (&key.name, IndexKind::Unique, &key.columns, &key.include),
        _ => return Err(unsupported("this constraint")),
    };
    Ok(KeySpec {
        name: name.as_ref().map(|name| name.value.clone()),
        kind,
        columns: key_columns(columns)?,
        predicate: None,
        include: include.to_vec(),
        constraint: true,
        options: BTreeMap::new(),
    })
}

fn key_columns(columns: &[IndexColumn]) -> Result<Vec<KeyPart>, SqlError> {
    columns
        .iter()
        .map(|part| {
            let (name, expr) = match &part.column.expr {
                AstExpr::Identifier(name) => (name.clone(), None),
                expr => {
                    let bare = crate::bind::select::strip(expr);
                    let name = match bare {
                        AstExpr::Function(call) => last_ident(&call.name)?,
                        _ => Ident::new("expr"),
                    };
                    (name, Some(bare.clone()))
                }
            };
            if let Some(class) = &part.operator_class {
                check_operator_class(&last_ident(class)?)?;
            }
            let options = &part.column.options;
            let descending = matches!(options.sort, Some(ast::OrderBySort::Desc));
            let nulls_first = options.nulls_first.unwrap_or(descending);
            Ok(KeyPart { name, expr, computed: None, descending, nulls_first })
        })
        .collect()
}

/// Refuses classes of operators that there are not. Under the collation that there is, those of patterns order as the
/// others do.
fn check_operator_class(name: &Ident) -> Result<(), SqlError> {
    const B_TREE: &str = "403";
    let is_known = include_str!("../pgcatalog/data/pg_opclass.tsv").lines().any(|line| {
        let mut fields = line.split('\t').skip(1);
        fields.next() == Some(B_TREE) && fields.next() == Some(name.value.as_str())
    });
    if is_known {
        return Ok(());
    }
    let message = format!("operator class \"{}\" does not exist for access method \"btree\"", name.value);
    Err(fail(SqlState::UNDEFINED_OBJECT, message))
}

/// Adds an index to a table's descriptor, with a storage of its own; its entries are not there yet.
pub(super) fn add_index(
    catalog: &mut CatalogWriter<'_>,
    now: &CatalogSnapshot,
    table: &mut TableDescriptor,
    spec: &KeySpec,
) -> Result<(), SqlError> {
    if spec.columns.len() > INDEX_COLUMN_COUNT_MAX {
        let message = format!("cannot use more than {INDEX_COLUMN_COUNT_MAX} columns in an index");
        return Err(fail(SqlState::TOO_MANY_COLUMNS, message));
    }
    let mut key = Vec::with_capacity(spec.columns.len());
    for KeyPart { name, computed, descending, nulls_first, .. } in &spec.columns {
        let (descending, nulls_first) = (*descending, *nulls_first);
        if let Some(column) = *computed {
            key.push(IndexKeyColumn { column, descending, nulls_first });
            continue;
        }
        let column = table.columns.iter_mut().find(|column| column.name == name.value).ok_or_else(|| {
            let subject = if spec.constraint { "named in key " } else { "" };
            at(
                fail(
                    SqlState::UNDEFINED_COLUMN,
                    format!("column \"{}\" {subject}does not exist", name.value),
                ),
                name,
            )
        })?;
        if spec.kind == IndexKind::Primary {
            column.not_null = true;
        }
        if spec.constraint && key.iter().any(|part: &IndexKeyColumn| part.column == column.id) {
            let what = if spec.kind == IndexKind::Primary { "primary key" } else { "unique" };
            let message = format!("column \"{}\" appears twice in {what} constraint", name.value);
            return Err(at(fail(SqlState::DUPLICATE_COLUMN, message), name));
        }
        let data_type = crate::bind::from::column_type(column.data_type);
        if !data_type.base.is_comparable() {
            let message = format!(
                "data type {} has no default operator class for access method \"btree\"",
                data_type.base
            );
            return Err(fail(SqlState::UNDEFINED_OBJECT, message).with_hint(
                "You must specify an operator class for the index or define a default operator class for the data type.",
            ));
        }
        key.push(IndexKeyColumn { column: column.id, descending, nulls_first });
    }
    let include = (spec.include.iter())
        .map(|name| {
            let found = table.columns.iter().find(|column| column.name == name.value);
            let message = format!("column \"{}\" does not exist", name.value);
            found.map(|column| column.id).ok_or_else(|| at(fail(SqlState::UNDEFINED_COLUMN, message), name))
        })
        .collect::<Result<Vec<ColumnId>, SqlError>>()?;
    let taken = |name: &str| {
        name == table.name
            || now.has_relation(table.schema, name)
            || table.indexes.iter().any(|index| index.name == name)
    };
    let name = match &spec.name {
        Some(name) if taken(name) => return Err(relation_exists(name)),
        Some(name) if spec.constraint && check::has_constraint(table, name) => {
            return Err(check::constraint_exists(name, &table.name));
        }
        Some(name) => name.clone(),
        None => {
            let own = spec.columns.iter().map(|part| &part.name);
            let names: Vec<&str> = own.chain(&spec.include).map(|name| name.value.as_str()).collect();
            let base = match (spec.kind, spec.constraint) {
                (IndexKind::Primary, _) => format!("{}_pkey", table.name),
                (_, true) => format!("{}_{}_key", table.name, names.join("_")),
                _ => format!("{}_{}_idx", table.name, names.join("_")),
            };
            let mut name = base.clone();
            let mut number = 0;
            while taken(&name) || (spec.constraint && check::is_taken(now, table, &name)) {
                number += 1;
                name = format!("{base}{number}");
            }
            name
        }
    };
    let index = IndexDescriptor {
        oid: catalog.new_oid()?,
        name,
        kind: spec.kind,
        key,
        storage: catalog.new_storage()?,
        constraint: if spec.constraint { Some(catalog.new_oid()?) } else { None },
        options: spec.options.clone(),
        predicate: spec.predicate,
        include,
    };
    table.indexes.push(index);
    Ok(())
}

/// Adds to a table what an index holds beside its columns: expressions, and the condition of its rows.
fn compute(
    table: &mut TableDescriptor,
    spec: &mut KeySpec,
    predicate: Option<&AstExpr>,
    now: &AnalyzeContext,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    for part in &mut spec.columns {
        if let Some(expr) = &part.expr {
            part.computed = Some(add_computed(table, expr, KeptFor::IndexKey, now, context)?);
        }
    }
    if let Some(predicate) = predicate {
        spec.predicate = Some(add_computed(table, predicate, KeptFor::IndexPredicate, now, context)?);
    }
    Ok(())
}

fn add_computed(
    table: &mut TableDescriptor,
    expr: &AstExpr,
    kept_for: KeptFor,
    now: &AnalyzeContext,
    context: &ExecContext<'_>,
) -> Result<ColumnId, SqlError> {
    let (kept, bound) = kept::keep_row_expr(now, expr, table, kept_for, &context.eval(&[]))?;
    if bound.volatility() != Volatility::Immutable {
        let what = if kept_for == KeptFor::IndexKey { "expression" } else { "predicate" };
        let message = format!("functions in index {what} must be marked IMMUTABLE");
        return Err(fail(SqlState::INVALID_OBJECT_DEFINITION, message));
    }
    let data_type = bound.ty();
    let is_ordered = kept_for == KeptFor::IndexPredicate || data_type.base.is_comparable();
    if !is_ordered || !data_type.base.is_storable() {
        let message =
            format!("data type {} has no default operator class for access method \"btree\"", data_type.base);
        return Err(fail(SqlState::UNDEFINED_OBJECT, message).with_hint(
            "You must specify an operator class for the index or define a default operator class for the data type.",
        ));
    }
    let last = table.computed.iter().map(|computed| computed.id.get()).max();
    let id = ColumnId::new(last.map_or(ComputedDescriptor::FIRST, |last| last.saturating_add(1)));
    table.computed.push(ComputedDescriptor {
        id,
        expr: kept.text,
        data_type: data_type.into(),
        columns: kept.columns,
    });
    Ok(id)
}

/// Gives a column the expression that its values are computed from.
pub(super) fn generate(
    table: &mut TableDescriptor,
    (column, expr): &(ColumnId, AstExpr),
    now: &AnalyzeContext,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let Some(place) = table.column_index_of(*column) else { return Ok(()) };
    // It stands for those that may not stand in the expression, itself among them.
    if let Some(described) = table.columns.get_mut(place) {
        described.generated = Some(StoredExpr::new("NULL".into()));
    }
    let (kept, _) = kept::keep_row_expr(now, expr, table, KeptFor::Generated, &context.eval(&[]))?;
    let Some(described) = table.columns.get(place) else { return Ok(()) };
    let bound = Binder::new(now, &[]).bind_generated(&kept.text, described, table)?;
    if bound.volatility() != Volatility::Immutable {
        let message = "generation expression is not immutable";
        return Err(fail(SqlState::INVALID_OBJECT_DEFINITION, message));
    }
    if let Some(described) = table.columns.get_mut(place) {
        described.generated = Some(kept.text);
    }
    Ok(())
}

/// CREATE INDEX.
pub(super) async fn index(
    create: &CreateIndex,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<String, SqlError> {
    if create.nulls_distinct == Some(false) {
        return Err(unsupported("NULLS NOT DISTINCT"));
    }
    if let Some(method) = &create.using
        && !matches!(method, IndexType::BTree)
    {
        return Err(other_access_method(method));
    }
    let mut spec = KeySpec {
        name: create.name.as_ref().map(last_ident).transpose()?.map(|name| name.value),
        kind: if create.unique { IndexKind::Unique } else { IndexKind::Plain },
        columns: key_columns(&create.columns)?,
        predicate: None,
        include: create.include.clone(),
        constraint: false,
        options: create
            .with
            .iter()
            .filter_map(|option| {
                let text = option.to_string();
                text.split_once('=').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            })
            .collect(),
    };
    let Some(mut table) =
        lock_table(&create.table_name, false, (TableLockMode::Share, Demand::Owner), txn, context).await?
    else {
        return Ok("CREATE INDEX".into());
    };
    let mut catalog = change_of(table.oid, txn, context).await?;
    let now = current(catalog.txn, context)?;
    if let Some(name) = &spec.name
        && create.if_not_exists
        && now.catalog.has_relation(table.schema, name)
    {
        skipped(SqlState::DUPLICATE_TABLE, format!("relation \"{name}\" already exists"), context);
        return Ok("CREATE INDEX".into());
    }
    compute(&mut table, &mut spec, create.predicate.as_ref(), &now, context)?;
    add_index(&mut catalog, &now.catalog, &mut table, &spec)?;
    catalog.put_table(&table).await?;
    super::alter::fill_index(&table, table.indexes.len().saturating_sub(1), txn, context).await?;
    Ok("CREATE INDEX".into())
}

/// Every index is a B-tree: one that is not would not answer what the others are made for.
fn other_access_method(method: &IndexType) -> SqlError {
    let name = method.to_string().to_lowercase();
    if matches!(name.as_str(), "hash" | "gin" | "gist" | "spgist" | "brin") {
        return unsupported(format!("access method \"{name}\""))
            .with_hint("Indexes are of the method btree.");
    }
    fail(SqlState::UNDEFINED_OBJECT, format!("access method \"{name}\" does not exist"))
}

/// CREATE SCHEMA.
pub(super) async fn schema(
    written: &SchemaName,
    if_not_exists: bool,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let name = match written {
        SchemaName::Simple(name) | SchemaName::NamedAuthorization(name, _) => last_ident(name)?.value,
        SchemaName::UnnamedAuthorization(role) => role.value.clone(),
    };
    if name.starts_with("pg_") {
        return Err(fail(SqlState::RESERVED_NAME, format!("unacceptable schema name \"{name}\""))
            .with_detail("The prefix \"pg_\" is reserved for system schemas."));
    }
    let mut catalog = change(txn, context).await?;
    let now = current(catalog.txn, context)?;
    if now.catalog.schema_named(&name).is_some() {
        let message = format!("schema \"{name}\" already exists");
        if !if_not_exists {
            return Err(fail(SqlState::DUPLICATE_SCHEMA, message));
        }
        skipped(SqlState::DUPLICATE_SCHEMA, message, context);
        return Ok(());
    }
    if !now.authority.database.has(Privileges::CREATE) {
        return Err(denied("database", &now.database));
    }
    let oid: Oid = catalog.new_oid()?;
    let mut schema = SchemaDescriptor { oid, name, owner: context.analyze.user_oid, acl: None };
    schema.acl = super::privileges::initial(&now.catalog, now.user_oid, AclKind::Schema, oid);
    catalog.put_schema(oid, Some(&schema)).await
}

/// ALTER SCHEMA.
pub(super) async fn alter_schema(
    alter: &ast::AlterSchema,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let name = last_ident(&alter.name)?.value;
    for operation in &alter.operations {
        let mut catalog = change(txn, context).await?;
        let now = current(catalog.txn, context)?;
        let Some(schema) = now.catalog.schema_named(&name) else {
            return Err(fail(SqlState::INVALID_SCHEMA_NAME, format!("schema \"{name}\" does not exist")));
        };
        now.authority.require_owner(schema.owner, "schema", &name)?;
        match operation {
            ast::AlterSchemaOperation::OwnerTo { owner } => {
                let new = super::privileges::new_owner(owner, None, &now, context)?;
                let mut changed = schema.as_ref().clone();
                super::privileges::change_owner(&mut changed.owner, &mut changed.acl, new);
                catalog.put_schema(schema.oid, Some(&changed)).await?;
            }
            ast::AlterSchemaOperation::Rename { name: other } => {
                let other = last_ident(other)?.value;
                if now.catalog.schema_named(&other).is_some() {
                    let message = format!("schema \"{other}\" already exists");
                    return Err(fail(SqlState::DUPLICATE_SCHEMA, message));
                }
                if other.starts_with("pg_") {
                    let message = format!("unacceptable schema name \"{other}\"");
                    return Err(fail(SqlState::RESERVED_NAME, message)
                        .with_detail("The prefix \"pg_\" is reserved for system schemas."));
                }
                if matches!(name.as_str(), "pg_catalog" | "information_schema") {
                    let message = format!("permission denied: \"{name}\" is a system schema");
                    return Err(fail(SqlState::INSUFFICIENT_PRIVILEGE, message));
                }
                let renamed = SchemaDescriptor { name: other, ..schema.as_ref().clone() };
                catalog.put_schema(schema.oid, Some(&renamed)).await?;
            }
            other => return Err(unsupported(format!("ALTER SCHEMA {other}"))),
        }
    }
    Ok(())
}
