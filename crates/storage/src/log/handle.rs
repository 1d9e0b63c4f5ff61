//! The log as its users see it.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustydb_env::Env;
use rustydb_types::ids::{GroupId, LogIndex, Term};
use rustydb_types::position::LogPosition;

use super::config::LogConfig;
use super::error::LogError;
use super::frame;
use super::group::{Cached, GroupState, Location};
use super::queue::{OpenSegment, Request, Shared};
use super::record::{ENTRY_PREFIX_BYTES, Record};
use super::segment::SegmentId;
use super::view::GroupLogView;
use super::{end, recovery, space, writer};

/// Called once with the result, on the log thread: keep it short, hand work on to a task.
///
/// Called in the order of submission over all groups; with `Ok` only after the sync that makes it durable.
pub type Completion = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// An entry of a group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place.
    pub index: LogIndex,
    /// The term in which it was proposed.
    pub term: Term,
    /// What it says; opaque to the log.
    pub body: Bytes,
}

/// What a group is, apart from its entries. Includes what is submitted and not yet durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupLogState {
    /// The last vote saved.
    pub vote: Option<Bytes>,
    /// The last committed position saved.
    pub committed: Option<Bytes>,
    /// Up to where entries are purged, and what was given with that.
    pub purged: Option<(LogPosition, Bytes)>,
    /// The last entry, or the end of the purge if there is none.
    pub last: Option<LogPosition>,
}

/// What the log says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Segment files that hold entries, the open one included.
    pub segment_count: usize,
    /// Bytes of those files.
    pub segment_bytes: u64,
    /// Bytes submitted and not yet written.
    pub queued_bytes: usize,
    /// Whether appends are refused for want of space.
    pub full: bool,
    /// The group that keeps the oldest segment from being retired: flush and purge that one.
    pub oldest_group: Option<GroupId>,
}

/// The log of a node. Cheap to clone; closed when the last handle is dropped.
#[derive(Clone)]
pub struct Log {
    handle: Arc<Handle>,
}

/// Closes the log when nobody can submit any more.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("dir", &self.handle.shared.dir).finish_non_exhaustive()
    }
}

impl Log {
    /// Whether a folder has a log in it, whatever it is like.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub(super) fn is_in(env: &Env, dir: &Path) -> Result<bool, LogError> {
        match env.disk().list(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(LogError::io(dir, error)),
            Ok(paths) => Ok(paths.iter().any(|path| SegmentId::of_path(path).is_some())),
        }
    }

    /// Opens the log in a folder, creating it if absent, and recovers what it holds. Blocks while reading.
    ///
    /// # Errors
    /// [`LogError::Locked`] when another process uses the folder, [`LogError::Corrupt`] when the files are not
    /// what was written, [`LogError::UnknownFormat`] for files of a later program; any error of the device.
    pub fn open(env: &Env, dir: &Path, config: LogConfig) -> Result<Self, LogError> {
        let (shared, log_writer) = recovery::open(env, dir, config)?;
        let shared = Arc::new(shared);
        shared.check_space();
        // All end with the log, and `close` waits for the writer, which is the one that matters.
        drop(env.spawn_dedicated("log", writer::run(log_writer, Arc::clone(&shared))));
        drop(env.spawn_dedicated("log-space", space::run(Arc::clone(&shared))));
        drop(env.spawn_dedicated("log-end", end::run(Arc::clone(&shared))));
        Ok(Self { handle: Arc::new(Handle { shared }) })
    }

    /// The log of one group. A group exists from its first submission.
    #[must_use]
    pub fn group(&self, group: GroupId) -> GroupLog {
        GroupLog { group, handle: Arc::clone(&self.handle) }
    }

    /// The groups of which anything is recorded, in order.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupId> {
        self.handle.shared.state.lock().groups.keys().copied().collect()
    }

    /// Forgets a group, durably when `done` is called.
    pub fn remove_group(&self, group: GroupId, done: Completion) {
        self.handle.shared.submit(group, Some(done), |state| {
            state.groups.remove(&group);
            Request::Remove
        });
    }

    /// Whether less than the reserve is free: refuse proposals before they are appended anywhere, and hand leadership
    /// over. The log itself takes appends still, into the reserve, and waits when that is used up.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.handle.shared.is_full()
    }

    /// Whether entries of a leader with room are taken: into what is allocated ahead, even while the log is full, as
    /// long as a spare segment is left for what must not wait.
    #[must_use]
    pub fn takes_entries(&self) -> bool {
        let shared = &self.handle.shared;
        !shared.is_full() || !shared.spares.is_short()
    }

    /// Looks how much space is free. The log looks by itself only while it is written to.
    pub fn check_space(&self) {
        self.handle.shared.check_space();
    }

    /// Sizes and bounds.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        let full = self.is_full();
        let state = self.handle.shared.state.lock();
        let oldest = state
            .groups
            .iter()
            .filter_map(|(id, group)| group.location(group.first()).map(|location| (location.segment, *id)));
        LogStats {
            segment_count: state.segments.len(),
            segment_bytes: state.segments.values().map(|segment| segment.size_bytes).sum(),
            queued_bytes: state.queued_bytes(),
            full,
            oldest_group: oldest.min().map(|(_, id)| id),
        }
    }

    /// Ends when a write or sync has failed, with the error: stop the node then. Never ends while all is well.
    ///
    /// Cancel-safe. Holds the log open.
    pub async fn failed(&self) -> LogError {
        let shared = &self.handle.shared;
        shared.failed.wait().await;
        shared.state.lock().poisoned.clone().unwrap_or(LogError::Closed)
    }

    /// Takes no more submissions, waits until all before are written and the folder is free for another process.
    pub async fn close(&self) {
        self.handle.shared.close();
        self.handle.shared.ended.wait().await;
    }
}

