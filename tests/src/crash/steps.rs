//! A failure at every single operation of a disk, for the whole state of a node: log, engine, snapshots.
//!
//! ```text
//!   first the scene runs with a sound disk, which tells how many operations there are
//!   then once more per operation n and kind of failure:
//!       the scene ──► operation n fails ──► (the node stops, or goes on) ──► power cut ──► start ──► compare
//!                                                                              └─ again at its operation m
//! ```
//! Scenes: *writing* is a node alone that commits, flushes, rotates its log, takes snapshots and purges; *installing*
//! is a replica that comes back when the log it needs is purged, and takes in a snapshot. The world is simulated, so
//! the same seed comes to the same operation n each time. One client works, one transaction after the other, so what
//! may be there is known exactly: all that was acknowledged, and of the last one all or nothing.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use rustydb_consensus::ConsensusConfig;
use rustydb_env::sim::{DiskFailure, DiskFaults, Simulation};
use rustydb_storage::log::LogConfig;
use rustydb_txn::{Access, Direction, Fate, Isolation, KvStore, ScanRequest, TxnError, TxnOptions};
use rustydb_types::ids::{GroupId, Incarnation, NodeId, RequestId, SessionId, Version};

use super::Dice;
use crate::sim::{
    cluster::Cluster,
    stores::{Hashes, Stores},
};

/// The group that is written to.
const GROUP: GroupId = GroupId::SYSTEM;
/// Virtual time within which a scene must end.
const SCENE_LIMIT: Duration = Duration::from_secs(300);
/// Virtual time within which a healthy node must serve.
const SERVICE_LIMIT: Duration = Duration::from_secs(20);
/// Transactions of a scene.
const TRANSACTIONS: u64 = 36;

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The power is cut at it.
    Power,
    /// It is an I/O error.
    Error,
    /// It is an I/O error, and the process is killed: it goes on with what memory holds, and the power is cut later.
    Killed,
    /// It is a short write and an I/O error.
    Short,
    /// There is no room for it.
    Full,
    /// A read fails with an I/O error.
    Read,
}

impl Failure {
    /// All kinds.
    pub const ALL: [Self; 6] = [Self::Power, Self::Error, Self::Killed, Self::Short, Self::Full, Self::Read];

    fn faults(self, after: u64) -> DiskFaults {
        let change = |failure| DiskFaults { failure_after: Some((after, failure)), ..DiskFaults::default() };
        match self {
            Self::Power => DiskFaults { power_cut_after: Some(after), ..DiskFaults::default() },
            Self::Error | Self::Killed => change(DiskFailure::Error),
            Self::Short => change(DiskFailure::Short),
            Self::Full => change(DiskFailure::Full),
            Self::Read => DiskFaults { read_error_after: Some(after), ..DiskFaults::default() },
        }
    }
}

/// What happens to a node at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// It commits, flushes, rotates, takes snapshots and purges.
    Writing,
    /// It takes in a snapshot.
    Installing,
}

impl Scene {
    /// All scenes.
    pub const ALL: [Self; 2] = [Self::Writing, Self::Installing];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Writing => "writing",
            Self::Installing => "installing",
        }
    }
}

/// One run of a scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which scene.
    pub scene: Scene,
    /// From which all is drawn.
    pub seed: u64,
    /// How which operation fails, counted from the start of the scene; `None` for a sound disk.
    pub strike: Option<(Failure, u64)>,
    /// At which operation of the start after it the power is cut once more.
    pub again: Option<u64>,
}

/// What a run of a scene came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Changing operations of the node's disk during the scene.
    pub changes: u64,
    /// Its reads.
    pub reads: u64,
    /// Changing operations of the start after it.
    pub start_changes: u64,
    /// Transactions acknowledged.
    pub acknowledged: u64,
    /// Whether the node stopped by itself.
    pub stopped: bool,
    /// Whether the second cut came during the start.
    pub cut_again: bool,
}

type Rows = BTreeMap<Bytes, Bytes>;

