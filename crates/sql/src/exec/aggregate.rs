//! Aggregation: groups in a hash table, in the order in which they first appeared.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use rustydb_types::value::Value;

use super::operator::{self, Batch, Filling, State, compare_keys, eval_all};
use super::partition::{DEPTH_MAX, Partitions};
use super::run::{Run, row_size};
use super::spill::SpillReader;
use super::subquery::HashedRow;
use crate::error::SqlError;
use crate::plan::{Aggregate, AggregateCall, GroupingSet, Row};
use crate::scalar::AggregateState;
use crate::scalar::aggregate::OrderedSet;

/// One aggregate of one group.
struct Slot {
    state: AggregateState,
    /// Arguments seen so far, for DISTINCT.
    seen: HashSet<HashedRow>,
    /// Sort keys and arguments, for ORDER BY.
    ordered: Vec<(Row, Row)>,
    /// Direct arguments of an ordered-set aggregate, once a row of the group was seen.
    direct: Option<Row>,
}

impl Slot {
    fn new(call: &AggregateCall) -> Result<Self, SqlError> {
        let state = AggregateState::new(&call.function)?;
        Ok(Self { state, seen: HashSet::new(), ordered: Vec::new(), direct: None })
    }

    fn take(&mut self, call: &AggregateCall, row: &[Value], run: &Run<'_>) -> Result<(), SqlError> {
        let context = run.context();
        let ordered_set = OrderedSet::of(call.function.function);
        if ordered_set.is_some() && self.direct.is_none() {
            self.direct = Some(eval_all(&call.direct, row, &context)?);
        }
        if let Some(filter) = &call.filter
            && !matches!(filter.eval(row, &context)?, Value::Bool(true))
        {
            return Ok(());
        }
        let args = eval_all(&call.args, row, &context)?;
        if call.distinct {
            let key = HashedRow(args.clone());
            if self.seen.contains(&key) {
                return Ok(());
            }
            run.state.charge_row(&key.0)?;
            self.seen.insert(key);
        }
        if self.state.gathers() {
            run.state.charge_row(&args)?;
        }
        if call.order_by.is_empty() && call.distinct && self.state.gathers() {
            // As in PostgreSQL, which finds the different ones by sorting.
            run.state.charge_row(&args)?;
            self.ordered.push((args.clone(), args));
            return Ok(());
        }
        if call.order_by.is_empty() {
            return self.state.update(&args, &context);
        }
        let mut key = Vec::with_capacity(call.order_by.len());
        for sort_key in &call.order_by {
            key.push(sort_key.expr.eval(row, &context)?);
        }
        if let Some(ordered_set) = ordered_set {
            // Only a hypothetical row is compared with nulls, too.
            if !ordered_set.is_hypothetical() && key.iter().any(Value::is_null) {
                return Ok(());
            }
            run.state.charge_row(&key)?;
        }
        run.state.charge_row(&args)?;
        self.ordered.push((key, args));
        Ok(())
    }

    fn finish(mut self, call: &AggregateCall, run: &Run<'_>) -> Result<Value, SqlError> {
        self.ordered.sort_by(|(left, _), (right, _)| {
            if call.order_by.is_empty() { left.cmp(right) } else { compare_keys(left, right, &call.order_by) }
        });
        if let Some(ordered_set) = OrderedSet::of(call.function.function) {
            let direct = match self.direct {
                Some(direct) => direct,
                // Without a row there is no group key, so the arguments are constants.
                None => eval_all(&call.direct, &[], &run.context())?,
            };
            let rows: Vec<Row> = self.ordered.into_iter().map(|(key, _)| key).collect();
            return ordered_set
                .compute(&direct, &rows, &|left, right| compare_keys(left, right, &call.order_by));
        }
        for (_, args) in &self.ordered {
            self.state.update(args, &run.context())?;
        }
        self.state.finish()
    }
}

/// The groups of an aggregation: those that are computed, and rows of others in files.
#[derive(Debug)]
pub struct Groups {
    rows: std::vec::IntoIter<Row>,
    /// What is kept for them.
    bytes: i64,
    parts: Vec<(SpillReader, u32)>,
}

impl Groups {
    /// The next rows.
    ///
    /// # Errors
    /// As [`run`].
    pub(crate) fn next(&mut self, aggregate: &Aggregate, run: &Run<'_>) -> Result<Option<Batch>, SqlError> {
        loop {
            let mut batch = Filling::with_capacity(self.rows.len());
            while !batch.is_full()
                && let Some(row) = self.rows.next()
            {
                batch.push(row);
            }
            if let Some(batch) = batch.finish() {
                return Ok(Some(batch));
            }
            run.state.release_measured(std::mem::take(&mut self.bytes));
            let Some((mut part, depth)) = self.parts.pop() else { return Ok(None) };
            let mut read = || part.batch(run);
            let next = gather(aggregate, &mut read, depth, run)?;
            (self.rows, self.bytes) = (next.rows, next.bytes);
            self.parts.extend(next.parts);
        }
    }
}

