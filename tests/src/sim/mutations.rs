//! The simulation's own test: bugs that are planted one at a time, each of which it must find.

use std::{collections::BTreeMap, sync::atomic::AtomicUsize, sync::atomic::Ordering, time::Duration};

use parking_lot::Mutex;
use rustydb_env::Bug;
use serde_json::json;

use super::{Course, Errand, Loss, Scene, campaign::Kind, panics::quietly};
use crate::gate::Gate;

/// A bug that is not found with so many seeds is not found.
pub const SEEDS_MAX: u64 = 500;

/// Those that do what a bug spoils, as long as it takes to come about.
const fn hunt(bug: Bug) -> Errand {
    match bug {
        Bug::VoteNotSynced
        | Bug::TailCutNotSynced
        | Bug::NamesNotSynced
        | Bug::SegmentNotSynced
        | Bug::RecoveryNotSynced
        | Bug::TornTailKept => Errand::Log,
        Bug::CopyCommitted
        | Bug::SnapshotMarkedLate
        | Bug::CommitNotValidated
        | Bug::FenceForgotten
        | Bug::RowLeftOut
        | Bug::StagedVisible
        | Bug::UnknownToldRefused
        | Bug::ChangedRowWritten
        | Bug::SnapshotWithoutOutcomes => Errand::Cluster(Kind::Stores, 6),
        Bug::RefusedCommitKept => Errand::Proposals,
        Bug::LeaseOutlived | Bug::LeaseBeforeApplied => Errand::Cluster(Kind::Models, 12),
        Bug::LeaseAfterTransfer => Errand::Played(Scene::HandingOver),
        Bug::VoteWithinLease => Errand::Played(Scene::RestartedVoter),
        Bug::LogLossForgotten => Errand::Lost(Loss::OneOfThree),
        Bug::EndNotCompared => Errand::Lost(Loss::End),
        Bug::LearnersCounted => Errand::Played(Scene::LearnersOnly),
        Bug::OpenAssumed => Errand::Series,
        Bug::CampaignsAtOnce => Errand::Played(Scene::SlowDisks),
        _ => Errand::Cluster(Kind::Sql, 6),
    }
}

/// How a hunt ended.
struct Found {
    seed: u64,
    wrong: String,
    /// What is wrong without the bug.
    control: Option<String>,
}

fn wrong_in(errand: Errand, seed: u64, bug: Option<Bug>) -> Option<String> {
    let course = Course { bug, watches_logs: true, ..Course::new(seed, Duration::ZERO) };
    let run = || errand.run(course).wrong.into_iter().next();
    // What a bug brings about is found; what goes wrong without one is told in full.
    if bug.is_some() { quietly(run) } else { run() }
}

fn find(bug: Bug, seeds_max: u64, is_over: impl Fn() -> bool) -> (Option<Found>, u64) {
    for seed in 1..=seeds_max {
        if is_over() {
            return (None, seed - 1);
        }
        if let Some(wrong) = wrong_in(hunt(bug), seed, Some(bug)) {
            // Without the bug the same seed must be fine: else it has found something else.
            let control = wrong_in(hunt(bug), seed, None);
            return (Some(Found { seed, wrong, control }), seed);
        }
    }
    (None, seeds_max)
}

/// Looks for bugs, on so many threads, with at most so many seeds each and no longer than a slow machine gets. A bug that is not found
/// fails. Gives the figures.
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
                    let runs = hunt(bug);
                    let (ended, tried) = find(bug, seeds_max, || shared.lock().is_late());
                    let mut gate = shared.lock();
                    match ended {
                        Some(Found { seed, control: Some(control), .. }) => {
                            gate.failed(
                                &name,
                                format!("without it, seed {seed} of {runs} goes wrong: {control}"),
                            );
                        }
                        Some(Found { seed, wrong, control: None }) => {
                            let first = wrong.lines().next().unwrap_or_default();
                            let short: String = first.chars().take(160).collect();
                            gate.passed(
                                &name,
                                &json!(format!("found by --bug {name} --seed {seed} {runs}: {short}")),
                            );
                            found.lock().insert(bug, seed);
                        }
                        None => gate.failed(&name, format!("not found with {tried} seeds of {runs}")),
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