/// What the client has been told.
#[derive(Default)]
struct Model {
    rows: Rows,
    /// The transaction that was not answered, and the state after it.
    maybe: Option<(RequestId, Rows)>,
    acknowledged: u64,
    counter: u64,
}

/// Runs a scene.
///
/// # Errors
/// What is wrong; the message says how to replay it.
pub fn run(step: Step) -> Result<Ran, String> {
    let sim = Arc::new(Simulation::new(step.seed));
    let hashes = Hashes::default();
    let nodes = match step.scene {
        Scene::Writing => 1,
        Scene::Installing => 3,
    };
    let config = ConsensusConfig {
        snapshot_log_bytes: 4096,
        entries_kept_behind_snapshot: 4,
        snapshot_chunk_bytes: 512,
        append_bytes_max: 4096,
        snapshot_timeout: Duration::from_secs(3),
        upkeep_interval: Duration::from_millis(300),
        ..ConsensusConfig::default()
    };
    let log = LogConfig { segment_bytes: 16 << 10, spare_count: 1, ..LogConfig::default() };
    let cluster = {
        let hashes = hashes.clone();
        Cluster::new(sim.clone(), nodes, vec![GROUP], config, move |_, _| Stores::new(hashes.clone()))
            .with_log(log)
    };
    let result = Arc::new(Mutex::new(Err("the scene did not end".to_owned())));
    let slot = Arc::clone(&result);
    let at_work = cluster.clone();
    let ended = sim.block_on(SCENE_LIMIT, async move {
        let stage =
            Stage { cluster: at_work, hashes, victim: NodeId::new(nodes), dice: Dice::new(step.seed) };
        *slot.lock() = stage.play(step).await;
    });
    for node in cluster.ids() {
        cluster.crash(node);
    }
    let outcome = match ended {
        Ok(()) => result.lock().clone(),
        Err(error) => Err(error.to_string()),
    };
    outcome.map_err(|wrong| format!("{wrong}; replay: crash-lab --step {}", step.text()))
}

impl Step {
    /// As it is written behind `--step`.
    #[must_use]
    pub fn text(&self) -> String {
        let strike = self.strike.map_or_else(|| "-".to_owned(), |(kind, at)| format!("{kind:?}@{at}"));
        let again = self.again.map_or_else(|| "-".to_owned(), |at| at.to_string());
        format!("{}:{}:{strike}:{again}", self.scene.name(), self.seed)
    }

    /// What [`Step::text`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Step> {
        let mut parts = text.split(':');
        let (scene, seed, strike, again) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let scene = *Scene::ALL.iter().find(|known| known.name() == scene)?;
        let strike = match strike.split_once('@') {
            Some((kind, at)) => {
                let kind = *Failure::ALL.iter().find(|known| format!("{known:?}") == kind)?;
                Some((kind, at.parse().ok()?))
            }
            None => None,
        };
        Some(Step { scene, seed: seed.parse().ok()?, strike, again: again.parse().ok() })
    }
}

struct Stage {
    cluster: Cluster<Stores>,
    hashes: Hashes,
    victim: NodeId,
    dice: Dice,
}