/// The groups of an aggregation.
///
/// # Errors
/// Whatever evaluation raises; 53200 when the groups take too much memory, 53100 when the disk is full.
pub(crate) fn run(aggregate: &Aggregate, input: &mut State, run: &Run<'_>) -> Result<Groups, SqlError> {
    let mut read = || operator::next(&aggregate.input, input, run);
    gather(aggregate, &mut read, 0, run)
}

/// The groups of rows that were divided so often before.
fn gather(
    aggregate: &Aggregate,
    read: &mut dyn FnMut() -> Result<Option<Batch>, SqlError>,
    depth: u32,
    run: &Run<'_>,
) -> Result<Groups, SqlError> {
    let new_slots = || aggregate.calls.iter().map(Slot::new).collect::<Result<Vec<_>, _>>();
    // Without grouping sets there is one of all keys.
    let whole = [GroupingSet { keys: (0..aggregate.groups.len()).collect(), is_empty: aggregate.always_one }];
    let sets = if aggregate.sets.is_empty() { whole.as_slice() } else { aggregate.sets.as_slice() };
    // Rows whose group has no room go to files; of several sets each row would have to go several times.
    let spill = match sets {
        [set] if !set.is_empty && depth < DEPTH_MAX => run.state.spill(),
        _ => None,
    };
    let mut left: Option<Partitions> = None;
    let mut places: Vec<HashMap<HashedRow, usize, RandomState>> = Vec::new();
    let mut groups: Vec<(Row, usize, Vec<Slot>)> = Vec::new();
    let (mut kept_bytes, mut measured_bytes) = (0_usize, 0_i64);
    for (number, set) in sets.iter().enumerate() {
        let mut known = HashMap::default();
        if set.is_empty {
            let row = vec![Value::Null; aggregate.groups.len()];
            known.insert(HashedRow(row.clone()), groups.len());
            groups.push((row, number, new_slots()?));
        }
        places.push(known);
    }
    while let Some(batch) = read()? {
        // What was kept before is the input's; what is kept from here on, but for what evaluation keeps to the end, ends
        // with the groups.
        let (taken, bytes) = run.state.measured(|| {
            let context = run.context();
            for row in batch {
                let mut values = eval_all(&aggregate.groups, &row, &context)?;
                for (number, (set, known)) in sets.iter().zip(&mut places).enumerate() {
                    // The last set, which is the only one of a plain GROUP BY, needs no copy of the values.
                    let is_last = number + 1 == sets.len();
                    let key = HashedRow(if is_last && set.keys.len() == values.len() {
                        std::mem::take(&mut values)
                    } else {
                        masked(&values, set)
                    });
                    let place = match known.get(&key) {
                        Some(place) => *place,
                        None => {
                            let size = row_size(&key.0) + aggregate.calls.len() * std::mem::size_of::<Slot>();
                            if let Some((area, limit)) = spill
                                && kept_bytes + size > limit.saturating_mul(2)
                            {
                                let left = match &mut left {
                                    Some(left) => left,
                                    None => left.insert(Partitions::new(area, depth)),
                                };
                                left.push(&key, &row)?;
                                continue;
                            }
                            run.state.charge(size)?;
                            kept_bytes += size;
                            groups.push((key.0.clone(), number, new_slots()?));
                            known.insert(key, groups.len() - 1);
                            groups.len() - 1
                        }
                    };
                    if let Some((_, _, slots)) = groups.get_mut(place) {
                        for (slot, call) in slots.iter_mut().zip(&aggregate.calls) {
                            slot.take(call, &row, run)?;
                        }
                    }
                }
            }
            Ok::<_, SqlError>(())
        });
        taken?;
        measured_bytes += bytes;
    }
    let mut rows = Vec::with_capacity(groups.len());
    for (mut row, number, slots) in groups {
        for (slot, call) in slots.into_iter().zip(&aggregate.calls) {
            row.push(slot.finish(call, run)?);
        }
        if let Some(set) = sets.get(number) {
            row.extend(aggregate.groupings.iter().map(|keys| Value::Int4(grouping(keys, set))));
        }
        rows.push(row);
    }
    let parts = left.map(Partitions::finish).transpose()?.unwrap_or_default();
    Ok(Groups { rows: rows.into_iter(), bytes: measured_bytes, parts })
}

/// The values of a set's keys, and NULL for those of the others.
fn masked(values: &[Value], set: &GroupingSet) -> Row {
    if set.keys.len() == values.len() {
        return values.to_vec();
    }
    let mut row = vec![Value::Null; values.len()];
    for key in &set.keys {
        if let (Some(place), Some(value)) = (row.get_mut(*key), values.get(*key)) {
            *place = value.clone();
        }
    }
    row
}

/// A bit for each key, the last in the lowest, set where the key is not in the set.
fn grouping(keys: &[usize], set: &GroupingSet) -> i32 {
    keys.iter().fold(0, |bits, key| bits << 1 | i32::from(!set.keys.contains(key)))
}
