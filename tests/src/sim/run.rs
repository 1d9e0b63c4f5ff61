//! One run from one seed: a workload on a cluster, with faults and then without, and what is checked of it.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use rustydb_consensus::{
    ConsensusConfig,
    loopback::{Link, LoopbackNetwork, Traffic},
};
use rustydb_env::{Instant, Rng, sim::Simulation};
use rustydb_types::ids::{GroupId, NodeId};

use super::{
    churn::{Churn, Churning},
    cluster::Cluster,
    invariants::Invariants,
    machines::Machines,
    members,
    nemesis::{Fault, Nemesis, Strikes},
    oracle::Counts,
};

/// A run that is at least so long has stretches in which little happens; a short one is busy all the time.
const LONG: Duration = Duration::from_secs(10);
/// One that is at least so long is never busy all the time.
const VERY_LONG: Duration = Duration::from_secs(60);
/// The longest pause of a client between two transactions once everything is healed.
const EAGER: Duration = Duration::from_millis(50);
/// How often the invariants are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// How long clients go on after everything is healed.
const HEALED: Duration = Duration::from_secs(2);
/// After everything is healed, all must be well within this.
const CONVERGENCE_LIMIT: Duration = Duration::from_secs(30);
/// Of what is wrong so much is kept: the first few say it all.
const WRONG_MAX: usize = 20;
/// Nodes of a run in which members come and go all the time.
const CHURNING_NODES: u64 = 7;
/// The longest rest between two changes of members there.
const CHURNING_CALM: Duration = Duration::from_millis(200);

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What chooses the workload for a replay.
    pub option: &'static str,
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
    /// The faults by kind, and how often each struck.
    pub strikes: Strikes,
    /// Members that came and went, in a run that is about that.
    pub churn: Churn,
    /// Terms in which some group had a leader.
    pub terms: usize,
    /// Frames of the network.
    pub traffic: Traffic,
    /// What was wrong; empty in a good run.
    pub wrong: Vec<String>,
}

/// What clients do in a run, and what must be true of it.
pub trait Workload: Clone + Send + Sync + 'static {
    /// What the nodes' groups apply to.
    type Machines: Machines;

    /// What chooses it for a replay.
    const OPTION: &'static str;

    /// Works until the run is over.
    fn client(
        self,
        stage: Stage<Self::Machines>,
        number: u64,
        random: Rng,
    ) -> impl Future<Output = ()> + Send + 'static;

    /// What the clients did so far.
    fn counts(&self) -> Counts;

    /// Looks at the end, when all nodes agree. Gives what is wrong.
    fn check(&self, cluster: &Cluster<Self::Machines>) -> impl Future<Output = Vec<String>> + Send;
}

/// How busy a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Clients at work at one time.
    pub clients: u64,
    /// The longest that a client pauses between two transactions.
    pub think_max: Duration,
    /// The longest that passes between two faults, beside what they last.
    pub calm_max: Duration,
}

impl Pace {
    /// Short runs are busy all the time; in the longest ones little happens for long.
    fn draw(random: &mut Rng, duration: Duration) -> Self {
        let choices = match duration {
            _ if duration < LONG => [(20, 1); 4],
            _ if duration < VERY_LONG => [(20, 1), (100, 100), (500, 1000), (2000, 5000)],
            _ => [(1000, 300), (2000, 1000), (2000, 5000), (6000, 2000)],
        };
        let clients = random.range(2..7);
        let (think, calm) = one_of(random, choices);
        Self { clients, think_max: Duration::from_millis(think), calm_max: Duration::from_millis(calm) }
    }
}

/// One of several, as the seed has it.
pub(super) fn one_of<T: Copy, const N: usize>(random: &mut Rng, choices: [T; N]) -> T {
    choices[usize::try_from(random.range(0..N as u64)).unwrap_or(0)]
}

/// What the tasks of a run share.
pub struct Stage<M> {
    /// The nodes.
    pub cluster: Cluster<M>,
    /// How busy the run is.
    pub pace: Pace,
    seen: Arc<Mutex<Seen>>,
}

impl<M: Machines> Clone for Stage<M> {
    fn clone(&self) -> Self {
        Self { cluster: self.cluster.clone(), pace: self.pace, seen: self.seen.clone() }
    }
}

#[derive(Default)]
struct Seen {
    is_healed: bool,
    is_over: bool,
    strikes: Strikes,
    churn: Churn,
    terms: usize,
    wrong: Vec<String>,
}

