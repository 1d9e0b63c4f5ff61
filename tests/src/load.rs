//! Writers that remember what they were told, and the check that the database remembers it too.
//!
//! Each writer inserts numbers of its own into a table without a primary key, one commit per number, and adds
//! one to a counter row in the same transaction. So a lost commit is a missing number, and a commit that
//! happened twice is a number that is there twice and a counter that is too high.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Statement};

use crate::cluster::connect;

/// How a commit ended, as its client knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The server said yes.
    Acknowledged,
    /// The server said no.
    Refused,
    /// The connection went first, or the server said that it cannot know.
    Unknown,
}

/// One writer's memory.
#[derive(Debug, Default)]
struct Memory {
    outcomes: BTreeMap<i64, &'static str>,
    acknowledged: BTreeSet<i64>,
    unknown: BTreeSet<i64>,
    /// When each acknowledgement came.
    times: Vec<Instant>,
}

/// A running load.
pub struct Load {
    memories: Vec<Arc<Mutex<Memory>>>,
    writers: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

/// What a load left behind in memory.
#[derive(Debug)]
pub struct Report {
    /// Acknowledged commits.
    pub acknowledged: usize,
    /// Commits whose outcome no client knows.
    pub unknown: usize,
    /// Rows in the table.
    pub rows: usize,
}

/// Creates the tables.
pub async fn prepare(client: &Client, writers: i64) -> Result<()> {
    client.batch_execute("CREATE TABLE history (writer bigint, number bigint)").await?;
    client.batch_execute("CREATE TABLE counters (writer bigint PRIMARY KEY, n bigint NOT NULL)").await?;
    for writer in 0..writers {
        client.execute("INSERT INTO counters VALUES ($1, 0)", &[&writer]).await?;
    }
    Ok(())
}

impl Load {
    /// Starts writers that use the connection string `target` and connect again whenever they must.
    pub fn start(target: &str, writers: i64) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let mut load = Load { memories: Vec::new(), writers: Vec::new(), stop: Arc::clone(&stop) };
        for writer in 0..writers {
            let memory: Arc<Mutex<Memory>> = Arc::default();
            load.memories.push(Arc::clone(&memory));
            let (target, stop) = (target.to_owned(), Arc::clone(&stop));
            load.writers.push(tokio::spawn(async move { write(&target, writer, &memory, &stop).await }));
        }
        load
    }

    /// Acknowledged commits so far.
    pub fn acknowledged(&self) -> usize {
        self.memories.iter().map(|memory| lock(memory).times.len()).sum()
    }

