//! Writers of one life of a cluster, what they were told, and whether the tables say the same.
//!
//! Each transaction of a writer puts three rows in, or takes three of its own out again, and counts itself in the
//! writer's row of `counters`. The rows bear the number of the life, so a life is judged by its own rows; once it is
//! judged, what is there must stay there, and lives that are judged are counted again later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Statement};

use super::Dice;
use crate::cluster::connect;

/// Rows that a transaction puts in.
pub const PARTS: i64 = 3;

/// What a writer knows about one of its transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Its rows must be there.
    Present,
    /// Its rows must not be there.
    Absent,
    /// All or none; the commit that put them in was not answered.
    Unknown,
    /// All or none; they were there, and the commit that took them out was not answered.
    MaybeRemoved,
}

/// What writers of one life were told.
#[derive(Debug, Default)]
struct Told {
    fates: BTreeMap<(i64, i64), Fate>,
    /// Commits that were acknowledged, by writer: what its counter must have grown by, unknown ones apart.
    counted: BTreeMap<i64, i64>,
    /// Tables that were created, and whether that was acknowledged.
    tables: BTreeMap<String, bool>,
    acknowledged: u64,
    unknown: u64,
}

/// The writers of one life.
pub struct Life {
    number: i64,
    told: Arc<Mutex<Told>>,
    writers: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

/// What a life came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Judged {
    /// Acknowledged commits.
    pub acknowledged: u64,
    /// Commits without an answer.
    pub unknown: u64,
    /// Of these, commits that took place.
    pub unknown_kept: u64,
    /// Rows of the life that are there.
    pub rows: u64,
}

/// What earlier lives left, by life: rows and the sum of their numbers. And where each writer's counter stands.
#[derive(Debug, Default)]
pub struct Ledger {
    lives: BTreeMap<i64, (i64, i64)>,
    counters: BTreeMap<i64, i64>,
    tables: BTreeSet<String>,
    next_life: i64,
}

