//! Statements from text to rows over a local store.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rustydb_env::Env;
use rustydb_env::sim::Simulation;
use rustydb_txn::{Access, Direction, Isolation, LocalKv, LockWait, ScanRequest, Transaction, TxnOptions};
use rustydb_types::ids::{DatabaseId, Incarnation, Oid, RequestId, SessionId};

use super::database::Database;
use super::operator::BATCH_SIZE_BYTES;
use super::service::SqlExecutor;
use super::spill::SpillArea;
use super::sweep::{self, Place, Swept};
use crate::catalog::keys;
use crate::catalog::virtual_table::VirtualRegistry;
use crate::error::{SqlError, SqlState};
use crate::memory::WorkMemory;
use crate::session::activity::Activities;
use crate::session::executor::{Context, Executor, ResultFormats};
use crate::session::interrupt::Interrupts;
use crate::session::request::Bind;
use crate::session::settings::Settings;
use crate::session::sink::OUTPUT_SIZE_HIGH;
use crate::session::statement::Statement;
use crate::session::token::TokenKey;
use crate::system::SystemSnapshot;

/// A database with nothing in it.
struct Local {
    executor: SqlExecutor,
    database: Database,
    context: Context,
    _store: LocalKv,
}

impl Local {
    fn new(env: &Env) -> Self {
        let store = LocalKv::in_memory(env, "kv".into(), Duration::ZERO).unwrap();
        let area = SpillArea::open(env.disk(), std::path::Path::new("/data/tmp")).unwrap();
        let memory = Arc::new(WorkMemory::new(1 << 30).with_spill(area));
        let database =
            Database::new(store.kv(), Arc::new(VirtualRegistry::builtin()), env.rng().u64(), memory);
        let mut system = SystemSnapshot::default();
        let bootstrap = crate::system::SystemCommand::Bootstrap {
            role: "postgres".into(),
            database: "postgres".into(),
            nodes: Vec::new(),
            token_key: TokenKey::new([1; 16]),
        };
        for (key, value) in bootstrap.decide(&system).unwrap() {
            system.absorb(&key, &value.unwrap()).unwrap();
        }
        let system = Arc::new(system);
        let executor = SqlExecutor::new(database.clone(), Arc::new(move || Arc::clone(&system)), env.clone());
        let interrupts = Arc::new(Interrupts::default());
        let activities = Arc::new(Activities::default());
        let activity = activities.register(1, ("postgres", "postgres"), "", 0, &interrupts);
        let context = Context {
            activity,
            token: None,
            is_token_given: AtomicBool::default(),
            random: Mutex::default(),
            questions: Mutex::default(),
            sleep: Default::default(),
            advisory: Mutex::default(),
            temporary: crate::session::temporary::Temporary::default(),
            notify: Mutex::default(),
            deferred: Mutex::default(),
            sequences: parking_lot::Mutex::default(),
            changes: Mutex::default(),
            notices: Mutex::default(),
            user: "postgres".into(),
            database: "postgres".into(),
            database_id: DatabaseId::new(Oid::new(5)),
            token_key: TokenKey::new([1; 16]),
            client_address: String::new(),
            settings: Settings::default(),
            interrupts,
            transaction_time: 0,
            statement_time: 0,
            lock_wait: LockWait::For(Duration::from_secs(1)),
        };
        Self { executor, database, context, _store: store }
    }

    async fn begin(&self) -> Transaction {
        self.begin_at(Isolation::ReadCommitted).await
    }

    async fn begin_at(&self, isolation: Isolation) -> Transaction {
        let request = RequestId { incarnation: Incarnation::new(0), session: SessionId::new(0), counter: 0 };
        self.database.kv().begin(TxnOptions { isolation, access: Access::ReadWrite, request }).await.unwrap()
    }

    /// Runs one statement in a transaction; its rows in text, values separated by `|`.
    async fn run_in(&self, txn: &mut Transaction, sql: &str) -> Result<Vec<String>, SqlError> {
        let Statement::Plan(statement) = crate::session::syntax::parse(sql)?.remove(0) else {
            panic!("{sql} is the session's own")
        };
        let mut rows = Vec::new();
        loop {
            txn.begin_statement();
            let plan = self.executor.plan(txn, &self.context, &statement, &[]).await?;
            if !self.executor.lock(txn, &self.context, &plan).await? {
                continue;
            }
            let mut cursor = self.executor.open(&self.context, &plan, &Bind::EMPTY)?;
            loop {
                let mut out = BytesMut::new();
                let formats = ResultFormats::Text;
                let fetched =
                    self.executor.fetch(txn, &self.context, &mut cursor, 1000, &formats, &mut out).await?;
                // What the output holds when it is sent, a batch, and a row of these tests, which may be written twice.
                let bound = OUTPUT_SIZE_HIGH + 2 * (BATCH_SIZE_BYTES + WIDE);
                assert!(out.len() < bound, "{sql}: {} bytes at once", out.len());
                rows.extend(decode(&out));
                if fetched.is_done {
                    break;
                }
            }
            let mut tag = BytesMut::new();
            self.executor.complete(&cursor, &mut tag);
            if plan_has_no_rows(&self.executor, &plan) {
                rows.push(String::from_utf8_lossy(&tag[5..tag.len() - 1]).into_owned());
            }
            return Ok(rows);
        }
    }

    async fn run(&self, sql: &str) -> Result<Vec<String>, SqlError> {
        let mut txn = self.begin().await;
        let rows = self.run_in(&mut txn, sql).await?;
        txn.commit().await?;
        Ok(rows)
    }

