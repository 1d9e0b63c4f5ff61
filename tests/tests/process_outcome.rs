//! The outcome of a transaction, asked for by its token: on every node, after a change of leader, in the words of SQL.

use anyhow::{Context, Result, ensure};
use rustydb_tests::cluster::{Cluster, text};
use tokio_postgres::Client;

async fn word(client: &Client, sql: &str) -> Result<String> {
    Ok(client.query_one(sql, &[]).await.with_context(|| sql.to_owned())?.get(0))
}

/// The SQLSTATE of what fails.
async fn state(client: &Client, sql: &str) -> Result<String> {
    match client.batch_execute(sql).await {
        Ok(()) => Ok("done".to_owned()),
        Err(error) => Ok(error.code().context("no SQLSTATE")?.code().to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_are_told_by_token_at_every_node_and_never_change() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    let client = cluster.connect(1, "postgres").await?;
    client.batch_execute("CREATE TABLE t (id bigint)").await?;
    let token = "SELECT rustydb_transaction_token()";
    let ask = |token: &str| format!("SELECT rustydb_transaction_outcome('{token}')");

    client.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await?;
    let committed = word(&client, token).await?;
    ensure!(word(&client, token).await? == committed, "one transaction has one token");
    ensure!(word(&client, &ask(&committed)).await? == "in progress");
    client.batch_execute("COMMIT").await?;

    let other = cluster.connect(2, "postgres").await?;
    other.batch_execute("BEGIN; INSERT INTO t VALUES (2)").await?;
    let rolled_back = word(&other, token).await?;
    other.batch_execute("ROLLBACK").await?;

    // Nothing was written, and it is committed all the same.
    let empty = cluster.connect(3, "postgres").await?;
    empty.batch_execute("BEGIN").await?;
    let without_rows = word(&empty, token).await?;
    empty.batch_execute("COMMIT").await?;

    // To ask for one that goes on is to end it.
    let open = cluster.connect(3, "postgres").await?;
    open.batch_execute("BEGIN; INSERT INTO t VALUES (3)").await?;
    let fenced = word(&open, token).await?;
    ensure!(word(&client, &ask(&fenced)).await? == "aborted");
    ensure!(state(&open, "COMMIT").await? == "40001");

    let outcomes = [
        (&committed, "committed"),
        (&rolled_back, "aborted"),
        (&without_rows, "committed"),
        (&fenced, "aborted"),
    ];
    for node in cluster.node_numbers() {
        let client = cluster.connect(node, "postgres").await?;
        for (token, outcome) in outcomes {
            ensure!(word(&client, &ask(token)).await? == outcome, "{token} at node {node}");
        }
        let values: Vec<String> = outcomes.iter().map(|(token, _)| format!("('{token}')")).collect();
        let sql = format!(
            "SELECT string_agg(rustydb_transaction_outcome(k), ',') FROM (VALUES {}) AS tokens(k)",
            values.join(",")
        );
        ensure!(word(&client, &sql).await? == "committed,aborted,committed,aborted");
        let asked = client.query_one("SELECT rustydb_transaction_outcome($1)", &[&committed]).await?;
        ensure!(asked.get::<_, String>(0) == "committed", "by a parameter");
    }

    // The session goes on, and its last two commits are kept.
    client.batch_execute("INSERT INTO t VALUES (4)").await?;
    ensure!(word(&other, &ask(&committed)).await? == "committed");
    let returned = word(&client, "INSERT INTO t VALUES (5) RETURNING rustydb_transaction_token()").await?;
    ensure!(word(&other, &ask(&returned)).await? == "committed");
    ensure!(word(&other, &ask(&committed)).await? == "forgotten");

    ensure!(state(&client, token).await? == "25P01", "outside of a block");
    ensure!(state(&client, "BEGIN READ ONLY; SELECT rustydb_transaction_token()").await? == "25P01");
    client.batch_execute("ROLLBACK").await?;
    ensure!(state(&client, &ask("r1.nothing")).await? == "22023");
    let mistyped = rolled_back.replace("r1.", "r1.1");
    ensure!(state(&client, &ask(&mistyped)).await? == "22023");
    // A made-up token would keep another session from ever committing again, or drop what others may still ask for.
    let parts: Vec<&str> = returned.split('.').collect();
    let [form, database, incarnation, session, .., signature] = parts[..] else {
        anyhow::bail!("{returned}")
    };
    for counter in ["6", "ffffffffffffffff"] {
        for since in ["0", "ffffffffffffffff"] {
            let made_up = [form, database, incarnation, session, counter, since, signature].join(".");
            ensure!(state(&other, &ask(&made_up)).await? == "22023", "{made_up}");
        }
    }
    client.batch_execute("INSERT INTO t VALUES (6)").await?;
    let writes = format!("INSERT INTO t SELECT length(rustydb_transaction_outcome('{returned}'))");
    ensure!(state(&client, &writes).await? == "0A000");
    client.batch_execute("CREATE DATABASE another").await?;
    let elsewhere = cluster.connect(1, "another").await?;
    ensure!(state(&elsewhere, &ask(&returned)).await? == "22023", "of another database");

    // Another leader knows the same.
    let leader = cluster.leader("postgres")?;
    let next = if leader == 1 { 2 } else { 1 };
    let moved = cluster.cli(next, &["node", "lead", &next.to_string()])?;
    ensure!(moved.status.success(), "{}", text(&moved));
    let client = cluster.connect(next, "postgres").await?;
    ensure!(word(&client, &ask(&returned)).await? == "committed");
    ensure!(word(&client, &ask(&fenced)).await? == "aborted");
    cluster.interrupt()
}
