//! Scans: key ranges of a table or an index, read chunk by chunk.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use rustydb_txn::{Direction, ScanRequest};
use rustydb_types::keycodec::{self, KeyOrder};
use rustydb_types::rowcodec;
use rustydb_types::value::Value;

use super::operator::{BATCH_ROWS, Batch, Filling, retain, some};
use super::rows;
use super::run::Run;
use crate::catalog::{IndexDescriptor, keys};
use crate::error::SqlError;
use crate::plan::{Probe, Row, Scan};
use crate::scalar::EvalContext;

/// An end of a range as key bytes, and whether the key itself belongs to it.
type EncodedBound = (Vec<u8>, bool);

/// Bytes that one chunk of a scan may hold.
const CHUNK_BYTES: usize = 64 << 10;

/// What an execution knows of a scan.
#[derive(Debug)]
pub struct ScanState {
    /// Key ranges still to be read, in order.
    ranges: VecDeque<(Bytes, Bytes)>,
    /// Rows asked for in the next chunk; grows, so that a small answer costs a small read.
    chunk_rows: usize,
    /// Keys of rows that an index has named and that are still to be read.
    row_keys: std::vec::IntoIter<Bytes>,
}

impl ScanState {
    /// Opens a scan; probes are computed over `row`.
    ///
    /// # Errors
    /// Whatever evaluating the probes raises.
    pub fn open(scan: &Scan, row: &[Value], run: &Run<'_>) -> Result<Self, SqlError> {
        let context = run.context();
        let index = scan.path.index.and_then(|place| scan.table.indexes.get(place));
        let storage = index.map_or(scan.table.storage, |index| index.storage);
        let mut ranges = Vec::with_capacity(scan.path.probes.len().max(1));
        if scan.path.probes.is_empty() {
            let (start, end) = keys::storage_range(storage);
            ranges.push((Bytes::from(start), Bytes::from(end)));
        }
        let key_index = index.or_else(|| scan.table.primary_key());
        for probe in &scan.path.probes {
            if let Some(range) = probe_range(probe, &keys::storage_prefix(storage), key_index, row, &context)?
            {
                ranges.push(range);
            }
        }
        // Ranges of an IN list may come in any order and twice; they never overlap otherwise.
        ranges.sort();
        ranges.dedup();
        if scan.path.reverse {
            ranges.reverse();
        }
        Ok(Self { ranges: ranges.into(), chunk_rows: 16, row_keys: Vec::new().into_iter() })
    }

    /// The next rows that satisfy the scan's filter.
    ///
    /// # Errors
    /// Whatever reading or the filter raises.
    pub fn next(&mut self, scan: &Scan, run: &Run<'_>) -> Result<Option<Batch>, SqlError> {
        loop {
            let mut batch = match self.named(scan, run)? {
                Some(batch) => batch,
                None => match self.ranges.pop_front() {
                    Some((start, end)) => self.read(scan, run, start, end)?,
                    None => return Ok(None),
                },
            };
            if let Some(filter) = &scan.filter {
                let before = batch.len();
                retain(&mut batch, filter, &run.context())?;
                run.state.removed(|| std::ptr::from_ref(scan).addr(), before - batch.len());
            }
            if let Some(batch) = some(batch) {
                return Ok(Some(batch));
            }
        }
    }

    /// Reads from a range: its rows, unless it is an index's, which names keys.
    fn read(&mut self, scan: &Scan, run: &Run<'_>, start: Bytes, end: Bytes) -> Result<Batch, SqlError> {
        run.state.check_cancel()?;
        if scan.path.unique && scan.path.index.is_none() {
            // The range holds one key at most, and the key is its start.
            return match run.txn.get(&start)? {
                Some(value) => Ok(vec![row_of(scan, &start, &value)?]),
                None => Ok(Batch::new()),
            };
        }
        let direction = if scan.path.reverse { Direction::Backward } else { Direction::Forward };
        let request =
            ScanRequest { start, end, direction, max_bytes: CHUNK_BYTES, max_rows: self.chunk_rows };
        let chunk = run.txn.scan(request)?;
        self.chunk_rows = (self.chunk_rows * 4).min(BATCH_ROWS * 4);
        if let Some(rest) = chunk.rest() {
            self.ranges.push_front(rest);
        }
        match scan.path.index.and_then(|place| scan.table.indexes.get(place)) {
            Some(index) if !scan.table.is_row_key(index) => {
                let row_keys: Vec<Bytes> =
                    chunk.iter().map(|(_, row_key)| rows::stored_key(&scan.table, row_key)).collect();
                self.row_keys = row_keys.into_iter();
                Ok(Batch::new())
            }
            _ => chunk.iter().map(|(key, value)| row_of(scan, key, value)).collect(),
        }
    }

