//! Values as text where no session's settings apply: in error details and in the catalog.

use rustydb_types::datatype::DataType;
use rustydb_types::text::{self, TextContext};
use rustydb_types::value::Value;

use crate::error::SqlError;

/// PostgreSQL's text of a value; `null` for NULL.
#[must_use]
pub fn print(value: &Value, data_type: DataType) -> String {
    if value.is_null() {
        return "null".into();
    }
    text::text_out(value, data_type, &TextContext::UTC)
}

/// The value of a text that [`print()`] made.
///
/// # Errors
/// 22P02 and its like when it is no such text.
pub fn read(stored: &str, data_type: DataType) -> Result<Value, SqlError> {
    Ok(text::text_in(stored, data_type.base, &TextContext::UTC)?)
}
