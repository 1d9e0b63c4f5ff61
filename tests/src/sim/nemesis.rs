//! What goes wrong during a run, drawn from the seed.
//!
//! Three go about at the same time, so that their faults meet: one strikes nodes, one links, one has groups moved.
//! Every other blow is aimed at a leader.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rustydb_consensus::loopback::Link;
use rustydb_env::{Instant, Rng, sim::DiskFaults};
use rustydb_types::ids::{GroupId, NodeId};

use super::{cluster::Cluster, machines::Machines, members};

/// Kinds of faults. Which of them a run has is drawn from its seed, so that not every run has all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A node loses its power: what it had not synced is kept, torn or lost.
    PowerCut,
    /// All nodes lose their power at once.
    Blackout,
    /// The process of a node is killed: what it had written stays.
    Kill,
    /// The power goes in the midst of a write.
    TornWrite,
    /// The power goes again while a node recovers.
    CutInRecovery,
    /// Writes fail after a part of them, until the node is started again.
    WriteError,
    /// Syncs fail and take with them what they were to make durable, until the node is started again.
    SyncError,
    /// Reads fail, until the node is started again.
    ReadError,
    /// A disk has no room; of a write comes what fits.
    FullDisk,
    /// Each operation of a disk takes long.
    SlowDisk,
    /// A node stands still.
    Pause,
    /// A wall clock is set forward or back by up to a day.
    ClockSet,
    /// A node is cut off from all others.
    Isolation,
    /// Two nodes do not reach each other.
    PairCut,
    /// Two halves that have just one node in common.
    Bridge,
    /// A link is cut in one direction.
    OneWayCut,
    /// Links lose.
    Loss,
    /// Links delay, and let what comes later pass.
    Reordering,
    /// Links repeat.
    Duplication,
    /// Connections between two nodes are reset, with what was on its way.
    Reset,
    /// A leader is told to hand over.
    Transfer,
    /// A member is removed, and taken in again later.
    Membership,
}

impl Fault {
    /// All kinds.
    pub const ALL: &[Fault] = &[
        Fault::PowerCut,
        Fault::Blackout,
        Fault::Kill,
        Fault::TornWrite,
        Fault::CutInRecovery,
        Fault::WriteError,
        Fault::SyncError,
        Fault::ReadError,
        Fault::FullDisk,
        Fault::SlowDisk,
        Fault::Pause,
        Fault::ClockSet,
        Fault::Isolation,
        Fault::PairCut,
        Fault::Bridge,
        Fault::OneWayCut,
        Fault::Loss,
        Fault::Reordering,
        Fault::Duplication,
        Fault::Reset,
        Fault::Transfer,
        Fault::Membership,
    ];

    /// Those of a run: each with two chances in three.
    #[must_use]
    pub fn draw(random: &mut Rng) -> BTreeSet<Fault> {
        Fault::ALL.iter().copied().filter(|_| random.chance(2, 3)).collect()
    }
}

/// How often each fault struck.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strikes(pub BTreeMap<Fault, u64>);

impl Strikes {
    fn count(&mut self, fault: Fault) {
        *self.0.entry(fault).or_default() += 1;
    }

    /// Takes in those of another run, or of another part of this.
    pub fn add(&mut self, other: &Strikes) {
        for (fault, count) in &other.0 {
            *self.0.entry(*fault).or_default() += count;
        }
    }
}

/// The farthest that a wall clock is set from the true time: a day.
const WALL_OFFSET_MICROS_MAX: u64 = 86_400_000_000;
/// Room that a full disk still has, at most.
const ROOM_BYTES_MAX: u64 = 64 << 10;

/// One that strikes.
pub struct Nemesis<M> {
    /// The nodes.
    pub cluster: Cluster<M>,
    /// Its choices.
    pub random: Rng,
    /// What it may do.
    pub faults: BTreeSet<Fault>,
    /// Whether all that befalls links is that some hear whom they do not reach, or reach who does not reach a third.
    pub only_asymmetric: bool,
    /// The longest that it rests between two blows.
    pub calm_max: Duration,
    /// What it has done.
    pub strikes: Strikes,
}

