//! Frames between nodes: decoded, and handled by real groups that a member sends nonsense to.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use rustydb_consensus::transport::{Lane, Transport};
use rustydb_consensus::{ConsensusConfig, codec, loopback::Endpoint, model::ModelStore};
use rustydb_env::sim::Simulation;
use rustydb_proto::v1::{self, RaftFrame, raft_frame::Body};
use rustydb_sql::gateway::SessionContext;
use rustydb_sql::gateway::frame::{Joiner, RequestFrame, ResponseFrame};
use rustydb_types::ids::{GroupId, Incarnation, NodeId, RequestId, SessionId, Version};

use crate::sim::cluster::Cluster;

/// The node that sends nonsense, and those that must go on.
const LIAR: NodeId = NodeId::new(3);
const SOUND: [NodeId; 2] = [NodeId::new(1), NodeId::new(2)];

fn log_id(term: u64, index: u64) -> v1::RaftLogId {
    v1::RaftLogId { term, index }
}

fn vote(term: u64, node: u64, committed: bool) -> v1::RaftVote {
    v1::RaftVote { term, node, committed }
}

fn membership() -> v1::RaftMembership {
    v1::RaftMembership { configurations: vec![v1::RaftVoters { nodes: vec![1, 2, 3] }], nodes: vec![1, 2, 3] }
}

/// Frames of every kind.
#[must_use]
pub fn frames() -> Vec<Vec<u8>> {
    let entry = |index: u64, body: v1::raft_entry_body::Kind| v1::RaftEntry {
        term: 1,
        index,
        body: Bytes::from(v1::RaftEntryBody { kind: Some(body) }.encode_to_vec()),
    };
    let command = |index: u64| {
        entry(index, v1::raft_entry_body::Kind::Command(rustydb_consensus::model::append_command(1, index)))
    };
    let bodies = vec![
        Body::Append(v1::RaftAppend {
            vote: Some(vote(1, 1, true)),
            previous: Some(log_id(1, 3)),
            entries: vec![command(4), entry(5, v1::raft_entry_body::Kind::Membership(membership()))],
            leader_commit: Some(log_id(1, 3)),
        }),
        Body::Append(v1::RaftAppend {
            vote: Some(vote(1, 1, true)),
            previous: None,
            entries: Vec::new(),
            leader_commit: None,
        }),
        Body::AppendAnswer(v1::RaftAppendAnswer {
            result: Some(v1::raft_append_answer::Result::Matched(v1::RaftMatched {
                last: Some(log_id(1, 4)),
            })),
        }),
        Body::Vote(v1::RaftVoteRequest {
            vote: Some(vote(2, 3, false)),
            last: Some(log_id(1, 9)),
            leadership_transfer: true,
            pre_vote: false,
        }),
        Body::Vote(v1::RaftVoteRequest {
            vote: Some(vote(1, 3, false)),
            last: None,
            leadership_transfer: false,
            pre_vote: true,
        }),
        Body::VoteAnswer(v1::RaftVoteAnswer { vote: Some(vote(2, 3, false)), granted: true, last: None }),
        Body::Transfer(v1::RaftTransfer {
            from_leader: Some(vote(1, 1, true)),
            to: 2,
            last: Some(log_id(1, 2)),
        }),
        Body::TransferAnswer(v1::RaftTransferAnswer { refusal: None }),
        Body::Snapshot(v1::RaftSnapshotChunk {
            transfer: 7,
            number: 0,
            header: Some(v1::RaftSnapshotHeader {
                vote: Some(vote(1, 1, true)),
                last_log_id: Some(log_id(1, 20)),
                membership: Some(v1::RaftStoredMembership {
                    log_id: Some(log_id(0, 0)),
                    membership: Some(membership()),
                }),
            }),
            data: Bytes::from_static(b"a piece of a snapshot"),
            last: true,
        }),
        Body::SnapshotAnswer(v1::RaftSnapshotAnswer { vote: Some(vote(1, 1, true)) }),
        Body::Refusal(v1::RaftRefusal { reason: 5, message: "no".into() }),
    ];
    let frame = |(call, body): (u64, Body)| RaftFrame { group: 1, call, body: Some(body) }.encode_to_vec();
    (1..).zip(bodies).map(frame).collect()
}

/// A frame is decoded, and what lies on disk in the same forms.
pub fn frame_target(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    if let Ok(frame) = RaftFrame::decode(bytes.clone()) {
        match frame.body {
            Some(Body::Append(append)) => {
                for entry in append.entries {
                    let _decoded = codec::entry_from_wire(entry);
                }
            }
            Some(Body::Snapshot(chunk)) => {
                let _meta = chunk.header.map(|header| codec::snapshot_meta(&header).is_ok());
            }
            _ => {}
        }
    }
    let _body = codec::decode_body(&bytes);
    let _payload = codec::decode_payload(bytes.clone());
    let _log_id = codec::decode_log_id(&bytes);
    let _vote = codec::decode_vote(&bytes);
    let _membership = codec::decode_stored_membership(&bytes);
}

