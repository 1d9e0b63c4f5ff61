//! One client: start-up, login, then messages to the session and answers back.
//!
//! All complete messages that have arrived are carried out before anything is sent, so a pipeline costs one write;
//! the session itself sends when its buffer is full, so a slow reader slows it and nothing grows.

use std::net::SocketAddr;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Buf, BufMut, BytesMut};
use ring::rand::SecureRandom as _;
use rustydb_sql::error::{Severity, SqlError, SqlState};
use rustydb_sql::gateway::{GatewaySession, SessionContext};
use rustydb_sql::session::core::SessionEnd;
use rustydb_sql::session::executor::Executor;
use rustydb_sql::session::interrupt::Interrupts;
use rustydb_sql::session::response::{self, TransactionStatus};
use rustydb_sql::session::sink::{ResponseSink, SinkClosed};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::access::{self, Method, Visitor};
use crate::scram::{self, Binding, Claim, Exchange, ScramError, Verifier};
use crate::server::Shared;
use crate::startup::{self, STARTUP_SIZE_MAX, StartupPacket, StartupParameters};

/// What is read at once at least.
const READ_SIZE: usize = 8 * 1024;

/// A buffer that has grown beyond this is given back when it is empty.
const BUFFER_SIZE_KEPT: usize = 256 * 1024;

/// A socket, with or without TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Why a connection ends.
enum End {
    /// Nothing is to be said.
    Quiet,
    /// The client is told.
    Fatal(SqlError),
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Quiet
    }
}

impl From<SinkClosed> for End {
    fn from(_: SinkClosed) -> Self {
        Self::Quiet
    }
}

fn fatal(state: SqlState, message: impl Into<String>) -> End {
    End::Fatal(SqlError::new(state, message).with_severity(Severity::Fatal))
}

fn violation(message: impl Into<String>) -> End {
    fatal(SqlState::PROTOCOL_VIOLATION, message)
}

/// The two directions of a connection.
struct Wire<'m, S> {
    stream: S,
    input: BytesMut,
    output: BytesMut,
    metrics: &'m crate::metrics::Metrics,
}

impl<S: Stream> Wire<'_, S> {
    async fn read_more(&mut self) -> Result<(), End> {
        self.input.reserve(READ_SIZE);
        let count = self.stream.read_buf(&mut self.input).await?;
        self.metrics.received_bytes_total.add(count as u64);
        if count == 0 { Err(End::Quiet) } else { Ok(()) }
    }

    async fn send(&mut self) -> Result<(), SinkClosed> {
        if self.output.is_empty() {
            return Ok(());
        }
        self.metrics.sent_bytes_total.add(self.output.len() as u64);
        let written = async {
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await
        };
        written.await.map_err(|_| SinkClosed)?;
        self.output.clear();
        if self.output.capacity() > BUFFER_SIZE_KEPT {
            self.output = BytesMut::new();
        }
        Ok(())
    }

    /// Waits for a start-up packet.
    async fn startup(&mut self) -> Result<StartupPacket, End> {
        let refuse =
            |error: startup::StartupError| fatal(SqlState::from_code(error.sqlstate()), error.to_string());
        while self.input.len() < 4 {
            self.read_more().await?;
        }
        let rest = startup::rest_length(self.input.get_u32()).map_err(refuse)?;
        while self.input.len() < rest {
            self.read_more().await?;
        }
        startup::parse(&self.input.split_to(rest)).map_err(refuse)
    }

    /// Waits for a password message.
    async fn password(&mut self) -> Result<BytesMut, End> {
        loop {
            if let Some((tag, body)) = next_message(&self.input, 0, STARTUP_SIZE_MAX)? {
                if tag != b'p' {
                    return Err(violation(format!("expected password response, got message type {tag}")));
                }
                self.input.advance(body.start);
                return Ok(self.input.split_to(body.len()));
            }
            self.read_more().await?;
        }
    }
}

