//! What travels between a gateway and the node that runs its session.
//!
//! ```text
//! request frame:   0   part      bytes                     to be continued by the next frame
//!                  1   messages  version, frontend messages  a batch, and a version from before it was sent; answered by
//!                                                          frames that end with `done`
//!                  2   outcome   RequestId, version        answered by `outcome`
//! response frame:  0   part      bytes                     to be continued by the next frame
//!                  1   data      backend messages          for the client, at once
//!                  2   held      counter, state changes, backend messages for the client if and when the commit stands
//!                  3   done      status, counter, version, state changes, backend messages
//!                  4   outcome   2 forgotten | 1 committed | 0 not committed
//!                  5   fallen    counter; nothing of the batch stands or ever will, and the session ends
//! both:            255 last part bytes
//! string: u32 length, UTF-8       numbers: little-endian
//! ```
//!
//! Invariants: `data`, `held` and `done` hold whole messages, so a connection that breaks never cuts a client's
//! message; the content of one frame is at most [`super::peer::FRAME_SIZE_MAX`] bytes.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rustydb_types::ids::{Incarnation, RequestId, SessionId, Version};

use super::peer::FRAME_SIZE_MAX;
use crate::session::TransactionStatus;

/// A frame that cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// It ends too early.
    #[error("frame is too short")]
    Truncated,
    /// A kind, status or flag that this release does not know.
    #[error("frame has unknown code {0}")]
    UnknownCode(u8),
    /// Text that is not UTF-8.
    #[error("frame holds text that is not UTF-8")]
    NotUtf8,
    /// The parts of one frame grow beyond the limit.
    #[error("frame is larger than {0} bytes")]
    TooLarge(usize),
}

/// A setting that a session changed, and its value as SHOW prints it.
pub type Setting = (String, String);

/// A prepared statement: enough to make it again elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedText {
    /// Its name; empty is the unnamed statement.
    pub name: String,
    /// The text of the one statement that it stands for.
    pub sql: String,
    /// The types given for its parameters, 0 where they are inferred.
    pub param_types: Vec<u32>,
}

/// A number that a session was given of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceValue {
    /// `pg_class.oid` of the sequence.
    pub sequence: u32,
    /// The number.
    pub value: i64,
    /// Whether by `nextval`, which `lastval` counts.
    pub is_next: bool,
}

/// What a session changed of the state that outlives its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateChanges {
    /// New values of settings.
    pub settings: Vec<Setting>,
    /// Statements prepared.
    pub prepared: Vec<PreparedText>,
    /// Names of statements forgotten.
    pub deallocated: Vec<String>,
    /// Numbers given of sequences, the sequence that `lastval` is of last.
    pub sequences: Vec<SequenceValue>,
    /// Whether it holds advisory locks that outlive transactions, if that changed.
    pub holds_locks: Option<bool>,
    /// The channels that it listens on, if they changed.
    pub channels: Option<Vec<String>>,
    /// Whether it has sent notifications.
    pub has_sent: bool,
    /// Whether it has temporary objects now, and had none.
    pub has_temporary: bool,
}

impl StateChanges {
    /// Whether nothing changed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.settings.is_empty()
            && self.prepared.is_empty()
            && self.deallocated.is_empty()
            && self.sequences.is_empty()
            && self.holds_locks.is_none()
            && self.channels.is_none()
            && !self.has_sent
            && !self.has_temporary
    }
}

