//! Clients of a cluster: sessions that connect to any node, and what they make of an answer.
//!
//! | what the client gets | it counts as |
//! |---|---|
//! | an error with an SQLSTATE, before COMMIT was sent | refused |
//! | 08xxx, 40003, 57P01, 57P02, a lost connection or no answer in time, once COMMIT was sent | unknown |
//! | any other SQLSTATE in answer to COMMIT | refused |
//!
//! Refused means that nothing of it may ever be seen: a commit that is told to be refused and is there is a bug.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_postgres::{Client, NoTls};

use super::random::Random;
use crate::check::history::Told;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// Longest wait for a transaction; then its connection is given up.
const TRANSACTION: Duration = Duration::from_secs(8);

/// Pause before the next try when no node takes a connection.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// Why a transaction is not known to have been committed.
#[derive(Debug)]
pub struct Failure {
    /// What it counts as.
    pub told: Told,
    /// Whether the connection is of no more use.
    pub is_lost: bool,
    /// What was said.
    pub said: String,
}

impl Failure {
    /// What an error means while nothing was sent that commits.
    #[must_use]
    pub fn before_commit(error: &tokio_postgres::Error) -> Self {
        let is_lost = error.as_db_error().is_none() || ends_session(error);
        Self { told: Told::Refused, is_lost, said: describe(error) }
    }

    /// What an error means once something was sent that commits.
    #[must_use]
    pub fn at_commit(error: &tokio_postgres::Error) -> Self {
        let unknown = match error.code() {
            None => true,
            Some(code) => {
                let code = code.code();
                code.starts_with("08") || ["40003", "57P01", "57P02"].contains(&code)
            }
        };
        let told = if unknown { Told::Unknown } else { Told::Refused };
        Self { told, ..Self::before_commit(error) }
    }
}

fn ends_session(error: &tokio_postgres::Error) -> bool {
    error.is_closed() || error.code().is_some_and(|code| ["57P01", "57P02"].contains(&code.code()))
}

fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} {}", said.code().code(), said.message()),
        None => error.to_string(),
    }
}

/// Moments of acknowledged writes, of all clients.
#[derive(Debug, Default)]
pub struct Progress {
    moments: Mutex<Vec<Instant>>,
    errors: Mutex<std::collections::BTreeMap<String, u64>>,
}

impl Progress {
    /// A write was acknowledged now.
    pub fn wrote(&self) {
        self.moments.lock().push(Instant::now());
    }

    /// How many writes were acknowledged.
    #[must_use]
    pub fn count(&self) -> usize {
        self.moments.lock().len()
    }

    /// Longest time without an acknowledged write between two moments.
    #[must_use]
    pub fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let mut marks: Vec<Instant> =
            self.moments.lock().iter().copied().filter(|at| (from..to).contains(at)).collect();
        marks.extend([from, to]);
        marks.sort_unstable();
        marks.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// Something was refused; kept by SQLSTATE, for the report.
    pub fn refused(&self, said: &str) {
        let code = said.split(' ').next().unwrap_or_default().to_owned();
        *self.errors.lock().entry(code).or_default() += 1;
    }

    /// How often which SQLSTATE was told.
    #[must_use]
    pub fn errors(&self) -> std::collections::BTreeMap<String, u64> {
        self.errors.lock().clone()
    }
}

/// One client: a connection at a time, to a node by its choice.
pub struct Session {
    targets: Arc<Vec<String>>,
    settings: String,
    client: Option<Client>,
    stop: Arc<AtomicBool>,
    /// Its random choices.
    pub random: Random,
    /// Where it tells what was acknowledged.
    pub progress: Arc<Progress>,
}

impl Session {
    /// A client of any of the targets. `settings` is SQL that it sends after it has connected.
    #[must_use]
    pub fn new(
        targets: &Arc<Vec<String>>,
        settings: &str,
        stop: &Arc<AtomicBool>,
        random: Random,
        progress: &Arc<Progress>,
    ) -> Self {
        Self {
            targets: Arc::clone(targets),
            settings: settings.to_owned(),
            client: None,
            stop: Arc::clone(stop),
            random,
            progress: Arc::clone(progress),
        }
    }

    /// A client that looks once more when all is over: at one node, and at no other.
    #[must_use]
    pub fn at(target: &str, settings: &str) -> Self {
        let targets = Arc::new(vec![target.to_owned()]);
        Self::new(&targets, settings, &Arc::default(), Random::new(0), &Arc::default())
    }

    /// Whether it should end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Connects if it must. Whether it is connected; if not, it has waited a little.
    pub async fn connected(&mut self) -> bool {
        if self.client.as_ref().is_some_and(|client| !client.is_closed()) {
            return true;
        }
        let target = &self.targets[self.random.index(self.targets.len())];
        let connecting = async {
            let (client, connection) = tokio_postgres::connect(target, NoTls).await.ok()?;
            // Its error reaches whoever waits for an answer.
            tokio::spawn(async move {
                let _lost = connection.await;
            });
            client.batch_execute(&self.settings).await.ok()?;
            Some(client)
        };
        self.client = tokio::time::timeout(CONNECT, connecting).await.ok().flatten();
        if self.client.is_none() {
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
        self.client.is_some()
    }

    /// Does something with the connection, which is there: see [`Session::connected`]. `commits` is set by `work` when it
    /// sends what commits; from then on no answer in time means that nobody knows.
    ///
    /// # Errors
    /// What `work` says. The connection is gone then if it is lost, and so is an open block.
    pub async fn work<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Client, &mut Random, &AtomicBool) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Some(mut client) = self.client.take() else {
            return Err(Failure { told: Told::Refused, is_lost: true, said: "no connection".to_owned() });
        };
        let commits = AtomicBool::new(false);
        let worked = tokio::time::timeout(TRANSACTION, work(&mut client, &mut self.random, &commits)).await;
        let result = worked.unwrap_or_else(|_| {
            let told = if commits.load(Ordering::Relaxed) { Told::Unknown } else { Told::Refused };
            Err(Failure { told, is_lost: true, said: "timeout".to_owned() })
        });
        match &result {
            Err(failure) if failure.is_lost => {}
            Err(_) => {
                let ended = tokio::time::timeout(CONNECT, client.batch_execute("ROLLBACK")).await;
                self.client = matches!(ended, Ok(Ok(()))).then_some(client);
            }
            Ok(_) => self.client = Some(client),
        }
        if let Err(failure) = &result {
            self.progress.refused(&failure.said);
        }
        result
    }
}

/// Numbers that are given out once.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The next number.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }

    /// How many were given out.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}
