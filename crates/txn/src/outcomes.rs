//! What became of commits: one row per session, part of the replicated state.
//!
//! A session commits one thing at a time under rising counters, so its last outcome is all that can be asked for,
//! and the last commit before that, so that a fence or one more commit does not hide it.
//! A commit under a counter that is not above the recorded one is refused at apply: it was fenced, or it is a
//! second copy. Rows are dropped by their place in the order of commits, within [`OutcomeBounds`]. What was dropped is
//! told to be forgotten, never to be aborted; and what may have been fenced by a row that was dropped does not commit.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use rustydb_types::ids::{Incarnation, RequestId, SessionId, Version};

use crate::audit::audit_of;
use crate::entry::Reader;
use crate::hash;

/// How many outcomes are kept, and for how long. The same at all replicas of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutcomeBounds {
    /// Rows, one per session.
    pub rows_max: usize,
    /// Commits after which an outcome is forgotten.
    pub commits_max: u64,
}

impl Default for OutcomeBounds {
    fn default() -> Self {
        Self { rows_max: 100_000, commits_max: 4_000_000 }
    }
}

/// What became of a transaction, asked for at any later time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is committed, at this version.
    Committed(Version),
    /// It is not committed and never will be.
    Aborted,
    /// It is too long ago: its outcome may have been recorded and dropped.
    Forgotten,
}

/// A session of a node's life.
pub(crate) type SessionKey = (Incarnation, SessionId);

/// The last outcome of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutcomeRow {
    /// The counter of the commit.
    pub(crate) counter: u64,
    /// The version it was committed at; zero for a fence.
    pub(crate) committed: Version,
    /// The sequence of the entry that recorded this.
    pub(crate) recorded: Version,
    /// The last commit before that, with its version, if the row has seen one: a later fence or commit of the session
    /// must not hide it at once.
    pub(crate) before: Option<(u64, Version)>,
}

impl OutcomeRow {
    pub(crate) fn encode(&self) -> Bytes {
        let before = self.before.map(|(counter, committed)| [counter, committed.get()]);
        let fields = [self.counter, self.committed.get(), self.recorded.get()];
        let mut bytes = BytesMut::with_capacity(40);
        fields.into_iter().chain(before.into_iter().flatten()).for_each(|field| bytes.put_u64_le(field));
        bytes.freeze()
    }

    pub(crate) fn decode(bytes: &Bytes) -> Option<OutcomeRow> {
        let mut reader = Reader::new(bytes);
        let (counter, committed) = (reader.u64()?, Version::new(reader.u64()?));
        let recorded = Version::new(reader.u64()?);
        let before = match reader.is_at_end() {
            true => None,
            false => Some((reader.u64()?, Version::new(reader.u64()?))),
        };
        reader.is_at_end().then_some(OutcomeRow { counter, committed, recorded, before })
    }

    /// The last commit up to this row's.
    fn last_commit(&self) -> Option<(u64, Version)> {
        if self.committed > Version::ZERO { Some((self.counter, self.committed)) } else { self.before }
    }
}

/// A session as a stored key.
pub(crate) fn encode_key(key: SessionKey) -> Bytes {
    let mut bytes = BytesMut::with_capacity(16);
    bytes.put_u64(key.0.get());
    bytes.put_u64(key.1.get());
    bytes.freeze()
}

pub(crate) fn decode_key(bytes: &[u8]) -> Option<SessionKey> {
    let (incarnation, session) = bytes.split_first_chunk::<8>()?;
    let session: [u8; 8] = session.try_into().ok()?;
    Some((Incarnation::new(u64::from_be_bytes(*incarnation)), SessionId::new(u64::from_be_bytes(session))))
}

/// Whether a request id names somebody.
pub(crate) fn is_named(request: &RequestId) -> bool {
    request.incarnation.get() != 0 || request.session.get() != 0 || request.counter != 0
}

/// All outcomes, with what changed since the last flush and the sum of their shares of the state hash.
#[derive(Debug, Default)]
pub(crate) struct OutcomeTable {
    bounds: OutcomeBounds,
    rows: BTreeMap<SessionKey, OutcomeRow>,
    by_age: BTreeSet<(Version, SessionKey)>,
    dirty: BTreeSet<SessionKey>,
    hash: u128,
    /// The sequence of the last entry that this saw.
    last: Version,
    /// The sessions that were fenced in this life of the node. Not part of the state: it is for transactions that run
    /// at this node, and those of an earlier life or leadership do not commit.
    fenced: BTreeSet<SessionKey>,
    /// When the last row of such a session was dropped.
    fence_dropped: Version,
}

