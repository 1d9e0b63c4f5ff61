//! Records: what the body of a frame says.

use bytes::Bytes;
use rustydb_types::ids::{GroupId, LogIndex, Term};
use rustydb_types::position::LogPosition;

use super::frame::Frame;

pub(super) const KIND_ENTRY: u8 = 1;
pub(super) const KIND_VOTE: u8 = 2;
pub(super) const KIND_COMMITTED: u8 = 3;
pub(super) const KIND_TRUNCATE: u8 = 4;
pub(super) const KIND_PURGE: u8 = 5;
pub(super) const KIND_REMOVE: u8 = 6;
pub(super) const KIND_CHECKPOINT: u8 = 7;
pub(super) const KIND_CHECKPOINT_END: u8 = 8;
pub(super) const KIND_CLOSE: u8 = 9;

/// Bytes of an entry's body before what the caller gave.
pub(super) const ENTRY_PREFIX_BYTES: usize = 16;

/// What a group is, apart from its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GroupPoints {
    /// The last vote saved.
    pub(super) vote: Option<Bytes>,
    /// The last committed position saved.
    pub(super) committed: Option<Bytes>,
    /// Up to where entries are purged, and what the caller keeps with that.
    pub(super) purged: Option<(LogPosition, Bytes)>,
    /// The last entry, or where the purge ends if there is none.
    pub(super) last: Option<LogPosition>,
}

/// A record, borrowed from its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// An entry.
    Entry { position: LogPosition, body: &'a [u8] },
    /// The vote of a group.
    Vote(&'a [u8]),
    /// The committed position of a group.
    Committed(&'a [u8]),
    /// Entries behind `keep` are gone; all of them if `None`.
    Truncate { keep: Option<LogIndex> },
    /// Entries up to `through` are gone.
    Purge { through: LogPosition, opaque: &'a [u8] },
    /// The group is gone.
    Remove,
    /// What a group was when the segment was begun.
    Checkpoint(GroupPoints),
    /// That was the checkpoint of all groups.
    CheckpointEnd { group_count: u64 },
    /// The log was closed in good order: everything before this was synced.
    Close,
}

/// Takes numbers and byte strings off the front of a body.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u64(&mut self) -> Option<u64> {
        self.bytes(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn position(&mut self) -> Option<LogPosition> {
        Some(LogPosition::new(Term::new(self.u64()?), LogIndex::new(self.u64()?)))
    }

    fn string(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.u64()?).ok()?;
        self.bytes(length).map(Bytes::copy_from_slice)
    }

    /// A presence byte, then the value if it is there.
    fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.bytes(1)? {
            [0] => Some(None),
            [1] => read(self).map(Some),
            _ => None,
        }
    }

    fn finish<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

impl<'a> Record<'a> {
    /// The record of a valid frame, or `None` if this program does not understand it.
    pub(super) fn decode(frame: &'a Frame) -> Option<Self> {
        let mut body = Reader(&frame.body);
        match frame.kind {
            KIND_ENTRY => Some(Self::Entry { position: body.position()?, body: body.0 }),
            KIND_VOTE => Some(Self::Vote(body.0)),
            KIND_COMMITTED => Some(Self::Committed(body.0)),
            KIND_TRUNCATE => {
                let keep = body.u64()?.checked_sub(1).map(LogIndex::new);
                body.finish(Self::Truncate { keep })
            }
            KIND_PURGE => Some(Self::Purge { through: body.position()?, opaque: body.0 }),
            KIND_REMOVE => body.finish(Self::Remove),
            KIND_CHECKPOINT => {
                let points = GroupPoints {
                    vote: body.optional(Reader::string)?,
                    committed: body.optional(Reader::string)?,
                    purged: body.optional(|body| Some((body.position()?, body.string()?)))?,
                    last: body.optional(Reader::position)?,
                };
                body.finish(Self::Checkpoint(points))
            }
            KIND_CHECKPOINT_END => {
                let group_count = body.u64()?;
                body.finish(Self::CheckpointEnd { group_count })
            }
            KIND_CLOSE => body.finish(Self::Close),
            _ => None,
        }
    }
}

/// The first part of an entry's body; what the caller gave is the second.
pub(super) fn entry_prefix(position: LogPosition) -> [u8; ENTRY_PREFIX_BYTES] {
    let mut prefix = [0u8; ENTRY_PREFIX_BYTES];
    let (term, index) = prefix.split_at_mut(8);
    term.copy_from_slice(&position.term.get().to_le_bytes());
    index.copy_from_slice(&position.index.get().to_le_bytes());
    prefix
}

/// The body of a truncation: one more than the index kept, zero for none.
pub(super) fn truncate_body(keep: Option<LogIndex>) -> [u8; 8] {
    keep.map_or(0, |keep| keep.next().get()).to_le_bytes()
}

/// The body of a group's checkpoint.
pub(super) fn checkpoint_body(points: &GroupPoints) -> Vec<u8> {
    fn string(body: &mut Vec<u8>, string: &[u8]) {
        body.extend_from_slice(&(string.len() as u64).to_le_bytes());
        body.extend_from_slice(string);
    }
    let mut body = Vec::new();
    for opaque in [&points.vote, &points.committed] {
        body.push(u8::from(opaque.is_some()));
        if let Some(opaque) = opaque {
            string(&mut body, opaque);
        }
    }
    body.push(u8::from(points.purged.is_some()));
    if let Some((position, opaque)) = &points.purged {
        body.extend_from_slice(&entry_prefix(*position));
        string(&mut body, opaque);
    }
    body.push(u8::from(points.last.is_some()));
    if let Some(last) = points.last {
        body.extend_from_slice(&entry_prefix(last));
    }
    body
}

/// The group of a frame; zero is the log's own.
pub(super) const fn group_of(frame: &Frame) -> GroupId {
    GroupId::new(frame.group)
}
