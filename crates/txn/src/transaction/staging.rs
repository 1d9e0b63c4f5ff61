//! Staging: how the writes of a large transaction leave its memory before the commit.
//!
//! ```text
//!   own writes --chunk--> numbered (rows marked, locks held) --applied--> rows forgotten, row locks released
//! ```
//!
//! The first chunk opens the staged transaction and is awaited alone, since its sequence is the number that the
//! others name; then a few are on their way at a time. A row leaves memory, and its lock is released, only when
//! its chunk is applied: from then on the provisional row itself keeps others off, who wait for the lock
//! [`LockTarget::Staged`] that the transaction holds to its end.
//!
//! A chunk that was refused, skipped or lost while the same leadership lasts is nothing to the transaction: its rows
//! are still here, and leave again with another chunk once the sequencer numbers again, for at most
//! [`stage_wait`](crate::KvConfig::stage_wait) without success. What a lost chunk has staged after all is then
//! replaced by the same rows; if it was the first one, what it opened has no owner and is swept.
//!
//! While a savepoint is open nothing leaves, since a chunk cannot be taken back; the transaction then must fit in
//! memory.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustydb_env::Instant;
use rustydb_types::ids::Version;

use super::Transaction;
use super::own::ChunkRows;
use crate::entry::{EntryBuilder, EntryKind, NOBODY};
use crate::error::TxnError;
use crate::locks::{LockTarget, Mode, RowLock};
use crate::ranges::KeyRanges;
use crate::sequencer::{CommitAnswer, Failure, Submission, Submitted};

/// Chunks of one transaction on their way at a time.
const CHUNKS_MAX: usize = 4;
/// The pause after a failure, which doubles with each until a chunk is applied.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// The pause between two looks at whether the flush has come on.
const FLUSH_PAUSE: Duration = Duration::from_millis(20);

struct Chunk {
    number: u64,
    answer: CommitAnswer,
    keys: Vec<Bytes>,
    /// Flushes of the layers when the first of its bases may have been read.
    flushes: u64,
}

/// Chunks have failed lately.
struct Trouble {
    /// When the transaction gives up.
    until: Instant,
    pause: Duration,
    /// The last failure, if it was not yet paused for.
    last: Option<Failure>,
}

/// What a transaction has staged.
#[derive(Default)]
pub(super) struct Staging {
    /// Its number, once the first chunk is applied.
    id: Option<Version>,
    /// Chunks on their way, oldest first.
    chunks: VecDeque<Chunk>,
    last_number: u64,
    /// The keys of all chunks.
    keys: KeyRanges,
    /// Flushes of the layers when the first base of the next chunk may have been read.
    flushes: u64,
    trouble: Option<Trouble>,
}

impl Staging {
    pub(super) fn new(flushes: u64) -> Staging {
        Staging { flushes, ..Staging::default() }
    }

    pub(super) const fn id(&self) -> Option<Version> {
        self.id
    }

    /// Whether anything was sent.
    pub(super) fn has_begun(&self) -> bool {
        self.id.is_some() || !self.chunks.is_empty()
    }

    /// The number, if a row at `key` may be among what was staged.
    pub(super) fn may_hold(&self, key: &[u8]) -> Option<Version> {
        self.id.filter(|_| self.keys.covers(key))
    }

    pub(super) const fn flushes(&self) -> u64 {
        self.flushes
    }

    pub(super) fn keys(&self) -> KeyRanges {
        self.keys.clone()
    }

    fn has_fresh_trouble(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.last.is_some())
    }
}

impl Transaction {
    /// Gives a large transaction the chance to hand on what it has buffered; call it between the rows of bulk
    /// work, where waiting is allowed. Costs next to nothing while the transaction is small.
    ///
    /// # Errors
    /// [`TxnError::Fallen`] when the leader changed, or parts of the transaction were refused for a long time,
    /// which ends it; [`TxnError::Overloaded`] when there was no room for a long time; [`TxnError::TooManyChanges`]
    /// where too little can leave; [`TxnError::DiskFull`].
    ///
    /// # Cancellation
    /// Safe: the transaction can go on, or be rolled back.
    pub async fn flush_if_large(&mut self) -> Result<(), TxnError> {
        let config = &self.core.config;
        let begin_bytes =
            if self.staging.has_begun() { config.stage_size_bytes } else { config.stage_begin_size_bytes };
        if self.own.staying_size_bytes() >= begin_bytes && !self.own.has_savepoint() {
            let keep_bytes = self.core.config.stage_size_bytes;
            self.stage_down_to(keep_bytes).await?;
        }
        let bound_bytes = self.core.config.transaction_size_bytes_max;
        if self.own.size_bytes() > bound_bytes {
            let size_bytes = self.own.size_bytes();
            return Err(TxnError::TooManyChanges { size_bytes, bound_bytes });
        }
        Ok(())
    }

