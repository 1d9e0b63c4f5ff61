//! Joins: nested loop, hash, and lookups of the right side through an index.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use rustydb_types::value::Value;

use super::meter;
use super::operator::{self, BATCH_ROWS, Batch, Filling, State, eval_all};
use super::partition::{DEPTH_MAX, Partitions};
use super::run::{Run, row_size};
use super::scan::ScanState;
use super::spill::SpillReader;
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
    /// What is kept for the right side.
    inner_bytes: i64,
    /// Both sides in files, when the right one did not fit: the left side of the part that is joined, and parts that are
    /// still to be joined.
    left_part: Option<SpillReader>,
    parts: Vec<Part>,
}

/// The rows of both sides whose keys have one hash.
#[derive(Debug)]
struct Part {
    left: SpillReader,
    right: SpillReader,
    /// How often they were divided.
    depth: u32,
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
    /// Those in memory with one key, from the one at this place on.
    Hashed(Option<usize>),
    /// What a lookup finds, and rows of it that were read.
    LookedUp(Box<ScanState>, std::vec::IntoIter<Row>),
    /// The right side around values of the left row, rows of it that were computed, and the bytes that it keeps.
    Lateral(Row, Box<State>, std::vec::IntoIter<Row>, i64),
}

/// The right side in memory.
#[derive(Debug)]
struct Inner {
    rows: Vec<Row>,
    /// The place of the first row of each key, for a hash join.
    table: HashMap<HashedRow, usize, RandomState>,
    /// The place of the next row of the same key, for each row; its own where there is none.
    chain: Vec<usize>,
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
            inner_bytes: 0,
            left_part: None,
            parts: Vec::new(),
        }
    }
}

