//! What can be wrong with a value: PostgreSQL's messages and SQLSTATEs.
//!
//! These errors reach SQL clients word for word, so their text is PostgreSQL's and their kind is
//! the five-character SQLSTATE.

use thiserror::Error;

use crate::datatype::BaseType;

/// A value that cannot be read, computed or stored.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct ValueError {
    /// SQLSTATE.
    pub state: &'static str,
    /// PostgreSQL's primary message.
    pub message: String,
    /// PostgreSQL's detail, if it gives one.
    pub detail: Option<String>,
    /// PostgreSQL's hint, if it gives one.
    pub hint: Option<String>,
}

impl ValueError {
    /// An error with a SQLSTATE and a message.
    pub fn new(state: &'static str, message: impl Into<String>) -> ValueError {
        ValueError { state, message: message.into(), detail: None, hint: None }
    }

    /// Adds a detail.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> ValueError {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> ValueError {
        self.hint = Some(hint.into());
        self
    }

    /// The five-character SQLSTATE.
    pub fn kind(&self) -> &'static str {
        self.state
    }

    /// 22P02: the text is not a value of the type.
    pub fn syntax(type_name: &str, input: &str) -> ValueError {
        ValueError::new("22P02", format!("invalid input syntax for type {type_name}: \"{input}\""))
    }

    /// 22007: the text is not a date or time.
    pub fn datetime_syntax(type_name: &str, input: &str) -> ValueError {
        ValueError::new("22007", format!("invalid input syntax for type {type_name}: \"{input}\""))
    }

    /// 22008: a field of a date or time is too large or too small.
    pub fn datetime_field(input: &str) -> ValueError {
        ValueError::new("22008", format!("date/time field value out of range: \"{input}\""))
    }

    /// 22003: the text is a number but not one of the type.
    pub fn input_out_of_range(type_name: &str, input: &str) -> ValueError {
        ValueError::new("22003", format!("value \"{input}\" is out of range for type {type_name}"))
    }

    /// 22003, or 22008 for dates and times: a result does not fit its type.
    pub fn out_of_range(base: BaseType) -> ValueError {
        match base {
            BaseType::Float4 | BaseType::Float8 => ValueError::new("22003", "value out of range: overflow"),
            BaseType::Numeric => ValueError::new("22003", "value overflows numeric format"),
            BaseType::Date => ValueError::new("22008", "date out of range"),
            BaseType::Timestamp | BaseType::Timestamptz => ValueError::new("22008", "timestamp out of range"),
            BaseType::Interval => ValueError::new("22008", "interval out of range"),
            BaseType::Oid => ValueError::new("22003", "OID out of range"),
            other => ValueError::new("22003", format!("{other} out of range")),
        }
    }

    /// 22012.
    pub fn division_by_zero() -> ValueError {
        ValueError::new("22012", "division by zero")
    }

    /// 22P03: a binary value has the wrong shape.
    pub fn binary() -> ValueError {
        ValueError::new("22P03", "incorrect binary data format")
    }
}
