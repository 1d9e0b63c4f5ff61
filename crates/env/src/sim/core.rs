//! The executor: tasks, timers, the clock and the source of every choice.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::backend::SimBackend;
use super::disk::SimDisk;
use crate::ambient;
use crate::rng::below;
use crate::runtime::{BoxTask, Env};
use crate::task::Abort;

/// The node of the test itself.
pub(super) const HARNESS: usize = 0;
/// Longest time that one poll is taken to last.
const POLL_NANOS_MAX: u64 = 2_000;
/// Largest drift of a node's monotonic clock, in parts per million either way.
const DRIFT_PPM_MAX: i64 = 200;

/// Everything but the disks, behind one lock that is never held while a task runs.
pub(super) struct Core {
    state: Mutex<State>,
}

struct State {
    rng: ChaCha8Rng,
    now_nanos: u64,
    trace: u64,
    step_count: u64,
    next_task: u64,
    next_timer: u64,
    /// Never gone through in its own order, which says nothing.
    tasks: HashMap<u64, Task, BuildHasherDefault<IdHasher>>,
    ready: Vec<u64>,
    timers: BTreeMap<(u64, u64), Waker>,
    nodes: Vec<Node>,
    #[cfg(feature = "planted_bugs")]
    bug: Option<crate::bug::Bug>,
}

/// Spreads numbers that are counted up; a task is looked up several times for each poll.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

struct Task {
    node: usize,
    epoch: u64,
    /// Absent while it is being polled.
    future: Option<BoxTask>,
    waker: Waker,
    /// Whether it is in the ready list, or held because its node is paused.
    queued: bool,
    aborted: bool,
}

struct Node {
    epoch: u64,
    paused: bool,
    drift_ppm: i64,
    wall_offset_micros: i64,
    /// How many times as long as usual an operation of the disk takes.
    disk_slowness: u64,
    disk: SimDisk,
    /// Tasks that became ready while the node was paused.
    held: BTreeSet<u64>,
    /// The world of its tasks, made when the first is polled. It holds on to the core: see [`Core::end`].
    env: Option<Env>,
}

impl Node {
    fn new(disk: SimDisk, drift_ppm: i64) -> Node {
        Node {
            epoch: 0,
            paused: false,
            drift_ppm,
            wall_offset_micros: 0,
            disk_slowness: 1,
            disk,
            held: BTreeSet::new(),
            env: None,
        }
    }
}

/// A task that is about to be polled.
struct Turn {
    id: u64,
    node: usize,
    epoch: u64,
    future: BoxTask,
    waker: Waker,
    env: Env,
}

/// Makes its task ready.
struct TaskWaker {
    core: Weak<Core>,
    task: u64,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(core) = self.core.upgrade() {
            core.make_ready(self.task);
        }
    }
}

/// Ends its task.
struct TaskAbort {
    core: Weak<Core>,
    task: u64,
}

impl Abort for TaskAbort {
    fn abort(&self) {
        if let Some(core) = self.core.upgrade() {
            core.abort(self.task);
        }
    }
}

