//! Operators: each node of a plan yields its rows batch by batch.
//!
//! The plan is shared and never changes; what an execution knows of a node is a [`State`] of the same shape. So a plan
//! is opened without copying it, and closing is dropping the state.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use rustydb_types::value::Value;

use super::aggregate;
use super::distinct::Distinct;
use super::join::{self, JoinState};
use super::meter;
use super::recursive;
use super::run::{Run, row_size};
use super::scan::ScanState;
use super::sort::{self, Sorted};
use super::subquery::HashedRow;
use crate::error::{SqlError, SqlState};
use crate::plan::{Node, Row, SetOperation, SortKey, TableFunction};
use crate::scalar::{EvalContext, Expr, resolve};

/// Rows that an operator yields at a time, at most.
pub const BATCH_ROWS: usize = 256;

/// Bytes of rows that an operator yields at a time; a single row may be larger.
pub const BATCH_SIZE_BYTES: usize = 256 << 10;

/// Some rows; never none.
pub type Batch = Vec<Row>;

/// A batch on the way: full with [`BATCH_ROWS`] rows, or with [`BATCH_SIZE_BYTES`].
#[derive(Debug, Default)]
pub(crate) struct Filling {
    rows: Batch,
    size_bytes: usize,
}

impl Filling {
    /// Room for so many rows at once.
    pub(crate) fn with_capacity(rows: usize) -> Self {
        Self { rows: Batch::with_capacity(rows.min(BATCH_ROWS)), size_bytes: 0 }
    }

    pub(crate) fn push(&mut self, row: Row) {
        self.size_bytes += row_size(&row);
        self.rows.push(row);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.rows.len() >= BATCH_ROWS || self.size_bytes >= BATCH_SIZE_BYTES
    }

    /// The batch, unless it is empty.
    pub(crate) fn finish(self) -> Option<Batch> {
        some(self.rows)
    }
}

/// What an execution knows of a node.
#[derive(Debug)]
pub enum State {
    /// Rows still to be computed begin here.
    Values(usize),
    /// A scan, opened at its first batch.
    Scan(Option<Box<ScanState>>),
    /// Rows that were computed at once; absent before the first batch.
    Rows(Option<std::vec::IntoIter<Row>>),
    /// A series that is computed batch by batch; its arguments are absent before the first batch.
    Series(Option<Series>),
    /// Rows of a common table expression, and how many were yielded.
    Shared(Option<Arc<Vec<Row>>>, usize),
    /// A recursive query, and how many rows of it were yielded.
    Recursive(Option<recursive::Shared>, usize),
    /// A node with one input and nothing to remember.
    Unary(Box<State>),
    /// Input of a projection, and rows of it that are still to be computed.
    Project(Box<State>, std::vec::IntoIter<Row>),
    /// An aggregation; its groups once its input was read.
    Aggregate(Box<State>, Option<aggregate::Groups>),
    /// Window functions; their rows once the input was sorted.
    Window(Box<State>, Option<Box<super::window::Windowed>>),
    /// A join.
    Join(Box<JoinState>),
    /// A sort; its rows once its input was read.
    Sort(Box<State>, Option<Sorted>),
    /// A DISTINCT.
    Distinct(Box<Distinct>),
    /// A set operation; the rows when it blocks.
    SetOp(Box<State>, Box<State>, Option<std::vec::IntoIter<Row>>),
    /// Rows still to pass over and rows still to yield.
    Limit(Box<State>, Option<(i64, Option<i64>)>),
    /// Input of a projection with functions that yield rows, rows of it that are still to be expanded, and rows that
    /// are left over of the last.
    ProjectSet(Box<State>, std::vec::IntoIter<Row>, std::vec::IntoIter<Row>),
}

impl State {
    /// The state of a node of which nothing was read.
    #[must_use]
    pub fn open(node: &Node) -> Self {
        let open = |node: &Node| Box::new(Self::open(node));
        match node {
            Node::Values { .. } => Self::Values(0),
            Node::Scan(_) => Self::Scan(None),
            Node::Function { function, .. } if is_series(*function) => Self::Series(None),
            Node::Function { .. } => Self::Rows(None),
            Node::Shared { .. } | Node::Virtual { .. } | Node::WorkTable { .. } => Self::Shared(None, 0),
            Node::Recursive { .. } => Self::Recursive(None, 0),
            Node::Filter { input, .. } | Node::Pick { input, .. } => Self::Unary(open(input)),
            Node::Project { input, .. } => Self::Project(open(input), Vec::new().into_iter()),
            Node::ProjectSet { input, .. } => {
                Self::ProjectSet(open(input), Vec::new().into_iter(), Vec::new().into_iter())
            }
            Node::Join(join) => Self::Join(Box::new(JoinState::open(join))),
            Node::Aggregate(aggregate) => Self::Aggregate(open(&aggregate.input), None),
            Node::Window(window) => Self::Window(open(&window.input), None),
            Node::Sort { input, .. } => Self::Sort(open(input), None),
            Node::Distinct { input, .. } => Self::Distinct(Box::new(Distinct::open(input))),
            Node::SetOp { left, right, .. } => Self::SetOp(open(left), open(right), None),
            Node::Limit { input, .. } => Self::Limit(open(input), None),
        }
    }
}

