//! The log thread: drain the queue, one write, one sync, answers in order; no linger.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustydb_env::{Bug, DiskLock, Env, File, OpenMode};
use rustydb_types::ids::{GroupId, LogIndex};
use rustydb_types::position::LogPosition;

use super::end::Reached;
use super::error::LogError;
use super::frame::{self, frame_size};
use super::group::{Cached, Location};
use super::handle::Completion;
use super::ledger::{GroupLedger, Ledger};
use super::queue::{OpenSegment, Request, Shared, Submission};
use super::record::{self, ENTRY_PREFIX_BYTES};
use super::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, SegmentId};
use super::space;

/// The group of records that belong to the log itself.
const LOG_ITSELF: GroupId = GroupId::new(0);
/// How much is written between two looks at the free space.
const SPACE_CHECK_BYTES: u64 = 1 << 20;
/// Pause between two tries to make a segment while the disk has no room for it.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// An entry encoded into the buffer, to be announced when it is durable.
struct Placed {
    group: GroupId,
    index: LogIndex,
    ordinal: u64,
    location: Location,
}

/// A segment that frames are being written to.
pub(super) struct Current {
    pub(super) header: SegmentHeader,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    /// Where the next frame goes.
    pub(super) end: u64,
}

/// The state of the log thread.
pub(super) struct Writer {
    current: Current,
    ledger: Ledger,
    /// Where the first frame lies that was written since the last sync.
    batch: Option<u64>,
    /// Frames that are encoded and not yet written; they go before `current.end`.
    buffer: Vec<u8>,
    placed: Vec<Placed>,
    /// Votes in the buffer, to be announced like entries.
    votes: Vec<(GroupId, Bytes)>,
    /// Files taken for segments that the append at hand will need.
    reserved: VecDeque<PathBuf>,
    /// Whether the log does not end with the mark of a good close.
    dirty: bool,
    /// Bytes written since the free space was last looked at.
    unchecked_bytes: u64,
    failure: Option<LogError>,
    /// Held until the thread ends.
    _lock: Box<dyn DiskLock>,
}

/// Runs until the log is closed and its queue is empty.
pub(super) async fn run(mut writer: Writer, shared: Arc<Shared>) {
    while let Some(batch) = shared.next_batch().await {
        writer.process(&shared, batch).await;
    }
    writer.finish(&shared).await;
    shared.end.close(&**shared.env.disk(), writer.failure.is_none());
    drop(writer);
    shared.spares.close();
    shared.ended.set();
}

impl Writer {
    /// `dirty`: the log was not closed in good order before.
    pub(super) fn new(current: Current, ledger: Ledger, lock: Box<dyn DiskLock>, dirty: bool) -> Self {
        Self {
            current,
            ledger,
            batch: None,
            buffer: Vec::new(),
            placed: Vec::new(),
            votes: Vec::new(),
            reserved: VecDeque::new(),
            dirty,
            unchecked_bytes: 0,
            failure: None,
            _lock: lock,
        }
    }

    /// Writes a batch and answers it.
    async fn process(&mut self, shared: &Shared, batch: Vec<Submission>) {
        let batch_bytes = batch.iter().map(|submission| submission.size_bytes).sum();
        let mut answers: Vec<(Completion, Result<(), LogError>)> = Vec::with_capacity(batch.len());
        let mut must_sync = false;
        for Submission { group, request, done, .. } in batch {
            must_sync |= needs_sync(&shared.env, &request);
            let result = match &self.failure {
                Some(error) => Err(error.clone()),
                None => self.encode(shared, group, request).await,
            };
            answers.extend(done.map(|done| (done, result)));
        }
        if self.failure.is_none()
            && let Err(error) = self.flush(shared, must_sync).await
        {
            self.fail(shared, error);
        }
        if self.failure.is_none() {
            self.retire(shared);
        }
        shared.release(batch_bytes);
        for (done, result) in answers {
            // What was encoded before the failure is as unknown as the rest.
            done(match &self.failure {
                Some(error) => result.and(Err(error.clone())),
                None => result,
            });
        }
        if self.unchecked_bytes >= SPACE_CHECK_BYTES {
            self.unchecked_bytes = 0;
            shared.check_space();
            // Tried again at a pace, since a quota may refuse a spare while the disk has room.
            if shared.spares.is_short() {
                shared.spares.poke();
            }
        }
    }