fn lock(told: &Mutex<Told>) -> std::sync::MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// Creates the tables.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn prepare(client: &Client, writers: i64) -> Result<Ledger> {
        client
            .batch_execute(
                "CREATE TABLE rows (life bigint, writer bigint, number bigint, part bigint, filler text,
                     PRIMARY KEY (life, writer, number, part));
                 CREATE INDEX rows_number ON rows (number);
                 CREATE TABLE counters (writer bigint PRIMARY KEY, n bigint NOT NULL);",
            )
            .await?;
        let mut ledger = Ledger::default();
        for writer in 0..writers {
            client.execute("INSERT INTO counters VALUES ($1, 0)", &[&writer]).await?;
            ledger.counters.insert(writer, 0);
        }
        Ok(ledger)
    }

    /// Starts the next life: each writer of its own connection, and one that creates tables if `ddl`.
    pub fn start(&mut self, target: &str, dice: &mut Dice, ddl: bool) -> Life {
        let number = self.next_life;
        self.next_life += 1;
        let mut life = Life { number, told: Arc::default(), writers: Vec::new(), stop: Arc::default() };
        for writer in self.counters.keys().copied() {
            let (target, told, stop) = (target.to_owned(), Arc::clone(&life.told), Arc::clone(&life.stop));
            let dice = dice.fork();
            life.writers.push(tokio::spawn(async move {
                // A connection that breaks ends its writer: that is how most of them learn of the cut.
                let _ended = write(&target, (number, writer), dice, &told, &stop).await;
            }));
        }
        if ddl {
            let (target, told, stop) = (target.to_owned(), Arc::clone(&life.told), Arc::clone(&life.stop));
            life.writers.push(tokio::spawn(async move {
                let _ended = create_tables(&target, number, &told, &stop).await;
            }));
        }
        life
    }

    /// Ends a life and compares what its writers were told with what is there. What is there then is what must be
    /// there from now on.
    ///
    /// # Errors
    /// Something is lost, doubled, half there, or there although it was refused; an index differs from its table.
    pub async fn judge(&mut self, life: Life, client: &Client) -> Result<Judged> {
        let number = life.number;
        life.stop.store(true, Ordering::Relaxed);
        for writer in life.writers {
            tokio::time::timeout(Duration::from_secs(30), writer).await.context("a writer hangs")??;
        }
        let told = std::mem::take(&mut *lock(&life.told));
        let found = rows_of(client, number).await?;
        let mut judged =
            Judged { acknowledged: told.acknowledged, unknown: told.unknown, ..Judged::default() };
        let mut counted = told.counted;
        for (key, parts) in &found {
            ensure!(told.fates.contains_key(key), "life {number}: {key:?} is there and was never written");
            let whole: BTreeSet<i64> = (0..PARTS).collect();
            ensure!(*parts == whole, "life {number}: {key:?} is half there: parts {parts:?}");
        }
        for (key, fate) in &told.fates {
            let is_there = found.contains_key(key);
            let kept = match (fate, is_there) {
                (Fate::Present, false) => {
                    anyhow::bail!("life {number}: {key:?} was acknowledged and is LOST")
                }
                (Fate::Absent, true) => anyhow::bail!("life {number}: {key:?} must not be there and is"),
                (Fate::Unknown, is_there) => is_there,
                (Fate::MaybeRemoved, is_there) => !is_there,
                _ => false,
            };
            if kept {
                judged.unknown_kept += 1;
                *counted.entry(key.0).or_default() += 1;
            }
        }
        for (writer, count) in counted {
            *self.counters.entry(writer).or_default() += count;
        }
        let rows = found.len() as i64 * PARTS;
        judged.rows = found.len() as u64 * PARTS.unsigned_abs();
        self.lives.insert(number, (rows, found.keys().map(|(_, number)| number * PARTS).sum()));
        self.check_counters(client).await?;
        for (table, acknowledged) in told.tables {
            let there = client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await;
            match there {
                Ok(row) => {
                    let count: i64 = row.get(0);
                    ensure!(count == 2, "table {table} has {count} rows, was created with 2");
                    self.tables.insert(table);
                }
                Err(error) if !acknowledged && error.code().is_some_and(|code| code.code() == "42P01") => {}
                Err(error) => {
                    return Err(error).context(format!("table {table}, acknowledged: {acknowledged}"));
                }
            }
        }
        Ok(judged)
    }

    async fn check_counters(&self, client: &Client) -> Result<()> {
        for row in client.query("SELECT writer, n FROM counters", &[]).await? {
            let (writer, n): (i64, i64) = (row.get(0), row.get(1));
            let expected = self.counters.get(&writer).copied().unwrap_or(0);
            ensure!(n == expected, "writer {writer}: the counter is {n}, {expected} commits took place");
        }
        Ok(())
    }

    /// Compares everything that earlier lives left.
    ///
    /// # Errors
    /// Something changed since it was judged.
    pub async fn check_all(&self, client: &Client) -> Result<()> {
        let rows =
            client.query("SELECT life, count(*), sum(number)::bigint FROM rows GROUP BY life", &[]).await?;
        let found: BTreeMap<i64, (i64, i64)> =
            rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
        for (life, expected) in &self.lives {
            let now = found.get(life).copied().unwrap_or((0, 0));
            ensure!(
                now == *expected,
                "life {life} was judged with {expected:?} rows and sum, now it has {now:?}"
            );
        }
        for table in &self.tables {
            let count: i64 = client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await?.get(0);
            ensure!(count == 2, "table {table} has {count} rows now, was created with 2");
        }
        self.check_counters(client).await
    }

    /// Empties the tables, after all was compared, so that a long run does not slow down.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn clear(&mut self, client: &Client) -> Result<()> {
        self.check_all(client).await?;
        client.batch_execute("TRUNCATE rows").await?;
        for table in std::mem::take(&mut self.tables) {
            client.batch_execute(&format!("DROP TABLE {table}")).await?;
        }
        self.lives.clear();
        Ok(())
    }
}

impl Life {
    /// Acknowledged commits so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        lock(&self.told).acknowledged
    }
}

/// Transactions of a life that have rows, by the primary key's index, and the same by a scan and by another index.
async fn rows_of(client: &Client, life: i64) -> Result<BTreeMap<(i64, i64), BTreeSet<i64>>> {
    let ways = [
        "SELECT writer, number, part, length(filler) FROM rows WHERE life = $1",
        "SELECT writer, number, part, length(filler) FROM rows WHERE life + 0 = $1",
        "SELECT writer, number, part, length(filler) FROM rows WHERE life + 0 = $1 AND number >= 0",
    ];
    let mut seen: Vec<BTreeMap<(i64, i64), BTreeSet<i64>>> = Vec::new();
    for way in ways {
        let mut found: BTreeMap<(i64, i64), BTreeSet<i64>> = BTreeMap::new();
        for row in client.query(way, &[&life]).await? {
            let (writer, number, part): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
            let length: i32 = row.get(3);
            ensure!(i64::from(length) == filler_length(number), "life {life}: a row has another filler");
            let is_new = found.entry((writer, number)).or_default().insert(part);
            ensure!(is_new, "life {life}: writer {writer} number {number} part {part} is there twice");
        }
        seen.push(found);
    }
    let by_key = seen.swap_remove(0);
    for other in seen {
        ensure!(by_key == other, "life {life}: an index differs from its table");
    }
    Ok(by_key)
}