impl<M: Machines> Nemesis<M> {
    /// Strikes nodes until then. All are up at the end.
    pub async fn strike_nodes(mut self, until: Instant) -> Strikes {
        while self.goes_on(until) {
            self.strike_node().await;
            self.rest().await;
        }
        self.strikes
    }

    /// Strikes links until then. All are whole at the end.
    pub async fn strike_links(mut self, until: Instant) -> Strikes {
        while self.goes_on(until) {
            self.strike_link().await;
            self.rest().await;
        }
        self.strikes
    }

    /// Has leaders and members changed until then. All nodes are to be made members again at the end.
    pub async fn move_groups(mut self, until: Instant) -> Strikes {
        while self.goes_on(until) {
            self.move_group().await;
            self.rest().await;
        }
        self.strikes
    }

    fn goes_on(&self, until: Instant) -> bool {
        self.cluster.sim().harness().now() < until
    }

    async fn rest(&mut self) {
        let micros = u64::try_from(self.calm_max.as_micros()).unwrap_or(u64::MAX);
        self.cluster.sleep(Duration::from_micros(self.random.range(0..micros))).await;
    }

    /// Whether a blow of this kind is struck; if so, it is counted.
    fn strikes(&mut self, fault: Fault) -> bool {
        let strikes = self.faults.contains(&fault);
        if strikes {
            self.strikes.count(fault);
        }
        strikes
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
        let node = self.target();
        match self.random.range(0..10) {
            0 if self.strikes(Fault::PowerCut) => {
                cluster.crash(node);
                cluster.sleep(lasting / 2).await;
                cluster.start(node).await;
            }
            1 if self.random.chance(1, 2) && self.strikes(Fault::Blackout) => {
                for node in cluster.ids() {
                    cluster.crash(node);
                }
                cluster.sleep(lasting / 4).await;
                for node in cluster.ids() {
                    cluster.start(node).await;
                }
            }
            2 if self.strikes(Fault::Kill) => {
                cluster.kill(node);
                cluster.sleep(lasting / 4).await;
                cluster.start(node).await;
            }
            3 if self.strikes(Fault::TornWrite) => {
                let changes = self.random.range(0..200);
                self.fail_disk(node, DiskFaults { power_cut_after: Some(changes), ..DiskFaults::default() })
                    .await;
            }
            4 => self.disturb_disk(node).await,
            5 if self.strikes(Fault::FullDisk) => {
                cluster.fill_disk(node, Some(self.random.range(0..ROOM_BYTES_MAX)));
                cluster.sleep(lasting).await;
                cluster.fill_disk(node, None);
            }
            6 if self.strikes(Fault::SlowDisk) => {
                cluster.slow_disk(node, self.random.range(2..200));
                cluster.sleep(lasting).await;
                cluster.slow_disk(node, 1);
            }
            7 | 8 if self.strikes(Fault::Pause) => {
                cluster.set_paused(node, true);
                cluster.sleep(lasting).await;
                cluster.set_paused(node, false);
            }
            9 if self.strikes(Fault::ClockSet) => {
                let offset = i64::try_from(self.random.range(0..2 * WALL_OFFSET_MICROS_MAX)).unwrap_or(0);
                let back = i64::try_from(WALL_OFFSET_MICROS_MAX).unwrap_or(0);
                cluster.set_wall_offset(self.anyone(), offset - back);
            }
            _ => cluster.sleep(lasting / 4).await,
        }
    }

    /// Operations of a disk fail now and then, until the power of its node is cut.
    async fn disturb_disk(&mut self, node: NodeId) {
        let ppm = [2_000, 30_000, 400_000][usize::try_from(self.random.range(0..3)).unwrap_or(0)];
        let mut faults = DiskFaults::default();
        let drawn = match self.random.range(0..3) {
            0 => Fault::WriteError,
            1 => Fault::SyncError,
            _ => Fault::ReadError,
        };
        if !self.strikes(drawn) {
            return;
        }
        match drawn {
            Fault::WriteError => faults.write_errors_ppm = ppm,
            Fault::SyncError => faults.sync_errors_ppm = ppm,
            _ => faults.read_errors_ppm = ppm,
        }
        self.fail_disk(node, faults).await;
    }

