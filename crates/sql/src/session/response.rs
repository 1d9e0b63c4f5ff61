//! What a session answers: PostgreSQL's backend messages after start-up.
//!
//! A session writes each answer in the form in which the client will read it. So a row is encoded once, at the
//! node that read it, and whoever carries it (a gateway of another node, the front end) copies bytes.
//!
//! ```text
//! tag: u8 | length: i32, counts itself and the body | body
//! ```
//!
//! Invariants: a writer appends whole messages; a row that is being written is a whole message or, after
//! [`RowWriter::discard`], nothing.
//!
//! Source: PostgreSQL 15, chapter 55.7 "Message Formats".

use bytes::{BufMut, BytesMut};

use crate::error::SqlError;

/// How a value is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// As `psql` shows it.
    #[default]
    Text,
    /// The type's binary form.
    Binary,
}

impl Format {
    /// The code in messages.
    #[must_use]
    pub const fn code(self) -> i16 {
        match self {
            Self::Text => 0,
            Self::Binary => 1,
        }
    }
}

/// Where a session is with its transaction, as ReadyForQuery says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Outside a transaction block.
    #[default]
    Idle,
    /// Inside a transaction block.
    InBlock,
    /// Inside a transaction block that failed: only its end is accepted.
    Failed,
}

impl TransactionStatus {
    /// The letter in messages.
    #[must_use]
    pub const fn letter(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InBlock => b'T',
            Self::Failed => b'E',
        }
    }

    /// The status a letter stands for.
    #[must_use]
    pub const fn from_letter(letter: u8) -> Option<Self> {
        match letter {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::InBlock),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }
}

/// One column of a RowDescription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The column's name.
    pub name: &'a str,
    /// The table it comes from, 0 for none.
    pub table: u32,
    /// Its number in that table, 0 for none.
    pub column: i16,
    /// Its type.
    pub type_oid: u32,
    /// `pg_type.typlen` of the type.
    pub type_size: i16,
    /// The type's modifier, -1 for none.
    pub modifier: i32,
    /// How values will be written.
    pub format: Format,
}

/// Messages without a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Answer to Parse.
    ParseComplete,
    /// Answer to Bind.
    BindComplete,
    /// Answer to Close.
    CloseComplete,
    /// Answer to Describe of what returns no rows.
    NoData,
    /// Execute stopped at its row limit.
    PortalSuspended,
    /// Answer to an empty statement.
    EmptyQuery,
    /// End of the output of a COPY.
    CopyDone,
}

/// Tags of backend messages that others than this module look for.
pub mod tag {
    /// CommandComplete.
    pub const COMMAND_COMPLETE: u8 = b'C';
    /// DataRow.
    pub const DATA_ROW: u8 = b'D';
    /// ErrorResponse.
    pub const ERROR: u8 = b'E';
    /// CopyInResponse.
    pub const COPY_IN: u8 = b'G';
    /// NoticeResponse.
    pub const NOTICE: u8 = b'N';
    /// ParameterStatus.
    pub const PARAMETER_STATUS: u8 = b'S';
    /// RowDescription.
    pub const ROW_DESCRIPTION: u8 = b'T';
    /// ReadyForQuery.
    pub const READY_FOR_QUERY: u8 = b'Z';
}

/// Appends one message whose body `write` appends.
pub fn message(out: &mut BytesMut, tag: u8, write: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    let start = out.len();
    out.put_u32(0);
    write(out);
    patch_length(out, start, out.len() - start);
}

/// Writes a big-endian length at `start`. Lengths beyond the protocol's 31 bits cannot arise: a message is one row
/// or one field of text, both bounded far below by the limits on values.
fn patch_length(out: &mut BytesMut, start: usize, length: usize) {
    let length = i32::try_from(length).unwrap_or(i32::MAX).to_be_bytes();
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&length);
    }
}

