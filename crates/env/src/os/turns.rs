//! Turns at computing, so that hundreds of statements that compute leave the cores to those that do not.
//!
//! Work that was handed its thread ([`Env::in_place`](crate::Env::in_place)) computes while it has one of a few turns per
//! core. When its turn has lasted [`TURN`] and others wait, it goes to the end of a second queue: those that have just
//! come, and may be done in no time, go before those that go on, but for one in [`FRESH_MAX`].

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long one computes while others wait.
const TURN: Duration = Duration::from_millis(5);
/// So many that have just come go before one that goes on.
const FRESH_MAX: usize = 4;
/// Turns per core. More than one, since what has a turn may wait for the disk.
const TURNS_PER_CORE: usize = 4;

static TURNS: LazyLock<Turns> = LazyLock::new(|| {
    Turns::new(TURNS_PER_CORE * std::thread::available_parallelism().map_or(2, std::num::NonZero::get))
});

thread_local! {
    /// Since when this thread has its turn.
    static SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Computes in a turn of this process.
pub(crate) fn compute<T>(work: impl FnOnce() -> T) -> T {
    TURNS.compute(work)
}

/// Between two parts of what computes: lets others have the turn, if it has lasted and they wait.
pub(crate) fn share() {
    if let Some(since) = SINCE.get() {
        TURNS.share(since);
    }
}

struct Turns {
    queue: Mutex<Queue>,
    waiting: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    free: usize,
    /// Those that have just come.
    fresh: VecDeque<Arc<Waiting>>,
    /// Those that go on.
    spent: VecDeque<Arc<Waiting>>,
    /// How many that had just come were served since one that goes on was.
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
        struct Given<'a>(&'a Turns);
        impl Drop for Given<'_> {
            fn drop(&mut self) {
                SINCE.set(None);
                self.0.give_back();
            }
        }
        if SINCE.get().is_some() {
            // Within work that has a turn.
            return work();
        }
        self.take(true);
        SINCE.set(Some(Instant::now()));
        let _given = Given(self);
        work()
    }

    fn share(&self, since: Instant) {
        if self.waiting.load(Ordering::Relaxed) > 0 && since.elapsed() >= TURN {
            self.give_back();
            self.take(false);
            SINCE.set(Some(Instant::now()));
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
                        for _ in 0..20 {
                            let now = computing.fetch_add(1, Ordering::SeqCst) + 1;
                            most.fetch_max(now, Ordering::SeqCst);
                            // Nested work has the turn already.
                            turns.compute(|| std::thread::sleep(Duration::from_micros(500)));
                            computing.fetch_sub(1, Ordering::SeqCst);
                            // As if the turn had lasted: so each is passed on many times.
                            turns.share(Instant::now().checked_sub(TURN).unwrap());
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
        let fallen =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| turns.compute(|| panic!("planned"))));
        assert!(fallen.is_err());
        assert_eq!(turns.compute(|| 7), 7);
    }
}
