//! Kills a leader at the moment at which clients commit, and has them ask what became of it.
//!
//! ```text
//!   each round:  clients at the leader and at another node open a transaction, write a row, take their token
//!                all send COMMIT ── kill -9 of the leader, a moment before or after
//!                each asks a node that lives for the outcome, then another one: the same, and what is stored agrees
//!                what was aborted is done again; the killed node comes back
//!   at the end:  every row is there once
//! ```
//!
//! The table has no key, so that a row that is written twice shows.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::cluster::{Cluster, PATIENCE};

const DATABASE: &str = "postgres";
/// Clients that commit in a round.
const CLIENTS: u16 = 6;
/// The kill comes at most so long after the COMMITs; a commit takes about as long.
const KILL_WITHIN: Duration = Duration::from_micros(4_000);
/// A client waits no longer than this for the answer to its COMMIT: the connection breaks with the process.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// What clients were told at COMMIT, and what it came to.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// Kills.
    pub kills: u64,
    /// Commits that were acknowledged.
    pub acknowledged: u64,
    /// Commits that were refused.
    pub refused: u64,
    /// Commits without an answer.
    pub in_doubt: u64,
    /// Of those, found committed.
    pub committed: u64,
    /// Of those, found aborted.
    pub aborted: u64,
}

impl Tally {
    /// One line.
    #[must_use]
    pub fn figures(&self) -> String {
        format!(
            "{} kills, {} commits acknowledged, {} refused, {} in doubt: {} committed, {} aborted, 0 unknown",
            self.kills, self.acknowledged, self.refused, self.in_doubt, self.committed, self.aborted
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Acknowledged,
    Refused,
    Nothing,
}

/// A transaction that waits for its COMMIT.
struct Open {
    id: i64,
    token: String,
    client: Client,
}

/// The cluster and what was done with it.
pub struct CommitKill {
    cluster: Cluster,
    next_id: i64,
    tally: Tally,
}

impl CommitKill {
    /// Starts a cluster of three.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn start() -> Result<CommitKill> {
        let cluster = Cluster::start(3)?;
        let client = cluster.connect(1, DATABASE).await?;
        client.batch_execute("CREATE TABLE killed (id bigint NOT NULL)").await?;
        Ok(CommitKill { cluster, next_id: 0, tally: Tally::default() })
    }

    /// What was done so far.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// One kill. `random` says when.
    ///
    /// # Errors
    /// An outcome is unknown, changes, or is not what is stored; or a wait ran out.
    pub async fn round(&mut self, random: u64) -> Result<Value> {
        let leader = self.cluster.leader(DATABASE)?;
        let others: Vec<u16> = self.cluster.node_numbers().filter(|node| *node != leader).collect();
        let [first, second] = others[..] else { bail!("a cluster of three has two other nodes") };
        let places = (0..CLIENTS).map(|client| if client % 2 == 0 { leader } else { first });
        let mut open = Vec::new();
        for place in places {
            self.next_id += 1;
            open.push(begin(&self.cluster, place, self.next_id).await?);
        }
        let kill_after = KILL_WITHIN.mul_f64((random % 1_000) as f64 / 1_000.0);
        let pid = self.cluster.pid(leader)?;
        let killing = tokio::task::spawn_blocking(move || {
            let until = Instant::now() + kill_after;
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            crate::cluster::signal("KILL", pid)
        });
        let ended = join_all(open.into_iter().map(commit)).await;
        killing.await??;
        self.tally.kills += 1;
        let before = self.tally;
        for (id, token, told) in ended {
            self.settle(id, &token, told, [first, second]).await?;
        }
        self.cluster.start_node(leader)?;
        let now = self.tally;
        Ok(json!({
            "leader": leader,
            "kill_after_us": kill_after.as_micros() as u64,
            "acknowledged": now.acknowledged - before.acknowledged,
            "refused": now.refused - before.refused,
            "in_doubt": now.in_doubt - before.in_doubt,
            "committed": now.committed - before.committed,
        }))
    }

    /// Asks for an outcome at two nodes, holds it against what the client was told and what is stored, and does again
    /// what was aborted.
    async fn settle(&mut self, id: i64, token: &str, told: Told, nodes: [u16; 2]) -> Result<()> {
        let outcome = self.ask(nodes[0], token).await?;
        let is_committed = match (outcome.as_str(), told) {
            ("committed", Told::Acknowledged | Told::Nothing) => true,
            ("aborted", Told::Refused | Told::Nothing) => false,
            _ => bail!("row {id}: the client was told {told:?} and the outcome is {outcome} ({token})"),
        };
        match told {
            Told::Acknowledged => self.tally.acknowledged += 1,
            Told::Refused => self.tally.refused += 1,
            Told::Nothing => self.tally.in_doubt += 1,
        }
        if told == Told::Nothing {
            *if is_committed { &mut self.tally.committed } else { &mut self.tally.aborted } += 1;
        }
        let again = self.ask(nodes[1], token).await?;
        ensure!(again == outcome, "row {id}: first {outcome}, then {again} ({token})");
        let client = self.patiently(nodes[1]).await?;
        let count: i64 = client.query_one("SELECT count(*) FROM killed WHERE id = $1", &[&id]).await?.get(0);
        ensure!(
            count == i64::from(is_committed),
            "row {id} is there {count} times and its outcome is {outcome}"
        );
        if !is_committed {
            client.execute("INSERT INTO killed VALUES ($1)", &[&id]).await?;
        }
        Ok(())
    }

    /// The outcome as a node says it.
    async fn ask(&self, node: u16, token: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let client = self.patiently(node).await?;
            match client.query_one("SELECT rustydb_transaction_outcome($1)", &[&token]).await {
                Ok(row) => return Ok(row.get(0)),
                // There may be no leader yet.
                Err(error)
                    if Instant::now() < deadline
                        && error.code().is_none_or(|code| code.code() != "22023") =>
                {
                    tokio::time::sleep(TRY_AGAIN).await;
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("node {node} was asked for {token}"));
                }
            }
        }
    }

    /// A connection to a node, which may have to wait for a leader.
    async fn patiently(&self, node: u16) -> Result<Client> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.cluster.connect(node, DATABASE).await {
                Ok(client) => return Ok(client),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => tokio::time::sleep(TRY_AGAIN).await,
            }
        }
    }

    /// Whether every row is there once, at every node.
    ///
    /// # Errors
    /// Rows are missing or there twice.
    pub async fn check(&self) -> Result<Value> {
        let mut rows = Vec::new();
        for node in self.cluster.node_numbers() {
            let client = self.patiently(node).await?;
            let row = client
                .query_one("SELECT count(*), count(DISTINCT id), coalesce(max(id), 0) FROM killed", &[])
                .await?;
            let (all, distinct, last): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
            ensure!(
                all == distinct && distinct == last && last == self.next_id,
                "node {node}: {all} rows, {distinct} different, of {}",
                self.next_id
            );
            rows.push(all);
        }
        Ok(json!({ "rows_at_each_node": rows }))
    }
}

async fn begin(cluster: &Cluster, node: u16, id: i64) -> Result<Open> {
    let client = cluster.connect(node, DATABASE).await?;
    client.batch_execute("BEGIN").await?;
    client.execute("INSERT INTO killed VALUES ($1)", &[&id]).await?;
    let token = client.query_one("SELECT rustydb_transaction_token()", &[]).await?.get(0);
    Ok(Open { id, token, client })
}

async fn commit(open: Open) -> (i64, String, Told) {
    let Open { id, token, client } = open;
    let told = match tokio::time::timeout(ANSWER_WAIT, client.batch_execute("COMMIT")).await {
        Ok(Ok(())) => Told::Acknowledged,
        Ok(Err(error)) => match error.code().map(tokio_postgres::error::SqlState::code) {
            Some("08007") | None => Told::Nothing,
            Some(_) => Told::Refused,
        },
        Err(_) => Told::Nothing,
    };
    (id, token, told)
}