impl OutcomeTable {
    pub(crate) fn new(bounds: OutcomeBounds) -> OutcomeTable {
        OutcomeTable { bounds, ..OutcomeTable::default() }
    }

    /// The table of a snapshot as of `sequence`, which does not say what was fenced and dropped before.
    pub(crate) fn after_snapshot(self, sequence: Version) -> OutcomeTable {
        OutcomeTable { fence_dropped: sequence, ..self }
    }

    pub(crate) fn get(&self, request: &RequestId) -> Option<&OutcomeRow> {
        self.rows.get(&(request.incarnation, request.session))
    }

    /// Whether a commit under this request must be refused.
    pub(crate) fn refuses(&self, request: &RequestId) -> bool {
        is_named(request) && self.get(request).is_some_and(|row| row.counter >= request.counter)
    }

    /// Whether a transaction that began at this node after the version `began` may have been fenced by a row that is
    /// gone: then its client was told that it never commits.
    pub(crate) fn may_have_been_fenced(&self, request: &RequestId, began: Version) -> bool {
        is_named(request) && began < self.fence_dropped && self.get(request).is_none()
    }

    /// What is known of a request whose transaction had begun when `since` was the last version, with `last` being the
    /// last one now; `None` when it has no outcome, and can still be given one.
    pub(crate) fn fate(&self, request: &RequestId, since: Version, last: Version) -> Option<Fate> {
        // Rows go before what has made them too old is shown to be applied.
        let last = last.max(self.last);
        // What was recorded since, and is not there, was dropped: for its age, or for want of room.
        let is_dropped = || {
            let has_expired = since.get().saturating_add(self.bounds.commits_max) < last.get();
            let is_crowded = self.rows.len() >= self.bounds.rows_max
                && self
                    .by_age
                    .first()
                    .is_some_and(|(oldest, _)| oldest.get() > since.get().saturating_add(1));
            has_expired || is_crowded
        };
        // Nothing is recorded under no name.
        if !is_named(request) {
            return Some(Fate::Forgotten);
        }
        let Some(row) = self.get(request) else { return is_dropped().then_some(Fate::Forgotten) };
        match row.counter.cmp(&request.counter) {
            std::cmp::Ordering::Less => None,
            std::cmp::Ordering::Equal if row.committed > Version::ZERO => {
                Some(Fate::Committed(row.committed))
            }
            // It was fenced, or the session has gone on. If it was committed before that, then it would be the last commit
            // before; but where there was no row, one may have been dropped.
            std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => Some(match row.before {
                Some((counter, committed)) if counter == request.counter => Fate::Committed(committed),
                Some((counter, _)) if counter < request.counter => Fate::Aborted,
                None if !is_dropped() => Fate::Aborted,
                _ => Fate::Forgotten,
            }),
        }
    }

    /// Records an outcome and drops those that are too old.
    pub(crate) fn record(&mut self, request: &RequestId, committed: Version, recorded: Version) {
        self.last = self.last.max(recorded);
        if is_named(request) {
            let key = (request.incarnation, request.session);
            let before = self.rows.get(&key).and_then(OutcomeRow::last_commit);
            self.insert(key, OutcomeRow { counter: request.counter, committed, recorded, before });
            self.dirty.insert(key);
            // The marks of audits are fences of nobody.
            if committed == Version::ZERO && audit_of(request).is_none() {
                self.fenced.insert(key);
            }
        }
        while let Some((age, key)) = self.by_age.first().copied() {
            let expired = age.get().saturating_add(self.bounds.commits_max) < recorded.get();
            if !expired && self.rows.len() <= self.bounds.rows_max {
                break;
            }
            self.remove(key);
            if self.fenced.remove(&key) {
                self.fence_dropped = recorded;
            }
            self.dirty.insert(key);
        }
    }

