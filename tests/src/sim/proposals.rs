//! Random concurrent histories of one store, against a model: what becomes of proposals is up to the seed.
//!
//! Clients run transactions of all isolation levels over few keys, while the proposer refuses some proposals, loses
//! the answers of others and changes its leadership. Chunks are so small that most transactions are staged. A second
//! replica applies the same log. Afterwards the history is checked against the entries that took effect: reads
//! against the snapshot they were made in, writes against what they replaced, SERIALIZABLE against the order of
//! commits, acknowledgements against what is there. What is wrong panics, which ends the run.

#![allow(clippy::unwrap_used, reason = "whatever is not as expected is what the run found")]

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustydb_env::Env;
use rustydb_env::sim::Simulation;
use rustydb_storage::engine::MemoryEngine;
use rustydb_txn::entry::{Entry, EntryKind, Write};
use rustydb_txn::{
    Access, ApplyEntry, ApplyPayload, Direction, EngineOpener, Isolation, KvConfig, KvStore, Leadership,
    Linearize, LockWait, Proposal, ProposeError, Proposer, RowLock, ScanRequest, StateMachine, Transaction,
    TxnError, TxnErrorKind, TxnOptions,
};
use rustydb_types::ids::{Incarnation, LogIndex, RequestId, SessionId, Term, Version};
use rustydb_types::position::LogPosition;

use super::Course;

const KEYS: u64 = 6;
const CLIENTS: u64 = 6;
const TXNS: u64 = 25;
const NOBODY: RequestId =
    RequestId { incarnation: Incarnation::new(0), session: SessionId::new(0), counter: 0 };

/// Takes proposals; the pump decides what becomes of them.
#[derive(Clone, Default)]
struct FaultyProposer {
    queue: Arc<Mutex<VecDeque<Proposal>>>,
}

impl Proposer for FaultyProposer {
    fn propose(&self, proposal: Proposal) -> Result<(), ProposeError> {
        let mut queue = self.queue.lock();
        // Few enough that proposals are refused at once now and then, under the sequencer's lock.
        if queue.len() >= 3 {
            return Err(ProposeError::Overloaded);
        }
        queue.push_back(proposal);
        Ok(())
    }

    fn linearize(&self) -> Linearize {
        Linearize::Now
    }
}

/// The log, the leader and a replica.
struct World {
    env: Env,
    proposer: FaultyProposer,
    leader: StateMachine,
    replica: StateMachine,
    term: Term,
    next: LogIndex,
    model: Model,
}

impl World {
    fn apply(&mut self, payload: ApplyPayload) {
        let position = LogPosition::new(self.term, self.next);
        self.next = self.next.next();
        let decoded = match &payload {
            ApplyPayload::Command(command) => Some(Entry::decode(command).unwrap()),
            _ => None,
        };
        let before = self.replica.applied().version;
        self.apply_entry(position, payload);
        if self.replica.applied().version > before {
            self.model.take_in(decoded.unwrap());
        }
    }

    fn apply_entry(&mut self, position: LogPosition, payload: ApplyPayload) {
        let entry = ApplyEntry { position, opaque_position: Bytes::new(), payload };
        self.leader.apply(std::slice::from_ref(&entry)).unwrap();
        self.replica.apply(&[entry]).unwrap();
        assert_eq!(self.leader.state_hash(), self.replica.state_hash(), "replicas differ at {position}");
    }

    fn lead(&mut self) {
        self.term = self.term.next();
        self.apply(ApplyPayload::Blank);
        self.leader.leadership(Leadership::Leader { term: self.term });
    }

    /// Ends the leadership: of what is queued a part is in the log, the rest is lost.
    fn depose(&mut self) {
        let mut rng = self.env.rng();
        let queued: Vec<Proposal> = self.proposer.queue.lock().drain(..).collect();
        let kept = rng.range(0..queued.len() as u64 + 1);
        let early = rng.chance(1, 2);
        if early {
            self.leader.leadership(Leadership::Follower { leader: None });
        }
        for (place, proposal) in queued.into_iter().enumerate() {
            if (place as u64) < kept {
                self.apply(ApplyPayload::Command(proposal.entry.clone()));
            }
            (proposal.done)(Err(ProposeError::Unknown));
        }
        self.leader.leadership(Leadership::Follower { leader: None });
    }

