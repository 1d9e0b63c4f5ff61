//! The sequencer: gives each commit its place in the order, at the leader.
//!
//! ```text
//!   Closed -- leadership --> Open{term} -- refusal --> Draining{term} -- all resolved --> Open{term}
//!      ^------------------------ leadership lost, from anywhere -------------------------'
//! ```
//!
//! A commit is validated against what is applied and what is in flight, numbered (term, sequence), put into the
//! overlay and proposed, all under one lock, so that proposals leave in the order of their numbers. The commit's
//! locks may be released from then on.
//!
//! Every proposal is resolved once: by the apply of its entry (applied, or skipped), by the proposer's refusal, or
//! by the end of the leadership. After a refusal nothing is numbered until all that was sent is resolved; then
//! numbering goes on from the applied sequence. Where a proposal got lost, a barrier is proposed first and waited
//! for: whatever the log holds of what was sent before stands ahead of it. A proposal is never retried here: who
//! submits anew gets a new place. An entry carries the number of its attempt, so that a straggler which takes the
//! place of a later proposal is not mistaken for it.
//!
//! Bounds: entries and bytes in flight; at the bound commits wait for room, with a deadline, then fail.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use rustydb_env::{Bug, ambient};
use rustydb_types::ids::{RequestId, Term, Version};
use tokio::sync::oneshot;

use crate::core::{Authority, Core, TxnShared};
use crate::entry::{Base, EntryBuilder, EntryKind, NOBODY, Numbering};
use crate::error::{ProposeError, TxnError};
use crate::layer::Found;
use crate::outcomes::{SessionKey, is_named};
use crate::proposer::Proposal;
use crate::ranges::{self, KeyRanges};
use crate::validation::{ReadSet, RecentWrites};

/// How many entries beside transactions may be in flight when there is no room for commits.
const ASIDE_ENTRIES_MAX: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// This node does not lead.
    Closed,
    /// Commits are numbered.
    Open { term: Term },
    /// A proposal was refused; waiting for the rest to be resolved.
    Draining { term: Term },
}

/// What a commit's answer is sent through.
pub(crate) type CommitAnswer = oneshot::Receiver<Result<Version, Failure>>;

/// Why an entry took no effect, as far as is known.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// It is in no log, or was skipped there: it never takes effect.
    Refused {
        /// What stood against it.
        reason: &'static str,
    },
    /// It may take effect, but ahead of everything that is numbered after this was said.
    Unknown,
    /// It never takes effect, nor would the same one later.
    Final(TxnError),
}

impl From<TxnError> for Failure {
    fn from(error: TxnError) -> Failure {
        Failure::Final(error)
    }
}

impl From<Failure> for TxnError {
    fn from(failure: Failure) -> TxnError {
        match failure {
            Failure::Refused { reason } => TxnError::Fallen { reason },
            Failure::Unknown if ambient::has_bug(Bug::UnknownToldRefused) => {
                TxnError::Fallen { reason: "the leader changed" }
            }
            Failure::Unknown => TxnError::UnknownOutcome,
            Failure::Final(error) => error,
        }
    }
}

/// What an entry does to the staged transactions that have an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Staged {
    Nothing,
    /// Opens the one of its own number.
    Opens,
    /// Commits this one.
    Commits(Version),
}

struct InFlight {
    attempt: u64,
    request: RequestId,
    size_bytes: usize,
    staged: Staged,
    answer: oneshot::Sender<Result<Version, Failure>>,
}

struct State {
    phase: Phase,
    /// The next sequence to give out.
    next: Version,
    attempts: u64,
    in_flight: BTreeMap<Version, InFlight>,
    size_bytes: usize,
    /// The highest counter in flight of each session.
    sessions: HashMap<SessionKey, u64>,
    /// Who waits for a version to be applied.
    settling: BTreeMap<Version, Vec<oneshot::Sender<Result<(), TxnError>>>>,
    /// Who waits for room, or for the end of draining.
    room: VecDeque<oneshot::Sender<()>>,
    recent: RecentWrites,
    /// Whether a proposal of this leadership got lost, so that its entry may be in the log.
    uncertain: bool,
    /// Whether such an entry may have been applied since numbering stopped, unknown to `recent`.
    unrecorded: bool,
}

