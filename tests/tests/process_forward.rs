//! Sessions on a node that does not lead, while leadership moves between the other two: what a client keeps, what it
//! is told, and what is in the table afterwards.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::SinkExt;
use rustydb_tests::cluster::{Cluster, PATIENCE, text};
use rustydb_tests::load::{self, Load};
use rustydb_tests::raw::{Raw, query};
use tokio_postgres::{Client, NoTls};

/// A cluster, and a node that never leads while the test runs.
struct Moving {
    cluster: Cluster,
    /// Where the clients are.
    home: u16,
}

impl Moving {
    fn start() -> Result<Moving> {
        let cluster = Cluster::start(3)?;
        let leader = cluster.leader("postgres")?;
        let home = cluster.node_numbers().rfind(|node| *node != leader).context("no follower")?;
        Ok(Moving { cluster, home })
    }

    /// Hands the database to the other of the two nodes that are not the clients'.
    fn move_leader(&self) -> Result<u16> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let leader = self.cluster.leader("postgres")?;
            let mut others = self.cluster.node_numbers().filter(|node| ![self.home, leader].contains(node));
            let to = others.next().context("no other node")?;
            let output = self.cluster.cli(self.home, &["node", "lead", &to.to_string()])?;
            if output.status.success() {
                return Ok(to);
            }
            // Another change may be under way.
            ensure!(Instant::now() < deadline, "{}\n{}", text(&output), self.cluster.logs());
        }
    }
}

async fn setting(client: &Client, name: &str) -> Result<String> {
    Ok(client.query_one(&format!("SELECT current_setting('{name}')"), &[]).await?.get(0))
}

