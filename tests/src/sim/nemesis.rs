//! What goes wrong during a run, drawn from the seed.

use std::time::Duration;

use rustydb_consensus::loopback::Link;
use rustydb_env::Rng;
use rustydb_types::ids::NodeId;

use super::cluster::Cluster;

/// Which kinds of faults a run has, so that not every run has all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Power cuts of single nodes.
    pub crashes: bool,
    /// Power cuts of all nodes at once.
    pub blackouts: bool,
    /// Nodes that stand still for a while.
    pub pauses: bool,
    /// Links that are cut in both directions.
    pub partitions: bool,
    /// Links that are cut in one direction.
    pub one_way: bool,
    /// Links that lose, delay, repeat and reorder.
    pub lossy: bool,
}

impl Faults {
    /// Each kind by a throw of a coin.
    #[must_use]
    pub fn draw(random: &mut Rng) -> Self {
        let mut coin = || random.chance(2, 3);
        Self {
            crashes: coin(),
            blackouts: coin(),
            pauses: coin(),
            partitions: coin(),
            one_way: coin(),
            lossy: coin(),
        }
    }
}

/// How often each fault struck.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strikes {
    /// Nodes that lost their power, blackouts included.
    pub crashes: u64,
    /// Nodes that stood still.
    pub pauses: u64,
    /// Links that were cut, in one or both directions.
    pub cuts: u64,
    /// Times when all links were bad.
    pub storms: u64,
}

/// One fault, and its end.
pub async fn strike(cluster: &Cluster, random: &mut Rng, faults: Faults, strikes: &mut Strikes) {
    let ids: Vec<NodeId> = cluster.ids().into_iter().collect();
    let pick = |random: &mut Rng| ids[usize::try_from(random.range(0..ids.len() as u64)).unwrap_or(0)];
    let lasting = Duration::from_millis(random.range(50..1500));
    match random.range(0..6) {
        0 if faults.crashes => {
            let node = pick(random);
            cluster.crash(node);
            strikes.crashes += 1;
            cluster.sleep(lasting).await;
            cluster.start(node).await;
        }
        1 if faults.blackouts => {
            for node in &ids {
                cluster.crash(*node);
                strikes.crashes += 1;
            }
            cluster.sleep(lasting / 4).await;
            for node in &ids {
                cluster.start(*node).await;
            }
        }
        2 if faults.pauses => {
            let node = pick(random);
            cluster.set_paused(node, true);
            strikes.pauses += 1;
            cluster.sleep(lasting).await;
            cluster.set_paused(node, false);
        }
        3 if faults.partitions => {
            let alone = pick(random);
            for other in ids.iter().filter(|other| **other != alone) {
                cluster.network().set_cut(alone, *other, true);
            }
            strikes.cuts += 1;
            cluster.sleep(lasting).await;
            cluster.network().heal();
        }
        4 if faults.one_way => {
            let (from, to) = (pick(random), pick(random));
            cluster.network().set_link(from, to, |link| link.cut = true);
            strikes.cuts += 1;
            cluster.sleep(lasting).await;
            cluster.network().heal();
        }
        5 if faults.lossy => {
            let storm = Link {
                delay_max: Duration::from_millis(random.range(1..40)),
                loss: random.range(0..500),
                duplication: random.range(0..500),
                reordering: random.range(0..500),
                ..Link::default()
            };
            cluster.network().set_default(storm);
            strikes.storms += 1;
            cluster.sleep(lasting).await;
            cluster.network().set_default(Link::default());
        }
        _ => cluster.sleep(lasting / 4).await,
    }
}
