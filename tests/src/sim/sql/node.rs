//! A simulated node with sessions: the stores of its groups, and the gateway and host over them.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use rustydb_consensus::MachineFactory;
use rustydb_env::Env;
use rustydb_sql::memory::WorkMemory;
use rustydb_sql::{
    catalog::virtual_table::VirtualRegistry,
    error::{SqlError, SqlState},
    exec::{Database, service::SqlExecutor},
    gateway::{ClusterPort, Gateway, Host},
    session::token::TokenKey,
    system::{DatabaseRecord, DatabaseState, RoleRecord, SystemCommand, SystemSnapshot},
};
use rustydb_txn::KvStore;
use rustydb_types::{
    ids::{DatabaseId, GroupId, Incarnation, NodeId, Oid, Term},
    position::LogPosition,
};

use super::{
    super::{machines::Machines, stores::Stores},
    links::Hosts,
};

/// The role of all clients.
pub const USER: &str = "simulated";
/// Sessions that a host takes of other nodes.
const SESSION_COUNT_MAX: usize = 100;

/// What the statements of a node may keep in memory.
const WORK_MEMORY_BYTES: usize = 64 << 20;
/// More lives than a node has in a run.
const LIVES_MAX: u64 = 1 << 20;

/// The databases of a cluster by their groups: each is in one.
pub type Databases = Vec<(GroupId, &'static str)>;

/// A node. Clones are the same node.
#[derive(Clone)]
pub struct SqlNode {
    id: NodeId,
    stores: Stores,
    hosts: Hosts,
    system: Arc<SystemSnapshot>,
    life: Arc<Mutex<u64>>,
    gateway: Arc<Mutex<Option<Arc<Gateway<SqlExecutor>>>>>,
}

impl SqlNode {
    /// A node that is down.
    #[must_use]
    pub fn new(id: NodeId, databases: &Databases, hosts: Hosts, stores: Stores) -> Self {
        Self {
            id,
            stores,
            hosts,
            system: Arc::new(system(databases)),
            life: Arc::default(),
            gateway: Arc::default(),
        }
    }

    /// The stores of its groups.
    #[must_use]
    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// Where its clients' sessions begin; [`None`] while it is down.
    #[must_use]
    pub fn gateway(&self) -> Option<Arc<Gateway<SqlExecutor>>> {
        self.gateway.lock().clone()
    }
}

/// What the system group would say of databases that were made before the run.
fn system(databases: &Databases) -> SystemSnapshot {
    let owner = Oid::FIRST_USER;
    let role = RoleRecord {
        oid: owner,
        name: USER.to_owned(),
        superuser: true,
        login: true,
        create_database: true,
        create_role: true,
        verifier: None,
        connection_limit: -1,
        inherit: true,
        member_of: Vec::new(),
    };
    let record = |(number, (group, name)): (u32, &(GroupId, &str))| {
        let id = DatabaseId::new(Oid::new(owner.get() + number));
        let record = DatabaseRecord {
            id,
            name: (*name).to_owned(),
            group: *group,
            state: DatabaseState::Ready,
            owner,
            replicas: Vec::new(),
            token_key: TokenKey::new([1; 16]),
            acl: None,
        };
        (id, record)
    };
    SystemSnapshot {
        databases: (1..).zip(databases).map(record).collect(),
        roles: BTreeMap::from([(owner, role)]),
        ..SystemSnapshot::default()
    }
}

impl Machines for SqlNode {
    fn factory(&self, env: &Env) -> Arc<dyn MachineFactory> {
        let life = {
            let mut life = self.life.lock();
            *life += 1;
            *life
        };
        let incarnation = Incarnation::new(self.id.get() * LIVES_MAX + life);
        let system = Arc::clone(&self.system);
        let port =
            Port { node: self.id, incarnation, system: Arc::clone(&system), stores: self.stores.clone() };
        let virtuals = Arc::new(VirtualRegistry::builtin());
        let executors = env.clone();
        let memory = Arc::new(WorkMemory::new(WORK_MEMORY_BYTES));
        let make = Box::new(move |_: &DatabaseRecord, store: &KvStore| {
            let database = Database::new(
                store.clone(),
                Arc::clone(&virtuals),
                executors.rng().u64(),
                Arc::clone(&memory),
            );
            let system = Arc::clone(&system);
            Arc::new(SqlExecutor::new(database, Arc::new(move || Arc::clone(&system)), executors.clone()))
        });
        let gateway = Gateway::new(env.clone(), Arc::new(port), make);
        let gateway = Arc::new(gateway.with_peer(self.hosts.peer(self.id, env)));
        let host = Arc::new(Host::new(env.clone(), Arc::clone(&gateway), SESSION_COUNT_MAX));
        self.hosts.attach(self.id, env, host);
        *self.gateway.lock() = Some(gateway);
        self.stores.factory(env)
    }

    fn crash(&self) {
        self.hosts.detach(self.id);
        let dead = self.gateway.lock().take();
        drop(dead);
        self.stores.crash();
    }

    fn leads(&self, group: GroupId) -> Option<Term> {
        self.stores.leads(group)
    }

    fn applied(&self, group: GroupId) -> Option<(LogPosition, u128)> {
        self.stores.applied(group)
    }

    fn flushed(&self, group: GroupId) -> Option<LogPosition> {
        self.stores.flushed(group)
    }
}

/// The cluster as the sessions of one life of a node see it.
struct Port {
    node: NodeId,
    incarnation: Incarnation,
    system: Arc<SystemSnapshot>,
    stores: Stores,
}

impl ClusterPort for Port {
    fn node(&self) -> NodeId {
        self.node
    }

    fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    fn system(&self) -> Arc<SystemSnapshot> {
        Arc::clone(&self.system)
    }

    fn store(&self, database: DatabaseId) -> Option<KvStore> {
        self.stores.store(self.system.databases.get(&database)?.group)
    }

    fn placement(&self) -> Vec<NodeId> {
        Vec::new()
    }

    fn execute_system(&self, _: SystemCommand) -> BoxFuture<'_, Result<(), SqlError>> {
        let error =
            SqlError::new(SqlState::CANNOT_CONNECT_NOW, "the databases of this cluster stay as they are");
        async move { Err(error) }.boxed()
    }

    fn password_verifier(&self, password: &str) -> Result<String, SqlError> {
        Ok(password.to_owned())
    }
}
