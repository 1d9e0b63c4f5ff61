//! What must hold of the logs of a group at every moment of a run. Nodes are not asked whether they agree: their logs
//! are looked at, of those that are down as they were when they went.
//!
//! - Two entries of one index and term are the same entry, with the same one before it (log matching).
//! - What was committed once is never another entry anywhere, below any node's commit index.
//! - Who leads a term has all that was committed in it and in earlier ones (leader completeness).
//! - What is committed is durable at a majority of the members, and whoever had it so has it after each restart.
//! - A log purges nothing that is not committed, nor what its state would lose in a crash.
//! - A durable vote goes back neither in a life nor over a crash, and in one term changes only from one who asked to the
//!   one who was elected.
//!
//! Each look costs by what is new since the last one; now and then all is looked at again.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use rustydb_consensus::codec::{self, Body};
use rustydb_proto::v1::RaftVote;
use rustydb_storage::log::{GroupLogView, LogEntry};
use rustydb_types::{
    ids::{LogIndex, NodeId, Term},
    position::LogPosition,
};

#[cfg(test)]
mod tests;

/// Every so many looks all that a node has is looked at again.
const ALL_EVERY: u64 = 200;
/// Of so many entries before the last committed one it is remembered what they are: logs keep far fewer.
const REMEMBERED: u64 = 5_000;

/// The voters: two sets while they change.
type Voters = Vec<BTreeSet<NodeId>>;

/// A node that is up, as it is seen at one moment.
pub struct Sight {
    /// Which node.
    pub node: NodeId,
    /// Which life of it.
    pub life: u64,
    /// The term it is in.
    pub term: Term,
    /// Whether it leads that.
    pub leads: bool,
    /// What it knows to be committed.
    pub commit_index: Option<LogIndex>,
    /// The last entry that its state has applied, and the last one that this would have after a crash; [`None`] when
    /// nobody reads the state any more.
    pub state: Option<(LogPosition, Option<LogPosition>)>,
    /// The positions in its log.
    pub view: GroupLogView,
    /// Its entries in memory from an index on.
    pub recent: Box<dyn Fn(LogIndex) -> Vec<LogEntry>>,
    /// Its log as it was when its last life ended, at the first look of a life.
    pub former: Option<GroupLogView>,
    /// Its log was damaged on purpose: it lacks what it once had, and votes again only when it has it from others.
    pub is_mending: bool,
}

/// The entry of an index and a term, as far as it was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    previous: Option<Term>,
    content: Option<u64>,
}

/// A node, as it was at the last look.
#[derive(Debug, Default)]
struct Watched {
    life: u64,
    view: GroupLogView,
    /// Up to where its entries were compared.
    compared: Option<LogPosition>,
    /// The entries before this one were held against what is committed.
    agreed_end: u64,
    vote: Option<RaftVote>,
}

/// Watches over one group.
#[derive(Debug, Default)]
pub struct LogRules {
    entries: BTreeMap<(LogIndex, Term), Known>,
    committed: BTreeMap<LogIndex, Term>,
    /// The index behind the last committed entry that is known.
    committed_end: u64,
    /// How much was committed at most by leaders up to a term, by the term of whoever showed it first.
    committed_by: BTreeMap<Term, LogPosition>,
    /// All changes of members that were seen, committed or not.
    voters: BTreeMap<(LogIndex, Term), Voters>,
    /// The last committed one. [`None`] when an entry was committed that nobody was seen to have in memory.
    committed_voters: Option<Voters>,
    nodes: BTreeMap<NodeId, Watched>,
    looks: u64,
    majorities: u64,
}

