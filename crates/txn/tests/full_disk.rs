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