    /// Puts in a row as it was stored.
    pub(crate) fn insert(&mut self, key: SessionKey, row: OutcomeRow) {
        self.remove(key);
        self.by_age.insert((row.recorded, key));
        self.hash = self.hash.wrapping_add(hash::outcome(&encode_key(key), &row));
        self.rows.insert(key, row);
    }

    fn remove(&mut self, key: SessionKey) {
        if let Some(former) = self.rows.remove(&key) {
            self.by_age.remove(&(former.recorded, key));
            self.hash = self.hash.wrapping_sub(hash::outcome(&encode_key(key), &former));
        }
    }

    /// What changed since the last call: rows, or `None` for those that are gone.
    pub(crate) fn take_dirty(&mut self) -> Vec<(SessionKey, Option<OutcomeRow>)> {
        std::mem::take(&mut self.dirty).into_iter().map(|key| (key, self.rows.get(&key).copied())).collect()
    }

    /// Puts back what was taken and could not be written.
    pub(crate) fn mark_dirty(&mut self, keys: impl Iterator<Item = SessionKey>) {
        self.dirty.extend(keys);
    }

    pub(crate) const fn hash(&self) -> u128 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(session: u64, counter: u64) -> RequestId {
        RequestId { incarnation: Incarnation::new(1), session: SessionId::new(session), counter }
    }

    #[test]
    fn a_fence_refuses_a_late_original_and_a_commit_its_copy() {
        let mut table = OutcomeTable::default();
        table.record(&request(1, 5), Version::new(10), Version::new(10));
        assert!(table.refuses(&request(1, 5)));
        assert!(!table.refuses(&request(1, 6)));
        let fate = |table: &OutcomeTable, request| table.fate(&request, Version::new(9), Version::new(11));
        assert_eq!(fate(&table, request(1, 5)), Some(Fate::Committed(Version::new(10))));
        assert_eq!(fate(&table, request(1, 6)), None);
        table.record(&request(1, 6), Version::ZERO, Version::new(11));
        assert_eq!(fate(&table, request(1, 6)), Some(Fate::Aborted));
        assert!(table.refuses(&request(1, 6)));
        let nobody = RequestId { incarnation: Incarnation::new(0), ..request(0, 0) };
        assert_eq!(fate(&table, nobody), Some(Fate::Forgotten), "who has no name cannot be asked for");
    }

    #[test]
    fn who_was_fenced_by_a_row_that_is_gone_does_not_commit() {
        let mut table = OutcomeTable::new(OutcomeBounds { rows_max: 2, commits_max: 1_000 });
        let began = Version::new(4);
        let version = Version::new;
        table.record(&request(1, 5), Version::ZERO, version(5));
        table.record(&request(2, 1), version(6), version(6));
        assert!(table.refuses(&request(1, 5)));
        assert!(!table.may_have_been_fenced(&request(9, 1), began), "nothing was dropped yet");
        // A commit that gave way is not told to be aborted because of a fence that came when it was gone.
        assert_eq!(table.fate(&request(1, 5), began, version(6)), Some(Fate::Aborted));
        // The fence gives way to other sessions' rows.
        table.record(&request(3, 1), version(7), version(7));
        assert!(!table.refuses(&request(1, 5)), "nobody remembers it");
        assert!(table.may_have_been_fenced(&request(1, 5), began));
        assert!(!table.may_have_been_fenced(&request(2, 2), began), "this session's row would tell");
        assert!(!table.may_have_been_fenced(&request(9, 1), version(7)), "it began later");
        // What only committed may go: nobody was told that it never would.
        table.record(&request(4, 1), version(8), version(8));
        assert!(!table.may_have_been_fenced(&request(2, 2), version(7)));
        // Who was fenced and has committed since was told so of the earlier one.
        table.record(&request(4, 2), Version::ZERO, version(9));
        table.record(&request(4, 3), version(10), version(10));
        table.record(&request(5, 1), version(11), version(11));
        table.record(&request(6, 1), version(12), version(12));
        assert!(table.may_have_been_fenced(&request(4, 2), version(11)));
        table.record(&request(2, 1), Version::ZERO, version(13));
        assert_eq!(
            table.fate(&request(2, 1), version(5), version(13)),
            Some(Fate::Forgotten),
            "it was committed at 6"
        );
        assert_eq!(
            table.fate(&request(2, 1), version(12), version(13)),
            Some(Fate::Aborted),
            "that one cannot be"
        );
        let end = Version::new(u64::MAX);
        assert_eq!(table.fate(&request(9, 1), end, version(12)), None, "however late it began");
    }

