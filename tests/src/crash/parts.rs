//! The parts of the crash lab, in the order in which they run, and what is printed of each.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use super::Dice;
use super::damage;
use super::disk::PowerDisk;
use super::flips;
use super::power::{self, Cuts, Lane};
use super::steps::{self, Failure, Ran, Scene, Step};
use crate::gate::Gate;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Plan {
    /// From which all is drawn.
    pub seed: u64,
    /// Power cuts of real servers that are wanted; with time left there are no more.
    pub cuts: u64,
    /// The one part to run, by the beginning of its name; absent for all.
    pub only: Option<String>,
    /// Whether each step is followed by a second cut at every step of the start after it.
    pub again: bool,
}

impl Plan {
    fn wants(&self, gate: &Gate, part: &str) -> bool {
        !gate.is_done(part) && self.only.as_ref().is_none_or(|only| part.starts_with(only.as_str()))
    }
}

/// Runs all parts; gives the figures of the last line.
///
/// # Errors
/// Something is missing that has nothing to do with what is tested.
pub fn run(gate: &mut Gate, plan: &Plan) -> Result<String> {
    let mut figures = Vec::new();
    if plan.wants(gate, "power cuts") {
        let budget = gate.left_at_most();
        match PowerDisk::missing() {
            Some(reason) => gate.skipped("power cuts", reason),
            None => {
                let (cuts, result) = power_cuts(plan, budget);
                figures.push(format!("{} power cuts, {} acknowledged", cuts.cuts, cuts.judged.acknowledged));
                gate.settle("power cuts", result);
            }
        }
    }
    let part = "power cuts without syncs are found out";
    if plan.wants(gate, part) {
        match PowerDisk::missing() {
            Some(reason) => gate.skipped(part, reason),
            None => gate.settle(part, found_out(plan)),
        }
    }
    damage_files(gate, plan)?;
    if plan.wants(gate, "flips of a log") {
        gate.settle("flips of a log", flips::every_bit(plan.seed, 2, gate.left_at_most()));
    }
    let mut steps_run = 0;
    for scene in Scene::ALL {
        for failure in Failure::ALL {
            let part = format!("steps of {}, {failure:?}", scene.name());
            if !plan.wants(gate, &part) {
                continue;
            }
            let (count, result) = every_step(plan, scene, failure, gate.left_at_most());
            steps_run += count;
            gate.settle(&part, result);
        }
    }
    figures.push(format!("{steps_run} steps failed at"));
    Ok(figures.join(", "))
}

/// Files of one node of three are damaged, each place in turn.
fn damage_files(gate: &mut Gate, plan: &Plan) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for place in damage::Place::ALL {
        let part = format!("damage of {place:?}");
        if !plan.wants(gate, &part) {
            continue;
        }
        if gate.is_late() {
            gate.failed(&part, "the time of a slow machine is over");
            continue;
        }
        let mut dice = Dice::new(plan.seed);
        let tried = damage::Cluster::new(runtime.handle())
            .and_then(|mut cluster| cluster.try_place(place, &mut dice));
        gate.settle(&part, tried);
    }
    let part = "damage of the only copy";
    if plan.wants(gate, part) {
        gate.settle(part, damage::only_copy(runtime.handle(), &mut Dice::new(plan.seed)));
    }
    Ok(())
}

/// Lanes side by side until there were enough cuts or the time is over.
fn power_cuts(plan: &Plan, budget: Duration) -> (Cuts, Result<Value>) {
    let started = Instant::now();
    let mut total = Cuts::default();
    let result = cut_lanes(plan, started + budget, &mut total);
    let seconds = started.elapsed().as_secs_f64();
    let result = result.and_then(|()| {
        let judged = total.judged;
        println!(
            "          {} power cuts in {seconds:.0} s ({:.2} s per cut), {} of them of a starting node; \
             {} file systems shut down",
            total.cuts,
            seconds / total.cuts.max(1) as f64,
            total.in_recovery,
            total.disks
        );
        ensure!(
            total.cuts >= plan.cuts,
            "only {} of {} cuts came about in {seconds:.0} s",
            total.cuts,
            plan.cuts
        );
        Ok(json!({
            "cuts": total.cuts, "in_recovery": total.in_recovery, "seconds": seconds,
            "acknowledged": judged.acknowledged, "unknown": judged.unknown,
            "unknown_that_took_place": judged.unknown_kept, "lost": 0, "unopenable": 0,
        }))
    });
    (total, result)
}

