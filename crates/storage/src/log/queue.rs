//! What submitters and the log thread share: the groups, the queue and the open files, under one short lock.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use rustydb_env::sync::{Signal, watch};
use rustydb_env::{Env, File};
use rustydb_types::ids::{GroupId, LogIndex};
use rustydb_types::position::LogPosition;

use super::config::LogConfig;
use super::end::{EndMark, Reached};
use super::error::LogError;
use super::group::{Cached, GroupState};
use super::handle::Completion;
use super::segment::{SegmentId, SegmentSeed};
use super::space::Spares;

/// What a group asked for.
pub(super) enum Request {
    /// Entries that follow each other.
    Append(Vec<Cached>),
    /// Its vote.
    Vote(Bytes),
    /// Its committed position; waits for no sync of its own.
    Committed(Bytes),
    /// Entries behind an index go.
    Truncate(Option<LogIndex>),
    /// Entries up to a position go.
    Purge(LogPosition, Bytes),
    /// The group goes.
    Remove,
    /// Nothing is written; the answer keeps its place in the order.
    Answer(Result<(), LogError>),
}

/// Committed positions that may wait in the queue for a write of something else.
pub(super) const COMMITTED_WAITING_MAX: usize = 64;

/// A request in the queue.
pub(super) struct Submission {
    pub(super) group: GroupId,
    pub(super) request: Request,
    pub(super) size_bytes: usize,
    pub(super) done: Option<Completion>,
}

/// A segment that is open for reading.
#[derive(Clone, Debug)]
pub(super) struct OpenSegment {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    pub(super) seed: SegmentSeed,
    pub(super) size_bytes: u64,
}

/// One entry of the cache, in the order in which entries came.
struct CacheSlot {
    group: GroupId,
    index: LogIndex,
    ordinal: u64,
    size_bytes: usize,
}

/// Everything under the lock.
#[derive(Default)]
pub(super) struct State {
    pub(super) groups: BTreeMap<GroupId, GroupState>,
    pub(super) segments: BTreeMap<SegmentId, OpenSegment>,
    pub(super) poisoned: Option<LogError>,
    queue: VecDeque<Submission>,
    queued_bytes: usize,
    /// Requests in the queue that somebody waits for: all but committed positions.
    urgent: usize,
    writer: Option<Waker>,
    closed: bool,
    next_ordinal: u64,
    cache: VecDeque<CacheSlot>,
    cache_bytes: usize,
}

/// Shared by the handles and the log thread.
pub(super) struct Shared {
    pub(super) env: Env,
    pub(super) dir: PathBuf,
    pub(super) config: LogConfig,
    pub(super) state: Mutex<State>,
    pub(super) spares: Spares,
    /// How far the log is durable.
    pub(super) end: EndMark,
    /// Set while there is no room for more entries.
    pub(super) full: AtomicBool,
    /// Set while the log thread waits for room.
    starved: AtomicBool,
    /// Set when the log is poisoned.
    pub(super) failed: Signal,
    /// Set when the log thread has ended and the folder is free again.
    pub(super) ended: Signal,
    /// True while the queue is below its bound.
    pub(super) open: watch::Sender<bool>,
}

impl State {
    /// What recovery found.
    pub(super) fn new(
        groups: BTreeMap<GroupId, GroupState>,
        segments: BTreeMap<SegmentId, OpenSegment>,
    ) -> Self {
        Self { groups, segments, ..Self::default() }
    }

    /// Numbers an entry.
    pub(super) const fn ordinal(&mut self) -> u64 {
        self.next_ordinal += 1;
        self.next_ordinal
    }

    /// Whether the log thread has something to do. Committed positions alone are worth no wake-up and no write:
    /// they go with the next request, and a crash may bring an older one back anyway.
    fn is_due(&self) -> bool {
        self.urgent > 0 || self.queue.len() > if self.closed { 0 } else { COMMITTED_WAITING_MAX }
    }

    pub(super) const fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Counts an entry that is now in its group's tail.
    pub(super) fn count_cached(&mut self, group: GroupId, cached: &Cached) {
        let size_bytes = cached.entry.body.len() + size_of::<Cached>();
        self.cache_bytes += size_bytes;
        let (index, ordinal) = (cached.entry.index, cached.ordinal);
        self.cache.push_back(CacheSlot { group, index, ordinal, size_bytes });
    }

    /// Drops the oldest written entries from memory until the budget is kept.
    pub(super) fn evict(&mut self, budget_bytes: usize) {
        while self.cache_bytes > budget_bytes {
            let Some(slot) = self.cache.front() else { return };
            if let Some(group) = self.groups.get_mut(&slot.group) {
                if group.is_unwritten(slot.index, slot.ordinal) {
                    return;
                }
                group.evict(slot.index, slot.ordinal);
            }
            self.cache_bytes -= slot.size_bytes;
            self.cache.pop_front();
        }
    }
}

