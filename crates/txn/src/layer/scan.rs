//! Ordered reads: a chunk of rows merged from all places where versions of a range may be.
//!
//! Each place gives a *run*: its visible rows from the start of the range, cut off at the limits. A run that was
//! cut off says nothing about what lies behind its last key; so the merge stops at the nearest such key, and the
//! chunk tells where to go on. Where nothing in memory touches the range, the engine's run is the chunk.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::{BufMut, Bytes, BytesMut};
use rustydb_storage::engine::{Direction, EngineError, EngineView, KeyRange};
use rustydb_types::ids::Version;

use super::ROWS;
use super::set::decode_row;

/// Which rows to read.
#[derive(Clone, Debug)]
pub struct ScanRequest {
    /// First key of the range.
    pub start: Bytes,
    /// First key beyond the range; empty for the end of all keys.
    pub end: Bytes,
    /// Ascending or descending.
    pub direction: Direction,
    /// Bytes of keys and values after which the chunk ends; about 64 KiB is a good figure. At least one row is
    /// returned however large it is.
    pub max_bytes: usize,
    /// Rows after which the chunk ends.
    pub max_rows: usize,
}

#[derive(Clone, Copy, Debug)]
struct RowSpan {
    start: u32,
    key_size: u32,
    value_size: u32,
}

/// A chunk of rows, packed.
#[derive(Clone, Debug, Default)]
pub struct ScanChunk {
    data: Vec<u8>,
    rows: Vec<RowSpan>,
    rest: Option<(Bytes, Bytes)>,
}

impl ScanChunk {
    /// The rows, in the order asked for: key and value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.rows.iter().map(|span| self.row(span))
    }

    /// The row at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<(&[u8], &[u8])> {
        self.rows.get(index).map(|span| self.row(span))
    }

    /// Rows in the chunk.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether the chunk has no rows; then the range has none left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Start and end of what is left of the range, or `None` when it was read to its end.
    #[must_use]
    pub fn rest(&self) -> Option<(Bytes, Bytes)> {
        self.rest.clone()
    }

    fn row(&self, span: &RowSpan) -> (&[u8], &[u8]) {
        let start = span.start as usize;
        let middle = start + span.key_size as usize;
        let end = middle + span.value_size as usize;
        (self.data.get(start..middle).unwrap_or_default(), self.data.get(middle..end).unwrap_or_default())
    }

    fn push(&mut self, key: &[u8], value: &[u8]) {
        let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let span = RowSpan {
            start: size(self.data.len()),
            key_size: size(key.len()),
            value_size: size(value.len()),
        };
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
        self.rows.push(span);
    }

    /// The key after which reading stopped.
    fn set_rest(&mut self, bounds: &ScanBounds, last: &[u8]) {
        self.rest = match bounds.direction {
            Direction::Forward => {
                let mut next = BytesMut::with_capacity(last.len() + 1);
                next.put_slice(last);
                next.put_u8(0);
                Some((next.freeze(), bounds.end.clone().unwrap_or_default()))
            }
            Direction::Backward => Some((bounds.start.clone(), Bytes::copy_from_slice(last))),
        }
        .filter(|(start, end)| end.is_empty() || start < end);
    }
}

/// Where a run or a chunk is cut off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

/// A range and the order in which it is read.
#[derive(Clone, Debug)]
pub(crate) struct ScanBounds {
    pub(crate) start: Bytes,
    pub(crate) end: Option<Bytes>,
    pub(crate) direction: Direction,
}

impl ScanBounds {
    pub(crate) fn new(start: Bytes, end: Bytes, direction: Direction) -> ScanBounds {
        ScanBounds { start, end: Some(end).filter(|end| !end.is_empty()), direction }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| self.start >= *end)
    }

    /// The same range among the provisional rows of a staged transaction.
    pub(crate) fn under(&self, staged: Version) -> ScanBounds {
        let end = match &self.end {
            Some(end) => super::staged_key(staged, end),
            None => super::staged_key(staged.next(), &[]),
        };
        ScanBounds {
            start: super::staged_key(staged, &self.start),
            end: Some(end),
            direction: self.direction,
        }
    }

    /// From one key to another, both included.
    pub(crate) fn including(first: &[u8], last: &[u8]) -> ScanBounds {
        let mut end = BytesMut::with_capacity(last.len() + 1);
        end.put_slice(last);
        end.put_u8(0);
        ScanBounds::new(Bytes::copy_from_slice(first), end.freeze(), Direction::Forward)
    }

    pub(crate) fn with_range<T>(&self, read: impl FnOnce(KeyRange<'_>) -> T) -> T {
        read(KeyRange { start: &self.start, end: self.end.as_deref() })
    }

    /// The entries of a map within the range, in its order.
    pub(crate) fn of_map<'m, V>(
        &self,
        map: &'m BTreeMap<Bytes, V>,
    ) -> impl Iterator<Item = (&'m Bytes, &'m V)> + use<'m, V> {
        let bounds =
            (Bound::Included(&self.start[..]), self.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded));
        let mut range = (!self.is_empty()).then(|| map.range::<[u8], _>(bounds));
        let direction = self.direction;
        std::iter::from_fn(move || match direction {
            Direction::Forward => range.as_mut()?.next(),
            Direction::Backward => range.as_mut()?.next_back(),
        })
    }

    /// How two keys compare in the order of the scan.
    fn order(&self, left: &[u8], right: &[u8]) -> Ordering {
        match self.direction {
            Direction::Forward => left.cmp(right),
            Direction::Backward => right.cmp(left),
        }
    }
}

