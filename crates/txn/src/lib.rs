//! The waist: a transactional, multi-version, ordered key-value store with a change feed.
//!
//! ```text
//!            Transaction (reads, locks, buffered writes)          StateMachine (driven by consensus)
//!                 | commit                                             | apply, leadership, snapshots
//!                 v                                                    v
//!   sequencer: validate, number, propose --> [Proposer: Raft or a log] --> apply: check, recent layer, wake
//!                 | overlay: what is in flight                         | flush in the background
//!                 '--------------- snapshots read both ----------------'--> engine
//! ```
//!
//! Above this crate nothing names Raft; below it nothing names SQL. Invariants:
//! - the order of commits is the order of the log; a commit's version is its sequence in it;
//! - `flushed <= applied <= numbered`, and a client hears only of what is applied;
//! - apply is the same function of the log on every replica;
//! - nothing here waits without a deadline, save for a lock that was asked for without one.

pub mod entry;
pub mod error;

mod apply;
mod audit;
mod config;
mod core;
mod damage;
mod feed;
mod flush;
mod hash;
mod layer;
mod local;
mod locks;
mod machine;
mod marks;
mod meta;
mod outcomes;
mod overlay;
mod owners;
mod proposer;
mod ranges;
mod sequencer;
mod snapshot;
mod staged;
mod store;
mod stores;
mod sweep;
mod transaction;
mod validation;

pub use rustydb_storage::engine::Direction;

pub use crate::audit::{Audit, AuditId, AuditReport};
pub use crate::config::KvConfig;
pub use crate::core::Authority;
pub use crate::entry::Attachment;
pub use crate::error::{ApplyError, ProposeError, Suspicion, TxnError, TxnErrorKind};
pub use crate::feed::{Change, FeedEvent, FeedSubscriber};
pub use crate::layer::{ScanChunk, ScanRequest};
pub use crate::local::{LocalKv, LocalProposer};
pub use crate::locks::{
    AdvisoryId, AdvisoryWait, LockView, LockWait, Locked, RowLock, SessionLocks, TableLockId, TableLockMode,
};
pub use crate::machine::{Applied, ApplyEntry, ApplyPayload, Leadership, StateMachine};
pub use crate::marks::{Mark, MarkAt};
pub use crate::outcomes::{Fate, OutcomeBounds};
pub use crate::proposer::{Linearize, Proposal, ProposalDone, Proposer};
pub use crate::snapshot::{SnapshotInstaller, SnapshotReader};
pub use crate::store::{KvStats, KvStore};
pub use crate::stores::EngineOpener;
pub use crate::transaction::{
    Access, CommitReceipt, Isolation, RowLockOutcome, SavepointId, Transaction, TxnOptions,
};
