//! Many runs, on several threads, until the time is over or so many are done; and what they come to together.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::json;

use super::{
    REGRESSIONS,
    churn::Churn,
    nemesis::{Fault, Strikes},
    oracle::Counts,
    panics::caught,
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

/// One run of a campaign.
#[derive(Clone, Copy, Debug)]
struct Trip {
    kind: Kind,
    seed: u64,
    seconds: u64,
    /// Whether it is run twice, to see that it is the same.
    twice: bool,
    /// Whether members come and go all the time.
    churns: bool,
    /// Whether the logs of all nodes are held against each other all the time.
    watches_logs: bool,
}

/// Of so many runs one has members come and go all the time, unless it is a long one. Coprime to the turns of the kinds
/// and lengths.
const CHURN_EVERY: u64 = 9;
/// Virtual time with faults of such a run: enough for some turns from seven voters to three and back.
const CHURN_SECONDS: u64 = 30;
/// One of so many runs is run twice.
const TWICE_EVERY: u64 = 19;
/// Of so many runs one has its logs watched, which makes it longer. Coprime to all other turns.
const WATCH_EVERY: u64 = 8;

impl Trip {
    /// The run of this number: first what found something once, then new seeds from `base` on.
    fn of(number: u64, base: u64) -> Self {
        let known = usize::try_from(number).ok().and_then(|number| REGRESSIONS.get(number));
        if let Some((kind, seed, seconds)) = known.copied() {
            return Self { kind, seed, seconds, twice: false, churns: false, watches_logs: true };
        }
        let number = number - REGRESSIONS.len() as u64;
        // Coprime, so that each kind has runs of each length, and each of both twice.
        let kind = match number % 7 {
            0..4 => Kind::Sql,
            4 | 5 => Kind::Stores,
            _ => Kind::Models,
        };
        let seconds = [3, 15, 60, 200, 600][usize::try_from(number % 5).unwrap_or(0)];
        let twice = number.is_multiple_of(TWICE_EVERY);
        let churns = number % CHURN_EVERY == CHURN_EVERY / 2 && seconds <= 60;
        let seconds = if churns { CHURN_SECONDS } else { seconds };
        let watches_logs = number % WATCH_EVERY == WATCH_EVERY / 2;
        Self { kind, seed: base.wrapping_add(number), seconds, twice, churns, watches_logs }
    }

    fn name(&self) -> String {
        let churn = if self.churns { " --churn" } else { "" };
        let watch = if self.watches_logs { " --watch-logs" } else { "" };
        format!("--seed {} --seconds {} {}{churn}{watch}", self.seed, self.seconds, self.kind.option())
    }

    /// What is wrong, and the report.
    fn run(&self) -> (Vec<String>, Option<Report>) {
        let course = Course::new(self.seed, Duration::from_secs(self.seconds));
        let course = Course { churns: self.churns, watches_logs: self.watches_logs, ..course };
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
pub struct Total {
    runs: u64,
    pairs: u64,
    virtual_time: Duration,
    /// Of seeds that were run again.
    repeated: Duration,
    busy: Duration,
    terms: usize,
    steps: u64,
    operations: Counts,
    strikes: Strikes,
    /// Runs in which a group went from all seven to three voters and back, with links cut in one direction or bridges.
    churned: u64,
    churn: Churn,
    /// Runs whose logs were held against each other all the time.
    watched: u64,
    kinds: BTreeMap<&'static str, u64>,
}

impl Total {
    fn add(&mut self, trip: &Trip, report: &Report, took: Duration) {
        let times = if trip.twice { 2 } else { 1 };
        self.runs += 1;
        self.pairs += u64::from(trip.twice);
        self.virtual_time += report.virtual_time;
        self.repeated += report.virtual_time * (times - 1);
        self.busy += took;
        self.terms += report.terms;
        self.steps += report.steps * u64::from(times);
        self.operations.add(report.operations);
        self.strikes.add(&report.strikes);
        self.churn.add(report.churn);
        let has = |fault: Fault| report.strikes.0.get(&fault).is_some_and(|count| *count > 0);
        let is_asymmetric = has(Fault::OneWayCut) || has(Fault::Bridge);
        self.churned += u64::from(is_asymmetric && report.churn.shrunk > 0 && report.churn.grown > 0);
        self.watched += u64::from(trip.watches_logs);
        *self.kinds.entry(trip.kind.option()).or_default() += 1;
    }

    /// What a campaign may be required to come to: different seeds, hours of virtual time, pairs of equal runs, operations
    /// in the histories that were checked, seeds in which a group went from seven voters to three and back while links
    /// were cut in one direction or nodes had just one other in common, seeds whose logs were watched, kinds of faults,
    /// and how many times real time a core simulates.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts that are printed and compared with floors")]
    pub fn counts(&self) -> [(&'static str, f64); 8] {
        [
            ("seeds", self.runs as f64),
            ("hours", self.virtual_time.as_secs_f64() / 3600.0),
            ("pairs", self.pairs as f64),
            ("steps", self.operations.steps as f64),
            ("churns", self.churned as f64),
            ("watched", self.watched as f64),
            ("kinds", self.strikes.0.len() as f64),
            ("speed", self.speed()),
        ]
    }

    fn speed(&self) -> f64 {
        (self.virtual_time + self.repeated).as_secs_f64() / self.busy.as_secs_f64().max(0.001)
    }

    /// What is printed of it.
    #[must_use]
    pub fn figures(&self) -> String {
        let Counts { acknowledged, refused, unknown, reads, steps } = self.operations;
        let kinds: Vec<String> = self.kinds.iter().map(|(kind, runs)| format!("{runs} {kind}")).collect();
        let strikes: Vec<String> =
            self.strikes.0.iter().map(|(fault, count)| format!("{fault:?} {count}")).collect();
        format!(
            "faults struck: {}\nchurn with one-way/bridge partitions: {} seeds from 7 voters to 3 and back ({} voters \
             added, {} removed, {} times down, {} times up)\n{} seeds ({}), {:.1} cluster-hours at {:.0} times real \
             time per core, {} pairs of equal seeds, {} with the logs watched, {} leaders, {} polls; {} transactions with \
             {acknowledged} acknowledged, {reads} read, {refused} refused, {unknown} unknown, of {steps} operations on lists; {} of {} kinds of faults",
            strikes.join(", "),
            self.churned,
            self.churn.added,
            self.churn.removed,
            self.churn.shrunk,
            self.churn.grown,
            self.runs,
            kinds.join(", "),
            self.virtual_time.as_secs_f64() / 3600.0,
            self.speed(),
            self.pairs,
            self.watched,
            self.terms,
            self.steps,
            acknowledged + refused + unknown + reads,
            self.strikes.0.len(),
            Fault::ALL.len(),
        )
    }
}

/// Runs seed after seed from `base` on, until the gate's time is over or `runs_max` are done. What is wrong is told to
/// the gate.
pub fn campaign(gate: &mut Gate, base: u64, runs_max: u64, jobs: u64) -> Total {
    let next = AtomicU64::new(0);
    let total = Mutex::new(Total::default());
    let shared = Mutex::new(gate);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let counts = total.lock().counts();
                    if number >= runs_max || !shared.lock().goes_on(&counts) {
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
    total.into_inner()
}
