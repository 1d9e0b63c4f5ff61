//! A full disk: writes are refused with 53100, reads go on, it recovers by itself, and nothing acknowledged is lost.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustydb_tests::cluster::{PATIENCE, connect, free_base_port};
use rustydb_tests::server::{Server, TRUST_LOOPBACK};
use rustydb_tests::volume::Volume;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

/// Writes rows of some size through any node and remembers which were acknowledged and which refused.
struct Writer {
    next: i64,
    acknowledged: BTreeSet<i64>,
    refused: BTreeSet<i64>,
}

impl Writer {
    /// Inserts one row; the SQLSTATE of a refusal.
    async fn insert(&mut self, client: &Client) -> Result<Option<String>> {
        let id = self.next;
        self.next += 1;
        let parameters: [&(dyn ToSql + Sync); 1] = [&id];
        let insert = client.execute("INSERT INTO t VALUES ($1, repeat('x', 20000))", &parameters);
        let outcome = tokio::time::timeout(PATIENCE, insert).await.context("an insert was never answered")?;
        match outcome {
            Ok(_) => {
                self.acknowledged.insert(id);
                Ok(None)
            }
            Err(error) => {
                let code =
                    error.code().with_context(|| format!("the connection went: {error}"))?.code().to_owned();
                // What cannot be known is neither.
                if code != "08007" {
                    self.refused.insert(id);
                }
                Ok(Some(code))
            }
        }
    }

    /// Inserts until an insert ends as wanted.
    async fn insert_until(&mut self, client: &Client, wanted: Option<&str>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let outcome = self.insert(client).await?;
            if outcome.as_deref() == wanted {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "inserts end with {outcome:?}, not with {wanted:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn check(&self, client: &Client) -> Result<()> {
        let rows = client.query("SELECT id FROM t", &[]).await?;
        let found: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
        ensure!(found.len() == rows.len(), "a row is there twice");
        let missing: Vec<_> = self.acknowledged.difference(&found).collect();
        ensure!(missing.is_empty(), "acknowledged and missing: {missing:?}");
        let strange: Vec<_> = self.refused.intersection(&found).collect();
        ensure!(strange.is_empty(), "refused and there: {strange:?}");
        Ok(())
    }
}

fn figure(server: &Server, name: &str) -> Result<f64> {
    let (_, page) = server.get("/metrics")?;
    let line =
        page.lines().find(|line| line.starts_with(&format!("{name} "))).with_context(|| page.clone())?;
    Ok(line.rsplit(' ').next().context("no value")?.parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_serves_reads_and_recovers() -> Result<()> {
    let base_port = free_base_port()?;
    let volumes = [Volume::new()?, Volume::new()?, Volume::new()?];
    let mut servers = Vec::new();
    for (slot, volume) in (1_u16..).zip(&volumes) {
        let more = format!(
            "[log]\nsegment_size = \"8MiB\"\ndisk_reserve = \"{}B\"\n[storage]\nflush_interval = \"500ms\"\n{TRUST_LOOPBACK}",
            volume.reserve()
        );
        let mut server = Server::new(volume.path(), "node", u64::from(slot), base_port, slot, &more)?;
        server.start()?;
        servers.push(server);
    }
    servers[0].cli_json(&["cluster", "init"])?;
    for slot in 1..3 {
        servers[0].cli_json(&["node", "add", &format!("127.0.0.1:{}", servers[slot].interconnect)])?;
    }
    let mut clients = Vec::new();
    for server in &servers {
        server.wait_ready()?;
        clients.push(connect(&server.target("postgres")).await?);
    }
    clients[0].batch_execute("CREATE TABLE t (id bigint PRIMARY KEY, filler text)").await?;
    let mut writer = Writer { next: 0, acknowledged: BTreeSet::new(), refused: BTreeSet::new() };
    for client in &clients {
        for _ in 0..20 {
            writer.insert_until(client, None).await?;
        }
    }
    let logs = |servers: &[Server]| -> String { servers.iter().map(Server::logged).collect() };

    // The leader's disk alone: another node with room leads, and writes go on wherever they are sent.
    let leader = servers[0].cli_json(&["cluster", "status"])?["databases"][0]["leader"].as_u64();
    let leader = usize::try_from(leader.context("nobody leads")?)? - 1;
    if volumes[leader].is_its_own() {
        volumes[leader].fill()?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = servers[leader].cli_json(&["cluster", "status"])?;
            let leads = status["databases"][0]["leader"].as_u64();
            if leads.is_some_and(|leads| leads != leader as u64 + 1) {
                break;
            }
            ensure!(Instant::now() < deadline, "a full node goes on leading: {status}\n{}", logs(&servers));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for client in &clients {
            writer.insert_until(client, None).await.with_context(|| logs(&servers))?;
        }
        assert_eq!(figure(&servers[leader], "rustydb_storage_log_full")?, 1.0);
    }

    // All disks: no write is taken, every read is answered, nobody dies.
    for (at, volume) in volumes.iter().enumerate() {
        if at != leader || !volume.is_its_own() {
            volume.fill()?;
        }
        if !volume.is_its_own() {
            break;
        }
    }
    for client in &clients {
        writer.insert_until(client, Some("53100")).await.with_context(|| logs(&servers))?;
        writer.check(client).await?;
    }
    for server in &mut servers {
        ensure!(server.is_alive()?, "a server ended:\n{}", server.logged());
        // The leadership may have gone on to a node before that knew its disk to be full: an election, and a moment
        // without a leader.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, body) = server.get("/ready")?;
            if status == 200 {
                break;
            }
            ensure!(Instant::now() < deadline, "a full node is not ready: {body}\n{}", server.logged());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // A follower that has nothing to write looks at its disk now and then only.
        let deadline = Instant::now() + PATIENCE;
        while figure(server, "rustydb_storage_log_full")? != 1.0 {
            ensure!(Instant::now() < deadline, "a full disk is not noticed: {}", server.logged());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    for volume in &volumes {
        if volume.path().join("ballast").exists() {
            volume.free_up()?;
        }
    }
    for client in &clients {
        writer.insert_until(client, None).await.with_context(|| logs(&servers))?;
        for _ in 0..20 {
            writer.insert_until(client, None).await?;
        }
        writer.check(client).await?;
    }
    // What is on the disks is what was acknowledged.
    drop(clients);
    for server in &mut servers {
        server.kill()?;
    }
    for server in &mut servers {
        server.start()?;
    }
    for server in &servers {
        server.wait_ready()?;
        writer.check(&connect(&server.target("postgres")).await?).await?;
    }
    Ok(())
}