/// See the module.
pub(crate) struct Sequencer {
    state: Mutex<State>,
}

/// A write as the sequencer needs it.
#[derive(Clone, Debug)]
pub(crate) struct PreparedWrite {
    pub(crate) key: Bytes,
    pub(crate) base: Base,
    pub(crate) value: Option<Bytes>,
}

/// A transaction that wants its place.
pub(crate) struct Submission {
    pub(crate) kind: EntryKind,
    pub(crate) request: RequestId,
    /// `None` once it was numbered.
    pub(crate) entry: Option<EntryBuilder>,
    pub(crate) writes: Vec<PreparedWrite>,
    /// The staged transaction that it adds to, commits or drops; zero for a chunk that opens one.
    pub(crate) staged: Version,
    /// The transaction, if it is one.
    pub(crate) shared: Option<Arc<TxnShared>>,
    /// How often the layers had been flushed when the first base was read.
    pub(crate) flushes: u64,
    /// Snapshot and read ranges of a SERIALIZABLE transaction.
    pub(crate) reads: Option<(Version, ReadSet)>,
    /// The keys of a chunk; of a commit, those of all chunks before, for the validation of others.
    pub(crate) keys: KeyRanges,
    /// A row beside the transaction, which has then read it.
    pub(crate) is_aside: bool,
}

impl Submission {
    /// An entry that is no transaction's commit.
    pub(crate) fn bare(kind: EntryKind, request: RequestId, entry: EntryBuilder) -> Submission {
        Submission {
            kind,
            request,
            entry: Some(entry),
            writes: Vec::new(),
            staged: Version::ZERO,
            shared: None,
            flushes: 0,
            reads: None,
            keys: KeyRanges::default(),
            is_aside: false,
        }
    }
}

/// What came of a submission.
pub(crate) enum Submitted {
    /// It has its place; the answer comes when it is resolved.
    Numbered(CommitAnswer),
    /// There is no room; try again after this.
    Wait(oneshot::Receiver<()>),
}

/// How an entry of this node's was resolved by apply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resolution {
    pub(crate) term: Term,
    pub(crate) version: Version,
    pub(crate) attempt: u64,
    pub(crate) applied: bool,
}

type Answers = Vec<(oneshot::Sender<Result<Version, Failure>>, Result<Version, Failure>)>;

/// Told once what became of a proposal, even if the callback is dropped.
struct ProposalGuard {
    core: Weak<Core>,
    version: Version,
    attempt: u64,
    told: bool,
    handover: Arc<Mutex<Handover>>,
}

/// Whether a proposal is the proposer's. While it is being offered the sequencer holds its own lock, which a callback
/// that is dropped because of a refusal must not want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handover {
    Offered,
    Taken,
    DroppedMeanwhile,
}

impl ProposalGuard {
    fn tell(&mut self, result: Result<(), ProposeError>) {
        self.told = true;
        if let (Err(error), Some(core)) = (result, self.core.upgrade()) {
            core.proposal_failed(self.version, self.attempt, error);
        }
    }
}

impl Drop for ProposalGuard {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        {
            let mut handover = self.handover.lock();
            if *handover == Handover::Offered {
                *handover = Handover::DroppedMeanwhile;
                return;
            }
        }
        self.tell(Err(ProposeError::Unknown));
    }
}

