//! Three nodes in one process, over the operating system's clock: elections, proposals, reads, members, snapshots.
//! Faults and crashes belong to the simulator; here the happy path and the administration are shown.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use rustydb_consensus::{
    ConsensusConfig, ConsensusError, Group, Groups, GroupsParts,
    loopback::LoopbackNetwork,
    model::{ModelStore, append_command},
    node_state::NodeState,
    proposer::{Linearize, Proposal, ProposeError, ReadError},
};
use rustydb_env::{Env, TaskGroup};
use rustydb_storage::log::{Log, LogConfig, LogPlace, Past};
use rustydb_types::ids::{GroupId, NodeId, Term};
use tokio::sync::oneshot;

const GROUP: GroupId = GroupId::new(5);

struct Node {
    id: NodeId,
    groups: Groups,
    store: ModelStore,
    log: Log,
    tasks: TaskGroup,
}

struct Cluster {
    env: Env,
    network: LoopbackNetwork,
    config: ConsensusConfig,
    nodes: BTreeMap<NodeId, Node>,
    folder: tempfile::TempDir,
}

fn node(id: u64) -> NodeId {
    NodeId::new(id)
}

impl Cluster {
    fn new(config: ConsensusConfig) -> Self {
        let (env, network) = (Env::os(), LoopbackNetwork::new());
        Self { env, network, config, nodes: BTreeMap::new(), folder: tempfile::tempdir().unwrap() }
    }

    fn start(&mut self, id: NodeId, store: ModelStore) {
        let place = LogPlace::load(&self.env, &self.folder.path().join(id.to_string())).unwrap();
        let config = LogConfig { segment_bytes: 1 << 20, reserve_bytes: 1 << 20, ..LogConfig::default() };
        let log = place.open(config, Past::Unknown, []).unwrap();
        let groups = Groups::new(GroupsParts {
            env: self.env.clone(),
            config: self.config.clone(),
            log: log.clone(),
            place: Arc::new(place),
            transport: self.network.endpoint(id, &self.env),
            machines: Arc::new(store.clone()),
            node: id,
            peers: BTreeSet::new(),
        });
        let tasks = TaskGroup::new(&self.env);
        self.network.attach(id, &self.env, &tasks, Arc::new(groups.clone()));
        self.nodes.insert(id, Node { id, groups, store, log, tasks });
    }

    async fn of(count: u64, config: ConsensusConfig) -> Self {
        let mut cluster = Self::new(config);
        let members: BTreeSet<NodeId> = (1..=count).map(node).collect();
        for id in &members {
            cluster.start(*id, ModelStore::default());
            cluster.nodes[id].groups.open_group(GROUP).await.unwrap();
        }
        cluster.group(node(1)).initialize(&members).await.unwrap();
        cluster
    }

    fn group(&self, id: NodeId) -> Group {
        self.nodes[&id].groups.get(GROUP).unwrap()
    }

