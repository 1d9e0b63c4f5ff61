//! Whether a member that has lost its log knows enough to take part again: what was answered, and what follows.
//!
//! Nothing here waits or sends; the argument is in `mending.rs`.

use std::collections::{BTreeMap, BTreeSet};

use rustydb_types::ids::NodeId;

use crate::type_config::{StoredMembership, Vote};

/// What a sound member says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// For whom it has voted.
    pub(crate) vote: Vote,
    /// The members as of the last entry that names some and that it knows to be committed.
    pub(crate) committed: StoredMembership,
    /// The members as of the end of its log.
    pub(crate) effective: StoredMembership,
}

/// What a node that was asked has said.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Where it stands.
    Stands(Standing),
    /// It has lost its log, too.
    Lost,
    /// It has no such group.
    Unknown,
}

/// Where the asking has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// These must answer.
    Missing(BTreeSet<NodeId>),
    /// Nobody is known who could know anything.
    OnlyCopy,
    /// So many have lost their logs, this one among them, that what was promised may be known to nobody.
    TooManyLost(BTreeSet<NodeId>),
    /// The highest vote of all.
    Enough {
        /// That vote, of the term to be taken.
        vote: Vote,
        /// Whether those whose logs are whole can elect somebody without the others.
        can_elect: bool,
    },
}

/// All that is known to a member that asks.
pub(crate) struct Known {
    me: NodeId,
    /// The members as of what its state has applied, which was committed.
    applied: Option<StoredMembership>,
    answers: BTreeMap<NodeId, Answer>,
    /// The highest vote that was heard of.
    highest: Option<Vote>,
}

impl Known {
    pub(crate) fn new(me: NodeId, applied: Option<StoredMembership>) -> Self {
        let applied = applied.filter(|applied| applied.nodes().next().is_some());
        Self { me, applied, answers: BTreeMap::new(), highest: None }
    }

    /// Takes an answer in. A later one counts instead of an earlier one, for members change meanwhile; but the highest vote
    /// stays, and who had the group is not believed to have none.
    pub(crate) fn take(&mut self, node: NodeId, answer: Answer) {
        match answer {
            Answer::Unknown => drop(self.answers.entry(node).or_insert(answer)),
            Answer::Lost => drop(self.answers.insert(node, answer)),
            Answer::Stands(standing) => {
                let term = |vote: &Vote| vote.leader_id.term;
                if self.highest.as_ref().is_none_or(|highest| term(highest) < term(&standing.vote)) {
                    self.highest = Some(standing.vote);
                }
                self.answers.insert(node, Answer::Stands(standing));
            }
        }
    }

    /// Whom to ask: the members, and these nodes.
    pub(crate) fn to_ask(&self, peers: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let members = self.named().into_iter().flat_map(nodes_of);
        members.chain(peers.iter().copied()).filter(|node| *node != self.me).collect()
    }

    /// What follows from all that was said.
    pub(crate) fn verdict(&self, peers: &BTreeSet<NodeId>) -> Verdict {
        let named = self.named();
        let required: BTreeSet<NodeId> =
            named.iter().flat_map(|named| nodes_of(named)).filter(|node| *node != self.me).collect();
        if required.is_empty() {
            // Somebody may have been taken in since.
            let asked = |node: &&NodeId| **node != self.me && !self.answers.contains_key(*node);
            let missing: BTreeSet<NodeId> = peers.iter().filter(asked).copied().collect();
            let lost = |answer: &Answer| matches!(answer, Answer::Lost);
            let lost = self.answers.iter().filter(|(_, answer)| lost(answer)).map(|(node, _)| *node);
            let lost: BTreeSet<NodeId> = lost.collect();
            return match (missing.is_empty(), lost.is_empty()) {
                (false, _) => Verdict::Missing(missing),
                (true, true) => Verdict::OnlyCopy,
                (true, false) => Verdict::TooManyLost(lost),
            };
        }
        let answered =
            |node: &NodeId| matches!(self.answers.get(node), Some(Answer::Stands(_) | Answer::Lost));
        let missing: BTreeSet<NodeId> = required.iter().filter(|node| !answered(node)).copied().collect();
        if !missing.is_empty() {
            return Verdict::Missing(missing);
        }
        let is_lost =
            |node: &NodeId| *node == self.me || matches!(self.answers.get(node), Some(Answer::Lost));
        let mut can_elect = true;
        for voters in named.iter().flat_map(|named| named.get_joint_config()) {
            let voters: BTreeSet<NodeId> = voters.iter().copied().map(NodeId::new).collect();
            let majority = voters.len() / 2 + 1;
            let lost: BTreeSet<NodeId> = voters.iter().filter(|node| is_lost(node)).copied().collect();
            if lost.len() >= majority {
                return Verdict::TooManyLost(lost);
            }
            can_elect &= voters.len() - lost.len() >= majority;
        }
        match self.highest {
            Some(vote) => Verdict::Enough { vote, can_elect },
            // All others have lost theirs, and none of them had a vote.
            None => Verdict::TooManyLost(required),
        }
    }

