//! Inserts that depend on what is not there: under SERIALIZABLE, of those that race at most one is committed.
//!
//! Each looks by a condition on two tables that nothing in them fits, and then inserts what fits into one of them.
//! A checker of lists does not see such conditions (Adya's G2 with predicates), so they are tried apart.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{KEYS, Verdict, Workload, number, sql};
use crate::chaos::clients::{Counter, Failure, Session};
use crate::check::history::Told;

/// How many race for one pair.
const RACERS: u64 = 4;

/// See the module.
pub struct Predicates {
    number: u64,
    turns: Counter,
    /// Pair, who tried, and how it ended; nothing to insert is no try.
    tries: Mutex<Vec<(u64, u64, Told)>>,
    /// What is there at the end, as each node has it: pair and value.
    ends: Mutex<Vec<Vec<(u64, u64)>>>,
}

impl Predicates {
    /// The history of a number.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self { number, turns: Counter::default(), tries: Mutex::default(), ends: Mutex::default() }
    }
}

#[async_trait]
impl Workload for Predicates {
    fn name(&self) -> String {
        "predicates SERIALIZABLE".to_owned()
    }

    async fn turn(&self, session: &mut Session, _process: &mut Option<u64>) {
        let turn = self.turns.next();
        let pair = self.number * KEYS + turn / RACERS;
        // All values that are inserted can be divided by 3.
        let (key, value) = (sql(pair), sql(turn * 3));
        let result = session
            .work(async |client, random, commits| {
                let table = if random.chance(1, 2) { "pairs_a" } else { "pairs_b" };
                let work = async {
                    client.batch_execute("BEGIN ISOLATION LEVEL SERIALIZABLE").await?;
                    for table in ["pairs_a", "pairs_b"] {
                        let select = format!("SELECT value FROM {table} WHERE pair = $1 AND value % 3 = 0");
                        if !client.query(&select, &[&key]).await?.is_empty() {
                            return Ok(false);
                        }
                    }
                    client.execute(&format!("INSERT INTO {table} VALUES ($1, $2)"), &[&key, &value]).await?;
                    Ok::<_, tokio_postgres::Error>(true)
                };
                let inserted = work.await.map_err(|error| Failure::before_commit(&error))?;
                commits.store(inserted, Ordering::Relaxed);
                client.batch_execute("COMMIT").await.map_err(|error| Failure::at_commit(&error))?;
                Ok(inserted)
            })
            .await;
        let told = match result {
            Ok(false) => return,
            Ok(true) => Told::Acknowledged,
            Err(failure) => failure.told,
        };
        if told == Told::Acknowledged {
            session.progress.wrote();
        }
        self.tries.lock().push((pair, turn * 3, told));
    }

    async fn last_look(&self, session: &mut Session) -> Result<(), Failure> {
        let (first, end) = (sql(self.number * KEYS), sql((self.number + 1) * KEYS));
        let rows = session
            .work(async |client, _, _| {
                let select = "SELECT pair, value FROM pairs_a WHERE pair >= $1 AND pair < $2 \
                              UNION ALL SELECT pair, value FROM pairs_b WHERE pair >= $1 AND pair < $2";
                client.query(select, &[&first, &end]).await.map_err(|error| Failure::before_commit(&error))
            })
            .await?;
        self.ends.lock().push(rows.iter().map(|row| (number(row.get(0)), number(row.get(1)))).collect());
        Ok(())
    }

    fn judge(&self) -> Verdict {
        let mut verdict = Verdict::default();
        let tries = self.tries.lock().clone();
        tries.iter().for_each(|(_, _, told)| verdict.count(*told, 3));
        for end in self.ends.lock().iter() {
            let mut of_pair: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            end.iter().for_each(|(pair, value)| of_pair.entry(*pair).or_default().push(*value));
            for (pair, values) in of_pair.iter().filter(|(_, values)| values.len() > 1) {
                verdict.wrong.push(format!("G2 by a condition: pair {pair} has {values:?}"));
            }
            for (pair, value, told) in &tries {
                let is_there = of_pair.get(pair).is_some_and(|values| values.contains(value));
                match told {
                    Told::Acknowledged if !is_there => verdict.wrong.push(format!("lost: {value} of {pair}")),
                    Told::Refused if is_there => {
                        verdict.wrong.push(format!("refused and there: {value} of {pair}"))
                    }
                    _ => {}
                }
            }
        }
        verdict.wrong.truncate(20);
        if !verdict.wrong.is_empty() {
            verdict.history = format!("{tries:?}\n");
        }
        verdict
    }
}