/// The next rows of a node; `None` at its end.
///
/// # Errors
/// Whatever evaluation or reading raises; 57014 when cancelled, 53200 when too much would have to be kept.
pub fn next(node: &Node, state: &mut State, run: &Run<'_>) -> Result<Option<Batch>, SqlError> {
    match &run.state.meter {
        None => step(node, state, run),
        Some(meter) => meter.measured(meter::key(node), run, || step(node, state, run)),
    }
}

fn step(node: &Node, state: &mut State, run: &Run<'_>) -> Result<Option<Batch>, SqlError> {
    run.state.check_cancel()?;
    match (node, state) {
        (Node::Values { rows, .. }, State::Values(place)) => {
            let context = run.context();
            let rest = rows.get(*place..).unwrap_or_default();
            let mut batch = Filling::with_capacity(rest.len());
            for row in rest {
                if batch.is_full() {
                    break;
                }
                batch.push(eval_all(row, &[], &context)?);
                *place += 1;
            }
            Ok(batch.finish())
        }
        (Node::Scan(scan), State::Scan(state)) => {
            if state.is_none() {
                *state = Some(Box::new(ScanState::open(scan, &[], run)?));
            }
            match state {
                Some(state) => state.next(scan, run),
                None => Ok(None),
            }
        }
        (Node::Virtual { relation, .. }, State::Shared(rows, place)) => {
            let rows = match rows {
                Some(rows) => rows,
                None => rows.insert(run.state.computed(relation.oid(), || relation.rows(&run.virtuals))?),
            };
            Ok(part(rows, place))
        }
        (Node::Function { function, args, ordinality }, State::Rows(rows)) => {
            if rows.is_none() {
                let values = eval_all(args, &[], &run.context())?;
                let mut computed = function_rows(*function, &values, run)?;
                if *ordinality {
                    for (row, number) in computed.iter_mut().zip(1..) {
                        row.push(Value::Int8(number));
                    }
                }
                *rows = Some(computed.into_iter());
            }
            let batch = take(rows);
            for row in batch.iter().flatten() {
                run.state.release(row_size(row.get(..1).unwrap_or_default()));
            }
            Ok(batch)
        }
        (Node::Function { function, args, ordinality }, State::Series(series)) => {
            let series = match series {
                Some(series) => series,
                None => series.insert(Series::new(eval_all(args, &[], &run.context())?)),
            };
            let mut batch = series.batch(*function, run)?;
            if *ordinality {
                for (row, number) in batch.iter_mut().zip(series.yielded + 1..) {
                    row.push(Value::Int8(number));
                }
            }
            series.yielded += i64::try_from(batch.len()).unwrap_or(i64::MAX);
            Ok(some(batch))
        }
        (Node::Shared { id, plan }, State::Shared(rows, place)) => {
            let rows = match rows {
                Some(rows) => rows,
                None => rows.insert(run.state.shared(*id, || collect(plan, &mut State::open(plan), run))?),
            };
            Ok(part(rows, place))
        }
        (Node::WorkTable { id, .. }, State::Shared(rows, place)) => {
            let rows = rows.get_or_insert_with(|| run.state.working(*id));
            Ok(part(rows, place))
        }
        (Node::Recursive { id, initial, step, all, is_shared }, State::Recursive(known, place)) => {
            let shared = known.get_or_insert_with(|| match is_shared {
                true => run.state.recursion(*id, *all),
                false => Arc::new(parking_lot::Mutex::new(recursive::Recursion::new(*all))),
            });
            let mut read = || shared.lock().read(place, (*id, initial, step), run);
            if *is_shared { run.state.lasting(read) } else { read() }
        }
        (Node::Filter { input, predicate }, State::Unary(state)) => {
            while let Some(mut batch) = next(input, state, run)? {
                let before = batch.len();
                retain(&mut batch, predicate, &run.context())?;
                run.state.removed(|| meter::key(node), before - batch.len());
                if !batch.is_empty() {
                    return Ok(Some(batch));
                }
            }
            Ok(None)
        }
        (Node::Project { input, exprs }, State::Project(state, rest)) => {
            if rest.len() == 0 {
                let Some(batch) = next(input, state, run)? else { return Ok(None) };
                *rest = batch.into_iter();
            }
            let context = run.context();
            let mut batch = Filling::with_capacity(rest.len());
            while !batch.is_full()
                && let Some(row) = rest.next()
            {
                batch.push(eval_all(exprs, &row, &context)?);
            }
            Ok(batch.finish())
        }
        (Node::Pick { input, columns }, State::Unary(state)) => {
            let Some(batch) = next(input, state, run)? else { return Ok(None) };
            let pick = |row: Row| columns.iter().filter_map(|column| row.get(*column).cloned()).collect();
            Ok(Some(batch.into_iter().map(pick).collect()))
        }
        (Node::ProjectSet { input, exprs }, State::ProjectSet(state, pending, rest)) => loop {
            let mut batch = Filling::with_capacity(rest.len());
            while !batch.is_full()
                && let Some(row) = rest.next()
            {
                run.state.release(row_size(&row));
                batch.push(row);
            }
            if let Some(batch) = batch.finish() {
                return Ok(Some(batch));
            }
            match pending.next() {
                Some(row) => *rest = expand(exprs, &row, run)?.into_iter(),
                None => match next(input, state, run)? {
                    Some(batch) => *pending = batch.into_iter(),
                    None => return Ok(None),
                },
            }
        },
        (Node::Join(join), State::Join(state)) => join::next(join, state, run),
        (Node::Aggregate(aggregate), State::Aggregate(state, groups)) => {
            let groups = match groups {
                Some(groups) => groups,
                None => groups.insert(aggregate::run(aggregate, state, run)?),
            };
            groups.next(aggregate, run)
        }
        (Node::Window(window), State::Window(state, windowed)) => {
            let windowed = match windowed {
                Some(windowed) => windowed,
                None => windowed.insert(Box::new(super::window::Windowed::open(window, state, run)?)),
            };
            windowed.next(window, run)
        }
        (Node::Sort { input, keys, bound }, State::Sort(state, rows)) => {
            if rows.is_none() {
                let bound = match bound {
                    Some(bound) => {
                        bound.eval(&[], &run.context())?.as_i64().and_then(|n| usize::try_from(n).ok())
                    }
                    None => None,
                };
                *rows = Some(sort::sort(input, state, (keys, false), bound, run)?);
            }
            match rows {
                Some(rows) => rows.next(keys, run),
                None => Ok(None),
            }
        }
        (Node::Distinct { input, on }, State::Distinct(state)) => state.next(input, *on, run),
        (Node::SetOp { operation, all, left, right }, State::SetOp(left_state, right_state, rows)) => {
            if *operation == SetOperation::Union && *all {
                return match next(left, left_state, run)? {
                    Some(batch) => Ok(Some(batch)),
                    None => next(right, right_state, run),
                };
            }
            if rows.is_none() {
                let computed = match operation {
                    SetOperation::Union => union((left, left_state), (right, right_state), run)?,
                    operation => {
                        let right_rows = count_rows(right, right_state, run)?;
                        keep_counted(*operation, *all, (left, left_state), right_rows, run)?
                    }
                };
                *rows = Some(computed.into_iter());
            }
            Ok(take(rows))
        }
        (Node::Limit { input, limit, offset }, State::Limit(state, window)) => {
            let (skip, left) = match window {
                Some(window) => window,
                None => window.insert(limit_window(limit.as_ref(), offset.as_ref(), run)?),
            };
            while left.is_none_or(|left| left > 0) {
                let Some(mut batch) = next(input, state, run)? else { return Ok(None) };
                let passed = usize::try_from(*skip).unwrap_or(usize::MAX).min(batch.len());
                batch.drain(..passed);
                *skip -= i64::try_from(passed).unwrap_or(*skip);
                if let Some(left) = left {
                    batch.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= i64::try_from(batch.len()).unwrap_or(*left);
                }
                if !batch.is_empty() {
                    return Ok(Some(batch));
                }
            }
            Ok(None)
        }
        _ => Err(SqlError::internal("the state of an execution does not fit its plan")),
    }
}

