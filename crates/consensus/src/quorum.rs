//! How many voters a group needs, and how many it may lose.
//!
//! | voters | quorum | failures survived |
//! |---|---|---|
//! | 1 | 1 | 0 |
//! | 2 | 2 | 0 |
//! | 3 | 2 | 1 |
//! | 4 | 3 | 1 |
//! | 5 | 3 | 2 |
//! | 6 | 4 | 2 |
//! | 7 | 4 | 3 |

use std::fmt;

/// The largest number of voters that is supported: more only make every commit slower.
pub const VOTERS_MAX: usize = 7;

/// What a number of voters means for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    voters: usize,
}

/// Why a number of voters is unwise although it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuorumWarning {
    /// One voter: no failure is survived.
    Single,
    /// An even number survives no more failures than one voter fewer, and commits slower.
    Even {
        /// The number of voters.
        voters: usize,
    },
    /// More voters than are supported.
    TooMany {
        /// The number of voters.
        voters: usize,
    },
}

impl fmt::Display for QuorumWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single => f.write_str("a single voter survives no failure"),
            Self::Even { voters } => write!(
                f,
                "{voters} voters survive no more failures than {} and need a larger quorum",
                voters.saturating_sub(1)
            ),
            Self::TooMany { voters } => write!(f, "{voters} voters are more than the supported {VOTERS_MAX}"),
        }
    }
}

impl Quorum {
    /// The quorum of a group of so many voters.
    #[must_use]
    pub const fn of(voters: usize) -> Self {
        Self { voters }
    }

    /// How many voters must agree: more than half.
    #[must_use]
    pub const fn size(self) -> usize {
        self.voters / 2 + 1
    }

    /// How many voters may fail while the rest still agree.
    #[must_use]
    pub const fn failures_survived(self) -> usize {
        self.voters.saturating_sub(1) / 2
    }

    /// What an operator should be told about this number of voters, if anything.
    #[must_use]
    pub const fn warning(self) -> Option<QuorumWarning> {
        match self.voters {
            1 => Some(QuorumWarning::Single),
            voters if voters > VOTERS_MAX => Some(QuorumWarning::TooMany { voters }),
            voters if voters.is_multiple_of(2) => Some(QuorumWarning::Even { voters }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_one_to_seven_are_as_the_table_says() {
        let table = [(1, 1, 0), (2, 2, 0), (3, 2, 1), (4, 3, 1), (5, 3, 2), (6, 4, 2), (7, 4, 3)];
        for (voters, quorum, failures) in table {
            assert_eq!(Quorum::of(voters).size(), quorum, "quorum of {voters}");
            assert_eq!(Quorum::of(voters).failures_survived(), failures, "failures of {voters}");
        }
    }

    #[test]
    fn two_quorums_always_meet() {
        for voters in 1..=VOTERS_MAX {
            assert!(2 * Quorum::of(voters).size() > voters, "{voters}");
            assert!(Quorum::of(voters).failures_survived() + Quorum::of(voters).size() <= voters, "{voters}");
        }
    }

    #[test]
    fn even_sizes_one_and_too_many_are_warned_of() {
        for voters in [3, 5, 7] {
            assert_eq!(Quorum::of(voters).warning(), None);
        }
        for voters in [2, 4, 6] {
            assert_eq!(Quorum::of(voters).warning(), Some(QuorumWarning::Even { voters }));
        }
        assert_eq!(Quorum::of(1).warning(), Some(QuorumWarning::Single));
        assert_eq!(Quorum::of(9).warning(), Some(QuorumWarning::TooMany { voters: 9 }));
        assert_eq!(
            Quorum::of(4).warning().map(|warning| warning.to_string()).as_deref(),
            Some("4 voters survive no more failures than 3 and need a larger quorum")
        );
    }
}
