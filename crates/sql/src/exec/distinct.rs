//! DISTINCT: the rows seen so far in a hash table; those that do not fit are told apart part by part.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use super::operator::{self, Batch, State};
use super::partition::{DEPTH_MAX, Partitions};
use super::run::{Run, row_size};
use super::spill::SpillReader;
use super::subquery::HashedRow;
use crate::error::SqlError;
use crate::plan::{Node, Row};

/// What an execution knows of a DISTINCT.
#[derive(Debug)]
pub struct Distinct {
    input: State,
    /// Rows that were yielded, of the part that is read.
    seen: HashSet<HashedRow, RandomState>,
    /// What was charged for them.
    bytes: usize,
    /// The last key, when the input is sorted.
    last: Option<Row>,
    /// Rows of the part that is read for which there was no room.
    left: Option<Partitions>,
    /// Parts that are still to be read, and the one that is; none while the input is.
    parts: Vec<(SpillReader, u32)>,
    part: Option<(SpillReader, u32)>,
}

impl Distinct {
    pub(crate) fn open(input: &Node) -> Self {
        Self {
            input: State::open(input),
            seen: HashSet::default(),
            bytes: 0,
            last: None,
            left: None,
            parts: Vec::new(),
            part: None,
        }
    }

    /// The next rows, of which `on` first columns are the key if the input is sorted by them.
    pub(crate) fn next(
        &mut self,
        input: &Node,
        on: Option<usize>,
        run: &Run<'_>,
    ) -> Result<Option<Batch>, SqlError> {
        loop {
            let Some(batch) = self.read(input, run)? else {
                if self.next_part(run)? {
                    continue;
                }
                return Ok(None);
            };
            let mut kept = Vec::with_capacity(batch.len());
            for row in batch {
                match on {
                    // Only its predecessor can be equal.
                    Some(count) => {
                        let key: Row = row.iter().take(count).cloned().collect();
                        if self.last.as_ref() != Some(&key) {
                            self.last = Some(key);
                            kept.push(row);
                        }
                    }
                    None => kept.extend(self.take(row, run)?),
                }
            }
            if !kept.is_empty() {
                return Ok(Some(kept));
            }
        }
    }

    fn read(&mut self, input: &Node, run: &Run<'_>) -> Result<Option<Batch>, SqlError> {
        let Some((part, _)) = &mut self.part else { return operator::next(input, &mut self.input, run) };
        part.batch(run)
    }

    /// The row, if it is the first of its kind.
    fn take(&mut self, row: Row, run: &Run<'_>) -> Result<Option<Row>, SqlError> {
        let key = HashedRow(row);
        if self.seen.contains(&key) {
            return Ok(None);
        }
        let size = row_size(&key.0);
        let depth = self.part.as_ref().map_or(0, |(_, depth)| *depth);
        if let Some((area, limit)) = run.state.spill()
            && self.bytes + size > limit.saturating_mul(2)
            && depth < DEPTH_MAX
        {
            let left = match &mut self.left {
                Some(left) => left,
                None => self.left.insert(Partitions::new(area, depth)),
            };
            left.push(&key, &key.0)?;
            return Ok(None);
        }
        run.state.charge(size)?;
        self.bytes += size;
        let row = key.0.clone();
        self.seen.insert(key);
        Ok(Some(row))
    }

    /// Goes on to what is left; false when nothing is.
    fn next_part(&mut self, run: &Run<'_>) -> Result<bool, SqlError> {
        self.seen = HashSet::default();
        run.state.release(std::mem::take(&mut self.bytes));
        if let Some(left) = self.left.take() {
            self.parts.extend(left.finish()?);
        }
        self.part = self.parts.pop();
        Ok(self.part.is_some())
    }
}
