//! The SQL logic tests of `tests/slt`, whose answers were recorded from PostgreSQL 15, over one session and a local
//! store: no network, no consensus. All differences of a file are shown, not the first alone.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::BoxFuture;
use parking_lot::RwLock;
use rustydb_env::Env;
use rustydb_txn::{KvStore, LocalKv};
use rustydb_types::ids::{DatabaseId, Incarnation, NodeId, Oid, SessionId};

use super::database::Database;
use super::service::SqlExecutor;
use super::spill::SpillArea;
use crate::catalog::virtual_table::VirtualRegistry;
use crate::error::{SqlError, SqlState};
use crate::gateway::{ClusterPort, SessionContext, SessionKey};
use crate::memory::WorkMemory;
use crate::session::core::{Session, SessionParts};
use crate::session::interrupt::Interrupts;
use crate::session::response::Messages;
use crate::session::sink::{ResponseSink, SinkClosed};
use crate::session::token::TokenKey;
use crate::system::{SystemCommand, SystemSnapshot};

/// A cluster of one node.
struct Alone(Arc<RwLock<Arc<SystemSnapshot>>>);

impl ClusterPort for Alone {
    fn node(&self) -> NodeId {
        NodeId::new(1)
    }
    fn incarnation(&self) -> Incarnation {
        Incarnation::new(1)
    }
    fn system(&self) -> Arc<SystemSnapshot> {
        Arc::clone(&self.0.read())
    }
    fn store(&self, _: DatabaseId) -> Option<KvStore> {
        None
    }
    fn placement(&self) -> Vec<NodeId> {
        Vec::new()
    }
    fn execute_system(&self, command: SystemCommand) -> BoxFuture<'_, Result<(), SqlError>> {
        let mut system = self.0.read().as_ref().clone();
        let decided = command
            .decide(&system)
            .map_err(|error| SqlError::new(SqlState::from_code(error.sqlstate()), error.to_string()));
        let done = decided.map(|changes| {
            for (key, value) in changes {
                match value {
                    Some(value) => system.absorb(&key, &value).unwrap(),
                    // What these tests remove are roles.
                    None => {
                        let number = u32::from_be_bytes(*key.last_chunk().unwrap());
                        system.roles.remove(&Oid::new(number)).unwrap();
                    }
                }
            }
            *self.0.write() = Arc::new(system);
        });
        Box::pin(std::future::ready(done))
    }
    fn password_verifier(&self, _: &str) -> Result<String, SqlError> {
        Ok("verifier".into())
    }
}

#[derive(Default)]
struct Kept(BytesMut);

impl ResponseSink for Kept {
    fn buffer(&mut self) -> &mut BytesMut {
        &mut self.0
    }
    async fn flush(&mut self) -> Result<(), SinkClosed> {
        Ok(())
    }
    async fn before_commit(
        &mut self,
        _: rustydb_types::ids::RequestId,
        _: crate::session::response::TransactionStatus,
        _: &[u8],
        _: crate::gateway::frame::StateChanges,
    ) -> Result<(), SinkClosed> {
        Ok(())
    }
}

/// One database with as many sessions as a file names.
struct World {
    env: Env,
    store: LocalKv,
    executor: Arc<SqlExecutor>,
    system: Arc<RwLock<Arc<SystemSnapshot>>>,
    sessions: BTreeMap<String, Session<SqlExecutor>>,
    _dir: tempfile::TempDir,
}

impl World {
    fn new(spills: bool) -> Self {
        let env = Env::os();
        let dir = tempfile::tempdir().unwrap();
        let store = LocalKv::in_memory(&env, dir.path().to_owned(), Duration::ZERO).unwrap();
        let mut system = SystemSnapshot::default();
        let bootstrap = SystemCommand::Bootstrap {
            role: "postgres".into(),
            database: "postgres".into(),
            nodes: Vec::new(),
            token_key: TokenKey::new([1; 16]),
        };
        for (key, value) in bootstrap.decide(&system).unwrap() {
            system.absorb(&key, &value.unwrap()).unwrap();
        }
        let system = Arc::new(RwLock::new(Arc::new(system)));
        let source = Arc::clone(&system);
        let area = SpillArea::open(env.disk(), &dir.path().join("tmp")).unwrap();
        let memory = WorkMemory::new(1 << 30).with_spill(area);
        // Then hardly a row is kept.
        let memory = Arc::new(if spills { memory.spilling_at(500) } else { memory });
        let database = Database::new(store.kv(), Arc::new(VirtualRegistry::builtin()), 1, memory);
        let executor =
            Arc::new(SqlExecutor::new(database, Arc::new(move || Arc::clone(&source.read())), env.clone()));
        Self { env, store, executor, system, sessions: BTreeMap::new(), _dir: dir }
    }

