//! The other nodes: where they are, and a stream of Raft's frames to each.
//!
//! Per peer and lane there is one task that keeps a stream open. The consensus lane connects as soon as an address
//! is known and again whenever it broke; the bulk lane connects when something is to be sent.
//!
//! Bounds: `QUEUE_CONSENSUS` and `QUEUE_BULK` frames wait per peer; beyond, `send` refuses.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rustydb_consensus::transport::{Inbound, Lane, Transport, TransportError};
use rustydb_env::sync::Signal;
use rustydb_env::{Env, TaskGroup};
use rustydb_proto::v1::RaftFrame;
use rustydb_proto::v1::consensus_client::ConsensusClient;
use rustydb_types::ids::NodeId;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::ClientTlsConfig;

use crate::MESSAGE_SIZE_MAX;
use crate::channel;
use crate::identity::Local;

/// Frames that wait for one peer on the consensus lane; at the bound, `send` refuses and openraft tries again.
pub(crate) const QUEUE_CONSENSUS: usize = 4096;
/// Frames that wait for one peer on the bulk lane: pieces of snapshots are large.
pub(crate) const QUEUE_BULK: usize = 16;

/// Pause before the first new try of a broken connection, and the longest one; each is drawn between half and the
/// whole of itself, so that nodes do not meet in step.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(300);
/// How long a task without work looks whether it is still wanted.
const IDLE: Duration = Duration::from_secs(5);

/// Where the other nodes are, and the streams to them. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    local: Local,
    tls: Option<ClientTlsConfig>,
    inbound: OnceLock<Arc<dyn Inbound>>,
    peers: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
    tasks: TaskGroup,
}

struct Peer {
    node: NodeId,
    address: Mutex<String>,
    consensus: Link,
    bulk: Link,
    /// It is no member any more.
    gone: Signal,
}

/// One lane to one peer.
struct Link {
    /// The open stream's queue; nothing while there is none.
    queue: Mutex<Option<mpsc::Sender<RaftFrame>>>,
    /// Something is to be sent, or the address changed.
    wanted: Notify,
}

impl Link {
    fn new() -> Link {
        Link { queue: Mutex::new(None), wanted: Notify::new() }
    }
}

impl Peer {
    fn link(&self, lane: Lane) -> &Link {
        match lane {
            Lane::Consensus => &self.consensus,
            Lane::Bulk => &self.bulk,
        }
    }
}

impl Peers {
    /// No peers yet. Streams run as tasks of `env`.
    #[must_use]
    pub fn new(env: &Env, local: Local, tls: Option<ClientTlsConfig>) -> Peers {
        let inner = Inner {
            env: env.clone(),
            local,
            tls,
            inbound: OnceLock::new(),
            peers: Mutex::default(),
            tasks: TaskGroup::new(env),
        };
        Peers { inner: Arc::new(inner) }
    }

    /// Where answers go. Said once, before the first address.
    pub fn deliver_to(&self, inbound: Arc<dyn Inbound>) {
        // A second call would be a mistake in the wiring; the first one stays.
        let _second = self.inner.inbound.set(inbound);
    }

    /// Uses an address for a node from now on, unless it was expelled. A stream that works is not broken off for it.
    pub fn set_address(&self, node: NodeId, address: &str) {
        if self.inner.local.cluster.is_expelled(node) {
            return;
        }
        let mut peers = self.inner.peers.lock();
        if let Some(peer) = peers.get(&node) {
            *peer.address.lock() = address.to_owned();
            peer.consensus.wanted.notify_one();
            peer.bulk.wanted.notify_one();
            return;
        }
        let peer = Arc::new(Peer {
            node,
            address: Mutex::new(address.to_owned()),
            consensus: Link::new(),
            bulk: Link::new(),
            gone: Signal::default(),
        });
        peers.insert(node, Arc::clone(&peer));
        drop(peers);
        for lane in [Lane::Consensus, Lane::Bulk] {
            let keeper = Keeper { inner: Arc::downgrade(&self.inner), peer: Arc::clone(&peer), lane };
            self.inner.tasks.spawn("peer", keeper.run(self.inner.env.clone()));
        }
    }

    /// Breaks off the streams to a node and forgets its address. The node is to be expelled before.
    pub fn forget(&self, node: NodeId) {
        if let Some(peer) = self.inner.peers.lock().remove(&node) {
            peer.gone.set();
        }
    }

    /// The address in use for a node.
    #[must_use]
    pub fn address(&self, node: NodeId) -> Option<String> {
        self.inner.peers.lock().get(&node).map(|peer| peer.address.lock().clone())
    }

    /// Ends all streams.
    pub async fn shutdown(&self, deadline: Duration) {
        self.inner.tasks.shutdown(deadline).await;
    }

    pub(crate) fn local(&self) -> &Local {
        &self.inner.local
    }

    pub(crate) fn tls(&self) -> Option<&ClientTlsConfig> {
        self.inner.tls.as_ref()
    }
}