    /// Nothing can be trusted any more.
    fn fail(&mut self, shared: &Shared, error: io::Error) {
        tracing::error!(path = ?self.current.path, %error, "log: write or sync failed, the log stops");
        let error = LogError::Poisoned { source: Arc::new(error) };
        shared.state.lock().poisoned = Some(error.clone());
        shared.failed.set();
        self.failure = Some(error);
        self.buffer.clear();
        self.placed.clear();
        self.votes.clear();
    }

    /// Puts a request into the buffer.
    async fn encode(&mut self, shared: &Shared, group: GroupId, request: Request) -> Result<(), LogError> {
        let written = match request {
            Request::Answer(result) => return result,
            Request::Append(entries) => return self.append(shared, group, entries).await,
            Request::Vote(vote) => {
                let written = self.frame(shared, group, record::KIND_VOTE, &[&vote]).await;
                self.ledger.group(group).points.vote = Some(vote.clone());
                self.votes.push((group, vote));
                written
            }
            Request::Committed(committed) => {
                let written = self.frame(shared, group, record::KIND_COMMITTED, &[&committed]).await;
                self.ledger.group(group).points.committed = Some(committed);
                written
            }
            Request::Truncate(keep) => {
                let body = record::truncate_body(keep);
                let written = self.frame(shared, group, record::KIND_TRUNCATE, &[&body]).await;
                self.ledger.group(group).truncate(keep);
                written
            }
            Request::Purge(through, opaque) => {
                let prefix = record::entry_prefix(through);
                let written = self.frame(shared, group, record::KIND_PURGE, &[&prefix, &opaque]).await;
                self.ledger.group(group).purge(through, opaque);
                written
            }
            Request::Remove => {
                let written = self.frame(shared, group, record::KIND_REMOVE, &[]).await;
                self.ledger.groups.remove(&group);
                written
            }
        };
        // The submitter's view has moved on already, so a control record that cannot be written is fatal.
        written.map(|_location| ()).map_err(|error| {
            self.fail(shared, error);
            self.failure.clone().unwrap_or(LogError::Closed)
        })
    }

    /// Puts entries into the buffer, all or none.
    async fn append(
        &mut self,
        shared: &Shared,
        group: GroupId,
        entries: Vec<Cached>,
    ) -> Result<(), LogError> {
        if let Err(error) = self.admit(shared, group, &entries).await {
            if let Some(first) = entries.first() {
                let mut state = shared.state.lock();
                if let Some(group) = state.groups.get_mut(&group) {
                    group.forget_from(first.entry.index, first.ordinal);
                }
            }
            return Err(error);
        }
        for Cached { ordinal, entry } in entries {
            let position = LogPosition::new(entry.term, entry.index);
            let prefix = record::entry_prefix(position);
            match self.frame(shared, group, record::KIND_ENTRY, &[&prefix, &entry.body]).await {
                Ok(location) => {
                    self.ledger.group(group).entry(position, location.segment);
                    self.placed.push(Placed { group, index: entry.index, ordinal, location });
                }
                Err(error) => {
                    self.fail(shared, error);
                    return Err(self.failure.clone().unwrap_or(LogError::Closed));
                }
            }
        }
        Ok(())
    }

    /// Checks that entries continue what is written and reserves the segments that they need.
    async fn admit(&mut self, shared: &Shared, group: GroupId, entries: &[Cached]) -> Result<(), LogError> {
        let Some(first) = entries.first() else { return Ok(()) };
        // Looking must not create the group: the ledger holds only what frames say.
        let expected = self.ledger.groups.get(&group).and_then(GroupLedger::expected);
        if let Some(expected) = expected.filter(|expected| *expected != first.entry.index) {
            // Those before them in the queue were refused.
            return Err(LogError::Gap { group, expected, found: first.entry.index });
        }
        let sizes =
            entries.iter().map(|cached| frame_size(ENTRY_PREFIX_BYTES + cached.entry.body.len()) as u64);
        let (total, largest) = sizes.fold((0, 0), |(total, largest), size| (total + size, size.max(largest)));
        let mut room = self.current.header.size_bytes.saturating_sub(self.current.end + largest);
        let per_segment =
            u64::from(shared.config.segment_bytes).saturating_sub(self.opening_bytes() + largest);
        for path in &self.reserved {
            debug_assert!(space::is_spare(path));
            room += per_segment;
        }
        while room < total {
            let path = match self.obtain(shared).await {
                Ok(path) => path,
                // Closed while it waited: nothing of it was written.
                Err(error) if is_out_of_space(&error) => return Err(LogError::DiskFull),
                Err(error) => {
                    self.fail(shared, error);
                    return Err(self.failure.clone().unwrap_or(LogError::Closed));
                }
            };
            self.reserved.push_back(path);
            room += per_segment.max(1);
        }
        Ok(())
    }

