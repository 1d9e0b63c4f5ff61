//! Nodes of the simulation: each with a log on its own disk, groups, and what they apply to.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rustydb_consensus::{
    ConsensusConfig, ConsensusError, Group, Groups, GroupsParts,
    loopback::LoopbackNetwork,
    model::{ModelState, ModelStore},
};
use rustydb_env::{
    Disk, Env, OpenMode, TaskGroup,
    sim::{DiskFaults, SimNode, Simulation},
};
use rustydb_storage::log::{GroupLog, GroupLogView, Log, LogConfig, LogPlace, Past};
use rustydb_types::{
    ids::{GroupId, NodeId, Term},
    position::LogPosition,
};

use super::machines::Machines;

/// With less room than this on its disk a node refuses proposals.
const RESERVE_BYTES: u64 = 32 << 10;

/// What runs while a node is up. Dropped at a crash, after its tasks are gone.
struct Running {
    env: Env,
    groups: Groups,
    log: Log,
    _tasks: TaskGroup,
}

/// A node, up or down.
struct Member<M> {
    sim: SimNode,
    machines: M,
    /// How often it was started.
    life: u64,
    /// Whether its disk fails, or will, in this life: then it may stop by itself.
    is_failing: bool,
    /// Whether it has stopped by itself in this life.
    has_stopped: bool,
    /// Its log was damaged by the harness.
    has_damaged_log: bool,
    /// How the logs of its groups were when it ended last.
    former_logs: BTreeMap<GroupId, GroupLogView>,
    running: Option<Running>,
}

/// The cluster. Cheap to clone.
#[derive(Clone)]
pub struct Cluster<M> {
    sim: Arc<Simulation>,
    network: LoopbackNetwork,
    config: ConsensusConfig,
    log_config: LogConfig,
    groups: Vec<GroupId>,
    members: Arc<Mutex<BTreeMap<NodeId, Member<M>>>>,
    failures: Arc<Mutex<Vec<String>>>,
}

impl<M: Machines> Cluster<M> {
    /// `count` nodes, all down, that will hold `groups`, each over machines of its own.
    #[must_use]
    pub fn new(
        sim: Arc<Simulation>,
        count: u64,
        groups: Vec<GroupId>,
        config: ConsensusConfig,
        machines: impl Fn(NodeId, &LoopbackNetwork) -> M,
    ) -> Self {
        let network = LoopbackNetwork::new();
        let members = (1..=count)
            .map(NodeId::new)
            .map(|id| {
                let (sim, machines) = (sim.add_node(), machines(id, &network));
                let member = Member {
                    sim,
                    machines,
                    life: 0,
                    is_failing: false,
                    has_stopped: false,
                    has_damaged_log: false,
                    former_logs: BTreeMap::new(),
                    running: None,
                };
                (id, member)
            })
            .collect();
        Self {
            sim,
            network,
            config,
            log_config: LogConfig {
                segment_bytes: 256 << 10,
                reserve_bytes: RESERVE_BYTES,
                ..LogConfig::default()
            },
            groups,
            members: Arc::new(Mutex::new(members)),
            failures: Arc::default(),
        }
    }

    /// The same with other sizes of the nodes' logs, from their next starts on.
    #[must_use]
    pub fn with_log(mut self, log_config: LogConfig) -> Self {
        self.log_config = LogConfig { reserve_bytes: RESERVE_BYTES, ..log_config };
        self
    }

    /// Within this the others notice that one is cut off, and elect a leader.
    #[must_use]
    pub fn election_time(&self) -> Duration {
        self.config.election_timeout_max * 7 / 4
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

    /// Nodes that stopped by themselves although their disks were sound.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        self.failures.lock().clone()
    }

    /// Starts a node that is down: recovers its log, opens its groups. It stays down when its disk fails meanwhile.
    ///
    /// # Panics
    /// When a node whose disk is sound cannot be started.
    pub async fn start(&self, node: NodeId) {
        let (env, machines) = {
            let mut members = self.members.lock();
            let member = members.get_mut(&node).expect("nodes are made at the start");
            member.life += 1;
            (self.sim.env(member.sim), member.machines.clone())
        };
        let opening = self.clone().open(node, env.clone(), machines);
        // In the node's own world, so that a crash meanwhile takes it along.
        let opened = env.spawn("start", opening).await;
        if let Ok(Err(error)) = opened {
            assert!(self.is_failing(node), "node {node} with a sound disk does not start: {error}");
        }
    }

