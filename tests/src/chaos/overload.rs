//! Ten times as many clients as the cluster's peak needs: it must go on at its pace, within its bounds, and an operator
//! must get through.
//!
//! The peak is the best that is seen with two numbers of clients; the overload is ten times those that reached it. Half of
//! the time is overload: a minute in the gate, as with `--only overload --seconds 125`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::nodes::{Nodes, Setup};
use super::round::{Load, Working, judge, last_look};
use super::run::Run;
use super::workloads::Verdict;
use super::workloads::set::Set;

/// Numbers of clients of which one keeps the cluster busy: few wait for the disk, many share its syncs.
const CLIENTS: [usize; 2] = [24, 240];

/// How many times as many there are then.
const TIMES: usize = 10;

/// Room for a third of the most of them at each node, and for the operator.
const CONFIGURATION: &str = "[session]\nmax_connections = 1000\n";

/// Bound of a group's proposals, as in the default configuration.
const UNCOMMITTED_MAX: f64 = 100_000.0;

/// Memory that a node may take: what it plans with (256 MiB), its code, its threads and its connections.
const MEMORY_MAX_MIB: u64 = 700;

/// Acknowledged writes per second in the overload, as a part of the peak.
const GOODPUT_MIN: f64 = 0.7;

/// 99 of 100 of an operator's commands and new queries take no longer.
const OPERATOR_P99_MAX_MS: u64 = 1000;

/// What was seen of the nodes while clients worked.
#[derive(Clone, Debug, Default)]
struct Seen {
    operator: Vec<Duration>,
    queries: Vec<Duration>,
    uncommitted: f64,
    memory_mib: u64,
}

/// An overload that broke no bound and no promise.
struct Weathered {
    histories: usize,
    verdict: Verdict,
    figures: Value,
    /// Which floor of speed it fell below.
    missed: Option<String>,
}

/// Runs the part.
///
/// # Errors
/// The cluster does not come up.
pub fn run(run: &mut Run, deadline: Instant, is_soak: bool) -> Result<()> {
    let part = "overload";
    if run.gate.is_done(part) || !run.goes_on(deadline) {
        return Ok(());
    }
    let nodes = run.cluster(3, 0, &Setup { configuration: CONFIGURATION.to_owned(), ..Setup::default() })?;
    let time = if is_soak { Duration::from_secs(3600) } else { Duration::from_secs(125) };
    // A quarter of the time shows the peak, half of it is overload, and the rest for what follows.
    let left = deadline.saturating_duration_since(Instant::now()).min(time);
    let result = overload(run, &nodes, left / 8, left / 2);
    match result {
        Ok(Weathered { histories, verdict, figures, missed: Some(missed) }) if run.has_floors => {
            run.count(histories, &verdict);
            run.fail(part, &nodes, &anyhow::anyhow!("{missed}: {figures}"));
        }
        Ok(Weathered { histories, verdict, figures, missed }) => {
            run.count(histories, &verdict);
            run.gate.passed(part, &figures);
            if let Some(missed) = missed {
                // On a machine that others use this may say nothing of the product.
                run.gate.skipped(
                    "floors of the overload",
                    format!("without --floors they are not held: {missed}"),
                );
            }
        }
        Err(error) => run.fail(part, &nodes, &error),
    }
    Ok(())
}

