//! Statements of seeds on RustyDB and on PostgreSQL; see `docs/testing.md`.
//!
//! `differ [--seed N] [--seeds N] [--statements N] [--seconds N] [--report FILE] [--require statements=N]` starts both;
//! `--ours TARGET --theirs TARGET` uses servers that run.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use rustydb_tests::cluster::{Cluster, connect};
use rustydb_tests::differ;
use rustydb_tests::gate::{Gate, exit_code, help, nothing_left, take_option};
use rustydb_tests::postgres::Postgres;
use serde_json::json;

const USAGE: &str = "\
differ [--seed N] [--seeds N] [--statements N] [--seconds N] [--report FILE] [--require statements=N]
differ --ours TARGET --theirs TARGET ...";

const KNOWN: &str = "--seed, --seeds, --statements, --seconds, --report, --require, --ours, --theirs";

/// More than this share of the statements in which one side alone raised a data exception would hide too much.
const UNSETTLED_PERCENT_MAX: u64 = 12;

fn main() -> ExitCode {
    exit_code("differ", run())
}

fn run() -> Result<ExitCode> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    help(&arguments, USAGE);
    let mut gate = Gate::from_arguments("differ", Duration::from_secs(300), &mut arguments)?;
    gate.can_require(&[("statements", 0.0)])?;
    let number = |text: Option<String>, default: u64| -> Result<u64> {
        text.map_or(Ok(default), |text| text.parse().with_context(|| format!("{text} is no number")))
    };
    let (mut ours, mut theirs) =
        (take_option(&mut arguments, "--ours")?, take_option(&mut arguments, "--theirs")?);
    let first = number(take_option(&mut arguments, "--seed")?, 1)?;
    let seeds = number(take_option(&mut arguments, "--seeds")?, 5)?;
    let statements = number(take_option(&mut arguments, "--statements")?, 4000)?;
    nothing_left(&arguments, KNOWN)?;
    let folder = tempfile::tempdir()?;
    let mut servers = None;
    if ours.is_none() || theirs.is_none() {
        if let Some(reason) = Postgres::is_missing() {
            gate.skipped("differ", reason);
            return Ok(gate.finish("nothing was compared", &[("statements", 0.0)]));
        }
        let (cluster, postgres) = (Cluster::start(3)?, Postgres::start(folder.path(), "")?);
        ours = Some(cluster.node(1, "postgres"));
        theirs = Some(postgres.target.clone());
        servers = Some((cluster, postgres));
    }
    let (ours, theirs) = (ours.context("--ours is missing")?, theirs.context("--theirs is missing")?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (mut compared, mut alike, mut unsettled) = (0, 0, 0);
    for seed in first..first.saturating_add(seeds) {
        let done = runtime.block_on(async {
            let (ours, theirs) = (connect(&ours).await?, connect(&theirs).await?);
            differ::run(seed, usize::try_from(statements)?, &ours, &theirs).await
        });
        let part = format!("seed {seed}");
        let outcome = match done {
            Ok(outcome) => outcome,
            Err(error) => {
                gate.failed(&part, format!("{error:#}"));
                continue;
            }
        };
        compared += outcome.compared;
        alike += outcome.failed_alike;
        unsettled += outcome.unsettled;
        for difference in &outcome.differences {
            let sql = difference.statements.last().map_or("", String::as_str);
            gate.failed(
                &part,
                format!("{sql}\n  PostgreSQL {}\n  RustyDB    {}", difference.theirs, difference.ours),
            );
        }
        if outcome.unsettled * 100 > outcome.compared * UNSETTLED_PERCENT_MAX {
            gate.failed(
                &part,
                format!("{} of {} statements are unsettled", outcome.unsettled, outcome.compared),
            );
        } else if outcome.differences.is_empty() {
            gate.passed(&part, &json!({ "statements": outcome.compared, "unsettled": outcome.unsettled }));
        }
    }
    drop(servers);
    let figures = format!(
        "{compared} statements of {seeds} seeds, {alike} failed on both alike, {unsettled} unsettled"
    );
    Ok(gate.finish(&figures, &[("statements", compared as f64)]))
}
