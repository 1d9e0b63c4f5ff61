//! Members that lose their logs: nobody may lead meanwhile who lacks what they had acknowledged, and they are whole again
//! as soon as all is known that can be.

use std::{
    collections::BTreeSet,
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use rustydb_consensus::ConsensusConfig;
use rustydb_env::sim::Simulation;
use rustydb_txn::{Access, Isolation, TxnError, TxnOptions};
use rustydb_types::ids::{GroupId, Incarnation, NodeId, RequestId, SessionId};

use super::{
    cluster::Cluster,
    members,
    run::Course,
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

/// Who loses a log, and what happens meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The one of three that alone, beside the leader, has what was acknowledged; the leader loses its power.
    OneOfThree,
    /// The leader of three.
    Leader,
    /// Of five, the two that alone, beside the leader, have what was acknowledged; the leader loses its power.
    TwoOfFive,
    /// As [`Loss::OneOfThree`], but nothing at all is left of the log.
    Folder,
    /// One of three has an empty log, and nothing says that there was another.
    Blank,
    /// As [`Loss::OneOfThree`], but the end of the log is gone without a trace: zeros, or no newest segment.
    End,
    /// One of five; another one is gone for good, a sixth is taken in, and then the one that is gone is removed.
    MembersChange,
}

impl Loss {
    /// All of them.
    pub const ALL: &[Loss] = &[
        Loss::OneOfThree,
        Loss::Leader,
        Loss::TwoOfFive,
        Loss::Folder,
        Loss::Blank,
        Loss::End,
        Loss::MembersChange,
    ];

    /// Plays it. Gives what was wrong.
    #[must_use]
    pub fn play(self, course: Course) -> Vec<String> {
        let sim = Arc::new(Simulation::new(course.seed));
        #[cfg(feature = "planted_bugs")]
        if let Some(bug) = course.bug {
            sim.plant(bug);
        }
        let hashes = Hashes::default();
        let config = ConsensusConfig::default();
        let (nodes, voters) = match self {
            Loss::OneOfThree | Loss::Leader | Loss::Folder | Loss::Blank | Loss::End => (3, 3),
            Loss::TwoOfFive => (5, 5),
            Loss::MembersChange => (6, 5),
        };
        let cluster =
            Cluster::new(sim.clone(), nodes, vec![GROUP], config, |_, _| Stores::new(hashes.clone()));
        let wrong = Wrong::default();
        let stage = Stage { cluster: cluster.clone(), wrong: wrong.clone() };
        if let Err(error) = sim.block_on(RUN_LIMIT, stage.scenario(self, voters)) {
            wrong.lock().push(error.to_string());
        }
        wrong.lock().extend(cluster.failures());
        for node in cluster.ids() {
            cluster.crash(node);
        }
        std::mem::take(&mut *wrong.lock())
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What was wrong; empty in a good run.
type Wrong = Arc<Mutex<Vec<String>>>;

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

/// Nothing is left of the log.
fn remove_log(cluster: &Cluster<Stores>, node: NodeId, _wrong: &Wrong) {
    cluster.remove_folder(node, Path::new("/log"));
    cluster.expect_damaged_log(node);
}

/// The newest segment is gone, or all behind some frame in the newest segment is zeros: nothing in the log tells.
fn lose_end(cluster: &Cluster<Stores>, node: NodeId, wrong: &Wrong) {
    let is_segment =
        |path: &PathBuf| path.starts_with("/log") && path.extension().is_some_and(|end| end == "log");
    let segments: Vec<PathBuf> = cluster.file_names(node).into_iter().filter(is_segment).collect();
    let Some(newest) = segments.iter().max() else { return wrong.lock().push("there is no log".to_owned()) };
    if segments.len() > 1 && cluster.sim().harness().rng().chance(1, 2) {
        cluster.remove_file(node, newest);
    } else {
        let content = cluster.disk_content(node, newest).unwrap_or_default();
        let written = content.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        cluster.zero(node, newest, written / 2..written + 1);
    }
    cluster.expect_damaged_log(node);
}

type Lose = fn(&Cluster<Stores>, NodeId, &Wrong);

struct Stage {
    cluster: Cluster<Stores>,
    wrong: Wrong,
}

impl Stage {
    async fn scenario(self, loss: Loss, voters: u64) {
        for node in self.cluster.ids() {
            self.cluster.start(node).await;
        }
        self.initialize((1..=voters).map(NodeId::new).collect()).await;
        let Some(leader) = self.led().await else { return };
        let mut others: Vec<NodeId> = (1..=voters).map(NodeId::new).filter(|id| *id != leader).collect();
        let first = self.cluster.sim().harness().rng().range(0..others.len() as u64);
        others.rotate_left(usize::try_from(first).unwrap_or(0));
        match loss {
            Loss::OneOfThree | Loss::TwoOfFive => self.acknowledgers(leader, &others, damage_log).await,
            Loss::End => self.acknowledgers(leader, &others, lose_end).await,
            Loss::Folder => self.acknowledgers(leader, &others, remove_log).await,
            Loss::Blank => self.blank(leader, &others).await,
            Loss::Leader => self.leader(leader).await,
            Loss::MembersChange => self.members_change(leader, &others).await,
        }
        let Some(leads) = self.led().await else { return };
        match missing(&self.cluster, leads).await {
            Ok(missing) if missing.is_empty() => {}
            other => self.say(format!("node {leads} leads and lacks {other:?}")),
        }
        self.until("all replicas are equal", || {
            let up = self.cluster.up();
            let states: BTreeSet<_> = up.iter().map(|node| self.cluster.applied(*node, GROUP)).collect();
            states.len() == 1
        })
        .await;
    }

    /// Those that acknowledged what the others lack lose their logs, and the leader its power.
    async fn acknowledgers(&self, leader: NodeId, others: &[NodeId], lose: Lose) {
        let (cluster, network) = (&self.cluster, self.cluster.network());
        let (lost, behind) = others.split_at(others.len() / 2);
        self.write(leader, 0..ROWS).await;
        for node in behind {
            for other in lost.iter().chain([&leader]) {
                network.set_cut(*node, *other, true);
            }
        }
        self.write(leader, ROWS..2 * ROWS).await;
        // Long enough for every node to have noted how far its log is.
        cluster.sleep(LONG).await;
        cluster.crash(leader);
        for node in lost {
            cluster.crash(*node);
            lose(cluster, *node, &self.wrong);
        }
        network.heal();
        for node in lost {
            cluster.start(*node).await;
        }
        self.nobody_leads().await;
        for node in lost {
            if !cluster.is_mending(*node, GROUP) {
                self.say(format!("the log of node {node} is whole, and nobody else has a part of it"));
            }
        }
        cluster.start(leader).await;
        self.until_mended(lost).await;
    }

    /// The leader loses its log and comes back at once, while the others do not know yet.
    async fn leader(&self, leader: NodeId) {
        self.write(leader, 0..2 * ROWS).await;
        self.cluster.crash(leader);
        damage_log(&self.cluster, leader, &self.wrong);
        self.cluster.start(leader).await;
        self.until_mended(&[leader]).await;
    }

    async fn blank(&self, leader: NodeId, others: &[NodeId]) {
        let (cluster, Some(victim)) = (&self.cluster, others.first().copied()) else { return };
        self.write(leader, 0..2 * ROWS).await;
        // Its state must have some of that on the disk: nothing else tells.
        cluster.sleep(LONG).await;
        cluster.crash(victim);
        cluster.remove_folder(victim, Path::new("/log"));
        cluster.start(victim).await;
        if !cluster.is_mending(victim, GROUP) {
            self.say("an empty log is not taken for a lost one".to_owned());
        }
        self.until_mended(&[victim]).await;
        cluster.crash(leader);
    }

    async fn members_change(&self, leader: NodeId, others: &[NodeId]) {
        let cluster = &self.cluster;
        let &[victim, gone, third, ..] = others else { return };
        let added = NodeId::new(6);
        self.write(leader, 0..ROWS).await;
        cluster.crash(gone);
        cluster.crash(victim);
        damage_log(cluster, victim, &self.wrong);
        cluster.start(victim).await;
        let has_vote = |node: NodeId| move |voters: &BTreeSet<NodeId>| voters.contains(&node);
        let is_out = |node: NodeId| move |voters: &BTreeSet<NodeId>| !voters.contains(&node);
        self.change(has_vote(added), members::take_in(cluster, GROUP, added)).await;
        self.write(leader, ROWS..2 * ROWS).await;
        cluster.sleep(LONG).await;
        if !cluster.is_mending(victim, GROUP) {
            self.say("a log is whole although a member has not answered".to_owned());
        }
        let removing = async { _ = members::remove(cluster, GROUP, gone).await };
        self.change(is_out(gone), removing).await;
        // It comes back neither as a member nor at all.
        self.until_mended(&[victim]).await;
        // A majority of the five that are left needs the one that was mended.
        cluster.crash(leader);
        cluster.crash(third);
    }

    async fn change(&self, is_done: impl Fn(&BTreeSet<NodeId>) -> bool, change: impl Future<Output = ()>) {
        change.await;
        self.until("the members are changed", || {
            let leader = self.cluster.leader(GROUP);
            let group = leader.and_then(|(leader, _)| self.cluster.group(leader, GROUP));
            group.map(|group| group.status()).is_some_and(|status| !status.joint && is_done(&status.voters))
        })
        .await;
    }

    async fn initialize(&self, voters: BTreeSet<NodeId>) {
        let first = NodeId::new(1);
        let Some(group) = self.cluster.group(first, GROUP) else { return };
        let done = self.cluster.at(first, "initialize", async move { group.initialize(&voters).await }).await;
        if !matches!(done, Some(Ok(()))) {
            self.say(format!("not initialized: {done:?}"));
        }
    }

    fn say(&self, wrong: String) {
        self.wrong.lock().push(wrong);
    }

    async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        until(&self.cluster, &self.wrong, what, holds).await;
    }

    async fn until_mended(&self, nodes: &[NodeId]) {
        for node in nodes {
            self.until("the log is whole again", || !self.cluster.is_mending(*node, GROUP)).await;
        }
    }

    /// Who leads, once somebody does.
    async fn led(&self) -> Option<NodeId> {
        self.until("a leader", || self.cluster.leader(GROUP).is_some()).await;
        self.cluster.leader(GROUP).map(|(leader, _)| leader)
    }

    async fn nobody_leads(&self) {
        let env = self.cluster.sim().harness();
        let until = env.now() + LONG;
        while env.now() < until {
            if let Some((node, term)) = self.cluster.leader(GROUP) {
                return self.say(format!("node {node} leads in term {term} without what was acknowledged"));
            }
            self.cluster.sleep(LOOK).await;
        }
    }

    async fn write(&self, leader: NodeId, rows: Range<u64>) {
        for number in rows {
            if !write(&self.cluster, leader, number).await {
                self.say(format!("row {number} was not written"));
            }
        }
    }
}
