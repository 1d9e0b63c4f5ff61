//! Turns at computing, so that hundreds of statements that compute leave the cores to those that do not.
//!
//! ```text
//! begins ── within BRIEF ──> done                    on its thread, which serves tasks: no other thread, no queue
//!    └──── longer ──> hands its thread's tasks over, waits for a turn ── TURN ──> waits again, if others do ── ...
//! ```
//!
//! The most statements are done within [`BRIEF`]: whoever waits for them waits in the runtime's queue of tasks, where a
//! task costs what it keeps and nothing else. Only work that goes on keeps its thread while it waits, a stack and an
//! allocator's heap with it; there are a few turns per core. When a turn has lasted [`TURN`] and others wait, it goes to
//! the end of a second queue: those that wait for their first go before those that go on, but for one in [`FRESH_MAX`].

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long one computes on a thread that serves other tasks too.
const BRIEF: Duration = Duration::from_millis(1);
/// How long one computes while others wait.
const TURN: Duration = Duration::from_millis(5);
/// How long a thread that hands over its tasks waits at most for another to take them.
const HAND_OVER_MAX: Duration = Duration::from_millis(10);
/// So many that wait for their first turn go before one that goes on.
const FRESH_MAX: usize = 4;
/// Turns per core. More than one, since what has a turn may wait for the disk.
const TURNS_PER_CORE: usize = 4;

static TURNS: LazyLock<Turns> = LazyLock::new(|| {
    Turns::new(TURNS_PER_CORE * std::thread::available_parallelism().map_or(2, std::num::NonZero::get))
});

/// Where the work of a thread stands.
#[derive(Clone, Copy)]
enum Stage {
    /// It has begun then, and may be done in no time.
    Brief(Instant),
    /// It has had its turn since then.
    Turn(Instant),
}

thread_local! {
    /// Work of this thread, if it has any.
    static WORK: Cell<Option<Stage>> = const { Cell::new(None) };
}

/// Computes, in turns with others of this process if it takes long.
pub(crate) fn compute<T>(work: impl FnOnce() -> T) -> T {
    TURNS.compute(work)
}

/// Between two parts of what computes: hands over the thread's tasks when they have waited for long, and lets others have
/// the turn, if it has lasted and they wait.
pub(crate) fn share() {
    match WORK.get() {
        Some(Stage::Brief(since)) if since.elapsed() >= BRIEF && serves_tasks() => {
            hand_over(|| TURNS.take(true));
            WORK.set(Some(Stage::Turn(Instant::now())));
        }
        Some(Stage::Turn(since)) if since.elapsed() >= TURN => {
            hand_over(|| TURNS.pass());
            WORK.set(Some(Stage::Turn(Instant::now())));
        }
        _ => {}
    }
}

/// Whether the tasks of this thread can be handed to another.
fn serves_tasks() -> bool {
    let flavor = tokio::runtime::Handle::try_current().map(|runtime| runtime.runtime_flavor());
    matches!(flavor, Ok(tokio::runtime::RuntimeFlavor::MultiThread))
}

/// Waits for a turn while another thread takes the tasks of this one.
///
/// Nothing tells whether one did: a thread of the pool that has just been woken may lose its core before it takes them,
/// and then this thread has them again, and with them perhaps the runtime's only watch over sockets and timers. So it is
/// tried again after each turn. Where another thread has them, that costs next to nothing.
fn hand_over(wait: impl FnOnce()) {
    tokio::task::block_in_place(|| {
        // What takes the tasks is work of the runtime's pool that has just been given to it, and the pool begins its work
        // in order: when this begins, that has. A thread that does not wait for it gets its tasks back untouched as a rule.
        let (begins, begun) = std::sync::mpsc::sync_channel::<()>(0);
        tokio::task::spawn_blocking(move || drop(begins));
        wait();
        let _ = begun.recv_timeout(HAND_OVER_MAX);
    });
}

struct Turns {
    queue: Mutex<Queue>,
    waiting: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    free: usize,
    /// Those that wait for their first turn.
    fresh: VecDeque<Arc<Waiting>>,
    /// Those that go on.
    spent: VecDeque<Arc<Waiting>>,
    /// How many that waited for their first were served since one that goes on was.
    fresh_served: usize,
}

impl Queue {
    fn len(&self) -> usize {
        self.fresh.len() + self.spent.len()
    }

    fn pop(&mut self) -> Option<Arc<Waiting>> {
        if (self.fresh_served < FRESH_MAX || self.spent.is_empty())
            && let Some(next) = self.fresh.pop_front()
        {
            self.fresh_served += 1;
            return Some(next);
        }
        self.fresh_served = 0;
        self.spent.pop_front()
    }
}

struct Waiting {
    thread: Thread,
    is_next: AtomicBool,
}

impl Turns {
    fn new(count: usize) -> Self {
        Self { queue: Mutex::new(Queue { free: count, ..Queue::default() }), waiting: AtomicUsize::new(0) }
    }

