//! openraft's log storage over one group of the node's log.
//!
//! Everything that is written goes to the log thread in the order in which openraft says it, and is answered from
//! there once it is durable; nothing here waits for a disk but a vote, a truncation, and a read of what the tail
//! cache has lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    io,
    ops::Bound,
    ops::RangeBounds,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use openraft::{
    EntryPayload, LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};
use rustydb_env::{Bug, ambient};
use rustydb_storage::log::{GroupLog, LogEntry, LogError};
use rustydb_types::{
    ids::{LogIndex, NodeId, Term},
    position::LogPosition,
};
use tokio::sync::oneshot;

use crate::{
    campaigns::Campaigns,
    codec,
    machine::Applied,
    state_machine::MachineCell,
    type_config::{
        Entry, LogId, Member, Membership, StoredMembership, TypeConfig, Vote, log_id_of, position_of,
    },
};

/// The log of one group, as openraft sees it.
#[derive(Clone)]
pub struct LogStore {
    log: GroupLog,
    read_bytes_max: usize,
    /// The index behind what was handed to the log, whether the log took it or not. Zero before the first append.
    handed_end: Arc<AtomicU64>,
    /// What was committed last. openraft takes for granted that a leader takes none of it back, and would end the
    /// process; a member that lies ends the group only.
    committed: Option<LogId>,
    /// Knows the members as of what is purged.
    machine: Option<Arc<MachineCell>>,
    /// Told of every vote.
    campaigns: Option<Arc<Campaigns>>,
}

