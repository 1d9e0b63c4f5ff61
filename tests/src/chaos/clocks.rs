//! Wall clocks that are wrong: apart, ahead, behind, set while the nodes run and while leaders die.
//!
//! The servers run with a small C library in front of the system's clock, compiled here by the linker's own compiler.
//! It does to `CLOCK_REALTIME` what setting a machine's clock does, node by node, and leaves the monotonic clock alone.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::network::needs;
use super::nodes::{Nodes, Setup};
use super::random::Random;
use super::run::{CLOCK, Run};
use crate::cluster::{PATIENCE, connect, text};
use crate::server::finish;

/// An hour in milliseconds.
const HOUR: i64 = 3_600_000;

/// How long clients work with one setting of the clocks.
const SPELL: Duration = Duration::from_millis(300);

/// Compiles the library into a folder.
///
/// # Errors
/// There is no compiler.
pub fn shim(folder: &Path) -> Result<PathBuf> {
    let library = folder.join("clock_shim.so");
    let source = folder.join("clock_shim.c");
    std::fs::write(&source, include_str!("../clock_shim.c"))?;
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source);
    let output = finish(command, PATIENCE)?;
    ensure!(output.status.success(), "cc: {}", text(&output));
    Ok(library)
}

/// What is done to the clocks, step by step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// The leader's clock, in milliseconds from the true time.
    Leader(i64),
    /// All clocks.
    All(i64),
    /// Each node's, anywhere between -500 and 500 ms.
    Apart,
    /// The leader is killed, and comes back with its clock as it is.
    KillLeader,
    /// A clock jumps every few milliseconds for a spell, back and forth by up to an hour.
    Wild,
}

const ROUNDS: &[(&str, &[Change])] = &[
    ("skew of 500 ms", &[Change::Apart, Change::KillLeader, Change::Apart]),
    ("leader an hour ahead and dead", &[Change::Leader(HOUR), Change::KillLeader, Change::All(0)]),
    ("leader an hour behind and dead", &[Change::Leader(-HOUR), Change::KillLeader, Change::All(0)]),
    ("all an hour back", &[Change::All(HOUR), Change::All(0), Change::KillLeader]),
    ("leader back and forth", &[Change::Leader(HOUR), Change::Leader(-HOUR), Change::Leader(0)]),
    ("wild clock", &[Change::Wild, Change::KillLeader, Change::Wild]),
];

/// Runs the rounds.
///
/// # Errors
/// The cluster does not come up.
pub fn run(run: &mut Run, deadline: Instant, is_soak: bool) -> Result<()> {
    if let Err(error) = needs("cc") {
        run.untried.insert("clocks", ROUNDS.len());
        run.gate.skipped("clocks", error);
        return Ok(());
    }
    let folder = run.folder.clone();
    let library = shim(&folder)?.display().to_string();
    let clock = |node: u16| folder.join(format!("clock-{node}"));
    let files = folder.join("clock-{node}").display().to_string();
    let environment = vec![("LD_PRELOAD".to_owned(), library), ("CLOCK_SHIM_FILE".to_owned(), files)];
    let setup = Setup { environment, ..Setup::default() };
    let set = |node: u16, ms: i64| std::fs::write(clock(node), ms.to_string());
    for node in 1..=3 {
        set(node, 0)?;
    }
    let mut nodes = run.cluster(3, 0, &setup)?;
    is_set(run, &nodes, set)?;
    for turn in 0..if is_soak { 20 } else { 1 } {
        for (name, changes) in ROUNDS {
            if !run.goes_on_for("clocks", deadline) {
                return Ok(());
            }
            let part = format!("clocks {turn} {name}");
            let is_usable = run.round(&mut nodes, &part, CLOCK, |nodes, random| {
                changes.iter().try_for_each(|change| change.make(nodes, random, &set))?;
                nodes.numbers().try_for_each(|node| set(node, 0).map_err(Into::into))
            });
            if !is_usable {
                nodes = run.cluster(3, 0, &setup)?;
            }
        }
    }
    Ok(())
}

/// Makes sure that the library does what it is for.
fn is_set(run: &Run, nodes: &Nodes, set: impl Fn(u16, i64) -> std::io::Result<()>) -> Result<()> {
    let target = nodes.server(1)?.target("postgres");
    let clock = || -> Result<f64> {
        run.runtime.block_on(async {
            let client = connect(&target).await?;
            Ok(client.query_one("SELECT extract(epoch FROM now())::float8", &[]).await?.get(0))
        })
    };
    let before = clock()?;
    set(1, HOUR)?;
    let after = clock()?;
    set(1, 0)?;
    ensure!(after > before + 3000.0, "the clock of node 1 could not be set: {before}, {after}");
    Ok(())
}

impl Change {
    fn make(
        self,
        nodes: &mut Nodes,
        random: &mut Random,
        set: &impl Fn(u16, i64) -> std::io::Result<()>,
    ) -> Result<()> {
        match self {
            Self::Leader(ms) => set(nodes.leader()?, ms)?,
            Self::All(ms) => {
                for node in nodes.numbers() {
                    set(node, ms)?;
                }
            }
            Self::Apart => {
                for node in nodes.numbers() {
                    set(node, i64::try_from(random.range(0..1001))? - 500)?;
                }
            }
            Self::KillLeader => {
                let leader = nodes.leader()?;
                nodes.kill(leader)?;
                std::thread::sleep(SPELL * 2);
                nodes.server_mut(leader)?.start().context("with its clock set")?;
            }
            Self::Wild => {
                let end = Instant::now() + SPELL;
                while Instant::now() < end {
                    let count = nodes.numbers().count();
                    let node = u16::try_from(random.index(count))? + 1;
                    let hours = i64::try_from(random.range(0..3))? - 1;
                    set(node, hours * HOUR + i64::try_from(random.range(0..1000))?)?;
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
        std::thread::sleep(SPELL);
        Ok(())
    }
}
