//! Runs the simulated cluster from a range of seeds and prints what happened.
//!
//! `sim [--seeds A..B | --seed N] [--seconds S] [--sql | --models] [--verbose]`: one run per seed, of the stores unless
//! it is told otherwise. Of each run that went wrong it prints the seed, what was wrong and how to replay it; it exits
//! with 1 when there was one. Built with the feature `planted_bugs`, it takes `--bug NAME`, too.

use std::{ops::Range, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use rustydb_tests::sim::{self, Course, Report};

/// What the clients of a run do.
#[derive(Clone, Copy)]
enum Workload {
    Stores,
    Models,
    Sql,
}

struct Options {
    seeds: Range<u64>,
    seconds: u64,
    #[cfg(feature = "planted_bugs")]
    bug: Option<rustydb_env::Bug>,
    workload: Workload,
    verbose: bool,
}

fn options() -> Result<Options> {
    let mut options = Options {
        seeds: 1..2,
        seconds: 20,
        #[cfg(feature = "planted_bugs")]
        bug: None,
        workload: Workload::Stores,
        verbose: false,
    };
    let mut arguments = std::env::args().skip(1);
    let number = |value: &str| value.parse::<u64>().with_context(|| format!("{value} is no number"));
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{name} needs a value"));
        match name.as_str() {
            "--seed" => {
                let seed = number(&value()?)?;
                options.seeds = seed..seed.saturating_add(1);
            }
            "--seeds" => {
                let seeds = value()?;
                let (first, end) = seeds.split_once("..").context("--seeds needs A..B")?;
                options.seeds = number(first)?..number(end)?;
            }
            "--seconds" => options.seconds = number(&value()?)?,
            "--models" => options.workload = Workload::Models,
            "--sql" => options.workload = Workload::Sql,
            #[cfg(feature = "planted_bugs")]
            "--bug" => {
                let name = value()?;
                let bug = rustydb_env::Bug::ALL.iter().find(|bug| bug.to_string() == name);
                options.bug = Some(*bug.with_context(|| format!("there is no bug {name}"))?);
            }
            "--verbose" => options.verbose = true,
            "--log" => tracing_subscriber::fmt()
                .with_env_filter(tracing_subscriber::EnvFilter::builder().parse(value()?)?)
                .with_writer(std::io::stderr)
                .with_ansi(false)
                .without_time()
                .init(),
            _ => bail!(
                "unknown option {name}; known are --seed, --seeds, --seconds, --sql, --models, --verbose and --log"
            ),
        }
    }
    Ok(options)
}

/// A run that panics is a run that went wrong, and the others go on.
fn run(options: &Options, seed: u64) -> Result<Report, String> {
    let run = match options.workload {
        Workload::Stores => sim::run_stores,
        Workload::Models => sim::run_models,
        Workload::Sql => sim::run_sql,
    };
    let course = Course::new(seed, Duration::from_secs(options.seconds));
    #[cfg(feature = "planted_bugs")]
    let course = Course { bug: options.bug, ..course };
    std::panic::catch_unwind(|| run(course)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
    })
}

fn main() -> Result<ExitCode> {
    let options = options()?;
    let (mut failed, mut virtual_time, mut acknowledged) = (Vec::new(), Duration::ZERO, 0);
    for seed in options.seeds.clone() {
        let wrong = match run(&options, seed) {
            Ok(report) => {
                virtual_time += report.virtual_time;
                acknowledged += report.operations.acknowledged;
                if options.verbose {
                    println!("{report:?}");
                }
                report.wrong
            }
            Err(panic) => vec![panic],
        };
        if wrong.is_empty() {
            continue;
        }
        failed.push(seed);
        let workload = match options.workload {
            Workload::Stores => "",
            Workload::Models => " --models",
            Workload::Sql => " --sql",
        };
        println!(
            "seed {seed} went wrong; replay: cargo run -p rustydb-tests --bin sim -- --seed {seed} --seconds {}{workload}",
            options.seconds
        );
        for wrong in wrong {
            println!("  {wrong}");
        }
    }
    println!(
        "{} runs, {:.0} s of virtual time, {acknowledged} acknowledged, {} went wrong: {failed:?}",
        options.seeds.end.saturating_sub(options.seeds.start),
        virtual_time.as_secs_f64(),
        failed.len()
    );
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