    /// Stages until fewer than `keep_bytes` stay, or nothing more can leave.
    pub(super) async fn stage_down_to(&mut self, keep_bytes: usize) -> Result<(), TxnError> {
        self.shared.check()?;
        self.take_answers()?;
        while self.own.staying_size_bytes() >= keep_bytes {
            self.weather().await?;
            let Some(rows) = self.own.choose(self.command, self.core.config.stage_size_bytes) else {
                break;
            };
            let bound = if self.staging.id.is_none() { 1 } else { CHUNKS_MAX };
            while self.staging.chunks.len() >= bound {
                self.await_oldest().await?;
            }
            self.await_flush().await?;
            // What came back meanwhile is no part of `rows`, and leaves later.
            self.send(rows).await?;
        }
        Ok(())
    }

    /// Before the commit: stages until one chunk is left, and waits until all that has left is applied.
    pub(super) async fn stage_all(&mut self) -> Result<(), TxnError> {
        loop {
            self.stage_down_to(self.core.config.stage_size_bytes).await?;
            while !self.staging.chunks.is_empty() {
                self.await_oldest().await?;
            }
            if !self.staging.has_fresh_trouble() {
                return Ok(());
            }
            self.weather().await?;
        }
    }

    /// Notes a failure, to be paused for, or says that it ends the transaction.
    pub(super) fn note_failure(&mut self, failure: Failure) -> Result<(), TxnError> {
        let passes = match &failure {
            Failure::Refused { .. } | Failure::Unknown => true,
            Failure::Final(error) => matches!(error, TxnError::Overloaded { .. }),
        };
        if !passes || self.shared.check().is_err() {
            self.shared.lose_chunk();
            return Err(nothing_committed(failure));
        }
        let until = self.core.env.now() + self.core.config.stage_wait;
        let trouble = self.staging.trouble.get_or_insert(Trouble { until, pause: PAUSE_MIN, last: None });
        trouble.last = Some(failure);
        Ok(())
    }

    /// Pauses after a failure. After too many of them the transaction ends.
    pub(super) async fn weather(&mut self) -> Result<(), TxnError> {
        let Some(trouble) = &mut self.staging.trouble else { return Ok(()) };
        let Some(last) = trouble.last.clone() else { return Ok(()) };
        if self.core.env.now() + trouble.pause >= trouble.until {
            self.shared.lose_chunk();
            return Err(nothing_committed(last));
        }
        tracing::debug!(?last, "a part of a large transaction is sent again");
        let pause = trouble.pause;
        self.core.env.sleep(pause).await;
        if let Some(trouble) = &mut self.staging.trouble {
            trouble.pause = (pause * 2).min(PAUSE_MAX);
            trouble.last = None;
        }
        self.shared.check()
    }

    /// Waits while memory holds so much which the disk has not that apply would soon have to flush by itself: consensus
    /// is not to wait for the disk because of a bulk load.
    async fn await_flush(&self) -> Result<(), TxnError> {
        let config = &self.core.config;
        let bound_bytes = config.unflushed_size_bytes_max / 4 * 3;
        let deadline = self.core.env.now() + config.stage_wait;
        while self.core.layers.unflushed_size_bytes() >= bound_bytes {
            if self.core.env.now() >= deadline {
                return Err(TxnError::Overloaded { what: "changes that wait for the disk" });
            }
            self.core.flush_wanted.notify_one();
            self.core.env.sleep(FLUSH_PAUSE).await;
        }
        Ok(())
    }

    /// Sends one chunk, waiting for room. Nothing is marked before the chunk is numbered, and nothing suspends
    /// after that.
    async fn send(&mut self, rows: ChunkRows) -> Result<(), TxnError> {
        let deadline = self.core.env.now() + self.core.config.stage_wait;
        let mut submission = self.chunk(&rows);
        let answer = loop {
            match self.core.submit(&mut submission) {
                Ok(Submitted::Numbered(answer)) => break answer,
                Ok(Submitted::Wait(room)) => {
                    if self.core.env.timeout_at(deadline, room).await.is_err() {
                        return Err(TxnError::Overloaded { what: "staged changes in flight" });
                    }
                }
                Err(failure) => {
                    if matches!(failure, Failure::Unknown) {
                        self.own.may_be_copied(&rows);
                    }
                    self.note_failure(failure)?;
                    self.weather().await?;
                    submission = self.chunk(&rows);
                }
            }
        };
        let keys: Vec<Bytes> = rows.writes.into_iter().map(|write| write.key).collect();
        self.staging.last_number += 1;
        let number = self.staging.last_number;
        self.own.leave(number, &keys);
        self.staging.keys.extend(&submission.keys);
        let flushes = self.staging.flushes;
        if self.own.staying_size_bytes() == 0 {
            // The bases of whatever comes now are read later.
            self.staging.flushes = self.core.layers.flushes();
        }
        self.staging.chunks.push_back(Chunk { number, answer, keys, flushes });
        Ok(())
    }