    /// Bytes at the start of a new segment that no entry can have.
    fn opening_bytes(&self) -> u64 {
        opening_bytes(&self.ledger)
    }

    /// A file for a new segment: a spare, or one made at once if none is ready. While the disk has no room it waits:
    /// whoever submitted cannot take back what it asked for, and a Raft group whose append fails is lost for good.
    /// What is new is refused meanwhile, before it comes here, because the log says that it is full.
    async fn obtain(&self, shared: &Shared) -> io::Result<PathBuf> {
        let mut waited = false;
        loop {
            let obtained = match shared.spares.take() {
                Some(spare) => Ok(spare),
                None => {
                    let path = shared.spares.new_path(&shared.dir);
                    space::create(&**shared.env.disk(), &path, u64::from(shared.config.segment_bytes))
                        .map(|_file| path)
                }
            };
            match obtained {
                Err(error) if is_out_of_space(&error) && !shared.is_closed() => {
                    if !waited {
                        tracing::error!(dir = ?shared.dir, %error, "log: no room for a segment, it waits until space is freed");
                    }
                    waited = true;
                    shared.set_starved(true);
                    shared.env.sleep(LOOK_AGAIN).await;
                }
                outcome => {
                    if waited {
                        tracing::info!(dir = ?shared.dir, "log: there is room again");
                        shared.set_starved(false);
                    }
                    return outcome;
                }
            }
        }
    }

    /// Puts one frame into the buffer, in a new segment if the current one has no room for it.
    async fn frame(
        &mut self,
        shared: &Shared,
        group: GroupId,
        kind: u8,
        parts: &[&[u8]],
    ) -> io::Result<Location> {
        let size = frame_size(parts.iter().map(|part| part.len()).sum()) as u64;
        let mut rolled = false;
        while self.current.end + size > self.current.header.size_bytes {
            if rolled {
                return Err(io::Error::other("a record does not fit in an empty segment"));
            }
            self.roll(shared).await?;
            rolled = true;
        }
        let offset = self.current.end;
        let batch = *self.batch.get_or_insert(offset);
        let header = (group.get(), narrow(batch)?, kind);
        frame::encode(&mut self.buffer, self.current.header.seed(), offset, header, parts);
        self.current.end += size;
        Ok(Location { segment: self.current.header.id, offset: narrow(offset)?, size: narrow(size)? })
    }

    /// Writes the buffer, syncs if asked, and announces where entries lie.
    async fn flush(&mut self, shared: &Shared, must_sync: bool) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.dirty = true;
            let offset = self.current.end - self.buffer.len() as u64;
            self.current.file.write_at(offset, &self.buffer)?;
            self.unchecked_bytes += self.buffer.len() as u64;
            self.buffer.clear();
            shared.env.io_pause().await;
        }
        if must_sync && self.batch.is_some() {
            self.current.file.sync_data()?;
            self.batch = None;
            shared.end.reach(self.current.reached());
            shared.env.io_pause().await;
        }
        if !self.placed.is_empty() || !self.votes.is_empty() {
            let mut state = shared.state.lock();
            for (group, vote) in self.votes.drain(..) {
                if let Some(group) = state.groups.get_mut(&group) {
                    group.durable_vote = Some(vote);
                }
            }
            for placed in self.placed.drain(..) {
                if let Some(group) = state.groups.get_mut(&placed.group) {
                    group.set_written(placed.index, placed.ordinal, placed.location);
                }
            }
        }
        Ok(())
    }

    /// Ends the current segment and begins the next.
    async fn roll(&mut self, shared: &Shared) -> io::Result<()> {
        self.flush(shared, true).await?;
        let spare = match self.reserved.pop_front() {
            Some(spare) => spare,
            None => self.obtain(shared).await?,
        };
        let number = self.current.header.id.0.checked_add(1);
        let id = SegmentId(number.ok_or_else(|| io::Error::other("segment numbers are exhausted"))?);
        let current = begin(&shared.env, &shared.dir, &spare, id, self.current.end, &self.ledger)?;
        shared.env.io_pause().await;
        shared.state.lock().segments.insert(id, current.open());
        self.current = current;
        shared.end.reach(self.current.reached());
        Ok(())
    }

    /// Hands over the segments that no group needs.
    fn retire(&self, shared: &Shared) {
        let current = self.current.header.id;
        let needed = self.ledger.oldest_pinned().map_or(current, |pinned| pinned.min(current));
        let mut state = shared.state.lock();
        while let Some(oldest) = state.segments.first_entry().filter(|oldest| *oldest.key() < needed) {
            shared.spares.retire(oldest.remove().path);
        }
    }

    /// Marks the end of everything written as synced, so that damage to it cannot pass for a torn tail.
    async fn finish(&mut self, shared: &Shared) {
        let size = frame_size(0) as u64;
        if self.failure.is_some() || !self.dirty || self.current.end + size > self.current.header.size_bytes {
            return;
        }
        let closed = async {
            self.flush(shared, true).await?;
            self.frame(shared, LOG_ITSELF, record::KIND_CLOSE, &[]).await?;
            self.flush(shared, true).await
        };
        if let Err(error) = closed.await {
            tracing::warn!(%error, "log: cannot mark the log as closed");
        }
    }
}