/// The message that begins at `from`, when all of it is there: its type and where its body lies.
fn next_message(input: &[u8], from: usize, size_max: usize) -> Result<Option<(u8, Range<usize>)>, End> {
    let Some(&[tag, a, b, c, d]) = input.get(from..).and_then(|rest| rest.first_chunk::<5>()) else {
        return Ok(None);
    };
    let length =
        usize::try_from(i32::from_be_bytes([a, b, c, d])).ok().and_then(|length| length.checked_sub(4));
    let Some(length) = length else { return Err(violation("invalid message length")) };
    if length > size_max {
        return Err(violation(format!("message of {length} bytes exceeds the limit of {size_max} bytes")));
    }
    let start = from + 5;
    Ok((input.len() - start >= length).then(|| (tag, start..start + length)))
}

impl<S: Stream> ResponseSink for Wire<'_, S> {
    fn buffer(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    async fn flush(&mut self) -> Result<(), SinkClosed> {
        self.send().await
    }

    async fn before_commit(
        &mut self,
        _: rustydb_types::ids::RequestId,
        _: TransactionStatus,
        _: &[u8],
        _: rustydb_sql::gateway::frame::StateChanges,
    ) -> Result<(), SinkClosed> {
        // A client of this node that loses it loses its connection, so there is nobody to keep an answer for.
        Ok(())
    }
}

/// Counts a connection while it is open.
struct Counted<'s, E: Executor>(&'s Shared<E>);

impl<'s, E: Executor> Counted<'s, E> {
    fn new(shared: &'s Shared<E>) -> (Self, usize) {
        shared.metrics.connections.add(1);
        (Self(shared), shared.open.fetch_add(1, Ordering::SeqCst))
    }
}

