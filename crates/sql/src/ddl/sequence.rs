//! CREATE SEQUENCE, ALTER SEQUENCE, DROP SEQUENCE, and the sequences of serial and identity columns.

use std::collections::BTreeMap;

use rustydb_txn::{TableLockId, TableLockMode, Transaction};
use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::ids::{ColumnId, Oid};
use sqlparser::ast::{
    self, AlterTable, AlterTableOperation, Expr as AstExpr, Ident, ObjectName, RenameTableNameKind,
    SequenceOptions, SqlOption,
};

use super::{change_of, current, not_there, privileges, relation_exists, skipped};
use crate::bind::Binder;
use crate::bind::errors::{fail, undefined_relation, unsupported};
use crate::bind::from::last_ident;
use crate::bind::sequence::{default_from, sequences_in};
use crate::catalog::acl::AclKind;
use crate::catalog::store::CatalogWriter;
use crate::catalog::{
    CatalogSnapshot, Identity, SequenceDescriptor, SequenceOwner, StoredExpr, TableDescriptor,
};
use crate::error::{SqlError, SqlState};
use crate::exec::ExecContext;
use crate::exec::sequence::Position;

/// Most bytes of a name.
const NAME_SIZE_MAX: usize = 63;

/// The sequence that a serial or identity column declares.
#[derive(Clone, Debug)]
pub(super) struct SequenceSpec {
    /// The column.
    pub column: ColumnId,
    /// The type of the column.
    pub data_type: BaseType,
    /// The written options.
    pub options: Vec<SequenceOptions>,
    /// Whether it is an identity column.
    pub is_identity: bool,
    /// The name that the sequence is to have, with its schema; chosen when absent.
    pub name: Option<(Oid, String)>,
}

/// The type that a serial type stands for.
pub(super) fn serial(written: &str) -> Option<BaseType> {
    Some(match written {
        "serial" | "serial4" => BaseType::Int4,
        "bigserial" | "serial8" => BaseType::Int8,
        "smallserial" | "serial2" => BaseType::Int2,
        _ => return None,
    })
}

fn invalid(message: impl Into<String>) -> SqlError {
    fail(SqlState::INVALID_PARAMETER_VALUE, message)
}

/// The number in an option.
fn number(expr: &AstExpr) -> Result<i64, SqlError> {
    let text = expr.to_string();
    let text = text.strip_prefix('+').unwrap_or(&text);
    text.parse().map_err(|_| {
        let message = format!("value \"{text}\" is out of range for type bigint");
        fail(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, message)
    })
}

/// The least and the largest number of a type.
fn bounds(data_type: BaseType) -> Option<(i64, i64)> {
    Some(match data_type {
        BaseType::Int2 => (i64::from(i16::MIN), i64::from(i16::MAX)),
        BaseType::Int4 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        BaseType::Int8 => (i64::MIN, i64::MAX),
        _ => return None,
    })
}

/// What the options say, checked as PostgreSQL checks it. The name, the owner and the mark are the caller's.
fn described(
    data_type: BaseType,
    options: &[SequenceOptions],
    is_identity: bool,
) -> Result<SequenceDescriptor, SqlError> {
    if bounds(data_type).is_none() {
        let subject = if is_identity { "identity column" } else { "sequence" };
        return Err(invalid(format!("{subject} type must be smallint, integer, or bigint")));
    }
    let (mut increment, mut min, mut max, mut start, mut cache, mut cycle) = (1, None, None, None, 1, false);
    for option in options {
        match option {
            SequenceOptions::IncrementBy(expr, _) => increment = number(expr)?,
            SequenceOptions::MinValue(expr) => min = expr.as_ref().map(number).transpose()?,
            SequenceOptions::MaxValue(expr) => max = expr.as_ref().map(number).transpose()?,
            SequenceOptions::StartWith(expr, _) => start = Some(number(expr)?),
            SequenceOptions::Cache(expr) => cache = number(expr)?,
            SequenceOptions::Cycle(is_off) => cycle = !is_off,
        }
    }
    let mut sequence = SequenceDescriptor {
        oid: Oid::new(0),
        schema: Oid::new(0),
        name: String::new(),
        owner: Oid::new(0),
        acl: None,
        data_type: data_type.oid(),
        start: start.unwrap_or(0),
        increment,
        min: 0,
        max: 0,
        cache,
        cycle,
        mark: 0,
        owned_by: None,
    };
    if start.is_none() {
        let default = |bound: Option<i64>, own| bound.unwrap_or(own);
        sequence.start = if increment > 0 { default(min, 1) } else { default(max, -1) };
    }
    let (min, max) = checked(&sequence, data_type, (min, max))?;
    (sequence.min, sequence.max) = (min, max);
    Ok(sequence)
}

