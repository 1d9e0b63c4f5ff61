//! Single statements on one row at a time: read it, set it, or set it if it holds what the client last saw.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio_postgres::Client;

use super::{KEYS, Verdict, Workload, number};
use crate::chaos::clients::{Counter, Failure, Session};
use crate::check::history::{Recorder, Told};
use crate::check::register::{Action, Call, Wrong, check};

/// Registers that are in use at a time.
const ACTIVE: u64 = 2;

/// Calls of a register before the next one takes its place: the search for an order is short, and so is a failure.
const CALLS: u64 = 150;

/// Registers of one history.
const REGISTERS: u64 = 200;

/// See the module.
pub struct Registers {
    number: u64,
    moments: Recorder,
    turns: Counter,
    values: Counter,
    /// By register.
    calls: Vec<Mutex<Vec<Call>>>,
}

impl Registers {
    /// The history of a number.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self {
            number,
            moments: Recorder::default(),
            turns: Counter::default(),
            values: Counter::default(),
            calls: (0..REGISTERS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Makes a call and writes it down.
    async fn call(&self, session: &mut Session, register: u64, action: Action) -> Result<(), Failure> {
        let key = self.number * KEYS + register;
        let statement = match action {
            Action::Read(_) => format!("SELECT v FROM registers WHERE k = {key}"),
            Action::Write(to) => format!("UPDATE registers SET v = {to} WHERE k = {key} RETURNING v"),
            Action::Swap { from, to, .. } => {
                format!("UPDATE registers SET v = {to} WHERE k = {key} AND v = {from} RETURNING v")
            }
        };
        let began = self.moments.moment();
        let result = session
            .work(async |client, _, commits| {
                commits.store(true, Ordering::Relaxed);
                let rows = client.query(&statement, &[]).await.map_err(|error| Failure::at_commit(&error))?;
                Ok(rows.first().map(|row| number(row.get(0))))
            })
            .await;
        let ended = self.moments.moment();
        let (told, action) = match &result {
            Err(failure) => (failure.told, action),
            Ok(found) => {
                let action = match action {
                    // A row that is not there at all is no value of any.
                    Action::Read(_) => Action::Read(found.unwrap_or(u64::MAX)),
                    Action::Write(to) => Action::Write(to),
                    Action::Swap { from, to, .. } => Action::Swap { from, to, did: found.is_some() },
                };
                (Told::Acknowledged, action)
            }
        };
        if told == Told::Acknowledged && !matches!(action, Action::Read(_)) {
            session.progress.wrote();
        }
        if let Some(calls) = self.calls.get(usize::try_from(register).unwrap_or(usize::MAX)) {
            calls.lock().push(Call { began, ended, told, action });
        }
        result.map(drop)
    }

    /// What a client of this register has seen last.
    fn seen(&self, register: u64) -> u64 {
        let calls = self.calls[usize::try_from(register).unwrap_or(0)].lock();
        let value = |call: &Call| match (call.told, call.action) {
            (Told::Acknowledged, Action::Read(value) | Action::Write(value)) => Some(value),
            (Told::Acknowledged, Action::Swap { to, did: true, .. }) => Some(to),
            _ => None,
        };
        calls.iter().rev().find_map(value).unwrap_or(0)
    }
}

#[async_trait]
impl Workload for Registers {
    fn name(&self) -> String {
        "register".to_owned()
    }

    async fn prepare(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        let first = self.number * KEYS;
        let rows: Vec<String> = (first..first + REGISTERS).map(|key| format!("({key}, 0)")).collect();
        client.batch_execute(&format!("INSERT INTO registers (k, v) VALUES {}", rows.join(", "))).await
    }

    async fn turn(&self, session: &mut Session, _process: &mut Option<u64>) {
        let turn = self.turns.next();
        let register = (turn / (CALLS * ACTIVE) * ACTIVE + turn % ACTIVE).min(REGISTERS - 1);
        let action = match session.random.range(0..10) {
            0..=4 => Action::Read(0),
            5..=6 => Action::Write(self.values.next() + 1),
            _ => Action::Swap { from: self.seen(register), to: self.values.next() + 1, did: false },
        };
        // It is written down how it ended.
        let _noted = self.call(session, register, action).await;
    }

    async fn last_look(&self, session: &mut Session) -> Result<(), Failure> {
        for register in 0..REGISTERS {
            if !self.calls[usize::try_from(register).unwrap_or(0)].lock().is_empty() {
                self.call(session, register, Action::Read(0)).await?;
            }
        }
        Ok(())
    }

    fn judge(&self) -> Verdict {
        let mut verdict = Verdict::default();
        for (register, calls) in self.calls.iter().enumerate() {
            let calls = calls.lock().clone();
            calls.iter().for_each(|call| verdict.count(call.told, 1));
            match check(&calls, 0) {
                Ok(()) => {}
                Err(Wrong::GaveUp) => verdict.wrong.push(format!("register {register} could not be judged")),
                Err(Wrong::NotLinearizable { explained }) => {
                    let all = calls.len();
                    verdict.wrong.push(format!(
                        "register {register}: no order explains more than {explained} of {all}"
                    ));
                }
            }
            if !verdict.wrong.is_empty() && verdict.history.is_empty() {
                verdict.history = calls.iter().map(|call| format!("{call:?}\n")).collect();
            }
        }
        verdict
    }
}
