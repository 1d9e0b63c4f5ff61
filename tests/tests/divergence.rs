//! A replica that goes wrong, or whose files are damaged, is found, stopped and repaired.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{ops::RangeInclusive, time::Duration};

use rustydb_tests::sim::{Course, Loss, Victim, Wrong, run_divergence};

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

fn lose(loss: Loss, seeds: RangeInclusive<u64>) {
    for seed in seeds {
        let wrong = loss.play(Course::new(seed, Duration::ZERO));
        assert_eq!(wrong, Vec::<String>::new(), "--seed {seed} --lost-log {loss}");
    }
}

#[test]
fn a_replica_that_lost_its_log_elects_nobody_who_lacks_what_it_had_acknowledged() {
    lose(Loss::OneOfThree, 1..=8);
}

#[test]
fn a_log_of_which_nothing_is_left_is_lost_and_not_begun_anew() {
    lose(Loss::Folder, 1..=4);
    lose(Loss::Blank, 1..=4);
}

#[test]
fn a_log_whose_end_is_gone_without_a_trace_is_lost() {
    lose(Loss::End, 1..=6);
}

#[test]
fn a_leader_that_lost_its_log_and_comes_back_at_once_takes_nothing_with_it() {
    lose(Loss::Leader, 1..=4);
}

#[test]
fn of_five_two_that_lost_their_logs_elect_nobody_who_lacks_what_they_had_acknowledged() {
    lose(Loss::TwoOfFive, 1..=4);
}

#[test]
fn a_replica_that_lost_its_log_needs_no_answer_of_who_was_removed_meanwhile() {
    lose(Loss::MembersChange, 1..=4);
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
