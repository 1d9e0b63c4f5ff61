//! Snapshots for other replicas: read from a pinned view, written into a new store.
//!
//! ```text
//!   chunk   := row*            whole rows only
//!   row     := space u8, key length u32, value length u32, key, value
//!   end     := row with space 255 and empty key; its value is the count of rows, u64, and the format, u8
//! ```
//!
//! A snapshot is what the engine holds after a flush: current rows, outcomes, staged transactions, the applied
//! position with the membership. No history. Memory on both sides is one chunk.
//! The record of the applied position is written last and durably, so an unfinished install is an empty store; the
//! pointer to the store in use is flipped after that, by a rename of what was written before.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use rustydb_env::{Bug, ambient};
use rustydb_storage::engine::{Direction, Durability, Engine, EngineView, KeyRange, Space};

use crate::core::Core;
use crate::entry::Reader;
use crate::error::ApplyError;
use crate::hash;
use crate::layer::{META, OUTCOMES, ROWS, STAGED, STAGED_TABLE, decode_row};
use crate::machine::Applied;
use crate::marks::Mark;
use crate::meta::{self, APPLIED_KEY};
use crate::outcomes::OutcomeBounds;
use crate::staged::{Leavings, StagedTxn};

/// Rows, then what explains them.
const SPACES: [Space; 5] = [ROWS, STAGED, STAGED_TABLE, OUTCOMES, META];
const END: u8 = 255;
const FORMAT_VERSION: u8 = 1;

/// Streams the state of one applied position.
pub struct SnapshotReader {
    view: Arc<dyn EngineView>,
    applied: Applied,
    mark: Option<Mark>,
    /// Index into [`SPACES`] and the key to go on from.
    place: Option<(usize, Bytes)>,
    rows: u64,
}

impl SnapshotReader {
    pub(crate) fn new(view: Arc<dyn EngineView>) -> Result<SnapshotReader, ApplyError> {
        let state = meta::load(&*view, OutcomeBounds::default())?.state;
        let applied = Applied {
            position: state.position,
            opaque_position: state.opaque,
            membership: state.membership,
            version: state.sequence,
        };
        let mark = state.marks.last();
        Ok(SnapshotReader { view, applied, mark, place: Some((0, Bytes::new())), rows: 0 })
    }

    /// The position of the snapshot and what goes with it.
    #[must_use]
    pub const fn applied(&self) -> &Applied {
        &self.applied
    }

    /// The hash of the state that is read; [`None`] before the first entry.
    #[must_use]
    pub const fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// The next chunk, of about `max_bytes`, or `None` after the last. Reads the disk.
    ///
    /// # Errors
    /// [`ApplyError::Storage`].
    pub fn next_chunk(&mut self, max_bytes: usize) -> Result<Option<Bytes>, ApplyError> {
        let Some((mut index, mut from)) = self.place.take() else { return Ok(None) };
        let mut chunk = BytesMut::new();
        while let Some(space) = SPACES.get(index) {
            if *space == OUTCOMES && ambient::has_bug(Bug::SnapshotWithoutOutcomes) {
                index += 1;
                continue;
            }
            let mut stopped = None;
            let range = KeyRange { start: &from, end: None };
            self.view.scan(*space, range, Direction::Forward, &mut |key, value| {
                put_row(&mut chunk, space.get(), key, value);
                self.rows += 1;
                if chunk.len() < max_bytes {
                    return ControlFlow::Continue(());
                }
                let mut next = BytesMut::from(key);
                next.put_u8(0);
                stopped = Some(next.freeze());
                ControlFlow::Break(())
            })?;
            if let Some(next) = stopped {
                self.place = Some((index, next));
                return Ok(Some(chunk.freeze()));
            }
            index += 1;
            from = Bytes::new();
        }
        let mut end = BytesMut::new();
        end.put_u64_le(self.rows);
        end.put_u8(FORMAT_VERSION);
        put_row(&mut chunk, END, &[], &end);
        Ok(Some(chunk.freeze()))
    }
}

fn put_row(chunk: &mut BytesMut, space: u8, key: &[u8], value: &[u8]) {
    let size = |slice: &[u8]| u32::try_from(slice.len()).unwrap_or(u32::MAX);
    chunk.put_u8(space);
    chunk.put_u32_le(size(key));
    chunk.put_u32_le(size(value));
    chunk.put_slice(key);
    chunk.put_slice(value);
}

/// Fills a new store from chunks and puts it in the place of the present one. Dropping it before
/// [`finish`](SnapshotInstaller::finish) leaves everything as it was.
pub struct SnapshotInstaller {
    unfinished: Unfinished,
    engine: Arc<dyn Engine>,
    applied: Option<Bytes>,
    rows: u64,
    /// The sum over all rows so far.
    rows_hash: u128,
    ended: bool,
    /// All of it is durable.
    is_sealed: bool,
    /// The beginning of a row whose end comes with the next piece.
    carried: BytesMut,
}

/// An engine that is removed unless it is put in its place.
struct Unfinished {
    core: Arc<Core>,
    number: Option<u64>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(number) = self.number
            && let Err(error) = self.core.stores.abandon(number)
        {
            // The next start removes it.
            tracing::warn!(%error, "an unfinished snapshot was not removed");
        }
    }
}

const DAMAGED: ApplyError = ApplyError::Stored { what: "snapshot" };

impl SnapshotInstaller {
    pub(crate) fn new(core: Arc<Core>) -> Result<SnapshotInstaller, ApplyError> {
        let (number, engine) = core.stores.create()?;
        Ok(SnapshotInstaller {
            unfinished: Unfinished { core, number: Some(number) },
            engine,
            applied: None,
            rows: 0,
            rows_hash: 0,
            ended: false,
            is_sealed: false,
            carried: BytesMut::new(),
        })
    }

