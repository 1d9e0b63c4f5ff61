//! Scenes: faults in the one order in which a certain mistake shows, with the moments and the nodes drawn from the seed.
//!
//! A campaign draws its faults one by one, so what takes four of them within one lease comes about too rarely to be
//! waited for. Clients append to a list and read it, as those of [`lists`](super::lists) do, and are held to the same.

use std::{collections::BTreeSet, fmt, ops::Range, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rustydb_consensus::{ConsensusConfig, loopback::Link, model::ModelStore};
use rustydb_env::{Rng, sim::Simulation};
use rustydb_types::ids::{GroupId, NodeId};

use super::{
    cluster::Cluster,
    invariants::Invariants,
    lists::Lists,
    members,
    run::{Course, agree},
};

const GROUP: GroupId = GroupId::new(2);
/// The list that all clients use.
const LIST: u64 = 1;
/// How long a leader is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// The whole scene.
const LIMIT: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(5);
/// For how long clients ask while the nodes disagree about who leads.
const CONTEST: Duration = Duration::from_millis(1500);

/// How much slower a disk is when it takes 0.28 to 0.6 s for a vote on the average.
const SLOWNESS: Range<u64> = 700..1500;
/// How long it may take with such disks until a leader is elected that takes an append.
const SLOW_PATIENCE: Duration = Duration::from_secs(60);

/// Which one is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// One of three has lost the leader and campaigns; the other, which hears the leader, is restarted and cut off from it.
    RestartedVoter,
    /// A leader hands over and is cut off before it knows how that ended.
    HandingOver,
    /// A voter is restarted, leads, and then reaches two learners, but no other voter.
    LearnersOnly,
    /// All disks, or all but one, are so slow that a vote takes longer than an election timeout; then the leader dies.
    SlowDisks,
}

impl Scene {
    /// All of them.
    pub const ALL: &[Scene] =
        &[Scene::RestartedVoter, Scene::HandingOver, Scene::LearnersOnly, Scene::SlowDisks];

    /// Plays it. Gives what was wrong; nothing when all went well.
    #[must_use]
    pub fn play(self, course: Course) -> Vec<String> {
        let sim = Arc::new(Simulation::new(course.seed));
        #[cfg(feature = "planted_bugs")]
        if let Some(bug) = course.bug {
            sim.plant(bug);
        }
        let (nodes, voters) = if self == Scene::LearnersOnly { (5, 3) } else { (3, 3) };
        let cluster = Cluster::new(sim.clone(), nodes, vec![GROUP], ConsensusConfig::default(), |_, _| {
            ModelStore::default()
        });
        let stage = Stage { cluster, lists: Lists::default(), wrong: Arc::default() };
        let ended = sim.block_on(LIMIT, stage.clone().scenario(self, voters, sim.harness().rng()));
        let mut wrong = std::mem::take(&mut *stage.wrong.lock());
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(failed)) => wrong.push(failed),
            Err(error) => wrong.push(error.to_string()),
        }
        for node in stage.cluster.ids() {
            stage.cluster.crash(node);
        }
        wrong
    }
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[derive(Clone)]
struct Stage {
    cluster: Cluster<ModelStore>,
    lists: Lists,
    wrong: Arc<Mutex<Vec<String>>>,
}

impl Stage {
    async fn scenario(self, scene: Scene, voters: u64, mut random: Rng) -> Result<(), String> {
        let cluster = &self.cluster;
        let env = cluster.sim().harness();
        for node in cluster.ids() {
            cluster.start(node).await;
        }
        let voters: BTreeSet<NodeId> = (1..=voters).map(NodeId::new).collect();
        let first = NodeId::new(1);
        let group = cluster.group(first, GROUP).ok_or("node 1 is not up")?;
        let members = voters.clone();
        let initialized =
            cluster.at(first, "initialize", async move { group.initialize(&members).await }).await;
        initialized.ok_or("node 1 went down")?.map_err(|error| error.to_string())?;
        let (looking, looked) = (self.clone(), Arc::new(Mutex::new(false)));
        let is_over = looked.clone();
        let watching = env.spawn("invariants", async move { looking.watch(&is_over).await });
        let played = self.play(scene, &voters, &mut random).await;
        self.heal().await;
        // A healed group must serve.
        let served = self.serve().await;
        *looked.lock() = true;
        let _ended = watching.await;
        played.and(served)?;
        let mut wrong = agree(cluster).await;
        wrong.extend(cluster.failures());
        wrong.extend(self.lists.held_against(cluster));
        self.wrong.lock().extend(wrong);
        Ok(())
    }