impl Transport for Peers {
    fn send(&self, to: NodeId, lane: Lane, frame: RaftFrame) -> Result<(), TransportError> {
        let peer = self.inner.peers.lock().get(&to).cloned().ok_or(TransportError::Unreachable { to })?;
        let link = peer.link(lane);
        let queue = link.queue.lock();
        let sent = match queue.as_ref() {
            Some(queue) => {
                queue.try_send(frame).map_err(|error| matches!(error, mpsc::error::TrySendError::Full(_)))
            }
            None => Err(false),
        };
        match sent {
            Ok(()) => Ok(()),
            Err(true) => Err(TransportError::Full { to }),
            Err(false) => {
                link.wanted.notify_one();
                Err(TransportError::Unreachable { to })
            }
        }
    }
}

/// What the log says about a lane.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Reached,
    Away { reason: String },
}

/// Keeps one lane to one peer open.
struct Keeper {
    inner: Weak<Inner>,
    peer: Arc<Peer>,
    lane: Lane,
}

impl Keeper {
    async fn run(self, env: Env) {
        let mut pause = PAUSE_MIN;
        let mut told = Told::Nothing;
        loop {
            let Some(inner) = self.inner.upgrade() else { return };
            let stopping = inner.tasks.stopping();
            if self.lane == Lane::Bulk {
                drop(inner);
                tokio::select! {
                    biased;
                    () = stopping.wait() => return,
                    () = self.peer.gone.wait() => return,
                    () = self.peer.bulk.wanted.notified() => {}
                    () = env.sleep(IDLE) => continue,
                }
                let Some(again) = self.inner.upgrade() else { return };
                self.once(&env, again, &mut pause, &mut told).await;
            } else {
                self.once(&env, inner, &mut pause, &mut told).await;
            }
            if stopping.is_set() || self.peer.gone.is_set() {
                return;
            }
            let drawn = {
                let micros = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
                Duration::from_micros(env.rng().range(micros / 2..micros))
            };
            tokio::select! {
                biased;
                () = stopping.wait() => return,
                () = self.peer.gone.wait() => return,
                () = env.sleep(drawn) => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Opens the stream once and stays with it until it breaks. A stream that worked makes the next pause short.
    async fn once(&self, env: &Env, inner: Arc<Inner>, pause: &mut Duration, told: &mut Told) {
        let address = self.peer.address.lock().clone();
        let (local, tls, inbound) = (inner.local.clone(), inner.tls.clone(), inner.inbound.get().cloned());
        let stopping = inner.tasks.stopping();
        // Nothing of the whole is held while the stream lives, so that dropping the whole ends it.
        drop(inner);
        let Some(inbound) = inbound else { return };
        let size = match self.lane {
            Lane::Consensus => QUEUE_CONSENSUS,
            Lane::Bulk => QUEUE_BULK,
        };
        let open = async {
            let channel =
                channel::connect(&address, tls.as_ref()).await.map_err(|error| error.to_string())?;
            let (sender, receiver) = mpsc::channel(size);
            let request = local
                .sign(self.peer.node, ReceiverStream::new(receiver))
                .map_err(|status| status.message().to_owned())?;
            let mut client = ConsensusClient::new(channel)
                .max_decoding_message_size(MESSAGE_SIZE_MAX)
                .max_encoding_message_size(MESSAGE_SIZE_MAX);
            let answers = client.exchange(request).await.map_err(|status| status.message().to_owned())?;
            Ok::<_, String>((sender, answers.into_inner()))
        };
        let opened = tokio::select! {
            biased;
            () = stopping.wait() => return,
            () = self.peer.gone.wait() => return,
            opened = env.timeout(Duration::from_secs(3), open) => opened,
        };
        let (sender, mut answers) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(reason)) => return self.tell_away(told, &address, &reason),
            Err(_) => return self.tell_away(told, &address, "no answer in time"),
        };
        self.tell_reached(told, &address);
        let link = self.peer.link(self.lane);
        *link.queue.lock() = Some(sender);
        *pause = PAUSE_MIN;
        loop {
            let answer = tokio::select! {
                biased;
                () = stopping.wait() => break,
                () = self.peer.gone.wait() => break,
                answer = answers.message() => answer,
            };
            match answer {
                Ok(Some(frame)) => inbound.answer(self.peer.node, frame),
                Ok(None) => break,
                Err(status) => {
                    tracing::debug!(peer = %self.peer.node, lane = ?self.lane, reason = status.message(), "stream broke");
                    break;
                }
            }
        }
        *link.queue.lock() = None;
        inbound.lost(self.peer.node, self.lane);
        if !stopping.is_set() && !self.peer.gone.is_set() {
            self.tell_away(told, &address, "the connection ended");
        }
    }

    /// One line per change on the lane that is always open; the other one opens and closes as it is needed.
    fn tell_away(&self, told: &mut Told, address: &str, reason: &str) {
        let away = Told::Away { reason: reason.to_owned() };
        if self.lane == Lane::Consensus && *told != away {
            tracing::warn!(peer = %self.peer.node, address, reason, "another node cannot be reached");
        }
        *told = away;
    }

    fn tell_reached(&self, told: &mut Told, address: &str) {
        if self.lane == Lane::Consensus && *told != Told::Reached {
            tracing::info!(peer = %self.peer.node, address, "another node is reached");
        }
        *told = Told::Reached;
    }
}
