//! Sessions at other nodes over the simulated links: what gRPC streams are to a server.
//!
//! A stream keeps its order and loses nothing while it lives, as TCP does: a frame that meets a cut link waits. A link
//! that stays cut for `KEEP_ALIVE`, or is reset, ends the streams over it at both ends, and a crash ends those of its
//! node.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use rustydb_consensus::loopback::LoopbackNetwork;
use rustydb_env::{Env, Instant};
use rustydb_sql::{
    exec::service::SqlExecutor,
    gateway::{
        Host, RemoteSession, SessionClosed, SessionKey, SessionOpen, SessionPeer, peer::FRAME_COUNT_MAX,
    },
};
use rustydb_types::ids::NodeId;
use tokio::sync::mpsc;

/// How long a stream outlives the link under it.
const KEEP_ALIVE: Duration = Duration::from_millis(800);
/// How often a stream looks at the link under it.
const LOOK_INTERVAL: Duration = Duration::from_millis(40);

/// The world of a node and the host in it.
type Served = (Env, Arc<Host<SqlExecutor>>);

/// The hosts of the nodes that are up, and the links between them. Cheap to clone.
#[derive(Clone)]
pub struct Hosts {
    network: LoopbackNetwork,
    up: Arc<Mutex<BTreeMap<NodeId, Served>>>,
    /// The clock of all links. Those of two nodes run apart, and what one of them says is nothing to the other.
    clock: Arc<OnceLock<Env>>,
}

impl Hosts {
    /// None are up yet.
    #[must_use]
    pub fn new(network: LoopbackNetwork) -> Self {
        Self { network, up: Arc::default(), clock: Arc::default() }
    }

    /// A node is up.
    pub fn attach(&self, node: NodeId, env: &Env, host: Arc<Host<SqlExecutor>>) {
        let former = self.up.lock().insert(node, (env.clone(), host));
        drop(former);
    }

    /// A node is down.
    pub fn detach(&self, node: NodeId) {
        let former = self.up.lock().remove(&node);
        drop(former);
    }

    /// The way from one node to the others.
    #[must_use]
    pub fn peer(&self, from: NodeId, env: &Env) -> Arc<dyn SessionPeer> {
        // That of the first node that asks: any one will do.
        let clock = self.clock.get_or_init(|| env.clone()).clone();
        Arc::new(Peer { hosts: self.clone(), from, env: env.clone(), clock })
    }

    fn host(&self, node: NodeId) -> Option<Served> {
        self.up.lock().get(&node).cloned()
    }
}

/// One direction between two nodes.
#[derive(Clone)]
struct Way {
    network: LoopbackNetwork,
    clock: Env,
    from: NodeId,
    to: NodeId,
}

type Response = Result<Bytes, SessionClosed>;

fn lost(what: &str) -> SessionClosed {
    SessionClosed::Lost(what.to_owned())
}

impl Way {
    fn back(&self) -> Self {
        Self { network: self.network.clone(), clock: self.clock.clone(), from: self.to, to: self.from }
    }

    fn is_cut(&self) -> bool {
        self.network.link(self.from, self.to).cut
    }

    /// When what is sent now arrives, by the clock of the links.
    fn arrival(&self, env: &Env) -> Instant {
        let link = self.network.link(self.from, self.to);
        let span = link.delay_max.saturating_sub(link.delay_min);
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let mut delay = link.delay_min + Duration::from_nanos(env.rng().range(0..nanos.saturating_add(1)));
        if env.rng().chance(link.loss, 10_000) {
            // It is sent again.
            delay += Duration::from_millis(200);
        }
        self.clock.now() + delay
    }

