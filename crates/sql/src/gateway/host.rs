//! The host: runs sessions here, where their database is led, for gateways of other nodes.
//!
//! A batch of messages is carried out whole and answered by frames that end with `done`. Before a batch the host looks
//! whether it still leads; if not, it refuses an idle session's batch with [`SessionClosed::NotLeader`], and then
//! nothing of the batch was done. A batch that begins outside a block, falls with the leadership and has shown nothing
//! is given back with [`ResponseFrame::Fallen`], and its session ends: it is never run again here.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rustydb_env::Env;
use rustydb_txn::{Authority, KvStore};
use rustydb_types::ids::{RequestId, Term, Version};
use tokio::sync::mpsc;

use super::frame::{Joiner, RequestFrame, ResponseFrame, SessionContext, StateChanges};
use super::local::{Gateway, Learnt, Place};
use super::peer::{FRAME_COUNT_MAX, RemoteSession, SessionClosed, SessionKey, SessionOpen};
use crate::session::core::{Session, SessionEnd};
use crate::session::executor::Executor;
use crate::session::interrupt::Interrupts;
use crate::session::response::{self, Messages, TransactionStatus};
use crate::session::sink::{ResponseSink, SinkClosed};
use crate::system::DatabaseRecord;

/// Largest batch of messages, in bytes: a little more than the largest message that a gateway takes of a client.
pub const BATCH_SIZE_MAX: usize = (1 << 30) + (1 << 20);

type Registry = Arc<Mutex<BTreeMap<SessionKey, Vec<Arc<Interrupts>>>>>;

/// Runs sessions of other nodes' gateways, one per node.
pub struct Host<E: Executor> {
    env: Env,
    gateway: Arc<Gateway<E>>,
    session_count_max: usize,
    /// Running sessions. A key is there twice while a lost session has not yet noticed that it was lost.
    sessions: Registry,
}

/// Takes a session out of the registry when it ends, however it ends.
struct Registered {
    sessions: Registry,
    key: SessionKey,
    interrupts: Arc<Interrupts>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut sessions = self.sessions.lock();
        if let Some(same) = sessions.get_mut(&self.key) {
            same.retain(|other| !Arc::ptr_eq(other, &self.interrupts));
            if same.is_empty() {
                sessions.remove(&self.key);
            }
        }
    }
}

impl<E: Executor> Host<E> {
    /// The host of a node.
    #[must_use]
    pub fn new(env: Env, gateway: Arc<Gateway<E>>, session_count_max: usize) -> Self {
        Self { env, gateway, session_count_max, sessions: Arc::default() }
    }

