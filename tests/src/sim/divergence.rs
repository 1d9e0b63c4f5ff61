//! One replica comes to hold another row than the log says, or its files change at rest: it must be found, stop serving,
//! and be repaired from its peers, whether it leads or not, while clients go on; and from the stop on no client may be
//! shown the wrong row. A file that was changed must never show one.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use rustydb_consensus::{Agreement, ConsensusConfig, Health};
use rustydb_env::{Env, Rng, sim::Simulation};
use rustydb_txn::{Access, Fate, Isolation, KvStore, TxnError, TxnOptions};
use rustydb_types::ids::{GroupId, Incarnation, NodeId, RequestId, SessionId, Version};

use super::{
    cluster::Cluster,
    stores::{Hashes, Stores},
};

const GROUP: GroupId = GroupId::new(2);
const NODES: u64 = 3;
const CLIENTS: u64 = 3;
/// What every value ends with; a replica that applies wrongly stores something else there.
const RIGHT: u8 = b'r';
/// How long each thing may take that must come to pass.
const LIMIT: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);
/// Bytes of a page of an engine's file.
const PAGE: usize = 4096;
/// A repair takes longer than this.
const LOOK_CLOSELY: Duration = Duration::from_micros(100);
/// The whole run.
const RUN_LIMIT: Duration = Duration::from_secs(300);

/// Which replica goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The one that leads.
    Leader,
    /// Another.
    Follower,
    /// Another, which loses its power as soon as it has stopped serving.
    FollowerThatCrashes,
    /// Another, and while it is repaired the leader loses its power.
    FollowerWhoseLeaderCrashes,
}

/// How it goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It applies another row than the log says.
    Row,
    /// A bit of each page of its engine changes while it serves.
    Pages,
    /// The same, while it is down.
    PagesAtRest,
    /// A bit of the block that names the others changes while it is down.
    HeadAtRest,
    /// A bit of what names the engine changes while it is down.
    PointerAtRest,
    /// A bit in the midst of its log changes while it is down.
    LogAtRest,
}

impl Wrong {
    /// Those of the engine.
    pub const OF_ENGINE: [Wrong; 4] =
        [Wrong::Pages, Wrong::PagesAtRest, Wrong::HeadAtRest, Wrong::PointerAtRest];
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DivergenceReport {
    /// Commits that were acknowledged.
    pub acknowledged: u64,
    /// Reads that were answered after the stop.
    pub reads_after_stop: u64,
    /// Wrong rows that were shown before the stop.
    pub shown_before_stop: u64,
    /// Virtual time from the wrong row to the stop.
    pub found_after: Duration,
    /// Virtual time from the stop to the repair.
    pub repaired_after: Duration,
    /// Fingerprint of the run.
    pub trace_hash: u64,
    /// What was wrong; empty in a good run.
    pub wrong: Vec<String>,
}

#[derive(Default)]
struct Seen {
    report: DivergenceReport,
    /// The wrong replica has stopped.
    has_stopped: bool,
    is_over: bool,
}

#[derive(Clone)]
struct Stage {
    cluster: Cluster<Stores>,
    seen: Arc<Mutex<Seen>>,
}

/// Runs the scenario from a seed.
#[must_use]
pub fn run_divergence(seed: u64, victim: Victim, wrong: Wrong) -> DivergenceReport {
    let sim = Arc::new(Simulation::new(seed));
    let config = ConsensusConfig {
        snapshot_log_bytes: 64 << 10,
        entries_kept_behind_snapshot: 50,
        snapshot_chunk_bytes: 512,
        upkeep_interval: Duration::from_millis(300),
        compare_interval: Duration::from_secs(2),
        ..ConsensusConfig::default()
    };
    let hashes = Hashes::default();
    let cluster = Cluster::new(sim.clone(), NODES, vec![GROUP], config, |_, _| Stores::new(hashes.clone()));
    // Closed again before a repair that failed for it is tried once more.
    cluster.network().open_bulk_on_demand(Duration::from_millis(400));
    let stage = Stage { cluster, seen: Arc::default() };
    if let Err(error) = sim.block_on(RUN_LIMIT, scenario(stage.clone(), victim, wrong)) {
        stage.wrong(error.to_string());
    }
    let mut report = stage.seen.lock().report.clone();
    report.trace_hash = sim.trace_hash();
    for node in stage.cluster.ids() {
        stage.cluster.crash(node);
    }
    report
}

impl Stage {
    fn wrong(&self, wrong: String) {
        self.seen.lock().report.wrong.push(wrong);
    }

