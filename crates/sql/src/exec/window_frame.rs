//! Partitions of a window, and the frame of each of their rows.

use std::cmp::Ordering;

use rustydb_types::value::Value;

use super::operator::compare_keys;
use super::run::Run;
use crate::error::{SqlError, SqlState};
use crate::plan::window::{Exclusion, Frame, FrameBound, FrameMode, FrameOffset, Reach};
use crate::plan::{Row, SortKey};

/// The rows of a partition in order, with their groups of peers.
pub(crate) struct Partition<'p> {
    /// Keys and rows.
    rows: &'p [(Row, Row)],
    /// How many values of a key are the partition's.
    width: usize,
    order: &'p [SortKey],
    /// The group of each row.
    groups: Vec<usize>,
    /// Where each group begins, and where the last one ends.
    starts: Vec<usize>,
}

impl<'p> Partition<'p> {
    pub(crate) fn new(rows: &'p [(Row, Row)], width: usize, order: &'p [SortKey]) -> Self {
        let own = |at: usize| rows.get(at).and_then(|(key, _)| key.get(width..)).unwrap_or_default();
        let mut groups = Vec::with_capacity(rows.len());
        let mut starts = Vec::new();
        for at in 0..rows.len() {
            if at == 0 || compare_keys(own(at - 1), own(at), order) != Ordering::Equal {
                starts.push(at);
            }
            groups.push(starts.len() - 1);
        }
        starts.push(rows.len());
        Self { rows, width, order, groups, starts }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn row(&self, at: usize) -> &[Value] {
        self.rows.get(at).map_or(&[], |(_, row)| row.as_slice())
    }

    /// The number of a row's group, from 0.
    pub(crate) fn group(&self, at: usize) -> usize {
        self.groups.get(at).copied().unwrap_or(0)
    }

    /// Where a group begins; the end of the partition behind the last.
    fn group_start(&self, group: usize) -> usize {
        self.starts.get(group).copied().unwrap_or(self.rows.len())
    }

    /// Where the peers of a row begin and end.
    pub(crate) fn peers(&self, at: usize) -> (usize, usize) {
        let group = self.group(at);
        (self.group_start(group), self.group_start(group + 1))
    }

    /// The first value that is ordered by.
    fn value(&self, at: usize) -> &Value {
        self.rows.get(at).and_then(|(key, _)| key.get(self.width)).unwrap_or(&Value::Null)
    }
}

/// Frames of the rows of a partition, with the offsets evaluated.
pub(crate) struct Frames<'f> {
    frame: &'f Frame,
    partition: &'f Partition<'f>,
    start: Value,
    end: Value,
    /// Where the rows begin and end that are not null in the order: what RANGE searches.
    present: (usize, usize),
}

impl<'f> Frames<'f> {
    /// # Errors
    /// 22004 and 22013 for an offset that is none, and whatever evaluation raises.
    pub(crate) fn open(
        frame: &'f Frame,
        partition: &'f Partition<'f>,
        run: &Run<'_>,
    ) -> Result<Self, SqlError> {
        let offset = |bound: &FrameBound, which: &str| match bound.offset() {
            Some(offset) => evaluated(offset, which, run),
            None => Ok(Value::Null),
        };
        let (start, end) = (offset(&frame.start, "starting")?, offset(&frame.end, "ending")?);
        let len = partition.len();
        let nulls = (0..len).filter(|at| partition.value(*at).is_null());
        let nulls = if frame.mode == FrameMode::Range { nulls.count() } else { 0 };
        let nulls_first = partition.order.first().is_some_and(|key| key.nulls_first);
        let present = if nulls_first { (nulls, len) } else { (0, len - nulls) };
        Ok(Self { frame, partition, start, end, present })
    }

    /// Where the frame of a row begins and ends.
    ///
    /// # Errors
    /// Whatever the arithmetic of its values raises.
    pub(crate) fn bounds(&self, at: usize, run: &Run<'_>) -> Result<(usize, usize), SqlError> {
        let start = self.bound(&self.frame.start, &self.start, at, Side::Start, run)?;
        let end = self.bound(&self.frame.end, &self.end, at, Side::End, run)?;
        Ok((start, end.max(start)))
    }

    fn bound(
        &self,
        bound: &FrameBound,
        offset: &Value,
        at: usize,
        side: Side,
        run: &Run<'_>,
    ) -> Result<usize, SqlError> {
        let len = self.partition.len();
        let reach = match bound {
            FrameBound::UnboundedPreceding => return Ok(0),
            FrameBound::UnboundedFollowing => return Ok(len),
            FrameBound::CurrentRow if self.frame.mode == FrameMode::Rows => {
                return Ok(if side == Side::Start { at } else { at + 1 });
            }
            FrameBound::CurrentRow => {
                let (start, end) = self.partition.peers(at);
                return Ok(if side == Side::Start { start } else { end });
            }
            FrameBound::Preceding(offset) | FrameBound::Following(offset) => offset.reach.as_ref(),
        };
        let back = matches!(bound, FrameBound::Preceding(_));
        if let Some(reach) = reach {
            return self.in_reach(reach, offset, at, back, side, run);
        }
        let count = usize::try_from(offset.as_i64().unwrap_or(0)).unwrap_or(usize::MAX);
        let place = if self.frame.mode == FrameMode::Rows { at } else { self.partition.group(at) };
        // As places between rows or groups: one that ends a frame is behind its own.
        let place = if side == Side::Start { place } else { place + 1 };
        let moved = if back { place.saturating_sub(count) } else { place.saturating_add(count) };
        Ok(if self.frame.mode == FrameMode::Rows {
            moved.min(len)
        } else {
            self.partition.group_start(moved)
        })
    }

