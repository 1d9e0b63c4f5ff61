//! Audits: is what is stored what the hash says, on every replica at one position?
//!
//! ```text
//!   each replica ── begin: waits for the audit's entry
//!   the leader   ── commits that entry: a fence under the audit's own request
//!   each replica ── applies it, pins the state at that position, reads all of it, sums the shares
//! ```
//!
//! The entry is one that every release understands, and the pin costs apply nothing. All rows are read in steps of
//! bounded size, off the threads that serve; writers go on, and the rows that they replace stay readable by the pin.
//! A pin is given up before memory runs out, and then the audit fails and may be repeated. Rows of staged transactions
//! that are open, and outcomes, are counted as they are kept in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use rustydb_types::ids::{Incarnation, RequestId, SessionId};
use rustydb_types::position::LogPosition;
use tokio::sync::oneshot;

use crate::apply::ApplyState;
use crate::core::Core;
use crate::error::TxnError;
use crate::hash;
use crate::layer::{Limits, Pin, ScanBounds, visit_rows};
use crate::store::KvStore;

/// The incarnation of requests that are audits: no node has it.
const AUDITOR: Incarnation = Incarnation::new(u64::MAX);
/// Rows and bytes that one step reads.
const STEP: Limits = Limits { rows: 4096, bytes: 1 << 20 };
/// Audits that one store waits for at a time; another is refused.
const AUDITS_MAX: usize = 4;

/// Names one audit, on all replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuditId(u64);

impl AuditId {
    /// The audit with a number, drawn so that no two are alike.
    #[must_use]
    pub const fn new(number: u64) -> AuditId {
        AuditId(number)
    }

    const fn request(self) -> RequestId {
        RequestId { incarnation: AUDITOR, session: SessionId::new(self.0), counter: 1 }
    }
}

/// What one replica found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// The position, which is the same on every replica.
    pub position: LogPosition,
    /// The state hash as it was kept, entry by entry.
    pub kept: u128,
    /// The state hash of the rows that are stored.
    pub stored: u128,
    /// Rows that were read.
    pub rows: u64,
}

/// The state at the audit's entry.
pub(crate) struct AuditedState {
    pin: Pin,
    position: LogPosition,
    kept: u128,
    rows_hash: u128,
}

/// The audits that wait for their entries.
pub(crate) type Audits = Mutex<BTreeMap<AuditId, oneshot::Sender<AuditedState>>>;

/// Whether a fence is the entry of an audit.
pub(crate) fn audit_of(request: &RequestId) -> Option<AuditId> {
    (request.incarnation == AUDITOR).then(|| AuditId(request.session.get()))
}

impl Core {
    /// Pins the state for the audit of the entry that was just applied and published, if somebody waits for it.
    pub(crate) fn pin_for_audit(&self, state: &ApplyState, audit: AuditId) {
        let waiting = self.audits.lock().remove(&audit);
        if let (Some(waiting), Some(position)) = (waiting, state.position) {
            let (kept, rows_hash) = (self.hash_of(state), state.rows_hash);
            let pin = self.layers.pin(None);
            // Who waited may have given up.
            let _gone = waiting.send(AuditedState { pin, position, kept, rows_hash });
        }
    }
}

/// An audit that this replica takes part in. Dropping it ends that.
pub struct Audit {
    core: Arc<Core>,
    id: AuditId,
    state: Option<oneshot::Receiver<AuditedState>>,
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.core.audits.lock().remove(&self.id);
    }
}

impl KvStore {
    /// Takes part in an audit: from here on its entry is waited for.
    ///
    /// # Errors
    /// [`TxnError::Overloaded`] when too many are under way.
    pub fn begin_audit(&self, id: AuditId) -> Result<Audit, TxnError> {
        let core = Arc::clone(self.core());
        let (sender, receiver) = oneshot::channel();
        let mut audits = core.audits.lock();
        if audits.len() >= AUDITS_MAX {
            return Err(TxnError::Overloaded { what: "audits" });
        }
        audits.insert(id, sender);
        drop(audits);
        Ok(Audit { core, id, state: Some(receiver) })
    }

    /// Commits the entry at which all replicas are audited. At the leader.
    ///
    /// # Errors
    /// As [`fate`](KvStore::fate).
    pub async fn mark_audit(&self, id: AuditId) -> Result<(), TxnError> {
        self.core().linearize().await?;
        self.fence(id.request()).await
    }
}

impl Audit {
    /// Waits for the entry, and reads everything that was stored then. The caller sets the deadline.
    ///
    /// # Errors
    /// [`TxnError::SnapshotTooOld`] when what was to be read was given up; [`TxnError::Storage`] when it cannot be
    /// read; [`TxnError::Stopped`].
    ///
    /// # Cancellation
    /// Safe: at most one more step is read.
    pub async fn report(mut self) -> Result<AuditReport, TxnError> {
        let Some(state) = self.state.take() else { return Err(TxnError::Stopped) };
        let AuditedState { pin, position, kept, rows_hash } = state.await.map_err(|_| TxnError::Stopped)?;
        let pin = Arc::new(pin);
        let (mut sum, mut rows) = (0_u128, 0_u64);
        let mut from = Some(Bytes::new());
        while let Some(start) = from {
            let reading = Arc::clone(&pin);
            let step = self.core.env.blocking(move || read_step(&reading, start)).await?;
            sum = sum.wrapping_add(step.sum);
            rows += step.rows;
            from = step.next;
        }
        let stored = kept.wrapping_sub(rows_hash).wrapping_add(sum);
        Ok(AuditReport { position, kept, stored, rows })
    }
}

struct StepRead {
    sum: u128,
    rows: u64,
    next: Option<Bytes>,
}

fn read_step(pin: &Pin, start: Bytes) -> Result<StepRead, TxnError> {
    let bounds = ScanBounds::new(start, Bytes::new(), rustydb_storage::engine::Direction::Forward);
    let (runs, engine) = pin.read(|set| set.runs(&bounds, pin.version(), &[], STEP))?;
    let mut step = StepRead { sum: 0, rows: 0, next: None };
    let last = visit_rows(&bounds, &runs, &engine, |key, version, value| {
        step.sum = step.sum.wrapping_add(hash::row(key, version, value));
        step.rows += 1;
        std::ops::ControlFlow::Continue(())
    });
    step.next = last.map(|last| {
        let mut next = BytesMut::from(&last[..]);
        next.put_u8(0);
        next.freeze()
    });
    Ok(step)
}