/// The log of one group. Cheap to clone.
#[derive(Clone)]
pub struct GroupLog {
    group: GroupId,
    handle: Arc<Handle>,
}

impl fmt::Debug for GroupLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupLog").field("group", &self.group).finish_non_exhaustive()
    }
}

impl GroupLog {
    /// Which group.
    #[must_use]
    pub const fn id(&self) -> GroupId {
        self.group
    }

    /// What the group is. Includes what is submitted and not yet durable.
    #[must_use]
    pub fn state(&self) -> GroupLogState {
        let state = self.handle.shared.state.lock();
        state.groups.get(&self.group).map_or_else(GroupLogState::default, |group| GroupLogState {
            vote: group.points.vote.clone(),
            committed: group.points.committed.clone(),
            purged: group.points.purged.clone(),
            last: group.points.last,
        })
    }

    /// The positions of its entries, and how far they are durable.
    #[must_use]
    pub fn view(&self) -> GroupLogView {
        let state = self.handle.shared.state.lock();
        let is_poisoned = state.poisoned.is_some();
        let view = state.groups.get(&self.group).map(|group| group.view(is_poisoned));
        view.unwrap_or_else(|| GroupLogView { is_poisoned, ..GroupLogView::default() })
    }

    /// The entries in memory, of those from an index on.
    #[must_use]
    pub fn recent(&self, from: LogIndex) -> Vec<LogEntry> {
        let state = self.handle.shared.state.lock();
        state.groups.get(&self.group).map_or_else(Vec::new, |group| group.recent(from))
    }

    /// The index of the first entry; of the next one if there is none.
    #[must_use]
    pub fn first_index(&self) -> LogIndex {
        self.handle.shared.state.lock().groups.get(&self.group).map_or(LogIndex::new(0), GroupState::first)
    }

    /// The last entry of the group that lies at least `kept_bytes` behind the end of the whole log, segment by segment:
    /// as long as it is not purged, the log stays longer than that.
    #[must_use]
    pub fn last_behind(&self, kept_bytes: u64) -> Option<LogIndex> {
        let state = self.handle.shared.state.lock();
        let mut size_bytes = 0;
        let kept = state.segments.iter().rev().find(|(_, segment)| {
            size_bytes += segment.size_bytes;
            size_bytes >= kept_bytes
        });
        let (oldest_kept, _) = kept?;
        state.groups.get(&self.group)?.last_before(*oldest_kept)
    }

    /// Ends at once while the queue is below its bound, else when it is again. Await it before an append: it is
    /// the back-pressure. Without it nothing blocks and nothing deadlocks, but beyond four times the bound
    /// appends are refused.
    ///
    /// Cancel-safe.
    pub async fn ready(&self) {
        // The sender lives in what this handle holds, so the watch cannot be closed.
        let _open = self.handle.shared.open.subscribe().wait_for(|open| *open).await;
    }

