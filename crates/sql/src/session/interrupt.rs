//! Cancel requests, shutdown and timeouts: what ends a statement from outside.
//!
//! An [`Interrupts`] is shared by a session and those who may stop it. A statement asks [`Interrupts::check`] between
//! batches of rows, and waits for locks and the like through [`Interrupts::guard`], which costs nothing when the
//! awaited is ready at once.
//!
//! Invariant: one session at a time waits on an `Interrupts`; a cancel request that comes between statements is
//! forgotten when the next one begins, as in PostgreSQL.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::Poll;

use futures_util::task::AtomicWaker;
use rustydb_env::{Env, Instant, ambient};

use crate::error::{Severity, SqlError, SqlState};

const CANCEL: u8 = 1;
const TERMINATE: u8 = 2;

/// Requests to stop, of one session.
#[derive(Debug, Default)]
pub struct Interrupts {
    requested: AtomicU8,
    waker: AtomicWaker,
    /// When the running statement must end, in nanoseconds of the clock; 0 for never.
    deadline_nanos: AtomicU64,
}

/// When a statement must end, and what it is told then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// The moment.
    pub at: Instant,
}

impl Interrupts {
    /// Asks that the present statement ends (57014).
    pub fn cancel(&self) {
        self.requested.fetch_or(CANCEL, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Asks that the session ends (57P01).
    pub fn terminate(&self) {
        self.requested.fetch_or(TERMINATE, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Forgets a cancel request, at the begin of a statement.
    pub fn forget_cancel(&self) {
        if self.requested.load(Ordering::Relaxed) & CANCEL != 0 {
            self.requested.fetch_and(!CANCEL, Ordering::SeqCst);
        }
    }

    /// Whether the session is asked to end.
    #[must_use]
    pub fn is_terminated(&self) -> bool {
        self.requested.load(Ordering::SeqCst) & TERMINATE != 0
    }

    /// Fails when a stop was asked for.
    ///
    /// # Errors
    /// 57014, or 57P01 as FATAL.
    pub fn check(&self) -> Result<(), SqlError> {
        match self.requested.load(Ordering::Relaxed) {
            0 => Ok(()),
            requested => Err(Self::error(requested)),
        }
    }

    /// Says when the statement that begins must end.
    pub fn arm(&self, deadline: Option<Deadline>) {
        let nanos = deadline.map_or(0, |deadline| deadline.at.as_nanos().max(1));
        self.deadline_nanos.store(nanos, Ordering::Relaxed);
    }

    /// As [`check`](Interrupts::check) within a statement, which also fails when its time is over: work that computes
    /// for long waits for nothing that [`guard`](Interrupts::guard) could end. Others that compute get their turns here.
    ///
    /// # Errors
    /// 57014, or 57P01 as FATAL.
    pub fn check_running(&self) -> Result<(), SqlError> {
        ambient::share_turn();
        self.check()?;
        match self.deadline_nanos.load(Ordering::Relaxed) {
            0 => Ok(()),
            nanos if ambient::now().as_nanos() < nanos => Ok(()),
            _ => Err(Self::timed_out()),
        }
    }

    /// Ends when a stop is asked for; for those who wait for a client. Cancel requests do not count.
    pub async fn terminated(&self) {
        std::future::poll_fn(|cx| {
            self.waker.register(cx.waker());
            if self.is_terminated() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Awaits `future`, unless a stop is asked for or the deadline passes: then the future is dropped.
    ///
    /// # Errors
    /// 57014 or 57P01.
    pub async fn guard<F: Future>(
        &self,
        env: &Env,
        deadline: Option<Deadline>,
        future: F,
    ) -> Result<F::Output, SqlError> {
        let mut future = pin!(future);
        // Most awaits on the hot path are ready at once; only those that are not pay for a timer.
        let ready = std::future::poll_fn(|cx| {
            Poll::Ready(match future.as_mut().poll(cx) {
                Poll::Ready(output) => Some(output),
                Poll::Pending => None,
            })
        })
        .await;
        if let Some(output) = ready {
            return Ok(output);
        }
        let mut sleep = pin!(deadline.map(|deadline| env.sleep_until(deadline.at)));
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            self.waker.register(cx.waker());
            let requested = self.requested.load(Ordering::SeqCst);
            if requested != 0 {
                return Poll::Ready(Err(Self::error(requested)));
            }
            if let Some(sleep) = sleep.as_mut().as_pin_mut()
                && sleep.poll(cx).is_ready()
            {
                return Poll::Ready(Err(Self::timed_out()));
            }
            Poll::Pending
        })
        .await
    }

    /// Fails when the deadline has passed.
    ///
    /// # Errors
    /// 57014.
    pub fn check_deadline(env: &Env, deadline: Option<Deadline>) -> Result<(), SqlError> {
        match deadline {
            Some(deadline) if env.now() >= deadline.at => Err(Self::timed_out()),
            _ => Ok(()),
        }
    }

    fn timed_out() -> SqlError {
        SqlError::new(SqlState::QUERY_CANCELED, "canceling statement due to statement timeout")
    }

    fn error(requested: u8) -> SqlError {
        if requested & TERMINATE != 0 {
            SqlError::new(SqlState::ADMIN_SHUTDOWN, "terminating connection due to administrator command")
                .with_severity(Severity::Fatal)
        } else {
            Self::cancelled()
        }
    }

    /// What a cancelled statement is told.
    pub(crate) fn cancelled() -> SqlError {
        SqlError::new(SqlState::QUERY_CANCELED, "canceling statement due to user request")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_wait_ends_by_cancel_terminate_and_deadline() {
        let env = Env::os();
        let interrupts = Arc::new(Interrupts::default());
        let other = Arc::clone(&interrupts);
        let waiting = interrupts.guard(&env, None, std::future::pending::<()>());
        let (ended, ()) = futures_util::join!(waiting, async { other.cancel() });
        assert_eq!(ended.unwrap_err().state(), SqlState::QUERY_CANCELED);
        interrupts.forget_cancel();
        assert!(interrupts.check().is_ok());

        let deadline = Some(Deadline { at: env.now() + Duration::from_millis(1) });
        let ended = interrupts.guard(&env, deadline, std::future::pending::<()>()).await;
        assert_eq!(ended.unwrap_err().message(), "canceling statement due to statement timeout");
        assert_eq!(
            interrupts.guard(&env, deadline, async { 7 }).await,
            Ok(7),
            "what is ready is not too late"
        );

        interrupts.arm(Some(Deadline { at: env.now() + Duration::from_secs(3600) }));
        assert!(interrupts.check_running().is_ok());
        interrupts.arm(deadline);
        assert_eq!(interrupts.check_running().unwrap_err().state(), SqlState::QUERY_CANCELED);
        assert!(interrupts.check().is_ok(), "between statements a deadline that has passed means nothing");
        interrupts.arm(None);
        assert!(interrupts.check_running().is_ok());

        interrupts.terminate();
        interrupts.terminated().await;
        assert_eq!(interrupts.check().unwrap_err().state(), SqlState::ADMIN_SHUTDOWN);
    }
}
