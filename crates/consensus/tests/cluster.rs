//! A few nodes in one process: elections, proposals, reads, members, snapshots. Faults and crashes belong to the
//! simulation of the whole product; here the happy path and the administration are shown, in virtual time, so that no
//! lease runs out because the machine is busy. The first test runs over the operating system's clock and threads.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rustydb_consensus::{
    ConsensusConfig, ConsensusError, Group, Groups, GroupsParts, Health,
    loopback::{Link, LoopbackNetwork},
    model::{ModelStore, append_command},
    node_state::NodeState,
    proposer::{Linearize, Proposal, ProposeError, RaftProposer, ReadError},
};
use rustydb_env::{
    Env, TaskGroup, ambient,
    sim::{SimNode, Simulation},
};
use rustydb_storage::log::{Log, LogConfig, LogPlace, Past};
use rustydb_types::ids::{GroupId, NodeId, Term};
use tokio::sync::oneshot;

const GROUP: GroupId = GroupId::new(5);

/// Where the nodes live.
#[derive(Clone)]
enum World {
    Os(Arc<tempfile::TempDir>),
    Simulated(Arc<Simulation>),
}

struct Node {
    id: NodeId,
    env: Env,
    machine: Option<SimNode>,
    groups: Groups,
    store: ModelStore,
    log: Log,
    tasks: TaskGroup,
}

struct Cluster {
    world: World,
    env: Env,
    network: LoopbackNetwork,
    config: ConsensusConfig,
    nodes: BTreeMap<NodeId, Node>,
}

type ProposalResult = oneshot::Receiver<Result<(), ProposeError>>;

fn node(id: u64) -> NodeId {
    NodeId::new(id)
}

/// Runs a test in virtual time.
fn simulated<F>(test: impl FnOnce(World) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let simulation = Arc::new(Simulation::new(1));
    let test = test(World::Simulated(simulation.clone()));
    simulation.block_on(Duration::from_secs(3600), test).unwrap();
    simulation.end();
}

impl Cluster {
    fn new(world: World, config: ConsensusConfig) -> Self {
        let env = match &world {
            World::Os(_) => Env::os(),
            World::Simulated(simulation) => simulation.harness(),
        };
        Self { world, env, network: LoopbackNetwork::new(), config, nodes: BTreeMap::new() }
    }

    fn start(&mut self, id: NodeId, store: ModelStore) {
        let (env, folder, machine) = match &self.world {
            World::Os(folder) => (Env::os(), folder.path().join(id.to_string()), None),
            World::Simulated(simulation) => {
                let machine = simulation.add_node();
                (simulation.env(machine), PathBuf::from("/"), Some(machine))
            }
        };
        self.start_at(id, store, env, folder, machine);
    }

    fn start_at(
        &mut self,
        id: NodeId,
        store: ModelStore,
        env: Env,
        folder: PathBuf,
        machine: Option<SimNode>,
    ) {
        let place = LogPlace::load(&env, &folder).unwrap();
        let config = LogConfig { segment_bytes: 1 << 20, reserve_bytes: 1 << 20, ..LogConfig::default() };
        let log = place.open(config, Past::Unknown, []).unwrap();
        let groups = Groups::new(GroupsParts {
            env: env.clone(),
            config: self.config.clone(),
            log: log.clone(),
            place: Arc::new(place),
            transport: self.network.endpoint(id, &env),
            machines: Arc::new(store.clone()),
            node: id,
            peers: BTreeSet::new(),
        });
        let tasks = TaskGroup::new(&env);
        self.network.attach(id, &env, &tasks, Arc::new(groups.clone()));
        self.nodes.insert(id, Node { id, env, machine, groups, store, log, tasks });
    }

    async fn of(count: u64, world: World, config: ConsensusConfig) -> Self {
        let mut cluster = Self::new(world, config);
        let members: BTreeSet<NodeId> = (1..=count).map(node).collect();
        for id in &members {
            cluster.start(*id, ModelStore::default());
            cluster.open(*id, GROUP).await;
        }
        cluster.initialize(GROUP, &members).await;
        cluster
    }

