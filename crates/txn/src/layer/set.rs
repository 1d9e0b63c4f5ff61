//! One consistent stack of generations over an engine view.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use rustydb_storage::engine::{EngineError, EngineView};
use rustydb_types::ids::Version;

use super::generation::{Generation, chain_at, staged_key};
use super::scan::{EngineRun, Item, ItemRun, Limits, ScanBounds};
use super::{ROWS, STAGED};

/// A version of a row, which may be a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) version: Version,
    pub(crate) value: Option<Bytes>,
}

/// A row as the engine keeps it: the version, eight bytes little-endian, then the value.
pub(crate) fn encode_row(version: Version, value: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(8 + value.len());
    bytes.put_u64_le(version.get());
    bytes.put_slice(value);
    bytes.freeze()
}

/// Splits a stored row. A row shorter than its version cannot have been written by [`encode_row`].
pub(crate) fn decode_row(row: &[u8]) -> Option<(Version, &[u8])> {
    let (version, value) = row.split_first_chunk::<8>()?;
    Some((Version::new(u64::from_le_bytes(*version)), value))
}

fn damaged() -> EngineError {
    EngineError::Abandoned("a stored row is shorter than its version".into())
}

/// The stack that a snapshot reads.
pub(crate) struct LayerSet {
    /// Takes new versions.
    pub(crate) active: Arc<Generation>,
    /// Waiting for the flush, newest first.
    pub(crate) frozen: Vec<Arc<Generation>>,
    /// Everything older.
    pub(crate) view: Arc<dyn EngineView>,
    /// Staged transactions that were committed before the view was taken and whose rows are still provisional in
    /// it, with the versions at which they count.
    pub(crate) resolved: Arc<BTreeMap<Version, Version>>,
}

impl Found {
    /// The version, as far as it is one: a tombstone equals absence.
    pub(crate) const fn live_version(&self) -> Version {
        if self.value.is_some() { self.version } else { Version::ZERO }
    }
}

impl LayerSet {
    fn generations(&self) -> impl Iterator<Item = &Arc<Generation>> {
        std::iter::once(&self.active).chain(&self.frozen)
    }

    /// The staged transactions whose rows a reader at `at` sees: those committed here, and `extra`.
    fn staged_visible(&self, at: Version, extra: &[(Version, Version)]) -> Vec<(Version, Version)> {
        let mut visible: Vec<(Version, Version)> = Vec::new();
        if self.resolved.is_empty() && extra.is_empty() && !self.generations().any(|it| it.has_resolved()) {
            return visible;
        }
        visible.extend(self.resolved.iter().filter(|(_, commit)| **commit <= at).map(|(id, at)| (*id, *at)));
        for generation in self.generations().filter(|it| it.has_resolved()) {
            let rows = generation.read();
            visible
                .extend(rows.resolved.iter().filter(|(_, commit)| **commit <= at).map(|(id, at)| (*id, *at)));
        }
        visible.extend_from_slice(extra);
        visible
    }

    /// A provisional row, wherever it is.
    pub(crate) fn get_staged(
        &self,
        staged: Version,
        key: &[u8],
    ) -> Result<Option<Option<Bytes>>, EngineError> {
        let staged_key = staged_key(staged, key);
        for generation in self.generations().filter(|it| it.has_staged()) {
            if let Some(value) = generation.read().staged.get(&staged_key) {
                return Ok(Some(value.clone()));
            }
        }
        Ok(self.view.get(STAGED, &staged_key)?.map(|stored| decode_provisional(&stored)))
    }

    /// The newest version of a key that a reader at `at` sees. `extra` are staged transactions that it sees
    /// besides those committed here, with the versions at which they count: its own, and those in flight.
    pub(crate) fn get(
        &self,
        key: &[u8],
        at: Version,
        extra: &[(Version, Version)],
    ) -> Result<Option<Found>, EngineError> {
        let mut best = self.get_row(key, at)?;
        for (staged, commit) in self.staged_visible(at, extra) {
            if best.as_ref().is_some_and(|found| found.version >= commit) {
                continue;
            }
            if let Some(value) = self.get_staged(staged, key)? {
                best = Some(Found { version: commit, value });
            }
        }
        Ok(best)
    }

    /// The newest version in memory of a key that a reader at `at` sees, staged rows left out.
    pub(crate) fn get_recent(&self, key: &[u8], at: Version) -> Option<Found> {
        self.generations().find_map(|generation| {
            let rows = generation.read();
            let (version, value) = chain_at(rows.chains.get(key)?, at)?;
            Some(Found { version: *version, value: value.clone() })
        })
    }

    fn get_row(&self, key: &[u8], at: Version) -> Result<Option<Found>, EngineError> {
        if let Some(found) = self.get_recent(key, at) {
            return Ok(Some(found));
        }
        let Some(row) = self.view.get(ROWS, key)? else { return Ok(None) };
        let (version, _) = decode_row(&row).ok_or_else(damaged)?;
        Ok(Some(Found { version, value: Some(row.slice(8..)) }))
    }

    /// The runs of rows in a range that a reader at `at` sees: those in memory, and the engine's.
    pub(crate) fn runs(
        &self,
        bounds: &ScanBounds,
        at: Version,
        extra: &[(Version, Version)],
        limits: Limits,
    ) -> Result<(Vec<ItemRun>, EngineRun), EngineError> {
        let mut runs = Vec::new();
        for generation in self.generations() {
            let rows = generation.read();
            let visible = bounds.of_map(&rows.chains).filter_map(|(key, chain)| {
                let (version, value) = chain_at(chain, at)?;
                Some(Item { key: key.clone(), version: *version, value: value.clone() })
            });
            runs.push(ItemRun::collect(visible, limits));
        }
        for (staged, commit) in self.staged_visible(at, extra) {
            self.staged_runs(bounds, staged, commit, limits, &mut runs)?;
        }
        runs.retain(|run| !run.is_empty());
        let engine = EngineRun::collect(&*self.view, bounds, limits)?;
        Ok((runs, engine))
    }

    fn staged_runs(
        &self,
        bounds: &ScanBounds,
        staged: Version,
        commit: Version,
        limits: Limits,
        runs: &mut Vec<ItemRun>,
    ) -> Result<(), EngineError> {
        let bounds = bounds.under(staged);
        for generation in self.generations().filter(|it| it.has_staged()) {
            let rows = generation.read();
            let provisional = bounds.of_map(&rows.staged).map(|(key, value)| Item {
                key: key.slice(8..),
                version: commit,
                value: value.clone(),
            });
            runs.push(ItemRun::collect(provisional, limits));
        }
        let mut run = ItemRun::default();
        bounds.with_range(|range| {
            self.view.scan(STAGED, range, bounds.direction, &mut |key, value| {
                let value = decode_provisional(&Bytes::copy_from_slice(value));
                let key = Bytes::copy_from_slice(key.get(8..).unwrap_or_default());
                run.push(Item { key, version: commit, value }, limits)
            })
        })?;
        runs.push(run);
        Ok(())
    }
}

/// A provisional row as the engine keeps it: 0 for a delete, or 1 and the value.
pub(crate) fn encode_provisional(value: Option<&[u8]>) -> Bytes {
    let mut bytes = BytesMut::with_capacity(1 + value.map_or(0, <[u8]>::len));
    bytes.put_u8(u8::from(value.is_some()));
    bytes.put_slice(value.unwrap_or_default());
    bytes.freeze()
}

pub(crate) fn decode_provisional(stored: &Bytes) -> Option<Bytes> {
    match stored.first() {
        Some(1) => Some(stored.slice(1..)),
        _ => None,
    }
}