/// The next rows of a join.
pub(crate) fn next(join: &Join, state: &mut JoinState, run: &Run<'_>) -> Result<Option<Batch>, SqlError> {
    let mut batch = Filling::default();
    while !batch.is_full() {
        if let Some(place) = &mut state.unmatched {
            unmatched_right(join, state.inner.as_ref(), place, &mut batch);
            if batch.is_full() || !state.next_part(join, run)? {
                break;
            }
            continue;
        }
        if state.inner.is_none()
            && matches!(join.algorithm, JoinAlgorithm::NestedLoop | JoinAlgorithm::Hash { .. })
        {
            state.read_inner(join, run)?;
            continue;
        }
        let mut current = match state.current.take() {
            Some(current) => current,
            None => match state.pending.next() {
                Some(left) => begin(join, left, state.inner.as_ref(), run)?,
                None => {
                    match state.next_left(join, run)? {
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

impl JoinState {
    /// The next rows of the left side, or of the part of it that is joined.
    fn next_left(&mut self, join: &Join, run: &Run<'_>) -> Result<Option<Batch>, SqlError> {
        match &mut self.left_part {
            Some(part) => part.batch(run),
            None => operator::next(&join.left, &mut self.left, run),
        }
    }

    /// Reads the right side into memory, or both into files when it does not fit; then the first part of them.
    fn read_inner(&mut self, join: &Join, run: &Run<'_>) -> Result<(), SqlError> {
        let mut read = Reader { kept: Vec::new(), bytes: 0, parts: None, depth: 0 };
        let right = &mut self.right;
        let (done, bytes) = run.state.measured(|| {
            while let Some(batch) = operator::next(&join.right, right, run)? {
                for row in batch {
                    read.push(join, row, run)?;
                }
            }
            Ok::<_, SqlError>(())
        });
        done?;
        let Some(parts) = read.parts.take() else {
            let (inner, more) = run.state.measured(|| Inner::new(join, read.kept, run));
            self.inner = Some(inner?);
            self.inner_bytes = bytes + more;
            return Ok(());
        };
        run.state.release_measured(bytes);
        let mut left = divided(run, 0)?;
        while let Some(batch) = operator::next(&join.left, &mut self.left, run)? {
            for row in batch {
                push_left(join, &mut left, &row, run)?;
            }
        }
        self.add_parts(parts, left)?;
        // Of what is empty there is nothing to join, but all parts are gone through.
        self.next_part(join, run)?;
        Ok(())
    }

    fn add_parts(&mut self, right: Partitions, left: Partitions) -> Result<(), SqlError> {
        for ((right, depth), (left, _)) in right.finish()?.into_iter().zip(left.finish()?) {
            self.parts.push(Part { left, right, depth });
        }
        Ok(())
    }

    /// Goes on to the next part; false when there is none.
    fn next_part(&mut self, join: &Join, run: &Run<'_>) -> Result<bool, SqlError> {
        while let Some(mut part) = self.parts.pop() {
            self.inner = None;
            run.state.release_measured(std::mem::take(&mut self.inner_bytes));
            let needs_left = matches!(join.kind, JoinKind::Left | JoinKind::Full);
            let needs_right = matches!(join.kind, JoinKind::Right | JoinKind::Full);
            if (part.right.rows() == 0 && !needs_left) || (part.left.rows() == 0 && !needs_right) {
                continue;
            }
            let mut read = Reader { kept: Vec::new(), bytes: 0, parts: None, depth: part.depth };
            let (done, bytes) = run.state.measured(|| {
                while let Some(batch) = part.right.batch(run)? {
                    for row in batch {
                        read.push(join, row, run)?;
                    }
                }
                Ok::<_, SqlError>(())
            });
            done?;
            if let Some(right) = read.parts.take() {
                run.state.release_measured(bytes);
                let mut left = divided(run, part.depth)?;
                while let Some(batch) = part.left.batch(run)? {
                    for row in batch {
                        push_left(join, &mut left, &row, run)?;
                    }
                }
                self.add_parts(right, left)?;
                continue;
            }
            let (inner, more) = run.state.measured(|| Inner::new(join, read.kept, run));
            self.inner = Some(inner?);
            self.inner_bytes = bytes + more;
            self.left_part = Some(part.left);
            self.unmatched = None;
            return Ok(true);
        }
        if self.inner.is_none() {
            self.inner = Some(Inner {
                rows: Vec::new(),
                table: HashMap::default(),
                chain: Vec::new(),
                matched: Vec::new(),
            });
            self.unmatched = Some(0);
        }
        Ok(false)
    }
}

fn divided(run: &Run<'_>, depth: u32) -> Result<Partitions, SqlError> {
    match run.state.spill() {
        Some((area, _)) => Ok(Partitions::new(area, depth)),
        None => Err(SqlError::internal("there is no room for temporary files")),
    }
}

/// Writes a left row to the file of its key, unless it can have no partner and none is needed.
fn push_left(join: &Join, parts: &mut Partitions, row: &[Value], run: &Run<'_>) -> Result<(), SqlError> {
    let JoinAlgorithm::Hash { left, .. } = &join.algorithm else { return Ok(()) };
    let key = HashedRow(eval_all(left, row, &run.context())?);
    if key.0.iter().any(Value::is_null) && !matches!(join.kind, JoinKind::Left | JoinKind::Full) {
        return Ok(());
    }
    parts.push(&key, row)
}

/// Right rows on their way into memory, or into files when there are too many.
struct Reader {
    kept: Vec<Row>,
    bytes: usize,
    parts: Option<Partitions>,
    depth: u32,
}

impl Reader {
    fn push(&mut self, join: &Join, row: Row, run: &Run<'_>) -> Result<(), SqlError> {
        let size = row_size(&row);
        if let (Some((area, limit)), JoinAlgorithm::Hash { .. }) = (run.state.spill(), &join.algorithm)
            && self.parts.is_none()
            // Its key is kept beside it.
            && self.bytes + size > limit
            && self.depth < DEPTH_MAX
        {
            let mut parts = Partitions::new(area, self.depth);
            for row in self.kept.drain(..) {
                push_right(join, &mut parts, &row, run)?;
            }
            run.state.release(std::mem::take(&mut self.bytes));
            self.parts = Some(parts);
        }
        if let Some(parts) = &mut self.parts {
            return push_right(join, parts, &row, run);
        }
        run.state.charge(size)?;
        self.bytes += size;
        self.kept.push(row);
        Ok(())
    }
}

/// Writes a right row to the file of its key, unless it can have no partner and none is needed.
fn push_right(join: &Join, parts: &mut Partitions, row: &[Value], run: &Run<'_>) -> Result<(), SqlError> {
    let JoinAlgorithm::Hash { right, .. } = &join.algorithm else { return Ok(()) };
    let key = HashedRow(eval_all(right, row, &run.context())?);
    if key.0.iter().any(Value::is_null) && !matches!(join.kind, JoinKind::Right | JoinKind::Full) {
        return Ok(());
    }
    parts.push(&key, row)
}

impl Inner {
    /// Rows that are charged for, with their keys.
    fn new(join: &Join, rows: Vec<Row>, run: &Run<'_>) -> Result<Self, SqlError> {
        let mut table: HashMap<HashedRow, usize, RandomState> = HashMap::default();
        let mut chain = Vec::new();
        if let JoinAlgorithm::Hash { right, .. } = &join.algorithm {
            let context = run.context();
            table.reserve(rows.len());
            chain = (0..rows.len()).collect();
            // From the last to the first, so that the rows of a key are found in their order.
            for (place, row) in rows.iter().enumerate().rev() {
                let key = eval_all(right, row, &context)?;
                if !key.iter().any(Value::is_null) {
                    run.state.charge_row(&key)?;
                    if let Some(next) = table.insert(HashedRow(key), place)
                        && let Some(slot) = chain.get_mut(place)
                    {
                        *slot = next;
                    }
                }
            }
        }
        let matched = vec![false; rows.len()];
        Ok(Self { rows, table, chain, matched })
    }
}

/// Begins to match a left row.
fn begin(join: &Join, left: Row, inner: Option<&Inner>, run: &Run<'_>) -> Result<Current, SqlError> {
    run.state.check_cancel()?;
    let candidates = match &join.algorithm {
        JoinAlgorithm::NestedLoop => Candidates::All(0),
        JoinAlgorithm::Hash { left: key, .. } => {
            let key = HashedRow(eval_all(key, &left, &run.context())?);
            // NULL equals nothing.
            let is_null = key.0.iter().any(Value::is_null);
            let table = inner.filter(|_| !is_null).map(|inner| &inner.table);
            Candidates::Hashed(table.and_then(|table| table.get(&key).copied()))
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
        Candidates::Hashed(next) => {
            let Inner { rows, chain, matched, .. } = inner.ok_or_else(not_read)?;
            while let Some(place) = *next {
                if batch.is_full() {
                    return Ok(false);
                }
                *next = chain.get(place).copied().filter(|other| *other != place);
                looked_at += 1;
                if looked_at.is_multiple_of(BATCH_ROWS) {
                    run.state.check_cancel()?;
                }
                if let (Some(right), Some(matched)) = (rows.get(place), matched.get_mut(place))
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
                let found = match &run.state.meter {
                    None => state.next(scan, run)?,
                    Some(meter) => meter.measured(meter::key(&join.right), run, || state.next(scan, run))?,
                };
                match found {
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