impl<E: Executor> Drop for Counted<'_, E> {
    fn drop(&mut self) {
        self.0.metrics.connections.subtract(1);
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Serves one client to its end.
pub(crate) async fn serve<E: Executor>(shared: Arc<Shared<E>>, stream: TcpStream, address: SocketAddr) {
    let (_counted, before) = Counted::new(&shared);
    let timeout = shared.config.authentication_timeout;
    let mut wire = Wire { stream, input: BytesMut::new(), output: BytesMut::new(), metrics: &shared.metrics };
    let first = shared.env.timeout(timeout, negotiate(&shared, &mut wire)).await;
    match first {
        Ok(Ok(Negotiated::Plain(parameters))) => {
            login(&shared, wire, address, before, parameters, false).await
        }
        Ok(Ok(Negotiated::Tls)) => {
            let Some(identity) = &shared.config.tls else { return };
            let Ok(Ok(stream)) = shared.env.timeout(timeout, identity.acceptor.accept(wire.stream)).await
            else {
                return;
            };
            let mut wire =
                Wire { stream, input: BytesMut::new(), output: BytesMut::new(), metrics: &shared.metrics };
            match shared.env.timeout(timeout, wire.startup()).await {
                Ok(Ok(StartupPacket::Start(parameters))) => {
                    login(&shared, wire, address, before, parameters, true).await;
                }
                Ok(Ok(StartupPacket::Cancel { pid, secret })) => cancel(&shared, pid, &secret),
                Ok(Ok(_)) => say_goodbye(&mut wire, violation("unsupported request inside TLS")).await,
                Ok(Err(end)) => say_goodbye(&mut wire, end).await,
                Err(_) => {}
            }
        }
        Ok(Ok(Negotiated::Nothing)) | Err(_) => {}
        Ok(Err(end)) => say_goodbye(&mut wire, end).await,
    }
}

enum Negotiated {
    Plain(StartupParameters),
    Tls,
    Nothing,
}

async fn negotiate<E: Executor, S: Stream>(
    shared: &Shared<E>,
    wire: &mut Wire<'_, S>,
) -> Result<Negotiated, End> {
    // A client asks at most once for each kind of encryption before it starts.
    for _ in 0..3 {
        match wire.startup().await? {
            StartupPacket::Start(parameters) => return Ok(Negotiated::Plain(parameters)),
            StartupPacket::Cancel { pid, secret } => {
                cancel(shared, pid, &secret);
                return Ok(Negotiated::Nothing);
            }
            StartupPacket::Tls if shared.config.tls.is_some() => {
                // Whatever came with the request in clear would be taken for encrypted (CVE-2021-23214).
                if !wire.input.is_empty() {
                    return Err(violation("received unencrypted data after SSL request"));
                }
                wire.output.put_u8(b'S');
                wire.send().await?;
                return Ok(Negotiated::Tls);
            }
            StartupPacket::Tls | StartupPacket::Gss => {
                wire.output.put_u8(b'N');
                wire.send().await?;
            }
        }
    }
    Err(violation("too many encryption requests"))
}

fn cancel<E: Executor>(shared: &Shared<E>, pid: u32, secret: &[u8]) {
    let sessions = shared.sessions.lock();
    if let Some((expected, interrupts)) = sessions.get(&pid)
        && scram::same(&expected.to_be_bytes(), secret)
    {
        interrupts.cancel();
        shared.metrics.cancel_requests_total.add(1);
    }
}

async fn say_goodbye<S: Stream>(wire: &mut Wire<'_, S>, end: End) {
    if let End::Fatal(error) = end {
        if error.state() == SqlState::PROTOCOL_VIOLATION {
            wire.metrics.protocol_violations_total.add(1);
        }
        response::sql_error(&mut wire.output, &error);
    }
    let _gone = wire.send().await;
    let _gone = wire.stream.shutdown().await;
}

async fn login<E: Executor, S: Stream>(
    shared: &Shared<E>,
    mut wire: Wire<'_, S>,
    address: SocketAddr,
    before: usize,
    parameters: StartupParameters,
    is_tls: bool,
) {
    let interrupts = Arc::new(Interrupts::default());
    let begun = begin(shared, &mut wire, address, before, &parameters, is_tls, &interrupts);
    let begun = shared.env.timeout(shared.config.authentication_timeout, begun).await;
    let (registration, mut session) = match begun {
        Ok(Ok(begun)) => begun,
        Ok(Err(end)) => return say_goodbye(&mut wire, end).await,
        Err(_) => {
            let message = "canceling authentication due to timeout";
            return say_goodbye(&mut wire, fatal(SqlState::from_code("57014"), message)).await;
        }
    };
    let end = run(shared, &mut wire, &mut session, &interrupts).await;
    drop(registration);
    if let Err(end) = end {
        say_goodbye(&mut wire, end).await;
    }
    session.end().await;
}

/// Logs in and begins the session; gives the registration that cancel requests find it by.
async fn begin<'s, E: Executor, S: Stream>(
    shared: &'s Shared<E>,
    wire: &mut Wire<'_, S>,
    address: SocketAddr,
    before: usize,
    parameters: &StartupParameters,
    is_tls: bool,
    interrupts: &Arc<Interrupts>,
) -> Result<(Registration<'s, E>, GatewaySession<E>), End> {
    if parameters.replication {
        return Err(fatal(SqlState::FEATURE_NOT_SUPPORTED, "replication connections are not supported"));
    }
    if parameters.minor_version > 0 || !parameters.unknown_options.is_empty() {
        response::message(&mut wire.output, b'v', |out| {
            out.put_u32(0);
            out.put_u32(u32::try_from(parameters.unknown_options.len()).unwrap_or(u32::MAX));
            for option in &parameters.unknown_options {
                response::put_string(out, option);
            }
        });
    }
    authenticate(shared, wire, address, parameters, is_tls).await?;
    let config = &shared.config;
    let system = shared.gateway.cluster().system();
    let is_superuser = system.role_named(&parameters.user).is_some_and(|role| role.superuser);
    let free = config.connection_count_max.saturating_sub(before);
    if free == 0 || (free <= config.superuser_count_reserved && !is_superuser) {
        shared.metrics.connections_refused_total.add(1);
        let message = if free == 0 {
            "sorry, too many clients already"
        } else {
            "remaining connection slots are reserved for non-replication superuser connections"
        };
        return Err(fatal(SqlState::TOO_MANY_CONNECTIONS, message));
    }
    let registration = register(shared, interrupts)?;
    let context = SessionContext {
        user: parameters.user.clone(),
        backend_pid: registration.pid.cast_signed(),
        database: parameters.database.clone(),
        client_address: address.to_string(),
        settings: config.settings.iter().chain(&parameters.settings).cloned().collect(),
        ..SessionContext::default()
    };
    let number = shared.gateway.next_session();
    let session = shared.gateway.connect(number, &context, Arc::clone(interrupts)).await;
    let session = session.map_err(|error| End::Fatal(error.with_severity(Severity::Fatal)))?;
    session.write_greeting(&mut wire.output);
    response::message(&mut wire.output, b'K', |out| {
        out.put_u32(registration.pid);
        out.put_u32(registration.secret);
    });
    response::ready_for_query(&mut wire.output, session.status());
    Ok((registration, session))
}

