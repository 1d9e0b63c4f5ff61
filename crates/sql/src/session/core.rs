//! The session: a state machine over requests, transactions and portals.
//!
//! ```text
//!   Idle --BEGIN--> InBlock --error--> Failed --ROLLBACK--> Idle
//!    |  ^              |                                     ^
//!    |  '----COMMIT----'-------------------------------------'
//!    '-- implicit transaction: from the first message that needs one to Sync, or to the end of a Query
//! ```
//!
//! Rules that protect what a client sees:
//! - rows that a read-write transaction returns leave the buffer only after [`Transaction::settle_reads`], because the
//!   transaction may have read commits that are still in flight; when that fails they are taken back;
//! - CommandComplete of COMMIT, and ReadyForQuery after an implicit commit, are written when the commit stands;
//! - a commit whose fate is unknown is asked for until it is known or its deadline passes (08007).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::future::BoxFuture;
use rustydb_env::{Env, Instant};
use rustydb_txn::{Access, KvStore, LockWait, SavepointId, Transaction, TxnError, TxnOptions};
use rustydb_types::ids::{DatabaseId, RequestId};

use super::executor::{Context, Executor, ResultFormats};
use super::interrupt::{Deadline, Interrupts};
use super::request::{Bind, Request, Target};
use super::response::{self, Mark, TransactionStatus};
use super::settings::Scope;
use super::sink::{OUTPUT_SIZE_HIGH, ResponseSink, SinkClosed};
use super::statement::{Chain, Isolation, Modes, Statement};
use crate::error::{Severity, SqlError, SqlState};
use crate::gateway::ClusterPort;
use crate::gateway::frame::{PreparedText, SessionContext, StateChanges};
use crate::gateway::peer::SessionKey;

/// Most named prepared statements of a session; one more is refused with 53400.
pub const PREPARED_COUNT_MAX: usize = 10_000;

/// Most open portals of a session; one more is refused with 53400.
pub const PORTAL_COUNT_MAX: usize = 1_000;

/// How often a plan that the catalog has overtaken is made anew before the statement gives up.
const REPLAN_COUNT_MAX: usize = 10;

/// Microseconds from the Unix epoch to 2000-01-01.
const POSTGRES_EPOCH_UNIX_MICROS: i64 = 946_684_800_000_000;

/// Finds out what became of a commit, at whatever node leads now; `None` when that cannot be learnt in time.
pub type OutcomeResolver = Arc<dyn Fn(RequestId) -> BoxFuture<'static, Option<bool>> + Send + Sync>;

/// Why a session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The client said goodbye.
    Goodbye,
    /// The client is gone.
    Closed,
    /// With an error that the client is still to be told.
    Fatal(SqlError),
}

impl From<SinkClosed> for SessionEnd {
    fn from(_: SinkClosed) -> Self {
        Self::Closed
    }
}

/// Why a request was not carried out.
pub(super) enum Fault {
    /// The client is told.
    Sql(SqlError),
    /// Nobody is left to be told.
    Closed,
}

impl From<SqlError> for Fault {
    fn from(error: SqlError) -> Self {
        Self::Sql(error)
    }
}

impl From<SinkClosed> for Fault {
    fn from(_: SinkClosed) -> Self {
        Self::Closed
    }
}

/// A prepared statement.
pub(super) struct Prepared<E: Executor> {
    /// `None` is the empty statement.
    pub(super) statement: Option<Arc<Statement>>,
    /// Types given for its parameters.
    pub(super) param_types: Vec<u32>,
    /// The plan, for what the executor runs.
    pub(super) plan: Option<Arc<E::Plan>>,
}

/// What a portal runs.
enum PortalBody<E: Executor> {
    Empty,
    Run { plan: Arc<E::Plan>, cursor: E::Cursor },
    Utility(Arc<Statement>),
    Done,
}

struct Portal<E: Executor> {
    body: PortalBody<E>,
    formats: ResultFormats,
}

/// Who runs the rest of what the client asked for when a COPY that takes data is over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CopyCaller {
    Query,
    Execute,
}

struct ActiveCopy<E: Executor> {
    copy: E::CopyIn,
    caller: CopyCaller,
    /// Whether a tag ends it that waits for the commit: the last statement of a Query outside a block.
    is_last: bool,
}

/// The transaction of a session.
pub(super) struct Block {
    pub(super) status: TransactionStatus,
    pub(super) modes: Modes,
    pub(super) savepoints: Vec<(String, SavepointId)>,
}

/// What a session is made of.
pub struct SessionParts<E: Executor> {
    /// Clock and timers.
    pub env: Env,
    /// The cluster.
    pub cluster: Arc<dyn ClusterPort>,
    /// Plans and runs.
    pub executor: Arc<E>,
    /// The store of the database.
    pub store: KvStore,
    /// Which database that is.
    pub database: DatabaseId,
    /// Names the session's commits.
    pub key: SessionKey,
    /// Finds out what became of commits in doubt.
    pub resolver: OutcomeResolver,
    /// Cancel requests.
    pub interrupts: Arc<Interrupts>,
}

/// A session at the node that leads its database.
pub struct Session<E: Executor> {
    pub(super) parts: SessionParts<E>,
    pub(super) context: Context,
    pub(super) block: Block,
    pub(super) txn: Option<Transaction>,
    access: Access,
    /// Whether a statement of the transaction has begun and nothing ran in it yet.
    is_fresh: bool,
    pub(super) prepared: BTreeMap<String, Prepared<E>>,
    unnamed: Option<Prepared<E>>,
    portals: BTreeMap<String, Portal<E>>,
    unnamed_portal: Option<Portal<E>>,
    copy: Option<ActiveCopy<E>>,
    /// An extended message failed: everything up to Sync is skipped.
    is_skipping: bool,
    /// Statements of a Query that are still to run, and whether there were several.
    pending: VecDeque<Statement>,
    is_multiple: bool,
    /// Where in the buffer the rows begin that may not be shown yet.
    unsettled: Option<usize>,
    counter: u64,
    pub(super) changes: StateChanges,
    /// Whether a request has come since the last ReadyForQuery.
    is_busy: bool,
    deadline: Option<Deadline>,
    reported_version: u64,
    /// The values that the client was told last, in the order of the definitions.
    reported: Vec<String>,
}

