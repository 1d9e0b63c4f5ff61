//! Rows that do not fit in `work_mem`: files of a node's data folder, each of which goes with what reads it.
//!
//! The format is this process's own: a length, then each value with a tag. Nothing of it outlives the process; what a
//! killed one leaves behind is removed when the node starts.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustydb_env::{Disk, File, OpenMode};
use rustydb_types::binary;
use rustydb_types::datatype::BaseType;
use rustydb_types::enum_type::EnumType;
use rustydb_types::json;
use rustydb_types::value::{ArrayDimension, ArrayValue, Interval, Value};

use super::operator::{Batch, Filling};
use super::run::Run;
use crate::error::{SqlError, SqlState};
use crate::plan::Row;

/// What is written and read at once.
const BUFFER_SIZE: usize = 32 << 10;
/// Deepest nesting of arrays and records that is read back.
const DEPTH_MAX: usize = 64;

/// The folder of a node in which its statements put what they cannot keep in memory.
#[derive(Debug)]
pub struct SpillArea {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    next: AtomicU64,
    used_bytes: AtomicU64,
}

fn io_error(error: &io::Error) -> SqlError {
    let state = match error.kind() {
        io::ErrorKind::StorageFull => SqlState::DISK_FULL,
        _ => SqlState::IO_ERROR,
    };
    SqlError::new(state, format!("could not use a temporary file: {error}"))
}

impl SpillArea {
    /// The area in a folder, which is emptied.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn open(disk: &Arc<dyn Disk>, dir: &Path) -> io::Result<Arc<Self>> {
        disk.remove_dir_all(dir)?;
        disk.create_dir_all(dir)?;
        Ok(Arc::new(Self {
            disk: Arc::clone(disk),
            dir: dir.to_owned(),
            next: AtomicU64::new(0),
            used_bytes: AtomicU64::new(0),
        }))
    }

    /// Bytes in files now.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// How many files were made since the start.
    #[must_use]
    pub fn created(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Takes room for more: all files together may have half of what would be free without them.
    fn take(&self, bytes: u64) -> Result<(), SqlError> {
        let used = self.used_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // A disk that cannot tell says so when it is full.
        let free = self.disk.available_bytes(&self.dir).unwrap_or(u64::MAX);
        if used > free {
            self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(SqlError::new(
                SqlState::DISK_FULL,
                "temporary files would take more than half of the free disk",
            )
            .with_hint(
                "Raise work_mem, make the statement sort, group or join fewer rows, or free disk space.",
            ));
        }
        Ok(())
    }

    /// A new file, which is made when there is something to be written to it.
    pub(crate) fn create(self: &Arc<Self>) -> SpillWriter {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("{number}.rows"));
        let held = Held { area: Arc::clone(self), path, file: None, size_bytes: 0 };
        SpillWriter { held, buffer: Vec::new(), rows: 0 }
    }
}

/// A file that goes when it is dropped.
#[derive(Debug)]
struct Held {
    area: Arc<SpillArea>,
    path: PathBuf,
    /// None before anything is written.
    file: Option<Arc<dyn File>>,
    size_bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.file.is_some() {
            // What cannot be removed now is when the node starts.
            let _left = self.area.disk.remove_file(&self.path);
        }
        self.area.used_bytes.fetch_sub(self.size_bytes, Ordering::Relaxed);
    }
}

/// A file that is being written.
#[derive(Debug)]
pub(crate) struct SpillWriter {
    held: Held,
    buffer: Vec<u8>,
    rows: u64,
}

