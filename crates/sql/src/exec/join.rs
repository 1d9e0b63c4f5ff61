//! Joins: nested loop, hash, and lookups of the right side through an index.

use std::collections::HashMap;

use rustydb_types::value::Value;

use super::operator::{self, BATCH_ROWS, Batch, State, collect, eval_all, some};
use super::run::Run;
use super::scan::ScanState;
use super::subquery::HashedRow;
use crate::error::SqlError;
use crate::plan::{Join, JoinAlgorithm, JoinKind, Node, Row};
use crate::scalar::EvalContext;

/// What an execution knows of a join.
#[derive(Debug)]
pub struct JoinState {
    left: State,
    right: State,
    /// The right side, once it was read.
    inner: Option<Inner>,
    /// Left rows that are still to be matched.
    pending: std::vec::IntoIter<Row>,
    /// Joined rows that are still to be yielded.
    ready: std::vec::IntoIter<Row>,
    /// Whether the left side is at its end.
    left_done: bool,
}

/// The right side in memory.
#[derive(Debug)]
struct Inner {
    rows: Vec<Row>,
    /// Places of rows by key, for a hash join.
    table: HashMap<HashedRow, Vec<usize>>,
    /// Whether a row found a partner, for RIGHT and FULL.
    matched: Vec<bool>,
}

impl JoinState {
    /// The state of a join of which nothing was read.
    #[must_use]
    pub fn open(join: &Join) -> Self {
        Self {
            left: State::open(&join.left),
            right: State::open(&join.right),
            inner: None,
            pending: Vec::new().into_iter(),
            ready: Vec::new().into_iter(),
            left_done: false,
        }
    }
}

/// The next rows of a join.
pub(crate) fn next(join: &Join, state: &mut JoinState, run: &Run<'_>) -> Result<Option<Batch>, SqlError> {
    loop {
        let batch: Batch = state.ready.by_ref().take(BATCH_ROWS).collect();
        if let Some(batch) = some(batch) {
            return Ok(Some(batch));
        }
        if state.left_done {
            return Ok(None);
        }
        if state.inner.is_none()
            && matches!(join.algorithm, JoinAlgorithm::NestedLoop | JoinAlgorithm::Hash { .. })
        {
            state.inner = Some(read_inner(join, &mut state.right, run)?);
        }
        if state.pending.len() == 0 {
            match operator::next(&join.left, &mut state.left, run)? {
                Some(batch) => state.pending = batch.into_iter(),
                None => {
                    state.left_done = true;
                    state.ready = unmatched_right(join, state.inner.as_ref()).into_iter();
                    continue;
                }
            }
        }
        state.ready = match_some(join, state, run)?.into_iter();
    }
}

fn read_inner(join: &Join, state: &mut State, run: &Run<'_>) -> Result<Inner, SqlError> {
    let rows = collect(&join.right, state, run)?;
    let mut table: HashMap<HashedRow, Vec<usize>> = HashMap::new();
    if let JoinAlgorithm::Hash { right, .. } = &join.algorithm {
        let context = run.context();
        for (place, row) in rows.iter().enumerate() {
            let key = eval_all(right, row, &context)?;
            if !key.iter().any(Value::is_null) {
                run.state.charge_row(&key)?;
                table.entry(HashedRow(key)).or_default().push(place);
            }
        }
    }
    let matched = vec![false; rows.len()];
    Ok(Inner { rows, table, matched })
}

/// Matches pending left rows until there is about a batch.
fn match_some(join: &Join, state: &mut JoinState, run: &Run<'_>) -> Result<Batch, SqlError> {
    let context = run.context();
    let mut ready = Vec::new();
    while ready.len() < BATCH_ROWS {
        let Some(left) = state.pending.next() else { break };
        run.state.check_cancel()?;
        let before = ready.len();
        match (&join.algorithm, &mut state.inner) {
            (JoinAlgorithm::IndexLookup, _) => look_up(join, &left, run, &context, &mut ready)?,
            (JoinAlgorithm::Lateral { outer }, _) => {
                let values = eval_all(outer, &left, &context)?;
                let inner = run.with_outer(&values);
                let mut right = State::open(&join.right);
                while let Some(batch) = operator::next(&join.right, &mut right, &inner)? {
                    for right in batch {
                        push_pair(join, &left, &right, &context, &mut ready)?;
                    }
                }
            }
            (JoinAlgorithm::Hash { left: key, .. }, Some(inner)) => {
                let key = HashedRow(eval_all(key, &left, &context)?);
                let places = if key.0.iter().any(Value::is_null) { None } else { inner.table.get(&key) };
                for place in places.into_iter().flatten() {
                    try_pair(join, &left, *place, &inner.rows, &mut inner.matched, &context, &mut ready)?;
                }
            }
            (_, Some(inner)) => {
                for place in 0..inner.rows.len() {
                    try_pair(join, &left, place, &inner.rows, &mut inner.matched, &context, &mut ready)?;
                }
            }
            (_, None) => return Err(SqlError::internal("a join has not read its right side")),
        }
        if ready.len() == before && matches!(join.kind, JoinKind::Left | JoinKind::Full) {
            let mut row = left;
            row.resize(row.len() + join.right.width(), Value::Null);
            ready.push(row);
        }
    }
    Ok(ready)
}

fn try_pair(
    join: &Join,
    left: &[Value],
    place: usize,
    rows: &[Row],
    matched: &mut [bool],
    context: &EvalContext<'_>,
    ready: &mut Batch,
) -> Result<(), SqlError> {
    let Some(right) = rows.get(place) else { return Ok(()) };
    if push_pair(join, left, right, context, ready)?
        && let Some(matched) = matched.get_mut(place)
    {
        *matched = true;
    }
    Ok(())
}

/// Adds the pair if it satisfies the condition.
fn push_pair(
    join: &Join,
    left: &[Value],
    right: &[Value],
    context: &EvalContext<'_>,
    ready: &mut Batch,
) -> Result<bool, SqlError> {
    let mut row = Vec::with_capacity(left.len() + right.len());
    row.extend_from_slice(left);
    row.extend_from_slice(right);
    if let Some(condition) = &join.condition
        && !matches!(condition.eval(&row, context)?, Value::Bool(true))
    {
        return Ok(false);
    }
    ready.push(row);
    Ok(true)
}

/// Matches one left row through the right side's index.
fn look_up(
    join: &Join,
    left: &[Value],
    run: &Run<'_>,
    context: &EvalContext<'_>,
    ready: &mut Batch,
) -> Result<(), SqlError> {
    let Node::Scan(scan) = &join.right else {
        return Err(SqlError::internal("only a scan can be looked up"));
    };
    let mut state = ScanState::open(scan, left, run)?;
    while let Some(batch) = state.next(scan, run)? {
        for right in batch {
            push_pair(join, left, &right, context, ready)?;
        }
    }
    Ok(())
}

fn unmatched_right(join: &Join, inner: Option<&Inner>) -> Batch {
    let (JoinKind::Right | JoinKind::Full, Some(inner)) = (join.kind, inner) else { return Vec::new() };
    let width = join.left.width();
    let unmatched = inner.rows.iter().zip(&inner.matched).filter(|(_, matched)| !**matched);
    unmatched
        .map(|(right, _)| std::iter::repeat_n(Value::Null, width).chain(right.iter().cloned()).collect())
        .collect()
}
