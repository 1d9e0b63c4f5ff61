//! Every bit of a log of 64 KiB, one after the other: the log must refuse to open, whichever has changed.
//!
//! The log was not closed, as a crash leaves it, and its last batch is of several frames: nothing lies behind that.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use rustydb_env::sim::{SimNode, Simulation};
use rustydb_storage::log::{Log, LogConfig, LogEntry, LogError};
use rustydb_types::ids::{GroupId, LogIndex, Term};
use serde_json::{Value, json};

const SIZE: usize = 64 << 10;
/// Header and empty checkpoint of a first segment.
const OPENING: usize = 96;
/// What a frame of an entry has beside its body.
const ENTRY_OVERHEAD: usize = 40;
const BODY: usize = 200;
/// Entries of one batch.
const BATCH: usize = 4;
const LIMIT: Duration = Duration::from_secs(60);

fn segment() -> PathBuf {
    PathBuf::from("/log/0000000000000001.log")
}

fn open(simulation: &Simulation, node: SimNode) -> Result<Log, LogError> {
    let size = u32::try_from(SIZE).unwrap_or(u32::MAX);
    let config = LogConfig { segment_bytes: size, spare_count: 1, reserve_bytes: 0, ..LogConfig::default() };
    Log::open(&simulation.env(node), Path::new("/log"), config)
}

/// A log that fills its only segment to the last byte.
fn full(seed: u64) -> Result<(Simulation, SimNode, u64)> {
    let simulation = Simulation::new(seed);
    let node = simulation.add_node();
    let log = open(&simulation, node)?;
    let (mut room, mut count) = (SIZE - OPENING, 0_u64);
    while room > 0 {
        let mut batch = Vec::new();
        while batch.len() < BATCH && room > 0 {
            // What is left must hold another frame or nothing.
            let body = if room < 2 * (BODY + ENTRY_OVERHEAD) { room - ENTRY_OVERHEAD } else { BODY };
            let fill = u8::try_from(count % 251).unwrap_or(0);
            batch.push(LogEntry {
                index: LogIndex::new(count),
                term: Term::new(1),
                body: Bytes::from(vec![fill; body]),
            });
            room -= body + ENTRY_OVERHEAD;
            count += 1;
        }
        let (sender, written) = tokio::sync::oneshot::channel();
        log.group(GroupId::new(1)).append(batch, Box::new(move |result| drop(sender.send(result))));
        simulation.block_on(LIMIT, written)???;
    }
    drop(log);
    simulation.crash(node);
    let content = simulation.disk(node).content(&segment()).context("there is no segment")?;
    ensure!(content.len() == SIZE && content.last() != Some(&0), "the segment is not full");
    Ok((simulation, node, count))
}

/// Flips all bits, on so many threads; gives the figures.
///
/// # Errors
/// A flip was not detected, or the time was over before all were tried.
pub fn every_bit(seed: u64, threads: usize, budget: Duration) -> Result<Value> {
    let started = Instant::now();
    let tried: Vec<Result<usize>> = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..threads)
            .map(|lane| scope.spawn(move || lane_of(seed, lane, threads, started + budget)))
            .collect();
        let joined = lanes.into_iter().map(|lane| lane.join().unwrap_or_else(|_| bail!("it panicked")));
        joined.collect()
    });
    let flips: usize = tried.into_iter().sum::<Result<usize>>()?;
    ensure!(flips == SIZE * 8, "{flips} flips of {} when the time was over", SIZE * 8);
    let seconds = started.elapsed().as_secs_f64();
    Ok(json!({ "flips": flips, "detected": flips, "wrong_data": 0, "panics": 0, "seconds": seconds }))
}

fn lane_of(seed: u64, lane: usize, lanes: usize, deadline: Instant) -> Result<usize> {
    let (simulation, node, count) = full(seed)?;
    let disk = simulation.disk(node);
    let mut flips = 0;
    for bit in (lane..SIZE * 8).step_by(lanes) {
        if Instant::now() >= deadline {
            return Ok(flips);
        }
        let flip = || disk.flip_bit(&segment(), bit / 8, u8::try_from(bit % 8).unwrap_or(0));
        ensure!(flip(), "bit {bit} is not there");
        match open(&simulation, node) {
            Err(LogError::Corrupt { .. } | LogError::UnknownFormat { .. }) => {}
            Err(error) => bail!("bit {bit}: {error}"),
            Ok(_) => bail!("bit {bit}: the log opens"),
        }
        ensure!(flip(), "bit {bit} is not there any more");
        flips += 1;
    }
    let log = open(&simulation, node).context("the log does not open without a flip")?;
    let last = log.group(GroupId::new(1)).state().last.map(|last| last.index.get() + 1);
    ensure!(last == Some(count), "{last:?} entries of {count}");
    Ok(flips)
}
