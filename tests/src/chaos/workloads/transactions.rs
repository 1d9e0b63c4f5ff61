//! Transactions over lists or registers, at one isolation level, judged by both checkers.
//!
//! A transaction comes in one of three forms, which a server treats differently: a block of statements that wait for
//! each other, one Query that holds BEGIN to COMMIT, and a single statement outside a block.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{KEYS, Verdict, Workload, number, sql};
use crate::chaos::clients::{Failure, Session};
use crate::chaos::random::Random;
use crate::check::history::{Operation, Recorder, Step, Told, as_lines};
use crate::check::lists::{self, Level};
use crate::check::second::{self, Kind};

/// Lists or registers that are in use at a time.
const ACTIVE: usize = 5;

/// After so many writes a list is left for a new one, so that reads stay short.
const WRITES_MAX: u64 = 24;

/// Which transactions there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One to four steps of any kind.
    Mixed,
    /// One write, or two to four reads: a long fork would show.
    Fork,
}

/// See the module.
pub struct Transactions {
    number: u64,
    kind: Kind,
    level: Level,
    shape: Shape,
    recorder: Recorder,
    keys: Mutex<Keys>,
}

/// Keys in use, with the writes drawn for each, and the next that is not.
struct Keys {
    active: Vec<(u64, u64)>,
    next: u64,
    values: u64,
}

impl Transactions {
    /// The history of a number.
    #[must_use]
    pub fn new(number: u64, kind: Kind, level: Level, shape: Shape) -> Self {
        let first = number * KEYS;
        let next = first + ACTIVE as u64;
        let keys = Keys { active: (first..next).map(|key| (key, 0)).collect(), next, values: 0 };
        Self { number, kind, level, shape, recorder: Recorder::default(), keys: Mutex::new(keys) }
    }

    /// All that was done so far.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        self.recorder.operations()
    }

    fn draw(&self, random: &mut Random) -> Vec<Step> {
        let mut keys = self.keys.lock();
        let count = random.range(1..5);
        let only_reads = self.shape == Shape::Fork && count > 1;
        let only_writes = self.shape == Shape::Fork && count == 1;
        let mut steps = Vec::new();
        for _ in 0..count {
            // Later keys are likelier, so that some are hot.
            let at = random.index(ACTIVE).max(random.index(ACTIVE));
            let writes = only_writes || (!only_reads && random.chance(1, 2));
            if writes && keys.active[at].1 >= WRITES_MAX {
                let fresh = keys.next;
                keys.next += 1;
                keys.active[at] = (fresh, 0);
            }
            let key = keys.active[at].0;
            if writes {
                keys.active[at].1 += 1;
                keys.values += 1;
            }
            let value = keys.values;
            steps.push(match (self.kind, writes) {
                (Kind::Lists, true) => Step::Append { key, value },
                (Kind::Lists, false) => Step::List { key, found: Vec::new() },
                (Kind::Registers, true) => Step::Write { key, value },
                (Kind::Registers, false) => Step::Read { key, found: None },
            });
        }
        steps
    }
}

#[async_trait]
impl Workload for Transactions {
    fn name(&self) -> String {
        let kind = match (self.kind, self.shape) {
            (Kind::Lists, Shape::Mixed) => "list-append",
            (Kind::Lists, Shape::Fork) => "long-fork",
            (Kind::Registers, _) => "rw-register",
        };
        format!("{kind} {}", self.level.sql())
    }

    fn settings(&self) -> String {
        format!("SET default_transaction_isolation = '{}'", self.level.sql().to_lowercase())
    }

