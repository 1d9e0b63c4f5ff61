//! Window functions: the input is sorted by partition and order, then each partition is computed call by call; where all
//! calls need only what came before a row, row by row.
//!
//! An aggregate whose frame only grows takes each row once; one whose frame moves on takes rows back where the aggregate
//! can. Other moving frames are computed anew for each row.

use std::cmp::Ordering;

use rustydb_types::value::Value;

use super::operator::{BATCH_ROWS, Batch, Filling, State, compare_keys, eval_all};
use super::run::{Run, row_size};
use super::sort::{self, Sorted};
use super::window_frame::{Frames, Partition};
use crate::error::{SqlError, SqlState};
use crate::plan::window::{Exclusion, FrameBound, FrameMode, Window, WindowCall, WindowFunction};
use crate::plan::{AggregateCall, Row, SortKey};
use crate::scalar::AggregateState;

/// The rows of a window node: its input in order, partition by partition.
#[derive(Debug)]
pub struct Windowed {
    keys: Vec<SortKey>,
    sorted: Sorted,
    /// Rows of the input, with their keys, that were read and not looked at.
    pending: std::vec::IntoIter<Row>,
    /// The row at which the partition that was read last has ended.
    next: Option<(Row, Row)>,
    /// Rows that are computed, and what was charged for them.
    ready: std::vec::IntoIter<Row>,
    ready_bytes: usize,
    /// What goes on from row to row, where nothing else is needed.
    stream: Option<Stream>,
}

impl Windowed {
    /// Sorts the input.
    ///
    /// # Errors
    /// Whatever evaluation raises; 53100 when the disk is full.
    pub(crate) fn open(window: &Window, input: &mut State, run: &Run<'_>) -> Result<Self, SqlError> {
        let partition = window.partition.iter().map(|expr| SortKey {
            expr: expr.clone(),
            descending: false,
            nulls_first: false,
        });
        let keys: Vec<SortKey> = partition.chain(window.order.iter().cloned()).collect();
        Ok(Self {
            sorted: sort::sort(&window.input, input, (&keys, true), None, run)?,
            keys,
            pending: Vec::new().into_iter(),
            next: None,
            ready: Vec::new().into_iter(),
            ready_bytes: 0,
            stream: Stream::of(window)?,
        })
    }

    /// The next rows.
    ///
    /// # Errors
    /// Whatever evaluation raises; 53200 when a partition takes too much memory.
    pub(crate) fn next(&mut self, window: &Window, run: &Run<'_>) -> Result<Option<Batch>, SqlError> {
        loop {
            let mut batch = Filling::with_capacity(self.ready.len());
            while !batch.is_full()
                && let Some(row) = self.ready.next()
            {
                batch.push(row);
            }
            if let Some(batch) = batch.finish() {
                return Ok(Some(batch));
            }
            run.state.release(std::mem::take(&mut self.ready_bytes));
            let is_over = match self.stream.take() {
                Some(mut stream) => {
                    let is_over = self.go_on(&mut stream, window, run)?;
                    self.stream = Some(stream);
                    is_over
                }
                None => self.partition(window, run)?,
            };
            if is_over {
                return Ok(None);
            }
        }
    }

    /// The next row of the input with its key.
    fn read(&mut self, run: &Run<'_>) -> Result<Option<(Row, Row)>, SqlError> {
        loop {
            if let Some(mut key) = self.pending.next() {
                let row = key.split_off(self.keys.len().min(key.len()));
                return Ok(Some((key, row)));
            }
            run.state.check_cancel()?;
            match self.sorted.next(&self.keys, run)? {
                Some(batch) => self.pending = batch.into_iter(),
                None => return Ok(None),
            }
        }
    }

    /// The rows that follow whose keys are equal to the first one's in their first `width` values.
    fn group(&mut self, width: usize, run: &Run<'_>) -> Result<Vec<(Row, Row)>, SqlError> {
        let mut rows = Vec::new();
        let first = match self.next.take() {
            Some(first) => first,
            None => match self.read(run)? {
                Some(first) => first,
                None => return Ok(rows),
            },
        };
        self.charge(&first, run)?;
        rows.push(first);
        while let Some(row) = self.read(run)? {
            let first = rows.first().map(|(key, _)| part(key, width)).unwrap_or_default();
            if compare_keys(part(&row.0, width), first, &self.keys) != Ordering::Equal {
                self.next = Some(row);
                break;
            }
            self.charge(&row, run)?;
            rows.push(row);
        }
        Ok(rows)
    }

    fn charge(&mut self, (key, row): &(Row, Row), run: &Run<'_>) -> Result<(), SqlError> {
        let size = row_size(key) + row_size(row);
        run.state.charge(size)?;
        self.ready_bytes += size;
        Ok(())
    }

    /// Computes the next partition; whether there is none.
    fn partition(&mut self, window: &Window, run: &Run<'_>) -> Result<bool, SqlError> {
        let width = window.partition.len();
        let mut rows = self.group(width, run)?;
        if rows.is_empty() {
            return Ok(true);
        }
        // What finds frames takes two numbers a row.
        let scratch = rows.len() * 2 * std::mem::size_of::<usize>();
        run.state.charge(scratch)?;
        let partition = Partition::new(&rows, width, &window.order);
        let mut columns = Vec::with_capacity(window.calls.len());
        for call in &window.calls {
            let column = compute(call, &partition, run)?;
            run.state.charge_row(&column)?;
            self.ready_bytes += row_size(&column);
            columns.push(column);
        }
        for column in columns {
            for ((_, row), value) in rows.iter_mut().zip(column) {
                row.push(value);
            }
        }
        run.state.release(scratch);
        self.ready = rows.into_iter().map(|(_, row)| row).collect::<Vec<_>>().into_iter();
        Ok(false)
    }

