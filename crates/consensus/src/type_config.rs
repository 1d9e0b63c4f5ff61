//! The types with which openraft is instantiated.
//!
//! Standard Raft: at most one leader per term, entries named by (term, index). A node is only its number; addresses
//! live outside of the log. A command is opaque here. openraft's own types never reach the disk or the wire: see
//! [`crate::codec`].

use std::fmt;

use bytes::Bytes;
use openraft::raft::responder::Responder;
use openraft::{OptionalSend, RaftTypeConfig};
use rustydb_types::{
    ids::{LogIndex, Term},
    position::LogPosition,
};

use crate::runtime::EnvRuntime;

/// How RustyDB uses openraft.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Command;
    type R = ();
    // A bare number here only: openraft's storage suite builds node ids from integers.
    type NodeId = u64;
    type Node = Member;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Command, u64, Member>;
    type Entry = openraft::Entry<<Self::LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = EnvRuntime;
    type Responder<T>
        = Answer<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// Names one entry: openraft's form of [`LogPosition`].
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
/// For whom a node voted.
pub type Vote = openraft::alias::VoteOf<TypeConfig>;
/// One entry of the log.
pub type Entry = openraft::alias::EntryOf<TypeConfig>;
/// What an entry carries.
pub type Payload = openraft::alias::PayloadOf<TypeConfig>;
/// Voters and learners of a group.
pub type Membership = openraft::Membership<u64, Member>;
/// A membership with the entry that brought it.
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot holds.
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
/// The leader of a term, once elected.
pub type CommittedLeaderId = openraft::alias::CommittedLeaderIdOf<TypeConfig>;

/// A member of a group carries nothing but its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Member;

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("member")
    }
}

/// A decided transaction on its way through the log, as an encoded entry body: log, network and state machine
/// share this one buffer.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    body: Bytes,
}

impl Command {
    /// Wraps an entry body that [`crate::codec`] encoded or checked.
    pub(crate) fn from_body(body: Bytes) -> Self {
        Self { body }
    }

    /// The encoded entry body.
    pub(crate) fn body(&self) -> &Bytes {
        &self.body
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.body.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Where openraft reports what became of a proposal. Called at most once; [`None`] when openraft dropped it
/// without a word because it stopped.
pub struct Answer<T> {
    done: Option<Box<dyn FnOnce(Option<T>) + Send>>,
}

impl<T> Answer<T> {
    /// Calls `done` with the result.
    pub fn new(done: impl FnOnce(Option<T>) + Send + 'static) -> Self {
        Self { done: Some(Box::new(done)) }
    }
}

impl<T> Responder<TypeConfig, T> for Answer<T>
where
    T: OptionalSend + 'static,
{
    fn on_complete(mut self, result: T) {
        if let Some(done) = self.done.take() {
            done(Some(result));
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(None);
        }
    }
}

/// The position that openraft calls a log id.
#[must_use]
pub fn position_of(log_id: &LogId) -> LogPosition {
    LogPosition::new(Term::new(log_id.leader_id.term), LogIndex::new(log_id.index))
}

/// The log id of a position.
#[must_use]
pub fn log_id_of(position: LogPosition) -> LogId {
    LogId::new_term_index(position.term.get(), position.index.get())
}