impl Sequencer {
    pub(crate) fn new(applied: Version) -> Sequencer {
        Sequencer {
            state: Mutex::new(State {
                phase: Phase::Closed,
                next: applied.next(),
                attempts: 0,
                in_flight: BTreeMap::new(),
                size_bytes: 0,
                sessions: HashMap::new(),
                settling: BTreeMap::new(),
                room: VecDeque::new(),
                recent: RecentWrites::default(),
                uncertain: false,
                unrecorded: false,
            }),
        }
    }

    /// Entries and bytes in flight.
    pub(crate) fn in_flight(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.in_flight.len(), state.size_bytes)
    }

    /// Changes the record of recent writes, between two commits.
    pub(crate) fn with_recent<T>(&self, change: impl FnOnce(&mut RecentWrites, Version) -> T) -> T {
        let mut state = self.state.lock();
        let last = state.next.previous().unwrap_or(Version::ZERO);
        change(&mut state.recent, last)
    }
}

impl State {
    fn waiter(&mut self, bound: usize) -> Result<oneshot::Receiver<()>, TxnError> {
        self.room.retain(|waiter| !waiter.is_closed());
        if self.room.len() >= bound {
            return Err(TxnError::Overloaded { what: "commits that wait" });
        }
        let (sender, receiver) = oneshot::channel();
        self.room.push_back(sender);
        Ok(receiver)
    }

    fn take(&mut self, version: Version) -> Option<InFlight> {
        let taken = self.in_flight.remove(&version)?;
        self.size_bytes = self.size_bytes.saturating_sub(taken.size_bytes);
        let key = (taken.request.incarnation, taken.request.session);
        if self.sessions.get(&key).is_some_and(|counter| *counter == taken.request.counter) {
            self.sessions.remove(&key);
        }
        Some(taken)
    }

    fn wake_room(&mut self) {
        for waiter in self.room.drain(..) {
            let _gone = waiter.send(());
        }
    }
}

impl Core {
    /// Opens a read-write transaction, bound to the present leadership.
    pub(crate) fn open_transaction(&self) -> Result<Arc<TxnShared>, TxnError> {
        let state = self.sequencer.state.lock();
        match state.phase {
            Phase::Closed => {
                drop(state);
                Err(if self.stopping.is_set() { TxnError::Stopped } else { self.not_leader() })
            }
            Phase::Open { term } | Phase::Draining { term } => {
                Ok(self.registry.open(term, self.layers.applied()))
            }
        }
    }

    /// Gives a submission its place, or says what to wait for.
    pub(crate) fn submit(self: &Arc<Core>, submission: &mut Submission) -> Result<Submitted, Failure> {
        let mut guard = self.sequencer.state.lock();
        let state = &mut *guard;
        let term = match state.phase {
            Phase::Open { term } => term,
            Phase::Draining { .. } => {
                return Ok(Submitted::Wait(state.waiter(self.config.window_entries_max)?));
            }
            Phase::Closed => {
                drop(guard);
                return Err(self.not_leader().into());
            }
        };
        let size_bytes = submission.entry.as_ref().map_or(0, EntryBuilder::size_bytes);
        let bound_bytes = self.config.entry_size_bytes_max;
        if size_bytes > bound_bytes {
            return Err(TxnError::TooLarge { size_bytes, bound_bytes }.into());
        }
        // A write beside a transaction cannot wait; there are few, and they are small.
        let beyond = if submission.is_aside { ASIDE_ENTRIES_MAX } else { 0 };
        let full = state.in_flight.len() >= self.config.window_entries_max + beyond
            || (state.size_bytes + size_bytes > self.config.window_size_bytes_max
                && !state.in_flight.is_empty()
                && !submission.is_aside);
        if full {
            return Ok(Submitted::Wait(state.waiter(self.config.window_entries_max)?));
        }
        self.validate(state, submission, term)?;
        let version = state.next;
        state.attempts += 1;
        let attempt = state.attempts;
        let Some(entry) = submission.entry.take() else {
            return Err(TxnError::Stopped.into());
        };
        let staged = match submission.kind {
            EntryKind::Stage if submission.staged == Version::ZERO => Staged::Opens,
            EntryKind::CommitStaged => Staged::Commits(submission.staged),
            _ => Staged::Nothing,
        };
        let commit_time_us = self.env.wall_now().unix_micros();
        let entry = entry.number(Numbering { term, sequence: version, attempt, commit_time_us });
        let (answer, receiver) = oneshot::channel();
        self.enter(state, submission, version);
        state
            .in_flight
            .insert(version, InFlight { attempt, request: submission.request, size_bytes, staged, answer });
        state.size_bytes += size_bytes;
        state.next = version.next();
        if let Err(error) = self.offer(term, entry, version, attempt) {
            // Nothing was numbered behind it yet, so the refusal costs only this one and who read it meanwhile.
            let failed = state.take(version);
            state.uncertain |= error == ProposeError::Unknown;
            self.refuse(state, version);
            self.reopen_if_drained(state);
            drop(guard);
            drop(failed);
            return Err(self.propose_failure(error));
        }
        if let (true, Some(shared)) = (submission.is_aside, &submission.shared) {
            // Under the lock: a refusal from here on ends the transaction, too.
            shared.read_through.fetch_max(version.get(), Ordering::SeqCst);
        }
        if let (EntryKind::Stage, Some(shared)) = (submission.kind, &submission.shared) {
            let id = if staged == Staged::Opens { version } else { submission.staged };
            self.owners.chunk(id, shared, &submission.keys);
        }
        Ok(Submitted::Numbered(receiver))
    }

