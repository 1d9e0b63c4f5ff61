//! A replica that alone, beside the leader, has what was acknowledged loses its log, and the leader its power: nobody may
//! lead until the leader is back, for whoever did would lead without that.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use rustydb_consensus::ConsensusConfig;
use rustydb_env::sim::Simulation;
use rustydb_txn::{Access, Isolation, TxnError, TxnOptions};
use rustydb_types::ids::{GroupId, Incarnation, NodeId, RequestId, SessionId};

use super::{
    cluster::Cluster,
    stores::{Hashes, Stores},
};

const GROUP: GroupId = GroupId::new(2);
/// How long each thing may take that must come to pass.
const LIMIT: Duration = Duration::from_secs(30);
/// Much longer than an election.
const LONG: Duration = Duration::from_secs(6);
const LOOK: Duration = Duration::from_millis(10);
const RUN_LIMIT: Duration = Duration::from_secs(300);
/// Rows before the third replica is cut off, and as many after.
const ROWS: u64 = 60;

/// What was wrong; empty in a good run.
type Wrong = Arc<Mutex<Vec<String>>>;

/// Runs the scenario from a seed; gives what was wrong.
#[must_use]
pub fn run_lost_log(seed: u64) -> Vec<String> {
    let sim = Arc::new(Simulation::new(seed));
    let hashes = Hashes::default();
    let config = ConsensusConfig::default();
    let cluster = Cluster::new(sim.clone(), 3, vec![GROUP], config, |_, _| Stores::new(hashes.clone()));
    let wrong = Wrong::default();
    if let Err(error) = sim.block_on(RUN_LIMIT, scenario(cluster.clone(), wrong.clone())) {
        wrong.lock().push(error.to_string());
    }
    wrong.lock().extend(cluster.failures());
    for node in cluster.ids() {
        cluster.crash(node);
    }
    std::mem::take(&mut *wrong.lock())
}

async fn until(cluster: &Cluster<Stores>, wrong: &Wrong, what: &str, holds: impl Fn() -> bool) {
    let env = cluster.sim().harness();
    let deadline = env.now() + LIMIT;
    while !holds() {
        if env.now() > deadline {
            return wrong.lock().push(format!("{what}: not within {LIMIT:?}"));
        }
        cluster.sleep(LOOK).await;
    }
}

fn row(number: u64) -> Bytes {
    Bytes::from(format!("row {number}"))
}

const fn options(access: Access, number: u64) -> TxnOptions {
    let (incarnation, session) = (Incarnation::new(1), SessionId::new(number));
    let request = RequestId { incarnation, session, counter: 1 };
    TxnOptions { isolation: Isolation::RepeatableRead, access, request }
}

async fn write(cluster: &Cluster<Stores>, node: NodeId, number: u64) -> bool {
    let Some(store) = cluster.machines(node).store(GROUP) else { return false };
    let writing = async move {
        let mut txn = store.begin(options(Access::ReadWrite, number)).await?;
        txn.put(row(number), Bytes::from(vec![7; 200]))?;
        txn.commit().await
    };
    matches!(cluster.at(node, "write", writing).await, Some(Ok(_)))
}

async fn missing(cluster: &Cluster<Stores>, node: NodeId) -> Result<Vec<u64>, TxnError> {
    let Some(store) = cluster.machines(node).store(GROUP) else { return Err(TxnError::Stopped) };
    let reading = async move {
        let mut txn = store.begin(options(Access::ReadOnly, 0)).await?;
        txn.begin_statement();
        let mut missing = Vec::new();
        for number in 0..2 * ROWS {
            if txn.get(&row(number))?.is_none() {
                missing.push(number);
            }
        }
        txn.settle_reads().await?;
        Ok(missing)
    };
    cluster.at(node, "read", reading).await.unwrap_or(Err(TxnError::Stopped))
}

/// Flips a bit of the log that has much behind it that was synced.
fn damage_log(cluster: &Cluster<Stores>, node: NodeId, wrong: &Wrong) {
    let path = PathBuf::from("/log/0000000000000001.log");
    let content = cluster.disk_content(node, &path).unwrap_or_default();
    let written = content.iter().rposition(|byte| *byte != 0).unwrap_or(0);
    let offset = cluster.sim().harness().rng().range(100..(written as u64 / 2).max(101));
    if !cluster.flip_bit(node, &path, usize::try_from(offset).unwrap_or(0), 3) {
        wrong.lock().push("the log was not damaged".to_owned());
    }
    cluster.expect_damaged_log(node);
}

async fn scenario(cluster: Cluster<Stores>, wrong: Wrong) {
    for node in cluster.ids() {
        cluster.start(node).await;
    }
    cluster.initialize().await;
    until(&cluster, &wrong, "a leader", || cluster.leader(GROUP).is_some()).await;
    let Some((leader, _)) = cluster.leader(GROUP) else { return };
    let others: BTreeMap<u64, NodeId> =
        (0..).zip(cluster.ids().into_iter().filter(|id| *id != leader)).collect();
    let (Some(follower), Some(third)) = (others.get(&0).copied(), others.get(&1).copied()) else { return };
    for number in 0..2 * ROWS {
        if number == ROWS {
            cluster.network().set_cut(third, leader, true);
            cluster.network().set_cut(third, follower, true);
        }
        if !write(&cluster, leader, number).await {
            wrong.lock().push(format!("row {number} was not written"));
        }
    }
    cluster.crash(leader);
    cluster.crash(follower);
    damage_log(&cluster, follower, &wrong);
    cluster.network().heal();
    cluster.start(follower).await;
    let env = cluster.sim().harness();
    let back_at = env.now() + LONG;
    while env.now() < back_at {
        if let Some((node, term)) = cluster.leader(GROUP) {
            wrong.lock().push(format!("node {node} leads in term {term} without what was acknowledged"));
            break;
        }
        cluster.sleep(LOOK).await;
    }
    if !cluster.is_mending(follower, GROUP) {
        wrong.lock().push("a log is whole of which nobody else has a part".to_owned());
    }
    cluster.start(leader).await;
    until(&cluster, &wrong, "the log is whole again", || !cluster.is_mending(follower, GROUP)).await;
    until(&cluster, &wrong, "a leader", || cluster.leader(GROUP).is_some()).await;
    let Some((leads, _)) = cluster.leader(GROUP) else { return };
    match missing(&cluster, leads).await {
        Ok(missing) if missing.is_empty() => {}
        other => wrong.lock().push(format!("node {leads} leads and lacks {other:?}")),
    }
    until(&cluster, &wrong, "all replicas are equal", || {
        let states: Vec<_> = cluster.ids().iter().map(|node| cluster.applied(*node, GROUP)).collect();
        states.windows(2).all(|pair| pair.first() == pair.last())
    })
    .await;
}
