//! LISTEN and NOTIFY.
//!
//! ```text
//! NOTIFY --> kept until COMMIT --> rides with the commit in the log --> every replica, in the order of commits
//!                                                                         |
//!                                 client <-- gateway of its connection <--'  for channels that the session listens on
//! ```
//!
//! A notification is delivered by the node that the client is connected to, from its own replica: so a change of leader
//! loses none, and one that was lost by the node is not lost unseen, since the connection ends then.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use rustydb_txn::Attachment;

use crate::error::{SqlError, SqlState};

/// The kind of attachment that notifications are; see `docs/formats/entries.md`.
pub const ATTACHMENT_KIND: u8 = 1;
/// Longest payload, in bytes, as in PostgreSQL: shorter than 8000.
const PAYLOAD_SIZE_MAX: usize = 7999;
/// Longest name of a channel, in bytes.
const CHANNEL_SIZE_MAX: usize = 63;
/// What the notifications of one transaction may take, in bytes.
const SENT_SIZE_MAX: usize = 4 << 20;
/// What each takes beside its texts.
const HEADER_SIZE: usize = 4;

/// What LISTEN and UNLISTEN ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listening {
    /// LISTEN.
    On(String),
    /// UNLISTEN.
    Off(String),
    /// UNLISTEN *.
    AllOff,
}

/// A notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The session that sent it.
    pub pid: i32,
    /// Its channel.
    pub channel: String,
    /// What it says; may be empty.
    pub payload: String,
}

/// What a session listens on, and what its transaction has to send.
#[derive(Debug, Default)]
pub struct Notify {
    channels: BTreeSet<String>,
    pending: Vec<Listening>,
    sent: Vec<(String, String)>,
    sent_size: usize,
    /// How much was pending and sent at each savepoint.
    savepoints: Vec<(usize, usize)>,
    /// Whether the gateway knows the channels.
    is_told: bool,
    /// Whether the gateway knows that something was sent.
    has_sent: bool,
}

impl Notify {
    /// Of a session that was elsewhere before.
    #[must_use]
    pub fn of_moved_session(channels: &[String]) -> Self {
        Self { channels: channels.iter().cloned().collect(), is_told: true, ..Self::default() }
    }

    /// LISTEN or UNLISTEN, from the commit on.
    pub fn listen(&mut self, what: Listening) {
        self.pending.push(what);
    }

    /// The channels that are listened on.
    #[must_use]
    pub fn channels(&self) -> Vec<String> {
        self.channels.iter().cloned().collect()
    }

    /// NOTIFY, at the commit; the same twice in a transaction is sent once.
    ///
    /// # Errors
    /// 22023 for a name or a payload that is too long, or an empty name; 54000 for too much in one transaction.
    pub fn send(&mut self, channel: &str, payload: &str) -> Result<(), SqlError> {
        let invalid = |message: &str| Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message));
        if channel.is_empty() {
            return invalid("channel name cannot be empty");
        }
        if channel.len() > CHANNEL_SIZE_MAX {
            return invalid("channel name too long");
        }
        if payload.len() > PAYLOAD_SIZE_MAX {
            return invalid("payload string too long");
        }
        // PostgreSQL looks through all, too; the last is the likeliest.
        if self.sent.iter().rev().any(|(own, other)| own == channel && other == payload) {
            return Ok(());
        }
        let size = channel.len() + payload.len() + HEADER_SIZE;
        if self.sent_size + size > SENT_SIZE_MAX {
            let message =
                format!("a transaction may send {} MiB of notifications at most", SENT_SIZE_MAX >> 20);
            return Err(SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message));
        }
        self.sent_size += size;
        self.sent.push((channel.to_owned(), payload.to_owned()));
        Ok(())
    }

    /// What rides with the commit, if something was sent.
    #[must_use]
    pub fn attachment(&self, pid: i32) -> Option<Attachment> {
        if self.sent.is_empty() {
            return None;
        }
        let mut data = BytesMut::with_capacity(self.sent_size + 4);
        data.put_i32_le(pid);
        for (channel, payload) in &self.sent {
            for part in [channel, payload] {
                data.put_u16_le(u16::try_from(part.len()).unwrap_or(u16::MAX));
                data.put_slice(part.as_bytes());
            }
        }
        Some(Attachment { kind: ATTACHMENT_KIND, data: data.freeze() })
    }

    /// The transaction is committed.
    pub fn commit(&mut self) {
        let channels = self.channels_to_come();
        self.is_told &= channels == self.channels;
        self.channels = channels;
        self.has_sent |= !self.sent.is_empty();
        self.roll_back();
    }

    /// The transaction is rolled back.
    pub fn roll_back(&mut self) {
        self.pending.clear();
        self.sent.clear();
        self.savepoints.clear();
        self.sent_size = 0;
    }

    fn channels_to_come(&self) -> BTreeSet<String> {
        let mut channels = self.channels.clone();
        for change in &self.pending {
            match change {
                Listening::On(channel) => {
                    channels.insert(channel.clone());
                }
                Listening::Off(channel) => {
                    channels.remove(channel);
                }
                Listening::AllOff => channels.clear(),
            }
        }
        channels
    }

    /// SAVEPOINT.
    pub fn savepoint(&mut self) {
        self.savepoints.push((self.pending.len(), self.sent.len()));
    }

    /// ROLLBACK TO savepoint number `depth` from 0.
    pub fn roll_back_to(&mut self, depth: usize) {
        self.savepoints.truncate(depth + 1);
        if let Some((pending, sent)) = self.savepoints.last() {
            self.pending.truncate(*pending);
            self.sent.truncate(*sent);
            let size = |(channel, payload): &(String, String)| channel.len() + payload.len() + HEADER_SIZE;
            self.sent_size = self.sent.iter().map(size).sum();
        }
    }

    /// RELEASE of the savepoints down to number `depth` from 0.
    pub fn release_to(&mut self, depth: usize) {
        self.savepoints.truncate(depth);
    }

    /// What the gateway is to be told if what is open is committed: the channels, if they are others than it knows, and
    /// whether something was sent.
    #[must_use]
    pub fn news_to_come(&self) -> (Option<Vec<String>>, bool) {
        let channels = self.channels_to_come();
        let told = (!self.is_told || channels != self.channels).then(|| channels.into_iter().collect());
        (told.filter(|channels: &Vec<String>| self.is_told || !channels.is_empty()), !self.sent.is_empty())
    }

    /// What the gateway is to be told now, and is told by it.
    pub fn take_news(&mut self) -> (Option<Vec<String>>, bool) {
        let told = (!self.is_told).then(|| self.channels());
        self.is_told = true;
        (told, std::mem::take(&mut self.has_sent))
    }
}

