//! A session over PostgreSQL's protocol, as far as a program needs it that sends text and prints what comes: the
//! simple query protocol, with COPY in both directions.
//!
//! A client library hides what is to be printed: command tags, notices, and the results before an error.

use std::time::Duration;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{ErrorFields, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Login;
use crate::error::{CliError, SqlFailure};
use crate::tls::Tls;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection that is logged in.
pub(crate) struct Session {
    stream: Box<dyn Stream>,
    received: BytesMut,
    lost: bool,
}

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) type_oid: u32,
}

/// What comes back of statements, in this order for each: columns and rows, or data of a COPY, and then its tag.
#[derive(Debug)]
pub(crate) enum Event {
    Columns(Vec<Column>),
    Row(Vec<Option<String>>),
    /// Some data of COPY TO STDOUT.
    CopyOut(Vec<u8>),
    /// The server waits for the data of COPY FROM STDIN.
    CopyIn,
    /// The command tag, such as `INSERT 0 1`.
    Complete(String),
    Notice(SqlFailure),
}

impl Session {
    /// Connects and logs in.
    pub(crate) async fn connect(
        host: &str,
        port: u16,
        login: &Login,
        patience: Duration,
    ) -> Result<Session, CliError> {
        let opened = Session::open(host, port, login);
        match tokio::time::timeout(patience, opened).await {
            Ok(outcome) => outcome,
            Err(_) => Err(CliError::Unreachable(format!("{host}:{port}: no answer in time"))),
        }
    }

    async fn open(host: &str, port: u16, login: &Login) -> Result<Session, CliError> {
        let unreachable = |error: std::io::Error| CliError::Unreachable(format!("{host}:{port}: {error}"));
        let mut stream = TcpStream::connect((host, port)).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let stream: Box<dyn Stream> = match &login.tls_ca {
            None => Box::new(stream),
            Some(authority) => {
                let tls = Tls::of_authority(authority)?;
                let mut request = BytesMut::new();
                frontend::ssl_request(&mut request);
                stream.write_all(&request).await.map_err(unreachable)?;
                if stream.read_u8().await.map_err(unreachable)? != b'S' {
                    return Err(CliError::Refused(format!("{host}:{port} does not offer TLS")));
                }
                let encrypted = tls.connect(host, stream).await;
                Box::new(encrypted.map_err(|error| CliError::Refused(format!("{host}:{port}: {error}")))?)
            }
        };
        let mut session = Session { stream, received: BytesMut::new(), lost: false };
        session.log_in(login).await?;
        Ok(session)
    }

    async fn log_in(&mut self, login: &Login) -> Result<(), CliError> {
        let parameters = [
            ("user", login.user.as_str()),
            ("database", &login.database),
            ("application_name", "rustydb-cli"),
            ("client_encoding", "UTF8"),
        ];
        self.send(|out| frontend::startup_message(parameters, out)).await?;
        let password = || {
            login.password.as_deref().ok_or_else(|| {
                CliError::Usage(
                    "the server asks for a password: set PGPASSWORD or give --password".to_owned(),
                )
            })
        };
        let mut scram = None;
        loop {
            match self.message().await? {
                Message::AuthenticationOk => {}
                Message::AuthenticationCleartextPassword => {
                    let password = password()?.as_bytes();
                    self.send(|out| frontend::password_message(password, out)).await?;
                }
                Message::AuthenticationSasl(body) => {
                    if !body.mechanisms().any(|name| Ok(name == SCRAM_SHA_256)).map_err(broken)? {
                        return Err(unknown_login());
                    }
                    let exchange = ScramSha256::new(password()?.as_bytes(), ChannelBinding::unsupported());
                    let first = exchange.message().to_owned();
                    self.send(|out| frontend::sasl_initial_response(SCRAM_SHA_256, &first, out)).await?;
                    scram = Some(exchange);
                }
                Message::AuthenticationSaslContinue(body) => {
                    let exchange = scram.as_mut().ok_or_else(unknown_login)?;
                    exchange.update(body.data()).map_err(broken)?;
                    let next = exchange.message().to_owned();
                    self.send(|out| frontend::sasl_response(&next, out)).await?;
                }
                Message::AuthenticationSaslFinal(body) => {
                    scram.as_mut().ok_or_else(unknown_login)?.finish(body.data()).map_err(broken)?;
                }
                Message::ReadyForQuery(_) => return Ok(()),
                Message::ErrorResponse(body) => return Err(refused(body.fields())),
                Message::BackendKeyData(_) | Message::ParameterStatus(_) | Message::NoticeResponse(_) => {}
                _ => return Err(unknown_login()),
            }
        }
    }

