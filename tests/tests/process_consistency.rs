//! `rustydb-cli check consistency` on real clusters: sound, with a node that is down, and with a row that was altered
//! in the engine's file of one node.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustydb_env::Env;
use rustydb_storage::engine::{self, Direction, Durability, EngineKind, KeyRange, Space};
use rustydb_tests::cluster::{Cluster, PATIENCE, text};
use serde_json::Value;

/// What is altered in a row, and to what.
const RIGHT: &[u8] = b"a value to be altered";
const WRONG: &[u8] = b"a value to be Altered";

/// Where stores keep their rows.
const ROWS: Space = Space::new(0);

/// What was said of a replica: database, node, verdict.
type Said = (String, u64, String);

/// Whether all agree, what was said of each replica, and all that was said.
fn check(cluster: &Cluster, more: &[&str]) -> Result<(bool, Vec<Said>, Value)> {
    let arguments: Vec<&str> = ["check", "consistency", "--json"].iter().chain(more).copied().collect();
    let output = cluster.cli(1, &arguments)?;
    let view: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{}\n{}", text(&output), cluster.logs()))?;
    ensure!(output.status.success() == (view["agreed"] == true), "{}", text(&output));
    let mut verdicts = Vec::new();
    for database in view["databases"].as_array().into_iter().flatten() {
        for replica in database["replicas"].as_array().into_iter().flatten() {
            let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let node = replica["node"].as_u64().unwrap_or_default();
            verdicts.push((word(&database["name"]), node, word(&replica["verdict"])));
        }
    }
    Ok((output.status.success(), verdicts, view))
}

/// Looks until something holds.
fn patiently(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds()? {
        ensure!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Changes a value in the engine's file of a node that is down. How many rows were changed.
fn alter(store: &Path) -> Result<usize> {
    let name = std::fs::read_to_string(store.join("CURRENT"))?;
    let name = name.split_whitespace().next().unwrap_or_default();
    let engine = engine::open(EngineKind::Redb, &Env::os(), &store.join(name), 1 << 20)?;
    let mut altered = Vec::new();
    engine.view()?.scan(ROWS, KeyRange::ALL, Direction::Forward, &mut |key, row| {
        if let Some(place) = row.windows(RIGHT.len()).position(|window| window == RIGHT) {
            let mut wrong = row.to_vec();
            wrong.splice(place..place + RIGHT.len(), WRONG.iter().copied());
            altered.push((key.to_vec(), wrong));
        }
        ControlFlow::Continue(())
    })?;
    engine.write(Durability::Synced, &mut |writer| {
        altered.iter().try_for_each(|(key, row)| writer.put(ROWS, key, row))
    })?;
    Ok(altered.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_was_altered_on_disk_is_found_and_repaired() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::at(folder.path(), 3)?;
    cluster.up()?;
    let client = cluster.connect(1, "postgres").await?;
    client.batch_execute("CREATE TABLE t (id bigint PRIMARY KEY, note text)").await?;
    client
        .execute(
            "INSERT INTO t SELECT n, CASE WHEN n = 77 THEN 'a value to be altered' ELSE 'other' END \
             FROM generate_series(1, 1000) AS s(n)",
            &[],
        )
        .await?;
    drop(client);

    let (agreed, verdicts, view) = check(&cluster, &[])?;
    ensure!(agreed && verdicts.len() == 6, "{view:#}");
    let replicas = &view["databases"][1]["replicas"];
    for field in ["node", "term", "index", "stored", "kept", "rows", "verdict"] {
        ensure!(!replicas[2][field].is_null(), "no {field}: {view:#}");
    }
    ensure!(replicas[0]["index"] == replicas[1]["index"], "not one position: {view:#}");
    let shown = cluster.cli(2, &["check", "consistency", "-d", "postgres"])?;
    ensure!(shown.status.success() && text(&shown).contains("STORED HASH"), "{}", text(&shown));
    let unknown = cluster.cli(2, &["check", "consistency", "-d", "nope"])?;
    ensure!(unknown.status.code() == Some(1) && text(&unknown).contains("nope"), "{}", text(&unknown));

    // A node that does not answer is said to, and the others are looked at.
    cluster.kill(3)?;
    let (agreed, verdicts, view) = check(&cluster, &["-d", "postgres"])?;
    let said: Vec<&str> = verdicts.iter().map(|(_, _, verdict)| verdict.as_str()).collect();
    ensure!(!agreed && said == ["ok", "ok", "failed"], "{view:#}");
    ensure!(view.to_string().contains("does not answer"), "{view:#}");
    cluster.start_node(3)?;

    // What lies in the file of node 2 is altered while everything is down.
    patiently("node 2 has flushed everything", || {
        Ok(cluster.http(2, "/metrics")?.1.lines().any(|line| line == "rustydb_txn_unflushed_bytes 0"))
    })?;
    let group = cluster.status(1)?["databases"][0]["group"].as_u64().context("a group")?;
    cluster.interrupt()?;
    ensure!(alter(&cluster.data().join(format!("node-2/groups/{group}")))? == 1, "no row was altered");
    cluster.up()?;
    let (agreed, verdicts, view) = check(&cluster, &["-d", "postgres"])?;
    let said: Vec<&str> = verdicts.iter().map(|(_, _, verdict)| verdict.as_str()).collect();
    ensure!(!agreed && said == ["ok", "damaged", "ok"], "{view:#}");

    let (agreed, _, view) = check(&cluster, &["-d", "postgres", "--repair"])?;
    ensure!(!agreed && view["databases"][0]["replicas"][1]["repairing"] == true, "{view:#}");
    patiently("node 2 is repaired", || {
        let (_, metrics) = cluster.http(2, "/metrics")?;
        Ok(metrics.contains("rustydb_consensus_repairs_total{database=\"postgres\"} 1"))
    })?;
    let (agreed, _, view) = check(&cluster, &["-d", "postgres"])?;
    ensure!(agreed, "{view:#}");
    ensure!(
        cluster.data().join(format!("node-2/groups/{group}/diverged")).exists(),
        "nothing was kept aside"
    );
    // Led by the repaired node, the row is what it was.
    let led = cluster.cli(1, &["node", "lead", "2"])?;
    ensure!(led.status.success(), "{}", text(&led));
    let row =
        cluster.connect(2, "postgres").await?.query_one("SELECT note FROM t WHERE id = 77", &[]).await?;
    ensure!(row.get::<_, String>(0).as_bytes() == RIGHT);
    Ok(())
}