/// Everything that makes a session again at another place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionContext {
    /// The role that logged in.
    pub user: String,
    /// The database's name.
    pub database: String,
    /// Where the client connects from, for people.
    pub client_address: String,
    /// The number by which the client knows its session; 0 for a session without a client.
    pub backend_pid: i32,
    /// How many request ids the session has used.
    pub counter: u64,
    /// Settings that differ from the defaults.
    pub settings: Vec<Setting>,
    /// Settings that the session began with, to which RESET goes back. The gateway fills it in.
    pub start: Vec<Setting>,
    /// Prepared statements.
    pub prepared: Vec<PreparedText>,
    /// Whether it is in a transaction block that has failed with the node that ran it.
    pub is_failed: bool,
    /// How long the request that comes first has been under way: so much of its timeout is used up.
    pub spent: Duration,
    /// Numbers given of sequences, the sequence that `lastval` is of last.
    pub sequences: Vec<SequenceValue>,
    /// The channels that it listens on.
    pub channels: Vec<String>,
    /// Whether the gateway's node has a replica of the database.
    pub has_replica: bool,
    /// Whether it has temporary objects.
    pub has_temporary: bool,
}

/// From a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestFrame {
    /// What a client wants.
    Messages {
        /// A version from before it was sent.
        since: Version,
        /// Frontend messages.
        messages: Bytes,
    },
    /// Whether a commit took place.
    Outcome {
        /// Which.
        request: RequestId,
        /// A version from before it.
        since: Version,
    },
}

/// To a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseFrame {
    /// Backend messages for the client.
    Data(Bytes),
    /// Backend messages for the client if the commit that now begins stands.
    Held {
        /// The counter of the commit's request id.
        counter: u64,
        /// Where the session is with its transactions then: in a block, if the commit began the next.
        status: TransactionStatus,
        /// What has changed of the session then.
        changes: StateChanges,
        /// What the answer ends with then.
        messages: Bytes,
    },
    /// The batch is done.
    Done {
        /// Where the session is with its transaction.
        status: TransactionStatus,
        /// How many request ids the session has used.
        counter: u64,
        /// Whether the transaction of the last of them is open.
        is_open: bool,
        /// What is applied at the node.
        applied: Version,
        /// What else changed.
        changes: StateChanges,
        /// The last backend messages for the client.
        messages: Bytes,
    },
    /// Whether the commit asked for took place.
    Outcome {
        /// It is committed, or never will be; [`None`] when it is too long ago to be known.
        committed: Option<bool>,
    },
    /// The batch fell with the leadership of the node: nothing of it is or will be committed, and the session is over.
    Fallen {
        /// How many request ids the session has used.
        counter: u64,
    },
}

const PART: u8 = 0;
const LAST_PART: u8 = 255;

impl RequestFrame {
    /// Encodes into one or more frames.
    #[must_use]
    pub fn encode(&self) -> Vec<Bytes> {
        let mut out = BytesMut::new();
        match self {
            Self::Messages { since, messages } => {
                out.put_u8(1);
                out.put_u64_le(since.get());
                out.put_slice(messages);
            }
            Self::Outcome { request, since } => {
                out.put_u8(2);
                out.put_u64_le(request.incarnation.get());
                out.put_u64_le(request.session.get());
                out.put_u64_le(request.counter);
                out.put_u64_le(since.get());
            }
        }
        split(out.freeze())
    }

    /// Decodes what [`Joiner`] has joined.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn decode(mut bytes: Bytes) -> Result<Self, FrameError> {
        match read_u8(&mut bytes)? {
            1 => {
                let since = Version::new(read_u64(&mut bytes)?);
                Ok(Self::Messages { since, messages: bytes })
            }
            2 => {
                let request = RequestId {
                    incarnation: Incarnation::new(read_u64(&mut bytes)?),
                    session: SessionId::new(read_u64(&mut bytes)?),
                    counter: read_u64(&mut bytes)?,
                };
                Ok(Self::Outcome { request, since: Version::new(read_u64(&mut bytes)?) })
            }
            code => Err(FrameError::UnknownCode(code)),
        }
    }
}

