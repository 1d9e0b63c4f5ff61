//! The simulated cluster under faults, for a few seeds; and the same seed twice.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use rustydb_tests::sim;

/// Virtual time with faults of each run.
const DURATION: Duration = Duration::from_secs(3);

fn course(seed: u64) -> sim::Course {
    sim::Course::new(seed, DURATION)
}

fn check(report: sim::Report) {
    let seed = report.seed;
    assert!(
        report.wrong.is_empty(),
        "replay: cargo run -p rustydb-tests --bin sim -- --seed {seed} --seconds {} {}\n{:#?}",
        DURATION.as_secs(),
        report.option,
        report
    );
    assert!(report.operations.acknowledged > 50, "hardly anything was done: {report:#?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for run in [sim::run_stores, sim::run_models, sim::run_sql] {
        let course = || sim::Course::new(42, Duration::from_secs(3));
        let (first, second) = (run(course()), run(course()));
        assert_eq!(first, second);
    }
}

#[test]
fn models_lose_nothing() {
    (1..=2).map(|seed| sim::run_models(course(seed))).for_each(check);
}

#[test]
fn stores_lose_nothing() {
    (1..=6).map(|seed| sim::run_stores(course(seed))).for_each(check);
}

#[test]
fn voters_go_from_seven_to_three_and_back_while_links_are_asymmetric() {
    // Not every seed comes so far within its seconds.
    let churns = (1..=3).map(|seed| {
        let course = sim::Course { churns: true, ..sim::Course::new(seed, Duration::from_secs(8)) };
        let report = sim::run_stores(course);
        let churn = report.churn;
        check(report);
        churn
    });
    let mut seen = Vec::new();
    for churn in churns {
        seen.push(churn);
        if churn.shrunk > 0 && churn.grown > 0 {
            return;
        }
    }
    panic!("{seen:?}");
}

#[test]
fn sessions_are_told_the_truth() {
    (1..=3).map(|seed| sim::run_sql(course(seed))).for_each(check);
}

#[test]
fn no_number_of_a_sequence_is_given_twice() {
    let mut taken = 0;
    for seed in 1..=6 {
        let report = sim::run_tickets(course(seed));
        taken += report.operations.acknowledged;
        assert_eq!(report.wrong, Vec::<String>::new(), "seed {seed}");
    }
    assert!(taken > 100, "hardly anything was taken: {taken}");
}

#[test]
fn no_row_is_left_that_refers_to_nothing() {
    let (mut committed, mut refused) = (0, 0);
    for seed in 1..=8 {
        let report = sim::run_orphans(course(seed));
        committed += report.operations.acknowledged;
        refused += report.operations.refused;
        assert_eq!(report.wrong, Vec::<String>::new(), "seed {seed}");
    }
    assert!(committed > 100 && refused > 50, "hardly anybody met: {committed} committed, {refused} refused");
}

#[test]
fn series_whose_leader_dies_are_told_the_truth() {
    let mut refused_or_unknown = 0;
    for seed in 1..=4 {
        let report = sim::run_series(course(seed), 25);
        assert_eq!(report.wrong, Vec::<String>::new(), "--seed {seed} --series");
        refused_or_unknown += report.counts.refused + report.counts.unknown;
    }
    assert!(refused_or_unknown > 10, "hardly anybody lost a leader: {refused_or_unknown}");
    assert_eq!(sim::run_series(course(7), 5), sim::run_series(course(7), 5));
}

#[test]
fn seeds_that_failed_once_fail_no_more() {
    // The longer ones are for the gate.
    for (kind, seed, seconds) in sim::REGRESSIONS.iter().filter(|(_, _, seconds)| *seconds < 10) {
        check(kind.run(sim::Course::new(*seed, Duration::from_secs(*seconds))).unwrap());
    }
}

#[test]
fn histories_under_refused_and_lost_proposals_agree_with_the_model() {
    const SEEDS: u64 = 300;
    let (mut committed, mut staged) = (0, 0);
    for seed in 1..=SEEDS {
        eprintln!("--seed {seed} --proposals");
        let report = sim::run_proposals(course(seed));
        committed += report.committed;
        staged += report.staged;
    }
    assert!(staged > SEEDS * 6, "only {staged} staged transactions committed");
    assert!(committed > SEEDS * 6, "only {committed} writers committed");
    assert_eq!(sim::run_proposals(course(7)), sim::run_proposals(course(7)));
}

#[test]
fn scenes_that_find_planted_bugs_find_nothing_without_one() {
    for scene in sim::Scene::ALL {
        for seed in 1..=3 {
            assert_eq!(scene.play(course(seed)), Vec::<String>::new(), "--seed {seed} --scene {scene}");
        }
    }
}

#[test]
fn acknowledged_work_of_a_log_survives_crashes_and_nothing_else_appears() {
    let mut acknowledged = 0;
    // The last three found what was written to a segment whose name was not durable.
    for seed in (0..20).chain([27, 56, 57]) {
        let report = sim::run_log(course(seed));
        assert_eq!(report.wrong, Vec::<String>::new(), "seed {seed}");
        acknowledged += report.acknowledged;
    }
    assert!(acknowledged > 5_000, "hardly anything was done: {acknowledged}");
    assert_eq!(sim::run_log(course(3)), sim::run_log(course(3)));
}

#[test]
fn the_power_may_be_cut_at_every_single_change_of_a_log() {
    let (_, changes) = sim::run_log_cut_at(course(7), None);
    assert!(changes > 60, "hardly anything was done: {changes}");
    for change in 0..changes {
        let (report, _) = sim::run_log_cut_at(course(7), Some(change));
        assert_eq!(report.wrong, Vec::<String>::new(), "change {change}");
    }
}

#[test]
fn a_closed_log_holds_everything() {
    for seed in 0..4 {
        assert_eq!(sim::run_log_closed(course(seed)).wrong, Vec::<String>::new(), "seed {seed}");
    }
}