    async fn check(&self, sql: &str, expected: &str) {
        let shown = match self.run(sql).await {
            Ok(rows) => rows.join("\n"),
            Err(error) => format!("{} {}", error.state(), error.message()),
        };
        assert_eq!(shown, expected, "{sql}");
    }
}

/// Bytes of a wide value.
const WIDE: usize = 100_000;

fn plan_has_no_rows(executor: &SqlExecutor, plan: &super::service::Planned) -> bool {
    executor.shape(plan).columns.is_empty()
}

fn decode(mut out: &[u8]) -> Vec<String> {
    let mut rows = Vec::new();
    let int = |bytes: &[u8]| i32::from_be_bytes(bytes[..4].try_into().unwrap());
    while !out.is_empty() {
        let length = int(&out[1..]) as usize;
        let mut body = &out[7..=length];
        let mut values = Vec::new();
        while !body.is_empty() {
            let size = int(body);
            body = &body[4..];
            if size < 0 {
                values.push("NULL".to_owned());
            } else {
                values.push(String::from_utf8_lossy(&body[..size as usize]).into_owned());
                body = &body[size as usize..];
            }
        }
        rows.push(values.join("|"));
        out = &out[length + 1..];
    }
    rows
}

/// Runs pairs of statement and expected answer, one after the other, over one database.
fn script(steps: &[(&str, &str)]) {
    let simulation = Simulation::new(7);
    let node = simulation.add_node();
    let env = simulation.env(node);
    let steps: Vec<(String, String)> =
        steps.iter().map(|(sql, rows)| ((*sql).into(), (*rows).into())).collect();
    let run = async move {
        let local = Local::new(&env);
        for (sql, expected) in &steps {
            local.check(sql, expected).await;
        }
    };
    simulation.block_on(Duration::from_secs(600), run).unwrap();
}

#[test]
fn a_change_of_a_table_sees_all_of_its_rows_in_whatever_snapshot() {
    let simulation = Simulation::new(7);
    let node = simulation.add_node();
    let env = simulation.env(node);
    let run = async move {
        let local = Local::new(&env);
        local.run("CREATE TABLE other (a int)").await.unwrap();
        for (change, check, expected) in [
            ("ALTER TABLE t ADD PRIMARY KEY (a)", "SELECT a FROM t ORDER BY a", "1\n2"),
            ("CREATE INDEX i ON t (b)", "SELECT a FROM t WHERE b = 20", "2"),
            ("ALTER TABLE t ADD UNIQUE (b)", "SELECT a FROM t WHERE b = 20", "2"),
        ] {
            for set_up in
                ["DROP TABLE IF EXISTS t", "CREATE TABLE t (a int, b int)", "INSERT INTO t VALUES (1, 10)"]
            {
                local.run(set_up).await.unwrap();
            }
            let mut txn = local.begin_at(Isolation::RepeatableRead).await;
            local.run_in(&mut txn, "SELECT * FROM other").await.unwrap();
            local.run("INSERT INTO t VALUES (2, 20)").await.unwrap();
            local.run_in(&mut txn, change).await.unwrap();
            // The statements after it have the snapshot of the transaction again.
            local.run("INSERT INTO other VALUES (1)").await.unwrap();
            assert_eq!(local.run_in(&mut txn, "SELECT count(*) FROM other").await.unwrap(), ["0"]);
            txn.commit().await.unwrap();
            local.check(check, expected).await;
            local.run("DELETE FROM other").await.unwrap();
            // And nothing is written to what the table was before others changed it.
            let mut txn = local.begin_at(Isolation::RepeatableRead).await;
            local.run_in(&mut txn, "SELECT * FROM other").await.unwrap();
            local.run("ALTER TABLE t ADD COLUMN c int DEFAULT 5").await.unwrap();
            local.run("TRUNCATE t").await.unwrap();
            local.run("CREATE INDEX j ON t (c)").await.unwrap();
            let written = local.run_in(&mut txn, "INSERT INTO t VALUES (3, 30)").await;
            assert_eq!(written.unwrap_err().state(), SqlState::SERIALIZATION_FAILURE);
        }
    };
    simulation.block_on(Duration::from_secs(600), run).unwrap();
}

#[test]
fn wide_rows_come_in_small_pieces() {
    let simulation = Simulation::new(7);
    let node = simulation.add_node();
    let env = simulation.env(node);
    let run = async move {
        let local = Local::new(&env);
        let wide = format!("repeat('x', {WIDE})");
        for set_up in [
            "CREATE TABLE w (a int PRIMARY KEY, b int, t text)",
            &format!("INSERT INTO w SELECT i, i % 2, {wide} FROM generate_series(1, 60) i"),
            "CREATE INDEX w_b ON w (b)",
        ] {
            local.run(set_up).await.unwrap();
        }
        for (sql, count) in [
            (format!("SELECT {wide} FROM generate_series(1, 60)"), 60),
            ("SELECT * FROM w".to_owned(), 60),
            ("SELECT t FROM w ORDER BY a DESC".to_owned(), 60),
            ("SELECT t FROM w WHERE b = 1".to_owned(), 30),
            ("SELECT DISTINCT a, t FROM w".to_owned(), 60),
            ("SELECT x.t, y.t FROM w x JOIN w y ON x.a = y.a".to_owned(), 60),
            ("SELECT x.t FROM w x, w y WHERE x.a < 3".to_owned(), 120),
            (
                "SELECT w.t FROM generate_series(1, 3) g, LATERAL (SELECT t FROM w WHERE b = g % 2) w"
                    .to_owned(),
                90,
            ),
            ("WITH c AS MATERIALIZED (SELECT t FROM w) SELECT * FROM c".to_owned(), 60),
            (format!("SELECT unnest(ARRAY[t, {wide}]) FROM w WHERE a <= 20"), 40),
            ("SELECT t FROM w UNION ALL SELECT t FROM w".to_owned(), 120),
            ("UPDATE w SET b = 3 WHERE a < 60 RETURNING t".to_owned(), 59),
        ] {
            let rows = local.run(&sql).await.unwrap();
            assert_eq!(rows.len(), count, "{sql}");
            assert!(rows.iter().all(|row| row.len() >= WIDE), "{sql}");
        }
        // Not before the limit is reached is all of it computed.
        let endless =
            "SELECT y FROM generate_series(1, 2) x, LATERAL generate_series(x, 1000000000000) y LIMIT 600";
        assert_eq!(local.run(endless).await.unwrap().len(), 600);
    };
    simulation.block_on(Duration::from_secs(600), run).unwrap();
}

