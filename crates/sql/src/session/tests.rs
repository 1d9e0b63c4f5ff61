//! The protocol alone: a session over a real store and an executor that knows three statements.
//!
//! `SELECT n` answers n rows, `INSERT ...` writes a row, `DELETE ...` fails.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use rustydb_env::Env;
use rustydb_txn::{KvStore, LocalKv, LockWait, RowLock, Transaction};
use rustydb_types::ids::{DatabaseId, Incarnation, NodeId, Oid, RequestId, SessionId};
use sqlparser::ast;

use super::core::{Session, SessionEnd, SessionParts};
use super::executor::{Column, Context, Dialogue, Executor, Fetched, ResultFormats, Shape};
use super::interrupt::Interrupts;
use super::request::Bind;
use super::response::{self, Messages, RowWriter, TransactionStatus};
use super::sink::{ResponseSink, SinkClosed};
use crate::error::{SqlError, SqlState};
use crate::gateway::frame::StateChanges;
use crate::gateway::{ClusterPort, SessionContext, SessionKey};
use crate::memory::{HeldMemory, WorkMemory};
use crate::session::token::TokenKey;
use crate::system::{SystemCommand, SystemSnapshot};

struct Scripted {
    memory: Arc<WorkMemory>,
}

struct Script {
    shape: Shape,
    rows: usize,
    fails: bool,
}

struct Run {
    script: Arc<Script>,
    given: usize,
    is_kept: bool,
}

impl Executor for Scripted {
    type Plan = Script;
    type Cursor = Run;
    type CopyIn = u64;

    async fn objects_of(&self, _: Oid) -> Result<Vec<String>, SqlError> {
        Ok(Vec::new())
    }

    fn hold(&self, size_bytes: usize) -> Result<HeldMemory, SqlError> {
        self.memory.texts().hold(size_bytes)
    }

    async fn plan(
        &self,
        _: &mut Transaction,
        _: &Context,
        statement: &ast::Statement,
        _: &[u32],
    ) -> Result<Arc<Script>, SqlError> {
        let text = statement.to_string();
        let mut shape = Shape {
            columns: Vec::new(),
            param_types: Vec::new(),
            dialogue: Dialogue::Rows,
            has_rows: text.starts_with("SELECT"),
            is_read_only: text.starts_with("SELECT"),
            name: "INSERT",
        };
        let mut rows = 0;
        if let Some(count) = text.strip_prefix("SELECT ") {
            rows = count.parse().map_err(|_| SqlError::new(SqlState::UNDEFINED_TABLE, "no such table"))?;
            shape.columns.push(Column {
                name: "n".into(),
                table: 0,
                number: 0,
                type_oid: 23,
                type_size: 4,
                modifier: -1,
            });
        } else if text.starts_with("COPY") {
            shape.dialogue = Dialogue::CopyIn(1, crate::session::Format::Text);
        }
        Ok(Arc::new(Script { shape, rows, fails: text.starts_with("DELETE") }))
    }

    async fn lock(&self, _: &mut Transaction, _: &Context, _: &Script) -> Result<bool, SqlError> {
        Ok(true)
    }

