//! The commit.

use std::sync::atomic::Ordering;

use rustydb_types::ids::Version;

use super::Transaction;
use crate::core::Core;
use crate::entry::{EntryBuilder, EntryKind};
use crate::error::TxnError;
use crate::proposer::Linearize;
use crate::sequencer::{CommitAnswer, Failure, Submission, Submitted};

/// Proof of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitReceipt {
    /// The version of the commit; for a transaction without writes, one at which all that it read holds.
    pub version: Version,
}

impl Transaction {
    /// Commits. When it returns `Ok`, the writes are durable on a majority and applied here, and everything that
    /// the transaction read is certain.
    ///
    /// # Errors
    /// [`TxnError::UnknownOutcome`] when the commit was proposed and its fate is not known; any other error means
    /// that nothing was or will be committed.
    ///
    /// # Cancellation
    /// Before the commit has its place in the order: rolled back. After: committed or not; ask for the outcome.
    pub async fn commit(mut self) -> Result<CommitReceipt, TxnError> {
        self.adopt_asides();
        if !self.has_outcome() && self.attachments.is_empty() {
            self.release_locks();
            self.settle_reads().await?;
            // A snapshot may name versions in flight. What was read of them is applied by now; the others may yet be
            // refused and their numbers given to other commits.
            let version = self.pin.version().min(self.core.layers.applied());
            return Ok(CommitReceipt { version });
        }
        if self.staging.has_begun() || self.own.size_bytes() >= self.core.config.stage_begin_size_bytes {
            // No command reads any more, so everything may leave but the last chunk, which comes with the commit.
            self.command = self.command.saturating_add(1);
            self.stage_all().await?;
        }
        let version = match self.staging.id() {
            Some(_) => self.commit_staged().await?,
            None => {
                let mut submission = self.submission();
                let answer = self.core.submit_waiting(&mut submission).await?;
                // The place is taken: who waits for the locks sees these writes. The answer waits for the disk.
                self.release_locks();
                self.core.answer(answer).await?
            }
        };
        self.core.settled_with(version, self.shared.read_through.load(Ordering::SeqCst));
        Ok(CommitReceipt { version })
    }

    /// Commits what is staged. Much was done to get here; so a commit that was refused or skipped is submitted anew
    /// while the leadership lasts, and the locks are kept until it is applied.
    async fn commit_staged(&mut self) -> Result<Version, TxnError> {
        loop {
            let mut submission = self.submission();
            let result = match self.core.submit_waiting(&mut submission).await {
                Ok(answer) => self.core.answer(answer).await,
                Err(failure) => Err(failure),
            };
            match result {
                Ok(version) => return Ok(version),
                // What was read cannot be validated twice.
                Err(failure @ Failure::Refused { .. }) if self.reads.is_none() => {
                    self.note_failure(failure)?;
                    self.weather().await?;
                }
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    fn submission(&mut self) -> Submission {
        let (kind, staged) = match self.staging.id() {
            Some(id) => (EntryKind::CommitStaged, id),
            None => (EntryKind::Commit, Version::ZERO),
        };
        let mut entry = EntryBuilder::new(kind, self.options.request, staged, &self.attachments);
        let writes: Vec<_> = self.own.prepared().collect();
        for write in &writes {
            entry.write(&write.key, write.base, write.value.as_deref());
        }
        let snapshot = self.pin.version();
        let reads = self.reads.as_ref().map(|reads| {
            let bound = self.core.config.read_ranges_max;
            (snapshot, std::mem::replace(&mut *reads.lock(), crate::validation::ReadSet::new(bound)))
        });
        Submission {
            kind,
            request: self.options.request,
            entry: Some(entry),
            writes,
            staged,
            shared: Some(std::sync::Arc::clone(&self.shared)),
            flushes: self.staging.flushes(),
            reads,
            keys: self.staging.keys(),
            is_aside: false,
        }
    }
}

impl Core {
    /// Submits, waiting for room as long as the configuration allows.
    pub(crate) async fn submit_waiting(
        self: &std::sync::Arc<Core>,
        submission: &mut Submission,
    ) -> Result<CommitAnswer, Failure> {
        let deadline = self.env.now() + self.config.window_wait;
        loop {
            match self.submit(submission)? {
                Submitted::Numbered(answer) => return Ok(answer),
                Submitted::Wait(room) => {
                    if self.env.timeout_at(deadline, room).await.is_err() {
                        return Err(TxnError::Overloaded { what: "commits in flight" }.into());
                    }
                }
            }
        }
    }

    /// Waits for the answer to a numbered entry.
    pub(crate) async fn answer(&self, answer: CommitAnswer) -> Result<Version, Failure> {
        match self.env.timeout(self.config.commit_wait, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(Failure::Unknown),
        }
    }

    /// A commit comes after everything it has read: what is applied up to it includes that.
    #[expect(clippy::unused_self, reason = "an invariant of this store")]
    pub(crate) fn settled_with(&self, version: Version, read_through: u64) {
        assert!(read_through < version.get(), "a commit was numbered before something that it had read");
    }

    pub(crate) async fn linearize(&self) -> Result<(), TxnError> {
        match self.proposer.linearize() {
            Linearize::Now => {}
            Linearize::Wait(wait) => match self.env.timeout(self.config.commit_wait, wait).await {
                Ok(result) => result?,
                Err(_) => return Err(self.not_leader()),
            },
        }
        // Whoever leads the log: a state that is wrong answers nothing.
        if self.is_withheld() { Err(self.not_leader()) } else { Ok(()) }
    }
}
