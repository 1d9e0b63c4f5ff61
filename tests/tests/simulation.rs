//! The simulated cluster under faults, for a few seeds; and the same seed twice.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use rustydb_tests::sim;

/// Virtual time with faults of each run.
const DURATION: Duration = Duration::from_secs(4);

fn check(seed: u64) {
    let report = sim::run(seed, DURATION);
    assert!(
        report.wrong.is_empty(),
        "replay: cargo run -p rustydb-tests --bin sim -- --seed {seed} --seconds {}\n{:#?}",
        DURATION.as_secs(),
        report
    );
    assert!(report.operations.acknowledged > 50, "hardly anything was done: {report:#?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let (first, second) = (sim::run(42, Duration::from_secs(4)), sim::run(42, Duration::from_secs(4)));
    assert_eq!(first, second);
    let other = sim::run(43, Duration::from_secs(4));
    assert_ne!(first.trace_hash, other.trace_hash);
}

#[test]
fn seeds_one_to_three_lose_nothing() {
    (1..=3).for_each(check);
}

#[test]
fn seeds_four_to_six_lose_nothing() {
    (4..=6).for_each(check);
}

#[test]
fn seeds_that_failed_once_fail_no_more() {
    sim::REGRESSIONS.iter().copied().for_each(check);
}