/// The bounds of a sequence, where given or else of its type, when all of it fits together.
fn checked(
    sequence: &SequenceDescriptor,
    data_type: BaseType,
    (min, max): (Option<i64>, Option<i64>),
) -> Result<(i64, i64), SqlError> {
    let (least, largest) = bounds(data_type).unwrap_or((i64::MIN, i64::MAX));
    let (start, cache, increment) = (sequence.start, sequence.cache, sequence.increment);
    if increment == 0 {
        return Err(invalid("INCREMENT must not be zero"));
    }
    let shown = data_type.sql_name();
    let ascends = increment > 0;
    let max = max.unwrap_or(if ascends { largest } else { -1 });
    if !(least..=largest).contains(&max) {
        return Err(invalid(format!("MAXVALUE ({max}) is out of range for sequence data type {shown}")));
    }
    let min = min.unwrap_or(if ascends { 1 } else { least });
    if !(least..=largest).contains(&min) {
        return Err(invalid(format!("MINVALUE ({min}) is out of range for sequence data type {shown}")));
    }
    if min >= max {
        return Err(invalid(format!("MINVALUE ({min}) must be less than MAXVALUE ({max})")));
    }
    if start < min {
        return Err(invalid(format!("START value ({start}) cannot be less than MINVALUE ({min})")));
    }
    if start > max {
        return Err(invalid(format!("START value ({start}) cannot be greater than MAXVALUE ({max})")));
    }
    if cache <= 0 {
        return Err(invalid(format!("CACHE ({cache}) must be greater than zero")));
    }
    Ok((min, max))
}

/// `table_column_seq`, cut to the length of a name, with a number behind it where it is taken.
fn chosen_name(table: &str, column: &str, taken: impl Fn(&str) -> bool) -> String {
    let cut = |text: &str, size: usize| {
        let mut size = size.min(text.len());
        while !text.is_char_boundary(size) {
            size -= 1;
        }
        text.get(..size).unwrap_or_default().to_owned()
    };
    let (mut label, mut number) = ("seq".to_owned(), 0);
    loop {
        // The longer of the two names is cut first.
        let room = NAME_SIZE_MAX.saturating_sub(label.len() + 2);
        let (mut first, mut second) = (table.len(), column.len());
        while first + second > room {
            if first > second { first -= 1 } else { second -= 1 }
        }
        let name = format!("{}_{}_{label}", cut(table, first), cut(column, second));
        if !taken(&name) {
            return name;
        }
        number += 1;
        label = format!("seq{number}");
    }
}

