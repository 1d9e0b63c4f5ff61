//! The wall clock is set back by an hour under load: nothing changes for transactions.
//!
//! The servers run with a small C library in front of the system's clock, so that the test sets the clock of real
//! processes and of nothing else on the machine.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustydb_tests::chaos::clocks::shim;
use rustydb_tests::cluster::{PATIENCE, connect, free_base_port};
use rustydb_tests::load::{self, Load};
use rustydb_tests::server::{Server, TRUST_LOOPBACK};

/// Seconds since 1970, as a server's SQL says.
async fn clock_of(server: &Server) -> Result<f64> {
    let client = connect(&server.target("postgres")).await?;
    Ok(client.query_one("SELECT extract(epoch FROM now())::float8", &[]).await?.get(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_set_back_by_an_hour_changes_nothing_for_transactions() -> Result<()> {
    const HOUR: f64 = 3600.0;
    let folder = tempfile::tempdir()?;
    let library = shim(folder.path())?.display().to_string();
    let base_port = free_base_port()?;
    let clocks: Vec<PathBuf> = (1..=3).map(|slot| folder.path().join(format!("clock-{slot}"))).collect();
    let mut servers = Vec::new();
    for (slot, clock) in (1_u16..).zip(&clocks) {
        std::fs::write(clock, "0")?;
        let name = format!("node{slot}");
        let mut server = Server::new(folder.path(), &name, u64::from(slot), base_port, slot, TRUST_LOOPBACK)?
            .with_environment("LD_PRELOAD", &library)
            .with_environment("CLOCK_SHIM_FILE", &clock.display().to_string());
        server.start()?;
        servers.push(server);
    }
    servers[0].cli_json(&["cluster", "init"])?;
    for slot in 1..3 {
        servers[0].cli_json(&["node", "add", &format!("127.0.0.1:{}", servers[slot].interconnect)])?;
    }
    for server in &servers {
        server.wait_ready()?;
    }
    let ports: Vec<String> = servers.iter().map(|server| server.postgres.to_string()).collect();
    let everywhere = format!(
        "host=127.0.0.1,127.0.0.1,127.0.0.1 port={} user=postgres dbname=postgres connect_timeout=2",
        ports.join(",")
    );
    load::prepare(&connect(&everywhere).await?, 3).await?;
    let load = Load::start(&everywhere, 3);
    load.wait_for_progress(Instant::now(), PATIENCE).await?;

    // A snapshot from before the clock is set.
    let before = connect(&servers[1].target("postgres")).await?;
    before.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
    let counted = "SELECT count(*) FROM history";
    let seen: i64 = before.query_one(counted, &[]).await?.get(0);
    let times = [clock_of(&servers[0]).await?, clock_of(&servers[1]).await?, clock_of(&servers[2]).await?];
    for clock in &clocks {
        std::fs::write(clock, "-3600000")?;
    }
    for (server, time) in servers.iter().zip(times) {
        let now = clock_of(server).await?;
        ensure!(now < time - HOUR / 2.0, "the clock was not set back: {time} and then {now}");
    }
    // Commits go on, are seen by those that begin after them, and not by the one that began before.
    load.wait_for_progress(Instant::now(), PATIENCE).await?;
    let again: i64 = before.query_one(counted, &[]).await?.get(0);
    assert_eq!(again, seen, "the snapshot moved");
    before.batch_execute("COMMIT").await?;
    let after: i64 = before.query_one(counted, &[]).await?.get(0);
    ensure!(after > seen, "new commits are not seen: {seen} and then {after}");

    // One clock an hour ahead of the others, and that node leads no more: its successor's time is earlier.
    let leader = servers[0].cli_json(&["cluster", "status"])?["databases"][0]["leader"].as_u64();
    let leader = usize::try_from(leader.context("nobody leads")?)? - 1;
    std::fs::write(&clocks[leader], "3600000")?;
    load.wait_for_progress(Instant::now(), PATIENCE).await?;
    servers[leader].kill()?;
    load.wait_for_progress(Instant::now(), PATIENCE)
        .await
        .context("after the leader with the fast clock died")?;
    servers[leader].start()?;
    servers[leader].wait_ready()?;
    let report = load.finish(&connect(&everywhere).await?).await?;
    ensure!(report.rows >= report.acknowledged && report.acknowledged > 0, "{report:?}");
    Ok(())
}
