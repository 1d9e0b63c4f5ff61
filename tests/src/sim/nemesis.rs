//! What goes wrong during a run, drawn from the seed.
//!
//! Three go about at the same time, so that their faults meet: one strikes nodes, one links, one has groups moved.
//! Every other blow is aimed at a leader.

use std::time::Duration;

use rustydb_consensus::loopback::Link;
use rustydb_env::{Instant, Rng};
use rustydb_types::ids::{GroupId, NodeId};

use super::{cluster::Cluster, machines::Machines, members};

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
    /// Disks that have no room for a while.
    pub full_disks: bool,
    /// Wall clocks that are set forward and back.
    pub clocks: bool,
    /// Leaders that are told to hand over.
    pub transfers: bool,
    /// Members that are removed and taken in again.
    pub members: bool,
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
            full_disks: coin(),
            clocks: coin(),
            transfers: coin(),
            members: coin(),
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
    /// Disks that had no room.
    pub full_disks: u64,
    /// Wall clocks that were set.
    pub clocks: u64,
    /// Leaders that were told to hand over.
    pub transfers: u64,
    /// Members that were removed.
    pub removals: u64,
}

impl Strikes {
    /// All strikes of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            crashes: self.crashes + other.crashes,
            pauses: self.pauses + other.pauses,
            cuts: self.cuts + other.cuts,
            storms: self.storms + other.storms,
            disks: self.disks + other.disks,
            full_disks: self.full_disks + other.full_disks,
            clocks: self.clocks + other.clocks,
            transfers: self.transfers + other.transfers,
            removals: self.removals + other.removals,
        }
    }
}

/// The farthest that a wall clock is set from the true time: a day.
const WALL_OFFSET_MICROS_MAX: u64 = 86_400_000_000;
/// Within this the others notice that one is cut off, and elect a leader.
const ELECTION: Duration = Duration::from_millis(700);
/// Room that a full disk still has, at most.
const ROOM_BYTES_MAX: u64 = 64 << 10;

/// One that strikes.
pub struct Nemesis<M> {
    /// The nodes.
    pub cluster: Cluster<M>,
    /// Its choices.
    pub random: Rng,
    /// What it may do.
    pub faults: Faults,
    /// What it has done.
    pub strikes: Strikes,
}

impl<M: Machines> Nemesis<M> {
    /// Strikes nodes until then. All are up at the end.
    pub async fn strike_nodes(mut self, until: Instant) -> Strikes {
        while self.goes_on(until) {
            self.strike_node().await;
        }
        self.strikes
    }

    /// Strikes links until then. All are whole at the end.
    pub async fn strike_links(mut self, until: Instant) -> Strikes {
        while self.goes_on(until) {
            self.strike_link().await;
        }
        self.strikes
    }

    /// Has leaders and members changed until then. All nodes are to be made members again at the end.
    pub async fn move_groups(mut self, until: Instant) -> Strikes {
        while self.goes_on(until) {
            self.move_group().await;
        }
        self.strikes
    }

    fn goes_on(&self, until: Instant) -> bool {
        self.cluster.sim().harness().now() < until
    }

    /// From a moment to much longer than an election.
    fn lasting(&mut self) -> Duration {
        let millis_max = if self.random.chance(1, 4) { 2500 } else { 800 };
        Duration::from_millis(self.random.range(30..millis_max))
    }

    fn group(&mut self) -> GroupId {
        let groups = self.cluster.groups();
        groups[usize::try_from(self.random.range(0..groups.len() as u64)).unwrap_or(0)]
    }

    fn anyone(&mut self) -> NodeId {
        let ids: Vec<NodeId> = self.cluster.ids().into_iter().collect();
        ids[usize::try_from(self.random.range(0..ids.len() as u64)).unwrap_or(0)]
    }

    fn target(&mut self) -> NodeId {
        let group = self.group();
        match self.cluster.leader(group) {
            Some((leader, _)) if self.random.chance(1, 2) => leader,
            _ => self.anyone(),
        }
    }

