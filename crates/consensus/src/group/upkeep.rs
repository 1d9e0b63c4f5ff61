//! What a group does now and then: keep the log short, and the leadership where it is wanted.

use openraft::async_runtime::WatchReceiver;
use rustydb_types::ids::NodeId;

use super::Group;
use crate::{error::ConsensusError, node_state::NodeState};

impl Group {
    /// Keeps the log short and the leadership where it is wanted.
    pub(super) async fn upkeep(self) {
        let stopping = self.inner.tasks.stopping();
        loop {
            let interval = self.inner.config.upkeep_interval;
            if self.inner.env.timeout(interval, stopping.wait()).await.is_ok() {
                return;
            }
            if let Err(error) = self.shorten_log().await {
                tracing::debug!(group = self.inner.id.get(), %error, "no snapshot");
            }
            self.inner.handle.log.check_space();
            let preferred = *self.inner.preferred.lock();
            if let Some(preferred) = preferred {
                self.hand_over_to(preferred).await;
            }
        }
    }

    /// Takes a snapshot when much was applied since the last one. Whatever little a group writes, its entries do not
    /// stay further behind than that either: all groups share the log, which is as long as the oldest entry is old.
    async fn shorten_log(&self) -> Result<(), ConsensusError> {
        if !self.is_sound() {
            // A state that is about to be replaced is no snapshot, and the log behind it is needed.
            return Ok(());
        }
        let bound_bytes = self.inner.config.snapshot_log_bytes;
        if self.inner.cell.bytes_since_snapshot() >= bound_bytes {
            return self.snapshot().await;
        }
        let log = self.inner.handle.log.group(self.inner.id);
        let Some(through) = log.last_behind(bound_bytes) else { return Ok(()) };
        let (snapshot, applied) = {
            let metrics = self.inner.handle.raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.snapshot.map(|at| at.index), metrics.last_applied.map(|at| at.index))
        };
        if snapshot >= Some(through.get()) {
            let trigger = self.inner.handle.raft.trigger();
            trigger.purge_log(through.get()).await.map_err(|fatal| self.inner.handle.stopped(fatal))
        } else if applied > snapshot {
            self.snapshot().await
        } else {
            Ok(())
        }
    }

    async fn hand_over_to(&self, preferred: NodeId) {
        let status = self.status();
        let at = status.matched.iter().find(|(node, _)| *node == preferred).and_then(|(_, at)| *at);
        let caught_up = at.is_some() && at >= status.commit_index && status.uncommitted_entries == 0;
        if status.state != NodeState::Leader || preferred == self.inner.node || !caught_up || status.joint {
            return;
        }
        if let Err(error) = self.transfer_leader(preferred).await {
            tracing::info!(group = self.inner.id.get(), node = preferred.get(), %error, "the preferred node does not lead yet");
        }
    }
}