/// Keys of rows and index entries of all tables, and records of dropped storages.
async fn stored(local: &Local) -> (usize, usize) {
    let txn = local.begin().await;
    let count = |start: &[u8], end: &[u8]| {
        let (mut rest, mut count) = (Some((Bytes::copy_from_slice(start), Bytes::copy_from_slice(end))), 0);
        while let Some((start, end)) = rest {
            let direction = Direction::Forward;
            let chunk =
                txn.scan(ScanRequest { start, end, direction, max_bytes: 1 << 20, max_rows: 1000 }).unwrap();
            count += chunk.iter().count();
            rest = chunk.rest();
        }
        count
    };
    let (first, end) = keys::kind_range(keys::Kind::Sweep);
    (count(&[2], &[3]), count(&first, &end))
}

#[test]
fn what_was_dropped_is_swept_in_steps_and_nothing_else() {
    let simulation = Simulation::new(7);
    let node = simulation.add_node();
    let env = simulation.env(node);
    let run = async move {
        let local = Local::new(&env);
        local.check("CREATE TABLE kept (a int PRIMARY KEY, b int UNIQUE)", "CREATE TABLE").await;
        local.check("INSERT INTO kept SELECT g, g FROM generate_series(1, 20) g", "INSERT 0 20").await;
        local.check("CREATE TABLE gone (a int PRIMARY KEY, b int UNIQUE)", "CREATE TABLE").await;
        local.check("INSERT INTO gone SELECT g, g FROM generate_series(1, 1200) g", "INSERT 0 1200").await;
        local.check("CREATE TABLE emptied (a int PRIMARY KEY)", "CREATE TABLE").await;
        local.check("INSERT INTO emptied SELECT g FROM generate_series(1, 10) g", "INSERT 0 10").await;
        local.check("DROP TABLE gone", "DROP TABLE").await;
        local.check("TRUNCATE emptied", "TRUNCATE TABLE").await;
        local.check("INSERT INTO emptied VALUES (1)", "INSERT 0 1").await;
        assert_eq!(stored(&local).await, (40 + 2400 + 11, 3));
        let store = local.database.kv();
        let mut place = Place::default();
        assert_eq!(sweep::step(store, &mut place).await.unwrap(), Swept::Something);
        let (rows, _) = stored(&local).await;
        assert!(rows < 2451 && rows > 1200, "a step is bounded: {rows} left");
        // A restart: the sweep does not know how far it was.
        place = Place::default();
        while sweep::step(store, &mut place).await.unwrap() == Swept::Something {}
        assert_eq!(stored(&local).await, (41, 0));
        local.check("SELECT count(*), sum(b) FROM kept", "20|210").await;
        local.check("SELECT a FROM emptied", "1").await;
    };
    simulation.block_on(Duration::from_secs(600), run).unwrap();
}

#[test]
fn a_select_list_has_at_most_1664_entries() {
    let of = |count: usize| format!("SELECT count(*) FROM (SELECT 1{}) AS t", ", 1".repeat(count - 1));
    // By name and by a star.
    let starred = format!("SELECT a.*, a.* FROM (SELECT 1{}) AS a", ", 1".repeat(832));
    let refused = "54011 target lists can have at most 1664 entries";
    script(&[(&of(1664), "1"), (&of(1665), refused), (&starred, refused)]);
}

#[test]
fn queries_without_tables() {
    script(&[
        ("SELECT 1", "1"),
        ("SELECT 1 + 1 AS two, 'a' || 'b'", "2|ab"),
        ("SELECT * FROM (VALUES (1, 'x'), (2, 'y')) v(a, b) ORDER BY a DESC", "2|y\n1|x"),
        ("SELECT count(*), sum(g), min(g), max(g) FROM generate_series(1, 10) g", "10|55|1|10"),
        // More than work_mem could keep, and across batches: up, down, with an order, to the ends of the type.
        ("SELECT count(*), sum(g) FROM generate_series(1, 3000000) g", "3000000|4500001500000"),
        ("SELECT count(*), min(g), max(g) FROM generate_series(1000, -1000, -3) g", "667|-998|1000"),
        ("SELECT count(*), count(DISTINCT g) FROM generate_series(0::numeric, 100, 0.25) g", "401|401"),
        ("SELECT count(*), max(g) FROM generate_series(2147483000, 2147483647) g", "648|2147483647"),
        (
            "SELECT count(*), max(g) FROM generate_series('2020-01-31'::timestamp, '2060-01-31', '1 month') g",
            "481|2060-01-28 00:00:00",
        ),
        (
            "SELECT n, g FROM generate_series(1, 600) WITH ORDINALITY AS s(g, n) WHERE n IN (1, 256, 257, 513) ORDER BY 1",
            "1|1\n256|256\n257|257\n513|513",
        ),
        ("SELECT count(*) FROM generate_series(1, NULL::integer) g", "0"),
        ("SELECT count(*) FROM generate_series(1, 256) g", "256"),
        (
            "SELECT g % 3 AS k, count(*) FROM generate_series(1, 10) g GROUP BY k HAVING count(*) > 3 ORDER BY 1",
            "1|4",
        ),
        ("SELECT 1 UNION SELECT 1 UNION ALL SELECT 2", "1\n2"),
        ("WITH a AS (SELECT 1 AS x) SELECT x, (SELECT x + 1 FROM a) FROM a", "1|2"),
        ("SELECT CASE WHEN 1 = 2 THEN 'a' ELSE 'b' END", "b"),
        ("SELECT nope", "42703 column \"nope\" does not exist"),
        ("SELECT * FROM nope", "42P01 relation \"nope\" does not exist"),
        ("SELECT g FROM generate_series(1, 3) g WHERE g IN (SELECT 2 UNION SELECT 3) ORDER BY g", "2\n3"),
        ("SELECT DISTINCT g / 2 FROM generate_series(1, 5) g ORDER BY 1 LIMIT 2 OFFSET 1", "1\n2"),
    ]);
}

