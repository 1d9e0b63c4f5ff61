//! The transaction of a session: implicit, or a block between BEGIN and COMMIT.
//!
//! ```text
//!   Idle --BEGIN--> InBlock --error--> Failed --ROLLBACK--> Idle
//!    |  ^              |                                     ^
//!    |  '----COMMIT----'-------------------------------------'
//!    '-- implicit transaction: from the first message that needs one to Sync, or to the end of a Query
//! ```
//!
//! Rules that protect what a client sees:
//! - rows that a read-write transaction returns, and that there are none, leave the buffer only after
//!   [`settle_reads`](rustydb_txn::Transaction::settle_reads), because the transaction may have read commits that are
//!   still in flight; when that fails they are taken back;
//! - an error that may come of what was read is told only then, too: that a key is there already, say;
//! - CommandComplete of COMMIT, and ReadyForQuery after an implicit commit, are written when the commit stands;
//! - a commit whose fate is unknown is asked for until it is known or its deadline passes (08007).

use std::pin::pin;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use rustydb_txn::{Access, SavepointId, TxnError, TxnOptions};
use rustydb_types::ids::{RequestId, Version};

use super::core::Session;
use super::executor::Executor;
use super::failure::{Fault, needs_block, resolve, store_error};
use super::response::{self, TransactionStatus};
use super::sink::ResponseSink;
use super::statement::{Chain, Isolation, Modes};
use super::token::TransactionToken;
use crate::error::{Severity, SqlError, SqlState};

/// The transaction of a session.
pub(super) struct Block {
    pub(super) status: TransactionStatus,
    pub(super) modes: Modes,
    pub(super) savepoints: Vec<(String, SavepointId)>,
}

impl<E: Executor> Session<E> {
    /// Begins a transaction, or makes a read-only implicit one read-write.
    pub(super) async fn ensure_transaction(&mut self, needed: Access) -> Result<(), SqlError> {
        let in_block = self.block.status != TransactionStatus::Idle;
        if self.txn.is_some() && (in_block || self.access == Access::ReadWrite || needed == Access::ReadOnly)
        {
            return Ok(());
        }
        self.txn = None;
        let settings = self.context.settings.derived();
        let modes = self.block.modes;
        let is_read_only = modes.read_only.unwrap_or(settings.default_read_only);
        let isolation = modes.isolation.unwrap_or(settings.default_isolation);
        let access = match (is_read_only, in_block) {
            (true, _) => Access::ReadOnly,
            (false, true) => Access::ReadWrite,
            (false, false) => needed,
        };
        if access == Access::ReadWrite {
            self.counter += 1;
        }
        let request = RequestId {
            incarnation: self.parts.key.incarnation,
            session: self.parts.key.session,
            counter: self.counter,
        };
        let options = TxnOptions {
            isolation: match isolation {
                Isolation::ReadCommitted => rustydb_txn::Isolation::ReadCommitted,
                Isolation::RepeatableRead => rustydb_txn::Isolation::RepeatableRead,
                Isolation::Serializable => rustydb_txn::Isolation::Serializable,
            },
            access,
            request,
        };
        let begun = pin!(self.parts.store.begin(options));
        let begun = self.context.interrupts.guard(&self.parts.env, self.deadline, begun);
        let mut txn = begun.await?.map_err(store_error)?;
        let is_other = self.bound.is_some_and(|bound| txn.term() != bound);
        if is_other && access == Access::ReadWrite {
            return Err(store_error(TxnError::Fallen { reason: "the leader changed" }));
        }
        txn.began_by(self.since);
        if self.context.temporary.is_there() {
            txn.mark();
        }
        txn.begin_first_statement();
        self.context.advisory.get_mut().begin_transaction(txn.id())?;
        self.context.activity.open(txn.id(), self.context.transaction_time);
        let (database, since) = (self.parts.database, txn.snapshot());
        self.context.token =
            (access == Access::ReadWrite).then_some(TransactionToken { database, request, since });
        self.context.is_token_given.store(false, Ordering::Relaxed);
        self.txn = Some(txn);
        self.access = access;
        self.is_fresh = true;
        Ok(())
    }

    /// Begins a statement, unless one has begun in which nothing ran.
    pub(super) async fn begin_statement(&mut self) -> Result<(), SqlError> {
        if !self.is_fresh {
            if !self.portals.is_empty() || self.unnamed_portal.is_some() {
                self.keep_portals().await?;
            }
            if let Some(txn) = &mut self.txn {
                txn.begin_statement();
            }
        }
        self.is_fresh = true;
        Ok(())
    }