    fn shape<'p>(&self, plan: &'p Script) -> &'p Shape {
        &plan.shape
    }

    fn open(&self, _: &Context, plan: &Arc<Script>, _: &Bind<'_>) -> Result<Run, SqlError> {
        Ok(Run { script: Arc::clone(plan), given: 0, is_kept: false })
    }

    async fn fetch(
        &self,
        txn: &mut Transaction,
        _: &Context,
        run: &mut Run,
        rows_max: usize,
        _: &ResultFormats,
        out: &mut BytesMut,
    ) -> Result<Fetched, SqlError> {
        if run.script.fails {
            return Err(SqlError::new(SqlState::DIVISION_BY_ZERO, "division by zero"));
        }
        if run.script.shape.columns.is_empty() {
            let key = Bytes::from_static(b"key");
            txn.lock_row(&key, RowLock::ForUpdate, LockWait::Forever).await.unwrap();
            txn.put(key, Bytes::from_static(b"value")).unwrap();
            return Ok(Fetched { rows: 0, is_done: true });
        }
        let rows = rows_max.min(run.script.rows - run.given);
        for _ in 0..rows {
            let mut row = RowWriter::begin(out, 1);
            row.value(|out| {
                out.put_slice(b"7");
                Ok::<(), SqlError>(())
            })?;
            row.finish();
        }
        run.given += rows;
        Ok(Fetched { rows, is_done: run.given == run.script.rows && rows < rows_max })
    }

    fn has_changed(&self, run: &Run) -> bool {
        run.script.shape.columns.is_empty()
    }

    fn complete(&self, run: &Run, out: &mut BytesMut) {
        let tag = if run.script.shape.columns.is_empty() {
            "INSERT 0 1".into()
        } else {
            format!("SELECT {}", run.given)
        };
        response::command_complete(out, &tag);
    }

    async fn keep(&self, _: &mut Transaction, _: &Context, run: &mut Run) -> Result<(), SqlError> {
        run.is_kept = true;
        Ok(())
    }

    fn kept_count(&self, run: &Run) -> Option<usize> {
        run.is_kept.then_some(run.script.rows)
    }

    fn seek(&self, run: &mut Run, row: usize) {
        run.given = row;
    }

    async fn copy_begin(&self, _: &mut Transaction, _: &Context, _: &Arc<Script>) -> Result<u64, SqlError> {
        Ok(0)
    }

    async fn copy_data(
        &self,
        _: &mut Transaction,
        _: &Context,
        rows: &mut u64,
        _: &[u8],
    ) -> Result<(), SqlError> {
        *rows += 1;
        Ok(())
    }

    async fn copy_end(&self, _: &mut Transaction, _: &Context, rows: u64) -> Result<u64, SqlError> {
        Ok(rows)
    }
}

struct Alone;

impl ClusterPort for Alone {
    fn node(&self) -> NodeId {
        NodeId::new(1)
    }
    fn incarnation(&self) -> Incarnation {
        Incarnation::new(1)
    }
    fn system(&self) -> Arc<SystemSnapshot> {
        Arc::default()
    }
    fn store(&self, _: DatabaseId) -> Option<KvStore> {
        None
    }
    fn placement(&self) -> Vec<NodeId> {
        Vec::new()
    }
    fn execute_system(&self, _: SystemCommand) -> BoxFuture<'_, Result<(), SqlError>> {
        Box::pin(async { Ok(()) })
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
        _: RequestId,
        _: TransactionStatus,
        _: &[u8],
        _: StateChanges,
    ) -> Result<(), SinkClosed> {
        Ok(())
    }
}

struct Client {
    session: Session<Scripted>,
    sink: Kept,
    _store: LocalKv,
    _dir: tempfile::TempDir,
}

impl Client {
    fn new() -> Self {
        Self::with(&Arc::new(WorkMemory::new(1 << 30)))
    }

    fn with(memory: &Arc<WorkMemory>) -> Self {
        let env = Env::os();
        let dir = tempfile::tempdir().unwrap();
        let store = LocalKv::in_memory(&env, dir.path().to_owned(), Duration::ZERO).unwrap();
        let parts = SessionParts {
            env,
            cluster: Arc::new(Alone),
            executor: Arc::new(Scripted { memory: Arc::clone(memory) }),
            store: store.kv(),
            database: DatabaseId::new(Oid::new(5)),
            token_key: TokenKey::new([1; 16]),
            key: SessionKey { incarnation: Incarnation::new(1), session: SessionId::new(1) },
            resolver: Arc::new(|_, _| Box::pin(async { None })),
            interrupts: Arc::new(Interrupts::default()),
            activities: Arc::default(),
        };
        let session =
            Session::new(parts, &SessionContext { user: "u".into(), ..SessionContext::default() }).unwrap();
        Self { session, sink: Kept::default(), _store: store, _dir: dir }
    }