    /// Adds entries behind the last. They can be read at once; they are durable when `done` is called with `Ok`.
    ///
    /// Entries are taken while the log is full too: they go into the reserve, and wait when that is used up, with all
    /// that is submitted after them. So whoever may still refuse asks [`Log::is_full`] first.
    ///
    /// `done` gets [`LogError::Gap`], [`LogError::TooLarge`] or [`LogError::Overloaded`] when nothing of it was
    /// written, [`LogError::DiskFull`] also, when the log was closed while it waited for room;
    /// [`LogError::Poisoned`] when what was written is unknown.
    pub fn append(&self, entries: Vec<LogEntry>, done: Completion) {
        let shared = &self.handle.shared;
        shared.submit(self.group, Some(done), |state| {
            let queued_bytes = state.queued_bytes();
            if queued_bytes >= shared.config.queue_bytes_max.saturating_mul(4) {
                return Request::Answer(Err(LogError::Overloaded { queued_bytes }));
            }
            let expected = state.groups.get(&self.group).and_then(GroupState::expected);
            if let Err(error) = check(self.group, expected, &entries, &shared.config) {
                return Request::Answer(Err(error));
            }
            let mut appended = Vec::with_capacity(entries.len());
            for entry in entries {
                let cached = Cached { ordinal: state.ordinal(), entry };
                state.count_cached(self.group, &cached);
                state.groups.entry(self.group).or_default().append(cached.ordinal, cached.entry.clone());
                appended.push(cached);
            }
            Request::Append(appended)
        });
    }

    /// Saves the vote, durable when `done` is called with `Ok`. Never refused for want of space.
    pub fn save_vote(&self, vote: Bytes, done: Completion) {
        self.handle.shared.submit(self.group, Some(done), |state| {
            state.groups.entry(self.group).or_default().points.vote = Some(vote.clone());
            Request::Vote(vote)
        });
    }

    /// Saves the committed position without a sync of its own: a crash may bring an older one back.
    pub fn save_committed(&self, committed: Bytes) {
        self.handle.shared.submit(self.group, None, |state| {
            state.groups.entry(self.group).or_default().points.committed = Some(committed.clone());
            Request::Committed(committed)
        });
    }

    /// Removes the entries behind `keep`; all of them for `None`.
    pub fn truncate_after(&self, keep: Option<LogIndex>, done: Completion) {
        self.handle.shared.submit(self.group, Some(done), |state| {
            state.groups.entry(self.group).or_default().truncate(keep);
            Request::Truncate(keep)
        });
    }

    /// Removes the entries up to `through`, which may lie behind the last one (after a snapshot was installed);
    /// `opaque` is kept with it. What is purged already stays purged.
    pub fn purge_through(&self, through: LogPosition, opaque: Bytes, done: Completion) {
        self.handle.shared.submit(self.group, Some(done), |state| {
            let group = state.groups.entry(self.group).or_default();
            if group.points.purged.as_ref().is_some_and(|(purged, _)| purged.index >= through.index) {
                return Request::Answer(Ok(()));
            }
            group.purge(through, opaque.clone());
            Request::Purge(through, opaque)
        });
    }

    /// The entries of a half-open range of indexes, cut off at the end of the log and after `max_bytes` of bodies,
    /// but at least one if there is one. Recent entries come from memory; older ones block on the disk.
    ///
    /// # Errors
    /// [`LogError::Purged`] when the range begins before the first entry, [`LogError::Corrupt`] when an entry on
    /// disk is not what was written.
    pub fn read(&self, range: Range<LogIndex>, max_bytes: usize) -> Result<Vec<LogEntry>, LogError> {
        let mut entries = Vec::new();
        let mut size_bytes = 0;
        let mut index = range.start;
        while index < range.end {
            let run = {
                let state = self.handle.shared.state.lock();
                let Some(group) = state.groups.get(&self.group) else { break };
                if index < group.first() {
                    let (first, asked) = (group.first(), index);
                    return Err(LogError::Purged { group: self.group, first, asked });
                }
                let end = range.end.min(group.next());
                while let Some(cached) = group.cached(index).filter(|_| index < end) {
                    if !entries.is_empty() && size_bytes + cached.entry.body.len() > max_bytes {
                        return Ok(entries);
                    }
                    size_bytes += cached.entry.body.len();
                    entries.push(cached.entry.clone());
                    index = index.next();
                }
                if index >= end {
                    break;
                }
                let budget = max_bytes.saturating_sub(size_bytes);
                run_on_disk(group, index..end, budget)
                    .and_then(|run| state.segments.get(&run.segment).cloned().map(|segment| (segment, run)))
            };
            // What is neither in memory nor on disk any more was purged or truncated since the lock was taken;
            // the next turn finds out.
            let Some((segment, run)) = run else { continue };
            match read_run(&segment, &run) {
                Ok(read) => {
                    for entry in read {
                        if !entries.is_empty() && size_bytes + entry.body.len() > max_bytes {
                            return Ok(entries);
                        }
                        size_bytes += entry.body.len();
                        index = entry.index.next();
                        entries.push(entry);
                    }
                }
                Err(error) => {
                    // A file that was retired under the reader is no corruption.
                    let state = self.handle.shared.state.lock();
                    let now = state.groups.get(&self.group).and_then(|group| group.location(index));
                    if now == run.locations.first().copied() {
                        return Err(error);
                    }
                }
            }
            if size_bytes >= max_bytes {
                break;
            }
        }
        Ok(entries)
    }
}

