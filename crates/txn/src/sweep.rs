//! The sweep: at the leader, drops staged transactions that nobody can commit any more.
//!
//! What may leave one behind: a change of leader, a transaction that rolled back or was refused, a first chunk
//! whose fate was unknown and that took effect after all. They are all found alike: open, and without a live owner.
//! An abort that is refused or lost is tried again, behind all others and with growing pauses, for as long as this node leads; the next
//! leader finds what is left. An abort that comes after a commit of the same transaction does nothing.

use std::sync::Arc;
use std::time::Duration;

use rustydb_env::sync::Signal;
use rustydb_types::ids::Version;

use crate::core::{Authority, Core};
use crate::entry::{EntryBuilder, EntryKind, NOBODY};
use crate::error::TxnError;
use crate::sequencer::Submission;

/// How often to look without being called.
const INTERVAL: Duration = Duration::from_secs(5);
/// The pause after a refusal, which doubles with each.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Runs until the store stops.
pub(crate) async fn sweep_loop(core: Arc<Core>, stopping: Signal) {
    let mut refused: Option<Duration> = None;
    loop {
        let next = async {
            match refused {
                // A refusal calls for the sweep itself: to heed that would be to try again without a pause.
                Some(pause) => core.env.sleep(pause).await,
                None => {
                    let _called_or_not = core.env.timeout(INTERVAL, core.sweep_wanted.notified()).await;
                }
            }
        };
        tokio::select! {
            biased;
            () = stopping.wait() => return,
            () = core.stopping.wait() => return,
            () = next => {}
        }
        refused = match core.sweep().await {
            Ok(()) => None,
            Err(error) => {
                tracing::debug!(%error, "a staged transaction could not be dropped; trying again");
                Some(refused.map_or(PAUSE_MIN, |pause| (pause * 2).min(PAUSE_MAX)))
            }
        };
    }
}

impl Core {
    /// Drops every staged transaction that is open and has no live owner.
    async fn sweep(self: &Arc<Core>) -> Result<(), TxnError> {
        if !matches!(*self.authority.borrow(), Authority::Here { .. }) {
            return Ok(());
        }
        let mut refused = None;
        for id in self.orphans() {
            match self.abort_staged(id).await {
                Ok(_) => {}
                // The next leader does it.
                Err(TxnError::NotLeader { .. } | TxnError::Stopped) => return Ok(()),
                // Those behind it do not wait for it.
                Err(error) => refused = Some(error),
            }
        }
        if let Some(error) = refused {
            return Err(error);
        }
        self.owners.forget_ended();
        Ok(())
    }

    /// One whose commit is in flight is left alone: that settles it one way or the other.
    fn orphans(&self) -> Vec<Version> {
        let open: Vec<Version> = self.staged.table.read().open().map(|(id, _)| id).collect();
        let waits = |id: Version| self.owners.is_live(id) || self.overlay.is_committing(id);
        open.into_iter().filter(|id| !waits(*id)).collect()
    }

    async fn abort_staged(self: &Arc<Core>, id: Version) -> Result<Version, TxnError> {
        let entry = EntryBuilder::new(EntryKind::AbortStaged, NOBODY, id, &[]);
        let mut submission = Submission::bare(EntryKind::AbortStaged, NOBODY, entry);
        submission.staged = id;
        let answer = self.submit_waiting(&mut submission).await?;
        Ok(self.answer(answer).await?)
    }
}
