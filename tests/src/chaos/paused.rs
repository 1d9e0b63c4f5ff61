//! The leader is stopped until another leads, a write is acknowledged there, and the old one goes on with strong reads in
//! its sockets: whatever it answers at that moment must have seen the write (etcd's issue 20418 was this).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::runtime::Runtime;

use super::nodes::{Nodes, RECOVERY};
use crate::cluster::connect;

/// Clients of the leader that read when it wakes up.
const READERS: usize = 4;

/// Longest wait for an answer of a leader that woke up.
const ANSWER: Duration = Duration::from_secs(15);

/// Key in `registers` that no history uses.
const KEY: i64 = -1;

/// What the readers were answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answers {
    /// The new value.
    pub fresh: usize,
    /// An error: that is allowed.
    pub errors: usize,
}

/// Does it once. The leader stands still for `at_least` and until another leads.
///
/// # Errors
/// A read was stale, or none was answered, or no other leader was found.
pub fn try_once(runtime: &Runtime, nodes: &Nodes, at_least: Duration) -> Result<Answers> {
    let old = nodes.leader()?;
    let target = nodes.server(old)?.target("postgres");
    let stamp: i64 = runtime.block_on(async {
        let client = connect(&target).await?;
        let next = "INSERT INTO registers (k, v) VALUES ($1, 0) \
                    ON CONFLICT (k) DO UPDATE SET v = registers.v + 1 RETURNING v";
        Ok::<_, anyhow::Error>(client.query_one(next, &[&KEY]).await?.get(0))
    })?;
    let readers = runtime.block_on(async {
        let mut readers = Vec::new();
        for _ in 0..READERS {
            let reader = connect(&target).await?;
            // So that the session, its plan and its lease are warm.
            let select = reader.prepare("SELECT v FROM registers WHERE k = $1").await?;
            let seen: i64 = reader.query_one(&select, &[&KEY]).await?.get(0);
            ensure!(seen == stamp, "a read saw {seen} when {stamp} was acknowledged");
            readers.push((reader, select));
        }
        Ok(readers)
    })?;
    nodes.signal(old, "STOP")?;
    let stopped = Instant::now();
    let written = write_elsewhere(runtime, nodes, old, stamp + 1);
    std::thread::sleep(at_least.saturating_sub(stopped.elapsed()));
    // The reads are in the sockets before the process goes on.
    let reading: Vec<_> = readers
        .into_iter()
        .map(|(reader, select)| {
            runtime.spawn(async move {
                let read = reader.query_one(&select, &[&KEY]);
                let answer = tokio::time::timeout(ANSWER, read).await;
                answer.ok().and_then(Result::ok).map(|row| row.get::<_, i64>(0))
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(20));
    nodes.signal(old, "CONT")?;
    written?;
    let mut answers = Answers::default();
    for reading in reading {
        match runtime.block_on(reading)? {
            None => answers.errors += 1,
            Some(seen) if seen == stamp + 1 => answers.fresh += 1,
            Some(seen) => bail!(
                "STALE: node {old}, which was stopped, answered {seen} after {} was acknowledged",
                stamp + 1
            ),
        }
    }
    // That nothing was stale says something only if something was answered.
    ensure!(
        answers.fresh > 0,
        "none of {} reads at node {old}, which was stopped, was answered",
        answers.errors
    );
    Ok(answers)
}

/// Writes by a node that is not stopped, until it is acknowledged that the value is there.
fn write_elsewhere(runtime: &Runtime, nodes: &Nodes, stopped: u16, value: i64) -> Result<()> {
    let others: Vec<String> = nodes
        .numbers()
        .filter(|node| *node != stopped)
        .map(|node| Ok(nodes.server(node)?.target("postgres")))
        .collect::<Result<_>>()?;
    let deadline = Instant::now() + RECOVERY;
    let mut last = String::new();
    for target in others.iter().cycle() {
        ensure!(Instant::now() < deadline, "no other node takes a write: {last}");
        let tried: Result<u64> = runtime.block_on(async {
            let client = connect(target).await?;
            let set = "UPDATE registers SET v = $2 WHERE k = $1";
            let setting = async { client.execute(set, &[&KEY, &value]).await };
            Ok(tokio::time::timeout(Duration::from_secs(5), setting).await.context("no answer in 5 s")??)
        });
        match tried {
            Ok(1) => return Ok(()),
            Ok(rows) => bail!("{rows} rows were set"),
            Err(error) => last = error.to_string(),
        }
    }
    bail!("there is no other node")
}
