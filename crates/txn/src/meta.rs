//! What a store keeps once: how far it is, written in the same engine batch as the rows it speaks of.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::{BufMut, Bytes, BytesMut};
use rustydb_storage::engine::{Direction, EngineView, EngineWriter, KeyRange, Space};
use rustydb_types::ids::{LogIndex, Term, Version};
use rustydb_types::position::LogPosition;

use crate::apply::ApplyState;
use crate::entry::Reader;
use crate::error::ApplyError;
use crate::layer::{META, OUTCOMES, STAGED_TABLE};
use crate::marks::Marks;
use crate::outcomes::{self, OutcomeBounds, OutcomeRow, OutcomeTable, SessionKey};
use crate::staged::{StagedTable, StagedTxn};

/// The only key of the space.
pub(crate) const APPLIED_KEY: &[u8] = b"applied";
const FORMAT_VERSION: u8 = 1;
/// No position comes so far. A snapshot is what another node sends, and from what it says is counted on.
const NUMBER_MAX: u64 = 1 << 62;

const fn is_plausible(number: u64) -> bool {
    number < NUMBER_MAX
}

/// A picture of everything but rows, taken at a freeze.
pub(crate) struct MetaPicture {
    pub(crate) position: Option<LogPosition>,
    pub(crate) opaque: Bytes,
    pub(crate) membership: Option<Bytes>,
    pub(crate) sequence: Version,
    pub(crate) rows_hash: u128,
    pub(crate) outcomes: Vec<(SessionKey, Option<OutcomeRow>)>,
    pub(crate) staged: BTreeMap<Version, StagedTxn>,
    pub(crate) garbage: BTreeSet<Version>,
}

impl MetaPicture {
    pub(crate) fn take(state: &ApplyState, outcomes: &mut OutcomeTable, staged: &StagedTable) -> MetaPicture {
        MetaPicture {
            position: state.position,
            opaque: state.opaque.clone(),
            membership: state.membership.clone(),
            sequence: state.sequence,
            rows_hash: state.rows_hash,
            outcomes: outcomes.take_dirty(),
            staged: staged.rows.clone(),
            garbage: staged.garbage.clone(),
        }
    }

    /// Writes the picture into the batch that makes the rows durable.
    pub(crate) fn write(
        &self,
        writer: &mut dyn EngineWriter,
    ) -> Result<(), rustydb_storage::engine::EngineError> {
        for (key, row) in &self.outcomes {
            let key = outcomes::encode_key(*key);
            match row {
                Some(row) => writer.put(OUTCOMES, &key, &row.encode())?,
                None => writer.delete(OUTCOMES, &key)?,
            }
        }
        writer.delete_range(STAGED_TABLE, KeyRange::ALL)?;
        for (id, txn) in &self.staged {
            writer.put(STAGED_TABLE, &id.get().to_be_bytes(), &txn.encode())?;
        }
        writer.put(META, APPLIED_KEY, &self.encode())
    }

    fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u8(FORMAT_VERSION);
        bytes.put_u8(u8::from(self.position.is_some()));
        let position = self.position.unwrap_or_default();
        bytes.put_u64_le(position.term.get());
        bytes.put_u64_le(position.index.get());
        bytes.put_u64_le(self.sequence.get());
        bytes.put_u128_le(self.rows_hash);
        put_sized(&mut bytes, &self.opaque);
        bytes.put_u8(u8::from(self.membership.is_some()));
        put_sized(&mut bytes, self.membership.as_deref().unwrap_or_default());
        bytes.put_u32_le(u32::try_from(self.garbage.len()).unwrap_or(u32::MAX));
        for id in &self.garbage {
            bytes.put_u64_le(id.get());
        }
        bytes.freeze()
    }
}

fn put_sized(bytes: &mut BytesMut, slice: &[u8]) {
    bytes.put_u32_le(u32::try_from(slice.len()).unwrap_or(u32::MAX));
    bytes.put_slice(slice);
}

/// Everything but rows, as it was stored.
pub(crate) struct Loaded {
    pub(crate) state: ApplyState,
    pub(crate) outcomes: OutcomeTable,
    pub(crate) staged: StagedTable,
}

