//! Putting a node together, in the order in which its parts need each other.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use rustydb_consensus::{ConsensusConfig, Groups, GroupsParts};
use rustydb_env::sync::Signal;
use rustydb_env::{Env, TaskGroup};
use rustydb_interconnect::{ClusterIdentity, Local, Peers, SessionClient, raft_service, session_service};
use rustydb_proto::v1::admin_server::AdminServer;
use rustydb_sql::exec::spill::SpillArea;
use rustydb_sql::exec::sweep;
use rustydb_sql::gateway::cluster::ClusterPort;
use rustydb_sql::memory::WorkMemory;
use rustydb_storage::log::{Log, LogError, LogPlace, Past};
use rustydb_types::ids::{GroupId, NodeId};
use tokio::net::TcpListener;

use super::addresses::Addresses;
use super::admin::AdminService;
use super::databases::Databases;
use super::reconcile::LocalGroup;
use super::replicas::Replicas;
use super::system::SystemView;
use super::{Environments, Inner, Listeners, Node, NodeError, act, front, http, membership, removal, tls};
use crate::config::{Config, LogConfig, RaftConfig};
use crate::identity::DataFolder;
use crate::memory::{self, MemoryPlan};

/// Streams that one connection of the interconnect may have open: one per session that is forwarded, and a few.
const STREAMS_MAX: u32 = 10_000;

/// How often a log that cannot be read is tried before it is given up.
const READ_ATTEMPTS: u32 = 10;
/// Pause after each try.
const READ_PAUSE: Duration = Duration::from_secs(2);

fn consensus_config(config: &RaftConfig) -> ConsensusConfig {
    let size = |size: crate::config::units::ByteSize| usize::try_from(size.get()).unwrap_or(usize::MAX);
    ConsensusConfig {
        heartbeat_interval: config.heartbeat_interval.get(),
        election_timeout_min: config.election_timeout_min.get(),
        election_timeout_max: config.election_timeout_max.get(),
        append_entries_max: config.max_entries_per_append,
        append_bytes_max: size(config.max_append_size),
        snapshot_log_bytes: config.snapshot_log_size.get(),
        uncommitted_entries_max: usize::try_from(config.max_uncommitted_entries).unwrap_or(usize::MAX),
        uncommitted_bytes_max: size(config.max_uncommitted_size),
        ..ConsensusConfig::default()
    }
}

fn log_config(config: &LogConfig, memory: &MemoryPlan) -> rustydb_storage::log::LogConfig {
    rustydb_storage::log::LogConfig {
        segment_bytes: u32::try_from(config.segment_size.get()).unwrap_or(u32::MAX),
        reserve_bytes: config.disk_reserve.get(),
        tail_cache_bytes: usize::try_from(memory.log_tail).unwrap_or(usize::MAX),
        ..rustydb_storage::log::LogConfig::default()
    }
}

/// Opens the log of a data folder, and says where it is. One that cannot be read is tried again, since the way to a disk
/// may come back: a log that is given up must be had from the other nodes, and of three nodes two must not give up theirs.
async fn open_log(
    env: &Env,
    data: &Path,
    config: rustydb_storage::log::LogConfig,
    past: Past,
    groups: Vec<GroupId>,
) -> Result<(Arc<LogPlace>, Log), NodeError> {
    for attempt in 1..=READ_ATTEMPTS {
        let place = Arc::new(LogPlace::load(env, data)?);
        let (there, groups) = (Arc::clone(&place), groups.clone());
        match env.blocking(move || there.open_readable(config, past, groups)).await {
            Ok(log) => return Ok((place, log)),
            Err(error @ LogError::Unreadable { .. }) => {
                tracing::warn!(%error, attempt, of = READ_ATTEMPTS, "the log cannot be read");
            }
            Err(error) => return Err(error.into()),
        }
        env.sleep(READ_PAUSE).await;
    }
    let place = Arc::new(LogPlace::load(env, data)?);
    let there = Arc::clone(&place);
    let log = env.blocking(move || there.open(config, past, groups)).await?;
    Ok((place, log))
}

