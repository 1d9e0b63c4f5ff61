//! Every single component is lost once; the cluster must stay writable, or be so again by itself within the limit.
//!
//! The limits are those of the requirements (a process 1 minute, a node 5, a site 15); what is seen is printed beside
//! them. Nobody gives a command in between, but for the process that is started again as systemd would.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::faults::{Fault, Partition};
use super::network::shell;
use super::nodes::{Nodes, Setup};
use super::random::Random;
use super::run::{COMPONENT, Run};

/// How long a component is away if it comes back by itself.
const AWAY: Duration = Duration::from_millis(1500);

const MINUTE: Duration = Duration::from_secs(60);

/// What is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Component {
    /// By a fault of the storm.
    By(Fault),
    /// The machine of the leader: its process and its cable at once.
    Machine,
    /// The cable of the leader.
    Cable,
    /// The leader's disk, for good: a new node with a new number takes its place.
    Disk,
}

/// Component, whether the network must be hurt for it, the longest outage that is allowed.
const COMPONENTS: &[(&str, Component, Duration)] = &[
    ("process of the leader", Component::By(Fault::KillLeader), MINUTE),
    ("process of a follower", Component::By(Fault::KillFollower), MINUTE),
    ("machine of the leader", Component::Machine, Duration::from_secs(300)),
    ("network cable of the leader", Component::Cable, Duration::from_secs(300)),
    ("network path between two nodes", Component::By(Fault::Partition(Partition::Bridge, AWAY)), MINUTE),
    ("network path, in one direction", Component::By(Fault::Partition(Partition::LeaderDeaf, AWAY)), MINUTE),
    ("speed of the leader's network", Component::By(Fault::Slow(512, AWAY)), MINUTE),
    ("processor of the leader (stands still)", Component::By(Fault::StopLeader(AWAY)), MINUTE),
    ("power of the whole site", Component::By(Fault::KillAll), Duration::from_secs(900)),
    ("disk of the leader", Component::Disk, Duration::from_secs(300)),
];

/// Loses one after the other.
///
/// # Errors
/// The cluster does not come up.
pub fn run(run: &mut Run, deadline: Instant, _is_soak: bool) -> Result<()> {
    let mut nodes: Option<Nodes> = None;
    for (name, component, limit) in COMPONENTS {
        let part = format!("component {name}");
        if !run.goes_on_for("components", deadline) {
            return Ok(());
        }
        if run.gate.is_done(&part) {
            continue;
        }
        if let (true, Some(reason)) = (component.needs_network(), run.no_network.clone()) {
            *run.untried.entry("components").or_default() += 1;
            run.gate.skipped(&part, reason);
            continue;
        }
        let mut cluster = match nodes.take() {
            Some(cluster) => cluster,
            None => run.cluster(3, 1, &Setup::default())?,
        };
        let is_usable = run.round(&mut cluster, &part, COMPONENT, |nodes, random| {
            let started = Instant::now();
            component.lose(nodes, random)?;
            // Service is back when a client has written after the loss: the round sees to that and to its outage.
            ensure!(started.elapsed() < *limit, "it took longer than {limit:?}");
            Ok(())
        });
        if is_usable {
            nodes = Some(cluster);
        }
    }
    Ok(())
}

impl Component {
    fn needs_network(self) -> bool {
        match self {
            Self::By(fault) => fault.needs_network(),
            Self::Machine | Self::Cable => true,
            Self::Disk => false,
        }
    }

    fn lose(self, nodes: &mut Nodes, random: &mut Random) -> Result<()> {
        let cable = |node: u16, state: &str| shell(&format!("ip link set v{node} {state}"));
        match self {
            Self::By(fault) => fault.inflict(nodes, random),
            Self::Machine => {
                let leader = nodes.leader()?;
                cable(leader, "down")?;
                nodes.kill(leader)?;
                std::thread::sleep(AWAY);
                cable(leader, "up")
            }
            Self::Cable => {
                let leader = nodes.leader()?;
                cable(leader, "down")?;
                std::thread::sleep(AWAY);
                cable(leader, "up")
            }
            Self::Disk => {
                let leader = nodes.leader()?;
                nodes.kill(leader)?;
                let data = nodes.server(leader)?.data.clone();
                std::fs::remove_dir_all(&data).context("the disk cannot be lost")?;
                // Its number may not come back: its votes are lost.
                nodes.remove(leader)?;
                nodes.add_spare().map(drop)
            }
        }
    }
}
