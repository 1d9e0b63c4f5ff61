//! A round: clients work, something breaks, it is healed, everybody looks, and the histories are judged.
//!
//! ```text
//! prepare ─ clients start ─ writes go ─ FAULT ─ writes go ─ dead nodes start ─ whole ─ clients end ─ last look ─ judge
//!                                      └──── outage seen by clients ────┘
//! ```

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::clients::{Progress, Session};
use super::nodes::{Nodes, RECOVERY};
use super::random::Random;
use super::workloads::{Verdict, Workload};
use crate::cluster::connect;

/// Acknowledged writes after a fault that mean that service is back.
const BACK: usize = 20;

/// How long clients go on when the cluster is whole again.
const AFTERWARDS: Duration = Duration::from_millis(100);

/// Longest wait for a client to end.
const CLIENT_END: Duration = Duration::from_secs(20);

/// A history and how many clients make it.
pub struct Load {
    /// The history.
    pub workload: Arc<dyn Workload>,
    /// Its clients.
    pub clients: usize,
}

/// What a round came to, before its histories are judged.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Longest time without an acknowledged write of any client, from the fault until service was back.
    pub outage: Duration,
    /// How often clients were told which SQLSTATE.
    pub errors: Value,
}

/// Clients at work.
pub struct Working {
    runtime: Arc<Runtime>,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    /// Their acknowledged writes.
    pub progress: Arc<Progress>,
}

impl Working {
    /// Prepares the histories and starts their clients.
    ///
    /// # Errors
    /// The cluster does not take the preparation.
    pub fn start(
        runtime: &Arc<Runtime>,
        targets: &[String],
        loads: &[Load],
        random: &mut Random,
    ) -> Result<Self> {
        let (stop, progress) = (Arc::new(AtomicBool::new(false)), Arc::<Progress>::default());
        let mut working = Self { runtime: Arc::clone(runtime), stop, tasks: Vec::new(), progress };
        let targets = Arc::new(targets.to_vec());
        for load in loads {
            working.runtime.block_on(async {
                let client = connect(&targets[0]).await?;
                load.workload.prepare(&client).await.context("a workload cannot be prepared")
            })?;
            for _ in 0..load.clients {
                let settings = load.workload.settings();
                let mut session =
                    Session::new(&targets, &settings, &working.stop, random.fork(), &working.progress);
                let workload = Arc::clone(&load.workload);
                working.tasks.push(working.runtime.spawn(async move {
                    let mut process = None;
                    while !session.is_over() {
                        if session.connected().await {
                            workload.turn(&mut session, &mut process).await;
                        }
                    }
                }));
            }
        }
        Ok(working)
    }

    /// Waits for some more acknowledged writes.
    ///
    /// # Errors
    /// They do not come in time.
    pub fn wait_for(&self, writes: usize) -> Result<()> {
        let (wanted, deadline) = (self.progress.count() + writes, Instant::now() + RECOVERY);
        while self.progress.count() < wanted {
            if Instant::now() > deadline {
                let errors = self.progress.errors();
                bail!("no {writes} writes in {RECOVERY:?}; clients were told {errors:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Lets all clients end what they are at.
    ///
    /// # Errors
    /// One does not end.
    pub fn end(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let tasks = std::mem::take(&mut self.tasks);
        self.runtime.block_on(async {
            for task in tasks {
                tokio::time::timeout(CLIENT_END, task).await.context("a client does not end")??;
            }
            Ok(())
        })
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Runs a round on a cluster that is whole, and leaves it whole.
///
/// # Errors
/// The fault cannot be inflicted, or the cluster does not come back.
pub fn run(
    runtime: &Arc<Runtime>,
    nodes: &mut Nodes,
    loads: &[Load],
    random: &mut Random,
    inflict: impl FnOnce(&mut Nodes, &mut Random) -> Result<()>,
) -> Result<Outcome> {
    let working = Working::start(runtime, &nodes.targets(), loads, random)?;
    working.wait_for(BACK)?;
    let before = Instant::now();
    inflict(nodes, random)?;
    if nodes.numbers().filter(|node| is_dead(nodes, *node)).count() * 2 > nodes.numbers().count() {
        nodes.start_dead()?;
    }
    working.wait_for(BACK).context("after the fault")?;
    let outage = working.progress.longest_gap(before, Instant::now());
    nodes.start_dead()?;
    nodes.wait_whole()?;
    std::thread::sleep(AFTERWARDS);
    let errors = json!(working.progress.errors());
    working.end()?;
    last_look(runtime, nodes, loads)?;
    nodes.check_sound()?;
    Ok(Outcome { outage, errors })
}

fn is_dead(nodes: &mut Nodes, node: u16) -> bool {
    nodes.server_mut(node).and_then(|server| server.is_alive()).is_ok_and(|alive| !alive)
}

/// Lets each workload look at each node.
///
/// # Errors
/// A node does not answer although all is whole.
pub fn last_look(runtime: &Runtime, nodes: &Nodes, loads: &[Load]) -> Result<()> {
    let deadline = Instant::now() + RECOVERY;
    for target in nodes.targets() {
        for load in loads {
            runtime.block_on(async {
                let mut session = Session::at(&target, &load.workload.settings());
                loop {
                    ensure!(Instant::now() < deadline, "{target} takes no connection when all is whole");
                    if !session.connected().await {
                        continue;
                    }
                    match load.workload.last_look(&mut session).await {
                        Ok(()) => return Ok(()),
                        // A leader may still change after what was done to it.
                        Err(failure) => ensure!(Instant::now() < deadline, "{target}: {}", failure.said),
                    }
                }
            })?;
        }
    }
    Ok(())
}

/// Judges the histories of a round; one that is wrong is kept in `keep`.
///
/// # Errors
/// A history is wrong: what, and where it is kept.
pub fn judge(loads: &[Load], keep: &Path, name: &str) -> Result<Verdict> {
    let mut sum = Verdict::default();
    let mut wrong = Vec::new();
    for load in loads {
        let verdict = load.workload.judge();
        sum.steps += verdict.steps;
        sum.acknowledged += verdict.acknowledged;
        sum.refused += verdict.refused;
        sum.unknown += verdict.unknown;
        if !verdict.wrong.is_empty() {
            let file = format!("{name}-{}.history", load.workload.name()).replace([' ', '/'], "-");
            std::fs::create_dir_all(keep)?;
            std::fs::write(keep.join(&file), &verdict.history)?;
            let kept = keep.join(file);
            wrong.push(format!(
                "{} is wrong (kept in {}):\n{}",
                load.workload.name(),
                kept.display(),
                verdict.wrong.join("\n")
            ));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(sum.acknowledged > 0, "no operation was acknowledged");
    Ok(sum)
}
