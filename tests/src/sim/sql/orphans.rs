//! Foreign keys under faults: clients write rows that refer and delete what they refer to, at all isolation levels and at
//! all nodes; no row is ever left that refers to nothing.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rustydb_env::Rng;
use rustydb_types::ids::{GroupId, NodeId};

use super::{
    super::{
        cluster::Cluster,
        oracle::Counts,
        run::{Course, Report, Stage, Workload, run},
        stores::{Hashes, Stores},
    },
    connection::{Connection, Request},
    links::Hosts,
    node::SqlNode,
};

const GROUP: GroupId = GroupId::new(2);
const DATABASE: &str = "second";
const SETUP: [&str; 4] = [
    "CREATE TABLE IF NOT EXISTS above (id int PRIMARY KEY, hits int DEFAULT 0)",
    "CREATE TABLE IF NOT EXISTS falls (number bigserial, id int REFERENCES above ON DELETE CASCADE ON UPDATE CASCADE)",
    "CREATE TABLE IF NOT EXISTS holds (number bigserial, id int REFERENCES above)",
    "CREATE TABLE IF NOT EXISTS late (number bigserial, id int REFERENCES above DEFERRABLE INITIALLY DEFERRED)",
];
const BELOW: [&str; 3] = ["falls", "holds", "late"];
const LEVELS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];
/// Few keys, so that clients meet at them.
const KEYS: u64 = 4;
/// A healed cluster may need a moment for a leader.
const TRIES_MAX: usize = 20;

/// Runs clients that write and delete rows of tables which refer to each other.
#[must_use]
pub fn run_orphans(course: Course) -> Report {
    let hashes = Hashes::default();
    let workload = Orphans { seen: Arc::default(), hashes: hashes.clone() };
    let hosts: Mutex<Option<Hosts>> = Mutex::default();
    run(course, workload, |node, network| {
        let hosts = hosts.lock().get_or_insert_with(|| Hosts::new(network.clone())).clone();
        let databases = vec![(GroupId::SYSTEM, "first"), (GROUP, DATABASE)];
        SqlNode::new(node, &databases, hosts, Stores::varied(hashes.clone()))
    })
}

/// What clients were told.
#[derive(Default)]
struct Seen {
    counts: Counts,
    /// SQLSTATEs that no client should see.
    wrong: BTreeSet<String>,
}

#[derive(Clone)]
struct Orphans {
    seen: Arc<Mutex<Seen>>,
    hashes: Hashes,
}

/// One statement, drawn.
fn statement(random: &mut Rng) -> String {
    let key = random.range(1..KEYS + 1);
    let other = random.range(1..KEYS + 1);
    let below = BELOW[usize::try_from(random.range(0..BELOW.len() as u64)).unwrap_or(0)];
    match random.range(0..9) {
        0 | 1 => format!("INSERT INTO above VALUES ({key}) ON CONFLICT DO NOTHING"),
        2..=4 => format!("INSERT INTO {below} (id) VALUES ({key})"),
        5 => format!("DELETE FROM above WHERE id = {key}"),
        6 => format!("UPDATE above SET id = {other} WHERE id = {key}"),
        7 => format!("UPDATE above SET hits = hits + 1 WHERE id = {key}"),
        _ => format!("DELETE FROM {below} WHERE id = {key}"),
    }
}

impl Orphans {
    /// Notes an error; whether the session goes on after it.
    fn refused(&self, sql: &str, code: &str, message: &str) -> bool {
        let mut seen = self.seen.lock();
        match code {
            "23503" | "23505" | "40001" | "40P01" => {
                seen.counts.refused += 1;
                return true;
            }
            // What a client hears of a leader that is gone, has too much to do or a disk that fails, or of none.
            code if ["08", "53", "55", "57", "58"].iter().any(|class| code.starts_with(class)) => {
                seen.counts.unknown += 1;
            }
            code => {
                seen.wrong.insert(format!("{sql}: {code} {message}"));
            }
        }
        false
    }

    /// Looks for rows that refer to nothing: no snapshot may have any. Whether the connection is still good.
    async fn look(&self, stage: &Stage<SqlNode>, connection: &mut Connection, random: &mut Rng) -> bool {
        let below = BELOW[usize::try_from(random.range(0..BELOW.len() as u64)).unwrap_or(0)];
        let Ok(reply) = connection.ask(&stage.cluster, &Request::Simple(orphans_of(below))).await else {
            return false;
        };
        if let Some(failure) = reply.failure {
            return self.refused(&orphans_of(below), &failure.code, &failure.message);
        }
        if !reply.rows.is_empty() {
            self.seen.lock().wrong.insert(format!("rows of {below} refer to nothing: {:?}", reply.rows));
        }
        true
    }