    async fn strike_node(&mut self) {
        let cluster = self.cluster.clone();
        let lasting = self.lasting();
        match self.random.range(0..6) {
            0 if self.faults.crashes => {
                let node = self.target();
                cluster.crash(node);
                self.strikes.crashes += 1;
                cluster.sleep(lasting / 2).await;
                cluster.start(node).await;
            }
            1 if self.faults.blackouts && self.random.chance(1, 2) => {
                for node in cluster.ids() {
                    cluster.crash(node);
                    self.strikes.crashes += 1;
                }
                cluster.sleep(lasting / 4).await;
                for node in cluster.ids() {
                    cluster.start(node).await;
                }
            }
            2 if self.faults.pauses => {
                let node = self.target();
                cluster.set_paused(node, true);
                self.strikes.pauses += 1;
                cluster.sleep(lasting).await;
                cluster.set_paused(node, false);
            }
            3 if self.faults.disks => {
                let node = self.target();
                self.fail_disk(node).await;
            }
            4 if self.faults.full_disks => {
                let node = self.target();
                cluster.fill_disk(node, Some(self.random.range(0..ROOM_BYTES_MAX)));
                self.strikes.full_disks += 1;
                cluster.sleep(lasting).await;
                cluster.fill_disk(node, None);
            }
            5 if self.faults.clocks => {
                let offset = i64::try_from(self.random.range(0..2 * WALL_OFFSET_MICROS_MAX)).unwrap_or(0);
                let back = i64::try_from(WALL_OFFSET_MICROS_MAX).unwrap_or(0);
                cluster.set_wall_offset(self.anyone(), offset - back);
                self.strikes.clocks += 1;
            }
            _ => cluster.sleep(lasting / 4).await,
        }
    }

    /// The disk of a node fails somewhere in its work, then the power does; perhaps once more while it recovers.
    async fn fail_disk(&mut self, node: NodeId) {
        let cluster = self.cluster.clone();
        cluster.fail_disk_after(node, self.random.range(0..200));
        cluster.sleep(Duration::from_millis(self.random.range(50..1000))).await;
        loop {
            cluster.crash(node);
            self.strikes.disks += 1;
            self.strikes.crashes += 1;
            let again = self.random.chance(1, 3);
            if again {
                cluster.fail_disk_after(node, self.random.range(0..60));
            }
            cluster.start(node).await;
            if !again {
                return;
            }
            cluster.sleep(Duration::from_millis(self.random.range(1..300))).await;
        }
    }

    async fn strike_link(&mut self) {
        let cluster = self.cluster.clone();
        let lasting = self.lasting();
        match self.random.range(0..4) {
            0 if self.faults.partitions => {
                let alone = self.target();
                for other in cluster.ids().into_iter().filter(|other| *other != alone) {
                    cluster.network().set_cut(alone, other, true);
                }
                self.strikes.cuts += 1;
                // So that the others have a leader and work for a while.
                cluster.sleep(lasting + ELECTION).await;
                cluster.network().heal();
            }
            1 if self.faults.partitions => {
                let (one, other) = (self.target(), self.anyone());
                cluster.network().set_cut(one, other, true);
                self.strikes.cuts += 1;
                cluster.sleep(lasting).await;
                cluster.network().heal();
            }
            2 if self.faults.one_way => {
                let ends = (self.target(), self.anyone());
                let (from, to) = if self.random.chance(1, 2) { ends } else { (ends.1, ends.0) };
                cluster.network().set_link(from, to, |link| link.cut = true);
                self.strikes.cuts += 1;
                cluster.sleep(lasting).await;
                cluster.network().heal();
            }
            3 if self.faults.lossy => {
                let storm = Link {
                    delay_max: Duration::from_millis(self.random.range(1..40)),
                    loss: self.random.range(0..500),
                    duplication: self.random.range(0..500),
                    reordering: self.random.range(0..500),
                    ..Link::default()
                };
                cluster.network().set_default(storm);
                self.strikes.storms += 1;
                cluster.sleep(lasting).await;
                cluster.network().set_default(Link::default());
            }
            _ => cluster.sleep(lasting / 4).await,
        }
    }

    async fn move_group(&mut self) {
        let cluster = self.cluster.clone();
        let lasting = self.lasting();
        let (group, node) = (self.group(), self.target());
        match self.random.range(0..4) {
            0 if self.faults.transfers => {
                self.strikes.transfers += 1;
                members::transfer(&cluster, group, node).await;
            }
            1 if self.faults.members => {
                self.strikes.removals += 1;
                members::remove(&cluster, group, node).await;
                cluster.sleep(lasting).await;
                members::take_in(&cluster, group, node).await;
            }
            _ => cluster.sleep(lasting).await,
        }
    }
}
