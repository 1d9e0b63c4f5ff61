//! The log alone: random work, and power that fails at any write, sync or rename, an operation that fails, or a process
//! that is killed. What was acknowledged is there afterwards, what was not is there up to some point or not at all, and
//! never anything else.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustydb_env::Rng;
use rustydb_env::sim::{DiskFailure, DiskFaults, SimNode, Simulation};
use rustydb_storage::log::{Completion, GroupLog, GroupLogState, Log, LogConfig, LogEntry, LogError};
use rustydb_types::ids::{GroupId, LogIndex, Term};
use rustydb_types::position::LogPosition;
use tokio::sync::oneshot;

use super::run::Course;

/// Longest wait for the log, in virtual time.
const LIMIT: Duration = Duration::from_secs(600);
/// Groups that share the log.
const GROUPS: u64 = 3;
/// Steps between two crashes, at most.
const STEPS_MAX: u64 = 150;
/// Crashes of one run.
const CRASHES: u64 = 30;
/// Of so many runs three have little but appends of one size, and crashes soon after each start: what is left of an old
/// batch may then begin where a new one ends.
const EVEN_OF: u64 = 8;
/// Changes of the disk between two crashes there, at most.
const EVEN_CHANGES_MAX: u64 = 12;
/// Size of an entry's body there.
const EVEN_BYTES: usize = 40;

/// What a run on the log alone came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogReport {
    /// Steps that were acknowledged.
    pub acknowledged: u64,
    /// Fingerprint of the run.
    pub trace_hash: u64,
    /// What was wrong; empty in a good run.
    pub wrong: Vec<String>,
}

/// Random work on one log and crashes at random changes of its disk, from a seed. The duration is not used.
#[must_use]
pub fn run_log(course: Course) -> LogReport {
    let mut world = World::new(course);
    let mut log = world.open().ok();
    for _ in 0..CRASHES {
        let Some(open) = log.take() else { break };
        let changes = world.rng.range(0..if world.is_even { EVEN_CHANGES_MAX } else { 60 });
        world.fail_after(changes);
        let history = world.work(&open, STEPS_MAX);
        drop(open);
        log = world.crash_and_check(&history);
    }
    world.report()
}

/// One fixed piece of work, with the power cut at one change of the disk, if it has so many. Gives the report, and how
/// many changes there are.
#[must_use]
pub fn run_log_cut_at(course: Course, change: Option<u64>) -> (LogReport, u64) {
    let mut world = World::new(course);
    let Ok(log) = world.open() else { return (world.report(), 0) };
    if let Some(change) = change {
        world.cut_power_after(change);
    }
    let before = world.simulation.disk(world.node).change_count();
    let history = world.work(&log, STEPS_MAX);
    let count = world.simulation.disk(world.node).change_count() - before;
    drop(log);
    drop(world.crash_and_check(&history));
    (world.report(), count)
}

/// Logs that are closed in good order lose nothing, whatever was waited for.
#[must_use]
pub fn run_log_closed(course: Course) -> LogReport {
    let mut world = World::new(course);
    for _ in 0..CRASHES {
        let Ok(log) = world.open() else { break };
        let mut history = world.work(&log, STEPS_MAX);
        let closing = log.clone();
        if let Err(error) = world.simulation.block_on(LIMIT, async move { closing.close().await }) {
            world.wrong.push(format!("it is not closed: {error}"));
        }
        history.acknowledged = history.steps.len();
        drop(log);
        drop(world.crash_and_check(&history));
        world.simulation.crash(world.node);
    }
    world.report()
}

/// One record, as the model sees it. All groups share one order.
#[derive(Clone, Debug)]
enum Step {
    Entry(LogEntry),
    Vote(Bytes),
    Committed(Bytes),
    Truncate(Option<LogIndex>),
    Purge(LogPosition, Bytes),
    Remove,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ModelGroup {
    state: GroupLogState,
    entries: Vec<LogEntry>,
}

type Model = BTreeMap<u64, ModelGroup>;

impl ModelGroup {
    fn settle(&mut self) {
        let purged = self.state.purged.as_ref().map(|(position, _)| *position);
        self.state.last = self.entries.last().map(|last| LogPosition::new(last.term, last.index)).or(purged);
    }

