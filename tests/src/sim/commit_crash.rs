//! Leaders lose their power while they commit, again and again; of every commit it must be known in the end whether it
//! took place, and that answer must be what is stored.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use rustydb_consensus::ConsensusConfig;
use rustydb_env::{Rng, sim::Simulation};
use rustydb_txn::{Access, Fate, Isolation, KvStore, TxnError, TxnOptions};
use rustydb_types::ids::{GroupId, Incarnation, NodeId, RequestId, SessionId, Version};

use super::{
    cluster::Cluster,
    stores::{Hashes, Stores},
};

const GROUP: GroupId = GroupId::new(2);
const NODES: u64 = 3;
/// A crash comes at most so long after the commit was asked for, which takes about as long.
const CRASH_WITHIN: u64 = 2_000;
const LOOK: Duration = Duration::from_millis(10);
/// How long an outcome may take to be learnt.
const LIMIT: Duration = Duration::from_secs(30);
/// Virtual time for each crash.
const CRASH_LIMIT: Duration = Duration::from_secs(60);

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrashReport {
    /// Crashes while a commit was under way.
    pub crashes: u64,
    /// Commits that were acknowledged before the crash.
    pub acknowledged: u64,
    /// Commits in doubt that took place.
    pub committed: u64,
    /// Commits in doubt that did not.
    pub aborted: u64,
    /// What was wrong; empty in a good run.
    pub wrong: Vec<String>,
}

/// Crashes leaders so many times, from a seed.
#[must_use]
pub fn run_commit_crashes(seed: u64, crashes: u64) -> CrashReport {
    let sim = Arc::new(Simulation::new(seed));
    let config = ConsensusConfig {
        snapshot_log_bytes: 16 << 10,
        entries_kept_behind_snapshot: 50,
        upkeep_interval: Duration::from_millis(300),
        ..ConsensusConfig::default()
    };
    let hashes = Hashes::default();
    let cluster = Cluster::new(sim.clone(), NODES, vec![GROUP], config, |_, _| Stores::new(hashes.clone()));
    let report = Arc::new(Mutex::new(CrashReport::default()));
    let limit = CRASH_LIMIT * u32::try_from(crashes).unwrap_or(u32::MAX);
    let ended = sim.block_on(limit, scenario(cluster.clone(), crashes, Arc::clone(&report)));
    let mut report = report.lock().clone();
    if let Err(error) = ended {
        report.wrong.push(error.to_string());
    }
    report.wrong.extend(hashes.wrong());
    report.wrong.extend(cluster.failures());
    for node in cluster.ids() {
        cluster.crash(node);
    }
    report
}

async fn scenario(cluster: Cluster<Stores>, crashes: u64, report: Arc<Mutex<CrashReport>>) {
    let mut random = cluster.sim().harness().rng();
    for node in cluster.ids() {
        cluster.start(node).await;
    }
    cluster.initialize().await;
    for number in 1..=crashes {
        if let Err(wrong) = crash(&cluster, number, &mut random, &report).await {
            report.lock().wrong.push(format!("crash {number}: {wrong}"));
            return;
        }
        report.lock().crashes += 1;
    }
}

const fn options(access: Access, request: RequestId) -> TxnOptions {
    TxnOptions { isolation: Isolation::ReadCommitted, access, request }
}

async fn leader(cluster: &Cluster<Stores>) -> Result<NodeId, String> {
    let env = cluster.sim().harness();
    let until = env.now() + LIMIT;
    loop {
        if let Some((leader, _)) = cluster.leader(GROUP) {
            return Ok(leader);
        }
        if env.now() > until {
            return Err("nobody leads".to_owned());
        }
        cluster.sleep(LOOK).await;
    }
}

