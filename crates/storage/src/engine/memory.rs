//! The in-memory engine: the model that every other engine is compared with.
//!
//! A view is a shared reference to ordered maps; a write copies a map only while an older view still
//! shares it. So a write costs time by the size of the spaces it touches when views are held: right for
//! tests and for a node without a disk, not for large data.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use super::{
    BatchFiller, Direction, Durability, Engine, EngineError, EngineStats, EngineView, EngineWriter, KeyRange,
    RowVisitor, Space,
};

type Map = BTreeMap<Bytes, Bytes>;
type Spaces = [Arc<Map>; Space::COUNT as usize];

/// An engine without a disk. Clones share their data.
#[derive(Clone, Default)]
pub struct MemoryEngine {
    spaces: Arc<RwLock<Spaces>>,
}

impl MemoryEngine {
    /// An empty engine.
    #[must_use]
    pub fn new() -> MemoryEngine {
        MemoryEngine::default()
    }
}

impl Engine for MemoryEngine {
    fn view(&self) -> Result<Arc<dyn EngineView>, EngineError> {
        Ok(Arc::new(MemoryView { spaces: self.spaces.read().clone() }))
    }

    fn write(&self, _durability: Durability, fill: &mut BatchFiller<'_>) -> Result<(), EngineError> {
        // Operations are collected first, so that a filler which gives up leaves nothing behind.
        let mut writer = MemoryWriter { operations: Vec::new() };
        fill(&mut writer)?;
        let mut spaces = self.spaces.write();
        for operation in writer.operations {
            match operation {
                Operation::Put(space, key, value) => {
                    map_mut(&mut spaces, space).insert(key, value);
                }
                Operation::Delete(space, key) => {
                    map_mut(&mut spaces, space).remove(&key);
                }
                Operation::DeleteRange(space, start, end) => {
                    map_mut(&mut spaces, space)
                        .retain(|key, _| *key < start || end.as_ref().is_some_and(|end| key >= end));
                }
            }
        }
        Ok(())
    }

    fn compact(&self) -> Result<bool, EngineError> {
        Ok(true)
    }

    fn stats(&self) -> EngineStats {
        let spaces = self.spaces.read();
        let bytes: usize =
            spaces.iter().flat_map(|map| map.iter()).map(|(key, value)| key.len() + value.len()).sum();
        EngineStats { file_size_bytes: 0, memory_bytes: bytes as u64 }
    }
}

/// The map of `space`, copied first when a view still shares it.
fn map_mut(spaces: &mut Spaces, space: Space) -> &mut Map {
    Arc::make_mut(&mut spaces[space.index()])
}

enum Operation {
    Put(Space, Bytes, Bytes),
    Delete(Space, Bytes),
    DeleteRange(Space, Bytes, Option<Bytes>),
}

struct MemoryWriter {
    operations: Vec<Operation>,
}

impl EngineWriter for MemoryWriter {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        self.operations.push(Operation::Put(
            space,
            Bytes::copy_from_slice(key),
            Bytes::copy_from_slice(value),
        ));
        Ok(())
    }

    fn delete(&mut self, space: Space, key: &[u8]) -> Result<(), EngineError> {
        self.operations.push(Operation::Delete(space, Bytes::copy_from_slice(key)));
        Ok(())
    }

    fn delete_range(&mut self, space: Space, range: KeyRange<'_>) -> Result<(), EngineError> {
        self.operations.push(Operation::DeleteRange(
            space,
            Bytes::copy_from_slice(range.start),
            range.end.map(Bytes::copy_from_slice),
        ));
        Ok(())
    }
}

struct MemoryView {
    spaces: Spaces,
}

impl EngineView for MemoryView {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.spaces[space.index()].get(key).cloned())
    }

    fn scan(
        &self,
        space: Space,
        range: KeyRange<'_>,
        direction: Direction,
        visit: &mut RowVisitor<'_>,
    ) -> Result<(), EngineError> {
        if range.is_empty() {
            return Ok(());
        }
        let bounds = (Bound::Included(range.start), range.end.map_or(Bound::Unbounded, Bound::Excluded));
        let mut rows = self.spaces[space.index()].range::<[u8], _>(bounds);
        loop {
            let row = match direction {
                Direction::Forward => rows.next(),
                Direction::Backward => rows.next_back(),
            };
            let Some((key, value)) = row else { return Ok(()) };
            if let ControlFlow::Break(()) = visit(key, value) {
                return Ok(());
            }
        }
    }
}