/// Appends text and the zero that ends it. A zero inside would end the text early for the reader, so it is left
/// out; PostgreSQL's text cannot hold one.
pub fn put_string(out: &mut BytesMut, text: &str) {
    if text.as_bytes().contains(&0) {
        out.extend(text.bytes().filter(|byte| *byte != 0));
    } else {
        out.put_slice(text.as_bytes());
    }
    out.put_u8(0);
}

/// A message without a body.
pub fn mark(out: &mut BytesMut, mark: Mark) {
    let tag = match mark {
        Mark::ParseComplete => b'1',
        Mark::BindComplete => b'2',
        Mark::CloseComplete => b'3',
        Mark::NoData => b'n',
        Mark::PortalSuspended => b's',
        Mark::EmptyQuery => b'I',
        Mark::CopyDone => b'c',
    };
    out.put_slice(&[tag, 0, 0, 0, 4]);
}

/// ReadyForQuery.
pub fn ready_for_query(out: &mut BytesMut, status: TransactionStatus) {
    out.put_slice(&[tag::READY_FOR_QUERY, 0, 0, 0, 5, status.letter()]);
}

/// CommandComplete.
pub fn command_complete(out: &mut BytesMut, text: &str) {
    message(out, tag::COMMAND_COMPLETE, |out| put_string(out, text));
}

/// ParameterStatus.
pub fn parameter_status(out: &mut BytesMut, name: &str, value: &str) {
    message(out, tag::PARAMETER_STATUS, |out| {
        put_string(out, name);
        put_string(out, value);
    });
}

/// ParameterDescription.
pub fn parameter_description(out: &mut BytesMut, types: impl ExactSizeIterator<Item = u32>) {
    message(out, b't', |out| {
        out.put_u16(u16::try_from(types.len()).unwrap_or(u16::MAX));
        for oid in types {
            out.put_u32(oid);
        }
    });
}

/// RowDescription.
pub fn row_description<'a>(out: &mut BytesMut, fields: impl ExactSizeIterator<Item = Field<'a>>) {
    message(out, tag::ROW_DESCRIPTION, |out| {
        out.put_u16(u16::try_from(fields.len()).unwrap_or(u16::MAX));
        for field in fields {
            put_string(out, field.name);
            out.put_u32(field.table);
            out.put_i16(field.column);
            out.put_u32(field.type_oid);
            out.put_i16(field.type_size);
            out.put_i32(field.modifier);
            out.put_i16(field.format.code());
        }
    });
}

/// Which way a COPY goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyDirection {
    /// From the client.
    In,
    /// To the client.
    Out,
}

/// CopyInResponse or CopyOutResponse; csv is text.
pub fn copy_response(out: &mut BytesMut, direction: CopyDirection, columns: usize, format: Format) {
    let tag = match direction {
        CopyDirection::In => tag::COPY_IN,
        CopyDirection::Out => b'H',
    };
    message(out, tag, |out| {
        out.put_u8(u8::from(format == Format::Binary));
        out.put_u16(u16::try_from(columns).unwrap_or(u16::MAX));
        for _ in 0..columns {
            out.put_i16(format.code());
        }
    });
}

/// CopyData.
pub fn copy_data(out: &mut BytesMut, data: &[u8]) {
    message(out, b'd', |out| out.put_slice(data));
}

/// ErrorResponse.
pub fn sql_error(out: &mut BytesMut, error: &SqlError) {
    report(out, tag::ERROR, error);
}

/// NoticeResponse.
pub fn sql_notice(out: &mut BytesMut, notice: &SqlError) {
    report(out, tag::NOTICE, notice);
}

fn report(out: &mut BytesMut, tag: u8, error: &SqlError) {
    let fields = error.fields();
    let position = fields.position.map(|position| position.to_string());
    message(out, tag, |out| {
        let texts = [
            (b'S', Some(fields.severity.as_str())),
            (b'V', Some(fields.severity.as_str())),
            (b'C', Some(fields.state.code())),
            (b'M', Some(fields.message.as_str())),
            (b'D', fields.detail.as_deref()),
            (b'H', fields.hint.as_deref()),
            (b'P', position.as_deref()),
            (b'W', fields.context.as_deref()),
            (b's', fields.schema.as_deref()),
            (b't', fields.table.as_deref()),
            (b'c', fields.column.as_deref()),
            (b'd', fields.data_type.as_deref()),
            (b'n', fields.constraint.as_deref()),
        ];
        for (field, text) in texts {
            if let Some(text) = text {
                out.put_u8(field);
                put_string(out, text);
            }
        }
        out.put_u8(0);
    });
}