    /// Offers an entry to the proposer; called under the sequencer's lock. An answer that is lost before this returns
    /// is an unknown one.
    fn offer(
        self: &Arc<Core>,
        term: Term,
        entry: Bytes,
        version: Version,
        attempt: u64,
    ) -> Result<(), ProposeError> {
        let handover = Arc::new(Mutex::new(Handover::Offered));
        let mut told = ProposalGuard {
            core: Arc::downgrade(self),
            version,
            attempt,
            told: false,
            handover: Arc::clone(&handover),
        };
        let done = Box::new(move |result| told.tell(result));
        self.proposer.propose(Proposal { term, entry, done })?;
        let mut handover = handover.lock();
        if *handover == Handover::DroppedMeanwhile {
            return Err(ProposeError::Unknown);
        }
        *handover = Handover::Taken;
        Ok(())
    }

    fn validate(&self, state: &mut State, submission: &mut Submission, term: Term) -> Result<(), TxnError> {
        if let Some(shared) = &submission.shared {
            shared.check()?;
            if shared.term != term {
                return Err(TxnError::Fallen { reason: "the leader changed" });
            }
        }
        let request = submission.request;
        if is_named(&request) && matches!(submission.kind, EntryKind::Commit | EntryKind::CommitStaged) {
            let key = (request.incarnation, request.session);
            let in_flight = state.sessions.get(&key).is_some_and(|counter| *counter >= request.counter);
            if in_flight || self.refuses(&request) {
                return Err(TxnError::Serialization { reason: "the request was answered before" });
            }
            let began = submission.shared.as_ref().map_or(Version::ZERO, |shared| shared.began());
            if self.outcomes.read().may_have_been_fenced(&request, began) {
                return Err(TxnError::Serialization { reason: "the request may have been answered before" });
            }
        }
        self.validate_staged(submission)?;
        self.validate_bases(submission)?;
        if self.env.has_bug(Bug::CommitNotValidated) {
            return Ok(());
        }
        if let Some((snapshot, reads)) = &mut submission.reads
            && !state.recent.is_valid(*snapshot, reads)
        {
            return Err(TxnError::Serialization { reason: "what was read has changed" });
        }
        Ok(())
    }

