//! Reads: the transaction's own writes, then what is in flight, then the snapshot.

use bytes::Bytes;
use rustydb_env::Bug;
use rustydb_types::ids::Version;

use super::{Access, Transaction};
use crate::entry::Base;
use crate::error::TxnError;
use crate::layer::{Limits, ScanBounds, ScanChunk, ScanRequest, merge};

impl Transaction {
    /// The value at `key` in the snapshot of the present statement.
    ///
    /// # Errors
    /// [`TxnError::SnapshotTooOld`], [`TxnError::Storage`]; [`TxnError::Fallen`] when what was read before
    /// was refused.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TxnError> {
        if let Some(own) = self.own.get(key, self.command) {
            return Ok(own);
        }
        if let Some(own) = self.own_staged(key, self.command)? {
            return Ok(own);
        }
        if self.is_private(key) {
            return Ok(None);
        }
        if let Some(reads) = &self.reads {
            reads.lock().add_key(key);
        }
        self.get_snapshot(key)
    }

    /// The newest value at `key`, whatever the snapshot: the last own write, else the newest numbered version.
    /// For the check of a row after its lock was granted.
    ///
    /// # Errors
    /// As [`get`](Transaction::get).
    pub fn get_latest(&self, key: &[u8]) -> Result<Option<Bytes>, TxnError> {
        if let Some(own) = self.own.latest(key) {
            return Ok(own);
        }
        if let Some(own) = self.own_staged(key, u32::MAX)? {
            return Ok(own);
        }
        if self.is_private(key) {
            return Ok(None);
        }
        if let Some(reads) = &self.reads {
            reads.lock().add_key(key);
        }
        if !self.can_write() {
            return self.get_snapshot(key);
        }
        self.shared.check()?;
        if self.locked.get(key).is_some_and(|row| row.base == Base::NONE) {
            // There was no row when the lock was granted, and the lock keeps it so.
            return Ok(None);
        }
        Ok(self.core.newest(key, &self.shared.read_through)?.and_then(|found| found.value))
    }

    /// What the transaction itself has staged at `key` before `command`. Chunks are applied after the snapshot was
    /// taken; so it is looked up in what there is now.
    fn own_staged(&self, key: &[u8], command: u32) -> Result<Option<Option<Bytes>>, TxnError> {
        let Some(id) = self.staging.may_hold(key) else { return Ok(None) };
        self.shared.check()?;
        let row = self.core.layers.current().get_staged(id, key)?;
        Ok(row.filter(|row| row.command < command).map(|row| row.value))
    }

    pub(super) fn get_snapshot(&self, key: &[u8]) -> Result<Option<Bytes>, TxnError> {
        let at = self.pin.version();
        let mut extra = Vec::new();
        if self.can_write() {
            self.shared.check()?;
            if let Some(found) = self.core.overlay.get(key, at, &self.shared.read_through) {
                return Ok(found.value);
            }
            extra = self.core.overlay.staged_visible(at, &self.shared.read_through);
        }
        if self.core.env.has_bug(Bug::StagedVisible) {
            extra.extend(self.core.staged.table.read().open().map(|(id, _)| (id, id)));
        }
        Ok(self.pin.read(|set| set.get(key, at, &extra))?.and_then(|found| found.value))
    }

    /// A chunk of rows in order of key. It is empty only when the range has no more rows.
    ///
    /// # Errors
    /// As [`get`](Transaction::get).
    pub fn scan(&self, request: ScanRequest) -> Result<ScanChunk, TxnError> {
        let mut bounds = ScanBounds::new(request.start, request.end, request.direction);
        let mut limits = Limits { rows: request.max_rows.max(1), bytes: request.max_bytes.max(1) };
        loop {
            if bounds.is_empty() {
                return Ok(ScanChunk::default());
            }
            let chunk = self.scan_once(&bounds, limits)?;
            if let Some(reads) = &self.reads {
                let (start, end) = match (bounds.direction, chunk.rest()) {
                    (_, None) => (bounds.start.clone(), bounds.end.clone()),
                    (rustydb_storage::engine::Direction::Forward, Some((next, _))) => {
                        (bounds.start.clone(), Some(next))
                    }
                    (rustydb_storage::engine::Direction::Backward, Some((_, next))) => {
                        (next, bounds.end.clone())
                    }
                };
                reads.lock().add_range(start, end);
            }
            match chunk.rest() {
                Some((start, end)) if chunk.is_empty() => {
                    // Only deleted rows so far: go on in larger steps.
                    bounds = ScanBounds::new(start, end, bounds.direction);
                    limits.rows = (limits.rows.saturating_mul(4)).min(4096);
                }
                _ => return Ok(chunk),
            }
        }
    }

    fn scan_once(&self, bounds: &ScanBounds, limits: Limits) -> Result<ScanChunk, TxnError> {
        let at = self.pin.version();
        let mut runs = vec![self.own.run(bounds, self.command, limits)];
        if let Some(id) = self.staging.id() {
            let current = self.core.layers.current();
            runs.extend(current.own_staged_runs(bounds, id, self.command, limits)?);
        }
        let mut extra = Vec::new();
        if self.can_write() {
            self.shared.check()?;
            runs.push(self.core.overlay.run(bounds, at, limits, &self.shared.read_through));
            extra = self.core.overlay.staged_visible(at, &self.shared.read_through);
        }
        if self.core.env.has_bug(Bug::StagedVisible) {
            extra.extend(self.core.staged.table.read().open().map(|(id, _)| (id, id)));
        }
        let (layers, engine) = self.pin.read(|set| set.runs(bounds, at, &extra, limits))?;
        runs.extend(layers);
        Ok(merge(bounds, &runs, engine, limits))
    }

    /// Waits until everything that was read is certain: what was in flight is applied, and this node was the
    /// leader (or this replica up to date) when it was read. Call it before rows go to the client.
    ///
    /// # Errors
    /// [`TxnError::Fallen`] when something that was read was refused; [`TxnError::NotLeader`];
    /// [`TxnError::UnknownOutcome`] is never returned: nothing was committed here.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn settle_reads(&mut self) -> Result<(), TxnError> {
        if self.core.env.has_bug(Bug::RowsShownEarly) {
            return Ok(());
        }
        if self.can_write() {
            self.shared.check()?;
            let through = self.shared.read_through.load(std::sync::atomic::Ordering::SeqCst);
            if let Some(settled) = self.core.settling(Version::new(through), &self.shared)? {
                match self.core.env.timeout(self.core.config.commit_wait, settled).await {
                    Ok(Ok(result)) => result?,
                    Ok(Err(_)) => return Err(TxnError::Stopped),
                    Err(_) => return Err(TxnError::Overloaded { what: "commits that were read" }),
                }
            }
        }
        if self.options.access == Access::ReadLocal {
            return if self.core.is_withheld() { Err(self.core.not_leader()) } else { Ok(()) };
        }
        self.core.linearize().await?;
        self.shared.check()
    }
}