    fn standings(&self) -> impl Iterator<Item = &Standing> {
        self.answers.values().filter_map(|answer| match answer {
            Answer::Stands(standing) => Some(standing),
            Answer::Lost | Answer::Unknown => None,
        })
    }

    /// The last members that are known to be committed, and all later ones: whoever is in none of these was removed.
    fn named(&self) -> Vec<&StoredMembership> {
        let committed = self.standings().map(|standing| &standing.committed).chain(self.applied.as_ref());
        let committed = committed.filter(|named| named.nodes().next().is_some());
        let last = committed.max_by_key(|named| position(named));
        let later = self.standings().map(|standing| &standing.effective).filter(|named| {
            let is_later = last.is_none_or(|last| position(named) > position(last));
            is_later && named.nodes().next().is_some()
        });
        later.chain(last).collect()
    }
}

/// Which of two was named later.
fn position(named: &StoredMembership) -> Option<(u64, u64)> {
    named.log_id().as_ref().map(|at| (at.leader_id.term, at.index))
}

/// Voters and learners.
fn nodes_of(named: &StoredMembership) -> impl Iterator<Item = NodeId> {
    named.nodes().map(|(node, _)| NodeId::new(*node))
}

#[cfg(test)]
mod tests {
    use openraft::Membership;
    use rustydb_types::ids::{LogIndex, Term};
    use rustydb_types::position::LogPosition;

    use super::*;
    use crate::type_config::{Member, log_id_of};

    fn ids(numbers: &[u64]) -> BTreeSet<NodeId> {
        numbers.iter().copied().map(NodeId::new).collect()
    }

    /// Members as an entry names them: voter sets, then learners.
    fn named(index: u64, voters: &[&[u64]], learners: &[u64]) -> StoredMembership {
        let sets: Vec<BTreeSet<u64>> = voters.iter().map(|set| set.iter().copied().collect()).collect();
        let all = sets.iter().flatten().chain(learners).map(|node| (*node, Member));
        let nodes: BTreeMap<u64, Member> = all.collect();
        let at = log_id_of(LogPosition::new(Term::new(1), LogIndex::new(index)));
        StoredMembership::new(Some(at), Membership::new(sets, nodes).unwrap())
    }

    fn stands(term: u64, committed: StoredMembership, effective: StoredMembership) -> Answer {
        Answer::Stands(Standing { vote: Vote::new(term, 2), committed, effective })
    }

    /// What node 1 makes of the answers.
    fn verdict(applied: Option<StoredMembership>, answers: Vec<(u64, Answer)>) -> Verdict {
        let mut known = Known::new(NodeId::new(1), applied);
        for (node, answer) in answers {
            known.take(NodeId::new(node), answer);
        }
        known.verdict(&ids(&[2, 3, 4, 5, 6]))
    }

    fn enough(verdict: &Verdict, term: u64) -> bool {
        matches!(verdict, Verdict::Enough { vote, can_elect: true } if vote.leader_id.term == term)
    }

    #[test]
    fn every_member_must_answer_voter_or_learner() {
        let three = || named(1, &[&[1, 2, 3]], &[4]);
        let same = |term| stands(term, three(), three());
        assert_eq!(verdict(Some(three()), vec![]), Verdict::Missing(ids(&[2, 3, 4])));
        let two = vec![(2, same(5)), (4, same(3))];
        assert_eq!(verdict(Some(three()), two), Verdict::Missing(ids(&[3])));
        let all = vec![(2, same(5)), (3, same(7)), (4, same(3))];
        assert!(enough(&verdict(Some(three()), all), 7));
    }

    #[test]
    fn who_was_removed_need_not_answer_once_that_is_committed() {
        let (before, after) = (named(1, &[&[1, 2, 3]], &[]), named(9, &[&[1, 2]], &[]));
        let joint = || named(8, &[&[1, 2, 3], &[1, 2]], &[]);
        let says = |committed: &StoredMembership, effective: &StoredMembership| {
            vec![(2, stands(4, committed.clone(), effective.clone()))]
        };
        let of = |answers| verdict(Some(before.clone()), answers);
        assert_eq!(of(says(&before, &after)), Verdict::Missing(ids(&[3])), "not committed");
        assert_eq!(
            of(says(&joint(), &after)),
            Verdict::Missing(ids(&[3])),
            "the joint members count as long"
        );
        assert!(matches!(of(says(&after, &after)), Verdict::Enough { can_elect: false, .. }));
        // One that lags behind names it still.
        let mut lagging = says(&after, &named(12, &[&[1, 2, 4]], &[]));
        lagging.push((4, stands(2, before.clone(), before.clone())));
        assert!(matches!(of(lagging), Verdict::Enough { vote, .. } if vote.leader_id.term == 4));
        // And is heeded as long as nobody knows better.
        assert_eq!(of(vec![(2, stands(2, before.clone(), before.clone()))]), Verdict::Missing(ids(&[3])));
    }

