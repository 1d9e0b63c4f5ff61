//! Clients over models: they append to lists and read them, straight through the groups' proposers.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rustydb_consensus::{
    model::{ModelStore, append_command},
    proposer::{Linearize, Proposal, ProposeError},
};
use rustydb_env::Rng;
use rustydb_types::ids::{GroupId, NodeId, Term};
use tokio::sync::oneshot;

use super::{
    cluster::Cluster,
    oracle::{Counts, History, Told},
    run::{Course, Report, Stage, Workload, run},
};

/// How long a client waits for an answer.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(1);
/// Lists per group that are in use at one time.
const KEYS: u64 = 4;
/// After so many values others take their place, so that a long run has no long lists.
const ERA_VALUES: u64 = 200;

/// Runs models under consensus from a seed: see [`run`].
#[must_use]
pub fn run_models(course: Course) -> Report {
    run(course, Lists::default(), |_, _| ModelStore::default())
}

/// The clients' history.
#[derive(Clone, Default)]
pub(super) struct Lists {
    history: Arc<Mutex<History>>,
}

impl Workload for Lists {
    type Machines = ModelStore;

    const OPTION: &'static str = "--models";

    /// Appends and reads at whoever seems to lead.
    async fn client(self, stage: Stage<ModelStore>, _number: u64, mut random: Rng) {
        let cluster = &stage.cluster;
        while !stage.is_over() {
            let groups = cluster.groups();
            let group = groups[usize::try_from(random.range(0..groups.len() as u64)).unwrap_or(0)];
            let key = self.history.lock().values() / ERA_VALUES * KEYS + random.range(0..KEYS);
            // Some may still serve that others have followed: they are asked, too.
            let leaders = cluster.leaders(group);
            let chosen = usize::try_from(random.range(0..leaders.len().max(1) as u64)).unwrap_or(0);
            match leaders.get(chosen).copied() {
                Some((leader, _)) if random.chance(1, 3) => self.read(cluster, leader, group, key).await,
                Some((leader, term)) => {
                    self.append(cluster, leader, group, term, key).await;
                }
                None => cluster.sleep(Duration::from_millis(20)).await,
            }
            stage.think(&mut random).await;
        }
    }

    fn counts(&self) -> Counts {
        self.history.lock().counts()
    }

    async fn check(&self, cluster: &Cluster<ModelStore>) -> Vec<String> {
        self.held_against(cluster)
    }
}

impl Lists {
    /// What clients did and saw, held against the lists of all nodes. Gives what is wrong.
    pub(super) fn held_against(&self, cluster: &Cluster<ModelStore>) -> Vec<String> {
        let mut wrong = Vec::new();
        for group in cluster.groups() {
            for node in cluster.ids() {
                let found = self.history.lock().check(*group, &cluster.state(node, *group));
                wrong.extend(found.into_iter().map(|found| format!("at node {node}: {found}")));
            }
        }
        wrong
    }

    /// Appends a new value at the leader of a term; says whether that was acknowledged.
    pub(super) async fn append(
        &self,
        cluster: &Cluster<ModelStore>,
        leader: NodeId,
        group: GroupId,
        term: Term,
        key: u64,
    ) -> bool {
        let value = self.history.lock().next_value();
        let told = append(cluster, leader, group, term, append_command(key, value)).await;
        self.history.lock().appended((group, key), value, told);
        told == Told::Acknowledged
    }

    /// Reads a list at a node, if that says that it may.
    pub(super) async fn read(&self, cluster: &Cluster<ModelStore>, leader: NodeId, group: GroupId, key: u64) {
        let Some(handle) = cluster.group(leader, group) else { return };
        let must_see: BTreeSet<u64> = self.history.lock().acknowledged((group, key));
        let at = cluster.clone();
        let reading = async move {
            match handle.proposer().linearize() {
                Linearize::Now => {}
                Linearize::Wait(wait) => wait.await.ok()?,
            }
            Some(at.state(leader, group).lists.get(&key).cloned().unwrap_or_default())
        };
        let env = cluster.sim().harness();
        let answer = env.timeout(OPERATION_TIMEOUT * 3, cluster.at(leader, "read", reading)).await;
        if let Ok(Some(Some(saw))) = answer {
            self.history.lock().read((group, key), must_see, saw);
        }
    }
}

async fn append(
    cluster: &Cluster<ModelStore>,
    leader: NodeId,
    group: GroupId,
    term: Term,
    entry: bytes::Bytes,
) -> Told {
    let Some(group) = cluster.group(leader, group) else { return Told::Refused };
    let proposing = async move {
        let (done, result) = oneshot::channel();
        let done = Box::new(move |outcome| {
            // Nobody listens any more when the client gave up.
            let _late = done.send(outcome);
        });
        group.proposer().propose(Proposal { term, entry, done })?;
        result.await.unwrap_or(Err(ProposeError::Unknown))
    };
    let env = cluster.sim().harness();
    let proposing = cluster.at(leader, "append", proposing);
    match env.timeout(OPERATION_TIMEOUT, proposing).await {
        Ok(Some(Ok(()))) => Told::Acknowledged,
        Ok(Some(Err(ProposeError::Unknown))) | Ok(None) | Err(_) => Told::Unknown,
        Ok(Some(Err(_))) => Told::Refused,
    }
}
