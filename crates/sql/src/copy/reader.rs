//! COPY FROM: lines to fields.
//!
//! Text format: fields end at the delimiter, rows at the end of the line; a backslash makes the next byte
//! special (`\n`, `\t`, octal, hex) or ordinary; a field equal to the NULL string *before* unescaping is NULL;
//! a line `\.` ends the data.
//! CSV: a quoted field may hold delimiters and line ends; an unquoted field equal to the NULL string is NULL.
//! Lines may end in LF, CRLF or CR; within one COPY all must end alike, as in PostgreSQL.

use super::options::{CopyFormat, CopyOptions};
use crate::error::{SqlError, SqlState};

/// The longest line, ends included.
const LINE_SIZE_BYTES_MAX: usize = 256 << 20;
/// How much of a bad line an error shows.
const SHOWN_CHARS_MAX: usize = 100;

/// How lines end; the first one decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineEnd {
    Lf,
    CrLf,
    Cr,
}

/// The fields of one row, valid until the reader is asked for the next.
#[derive(Debug)]
pub struct CopyRow<'r> {
    text: &'r str,
    /// For each field its place in `text`; `None` is NULL.
    fields: &'r [Option<(usize, usize)>],
}

impl<'r> CopyRow<'r> {
    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there are none, which a table without columns has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The field at `index`; `None` when it is NULL or beyond the end.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&'r str> {
        let (start, end) = self.fields.get(index).copied().flatten()?;
        self.text.get(start..end)
    }
}

/// Takes chunks of bytes, gives rows of fields.
pub struct CopyReader {
    options: CopyOptions,
    table: String,
    columns: Vec<String>,
    buffer: Vec<u8>,
    /// Where the next line begins in `buffer`.
    start: usize,
    /// Up to where the next line was searched for its end, so that no byte is looked at twice.
    scanned: usize,
    in_quotes: bool,
    /// The byte at `scanned` follows an escape, or in the text format a backslash.
    after_escape: bool,
    /// Where the line that was read last stands in `buffer`.
    line: (usize, usize),
    line_end: Option<LineEnd>,
    line_number: u64,
    finished: bool,
    /// `\.` was seen: the rest is ignored.
    ended: bool,
    header_is_due: bool,
    text: String,
    scratch: Vec<u8>,
    fields: Vec<Option<(usize, usize)>>,
}

impl CopyReader {
    /// A reader for COPY into `table` with these columns, in the order in which the data has them.
    #[must_use]
    pub fn new(options: CopyOptions, table: impl Into<String>, columns: Vec<String>) -> CopyReader {
        CopyReader {
            header_is_due: options.header,
            options,
            table: table.into(),
            columns,
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            in_quotes: false,
            after_escape: false,
            line: (0, 0),
            line_end: None,
            line_number: 0,
            finished: false,
            ended: false,
            text: String::new(),
            scratch: Vec::new(),
            fields: Vec::new(),
        }
    }

    /// The number of the line that was read last, from 1.
    #[must_use]
    pub fn line_number(&self) -> u64 {
        self.line_number
    }

