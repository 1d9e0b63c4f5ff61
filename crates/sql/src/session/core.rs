//! The session: what it consists of, and how a message becomes a call of what carries it out.
//!
//! ```text
//! message --> query (simple) ----------.
//!         --> prepared, portal --------+--> run (plan, lock, fetch) --> transaction
//!         --> copy (data of a COPY) ---'
//! ```
//!
//! What a message changes is in the module named after it; here is what all of them share: the time of the
//! request, the answer to a failure, and ReadyForQuery.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rustydb_env::{Env, Instant};
use rustydb_txn::{Access, KvStore, LockWait, Transaction};
use rustydb_types::ids::{DatabaseId, RequestId, Term, Version};

use super::activity::{self, Activities};
use super::copy::ActiveCopy;
use super::executor::{Context, Executor};
use super::failure::Fault;
use super::interrupt::{Deadline, Interrupts};
use super::notify::Notify;
use super::portal::Portal;
use super::prepared::{OWN_MEMORY_BYTES, Prepared, hold};
use super::request::Request;
use super::response::{self, Mark, TransactionStatus};
use super::roles;
use super::sequences::SequenceValues;
use super::settings::{Scope, Settings};
use super::sink::{ResponseSink, SinkClosed};
use super::statement::{Modes, Statement};
use super::syntax;
use super::temporary::Temporary;
use super::token::TokenKey;
use super::transaction::Block;
use crate::error::{Severity, SqlError, SqlState};
use crate::gateway::ClusterPort;
use crate::gateway::frame::{SessionContext, StateChanges};
use crate::gateway::peer::SessionKey;
use crate::memory::{HeldMemory, TextMemory};

/// Microseconds from the Unix epoch to 2000-01-01.
const POSTGRES_EPOCH_UNIX_MICROS: i64 = 946_684_800_000_000;

/// Finds out what became of a commit, at whatever node leads now, by a version from before it; `None` when that cannot
/// be learnt.
pub type OutcomeResolver = Arc<dyn Fn(RequestId, Version) -> BoxFuture<'static, Option<bool>> + Send + Sync>;

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
    /// Signs the names of its transactions.
    pub token_key: TokenKey,
    /// Names the session's commits.
    pub key: SessionKey,
    /// Finds out what became of commits in doubt.
    pub resolver: OutcomeResolver,
    /// Cancel requests.
    pub interrupts: Arc<Interrupts>,
    /// The sessions of this node.
    pub activities: Arc<Activities>,
}

/// A session at the node that leads its database.
pub struct Session<E: Executor> {
    pub(super) parts: SessionParts<E>,
    pub(super) context: Context,
    pub(super) block: Block,
    pub(super) txn: Option<Transaction>,
    pub(super) access: Access,
    /// Whether a statement of the transaction has begun and nothing ran in it yet.
    pub(super) is_fresh: bool,
    pub(super) prepared: BTreeMap<String, Prepared<E>>,
    pub(super) unnamed: Option<Prepared<E>>,
    pub(super) portals: BTreeMap<String, Portal<E>>,
    pub(super) unnamed_portal: Option<Portal<E>>,
    pub(super) copy: Option<ActiveCopy<E>>,
    /// An extended message failed: everything up to Sync is skipped.
    pub(super) is_skipping: bool,
    /// Statements of a Query that are still to run, and whether there were several.
    pub(super) pending: VecDeque<Statement>,
    /// A version from before what is run now was sent; the last one there is when it comes from this node.
    pub(super) since: Version,
    /// The term in which it may write, if it comes from another node.
    pub(super) bound: Option<Term>,
    /// For what is made of texts, before it takes what all sessions share.
    pub(super) own_memory: Arc<TextMemory>,
    /// For the statements of the Query that is answered.
    pub(super) memory: Arc<HeldMemory>,
    pub(super) is_multiple: bool,
    /// Where in the buffer the rows begin that may not be shown yet.
    pub(super) unsettled: Option<usize>,
    /// Whether the node of the client's connection has a replica.
    pub(super) has_replica: bool,
    pub(super) counter: u64,
    pub(super) changes: StateChanges,
    /// Whether a request has come since the last ReadyForQuery.
    pub(super) is_busy: bool,
    /// Whether the request began outside a block and nothing of it is committed, so that all of it can be run again.
    pub(super) is_whole: bool,
    /// Whether the request failed only with the leadership, being whole.
    has_fallen: bool,
    /// How long the session's first request has been under way elsewhere.
    pub(super) spent: Duration,
    pub(super) deadline: Option<Deadline>,
    pub(super) reported_version: u64,
    /// The values that the client was told last, in the order of the definitions.
    pub(super) reported: Vec<String>,
}

