//! The power fails under redb at any write or sync of the simulated disk: what it opens with is the state after
//! some batch, not before the last synced one.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use rustydb_env::Rng;
use rustydb_env::sim::{DiskFailure, DiskFaults, SimNode, Simulation};

use super::{Direction, Durability, Engine, EngineError, EngineView, KeyRange, RedbEngine, Space};

type Model = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

const SPACES: u8 = 2;

struct World {
    simulation: Simulation,
    node: SimNode,
    rng: Rng,
}

/// What a batch changes; an absent value deletes.
type Changes = Vec<(u8, Vec<u8>, Option<Vec<u8>>)>;

impl World {
    fn new(seed: u64) -> World {
        let simulation = Simulation::new(seed);
        let node = simulation.add_node();
        simulation.env(node).disk().create_dir_all(Path::new("/data")).unwrap();
        let rng = simulation.harness().rng();
        World { simulation, node, rng }
    }

    fn open(&self) -> Result<RedbEngine, EngineError> {
        RedbEngine::open(&self.simulation.env(self.node), Path::new("/data/store"), 1 << 20)
    }

    fn cut_power_after(&self, changes: u64) {
        let faults = DiskFaults { power_cut_after: Some(changes), ..DiskFaults::default() };
        self.simulation.disk(self.node).set_faults(faults);
    }

    fn batch(&mut self) -> Changes {
        let count = if self.rng.chance(1, 8) { 300 } else { self.rng.range(1..20) };
        (0..count)
            .map(|_| {
                let space = u8::try_from(self.rng.range(0..u64::from(SPACES))).unwrap();
                let key = self.rng.range(0..400).to_be_bytes().to_vec();
                let size = if self.rng.chance(1, 50) { 20_000 } else { self.rng.range(0..60) };
                let fill = u8::try_from(self.rng.range(0..256)).unwrap();
                let value = vec![fill; usize::try_from(size).unwrap()];
                (space, key, (!self.rng.chance(1, 4)).then_some(value))
            })
            .collect()
    }

    /// Crashes the node and opens the engine, with more power cuts on the way.
    fn reopen(&mut self) -> RedbEngine {
        loop {
            self.simulation.crash(self.node);
            if self.rng.chance(1, 3) {
                let changes = self.rng.range(0..12);
                self.cut_power_after(changes);
            }
            match self.open() {
                Ok(engine) => {
                    self.simulation.disk(self.node).set_faults(DiskFaults::default());
                    return engine;
                }
                Err(error) => {
                    let cause = format!("{error:?}");
                    assert!(cause.contains("the power is cut") || cause.contains("Poisoned"), "{cause}");
                }
            }
        }
    }
}

fn apply(model: &mut Model, changes: &Changes) {
    for (space, key, value) in changes {
        match value {
            Some(value) => model.insert((*space, key.clone()), value.clone()),
            None => model.remove(&(*space, key.clone())),
        };
    }
}

fn write(engine: &dyn Engine, changes: &Changes, durability: Durability) -> Result<(), EngineError> {
    engine.write(durability, &mut |writer| {
        changes.iter().try_for_each(|(space, key, value)| match value {
            Some(value) => writer.put(Space::new(*space), key, value),
            None => writer.delete(Space::new(*space), key),
        })
    })
}

