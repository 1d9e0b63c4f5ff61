//! Sessions at other nodes, for the gateways of this one.
//!
//! Sessions use a connection of their own per peer, made when the first one is opened and kept. One stream is one
//! session. The gateway's queues are bounded, so a slow client holds back the node that runs its session.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use parking_lot::Mutex;
use rustydb_env::{Env, Instant};
use rustydb_proto::v1::sessions_client::SessionsClient;
use rustydb_proto::v1::{self, session_closed::Reason, session_frame::Body};
use rustydb_sql::gateway::peer::{
    FRAME_COUNT_MAX, RemoteSession, SessionClosed, SessionKey, SessionOpen, SessionPeer,
};
use rustydb_types::ids::NodeId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::channel;
use crate::peers::Peers;

/// Opens sessions at other nodes. Cheap to clone.
#[derive(Clone)]
pub struct SessionClient {
    env: Env,
    peers: Peers,
    /// Connections by peer, with the address that each was made for.
    channels: Arc<Mutex<BTreeMap<NodeId, (String, Channel)>>>,
}

impl SessionClient {
    /// Opens sessions at the nodes that `peers` knows. What it starts runs in `env`.
    #[must_use]
    pub fn new(env: &Env, peers: Peers) -> SessionClient {
        SessionClient { env: env.clone(), peers, channels: Arc::default() }
    }

    fn client(&self, node: NodeId) -> Result<SessionsClient<Channel>, SessionClosed> {
        let lost = |reason: String| SessionClosed::Lost(reason);
        let address = self.peers.address(node).ok_or_else(|| lost(format!("node {node} has no address")))?;
        let mut channels = self.channels.lock();
        let channel = match channels.get(&node) {
            Some((known, channel)) if *known == address => channel.clone(),
            _ => {
                let endpoint =
                    channel::endpoint(&address, self.peers.tls()).map_err(|error| lost(error.to_string()))?;
                // It connects at first use, and again when it broke.
                let channel = endpoint.connect_lazy();
                channels.insert(node, (address, channel.clone()));
                channel
            }
        };
        Ok(SessionsClient::new(channel)
            .max_decoding_message_size(crate::MESSAGE_SIZE_MAX)
            .max_encoding_message_size(crate::MESSAGE_SIZE_MAX))
    }

    async fn open_session(
        &self,
        node: NodeId,
        open: SessionOpen,
        deadline: Instant,
    ) -> Result<RemoteSession, SessionClosed> {
        let mut client = self.client(node)?;
        let (requests, queue) = mpsc::channel(FRAME_COUNT_MAX);
        let first = frame(Body::Open(v1::SessionOpen {
            group: open.group.get(),
            context: open.context,
            incarnation: open.key.incarnation.get(),
            session: open.key.session.get(),
        }));
        let outgoing = stream::once(async { first })
            .chain(ReceiverStream::new(queue).map(|bytes| frame(Body::Batch(bytes))));
        let request = self.peers.local().sign(node, outgoing).map_err(|status| lost(&status))?;
        let opening = async {
            let mut incoming = client.open(request).await.map_err(|status| lost(&status))?.into_inner();
            match next(&mut incoming).await? {
                Some(Body::Opened(_)) => Ok(incoming),
                Some(Body::Closed(closed)) => Err(closed_from_wire(closed)),
                Some(_) => {
                    Err(SessionClosed::Malformed("a session that is not open yet sent something".to_owned()))
                }
                None => Err(SessionClosed::Lost("the stream ended".to_owned())),
            }
        };
        let mut incoming = self
            .env
            .timeout_at(deadline, opening)
            .await
            .map_err(|_| SessionClosed::Lost(format!("node {node} did not answer in time")))??;
        let (sender, responses) = mpsc::channel(FRAME_COUNT_MAX);
        // It ends with the stream, or when the gateway drops its end.
        drop(self.env.spawn("remote session", async move {
            loop {
                let item = tokio::select! {
                    biased;
                    () = sender.closed() => return,
                    item = next(&mut incoming) => item,
                };
                let (response, last) = match item {
                    Ok(Some(Body::Batch(bytes))) => (Ok(bytes), false),
                    Ok(Some(Body::Closed(closed))) => (Err(closed_from_wire(closed)), true),
                    Ok(Some(_)) => (Err(SessionClosed::Malformed("an unexpected frame".to_owned())), true),
                    Ok(None) => (Err(SessionClosed::Lost("the stream ended".to_owned())), true),
                    Err(closed) => (Err(closed), true),
                };
                if sender.send(response).await.is_err() || last {
                    return;
                }
            }
        }));
        Ok(RemoteSession { requests, responses })
    }