/// Makes the sequences that the columns of a table declare, and lets the columns take their values from them.
pub(super) async fn create_for_columns(
    specs: &[SequenceSpec],
    table: &mut TableDescriptor,
    now: &CatalogSnapshot,
    catalog: &mut CatalogWriter<'_>,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let mut names: Vec<String> = Vec::new();
    for spec in specs {
        let mut sequence = described(spec.data_type, &spec.options, spec.is_identity)?;
        let Some(column) = table.columns.iter_mut().find(|column| column.id == spec.column) else { continue };
        let mut schema = table.schema;
        sequence.name = match &spec.name {
            Some((written, name)) => {
                if now.has_relation(*written, name) {
                    return Err(relation_exists(name));
                }
                schema = *written;
                name.clone()
            }
            None => chosen_name(&table.name, &column.name, |name| {
                name == table.name
                    || now.has_relation(table.schema, name)
                    || names.iter().any(|known| known == name)
                    || table.indexes.iter().any(|index| index.name == name)
            }),
        };
        names.push(sequence.name.clone());
        sequence.oid = catalog.new_oid()?;
        sequence.schema = schema;
        sequence.owner = table.owner;
        sequence.acl = privileges::initial(now, sequence.owner, AclKind::Sequence, schema);
        sequence.mark = catalog.new_mark(context.session.random());
        sequence.owned_by =
            Some(SequenceOwner { table: table.oid, column: spec.column, is_identity: spec.is_identity });
        column.default = Some(StoredExpr::new(default_from(sequence.oid)));
        column.not_null = true;
        catalog.put_sequence(&sequence).await?;
    }
    Ok(())
}

/// CREATE SEQUENCE.
#[expect(clippy::too_many_arguments, reason = "the fields of the parser's statement")]
pub(super) async fn create(
    temporary: bool,
    if_not_exists: bool,
    name: &ObjectName,
    data_type: Option<&ast::DataType>,
    options: &[SequenceOptions],
    owned_by: Option<&ObjectName>,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let (mut catalog, now, schema) = super::temporary::begin_creation(name, temporary, txn, context).await?;
    let binder = Binder::new(&now, &[]);
    let own_name = last_ident(name)?.value;
    if now.catalog.has_relation(schema, &own_name) {
        if !if_not_exists {
            return Err(relation_exists(&own_name));
        }
        skipped(SqlState::DUPLICATE_TABLE, format!("relation \"{own_name}\" already exists"), context);
        return Ok(());
    }
    super::refuse_type_name(schema, &own_name, &now)?;
    let data_type = data_type.map(|ty| binder.type_name(ty)).transpose()?;
    let mut sequence = described(data_type.map_or(BaseType::Int8, |ty| ty.base), options, false)?;
    sequence.owned_by = match owned_by {
        Some(column) => owner(&binder, column, schema)?,
        None => None,
    };
    sequence.oid = catalog.new_oid()?;
    (sequence.schema, sequence.name, sequence.owner) = (schema, own_name, context.analyze.user_oid);
    sequence.acl = privileges::initial(&now.catalog, sequence.owner, AclKind::Sequence, schema);
    sequence.mark = catalog.new_mark(context.session.random());
    catalog.put_sequence(&sequence).await
}

/// The column that OWNED BY names; `None` for NONE.
fn owner(binder: &Binder<'_>, written: &ObjectName, schema: Oid) -> Result<Option<SequenceOwner>, SqlError> {
    let mut parts = written.0.clone();
    let column = parts.pop().and_then(|part| part.as_ident().cloned());
    let Some(column) = column else { return Ok(None) };
    if parts.is_empty() {
        if column.value.eq_ignore_ascii_case("none") && column.quote_style.is_none() {
            return Ok(None);
        }
        return Err(fail(SqlState::SYNTAX_ERROR, "invalid OWNED BY option")
            .with_hint("Specify OWNED BY table.column or OWNED BY NONE."));
    }
    let table = binder.table(&ObjectName(parts))?;
    if table.schema != schema {
        return Err(fail(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "sequence must be in same schema as table it is linked to",
        ));
    }
    let found = table.column_index(&column.value).and_then(|place| table.columns.get(place));
    let Some(found) = found else {
        let message = format!("column \"{}\" of relation \"{}\" does not exist", column.value, table.name);
        return Err(fail(SqlState::UNDEFINED_COLUMN, message));
    };
    Ok(Some(SequenceOwner { table: table.oid, column: found.id, is_identity: false }))
}

