//! The binary format of COPY, both ways.
//!
//! ```text
//! "PGCOPY\n\xff\r\n\0"  flags: i32  extension: i32 length, bytes
//! per row               count of fields: i16, per field  length: i32 (-1: NULL), bytes
//! at the end            -1: i16
//! ```

use crate::error::{SqlError, SqlState};

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// The lower half of the flags may be ignored by who does not know them.
const CRITICAL_FLAGS: i32 = !0xffff;
/// Rows with an object id before them, as servers before PostgreSQL 12 wrote them.
const FLAG_HAS_OIDS: i32 = 1 << 16;
/// The longest row.
const ROW_SIZE_BYTES_MAX: usize = 256 << 20;

/// Appends what stands before the first row.
pub fn write_header(out: &mut Vec<u8>) {
    out.extend_from_slice(SIGNATURE);
    // No flags, no extension.
    out.extend_from_slice(&[0; 8]);
}

/// Appends what stands behind the last row.
pub fn write_trailer(out: &mut Vec<u8>) {
    out.extend_from_slice(&(-1_i16).to_be_bytes());
}

/// Appends the number of the fields of a row.
pub fn write_count(count: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&i16::try_from(count).unwrap_or(i16::MAX).to_be_bytes());
}

/// Appends a field, which `write` appends; without it, NULL.
pub fn write_field<W: FnOnce(&mut Vec<u8>)>(write: Option<W>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&(-1_i32).to_be_bytes());
    if let Some(write) = write {
        write(out);
        let size = out.len() - start - 4;
        if let Some(place) = out.get_mut(start..start + 4) {
            place.copy_from_slice(&i32::try_from(size).unwrap_or(i32::MAX).to_be_bytes());
        }
    }
}

/// The fields of one row; `None` is NULL.
pub type BinaryRow<'r> = Vec<Option<&'r [u8]>>;

/// Takes chunks of bytes, gives rows of fields.
pub struct BinaryReader {
    table: String,
    columns: Vec<String>,
    buffer: Vec<u8>,
    /// Where the next row begins in `buffer`.
    start: usize,
    has_header: bool,
    /// The end was marked.
    ended: bool,
    finished: bool,
    row_number: u64,
}

/// What is not in the buffer yet.
struct Short;

/// Reads at a place of the buffer.
struct Place<'b> {
    buffer: &'b [u8],
    at: usize,
}

impl<'b> Place<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8], Short> {
        let end = self.at.checked_add(count).ok_or(Short)?;
        let taken = self.buffer.get(self.at..end).ok_or(Short)?;
        self.at = end;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        self.take(N)?.try_into().map_err(|_| Short)
    }
}

impl BinaryReader {
    /// A reader for COPY into `table` with these columns, in the order in which the data has them.
    #[must_use]
    pub fn new(table: impl Into<String>, columns: Vec<String>) -> Self {
        Self {
            table: table.into(),
            columns,
            buffer: Vec::new(),
            start: 0,
            has_header: false,
            ended: false,
            finished: false,
            row_number: 0,
        }
    }

