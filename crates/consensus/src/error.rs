//! What can go wrong with a group.

use rustydb_types::ids::{GroupId, NodeId};

use crate::machine::MachineError;

/// Why an operation on a group failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConsensusError {
    /// No such group at this node.
    #[error("group {group} is not at this node")]
    UnknownGroup {
        /// The group.
        group: GroupId,
    },
    /// The number belonged to a group that was removed; numbers are never reused.
    #[error("group {group} was removed and its number is not used again")]
    Removed {
        /// The group.
        group: GroupId,
    },
    /// Only the leader can do this.
    #[error("this node does not lead group {group}")]
    NotLeader {
        /// The group.
        group: GroupId,
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// Another change of members is not finished, or the leader has not committed anything yet: try again.
    #[error("group {group} is busy: {reason}")]
    Busy {
        /// The group.
        group: GroupId,
        /// What it is busy with.
        reason: String,
    },
    /// The change makes no sense: an unknown node, an empty group.
    #[error("group {group} refuses the change: {reason}")]
    Refused {
        /// The group.
        group: GroupId,
        /// What is wrong.
        reason: String,
    },
    /// The operation did not end in time. It may still take effect.
    #[error("group {group}: no result in time")]
    TimedOut {
        /// The group.
        group: GroupId,
    },
    /// Whether the operation took effect is not known.
    #[error("group {group}: the outcome is not known")]
    Unknown {
        /// The group.
        group: GroupId,
    },
    /// The group has stopped; the reason is fatal for the node.
    #[error("group {group} has stopped: {reason}")]
    Stopped {
        /// The group.
        group: GroupId,
        /// Why.
        reason: String,
    },
    /// The stored state is damaged, and this node has the only copy of it.
    #[error(
        "group {group}: {reason}; this node has the only copy, so it is not opened and nothing is removed: \
         put the data folder back from a copy"
    )]
    OnlyCopy {
        /// The group.
        group: GroupId,
        /// What is damaged.
        reason: String,
    },
    /// A write or sync of the node's log has failed; the reason is fatal for the node.
    #[error("{reason}")]
    LogFailed {
        /// Why.
        reason: String,
    },
    /// The state machine cannot be opened or removed.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

/// What a caller can do about a [`ConsensusError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsensusErrorKind {
    /// Ask another node.
    NotLeader,
    /// Try again later.
    Retry,
    /// Find out what happened before trying again.
    Unknown,
    /// Wrong request.
    Refused,
    /// This node cannot do it any more.
    Fatal,
}

impl ConsensusError {
    /// What a caller can do about it.
    #[must_use]
    pub const fn kind(&self) -> ConsensusErrorKind {
        match self {
            Self::NotLeader { .. } => ConsensusErrorKind::NotLeader,
            Self::Busy { .. } => ConsensusErrorKind::Retry,
            Self::TimedOut { .. } | Self::Unknown { .. } => ConsensusErrorKind::Unknown,
            Self::UnknownGroup { .. } | Self::Removed { .. } | Self::Refused { .. } => {
                ConsensusErrorKind::Refused
            }
            Self::Stopped { .. } | Self::OnlyCopy { .. } | Self::LogFailed { .. } | Self::Machine(_) => {
                ConsensusErrorKind::Fatal
            }
        }
    }
}