impl LogRules {
    /// Looks at the nodes that are up, and at the logs of those that are down. Gives what is wrong.
    pub fn look(
        &mut self,
        up: &[Sight],
        down: impl FnOnce() -> BTreeMap<NodeId, GroupLogView>,
    ) -> Vec<String> {
        self.looks += 1;
        let mut wrong = Vec::new();
        let looks_at_all = self.looks.is_multiple_of(ALL_EVERY);
        for sight in up {
            self.follow(sight, looks_at_all, &mut wrong);
        }
        let before = self.committed_end;
        self.learn_committed(up);
        for sight in up {
            self.agree(sight, &mut wrong);
            self.check_purge(sight, &mut wrong);
            self.check_leader(sight, &mut wrong);
        }
        if self.committed_end > before {
            self.check_majority(up, &down(), &mut wrong);
            self.forget();
        }
        wrong
    }

    /// Whether it has seen a node in this life.
    #[must_use]
    pub fn knows(&self, node: NodeId, life: u64) -> bool {
        self.nodes.get(&node).is_some_and(|watched| watched.life == life)
    }

    /// How often it was seen that what is committed is durable at a majority.
    #[must_use]
    pub fn majorities(&self) -> u64 {
        self.majorities
    }

    /// Takes note of what a node has, and holds it against what others and earlier lives had.
    fn follow(&mut self, sight: &Sight, looks_at_all: bool, wrong: &mut Vec<String>) {
        let node = sight.node;
        let mut watched = self.nodes.remove(&node).unwrap_or_default();
        if watched.life != sight.life {
            let former = sight.former.clone().unwrap_or_default();
            watched = Watched { life: sight.life, vote: watched.vote, ..Watched::default() };
            if !sight.is_mending {
                check_vote(node, &mut watched.vote, &former, wrong);
                self.check_kept(node, &former, &sight.view, wrong);
            }
        }
        if looks_at_all {
            (watched.compared, watched.agreed_end) = (None, 0);
        }
        if looks_at_all || watched.view != sight.view {
            // A member that lost its log has lost its vote with it, and asks the others before it votes again.
            if !sight.is_mending {
                check_vote(node, &mut watched.vote, &sight.view, wrong);
            }
            self.compare(sight, &mut watched, wrong);
            watched.view = sight.view.clone();
        }
        self.nodes.insert(node, watched);
    }

    /// Holds the entries of a node that are new against those of the same names at others.
    fn compare(&mut self, sight: &Sight, watched: &mut Watched, wrong: &mut Vec<String>) {
        let view = &sight.view;
        let compared =
            watched.compared.filter(|position| view.term_of(position.index) == Some(position.term));
        // A tail that was cut off may have been replaced from anywhere on.
        let from = compared.map_or(view.first, |position| position.index.next());
        let before = from.previous();
        let purged = view.purged.filter(|purged| Some(purged.index) == before).map(|purged| purged.term);
        let mut previous = before.and_then(|before| view.term_of(before)).or(purged);
        let mut index = from;
        while let Some(term) = view.term_of(index) {
            let known = self.entries.entry((index, term)).or_default();
            let position = LogPosition::new(term, index);
            match (previous, known.previous) {
                (Some(here), Some(there)) if here != there => wrong.push(format!(
                    "{}: entry {position} follows one of term {here}, and one of term {there} elsewhere",
                    sight.node
                )),
                _ => known.previous = known.previous.or(previous),
            }
            previous = Some(term);
            watched.compared = Some(position);
            index = index.next();
        }
        for entry in (sight.recent)(from) {
            self.compare_content(sight.node, &entry, wrong);
        }
    }

    fn compare_content(&mut self, node: NodeId, entry: &LogEntry, wrong: &mut Vec<String>) {
        let content = hash_of(&entry.body);
        let known = self.entries.entry((entry.index, entry.term)).or_default();
        match known.content {
            Some(other) if other != content => wrong.push(format!(
                "{node}: entry {} is not what it is elsewhere",
                LogPosition::new(entry.term, entry.index)
            )),
            Some(_) => {}
            None => {
                known.content = Some(content);
                if let Ok(Body::Membership(membership)) = codec::decode_body(&entry.body) {
                    let sets = membership.get_joint_config().iter();
                    let voters = sets.map(|set| set.iter().copied().map(NodeId::new).collect()).collect();
                    self.voters.insert((entry.index, entry.term), voters);
                }
            }
        }
    }