#[test]
fn rows_are_written_found_changed_and_removed() {
    script(&[
        ("CREATE TABLE t (a int PRIMARY KEY, b text DEFAULT 'd', c int UNIQUE)", "CREATE TABLE"),
        ("INSERT INTO t VALUES (1, 'one', 10), (2, 'two', 20)", "INSERT 0 2"),
        ("INSERT INTO t (a) VALUES (3) RETURNING a, b, c", "3|d|NULL"),
        ("SELECT * FROM t WHERE a = 2", "2|two|20"),
        ("SELECT a FROM t WHERE c = 10", "1"),
        ("SELECT a FROM t WHERE a > 1 ORDER BY a DESC", "3\n2"),
        ("SELECT a FROM t WHERE a IN (3, 1, 1)", "1\n3"),
        ("UPDATE t SET b = b || '!', c = c + 1 WHERE a <= 2", "UPDATE 2"),
        ("SELECT a, b, c FROM t ORDER BY a", "1|one!|11\n2|two!|21\n3|d|NULL"),
        ("INSERT INTO t VALUES (1)", "23505 duplicate key value violates unique constraint \"t_pkey\""),
        (
            "INSERT INTO t VALUES (4, 'x', 21)",
            "23505 duplicate key value violates unique constraint \"t_c_key\"",
        ),
        ("INSERT INTO t VALUES (1, 'y') ON CONFLICT DO NOTHING", "INSERT 0 0"),
        ("INSERT INTO t VALUES (1, 'y') ON CONFLICT (a) DO UPDATE SET b = excluded.b RETURNING b", "y"),
        ("UPDATE t SET a = a + 10", "UPDATE 3"),
        ("SELECT a FROM t WHERE c = 21", "12"),
        ("DELETE FROM t WHERE c IS NULL RETURNING a", "13"),
        ("SELECT x.a, y.a FROM t x JOIN t y ON x.a = y.a + 1", "12|11"),
        ("SELECT a FROM t x WHERE EXISTS (SELECT 1 FROM t y WHERE y.a > x.a)", "11"),
        ("SELECT a FROM t WHERE a = 12 FOR UPDATE", "12"),
        (
            "INSERT INTO t VALUES (NULL)",
            "23502 null value in column \"a\" of relation \"t\" violates not-null constraint",
        ),
        ("TRUNCATE t", "TRUNCATE TABLE"),
        ("SELECT count(*) FROM t", "0"),
        ("INSERT INTO t SELECT g, 'x', g FROM generate_series(1, 2000) g", "INSERT 0 2000"),
        ("SELECT count(*), sum(c) FROM t", "2000|2001000"),
        ("DROP TABLE t", "DROP TABLE"),
        ("SELECT * FROM t", "42P01 relation \"t\" does not exist"),
    ]);
}

#[test]
fn a_window_is_a_node_of_the_plan_over_as_many_rows() {
    let plan = "WindowAgg  (cost=1.00..1.25 rows=100 width=8)\n  \
                ->  Function Scan on generate_series  (cost=0.00..1.00 rows=100 width=4)";
    script(&[
        ("EXPLAIN SELECT row_number() OVER () FROM generate_series(1, 3)", plan),
        (
            "SELECT max(s) FROM (SELECT sum(g) OVER (ORDER BY g) s FROM generate_series(1, 3000) g) t",
            "4501500",
        ),
        (
            "SELECT max(s) FROM (SELECT sum(g) OVER (ORDER BY g ROWS 2000 PRECEDING) s \
             FROM generate_series(1, 3000) g) t",
            "4002000",
        ),
    ]);
}

#[test]
fn an_integer_of_another_width_is_looked_up_in_an_index() {
    let unique = "Index Scan using t_pkey on t\n  Index Cond: (a = '7'::bigint)";
    let ranged = "Aggregate\n  ->  Index Scan using t_pkey on t\n        \
                  Index Cond: (a > '2990'::bigint)";
    let equal = "Index Scan using s on t\n  Index Cond: (b = '3'::smallint)";
    script(&[
        ("CREATE TABLE t (a bigint PRIMARY KEY, b smallint)", "CREATE TABLE"),
        ("CREATE INDEX s ON t (b)", "CREATE INDEX"),
        ("INSERT INTO t SELECT g, g % 10 FROM generate_series(-20, 3000) g", "INSERT 0 3021"),
        ("EXPLAIN (COSTS OFF) SELECT b FROM t WHERE a = 7", unique),
        ("SELECT b FROM t WHERE a = 7", "7"),
        ("EXPLAIN (COSTS OFF) SELECT b FROM t WHERE 7::smallint = a", unique),
        ("SELECT b FROM t WHERE 7::smallint = a", "7"),
        ("SELECT b FROM t WHERE a = NULL::int", ""),
        ("EXPLAIN (COSTS OFF) SELECT count(*) FROM t WHERE a > 2990", ranged),
        ("SELECT count(*), min(a) FROM t WHERE a > 2990", "10|2991"),
        ("SELECT count(*), max(a) FROM t WHERE -15 >= a", "6|-15"),
        ("EXPLAIN (COSTS OFF) SELECT a FROM t WHERE b = 3", equal),
        ("SELECT count(*) FROM t WHERE b = 3", "300"),
        // No smallint is so large, and all are smaller.
        ("SELECT count(*) FROM t WHERE b = 100000", "0"),
        ("SELECT count(*) FROM t WHERE b < 100000", "3021"),
        (
            "SELECT x.b, y.a FROM (VALUES (5), (6)) AS v(n) JOIN t x ON x.a = v.n JOIN t y ON y.a = x.b",
            "5|5\n6|6",
        ),
    ]);
}