    #[test]
    fn who_was_added_must_answer_though_only_one_member_knows_it() {
        let (three, four) = (named(1, &[&[1, 2, 3]], &[]), named(5, &[&[1, 2, 3]], &[4]));
        let answers = vec![(2, stands(1, three.clone(), four)), (3, stands(1, three.clone(), three.clone()))];
        assert_eq!(verdict(Some(three), answers), Verdict::Missing(ids(&[4])));
    }

    #[test]
    fn of_five_two_may_have_lost_their_logs_and_of_three_one() {
        let five = || named(1, &[&[1, 2, 3, 4, 5]], &[]);
        let same = |term| stands(term, five(), five());
        let two = vec![(2, Answer::Lost), (3, same(5)), (4, same(6)), (5, same(7))];
        assert!(enough(&verdict(Some(five()), two), 7));
        let down = vec![(2, Answer::Lost), (3, same(5)), (4, same(6))];
        assert_eq!(verdict(Some(five()), down), Verdict::Missing(ids(&[5])), "a sound one must answer");
        let three = vec![(2, Answer::Lost), (3, Answer::Lost), (4, same(6)), (5, same(7))];
        assert_eq!(verdict(Some(five()), three), Verdict::TooManyLost(ids(&[1, 2, 3])));
        let of_three = || named(1, &[&[1, 2, 3]], &[]);
        let two = vec![(2, Answer::Lost), (3, stands(5, of_three(), of_three()))];
        assert_eq!(verdict(Some(of_three()), two), Verdict::TooManyLost(ids(&[1, 2])));
        // Each of the sets of a change counts.
        let joint = || named(2, &[&[1, 2, 3, 4, 5], &[1, 2, 3]], &[]);
        let same = || stands(5, joint(), joint());
        let two = vec![(2, Answer::Lost), (3, same()), (4, same()), (5, same())];
        assert_eq!(verdict(Some(five()), two), Verdict::TooManyLost(ids(&[1, 2])));
    }

    #[test]
    fn what_is_said_later_counts_and_the_highest_vote_stays() {
        let three = || named(1, &[&[1, 2, 3]], &[]);
        let two = || named(5, &[&[1, 2]], &[]);
        let same = |term| stands(term, three(), three());
        let answers = vec![(2, Answer::Lost), (2, same(4)), (3, same(3)), (3, Answer::Unknown)];
        assert!(enough(&verdict(Some(three()), answers), 4));
        let removed = vec![(2, same(6)), (2, stands(6, two(), two()))];
        let of = verdict(Some(three()), removed);
        assert!(matches!(of, Verdict::Enough { vote, .. } if vote.leader_id.term == 6), "{of:?}");
        let answers = vec![(2, same(9)), (3, same(3)), (2, Answer::Lost)];
        assert_eq!(verdict(Some(three()), answers), Verdict::TooManyLost(ids(&[1, 2])));
        let four = || named(1, &[&[1, 2, 3, 4]], &[]);
        let same = |term| stands(term, four(), four());
        let answers = vec![(2, same(9)), (3, same(3)), (4, same(3)), (2, Answer::Lost)];
        let of = verdict(Some(four()), answers);
        assert!(
            matches!(of, Verdict::Enough { vote, can_elect: false } if vote.leader_id.term == 9),
            "{of:?}"
        );
    }

    #[test]
    fn a_state_that_names_nobody_is_told_by_whoever_knows() {
        let three = || named(2, &[&[1, 2, 3]], &[]);
        assert_eq!(verdict(None, vec![]), Verdict::Missing(ids(&[2, 3, 4, 5, 6])));
        let one = vec![(2, stands(4, three(), three()))];
        assert_eq!(verdict(None, one), Verdict::Missing(ids(&[3])));
        let alone = || Some(named(1, &[&[1]], &[]));
        let nobody = || (2..=6).map(|node| (node, Answer::Unknown)).collect::<Vec<_>>();
        assert_eq!(verdict(alone(), nobody()), Verdict::OnlyCopy);
        let mut somebody = nobody();
        somebody.push((3, stands(4, three(), three())));
        assert_eq!(verdict(alone(), somebody), Verdict::Missing(ids(&[2])));
    }
}