    /// Waits until the link carries something, or the stream has ended over it.
    async fn passable(&self, env: &Env) -> Result<(), SessionClosed> {
        let until = env.now() + KEEP_ALIVE;
        while self.is_cut() {
            if env.now() >= until {
                return Err(lost("the link is cut"));
            }
            env.sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// Ends when the link was cut for too long, in either direction, or reset.
    async fn broken(&self, env: &Env) {
        let back = self.back();
        let resets = || self.network.resets(self.from, self.to);
        let before = resets();
        let mut until = env.now() + KEEP_ALIVE;
        while env.now() < until && resets() == before {
            env.sleep(LOOK_INTERVAL).await;
            if !self.is_cut() && !back.is_cut() {
                until = env.now() + KEEP_ALIVE;
            }
        }
    }

    /// Sends on what comes, until one of the ends is gone.
    async fn send<T>(&self, env: &Env, mut from: mpsc::Receiver<T>, to: mpsc::Sender<(Instant, T)>) {
        while let Some(item) = from.recv().await {
            if to.send((self.arrival(env), item)).await.is_err() {
                return;
            }
        }
    }

    /// Takes out what arrives, until one of the ends is gone.
    async fn receive<T>(
        &self,
        env: &Env,
        from: &mut mpsc::Receiver<(Instant, T)>,
        to: &mpsc::Sender<T>,
    ) -> Result<(), SessionClosed> {
        while let Some((at, item)) = from.recv().await {
            self.clock.sleep_until(at).await;
            self.passable(env).await?;
            if to.send(item).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The ends of a stream in the network.
struct Carried {
    requests: mpsc::Receiver<(Instant, Bytes)>,
    responses: mpsc::Sender<(Instant, Response)>,
}

struct Peer {
    hosts: Hosts,
    from: NodeId,
    env: Env,
    clock: Env,
}

impl Peer {
    fn way(&self, to: NodeId) -> Way {
        let (network, clock) = (self.hosts.network.clone(), self.clock.clone());
        Way { network, clock, from: self.from, to }
    }

    /// Does something at another node, there and back over the links.
    async fn ask<T: Send + 'static>(
        &self,
        node: NodeId,
        deadline: Instant,
        ask: impl FnOnce(Env, Arc<Host<SqlExecutor>>) -> BoxFuture<'static, T> + Send,
    ) -> Result<T, SessionClosed> {
        let (env, way) = (&self.env, self.way(node));
        let asking = async {
            self.clock.sleep_until(way.arrival(env)).await;
            way.passable(env).await?;
            let (there, host) = self.hosts.host(node).ok_or_else(|| lost("the node is down"))?;
            let asked = ask(there.clone(), host);
            let answer = there.spawn("asked by a peer", asked).await.map_err(|_| lost("the node crashed"))?;
            let back = way.back();
            self.clock.sleep_until(back.arrival(env)).await;
            back.passable(env).await?;
            Ok(answer)
        };
        env.timeout_at(deadline, asking).await.unwrap_or_else(|_| Err(lost("no answer in time")))
    }

    async fn open_session(
        &self,
        node: NodeId,
        open: SessionOpen,
        deadline: Instant,
    ) -> Result<RemoteSession, SessionClosed> {
        let way = self.way(node);
        let (send_requests, requests_there) = mpsc::channel(FRAME_COUNT_MAX);
        let (send_responses, mut responses_here) = mpsc::channel(FRAME_COUNT_MAX);
        let back = way.back();
        let opened = self.ask(node, deadline, move |env, host| {
            async move {
                let remote = host.open(open).await?;
                let carried = Carried { requests: requests_there, responses: send_responses };
                drop(env.clone().spawn("stream of a session", serve(env, back, remote, carried)));
                Ok(())
            }
            .boxed()
        });
        opened.await??;
        let (requests, requests_here) = mpsc::channel(FRAME_COUNT_MAX);
        let (responses_out, responses) = mpsc::channel(FRAME_COUNT_MAX);
        let env = self.env.clone();
        drop(self.env.spawn("stream to a session", async move {
            let back = way.back();
            let sending = way.send(&env, requests_here, send_requests);
            let ended = tokio::select! {
                biased;
                received = back.receive(&env, &mut responses_here, &responses_out) => received,
                () = async { sending.await; responses_out.closed().await } => return,
                () = way.broken(&env) => Err(lost("the link is cut")),
            };
            if let Err(closed) = ended {
                // The gateway may have gone meanwhile.
                let _gone = responses_out.send(Err(closed)).await;
            }
        }));
        Ok(RemoteSession { requests, responses })
    }
}

/// The host's end of a stream.
async fn serve(env: Env, back: Way, remote: RemoteSession, carried: Carried) {
    let Carried { mut requests, responses } = carried;
    let way = back.back();
    let receiving = way.receive(&env, &mut requests, &remote.requests);
    tokio::select! {
        biased;
        () = back.send(&env, remote.responses, responses) => {}
        _gone = receiving => {}
        () = back.broken(&env) => {}
    }
}

impl SessionPeer for Peer {
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
        self.ask(node, deadline, move |_, host| async move { host.cancel(key) }.boxed()).boxed()
    }
}