    /// Sends messages; gives the answers as letters, with the text of tags, errors and statuses.
    async fn send(&mut self, messages: &[(u8, &[u8])]) -> String {
        for (tag, body) in messages {
            match self.session.message(*tag, body, &mut self.sink).await {
                Ok(()) => {}
                Err(SessionEnd::Fatal(error)) => return format!("fatal {}", error.state()),
                Err(end) => return format!("{end:?}"),
            }
        }
        let out = std::mem::take(&mut self.sink.0);
        Messages::new(&out).map(|(tag, body)| describe(tag, body)).collect::<Vec<_>>().join(" ")
    }

    async fn query(&mut self, sql: &str) -> String {
        self.send(&[(b'Q', &[sql.as_bytes(), b"\0"].concat())]).await
    }
}

fn describe(tag: u8, body: &[u8]) -> String {
    let letter = char::from(tag);
    match tag {
        b'C' => format!("C[{}]", String::from_utf8_lossy(&body[..body.len() - 1])),
        b'Z' => format!("Z{}", char::from(body[0])),
        b'E' | b'N' => {
            let fields = String::from_utf8_lossy(body).into_owned();
            let code = fields.split('\0').find_map(|field| field.strip_prefix('C').map(str::to_owned));
            format!("{letter}{}", code.unwrap_or_default())
        }
        _ => letter.to_string(),
    }
}

const PARSE_SELECT_3: (u8, &[u8]) = (b'P', b"\0select 3\0\0\0");
const BIND: (u8, &[u8]) = (b'B', b"\0\0\0\0\0\0\0\0");
const SYNC: (u8, &[u8]) = (b'S', b"");

fn execute(rows: u8) -> [u8; 5] {
    [0, 0, 0, 0, rows]
}

#[tokio::test]
async fn a_query_answers_rows_tag_and_readiness() {
    let mut client = Client::new();
    assert_eq!(client.query("select 2").await, "T D D C[SELECT 2] ZI");
    assert_eq!(client.query("").await, "I ZI");
    assert_eq!(client.query("insert into t values (1)").await, "C[INSERT 0 1] ZI");
    assert_eq!(client.query("selec").await, "E42601 ZI");
    assert_eq!(client.query("select 1; select x; select 1").await, "T D C[SELECT 1] E42P01 ZI");
    assert_eq!(client.query("show server_version").await, "T D C[SHOW] ZI");
}

#[tokio::test]
async fn what_is_made_of_texts_is_bounded_for_all_sessions_together() {
    // Half of it for texts: two of those below, and no third one.
    let memory = Arc::new(WorkMemory::new(6 << 20));
    let used = || memory.texts().used_bytes();
    let (mut one, mut other) = (Client::with(&memory), Client::with(&memory));
    let values = vec!["1"; 1500].join(", ");
    let insert = format!("insert into t values ({values})");
    let parse = |name: &str| format!("{name}\0{insert}\0\0\0").into_bytes();
    assert_eq!(one.send(&[(b'P', &parse("a")), SYNC]).await, "1 ZI");
    let kept = used();
    assert!(kept > 3000 * 500, "{kept}");
    assert_eq!(one.send(&[(b'P', &parse("b")), SYNC]).await, "1 ZI");
    // Neither to be kept nor to be run at once; and the sessions go on, with what is short.
    assert_eq!(other.send(&[(b'P', &parse("")), SYNC]).await, "E53200 ZI");
    assert_eq!(other.query(&insert).await, "E53200 ZI");
    assert_eq!(other.query("insert into t values (1)").await, "C[INSERT 0 1] ZI");
    assert_eq!(one.query("deallocate a").await, "C[DEALLOCATE] ZI");
    assert_eq!(other.query(&insert).await, "C[INSERT 0 1] ZI");
    assert_eq!(other.query(&format!("{insert}, selec")).await, "E42601 ZI");
    assert_eq!(used(), kept);
    // An unnamed one is there until the next, whether that is taken or not.
    assert_eq!(other.send(&[(b'P', &parse("")), SYNC]).await, "1 ZI");
    assert_eq!(other.send(&[(b'P', b"\0selec\0\0\0"), SYNC]).await, "E42601 ZI");
    assert_eq!(used(), kept);
    one.query("deallocate all").await;
    assert_eq!(used(), 0);
    assert_eq!(one.query(&format!("prepare c as {insert}")).await, "C[PREPARE] ZI");
    assert!((kept * 9 / 10..kept * 11 / 10).contains(&used()), "the statement, and not the Query");
    one.query("deallocate all").await;
    // A portal keeps what it runs.
    let bind = (b'B', b"p\0d\0\0\0\0\0\0\0".as_slice());
    assert_eq!(one.send(&[(b'P', &parse("d")), bind, (b'C', b"Sd\0")]).await, "1 2 3");
    assert_eq!(used(), kept);
    assert_eq!(one.send(&[(b'C', b"Pp\0"), SYNC]).await, "3 ZI");
    assert_eq!(used(), 0);
    one.send(&[(b'P', &parse("a")), SYNC]).await;
    drop((one, other));
    assert_eq!(used(), 0);
}

