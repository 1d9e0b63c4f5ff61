//! The receiving side of Raft's frames.

use std::pin::Pin;
use std::sync::Arc;

use rustydb_consensus::transport::{FrameSink, Inbound, TransportError};
use rustydb_env::TaskGroup;
use rustydb_proto::v1::RaftFrame;
use rustydb_proto::v1::consensus_server::{Consensus, ConsensusServer};
use rustydb_types::ids::NodeId;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::identity::Local;
use crate::{MESSAGE_SIZE_MAX, peers};

/// Answers that wait for one stream; what comes beyond is lost, and the asking side's deadline deals with it.
const ANSWERS_MAX: usize = peers::QUEUE_CONSENSUS;

/// The service of one node.
pub struct RaftServer {
    local: Local,
    inbound: Arc<dyn Inbound>,
    tasks: Arc<TaskGroup>,
}

/// The service, ready to be added to a server. Streams end when `tasks` are told to stop.
pub fn raft_service(
    local: Local,
    inbound: Arc<dyn Inbound>,
    tasks: Arc<TaskGroup>,
) -> ConsensusServer<RaftServer> {
    ConsensusServer::new(RaftServer { local, inbound, tasks })
        .max_decoding_message_size(MESSAGE_SIZE_MAX)
        .max_encoding_message_size(MESSAGE_SIZE_MAX)
}

struct Answers {
    to: NodeId,
    queue: mpsc::Sender<Result<RaftFrame, Status>>,
}

impl FrameSink for Answers {
    fn send(&self, frame: RaftFrame) -> Result<(), TransportError> {
        let to = self.to;
        self.queue.try_send(Ok(frame)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => TransportError::Full { to },
            mpsc::error::TrySendError::Closed(_) => TransportError::Unreachable { to },
        })
    }
}

#[tonic::async_trait]
impl Consensus for RaftServer {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<RaftFrame, Status>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<RaftFrame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let caller = self.local.check(request.metadata())?;
        let mut frames = request.into_inner();
        let (queue, answers) = mpsc::channel(ANSWERS_MAX);
        let sink: Arc<dyn FrameSink> = Arc::new(Answers { to: caller.node, queue });
        let inbound = Arc::clone(&self.inbound);
        let cluster = self.local.cluster.clone();
        let stopping = self.tasks.stopping();
        self.tasks.spawn("raft stream", async move {
            loop {
                let frame = tokio::select! {
                    biased;
                    () = stopping.wait() => return,
                    frame = frames.message() => frame,
                };
                // An error is the end of the stream as well: the caller opens another one.
                let Ok(Some(frame)) = frame else { return };
                if cluster.is_expelled(caller.node) {
                    return;
                }
                inbound.request(caller.node, frame, &sink);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}