/// Reads what an engine holds; of an empty engine, nothing applied yet.
pub(crate) fn load(view: &dyn EngineView, bounds: OutcomeBounds) -> Result<Loaded, ApplyError> {
    let mut loaded = Loaded {
        state: ApplyState::default(),
        outcomes: OutcomeTable::new(bounds),
        staged: StagedTable::default(),
    };
    let Some(stored) = view.get(META, APPLIED_KEY)? else { return Ok(loaded) };
    (loaded.state, loaded.staged.garbage) =
        decode(&stored).ok_or(ApplyError::Stored { what: "applied position" })?;
    each(view, OUTCOMES, |key, value| {
        let key = outcomes::decode_key(key)?;
        loaded.outcomes.insert(key, OutcomeRow::decode(&Bytes::copy_from_slice(value))?);
        Some(())
    })?
    .ok_or(ApplyError::Stored { what: "outcome" })?;
    each(view, STAGED_TABLE, |key, value| {
        let id = Some(u64::from_be_bytes(key.try_into().ok()?))
            .filter(|id| is_plausible(*id))
            .map(Version::new)?;
        loaded.staged.rows.insert(id, StagedTxn::decode(&Bytes::copy_from_slice(value))?);
        Some(())
    })?
    .ok_or(ApplyError::Stored { what: "staged transaction" })?;
    let hash = loaded.state.rows_hash.wrapping_add(loaded.outcomes.hash()).wrapping_add(loaded.staged.hash());
    loaded.state.marks = Marks::starting(loaded.state.position, hash);
    Ok(loaded)
}

/// Calls `visit` with every row of a space until it gives up; `None` if it did.
fn each(
    view: &dyn EngineView,
    space: Space,
    mut visit: impl FnMut(&[u8], &[u8]) -> Option<()>,
) -> Result<Option<()>, ApplyError> {
    let mut result = Some(());
    view.scan(space, KeyRange::ALL, Direction::Forward, &mut |key, value| {
        result = visit(key, value);
        if result.is_some() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(result)
}

pub(crate) fn decode(stored: &Bytes) -> Option<(ApplyState, BTreeSet<Version>)> {
    let mut reader = Reader::new(stored);
    if reader.u8()? != FORMAT_VERSION {
        return None;
    }
    let has_position = reader.u8()? == 1;
    let position = LogPosition::new(Term::new(reader.u64()?), LogIndex::new(reader.u64()?));
    let sequence = Version::new(reader.u64()?);
    let rows_hash = u128::from_le_bytes(reader.array()?);
    let opaque = reader.sized()?;
    let has_membership = reader.u8()? == 1;
    let membership = reader.sized()?;
    let garbage_count = reader.u32()?;
    let garbage: BTreeSet<Version> =
        (0..garbage_count).map(|_| reader.u64().map(Version::new)).collect::<Option<_>>()?;
    let numbers = [position.term.get(), position.index.get(), sequence.get()];
    if !numbers.into_iter().all(is_plausible) || !garbage.iter().all(|id| is_plausible(id.get())) {
        return None;
    }
    let state = ApplyState {
        position: Some(position).filter(|_| has_position),
        opaque,
        membership: Some(membership).filter(|_| has_membership),
        sequence,
        rows_hash,
        ..ApplyState::default()
    };
    reader.is_at_end().then_some((state, garbage))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn encoded(state: &ApplyState) -> Bytes {
        MetaPicture::take(state, &mut OutcomeTable::default(), &StagedTable::default()).encode()
    }

    #[test]
    fn a_state_that_nobody_can_have_come_to_is_refused() {
        let at = |term: u64, index: u64, sequence: u64| ApplyState {
            position: Some(LogPosition::new(Term::new(term), LogIndex::new(index))),
            sequence: Version::new(sequence),
            ..ApplyState::default()
        };
        let most = NUMBER_MAX - 1;
        let (state, garbage) = decode(&encoded(&at(most, most, most))).unwrap();
        assert!(state.sequence.get() == most && garbage.is_empty());
        for state in [at(u64::MAX, 1, 1), at(1, u64::MAX, 1), at(1, 1, u64::MAX), at(1, 1, NUMBER_MAX)] {
            assert!(decode(&encoded(&state)).is_none());
        }
    }
}