impl ResponseFrame {
    /// Encodes into one or more frames.
    #[must_use]
    pub fn encode(&self) -> Vec<Bytes> {
        let mut out = BytesMut::new();
        match self {
            Self::Data(messages) => {
                out.put_u8(1);
                out.put_slice(messages);
            }
            Self::Held { counter, status, changes, messages } => {
                out.put_u8(2);
                out.put_u8(status.letter());
                out.put_u64_le(*counter);
                put_changes(&mut out, changes);
                out.put_slice(messages);
            }
            Self::Done { status, counter, is_open, applied, changes, messages } => {
                out.put_u8(3);
                out.put_u8(status.letter());
                out.put_u64_le(*counter);
                out.put_u8(u8::from(*is_open));
                out.put_u64_le(applied.get());
                put_changes(&mut out, changes);
                out.put_slice(messages);
            }
            Self::Outcome { committed } => out.put_slice(&[4, committed.map_or(2, u8::from)]),
            Self::Fallen { counter } => {
                out.put_u8(5);
                out.put_u64_le(*counter);
            }
        }
        split(out.freeze())
    }

    /// Decodes what [`Joiner`] has joined.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn decode(mut bytes: Bytes) -> Result<Self, FrameError> {
        match read_u8(&mut bytes)? {
            1 => Ok(Self::Data(bytes)),
            2 => {
                let status = read_status(&mut bytes)?;
                let counter = read_u64(&mut bytes)?;
                let changes = read_changes(&mut bytes)?;
                Ok(Self::Held { counter, status, changes, messages: bytes })
            }
            3 => {
                let status = read_status(&mut bytes)?;
                let counter = read_u64(&mut bytes)?;
                let is_open = match read_u8(&mut bytes)? {
                    0 => false,
                    1 => true,
                    code => return Err(FrameError::UnknownCode(code)),
                };
                let applied = Version::new(read_u64(&mut bytes)?);
                let changes = read_changes(&mut bytes)?;
                Ok(Self::Done { status, counter, is_open, applied, changes, messages: bytes })
            }
            4 => match read_u8(&mut bytes)? {
                0 => Ok(Self::Outcome { committed: Some(false) }),
                1 => Ok(Self::Outcome { committed: Some(true) }),
                2 => Ok(Self::Outcome { committed: None }),
                code => Err(FrameError::UnknownCode(code)),
            },
            5 => Ok(Self::Fallen { counter: read_u64(&mut bytes)? }),
            code => Err(FrameError::UnknownCode(code)),
        }
    }
}

impl SessionContext {
    /// Encodes for [`super::SessionOpen`].
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        put_text(&mut out, &self.user);
        put_text(&mut out, &self.database);
        put_text(&mut out, &self.client_address);
        out.put_i32_le(self.backend_pid);
        out.put_u64_le(self.counter);
        put_settings(&mut out, &self.settings);
        put_settings(&mut out, &self.start);
        put_prepared(&mut out, &self.prepared);
        out.put_u8(u8::from(self.is_failed));
        out.put_u64_le(u64::try_from(self.spent.as_micros()).unwrap_or(u64::MAX));
        put_sequences(&mut out, &self.sequences);
        put_texts(&mut out, &self.channels);
        out.put_u8(u8::from(self.has_replica));
        out.put_u8(u8::from(self.has_temporary));
        out.freeze()
    }

    /// Decodes.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn decode(mut bytes: Bytes) -> Result<Self, FrameError> {
        Ok(Self {
            user: read_text(&mut bytes)?,
            database: read_text(&mut bytes)?,
            client_address: read_text(&mut bytes)?,
            backend_pid: read_u32(&mut bytes)?.cast_signed(),
            counter: read_u64(&mut bytes)?,
            settings: read_settings(&mut bytes)?,
            start: read_settings(&mut bytes)?,
            prepared: read_prepared(&mut bytes)?,
            is_failed: read_u8(&mut bytes)? != 0,
            // A gateway of an earlier release does not say it.
            spent: Duration::from_micros(read_u64(&mut bytes).unwrap_or(0)),
            sequences: if bytes.is_empty() { Vec::new() } else { read_sequences(&mut bytes)? },
            // Nor did others tell of these.
            channels: if bytes.is_empty() { Vec::new() } else { read_texts(&mut bytes)? },
            has_replica: !bytes.is_empty() && read_u8(&mut bytes)? > 0,
            has_temporary: !bytes.is_empty() && read_u8(&mut bytes)? > 0,
        })
    }
}