pub(super) async fn start(
    environments: Environments,
    config: Config,
    listeners: Listeners,
) -> Result<Node, NodeError> {
    let Environments { consensus: env, sql } = environments;
    let started = env.now();
    let me = NodeId::new(config.node.id);
    // What can be refused without touching data comes first.
    let interconnect_tls = tls::interconnect(&config.tls)?;
    tls::postgres(&config.tls)?;
    let folder = DataFolder::open(&env, &config.node.data_dir, me, config.storage.engine)?;
    let starts = folder.starts();
    folder.write_pid(std::process::id())?;
    let incarnation = folder.incarnation();
    let memory = MemoryPlan::new(config.memory.budget, memory::machine_bytes());
    let cluster = ClusterIdentity::default();
    if let Some(id) = folder.cluster_id() {
        cluster.set(id);
    }
    tracing::info!(
        node = %me,
        %incarnation,
        cluster = folder.cluster_id().unwrap_or("none"),
        data = %folder.dir().display(),
        budget_mib = memory.budget >> 20,
        version = env!("CARGO_PKG_VERSION"),
        "starting"
    );
    let databases = Arc::new(Databases::new(&env, folder.dir(), &config, memory));
    let addresses = Addresses::load(&env, folder.dir());
    let (place, log) = {
        // What a damaged log had can only come from other nodes.
        let has_peers = addresses.all().iter().any(|(node, _)| *node != me);
        let unread =
            |error| NodeError::Fatal { reason: format!("the groups in {}: {error}", folder.dir().display()) };
        let groups = if has_peers { databases.on_disk().map_err(unread)? } else { Vec::new() };
        let config = log_config(&config.log, &memory);
        // Whoever belongs to a cluster had opened a log before.
        let past = if folder.cluster_id().is_some() { Past::HadLog } else { Past::Unknown };
        open_log(&env, folder.dir(), config, past, groups).await?
    };
    let tasks = Arc::new(TaskGroup::new(&env));
    let sql_tasks = TaskGroup::new(&sql);
    let local = Local { node: me, cluster: cluster.clone() };
    let client_tls = interconnect_tls.as_ref().map(|tls| tls.client.clone());
    let peers = Peers::new(&env, local.clone(), client_tls.clone());
    let groups = Groups::new(GroupsParts {
        env: env.clone(),
        config: consensus_config(&config.raft),
        log: log.clone(),
        place,
        transport: Arc::new(peers.clone()),
        machines: databases.clone(),
        node: me,
        peers: addresses.all().into_iter().map(|(node, _)| node).filter(|node| *node != me).collect(),
    });
    peers.deliver_to(Arc::new(groups.clone()));
    let mut work_memory = WorkMemory::new(usize::try_from(memory.work).unwrap_or(usize::MAX));
    // A full disk keeps nobody from what fits in memory.
    match SpillArea::open(sql.disk(), &config.node.data_dir.join("tmp")) {
        Ok(area) => work_memory = work_memory.with_spill(area),
        Err(error) => {
            tracing::warn!(%error, "there is no folder for temporary files: statements keep all in memory")
        }
    }
    let inner = Arc::new(Inner {
        env: env.clone(),
        me,
        incarnation,
        starts,
        started,
        memory,
        work_memory: Arc::new(work_memory),
        log: log.clone(),
        folder: Mutex::new(folder),
        cluster,
        system: SystemView::new(),
        replicas: Replicas::new(env.clone(), groups.clone(), peers.clone(), me),
        databases,
        addresses,
        lives: std::sync::OnceLock::new(),
        front_counts: std::sync::OnceLock::new(),
        tls: client_tls,
        clients: Mutex::default(),
        refused_by: Mutex::default(),
        executing: tokio::sync::Mutex::default(),
        removing: tokio::sync::Mutex::default(),
        dismissed: Signal::default(),
        wake: tokio::sync::Notify::new(),
        stopping: Signal::default(),
        config: config.clone(),
    });
    open_replicas(&inner, &groups).await?;

    let gateway = front::gateway(&sql, &inner, SessionClient::new(&sql, peers.clone()));
    let host = Arc::new(front::SessionsOfOthers::new(&sql, Arc::clone(&gateway), &config));
    let interconnect = TcpListener::from_std(listeners.interconnect).map_err(NodeError::Listen)?;
    let mut builder = tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(std::time::Duration::from_secs(5)))
        .tcp_nodelay(true);
    if let Some(tls) = interconnect_tls {
        builder = builder
            .tls_config(tls.server)
            .map_err(|error| NodeError::Fatal { reason: format!("interconnect TLS: {error}") })?;
    }
    let router = builder
        .add_service(AdminServer::new(AdminService::new(Arc::clone(&inner))))
        .add_service(raft_service(local.clone(), Arc::new(groups.clone()), Arc::clone(&tasks)))
        .add_service(session_service(&sql, local, host.clone(), Arc::clone(&tasks)));
    let stopping = tasks.stopping();
    tasks.spawn("interconnect", async move {
        // The builder's option does not reach connections that are accepted here; without it every small answer,
        // an acknowledgement of an append above all, would wait for the other side's delayed acknowledgement.
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(interconnect)
            .map(|accepted| accepted.and_then(|stream| stream.set_nodelay(true).map(|()| stream)));
        let served = router.serve_with_incoming_shutdown(incoming, async move { stopping.wait().await });
        if let Err(error) = served.await {
            tracing::error!(%error, "the interconnect ended");
        }
    });
    // Nodes that start together can answer each other by now.
    let foreign = membership::refuse_foreign_data(&inner, &config);
    futures_util::future::try_join(foreign, removal::refuse_removed(&inner, &config)).await?;
    tasks.spawn("system view", Arc::clone(&inner).keep_system_view());
    tasks.spawn("reconcile", act::run(Arc::clone(&inner)));
    tasks.spawn("admission", membership::ask_for_admission(Arc::clone(&inner), config.clone()));
    tasks.spawn("peers", membership::look_for_peers(Arc::clone(&inner), config.clone()));

    // The listener belongs to the runtime on which it is served.
    let pages = sql
        .spawn("http listener", async move { TcpListener::from_std(listeners.http) })
        .await
        .map_err(|error| NodeError::Fatal { reason: error.to_string() })?
        .map_err(NodeError::Listen)?;
    sql_tasks.spawn("http", http::run(pages, inner.clone(), sql_tasks.stopping()));
    let cluster = Arc::clone(&inner) as Arc<dyn ClusterPort>;
    let lives = Arc::clone(gateway.lives());
    sql_tasks.spawn("sweep", sweep::run(sql.clone(), cluster, Arc::clone(&lives), sql_tasks.stopping()));
    let front = front::serve(&sql, gateway, &config, listeners.postgres).await?;
    // Set once: there is one front end in a node's life.
    let _second = inner.front_counts.set(front.metrics());
    let _second = inner.lives.set(lives);
    Ok(Node { inner, peers, log, tasks, sql_tasks, front, host })
}

