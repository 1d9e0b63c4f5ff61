//! Starts the nodes, forms the cluster, tells what happens, stops the nodes.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustix::process::Signal;
use rustydb_env::Env;
use rustydb_proto::v1::{AddNodeRequest, GroupStatus, InitClusterRequest, NodeStatusResponse};
use tokio::signal::unix::{SignalKind, signal};

use super::DevError;
use super::layout::{Layout, LayoutError, Wanted};
use super::process::{self, Lifetime, NodeClient};
use crate::identity;
use crate::node::reconcile::REPLICAS_MAX;

/// Longest wait for a node to answer at all, and for all to serve. A node with much log to read again takes long.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// Longest wait for a node to stop by itself; its own deadline is shorter.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// How long `--start-node` waits for a majority when too few nodes answer.
const QUORUM_PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);
/// How often the nodes of a cluster that is ready are asked how they are: it takes part of their idle time.
const WATCH: Duration = Duration::from_millis(250);

/// A line on standard output; a reader that went away is no reason to stop the cluster.
fn say(text: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

struct Node {
    number: u16,
    client: NodeClient,
    /// The process, if this `dev` started it and it has not ended.
    child: Option<Child>,
    /// What it said last; nothing while it does not answer.
    status: Option<NodeStatusResponse>,
    /// Whether its death has been told.
    dead: bool,
}

struct Cluster {
    layout: Layout,
    nodes: Vec<Node>,
    /// Group name to its leader and term, as told last.
    leaders: BTreeMap<String, (u64, u64)>,
    started: Instant,
    ready: bool,
    /// Whether it was told that too few nodes answer.
    told_no_quorum: bool,
}

pub(crate) async fn run(dir: &Path, wanted: Wanted) -> Result<(), DevError> {
    let layout = Layout::open(dir, wanted)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DevError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(DevError::Signals)?;
    let mut cluster = Cluster::new(layout)?;
    // Nodes that another `dev` started are not this one's to stop.
    cluster.refuse_running().await?;
    let outcome = tokio::select! {
        biased;
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        outcome = cluster.serve() => outcome,
    };
    if matches!(outcome, Err(DevError::AllDied { .. })) {
        // There is nothing to stop.
        return outcome;
    }
    say("stopping");
    tokio::select! {
        biased;
        _ = interrupt.recv() => cluster.kill(),
        () = cluster.stop() => {}
    }
    say("stopped");
    outcome
}

/// Starts one node that is down, waits until it serves, and leaves it running.
pub(crate) async fn start_one(dir: &Path, number: u16) -> Result<(), DevError> {
    let Some(mut layout) = Layout::read(dir)? else {
        return Err(LayoutError::Empty { dir: dir.to_owned() }.into());
    };
    // Opening it again makes the paths absolute.
    layout = Layout::open(layout.dir(), Wanted::default())?;
    if !layout.node_numbers().contains(&number) {
        return Err(LayoutError::NoNode { dir: dir.to_owned(), node: number, nodes: layout.nodes }.into());
    }
    let client = client(&layout, number)?;
    if let Some(status) = client.status().await {
        return Err(DevError::Running { node: number, pid: status.process_id });
    }
    let mut child = process::spawn(&layout, number, Lifetime::Own)
        .map_err(|source| DevError::Spawn { node: number, source })?;
    let started = Instant::now();
    let mut last: Option<NodeStatusResponse> = None;
    while started.elapsed() < START_DEADLINE {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(DevError::Start {
                node: number,
                reason: process::why_ended(&layout, number, status),
            });
        }
        if let Some(status) = client.status().await {
            if status.ready {
                say(&format!("node {number} is up: {}", psql_line(&layout, number)));
                return Ok(());
            }
            last = Some(status);
            // Without a majority waiting is of no use: somebody has to start the next node.
            if started.elapsed() >= QUORUM_PATIENCE
                && let Some(reason) = no_quorum(&layout).await
            {
                return Err(DevError::NotServing { node: number, pid: u64::from(child.id()), reason });
            }
        }
        tokio::time::sleep(POLL).await;
    }
    match last {
        // It lives and says what it waits for: catching up may take longer than anybody wants to wait here.
        Some(status) => Err(DevError::NotServing {
            node: number,
            pid: u64::from(child.id()),
            reason: status.not_ready_reason,
        }),
        None => {
            let _ = child.kill();
            let _ = child.wait();
            let what = format!("starting node {number}");
            Err(DevError::Deadline { what, seconds: START_DEADLINE.as_secs() })
        }
    }
}

