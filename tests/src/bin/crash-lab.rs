//! The crash lab: power cuts of real servers, a failure at every operation of a disk, damaged files.
//!
//! `crash-lab [--seconds N] [--report FILE] [--seed N] [--cuts N] [--part NAME] [--again] [--step STEP]`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustydb_tests::crash::{parts, steps};
use rustydb_tests::gate::{Gate, exit_code, help, nothing_left, take_flag, take_option};

const USAGE: &str = "\
crash-lab [--seconds N] [--report FILE] [--seed N] [--cuts N] [--part NAME] [--again] [--step STEP]";

/// What the names of parts begin with.
const PARTS: &[&str] = &["power cuts", "damage of", "flips of a log", "steps of"];

const KNOWN: &str = "--seconds, --report, --seed, --cuts, --part, --again, --step";

fn main() -> ExitCode {
    exit_code("crash-lab", run())
}

fn run() -> Result<ExitCode> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    help(&arguments, USAGE);
    if let Some(step) = take_option(&mut arguments, "--step")? {
        let step = steps::Step::parse(&step).context("no such step")?;
        let ran = steps::run(step);
        println!("{ran:?}");
        return Ok(if ran.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let mut gate = Gate::from_arguments("crash-lab", Duration::from_secs(240), &mut arguments)?;
    let number = |text: Option<String>, default: u64| -> Result<u64> {
        text.map_or(Ok(default), |text| text.parse().with_context(|| format!("{text} is no number")))
    };
    let plan = parts::Plan {
        seed: number(take_option(&mut arguments, "--seed")?, 1)?,
        cuts: number(take_option(&mut arguments, "--cuts")?, 100)?,
        only: take_option(&mut arguments, "--part")?,
        again: take_flag(&mut arguments, "--again"),
    };
    nothing_left(&arguments, KNOWN)?;
    gate.can_require(&[])?;
    if let Some(only) = plan.only.as_deref() {
        let is_one = PARTS.iter().any(|part| part.starts_with(only) || only.starts_with(part));
        ensure!(is_one, "no part is called {only}; their names begin with {}", PARTS.join(", "));
    }
    let figures = parts::run(&mut gate, &plan)?;
    Ok(gate.finish(&figures, &[]))
}