    async fn turn(&self, session: &mut Session, process: &mut Option<u64>) {
        let steps = self.draw(&mut session.random);
        let form = session.random.range(0..6);
        let own = *process.get_or_insert_with(|| self.recorder.process());
        let (began, level) = (self.recorder.moment(), self.level);
        let plan = steps.clone();
        let writes = steps.iter().any(|step| matches!(step, Step::Append { .. } | Step::Write { .. }));
        let result = session
            .work(async |client, random, commits| match form {
                0 if plan.len() == 1 => single(client, plan, commits).await,
                0..=2 => query(client, plan, level, commits).await,
                _ => block(client, plan, level, random, commits).await,
            })
            .await;
        let (told, steps) = match result {
            Ok(steps) => (Told::Acknowledged, steps),
            // A transaction that only reads has no outcome that anybody could see.
            Err(failure) if !writes && failure.told == Told::Unknown => (Told::Refused, steps),
            Err(failure) => (failure.told, steps),
        };
        if told == Told::Acknowledged && writes {
            session.progress.wrote();
        }
        if told == Told::Unknown {
            *process = None;
        }
        let ended = self.recorder.moment();
        self.recorder.record(Operation { process: own, began, ended, told, steps });
    }

    async fn last_look(&self, session: &mut Session) -> Result<(), Failure> {
        let (first, end) = (self.number * KEYS, self.keys.lock().next);
        let began = self.recorder.moment();
        let (table, kind) = (table(self.kind), self.kind);
        let statement = format!("SELECT k, v FROM {table} WHERE k >= {first} AND k < {end}");
        let rows = session
            .work(async |client, _, _| {
                client.query(&statement, &[]).await.map_err(|error| Failure::before_commit(&error))
            })
            .await?;
        let mut steps = Vec::new();
        for key in first..end {
            let row = rows.iter().find(|row| number(row.get(0)) == key);
            steps.push(match kind {
                Kind::Lists => Step::List { key, found: row.map_or(Vec::new(), |row| numbers(row.get(1))) },
                Kind::Registers => Step::Read { key, found: row.map(|row| number(row.get(1))) },
            });
        }
        let (process, ended) = (self.recorder.process(), self.recorder.moment());
        self.recorder.record(Operation { process, began, ended, told: Told::Acknowledged, steps });
        Ok(())
    }

    fn judge(&self) -> Verdict {
        let operations = self.recorder.operations();
        let mut verdict = Verdict::default();
        for operation in &operations {
            verdict.count(operation.told, operation.steps.len());
        }
        if self.kind == Kind::Lists {
            verdict.wrong.extend(lists::check(&operations, self.level).iter().map(ToString::to_string));
        }
        match second::check(&operations, self.kind, self.level) {
            Ok(found) => verdict.wrong.extend(found.iter().map(|found| format!("adya finds {found}"))),
            Err(error) => verdict.wrong.push(format!("adya cannot read the history: {error}")),
        }
        if !verdict.wrong.is_empty() {
            verdict.history = as_lines(&operations);
        }
        verdict
    }
}

fn table(kind: Kind) -> &'static str {
    match kind {
        Kind::Lists => "lists",
        Kind::Registers => "registers",
    }
}

/// A list as it is stored.
fn numbers(text: &str) -> Vec<u64> {
    text.split(',').filter_map(|word| word.parse().ok()).collect()
}

/// The statement of a step, with its values in it.
fn statement(step: &Step) -> String {
    match step {
        Step::Append { key, value } => format!(
            "INSERT INTO lists (k, tag, v) VALUES ({key}, {key}, '{value}') \
             ON CONFLICT (k) DO UPDATE SET v = lists.v || ',' || excluded.v"
        ),
        Step::Write { key, value } => format!(
            "INSERT INTO registers (k, v) VALUES ({key}, {value}) ON CONFLICT (k) DO UPDATE SET v = excluded.v"
        ),
        // By the primary key or by the other index.
        Step::List { key, .. } if key % 2 == 0 => format!("SELECT v FROM lists WHERE tag = {key}"),
        Step::List { key, .. } => format!("SELECT v FROM lists WHERE k = {key}"),
        Step::Read { key, .. } => format!("SELECT v FROM registers WHERE k = {key}"),
    }
}

/// The step with what was found, as text.
fn answered(step: Step, found: Option<&str>) -> Step {
    match step {
        Step::List { key, .. } => Step::List { key, found: found.map_or(Vec::new(), numbers) },
        Step::Read { key, .. } => Step::Read { key, found: found.and_then(|found| found.parse().ok()) },
        write => write,
    }
}

