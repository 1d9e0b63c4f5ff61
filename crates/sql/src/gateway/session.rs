//! The client's end of a session: where it is connected, whichever node runs its statements.
//!
//! ```text
//!             leads here                     leads elsewhere
//!   Here <------------------- Nowhere -------------------------> There
//!    '--- leadership moved ------^---------- lost, not leader ------'
//! ```
//!
//! What outlives a place is kept here: settings, prepared statements, the counter of request ids. It is given to the
//! next place when the client next asks for something, so an idle client notices nothing.
//!
//! When a place is lost under a batch:
//! - the commit that may have taken place is asked for at the new leader, which also makes sure that it never will;
//! - committed: the client gets the answer that was held back for this case;
//! - nothing committed, the session was idle and nothing was shown: the batch runs once more;
//! - nothing committed otherwise: 40001, and an open block has failed;
//! - what cannot be known: 08007.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use rustydb_env::{Bug, Instant};
use rustydb_txn::KvStore;
use rustydb_types::ids::{NodeId, RequestId};

use super::batch;
use super::frame::{Joiner, PreparedText, RequestFrame, ResponseFrame, SessionContext, StateChanges};
use super::host::BATCH_SIZE_MAX;
use super::local::{Gateway, LEADER_WAIT, Place, RETRY_PAUSE};
use super::peer::{FRAME_SIZE_MAX, RemoteSession, SessionClosed, SessionKey, SessionOpen};
use crate::error::{Severity, SqlError, SqlState};
use crate::session::core::{Session, SessionEnd, idle_deadline};
use crate::session::executor::Executor;
use crate::session::interrupt::Interrupts;
use crate::session::request::Request;
use crate::session::response::{self, Messages, TransactionStatus};
use crate::session::settings::Settings;
use crate::session::sink::ResponseSink;
use crate::session::statement::Statement;
use crate::session::syntax;
use crate::system::DatabaseRecord;

/// How long another node may take to open a session or to take a cancel request.
const PEER_WAIT: Duration = Duration::from_secs(3);

/// How often a batch is offered to a node that turns out not to lead.
const REFUSAL_COUNT_MAX: usize = 20;

enum At<E: Executor> {
    Nowhere,
    Here { session: Box<Session<E>>, store: KvStore },
    There { node: NodeId, remote: RemoteSession },
}

/// A client's session.
pub struct GatewaySession<E: Executor> {
    gateway: Arc<Gateway<E>>,
    record: DatabaseRecord,
    key: SessionKey,
    interrupts: Arc<Interrupts>,
    at: At<E>,
    /// What the next place is given.
    context: SessionContext,
    settings: Settings,
    /// Body of the last Parse of the unnamed statement; empty when there is none.
    unnamed: Vec<u8>,
    status: TransactionStatus,
    /// Messages that are still to be forwarded.
    batch: BytesMut,
    /// Whether the last answer ended with ReadyForQuery.
    is_ready: bool,
    /// Whether the client's present request is a Query, which an error ends.
    is_query: bool,
    /// Messages are skipped up to Sync.
    is_skipping: bool,
}

/// How forwarding a batch ended, other than with its answer.
enum Break {
    End(SessionEnd),
    /// Nothing of it was done.
    NotRun,
    Lost {
        held: Option<(u64, Bytes)>,
        is_shown: bool,
    },
}

impl<E: Executor> GatewaySession<E> {
    pub(super) async fn begin(
        gateway: Arc<Gateway<E>>,
        record: DatabaseRecord,
        key: SessionKey,
        mut context: SessionContext,
        interrupts: Arc<Interrupts>,
    ) -> Result<Self, SqlError> {
        context.start.clone_from(&context.settings);
        let system = gateway.cluster().system();
        let is_superuser = system.role_named(&context.user).is_some_and(|role| role.superuser);
        let settings = Settings::of_session(&context.user, is_superuser, &context.settings)?;
        let mut session = Self {
            gateway,
            record,
            key,
            interrupts,
            at: At::Nowhere,
            context,
            settings,
            unnamed: Vec::new(),
            status: TransactionStatus::Idle,
            batch: BytesMut::new(),
            is_ready: true,
            is_query: false,
            is_skipping: false,
        };
        session.find_place().await?;
        Ok(session)
    }