    async fn play(&self, scene: Scene, voters: &BTreeSet<NodeId>, random: &mut Rng) -> Result<(), String> {
        let cluster = &self.cluster;
        let network = cluster.network();
        let leader = self.serve().await?;
        let mut others: Vec<NodeId> = voters.iter().copied().filter(|node| *node != leader).collect();
        if random.chance(1, 2) {
            others.reverse();
        }
        let (one, other) = (others[0], others[1]);
        match scene {
            Scene::RestartedVoter => {
                network.set_cut(leader, one, true);
                cluster.sleep(millis(random, 400, 2000)).await;
                network.set_cut(leader, other, true);
                if random.chance(1, 2) {
                    cluster.crash(other)
                } else {
                    cluster.kill(other)
                }
                cluster.sleep(millis(random, 0, 20)).await;
                cluster.start(other).await;
                self.contest(leader).await;
            }
            Scene::HandingOver => {
                let (handing, harness) = (cluster.clone(), cluster.sim().harness());
                let transfer =
                    harness.spawn("transfer", async move { members::transfer(&handing, GROUP, one).await });
                cluster.sleep(Duration::from_micros(random.range(0..2000))).await;
                network.set_cut(leader, one, true);
                network.set_cut(leader, other, true);
                self.contest(leader).await;
                let _may_fail = transfer.await;
            }
            Scene::SlowDisks => {
                let factor = random.range(SLOWNESS);
                let fast = random.chance(1, 3).then_some(one);
                for node in cluster.ids().into_iter().filter(|node| Some(*node) != fast) {
                    cluster.slow_disk(node, factor);
                }
                cluster.kill(leader);
                self.serve_within(SLOW_PATIENCE)
                    .await
                    .map_err(|wrong| format!("disks that are {factor} times slower: {wrong}"))?;
                for node in cluster.ids() {
                    cluster.slow_disk(node, 1);
                }
                cluster.start(leader).await;
            }
            Scene::LearnersOnly => {
                let learners: Vec<NodeId> = cluster.ids().difference(voters).copied().collect();
                for learner in &learners {
                    let group = cluster.group(leader, GROUP).ok_or("the leader is gone")?;
                    let learner = *learner;
                    let added =
                        cluster.at(leader, "learner", async move { group.add_learner(learner).await });
                    added.await.ok_or("the leader went down")?.map_err(|error| error.to_string())?;
                }
                self.append(leader).await;
                cluster.crash(one);
                cluster.sleep(millis(random, 0, 50)).await;
                cluster.start(one).await;
                let env = cluster.sim().harness();
                let until = env.now() + PATIENCE;
                while cluster.leader(GROUP).map(|(leader, _)| leader) != Some(one) {
                    if env.now() > until {
                        return Err(format!("node {one} does not come to lead"));
                    }
                    members::transfer(cluster, GROUP, one).await;
                    cluster.sleep(LOOK).await;
                }
                let rest = voters.iter().filter(|node| **node != one);
                for node in rest {
                    for near in learners.iter().chain([&one]) {
                        network.set_cut(*near, *node, true);
                    }
                }
                self.contest(one).await;
            }
        }
        Ok(())
    }

    /// Clients append at whoever says that it leads, and read at the one that may have been followed.
    async fn contest(&self, old: NodeId) {
        let env = self.cluster.sim().harness();
        let until = env.now() + CONTEST;
        let mut asked = Vec::new();
        while env.now() < until {
            for (leader, _) in self.cluster.leaders(GROUP) {
                let stage = self.clone();
                asked.push(env.spawn("append", async move {
                    stage.append(leader).await;
                }));
            }
            let stage = self.clone();
            asked.push(env.spawn("read", async move {
                stage.lists.read(&stage.cluster, old, GROUP, LIST).await;
            }));
            self.cluster.sleep(LOOK).await;
        }
        for client in asked {
            let _ended = client.await;
        }
    }

    async fn append(&self, leader: NodeId) -> bool {
        let Some((_, term)) = self.cluster.leaders(GROUP).into_iter().find(|(node, _)| *node == leader)
        else {
            return false;
        };
        self.lists.append(&self.cluster, leader, GROUP, term, LIST).await
    }

    /// Waits for somebody who leads and takes an append; gives who.
    async fn serve(&self) -> Result<NodeId, String> {
        self.serve_within(PATIENCE).await
    }

    async fn serve_within(&self, patience: Duration) -> Result<NodeId, String> {
        let env = self.cluster.sim().harness();
        let until = env.now() + patience;
        loop {
            if let Some((leader, _)) = self.cluster.leader(GROUP)
                && self.append(leader).await
            {
                return Ok(leader);
            }
            if env.now() > until {
                return Err(format!("nobody takes an append within {patience:?}"));
            }
            self.cluster.sleep(LOOK).await;
        }
    }

    async fn heal(&self) {
        self.cluster.network().heal();
        self.cluster.network().set_default(Link::default());
        let wrong = members::restore(&self.cluster, PATIENCE).await;
        self.wrong.lock().extend(wrong);
    }

    async fn watch(&self, is_over: &Mutex<bool>) {
        let mut invariants = Invariants::default();
        while !*is_over.lock() {
            let wrong = invariants.look(&self.cluster);
            if !wrong.is_empty() {
                self.wrong.lock().extend(wrong);
                return;
            }
            self.cluster.sleep(LOOK).await;
        }
    }
}

fn millis(random: &mut Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(random.range(from..to))
}