/// The notifications of an attachment; none of one that is something else or damaged.
#[must_use]
pub fn read(attachment: &Attachment) -> Vec<Notification> {
    if attachment.kind != ATTACHMENT_KIND {
        return Vec::new();
    }
    let mut data: Bytes = attachment.data.clone();
    let Some((pid, _)) = data.split_first_chunk::<4>() else { return Vec::new() };
    let pid = i32::from_le_bytes(*pid);
    let _read = data.split_to(4);
    let mut found = Vec::new();
    while let (Some(channel), Some(payload)) = (text(&mut data), text(&mut data)) {
        found.push(Notification { pid, channel, payload });
    }
    found
}

fn text(data: &mut Bytes) -> Option<String> {
    let (size, _) = data.split_first_chunk::<2>()?;
    let size = usize::from(u16::from_le_bytes(*size));
    let part = data.get(2..2 + size)?.to_vec();
    let _read = data.split_to(2 + size);
    String::from_utf8(part).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(notify: &Notify) -> Vec<(String, String)> {
        let all = notify.attachment(7).map(|attachment| read(&attachment)).unwrap_or_default();
        all.into_iter().inspect(|one| assert_eq!(one.pid, 7)).map(|one| (one.channel, one.payload)).collect()
    }

    #[test]
    fn what_is_sent_survives_the_way_once_and_in_order() {
        let mut notify = Notify::default();
        for (channel, payload) in [("a", "1"), ("b", ""), ("a", "1"), ("a", "ü2")] {
            notify.send(channel, payload).unwrap();
        }
        let expected = [("a", "1"), ("b", ""), ("a", "ü2")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(sent(&notify), expected);
        notify.commit();
        assert!(notify.attachment(7).is_none());
        assert_eq!(notify.take_news(), (Some(Vec::new()), true));
        assert_eq!(notify.take_news(), (None, false));
        let damaged = Attachment { kind: ATTACHMENT_KIND, data: Bytes::from_static(&[1, 0, 0, 0, 9, 0, 65]) };
        assert!(read(&damaged).is_empty());
    }

    #[test]
    fn bounds_are_kept() {
        let mut notify = Notify::default();
        assert!(notify.send("", "x").is_err());
        assert!(notify.send(&"c".repeat(64), "x").is_err());
        assert!(notify.send("c", &"x".repeat(8000)).is_err());
        for number in 0.. {
            if notify.send("c", &format!("{number:07999}")).is_err() {
                break;
            }
            assert!(notify.sent_size <= SENT_SIZE_MAX);
        }
    }

    #[test]
    fn savepoints_take_back_what_came_after_them() {
        let mut notify = Notify::default();
        notify.listen(Listening::On("a".into()));
        notify.send("a", "1").unwrap();
        notify.savepoint();
        notify.listen(Listening::On("b".into()));
        notify.send("a", "2").unwrap();
        notify.savepoint();
        notify.send("a", "3").unwrap();
        notify.roll_back_to(0);
        notify.send("a", "4").unwrap();
        let expected = [("a", "1"), ("a", "4")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(sent(&notify), expected);
        assert_eq!(notify.news_to_come(), (Some(vec!["a".to_owned()]), true));
        notify.commit();
        assert_eq!(notify.channels(), ["a"]);
        notify.listen(Listening::AllOff);
        notify.roll_back();
        assert_eq!(notify.channels(), ["a"]);
        assert_eq!(notify.take_news(), (Some(vec!["a".to_owned()]), true));
        notify.listen(Listening::Off("a".into()));
        assert_eq!(notify.news_to_come(), (Some(Vec::new()), false));
        notify.commit();
        assert_eq!(notify.take_news(), (Some(Vec::new()), false));
    }
}