fn cut_lanes(plan: &Plan, deadline: Instant, total: &mut Cuts) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let base_port = power::base_port()?;
    let lanes = [("a node alone", 1, 0), ("another node alone", 1, 1), ("three nodes", 3, 2)];
    let made = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let enough = usize::try_from(plan.cuts)?;
    let work = |(name, nodes, slot): (&str, u16, u16)| -> (Cuts, Result<()>) {
        let seed = plan.seed.wrapping_mul(31).wrapping_add(u64::from(slot));
        let mut lane = match Lane::new(name, nodes, (base_port, slot), seed, None, runtime.handle()) {
            Ok(lane) => lane,
            Err(error) => return (Cuts::default(), Err(error)),
        };
        let result = (|| {
            while !failed.load(Ordering::Relaxed)
                && made.load(Ordering::Relaxed) < enough
                && Instant::now() < deadline
            {
                let before = lane.cuts().cuts;
                lane.round()?;
                made.fetch_add(usize::try_from(lane.cuts().cuts - before)?, Ordering::Relaxed);
            }
            lane.check_everywhere()
        })();
        if result.is_err() {
            failed.store(true, Ordering::Relaxed);
        }
        (*lane.cuts(), result)
    };
    let results: Vec<(Cuts, Result<()>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = lanes.map(|lane| scope.spawn(move || work(lane))).into_iter().collect();
        threads.into_iter().map(|thread| thread.join().expect("a lane does not panic")).collect()
    });
    let mut outcome = Ok(());
    for (cuts, result) in results {
        total.add(&cuts);
        outcome = outcome.and(result);
    }
    outcome
}

/// The lab itself is tried: servers whose syncs do nothing must lose something, and that must be seen.
fn found_out(plan: &Plan) -> Result<Value> {
    const CUTS: u64 = 12;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let folder = tempfile::tempdir()?;
    let shim = power::sync_shim(folder.path())?;
    let place = (power::base_port()?, 0);
    let lane =
        Lane::new("a node whose syncs do nothing", 1, place, plan.seed, Some(&shim), runtime.handle())?;
    let mut lane = lane.with_patience(Duration::from_secs(10));
    for round in 1..=CUTS {
        if let Err(error) = lane.round() {
            let said = format!("{error:#}");
            let first = said.lines().next().unwrap_or_default();
            return Ok(json!({ "found_in_round": round, "as": first }));
        }
    }
    bail!("{CUTS} power cuts of a node that syncs nothing, and nothing was missed")
}

/// One failure at each operation of a scene, shared by two threads.
fn every_step(plan: &Plan, scene: Scene, failure: Failure, budget: Duration) -> (usize, Result<Value>) {
    let deadline = Instant::now() + budget;
    let sound = Step { scene, seed: plan.seed, strike: None, again: None };
    let whole = match run_caught(sound) {
        Ok(whole) => whole,
        Err(wrong) => return (0, Err(anyhow::anyhow!("with a sound disk: {wrong}"))),
    };
    let count = if failure == Failure::Read { whole.reads } else { whole.changes };
    let count = usize::try_from(count).unwrap_or(0);
    let next = AtomicUsize::new(0);
    let seen = Mutex::new((0_usize, 0_usize, 0_usize, Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count || Instant::now() >= deadline {
                        return;
                    }
                    let (ran, stopped, again, wrong) = step_and_again(plan, scene, failure, at as u64);
                    let Ok(mut seen) = seen.lock() else { return };
                    seen.0 += ran;
                    seen.1 += stopped;
                    seen.2 += again;
                    seen.3.extend(wrong);
                }
            });
        }
    });
    let (ran, stopped, again, wrong) = seen.into_inner().unwrap_or_default();
    let tried = next.into_inner().min(count);
    let result = (|| {
        for wrong in wrong.iter().take(5) {
            println!("          {wrong}");
        }
        if let Some(first) = wrong.first() {
            bail!("{} of {ran} went wrong, first: {first}", wrong.len());
        }
        ensure!(ran > 0, "there was no time for a single step of {count}");
        ensure!(tried == count, "there was time for {tried} of {count} steps only");
        Ok(
            json!({ "steps": count, "runs": ran, "stopped_by_itself": stopped, "cut_again": again, "wrong": 0 }),
        )
    })();
    (ran, result)
}

/// A step, and if it is asked for with a second cut at each step of the start that follows: runs, how many nodes
/// stopped by themselves, second cuts, and what was wrong.
fn step_and_again(
    plan: &Plan,
    scene: Scene,
    failure: Failure,
    at: u64,
) -> (usize, usize, usize, Vec<String>) {
    let step = Step { scene, seed: plan.seed, strike: Some((failure, at)), again: None };
    let (mut stopped, mut again, mut wrong) = (0, 0, Vec::new());
    let mut runs = 1;
    match run_caught(step) {
        Ok(ran) => {
            stopped += usize::from(ran.stopped);
            // The start has at least a few operations; those of the first commit after it count, too.
            let seconds = if plan.again { ran.start_changes } else { 0 };
            for second in 0..seconds.min(40) {
                runs += 1;
                match run_caught(Step { again: Some(second), ..step }) {
                    Ok(_) => again += 1,
                    Err(error) => wrong.push(error),
                }
            }
        }
        Err(error) => wrong.push(error),
    }
    (runs, stopped, again, wrong)
}

/// A panic is a finding like any other.
fn run_caught(step: Step) -> Result<Ran, String> {
    std::panic::catch_unwind(|| steps::run(step)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
        Err(format!("panic: {text}; replay: crash-lab --step {}", step.text()))
    })
}
