//! What must hold at every moment of a run.

use std::collections::BTreeMap;

use rustydb_consensus::{Health, node_state::NodeState};
use rustydb_types::{
    ids::{GroupId, LogIndex, NodeId, Term},
    position::LogPosition,
};

use super::{cluster::Cluster, machines::Machines};

/// Remembers what was seen, to hold it against what is seen later.
#[derive(Debug, Default)]
pub struct Invariants {
    leaders: BTreeMap<(GroupId, Term), NodeId>,
    hashes: BTreeMap<(GroupId, LogPosition), u128>,
    progress: BTreeMap<(GroupId, NodeId), Progress>,
    looks: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    life: u64,
    term: Term,
    applied: Option<LogIndex>,
    committed: Option<LogIndex>,
}

impl Invariants {
    /// Looks at all nodes that are up. Gives what is wrong.
    pub fn look<M: Machines>(&mut self, cluster: &Cluster<M>) -> Vec<String> {
        self.looks += 1;
        let mut wrong = Vec::new();
        for group in cluster.groups() {
            for node in cluster.up() {
                self.look_at(cluster, *group, node, &mut wrong);
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
    ) {
        let Some(found) = cluster.group(node, group) else { return };
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
    }
}