/// Joins the parts of frames.
#[derive(Debug)]
pub struct Joiner {
    parts: BytesMut,
    size_max: usize,
}

impl Joiner {
    /// Joins to at most `size_max` bytes.
    #[must_use]
    pub fn new(size_max: usize) -> Self {
        Self { parts: BytesMut::new(), size_max }
    }

    /// Takes a frame; gives the whole when this was its last part.
    ///
    /// # Errors
    /// When the whole grows too large.
    pub fn push(&mut self, mut frame: Bytes) -> Result<Option<Bytes>, FrameError> {
        let is_last = match frame.first() {
            Some(&PART) => false,
            Some(&LAST_PART) => true,
            _ => return Ok(Some(frame)),
        };
        frame.advance(1);
        if self.parts.len() + frame.len() > self.size_max {
            return Err(FrameError::TooLarge(self.size_max));
        }
        self.parts.put_slice(&frame);
        Ok(is_last.then(|| self.parts.split().freeze()))
    }
}

fn split(mut whole: Bytes) -> Vec<Bytes> {
    if whole.len() <= FRAME_SIZE_MAX {
        return vec![whole];
    }
    let mut frames = Vec::with_capacity(whole.len() / FRAME_SIZE_MAX + 1);
    while !whole.is_empty() {
        let part = whole.split_to(whole.len().min(FRAME_SIZE_MAX));
        let mut frame = BytesMut::with_capacity(part.len() + 1);
        frame.put_u8(if whole.is_empty() { LAST_PART } else { PART });
        frame.put_slice(&part);
        frames.push(frame.freeze());
    }
    frames
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u32_le(u32::try_from(count).unwrap_or(u32::MAX));
}

fn put_text(out: &mut BytesMut, text: &str) {
    put_count(out, text.len());
    out.put_slice(text.as_bytes());
}

fn put_changes(out: &mut BytesMut, changes: &StateChanges) {
    put_settings(out, &changes.settings);
    put_prepared(out, &changes.prepared);
    put_texts(out, &changes.deallocated);
    put_sequences(out, &changes.sequences);
    out.put_u8(match changes.holds_locks {
        None => 0,
        Some(false) => 1,
        Some(true) => 2,
    });
    out.put_u8(u8::from(changes.channels.is_some()));
    put_texts(out, changes.channels.as_deref().unwrap_or_default());
    out.put_u8(u8::from(changes.has_sent) | u8::from(changes.has_temporary) << 1);
}

fn read_changes(bytes: &mut Bytes) -> Result<StateChanges, FrameError> {
    let settings = read_settings(bytes)?;
    let prepared = read_prepared(bytes)?;
    let deallocated = read_texts(bytes)?;
    let sequences = read_sequences(bytes)?;
    let holds_locks = match read_u8(bytes)? {
        0 => None,
        held => Some(held > 1),
    };
    let are_told = read_u8(bytes)? > 0;
    let channels = read_texts(bytes)?;
    let more = read_u8(bytes)?;
    let (has_sent, has_temporary) = (more & 1 > 0, more & 2 > 0);
    let channels = are_told.then_some(channels);
    Ok(StateChanges {
        settings,
        prepared,
        deallocated,
        sequences,
        holds_locks,
        channels,
        has_sent,
        has_temporary,
    })
}

fn put_texts(out: &mut BytesMut, texts: &[String]) {
    put_count(out, texts.len());
    for text in texts {
        put_text(out, text);
    }
}

fn read_texts(bytes: &mut Bytes) -> Result<Vec<String>, FrameError> {
    let count = read_count(bytes)?;
    (0..count).map(|_| read_text(bytes)).collect()
}

fn put_sequences(out: &mut BytesMut, sequences: &[SequenceValue]) {
    put_count(out, sequences.len());
    for given in sequences {
        out.put_u32_le(given.sequence);
        out.put_i64_le(given.value);
        out.put_u8(u8::from(given.is_next));
    }
}