/// One statement outside a block.
async fn single(client: &mut Client, steps: Vec<Step>, commits: &AtomicBool) -> Result<Vec<Step>, Failure> {
    commits.store(true, Ordering::Relaxed);
    let mut done = Vec::new();
    for step in steps {
        let messages =
            client.simple_query(&statement(&step)).await.map_err(|error| Failure::at_commit(&error))?;
        done.push(answered(step, found(&messages).first().and_then(|found| found.as_deref())));
    }
    Ok(done)
}

/// One Query from BEGIN to COMMIT.
async fn query(
    client: &mut Client,
    steps: Vec<Step>,
    level: Level,
    commits: &AtomicBool,
) -> Result<Vec<Step>, Failure> {
    commits.store(true, Ordering::Relaxed);
    let statements: Vec<String> = steps.iter().map(statement).collect();
    let text = format!("BEGIN ISOLATION LEVEL {}; {}; COMMIT", level.sql(), statements.join("; "));
    let messages = client.simple_query(&text).await.map_err(|error| Failure::at_commit(&error))?;
    // The first is BEGIN's.
    let answers = found(&messages).into_iter().skip(1);
    Ok(steps.into_iter().zip(answers).map(|(step, found)| answered(step, found.as_deref())).collect())
}

/// The first value of each statement's first row.
fn found(messages: &[SimpleQueryMessage]) -> Vec<Option<String>> {
    let (mut all, mut current) = (Vec::new(), None);
    for message in messages {
        match message {
            SimpleQueryMessage::Row(row) => current = row.get(0).map(str::to_owned),
            SimpleQueryMessage::CommandComplete(_) => all.push(current.take()),
            _ => {}
        }
    }
    all
}

/// Statements that wait for each other, with typed parameters, sometimes with a pause or a savepoint between them.
async fn block(
    client: &mut Client,
    steps: Vec<Step>,
    level: Level,
    random: &mut Random,
    commits: &AtomicBool,
) -> Result<Vec<Step>, Failure> {
    let begin = format!("BEGIN ISOLATION LEVEL {}", level.sql());
    client.batch_execute(&begin).await.map_err(|error| Failure::before_commit(&error))?;
    let mut done = Vec::new();
    for step in steps {
        if random.chance(1, 6) {
            tokio::time::sleep(std::time::Duration::from_micros(random.range(100..5000))).await;
        }
        done.push(typed(client, step).await.map_err(|error| Failure::before_commit(&error))?);
    }
    commits.store(true, Ordering::Relaxed);
    client.batch_execute("COMMIT").await.map_err(|error| Failure::at_commit(&error))?;
    Ok(done)
}

async fn typed(client: &Client, step: Step) -> Result<Step, tokio_postgres::Error> {
    let key = sql(step.key());
    match step {
        Step::Append { value, .. } => {
            let insert = "INSERT INTO lists AS old (k, tag, v) VALUES ($1, $1, $2) \
                          ON CONFLICT (k) DO UPDATE SET v = old.v || ',' || excluded.v";
            let text = value.to_string();
            client.query_typed(insert, &[(&key, Type::INT8), (&text, Type::TEXT)]).await?;
            Ok(step)
        }
        Step::Write { value, .. } => {
            let insert =
                "INSERT INTO registers (k, v) VALUES ($1, $2) ON CONFLICT (k) DO UPDATE SET v = excluded.v";
            client.query_typed(insert, &[(&key, Type::INT8), (&sql(value), Type::INT8)]).await?;
            Ok(step)
        }
        Step::List { .. } => {
            let rows = client.query_typed("SELECT v FROM lists WHERE k = $1", &[(&key, Type::INT8)]).await?;
            Ok(answered(step, rows.first().map(|row| row.get(0))))
        }
        Step::Read { key: register, .. } => {
            let select = "SELECT v FROM registers WHERE k = $1";
            let rows = client.query_typed(select, &[(&key, Type::INT8)]).await?;
            Ok(Step::Read { key: register, found: rows.first().map(|row| number(row.get(0))) })
        }
    }
}