    /// A staged transaction is added to and committed by its owner only, while that may go on; it is dropped only
    /// when there is none. So no entry ever names a staged transaction that an earlier entry dropped.
    fn validate_staged(&self, submission: &Submission) -> Result<(), TxnError> {
        let (id, shared) = (submission.staged, &submission.shared);
        let holds = match submission.kind {
            EntryKind::Stage if id == Version::ZERO => true,
            EntryKind::Stage | EntryKind::CommitStaged => {
                shared.as_ref().is_some_and(|shared| self.owners.is_owner(id, shared))
            }
            EntryKind::AbortStaged => !self.owners.is_live(id),
            EntryKind::Commit | EntryKind::Fence => true,
        };
        if holds { Ok(()) } else { Err(TxnError::Serialization { reason: "a staged transaction has ended" }) }
    }

    /// Each write must replace the version that it was computed from. Locks see to that; this holds where a lock
    /// was forgotten. What was flushed meanwhile is looked up in the engine too. A row that another transaction has
    /// staged and may yet commit must not be replaced either.
    fn validate_bases(&self, submission: &Submission) -> Result<(), TxnError> {
        let txn = submission.shared.as_ref().map_or(0, |shared| shared.id);
        let noted = std::sync::atomic::AtomicU64::new(0);
        for (run, bounds) in ranges::runs(&submission.writes, |write| &write.key) {
            // Before the set is taken: what is applied meanwhile is then in the one or in the other.
            let in_flight: Vec<Option<Found>> =
                run.iter().map(|write| self.overlay.get(&write.key, Version::MAX, &noted)).collect();
            let staged = self.overlay.staged_visible(Version::MAX, &noted);
            let set = self.layers.current();
            let flushed = self.layers.flushes() != submission.flushes;
            let vacant = match &bounds {
                Some(bounds) if flushed => set.is_vacant(bounds, &staged)?,
                _ => false,
            };
            for (write, in_flight) in run.iter().zip(in_flight) {
                if self.staged_by_other(&write.key, txn)?.is_some() {
                    return Err(TxnError::Serialization { reason: "a concurrent update" });
                }
                let newest = match in_flight {
                    Some(found) => Some(found),
                    None if vacant => None,
                    None if flushed => set.get(&write.key, Version::MAX, &staged)?,
                    None => match set.get_unflushed(&write.key)? {
                        Some(found) => Some(found),
                        None => continue,
                    },
                };
                let newest = newest.map_or(Version::ZERO, |found| found.live_version());
                if newest != write.base.version {
                    return Err(TxnError::Serialization { reason: "a concurrent update" });
                }
            }
        }
        Ok(())
    }

    /// Makes a numbered commit visible to what comes after it.
    fn enter(&self, state: &mut State, submission: &Submission, version: Version) {
        if is_named(&submission.request) {
            let key = (submission.request.incarnation, submission.request.session);
            state.sessions.insert(key, submission.request.counter);
        }
        let point = submission.writes.iter().map(|write| (write.key.clone(), write.key.clone()));
        match submission.kind {
            EntryKind::Commit => {
                state.recent.record(version, point, self.config.validation_size_bytes_max);
                let writes = submission.writes.iter().map(|write| (write.key.clone(), write.value.clone()));
                self.overlay.number(version, writes);
            }
            EntryKind::CommitStaged => {
                let ranges = submission.keys.iter().cloned();
                state.recent.record(version, point.chain(ranges), self.config.validation_size_bytes_max);
                let writes = submission.writes.iter().map(|write| (write.key.clone(), write.value.clone()));
                self.overlay.number_staged(version, submission.staged, writes);
            }
            EntryKind::Stage | EntryKind::Fence | EntryKind::AbortStaged => self.overlay.number(version, []),
        }
    }