    async fn pump(mut self, stop: Arc<Mutex<bool>>) -> World {
        let mut rng = self.env.rng();
        while !*stop.lock() {
            self.env.sleep(Duration::from_micros(rng.range(50..800))).await;
            if rng.chance(1, 60) {
                self.depose();
                self.env.sleep(Duration::from_millis(rng.range(0..3))).await;
                self.lead();
            }
            for _ in 0..rng.range(1..5) {
                let Some(proposal) = self.proposer.queue.lock().pop_front() else { break };
                if proposal.term != self.term {
                    (proposal.done)(Err(ProposeError::NotLeader { term: proposal.term }));
                    continue;
                }
                match rng.range(0..40) {
                    0 => (proposal.done)(Err(ProposeError::Refused)),
                    1 => drop(proposal.done),
                    2 => {
                        // The answer is lost, the entry is not.
                        (proposal.done)(Err(ProposeError::Unknown));
                        self.apply(ApplyPayload::Command(proposal.entry));
                    }
                    _ => {
                        self.apply(ApplyPayload::Command(proposal.entry));
                        (proposal.done)(Ok(()));
                    }
                }
            }
        }
        self
    }
}

/// One read: the snapshot it was made in, the range, and what was found.
struct Read {
    at: Version,
    start: Bytes,
    end: Bytes,
    found: BTreeMap<Bytes, Bytes>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Committed(Version),
    Aborted,
    Unknown,
}

struct Record {
    isolation: Isolation,
    access: Access,
    began_after: Version,
    snapshot: Version,
    reads: Vec<Read>,
    /// Key to the value under the lock before, and the value written; `None` is a deletion.
    writes: BTreeMap<Bytes, (Option<Bytes>, Option<Bytes>)>,
    fate: Fate,
}

fn key(number: u64) -> Bytes {
    Bytes::copy_from_slice(&[b'k', u8::try_from(number).unwrap()])
}

fn successor(key: &Bytes) -> Bytes {
    let mut next = key.to_vec();
    next.push(0);
    next.into()
}

struct Client {
    env: Env,
    kv: KvStore,
    number: u64,
    acknowledged: Arc<Mutex<Version>>,
    history: Arc<Mutex<Vec<Record>>>,
}

impl Client {
    async fn run(self) {
        let mut rng = self.env.rng();
        for count in 0..TXNS {
            let isolation = match rng.range(0..3) {
                0 => Isolation::ReadCommitted,
                1 => Isolation::RepeatableRead,
                _ => Isolation::Serializable,
            };
            let access = if rng.chance(1, 5) { Access::ReadOnly } else { Access::ReadWrite };
            let began_after = *self.acknowledged.lock();
            match self.kv.begin(TxnOptions { isolation, access, request: NOBODY }).await {
                Ok(txn) => self.transaction(txn, count, began_after).await,
                Err(error) => {
                    assert_eq!(error.kind(), TxnErrorKind::NotLeader, "{error}");
                    self.env.sleep(Duration::from_millis(1)).await;
                }
            }
        }
    }

    async fn transaction(&self, mut txn: Transaction, count: u64, began_after: Version) {
        let mut record = Record {
            isolation: txn.options().isolation,
            access: txn.options().access,
            began_after,
            snapshot: Version::ZERO,
            reads: Vec::new(),
            writes: BTreeMap::new(),
            fate: Fate::Aborted,
        };
        let result = match self.statements(&mut txn, count, &mut record).await {
            Ok(()) => {
                record.snapshot = txn.snapshot();
                txn.commit().await.map(|receipt| receipt.version)
            }
            Err(error) => Err(error),
        };
        record.fate = match result {
            Ok(version) => {
                if !record.writes.is_empty() {
                    let mut acknowledged = self.acknowledged.lock();
                    *acknowledged = version.max(*acknowledged);
                }
                Fate::Committed(version)
            }
            Err(TxnError::UnknownOutcome) => Fate::Unknown,
            Err(error) => {
                assert_ne!(error.kind(), TxnErrorKind::Fatal, "{error}");
                Fate::Aborted
            }
        };
        self.history.lock().push(record);
    }

