//! The flush: from memory into the engine, in the background.
//!
//! One durable engine batch takes each key's newest version of the frozen generations together with the applied
//! position, so that the engine is always the state at one position. A key that changed a thousand times is
//! written once; older versions stay in memory for as long as a snapshot sees them and never reach the disk.
//!
//! Rows of staged transactions that were committed before the freeze go to their place at once; those of open ones
//! go to the engine as provisional rows. After the commit they are moved in bounded steps by the same task. Whatever
//! writes a row at version `v` removes the provisional rows of that key that count at `v` or earlier, so that a later
//! move cannot bring an old row back.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use rustydb_env::Bug;
use rustydb_storage::engine::{Direction, Durability, Engine, EngineError, EngineView, KeyRange};
use rustydb_types::ids::Version;

use crate::core::Core;
use crate::error::ApplyError;
use crate::layer::{
    Generation, Provisional, ROWS, STAGED, STAGED_TABLE, decode_provisional, encode_provisional, encode_row,
    staged_key,
};
use crate::meta::MetaPicture;
use crate::staged::{Leaving, Leavings};

/// Provisional rows moved or removed in one step, and their bytes: what one step holds in memory.
const STEP_ROWS: usize = 10_000;
const STEP_SIZE_BYTES: usize = 4 << 20;

/// What a flush made durable.
pub(crate) struct Flushed {
    pub(crate) view: Arc<dyn EngineView>,
}

/// The newest version of each key; `None` is a deletion.
type NewestRows<'a> = BTreeMap<&'a [u8], (Version, Option<&'a Bytes>)>;

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
            if self.layers.current().active.size_bytes() > 0 && !self.env.has_bug(Bug::FlushMissesNewest) {
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
            *self.staged.leavings.lock() = Leavings::of(&picture.staged, &picture.garbage);
        }
        let view = engine.view()?;
        let given_up = self.layers.give_up_old(self.config.snapshot_size_bytes_max);
        if given_up > 0 {
            tracing::info!(given_up, "old snapshots were given up to keep memory bounded");
        }
        Ok(Flushed { view })
    }

    /// The state of the last flush.
    ///
    /// # Errors
    /// [`ApplyError::Storage`].
    pub(crate) fn flushed_view(&self) -> Result<Arc<dyn EngineView>, ApplyError> {
        let _between_flushes = self.flushed.lock();
        Ok(self.stores.engine().view()?)
    }

    /// Takes one bounded step of clearing up what ended staged transactions left in the engine: moves rows of a
    /// committed one to their place, or removes rows of a dropped one. Returns whether there may be more. Blocks.
    ///
    /// # Errors
    /// As [`flush`](Core::flush).
    pub(crate) fn collect_step(&self) -> Result<bool, ApplyError> {
        let flushing = self.flushed.lock();
        let next = self.staged.leavings.lock().first();
        let Some(next) = next else { return Ok(false) };
        let engine = self.stores.engine();
        match next {
            Leaving::Dropped(id) => {
                if !remove_rows(&*engine, id)? {
                    self.staged.leavings.lock().cleared(next);
                    self.staged.table.write().garbage.remove(&id);
                }
            }
            Leaving::Committed { version, id } => {
                if !move_rows(&*engine, id, version)? {
                    engine.write(Durability::Buffered, &mut |writer| {
                        writer.delete(STAGED_TABLE, &id.get().to_be_bytes())
                    })?;
                    self.staged.leavings.lock().cleared(next);
                    self.staged.table.write().rows.remove(&id);
                }
                let resolved = self.staged.table.read().resolved();
                self.layers.flushed(&[], engine.view()?, resolved);
            }
        }
        drop(flushing);
        Ok(true)
    }
}

