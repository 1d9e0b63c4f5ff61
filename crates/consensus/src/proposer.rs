//! Proposals of one group, in the order of the calls, bound to a leadership.
//!
//! ```text
//!  sequencer ── propose ──► openraft's queue              (the usual way: no task between)
//!                  └──────► backlog ── pump ──► queue     (while the queue is full, or the lease has run out)
//! ```
//!
//! A proposal is handed to openraft at once, in the caller's thread. When openraft's queue is full it waits in the
//! backlog, and all later ones behind it, so the order of the calls is always the order of the log. It waits there, too,
//! while the leader has no lease, which openraft refuses, for as long as an election takes. What is in openraft's queue
//! when the lease runs out is still refused.
//!
//! Bounds: entries and bytes that are proposed and not yet applied. At the bound a proposal is refused, so memory
//! never grows with a slow disk or a slow follower.

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::Poll,
};

use bytes::Bytes;
use openraft::{
    ReadPolicy,
    async_runtime::WatchReceiver,
    errors::{ClientWriteError, Fatal, ForwardReason},
    raft::ClientWriteResult,
};
use parking_lot::Mutex;
use rustydb_env::{Bug, Instant, ambient, sync::Signal};
use rustydb_types::ids::{NodeId, Term};
use tokio::sync::Notify;

use crate::{
    codec,
    config::ConsensusConfig,
    group::RaftHandle,
    runtime::{BoxFuture, poll_once},
    type_config::{Answer, Command, CommittedLeaderId, TypeConfig},
};

/// Why a proposal is not in the log, or may not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead in the term of the proposal; the entry is not in the log.
    #[error("not the leader of term {term}")]
    NotLeader {
        /// The term of the proposal.
        term: Term,
    },
    /// Refused before it reached the log: the lease has run out and was not renewed for as long as an election takes, or
    /// leadership is being handed over.
    #[error("refused before it reached the log")]
    Refused,
    /// Too much is proposed and not applied; the entry is not in the log.
    #[error("too much in flight")]
    Overloaded,
    /// The log's disk is full; the entry is not in the log.
    #[error("the disk of the log is full")]
    DiskFull,
    /// The entry may or may not become part of the log.
    #[error("the fate of the proposal is unknown")]
    Unknown,
}

/// Told once what became of a proposal: `Ok` when it is applied.
pub type ProposalDone = Box<dyn FnOnce(Result<(), ProposeError>) + Send>;

/// An entry on its way to the log.
pub struct Proposal {
    /// The leadership it is bound to.
    pub term: Term,
    /// What is to be applied.
    pub entry: Bytes,
    /// Told what became of it; never within [`RaftProposer::propose`].
    pub done: ProposalDone,
}

/// How a read is made linearizable.
pub enum Linearize {
    /// The lease holds and everything that was acknowledged is applied here.
    Now,
    /// Wait for this first.
    Wait(BoxFuture<Result<(), ReadError>>),
}

/// Why a read cannot be made linearizable here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Another node leads, or none.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who does, if known.
        leader: Option<NodeId>,
    },
    /// No majority answered in time.
    #[error("no majority answered in time")]
    NoQuorum,
    /// The group has stopped.
    #[error("the group has stopped")]
    Stopped,
}

/// Work that could not be done in the caller's thread.
enum Delayed {
    /// A proposal that openraft's queue had no room for, or that waits for the lease, and since when.
    Write(BoxFuture<Result<(), Fatal<TypeConfig>>>, Instant),
    /// A proposal that openraft dropped while it was handed over.
    Dropped(ProposalDone),
}

/// Proposes entries of one group.
pub struct RaftProposer {
    raft: OnceLock<RaftHandle>,
    entries_max: usize,
    bytes_max: usize,
    entries: AtomicUsize,
    bytes: AtomicUsize,
    /// Held while a proposal is handed over, which keeps the order.
    backlog: Mutex<VecDeque<Delayed>>,
    /// Whether nobody looks after the backlog any more. Changed while it is held.
    has_stopped: AtomicBool,
    work: Notify,
    /// The last term in which a transfer of leadership was begun: its lease is not trusted any more.
    transferred: AtomicU64,
}