impl SpillWriter {
    /// Appends a row.
    ///
    /// # Errors
    /// 53100 when the disk is full; those of the disk.
    pub(crate) fn push(&mut self, row: &[Value]) -> Result<(), SqlError> {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 4]);
        put_values(&mut self.buffer, row);
        let size = self.buffer.len() - start - 4;
        let size = u32::try_from(size).map_err(|_| {
            SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "a row is too large for a temporary file")
        })?;
        if let Some(slot) = self.buffer.get_mut(start..start + 4) {
            slot.copy_from_slice(&size.to_le_bytes());
        }
        self.rows += 1;
        if self.buffer.len() >= BUFFER_SIZE { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), SqlError> {
        let bytes = self.buffer.len() as u64;
        self.held.area.take(bytes)?;
        let at = self.held.size_bytes;
        self.held.size_bytes += bytes;
        let file = match &self.held.file {
            Some(file) => file,
            None => {
                let opened = self.held.area.disk.open(&self.held.path, OpenMode::CreateNew);
                self.held.file.insert(opened.map_err(|error| io_error(&error))?)
            }
        };
        file.write_at(at, &self.buffer).map_err(|error| io_error(&error))?;
        self.buffer.clear();
        Ok(())
    }

    /// Ends the file, to be read from its beginning. What is less than a buffer and `may_stay` is not written at all.
    ///
    /// # Errors
    /// As [`SpillWriter::push`].
    pub(crate) fn finish(mut self, may_stay: bool) -> Result<SpillReader, SqlError> {
        if may_stay && self.held.file.is_none() {
            let (buffer, left) = (self.buffer, self.rows);
            return Ok(SpillReader { held: self.held, at: 0, buffer, place: 0, left });
        }
        if !self.buffer.is_empty() {
            self.write()?;
        }
        Ok(SpillReader { held: self.held, at: 0, buffer: Vec::new(), place: 0, left: self.rows })
    }
}

/// A file that is read once; it goes with it.
#[derive(Debug)]
pub(crate) struct SpillReader {
    held: Held,
    /// Where in the file the buffer ends.
    at: u64,
    buffer: Vec<u8>,
    place: usize,
    left: u64,
}

impl SpillReader {
    /// How many rows are still to come.
    pub(crate) const fn rows(&self) -> u64 {
        self.left
    }

    /// The next row.
    ///
    /// # Errors
    /// Those of the disk; XX001 when the file is damaged.
    pub(crate) fn next(&mut self) -> Result<Option<Row>, SqlError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let head = self.bytes(4)?;
        let size = head.first_chunk::<4>().map_or(0, |head| u32::from_le_bytes(*head));
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let mut bytes = self.bytes(size)?;
        read_values(&mut bytes, 0).map(Some).ok_or_else(damaged)
    }

    /// The next rows, as many as an operator yields at a time.
    ///
    /// # Errors
    /// As [`SpillReader::next`]; 57014 when cancelled.
    pub(crate) fn batch(&mut self, run: &Run<'_>) -> Result<Option<Batch>, SqlError> {
        run.state.check_cancel()?;
        let mut batch = Filling::default();
        while !batch.is_full()
            && let Some(row) = self.next()?
        {
            batch.push(row);
        }
        Ok(batch.finish())
    }

    /// So many bytes that follow.
    fn bytes(&mut self, size: usize) -> Result<&[u8], SqlError> {
        if self.buffer.len() - self.place < size {
            self.buffer.drain(..self.place);
            self.place = 0;
            let missing = size - self.buffer.len();
            let left = usize::try_from(self.held.size_bytes - self.at).unwrap_or(usize::MAX);
            if missing > left {
                return Err(damaged());
            }
            let start = self.buffer.len();
            let count = missing.max(BUFFER_SIZE).min(left);
            self.buffer.resize(start + count, 0);
            let room = self.buffer.get_mut(start..).unwrap_or_default();
            let file = self.held.file.as_ref().ok_or_else(damaged)?;
            file.read_at(self.at, room).map_err(|error| io_error(&error))?;
            self.at += count as u64;
        }
        let start = self.place;
        self.place += size;
        self.buffer.get(start..self.place).ok_or_else(damaged)
    }
}

