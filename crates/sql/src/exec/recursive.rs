//! Recursive queries: each round reads the rows that the round before gave, until one gives none.
//!
//! Rows are computed as they are asked for, so that a query that would never end gives the rows that a LIMIT wants. All
//! that were given are kept: other readers of the same query begin with the first.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::operator::{self, Batch, State};
use super::run::{Run, row_size};
use super::subquery::HashedRow;
use crate::error::SqlError;
use crate::plan::{Node, Row};

/// What was computed of a recursive query.
#[derive(Debug)]
pub struct Recursion {
    /// All rows so far.
    rows: Vec<Row>,
    /// Where the rows of the present round begin.
    round: usize,
    /// The rows again, where none is to be there twice.
    seen: Option<HashSet<HashedRow>>,
    /// Where the term stands that gives rows; the other states are over.
    state: Phase,
    /// The rows of the round before.
    working: Arc<Vec<Row>>,
    /// Bytes charged for them.
    working_size: usize,
}

#[derive(Debug)]
enum Phase {
    Initial(Option<Box<State>>),
    Step(Box<State>),
    Done,
}

/// What a reader knows of it.
pub type Shared = Arc<Mutex<Recursion>>;

impl Recursion {
    /// One of which nothing was computed.
    pub(crate) fn new(all: bool) -> Self {
        Self {
            rows: Vec::new(),
            round: 0,
            seen: (!all).then(HashSet::new),
            state: Phase::Initial(None),
            working: Arc::default(),
            working_size: 0,
        }
    }

    /// The rows from a place on, computed if there are none yet; `None` at the end.
    pub(crate) fn read(
        &mut self,
        place: &mut usize,
        (id, initial, step): (usize, &Node, &Node),
        run: &Run<'_>,
    ) -> Result<Option<Batch>, SqlError> {
        while self.rows.len() <= *place {
            if !self.advance((id, initial, step), run)? {
                return Ok(None);
            }
        }
        Ok(operator::part(&self.rows, place))
    }

    /// Computes some more; false at the end.
    fn advance(
        &mut self,
        (id, initial, step): (usize, &Node, &Node),
        run: &Run<'_>,
    ) -> Result<bool, SqlError> {
        run.state.check_cancel()?;
        let batch = match &mut self.state {
            Phase::Initial(state) => {
                let state = state.get_or_insert_with(|| Box::new(State::open(initial)));
                operator::next(initial, state, run)?
            }
            Phase::Step(state) => {
                // Others may have set theirs since.
                run.state.set_working(id, &self.working);
                operator::next(step, state, run)?
            }
            Phase::Done => return Ok(false),
        };
        match batch {
            Some(batch) => {
                for row in batch {
                    if let Some(seen) = &mut self.seen {
                        let key = HashedRow(row.clone());
                        if seen.contains(&key) {
                            continue;
                        }
                        run.state.charge_row(&row)?;
                        seen.insert(key);
                    }
                    run.state.charge_row(&row)?;
                    self.rows.push(row);
                }
            }
            None => {
                run.state.release(self.working_size);
                self.working_size = 0;
                let given = self.rows.get(self.round..).unwrap_or_default();
                if given.is_empty() {
                    self.state = Phase::Done;
                    return Ok(false);
                }
                let size = given.iter().map(|row| row_size(row)).sum();
                run.state.charge(size)?;
                self.working_size = size;
                self.working = Arc::new(given.to_vec());
                self.round = self.rows.len();
                self.state = Phase::Step(Box::new(State::open(step)));
            }
        }
        Ok(true)
    }
}
