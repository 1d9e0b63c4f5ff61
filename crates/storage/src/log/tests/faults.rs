//! A disk that is full or fails.

use std::time::Duration;

use rustydb_env::sim::{DiskFaults, SimNode, Simulation};

use super::super::LogErrorKind;
use super::super::queue::COMMITTED_WAITING_MAX;
use super::*;

const LIMIT: Duration = Duration::from_secs(60);

fn world() -> (Simulation, SimNode) {
    let simulation = Simulation::new(11);
    let node = simulation.add_node();
    (simulation, node)
}

fn open_in(simulation: &Simulation, node: SimNode, config: LogConfig) -> Result<Log, LogError> {
    Log::open(&simulation.env(node), Path::new("/log"), config)
}

fn wait<T: Send + 'static>(simulation: &Simulation, future: impl Future<Output = T> + Send + 'static) -> T {
    simulation.block_on(LIMIT, future).unwrap()
}

#[test]
fn a_full_disk_is_said_in_time_and_what_is_under_way_goes_into_the_reserve() {
    let (simulation, node) = world();
    let disk = simulation.disk(node);
    disk.set_faults(DiskFaults { capacity_bytes: Some(400 << 10), ..DiskFaults::default() });
    let config = LogConfig { reserve_bytes: 100 << 10, ..small() };
    let log = open_in(&simulation, node, config).unwrap();
    let one = log.group(group(1));
    let (filling, filled) = (one.clone(), log.clone());
    let written = wait(&simulation, async move {
        for at in 0..10_000 {
            if filled.is_full() {
                return at;
            }
            append(&filling, vec![entry(1, at, 1000)]).await.unwrap();
        }
        panic!("a disk of 400 KiB took ten megabytes");
    });
    assert!(log.stats().full);
    assert_eq!(one.state().last, Some(position(1, written - 1)));
    let voting = one.clone();
    wait(&simulation, async move {
        append(&voting, vec![entry(1, written, 1000)]).await.unwrap();
        done(|completion| voting.save_vote(Bytes::from_static(b"while full"), completion)).await.unwrap();
        done(|completion| voting.purge_through(position(1, 20), Bytes::new(), completion)).await.unwrap();
    });
    assert_eq!(one.read(index(30)..index(31), 1).unwrap(), vec![entry(1, 30, 1000)]);
    disk.set_faults(DiskFaults::default());
    assert!(!log.is_full());
    drop((log, one));
    simulation.crash(node);
    let log = open_in(&simulation, node, config).unwrap();
    let one = log.group(group(1));
    assert_eq!(one.state().vote.as_deref(), Some(&b"while full"[..]));
    assert_eq!(all(&one).len() as u64, written + 1 - 21);
}

/// The page cache counts what a failed sync was to write as written; only writing it again makes it durable.
#[test]
fn what_a_failed_sync_left_in_memory_is_durable_once_a_start_has_read_it() {
    let (simulation, node) = world();
    let disk = simulation.disk(node);
    let log = open_in(&simulation, node, small()).unwrap();
    let one = log.group(group(1));
    let writing = one.clone();
    wait(&simulation, async move { append(&writing, vec![entry(1, 0, 700)]).await.unwrap() });
    disk.set_faults(DiskFaults { sync_errors_ppm: 1_000_000, ..DiskFaults::default() });
    let writing = one.clone();
    let failed = wait(&simulation, async move { append(&writing, vec![entry(1, 1, 700)]).await });
    assert!(matches!(failed, Err(LogError::Poisoned { .. })), "{failed:?}");
    drop((log, one));
    simulation.kill(node);
    disk.set_faults(DiskFaults::default());
    let log = open_in(&simulation, node, small()).unwrap();
    // From here on a leader counts it as being on this node's disk.
    assert_eq!(log.group(group(1)).state().last, Some(position(1, 1)));
    drop(log);
    simulation.crash(node);
    let log = open_in(&simulation, node, small()).unwrap();
    assert_eq!(all(&log.group(group(1))), entries(1, 0..2, 700));
}