    /// Drops everything from `from` on, and everyone who has read it.
    fn refuse(&self, state: &mut State, from: Version) {
        if let Phase::Open { term } = state.phase {
            state.phase = Phase::Draining { term };
        }
        self.overlay.drop_from(from);
        state.recent.drop_from(from);
        if !self.env.has_bug(Bug::RefusedCommitKept) {
            self.registry.refuse_from(from);
        }
        self.sweep_wanted.notify_one();
        for waiter in state.settling.split_off(&from).into_values().flatten() {
            let reason = "a commit that this transaction had read was refused";
            let _gone = waiter.send(Err(TxnError::Fallen { reason }));
        }
    }

    /// Opens again once all that was sent is resolved. If something got lost, its entry may still be in the log,
    /// ahead of all that is proposed from now on; so a barrier goes first, and numbering waits for it.
    fn reopen_if_drained(self: &Arc<Core>, state: &mut State) {
        let Phase::Draining { term } = state.phase else { return };
        if !state.in_flight.is_empty() {
            return;
        }
        let applied = self.layers.applied();
        state.next = applied.next();
        self.overlay.clear(applied);
        if state.uncertain {
            state.unrecorded = true;
            self.send_barrier(state, term);
        } else {
            if std::mem::take(&mut state.unrecorded) {
                // What was lost was dropped from the record, and may have been applied all the same.
                state.recent.forget_through(applied);
            }
            state.phase = Phase::Open { term };
            state.wake_room();
        }
    }

    fn send_barrier(self: &Arc<Core>, state: &mut State, term: Term) {
        let version = state.next;
        state.attempts += 1;
        let attempt = state.attempts;
        let commit_time_us = self.env.wall_now().unix_micros();
        let entry = EntryBuilder::new(EntryKind::Fence, NOBODY, Version::ZERO, &[]);
        let size_bytes = entry.size_bytes();
        let entry = entry.number(Numbering { term, sequence: version, attempt, commit_time_us });
        if self.offer(term, entry, version, attempt).is_ok() {
            state.uncertain = false;
            let (answer, _nobody_waits) = oneshot::channel();
            state.in_flight.insert(
                version,
                InFlight { attempt, request: NOBODY, size_bytes, staged: Staged::Nothing, answer },
            );
            state.size_bytes += size_bytes;
            state.next = version.next();
        }
    }

    /// Tries again to open after a barrier that was refused at once. Called now and then.
    pub(crate) fn retry_drained(self: &Arc<Core>) {
        self.reopen_if_drained(&mut self.sequencer.state.lock());
    }

    /// Translates a refusal for the one whose entry it was.
    fn propose_failure(&self, error: ProposeError) -> Failure {
        match error {
            ProposeError::NotLeader { .. } => self.not_leader().into(),
            ProposeError::Refused => Failure::Refused { reason: "the proposal was refused" },
            ProposeError::Overloaded => TxnError::Overloaded { what: "proposals" }.into(),
            ProposeError::Unknown => Failure::Unknown,
            ProposeError::DiskFull => TxnError::DiskFull.into(),
        }
    }

    /// An entry took no effect, or it is not known whether it did. Called under the lock. What was to be opened by it
    /// has no owner then: if it is opened after all, the sweep drops it.
    fn has_failed(&self, version: Version, failed: &InFlight) {
        if failed.staged == Staged::Opens {
            self.owners.forget(version);
        }
    }

    fn proposal_failed(self: &Arc<Core>, version: Version, attempt: u64, error: ProposeError) {
        let answer = {
            let mut guard = self.sequencer.state.lock();
            let state = &mut *guard;
            if state.in_flight.get(&version).is_none_or(|it| it.attempt != attempt) {
                return;
            }
            let failed = state.take(version);
            if let Some(failed) = &failed {
                self.has_failed(version, failed);
            }
            state.uncertain |= error == ProposeError::Unknown;
            self.refuse(state, version);
            self.reopen_if_drained(state);
            failed
        };
        if let Some(failed) = answer {
            let _gone = failed.answer.send(Err(self.propose_failure(error)));
        }
    }

