//! Bad links: a cluster whose nodes talk to each other through the [`links`](super::links) of this process.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::links::{Link, Router, needs_tun};
use super::nodes::Setup;
use super::run::{BAD_LINKS, Run};

/// Name, and how all links are while clients work.
const WEATHERS: &[(&str, Link)] = &[
    (
        "5 to 10 ms",
        Link {
            delay: Duration::from_millis(5),
            jitter: Duration::from_millis(5),
            lost: 0,
            doubled: 0,
            late: 0,
        },
    ),
    (
        "2 % lost",
        Link { delay: Duration::from_millis(1), jitter: Duration::ZERO, lost: 20, doubled: 0, late: 0 },
    ),
    (
        "10 % doubled, 10 % late",
        Link {
            delay: Duration::from_millis(2),
            jitter: Duration::from_millis(1),
            lost: 0,
            doubled: 100,
            late: 100,
        },
    ),
    (
        "20 to 60 ms, 1 % lost, 2 % doubled",
        Link {
            delay: Duration::from_millis(20),
            jitter: Duration::from_millis(40),
            lost: 10,
            doubled: 20,
            late: 20,
        },
    ),
    (
        "10 % lost, reordered",
        Link {
            delay: Duration::from_millis(1),
            jitter: Duration::from_millis(5),
            lost: 100,
            doubled: 10,
            late: 50,
        },
    ),
];

/// How long the weather lasts before a leader is killed in it.
const SPELL: Duration = Duration::from_millis(1500);

/// Runs each weather, with a kill of the leader in it.
///
/// # Errors
/// The cluster does not come up.
pub fn run(run: &mut Run, deadline: Instant, is_soak: bool) -> Result<()> {
    let impossible = match &run.no_network {
        Some(reason) => Some(reason.clone()),
        None => needs_tun().err().map(|error| error.to_string()),
    };
    if let Some(reason) = impossible {
        run.untried.insert("links", WEATHERS.len());
        run.gate.skipped("links", reason);
        return Ok(());
    }
    let router = Router::start(3, run.random.next())?;
    let mut nodes = run.cluster(3, 0, &Setup { through_emulator: true, ..Setup::default() })?;
    let turns = if is_soak { 20 } else { 1 };
    for turn in 0..turns {
        for (name, link) in WEATHERS {
            if !run.goes_on_for("links", deadline) {
                return Ok(());
            }
            let part = format!("links {turn} {name}");
            let is_usable = run.round(&mut nodes, &part, BAD_LINKS, |nodes, _| {
                router.set(*link);
                std::thread::sleep(SPELL);
                let leader = nodes.leader()?;
                nodes.kill(leader)?;
                std::thread::sleep(SPELL);
                nodes.server_mut(leader)?.start()?;
                router.set(Link::default());
                Ok(())
            });
            router.set(Link::default());
            if !is_usable {
                nodes = run.cluster(3, 0, &Setup { through_emulator: true, ..Setup::default() })?;
            }
        }
    }
    let traffic = router.traffic();
    println!("links: {} packets passed, {} lost, {} doubled", traffic.passed, traffic.lost, traffic.doubled);
    Ok(())
}