#[tokio::test]
async fn a_block_fails_and_ends_as_in_postgresql() {
    let mut client = Client::new();
    assert_eq!(client.query("begin").await, "C[BEGIN] ZT");
    assert_eq!(client.query("begin").await, "N25001 C[BEGIN] ZT");
    assert_eq!(client.query("delete from t").await, "E22012 ZE");
    assert_eq!(client.query("select 1").await, "E25P02 ZE");
    assert_eq!(client.query("show timezone").await, "E25P02 ZE");
    assert_eq!(client.query("commit").await, "C[ROLLBACK] ZI");
    assert_eq!(client.query("commit").await, "N25P01 C[COMMIT] ZI");
    assert_eq!(
        client.query("begin; insert into t values (1); commit").await,
        "C[BEGIN] C[INSERT 0 1] C[COMMIT] ZI"
    );
    assert_eq!(client.query("begin read only; insert into t values (1)").await, "C[BEGIN] E25006 ZE");
    assert_eq!(client.query("rollback and chain").await, "C[ROLLBACK] ZT");
    assert_eq!(client.query("rollback").await, "C[ROLLBACK] ZI");
}

#[tokio::test]
async fn savepoints_bring_a_failed_block_back() {
    let mut client = Client::new();
    assert_eq!(client.query("savepoint a").await, "E25P01 ZI");
    client.query("begin; savepoint a; set application_name = 'x'").await;
    assert_eq!(client.query("delete from t").await, "E22012 ZE");
    assert_eq!(client.query("rollback to b").await, "E3B001 ZE");
    assert_eq!(client.query("rollback to a").await, "C[ROLLBACK] S ZT", "the client hears of the old name");
    assert_eq!(client.session.settings().get("application_name"), "");
    assert_eq!(client.query("release a").await, "C[RELEASE] ZT");
    assert_eq!(client.query("insert into t values (1)").await, "C[INSERT 0 1] ZT");
    assert_eq!(client.query("commit").await, "C[COMMIT] ZI");
}

#[tokio::test]
async fn portals_stop_at_their_limit_and_go_on() {
    let mut client = Client::new();
    let two = execute(2);
    let answer = client.send(&[PARSE_SELECT_3, BIND, (b'D', b"P\0"), (b'E', &two), (b'E', &two), SYNC]).await;
    assert_eq!(answer, "1 2 T D D s D C[SELECT 3] ZI");
    let all = execute(0);
    assert_eq!(client.send(&[(b'E', &all), SYNC]).await, "E34000 ZI", "a portal ends with its transaction");
    assert_eq!(client.send(&[(b'D', b"S\0"), SYNC]).await, "t T ZI");
}