impl Stage {
    async fn play(mut self, step: Step) -> Result<Ran, String> {
        for node in self.cluster.ids() {
            self.cluster.start(node).await;
        }
        self.cluster.initialize().await;
        let mut model = Model::default();
        self.commit_until_served(&mut model).await?;
        let (mut ran, served) = match step.scene {
            Scene::Writing => self.writing(step, &mut model).await?,
            Scene::Installing => self.installing(step, &mut model).await?,
        };
        ran.stopped = self.cluster.has_stopped(self.victim) || !self.cluster.up().contains(&self.victim);
        // Without power there is no disk either, and the node is as good as gone.
        let has_power = step.strike.map(|(failure, _)| failure) != Some(Failure::Power);
        if step.scene == Scene::Installing && !ran.stopped && has_power {
            self.agree().await.map_err(|why| format!("the node lives and does not catch up: {why}"))?;
        }
        if step.scene == Scene::Writing
            && served
            && !ran.stopped
            && step.strike.map(|s| s.0) != Some(Failure::Power)
        {
            // The failure was survived, or hit nothing: the node must serve on without help.
            // Or it comes to light only now, and the node stops then.
            let served = self.commit_until_served(&mut model).await;
            ran.stopped = self.cluster.has_stopped(self.victim);
            if !ran.stopped {
                served.map_err(|why| format!("the node lives and does not serve: {why}"))?;
            }
        }
        if step.strike.map(|(failure, _)| failure) == Some(Failure::Killed) {
            self.cluster.kill(self.victim);
            self.cluster.start(self.victim).await;
            self.commit_until_served(&mut model).await.map_err(|why| format!("after the kill: {why}"))?;
            // Time for flushes and purges that build on what was found.
            self.cluster.sleep(Duration::from_secs(1)).await;
        }
        self.cluster.crash(self.victim);
        let (before, _) = self.cluster.disk_operations(self.victim);
        if let Some(at) = step.again {
            let faults = DiskFaults { power_cut_after: Some(at), ..DiskFaults::default() };
            self.cluster.fail_disk(self.victim, faults);
            self.cluster.start(self.victim).await;
            self.cluster.sleep(Duration::from_millis(700)).await;
            self.cluster.crash(self.victim);
            ran.cut_again = true;
        }
        self.cluster.start(self.victim).await;
        self.commit_until_served(&mut model).await.map_err(|why| format!("after the start: {why}"))?;
        ran.start_changes = self.cluster.disk_operations(self.victim).0 - before;
        self.agree().await?;
        self.compare(&mut model).await?;
        if let Some(wrong) = self.hashes.wrong().into_iter().chain(self.cluster.failures()).next() {
            return Err(wrong);
        }
        ran.acknowledged = model.acknowledged;
        if step.strike.is_none() {
            self.check_scene(step.scene)?;
        }
        Ok(ran)
    }

    /// Whether with a sound disk all came about that the scene is there for.
    fn check_scene(&self, scene: Scene) -> Result<(), String> {
        let files = self.cluster.disk_files(self.victim);
        let has = |what: &str| files.iter().any(|path| path.to_string_lossy().contains(what));
        let came_about = match scene {
            // The log went on to another segment, and the first one was given up.
            Scene::Writing => !has("0000000000000001.log"),
            // Another engine took the place of the first.
            Scene::Installing => has("store-2"),
        };
        if came_about { Ok(()) } else { Err(format!("the scene shows too little: {files:?}")) }
    }

    fn arm(&self, step: Step) {
        if let Some((failure, after)) = step.strike {
            self.cluster.fail_disk(self.victim, failure.faults(after));
        }
    }

    /// A node alone does all that it ever does to its disk. Also gives whether it was answered to the end.
    async fn writing(&mut self, step: Step, model: &mut Model) -> Result<(Ran, bool), String> {
        let before = self.cluster.disk_operations(self.victim);
        self.arm(step);
        let mut answered = 0;
        for _ in 0..TRANSACTIONS {
            if self.cluster.has_stopped(self.victim) || !self.commit(model).await {
                break;
            }
            answered += 1;
            let pause = Duration::from_millis(self.dice.below(60));
            self.cluster.sleep(pause).await;
        }
        // Time for flushes, snapshots and purges.
        self.cluster.sleep(Duration::from_secs(2)).await;
        let after = self.cluster.disk_operations(self.victim);
        let ran = Ran { changes: after.0 - before.0, reads: after.1 - before.1, ..Ran::default() };
        // What was not answered may still come: it stays unknown until the comparison.
        Ok((ran, answered == TRANSACTIONS))
    }

