//! openraft's asynchronous runtime, made of `env`.
//!
//! openraft reaches its runtime through static functions. They go to [`env::ambient`]: in production the tokio
//! runtime of the calling thread, in the simulator the node whose task is being polled. So openraft's timers,
//! tasks and randomness follow the seed of a simulation.
//!
//! Channels: tokio's bounded mpsc, oneshot and mutex serve first come, first served. The watch is `env`'s, because
//! tokio's wakes its waiters in random order.

use std::{
    cell::Cell,
    future::Future,
    io,
    ops::{Add, AddAssign, Deref, Sub, SubAssign},
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use openraft_rt::{
    AsyncRuntime, Mpsc, MpscReceiver, MpscSender, MpscWeakSender, Mutex, Oneshot, OneshotSender,
    OptionalSend, OptionalSync, TryRecvError,
    watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender},
};
use rustydb_env::{self as env, ambient, sync::watch};
use tokio::sync::{mpsc, oneshot};

/// Nanoseconds between the moments at which groups may tick; see [`set_tick_grid`].
static TICK_GRID_NANOS: AtomicU64 = AtomicU64::new(1);

/// Lets the ticks of all groups fall on multiples of two fifths of the heartbeat interval, at most 20 ms: openraft wakes
/// each group on its own phase five times per heartbeat, and on an idle node these wake-ups are most of the work. Ticks
/// of this grid send a heartbeat every three, so 60 ms apart with the default of 50 ms, and election timeouts end on it.
///
/// For the process, because openraft calls its runtime by static functions; the nodes of a simulation are configured
/// alike.
pub(crate) fn set_tick_grid(heartbeat_interval: Duration) {
    let grid = (heartbeat_interval * 2 / 5).min(Duration::from_millis(20));
    TICK_GRID_NANOS.store(u64::try_from(grid.as_nanos()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
}

/// The first multiple of the grid at or after a moment.
fn on_grid(moment: env::Instant) -> env::Instant {
    let next = moment.as_nanos().checked_next_multiple_of(TICK_GRID_NANOS.load(Ordering::Relaxed));
    next.map_or(env::Instant::FAR_FUTURE, env::Instant::from_nanos)
}

thread_local! {
    /// What the future that this thread polls within a [`Timeout`] has asked for.
    static PROLONGED: Cell<Option<env::Instant>> = const { Cell::new(None) };
}

/// Asks openraft, which waits for the future that is being polled, to wait until `deadline`, whatever its configuration
/// says. Nothing happens where nobody waits so.
pub(crate) fn prolong(deadline: env::Instant) {
    PROLONGED.set(Some(deadline));
}

/// A future with a deadline, which it may move by `prolong`. The future is asked first, so that one that is ready at its
/// deadline wins.
pub struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: env::Sleep,
}

impl<F> Timeout<F> {
    fn new(deadline: env::Instant, future: F) -> Self {
        Self { future: Box::pin(future), sleep: ambient::sleep_until(deadline) }
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, env::Elapsed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outer = PROLONGED.replace(None);
        let polled = self.future.as_mut().poll(context);
        if let Some(deadline) = PROLONGED.replace(outer) {
            self.sleep = ambient::sleep_until(deadline);
        }
        match polled {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => Pin::new(&mut self.sleep).poll(context).map(|()| Err(env::Elapsed)),
        }
    }
}

/// The runtime that openraft is given.
#[derive(Debug, Default)]
pub struct EnvRuntime;

impl AsyncRuntime for EnvRuntime {
    type JoinError = env::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = env::TaskHandle<T>;
    type Sleep = env::Sleep;
    type Instant = Instant;
    type TimeoutError = env::Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = env::Rng;
    type Mpsc = BoundedMpsc;
    type Watch = OrderedWatch;
    type Oneshot = OnceChannel;
    type Mutex<T: OptionalSend + 'static> = FairMutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        ambient::spawn("openraft", future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        ambient::sleep(duration)
    }

    /// Wakes on the grid of ticks: openraft waits like this for the ticks of each group, so those of all groups come in
    /// one wake-up of the thread, however many groups there are.
    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        ambient::sleep_until(on_grid(deadline.0))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        Timeout::new(ambient::now() + duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        Timeout::new(deadline.0, future)
    }

    fn is_panic(_error: &Self::JoinError) -> bool {
        // openraft aborts none of its tasks, so one that gave no result panicked or went down with its node.
        true
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        ambient::rng()
    }

    fn new(_threads: usize) -> Self {
        Self
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        // Only openraft's own tests come here; nothing in the product blocks a thread on a future.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(future),
            Err(error) => panic!("no runtime for openraft's tests: {error}"),
        }
    }

    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let world = ambient::env();
        async move { Ok(world.blocking(work).await) }
    }
}

/// A moment of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub env::Instant);

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        self.0 += duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        Self(self.0 - duration)
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, duration: Duration) {
        self.0 -= duration;
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.0 - earlier.0
    }
}

impl openraft_rt::Instant for Instant {
    fn now() -> Self {
        Self(ambient::now())
    }
}

/// Marks tokio's bounded channels of many senders.
#[derive(Debug)]
pub struct BoundedMpsc;

/// Sends into a bounded channel.
pub struct BoundedSender<T>(mpsc::Sender<T>);