    async fn statements(
        &self,
        txn: &mut Transaction,
        count: u64,
        record: &mut Record,
    ) -> Result<(), TxnError> {
        let mut rng = self.env.rng();
        for statement in 0..rng.range(1..5) {
            txn.begin_statement();
            self.env.sleep(Duration::from_micros(rng.range(0..600))).await;
            let first = rng.range(0..KEYS);
            if rng.chance(1, 2) || record.access == Access::ReadOnly {
                self.read(txn, first, first + rng.range(1..4), record)?;
            } else {
                let value = Bytes::from(format!("{}-{count}-{statement}", self.number));
                let value = Some(value).filter(|_| !rng.chance(1, 5));
                let wait = LockWait::For(Duration::from_millis(20));
                txn.lock_row(&key(first), RowLock::ForUpdate, wait).await?;
                let before = txn.get_latest(&key(first))?;
                match &value {
                    Some(value) => txn.put(key(first), value.clone())?,
                    None => txn.delete(key(first))?,
                }
                if rng.chance(1, 2) {
                    // The statement does not read what it writes, wherever that is.
                    let read = txn.get(&key(first))?;
                    txn.flush_if_large().await?;
                    assert_eq!(txn.get(&key(first))?, read, "a statement read its own write");
                    assert_eq!(txn.get_latest(&key(first))?, value);
                }
                let former = record.writes.remove(&key(first));
                let before = former.map_or(before, |(before, _)| before);
                record.writes.insert(key(first), (before, value));
                if rng.chance(1, 6) {
                    self.take_back(txn, rng.range(0..KEYS)).await?;
                }
            }
            self.env.sleep(Duration::from_micros(rng.range(0..600))).await;
        }
        Ok(())
    }

    /// Writes under a savepoint and goes back to it.
    async fn take_back(&self, txn: &mut Transaction, number: u64) -> Result<(), TxnError> {
        let savepoint = txn.savepoint();
        txn.begin_statement();
        txn.lock_row(&key(number), RowLock::ForUpdate, LockWait::For(Duration::from_millis(20))).await?;
        txn.put(key(number), "taken back".into())?;
        txn.flush_if_large().await?;
        txn.rollback_to(savepoint)?;
        txn.release(savepoint)
    }

    /// Reads a range, by point or by scan in either direction, and records what the snapshot gave.
    fn read(&self, txn: &Transaction, first: u64, end: u64, record: &mut Record) -> Result<(), TxnError> {
        let mut rng = self.env.rng();
        let mut found = BTreeMap::new();
        let range = if rng.chance(1, 2) {
            if let Some(value) = txn.get(&key(first))? {
                found.insert(key(first), value);
            }
            (key(first), successor(&key(first)))
        } else {
            let direction = if rng.chance(1, 2) { Direction::Forward } else { Direction::Backward };
            let mut rest = Some((key(first), key(end)));
            let max_rows = usize::try_from(rng.range(1..4)).unwrap();
            while let Some((start, end)) = rest {
                let chunk = txn.scan(ScanRequest { start, end, direction, max_bytes: 1000, max_rows })?;
                for (key, value) in chunk.iter() {
                    found.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                }
                rest = chunk.rest();
            }
            (key(first), key(end))
        };
        for (key, (_, value)) in &record.writes {
            if *key >= range.0 && *key < range.1 {
                assert_eq!(found.get(key), value.as_ref(), "a transaction reads its own writes");
            }
        }
        // What was written here is left out of the comparison with the snapshot.
        found.retain(|key, _| !record.writes.contains_key(key));
        record.reads.push(Read { at: txn.snapshot(), start: range.0, end: range.1, found });
        Ok(())
    }
}