    /// Whether the connection is still good.
    async fn turn(&self, stage: &Stage<SqlNode>, connection: &mut Connection, random: &mut Rng) -> bool {
        if random.range(0..3) == 0 {
            return self.look(stage, connection, random).await;
        }
        let level = LEVELS[usize::try_from(random.range(0..LEVELS.len() as u64)).unwrap_or(0)];
        let mut requests = vec![format!("BEGIN ISOLATION LEVEL {level}")];
        for _ in 0..random.range(1..4) {
            requests.push(statement(random));
        }
        requests.push("COMMIT".to_owned());
        for sql in requests {
            let reply = match connection.ask(&stage.cluster, &Request::Simple(sql.clone())).await {
                Ok(reply) => reply,
                Err(_) => {
                    self.seen.lock().counts.unknown += 1;
                    return false;
                }
            };
            let Some(failure) = reply.failure else {
                // So that others come between.
                stage.cluster.sleep(Duration::from_micros(random.range(0..20_000))).await;
                continue;
            };
            if !self.refused(&sql, &failure.code, &failure.message) {
                return false;
            }
            let ended = connection.ask(&stage.cluster, &Request::Simple("ROLLBACK".to_owned())).await;
            return ended.is_ok_and(|reply| reply.failure.is_none());
        }
        self.seen.lock().counts.acknowledged += 1;
        true
    }
}

impl Workload for Orphans {
    type Machines = SqlNode;

    const OPTION: &'static str = "--orphans";

    async fn client(self, stage: Stage<SqlNode>, _number: u64, mut random: Rng) {
        let mut is_set_up = false;
        while !stage.is_over() {
            let up = stage.cluster.up();
            let node = up.get(usize::try_from(random.range(0..up.len().max(1) as u64)).unwrap_or(0));
            if let Some(mut connection) =
                node.and_then(|node| Connection::open(&stage.cluster, *node, DATABASE))
            {
                if !is_set_up {
                    is_set_up = true;
                    for sql in SETUP {
                        let asked = connection.ask(&stage.cluster, &Request::Simple(sql.to_owned())).await;
                        is_set_up &= asked.is_ok_and(|reply| reply.failure.is_none());
                    }
                }
                for _ in 0..random.range(1..20) {
                    if !is_set_up || stage.is_over() || !self.turn(&stage, &mut connection, &mut random).await
                    {
                        break;
                    }
                    stage.think(&mut random).await;
                }
            }
            stage.cluster.sleep(Duration::from_micros(random.range(100..50_000))).await;
        }
    }

    fn counts(&self) -> Counts {
        self.seen.lock().counts
    }

    async fn check(&self, cluster: &Cluster<SqlNode>) -> Vec<String> {
        let mut wrong = self.hashes.wrong();
        wrong.extend(self.seen.lock().wrong.iter().cloned());
        for node in cluster.ids() {
            for below in BELOW {
                let mut last = Err("the node is down".to_owned());
                for _ in 0..TRIES_MAX {
                    last = orphans(cluster, node, below).await;
                    if last.is_ok() {
                        break;
                    }
                    cluster.sleep(Duration::from_millis(100)).await;
                }
                match last {
                    Ok(orphans) if orphans.is_empty() => {}
                    Ok(orphans) => {
                        wrong.push(format!("rows of {below} at node {node} refer to nothing: {orphans:?}"))
                    }
                    Err(reason) => wrong.push(format!("{below} cannot be read at node {node}: {reason}")),
                }
            }
        }
        wrong
    }
}

fn orphans_of(below: &str) -> String {
    format!("SELECT id FROM {below} WHERE NOT EXISTS (SELECT FROM above WHERE above.id = {below}.id)")
}

/// The keys of rows that refer to nothing.
async fn orphans(cluster: &Cluster<SqlNode>, node: NodeId, below: &str) -> Result<Vec<String>, String> {
    let mut connection = Connection::open(cluster, node, DATABASE).ok_or("the node is down")?;
    match connection.ask(cluster, &Request::Simple(orphans_of(below))).await {
        Ok(reply) => match reply.failure {
            Some(failure) if failure.code == "42P01" => Ok(Vec::new()),
            Some(failure) => Err(format!("{failure:?}")),
            None => Ok(reply.rows.into_iter().filter_map(|row| row.into_iter().next()).collect()),
        },
        Err(lost) => Err(format!("{lost:?}")),
    }
}
