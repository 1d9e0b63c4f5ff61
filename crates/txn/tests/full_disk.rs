//! A disk without room: what needs a flush does with what is there, and goes on when there is room again.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustydb_env::sim::{DiskFaults, Simulation};
use rustydb_storage::engine::{self, EngineKind};
use rustydb_txn::{
    ApplyEntry, ApplyPayload, EngineOpener, KvConfig, KvStore, Linearize, Proposal, ProposeError, Proposer,
};
use rustydb_types::ids::{LogIndex, Term};
use rustydb_types::position::LogPosition;

/// Nothing is proposed here.
struct Nobody;

impl Proposer for Nobody {
    fn propose(&self, _: Proposal) -> Result<(), ProposeError> {
        Err(ProposeError::Refused)
    }

    fn linearize(&self) -> Linearize {
        Linearize::Now
    }
}

fn blank(index: u64) -> ApplyEntry {
    ApplyEntry {
        position: LogPosition::new(Term::new(1), LogIndex::new(index)),
        opaque_position: Bytes::new(),
        payload: ApplyPayload::Blank,
    }
}

#[test]
fn a_snapshot_that_finds_no_room_is_of_the_last_flush() {
    let sim = Simulation::new(1);
    let node = sim.add_node();
    let (env, disk) = (sim.env(node), sim.disk(node));
    let taking = async move {
        let engines = env.clone();
        let opener: EngineOpener =
            Arc::new(move |path| engine::open(EngineKind::Redb, &engines, path, 1 << 20));
        let config = KvConfig { flush_interval: Duration::from_secs(3600), ..KvConfig::new("/group".into()) };
        let (_store, mut machine) = KvStore::open(&env, config, opener, Arc::new(Nobody)).unwrap();
        machine.apply(&[blank(0)]).unwrap();
        let first = machine.snapshot().await.unwrap();
        assert_eq!(first.applied().position, Some(blank(0).position));
        machine.apply(&[blank(1)]).unwrap();
        disk.set_faults(DiskFaults { capacity_bytes: Some(disk.used_bytes()), ..DiskFaults::default() });
        let full = machine.snapshot().await.unwrap();
        assert_eq!(full.applied(), first.applied());
        assert_eq!(machine.flushed(), Some(blank(0).position));
        disk.set_faults(DiskFaults::default());
        let last = machine.snapshot().await.unwrap();
        assert_eq!(last.applied().position, Some(blank(1).position));
    };
    sim.block_on(Duration::from_secs(10), taking).unwrap();
}

/// A snapshot that was sent is refused while there is no room for its end, and the present state stays; once it is sealed
/// it takes the place of that on a disk without a byte of room.
#[test]
fn what_takes_the_place_of_the_state_needs_no_room_once_it_is_sealed() {
    let sim = Simulation::new(1);
    let node = sim.add_node();
    let (env, disk) = (sim.env(node), sim.disk(node));
    let taking = async move {
        let store = |path: &str| {
            let engines = env.clone();
            let opener: EngineOpener =
                Arc::new(move |path| engine::open(EngineKind::Redb, &engines, path, 1 << 20));
            let config = KvConfig { flush_interval: Duration::from_secs(3600), ..KvConfig::new(path.into()) };
            KvStore::open(&env, config, opener, Arc::new(Nobody)).unwrap()
        };
        let fill = || {
            disk.set_faults(DiskFaults { capacity_bytes: Some(disk.used_bytes()), ..DiskFaults::default() });
        };
        let (_source, mut source) = store("/source");
        source.apply(&[blank(0), blank(1)]).unwrap();
        let (_store, machine) = store("/group");
        let left = || -> Vec<String> {
            let names = disk.file_names().into_iter().map(|path| path.display().to_string());
            names.filter(|path| path.contains("/group/store-2") || path.contains("/group/CURRENT-")).collect()
        };
        for course in ["full", "dropped", "taken in"] {
            let mut reader = source.snapshot().await.unwrap();
            let mut installer = machine.installer().unwrap();
            while let Some(chunk) = reader.next_chunk(16).unwrap() {
                installer.write_chunk(&chunk).unwrap();
            }
            if course == "full" {
                fill();
                installer.seal().unwrap_err();
            } else {
                installer.seal().unwrap();
            }
            if course == "taken in" {
                fill();
                installer.finish().unwrap();
                continue;
            }
            drop(installer);
            disk.set_faults(DiskFaults::default());
            assert_eq!(left(), Vec::<String>::new(), "{course}");
            assert_eq!(machine.applied().position, None, "{course}");
        }
        assert_eq!(machine.applied().position, Some(blank(1).position));
        assert_eq!(left(), Vec::<String>::new(), "the third store is in use");
        disk.set_faults(DiskFaults::default());
        drop((_store, machine));
        let (_store, machine) = store("/group");
        assert_eq!(machine.applied().position, Some(blank(1).position), "after a restart");
    };
    sim.block_on(Duration::from_secs(10), taking).unwrap();
}
