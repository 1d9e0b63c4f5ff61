//! A replica that goes wrong, or whose files are damaged, is found, stopped and repaired.

#![allow(clippy::unwrap_used, reason = "tests")]

use rustydb_tests::sim::{Victim, Wrong, run_divergence, run_lost_log};

fn check(victim: Victim, wrong: Wrong, seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        let report = run_divergence(seed, victim, wrong);
        println!("{victim:?}, {wrong:?}, seed {seed}: {report:?}");
        assert!(report.wrong.is_empty(), "{victim:?}, {wrong:?}, seed {seed}: {report:#?}");
        assert!(report.reads_after_stop > 10, "hardly anything was read: {report:#?}");
        assert!(wrong == Wrong::Row || report.shown_before_stop == 0, "a damaged row was shown: {report:#?}");
    }
}

#[test]
fn a_follower_that_goes_wrong_is_found_stopped_and_repaired() {
    check(Victim::Follower, Wrong::Row, 1..=5);
}

#[test]
fn a_leader_that_goes_wrong_is_stopped_and_its_sound_followers_go_on() {
    check(Victim::Leader, Wrong::Row, 1..=5);
}

#[test]
fn a_replica_that_was_found_wrong_shows_nothing_after_a_restart() {
    check(Victim::FollowerThatCrashes, Wrong::Row, 1..=5);
}

#[test]
fn a_follower_whose_files_are_damaged_gets_its_state_from_its_peers() {
    for wrong in Wrong::OF_ENGINE {
        check(Victim::Follower, wrong, 1..=3);
    }
}

#[test]
fn a_leader_whose_files_are_damaged_leaves_the_lead_and_gets_its_state_from_its_peers() {
    for wrong in Wrong::OF_ENGINE {
        check(Victim::Leader, wrong, 1..=3);
    }
}

#[test]
fn a_replica_whose_files_are_damaged_and_that_crashes_meanwhile_is_repaired_later() {
    for wrong in Wrong::OF_ENGINE {
        check(Victim::FollowerThatCrashes, wrong, 1..=3);
    }
}

#[test]
fn a_replica_that_lost_its_log_gets_it_from_its_peers_and_votes_again() {
    check(Victim::Follower, Wrong::LogAtRest, 1..=5);
    check(Victim::Leader, Wrong::LogAtRest, 1..=5);
}

#[test]
fn a_replica_that_lost_its_log_and_crashes_meanwhile_is_repaired_later() {
    check(Victim::FollowerThatCrashes, Wrong::LogAtRest, 1..=4);
}

#[test]
fn a_replica_that_lost_its_log_elects_nobody_who_lacks_what_it_had_acknowledged() {
    for seed in 1..=8 {
        assert_eq!(run_lost_log(seed), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn a_leader_that_is_lost_while_a_replica_is_repaired_takes_nothing_with_it() {
    check(Victim::FollowerWhoseLeaderCrashes, Wrong::LogAtRest, 1..=4);
    check(Victim::FollowerWhoseLeaderCrashes, Wrong::PagesAtRest, 1..=1);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |wrong| run_divergence(9, Victim::Leader, wrong);
    assert_eq!(run(Wrong::Row), run(Wrong::Row));
    assert_eq!(run(Wrong::Pages), run(Wrong::Pages));
}
