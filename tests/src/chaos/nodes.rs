//! A cluster of server processes on a [`Ground`]: started, watched, hurt and made whole again.
//!
//! Nodes are numbered from 1 and stay what they are: a node that was killed comes back with its data folder.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::network::{self, Network};
use crate::cluster::{free_base_port, signal};
use crate::server::{Place, Server, TRUST_LOOPBACK};

/// Longest wait for a cluster that is whole again to serve.
pub const RECOVERY: Duration = Duration::from_secs(60);

/// Longest wait for one look at a node, which may be standing still.
const LOOK: Duration = Duration::from_millis(300);

/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Where nodes run.
#[derive(Debug)]
pub enum Ground {
    /// Each in a namespace of a network of its own.
    Namespaces(Network),
    /// All on loopback, where processes and clocks can be hurt and the network cannot.
    Loopback,
}

impl Ground {
    /// The network, if it can be hurt.
    ///
    /// # Errors
    /// The nodes are on loopback.
    pub fn network(&self) -> Result<&Network> {
        match self {
            Self::Namespaces(network) => Ok(network),
            Self::Loopback => bail!("there are no namespaces here"),
        }
    }

    fn place(&self, node: u16, base_port: u16, through_emulator: bool) -> Place {
        match self {
            Self::Loopback => Place::loopback(base_port, node),
            Self::Namespaces(_) => Place {
                host: network::host(node),
                interconnect_host: if through_emulator {
                    network::link_host(node)
                } else {
                    network::host(node)
                },
                ports: [5432, 5532, 5632],
                launcher: network::launcher(node),
            },
        }
    }
}

/// How the nodes of a cluster are started.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Environment variables; `{node}` in a value stands for the node's number.
    pub environment: Vec<(String, String)>,
    /// Whether the nodes talk to each other through the link emulator.
    pub through_emulator: bool,
    /// More configuration, as TOML.
    pub configuration: String,
}

/// A running cluster.
pub struct Nodes {
    servers: Vec<Server>,
    /// Members are 1 to this number,
    members: u16,
    /// but for these, which are lost for ever.
    left_out: Vec<u16>,
    ground: std::sync::Arc<Ground>,
    folder: tempfile::TempDir,
}

impl Nodes {
    /// Starts a cluster of `members` nodes and waits until it serves. `spare` more are made but not started.
    ///
    /// # Errors
    /// A node does not start, or the cluster does not serve in time.
    pub fn start(
        folder: &Path,
        ground: &std::sync::Arc<Ground>,
        members: u16,
        spare: u16,
        setup: &Setup,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("cluster-").tempdir_in(folder)?;
        let base_port = if matches!(**ground, Ground::Loopback) { free_base_port()? } else { 0 };
        let trust = if matches!(**ground, Ground::Loopback) { TRUST_LOOPBACK } else { network::TRUST };
        let mut servers = Vec::new();
        for node in 1..=members + spare {
            let place = ground.place(node, base_port, setup.through_emulator);
            let more = format!("{trust}{}", setup.configuration);
            let mut server =
                Server::at(folder.path(), &format!("node{node}"), u64::from(node), place, &more)?;
            for (name, value) in &setup.environment {
                server = server.with_environment(name, &value.replace("{node}", &node.to_string()));
            }
            servers.push(server);
        }
        let ground = std::sync::Arc::clone(ground);
        let mut nodes = Self { servers, members, left_out: Vec::new(), ground, folder };
        for node in 1..=members {
            nodes.server_mut(node)?.start()?;
        }
        nodes.server(1)?.cli_json(&["cluster", "init"])?;
        for node in 2..=members {
            let address = nodes.server(node)?.interconnect_address();
            nodes.server(1)?.cli_json(&["node", "add", &address])?;
        }
        nodes.wait_whole()?;
        Ok(nodes)
    }

    /// Takes the next spare node into the cluster; returns its number.
    ///
    /// # Errors
    /// There is none, or it is not taken in.
    pub fn add_spare(&mut self) -> Result<u16> {
        let node = self.members + 1;
        self.server_mut(node)?.start()?;
        let address = self.server(node)?.interconnect_address();
        let mut last = String::new();
        let deadline = Instant::now() + RECOVERY;
        // Whoever is asked may be the one that is hurt at the moment.
        while Instant::now() < deadline {
            for asked in self.numbers() {
                match self.server(asked)?.cli_json(&["node", "add", &address]) {
                    Ok(_) => {
                        self.members = node;
                        return Ok(node);
                    }
                    Err(error) => last = error.root_cause().to_string(),
                }
            }
        }
        bail!("node {node} is not taken in: {last}")
    }

    /// Removes a member for ever, which may be dead; of one that runs, the process has ended when this returns.
    ///
    /// # Errors
    /// It is not removed in time, or does not end cleanly.
    pub fn remove(&mut self, node: u16) -> Result<()> {
        let (number, mut last) = (node.to_string(), String::new());
        let deadline = Instant::now() + RECOVERY;
        // Whoever is asked may be the one that is hurt at the moment. Asking again is safe.
        while Instant::now() < deadline {
            for asked in self.numbers().filter(|asked| *asked != node) {
                match self.server(asked)?.cli_json(&["node", "remove", &number]) {
                    Ok(_) => {
                        self.leave_out(node);
                        return self.wait_for_removed(node);
                    }
                    Err(error) => last = error.root_cause().to_string(),
                }
            }
        }
        bail!("node {node} is not removed: {last}")
    }