/// The number and the secret that a client's cancel requests bear; they work until it is dropped.
struct Registration<'s, E: Executor> {
    shared: &'s Shared<E>,
    pid: u32,
    secret: u32,
}

impl<E: Executor> Drop for Registration<'_, E> {
    fn drop(&mut self) {
        self.shared.sessions.lock().remove(&self.pid);
    }
}

/// Gives the connection a number and a secret.
fn register<'s, E: Executor>(
    shared: &'s Shared<E>,
    interrupts: &Arc<Interrupts>,
) -> Result<Registration<'s, E>, End> {
    let mut random = [0; 8];
    let mut sessions = shared.sessions.lock();
    loop {
        ring::rand::SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| fatal(SqlState::INTERNAL_ERROR, "could not generate random cancel key"))?;
        let [a, b, c, d, secret @ ..] = random;
        // Clients show it as a process number, so it is positive.
        let pid = u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff;
        if pid == 0 || sessions.contains_key(&pid) {
            continue;
        }
        let secret = u32::from_be_bytes(secret);
        sessions.insert(pid, (secret, Arc::clone(interrupts)));
        return Ok(Registration { shared, pid, secret });
    }
}

async fn authenticate<E: Executor, S: Stream>(
    shared: &Shared<E>,
    wire: &mut Wire<'_, S>,
    address: SocketAddr,
    parameters: &StartupParameters,
    is_tls: bool,
) -> Result<(), End> {
    let visitor = Visitor {
        address: Some(address.ip()),
        role: &parameters.user,
        database: &parameters.database,
        is_tls,
    };
    let failed = |state, message: String| {
        shared.metrics.authentication_failures_total.add(1);
        fatal(state, message)
    };
    let method = access::decide(&shared.config.rules, &visitor);
    if matches!(method, None | Some(Method::Reject)) {
        return Err(failed(
            SqlState::INVALID_AUTHORIZATION,
            format!(
                "no rule admits host \"{}\", user \"{}\", database \"{}\", {}",
                address.ip(),
                parameters.user,
                parameters.database,
                if is_tls { "SSL encryption" } else { "no encryption" }
            ),
        ));
    }
    let system = shared.gateway.cluster().system();
    let role = system.role_named(&parameters.user);
    if method == Some(Method::Scram) {
        let verifier = role
            .filter(|role| role.login)
            .and_then(|role| role.verifier.as_deref())
            .and_then(|text| Verifier::parse(text).ok());
        let binding = match (&shared.config.tls, is_tls) {
            (Some(identity), true) => identity.binding.clone(),
            _ => Binding::None,
        };
        exchange(shared, wire, &parameters.user, verifier.as_ref(), &binding).await.map_err(
            |end| match end {
                Refusal::Scram(ScramError::WrongPassword) => failed(
                    SqlState::INVALID_PASSWORD,
                    format!("password authentication failed for user \"{}\"", parameters.user),
                ),
                Refusal::Scram(error) => failed(SqlState::PROTOCOL_VIOLATION, error.to_string()),
                Refusal::End(end) => end,
            },
        )?;
    }
    match role {
        None => {
            return Err(failed(
                SqlState::INVALID_AUTHORIZATION,
                format!("role \"{}\" does not exist", parameters.user),
            ));
        }
        Some(role) if !role.login => {
            return Err(failed(
                SqlState::INVALID_AUTHORIZATION,
                format!("role \"{}\" is not permitted to log in", parameters.user),
            ));
        }
        Some(_) => {}
    }
    response::message(&mut wire.output, b'R', |out| out.put_u32(0));
    Ok(())
}

enum Refusal {
    Scram(ScramError),
    End(End),
}