/// Whoever submitted cannot take it back: what finds no segment waits, and all behind it, until there is room.
#[test]
fn an_append_that_finds_no_segment_waits_for_room() {
    let (simulation, node) = world();
    let capacity = DiskFaults { capacity_bytes: Some(200 << 10), ..DiskFaults::default() };
    simulation.disk(node).set_faults(capacity);
    let env = simulation.env(node);
    let log = open_in(&simulation, node, small()).unwrap();
    let one = log.group(group(1));
    let filling = one.clone();
    let writer = env.spawn("filling", async move {
        for turn in 0..20 {
            append(&filling, entries(1, turn * 7..turn * 7 + 7, 3000)).await.unwrap();
        }
        done(|completion| filling.save_vote(Bytes::from_static(b"behind it"), completion)).await.unwrap();
    });
    let later = env.clone();
    wait(&simulation, async move { later.sleep(Duration::from_secs(5)).await });
    assert!(!writer.is_finished() && log.is_full());
    // It is not lost and not an error; what was written before it can be read.
    assert_eq!(one.read(index(3)..index(4), 1).unwrap(), vec![entry(1, 3, 3000)]);
    simulation.disk(node).set_faults(DiskFaults::default());
    wait(&simulation, async move { writer.await.unwrap() });
    assert!(!log.is_full());
    drop((log, one));
    simulation.crash(node);
    let log = open_in(&simulation, node, small()).unwrap();
    let one = log.group(group(1));
    assert_eq!(all(&one), entries(1, 0..140, 3000));
    assert_eq!(one.state().vote.as_deref(), Some(&b"behind it"[..]));
}

/// A log that is closed while it waits ends, and what waited is refused.
#[test]
fn a_log_that_waits_for_room_can_be_closed() {
    let (simulation, node) = world();
    let capacity = DiskFaults { capacity_bytes: Some(200 << 10), ..DiskFaults::default() };
    simulation.disk(node).set_faults(capacity);
    let env = simulation.env(node);
    let log = open_in(&simulation, node, small()).unwrap();
    let one = log.group(group(1));
    let writer = env.spawn("filling", async move {
        let mut at = 0;
        loop {
            match append(&one, entries(1, at..at + 7, 3000)).await {
                Ok(()) => at += 7,
                Err(error) => return (at, error.kind()),
            }
        }
    });
    let written = wait(&simulation, async move {
        env.sleep(Duration::from_secs(5)).await;
        log.close().await;
        let (written, refused) = writer.await.unwrap();
        assert_eq!(refused, LogErrorKind::DiskFull);
        written
    });
    assert!(written > 7);
    simulation.disk(node).set_faults(DiskFaults::default());
    let log = open_in(&simulation, node, small()).unwrap();
    assert_eq!(all(&log.group(group(1))), entries(1, 0..written, 3000));
}

#[test]
fn a_failed_sync_or_write_poisons_the_log_for_good() {
    let sync = DiskFaults { sync_errors_ppm: 1_000_000, ..DiskFaults::default() };
    let write = DiskFaults { write_errors_ppm: 1_000_000, ..DiskFaults::default() };
    for faults in [sync, write] {
        let (simulation, node) = world();
        let log = open_in(&simulation, node, small()).unwrap();
        let one = log.group(group(1));
        let writing = one.clone();
        wait(&simulation, async move { append(&writing, entries(1, 0..3, 10)).await.unwrap() });
        simulation.disk(node).set_faults(faults);
        let writing = one.clone();
        let error =
            wait(&simulation, async move { append(&writing, entries(1, 3..4, 10)).await.unwrap_err() });
        assert!(matches!(error, LogError::Poisoned { .. }), "{error}");
        let watching = log.clone();
        let told = wait(&simulation, async move { watching.failed().await });
        assert_eq!(told.to_string(), error.to_string());
        simulation.disk(node).set_faults(DiskFaults::default());
        let voting = one.clone();
        let error = wait(&simulation, async move {
            done(|completion| voting.save_vote(Bytes::new(), completion)).await.unwrap_err()
        });
        assert_eq!(error.kind(), LogErrorKind::Fatal);
        let closing = log.clone();
        wait(&simulation, async move { closing.close().await });
        drop((log, one));
        simulation.crash(node);
        let log = open_in(&simulation, node, small()).unwrap();
        assert!(all(&log.group(group(1))).starts_with(&entries(1, 0..3, 10)));
    }
}

#[test]
fn a_bit_that_flips_at_rest_is_found_by_reading_and_by_opening() {
    let (simulation, node) = world();
    let log = open_in(&simulation, node, small()).unwrap();
    let one = log.group(group(1));
    let writing = one.clone();
    wait(&simulation, async move {
        for at in 0..60 {
            append(&writing, vec![entry(1, at, 200)]).await.unwrap();
        }
    });
    assert!(simulation.disk(node).flip_bit(Path::new("/log/0000000000000001.log"), 300, 3));
    let error = one.read(index(0)..index(5), 10_000).unwrap_err();
    assert!(matches!(error, LogError::Corrupt { .. }), "{error}");
    assert_eq!(one.read(index(50)..index(51), 1).unwrap(), vec![entry(1, 50, 200)]);
    drop((log, one));
    simulation.crash(node);
    let error = open_in(&simulation, node, small()).unwrap_err();
    assert!(matches!(error, LogError::Corrupt { .. }), "{error}");
}