/// Translates what the store says.
pub(super) fn store_error(error: TxnError) -> SqlError {
    let message = error.to_string();
    let retry = "The transaction might succeed if retried.";
    match error {
        TxnError::NotLeader { .. } => SqlError::new(
            SqlState::SERIALIZATION_FAILURE,
            "the transaction ended because the leader of the database changed",
        )
        .with_hint(retry),
        TxnError::Serialization { reason } => SqlError::new(
            SqlState::SERIALIZATION_FAILURE,
            "could not serialize access due to concurrent update",
        )
        .with_detail(reason)
        .with_hint(retry),
        TxnError::Deadlock => SqlError::new(SqlState::DEADLOCK_DETECTED, message).with_hint(retry),
        TxnError::LockTimeout => {
            SqlError::new(SqlState::LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout")
        }
        TxnError::LockNotAvailable => SqlError::new(SqlState::LOCK_NOT_AVAILABLE, message),
        TxnError::SnapshotTooOld => SqlError::new(SqlState::SNAPSHOT_TOO_OLD, message),
        TxnError::UnknownOutcome => SqlError::new(SqlState::TRANSACTION_RESOLUTION_UNKNOWN, message),
        TxnError::Overloaded { .. } => SqlError::new(SqlState::INSUFFICIENT_RESOURCES, message)
            .with_hint("Try again when the cluster has caught up."),
        TxnError::DiskFull => SqlError::new(SqlState::DISK_FULL, message),
        TxnError::ReadOnly => SqlError::new(SqlState::READ_ONLY_SQL_TRANSACTION, message),
        TxnError::TooLarge { .. } => SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message),
        TxnError::NoSuchSavepoint => SqlError::new(SqlState::INVALID_SAVEPOINT_SPECIFICATION, message),
        TxnError::Stopped => SqlError::new(SqlState::ADMIN_SHUTDOWN, message),
        _ => SqlError::new(SqlState::IO_ERROR, message),
    }
}

impl<E: Executor> Session<E> {
    /// Makes a session, new or as it was elsewhere.
    ///
    /// # Errors
    /// When a setting or a prepared statement of the context is refused; 3D000 and the like are the caller's.
    pub fn new(parts: SessionParts<E>, from: &SessionContext) -> Result<Self, SqlError> {
        let is_superuser = parts.cluster.system().role_named(&from.user).is_some_and(|role| role.superuser);
        let settings = super::settings::Settings::of_session(&from.user, is_superuser, &from.settings)?;
        let context = Context {
            user: from.user.clone(),
            database: from.database.clone(),
            client_address: from.client_address.clone(),
            settings,
            interrupts: Arc::clone(&parts.interrupts),
            transaction_time: 0,
            statement_time: 0,
            lock_wait: LockWait::Forever,
        };
        let mut prepared = BTreeMap::new();
        let mut unnamed = None;
        for text in &from.prepared {
            let statement = super::statement::parse(&text.sql)?.into_iter().next().map(Arc::new);
            let entry = Prepared { statement, param_types: text.param_types.clone(), plan: None };
            if text.name.is_empty() {
                unnamed = Some(entry);
            } else {
                prepared.insert(text.name.clone(), entry);
            }
        }
        let status = if from.is_failed { TransactionStatus::Failed } else { TransactionStatus::Idle };
        Ok(Self {
            reported_version: context.settings.version(),
            reported: context.settings.reported().map(|(_, value)| value.to_owned()).collect(),
            parts,
            context,
            block: Block { status, modes: Modes::default(), savepoints: Vec::new() },
            txn: None,
            access: Access::ReadOnly,
            is_fresh: false,
            prepared,
            unnamed,
            portals: BTreeMap::new(),
            unnamed_portal: None,
            copy: None,
            is_skipping: false,
            pending: VecDeque::new(),
            is_multiple: false,
            unsettled: None,
            counter: from.counter,
            changes: StateChanges::default(),
            is_busy: false,
            deadline: None,
        })
    }

    /// Where the session is with its transaction.
    #[must_use]
    pub fn status(&self) -> TransactionStatus {
        self.block.status
    }

