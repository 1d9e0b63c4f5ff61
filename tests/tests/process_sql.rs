//! The SQL logic tests over the wire, on a cluster of one node and on one of three.

use anyhow::{Context, Result};
use rustydb_tests::cluster::Cluster;
use rustydb_tests::slt;

async fn run_all(nodes: u16) -> Result<()> {
    let cluster = Cluster::start(nodes)?;
    // The last node leads nothing at first: its sessions are forwarded.
    let target = cluster.node(nodes, "postgres");
    for file in slt::files()? {
        slt::run(&target, &file).await.with_context(|| format!("{}\n{}", file.display(), cluster.logs()))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_postgresqls_on_one_node() -> Result<()> {
    run_all(1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_postgresqls_on_three_nodes() -> Result<()> {
    run_all(3).await
}