    fn chunk(&self, rows: &ChunkRows) -> Submission {
        let staged = self.staging.id.unwrap_or(Version::ZERO);
        let mut entry = EntryBuilder::chunk(staged, rows.command);
        let mut keys = KeyRanges::default();
        for write in &rows.writes {
            entry.write(&write.key, write.base, write.value.as_deref());
            keys.add(&write.key);
        }
        Submission {
            writes: rows.writes.clone(),
            staged,
            shared: Some(Arc::clone(&self.shared)),
            flushes: self.staging.flushes,
            keys,
            ..Submission::bare(EntryKind::Stage, NOBODY, entry)
        }
    }

    /// Takes the answers that are there.
    fn take_answers(&mut self) -> Result<(), TxnError> {
        while let Some(oldest) = self.staging.chunks.front_mut() {
            match oldest.answer.try_recv() {
                Ok(result) => self.oldest_done(result)?,
                Err(tokio::sync::oneshot::error::TryRecvError::Empty) => break,
                Err(tokio::sync::oneshot::error::TryRecvError::Closed) => return self.chunk_lost(),
            }
        }
        Ok(())
    }

    async fn await_oldest(&mut self) -> Result<(), TxnError> {
        let core = Arc::clone(&self.core);
        let Some(oldest) = self.staging.chunks.front_mut() else { return Ok(()) };
        match core.env.timeout(core.config.stage_wait, &mut oldest.answer).await {
            Ok(Ok(result)) => self.oldest_done(result),
            Ok(Err(_)) => self.chunk_lost(),
            // It may be applied yet; the transaction may not.
            Err(_) => {
                self.shared.lose_chunk();
                Err(TxnError::Overloaded { what: "staged changes in flight" })
            }
        }
    }

    fn chunk_lost(&self) -> Result<(), TxnError> {
        self.shared.lose_chunk();
        self.shared.check()
    }

    /// The oldest chunk is resolved: if applied, its rows leave; else they stay, to leave with another.
    fn oldest_done(&mut self, result: Result<Version, Failure>) -> Result<(), TxnError> {
        let Some(chunk) = self.staging.chunks.pop_front() else { return Ok(()) };
        let version = match result {
            Ok(version) => version,
            Err(failure) => {
                self.own.stay(chunk.number, &chunk.keys, matches!(failure, Failure::Unknown));
                self.staging.flushes = self.staging.flushes.min(chunk.flushes);
                return self.note_failure(failure);
            }
        };
        self.staging.trouble = None;
        if self.staging.id.is_none() {
            if let Err(error) = self.hold_staged(version) {
                self.shared.lose_chunk();
                return Err(error);
            }
            self.staging.id = Some(version);
        }
        let gone: HashSet<Bytes> =
            chunk.keys.into_iter().filter(|key| self.own.left(chunk.number, key)).collect();
        for key in &gone {
            self.locked.remove(key);
        }
        let mut free = Vec::new();
        self.held.retain(|target| {
            let goes = matches!(target, LockTarget::Row(key) if gone.contains(key));
            if goes {
                free.push(target.clone());
            }
            !goes
        });
        self.core.locks.release(self.shared.id, &free);
        Ok(())
    }

    /// Takes the lock that others will wait for. It is free: nobody has met a row of the staged transaction yet.
    fn hold_staged(&mut self, id: Version) -> Result<(), TxnError> {
        let target = LockTarget::Staged(id);
        self.core.locks.acquire(self.shared.id, &target, Mode::row(RowLock::ForUpdate), false)?;
        self.held.push(target);
        Ok(())
    }
}

/// The error for whoever made the transaction: nothing of it was committed, whatever became of a chunk.
fn nothing_committed(failure: Failure) -> TxnError {
    match failure.into() {
        TxnError::UnknownOutcome => TxnError::Fallen { reason: "the leader changed" },
        error => error,
    }
}
