//! What ANALYZE finds out about a table: it counts all rows, and looks at a sample that takes each of them with the same
//! chance.

use std::collections::BTreeMap;

use bytes::Bytes;
use rustydb_txn::{Direction, ScanRequest, Transaction};
use rustydb_types::datatype::BaseType;
use rustydb_types::keycodec::{self, KeyOrder};
use rustydb_types::value::Value;

use crate::bind::from::column_type;
use crate::catalog::statistics::{ColumnStatistics, KeyBytes};
use crate::catalog::{TableDescriptor, TableStatistics, keys};
use crate::error::SqlError;
use crate::exec::ExecContext;
use crate::exec::rows::RowLayout;
use crate::exec::run::row_size;

/// Rows that are looked at, at most.
const SAMPLE_ROWS: usize = 30_000;
/// Bytes of the sample, at most.
const SAMPLE_BYTES: usize = 64 << 20;
/// Bytes of an encoded value that is kept; larger ones count as values of their own.
const VALUE_BYTES: usize = 255;
/// Common values, and parts of the histogram, of a column.
const TARGET: usize = 100;
/// Bytes of values that are kept for all columns of a table.
const KEPT_BYTES: usize = 256 << 10;

/// A value of the sample.
enum Cell {
    Null,
    /// One that is too large to be kept, or of a type without an order.
    Large(u32),
    Small(Box<[u8]>, u32),
}

impl Cell {
    fn size(&self) -> usize {
        match self {
            Self::Null | Self::Large(_) => size_of::<Self>(),
            Self::Small(bytes, _) => size_of::<Self>() + bytes.len(),
        }
    }
}

