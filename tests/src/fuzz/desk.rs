//! A whole SQL node in this process without network and disk: real sessions over a store in memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rustydb_env::Env;
use rustydb_sql::catalog::virtual_table::VirtualRegistry;
use rustydb_sql::error::{SqlError, SqlState};
use rustydb_sql::exec::{Database, service::SqlExecutor};
use rustydb_sql::gateway::frame::StateChanges;
use rustydb_sql::gateway::{ClusterPort, Gateway, GatewaySession, Host, SessionContext};
use rustydb_sql::memory::WorkMemory;
use rustydb_sql::session::core::SessionEnd;
use rustydb_sql::session::interrupt::Interrupts;
use rustydb_sql::session::response::TransactionStatus;
use rustydb_sql::session::sink::{ResponseSink, SinkClosed};
use rustydb_sql::session::token::TokenKey;
use rustydb_sql::system::{DatabaseRecord, DatabaseState, RoleRecord, SystemCommand, SystemSnapshot};
use rustydb_txn::{KvStore, LocalKv};
use rustydb_types::ids::{DatabaseId, GroupId, Incarnation, NodeId, Oid, RequestId};

use super::wire;

/// What all statements of the desk may keep in memory.
const WORK_MEMORY_BYTES: usize = 32 << 20;
/// After so many sessions the node is made anew, so that what statements leave in its store does not pile up.
const SESSIONS_PER_NODE: u64 = 2000;
/// Longest time that one conversation may take, beyond which it hangs.
const CONVERSATION_LIMIT: Duration = Duration::from_secs(20);

/// Stack of the threads that run statements, as in a server.
const STACK_BYTES: usize = 32 << 20;

struct OneNode {
    system: Arc<SystemSnapshot>,
    store: LocalKv,
}

impl ClusterPort for OneNode {
    fn node(&self) -> NodeId {
        NodeId::new(1)
    }
    fn incarnation(&self) -> Incarnation {
        Incarnation::new(1)
    }
    fn system(&self) -> Arc<SystemSnapshot> {
        Arc::clone(&self.system)
    }
    fn store(&self, _: DatabaseId) -> Option<KvStore> {
        Some(self.store.kv())
    }
    fn placement(&self) -> Vec<NodeId> {
        Vec::new()
    }
    fn execute_system(&self, _: SystemCommand) -> BoxFuture<'_, Result<(), SqlError>> {
        async { Err(SqlError::new(SqlState::CANNOT_CONNECT_NOW, "databases stay as they are")) }.boxed()
    }
    fn password_verifier(&self, password: &str) -> Result<String, SqlError> {
        Ok(password.to_owned())
    }
}

/// A sink that counts and forgets.
#[derive(Default)]
struct Drain {
    buffer: BytesMut,
    bytes: u64,
}

impl ResponseSink for Drain {
    fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }
    async fn flush(&mut self) -> Result<(), SinkClosed> {
        self.bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
    async fn before_commit(
        &mut self,
        _: RequestId,
        _: TransactionStatus,
        _: &[u8],
        _: StateChanges,
    ) -> Result<(), SinkClosed> {
        Ok(())
    }
}

struct Node {
    gateway: Arc<Gateway<SqlExecutor>>,
    host: Host<SqlExecutor>,
    _dir: tempfile::TempDir,
}

/// The desk: a node, and a session that is opened again whenever it ends.
pub struct Desk {
    runtime: tokio::runtime::Runtime,
    node: Node,
    session: Option<GatewaySession<SqlExecutor>>,
    sessions: u64,
    /// Messages that sessions were given.
    pub messages: u64,
}

fn node(env: &Env) -> Node {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let store = LocalKv::in_memory(env, dir.path().to_owned(), Duration::ZERO).expect("a store in memory");
    let mut system = SystemSnapshot::default();
    let owner = Oid::FIRST_USER;
    let role = RoleRecord {
        oid: owner,
        name: "postgres".into(),
        superuser: true,
        login: true,
        create_database: true,
        create_role: true,
        verifier: None,
        connection_limit: -1,
        inherit: true,
        member_of: Vec::new(),
    };
    system.roles.insert(owner, role);
    let id = DatabaseId::new(Oid::new(owner.get() + 1));
    let record = DatabaseRecord {
        id,
        name: "postgres".into(),
        group: GroupId::new(2),
        state: DatabaseState::Ready,
        owner,
        replicas: vec![NodeId::new(1)],
        token_key: TokenKey::new([1; 16]),
        acl: None,
    };
    system.databases.insert(id, record);
    let system = Arc::new(system);
    let cluster = Arc::new(OneNode { system: Arc::clone(&system), store });
    let virtuals = Arc::new(VirtualRegistry::builtin());
    let memory = Arc::new(WorkMemory::new(WORK_MEMORY_BYTES));
    let executors = env.clone();
    let make = Box::new(move |_: &DatabaseRecord, store: &KvStore| {
        let database =
            Database::new(store.clone(), Arc::clone(&virtuals), executors.rng().u64(), Arc::clone(&memory));
        let system = Arc::clone(&system);
        Arc::new(SqlExecutor::new(database, Arc::new(move || Arc::clone(&system)), executors.clone()))
    });
    let gateway = Arc::new(Gateway::new(env.clone(), cluster, make));
    let host = Host::new(env.clone(), Arc::clone(&gateway), 100);
    Node { gateway, host, _dir: dir }
}

