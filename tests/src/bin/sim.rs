//! Runs the simulated cluster from a seed and prints what happened.
//!
//! `sim --seed N [--runs M] [--seconds S]`: M runs with the seeds N, N+1, ... Exits with 1 when one went wrong.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use rustydb_tests::sim;

struct Options {
    seed: u64,
    runs: u64,
    seconds: u64,
}

fn options() -> Result<Options> {
    let mut options = Options { seed: 1, runs: 1, seconds: 20 };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{name} needs a number"))?;
        let value: u64 = value.parse().with_context(|| format!("{value} is no number"))?;
        match name.as_str() {
            "--seed" => options.seed = value,
            "--runs" => options.runs = value,
            "--seconds" => options.seconds = value,
            _ => bail!("unknown option {name}; known are --seed, --runs and --seconds"),
        }
    }
    Ok(options)
}

fn main() -> Result<ExitCode> {
    let options = options()?;
    let mut failed = 0;
    for seed in options.seed..options.seed.saturating_add(options.runs) {
        let report = sim::run(seed, Duration::from_secs(options.seconds));
        println!(
            "SEED={seed} nodes={} virtual={:.1}s trace={:016x} steps={} acknowledged={} refused={} unknown={} reads={} \
             crashes={} pauses={} cuts={} storms={} terms={} frames={} lost={}",
            report.nodes,
            report.virtual_time.as_secs_f64(),
            report.trace_hash,
            report.steps,
            report.operations.acknowledged,
            report.operations.refused,
            report.operations.unknown,
            report.operations.reads,
            report.strikes.crashes,
            report.strikes.pauses,
            report.strikes.cuts,
            report.strikes.storms,
            report.terms,
            report.traffic.sent,
            report.traffic.lost,
        );
        for wrong in &report.wrong {
            println!("  WRONG: {wrong}");
        }
        failed += u64::from(!report.wrong.is_empty());
    }
    println!("{} runs, {failed} went wrong", options.runs);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