fn code(error: &tokio_postgres::Error) -> String {
    error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_outlives_moves_of_the_leader() -> Result<()> {
    let moving = Moving::start()?;
    let client = moving.cluster.connect(moving.home, "postgres").await?;
    client.batch_execute("CREATE TABLE t (id bigint PRIMARY KEY, n bigint NOT NULL)").await?;
    client
        .batch_execute("SET TimeZone = 'Europe/Berlin'; SET lock_timeout = '7s'; SET search_path = public")
        .await?;
    client.batch_execute("PREPARE named AS SELECT n FROM t WHERE id = $1").await?;
    let insert = client.prepare("INSERT INTO t VALUES ($1, $2)").await?;
    client.execute(&insert, &[&1_i64, &10_i64]).await?;

    // An idle session notices nothing, and keeps what it has set and prepared.
    moving.move_leader()?;
    assert_eq!(setting(&client, "lock_timeout").await?, "7s");
    assert_eq!(setting(&client, "TimeZone").await?, "Europe/Berlin");
    client.execute(&insert, &[&2_i64, &20_i64]).await?;
    let rows = client.simple_query("EXECUTE named(2)").await?;
    ensure!(format!("{rows:?}").contains("20"), "{rows:?}");
    // What is reset after a move goes back to what the session began with, and stays so after the next.
    client.batch_execute("RESET lock_timeout; RESET TimeZone; DEALLOCATE named").await?;
    assert_eq!(setting(&client, "lock_timeout").await?, "0");
    moving.move_leader()?;
    assert_eq!(setting(&client, "lock_timeout").await?, "0");
    ensure!(setting(&client, "TimeZone").await? != "Europe/Berlin");
    let gone =
        client.batch_execute("EXECUTE named(2)").await.err().context("a deallocated statement is back")?;
    assert_eq!(code(&gone), "26000");

    // An open transaction ends with 40001, and the session goes on.
    client.batch_execute("BEGIN").await?;
    client.execute(&insert, &[&3_i64, &30_i64]).await?;
    moving.move_leader()?;
    let lost = client
        .execute(&insert, &[&4_i64, &40_i64])
        .await
        .err()
        .context("a transaction survived its leader")?;
    assert_eq!(code(&lost), "40001");
    let failed = client.execute("SELECT 1", &[]).await.err().context("a failed block took a statement")?;
    assert_eq!(code(&failed), "25P02");
    client.batch_execute("ROLLBACK").await?;
    client.execute(&insert, &[&5_i64, &50_i64]).await?;

    // COPY, whose leader goes while data comes: an error, nothing of it, and the session goes on.
    let sink = client.copy_in("COPY t FROM STDIN").await?;
    let mut sink = std::pin::pin!(sink);
    sink.send(Bytes::from_static(b"100\t1\n")).await?;
    sink.flush().await?;
    moving.move_leader()?;
    let mut outcome = Ok(0);
    for id in 101..2000 {
        if let Err(error) = sink.send(Bytes::from(format!("{id}\t1\n"))).await {
            outcome = Err(error);
            break;
        }
    }
    if outcome.is_ok() {
        outcome = sink.finish().await;
    }
    let lost = outcome.err().context("a COPY survived its leader")?;
    assert_eq!(code(&lost), "40001");
    let count: i64 = client.query_one("SELECT count(*) FROM t WHERE id >= 100", &[]).await?.get(0);
    assert_eq!(count, 0);

    // A cancel request reaches the statement wherever it runs by now.
    let holder = moving.cluster.connect(moving.home, "postgres").await?;
    holder.batch_execute("BEGIN; UPDATE t SET n = 0 WHERE id = 1").await?;
    let token = client.cancel_token();
    let waits = client.batch_execute("UPDATE t SET n = 1 WHERE id = 1");
    let cancels = async {
        loop {
            token.cancel_query(NoTls).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        outcome = waits => assert_eq!(code(&outcome.err().context("it was not cancelled")?), "57014"),
        failed = cancels => { let failed: Result<(), tokio_postgres::Error> = failed; failed? }
    }
    holder.batch_execute("ROLLBACK").await?;
    let ids: Vec<i64> =
        client.query("SELECT id FROM t ORDER BY id", &[]).await?.iter().map(|row| row.get(0)).collect();
    assert_eq!(ids, [1, 2, 5]);
    Ok(())
}

/// Drivers close a statement when its last user is gone, and look at no answer to that. A block that is lost by then
/// must be told so at what comes next; else its COMMIT ends it as that of a failed block is ended: without an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loss_of_a_block_is_not_told_to_a_close() -> Result<()> {
    let moving = Moving::start()?;
    let client = moving.cluster.connect(moving.home, "postgres").await?;
    client.batch_execute("CREATE TABLE t (id bigint PRIMARY KEY)").await?;
    let kept = client.prepare("INSERT INTO t VALUES ($1)").await?;
    for (id, end) in [(1_i64, "COMMIT"), (2, "INSERT INTO t VALUES (0)"), (3, "ROLLBACK")] {
        client.batch_execute("BEGIN").await?;
        let closed = client.prepare("INSERT INTO t VALUES ($1)").await?;
        client.execute(&closed, &[&id]).await?;
        let killed = moving.cluster.leader("postgres")?;
        moving.cluster.kill(killed)?;
        drop(closed);
        let ended = client.batch_execute(end).await;
        match end {
            "ROLLBACK" => ended?,
            _ => assert_eq!(code(&ended.err().context("a lost block was not told of")?), "40001", "{end}"),
        }
        if id == 2 {
            let failed =
                client.batch_execute("SELECT 1").await.err().context("a failed block took a statement")?;
            assert_eq!(code(&failed), "25P02");
            client.batch_execute("ROLLBACK").await?;
        }
        // The block has ended, and what was not closed is still there.
        client.execute(&kept, &[&(id * 10)]).await?;
        moving.cluster.start_node(killed)?;
        let leader = moving.cluster.leader("postgres")?;
        if leader == moving.home {
            moving.move_leader()?;
        }
    }
    let rows = client.query("SELECT id FROM t ORDER BY id", &[]).await?;
    assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<i64>>(), [10, 20, 30]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_through_a_follower_are_neither_lost_nor_doubled_while_leaders_move_and_die() -> Result<()> {
    let moving = Moving::start()?;
    let cluster = &moving.cluster;
    let home = cluster.node(moving.home, "postgres");
    let client = cluster.connect(moving.home, "postgres").await?;
    load::prepare(&client, 4).await?;
    client.batch_execute("CREATE TABLE autocommitted (n bigint NOT NULL)").await?;
    let load = Load::start(&home, 4);
    load.wait_for_progress(Instant::now(), PATIENCE).await?;
    // Single statements beside it: what ended with an error that says so is not there, the rest is there once.
    let (mut acknowledged, mut unknown) = (0_i64, 0_i64);
    let insert = client.prepare("INSERT INTO autocommitted VALUES ($1)").await?;
    let mut number = 0_i64;
    for round in 0..4 {
        let moved = Instant::now();
        if round == 2 {
            let leader = cluster.leader("postgres")?;
            cluster.kill(leader)?;
            load.wait_for_progress(moved, PATIENCE).await.with_context(|| cluster.logs())?;
            cluster.start_node(leader)?;
        } else {
            moving.move_leader()?;
            load.wait_for_progress(moved, PATIENCE).await.with_context(|| cluster.logs())?;
        }
        for _ in 0..20 {
            number += 1;
            match client.execute(&insert, &[&number]).await {
                Ok(_) => acknowledged += 1,
                Err(error) if code(&error) == "08007" => unknown += 1,
                Err(error) => assert_eq!(code(&error), "40001"),
            }
        }
    }
    let report = load.finish(&client).await?;
    ensure!(report.acknowledged > 0 && report.rows >= report.acknowledged, "{report:?}");
    let row = client.query_one("SELECT count(*), count(DISTINCT n) FROM autocommitted", &[]).await?;
    let (rows, distinct): (i64, i64) = (row.get(0), row.get(1));
    ensure!(rows == distinct, "{rows} rows, {distinct} numbers: something was done twice");
    ensure!(
        (acknowledged..=acknowledged + unknown).contains(&rows),
        "{rows} rows of {acknowledged} acknowledged"
    );
    Ok(())
}

/// The notifications among messages, as `channel=payload`.
fn notifications(messages: &[(u8, Vec<u8>)]) -> Vec<String> {
    let text = |body: &[u8]| {
        let mut parts = body.get(4..).unwrap_or_default().split(|byte| *byte == 0);
        let mut next = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        format!("{}={}", next(), next())
    };
    messages.iter().filter(|(tag, _)| *tag == b'A').map(|(_, body)| text(body)).collect()
}

/// What comes until so many notifications have come, without asking for anything.
fn next_notifications(raw: &mut Raw, count: usize) -> Result<Vec<String>> {
    let mut found = Vec::new();
    while found.len() < count {
        found.extend(notifications(&raw.until(b"A")?));
    }
    Ok(found)
}

#[test]
fn notifications_reach_listeners_on_every_node_in_order_and_survive_the_leader() -> Result<()> {
    let cluster = Cluster::start(3)?;
    let session = |node: u16| Raw::session(cluster.postgres_port(node));
    let (mut first, mut second, mut third) = (session(1)?, session(2)?, session(3)?);
    let run = |raw: &mut Raw, sql: &str| -> Result<Vec<String>> {
        raw.say(&query(sql));
        let told = raw.until(b"Z")?;
        ensure!(told.iter().all(|(tag, _)| *tag != b'E'), "{sql}: {told:?}\n{}", cluster.logs());
        Ok(notifications(&told))
    };
    // What a session has sent comes with its own answer, unless its node is slow.
    let told = |raw: &mut Raw, sql: &str, count: usize| -> Result<Vec<String>> {
        let mut found = run(raw, sql)?;
        found.extend(next_notifications(raw, count.saturating_sub(found.len()))?);
        Ok(found)
    };
    for raw in [&mut first, &mut second, &mut third] {
        run(raw, "LISTEN news; LISTEN \"Other\"")?;
    }
    run(&mut second, "UNLISTEN \"Other\"")?;
    run(&mut first, "CREATE TABLE counters (id int PRIMARY KEY)")?;
    let own = told(
        &mut first,
        "BEGIN; NOTIFY news, 'a'; NOTIFY news, 'a'; SAVEPOINT s; NOTIFY news, 'taken back'; ROLLBACK TO s; \
         NOTIFY \"Other\"; SELECT pg_notify('news', 'b' || i) FROM generate_series(1, 2) i; COMMIT",
        4,
    )?;
    let expected = ["news=a", "Other=", "news=b1", "news=b2"];
    ensure!(own == expected, "{own:?}");
    ensure!(next_notifications(&mut third, 4)? == expected);
    ensure!(next_notifications(&mut second, 3)? == ["news=a", "news=b1", "news=b2"]);
    // None within a block, and none of what is rolled back.
    run(&mut second, "BEGIN")?;
    run(&mut first, "BEGIN; NOTIFY news, 'never'; ROLLBACK")?;
    ensure!(told(&mut third, "NOTIFY news, 'c'", 1)? == ["news=c"]);
    ensure!(next_notifications(&mut first, 1)? == ["news=c"]);
    ensure!(run(&mut second, "SELECT 1")?.is_empty());
    ensure!(run(&mut second, "SELECT pg_listening_channels()")?.is_empty());
    ensure!(told(&mut second, "COMMIT", 1)? == ["news=c"]);
    // With a transaction that is staged, since it is too large for one entry.
    let large = "BEGIN; INSERT INTO counters SELECT generate_series(1, 300000); NOTIFY news, 'large'; COMMIT";
    ensure!(told(&mut first, large, 1)? == ["news=large"]);
    ensure!(next_notifications(&mut second, 1)? == ["news=large"]);
    ensure!(next_notifications(&mut third, 1)? == ["news=large"]);
    // The leader goes; what the others listen on stays.
    let leader = cluster.leader("postgres")?;
    cluster.kill(leader)?;
    let mut left: Vec<&mut Raw> = Vec::new();
    for (node, raw) in [(1, &mut first), (2, &mut second), (3, &mut third)] {
        if node != leader {
            left.push(raw);
        }
    }
    let [one, other] = left.as_mut_slice() else { anyhow::bail!("not two nodes are left") };
    ensure!(told(one, "NOTIFY news, 'd'", 1)? == ["news=d"]);
    ensure!(next_notifications(other, 1)? == ["news=d"]);
    run(other, "UNLISTEN *")?;
    told(one, "NOTIFY news, 'e'", 1)?;
    ensure!(run(other, "SELECT 1")?.is_empty());
    for (sql, code) in [
        ("SELECT pg_notify('', 'x')", "22023"),
        ("SELECT pg_notify('news', repeat('x', 8000))", "22023"),
        ("BEGIN READ ONLY; NOTIFY news", "25006"),
    ] {
        let (_, error) = one.run(sql)?;
        ensure!(error.as_deref() == Some(code), "{sql}: {error:?}");
        one.run("ROLLBACK")?;
    }
    Ok(())
}
