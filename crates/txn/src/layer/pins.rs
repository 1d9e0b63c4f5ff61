//! The current set, and the snapshots that hold on to older ones.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use rustydb_storage::engine::{EngineError, EngineView};
use rustydb_types::ids::Version;

use super::generation::Generation;
use super::set::LayerSet;
use crate::error::TxnError;

/// The recent layer of one store.
pub(crate) struct Layers {
    current: RwLock<Arc<LayerSet>>,
    /// The version up to which everything is applied. Stored by apply after the versions are in the active
    /// generation.
    applied: AtomicU64,
    pins: Mutex<Pins>,
    /// Counts changes of the view.
    flushes: AtomicU64,
    retained: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Pins {
    next: u64,
    cells: BTreeMap<u64, Arc<PinCell>>,
}

struct PinCell {
    version: Version,
    /// `None` once the snapshot was given up.
    set: RwLock<Option<Arc<LayerSet>>>,
}

/// A snapshot: one version of everything, readable until dropped or given up.
pub(crate) struct Pin {
    id: u64,
    cell: Arc<PinCell>,
    layers: Arc<Layers>,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.layers.pins.lock().cells.remove(&self.id);
    }
}

impl Pin {
    /// The version that the snapshot sees.
    pub(crate) fn version(&self) -> Version {
        self.cell.version
    }

    /// Reads in the snapshot. The lock taken is the snapshot's own.
    ///
    /// # Errors
    /// [`TxnError::SnapshotTooOld`] when it was given up; what `read` returns.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&LayerSet) -> Result<T, EngineError>,
    ) -> Result<T, TxnError> {
        let set = self.cell.set.read();
        let set = set.as_ref().ok_or(TxnError::SnapshotTooOld)?;
        Ok(read(set)?)
    }
}

impl Layers {
    pub(crate) fn new(
        view: Arc<dyn EngineView>,
        applied: Version,
        resolved: BTreeMap<Version, Version>,
    ) -> Arc<Layers> {
        let retained = Arc::new(AtomicUsize::new(0));
        let active = Arc::new(Generation::new(Arc::clone(&retained)));
        let set = LayerSet { active, frozen: Vec::new(), view, resolved: Arc::new(resolved) };
        Arc::new(Layers {
            current: RwLock::new(Arc::new(set)),
            applied: AtomicU64::new(applied.get()),
            pins: Mutex::default(),
            flushes: AtomicU64::new(0),
            retained,
        })
    }

    pub(crate) fn applied(&self) -> Version {
        Version::new(self.applied.load(Ordering::Acquire))
    }

    /// Makes versions visible to new snapshots; they are in the active generation already.
    pub(crate) fn publish(&self, applied: Version) {
        self.applied.store(applied.get(), Ordering::Release);
    }

    /// How often the view has changed: what was found absent in memory since may be in the engine.
    pub(crate) fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Acquire)
    }

    pub(crate) fn current(&self) -> Arc<LayerSet> {
        Arc::clone(&self.current.read())
    }

    /// A snapshot of everything applied, or of `numbered` where that is later.
    ///
    /// The set is taken before the version is read, under the lock that freezing takes: so every version that the
    /// snapshot sees is in its set, or will be added to it by [`freeze`](Layers::freeze).
    pub(crate) fn pin(self: &Arc<Layers>, numbered: Option<&AtomicU64>) -> Pin {
        let current = self.current.read();
        let numbered = numbered.map_or(Version::ZERO, |it| Version::new(it.load(Ordering::Acquire)));
        let version = self.applied().max(numbered);
        let cell = Arc::new(PinCell { version, set: RwLock::new(Some(Arc::clone(&current))) });
        let mut pins = self.pins.lock();
        pins.next += 1;
        let id = pins.next;
        pins.cells.insert(id, Arc::clone(&cell));
        drop(pins);
        drop(current);
        Pin { id, cell, layers: Arc::clone(self) }
    }

    /// Closes the active generation and opens a new one. Called under the lock of apply. Snapshots that see
    /// versions which are still to be applied get the new generation too.
    pub(crate) fn freeze(&self) {
        let mut current = self.current.write();
        let former = Arc::clone(&current.active);
        let active = Arc::new(Generation::new(Arc::clone(&self.retained)));
        let extended = |set: &LayerSet, former: &Arc<Generation>| {
            let frozen = std::iter::once(former).chain(&set.frozen).map(Arc::clone).collect();
            let (view, resolved) = (Arc::clone(&set.view), Arc::clone(&set.resolved));
            Arc::new(LayerSet { active: Arc::clone(&active), frozen, view, resolved })
        };
        let applied = self.applied();
        for cell in self.pins.lock().cells.values().filter(|cell| cell.version > applied) {
            let mut set = cell.set.write();
            if let Some(set) = &mut *set {
                let former = Arc::clone(&set.active);
                *set = extended(set, &former);
            }
        }
        *current = extended(&current, &former);
    }

    /// Puts a new view in place of the flushed generations. Everything frozen in `flushed` is in the view.
    pub(crate) fn flushed(
        &self,
        flushed: &[Arc<Generation>],
        view: Arc<dyn EngineView>,
        resolved: BTreeMap<Version, Version>,
    ) {
        let mut current = self.current.write();
        let frozen = current
            .frozen
            .iter()
            .filter(|generation| !flushed.iter().any(|done| Arc::ptr_eq(done, generation)))
            .cloned()
            .collect();
        let active = Arc::clone(&current.active);
        self.flushes.fetch_add(1, Ordering::AcqRel);
        let former = std::mem::replace(
            &mut *current,
            Arc::new(LayerSet { active, frozen, view, resolved: Arc::new(resolved) }),
        );
        drop(current);
        for generation in flushed {
            generation.mark_flushed();
        }
        drop(former);
    }

    /// Replaces everything by what another store holds. All snapshots are given up.
    pub(crate) fn replace(
        &self,
        view: Arc<dyn EngineView>,
        applied: Version,
        resolved: BTreeMap<Version, Version>,
    ) {
        let mut current = self.current.write();
        let active = Arc::new(Generation::new(Arc::clone(&self.retained)));
        *current = Arc::new(LayerSet { active, frozen: Vec::new(), view, resolved: Arc::new(resolved) });
        for cell in self.pins.lock().cells.values() {
            *cell.set.write() = None;
        }
        self.publish(applied);
    }

    /// Gives up the oldest snapshots until what they alone keep alive is within `bound_bytes`. Returns how many.
    pub(crate) fn give_up_old(&self, bound_bytes: usize) -> usize {
        let mut given_up = 0;
        while self.retained.load(Ordering::Acquire) > bound_bytes {
            let current = self.current();
            let oldest = self.pins.lock().cells.values().find_map(|cell| {
                let mut set = cell.set.write();
                set.take_if(|set| !Arc::ptr_eq(&set.view, &current.view))
            });
            // The set is freed here, outside the locks.
            if oldest.is_none() {
                break;
            }
            given_up += 1;
        }
        given_up
    }

    /// Bytes of versions that only memory has.
    pub(crate) fn unflushed_size_bytes(&self) -> usize {
        let current = self.current.read();
        current.active.size_bytes() + current.frozen.iter().map(|it| it.size_bytes()).sum::<usize>()
    }

    /// Bytes of flushed versions that old snapshots keep in memory.
    pub(crate) fn retained_size_bytes(&self) -> usize {
        self.retained.load(Ordering::Acquire)
    }
}
