//! COPY: lines to typed rows and into the table; a table or a query to lines.

use std::sync::Arc;

use rustydb_txn::Transaction;
use rustydb_types::binary;
use rustydb_types::datatype::DataType;
use rustydb_types::text::{self, TextContext};
use rustydb_types::value::Value;
use rustydb_types::value_error::ValueError;
use sqlparser::ast::{self, CopySource, Ident};

use super::database::{ExecContext, analyze};
use super::reference::Referee;
use super::write::{Inserted, TableWriter};
use crate::bind::context::Relation;
use crate::bind::context::TableUse;
use crate::bind::errors::{fail, unsupported};
use crate::bind::from::column_type;
use crate::bind::kept::RowRules;
use crate::bind::{AnalyzeContext, Binder};
use crate::catalog::TableDescriptor;
use crate::catalog::acl::Privileges;
use crate::copy::binary::BinaryReader;
use crate::copy::{CopyFormat, CopyOptions, CopyReader};
use crate::error::{SqlError, SqlState};
use crate::plan::Row;
use crate::plan::references::References;
use crate::plan::statement::{Action, Plan};
use crate::scalar::{EvalContext, Expr};

/// Rows between two looks at whether the statement is to end.
const CHECK_ROWS: u64 = 256;

/// What a COPY copies.
#[derive(Clone, Debug)]
pub enum CopyTarget {
    /// Data into a table.
    From {
        /// The table.
        table: Arc<TableDescriptor>,
        /// Places of the columns in the order of the data.
        places: Vec<usize>,
        /// Defaults of all columns.
        defaults: Vec<Expr>,
        /// Its CHECK constraints.
        rules: Arc<RowRules>,
        /// Its foreign keys.
        references: Option<Arc<References>>,
        /// The shape of the data.
        options: CopyOptions,
    },
    /// The rows of the plan.
    To {
        /// The shape of the data.
        options: CopyOptions,
    },
}

/// Plans a COPY.
///
/// # Errors
/// As PostgreSQL; 0A000 for files and programs of the server.
pub(crate) fn plan(
    context: &AnalyzeContext,
    statement: &ast::Statement,
) -> Result<(Arc<Plan>, CopyTarget), SqlError> {
    let ast::Statement::Copy { source, to, target, options, legacy_options, .. } = statement else {
        return Err(SqlError::internal("not a COPY"));
    };
    if !matches!(target, ast::CopyTarget::Stdin | ast::CopyTarget::Stdout) {
        return Err(unsupported("COPY with a file or a program of the server")
            .with_hint("Use COPY FROM STDIN or COPY TO STDOUT, or psql's \\copy."));
    }
    let options = CopyOptions::of_statement(options, legacy_options)?;
    match (source, to) {
        (CopySource::Query(query), true) => {
            let plan = analyze(context, &ast::Statement::Query(query.clone()), &[])?;
            Ok((plan, CopyTarget::To { options }))
        }
        (CopySource::Query(_), false) => {
            Err(fail(SqlState::SYNTAX_ERROR, "COPY FROM takes a table, not a query"))
        }
        (CopySource::Table { table_name, columns }, true) => {
            let names: Vec<String> = columns.iter().map(ToString::to_string).collect();
            let own = own_columns(context, table_name, columns)?;
            let list =
                if names.is_empty() { own.unwrap_or_else(|| "*".to_owned()) } else { names.join(", ") };
            let query = crate::parse::parse_query(&format!("SELECT {list} FROM {table_name}"))?;
            let plan = analyze(context, &ast::Statement::Query(Box::new(query)), &[])?;
            Ok((plan, CopyTarget::To { options }))
        }
        (CopySource::Table { table_name, columns }, false) => {
            let binder = Binder::new(context, &[]);
            refuse_view(&binder, table_name, "to")?;
            let table = binder.table(table_name)?;
            binder.note_table(table.oid, TableUse::Write);
            let places = if columns.is_empty() {
                let given = table.columns.iter().enumerate().filter(|(_, column)| column.generated.is_none());
                given.map(|(place, _)| place).collect()
            } else {
                columns
                    .iter()
                    .map(|name| {
                        table.column_index(&name.value).ok_or_else(|| {
                            let message = format!(
                                "column \"{}\" of relation \"{}\" does not exist",
                                name.value, table.name
                            );
                            fail(SqlState::UNDEFINED_COLUMN, message)
                        })
                    })
                    .map(|place| refuse_generated(&table, place?))
                    .collect::<Result<Vec<_>, _>>()?
            };
            let written = places.iter().filter_map(|place: &usize| table.columns.get(*place));
            let written = written.map(|column| column.id.get()).collect();
            binder.need(table.oid, Privileges::INSERT, written);
            let defaults = binder.bind_defaults(&table)?;
            let rules = binder.bind_rules(&table)?.giving(places.iter().copied());
            let references = binder.references_of_insert(&table)?;
            let plan = Plan {
                action: Action::Utility(Box::new(statement.clone())),
                columns: Vec::new(),
                param_types: Vec::new(),
                needs: binder.needs.borrow().all(),
                tables: binder.tables.into_inner(),
                catalog_version: context.catalog.version().to_vec(),
                uses_virtual: false,
                advances: None,
                before: Vec::new(),
            };
            Ok((Arc::new(plan), CopyTarget::From { table, places, defaults, rules, references, options }))
        }
    }
}