#[test]
fn the_schema_changes_under_rows() {
    script(&[
        ("CREATE TABLE t (a int, b text)", "CREATE TABLE"),
        ("INSERT INTO t SELECT g, 'r' || g FROM generate_series(1, 1500) g", "INSERT 0 1500"),
        ("ALTER TABLE t ADD PRIMARY KEY (a)", "ALTER TABLE"),
        ("SELECT b FROM t WHERE a = 700", "r700"),
        (
            "EXPLAIN (COSTS OFF) SELECT b FROM t WHERE a = 700",
            "Index Scan using t_pkey on t\n  Index Cond: (a = 700)",
        ),
        ("CREATE INDEX i ON t (b)", "CREATE INDEX"),
        ("SELECT a FROM t WHERE b = 'r8'", "8"),
        ("ALTER TABLE t ADD COLUMN c int NOT NULL DEFAULT 5", "ALTER TABLE"),
        ("SELECT a, c FROM t WHERE a = 1500", "1500|5"),
        ("ALTER TABLE t RENAME COLUMN c TO d", "ALTER TABLE"),
        ("SELECT d FROM t WHERE a = 1", "5"),
        ("ALTER TABLE t DROP COLUMN b", "ALTER TABLE"),
        ("SELECT * FROM t WHERE a = 2", "2|5"),
        ("CREATE UNIQUE INDEX u ON t (d)", "23505 could not create unique index \"u\""),
        ("CREATE INDEX h ON t USING btree (d)", "CREATE INDEX"),
        ("SELECT string_agg(repeat('x', 1000000), '') FROM t", "53200 out of memory"),
        ("SELECT array_agg(repeat('x', 1000000)) FROM t", "53200 out of memory"),
        ("CREATE INDEX h2 ON t USING gin (d)", "0A000 access method \"gin\" is not supported"),
        ("CREATE INDEX h2 ON t USING hash (d)", "0A000 access method \"hash\" is not supported"),
        ("CREATE UNIQUE INDEX h2 ON t (d) NULLS NOT DISTINCT", "0A000 NULLS NOT DISTINCT is not supported"),
        (
            "CREATE TABLE h3 (a int, UNIQUE NULLS NOT DISTINCT (a))",
            "0A000 NULLS NOT DISTINCT is not supported",
        ),
        ("CREATE TABLE h3 (a int, b int, UNIQUE (a) INCLUDE (b))", "CREATE TABLE"),
        ("CREATE TABLE h4 (a int, b int, PRIMARY KEY (a) INCLUDE (b))", "CREATE TABLE"),
        ("CREATE INDEX h2 ON t USING none (d)", "42704 access method \"none\" does not exist"),
        ("ANALYZE t", "ANALYZE"),
        ("ANALYZE t (a)", "ANALYZE"),
        ("ANALYZE t (b)", "42703 column \"b\" of relation \"t\" does not exist"),
        ("VACUUM", "VACUUM"),
        ("SELECT count(*) FROM t", "1500"),
        ("CREATE TABLE t (a int)", "42P07 relation \"t\" already exists"),
        ("CREATE TABLE IF NOT EXISTS t (a int)", "CREATE TABLE"),
        ("CREATE SCHEMA s", "CREATE SCHEMA"),
        ("CREATE TABLE s.t (a int)", "CREATE TABLE"),
        ("DROP SCHEMA s", "2BP01 cannot drop schema s because other objects depend on it"),
        ("DROP SCHEMA s CASCADE", "DROP SCHEMA"),
        ("SELECT relname FROM pg_class WHERE relname = 't'", "t"),
    ]);
}

#[test]
fn the_text_of_a_view_follows_the_names_of_what_it_is_made_of() {
    let shown = "SELECT pg_get_viewdef('v'::regclass)";
    script(&[
        ("CREATE TABLE a (x int PRIMARY KEY, y text)", "CREATE TABLE"),
        ("CREATE TABLE b (x int, w text)", "CREATE TABLE"),
        ("INSERT INTO a VALUES (1, 'one')", "INSERT 0 1"),
        ("INSERT INTO b VALUES (1, 'uno')", "INSERT 0 1"),
        ("CREATE VIEW v AS SELECT *, (SELECT count(*) FROM b i) n FROM a JOIN b USING (x)", "CREATE VIEW"),
        (shown, " SELECT x, a.y, b.w, (SELECT count(*) FROM b i) n FROM a JOIN b USING (x);"),
        ("ALTER TABLE a RENAME TO c", "ALTER TABLE"),
        (shown, " SELECT x, a.y, b.w, (SELECT count(*) FROM b i) n FROM c a JOIN b USING (x);"),
        ("ALTER TABLE c RENAME y TO \"Y\"", "ALTER TABLE"),
        ("ALTER TABLE b RENAME w TO v", "ALTER TABLE"),
        (
            shown,
            " SELECT x, a.y, b.w, (SELECT count(*) FROM b i(x, w)) n FROM c a(x, y) JOIN b b(x, w) USING (x);",
        ),
        // A column that comes later is none of the view's, whatever it is called.
        ("ALTER TABLE b ADD COLUMN y int DEFAULT 7", "ALTER TABLE"),
        (
            shown,
            " SELECT x, a.y, b.w, (SELECT count(*) FROM b i(x, w, y_1)) n FROM c a(x, y) JOIN b b(x, w, y_1) USING (x);",
        ),
        ("SELECT * FROM v", "1|one|uno|1"),
        ("CREATE TABLE a (x int)", "CREATE TABLE"),
        ("SELECT * FROM v", "1|one|uno|1"),
    ]);
}

