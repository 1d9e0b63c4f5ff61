//! Whatever a leader was doing when it lost its power: what became of its commits can be learnt.

#![allow(clippy::unwrap_used, reason = "tests")]

use rustydb_tests::sim::run_commit_crashes;

#[test]
fn no_commit_is_unknown_or_takes_place_twice_when_leaders_crash() {
    for seed in 1..=4 {
        let report = run_commit_crashes(seed, 50);
        println!("seed {seed}: {report:?}");
        assert!(report.wrong.is_empty(), "seed {seed}: {report:#?}");
        assert!(report.committed > 0 && report.aborted > 0, "seed {seed}: hardly any doubt: {report:#?}");
    }
}