fn read_sequences(bytes: &mut Bytes) -> Result<Vec<SequenceValue>, FrameError> {
    let count = read_count(bytes)?;
    let read = |_| {
        let sequence = read_u32(bytes)?;
        let value = read_u64(bytes)?.cast_signed();
        Ok(SequenceValue { sequence, value, is_next: read_u8(bytes)? != 0 })
    };
    (0..count).map(read).collect()
}

fn put_settings(out: &mut BytesMut, settings: &[Setting]) {
    put_count(out, settings.len());
    for (name, value) in settings {
        put_text(out, name);
        put_text(out, value);
    }
}

fn put_prepared(out: &mut BytesMut, prepared: &[PreparedText]) {
    put_count(out, prepared.len());
    for statement in prepared {
        put_text(out, &statement.name);
        put_text(out, &statement.sql);
        put_count(out, statement.param_types.len());
        for oid in &statement.param_types {
            out.put_u32_le(*oid);
        }
    }
}

fn read_u8(bytes: &mut Bytes) -> Result<u8, FrameError> {
    bytes.try_get_u8().map_err(|_| FrameError::Truncated)
}

fn read_status(bytes: &mut Bytes) -> Result<TransactionStatus, FrameError> {
    let letter = read_u8(bytes)?;
    TransactionStatus::from_letter(letter).ok_or(FrameError::UnknownCode(letter))
}

fn read_u64(bytes: &mut Bytes) -> Result<u64, FrameError> {
    bytes.try_get_u64_le().map_err(|_| FrameError::Truncated)
}

fn read_u32(bytes: &mut Bytes) -> Result<u32, FrameError> {
    bytes.try_get_u32_le().map_err(|_| FrameError::Truncated)
}

/// Reads a count of items, each of which takes at least four bytes: so a lying count reserves nothing.
fn read_count(bytes: &mut Bytes) -> Result<usize, FrameError> {
    let count = usize::try_from(read_u32(bytes)?).map_err(|_| FrameError::Truncated)?;
    if count > bytes.len() / 4 { Err(FrameError::Truncated) } else { Ok(count) }
}

fn read_text(bytes: &mut Bytes) -> Result<String, FrameError> {
    let length = usize::try_from(read_u32(bytes)?).map_err(|_| FrameError::Truncated)?;
    if length > bytes.len() {
        return Err(FrameError::Truncated);
    }
    String::from_utf8(bytes.split_to(length).to_vec()).map_err(|_| FrameError::NotUtf8)
}

fn read_settings(bytes: &mut Bytes) -> Result<Vec<Setting>, FrameError> {
    let count = read_count(bytes)?;
    (0..count).map(|_| Ok((read_text(bytes)?, read_text(bytes)?))).collect()
}