    /// Writes the next piece of what [`SnapshotReader::next_chunk`] gave, in order, cut anywhere. Blocks for the
    /// disk.
    ///
    /// # Errors
    /// [`ApplyError`] when the chunk does not decode or the disk fails; drop the installer then.
    pub fn write_chunk(&mut self, piece: &[u8]) -> Result<(), ApplyError> {
        self.carried.put_slice(piece);
        let chunk = self.carried.split().freeze();
        let mut reader = Reader::new(&chunk);
        let mut rows = Vec::new();
        while !reader.is_at_end() {
            if self.ended {
                return Err(DAMAGED);
            }
            let before = reader.position();
            let Some((space, key, value)) = read_row(&mut reader) else {
                self.carried = BytesMut::from(chunk.get(before..).unwrap_or_default());
                break;
            };
            if space == END {
                let mut end = Reader::new(&value);
                let count = end.u64();
                self.ended = count == Some(self.rows) && end.u8() == Some(FORMAT_VERSION);
                if !self.ended {
                    return Err(DAMAGED);
                }
                continue;
            }
            self.rows += 1;
            let space = SPACES.iter().copied().find(|known| known.get() == space).ok_or(DAMAGED)?;
            if space == META && key == APPLIED_KEY {
                self.applied = Some(value);
            } else {
                if space == ROWS {
                    let (version, row) = decode_row(&value).ok_or(DAMAGED)?;
                    self.rows_hash = self.rows_hash.wrapping_add(hash::row(&key, version, row));
                }
                rows.push((space, key, value));
            }
        }
        self.engine.write(Durability::Buffered, &mut |writer| {
            rows.iter().try_for_each(|(space, key, value)| writer.put(*space, key, value))
        })?;
        Ok(())
    }

    /// Whether the rows so far are those of the hash that came with them. While a staged transaction is being moved to
    /// its place there is nothing to compare, and the answer is yes.
    ///
    /// # Errors
    /// [`ApplyError`] when what was taken in cannot be read.
    pub fn adds_up(&self) -> Result<bool, ApplyError> {
        let Some((state, _)) = self.applied.as_ref().and_then(meta::decode) else { return Err(DAMAGED) };
        let mut resolved = false;
        self.engine.view()?.scan(STAGED_TABLE, KeyRange::ALL, Direction::Forward, &mut |_, row| {
            let txn = StagedTxn::decode(&Bytes::copy_from_slice(row));
            resolved |= txn.is_some_and(|txn| txn.committed.is_some());
            ControlFlow::Continue(())
        })?;
        Ok(resolved || state.rows_hash == self.rows_hash)
    }

    /// Makes the new store durable beside the present one, when all of it is there. What is left to do then needs no room
    /// on the disk. Blocks for the disk.
    ///
    /// # Errors
    /// [`ApplyError`] when the snapshot is incomplete, or the disk fails or is full; the present store is as it was.
    /// Drop the installer then.
    pub fn seal(&mut self) -> Result<(), ApplyError> {
        let is_whole = self.ended && self.carried.is_empty();
        let applied = self.applied.as_ref().filter(|_| is_whole).ok_or(DAMAGED)?;
        self.engine.write(Durability::Synced, &mut |writer| writer.put(META, APPLIED_KEY, applied))?;
        if let Some(number) = self.unfinished.number {
            self.unfinished.core.stores.prepare(number)?;
        }
        self.is_sealed = true;
        Ok(())
    }

    /// [Seals](SnapshotInstaller::seal) the new store unless it is, and flips to it. Open snapshots of the former state end with
    /// [`SnapshotTooOld`](crate::TxnError::SnapshotTooOld). Blocks for the disk.
    ///
    /// # Errors
    /// [`ApplyError`] when the snapshot is incomplete (the former state stays), or the disk fails.
    pub fn finish(mut self) -> Result<Applied, ApplyError> {
        if !self.is_sealed {
            self.seal()?;
        }
        let core = Arc::clone(&self.unfinished.core);
        let mut flushed = core.flushed.lock();
        let mut state = core.apply.lock();
        let view = self.engine.view()?;
        let loaded = meta::load(&*view, core.config.outcomes)?;
        let resolved = loaded.staged.resolved();
        // Rows of committed staged transactions that are not at their place yet have their share in the sum already.
        if resolved.is_empty() && loaded.state.rows_hash != self.rows_hash {
            tracing::error!(position = ?loaded.state.position, "the rows of a snapshot do not add up to its hash");
        }
        if let Some(number) = self.unfinished.number.take() {
            core.stores.switch(number, Arc::clone(&self.engine))?;
        }
        *core.outcomes.write() = loaded.outcomes.after_snapshot(loaded.state.sequence);
        *core.staged.leavings.lock() = Leavings::of(&loaded.staged.rows, &loaded.staged.garbage);
        *core.staged.table.write() = loaded.staged;
        core.layers.replace(view, loaded.state.sequence, resolved);
        *state = loaded.state;
        *flushed = state.position;
        core.resolved(&[], state.sequence);
        core.feed.lag_all();
        core.attached.lag_all();
        let sequence = state.sequence;
        core.applied.send_modify(|applied| *applied = sequence);
        Ok(Applied {
            position: state.position,
            opaque_position: state.opaque.clone(),
            membership: state.membership.clone(),
            version: state.sequence,
        })
    }
}

fn read_row(reader: &mut Reader<'_>) -> Option<(u8, Bytes, Bytes)> {
    let space = reader.u8()?;
    let key_size = usize::try_from(reader.u32()?).ok()?;
    let value_size = usize::try_from(reader.u32()?).ok()?;
    Some((space, reader.take(key_size)?, reader.take(value_size)?))
}