fn io_error(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// An entry as the log keeps it.
fn entry_to_log(entry: &Entry) -> LogEntry {
    LogEntry {
        index: LogIndex::new(entry.log_id.index),
        term: Term::new(entry.log_id.leader_id.term),
        body: codec::encode_payload(&entry.payload),
    }
}

/// An entry as openraft wants it.
fn entry_from_log(entry: LogEntry) -> Result<Entry, io::Error> {
    let mut payload = codec::decode_payload(entry.body).map_err(io_error)?;
    if let EntryPayload::Membership(membership) = &mut payload
        && ambient::has_bug(Bug::LearnersCounted)
    {
        let nodes: BTreeMap<u64, Member> = membership.nodes().map(|(node, _)| (*node, Member)).collect();
        *membership = Membership::new(vec![nodes.keys().copied().collect()], nodes).map_err(io_error)?;
    }
    Ok(Entry { log_id: log_id_of(LogPosition::new(entry.term, entry.index)), payload })
}

impl LogStore {
    /// Over `log`, reading pieces of about `read_bytes_max`.
    #[must_use]
    pub fn new(log: GroupLog, read_bytes_max: usize) -> Self {
        Self {
            log,
            read_bytes_max,
            handed_end: Arc::default(),
            committed: None,
            machine: None,
            campaigns: None,
        }
    }

    /// The same; with what it purges it keeps the members, so that they are known even when the state is lost.
    pub(crate) fn keeping_members_of(self, machine: &Arc<MachineCell>) -> Self {
        Self { machine: Some(Arc::clone(machine)), ..self }
    }

    /// The same; it tells of every vote, and how long it took.
    pub(crate) fn telling_votes(self, campaigns: &Arc<Campaigns>) -> Self {
        Self { campaigns: Some(Arc::clone(campaigns)), ..self }
    }

    /// Refuses what no leader asks for: that the log ends, or is committed, before what was committed.
    fn refuse_below(&self, index: u64, what: &str) -> Result<(), io::Error> {
        match self.committed {
            Some(committed) if index < committed.index => {
                let reason = format!("a leader {what}: {committed} was, and this is of index {index}");
                Err(io::Error::other(reason))
            }
            _ => Ok(()),
        }
    }

    /// Takes a vote for the own one, unless that is as high. Returns once it is durable.
    ///
    /// # Errors
    /// The log has failed, or its vote cannot be read.
    pub(crate) async fn adopt_vote(&self, vote: &Vote) -> Result<(), io::Error> {
        let own =
            self.log.state().vote.map(|bytes| codec::decode_vote(&bytes)).transpose().map_err(io_error)?;
        if own.is_some_and(|own| own.leader_id.term >= vote.leader_id.term) {
            return Ok(());
        }
        self.clone().save_vote(vote).await
    }

    /// What was applied at least, as far as the log knows, with the members of then: empty when an earlier release has
    /// purged the entry that named them.
    ///
    /// # Errors
    /// What the log has kept cannot be read.
    pub(crate) fn floor(&self) -> Result<Applied, io::Error> {
        let state = self.log.state();
        let committed =
            state.committed.map(|bytes| codec::decode_log_id(&bytes)).transpose().map_err(io_error)?;
        let committed = committed.as_ref().map(position_of);
        let (purged, members) = state.purged.unzip();
        let position = purged.max(committed);
        let membership = match self.named_through(position)? {
            Some(membership) => membership,
            None => members.unwrap_or_default(),
        };
        Ok(Applied { position, membership })
    }

    /// The members as of the end of the log, with and without a vote; [`None`] when an earlier release has purged the entry
    /// that named them.
    ///
    /// # Errors
    /// What the log has kept cannot be read.
    pub(crate) fn nodes(&self) -> Result<Option<BTreeSet<NodeId>>, io::Error> {
        let state = self.log.state();
        let kept = state.purged.map(|(_, members)| members).filter(|members| !members.is_empty());
        let Some(members) = self.named_through(state.last)?.or(kept) else { return Ok(None) };
        let stored = codec::decode_stored_membership(&members).map_err(io_error)?;
        Ok(Some(stored.membership().nodes().map(|(node, _)| NodeId::new(*node)).collect()))
    }

    /// The members that the last entry up to a position names, of those that the log still has.
    fn named_through(&self, position: Option<LogPosition>) -> Result<Option<Bytes>, io::Error> {
        const STEP: u64 = 1024;
        let (first, mut end) = self.held(&..position.map_or(0, |position| position.index.get() + 1));
        while first < end {
            let step = end.saturating_sub(STEP).max(first);
            let (mut start, mut named) = (step, None);
            while start < end {
                let piece = self.read_piece(start, end)?;
                if piece.is_empty() {
                    return Err(io::Error::other(format!("the log has no entry at {start}")));
                }
                for entry in piece {
                    start = entry.log_id.index + 1;
                    if let EntryPayload::Membership(membership) = entry.payload {
                        named = Some(StoredMembership::new(Some(entry.log_id), membership));
                    }
                }
            }
            if let Some(named) = named {
                return Ok(Some(codec::encode_stored_membership(&named)));
            }
            end = step;
        }
        Ok(None)
    }

    /// Up to where entries are purged.
    pub(crate) fn purged(&self) -> Option<LogPosition> {
        self.log.state().purged.map(|(position, _)| position)
    }

    /// The members as of a position or a later one, as far as they are known.
    fn members_at(&self, position: LogPosition) -> Bytes {
        let applied = self.machine.as_ref().map(|machine| machine.applied()).unwrap_or_default();
        if applied.position >= Some(position) { applied.membership } else { Bytes::new() }
    }

    /// Whether this group has ever voted here: then this is a restart.
    #[must_use]
    pub fn has_voted(&self) -> bool {
        self.log.state().vote.is_some()
    }

    /// Writes the entry that names the first members, unless the group has entries. Returns once it is durable.
    ///
    /// # Errors
    /// The log has failed.
    pub async fn name_first_members(&self, members: BTreeSet<u64>) -> Result<(), io::Error> {
        let state = self.log.state();
        if state.last.is_some() || state.purged.is_some() {
            return Ok(());
        }
        let nodes: BTreeMap<u64, Member> = members.iter().map(|node| (*node, Member)).collect();
        let membership = Membership::new(vec![members], nodes).map_err(io_error)?;
        let first = LogEntry {
            index: LogIndex::new(0),
            term: Term::new(0),
            body: codec::encode_payload(&EntryPayload::Membership(membership)),
        };
        let (done, written) = oneshot::channel();
        self.log.append(vec![first], Box::new(move |result| drop(done.send(result))));
        finished(written).await
    }

    /// The part of a range that the log holds.
    fn held(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let first = self.log.first_index().get();
        let end = self.log.state().last.map_or(first, |position| position.index.get() + 1);
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let stop = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        (start.max(first), stop.min(end))
    }

    /// The first entry before `end` that was handed to the log and is not there, since the log has failed.
    fn refused_before(&self, end: u64) -> Option<u64> {
        let held_end = self.held(&..).1;
        (held_end < end.min(self.handed_end.load(Ordering::Acquire))).then_some(held_end)
    }

    /// Reads from `start`, at least one entry, at most about the size of a piece.
    fn read_piece(&self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        if start >= end {
            return Ok(Vec::new());
        }
        let range = LogIndex::new(start)..LogIndex::new(end);
        let entries = self.log.read(range, self.read_bytes_max).map_err(io_error)?;
        entries.into_iter().map(entry_from_log).collect()
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (mut start, end) = self.held(&range);
        let mut entries = Vec::new();
        while start < end {
            let piece = self.read_piece(start, end)?;
            let Some(last) = piece.last() else {
                return Err(io::Error::other(format!("the log has no entry at {start}")));
            };
            start = last.log_id.index + 1;
            entries.extend(piece);
        }
        Ok(entries)
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // Piece by piece, so that a long backlog is never in memory at once.
        let (start, end) = self.held(&range);
        // The caller takes the whole range for applied, so what a failed log did not take must not pass for the end.
        let asked_end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let missing = self.refused_before(asked_end);
        let missing =
            missing.map(|index| Err(io::Error::other(format!("the log did not take entry {index}"))));
        let reader = self.clone();
        let pieces = stream::unfold((reader, start, end), |(reader, start, end)| async move {
            if start >= end {
                return None;
            }
            let piece = reader.read_piece(start, end);
            let next = match &piece {
                Ok(entries) => entries.last().map_or(end, |last| last.log_id.index + 1),
                Err(_) => end,
            };
            let items: Vec<Result<Entry, io::Error>> = match piece {
                Ok(entries) => entries.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            Some((stream::iter(items), (reader, next, end)))
        });
        let pieces = futures_util::StreamExt::flatten(pieces);
        futures_util::StreamExt::chain(pieces, stream::iter(missing))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        let vote = self.log.state().vote;
        vote.map(|bytes| codec::decode_vote(&bytes)).transpose().map_err(io_error)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read_piece(start, end)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.log.state();
        let last_purged_log_id = state.purged.as_ref().map(|(position, _)| log_id_of(*position));
        let last_log_id = state.last.map(log_id_of).or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let began = ambient::now();
        let (done, saved) = oneshot::channel();
        self.log.save_vote(codec::encode_vote(vote), Box::new(move |result| drop(done.send(result))));
        finished(saved).await?;
        if let Some(campaigns) = &self.campaigns {
            campaigns.note(vote, ambient::now().saturating_since(began));
        }
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed {
            self.refuse_below(committed.index, "commits less than was committed")?;
            self.committed = Some(committed);
            self.log.save_committed(codec::encode_log_id(&committed));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let committed = self.log.state().committed;
        self.committed = committed.map(|bytes| codec::decode_log_id(&bytes)).transpose().map_err(io_error)?;
        Ok(self.committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.log.ready().await;
        let mut entries: Vec<LogEntry> = entries.into_iter().map(|entry| entry_to_log(&entry)).collect();
        if ambient::has_bug(Bug::ConflictKept) {
            let end = self.held(&..).1;
            entries.retain(|entry| entry.index.get() >= end);
        }
        if let Some(last) = entries.last() {
            self.handed_end.store(last.index.get() + 1, Ordering::Release);
        }
        self.log.append(entries, Box::new(move |result| callback.io_completed(result.map_err(io_error))));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        if ambient::has_bug(Bug::ConflictKept) {
            return Ok(());
        }
        self.refuse_below(last_log_id.map_or(0, |last| last.index), "takes back what was committed")?;
        let (done, truncated) = oneshot::channel();
        let last = last_log_id.map(|log_id| LogIndex::new(log_id.index));
        self.handed_end.store(last.map_or(0, |last| last.get() + 1), Ordering::Release);
        self.log.truncate_after(last, Box::new(move |result| drop(done.send(result))));
        finished(truncated).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        // Nobody waits: an entry that is purged twice after a crash does no harm. A failure stops the log, and with
        // it the next append.
        let position = position_of(&log_id);
        self.log.purge_through(position, self.members_at(position), Box::new(|_stopped| ()));
        Ok(())
    }
}

/// Waits for the log thread.
async fn finished(done: oneshot::Receiver<Result<(), LogError>>) -> Result<(), io::Error> {
    match done.await {
        Ok(result) => result.map_err(io_error),
        Err(_) => Err(io::Error::other("the log has stopped")),
    }
}

#[cfg(test)]
mod tests {
    use openraft::StorageError;
    use openraft::testing::log::{StoreBuilder, Suite};
    use rustydb_env::Env;
    use rustydb_storage::log::{Log, LogConfig};
    use rustydb_types::ids::GroupId;

    use super::*;
    use crate::{
        model::{ModelCell, ModelMachine},
        state_machine::{MachineCell, StateMachine},
    };

    /// A log in a folder of its own.
    struct OnDisk;

    impl StoreBuilder<TypeConfig, LogStore, StateMachine, (tempfile::TempDir, Log)> for OnDisk {
        async fn build(
            &self,
        ) -> Result<((tempfile::TempDir, Log), LogStore, StateMachine), StorageError<TypeConfig>> {
            let folder = tempfile::tempdir().unwrap();
            let log = Log::open(
                &Env::os(),
                folder.path(),
                LogConfig { segment_bytes: 1 << 20, reserve_bytes: 1 << 20, ..LogConfig::default() },
            )
            .unwrap();
            let store = LogStore::new(log.group(GroupId::new(7)), 4096);
            let machine =
                StateMachine::new(MachineCell::with_gaps(Box::new(ModelMachine::new(ModelCell::default()))));
            Ok(((folder, log), store, machine))
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn openrafts_own_suite_passes() {
        Suite::test_all(OnDisk).await.unwrap();
    }

    fn blank(index: u64) -> Entry {
        let position = LogPosition::new(Term::new(1), LogIndex::new(index));
        Entry { log_id: log_id_of(position), payload: openraft::EntryPayload::Blank }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_a_stopped_log_did_not_take_is_an_error_and_not_the_end() {
        let ((_folder, log), mut store, _machine) = OnDisk.build().await.unwrap();
        store.append([blank(0), blank(1)], IOFlushed::noop()).await.unwrap();
        log.close().await;
        store.append([blank(2), blank(3)], IOFlushed::noop()).await.unwrap();
        let read = |range| {
            let mut reader = store.clone();
            async move {
                let entries =
                    futures_util::StreamExt::collect::<Vec<_>>(reader.entries_stream(range).await).await;
                entries
                    .into_iter()
                    .map(|entry| entry.map(|entry| entry.log_id.index).ok())
                    .collect::<Vec<_>>()
            }
        };
        assert_eq!(read(0..2).await, [Some(0), Some(1)]);
        assert_eq!(read(1..3).await, [Some(1), None]);
        assert_eq!(read(2..4).await, [None]);
        assert_eq!(read(0..100).await, [Some(0), Some(1), None]);
    }
}
