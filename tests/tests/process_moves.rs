//! What a session is told while the leader is killed, stands still or hands over: single statements outside of blocks
//! are answered, not refused, and each is done once; what was told is so.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustydb_tests::cluster::{Cluster, PATIENCE, connect, text};
use rustydb_tests::raw::{Raw, bind, execute, message, parse, query, sqlstate};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, SimpleQueryMessage, Statement};

/// How a client sends its statements.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// One statement as text.
    Simple,
    /// Two statements in one message, which are one transaction.
    Batch,
    /// Prepared once, then run with parameters.
    Prepared,
    /// One statement as text that answers the new value.
    Returning,
}

const FORMS: [Form; 4] = [Form::Simple, Form::Batch, Form::Prepared, Form::Returning];

/// What a client was told, in all.
#[derive(Default)]
struct Told {
    /// Statements that were answered with success.
    done: AtomicI64,
    /// Statements of which nobody can say.
    unknown: AtomicI64,
    /// What else was said, and what was answered wrongly.
    wrong: Mutex<Vec<String>>,
    /// The longest wait for an answer, in milliseconds.
    wait_max_ms: AtomicI64,
}

impl Told {
    fn wrong(&self, what: String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn done(&self) -> i64 {
        self.done.load(Ordering::SeqCst)
    }

    fn unknown(&self) -> i64 {
        self.unknown.load(Ordering::SeqCst)
    }
}

/// A client that adds one to its own row again and again, and reads it in between.
struct Adder {
    node: u16,
    form: Form,
    told: Arc<Told>,
    work: JoinHandle<()>,
}

impl Adder {
    fn start(cluster: &Cluster, node: u16, form: Form, row: i64, stop: &Arc<AtomicBool>) -> Adder {
        let told: Arc<Told> = Arc::default();
        let target = cluster.node(node, "postgres");
        let (memory, stop) = (Arc::clone(&told), Arc::clone(stop));
        let work = tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                // The node may be down.
                if let Ok(client) = connect(&target).await
                    && let Ok(prepared) =
                        client.prepare("UPDATE counters SET n = n + 1 WHERE id = $1 RETURNING n").await
                {
                    add(&client, &prepared, form, row, &memory, &stop).await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Adder { node, form, told, work }
    }
}

/// Adds until the connection ends or it is time to stop.
async fn add(client: &Client, prepared: &Statement, form: Form, row: i64, told: &Told, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        let began = Instant::now();
        // Nothing is in doubt before the first statement: what may be there lies between these two.
        let least = told.done() + 1;
        let result = match form {
            Form::Simple => {
                let sql = format!("UPDATE counters SET n = n + 1 WHERE id = {row}");
                client.batch_execute(&sql).await.map(|()| None)
            }
            Form::Batch => {
                let sql = format!(
                    "UPDATE counters SET n = n + 1 WHERE id = {row}; UPDATE twins SET n = n + 1 WHERE id = {row}"
                );
                client.batch_execute(&sql).await.map(|()| None)
            }
            Form::Prepared => client.query_one(prepared, &[&row]).await.map(|row| Some(row.get::<_, i64>(0))),
            Form::Returning => {
                let sql = format!("UPDATE counters SET n = n + 1 WHERE id = {row} RETURNING n");
                client.simple_query(&sql).await.map(|messages| {
                    messages.iter().find_map(|message| match message {
                        SimpleQueryMessage::Row(row) => row.get(0).and_then(|value| value.parse().ok()),
                        _ => None,
                    })
                })
            }
        };
        let waited = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
        told.wait_max_ms.fetch_max(waited, Ordering::SeqCst);
        match result {
            Ok(value) => {
                told.done.fetch_add(1, Ordering::SeqCst);
                let most = least + told.unknown();
                if value.is_some_and(|value| !(least..=most).contains(&value)) {
                    told.wrong(format!("{value:?} was returned where {least} to {most} could be"));
                }
            }
            Err(error) => match error.code().map(|code| code.code().to_owned()) {
                Some(code) if code == "08007" => {
                    told.unknown.fetch_add(1, Ordering::SeqCst);
                }
                Some(code) => told.wrong(format!("{code}: {error:?}")),
                None => {
                    // The client's own node went.
                    told.unknown.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            },
        }
        // Reads are answered too, and show what was acknowledged.
        match client.query_one("SELECT n FROM counters WHERE id = $1", &[&row]).await {
            Ok(found) => {
                let (found, least) = (found.get::<_, i64>(0), told.done());
                if !(least..=least + told.unknown()).contains(&found) {
                    told.wrong(format!("{found} was read where {least} were acknowledged"));
                }
            }
            Err(error) if error.code().is_none() => return,
            Err(error) => told.wrong(format!("reading: {error:?}")),
        }
    }
}

/// What happens to the leader.
#[derive(Clone, Copy, Debug)]
enum Fault {
    HandOver,
    StandStill,
    Kill,
}

/// Has another node lead.
fn hand_over(cluster: &Cluster, leader: u16, to: u16) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = cluster.cli(leader, &["node", "lead", &to.to_string()])?;
        if output.status.success() {
            return Ok(());
        }
        // Another change may be under way.
        ensure!(Instant::now() < deadline, "{}\n{}", text(&output), cluster.logs());
    }
}

