//! The simulation's own test: bugs that are planted one at a time, each of which it must find.

use std::{collections::BTreeMap, sync::atomic::AtomicUsize, sync::atomic::Ordering, time::Duration};

use parking_lot::Mutex;
use rustydb_env::Bug;
use serde_json::json;

use super::{Course, campaign::Kind};
use crate::gate::Gate;

/// A bug that is not found with so many seeds is not found.
pub const SEEDS_MAX: u64 = 500;

/// The runs in which a bug is looked for: those that do what it spoils, as long as it takes to come about.
const fn hunt(bug: Bug) -> (Kind, u64) {
    match bug {
        Bug::CopyCommitted
        | Bug::CommitNotValidated
        | Bug::FenceForgotten
        | Bug::NumberNotChecked
        | Bug::RowLeftOut
        | Bug::ChangedRowWritten
        | Bug::SnapshotWithoutOutcomes => (Kind::Stores, 6),
        Bug::VoteNotSynced
        | Bug::TailCutNotSynced
        | Bug::LeaseOutlived
        | Bug::LeaseBeforeApplied
        | Bug::LeaseAfterTransfer
        | Bug::VoteWithinLease
        | Bug::UnknownToldRefused
        | Bug::LeaderRemovesItself => (Kind::Models, 12),
        _ => (Kind::Sql, 6),
    }
}

/// How a hunt ended.
struct Found {
    seed: u64,
    wrong: String,
}

fn find(bug: Bug, seeds_max: u64, is_over: impl Fn() -> bool) -> (Option<Found>, u64) {
    let (kind, seconds) = hunt(bug);
    for seed in 1..=seeds_max {
        if is_over() {
            return (None, seed - 1);
        }
        let course = Course { bug: Some(bug), ..Course::new(seed, Duration::from_secs(seconds)) };
        let wrong = match kind.run(course) {
            Ok(report) => report.wrong.into_iter().next(),
            Err(panic) => Some(panic),
        };
        if let Some(wrong) = wrong {
            return (Some(Found { seed, wrong }), seed);
        }
    }
    (None, seeds_max)
}

/// Looks for bugs, on so many threads, with at most so many seeds each. A bug that is not found fails; when the time
/// is over before, it is skipped. Gives the figures.
pub fn mutations(gate: &mut Gate, bugs: &[Bug], seeds_max: u64, jobs: u64) -> String {
    let next = AtomicUsize::new(0);
    let shared = Mutex::new(gate);
    let found = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
                    let name = bug.to_string();
                    if shared.lock().is_done(&name) {
                        continue;
                    }
                    let (kind, seconds) = hunt(bug);
                    let (ended, tried) = find(bug, seeds_max, || shared.lock().is_over());
                    let mut gate = shared.lock();
                    match ended {
                        Some(Found { seed, wrong }) => {
                            let first = wrong.lines().next().unwrap_or_default();
                            let short: String = first.chars().take(160).collect();
                            gate.passed(
                                &name,
                                &json!(format!(
                                    "found with {} --seed {seed} --seconds {seconds}: {short}",
                                    kind.option()
                                )),
                            );
                            found.lock().insert(bug, seed);
                        }
                        None if tried < seeds_max => {
                            gate.skipped(
                                &name,
                                format!("not found with {tried} seeds when the time was over"),
                            );
                        }
                        None => {
                            gate.failed(&name, format!("not found with {tried} seeds of {}", kind.option()))
                        }
                    }
                }
            });
        }
    });
    let found = found.into_inner();
    let seeds: Vec<u64> = found.values().copied().collect();
    let most = seeds.iter().max().copied().unwrap_or(0);
    format!("{} of {} planted bugs found, with {most} seeds at most", found.len(), bugs.len())
}
