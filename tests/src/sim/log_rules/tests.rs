//! Each rule, broken once.

use bytes::Bytes;
use rustydb_consensus::type_config::{Membership, Payload, Vote};

use super::*;

/// The entry of a position as everybody has it: the first one names three voters.
fn body(position: LogPosition) -> Bytes {
    if position.index.get() > 0 {
        return codec::encode_command(&position.index.get().to_le_bytes());
    }
    let nodes: BTreeMap<u64, _> = (1..=3).map(|node| (node, Default::default())).collect();
    let voters = nodes.keys().copied().collect();
    codec::encode_payload(&Payload::Membership(Membership::new(vec![voters], nodes).unwrap()))
}

fn position(term: u64, index: usize) -> LogPosition {
    LogPosition::new(Term::new(term), LogIndex::new(index as u64))
}

/// A log with entries of these terms, all of them durable.
fn log(terms: &[u64]) -> GroupLogView {
    let mut runs: Vec<(LogIndex, Term)> = Vec::new();
    for (index, term) in terms.iter().enumerate() {
        if runs.last().is_none_or(|(_, last)| last.get() != *term) {
            runs.push((LogIndex::new(index as u64), Term::new(*term)));
        }
    }
    GroupLogView {
        last: terms.last().map(|term| position(*term, terms.len() - 1)),
        durable_end: LogIndex::new(terms.len() as u64),
        terms: runs,
        ..GroupLogView::default()
    }
}

/// A follower in term 9 with such a log, of which it knows so many entries to be committed.
fn sight(node: u64, terms: &[u64], committed: u64) -> Sight {
    let own = terms.to_vec();
    Sight {
        node: NodeId::new(node),
        life: 1,
        term: Term::new(9),
        leads: false,
        commit_index: LogIndex::new(committed).previous(),
        state: None,
        view: log(terms),
        recent: Box::new(move |from| {
            let entries = own.iter().enumerate().map(|(index, term)| position(*term, index));
            let entry = |at: LogPosition| LogEntry { index: at.index, term: at.term, body: body(at) };
            entries.filter(|at| at.index >= from).map(entry).collect()
        }),
        former: None,
        is_mending: false,
    }
}

fn voted(sight: Sight, vote: Vote) -> Sight {
    let view = GroupLogView { durable_vote: Some(codec::encode_vote(&vote)), ..sight.view };
    Sight { view, ..sight }
}

#[track_caller]
fn is_fine(rules: &mut LogRules, up: &[Sight]) {
    assert_eq!(rules.look(up, BTreeMap::new), Vec::<String>::new());
}

#[track_caller]
fn is_wrong(rules: &mut LogRules, up: &[Sight], what: &str) {
    let wrong = rules.look(up, BTreeMap::new);
    assert!(wrong.iter().any(|wrong| wrong.contains(what)), "{wrong:?}");
}

#[test]
fn logs_that_differ_only_behind_what_is_committed_are_fine() {
    let mut rules = LogRules::default();
    is_fine(&mut rules, &[sight(1, &[1, 1, 2, 2], 2), sight(2, &[1, 1, 3], 2), sight(3, &[1], 1)]);
    is_fine(&mut rules, &[sight(1, &[1, 1, 3, 4], 3), sight(2, &[1, 1, 3], 3), sight(3, &[1, 1], 2)]);
    assert_eq!(rules.majorities(), 2);
}

#[test]
fn an_entry_is_the_same_wherever_it_is_and_follows_the_same() {
    let mut rules = LogRules::default();
    is_wrong(&mut rules, &[sight(1, &[1, 1, 4], 0), sight(2, &[1, 2, 4], 0)], "follows one of term 2");
    let other = |from: LogIndex| {
        let entry = LogEntry { index: LogIndex::new(1), term: Term::new(1), body: Bytes::from_static(b"x") };
        if from <= entry.index { vec![entry] } else { Vec::new() }
    };
    let mut rules = LogRules::default();
    let altered = Sight { recent: Box::new(other), ..sight(2, &[1, 1], 0) };
    is_wrong(&mut rules, &[sight(1, &[1, 1], 0), altered], "is not what it is elsewhere");
}

