//! Cursors: DECLARE, FETCH and MOVE over portals.
//!
//! A cursor is a portal with a place. One that only goes forward computes its rows as they are fetched, and keeps what
//! is left when another statement begins, so that it never sees what came after it. SCROLL and WITH HOLD keep all
//! rows: the first at once, the second when the transaction commits. Kept rows count against `work_mem`.
//!
//! Deliberately absent: `WHERE CURRENT OF`, and going backwards without SCROLL, which PostgreSQL allows where its plan
//! happens to be able to.

use std::sync::Arc;

use bytes::BytesMut;
use rustydb_txn::Access;

use super::core::Session;
use super::executor::{Executor, ResultFormats};
use super::failure::{Fault, needs_block, no_such_cursor, no_transaction};
use super::portal::{PORTAL_COUNT_MAX, Portal, PortalBody, write_row_description};
use super::response::TransactionStatus;
use super::sink::ResponseSink;
use super::statement::{Declaration, Motion};
use crate::error::{SqlError, SqlState};
use crate::memory::HeldMemory;

/// What a portal made by DECLARE knows besides.
#[derive(Clone, Copy, Debug)]
pub(super) struct SqlCursor {
    is_binary: bool,
    is_scroll: bool,
    is_holdable: bool,
    /// The number of the present row from 1: 0 is before the first, one more than there are is behind the last.
    place: usize,
    /// Its transaction has committed, or is about to.
    pub(super) is_held: bool,
    /// Its transaction has committed.
    is_confirmed: bool,
}

/// The rows that a motion passes, by their numbers from 1, and where it ends.
#[derive(Debug, PartialEq, Eq)]
struct Path {
    rows: Vec<usize>,
    place: usize,
}

/// The path over `count` rows from a place.
fn path(motion: Motion, place: usize, count: usize) -> Path {
    let signed = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let (here, last) = (signed(place), signed(count));
    let to = |target: i64| {
        let target = usize::try_from(target.clamp(0, last + 1)).unwrap_or(0);
        Path { rows: (1..=count).contains(&target).then_some(target).into_iter().collect(), place: target }
    };
    match motion {
        Motion::Forward(0) | Motion::Relative(0) => to(here),
        Motion::Forward(steps) if steps > 0 => {
            let end = here.saturating_add(steps).min(last + 1);
            let end = usize::try_from(end).unwrap_or(count);
            Path { rows: (place + 1..=end.min(count)).collect(), place: end }
        }
        Motion::Forward(steps) => {
            let end = usize::try_from(here.saturating_add(steps)).unwrap_or(0);
            Path { rows: (end.max(1)..place.min(count + 1)).rev().collect(), place: end }
        }
        Motion::ForwardAll => Path { rows: (place + 1..=count).collect(), place: count + 1 },
        Motion::BackwardAll => Path { rows: (1..place.min(count + 1)).rev().collect(), place: 0 },
        Motion::Absolute(number) if number < 0 => to(last.saturating_add(1).saturating_add(number)),
        Motion::Absolute(number) => to(number),
        Motion::Relative(steps) => to(here.saturating_add(steps)),
    }
}

/// How many rows a cursor that only goes forward passes over, and how many it gives then (0: all).
fn strides(motion: Motion, place: usize) -> Result<(usize, usize), SqlError> {
    let steps = |number: i64| usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    let found = match motion {
        Motion::Forward(count) => steps(count).map(|before| (0, before + 1)),
        Motion::ForwardAll => Some((0, 0)),
        Motion::Relative(count) => steps(count).map(|before| (before, 1)),
        Motion::Absolute(number) => {
            steps(number.saturating_sub(i64::try_from(place).unwrap_or(i64::MAX))).map(|before| (before, 1))
        }
        Motion::BackwardAll => None,
    };
    found.ok_or_else(|| {
        SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "cursor can only scan forward")
            .with_hint("Declare it with SCROLL option to enable backward scan.")
    })
}