/// Every version of every key, as the entries that took effect say.
#[derive(Default)]
struct Model {
    versions: BTreeMap<Bytes, BTreeMap<Version, Option<Bytes>>>,
    /// Rows of staged transactions, by their number.
    staged: BTreeMap<Version, Vec<Write>>,
    /// Commits of staged transactions.
    staged_commits: u64,
}

impl Model {
    fn take_in(&mut self, entry: Entry) {
        let version = entry.header.sequence;
        let rows = match entry.header.kind {
            EntryKind::Fence => Vec::new(),
            EntryKind::Commit => entry.writes,
            EntryKind::Stage => {
                let id = if entry.staged == Version::ZERO { version } else { entry.staged };
                self.staged.entry(id).or_default().extend(entry.writes);
                Vec::new()
            }
            EntryKind::CommitStaged => {
                let mut rows = self.staged.remove(&entry.staged).expect("a commit of what was staged");
                rows.extend(entry.writes);
                self.staged_commits += 1;
                rows
            }
            EntryKind::AbortStaged => {
                self.staged.remove(&entry.staged);
                Vec::new()
            }
        };
        for write in rows {
            self.versions.entry(write.key).or_default().insert(version, write.value);
        }
    }

    fn at(&self, key: &Bytes, at: Version) -> Option<&Bytes> {
        self.versions.get(key)?.range(..=at).next_back().and_then(|(_, value)| value.as_ref())
    }

    /// Checks a read against the state at a version; keys in `own` were written by the reader itself.
    fn check_read(&self, read: &Read, at: Version, record: &Record, what: &str) {
        for number in 0..KEYS + 4 {
            let key = key(number);
            if key < read.start || key >= read.end || record.writes.contains_key(&key) {
                continue;
            }
            assert_eq!(read.found.get(&key), self.at(&key, at), "{what}: key {number} at {at}");
        }
    }

    fn check(&self, record: &Record) {
        let Fate::Committed(version) = record.fate else {
            if record.fate == Fate::Aborted {
                for (key, (_, value)) in &record.writes {
                    let versions = self.versions.get(key);
                    let is_it = |it: &Option<Bytes>| it.is_some() && it == value;
                    let there = versions.is_some_and(|versions| versions.values().any(is_it));
                    assert!(!there, "dirty write: an aborted transaction's write is there");
                }
            }
            return;
        };
        let what = format!("{:?} {:?} committed at {version}", record.isolation, record.access);
        for read in &record.reads {
            assert!(read.at >= record.began_after, "{what}: a stale snapshot {}", read.at);
            self.check_read(read, read.at.min(version), record, &what);
        }
        if record.writes.is_empty() {
            return;
        }
        let before = version.previous().unwrap();
        for (key, (replaced, value)) in &record.writes {
            if replaced.is_none() && value.is_none() {
                // What came and went within the transaction leaves no trace.
                continue;
            }
            assert_eq!(self.at(key, version), value.as_ref(), "{what}: an acknowledged write is not there");
            assert_eq!(self.at(key, before), replaced.as_ref(), "{what}: lost update");
            if record.isolation >= Isolation::RepeatableRead {
                let since = self.at(key, record.snapshot);
                assert_eq!(since, self.at(key, before), "{what}: the first committer did not win");
            }
        }
        if record.isolation == Isolation::Serializable {
            for read in &record.reads {
                self.check_read(read, before, record, &what);
            }
        }
    }
}

fn machine(env: &Env, name: &str, proposer: FaultyProposer) -> (KvStore, StateMachine) {
    let mut config = KvConfig::new(PathBuf::from(name));
    // With larger chunks the last rows come with the commit.
    config.stage_size_bytes = if env.rng().chance(2, 3) { 1 } else { 300 };
    config.stage_begin_size_bytes = if env.rng().chance(2, 3) { 1 } else { 400 };
    config.stage_wait = Duration::from_millis(50);
    config.flush_size_bytes = 4000;
    config.flush_interval = Duration::from_millis(4);
    config.window_entries_max = 10;
    config.window_wait = Duration::from_millis(50);
    let opener: EngineOpener = Arc::new(|_| Ok(Arc::new(MemoryEngine::new())));
    KvStore::open(env, config, opener, Arc::new(proposer)).unwrap()
}