    /// Where the session is with its transaction.
    #[must_use]
    pub fn status(&self) -> TransactionStatus {
        self.status
    }

    /// Appends the ParameterStatus messages that begin a session.
    pub fn write_greeting(&self, out: &mut BytesMut) {
        for (name, value) in self.settings.reported() {
            response::parameter_status(out, name, value);
        }
    }

    /// A deadline after which a session that does nothing ends, and the error it ends with.
    #[must_use]
    pub fn idle_deadline(&self) -> Option<(Instant, SqlError)> {
        match &self.at {
            At::Here { session, .. } => session.idle_deadline(),
            _ => idle_deadline(self.gateway.env(), &self.settings, self.status),
        }
    }

    /// Carries out one message, as [`Session::message`].
    ///
    /// # Errors
    /// Why the session ends.
    pub async fn message<S: ResponseSink>(
        &mut self,
        tag: u8,
        body: &[u8],
        sink: &mut S,
    ) -> Result<(), SessionEnd> {
        if let At::Here { session, store } = &mut self.at {
            if store.is_leader() || !session.is_idle() {
                session.message(tag, body, sink).await?;
                self.absorb_here();
                self.note(tag, body);
                return Ok(());
            }
            self.at = At::Nowhere;
        }
        if tag == b'X' {
            return Err(SessionEnd::Goodbye);
        }
        if self.is_skipping {
            if tag == b'S' {
                self.is_skipping = false;
                self.ready(sink);
            }
            return Ok(());
        }
        if self.is_ready && self.batch.is_empty() {
            self.interrupts.forget_cancel();
            self.is_query = tag == b'Q';
        }
        self.batch.put_u8(tag);
        self.batch.put_u32(u32::try_from(body.len() + 4).unwrap_or(u32::MAX));
        self.batch.put_slice(body);
        let ends = matches!(tag, b'Q' | b'S' | b'F' | b'H' | b'c' | b'f');
        if ends || self.batch.len() >= FRAME_SIZE_MAX { self.run_batch(sink).await } else { Ok(()) }
    }

    fn ready<S: ResponseSink>(&mut self, sink: &mut S) {
        self.is_ready = true;
        response::ready_for_query(sink.buffer(), self.status);
    }

    /// Remembers the unnamed statement.
    fn note(&mut self, tag: u8, body: &[u8]) {
        match tag {
            b'P' if body.first() == Some(&0) => {
                self.unnamed.clear();
                self.unnamed.extend_from_slice(body);
            }
            b'Q' => self.unnamed.clear(),
            _ => {}
        }
    }

    fn absorb_here(&mut self) {
        if let At::Here { session, .. } = &mut self.at {
            let (changes, status, counter) = (session.take_changes(), session.status(), session.counter());
            self.is_ready = session.is_idle() || status != TransactionStatus::Idle;
            self.absorb(status, counter, changes);
        }
    }

    fn absorb(&mut self, status: TransactionStatus, counter: u64, changes: StateChanges) {
        self.status = status;
        self.context.counter = self.context.counter.max(counter);
        self.context.is_failed = status == TransactionStatus::Failed;
        if changes.is_empty() {
            return;
        }
        for name in &changes.deallocated {
            self.context.prepared.retain(|prepared| prepared.name != *name);
        }
        for prepared in changes.prepared {
            self.context.prepared.retain(|other| other.name != prepared.name);
            self.context.prepared.push(prepared);
        }
        if !changes.settings.is_empty() {
            let superuser = self.settings.is_on("is_superuser");
            // They were accepted where the session ran, so they are here.
            if let Ok(settings) = Settings::of_moved_session(
                &self.context.user,
                superuser,
                &self.context.start,
                &changes.settings,
            ) {
                self.settings = settings;
            }
            self.context.settings = changes.settings;
        }
    }

    /// The context for the next place, with the unnamed statement.
    fn carried(&self) -> SessionContext {
        let mut context = self.context.clone();
        if let Ok(Request::Parse { sql, param_types, .. }) = Request::decode(b'P', &self.unnamed)
            && syntax::parse(sql).is_ok()
        {
            let param_types = param_types.iter().collect();
            context.prepared.push(PreparedText { name: String::new(), sql: sql.to_owned(), param_types });
        }
        context
    }

