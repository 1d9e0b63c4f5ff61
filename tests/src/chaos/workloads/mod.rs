//! What clients do while things break, and how it is judged.
//!
//! | workload | what it does | what must hold |
//! |---|---|---|
//! | [`transactions`] | appends to and reads of lists, or writes and reads of registers, up to four per transaction | the isolation level, by two checkers |
//! | [`register`] | single statements that read, set, or compare and set one row | linearizable |
//! | [`set`] | inserts of elements, one per statement | what was acknowledged is there once and is seen by every later read |
//! | [`counter`] | `UPDATE ... RETURNING` as a source of numbers | each number is given out once, later ones are larger |
//! | [`bank`] | transfers between accounts | every snapshot has the same total |
//! | [`predicate`] | inserts where nothing like it is there yet | at most one of those that race |
//!
//! A workload object is one history: it has keys of its own, and the tables are made once per cluster.

use async_trait::async_trait;
use tokio_postgres::Client;

use super::clients::{Failure, Session};
use crate::check::history::Told;

pub mod bank;
pub mod counter;
pub mod predicate;
pub mod register;
pub mod set;
pub mod transactions;

/// The tables of all workloads.
pub const TABLES: &str = "
    CREATE TABLE lists (k bigint PRIMARY KEY, tag bigint NOT NULL, v text NOT NULL);
    CREATE INDEX lists_tag ON lists (tag);
    CREATE TABLE registers (k bigint PRIMARY KEY, v bigint NOT NULL);
    CREATE TABLE accounts (bank bigint, account bigint, balance bigint NOT NULL, PRIMARY KEY (bank, account));
    CREATE TABLE elements (part bigint NOT NULL, element bigint NOT NULL);
    CREATE INDEX elements_part ON elements (part);
    CREATE TABLE counters (k bigint PRIMARY KEY, n bigint NOT NULL);
    CREATE TABLE pairs_a (pair bigint NOT NULL, value bigint NOT NULL);
    CREATE TABLE pairs_b (pair bigint NOT NULL, value bigint NOT NULL);
";

/// Keys of one history: its number times this, and what follows.
const KEYS: u64 = 1_000_000;

/// What a history came to.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Small steps (reads and writes) of operations that were acknowledged or whose end nobody knows.
    pub steps: u64,
    /// Operations by their end.
    pub acknowledged: u64,
    /// See there.
    pub refused: u64,
    /// See there.
    pub unknown: u64,
    /// What is wrong; nothing if all is right.
    pub wrong: Vec<String>,
    /// The history, one line per event, to be kept if it is wrong.
    pub history: String,
}

impl Verdict {
    /// Counts an operation.
    pub fn count(&mut self, told: Told, steps: usize) {
        match told {
            Told::Acknowledged => self.acknowledged += 1,
            Told::Refused => self.refused += 1,
            Told::Unknown => self.unknown += 1,
        }
        if told != Told::Refused {
            self.steps += u64::try_from(steps).unwrap_or(0);
        }
    }
}

/// One history in the making.
#[async_trait]
pub trait Workload: Send + Sync {
    /// What it is, with its level.
    fn name(&self) -> String;

    /// SQL that its clients send when they have connected.
    fn settings(&self) -> String {
        String::new()
    }

    /// Rows that must be there before it begins.
    async fn prepare(&self, _client: &Client) -> Result<(), tokio_postgres::Error> {
        Ok(())
    }

    /// One operation of a client that is connected. `process` is its number in the history.
    async fn turn(&self, session: &mut Session, process: &mut Option<u64>);

    /// Reads everything once more when the cluster is whole again and all others have ended; at each node.
    async fn last_look(&self, session: &mut Session) -> Result<(), Failure>;

    /// Judges all that was done.
    fn judge(&self) -> Verdict;
}

/// A number as SQL's `bigint`.
fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A `bigint` that was put there by [`sql`].
fn number(sql: i64) -> u64 {
    u64::try_from(sql).unwrap_or(u64::MAX)
}