/// Looks at a table.
///
/// # Errors
/// Storage errors; 57014 when cancelled.
pub(super) async fn measure(
    table: &TableDescriptor,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<TableStatistics, SqlError> {
    let layout = RowLayout::new(table)?;
    let (mut sample, mut sample_bytes): (Vec<Vec<Cell>>, usize) = (Vec::new(), 0);
    let (mut rows, mut bytes) = (0_u64, 0_u64);
    let (start, end) = keys::storage_range(table.storage);
    let mut rest: Option<(Bytes, Bytes)> = Some((start.into(), end.into()));
    while let Some((start, end)) = rest {
        // Rows of different moments count as well, and no snapshot is held over a long scan.
        txn.renew_snapshot();
        let direction = Direction::Forward;
        let chunk = txn.scan(ScanRequest { start, end, direction, max_bytes: 256 << 10, max_rows: 4096 })?;
        for (key, value) in chunk.iter() {
            rows += 1;
            bytes += (key.len() + value.len()) as u64;
            let is_full = sample.len() >= SAMPLE_ROWS || sample_bytes >= SAMPLE_BYTES;
            let place = match is_full {
                false => None,
                // Each row so far is in the sample with the same chance.
                true => match usize::try_from(context.session.random() % rows) {
                    Ok(place) if place < sample.len() => Some(place),
                    _ => continue,
                },
            };
            let cells: Vec<Cell> = cells(table, &layout, value)?;
            sample_bytes += cells.iter().map(Cell::size).sum::<usize>();
            match place.and_then(|place| sample.get_mut(place)) {
                Some(slot) => {
                    let former = std::mem::replace(slot, cells);
                    sample_bytes -= former.iter().map(Cell::size).sum::<usize>();
                }
                None => sample.push(cells),
            }
        }
        rest = chunk.rest();
        context.breathe().await?;
    }
    let mut columns = BTreeMap::new();
    let mut kept_bytes = 0;
    for (place, column) in table.columns.iter().enumerate() {
        let cells = sample.iter_mut().filter_map(|row| row.get_mut(place));
        let cells: Vec<Cell> = cells.map(|cell| std::mem::replace(cell, Cell::Null)).collect();
        let mut found = of_column(cells, rows as f64);
        let common = found.common.iter().map(|(value, _)| value.0.len()).sum::<usize>();
        kept_bytes += common + found.bounds.iter().map(|bound| bound.0.len()).sum::<usize>();
        if kept_bytes > KEPT_BYTES {
            (found.common, found.bounds) = (Vec::new(), Vec::new());
        }
        columns.insert(column.id.get(), found);
        context.breathe().await?;
    }
    Ok(TableStatistics { rows: rows as f64, bytes: bytes as f64, columns })
}

fn cells(table: &TableDescriptor, layout: &RowLayout, stored: &[u8]) -> Result<Vec<Cell>, SqlError> {
    let row = layout.decode_all(stored)?;
    let cell = |(value, column): (Value, &crate::catalog::ColumnDescriptor)| {
        if value.is_null() {
            return Cell::Null;
        }
        let base = column_type(column.data_type).base;
        let size = match (&value, usize::try_from(base.type_len())) {
            (_, Ok(fixed)) => fixed,
            // With the byte that says how long it is.
            (Value::Text(text), _) => text.len() + 1,
            _ => row_size(std::slice::from_ref(&value)).saturating_sub(24),
        };
        let width = u32::try_from(size).unwrap_or(u32::MAX);
        if size > 4 * VALUE_BYTES || base == BaseType::Json {
            return Cell::Large(width);
        }
        let mut key = Vec::new();
        keycodec::encode(&mut key, &value, KeyOrder::ASCENDING);
        let is_sized = base.type_len() > 0 || matches!(value, Value::Text(_));
        let width = if is_sized { width } else { u32::try_from(key.len()).unwrap_or(width) };
        if key.len() > VALUE_BYTES { Cell::Large(width) } else { Cell::Small(key.into(), width) }
    };
    Ok(row.into_iter().zip(&table.columns).map(cell).collect())
}

/// What a sample of a column says of all rows.
fn of_column(cells: Vec<Cell>, rows: f64) -> ColumnStatistics {
    let sampled = cells.len() as f64;
    if cells.is_empty() {
        return ColumnStatistics::default();
    }
    let (mut nulls, mut large, mut width) = (0_u64, 0_u64, 0_u64);
    let mut values: Vec<Box<[u8]>> = Vec::new();
    for cell in cells {
        match cell {
            Cell::Null => nulls += 1,
            Cell::Large(size) => {
                large += 1;
                width += u64::from(size);
            }
            Cell::Small(value, size) => {
                width += u64::from(size);
                values.push(value);
            }
        }
    }
    values.sort_unstable();
    let mut counted: Vec<(Box<[u8]>, u64)> = Vec::new();
    for value in values {
        match counted.last_mut() {
            Some((known, count)) if *known == value => *count += 1,
            _ => counted.push((value, 1)),
        }
    }
    let present = sampled - nulls as f64;
    let null_fraction = nulls as f64 / sampled;
    let single = counted.iter().filter(|(_, count)| *count == 1).count() as f64 + large as f64;
    let found = counted.len() as f64 + large as f64;
    let distinct = if present == 0.0 {
        0.0
    } else if single >= present {
        // No value twice: their number grows with the table.
        -(1.0 - null_fraction)
    } else {
        // Haas and Stokes, as PostgreSQL has it: from the values that were seen once alone.
        let all = (rows * (1.0 - null_fraction)).max(present);
        let estimate = present * found / ((present - single) + single * present / all);
        let estimate = estimate.clamp(found, all).round();
        if estimate > 0.1 * rows { -(estimate / rows) } else { estimate }
    };
    let mean_width = width.checked_div(sampled as u64 - nulls).unwrap_or(0);
    let width = u32::try_from(mean_width).unwrap_or(u32::MAX);
    let common = common_values(&mut counted, sampled, large == 0);
    let bounds = histogram(&counted);
    ColumnStatistics { distinct, null_fraction, width, common, bounds }
}

/// Takes the most common values out of those that were counted: all, if they are few and each was seen twice or more;
/// else those that are clearly more common than the mean.
fn common_values(counted: &mut Vec<(Box<[u8]>, u64)>, sampled: f64, is_all: bool) -> Vec<(KeyBytes, f64)> {
    let seen: u64 = counted.iter().map(|(_, count)| count).sum();
    let is_few = is_all && counted.len() <= TARGET && counted.iter().all(|(_, count)| *count > 1);
    let least = if is_few { 2.0 } else { (1.25 * seen as f64 / counted.len().max(1) as f64).max(2.0) };
    let mut places: Vec<usize> = (0..counted.len())
        .filter(|place| counted.get(*place).is_some_and(|(_, count)| *count as f64 >= least))
        .collect();
    let count_at = |place: usize| counted.get(place).map_or(0, |(_, count)| *count);
    places.sort_by_key(|place| std::cmp::Reverse(count_at(*place)));
    places.truncate(TARGET);
    let common = places.iter().filter_map(|place| counted.get(*place));
    let common = common.map(|(value, count)| (KeyBytes(value.to_vec()), *count as f64 / sampled)).collect();
    let chosen: std::collections::HashSet<usize> = places.into_iter().collect();
    let mut place = 0;
    counted.retain(|_| {
        place += 1;
        !chosen.contains(&(place - 1))
    });
    common
}

/// Values that divide others, which are in order, into parts of equal counts.
fn histogram(counted: &[(Box<[u8]>, u64)]) -> Vec<KeyBytes> {
    let total: u64 = counted.iter().map(|(_, count)| count).sum();
    let parts = (TARGET as u64).min(total.saturating_sub(1));
    if counted.len() < 2 || parts == 0 {
        return Vec::new();
    }
    let mut bounds = Vec::new();
    let (mut passed, mut next) = (0, 0);
    for (value, count) in counted {
        passed += count;
        // The value at each of the places that divide the rows.
        while next <= parts && next * (total - 1) / parts < passed {
            bounds.push(KeyBytes(value.to_vec()));
            next += 1;
        }
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(values: impl IntoIterator<Item = Option<u8>>) -> Vec<Cell> {
        let cell = |value: Option<u8>| value.map_or(Cell::Null, |value| Cell::Small(Box::new([value]), 4));
        values.into_iter().map(cell).collect()
    }

    #[test]
    fn a_column_of_few_values_has_all_of_them_as_common_ones() {
        let found = of_column(cells((0..100).map(|n| (n % 10 > 0).then_some(n % 3))), 1000.0);
        assert_eq!((found.distinct, found.null_fraction, found.width), (3.0, 0.1, 4));
        assert_eq!(found.common.len(), 3);
        assert!((found.common.iter().map(|(_, share)| share).sum::<f64>() - 0.9).abs() < 1e-9);
        assert!(found.bounds.is_empty());
    }

    #[test]
    fn a_column_of_many_values_has_a_histogram() {
        let found = of_column(cells((0..=200).map(Some)), 201.0);
        assert_eq!(found.distinct, -1.0);
        assert!(found.common.is_empty());
        assert_eq!(found.bounds.len(), TARGET + 1);
        assert_eq!(found.bounds.first(), Some(&KeyBytes(vec![0])));
        assert_eq!(found.bounds.last(), Some(&KeyBytes(vec![200])));
        assert!((found.below(&[50]).unwrap() - 0.25).abs() < 0.01);
        // One that is much more common than the others stands alone.
        let skewed = of_column(cells((0..=100).map(Some).chain((0..100).map(|_| Some(7)))), 201.0);
        assert_eq!(skewed.common, [(KeyBytes(vec![7]), 101.0 / 201.0)]);
        assert!((skewed.below(&[50]).unwrap() - (101.0 + 49.0) / 201.0).abs() < 0.01);
    }

    #[test]
    fn nothing_is_said_of_nothing() {
        assert_eq!(of_column(Vec::new(), 0.0), ColumnStatistics::default());
        let nulls = of_column(cells([None, None]), 2.0);
        assert_eq!((nulls.distinct, nulls.null_fraction), (0.0, 1.0));
        let large = of_column(vec![Cell::Large(5000), Cell::Large(7000)], 2.0);
        assert_eq!((large.distinct, large.width), (-1.0, 6000));
    }
}
