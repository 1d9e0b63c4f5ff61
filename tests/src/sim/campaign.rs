//! Many runs, on several threads, until the time is over or so many are done; and what they come to together.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::json;

use super::{
    REGRESSIONS, SQL_REGRESSIONS,
    nemesis::{Fault, Strikes},
    oracle::Counts,
    run::{Course, Report},
    run_models, run_sql, run_stores,
};
use crate::gate::Gate;

/// What the clients of a run do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SQL sessions.
    Sql,
    /// Transactions of the stores.
    Stores,
    /// Lists in memory.
    Models,
}

impl Kind {
    /// What chooses it on the command line.
    #[must_use]
    pub const fn option(self) -> &'static str {
        match self {
            Self::Sql => "--sql",
            Self::Stores => "--stores",
            Self::Models => "--models",
        }
    }

    /// Runs it. A panic is an error, so that other runs go on.
    ///
    /// # Errors
    /// What the run panicked with.
    pub fn run(self, course: Course) -> Result<Report, String> {
        let run = match self {
            Self::Sql => run_sql,
            Self::Stores => run_stores,
            Self::Models => run_models,
        };
        caught(|| run(course))
    }
}

/// What something gives, or what it panicked with.
pub(super) fn caught<T>(run: impl FnOnce() -> T + std::panic::UnwindSafe) -> Result<T, String> {
    std::panic::catch_unwind(run).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
    })
}

/// One run of a campaign.
#[derive(Clone, Copy, Debug)]
struct Trip {
    kind: Kind,
    seed: u64,
    seconds: u64,
    /// Whether it is run twice, to see that it is the same.
    twice: bool,
}

/// Every so many runs one is run twice.
const TWICE_EVERY: u64 = 20;
/// Virtual time with faults of the seeds that found something once.
const REGRESSION_SECONDS: u64 = 3;

impl Trip {
    /// The run of this number: first what found something once, then new seeds from `base` on.
    fn of(number: u64, base: u64) -> Self {
        let known = REGRESSIONS.iter().map(|seed| (Kind::Stores, *seed));
        let mut known = known.chain(SQL_REGRESSIONS.iter().map(|seed| (Kind::Sql, *seed)));
        let count = known.clone().count() as u64;
        if let Some((kind, seed)) = usize::try_from(number).ok().and_then(|number| known.nth(number)) {
            return Self { kind, seed, seconds: REGRESSION_SECONDS, twice: false };
        }
        let number = number - count;
        // Coprime, so that each kind has runs of each length, and each of both twice.
        let kind = match number % 7 {
            0..4 => Kind::Sql,
            4 | 5 => Kind::Stores,
            _ => Kind::Models,
        };
        let seconds = [3, 15, 60, 200, 600][usize::try_from(number % 5).unwrap_or(0)];
        let twice = number.is_multiple_of(TWICE_EVERY + 1);
        Self { kind, seed: base.wrapping_add(number), seconds, twice }
    }

    fn name(&self) -> String {
        format!("--seed {} --seconds {} {}", self.seed, self.seconds, self.kind.option())
    }

    /// What is wrong, and the report.
    fn run(&self) -> (Vec<String>, Option<Report>) {
        let course = Course::new(self.seed, Duration::from_secs(self.seconds));
        let report = match self.kind.run(course) {
            Ok(report) => report,
            Err(panic) => return (vec![panic], None),
        };
        let mut wrong = report.wrong.clone();
        if self.twice {
            match self.kind.run(course) {
                Ok(again) if again == report => {}
                Ok(again) => wrong.push(format!(
                    "it is not the same when it is run again: {:x} and then {:x}",
                    report.trace_hash, again.trace_hash
                )),
                Err(panic) => wrong.push(panic),
            }
        }
        (wrong, Some(report))
    }
}

/// What many runs come to.
#[derive(Clone, Debug, Default)]
struct Total {
    runs: u64,
    pairs: u64,
    virtual_time: Duration,
    busy: Duration,
    terms: usize,
    steps: u64,
    operations: Counts,
    strikes: Strikes,
    kinds: BTreeMap<&'static str, u64>,
}

impl Total {
    fn add(&mut self, trip: &Trip, report: &Report, took: Duration) {
        let times = if trip.twice { 2 } else { 1 };
        self.runs += 1;
        self.pairs += u64::from(trip.twice);
        self.virtual_time += report.virtual_time * times;
        self.busy += took;
        self.terms += report.terms;
        self.steps += report.steps * u64::from(times);
        self.operations.add(report.operations);
        self.strikes.add(&report.strikes);
        *self.kinds.entry(trip.kind.option()).or_default() += 1;
    }

    fn figures(&self) -> String {
        let Counts { acknowledged, refused, unknown, reads, steps } = self.operations;
        let kinds: Vec<String> = self.kinds.iter().map(|(kind, runs)| format!("{runs} {kind}")).collect();
        let strikes: Vec<String> =
            self.strikes.0.iter().map(|(fault, count)| format!("{fault:?} {count}")).collect();
        format!(
            "faults struck: {}\n{} seeds ({}), {:.1} cluster-hours at {:.0} times real time per core, {} pairs of equal \
             seeds, {} leaders, {} polls; {} transactions with {acknowledged} acknowledged, {reads} read, {refused} \
             refused, {unknown} unknown, of {steps} operations on lists; {} of {} kinds of faults",
            strikes.join(", "),
            self.runs,
            kinds.join(", "),
            self.virtual_time.as_secs_f64() / 3600.0,
            self.virtual_time.as_secs_f64() / self.busy.as_secs_f64().max(0.001),
            self.pairs,
            self.terms,
            self.steps,
            acknowledged + refused + unknown + reads,
            self.strikes.0.len(),
            Fault::ALL.len(),
        )
    }
}

/// Runs seed after seed from `base` on, until the gate's time is over or `runs_max` are done. What is wrong is told to
/// the gate. Gives the figures of it all.
pub fn campaign(gate: &mut Gate, base: u64, runs_max: u64, jobs: u64) -> String {
    let next = AtomicU64::new(0);
    let total = Mutex::new(Total::default());
    let shared = Mutex::new(gate);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= runs_max || shared.lock().is_over() {
                        return;
                    }
                    let trip = Trip::of(number, base);
                    let name = trip.name();
                    if shared.lock().is_done(&name) {
                        continue;
                    }
                    let started = std::time::Instant::now();
                    let (wrong, report) = trip.run();
                    let took = started.elapsed();
                    let mut figures = json!({ "took_s": took.as_secs_f64() });
                    if let Some(report) = report {
                        total.lock().add(&trip, &report, took);
                        figures["virtual_s"] = json!(report.virtual_time.as_secs_f64());
                        figures["nodes"] = json!(report.nodes);
                        figures["transactions"] =
                            json!(report.operations.acknowledged + report.operations.reads);
                    }
                    let mut gate = shared.lock();
                    if wrong.is_empty() {
                        gate.passed_quietly(&name, &figures);
                    } else {
                        gate.failed(&name, wrong.join("\n  "));
                    }
                }
            });
        }
    });
    let total = total.into_inner();
    total.figures()
}
