//! Joins: nested loop, hash, and lookups of the right side through an index.

use std::collections::HashMap;

use rustydb_types::value::Value;

use super::operator::{self, BATCH_ROWS, Batch, Filling, State, collect, eval_all};
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
    /// The left row that is being matched.
    current: Option<Current>,
    /// Behind the end of the left side: the next right row to be looked at for RIGHT and FULL.
    unmatched: Option<usize>,
}

/// A left row on its way along the right side.
#[derive(Debug)]
struct Current {
    left: Row,
    /// Whether it found a partner.
    is_matched: bool,
    candidates: Candidates,
}

/// The right rows that may be partners of a left row.
#[derive(Debug)]
enum Candidates {
    /// All that are in memory, from this place on.
    All(usize),
    /// Those in memory with this key, from the one with this number on.
    Hashed(HashedRow, usize),
    /// What a lookup finds, and rows of it that were read.
    LookedUp(Box<ScanState>, std::vec::IntoIter<Row>),
    /// The right side around values of the left row, rows of it that were computed, and the bytes that it keeps.
    Lateral(Row, Box<State>, std::vec::IntoIter<Row>, i64),
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
            current: None,
            unmatched: None,
        }
    }
}

/// The next rows of a join.
pub(crate) fn next(join: &Join, state: &mut JoinState, run: &Run<'_>) -> Result<Option<Batch>, SqlError> {
    let mut batch = Filling::default();
    while !batch.is_full() {
        if let Some(place) = &mut state.unmatched {
            unmatched_right(join, state.inner.as_ref(), place, &mut batch);
            break;
        }
        if state.inner.is_none()
            && matches!(join.algorithm, JoinAlgorithm::NestedLoop | JoinAlgorithm::Hash { .. })
        {
            state.inner = Some(read_inner(join, &mut state.right, run)?);
        }
        let mut current = match state.current.take() {
            Some(current) => current,
            None => match state.pending.next() {
                Some(left) => begin(join, left, run)?,
                None => {
                    match operator::next(&join.left, &mut state.left, run)? {
                        Some(rows) => state.pending = rows.into_iter(),
                        None => state.unmatched = Some(0),
                    }
                    continue;
                }
            },
        };
        if !go_on(join, &mut current, state.inner.as_mut(), run, &mut batch)? {
            state.current = Some(current);
        } else if !current.is_matched && matches!(join.kind, JoinKind::Left | JoinKind::Full) {
            let mut row = current.left;
            row.resize(row.len() + join.right.width(), Value::Null);
            batch.push(row);
        }
    }
    Ok(batch.finish())
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

/// Begins to match a left row.
fn begin(join: &Join, left: Row, run: &Run<'_>) -> Result<Current, SqlError> {
    run.state.check_cancel()?;
    let candidates = match &join.algorithm {
        JoinAlgorithm::NestedLoop => Candidates::All(0),
        JoinAlgorithm::Hash { left: key, .. } => {
            Candidates::Hashed(HashedRow(eval_all(key, &left, &run.context())?), 0)
        }
        JoinAlgorithm::IndexLookup => {
            let Node::Scan(scan) = &join.right else {
                return Err(SqlError::internal("only a scan can be looked up"));
            };
            let state = ScanState::open(scan, &left, run)?;
            Candidates::LookedUp(Box::new(state), Vec::new().into_iter())
        }
        JoinAlgorithm::Lateral { outer } => {
            let values = eval_all(outer, &left, &run.context())?;
            Candidates::Lateral(values, Box::new(State::open(&join.right)), Vec::new().into_iter(), 0)
        }
    };
    Ok(Current { left, is_matched: false, candidates })
}

/// Matches a left row until the batch is full or all candidates were looked at; answers whether they were.
fn go_on(
    join: &Join,
    current: &mut Current,
    inner: Option<&mut Inner>,
    run: &Run<'_>,
    batch: &mut Filling,
) -> Result<bool, SqlError> {
    let context = run.context();
    let Current { left, is_matched, candidates } = current;
    let mut looked_at = 0_usize;
    match candidates {
        Candidates::All(place) => {
            let Inner { rows, matched, .. } = inner.ok_or_else(not_read)?;
            let (rows, matched) = (rows.get(*place..), matched.get_mut(*place..));
            for (right, matched) in rows.into_iter().flatten().zip(matched.into_iter().flatten()) {
                if batch.is_full() {
                    return Ok(false);
                }
                *place += 1;
                looked_at += 1;
                if looked_at.is_multiple_of(BATCH_ROWS) {
                    run.state.check_cancel()?;
                }
                if push_pair(join, left, right, &context, batch)? {
                    (*matched, *is_matched) = (true, true);
                }
            }
        }
        Candidates::Hashed(key, number) => {
            let Inner { rows, table, matched } = inner.ok_or_else(not_read)?;
            // NULL equals nothing.
            let places = if key.0.iter().any(Value::is_null) { None } else { table.get(key) };
            for place in places.and_then(|places| places.get(*number..)).into_iter().flatten() {
                if batch.is_full() {
                    return Ok(false);
                }
                *number += 1;
                looked_at += 1;
                if looked_at.is_multiple_of(BATCH_ROWS) {
                    run.state.check_cancel()?;
                }
                if let (Some(right), Some(matched)) = (rows.get(*place), matched.get_mut(*place))
                    && push_pair(join, left, right, &context, batch)?
                {
                    (*matched, *is_matched) = (true, true);
                }
            }
        }
        Candidates::LookedUp(state, rest) => {
            let Node::Scan(scan) = &join.right else { return Ok(true) };
            loop {
                while !batch.is_full()
                    && let Some(right) = rest.next()
                {
                    *is_matched |= push_pair(join, left, &right, &context, batch)?;
                }
                if batch.is_full() {
                    return Ok(false);
                }
                match state.next(scan, run)? {
                    Some(rows) => *rest = rows.into_iter(),
                    None => break,
                }
            }
        }
        Candidates::Lateral(outer, state, rest, kept_bytes) => loop {
            while !batch.is_full()
                && let Some(right) = rest.next()
            {
                *is_matched |= push_pair(join, left, &right, &context, batch)?;
            }
            if batch.is_full() {
                return Ok(false);
            }
            let inner = run.with_outer(outer);
            let (next, bytes) = run.state.measured(|| operator::next(&join.right, state, &inner));
            *kept_bytes += bytes;
            match next? {
                Some(rows) => *rest = rows.into_iter(),
                None => {
                    run.state.release_measured(std::mem::take(kept_bytes));
                    break;
                }
            }
        },
    }
    Ok(true)
}

fn not_read() -> SqlError {
    SqlError::internal("a join has not read its right side")
}

/// Adds the pair if it satisfies the condition.
fn push_pair(
    join: &Join,
    left: &[Value],
    right: &[Value],
    context: &EvalContext<'_>,
    batch: &mut Filling,
) -> Result<bool, SqlError> {
    let mut row = Vec::with_capacity(left.len() + right.len());
    row.extend_from_slice(left);
    row.extend_from_slice(right);
    if let Some(condition) = &join.condition
        && !matches!(condition.eval(&row, context)?, Value::Bool(true))
    {
        return Ok(false);
    }
    batch.push(row);
    Ok(true)
}

/// Adds the right rows that found no partner, from `place` on, which is moved behind them.
fn unmatched_right(join: &Join, inner: Option<&Inner>, place: &mut usize, batch: &mut Filling) {
    let (JoinKind::Right | JoinKind::Full, Some(inner)) = (join.kind, inner) else { return };
    let (rows, matched) = (inner.rows.get(*place..), inner.matched.get(*place..));
    for (right, matched) in rows.into_iter().flatten().zip(matched.into_iter().flatten()) {
        if batch.is_full() {
            return;
        }
        *place += 1;
        if !matched {
            let nulls = std::iter::repeat_n(Value::Null, join.left.width());
            batch.push(nulls.chain(right.iter().cloned()).collect());
        }
    }
}