/// What a proposal occupies, given back when it is dropped.
struct Room {
    proposer: Arc<RaftProposer>,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.proposer.entries.fetch_sub(1, Ordering::AcqRel);
        self.proposer.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl RaftProposer {
    pub(crate) fn new(config: &ConsensusConfig) -> Arc<Self> {
        Arc::new(Self {
            raft: OnceLock::new(),
            entries_max: config.uncommitted_entries_max,
            bytes_max: config.uncommitted_bytes_max,
            entries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            backlog: Mutex::new(VecDeque::new()),
            has_stopped: AtomicBool::new(false),
            work: Notify::new(),
            transferred: AtomicU64::new(u64::MAX),
        })
    }

    /// From here on proposals are taken.
    pub(crate) fn attach(&self, raft: RaftHandle) {
        // A group is started once; a second attachment would be the same group.
        let _again = self.raft.set(raft);
    }

    /// From here on reads of this term ask a majority: voters may break its lease on the leader's own word.
    pub(crate) fn distrust_lease(&self, term: Term) {
        self.transferred.store(term.get(), Ordering::Release);
    }

    /// Entries that are proposed here and not yet applied.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.entries.load(Ordering::Acquire)
    }

    fn occupy(self: &Arc<Self>, bytes: usize) -> Result<Room, ProposeError> {
        let entries = self.entries.fetch_add(1, Ordering::AcqRel) + 1;
        let total = self.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        let room = Room { proposer: self.clone(), bytes };
        // One proposal always fits, whatever its size.
        if entries > self.entries_max || (entries > 1 && total > self.bytes_max) {
            return Err(ProposeError::Overloaded);
        }
        Ok(room)
    }

    /// Takes an entry. Never blocks, and never calls `done` before it returns.
    ///
    /// # Errors
    /// The entry is refused at once and is not in the log; `done` is never called.
    pub fn propose(self: &Arc<Self>, proposal: Proposal) -> Result<(), ProposeError> {
        let Proposal { term, entry, done } = proposal;
        let Some(raft) = self.raft.get() else { return Err(ProposeError::NotLeader { term }) };
        if raft.log_is_full() {
            return Err(ProposeError::DiskFull);
        }
        let room = self.occupy(entry.len())?;
        let command = Command::from_body(codec::encode_command(&entry));
        let proposer = Arc::downgrade(self);
        let answer = Answer::new(move |result: Option<ClientWriteResult<TypeConfig>>| {
            // First, so that whoever hears of the result finds the room free.
            drop(room);
            match result {
                Some(result) => done(outcome(term, result)),
                // openraft stopped. This may run inside of `propose`, under the sequencer's lock.
                None => match proposer.upgrade() {
                    Some(proposer) => proposer.delay_dropped(done),
                    None => done(Err(ProposeError::Unknown)),
                },
            }
        });
        let openraft = raft.raft().clone();
        let mut write: BoxFuture<Result<(), Fatal<TypeConfig>>> = Box::pin(async move {
            let leader = CommittedLeaderId::new(term.get());
            openraft.write(command).responder(answer).with_leader(leader).await
        });
        let mut backlog = self.backlog.lock();
        if backlog.is_empty() && (may_write(raft) || self.has_stopped.load(Ordering::Acquire)) {
            // Ready unless the queue is full: the message is in openraft's queue.
            let polled = poll_once(&mut write);
            if let Poll::Ready(_taken_or_stopped) = polled {
                return Ok(());
            }
        }
        if self.has_stopped.load(Ordering::Acquire) {
            // What it was to be told goes with it.
            drop(backlog);
            drop(write);
            return Ok(());
        }
        backlog.push_back(Delayed::Write(write, ambient::now()));
        drop(backlog);
        self.work.notify_one();
        Ok(())
    }

    fn delay_dropped(&self, done: ProposalDone) {
        // `propose` may hold the backlog at this moment, in this thread: then the pump is not needed to keep order,
        // since a proposal that was dropped has no place in it.
        match self.backlog.try_lock() {
            Some(mut backlog) if !self.has_stopped.load(Ordering::Acquire) => {
                backlog.push_back(Delayed::Dropped(done));
                drop(backlog);
                self.work.notify_one();
            }
            _ => {
                ambient::spawn("dropped proposal", async move { done(Err(ProposeError::Unknown)) });
            }
        }
    }