    fn agreement(&self, node: NodeId) -> Agreement {
        self.cluster.group(node, GROUP).map(|group| group.agreement()).unwrap_or_default()
    }

    /// Waits until something holds; says so when it does not come to that.
    async fn until(&self, what: &str, holds: impl Fn(&Stage) -> bool) -> Duration {
        let env = self.cluster.sim().harness();
        let began = env.now();
        while !holds(self) {
            if env.now() > began + LIMIT {
                self.wrong(format!("{what}: not within {LIMIT:?}"));
                break;
            }
            self.cluster.sleep(LOOK_CLOSELY).await;
        }
        env.now() - began
    }

    /// Makes a replica wrong.
    async fn spoil(&self, node: NodeId, wrong: Wrong, random: &mut Rng) {
        if wrong == Wrong::Row {
            self.cluster.machines(node).tamper();
            self.until("a wrong row", |stage| stage.cluster.machines(node).has_tampered()).await;
            return;
        }
        let is_flushed = |stage: &Stage| {
            let store = stage.cluster.machines(node).store(GROUP);
            store.is_some_and(|store| store.stats().file_size_bytes > 64 << 10)
        };
        self.until("rows in the engine", is_flushed).await;
        if wrong != Wrong::Pages {
            self.cluster.crash(node);
        }
        let mut flipped = 0;
        for path in self.cluster.disk_files(node) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let size = self.cluster.disk_content(node, &path).map_or(0, |content| content.len());
            let offsets: Vec<usize> = match wrong {
                Wrong::PointerAtRest if name == "CURRENT" => vec![random_below(random, size)],
                // The first sector of the first block, behind the head and its checksums.
                // With much behind it that was synced.
                Wrong::LogAtRest if name.ends_with("1.log") => {
                    let content = self.cluster.disk_content(node, &path).unwrap_or_default();
                    let written = content.iter().rposition(|byte| *byte != 0).unwrap_or(0);
                    vec![random_below(random, written / 2)]
                }
                Wrong::HeadAtRest if name.starts_with("store-") => vec![2 * PAGE + random_below(random, 320)],
                Wrong::Pages | Wrong::PagesAtRest if name.starts_with("store-") => {
                    (3..size / PAGE).map(|page| page * PAGE + random_below(random, PAGE)).collect()
                }
                _ => Vec::new(),
            };
            for offset in offsets {
                flipped += usize::from(self.cluster.flip_bit(node, &path, offset, 2));
            }
        }
        if flipped == 0 {
            self.wrong("no file was damaged".to_owned());
        }
        if wrong == Wrong::LogAtRest {
            self.cluster.expect_damaged_log(node);
        }
        if wrong != Wrong::Pages {
            self.cluster.start(node).await;
        }
    }

    /// Whether a replica was found wrong.
    fn is_found(&self, node: NodeId, wrong: Wrong) -> bool {
        match wrong {
            Wrong::LogAtRest => self.cluster.is_mending(node, GROUP),
            _ => self.agreement(node).divergences > 0,
        }
    }

    /// Whether a replica is as good as the others again.
    fn is_repaired(&self, node: NodeId, wrong: Wrong) -> bool {
        let agreement = self.agreement(node);
        match wrong {
            Wrong::LogAtRest => {
                self.cluster.group(node, GROUP).is_some() && !self.cluster.is_mending(node, GROUP)
            }
            _ => agreement.repairs == 1 && agreement.health == Health::Sound,
        }
    }

    /// Hands the leadership to a node.
    async fn lead_by(&self, node: NodeId) {
        let env = self.cluster.sim().harness();
        let until = env.now() + LIMIT;
        while self.cluster.leader(GROUP).map(|(leader, _)| leader) != Some(node) {
            if env.now() > until {
                return self.wrong(format!("node {node} does not lead after its repair"));
            }
            if let Some((leader, _)) = self.cluster.leader(GROUP)
                && let Some(group) = self.cluster.group(leader, GROUP)
            {
                let handing = async move { group.transfer_leader(node).await };
                // A transfer that fails is tried again.
                let _result = self.cluster.at(leader, "transfer", handing).await;
            }
            self.cluster.sleep(LOOK).await;
        }
    }
}