#[test]
fn a_plan_says_what_each_part_of_it_does() {
    let explain = |sql: &str| format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) {sql}");
    let cases = [
        (
            "SELECT u.c, count(*) FROM u JOIN t ON t.a = u.a WHERE t.b <> 3 GROUP BY u.c HAVING count(*) > 1 \
             ORDER BY 2 DESC, u.c LIMIT 2",
            "Limit (actual rows=2 loops=1)\n  \
             ->  Sort (actual rows=2 loops=1)\n        \
             Sort Key: (count(*)) DESC, u.c\n        Sort Method: top-N heapsort\n        \
             ->  HashAggregate (actual rows=3 loops=1)\n              \
             Group Key: u.c\n              Filter: (count(*) > 1)\n              \
             ->  Hash Join (actual rows=9 loops=1)\n                    \
             Hash Cond: (u.a = t.a)\n                    \
             ->  Seq Scan on u (actual rows=10 loops=1)\n                    \
             ->  Hash (actual rows=9 loops=1)\n                          \
             ->  Seq Scan on t (actual rows=9 loops=1)\n                                \
             Filter: (t.b <> 3)\n                                Rows Removed by Filter: 1",
        ),
        (
            "SELECT a, (SELECT max(c) FROM u WHERE u.a = t.a) FROM t WHERE a IN (2, 4) AND b > 2",
            "Index Scan using t_pkey on t (actual rows=1 loops=1)\n  \
             Index Cond: (t.a = ANY (ARRAY[2, 4]))\n  Filter: (t.b > 2)\n  Rows Removed by Filter: 1\n  \
             SubPlan 1\n    ->  Aggregate (actual rows=1 loops=1)\n          \
             ->  Seq Scan on u (actual rows=1 loops=1)\n                Filter: (u.a = t.a)\n                \
             Rows Removed by Filter: 9",
        ),
        (
            "UPDATE t SET b = b + 1 WHERE a = 7",
            "Update on t (actual rows=0 loops=1)\n  \
             ->  Index Scan using t_pkey on t (actual rows=1 loops=1)\n        Index Cond: (a = 7)",
        ),
        ("SELECT 1 FROM t LIMIT 0", "Limit (actual rows=0 loops=1)\n  ->  Seq Scan on t (never executed)"),
    ];
    let explained: Vec<(String, &str)> = cases.iter().map(|(sql, plan)| (explain(sql), *plan)).collect();
    let mut steps = vec![
        ("CREATE TABLE t (a int PRIMARY KEY, b int)", "CREATE TABLE"),
        ("CREATE TABLE u (a int, c text)", "CREATE TABLE"),
        ("INSERT INTO t SELECT g, g FROM generate_series(1, 10) g", "INSERT 0 10"),
        ("INSERT INTO u SELECT g, 'c' || g % 3 FROM generate_series(1, 10) g", "INSERT 0 10"),
    ];
    steps.extend(explained.iter().map(|(sql, plan)| (sql.as_str(), *plan)));
    steps.push(("SELECT b FROM t WHERE a = 7", "8"));
    let json = "[\n  {\n    \"Plan\": {\n      \"Node Type\": \"Seq Scan\",\n      \"Parallel Aware\": false,\n      \
                \"Async Capable\": false,\n      \"Relation Name\": \"u\",\n      \"Alias\": \"x\",\n      \
                \"Filter\": \"(c = 'c1'::text)\"\n    }\n  }\n]";
    steps.push(("EXPLAIN (FORMAT JSON, COSTS OFF) SELECT * FROM u x WHERE c = 'c1'", json));
    script(&steps);
}

#[test]
fn an_index_of_some_rows_or_over_an_expression_is_read_where_it_answers() {
    let (by_index, whole) = ("Index Scan using ", "Seq Scan on t");
    let explain = |condition: &str| format!("EXPLAIN SELECT * FROM t WHERE {condition}");
    let simulation = Simulation::new(7);
    let node = simulation.add_node();
    let env = simulation.env(node);
    let run = async move {
        let local = Local::new(&env);
        for sql in [
            "CREATE TABLE t (a int, b text, c int)",
            "CREATE INDEX lowered ON t (lower(b))",
            "CREATE INDEX partial ON t (a) WHERE c > 5",
            "CREATE INDEX given ON t (c) WHERE b IS NOT NULL",
        ] {
            local.run(sql).await.unwrap();
        }
        for (condition, expected) in [
            ("lower(b) = 'x'", by_index),
            ("upper(b) = 'x'", whole),
            ("a = 1", whole),
            ("a = 1 AND c > 5", by_index),
            ("a = 1 AND c > 6", by_index),
            ("a = 1 AND c = 9", by_index),
            ("a = 1 AND c >= 5", whole),
            ("a = 1 AND c > 4", whole),
            ("a = 1 AND c < 9", whole),
            ("c = 1 AND b = 'x'", by_index),
            ("c = 1 AND b IS NOT NULL", by_index),
            ("c = 1", whole),
        ] {
            let plan = local.run(&explain(condition)).await.unwrap();
            assert!(plan[0].starts_with(expected), "{condition}: {plan:?}");
        }
    };
    simulation.block_on(Duration::from_secs(600), run).unwrap();
}

