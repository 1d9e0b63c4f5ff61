//! Leaders die under series of transactions that come by other nodes; nobody may be told what is not so.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use rustydb_consensus::ConsensusConfig;
use rustydb_env::{Rng, sim::Simulation};
use rustydb_types::ids::{GroupId, NodeId};

use super::{
    super::{
        cluster::Cluster,
        history::History,
        oracle::Counts,
        run::{Course, Stage},
        stores::{Hashes, Stores},
    },
    check,
    connection::Connection,
    links::Hosts,
    node::SqlNode,
    plan::{Isolation, Kind},
    workload::{Client, Session},
};

const GROUP: GroupId = GroupId::new(2);
const DATABASE: &str = "second";
const NODES: u64 = 3;
/// A leader dies so long after a series began at most, in microseconds; it takes about as long.
const DEATH_WITHIN: u64 = 12_000;
const LOOK: Duration = Duration::from_millis(10);
/// How long there may be no leader.
const LIMIT: Duration = Duration::from_secs(30);
/// Virtual time for each death.
const DEATH_LIMIT: Duration = Duration::from_secs(90);

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeriesReport {
    /// What the clients were told of their transactions.
    pub counts: Counts,
    /// What was wrong; empty in a good run.
    pub wrong: Vec<String>,
}

/// Runs so many series from a seed, under each of which the leader dies.
#[must_use]
pub fn run_series(course: Course, deaths: u32) -> SeriesReport {
    let sim = Arc::new(Simulation::new(course.seed));
    #[cfg(feature = "planted_bugs")]
    if let Some(bug) = course.bug {
        sim.plant(bug);
    }
    let hashes = Hashes::default();
    let hosts: Mutex<Option<Hosts>> = Mutex::default();
    let groups = vec![GroupId::SYSTEM, GROUP];
    let databases = vec![(GroupId::SYSTEM, "first"), (GROUP, DATABASE)];
    let cluster = Cluster::new(sim.clone(), NODES, groups, ConsensusConfig::default(), |node, network| {
        let hosts = hosts.lock().get_or_insert_with(|| Hosts::new(network.clone())).clone();
        SqlNode::new(node, &databases, hosts, Stores::new(hashes.clone()))
    });
    let history = Arc::<Mutex<History>>::default();
    let ended = sim.block_on(DEATH_LIMIT * deaths, scenario(cluster.clone(), deaths, Arc::clone(&history)));
    let mut wrong = match ended {
        Ok(Ok(wrong)) => wrong,
        Ok(Err(failed)) => vec![failed],
        Err(error) => vec![error.to_string()],
    };
    wrong.extend(hashes.wrong());
    wrong.extend(cluster.failures());
    let counts = history.lock().counts();
    for node in cluster.ids() {
        cluster.crash(node);
    }
    sim.end();
    SeriesReport { counts, wrong }
}

async fn scenario(
    cluster: Cluster<SqlNode>,
    deaths: u32,
    history: Arc<Mutex<History>>,
) -> Result<Vec<String>, String> {
    let mut random = cluster.sim().harness().rng();
    for node in cluster.ids() {
        cluster.start(node).await;
    }
    cluster.initialize().await;
    let mut client =
        Client::new(Stage::new(cluster.clone()), 1, cluster.sim().harness().rng(), Arc::clone(&history));
    leader(&cluster).await?;
    client.make_tables(DATABASE).await;
    for _ in 0..deaths {
        client = death(&cluster, client, &mut random).await?;
    }
    leader(&cluster).await?;
    Ok(check::database(&cluster, &history, GROUP, DATABASE).await)
}

async fn leader(cluster: &Cluster<SqlNode>) -> Result<NodeId, String> {
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

async fn death(cluster: &Cluster<SqlNode>, mut client: Client, random: &mut Rng) -> Result<Client, String> {
    let victim = leader(cluster).await?;
    let mut others: Vec<NodeId> = cluster.ids().into_iter().filter(|node| *node != victim).collect();
    if random.chance(1, 2) {
        others.reverse();
    }
    let connection = others.first().and_then(|gateway| Connection::open(cluster, *gateway, DATABASE));
    let connection = connection.ok_or("the node of the client is down")?;
    let kind = Kind { isolation: Isolation::draw(random), reads_only: false };
    let mut session = Session { group: GROUP, connection, kind };
    let playing = cluster.sim().harness().spawn("client", async move {
        client.series(&mut session).await;
        client
    });
    cluster.sleep(Duration::from_micros(random.range(0..DEATH_WITHIN))).await;
    if random.chance(1, 2) {
        cluster.crash(victim);
    } else {
        cluster.kill(victim);
    }
    let client = playing.await.map_err(|_| "the client panicked")?;
    cluster.start(victim).await;
    Ok(client)
}
