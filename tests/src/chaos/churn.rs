//! Members come and go while clients work: three grow to five and shrink to three again, the leader among those that go,
//! while the leader is killed, hears nobody, or is one of two that do not hear each other.
//!
//! Numbers are never used again, so the network has room for two turns.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::faults::{Partition, partition};
use super::nodes::{Nodes, Setup};
use super::random::Random;
use super::run::Run;

/// Turns of one cluster, each of which uses up two numbers.
const TURNS: u16 = 2;

/// Nodes of a cluster when it begins.
const MEMBERS: u16 = 3;

/// Nodes that the network needs room for.
pub const NODES: u16 = MEMBERS + TURNS * 2;

/// How long a partition lasts while members change.
const CUT: Duration = Duration::from_millis(1200);

/// What happens to the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// The next spare node becomes one.
    Add,
    /// The leader is removed.
    RemoveLeader,
    /// A member that does not lead is removed.
    RemoveFollower,
}

/// What strikes meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strike {
    /// kill -9 of the leader, which is started again at once.
    Kill,
    /// kill -9 of the member that is to be removed: its machine is lost.
    Loss,
    /// See there.
    Cut(Partition),
}

/// The rounds of a turn.
const ROUNDS: &[(&str, Change, Strike)] = &[
    ("a node comes, leader killed", Change::Add, Strike::Kill),
    ("a node comes, leader deaf", Change::Add, Strike::Cut(Partition::LeaderDeaf)),
    ("the leader goes, bridge", Change::RemoveLeader, Strike::Cut(Partition::Bridge)),
    ("a follower goes, leader killed", Change::RemoveFollower, Strike::Kill),
    ("a node comes, bridge", Change::Add, Strike::Cut(Partition::Bridge)),
    ("a node comes, leader mute", Change::Add, Strike::Cut(Partition::LeaderMute)),
    ("a lost node goes", Change::RemoveFollower, Strike::Loss),
    ("the leader goes, one link one-way", Change::RemoveLeader, Strike::Cut(Partition::Ring)),
];

/// Runs the turns; a soak begins again and again.
///
/// # Errors
/// A cluster does not come up.
pub fn run(run: &mut Run, deadline: Instant, is_soak: bool) -> Result<()> {
    if let Some(reason) = run.no_network.clone() {
        run.gate.skipped("partitions while members come and go", reason);
    }
    let mut nodes: Option<Nodes> = None;
    for number in 0..if is_soak { 20 } else { 1 } {
        nodes = None;
        for (at, (name, change, strike)) in ROUNDS.iter().enumerate() {
            let part = format!("churn {number}.{at} {name}");
            if !run.goes_on(deadline) {
                return Ok(());
            }
            if run.gate.is_done(&part) {
                continue;
            }
            let mut cluster = match nodes.take() {
                Some(cluster) => cluster,
                None => run.cluster(MEMBERS, TURNS * 2, &Setup::default())?,
            };
            // After a round that went wrong, or in a run that goes on after an earlier one, there are other members.
            let fits = match change {
                Change::Add => cluster.has_spare(),
                Change::RemoveLeader | Change::RemoveFollower => {
                    cluster.numbers().count() > usize::from(MEMBERS)
                }
            };
            if !fits {
                run.gate.skipped(&part, "this cluster has not the members for it");
                nodes = Some(cluster);
                continue;
            }
            println!("         begins   {part}");
            let has_network = run.no_network.is_none();
            let before: BTreeSet<u16> = cluster.numbers().collect();
            let is_usable = run.round(&mut cluster, &part, "churn", |nodes, random| {
                strike_and_change(nodes, random, *change, *strike, has_network)
            });
            let after: BTreeSet<u16> = cluster.numbers().collect();
            run.totals.added += after.difference(&before).count();
            run.totals.removed += before.difference(&after).count();
            nodes = Some(cluster).filter(|_| is_usable);
        }
    }
    drop(nodes);
    Ok(())
}

fn strike_and_change(
    nodes: &mut Nodes,
    random: &mut Random,
    change: Change,
    strike: Strike,
    has_network: bool,
) -> Result<()> {
    let leader = nodes.leader()?;
    let others: Vec<u16> = nodes.numbers().filter(|node| *node != leader).collect();
    let leaving = match change {
        Change::Add => None,
        Change::RemoveLeader => Some(leader),
        Change::RemoveFollower => Some(others[random.index(others.len())]),
    };
    let before = nodes.numbers().count();
    match strike {
        Strike::Kill => {
            nodes.kill(leader)?;
            nodes.server_mut(leader)?.start()?;
        }
        Strike::Loss => nodes.kill(leaving.unwrap_or(leader))?,
        Strike::Cut(kind) if has_network => partition(nodes, kind, random)?,
        Strike::Cut(_) => {}
    }
    let ground = nodes.ground_handle();
    std::thread::scope(|scope| {
        let healing = scope.spawn(|| {
            if !(has_network && matches!(strike, Strike::Cut(_))) {
                return Ok(());
            }
            std::thread::sleep(CUT);
            ground.network()?.heal()
        });
        let changed = match leaving {
            None => nodes.add_spare().map(drop),
            Some(leaving) => nodes.remove(leaving),
        };
        let healed = healing.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the healing panicked")));
        changed.and(healed)
    })?;
    let after = nodes.numbers().count();
    let wanted = if leaving.is_none() { before + 1 } else { before - 1 };
    ensure!(after == wanted, "{before} members became {after}");
    Ok(())
}