    #[test]
    fn old_outcomes_expire_by_the_order_of_commits() {
        let mut table = OutcomeTable::default();
        table.record(&request(1, 1), Version::new(1), Version::new(1));
        assert_ne!(table.hash(), 0);
        let nobody = request(0, 0);
        let nobody = RequestId { incarnation: Incarnation::new(0), ..nobody };
        let late = Version::new(OutcomeBounds::default().commits_max + 2);
        table.record(&nobody, late, late);
        assert_eq!(table.get(&request(1, 1)), None);
        assert_eq!(table.hash(), 0);
        assert_eq!(table.take_dirty(), vec![((Incarnation::new(1), SessionId::new(1)), None)]);
    }

    #[test]
    fn the_fate_of_what_was_dropped_is_forgotten_not_guessed() {
        let mut table = OutcomeTable::default();
        let fate = |table: &OutcomeTable, request: &RequestId, last: u64| {
            table.fate(request, Version::new(9), Version::new(last))
        };
        assert_eq!(fate(&table, &request(1, 5), 10), None);
        table.record(&request(1, 5), Version::new(10), Version::new(10));
        assert_eq!(fate(&table, &request(1, 5), 10), Some(Fate::Committed(Version::new(10))));
        assert_eq!(fate(&table, &request(1, 6), 10), None, "it is still to come");
        table.record(&request(1, 7), Version::ZERO, Version::new(11));
        table.record(&request(1, 8), Version::ZERO, Version::new(12));
        for aborted in [6, 7, 8] {
            assert_eq!(fate(&table, &request(1, aborted), 12), Some(Fate::Aborted), "{aborted}");
        }
        let committed = Some(Fate::Committed(Version::new(10)));
        assert_eq!(fate(&table, &request(1, 5), 12), committed, "fences do not hide it");
        table.record(&request(1, 9), Version::new(13), Version::new(13));
        assert_eq!(fate(&table, &request(1, 5), 13), committed, "nor does the next commit");
        table.record(&request(1, 10), Version::new(14), Version::new(14));
        assert_eq!(fate(&table, &request(1, 5), 14), Some(Fate::Forgotten), "the session went on");
        assert_eq!(fate(&table, &request(1, 8), 14), Some(Fate::Forgotten), "what came before is not known");
        assert_eq!(fate(&table, &request(1, 9), 14), Some(Fate::Committed(Version::new(13))));
        table.record(&request(3, 2), Version::ZERO, Version::new(15));
        assert_eq!(fate(&table, &request(3, 1), 15), Some(Fate::Aborted), "nothing came before");
        let late = 9 + OutcomeBounds::default().commits_max;
        assert_eq!(fate(&table, &request(2, 1), late), None);
        assert_eq!(fate(&table, &request(2, 1), late + 1), Some(Fate::Forgotten), "too many commits ago");
    }

    #[test]
    fn a_crowded_table_may_have_dropped_what_is_younger_than_its_oldest_row_was() {
        let mut table = OutcomeTable::new(OutcomeBounds { rows_max: 100, commits_max: 4_000 });
        let count = 100;
        for number in 1..=count + 1 {
            table.record(&request(number, 1), Version::new(number), Version::new(number));
        }
        let last = Version::new(count + 1);
        let fate = |since| table.fate(&request(1, 1), Version::new(since), last);
        assert_eq!(fate(0), Some(Fate::Forgotten), "it was the first of so many");
        assert_eq!(fate(1), None, "what was recorded since is all there");
    }

    #[test]
    fn rows_and_keys_survive_the_round_trip() {
        let (committed, recorded) = (Version::new(4), Version::new(5));
        for before in [None, Some((1, Version::new(2)))] {
            let row = OutcomeRow { counter: 3, committed, recorded, before };
            assert_eq!(OutcomeRow::decode(&row.encode()), Some(row));
        }
        let key = (Incarnation::new(7), SessionId::new(8));
        assert_eq!(decode_key(&encode_key(key)), Some(key));
    }
}
