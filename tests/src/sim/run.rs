//! One run from one seed.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use rustydb_consensus::{
    ConsensusConfig,
    loopback::{Link, Traffic},
    model::append_command,
    proposer::{Linearize, Proposal, ProposeError},
};
use rustydb_env::{Rng, sim::Simulation};
use rustydb_types::ids::{GroupId, NodeId};
use tokio::sync::oneshot;

use super::{
    cluster::Cluster,
    invariants::Invariants,
    nemesis::{self, Faults, Strikes},
    oracle::{Counts, History, Told},
};

/// How long a client waits for an answer.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the invariants are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// After everything is healed, all must be well within this.
const CONVERGENCE_LIMIT: Duration = Duration::from_secs(30);
/// Lists per group.
const KEYS: u64 = 4;

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Nodes of the cluster.
    pub nodes: u64,
    /// Virtual time.
    pub virtual_time: Duration,
    /// Fingerprint of the whole run.
    pub trace_hash: u64,
    /// Polls of the executor.
    pub steps: u64,
    /// The clients' operations.
    pub operations: Counts,
    /// The faults.
    pub strikes: Strikes,
    /// Terms in which some group had a leader.
    pub terms: usize,
    /// Frames of the network.
    pub traffic: Traffic,
    /// What was wrong; empty in a good run.
    pub wrong: Vec<String>,
}

/// What the tasks of a run share.
#[derive(Clone)]
struct Shared {
    cluster: Cluster,
    history: Arc<Mutex<History>>,
    stop: Arc<Mutex<bool>>,
}

impl Shared {
    fn stopped(&self) -> bool {
        *self.stop.lock()
    }
}

/// Runs a cluster for about `duration` of virtual time with faults, then without until it has converged.
#[must_use]
pub fn run(seed: u64, duration: Duration) -> Report {
    let sim = Arc::new(Simulation::new(seed));
    let mut random = sim.harness().rng();
    let nodes = if random.chance(1, 3) { 5 } else { 3 };
    let groups = vec![GroupId::SYSTEM, GroupId::new(2)];
    let config = ConsensusConfig {
        // Small, so that snapshots are taken and needed.
        snapshot_log_bytes: 4096,
        entries_kept_behind_snapshot: 50,
        snapshot_chunk_bytes: 512,
        append_bytes_max: 4096,
        snapshot_timeout: Duration::from_secs(3),
        upkeep_interval: Duration::from_millis(300),
        ..ConsensusConfig::default()
    };
    let cluster = Cluster::new(sim.clone(), nodes, groups, config);
    let shared =
        Shared { cluster: cluster.clone(), history: Arc::default(), stop: Arc::new(Mutex::new(false)) };
    let outcome = Arc::new(Mutex::new((Strikes::default(), 0, Vec::new())));
    let scenario = scenario(shared.clone(), random, duration, outcome.clone());
    let limit = duration + CONVERGENCE_LIMIT + Duration::from_secs(60);
    let ended = sim.block_on(limit, scenario);
    let (strikes, terms, mut wrong) = outcome.lock().clone();
    if let Err(error) = ended {
        wrong.push(error.to_string());
    }
    let operations = shared.history.lock().counts();
    Report {
        seed,
        nodes,
        virtual_time: sim.now() - rustydb_env::Instant::ORIGIN,
        trace_hash: sim.trace_hash(),
        steps: sim.step_count(),
        operations,
        strikes,
        terms,
        traffic: cluster.network().traffic(),
        wrong,
    }
}

async fn scenario(
    shared: Shared,
    mut random: Rng,
    duration: Duration,
    outcome: Arc<Mutex<(Strikes, usize, Vec<String>)>>,
) {
    let cluster = shared.cluster.clone();
    let env = cluster.sim().harness();
    for node in cluster.ids() {
        cluster.start(node).await;
    }
    cluster.initialize().await;
    let mut tasks: Vec<_> = (0..4).map(|_| env.spawn("client", client(shared.clone(), env.rng()))).collect();
    let watching = {
        let (shared, outcome) = (shared.clone(), outcome.clone());
        env.spawn("invariants", async move { watch(shared, outcome).await })
    };
    let faults = Faults::draw(&mut random);
    let until = env.now() + duration;
    let mut strikes = Strikes::default();
    while env.now() < until {
        nemesis::strike(&cluster, &mut random, faults, &mut strikes).await;
    }
    cluster.network().heal();
    cluster.network().set_default(Link::default());
    for node in cluster.ids() {
        cluster.set_paused(node, false);
        if !cluster.up().contains(&node) {
            cluster.start(node).await;
        }
    }
    outcome.lock().0 = strikes;
    // Clients go on for a moment: a healed cluster must serve them.
    let before = shared.history.lock().counts().acknowledged;
    cluster.sleep(Duration::from_secs(5)).await;
    if shared.history.lock().counts().acknowledged == before {
        outcome.lock().2.push("nothing was acknowledged within 5 s after everything was healed".to_owned());
    }
    *shared.stop.lock() = true;
    for task in tasks.drain(..) {
        let _ended = task.await;
    }
    converge(&shared, &outcome).await;
    let _ended = watching.await;
}