/// Opens every group that the log knows, so that what was promised before the start is kept from the start.
async fn open_replicas(inner: &Arc<Inner>, groups: &Groups) -> Result<(), NodeError> {
    for (node, address) in inner.addresses.all() {
        inner.replicas.set_address(node, &address);
    }
    let mut known = groups.in_log();
    if inner.cluster_id().is_some() && !known.contains(&GroupId::SYSTEM) {
        known.insert(0, GroupId::SYSTEM);
    }
    for group in known {
        inner.replicas.open(group).await?;
    }
    let is_withheld = |system: &LocalGroup| system.diverged;
    if inner.replicas.view().get(&GroupId::SYSTEM).is_some_and(is_withheld) {
        tracing::warn!(
            "the records of the cluster are wrong or damaged here; they come from the other nodes"
        );
        return Ok(());
    }
    inner.refresh_system().await
}

#[cfg(test)]
mod tests {
    use rustydb_env::sim::{DiskFaults, SimNode, Simulation};

    use super::*;

    const GROUP: GroupId = GroupId::new(2);
    const DATA: &str = "/";

    fn config() -> rustydb_storage::log::LogConfig {
        rustydb_storage::log::LogConfig {
            segment_bytes: 1 << 16,
            reserve_bytes: 1 << 16,
            ..rustydb_storage::log::LogConfig::default()
        }
    }

    /// A node with a log, whose disk cannot be read from here on.
    fn unreadable(sim: &Simulation) -> (SimNode, Env) {
        let node = sim.add_node();
        let env = sim.env(node);
        env.disk().create_dir_all(&Path::new(DATA).join("log")).unwrap();
        env.disk().sync_dir(Path::new(DATA)).unwrap();
        let opened = {
            let env = env.clone();
            sim.block_on(Duration::from_secs(5), async move {
                let task = env.clone().spawn("open", async move {
                    open_log(&env, Path::new(DATA), config(), Past::Unknown, Vec::new()).await.map(drop)
                });
                task.await
            })
        };
        opened.unwrap().unwrap().unwrap();
        sim.crash(node);
        read_errors(sim, node, 1_000_000);
        (node, sim.env(node))
    }

    fn read_errors(sim: &Simulation, node: SimNode, read_errors_ppm: u64) {
        sim.disk(node).set_faults(DiskFaults { read_errors_ppm, ..DiskFaults::default() });
    }

    /// The groups that are to be mended once the log is open.
    async fn opened(env: &Env) -> Vec<GroupId> {
        let node = env.clone();
        let task = env.spawn("open", async move {
            let (place, _log) =
                open_log(&node, Path::new(DATA), config(), Past::HadLog, vec![GROUP]).await.unwrap();
            place.mending().into_iter().collect()
        });
        task.await.unwrap()
    }

    #[test]
    fn a_log_whose_disk_comes_back_in_time_is_not_given_up() {
        let sim = Arc::new(Simulation::new(1));
        let (node, env) = unreadable(&sim);
        let healing = Arc::clone(&sim);
        let mending = sim.block_on(Duration::from_secs(60), async move {
            let harness = healing.harness();
            let back = harness.spawn("heal", {
                let (healing, harness) = (Arc::clone(&healing), harness.clone());
                async move {
                    harness.sleep(READ_PAUSE * (READ_ATTEMPTS - 1)).await;
                    read_errors(&healing, node, 0);
                }
            });
            let mending = opened(&env).await;
            back.await.unwrap();
            mending
        });
        assert_eq!(mending.unwrap(), []);
    }

    #[test]
    fn a_log_whose_disk_does_not_come_back_is_begun_anew() {
        let sim = Simulation::new(2);
        let (_, env) = unreadable(&sim);
        let limit = READ_PAUSE * (READ_ATTEMPTS + 1);
        assert_eq!(sim.block_on(limit, async move { opened(&env).await }).unwrap(), [GROUP]);
    }
}