/// Most rows are small; a few are not, so that batches differ and segments fill up.
const fn filler_length(number: i64) -> i64 {
    match number % 23 {
        0 => 6000,
        1..6 => 300,
        _ => 20,
    }
}

struct Session {
    client: Client,
    insert: Statement,
    remove: Statement,
    count: Statement,
}

async fn open(target: &str) -> Result<Session> {
    let client = connect(target).await?;
    let insert = client
        .prepare(
            "INSERT INTO rows SELECT $1::bigint, $2::bigint, $3::bigint, part, repeat('x', $4::int)
             FROM generate_series(0, 2) AS s(part)",
        )
        .await?;
    let remove = client.prepare("DELETE FROM rows WHERE life = $1 AND writer = $2 AND number = $3").await?;
    let count = client.prepare("UPDATE counters SET n = n + 1 WHERE writer = $1").await?;
    Ok(Session { client, insert, remove, count })
}

/// How a commit ended for its client.
enum Outcome {
    Acknowledged,
    Refused,
    Unknown,
}

async fn commit(session: &mut Session, life: i64, key: (i64, i64), removes: bool) -> (Outcome, bool) {
    let (writer, number) = key;
    let before = |error: tokio_postgres::Error| (Outcome::Refused, error.as_db_error().is_none());
    let worked = async {
        let transaction = session.client.transaction().await.map_err(before)?;
        if removes {
            transaction.execute(&session.remove, &[&life, &writer, &number]).await.map_err(before)?;
        } else {
            let length = i32::try_from(filler_length(number)).unwrap_or(0);
            transaction
                .execute(&session.insert, &[&life, &writer, &number, &length])
                .await
                .map_err(before)?;
        }
        transaction.execute(&session.count, &[&writer]).await.map_err(before)?;
        transaction.commit().await.map_err(|error| match error.as_db_error() {
            Some(said) if said.code().code() == "08007" => (Outcome::Unknown, false),
            Some(said) if said.code().code().starts_with("57P") => (Outcome::Unknown, true),
            Some(_) => (Outcome::Refused, false),
            None => (Outcome::Unknown, true),
        })
    };
    match worked.await {
        Ok(()) => (Outcome::Acknowledged, false),
        Err((outcome, is_broken)) => (outcome, is_broken),
    }
}

async fn write(
    target: &str,
    (life, writer): (i64, i64),
    mut dice: Dice,
    told: &Mutex<Told>,
    stop: &AtomicBool,
) -> Result<()> {
    let mut session = open(target).await?;
    let (mut next, mut present) = (0_i64, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let removes = !present.is_empty() && dice.chance(1, 6);
        let number = if removes { present.swap_remove(dice.index(present.len())) } else { next };
        next += i64::from(!removes);
        let key = (writer, number);
        // Before it is asked for: whatever happens from now on, it may take place.
        let (before, worst) =
            if removes { (Fate::Present, Fate::MaybeRemoved) } else { (Fate::Absent, Fate::Unknown) };
        lock(told).fates.insert(key, worst);
        let (outcome, is_broken) =
            tokio::time::timeout(Duration::from_secs(20), commit(&mut session, life, key, removes))
                .await
                .unwrap_or((Outcome::Unknown, true));
        {
            let mut told = lock(told);
            match outcome {
                Outcome::Acknowledged => {
                    told.acknowledged += 1;
                    *told.counted.entry(writer).or_default() += 1;
                    told.fates.insert(key, if removes { Fate::Absent } else { Fate::Present });
                }
                Outcome::Refused => drop(told.fates.insert(key, before)),
                Outcome::Unknown => told.unknown += 1,
            }
        }
        match outcome {
            Outcome::Acknowledged if !removes => present.push(number),
            Outcome::Refused if removes => present.push(number),
            _ => {}
        }
        if is_broken {
            return Ok(());
        }
    }
    Ok(())
}

/// Creates tables with two rows each, all in one Query, and drops none.
async fn create_tables(target: &str, life: i64, told: &Mutex<Told>, stop: &AtomicBool) -> Result<()> {
    let client = connect(target).await?;
    for number in 0..4 {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let table = format!("made_{life}_{number}");
        lock(told).tables.insert(table.clone(), false);
        let sql = format!(
            "CREATE TABLE {table} (a int PRIMARY KEY, b text); INSERT INTO {table} VALUES (1, 'a'), (2, 'b')"
        );
        client.batch_execute(&sql).await?;
        lock(told).tables.insert(table, true);
    }
    Ok(())
}
