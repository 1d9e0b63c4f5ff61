//! Runs the simulated cluster.
//!
//! `sim [--seed N | --seeds A..B] [--seconds S] [--sql | --stores | --models | --logs | --proposals | --series |
//! --scene NAME | --lost-log NAME] [--churn] [--watch-logs] [--verbose] [--log FILTER]`: one run per seed, of SQL sessions
//! unless it is told otherwise, with S seconds of virtual time under faults. Of each run that went wrong it prints the
//! seed, what was wrong and how to replay it; it exits with 1 when there was one.
//!
//! `sim gate [--seconds S] [--base N] [--runs M] [--jobs J] [--report FILE] [--require seeds=N,hours=N,pairs=N,steps=N,
//! churns=N,watched=N,kinds=N,speed=N]`: runs of all kinds and lengths for S seconds of real time, on J threads, with the
//! seeds from N on.
//!
//! Built with the feature `planted_bugs`, `--bug NAME` plants one, and `sim bugs [--seconds S] [--seeds M] [--jobs J]
//! [--report FILE] [NAME...]` looks for each of them.

use std::{ops::Range, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use rustydb_tests::{
    gate::{Gate, exit_code, help, nothing_left, take_flag, take_option},
    sim::{
        Course, Errand, Loss, Scene,
        campaign::{Kind, Total, campaign},
    },
};

/// As the server has it. A simulation makes and drops a lot of small things.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
sim [--seed N | --seeds A..B] [--seconds S] [--sql | --stores | --models] [--churn] [--watch-logs]
    [--logs | --proposals | --series | --scene NAME | --lost-log NAME] [--verbose] [--log FILTER] [--bug NAME]
        one run per seed, B itself not among them; --bug in a build with the feature planted_bugs
sim gate [--seconds S] [--base N] [--runs M] [--jobs J] [--report FILE]
         [--require seeds=N,hours=N,pairs=N,steps=N,churns=N,watched=N,kinds=N,speed=N]
        runs of all kinds and lengths with the seeds from N on
sim bugs [--seconds S] [--seeds M] [--jobs J] [--report FILE] [NAME...]
        looks for each planted bug; in a build with the feature planted_bugs";

fn number(arguments: &mut Vec<String>, name: &str, default: u64) -> Result<u64> {
    let value = take_option(arguments, name)?;
    value.map_or(Ok(default), |value| value.parse().with_context(|| format!("{name} {value} is no number")))
}

fn main() -> ExitCode {
    // A run takes and gives back so much memory that half a megabyte cleared at a time costs a twentieth of it.
    let _refused = rustix::thread::disable_transparent_huge_pages(true);
    exit_code("sim", run())
}

fn run() -> Result<ExitCode> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    help(&arguments, USAGE);
    if arguments.first().is_some_and(|first| first == "gate") {
        arguments.remove(0);
        return gate(arguments);
    }
    #[cfg(feature = "planted_bugs")]
    if arguments.first().is_some_and(|first| first == "bugs") {
        arguments.remove(0);
        return bugs(arguments);
    }
    replay(arguments)
}

fn gate(mut arguments: Vec<String>) -> Result<ExitCode> {
    let mut gate = Gate::from_arguments("simulation", Duration::from_secs(480), &mut arguments)?;
    let base = number(&mut arguments, "--base", 1)?;
    let runs = number(&mut arguments, "--runs", u64::MAX)?;
    let jobs = number(&mut arguments, "--jobs", cores())?;
    nothing_left(&arguments, "--seconds, --base, --runs, --jobs, --report and --require")?;
    gate.can_require(&Total::default().counts())?;
    println!("seeds from {base} on, {jobs} at a time");
    let total = campaign(&mut gate, base, runs, jobs);
    Ok(gate.finish(&total.figures(), &total.counts()))
}

#[cfg(feature = "planted_bugs")]
fn bugs(mut arguments: Vec<String>) -> Result<ExitCode> {
    use rustydb_env::Bug;
    use rustydb_tests::sim::mutations::{SEEDS_MAX, mutations};
    let mut gate = Gate::from_arguments("planted bugs", Duration::from_secs(1800), &mut arguments)?;
    let jobs = number(&mut arguments, "--jobs", cores())?;
    let seeds_max = number(&mut arguments, "--seeds", SEEDS_MAX)?;
    let mut bugs: Vec<Bug> = Bug::ALL.to_vec();
    if !arguments.is_empty() {
        for name in &arguments {
            ensure!(Bug::ALL.iter().any(|bug| bug.to_string() == *name), "there is no bug {name}");
        }
        bugs.retain(|bug| arguments.contains(&bug.to_string()));
    }
    gate.can_require(&[])?;
    let figures = mutations(&mut gate, &bugs, seeds_max, jobs);
    Ok(gate.finish(&figures, &[]))
}

fn cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64)
}