    /// Makes the session at the database's leader, wherever that is.
    async fn find_place(&mut self) -> Result<(), SqlError> {
        let env = self.gateway.env().clone();
        let deadline = env.now() + LEADER_WAIT;
        let context = self.carried();
        let mut turn = 0;
        let mut hint = None;
        loop {
            self.interrupts.check()?;
            let node = match self.gateway.locate(&self.record) {
                Place::Here(store) => {
                    let session = self.gateway.run_here(
                        &self.record,
                        store.clone(),
                        self.key,
                        &context,
                        Arc::clone(&self.interrupts),
                    )?;
                    self.at = At::Here { session: Box::new(session), store };
                    return Ok(());
                }
                Place::At(node) => Some(node),
                // A node without a replica asks those that have one in turn.
                Place::Unknown if self.gateway.cluster().store(self.record.id).is_none() => {
                    turn += 1;
                    hint.take().or_else(|| {
                        let replicas = &self.record.replicas;
                        replicas.get(turn % replicas.len().max(1)).copied()
                    })
                }
                Place::Unknown => None,
            };
            if let (Some(peer), Some(node)) = (self.gateway.peer(), node) {
                let open = SessionOpen { group: self.record.group, key: self.key, context: context.encode() };
                let limit = deadline.min(env.now() + PEER_WAIT);
                let gateway = Arc::clone(&self.gateway);
                let opening = async {
                    tokio::select! {
                        biased;
                        opened = peer.open(node, open, limit) => opened,
                        // A node that hangs costs no more than it takes to elect another.
                        () = gateway.led_elsewhere(&self.record, node) => {
                            Err(SessionClosed::NotLeader { leader: None })
                        }
                    }
                };
                match self.interrupts.guard(&env, None, opening).await? {
                    Ok(remote) => {
                        self.at = At::There { node, remote };
                        return Ok(());
                    }
                    Err(SessionClosed::NotLeader { leader }) => hint = leader,
                    Err(SessionClosed::TooMany) => {
                        let message = "sorry, too many clients at the leader already";
                        return Err(SqlError::new(SqlState::TOO_MANY_CONNECTIONS, message));
                    }
                    Err(_) => {}
                }
            }
            if env.now() >= deadline {
                let message =
                    format!("no leader of database \"{}\" can be reached from this node", self.record.name);
                return Err(SqlError::new(SqlState::CANNOT_CONNECT_NOW, message)
                    .with_hint("Try again, or connect to another node."));
            }
            env.sleep(RETRY_PAUSE).await;
        }
    }

    async fn run_batch<S: ResponseSink>(&mut self, sink: &mut S) -> Result<(), SessionEnd> {
        let batch = self.batch.split().freeze();
        let was_ready = self.is_ready;
        let mut refusals = 0;
        let mut has_run = false;
        // The place may hang, and the session has nothing there that it needs.
        if let At::There { node, .. } = &self.at
            && was_ready
            && self.status == TransactionStatus::Idle
            && self.gateway.is_led_elsewhere(&self.record, *node)
        {
            self.at = At::Nowhere;
        }
        loop {
            if matches!(self.at, At::Nowhere)
                && let Err(error) = self.find_place().await
            {
                return self.fail(error, &batch, sink);
            }
            if let At::Here { session, .. } = &mut self.at {
                for (tag, body) in Messages::new(&batch) {
                    session.message(tag, body, sink).await?;
                }
                self.absorb_here();
                break;
            }
            match self.forward(&batch, sink).await {
                Ok(()) => break,
                Err(Break::End(end)) => return Err(end),
                Err(Break::NotRun) => {
                    self.at = At::Nowhere;
                    refusals += 1;
                    if refusals > REFUSAL_COUNT_MAX || !was_ready {
                        return self.fail(moved(), &batch, sink);
                    }
                }
                Err(Break::Lost { held, is_shown }) => {
                    self.at = At::Nowhere;
                    let fate = match &held {
                        Some(_) if self.gateway.env().has_bug(Bug::FateAssumed) => Some(true),
                        None if was_ready && !self.may_commit(&batch) => Some(false),
                        _ => self.fate(held.as_ref().map(|(counter, _)| *counter), was_ready).await,
                    };
                    let was_idle = self.status == TransactionStatus::Idle;
                    match (fate, held) {
                        (Some(true), Some((_, messages))) => {
                            sink.buffer().extend_from_slice(&messages);
                            self.absorb(TransactionStatus::Idle, 0, batch::prepared_in(&batch));
                            self.is_ready = true;
                            break;
                        }
                        (Some(false), _)
                            if was_idle && was_ready && !is_shown && !has_run && self.can_repeat(&batch) =>
                        {
                            has_run = true;
                        }
                        // A ROLLBACK is carried out by what has happened.
                        (Some(false), None)
                            if was_ready
                                && !is_shown
                                && !has_run
                                && self
                                    .has_statement(&batch, |one| matches!(one, Statement::Rollback(_)))
                                && self.can_repeat(&batch) =>
                        {
                            has_run = true;
                            self.absorb(TransactionStatus::Failed, 0, StateChanges::default());
                        }
                        (Some(false), held) => {
                            let has_commit =
                                self.has_statement(&batch, |one| matches!(one, Statement::Commit(_)));
                            let status = match self.status {
                                TransactionStatus::Idle => TransactionStatus::Idle,
                                _ if held.is_some() || has_commit => TransactionStatus::Idle,
                                _ => TransactionStatus::Failed,
                            };
                            self.absorb(status, 0, StateChanges::default());
                            // Databases and roles change in a group of their own, which may go on without this one.
                            let error = if self.can_repeat(&batch) { moved() } else { in_doubt() };
                            return self.fail(error, &batch, sink);
                        }
                        (Some(true), None) | (None, _) => {
                            self.absorb(TransactionStatus::Idle, 0, StateChanges::default());
                            return self.fail(in_doubt(), &batch, sink);
                        }
                    }
                }
            }
        }
        for (tag, body) in Messages::new(&batch) {
            self.note(tag, body);
        }
        Ok(())
    }

