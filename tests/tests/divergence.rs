//! A replica that goes wrong is found, stopped and repaired.

#![allow(clippy::unwrap_used, reason = "tests")]

use rustydb_tests::sim::{Victim, run_divergence};

fn check(victim: Victim, seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        let report = run_divergence(seed, victim);
        println!("{victim:?}, seed {seed}: {report:?}");
        assert!(report.wrong.is_empty(), "{victim:?}, seed {seed}: {report:#?}");
        assert!(report.reads_after_stop > 10, "hardly anything was read: {report:#?}");
    }
}

#[test]
fn a_follower_that_goes_wrong_is_found_stopped_and_repaired() {
    check(Victim::Follower, 1..=5);
}

#[test]
fn a_leader_that_goes_wrong_is_stopped_and_its_sound_followers_go_on() {
    check(Victim::Leader, 1..=5);
}

#[test]
fn a_replica_that_was_found_wrong_shows_nothing_after_a_restart() {
    check(Victim::FollowerThatCrashes, 1..=5);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(run_divergence(9, Victim::Leader), run_divergence(9, Victim::Leader));
}
