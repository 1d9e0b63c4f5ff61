//! Window functions: the input is sorted by partition and order, then each partition is computed call by call.
//!
//! An aggregate whose frame only grows takes each row once; one whose frame moves on takes rows back where the aggregate
//! can. Other moving frames are computed anew for each row.

use std::cmp::Ordering;

use rustydb_types::value::Value;

use super::operator::{self, BATCH_ROWS, State, compare_keys, eval_all};
use super::run::{Run, row_size};
use super::window_frame::{Frames, Partition};
use crate::error::{SqlError, SqlState};
use crate::plan::window::{Exclusion, Window, WindowCall, WindowFunction};
use crate::plan::{AggregateCall, Row, SortKey};
use crate::scalar::AggregateState;

/// All rows of a window node.
///
/// # Errors
/// Whatever evaluation raises; 53200 when the rows take too much memory.
pub(crate) fn run(window: &Window, input: &mut State, run: &Run<'_>) -> Result<Vec<Row>, SqlError> {
    let partition = window.partition.iter().map(|expr| SortKey {
        expr: expr.clone(),
        descending: false,
        nulls_first: false,
    });
    let keys: Vec<SortKey> = partition.chain(window.order.iter().cloned()).collect();
    let context = run.context();
    let mut rows: Vec<(Row, Row)> = Vec::new();
    while let Some(batch) = operator::next(&window.input, input, run)? {
        for row in batch {
            let mut key = Vec::with_capacity(keys.len());
            for sort_key in &keys {
                key.push(sort_key.expr.eval(&row, &context)?);
            }
            run.state.charge_row(&row)?;
            run.state.charge_row(&key)?;
            rows.push((key, row));
        }
    }
    rows.sort_by(|(left, _), (right, _)| compare_keys(left, right, &keys));
    let width = window.partition.len();
    let mut begin = 0;
    while let Some((first, _)) = rows.get(begin) {
        let same = |(key, _): &(Row, Row)| {
            compare_keys(part(key, width), part(first, width), &keys) == Ordering::Equal
        };
        let len = rows.get(begin..).unwrap_or_default().partition_point(same);
        let end = begin + len.max(1);
        // What finds frames takes two numbers a row.
        let scratch = len * 2 * std::mem::size_of::<usize>();
        run.state.charge(scratch)?;
        let partition = Partition::new(rows.get(begin..end).unwrap_or_default(), width, &window.order);
        let mut columns = Vec::with_capacity(window.calls.len());
        for call in &window.calls {
            let column = compute(call, &partition, run)?;
            run.state.charge_row(&column)?;
            columns.push(column);
        }
        for column in columns {
            for ((_, row), value) in rows.get_mut(begin..end).unwrap_or_default().iter_mut().zip(column) {
                row.push(value);
            }
        }
        run.state.release(scratch);
        begin = end;
    }
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

fn part(key: &[Value], width: usize) -> &[Value] {
    key.get(..width).unwrap_or_default()
}

/// The values of one call for the rows of a partition.
fn compute(call: &WindowCall, partition: &Partition<'_>, run: &Run<'_>) -> Result<Vec<Value>, SqlError> {
    let count = partition.len();
    let mut column = Vec::with_capacity(count);
    match &call.function {
        WindowFunction::Aggregate(aggregate) => return aggregated(call, aggregate, partition, run),
        WindowFunction::RowNumber => column.extend((1..=count).map(|number| Value::Int8(number as i64))),
        WindowFunction::Rank => {
            column.extend((0..count).map(|at| Value::Int8(partition.peers(at).0 as i64 + 1)))
        }
        WindowFunction::DenseRank => {
            column.extend((0..count).map(|at| Value::Int8(partition.group(at) as i64 + 1)));
        }
        WindowFunction::PercentRank => column.extend((0..count).map(|at| {
            let share = partition.peers(at).0 as f64 / (count as f64 - 1.0);
            Value::Float8(if count > 1 { share } else { 0.0 })
        })),
        WindowFunction::CumeDist => {
            column.extend((0..count).map(|at| Value::Float8(partition.peers(at).1 as f64 / count as f64)));
        }
        WindowFunction::Ntile => return ntile(call, partition, run),
        WindowFunction::Lag | WindowFunction::Lead => {
            for at in 0..count {
                check_cancel(at, run)?;
                column.push(shifted(call, partition, at, run)?);
            }
        }
        WindowFunction::FirstValue | WindowFunction::LastValue | WindowFunction::NthValue => {
            let frames = Frames::open(&call.frame, partition, run)?;
            for at in 0..count {
                check_cancel(at, run)?;
                let wanted = match &call.function {
                    WindowFunction::NthValue => {
                        let number = argument(call, 1, partition, at, run)?;
                        let Some(number) = number.as_i64() else {
                            column.push(Value::Null);
                            continue;
                        };
                        let nth = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
                        Some(nth.ok_or_else(|| {
                            let message = "argument of nth_value must be greater than zero";
                            SqlError::new(SqlState::INVALID_ARGUMENT_FOR_NTH_VALUE, message)
                        })?)
                    }
                    WindowFunction::FirstValue => Some(0),
                    _ => None,
                };
                column.push(match frames.pick(at, wanted, run)? {
                    Some(found) => argument(call, 0, partition, found, run)?,
                    None => Value::Null,
                });
            }
        }
    }
    Ok(column)
}

fn check_cancel(at: usize, run: &Run<'_>) -> Result<(), SqlError> {
    if at.is_multiple_of(BATCH_ROWS) { run.state.check_cancel() } else { Ok(()) }
}

/// An argument of a call over one row.
fn argument(
    call: &WindowCall,
    index: usize,
    partition: &Partition<'_>,
    at: usize,
    run: &Run<'_>,
) -> Result<Value, SqlError> {
    match call.args.get(index) {
        Some(arg) => arg.eval(partition.row(at), &run.context()),
        None => Ok(Value::Null),
    }
}

/// `lag` and `lead`: the value of a row so far away, or what stands for it where there is none.
fn shifted(
    call: &WindowCall,
    partition: &Partition<'_>,
    at: usize,
    run: &Run<'_>,
) -> Result<Value, SqlError> {
    let offset = if call.args.len() > 1 { argument(call, 1, partition, at, run)?.as_i64() } else { Some(1) };
    let Some(offset) = offset else { return Ok(Value::Null) };
    let offset = if call.function == WindowFunction::Lag { -offset } else { offset };
    let target = i64::try_from(at).ok().and_then(|at| at.checked_add(offset));
    match target.and_then(|target| usize::try_from(target).ok()).filter(|target| *target < partition.len()) {
        Some(target) => argument(call, 0, partition, target, run),
        None => argument(call, 2, partition, at, run),
    }
}

/// `ntile`: parts of equal size, the first of them one larger where they cannot be equal.
fn ntile(call: &WindowCall, partition: &Partition<'_>, run: &Run<'_>) -> Result<Vec<Value>, SqlError> {
    let count = partition.len();
    let mut column = Vec::with_capacity(count);
    // The first argument that is not null counts, and the parts begin with its row.
    let mut first = 0;
    let parts = loop {
        if first == count {
            return Ok(column);
        }
        check_cancel(first, run)?;
        if let Some(parts) = argument(call, 0, partition, first, run)?.as_i64() {
            break parts;
        }
        column.push(Value::Null);
        first += 1;
    };
    let parts = usize::try_from(parts).ok().filter(|parts| *parts > 0).ok_or_else(|| {
        SqlError::new(SqlState::INVALID_ARGUMENT_FOR_NTILE, "argument of ntile must be greater than zero")
    })?;
    let (size, larger) = (count / parts, count % parts);
    for at in 0..count - first {
        let number = if at < larger * (size + 1) {
            at / (size + 1)
        } else {
            larger + (at - larger * (size + 1)) / size.max(1)
        };
        column.push(Value::Int4(i32::try_from(number + 1).unwrap_or(i32::MAX)));
    }
    Ok(column)
}

/// An aggregate of the frame of each row.
fn aggregated(
    call: &WindowCall,
    aggregate: &AggregateCall,
    partition: &Partition<'_>,
    run: &Run<'_>,
) -> Result<Vec<Value>, SqlError> {
    let context = run.context();
    let frames = Frames::open(&call.frame, partition, run)?;
    let mut charged = 0;
    // The arguments of each row that passes the filter.
    let mut taken: Vec<Option<Row>> = Vec::with_capacity(partition.len());
    for at in 0..partition.len() {
        check_cancel(at, run)?;
        let row = partition.row(at);
        let passes = match &aggregate.filter {
            Some(filter) => matches!(filter.eval(row, &context)?, Value::Bool(true)),
            None => true,
        };
        taken.push(if passes {
            let args = eval_all(&aggregate.args, row, &context)?;
            run.state.charge_row(&args)?;
            charged += row_size(&args);
            Some(args)
        } else {
            None
        });
    }
    let update = |state: &mut AggregateState, from: usize, to: usize| {
        for (at, args) in taken.get(from..to).unwrap_or_default().iter().enumerate() {
            check_cancel(at + 1, run)?;
            if let Some(args) = args {
                state.update(args, &context)?;
            }
        }
        Ok::<(), SqlError>(())
    };
    let mut column: Vec<Value> = Vec::with_capacity(partition.len());
    let mut state = AggregateState::new(&aggregate.function)?;
    let (mut from, mut to) = (0, 0);
    for at in 0..partition.len() {
        check_cancel(at, run)?;
        if call.frame.exclusion != Exclusion::NoOthers {
            let mut state = AggregateState::new(&aggregate.function)?;
            for (start, end) in frames.segments(at, run)? {
                update(&mut state, start, end)?;
            }
            column.push(state.finish()?);
            continue;
        }
        let (start, end) = frames.bounds(at, run)?;
        if (start, end) == (from, to)
            && let Some(value) = column.last()
        {
            column.push(value.clone());
            continue;
        }
        if end >= to && (start == from || (start > from && start <= to && state.retracts())) {
            for args in taken.get(from..start).unwrap_or_default().iter().flatten() {
                state.retract(args);
            }
            update(&mut state, to, end)?;
        } else {
            state = AggregateState::new(&aggregate.function)?;
            update(&mut state, start, end)?;
        }
        (from, to) = (start, end);
        column.push(state.clone().finish()?);
    }
    run.state.release(charged);
    Ok(column)
}
