//! Starts that fail, and failures that come to light only after a start.

use std::time::Duration;

use rustydb_env::sim::{DiskFailure, DiskFaults, SimNode, Simulation};

use super::*;

const LIMIT: Duration = Duration::from_secs(60);
/// More changes of the disk than a start makes.
const START_CHANGES_MAX: u64 = 16;
/// Bytes of an entry: frames of two sectors, so that each may be torn by itself.
const SIZE: usize = 900;

fn open_in(simulation: &Simulation, node: SimNode) -> Result<Log, LogError> {
    Log::open(&simulation.env(node), Path::new("/log"), small())
}

fn append_in(simulation: &Simulation, log: &Log, entries: Vec<LogEntry>) -> Result<(), LogError> {
    let one = log.group(group(1));
    simulation.block_on(LIMIT, async move { append(&one, entries).await }).unwrap()
}

/// A log whose last batch, of entries 3 to 7, was written and cut off by the loss of power before its sync.
fn torn(seed: u64) -> (Simulation, SimNode) {
    let simulation = Simulation::new(seed);
    let node = simulation.add_node();
    let log = open_in(&simulation, node).unwrap();
    append_in(&simulation, &log, entries(1, 0..3, SIZE)).unwrap();
    let faults = DiskFaults { power_cut_after: Some(1), ..DiskFaults::default() };
    simulation.disk(node).set_faults(faults);
    append_in(&simulation, &log, entries(1, 3..8, SIZE)).unwrap_err();
    drop(log);
    simulation.crash(node);
    (simulation, node)
}

/// Opens it, appends one entry behind what is there, and loses the power: that much must be there then, and no more.
fn goes_on(simulation: &Simulation, node: SimNode, what: &str) {
    let log = open_in(simulation, node).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut expected = all(&log.group(group(1)));
    let written = entries(1, 0..8, SIZE);
    assert!(expected.len() >= 3 && written.starts_with(&expected), "{what}: {} entries", expected.len());
    let next = entry(2, expected.len() as u64, SIZE);
    append_in(simulation, &log, vec![next.clone()]).unwrap();
    expected.push(next);
    drop(log);
    simulation.crash(node);
    let log = open_in(simulation, node).unwrap_or_else(|error| panic!("{what}, at last: {error}"));
    assert!(all(&log.group(group(1))) == expected, "{what}: not what was there");
}

/// What is left of a torn batch must not continue what is written later, whichever part of a start has failed: what
/// a failed sync was to write is in the page cache, which counts it as written.
#[test]
fn a_torn_tail_never_comes_back_after_a_start_that_failed() {
    for seed in 0..12 {
        for change in 0..START_CHANGES_MAX {
            let (simulation, node) = torn(seed);
            let failure_after = Some((change, DiskFailure::Error));
            simulation.disk(node).set_faults(DiskFaults { failure_after, ..DiskFaults::default() });
            drop(open_in(&simulation, node));
            simulation.kill(node);
            goes_on(&simulation, node, &format!("seed {seed}, change {change} of the start fails"));
        }
    }
}

/// The same when the power is cut at each change of a start, and again at each of the next one, up to the first append.
#[test]
fn a_torn_tail_never_comes_back_after_starts_that_were_cut_off() {
    for seed in 0..4 {
        for first in 0..START_CHANGES_MAX {
            for second in 0..START_CHANGES_MAX {
                let (simulation, node) = torn(seed);
                for change in [first, second] {
                    let power_cut_after = Some(change);
                    let faults = DiskFaults { power_cut_after, ..DiskFaults::default() };
                    simulation.disk(node).set_faults(faults);
                    drop(open_in(&simulation, node));
                    simulation.crash(node);
                }
                let what = format!("seed {seed}, the power fails at changes {first} and {second}");
                goes_on(&simulation, node, &what);
            }
        }
    }
}