    /// Adds the next chunk of the data.
    ///
    /// # Errors
    /// 54000 when a single row grows beyond the limit.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), SqlError> {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.len() > ROW_SIZE_BYTES_MAX {
            let message = format!("a row of COPY data is longer than {ROW_SIZE_BYTES_MAX} bytes");
            return Err(self.at_row(SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message)));
        }
        self.buffer.extend_from_slice(chunk);
        Ok(())
    }

    /// Says that no more chunks come.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// Adds to an error in a field's value where it was found.
    #[must_use]
    pub fn at_field(&self, error: SqlError, column: usize) -> SqlError {
        let name = self.columns.get(column).map_or("", String::as_str);
        error.with_context(format!("COPY {}, line {}, column {name}", self.table, self.row_number))
    }

    /// Adds to an error in a row where it was found.
    #[must_use]
    pub fn at_row(&self, error: SqlError) -> SqlError {
        error.with_context(format!("COPY {}, line {}", self.table, self.row_number))
    }

    /// The next complete row; `None` when more data is needed, or after [`finish`](Self::finish) when all is read.
    ///
    /// # Errors
    /// 22P04 as PostgreSQL words it, with the row in the context.
    pub fn next_row(&mut self) -> Result<Option<BinaryRow<'_>>, SqlError> {
        if !self.has_header && !self.read_header()? {
            return Ok(None);
        }
        let rest = self.buffer.len() - self.start;
        if self.ended {
            return if rest == 0 { Ok(None) } else { Err(self.bad("received copy data after EOF marker")) };
        }
        if rest == 0 {
            return Ok(None);
        }
        self.row_number += 1;
        let mut place = Place { buffer: &self.buffer, at: self.start };
        match self.fields(&mut place)? {
            Ok(Some(ranges)) => {
                self.start = place.at;
                let buffer = &self.buffer;
                let field = |range: Option<std::ops::Range<usize>>| range.and_then(|range| buffer.get(range));
                Ok(Some(ranges.into_iter().map(field).collect()))
            }
            Ok(None) => {
                self.start = place.at;
                self.ended = true;
                self.next_row()
            }
            Err(Short) if self.finished => Err(self.bad("unexpected EOF in COPY data")),
            Err(Short) => {
                self.row_number -= 1;
                Ok(None)
            }
        }
    }

    /// The places of a row's fields; `None` at the end of the data.
    #[allow(clippy::type_complexity, reason = "a row is missing, bad, at the end, or there")]
    fn fields(
        &self,
        place: &mut Place<'_>,
    ) -> Result<Result<Option<Vec<Option<std::ops::Range<usize>>>>, Short>, SqlError> {
        let Ok(count) = place.number().map(i16::from_be_bytes) else { return Ok(Err(Short)) };
        if count == -1 {
            return Ok(Ok(None));
        }
        let wanted = self.columns.len();
        if usize::try_from(count) != Ok(wanted) {
            return Err(self.bad(&format!("row field count is {count}, expected {wanted}")));
        }
        let mut fields = Vec::with_capacity(wanted);
        for index in 0..wanted {
            let Ok(size) = place.number().map(i32::from_be_bytes) else { return Ok(Err(Short)) };
            if size == -1 {
                fields.push(None);
                continue;
            }
            let Ok(size) = usize::try_from(size) else {
                let error = SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, "invalid field size");
                return Err(self.at_field(error, index));
            };
            let from = place.at;
            if place.take(size).is_err() {
                return Ok(Err(Short));
            }
            fields.push(Some(from..place.at));
        }
        Ok(Ok(Some(fields)))
    }

    /// Whether the header has been read.
    fn read_header(&mut self) -> Result<bool, SqlError> {
        let known = self.buffer.len().min(SIGNATURE.len());
        if self.buffer.get(..known) != SIGNATURE.get(..known) || (self.finished && known < SIGNATURE.len()) {
            return Err(self.bad("COPY file signature not recognized"));
        }
        let mut place = Place { buffer: &self.buffer, at: known };
        let Ok(flags) = place.number().map(i32::from_be_bytes) else {
            return self.unless_finished("invalid COPY file header (missing flags)");
        };
        if flags & FLAG_HAS_OIDS != 0 {
            return Err(self.bad("invalid COPY file header (WITH OIDS)"));
        }
        if flags & CRITICAL_FLAGS != 0 {
            return Err(self.bad("unrecognized critical flags in COPY file header"));
        }
        let Ok(size) = place.number().map(i32::from_be_bytes) else {
            return self.unless_finished("invalid COPY file header (missing length)");
        };
        let size =
            usize::try_from(size).map_err(|_| self.bad("invalid COPY file header (missing length)"))?;
        if place.take(size).is_err() {
            return self.unless_finished("invalid COPY file header (wrong length)");
        }
        self.start = place.at;
        self.has_header = true;
        Ok(true)
    }

    fn unless_finished(&self, message: &str) -> Result<bool, SqlError> {
        if self.finished { Err(self.bad(message)) } else { Ok(false) }
    }

    fn bad(&self, message: &str) -> SqlError {
        self.at_row(SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(rows: &[&[Option<&[u8]>]]) -> Vec<u8> {
        let mut out = Vec::new();
        write_header(&mut out);
        for row in rows {
            write_count(row.len(), &mut out);
            for field in *row {
                write_field(
                    field.map(|bytes| move |out: &mut Vec<u8>| out.extend_from_slice(bytes)),
                    &mut out,
                );
            }
        }
        write_trailer(&mut out);
        out
    }

    fn reader() -> BinaryReader {
        BinaryReader::new("t", vec!["a".into(), "b".into()])
    }

    fn all(chunks: &[&[u8]]) -> Result<Vec<Vec<Option<Vec<u8>>>>, String> {
        let mut reader = reader();
        let mut rows = Vec::new();
        let error = |error: SqlError| error.message().to_owned();
        for chunk in chunks {
            reader.push(chunk).map_err(error)?;
            while let Some(row) = reader.next_row().map_err(error)? {
                rows.push(row.into_iter().map(|field| field.map(<[u8]>::to_vec)).collect());
            }
        }
        reader.finish();
        while let Some(row) = reader.next_row().map_err(error)? {
            rows.push(row.into_iter().map(|field| field.map(<[u8]>::to_vec)).collect());
        }
        Ok(rows)
    }

    #[test]
    fn rows_come_back_wherever_the_data_is_cut() {
        let written: [&[Option<&[u8]>]; 3] =
            [&[Some(b"one"), None], &[Some(b""), Some(b"\0\xff")], &[None, None]];
        let wanted: Vec<Vec<Option<Vec<u8>>>> =
            written.iter().map(|row| row.iter().map(|field| field.map(<[u8]>::to_vec)).collect()).collect();
        let bytes = data(&written);
        for cut in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            assert_eq!(all(&[head, tail]).as_ref(), Ok(&wanted), "cut at {cut}");
        }
        // The end need not be marked.
        assert_eq!(all(&[&bytes[..bytes.len() - 2]]).as_ref(), Ok(&wanted));
    }

    #[test]
    fn what_is_no_such_data_is_refused() {
        let good = data(&[&[Some(b"x"), None]]);
        let changed = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        let behind = [good.as_slice(), b"more"].concat();
        let cases: [(Vec<u8>, &str); 9] = [
            (Vec::new(), "COPY file signature not recognized"),
            (changed(0, b'Q'), "COPY file signature not recognized"),
            (good[..13].to_vec(), "invalid COPY file header (missing flags)"),
            (changed(12, 1), "invalid COPY file header (WITH OIDS)"),
            (changed(11, 1), "unrecognized critical flags in COPY file header"),
            (changed(18, 200), "invalid COPY file header (wrong length)"),
            (changed(20, 3), "row field count is 3, expected 2"),
            (changed(21, 0xf0), "invalid field size"),
            (behind, "received copy data after EOF marker"),
        ];
        for (bytes, message) in cases {
            assert_eq!(all(&[&bytes]), Err(message.to_owned()));
        }
        for end in 20..good.len() - 2 {
            assert_eq!(all(&[&good[..end]]), Err("unexpected EOF in COPY data".to_owned()), "{end}");
        }
    }
}