    /// Opens a session.
    pub fn open(&self, open: SessionOpen) -> BoxFuture<'_, Result<RemoteSession, SessionClosed>> {
        async move { self.open_session(&open) }.boxed()
    }

    /// Ends what a session does now. Answers whether there is such a session.
    #[must_use]
    pub fn cancel(&self, key: SessionKey) -> bool {
        let sessions = self.sessions.lock();
        let Some(same) = sessions.get(&key) else { return false };
        for interrupts in same {
            interrupts.cancel();
        }
        true
    }

    /// Ends all sessions.
    pub fn stop(&self) {
        for interrupts in self.sessions.lock().values().flatten() {
            interrupts.terminate();
        }
    }

    fn open_session(&self, open: &SessionOpen) -> Result<RemoteSession, SessionClosed> {
        let malformed = |error: &dyn std::fmt::Display| SessionClosed::Malformed(error.to_string());
        let context = SessionContext::decode(open.context.clone()).map_err(|error| malformed(&error))?;
        let system = self.gateway.cluster().system();
        let record = system.databases.values().find(|record| record.group == open.group);
        let record = record.ok_or(SessionClosed::UnknownDatabase)?.clone();
        let (store, term) = led_here(&self.gateway, &record)?;
        let interrupts = Arc::new(Interrupts::default());
        let session = self.gateway.run_here(&record, store, open.key, &context, Arc::clone(&interrupts));
        let mut session = session.map_err(|error| malformed(&error))?;
        session.bound_to(term);
        let registered = {
            let mut sessions = self.sessions.lock();
            if sessions.values().map(Vec::len).sum::<usize>() >= self.session_count_max {
                return Err(SessionClosed::TooMany);
            }
            sessions.entry(open.key).or_default().push(Arc::clone(&interrupts));
            Registered { sessions: Arc::clone(&self.sessions), key: open.key, interrupts }
        };
        let (requests, incoming) = mpsc::channel(FRAME_COUNT_MAX);
        let (outgoing, responses) = mpsc::channel(FRAME_COUNT_MAX);
        let gateway = Arc::clone(&self.gateway);
        // What computes is not polled meanwhile, so that somebody else has to notice that the gateway has gone.
        let (running, ended) = tokio::sync::oneshot::channel::<()>();
        let (gone, stop) = (outgoing.clone(), Arc::clone(&registered.interrupts));
        drop(self.env.spawn("hosted-session-watch", async move {
            tokio::select! {
                biased;
                _ = ended => {}
                () = gone.closed() => stop.terminate(),
            }
        }));
        drop(self.env.spawn("hosted-session", async move {
            let _running = running;
            let sink = HostSink {
                buffer: BytesMut::new(),
                outgoing: outgoing.clone(),
                is_last: false,
                is_shown: false,
            };
            let opened = gateway.applied(&record);
            let hosted = Hosted { gateway, record, session, sink, opened };
            let interrupts = Arc::clone(&registered.interrupts);
            tokio::select! {
                biased;
                // The gateway is gone: whatever runs is rolled back.
                () = outgoing.closed() => {}
                () = hosted.run(incoming, &interrupts) => {}
            }
            drop(registered);
        }));
        Ok(RemoteSession { requests, responses })
    }
}

/// The store of a database that is led here, and the term it is led in.
fn led_here<E: Executor>(
    gateway: &Gateway<E>,
    record: &DatabaseRecord,
) -> Result<(KvStore, Term), SessionClosed> {
    let leader = match gateway.locate(record) {
        Place::Here(store) => {
            let authority = *store.authority().borrow();
            match authority {
                Authority::Here { term } => return Ok((store, term)),
                Authority::At(node) => Some(node),
                Authority::Unknown => None,
            }
        }
        Place::At(node) => Some(node),
        Place::Unknown => None,
    };
    Err(SessionClosed::NotLeader { leader })
}

struct Hosted<E: Executor> {
    gateway: Arc<Gateway<E>>,
    record: DatabaseRecord,
    session: Session<E>,
    sink: HostSink,
    /// What was applied when the session came here.
    opened: Version,
}

impl<E: Executor> Hosted<E> {
    async fn run(mut self, mut incoming: mpsc::Receiver<Bytes>, interrupts: &Interrupts) {
        let end = self.serve(&mut incoming, interrupts).await;
        if let Some(closed) = end {
            // Nobody may be left to be told.
            let _gone = self.sink.outgoing.send(Err(closed)).await;
        }
    }

    /// Answers batches until the gateway goes (`None`) or the session must end.
    async fn serve(
        &mut self,
        incoming: &mut mpsc::Receiver<Bytes>,
        interrupts: &Interrupts,
    ) -> Option<SessionClosed> {
        let mut joiner = Joiner::new(BATCH_SIZE_MAX);
        loop {
            let frame = tokio::select! {
                biased;
                () = interrupts.terminated() => return Some(SessionClosed::Stopping),
                frame = incoming.recv() => frame?,
            };
            let whole = match joiner.push(frame) {
                Ok(Some(whole)) => whole,
                Ok(None) => continue,
                Err(error) => return Some(SessionClosed::Malformed(error.to_string())),
            };
            match RequestFrame::decode(whole) {
                Ok(RequestFrame::Messages { since, messages: batch }) => {
                    // The batch was sent after the session was opened, too.
                    self.session.sent_after(since.max(self.opened));
                    if let Err(closed) = self.batch(&batch).await {
                        return closed;
                    }
                }
                Ok(RequestFrame::Outcome { request, since }) => {
                    let learnt = self.gateway.outcome(&self.record, request, since).await;
                    let committed = match learnt {
                        Learnt::Committed => Some(true),
                        Learnt::NotCommitted => Some(false),
                        Learnt::Forgotten => None,
                        Learnt::Nothing => return Some(SessionClosed::NotLeader { leader: None }),
                    };
                    self.sink.send(&ResponseFrame::Outcome { committed }).await.ok()?;
                }
                Err(error) => return Some(SessionClosed::Malformed(error.to_string())),
            }
        }
    }

