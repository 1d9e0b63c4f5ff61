//! Tests of [`super::plan`]: single decisions, and a model cluster in which nodes act, fail and pause at random.

use rustydb_sql::session::token::TokenKey;
use rustydb_sql::system::{NodeRecord, SystemCommand};
use rustydb_types::ids::Oid;

use super::*;

fn node(number: u64) -> NodeId {
    NodeId::new(number)
}

fn node_record(number: u64) -> NodeRecord {
    NodeRecord {
        id: node(number),
        name: format!("node-{number}"),
        pg_address: String::new(),
        interconnect_address: String::new(),
        http_address: String::new(),
        release: String::new(),
        labels: BTreeMap::new(),
        leaving: false,
    }
}

const TOKEN_KEY: TokenKey = TokenKey::new([1; 16]);

fn execute(recorded: &mut SystemSnapshot, command: &SystemCommand) {
    let changes = command.decide(recorded).unwrap();
    for (key, value) in changes {
        match value {
            Some(value) => recorded.absorb(&key, &value).unwrap(),
            // The only rows that these tests delete are those of nodes, with longer keys, and of databases.
            None if key.len() > 5 => recorded.nodes.retain(|id, _| !key.ends_with(&id.get().to_be_bytes())),
            None => recorded.databases.retain(|id, _| !key.ends_with(&id.get().get().to_be_bytes())),
        }
    }
}

/// The cluster as the model keeps it: the true state of each group, and which replicas are open where.
struct Model {
    recorded: SystemSnapshot,
    /// Members of each group that was initialized.
    members: BTreeMap<GroupId, BTreeSet<NodeId>>,
    learners: BTreeMap<GroupId, BTreeSet<NodeId>>,
    leaders: BTreeMap<GroupId, NodeId>,
    open: BTreeMap<NodeId, BTreeMap<GroupId, u32>>,
    seed: u64,
}