/// What to say when fewer nodes answer than must agree.
async fn no_quorum(layout: &Layout) -> Option<String> {
    let mut silent = Vec::new();
    for node in layout.node_numbers() {
        let answer = match client(layout, node) {
            Ok(client) => client.status().await,
            Err(_) => None,
        };
        if answer.is_none() {
            silent.push(node);
        }
    }
    let (nodes, quorum) = (usize::from(layout.nodes), usize::from(layout.nodes) / 2 + 1);
    let up = nodes - silent.len();
    let first = silent.first().filter(|_| up < quorum)?;
    Some(format!(
        "{up} of {nodes} nodes answer, {quorum} must agree; start another with: rustydb dev --data {} --start-node {first}",
        layout.dir().display()
    ))
}

fn client(layout: &Layout, node: u16) -> Result<NodeClient, DevError> {
    NodeClient::new(layout, node)
        .map_err(|error| DevError::Start { node, reason: format!("its address is wrong: {error}") })
}

fn psql_line(layout: &Layout, node: u16) -> String {
    let [postgres, ..] = layout.addresses(node);
    format!("psql postgresql://postgres@{postgres}/postgres")
}

/// How the CLI is called here: the program beside this one if it was built, else through cargo.
fn cli_line(layout: &Layout) -> String {
    let [_, interconnect, _] = layout.addresses(1);
    let beside = std::env::current_exe().ok().map(|path| path.with_file_name("rustydb-cli"));
    let program = match beside {
        Some(path) if path.exists() => path.display().to_string(),
        _ if std::env::var_os("CARGO").is_some() => "cargo run --release --bin rustydb-cli --".to_owned(),
        _ => "rustydb-cli".to_owned(),
    };
    format!("{program} --host {interconnect} cluster status")
}

impl Cluster {
    fn new(layout: Layout) -> Result<Cluster, DevError> {
        let mut nodes = Vec::new();
        for number in layout.node_numbers().filter(|number| !was_removed(&layout, *number)) {
            let client = client(&layout, number)?;
            nodes.push(Node { number, client, child: None, status: None, dead: false });
        }
        Ok(Cluster {
            layout,
            nodes,
            leaders: BTreeMap::new(),
            started: Instant::now(),
            ready: false,
            told_no_quorum: false,
        })
    }

    async fn serve(&mut self) -> Result<(), DevError> {
        self.start().await?;
        self.form().await?;
        for node in self.layout.node_numbers() {
            say(&format!("node {node}  {}", psql_line(&self.layout, node)));
        }
        say(&format!("try     {}", cli_line(&self.layout)));
        loop {
            self.poll().await;
            self.tell();
            if !self.ready && self.is_ready() {
                self.ready = true;
                say("ready");
            }
            if self.nodes.iter().all(|node| node.dead) {
                return Err(DevError::AllDied { dir: self.layout.dir().to_owned() });
            }
            tokio::time::sleep(if self.ready { WATCH } else { POLL }).await;
        }
    }

    /// Whether every node accepts SQL and every group has all its voters: from then on as many nodes may be lost as a
    /// cluster of this size survives.
    fn is_ready(&self) -> bool {
        let voters = self.nodes.len().min(REPLICAS_MAX);
        let whole = |group: &GroupStatus| group.voters.len() == voters && !group.members_changing;
        self.nodes.iter().all(|node| {
            node.status.as_ref().is_some_and(|status| status.ready && status.groups.iter().all(whole))
        })
    }

    async fn refuse_running(&mut self) -> Result<(), DevError> {
        self.poll().await;
        for node in &self.nodes {
            if let Some(status) = &node.status {
                return Err(DevError::Running { node: node.number, pid: status.process_id });
            }
        }
        Ok(())
    }

    /// Starts every process and waits until each answers.
    async fn start(&mut self) -> Result<(), DevError> {
        for node in &mut self.nodes {
            let child = process::spawn(&self.layout, node.number, Lifetime::WithParent)
                .map_err(|source| DevError::Spawn { node: node.number, source })?;
            node.child = Some(child);
        }
        let deadline = Instant::now() + START_DEADLINE;
        while Instant::now() < deadline {
            self.poll().await;
            self.part();
            self.find_ended()?;
            if self.nodes.iter().all(|node| node.status.is_some()) {
                return Ok(());
            }
            tokio::time::sleep(POLL / 4).await;
        }
        let what = format!("starting node {}", self.silent());
        Err(DevError::Deadline { what, seconds: START_DEADLINE.as_secs() })
    }