#[test]
fn what_was_committed_stays() {
    let mut rules = LogRules::default();
    is_fine(&mut rules, &[sight(1, &[1, 1, 2], 3), sight(2, &[1, 1, 2], 0)]);
    is_wrong(&mut rules, &[sight(3, &[1, 1, 3], 3)], "of term 2 was committed");
    let lost = |flushed| Sight { state: Some((position(2, 2), Some(flushed))), ..sight(1, &[1, 1], 3) };
    is_wrong(&mut rules, &[lost(position(1, 1))], "None is there");
    is_fine(&mut rules, &[lost(position(2, 2))]);
    let applied = Sight { state: Some((position(3, 2), None)), ..sight(2, &[1, 1, 2], 0) };
    is_wrong(&mut rules, &[applied], "3-2 was applied");
}

#[test]
fn a_leader_has_what_earlier_ones_committed() {
    let mut rules = LogRules::default();
    is_fine(&mut rules, &[sight(1, &[1, 1], 2), sight(2, &[1, 1], 0)]);
    let leader = |term| Sight { term: Term::new(term), leads: true, ..sight(3, &[1], 1) };
    is_wrong(&mut rules, &[leader(9)], "leads term 9 without entry 1-1");
    // The entries may have been committed in any term up to the ninth: one that led before may lack them.
    is_fine(&mut rules, &[leader(8)]);
}

#[test]
fn what_is_committed_is_durable_at_a_majority_of_those_that_are_up_or_down() {
    let mut rules = LogRules::default();
    let lazy = GroupLogView { durable_end: LogIndex::new(1), ..log(&[1, 1]) };
    let up = |view| [sight(1, &[1, 1], 2), Sight { view, ..sight(2, &[1, 1], 2) }];
    is_wrong(&mut rules, &up(lazy.clone()), "only {NodeId(1)} have it durably");
    let mut rules = LogRules::default();
    let down = BTreeMap::from([(NodeId::new(3), log(&[1, 1]))]);
    assert_eq!(rules.look(&up(lazy), || down), Vec::<String>::new());
}

#[test]
fn what_was_durable_of_it_is_there_after_a_restart() {
    let mut rules = LogRules::default();
    is_fine(&mut rules, &[sight(1, &[1, 1, 2], 2), sight(2, &[1, 1, 2], 2)]);
    let again = |terms: &[u64]| Sight { life: 2, former: Some(log(&[1, 1, 2])), ..sight(1, terms, 0) };
    is_fine(&mut rules, &[again(&[1, 1])]);
    let mut rules = LogRules::default();
    is_fine(&mut rules, &[sight(1, &[1, 1, 2], 2), sight(2, &[1, 1, 2], 2)]);
    is_wrong(&mut rules, &[again(&[1])], "it is gone");
}

#[test]
fn only_what_is_committed_and_applied_for_good_is_purged() {
    let purged = |sight: Sight, through: LogPosition| {
        let view = GroupLogView { first: through.index.next(), purged: Some(through), ..sight.view };
        Sight { view, recent: Box::new(|_| Vec::new()), ..sight }
    };
    let mut rules = LogRules::default();
    is_fine(&mut rules, &[sight(1, &[1, 1, 2], 2), sight(2, &[1, 1, 2], 2)]);
    let state = |index| Some((position(1, 1), Some(position(1, index))));
    let good = || Sight { state: state(1), ..purged(sight(1, &[1, 1, 2], 2), position(1, 1)) };
    is_fine(&mut rules, &[good()]);
    is_wrong(&mut rules, &[Sight { state: state(0), ..good() }], "a crash would leave");
    is_wrong(&mut rules, &[purged(sight(2, &[1, 1, 2], 2), position(2, 2))], "which is not committed");
}

#[test]
fn a_durable_vote_changes_within_a_term_only_to_the_one_who_was_elected() {
    let vote = |vote| voted(sight(1, &[], 0), vote);
    let mut rules = LogRules::default();
    is_fine(&mut rules, &[vote(Vote::new(3, 1))]);
    is_fine(&mut rules, &[vote(Vote::new_committed(3, 2))]);
    is_fine(&mut rules, &[vote(Vote::new(4, 2))]);
    is_wrong(&mut rules, &[vote(Vote::new(4, 3))], "its durable vote went from");
    let forgotten = Sight { life: 2, former: Some(vote(Vote::new(5, 1)).view), ..vote(Vote::new(4, 2)) };
    is_wrong(&mut rules, &[forgotten], "its durable vote went from");
}