impl<E: Executor> Session<E> {
    /// Makes a session, new or as it was elsewhere.
    ///
    /// # Errors
    /// When a setting or a prepared statement of the context is refused; 3D000 and the like are the caller's.
    pub fn new(parts: SessionParts<E>, from: &SessionContext) -> Result<Self, SqlError> {
        let is_superuser = parts.cluster.system().role_named(&from.user).is_some_and(|role| role.superuser);
        let settings = Settings::of_moved_session(&from.user, is_superuser, &from.start, &from.settings)?;
        let activity = parts.activities.register(
            from.backend_pid,
            (&from.user, &from.database),
            &from.client_address,
            postgres_micros(&parts.env),
            &parts.interrupts,
        );
        activity.rename(settings.get("application_name"));
        let context = Context {
            activity,
            token: None,
            is_token_given: AtomicBool::default(),
            random: Mutex::default(),
            questions: Mutex::default(),
            changes: Mutex::default(),
            sequences: Mutex::new(SequenceValues::of_moved_session(&from.sequences)),
            sleep: AtomicI64::default(),
            advisory: Mutex::default(),
            temporary: Temporary::of_moved_session(from.has_temporary),
            notify: Mutex::new(Notify::of_moved_session(&from.channels)),
            deferred: Mutex::default(),
            notices: Mutex::default(),
            user: from.user.clone(),
            database: from.database.clone(),
            database_id: parts.database,
            token_key: parts.token_key.clone(),
            client_address: from.client_address.clone(),
            settings,
            interrupts: Arc::clone(&parts.interrupts),
            transaction_time: 0,
            statement_time: 0,
            lock_wait: LockWait::Forever,
        };
        let own_memory = Arc::new(TextMemory::new(OWN_MEMORY_BYTES));
        let mut prepared = BTreeMap::new();
        let mut unnamed = None;
        for text in &from.prepared {
            // A session that moves keeps what it had where it was counted, or nobody could go on after a change of
            // leaders.
            let memory = hold(&*parts.executor, &own_memory, &text.sql).unwrap_or_default();
            let statement = syntax::parse(&text.sql)?.into_iter().next().map(Arc::new);
            let entry = Prepared {
                text: activity::kept_text(&text.sql),
                statement,
                param_types: text.param_types.clone(),
                plan: None,
                memory,
            };
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
            since: Version::new(u64::MAX),
            bound: None,
            own_memory,
            memory: Arc::default(),
            is_multiple: false,
            unsettled: None,
            has_replica: from.has_replica,
            counter: from.counter,
            changes: StateChanges::default(),
            is_busy: false,
            is_whole: false,
            has_fallen: false,
            spent: from.spent,
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

    /// Whether a request has come that is not answered to its end.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Whether the present Query holds several statements, which form one transaction.
    pub(super) fn is_multiple(&self) -> bool {
        self.is_multiple
    }

    /// Whether the request whose answer was given last fell with the leadership of this node, and certainly nothing of
    /// it is or will be committed. Whoever has shown the client nothing of the answer can take it back and run the
    /// request again in another session, with request ids after [`Session::counter`]. Not while the session holds
    /// cursors, which no other session has.
    #[must_use]
    pub fn has_fallen(&self) -> bool {
        self.has_fallen && self.portals.is_empty()
    }

    /// The request that fell was answered as one: what of it still comes is skipped.
    pub(crate) const fn forget_fallen(&mut self) {
        self.has_fallen = false;
    }

    /// What comes next may write in this term of the database's leader only.
    pub fn bound_to(&mut self, term: Term) {
        self.bound = Some(term);
    }

    /// What comes next was sent after this version was applied.
    pub fn sent_after(&mut self, version: Version) {
        self.since = version;
    }

    /// How many request ids were used.
    #[must_use]
    pub fn counter(&self) -> u64 {
        self.counter
    }

    /// Whether the transaction of the last request id is open.
    #[must_use]
    pub fn has_open_request(&self) -> bool {
        self.txn.is_some() && self.access == Access::ReadWrite
    }

    /// Through which others stop what the session does.
    #[must_use]
    pub fn interrupts(&self) -> &Arc<Interrupts> {
        &self.parts.interrupts
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.context.settings
    }

    /// What changed since the last call of what outlives the session's place.
    pub fn take_changes(&mut self) -> StateChanges {
        let (channels, has_sent) = self.context.notify.get_mut().take_news();
        StateChanges {
            channels,
            has_sent,
            has_temporary: self.context.temporary.take_news(),
            sequences: self.context.sequences.lock().take_changes(),
            holds_locks: self.context.advisory.get_mut().take_news(),
            ..std::mem::take(&mut self.changes)
        }
    }

    /// Appends the ParameterStatus messages that begin a session.
    pub fn write_greeting(&self, out: &mut BytesMut) {
        for (name, value) in self.context.settings.reported() {
            response::parameter_status(out, name, value);
        }
    }

    /// A deadline after which a session that does nothing ends, and the error it ends with.
    #[must_use]
    pub fn idle_deadline(&self) -> Option<(Instant, SqlError)> {
        idle_deadline(&self.parts.env, &self.context.settings, self.block.status)
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
        self.is_whole = self.block.status == TransactionStatus::Idle;
        self.has_fallen = false;
        self.context.interrupts.forget_cancel();
        let now = postgres_micros(&self.parts.env);
        self.context.statement_time = now;
        if self.txn.is_none() && self.block.status == TransactionStatus::Idle {
            self.context.transaction_time = now;
        }
        self.arm_timeouts();
    }

    /// Sets the timeouts of a statement that begins now. Each statement of a Query has its own, and follows what one
    /// before it has set.
    pub(super) fn arm_timeouts(&mut self) {
        let settings = self.context.settings.derived();
        self.context.lock_wait = settings.lock_timeout.map_or(LockWait::Forever, LockWait::For);
        self.deadline = settings
            .statement_timeout
            .map(|timeout| Deadline { at: self.parts.env.now() + timeout.saturating_sub(self.spent) });
        self.context.interrupts.arm(self.deadline);
    }

    /// Answers ReadyForQuery, after what the client may be told of settings.
    pub(super) fn ready<S: ResponseSink>(&mut self, sink: &mut S) {
        self.is_busy = false;
        self.is_multiple = false;
        self.memory = Arc::default();
        self.deadline = None;
        self.spent = Duration::ZERO;
        if self.reported_version != self.context.settings.version() {
            self.report_settings(sink.buffer());
        }
        let now = postgres_micros(&self.parts.env);
        self.context.activity.wait(self.block.status, self.txn.is_some(), now);
        response::ready_for_query(sink.buffer(), self.block.status);
    }

    fn report_settings(&mut self, out: &mut BytesMut) {
        self.reported_version = self.context.settings.version();
        self.context.activity.rename(self.context.settings.get("application_name"));
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

    /// What has changed of the session if what is open is committed, of settings when they are not those that were
    /// reported last; appends what the client will then be told of them.
    pub(super) fn changes_to_come(&self, out: &mut BytesMut) -> StateChanges {
        let mut changes = self.changes.clone();
        changes.sequences = self.context.sequences.lock().changes();
        changes.holds_locks = self.context.advisory.lock().news();
        changes.has_temporary = self.context.temporary.news();
        (changes.channels, changes.has_sent) = self.context.notify.lock().news_to_come();
        if self.reported_version == self.context.settings.version() {
            return changes;
        }
        let mut settings = self.context.settings.clone();
        settings.commit();
        for ((name, value), known) in settings.reported().zip(&self.reported) {
            if known != value {
                response::parameter_status(out, name, value);
            }
        }
        changes.settings =
            settings.exported().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        changes
    }

    /// Tells the client of an error, and ends what it ends: a Query, or everything up to Sync. What was answered before
    /// the error stays answered if it is certain, and so is the error; where it cannot become certain that what was read
    /// is so, the client is told why not, instead of an error that came of it.
    pub(super) async fn answer_failure<S: ResponseSink>(
        &mut self,
        is_query: bool,
        error: SqlError,
        sink: &mut S,
    ) -> Result<(), SessionEnd> {
        let mut error = error;
        let is_end = matches!(error.fields().severity, Severity::Fatal | Severity::Panic);
        if !is_end && !error.fields().is_fallen {
            let may_come_of_reads = error.state().may_come_of_reads();
            let unsettled = self.unsettled.take();
            if (unsettled.is_some() || may_come_of_reads)
                && let Err(unsure) = self.settle_reads().await
            {
                if let Some(start) = unsettled {
                    sink.buffer().truncate(start);
                }
                if may_come_of_reads || unsure.fields().is_fallen {
                    error = unsure;
                }
            }
        }
        self.begin_request();
        self.has_fallen = self.is_whole && error.fields().is_fallen;
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

    /// Does what `set_config()` has asked for.
    pub(super) fn apply_changes(&mut self) -> Result<(), SqlError> {
        let changes = std::mem::take(self.context.changes.get_mut());
        for (scope, name, value) in changes {
            self.put_setting(scope, &name, value.as_deref())?;
        }
        Ok(())
    }

    fn put_setting(&mut self, scope: Scope, name: &str, value: Option<&str>) -> Result<(), SqlError> {
        match (roles::setting_named(name), value) {
            (Some(name), _) => {
                roles::change(name, value, scope, &mut self.context, &self.parts.cluster.system())
            }
            (None, Some(value)) => self.context.settings.set(name, value, scope),
            (None, None) => self.context.settings.reset(name, scope),
        }
    }

    /// Appends what the statement had to tell beside its answer.
    pub(super) fn tell_notices(&mut self, out: &mut BytesMut) {
        for notice in std::mem::take(self.context.notices.get_mut()) {
            response::sql_notice(out, &notice);
        }
    }

    /// Changes a setting of the session.
    pub(super) fn change_setting(
        &mut self,
        scope: Scope,
        name: &str,
        value: Option<&str>,
    ) -> Result<(), SqlError> {
        self.put_setting(scope, name, value)?;
        if self.block.status == TransactionStatus::Idle && !self.is_multiple {
            self.context.settings.commit();
        }
        Ok(())
    }
}
/// The wall clock, in microseconds since 2000-01-01 UTC.
fn postgres_micros(env: &Env) -> i64 {
    env.wall_now().unix_micros().saturating_sub(POSTGRES_EPOCH_UNIX_MICROS)
}

/// A deadline after which a session that does nothing ends, and the error it ends with.
pub(crate) fn idle_deadline(
    env: &Env,
    settings: &Settings,
    status: TransactionStatus,
) -> Option<(Instant, SqlError)> {
    let (timeout, state, message) = if status == TransactionStatus::Idle {
        let timeout = settings.derived().idle_session_timeout?;
        (timeout, SqlState::IDLE_SESSION_TIMEOUT, "terminating connection due to idle-session timeout")
    } else {
        let timeout = settings.derived().idle_in_transaction_timeout?;
        (
            timeout,
            SqlState::IDLE_IN_TRANSACTION_TIMEOUT,
            "terminating connection due to idle-in-transaction timeout",
        )
    };
    let error = SqlError::new(state, message).with_severity(Severity::Fatal);
    Some((env.now() + timeout, error))
}