    /// Learns from apply what became of entries, and that everything up to `applied` is visible.
    pub(crate) fn resolved(self: &Arc<Core>, resolutions: &[Resolution], applied: Version) {
        let mut answers: Answers = Vec::with_capacity(resolutions.len());
        let settled = {
            let mut guard = self.sequencer.state.lock();
            let state = &mut *guard;
            let mut refused: Option<Version> = None;
            if let Phase::Open { term } | Phase::Draining { term } = state.phase {
                for resolution in resolutions.iter().filter(|it| it.term == term) {
                    let Some(mine) = state.in_flight.get(&resolution.version) else { continue };
                    let is_mine = mine.attempt == resolution.attempt;
                    if is_mine && let Some(taken) = state.take(resolution.version) {
                        let answer = if resolution.applied {
                            if let Staged::Commits(id) = taken.staged {
                                self.owners.forget(id);
                            }
                            Ok(resolution.version)
                        } else {
                            self.has_failed(resolution.version, &taken);
                            Err(Failure::Refused { reason: "a commit before it was refused" })
                        };
                        answers.push((taken.answer, answer));
                    }
                    // Skipped, or its place was taken by a straggler: what is numbered from here on cannot hold.
                    if is_mine != resolution.applied {
                        refused =
                            Some(refused.map_or(resolution.version, |from| from.min(resolution.version)));
                    }
                }
            }
            if let Some(from) = refused {
                self.refuse(state, from);
            }
            if state.phase == Phase::Closed {
                state.next = applied.next();
            }
            let later = state.settling.split_off(&applied.next());
            let settled = std::mem::replace(&mut state.settling, later);
            self.reopen_if_drained(state);
            if !answers.is_empty() {
                state.wake_room();
            }
            settled
        };
        for (sender, answer) in answers {
            let _gone = sender.send(answer);
        }
        for waiter in settled.into_values().flatten() {
            let _gone = waiter.send(Ok(()));
        }
    }

    /// What to wait for until `version` is applied; `None` if it is.
    pub(crate) fn settling(
        &self,
        version: Version,
        shared: &TxnShared,
    ) -> Result<Option<oneshot::Receiver<Result<(), TxnError>>>, TxnError> {
        let mut state = self.sequencer.state.lock();
        shared.check()?;
        if version <= self.layers.applied() {
            return Ok(None);
        }
        let (sender, receiver) = oneshot::channel();
        state.settling.entry(version).or_default().push(sender);
        Ok(Some(receiver))
    }

    /// Begins or ends a leadership. Everything in flight is unknown from then on, all locks are forgotten and all
    /// open transactions end.
    pub(crate) fn lead(&self, authority: Authority) {
        let (in_flight, settling) = {
            let mut guard = self.sequencer.state.lock();
            let state = &mut *guard;
            let phase = match authority {
                Authority::Here { term } => Phase::Open { term },
                _ => Phase::Closed,
            };
            if phase == Phase::Closed && state.phase == Phase::Closed {
                drop(guard);
                self.authority.send_replace(authority);
                return;
            }
            let applied = self.layers.applied();
            state.phase = phase;
            state.next = applied.next();
            state.size_bytes = 0;
            state.sessions.clear();
            state.recent.reset();
            (state.uncertain, state.unrecorded) = (false, false);
            self.overlay.clear(applied);
            self.registry.depose();
            self.owners.clear();
            self.locks.clear();
            state.wake_room();
            (std::mem::take(&mut state.in_flight), std::mem::take(&mut state.settling))
        };
        for lost in in_flight.into_values() {
            let _gone = lost.answer.send(Err(Failure::Unknown));
        }
        for waiter in settling.into_values().flatten() {
            let _gone = waiter.send(Err(TxnError::Fallen { reason: "the leader changed" }));
        }
        self.authority.send_replace(authority);
        // What earlier leaderships left staged is dropped first thing.
        self.sweep_wanted.notify_one();
    }
}