/// Writes one DataRow.
#[derive(Debug)]
pub struct RowWriter<'a> {
    out: &'a mut BytesMut,
    start: usize,
}

impl<'a> RowWriter<'a> {
    /// Begins a row of `columns` values.
    pub fn begin(out: &'a mut BytesMut, columns: usize) -> Self {
        let start = out.len();
        out.put_slice(&[tag::DATA_ROW, 0, 0, 0, 0]);
        out.put_u16(u16::try_from(columns).unwrap_or(u16::MAX));
        Self { out, start }
    }

    /// Appends a NULL.
    pub fn null(&mut self) {
        self.out.put_i32(-1);
    }

    /// Appends a value whose bytes `write` appends.
    ///
    /// # Errors
    /// Those of `write`; the row is to be discarded then.
    pub fn value<E>(&mut self, write: impl FnOnce(&mut BytesMut) -> Result<(), E>) -> Result<(), E> {
        let start = self.out.len();
        self.out.put_u32(0);
        write(self.out)?;
        let length = self.out.len() - start - 4;
        patch_length(self.out, start, length);
        Ok(())
    }

    /// Ends the row.
    pub fn finish(self) {
        let length = self.out.len() - self.start - 1;
        patch_length(self.out, self.start + 1, length);
    }

    /// Takes back what was written of the row.
    pub fn discard(self) {
        self.out.truncate(self.start);
    }
}

/// Splits bytes into messages: (tag, body). Ends where no whole message is left.
#[derive(Clone, Copy, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// Over `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What is left.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[tag, a, b, c, d], after) = self.rest.split_first_chunk::<5>()?;
        let length = usize::try_from(i32::from_be_bytes([a, b, c, d])).ok()?.checked_sub(4)?;
        let (body, rest) = after.split_at_checked(length)?;
        self.rest = rest;
        Some((tag, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::SqlState;

    #[test]
    fn a_row_is_whole_or_nothing() {
        let mut out = BytesMut::new();
        command_complete(&mut out, "SELECT 1");
        let before = out.clone();
        let mut row = RowWriter::begin(&mut out, 1);
        assert_eq!(row.value(|_| Err::<(), _>("no")), Err("no"));
        row.discard();
        assert_eq!(out, before);
        let mut row = RowWriter::begin(&mut out, 2);
        row.null();
        row.value(|out| {
            out.put_slice(b"42");
            Ok::<(), ()>(())
        })
        .unwrap();
        row.finish();
        let messages: Vec<_> = Messages::new(&out).collect();
        assert_eq!(messages[0], (b'C', &b"SELECT 1\0"[..]));
        assert_eq!(messages[1], (b'D', &b"\0\x02\xff\xff\xff\xff\0\0\0\x0242"[..]));
    }

    #[test]
    fn reports_carry_only_what_is_set() {
        let mut out = BytesMut::new();
        let error = SqlError::new(SqlState::SYNTAX_ERROR, "syntax error").at(8);
        sql_error(&mut out, &error);
        let (tag, body) = Messages::new(&out).next().unwrap();
        assert_eq!(tag, b'E');
        assert_eq!(body, b"SERROR\0VERROR\0C42601\0Msyntax error\0P8\0\0");
    }

    #[test]
    fn half_a_message_is_no_message() {
        let mut out = BytesMut::new();
        ready_for_query(&mut out, TransactionStatus::Failed);
        assert_eq!(Messages::new(&out).next(), Some((b'Z', &b"E"[..])));
        assert_eq!(Messages::new(&out[..5]).next(), None);
        assert_eq!(Messages::new(&[b'Z', 0xff, 0xff, 0xff, 0xff, 0]).next(), None);
    }
}
