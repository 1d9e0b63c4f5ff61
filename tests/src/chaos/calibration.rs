//! The same clients and checkers on a PostgreSQL of the machine: they must find it right at its levels, and must find
//! what its weaker levels are known to allow. Else a green run of ours would say nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
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
use crate::cluster::{PATIENCE, connect, text};
use crate::server::finish;

/// How long clients work per history.
const WORK: Duration = Duration::from_millis(900);

/// Histories that are tried until one shows what a level allows.
const TRIES: usize = 12;

/// A PostgreSQL server of this run.
struct Postgres {
    programs: PathBuf,
    data: PathBuf,
    target: String,
}

impl Postgres {
    /// Where its programs are, if they are.
    fn programs() -> Option<PathBuf> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
        versions
            .flatten()
            .map(|version| version.path().join("bin"))
            .find(|folder| folder.join("initdb").exists())
    }

    /// Makes a database cluster in a folder and starts it, as the user `postgres`: it does not run as root.
    fn start(programs: PathBuf, folder: &Path) -> Result<Self> {
        let folder = folder.join("postgresql");
        std::fs::create_dir(&folder)?;
        let data = folder.join("data");
        // The folders of a run are the owner's alone; this user must reach its own below them.
        for above in folder.ancestors().skip(1).take(1) {
            let mut command = Command::new("chmod");
            command.arg("a+x").arg(above);
            run(command)?;
        }
        let mut command = Command::new("chown");
        command.arg("postgres").arg(&folder);
        run(command)?;
        let port = 15_990;
        let server = Self {
            programs,
            data,
            target: format!("host=127.0.0.1 port={port} user=postgres dbname=postgres connect_timeout=5"),
        };
        server.run("initdb", &["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-N"])?;
        let settings = format!(
            "port={port}\nlisten_addresses='127.0.0.1'\nunix_socket_directories=''\nfsync=off\nshared_buffers=32MB\n\
             deadlock_timeout=50ms\n"
        );
        let file = server.data.join("postgresql.conf");
        std::fs::write(&file, std::fs::read_to_string(&file)? + &settings)?;
        let log = folder.join("log").display().to_string();
        server.run("pg_ctl", &["-w", "-l", &log, "start"])?;
        Ok(server)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
        command.arg(self.programs.join(program)).arg("-D").arg(&self.data).args(arguments).current_dir("/");
        run(command)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // If it does not stop, it ends with the run's processes.
        let _stopped = self.run("pg_ctl", &["-w", "-m", "immediate", "stop"]);
    }
}

fn run(command: Command) -> Result<()> {
    let said = format!("{command:?}");
    let output = finish(command, PATIENCE)?;
    ensure!(output.status.success(), "{said}: {}", text(&output));
    Ok(())
}

/// Judges PostgreSQL.
///
/// # Errors
/// It does not run.
pub fn run_section(run: &mut Run, deadline: Instant, _is_soak: bool) -> Result<()> {
    let impossible = match (Postgres::programs(), rustix::process::geteuid().is_root()) {
        (None, _) => Some("PostgreSQL is not installed"),
        (_, false) => Some("only root can start PostgreSQL as another user"),
        _ => None,
    };
    if let Some(reason) = impossible {
        run.gate.skipped("calibration", reason);
        return Ok(());
    }
    let server = Postgres::start(Postgres::programs().context("it was there")?, &run.folder)?;
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