/// What a history came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProposalReport {
    /// Fingerprint of the run.
    pub trace_hash: u64,
    /// Writers that committed.
    pub committed: u64,
    /// Those of them whose rows were staged.
    pub staged: u64,
}

/// Runs one history.
///
/// # Panics
/// Something is wrong.
#[must_use]
pub fn run_proposals(course: Course) -> ProposalReport {
    let simulation = Simulation::new(course.seed);
    #[cfg(feature = "planted_bugs")]
    if let Some(bug) = course.bug {
        simulation.plant(bug);
    }
    let node = simulation.add_node();
    let env = simulation.env(node);
    let history: Arc<Mutex<Vec<Record>>> = Arc::default();
    let (model, committed) = simulation
        .block_on(Duration::from_secs(120), scenario(env, Arc::clone(&history)))
        .unwrap_or_else(|error| panic!("the run does not end: {error}"));
    for record in history.lock().iter() {
        model.check(record);
    }
    ProposalReport { trace_hash: simulation.trace_hash(), committed, staged: model.staged_commits }
}

async fn scenario(env: Env, history: Arc<Mutex<Vec<Record>>>) -> (Model, u64) {
    let proposer = FaultyProposer::default();
    let (kv, leader) = machine(&env, "leader", proposer.clone());
    let (_replica_kv, replica) = machine(&env, "replica", FaultyProposer::default());
    let (term, next) = (Term::new(1), LogIndex::new(0));
    let model = Model::default();
    let mut world = World { env: env.clone(), proposer, leader, replica, term, next, model };
    world.lead();
    let stop = Arc::new(Mutex::new(false));
    let pump = env.spawn("pump", world.pump(Arc::clone(&stop)));
    let acknowledged = Arc::new(Mutex::new(Version::ZERO));
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let (env, kv, history) = (env.clone(), kv.clone(), Arc::clone(&history));
        let client =
            Client { env: env.clone(), kv, number, acknowledged: Arc::clone(&acknowledged), history };
        clients.push(env.spawn("client", client.run()));
    }
    for client in clients {
        client.await.unwrap();
    }
    let swept = async {
        while kv.stats().staged_open > 0 {
            env.sleep(Duration::from_millis(10)).await;
        }
    };
    env.timeout(Duration::from_secs(30), swept).await.expect("what nobody can commit is dropped");
    *stop.lock() = true;
    let world = pump.await.unwrap();
    assert_eq!(kv.stats().locks, 0);
    assert!(world.leader.recompute_hash().unwrap());
    assert!(world.replica.recompute_hash().unwrap());
    check_snapshot(&env, &world).await;
    let committed = history
        .lock()
        .iter()
        .filter(|record| matches!(record.fate, Fate::Committed(_)) && !record.writes.is_empty())
        .count();
    (world.model, committed as u64)
}

/// A new replica that is filled from a snapshot, cut into odd pieces, is equal to the one it came from.
async fn check_snapshot(env: &Env, world: &World) {
    let (kv, fresh) = machine(env, "fresh", FaultyProposer::default());
    let options =
        TxnOptions { isolation: Isolation::RepeatableRead, access: Access::ReadLocal, request: NOBODY };
    let old_reader = kv.begin(options).await.unwrap();
    let mut reader = world.leader.snapshot().await.unwrap();
    let mut installer = fresh.installer().unwrap();
    while let Some(chunk) = reader.next_chunk(100).unwrap() {
        for piece in chunk.chunks(7) {
            installer.write_chunk(piece).unwrap();
        }
    }
    let applied = installer.finish().unwrap();
    assert_eq!(applied, world.leader.applied());
    assert_eq!(applied, fresh.applied());
    assert_eq!(fresh.state_hash(), world.leader.state_hash());
    assert!(fresh.recompute_hash().unwrap());
    assert!(matches!(old_reader.get(&key(0)), Err(TxnError::SnapshotTooOld)));
}
