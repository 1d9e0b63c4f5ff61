//! Bugs planted on purpose: the simulation must find each of them within a few seeds. Otherwise its silence would mean
//! nothing. Two more can be planted that take too many seeds for a test: see docs/testing.md.

use std::panic::catch_unwind;
use std::time::Duration;

use rustydb_env::Bug;
use rustydb_tests::sim::{self, Course, Report};

/// Virtual time with faults of each run.
const DURATION: Duration = Duration::from_secs(3);
/// A bug that is not found within so many runs is not found.
const SEEDS_MAX: u64 = 20;

/// Runs with the bug, seed by seed, until something is wrong. A panic is wrong, too.
fn find(bug: Bug, run: fn(Course) -> Report) {
    for seed in 1..=SEEDS_MAX {
        let course = Course { bug: Some(bug), ..Course::new(seed, DURATION) };
        let wrong = match catch_unwind(|| run(course)) {
            Ok(report) => report.wrong.into_iter().next(),
            Err(_) => Some("a panic".to_owned()),
        };
        if let Some(wrong) = wrong {
            println!("{bug} is found with seed {seed}: {wrong}");
            return;
        }
    }
    panic!("{bug} is not found within {SEEDS_MAX} seeds");
}

#[test]
fn entries_that_are_not_synced_are_found() {
    find(Bug::EntriesNotSynced, sim::run_sql);
}

#[test]
fn a_commit_that_takes_place_twice_is_found() {
    find(Bug::CopyCommitted, sim::run_stores);
}

#[test]
fn a_commit_that_is_not_validated_is_found() {
    find(Bug::CommitNotValidated, sim::run_stores);
}

#[test]
fn rows_that_are_shown_early_are_found() {
    find(Bug::RowsShownEarly, sim::run_sql);
}
