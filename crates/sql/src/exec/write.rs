//! Writing rows: constraints, the row itself, and its index entries.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use rustydb_txn::{LockWait, RowLock, RowLockOutcome, Transaction};
use rustydb_types::text::{self as value_text, TextContext};
use rustydb_types::value::Value;

use super::database::ExecContext;
use super::rows::{self, RowLayout};
use super::text;
use crate::bind::from::column_type;
use crate::bind::kept::RowRules;
use crate::bind::privilege::Authority;
use crate::catalog::{IndexDescriptor, TableDescriptor};
use crate::error::{SqlError, SqlState};
use crate::plan::Row;
use crate::scalar::EvalContext;

/// Bytes of a value that the detail of an error shows.
const SHOWN_SIZE_MAX: usize = 64;

/// Gives hidden row numbers to rows of tables without a row key.
pub trait RowNumbers: Send + Sync {
    /// Twelve bytes that no other row was given.
    fn next(&self) -> [u8; 12];
}

/// Writes rows of one table.
#[derive(Clone)]
pub struct TableWriter {
    /// The table.
    pub table: Arc<TableDescriptor>,
    /// The schema's name, for error fields.
    pub schema: String,
    /// How rows are stored.
    pub layout: RowLayout,
    rules: Arc<RowRules>,
    numbers: Arc<dyn RowNumbers>,
    wait: LockWait,
    /// The places of the columns that errors may show; absent for all.
    readable: Option<Vec<usize>>,
}

/// What became of an insert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The row is there, under this stored key.
    Yes(Bytes),
    /// A row with the same key of the index at this place is there already; its stored key.
    Conflict(usize, Bytes),
}

impl TableWriter {
    /// A writer of rows of `table` under its rules, whose errors show what one may see.
    ///
    /// # Errors
    /// XX001 when a stored default cannot be read.
    pub fn new(
        table: Arc<TableDescriptor>,
        schema: String,
        numbers: Arc<dyn RowNumbers>,
        wait: LockWait,
        rules: &Arc<RowRules>,
        authority: &Authority,
    ) -> Result<Self, SqlError> {
        let layout = RowLayout::new(&table)?;
        if rules.computed.len() != table.computed.len() {
            return Err(SqlError::internal("the rules of a table are another one's"));
        }
        let readable = authority.readable(&table);
        Ok(Self { table, schema, layout, rules: Arc::clone(rules), numbers, wait, readable })
    }

    /// Computes the generated columns of a new row.
    ///
    /// # Errors
    /// Those of their expressions.
    pub fn generate(&self, row: &mut [Value], context: &ExecContext<'_>) -> Result<(), SqlError> {
        for (place, expr) in &self.rules.generated {
            let value = expr.eval(row, &context.eval(&[]))?;
            if let Some(slot) = row.get_mut(*place) {
                *slot = value;
            }
        }
        Ok(())
    }

