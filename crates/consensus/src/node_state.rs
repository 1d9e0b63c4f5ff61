//! The states a member of a group goes through, and the steps between them that are legal.
//!
//! ```text
//! Joining ──────► Follower ◄────────► Candidate
//!    ▲               ▲                    │
//!    │               └───── Leader ◄──────┘
//!    └── a member that was removed joins again
//! ```
//! `Joining` is a member without a vote: a learner, or one that has no membership yet. A leader or candidate that
//! is removed becomes a follower first. Nobody leads without having been a candidate.

use std::fmt;

/// Where a member stands in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// Receives the log but has no vote (a learner), or no membership has reached it yet.
    Joining,
    /// Votes and follows a leader.
    Follower,
    /// Asks the others for their votes.
    Candidate,
    /// Leads: a majority voted for it in the present term.
    Leader,
}

impl NodeState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Joining, Self::Follower, Self::Candidate, Self::Leader];

    /// The name that status answers print.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Joining => "learner",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A step that no member may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a member cannot go from {from} to {to}")]
pub struct IllegalTransition {
    /// Where the member stood.
    pub from: NodeState,
    /// Where it was said to go.
    pub to: NodeState,
}

/// Follows one member through its states and refuses illegal steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeStateMachine {
    state: NodeState,
}

impl Default for NodeStateMachine {
    fn default() -> Self {
        Self::new()
    }
}

impl NodeStateMachine {
    /// A member that has just started.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: NodeState::Joining }
    }

    /// Where the member stands.
    #[must_use]
    pub const fn state(self) -> NodeState {
        self.state
    }

    /// Takes one step. Staying where one is always is legal.
    ///
    /// # Errors
    /// [`IllegalTransition`] when there is no such step; the state is unchanged then.
    pub fn step(&mut self, to: NodeState) -> Result<(), IllegalTransition> {
        use NodeState::{Candidate, Follower, Joining, Leader};
        let from = self.state;
        let legal = from == to
            || matches!(
                (from, to),
                (Joining, Follower)
                    | (Follower, Joining | Candidate)
                    | (Candidate, Follower | Leader)
                    | (Leader, Follower)
            );
        if !legal {
            return Err(IllegalTransition { from, to });
        }
        self.state = to;
        Ok(())
    }

    /// Follows an observation that may have missed states in between, by taking the shortest legal way.
    /// Returns the states that were passed, the last being `to`; empty when nothing changed.
    pub fn observe(&mut self, to: NodeState) -> Vec<NodeState> {
        use NodeState::{Candidate, Follower, Joining, Leader};
        let way: &[NodeState] = match (self.state, to) {
            (from, to) if from == to => &[],
            (Joining, Candidate) => &[Follower, Candidate],
            (Joining, Leader) => &[Follower, Candidate, Leader],
            (Follower, Leader) => &[Candidate, Leader],
            (Candidate | Leader, Joining) => &[Follower, Joining],
            (Leader, Candidate) => &[Follower, Candidate],
            (_, Joining) => &[Joining],
            (_, Follower) => &[Follower],
            (_, Candidate) => &[Candidate],
            (_, Leader) => &[Leader],
        };
        self.state = way.last().copied().unwrap_or(self.state);
        way.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_state() -> impl Strategy<Value = NodeState> {
        prop::sample::select(NodeState::ALL.to_vec())
    }

    /// The legal steps, written down a second time: as data.
    const LEGAL: [(NodeState, NodeState); 6] = [
        (NodeState::Joining, NodeState::Follower),
        (NodeState::Follower, NodeState::Joining),
        (NodeState::Follower, NodeState::Candidate),
        (NodeState::Candidate, NodeState::Follower),
        (NodeState::Candidate, NodeState::Leader),
        (NodeState::Leader, NodeState::Follower),
    ];

    proptest! {
        #[test]
        fn illegal_transitions_are_rejected_and_change_nothing(steps in prop::collection::vec(any_state(), 0..64)) {
            let mut machine = NodeStateMachine::new();
            let mut model = NodeState::Joining;
            for to in steps {
                let legal = model == to || LEGAL.contains(&(model, to));
                let result = machine.step(to);
                prop_assert_eq!(result.is_ok(), legal, "{} -> {}", model, to);
                if legal {
                    model = to;
                } else {
                    prop_assert_eq!(result, Err(IllegalTransition { from: model, to }));
                }
                prop_assert_eq!(machine.state(), model);
            }
        }

        #[test]
        fn an_observation_takes_only_legal_steps(seen in prop::collection::vec(any_state(), 0..64)) {
            let mut observer = NodeStateMachine::new();
            let mut strict = NodeStateMachine::new();
            for to in seen {
                for passed in observer.observe(to) {
                    prop_assert_eq!(strict.step(passed), Ok(()));
                }
                prop_assert_eq!(strict.state(), to);
                prop_assert_eq!(observer.state(), to);
            }
        }
    }

    #[test]
    fn nobody_leads_without_having_been_a_candidate() {
        for state in NodeState::ALL {
            let mut machine = NodeStateMachine { state };
            let lead = machine.step(NodeState::Leader);
            assert_eq!(lead.is_ok(), matches!(state, NodeState::Candidate | NodeState::Leader), "{state}");
        }
    }
}
