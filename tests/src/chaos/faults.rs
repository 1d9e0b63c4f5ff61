//! What is done to a cluster while clients work, and undone.
//!
//! Each fault is injected, held for a while, and healed; killed nodes are started again by whoever runs the round, after
//! it has seen that the others go on without them.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::network::Rule;
use super::nodes::{Nodes, RECOVERY};
use super::random::Random;

/// Which nodes hear which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partition {
    /// The leader and all others do not hear each other, while clients reach both sides.
    LeaderCut,
    /// The leader hears nobody, and everybody hears it.
    LeaderDeaf,
    /// Nobody hears the leader, and it hears everybody.
    LeaderMute,
    /// The leader hears one follower less, and that one the leader: only the others hear both.
    Bridge,
    /// Each hears its two neighbours in a ring; with three nodes that is everybody, so one link is one-way there.
    Ring,
    /// A follower is cut off.
    FollowerCut,
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None: what the others are compared with.
    Nothing,
    /// kill -9 of the leader.
    KillLeader,
    /// kill -9 of a follower.
    KillFollower,
    /// kill -9 of all at once.
    KillAll,
    /// kill -9 of the leader, and of its successor when there is one (with five nodes a majority is left).
    KillTwoLeaders,
    /// SIGSTOP of the leader, then SIGCONT.
    StopLeader(Duration),
    /// SIGSTOP of all at once, then SIGCONT one by one.
    StopAll(Duration),
    /// SIGTERM and start of each node in turn.
    RollingRestart,
    /// The leader is told to hand over to a random node, some times.
    HandOver,
    /// See there.
    Partition(Partition, Duration),
    /// Every node loses this percentage of what comes in.
    Loss(u8, Duration),
    /// The leader sends at this rate at most (kilobits per second).
    Slow(u32, Duration),
    /// The next spare node becomes a member while the leader is killed.
    Grow,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StopLeader(time) => write!(f, "SIGSTOP of the leader for {} ms", time.as_millis()),
            Self::StopAll(time) => write!(f, "SIGSTOP of all for {} ms", time.as_millis()),
            Self::Partition(kind, time) => write!(f, "partition {kind:?} for {} ms", time.as_millis()),
            Self::Loss(percent, time) => write!(f, "{percent} % of packets lost for {} ms", time.as_millis()),
            Self::Slow(rate, time) => write!(f, "leader sends {rate} kbit/s for {} ms", time.as_millis()),
            Self::Nothing => f.write_str("no fault"),
            Self::KillLeader => f.write_str("kill -9 of the leader"),
            Self::KillFollower => f.write_str("kill -9 of a follower"),
            Self::KillAll => f.write_str("kill -9 of all"),
            Self::KillTwoLeaders => f.write_str("kill -9 of a leader and its successor"),
            Self::RollingRestart => f.write_str("rolling restart"),
            Self::HandOver => f.write_str("leader told to hand over"),
            Self::Grow => f.write_str("a node is added while the leader is killed"),
        }
    }
}

impl Fault {
    /// Whether a network of namespaces is needed.
    #[must_use]
    pub fn needs_network(self) -> bool {
        matches!(self, Self::Partition(..) | Self::Loss(..) | Self::Slow(..))
    }

