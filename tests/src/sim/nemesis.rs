//! What goes wrong during a run, drawn from the seed.

use std::time::Duration;

use rustydb_consensus::loopback::Link;
use rustydb_env::Rng;
use rustydb_types::ids::NodeId;

use super::{cluster::Cluster, machines::Machines};

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
    /// Disks that fail in the midst of their work, or of a recovery, until the power cut that follows.
    pub disks: bool,
    /// Wall clocks that are set forward and back.
    pub clocks: bool,
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
            disks: coin(),
            clocks: coin(),
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
    /// Disks that failed, crashes that followed included in `crashes`.
    pub disks: u64,
    /// Wall clocks that were set.
    pub clocks: u64,
}

/// The farthest that a wall clock is set from the true time: a day.
const WALL_OFFSET_MICROS_MAX: u64 = 86_400_000_000;

/// One fault, and its end.
pub async fn strike<M: Machines>(
    cluster: &Cluster<M>,
    random: &mut Rng,
    faults: Faults,
    strikes: &mut Strikes,
) {
    let ids: Vec<NodeId> = cluster.ids().into_iter().collect();
    let pick = |random: &mut Rng| ids[usize::try_from(random.range(0..ids.len() as u64)).unwrap_or(0)];
    let lasting = Duration::from_millis(random.range(50..1500));
    match random.range(0..8) {
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
        6 if faults.disks => {
            let node = pick(random);
            fail_disk(cluster, random, node, strikes).await;
        }
        7 if faults.clocks => {
            let offset = i64::try_from(random.range(0..2 * WALL_OFFSET_MICROS_MAX)).unwrap_or(0);
            let back = i64::try_from(WALL_OFFSET_MICROS_MAX).unwrap_or(0);
            cluster.set_wall_offset(pick(random), offset - back);
            strikes.clocks += 1;
        }
        _ => cluster.sleep(lasting / 4).await,
    }
}

/// The disk of a node fails somewhere in its work, then the power does; perhaps once more while it recovers.
async fn fail_disk<M: Machines>(cluster: &Cluster<M>, random: &mut Rng, node: NodeId, strikes: &mut Strikes) {
    cluster.fail_disk_after(node, random.range(0..200));
    cluster.sleep(Duration::from_millis(random.range(50..1000))).await;
    loop {
        cluster.crash(node);
        strikes.disks += 1;
        strikes.crashes += 1;
        let again = random.chance(1, 3);
        if again {
            cluster.fail_disk_after(node, random.range(0..60));
        }
        cluster.start(node).await;
        if !again {
            return;
        }
        cluster.sleep(Duration::from_millis(random.range(1..300))).await;
    }
}