    /// The disk of a node fails somewhere in its work, then the power does; perhaps once more while it recovers.
    async fn fail_disk(&mut self, node: NodeId, faults: DiskFaults) {
        let cluster = self.cluster.clone();
        cluster.fail_disk(node, faults);
        cluster.sleep(Duration::from_millis(self.random.range(50..1000))).await;
        loop {
            cluster.crash(node);
            let again = self.random.chance(1, 3) && self.strikes(Fault::CutInRecovery);
            if again {
                let changes = self.random.range(0..60);
                let faults = DiskFaults { power_cut_after: Some(changes), ..DiskFaults::default() };
                cluster.fail_disk(node, faults);
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
        let network = cluster.network();
        let lasting = self.lasting();
        let kinds = if self.only_asymmetric { 2..4 } else { 0..6 };
        match self.random.range(kinds) {
            0 if self.strikes(Fault::Isolation) => {
                let alone = self.target();
                for other in cluster.ids().into_iter().filter(|other| *other != alone) {
                    network.set_cut(alone, other, true);
                }
                // So that the others have a leader and work for a while.
                cluster.sleep(lasting + cluster.election_time()).await;
                network.heal();
            }
            1 if self.strikes(Fault::PairCut) => {
                network.set_cut(self.target(), self.anyone(), true);
                cluster.sleep(lasting).await;
                network.heal();
            }
            2 if self.strikes(Fault::OneWayCut) => {
                let ends = (self.target(), self.anyone());
                let (from, to) = if self.random.chance(1, 2) { ends } else { (ends.1, ends.0) };
                network.set_link(from, to, |link| link.cut = true);
                cluster.sleep(lasting).await;
                network.heal();
            }
            3 if self.strikes(Fault::Bridge) => {
                let bridge = self.target();
                let others: Vec<NodeId> = cluster.ids().into_iter().filter(|node| *node != bridge).collect();
                let (left, right) = others.split_at(others.len() / 2);
                for one in left {
                    for other in right {
                        network.set_cut(*one, *other, true);
                    }
                }
                cluster.sleep(lasting + cluster.election_time()).await;
                network.heal();
            }
            4 if self.strikes(Fault::Reset) => {
                for _ in 0..self.random.range(1..6) {
                    network.reset(self.target(), self.anyone());
                    cluster.sleep(lasting / 10).await;
                }
            }
            5 => {
                let storm = self.storm();
                network.set_default(storm);
                cluster.sleep(lasting).await;
                network.set_default(Link::default());
            }
            _ => cluster.sleep(lasting / 4).await,
        }
    }

    /// All links are bad, each in the ways that this run has.
    fn storm(&mut self) -> Link {
        let mut storm = Link::default();
        if self.strikes(Fault::Loss) {
            storm.loss = self.random.range(0..500);
        }
        if self.strikes(Fault::Reordering) {
            storm.delay_max = Duration::from_millis(self.random.range(1..40));
            storm.reordering = self.random.range(0..500);
        }
        if self.strikes(Fault::Duplication) {
            storm.duplication = self.random.range(0..500);
        }
        storm
    }

    async fn move_group(&mut self) {
        let cluster = self.cluster.clone();
        let lasting = self.lasting();
        let (group, node) = (self.group(), self.target());
        match self.random.range(0..4) {
            // These may be refused: they count when they have come about.
            0 if self.faults.contains(&Fault::Transfer) => {
                if members::transfer(&cluster, group, node).await {
                    self.strikes.count(Fault::Transfer);
                }
            }
            1 if self.faults.contains(&Fault::Membership) => {
                if members::remove(&cluster, group, node).await {
                    self.strikes.count(Fault::Membership);
                }
                cluster.sleep(lasting).await;
                members::take_in(&cluster, group, node).await;
            }
            _ => cluster.sleep(lasting).await,
        }
    }
}