impl From<ScramError> for Refusal {
    fn from(error: ScramError) -> Self {
        Self::Scram(error)
    }
}

impl<T: Into<End>> From<T> for Refusal {
    fn from(end: T) -> Self {
        Self::End(end.into())
    }
}

async fn exchange<E: Executor, S: Stream>(
    shared: &Shared<E>,
    wire: &mut Wire<'_, S>,
    user: &str,
    verifier: Option<&Verifier>,
    binding: &Binding,
) -> Result<(), Refusal> {
    response::message(&mut wire.output, b'R', |out| {
        out.put_u32(10);
        if *binding != Binding::None {
            response::put_string(out, scram::MECHANISM_PLUS);
        }
        response::put_string(out, scram::MECHANISM);
        out.put_u8(0);
    });
    wire.send().await?;
    let mut message = wire.password().await?;
    let end = message.iter().position(|byte| *byte == 0).ok_or(ScramError::Malformed)?;
    let mechanism = message.split_to(end);
    if message.len() < 5 {
        return Err(ScramError::Malformed.into());
    }
    message.advance(1);
    let length = usize::try_from(message.get_i32()).map_err(|_| ScramError::Malformed)?;
    let mechanism = std::str::from_utf8(&mechanism).map_err(|_| ScramError::Malformed)?;
    let first = message.get(..length).and_then(|first| std::str::from_utf8(first).ok());
    let claim = Claim { role: user, verifier, mock_secret: &shared.mock_secret };
    let exchange = Exchange::begin(claim, mechanism, binding, first.ok_or(ScramError::Malformed)?)?;
    response::message(&mut wire.output, b'R', |out| {
        out.put_u32(11);
        out.put_slice(exchange.server_first().as_bytes());
    });
    wire.send().await?;
    let message = wire.password().await?;
    let last = exchange.finish(std::str::from_utf8(&message).map_err(|_| ScramError::Malformed)?)?;
    response::message(&mut wire.output, b'R', |out| {
        out.put_u32(12);
        out.put_slice(last.as_bytes());
    });
    Ok(())
}

/// Carries messages between the client and its session until either ends.
async fn run<E: Executor, S: Stream>(
    shared: &Shared<E>,
    wire: &mut Wire<'_, S>,
    session: &mut GatewaySession<E>,
    interrupts: &Interrupts,
) -> Result<(), End> {
    loop {
        // What has arrived is taken out whole, so that bodies are read where they lie.
        let mut input = std::mem::take(&mut wire.input);
        let mut used = 0;
        while let Some((tag, body)) = next_message(&input, used, shared.config.message_size_max)? {
            shared.metrics.messages_total.add(1);
            used = body.end;
            match session.message(tag, input.get(body).unwrap_or_default(), wire).await {
                Ok(()) => {}
                Err(SessionEnd::Goodbye | SessionEnd::Closed) => return Err(End::Quiet),
                Err(SessionEnd::Fatal(error)) => return Err(End::Fatal(error)),
            }
        }
        input.advance(used);
        wire.input = input;
        session.catch_up().await;
        session.deliver(&mut wire.output).map_err(End::Fatal)?;
        wire.send().await?;
        wait_for_input(shared, wire, session, interrupts).await?;
    }
}

/// Waits for bytes of the client, notifications for it, the end of the server, or the end of the client's patience.
async fn wait_for_input<E: Executor, S: Stream>(
    shared: &Shared<E>,
    wire: &mut Wire<'_, S>,
    session: &mut GatewaySession<E>,
    interrupts: &Interrupts,
) -> Result<(), End> {
    let idle = session.idle_deadline();
    let at = idle.as_ref().map(|(at, _)| *at);
    let sleep = async move {
        match at {
            Some(at) => shared.env.sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    let mut sleep = pin!(sleep);
    tokio::select! {
        biased;
        read = wire.read_more() => return read,
        () = interrupts.terminated() => {}
        () = session.notified() => return Ok(()),
        () = &mut sleep => {
            if let Some((_, error)) = idle {
                return Err(End::Fatal(error));
            }
        }
    }
    Err(fatal(SqlState::ADMIN_SHUTDOWN, "terminating connection due to administrator command"))
}