impl Shared {
    /// Of a log that is durable up to `reached`.
    pub(super) fn new(
        env: &Env,
        dir: PathBuf,
        config: LogConfig,
        state: State,
        spares: Spares,
        reached: Reached,
    ) -> Self {
        let (open, _) = watch::channel(true);
        let end = EndMark::new(&dir, reached);
        Self {
            env: env.clone(),
            dir,
            config,
            state: Mutex::new(state),
            spares,
            end,
            full: AtomicBool::new(false),
            starved: AtomicBool::new(false),
            failed: Signal::default(),
            ended: Signal::default(),
            open,
        }
    }

    /// Puts a request in the queue. `prepare` makes it under the lock, so that the order of the queue is the
    /// order in which groups changed.
    pub(super) fn submit(
        &self,
        group: GroupId,
        done: Option<Completion>,
        prepare: impl FnOnce(&mut State) -> Request,
    ) {
        let (writer, closed) = {
            let mut state = self.state.lock();
            if state.closed {
                (None, done)
            } else {
                let request = match state.poisoned.clone() {
                    Some(error) => Request::Answer(Err(error)),
                    None => prepare(&mut state),
                };
                let size_bytes = request.size_bytes();
                state.urgent += usize::from(!matches!(request, Request::Committed(_)));
                state.queued_bytes += size_bytes;
                if state.queued_bytes >= self.config.queue_bytes_max {
                    self.open.send_if_modified(|open| std::mem::replace(open, false));
                }
                state.queue.push_back(Submission { group, request, size_bytes, done });
                (state.is_due().then(|| state.writer.take()).flatten(), None)
            }
        };
        if let Some(writer) = writer {
            writer.wake();
        }
        // After the end of the log thread nobody else is left to answer.
        if let Some(done) = closed {
            done(Err(LogError::Closed));
        }
    }

    /// Waits for requests and takes as many as fit in one write; `None` when the log is closed and all is done.
    pub(super) async fn next_batch(&self) -> Option<Vec<Submission>> {
        poll_fn(|cx| {
            let mut state = self.state.lock();
            if !state.is_due() {
                if state.closed {
                    return Poll::Ready(None);
                }
                state.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let mut batch = Vec::new();
            let mut batch_bytes = 0;
            while let Some(next) = state.queue.front() {
                if !batch.is_empty() && batch_bytes + next.size_bytes > self.config.batch_bytes_max {
                    break;
                }
                batch_bytes += next.size_bytes;
                state.urgent -= usize::from(!matches!(next.request, Request::Committed(_)));
                batch.extend(state.queue.pop_front());
            }
            Poll::Ready(Some(batch))
        })
        .await
    }

    /// A batch is written; its bytes no longer count against the bound.
    pub(super) fn release(&self, batch_bytes: usize) {
        let mut state = self.state.lock();
        state.queued_bytes = state.queued_bytes.saturating_sub(batch_bytes);
        state.evict(self.config.tail_cache_bytes);
        if state.queued_bytes < self.config.queue_bytes_max {
            self.open.send_if_modified(|open| !std::mem::replace(open, true));
        }
    }

    /// No more requests are taken; the log thread ends when the queue is empty.
    pub(super) fn close(&self) {
        let writer = {
            let mut state = self.state.lock();
            state.closed = true;
            state.writer.take()
        };
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Whether no more requests are taken.
    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Notes whether the log thread waits for room.
    pub(super) fn set_starved(&self, starved: bool) {
        self.starved.store(starved, Ordering::Release);
        self.check_space();
    }

    /// Whether there is no room for more entries. Looks again each time while they are, so that space freed
    /// by anyone is noticed.
    pub(super) fn is_full(&self) -> bool {
        if !self.full.load(Ordering::Acquire) {
            return false;
        }
        self.check_space();
        self.full.load(Ordering::Acquire)
    }

    /// Compares the free space with the reserve. Without a spare segment the next one must fit as well.
    pub(super) fn check_space(&self) {
        // A file system that cannot say how much is free is taken to have room; a write will tell.
        let available = self.env.disk().available_bytes(&self.dir).unwrap_or(u64::MAX);
        let segment_bytes = if self.spares.is_short() { u64::from(self.config.segment_bytes) } else { 0 };
        let reserve = self.config.reserve_bytes.max(segment_bytes);
        let full = available < reserve || self.starved.load(Ordering::Acquire);
        if self.full.swap(full, Ordering::AcqRel) != full {
            if full {
                tracing::warn!(available, reserve, "log: the disk is full, writes are refused");
            } else {
                tracing::info!(available, "log: the disk has room again");
                self.spares.poke();
            }
        }
    }
}

impl Request {
    /// About how much of a write and of the queue's bound it takes.
    fn size_bytes(&self) -> usize {
        const OVERHEAD_BYTES: usize = 64;
        match self {
            Self::Append(entries) => {
                entries.iter().map(|cached| cached.entry.body.len() + OVERHEAD_BYTES).sum()
            }
            Self::Vote(opaque) | Self::Committed(opaque) | Self::Purge(_, opaque) => {
                opaque.len() + OVERHEAD_BYTES
            }
            Self::Truncate(_) | Self::Remove | Self::Answer(_) => OVERHEAD_BYTES,
        }
    }
}
