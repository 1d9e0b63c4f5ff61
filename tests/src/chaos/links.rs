//! Links between nodes that delay, lose, repeat and reorder: a router of packets in this process.
//!
//! ```text
//! n1: 10.78.0.1 ─ tun1 ══╗
//! n2: 10.78.0.2 ─ tun2 ══╬══ router: a packet leaves at its due time, if at all; once or twice
//! n3: 10.78.0.3 ─ tun3 ══╣
//! this program, 10.78.0.254, for commands to the nodes
//! ```
//!
//! Each node has an interface whose other end is held here. A thread per interface reads packets and gives each a due
//! time; one thread sends what is due. The nodes' kernels speak TCP over it as over any bad network.
//! The queue is bounded: a packet too many is lost, as in a router.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use parking_lot::{Condvar, Mutex};

use super::network::{launcher, link_host, shell};
use super::random::Random;
use super::tun;

/// Largest packet.
const PACKET_SIZE_MAX: usize = 1500;

/// Last byte of this program's own address.
const OWN: u16 = 254;

/// Most packets under way; about 15 MB.
const UNDER_WAY_MAX: usize = 10_000;

/// How a link treats packets, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Least time on the way.
    pub delay: Duration,
    /// Greatest time on top of that, drawn for each packet; so later ones overtake earlier ones.
    pub jitter: Duration,
    /// Packets in a thousand that are lost.
    pub lost: u64,
    /// Packets in a thousand that arrive twice.
    pub doubled: u64,
    /// Packets in a thousand that take three times as long.
    pub late: u64,
}

/// What happened to packets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Passed on.
    pub passed: u64,
    /// Lost on purpose.
    pub lost: u64,
    /// Passed on twice.
    pub doubled: u64,
}

/// A packet under way: when it is due, its number, for whom, what.
type UnderWay = Reverse<(Instant, u64, usize, Vec<u8>)>;

struct Shared {
    interfaces: Vec<File>,
    link: Mutex<Link>,
    under_way: Mutex<BinaryHeap<UnderWay>>,
    changed: Condvar,
    stopping: AtomicBool,
    counts: [AtomicU64; 3],
}

/// The router. The threads end with the program: a read of an interface without packets waits for ever.
pub struct Router {
    shared: Arc<Shared>,
}

impl Router {
    /// Gives each of some nodes its interface and begins to pass packets on.
    ///
    /// # Errors
    /// An interface cannot be made.
    pub fn start(nodes: u16, seed: u64) -> Result<Self> {
        let mut interfaces = Vec::new();
        for node in 1..=nodes {
            let name = format!("tun{node}");
            interfaces.push(tun::open(&name)?);
            let inside = launcher(node).join(" ");
            shell(&format!(
                "set -e; ip link set {name} netns n{node}; {inside} ip addr add {host}/24 dev {name}; \
                 {inside} ip link set {name} mtu {PACKET_SIZE_MAX} up",
                host = link_host(node)
            ))?;
        }
        interfaces.push(tun::open("tun0")?);
        shell(&format!("ip addr add {}/24 dev tun0 && ip link set tun0 up", link_host(OWN)))?;
        let shared = Arc::new(Shared {
            interfaces,
            link: Mutex::default(),
            under_way: Mutex::default(),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
            counts: Default::default(),
        });
        for at in 0..shared.interfaces.len() {
            let (shared, random) = (Arc::clone(&shared), Random::new(seed ^ at as u64));
            std::thread::Builder::new()
                .name(format!("tun{}", at + 1))
                .spawn(move || shared.read(at, random))?;
        }
        let sender = Arc::clone(&shared);
        std::thread::Builder::new().name("router".to_owned()).spawn(move || sender.send())?;
        Ok(Self { shared })
    }

    /// How all links are from now on. What is under way arrives when it was due before.
    pub fn set(&self, link: Link) {
        *self.shared.link.lock() = link;
    }

    /// What happened so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let [passed, lost, doubled] =
            [0, 1, 2].map(|at: usize| self.shared.counts[at].load(Ordering::Relaxed));
        Traffic { passed, lost, doubled }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn read(&self, at: usize, mut random: Random) {
        let mut packet = vec![0; PACKET_SIZE_MAX];
        let mut number = 0;
        while !self.stopping.load(Ordering::Relaxed) {
            // The interface is gone with its namespace.
            let Ok(size) = (&self.interfaces[at]).read(&mut packet) else { return };
            let Some(to) = self.receiver(&packet[..size]) else { continue };
            let link = *self.link.lock();
            let is_lost = random.range(0..1000) < link.lost;
            let copies = if is_lost { 0 } else { 1 + u64::from(random.range(0..1000) < link.doubled) };
            let count = match copies {
                0 => 1,
                1 => 0,
                _ => 2,
            };
            self.counts[count].fetch_add(1, Ordering::Relaxed);
            let mut under_way = self.under_way.lock();
            for _ in 0..copies {
                let jitter = Duration::from_nanos(random.range(0..nanos(link.jitter) + 1));
                let late = if random.range(0..1000) < link.late { 3 } else { 1 };
                if under_way.len() < UNDER_WAY_MAX {
                    number += 1;
                    let due = Instant::now() + (link.delay + jitter) * late;
                    // Those of one link that are due at once keep their order.
                    under_way.push(Reverse((due, number, to, packet[..size].to_vec())));
                }
            }
            drop(under_way);
            self.changed.notify_one();
        }
    }

    /// For whom a packet is, by the last byte of its address; nobody if it is none of IPv4.
    fn receiver(&self, packet: &[u8]) -> Option<usize> {
        let is_version_4 = packet.first()? >> 4 == 4;
        let own = self.interfaces.len() - 1;
        let to = match u16::from(*packet.get(19)?) {
            OWN => own,
            node => usize::from(node).checked_sub(1).filter(|to| *to < own)?,
        };
        is_version_4.then_some(to)
    }

    fn send(&self) {
        let mut under_way = self.under_way.lock();
        while !self.stopping.load(Ordering::Relaxed) {
            let now = Instant::now();
            match under_way.peek().map(|Reverse((due, ..))| *due) {
                Some(due) if due <= now => {
                    let Some(Reverse((_, _, to, packet))) = under_way.pop() else { continue };
                    parking_lot::MutexGuard::unlocked(&mut under_way, || {
                        // A node that is down takes none.
                        let _dropped = (&self.interfaces[to]).write(&packet);
                    });
                }
                Some(due) => drop(self.changed.wait_until(&mut under_way, due)),
                None => self.changed.wait(&mut under_way),
            }
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Ends with an error unless the links can be made here.
///
/// # Errors
/// Why not.
pub fn needs_tun() -> Result<()> {
    std::fs::metadata("/dev/net/tun").context("no /dev/net/tun").map(drop)
}
