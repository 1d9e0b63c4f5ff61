//! Real clusters of real processes: what a user gets from `rustydb dev` and `rustydb-cli`, and what survives kills.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustydb_tests::cluster::{Cluster, PATIENCE, connect, text};
use rustydb_tests::load::{self, Load};

/// `psql` against one node; its standard output.
fn psql(cluster: &Cluster, node: u16, database: &str, sql: &str) -> Result<String> {
    let url = cluster.node(node, database);
    let output =
        Command::new("psql").args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql, &url]).output()?;
    ensure!(output.status.success(), "psql on node {node}: {}\n{}", text(&output), cluster.logs());
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

async fn scalar(client: &tokio_postgres::Client, sql: &str) -> Result<i64> {
    Ok(client.query_one(sql, &[]).await?.get(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_serves_psql_cli_and_http_on_every_node() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    psql(&cluster, 1, "postgres", "CREATE TABLE t (id bigint PRIMARY KEY, name text NOT NULL)")?;
    for node in cluster.node_numbers() {
        psql(&cluster, node, "postgres", &format!("INSERT INTO t VALUES ({node}, 'from node {node}')"))?;
    }
    for node in cluster.node_numbers() {
        assert_eq!(psql(&cluster, node, "postgres", "SELECT count(*), sum(id) FROM t")?, "3|6");
        assert_eq!(cluster.http(node, "/health")?.0, 200);
        assert_eq!(cluster.http(node, "/ready")?.0, 200);
        let (code, metrics) = cluster.http(node, "/metrics")?;
        ensure!(
            code == 200 && metrics.contains("rustydb_consensus_term{database=\"postgres\"}"),
            "{metrics}"
        );
    }
    let status = cluster.status(2)?;
    assert_eq!(status["answered_by"], 2);
    assert_eq!(status["nodes"].as_array().map(Vec::len), Some(3));
    ensure!(
        status["nodes"].as_array().is_some_and(|nodes| nodes.iter().all(|n| n["health"] == "up")),
        "{status}"
    );
    for arguments in [
        &["cluster", "wait-leader", "--timeout", "10s"][..],
        &["cluster", "status", "--node", "node-3", "--show-versions"],
        &["node", "info", "2", "--show-term"],
        &["raft", "status"],
    ] {
        let output = cluster.cli(1, arguments)?;
        ensure!(output.status.success(), "{arguments:?}: {}", text(&output));
    }
    let raft = cluster.cli(3, &["raft", "status", "--json"])?;
    let raft: serde_json::Value = serde_json::from_slice(&raft.stdout)?;
    for field in [
        "term",
        "state",
        "leader_id",
        "last_log_index",
        "commit_index",
        "last_applied",
        "uncommitted_entries",
    ] {
        ensure!(!raft["groups"][0][field].is_null(), "raft status has no {field}: {raft}");
    }
    let output = cluster.cli(2, &["query", "SELECT count(*) AS n FROM t", "--json"])?;
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).with_context(|| text(&output))?;
    assert_eq!(rows[0]["rows"][0][0], 3);
    let output = cluster.cli(2, &["query", "DROP TABLE IF EXISTS nope"])?;
    let notice = "table \"nope\" does not exist, skipping";
    ensure!(output.status.success() && text(&output).contains(notice), "{}", text(&output));
    let output = cluster.cli(2, &["query", "SELECT nothing FROM t"])?;
    ensure!(output.status.code() == Some(1) && text(&output).contains("42703"), "{}", text(&output));

    cluster.interrupt()?;
    for node in cluster.node_numbers() {
        ensure!(cluster.connect(node, "postgres").await.is_err(), "node {node} still listens");
    }
    cluster.up()?;
    assert_eq!(psql(&cluster, 3, "postgres", "SELECT count(*), sum(id) FROM t")?, "3|6");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_of_the_leader_under_load_loses_and_doubles_nothing() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    let everywhere = cluster.everywhere("postgres");
    load::prepare(&connect(&everywhere).await?, 4).await?;
    let load = Load::start(&everywhere, 4);
    load.wait_for_progress(Instant::now(), PATIENCE).await?;
    for round in 0..3 {
        let leader = cluster.leader("postgres")?;
        let killed = Instant::now();
        cluster.kill(leader)?;
        load.wait_for_progress(killed + Duration::from_millis(1), PATIENCE)
            .await
            .with_context(|| format!("round {round}, node {leader} killed\n{}", cluster.logs()))?;
        cluster.wait_for_line(|line| line.contains(&format!("node {leader} died")), PATIENCE)?;
        // The CLI still answers, from whichever node it can reach.
        ensure!(cluster.status(leader)?["voters_up"] == 2, "status with a dead node");
        cluster.start_node(leader)?;
    }
    let report = load.finish(&connect(&everywhere).await?).await?;
    ensure!(report.acknowledged > 0, "{report:?}");

    let client = connect_patiently(&everywhere).await?;
    let rows = scalar(&client, "SELECT count(*) FROM history").await?;
    assert_eq!(usize::try_from(rows)?, report.rows);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_of_all_nodes_at_once_under_load_loses_nothing() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    let everywhere = cluster.everywhere("postgres");
    load::prepare(&connect(&everywhere).await?, 4).await?;
    let load = Load::start(&everywhere, 4);
    load.wait_for_progress(Instant::now(), PATIENCE).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.kill_all()?;
    cluster.up()?;
    load.wait_for_progress(Instant::now(), PATIENCE).await?;
    let report = load.finish(&connect(&everywhere).await?).await?;
    ensure!(report.rows >= report.acknowledged, "{report:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_come_and_go_while_nodes_die() -> Result<()> {
    let cluster = Cluster::start(3)?;
    for (round, victim) in [1_u16, 2, 3].into_iter().enumerate() {
        let name = format!("d{round}");
        let target = cluster.everywhere("postgres");
        let create = {
            let name = name.clone();
            tokio::spawn(async move { create_until_there(&target, &name).await })
        };
        tokio::time::sleep(Duration::from_millis(20 * u64::try_from(round)?)).await;
        cluster.kill(victim)?;
        create.await?.with_context(|| cluster.logs())?;
        let client = connect_patiently(&cluster.everywhere(&name)).await?;
        client.batch_execute("CREATE TABLE t (id bigint PRIMARY KEY)").await?;
        client.execute("INSERT INTO t VALUES (1)", &[]).await?;
        cluster.start_node(victim)?;
        let there = connect_patiently(&cluster.everywhere(&name)).await?;
        assert_eq!(scalar(&there, "SELECT count(*) FROM t").await?, 1);
    }
    drop_until_gone(&cluster, "d0").await?;
    for node in cluster.node_numbers() {
        let taken = cluster.connect(node, "d0").await;
        ensure!(taken.is_err(), "node {node} takes sessions of a dropped database\n{}", cluster.logs());
    }
    // The files of a dropped group go, on every node.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = cluster.status(1)?;
        let names: Vec<&str> = status["databases"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|row| row["name"].as_str())
            .collect();
        if names == ["postgres", "d1", "d2"] {
            break;
        }
        ensure!(Instant::now() < deadline, "databases are {names:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_told_of_a_change_of_the_cluster_finds_it_on_every_node() -> Result<()> {
    let cluster = Cluster::start(3)?;
    let admin = cluster.connect(1, "postgres").await?;
    for round in 0..5 {
        admin.batch_execute(&format!("CREATE ROLE r{round} LOGIN")).await?;
        admin.batch_execute(&format!("CREATE DATABASE d{round}")).await?;
        for node in cluster.node_numbers() {
            let port = cluster.postgres_port(node);
            let target = format!("host=127.0.0.1 port={port} user=r{round} dbname=d{round}");
            let client = connect(&target).await.with_context(|| format!("node {node}, round {round}"))?;
            assert_eq!(scalar(&client, "SELECT count(*) FROM pg_class WHERE relname = 'none'").await?, 0);
        }
        admin.batch_execute(&format!("DROP DATABASE d{round}")).await?;
        for node in cluster.node_numbers() {
            let taken = cluster.connect(node, &format!("d{round}")).await;
            ensure!(taken.is_err(), "node {node} takes sessions of a dropped database, round {round}");
        }
    }
    Ok(())
}

/// Creates a database, again and again while nodes die under it.
async fn create_until_there(target: &str, name: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let failure = match connect(target).await {
            Ok(client) => match client.batch_execute(&format!("CREATE DATABASE {name}")).await {
                Ok(()) => return Ok(()),
                Err(error) if error.code().is_some_and(|code| code.code() == "42P04") => return Ok(()),
                Err(error) => format!("{error:?}"),
            },
            Err(error) => error.to_string(),
        };
        ensure!(Instant::now() < deadline, "{name} was not created: {failure}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn drop_until_gone(cluster: &Cluster, name: &str) -> Result<()> {
    let client = connect_patiently(&cluster.everywhere("postgres")).await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.batch_execute(&format!("DROP DATABASE {name}")).await {
            Ok(()) => return Ok(()),
            Err(error) => ensure!(Instant::now() < deadline, "{name} was not dropped: {error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Connection string that names every node but one: a stopped one takes connections and answers nothing.
fn without(cluster: &Cluster, stopped: u16) -> String {
    let ports: Vec<String> = cluster
        .node_numbers()
        .filter(|node| *node != stopped)
        .map(|node| cluster.postgres_port(node).to_string())
        .collect();
    let hosts = vec!["127.0.0.1"; ports.len()].join(",");
    format!("host={hosts} port={} user=postgres dbname=postgres connect_timeout=2", ports.join(","))
}

async fn connect_patiently(target: &str) -> Result<tokio_postgres::Client> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match connect(target).await {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_leader_serves_no_stale_read_when_it_goes_on() -> Result<()> {
    let cluster = Cluster::start(3)?;
    let leader = cluster.leader("postgres")?;
    let old = cluster.connect(leader, "postgres").await?;
    old.batch_execute("CREATE TABLE t (id bigint PRIMARY KEY, n bigint NOT NULL)").await?;
    old.batch_execute("INSERT INTO t VALUES (1, 0)").await?;
    let read = old.prepare("SELECT n FROM t WHERE id = 1").await?;
    old.query_one(&read, &[]).await?;

    cluster.signal(leader, "STOP")?;
    let deadline = Instant::now() + PATIENCE;
    let mut written = 0_i64;
    let new = connect_patiently(&without(&cluster, leader)).await?;
    while written < 5 {
        match new.execute("UPDATE t SET n = n + 1 WHERE id = 1", &[]).await {
            Ok(_) => written += 1,
            Err(error) => ensure!(Instant::now() < deadline, "no new leader: {error:?}\n{}", cluster.logs()),
        }
    }
    let seen = scalar(&new, "SELECT n FROM t WHERE id = 1").await?;
    // The read is under way before the old leader wakes, so that it is the first thing that it does.
    let stale = tokio::spawn(async move { old.query_one(&read, &[]).await.map(|row| row.get::<_, i64>(0)) });
    tokio::time::sleep(Duration::from_millis(200)).await;
    cluster.signal(leader, "CONT")?;
    match tokio::time::timeout(PATIENCE, stale).await.context("the old leader does not answer")?? {
        Ok(value) => ensure!(value >= seen, "the old leader served {value} after {seen} was acknowledged"),
        // An error is an honest answer.
        Err(error) => println!("the old leader answered {error}"),
    }
    Ok(())
}

/// What `pg_dump` writes of a database, without the lines that differ from run to run.
fn dump(cluster: &Cluster, node: u16, database: &str) -> Result<String> {
    let url = cluster.node(node, database);
    let output = Command::new("pg_dump").arg(&url).output()?;
    ensure!(output.status.success(), "pg_dump of {database}: {}\n{}", text(&output), cluster.logs());
    let lines = String::from_utf8(output.stdout)?;
    let lines = lines.lines().filter(|line| !line.contains("restrict "));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// Runs a file of SQL through `psql`.
fn run_file(cluster: &Cluster, node: u16, database: &str, path: &std::path::Path) -> Result<()> {
    let url = cluster.node(node, database);
    let output = Command::new("psql")
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"])
        .arg(path)
        .arg(&url)
        .output()?;
    ensure!(output.status.success(), "{}: {}\n{}", path.display(), text(&output), cluster.logs());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_restores_what_it_was_taken_of() -> Result<()> {
    let cluster = Cluster::start(3)?;
    let schema = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("dump/schema.sql");
    run_file(&cluster, 1, "postgres", &schema)?;
    let taken = dump(&cluster, 2, "postgres")?;
    ensure!(
        taken.contains("FOREIGN KEY (customer_id) REFERENCES app.customer(id) ON DELETE CASCADE"),
        "{taken}"
    );
    ensure!(taken.contains("COPY public.tree"), "{taken}");
    psql(&cluster, 3, "postgres", "CREATE DATABASE copy")?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("dump.sql");
    std::fs::write(&path, &taken)?;
    run_file(&cluster, 3, "copy", &path)?;
    let again = dump(&cluster, 1, "copy")?;
    ensure!(taken == again, "{taken}\n---- restored, it is\n{again}");
    // Numbers go on where they were.
    let inserted =
        psql(&cluster, 1, "copy", "INSERT INTO app.\"order\" (customer_id) VALUES (2) RETURNING id")?;
    assert_eq!(inserted.lines().next(), Some("4"));
    assert_eq!(psql(&cluster, 2, "copy", "SELECT nextval('lone')")?, "16");
    Ok(())
}