#[tokio::test]
async fn what_was_answered_before_an_error_stays_answered() {
    let mut client = Client::new();
    let sql = "insert into t values (1); select 1; insert into t values (1); delete from t; select 1";
    assert_eq!(client.query(sql).await, "C[INSERT 0 1] T D C[SELECT 1] C[INSERT 0 1] E22012 ZI");
    let sql = "begin; select 2; insert into t values (1); select x";
    assert_eq!(client.query(sql).await, "C[BEGIN] T D D C[SELECT 2] C[INSERT 0 1] E42P01 ZE");
    assert_eq!(client.query("rollback").await, "C[ROLLBACK] ZI");
    let all = execute(0);
    let insert: (u8, &[u8]) = (b'P', b"\0insert into t values (1)\0\0\0");
    let bad: (u8, &[u8]) = (b'P', b"\0delete from t\0\0\0");
    let run = (b'E', &all[..]);
    let messages = [insert, BIND, run, PARSE_SELECT_3, BIND, run, bad, BIND, run, SYNC];
    let answer = "1 2 C[INSERT 0 1] 1 2 D D D C[SELECT 3] 1 2 E22012 ZI";
    assert_eq!(client.send(&messages).await, answer);
}

#[tokio::test]
async fn after_an_error_everything_up_to_sync_is_skipped() {
    let mut client = Client::new();
    let all = execute(0);
    let bad: (u8, &[u8]) = (b'P', b"\0select x\0\0\0");
    assert_eq!(client.send(&[bad, BIND, (b'E', &all), (b'H', b""), SYNC]).await, "E42P01 ZI");
    assert_eq!(client.send(&[PARSE_SELECT_3, BIND, (b'E', &all), SYNC]).await, "1 2 D D D C[SELECT 3] ZI");
    assert_eq!(client.send(&[(b'B', b"\0nope\0\0\0\0\0\0\0"), SYNC]).await, "E26000 ZI");
    assert_eq!(client.send(&[(b'B', b"\0\0\0\0\0\x01\0\0\0\x011\0\0"), SYNC]).await, "E08P01 ZI");
    assert_eq!(client.send(&[(b'B', b"\0")]).await, "fatal 08P01");
}

#[tokio::test]
async fn copy_takes_data_and_the_rest_of_the_query_follows() {
    let mut client = Client::new();
    assert_eq!(client.query("copy t from stdin; select 1").await, "G");
    assert_eq!(
        client.send(&[(b'd', b"1\n"), (b'd', b"2\n"), (b'c', b"")]).await,
        "C[COPY 2] T D C[SELECT 1] ZI"
    );
    assert_eq!(client.query("copy t from stdin").await, "G");
    assert_eq!(client.send(&[(b'd', b"1\n"), (b'f', b"no\0")]).await, "E57014 ZI");
    assert_eq!(client.send(&[(b'd', b"late"), (b'c', b"")]).await, "", "late data is ignored");
}

#[tokio::test]
async fn sql_prepared_statements_and_settings_are_kept_and_told() {
    let mut client = Client::new();
    assert_eq!(client.query("prepare p as select 2").await, "C[PREPARE] ZI");
    assert_eq!(client.query("prepare p as select 2").await, "E42P05 ZI");
    assert_eq!(client.query("execute p").await, "T D D C[SELECT 2] ZI");
    assert_eq!(client.query("execute p(1)").await, "E42601 ZI");
    assert_eq!(client.query("prepare q as select x").await, "E42P01 ZI");
    assert_eq!(client.query("set application_name = 'me'").await, "C[SET] S ZI");
    assert_eq!(client.query("set application_name = 'me'; set work_mem = '1MB'").await, "C[SET] C[SET] ZI");
    let changes = client.session.take_changes();
    assert_eq!(changes.prepared.iter().map(|p| p.sql.as_str()).collect::<Vec<_>>(), vec!["select 2"]);
    assert!(changes.settings.contains(&("application_name".into(), "me".into())));
    assert_eq!(client.query("deallocate p").await, "C[DEALLOCATE] ZI");
    assert_eq!(client.query("deallocate p").await, "E26000 ZI");
    assert_eq!(client.query("begin; discard all").await, "C[BEGIN] E25001 ZE");
}

#[tokio::test]
async fn a_cancel_between_statements_is_forgotten() {
    let mut client = Client::new();
    client.session.interrupts().cancel();
    assert_eq!(client.query("select 1").await, "T D C[SELECT 1] ZI");
}
