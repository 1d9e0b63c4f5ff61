//! The longest section: kills, pauses, partitions and restarts of a cluster of three that grows to five.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::faults::{Fault, Partition};
use super::nodes::{Nodes, Setup};
use super::paused;
use super::run::{KILL_LEADER, Run};

/// A pause that costs the leader its place for certain: the longest election timeout is 0.4 s.
const PAUSE: Duration = Duration::from_millis(1000);

/// Longest pause of the leader, in seconds, and the same in a soak.
const PAUSE_MAX_S: [u64; 2] = [3, 30];

/// Two turns of each ten stop the leader for much longer, in seconds: all that was kept for it has run out by then.
const LONG_PAUSES_S: [(usize, u64); 2] = [(3, 10), (7, 30)];

/// A partition's length: some elections.
const CUT: Duration = Duration::from_millis(1200);

/// The rounds of one turn, with a name for each kind.
fn turn(run: &mut Run, number: usize, is_soak: bool) -> Vec<(&'static str, Fault)> {
    let seconds = |run: &mut Run, least: Duration, most_s: u64| {
        if is_soak { Duration::from_millis(run.random.range(1000..most_s * 1000)) } else { least }
    };
    let pause = |run: &mut Run| {
        let most_s = PAUSE_MAX_S[usize::from(is_soak)];
        PAUSE.max(Duration::from_millis(run.random.range(1..most_s * 1000)))
    };
    let partitions = [
        ("bridge partition", Partition::Bridge),
        ("one-way partition", Partition::LeaderDeaf),
        ("ring partition", Partition::Ring),
        ("one-way partition", Partition::LeaderMute),
        ("full partition", Partition::LeaderCut),
        ("full partition", Partition::FollowerCut),
    ];
    let (first, second) = (partitions[number * 2 % 6], partitions[(number * 2 + 1) % 6]);
    let others = [
        ("kill all", Fault::KillAll),
        ("hand over", Fault::HandOver),
        ("packet loss", Fault::Loss(15, CUT)),
        ("kill follower", Fault::KillFollower),
        ("slow link", Fault::Slow(1000, CUT)),
        ("rolling restart", Fault::RollingRestart),
        ("kill two leaders", Fault::KillTwoLeaders),
        ("stop all", Fault::StopAll(Duration::from_millis(700))),
    ];
    let mut rounds = vec![
        (KILL_LEADER, Fault::KillLeader),
        ("stop leader", Fault::StopLeader(pause(run))),
        (KILL_LEADER, Fault::KillLeader),
        (first.0, Fault::Partition(first.1, seconds(run, CUT, 20))),
        (KILL_LEADER, Fault::KillLeader),
        ("stop leader", Fault::StopLeader(pause(run))),
        (second.0, Fault::Partition(second.1, seconds(run, CUT, 20))),
        (KILL_LEADER, Fault::KillLeader),
        others[number % others.len()],
        (KILL_LEADER, Fault::KillLeader),
    ];
    if let Some((_, long)) = LONG_PAUSES_S.iter().find(|(turn, _)| *turn == number % 10) {
        rounds.push(("stop leader", Fault::StopLeader(Duration::from_secs(*long))));
    }
    // The cluster has five members from the middle on.
    if matches!(number % 10, 5 | 6) {
        rounds.push(("grow", Fault::Grow));
    }
    rounds
}

/// Runs turns until the deadline; ten of them, or without an end for a soak.
///
/// # Errors
/// A cluster does not come up.
pub fn run(run: &mut Run, deadline: Instant, is_soak: bool) -> Result<()> {
    let turns = if is_soak { usize::MAX } else { 10 };
    let mut nodes: Option<Nodes> = None;
    for number in 0..turns {
        // Members only come; so a soak begins again with three.
        if number % 10 == 0 {
            nodes = None;
        }
        for (at, (kind, fault)) in turn(run, number, is_soak).into_iter().enumerate() {
            // Without what is drawn, so that a run which goes on after an earlier one finds it.
            let part = format!("storm {number}.{at} {kind}");
            // A soak has no last part that could be left out.
            if is_soak && Instant::now() >= deadline {
                return Ok(());
            }
            let counts = run.counts();
            let deadline = if run.gate.waits_for(&counts) { Instant::now() + PAUSE } else { deadline };
            if !run.goes_on(deadline) {
                return Ok(());
            }
            if run.gate.is_done(&part) {
                continue;
            }
            if fault.needs_network()
                && let Some(reason) = run.no_network.clone()
            {
                *run.untried.entry("partitions").or_default() += 1;
                run.gate.skipped(&part, reason);
                continue;
            }
            let mut cluster = match nodes.take() {
                Some(cluster) => cluster,
                None => run.cluster(3, 2, &Setup::default())?,
            };
            println!("         begins   {part}: {fault}");
            let runtime = std::sync::Arc::clone(&run.runtime);
            let mut answers = None;
            let is_usable = run.round(&mut cluster, &part, kind, |nodes, random| match fault {
                Fault::StopLeader(time) => {
                    answers = Some(paused::try_once(&runtime, nodes, time)?);
                    Ok(())
                }
                Fault::Grow if nodes.numbers().count() >= 5 => anyhow::bail!("there are five already"),
                _ => fault.inflict(nodes, random),
            });
            if fault == Fault::Grow && is_usable {
                run.totals.added += 1;
            }
            if let Some(answers) = answers {
                run.totals.stops += 1;
                run.totals.paused_reads.0 += answers.fresh;
                run.totals.paused_reads.1 += answers.errors;
            }
            if is_usable {
                nodes = Some(cluster);
            }
        }
    }
    Ok(())
}
