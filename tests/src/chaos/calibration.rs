//! The same clients and checkers on a PostgreSQL of the machine: they must find it right at its levels, and must find
//! what its weaker levels are known to allow. Else a green run of ours would say nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::round::{Load, Working, judge};
use super::run::Run;
use super::workloads::transactions::{Shape, Transactions};
use super::workloads::{TABLES, Workload};
use crate::check::lists::{self, Level};
use crate::check::second::{self, Kind};
use crate::cluster::connect;
use crate::postgres::Postgres;

/// How long clients work per history.
const WORK: Duration = Duration::from_millis(900);

/// Histories that are tried until one shows what a level allows.
const TRIES: usize = 12;

/// Judges PostgreSQL.
///
/// # Errors
/// It does not run.
pub fn run_section(run: &mut Run, deadline: Instant, _is_soak: bool) -> Result<()> {
    if let Some(reason) = Postgres::is_missing() {
        run.gate.skipped("calibration", reason);
        return Ok(());
    }
    let server = Postgres::start(&run.folder, "deadlock_timeout=50ms\n")?;
    run.runtime.block_on(async {
        let client = connect(&server.target).await?;
        client.batch_execute(TABLES).await.context("the tables cannot be made")
    })?;
    for (kind, level) in [
        (Kind::Lists, Level::ReadCommitted),
        (Kind::Lists, Level::Snapshot),
        (Kind::Lists, Level::Serializable),
        (Kind::Registers, Level::Snapshot),
        (Kind::Registers, Level::Serializable),
    ] {
        if !run.goes_on(deadline) {
            break;
        }
        let part = format!("calibration {kind:?} {}", level.sql());
        if run.gate.is_done(&part) {
            continue;
        }
        match calibrate(run, &server, kind, level, &part) {
            Ok(Judged::Right(figures)) => run.gate.passed(&part, &figures),
            Ok(Judged::Wrong(wrong)) => {
                run.gate.skipped(&part, format!("PostgreSQL itself is not right here: {wrong}"));
            }
            Err(error) => run.gate.failed(&part, format!("{error:#}")),
        }
    }
    Ok(())
}

/// So many histories must be right after one that was not.
const RIGHT_AGAIN: usize = 3;

/// What PostgreSQL is at one level.
enum Judged {
    /// Right, with figures.
    Right(serde_json::Value),
    /// Not right, which says nothing of ours: see `docs/testing.md` for such a history.
    Wrong(String),
}

/// Histories of one level: all right at it, and, for lists, one of them wrong at the next. Registers hide the order of
/// their versions, so that it is a matter of luck whether what they show can be told.
fn calibrate(run: &mut Run, server: &Postgres, kind: Kind, level: Level, part: &str) -> Result<Judged> {
    let stronger = Level::ALL.into_iter().find(|other| *other > level && kind == Kind::Lists);
    let mut wrong_once = None;
    for turn in 1..=TRIES {
        let transactions = Arc::new(Transactions::new(run.history_number(), kind, level, Shape::Mixed));
        let loads = [Load { workload: Arc::clone(&transactions) as Arc<dyn Workload>, clients: 8 }];
        let targets = [server.target.clone()];
        let working = Working::start(&run.runtime, &targets, &loads, &mut run.random)?;
        std::thread::sleep(WORK);
        working.end()?;
        let verdict = match judge(&loads, &run.keep, &part.replace(' ', "-")) {
            Ok(verdict) => verdict,
            // It is known to be, there, once in a long while; elsewhere, or twice, it would be the checker.
            Err(wrong) if level == Level::Serializable && wrong_once.is_none() => {
                wrong_once = Some((turn, format!("{wrong:#}")));
                continue;
            }
            Err(wrong) => return Err(wrong),
        };
        run.count(1, &verdict);
        if let Some((wrong_turn, wrong)) = &wrong_once {
            if turn - wrong_turn < RIGHT_AGAIN {
                continue;
            }
            return Ok(Judged::Wrong(format!("one of {turn} histories: {wrong}")));
        }
        let operations = transactions.operations();
        let Some(stronger) = stronger else {
            return Ok(Judged::Right(json!({ "steps": verdict.steps, "right at": level.sql() })));
        };
        let theirs = second::check(&operations, kind, stronger).map_err(anyhow::Error::msg)?;
        let ours: Vec<String> =
            lists::check(&operations, stronger).into_iter().map(|found| found.name).collect();
        // They may name it differently, but must both find something, unless adya had to give up.
        ensure!(
            ours.is_empty() == theirs.is_empty() || theirs == ["unknown"],
            "ours finds {ours:?} and adya {theirs:?}"
        );
        if !ours.is_empty() {
            return Ok(Judged::Right(json!({
                "steps": verdict.steps, "right at": level.sql(), "histories": turn,
                "not": stronger.sql(), "because of": ours, "adya": theirs,
            })));
        }
    }
    bail!("PostgreSQL's {} showed nothing that {:?} forbids in {TRIES} histories", level.sql(), stronger)
}
