//! Kills the leader of a `rustydb dev` cluster again and again under load and proves that nothing was lost.
//!
//! Writers insert rows with numbers of their own, one autocommit statement each, through a connection string
//! that names every node; the first host that answers is used, as a driver would. A row counts as acknowledged
//! when the server has said so; an INSERT whose connection broke before the answer is *unknown* and its number
//! is never used again. The table has no unique constraint, so that a doubled row would show.
//!
//! ```text
//!   for each round:  find the leader of the database → kill -9 → wait until writes go on → start it again
//!                    → wait until every node is ready
//!   at the end:      acknowledged numbers missing = LOST, numbers present twice = DOUBLED
//! ```
//!
//! The gap of a round is the longest time between two acknowledged writes of any writer around the kill.
//! Exits with 1 when a row was lost or doubled or a wait ran out.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio_postgres::{Client, Config, NoTls};

/// A connection attempt or one INSERT must end within this; then the writer tries the next host.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// A cluster that does not come back within this has failed the test.
const RECOVERY_DEADLINE: Duration = Duration::from_secs(60);

struct Options {
    kills: usize,
    writers: u64,
    nodes: u16,
    base_port: u16,
    data: PathBuf,
    programs: PathBuf,
    json: Option<PathBuf>,
}

const USAGE: &str = "usage: kill-leader --data DIR --base-port PORT --programs DIR [--nodes 3] [--kills 50] \
                     [--writers 8] [--json FILE]";