    /// An error if a process has ended.
    fn find_ended(&mut self) -> Result<(), DevError> {
        for node in &mut self.nodes {
            if let Some(Ok(Some(status))) = node.child.as_mut().map(Child::try_wait) {
                let reason = process::why_ended(&self.layout, node.number, status);
                return Err(DevError::Start { node: node.number, reason });
            }
        }
        Ok(())
    }

    /// The nodes that did not answer the last poll.
    fn silent(&self) -> String {
        let silent = self.nodes.iter().filter(|node| node.status.is_none());
        silent.map(|node| node.number.to_string()).collect::<Vec<_>>().join(", ")
    }

    /// Forms the cluster at the first start; adds nodes that belong to none at later ones. Every step may be
    /// repeated, so a start that was cut short is continued by the next one.
    async fn form(&mut self) -> Result<(), DevError> {
        let belongs = |node: &Node| node.status.as_ref().is_some_and(|status| !status.cluster_id.is_empty());
        if !self.nodes.iter().any(belongs)
            && let Some(first) = self.nodes.first()
        {
            let request = InitClusterRequest { superuser_password: String::new() };
            let answer = first.client.admin().init_cluster(request).await;
            answer.map_err(|status| refused("the cluster cannot be formed", &status))?;
        }
        // A node that is busy may miss a poll, which does not say that it belongs to none.
        let deadline = Instant::now() + START_DEADLINE;
        let member = loop {
            self.poll().await;
            self.part();
            self.find_ended()?;
            let all_answer = self.nodes.iter().all(|node| node.status.is_some());
            if all_answer && let Some(node) = self.nodes.iter().find(|node| belongs(node)) {
                break node.client.clone();
            }
            if Instant::now() >= deadline {
                let what = match self.silent() {
                    silent if silent.is_empty() => "forming the cluster".to_owned(),
                    silent => format!("forming the cluster, while node {silent} does not answer,"),
                };
                return Err(DevError::Deadline { what, seconds: START_DEADLINE.as_secs() });
            }
            tokio::time::sleep(POLL / 4).await;
        };
        for node in self.nodes.iter().filter(|node| !belongs(node)) {
            let [_, interconnect_address, _] = self.layout.addresses(node.number);
            let expected_node_id = u64::from(node.number);
            let request = AddNodeRequest { interconnect_address, expected_node_id };
            let answer = member.admin().add_node(request).await;
            answer.map_err(|status| refused(&format!("node {} cannot join", node.number), &status))?;
        }
        Ok(())
    }

    async fn poll(&mut self) {
        let clients: Vec<NodeClient> = self.nodes.iter().map(|node| node.client.clone()).collect();
        let answers = join_all(clients.iter().map(NodeClient::status)).await;
        for (node, status) in self.nodes.iter_mut().zip(answers) {
            node.status = status;
        }
    }

    /// Lets go of nodes that have ended because they were removed from the cluster.
    fn part(&mut self) {
        let at = self.started.elapsed().as_secs_f64();
        let layout = &self.layout;
        self.nodes.retain_mut(|node| {
            let ended = match &mut node.child {
                Some(child) => matches!(child.try_wait(), Ok(Some(_))),
                None => node.status.is_none(),
            };
            let parts = ended && was_removed(layout, node.number);
            if parts {
                say(&format!("[{at:.1}s] node {} was removed from the cluster", node.number));
            }
            !parts
        });
    }