    /// Computes the next rows of a window that goes on from row to row; whether there are none.
    fn go_on(&mut self, stream: &mut Stream, window: &Window, run: &Run<'_>) -> Result<bool, SqlError> {
        let mut ready = Vec::new();
        while ready.len() < BATCH_ROWS {
            let rows = if stream.by_peers {
                self.group(self.keys.len(), run)?
            } else {
                self.next.take().map_or_else(|| self.read(run), |row| Ok(Some(row)))?.into_iter().collect()
            };
            let Some((key, _)) = rows.first() else { break };
            stream.begin(part(key, window.partition.len()), window)?;
            stream.take(rows, window, run, &mut ready)?;
        }
        let is_over = ready.is_empty();
        self.ready = ready.into_iter();
        Ok(is_over)
    }
}

/// Window functions that need nothing but what came before the row, and its peers: no partition is kept.
#[derive(Debug)]
struct Stream {
    /// Whether rows are taken with their peers.
    by_peers: bool,
    /// The partition.
    key: Option<Row>,
    /// Rows and groups of peers of it so far.
    rows: i64,
    groups: i64,
    states: Vec<Option<AggregateState>>,
}

impl Stream {
    fn of(window: &Window) -> Result<Option<Self>, SqlError> {
        let mut by_peers = false;
        for call in &window.calls {
            let grows = call.frame.start == FrameBound::UnboundedPreceding
                && call.frame.end == FrameBound::CurrentRow
                && call.frame.exclusion == Exclusion::NoOthers;
            match &call.function {
                WindowFunction::RowNumber => {}
                WindowFunction::Rank | WindowFunction::DenseRank => by_peers = true,
                WindowFunction::Aggregate(_) if grows => by_peers |= call.frame.mode != FrameMode::Rows,
                _ => return Ok(None),
            }
        }
        // Without an order all rows of a partition are peers.
        if by_peers && window.order.is_empty() {
            return Ok(None);
        }
        let mut stream = Self { by_peers, key: None, rows: 0, groups: 0, states: Vec::new() };
        stream.begin_states(window)?;
        Ok(Some(stream))
    }

    fn begin_states(&mut self, window: &Window) -> Result<(), SqlError> {
        let state = |call: &WindowCall| match &call.function {
            WindowFunction::Aggregate(aggregate) => AggregateState::new(&aggregate.function).map(Some),
            _ => Ok(None),
        };
        self.states = window.calls.iter().map(state).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// What comes next is of a partition.
    fn begin(&mut self, key: &[Value], window: &Window) -> Result<(), SqlError> {
        let is_same = self
            .key
            .as_ref()
            .is_some_and(|own| own.iter().zip(key).all(|(own, other)| own.compare(other) == Ordering::Equal));
        if !is_same {
            (self.rows, self.groups) = (0, 0);
            if self.key.replace(key.to_vec()).is_some() {
                self.begin_states(window)?;
            }
        }
        Ok(())
    }

    /// Takes one row, or rows that are peers.
    fn take(
        &mut self,
        rows: Vec<(Row, Row)>,
        window: &Window,
        run: &Run<'_>,
        ready: &mut Vec<Row>,
    ) -> Result<(), SqlError> {
        let context = run.context();
        self.groups += 1;
        let rank = self.rows + 1;
        let mut columns: Vec<Vec<Value>> = Vec::with_capacity(window.calls.len());
        for (call, state) in window.calls.iter().zip(&mut self.states) {
            let numbers = (rank..).take(rows.len());
            columns.push(match (&call.function, state) {
                (WindowFunction::RowNumber, _) => numbers.map(Value::Int8).collect(),
                (WindowFunction::Rank, _) => vec![Value::Int8(rank); rows.len()],
                (WindowFunction::DenseRank, _) => vec![Value::Int8(self.groups); rows.len()],
                (WindowFunction::Aggregate(aggregate), Some(state)) => {
                    let mut column = Vec::with_capacity(rows.len());
                    let by_row = call.frame.mode == FrameMode::Rows;
                    for (at, (_, row)) in rows.iter().enumerate() {
                        check_cancel(at + 1, run)?;
                        let passes = match &aggregate.filter {
                            Some(filter) => matches!(filter.eval(row, &context)?, Value::Bool(true)),
                            None => true,
                        };
                        if passes {
                            let args = eval_all(&aggregate.args, row, &context)?;
                            if state.gathers() {
                                run.state.charge_row(&args)?;
                            }
                            state.update(&args, &context)?;
                        }
                        if by_row {
                            column.push(state.clone().finish()?);
                        }
                    }
                    if !by_row {
                        column.resize(rows.len(), state.clone().finish()?);
                    }
                    column
                }
                _ => return Err(SqlError::internal("a window function does not go on from row to row")),
            });
        }
        self.rows += i64::try_from(rows.len()).unwrap_or(i64::MAX);
        let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
        for (_, mut row) in rows {
            row.extend(columns.iter_mut().filter_map(Iterator::next));
            ready.push(row);
        }
        Ok(())
    }
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
