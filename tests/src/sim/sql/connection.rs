//! A client's connection to a node: messages of the protocol there, answers back.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rustydb_sql::{
    exec::service::SqlExecutor,
    gateway::{Gateway, SessionContext, frame::StateChanges},
    session::{
        core::SessionEnd,
        interrupt::Interrupts,
        response::{self, Messages, TransactionStatus, tag},
        sink::{ResponseSink, SinkClosed},
    },
};
use rustydb_types::ids::{NodeId, RequestId};
use tokio::sync::mpsc;

use super::{
    super::cluster::Cluster,
    node::{SqlNode, USER},
};

/// Longest wait for an answer. A session looks for a leader, and for the fate of a commit, for 10 s each; longer than
/// both together means that something hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(25);
/// Messages and answers that are on their way between a client and its node.
const ON_THE_WAY_MAX: usize = 64;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The node is gone.
    Closed,
    /// None came in time.
    TimedOut,
}

/// An error as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The SQLSTATE.
    pub code: String,
    /// What it says.
    pub message: String,
    /// What it says besides; empty when that is nothing.
    pub detail: String,
    /// Whether the session ended with it.
    pub is_fatal: bool,
}

/// The answer to one request, up to ReadyForQuery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// All rows of all statements; NULL is an empty text.
    pub rows: Vec<Vec<String>>,
    /// The tags of the statements that were carried out.
    pub tags: Vec<String>,
    /// Whether a statement was prepared.
    pub is_parsed: bool,
    /// The error that ended the request.
    pub failure: Option<Failure>,
    /// Where the session says that it is with its transaction: a letter, or zero when it has ended.
    pub status: u8,
}

/// A statement to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// As text, by the simple protocol.
    Simple(String),
    /// As text, by the extended protocol.
    Extended(String),
    /// Several as text, by the extended protocol, up to one Sync.
    Pipeline {
        /// The texts.
        statements: Vec<String>,
        /// The last portal is closed before Sync.
        is_closed: bool,
    },
    /// Prepared under its name when it is first used on a connection, then run with parameters.
    Prepared {
        /// The name.
        name: &'static str,
        /// The text.
        sql: &'static str,
        /// The parameters.
        parameters: Vec<String>,
    },
}

/// A client's end.
pub struct Connection {
    messages: mpsc::Sender<(u8, Bytes)>,
    answers: mpsc::Receiver<Bytes>,
    interrupts: Arc<Interrupts>,
    prepared: BTreeSet<&'static str>,
    unread: BytesMut,
}

impl Connection {
    /// Connects to a node. [`None`] when it is down.
    #[must_use]
    pub fn open(cluster: &Cluster<SqlNode>, node: NodeId, database: &str) -> Option<Self> {
        let gateway = cluster.machines(node).gateway()?;
        let context = SessionContext {
            user: USER.to_owned(),
            database: database.to_owned(),
            backend_pid: 1,
            ..SessionContext::default()
        };
        let interrupts = Arc::new(Interrupts::default());
        let (messages, incoming) = mpsc::channel(ON_THE_WAY_MAX);
        let (outgoing, answers) = mpsc::channel(ON_THE_WAY_MAX);
        let serving = serve(gateway, context, Arc::clone(&interrupts), incoming, outgoing);
        let cluster = cluster.clone();
        let env = cluster.sim().harness();
        drop(env.spawn("connection", async move { cluster.at(node, "backend", serving).await }));
        Some(Self { messages, answers, interrupts, prepared: BTreeSet::new(), unread: BytesMut::new() })
    }

    /// Through which what it does is cancelled.
    #[must_use]
    pub fn interrupts(&self) -> Arc<Interrupts> {
        Arc::clone(&self.interrupts)
    }

    /// Sends a request and waits for the end of its answer.
    ///
    /// # Errors
    /// When that does not come.
    pub async fn ask(&mut self, cluster: &Cluster<SqlNode>, request: &Request) -> Result<Reply, Lost> {
        let env = cluster.sim().harness();
        let asking = self.exchange(request);
        env.timeout(ANSWER_TIMEOUT, asking).await.unwrap_or(Err(Lost::TimedOut))
    }

    async fn exchange(&mut self, request: &Request) -> Result<Reply, Lost> {
        for message in self.encode(request) {
            self.messages.send(message).await.map_err(|_| Lost::Closed)?;
        }
        let mut reply = Reply::default();
        loop {
            let is_done = absorb(&mut self.unread, &mut reply);
            if is_done || reply.failure.as_ref().is_some_and(|failure| failure.is_fatal) {
                if let Request::Prepared { name, .. } = request
                    && reply.is_parsed
                {
                    self.prepared.insert(name);
                }
                return Ok(reply);
            }
            let more = self.answers.recv().await.ok_or(Lost::Closed)?;
            self.unread.extend_from_slice(&more);
        }
    }