fn read_prepared(bytes: &mut Bytes) -> Result<Vec<PreparedText>, FrameError> {
    let count = read_count(bytes)?;
    let mut prepared = Vec::with_capacity(count);
    for _ in 0..count {
        let (name, sql) = (read_text(bytes)?, read_text(bytes)?);
        let types = read_count(bytes)?;
        let param_types = (0..types).map(|_| read_u32(bytes)).collect::<Result<_, _>>()?;
        prepared.push(PreparedText { name, sql, param_types });
    }
    Ok(prepared)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn join(frames: Vec<Bytes>) -> Bytes {
        let mut joiner = Joiner::new(usize::MAX);
        let mut whole = None;
        for frame in frames {
            assert!(whole.is_none(), "ended early");
            whole = joiner.push(frame).unwrap();
        }
        whole.unwrap()
    }

    fn prepared() -> Vec<PreparedText> {
        vec![PreparedText { name: "P_0".into(), sql: "SELECT $1".into(), param_types: vec![0, 23] }]
    }

    #[test]
    fn frames_survive_the_way() {
        let id = RequestId { incarnation: Incarnation::new(1), session: SessionId::new(2), counter: 3 };
        let request = RequestFrame::Outcome { request: id, since: Version::new(4) };
        assert_eq!(RequestFrame::decode(join(request.encode())), Ok(request));
        let request =
            RequestFrame::Messages { since: Version::new(5), messages: Bytes::from_static(b"S\0\0\0\x04") };
        assert_eq!(RequestFrame::decode(join(request.encode())), Ok(request));
        let changes = StateChanges {
            settings: vec![("TimeZone".into(), "UTC".into())],
            prepared: prepared(),
            deallocated: vec!["P_1".into()],
            sequences: vec![SequenceValue { sequence: 16_390, value: -5, is_next: true }],
            holds_locks: Some(true),
            channels: Some(vec!["news".into()]),
            has_sent: true,
            has_temporary: true,
        };
        let done = ResponseFrame::Done {
            status: TransactionStatus::InBlock,
            counter: 7,
            is_open: true,
            applied: Version::new(9),
            changes: changes.clone(),
            messages: Bytes::from_static(b"Z\0\0\0\x05T"),
        };
        assert_eq!(ResponseFrame::decode(join(done.encode())), Ok(done));
        for committed in [Some(true), Some(false), None] {
            let outcome = ResponseFrame::Outcome { committed };
            assert_eq!(ResponseFrame::decode(join(outcome.encode())), Ok(outcome));
        }
        let messages = Bytes::from_static(b"Z\0\0\0\x05I");
        let status = TransactionStatus::InBlock;
        let held = ResponseFrame::Held { counter: 7, status, changes, messages };
        assert_eq!(ResponseFrame::decode(join(held.encode())), Ok(held));
        let fallen = ResponseFrame::Fallen { counter: 8 };
        assert_eq!(ResponseFrame::decode(join(fallen.encode())), Ok(fallen));
        let context = SessionContext {
            user: "ann".into(),
            database: "db".into(),
            client_address: "::1".into(),
            backend_pid: 77,
            counter: 9,
            settings: vec![("a".into(), "b".into())],
            start: vec![("c".into(), "d".into())],
            prepared: prepared(),
            is_failed: true,
            spent: Duration::from_micros(1_500),
            sequences: vec![SequenceValue { sequence: 16_390, value: i64::MAX, is_next: false }],
            channels: vec!["news".into(), "Other".into()],
            has_replica: true,
            has_temporary: true,
        };
        assert_eq!(SessionContext::decode(context.encode()), Ok(context));
    }

    #[test]
    fn large_frames_travel_in_parts_up_to_a_limit() {
        let data = ResponseFrame::Data(Bytes::from(vec![0; FRAME_SIZE_MAX * 2 + 5]));
        let frames = data.encode();
        assert_eq!(frames.len(), 3);
        assert!(frames.iter().all(|frame| frame.len() <= FRAME_SIZE_MAX + 1));
        assert_eq!(ResponseFrame::decode(join(frames.clone())), Ok(data));
        let mut joiner = Joiner::new(FRAME_SIZE_MAX);
        assert_eq!(joiner.push(frames[0].clone()), Ok(None));
        assert_eq!(joiner.push(frames[1].clone()), Err(FrameError::TooLarge(FRAME_SIZE_MAX)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoders_panic(bytes: Vec<u8>) {
            let bytes = Bytes::from(bytes);
            let _ = RequestFrame::decode(bytes.clone());
            let _ = ResponseFrame::decode(bytes.clone());
            let _ = SessionContext::decode(bytes);
        }

        #[test]
        fn every_cut_of_a_context_is_refused(cut in 0usize..60) {
            let context = SessionContext {
                user: "u".into(),
                database: "d".into(),
                prepared: prepared(),
                ..SessionContext::default()
            };
            let whole = context.encode();
            prop_assume!(cut < whole.len());
            prop_assert!(SessionContext::decode(whole.slice(..cut)).is_err());
        }
    }
}