fn overload(run: &mut Run, nodes: &Nodes, calm: Duration, storm: Duration) -> Result<Weathered> {
    let mut all = Vec::new();
    let (mut peak, mut at) = (0.0, 0);
    for clients in CLIENTS {
        let (goodput, _) = work(run, nodes, clients, calm, &mut all)?;
        println!("overload: {clients} clients, {} commits per second", goodput.round());
        if goodput > peak {
            (peak, at) = (goodput, clients);
        }
    }
    let (goodput, mut seen) = work(run, nodes, at * TIMES, storm, &mut all)?;
    last_look(&run.runtime, nodes, &all)?;
    let verdict = judge(&all, &run.keep, "overload")?;
    let ratio = goodput / peak;
    let (operator, queries) = (percentiles(&mut seen.operator), percentiles(&mut seen.queries));
    let figures = json!({
        "clients": [at, at * TIMES],
        "commits_per_second": [peak.round(), goodput.round()],
        "goodput_percent_of_peak": (ratio * 100.0).round(),
        "operator_command_ms_p50_p99": operator,
        "operator_query_ms_p50_p99": queries,
        "uncommitted_entries_max": seen.uncommitted,
        "memory_mib_max": seen.memory_mib,
    });
    println!("overload: {figures}");
    ensure!(seen.uncommitted <= UNCOMMITTED_MAX, "a queue went beyond its bound: {figures}");
    ensure!(seen.memory_mib <= MEMORY_MAX_MIB, "a node took too much memory: {figures}");
    let slowest = operator[1].max(queries[1]);
    let missed = if ratio < GOODPUT_MIN {
        Some("the overload broke the throughput".to_owned())
    } else if slowest > OPERATOR_P99_MAX_MS {
        Some(format!("an operator waits for {slowest} ms"))
    } else {
        None
    };
    Ok(Weathered { histories: all.len(), verdict, figures, missed })
}

/// Lets clients work for some time; gives their acknowledged writes per second and what was seen meanwhile.
fn work(
    run: &mut Run,
    nodes: &Nodes,
    clients: usize,
    time: Duration,
    all: &mut Vec<Load>,
) -> Result<(f64, Seen)> {
    let loads = vec![Load { workload: Arc::new(Set::new(run.history_number())), clients }];
    let working = Working::start(&run.runtime, &nodes.targets(), &loads, &mut run.random)?;
    // All are connected, and the first of them have their plans.
    working.wait_for(clients)?;
    let (before, started) = (working.progress.count(), Instant::now());
    let seen = watch(run, nodes, time)?;
    let count = working.progress.count() - before;
    let goodput = count as f64 / started.elapsed().as_secs_f64();
    println!("overload: {clients} clients were told {:?}", working.progress.errors());
    working.end()?;
    all.extend(loads);
    Ok((goodput, seen))
}

/// Looks at the nodes as an operator does, again and again.
fn watch(run: &Run, nodes: &Nodes, time: Duration) -> Result<Seen> {
    let mut seen = Seen::default();
    let (stop, end) = (AtomicBool::new(false), Instant::now() + time);
    let target = nodes.server(1)?.target("postgres");
    // One round of commands takes about as long as a process needs to start, so a thread of its own asks by SQL.
    let queries = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let (mut times, mut is_answered) = (Vec::new(), false);
            while !stop.load(Ordering::Relaxed) {
                let started = Instant::now();
                let answered: Result<()> = run.runtime.block_on(async {
                    let client = crate::cluster::connect(&target).await?;
                    client.query_one("SELECT count(*) FROM pg_stat_activity", &[]).await?;
                    Ok(())
                });
                // It waits in one queue with all others; one that had no connection in time counts with its time.
                is_answered |= answered.is_ok();
                times.push(started.elapsed());
                std::thread::sleep(Duration::from_millis(50));
            }
            ensure!(is_answered, "no query of the operator was answered");
            Ok::<_, anyhow::Error>(times)
        });
        let mut looked = || -> Result<()> {
            while Instant::now() < end {
                let started = Instant::now();
                nodes.server(1)?.cli_json(&["cluster", "status"])?;
                seen.operator.push(started.elapsed());
                for node in nodes.numbers() {
                    let server = nodes.server(node)?;
                    let (_, metrics) = server.get("/metrics")?;
                    seen.uncommitted =
                        seen.uncommitted.max(largest(&metrics, "rustydb_consensus_uncommitted_entries"));
                    seen.memory_mib = seen.memory_mib.max(memory_mib(server.pid()?)?);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        };
        let watched = looked();
        stop.store(true, Ordering::Relaxed);
        let times = asking.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the operator panicked")));
        watched.and(times)
    });
    seen.queries = queries?;
    Ok(seen)
}

/// The largest value of a metric, over its labels.
fn largest(metrics: &str, name: &str) -> f64 {
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).fold(0.0, f64::max)
}

/// Memory that a process has in use.
fn memory_mib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024)
}

/// The middle and the 99th percentile, in milliseconds.
fn percentiles(times: &mut [Duration]) -> [u64; 2] {
    times.sort_unstable();
    [50, 99].map(|percent| {
        let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        times.get(at).map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    })
}