/// A visible version from memory.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) key: Bytes,
    pub(crate) version: Version,
    pub(crate) value: Option<Bytes>,
}

/// Visible rows of one place in memory.
#[derive(Debug, Default)]
pub(crate) struct ItemRun {
    items: Vec<Item>,
    size_bytes: usize,
    cut_off: bool,
}

impl ItemRun {
    pub(crate) fn collect(items: impl Iterator<Item = Item>, limits: Limits) -> ItemRun {
        let mut run = ItemRun::default();
        for item in items {
            if run.push(item, limits).is_break() {
                break;
            }
        }
        run
    }

    /// Adds an item; breaks when the run is full.
    pub(crate) fn push(&mut self, item: Item, limits: Limits) -> ControlFlow<()> {
        self.size_bytes += item.key.len() + item.value.as_ref().map_or(0, Bytes::len);
        self.items.push(item);
        if self.items.len() >= limits.rows || self.size_bytes >= limits.bytes {
            self.cut_off = true;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn end_of_knowledge(&self) -> Option<&[u8]> {
        self.items.last().filter(|_| self.cut_off).map(|item| &item.key[..])
    }
}

/// Rows of the engine, packed as a chunk is.
pub(crate) struct EngineRun {
    chunk: ScanChunk,
    versions: Vec<Version>,
    cut_off: bool,
}

impl EngineRun {
    pub(crate) fn collect(
        view: &dyn EngineView,
        bounds: &ScanBounds,
        limits: Limits,
    ) -> Result<EngineRun, EngineError> {
        let mut run = EngineRun { chunk: ScanChunk::default(), versions: Vec::new(), cut_off: false };
        let mut damaged = false;
        bounds.with_range(|range| {
            view.scan(ROWS, range, bounds.direction, &mut |key, row| {
                let Some((version, value)) = decode_row(row) else {
                    damaged = true;
                    return ControlFlow::Break(());
                };
                run.chunk.push(key, value);
                run.versions.push(version);
                if run.versions.len() >= limits.rows || run.chunk.data.len() >= limits.bytes {
                    run.cut_off = true;
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })
        })?;
        if damaged {
            return Err(EngineError::Abandoned("a stored row is shorter than its version".into()));
        }
        Ok(run)
    }

    fn end_of_knowledge(&self) -> Option<&[u8]> {
        self.chunk.rows.last().filter(|_| self.cut_off).map(|span| self.chunk.row(span).0)
    }

    fn head(&self, index: usize) -> Option<(&[u8], Version, &[u8])> {
        let (key, value) = self.chunk.get(index)?;
        Some((key, *self.versions.get(index)?, value))
    }
}

/// Merges runs into one chunk: of each key the newest version, tombstones left out. Among equal versions the
/// earlier run wins.
pub(crate) fn merge(bounds: &ScanBounds, runs: &[ItemRun], engine: EngineRun, limits: Limits) -> ScanChunk {
    if runs.iter().all(ItemRun::is_empty) {
        let mut chunk = engine.chunk;
        if engine.cut_off
            && let Some(last) = chunk.rows.last().map(|span| chunk.row(span).0.to_vec())
        {
            chunk.set_rest(bounds, &last);
        }
        return chunk;
    }
    let mut chunk = ScanChunk::default();
    let last = visit_rows(bounds, runs, &engine, |key, _, value| {
        chunk.push(key, value);
        if chunk.rows.len() >= limits.rows || chunk.data.len() >= limits.bytes {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    if let Some(last) = last {
        chunk.set_rest(bounds, &last);
    }
    chunk
}

/// Visits the rows of runs in their order: of each key the newest version, tombstones left out. Among equal versions
/// the earlier run wins. Returns the key after which reading stopped: the last visited, or the last one up to which
/// all runs are known.
pub(crate) fn visit_rows(
    bounds: &ScanBounds,
    runs: &[ItemRun],
    engine: &EngineRun,
    mut visit: impl FnMut(&[u8], Version, &[u8]) -> ControlFlow<()>,
) -> Option<Vec<u8>> {
    let bound: Option<&[u8]> = runs
        .iter()
        .filter_map(ItemRun::end_of_knowledge)
        .chain(engine.end_of_knowledge())
        .min_by(|left, right| bounds.order(left, right));
    let mut places = vec![0_usize; runs.len()];
    let mut engine_place = 0;
    loop {
        let heads = runs.iter().zip(&places).filter_map(|(run, place)| run.items.get(*place));
        let key = heads
            .map(|item| &item.key[..])
            .chain(engine.head(engine_place).map(|(key, _, _)| key))
            .min_by(|left, right| bounds.order(left, right));
        let Some(key) = key else { break };
        if bound.is_some_and(|bound| bounds.order(key, bound).is_gt()) {
            break;
        }
        let mut newest: Option<(Version, Option<&[u8]>)> = None;
        for (run, place) in runs.iter().zip(&mut places) {
            let Some(item) = run.items.get(*place).filter(|item| item.key == key) else { continue };
            *place += 1;
            if newest.is_none_or(|(version, _)| version < item.version) {
                newest = Some((item.version, item.value.as_deref()));
            }
        }
        if let Some((_, version, value)) = engine.head(engine_place).filter(|(head, _, _)| *head == key) {
            engine_place += 1;
            if newest.is_none_or(|(newest, _)| newest < version) {
                newest = Some((version, Some(value)));
            }
        }
        if let Some((version, Some(value))) = newest
            && visit(key, version, value).is_break()
        {
            return Some(key.to_vec());
        }
    }
    bound.map(<[u8]>::to_vec)
}
