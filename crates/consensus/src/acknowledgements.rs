//! When members last acknowledged this node's leadership, by when that was sent which they acknowledged.
//!
//! openraft keeps such times too, but goes by positions: an answer to an append counts for every later append that
//! ends at the same entry, whether or not that one was sent when the answer was given. A leader that stood still, or
//! whose answers were late, would renew its lease by what its members said before they elected another.
//! So the times by which is read are kept here, one per request and its own answer.
//!
//! Invariant: a time is not later than the moment at which its request left, and it belongs to one term.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use rustydb_env::Instant;

/// Acknowledgements of one group's members.
#[derive(Debug, Default)]
pub(crate) struct Acknowledgements {
    /// By member: the term and the time.
    latest: Mutex<BTreeMap<u64, (u64, Instant)>>,
}

impl Acknowledgements {
    /// A member has answered, as to its leader, a request of a term that was sent at `sent` or later.
    pub(crate) fn note(&self, member: u64, term: u64, sent: Instant) {
        let mut latest = self.latest.lock();
        let known = latest.entry(member).or_insert((term, sent));
        *known = (*known).max((term, sent));
    }

    /// The latest time at which, or after which, a majority of each of these sets has acknowledged the leader `me` of a
    /// term. The leader itself counts as acknowledging at any time: [`Instant::FAR_FUTURE`] when it alone is enough.
    pub(crate) fn of_majority(&self, me: u64, term: u64, voters: &[BTreeSet<u64>]) -> Option<Instant> {
        let latest = self.latest.lock();
        let of = |member: &u64| match latest.get(member) {
            _ if *member == me => Some(Instant::FAR_FUTURE),
            Some((of, at)) if *of == term => Some(*at),
            _ => None,
        };
        voters.iter().try_fold(Instant::FAR_FUTURE, |earliest, voters| {
            let mut times: Vec<Instant> = voters.iter().filter_map(of).collect();
            times.sort_unstable();
            let at = times.len().checked_sub(voters.len() / 2 + 1)?;
            times.get(at).map(|at| earliest.min(*at))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    fn sets(sets: &[&[u64]]) -> Vec<BTreeSet<u64>> {
        sets.iter().map(|set| set.iter().copied().collect()).collect()
    }

    #[test]
    fn a_majority_is_counted_with_the_leader_and_in_its_term_only() {
        let known = Acknowledgements::default();
        let three = sets(&[&[1, 2, 3]]);
        assert_eq!(known.of_majority(1, 7, &sets(&[&[1]])), Some(Instant::FAR_FUTURE));
        assert_eq!(known.of_majority(1, 7, &three), None);
        known.note(2, 6, at(90));
        assert_eq!(known.of_majority(1, 7, &three), None, "that was another term");
        known.note(2, 7, at(50));
        known.note(2, 7, at(40));
        assert_eq!(known.of_majority(1, 7, &three), Some(at(50)), "never back");
        known.note(3, 7, at(60));
        assert_eq!(known.of_majority(1, 7, &three), Some(at(60)));
        assert_eq!(known.of_majority(1, 7, &sets(&[&[1, 2, 3, 4, 5]])), Some(at(50)));
        assert_eq!(known.of_majority(1, 7, &sets(&[&[1, 2, 3], &[1, 4, 5]])), None, "both sets of a change");
        assert_eq!(known.of_majority(1, 7, &sets(&[&[2, 3, 4]])), Some(at(50)), "a leader that is no voter");
        assert_eq!(known.of_majority(1, 8, &three), None);
    }
}