    /// Brings the backlog into openraft's queue, in order, until the group stops.
    pub(crate) async fn pump(self: Arc<Self>, stopping: Signal) {
        let mut last = false;
        while !last {
            // Cancel-safe. What is left at the end is answered: openraft has stopped by then and refuses it.
            last = tokio::select! {
                biased;
                () = self.work.notified() => false,
                () = stopping.wait() => true,
            };
            loop {
                // The one in work stays at the front, as a mark that later ones must queue behind it.
                let next = {
                    let mut backlog = self.backlog.lock();
                    match backlog.front_mut() {
                        None => {
                            self.has_stopped.store(last, Ordering::Release);
                            break;
                        }
                        Some(Delayed::Write(write, since)) => {
                            let parked: BoxFuture<_> = Box::pin(std::future::pending());
                            Delayed::Write(std::mem::replace(write, parked), *since)
                        }
                        Some(Delayed::Dropped(_)) => match backlog.pop_front() {
                            Some(dropped) => dropped,
                            None => break,
                        },
                    }
                };
                match next {
                    Delayed::Dropped(done) => done(Err(ProposeError::Unknown)),
                    Delayed::Write(write, since) => {
                        if let Some(raft) = self.raft.get() {
                            // Cancel-safe. What is left when the group stops is answered by openraft.
                            tokio::select! {
                                biased;
                                () = stopping.wait() => {}
                                () = wait_to_write(raft, since) => {}
                            }
                        }
                        // An error means that openraft stopped; its answer has told the proposer.
                        let _stopped = write.await;
                        self.backlog.lock().pop_front();
                    }
                }
            }
        }
    }

    /// What a read has to wait for.
    #[must_use]
    pub fn linearize(self: &Arc<Self>) -> Linearize {
        let Some(raft) = self.raft.get() else {
            return Linearize::Wait(Box::pin(async { Err(ReadError::NotLeader { leader: None }) }));
        };
        if self.lease_holds(raft) {
            return Linearize::Now;
        }
        let raft = raft.clone();
        Linearize::Wait(Box::pin(async move { raft.read_index().await }))
    }

    /// Whether this node leads, by a lease that still runs, and has applied its own term's blank entry, and with it
    /// everything that was ever acknowledged by an earlier leader. What it acknowledged itself is applied here.
    fn lease_holds(&self, raft: &RaftHandle) -> bool {
        let metrics = raft.raft().metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state != openraft::ServerState::Leader
            || metrics.last_applied.map(|last| last.leader_id.term) != Some(metrics.current_term)
                && !ambient::has_bug(Bug::LeaseBeforeApplied)
            || self.transferred.load(Ordering::Acquire) == metrics.current_term
                && !ambient::has_bug(Bug::LeaseAfterTransfer)
        {
            return false;
        }
        let voters = metrics.membership_config.get_joint_config();
        // A leader that is being removed hands over by itself.
        if !voters.iter().all(|voters| voters.contains(&metrics.id)) {
            return false;
        }
        if voters.iter().all(|voters| voters.len() == 1) {
            return true;
        }
        ambient::has_bug(Bug::LeaseOutlived)
            || raft.acknowledged(&metrics).is_some_and(|at| ambient::now() < at + raft.config().read_lease())
    }
}

/// Whether openraft takes a proposal now or says for good why not. It refuses what comes when the lease has run out, as it
/// does after a moment in which the whole node or its disk stood still, although the next heartbeat renews the lease.
fn may_write(raft: &RaftHandle) -> bool {
    let metrics = raft.raft().metrics();
    let metrics = metrics.borrow_watched();
    let voters = metrics.membership_config.get_joint_config();
    metrics.state != openraft::ServerState::Leader
        || voters.iter().all(|voters| voters.len() == 1)
        || metrics
            .last_quorum_acked
            .is_some_and(|acked| ambient::now() < acked.into_inner().0 + raft.config().leader_lease())
}

/// Waits until openraft takes a proposal or says for good why not, but no longer than the others need to elect another
/// leader.
async fn wait_to_write(raft: &RaftHandle, since: Instant) {
    let mut metrics = raft.raft().metrics();
    let until = since + raft.config().election_timeout_max * 2;
    while !may_write(raft) {
        match ambient::timeout_at(until, metrics.changed()).await {
            Ok(Ok(())) => {}
            // openraft has stopped, or it is late.
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// What openraft's answer means for a proposal.
fn outcome(term: Term, result: ClientWriteResult<TypeConfig>) -> Result<(), ProposeError> {
    match result {
        Ok(_) => Ok(()),
        Err(ClientWriteError::ForwardToLeader(forward)) => Err(match forward.reason {
            ForwardReason::NotLeader => ProposeError::NotLeader { term },
            ForwardReason::LeadershipTransfer | ForwardReason::LeaseExpired => ProposeError::Refused,
        }),
        Err(ClientWriteError::LogEntryDiscarded(_)) => Err(ProposeError::Unknown),
        // Neither is possible for a command; if one came, the entry was not appended.
        Err(ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_)) => {
            Err(ProposeError::Refused)
        }
    }
}

/// The policy of a read that asks a majority.
pub(crate) const READ_INDEX: ReadPolicy = ReadPolicy::ReadIndex;