fn random_below(random: &mut Rng, bound: usize) -> usize {
    usize::try_from(random.range(0..bound.max(1) as u64)).unwrap_or(0)
}

async fn scenario(stage: Stage, victim: Victim, how: Wrong) {
    let cluster = stage.cluster.clone();
    let env = cluster.sim().harness();
    for node in cluster.ids() {
        cluster.start(node).await;
    }
    cluster.initialize().await;
    let clients: Vec<_> =
        (1..=CLIENTS).map(|number| env.spawn("client", client(stage.clone(), number, env.rng()))).collect();
    stage.until("commits", |stage| stage.seen.lock().report.acknowledged > 50).await;
    let Some((leader, _)) = cluster.leader(GROUP) else { return stage.wrong("nobody leads".to_owned()) };
    let follower = cluster.ids().into_iter().find(|node| *node != leader);
    let wrong = if victim == Victim::Leader { leader } else { follower.unwrap_or(leader) };
    stage.spoil(wrong, how, &mut env.rng()).await;
    let found = stage.until("the wrong replica stops", |stage| stage.is_found(wrong, how)).await;
    {
        let mut seen = stage.seen.lock();
        (seen.has_stopped, seen.report.found_after) = (true, found);
    }
    if victim == Victim::FollowerThatCrashes {
        cluster.crash(wrong);
        cluster.sleep(Duration::from_secs(1)).await;
        cluster.start(wrong).await;
        if how != Wrong::LogAtRest && !is_withheld(&cluster, wrong).await {
            stage.wrong("a wrong state is shown after a restart".to_owned());
        }
    }
    if victim == Victim::FollowerWhoseLeaderCrashes {
        cluster.sleep(Duration::from_micros(env.rng().range(0..400_000))).await;
        let leader = cluster.leader(GROUP).map(|(leader, _)| leader).filter(|leader| *leader != wrong);
        if let Some(leader) = leader {
            cluster.crash(leader);
            cluster.sleep(Duration::from_secs(2)).await;
            cluster.start(leader).await;
        }
    }
    let repaired = stage.until("the wrong replica is repaired", |stage| stage.is_repaired(wrong, how)).await;
    stage.seen.lock().report.repaired_after = repaired;
    let before = stage.seen.lock().report.acknowledged;
    stage.lead_by(wrong).await;
    stage
        .until("commits by the repaired replica", |stage| stage.seen.lock().report.acknowledged > before + 50)
        .await;
    stage.seen.lock().is_over = true;
    for client in clients {
        let _ended = client.await;
    }
    stage
        .until("all replicas are equal", |stage| {
            let cluster = &stage.cluster;
            let states: Vec<_> = cluster.ids().iter().map(|node| cluster.applied(*node, GROUP)).collect();
            states.windows(2).all(|pair| pair.first() == pair.last())
        })
        .await;
    for node in cluster.ids() {
        match cluster.machines(node).recompute_hash(GROUP) {
            Ok(true) => {}
            other => stage.wrong(format!("node {node}: the hash is not that of what is stored: {other:?}")),
        }
        let agreement = stage.agreement(node);
        if node != wrong && agreement.divergences > 0 {
            stage.wrong(format!("node {node} was sound and was stopped: {agreement:?}"));
        }
    }
    cluster.failures().into_iter().for_each(|failure| stage.wrong(failure));
}

/// Whether a node gives no rows to whoever asks for those of its own replica.
async fn is_withheld(cluster: &Cluster<Stores>, node: NodeId) -> bool {
    let Some(store) = cluster.machines(node).store(GROUP) else { return true };
    let reading = async move { store.begin(options(Access::ReadLocal, NOBODY)).await.err() };
    matches!(cluster.at(node, "read", reading).await, Some(Some(TxnError::NotLeader { .. })))
}

/// Under this name nobody asks for an outcome.
const NOBODY: RequestId =
    RequestId { incarnation: Incarnation::new(0), session: SessionId::new(0), counter: 0 };

const fn options(access: Access, request: RequestId) -> TxnOptions {
    TxnOptions { isolation: Isolation::RepeatableRead, access, request }
}

fn value(number: u64) -> Bytes {
    let mut value = number.to_le_bytes().to_vec();
    value.push(RIGHT);
    Bytes::from(value)
}

