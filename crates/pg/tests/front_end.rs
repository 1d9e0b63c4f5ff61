//! The front end over real sockets: logins, settings, limits, shutdown, malformed frames.
//!
//! The executor refuses everything, so only what the session runs itself is asked here.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::BoxFuture;
use rustydb_env::Env;
use rustydb_pg::access::{AccessRule, AddressRange, Method};
use rustydb_pg::scram::Verifier;
use rustydb_pg::{Server, ServerConfig};
use rustydb_sql::error::SqlError;
use rustydb_sql::gateway::{ClusterPort, Gateway};
use rustydb_sql::memory::HeldMemory;
use rustydb_sql::session::executor::{Context, Executor, Fetched, ResultFormats, Shape, ast};
use rustydb_sql::session::request::Bind;
use rustydb_sql::session::token::TokenKey;
use rustydb_sql::system::{DatabaseRecord, DatabaseState, RoleRecord, SystemCommand, SystemSnapshot};
use rustydb_txn::{KvStore, LocalKv, Transaction};
use rustydb_types::ids::{DatabaseId, GroupId, Incarnation, NodeId, Oid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::NoTls;

struct Refusing;

impl Executor for Refusing {
    type Plan = Shape;
    type Cursor = ();
    type CopyIn = ();

    async fn objects_of(&self, _: Oid) -> Result<Vec<String>, SqlError> {
        Ok(Vec::new())
    }

    fn hold(&self, _: usize) -> Result<HeldMemory, SqlError> {
        Ok(HeldMemory::default())
    }
    async fn plan(
        &self,
        _: &mut Transaction,
        _: &Context,
        _: &ast::Statement,
        _: &[u32],
    ) -> Result<Arc<Shape>, SqlError> {
        Err(SqlError::not_supported("no tables here"))
    }
    async fn lock(&self, _: &mut Transaction, _: &Context, _: &Shape) -> Result<bool, SqlError> {
        Ok(true)
    }
    fn shape<'p>(&self, plan: &'p Shape) -> &'p Shape {
        plan
    }
    fn open(&self, _: &Context, _: &Arc<Shape>, _: &Bind<'_>) -> Result<(), SqlError> {
        Ok(())
    }
    async fn fetch(
        &self,
        _: &mut Transaction,
        _: &Context,
        (): &mut (),
        _: usize,
        _: &ResultFormats,
        _: &mut BytesMut,
    ) -> Result<Fetched, SqlError> {
        Ok(Fetched { rows: 0, is_done: true })
    }
    async fn keep(&self, _: &mut Transaction, _: &Context, (): &mut ()) -> Result<(), SqlError> {
        Ok(())
    }
    fn kept_count(&self, (): &()) -> Option<usize> {
        None
    }
    fn seek(&self, (): &mut (), _: usize) {}
    fn has_changed(&self, (): &()) -> bool {
        false
    }

    fn complete(&self, (): &(), _: &mut BytesMut) {}
    async fn copy_begin(&self, _: &mut Transaction, _: &Context, _: &Arc<Shape>) -> Result<(), SqlError> {
        Ok(())
    }
    async fn copy_data(
        &self,
        _: &mut Transaction,
        _: &Context,
        (): &mut (),
        _: &[u8],
    ) -> Result<(), SqlError> {
        Ok(())
    }
    async fn copy_end(&self, _: &mut Transaction, _: &Context, (): ()) -> Result<u64, SqlError> {
        Ok(0)
    }
}

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
        Box::pin(async { Ok(()) })
    }
    fn password_verifier(&self, password: &str) -> Result<String, SqlError> {
        Ok(Verifier::from_password(password, 4096).unwrap().to_string())
    }
}

struct Front {
    server: Server<Refusing>,
    port: u16,
    _dir: tempfile::TempDir,
}