/// The end that a good close marks is believed by the next start; if only the page cache has the mark, what is written
/// behind it would be lost with it.
#[test]
fn a_close_whose_sync_failed_takes_nothing_with_it() {
    for change in 0..3 {
        let simulation = Simulation::new(change);
        let node = simulation.add_node();
        let log = open_in(&simulation, node).unwrap();
        append_in(&simulation, &log, entries(1, 0..3, SIZE)).unwrap();
        let failure_after = Some((change, DiskFailure::Error));
        simulation.disk(node).set_faults(DiskFaults { failure_after, ..DiskFaults::default() });
        let closing = log.clone();
        simulation.block_on(LIMIT, async move { closing.close().await }).unwrap();
        drop(log);
        simulation.kill(node);
        goes_on(&simulation, node, &format!("change {change} of the close fails"));
    }
}

/// Without room for another segment a start goes on in the one there is, and wipes what is behind its end.
#[test]
fn a_start_without_room_goes_on_in_the_segment_there_is() {
    for seed in 0..8 {
        for change in 0..START_CHANGES_MAX {
            let (simulation, node) = torn(seed);
            let disk = simulation.disk(node);
            let spares: Vec<_> =
                disk.file_names().into_iter().filter(|path| super::super::space::is_spare(path)).collect();
            for spare in spares {
                simulation.env(node).disk().remove_file(&spare).unwrap();
            }
            let capacity_bytes = Some(disk.used_bytes());
            let failure_after = Some((change, DiskFailure::Error));
            disk.set_faults(DiskFaults { capacity_bytes, failure_after, ..DiskFaults::default() });
            drop(open_in(&simulation, node));
            simulation.kill(node);
            disk.set_faults(DiskFaults { capacity_bytes, ..DiskFaults::default() });
            goes_on(&simulation, node, &format!("seed {seed}, no room, change {change} of the start fails"));
        }
    }
}

/// A process that dies again and again does not fill the disk with segments.
#[test]
fn starts_that_write_nothing_cost_little_and_leave_nothing_behind() {
    let simulation = Simulation::new(5);
    let node = simulation.add_node();
    for _ in 0..50 {
        drop(open_in(&simulation, node).unwrap());
        simulation.run_for(Duration::from_secs(1));
        simulation.kill(node);
    }
    let log = open_in(&simulation, node).unwrap();
    append_in(&simulation, &log, entries(1, 0..1, SIZE)).unwrap();
    simulation.run_for(Duration::from_secs(1));
    assert!(simulation.disk(node).used_bytes() <= 4 * 64 * 1024, "{:?}", simulation.disk(node).file_names());
}

/// The zeros that a disk gives back for what it had confirmed: as much as was noted is missed, and no sound log is ever
/// refused, however it was cut off.
#[test]
fn an_end_that_a_crash_took_along_is_missed_once_it_was_noted() {
    let mut missed = 0;
    for seed in 0..8 {
        let simulation = Simulation::new(seed);
        let node = simulation.add_node();
        let log = open_in(&simulation, node).unwrap();
        append_in(&simulation, &log, entries(1, 0..3, SIZE)).unwrap();
        append_in(&simulation, &log, entries(1, 3..6, SIZE)).unwrap();
        let env = simulation.harness();
        simulation
            .block_on(LIMIT, async move { env.sleep(Duration::from_secs(seed % 2 * 3)).await })
            .unwrap();
        append_in(&simulation, &log, entries(1, 6..8, SIZE)).unwrap();
        drop(log);
        simulation.crash(node);
        let path = Path::new("/log/0000000000000001.log");
        let content = simulation.disk(node).content(path).unwrap();
        let (offset, end) =
            (content.len().min(4 << 10), content.iter().rposition(|byte| *byte != 0).unwrap() + 1);
        let file = simulation.env(node).disk().open(path, rustydb_env::OpenMode::ReadWrite).unwrap();
        file.write_at(offset as u64, &vec![0; end - offset]).unwrap();
        file.sync_all().unwrap();
        match open_in(&simulation, node) {
            Err(LogError::Corrupt { .. }) => missed += 1,
            Ok(log) => assert!(seed % 2 == 0 && !all(&log.group(group(1))).is_empty(), "seed {seed}"),
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    assert_eq!(missed, 4, "noted in every other run");
}