    /// Whether the session is between requests and outside a transaction: it can be moved.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.is_busy && self.block.status == TransactionStatus::Idle
    }

    /// How many request ids were used.
    #[must_use]
    pub fn counter(&self) -> u64 {
        self.counter
    }

    /// Through which others stop what the session does.
    #[must_use]
    pub fn interrupts(&self) -> &Arc<Interrupts> {
        &self.parts.interrupts
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &super::settings::Settings {
        &self.context.settings
    }

    /// What changed since the last call of what outlives the session's place.
    pub fn take_changes(&mut self) -> StateChanges {
        std::mem::take(&mut self.changes)
    }

    /// Appends the ParameterStatus messages that begin a session.
    pub fn write_greeting(&self, out: &mut BytesMut) {
        for (name, value) in self.context.settings.reported() {
            response::parameter_status(out, name, value);
        }
    }

    /// Carries out one message. Answers are appended to the sink's buffer; what the caller sends when, beyond what
    /// the session sends by itself, is the caller's.
    ///
    /// # Errors
    /// Why the session ends.
    ///
    /// # Cancellation
    /// Dropping the future ends the session: the transaction is rolled back, unless its commit was under way.
    pub async fn message<S: ResponseSink>(
        &mut self,
        tag: u8,
        body: &[u8],
        sink: &mut S,
    ) -> Result<(), SessionEnd> {
        if self.is_skipping && !matches!(tag, b'S' | b'X') {
            return Ok(());
        }
        let request = match Request::decode(tag, body) {
            Ok(request) => request,
            Err(error) => {
                let state = SqlState::from_code(error.sqlstate());
                let sql = SqlError::new(state, error.to_string());
                if !error.is_recoverable() {
                    return Err(SessionEnd::Fatal(sql.with_severity(Severity::Fatal)));
                }
                return self.answer_failure(tag == b'Q', sql, sink).await;
            }
        };
        self.begin_request();
        if self.copy.is_some() {
            return self.copy_message(request, sink).await;
        }
        let result = match request {
            Request::Query { sql } => return self.query(sql, sink).await,
            Request::Parse { name, sql, param_types } => {
                let types: Vec<u32> = param_types.iter().collect();
                self.parse(name, sql, types, sink).await
            }
            Request::Bind(bind) => self.bind(&bind, sink).await,
            Request::Describe { target, name } => self.describe(target, name, sink).await,
            Request::Execute { portal, max_rows } => self.execute(portal, max_rows, sink).await,
            Request::Close { target, name } => {
                self.close(target, name);
                response::mark(sink.buffer(), Mark::CloseComplete);
                Ok(())
            }
            Request::Flush => self.flush(sink).await,
            Request::Sync => return self.sync(sink).await,
            // A client may still be sending the data of a COPY that has failed.
            Request::CopyData(_) | Request::CopyDone | Request::CopyFail { .. } => Ok(()),
            Request::FunctionCall => {
                let error = SqlError::not_supported("function calls by number are not supported");
                return self.answer_failure(true, error, sink).await;
            }
            Request::Terminate => return Err(SessionEnd::Goodbye),
        };
        match result {
            Ok(()) => Ok(()),
            Err(Fault::Closed) => Err(SessionEnd::Closed),
            Err(Fault::Sql(error)) => self.answer_failure(false, error, sink).await,
        }
    }

    /// Notes the time and arms the statement timeout at the first message after ReadyForQuery.
    fn begin_request(&mut self) {
        if self.is_busy {
            return;
        }
        self.is_busy = true;
        self.context.interrupts.forget_cancel();
        let now = self.parts.env.wall_now().unix_micros().saturating_sub(POSTGRES_EPOCH_UNIX_MICROS);
        self.context.statement_time = now;
        if self.txn.is_none() && self.block.status == TransactionStatus::Idle {
            self.context.transaction_time = now;
        }
        let settings = &self.context.settings;
        self.context.lock_wait = settings.timeout("lock_timeout").map_or(LockWait::Forever, LockWait::For);
        self.deadline = settings
            .timeout("statement_timeout")
            .map(|timeout| Deadline { at: self.parts.env.now() + timeout });
    }

    /// Answers ReadyForQuery, after what the client may be told of settings.
    fn ready<S: ResponseSink>(&mut self, sink: &mut S) {
        self.is_busy = false;
        self.is_multiple = false;
        self.deadline = None;
        if self.reported_version != self.context.settings.version() {
            self.report_settings(sink.buffer());
        }
        response::ready_for_query(sink.buffer(), self.block.status);
    }

    fn report_settings(&mut self, out: &mut BytesMut) {
        self.reported_version = self.context.settings.version();
        for ((name, value), known) in self.context.settings.reported().zip(&mut self.reported) {
            if known != value {
                response::parameter_status(out, name, value);
                value.clone_into(known);
            }
        }
        self.changes.settings = self
            .context
            .settings
            .exported()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
    }

    /// Tells the client of an error, and ends what it ends: a Query, or everything up to Sync.
    async fn answer_failure<S: ResponseSink>(
        &mut self,
        is_query: bool,
        error: SqlError,
        sink: &mut S,
    ) -> Result<(), SessionEnd> {
        self.begin_request();
        self.fail(sink);
        if matches!(error.fields().severity, Severity::Fatal | Severity::Panic) {
            return Err(SessionEnd::Fatal(error));
        }
        response::sql_error(sink.buffer(), &error);
        if is_query {
            self.pending.clear();
            self.close_portals();
            self.ready(sink);
        } else {
            self.is_skipping = true;
        }
        Ok(())
    }

    /// The transaction has failed.
    fn fail<S: ResponseSink>(&mut self, sink: &mut S) {
        if let Some(start) = self.unsettled.take() {
            sink.buffer().truncate(start);
        }
        self.copy = None;
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
        self.unsettled = None;
        self.close_portals();
    }

    fn close_portals(&mut self) {
        self.portals.clear();
        self.unnamed_portal = None;
    }

    /// Begins a transaction, or makes a read-only implicit one read-write.
    pub(super) async fn ensure_transaction(&mut self, needed: Access) -> Result<(), SqlError> {
        let in_block = self.block.status != TransactionStatus::Idle;
        if self.txn.is_some() && (in_block || self.access == Access::ReadWrite || needed == Access::ReadOnly)
        {
            return Ok(());
        }
        self.txn = None;
        let settings = &self.context.settings;
        let modes = self.block.modes;
        let is_read_only = modes.read_only.unwrap_or_else(|| settings.is_on("default_transaction_read_only"));
        let isolation = modes
            .isolation
            .unwrap_or_else(|| Isolation::from_name(settings.get("default_transaction_isolation")));
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
        let begun =
            self.context.interrupts.guard(&self.parts.env, self.deadline, self.parts.store.begin(options));
        self.txn = Some(begun.await?.map_err(store_error)?);
        self.access = access;
        self.is_fresh = true;
        Ok(())
    }

    /// Begins a statement, unless one has begun in which nothing ran.
    fn begin_statement(&mut self) {
        if !self.is_fresh
            && let Some(txn) = &mut self.txn
        {
            txn.begin_statement();
        }
        self.is_fresh = true;
    }

    fn refuse_in_failed_block(&self) -> Result<(), SqlError> {
        if self.block.status == TransactionStatus::Failed {
            return Err(SqlError::new(
                SqlState::IN_FAILED_SQL_TRANSACTION,
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        Ok(())
    }

    async fn plan(
        &mut self,
        statement: &sqlparser::ast::Statement,
        param_types: &[u32],
        looks_read_only: bool,
    ) -> Result<Arc<E::Plan>, SqlError> {
        self.ensure_transaction(if looks_read_only { Access::ReadOnly } else { Access::ReadWrite }).await?;
        self.begin_statement();
        let txn = self.txn.as_mut().ok_or_else(no_transaction)?;
        let planned = self.parts.executor.plan(txn, &self.context, statement, param_types);
        self.context.interrupts.guard(&self.parts.env, self.deadline, planned).await?
    }

    /// Locks what a plan needs; gives a new plan when the catalog has overtaken it.
    async fn lock(
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
            self.begin_statement();
            let txn = self.txn.as_mut().ok_or_else(no_transaction)?;
            let locked = self.parts.executor.lock(txn, &self.context, &plan);
            if self.context.interrupts.guard(&self.parts.env, self.deadline, locked).await?? {
                return Ok(plan);
            }
            self.is_fresh = false;
            plan = self.plan(statement, param_types, is_read_only).await?;
        }
        Err(SqlError::new(SqlState::SERIALIZATION_FAILURE, "the schema keeps changing under the statement"))
    }

    // ----- simple protocol

    async fn query<S: ResponseSink>(&mut self, sql: &str, sink: &mut S) -> Result<(), SessionEnd> {
        self.unnamed = None;
        self.unnamed_portal = None;
        self.is_multiple = false;
        let statements = match super::statement::parse(sql) {
            Ok(statements) => statements,
            Err(error) => return self.answer_failure(true, error, sink).await,
        };
        if statements.is_empty() {
            response::mark(sink.buffer(), Mark::EmptyQuery);
        }
        self.is_multiple = statements.len() > 1;
        self.pending = statements.into();
        self.run_pending(sink).await
    }

    /// Runs the statements of a Query, up to a COPY that takes data.
    async fn run_pending<S: ResponseSink>(&mut self, sink: &mut S) -> Result<(), SessionEnd> {
        while let Some(statement) = self.pending.pop_front() {
            match self.run_simple(&statement, sink).await {
                Ok(()) if self.copy.is_some() => return sink.flush().await.map_err(SessionEnd::from),
                Ok(()) => {}
                Err(Fault::Closed) => return Err(SessionEnd::Closed),
                Err(Fault::Sql(error)) => return self.answer_failure(true, error, sink).await,
            }
        }
        let ended = match self.block.status {
            TransactionStatus::Idle => self.commit_implicit(&[], sink).await,
            _ => self.settle(sink).await,
        };
        match ended {
            Ok(()) => {
                self.ready(sink);
                Ok(())
            }
            Err(Fault::Closed) => Err(SessionEnd::Closed),
            Err(Fault::Sql(error)) => self.answer_failure(true, error, sink).await,
        }
    }

    async fn run_simple<S: ResponseSink>(
        &mut self,
        statement: &Statement,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let Statement::Plan(ast) = statement else {
            return self.run_utility(statement, &ResultFormats::Text, false, sink).await;
        };
        self.refuse_in_failed_block()?;
        // One transaction for all statements of the message: if any writes, all run in a read-write one.
        let reads = statement.looks_read_only() && self.pending.iter().all(Statement::looks_read_only);
        let plan = self.plan(ast, &[], reads).await?;
        let plan = self.lock(plan, ast, &[]).await?;
        let shape = self.parts.executor.shape(&plan);
        if !shape.param_types.is_empty() {
            return Err(SqlError::new(SqlState::UNDEFINED_PARAMETER, "there is no parameter $1").into());
        }
        if !shape.columns.is_empty() && shape.dialogue == super::executor::Dialogue::Rows {
            write_row_description(sink.buffer(), shape, &ResultFormats::Text);
        }
        let cursor = self.parts.executor.open(&self.context, &plan, &Bind::EMPTY)?;
        self.run_plan(&plan, cursor, &ResultFormats::Text, CopyCaller::Query, 0, sink).await?;
        Ok(())
    }

    /// Whether the statement that runs is the last of a Query outside a block, so that its tag waits for the commit.
    fn is_last(&self) -> bool {
        self.pending.is_empty() && self.block.status == TransactionStatus::Idle
    }

    /// Runs a plan; gives the cursor back when it stopped at `max_rows`.
    async fn run_plan<S: ResponseSink>(
        &mut self,
        plan: &Arc<E::Plan>,
        mut cursor: E::Cursor,
        formats: &ResultFormats,
        caller: CopyCaller,
        max_rows: u32,
        sink: &mut S,
    ) -> Result<Option<E::Cursor>, Fault> {
        use super::executor::Dialogue;
        let dialogue = self.parts.executor.shape(plan).dialogue;
        match dialogue {
            Dialogue::CopyIn(columns) => {
                let txn = self.txn.as_mut().ok_or_else(no_transaction)?;
                self.is_fresh = false;
                let copy = self.parts.executor.copy_begin(txn, &self.context, plan);
                let copy = self.context.interrupts.guard(&self.parts.env, self.deadline, copy).await??;
                let is_last = caller == CopyCaller::Query && self.is_last();
                self.copy = Some(ActiveCopy { copy, caller, is_last });
                response::copy_response(sink.buffer(), response::CopyDirection::In, columns);
                return Ok(None);
            }
            Dialogue::CopyOut(columns) => {
                response::copy_response(sink.buffer(), response::CopyDirection::Out, columns);
            }
            Dialogue::Rows => {}
        }
        if !self.drive(&mut cursor, formats, max_rows, sink).await? {
            response::mark(sink.buffer(), Mark::PortalSuspended);
            return Ok(Some(cursor));
        }
        if matches!(dialogue, Dialogue::CopyOut(_)) {
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

    /// Fetches until the cursor is done or has given `max_rows` (0: all). Answers whether it is done.
    async fn drive<S: ResponseSink>(
        &mut self,
        cursor: &mut E::Cursor,
        formats: &ResultFormats,
        max_rows: u32,
        sink: &mut S,
    ) -> Result<bool, Fault> {
        let mut left = match max_rows {
            0 => usize::MAX,
            some => usize::try_from(some).unwrap_or(usize::MAX),
        };
        self.is_fresh = false;
        loop {
            let start = sink.buffer().len();
            let txn = self.txn.as_mut().ok_or_else(no_transaction)?;
            let fetched = self.parts.executor.fetch(txn, &self.context, cursor, left, formats, sink.buffer());
            let fetched = self.context.interrupts.guard(&self.parts.env, self.deadline, fetched).await??;
            if self.access == Access::ReadWrite && fetched.rows > 0 {
                self.unsettled.get_or_insert(start);
            }
            if fetched.is_done {
                return Ok(true);
            }
            if left != usize::MAX {
                left = left.saturating_sub(fetched.rows);
                if left == 0 {
                    return Ok(false);
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

    /// Makes sure that what is in the buffer may be shown.
    pub(super) async fn settle<S: ResponseSink>(&mut self, sink: &mut S) -> Result<(), Fault> {
        let Some(start) = self.unsettled.take() else { return Ok(()) };
        let Some(txn) = &mut self.txn else { return Ok(()) };
        let settled = self.context.interrupts.guard(&self.parts.env, self.deadline, txn.settle_reads()).await;
        if let Err(error) = settled.and_then(|settled| settled.map_err(store_error)) {
            sink.buffer().truncate(start);
            return Err(error.into());
        }
        Ok(())
    }

    async fn flush<S: ResponseSink>(&mut self, sink: &mut S) -> Result<(), Fault> {
        self.settle(sink).await?;
        sink.flush().await?;
        Ok(())
    }

    // ----- transactions

    /// Commits the implicit transaction, if there is one. `rest` is what the client will be told last if it stands.
    async fn commit_implicit<S: ResponseSink>(&mut self, rest: &[u8], sink: &mut S) -> Result<(), Fault> {
        let result = self.commit(rest, sink).await;
        self.end_block();
        result
    }

    /// Commits what is open. The block is still to be ended by the caller.
    pub(super) async fn commit<S: ResponseSink>(&mut self, rest: &[u8], sink: &mut S) -> Result<(), Fault> {
        let Some(txn) = self.txn.take() else {
            self.context.settings.commit();
            return Ok(());
        };
        let request = txn.options().request;
        if self.access == Access::ReadWrite {
            // What follows a commit in the same message could not be answered for.
            if txn.has_writes() && self.pending.is_empty() {
                let mut rest = BytesMut::from(rest);
                response::ready_for_query(&mut rest, TransactionStatus::Idle);
                sink.before_commit(request, &rest).await?;
            }
            // No cancel and no timeout from here on: the answer must be the truth.
            let committed = match txn.commit().await {
                Ok(_) => Ok(()),
                Err(TxnError::UnknownOutcome) => resolve((self.parts.resolver)(request), request).await,
                Err(error) => Err(store_error(error)),
            };
            if let Err(error) = committed {
                if let Some(start) = self.unsettled.take() {
                    sink.buffer().truncate(start);
                }
                self.context.settings.roll_back();
                return Err(error.into());
            }
        }
        self.unsettled = None;
        self.context.settings.commit();
        Ok(())
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
                let committed = self.commit(&tag_bytes("COMMIT"), sink).await;
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

    // ----- extended protocol

    async fn parse<S: ResponseSink>(
        &mut self,
        name: &str,
        sql: &str,
        param_types: Vec<u32>,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let mut statements = super::statement::parse(sql)?;
        if statements.len() > 1 {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "cannot insert multiple commands into a prepared statement",
            )
            .into());
        }
        let statement = statements.pop();
        if !statement.as_ref().is_none_or(Statement::ends_failure) {
            self.refuse_in_failed_block()?;
        }
        self.check_new_prepared(name)?;
        let mut plan = None;
        if let Some(statement) = &statement
            && let Statement::Plan(ast) = statement
        {
            plan = Some(self.plan(ast, &param_types, statement.looks_read_only()).await?);
        }
        self.add_prepared(name, sql, Prepared { statement: statement.map(Arc::new), param_types, plan });
        response::mark(sink.buffer(), Mark::ParseComplete);
        Ok(())
    }

    /// Refuses a name that is taken, or one too many.
    pub(super) fn check_new_prepared(&self, name: &str) -> Result<(), SqlError> {
        if name.is_empty() {
            return Ok(());
        }
        if self.prepared.contains_key(name) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_PREPARED_STATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        if self.prepared.len() >= PREPARED_COUNT_MAX {
            return Err(SqlError::new(
                SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                format!("a session holds at most {PREPARED_COUNT_MAX} prepared statements"),
            ));
        }
        Ok(())
    }

    pub(super) fn add_prepared(&mut self, name: &str, sql: &str, prepared: Prepared<E>) {
        if name.is_empty() {
            self.unnamed = Some(prepared);
            return;
        }
        self.changes.prepared.push(PreparedText {
            name: name.to_owned(),
            sql: sql.to_owned(),
            param_types: prepared.param_types.clone(),
        });
        self.prepared.insert(name.to_owned(), prepared);
    }

    /// DEALLOCATE, or Close of a statement.
    pub(super) fn remove_prepared(&mut self, name: &str) -> bool {
        if name.is_empty() {
            return self.unnamed.take().is_some();
        }
        let found = self.prepared.remove(name).is_some();
        if found {
            self.changes.prepared.retain(|prepared| prepared.name != name);
            self.changes.deallocated.push(name.to_owned());
        }
        found
    }

    fn prepared_named(&self, name: &str) -> Result<&Prepared<E>, SqlError> {
        let found = if name.is_empty() { self.unnamed.as_ref() } else { self.prepared.get(name) };
        found.ok_or_else(|| no_such_statement(name))
    }

    /// The plan of a prepared statement, locked and good; kept for the next time.
    pub(super) async fn plan_of(&mut self, name: &str) -> Result<Option<Arc<E::Plan>>, SqlError> {
        let prepared = self.prepared_named(name)?;
        let Some(statement) = prepared.statement.clone() else { return Ok(None) };
        let Statement::Plan(ast) = &*statement else { return Ok(None) };
        let known = prepared.plan.clone();
        let types: Vec<u32> = prepared.param_types.clone();
        let plan = match &known {
            Some(plan) => Arc::clone(plan),
            None => self.plan(ast, &types, statement.looks_read_only()).await?,
        };
        let plan = self.lock(plan, ast, &types).await?;
        if known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &plan)) {
            if let Some(known) = &known
                && !same_result(
                    &self.parts.executor.shape(known).columns,
                    &self.parts.executor.shape(&plan).columns,
                )
            {
                return Err(SqlError::not_supported("cached plan must not change result type"));
            }
            let kept = if name.is_empty() { self.unnamed.as_mut() } else { self.prepared.get_mut(name) };
            if let Some(prepared) = kept {
                prepared.plan = Some(Arc::clone(&plan));
            }
        }
        Ok(Some(plan))
    }

    async fn bind<S: ResponseSink>(&mut self, bind: &Bind<'_>, sink: &mut S) -> Result<(), Fault> {
        let prepared = self.prepared_named(bind.statement)?;
        let statement = prepared.statement.clone();
        if !statement.as_deref().is_none_or(Statement::ends_failure) {
            self.refuse_in_failed_block()?;
        }
        if !bind.portal.is_empty() {
            if self.portals.contains_key(bind.portal) {
                return Err(SqlError::new(
                    SqlState::DUPLICATE_CURSOR,
                    format!("portal \"{}\" already exists", bind.portal),
                )
                .into());
            }
            if self.portals.len() >= PORTAL_COUNT_MAX {
                return Err(SqlError::new(
                    SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                    format!("a session holds at most {PORTAL_COUNT_MAX} portals"),
                )
                .into());
            }
        }
        let plan = self.plan_of(bind.statement).await?;
        let shape = plan.as_ref().map(|plan| self.parts.executor.shape(plan));
        let wanted = shape.map_or(0, |shape| shape.param_types.len());
        if bind.params.len() != wanted {
            return Err(SqlError::new(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message supplies {} parameters, but prepared statement \"{}\" requires {wanted}",
                    bind.params.len(),
                    bind.statement
                ),
            )
            .into());
        }
        let columns = shape.map_or(0, |shape| shape.columns.len());
        let formats = result_formats(bind, columns, plan.is_some())?;
        let body = match (plan, statement) {
            (Some(plan), _) => {
                let cursor = self.parts.executor.open(&self.context, &plan, bind)?;
                PortalBody::Run { plan, cursor }
            }
            (None, Some(statement)) => PortalBody::Utility(statement),
            (None, None) => PortalBody::Empty,
        };
        let portal = Portal { body, formats };
        if bind.portal.is_empty() {
            self.unnamed_portal = Some(portal);
        } else {
            self.portals.insert(bind.portal.to_owned(), portal);
        }
        response::mark(sink.buffer(), Mark::BindComplete);
        Ok(())
    }

    async fn describe<S: ResponseSink>(
        &mut self,
        target: Target,
        name: &str,
        sink: &mut S,
    ) -> Result<(), Fault> {
        match target {
            Target::Statement => {
                let prepared = self.prepared_named(name)?;
                let statement = prepared.statement.clone();
                let is_planned = prepared.plan.is_some();
                if matches!(statement.as_deref(), Some(Statement::Plan(_))) {
                    self.refuse_in_failed_block()?;
                }
                if !is_planned {
                    // Prepared by SQL or brought from another place: planned when first needed.
                    self.plan_of(name).await?;
                }
                let prepared = self.prepared_named(name)?;
                let out = sink.buffer();
                match &prepared.plan {
                    Some(plan) => {
                        let shape = self.parts.executor.shape(plan);
                        response::parameter_description(out, shape.param_types.iter().copied());
                        describe_result(out, shape, &ResultFormats::Text);
                    }
                    None => {
                        response::parameter_description(out, std::iter::empty());
                        self.describe_utility(statement.as_deref(), &ResultFormats::Text, out);
                    }
                }
            }
            Target::Portal => {
                let portal =
                    if name.is_empty() { self.unnamed_portal.as_ref() } else { self.portals.get(name) };
                let portal = portal.ok_or_else(|| no_such_portal(name))?;
                match &portal.body {
                    PortalBody::Run { plan, .. } => {
                        describe_result(sink.buffer(), self.parts.executor.shape(plan), &portal.formats);
                    }
                    PortalBody::Utility(statement) => {
                        self.describe_utility(Some(statement), &portal.formats, sink.buffer());
                    }
                    PortalBody::Empty | PortalBody::Done => response::mark(sink.buffer(), Mark::NoData),
                }
            }
        }
        Ok(())
    }

    async fn execute<S: ResponseSink>(
        &mut self,
        name: &str,
        max_rows: u32,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let place = if name.is_empty() { self.unnamed_portal.as_mut() } else { self.portals.get_mut(name) };
        let portal = place.ok_or_else(|| no_such_portal(name))?;
        let formats = std::mem::take(&mut portal.formats);
        match std::mem::replace(&mut portal.body, PortalBody::Done) {
            PortalBody::Empty => response::mark(sink.buffer(), Mark::EmptyQuery),
            PortalBody::Done => {
                return Err(SqlError::new(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("portal \"{name}\" cannot be run"),
                )
                .into());
            }
            PortalBody::Utility(statement) => self.run_utility(&statement, &formats, true, sink).await?,
            PortalBody::Run { plan, cursor } => {
                self.refuse_in_failed_block()?;
                self.begin_statement();
                let rest =
                    self.run_plan(&plan, cursor, &formats, CopyCaller::Execute, max_rows, sink).await?;
                if let Some(cursor) = rest {
                    let place = if name.is_empty() {
                        self.unnamed_portal.as_mut()
                    } else {
                        self.portals.get_mut(name)
                    };
                    if let Some(portal) = place {
                        *portal = Portal { body: PortalBody::Run { plan, cursor }, formats };
                    }
                }
            }
        }
        Ok(())
    }

    fn close(&mut self, target: Target, name: &str) {
        match target {
            Target::Statement => {
                self.remove_prepared(name);
            }
            Target::Portal if name.is_empty() => self.unnamed_portal = None,
            Target::Portal => {
                self.portals.remove(name);
            }
        }
    }

    async fn sync<S: ResponseSink>(&mut self, sink: &mut S) -> Result<(), SessionEnd> {
        self.is_skipping = false;
        let ended = match self.block.status {
            TransactionStatus::Idle => self.commit_implicit(&[], sink).await,
            _ => self.settle(sink).await,
        };
        match ended {
            Ok(()) => {}
            Err(Fault::Closed) => return Err(SessionEnd::Closed),
            Err(Fault::Sql(error)) => {
                self.answer_failure(false, error, sink).await?;
                self.is_skipping = false;
            }
        }
        self.ready(sink);
        Ok(())
    }

    // ----- COPY

    async fn copy_message<S: ResponseSink>(
        &mut self,
        request: Request<'_>,
        sink: &mut S,
    ) -> Result<(), SessionEnd> {
        let Some(mut active) = self.copy.take() else { return Ok(()) };
        let caller = active.caller;
        let result = match request {
            Request::CopyData(data) => match self.copy_data(&mut active, data).await {
                Ok(()) => {
                    self.copy = Some(active);
                    return Ok(());
                }
                Err(error) => Err(Fault::Sql(error)),
            },
            Request::CopyDone => self.copy_done(active, sink).await,
            Request::CopyFail { message } => Err(Fault::Sql(SqlError::new(
                SqlState::QUERY_CANCELED,
                format!("COPY from stdin failed: {message}"),
            ))),
            // Clients may send these after the Execute without knowing that it is a COPY.
            Request::Flush | Request::Sync => {
                self.copy = Some(active);
                return Ok(());
            }
            Request::Terminate => return Err(SessionEnd::Goodbye),
            _ => Err(Fault::Sql(SqlError::new(
                SqlState::PROTOCOL_VIOLATION,
                "unexpected message type during COPY from stdin",
            ))),
        };
        match result {
            Ok(()) if caller == CopyCaller::Query => self.run_pending(sink).await,
            Ok(()) => Ok(()),
            Err(Fault::Closed) => Err(SessionEnd::Closed),
            Err(Fault::Sql(error)) => self.answer_failure(caller == CopyCaller::Query, error, sink).await,
        }
    }

    async fn copy_data(&mut self, active: &mut ActiveCopy<E>, data: &[u8]) -> Result<(), SqlError> {
        self.context.interrupts.check()?;
        Interrupts::check_deadline(&self.parts.env, self.deadline)?;
        let txn = self.txn.as_mut().ok_or_else(no_transaction)?;
        let taken = self.parts.executor.copy_data(txn, &self.context, &mut active.copy, data);
        self.context.interrupts.guard(&self.parts.env, self.deadline, taken).await?
    }

    async fn copy_done<S: ResponseSink>(&mut self, active: ActiveCopy<E>, sink: &mut S) -> Result<(), Fault> {
        let txn = self.txn.as_mut().ok_or_else(no_transaction)?;
        let ended = self.parts.executor.copy_end(txn, &self.context, active.copy);
        let rows = self.context.interrupts.guard(&self.parts.env, self.deadline, ended).await??;
        let tag = format!("COPY {rows}");
        if active.is_last {
            self.commit_implicit(&tag_bytes(&tag), sink).await?;
        }
        response::command_complete(sink.buffer(), &tag);
        Ok(())
    }

    /// Whether the present Query holds several statements, which form one transaction.
    pub(super) fn is_multiple(&self) -> bool {
        self.is_multiple
    }

    /// EXECUTE: runs a prepared statement with parameters that were read from SQL.
    pub(super) async fn run_bound<S: ResponseSink>(
        &mut self,
        bind: &Bind<'_>,
        formats: &ResultFormats,
        is_described: bool,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let Some(plan) = self.plan_of(bind.statement).await? else {
            return Err(no_such_statement(bind.statement).into());
        };
        let shape = self.parts.executor.shape(&plan);
        if shape.param_types.len() != bind.params.len() {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("wrong number of parameters for prepared statement \"{}\"", bind.statement),
            )
            .with_detail(format!(
                "Expected {} parameters but got {}.",
                shape.param_types.len(),
                bind.params.len()
            ))
            .into());
        }
        if !is_described && !shape.columns.is_empty() {
            write_row_description(sink.buffer(), shape, formats);
        }
        let cursor = self.parts.executor.open(&self.context, &plan, bind)?;
        let caller = if is_described { CopyCaller::Execute } else { CopyCaller::Query };
        self.run_plan(&plan, cursor, formats, caller, 0, sink).await?;
        Ok(())
    }

    /// A deadline after which a session that does nothing ends, and the error it ends with.
    #[must_use]
    pub fn idle_deadline(&self) -> Option<(Instant, SqlError)> {
        idle_deadline(&self.parts.env, &self.context.settings, self.block.status)
    }

    /// Changes a setting of the session.
    pub(super) fn change_setting(
        &mut self,
        scope: Scope,
        name: &str,
        value: Option<&str>,
    ) -> Result<(), SqlError> {
        match value {
            Some(value) => self.context.settings.set(name, value, scope),
            None => self.context.settings.reset(name, scope),
        }?;
        if self.block.status == TransactionStatus::Idle && !self.is_multiple {
            self.context.settings.commit();
        }
        Ok(())
    }
}

/// A deadline after which a session that does nothing ends, and the error it ends with.
pub(crate) fn idle_deadline(
    env: &Env,
    settings: &super::settings::Settings,
    status: TransactionStatus,
) -> Option<(Instant, SqlError)> {
    let (timeout, state, message) = if status == TransactionStatus::Idle {
        let timeout = settings.timeout("idle_session_timeout")?;
        (timeout, SqlState::IDLE_SESSION_TIMEOUT, "terminating connection due to idle-session timeout")
    } else {
        let timeout = settings.timeout("idle_in_transaction_session_timeout")?;
        (
            timeout,
            SqlState::IDLE_IN_TRANSACTION_TIMEOUT,
            "terminating connection due to idle-in-transaction timeout",
        )
    };
    let error = SqlError::new(state, message).with_severity(Severity::Fatal);
    Some((env.now() + timeout, error))
}

fn no_transaction() -> SqlError {
    SqlError::internal("no transaction is open")
}

fn needs_block(what: &str) -> SqlError {
    SqlError::new(
        SqlState::NO_ACTIVE_SQL_TRANSACTION,
        format!("{what} can only be used in transaction blocks"),
    )
}

pub(super) fn no_such_statement(name: &str) -> SqlError {
    let message = if name.is_empty() {
        "unnamed prepared statement does not exist".to_owned()
    } else {
        format!("prepared statement \"{name}\" does not exist")
    };
    SqlError::new(SqlState::INVALID_SQL_STATEMENT_NAME, message)
}

fn no_such_portal(name: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_CURSOR_NAME, format!("portal \"{name}\" does not exist"))
}

fn tag_bytes(tag: &str) -> BytesMut {
    let mut out = BytesMut::new();
    response::command_complete(&mut out, tag);
    out
}

fn no_transaction_warning(out: &mut BytesMut) {
    let warning = SqlError::new(SqlState::NO_ACTIVE_SQL_TRANSACTION, "there is no transaction in progress");
    response::sql_notice(out, &warning.with_severity(Severity::Warning));
}

fn same_result(left: &[super::executor::Column], right: &[super::executor::Column]) -> bool {
    left.len() == right.len()
        && left
            .iter()
            .zip(right)
            .all(|(left, right)| left.type_oid == right.type_oid && left.name == right.name)
}

fn result_formats(bind: &Bind<'_>, columns: usize, is_plan: bool) -> Result<ResultFormats, SqlError> {
    let formats = bind.result_formats;
    if is_plan && formats.len() > 1 && formats.len() != columns {
        return Err(SqlError::new(
            SqlState::PROTOCOL_VIOLATION,
            format!("bind message has {} result formats but query has {columns} columns", formats.len()),
        ));
    }
    Ok(match formats.len() {
        0 => ResultFormats::Text,
        1 if formats.get(0) == response::Format::Text => ResultFormats::Text,
        1 => ResultFormats::Binary,
        count => ResultFormats::Each(
            (0..count).map(|index| formats.get(index) == response::Format::Binary).collect(),
        ),
    })
}

fn describe_result(out: &mut BytesMut, shape: &super::executor::Shape, formats: &ResultFormats) {
    if shape.columns.is_empty() || shape.dialogue != super::executor::Dialogue::Rows {
        response::mark(out, Mark::NoData);
    } else {
        write_row_description(out, shape, formats);
    }
}

fn write_row_description(out: &mut BytesMut, shape: &super::executor::Shape, formats: &ResultFormats) {
    let fields = shape.columns.iter().enumerate().map(|(index, column)| response::Field {
        name: &column.name,
        table: column.table,
        column: column.number,
        type_oid: column.type_oid,
        type_size: column.type_size,
        modifier: column.modifier,
        format: formats.get(index),
    });
    response::row_description(out, fields);
}

/// The result of a commit that was in doubt.
async fn resolve(asked: BoxFuture<'static, Option<bool>>, request: RequestId) -> Result<(), SqlError> {
    match asked.await {
        Some(true) => Ok(()),
        Some(false) => Err(SqlError::new(
            SqlState::SERIALIZATION_FAILURE,
            "the transaction was not committed because the leader of the database changed",
        )
        .with_hint("The transaction might succeed if retried.")),
        None => Err(SqlError::new(
            SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
            format!("whether the transaction was committed is not known (request {request})"),
        )
        .with_hint("Check whether its effects are there before trying it again.")),
    }
}
