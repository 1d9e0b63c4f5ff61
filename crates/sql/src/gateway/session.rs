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
//! When a place is lost under a request:
//! - the commit that may have taken place is asked for at the new leader, which also makes sure that it never will,
//!   unless the place itself said that the request fell and nothing of it was committed;
//! - committed: the client gets the answer that was held back for this case;
//! - nothing committed, the request began outside a block and nothing of its answer was shown: it runs again, with
//!   request ids that were not used before, until [`REPEAT_WAIT`] is over or its statement timeout is;
//! - nothing committed otherwise: 40001, and an open block has failed;
//! - what cannot be known: 08007.
//!
//! Nobody but the gateway runs a request again, so there is one to decide it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustydb_env::{Bug, Instant};
use rustydb_txn::KvStore;
use rustydb_types::ids::{NodeId, RequestId, Version};

use super::fate::{in_doubt, moved};
use super::forward::Break;
use super::frame::{PreparedText, SessionContext, StateChanges};
use super::listening::Listening;
use super::local::{Gateway, LEADER_WAIT, Place, RETRY_PAUSE};
use super::peer::{FRAME_SIZE_MAX, RemoteSession, SessionClosed, SessionKey, SessionOpen};
use super::portals::Portals;
use super::taken::{self, Taken, Watched, put_message};
use crate::bind::privilege::Authority;
use crate::catalog::acl::Privileges;
use crate::catalog::snapshot::BOOTSTRAP_ROLE;
use crate::error::{Severity, SqlError, SqlState};
use crate::session::advisory;
use crate::session::core::{Session, SessionEnd, idle_deadline};
use crate::session::executor::Executor;
use crate::session::failure::ask_later;
use crate::session::interrupt::{Deadline, Interrupts};
use crate::session::request::{Request, Target};
use crate::session::response::{self, Mark, Messages, TransactionStatus};
use crate::session::roles;
use crate::session::sequences;
use crate::session::settings::Settings;
use crate::session::sink::{ResponseSink, SinkClosed};
use crate::session::statement::Statement;
use crate::session::syntax;
use crate::system::DatabaseRecord;

/// How long another node may take to open a session or to take a cancel request.
pub(super) const PEER_WAIT: Duration = Duration::from_secs(3);

/// How long after it was first lost a request is begun again.
pub const REPEAT_WAIT: Duration = LEADER_WAIT;

pub(super) enum At<E: Executor> {
    Nowhere,
    Here { session: Box<Session<E>>, store: KvStore },
    There { node: NodeId, remote: RemoteSession },
}