impl<M: Machines> Stage<M> {
    /// Of a run without faults of its own, which goes on until its task ends.
    #[must_use]
    pub fn new(cluster: Cluster<M>) -> Self {
        let pace = Pace { clients: 1, think_max: EAGER, calm_max: EAGER };
        Self { cluster, pace, seen: Arc::default() }
    }

    /// Whether clients must end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.seen.lock().is_over
    }

    /// Whether the faults are over: a client writes then now and then, so that it is seen to be served.
    #[must_use]
    pub fn is_healed(&self) -> bool {
        self.seen.lock().is_healed
    }

    /// Pauses as a client does between two transactions.
    pub async fn think(&self, random: &mut Rng) {
        let think_max = if self.seen.lock().is_healed { EAGER } else { self.pace.think_max };
        let micros = u64::try_from(think_max.as_micros()).unwrap_or(u64::MAX);
        self.cluster.sleep(Duration::from_micros(random.range(100..micros))).await;
    }

    /// Notes what is wrong.
    pub fn wrong(&self, wrong: impl IntoIterator<Item = String>) {
        let mut seen = self.seen.lock();
        let room = WRONG_MAX.saturating_sub(seen.wrong.len());
        seen.wrong.extend(wrong.into_iter().take(room));
    }
}

/// From what a run follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Course {
    /// The seed.
    pub seed: u64,
    /// About how much virtual time passes with faults.
    pub duration: Duration,
    /// Whether members come and go all the time, among seven nodes, while links are cut in one direction and nodes have
    /// just one other in common.
    pub churns: bool,
    /// Whether the logs of all nodes are held against each other all the time.
    pub watches_logs: bool,
    /// A bug that all nodes have.
    #[cfg(feature = "planted_bugs")]
    pub bug: Option<rustydb_env::Bug>,
}

impl Course {
    /// A run without planted bugs.
    #[must_use]
    pub const fn new(seed: u64, duration: Duration) -> Self {
        Self {
            seed,
            duration,
            churns: false,
            watches_logs: false,
            #[cfg(feature = "planted_bugs")]
            bug: None,
        }
    }
}

/// Runs a workload on a new cluster of 3, 5 or 7 nodes, for a while with faults, then without until all nodes agree.
#[must_use]
pub fn run<W: Workload>(
    course: Course,
    workload: W,
    machines: impl Fn(NodeId, &LoopbackNetwork) -> W::Machines,
) -> Report {
    let Course { seed, duration, .. } = course;
    let sim = Arc::new(Simulation::new(seed));
    #[cfg(feature = "planted_bugs")]
    if let Some(bug) = course.bug {
        sim.plant(bug);
    }
    let mut random = sim.harness().rng();
    let nodes = match random.range(0..12) {
        0..8 => 3,
        8..11 => 5,
        _ => 7,
    };
    let nodes = if course.churns { CHURNING_NODES } else { nodes };
    let pace = Pace::draw(&mut random, duration);
    let groups = vec![GroupId::SYSTEM, GroupId::new(2)];
    // Small, so that snapshots are taken and needed. A long run takes many in any case, and each has the state flushed.
    let snapshot_log_bytes =
        if duration < VERY_LONG { [4096, 4096, 32 << 10] } else { [16 << 10, 64 << 10, 256 << 10] };
    let config = ConsensusConfig {
        snapshot_log_bytes: one_of(&mut random, snapshot_log_bytes),
        entries_kept_behind_snapshot: 50,
        snapshot_chunk_bytes: one_of(&mut random, [512, 1024, 4096]),
        append_bytes_max: 4096,
        snapshot_timeout: Duration::from_secs(3),
        upkeep_interval: Duration::from_millis(300),
        compare_interval: Duration::from_millis(700),
        ..ConsensusConfig::default()
    };
    let cluster = Cluster::new(sim.clone(), nodes, groups, config, machines);
    let stage = Stage { cluster, pace, seen: Arc::default() };
    let limit = duration + HEALED + CONVERGENCE_LIMIT * 3;
    let ended = sim.block_on(limit, scenario(stage.clone(), workload.clone(), random, course));
    if let Err(error) = ended {
        stage.wrong([error.to_string()]);
    }
    let report = {
        let seen = stage.seen.lock();
        Report {
            option: W::OPTION,
            seed,
            nodes,
            virtual_time: sim.now() - Instant::ORIGIN,
            trace_hash: sim.trace_hash(),
            steps: sim.step_count(),
            operations: workload.counts(),
            strikes: seen.strikes.clone(),
            churn: seen.churn,
            terms: seen.terms,
            traffic: stage.cluster.network().traffic(),
            wrong: seen.wrong.clone(),
        }
    };
    // Ends the nodes' tasks, which hold on to the cluster.
    for node in stage.cluster.ids() {
        stage.cluster.crash(node);
    }
    // And those of the harness.
    sim.end();
    report
}