    /// Adds the next chunk of the data.
    ///
    /// # Errors
    /// 54000 when a single line grows beyond the limit.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), SqlError> {
        if self.ended {
            return Ok(());
        }
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
            self.line = (0, 0);
        }
        if self.buffer.len() > LINE_SIZE_BYTES_MAX {
            let message = format!("a line of COPY data is longer than {LINE_SIZE_BYTES_MAX} bytes");
            let error = SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message);
            return Err(error.with_context(format!("COPY {}, line {}", self.table, self.line_number + 1)));
        }
        self.buffer.extend_from_slice(chunk);
        Ok(())
    }

    /// Says that no more chunks come: a last line without an end counts.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// The next complete row; `None` when more data is needed, or after [`finish`](CopyReader::finish) when all is read.
    ///
    /// # Errors
    /// 22P04 and 22021 with the line in the context, as PostgreSQL words them.
    pub fn next_row(&mut self) -> Result<Option<CopyRow<'_>>, SqlError> {
        loop {
            let Some((start, end)) = self.next_line()? else { return Ok(None) };
            if std::mem::take(&mut self.header_is_due) {
                continue;
            }
            self.split(start, end)?;
            return Ok(Some(CopyRow { text: &self.text, fields: &self.fields }));
        }
    }

    /// Adds to an error in a field's value where it was found, as PostgreSQL's context line does.
    #[must_use]
    pub fn at_field(&self, error: SqlError, column: usize, value: Option<&str>) -> SqlError {
        let name = self.columns.get(column).map_or("", String::as_str);
        let place = format!("COPY {}, line {}, column {name}", self.table, self.line_number);
        error.with_context(match value {
            Some(value) => format!("{place}: \"{}\"", shown(value)),
            None => format!("{place}: null input"),
        })
    }

    /// Adds to an error in a row where it was found.
    #[must_use]
    pub fn at_line(&self, error: SqlError) -> SqlError {
        let line = shown(&self.line_text());
        error.with_context(format!("COPY {}, line {}: \"{line}\"", self.table, self.line_number))
    }

    /// Adds to an error which line it is about, without the line: it is known only when the row was taken.
    #[must_use]
    pub fn at_line_number(&self, error: SqlError) -> SqlError {
        error.with_context(format!("COPY {}, line {}", self.table, self.line_number))
    }

    fn line_text(&self) -> String {
        String::from_utf8_lossy(self.buffer.get(self.line.0..self.line.1).unwrap_or_default()).into_owned()
    }

    fn bad_format(&self, message: impl Into<String>) -> SqlError {
        self.at_line(SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, message))
    }

    /// An error in a line of which not even the end is known.
    fn bad_line(&self, message: &str, hint: &str) -> SqlError {
        SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, message).with_hint(hint).with_context(format!(
            "COPY {}, line {}",
            self.table,
            self.line_number + 1
        ))
    }

    /// Finds the next whole line; the ends of line are left out of the range.
    fn next_line(&mut self) -> Result<Option<(usize, usize)>, SqlError> {
        if self.ended {
            return Ok(None);
        }
        let Some((end, next)) = self.find_line_end()? else { return self.last_line() };
        Ok(self.take_line(end, next))
    }

    fn take_line(&mut self, end: usize, next: usize) -> Option<(usize, usize)> {
        let start = self.start;
        self.line_number += 1;
        self.start = next;
        self.scanned = next;
        self.line = (start, end);
        if self.buffer.get(start..end) == Some(b"\\.") {
            self.ended = true;
            return None;
        }
        Some((start, end))
    }

    /// What is left when no more data comes.
    fn last_line(&mut self) -> Result<Option<(usize, usize)>, SqlError> {
        if !self.finished || self.start >= self.buffer.len() {
            return Ok(None);
        }
        let mut end = self.buffer.len();
        self.line = (self.start, end);
        if self.in_quotes {
            self.line_number += 1;
            return Err(self.bad_format("unterminated CSV quoted field"));
        }
        // A lone carriage return at the very end was kept back for the line feed that might have followed.
        let next = end;
        if self.buffer.last() == Some(&b'\r') && self.line_end != Some(LineEnd::Lf) {
            end -= 1;
        }
        Ok(self.take_line(end, next))
    }

    /// The end of the next line and the start of the one after; `None` when it is not in the buffer yet.
    fn find_line_end(&mut self) -> Result<Option<(usize, usize)>, SqlError> {
        let csv = self.options.format == CopyFormat::Csv;
        let quote = self.options.quote;
        // Where quote and escape are one, a doubled quote closes and opens again, which comes to the same.
        let escape = if csv && self.options.escape != quote { Some(self.options.escape) } else { None };
        while let Some(byte) = self.buffer.get(self.scanned).copied() {
            let at = self.scanned;
            if csv {
                if self.in_quotes {
                    if Some(byte) == escape {
                        self.after_escape = !self.after_escape;
                    } else {
                        if byte == quote && !self.after_escape {
                            self.in_quotes = false;
                        }
                        self.after_escape = false;
                    }
                    self.scanned += 1;
                    continue;
                }
                if byte == quote {
                    self.in_quotes = true;
                    self.scanned += 1;
                    continue;
                }
            } else if self.after_escape {
                self.after_escape = false;
                self.scanned += 1;
                continue;
            } else if byte == b'\\' {
                self.after_escape = true;
                self.scanned += 1;
                continue;
            }
            match byte {
                b'\n' => {
                    self.check_line_end(LineEnd::Lf)?;
                    return Ok(Some((at, at + 1)));
                }
                b'\r' => match self.buffer.get(at + 1) {
                    // The line feed may be in the next chunk.
                    None => return Ok(None),
                    Some(b'\n') => {
                        self.check_line_end(LineEnd::CrLf)?;
                        return Ok(Some((at, at + 2)));
                    }
                    Some(_) => {
                        self.check_line_end(LineEnd::Cr)?;
                        return Ok(Some((at, at + 1)));
                    }
                },
                _ => self.scanned += 1,
            }
        }
        Ok(None)
    }

    /// All lines must end as the first one does.
    fn check_line_end(&mut self, found: LineEnd) -> Result<(), SqlError> {
        let first = *self.line_end.get_or_insert(found);
        if first == found {
            return Ok(());
        }
        let csv = self.options.format == CopyFormat::Csv;
        Err(match (found, csv) {
            (LineEnd::Lf, false) => {
                self.bad_line("literal newline found in data", "Use \"\\n\" to represent newline.")
            }
            (LineEnd::Lf, true) => {
                self.bad_line("unquoted newline found in data", "Use quoted CSV field to represent newline.")
            }
            (_, false) => self.bad_line(
                "literal carriage return found in data",
                "Use \"\\r\" to represent carriage return.",
            ),
            (_, true) => self.bad_line(
                "unquoted carriage return found in data",
                "Use quoted CSV field to represent carriage return.",
            ),
        })
    }

    /// Splits the line `start..end` of the buffer into fields.
    fn split(&mut self, start: usize, end: usize) -> Result<(), SqlError> {
        self.fields.clear();
        self.scratch.clear();
        let line = self.buffer.get(start..end).unwrap_or_default();
        let problem = match self.options.format {
            CopyFormat::Text => split_text(line, &self.options, &mut self.scratch, &mut self.fields),
            CopyFormat::Csv | CopyFormat::Binary => {
                split_csv(line, &self.options, &self.columns, &mut self.scratch, &mut self.fields)
            }
        };
        if let Err(message) = problem {
            return Err(self.bad_format(message));
        }
        // The bytes move between the two buffers, so that neither is allocated for each row.
        let mut bytes = std::mem::take(&mut self.text).into_bytes();
        std::mem::swap(&mut bytes, &mut self.scratch);
        match String::from_utf8(bytes) {
            Ok(text) => self.text = text,
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let bad = error.as_bytes().get(at).copied().unwrap_or_default();
                let message = format!("invalid byte sequence for encoding \"UTF8\": 0x{bad:02x}");
                return Err(self.at_line(SqlError::new(SqlState::CHARACTER_NOT_IN_REPERTOIRE, message)));
            }
        }
        if self.text.contains('\0') {
            let message = "invalid byte sequence for encoding \"UTF8\": 0x00";
            return Err(self.at_line(SqlError::new(SqlState::CHARACTER_NOT_IN_REPERTOIRE, message)));
        }
        self.check_field_count()
    }

    fn check_field_count(&mut self) -> Result<(), SqlError> {
        if self.columns.is_empty() && self.text.is_empty() {
            self.fields.clear();
        }
        if self.fields.len() < self.columns.len() {
            let missing = &self.columns[self.fields.len()];
            return Err(self.bad_format(format!("missing data for column \"{missing}\"")));
        }
        if self.fields.len() > self.columns.len() {
            return Err(self.bad_format("extra data after last expected column"));
        }
        Ok(())
    }
}