    fn apply(&mut self, step: &Step) {
        match step.clone() {
            Step::Entry(entry) => self.entries.push(entry),
            Step::Vote(vote) => self.state.vote = Some(vote),
            Step::Committed(committed) => self.state.committed = Some(committed),
            Step::Truncate(keep) => self.entries.retain(|entry| keep.is_some_and(|keep| entry.index <= keep)),
            Step::Purge(through, opaque) => {
                self.entries.retain(|entry| entry.index > through.index);
                self.state.purged = Some((through, opaque));
            }
            Step::Remove => *self = Self::default(),
        }
        self.settle();
    }
}

/// Steps that were submitted, and how many of them are acknowledged.
#[derive(Default)]
struct History {
    steps: Vec<(u64, Step)>,
    acknowledged: usize,
}

/// A world with one node and what its log must hold.
struct World {
    simulation: Simulation,
    node: SimNode,
    rng: Rng,
    /// See [`EVEN_OF`].
    is_even: bool,
    model: Model,
    counter: u64,
    acknowledged: u64,
    wrong: Vec<String>,
}

/// Small segments, so that a run fills several.
fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 16 << 10,
        spare_count: 1,
        tail_cache_bytes: 4 << 10,
        queue_bytes_max: 256 << 10,
        batch_bytes_max: 32 << 10,
        reserve_bytes: 0,
    }
}

const fn position(term: u64, index: u64) -> LogPosition {
    LogPosition::new(Term::new(term), LogIndex::new(index))
}

/// An entry whose body tells which it is.
fn entry(term: u64, index: u64, size: usize) -> LogEntry {
    let mut body = format!("{term}-{index}:").into_bytes();
    body.resize(body.len().max(size), u8::try_from(index % 251).unwrap_or(0));
    LogEntry { index: LogIndex::new(index), term: Term::new(term), body: Bytes::from(body) }
}

/// Whether the disk failed because it was to.
fn is_planned(error: &std::io::Error) -> bool {
    let text = error.to_string();
    text.contains("power") || text.contains("simulated error")
}

/// Everything a group holds.
fn all(log: &GroupLog) -> Result<Vec<LogEntry>, LogError> {
    let mut entries = Vec::new();
    let mut from = log.first_index();
    loop {
        let read = log.read(from..LogIndex::new(u64::MAX), 10_000)?;
        let Some(last) = read.last() else { return Ok(entries) };
        from = last.index.next();
        entries.extend(read);
    }
}

impl World {
    fn new(course: Course) -> Self {
        let simulation = Simulation::new(course.seed);
        #[cfg(feature = "planted_bugs")]
        if let Some(bug) = course.bug {
            simulation.plant(bug);
        }
        let node = simulation.add_node();
        let rng = simulation.harness().rng();
        let (model, wrong) = (Model::new(), Vec::new());
        let is_even = matches!(course.seed % EVEN_OF, 2 | 4 | 6);
        Self { simulation, node, rng, is_even, model, counter: 0, acknowledged: 0, wrong }
    }

    fn open(&self) -> Result<Log, LogError> {
        Log::open(&self.simulation.env(self.node), Path::new("/data/log"), config())
    }

    fn cut_power_after(&self, changes: u64) {
        let faults = DiskFaults { power_cut_after: Some(changes), ..DiskFaults::default() };
        self.simulation.disk(self.node).set_faults(faults);
    }

    /// Mostly the power is cut there, at times one operation fails.
    fn fail_after(&mut self, changes: u64) {
        if !self.rng.chance(1, 4) {
            return self.cut_power_after(changes);
        }
        let failure_after = Some((changes, DiskFailure::Error));
        self.simulation.disk(self.node).set_faults(DiskFaults { failure_after, ..DiskFaults::default() });
    }

    /// Draws a step that is valid for what was submitted so far.
    fn draw(&mut self, group: u64, live: &Model) -> Vec<Step> {
        self.counter += 1;
        let tag = Bytes::from(format!("{}:{group}", self.counter));
        let known = live.get(&group).cloned().unwrap_or_default();
        let last = known.state.last;
        let first = known.entries.first().map(|entry| entry.index.get());
        let appends = self.is_even && self.rng.chance(9, 10);
        match if appends { 0 } else { self.rng.range(0..100) } {
            0..50 => {
                let start = last.map_or(self.rng.range(0..2), |last| last.index.get() + 1);
                let term = last.map_or(1, |last| last.term.get()) + u64::from(self.rng.chance(1, 5));
                let count = self.rng.range(1..8);
                let drawn = usize::try_from(self.rng.range(0..900)).unwrap_or(0);
                let size = if self.is_even { EVEN_BYTES } else { drawn };
                (start..start + count).map(|index| Step::Entry(entry(term, index, size))).collect()
            }
            50..60 => vec![Step::Vote(tag)],
            60..72 => vec![Step::Committed(tag)],
            72..80 => match (first, last) {
                (Some(first), Some(last)) => {
                    let keep = self.rng.range(first..last.index.get() + 1);
                    vec![Step::Truncate(Some(LogIndex::new(keep)))]
                }
                _ => vec![Step::Vote(tag)],
            },
            80..97 => match (first, last) {
                (Some(first), Some(last)) => {
                    let at = self.rng.range(first..last.index.get() + 1);
                    let through = known.entries.iter().find(|entry| entry.index.get() == at);
                    let through = through.map(|through| LogPosition::new(through.term, through.index));
                    through.map(|through| Step::Purge(through, tag)).into_iter().collect()
                }
                (None, Some(last)) => {
                    vec![Step::Purge(position(last.term.get() + 1, last.index.get() + 5), tag)]
                }
                _ => vec![Step::Vote(tag)],
            },
            97 => vec![Step::Truncate(None)],
            _ => vec![Step::Remove],
        }
    }