    /// Takes what somebody knows to be committed for committed, once and for all.
    fn learn_committed(&mut self, up: &[Sight]) {
        // Whoever took in a snapshot lacks the entries; somebody else has them, but for those that all have purged.
        for may_skip in [false, true] {
            for sight in up {
                let Some(commit_index) = sight.commit_index else { continue };
                let first = sight.view.first.get();
                if may_skip && self.committed_end <= commit_index.get() && self.committed_end < first {
                    self.committed_end = first;
                    self.committed_voters = None;
                }
                if first <= self.committed_end {
                    self.commit_through(sight, commit_index);
                }
            }
        }
    }

    fn commit_through(&mut self, sight: &Sight, commit_index: LogIndex) {
        while self.committed_end <= commit_index.get() {
            let index = LogIndex::new(self.committed_end);
            let Some(term) = sight.view.term_of(index) else { return };
            let position = LogPosition::new(term, index);
            self.committed.insert(index, term);
            self.committed_end += 1;
            // It was committed by then, in the term of this node or in an earlier one.
            let by = self.committed_by.entry(sight.term).or_insert(position);
            if by.index < index {
                *by = position;
            }
            if let Some(voters) = self.voters.get(&(index, term)) {
                self.committed_voters = Some(voters.clone());
            } else if self.entries.get(&(index, term)).is_none_or(|known| known.content.is_none()) {
                self.committed_voters = None;
            }
        }
    }

    /// What a node knows to be committed must be what was committed.
    fn agree(&mut self, sight: &Sight, wrong: &mut Vec<String>) {
        let (node, view) = (sight.node, &sight.view);
        let Some(watched) = self.nodes.get_mut(&node) else { return };
        let end = sight.commit_index.map_or(0, |index| index.get() + 1).min(self.committed_end);
        // The last of those that were looked at, too: it must still be there.
        let from = watched.agreed_end.saturating_sub(1).max(view.first.get());
        for (index, term) in self.committed.range(LogIndex::new(from)..LogIndex::new(end.max(from))) {
            let found = view.term_of(*index);
            if found != Some(*term) && !(found.is_none() && is_covered(sight, *index)) {
                wrong.push(format!(
                    "{node}: entry {index} of term {term} was committed, and {found:?} is there"
                ));
                break;
            }
        }
        watched.agreed_end = watched.agreed_end.max(end);
        if let Some((applied, _)) = sight.state
            && self.committed.get(&applied.index).is_some_and(|term| *term != applied.term)
        {
            wrong.push(format!("{node}: {applied} was applied, and another entry committed there"));
        }
    }

    fn check_purge(&self, sight: &Sight, wrong: &mut Vec<String>) {
        // What a log that has failed meanwhile had learnt last was perhaps not seen.
        let Some(purged) = sight.view.purged.filter(|_| !sight.view.is_poisoned) else { return };
        let node = sight.node;
        let is_committed = purged.index.get() < self.committed_end
            && self.committed.get(&purged.index).is_none_or(|term| *term == purged.term);
        if !is_committed {
            wrong.push(format!("{node}: purged through {purged}, which is not committed"));
        }
        if let Some((_, flushed)) = sight.state
            && flushed.is_none_or(|flushed| flushed.index < purged.index)
        {
            wrong.push(format!(
                "{node}: purged through {purged}, and a crash would leave {flushed:?} applied"
            ));
        }
    }

    /// Whoever leads has what was committed by leaders up to its term. One that does not know yet that another was
    /// elected after it may lack what that one has committed.
    fn check_leader(&self, sight: &Sight, wrong: &mut Vec<String>) {
        let by = self.committed_by.range(..=sight.term).map(|(_, position)| *position);
        let Some(committed) = by.max_by_key(|position| position.index).filter(|_| sight.leads) else {
            return;
        };
        let view = &sight.view;
        let is_purged = view.purged.is_some_and(|purged| purged.index >= committed.index);
        if !is_purged && view.term_of(committed.index) != Some(committed.term) {
            wrong.push(format!(
                "{} leads term {} without entry {committed}, which was committed in it or before: {view:?}",
                sight.node, sight.term
            ));
        }
    }