    async fn cancel_session(
        &self,
        node: NodeId,
        key: SessionKey,
        deadline: Instant,
    ) -> Result<bool, SessionClosed> {
        let mut client = self.client(node)?;
        let message = v1::SessionCancel { incarnation: key.incarnation.get(), session: key.session.get() };
        let request = self.peers.local().sign(node, message).map_err(|status| lost(&status))?;
        let answer = self
            .env
            .timeout_at(deadline, client.cancel(request))
            .await
            .map_err(|_| SessionClosed::Lost(format!("node {node} did not answer in time")))?;
        Ok(answer.map_err(|status| lost(&status))?.into_inner().found)
    }
}

impl SessionPeer for SessionClient {
    fn open(
        &self,
        node: NodeId,
        open: SessionOpen,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<RemoteSession, SessionClosed>> {
        self.open_session(node, open, deadline).boxed()
    }

    fn cancel(
        &self,
        node: NodeId,
        key: SessionKey,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<bool, SessionClosed>> {
        self.cancel_session(node, key, deadline).boxed()
    }
}

fn frame(body: Body) -> v1::SessionFrame {
    v1::SessionFrame { body: Some(body) }
}

async fn next(incoming: &mut Streaming<v1::SessionFrame>) -> Result<Option<Body>, SessionClosed> {
    match incoming.message().await {
        Ok(Some(frame)) => match frame.body {
            Some(body) => Ok(Some(body)),
            None => Err(SessionClosed::Malformed("an empty frame".to_owned())),
        },
        Ok(None) => Ok(None),
        Err(status) => Err(lost(&status)),
    }
}

fn lost(status: &Status) -> SessionClosed {
    match status.code() {
        Code::ResourceExhausted => SessionClosed::TooMany,
        _ => SessionClosed::Lost(status.message().to_owned()),
    }
}

fn closed_from_wire(closed: v1::SessionClosed) -> SessionClosed {
    match closed.reason() {
        Reason::NotLeader => {
            SessionClosed::NotLeader { leader: Some(closed.leader).filter(|id| *id != 0).map(NodeId::new) }
        }
        Reason::UnknownDatabase => SessionClosed::UnknownDatabase,
        Reason::TooMany => SessionClosed::TooMany,
        Reason::Stopping => SessionClosed::Stopping,
        Reason::Ended => SessionClosed::Ended,
        Reason::Malformed => SessionClosed::Malformed(closed.message),
        Reason::Unspecified => SessionClosed::Lost(closed.message),
    }
}

pub(crate) fn closed_to_wire(closed: SessionClosed) -> v1::SessionClosed {
    let message = closed.to_string();
    let (reason, leader) = match closed {
        SessionClosed::NotLeader { leader } => (Reason::NotLeader, leader.map_or(0, |leader| leader.get())),
        SessionClosed::UnknownDatabase => (Reason::UnknownDatabase, 0),
        SessionClosed::TooMany => (Reason::TooMany, 0),
        SessionClosed::Stopping => (Reason::Stopping, 0),
        SessionClosed::Ended => (Reason::Ended, 0),
        SessionClosed::Malformed(_) => (Reason::Malformed, 0),
        _ => (Reason::Unspecified, 0),
    };
    v1::SessionClosed { reason: reason.into(), leader, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_an_end_survives_the_wire() {
        let leader = Some(NodeId::new(3));
        for closed in [
            SessionClosed::NotLeader { leader },
            SessionClosed::NotLeader { leader: None },
            SessionClosed::UnknownDatabase,
            SessionClosed::TooMany,
            SessionClosed::Stopping,
            SessionClosed::Ended,
        ] {
            assert_eq!(closed_from_wire(closed_to_wire(closed.clone())), closed);
        }
        let malformed = closed_from_wire(closed_to_wire(SessionClosed::Malformed("x".to_owned())));
        assert!(matches!(malformed, SessionClosed::Malformed(_)));
    }
}