    /// Does something as a task of a node.
    async fn on<T, F>(&self, id: NodeId, work: impl FnOnce(Groups) -> F) -> T
    where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let node = &self.nodes[&id];
        node.env.spawn("test", work(node.groups.clone())).await.unwrap()
    }

    /// Does something with the group of a node, as its task.
    async fn at<T, F>(&self, id: NodeId, work: impl FnOnce(Group) -> F) -> T
    where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        self.on(id, |groups| work(groups.get(GROUP).unwrap())).await
    }

    async fn open(&self, id: NodeId, group: GroupId) {
        self.on(id, move |groups| async move { groups.open_group(group).await.map(drop) }).await.unwrap();
    }

    async fn initialize(&self, group: GroupId, members: &BTreeSet<NodeId>) {
        let members = members.clone();
        let initialize =
            move |groups: Groups| async move { groups.get(group).unwrap().initialize(&members).await };
        self.on(node(1), initialize).await.unwrap();
    }

    fn group(&self, id: NodeId) -> Group {
        self.nodes[&id].groups.get(GROUP).unwrap()
    }

    fn proposer(&self, id: NodeId) -> Arc<RaftProposer> {
        self.group(id).proposer().clone()
    }

    async fn eventually<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        // A minute: over the operating system's clock a busy machine's disk takes long.
        for _ in 0..12_000 {
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
        let (proposed, result) = self.hand_over(at, term, key, value).await;
        proposed?;
        result.await.unwrap()
    }

    /// Proposes a value of key 1 and does not wait for it.
    async fn propose_later(&self, at: NodeId, term: Term, value: u64) -> ProposalResult {
        let (proposed, result) = self.hand_over(at, term, 1, value).await;
        proposed.unwrap();
        result
    }

    async fn hand_over(
        &self,
        at: NodeId,
        term: Term,
        key: u64,
        value: u64,
    ) -> (Result<(), ProposeError>, ProposalResult) {
        let (done, result) = oneshot::channel();
        let entry = append_command(key, value);
        let proposed = self.at(at, move |group| async move {
            let done = Box::new(move |r| done.send(r).unwrap());
            group.proposer().propose(Proposal { term, entry, done })
        });
        (proposed.await, result)
    }

    /// Proposes values and waits for none of them.
    async fn propose_all(&self, at: NodeId, term: Term, key: fn(u64) -> u64, values: Range<u64>) {
        self.at(at, move |group| async move {
            for value in values {
                let entry = append_command(key(value), value);
                group.proposer().propose(Proposal { term, entry, done: Box::new(|_| ()) }).unwrap();
            }
        })
        .await;
    }

    /// Whether a node reads by its lease, and what it says when it has none.
    async fn reads_by_lease(&self, id: NodeId) -> Result<bool, ReadError> {
        self.at(id, |group| async move {
            match group.proposer().linearize() {
                Linearize::Now => Ok(true),
                Linearize::Wait(wait) => wait.await.map(|()| false),
            }
        })
        .await
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

/// Over real threads, with leases that no busy machine outlives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_reach_all_nodes_in_the_order_of_the_calls() {
    let config = ConsensusConfig {
        election_timeout_min: Duration::from_secs(50),
        election_timeout_max: Duration::from_secs(100),
        ..Default::default()
    };
    let world = World::Os(Arc::new(tempfile::tempdir().unwrap()));
    let cluster = Cluster::of(3, world, config).await;
    let (leader, term) = cluster.leader().await;
    let proposer = cluster.proposer(leader);
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

#[test]
fn a_proposal_of_another_term_or_at_a_follower_is_refused() {
    simulated(|world| async {
        let cluster = Cluster::of(3, world, ConsensusConfig::default()).await;
        let (leader, term) = cluster.leader().await;
        let stale = Term::new(term.get() + 1);
        let refused = Err(ProposeError::NotLeader { term: stale });
        assert_eq!(cluster.propose(leader, stale, 1, 1).await, refused);
        let follower = if leader == node(1) { node(2) } else { node(1) };
        assert_eq!(cluster.propose(follower, term, 1, 1).await, Err(ProposeError::NotLeader { term }));
        assert_eq!(cluster.propose(leader, term, 1, 1).await, Ok(()));
        cluster.converged(&[node(1), node(2), node(3)], 1, 1).await;
    });
}

#[test]
fn back_pressure_refuses_and_frees_its_room() {
    let config =
        ConsensusConfig { uncommitted_entries_max: 10, uncommitted_bytes_max: 1000, ..Default::default() };
    simulated(|world| async {
        let cluster = Cluster::of(3, world, config).await;
        let (leader, term) = cluster.leader().await;
        let followers: Vec<NodeId> = cluster.nodes.keys().copied().filter(|id| *id != leader).collect();
        for follower in &followers {
            cluster.network.set_cut(leader, *follower, true);
        }
        let results = cluster
            .at(leader, move |group| async move {
                let propose = |value| {
                    let entry = append_command(1, value);
                    group.proposer().propose(Proposal { term, entry, done: Box::new(|_| ()) })
                };
                (0..12).map(propose).collect::<Vec<Result<(), ProposeError>>>()
            })
            .await;
        let refused = results.iter().filter(|result| **result == Err(ProposeError::Overloaded));
        assert_eq!(refused.count(), 2);
        cluster.network.heal();
        let proposer = cluster.proposer(leader);
        cluster.eventually("the room is free", || (proposer.in_flight() == 0).then_some(())).await;
    });
}

/// As after a moment in which a node stood still: nobody else was elected, and the next heartbeat renews the lease.
#[test]
fn a_proposal_waits_for_a_lease_that_is_renewed_but_not_for_ever() {
    simulated(|world| async {
        let cluster = Cluster::of(3, world, ConsensusConfig::default()).await;
        let (leader, term) = cluster.leader().await;
        assert_eq!(cluster.propose(leader, term, 1, 1).await, Ok(()));
        let cut_off = async || {
            for id in cluster.nodes.keys().filter(|id| **id != leader) {
                cluster.network.set_cut(leader, *id, true);
            }
            cluster.env.sleep(ConsensusConfig::default().leader_lease() + Duration::from_millis(30)).await;
            // Neither does one that comes later overtake it.
            (cluster.propose_later(leader, term, 2).await, cluster.propose_later(leader, term, 3).await)
        };
        let (second, third) = cut_off().await;
        cluster.network.heal();
        assert_eq!((second.await.unwrap(), third.await.unwrap()), (Ok(()), Ok(())));
        assert_eq!(cluster.nodes[&leader].store.cell(GROUP).present().lists[&1], [1, 2, 3]);
        assert_eq!(cluster.group(leader).status().term, term);

        let (refused, also) = cut_off().await;
        for refused in [refused, also] {
            let refused = refused.await.unwrap();
            assert!(
                matches!(refused, Err(ProposeError::Refused | ProposeError::NotLeader { .. })),
                "{refused:?}"
            );
        }
        cluster.network.heal();
        cluster.converged(&[node(1), node(2), node(3)], 1, 3).await;
    });
}

#[test]
fn a_proposal_that_comes_after_the_stop_is_answered() {
    simulated(|world| async {
        let cluster = Cluster::of(3, world, ConsensusConfig::default()).await;
        let (leader, term) = cluster.leader().await;
        let group = cluster.group(leader);
        for id in cluster.nodes.keys().filter(|id| **id != leader) {
            cluster.network.set_cut(leader, *id, true);
        }
        cluster.env.sleep(ConsensusConfig::default().leader_lease()).await;
        let (stopped, proposed) = tokio::join!(
            cluster.at(leader, |group| async move { group.shutdown(Duration::from_secs(2)).await }),
            cluster.propose_later(leader, term, 1),
        );
        let () = stopped;
        let (done, later) = oneshot::channel();
        let done = Box::new(move |result| done.send(result).unwrap());
        let proposal = Proposal { term, entry: append_command(1, 2), done };
        let node = &cluster.nodes[&leader];
        let late = async move { group.proposer().propose(proposal) };
        node.env.spawn("test", late).await.unwrap().unwrap();
        for result in [proposed, later] {
            let answered = cluster.env.timeout(Duration::from_secs(5), result).await;
            assert!(matches!(answered, Ok(Ok(Err(_)))), "{answered:?}");
        }
    });
}

#[test]
fn a_leader_reads_by_lease_and_a_cut_off_one_does_not() {
    simulated(|world| async {
        let cluster = Cluster::of(3, world, ConsensusConfig::default()).await;
        let (leader, term) = cluster.leader().await;
        assert_eq!(cluster.propose(leader, term, 1, 1).await, Ok(()));
        assert_eq!(cluster.reads_by_lease(leader).await, Ok(true));
        for id in cluster.nodes.keys().filter(|id| **id != leader) {
            cluster.network.set_cut(leader, *id, true);
        }
        cluster.env.sleep(ConsensusConfig::default().leader_lease()).await;
        let cut_off = cluster.reads_by_lease(leader).await;
        assert!(matches!(cut_off, Err(ReadError::NoQuorum | ReadError::NotLeader { .. })), "{cut_off:?}");
        let follower = cluster.nodes.keys().copied().find(|id| *id != leader).unwrap();
        let answer = cluster.reads_by_lease(follower).await;
        // By now the other two may have elected this one; else it says who leads.
        assert!(matches!(answer, Ok(_) | Err(ReadError::NotLeader { .. })), "{answer:?}");
    });
}

/// Answers that were a second on their way come when the others may long have another leader. openraft takes them for
/// answers to what it would send now, as that ends at the same entry.
#[test]
fn late_answers_renew_no_lease() {
    const LATE: Duration = Duration::from_secs(1);
    let config = ConsensusConfig { append_timeout: LATE * 5, ..ConsensusConfig::default() };
    simulated(|world| async {
        let cluster = Cluster::of(3, world, config).await;
        let (leader, term) = cluster.leader().await;
        assert_eq!(cluster.propose(leader, term, 1, 1).await, Ok(()));
        let others: Vec<NodeId> = cluster.nodes.keys().copied().filter(|id| *id != leader).collect();
        // The second answer comes when the first has moved the committed position.
        for (follower, late) in others.iter().zip([LATE, LATE + Duration::from_millis(30)]) {
            let set = |link: &mut Link| (link.delay_min, link.delay_max) = (late, late);
            cluster.network.set_link(*follower, leader, set);
        }
        let acknowledged = cluster.propose_later(leader, term, 2).await;
        cluster.env.sleep(Duration::from_millis(50)).await;
        for follower in &others {
            cluster.network.set_link(leader, *follower, |link| link.cut = true);
        }
        // A majority has the entry, so it is committed, however late that is heard.
        let reads = cluster.at(leader, |group| async move {
            let cut_at = ambient::now();
            let mut renewed = false;
            while ambient::now() < cut_at + LATE + Duration::from_millis(200) {
                let is_over = ambient::now() > cut_at + ConsensusConfig::default().leader_lease();
                renewed |= is_over && matches!(group.proposer().linearize(), Linearize::Now);
                ambient::sleep(Duration::from_millis(1)).await;
            }
            renewed
        });
        assert!(!reads.await, "a lease was renewed by answers from before it ran out");
        assert_eq!(acknowledged.await.unwrap(), Ok(()));
    });
}

#[test]
fn leadership_moves_to_the_node_that_is_asked_for() {
    simulated(|world| async {
        let cluster = Cluster::of(3, world, ConsensusConfig::default()).await;
        let (leader, term) = cluster.leader().await;
        assert_eq!(cluster.propose(leader, term, 1, 1).await, Ok(()));
        let to = if leader == node(3) { node(1) } else { node(3) };
        let transfer = |group: Group| async move {
            group.transfer_leader(to).await.unwrap();
            matches!(group.proposer().linearize(), Linearize::Now)
        };
        assert!(!cluster.at(leader, transfer).await, "the old lease is dead");
        let serves = || cluster.nodes[&to].store.cell(GROUP).leads();
        let new_term = cluster.eventually("the new leader serves", serves).await;
        assert!(new_term > term);
        assert_eq!(cluster.propose(to, new_term, 1, 2).await, Ok(()));
        let unknown = cluster.at(to, |group| async move { group.transfer_leader(node(9)).await }).await;
        assert!(matches!(unknown, Err(ConsensusError::Refused { .. })), "{unknown:?}");
        let to_itself = move |group: Group| async move { group.transfer_leader(leader).await };
        let at_follower = cluster.at(leader, to_itself).await;
        assert!(matches!(at_follower, Err(ConsensusError::NotLeader { .. })), "{at_follower:?}");
    });
}

/// One whose state is wrong is not elected, and who offered it the leadership would serve nobody meanwhile.
#[test]
fn a_leader_steps_down_for_a_voter_that_can_be_elected() {
    for which in [0, 1] {
        simulated(|world| async move {
            let cluster = Cluster::of(3, world, ConsensusConfig::default()).await;
            let (leader, term) = cluster.leader().await;
            assert_eq!(cluster.propose(leader, term, 1, 1).await, Ok(()));
            let others: Vec<NodeId> = cluster.nodes.keys().copied().filter(|id| *id != leader).collect();
            let (wrong, sound) = (others[which], others[1 - which]);
            // Nobody confirms a state that it could be repaired with.
            cluster.network.set_cut(wrong, sound, true);
            cluster.network.set_cut(sound, wrong, true);
            let distrusted = |group: Group| async move {
                group.distrust("the test says so");
                let begun = ambient::now();
                while group.agreement().health != Health::Diverged {
                    assert!(ambient::now() < begun + Duration::from_secs(5), "it is not withheld");
                    ambient::sleep(Duration::from_millis(1)).await;
                }
            };
            cluster.at(wrong, distrusted).await;
            let outcome = cluster.at(leader, |group| async move { group.step_down().await }).await;
            assert_eq!(outcome, Ok(()), "it is {wrong} that is wrong, and not {sound}");
            let serves = || cluster.nodes[&sound].store.cell(GROUP).leads();
            cluster.eventually("the sound one serves", serves).await;
        });
    }
}

/// A leader that has offered its leadership takes no more proposals; if nobody takes it, it must not stay like that.
#[test]
fn a_transfer_that_nobody_takes_ends_in_an_election() {
    simulated(|world| async {
        let cluster = Cluster::of(3, world, ConsensusConfig::default()).await;
        let (leader, term) = cluster.leader().await;
        assert_eq!(cluster.propose(leader, term, 1, 1).await, Ok(()));
        let to = if leader == node(3) { node(1) } else { node(3) };
        for id in cluster.nodes.keys().filter(|id| **id != to) {
            cluster.network.set_cut(*id, to, true);
        }
        let outcome = cluster.at(leader, move |group| async move { group.transfer_leader(to).await }).await;
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
    });
}

#[test]
fn a_learner_catches_up_by_snapshot_is_promoted_and_removed_again() {
    let config = ConsensusConfig {
        entries_kept_behind_snapshot: 10,
        snapshot_chunk_bytes: 4096,
        snapshot_timeout: Duration::from_secs(2),
        ..Default::default()
    };
    simulated(|world| async {
        let mut cluster = Cluster::of(3, world, config).await;
        let (leader, term) = cluster.leader().await;
        cluster.propose_all(leader, term, |_| 1, 0..3000).await;
        cluster.converged(&[leader], 1, 3000).await;
        cluster.at(leader, |group| async move { group.snapshot().await }).await.unwrap();
        let log = cluster.nodes[&leader].log.group(GROUP);
        cluster.eventually("the log is purged", || log.state().purged.map(drop)).await;
        cluster.start(node(4), ModelStore::default());
        cluster.open(node(4), GROUP).await;
        // What is not what its sum says is not taken in, and sent again.
        let source = cluster.nodes[&leader].store.cell(GROUP);
        source.spoil_snapshots(2);
        cluster.at(leader, |group| async move { group.add_learner(node(4)).await }).await.unwrap();
        cluster.converged(&[leader, node(4)], 1, 3000).await;
        assert_eq!(source.spoils(), 0);
        assert_eq!(cluster.group(node(4)).status().state, NodeState::Joining);
        let promote = |group: Group| async move { group.promote(node(4)).await };
        cluster.at(leader, promote).await.unwrap();
        let group = cluster.group(leader);
        assert_eq!(group.status().voters.len(), 4);
        cluster.at(leader, promote).await.unwrap();
        let gone = cluster.nodes.keys().copied().find(|id| *id != leader && *id != node(4)).unwrap();
        let remove = |group: Group| async move { group.remove(gone).await };
        cluster.at(leader, remove).await.unwrap();
        let status = group.status();
        assert_eq!((status.voters.len(), status.learners.len(), status.joint), (3, 0, false));
        assert!(!status.voters.contains(&gone));
        cluster.at(leader, remove).await.unwrap();
        assert_eq!(cluster.propose(leader, term, 1, 3000).await, Ok(()));
        cluster.converged(&[leader, node(4)], 1, 3001).await;
    });
}

#[test]
fn a_leader_that_is_to_be_removed_hands_over_and_the_next_one_removes_it() {
    simulated(|world| async {
        let cluster = Cluster::of(3, world, ConsensusConfig::default()).await;
        let (leader, term) = cluster.leader().await;
        assert_eq!(cluster.propose(leader, term, 1, 0).await, Ok(()));
        cluster.converged(&[leader], 1, 1).await;
        let remove = |group: Group| async move { group.remove(leader).await };
        let refused = cluster.at(leader, remove).await;
        assert!(matches!(refused, Err(ConsensusError::Busy { .. })), "{refused:?}");
        let next = cluster
            .eventually("another leader", || {
                let leads = |id: &NodeId| cluster.nodes[id].store.cell(GROUP).leads().is_some();
                cluster.nodes.keys().copied().find(|id| *id != leader && leads(id))
            })
            .await;
        cluster.at(next, remove).await.unwrap();
        assert!(!cluster.group(next).status().voters.contains(&leader));
    });
}

#[test]
fn a_preferred_node_becomes_leader_and_groups_are_separate() {
    let config = ConsensusConfig { upkeep_interval: Duration::from_millis(50), ..Default::default() };
    simulated(|world| async {
        let cluster = Cluster::of(3, world, config).await;
        let other = GroupId::new(6);
        let members: BTreeSet<NodeId> = cluster.nodes.keys().copied().collect();
        for id in cluster.nodes.keys() {
            let members = members.clone();
            let create = move |groups: Groups| async move { groups.create_group(other, &members).await };
            cluster.on(*id, create).await.unwrap();
        }
        let (leader, _) = cluster.leader().await;
        let wanted = if leader == node(2) { node(3) } else { node(2) };
        for id in cluster.nodes.keys() {
            cluster.group(*id).prefer_leader(Some(wanted));
        }
        let leads = || cluster.nodes[&wanted].store.cell(GROUP).leads();
        cluster.eventually("the preferred node leads", leads).await;
        cluster
            .eventually("the other group has a leader too", || {
                cluster.nodes.values().find(|node| node.store.cell(other).leads().is_some()).map(drop)
            })
            .await;
        let again = cluster
            .on(node(1), move |groups| async move {
                groups.remove_group(other).await.unwrap();
                groups.remove_group(other).await.unwrap();
                assert!(groups.get(other).is_none());
                groups.open_group(other).await.map(drop)
            })
            .await;
        assert!(matches!(again, Err(ConsensusError::Removed { .. })), "a group number came back");
        assert!(cluster.nodes[&node(1)].groups.get(GROUP).is_some());
    });
}

#[test]
fn a_stopped_cluster_comes_back_with_all_that_was_acknowledged() {
    simulated(|world| async {
        let World::Simulated(simulation) = world.clone() else { return };
        let mut cluster = Cluster::of(3, world, ConsensusConfig::default()).await;
        let (leader, term) = cluster.leader().await;
        for value in 0..200 {
            assert_eq!(cluster.propose(leader, term, 1, value).await, Ok(()));
        }
        let nodes: Vec<Node> = std::mem::take(&mut cluster.nodes).into_values().collect();
        let mut stopped = Vec::new();
        for stopping in nodes {
            cluster.network.detach(stopping.id);
            stopping.groups.shutdown(Duration::from_secs(2)).await;
            stopping.tasks.shutdown(Duration::from_secs(1)).await;
            stopping.log.close().await;
            // Only what the machine flushed survives, which is nothing: all must come from the log.
            stopping.store.crash();
            let machine = stopping.machine.unwrap();
            simulation.crash(machine);
            stopped.push((stopping.id, stopping.store.clone(), machine));
        }
        for (id, store, machine) in stopped {
            cluster.start_at(id, store, simulation.env(machine), PathBuf::from("/"), Some(machine));
            assert_eq!(cluster.nodes[&id].groups.in_log(), vec![GROUP]);
            cluster.open(id, GROUP).await;
        }
        cluster.leader().await;
        cluster.converged(&[node(1), node(2), node(3)], 1, 200).await;
    });
}

#[test]
fn every_founder_knows_the_members_before_it_hears_of_anybody() {
    simulated(|world| async {
        let mut cluster = Cluster::new(world, ConsensusConfig::default());
        let members: BTreeSet<NodeId> = (1..=3).map(node).collect();
        for id in &members {
            cluster.start(*id, ModelStore::default());
        }
        for id in &members {
            // Nobody is heard, and still each can be asked for its vote by any of the others.
            cluster.network.set_cut(*id, node(1), true);
            cluster.network.set_cut(node(2), node(3), true);
            let patience = if *id == node(1) { Duration::ZERO } else { Duration::from_millis(100) };
            let voters = members.clone();
            let found = move |groups: Groups| async move {
                groups.found_group(GROUP, &voters, patience).await.map(drop)
            };
            cluster.on(*id, found.clone()).await.unwrap();
            let founded = cluster.group(*id);
            let knows = || (founded.status().voters == members).then_some(());
            cluster.eventually("the members are known", knows).await;
            // Founding again gives the same group, and changes nothing in it.
            let end = founded.status().last_log_index;
            cluster.on(*id, found).await.unwrap();
            assert_eq!(cluster.group(*id).status().last_log_index, end);
        }
        // The one that should have led stays away.
        cluster.network.detach(node(1));
        cluster.network.set_cut(node(2), node(3), false);
        let (leader, term) = cluster.leader().await;
        assert_ne!(leader, node(1));
        assert_eq!(cluster.propose(leader, term, 1, 1).await, Ok(()));
        cluster.converged(&[node(2), node(3)], 1, 1).await;
    });
}

#[test]
fn the_log_stays_short_whatever_an_idle_group_has_in_it() {
    let config = ConsensusConfig {
        snapshot_log_bytes: 1 << 20,
        upkeep_interval: Duration::from_millis(50),
        ..Default::default()
    };
    simulated(|world| async {
        let cluster = Cluster::of(3, world, config).await;
        let idle = GroupId::new(6);
        let members: BTreeSet<NodeId> = cluster.nodes.keys().copied().collect();
        for id in cluster.nodes.keys() {
            cluster.open(*id, idle).await;
        }
        cluster.initialize(idle, &members).await;
        let (leader, term) = cluster.leader().await;
        for round in 0..10 {
            cluster.propose_all(leader, term, |value| value, round * 5000..(round + 1) * 5000).await;
            cluster.converged(&[leader], round * 5000 + 4999, 1).await;
        }
        for node in cluster.nodes.values() {
            let is_short = || (node.log.stats().segment_bytes <= 2 << 20).then_some(());
            cluster.eventually("a short log", is_short).await;
            let idle = node.log.group(idle);
            let is_purged = || idle.state().purged.map(drop);
            cluster.eventually("the idle group keeps no old segment", is_purged).await;
        }
        assert_eq!(cluster.propose(leader, term, 1, 1).await, Ok(()));
    });
}