impl<E: Executor> Session<E> {
    /// Makes a cursor of an opened query.
    pub(super) async fn declare(
        &mut self,
        declaration: &Declaration,
        plan: Arc<E::Plan>,
        cursor: E::Cursor,
        memory: Arc<HeldMemory>,
    ) -> Result<(), SqlError> {
        if self.block.status == TransactionStatus::Idle && !self.is_multiple && !declaration.is_holdable {
            return Err(needs_block("DECLARE CURSOR"));
        }
        if self.portals.contains_key(&declaration.name) {
            let message = format!("cursor \"{}\" already exists", declaration.name);
            return Err(SqlError::new(SqlState::DUPLICATE_CURSOR, message));
        }
        if self.portals.len() >= PORTAL_COUNT_MAX {
            let message = format!("a session holds at most {PORTAL_COUNT_MAX} portals");
            return Err(SqlError::new(SqlState::CONFIGURATION_LIMIT_EXCEEDED, message));
        }
        let sql = SqlCursor {
            is_binary: declaration.is_binary,
            is_scroll: declaration.is_scroll,
            is_holdable: declaration.is_holdable,
            place: 0,
            is_held: false,
            is_confirmed: false,
        };
        let portal = Portal {
            body: PortalBody::Run { plan, cursor },
            formats: if sql.is_binary { ResultFormats::Binary } else { ResultFormats::Text },
            depth: self.block.savepoints.len(),
            is_started: true,
            cursor: Some(sql),
            memory,
        };
        self.portals.insert(declaration.name.clone(), portal);
        // What runs from here on must not be seen, not even before the first row is fetched.
        self.is_fresh = false;
        if declaration.is_scroll {
            self.keep_portals().await?;
        }
        Ok(())
    }

    /// FETCH or MOVE; answers the tag.
    pub(super) async fn fetch<S: ResponseSink>(
        &mut self,
        name: &str,
        motion: Motion,
        is_move: bool,
        formats: &ResultFormats,
        is_described: bool,
        sink: &mut S,
    ) -> Result<String, Fault> {
        self.ensure_transaction(Access::ReadOnly).await?;
        let mut portal = self.portals.remove(name).ok_or_else(|| no_such_cursor(name))?;
        let start = sink.buffer().len();
        let result = self.fetch_from(&mut portal, motion, is_move, (formats, is_described), sink).await;
        self.portals.insert(name.to_owned(), portal);
        let rows = result?;
        if self.access == Access::ReadWrite {
            // How many there were is an answer, whether they were shown or not. What was shown may have left.
            self.unsettled.get_or_insert(start.min(sink.buffer().len()));
        }
        Ok(format!("{} {rows}", if is_move { "MOVE" } else { "FETCH" }))
    }

    async fn fetch_from<S: ResponseSink>(
        &mut self,
        portal: &mut Portal<E>,
        motion: Motion,
        is_move: bool,
        (formats, is_described): (&ResultFormats, bool),
        sink: &mut S,
    ) -> Result<usize, Fault> {
        let Portal { body: PortalBody::Run { plan, cursor }, cursor: sql, .. } = portal else {
            // A portal of the protocol that has ended.
            return Ok(0);
        };
        let place = sql.map_or(0, |sql| sql.place);
        let is_binary = sql.is_some_and(|sql| sql.is_binary);
        let formats = if is_binary { &ResultFormats::Binary } else { formats };
        let is_scroll = sql.is_some_and(|sql| sql.is_scroll);
        let strides = if is_scroll { None } else { Some(strides(motion, place)?) };
        if !is_move && !is_described {
            write_row_description(sink.buffer(), self.parts.executor.shape(plan), formats);
        }
        let (rows, place) = match strides {
            Some((passed, count)) => {
                let skipped = if passed > 0 { self.pass(cursor, passed).await? } else { 0 };
                let given = if skipped < passed {
                    0
                } else if is_move {
                    self.pass(cursor, if count == 0 { usize::MAX } else { count }).await?
                } else {
                    let most = u32::try_from(count).unwrap_or(u32::MAX);
                    self.drive(cursor, formats, most, sink).await?.rows
                };
                (given, place.saturating_add(skipped).saturating_add(given))
            }
            None => {
                let count = self.parts.executor.kept_count(cursor).unwrap_or(0);
                let path = path(motion, place, count);
                let mut next = None;
                if !is_move {
                    for row in &path.rows {
                        if next != Some(*row) {
                            self.parts.executor.seek(cursor, row - 1);
                        }
                        self.drive(cursor, formats, 1, sink).await?;
                        next = Some(row + 1);
                    }
                }
                (path.rows.len(), path.place)
            }
        };
        if let Some(sql) = sql {
            sql.place = place;
        }
        Ok(rows)
    }