    /// Does it, holds it, and heals what heals by itself. Killed nodes stay dead.
    ///
    /// # Errors
    /// It cannot be done.
    pub fn inflict(self, nodes: &mut Nodes, random: &mut Random) -> Result<()> {
        match self {
            Self::Nothing => {
                std::thread::sleep(Duration::from_millis(300));
                Ok(())
            }
            Self::KillLeader => {
                let leader = nodes.leader()?;
                nodes.kill(leader)
            }
            Self::KillFollower => {
                let follower = follower(nodes, random)?;
                nodes.kill(follower)
            }
            Self::KillAll => nodes.numbers().try_for_each(|node| nodes.kill(node)),
            Self::KillTwoLeaders => {
                let first = nodes.leader()?;
                nodes.kill(first)?;
                if nodes.numbers().count() >= 5 {
                    let second = nodes.leader()?;
                    nodes.kill(second)?;
                }
                Ok(())
            }
            Self::StopLeader(time) => {
                let leader = nodes.leader()?;
                nodes.signal(leader, "STOP")?;
                std::thread::sleep(time);
                nodes.signal(leader, "CONT")
            }
            Self::StopAll(time) => {
                nodes.numbers().try_for_each(|node| nodes.signal(node, "STOP"))?;
                std::thread::sleep(time);
                for node in nodes.numbers() {
                    nodes.signal(node, "CONT")?;
                    std::thread::sleep(Duration::from_millis(random.range(0..200)));
                }
                Ok(())
            }
            Self::RollingRestart => {
                for node in nodes.numbers() {
                    let server = nodes.server_mut(node)?;
                    let status = server.stop()?;
                    ensure!(status.success(), "node {node} ended with {status} when it was told to stop");
                    server.start()?;
                    server.wait_ready()?;
                }
                Ok(())
            }
            Self::HandOver => {
                for _ in 0..3 {
                    let count = nodes.numbers().count();
                    let to = u16::try_from(random.index(count))? + 1;
                    // It may be refused, as when the node is the leader already or is behind.
                    let _refused = nodes.server(to)?.cli(&["node", "lead", &to.to_string()])?;
                    std::thread::sleep(Duration::from_millis(random.range(50..200)));
                }
                Ok(())
            }
            Self::Partition(kind, time) => {
                partition(nodes, kind, random)?;
                std::thread::sleep(time);
                nodes.ground().network()?.heal()
            }
            Self::Loss(percent, time) => {
                let numbers: Vec<u16> = nodes.numbers().collect();
                for node in &numbers {
                    let others = numbers.iter().filter(|other| *other != node);
                    let rules: Vec<Rule> =
                        others.map(|other| Rule { from: *other, loss_percent: percent }).collect();
                    nodes.ground().network()?.filter(*node, &rules)?;
                }
                std::thread::sleep(time);
                nodes.ground().network()?.heal()
            }
            Self::Slow(rate, time) => {
                let leader = nodes.leader()?;
                nodes.ground().network()?.slow(leader, rate)?;
                std::thread::sleep(time);
                nodes.ground().network()?.heal()
            }
            Self::Grow => {
                let leader = nodes.leader()?;
                let (before, started) = (nodes.numbers().count(), Instant::now());
                // Killed in the midst of the change of members, and back before it can be through without it.
                nodes.kill(leader)?;
                nodes.server_mut(leader)?.start()?;
                nodes.add_spare()?;
                ensure!(nodes.numbers().count() == before + 1, "the cluster did not grow");
                ensure!(
                    started.elapsed() < RECOVERY * 2,
                    "a node was taken in after {:?}",
                    started.elapsed()
                );
                Ok(())
            }
        }
    }
}

fn follower(nodes: &Nodes, random: &mut Random) -> Result<u16> {
    let leader = nodes.leader()?;
    let others: Vec<u16> = nodes.numbers().filter(|node| *node != leader).collect();
    others.get(random.index(others.len())).copied().context("no followers")
}

/// Lays the filters of a partition.
pub(super) fn partition(nodes: &Nodes, kind: Partition, random: &mut Random) -> Result<()> {
    let leader = nodes.leader()?;
    let numbers: Vec<u16> = nodes.numbers().collect();
    let others: Vec<u16> = numbers.iter().copied().filter(|node| *node != leader).collect();
    // Pairs (at, from): node `at` does not hear node `from`.
    let mut deaf: BTreeSet<(u16, u16)> = BTreeSet::new();
    let one = others[random.index(others.len())];
    match kind {
        Partition::LeaderCut => {
            others.iter().for_each(|other| deaf.extend([(leader, *other), (*other, leader)]));
        }
        Partition::LeaderDeaf => deaf.extend(others.iter().map(|other| (leader, *other))),
        Partition::LeaderMute => deaf.extend(others.iter().map(|other| (*other, leader))),
        Partition::Bridge => deaf.extend([(leader, one), (one, leader)]),
        Partition::Ring if numbers.len() == 3 => deaf.extend([(one, leader)]),
        Partition::Ring => {
            for (place, at) in numbers.iter().enumerate() {
                for (other_place, from) in numbers.iter().enumerate() {
                    let apart = place.abs_diff(other_place);
                    if apart > 1 && apart < numbers.len() - 1 {
                        deaf.insert((*at, *from));
                    }
                }
            }
        }
        Partition::FollowerCut => {
            let rest = numbers.iter().copied().filter(|node| *node != one);
            rest.for_each(|other| deaf.extend([(one, other), (other, one)]));
        }
    }
    for at in numbers {
        let rules: Vec<Rule> = deaf
            .iter()
            .filter(|(deaf, _)| *deaf == at)
            .map(|(_, from)| Rule { from: *from, loss_percent: 100 })
            .collect();
        nodes.ground().network()?.filter(at, &rules)?;
    }
    Ok(())
}