fn damaged() -> SqlError {
    SqlError::new(SqlState::DATA_CORRUPTED, "a temporary file is damaged")
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_values(out: &mut Vec<u8>, values: &[Value]) {
    put_count(out, values.len());
    for value in values {
        put(out, value);
    }
}

/// The bytes of something whose length is only known behind it.
fn put_sized(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    put_count(out, 0);
    write(out);
    let size = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    if let Some(slot) = out.get_mut(start..start + 4) {
        slot.copy_from_slice(&size.to_le_bytes());
    }
}

/// Numbers of types from here on are those of versions of enumerations, which mean something within this process.
const ENUMERATIONS: u32 = 1 << 31;

fn put(out: &mut Vec<u8>, value: &Value) {
    let mut tagged = |tag: u8, bytes: &[u8]| {
        out.push(tag);
        out.extend_from_slice(bytes);
    };
    match value {
        Value::Null => tagged(0, &[]),
        Value::Bool(flag) => tagged(1, &[u8::from(*flag)]),
        Value::Int2(n) => tagged(2, &n.to_le_bytes()),
        Value::Int4(n) => tagged(3, &n.to_le_bytes()),
        Value::Int8(n) => tagged(4, &n.to_le_bytes()),
        Value::Float4(n) => tagged(5, &n.to_le_bytes()),
        Value::Float8(n) => tagged(6, &n.to_le_bytes()),
        Value::Date(n) => tagged(7, &n.to_le_bytes()),
        Value::Time(n) => tagged(8, &n.to_le_bytes()),
        Value::Timestamp(n) => tagged(9, &n.to_le_bytes()),
        Value::Timestamptz(n) => tagged(10, &n.to_le_bytes()),
        Value::Uuid(bytes) => tagged(11, bytes),
        Value::Oid(n) => tagged(12, &n.to_le_bytes()),
        Value::Lsn(n) => tagged(13, &n.to_le_bytes()),
        Value::Interval(span) => {
            tagged(14, &span.months.to_le_bytes());
            out.extend_from_slice(&span.days.to_le_bytes());
            out.extend_from_slice(&span.micros.to_le_bytes());
        }
        Value::Text(text) => {
            tagged(15, &[]);
            put_sized(out, |out| out.extend_from_slice(text.as_bytes()));
        }
        Value::Bytea(bytes) => {
            tagged(16, &[]);
            put_sized(out, |out| out.extend_from_slice(bytes));
        }
        Value::Numeric(_) => {
            tagged(17, &[]);
            put_sized(out, |out| binary::binary_out(out, value));
        }
        Value::Jsonb(json) => {
            tagged(18, &[]);
            put_sized(out, |out| json::encode(out, json));
        }
        Value::Record(values) => {
            tagged(19, &[]);
            put_values(out, values);
        }
        Value::Enum(value) => {
            tagged(21, &value.of().map_or(u32::MAX, EnumType::number).to_le_bytes());
            out.extend_from_slice(&value.position().to_le_bytes());
        }
        Value::Array(list) => {
            let element = match list.element {
                BaseType::Enum(of) => ENUMERATIONS.saturating_add(of.number()),
                element => element.oid(),
            };
            tagged(20, &element.to_le_bytes());
            put_count(out, list.dimensions.len());
            for dimension in &list.dimensions {
                out.extend_from_slice(&dimension.length.to_le_bytes());
                out.extend_from_slice(&dimension.lower.to_le_bytes());
            }
            put_values(out, &list.elements);
        }
    }
}

fn fixed<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

fn read_count(bytes: &mut &[u8]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(fixed(bytes)?)).ok()
}

fn sized<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let size = read_count(bytes)?;
    let (head, rest) = bytes.split_at_checked(size)?;
    *bytes = rest;
    Some(head)
}

fn read_values(bytes: &mut &[u8], depth: usize) -> Option<Vec<Value>> {
    let count = read_count(bytes)?;
    if depth > DEPTH_MAX {
        return None;
    }
    // A count is not trusted for memory: each value takes at least a byte.
    let mut values = Vec::with_capacity(count.min(bytes.len()));
    for _ in 0..count {
        values.push(read(bytes, depth)?);
    }
    Some(values)
}