/// Columns whose default takes values from a sequence.
fn users(catalog: &CatalogSnapshot, sequence: Oid) -> Vec<(Oid, ColumnId)> {
    let mut found = Vec::new();
    for table in catalog.tables() {
        for column in &table.columns {
            let names =
                column.default.as_ref().map(|default| sequences_in(default.as_str())).unwrap_or_default();
            if names.iter().any(|(_, oid)| *oid == sequence) {
                found.push((table.oid, column.id));
            }
        }
    }
    found
}

/// Whether an ALTER TABLE names a sequence, and changes only what sequences have in common with tables.
pub(super) fn is_meant(
    alter: &AlterTable,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<bool, SqlError> {
    let is_common = |operation: &AlterTableOperation| {
        matches!(operation, AlterTableOperation::RenameTable { .. } | AlterTableOperation::OwnerTo { .. })
    };
    if !alter.operations.iter().all(is_common) {
        return Ok(false);
    }
    let now = current(txn, context)?;
    let found = Binder::new(&now, &[]).find_relation(&alter.name)?;
    Ok(matches!(found, Some(crate::bind::context::Relation::Sequence(_))))
}

/// ALTER SEQUENCE.
pub(super) async fn alter(
    alter: &AlterTable,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let now = current(txn, context)?;
    // ALTER TABLE takes sequences, too, for what they have in common with tables.
    let found = Binder::new(&now, &[]).find_sequence(&alter.name)?.map(|sequence| sequence.oid);
    let Some(oid) = found else {
        if !alter.if_exists {
            return Err(undefined_relation(&alter.name));
        }
        let message = format!("relation \"{}\" does not exist", last_ident(&alter.name)?.value);
        skipped(SqlState::SUCCESSFUL_COMPLETION, message, context);
        return Ok(());
    };
    if let Some(found) = now.catalog.sequence(oid) {
        now.authority.require_owner(found.owner, "sequence", &found.name)?;
    }
    let lock = TableLockId::new(oid.get());
    txn.lock_table(lock, TableLockMode::AccessExclusive, context.lock_wait).await?;
    let mut catalog = change_of(oid, txn, context).await?;
    let now = current(catalog.txn, context)?;
    let Some(former) = now.catalog.sequence(oid).cloned() else {
        return Err(undefined_relation(&alter.name));
    };
    for operation in &alter.operations {
        match operation {
            AlterTableOperation::RenameTable { table_name: RenameTableNameKind::To(name) } => {
                let name = last_ident(name)?.value;
                if now.catalog.has_relation(former.schema, &name) {
                    return Err(relation_exists(&name));
                }
                catalog.put_sequence(&SequenceDescriptor { name, ..former.as_ref().clone() }).await?;
            }
            AlterTableOperation::OwnerTo { new_owner } => {
                let new = super::privileges::new_owner(new_owner, Some(former.schema), &now, context)?;
                let mut changed = former.as_ref().clone();
                super::privileges::change_owner(&mut changed.owner, &mut changed.acl, new);
                catalog.put_sequence(&changed).await?;
            }
            AlterTableOperation::SetOptionsParens { options } => {
                set_options(&former, options, &now, &mut catalog, context).await?;
            }
            other => return Err(unsupported(format!("ALTER SEQUENCE {other}"))),
        }
    }
    Ok(())
}

/// The clauses of ALTER SEQUENCE that say how it counts and whose it is. What was taken of it before counts as given
/// out; how it counts changes with the transaction.
async fn set_options(
    former: &SequenceDescriptor,
    options: &[SqlOption],
    now: &crate::bind::AnalyzeContext,
    catalog: &mut CatalogWriter<'_>,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let binder = Binder::new(now, &[]);
    let mut changed = former.clone();
    let (mut min, mut max, mut restart, mut counts) = (Some(former.min), Some(former.max), None, false);
    let mut seen: Vec<&str> = Vec::new();
    for option in options {
        let SqlOption::KeyValue { key, value } = option else { continue };
        let name = key.value.as_str();
        if seen.contains(&name.trim_start_matches("no ")) {
            return Err(fail(SqlState::SYNTAX_ERROR, "conflicting or redundant options"));
        }
        seen.push(name.trim_start_matches("no "));
        let is_nothing = matches!(value, AstExpr::Value(value) if value.value == ast::Value::Null);
        counts |= name != "owned by";
        match (name, value) {
            ("as", AstExpr::Cast { data_type, .. }) => {
                let base = binder.type_name(data_type)?.base;
                let (Some(new), Some(old)) =
                    (bounds(base), BaseType::from_oid(former.data_type).and_then(bounds))
                else {
                    return Err(invalid("sequence type must be smallint, integer, or bigint"));
                };
                changed.data_type = base.oid();
                // A bound that was the type's own follows the type.
                if former.max == old.1 && !seen.contains(&"maxvalue") {
                    max = Some(new.1);
                }
                if former.min == old.0 && !seen.contains(&"minvalue") {
                    min = Some(new.0);
                }
            }
            ("increment", value) => changed.increment = number(value)?,
            ("minvalue", value) => min = if is_nothing { None } else { Some(number(value)?) },
            ("maxvalue", value) => max = if is_nothing { None } else { Some(number(value)?) },
            ("start", value) => changed.start = number(value)?,
            ("cache", value) => changed.cache = number(value)?,
            ("cycle", _) => changed.cycle = true,
            ("no cycle", _) => changed.cycle = false,
            ("restart", value) => restart = Some(if is_nothing { None } else { Some(number(value)?) }),
            ("owned by", AstExpr::CompoundIdentifier(parts)) => {
                if former.owned_by.is_some_and(|owner| owner.is_identity) {
                    let message = "cannot change ownership of identity sequence";
                    return Err(fail(SqlState::FEATURE_NOT_SUPPORTED, message));
                }
                changed.owned_by = owner(&binder, &ObjectName::from(parts.clone()), former.schema)?;
            }
            _ => return Err(unsupported(format!("ALTER SEQUENCE {name}"))),
        }
    }
    std::mem::drop(binder);
    let base = BaseType::from_oid(changed.data_type).unwrap_or(BaseType::Int8);
    let (min, max) = checked(&changed, base, (min, max))?;
    (changed.min, changed.max) = (min, max);
    if counts {
        let sequences = context.database.sequences();
        let mut position = sequences.position(former, catalog.txn)?;
        if let Some(restart) = restart {
            position = Position { last: restart.unwrap_or(changed.start), is_called: false };
        }
        if position.last < min {
            let message = format!("RESTART value ({}) cannot be less than MINVALUE ({min})", position.last);
            return Err(invalid(message));
        }
        if position.last > max {
            let message =
                format!("RESTART value ({}) cannot be greater than MAXVALUE ({max})", position.last);
            return Err(invalid(message));
        }
        catalog.drop_position(former.mark).await?;
        changed.mark = catalog.new_mark(context.session.random());
        sequences.set(&changed, position, catalog.txn, context.session.random())?;
    }
    catalog.put_sequence(&changed).await
}

/// DROP SEQUENCE.
pub(super) async fn drop(
    names: &[ObjectName],
    if_exists: bool,
    cascade: bool,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    for name in names {
        let now = current(txn, context)?;
        let found = Binder::new(&now, &[]).find_sequence(name)?.map(|sequence| sequence.oid);
        let Some(oid) = found else {
            not_there((SqlState::UNDEFINED_TABLE, "sequence"), name, if_exists, txn, context)?;
            continue;
        };
        if let Some(found) = now.catalog.sequence(oid)
            && !super::owns_schema(found.schema, &now)
        {
            now.authority.require_owner(found.owner, "sequence", &found.name)?;
        }
        let mode = TableLockMode::AccessExclusive;
        let tables: Vec<Oid> = users(&now.catalog, oid).into_iter().map(|(table, _)| table).collect();
        for lock in tables.iter().chain([&oid]) {
            txn.lock_table(TableLockId::new(lock.get()), mode, context.lock_wait).await?;
        }
        let mut catalog = change_of(oid, txn, context).await?;
        let now = current(catalog.txn, context)?;
        let Some(sequence) = now.catalog.sequence(oid).cloned() else { continue };
        for (table, column) in users(&now.catalog, oid) {
            let Some(table) = now.catalog.table(table) else { continue };
            let named = table.column_index_of(column).and_then(|place| table.columns.get(place));
            let subject = named.map_or("", |column| column.name.as_str());
            if sequence.owned_by.is_some_and(|owner| owner.is_identity) {
                let (name, table) = (&sequence.name, &table.name);
                let message = format!(
                    "cannot drop sequence {name} because column {subject} of table {table} requires it"
                );
                return Err(fail(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message)
                    .with_hint(format!("You can drop column {subject} of table {table} instead.")));
            }
            let what = format!("default value for column {subject} of table {}", table.name);
            if !cascade {
                let message =
                    format!("cannot drop sequence {} because other objects depend on it", sequence.name);
                return Err(fail(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message)
                    .with_detail(format!("{what} depends on sequence {}", sequence.name))
                    .with_hint("Use DROP ... CASCADE to drop the dependent objects too."));
            }
        }
        clear_users(oid, &[], &mut catalog, context).await?;
        catalog.drop_sequence(&sequence).await?;
    }
    Ok(())
}

/// Locks the sequences that a default names, so that none is dropped meanwhile.
pub(super) async fn hold_named(
    default: &StoredExpr,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    for (_, oid) in sequences_in(default.as_str()) {
        txn.lock_table(TableLockId::new(oid.get()), TableLockMode::AccessShare, context.lock_wait).await?;
        if current(txn, context)?.catalog.sequence(oid).is_none() {
            let message = format!("sequence with OID {oid} was concurrently dropped");
            return Err(fail(SqlState::UNDEFINED_TABLE, message));
        }
    }
    Ok(())
}

/// Takes the defaults that name a sequence from the columns of tables other than `spared`, with a notice for each.
pub(super) async fn clear_users(
    sequence: Oid,
    spared: &[Oid],
    catalog: &mut CatalogWriter<'_>,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let now = current(catalog.txn, context)?;
    let mut changed: BTreeMap<Oid, TableDescriptor> = BTreeMap::new();
    for (table, column) in users(&now.catalog, sequence) {
        let Some(found) = now.catalog.table(table).filter(|_| !spared.contains(&table)) else { continue };
        let table = changed.entry(table).or_insert_with(|| found.as_ref().clone());
        if let Some(column) = table.columns.iter_mut().find(|known| known.id == column) {
            column.default = None;
            let what = format!("default value for column {} of table {}", column.name, table.name);
            let notice = fail(SqlState::SUCCESSFUL_COMPLETION, format!("drop cascades to {what}"));
            context.session.notice(notice.with_severity(crate::error::Severity::Notice));
        }
    }
    for table in changed.values() {
        let lock = TableLockId::new(table.oid.get());
        catalog.txn.lock_table(lock, TableLockMode::AccessExclusive, context.lock_wait).await?;
        catalog.put_table(table).await?;
    }
    Ok(())
}

/// Drops the sequences that belong to a table, or to one of its columns. What takes values from them elsewhere loses its
/// default with CASCADE, and keeps the whole from being dropped without.
pub(super) async fn drop_owned(
    table: &TableDescriptor,
    column: Option<ColumnId>,
    cascade: bool,
    catalog: &mut CatalogWriter<'_>,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let now = current(catalog.txn, context)?;
    for sequence in now.catalog.sequences_of(table.oid, column) {
        let other = users(&now.catalog, sequence.oid)
            .into_iter()
            .find(|(user, place)| *user != table.oid || column.is_some_and(|column| column != *place));
        if let Some((user, place)) = other.filter(|_| !cascade) {
            let user = now.catalog.table(user);
            let name = user.map_or("", |table| table.name.as_str());
            let column = user.and_then(|table| table.columns.get(table.column_index_of(place)?));
            let column = column.map_or("", |column| column.name.as_str());
            let message = format!("cannot drop table {} because other objects depend on it", table.name);
            return Err(fail(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message)
                .with_detail(format!(
                    "default value for column {column} of table {name} depends on sequence {}",
                    sequence.name
                ))
                .with_hint("Use DROP ... CASCADE to drop the dependent objects too."));
        }
        // Of the table itself only what is not dropped with the column.
        let spared: &[Oid] = if column.is_none() { &[table.oid] } else { &[] };
        if other.is_some() {
            clear_users(sequence.oid, spared, catalog, context).await?;
        }
        catalog.drop_sequence(sequence).await?;
    }
    Ok(())
}

/// TRUNCATE ... RESTART IDENTITY: the table's sequences begin anew when the transaction is committed.
pub(super) async fn restart_owned(
    table: Oid,
    catalog: &mut CatalogWriter<'_>,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let now = current(catalog.txn, context)?;
    for sequence in now.catalog.sequences_of(table, None) {
        now.authority.require_owner(sequence.owner, "sequence", &sequence.name)?;
        let mut changed = sequence.as_ref().clone();
        catalog.drop_position(changed.mark).await?;
        changed.mark = catalog.new_mark(context.session.random());
        catalog.put_sequence(&changed).await?;
    }
    Ok(())
}

/// Checks the type of a column that is to be an identity column, before anything is made of it.
pub(super) fn check_identity(data_type: DataType, options: &[SequenceOptions]) -> Result<(), SqlError> {
    described(data_type.base, options, true).map(|_| ())
}

/// ALTER COLUMN ... ADD GENERATED ... AS IDENTITY. `name` is that of the sequence, its parts parted as the parser's
/// rewriting leaves them.
pub(super) async fn add_identity(
    column: &Ident,
    (generated_as, options): (Option<ast::GeneratedAs>, &[SequenceOptions]),
    name: Option<&Ident>,
    table: &mut TableDescriptor,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let mut catalog = change_of(table.oid, txn, context).await?;
    let now = current(catalog.txn, context)?;
    let name = match name {
        Some(name) => {
            let parts =
                name.value.split(crate::parse::sequences::NAME_PARTS).map(Ident::new).collect::<Vec<_>>();
            let name = ObjectName::from(parts);
            let schema = match name.0.len() {
                1 => table.schema,
                _ => Binder::new(&now, &[]).creation_schema(&name)?,
            };
            Some((schema, last_ident(&name)?.value))
        }
        None => None,
    };
    let relation = table.name.clone();
    let Some(described) = table.columns.iter_mut().find(|known| known.name == column.value) else {
        let message = format!("column \"{}\" of relation \"{relation}\" does not exist", column.value);
        return Err(fail(SqlState::UNDEFINED_COLUMN, message));
    };
    let data_type = crate::bind::from::column_type(described.data_type);
    check_identity(data_type, options)?;
    let refuse = |what: String| Err(fail(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, what));
    let which = format!("column \"{}\" of relation \"{relation}\"", column.value);
    if !described.not_null {
        return refuse(format!("{which} must be declared NOT NULL before identity can be added"));
    }
    if described.identity.is_some() {
        return refuse(format!("{which} is already an identity column"));
    }
    if described.default.is_some() {
        return refuse(format!("{which} already has a default value"));
    }
    described.identity = Some(match generated_as {
        Some(ast::GeneratedAs::Always) => Identity::Always,
        _ => Identity::ByDefault,
    });
    let spec = SequenceSpec {
        column: described.id,
        data_type: data_type.base,
        options: options.to_vec(),
        is_identity: true,
        name,
    };
    create_for_columns(&[spec], table, &now.catalog, &mut catalog, context).await?;
    catalog.put_table(table).await
}