    async fn eventually<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        for _ in 0..2000 {
            if let Some(found) = look() {
                return found;
            }
            self.env.sleep(Duration::from_millis(5)).await;
        }
        panic!(
            "never: {what}; {:#?}",
            self.nodes
                .values()
                .map(|node| node.groups.get(GROUP).map(|group| group.status()))
                .collect::<Vec<_>>()
        );
    }

    /// The node that serves, with its term.
    async fn leader(&self) -> (NodeId, Term) {
        self.eventually("a leader", || {
            self.nodes.values().find_map(|node| node.store.cell(GROUP).leads().map(|term| (node.id, term)))
        })
        .await
    }

    async fn propose(&self, at: NodeId, term: Term, key: u64, value: u64) -> Result<(), ProposeError> {
        let (done, result) = oneshot::channel();
        let entry = append_command(key, value);
        self.group(at).proposer().propose(Proposal {
            term,
            entry,
            done: Box::new(move |r| done.send(r).unwrap()),
        })?;
        result.await.unwrap()
    }

    async fn converged(&self, of: &[NodeId], key: u64, count: usize) {
        self.eventually("all nodes the same", || {
            let states: Vec<_> = of.iter().map(|id| self.nodes[id].store.cell(GROUP).present()).collect();
            let complete = states.iter().all(|state| state.lists.get(&key).map_or(0, Vec::len) == count);
            (complete && states.windows(2).all(|pair| pair[0].hash == pair[1].hash)).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_reach_all_nodes_in_the_order_of_the_calls() {
    let cluster = Cluster::of(3, ConsensusConfig::default()).await;
    let (leader, term) = cluster.leader().await;
    let proposer = cluster.group(leader).proposer().clone();
    let mut results = Vec::new();
    for value in 0..5000 {
        let (done, result) = oneshot::channel();
        let done = Box::new(move |r| done.send(r).unwrap());
        proposer.propose(Proposal { term, entry: append_command(1, value), done }).unwrap();
        results.push(result);
    }
    for result in results {
        assert_eq!(result.await.unwrap(), Ok(()));
    }
    assert_eq!(proposer.in_flight(), 0);
    cluster.converged(&[node(1), node(2), node(3)], 1, 5000).await;
    let list = cluster.nodes[&node(2)].store.cell(GROUP).present().lists[&1].clone();
    assert!(list.iter().copied().eq(0..5000), "out of order");
    let status = cluster.group(leader).status();
    assert_eq!(status.state, NodeState::Leader);
    assert_eq!((status.voters.len(), status.uncommitted_entries, status.leader), (3, 0, Some(leader)));
    assert_eq!(status.last_applied, status.commit_index);
    assert_eq!(status.matched.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_of_another_term_or_at_a_follower_is_refused() {
    let cluster = Cluster::of(3, ConsensusConfig::default()).await;
    let (leader, term) = cluster.leader().await;
    let stale = Term::new(term.get() + 1);
    assert_eq!(cluster.propose(leader, stale, 1, 1).await, Err(ProposeError::NotLeader { term: stale }));
    let follower = if leader == node(1) { node(2) } else { node(1) };
    assert_eq!(cluster.propose(follower, term, 1, 1).await, Err(ProposeError::NotLeader { term }));
    assert_eq!(cluster.propose(leader, term, 1, 1).await, Ok(()));
    cluster.converged(&[node(1), node(2), node(3)], 1, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn back_pressure_refuses_and_frees_its_room() {
    let config =
        ConsensusConfig { uncommitted_entries_max: 10, uncommitted_bytes_max: 1000, ..Default::default() };
    let cluster = Cluster::of(3, config).await;
    let (leader, term) = cluster.leader().await;
    let followers: Vec<NodeId> = cluster.nodes.keys().copied().filter(|id| *id != leader).collect();
    for follower in &followers {
        cluster.network.set_cut(leader, *follower, true);
    }
    let proposer = cluster.group(leader).proposer().clone();
    let results: Vec<Result<(), ProposeError>> = (0..12)
        .map(|value| {
            proposer.propose(Proposal { term, entry: append_command(1, value), done: Box::new(|_| ()) })
        })
        .collect();
    assert_eq!(results.iter().filter(|result| **result == Err(ProposeError::Overloaded)).count(), 2);
    cluster.network.heal();
    cluster.eventually("the room is free", || (proposer.in_flight() == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_reads_by_lease_and_a_cut_off_one_does_not() {
    let cluster = Cluster::of(3, ConsensusConfig::default()).await;
    let (leader, term) = cluster.leader().await;
    assert_eq!(cluster.propose(leader, term, 1, 1).await, Ok(()));
    let proposer = cluster.group(leader).proposer().clone();
    assert!(matches!(proposer.linearize(), Linearize::Now));
    for id in cluster.nodes.keys().filter(|id| **id != leader) {
        cluster.network.set_cut(leader, *id, true);
    }
    cluster.env.sleep(ConsensusConfig::default().leader_lease()).await;
    match proposer.linearize() {
        Linearize::Now => panic!("the lease has run out"),
        Linearize::Wait(wait) => {
            assert!(matches!(wait.await, Err(ReadError::NoQuorum | ReadError::NotLeader { .. })))
        }
    }
    let follower = cluster.nodes.keys().copied().find(|id| *id != leader).unwrap();
    let at_follower = cluster.group(follower).proposer().clone();
    let answer = match at_follower.linearize() {
        Linearize::Now => Ok(()),
        Linearize::Wait(wait) => wait.await,
    };
    // By now the other two may have elected this one; else it says who leads.
    assert!(matches!(answer, Ok(()) | Err(ReadError::NotLeader { .. })), "{answer:?}");
}

/// Answers that were a second on their way come when the others may long have another leader. openraft takes them for
/// answers to what it would send now, as that ends at the same entry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_answers_renew_no_lease() {
    const LATE: Duration = Duration::from_secs(1);
    let config = ConsensusConfig { append_timeout: LATE * 5, ..ConsensusConfig::default() };
    let cluster = Cluster::of(3, config).await;
    let (leader, term) = cluster.leader().await;
    assert_eq!(cluster.propose(leader, term, 1, 1).await, Ok(()));
    let others: Vec<NodeId> = cluster.nodes.keys().copied().filter(|id| *id != leader).collect();
    // The second answer comes when the first has moved the committed position.
    for (follower, late) in others.iter().zip([LATE, LATE + Duration::from_millis(30)]) {
        cluster.network.set_link(*follower, leader, |link| (link.delay_min, link.delay_max) = (late, late));
    }
    let proposer = cluster.group(leader).proposer().clone();
    let (done, acknowledged) = oneshot::channel();
    let done = Box::new(move |result| done.send(result).unwrap());
    proposer.propose(Proposal { term, entry: append_command(1, 2), done }).unwrap();
    cluster.env.sleep(Duration::from_millis(50)).await;
    for follower in &others {
        cluster.network.set_link(leader, *follower, |link| link.cut = true);
    }
    let cut_at = cluster.env.now();
    // A majority has the entry, so it is committed, however late that is heard.
    assert_eq!(acknowledged.await.unwrap(), Ok(()));
    while cluster.env.now() < cut_at + LATE + Duration::from_millis(200) {
        let is_over = cluster.env.now() > cut_at + ConsensusConfig::default().leader_lease();
        let reads = matches!(proposer.linearize(), Linearize::Now);
        assert!(!(is_over && reads), "a lease was renewed by answers from before it ran out");
        cluster.env.sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_to_the_node_that_is_asked_for() {
    let cluster = Cluster::of(3, ConsensusConfig::default()).await;
    let (leader, term) = cluster.leader().await;
    assert_eq!(cluster.propose(leader, term, 1, 1).await, Ok(()));
    let to = if leader == node(3) { node(1) } else { node(3) };
    cluster.group(leader).transfer_leader(to).await.unwrap();
    assert!(!matches!(cluster.group(leader).proposer().linearize(), Linearize::Now), "the old lease is dead");
    let (now, new_term) = cluster
        .eventually("the new leader serves", || {
            cluster.nodes[&to].store.cell(GROUP).leads().map(|term| (to, term))
        })
        .await;
    assert!(new_term > term);
    assert_eq!(cluster.propose(now, new_term, 1, 2).await, Ok(()));
    let unknown = cluster.group(now).transfer_leader(node(9)).await;
    assert!(matches!(unknown, Err(ConsensusError::Refused { .. })), "{unknown:?}");
    let at_follower = cluster.group(leader).transfer_leader(leader).await;
    assert!(matches!(at_follower, Err(ConsensusError::NotLeader { .. })), "{at_follower:?}");
}

/// A leader that has offered its leadership takes no more proposals; if nobody takes it, it must not stay like that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_that_nobody_takes_ends_in_an_election() {
    let cluster = Cluster::of(3, ConsensusConfig::default()).await;
    let (leader, term) = cluster.leader().await;
    assert_eq!(cluster.propose(leader, term, 1, 1).await, Ok(()));
    let to = if leader == node(3) { node(1) } else { node(3) };
    for id in cluster.nodes.keys().filter(|id| **id != to) {
        cluster.network.set_cut(*id, to, true);
    }
    let outcome = cluster.group(leader).transfer_leader(to).await;
    assert!(
        matches!(outcome, Err(ConsensusError::TimedOut { .. } | ConsensusError::Busy { .. })),
        "{outcome:?}"
    );
    let (now, new_term) = cluster
        .eventually("somebody leads in a later term", || {
            let leads = |node: &Node| node.store.cell(GROUP).leads().map(|term| (node.id, term));
            cluster.nodes.values().filter_map(leads).find(|(_, later)| *later > term)
        })
        .await;
    assert_eq!(cluster.propose(now, new_term, 1, 2).await, Ok(()));
    cluster.network.heal();
    cluster.converged(&[node(1), node(2), node(3)], 1, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_catches_up_by_snapshot_is_promoted_and_removed_again() {
    let config = ConsensusConfig {
        entries_kept_behind_snapshot: 10,
        snapshot_chunk_bytes: 4096,
        snapshot_timeout: Duration::from_secs(2),
        ..Default::default()
    };
    let mut cluster = Cluster::of(3, config).await;
    let (leader, term) = cluster.leader().await;
    for value in 0..3000 {
        let proposer = cluster.group(leader).proposer().clone();
        proposer.propose(Proposal { term, entry: append_command(1, value), done: Box::new(|_| ()) }).unwrap();
    }
    cluster.converged(&[leader], 1, 3000).await;
    cluster.group(leader).snapshot().await.unwrap();
    let log = cluster.nodes[&leader].log.group(GROUP);
    cluster.eventually("the log is purged", || log.state().purged.map(drop)).await;
    cluster.start(node(4), ModelStore::default());
    cluster.nodes[&node(4)].groups.open_group(GROUP).await.unwrap();
    let group = cluster.group(leader);
    // What is not what its sum says is not taken in, and sent again.
    let source = cluster.nodes[&leader].store.cell(GROUP);
    source.spoil_snapshots(2);
    group.add_learner(node(4)).await.unwrap();
    cluster.converged(&[leader, node(4)], 1, 3000).await;
    assert_eq!(source.spoils(), 0);
    assert_eq!(cluster.group(node(4)).status().state, NodeState::Joining);
    group.promote(node(4)).await.unwrap();
    assert_eq!(group.status().voters.len(), 4);
    group.promote(node(4)).await.unwrap();
    let gone = cluster.nodes.keys().copied().find(|id| *id != leader && *id != node(4)).unwrap();
    group.remove(gone).await.unwrap();
    let status = group.status();
    assert_eq!((status.voters.len(), status.learners.len(), status.joint), (3, 0, false));
    assert!(!status.voters.contains(&gone));
    group.remove(gone).await.unwrap();
    assert_eq!(cluster.propose(leader, term, 1, 3000).await, Ok(()));
    cluster.converged(&[leader, node(4)], 1, 3001).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_to_be_removed_hands_over_and_the_next_one_removes_it() {
    let cluster = Cluster::of(3, ConsensusConfig::default()).await;
    let (leader, term) = cluster.leader().await;
    assert_eq!(cluster.propose(leader, term, 1, 0).await, Ok(()));
    cluster.converged(&[leader], 1, 1).await;
    let refused = cluster.group(leader).remove(leader).await;
    assert!(matches!(refused, Err(ConsensusError::Busy { .. })), "{refused:?}");
    let next = cluster
        .eventually("another leader", || {
            let leads = |id: &NodeId| cluster.nodes[id].store.cell(GROUP).leads().is_some();
            cluster.nodes.keys().copied().find(|id| *id != leader && leads(id))
        })
        .await;
    cluster.group(next).remove(leader).await.unwrap();
    assert!(!cluster.group(next).status().voters.contains(&leader));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preferred_node_becomes_leader_and_groups_are_separate() {
    let config = ConsensusConfig { upkeep_interval: Duration::from_millis(50), ..Default::default() };
    let cluster = Cluster::of(3, config).await;
    let other = GroupId::new(6);
    let members: BTreeSet<NodeId> = cluster.nodes.keys().copied().collect();
    for member in cluster.nodes.values() {
        member.groups.create_group(other, &members).await.unwrap();
    }
    let (leader, _) = cluster.leader().await;
    let wanted = if leader == node(2) { node(3) } else { node(2) };
    for id in cluster.nodes.keys() {
        cluster.group(*id).prefer_leader(Some(wanted));
    }
    cluster.eventually("the preferred node leads", || cluster.nodes[&wanted].store.cell(GROUP).leads()).await;
    cluster
        .eventually("the other group has a leader too", || {
            cluster.nodes.values().find(|node| node.store.cell(other).leads().is_some()).map(drop)
        })
        .await;
    let removing = &cluster.nodes[&node(1)].groups;
    removing.remove_group(other).await.unwrap();
    removing.remove_group(other).await.unwrap();
    assert!(removing.get(other).is_none());
    let again = removing.open_group(other).await;
    assert!(matches!(again, Err(ConsensusError::Removed { .. })), "a group number came back");
    assert!(removing.get(GROUP).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_cluster_comes_back_with_all_that_was_acknowledged() {
    let mut cluster = Cluster::of(3, ConsensusConfig::default()).await;
    let (leader, term) = cluster.leader().await;
    for value in 0..200 {
        assert_eq!(cluster.propose(leader, term, 1, value).await, Ok(()));
    }
    let nodes: Vec<Node> = std::mem::take(&mut cluster.nodes).into_values().collect();
    let mut stores = Vec::new();
    for stopping in nodes {
        cluster.network.detach(stopping.id);
        stopping.groups.shutdown(Duration::from_secs(2)).await;
        stopping.tasks.shutdown(Duration::from_secs(1)).await;
        stopping.log.close().await;
        // Only what the machine flushed survives, which is nothing: all must come from the log.
        stopping.store.crash();
        stores.push((stopping.id, stopping.store));
    }
    for (id, store) in stores {
        cluster.start(id, store);
        let groups = cluster.nodes[&id].groups.clone();
        assert_eq!(groups.in_log(), vec![GROUP]);
        groups.open_group(GROUP).await.unwrap();
    }
    cluster.leader().await;
    cluster.converged(&[node(1), node(2), node(3)], 1, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_founder_knows_the_members_before_it_hears_of_anybody() {
    let mut cluster = Cluster::new(ConsensusConfig::default());
    let members: BTreeSet<NodeId> = (1..=3).map(node).collect();
    for id in &members {
        cluster.start(*id, ModelStore::default());
    }
    for id in &members {
        // Nobody is heard, and still each can be asked for its vote by any of the others.
        cluster.network.set_cut(*id, node(1), true);
        cluster.network.set_cut(node(2), node(3), true);
        let patience = if *id == node(1) { Duration::ZERO } else { Duration::from_millis(100) };
        let groups = cluster.nodes[id].groups.clone();
        let founded = groups.found_group(GROUP, &members, patience).await.unwrap();
        let knows = || (founded.status().voters == members).then_some(());
        cluster.eventually("the members are known", knows).await;
        // Founding again gives the same group, and changes nothing in it.
        let again = groups.found_group(GROUP, &members, patience).await.unwrap();
        assert_eq!(again.status().last_log_index, founded.status().last_log_index);
    }
    // The one that should have led stays away.
    cluster.network.detach(node(1));
    cluster.network.set_cut(node(2), node(3), false);
    let (leader, term) = cluster.leader().await;
    assert_ne!(leader, node(1));
    assert_eq!(cluster.propose(leader, term, 1, 1).await, Ok(()));
    cluster.converged(&[node(2), node(3)], 1, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_stays_short_whatever_an_idle_group_has_in_it() {
    let config = ConsensusConfig {
        snapshot_log_bytes: 1 << 20,
        upkeep_interval: Duration::from_millis(50),
        ..Default::default()
    };
    let cluster = Cluster::of(3, config).await;
    let idle = GroupId::new(6);
    let members: BTreeSet<NodeId> = cluster.nodes.keys().copied().collect();
    for node in cluster.nodes.values() {
        node.groups.open_group(idle).await.unwrap();
    }
    cluster.nodes[&node(1)].groups.get(idle).unwrap().initialize(&members).await.unwrap();
    let (leader, term) = cluster.leader().await;
    for round in 0..10 {
        for value in round * 5000..(round + 1) * 5000 {
            let proposer = cluster.group(leader).proposer().clone();
            let proposal = Proposal { term, entry: append_command(value, value), done: Box::new(|_| ()) };
            proposer.propose(proposal).unwrap();
        }
        cluster.converged(&[leader], round * 5000 + 4999, 1).await;
    }
    for node in cluster.nodes.values() {
        cluster.eventually("a short log", || (node.log.stats().segment_bytes <= 2 << 20).then_some(())).await;
        let idle = node.log.group(idle);
        cluster.eventually("the idle group keeps no old segment", || idle.state().purged.map(drop)).await;
    }
    assert_eq!(cluster.propose(leader, term, 1, 1).await, Ok(()));
}