/// Whether entries may be appended.
fn check(
    group: GroupId,
    expected: Option<LogIndex>,
    entries: &[LogEntry],
    config: &LogConfig,
) -> Result<(), LogError> {
    let mut expected = expected;
    for entry in entries {
        if let Some(expected) = expected.filter(|expected| *expected != entry.index) {
            return Err(LogError::Gap { group, expected, found: entry.index });
        }
        expected = Some(entry.index.next());
        let (size_bytes, limit_bytes) = (entry.body.len(), config.entry_bytes_max());
        if size_bytes > limit_bytes {
            return Err(LogError::TooLarge { size_bytes, limit_bytes });
        }
    }
    Ok(())
}

/// Frames of one group that lie close together in one segment, read by one call.
struct Run {
    segment: super::segment::SegmentId,
    first: LogIndex,
    locations: Vec<Location>,
}

/// The longest gap of other groups' frames that is cheaper to read than to skip.
const READ_SPAN_BYTES: u32 = 1 << 20;

/// The frames that one read fetches from the start of a range.
fn run_on_disk(group: &GroupState, range: Range<LogIndex>, budget_bytes: usize) -> Option<Run> {
    let first = group.location(range.start)?;
    let mut run = Run { segment: first.segment, first: range.start, locations: vec![first] };
    let mut size_bytes = first.size as usize;
    let mut index = range.start.next();
    while index < range.end && size_bytes < budget_bytes {
        let Some(location) = group.location(index).filter(|location| location.segment == run.segment) else {
            break;
        };
        // A re-append after a truncation never lies before what it follows, so offsets only grow.
        if location.offset.saturating_add(location.size).saturating_sub(first.offset) > READ_SPAN_BYTES {
            break;
        }
        size_bytes += location.size as usize;
        run.locations.push(location);
        index = index.next();
    }
    Some(run)
}

/// Reads and checks the entries of a run.
fn read_run(segment: &OpenSegment, run: &Run) -> Result<Vec<LogEntry>, LogError> {
    let (Some(first), Some(last)) = (run.locations.first(), run.locations.last()) else {
        return Ok(Vec::new());
    };
    let span = last.offset.saturating_add(last.size).saturating_sub(first.offset);
    let mut buffer = vec![0u8; span as usize];
    let read = segment.file.read_at(u64::from(first.offset), &mut buffer);
    read.map_err(|error| LogError::io(&segment.path, error))?;
    let mut index = run.first;
    let mut entries = Vec::with_capacity(run.locations.len());
    for location in &run.locations {
        let start = location.offset.saturating_sub(first.offset) as usize;
        let rest = buffer.get(start..).unwrap_or_default();
        let frame = frame::decode(rest, segment.seed, u64::from(location.offset));
        let position = frame.as_ref().and_then(Record::decode).and_then(|record| match record {
            Record::Entry { position, .. } => Some(position),
            _ => None,
        });
        let Some((position, frame)) = position.zip(frame) else {
            return Err(corrupt(segment, *location, "an entry fails its checksum"));
        };
        if position.index != index {
            return Err(corrupt(segment, *location, "an entry has another index than was written there"));
        }
        let body = Bytes::from(frame.body).slice(ENTRY_PREFIX_BYTES..);
        entries.push(LogEntry { index, term: position.term, body });
        index = index.next();
    }
    Ok(entries)
}

fn corrupt(segment: &OpenSegment, location: Location, detail: &str) -> LogError {
    LogError::Corrupt {
        path: segment.path.clone(),
        offset: u64::from(location.offset),
        detail: detail.to_owned(),
    }
}
