//! The port to whatever makes a commit durable and ordered: Raft, or a log of one's own.

use std::fmt;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use rustydb_types::ids::Term;

use crate::error::{ProposeError, TxnError};

/// Told once what became of a proposal. `Ok` says only that the entry is in the log for good; that it took effect
/// is learnt when it is applied.
pub type ProposalDone = Box<dyn FnOnce(Result<(), ProposeError>) + Send>;

/// An entry on its way to the log.
pub struct Proposal {
    /// The leadership that the entry is bound to: in any other term it must be refused.
    pub term: Term,
    /// The encoded entry.
    pub entry: Bytes,
    /// Called once, or dropped, which counts as [`ProposeError::Unknown`].
    pub done: ProposalDone,
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proposal")
            .field("term", &self.term)
            .field("size_bytes", &self.entry.len())
            .finish_non_exhaustive()
    }
}

/// How a read is made linearizable.
pub enum Linearize {
    /// A valid lease is held and everything it covers is applied: read on.
    Now,
    /// Wait for this first.
    Wait(BoxFuture<'static, Result<(), TxnError>>),
}

impl fmt::Debug for Linearize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Linearize::Now => "Now",
            Linearize::Wait(_) => "Wait",
        })
    }
}

/// Makes commits durable and ordered.
///
/// A proposal whose fate is [`ProposeError::Unknown`] may be in the log, but only ahead of everything that is
/// proposed after that was said.
pub trait Proposer: Send + Sync + 'static {
    /// Takes an entry. Called in order, under the sequencer's lock: it must not block, and must not call `done`
    /// before it returns.
    ///
    /// # Errors
    /// [`ProposeError`] when the entry is refused at once; `done` is then never called.
    fn propose(&self, proposal: Proposal) -> Result<(), ProposeError>;

    /// What to wait for before reading applied data as the newest.
    fn linearize(&self) -> Linearize;
}
