//! The flush: from memory into the engine, in the background.
//!
//! One durable engine batch takes each key's newest version of the frozen generations together with the applied
//! position, so that the engine is always the state at one position. A key that changed a thousand times is
//! written once; older versions stay in memory for as long as a snapshot sees them and never reach the disk.
//!
//! Rows of staged transactions that were committed before the freeze go to their place at once; those of open ones
//! go to the engine as provisional rows. After the commit they are moved in steps by the same task. Whatever
//! writes a row at version `v` removes the provisional rows of that key that count at earlier versions, so that a
//! later move cannot bring an old row back.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use rustydb_storage::engine::{
    Direction, Durability, Engine, EngineError, EngineView, EngineWriter, KeyRange,
};
use rustydb_types::ids::Version;

use crate::core::Core;
use crate::error::ApplyError;
use crate::layer::{
    Generation, ROWS, STAGED, STAGED_TABLE, decode_provisional, encode_provisional, encode_row, staged_key,
};
use crate::meta::MetaPicture;

/// Provisional rows moved in one step.
const MOVE_ROWS: usize = 10_000;

/// What a flush made durable.
pub(crate) struct Flushed {
    pub(crate) view: Arc<dyn EngineView>,
}

type NewestRows<'a> = BTreeMap<&'a Bytes, (Version, Option<&'a Bytes>)>;

impl Core {
    /// Makes everything applied durable. Blocks.
    ///
    /// # Errors
    /// [`ApplyError::Storage`]; after [`EngineError::DiskFull`] nothing has changed and it may be tried again.
    pub(crate) fn flush(&self) -> Result<Flushed, ApplyError> {
        let mut flushed_position = self.flushed.lock();
        let (generations, picture) = {
            let state = self.apply.lock();
            if state.stopped {
                return Err(ApplyError::Stopped);
            }
            if self.layers.current().active.size_bytes() > 0 {
                self.layers.freeze();
            }
            let mut outcomes = self.outcomes.write();
            let picture = MetaPicture::take(&state, &mut outcomes, &self.staged.table.read());
            (self.layers.current().frozen.clone(), picture)
        };
        let engine = self.stores.engine();
        if picture.position != *flushed_position || !generations.is_empty() {
            if let Err(error) = write_batch(&*engine, &generations, &picture) {
                self.outcomes.write().mark_dirty(picture.outcomes.iter().map(|(key, _)| *key));
                return Err(error.into());
            }
            let view = engine.view()?;
            self.layers.flushed(&generations, view, self.staged.table.read().resolved());
            *flushed_position = picture.position;
        }
        let view = engine.view()?;
        self.collect(&*engine, &picture)?;
        let given_up = self.layers.give_up_old(self.config.snapshot_size_bytes_max);
        if given_up > 0 {
            tracing::info!(given_up, "old snapshots were given up to keep memory bounded");
        }
        Ok(Flushed { view })
    }

    /// Moves the rows of committed staged transactions to their place, and removes those of dropped ones.
    fn collect(&self, engine: &dyn Engine, picture: &MetaPicture) -> Result<(), ApplyError> {
        if !picture.garbage.is_empty() {
            engine.write(Durability::Buffered, &mut |writer| {
                for id in &picture.garbage {
                    let (start, end) = (staged_key(*id, &[]), staged_key(id.next(), &[]));
                    writer.delete_range(STAGED, KeyRange::new(&start, &end))?;
                }
                Ok(())
            })?;
            self.staged.table.write().garbage.retain(|id| !picture.garbage.contains(id));
        }
        let mut committed: Vec<(Version, Version)> =
            picture.staged.iter().filter_map(|(id, txn)| Some((txn.committed?, *id))).collect();
        committed.sort_unstable();
        for (version, id) in committed {
            while move_rows(engine, id, version)? > 0 {
                self.layers.flushed(&[], engine.view()?, self.staged.table.read().resolved());
            }
            engine.write(Durability::Buffered, &mut |writer| {
                writer.delete(STAGED_TABLE, &id.get().to_be_bytes())
            })?;
            let resolved = {
                let mut table = self.staged.table.write();
                table.rows.remove(&id);
                table.resolved()
            };
            self.layers.flushed(&[], engine.view()?, resolved);
        }
        Ok(())
    }
}

/// Moves one step of provisional rows; returns how many.
fn move_rows(engine: &dyn Engine, id: Version, version: Version) -> Result<usize, EngineError> {
    let (start, end) = (staged_key(id, &[]), staged_key(id.next(), &[]));
    let mut rows: Vec<(Bytes, Bytes)> = Vec::new();
    engine.view()?.scan(STAGED, KeyRange::new(&start, &end), Direction::Forward, &mut |key, value| {
        rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        if rows.len() < MOVE_ROWS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    if rows.is_empty() {
        return Ok(0);
    }
    engine.write(Durability::Buffered, &mut |writer| {
        for (key, stored) in &rows {
            let row_key = key.get(8..).unwrap_or_default();
            match decode_provisional(stored) {
                Some(value) => writer.put(ROWS, row_key, &encode_row(version, &value))?,
                None => writer.delete(ROWS, row_key)?,
            }
            writer.delete(STAGED, key)?;
        }
        Ok(())
    })?;
    Ok(rows.len())
}

fn write_batch(
    engine: &dyn Engine,
    generations: &[Arc<Generation>],
    picture: &MetaPicture,
) -> Result<(), EngineError> {
    // Newest first, as the set has them; frozen generations do not change any more.
    let guards: Vec<_> = generations.iter().map(|generation| generation.read()).collect();
    let mut newest: NewestRows<'_> = BTreeMap::new();
    let mut provisional: BTreeMap<&Bytes, Option<&Bytes>> = BTreeMap::new();
    for rows in guards.iter().rev() {
        for (key, chain) in &rows.chains {
            if let Some((version, value)) = chain.last() {
                newest.insert(key, (*version, value.as_ref()));
            }
        }
        provisional.extend(rows.staged.iter().map(|(key, value)| (key, value.as_ref())));
    }
    let mut resolved: Vec<(Version, Version)> =
        picture.staged.iter().filter_map(|(id, txn)| Some((*id, txn.committed?))).collect();
    resolved.sort_unstable();
    engine.write(Durability::Synced, &mut |writer| {
        for (key, value) in &provisional {
            write_provisional(writer, picture, &newest, key, *value)?;
        }
        for (key, (version, value)) in &newest {
            match value {
                Some(value) => writer.put(ROWS, key, &encode_row(*version, value))?,
                None => writer.delete(ROWS, key)?,
            }
            for (id, _) in resolved.iter().filter(|(_, commit)| commit < version) {
                writer.delete(STAGED, &staged_key(*id, key))?;
            }
        }
        picture.write(writer)
    })
}

/// Puts a provisional row where it belongs: with its transaction while that is open, among the rows once it is
/// committed, nowhere when it was dropped.
fn write_provisional(
    writer: &mut dyn EngineWriter,
    picture: &MetaPicture,
    newest: &NewestRows<'_>,
    key: &Bytes,
    value: Option<&Bytes>,
) -> Result<(), EngineError> {
    let id = key.first_chunk::<8>().map_or(Version::ZERO, |id| Version::new(u64::from_be_bytes(*id)));
    let Some(txn) = picture.staged.get(&id) else { return Ok(()) };
    let provisional = encode_provisional(value.map(|value| &value[..]));
    if txn.committed.is_none() {
        return writer.put(STAGED, key, &provisional);
    }
    // Committed: the row stays provisional for one step and is moved with the others, in the order of commits.
    let row_key = key.slice(8..);
    let overwritten = newest.get(&row_key).is_some_and(|(version, _)| Some(*version) > txn.committed);
    if overwritten { writer.delete(STAGED, key) } else { writer.put(STAGED, key, &provisional) }
}
