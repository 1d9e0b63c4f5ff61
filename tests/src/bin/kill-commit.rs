//! Leaders are killed at commit time, and every client learns what became of its transaction: see
//! [`rustydb_tests::commit_kill`]. Before that, power cuts in the simulation. `--kills N` (40), `--crashes N` (1000, in
//! steps of 100), `--seconds N`, `--report FILE`, `--seed N`. They are all done; what is not when the time of a slow
//! machine is over is a failure.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use rustydb_tests::commit_kill::{CommitKill, Tally};
use rustydb_tests::crash::Dice;
use rustydb_tests::gate::{Gate, exit_code, help, nothing_left, take_option};
use rustydb_tests::sim::run_commit_crashes;
use serde_json::json;

/// The time of a run unless it is said otherwise.
const BUDGET: Duration = Duration::from_secs(150);
/// Simulated crashes of one part.
const STEP: u64 = 100;

fn main() -> ExitCode {
    exit_code("kill-commit", run())
}

fn run() -> Result<ExitCode> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    help(&arguments, "kill-commit [--kills N] [--crashes N] [--seed N] [--seconds N] [--report FILE]");
    let mut gate = Gate::from_arguments("kill-commit", BUDGET, &mut arguments)?;
    let kills: u64 = match take_option(&mut arguments, "--kills")? {
        Some(kills) => kills.parse().with_context(|| format!("--kills {kills} is no number"))?,
        None => 40,
    };
    let crashes: u64 = match take_option(&mut arguments, "--crashes")? {
        Some(crashes) => crashes.parse().with_context(|| format!("--crashes {crashes} is no number"))?,
        None => 1000,
    };
    let seed: u64 = match take_option(&mut arguments, "--seed")? {
        Some(seed) => seed.parse().with_context(|| format!("--seed {seed} is no number"))?,
        None => 1,
    };
    nothing_left(&arguments, "--kills, --crashes, --seed, --seconds, --report, --require")?;
    gate.can_require(&[])?;
    let mut simulated = 0;
    for step in 1..=crashes.div_ceil(STEP) {
        let step_seed = seed.wrapping_add(step - 1);
        let part = format!("simulated crashes, step {step} of seed {seed}");
        if gate.is_done(&part) {
            continue;
        }
        if gate.is_late() {
            gate.failed(&part, "the time of a slow machine is over");
            continue;
        }
        let count = STEP.min(crashes - (step - 1) * STEP);
        let report = run_commit_crashes(step_seed, count);
        simulated += report.crashes;
        match report.wrong.first() {
            None => gate.passed(&part, &json!(format!("{report:?}"))),
            Some(wrong) => gate.failed(&part, wrong),
        }
    }
    // Only now: within a runtime the simulation's own tasks would be held to that one's budget.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let tally = if kills > 0 { runtime.block_on(kill(&mut gate, kills, seed))? } else { Tally::default() };
    Ok(gate.finish(&format!("{simulated} simulated crashes; {}", tally.figures()), &[]))
}

async fn kill(gate: &mut Gate, kills: u64, seed: u64) -> Result<Tally> {
    let mut dice = Dice::new(seed);
    let mut run = CommitKill::start().await?;
    for number in 1..=kills {
        let part = format!("kill {number}");
        let random = dice.number();
        if gate.is_done(&part) {
            continue;
        }
        if gate.is_late() {
            gate.failed(&part, format!("the time of a slow machine is over, and {kills} kills are wanted"));
            break;
        }
        let result = run.round(random).await;
        let is_wrong = result.is_err();
        gate.settle(&part, result);
        if is_wrong {
            break;
        }
    }
    gate.settle("every row once", run.check().await);
    Ok(run.tally())
}
