//! Stored rows: how a row and its index entries become keys and values, and back.
//!
//! ```text
//! row           0x02 storage, row key columns          -> all columns, by column number
//! row, no key   0x02 storage, 12 bytes of row number   -> all columns, by column number
//! unique entry  0x02 storage, key columns              -> the row's key without its prefix
//! plain entry   0x02 storage, key columns, row key     -> the row's key without its prefix
//! ```
//!
//! A key of a unique index that holds a NULL is written as a plain entry, since NULLs never equal each other.
//! All columns stand in the value, those of the key too: equal keys may print differently (1.0 and 1.00).

use bytes::Bytes;
use rustydb_types::datatype::BaseType;
use rustydb_types::keycodec::{self, KeyOrder};
use rustydb_types::rowcodec::{self, Wanted};
use rustydb_types::value::Value;

use crate::bind::from::column_type;
use crate::catalog::{IndexDescriptor, TableDescriptor, keys};
use crate::error::{SqlError, SqlState};
use crate::plan::Row;

/// Longest key of a row or an index entry.
pub const KEY_SIZE_MAX: usize = 8 << 10;

/// What decodes and encodes the rows of one table; made once for each plan.
#[derive(Clone, Debug)]
pub struct RowLayout {
    ids: Vec<u32>,
    bases: Vec<BaseType>,
    /// What rows written before a column existed hold in it.
    missing: Row,
}

impl RowLayout {
    /// The layout of a table.
    ///
    /// # Errors
    /// XX001 when a stored default cannot be read.
    pub fn new(table: &TableDescriptor) -> Result<Self, SqlError> {
        let mut layout = Self { ids: Vec::new(), bases: Vec::new(), missing: Vec::new() };
        for column in &table.columns {
            let data_type = column_type(column.data_type);
            layout.ids.push(column.id.get());
            layout.bases.push(data_type.base);
            layout.missing.push(match &column.missing {
                Some(stored) => super::text::read(stored, data_type)?,
                None => Value::Null,
            });
        }
        Ok(layout)
    }

    /// What to decode when the columns at these places are needed; all when the mask is shorter.
    #[must_use]
    pub fn wanted(&self, needed: &[bool]) -> Vec<Wanted> {
        let all = self.ids.iter().zip(&self.bases).enumerate();
        all.filter(|(slot, _)| needed.get(*slot).copied().unwrap_or(true))
            .map(|(slot, (column, base))| Wanted { column: *column, base: *base, slot })
            .collect()
    }

    /// The stored value of a row.
    #[must_use]
    pub fn encode(&self, row: &[Value]) -> Bytes {
        rowcodec::encode(&self.ids, row).into()
    }

    /// What a row has that was written before any column existed.
    #[must_use]
    pub fn blank_row(&self) -> &[Value] {
        &self.missing
    }

    /// The same of the columns at these places.
    #[must_use]
    pub fn blank(&self, columns: &[usize]) -> Row {
        columns.iter().map(|column| self.missing.get(*column).cloned().unwrap_or(Value::Null)).collect()
    }

    /// A row with all its columns.
    ///
    /// # Errors
    /// XX001 when the stored value is damaged.
    pub fn decode_all(&self, value: &[u8]) -> Result<Row, SqlError> {
        let mut row = self.missing.clone();
        rowcodec::decode(value, &self.wanted(&[]), &mut row)?;
        Ok(row)
    }
}

/// The key of a row that is stored under its row key, without the storage's prefix.
///
/// # Errors
/// 54000 when it is too long.
pub fn row_key(table: &TableDescriptor, row: &[Value]) -> Result<Vec<u8>, SqlError> {
    let mut key = Vec::with_capacity(16);
    for column in &table.row_key {
        let value = table.column_index_of(*column).and_then(|place| row.get(place)).unwrap_or(&Value::Null);
        keycodec::encode(&mut key, value, KeyOrder::ASCENDING);
    }
    check_size(key, &table.name)
}

/// The key columns of an index entry, and whether one of them is NULL. The row is wide: see
/// [`TableWriter::wide`](super::write::TableWriter::wide).
///
/// # Errors
/// 54000 when it is too long.
pub fn index_key(
    table: &TableDescriptor,
    index: &IndexDescriptor,
    row: &[Value],
) -> Result<(Vec<u8>, bool), SqlError> {
    let mut key = Vec::with_capacity(16);
    let mut has_null = false;
    for part in &index.key {
        let value = table.key_place(part.column).and_then(|place| row.get(place)).unwrap_or(&Value::Null);
        has_null |= value.is_null();
        let order = KeyOrder { descending: part.descending, nulls_first: part.nulls_first };
        keycodec::encode(&mut key, value, order);
    }
    Ok((check_size(key, &index.name)?, has_null))
}

/// The whole key of an index entry.
///
/// # Errors
/// 54000 when it is too long.
pub fn entry_key(
    table: &TableDescriptor,
    index: &IndexDescriptor,
    row: &[Value],
    row_key: &[u8],
) -> Result<(Bytes, bool), SqlError> {
    let (columns, has_null) = index_key(table, index, row)?;
    let exclusive = index.is_unique() && !has_null;
    let mut key = keys::storage_prefix(index.storage).to_vec();
    key.extend_from_slice(&columns);
    if !exclusive {
        key.extend_from_slice(row_key);
    }
    Ok((key.into(), exclusive))
}

/// The whole key of a row.
#[must_use]
pub fn stored_key(table: &TableDescriptor, row_key: &[u8]) -> Bytes {
    let mut key = Vec::with_capacity(5 + row_key.len());
    key.extend_from_slice(&keys::storage_prefix(table.storage));
    key.extend_from_slice(row_key);
    key.into()
}

fn check_size(key: Vec<u8>, name: &str) -> Result<Vec<u8>, SqlError> {
    if key.len() > KEY_SIZE_MAX {
        return Err(SqlError::new(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            format!("index row size {} exceeds maximum {KEY_SIZE_MAX} for index \"{name}\"", key.len()),
        ));
    }
    Ok(key)
}