    /// What was durable of the committed entries when a life ended is there in the next.
    fn check_kept(&self, node: NodeId, former: &GroupLogView, view: &GroupLogView, wrong: &mut Vec<String>) {
        let held = self.committed.range(former.first..).map(|(index, term)| LogPosition::new(*term, *index));
        for position in held.take_while(|position| position.index < former.durable_end) {
            if former.holds(position) && !view.holds(position) {
                wrong.push(format!(
                    "{node}: entry {position} is committed and was durable; it is gone: {view:?}"
                ));
                return;
            }
        }
    }

    /// The last committed entry is durable at a majority of the voters that counted: those of the last committed change,
    /// or of the next one, which counts from when it is in a leader's log.
    fn check_majority(
        &mut self,
        up: &[Sight],
        down: &BTreeMap<NodeId, GroupLogView>,
        wrong: &mut Vec<String>,
    ) {
        let last = self.committed.last_key_value().map(|(index, term)| LogPosition::new(*term, *index));
        let (Some(last), Some(voters)) = (last, &self.committed_voters) else { return };
        let is_up =
            up.iter().filter(|sight| sight.is_mending || sight.view.holds(last)).map(|sight| sight.node);
        let is_down = down.iter().filter(|(_, view)| view.holds(last)).map(|(node, _)| *node);
        let holders: BTreeSet<NodeId> = is_up.chain(is_down).collect();
        let next = self.voters.range((last.index.next(), Term::new(0))..).map(|(_, voters)| voters);
        let is_majority = |set: &BTreeSet<NodeId>| set.intersection(&holders).count() * 2 > set.len();
        if std::iter::once(voters).chain(next).any(|voters| voters.iter().all(is_majority)) {
            self.majorities += 1;
        } else {
            wrong.push(format!(
                "entry {last} is committed, and of {voters:?} only {holders:?} have it durably"
            ));
        }
    }

    fn forget(&mut self) {
        let kept = LogIndex::new(self.committed_end.saturating_sub(REMEMBERED));
        if self.entries.first_key_value().is_some_and(|((first, _), _)| first.get() + REMEMBERED < kept.get())
        {
            self.entries = self.entries.split_off(&(kept, Term::new(0)));
            self.committed = self.committed.split_off(&kept);
            self.voters = self.voters.split_off(&(kept, Term::new(0)));
        }
    }
}

/// Whether the state of a node has an entry for good. One that took in a snapshot has no entries before the end of that,
/// and purges its log through there a moment later. Of a state that nobody reads any more it is not known.
fn is_covered(sight: &Sight, index: LogIndex) -> bool {
    sight.state.is_none_or(|(_, flushed)| flushed.is_some_and(|flushed| index <= flushed.index))
}

fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// Holds the durable vote of a node against the last one that was seen.
fn check_vote(node: NodeId, last: &mut Option<RaftVote>, view: &GroupLogView, wrong: &mut Vec<String>) {
    let vote = view.durable_vote.as_ref().and_then(|bytes| codec::decode_vote(bytes).ok());
    let vote = vote.map(|vote| codec::vote_to_wire(&vote));
    let Some(before) = *last else {
        *last = vote;
        return;
    };
    let is_kept = vote.is_some_and(|vote| {
        let is_same = vote.node == before.node && vote.committed >= before.committed;
        let is_elected = vote.committed && !before.committed;
        vote.term > before.term || vote.term == before.term && (is_same || is_elected)
    });
    if is_kept {
        *last = vote;
    } else {
        wrong.push(format!("{node}: its durable vote went from {before:?} to {vote:?}"));
    }
}