/// The first provisional rows of a staged transaction that the engine has, and whether there are more.
fn step_rows(engine: &dyn Engine, id: Version) -> Result<(Vec<(Bytes, Bytes)>, bool), EngineError> {
    let (start, end) = (staged_key(id, &[]), staged_key(id.next(), &[]));
    let mut rows: Vec<(Bytes, Bytes)> = Vec::new();
    let mut size_bytes = 0;
    let mut more = false;
    engine.view()?.scan(STAGED, KeyRange::new(&start, &end), Direction::Forward, &mut |key, value| {
        rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        size_bytes += key.len() + value.len();
        more = rows.len() >= STEP_ROWS || size_bytes >= STEP_SIZE_BYTES;
        if more { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok((rows, more))
}

/// Removes one step of a dropped transaction's rows; returns whether there may be more.
fn remove_rows(engine: &dyn Engine, id: Version) -> Result<bool, EngineError> {
    let (rows, more) = step_rows(engine, id)?;
    if !rows.is_empty() {
        engine.write(Durability::Buffered, &mut |writer| {
            rows.iter().try_for_each(|(key, _)| writer.delete(STAGED, key))
        })?;
    }
    Ok(more)
}

/// Moves one step of a committed transaction's rows to their place; returns whether there may be more.
fn move_rows(engine: &dyn Engine, id: Version, version: Version) -> Result<bool, EngineError> {
    let (rows, more) = step_rows(engine, id)?;
    if rows.is_empty() {
        return Ok(false);
    }
    engine.write(Durability::Buffered, &mut |writer| {
        for (key, stored) in &rows {
            let row_key = key.get(8..).unwrap_or_default();
            let damaged = || EngineError::Abandoned("a provisional row cannot be read".into());
            match decode_provisional(stored).ok_or_else(damaged)?.value {
                Some(value) => writer.put(ROWS, row_key, &encode_row(version, &value))?,
                None => writer.delete(ROWS, row_key)?,
            }
            writer.delete(STAGED, key)?;
        }
        Ok(())
    })?;
    Ok(more)
}

fn write_batch(
    engine: &dyn Engine,
    generations: &[Arc<Generation>],
    picture: &MetaPicture,
) -> Result<(), EngineError> {
    // Newest first, as the set has them; frozen generations do not change any more.
    let guards: Vec<_> = generations.iter().map(|generation| generation.read()).collect();
    let mut newest: NewestRows<'_> = BTreeMap::new();
    let mut provisional: BTreeMap<&Bytes, &Provisional> = BTreeMap::new();
    for rows in guards.iter().rev() {
        for (key, chain) in &rows.chains {
            if let Some((version, value)) = chain.last() {
                newest.insert(key, (*version, value.as_ref()));
            }
        }
        provisional.extend(&rows.staged);
    }
    provisional.retain(|key, row| is_open(picture, &mut newest, key, row));
    let resolved: Vec<(Version, Version)> =
        picture.staged.iter().filter_map(|(id, txn)| Some((*id, txn.committed?))).collect();
    // Those of which an earlier flush has put rows into the engine.
    let mut left_behind = Vec::new();
    for (id, commit) in resolved {
        if has_rows(engine, id)? {
            left_behind.push((id, commit));
        }
    }
    engine.write(Durability::Synced, &mut |writer| {
        for (key, row) in &provisional {
            writer.put(STAGED, key, &encode_provisional(row))?;
        }
        for (key, (version, value)) in &newest {
            match value {
                Some(value) => writer.put(ROWS, key, &encode_row(*version, value))?,
                None => writer.delete(ROWS, key)?,
            }
            for (id, _) in left_behind.iter().filter(|(_, commit)| commit <= version) {
                writer.delete(STAGED, &staged_key(*id, key))?;
            }
        }
        picture.write(writer)
    })
}

/// Whether a provisional row is of an open transaction. One of a committed one counts at its commit, which is later
/// than all that earlier flushes have put into the engine; one of a dropped one counts nowhere.
fn is_open<'a>(
    picture: &MetaPicture,
    newest: &mut NewestRows<'a>,
    key: &'a Bytes,
    row: &'a Provisional,
) -> bool {
    let id = key.first_chunk::<8>().map_or(Version::ZERO, |id| Version::new(u64::from_be_bytes(*id)));
    let Some(txn) = picture.staged.get(&id) else { return false };
    let Some(commit) = txn.committed else { return true };
    let version = (commit, row.value.as_ref());
    let counts = newest.entry(key.get(8..).unwrap_or_default()).or_insert(version);
    if counts.0 < commit {
        *counts = version;
    }
    false
}

/// Whether the engine has provisional rows of a staged transaction.
fn has_rows(engine: &dyn Engine, id: Version) -> Result<bool, EngineError> {
    let (start, end) = (staged_key(id, &[]), staged_key(id.next(), &[]));
    let mut found = false;
    engine.view()?.scan(STAGED, KeyRange::new(&start, &end), Direction::Forward, &mut |_, _| {
        found = true;
        ControlFlow::Break(())
    })?;
    Ok(found)
}