impl Current {
    /// Where it is now.
    pub(super) const fn reached(&self) -> Reached {
        Reached::new(&self.header, self.end)
    }

    /// The segment as readers need it.
    pub(super) fn open(&self) -> OpenSegment {
        OpenSegment {
            path: self.path.clone(),
            file: Arc::clone(&self.file),
            seed: self.header.seed(),
            size_bytes: self.header.size_bytes,
        }
    }
}

/// Bytes of a segment's header and checkpoint.
pub(super) fn opening_bytes(ledger: &Ledger) -> u64 {
    let checkpoints =
        ledger.groups.values().map(|group| frame_size(record::checkpoint_body(&group.points).len()) as u64);
    SEGMENT_HEADER_BYTES as u64 + checkpoints.sum::<u64>() + frame_size(8) as u64
}

/// Makes a file a segment: header and checkpoint are durable before it gets its name, and the name before it is
/// used. So a file with a segment's name always has a whole checkpoint.
pub(super) fn begin(
    env: &Env,
    dir: &Path,
    spare: &Path,
    id: SegmentId,
    previous_end: u64,
    ledger: &Ledger,
) -> io::Result<Current> {
    let disk = env.disk();
    let file = disk.open(spare, OpenMode::ReadWrite)?;
    let size_bytes = file.len()?;
    let header = SegmentHeader { id, salt: env.rng().u64(), previous_end, size_bytes };
    let batch = narrow(SEGMENT_HEADER_BYTES as u64)?;
    let mut buffer = header.encode().to_vec();
    for (group, state) in &ledger.groups {
        let offset = buffer.len() as u64;
        let body = record::checkpoint_body(&state.points);
        let head = (group.get(), batch, record::KIND_CHECKPOINT);
        frame::encode(&mut buffer, header.seed(), offset, head, &[&body]);
    }
    let offset = buffer.len() as u64;
    let count = (ledger.groups.len() as u64).to_le_bytes();
    let head = (LOG_ITSELF.get(), batch, record::KIND_CHECKPOINT_END);
    frame::encode(&mut buffer, header.seed(), offset, head, &[&count]);
    let end = buffer.len() as u64;
    if end > size_bytes {
        return Err(io::Error::other("the checkpoint of all groups does not fit in a segment"));
    }
    file.write_at(0, &buffer)?;
    if !env.has_bug(Bug::SegmentNotSynced) {
        file.sync_all()?;
    }
    let path = id.path(dir);
    disk.rename(spare, &path)?;
    if !env.has_bug(Bug::NamesNotSynced) {
        disk.sync_dir(dir)?;
    }
    Ok(Current { header, path, file, end })
}

/// Whether a request may be answered only after a sync.
fn needs_sync(env: &Env, request: &Request) -> bool {
    match request {
        Request::Committed(_) | Request::Answer(_) => false,
        Request::Append(_) => !env.has_bug(Bug::EntriesNotSynced),
        Request::Vote(_) => !env.has_bug(Bug::VoteNotSynced),
        Request::Truncate(_) => !env.has_bug(Bug::TailCutNotSynced),
        Request::Purge(..) | Request::Remove => true,
    }
}

/// Whether a write failed for want of room, which may come back, and for nothing worse.
pub(super) fn is_out_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// An offset within a segment, which is at most 1 GiB.
fn narrow(offset: u64) -> io::Result<u32> {
    u32::try_from(offset).map_err(|_| io::Error::other("a segment is larger than 4 GiB"))
}