/// Writes rows of its own, which nobody else writes, and reads them: at the leader, and at any replica.
async fn client(stage: Stage, number: u64, mut random: Rng) {
    let mut truth: BTreeMap<Bytes, Option<Bytes>> = BTreeMap::new();
    let mut counter = 0;
    while !stage.seen.lock().is_over {
        counter += 1;
        // No row is written twice: a wrong row that is overwritten is wrong no more.
        let reads = random.chance(1, 3);
        let row = if reads { random.range(0..counter) } else { counter };
        let key = Bytes::from(format!("{number}/{row}"));
        let present = truth.entry(key.clone()).or_default();
        if reads {
            read(&stage, &key, present.as_ref(), &mut random).await;
        } else {
            let request =
                RequestId { incarnation: Incarnation::new(number), session: SessionId::new(number), counter };
            if write(&stage, &key, value(counter), request).await {
                *present = Some(value(counter));
                stage.seen.lock().report.acknowledged += 1;
            }
        }
        stage.cluster.sleep(Duration::from_micros(random.range(100..10_000))).await;
    }
}

async fn read(stage: &Stage, key: &Bytes, truth: Option<&Bytes>, random: &mut Rng) {
    let cluster = &stage.cluster;
    let local = random.chance(1, 2);
    let node = if local {
        let up = cluster.up();
        up.get(usize::try_from(random.range(0..up.len().max(1) as u64)).unwrap_or(0)).copied()
    } else {
        cluster.leader(GROUP).map(|(leader, _)| leader)
    };
    let Some((node, store)) = node.and_then(|node| Some((node, cluster.machines(node).store(GROUP)?))) else {
        return;
    };
    let after_stop = stage.seen.lock().has_stopped;
    let access = if local { Access::ReadLocal } else { Access::ReadOnly };
    let found = cluster.at(node, "read", get(cluster.sim().harness(), store, access, key.clone())).await;
    let Some(Ok(found)) = found else { return };
    let mut seen = stage.seen.lock();
    let is_right = found.as_ref().is_none_or(|value| value.last() == Some(&RIGHT));
    seen.report.reads_after_stop += u64::from(after_stop);
    if is_right {
        // A replica of its own may be behind; the leader may not.
        if !local && found.as_ref() != truth {
            let wrong = format!("node {node} shows {found:?} of {key:?}, not {truth:?}");
            seen.report.wrong.push(wrong);
        }
    } else if after_stop {
        seen.report.wrong.push(format!("node {node} shows a wrong row after the stop: {found:?}"));
    } else {
        seen.report.shown_before_stop += 1;
    }
}

/// Reads a row, dwelling on it for a moment as a statement does.
async fn get(env: Env, store: KvStore, access: Access, key: Bytes) -> Result<Option<Bytes>, TxnError> {
    let mut txn = store.begin(options(access, NOBODY)).await?;
    txn.begin_statement();
    let found = txn.get(&key)?;
    env.sleep(Duration::from_micros(env.rng().range(0..3000))).await;
    txn.settle_reads().await?;
    Ok(found)
}

/// Writes a row; whether it is committed is found out in the end.
async fn write(stage: &Stage, key: &Bytes, value: Bytes, request: RequestId) -> bool {
    let cluster = &stage.cluster;
    let mut asked = false;
    loop {
        let leader = cluster.leader(GROUP);
        if let Some((leader, _)) = leader
            && let Some(store) = cluster.machines(leader).store(GROUP)
        {
            let (key, value) = (key.clone(), value.clone());
            let outcome = if asked {
                let asking = async move { store.fate(request, Version::ZERO).await };
                match cluster.at(leader, "outcome", asking).await {
                    Some(Ok(Fate::Committed(_))) => Some(true),
                    Some(Ok(Fate::Aborted)) => Some(false),
                    _ => None,
                }
            } else {
                let writing = async move {
                    let mut txn = store.begin(options(Access::ReadWrite, request)).await?;
                    txn.put(key, value)?;
                    txn.commit().await
                };
                match cluster.at(leader, "write", writing).await {
                    Some(Ok(_)) => Some(true),
                    Some(Err(TxnError::UnknownOutcome)) | None => None,
                    Some(Err(_)) => Some(false),
                }
            };
            match outcome {
                Some(outcome) => return outcome,
                None => asked = true,
            }
        } else if !asked {
            return false;
        }
        if stage.seen.lock().is_over && leader.is_none() {
            return false;
        }
        cluster.sleep(LOOK).await;
    }
}