/// Receives from a bounded channel.
pub struct BoundedReceiver<T>(mpsc::Receiver<T>);

/// A sender that does not keep the channel open.
pub struct WeakBoundedSender<T>(mpsc::WeakSender<T>);

impl<T> Clone for BoundedSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Clone for WeakBoundedSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl Mpsc for BoundedMpsc {
    type Sender<T: OptionalSend> = BoundedSender<T>;
    type Receiver<T: OptionalSend> = BoundedReceiver<T>;
    type WeakSender<T: OptionalSend> = WeakBoundedSender<T>;

    fn channel<T: OptionalSend>(buffer: usize) -> (Self::Sender<T>, Self::Receiver<T>) {
        let (sender, receiver) = mpsc::channel(buffer);
        (BoundedSender(sender), BoundedReceiver(receiver))
    }
}

impl<T: OptionalSend> MpscSender<BoundedMpsc, T> for BoundedSender<T> {
    async fn send(&self, message: T) -> Result<(), openraft_rt::SendError<T>> {
        self.0.send(message).await.map_err(|error| openraft_rt::SendError(error.0))
    }

    fn downgrade(&self) -> WeakBoundedSender<T> {
        WeakBoundedSender(self.0.downgrade())
    }
}

impl<T: OptionalSend> MpscReceiver<T> for BoundedReceiver<T> {
    async fn recv(&mut self) -> Option<T> {
        self.0.recv().await
    }

    fn try_recv(&mut self) -> Result<T, TryRecvError> {
        self.0.try_recv().map_err(|error| match error {
            mpsc::error::TryRecvError::Empty => TryRecvError::Empty,
            mpsc::error::TryRecvError::Disconnected => TryRecvError::Disconnected,
        })
    }
}

impl<T: OptionalSend> MpscWeakSender<BoundedMpsc, T> for WeakBoundedSender<T> {
    fn upgrade(&self) -> Option<BoundedSender<T>> {
        self.0.upgrade().map(BoundedSender)
    }
}

/// Marks tokio's channels for one value.
#[derive(Debug)]
pub struct OnceChannel;

/// Sends the one value.
pub struct OnceSender<T>(oneshot::Sender<T>);

impl Oneshot for OnceChannel {
    type Sender<T: OptionalSend> = OnceSender<T>;
    type Receiver<T: OptionalSend> = oneshot::Receiver<T>;
    type ReceiverError = oneshot::error::RecvError;

    fn channel<T: OptionalSend>() -> (Self::Sender<T>, Self::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (OnceSender(sender), receiver)
    }
}

impl<T: OptionalSend> OneshotSender<T> for OnceSender<T> {
    fn send(self, value: T) -> Result<(), T> {
        self.0.send(value)
    }
}

/// Tokio's mutex, which serves its waiters in order.
pub struct FairMutex<T>(tokio::sync::Mutex<T>);

impl<T: OptionalSend + 'static> Mutex<T> for FairMutex<T> {
    type Guard<'a> = tokio::sync::MutexGuard<'a, T>;

    fn new(value: T) -> Self {
        Self(tokio::sync::Mutex::new(value))
    }

    async fn lock(&self) -> Self::Guard<'_> {
        self.0.lock().await
    }
}

/// Marks `env`'s watch channels, whose waiters wake in order.
#[derive(Debug)]
pub struct OrderedWatch;

/// Changes the value of a watch.
pub struct OrderedSender<T>(watch::Sender<T>);

/// Watches the value of a watch.
pub struct OrderedReceiver<T>(watch::Receiver<T>);

/// A look at the value of a watch.
pub struct OrderedRef<'a, T>(watch::Ref<'a, T>);

impl<T> Deref for OrderedRef<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Clone for OrderedSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Clone for OrderedReceiver<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl Watch for OrderedWatch {
    type Sender<T: OptionalSend + OptionalSync> = OrderedSender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = OrderedReceiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = OrderedRef<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Self::Sender<T>, Self::Receiver<T>) {
        let (sender, receiver) = watch::channel(init);
        (OrderedSender(sender), OrderedReceiver(receiver))
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<OrderedWatch, T> for OrderedSender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if !self.0.is_watched() {
            return Err(SendError(value));
        }
        self.0.send_replace(value);
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        self.0.send_if_modified(modify)
    }

    fn borrow_watched(&self) -> OrderedRef<'_, T> {
        OrderedRef(self.0.borrow())
    }

    fn subscribe(&self) -> OrderedReceiver<T> {
        OrderedReceiver(self.0.subscribe())
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<OrderedWatch, T> for OrderedReceiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        self.0.changed().await.map_err(|_| RecvError(()))
    }

    fn borrow_watched(&self) -> OrderedRef<'_, T> {
        OrderedRef(self.0.borrow())
    }

    fn borrow_and_update(&mut self) -> OrderedRef<'_, T> {
        OrderedRef(self.0.borrow_and_update())
    }
}

/// A future in a box, for ports that are trait objects.
pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Polls a future once, without a task to wake.
pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    let mut context = Context::from_waker(std::task::Waker::noop());
    Pin::new(future).poll(&mut context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openrafts_own_suite_passes() {
        openraft_rt::testing::Suite::<EnvRuntime>::test_all();
    }
}
