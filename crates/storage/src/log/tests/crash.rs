//! The power fails at any write, sync or rename: what was acknowledged is there afterwards, what was not is there
//! up to some point or not at all, and never anything else.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustydb_env::Rng;
use rustydb_env::sim::{DiskFaults, SimNode, Simulation};

use super::super::GroupLogState;
use super::*;

const LIMIT: Duration = Duration::from_secs(600);
const GROUPS: u64 = 3;

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
    model: Model,
    counter: u64,
}

fn config() -> LogConfig {
    LogConfig { segment_bytes: 16 << 10, ..small() }
}

impl World {
    fn new(seed: u64) -> Self {
        let simulation = Simulation::new(seed);
        let node = simulation.add_node();
        let rng = simulation.harness().rng();
        Self { simulation, node, rng, model: Model::new(), counter: 0 }
    }

    fn open(&self) -> Result<Log, LogError> {
        Log::open(&self.simulation.env(self.node), Path::new("/data/log"), config())
    }

    fn cut_power_after(&self, changes: u64) {
        let faults = DiskFaults { power_cut_after: Some(changes), ..DiskFaults::default() };
        self.simulation.disk(self.node).set_faults(faults);
    }

    /// Draws a step that is valid for what was submitted so far.
    fn draw(&mut self, group: u64, live: &Model) -> Vec<Step> {
        self.counter += 1;
        let tag = Bytes::from(format!("{}:{group}", self.counter));
        let known = live.get(&group).cloned().unwrap_or_default();
        let last = known.state.last;
        let first = known.entries.first().map(|entry| entry.index.get());
        match self.rng.range(0..100) {
            0..50 => {
                let start = last.map_or(self.rng.range(0..2), |last| last.index.get() + 1);
                let term = last.map_or(1, |last| last.term.get()) + u64::from(self.rng.chance(1, 5));
                let count = self.rng.range(1..8);
                let size = usize::try_from(self.rng.range(0..900)).unwrap();
                entries(term, start..start + count, size).into_iter().map(Step::Entry).collect()
            }
            50..60 => vec![Step::Vote(tag)],
            60..72 => vec![Step::Committed(tag)],
            72..80 => match (first, last) {
                (Some(first), Some(last)) => {
                    let keep = self.rng.range(first..last.index.get() + 1);
                    vec![Step::Truncate(Some(index(keep)))]
                }
                _ => vec![Step::Vote(tag)],
            },
            80..97 => match (first, last) {
                (Some(first), Some(last)) => {
                    let at = self.rng.range(first..last.index.get() + 1);
                    let through = known.entries.iter().find(|entry| entry.index.get() == at).unwrap();
                    vec![Step::Purge(LogPosition::new(through.term, through.index), tag)]
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
            let one = log.group(group(id));
            match &steps[0] {
                Step::Entry(_) => {
                    let entries = steps.iter().map(|step| match step {
                        Step::Entry(entry) => entry.clone(),
                        other => panic!("an entry among {other:?}"),
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
                Step::Remove => log.remove_group(group(id), completion),
            }
            assert_eq!(
                one.state(),
                live.get(&id).map_or_else(GroupLogState::default, |group| group.state.clone())
            );
            if self.rng.chance(1, 4) && self.simulation.block_on(LIMIT, receiver) == Ok(Ok(false)) {
                break;
            }
        }
        let mut history = history.lock();
        History { steps: std::mem::take(&mut history.steps), acknowledged: history.acknowledged }
    }

    /// Crashes the node and opens its log again, with more power cuts on the way; the log must hold the model after
    /// some number of steps that is at least the number acknowledged.
    fn crash_and_check(&mut self, history: &History, seed: u64) -> Log {
        let log = loop {
            self.simulation.crash(self.node);
            if self.rng.chance(1, 3) {
                let changes = self.rng.range(0..12);
                self.cut_power_after(changes);
            }
            match self.open() {
                Ok(log) => break log,
                Err(error) => {
                    let cut =
                        matches!(&error, LogError::Io { source, .. } if source.to_string().contains("power"));
                    assert!(cut, "seed {seed}: {error}");
                }
            }
        };
        self.simulation.disk(self.node).set_faults(DiskFaults::default());
        let found: Model = (1..=GROUPS)
            .map(|id| {
                let one = log.group(group(id));
                (id, ModelGroup { state: one.state(), entries: all(&one) })
            })
            .collect();
        let mut candidate: Model =
            (1..=GROUPS).map(|id| (id, self.model.get(&id).cloned().unwrap_or_default())).collect();
        let mut applied = 0;
        loop {
            if applied >= history.acknowledged && candidate == found {
                self.model = found;
                return log;
            }
            let Some((id, step)) = history.steps.get(applied) else {
                panic!(
                    "seed {seed}: after {} acknowledged of {} steps the log holds {found:#?}",
                    history.acknowledged,
                    history.steps.len()
                );
            };
            candidate.entry(*id).or_default().apply(step);
            applied += 1;
        }
    }
}

/// Random work, power cuts at random changes, over and over on one disk.
#[test]
fn acknowledged_work_survives_power_cuts_and_nothing_else_appears() {
    let (mut cycles, mut acknowledged, mut lost) = (0, 0, 0);
    for seed in 0..60 {
        let mut world = World::new(seed);
        let mut log = world.open().unwrap();
        for _ in 0..6 {
            let changes = world.rng.range(0..60);
            world.cut_power_after(changes);
            let history = world.work(&log, 150);
            drop(log);
            log = world.crash_and_check(&history, seed);
            cycles += 1;
            acknowledged += history.acknowledged;
            lost += history.steps.len() - history.acknowledged;
        }
    }
    assert!(cycles == 360 && acknowledged > 5_000 && lost > 1_000, "{cycles} {acknowledged} {lost}");
}

/// One fixed piece of work, with the power cut at each of its changes in turn.
#[test]
fn the_power_may_be_cut_at_every_single_change() {
    let run = |changes: Option<u64>| {
        let mut world = World::new(7);
        let log = world.open().unwrap();
        if let Some(changes) = changes {
            world.cut_power_after(changes);
        }
        let before = world.simulation.disk(world.node).change_count();
        let history = world.work(&log, 120);
        let count = world.simulation.disk(world.node).change_count() - before;
        drop(log);
        drop(world.crash_and_check(&history, 7));
        count
    };
    let total = run(None);
    assert!(total > 60, "{total}");
    for changes in 0..total {
        run(Some(changes));
    }
}

/// Closing in good order loses nothing, whatever was waited for.
#[test]
fn a_closed_log_holds_everything() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        for _ in 0..3 {
            let log = world.open().unwrap();
            let mut history = world.work(&log, 60);
            let closing = log.clone();
            world.simulation.block_on(LIMIT, async move { closing.close().await }).unwrap();
            history.acknowledged = history.steps.len();
            drop(log);
            drop(world.crash_and_check(&history, seed));
            world.simulation.crash(world.node);
        }
    }
}

#[test]
fn one_seed_gives_one_run() {
    let run = |seed| {
        let mut world = World::new(seed);
        let log = world.open().unwrap();
        world.cut_power_after(50);
        let history = world.work(&log, 80);
        drop(log);
        drop(world.crash_and_check(&history, seed));
        (world.simulation.trace_hash(), history.acknowledged)
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}
