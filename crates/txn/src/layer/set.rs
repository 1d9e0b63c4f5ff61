//! One consistent stack of generations over an engine view.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use rustydb_storage::engine::{EngineError, EngineView, Space};
use rustydb_types::ids::Version;

use super::generation::{Generation, Provisional, chain_at, staged_key};
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
    pub(crate) fn get_staged(&self, staged: Version, key: &[u8]) -> Result<Option<Provisional>, EngineError> {
        let staged_key = staged_key(staged, key);
        for generation in self.generations().filter(|it| it.has_staged()) {
            if let Some(row) = generation.read().staged.get(&staged_key) {
                return Ok(Some(row.clone()));
            }
        }
        match self.view.get(STAGED, &staged_key)? {
            Some(stored) => decode_provisional(&stored).ok_or_else(damaged).map(Some),
            None => Ok(None),
        }
    }

    /// Whether nothing is known of any key in the range: no row, no deletion, nothing staged and committed. Lets bulk
    /// work that adds rows look once for many. `extra` as in [`get`](LayerSet::get).
    pub(crate) fn is_vacant(
        &self,
        bounds: &ScanBounds,
        extra: &[(Version, Version)],
    ) -> Result<bool, EngineError> {
        if self.generations().any(|it| bounds.of_map(&it.read().chains).next().is_some()) {
            return Ok(false);
        }
        for (staged, _) in self.staged_visible(Version::MAX, extra) {
            if !self.is_vacant_of(staged, bounds)? {
                return Ok(false);
            }
        }
        is_vacant_in(&*self.view, ROWS, bounds)
    }

    /// Whether a staged transaction has no row in the range.
    pub(crate) fn is_vacant_of(&self, staged: Version, bounds: &ScanBounds) -> Result<bool, EngineError> {
        let bounds = bounds.under(staged);
        let mut generations = self.generations().filter(|it| it.has_staged());
        if generations.any(|it| bounds.of_map(&it.read().staged).next().is_some()) {
            return Ok(false);
        }
        is_vacant_in(&*self.view, STAGED, &bounds)
    }

    /// The newest version of a key that a reader at `at` sees. `extra` are staged transactions that it sees
    /// besides those committed here, with the versions at which they count: those in flight.
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
            if let Some(row) = self.get_staged(staged, key)? {
                best = Some(Found { version: commit, value: row.value });
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

    /// The newest version of a key that was applied after the view was taken. The view is asked only for rows of
    /// staged transactions that were committed since.
    pub(crate) fn get_unflushed(&self, key: &[u8]) -> Result<Option<Found>, EngineError> {
        let mut best = self.get_recent(key, Version::MAX);
        for generation in self.generations().filter(|it| it.has_resolved()) {
            let resolved: Vec<_> = generation.read().resolved.iter().map(|(id, at)| (*id, *at)).collect();
            for (staged, commit) in resolved {
                if best.as_ref().is_none_or(|found| found.version < commit)
                    && let Some(row) = self.get_staged(staged, key)?
                {
                    best = Some(Found { version: commit, value: row.value });
                }
            }
        }
        Ok(best)
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
            let item = |key: Bytes, row: Provisional| Item { key, version: commit, value: row.value };
            self.staged_runs(bounds, staged, limits, &item, &mut runs)?;
        }
        runs.retain(|run| !run.is_empty());
        let engine = EngineRun::collect(&*self.view, bounds, limits)?;
        Ok((runs, engine))
    }

    /// The runs of a staged transaction's own rows, as its `command` reads them: those of earlier commands, above
    /// every version there is. Rows that are hidden stand as the oldest version of a deletion: they count towards
    /// the limits, and give way to whatever else there is of their key.
    pub(crate) fn own_staged_runs(
        &self,
        bounds: &ScanBounds,
        staged: Version,
        command: u32,
        limits: Limits,
    ) -> Result<Vec<ItemRun>, EngineError> {
        let mut runs = Vec::new();
        let item = |key: Bytes, row: Provisional| {
            if row.command < command {
                Item { key, version: Version::MAX, value: row.value }
            } else {
                Item { key, version: Version::ZERO, value: None }
            }
        };
        self.staged_runs(bounds, staged, limits, &item, &mut runs)?;
        Ok(runs)
    }

    fn staged_runs(
        &self,
        bounds: &ScanBounds,
        staged: Version,
        limits: Limits,
        item: &dyn Fn(Bytes, Provisional) -> Item,
        runs: &mut Vec<ItemRun>,
    ) -> Result<(), EngineError> {
        let bounds = bounds.under(staged);
        for generation in self.generations().filter(|it| it.has_staged()) {
            let rows = generation.read();
            let provisional = bounds.of_map(&rows.staged).map(|(key, row)| item(key.slice(8..), row.clone()));
            runs.push(ItemRun::collect(provisional, limits));
        }
        let mut run = ItemRun::default();
        let mut readable = true;
        bounds.with_range(|range| {
            self.view.scan(STAGED, range, bounds.direction, &mut |key, stored| {
                let Some(row) = decode_provisional(&Bytes::copy_from_slice(stored)) else {
                    readable = false;
                    return std::ops::ControlFlow::Break(());
                };
                run.push(item(Bytes::copy_from_slice(key.get(8..).unwrap_or_default()), row), limits)
            })
        })?;
        if !readable {
            return Err(damaged());
        }
        runs.push(run);
        Ok(())
    }
}

fn is_vacant_in(view: &dyn EngineView, space: Space, bounds: &ScanBounds) -> Result<bool, EngineError> {
    let mut vacant = true;
    bounds.with_range(|range| {
        view.scan(space, range, bounds.direction, &mut |_, _| {
            vacant = false;
            std::ops::ControlFlow::Break(())
        })
    })?;
    Ok(vacant)
}

/// A provisional row as the engine keeps it: 0 for a delete or 1, the command (four bytes), the value.
pub(crate) fn encode_provisional(row: &Provisional) -> Bytes {
    let value = row.value.as_deref().unwrap_or_default();
    let mut bytes = BytesMut::with_capacity(5 + value.len());
    bytes.put_u8(u8::from(row.value.is_some()));
    bytes.put_u32_le(row.command);
    bytes.put_slice(value);
    bytes.freeze()
}

/// The row, or `None` where [`encode_provisional`] cannot have written this.
pub(crate) fn decode_provisional(stored: &Bytes) -> Option<Provisional> {
    let (flag, rest) = stored.split_first()?;
    let command = u32::from_le_bytes(*rest.first_chunk::<4>()?);
    match flag {
        0 => Some(Provisional { command, value: None }),
        1 => Some(Provisional { command, value: Some(stored.slice(5..)) }),
        _ => None,
    }
}