/// Waits until all nodes agree, then asks the oracle.
async fn converge(shared: &Shared, outcome: &Mutex<(Strikes, usize, Vec<String>)>) {
    let cluster = &shared.cluster;
    let env = cluster.sim().harness();
    let until = env.now() + CONVERGENCE_LIMIT;
    for group in cluster.groups() {
        loop {
            let states: Vec<_> = cluster.ids().into_iter().map(|node| cluster.state(node, *group)).collect();
            let indices: Vec<_> = cluster
                .ids()
                .into_iter()
                .filter_map(|node| cluster.group(node, *group))
                .map(|group| group.status())
                .map(|status| (status.last_log_index, status.last_applied))
                .collect();
            let quiet = indices.iter().all(|(last, applied)| last == applied)
                && states.windows(2).all(|pair| pair.first().map(|s| s.hash) == pair.last().map(|s| s.hash))
                && states.windows(2).all(|pair| {
                    pair.first().map(|s| s.applied.position) == pair.last().map(|s| s.applied.position)
                });
            if quiet {
                break;
            }
            if env.now() > until {
                let found = format!("group {group} has not converged: {indices:?}");
                outcome.lock().2.push(found);
                break;
            }
            cluster.sleep(Duration::from_millis(50)).await;
        }
        for node in cluster.ids() {
            let wrong = shared.history.lock().check(*group, &cluster.state(node, *group));
            outcome.lock().2.extend(wrong.into_iter().map(|wrong| format!("at node {node}: {wrong}")));
        }
    }
}

async fn watch(shared: Shared, outcome: Arc<Mutex<(Strikes, usize, Vec<String>)>>) {
    let mut invariants = Invariants::default();
    while !shared.stopped() {
        let wrong = invariants.look(&shared.cluster);
        {
            let mut outcome = outcome.lock();
            outcome.1 = invariants.leaders();
            // The first few say it all.
            let room = 20usize.saturating_sub(outcome.2.len());
            outcome.2.extend(wrong.into_iter().take(room));
        }
        shared.cluster.sleep(LOOK_INTERVAL).await;
    }
}

/// Appends and reads at whoever seems to lead.
async fn client(shared: Shared, mut random: Rng) {
    while !shared.stopped() {
        let groups = shared.cluster.groups();
        let group = groups[usize::try_from(random.range(0..groups.len() as u64)).unwrap_or(0)];
        let key = random.range(0..KEYS);
        match shared.cluster.leader(group) {
            Some((leader, _)) if random.chance(1, 3) => read(&shared, leader, group, key).await,
            Some((leader, term)) => {
                let value = shared.history.lock().next_value();
                let told = append(&shared, leader, group, term, append_command(key, value)).await;
                shared.history.lock().appended((group, key), value, told);
            }
            None => shared.cluster.sleep(Duration::from_millis(20)).await,
        }
        shared.cluster.sleep(Duration::from_micros(random.range(100..20_000))).await;
    }
}

async fn append(
    shared: &Shared,
    leader: NodeId,
    group: GroupId,
    term: rustydb_types::ids::Term,
    entry: bytes::Bytes,
) -> Told {
    let Some(group) = shared.cluster.group(leader, group) else { return Told::Refused };
    let proposing = async move {
        let (done, result) = oneshot::channel();
        let done = Box::new(move |outcome| {
            // Nobody listens any more when the client gave up.
            let _late = done.send(outcome);
        });
        group.proposer().propose(Proposal { term, entry, done })?;
        result.await.unwrap_or(Err(ProposeError::Unknown))
    };
    let env = shared.cluster.sim().harness();
    let proposing = shared.cluster.at(leader, "append", proposing);
    match env.timeout(OPERATION_TIMEOUT, proposing).await {
        Ok(Some(Ok(()))) => Told::Acknowledged,
        Ok(Some(Err(ProposeError::Unknown))) | Ok(None) | Err(_) => Told::Unknown,
        Ok(Some(Err(_))) => Told::Refused,
    }
}

async fn read(shared: &Shared, leader: NodeId, group: GroupId, key: u64) {
    let Some(handle) = shared.cluster.group(leader, group) else { return };
    let must_see = shared.history.lock().acknowledged((group, key));
    let cluster = shared.cluster.clone();
    let reading = async move {
        match handle.proposer().linearize() {
            Linearize::Now => {}
            Linearize::Wait(wait) => wait.await.ok()?,
        }
        Some(cluster.state(leader, group).lists.get(&key).cloned().unwrap_or_default())
    };
    let env = shared.cluster.sim().harness();
    let answer = env.timeout(OPERATION_TIMEOUT * 3, shared.cluster.at(leader, "read", reading)).await;
    if let Ok(Some(Some(saw))) = answer {
        shared.history.lock().read((group, key), must_see, saw);
    }
}