#[test]
fn no_row_is_changed_twice_by_one_statement() {
    script(&[
        ("CREATE TABLE t (a int PRIMARY KEY, b int)", "CREATE TABLE"),
        ("CREATE INDEX ON t (b)", "CREATE INDEX"),
        ("INSERT INTO t SELECT g, g FROM generate_series(1, 4) g", "INSERT 0 4"),
        ("WITH u AS (UPDATE t SET b = 100 WHERE a = 1) UPDATE t SET b = 200 WHERE a < 3 RETURNING a", "2"),
        ("WITH u AS (UPDATE t SET b = 300 WHERE a = 3) DELETE FROM t WHERE a > 2 RETURNING a", "4"),
        ("WITH d AS (DELETE FROM t WHERE a = 2) UPDATE t SET b = b + 1 RETURNING a, b", "1|101\n3|301"),
        ("SELECT a FROM t WHERE b IN (1, 2, 3, 100, 200, 300)", ""),
        ("SELECT a FROM t WHERE b IN (101, 301) ORDER BY a", "1\n3"),
        ("SELECT a, b FROM t ORDER BY a", "1|101\n3|301"),
    ]);
}

#[test]
fn what_does_not_fit_in_work_mem_goes_to_files_and_comes_back() {
    let simulation = Simulation::new(7);
    let node = simulation.add_node();
    let env = simulation.env(node);
    let run = async move {
        let mut local = Local::new(&env);
        for sql in [
            "CREATE TABLE a (i int, k int, t text)",
            "CREATE TABLE b (k int, u text)",
            "INSERT INTO a SELECT g, CASE WHEN g % 10 > 0 THEN g * 7 % 5003 END, 'text ' || g % 97 FROM generate_series(1, 8000) g",
            "INSERT INTO b SELECT CASE WHEN g % 9 > 0 THEN g * 3 % 7001 END, repeat('u', g % 50) FROM generate_series(1, 6000) g",
            "ANALYZE a",
            "ANALYZE b",
        ] {
            local.run(sql).await.unwrap();
        }
        let folder = std::path::Path::new("/data/tmp");
        let queries = [
            "SELECT i, t FROM a ORDER BY t DESC, i",
            "SELECT t, k FROM a ORDER BY k NULLS FIRST, i DESC OFFSET 2500 LIMIT 3",
            "SELECT i FROM a ORDER BY t, i LIMIT 4000",
            "SELECT count(*), sum(a.i), sum(length(b.u)) FROM a JOIN b ON a.k = b.k",
            "SELECT count(*), count(b.u), sum(a.i), sum(length(b.u)) FROM a LEFT JOIN b ON a.k = b.k",
            "SELECT count(*), count(a.i), sum(a.i), sum(length(b.u)) FROM a RIGHT JOIN b ON a.k = b.k",
            "SELECT count(*), count(a.i), count(b.u), sum(a.i), sum(length(b.u)) FROM a FULL JOIN b ON a.k = b.k",
            "SELECT count(*) FROM a JOIN b ON a.k = b.k AND a.i % 7 = b.k % 7",
            "SELECT k, count(*), sum(i), max(t) FROM a GROUP BY k ORDER BY k",
            "SELECT i % 4001, array_agg(k ORDER BY k) FROM a GROUP BY 1 ORDER BY 1",
            "SELECT count(*), sum(k) FROM (SELECT DISTINCT k, t FROM a) x",
            "SELECT sum(n * i), sum(s) FROM (SELECT i, row_number() OVER () n, sum(i) OVER (ROWS UNBOUNDED PRECEDING) s FROM (SELECT i FROM a ORDER BY t, i) y) x",
            "SELECT sum(r * i), sum(d), sum(s), sum(m) FROM (SELECT i, rank() OVER w r, dense_rank() OVER w d, sum(i) OVER w s, count(k) FILTER (WHERE i % 2 = 0) OVER w m FROM a WINDOW w AS (PARTITION BY i % 5 ORDER BY t)) x",
            "SELECT sum(l), sum(f), min(n) FROM (SELECT lag(i) OVER w l, first_value(i) OVER w f, ntile(3) OVER w n FROM a WINDOW w AS (PARTITION BY i % 50 ORDER BY k, i)) x",
            "SELECT count(*) FROM (SELECT k, count(DISTINCT t) AS c FROM a GROUP BY k) x JOIN b USING (k) WHERE c > 1",
            "SELECT x.k, c, n FROM (SELECT k, count(*) c FROM a GROUP BY k) x FULL JOIN (SELECT k, count(*) n FROM b GROUP BY k) y ON x.k = y.k ORDER BY 1, 2, 3",
        ];
        let mut expected = Vec::new();
        local.context.settings.set("work_mem", "1GB", crate::session::settings::Scope::Session).unwrap();
        for sql in queries {
            expected.push(local.run(sql).await.unwrap());
            assert_eq!(env.disk().list(folder).unwrap().len(), 0);
        }
        local.context.settings.set("work_mem", "64kB", crate::session::settings::Scope::Session).unwrap();
        let spilled = Arc::clone(local.database.work_memory().spill().unwrap());
        for (sql, expected) in queries.iter().zip(&expected) {
            let before = spilled.created();
            assert!(local.run(sql).await.unwrap() == *expected, "{sql}");
            assert!(spilled.created() > before, "{sql} kept all in memory");
            assert_eq!(env.disk().list(folder).unwrap().len(), 0, "{sql} left files behind");
        }
        // Rows of one key stay together, whatever they take: more than fits fails and leaves nothing.
        let wide = "SELECT sum(length(w)) FROM a JOIN (SELECT 1 AS one, repeat('x', 1000) AS w FROM a) y ON y.one = a.i";
        let failed = local.run(wide).await.err().map(|error| error.state());
        assert_eq!(failed, Some(SqlState::OUT_OF_MEMORY));
        assert_eq!(env.disk().list(folder).unwrap().len(), 0);
    };
    simulation.block_on(Duration::from_secs(6000), run).unwrap();
}