    fn wait_for_removed(&mut self, node: u16) -> Result<()> {
        let server = self.server_mut(node)?;
        if server.pid().is_err() {
            return Ok(());
        }
        let status = server.wait_for_end()?;
        let log = server.logged();
        let is_bad = |line: &str| line.contains("panicked at") || line.contains(" ERROR ");
        ensure!(
            status.success() && log.contains("was removed from cluster") && !log.lines().any(is_bad),
            "the removed node {node} ended with {status}\n{}",
            tail(&log)
        );
        Ok(())
    }

    /// Where the nodes run.
    #[must_use]
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// The same, to be kept while the nodes are changed.
    #[must_use]
    pub fn ground_handle(&self) -> std::sync::Arc<Ground> {
        std::sync::Arc::clone(&self.ground)
    }

    /// Whether there is a node that was never a member.
    #[must_use]
    pub fn has_spare(&self) -> bool {
        usize::from(self.members) < self.servers.len()
    }

    /// Numbers of the members that are not lost for ever.
    #[must_use]
    pub fn numbers(&self) -> std::vec::IntoIter<u16> {
        let members = (1..=self.members).filter(|node| !self.left_out.contains(node));
        members.collect::<Vec<u16>>().into_iter()
    }

    /// A member is lost for ever.
    pub fn leave_out(&mut self, node: u16) {
        self.left_out.push(node);
    }

    /// Folder with configurations, data and logs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A node.
    ///
    /// # Errors
    /// There is none of that number.
    pub fn server(&self, node: u16) -> Result<&Server> {
        self.servers.get(usize::from(node).wrapping_sub(1)).with_context(|| format!("no node {node}"))
    }

    /// A node, to be changed.
    ///
    /// # Errors
    /// There is none of that number.
    pub fn server_mut(&mut self, node: u16) -> Result<&mut Server> {
        self.servers.get_mut(usize::from(node).wrapping_sub(1)).with_context(|| format!("no node {node}"))
    }

    /// Connection strings of all members, in their order.
    #[must_use]
    pub fn targets(&self) -> Vec<String> {
        let members = self.numbers().filter_map(|node| self.server(node).ok());
        members
            .map(|server| server.target("postgres").replace("connect_timeout=5", "connect_timeout=2"))
            .collect()
    }

    /// The node that leads the database as it says itself, if one does now.
    #[must_use]
    pub fn leader_now(&self) -> Option<u16> {
        self.numbers().find(|node| {
            let said = self.server(*node).ok().and_then(|server| server.readiness(LOOK));
            said.is_some_and(|said| group(&said, "postgres")["state"] == "leader")
        })
    }

    /// The node that leads the database; waits until one does.
    ///
    /// # Errors
    /// Nobody leads in time.
    pub fn leader(&self) -> Result<u16> {
        let deadline = Instant::now() + RECOVERY;
        while Instant::now() < deadline {
            if let Some(leader) = self.leader_now() {
                return Ok(leader);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        bail!("nobody leads\n{}", self.logs())
    }

    /// Waits until every member is ready and all know one leader.
    ///
    /// # Errors
    /// They do not in time.
    pub fn wait_whole(&self) -> Result<()> {
        let deadline = Instant::now() + RECOVERY;
        let mut said = Vec::new();
        while Instant::now() < deadline {
            said = self
                .numbers()
                .map(|node| {
                    self.server(node).ok().and_then(|server| server.readiness(LOOK)).unwrap_or_default()
                })
                .collect();
            let leaders: Vec<&Value> = said.iter().map(|said| &group(said, "postgres")["leader"]).collect();
            let is_one = leaders.iter().all(|leader| leader.is_u64() && *leader == leaders[0]);
            if is_one && said.iter().all(|said| said["ready"] == true) {
                return Ok(());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        bail!("the cluster is not whole after {RECOVERY:?}: {said:?}\n{}", self.logs())
    }

    /// kill -9.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self, node: u16) -> Result<()> {
        self.server_mut(node)?.kill()
    }

    /// Starts what does not run.
    ///
    /// # Errors
    /// A node does not start.
    pub fn start_dead(&mut self) -> Result<()> {
        for node in self.numbers() {
            let server = self.server_mut(node)?;
            if !server.is_alive()? {
                // What is left of a process that ended by itself.
                server.kill()?;
                server.start().with_context(|| format!("node {node} does not come back"))?;
            }
        }
        Ok(())
    }

    /// Sends a signal: `STOP`, `CONT`, `TERM`.
    ///
    /// # Errors
    /// The node does not run.
    pub fn signal(&self, node: u16, name: &str) -> Result<()> {
        signal(name, self.server(node)?.pid()?)
    }

    /// Fails if a node that should run has ended by itself, or has logged what must never be logged.
    ///
    /// # Errors
    /// Which, and its last lines.
    pub fn check_sound(&mut self) -> Result<()> {
        for node in self.numbers() {
            let server = self.server_mut(node)?;
            let log = server.logged();
            let bad = log.lines().find(|line| line.contains("panicked at") || line.contains(" ERROR "));
            if let Some(line) = bad {
                bail!("node {node} logged: {line}");
            }
            ensure!(server.is_alive()?, "node {node} ended by itself\n{}", tail(&log));
        }
        Ok(())
    }

    /// The last lines of every node's log.
    #[must_use]
    pub fn logs(&self) -> String {
        let logs = self.servers.iter().enumerate();
        logs.map(|(at, server)| format!("--- node {}\n{}\n", at + 1, tail(&server.logged()))).collect()
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// What a node says of a group by its name.
fn group<'a>(said: &'a Value, name: &str) -> &'a Value {
    static NOTHING: Value = Value::Null;
    let groups = said["groups"].as_array();
    groups.and_then(|groups| groups.iter().find(|group| group["name"] == name)).unwrap_or(&NOTHING)
}
