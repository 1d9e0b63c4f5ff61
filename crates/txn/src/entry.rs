//! The log entry: what a commit is on the wire and on disk.
//!
//! ```text
//!   0 version u8 | 1 kind u8 | 2 flags u16 = 0 | 4 origin site u32
//!   8 term u64 | 16 sequence u64
//!  24 request: incarnation u64, session u64, counter u64
//!  48 commit time i64, microseconds since 1970, for people only
//!  56 origin position: term u64, index u64 | 72 epoch u64
//!  80 attempt u64: which proposal of its leader this is, so that an answer meets its question
//!  88 attachments length u32 | 92 body length u32
//!  96 attachments: { kind u8, length u32, bytes }*
//!     body by kind
//! ```
//!
//! All numbers are little-endian. Term, sequence and commit time are written last, when the sequencer numbers the
//! entry; everything else is encoded outside its lock. The format is drawn in `docs/formats/entries.md`.
//!
//! Invariants: an unknown version or kind is an error, never skipped; a decoded key or value shares the memory
//! of the entry. Deliberately absent: a checksum, which is the log frame's.

use bytes::{BufMut, Bytes, BytesMut};
use rustydb_types::ids::{Incarnation, LogIndex, RequestId, SessionId, Term, Version};
use rustydb_types::position::LogPosition;

use crate::hash;

/// The format version that this program writes and reads.
pub const FORMAT_VERSION: u8 = 2;
/// Bytes before the attachments.
pub const HEADER_SIZE: usize = 96;
/// Entries that nobody asks the outcome of.
pub(crate) const NOBODY: RequestId =
    RequestId { incarnation: Incarnation::new(0), session: SessionId::new(0), counter: 0 };
/// The value length that marks a tombstone.
const TOMBSTONE: u32 = u32::MAX;
/// The longest key; longer ones are refused where they enter.
pub const KEY_SIZE_MAX: usize = 64 * 1024;

/// What an entry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Commits a transaction: the body is its writes.
    Commit,
    /// Fences a request id: a commit under it that comes later is refused. No body.
    Fence,
    /// Provisional writes of a staged transaction: its number (zero: this entry opens it), the command that wrote
    /// them, then writes.
    Stage,
    /// Commits a staged transaction: its number, then the last writes.
    CommitStaged,
    /// Drops a staged transaction: its number.
    AbortStaged,
}

impl EntryKind {
    const fn code(self) -> u8 {
        match self {
            EntryKind::Commit => 1,
            EntryKind::Fence => 2,
            EntryKind::Stage => 3,
            EntryKind::CommitStaged => 4,
            EntryKind::AbortStaged => 5,
        }
    }

    const fn of_code(code: u8) -> Option<EntryKind> {
        Some(match code {
            1 => EntryKind::Commit,
            2 => EntryKind::Fence,
            3 => EntryKind::Stage,
            4 => EntryKind::CommitStaged,
            5 => EntryKind::AbortStaged,
            _ => return None,
        })
    }

    const fn names_staged(self) -> bool {
        matches!(self, EntryKind::Stage | EntryKind::CommitStaged | EntryKind::AbortStaged)
    }
}

/// The fields of the header that have a meaning of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    /// What the entry does.
    pub kind: EntryKind,
    /// The leadership that numbered it.
    pub term: Term,
    /// Its place in the order of commits.
    pub sequence: Version,
    /// Who asked for it; all zero for nobody.
    pub request: RequestId,
    /// Microseconds since 1970 at the leader when it was numbered.
    pub commit_time_us: i64,
    /// The site where the change was made first; zero is this one.
    pub origin_site: u32,
    /// The position at that site.
    pub origin: LogPosition,
    /// The epoch of the database.
    pub epoch: u64,
    /// Which proposal of its leader this is: a sequence may be given out again after a refusal, this never.
    pub attempt: u64,
}

/// Data that rides with an entry in the feed and is not part of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Which type; the numbers are given out in `docs/formats/entries.md`.
    pub kind: u8,
    /// The data.
    pub data: Bytes,
}