    fn encode(&self, request: &Request) -> Vec<(u8, Bytes)> {
        let parse = |name: &str, sql: &str| {
            let mut body = BytesMut::new();
            response::put_string(&mut body, name);
            response::put_string(&mut body, sql);
            body.put_i16(0);
            (b'P', body.freeze())
        };
        let run = |name: &str, parameters: &[String]| {
            let mut bind = BytesMut::new();
            response::put_string(&mut bind, "");
            response::put_string(&mut bind, name);
            bind.put_i16(0);
            bind.put_i16(i16::try_from(parameters.len()).unwrap_or(0));
            for parameter in parameters {
                bind.put_i32(i32::try_from(parameter.len()).unwrap_or(0));
                bind.put_slice(parameter.as_bytes());
            }
            bind.put_i16(0);
            let mut execute = BytesMut::new();
            response::put_string(&mut execute, "");
            execute.put_i32(0);
            [(b'B', bind.freeze()), (b'E', execute.freeze())]
        };
        let sync = [(b'S', Bytes::new())];
        match request {
            Request::Simple(sql) => {
                let mut body = BytesMut::new();
                response::put_string(&mut body, sql);
                vec![(b'Q', body.freeze())]
            }
            Request::Extended(sql) => [parse("", sql)].into_iter().chain(run("", &[])).chain(sync).collect(),
            Request::Pipeline { statements, is_closed } => {
                let each = statements.iter().flat_map(|sql| [parse("", sql)].into_iter().chain(run("", &[])));
                let close = is_closed.then(|| (b'C', Bytes::from_static(b"P\0")));
                each.chain(close).chain(sync).collect()
            }
            Request::Prepared { name, sql, parameters } => {
                let parse = (!self.prepared.contains(name)).then(|| parse(name, sql));
                parse.into_iter().chain(run(name, parameters)).chain(sync).collect()
            }
        }
    }
}

/// Takes whole messages into the reply. Whether it ends there.
fn absorb(unread: &mut BytesMut, reply: &mut Reply) -> bool {
    while let Some(length) =
        unread.get(1..5).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes)
    {
        let whole = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(1);
        if unread.len() < whole {
            return false;
        }
        let message = unread.split_to(whole).freeze();
        let Some((kind, body)) = Messages::new(&message).next() else { return false };
        match kind {
            // ParseComplete.
            b'1' => reply.is_parsed = true,
            tag::DATA_ROW => reply.rows.push(row(body)),
            tag::COMMAND_COMPLETE => reply.tags.push(text(body.strip_suffix(&[0]).unwrap_or(body))),
            tag::ERROR => reply.failure = Some(failure(body)),
            tag::READY_FOR_QUERY => {
                reply.status = body.first().copied().unwrap_or(0);
                return true;
            }
            _ => {}
        }
    }
    false
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn row(mut body: &[u8]) -> Vec<String> {
    let columns = body.try_get_i16().unwrap_or(0);
    let value = |_| {
        let size = usize::try_from(body.try_get_i32().unwrap_or(-1)).unwrap_or(0);
        let (value, rest) = body.split_at_checked(size).unwrap_or_default();
        body = rest;
        text(value)
    };
    (0..columns).map(value).collect()
}

fn failure(body: &[u8]) -> Failure {
    let field = |letter: u8| {
        let mut fields = body.split(|byte| *byte == 0);
        fields.find_map(|field| field.strip_prefix(&[letter])).map(text).unwrap_or_default()
    };
    let is_fatal = matches!(&*field(b'V'), "FATAL" | "PANIC");
    Failure { code: field(b'C'), message: field(b'M'), detail: field(b'D'), is_fatal }
}

/// The node's end: as the front end of a server, without the sockets.
async fn serve(
    gateway: Arc<Gateway<SqlExecutor>>,
    context: SessionContext,
    interrupts: Arc<Interrupts>,
    mut incoming: mpsc::Receiver<(u8, Bytes)>,
    outgoing: mpsc::Sender<Bytes>,
) {
    let mut sink = ClientSink { buffer: BytesMut::new(), outgoing: outgoing.clone() };
    let serving = async {
        let mut session = gateway
            .connect(gateway.next_session(), &context, interrupts)
            .await
            .map_err(|error| SessionEnd::Fatal(error.with_severity(rustydb_sql::error::Severity::Fatal)))?;
        while let Some((tag, body)) = incoming.recv().await {
            session.message(tag, &body, &mut sink).await?;
            // As over a socket: what has come is carried out before the answers leave.
            if incoming.is_empty() {
                sink.flush().await?;
            }
        }
        Ok::<(), SessionEnd>(())
    };
    let ended = tokio::select! {
        biased;
        ended = serving => ended,
        () = outgoing.closed() => return,
    };
    if let Err(SessionEnd::Fatal(error)) = ended {
        response::sql_error(&mut sink.buffer, &error);
        // The client may have gone.
        let _gone = sink.flush().await;
    }
}

struct ClientSink {
    buffer: BytesMut,
    outgoing: mpsc::Sender<Bytes>,
}

impl ResponseSink for ClientSink {
    fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    async fn flush(&mut self) -> Result<(), SinkClosed> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.outgoing.send(self.buffer.split().freeze()).await.map_err(|_| SinkClosed)
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