    fn session(&mut self, name: &str) -> &mut Session<SqlExecutor> {
        let number = self.sessions.len() as u64 + 1;
        let (env, store, executor, system) = (&self.env, &self.store, &self.executor, &self.system);
        self.sessions.entry(name.to_owned()).or_insert_with(|| {
            let parts = SessionParts {
                env: env.clone(),
                cluster: Arc::new(Alone(Arc::clone(system))),
                executor: Arc::clone(executor),
                store: store.kv(),
                database: DatabaseId::new(Oid::new(5)),
                token_key: TokenKey::new([1; 16]),
                key: SessionKey { incarnation: Incarnation::new(1), session: SessionId::new(number) },
                resolver: Arc::new(|_, _| Box::pin(async { None })),
                interrupts: Arc::new(Interrupts::default()),
                activities: Arc::default(),
            };
            let context = SessionContext {
                user: "postgres".into(),
                database: "postgres".into(),
                ..SessionContext::default()
            };
            Session::new(parts, &context).unwrap()
        })
    }

    /// What a session answers to a text: rows, or the SQLSTATE, place and message of its error.
    async fn query(&mut self, session: &str, sql: &str) -> Result<Vec<String>, String> {
        let mut sink = Kept::default();
        let body = [sql.as_bytes(), b"\0"].concat();
        self.session(session).message(b'Q', &body, &mut sink).await.map_err(|end| format!("{end:?}"))?;
        let mut rows = Vec::new();
        for (tag, body) in Messages::new(&sink.0) {
            match tag {
                b'D' => rows.push(row(body)),
                b'E' => {
                    let fields: Vec<String> = body
                        .split(|byte| *byte == 0)
                        .map(|field| String::from_utf8_lossy(field).into())
                        .collect();
                    let field = |tag: char| {
                        fields.iter().find_map(|field| field.strip_prefix(tag)).unwrap_or_default()
                    };
                    let place = match field('P') {
                        "" => String::new(),
                        place => format!(" at {place}"),
                    };
                    return Err(format!("SQLSTATE {}{place} {}", field('C'), field('M')));
                }
                _ => {}
            }
        }
        Ok(rows)
    }
}

/// A DataRow as the files write it.
fn row(body: &[u8]) -> String {
    let mut rest = &body[2..];
    let mut values = Vec::new();
    while !rest.is_empty() {
        let size = i32::from_be_bytes(rest[..4].try_into().unwrap());
        rest = &rest[4..];
        if size < 0 {
            values.push("NULL".to_owned());
            continue;
        }
        let text = String::from_utf8_lossy(&rest[..size as usize]).into_owned();
        rest = &rest[size as usize..];
        values.push(if text.is_empty() {
            "(empty)".to_owned()
        } else {
            text.replace('\n', "\\n").replace(' ', "\u{b7}")
        });
    }
    values.join(" ")
}

/// Runs a file and gives its differences.
async fn run(path: &Path, spills: bool) -> Vec<String> {
    let mut world = World::new(spills);
    let text = std::fs::read_to_string(path).unwrap();
    let mut session = "default".to_owned();
    let mut differences = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["connection", name] => session = (*name).to_owned(),
            ["statement" | "query", rest @ ..] => {
                let mut sql = String::new();
                let mut expected = None;
                while let Some((_, line)) = lines.next_if(|(_, line)| !line.is_empty()) {
                    if line == "----" {
                        expected = Some(Vec::new());
                    } else if let Some(expected) = &mut expected {
                        expected.push(line.trim_end().to_owned());
                    } else {
                        sql.push_str(line);
                        sql.push('\n');
                    }
                }
                let mut answer = world.query(&session, sql.trim_end()).await;
                session = "default".to_owned();
                // Groups come in another order from files.
                if rest.contains(&"rowsort") || spills && !sql.to_lowercase().contains("order by") {
                    if let Ok(rows) = &mut answer {
                        rows.sort();
                    }
                    if let Some(expected) = &mut expected {
                        expected.sort();
                    }
                }
                let fits = match (&answer, rest) {
                    (Err(error), ["error", state @ ..]) => {
                        let state = state.join(" ");
                        let state = state.trim_matches(|c| "^$()".contains(c)).replace("SQLSTATE ", "");
                        error.starts_with(&format!("SQLSTATE {state} "))
                    }
                    (_, ["error", ..]) | (Err(_), _) => false,
                    (Ok(rows), _) => expected.as_ref().is_none_or(|expected| rows == expected),
                };
                if !fits {
                    let wanted = expected.map_or_else(|| rest.join(" "), |rows| rows.join("\n    "));
                    let got = match answer {
                        Ok(rows) => rows.join("\n    "),
                        Err(error) => error,
                    };
                    differences.push(format!(
                        "{}:{}: {sql}  wanted:\n    {wanted}\n  got:\n    {got}\n",
                        path.display(),
                        number + 1
                    ));
                }
            }
            _ => {}
        }
    }
    differences
}

#[tokio::test]
async fn files_give_the_answers_of_postgresql() {
    compare_files(false).await;
}

#[tokio::test]
async fn files_give_the_same_answers_when_rows_go_to_disk() {
    compare_files(true).await;
}

async fn compare_files(spills: bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/slt");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "slt"));
    files.sort();
    assert!(!files.is_empty());
    let mut differences = Vec::new();
    for file in files {
        differences.extend(run(&file, spills).await);
    }
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
}