async fn front(method: Method, connections: usize) -> Front {
    let env = Env::os();
    let dir = tempfile::tempdir().unwrap();
    let store = LocalKv::in_memory(&env, dir.path().to_owned(), Duration::ZERO).unwrap();
    let mut system = SystemSnapshot::default();
    let role = RoleRecord {
        oid: Oid::new(10),
        name: "ann".into(),
        superuser: false,
        login: true,
        create_database: false,
        create_role: false,
        verifier: Some(Verifier::from_password("secret", 4096).unwrap().to_string()),
        connection_limit: -1,
        inherit: true,
        member_of: Vec::new(),
    };
    system.roles.insert(role.oid, role);
    let id = DatabaseId::new(Oid::new(5));
    let record = DatabaseRecord {
        id,
        name: "ann".into(),
        group: GroupId::new(2),
        state: DatabaseState::Ready,
        owner: Oid::new(10),
        replicas: vec![NodeId::new(1)],
        token_key: TokenKey::new([1; 16]),
        acl: None,
    };
    system.databases.insert(id, record);
    let cluster = Arc::new(OneNode { system: Arc::new(system), store });
    let gateway = Gateway::new(env.clone(), cluster, Box::new(|_, _| Arc::new(Refusing)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = ServerConfig {
        connection_count_max: connections,
        superuser_count_reserved: 0,
        message_size_max: 1 << 20,
        authentication_timeout: Duration::from_secs(30),
        settings: Vec::new(),
        rules: vec![AccessRule {
            from: AddressRange::All,
            role: None,
            database: None,
            tls_only: false,
            method,
        }],
        tls: None,
    };
    Front { server: Server::start(&env, config, listener, Arc::new(gateway)).unwrap(), port, _dir: dir }
}

async fn connect(front: &Front, password: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let config = format!("host=127.0.0.1 port={} user=ann password={password}", front.port);
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn refusal(front: &Front, password: &str) -> String {
    match connect(front, password).await {
        Ok(_) => panic!("let in"),
        Err(error) => code(&error).to_owned(),
    }
}

fn code(error: &tokio_postgres::Error) -> &str {
    error.code().map_or("none", |code| code.code())
}

#[tokio::test]
async fn a_driver_logs_in_with_its_password_and_talks() {
    let front = front(Method::Scram, 10).await;
    assert_eq!(refusal(&front, "wrong").await, "28P01");
    let client = connect(&front, "secret").await.unwrap();
    client.batch_execute("begin; set local work_mem = '1MB'; savepoint a; commit").await.unwrap();
    let rows = client.query("show server_version", &[]).await.unwrap();
    assert_eq!(rows[0].get::<_, &str>(0), "15.0");
    let refused = client.batch_execute("select 1").await.unwrap_err();
    assert_eq!(code(&refused), "0A000");
    assert_eq!(front.server.metrics().authentication_failures_total.get(), 1);
}

#[tokio::test]
async fn one_client_too_many_is_told_and_shutdown_ends_the_rest() {
    let front = front(Method::Trust, 1).await;
    let client = connect(&front, "x").await.unwrap();
    assert_eq!(refusal(&front, "x").await, "53300");
    front.server.shutdown(Duration::from_secs(5)).await;
    assert!(client.batch_execute("begin").await.is_err());
}

#[tokio::test]
async fn psql_connects() {
    let front = front(Method::Trust, 10).await;
    let port = front.port.to_string();
    let output = tokio::process::Command::new("psql")
        .args(["-X", "-h", "127.0.0.1", "-p", &port, "-U", "ann", "-At"])
        .args(["-c", "show timezone", "-c", "show server_encoding"])
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "UTC\nUTF8\n", "{output:?}");
}

/// Reads to the end and says whether the text occurs.
async fn answer_has(mut stream: TcpStream, text: &str) -> bool {
    let mut all = Vec::new();
    let _reset = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut all)).await.unwrap();
    String::from_utf8_lossy(&all).contains(text)
}

#[tokio::test]
async fn malformed_frames_end_their_connection_and_no_other() {
    let front = front(Method::Trust, 10).await;
    let steady = connect(&front, "x").await.unwrap();
    let start = b"\0\0\0\x12\0\x03\0\0user\0ann\0\0";
    let frames: [&[u8]; 6] = [
        b"Q\0\0\0\x03",
        b"Q\xff\xff\xff\xff",
        b"Q\x7f\xff\xff\xff",
        b"!\0\0\0\x04",
        b"Q\0\0\0\x05x",
        b"B\0\0\0\x05\0",
    ];
    for bad in frames {
        let mut stream = TcpStream::connect(("127.0.0.1", front.port)).await.unwrap();
        stream.write_all(start).await.unwrap();
        stream.write_all(bad).await.unwrap();
        assert!(answer_has(stream, "C08P01").await, "{bad:?}");
    }
    let starts: [&[u8]; 4] =
        [b"\0\0\0\x07", b"\xff\xff\xff\xff", b"\0\0\0\x08\0\x02\0\0", b"\0\0\0\x09\0\x03\0\0x"];
    for bad in starts {
        let mut stream = TcpStream::connect(("127.0.0.1", front.port)).await.unwrap();
        stream.write_all(bad).await.unwrap();
        assert!(answer_has(stream, "FATAL").await, "{bad:?}");
    }
    // An xorshift generator with a fixed seed: bytes that mean nothing.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..50 {
        let mut noise = start.to_vec();
        for _ in 0..64 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            noise.extend(state.to_le_bytes());
        }
        let mut stream = TcpStream::connect(("127.0.0.1", front.port)).await.unwrap();
        stream.write_all(&noise).await.unwrap();
        // The server may have closed already, which is an answer too.
        let _closed = stream.shutdown().await;
        answer_has(stream, "").await;
    }
    steady.batch_execute("begin; commit").await.unwrap();
}