/// A value as an error shows it: shortened, with an ellipsis.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((at, _)) => format!("{}...", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn split_text(
    line: &[u8],
    options: &CopyOptions,
    out: &mut Vec<u8>,
    fields: &mut Vec<Option<(usize, usize)>>,
) -> Result<(), &'static str> {
    let mut rest = line;
    loop {
        let field_start = out.len();
        let mut raw_length = rest.len();
        let mut last = true;
        let mut at = 0;
        while let Some(byte) = rest.get(at).copied() {
            if byte == options.delimiter {
                raw_length = at;
                last = false;
                break;
            }
            if byte != b'\\' {
                out.push(byte);
                at += 1;
                continue;
            }
            at = unescape(rest, at + 1, out)?;
        }
        let raw = rest.get(..raw_length).unwrap_or_default();
        if raw == options.null.as_bytes() {
            out.truncate(field_start);
            fields.push(None);
        } else {
            fields.push(Some((field_start, out.len())));
        }
        if last {
            return Ok(());
        }
        rest = rest.get(raw_length + 1..).unwrap_or_default();
    }
}

/// Writes what the escape after a backslash stands for; `at` is the byte after it. Returns where to go on.
fn unescape(line: &[u8], at: usize, out: &mut Vec<u8>) -> Result<usize, &'static str> {
    let Some(byte) = line.get(at).copied() else {
        // A backslash at the end of the data stands for itself.
        out.push(b'\\');
        return Ok(at);
    };
    let (value, next) = match byte {
        b'0'..=b'7' => number(line, at, 8, 3),
        b'x' if line.get(at + 1).is_some_and(u8::is_ascii_hexdigit) => number(line, at + 1, 16, 2),
        b'b' => (8, at + 1),
        b'f' => (12, at + 1),
        b'n' => (b'\n', at + 1),
        b'r' => (b'\r', at + 1),
        b't' => (b'\t', at + 1),
        b'v' => (11, at + 1),
        b'.' => return Err("end-of-copy marker corrupt"),
        other => (other, at + 1),
    };
    out.push(value);
    Ok(next)
}

