//! Sessions that run here for gateways of other nodes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use rustydb_env::{Env, TaskGroup};
use rustydb_proto::v1::sessions_server::{Sessions, SessionsServer};
use rustydb_proto::v1::{self, session_frame::Body};
use rustydb_sql::gateway::peer::{RemoteSession, SessionClosed, SessionKey, SessionOpen};
use rustydb_types::ids::{GroupId, Incarnation, SessionId};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::MESSAGE_SIZE_MAX;
use crate::identity::Local;
use crate::session_client::closed_to_wire;

/// Longest wait for a stream's first frame.
const FIRST_FRAME: Duration = Duration::from_secs(5);

/// Runs sessions for gateways of other nodes.
pub trait SessionHost: Send + Sync + 'static {
    /// Opens a session. Dropping the sender of its requests ends it.
    fn open(&self, open: SessionOpen) -> BoxFuture<'_, Result<RemoteSession, SessionClosed>>;

    /// Ends what a session does now; whether there is such a session.
    fn cancel(&self, key: SessionKey) -> bool;
}

/// The service of one node.
pub struct SessionServer {
    env: Env,
    local: Local,
    host: Arc<dyn SessionHost>,
    tasks: Arc<TaskGroup>,
}

/// The service, ready to be added to a server. Sessions end when `tasks` are told to stop.
pub fn session_service(
    env: &Env,
    local: Local,
    host: Arc<dyn SessionHost>,
    tasks: Arc<TaskGroup>,
) -> SessionsServer<SessionServer> {
    SessionsServer::new(SessionServer { env: env.clone(), local, host, tasks })
        .max_decoding_message_size(MESSAGE_SIZE_MAX)
        .max_encoding_message_size(MESSAGE_SIZE_MAX)
}

type Frames = Pin<Box<dyn Stream<Item = Result<v1::SessionFrame, Status>> + Send>>;

fn frame(body: Body) -> Result<v1::SessionFrame, Status> {
    Ok(v1::SessionFrame { body: Some(body) })
}

#[tonic::async_trait]
impl Sessions for SessionServer {
    type OpenStream = Frames;

    async fn open(&self, request: Request<Streaming<v1::SessionFrame>>) -> Result<Response<Frames>, Status> {
        self.local.check(request.metadata())?;
        let mut incoming = request.into_inner();
        let first = self
            .env
            .timeout(FIRST_FRAME, incoming.message())
            .await
            .map_err(|_| Status::deadline_exceeded("nothing came to open the session"))??;
        let Some(Body::Open(open)) = first.and_then(|frame| frame.body) else {
            return Err(Status::invalid_argument("the first frame does not open a session"));
        };
        let open = SessionOpen {
            group: GroupId::new(open.group),
            key: SessionKey {
                incarnation: Incarnation::new(open.incarnation),
                session: SessionId::new(open.session),
            },
            context: open.context,
        };
        let RemoteSession { requests, responses } = match self.host.open(open).await {
            Ok(session) => session,
            Err(closed) => {
                let only = frame(Body::Closed(closed_to_wire(closed)));
                return Ok(Response::new(Box::pin(stream::iter([only]))));
            }
        };
        let stopping = self.tasks.stopping();
        // It ends with the stream, with the session, or with the node; dropping `requests` ends the session.
        self.tasks.spawn("session stream", async move {
            loop {
                let next = tokio::select! {
                    biased;
                    () = stopping.wait() => return,
                    () = requests.closed() => return,
                    next = incoming.message() => next,
                };
                let Ok(Some(v1::SessionFrame { body: Some(Body::Batch(bytes)) })) = next else { return };
                if requests.send(bytes).await.is_err() {
                    return;
                }
            }
        });
        let opened = frame(Body::Opened(v1::SessionOpened::default()));
        let answers = ReceiverStream::new(responses).map(|response| match response {
            Ok(bytes) => frame(Body::Batch(bytes)),
            Err(closed) => frame(Body::Closed(closed_to_wire(closed))),
        });
        Ok(Response::new(Box::pin(stream::once(async { opened }).chain(answers))))
    }

    async fn cancel(
        &self,
        request: Request<v1::SessionCancel>,
    ) -> Result<Response<v1::SessionCancelled>, Status> {
        self.local.check(request.metadata())?;
        let cancel = request.into_inner();
        let key = SessionKey {
            incarnation: Incarnation::new(cancel.incarnation),
            session: SessionId::new(cancel.session),
        };
        Ok(Response::new(v1::SessionCancelled { found: self.host.cancel(key) }))
    }
}
