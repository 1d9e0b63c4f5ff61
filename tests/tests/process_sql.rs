//! The SQL logic tests over the wire, on a cluster of one node and on one of three.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use rustydb_tests::cluster::Cluster;
use rustydb_tests::slt;
use tokio_postgres::error::SqlState;

/// Drops all that the files before have left, since each begins in an empty database.
async fn clear(client: &tokio_postgres::Client) -> Result<()> {
    let schemas = "SELECT nspname::text FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema$)'";
    for row in client.query(schemas, &[]).await? {
        client.batch_execute(&format!("DROP SCHEMA \"{}\" CASCADE", row.get::<_, String>(0))).await?;
    }
    // As a new database has it.
    let made = "CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO public";
    client.batch_execute(made).await?;
    Ok(())
}

async fn run_all(nodes: u16) -> Result<()> {
    let cluster = Cluster::start(nodes)?;
    // The last node leads nothing at first: its sessions are forwarded.
    let target = cluster.node(nodes, "postgres");
    for file in slt::files()? {
        clear(&cluster.connect(nodes, "postgres").await?).await?;
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

/// Takes jobs from a queue until there is none to be had; which it took, and how often it was not told.
async fn worker(client: tokio_postgres::Client, take: &'static str) -> Result<(Vec<i32>, usize)> {
    let (mut taken, mut unknown, mut refused) = (Vec::new(), 0, 0);
    loop {
        match client.query(take, &[]).await {
            Ok(rows) if rows.is_empty() => return Ok((taken, unknown)),
            Ok(rows) => taken.extend(rows.iter().map(|row| row.get::<_, i32>(0))),
            // On a busy machine another node may be elected meanwhile.
            Err(error) => match error.code().map(SqlState::code) {
                Some("40001") if refused < 20 => refused += 1,
                Some("08007") => unknown += 1,
                _ => return Err(error.into()),
            },
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_gives_each_job_to_one_worker_on_whatever_node() -> Result<()> {
    const JOBS: i32 = 60;
    let cluster = Cluster::start(3)?;
    let owner = cluster.connect(1, "postgres").await?;
    owner.batch_execute("CREATE TABLE job (id int PRIMARY KEY, state text NOT NULL)").await?;
    for take in [
        "UPDATE job SET state = 'taken' WHERE id = (SELECT id FROM job WHERE state = 'new' ORDER BY id LIMIT 1 \
         FOR UPDATE SKIP LOCKED) RETURNING id",
        // Without SKIP LOCKED a worker waits, looks again at what it waited for, and takes nothing twice.
        "UPDATE job SET state = 'taken' WHERE state = 'new' AND id IN (SELECT id FROM job WHERE state = 'new' \
         ORDER BY id LIMIT 3 FOR NO KEY UPDATE) RETURNING id",
    ] {
        owner.execute("DELETE FROM job", &[]).await?;
        owner.execute("INSERT INTO job SELECT g, 'new' FROM generate_series(1, $1) g", &[&JOBS]).await?;
        let mut workers = Vec::new();
        for number in 0..6 {
            let client = cluster.connect(number % 3 + 1, "postgres").await?;
            workers.push(tokio::spawn(worker(client, take)));
        }
        let (mut taken, mut unknown) = (Vec::new(), 0);
        for outcome in workers {
            let (its, not_told) = outcome.await??;
            taken.extend(its);
            unknown += not_told;
        }
        // A worker may find nothing while others hold what is left, but somebody takes every job, and once.
        taken.sort_unstable();
        let distinct: BTreeSet<i32> = taken.iter().copied().collect();
        assert_eq!(taken.len(), distinct.len(), "{take}: {taken:?}");
        let left = owner.query_one("SELECT count(*) FROM job WHERE state <> 'taken'", &[]).await?;
        assert_eq!(left.get::<_, i64>(0), 0, "{take}");
        // One statement takes three at most.
        let told = usize::try_from(JOBS)? - taken.len();
        assert!(told <= 3 * unknown, "{take}: {told} jobs were not told, and {unknown} answers: {taken:?}");
    }
    Ok(())
}