/// All rows of a node, kept in memory.
///
/// # Errors
/// As [`next`].
pub fn collect(node: &Node, state: &mut State, run: &Run<'_>) -> Result<Vec<Row>, SqlError> {
    let mut rows = Vec::new();
    while let Some(batch) = next(node, state, run)? {
        for row in batch {
            run.state.charge_row(&row)?;
            rows.push(row);
        }
    }
    Ok(rows)
}

/// Evaluates expressions over one row.
///
/// # Errors
/// Whatever evaluation raises.
pub fn eval_all(exprs: &[Expr], row: &[Value], context: &EvalContext<'_>) -> Result<Row, SqlError> {
    let mut values = Vec::with_capacity(exprs.len());
    for expr in exprs {
        values.push(expr.eval(row, context)?);
    }
    Ok(values)
}

/// Drops the rows that do not satisfy a predicate.
pub(crate) fn retain(batch: &mut Batch, predicate: &Expr, context: &EvalContext<'_>) -> Result<(), SqlError> {
    let mut failure = None;
    batch.retain(|row| match predicate.eval(row, context) {
        Ok(Value::Bool(flag)) => flag,
        Ok(_) => false,
        Err(error) => {
            failure.get_or_insert(error);
            false
        }
    });
    failure.map_or(Ok(()), Err)
}