    fn compute<T>(&self, work: impl FnOnce() -> T) -> T {
        /// Gives the turn back, after a panic too.
        struct Ended<'a>(&'a Turns);
        impl Drop for Ended<'_> {
            fn drop(&mut self) {
                if let Some(Stage::Turn(..)) = WORK.take() {
                    self.0.give_back();
                }
            }
        }
        if WORK.get().is_some() {
            // Within other work.
            return work();
        }
        WORK.set(Some(Stage::Brief(Instant::now())));
        let _ended = Ended(self);
        work()
    }

    /// Passes the turn to those that wait, if any do, and waits for the next.
    fn pass(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.give_back();
            self.take(false);
        }
    }

    fn take(&self, is_fresh: bool) {
        let waiting = {
            let mut queue = self.queue.lock();
            if queue.free > 0 {
                queue.free -= 1;
                return;
            }
            let waiting =
                Arc::new(Waiting { thread: std::thread::current(), is_next: AtomicBool::new(false) });
            let line = if is_fresh { &mut queue.fresh } else { &mut queue.spent };
            line.push_back(Arc::clone(&waiting));
            self.waiting.store(queue.len(), Ordering::Relaxed);
            waiting
        };
        while !waiting.is_next.load(Ordering::Acquire) {
            std::thread::park();
        }
    }

    fn give_back(&self) {
        let mut queue = self.queue.lock();
        match queue.pop() {
            Some(next) => {
                self.waiting.store(queue.len(), Ordering::Relaxed);
                drop(queue);
                next.is_next.store(true, Ordering::Release);
                next.thread.unpark();
            }
            None => queue.free += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_compute_at_once_than_there_are_turns_and_all_come_to_an_end() {
        let turns = Turns::new(2);
        let (computing, most, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    turns.compute(|| {
                        // As if it had not been brief.
                        turns.take(true);
                        WORK.set(Some(Stage::Turn(Instant::now())));
                        for _ in 0..20 {
                            let now = computing.fetch_add(1, Ordering::SeqCst) + 1;
                            most.fetch_max(now, Ordering::SeqCst);
                            // Nested work has the turn already.
                            turns.compute(|| std::thread::sleep(Duration::from_micros(500)));
                            computing.fetch_sub(1, Ordering::SeqCst);
                            // As if the turn had lasted: so each is passed on many times.
                            turns.pass();
                        }
                        done.fetch_add(1, Ordering::SeqCst);
                    });
                });
            }
        });
        assert_eq!(done.load(Ordering::SeqCst), 12);
        assert!(most.load(Ordering::SeqCst) <= 2);
        assert_eq!((turns.queue.lock().free, turns.waiting.load(Ordering::SeqCst)), (2, 0));
    }

    #[test]
    fn those_that_have_just_come_go_first_and_nobody_waits_for_ever() {
        let waiting =
            || Arc::new(Waiting { thread: std::thread::current(), is_next: AtomicBool::new(false) });
        let mut queue = Queue::default();
        queue.spent.extend([waiting(), waiting()]);
        queue.fresh.extend((0..6).map(|_| waiting()));
        let lengths: Vec<_> =
            std::iter::from_fn(|| queue.pop().map(|_| (queue.fresh.len(), queue.spent.len()))).collect();
        assert_eq!(lengths, [(5, 2), (4, 2), (3, 2), (2, 2), (2, 1), (1, 1), (0, 1), (0, 0)]);
    }

    #[test]
    fn a_panic_gives_the_turn_back() {
        let turns = Turns::new(1);
        let fallen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            turns.compute(|| {
                turns.take(true);
                WORK.set(Some(Stage::Turn(Instant::now())));
                panic!("planned")
            });
        }));
        assert!(fallen.is_err());
        assert_eq!((turns.compute(|| 7), turns.queue.lock().free), (7, 1));
    }

    #[test]
    fn long_work_leaves_the_only_thread_of_tasks_to_others_and_brief_work_takes_no_turn() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (told, hears) = std::sync::mpsc::channel();
        runtime.block_on(async {
            let long = tokio::spawn(async move {
                compute(|| {
                    share();
                    assert!(matches!(WORK.get(), Some(Stage::Brief(_))));
                    // As if it had lasted; another task must be served before it ends.
                    WORK.set(Some(Stage::Brief(Instant::now().checked_sub(BRIEF).unwrap())));
                    let mut is_served = false;
                    while !is_served {
                        share();
                        assert!(matches!(WORK.get(), Some(Stage::Turn(..))));
                        is_served = hears.try_recv().is_ok();
                    }
                });
                assert!(WORK.get().is_none());
            });
            let other = tokio::spawn(async move { told.send(()).unwrap() });
            other.await.unwrap();
            long.await.unwrap();
        });
    }

    /// A thread that has its tasks back after all, and goes on computing, leaves the runtime without a watch over its
    /// timers and sockets.
    #[test]
    fn timers_fire_while_all_threads_of_the_runtime_compute() {
        for _ in 0..20 {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let is_over = Arc::new(AtomicBool::new(false));
            for _ in 0..5 {
                let is_over = Arc::clone(&is_over);
                runtime.spawn(async move {
                    compute(|| {
                        while !is_over.load(Ordering::Relaxed) {
                            std::hint::black_box((0..20_000).sum::<u64>());
                            share();
                        }
                    });
                });
            }
            let (fires, fired) = std::sync::mpsc::channel();
            runtime.spawn(async move {
                for _ in 0..20 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    fires.send(()).unwrap();
                }
            });
            let served = (0..20).take_while(|_| fired.recv_timeout(Duration::from_secs(30)).is_ok()).count();
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(served, 20);
        }
    }
}