/// What a write replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// The version of the row; zero where there was none.
    pub version: Version,
    /// Its share of the state hash, zero where there was none. It rides with the write so that a replica need not read
    /// the old row to take it off.
    pub share: u128,
}

impl Base {
    /// Of a write where there was no row.
    pub const NONE: Base = Base { version: Version::ZERO, share: 0 };

    /// A row as it is stored.
    #[must_use]
    pub fn of(key: &[u8], version: Version, value: &[u8]) -> Base {
        Base { version, share: hash::row(key, version, value) }
    }
}

/// One changed row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The key.
    pub key: Bytes,
    /// What this write replaces.
    pub base: Base,
    /// The new value; `None` deletes the row.
    pub value: Option<Bytes>,
}

/// A decoded entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The header.
    pub header: EntryHeader,
    /// What rides along.
    pub attachments: Vec<Attachment>,
    /// The staged transaction that the entry names, zero if it names none.
    pub staged: Version,
    /// Which command of the staged transaction wrote the rows: its own reads within that command do not see them.
    /// Zero for all other kinds.
    pub command: u32,
    /// The changed rows.
    pub writes: Vec<Write>,
}

/// Why an entry does not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryError {
    /// A format version that is not ours.
    Version(u8),
    /// A kind that is not ours.
    Kind(u8),
    /// Lengths or fields that do not fit.
    Damaged(&'static str),
}

/// What numbering decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbering {
    /// The leadership.
    pub term: Term,
    /// The place in the order of commits.
    pub sequence: Version,
    /// Which proposal of the leader this is.
    pub attempt: u64,
    /// Microseconds since 1970.
    pub commit_time_us: i64,
}

/// An entry under construction: all but what numbering decides.
#[derive(Debug)]
pub struct EntryBuilder {
    buffer: BytesMut,
    body_start: usize,
    count_at: usize,
    count: u32,
}

impl EntryBuilder {
    /// Opens an entry. `staged` is the staged transaction that it names; zero for kinds that name none.
    #[must_use]
    pub fn new(
        kind: EntryKind,
        request: RequestId,
        staged: Version,
        attachments: &[Attachment],
    ) -> EntryBuilder {
        let mut buffer = BytesMut::with_capacity(256);
        buffer.put_u8(FORMAT_VERSION);
        buffer.put_u8(kind.code());
        buffer.put_bytes(0, 22);
        buffer.put_u64_le(request.incarnation.get());
        buffer.put_u64_le(request.session.get());
        buffer.put_u64_le(request.counter);
        buffer.put_bytes(0, HEADER_SIZE - 48);
        for attachment in attachments {
            buffer.put_u8(attachment.kind);
            buffer.put_u32_le(length(attachment.data.len()));
            buffer.put_slice(&attachment.data);
        }
        let body_start = buffer.len();
        patch(&mut buffer, 88, &length(body_start - HEADER_SIZE).to_le_bytes());
        if kind.names_staged() {
            buffer.put_u64_le(staged.get());
        }
        if kind == EntryKind::Stage {
            buffer.put_u32_le(0);
        }
        let count_at = buffer.len();
        buffer.put_u32_le(0);
        EntryBuilder { buffer, body_start, count_at, count: 0 }
    }

    /// Opens a chunk of the staged transaction `staged` (zero: the chunk opens it), written by its `command`.
    #[must_use]
    pub fn chunk(staged: Version, command: u32) -> EntryBuilder {
        let mut entry = EntryBuilder::new(EntryKind::Stage, NOBODY, staged, &[]);
        let at = entry.body_start + 8;
        patch(&mut entry.buffer, at, &command.to_le_bytes());
        entry
    }

    /// Adds a write.
    pub fn write(&mut self, key: &[u8], base: Base, value: Option<&[u8]>) {
        self.count += 1;
        self.buffer.put_u32_le(length(key.len()));
        self.buffer.put_u32_le(value.map_or(TOMBSTONE, |value| length(value.len())));
        self.buffer.put_u64_le(base.version.get());
        if base.version != Version::ZERO {
            self.buffer.put_u128_le(base.share);
        }
        self.buffer.put_slice(key);
        self.buffer.put_slice(value.unwrap_or_default());
    }