/// A batch unless it is empty.
pub(crate) fn some(batch: Batch) -> Option<Batch> {
    if batch.is_empty() { None } else { Some(batch) }
}

/// The next batch of rows that were computed at once.
fn take(rows: &mut Option<std::vec::IntoIter<Row>>) -> Option<Batch> {
    let rows = rows.as_mut()?;
    let mut batch = Filling::with_capacity(rows.len());
    while !batch.is_full()
        && let Some(row) = rows.next()
    {
        batch.push(row);
    }
    batch.finish()
}

/// The batch of rows that begins at `place`, which is moved behind it.
pub(super) fn part(rows: &[Row], place: &mut usize) -> Option<Batch> {
    let rest = rows.get(*place..).unwrap_or_default();
    let mut batch = Filling::with_capacity(rest.len());
    for row in rest {
        if batch.is_full() {
            break;
        }
        batch.push(row.clone());
        *place += 1;
    }
    batch.finish()
}

fn limit_window(
    limit: Option<&Expr>,
    offset: Option<&Expr>,
    run: &Run<'_>,
) -> Result<(i64, Option<i64>), SqlError> {
    let context = run.context();
    let eval = |expr: Option<&Expr>| -> Result<Option<i64>, SqlError> {
        Ok(match expr {
            Some(expr) => expr.eval(&[], &context)?.as_i64(),
            None => None,
        })
    };
    let (limit, offset) = (eval(limit)?, eval(offset)?.unwrap_or(0));
    if limit.is_some_and(|limit| limit < 0) {
        return Err(SqlError::new(SqlState::INVALID_ROW_COUNT_IN_LIMIT, "LIMIT must not be negative"));
    }
    if offset < 0 {
        return Err(SqlError::new(SqlState::INVALID_ROW_COUNT_IN_OFFSET, "OFFSET must not be negative"));
    }
    Ok((offset, limit))
}