    /// Tells the client that its batch failed.
    fn fail<S: ResponseSink>(
        &mut self,
        error: SqlError,
        batch: &[u8],
        sink: &mut S,
    ) -> Result<(), SessionEnd> {
        if matches!(error.fields().severity, Severity::Fatal | Severity::Panic) {
            return Err(SessionEnd::Fatal(error));
        }
        response::sql_error(sink.buffer(), &error);
        let ends_with_sync = Messages::new(batch).last().is_some_and(|(tag, _)| tag == b'S');
        if self.is_query || ends_with_sync {
            self.ready(sink);
        } else {
            self.is_skipping = true;
        }
        Ok(())
    }

    /// Whether a commit of the lost batch took place; `None` when that cannot be learnt.
    async fn fate(&mut self, held: Option<u64>, was_ready: bool) -> Option<bool> {
        let last = self.context.counter;
        let may_be_open = self.status != TransactionStatus::Idle || !was_ready;
        let asked = match held {
            Some(counter) => [None, Some(counter)],
            None => [(may_be_open && last > 0).then_some(last), Some(last + 1)],
        };
        let mut committed = false;
        for counter in asked.into_iter().flatten() {
            let key = self.key;
            let request = RequestId { incarnation: key.incarnation, session: key.session, counter };
            committed |= self.gateway.outcome(&self.record, request).await?;
            // What was asked for never commits any more: its id is used up.
            self.context.counter = self.context.counter.max(counter);
        }
        // A later transaction of the batch than its first: the earlier ones are done.
        let is_first = held.is_none_or(|counter| counter <= last + 1);
        (committed || is_first).then_some(committed)
    }

    /// Whether the batch, the first of a request, may have committed something: outside of a block anything may, and
    /// in one a COMMIT, or what comes after the block's end.
    fn may_commit(&self, batch: &[u8]) -> bool {
        self.status == TransactionStatus::Idle
            || self.has_statement(batch, |one| matches!(one, Statement::Commit(_) | Statement::Rollback(_)))
    }

    /// Whether running the batch a second time does the same as running it once, given that nothing of it committed.
    /// Statements of the system group commit elsewhere.
    fn can_repeat(&self, batch: &[u8]) -> bool {
        !self.has_statement(batch, |statement| matches!(statement, Statement::System(_)))
    }

