//! A transport within one process, with the faults of a real network: for tests and for the simulator.
//!
//! Every frame is encoded and decoded as on a wire. A link (one direction between two nodes) may delay, lose,
//! duplicate or reorder frames, or be cut. Delays and chances come from the sender's world, so in the simulator
//! from the seed. Frames of one link and lane stay in order unless the link reorders.
//!
//! Bounds: a node's inbox holds [`INBOX_FRAMES_MAX`] frames; what comes beyond is lost.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use rustydb_env::{Env, Instant, TaskGroup};
use rustydb_proto::v1::RaftFrame;
use rustydb_types::ids::NodeId;
use tokio::sync::mpsc;

use crate::transport::{FrameSink, Inbound, Lane, Transport, TransportError};

/// Frames that wait for one node.
pub const INBOX_FRAMES_MAX: usize = 65_536;

/// How a link treats frames. Chances are in 10,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Nothing passes.
    pub cut: bool,
    /// The shortest delay.
    pub delay_min: Duration,
    /// The longest delay.
    pub delay_max: Duration,
    /// How often a frame is lost.
    pub loss: u64,
    /// How often a frame comes twice.
    pub duplication: u64,
    /// How often a frame does not wait for those before it.
    pub reordering: u64,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            cut: false,
            delay_min: Duration::from_micros(50),
            delay_max: Duration::from_micros(200),
            loss: 0,
            duplication: 0,
            reordering: 0,
        }
    }
}

/// What passed and what did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames given to the network.
    pub sent: u64,
    /// Frames handed over, duplicates included.
    pub delivered: u64,
    /// Frames lost by chance, by a cut or at a full or absent inbox.
    pub lost: u64,
    /// Frames that came twice.
    pub duplicated: u64,
}

/// All nodes and links.
#[derive(Clone, Default)]
pub struct LoopbackNetwork {
    inner: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<NodeId, mpsc::Sender<Arrival>>,
    /// How often the connections between two nodes, the lower first, were reset.
    resets: BTreeMap<(NodeId, NodeId), u64>,
    links: BTreeMap<(NodeId, NodeId), Link>,
    default_link: Link,
    /// Frames on their way, per link and lane in order, and when the last of them arrives: the next one comes no
    /// earlier. Whichever timer fires first takes the first frame.
    on_the_way: BTreeMap<(NodeId, NodeId, Lane), (Instant, VecDeque<Arrival>)>,
    /// After so long without a frame a bulk lane closes; what is sent to a closed one opens it and is refused.
    bulk_idle: Option<Duration>,
    /// When the last frame was sent on a bulk lane that is open.
    bulk_open: BTreeMap<(NodeId, NodeId), Instant>,
    traffic: Traffic,
}

/// What reached a node.
struct Arrival {
    from: NodeId,
    lane: Lane,
    /// The bytes of a frame; none when the connection was lost.
    bytes: Option<Bytes>,
    is_answer: bool,
}

impl LoopbackNetwork {
    /// A network without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What a node sends through. Nothing is delivered to it before [`LoopbackNetwork::attach`].
    #[must_use]
    pub fn endpoint(&self, node: NodeId, env: &Env) -> Arc<Endpoint> {
        Arc::new(Endpoint { network: self.clone(), node, env: env.clone() })
    }

    /// Delivers to a node from now on, in tasks of its own. A second attachment replaces the first, as a restart
    /// does.
    pub fn attach(&self, node: NodeId, env: &Env, tasks: &TaskGroup, inbound: Arc<dyn Inbound>) {
        let (sender, mut arrivals) = mpsc::channel::<Arrival>(INBOX_FRAMES_MAX);
        self.inner.lock().nodes.insert(node, sender);
        let network = self.clone();
        let env = env.clone();
        tasks.spawn("inbox", async move {
            while let Some(arrival) = arrivals.recv().await {
                let Some(bytes) = arrival.bytes else {
                    inbound.lost(arrival.from, arrival.lane);
                    continue;
                };
                // A frame that cannot be read is dropped, as a connection would be.
                let Ok(frame) = RaftFrame::decode(bytes) else { continue };
                if arrival.is_answer {
                    inbound.answer(arrival.from, frame);
                } else {
                    let (network, env) = (network.clone(), env.clone());
                    let sink: Arc<dyn FrameSink> = Arc::new(AnswerSink {
                        network,
                        env,
                        from: node,
                        to: arrival.from,
                        lane: arrival.lane,
                    });
                    inbound.request(arrival.from, frame, &sink);
                }
            }
        });
    }

