//! One seed, one run; and a crash takes what it may take, nothing else.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{DiskFaults, SimError, Simulation};
use crate::{Env, OpenMode, ambient};

const LIMIT: Duration = Duration::from_secs(60);

/// A few nodes that pass numbers around, sleep, crash and write; returns the fingerprint and what was counted.
fn busy_world(seed: u64) -> (u64, u64) {
    let simulation = Simulation::new(seed);
    let nodes: Vec<_> = (0..3).map(|_| simulation.add_node()).collect();
    let counted = Arc::new(AtomicU64::new(0));
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<u64>(4);
    for node in &nodes {
        let env = simulation.env(*node);
        for _ in 0..4 {
            let (sender, counted, env) = (sender.clone(), counted.clone(), env.clone());
            let _task = env.clone().spawn("busy", async move {
                for _ in 0..50 {
                    let pause = env.rng().range(0..3_000);
                    env.sleep(Duration::from_micros(pause)).await;
                    if sender.send(ambient::rng().u64() & 0xFF).await.is_err() {
                        return;
                    }
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    }
    drop(sender);
    let crashed = nodes[2];
    let sum = simulation.block_on(LIMIT, {
        let env = simulation.harness();
        async move {
            let mut sum = 0_u64;
            while let Ok(Some(number)) = env.timeout(Duration::from_secs(1), receiver.recv()).await {
                sum += number;
                env.trace(&sum.to_le_bytes());
            }
            sum
        }
    });
    simulation.crash(crashed);
    let sum = sum.unwrap();
    (simulation.trace_hash(), sum + counted.load(Ordering::Relaxed))
}

#[test]
fn one_seed_gives_one_run() {
    let runs: Vec<_> = (0..20).map(busy_world).collect();
    for (seed, run) in runs.iter().enumerate() {
        assert_eq!(busy_world(seed as u64), *run, "seed {seed}");
    }
    let different: BTreeSet<_> = runs.iter().map(|(hash, _)| *hash).collect();
    assert_eq!(different.len(), runs.len(), "every seed gives a run of its own");
}

#[test]
fn time_is_virtual_and_the_limit_holds() {
    let simulation = Simulation::new(1);
    let node = simulation.add_node();
    let env = simulation.env(node);
    let begun = simulation.now();
    let slept = simulation.block_on(Duration::from_secs(7_200), async move {
        let before = env.now();
        env.sleep(Duration::from_secs(3_600)).await;
        env.now() - before
    });
    assert!(slept.unwrap() >= Duration::from_secs(3_600), "a node's own clock measures its own sleep");
    let drift = (simulation.now() - begun).as_secs_f64() / 3_600.0;
    assert!((drift - 1.0).abs() < 0.001, "and its clock is nearly right: {drift}");
    assert_eq!(simulation.block_on(LIMIT, std::future::pending::<()>()), Err(SimError::Stalled));
    let endless = simulation.harness();
    let result = simulation.block_on(LIMIT, async move {
        loop {
            endless.sleep(Duration::from_secs(1)).await;
        }
    });
    assert_eq!(result, Err::<(), _>(SimError::Deadline { limit: LIMIT }));
}

#[test]
fn a_paused_node_stands_still_while_time_goes_on() {
    let simulation = Simulation::new(2);
    let node = simulation.add_node();
    let ticks = Arc::new(AtomicU64::new(0));
    let (env, counter) = (simulation.env(node), ticks.clone());
    let _task = env.clone().spawn("ticker", async move {
        loop {
            env.sleep(Duration::from_millis(10)).await;
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    simulation.run_for(Duration::from_secs(1));
    let before = ticks.load(Ordering::Relaxed);
    assert!((90..=101).contains(&before), "{before}");
    simulation.pause(node);
    simulation.run_for(Duration::from_secs(5));
    assert_eq!(ticks.load(Ordering::Relaxed), before);
    simulation.resume(node);
    simulation.run_for(Duration::from_secs(1));
    assert!(ticks.load(Ordering::Relaxed) > before + 80);
    simulation.crash(node);
    let at_crash = ticks.load(Ordering::Relaxed);
    simulation.run_for(Duration::from_secs(1));
    assert_eq!(ticks.load(Ordering::Relaxed), at_crash, "a crashed node's tasks are gone");
}

#[test]
fn the_wall_clock_jumps_and_the_monotonic_clock_does_not() {
    let simulation = Simulation::new(3);
    let node = simulation.add_node();
    let env = simulation.env(node);
    let (wall, monotonic) = (env.wall_now(), env.now());
    simulation.set_wall_offset(node, -3_600_000_000);
    assert_eq!(env.wall_now().unix_micros(), wall.unix_micros() - 3_600_000_000);
    assert_eq!(env.now(), monotonic);
}

fn write_file(env: &Env, path: &str, bytes: &[u8]) -> io::Result<()> {
    env.disk().open(Path::new(path), OpenMode::Create)?.write_at(0, bytes)
}

/// Over many seeds: which of the listed states a file was found in after the crash.
fn states_after_crash(prepare: impl Fn(&Env)) -> BTreeSet<Option<Vec<u8>>> {
    (0..200)
        .map(|seed| {
            let simulation = Simulation::new(seed);
            let node = simulation.add_node();
            let env = simulation.env(node);
            env.disk().create_dir_all(Path::new("/data")).unwrap();
            prepare(&env);
            simulation.crash(node);
            assert!(env.disk().exists(Path::new("/data")).is_err(), "a dead incarnation sees no disk");
            simulation.disk(node).content(Path::new("/data/file"))
        })
        .collect()
}

#[test]
fn synced_bytes_under_a_synced_name_always_survive() {
    let states = states_after_crash(|env| {
        write_file(env, "/data/file", b"kept").unwrap();
        env.disk().open(Path::new("/data/file"), OpenMode::ReadWrite).unwrap().sync_data().unwrap();
        env.disk().sync_dir(Path::new("/data")).unwrap();
    });
    assert_eq!(states, BTreeSet::from([Some(b"kept".to_vec())]));
}

#[test]
fn a_file_whose_directory_was_not_synced_may_be_gone() {
    let states = states_after_crash(|env| {
        write_file(env, "/data/file", b"kept").unwrap();
        env.disk().open(Path::new("/data/file"), OpenMode::ReadWrite).unwrap().sync_all().unwrap();
    });
    assert_eq!(states, BTreeSet::from([None, Some(b"kept".to_vec())]));
}

#[test]
fn unsynced_bytes_are_kept_torn_or_lost() {
    let large = vec![9_u8; 2_048];
    let states = states_after_crash(|env| {
        write_file(env, "/data/file", b"old").unwrap();
        env.disk().sync_filesystem(Path::new("/data")).unwrap();
        write_file(env, "/data/file", &large).unwrap();
    });
    assert!(states.contains(&Some(b"old".to_vec())), "lost");
    assert!(states.contains(&Some(large.clone())), "kept");
    assert!(states.len() > 4, "torn in several ways: {}", states.len());
    assert!(!states.contains(&None), "but the file itself was durable");
}

#[test]
fn faults_strike_as_ordered() {
    let simulation = Simulation::new(4);
    let node = simulation.add_node();
    let env = simulation.env(node);
    let disk = simulation.disk(node);
    env.disk().create_dir_all(Path::new("/data")).unwrap();
    let file = env.disk().open(Path::new("/data/file"), OpenMode::CreateNew).unwrap();
    disk.set_faults(DiskFaults { capacity_bytes: Some(1_000), ..DiskFaults::default() });
    file.write_at(0, &[1; 900]).unwrap();
    assert_eq!(file.write_at(900, &[1; 200]).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(env.disk().available_bytes(Path::new("/data")).unwrap(), 100);
    disk.set_faults(DiskFaults { sync_errors_ppm: 1_000_000, ..DiskFaults::default() });
    assert!(file.sync_data().is_err());
    disk.set_faults(DiskFaults::default());
    file.sync_data().unwrap();
    disk.set_faults(DiskFaults { power_cut_after: Some(1), ..DiskFaults::default() });
    file.write_at(0, &[2; 10]).unwrap();
    assert!(file.write_at(0, &[3; 10]).is_err(), "the power is cut at the second change");
    assert!(file.read_at(0, &mut [0; 1]).is_err());
    simulation.crash(node);
    let lock = simulation.env(node).disk().lock_exclusive(Path::new("/data/lock")).unwrap();
    let again = simulation.env(node).disk().lock_exclusive(Path::new("/data/lock"));
    assert_eq!(again.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(lock);
    assert!(simulation.env(node).disk().lock_exclusive(Path::new("/data/lock")).is_ok());
}

#[test]
fn data_lost_by_a_failed_sync_does_not_come_back() {
    for seed in 0..50 {
        let simulation = Simulation::new(seed);
        let node = simulation.add_node();
        let env = simulation.env(node);
        env.disk().create_dir_all(Path::new("/data")).unwrap();
        write_file(&env, "/data/file", b"old").unwrap();
        env.disk().sync_filesystem(Path::new("/data")).unwrap();
        let file = env.disk().open(Path::new("/data/file"), OpenMode::ReadWrite).unwrap();
        file.write_at(0, b"new").unwrap();
        simulation.disk(node).set_faults(DiskFaults { sync_errors_ppm: 1_000_000, ..DiskFaults::default() });
        assert!(file.sync_data().is_err());
        simulation.disk(node).set_faults(DiskFaults::default());
        file.sync_data().unwrap();
        simulation.crash(node);
        assert_eq!(simulation.disk(node).content(Path::new("/data/file")).as_deref(), Some(&b"old"[..]));
    }
}