/// 42809 for a view, which COPY takes in neither direction.
fn refuse_view(binder: &Binder<'_>, name: &ast::ObjectName, direction: &str) -> Result<(), SqlError> {
    let Some(Relation::View(view)) = binder.find_relation(name)? else { return Ok(()) };
    let message = format!("cannot copy {direction} view \"{}\"", view.name);
    let error = fail(SqlState::WRONG_OBJECT_TYPE, message);
    Err(if direction == "from" { error.with_hint("Try the COPY (SELECT ...) TO variant.") } else { error })
}

/// The columns of a table that COPY TO gives when none are named, if those are not all.
fn own_columns(
    context: &AnalyzeContext,
    name: &ast::ObjectName,
    named: &[Ident],
) -> Result<Option<String>, SqlError> {
    let binder = Binder::new(context, &[]);
    refuse_view(&binder, name, "from")?;
    let Some(Relation::Table(table)) = binder.find_relation(name)? else { return Ok(None) };
    for name in named {
        if let Some(place) = table.column_index(&name.value) {
            refuse_generated(&table, place)?;
        }
    }
    if table.columns.iter().all(|column| column.generated.is_none()) {
        return Ok(None);
    }
    let own = table.columns.iter().filter(|column| column.generated.is_none());
    Ok(Some(
        own.map(|column| crate::pgcatalog::definition::quoted(&column.name)).collect::<Vec<_>>().join(", "),
    ))
}

/// 42P10 for a column that COPY does not take because its values are computed.
fn refuse_generated(table: &TableDescriptor, place: usize) -> Result<usize, SqlError> {
    match table.columns.get(place) {
        Some(column) if column.generated.is_some() => {
            let message = format!("column \"{}\" is a generated column", column.name);
            Err(fail(SqlState::INVALID_COLUMN_REFERENCE, message)
                .with_detail("Generated columns cannot be used in COPY."))
        }
        _ => Ok(place),
    }
}

/// Takes the data apart.
enum Reader {
    Lines(Box<CopyReader>),
    Binary(BinaryReader),
}

impl Reader {
    /// Adds to an error in a row where it was found.
    fn at_line(&self, error: SqlError) -> SqlError {
        match self {
            Self::Lines(lines) => lines.at_line(error),
            Self::Binary(rows) => rows.at_row(error),
        }
    }

    /// Adds to an error the number of its row.
    fn at_line_number(&self, error: SqlError) -> SqlError {
        match self {
            Self::Lines(lines) => lines.at_line_number(error),
            Self::Binary(rows) => rows.at_row(error),
        }
    }

    /// Puts the next complete row's values into their places; false when there is none yet.
    fn next_row(
        &mut self,
        row: &mut Row,
        places: &[usize],
        types: &[DataType],
        reading: &TextContext,
    ) -> Result<bool, SqlError> {
        let mut failure = None;
        let mut put = |index: usize, value: Result<Value, ValueError>| match value {
            Ok(value) => {
                if let Some(slot) = places.get(index).and_then(|place| row.get_mut(*place)) {
                    *slot = value;
                }
                true
            }
            Err(error) => {
                failure = Some((index, SqlError::from(error)));
                false
            }
        };
        match self {
            Self::Lines(lines) => {
                let mut shown = None;
                {
                    let Some(fields) = lines.next_row()? else { return Ok(false) };
                    for (index, ty) in types.iter().enumerate() {
                        let Some(field) = fields.get(index) else { continue };
                        let value = text::text_in_as(field, *ty, reading);
                        if !put(index, value.and_then(|value| text::fit_modifier(value, *ty, false))) {
                            shown = Some(field.to_owned());
                            break;
                        }
                    }
                }
                match failure {
                    Some((index, error)) => Err(lines.at_field(error, index, shown.as_deref())),
                    None => Ok(true),
                }
            }
            Self::Binary(rows) => {
                {
                    let Some(fields) = rows.next_row()? else { return Ok(false) };
                    for (index, (field, ty)) in fields.into_iter().zip(types).enumerate() {
                        let Some(field) = field else { continue };
                        let value = binary::binary_in(field, ty.base);
                        if !put(index, value.and_then(|value| text::fit_modifier(value, *ty, false))) {
                            break;
                        }
                    }
                }
                match failure {
                    Some((index, error)) => Err(rows.at_field(error, index)),
                    None => Ok(true),
                }
            }
        }
    }
}

