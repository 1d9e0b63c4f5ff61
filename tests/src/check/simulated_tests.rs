//! Thousands of histories of a small simulated database that keeps a level by its definition: all must pass at that
//! level; and what is changed in them afterwards must be found, or both checkers must find it harmless.

use std::collections::BTreeMap;

use super::history::{Operation, Step, Told};
use super::lists::{Level, check};
use super::second;
use crate::chaos::random::Random;

type Lists = BTreeMap<u64, Vec<u64>>;

/// A transaction under way at a client.
struct Running {
    began: u64,
    process: u64,
    /// Number of commits that its snapshot holds.
    snapshot: usize,
    own: Vec<(u64, u64)>,
    steps: Vec<Step>,
    left: u64,
}

/// The database: the state after each commit, and what each commit read and wrote.
struct Database {
    level: Level,
    states: Vec<Lists>,
    writes: Vec<Vec<u64>>,
}

impl Database {
    fn read(&self, running: &Running, key: u64) -> Vec<u64> {
        let at = if self.level == Level::ReadCommitted { self.states.len() - 1 } else { running.snapshot };
        let mut list = self.states[at].get(&key).cloned().unwrap_or_default();
        list.extend(running.own.iter().filter(|(of, _)| *of == key).map(|(_, value)| value));
        list
    }

    /// Whether another has written since the snapshot what this one wrote, or, for SERIALIZABLE, read.
    fn conflicts(&self, running: &Running) -> bool {
        let touches = |key: &u64| match self.level {
            Level::ReadCommitted => false,
            Level::Snapshot => running.own.iter().any(|(own, _)| own == key),
            Level::Serializable => running.steps.iter().any(|step| step.key() == *key),
        };
        self.writes[running.snapshot..].iter().flatten().any(touches)
    }

    fn commit(&mut self, running: &Running) {
        let mut state = self.states[self.states.len() - 1].clone();
        for (key, value) in &running.own {
            state.entry(*key).or_default().push(*value);
        }
        self.states.push(state);
        self.writes.push(running.own.iter().map(|(key, _)| *key).collect());
    }
}

/// One history of a database that is right.
fn simulate(seed: u64, level: Level, transactions: u64) -> Vec<Operation> {
    let mut random = Random::new(seed);
    let mut database = Database { level, states: vec![Lists::new()], writes: Vec::new() };
    let (mut moment, mut value, mut processes) = (0, 0, 4);
    let mut clients: Vec<Option<Running>> = (0..4).map(|_| None).collect();
    let mut process_of: Vec<u64> = (0..4).collect();
    let mut history = Vec::new();
    let mut started = 0;
    while started < transactions || clients.iter().any(Option::is_some) {
        moment += 1;
        let client = random.index(clients.len());
        let Some(running) = &mut clients[client] else {
            if started < transactions {
                started += 1;
                clients[client] = Some(Running {
                    began: moment,
                    process: process_of[client],
                    snapshot: database.states.len() - 1,
                    own: Vec::new(),
                    steps: Vec::new(),
                    left: random.range(1..5),
                });
            }
            continue;
        };
        if running.left > 0 {
            running.left -= 1;
            let key = random.range(0..3);
            // A row that was changed under READ COMMITTED is locked: others that change it wait, here for ever.
            let is_free = clients.iter().flatten().all(|other| other.own.iter().all(|(own, _)| *own != key));
            let running = clients[client].as_mut().unwrap();
            if random.chance(1, 2) && (is_free || level != Level::ReadCommitted) {
                value += 1;
                running.own.push((key, value));
                running.steps.push(Step::Append { key, value });
            } else {
                let found = database.read(running, key);
                running.steps.push(Step::List { key, found });
            }
            continue;
        }
        let running = clients[client].take().unwrap();
        let is_lost = random.chance(1, 20);
        // What is lost on its way to the server is not committed either.
        let is_refused = random.chance(1, if is_lost { 2 } else { 20 });
        let commits = !database.conflicts(&running) && !is_refused;
        if commits {
            database.commit(&running);
        }
        let told = match (is_lost, commits) {
            (true, _) => Told::Unknown,
            (false, true) => Told::Acknowledged,
            (false, false) => Told::Refused,
        };
        if is_lost {
            process_of[client] = processes;
            processes += 1;
        }
        let Running { began, process, steps, .. } = running;
        history.push(Operation { process, began, ended: moment, told, steps });
    }
    let end = database.states.last().unwrap();
    let steps =
        (0..3).map(|key| Step::List { key, found: end.get(&key).cloned().unwrap_or_default() }).collect();
    history.push(Operation {
        process: 999,
        began: moment + 1,
        ended: moment + 2,
        told: Told::Acknowledged,
        steps,
    });
    history
}

#[test]
fn histories_of_a_right_database_are_clean() {
    for seed in 0..1200 {
        let level = Level::ALL[usize::try_from(seed % 3).unwrap()];
        let history = simulate(seed, level, 40);
        assert_eq!(check(&history, level), [], "seed {seed} at {level:?}");
        let found = second::check(&history, second::Kind::Lists, level).unwrap();
        assert!(found.is_empty(), "adya finds {found:?} in seed {seed} at {level:?}");
    }
}

#[test]
fn weaker_databases_are_caught() {
    let caught = |of: Level, at: Level| {
        (0..100).filter(|seed| !check(&simulate(*seed, of, 60), at).is_empty()).count()
    };
    let (skews, torn) =
        (caught(Level::Snapshot, Level::Serializable), caught(Level::ReadCommitted, Level::Snapshot));
    assert!(skews > 50 && torn > 90, "write skew in {skews}, torn snapshots in {torn} of 100");
}

/// What both checkers say of histories in which one thing was changed.
#[test]
fn both_checkers_agree_on_changed_histories() {
    let mut found_count = 0;
    for seed in 0..600 {
        let level = Level::ALL[usize::try_from(seed % 3).unwrap()];
        let mut history = simulate(seed, level, 30);
        let mut random = Random::new(seed ^ 0x5eed);
        let at = random.index(history.len());
        match random.range(0..4) {
            0 => history[at].told = Told::Refused,
            1 => history[at].steps.retain(|step| !matches!(step, Step::Append { .. })),
            2 => {
                for step in &mut history[at].steps {
                    if let Step::List { found, .. } = step {
                        found.pop();
                    }
                }
            }
            _ => {
                for step in &mut history[at].steps {
                    if let Step::List { found, .. } = step {
                        found.reverse();
                    }
                }
            }
        }
        let ours = check(&history, level);
        let theirs = second::check(&history, second::Kind::Lists, level).unwrap();
        // These are told by ours alone: see the planted ones.
        let only_ours = ours
            .iter()
            .all(|anomaly| ["lost-append", "phantom", "internal"].contains(&anomaly.name.as_str()));
        assert!(
            ours.is_empty() == theirs.is_empty() || (theirs.is_empty() && only_ours),
            "seed {seed} at {level:?}: we find {ours:#?}, adya {theirs:?}"
        );
        found_count += usize::from(!ours.is_empty());
    }
    assert!(found_count > 200, "only {found_count} of 600 changes mattered");
}
