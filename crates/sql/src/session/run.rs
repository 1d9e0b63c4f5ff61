//! Planning, locking and fetching: how one statement of either protocol runs.

use std::pin::pin;
use std::sync::Arc;

use bytes::BytesMut;
use rustydb_txn::Access;

use super::copy::{ActiveCopy, CopyCaller};
use super::core::Session;
use super::executor::{Dialogue, Executor, Fetched, ResultFormats};
use super::failure::{Fault, no_transaction};
use super::interrupt::Interrupts;
use super::response::{self, Mark};
use super::sink::{OUTPUT_SIZE_HIGH, ResponseSink};
use crate::error::{SqlError, SqlState};

/// How often a plan that the catalog has overtaken is made anew before the statement gives up.
const REPLAN_COUNT_MAX: usize = 10;

impl<E: Executor> Session<E> {
    pub(super) async fn plan(
        &mut self,
        statement: &sqlparser::ast::Statement,
        param_types: &[u32],
        looks_read_only: bool,
    ) -> Result<Arc<E::Plan>, SqlError> {
        self.ensure_transaction(if looks_read_only { Access::ReadOnly } else { Access::ReadWrite }).await?;
        self.begin_statement().await?;
        let txn = self.txn.as_mut().ok_or_else(no_transaction)?;
        let planned = self.parts.executor.plan(txn, &self.context, statement, param_types);
        self.context.interrupts.guard(&self.parts.env, self.deadline, planned).await?
    }

    /// Locks what a plan needs; gives a new plan when the catalog has overtaken it.
    pub(super) async fn lock(
        &mut self,
        mut plan: Arc<E::Plan>,
        statement: &sqlparser::ast::Statement,
        param_types: &[u32],
    ) -> Result<Arc<E::Plan>, SqlError> {
        for _ in 0..REPLAN_COUNT_MAX {
            let shape = self.parts.executor.shape(&plan);
            let is_read_only = shape.is_read_only;
            let name = shape.name;
            self.ensure_transaction(if is_read_only { Access::ReadOnly } else { Access::ReadWrite }).await?;
            if !is_read_only && self.access == Access::ReadOnly {
                return Err(SqlError::new(
                    SqlState::READ_ONLY_SQL_TRANSACTION,
                    format!("cannot execute {name} in a read-only transaction"),
                ));
            }
            self.begin_statement().await?;
            let txn = self.txn.as_mut().ok_or_else(no_transaction)?;
            let is_good = {
                let locked = pin!(self.parts.executor.lock(txn, &self.context, &plan));
                self.context.interrupts.guard(&self.parts.env, self.deadline, locked).await??
            };
            if is_good {
                return Ok(plan);
            }
            self.is_fresh = false;
            plan = self.plan(statement, param_types, is_read_only).await?;
        }
        Err(SqlError::new(SqlState::SERIALIZATION_FAILURE, "the schema keeps changing under the statement"))
    }

    /// Runs a plan; gives the cursor back when it stopped at `max_rows`.
    pub(super) async fn run_plan<S: ResponseSink>(
        &mut self,
        plan: &Arc<E::Plan>,
        mut cursor: E::Cursor,
        formats: &ResultFormats,
        caller: CopyCaller,
        max_rows: u32,
        sink: &mut S,
    ) -> Result<Option<E::Cursor>, Fault> {
        let dialogue = self.parts.executor.shape(plan).dialogue;
        match dialogue {
            Dialogue::CopyIn(columns, format) => {
                let txn = self.txn.as_mut().ok_or_else(no_transaction)?;
                self.is_fresh = false;
                let copy = self.parts.executor.copy_begin(txn, &self.context, plan);
                let copy = self.context.interrupts.guard(&self.parts.env, self.deadline, copy).await??;
                let is_last = caller == CopyCaller::Query && self.is_last();
                self.copy = Some(ActiveCopy { copy, caller, is_last });
                response::copy_response(sink.buffer(), response::CopyDirection::In, columns, format);
                return Ok(None);
            }
            Dialogue::CopyOut(columns, format) => {
                response::copy_response(sink.buffer(), response::CopyDirection::Out, columns, format);
            }
            Dialogue::Rows => {}
        }
        if !self.drive(&mut cursor, formats, max_rows, sink).await?.is_done {
            response::mark(sink.buffer(), Mark::PortalSuspended);
            return Ok(Some(cursor));
        }
        if matches!(dialogue, Dialogue::CopyOut(..)) {
            response::mark(sink.buffer(), Mark::CopyDone);
        }
        let mut tag = BytesMut::new();
        if caller == CopyCaller::Query && self.is_last() {
            self.parts.executor.complete(&cursor, &mut tag);
            self.commit_implicit(&tag, sink).await?;
            sink.buffer().extend_from_slice(&tag);
        } else {
            self.parts.executor.complete(&cursor, sink.buffer());
        }
        Ok(None)
    }

    /// Fetches until the cursor is done or has given `max_rows` (0: all). Answers how many rows it gave, and whether it
    /// is done.
    pub(super) async fn drive<S: ResponseSink>(
        &mut self,
        cursor: &mut E::Cursor,
        formats: &ResultFormats,
        max_rows: u32,
        sink: &mut S,
    ) -> Result<Fetched, Fault> {
        let mut left = match max_rows {
            0 => usize::MAX,
            some => usize::try_from(some).unwrap_or(usize::MAX),
        };
        let mut rows = 0;
        self.is_fresh = false;
        loop {
            let start = sink.buffer().len();
            let txn = self.txn.as_mut().ok_or_else(no_transaction)?;
            let fetched = {
                // Pinned here: handed on by value, its state would be copied.
                let out = sink.buffer();
                let fetched = pin!(self.parts.executor.fetch(txn, &self.context, cursor, left, formats, out));
                self.context.interrupts.guard(&self.parts.env, self.deadline, fetched).await??
            };
            self.apply_changes()?;
            self.tell_notices(sink.buffer());
            rows += fetched.rows;
            // That there is no row is an answer too.
            let tells_of_none = rows == 0 && fetched.is_done && !self.parts.executor.has_changed(cursor);
            if self.access == Access::ReadWrite && (fetched.rows > 0 || tells_of_none) {
                self.unsettled.get_or_insert(start);
            }
            if fetched.is_done {
                return Ok(Fetched { rows, is_done: true });
            }
            if left != usize::MAX {
                left = left.saturating_sub(fetched.rows);
                if left == 0 {
                    return Ok(Fetched { rows, is_done: false });
                }
            }
            self.context.interrupts.check()?;
            Interrupts::check_deadline(&self.parts.env, self.deadline)?;
            if sink.buffer().len() >= OUTPUT_SIZE_HIGH {
                self.flush(sink).await?;
            } else {
                // A statement that reads much and returns little lets others run between its batches.
                self.parts.env.yield_now().await;
            }
        }
    }

    pub(super) async fn flush<S: ResponseSink>(&mut self, sink: &mut S) -> Result<(), Fault> {
        self.settle(sink).await?;
        sink.flush().await?;
        Ok(())
    }
}
