//! The drivers of Rust: tokio-postgres and sqlx.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::{Connection, Row};
use tokio::runtime::Runtime;
use tokio_postgres::binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, IsolationLevel, NoTls};

use crate::cluster::{Cluster, connect};
use crate::gate::Gate;

/// A check must end within this.
const PATIENCE: Duration = Duration::from_secs(60);

fn check(gate: &mut Gate, runtime: &Runtime, part: &str, work: impl Future<Output = Result<()>>) {
    let done = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, work)
            .await
            .with_context(|| format!("it took more than {PATIENCE:?}"))?
    });
    gate.settle(part, done.map(|()| json!({})));
}

/// tokio-postgres.
pub(super) fn tokio_postgres(gate: &mut Gate, cluster: &Cluster, runtime: &Runtime) {
    let client = || async { connect(&cluster.node(1, "postgres")).await };
    check(gate, runtime, "tokio-postgres values", async { values(&client().await?).await });
    check(gate, runtime, "tokio-postgres transactions", async { transactions(&mut client().await?).await });
    check(gate, runtime, "tokio-postgres copy", async { copies(&client().await?).await });
    check(gate, runtime, "tokio-postgres pipelines", async {
        let client = client().await?;
        let numbers: Vec<i32> = (0..100).collect();
        let queries = numbers.iter().map(|number| async {
            let row = client.query_one("select $1::int + 1", &[number]).await?;
            Ok::<i32, anyhow::Error>(row.get(0))
        });
        let found = futures_util::future::try_join_all(queries).await?;
        ensure!(found == (1..=100).collect::<Vec<i32>>(), "{found:?}");
        Ok(())
    });
    check(gate, runtime, "tokio-postgres cancel", async {
        let client = client().await?;
        let token = client.cancel_token();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            token.cancel_query(NoTls).await
        });
        let error = client.query("select pg_sleep(60)", &[]).await.err().context("it was not cancelled")?;
        ensure!(error.code() == Some(&SqlState::QUERY_CANCELED), "{error:?}");
        client.query_one("select 1", &[]).await?;
        Ok(())
    });
    check(gate, runtime, "tokio-postgres many hosts", async {
        let target = format!("{} target_session_attrs=read-write", cluster.everywhere("postgres"));
        let client = connect(&target).await?;
        client.query_one("select 1", &[]).await?;
        Ok(())
    });
}

async fn values(client: &Client) -> Result<()> {
    client
        .batch_execute(
            "drop table if exists tp; create table tp (id bigserial primary key, a smallint, b int, c real, d double precision,
             e text, f bytea, g bool, h int[], i varchar(10), j \"char\", k name, l oid)",
        )
        .await?;
    let statement = client
        .prepare(
            "insert into tp (a, b, c, d, e, f, g, h, i, j, k, l) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
             returning *",
        )
        .await?;
    ensure!(statement.params().first() == Some(&Type::INT2), "{:?}", statement.params());
    let row = client
        .query_one(
            &statement,
            &[
                &7_i16,
                &-5_i32,
                &1.5_f32,
                &1e300_f64,
                &"é",
                &&b"\x00\xff"[..],
                &true,
                &vec![Some(1_i32), None],
                &"short",
                &65_i8,
                &"name",
                &5_u32,
            ],
        )
        .await?;
    let found = (
        row.get::<_, i64>(0),
        row.get::<_, i16>(1),
        row.get::<_, f32>(3),
        row.get::<_, &str>(5),
        row.get::<_, Vec<Option<i32>>>(8),
    );
    ensure!(found == (1, 7, 1.5, "é", vec![Some(1), None]), "{found:?}");
    let error =
        client.query_one("select a, nope from tp", &[]).await.err().context("there is no such column")?;
    ensure!(error.code() == Some(&SqlState::UNDEFINED_COLUMN), "{error:?}");
    Ok(())
}

async fn transactions(client: &mut Client) -> Result<()> {
    let mut transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::Serializable)
        .deferrable(true)
        .start()
        .await?;
    transaction.execute("insert into tp (b) values (1)", &[]).await?;
    {
        let savepoint = transaction.savepoint("inner").await?;
        savepoint.execute("insert into tp (b) values (2)", &[]).await?;
        savepoint.rollback().await?;
    }
    let statement = transaction.prepare("select generate_series(1, 100)").await?;
    let portal = transaction.bind(&statement, &[]).await?;
    let mut count = 0;
    loop {
        let rows = transaction.query_portal(&portal, 30).await?;
        if rows.is_empty() {
            break;
        }
        count += rows.len();
    }
    ensure!(count == 100, "{count} rows of a portal");
    transaction.commit().await?;
    let row = client.query_one("select count(*) from tp where b in (1, 2)", &[]).await?;
    ensure!(row.get::<_, i64>(0) == 1, "a savepoint was not rolled back");
    Ok(())
}