    /// A row with what indexes hold of it behind its columns.
    ///
    /// # Errors
    /// Those of the expressions.
    pub fn wide<'r>(&self, row: &'r [Value]) -> Result<Cow<'r, [Value]>, SqlError> {
        if self.rules.computed.is_empty() {
            return Ok(Cow::Borrowed(row));
        }
        let own = row.get(..self.table.columns.len()).unwrap_or(row);
        let mut wide = own.to_vec();
        // They are immutable, so nothing of a session is asked.
        for expr in &self.rules.computed {
            wide.push(expr.eval(own, &EvalContext::constant(&[]))?);
        }
        Ok(Cow::Owned(wide))
    }

    /// Whether an index has a row, which is wide.
    #[must_use]
    pub fn is_in(&self, index: &IndexDescriptor, wide: &[Value]) -> bool {
        let holds = |id| {
            let place = self.table.key_place(id);
            place.and_then(|place| wide.get(place)) == Some(&Value::Bool(true))
        };
        index.predicate.is_none_or(holds)
    }

    /// Refuses a row with a NULL where none may be, or that fails a CHECK constraint.
    ///
    /// # Errors
    /// 23502, 23514, and those of the constraints' expressions.
    pub fn check(&self, row: &[Value], context: &ExecContext<'_>) -> Result<(), SqlError> {
        for (place, domain) in &self.rules.domains {
            domain.check(row.get(*place).unwrap_or(&Value::Null), &context.eval(&[]))?;
        }
        for (column, value) in self.table.columns.iter().zip(row) {
            if column.not_null && value.is_null() {
                let name = &self.table.name;
                return Err(SqlError::new(
                    SqlState::NOT_NULL_VIOLATION,
                    format!(
                        "null value in column \"{}\" of relation \"{name}\" violates not-null constraint",
                        column.name
                    ),
                )
                .with_details(self.print_row(row, context))
                .with_table(self.schema.clone(), name.clone())
                .with_column(column.name.clone()));
            }
        }
        if self.rules.checks.is_empty() {
            return Ok(());
        }
        let eval = context.eval(&[]);
        for check in self.rules.checks.iter() {
            // NULL passes.
            let holds = check.expr.eval(row, &eval)?;
            if check.is_view && holds != Value::Bool(true) {
                let message = format!("new row violates check option for view \"{}\"", check.name);
                return Err(SqlError::new(SqlState::WITH_CHECK_OPTION_VIOLATION, message)
                    .with_details(self.print_row(row, context)));
            }
            if holds == Value::Bool(false) {
                let (table, name) = (&self.table.name, &check.name);
                return Err(SqlError::new(
                    SqlState::CHECK_VIOLATION,
                    format!("new row for relation \"{table}\" violates check constraint \"{name}\""),
                )
                .with_details(self.print_row(row, context))
                .with_table(self.schema.clone(), table.clone())
                .with_constraint(name.clone()));
            }
        }
        Ok(())
    }

    /// The row as an error's detail shows it: long values are cut. Of a row that one may not see as a whole the columns
    /// that one may see, and those that the statement gave, with their names.
    fn print_row(&self, row: &[Value], context: &ExecContext<'_>) -> Option<String> {
        let reading = TextContext { zone: context.session.timezone(), now: context.transaction_time };
        let print = |(column, value): (&crate::catalog::ColumnDescriptor, &Value)| {
            if value.is_null() {
                return "null".to_owned();
            }
            let mut text = value_text::text_out(value, column_type(column.data_type), &reading);
            if text.len() > SHOWN_SIZE_MAX {
                text.truncate(text.floor_char_boundary(SHOWN_SIZE_MAX));
                text.push_str("...");
            }
            text
        };
        let is_shown = |place: &usize| {
            let readable = self.readable.as_ref();
            readable.is_none_or(|places| places.contains(place) || self.rules.given.contains(place))
        };
        let columns = self.table.columns.iter().zip(row).enumerate();
        let shown: Vec<_> = columns.filter(|(place, _)| is_shown(place)).map(|(_, column)| column).collect();
        if shown.is_empty() {
            return None;
        }
        let names = shown.iter().map(|(column, _)| column.name.as_str()).collect::<Vec<_>>().join(", ");
        let values = shown.into_iter().map(print).collect::<Vec<_>>().join(", ");
        Some(match &self.readable {
            None => format!("Failing row contains ({values})."),
            Some(_) => format!("Failing row contains ({names}) = ({values})."),
        })
    }

    /// Inserts a row or says that it cannot be for a conflict.
    ///
    /// # Errors
    /// 23502, 23514, lock errors, storage errors. A conflict leaves entries of earlier indexes behind, so the caller either
    /// fails the statement or asks [`TableWriter::find_conflict`] first.
    pub async fn insert(
        &self,
        txn: &mut Transaction,
        row: &[Value],
        context: &ExecContext<'_>,
    ) -> Result<Inserted, SqlError> {
        self.check(row, context)?;
        let row_key = if self.table.row_key.is_empty() {
            self.numbers.next().to_vec()
        } else {
            rows::row_key(&self.table, row)?
        };
        let key = rows::stored_key(&self.table, &row_key);
        txn.lock_row(&key, RowLock::ForUpdate, self.wait).await?;
        if !self.table.row_key.is_empty() && txn.get_latest(&key)?.is_some() {
            let place = self.table.indexes.iter().position(|index| self.table.is_row_key(index)).unwrap_or(0);
            return Ok(Inserted::Conflict(place, key));
        }
        let wide = self.wide(row)?;
        for (place, index) in self.table.indexes.iter().enumerate() {
            if !self.table.is_row_key(index)
                && self.is_in(index, &wide)
                && let Some(other) = self.add_entry(txn, index, &wide, &row_key).await?
            {
                return Ok(Inserted::Conflict(place, other));
            }
        }
        txn.put(key.clone(), self.layout.encode(row))?;
        Ok(Inserted::Yes(key))
    }

    /// Adds an index entry; answers with the row that already has the key of a unique index.
    async fn add_entry(
        &self,
        txn: &mut Transaction,
        index: &IndexDescriptor,
        row: &[Value],
        row_key: &[u8],
    ) -> Result<Option<Bytes>, SqlError> {
        let (key, exclusive) = rows::entry_key(&self.table, index, row, row_key)?;
        txn.lock_row(&key, RowLock::ForUpdate, self.wait).await?;
        if exclusive && let Some(other) = txn.get_latest(&key)? {
            return Ok(Some(rows::stored_key(&self.table, &other)));
        }
        txn.put(key, Bytes::copy_from_slice(row_key))?;
        Ok(None)
    }

    async fn remove_entry(
        &self,
        txn: &mut Transaction,
        index: &IndexDescriptor,
        row: &[Value],
        row_key: &[u8],
    ) -> Result<(), SqlError> {
        let (key, _) = rows::entry_key(&self.table, index, row, row_key)?;
        txn.lock_row(&key, RowLock::ForUpdate, self.wait).await?;
        txn.delete(key)?;
        Ok(())
    }

    /// The stored key of a row that conflicts with `row` in one of the given indexes, locked against change.
    ///
    /// # Errors
    /// Lock errors and storage errors.
    pub async fn find_conflict(
        &self,
        txn: &mut Transaction,
        row: &[Value],
        among: &[usize],
    ) -> Result<Option<Bytes>, SqlError> {
        let wide = self.wide(row)?;
        for place in among {
            let Some(index) = self.table.indexes.get(*place) else { continue };
            let (columns, has_null) = rows::index_key(&self.table, index, &wide)?;
            if has_null || !self.is_in(index, &wide) {
                continue;
            }
            if self.table.is_row_key(index) {
                let key = rows::stored_key(&self.table, &columns);
                txn.lock_row(&key, RowLock::ForUpdate, self.wait).await?;
                if txn.get_latest(&key)?.is_some() {
                    return Ok(Some(key));
                }
            } else {
                let (key, _) = rows::entry_key(&self.table, index, &wide, &[])?;
                txn.lock_row(&key, RowLock::ForUpdate, self.wait).await?;
                if let Some(row_key) = txn.get_latest(&key)? {
                    return Ok(Some(rows::stored_key(&self.table, &row_key)));
                }
            }
        }
        Ok(None)
    }

    /// Puts a new version of a row that is locked; answers with the key under which it is stored now.
    ///
    /// # Errors
    /// 23505, 23502, 23514, lock errors and storage errors.
    pub async fn update(
        &self,
        txn: &mut Transaction,
        key: &Bytes,
        old: &[Value],
        new: &[Value],
        context: &ExecContext<'_>,
    ) -> Result<Bytes, SqlError> {
        self.check(new, context)?;
        let old_row_key = key.get(5..).unwrap_or_default();
        let new_row_key = if self.table.row_key.is_empty() {
            old_row_key.to_vec()
        } else {
            rows::row_key(&self.table, new)?
        };
        let moved = new_row_key != old_row_key;
        let (old_wide, new_wide) = (self.wide(old)?, self.wide(new)?);
        for (place, index) in self.table.indexes.iter().enumerate() {
            if self.table.is_row_key(index) {
                continue;
            }
            let (was_in, is_in) = (self.is_in(index, &old_wide), self.is_in(index, &new_wide));
            let unchanged = !moved
                && was_in == is_in
                && rows::index_key(&self.table, index, &old_wide)?
                    == rows::index_key(&self.table, index, &new_wide)?;
            if unchanged {
                continue;
            }
            if was_in {
                self.remove_entry(txn, index, &old_wide, old_row_key).await?;
            }
            if is_in && self.add_entry(txn, index, &new_wide, &new_row_key).await?.is_some() {
                return Err(self.duplicate(place, new));
            }
        }
        if moved {
            let new_key = rows::stored_key(&self.table, &new_row_key);
            txn.lock_row(&new_key, RowLock::ForUpdate, self.wait).await?;
            if txn.get_latest(&new_key)?.is_some() {
                let place =
                    self.table.indexes.iter().position(|index| self.table.is_row_key(index)).unwrap_or(0);
                return Err(self.duplicate(place, new));
            }
            txn.delete(key.clone())?;
            txn.put(new_key.clone(), self.layout.encode(new))?;
            return Ok(new_key);
        }
        txn.put(key.clone(), self.layout.encode(new))?;
        Ok(key.clone())
    }

    /// Deletes a row that is locked.
    ///
    /// # Errors
    /// Lock errors and storage errors.
    pub async fn delete(&self, txn: &mut Transaction, key: &Bytes, old: &[Value]) -> Result<(), SqlError> {
        let row_key = key.get(5..).unwrap_or_default();
        let wide = self.wide(old)?;
        for index in self.table.indexes.iter().filter(|index| !self.table.is_row_key(index)) {
            if self.is_in(index, &wide) {
                self.remove_entry(txn, index, &wide, row_key).await?;
            }
        }
        txn.delete(key.clone())?;
        Ok(())
    }

    /// 23505 for a row that conflicts in the index at this place.
    #[must_use]
    pub fn duplicate(&self, place: usize, row: &[Value]) -> SqlError {
        let Some(index) = self.table.indexes.get(place) else {
            return SqlError::internal("a conflict names no index");
        };
        let mut names = Vec::new();
        let mut values = Vec::new();
        let wide = self.wide(row).unwrap_or(Cow::Borrowed(row));
        let is_shown = self.readable.as_ref().is_none_or(|readable| {
            index.key.iter().all(|part| {
                self.table.column_index_of(part.column).is_some_and(|place| readable.contains(&place))
            })
        });
        for part in &index.key {
            if let Some(computed) = self.table.computed_of(part.column) {
                let place = self.table.key_place(part.column);
                names.push(crate::pgcatalog::definition::computed(&self.table, computed, false));
                let value = place.and_then(|place| wide.get(place)).unwrap_or(&Value::Null);
                values.push(text::print(value, column_type(computed.data_type)));
            } else if let Some(place) = self.table.column_index_of(part.column)
                && let (Some(column), Some(value)) = (self.table.columns.get(place), row.get(place))
            {
                names.push(column.name.clone());
                values.push(text::print(value, column_type(column.data_type)));
            }
        }
        SqlError::new(
            SqlState::UNIQUE_VIOLATION,
            format!("duplicate key value violates unique constraint \"{}\"", index.name),
        )
        .with_details(
            is_shown.then(|| format!("Key ({})=({}) already exists.", names.join(", "), values.join(", "))),
        )
        .with_table(self.schema.clone(), self.table.name.clone())
        .with_constraint(index.name.clone())
    }

    /// Locks a row and says what it is now: `None` when it is gone or passed over, else the row and whether another
    /// transaction changed it since this statement read it.
    ///
    /// # Errors
    /// Lock errors, and 40001 above READ COMMITTED when the row changed.
    pub async fn lock(
        &self,
        txn: &mut Transaction,
        key: &Bytes,
        lock: RowLock,
        wait: LockWait,
    ) -> Result<Locked, SqlError> {
        Ok(match txn.lock_row(key, lock, wait).await? {
            RowLockOutcome::Unchanged => Locked::Unchanged,
            RowLockOutcome::Skipped => Locked::Gone,
            RowLockOutcome::Changed => match txn.get_latest(key)? {
                Some(value) => Locked::Changed(self.layout.decode_all(&value)?),
                None => Locked::Gone,
            },
        })
    }
}

/// What a row is once it is locked.
#[derive(Clone, Debug)]
pub enum Locked {
    /// As the statement read it.
    Unchanged,
    /// Another transaction changed it; the row as it is now.
    Changed(Row),
    /// Another transaction deleted it, or it was passed over.
    Gone,
}