impl Default for Desk {
    fn default() -> Self {
        Self::new()
    }
}

impl Desk {
    /// A fresh node with a table `t`.
    ///
    /// # Panics
    /// The process has no threads or no folder for it.
    #[must_use]
    pub fn new() -> Desk {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()
            .expect("a runtime for the test");
        let node = node(&Env::os_on(runtime.handle().clone()));
        let mut desk = Desk { runtime, node, session: None, sessions: 0, messages: 0 };
        desk.prepare();
        desk
    }

    fn prepare(&mut self) {
        for sql in [
            "CREATE TABLE t (a int PRIMARY KEY, b text)",
            "INSERT INTO t VALUES (1, 'x'), (2, 'y'), (3, 'z')",
        ] {
            self.converse(&crate::raw::query(sql));
        }
    }

    fn open(&mut self) -> GatewaySession<SqlExecutor> {
        self.sessions += 1;
        if self.sessions.is_multiple_of(SESSIONS_PER_NODE) {
            self.node = node(&Env::os_on(self.runtime.handle().clone()));
            self.prepare();
        }
        let context = SessionContext {
            user: "postgres".into(),
            database: "postgres".into(),
            backend_pid: 1,
            settings: vec![
                ("statement_timeout".into(), "100".into()),
                ("lock_timeout".into(), "50".into()),
                ("work_mem".into(), "1MB".into()),
            ],
            ..SessionContext::default()
        };
        let gateway = &self.node.gateway;
        let connecting = gateway.connect(gateway.next_session(), &context, Arc::new(Interrupts::default()));
        self.runtime.block_on(connecting).expect("a session at a healthy node")
    }

    /// Gives one conversation to the session. It must come to its end; whether the session does is its own matter.
    ///
    /// # Panics
    /// The conversation hangs.
    pub fn converse(&mut self, input: &[u8]) {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.open(),
        };
        let mut given = 0;
        let talking = async {
            let mut sink = Drain::default();
            let sync = raw_sync();
            for (tag, body) in wire::messages(input).chain(wire::messages(&sync)) {
                given += 1;
                let end = session.message(tag, body, &mut sink).await;
                let _counted = sink.flush().await;
                match end {
                    Ok(()) => {}
                    Err(SessionEnd::Goodbye | SessionEnd::Closed | SessionEnd::Fatal(_)) => return None,
                }
            }
            Some(session)
        };
        // On a stack as a server's threads have it.
        let runtime = &self.runtime;
        let talked = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, || {
                runtime.block_on(async { tokio::time::timeout(CONVERSATION_LIMIT, talking).await })
            });
            thread.expect("a thread for the test").join().expect("a session panicked")
        });
        self.session = talked.expect("a conversation hangs");
        self.messages += given;
    }

    /// Opens a session as another node's gateway would, with whatever context and frames it sends. Gives how many
    /// frames were taken.
    ///
    /// # Panics
    /// The host neither answers nor ends the session.
    pub fn host(&mut self, context: &[u8], frames: &[Bytes]) -> u64 {
        use rustydb_sql::gateway::peer::{SessionKey, SessionOpen};
        use rustydb_types::ids::SessionId;
        self.sessions += 1;
        let open = SessionOpen {
            group: GroupId::new(2),
            key: SessionKey { incarnation: Incarnation::new(9), session: SessionId::new(self.sessions) },
            context: Bytes::copy_from_slice(context),
        };
        let host = &self.node.host;
        let talking = async {
            let Ok(mut remote) = host.open(open).await else { return 0 };
            let mut taken = 0;
            for frame in frames {
                if remote.requests.send(frame.clone()).await.is_err() {
                    break;
                }
                taken += 1;
            }
            // The end of the requests is the end of the session.
            drop(remote.requests);
            while remote.responses.recv().await.is_some() {}
            taken
        };
        let limit = CONVERSATION_LIMIT;
        self.runtime
            .block_on(async { tokio::time::timeout(limit, talking).await })
            .expect("a hosted session neither answers nor ends")
    }
}

fn raw_sync() -> Vec<u8> {
    crate::raw::message(b'S', &[])
}