    /// One line per event since the last poll.
    fn tell(&mut self) {
        self.part();
        let at = self.started.elapsed().as_secs_f64();
        for node in &mut self.nodes {
            if let Some(Ok(Some(status))) = node.child.as_mut().map(Child::try_wait) {
                node.child = None;
                node.dead = true;
                let words = if status.code().is_some() {
                    format!(": {}", process::last_words(&self.layout, node.number))
                } else {
                    String::new()
                };
                say(&format!("[{at:.1}s] node {} died, {}{words}", node.number, process::describe(status)));
                say(&format!(
                    "[{at:.1}s] start it again with: rustydb dev --data {} --start-node {}",
                    self.layout.dir().display(),
                    node.number
                ));
            }
            match &node.status {
                Some(status) if node.dead && status.ready => {
                    node.dead = false;
                    say(&format!("[{at:.1}s] node {} is back, process {}", node.number, status.process_id));
                }
                // A node that came back by `--start-node` is nobody's child: it is gone when it stops answering
                // and its process is no more.
                None if node.child.is_none() && !node.dead && !pid_file_alive(&self.layout, node.number) => {
                    node.dead = true;
                    say(&format!("[{at:.1}s] node {} died", node.number));
                }
                _ => {}
            }
        }
        self.tell_quorum(at);
        let mut leaders: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for status in self.nodes.iter().filter_map(|node| node.status.as_ref()) {
            for group in status.groups.iter().filter(|group| group.state == "leader") {
                let found = leaders.entry(group.name.clone()).or_insert((status.node_id, group.term));
                if group.term > found.1 {
                    *found = (status.node_id, group.term);
                }
            }
        }
        for (name, (leader, term)) in leaders {
            if self.leaders.get(&name).is_none_or(|(told, _)| *told != leader) {
                let what =
                    if name == "system" { "the system group".to_owned() } else { format!("database {name}") };
                say(&format!("[{at:.1}s] node {leader} leads {what} (term {term})"));
            }
            self.leaders.insert(name, (leader, term));
        }
    }

    /// Deaths are counted, not silence: a node that is busy for a moment is not gone.
    fn tell_quorum(&mut self, at: f64) {
        let (nodes, quorum) = (self.nodes.len(), self.nodes.len() / 2 + 1);
        let alive = self.nodes.iter().filter(|node| !node.dead).count();
        if alive == 0 {
            // This is the end, and its message says how to go on.
            return;
        }
        if (alive < quorum) != self.told_no_quorum {
            self.told_no_quorum = alive < quorum;
            let effect = if self.told_no_quorum {
                "nothing is served until another is started"
            } else {
                "that is enough"
            };
            say(&format!("[{at:.1}s] {alive} of {nodes} nodes live, {quorum} must agree: {effect}"));
        }
    }

    /// Asks every node to stop and waits; kills what does not stop in time.
    async fn stop(&mut self) {
        let pids = self.pids();
        for (_, pid) in &pids {
            process::signal(*pid, Signal::TERM);
        }
        let deadline = Instant::now() + STOP_DEADLINE;
        while Instant::now() < deadline {
            self.reap();
            if !pids.iter().any(|(_, pid)| process::is_alive(*pid)) {
                return;
            }
            tokio::time::sleep(POLL / 2).await;
        }
        for (node, _) in pids.iter().filter(|(_, pid)| process::is_alive(*pid)) {
            say(&format!("node {node} did not stop in {} s and is killed", STOP_DEADLINE.as_secs()));
        }
        self.kill();
    }

    fn kill(&mut self) {
        for (_, pid) in self.pids() {
            process::signal(pid, Signal::KILL);
        }
        for node in &mut self.nodes {
            if let Some(child) = &mut node.child {
                let _ = child.wait();
            }
        }
    }

    fn reap(&mut self) {
        for node in &mut self.nodes {
            if let Some(Ok(Some(_))) = node.child.as_mut().map(Child::try_wait) {
                node.child = None;
            }
        }
    }

    /// The processes of all nodes that run, whoever started them.
    fn pids(&self) -> Vec<(u16, u64)> {
        let pid = |node: &Node| {
            let child = node.child.as_ref().map(|child| u64::from(child.id()));
            child
                .or_else(|| node.status.as_ref().map(|status| status.process_id))
                .map(|pid| (node.number, pid))
        };
        self.nodes.iter().filter_map(pid).collect()
    }
}

/// Whether a node was removed from the cluster, as its folder says.
fn was_removed(layout: &Layout, node: u16) -> bool {
    identity::says_removed(Env::os().disk().as_ref(), &layout.data_dir(node))
}

/// Whether the process named in a node's pid file lives.
fn pid_file_alive(layout: &Layout, node: u16) -> bool {
    let text = std::fs::read_to_string(layout.data_dir(node).join("rustydb.pid")).unwrap_or_default();
    text.trim().parse().is_ok_and(process::is_alive)
}

fn refused(what: &str, status: &tonic::Status) -> DevError {
    DevError::Refused { what: what.to_owned(), reason: status.message().to_owned() }
}