async fn scenario<W: Workload>(stage: Stage<W::Machines>, workload: W, mut random: Rng, course: Course) {
    let cluster = stage.cluster.clone();
    let env = cluster.sim().harness();
    for node in cluster.ids() {
        cluster.start(node).await;
    }
    cluster.initialize().await;
    let clients: Vec<_> = (1..=stage.pace.clients)
        .map(|number| env.spawn("client", workload.clone().client(stage.clone(), number, env.rng())))
        .collect();
    let watching = env.spawn("invariants", watch(stage.clone(), course.watches_logs));
    let mut faults = Fault::draw(&mut random);
    if course.churns {
        faults.extend([Fault::OneWayCut, Fault::Bridge]);
    }
    let until = env.now() + course.duration;
    let nemesis = || Nemesis {
        cluster: cluster.clone(),
        random: env.rng(),
        faults: faults.clone(),
        only_asymmetric: course.churns,
        calm_max: stage.pace.calm_max,
        strikes: Strikes::default(),
    };
    let mut strikers = vec![
        env.spawn("nemesis of nodes", nemesis().strike_nodes(until)),
        env.spawn("nemesis of links", nemesis().strike_links(until)),
    ];
    if course.churns {
        let (cluster, churn) = (cluster.clone(), Churn::default());
        let churning = Churning { cluster, random: env.rng(), calm_max: CHURNING_CALM, churn };
        let churn = env.spawn("churn", churning.go_on(until)).await.unwrap_or_default();
        stage.seen.lock().churn = churn;
    } else {
        strikers.push(env.spawn("nemesis of groups", nemesis().move_groups(until)));
    }
    for striker in strikers {
        let strikes = striker.await.unwrap_or_default();
        stage.seen.lock().strikes.add(&strikes);
    }
    heal(&cluster).await;
    stage.wrong(members::restore(&cluster, CONVERGENCE_LIMIT).await);
    // Clients go on for a moment, all of them eager by now: a healed cluster must serve them.
    stage.seen.lock().is_healed = true;
    cluster.sleep(stage.pace.think_max).await;
    let before = workload.counts().acknowledged;
    cluster.sleep(HEALED).await;
    if workload.counts().acknowledged == before {
        stage.wrong([format!("nothing was acknowledged within {HEALED:?} after everything was healed")]);
    }
    stage.seen.lock().is_over = true;
    for client in clients {
        let _ended = client.await;
    }
    let _ended = watching.await;
    stage.wrong(agree(&cluster).await);
    stage.wrong(cluster.failures());
    let wrong = workload.check(&cluster).await;
    stage.wrong(wrong);
}

async fn heal<M: Machines>(cluster: &Cluster<M>) {
    cluster.network().heal();
    cluster.network().set_default(Link::default());
    for node in cluster.ids() {
        cluster.set_paused(node, false);
        if !cluster.up().contains(&node) {
            cluster.start(node).await;
        }
    }
}

/// Waits until all nodes have applied the same and are the same. Gives the groups in which they do not come to that.
pub(super) async fn agree<M: Machines>(cluster: &Cluster<M>) -> Vec<String> {
    let env = cluster.sim().harness();
    let until = env.now() + CONVERGENCE_LIMIT;
    let mut wrong = Vec::new();
    for group in cluster.groups() {
        loop {
            let states: Vec<_> =
                cluster.ids().into_iter().map(|node| cluster.applied(node, *group)).collect();
            let indices: Vec<_> = cluster
                .ids()
                .into_iter()
                .filter_map(|node| cluster.group(node, *group))
                .map(|group| group.status())
                .map(|status| (status.last_log_index, status.last_applied))
                .collect();
            let is_quiet = indices.len() == states.len()
                && indices.iter().all(|(last, applied)| last == applied)
                && states.windows(2).all(|pair| pair.first() == pair.last());
            if is_quiet {
                break;
            }
            if env.now() > until {
                wrong.push(format!("group {group}: nodes do not agree: {indices:?}, {states:x?}"));
                break;
            }
            cluster.sleep(Duration::from_millis(50)).await;
        }
    }
    wrong
}

async fn watch<M: Machines>(stage: Stage<M>, watches_logs: bool) {
    let mut invariants = Invariants::new(watches_logs);
    while !stage.is_over() {
        stage.wrong(invariants.look(&stage.cluster));
        stage.seen.lock().terms = invariants.leaders();
        stage.cluster.sleep(LOOK_INTERVAL).await;
    }
}