    /// A replica comes back and finds what it needs purged.
    async fn installing(&mut self, step: Step, model: &mut Model) -> Result<(Ran, bool), String> {
        self.cluster.crash(self.victim);
        for _ in 0..TRANSACTIONS {
            if !self.commit(model).await {
                self.commit_until_served(model).await?;
            }
            self.cluster.sleep(Duration::from_millis(20)).await;
        }
        self.cluster.sleep(Duration::from_secs(2)).await;
        let before = self.cluster.disk_operations(self.victim);
        self.arm(step);
        self.cluster.start(self.victim).await;
        for _ in 0..6 {
            self.cluster.sleep(Duration::from_millis(100)).await;
            // The others serve whatever happens to this one.
            self.commit_until_served(model).await?;
        }
        self.cluster.sleep(Duration::from_millis(600)).await;
        let after = self.cluster.disk_operations(self.victim);
        Ok((Ran { changes: after.0 - before.0, reads: after.1 - before.1, ..Ran::default() }, false))
    }

    fn store(&self) -> Option<(NodeId, KvStore)> {
        let (leader, _) = self.cluster.leader(GROUP)?;
        Some((leader, self.cluster.machines(leader).store(GROUP)?))
    }

    /// One transaction; whether it was acknowledged. What was not is unknown from then on.
    async fn commit(&mut self, model: &mut Model) -> bool {
        let Some((leader, store)) = self.store() else { return false };
        model.counter += 1;
        let request = RequestId {
            incarnation: Incarnation::new(1),
            session: SessionId::new(1),
            counter: model.counter,
        };
        let options = TxnOptions { isolation: Isolation::ReadCommitted, access: Access::ReadWrite, request };
        let mut after = model.rows.clone();
        let changes = self.draw(model.counter, &after);
        for (key, value) in &changes {
            match value {
                Some(value) => after.insert(key.clone(), value.clone()),
                None => after.remove(key),
            };
        }
        let writing = async move {
            let mut txn = store.begin(options).await?;
            for (key, value) in changes {
                match value {
                    Some(value) => txn.put(key, value)?,
                    None => txn.delete(key)?,
                }
            }
            txn.commit().await.map(drop)
        };
        let env = self.cluster.sim().harness();
        let told = env.timeout(Duration::from_secs(4), self.cluster.at(leader, "transaction", writing)).await;
        match told {
            Ok(Some(Ok(()))) => {
                model.acknowledged += 1;
                model.rows = after;
                true
            }
            Ok(Some(Err(error))) if !matches!(error, TxnError::UnknownOutcome | TxnError::Stopped) => {
                // Refused: nothing of it is there.
                false
            }
            _ => {
                model.maybe = Some((request, after));
                false
            }
        }
    }

    /// What a transaction changes: mostly a few small rows, at times large ones, at times deletions.
    fn draw(&mut self, counter: u64, rows: &Rows) -> Vec<(Bytes, Option<Bytes>)> {
        let mut changes = vec![(Bytes::from_static(b"last"), Some(Bytes::from(counter.to_string())))];
        for _ in 0..1 + self.dice.below(4) {
            let key = Bytes::from(format!("row {:03}", self.dice.below(60)));
            if rows.contains_key(&key) && self.dice.chance(1, 3) {
                changes.push((key, None));
                continue;
            }
            let length = if self.dice.chance(1, 6) { 900 } else { 10 + self.dice.index(150) };
            let mut value = format!("{counter} ").into_bytes();
            value.resize(length, u8::try_from(counter % 251).unwrap_or(0));
            changes.push((key, Some(Bytes::from(value))));
        }
        changes
    }