async fn copies(client: &Client) -> Result<()> {
    client.batch_execute("drop table if exists tp_copy; create table tp_copy (a int, b text)").await?;
    let sink = client.copy_in("copy tp_copy from stdin").await?;
    let mut sink = pin!(sink);
    for number in 0..100 {
        sink.send(bytes::Bytes::from(format!("{number}\tx{number}\n"))).await?;
    }
    let count = sink.finish().await?;
    ensure!(count == 100, "{count}");
    let sink = client.copy_in("copy tp_copy from stdin (format binary)").await?;
    let writer = BinaryCopyInWriter::new(sink, &[Type::INT4, Type::TEXT]);
    let mut writer = pin!(writer);
    for number in 100..200_i32 {
        writer.as_mut().write(&[&number, &format!("x{number}")]).await?;
    }
    writer.finish().await?;
    let stream = client.copy_out("copy tp_copy to stdout (format binary)").await?;
    let rows: Vec<_> = BinaryCopyOutStream::new(stream, &[Type::INT4, Type::TEXT]).try_collect().await?;
    let sum: i32 = rows.iter().map(|row| row.get::<i32>(0)).sum();
    ensure!((rows.len(), sum) == (200, (0..200).sum()), "{} rows, {sum}", rows.len());
    let stream = client.copy_out("copy tp_copy to stdout csv").await?;
    let size: usize =
        stream.map_ok(|chunk| chunk.len()).try_fold(0, async |sum, size| Ok(sum + size)).await?;
    ensure!(size > 1000, "{size} bytes");
    Ok(())
}

/// A row with a value of each of some types.
type Everything = (i32, i64, String, sqlx::types::Json<Vec<i32>>, Vec<u8>, Vec<String>);

/// sqlx.
pub(super) fn sqlx(gate: &mut Gate, cluster: &Cluster, runtime: &Runtime) {
    let options = PgConnectOptions::new()
        .host("127.0.0.1")
        .port(cluster.postgres_port(2))
        .username("postgres")
        .database("postgres")
        .application_name("sqlx");
    let pool = PgPoolOptions::new().max_connections(5).acquire_timeout(PATIENCE);
    let pool = runtime.block_on(async { pool.connect_lazy_with(options.clone()) });
    check(gate, runtime, "sqlx values", async {
        sqlx::raw_sql("drop table if exists sx; create table sx (id serial primary key, a bigint, t text, j jsonb, b bytea, l text[])")
            .execute(&pool)
            .await?;
        let row: Everything =
            sqlx::query_as("insert into sx (a, t, j, b, l) values ($1, $2, $3, $4, $5) returning *")
                .bind(1_i64 << 60)
                .bind("é")
                .bind(sqlx::types::Json(vec![1, 2]))
                .bind(&b"\x00\xff"[..])
                .bind(vec!["x", "y"])
                .fetch_one(&pool)
                .await?;
        ensure!(
            row == (
                1,
                1 << 60,
                "é".into(),
                sqlx::types::Json(vec![1, 2]),
                vec![0, 255],
                vec!["x".into(), "y".into()]
            ),
            "{row:?}"
        );
        Ok(())
    });
    check(gate, runtime, "sqlx transactions", async {
        let mut transaction = pool.begin().await?;
        sqlx::query("insert into sx (t) values ('one')").execute(&mut *transaction).await?;
        {
            let mut inner = transaction.begin().await?;
            sqlx::query("insert into sx (t) values ('two')").execute(&mut *inner).await?;
            inner.rollback().await?;
        }
        transaction.commit().await?;
        let count: i64 =
            sqlx::query_scalar("select count(*) from sx where t in ('one', 'two')").fetch_one(&pool).await?;
        ensure!(count == 1, "{count}");
        let error = sqlx::query("insert into sx (id) values (1)")
            .execute(&pool)
            .await
            .err()
            .context("a duplicate")?;
        let error = error.as_database_error().context("an error of the database")?;
        ensure!(error.is_unique_violation() && error.constraint() == Some("sx_pkey"), "{error:?}");
        Ok(())
    });
    check(gate, runtime, "sqlx streams and pools", async {
        let rows = sqlx::query("select g, g * 2 as twice from generate_series(1, 1000) g").fetch(&pool);
        let sum = rows
            .try_fold(0_i64, async |sum, row: PgRow| Ok(sum + i64::from(row.try_get::<i32, _>("twice")?)))
            .await?;
        ensure!(sum == 1_001_000, "{sum}");
        let numbers = futures_util::stream::iter(0..50_i32)
            .map(|number| sqlx::query_scalar::<_, i32>("select $1::int").bind(number).fetch_one(&pool))
            .buffer_unordered(10)
            .try_collect::<Vec<i32>>()
            .await?;
        ensure!(numbers.len() == 50, "{}", numbers.len());
        Ok(())
    });
    check(gate, runtime, "sqlx copy", async {
        let mut conn = sqlx::PgConnection::connect_with(&options).await?;
        sqlx::raw_sql("drop table if exists sx_copy; create table sx_copy (a int, b text)")
            .execute(&mut conn)
            .await?;
        let mut copy = conn.copy_in_raw("copy sx_copy from stdin").await?;
        copy.send(&b"1\tone\n2\ttwo\n"[..]).await?;
        let count = copy.finish().await?;
        ensure!(count == 2, "{count}");
        conn.close().await?;
        Ok(())
    });
    runtime.block_on(pool.close());
}