#[test]
fn segments_that_cannot_be_read_are_told_from_damaged_ones() {
    let (simulation, node) = world();
    drop(open_in(&simulation, node, small()).unwrap());
    simulation.crash(node);
    simulation.disk(node).set_faults(DiskFaults { read_errors_ppm: 1_000_000, ..DiskFaults::default() });
    let error = open_in(&simulation, node, small()).unwrap_err();
    assert!(matches!(error, LogError::Unreadable { .. }), "{error}");
}

/// A killed process leaves its last writes in the page cache; whoever opens the log acts on them, so opening makes
/// them durable first.
#[test]
fn what_opening_finds_is_durable() {
    for seed in 0..20 {
        let simulation = Simulation::new(seed);
        let (killed, heir) = (simulation.add_node(), simulation.add_node());
        let log = open_in(&simulation, killed, small()).unwrap();
        let one = log.group(group(1));
        // So many that they are written without anything else to write.
        for _ in 0..=COMMITTED_WAITING_MAX {
            one.save_committed(Bytes::from_static(b"never synced"));
        }
        simulation.run_for(Duration::from_secs(1));
        let name = Path::new("/log/0000000000000001.log");
        let cached = simulation.disk(killed).content(name).unwrap();
        let disk = simulation.env(heir);
        let disk = disk.disk();
        disk.create_dir_all(Path::new("/log")).unwrap();
        let file = disk.open(name, rustydb_env::OpenMode::CreateNew).unwrap();
        file.allocate(0, cached.len() as u64).unwrap();
        file.sync_all().unwrap();
        disk.sync_dir(Path::new("/log")).unwrap();
        file.write_at(0, &cached).unwrap();
        let found = open_in(&simulation, heir, small()).unwrap().group(group(1)).state();
        assert_eq!(found.committed.as_deref(), Some(&b"never synced"[..]));
        simulation.crash(heir);
        let again = open_in(&simulation, heir, small()).unwrap().group(group(1)).state();
        assert_eq!(again, found, "seed {seed}");
    }
}

/// A committed position costs no write of its own: it goes with the next request, or with the close.
#[test]
fn a_committed_position_waits_for_company() {
    let (simulation, node) = world();
    let name = Path::new("/log/0000000000000001.log");
    let log = open_in(&simulation, node, small()).unwrap();
    let one = log.group(group(1));
    let before = simulation.disk(node).content(name).unwrap();
    one.save_committed(Bytes::from_static(b"first"));
    simulation.run_for(Duration::from_secs(1));
    assert_eq!(simulation.disk(node).content(name).unwrap(), before, "nothing is written for it alone");
    wait(&simulation, async move {
        done(|completion| one.save_vote(Bytes::from_static(b"v"), completion)).await.unwrap();
    });
    simulation.crash(node);
    let log = open_in(&simulation, node, small()).unwrap();
    let one = log.group(group(1));
    assert_eq!(one.state().committed.as_deref(), Some(&b"first"[..]), "synced with the vote");
    one.save_committed(Bytes::from_static(b"second"));
    wait(&simulation, async move { log.close().await });
    let log = open_in(&simulation, node, small()).unwrap();
    assert_eq!(
        log.group(group(1)).state().committed.as_deref(),
        Some(&b"second"[..]),
        "written by the close"
    );
}

/// Nothing drains the queue of a simulated log while the simulation stands still.
#[test]
fn beyond_four_times_the_bound_appends_are_refused_and_votes_are_not() {
    let (simulation, node) = world();
    let config = LogConfig { queue_bytes_max: 1000, ..small() };
    let log = open_in(&simulation, node, config).unwrap();
    let one = log.group(group(1));
    for at in 0..4 {
        one.append(vec![entry(1, at, 1000)], Box::new(|result| result.unwrap()));
    }
    let (sender, refused) = oneshot::channel();
    one.append(vec![entry(1, 4, 10)], Box::new(move |result| drop(sender.send(result))));
    let (sender, vote) = oneshot::channel();
    one.save_vote(Bytes::from_static(b"v"), Box::new(move |result| drop(sender.send(result))));
    simulation.pause(node);
    let waiting = one.clone();
    let env = simulation.harness();
    let early = wait(&simulation, async move { env.timeout(Duration::from_secs(1), waiting.ready()).await });
    assert!(early.is_err(), "the queue is beyond its bound");
    simulation.resume(node);
    let error = wait(&simulation, refused).unwrap().unwrap_err();
    assert!(matches!(error, LogError::Overloaded { .. }) && error.kind() == LogErrorKind::Retry, "{error}");
    wait(&simulation, vote).unwrap().unwrap();
    wait(&simulation, async move { one.ready().await });
}
