//! Sorting: in memory, or as a merge of sorted runs in files when the rows take more than `work_mem`.

use std::cmp::Ordering;

use rustydb_types::value::Value;

use super::operator::{self, Batch, Filling, State, compare_keys};
use super::run::{Run, row_size};
use super::spill::SpillReader;
use crate::error::SqlError;
use crate::plan::{Node, Row, SortKey};

/// Runs that are merged at once; more are merged into one before.
const RUNS_MAX: usize = 64;

/// Rows in order.
#[derive(Debug)]
pub enum Sorted {
    /// In memory, with the bytes that were charged for them.
    Memory(std::vec::IntoIter<Row>, usize),
    /// In files, and whether the rows keep their keys before them.
    Files(Merge, bool),
}

/// A merge of sorted runs.
#[derive(Debug)]
pub struct Merge {
    runs: Vec<SpillReader>,
    /// The next row of each run, its key before it.
    heads: Vec<Row>,
    /// The runs with a next row, the one with the least first; of equal ones the earlier run.
    order: Vec<usize>,
}

impl Merge {
    fn new(mut runs: Vec<SpillReader>, keys: &[SortKey]) -> Result<Self, SqlError> {
        let (mut heads, mut order) = (Vec::with_capacity(runs.len()), Vec::with_capacity(runs.len()));
        for (number, run) in runs.iter_mut().enumerate() {
            let head = run.next()?;
            if head.is_some() {
                order.push(number);
            }
            heads.push(head.unwrap_or_default());
        }
        let mut merge = Self { runs, heads, order: Vec::new() };
        order.sort_by(|left, right| merge.compare(*left, *right, keys));
        merge.order = order;
        Ok(merge)
    }

    fn compare(&self, left: usize, right: usize, keys: &[SortKey]) -> Ordering {
        match (self.heads.get(left), self.heads.get(right)) {
            (Some(one), Some(other)) => compare_keys(one, other, keys).then(left.cmp(&right)),
            _ => Ordering::Equal,
        }
    }

    /// The next row, its key before it.
    fn next(&mut self, keys: &[SortKey]) -> Result<Option<Row>, SqlError> {
        let Some(first) = self.order.first().copied() else { return Ok(None) };
        self.order.remove(0);
        let next = match self.runs.get_mut(first) {
            Some(run) => run.next()?,
            None => None,
        };
        let is_over = next.is_none();
        let Some(head) = self.heads.get_mut(first) else { return Ok(None) };
        let row = std::mem::replace(head, next.unwrap_or_default());
        if !is_over {
            let place = self.order.partition_point(|other| self.compare(*other, first, keys).is_lt());
            self.order.insert(place, first);
        }
        Ok(Some(row))
    }
}

impl Sorted {
    /// The next rows; those that were sorted with their keys have them still.
    ///
    /// # Errors
    /// Those of the files.
    pub(crate) fn next(&mut self, keys: &[SortKey], run: &Run<'_>) -> Result<Option<Batch>, SqlError> {
        let mut batch = Filling::default();
        match self {
            Self::Memory(rows, bytes) => {
                while !batch.is_full()
                    && let Some(row) = rows.next()
                {
                    batch.push(row);
                }
                if rows.len() == 0 {
                    run.state.release(std::mem::take(bytes));
                }
            }
            Self::Files(merge, keeps_keys) => {
                while !batch.is_full()
                    && let Some(mut row) = merge.next(keys)?
                {
                    if !*keeps_keys {
                        row.drain(..keys.len());
                    }
                    batch.push(row);
                }
            }
        }
        Ok(batch.finish())
    }
}

/// What is read and not yet in order.
struct Unsorted<'k> {
    keys: &'k [SortKey],
    bound: Option<usize>,
    rows: Vec<(Row, Row)>,
    /// What was charged for them.
    bytes: usize,
    runs: Vec<SpillReader>,
}

impl Unsorted<'_> {
    /// Puts the rows in order, and forgets what the bound leaves out.
    fn order(&mut self, run: &Run<'_>) {
        let keys = self.keys;
        self.rows.sort_by(|(left, _), (right, _)| compare_keys(left, right, keys));
        if let Some(bound) = self.bound
            && self.rows.len() > bound
        {
            let gone: usize =
                self.rows.drain(bound..).map(|(key, row)| row_size(&key) + row_size(&row)).sum();
            self.bytes -= gone;
            run.state.release(gone);
        }
    }

    fn push(&mut self, key: Row, row: Row, run: &Run<'_>) -> Result<(), SqlError> {
        let size = row_size(&key) + row_size(&row);
        if let Some((_, limit)) = run.state.spill()
            && self.bytes + size > limit
            && !self.rows.is_empty()
        {
            self.write(run)?;
        }
        run.state.charge(size)?;
        self.bytes += size;
        self.rows.push((key, row));
        if let Some(bound) = self.bound
            && self.rows.len() >= bound.saturating_mul(2).max(1024)
        {
            self.order(run);
        }
        Ok(())
    }

    /// Writes the rows as a sorted run.
    fn write(&mut self, run: &Run<'_>) -> Result<(), SqlError> {
        let Some((area, _)) = run.state.spill() else { return Ok(()) };
        self.order(run);
        let mut writer = area.create();
        for (mut key, row) in self.rows.drain(..) {
            key.extend(row);
            writer.push(&key)?;
        }
        run.state.release(std::mem::take(&mut self.bytes));
        self.runs.push(writer.finish(false)?);
        if self.runs.len() >= RUNS_MAX {
            let mut merge = Merge::new(std::mem::take(&mut self.runs), self.keys)?;
            let mut writer = area.create();
            let (mut count, bound) = (0, self.bound.unwrap_or(usize::MAX));
            while count < bound
                && let Some(row) = merge.next(self.keys)?
            {
                if count.is_multiple_of(operator::BATCH_ROWS) {
                    run.state.check_cancel()?;
                }
                writer.push(&row)?;
                count += 1;
            }
            self.runs.push(writer.finish(false)?);
        }
        Ok(())
    }
}

/// Sorts the rows of a node; with a bound, keeps only twice as many while reading. Where they are to keep their keys,
/// these stand before each row.
///
/// # Errors
/// Whatever evaluation raises; 53200 when there is neither memory nor disk for them, 53100 when the disk is full.
pub(crate) fn sort(
    input: &Node,
    state: &mut State,
    (keys, keeps_keys): (&[SortKey], bool),
    bound: Option<usize>,
    run: &Run<'_>,
) -> Result<Sorted, SqlError> {
    let context = run.context();
    let mut unsorted = Unsorted { keys, bound, rows: Vec::new(), bytes: 0, runs: Vec::new() };
    while let Some(batch) = operator::next(input, state, run)? {
        for row in batch {
            let mut key: Vec<Value> = Vec::with_capacity(keys.len());
            for sort_key in keys {
                key.push(sort_key.expr.eval(&row, &context)?);
            }
            unsorted.push(key, row, run)?;
        }
    }
    if unsorted.runs.is_empty() {
        unsorted.order(run);
        let row_of = |(mut key, row): (Row, Row)| {
            if keeps_keys {
                key.extend(row);
                key
            } else {
                row
            }
        };
        let rows: Vec<Row> = unsorted.rows.into_iter().map(row_of).collect();
        return Ok(Sorted::Memory(rows.into_iter(), unsorted.bytes));
    }
    if !unsorted.rows.is_empty() {
        unsorted.write(run)?;
    }
    Ok(Sorted::Files(Merge::new(unsorted.runs, keys)?, keeps_keys))
}
