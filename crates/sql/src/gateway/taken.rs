//! The request that a session runs at the client's own node, kept so that it can be run again elsewhere.

use std::ops::Range;

use bytes::{BufMut, BytesMut};
use rustydb_env::Instant;
use rustydb_types::ids::RequestId;

use super::frame::StateChanges;
use super::peer::FRAME_SIZE_MAX;
use crate::session::response::TransactionStatus;
use crate::session::sink::{ResponseSink, SinkClosed};

/// Most bytes of messages that are kept of an extended request; a longer one is not run again. A Query is one message,
/// which is still at hand when it has failed.
const SIZE_MAX: usize = FRAME_SIZE_MAX;

/// The messages since ReadyForQuery, and where their answer stands in the client's buffer.
#[derive(Debug, Default)]
pub(super) struct Taken {
    messages: BytesMut,
    /// The answer, as far as the client has not got it.
    answer: Range<usize>,
    /// When the first message came.
    began: Option<Instant>,
    /// Whether all of the request can be taken back.
    is_whole: bool,
    /// Whether all messages only prepare statements: what was answered to them stands wherever the rest runs.
    is_preparation: bool,
}

impl Taken {
    /// A request begins; its answer will stand at `answer`.
    pub(super) fn begin(&mut self, answer: usize, now: Instant) {
        if self.messages.capacity() > SIZE_MAX / 4 {
            self.messages = BytesMut::new();
        }
        self.messages.clear();
        self.answer = answer..answer;
        self.began = Some(now);
        self.is_whole = true;
        self.is_preparation = true;
    }

    /// The request cannot be run again. What was kept of it stays until it is forgotten.
    pub(super) const fn give_up(&mut self) {
        self.is_whole = false;
    }

    /// Forgets the messages.
    pub(super) fn forget(&mut self) {
        self.messages.clear();
    }

    pub(super) const fn is_whole(&self) -> bool {
        self.is_whole
    }

    pub(super) const fn is_preparation(&self) -> bool {
        self.is_preparation
    }

    pub(super) const fn began(&self) -> Option<Instant> {
        self.began
    }

    pub(super) fn messages(&self) -> &[u8] {
        &self.messages
    }

    /// Where the answer begins that can be taken back.
    pub(super) const fn answer_start(&self) -> usize {
        self.answer.start
    }

    /// The answer begins there, because what stood before it in the buffer has left.
    pub(super) const fn begins_at(&mut self, answer: usize) {
        self.answer.start = answer;
    }

    /// Keeps one more message. Answers whether it is kept; if not, the request cannot be run again.
    pub(super) fn add(&mut self, tag: u8, body: &[u8]) -> bool {
        self.is_preparation &= is_preparation(tag, body);
        // The data of a COPY comes when the client was told to send it.
        if matches!(tag, b'd' | b'c' | b'f') || self.messages.len() + body.len() > SIZE_MAX {
            self.is_whole = false;
        }
        if self.is_whole {
            put_message(&mut self.messages, tag, body);
        }
        self.is_whole
    }

    /// Whether the client has got something of the answer, given that the buffer was last seen by
    /// [`Taken::seen`] and is `size` long now.
    pub(super) fn is_shown(&self, size: usize) -> bool {
        size < self.answer.end
    }

    /// The buffer is so long after a message.
    pub(super) fn seen(&mut self, size: usize) {
        self.answer.end = size;
    }

    /// What was taken so far was preparation and has been shown: the rest can be run again by itself.
    pub(super) const fn go_on(&mut self, answer: usize) {
        self.answer.start = answer;
        self.answer.end = answer;
    }
}

/// Whether a message only prepares a statement, asks for its shape or forgets it.
pub(super) fn is_preparation(tag: u8, body: &[u8]) -> bool {
    match tag {
        b'P' | b'H' => true,
        b'D' | b'C' => body.first() == Some(&b'S'),
        _ => false,
    }
}

/// Appends a message as it is on the wire.
pub(super) fn put_message(out: &mut BytesMut, tag: u8, body: &[u8]) {
    out.put_u8(tag);
    out.put_u32(u32::try_from(body.len() + 4).unwrap_or(u32::MAX));
    out.put_slice(body);
}

/// Passes everything on, and notices what the client is shown.
pub(super) struct Watched<'s, S> {
    pub(super) sink: &'s mut S,
    /// Where the answer that is watched begins.
    pub(super) start: usize,
    /// Whether something of it has left.
    pub(super) is_shown: bool,
}

impl<'s, S: ResponseSink> Watched<'s, S> {
    pub(super) const fn new(sink: &'s mut S, start: usize) -> Self {
        Self { sink, start, is_shown: false }
    }
}

impl<S: ResponseSink> ResponseSink for Watched<'_, S> {
    fn buffer(&mut self) -> &mut BytesMut {
        self.sink.buffer()
    }

    async fn flush(&mut self) -> Result<(), SinkClosed> {
        self.is_shown |= self.sink.buffer().len() > self.start;
        self.start = 0;
        self.sink.flush().await
    }

    async fn before_commit(
        &mut self,
        request: RequestId,
        status: TransactionStatus,
        rest: &[u8],
        changes: StateChanges,
    ) -> Result<(), SinkClosed> {
        self.sink.before_commit(request, status, rest, changes).await
    }
}

#[cfg(test)]
mod tests {
    use rustydb_env::Env;

    use super::*;

    #[test]
    fn what_is_kept_is_whole_until_it_is_too_long_or_carries_data() {
        let mut taken = Taken::default();
        taken.begin(3, Env::os().now());
        assert!(taken.add(b'P', b"\0SELECT 1\0\0\0"));
        assert!(taken.is_whole() && taken.is_preparation());
        taken.seen(8);
        assert!(!taken.is_shown(8) && taken.is_shown(0));
        assert!(taken.add(b'B', b"\0\0\0\0\0\0\0\0"));
        assert!(taken.is_whole() && !taken.is_preparation());
        assert_eq!(taken.messages().first(), Some(&b'P'));
        assert!(!taken.add(b'd', b"1\n") && !taken.is_whole());
        taken.begin(0, Env::os().now());
        assert!(taken.messages().is_empty());
        assert!(!taken.add(b'B', &vec![0; SIZE_MAX + 1]) && !taken.is_whole());
    }
}
