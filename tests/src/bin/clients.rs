//! Real clients against a cluster of three nodes; see `docs/clients.md`. `scripts/clients.sh` installs them and runs this.
//!
//! `clients --installed DIR [--jdbc FILE] [--only NAME] [--seconds N] [--report FILE] [--require checks=N]`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use rustydb_tests::clients::{self, Clients};
use rustydb_tests::gate::{Gate, exit_code, help, nothing_left, take_option};

const USAGE: &str = "\
clients --installed DIR [--jdbc FILE] [--only NAME] [--seconds N] [--report FILE] [--require checks=N]";

const KNOWN: &str = "--installed, --jdbc, --only, --seconds, --report, --require";

fn main() -> ExitCode {
    exit_code("clients", run())
}

fn run() -> Result<ExitCode> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    help(&arguments, USAGE);
    let mut gate = Gate::from_arguments("clients", Duration::from_secs(300), &mut arguments)?;
    gate.can_require(&[("checks", 0.0)])?;
    let installed = take_option(&mut arguments, "--installed")?.context("--installed is missing")?;
    let jdbc = take_option(&mut arguments, "--jdbc")?;
    let only = take_option(&mut arguments, "--only")?;
    nothing_left(&arguments, KNOWN)?;
    let clients = Clients {
        installed: PathBuf::from(installed),
        jdbc: jdbc.map_or_else(|| PathBuf::from("/usr/share/java/postgresql.jar"), PathBuf::from),
    };
    clients::run(&mut gate, &clients, only.as_deref())?;
    let checks = gate.passed_count();
    Ok(gate.finish(
        &format!("{checks} checks of {} clients", clients::NAMES.len()),
        &[("checks", checks as f64)],
    ))
}