    /// Submits random steps; some are waited for. Ends when the log fails or `rounds` are through.
    fn work(&mut self, log: &Log, rounds: u64) -> History {
        let history = Arc::new(Mutex::new(History::default()));
        let mut live = self.model.clone();
        for _ in 0..rounds {
            let id = self.rng.range(1..GROUPS + 1);
            let steps = self.draw(id, &live);
            for step in &steps {
                live.entry(id).or_default().apply(step);
            }
            let submitted = {
                let mut history = history.lock();
                history.steps.extend(steps.iter().map(|step| (id, step.clone())));
                history.steps.len()
            };
            let acknowledge = Arc::clone(&history);
            let (sender, receiver) = oneshot::channel();
            let completion: Completion = Box::new(move |result| {
                if result.is_ok() {
                    // Completions come in order, so the last good one stands for all before it.
                    acknowledge.lock().acknowledged = submitted;
                }
                let _gone = sender.send(result.is_ok());
            });
            let one = log.group(GroupId::new(id));
            let Some(first) = steps.first() else { continue };
            match first {
                Step::Entry(_) => {
                    let entries = steps.iter().filter_map(|step| match step {
                        Step::Entry(entry) => Some(entry.clone()),
                        _ => None,
                    });
                    one.append(entries.collect(), completion);
                }
                Step::Vote(vote) => one.save_vote(vote.clone(), completion),
                Step::Committed(committed) => {
                    one.save_committed(committed.clone());
                    continue;
                }
                Step::Truncate(keep) => one.truncate_after(*keep, completion),
                Step::Purge(through, opaque) => one.purge_through(*through, opaque.clone(), completion),
                Step::Remove => log.remove_group(GroupId::new(id), completion),
            }
            let told = live.get(&id).map_or_else(GroupLogState::default, |group| group.state.clone());
            if one.state() != told {
                self.wrong.push(format!("group {id} is said to be {:?} and should be {told:?}", one.state()));
            }
            if self.rng.chance(1, 4) && self.simulation.block_on(LIMIT, receiver) == Ok(Ok(false)) {
                break;
            }
        }
        let mut history = history.lock();
        self.acknowledged += history.acknowledged as u64;
        History { steps: std::mem::take(&mut history.steps), acknowledged: history.acknowledged }
    }

    fn report(self) -> LogReport {
        let trace_hash = self.simulation.trace_hash();
        LogReport { acknowledged: self.acknowledged, trace_hash, wrong: self.wrong }
    }

    /// Crashes the node, or kills its process, and opens its log again, with more failures on the way; the log must
    /// hold the model after some number of steps that is at least the number acknowledged. [`None`] when it does not.
    fn crash_and_check(&mut self, history: &History) -> Option<Log> {
        let log = loop {
            if self.rng.chance(1, 4) {
                self.simulation.kill(self.node);
            } else {
                self.simulation.crash(self.node);
            }
            if self.rng.chance(1, 3) {
                let changes = self.rng.range(0..12);
                self.fail_after(changes);
            }
            match self.open() {
                Ok(log) => break log,
                Err(LogError::Io { source, .. }) if is_planned(&source) => {}
                Err(error) => {
                    self.wrong.push(format!("the log cannot be opened: {error}"));
                    return None;
                }
            }
        };
        self.simulation.disk(self.node).set_faults(DiskFaults::default());
        let mut found = Model::new();
        for id in 1..=GROUPS {
            let one = log.group(GroupId::new(id));
            match all(&one) {
                Ok(entries) => drop(found.insert(id, ModelGroup { state: one.state(), entries })),
                Err(error) => {
                    self.wrong.push(format!("group {id} cannot be read: {error}"));
                    return None;
                }
            }
        }
        let mut candidate: Model =
            (1..=GROUPS).map(|id| (id, self.model.get(&id).cloned().unwrap_or_default())).collect();
        let mut applied = 0;
        loop {
            if applied >= history.acknowledged && candidate == found {
                self.model = found;
                return Some(log);
            }
            let Some((id, step)) = history.steps.get(applied) else {
                self.wrong.push(format!(
                    "after {} acknowledged of {} steps the log holds {found:?}",
                    history.acknowledged,
                    history.steps.len()
                ));
                return None;
            };
            candidate.entry(*id).or_default().apply(step);
            applied += 1;
        }
    }
}