    /// Delivers nothing to a node any more, as after a crash. What it had sent is lost with it.
    pub fn detach(&self, node: NodeId) {
        let mut state = self.inner.lock();
        state.nodes.remove(&node);
        // The timers of these frames end with the node; left in the queue, each would arrive in place of a later one.
        let mut lost = 0;
        for (_, (_, queue)) in state.on_the_way.iter_mut().filter(|((from, ..), _)| *from == node) {
            lost += queue.len() as u64;
            queue.clear();
        }
        state.traffic.lost += lost;
    }

    /// How all links are that were not set one by one.
    pub fn set_default(&self, link: Link) {
        self.inner.lock().default_link = link;
    }

    /// Changes one direction between two nodes.
    pub fn set_link(&self, from: NodeId, to: NodeId, change: impl FnOnce(&mut Link)) {
        let mut state = self.inner.lock();
        let default = state.default_link;
        change(state.links.entry((from, to)).or_insert(default));
    }

    /// Cuts or joins both directions between two nodes.
    pub fn set_cut(&self, one: NodeId, other: NodeId, cut: bool) {
        self.set_link(one, other, |link| link.cut = cut);
        self.set_link(other, one, |link| link.cut = cut);
    }

    /// Resets the connections between two nodes: what was on its way in order is lost, and both hear of it.
    pub fn reset(&self, one: NodeId, other: NodeId) {
        let mut guard = self.inner.lock();
        let state = &mut *guard;
        *state.resets.entry((one.min(other), one.max(other))).or_default() += 1;
        for (from, to) in [(one, other), (other, one)] {
            for lane in Lane::ALL {
                let Some((_, queue)) = state.on_the_way.get_mut(&(from, to, lane)) else { continue };
                // Their timers find nothing then, or what was sent later: as if that had come a little sooner.
                state.traffic.lost += queue.len() as u64;
                queue.clear();
            }
            for lane in Lane::ALL {
                let lost = Arrival { from, lane, bytes: None, is_answer: false };
                if let Some(inbox) = state.nodes.get(&to) {
                    // A full inbox has lost more than that already.
                    let _full = inbox.try_send(lost);
                }
            }
        }
    }

    /// How often the connections between two nodes were reset.
    #[must_use]
    pub fn resets(&self, one: NodeId, other: NodeId) -> u64 {
        self.inner.lock().resets.get(&(one.min(other), one.max(other))).copied().unwrap_or(0)
    }

    /// Bulk lanes open when they are needed, as real ones do, and close when nothing was sent for so long.
    pub fn open_bulk_on_demand(&self, idle: Duration) {
        self.inner.lock().bulk_idle = Some(idle);
    }

    /// Whether a bulk lane takes a frame now.
    fn takes_bulk(&self, from: NodeId, to: NodeId, now: Instant) -> bool {
        let mut state = self.inner.lock();
        let Some(idle) = state.bulk_idle else { return true };
        let before = state.bulk_open.insert((from, to), now);
        before.is_some_and(|before| now - before <= idle)
    }

    /// Makes all links as the default again.
    pub fn heal(&self) {
        self.inner.lock().links.clear();
    }