    /// Passes over rows; answers how many there were.
    async fn pass(&mut self, cursor: &mut E::Cursor, count: usize) -> Result<usize, SqlError> {
        let mut unseen = BytesMut::new();
        let mut passed = 0;
        self.is_fresh = false;
        while passed < count {
            let txn = self.txn.as_mut().ok_or_else(no_transaction)?;
            let formats = ResultFormats::Text;
            let most = count - passed;
            let fetched = self.parts.executor.fetch(txn, &self.context, cursor, most, &formats, &mut unseen);
            let fetched = self.context.interrupts.guard(&self.parts.env, self.deadline, fetched).await??;
            unseen.clear();
            passed += fetched.rows;
            if fetched.is_done {
                break;
            }
        }
        Ok(passed)
    }

    /// The shape of what FETCH from a cursor answers.
    pub(super) fn describe_cursor(&self, name: &str, formats: &ResultFormats, out: &mut BytesMut) {
        if let Some(Portal { body: PortalBody::Run { plan, .. }, cursor, .. }) = self.portals.get(name) {
            let is_binary = cursor.is_some_and(|cursor| cursor.is_binary);
            let formats = if is_binary { &ResultFormats::Binary } else { formats };
            write_row_description(out, self.parts.executor.shape(plan), formats);
        }
    }

    /// Before a commit: cursors WITH HOLD take their rows with them.
    pub(super) async fn hold_cursors(&mut self) -> Result<(), SqlError> {
        let wants =
            |portal: &Portal<E>| portal.cursor.is_some_and(|cursor| cursor.is_holdable && !cursor.is_held);
        if !self.portals.values().any(wants) {
            return Ok(());
        }
        self.keep_portals().await?;
        for portal in self.portals.values_mut() {
            if let Some(cursor) = &mut portal.cursor {
                cursor.is_held |= cursor.is_holdable;
            }
        }
        Ok(())
    }

    /// The commit stands.
    pub(super) fn confirm_holds(&mut self) {
        for portal in self.portals.values_mut() {
            if let Some(cursor) = &mut portal.cursor {
                cursor.is_confirmed = cursor.is_held;
                // Savepoints of later transactions do not touch it.
                portal.depth = 0;
            }
        }
    }

    /// The commit failed: what it was to hold ends with its transaction.
    pub(super) fn end_holds(&mut self) {
        self.portals
            .retain(|_, portal| portal.cursor.is_none_or(|cursor| cursor.is_held == cursor.is_confirmed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn motions_over_three_rows_are_those_of_postgresql() {
        // Motion, place before; rows, place after.
        for (motion, before, rows, after) in [
            (Motion::Forward(1), 0, vec![1], 1),
            (Motion::Forward(2), 2, vec![3], 4),
            (Motion::Forward(1), 4, vec![], 4),
            (Motion::Forward(0), 2, vec![2], 2),
            (Motion::Forward(0), 0, vec![], 0),
            (Motion::Forward(-1), 4, vec![3], 3),
            (Motion::Forward(-2), 2, vec![1], 0),
            (Motion::Forward(-9), 4, vec![3, 2, 1], 0),
            (Motion::ForwardAll, 1, vec![2, 3], 4),
            (Motion::BackwardAll, 3, vec![2, 1], 0),
            (Motion::BackwardAll, 4, vec![3, 2, 1], 0),
            (Motion::Absolute(2), 4, vec![2], 2),
            (Motion::Absolute(9), 0, vec![], 4),
            (Motion::Absolute(-1), 0, vec![3], 3),
            (Motion::Absolute(-9), 2, vec![], 0),
            (Motion::Absolute(0), 2, vec![], 0),
            (Motion::Relative(-1), 3, vec![2], 2),
            (Motion::Relative(5), 1, vec![], 4),
        ] {
            assert_eq!(path(motion, before, 3), Path { rows, place: after }, "{motion:?} from {before}");
        }
    }

    #[test]
    fn a_cursor_without_scroll_only_goes_forward() {
        assert_eq!(strides(Motion::Forward(5), 2).ok(), Some((0, 5)));
        assert_eq!(strides(Motion::Absolute(5), 2).ok(), Some((2, 1)));
        assert_eq!(strides(Motion::Relative(2), 2).ok(), Some((1, 1)));
        for motion in [Motion::Forward(-1), Motion::Forward(0), Motion::Absolute(2), Motion::BackwardAll] {
            assert_eq!(strides(motion, 2).unwrap_err().state(), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
        }
    }
}