    /// Waits until transactions are acknowledged again. Before the first one it is asked what became of the unknown one.
    async fn commit_until_served(&mut self, model: &mut Model) -> Result<(), String> {
        let env = self.cluster.sim().harness();
        let until = env.now() + SERVICE_LIMIT;
        loop {
            if self.store().is_some() {
                let settled = model.maybe.is_none() || self.settle(model).await?;
                if settled && self.commit(model).await {
                    return Ok(());
                }
            }
            if env.now() > until {
                return Err(format!("nothing is acknowledged within {SERVICE_LIMIT:?}"));
            }
            self.cluster.sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks the leader what became of the transaction that was not answered. False when it cannot say now.
    async fn settle(&mut self, model: &mut Model) -> Result<bool, String> {
        let (Some((request, maybe)), Some((leader, store))) = (&model.maybe, self.store()) else {
            return Ok(false);
        };
        let (request, asked) = (*request, store.clone());
        let asking = async move { asked.fate(request, Version::ZERO).await };
        let asking = self.cluster.at(leader, "outcome", asking);
        let env = self.cluster.sim().harness();
        match env.timeout(Duration::from_secs(4), asking).await {
            Ok(Some(Ok(Fate::Committed(_)))) => model.rows = maybe.clone(),
            Ok(Some(Ok(Fate::Aborted))) => {}
            _ => return Ok(false),
        }
        model.maybe = None;
        match self.read(leader, store, Access::ReadOnly).await {
            Some(found) if found != model.rows => Err(differs(&model.rows, &found)),
            _ => Ok(true),
        }
    }

    async fn read(&self, node: NodeId, store: KvStore, access: Access) -> Option<Rows> {
        let request = RequestId { incarnation: Incarnation::new(0), session: SessionId::new(0), counter: 0 };
        let options = TxnOptions { isolation: Isolation::RepeatableRead, access, request };
        let reading = async move {
            let txn = store.begin(options).await?;
            let mut rows = Rows::new();
            let mut rest = Some((Bytes::from_static(b"a"), Bytes::from_static(b"z")));
            while let Some((start, end)) = rest {
                let request =
                    ScanRequest { start, end, direction: Direction::Forward, max_bytes: 4000, max_rows: 50 };
                let chunk = txn.scan(request)?;
                rows.extend(
                    chunk
                        .iter()
                        .map(|(key, value)| (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))),
                );
                rest = chunk.rest();
            }
            Ok::<_, TxnError>(rows)
        };
        let env = self.cluster.sim().harness();
        let read = env.timeout(Duration::from_secs(4), self.cluster.at(node, "read", reading)).await;
        read.ok().flatten().and_then(Result::ok)
    }

    /// Waits until all nodes have applied the same.
    async fn agree(&self) -> Result<(), String> {
        let env = self.cluster.sim().harness();
        let until = env.now() + SERVICE_LIMIT;
        loop {
            let states: Vec<_> =
                self.cluster.ids().into_iter().map(|node| self.cluster.applied(node, GROUP)).collect();
            if states.iter().all(|state| state.is_some() && *state == states[0]) {
                return Ok(());
            }
            if env.now() > until {
                return Err(format!("the nodes do not come to agree: {states:x?}"));
            }
            self.cluster.sleep(Duration::from_millis(50)).await;
        }
    }

    /// What every node has stored is what the client was told.
    async fn compare(&mut self, model: &mut Model) -> Result<(), String> {
        for node in self.cluster.ids() {
            let store = self.cluster.machines(node).store(GROUP).ok_or("no store")?;
            let found = self.read(node, store, Access::ReadLocal).await.ok_or("a replica cannot be read")?;
            if found != model.rows {
                return Err(format!("node {node}: {}", differs(&model.rows, &found)));
            }
            match self.cluster.machines(node).recompute_hash(GROUP) {
                Ok(true) => {}
                other => {
                    return Err(format!("node {node}: the hash is not that of what is stored: {other:?}"));
                }
            }
        }
        Ok(())
    }
}

/// Where a state is not what it may be.
fn differs(told: &Rows, found: &Rows) -> String {
    let short = |value: Option<&Bytes>| {
        value.map(|value| String::from_utf8_lossy(&value[..value.len().min(8)]).into_owned())
    };
    let keys: std::collections::BTreeSet<&Bytes> = told.keys().chain(found.keys()).collect();
    let wrong: Vec<String> = keys
        .into_iter()
        .filter(|key| told.get(*key) != found.get(*key))
        .take(4)
        .map(|key| {
            let key_text = String::from_utf8_lossy(key);
            format!("{key_text}: told {:?}, found {:?}", short(told.get(key)), short(found.get(key)))
        })
        .collect();
    format!("the rows are not those that were acknowledged: {}", wrong.join("; "))
}