/// A COPY into a table under way.
pub(crate) struct CopyFrom {
    reader: Reader,
    writer: TableWriter,
    referee: Option<Referee>,
    places: Vec<usize>,
    types: Vec<DataType>,
    defaults: Vec<Expr>,
    count: u64,
}

impl CopyFrom {
    /// Begins a COPY; its table is locked.
    pub(crate) fn begin(
        target: &CopyTarget,
        _txn: &Transaction,
        context: &ExecContext<'_>,
    ) -> Result<Self, SqlError> {
        let CopyTarget::From { table, places, defaults, rules, references, options } = target else {
            return Err(SqlError::internal("this COPY takes no data"));
        };
        let chosen = || places.iter().filter_map(|place| table.columns.get(*place));
        let names = chosen().map(|column| column.name.clone()).collect();
        let types = chosen().map(|column| column_type(column.data_type)).collect();
        let schema = context.analyze.catalog.schema(table.schema).map(|schema| schema.name.clone());
        Ok(Self {
            reader: match options.format {
                CopyFormat::Binary => Reader::Binary(BinaryReader::new(table.name.clone(), names)),
                _ => Reader::Lines(Box::new(CopyReader::new(options.clone(), table.name.clone(), names))),
            },
            writer: TableWriter::new(
                Arc::clone(table),
                schema.unwrap_or_default(),
                Arc::clone(context.database.row_numbers()),
                context.lock_wait,
                rules,
                &context.analyze.authority,
            )?,
            referee: Referee::new(references.as_ref(), context),
            places: places.clone(),
            types,
            defaults: defaults.clone(),
            count: 0,
        })
    }

    /// Takes data, cut anywhere.
    pub(crate) fn push(&mut self, data: &[u8]) -> Result<(), SqlError> {
        match &mut self.reader {
            Reader::Lines(lines) => lines.push(data),
            Reader::Binary(rows) => rows.push(data),
        }
    }

    /// Says that no more data comes.
    pub(crate) fn finish(&mut self) {
        match &mut self.reader {
            Reader::Lines(lines) => lines.finish(),
            Reader::Binary(rows) => rows.finish(),
        }
    }

    /// Rows inserted so far.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Inserts the rows whose lines are complete.
    pub(crate) async fn insert(
        &mut self,
        txn: &mut Transaction,
        context: &ExecContext<'_>,
        reading: &TextContext,
    ) -> Result<(), SqlError> {
        while let Some(mut row) = self.next(txn, context, reading)? {
            self.writer.generate(&mut row, context).map_err(|error| self.reader.at_line(error))?;
            let inserted = self.writer.insert(txn, &row, context).await.map_err(|error| {
                if error.state() == SqlState::UNIQUE_VIOLATION {
                    self.reader.at_line_number(error)
                } else {
                    self.reader.at_line(error)
                }
            })?;
            match inserted {
                Inserted::Conflict(place, _) => {
                    return Err(self.reader.at_line_number(self.writer.duplicate(place, &row)));
                }
                Inserted::Yes(stored) => {
                    if let Some(referee) = &mut self.referee {
                        referee.inserted(&self.writer.table, &row, &stored, txn, context).await?;
                    }
                }
            }
            self.count += 1;
            // After each, so that wide rows do not pile up.
            txn.flush_if_large().await?;
            if self.count.is_multiple_of(CHECK_ROWS) {
                context.interrupts.check_running()?;
                // A COPY reads nothing of the table but under locks.
                txn.renew_snapshot();
            }
        }
        Ok(())
    }

    /// All rows are in: what the table's foreign keys ask for.
    pub(crate) async fn end(
        &mut self,
        txn: &mut Transaction,
        context: &ExecContext<'_>,
    ) -> Result<(), SqlError> {
        match &mut self.referee {
            Some(referee) => referee.finish(txn, context).await,
            None => Ok(()),
        }
    }

    /// The next complete row, as wide as the table.
    fn next(
        &mut self,
        txn: &Transaction,
        context: &ExecContext<'_>,
        reading: &TextContext,
    ) -> Result<Option<Row>, SqlError> {
        let mut row: Row = vec![Value::Null; self.defaults.len()];
        if !self.reader.next_row(&mut row, &self.places, &self.types, reading)? {
            return Ok(None);
        }
        if self.places.len() < self.defaults.len() {
            let eval = EvalContext { txn: Some(txn), ..context.eval(&[]) };
            for (place, default) in self.defaults.iter().enumerate() {
                if !self.places.contains(&place)
                    && let Some(slot) = row.get_mut(place)
                {
                    *slot = default.eval(&[], &eval)?;
                }
            }
        }
        Ok(Some(row))
    }
}