impl Model {
    fn new(nodes: u64, seed: u64) -> Model {
        let mut recorded = SystemSnapshot::default();
        let nodes: Vec<NodeRecord> = (1..=nodes).map(node_record).collect();
        let ids: BTreeSet<NodeId> = nodes.iter().map(|record| record.id).collect();
        let (role, database) = ("postgres".to_owned(), "postgres".to_owned());
        let bootstrap = SystemCommand::Bootstrap { role, database, nodes, token_key: TOKEN_KEY };
        execute(&mut recorded, &bootstrap);
        Model {
            recorded,
            members: BTreeMap::from([(GroupId::SYSTEM, ids.clone())]),
            learners: BTreeMap::new(),
            leaders: BTreeMap::from([(GroupId::SYSTEM, node(1))]),
            open: ids.iter().map(|id| (*id, BTreeMap::from([(GroupId::SYSTEM, 9)]))).collect(),
            seed,
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }

    fn view(&self, me: NodeId) -> BTreeMap<GroupId, LocalGroup> {
        let none = BTreeSet::new();
        let local = |group: &GroupId| {
            let voters = self.members.get(group).unwrap_or(&none).clone();
            let learners = self.learners.get(group).unwrap_or(&none).clone();
            let member = voters.contains(&me) || learners.contains(&me);
            let leader = self.leaders.get(group).copied().filter(|_| member);
            let opened = |node: &&NodeId| self.open.get(*node).is_some_and(|open| open.contains_key(group));
            let caught_up: BTreeSet<NodeId> = voters.union(&learners).filter(opened).copied().collect();
            let local = LocalGroup {
                initialized: member,
                leads: leader == Some(me),
                leader,
                voters,
                learners,
                members_changing: false,
                joint: false,
                diverged: false,
                answering: caught_up.clone(),
                caught_up,
            };
            (*group, local)
        };
        self.open[&me].keys().map(local).collect()
    }

    /// One round of one node: plans, then carries out a random prefix of the plan, as if it died after it.
    fn round(&mut self, me: NodeId) -> usize {
        // A group without a leader elects one.
        for (group, rounds) in self.open.get_mut(&me).unwrap() {
            *rounds += 1;
            if *rounds > 3 && self.members.get(group).is_some_and(|members| members.contains(&me)) {
                self.leaders.entry(*group).or_insert(me);
            }
        }
        let actions = plan(me, &self.recorded, &self.view(me), Balance::Allowed);
        let count = actions.len();
        let survived = self.random(u64::try_from(count).unwrap() + 2);
        for action in actions.into_iter().take(usize::try_from(survived).unwrap()) {
            self.act(me, action);
        }
        count
    }

    fn act(&mut self, me: NodeId, action: Action) {
        match action {
            Action::Open(group) => {
                self.open.get_mut(&me).unwrap().insert(group, 0);
            }
            Action::Found { group, members, patience } => {
                let members: BTreeSet<NodeId> = members.into_iter().collect();
                let present = self.members.entry(group).or_insert_with(|| members.clone());
                assert_eq!(*present, members, "founded twice with different members");
                self.open.get_mut(&me).unwrap().insert(group, 0);
                if patience.is_zero() {
                    self.leaders.entry(group).or_insert(me);
                }
            }
            Action::Initialize => panic!("the system group has members"),
            Action::Remove(group) => {
                assert!(
                    !self
                        .recorded
                        .databases
                        .values()
                        .any(|database| database.group == group && database.state != DatabaseState::Dropping),
                    "removed a group in use"
                );
                self.open.get_mut(&me).unwrap().remove(&group);
                if !self.open.values().any(|open| open.contains_key(&group)) {
                    self.members.remove(&group);
                    self.leaders.remove(&group);
                } else if self.leaders.get(&group) == Some(&me) {
                    self.leaders.remove(&group);
                }
            }
            Action::AddLearner { group, node } => {
                self.learners.entry(group).or_default().insert(node);
            }
            Action::Promote { group, node } => {
                assert!(self.learners.get_mut(&group).unwrap().remove(&node));
                self.members.get_mut(&group).unwrap().insert(node);
            }
            Action::FinishChange(group) => panic!("no change of group {group} is half done"),
            Action::RemoveMember { group, node } => {
                assert_ne!(node, me, "a leader removes itself");
                let members = self.members.get_mut(&group).unwrap();
                members.remove(&node);
                assert!(
                    members.iter().filter(|member| self.open.contains_key(member)).count() * 2
                        > members.len()
                );
                self.learners.entry(group).or_default().remove(&node);
            }
            Action::HandOver { group, to } => {
                self.leaders.insert(group, to[0]);
            }
            Action::RecordRemoved(node) => {
                assert!(
                    !self.members.values().chain(self.learners.values()).any(|group| group.contains(&node))
                );
                execute(&mut self.recorded, &SystemCommand::RemoveNode { id: node });
                self.open.remove(&node);
            }
            Action::Transfer { group, to } => {
                self.leaders.insert(group, to);
            }
            Action::RecordReady(id) => execute(&mut self.recorded, &SystemCommand::DatabaseReady { id }),
            Action::RecordGone(id) => execute(&mut self.recorded, &SystemCommand::DatabaseGone { id }),
            Action::RecordReplicas { database: id, replicas } => {
                execute(&mut self.recorded, &SystemCommand::SetReplicas { id, replicas });
            }
        }
    }

    /// Runs rounds of random nodes until nobody has anything to do.
    fn settle(&mut self) {
        for _ in 0..2_000 {
            let nodes: Vec<NodeId> = self.open.keys().copied().collect();
            let idle = nodes
                .iter()
                .filter(|me| plan(**me, &self.recorded, &self.view(**me), Balance::Allowed).is_empty());
            // A group that waits for a leader has nothing to do but is not done.
            let leaving = self.recorded.nodes.values().any(|node| node.leaving);
            let waiting = |database: &DatabaseRecord| database.state != DatabaseState::Ready;
            if idle.count() == nodes.len() && !leaving && !self.recorded.databases.values().any(waiting) {
                return;
            }
            let at = usize::try_from(self.random(u64::try_from(nodes.len()).unwrap())).unwrap();
            self.round(nodes[at]);
        }
        panic!("seed {} does not settle: {:?}", self.seed, self.recorded.databases);
    }

    fn create(&mut self, name: &str) {
        let replicas = self.recorded.nodes.keys().copied().collect();
        let name = name.to_owned();
        let owner = Oid::new(10);
        let create = SystemCommand::CreateDatabase { name, owner, replicas, token_key: TOKEN_KEY };
        execute(&mut self.recorded, &create);
    }
}

#[test]
fn databases_come_and_go_whatever_node_dies_between_two_actions() {
    for seed in 0..200 {
        let mut model = Model::new(3, seed);
        model.settle();
        for name in ["a", "b", "c"] {
            model.create(name);
            for _ in 0..model.random(10) {
                let me = node(1 + model.random(3));
                model.round(me);
            }
        }
        execute(&mut model.recorded, &SystemCommand::DropDatabase { name: "b".to_owned() });
        model.settle();
        let names: Vec<&str> = model.recorded.databases.values().map(|database| &*database.name).collect();
        assert_eq!(names, ["postgres", "a", "c"], "seed {seed}");
        // system, postgres, a and c are open everywhere; b is nowhere.
        assert!(model.open.values().all(|open| open.len() == 4), "seed {seed}: {:?}", model.open);
        let mut counts: BTreeMap<NodeId, usize> = BTreeMap::new();
        for leader in model.leaders.values() {
            *counts.entry(*leader).or_default() += 1;
        }
        assert!(counts.values().all(|count| *count <= 2), "seed {seed}: leaders {counts:?}");
    }
}

#[test]
fn a_new_node_becomes_a_replica_of_everything() {
    for seed in 0..100 {
        let mut model = Model::new(1, seed);
        model.create("a");
        model.settle();
        for number in 2..=3 {
            execute(&mut model.recorded, &SystemCommand::PutNode { node: node_record(number) });
            model.open.insert(node(number), BTreeMap::from([(GroupId::SYSTEM, 9)]));
        }
        model.settle();
        let all: BTreeSet<NodeId> = (1..=3).map(node).collect();
        assert!(model.members.values().all(|members| *members == all), "seed {seed}: {:?}", model.members);
    }
}

#[test]
fn a_node_that_leaves_leaves_everything_whoever_dies_between_two_actions() {
    for seed in 0..200 {
        let mut model = Model::new(4, seed);
        model.create("a");
        model.create("b");
        for _ in 0..model.random(20) {
            let me = node(1 + model.random(4));
            model.round(me);
        }
        let leaving = node(1 + model.random(4));
        let is_dead = model.random(2) == 0;
        if is_dead {
            model.open.remove(&leaving);
            model.leaders.retain(|_, leader| *leader != leaving);
        }
        execute(&mut model.recorded, &SystemCommand::MarkLeaving { id: leaving });
        model.settle();
        assert!(model.recorded.removed.contains(&leaving), "seed {seed}: {:?}", model.recorded.nodes);
        let left: BTreeSet<NodeId> = (1..=4).map(node).filter(|node| *node != leaving).collect();
        assert!(model.members.values().all(|members| *members == left), "seed {seed}: {:?}", model.members);
        assert!(!model.leaders.values().any(|leader| *leader == leaving), "seed {seed}");
        // Another takes its place.
        execute(&mut model.recorded, &SystemCommand::PutNode { node: node_record(5) });
        model.open.insert(node(5), BTreeMap::from([(GroupId::SYSTEM, 9)]));
        model.settle();
        assert!(model.members.values().all(|members| members.len() == 4), "seed {seed}: {:?}", model.members);
    }
}

#[test]
fn a_member_goes_only_when_it_is_recorded_and_a_majority_of_the_others_answers() {
    let mut recorded = Model::new(3, 0).recorded;
    recorded.databases.clear();
    let all: BTreeSet<NodeId> = (1..=3).map(node).collect();
    let system = |answering: &[u64]| {
        let local = LocalGroup {
            initialized: true,
            leads: true,
            leader: Some(node(1)),
            voters: all.clone(),
            caught_up: all.clone(),
            answering: answering.iter().copied().map(node).collect(),
            ..LocalGroup::default()
        };
        BTreeMap::from([(GroupId::SYSTEM, local)])
    };
    // Records that are old, as after a change of leaders, remove nobody.
    let mut old = recorded.clone();
    old.nodes.remove(&node(3));
    assert_eq!(plan(node(1), &old, &system(&[1, 2, 3]), Balance::Wait), []);
    execute(&mut recorded, &SystemCommand::MarkLeaving { id: node(3) });
    let removal = Action::RemoveMember { group: GroupId::SYSTEM, node: node(3) };
    assert_eq!(plan(node(1), &recorded, &system(&[1, 2]), Balance::Wait), [removal]);
    // Node 2 would be half of those that are left.
    assert_eq!(plan(node(1), &recorded, &system(&[1, 3]), Balance::Wait), []);
    // A leader hands over to one that stays.
    let mut own = recorded.clone();
    execute(&mut own, &SystemCommand::MarkLeaving { id: node(1) });
    let hand_over = Action::HandOver { group: GroupId::SYSTEM, to: vec![node(2)] };
    assert_eq!(plan(node(1), &own, &system(&[1, 2, 3]), Balance::Wait), [hand_over]);
}

#[test]
fn a_group_without_a_record_goes_only_when_its_number_was_given_out() {
    let model = Model::new(3, 0);
    let local = LocalGroup { initialized: true, ..LocalGroup::default() };
    let groups = BTreeMap::from([(GroupId::new(7), local)]);
    // This node's replica of the system group has not yet heard of group 7: it stays.
    let members = (1..=3).map(node).collect();
    let found = Action::Found { group: GroupId::new(2), members, patience: FIRST_LEADER_PATIENCE };
    assert_eq!(plan(node(1), &model.recorded, &groups, Balance::Wait), std::slice::from_ref(&found));
    let mut later = model.recorded.clone();
    later.counters.next_group = 8;
    let actions = plan(node(1), &later, &groups, Balance::Wait);
    assert_eq!(actions, [found, Action::Remove(GroupId::new(7))]);
}

#[test]
fn consecutive_groups_start_on_consecutive_nodes() {
    let mut model = Model::new(3, 0);
    model.create("a");
    model.create("b");
    let first: Vec<Option<NodeId>> = model.recorded.databases.values().map(first_leader).collect();
    assert_eq!(first, [Some(node(3)), Some(node(1)), Some(node(2))]);
}

#[test]
fn leaders_move_only_when_that_evens_them_out() {
    let voters: BTreeSet<NodeId> = (1..=3).map(node).collect();
    let group = |leader: u64| LocalGroup {
        initialized: true,
        leads: leader == 1,
        leader: Some(node(leader)),
        voters: voters.clone(),
        caught_up: voters.clone(),
        ..LocalGroup::default()
    };
    let two = BTreeMap::from([(GroupId::new(1), group(1)), (GroupId::new(2), group(2))]);
    assert_eq!(plan_balance(node(1), &two, &BTreeSet::new()), None);
    let lopsided = BTreeMap::from([
        (GroupId::new(1), group(1)),
        (GroupId::new(2), group(1)),
        (GroupId::new(3), group(2)),
    ]);
    let expected = Action::Transfer { group: GroupId::new(1), to: node(3) };
    assert_eq!(plan_balance(node(1), &lopsided, &BTreeSet::new()), Some(expected));
    let leaving = BTreeSet::from([node(3)]);
    assert_eq!(plan_balance(node(1), &lopsided, &leaving), None);
    let mut unknown = lopsided;
    unknown.insert(GroupId::new(4), LocalGroup { leader: None, ..group(2) });
    assert_eq!(plan_balance(node(1), &unknown, &BTreeSet::new()), None);
}

#[test]
fn a_change_of_voters_that_is_half_done_is_ended_before_anything_else() {
    let recorded = Model::new(3, 0).recorded;
    let voters: BTreeSet<NodeId> = [1, 2].map(node).into();
    let local = |joint| LocalGroup {
        initialized: true,
        leads: true,
        leader: Some(node(1)),
        voters: voters.clone(),
        caught_up: voters.clone(),
        answering: voters.clone(),
        members_changing: joint,
        joint,
        ..LocalGroup::default()
    };
    let planned =
        |joint| plan(node(1), &recorded, &BTreeMap::from([(GroupId::SYSTEM, local(joint))]), Balance::Wait);
    assert!(planned(true).contains(&Action::FinishChange(GroupId::SYSTEM)), "{:?}", planned(true));
    let goes_on = |action: &Action| {
        matches!(
            action,
            Action::AddLearner { group: GroupId::SYSTEM, .. }
                | Action::Promote { group: GroupId::SYSTEM, .. }
        )
    };
    assert!(!planned(true).iter().any(goes_on), "{:?}", planned(true));
    assert!(!planned(false).contains(&Action::FinishChange(GroupId::SYSTEM)), "{:?}", planned(false));
}