    /// Longest time without any acknowledgement of one writer in a window, over all writers. A writer that has
    /// none until the end of the window counts until then.
    pub fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let gap = |memory: &Arc<Mutex<Memory>>| {
            let memory = lock(memory);
            let inside = memory.times.iter().copied().filter(|at| (from..to).contains(at));
            let marks: Vec<Instant> = std::iter::once(from).chain(inside).chain([to]).collect();
            marks.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
        };
        self.memories.iter().map(gap).max().unwrap_or_default()
    }

    /// Waits until every writer has had an acknowledgement after `since`.
    pub async fn wait_for_progress(&self, since: Instant, patience: Duration) -> Result<Instant> {
        let deadline = Instant::now() + patience;
        loop {
            let first =
                |memory: &Arc<Mutex<Memory>>| lock(memory).times.iter().copied().find(|at| *at > since);
            let firsts: Option<Vec<Instant>> = self.memories.iter().map(first).collect();
            if let Some(firsts) = firsts {
                return firsts.into_iter().max().context("no writers");
            }
            ensure!(Instant::now() < deadline, "a writer got no acknowledgement in {patience:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Stops the writers and compares what they were told with what is there.
    ///
    /// # Errors
    /// Something acknowledged is missing, something is there twice, or something refused is there.
    pub async fn finish(self, client: &Client) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await?;
        }
        let mut report = Report { acknowledged: 0, unknown: 0, rows: 0 };
        for (writer, memory) in self.memories.iter().enumerate() {
            let writer = i64::try_from(writer)?;
            // The writers have ended, so nobody else looks at it.
            let memory = std::mem::take(&mut *lock(memory));
            let rows = client.query("SELECT number FROM history WHERE writer = $1", &[&writer]).await?;
            let mut found: BTreeMap<i64, usize> = BTreeMap::new();
            for row in &rows {
                *found.entry(row.get(0)).or_default() += 1;
            }
            let missing: Vec<&i64> = memory.acknowledged.iter().filter(|n| !found.contains_key(n)).collect();
            ensure!(missing.is_empty(), "writer {writer}: acknowledged and missing: {missing:?}");
            let doubled: Vec<_> = found.iter().filter(|(_, count)| **count > 1).collect();
            ensure!(doubled.is_empty(), "writer {writer}: there more than once: {doubled:?}");
            let strange: Vec<_> = found
                .keys()
                .filter(|n| !memory.acknowledged.contains(n) && !memory.unknown.contains(n))
                .map(|n| (n, memory.outcomes.get(n)))
                .collect();
            ensure!(strange.is_empty(), "writer {writer}: refused and there: {strange:?}");
            let counter: i64 =
                client.query_one("SELECT n FROM counters WHERE writer = $1", &[&writer]).await?.get(0);
            ensure!(
                usize::try_from(counter)? == rows.len(),
                "writer {writer}: {} rows, counter {counter}",
                rows.len()
            );
            report.acknowledged += memory.acknowledged.len();
            report.unknown += memory.unknown.len();
            report.rows += rows.len();
        }
        Ok(report)
    }
}

fn lock(memory: &Mutex<Memory>) -> std::sync::MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

struct Session {
    client: Client,
    insert: Statement,
    update: Statement,
}

async fn open(target: &str) -> Result<Session> {
    let client = connect(target).await?;
    let insert = client.prepare("INSERT INTO history VALUES ($1, $2)").await?;
    let update = client.prepare("UPDATE counters SET n = n + 1 WHERE writer = $1").await?;
    Ok(Session { client, insert, update })
}

async fn write(target: &str, writer: i64, memory: &Mutex<Memory>, stop: &AtomicBool) {
    let mut session: Option<Session> = None;
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let Some(open_session) = &mut session else {
            match open(target).await {
                Ok(fresh) => session = Some(fresh),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
            continue;
        };
        number += 1;
        let outcome =
            match tokio::time::timeout(Duration::from_secs(20), commit(open_session, writer, number)).await {
                Ok(Ok(())) => Outcome::Acknowledged,
                Ok(Err((outcome, lost))) => {
                    if lost {
                        session = None;
                    }
                    outcome
                }
                Err(_) => {
                    session = None;
                    Outcome::Unknown
                }
            };
        let mut memory = lock(memory);
        match outcome {
            Outcome::Acknowledged => {
                memory.acknowledged.insert(number);
                memory.times.push(Instant::now());
            }
            Outcome::Refused => {
                memory.outcomes.insert(number, "refused");
            }
            Outcome::Unknown => {
                memory.unknown.insert(number);
            }
        }
    }
}

/// One transaction. The error says how it ended and whether the connection is of no more use.
async fn commit(session: &mut Session, writer: i64, number: i64) -> Result<(), (Outcome, bool)> {
    let before =
        |error: tokio_postgres::Error| (Outcome::Refused, error.is_closed() || error.as_db_error().is_none());
    let transaction = session.client.transaction().await.map_err(before)?;
    transaction.execute(&session.insert, &[&writer, &number]).await.map_err(before)?;
    transaction.execute(&session.update, &[&writer]).await.map_err(before)?;
    transaction.commit().await.map_err(|error| match error.as_db_error() {
        Some(said) if said.code().code() == "08007" => (Outcome::Unknown, false),
        Some(said) if said.code().code().starts_with("57P") => (Outcome::Unknown, true),
        Some(_) => (Outcome::Refused, false),
        None => (Outcome::Unknown, true),
    })
}
