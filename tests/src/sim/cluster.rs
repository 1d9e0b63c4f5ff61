//! Nodes of the simulation: each with a log on its own disk, groups, and models that forget what was not flushed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rustydb_consensus::{
    ConsensusConfig, Group, Groups, GroupsParts,
    loopback::LoopbackNetwork,
    model::{ModelState, ModelStore},
};
use rustydb_env::{
    Env, TaskGroup,
    sim::{SimNode, Simulation},
};
use rustydb_storage::log::{Log, LogConfig};
use rustydb_types::ids::{GroupId, NodeId};

/// What runs while a node is up. Dropped at a crash, after its tasks are gone.
struct Running {
    env: Env,
    groups: Groups,
    _tasks: TaskGroup,
}

/// A node, up or down.
struct Member {
    sim: SimNode,
    models: ModelStore,
    /// How often it was started.
    life: u64,
    running: Option<Running>,
}

/// The cluster. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    sim: Arc<Simulation>,
    network: LoopbackNetwork,
    config: ConsensusConfig,
    groups: Vec<GroupId>,
    members: Arc<Mutex<BTreeMap<NodeId, Member>>>,
}

impl Cluster {
    /// `count` nodes, all down, that will hold `groups`.
    #[must_use]
    pub fn new(sim: Arc<Simulation>, count: u64, groups: Vec<GroupId>, config: ConsensusConfig) -> Self {
        let members = (1..=count)
            .map(|id| {
                let member =
                    Member { sim: sim.add_node(), models: ModelStore::default(), life: 0, running: None };
                (NodeId::new(id), member)
            })
            .collect();
        Self { sim, network: LoopbackNetwork::new(), config, groups, members: Arc::new(Mutex::new(members)) }
    }

    /// The simulated world.
    #[must_use]
    pub fn sim(&self) -> &Simulation {
        &self.sim
    }

    /// The links between the nodes.
    #[must_use]
    pub fn network(&self) -> &LoopbackNetwork {
        &self.network
    }

    /// The groups that every node holds.
    #[must_use]
    pub fn groups(&self) -> &[GroupId] {
        &self.groups
    }

    /// All nodes, up or down.
    #[must_use]
    pub fn ids(&self) -> BTreeSet<NodeId> {
        self.members.lock().keys().copied().collect()
    }

    /// Nodes that are up.
    #[must_use]
    pub fn up(&self) -> Vec<NodeId> {
        self.members.lock().iter().filter(|(_, member)| member.running.is_some()).map(|(id, _)| *id).collect()
    }

    /// Which life a node is in.
    #[must_use]
    pub fn life(&self, node: NodeId) -> u64 {
        self.members.lock().get(&node).map_or(0, |member| member.life)
    }

    /// Starts a node that is down: recovers its log, opens its groups.
    ///
    /// # Panics
    /// When the log cannot be recovered or a group not opened, which no fault here may cause.
    pub async fn start(&self, node: NodeId) {
        let (env, models) = {
            let mut members = self.members.lock();
            let member = members.get_mut(&node).expect("nodes are made at the start");
            member.life += 1;
            (self.sim.env(member.sim), member.models.clone())
        };
        let opening = {
            let (cluster, env) = (self.clone(), env.clone());
            move || async move {
                let config = LogConfig { segment_bytes: 256 << 10, reserve_bytes: 0, ..LogConfig::default() };
                // As a server does with its data folder: the folder's name must survive, too.
                env.disk().create_dir_all(Path::new("/log")).expect("no fault is set");
                env.disk().sync_dir(Path::new("/")).expect("no fault is set");
                let log = Log::open(&env, Path::new("/log"), config).expect("a crash never damages a log");
                let groups = Groups::new(GroupsParts {
                    env: env.clone(),
                    config: cluster.config.clone(),
                    log,
                    transport: cluster.network.endpoint(node, &env),
                    machines: Arc::new(models),
                    node,
                });
                for group in &cluster.groups {
                    groups.open_group(*group).await.expect("a recovered group opens");
                }
                let tasks = TaskGroup::new(&env);
                cluster.network.attach(node, &env, &tasks, Arc::new(groups.clone()));
                let running = Running { env: env.clone(), groups, _tasks: tasks };
                if let Some(member) = cluster.members.lock().get_mut(&node) {
                    member.running = Some(running);
                }
            }
        };
        // In the node's own world, so that a crash meanwhile takes it along.
        let _ended_or_crashed = env.spawn("start", opening()).await;
    }

    /// Gives every group its members. Once, at the start.
    ///
    /// # Panics
    /// When the first node refuses.
    pub async fn initialize(&self) {
        let members = self.ids();
        for group in &self.groups {
            let first = *members.first().expect("a cluster has nodes");
            let initializing = self.group(first, *group).expect("the first node is up");
            let members = members.clone();
            let done =
                self.at(first, "initialize", async move { initializing.initialize(&members).await }).await;
            done.expect("the first node is up").expect("the first node is a member");
        }
    }

    /// Runs something in a node's world; [`None`] when the node is down or crashes meanwhile.
    pub async fn at<F>(&self, node: NodeId, name: &'static str, future: F) -> Option<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let env = self.members.lock().get(&node)?.running.as_ref()?.env.clone();
        env.spawn(name, future).await.ok()
    }

    /// A group at a node that is up.
    #[must_use]
    pub fn group(&self, node: NodeId, group: GroupId) -> Option<Group> {
        self.members.lock().get(&node)?.running.as_ref()?.groups.get(group)
    }

    /// The applied state of a group at a node.
    #[must_use]
    pub fn state(&self, node: NodeId, group: GroupId) -> ModelState {
        self.members.lock().get(&node).map(|member| member.models.cell(group).present()).unwrap_or_default()
    }

    /// The node that says it serves a group, if one does.
    #[must_use]
    pub fn leader(&self, group: GroupId) -> Option<(NodeId, rustydb_types::ids::Term)> {
        let members = self.members.lock();
        let leaders = members.iter().filter(|(_, member)| member.running.is_some());
        let mut leaders: Vec<_> =
            leaders.filter_map(|(id, member)| Some((*id, member.models.cell(group).leads()?))).collect();
        leaders.sort_by_key(|(_, term)| *term);
        leaders.pop()
    }

    /// Cuts the power of a node: what was not synced or flushed is gone.
    pub fn crash(&self, node: NodeId) {
        self.network.detach(node);
        let crashed = {
            let mut members = self.members.lock();
            let Some(member) = members.get_mut(&node) else { return };
            self.sim.crash(member.sim);
            member.models.crash();
            member.running.take()
        };
        drop(crashed);
    }

    /// Stops a node in its tracks, or lets it go on.
    pub fn set_paused(&self, node: NodeId, paused: bool) {
        let Some(sim) = self.members.lock().get(&node).map(|member| member.sim) else { return };
        if paused { self.sim.pause(sim) } else { self.sim.resume(sim) }
    }

    /// Waits in the harness.
    pub async fn sleep(&self, duration: Duration) {
        self.sim.harness().sleep(duration).await;
    }
}
