//! What must hold at every moment of a run.

use std::collections::BTreeMap;

use rustydb_consensus::{Health, RaftProgress, codec, node_state::NodeState};
use rustydb_types::{
    ids::{GroupId, LogIndex, NodeId, Term},
    position::LogPosition,
};

use super::{
    cluster::Cluster,
    log_rules::{LogRules, Sight},
    machines::Machines,
};

/// Remembers what was seen, to hold it against what is seen later.
#[derive(Debug, Default)]
pub struct Invariants {
    watches_logs: bool,
    leaders: BTreeMap<(GroupId, Term), NodeId>,
    hashes: BTreeMap<(GroupId, LogPosition), u128>,
    progress: BTreeMap<(GroupId, NodeId), Progress>,
    logs: BTreeMap<GroupId, LogRules>,
    looks: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    life: u64,
    term: Term,
    applied: Option<LogIndex>,
    committed: Option<LogIndex>,
}

/// A group at a node that is up.
struct Seen {
    node: NodeId,
    life: u64,
    status: RaftProgress,
    /// [`None`] when nobody reads its state any more.
    applied: Option<LogPosition>,
}

impl Invariants {
    /// Looks at the logs, too, if asked.
    #[must_use]
    pub fn new(watches_logs: bool) -> Self {
        Self { watches_logs, ..Self::default() }
    }

    /// Looks at all nodes that are up. Gives what is wrong.
    pub fn look<M: Machines>(&mut self, cluster: &Cluster<M>) -> Vec<String> {
        self.looks += 1;
        let mut wrong = Vec::new();
        for group in cluster.groups() {
            let up = cluster.up();
            let seen =
                up.iter().filter_map(|node| self.look_at(cluster, *group, *node, &mut wrong)).collect();
            if self.watches_logs {
                wrong.extend(self.look_at_logs(cluster, *group, seen));
            }
        }
        wrong
    }

    /// How often it looked.
    #[must_use]
    pub fn looks(&self) -> u64 {
        self.looks
    }

    /// How many terms had a leader.
    #[must_use]
    pub fn leaders(&self) -> usize {
        self.leaders.len()
    }

    fn look_at<M: Machines>(
        &mut self,
        cluster: &Cluster<M>,
        group: GroupId,
        node: NodeId,
        wrong: &mut Vec<String>,
    ) -> Option<Seen> {
        let found = cluster.group(node, group)?;
        let status = found.progress();
        if status.state == NodeState::Leader {
            let leader = *self.leaders.entry((group, status.term)).or_insert(node);
            if leader != node {
                wrong.push(format!(
                    "group {group} has two leaders in term {}: {leader} and {node}",
                    status.term
                ));
            }
        }
        if !(status.last_applied <= status.commit_index && status.commit_index <= status.last_log_index) {
            wrong.push(format!("group {group} at {node}: not applied <= committed <= last: {status:?}"));
        }
        // A store that could not read its disk in the midst of an entry has stopped there; nobody reads it any more.
        let applied = cluster.applied(node, group).filter(|_| !cluster.is_failing(node));
        if let Some((position, found)) = applied {
            let hash = *self.hashes.entry((group, position)).or_insert(found);
            if hash != found {
                wrong.push(format!("group {group}: node {node} has another state at {position}"));
            }
        }
        // Nobody is made wrong here on purpose, and a disk that fails gives nothing at all.
        let agreement = found.agreement();
        if agreement.health != Health::Sound || agreement.divergences > 0 || agreement.suspicions > 0 {
            wrong.push(format!("group {group} at {node}: replicas differ: {agreement:?}"));
        }
        let life = cluster.life(node);
        let before = self.progress.entry((group, node)).or_default();
        let now = Progress {
            life,
            term: status.term,
            applied: status.last_applied,
            committed: status.commit_index,
        };
        // Across a crash a term may go back that was learnt and not yet synced: nobody was told anything in it. A vote
        // that was promised and forgotten would show as two leaders of one term.
        if before.life == life && now.term < before.term {
            wrong.push(format!(
                "group {group} at {node}: the term went back from {} to {}",
                before.term, now.term
            ));
        }
        if before.life == life && (now.applied < before.applied || now.committed < before.committed) {
            wrong.push(format!("group {group} at {node}: progress went back: {before:?} to {now:?}"));
        }
        *before = now;
        Some(Seen { node, life, status, applied: applied.map(|(position, _)| position) })
    }

    /// Looks at the logs of a group.
    fn look_at_logs<M: Machines>(
        &mut self,
        cluster: &Cluster<M>,
        group: GroupId,
        seen: Vec<Seen>,
    ) -> Vec<String> {
        let rules = self.logs.entry(group).or_default();
        let sights = seen.into_iter().filter_map(|Seen { node, life, status, applied }| {
            let log = cluster.log(node, group)?;
            let former = if rules.knows(node, life) { None } else { cluster.former_log(node, group) };
            let view = log.view();
            // openraft's own figure runs ahead of what it has told its log, by all that waits behind a purge.
            let told = log.state().committed.and_then(|committed| codec::decode_log_id(&committed).ok());
            let told = told.map(|committed| LogIndex::new(committed.index));
            // What its state has applied it knows as well, which may be further after a restart. A state that came in a
            // snapshot is ahead of a log that still has another end.
            let in_log = applied.filter(|applied| {
                view.holds(*applied) || view.purged.is_some_and(|purged| purged >= *applied)
            });
            let told = told.max(in_log.map(|applied| applied.index));
            Some(Sight {
                node,
                life,
                term: status.term,
                leads: status.state == NodeState::Leader,
                // A log that has failed does not take what its group has heard of, and the group stops at that.
                commit_index: status.commit_index.min(told).filter(|_| !view.is_poisoned),
                state: applied.map(|applied| (applied, cluster.flushed(node, group))),
                view,
                recent: Box::new(move |from| log.recent(from)),
                former,
                is_mending: cluster.has_damaged_log(node),
            })
        });
        let sights: Vec<Sight> = sights.collect();
        let down = || {
            let down =
                cluster.ids().into_iter().filter(|node| sights.iter().all(|sight| sight.node != *node));
            down.filter_map(|node| Some((node, cluster.former_log(node, group)?))).collect()
        };
        let wrong = rules.look(&sights, down);
        wrong.into_iter().map(|wrong| format!("group {group}: {wrong}")).collect()
    }
}