    /// Whether the connection is gone, so that no statement can run on it any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Sends statements; what they answer is to be read to its end.
    pub(crate) async fn query(&mut self, sql: &str) -> Result<(), CliError> {
        if sql.contains('\0') {
            return Err(CliError::Usage("a statement cannot contain the character 0".to_owned()));
        }
        self.send(|out| frontend::query(sql, out)).await
    }

    /// The next thing that the statements answer; nothing at the end.
    ///
    /// # Errors
    /// The server's, after which there is nothing more to read; or the connection is lost.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, CliError> {
        loop {
            let event = match self.message().await? {
                Message::RowDescription(body) => {
                    let column = |field: postgres_protocol::message::backend::Field<'_>| {
                        Ok(Column { name: field.name().to_owned(), type_oid: field.type_oid() })
                    };
                    Event::Columns(body.fields().map(column).collect().map_err(broken)?)
                }
                Message::DataRow(body) => {
                    let value = |range: Option<std::ops::Range<usize>>| {
                        let bytes = range.and_then(|range| body.buffer().get(range));
                        Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
                    };
                    Event::Row(body.ranges().map(value).collect().map_err(broken)?)
                }
                Message::CommandComplete(body) => Event::Complete(body.tag().map_err(broken)?.to_owned()),
                Message::CopyData(body) => Event::CopyOut(body.data().to_owned()),
                Message::CopyInResponse(_) => Event::CopyIn,
                Message::NoticeResponse(body) => Event::Notice(failure(body.fields())),
                Message::ErrorResponse(body) => {
                    let error = refused(body.fields());
                    self.read_to_the_end().await;
                    return Err(error);
                }
                Message::ReadyForQuery(_) => return Ok(None),
                _ => continue,
            };
            return Ok(Some(event));
        }
    }

    /// Sends some data of COPY FROM STDIN.
    pub(crate) async fn copy(&mut self, data: &[u8]) -> Result<(), CliError> {
        let message = frontend::CopyData::new(data).map_err(broken)?;
        self.send(|out| {
            message.write(out);
            Ok(())
        })
        .await
    }

    /// Ends the data of COPY FROM STDIN: all was sent, or the reason why it was not.
    pub(crate) async fn end_copy(&mut self, reason: Option<&str>) -> Result<(), CliError> {
        self.send(|out| match reason {
            Some(reason) => frontend::copy_fail(reason, out),
            None => {
                frontend::copy_done(out);
                Ok(())
            }
        })
        .await
    }

    /// After an error: until the server takes statements again, or, when it ends the connection, until that end.
    async fn read_to_the_end(&mut self) {
        while let Ok(message) = self.message().await {
            if matches!(message, Message::ReadyForQuery(_)) {
                return;
            }
        }
    }

    async fn send(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>,
    ) -> Result<(), CliError> {
        let mut out = BytesMut::new();
        write(&mut out).map_err(broken)?;
        let sent = async {
            self.stream.write_all(&out).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|error| {
            self.lost = true;
            lost(&error.to_string())
        })
    }

    async fn message(&mut self) -> Result<Message, CliError> {
        loop {
            if let Some(message) = Message::parse(&mut self.received).map_err(broken)? {
                return Ok(message);
            }
            let reason = match self.stream.read_buf(&mut self.received).await {
                Ok(0) => "the server ended it".to_owned(),
                Ok(_) => continue,
                Err(error) => error.to_string(),
            };
            self.lost = true;
            return Err(lost(&reason));
        }
    }
}

fn lost(reason: &str) -> CliError {
    CliError::Refused(format!("the connection was lost: {reason}"))
}

fn broken(error: std::io::Error) -> CliError {
    CliError::Refused(format!("the server broke the protocol: {error}"))
}

fn unknown_login() -> CliError {
    CliError::Refused("the server asks for a kind of login that is not known here".to_owned())
}

fn refused(fields: ErrorFields<'_>) -> CliError {
    CliError::Sql(Box::new(failure(fields)))
}

fn failure(mut fields: ErrorFields<'_>) -> SqlFailure {
    let mut failure = SqlFailure::default();
    while let Ok(Some(field)) = fields.next() {
        let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            // Severity comes twice; the second is never translated.
            b'V' => failure.severity = value,
            b'S' if failure.severity.is_empty() => failure.severity = value,
            b'C' => failure.sqlstate = value,
            b'M' => failure.message = value,
            b'D' => failure.detail = Some(value),
            b'H' => failure.hint = Some(value),
            b'P' => failure.position = value.parse().ok(),
            _ => {}
        }
    }
    failure
}