/// Contexts and frames of sessions between gateways and hosts.
#[must_use]
pub fn session_frames() -> Vec<Vec<u8>> {
    let context = SessionContext {
        user: "postgres".into(),
        database: "postgres".into(),
        client_address: "127.0.0.1:1".into(),
        backend_pid: 4,
        counter: 9,
        settings: vec![("work_mem".into(), "1MB".into())],
        start: vec![("timezone".into(), "UTC".into())],
        prepared: vec![rustydb_sql::gateway::frame::PreparedText {
            name: "p".into(),
            sql: "SELECT $1::int".into(),
            param_types: vec![23],
        }],
        ..SessionContext::default()
    };
    let id = RequestId { incarnation: Incarnation::new(3), session: SessionId::new(4), counter: 5 };
    let mut all = vec![context.encode().to_vec()];
    let query = Bytes::from(crate::raw::query("SELECT * FROM t"));
    let outcome = RequestFrame::Outcome { request: id, since: Version::new(6) };
    let messages = RequestFrame::Messages { since: Version::new(6), messages: query };
    for frame in [messages, outcome] {
        all.extend(frame.encode().into_iter().map(|bytes| bytes.to_vec()));
    }
    let answer = ResponseFrame::Data(Bytes::from_static(b"T\0\0\0\x06\0\0"));
    all.extend(answer.encode().into_iter().map(|bytes| bytes.to_vec()));
    all
}

/// A frame of a session is joined and decoded, either way.
pub fn session_frame_target(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    let _context = SessionContext::decode(bytes.clone());
    let _request = RequestFrame::decode(bytes.clone());
    let _response = ResponseFrame::decode(bytes.clone());
    let mut joiner = Joiner::new(64 << 10);
    let half = bytes.len() / 2;
    for piece in [bytes.slice(..half), bytes.slice(half..), bytes] {
        if let Ok(Some(whole)) = joiner.push(piece) {
            let _request = RequestFrame::decode(whole);
        }
    }
}

/// Messages of the administration and of the session service.
pub fn admin_target(input: &[u8]) {
    let _ = v1::InitClusterRequest::decode(input);
    let _ = v1::AddNodeRequest::decode(input);
    let _ = v1::AdoptRequest::decode(input);
    let _ = v1::TransferLeaderRequest::decode(input);
    let _ = v1::AwaitSystemRequest::decode(input);
    let _ = v1::SessionFrame::decode(input);
    let _ = v1::SessionCancel::decode(input);
    if let Ok(request) = v1::ExecuteSystemRequest::decode(input) {
        let _command = serde_json::from_slice::<rustydb_sql::system::SystemCommand>(&request.command);
    }
    let _command = serde_json::from_slice::<rustydb_sql::system::SystemCommand>(input);
}

/// Messages of the administration, encoded.
#[must_use]
pub fn admin_messages() -> Vec<Vec<u8>> {
    vec![
        v1::InitClusterRequest { superuser_password: "secret".into() }.encode_to_vec(),
        v1::AddNodeRequest { interconnect_address: "127.0.0.1:5532".into(), expected_node_id: 2 }
            .encode_to_vec(),
        v1::AdoptRequest { cluster_id: "0123".into(), members: Vec::new() }.encode_to_vec(),
        v1::TransferLeaderRequest { group_id: 1, to: 2 }.encode_to_vec(),
        v1::SessionCancel { incarnation: 1, session: 2 }.encode_to_vec(),
        v1::ExecuteSystemRequest { command: Bytes::from_static(b"{\"DropRole\":{\"name\":\"x\"}}") }
            .encode_to_vec(),
    ]
}

/// Real groups of two sound nodes, and a third member whose place the fuzzer has taken.
pub struct Members {
    sim: Arc<Simulation>,
    cluster: Cluster<ModelStore>,
    liar: Arc<Endpoint>,
    seed: u64,
    /// Frames that were understood and handed to a node.
    pub handled: u64,
    /// Nodes that were told something that no member ever says, could not trust their state any more and stopped.
    pub stopped: u64,
}

impl Members {
    /// A fresh cluster.
    #[must_use]
    pub fn new(seed: u64) -> Members {
        let sim = Arc::new(Simulation::new(seed));
        let config = ConsensusConfig { snapshot_log_bytes: 4096, ..ConsensusConfig::default() };
        let cluster =
            Cluster::new(Arc::clone(&sim), 3, vec![GroupId::SYSTEM], config, |_, _| ModelStore::default());
        let starting = cluster.clone();
        let _started = sim.block_on(Duration::from_secs(60), async move {
            for node in starting.ids() {
                starting.start(node).await;
            }
            starting.initialize().await;
            starting.sleep(Duration::from_secs(1)).await;
            starting.crash(LIAR);
            starting.sleep(Duration::from_secs(2)).await;
        });
        let liar = cluster.network().endpoint(LIAR, &sim.harness());
        Members { sim, cluster, liar, seed, handled: 0, stopped: 0 }
    }

    /// Sends frames to both nodes and lets them work. Those that cannot be decoded go no further than the decoder.
    pub fn send(&mut self, frames: &[Vec<u8>]) {
        for frame in frames {
            let Ok(frame) = RaftFrame::decode(Bytes::copy_from_slice(frame)) else { continue };
            self.handled += 1;
            for node in SOUND {
                let _full = self.liar.send(node, Lane::Consensus, frame.clone());
            }
        }
        self.sim.run_for(Duration::from_millis(5));
        if SOUND.iter().any(|node| self.cluster.has_stopped(*node)) {
            self.stopped += 1;
            *self = self.renewed(self.seed + 1);
        }
    }

    /// A fresh cluster that goes on counting.
    #[must_use]
    pub fn renewed(&self, seed: u64) -> Members {
        let mut fresh = Members::new(seed);
        (fresh.handled, fresh.stopped) = (self.handled, self.stopped);
        fresh
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for node in self.cluster.ids() {
            self.cluster.crash(node);
        }
    }
}
