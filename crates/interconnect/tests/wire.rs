//! Two nodes over real sockets: frames of both lanes, a peer that restarts, sessions, and who is turned away.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rustydb_consensus::transport::{FrameSink, Inbound, Lane, Transport};
use rustydb_env::{Env, TaskGroup};
use rustydb_interconnect::{
    ClusterIdentity, Local, Peers, SessionClient, SessionHost, raft_service, session_service,
};
use rustydb_proto::v1::raft_frame::Body;
use rustydb_proto::v1::{RaftFrame, RaftVoteAnswer, RaftVoteRequest};
use rustydb_sql::gateway::peer::{
    FRAME_COUNT_MAX, RemoteSession, SessionClosed, SessionKey, SessionOpen, SessionPeer,
};
use rustydb_types::ids::{GroupId, Incarnation, NodeId, SessionId};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;

/// Answers every request, and remembers what came.
#[derive(Default)]
struct Recorder {
    answered: Mutex<Vec<u64>>,
    lost: Mutex<Vec<Lane>>,
}

impl Inbound for Recorder {
    fn request(&self, _from: NodeId, frame: RaftFrame, answers: &Arc<dyn FrameSink>) {
        let body = Some(Body::VoteAnswer(RaftVoteAnswer::default()));
        answers.send(RaftFrame { group: frame.group, call: frame.call, body }).unwrap();
    }

    fn answer(&self, _from: NodeId, frame: RaftFrame) {
        self.answered.lock().push(frame.call);
    }

    fn lost(&self, _peer: NodeId, lane: Lane) {
        self.lost.lock().push(lane);
    }
}

/// Sends back what it is sent; knows one group.
struct Echo;

impl SessionHost for Echo {
    fn open(&self, open: SessionOpen) -> BoxFuture<'_, Result<RemoteSession, SessionClosed>> {
        async move {
            if open.group != GroupId::new(2) {
                return Err(SessionClosed::NotLeader { leader: Some(NodeId::new(9)) });
            }
            let (requests, mut incoming) = mpsc::channel::<Bytes>(FRAME_COUNT_MAX);
            let (outgoing, responses) = mpsc::channel(FRAME_COUNT_MAX);
            tokio::spawn(async move {
                while let Some(bytes) = incoming.recv().await {
                    if outgoing.send(Ok(bytes)).await.is_err() {
                        return;
                    }
                }
            });
            Ok(RemoteSession { requests, responses })
        }
        .boxed()
    }

    fn cancel(&self, key: SessionKey) -> bool {
        key.session == SessionId::new(7)
    }
}

struct Node {
    address: String,
    peers: Peers,
    recorder: Arc<Recorder>,
    tasks: Arc<TaskGroup>,
}

async fn node(id: u64, cluster: &str, address: &str) -> Node {
    let env = Env::os();
    let identity = ClusterIdentity::default();
    identity.set(cluster);
    let local = Local { node: NodeId::new(id), cluster: identity };
    let recorder = Arc::new(Recorder::default());
    let tasks = Arc::new(TaskGroup::new(&env));
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = tonic::transport::Server::builder()
        .add_service(raft_service(local.clone(), recorder.clone(), tasks.clone()))
        .add_service(session_service(&env, local.clone(), Arc::new(Echo), tasks.clone()));
    let stopping = tasks.stopping();
    tasks.spawn("server", async move {
        let incoming = TcpListenerStream::new(listener);
        router.serve_with_incoming_shutdown(incoming, async move { stopping.wait().await }).await.unwrap();
    });
    let peers = Peers::new(&env, local, None);
    peers.deliver_to(recorder.clone());
    Node { address, peers, recorder, tasks }
}

impl Node {
    async fn stop(self) {
        self.peers.shutdown(Duration::from_secs(1)).await;
        self.tasks.shutdown(Duration::from_secs(1)).await;
    }
}

fn vote(call: u64) -> RaftFrame {
    RaftFrame { group: 2, call, body: Some(Body::Vote(RaftVoteRequest::default())) }
}