    pub(super) fn refuse_in_failed_block(&self) -> Result<(), SqlError> {
        if self.block.status == TransactionStatus::Failed {
            return Err(SqlError::new(
                SqlState::IN_FAILED_SQL_TRANSACTION,
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        Ok(())
    }

    /// Makes sure that what is in the buffer may be shown.
    pub(super) async fn settle<S: ResponseSink>(&mut self, sink: &mut S) -> Result<(), Fault> {
        let Some(start) = self.unsettled.take() else { return Ok(()) };
        let settled = self.settle_reads().await;
        if settled.is_err() {
            sink.buffer().truncate(start);
        }
        Ok(settled?)
    }

    /// Waits until all that the transaction has read is certain.
    pub(super) async fn settle_reads(&mut self) -> Result<(), SqlError> {
        let Some(txn) = &mut self.txn else { return Ok(()) };
        let settled = self.context.interrupts.guard(&self.parts.env, self.deadline, txn.settle_reads()).await;
        settled?.map_err(store_error)
    }

    /// Commits the implicit transaction, if there is one. `rest` is what the client will be told last if it stands.
    pub(super) async fn commit_implicit<S: ResponseSink>(
        &mut self,
        rest: &[u8],
        sink: &mut S,
    ) -> Result<(), Fault> {
        let result = self.commit(rest, TransactionStatus::Idle, sink).await;
        self.end_block();
        result
    }

    /// Commits what is open. The block is still to be ended by the caller, which has the session at `status` then.
    pub(super) async fn commit<S: ResponseSink>(
        &mut self,
        rest: &[u8],
        status: TransactionStatus,
        sink: &mut S,
    ) -> Result<(), Fault> {
        self.check_deferred().await?;
        self.hold_cursors().await?;
        self.end_temporary().await?;
        let Some(mut txn) = self.txn.take() else {
            self.context.settings.commit();
            self.context.notify.get_mut().commit();
            return Ok(());
        };
        let request = txn.options().request;
        if let Some(notifications) = self.context.notify.get_mut().attachment(self.context.activity.pid()) {
            txn.attach(notifications);
            txn.keep_outcome();
        }
        if self.access == Access::ReadWrite {
            if self.context.is_token_given.load(Ordering::Relaxed) {
                txn.keep_outcome();
            }
            // What follows a commit in the same message could not be answered for.
            if txn.has_outcome() && self.pending.is_empty() {
                let mut rest = BytesMut::from(rest);
                let changes = self.changes_to_come(&mut rest);
                response::ready_for_query(&mut rest, status);
                sink.before_commit(request, status, &rest, changes).await?;
            }
            // No cancel and no timeout from here on: the answer must be the truth.
            let committed = match txn.commit().await {
                Ok(_) => Ok(()),
                Err(TxnError::UnknownOutcome) => {
                    let token = self.context.token;
                    let since = token.map_or(Version::ZERO, |token| token.since);
                    let named = token.map(|token| self.context.token_key.text(&token));
                    resolve((self.parts.resolver)(request, since), named.as_deref(), request).await
                }
                Err(error) => Err(store_error(error)),
            };
            if let Err(error) = committed {
                if let Some(start) = self.unsettled.take() {
                    sink.buffer().truncate(start);
                }
                self.context.settings.roll_back();
                self.end_holds();
                return Err(error.into());
            }
            self.is_whole = false;
        }
        self.unsettled = None;
        self.context.settings.commit();
        self.context.notify.get_mut().commit();
        self.confirm_holds();
        Ok(())
    }

    /// Asks what was put off to the end of the transaction.
    async fn check_deferred(&mut self) -> Result<(), SqlError> {
        let Some(txn) = &mut self.txn else { return Ok(()) };
        let checked = pin!(self.parts.executor.check_deferred(txn, &self.context));
        self.context.interrupts.guard(&self.parts.env, self.deadline, checked).await?
    }

    async fn end_temporary(&mut self) -> Result<(), SqlError> {
        if self.access != Access::ReadWrite || !self.context.temporary.is_there() {
            return Ok(());
        }
        let Some(txn) = &mut self.txn else { return Ok(()) };
        let ended = pin!(self.parts.executor.end_temporary(txn, &self.context));
        self.context.interrupts.guard(&self.parts.env, self.deadline, ended).await?
    }

    /// DISCARD TEMP.
    pub(super) async fn discard_temporary(&mut self) -> Result<(), SqlError> {
        if !self.context.temporary.is_there() {
            return Ok(());
        }
        self.ensure_transaction(Access::ReadWrite).await?;
        self.begin_statement().await?;
        self.is_fresh = false;
        let Some(txn) = &mut self.txn else { return Ok(()) };
        let discarded = pin!(self.parts.executor.discard_temporary(txn, &self.context));
        self.context.interrupts.guard(&self.parts.env, self.deadline, discarded).await?
    }

    /// The transaction has failed.
    pub(super) fn fail<S: ResponseSink>(&mut self, sink: &mut S) {
        if let Some(start) = self.unsettled.take() {
            sink.buffer().truncate(start);
        }
        self.copy = None;
        self.context.changes.get_mut().clear();
        self.context.notices.get_mut().clear();
        match self.block.status {
            TransactionStatus::Idle => self.forget_transaction(),
            TransactionStatus::Failed => {}
            TransactionStatus::InBlock => {
                self.block.status = TransactionStatus::Failed;
                let kept = match (self.block.savepoints.last(), &mut self.txn) {
                    (Some((_, savepoint)), Some(txn)) => txn.rollback_to(*savepoint).is_ok(),
                    _ => false,
                };
                if !kept {
                    // Nothing can be gone back to: the locks need not wait for the client's ROLLBACK.
                    self.txn = None;
                    self.context.advisory.get_mut().end_transaction();
                }
            }
        }
    }

    /// Rolls back whatever is open.
    fn forget_transaction(&mut self) {
        self.txn = None;
        self.context.settings.roll_back();
        self.end_block();
    }

    fn end_block(&mut self) {
        self.block.status = TransactionStatus::Idle;
        self.block.modes = Modes::default();
        self.block.savepoints.clear();
        self.context.deferred.get_mut().clear();
        self.context.advisory.get_mut().end_transaction();
        self.context.notify.get_mut().roll_back();
        self.unsettled = None;
        self.close_portals();
    }

    /// BEGIN.
    pub(super) fn begin_block(&mut self, modes: Modes) -> Result<(), SqlError> {
        if self.access == Access::ReadOnly && modes.read_only != Some(true) {
            // An implicit transaction that only read so far must not make the block read-only.
            self.txn = None;
        }
        self.block.status = TransactionStatus::InBlock;
        self.block.modes = Modes::default();
        self.context.transaction_time = self.context.statement_time;
        self.set_modes(modes)
    }

    /// SET TRANSACTION.
    pub(super) fn set_modes(&mut self, modes: Modes) -> Result<(), SqlError> {
        if let Some(isolation) = modes.isolation {
            if self.txn.is_some() && self.block.modes.isolation != Some(isolation) {
                return Err(SqlError::new(
                    SqlState::ACTIVE_SQL_TRANSACTION,
                    "SET TRANSACTION ISOLATION LEVEL must be called before any query",
                ));
            }
            self.block.modes.isolation = Some(isolation);
        }
        if let Some(read_only) = modes.read_only {
            if self.txn.is_some() && !read_only && self.access == Access::ReadOnly {
                return Err(SqlError::new(
                    SqlState::ACTIVE_SQL_TRANSACTION,
                    "transaction read-write mode must be set before any query",
                ));
            }
            self.block.modes.read_only = Some(read_only);
        }
        if modes.deferrable.is_some() {
            self.block.modes.deferrable = modes.deferrable;
        }
        Ok(())
    }

    /// COMMIT. Writes its tag.
    pub(super) async fn commit_block<S: ResponseSink>(
        &mut self,
        chain: Chain,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let modes = self.block.modes;
        match self.block.status {
            TransactionStatus::Idle if chain == Chain::Chain => {
                return Err(needs_block("COMMIT AND CHAIN").into());
            }
            TransactionStatus::Idle => {
                no_transaction_warning(sink.buffer());
                self.commit_implicit(&tag_bytes("COMMIT"), sink).await?;
                response::command_complete(sink.buffer(), "COMMIT");
            }
            TransactionStatus::InBlock => {
                let status = match chain {
                    Chain::Chain => TransactionStatus::InBlock,
                    Chain::NoChain => TransactionStatus::Idle,
                };
                let committed = self.commit(&tag_bytes("COMMIT"), status, sink).await;
                self.end_block();
                committed?;
                response::command_complete(sink.buffer(), "COMMIT");
            }
            TransactionStatus::Failed => {
                self.forget_transaction();
                response::command_complete(sink.buffer(), "ROLLBACK");
            }
        }
        if chain == Chain::Chain {
            self.begin_block(modes)?;
        }
        Ok(())
    }

    /// ROLLBACK. Writes its tag.
    pub(super) fn roll_back_block<S: ResponseSink>(
        &mut self,
        chain: Chain,
        sink: &mut S,
    ) -> Result<(), SqlError> {
        let modes = self.block.modes;
        if self.block.status == TransactionStatus::Idle {
            if chain == Chain::Chain {
                return Err(needs_block("ROLLBACK AND CHAIN"));
            }
            no_transaction_warning(sink.buffer());
        }
        if let Some(start) = self.unsettled.take() {
            // The client need not be told what never was; but a row of a statement that succeeded before must be
            // answered. Such rows are settled before this is reached, see run_utility.
            sink.buffer().truncate(start);
        }
        self.forget_transaction();
        response::command_complete(sink.buffer(), "ROLLBACK");
        if chain == Chain::Chain {
            self.begin_block(modes)?;
        }
        Ok(())
    }
}

pub(super) fn tag_bytes(tag: &str) -> BytesMut {
    let mut out = BytesMut::new();
    response::command_complete(&mut out, tag);
    out
}

fn no_transaction_warning(out: &mut BytesMut) {
    let warning = SqlError::new(SqlState::NO_ACTIVE_SQL_TRANSACTION, "there is no transaction in progress");
    response::sql_notice(out, &warning.with_severity(Severity::Warning));
}