/// A client's session.
pub struct GatewaySession<E: Executor> {
    pub(super) gateway: Arc<Gateway<E>>,
    pub(super) record: DatabaseRecord,
    pub(super) key: SessionKey,
    pub(super) interrupts: Arc<Interrupts>,
    pub(super) at: At<E>,
    /// What the next place is given.
    pub(super) context: SessionContext,
    settings: Settings,
    /// Body of the last Parse of the unnamed statement; empty when there is none.
    pub(super) unnamed: Vec<u8>,
    pub(super) status: TransactionStatus,
    /// Messages that are still to be forwarded.
    batch: BytesMut,
    /// A version from before all that came since everything was last answered for.
    pub(super) since: Version,
    /// Whether the transaction of the last request id that was used is open where the session is.
    pub(super) is_open: bool,
    /// What was bound to portals and decides what a batch that executes them may do.
    pub(super) portals: Portals,
    /// Whether the session holds advisory locks that outlive transactions: it cannot go elsewhere.
    pub(super) holds_locks: bool,
    /// Notifications for the session, if it listens.
    pub(super) listening: Option<Listening>,
    /// The batch of the Query whose COPY takes data: what follows it there runs when the data has come.
    pub(super) copying: Bytes,
    /// The request that runs here.
    taken: Taken,
    /// When the request began that the batch is of, unless with the batch.
    began: Option<Instant>,
    /// Whether the last answer ended with ReadyForQuery.
    pub(super) is_ready: bool,
    /// Whether all that was answered since ReadyForQuery was preparation of statements.
    is_prepared: bool,
    /// Whether the client's present request is a Query, which an error ends.
    is_query: bool,
    /// Messages are skipped up to Sync.
    is_skipping: bool,
    /// A cancel request was passed on for the batch that runs elsewhere.
    pub(super) is_cancelled: bool,
    /// The open block is lost, and the client is told so when it next asks for something that may fail.
    is_block_lost: bool,
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
        let role = system.role_named(&context.user);
        let is_superuser = role.is_some_and(|role| role.superuser);
        let authority = role.map(|role| Authority::of(role.oid, &system, Some(record.id)));
        if authority.is_some_and(|authority| !authority.database.has(Privileges::CONNECT)) {
            let message = format!("permission denied for database \"{}\"", record.name);
            return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message)
                .with_detail("User does not have CONNECT privilege."));
        }
        let mut settings = Settings::of_session(&context.user, is_superuser, &context.settings)?;
        roles::begin(&context.user, &mut settings, &system)?;
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
            since: Version::ZERO,
            is_open: false,
            portals: Portals::default(),
            holds_locks: false,
            listening: None,
            copying: Bytes::new(),
            taken: Taken::default(),
            began: None,
            is_ready: true,
            is_prepared: true,
            is_query: false,
            is_skipping: false,
            is_cancelled: false,
            is_block_lost: false,
        };
        let deadline = session.gateway.env().now() + LEADER_WAIT;
        session.find_place(deadline, None).await?;
        Ok(session)
    }

    /// The client is gone: what ends with the session goes, if the database's leader can be reached in a while. What
    /// is left otherwise goes when the node has begun another life.
    pub async fn end(&mut self) {
        /// How long that may take.
        const PATIENCE: Duration = Duration::from_secs(10);
        if !self.context.has_temporary {
            return;
        }
        let env = self.gateway.env().clone();
        // As a session that has just begun, so that nothing of what was set or is under way is in the way.
        self.at = At::Nowhere;
        self.interrupts = Arc::default();
        (self.status, self.holds_locks, self.listening) = (TransactionStatus::Idle, false, None);
        (self.is_ready, self.is_skipping, self.is_block_lost) = (true, false, false);
        (self.batch, self.copying, self.taken) = (BytesMut::new(), Bytes::new(), Taken::default());
        self.unnamed.clear();
        self.portals = Portals::default();
        let former = std::mem::take(&mut self.context);
        // The role that logged in may be gone.
        let system = self.gateway.cluster().system();
        let user = system.roles.get(&BOOTSTRAP_ROLE).map_or(former.user, |role| role.name.clone());
        self.context = SessionContext {
            user,
            database: former.database,
            client_address: former.client_address,
            backend_pid: former.backend_pid,
            counter: former.counter,
            has_temporary: true,
            ..SessionContext::default()
        };
        if let Ok(settings) = Settings::of_session(&self.context.user, false, &[]) {
            self.settings = settings;
        }
        let mut answer = Unread::default();
        let done = env.timeout(PATIENCE, self.message(b'Q', b"DISCARD TEMP\0", &mut answer)).await;
        let is_done = matches!(done, Ok(Ok(()))) && answer.0.first() == Some(&b'C');
        if !is_done {
            tracing::info!(
                database = self.record.name,
                "what a session had of temporary objects is still there"
            );
        }
        self.at = At::Nowhere;
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
        if let At::Here { session, store } = &self.at {
            if store.is_leader() || !session.is_idle() {
                return self.message_here(tag, body, sink).await;
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
        put_message(&mut self.batch, tag, body);
        let ends = ends_batch(tag);
        if ends || self.batch.len() >= FRAME_SIZE_MAX { self.run_batch(sink).await } else { Ok(()) }
    }

    /// Carries out one message at this node.
    async fn message_here<S: ResponseSink>(
        &mut self,
        tag: u8,
        body: &[u8],
        sink: &mut S,
    ) -> Result<(), SessionEnd> {
        let At::Here { session, .. } = &mut self.at else { return Ok(()) };
        let begins = session.is_idle();
        let size = sink.buffer().len();
        if begins {
            self.taken.begin(size, self.gateway.env().now());
        } else if self.taken.is_whole() && self.taken.is_shown(size) {
            self.shown_here(size);
        }
        // A Query by itself need not be kept: it is still at hand when it has failed.
        let is_alone = begins && tag == b'Q';
        let is_kept = !is_alone && self.taken.add(tag, body);
        let At::Here { session, .. } = &mut self.at else { return Ok(()) };
        let mut watched = Watched::new(sink, self.taken.answer_start());
        session.message(tag, body, &mut watched).await?;
        let is_shown = watched.is_shown;
        self.taken.begins_at(watched.start);
        let size = sink.buffer().len();
        if self.taken.is_whole() && !is_shown && session.has_fallen() {
            self.context.counter = self.context.counter.max(session.counter());
            sink.buffer().truncate(self.taken.answer_start());
            self.at = At::Nowhere;
            self.began = self.taken.began();
            self.is_query = tag == b'Q';
            self.is_ready = true;
            self.batch.clear();
            self.batch.extend_from_slice(self.taken.messages());
            if is_alone {
                put_message(&mut self.batch, tag, body);
            }
            self.taken.forget();
            // The rest of an extended request is still to come.
            return if ends_batch(tag) { self.run_batch(sink).await } else { Ok(()) };
        }
        self.taken.seen(size);
        let is_done = !session.is_busy();
        if is_done || !self.taken.is_whole() {
            self.settle_here();
            if !is_kept {
                self.note(tag, body);
            }
        } else if is_shown {
            self.shown_here(size);
        }
        if is_done {
            self.taken.give_up();
        }
        Ok(())
    }

    /// The client has got what was answered so far of the request that runs here.
    fn shown_here(&mut self, size: usize) {
        self.settle_here();
        if self.taken.is_preparation() {
            self.taken.go_on(size);
        } else {
            self.taken.give_up();
        }
    }

    /// What the messages that were taken have changed of the session holds.
    fn settle_here(&mut self) {
        self.absorb_here();
        let mut taken = std::mem::take(&mut self.taken);
        for (tag, body) in Messages::new(taken.messages()) {
            self.note(tag, body);
        }
        taken.forget();
        self.taken = taken;
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

    pub(super) fn absorb(&mut self, status: TransactionStatus, counter: u64, changes: StateChanges) {
        self.status = status;
        self.context.counter = self.context.counter.max(counter);
        self.context.is_failed = status == TransactionStatus::Failed;
        if changes.is_empty() {
            return;
        }
        self.holds_locks = changes.holds_locks.unwrap_or(self.holds_locks);
        self.listens(changes.channels, changes.has_sent);
        self.context.has_temporary |= changes.has_temporary;
        for given in &changes.sequences {
            sequences::note(&mut self.context.sequences, *given);
        }
        for name in &changes.deallocated {
            self.context.prepared.retain(|prepared| prepared.name != *name);
        }
        for prepared in changes.prepared {
            self.context.prepared.retain(|other| other.name != prepared.name);
            self.context.prepared.push(prepared);
        }
        if !changes.settings.is_empty() {
            let superuser = self.settings.began_as_superuser();
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
    ///
    /// # Errors
    /// 57P03 at the deadline, 57014 when the statement may take no longer, 53300.
    async fn find_place(&mut self, deadline: Instant, timeout: Option<Deadline>) -> Result<(), SqlError> {
        if self.holds_locks {
            // Whoever leads now may have given them to others.
            return Err(advisory::lost());
        }
        let env = self.gateway.env().clone();
        self.context.has_replica = self.gateway.cluster().store(self.record.id).is_some();
        let mut context = self.carried();
        let mut turn = 0;
        let mut hint = None;
        loop {
            self.interrupts.check()?;
            Interrupts::check_deadline(&env, timeout)?;
            context.spent = self.began.map_or(Duration::ZERO, |began| env.now().saturating_since(began));
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
                    hint.take().or_else(|| self.gateway.replica(&self.record, turn))
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
                match self.interrupts.guard(&env, timeout, opening).await? {
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
            self.interrupts.guard(&env, timeout, env.sleep(RETRY_PAUSE)).await?;
        }
    }

    async fn run_batch<S: ResponseSink>(&mut self, sink: &mut S) -> Result<(), SessionEnd> {
        let ended = self.run_until_answered(sink).await;
        self.began = None;
        ended
    }

    async fn run_until_answered<S: ResponseSink>(&mut self, sink: &mut S) -> Result<(), SessionEnd> {
        let env = self.gateway.env().clone();
        let batch = self.batch.split().freeze();
        if self.is_block_lost {
            if is_closing(&batch) {
                self.close(&batch, sink);
                return Ok(());
            }
            self.is_block_lost = false;
            if !self.takes_back(&batch) {
                return self.fail_block(false, false, &batch, sink);
            }
            self.absorb(TransactionStatus::Failed, 0, StateChanges::default());
        }
        let was_ready = self.is_ready;
        if was_ready {
            self.copying = Bytes::new();
        }
        if was_ready && self.status == TransactionStatus::Idle {
            // Everything so far is answered for. What is asked for from here on cannot have been committed before.
            self.since = self.gateway.applied(&self.record);
        }
        let is_request = was_ready || self.is_prepared;
        let began = *self.began.get_or_insert_with(|| env.now());
        let timeout =
            self.settings.derived().statement_timeout.map(|timeout| Deadline { at: began + timeout });
        self.is_cancelled = false;
        // When the batch was lost first; it is begun again for some time from then.
        let mut lost_first = None;
        // The place may hang, and the session has nothing there that it needs.
        if let At::There { node, .. } = &self.at
            && was_ready
            && self.status == TransactionStatus::Idle
            && self.gateway.is_led_elsewhere(&self.record, *node)
        {
            self.at = At::Nowhere;
        }
        let bound = self.bound_by(&batch);
        loop {
            if matches!(self.at, At::Nowhere) {
                self.is_open = false;
                let deadline = lost_first.unwrap_or_else(|| env.now()) + REPEAT_WAIT;
                if let Err(error) = self.find_place(deadline, timeout).await {
                    return self.fail(error, &batch, sink);
                }
            }
            let is_whole = is_request && self.status == TransactionStatus::Idle && self.can_repeat(&batch);
            let lost = match &self.at {
                At::Here { .. } => match self.run_here(&batch, is_whole, sink).await? {
                    Some(counter) => Break::Fallen { counter },
                    None => break,
                },
                _ => match self.forward(&batch, sink).await {
                    Ok(()) => break,
                    Err(lost) => lost,
                },
            };
            self.at = At::Nowhere;
            let lost_first = *lost_first.get_or_insert_with(|| env.now());
            match lost {
                Break::End(end) => return Err(end),
                Break::NotRun if was_ready || is_whole => {}
                Break::NotRun => return self.fail(moved(), &batch, sink),
                Break::Fallen { counter } => {
                    self.absorb(TransactionStatus::Idle, counter, StateChanges::default());
                    if !is_whole {
                        return self.fail(moved(), &batch, sink);
                    }
                }
                Break::Lost { held, is_shown } => {
                    let counter = held.as_ref().map(|held| held.counter);
                    let part = self.part(&batch, counter);
                    let token = self.token(&part);
                    self.use_up(&batch);
                    let fate = match &held {
                        Some(_) if env.has_bug(Bug::FateAssumed) => Some(true),
                        Some(_) if env.has_bug(Bug::FateDenied) => Some(false),
                        None if !self.may_commit(&batch) => Some(false),
                        _ => self.fate(&part, counter).await,
                    };
                    match (fate, held) {
                        (Some(true), Some(held)) => {
                            sink.buffer().extend_from_slice(&held.messages);
                            self.absorb(held.status, 0, held.changes);
                            self.is_ready = true;
                            // A block that the commit began went with the node.
                            self.is_block_lost = held.status == TransactionStatus::InBlock;
                            break;
                        }
                        (Some(false), _) if is_whole && !is_shown => {}
                        // A ROLLBACK is carried out by what has happened.
                        (Some(false), None) if was_ready && !is_shown && self.takes_back(&batch) => {
                            self.absorb(TransactionStatus::Failed, 0, StateChanges::default());
                        }
                        // Nothing that fails was asked for, and drivers pay no heed to what is answered here.
                        (Some(false), None) if was_ready && is_closing(&batch) => {
                            self.is_block_lost = self.status == TransactionStatus::InBlock;
                            self.close(&batch, sink);
                            return Ok(());
                        }
                        (Some(false), held) => return self.fail_block(held.is_some(), true, &batch, sink),
                        (Some(true), None) | (None, _) => {
                            self.absorb(TransactionStatus::Idle, 0, StateChanges::default());
                            return self.fail(ask_later(in_doubt(), token.as_deref()), &batch, sink);
                        }
                    }
                }
            }
            if self.is_cancelled {
                return self.fail(Interrupts::cancelled(), &batch, sink);
            }
            if env.now() >= lost_first + REPEAT_WAIT {
                return self.fail(moved(), &batch, sink);
            }
            // Whoever leads by now may not have said so yet.
            env.sleep(RETRY_PAUSE).await;
        }
        let is_preparation = Messages::new(&batch).all(|(tag, body)| taken::is_preparation(tag, body));
        self.is_prepared = self.is_ready || is_request && is_preparation;
        for (tag, body) in Messages::new(&batch) {
            self.note(tag, body);
        }
        if self.status == TransactionStatus::Failed
            && Messages::new(&batch).any(|(tag, body)| tag == b'P' && body.first() == Some(&0))
        {
            // It may have been skipped, and the former one is there still.
            self.unnamed.clear();
        }
        let is_over = self.is_ready && self.status == TransactionStatus::Idle;
        self.portals.note(bound, self.status, is_over);
        self.copying = if self.is_ready { Bytes::new() } else { self.copied(batch) };
        Ok(())
    }

    /// What is to be remembered of a batch that is not answered to its end: the Query whose COPY takes data.
    fn copied(&mut self, batch: Bytes) -> Bytes {
        let is_query = Messages::new(&batch).any(|(tag, _)| tag == b'Q');
        if is_query { batch } else { std::mem::take(&mut self.copying) }
    }

    /// Carries out a batch at this node. Gives how many request ids were used when it has fallen with the leadership,
    /// can be run again, and nothing of its answer is left.
    async fn run_here<S: ResponseSink>(
        &mut self,
        batch: &Bytes,
        is_whole: bool,
        sink: &mut S,
    ) -> Result<Option<u64>, SessionEnd> {
        self.taken.give_up();
        let At::Here { session, .. } = &mut self.at else { return Ok(None) };
        let mut watched = Watched::new(sink, 0);
        watched.start = watched.buffer().len();
        for (tag, body) in Messages::new(batch) {
            session.message(tag, body, &mut watched).await?;
            if is_whole && !watched.is_shown && session.has_fallen() {
                let start = watched.start;
                sink.buffer().truncate(start);
                return Ok(Some(session.counter()));
            }
        }
        self.absorb_here();
        Ok(None)
    }

    /// Tells the client that its block is lost, of which nothing was committed. `is_held`: a commit ended it. `is_sent`:
    /// some of the batch may have run.
    fn fail_block<S: ResponseSink>(
        &mut self,
        is_held: bool,
        is_sent: bool,
        batch: &[u8],
        sink: &mut S,
    ) -> Result<(), SessionEnd> {
        let has_commit = self.has_statement(batch, |one| matches!(one, Statement::Commit(_)));
        let status = match self.status {
            TransactionStatus::Idle => TransactionStatus::Idle,
            _ if is_held || has_commit => TransactionStatus::Idle,
            _ => TransactionStatus::Failed,
        };
        self.absorb(status, 0, StateChanges::default());
        // Databases and roles change in a group of their own, which may go on without this one.
        let is_over = !is_sent || self.can_repeat(batch);
        let error = if is_over { moved() } else { ask_later(in_doubt(), None) };
        self.fail(error, batch, sink)
    }

    /// Carries out what [`is_closing`] without a place to run it at.
    fn close<S: ResponseSink>(&mut self, batch: &[u8], sink: &mut S) {
        for (tag, body) in Messages::new(batch) {
            match Request::decode(tag, body) {
                Ok(Request::Close { target, name }) => {
                    match target {
                        Target::Statement if name.is_empty() => self.unnamed.clear(),
                        Target::Statement => self.context.prepared.retain(|prepared| prepared.name != name),
                        // It went with the block.
                        Target::Portal => {}
                    }
                    response::mark(sink.buffer(), Mark::CloseComplete);
                }
                _ => self.ready(sink),
            }
        }
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
        let is_end = Messages::new(batch).last().is_some_and(|(tag, _)| matches!(tag, b'S' | b'Q'));
        if self.is_query || is_end {
            self.ready(sink);
        } else {
            self.is_skipping = true;
        }
        Ok(())
    }
}

/// What a session answers when nobody listens any more.
#[derive(Default)]
struct Unread(BytesMut);

impl ResponseSink for Unread {
    fn buffer(&mut self) -> &mut BytesMut {
        &mut self.0
    }

    async fn flush(&mut self) -> Result<(), SinkClosed> {
        Ok(())
    }

    async fn before_commit(
        &mut self,
        _: RequestId,
        _: TransactionStatus,
        _: &[u8],
        _: StateChanges,
    ) -> Result<(), SinkClosed> {
        Ok(())
    }
}

/// Whether a batch only closes statements and portals, and ends with Sync.
fn is_closing(batch: &[u8]) -> bool {
    let mut last = 0;
    let closes = Messages::new(batch).all(|(tag, body)| {
        last = tag;
        tag == b'S' || (tag == b'C' && Request::decode(tag, body).is_ok())
    });
    closes && last == b'S'
}

/// Whether what has come of a request is carried out when this message has come.
const fn ends_batch(tag: u8) -> bool {
    matches!(tag, b'Q' | b'S' | b'F' | b'H' | b'c' | b'f')
}