fn content(view: &dyn EngineView) -> Model {
    let mut model = Model::new();
    for space in 0..SPACES {
        view.scan(Space::new(space), KeyRange::ALL, Direction::Forward, &mut |key, value| {
            model.insert((space, key.to_vec()), value.to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    model
}

#[test]
fn redb_opens_with_the_state_after_some_batch_not_before_the_last_synced() {
    let (mut kept, mut lost) = (0, 0);
    for seed in 0..40 {
        let mut world = World::new(seed);
        let mut engine = world.open().unwrap();
        let mut model = Model::new();
        for _ in 0..5 {
            let changes = world.rng.range(0..200);
            world.cut_power_after(changes);
            let mut batches: Vec<Changes> = Vec::new();
            let mut durable = 0;
            for _ in 0..30 {
                let batch = world.batch();
                let synced = world.rng.chance(1, 2);
                let durability = if synced { Durability::Synced } else { Durability::Buffered };
                let result = write(&engine, &batch, durability);
                batches.push(batch);
                match result {
                    Ok(()) if synced => durable = batches.len(),
                    Ok(()) => {}
                    Err(_) => break,
                }
            }
            drop(engine);
            engine = world.reopen();
            let found = content(&*engine.view().unwrap());
            let mut applied = 0;
            while applied < durable || model != found {
                let Some(batch) = batches.get(applied) else {
                    panic!("seed {seed}: {durable} of {} batches were durable", batches.len());
                };
                apply(&mut model, batch);
                applied += 1;
            }
            kept += applied;
            lost += batches.len() - applied;
        }
    }
    assert!(kept > 500 && lost > 100, "{kept} kept, {lost} lost");
}

#[test]
fn a_failed_sync_poisons_redb_until_it_is_opened_again() {
    let mut world = World::new(5);
    let engine = world.open().unwrap();
    let first = world.batch();
    write(&engine, &first, Durability::Synced).unwrap();
    let faults = DiskFaults { sync_errors_ppm: 1_000_000, ..DiskFaults::default() };
    world.simulation.disk(world.node).set_faults(faults);
    let second = world.batch();
    assert!(write(&engine, &second, Durability::Synced).is_err());
    world.simulation.disk(world.node).set_faults(DiskFaults::default());
    let refused = write(&engine, &second, Durability::Synced);
    assert!(matches!(refused, Err(EngineError::Poisoned { .. })), "{refused:?}");
    drop(engine);
    let engine = world.reopen();
    let mut model = Model::new();
    apply(&mut model, &first);
    let found = content(&*engine.view().unwrap());
    if found != model {
        apply(&mut model, &second);
        assert_eq!(found, model);
    }
}

/// The process ends without a loss of power after any write or sync that failed, goes on with what it finds then, and
/// the power fails only later: nothing that was read and built upon may have been in memory only.
#[test]
fn what_was_found_after_a_failed_sync_is_there_after_a_later_power_cut() {
    let (mut failed, mut kept, mut seed) = (0, 0, 0);
    while failed < 150 {
        let mut world = World::new(seed);
        let engine = world.open().unwrap();
        let mut model = Model::new();
        for _ in 0..3 {
            let batch = world.batch();
            write(&engine, &batch, Durability::Synced).unwrap();
            apply(&mut model, &batch);
        }
        let failure_after = Some((seed % 20, DiskFailure::Error));
        world.simulation.disk(world.node).set_faults(DiskFaults { failure_after, ..DiskFaults::default() });
        let batch = world.batch();
        let is_failed = write(&engine, &batch, Durability::Synced).is_err();
        failed += usize::from(is_failed);
        drop(engine);
        world.simulation.kill(world.node);
        let engine = world.open().unwrap();
        let mut found = content(&*engine.view().unwrap());
        if found != model {
            apply(&mut model, &batch);
            assert!(found == model, "seed {seed}: neither before nor after the batch");
            kept += usize::from(is_failed);
        }
        if seed / 20 % 2 == 0 {
            let batch = world.batch();
            write(&engine, &batch, Durability::Synced).unwrap();
            apply(&mut found, &batch);
        }
        drop(engine);
        world.simulation.crash(world.node);
        let engine = world.open().unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
        assert!(content(&*engine.view().unwrap()) == found, "seed {seed}: not what was found before");
        seed += 1;
    }
    assert!(kept > 0, "of {failed} failures none left its batch in memory");
}

#[test]
fn a_full_disk_refuses_batches_and_recovers() {
    let mut world = World::new(6);
    let engine = world.open().unwrap();
    let (first, second) = (world.batch(), world.batch());
    write(&engine, &first, Durability::Synced).unwrap();
    let faults = DiskFaults { capacity_bytes: Some(1), ..DiskFaults::default() };
    world.simulation.disk(world.node).set_faults(faults);
    let refused = write(&engine, &second, Durability::Synced);
    assert!(matches!(refused, Err(EngineError::DiskFull { .. })), "{refused:?}");
    let mut model = Model::new();
    apply(&mut model, &first);
    assert_eq!(content(&*engine.view().unwrap()), model);
    world.simulation.disk(world.node).set_faults(DiskFaults::default());
    write(&engine, &second, Durability::Synced).unwrap();
    apply(&mut model, &second);
    assert_eq!(content(&*engine.view().unwrap()), model);
}
