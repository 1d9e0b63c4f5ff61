//! Members come and go all the time: a group of all nodes shrinks to three and grows again, and leaders are among those
//! that go, while whatever else a run has strikes.

use std::{collections::BTreeSet, time::Duration};

use rustydb_env::{Instant, Rng};
use rustydb_types::ids::{GroupId, NodeId};

use super::{cluster::Cluster, machines::Machines, members};

/// Voters at which a group grows again: fewer survive no failure.
const FEWEST: usize = 3;

/// Pause between two looks at a change.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Churn {
    /// Voters that were added.
    pub added: u64,
    /// Voters that were removed.
    pub removed: u64,
    /// How often a group of all nodes had shrunk to three.
    pub shrunk: u64,
    /// How often it had grown to all of them again after that.
    pub grown: u64,
}

impl Churn {
    /// Takes in what came of another run.
    pub fn add(&mut self, other: Churn) {
        self.added += other.added;
        self.removed += other.removed;
        self.shrunk += other.shrunk;
        self.grown += other.grown;
    }
}

/// One that has members come and go.
pub struct Churning<M> {
    /// The nodes.
    pub cluster: Cluster<M>,
    /// Its choices.
    pub random: Rng,
    /// The longest that it rests between two changes.
    pub calm_max: Duration,
    /// What it has done.
    pub churn: Churn,
}

impl<M: Machines> Churning<M> {
    /// Goes on until then. All nodes are to be made members again at the end.
    pub async fn go_on(mut self, until: Instant) -> Churn {
        let all = self.cluster.ids().len();
        while self.is_before(until) {
            let groups = self.cluster.groups();
            let group = groups[usize::try_from(self.random.range(0..groups.len() as u64)).unwrap_or(0)];
            let mut voters = self.settled(group, until).await;
            while voters.len() > FEWEST {
                self.take_out(group, &voters).await;
                voters = self.changed(group, until, &voters).await;
            }
            self.churn.shrunk += u64::from(voters.len() == FEWEST);
            while !voters.is_empty() && voters.len() < all {
                self.take_in(group, &voters).await;
                voters = self.changed(group, until, &voters).await;
            }
            self.churn.grown += u64::from(voters.len() == all);
        }
        self.churn
    }

    fn is_before(&self, until: Instant) -> bool {
        self.cluster.sim().harness().now() < until
    }

    /// The voters as a leader has them whom a majority answers, when no change of them is under way; none if that does
    /// not come about before the time is over.
    async fn settled(&self, group: GroupId, until: Instant) -> BTreeSet<NodeId> {
        while self.is_before(until) {
            let leader = self.cluster.leader(group);
            let status =
                leader.and_then(|(leader, _)| self.cluster.group(leader, group)).map(|group| group.status());
            if let (Some((leader, _)), Some(status)) = (leader, status)
                && status.leader == Some(leader)
                && !status.members_changing
            {
                return status.voters;
            }
            self.cluster.sleep(LOOK_AGAIN).await;
        }
        BTreeSet::new()
    }

    /// As [`Self::settled`]. The difference is counted.
    async fn changed(
        &mut self,
        group: GroupId,
        until: Instant,
        before: &BTreeSet<NodeId>,
    ) -> BTreeSet<NodeId> {
        let now = self.settled(group, until).await;
        if !now.is_empty() {
            self.churn.added += now.difference(before).count() as u64;
            self.churn.removed += before.difference(&now).count() as u64;
        }
        now
    }

    async fn take_out(&mut self, group: GroupId, voters: &BTreeSet<NodeId>) {
        let one = self.one_of(voters);
        let leader = self.cluster.leader(group).map(|(leader, _)| leader);
        let leaving = leader.filter(|_| self.random.chance(1, 2)).or(one);
        let Some(leaving) = leaving else { return self.rest().await };
        members::remove(&self.cluster, group, leaving).await;
        // A leader has handed over only; its successor removes it.
        if leader == Some(leaving) {
            members::remove(&self.cluster, group, leaving).await;
        }
        self.rest().await;
    }

    async fn take_in(&mut self, group: GroupId, voters: &BTreeSet<NodeId>) {
        let missing: BTreeSet<NodeId> = self.cluster.ids().difference(voters).copied().collect();
        if let Some(coming) = self.one_of(&missing) {
            members::take_in(&self.cluster, group, coming).await;
        }
        self.rest().await;
    }

    fn one_of(&mut self, nodes: &BTreeSet<NodeId>) -> Option<NodeId> {
        if nodes.is_empty() {
            return None;
        }
        let at = usize::try_from(self.random.range(0..nodes.len() as u64)).unwrap_or(0);
        nodes.iter().nth(at).copied()
    }

    async fn rest(&mut self) {
        let micros = u64::try_from(self.calm_max.as_micros()).unwrap_or(u64::MAX);
        self.cluster.sleep(Duration::from_micros(self.random.range(0..micros.max(1)))).await;
    }
}
