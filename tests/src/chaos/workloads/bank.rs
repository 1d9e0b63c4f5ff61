//! Transfers between accounts: every snapshot, at every node, has the same total.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio_postgres::Client;

use super::{Verdict, Workload, sql};
use crate::chaos::clients::{Failure, Session};
use crate::check::history::Told;
use crate::check::lists::Level;

/// Accounts of a bank.
const ACCOUNTS: u64 = 8;

/// What each begins with.
const START: i64 = 100;

/// See the module.
pub struct Bank {
    number: u64,
    level: Level,
    seen: Mutex<Verdict>,
}

impl Bank {
    /// The history of a number. From snapshots on, as the total is read by several statements.
    #[must_use]
    pub fn new(number: u64, level: Level) -> Self {
        Self { number, level, seen: Mutex::default() }
    }

    /// The balances, read in several statements of one snapshot.
    async fn total(&self, session: &mut Session) -> Result<(), Failure> {
        let (bank, begin) = (sql(self.number), format!("BEGIN ISOLATION LEVEL {}", self.level.sql()));
        let result = session
            .work(async |client, random, _| {
                let read = async |client: &Client, from: i64, to: i64| {
                    let select =
                        "SELECT balance FROM accounts WHERE bank = $1 AND account >= $2 AND account < $3";
                    let rows = client.query(select, &[&bank, &from, &to]).await?;
                    Ok::<Vec<i64>, tokio_postgres::Error>(rows.iter().map(|row| row.get(0)).collect())
                };
                let work = async {
                    client.batch_execute(&begin).await?;
                    let middle = sql(random.range(0..ACCOUNTS + 1));
                    let mut balances = read(client, 0, middle).await?;
                    balances.extend(read(client, middle, sql(ACCOUNTS)).await?);
                    client.batch_execute("COMMIT").await?;
                    Ok::<_, tokio_postgres::Error>(balances)
                };
                work.await.map_err(|error| Failure::before_commit(&error))
            })
            .await;
        let mut seen = self.seen.lock();
        let told = result.as_ref().map_or_else(|failure| failure.told, |_| Told::Acknowledged);
        seen.count(told, usize::try_from(ACCOUNTS).unwrap_or(0));
        let balances = result?;
        if balances.len() as u64 != ACCOUNTS || balances.iter().sum::<i64>() != START * sql(ACCOUNTS) {
            seen.wrong.push(format!("a snapshot held {balances:?}"));
        }
        Ok(())
    }

    async fn transfer(&self, session: &mut Session) {
        let (bank, level) = (sql(self.number), self.level.sql());
        let result = session
            .work(async |client, random, commits| {
                let from = random.range(0..ACCOUNTS);
                let to = (from + random.range(1..ACCOUNTS)) % ACCOUNTS;
                let (from, to) = (sql(from), sql(to));
                let amount = sql(random.range(1..10));
                let work = async {
                    client.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}")).await?;
                    // Either read and set, as object mappers do, or add.
                    if random.chance(1, 2) {
                        let select = "SELECT balance FROM accounts WHERE bank = $1 AND account = $2";
                        let set = "UPDATE accounts SET balance = $3 WHERE bank = $1 AND account = $2";
                        let one: i64 = client.query_one(select, &[&bank, &from]).await?.get(0);
                        let other: i64 = client.query_one(select, &[&bank, &to]).await?.get(0);
                        client.execute(set, &[&bank, &from, &(one - amount)]).await?;
                        client.execute(set, &[&bank, &to, &(other + amount)]).await?;
                    } else {
                        let add =
                            "UPDATE accounts SET balance = balance + $3 WHERE bank = $1 AND account = $2";
                        client.execute(add, &[&bank, &from, &-amount]).await?;
                        client.execute(add, &[&bank, &to, &amount]).await?;
                    }
                    Ok::<_, tokio_postgres::Error>(())
                };
                work.await.map_err(|error| Failure::before_commit(&error))?;
                commits.store(true, Ordering::Relaxed);
                client.batch_execute("COMMIT").await.map_err(|error| Failure::at_commit(&error))
            })
            .await;
        let told = result.map_or_else(|failure| failure.told, |()| Told::Acknowledged);
        if told == Told::Acknowledged {
            session.progress.wrote();
        }
        self.seen.lock().count(told, 4);
    }
}

#[async_trait]
impl Workload for Bank {
    fn name(&self) -> String {
        format!("bank {}", self.level.sql())
    }

    async fn prepare(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        let row = |account| format!("({}, {account}, {START})", self.number);
        let rows: Vec<String> = (0..ACCOUNTS).map(row).collect();
        client.batch_execute(&format!("INSERT INTO accounts VALUES {}", rows.join(", "))).await
    }

    async fn turn(&self, session: &mut Session, _process: &mut Option<u64>) {
        if session.random.chance(1, 3) {
            // It is counted how it ended.
            let _noted = self.total(session).await;
        } else {
            self.transfer(session).await;
        }
    }

    async fn last_look(&self, session: &mut Session) -> Result<(), Failure> {
        self.total(session).await
    }

    fn judge(&self) -> Verdict {
        let mut verdict = self.seen.lock().clone();
        verdict.wrong.truncate(20);
        verdict
    }
}