    /// What passed so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.inner.lock().traffic
    }

    /// How one direction between two nodes is now.
    #[must_use]
    pub fn link(&self, from: NodeId, to: NodeId) -> Link {
        let state = self.inner.lock();
        state.links.get(&(from, to)).copied().unwrap_or(state.default_link)
    }

    /// Sends one frame over one link.
    fn send(&self, env: &Env, from: NodeId, to: NodeId, lane: Lane, frame: &RaftFrame, is_answer: bool) {
        let link = self.link(from, to);
        let mut random = env.rng();
        self.inner.lock().traffic.sent += 1;
        if link.cut || random.chance(link.loss, 10_000) {
            self.inner.lock().traffic.lost += 1;
            return;
        }
        let bytes = Bytes::from(frame.encode_to_vec());
        let copies = if random.chance(link.duplication, 10_000) { 2 } else { 1 };
        for copy in 0..copies {
            let span = link.delay_max.saturating_sub(link.delay_min);
            let span_nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
            let delay = link.delay_min + Duration::from_nanos(random.range(0..span_nanos.saturating_add(1)));
            let mut at = env.now() + delay;
            let reorders = copy > 0 || random.chance(link.reordering, 10_000);
            let alone;
            {
                let mut state = self.inner.lock();
                state.traffic.duplicated += copy;
                let arrival = Arrival { from, lane, bytes: Some(bytes.clone()), is_answer };
                alone = if reorders {
                    Some(arrival)
                } else {
                    let (last, queue) = state.on_the_way.entry((from, to, lane)).or_default();
                    at = at.max(*last);
                    *last = at;
                    queue.push_back(arrival);
                    None
                };
            }
            let network = self.clone();
            let sleep = env.sleep_until(at);
            // The frame is on the wire: it ends by itself at its arrival.
            drop(env.spawn("frame", async move {
                sleep.await;
                network.arrive(from, to, lane, alone);
            }));
        }
    }

    /// Hands over a frame whose time has come: one that travelled alone, or the first of its lane.
    fn arrive(&self, from: NodeId, to: NodeId, lane: Lane, alone: Option<Arrival>) {
        let mut guard = self.inner.lock();
        let state = &mut *guard;
        let queued = || state.on_the_way.get_mut(&(from, to, lane)).and_then(|(_, queue)| queue.pop_front());
        let Some(arrival) = alone.or_else(queued) else { return };
        // A cut that came meanwhile also takes what was on its way.
        let cut = state.links.get(&(from, to)).unwrap_or(&state.default_link).cut;
        let delivered = !cut && state.nodes.get(&to).is_some_and(|inbox| inbox.try_send(arrival).is_ok());
        if delivered {
            state.traffic.delivered += 1;
        } else {
            state.traffic.lost += 1;
        }
    }
}

/// A node's way into the network.
pub struct Endpoint {
    network: LoopbackNetwork,
    node: NodeId,
    env: Env,
}

impl Transport for Endpoint {
    fn send(&self, to: NodeId, lane: Lane, frame: RaftFrame) -> Result<(), TransportError> {
        if lane == Lane::Bulk && !self.network.takes_bulk(self.node, to, self.env.now()) {
            return Err(TransportError::Unreachable { to });
        }
        self.network.send(&self.env, self.node, to, lane, &frame, false);
        Ok(())
    }
}

/// The way back of an answer.
struct AnswerSink {
    network: LoopbackNetwork,
    env: Env,
    from: NodeId,
    to: NodeId,
    lane: Lane,
}

impl FrameSink for AnswerSink {
    fn send(&self, frame: RaftFrame) -> Result<(), TransportError> {
        self.network.send(&self.env, self.from, self.to, self.lane, &frame, true);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rustydb_env::sim::Simulation;
    use rustydb_proto::v1::{RaftTransferAnswer, raft_frame::Body};

    use super::*;

    /// Numbers of the calls that came.
    #[derive(Default)]
    struct Seen(Mutex<Vec<u64>>);

    impl Inbound for Seen {
        fn request(&self, _: NodeId, frame: RaftFrame, _: &Arc<dyn FrameSink>) {
            self.0.lock().push(frame.call);
        }
        fn answer(&self, _: NodeId, _: RaftFrame) {}
        fn lost(&self, _: NodeId, _: Lane) {}
    }

    #[test]
    fn what_a_crashed_node_had_sent_does_not_come_in_place_of_what_it_sends_later() {
        let simulation = Simulation::new(3);
        let (sender, receiver) = (simulation.add_node(), simulation.add_node());
        let network = LoopbackNetwork::new();
        let seen: Arc<Seen> = Arc::default();
        let env = simulation.env(receiver);
        let tasks = TaskGroup::new(&env);
        network.attach(NodeId::new(2), &env, &tasks, seen.clone());
        let send = |call| {
            let body = Some(Body::TransferAnswer(RaftTransferAnswer { refusal: None }));
            let endpoint = network.endpoint(NodeId::new(1), &simulation.env(sender));
            endpoint.send(NodeId::new(2), Lane::Consensus, RaftFrame { group: 1, call, body }).unwrap();
        };
        send(1);
        network.detach(NodeId::new(1));
        simulation.crash(sender);
        send(2);
        send(3);
        simulation
            .block_on(Duration::from_secs(1), simulation.harness().sleep(Duration::from_millis(1)))
            .unwrap();
        assert_eq!(*seen.0.lock(), [2, 3]);
        assert_eq!((network.traffic().sent, network.traffic().delivered, network.traffic().lost), (3, 2, 1));
    }
}