    /// The bound of a RANGE frame with an offset.
    fn in_reach(
        &self,
        reach: &Reach,
        offset: &Value,
        at: usize,
        back: bool,
        side: Side,
        run: &Run<'_>,
    ) -> Result<usize, SqlError> {
        let value = self.partition.value(at);
        if value.is_null() {
            let (start, end) = self.partition.peers(at);
            return Ok(if side == Side::Start { start } else { end });
        }
        let context = run.context();
        let descending = self.partition.order.first().is_some_and(|key| key.descending);
        let (mut low, mut high) = self.present;
        let edge = match (reach.compared.eval(std::slice::from_ref(value), &context)?, offset) {
            // An infinite distance from the infinity on the other side is within reach of everything.
            (Value::Float8(value), Value::Float8(offset)) => {
                let moved = if back != descending { value - offset } else { value + offset };
                if moved.is_nan() && !value.is_nan() {
                    let is_least = (side == Side::Start) != descending;
                    Value::Float8(if is_least { f64::NEG_INFINITY } else { f64::INFINITY })
                } else {
                    Value::Float8(moved)
                }
            }
            _ => reach.moved.eval(&[value.clone(), offset.clone()], &context)?,
        };
        while low < high {
            let middle = low + (high - low) / 2;
            let other = reach.compared.eval(std::slice::from_ref(self.partition.value(middle)), &context)?;
            let order = if descending { edge.compare(&other) } else { other.compare(&edge) };
            let is_before = match side {
                Side::Start => order == Ordering::Less,
                Side::End => order != Ordering::Greater,
            };
            if is_before {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The parts of a row's frame that are not excluded.
    ///
    /// # Errors
    /// As [`Frames::bounds`].
    pub(crate) fn segments(&self, at: usize, run: &Run<'_>) -> Result<Vec<(usize, usize)>, SqlError> {
        let (start, end) = self.bounds(at, run)?;
        let (first, behind) = self.partition.peers(at);
        let cut = |from: usize, to: usize| (from.clamp(start, end), to.clamp(start, end));
        let parts = match self.frame.exclusion {
            Exclusion::NoOthers => vec![(start, end)],
            Exclusion::CurrentRow => vec![cut(start, at), cut(at + 1, end)],
            Exclusion::Group => vec![cut(start, first), cut(behind, end)],
            Exclusion::Ties => vec![cut(start, first), cut(at, at + 1), cut(behind, end)],
        };
        Ok(parts.into_iter().filter(|(from, to)| from < to).collect())
    }

    /// The row of the frame with a number, or its last row.
    ///
    /// # Errors
    /// As [`Frames::bounds`].
    pub(crate) fn pick(
        &self,
        at: usize,
        wanted: Option<usize>,
        run: &Run<'_>,
    ) -> Result<Option<usize>, SqlError> {
        let segments = self.segments(at, run)?;
        let Some(mut left) = wanted else { return Ok(segments.last().map(|(_, end)| end - 1)) };
        for (start, end) in segments {
            if left < end - start {
                return Ok(Some(start + left));
            }
            left -= end - start;
        }
        Ok(None)
    }
}

/// Which end of a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Start,
    End,
}

fn evaluated(offset: &FrameOffset, which: &str, run: &Run<'_>) -> Result<Value, SqlError> {
    let context = run.context();
    let value = offset.offset.eval(&[], &context)?;
    if value.is_null() {
        let message = format!("frame {which} offset must not be null");
        return Err(SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, message));
    }
    let invalid = |message: String| SqlError::new(SqlState::INVALID_PRECEDING_OR_FOLLOWING_SIZE, message);
    match &offset.reach {
        None if value.as_i64().is_some_and(|count| count < 0) => {
            Err(invalid(format!("frame {which} offset must not be negative")))
        }
        Some(reach) => {
            let is_nan = match &value {
                Value::Float8(number) => number.is_nan(),
                Value::Numeric(number) => number.is_nan(),
                _ => false,
            };
            if is_nan || value.compare(&reach.zero.eval(&[], &context)?) == Ordering::Less {
                return Err(invalid("invalid preceding or following size in window function".to_owned()));
            }
            Ok(value)
        }
        None => Ok(value),
    }
}