    async fn batch(&mut self, batch: &[u8]) -> Result<(), Option<SessionClosed>> {
        if self.session.is_idle() {
            // What was sent to a leader is not for the next time that this node leads.
            let (_, term) = led_here(&self.gateway, &self.record).map_err(Some)?;
            self.session.bound_to(term);
        }
        let was_outside = self.session.status() == TransactionStatus::Idle;
        self.sink.is_shown = false;
        self.session.forget_fallen();
        let mut messages = Messages::new(batch);
        while let Some((tag, body)) = messages.next() {
            let mut after = messages;
            self.sink.is_last = match after.next() {
                // What commits at the end of a batch that was cut before its Sync is answered for later.
                None => matches!(tag, b'Q' | b'S' | b'c'),
                Some((b'S', _)) => after.next().is_none(),
                Some(_) => false,
            };
            match self.session.message(tag, body, &mut self.sink).await {
                Ok(()) if was_outside && !self.sink.is_shown && self.session.has_fallen() => {
                    let fallen = ResponseFrame::Fallen { counter: self.session.counter() };
                    self.sink.send(&fallen).await.map_err(|_| None)?;
                    return Err(None);
                }
                Ok(()) => {}
                Err(SessionEnd::Goodbye | SessionEnd::Closed) => return Err(None),
                // The client's own node goes on: to it this is the loss of another node, not the end of a session.
                Err(SessionEnd::Fatal(_)) if self.session.interrupts().is_terminated() => {
                    return Err(Some(SessionClosed::Stopping));
                }
                Err(SessionEnd::Fatal(error)) => {
                    response::sql_error(&mut self.sink.buffer, &error);
                    self.sink.flush().await.map_err(|_| None)?;
                    return Err(Some(SessionClosed::Ended));
                }
            }
        }
        let done = ResponseFrame::Done {
            status: self.session.status(),
            counter: self.session.counter(),
            is_open: self.session.has_open_request(),
            applied: self.gateway.applied(&self.record),
            changes: self.session.take_changes(),
            messages: self.sink.buffer.split().freeze(),
        };
        self.sink.send(&done).await.map_err(|_| None)
    }
}

/// Answers that go to another node's gateway.
struct HostSink {
    buffer: BytesMut,
    outgoing: mpsc::Sender<Result<Bytes, SessionClosed>>,
    /// Whether nothing but a Sync follows the message that runs, so that its answer is the end of the batch's.
    is_last: bool,
    /// Whether something of the batch's answer has gone to the client.
    is_shown: bool,
}

impl HostSink {
    async fn send(&mut self, frame: &ResponseFrame) -> Result<(), SinkClosed> {
        for part in frame.encode() {
            self.outgoing.send(Ok(part)).await.map_err(|_| SinkClosed)?;
        }
        Ok(())
    }
}

impl ResponseSink for HostSink {
    fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    async fn flush(&mut self) -> Result<(), SinkClosed> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.is_shown = true;
        let messages = self.buffer.split().freeze();
        self.send(&ResponseFrame::Data(messages)).await
    }

    async fn before_commit(
        &mut self,
        request: RequestId,
        status: TransactionStatus,
        rest: &[u8],
        changes: StateChanges,
    ) -> Result<(), SinkClosed> {
        if !self.is_last {
            return Ok(());
        }
        let mut messages = BytesMut::with_capacity(self.buffer.len() + rest.len());
        messages.put_slice(&self.buffer);
        messages.put_slice(rest);
        let held =
            ResponseFrame::Held { counter: request.counter, status, changes, messages: messages.freeze() };
        self.send(&held).await
    }
}
