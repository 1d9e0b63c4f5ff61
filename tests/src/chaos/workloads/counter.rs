//! Rows that count up and say what they came to: a source of unique numbers that grow with time.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio_postgres::Client;

use super::{KEYS, Verdict, Workload, number};
use crate::chaos::clients::{Failure, Session};
use crate::check::history::{Recorder, Told};

/// Counters of one history.
const COUNTERS: u64 = 3;

/// One increment or read of a counter.
#[derive(Clone, Copy, Debug)]
struct Look {
    counter: u64,
    began: u64,
    ended: u64,
    told: Told,
    is_increment: bool,
    /// What it said, if it was acknowledged.
    value: u64,
}

/// See the module.
pub struct Counting {
    number: u64,
    moments: Recorder,
    looks: Mutex<Vec<Look>>,
}

impl Counting {
    /// The history of a number.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self { number, moments: Recorder::default(), looks: Mutex::default() }
    }

    async fn look(&self, session: &mut Session, counter: u64, is_increment: bool) -> Result<(), Failure> {
        let key = self.number * KEYS + counter;
        let statement = if is_increment {
            format!("UPDATE counters SET n = n + 1 WHERE k = {key} RETURNING n")
        } else {
            format!("SELECT n FROM counters WHERE k = {key}")
        };
        let began = self.moments.moment();
        let result = session
            .work(async |client, _, commits| {
                commits.store(is_increment, Ordering::Relaxed);
                let row = client.query_one(&statement, &[]).await;
                // What is not an error of the server leaves it open whether the statement was run.
                row.map_err(|error| Failure::at_commit(&error)).map(|row| number(row.get(0)))
            })
            .await;
        let (told, value) = match &result {
            Ok(value) => (Told::Acknowledged, *value),
            Err(failure) => (failure.told, 0),
        };
        if is_increment && told == Told::Acknowledged {
            session.progress.wrote();
        }
        let ended = self.moments.moment();
        self.looks.lock().push(Look { counter, began, ended, told, is_increment, value });
        result.map(drop)
    }
}

#[async_trait]
impl Workload for Counting {
    fn name(&self) -> String {
        "counters".to_owned()
    }

    async fn prepare(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        let first = self.number * KEYS;
        let rows: Vec<String> = (first..first + COUNTERS).map(|key| format!("({key}, 0)")).collect();
        client.batch_execute(&format!("INSERT INTO counters (k, n) VALUES {}", rows.join(", "))).await
    }

    async fn turn(&self, session: &mut Session, _process: &mut Option<u64>) {
        let counter = session.random.range(0..COUNTERS);
        let is_increment = session.random.chance(2, 3);
        // It is written down how it ended.
        let _noted = self.look(session, counter, is_increment).await;
    }

    async fn last_look(&self, session: &mut Session) -> Result<(), Failure> {
        for counter in 0..COUNTERS {
            self.look(session, counter, false).await?;
        }
        Ok(())
    }

    fn judge(&self) -> Verdict {
        let mut looks = self.looks.lock().clone();
        looks.sort_unstable_by_key(|look| look.began);
        let mut verdict = Verdict::default();
        looks.iter().for_each(|look| verdict.count(look.told, 1));
        for counter in 0..COUNTERS {
            let of_it = |look: &&Look| look.counter == counter;
            let known: Vec<&Look> =
                looks.iter().filter(of_it).filter(|look| look.told == Told::Acknowledged).collect();
            let mut given: BTreeMap<u64, &Look> = BTreeMap::new();
            for look in known.iter().filter(|look| look.is_increment) {
                if let Some(other) = given.insert(look.value, look) {
                    verdict.wrong.push(format!("given out twice: {look:?} and {other:?}"));
                }
            }
            // The largest value of what had ended before each begin.
            let mut by_end = known.clone();
            by_end.sort_unstable_by_key(|look| look.ended);
            let (mut ended, mut largest) = (by_end.iter().peekable(), None::<&Look>);
            for look in &known {
                while let Some(before) = ended.next_if(|before| before.ended < look.began) {
                    largest = largest.filter(|largest| largest.value >= before.value).or(Some(before));
                }
                let Some(largest) = largest else { continue };
                let is_less =
                    if look.is_increment { look.value <= largest.value } else { look.value < largest.value };
                if is_less {
                    verdict.wrong.push(format!("went back: {look:?} after {largest:?}"));
                }
            }
            let unknown =
                looks.iter().filter(of_it).filter(|look| look.told == Told::Unknown && look.is_increment);
            let most = given.len() + unknown.count();
            if let Some(last) = known.iter().map(|look| look.value).max()
                && usize::try_from(last).is_ok_and(|last| last > most || last < given.len())
            {
                let given = given.len();
                verdict.wrong.push(format!(
                    "counter {counter} came to {last}; {given} were given out, at most {most}"
                ));
            }
        }
        verdict.wrong.truncate(20);
        if !verdict.wrong.is_empty() {
            verdict.history = looks.iter().map(|look| format!("{look:?}\n")).collect();
        }
        verdict
    }
}