fn read(bytes: &mut &[u8], depth: usize) -> Option<Value> {
    let [tag] = fixed::<1>(bytes)?;
    Some(match tag {
        0 => Value::Null,
        1 => Value::Bool(fixed::<1>(bytes)? == [1]),
        2 => Value::Int2(i16::from_le_bytes(fixed(bytes)?)),
        3 => Value::Int4(i32::from_le_bytes(fixed(bytes)?)),
        4 => Value::Int8(i64::from_le_bytes(fixed(bytes)?)),
        5 => Value::Float4(f32::from_le_bytes(fixed(bytes)?)),
        6 => Value::Float8(f64::from_le_bytes(fixed(bytes)?)),
        7 => Value::Date(i32::from_le_bytes(fixed(bytes)?)),
        8 => Value::Time(i64::from_le_bytes(fixed(bytes)?)),
        9 => Value::Timestamp(i64::from_le_bytes(fixed(bytes)?)),
        10 => Value::Timestamptz(i64::from_le_bytes(fixed(bytes)?)),
        11 => Value::Uuid(fixed(bytes)?),
        12 => Value::Oid(u32::from_le_bytes(fixed(bytes)?)),
        13 => Value::Lsn(u64::from_le_bytes(fixed(bytes)?)),
        14 => Value::Interval(Box::new(Interval {
            months: i32::from_le_bytes(fixed(bytes)?),
            days: i32::from_le_bytes(fixed(bytes)?),
            micros: i64::from_le_bytes(fixed(bytes)?),
        })),
        15 => Value::text(std::str::from_utf8(sized(bytes)?).ok()?),
        16 => Value::Bytea(sized(bytes)?.into()),
        17 => binary::binary_in(sized(bytes)?, BaseType::Numeric).ok()?,
        18 => Value::Jsonb(json::decode(sized(bytes)?).ok()?.into()),
        19 => Value::Record(read_values(bytes, depth + 1)?.into()),
        20 => {
            let element = u32::from_le_bytes(fixed(bytes)?);
            let element = match BaseType::from_oid(element) {
                Some(element) => element,
                None => BaseType::Enum(EnumType::numbered(element.checked_sub(ENUMERATIONS)?)?),
            };
            let count = read_count(bytes)?;
            let mut dimensions = Vec::with_capacity(count.min(bytes.len()));
            for _ in 0..count {
                let length = i32::from_le_bytes(fixed(bytes)?);
                dimensions.push(ArrayDimension { length, lower: i32::from_le_bytes(fixed(bytes)?) });
            }
            let elements = read_values(bytes, depth + 1)?;
            Value::Array(Box::new(ArrayValue { element, dimensions, elements }))
        }
        21 => {
            let of = EnumType::numbered(u32::from_le_bytes(fixed(bytes)?))?;
            Value::Enum(of.at(u64::from_le_bytes(fixed(bytes)?))?)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use rustydb_env::sim::Simulation;

    use super::*;

    fn area() -> (Simulation, Arc<SpillArea>) {
        let simulation = Simulation::new(3);
        let node = simulation.add_node();
        let env = simulation.env(node);
        let area = SpillArea::open(env.disk(), Path::new("/data/tmp")).unwrap();
        (simulation, area)
    }

    #[test]
    fn every_kind_of_value_comes_back() {
        let (_simulation, area) = area();
        let inner = vec![Value::Int4(1), Value::Null];
        let numeric =
            crate::exec::text::read("12345678901234567890.00120", BaseType::Numeric.into()).unwrap();
        let row = vec![
            Value::Null,
            Value::Bool(true),
            Value::Int2(-3),
            Value::Int4(4),
            Value::Int8(i64::MIN),
            Value::Float4(1.5),
            Value::Float8(f64::NAN),
            Value::Date(-1),
            Value::Time(2),
            Value::Timestamp(3),
            Value::Timestamptz(4),
            Value::Uuid([7; 16]),
            Value::Oid(9),
            Value::Lsn(10),
            Value::Interval(Box::new(Interval { months: -1, days: 2, micros: -3 })),
            Value::text("ä\0b"),
            Value::Bytea([1, 2, 3].as_slice().into()),
            numeric,
            crate::exec::text::read(r#"{"a": [1, null, "x"]}"#, BaseType::Jsonb.into()).unwrap(),
            Value::Record(inner.clone().into()),
            Value::array(BaseType::Int4, inner),
        ];
        let mut writer = area.create();
        let count = 20_000;
        for _ in 0..count {
            writer.push(&row).unwrap();
        }
        let mut reader = writer.finish(true).unwrap();
        assert_eq!(reader.rows(), count);
        assert!(area.used_bytes() > 1_000_000);
        let mut read = 0;
        while let Some(again) = reader.next().unwrap() {
            assert_eq!(format!("{again:?}"), format!("{row:?}"));
            read += 1;
        }
        assert_eq!(read, count);
        drop(reader);
        assert_eq!(area.used_bytes(), 0);
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let mut bytes = Vec::new();
        put_values(&mut bytes, &[Value::text("abc"), Value::array(BaseType::Int4, vec![Value::Int4(1)])]);
        assert!(read_values(&mut bytes.as_slice(), 0).is_some());
        for end in 0..bytes.len() {
            assert!(read_values(&mut &bytes[..end], 0).is_none(), "{end}");
        }
        assert!(read_values(&mut [1, 0, 0, 0, 99].as_slice(), 0).is_none());
    }
}
