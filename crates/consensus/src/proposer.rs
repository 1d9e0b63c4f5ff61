//! Proposals of one group, in the order of the calls, bound to a leadership.
//!
//! ```text
//!  sequencer ── propose ──► openraft's queue              (nothing is on its way: no task between)
//!                  └──────► held ── answer, pump ──► queue
//! ```
//!
//! A proposal is handed to openraft at once, in the caller's thread, when none is on its way. While one is, later
//! ones are held, and go together when it is answered, or after [`HELD_FOR`], whichever comes first. So one client
//! alone waits for nothing, while many share each append, each message to the followers and each sync: the work per
//! round is what a commit costs. The cap keeps a round over a long distance from adding its length to a commit.
//! What openraft's queue has no room for stays held. Later ones queue behind, so the order of the calls is always
//! the order of the log.
//!
//! Bounds: entries and bytes that are proposed and not yet applied. At the bound a proposal is refused, so memory
//! never grows with a slow disk or a slow follower.

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use openraft::{
    ReadPolicy,
    async_runtime::WatchReceiver,
    errors::{ClientWriteError, Fatal, ForwardReason},
    raft::ClientWriteResult,
};
use parking_lot::Mutex;
use rustydb_env::{ambient, sync::Signal};
use rustydb_types::ids::{NodeId, Term};
use tokio::sync::Notify;

use crate::{
    codec,
    config::ConsensusConfig,
    group::RaftHandle,
    runtime::{BoxFuture, Instant, poll_once},
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
    /// Refused before it reached the log: the lease has run out, or leadership is being handed over.
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

/// The longest that a proposal is held so that it can share a round with others.
pub const HELD_FOR: Duration = Duration::from_millis(3);

/// Hands a proposal to openraft.
type Write = BoxFuture<Result<(), Fatal<TypeConfig>>>;

/// What is not done in the caller's thread.
enum Held {
    /// A proposal that is not handed over yet.
    Write(Write),
    /// The pump waits until openraft's queue has room for this one.
    InPump,
    /// A proposal that openraft dropped while it was handed over.
    Dropped(ProposalDone),
}

/// Proposals before openraft, under the lock that keeps their order.
#[derive(Default)]
struct Queue {
    held: VecDeque<Held>,
    /// Handed over and not answered.
    unanswered: usize,
}

impl Queue {
    /// Hands over what openraft has room for.
    fn hand_over(&mut self) {
        while let Some(Held::Write(write)) = self.held.front_mut() {
            // Ready unless the queue is full, or openraft has stopped, which the answer tells.
            let Poll::Ready(_taken_or_stopped) = poll_once(write) else { return };
            self.held.pop_front();
            self.unanswered += 1;
        }
    }
}

/// Proposes entries of one group.
pub struct RaftProposer {
    raft: OnceLock<RaftHandle>,
    entries_max: usize,
    bytes_max: usize,
    entries: AtomicUsize,
    bytes: AtomicUsize,
    /// Locked while a proposal is handed over, which keeps the order.
    queue: Mutex<Queue>,
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
            queue: Mutex::default(),
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
            let proposer = proposer.upgrade();
            match (result, proposer) {
                (Some(result), proposer) => {
                    done(outcome(term, result));
                    if let Some(proposer) = proposer {
                        proposer.answered();
                    }
                }
                // openraft stopped. This may run inside of `propose`, under the sequencer's lock.
                (None, Some(proposer)) => proposer.dropped(done),
                (None, None) => done(Err(ProposeError::Unknown)),
            }
        });
        let raft = raft.clone();
        let write: Write = Box::pin(async move {
            let leader = CommittedLeaderId::new(term.get());
            raft.raft().write(command).responder(answer).with_leader(leader).await
        });
        let mut queue = self.queue.lock();
        let first = queue.held.is_empty();
        queue.held.push_back(Held::Write(write));
        if first && queue.unanswered == 0 {
            queue.hand_over();
        }
        let wake = first && !queue.held.is_empty();
        drop(queue);
        if wake {
            self.work.notify_one();
        }
        Ok(())
    }

    /// openraft answered one; with the last one the next round begins.
    fn answered(&self) {
        let mut queue = self.queue.lock();
        queue.unanswered = queue.unanswered.saturating_sub(1);
        if queue.unanswered == 0 {
            queue.hand_over();
        }
    }

    fn dropped(self: &Arc<Self>, done: ProposalDone) {
        // Whoever hands over holds the queue at this moment, maybe in this thread: then the pump is not needed to
        // keep order, since a proposal that was dropped has no place in it.
        match self.queue.try_lock() {
            Some(mut queue) => {
                queue.held.push_back(Held::Dropped(done));
                drop(queue);
                self.work.notify_one();
            }
            None => {
                let proposer = self.clone();
                ambient::spawn("dropped proposal", async move {
                    done(Err(ProposeError::Unknown));
                    proposer.answered();
                });
            }
        }
    }

    /// Hands over what was held for long enough, in order, until the group stops.
    pub(crate) async fn pump(self: Arc<Self>, stopping: Signal) {
        let mut last = false;
        while !last {
            // Cancel-safe. What is left at the end is answered: openraft has stopped by then and refuses it.
            last = tokio::select! {
                biased;
                () = self.work.notified() => false,
                () = stopping.wait() => true,
            };
            while !self.queue.lock().held.is_empty() {
                if !last {
                    ambient::sleep(HELD_FOR).await;
                }
                self.hand_over_all().await;
            }
        }
    }

    async fn hand_over_all(&self) {
        loop {
            // The one in work leaves a mark at the front, so that later ones queue behind it.
            let next = {
                let mut queue = self.queue.lock();
                queue.hand_over();
                let Some(front) = queue.held.front_mut() else { return };
                let next = std::mem::replace(front, Held::InPump);
                // Before it is handed over: the answer may be there first.
                queue.unanswered += usize::from(matches!(next, Held::Write(_)));
                next
            };
            match next {
                Held::Dropped(done) => {
                    done(Err(ProposeError::Unknown));
                    self.answered();
                }
                Held::Write(write) => {
                    // An error means that openraft stopped; its answer has told the proposer.
                    let _stopped = write.await;
                }
                Held::InPump => (),
            }
            self.queue.lock().held.pop_front();
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
            || self.transferred.load(Ordering::Acquire) == metrics.current_term
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
        metrics.last_quorum_acked.is_some_and(|acked| {
            let acked: Instant = *acked;
            ambient::now() < acked.0 + raft.config().read_lease()
        })
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
