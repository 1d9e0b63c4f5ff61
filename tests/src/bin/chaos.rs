//! Real clusters in network namespaces of their own, hurt in all ways while clients record histories.
//!
//! ```text
//! chaos [--seconds N] [--report FILE] [--seed N] [--keep DIR] [--only SECTION] [--soak] [--floors]
//!       [--require kills=N,stops=N,fresh=N,histories=N,steps=N,added=N,removed=N,components=N,links=N,clocks=N,
//!        partitions=N]
//! ```
//!
//! Without the right to make namespaces the nodes run on loopback and what needs a network is skipped and counted.
//! With `--floors` an overload that is too slow fails, else it is told and counted as skipped.
//! Histories that are wrong are kept in DIR (`chaos-failures`), with the nodes' logs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustydb_tests::chaos::churn;
use rustydb_tests::chaos::network::{self, Network};
use rustydb_tests::chaos::nodes::Ground;
use rustydb_tests::chaos::run::Run;
use rustydb_tests::chaos::sections;
use rustydb_tests::gate::{Gate, exit_code, help, nothing_left, take_flag, take_option};

const USAGE: &str = "\
chaos [--seconds N] [--report FILE] [--seed N] [--keep DIR] [--only SECTION] [--soak] [--floors] [--loopback]
      [--require kills=N,stops=N,fresh=N,histories=N,steps=N,added=N,removed=N,components=N,links=N,clocks=N,
       partitions=N]";

fn main() -> ExitCode {
    exit_code("chaos", run())
}

fn run() -> Result<ExitCode> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    help(&arguments, USAGE);
    let is_inside = take_flag(&mut arguments, network::INSIDE);
    let on_loopback = take_flag(&mut arguments, "--loopback");
    let mut no_network = on_loopback.then(|| "loopback was asked for".to_owned());
    if !is_inside && !on_loopback {
        match network::enter(&arguments) {
            Ok(code) => return Ok(ExitCode::from(code)),
            Err(reason) => no_network = Some(format!("no namespaces here: {reason}")),
        }
    }
    let gate = Gate::from_arguments("chaos", Duration::from_secs(330), &mut arguments)?;
    let seed = take_option(&mut arguments, "--seed")?.map_or(Ok(1), |seed| seed.parse())?;
    let keep = take_option(&mut arguments, "--keep")?.map_or_else(|| "chaos-failures".into(), PathBuf::from);
    let only = take_option(&mut arguments, "--only")?;
    if let Some(only) = &only {
        let names = sections::names();
        ensure!(names.contains(&only.as_str()), "there is no section {only}; there are {}", names.join(", "));
    }
    let is_soak = take_flag(&mut arguments, "--soak");
    let has_floors = take_flag(&mut arguments, "--floors");
    nothing_left(
        &arguments,
        "--seconds, --report, --seed, --keep, --only, --soak, --floors, --require, --loopback",
    )?;

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ground = match &no_network {
        None => Ground::Namespaces(Network::lay(churn::NODES)?),
        Some(reason) => {
            println!("{reason}: nodes run on loopback");
            Ground::Loopback
        }
    };
    let folder = sections::data_folder()?;
    let mut run = Run::new(gate, Arc::new(runtime), ground, folder.path(), &keep, seed);
    run.gate.can_require(&run.counts())?;
    run.no_network = no_network;
    run.has_floors = has_floors;
    sections::run_all(&mut run, only.as_deref(), is_soak);
    let (figures, counts) = (run.figures(), run.counts());
    Ok(run.gate.finish(&figures, &counts))
}