/// Compares two rows of sort keys.
pub(crate) fn compare_keys(left: &[Value], right: &[Value], keys: &[SortKey]) -> Ordering {
    for ((left, right), key) in left.iter().zip(right).zip(keys) {
        let ordering = match (left.is_null(), right.is_null()) {
            (true, true) => Ordering::Equal,
            (true, false) if key.nulls_first => Ordering::Less,
            (true, false) => Ordering::Greater,
            (false, true) if key.nulls_first => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) if key.descending => right.compare(left),
            (false, false) => left.compare(right),
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
    Ordering::Equal
}

fn is_series(function: TableFunction) -> bool {
    matches!(function, TableFunction::Set(function) if function.name == "generate_series")
}

/// `generate_series` in FROM, of which any part is a series too: it goes on behind the last value that it yielded.
#[derive(Debug)]
pub struct Series {
    args: Vec<Value>,
    has_begun: bool,
    is_over: bool,
    yielded: i64,
}

impl Series {
    fn new(args: Vec<Value>) -> Self {
        Self { args, has_begun: false, is_over: false, yielded: 0 }
    }

    /// The next rows; none at the end.
    fn batch(&mut self, function: TableFunction, run: &Run<'_>) -> Result<Batch, SqlError> {
        let mut batch = Batch::new();
        let TableFunction::Set(function) = function else { return Ok(batch) };
        if self.is_over {
            return Ok(batch);
        }
        let mut is_known = self.has_begun;
        self.is_over = true;
        let mut emit = |value: Value| {
            if std::mem::take(&mut is_known) {
                return Ok(ControlFlow::Continue(()));
            }
            batch.push(vec![value]);
            if batch.len() < BATCH_ROWS {
                return Ok(ControlFlow::Continue(()));
            }
            self.is_over = false;
            Ok(ControlFlow::Break(()))
        };
        resolve::eval_set(function, &self.args, &mut emit, &run.context())?;
        if let (Some(start), Some([last])) = (self.args.first_mut(), batch.last().map(Vec::as_slice)) {
            start.clone_from(last);
            self.has_begun = true;
        }
        Ok(batch)
    }
}

fn function_rows(function: TableFunction, values: &[Value], run: &Run<'_>) -> Result<Vec<Row>, SqlError> {
    match function {
        TableFunction::Scalar => {
            run.state.charge_row(values.get(..1).unwrap_or_default())?;
            Ok(vec![values.to_vec()])
        }
        TableFunction::Set(function) => {
            let mut rows = Vec::new();
            let mut emit = |value: Value| {
                let row = vec![value];
                run.state.charge_row(&row)?;
                if rows.len() % BATCH_ROWS == 0 {
                    run.state.check_cancel()?;
                }
                rows.push(row);
                Ok(ControlFlow::Continue(()))
            };
            resolve::eval_set(function, values, &mut emit, &run.context())?;
            Ok(rows)
        }
    }
}

/// The rows that one input row of a [`Node::ProjectSet`] becomes: as many as its longest function yields.
fn expand(
    exprs: &[(Option<TableFunction>, Vec<Expr>)],
    row: &[Value],
    run: &Run<'_>,
) -> Result<Vec<Row>, SqlError> {
    let context = run.context();
    let mut columns: Vec<(bool, Vec<Value>)> = Vec::with_capacity(exprs.len());
    let mut charged = 0;
    for (function, args) in exprs {
        let values = eval_all(args, row, &context)?;
        columns.push(match function {
            Some(function) => {
                let rows = function_rows(*function, &values, run)?;
                charged += rows.iter().map(|row| row_size(row)).sum::<usize>();
                (true, rows.into_iter().flatten().collect())
            }
            None => (false, values),
        });
    }
    let count =
        columns.iter().filter(|(is_set, _)| *is_set).map(|(_, values)| values.len()).max().unwrap_or(1);
    let mut rows = Vec::with_capacity(count);
    for index in 0..count {
        let pick = |(is_set, values): &(bool, Vec<Value>)| {
            values.get(if *is_set { index } else { 0 }).cloned().unwrap_or(Value::Null)
        };
        let expanded: Row = columns.iter().map(pick).collect();
        run.state.charge_row(&expanded)?;
        rows.push(expanded);
    }
    run.state.release(charged);
    Ok(rows)
}

fn union(left: (&Node, &mut State), right: (&Node, &mut State), run: &Run<'_>) -> Result<Vec<Row>, SqlError> {
    let mut seen = HashSet::new();
    let mut rows = Vec::new();
    for (node, state) in [left, right] {
        while let Some(batch) = next(node, state, run)? {
            for row in batch {
                let key = HashedRow(row);
                if !seen.contains(&key) {
                    run.state.charge_row(&key.0)?;
                    rows.push(key.0.clone());
                    seen.insert(key);
                }
            }
        }
    }
    Ok(rows)
}

/// How often each row occurs.
fn count_rows(node: &Node, state: &mut State, run: &Run<'_>) -> Result<HashMap<HashedRow, usize>, SqlError> {
    let mut counts = HashMap::new();
    while let Some(batch) = next(node, state, run)? {
        for row in batch {
            run.state.charge_row(&row)?;
            *counts.entry(HashedRow(row)).or_insert(0) += 1;
        }
    }
    Ok(counts)
}

/// INTERSECT and EXCEPT: left rows by how often they occur on the right.
fn keep_counted(
    operation: SetOperation,
    all: bool,
    (left, state): (&Node, &mut State),
    mut right: HashMap<HashedRow, usize>,
    run: &Run<'_>,
) -> Result<Vec<Row>, SqlError> {
    let mut seen = HashSet::new();
    let mut rows = Vec::new();
    while let Some(batch) = next(left, state, run)? {
        for row in batch {
            let key = HashedRow(row);
            let matched = match right.get_mut(&key) {
                Some(count) if *count > 0 => {
                    if all {
                        *count -= 1;
                    }
                    true
                }
                _ => false,
            };
            if matched != (operation == SetOperation::Intersect) || (!all && seen.contains(&key)) {
                continue;
            }
            run.state.charge_row(&key.0)?;
            rows.push(key.0.clone());
            if !all {
                seen.insert(key);
            }
        }
    }
    Ok(rows)
}
