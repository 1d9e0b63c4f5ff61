//! The end of a run: what is there, read by SQL, held against all that clients were told and saw.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use rustydb_types::ids::{GroupId, NodeId};

use super::{
    super::{
        cluster::Cluster,
        history::{History, Lists},
    },
    connection::{Connection, Reply, Request},
    node::SqlNode,
    plan::{BATCH_ROWS, BATCHES, COLUMNS, EVENTS, LEDGER, NUMBERS, Step, TABLES, items},
};

/// A healed cluster may need a moment for a leader.
const TRIES_MAX: usize = 20;

/// Checks a database at every node's gateway, and the hash of every replica. Gives what is wrong.
pub async fn database(
    cluster: &Cluster<SqlNode>,
    history: &Mutex<History>,
    group: GroupId,
    name: &str,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut checked = None;
    for node in cluster.ids() {
        match read(cluster, node, name).await {
            Ok((end, found)) => {
                wrong.extend(found);
                if checked.as_ref() != Some(&end) {
                    wrong.extend(history.lock().check(group, &end));
                    checked = Some(end);
                }
            }
            Err(reason) => wrong.push(format!("database {name} cannot be read at node {node}: {reason}")),
        }
        match cluster.machines(node).stores().recompute_hash(group) {
            Ok(true) => {}
            other => wrong
                .push(format!("{name} at node {node}: the hash is not that of what is stored: {other:?}")),
        }
    }
    wrong
}

async fn read(cluster: &Cluster<SqlNode>, node: NodeId, name: &str) -> Result<(Lists, Vec<String>), String> {
    let mut last = String::new();
    for _ in 0..TRIES_MAX {
        match try_read(cluster, node, name).await {
            Ok(read) => return Ok(read),
            Err(reason) => last = reason,
        }
        cluster.sleep(Duration::from_millis(100)).await;
    }
    Err(last)
}

/// Everything by one snapshot, and what is wrong in itself.
async fn try_read(
    cluster: &Cluster<SqlNode>,
    node: NodeId,
    name: &str,
) -> Result<(Lists, Vec<String>), String> {
    let mut connection = Connection::open(cluster, node, name).ok_or("the node is down")?;
    let mut ask = async |sql: &str| -> Result<Reply, String> {
        let reply = connection.ask(cluster, &Request::Simple(sql.to_owned())).await;
        let reply = reply.map_err(|lost| format!("{sql}: {lost:?}"))?;
        reply.failure.as_ref().map_or(Ok(()), |failure| Err(format!("{sql}: {failure:?}")))?;
        Ok(reply)
    };
    let number = |text: &String| text.parse::<u64>().unwrap_or(u64::MAX);
    ask("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
    let mut end = Lists::new();
    for row in ask("SELECT id, items FROM lists").await?.rows {
        if let [id, list] = row.as_slice() {
            end.insert(number(id), items(list));
        }
    }
    let mut unordered = |base: u64, values: &[Vec<String>], prefix: &str| {
        for value in values.iter().filter_map(|row| row.first()) {
            let value =
                value.strip_prefix(prefix).and_then(|value| value.parse().ok()).unwrap_or(u64::MAX >> 8);
            end.entry(base + value).or_default().push(value);
        }
    };
    let events = ask("SELECT id, client FROM events").await?.rows;
    unordered(EVENTS, &events, "");
    unordered(LEDGER, &ask("SELECT id FROM ledger").await?.rows, "");
    let tables = "SELECT tablename FROM pg_tables WHERE tablename LIKE 'made%'";
    unordered(TABLES, &ask(tables).await?.rows, "made_");
    let columns = "SELECT column_name FROM information_schema.columns \
         WHERE table_name = 'events' AND column_name LIKE 'added%'";
    unordered(COLUMNS, &ask(columns).await?.rows, "added_");
    unordered(NUMBERS, &ask("SELECT value FROM numbers").await?.rows, "");
    let batches = ask("SELECT batch, count(*), sum(n) FROM bulk GROUP BY batch").await?.rows;
    unordered(BATCHES, &batches, "");
    let mut wrong = Vec::new();
    let whole = [BATCH_ROWS.to_string(), (BATCH_ROWS * (BATCH_ROWS + 1) / 2).to_string()];
    for batch in batches.iter().filter(|batch| batch.get(1..) != Some(&whole)) {
        wrong.push(format!("{name}: a batch is not whole: {batch:?}"));
    }
    // Each number was taken once, and none was left out.
    let numbers = ask("SELECT count(*), coalesce(max(numbers.number), 0) FROM numbers").await?.rows;
    let counter = ask("SELECT number FROM counters WHERE id = 1").await?.rows;
    let counted = counter.first().and_then(|row| row.first()).cloned().unwrap_or_default();
    if numbers != [[counted.clone(), counted.clone()]] {
        wrong.push(format!("{name}: the counter stands at {counted}, its numbers are {numbers:?}"));
    }
    for step in [Step::Total, Step::Audit] {
        let mut replies = Vec::new();
        for request in step.statements() {
            replies.push(ask(&request).await?);
        }
        wrong.extend(step.saw(&replies).wrong);
    }
    // An index holds the same rows as its table.
    let mut by_client: BTreeMap<String, u64> = BTreeMap::new();
    for client in events.iter().filter_map(|row| row.get(1)) {
        *by_client.entry(client.clone()).or_default() += 1;
    }
    for (client, count) in by_client {
        let counted = ask(&format!("SELECT count(*) FROM events WHERE client = {client}")).await?.rows;
        if counted != [[count.to_string()]] {
            wrong.push(format!(
                "{name}: the index has {counted:?} rows of client {client}, the table {count}"
            ));
        }
    }
    ask("COMMIT").await?;
    Ok((end, wrong))
}