    /// Whether the batch contains or runs such a statement, or something that cannot be read.
    fn has_statement(&self, batch: &[u8], is_such: impl Fn(&Statement) -> bool) -> bool {
        let has = |sql: &str| match syntax::parse(sql) {
            Ok(statements) => statements.iter().any(&is_such),
            Err(_) => false,
        };
        let named = |name: &str| {
            self.context.prepared.iter().any(|prepared| prepared.name == name && has(&prepared.sql))
        };
        let unnamed = || match Request::decode(b'P', &self.unnamed) {
            Ok(Request::Parse { sql, .. }) => has(sql),
            _ => false,
        };
        Messages::new(batch).any(|(tag, body)| match Request::decode(tag, body) {
            Ok(Request::Query { sql } | Request::Parse { sql, .. }) => has(sql),
            Ok(Request::Bind(bind)) if bind.statement.is_empty() => unnamed(),
            Ok(Request::Bind(bind)) => named(bind.statement),
            Ok(_) => false,
            Err(_) => true,
        })
    }

    /// Sends a batch to the other node and passes its answer on.
    async fn forward<S: ResponseSink>(&mut self, batch: &Bytes, sink: &mut S) -> Result<(), Break> {
        let env = self.gateway.env().clone();
        let mut held = None;
        let mut is_shown = false;
        let At::There { node, remote } = &mut self.at else { return Err(Break::NotRun) };
        let node = *node;
        for frame in RequestFrame::Messages(batch.clone()).encode() {
            // Why it is closed, if it is, is the last of the responses.
            if remote.requests.send(frame).await.is_err() {
                break;
            }
        }
        let mut joiner = Joiner::new(BATCH_SIZE_MAX);
        loop {
            let next = match self.interrupts.guard(&env, None, remote.responses.recv()).await {
                Ok(next) => next,
                Err(error) if error.fields().severity == Severity::Fatal => {
                    return Err(Break::End(SessionEnd::Fatal(error)));
                }
                Err(_) => {
                    self.interrupts.forget_cancel();
                    if let Some(peer) = self.gateway.peer() {
                        let (peer, key, deadline) = (Arc::clone(peer), self.key, env.now() + PEER_WAIT);
                        // A cancel request that does not arrive is as if the statement had ended before.
                        drop(
                            env.spawn("cancel", async move { drop(peer.cancel(node, key, deadline).await) }),
                        );
                    }
                    continue;
                }
            };
            let frame = match next {
                Some(Ok(frame)) => frame,
                // The client has its error by now.
                Some(Err(SessionClosed::Ended)) => return Err(Break::End(SessionEnd::Closed)),
                Some(Err(SessionClosed::NotLeader { .. })) if held.is_none() && !is_shown => {
                    return Err(Break::NotRun);
                }
                Some(Err(_)) | None => return Err(Break::Lost { held, is_shown }),
            };
            let whole = match joiner.push(frame) {
                Ok(None) => continue,
                Ok(Some(whole)) => whole,
                Err(_) => return Err(Break::Lost { held, is_shown }),
            };
            match ResponseFrame::decode(whole) {
                Ok(ResponseFrame::Data(messages)) => {
                    held = None;
                    is_shown = true;
                    sink.buffer().extend_from_slice(&messages);
                    sink.flush().await.map_err(|_| Break::End(SessionEnd::Closed))?;
                }
                Ok(ResponseFrame::Held { counter, messages }) => held = Some((counter, messages)),
                Ok(ResponseFrame::Done { status, counter, changes, messages }) => {
                    sink.buffer().extend_from_slice(&messages);
                    self.is_ready = messages.ends_with(&[b'Z', 0, 0, 0, 5, status.letter()]);
                    self.absorb(status, counter, changes);
                    return match Messages::new(batch).last() {
                        // What the session answered to Flush, or to the begin of a COPY, is wanted now.
                        Some((b'S', _)) | None => Ok(()),
                        Some(_) if self.is_ready => Ok(()),
                        Some(_) => sink.flush().await.map_err(|_| Break::End(SessionEnd::Closed)),
                    };
                }
                Ok(ResponseFrame::Outcome { .. }) | Err(_) => return Err(Break::Lost { held, is_shown }),
            }
        }
    }
}

fn moved() -> SqlError {
    SqlError::new(
        SqlState::SERIALIZATION_FAILURE,
        "the transaction was not committed because the leader of the database changed",
    )
    .with_hint("The transaction might succeed if retried.")
}

fn in_doubt() -> SqlError {
    SqlError::new(
        SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
        "the node that ran the statements was lost, and with it the answer to what may have been committed",
    )
    .with_hint("Check whether its effects are there before trying it again.")
}