impl Core {
    pub(super) fn new(seed: u64) -> Arc<Core> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let harness = Node::new(SimDisk::new(rng.next_u64()), 0);
        Arc::new(Core {
            state: Mutex::new(State {
                rng,
                now_nanos: 1_000_000,
                trace: seed,
                step_count: 0,
                next_task: 0,
                next_timer: 0,
                tasks: HashMap::default(),
                ready: Vec::new(),
                timers: BTreeMap::new(),
                nodes: vec![harness],
                #[cfg(feature = "planted_bugs")]
                bug: None,
            }),
        })
    }

    pub(super) fn add_node(&self) -> usize {
        let mut state = self.state.lock();
        let disk = SimDisk::new(state.rng.next_u64());
        let random = state.rng.next_u64();
        let width = DRIFT_PPM_MAX.unsigned_abs() * 2 + 1;
        let drift_ppm = i64::try_from(below(random, width)).unwrap_or(0) - DRIFT_PPM_MAX;
        state.nodes.push(Node::new(disk, drift_ppm));
        state.nodes.len() - 1
    }

    #[cfg(feature = "planted_bugs")]
    pub(super) fn plant(&self, bug: crate::bug::Bug) {
        self.state.lock().bug = Some(bug);
    }

    #[cfg(feature = "planted_bugs")]
    pub(super) fn has_bug(&self, bug: crate::bug::Bug) -> bool {
        self.state.lock().bug == Some(bug)
    }

    pub(super) fn disk(&self, node: usize) -> SimDisk {
        self.state.lock().nodes[node].disk.clone()
    }

    pub(super) fn epoch(&self, node: usize) -> u64 {
        self.state.lock().nodes[node].epoch
    }

    pub(super) fn now_nanos(&self) -> u64 {
        self.state.lock().now_nanos
    }

    /// The monotonic clock of `node`: the true one, running a little fast or slow.
    pub(super) fn node_now_nanos(&self, node: usize) -> u64 {
        let state = self.state.lock();
        drifted(state.now_nanos, state.nodes[node].drift_ppm)
    }

    /// The true moment at which the clock of `node` shows `nanos`.
    pub(super) fn true_nanos(&self, node: usize, nanos: u64) -> u64 {
        let drift_ppm = self.state.lock().nodes[node].drift_ppm;
        let scaled = u128::from(nanos) * 1_000_000;
        let rate = u128::try_from(1_000_000 + i128::from(drift_ppm)).unwrap_or(1_000_000);
        u64::try_from(scaled.div_ceil(rate)).unwrap_or(u64::MAX)
    }

    pub(super) fn wall_micros(&self, node: usize) -> i64 {
        /// 2026-01-01 00:00:00 UTC, the birthday of every simulated world.
        const BIRTHDAY_MICROS: i64 = 1_767_225_600_000_000;
        let state = self.state.lock();
        let since = i64::try_from(state.now_nanos / 1_000).unwrap_or(i64::MAX / 2);
        BIRTHDAY_MICROS + since + state.nodes[node].wall_offset_micros
    }

    pub(super) fn set_wall_offset(&self, node: usize, micros: i64) {
        self.state.lock().nodes[node].wall_offset_micros = micros;
    }

    pub(super) fn disk_slowness(&self, node: usize) -> u64 {
        self.state.lock().nodes[node].disk_slowness
    }

    pub(super) fn set_disk_slowness(&self, node: usize, factor: u64) {
        self.state.lock().nodes[node].disk_slowness = factor;
    }

    pub(super) fn random_u64(&self) -> u64 {
        self.state.lock().rng.next_u64()
    }

    pub(super) fn trace_hash(&self) -> u64 {
        self.state.lock().trace
    }

    pub(super) fn step_count(&self) -> u64 {
        self.state.lock().step_count
    }

    pub(super) fn trace(&self, node: usize, bytes: &[u8]) {
        let mut state = self.state.lock();
        let mut hash = mix(state.trace, node as u64 ^ (bytes.len() as u64) << 8);
        for chunk in bytes.chunks(8) {
            let mut word = [0_u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = mix(hash, u64::from_le_bytes(word));
        }
        state.trace = hash;
    }

    pub(super) fn spawn(self: &Arc<Self>, node: usize, epoch: u64, future: BoxTask) -> Arc<dyn Abort> {
        let mut state = self.state.lock();
        state.next_task += 1;
        let task = state.next_task;
        if state.nodes[node].epoch == epoch {
            let waker = Waker::from(Arc::new(TaskWaker { core: Arc::downgrade(self), task }));
            let future = Some(future);
            state.tasks.insert(task, Task { node, epoch, future, waker, queued: false, aborted: false });
            state.make_ready(task);
        } else {
            // The incarnation is dead; its task is dropped unstarted, outside the lock.
            drop(state);
            drop(future);
        }
        Arc::new(TaskAbort { core: Arc::downgrade(self), task })
    }

    fn make_ready(&self, task: u64) {
        self.state.lock().make_ready(task);
    }

    fn abort(self: &Arc<Self>, task: u64) {
        let removed = {
            let mut state = self.state.lock();
            match state.tasks.get_mut(&task) {
                // It is being polled right now: it ends when the poll does.
                Some(found) if found.future.is_none() => {
                    found.aborted = true;
                    None
                }
                Some(_) => state.tasks.remove(&task),
                None => None,
            }
        };
        if let Some(removed) = removed {
            self.drop_future(removed.node, removed.epoch, removed.future);
        }
    }

    /// Drops what a task was in its own world, since destructors may look at clock or disk.
    fn drop_future(self: &Arc<Self>, node: usize, epoch: u64, future: Option<BoxTask>) {
        let env = Env::from_backend(Arc::new(SimBackend::of_epoch(self, self.disk(node), node, epoch)));
        let _entered = ambient::enter(env);
        drop(future);
    }

    pub(super) fn add_timer(&self, at_nanos: u64, waker: Waker) -> (u64, u64) {
        let mut state = self.state.lock();
        state.next_timer += 1;
        let key = (at_nanos, state.next_timer);
        state.timers.insert(key, waker);
        key
    }

    pub(super) fn renew_timer(&self, key: (u64, u64), waker: &Waker) {
        if let Some(found) = self.state.lock().timers.get_mut(&key) {
            found.clone_from(waker);
        }
    }

    pub(super) fn remove_timer(&self, key: (u64, u64)) {
        let removed = self.state.lock().timers.remove(&key);
        drop(removed);
    }

    /// Ends the tasks of a node; `end` is what becomes of its disk.
    pub(super) fn crash(self: &Arc<Self>, node: usize, end: impl FnOnce(&SimDisk)) {
        let (dead, disk) = {
            let mut state = self.state.lock();
            state.nodes[node].epoch += 1;
            state.nodes[node].paused = false;
            state.nodes[node].held.clear();
            state.nodes[node].env = None;
            let ids = state.tasks_where(|task| task.node == node && task.future.is_some());
            let dead: Vec<Task> = ids.into_iter().filter_map(|id| state.tasks.remove(&id)).collect();
            for task in state.tasks.values_mut().filter(|task| task.node == node) {
                task.aborted = true;
            }
            (dead, state.nodes[node].disk.clone())
        };
        // The disk dies first, so that no destructor writes to it.
        end(&disk);
        for task in dead {
            self.drop_future(node, task.epoch, task.future);
        }
    }

    pub(super) fn set_paused(&self, node: usize, paused: bool) {
        let mut state = self.state.lock();
        state.nodes[node].paused = paused;
        if !paused {
            let held = std::mem::take(&mut state.nodes[node].held);
            state.ready.extend(held);
        }
    }

    /// Ends all tasks, and lets go of everything that holds on to the world.
    pub(super) fn end(self: &Arc<Self>) {
        loop {
            // The end of one may start others.
            let ids = self.state.lock().tasks_where(|_| true);
            if ids.is_empty() {
                break;
            }
            for id in ids {
                let task = self.state.lock().tasks.remove(&id);
                if let Some(task) = task {
                    self.drop_future(task.node, task.epoch, task.future);
                }
            }
        }
        let mut state = self.state.lock();
        let envs: Vec<_> = state.nodes.iter_mut().map(|node| node.env.take()).collect();
        drop(state);
        drop(envs);
    }

    /// Polls one task or moves time to the next timer. False when neither is possible.
    pub(super) fn step(self: &Arc<Self>) -> bool {
        let Some(Turn { id, node, epoch, mut future, waker, env }) = self.take_ready() else {
            return self.fire_next_timer();
        };
        let ended = {
            let _entered = ambient::enter(env);
            let poll = future.as_mut().poll(&mut Context::from_waker(&waker));
            poll == Poll::Ready(())
        };
        let finished = {
            let mut state = self.state.lock();
            match state.tasks.get_mut(&id) {
                Some(task) if !ended && !task.aborted => {
                    task.future = Some(future);
                    None
                }
                _ => {
                    state.tasks.remove(&id);
                    Some(future)
                }
            }
        };
        if finished.is_some() {
            self.drop_future(node, epoch, finished);
        }
        true
    }

    fn take_ready(self: &Arc<Self>) -> Option<Turn> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        loop {
            let count = state.ready.len() as u64;
            if count == 0 {
                return None;
            }
            let random = state.rng.next_u64();
            let choice = usize::try_from(below(random, count)).unwrap_or(0);
            let id = state.ready.swap_remove(choice);
            let Some(task) = state.tasks.get_mut(&id) else { continue };
            let node = &mut state.nodes[task.node];
            if node.paused {
                node.held.insert(id);
                continue;
            }
            task.queued = false;
            let Some(future) = task.future.take() else { continue };
            let env = node.env.get_or_insert_with(|| {
                let backend = SimBackend::of_epoch(self, node.disk.clone(), task.node, task.epoch);
                Env::from_backend(Arc::new(backend))
            });
            let (env, waker) = (env.clone(), task.waker.clone());
            let random = state.rng.next_u64();
            state.now_nanos += 1 + below(random, POLL_NANOS_MAX);
            state.step_count += 1;
            state.trace = mix(mix(state.trace, id), state.now_nanos);
            return Some(Turn { id, node: task.node, epoch: task.epoch, future, waker, env });
        }
    }

    fn fire_next_timer(&self) -> bool {
        let mut state = self.state.lock();
        let Some((&(first, _), _)) = state.timers.first_key_value() else { return false };
        let now = state.now_nanos.max(first);
        state.now_nanos = now;
        while let Some(due) = state.timers.first_entry().filter(|timer| timer.key().0 <= now) {
            let waker = due.remove();
            drop(state);
            waker.wake();
            state = self.state.lock();
        }
        true
    }
}

impl State {
    /// In the order in which they were started.
    fn tasks_where(&self, mut wanted: impl FnMut(&Task) -> bool) -> Vec<u64> {
        let mut ids: Vec<u64> =
            self.tasks.iter().filter(|(_, task)| wanted(task)).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    fn make_ready(&mut self, id: u64) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        if !task.queued {
            task.queued = true;
            self.ready.push(id);
        }
    }
}

fn drifted(nanos: u64, drift_ppm: i64) -> u64 {
    let rate = u128::try_from(1_000_000 + i128::from(drift_ppm)).unwrap_or(1_000_000);
    u64::try_from(u128::from(nanos) * rate / 1_000_000).unwrap_or(u64::MAX)
}

/// One round of a 64-bit mixer (the finaliser of splitmix64).
fn mix(hash: u64, word: u64) -> u64 {
    let mut mixed = hash.rotate_left(23) ^ word.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