impl Options {
    fn parse() -> Result<Options> {
        let mut values: HashMap<String, String> = HashMap::new();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.strip_prefix("--") {
                Some(name) => {
                    let value =
                        arguments.next().with_context(|| format!("--{name} needs a value\n{USAGE}"))?;
                    values.insert(name.to_owned(), value);
                }
                None => bail!("unexpected argument {argument}\n{USAGE}"),
            }
        }
        let mut take = |name: &str, default: Option<&str>| {
            values
                .remove(name)
                .or(default.map(str::to_owned))
                .with_context(|| format!("--{name} is missing\n{USAGE}"))
        };
        let options = Options {
            kills: take("kills", Some("50"))?.parse()?,
            writers: take("writers", Some("8"))?.parse()?,
            nodes: take("nodes", Some("3"))?.parse()?,
            base_port: take("base-port", None)?.parse()?,
            data: take("data", None)?.into(),
            programs: take("programs", None)?.into(),
            json: values.remove("json").map(PathBuf::from),
        };
        if let Some(unknown) = values.keys().next() {
            bail!("unknown option --{unknown}\n{USAGE}");
        }
        Ok(options)
    }

    fn config(&self, first: u16) -> Config {
        let mut config = Config::new();
        for step in 0..self.nodes {
            let number = 1 + (first + step) % self.nodes;
            config.host("127.0.0.1").port(self.base_port + number);
        }
        config.user("postgres").dbname("postgres").connect_timeout(ATTEMPT_TIMEOUT);
        config
    }

    fn cli(&self, number: u16, arguments: &[&str]) -> Result<serde_json::Value> {
        let output = Command::new(self.programs.join("rustydb-cli"))
            .args(["--host", "127.0.0.1", "--port", &(self.base_port + 100 + number).to_string(), "--json"])
            .args(arguments)
            .output()?;
        if !output.status.success() {
            bail!("rustydb-cli: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The node that leads the database `postgres`, as some living node knows it.
    fn leader(&self) -> Result<u16> {
        for number in 1..=self.nodes {
            let Ok(status) = self.cli(number, &["cluster", "status"]) else { continue };
            let leader = status["databases"]
                .as_array()
                .and_then(|databases| databases.iter().find(|database| database["name"] == "postgres"))
                .and_then(|database| database["leader"].as_u64());
            if let Some(leader) = leader.filter(|leader| *leader > 0) {
                return Ok(u16::try_from(leader)?);
            }
        }
        bail!("no node knows a leader")
    }

    fn process_id(&self, number: u16) -> Result<String> {
        let path = self.data.join(format!("node-{number}")).join("rustydb.pid");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.lines().next().unwrap_or_default().trim().to_owned())
    }

    fn kill(&self, number: u16) -> Result<()> {
        let process_id = self.process_id(number)?;
        let status = Command::new("kill").args(["-9", &process_id]).status()?;
        if !status.success() {
            bail!("kill -9 {process_id} failed");
        }
        Ok(())
    }

    fn start(&self, number: u16) -> Result<()> {
        let status = Command::new(self.programs.join("rustydb"))
            .args(["dev", "--data", &self.data.display().to_string(), "--start-node", &number.to_string()])
            .stdout(Stdio::null())
            .status()?;
        if !status.success() {
            bail!("rustydb dev --start-node {number} failed");
        }
        Ok(())
    }

    /// Whether node `number` says that it can serve.
    fn is_ready(&self, number: u16) -> bool {
        self.cli(number, &["node", "info", &number.to_string()])
            .is_ok_and(|info| info["ready"] == serde_json::Value::Bool(true))
    }
}

/// What the writers share.
struct Load {
    running: AtomicBool,
    acknowledged_count: AtomicU64,
    /// Acknowledged numbers and the moments of acknowledgement since the start.
    acknowledged: Mutex<Vec<(i64, Duration)>>,
    unknown: Mutex<Vec<i64>>,
    refused_count: AtomicU64,
    start: Instant,
}

async fn connect(options: &Options, first: u16) -> Result<Client> {
    let (client, connection) =
        tokio::time::timeout(ATTEMPT_TIMEOUT, options.config(first).connect(NoTls)).await??;
    tokio::spawn(connection);
    Ok(client)
}

async fn write(options: Arc<Options>, load: Arc<Load>, writer: u64) {
    let mut number = i64::try_from(writer).unwrap_or(0) << 40;
    let mut first = u16::try_from(writer).unwrap_or(0);
    let mut client: Option<Client> = None;
    while load.running.load(Ordering::Relaxed) {
        let Some(open) = client.as_ref().filter(|client| !client.is_closed()) else {
            first = first.wrapping_add(1);
            client = connect(&options, first).await.ok();
            if client.is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            continue;
        };
        number += 1;
        let statement = format!("INSERT INTO kill_probe (id) VALUES ({number})");
        match tokio::time::timeout(ATTEMPT_TIMEOUT, open.batch_execute(&statement)).await {
            Ok(Ok(())) => {
                load.acknowledged_count.fetch_add(1, Ordering::Relaxed);
                load.acknowledged.lock().expect("no writer panics").push((number, load.start.elapsed()));
            }
            // The server said no: the row must not be there. Anything else leaves it unknown.
            Ok(Err(error)) if error.code().is_some_and(|code| !code.code().starts_with("08")) => {
                load.refused_count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(Err(_)) | Err(_) => {
                load.unknown.lock().expect("no writer panics").push(number);
                client = None;
            }
        }
    }
}

async fn until(what: &str, deadline: Duration, mut holds: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > deadline {
            bail!("waited {deadline:?} in vain until {what}");
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    Ok(())
}

/// One kill; returns the longest gap between acknowledged writes around it.
async fn round(options: &Options, load: &Load) -> Result<Duration> {
    let killed = options.leader()?;
    let from = load.start.elapsed();
    options.kill(killed)?;
    // 200 acknowledged writes after the kill mean that service is back, not just one early bird.
    let before = load.acknowledged_count.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(50)).await;
    until("writes go on after the kill", RECOVERY_DEADLINE, || {
        load.acknowledged_count.load(Ordering::Relaxed) > before + 200
    })
    .await?;
    let gap = gap_since(load, from);
    options.start(killed)?;
    until("every node is ready", RECOVERY_DEADLINE, || {
        (1..=options.nodes).all(|number| options.is_ready(number))
    })
    .await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    println!("killed node {killed}: {} ms without a write", gap.as_millis());
    Ok(gap)
}

fn gap_since(load: &Load, from: Duration) -> Duration {
    let acknowledged = load.acknowledged.lock().expect("no writer panics");
    let mut moments: Vec<Duration> =
        acknowledged.iter().rev().map(|(_, moment)| *moment).take_while(|moment| *moment >= from).collect();
    moments.push(from);
    moments.sort();
    moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

#[derive(Debug, Default)]
struct Verdict {
    lost: Vec<i64>,
    doubled: Vec<i64>,
    /// Rows whose INSERT was refused by the server and that are there all the same.
    unasked: Vec<i64>,
    present_count: usize,
}

async fn verify(options: &Options, load: &Load) -> Result<Verdict> {
    let client = connect(options, 0).await.context("no node takes a connection at the end")?;
    let rows = client.query("SELECT id FROM kill_probe", &[]).await?;
    let mut present: HashMap<i64, usize> = HashMap::new();
    for row in &rows {
        *present.entry(row.get(0)).or_default() += 1;
    }
    let acknowledged = load.acknowledged.lock().expect("writers have ended");
    let unknown = load.unknown.lock().expect("writers have ended");
    let expected: std::collections::HashSet<i64> =
        acknowledged.iter().map(|(number, _)| *number).chain(unknown.iter().copied()).collect();
    Ok(Verdict {
        lost: acknowledged
            .iter()
            .map(|(number, _)| *number)
            .filter(|number| !present.contains_key(number))
            .collect(),
        doubled: present.iter().filter(|(_, count)| **count > 1).map(|(number, _)| *number).collect(),
        unasked: present.keys().copied().filter(|number| !expected.contains(number)).collect(),
        present_count: rows.len(),
    })
}

fn report(options: &Options, load: &Load, gaps: &mut [Duration], verdict: &Verdict) -> Result<()> {
    gaps.sort();
    let median = gaps.get(gaps.len() / 2).copied().unwrap_or_default();
    let longest = gaps.last().copied().unwrap_or_default();
    let acknowledged = load.acknowledged_count.load(Ordering::Relaxed);
    let unknown = load.unknown.lock().expect("writers have ended").len();
    println!(
        "kills {}  acknowledged {acknowledged}  unknown {unknown}  refused {}  rows {}",
        gaps.len(),
        load.refused_count.load(Ordering::Relaxed),
        verdict.present_count
    );
    println!(
        "lost {}  doubled {}  refused but there {}",
        verdict.lost.len(),
        verdict.doubled.len(),
        verdict.unasked.len()
    );
    println!("gap: median {} ms, longest {} ms", median.as_millis(), longest.as_millis());
    if let Some(path) = &options.json {
        let value = serde_json::json!({
            "kills": gaps.len(), "acknowledged": acknowledged, "unknown": unknown,
            "lost": verdict.lost.len(), "doubled": verdict.doubled.len(), "refused_but_there": verdict.unasked.len(),
            "gap_ms_median": u64::try_from(median.as_millis())?, "gap_ms_max": u64::try_from(longest.as_millis())?,
        });
        write_json(path, &value)?;
    }
    Ok(())
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    std::fs::write(path, format!("{value:#}\n")).with_context(|| path.display().to_string())
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Arc::new(Options::parse()?);
    let setup = connect(&options, 0).await.context("no node takes a connection")?;
    setup
        .batch_execute("DROP TABLE IF EXISTS kill_probe; CREATE TABLE kill_probe (id bigint NOT NULL)")
        .await?;
    drop(setup);
    let load = Arc::new(Load {
        running: AtomicBool::new(true),
        acknowledged_count: AtomicU64::new(0),
        acknowledged: Mutex::default(),
        unknown: Mutex::default(),
        refused_count: AtomicU64::new(0),
        start: Instant::now(),
    });
    let writers: Vec<_> = (1..=options.writers)
        .map(|writer| tokio::spawn(write(options.clone(), load.clone(), writer)))
        .collect();
    let mut gaps = Vec::new();
    let mut failure = None;
    for _ in 0..options.kills {
        match round(&options, &load).await {
            Ok(gap) => gaps.push(gap),
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    load.running.store(false, Ordering::Relaxed);
    for writer in writers {
        writer.await?;
    }
    let verdict = verify(&options, &load).await?;
    report(&options, &load, &mut gaps, &verdict)?;
    if let Some(error) = failure {
        return Err(error);
    }
    if !(verdict.lost.is_empty() && verdict.doubled.is_empty() && verdict.unasked.is_empty()) {
        bail!("rows are wrong: {verdict:?}");
    }
    Ok(())
}