    /// The next rows whose keys an index has named, if there are any left.
    fn named(&mut self, scan: &Scan, run: &Run<'_>) -> Result<Option<Batch>, SqlError> {
        let mut batch = Filling::with_capacity(self.row_keys.len());
        while !batch.is_full()
            && let Some(key) = self.row_keys.next()
        {
            // An entry without its row was deleted by this very command.
            if let Some(value) = run.txn.get(&key)? {
                batch.push(row_of(scan, &key, &value)?);
            }
        }
        Ok(batch.finish())
    }
}

/// The row that is stored under a key.
fn row_of(scan: &Scan, key: &[u8], value: &[u8]) -> Result<Row, SqlError> {
    let mut row = Vec::with_capacity(scan.blank.len() + usize::from(scan.locator));
    row.extend_from_slice(&scan.blank);
    if !scan.wanted.is_empty() {
        rowcodec::decode(value, &scan.wanted, &mut row)?;
    }
    if scan.locator {
        row.push(Value::Bytea(Arc::from(key)));
    }
    Ok(row)
}

/// The key range of a probe; `None` when a bound is NULL, which nothing equals.
fn probe_range(
    probe: &Probe,
    prefix: &[u8],
    index: Option<&IndexDescriptor>,
    row: &[Value],
    context: &EvalContext<'_>,
) -> Result<Option<(Bytes, Bytes)>, SqlError> {
    let part = |place: usize| {
        let part = index.and_then(|index| index.key.get(place));
        part.map_or(KeyOrder::ASCENDING, |part| KeyOrder {
            descending: part.descending,
            nulls_first: part.nulls_first,
        })
    };
    let mut key = prefix.to_vec();
    for (place, expr) in probe.prefix.iter().enumerate() {
        let value = expr.eval(row, context)?;
        if value.is_null() {
            return Ok(None);
        }
        keycodec::encode(&mut key, &value, part(place));
    }
    let order = part(probe.prefix.len());
    let bound =
        |bound: &Option<(crate::scalar::Expr, bool)>| -> Result<Option<Option<EncodedBound>>, SqlError> {
            let Some((expr, inclusive)) = bound else { return Ok(Some(None)) };
            let value = expr.eval(row, context)?;
            if value.is_null() {
                return Ok(None);
            }
            let mut bytes = key.clone();
            keycodec::encode(&mut bytes, &value, order);
            Ok(Some(Some((bytes, *inclusive))))
        };
    let (Some(mut low), Some(mut high)) = (bound(&probe.low)?, bound(&probe.high)?) else { return Ok(None) };
    let bounded = low.is_some() || high.is_some();
    if order.descending {
        std::mem::swap(&mut low, &mut high);
    }
    let mut start = match low {
        Some((bytes, true)) => bytes,
        Some((bytes, false)) => keys::after_prefix(&bytes),
        None => key.clone(),
    };
    let mut end = match high {
        Some((bytes, true)) => keys::after_prefix(&bytes),
        Some((bytes, false)) => bytes,
        None => keys::after_prefix(&key),
    };
    if bounded {
        // A comparison is never true of NULL, so the range leaves out the entries of NULLs at its open end.
        let mut nulls = key;
        keycodec::encode(&mut nulls, &Value::Null, order);
        if order.nulls_first {
            start = start.max(keys::after_prefix(&nulls));
        } else {
            end = end.min(nulls);
        }
    }
    Ok((start < end).then(|| (start.into(), end.into())))
}