/// Up to `digit_count_max` digits from `at`; the value wraps to a byte, as in PostgreSQL.
fn number(line: &[u8], at: usize, radix: u32, digit_count_max: usize) -> (u8, usize) {
    let mut value = 0_u32;
    let mut next = at;
    while next < at + digit_count_max {
        let Some(digit) = line.get(next).and_then(|byte| char::from(*byte).to_digit(radix)) else { break };
        value = value * radix + digit;
        next += 1;
    }
    ((value & 0xFF) as u8, next)
}

fn split_csv(
    line: &[u8],
    options: &CopyOptions,
    columns: &[String],
    out: &mut Vec<u8>,
    fields: &mut Vec<Option<(usize, usize)>>,
) -> Result<(), &'static str> {
    let mut at = 0;
    loop {
        let field_start = out.len();
        let mut quoted = false;
        let mut last = true;
        while let Some(byte) = line.get(at).copied() {
            at += 1;
            if byte == options.delimiter {
                last = false;
                break;
            }
            if byte == options.quote {
                quoted = true;
                at = quoted_part(line, at, options, out)?;
            } else {
                out.push(byte);
            }
        }
        let name = columns.get(fields.len());
        let listed = |list: &[String]| name.is_some_and(|name| list.contains(name));
        let is_null_text = out.get(field_start..) == Some(options.null.as_bytes());
        let null = if quoted { listed(&options.force_null) } else { !listed(&options.force_not_null) };
        if is_null_text && null {
            out.truncate(field_start);
            fields.push(None);
        } else {
            fields.push(Some((field_start, out.len())));
        }
        if last {
            return Ok(());
        }
    }
}

/// Copies up to the closing quote; returns the place after it.
fn quoted_part(
    line: &[u8],
    mut at: usize,
    options: &CopyOptions,
    out: &mut Vec<u8>,
) -> Result<usize, &'static str> {
    while let Some(byte) = line.get(at).copied() {
        at += 1;
        if byte == options.escape
            && let Some(next) = line.get(at).copied()
            && (next == options.quote || next == options.escape)
        {
            out.push(next);
            at += 1;
            continue;
        }
        if byte == options.quote {
            return Ok(at);
        }
        out.push(byte);
    }
    Err("unterminated CSV quoted field")
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