fn seeds(arguments: &mut Vec<String>) -> Result<Range<u64>> {
    let parse = |text: &str| text.parse::<u64>().with_context(|| format!("{text} is no number"));
    match (take_option(arguments, "--seed")?, take_option(arguments, "--seeds")?) {
        (Some(_), Some(_)) => bail!("--seed and --seeds exclude each other"),
        (Some(seed), None) => parse(&seed).map(|seed| seed..seed.saturating_add(1)),
        (None, Some(seeds)) => {
            let (first, end) = seeds.split_once("..").context("--seeds needs A..B")?;
            let seeds = parse(first)?..parse(end)?;
            ensure!(!seeds.is_empty(), "--seeds {}..{} are none", seeds.start, seeds.end);
            Ok(seeds)
        }
        (None, None) => Ok(1..2),
    }
}

fn replay(mut arguments: Vec<String>) -> Result<ExitCode> {
    let seeds = seeds(&mut arguments)?;
    let seconds = number(&mut arguments, "--seconds", 20)?;
    let mut kinds = [Kind::Sql, Kind::Stores, Kind::Models].into_iter();
    let kind = kinds.find(|kind| take_flag(&mut arguments, kind.option())).unwrap_or(Kind::Sql);
    let logs = take_flag(&mut arguments, "--logs");
    let proposals = take_flag(&mut arguments, "--proposals");
    let series = take_flag(&mut arguments, "--series");
    let lost = take_option(&mut arguments, "--lost-log")?;
    let errand = match take_option(&mut arguments, "--scene")? {
        Some(name) => {
            let scene = Scene::ALL.iter().find(|scene| scene.to_string() == name);
            Errand::Played(*scene.with_context(|| format!("there is no scene {name}, but {:?}", Scene::ALL))?)
        }
        None if logs => Errand::Log,
        None if proposals => Errand::Proposals,
        None if series => Errand::Series,
        None => match lost {
            Some(name) => {
                let loss = Loss::ALL.iter().find(|loss| loss.to_string() == name);
                Errand::Lost(*loss.with_context(|| format!("{name} is none of {:?}", Loss::ALL))?)
            }
            None => Errand::Cluster(kind, seconds),
        },
    };
    let churns = take_flag(&mut arguments, "--churn");
    let is_watching = take_flag(&mut arguments, "--watch-logs");
    let is_verbose = take_flag(&mut arguments, "--verbose");
    if let Some(filter) = take_option(&mut arguments, "--log")? {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::builder().parse(filter)?)
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .without_time()
            .init();
    }
    #[cfg(feature = "planted_bugs")]
    let bug = match take_option(&mut arguments, "--bug")? {
        None => None,
        Some(name) => {
            let bug = rustydb_env::Bug::ALL.iter().copied().find(|bug| bug.to_string() == name);
            Some(bug.with_context(|| format!("there is no bug {name}"))?)
        }
    };
    nothing_left(
        &arguments,
        "--seed, --seeds, --seconds, --sql, --stores, --models, --logs, --proposals, --series, --scene, --lost-log, --churn, \
         --watch-logs, --verbose, --log, --bug where it is built in, and gate or bugs as the first",
    )?;
    // A bug is looked for with all rules.
    #[cfg(feature = "planted_bugs")]
    let watches_logs = is_watching || bug.is_some();
    #[cfg(not(feature = "planted_bugs"))]
    let watches_logs = is_watching;
    #[cfg(feature = "planted_bugs")]
    let with_bug = bug.map(|bug| format!(" --bug {bug}")).unwrap_or_default();
    #[cfg(not(feature = "planted_bugs"))]
    let with_bug = "";
    let features = if with_bug.is_empty() { "" } else { " --features planted_bugs" };
    let (mut failed, mut virtual_time, mut acknowledged) = (Vec::new(), Duration::ZERO, 0);
    for seed in seeds.clone() {
        let course = Course { churns, watches_logs, ..Course::new(seed, Duration::ZERO) };
        #[cfg(feature = "planted_bugs")]
        let course = Course { bug, ..course };
        let ended = errand.run(course);
        acknowledged += ended.acknowledged;
        if let Some(report) = ended.report {
            virtual_time += report.virtual_time;
            if is_verbose {
                println!("{report:#?}");
            } else if seeds.end - seeds.start == 1 {
                println!("seed {seed}: trace {:016x} of {} polls", report.trace_hash, report.steps);
            }
        }
        if ended.wrong.is_empty() {
            continue;
        }
        failed.push(seed);
        println!(
            "seed {seed} went wrong; replay, with the source as it is: cargo run -p rustydb-tests{features} --bin sim -- \
             --seed {seed} {errand}{}{}{with_bug}",
            if churns { " --churn" } else { "" },
            if is_watching { " --watch-logs" } else { "" },
        );
        for wrong in ended.wrong {
            println!("  {wrong}");
        }
    }
    println!(
        "{} runs, {:.0} s of virtual time, {acknowledged} acknowledged, {} went wrong: {failed:?}",
        seeds.end - seeds.start,
        virtual_time.as_secs_f64(),
        failed.len()
    );
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