    /// Bytes so far.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Ends the entry with its place in the order.
    #[must_use]
    pub fn number(mut self, place: Numbering) -> Bytes {
        let body = length(self.buffer.len() - self.body_start);
        let count = self.count;
        let count_at = self.count_at;
        patch(&mut self.buffer, count_at, &count.to_le_bytes());
        patch(&mut self.buffer, 92, &body.to_le_bytes());
        patch(&mut self.buffer, 8, &place.term.get().to_le_bytes());
        patch(&mut self.buffer, 16, &place.sequence.get().to_le_bytes());
        patch(&mut self.buffer, 48, &place.commit_time_us.to_le_bytes());
        patch(&mut self.buffer, 80, &place.attempt.to_le_bytes());
        self.buffer.freeze()
    }
}

/// A length as stored. Transactions are bounded far below what 32 bits count.
fn length(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(TOMBSTONE - 1)
}

fn patch(buffer: &mut BytesMut, at: usize, bytes: &[u8]) {
    if let Some(place) = buffer.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// Reads numbers and slices off a shared buffer.
pub(crate) struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a Bytes) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let slice = self.bytes.get(self.at..self.at.checked_add(N)?)?;
        self.at += N;
        slice.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn take(&mut self, size: usize) -> Option<Bytes> {
        let end = self.at.checked_add(size)?;
        if end > self.bytes.len() {
            return None;
        }
        let slice = self.bytes.slice(self.at..end);
        self.at = end;
        Some(slice)
    }

    pub(crate) fn sized(&mut self) -> Option<Bytes> {
        let size = usize::try_from(self.u32()?).ok()?;
        self.take(size)
    }

    pub(crate) const fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }
}

impl Entry {
    /// Decodes an entry; keys and values share its memory.
    ///
    /// # Errors
    /// [`EntryError`] for a version, kind or layout that this program does not write.
    pub fn decode(bytes: &Bytes) -> Result<Entry, EntryError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8().ok_or(EntryError::Damaged("empty"))?;
        if version != FORMAT_VERSION {
            return Err(EntryError::Version(version));
        }
        let code = reader.u8().ok_or(EntryError::Damaged("header"))?;
        let kind = EntryKind::of_code(code).ok_or(EntryError::Kind(code))?;
        let (header, attachments_size, body_size) =
            decode_header(&mut reader, kind).ok_or(EntryError::Damaged("header"))?;
        let attachments = reader.take(attachments_size).ok_or(EntryError::Damaged("attachments"))?;
        let body = reader.take(body_size).ok_or(EntryError::Damaged("body"))?;
        if !reader.is_at_end() {
            return Err(EntryError::Damaged("trailing bytes"));
        }
        let attachments = decode_attachments(&attachments).ok_or(EntryError::Damaged("attachments"))?;
        let mut reader = Reader::new(&body);
        let staged = if kind.names_staged() {
            Version::new(reader.u64().ok_or(EntryError::Damaged("staged transaction"))?)
        } else {
            Version::ZERO
        };
        let command =
            if kind == EntryKind::Stage { reader.u32().ok_or(EntryError::Damaged("command"))? } else { 0 };
        let writes = decode_writes(&mut reader).ok_or(EntryError::Damaged("writes"))?;
        if !reader.is_at_end() {
            return Err(EntryError::Damaged("trailing bytes in the body"));
        }
        Ok(Entry { header, attachments, staged, command, writes })
    }
}

fn decode_header(reader: &mut Reader<'_>, kind: EntryKind) -> Option<(EntryHeader, usize, usize)> {
    if reader.array::<2>()? != [0, 0] {
        return None;
    }
    let origin_site = reader.u32()?;
    let term = Term::new(reader.u64()?);
    let sequence = Version::new(reader.u64()?);
    let request = RequestId {
        incarnation: Incarnation::new(reader.u64()?),
        session: SessionId::new(reader.u64()?),
        counter: reader.u64()?,
    };
    let commit_time_us = i64::from_le_bytes(reader.array()?);
    let origin = LogPosition::new(Term::new(reader.u64()?), LogIndex::new(reader.u64()?));
    let epoch = reader.u64()?;
    let attempt = reader.u64()?;
    let attachments_size = usize::try_from(reader.u32()?).ok()?;
    let body_size = usize::try_from(reader.u32()?).ok()?;
    let header =
        EntryHeader { kind, term, sequence, request, commit_time_us, origin_site, origin, epoch, attempt };
    Some((header, attachments_size, body_size))
}