async fn crash(
    cluster: &Cluster<Stores>,
    number: u64,
    random: &mut Rng,
    report: &Mutex<CrashReport>,
) -> Result<(), String> {
    let request = RequestId { incarnation: Incarnation::new(1), session: SessionId::new(number), counter: 1 };
    let key = Bytes::from(format!("row {number}"));
    let (victim, since, committing) = open(cluster, request, &key).await?;
    let env = cluster.sim().harness();
    let committing = env.spawn("client", committing);
    cluster.sleep(Duration::from_micros(random.range(0..CRASH_WITHIN))).await;
    cluster.crash(victim);
    // The client has an answer, or its connection is gone.
    let told = committing.await.ok().flatten();
    let fate = ask(cluster, request, since).await?;
    let is_there = read(cluster, &key).await?;
    match (told, fate) {
        (Some(Ok(())), Fate::Committed(_)) => report.lock().acknowledged += 1,
        (Some(Err(TxnError::UnknownOutcome)) | None, Fate::Committed(_)) => report.lock().committed += 1,
        (Some(Err(_)) | None, Fate::Aborted) => report.lock().aborted += 1,
        (told, fate) => return Err(format!("the client was told {told:?}, and the outcome is {fate:?}")),
    }
    if is_there != matches!(fate, Fate::Committed(_)) {
        return Err(format!("the outcome is {fate:?}, and that the row is there is {is_there}"));
    }
    cluster.start(victim).await;
    let again = ask(cluster, request, since).await?;
    if again != fate { Err(format!("first {fate:?}, then {again:?}")) } else { Ok(()) }
}

type Committing = std::pin::Pin<Box<dyn Future<Output = Option<Result<(), TxnError>>> + Send>>;

/// A transaction at the leader that has written its row and is about to commit.
async fn open(
    cluster: &Cluster<Stores>,
    request: RequestId,
    key: &Bytes,
) -> Result<(NodeId, Version, Committing), String> {
    let (leader, txn) = at_leader(cluster, "begin", |store| {
        let key = key.clone();
        async move {
            let mut txn = store.begin(options(Access::ReadWrite, request)).await?;
            txn.put(key, Bytes::from_static(b"value"))?;
            Ok(txn)
        }
    })
    .await?;
    let since = txn.snapshot();
    let cluster = cluster.clone();
    let commit = async move { txn.commit().await.map(|_| ()) };
    let committing = async move { cluster.at(leader, "commit", commit).await };
    Ok((leader, since, Box::pin(committing)))
}

async fn ask(cluster: &Cluster<Stores>, request: RequestId, since: Version) -> Result<Fate, String> {
    let asking = |store: KvStore| async move { store.fate(request, since).await };
    at_leader(cluster, "fate", asking).await.map(|(_, fate)| fate)
}

/// Whether a row is there.
async fn read(cluster: &Cluster<Stores>, key: &Bytes) -> Result<bool, String> {
    let nobody = RequestId { incarnation: Incarnation::new(0), session: SessionId::new(0), counter: 0 };
    let reading = |store: KvStore| {
        let key = key.clone();
        async move {
            let mut txn = store.begin(options(Access::ReadOnly, nobody)).await?;
            txn.begin_statement();
            let found = txn.get(&key)?.is_some();
            txn.settle_reads().await?;
            Ok(found)
        }
    };
    at_leader(cluster, "read", reading).await.map(|(_, found)| found)
}

/// Asks whoever leads, until there is an answer; gives who gave it, too.
async fn at_leader<T, F>(
    cluster: &Cluster<Stores>,
    name: &'static str,
    ask: impl Fn(KvStore) -> F,
) -> Result<(NodeId, T), String>
where
    T: Send + 'static,
    F: Future<Output = Result<T, TxnError>> + Send + 'static,
{
    let env = cluster.sim().harness();
    let until = env.now() + LIMIT;
    loop {
        let leader = leader(cluster).await?;
        if let Some(store) = cluster.machines(leader).store(GROUP)
            && let Some(Ok(answer)) = cluster.at(leader, name, ask(store)).await
        {
            return Ok((leader, answer));
        }
        if env.now() > until {
            return Err(format!("{name}: no leader answers within {LIMIT:?}"));
        }
        cluster.sleep(LOOK).await;
    }
}