    async fn open(self, node: NodeId, env: Env, machines: M) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Debug| format!("{error:?}");
        // As a server does with its data folder: the folder's name must survive, too.
        env.disk().create_dir_all(Path::new("/log")).map_err(|error| failed(&error))?;
        env.disk().sync_dir(Path::new("/")).map_err(|error| failed(&error))?;
        let place = LogPlace::load(&env, Path::new("/")).map_err(|error| failed(&error))?;
        let is_damaged = self.members.lock().get(&node).is_some_and(|member| member.has_damaged_log);
        let groups = self.groups.iter().copied().filter(|_| is_damaged);
        let past = if is_damaged { Past::HadLog } else { Past::Unknown };
        let log = place.open(self.log_config, past, groups).map_err(|error| failed(&error))?;
        let groups = Groups::new(GroupsParts {
            env: env.clone(),
            config: self.config.clone(),
            log: log.clone(),
            place: Arc::new(place),
            transport: self.network.endpoint(node, &env),
            machines: machines.factory(&env),
            node,
            peers: self.ids(),
        });
        for group in &self.groups {
            match groups.open_group(*group).await {
                Ok(_) => {}
                // It opens by itself, when the other members have answered.
                Err(ConsensusError::Busy { .. }) if groups.is_mending(*group) => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        let tasks = TaskGroup::new(&env);
        self.network.attach(node, &env, &tasks, Arc::new(groups.clone()));
        let (cluster, watched) = (self.clone(), groups.clone());
        tasks.spawn("failure", async move {
            let error = watched.failed().await;
            if let Some(member) = cluster.members.lock().get_mut(&node) {
                member.has_stopped = true;
            }
            if !cluster.is_failing(node) {
                cluster.failures.lock().push(format!("node {node} stopped by itself: {error:?}"));
            }
        });
        let running = Running { env, groups, log, _tasks: tasks };
        if let Some(member) = self.members.lock().get_mut(&node) {
            member.running = Some(running);
        }
        Ok(())
    }

    /// Whether the disk of a node fails, or will, in its present life.
    #[must_use]
    pub fn is_failing(&self, node: NodeId) -> bool {
        self.members.lock().get(&node).is_some_and(|member| member.is_failing)
    }

    /// Whether a node has stopped by itself in its present life.
    #[must_use]
    pub fn has_stopped(&self, node: NodeId) -> bool {
        self.members.lock().get(&node).is_some_and(|member| member.has_stopped)
    }

    /// Lets the disk of a node fail as told, until the node crashes: it may stop by itself from now on.
    pub fn fail_disk(&self, node: NodeId, faults: DiskFaults) {
        let mut members = self.members.lock();
        let Some(member) = members.get_mut(&node) else { return };
        member.is_failing = true;
        let disk = self.sim.disk(member.sim);
        disk.set_faults(DiskFaults { capacity_bytes: disk.faults().capacity_bytes, ..faults });
    }

    /// Makes every operation of a disk take so many times as long.
    pub fn slow_disk(&self, node: NodeId, factor: u64) {
        let Some(sim) = self.members.lock().get(&node).map(|member| member.sim) else { return };
        self.sim.set_disk_slowness(sim, factor);
    }

    /// Changing operations and reads of a node's disk so far.
    #[must_use]
    pub fn disk_operations(&self, node: NodeId) -> (u64, u64) {
        let sim = self.members.lock().get(&node).map(|member| member.sim);
        sim.map_or((0, 0), |sim| {
            let disk = self.sim.disk(sim);
            (disk.change_count(), disk.read_count())
        })
    }

    /// Leaves a node so many bytes of room on its disk, or plenty.
    pub fn fill_disk(&self, node: NodeId, room_bytes: Option<u64>) {
        let Some(sim) = self.members.lock().get(&node).map(|member| member.sim) else { return };
        let disk = self.sim.disk(sim);
        let capacity_bytes = room_bytes.map(|room| disk.used_bytes() + room);
        disk.set_faults(DiskFaults { capacity_bytes, ..disk.faults() });
    }

    /// The files on a node's disk, as its programs see them.
    #[must_use]
    pub fn disk_files(&self, node: NodeId) -> Vec<PathBuf> {
        let sim = self.members.lock().get(&node).map(|member| member.sim);
        sim.map_or_else(Vec::new, |sim| self.sim.disk(sim).file_names())
    }

    /// What a node's disk has in a file.
    #[must_use]
    pub fn disk_content(&self, node: NodeId, path: &Path) -> Option<Vec<u8>> {
        let sim = self.members.lock().get(&node).map(|member| member.sim)?;
        self.sim.disk(sim).content(path)
    }

    /// From here on the log of a node may turn out to be damaged; that of any other is sound, or else something is wrong.
    pub fn expect_damaged_log(&self, node: NodeId) {
        if let Some(member) = self.members.lock().get_mut(&node) {
            member.has_damaged_log = true;
        }
    }

    /// Whether a group at a node has lost its log and does not vote yet.
    #[must_use]
    pub fn is_mending(&self, node: NodeId, group: GroupId) -> bool {
        let members = self.members.lock();
        let running = members.get(&node).and_then(|member| member.running.as_ref());
        running.is_some_and(|running| running.groups.is_mending(group))
    }

    /// Flips a bit of a file on a node's disk. False when the file has no such byte.
    pub fn flip_bit(&self, node: NodeId, path: &Path, offset: usize, bit: u8) -> bool {
        let sim = self.members.lock().get(&node).map(|member| member.sim);
        sim.is_some_and(|sim| self.sim.disk(sim).flip_bit(path, offset, bit))
    }

    /// The files on a node's disk.
    #[must_use]
    pub fn file_names(&self, node: NodeId) -> Vec<PathBuf> {
        let sim = self.members.lock().get(&node).map(|member| member.sim);
        sim.map(|sim| self.sim.disk(sim).file_names()).unwrap_or_default()
    }

    /// Removes a file of a node that is down.
    pub fn remove_file(&self, node: NodeId, path: &Path) {
        self.spoil(node, path, |disk| {
            disk.remove_file(path)?;
            path.parent().map_or(Ok(()), |folder| disk.sync_dir(folder))
        });
    }

    /// Makes zeros of a part of a file of a node that is down.
    pub fn zero(&self, node: NodeId, path: &Path, part: Range<usize>) {
        self.spoil(node, path, |disk| {
            let file = disk.open(path, OpenMode::ReadWrite)?;
            file.write_at(part.start as u64, &vec![0; part.len()])?;
            file.sync_all()
        });
    }

    fn spoil(&self, node: NodeId, path: &Path, change: impl FnOnce(&dyn Disk) -> io::Result<()>) {
        let Some(sim) = self.members.lock().get(&node).map(|member| member.sim) else { return };
        if let Err(error) = change(&**self.sim.env(sim).disk()) {
            self.failures.lock().push(format!("{} of node {node} is not spoiled: {error}", path.display()));
        }
    }

    /// Removes a folder of a node that is down, with all in it.
    pub fn remove_folder(&self, node: NodeId, folder: &Path) {
        self.spoil(node, folder, |disk| {
            disk.remove_dir_all(folder)?;
            disk.sync_dir(Path::new("/"))
        });
    }

    /// Moves the wall clock of a node from the true time.
    pub fn set_wall_offset(&self, node: NodeId, micros: i64) {
        let Some(sim) = self.members.lock().get(&node).map(|member| member.sim) else { return };
        self.sim.set_wall_offset(sim, micros);
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

    /// The log of a group at a node that is up.
    #[must_use]
    pub fn log(&self, node: NodeId, group: GroupId) -> Option<GroupLog> {
        Some(self.members.lock().get(&node)?.running.as_ref()?.log.group(group))
    }

    /// How the log of a group was when a node ended last.
    #[must_use]
    pub fn former_log(&self, node: NodeId, group: GroupId) -> Option<GroupLogView> {
        self.members.lock().get(&node)?.former_logs.get(&group).cloned()
    }

    /// Whether the log of a node may turn out to be damaged.
    #[must_use]
    pub fn has_damaged_log(&self, node: NodeId) -> bool {
        self.members.lock().get(&node).is_some_and(|member| member.has_damaged_log)
    }

    /// What the groups of a node apply to.
    ///
    /// # Panics
    /// When there is no such node.
    #[must_use]
    pub fn machines(&self, node: NodeId) -> M {
        self.members.lock().get(&node).expect("nodes are made at the start").machines.clone()
    }

    /// How far a group is applied at a node, and the hash of that state.
    #[must_use]
    pub fn applied(&self, node: NodeId, group: GroupId) -> Option<(LogPosition, u128)> {
        self.machines(node).applied(group)
    }

    /// Up to where a crash would leave a group applied at a node.
    #[must_use]
    pub fn flushed(&self, node: NodeId, group: GroupId) -> Option<LogPosition> {
        self.machines(node).flushed(group)
    }

    /// The nodes that say they serve a group, with their terms; the last in the newest. More than one when some have
    /// not heard yet that others were elected.
    #[must_use]
    pub fn leaders(&self, group: GroupId) -> Vec<(NodeId, Term)> {
        let members = self.members.lock();
        let leaders = members.iter().filter(|(_, member)| member.running.is_some());
        let mut leaders: Vec<_> =
            leaders.filter_map(|(id, member)| Some((*id, member.machines.leads(group)?))).collect();
        leaders.sort_by_key(|(_, term)| *term);
        leaders
    }

    /// The one that leads in the newest term.
    #[must_use]
    pub fn leader(&self, group: GroupId) -> Option<(NodeId, Term)> {
        self.leaders(group).pop()
    }

    /// Cuts the power of a node: what was not synced or flushed is gone.
    pub fn crash(&self, node: NodeId) {
        self.end(node, Simulation::crash);
    }

    /// Kills the process of a node: what it wrote is still there.
    pub fn kill(&self, node: NodeId) {
        self.end(node, Simulation::kill);
    }

    fn end(&self, node: NodeId, end: impl FnOnce(&Simulation, SimNode)) {
        self.network.detach(node);
        let crashed = {
            let mut members = self.members.lock();
            let Some(member) = members.get_mut(&node) else { return };
            if let Some(running) = &member.running {
                let views = self.groups.iter().map(|group| (*group, running.log.group(*group).view()));
                member.former_logs = views.collect();
            }
            end(&self.sim, member.sim);
            member.machines.crash();
            member.is_failing = false;
            member.has_stopped = false;
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

impl Cluster<ModelStore> {
    /// The applied state of a group at a node.
    #[must_use]
    pub fn state(&self, node: NodeId, group: GroupId) -> ModelState {
        self.machines(node).cell(group).present()
    }
}