#[test]
fn a_view_of_itself_is_an_error_where_it_is_asked() {
    script(&[
        ("CREATE VIEW v AS SELECT 1 AS a", "CREATE VIEW"),
        ("CREATE VIEW w AS SELECT a FROM v", "CREATE VIEW"),
        ("CREATE OR REPLACE VIEW v AS SELECT a FROM w", "CREATE VIEW"),
        ("SELECT * FROM v", "42P17 infinite recursion detected in rules for relation \"v\""),
        ("DELETE FROM w", "42P17 infinite recursion detected in rules for relation \"w\""),
        ("CREATE OR REPLACE VIEW v AS SELECT 2 AS a", "CREATE VIEW"),
        ("SELECT * FROM w", "2"),
    ]);
}

#[test]
fn a_row_that_fails_a_check_is_refused_with_what_it_is() {
    let simulation = Simulation::new(7);
    let node = simulation.add_node();
    let env = simulation.env(node);
    let run = async move {
        let local = Local::new(&env);
        local.run("CREATE TABLE m (a int CHECK (a > 0), t text)").await.unwrap();
        local.run("INSERT INTO m VALUES (1, 'x')").await.unwrap();
        let refused = |row: &str| {
            let mut error = SqlError::new(
                SqlState::CHECK_VIOLATION,
                "new row for relation \"m\" violates check constraint \"m_a_check\"",
            );
            error = error.with_detail(format!("Failing row contains ({row})."));
            error.with_table("public", "m").with_constraint("m_a_check")
        };
        for (sql, row) in [
            (format!("INSERT INTO m VALUES (0, '{}')", "ä".repeat(50)), format!("0, {}...", "ä".repeat(32))),
            ("INSERT INTO m VALUES (0, NULL)".into(), "0, null".into()),
            ("UPDATE m SET a = -a".into(), "-1, x".into()),
        ] {
            assert_eq!(local.run(&sql).await.unwrap_err().fields(), refused(&row).fields(), "{sql}");
        }

        // COPY says the line, too.
        let mut txn = local.begin().await;
        let statement = crate::parse::parse("COPY m FROM STDIN").unwrap().remove(0);
        let plan = local.executor.plan(&mut txn, &local.context, &statement, &[]).await.unwrap();
        let mut copy = local.executor.copy_begin(&mut txn, &local.context, &plan).await.unwrap();
        let data = b"5\tx\n\\N\tz\n0\ty\n";
        let copied = local.executor.copy_data(&mut txn, &local.context, &mut copy, data).await;
        let error = copied.unwrap_err();
        assert_eq!(error.message(), refused("").message());
        assert_eq!(error.fields().detail.as_deref(), Some("Failing row contains (0, y)."));
        assert_eq!(error.fields().context.as_deref(), Some("COPY m, line 3: \"0\ty\""));

        // What is there already is told of without the row.
        let error = local.run("ALTER TABLE m ADD CONSTRAINT k CHECK (a > 1)").await.unwrap_err();
        let expected = SqlError::new(
            SqlState::CHECK_VIOLATION,
            "check constraint \"k\" of relation \"m\" is violated by some row",
        );
        let expected = expected.with_table("public", "m").with_constraint("k");
        assert_eq!(error.fields(), expected.fields());
    };
    simulation.block_on(Duration::from_secs(600), run).unwrap();
}

#[test]
fn a_check_sees_the_rows_of_transactions_that_began_before_it() {
    let simulation = Simulation::new(7);
    let node = simulation.add_node();
    let env = simulation.env(node);
    let run = async move {
        let local = Local::new(&env);
        local.run("CREATE TABLE t (a int)").await.unwrap();
        // The change takes its snapshot before the row is committed, and must find it all the same.
        let mut changing = local.begin_at(Isolation::RepeatableRead).await;
        local.run_in(&mut changing, "SELECT 1").await.unwrap();
        local.run("INSERT INTO t VALUES (-1)").await.unwrap();
        let error = local.run_in(&mut changing, "ALTER TABLE t ADD CHECK (a > 0)").await.unwrap_err();
        assert_eq!(error.state(), SqlState::CHECK_VIOLATION);
        changing.rollback();

        // One that planned before the constraint writes under it.
        local.run("DELETE FROM t").await.unwrap();
        let mut writing = local.begin().await;
        let statement = crate::parse::parse("INSERT INTO t VALUES (-1)").unwrap().remove(0);
        let plan = local.executor.plan(&mut writing, &local.context, &statement, &[]).await.unwrap();
        local.run("ALTER TABLE t ADD CHECK (a > 0)").await.unwrap();
        assert!(!local.executor.lock(&mut writing, &local.context, &plan).await.unwrap());
        let error = local.run_in(&mut writing, "INSERT INTO t VALUES (-1)").await.unwrap_err();
        assert_eq!(error.state(), SqlState::CHECK_VIOLATION);
    };
    simulation.block_on(Duration::from_secs(600), run).unwrap();
}