fn decode_attachments(bytes: &Bytes) -> Option<Vec<Attachment>> {
    let mut reader = Reader::new(bytes);
    let mut attachments = Vec::new();
    while !reader.is_at_end() {
        attachments.push(Attachment { kind: reader.u8()?, data: reader.sized()? });
    }
    Some(attachments)
}

fn decode_writes(reader: &mut Reader<'_>) -> Option<Vec<Write>> {
    let count = usize::try_from(reader.u32()?).ok()?;
    // A count is not trusted for memory: each write takes at least 16 bytes of the body.
    let mut writes = Vec::with_capacity(count.min(64 * 1024));
    for _ in 0..count {
        let key_size = usize::try_from(reader.u32()?).ok()?;
        let value_size = reader.u32()?;
        let version = Version::new(reader.u64()?);
        let share = if version == Version::ZERO { 0 } else { u128::from_le_bytes(reader.array()?) };
        let base = Base { version, share };
        let key = reader.take(key_size)?;
        let value = if value_size == TOMBSTONE {
            None
        } else {
            Some(reader.take(usize::try_from(value_size).ok()?)?)
        };
        writes.push(Write { key, base, value });
    }
    Some(writes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Bytes {
        let request = RequestId { incarnation: Incarnation::new(1), session: SessionId::new(2), counter: 3 };
        let attachment = Attachment { kind: 9, data: Bytes::from_static(b"note") };
        let mut builder = EntryBuilder::new(EntryKind::Commit, request, Version::ZERO, &[attachment]);
        builder.write(b"a", Base::NONE, Some(b"one"));
        builder.write(b"b", Base::of(b"b", Version::new(4), b"two"), None);
        builder.number(Numbering {
            term: Term::new(7),
            sequence: Version::new(8),
            attempt: 6,
            commit_time_us: -5,
        })
    }

    #[test]
    fn an_entry_survives_the_round_trip() {
        let entry = Entry::decode(&sample()).unwrap();
        assert_eq!(entry.header.kind, EntryKind::Commit);
        assert_eq!((entry.header.term, entry.header.sequence), (Term::new(7), Version::new(8)));
        assert_eq!((entry.header.request.counter, entry.header.attempt), (3, 6));
        assert_eq!(entry.header.commit_time_us, -5);
        assert_eq!(entry.attachments.first().unwrap().data, "note");
        assert_eq!(entry.writes.len(), 2);
        assert_eq!(entry.writes[0].value.as_deref(), Some(&b"one"[..]));
        assert_eq!(
            entry.writes[1],
            Write { key: "b".into(), base: Base::of(b"b", Version::new(4), b"two"), value: None }
        );
    }

    #[test]
    fn staged_entries_name_their_transaction() {
        let nobody = RequestId { incarnation: Incarnation::new(0), session: SessionId::new(0), counter: 0 };
        let bytes =
            EntryBuilder::new(EntryKind::AbortStaged, nobody, Version::new(77), &[]).number(Numbering {
                term: Term::new(1),
                sequence: Version::new(2),
                attempt: 1,
                commit_time_us: 0,
            });
        assert_eq!(Entry::decode(&bytes).unwrap().staged, Version::new(77));
    }

    #[test]
    fn unknown_versions_and_kinds_are_told_apart_from_damage() {
        let mut bytes = sample().to_vec();
        bytes[0] = 1;
        assert_eq!(Entry::decode(&bytes.clone().into()), Err(EntryError::Version(1)));
        bytes[0] = FORMAT_VERSION;
        bytes[1] = 200;
        assert_eq!(Entry::decode(&bytes.into()), Err(EntryError::Kind(200)));
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = sample();
        for size in 0..bytes.len() {
            assert!(Entry::decode(&bytes.slice(..size)).is_err(), "{size} bytes decoded");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(Entry::decode(&longer.into()).is_err());
    }
}