/// Sends until the frame is taken, then until its answer is there.
async fn ask(from: &Node, to: u64, lane: Lane, call: u64) {
    let sent = async {
        while from.peers.send(NodeId::new(to), lane, vote(call)).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut waited = 0;
        while !from.recorder.answered.lock().contains(&call) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            waited += 1;
            // What was taken by a stream that then broke is gone: the caller asks again.
            if waited % 20 == 0 {
                let _again = from.peers.send(NodeId::new(to), lane, vote(call));
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), sent).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_reach_a_peer_on_both_lanes_and_again_after_it_restarted() {
    let one = node(1, "c", "127.0.0.1:0").await;
    let two = node(2, "c", "127.0.0.1:0").await;
    one.peers.set_address(NodeId::new(2), &two.address);
    ask(&one, 2, Lane::Consensus, 1).await;
    ask(&one, 2, Lane::Bulk, 2).await;
    let address = two.address.clone();
    two.stop().await;
    let lost = async {
        while one.recorder.lost.lock().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), lost).await.unwrap();
    assert!(one.peers.send(NodeId::new(2), Lane::Consensus, vote(3)).is_err());
    let two = node(2, "c", &address).await;
    ask(&one, 2, Lane::Consensus, 4).await;
    assert!(one.peers.send(NodeId::new(3), Lane::Consensus, vote(5)).is_err(), "a node without an address");
    two.stop().await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_or_at_anothers_address_is_turned_away() {
    let one = node(1, "c", "127.0.0.1:0").await;
    let stranger = node(2, "d", "127.0.0.1:0").await;
    one.peers.set_address(NodeId::new(2), &stranger.address);
    let moved = node(3, "c", "127.0.0.1:0").await;
    one.peers.set_address(NodeId::new(4), &moved.address);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(one.peers.send(NodeId::new(2), Lane::Consensus, vote(1)).is_err());
    assert!(one.peers.send(NodeId::new(4), Lane::Consensus, vote(1)).is_err());
    // The right address puts it right.
    one.peers.set_address(NodeId::new(3), &moved.address);
    ask(&one, 3, Lane::Consensus, 2).await;
    for node in [one, stranger, moved] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_carry_frames_and_end_with_a_reason() {
    let one = node(1, "c", "127.0.0.1:0").await;
    let two = node(2, "c", "127.0.0.1:0").await;
    let env = Env::os();
    let client = SessionClient::new(&env, one.peers.clone());
    let key = SessionKey { incarnation: Incarnation::new(1), session: SessionId::new(7) };
    let open =
        |group: u64| SessionOpen { group: GroupId::new(group), key, context: Bytes::from_static(b"me") };
    let soon = || env.now() + Duration::from_secs(10);
    let to = NodeId::new(2);
    assert!(matches!(client.open(to, open(2), soon()).await, Err(SessionClosed::Lost(_))), "no address yet");
    one.peers.set_address(to, &two.address);
    let refused = client.open(to, open(3), soon()).await.unwrap_err();
    assert_eq!(refused, SessionClosed::NotLeader { leader: Some(NodeId::new(9)) });
    let mut session = client.open(to, open(2), soon()).await.unwrap();
    for round in 0..100_u8 {
        let bytes = Bytes::from(vec![round; 10_000]);
        session.requests.send(bytes.clone()).await.unwrap();
        assert_eq!(session.responses.recv().await.unwrap().unwrap(), bytes);
    }
    assert!(client.cancel(to, key, soon()).await.unwrap());
    let other = SessionKey { session: SessionId::new(8), ..key };
    assert!(!client.cancel(to, other, soon()).await.unwrap());
    two.stop().await;
    let end = tokio::time::timeout(Duration::from_secs(10), session.responses.recv()).await.unwrap();
    assert!(matches!(end, None | Some(Err(SessionClosed::Lost(_)))), "{end:?}");
    one.stop().await;
}