async fn disturb(cluster: &Cluster, fault: Fault) -> Result<Option<u16>> {
    let leader = cluster.leader("postgres")?;
    match fault {
        Fault::HandOver => {
            let to = cluster.node_numbers().find(|node| *node != leader).context("no other node")?;
            hand_over(cluster, leader, to)?;
            Ok(None)
        }
        Fault::StandStill => {
            cluster.signal(leader, "STOP")?;
            Ok(Some(leader))
        }
        Fault::Kill => {
            cluster.kill(leader)?;
            Ok(Some(leader))
        }
    }
}

/// Waits until every client whose node is up has had answers that it asked for after now.
async fn wait_for_progress(cluster: &Cluster, adders: &[Adder], down: Option<u16>) -> Result<()> {
    let before: Vec<i64> = adders.iter().map(|adder| adder.told.done()).collect();
    let deadline = Instant::now() + PATIENCE;
    for (adder, before) in adders.iter().zip(before) {
        // The second answer from now was asked for after now.
        while Some(adder.node) != down && adder.told.done() < before + 2 {
            ensure!(
                Instant::now() < deadline,
                "a client of node {} is not answered\n{}",
                adder.node,
                cluster.logs()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_statements_are_answered_whatever_becomes_of_the_leader() -> Result<()> {
    let cluster = Cluster::start(3)?;
    let client = cluster.connect(1, "postgres").await?;
    client.batch_execute("CREATE TABLE counters (id bigint PRIMARY KEY, n bigint NOT NULL)").await?;
    client.batch_execute("CREATE TABLE twins (id bigint PRIMARY KEY, n bigint NOT NULL)").await?;
    let stop: Arc<AtomicBool> = Arc::default();
    let mut adders = Vec::new();
    for node in cluster.node_numbers() {
        for form in FORMS {
            let row = i64::try_from(adders.len())?;
            client.execute("INSERT INTO counters VALUES ($1, 0)", &[&row]).await?;
            client.execute("INSERT INTO twins VALUES ($1, 0)", &[&row]).await?;
            adders.push(Adder::start(&cluster, node, form, row, &stop));
        }
    }
    drop(client);
    wait_for_progress(&cluster, &adders, None).await?;
    let faults = [Fault::HandOver, Fault::StandStill, Fault::Kill, Fault::HandOver, Fault::StandStill];
    for (round, fault) in faults.into_iter().enumerate() {
        let down = disturb(&cluster, fault).await?;
        wait_for_progress(&cluster, &adders, down)
            .await
            .with_context(|| format!("round {round}: {fault:?}"))?;
        if let (Some(node), Fault::StandStill) = (down, fault) {
            cluster.signal(node, "CONT")?;
        } else if let Some(node) = down {
            cluster.start_node(node)?;
        }
        wait_for_progress(&cluster, &adders, None)
            .await
            .with_context(|| format!("after round {round}: {fault:?}"))?;
    }
    stop.store(true, Ordering::SeqCst);
    let mut wrong = Vec::new();
    let client = cluster.connect(1, "postgres").await?;
    for (row, adder) in adders.into_iter().enumerate() {
        adder.work.await?;
        let row = i64::try_from(row)?;
        let told = &adder.told;
        let counted = |table: &str| format!("SELECT n FROM {table} WHERE id = $1");
        let n: i64 = client.query_one(&counted("counters"), &[&row]).await?.get(0);
        let twin: i64 = client.query_one(&counted("twins"), &[&row]).await?.get(0);
        let who = format!("client of node {}, {:?}", adder.node, adder.form);
        println!(
            "{who}: {} done, {} unknown, waited at most {} ms",
            told.done(),
            told.unknown(),
            told.wait_max_ms.load(Ordering::SeqCst)
        );
        let possible = told.done()..=told.done() + told.unknown();
        if !possible.contains(&n) {
            wrong.push(format!("{who}: {n} of {possible:?}"));
        }
        if matches!(adder.form, Form::Batch) && twin != n {
            wrong.push(format!("{who}: half of a batch: {n} and {twin}"));
        }
        let said = std::mem::take(&mut *told.wrong.lock().unwrap_or_else(PoisonError::into_inner));
        wrong.extend(said.into_iter().map(|what| format!("{who}: {what}")));
    }
    ensure!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), cluster.logs());
    Ok(())
}

/// Waits until a session waits for a lock at the leader.
async fn wait_for_lock_wait(leader: &Client, cluster: &Cluster) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let waiting: i64 =
            leader.query_one("SELECT count(*) FROM pg_locks WHERE NOT granted", &[]).await?.get(0);
        if waiting > 0 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "nobody waits for the lock\n{}", cluster.logs());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_statement_is_not_run_again() -> Result<()> {
    let cluster = Cluster::start(3)?;
    let leader = cluster.leader("postgres")?;
    let others: Vec<u16> = cluster.node_numbers().filter(|node| *node != leader).collect();
    let [gateway, third] = others[..] else { anyhow::bail!("not three nodes") };
    let mut holder = cluster.connect(leader, "postgres").await?;
    holder.batch_execute("CREATE TABLE counters (id bigint PRIMARY KEY, n bigint NOT NULL)").await?;
    holder.batch_execute("INSERT INTO counters VALUES (1, 0)").await?;
    let transaction = holder.transaction().await?;
    transaction.batch_execute("SELECT n FROM counters WHERE id = 1 FOR UPDATE").await?;
    let waiter = cluster.connect(gateway, "postgres").await?;
    let cancel = waiter.cancel_token();
    let waiting =
        tokio::spawn(async move { waiter.batch_execute("UPDATE counters SET n = n + 1 WHERE id = 1").await });
    let observer = cluster.connect(leader, "postgres").await?;
    wait_for_lock_wait(&observer, &cluster).await?;
    // Nobody can lead until the cancel request has been taken.
    cluster.signal(leader, "STOP")?;
    cluster.signal(third, "STOP")?;
    cancel.cancel_query(tokio_postgres::NoTls).await?;
    cluster.signal(third, "CONT")?;
    let told = tokio::time::timeout(PATIENCE, waiting).await.context("the statement is not answered")??;
    let code = told.as_ref().err().and_then(|error| error.code()).map(|code| code.code().to_owned());
    ensure!(code.as_deref() == Some("57014"), "{told:?}\n{}", cluster.logs());
    let client = cluster.connect(gateway, "postgres").await?;
    let n: i64 = client.query_one("SELECT n FROM counters WHERE id = 1", &[]).await?.get(0);
    ensure!(n == 0, "a cancelled statement was done");
    cluster.signal(leader, "CONT")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_falls_half_answered_gets_one_error() -> Result<()> {
    let cluster = Cluster::start(3)?;
    let leader = cluster.leader("postgres")?;
    let gateway = cluster.node_numbers().find(|node| *node != leader).context("no other node")?;
    let client = cluster.connect(leader, "postgres").await?;
    client.batch_execute("CREATE TABLE counters (id bigint PRIMARY KEY, n bigint NOT NULL)").await?;
    client.batch_execute("INSERT INTO counters SELECT id, 0 FROM generate_series(1, 20000) id").await?;
    let mut raw = Raw::session(cluster.postgres_port(gateway))?;
    // More than fits between the client and the leader, so that it is under way until the client reads on.
    let update = parse("", "UPDATE counters SET n = n + 1 WHERE id > 1 RETURNING repeat('x', 2000)");
    raw.say(&[update, bind("", ""), execute("", 0), message(b'H', b"")].concat());
    raw.until(b"D")?;
    hand_over(&cluster, leader, gateway)?;
    let told = raw.until(b"CE")?;
    let (tag, body) = told.last().context("nothing was told")?;
    ensure!(*tag == b'E', "it was told as done\n{}", cluster.logs());
    ensure!(sqlstate(body)? == "40001", "{}\n{}", String::from_utf8_lossy(body), cluster.logs());
    // All up to Sync is skipped, and Sync is answered with one message.
    let update = parse("", "UPDATE counters SET n = n + 1 WHERE id = 1");
    raw.say(&[update, bind("", ""), execute("", 0), message(b'S', b"")].concat());
    let told = raw.until(b"Z")?;
    ensure!(told.len() == 1, "{told:?}\n{}", cluster.logs());
    ensure!(
        raw.run("SELECT n FROM counters WHERE n > 0")? == ("TCZ".to_owned(), None),
        "half of it was done"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_told_of_what_may_never_be() -> Result<()> {
    // What is said of a row that was written, and of one that is gone.
    let clashes = [
        ("INSERT INTO counters VALUES (1, 1)", Some("23505")),
        ("DELETE FROM counters WHERE id = 1 AND 1 / n = 1", Some("22012")),
        ("SELECT n FROM counters WHERE id = 1", None),
        ("SELECT n FROM counters WHERE id = 2", None),
        ("SELECT n FROM counters WHERE id = 2 FOR UPDATE", None),
        ("UPDATE counters SET n = 1 WHERE id = 2", None),
        ("DECLARE c SCROLL CURSOR FOR SELECT n FROM counters WHERE id = 2; FETCH ALL FROM c", None),
        ("DECLARE c CURSOR FOR SELECT n FROM counters WHERE id = 2; FETCH ALL FROM c", None),
        ("DECLARE c CURSOR FOR SELECT n FROM counters WHERE id = 1; MOVE ALL FROM c", None),
    ];
    let cluster = Cluster::start(3)?;
    let leader = cluster.leader("postgres")?;
    let writer = cluster.connect(leader, "postgres").await?;
    writer.batch_execute("CREATE TABLE counters (id bigint PRIMARY KEY, n bigint NOT NULL)").await?;
    writer.batch_execute("INSERT INTO counters VALUES (2, 0)").await?;
    let mut clients = Vec::new();
    for _ in clashes {
        let client = cluster.connect(leader, "postgres").await?;
        // The block has begun before the leader stands alone.
        let begin = "SET statement_timeout = '300ms'; BEGIN; SELECT n FROM counters WHERE id = 3";
        client.batch_execute(begin).await?;
        clients.push(client);
    }
    // Nothing but the commit is left to do: the rest would wait for the lease.
    let both = "BEGIN; INSERT INTO counters VALUES (1, 0); DELETE FROM counters WHERE id = 2";
    writer.batch_execute(both).await?;
    let before = last_log_index(&cluster, leader)?;
    let followers: Vec<u16> = cluster.node_numbers().filter(|node| *node != leader).collect();
    for node in &followers {
        cluster.signal(*node, "STOP")?;
    }
    // It is in the leader's log, and has no majority.
    let writing = tokio::spawn(async move { writer.batch_execute("COMMIT").await });
    let deadline = Instant::now() + PATIENCE;
    while last_log_index(&cluster, leader)? == before {
        ensure!(Instant::now() < deadline, "the entry does not come\n{}", cluster.logs());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let code = |told: &Result<(), tokio_postgres::Error>| {
        told.as_ref().err().and_then(|error| error.code()).map(|code| code.code().to_owned())
    };
    for ((statement, _), client) in clashes.into_iter().zip(&clients) {
        let told = client.batch_execute(statement).await;
        ensure!(code(&told).as_deref() == Some("57014"), "{statement}: {told:?}\n{}", cluster.logs());
    }
    for node in &followers {
        cluster.signal(*node, "CONT")?;
    }
    writing.await?.context("the rows are not written")?;
    for ((statement, expected), client) in clashes.into_iter().zip(&clients) {
        client.batch_execute("ROLLBACK; SET statement_timeout = 0").await?;
        let told = client.batch_execute(&format!("BEGIN; {statement}")).await;
        ensure!(code(&told).as_deref() == expected, "{statement}: {told:?}\n{}", cluster.logs());
        client.batch_execute("ROLLBACK").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_computes_for_a_node_that_is_gone_ends() -> Result<()> {
    let cluster = Cluster::start(3)?;
    let leader = cluster.leader("postgres")?;
    let gateway = cluster.node_numbers().find(|node| *node != leader).context("no other node")?;
    let computing = cluster.connect(gateway, "postgres").await?;
    let lost = tokio::spawn(async move {
        computing.batch_execute("SELECT count(*) FROM generate_series(1, 1000000000000) g").await
    });
    let observer = cluster.connect(leader, "postgres").await?;
    let count = async || -> Result<i64> {
        let active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%1000000000000%' \
                      AND pid <> pg_backend_pid()";
        Ok(observer.query_one(active, &[]).await?.get(0))
    };
    for (wanted, what) in [(1, "it does not begin"), (0, "it goes on for nobody")] {
        let deadline = Instant::now() + PATIENCE;
        while count().await? != wanted {
            ensure!(Instant::now() < deadline, "{what}\n{}", cluster.logs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if wanted == 1 {
            cluster.kill(gateway)?;
        }
    }
    ensure!(lost.await?.is_err(), "a statement that cannot end was answered");
    Ok(())
}

/// Index of the last entry in a node's log of the database.
fn last_log_index(cluster: &Cluster, node: u16) -> Result<u64> {
    let output = cluster.cli(node, &["raft", "status", "--json"])?;
    ensure!(output.status.success(), "raft status: {}", text(&output));
    let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure!(status["node"].as_u64() == Some(u64::from(node)), "another node answered: {status}");
    let groups = status["groups"].as_array().context("no groups")?;
    let group = groups.iter().find(|group| group["name"] == "postgres").context("no group of postgres")?;
    group["last_log_index"].as_u64().context("no last log index")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rode_with_an_answer_that_another_leader_confirmed_is_there() -> Result<()> {
    let cluster = Cluster::start(4)?;
    let leader = cluster.leader("postgres")?;
    let others: Vec<u16> = cluster.node_numbers().filter(|node| *node != leader).collect();
    let [gateway, third, fourth] = others[..] else { anyhow::bail!("not four nodes") };
    let mut raw = Raw::session(cluster.postgres_port(gateway))?;
    let set_up = "CREATE TABLE told (v int); PREPARE old AS SELECT 41";
    ensure!(raw.run(set_up)? == ("CCZ".to_owned(), None), "the table was not made");
    // The leader and the gateway alone get the entry, and then the leader is gone before anyone knows of a majority.
    let before = last_log_index(&cluster, gateway)?;
    cluster.signal(third, "STOP")?;
    cluster.signal(fourth, "STOP")?;
    raw.say(&query(
        "PREPARE new AS SELECT 42; DEALLOCATE old; SET application_name = 'rider'; SET TimeZone = 'Etc/GMT+3'; \
         INSERT INTO told VALUES (1)",
    ));
    let deadline = Instant::now() + PATIENCE;
    while last_log_index(&cluster, gateway)? == before {
        ensure!(Instant::now() < deadline, "the entry does not come\n{}", cluster.logs());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cluster.kill(leader)?;
    cluster.signal(third, "CONT")?;
    cluster.signal(fourth, "CONT")?;
    let told: Vec<u8> = raw.until(b"Z")?.into_iter().map(|(tag, _)| tag).filter(|tag| *tag != b'S').collect();
    ensure!(told == b"CCCCCZ", "{}\n{}", String::from_utf8_lossy(&told), cluster.logs());
    for (sql, tags, error) in [
        ("EXECUTE new", "TDCZ", None),
        ("EXECUTE old", "EZ", Some("26000")),
        ("PREPARE old AS SELECT 43", "CZ", None),
        ("SELECT 1 / (current_setting('TimeZone') = 'Etc/GMT+3')::int", "TDCZ", None),
        ("SELECT 1 / (current_setting('application_name') = 'rider')::int", "TDCZ", None),
        ("SELECT 1 / (count(*) = 1)::int FROM told", "TDCZ", None),
    ] {
        let told = raw.run(sql)?;
        ensure!(told == (tags.to_owned(), error.map(str::to_owned)), "{sql}: {told:?}\n{}", cluster.logs());
    }
    Ok(())
}

fn code(error: &tokio_postgres::Error) -> String {
    error.code().map_or_else(|| format!("{error:?}"), |code| code.code().to_owned())
}

/// Sessions of three nodes over one advisory lock; false when another node was elected meanwhile.
async fn share_a_lock(cluster: &Cluster) -> Result<bool> {
    let leader = cluster.leader("postgres")?;
    let mut clients = Vec::new();
    for node in cluster.node_numbers() {
        clients.push(cluster.connect(node, "postgres").await?);
    }
    let [first, second, third] = <[Client; 3]>::try_from(clients).ok().context("not three nodes")?;
    let observer = cluster.connect(leader, "postgres").await?;
    let scenario = async {
        let held: bool = first.query_one("SELECT pg_try_advisory_lock(7)", &[]).await?.get(0);
        let free: bool = second.query_one("SELECT pg_try_advisory_lock(7)", &[]).await?.get(0);
        let waiting = tokio::spawn(async move {
            let waited = third.batch_execute("SELECT pg_advisory_lock(7)").await;
            (third, waited)
        });
        wait_for_lock_wait(&observer, cluster).await?;
        let released: bool = first.query_one("SELECT pg_advisory_unlock(7)", &[]).await?.get(0);
        let (third, waited) = tokio::time::timeout(PATIENCE, waiting).await??;
        waited?;
        ensure!(held && !free && released, "held {held}, free {free}, released {released}");
        // A row that one has and a lock that the other has.
        third
            .batch_execute("BEGIN; UPDATE counters SET n = n WHERE id = 1; SELECT pg_advisory_xact_lock(8)")
            .await?;
        first.batch_execute("SELECT pg_advisory_lock(9)").await?;
        let row = tokio::spawn(async move {
            let waited = first.batch_execute("UPDATE counters SET n = n WHERE id = 1").await;
            (first, waited)
        });
        wait_for_lock_wait(&observer, cluster).await?;
        let circle = third.batch_execute("SELECT pg_advisory_lock(9)").await;
        let circle = circle.err().map(|error| code(&error));
        ensure!(circle.as_deref() == Some("40P01"), "{circle:?}");
        third.batch_execute("ROLLBACK").await?;
        let (first, waited) = tokio::time::timeout(PATIENCE, row).await??;
        waited?;
        anyhow::Ok((first, third))
    };
    let (first, third) = match scenario.await {
        Ok(done) => done,
        Err(_) if cluster.leader("postgres")? != leader => return Ok(false),
        Err(error) => return Err(error.context(cluster.logs())),
    };
    // The first holds 9, the third holds 7, and the second nothing.
    let to = cluster.node_numbers().find(|node| *node != leader).context("no other node")?;
    hand_over(cluster, leader, to)?;
    for holder in [&first, &third] {
        let told = holder.batch_execute("SELECT 1").await.err().map(|error| code(&error));
        ensure!(told.as_deref() == Some("57P01"), "{told:?}\n{}", cluster.logs());
    }
    let free: i64 = second
        .query_one(
            "SELECT count(*) FROM (VALUES (7), (8), (9)) k(key) WHERE pg_try_advisory_xact_lock(key)",
            &[],
        )
        .await?
        .get(0);
    ensure!(free == 3, "{free} locks are free");
    Ok(true)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_advisory_lock_keeps_others_out_and_does_not_outlive_its_leader_unseen() -> Result<()> {
    let cluster = Cluster::start(3)?;
    let client = cluster.connect(1, "postgres").await?;
    client.batch_execute("CREATE TABLE counters (id bigint PRIMARY KEY, n bigint NOT NULL)").await?;
    client.batch_execute("INSERT INTO counters VALUES (1, 0)").await?;
    for _ in 0..10 {
        if share_a_lock(&cluster).await? {
            return Ok(());
        }
    }
    anyhow::bail!("nodes are elected all the time\n{}", cluster.logs())
}

/// Sessions that have temporary objects, as the leaders of databases counted lately.
fn with_temporary(cluster: &Cluster) -> Result<u64> {
    let mut sum = 0;
    for node in cluster.node_numbers() {
        let (_, metrics) = cluster.http(node, "/metrics")?;
        let name = "rustydb_sql_sessions_with_temporary_objects ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        sum += line.with_context(|| format!("no {name}in {metrics}"))?.trim().parse::<u64>()?;
    }
    Ok(sum)
}

fn wait_for_temporary(cluster: &Cluster, wanted: u64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = with_temporary(cluster)?;
        if found == wanted {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{found} sessions have temporary objects, not {wanted}\n{}",
            cluster.logs()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Compares what a session keeps in its temporary table.
async fn expect(cluster: &Cluster, client: &Client, wanted: &[i32]) -> Result<()> {
    let rows = client.query("SELECT a FROM t ORDER BY a", &[]).await.with_context(|| cluster.logs())?;
    let found: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    ensure!(found == wanted, "{found:?} is kept and not {wanted:?}\n{}", cluster.logs());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn temporary_tables_are_a_sessions_own_move_with_it_and_end_with_it() -> Result<()> {
    let cluster = Cluster::start(3)?;
    let mut clients = Vec::new();
    for node in cluster.node_numbers() {
        let client = cluster.connect(node, "postgres").await?;
        let sql = format!("CREATE TEMP TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES ({node})");
        client.batch_execute(&sql).await?;
        clients.push((node, client));
    }
    let leader = cluster.leader("postgres")?;
    let to = cluster.node_numbers().find(|node| *node != leader).context("no other node")?;
    hand_over(&cluster, leader, to)?;
    for (node, client) in &clients {
        expect(&cluster, client, &[i32::from(*node)]).await?;
        client.batch_execute("INSERT INTO t VALUES (10)").await?;
        client.batch_execute("BEGIN; INSERT INTO t VALUES (20); ROLLBACK").await?;
    }
    wait_for_temporary(&cluster, 3)?;
    // The clients of a leader that is killed are gone with what they had; the others have all.
    let killed = cluster.leader("postgres")?;
    cluster.kill(killed)?;
    clients.retain(|(node, _)| *node != killed);
    for (node, client) in &clients {
        expect(&cluster, client, &[i32::from(*node), 10]).await?;
    }
    cluster.start_node(killed)?;
    // What the sessions of its former life left is found when somebody comes by it.
    let visitor = cluster.connect(killed, "postgres").await?;
    let none: i64 =
        visitor.query_one("SELECT count(*) FROM pg_class WHERE relpersistence = 't'", &[]).await?.get(0);
    ensure!(none == 0, "{none} temporary tables of others are seen");
    wait_for_temporary(&cluster, 2)?;
    for (node, client) in &clients {
        expect(&cluster, client, &[i32::from(*node), 10]).await?;
    }
    // One that ends within a transaction.
    if let Some((_, client)) = clients.first() {
        client.batch_execute("BEGIN; INSERT INTO t VALUES (30)").await?;
    }
    drop(clients);
    wait_for_temporary(&cluster, 0)
}
