//! Whatever a leader was doing when it lost its power: what became of its commits can be learnt.

#![allow(clippy::unwrap_used, reason = "tests")]

use rustydb_tests::sim::run_commit_crashes;

#[test]
fn no_commit_is_unknown_or_takes_place_twice_when_leaders_crash() {
    let (mut committed, mut aborted) = (0, 0);
    for seed in 1..=4 {
        let report = run_commit_crashes(seed, 50);
        println!("seed {seed}: {report:?}");
        assert!(report.wrong.is_empty(), "seed {seed}: {report:#?}");
        committed += report.committed;
        aborted += report.aborted;
    }
    assert!(committed > 0 && aborted > 0, "hardly any doubt: {committed} committed, {aborted} did not");
}
