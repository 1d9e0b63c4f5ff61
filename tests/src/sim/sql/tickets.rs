//! Numbers of a sequence under faults: whoever takes them, at whichever node, none is given twice.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rustydb_env::Rng;
use rustydb_types::ids::GroupId;

use super::{
    super::{
        cluster::Cluster,
        oracle::Counts,
        run::{Course, Report, Stage, Workload, run},
        stores::{Hashes, Stores},
    },
    connection::{Connection, Reply, Request},
    links::Hosts,
    node::SqlNode,
};

const GROUP: GroupId = GroupId::new(2);
const DATABASE: &str = "second";
const SETUP: [&str; 2] = [
    "CREATE SEQUENCE IF NOT EXISTS tickets MAXVALUE 32767",
    "CREATE TABLE IF NOT EXISTS sold (number bigserial, client int)",
];
/// Of a sequence that is as short as this a block has 32 numbers, so that a client takes one or two at a time.
const TAKE: &str = "SELECT nextval('tickets') FROM generate_series(1, 33)";
/// A healed cluster may need a moment for a leader.
const TRIES_MAX: usize = 20;

/// Runs clients that take numbers of sequences, by themselves and as defaults of rows.
#[must_use]
pub fn run_tickets(course: Course) -> Report {
    let hashes = Hashes::default();
    let workload = Tickets { seen: Arc::default(), hashes: hashes.clone() };
    let hosts: Mutex<Option<Hosts>> = Mutex::default();
    run(course, workload, |node, network| {
        let hosts = hosts.lock().get_or_insert_with(|| Hosts::new(network.clone())).clone();
        let databases = vec![(GroupId::SYSTEM, "first"), (GROUP, DATABASE)];
        SqlNode::new(node, &databases, hosts, Stores::varied(hashes.clone()))
    })
}

/// What clients were shown.
#[derive(Default)]
struct Seen {
    tickets: BTreeSet<i64>,
    /// Numbers of rows, committed or not.
    numbers: BTreeSet<i64>,
    /// Those that were acknowledged.
    sold: BTreeSet<i64>,
    counts: Counts,
    wrong: Vec<String>,
}

#[derive(Clone)]
struct Tickets {
    seen: Arc<Mutex<Seen>>,
    hashes: Hashes,
}

/// The numbers in the first column of an answer.
fn numbers(reply: &Reply) -> impl Iterator<Item = i64> {
    reply.rows.iter().filter_map(|row| row.first()?.parse().ok())
}

impl Tickets {
    /// Notes what a client was shown.
    fn shown(&self, of: fn(&mut Seen) -> &mut BTreeSet<i64>, what: &str, reply: &Reply) -> Vec<i64> {
        let mut seen = self.seen.lock();
        let given: Vec<i64> = numbers(reply).collect();
        for number in &given {
            if !of(&mut seen).insert(*number) {
                seen.wrong.push(format!("{what} {number} was given twice"));
            }
        }
        given
    }

    /// Whether the connection is still good.
    async fn sell(
        &self,
        stage: &Stage<SqlNode>,
        connection: &mut Connection,
        random: &mut Rng,
        number: u64,
    ) -> bool {
        let simple = |sql: &str| Request::Simple(sql.to_owned());
        let insert =
            format!("INSERT INTO sold (client) SELECT {number} FROM generate_series(1, 3) RETURNING number");
        let requests = match random.range(0..5) {
            0 => vec![simple(TAKE)],
            1 => vec![simple(&insert)],
            2 => vec![simple("BEGIN"), simple(TAKE), simple(&insert), simple("COMMIT")],
            3 => vec![simple("BEGIN ISOLATION LEVEL SERIALIZABLE"), simple(&insert), simple("COMMIT")],
            _ => vec![simple("BEGIN"), simple(&insert), simple(TAKE), simple("ROLLBACK")],
        };
        let is_given_up = requests.last() == Some(&simple("ROLLBACK"));
        let mut sold = Vec::new();
        for request in &requests {
            let reply = match connection.ask(&stage.cluster, request).await {
                Ok(reply) if reply.failure.is_none() => reply,
                // An answer that ends with an error may have begun: what was shown was shown.
                Ok(_) | Err(_) => {
                    self.seen.lock().counts.unknown += u64::from(!is_given_up);
                    return false;
                }
            };
            if *request == simple(TAKE) {
                self.shown(|seen| &mut seen.tickets, "ticket", &reply);
            } else if *request == simple(&insert) {
                sold.extend(self.shown(|seen| &mut seen.numbers, "number", &reply));
            }
        }
        let mut seen = self.seen.lock();
        if is_given_up {
            seen.counts.refused += 1;
        } else {
            seen.counts.acknowledged += 1;
            seen.sold.extend(sold);
        }
        true
    }
}

impl Workload for Tickets {
    type Machines = SqlNode;

    const OPTION: &'static str = "--tickets";

    async fn client(self, stage: Stage<SqlNode>, number: u64, mut random: Rng) {
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
                    if !is_set_up
                        || stage.is_over()
                        || !self.sell(&stage, &mut connection, &mut random, number).await
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
        wrong.append(&mut self.seen.lock().wrong);
        for node in cluster.ids() {
            let mut last = Err("the node is down".to_owned());
            for _ in 0..TRIES_MAX {
                last = stored(cluster, node).await;
                if last.is_ok() {
                    break;
                }
                cluster.sleep(Duration::from_millis(100)).await;
            }
            match last {
                Ok(stored) => wrong.extend(self.compare(&stored)),
                Err(reason) => wrong.push(format!("numbers cannot be read at node {node}: {reason}")),
            }
        }
        wrong
    }
}

impl Tickets {
    fn compare(&self, stored: &[i64]) -> Vec<String> {
        let seen = self.seen.lock();
        let unique: BTreeSet<i64> = stored.iter().copied().collect();
        let mut wrong = Vec::new();
        if unique.len() != stored.len() {
            wrong.push(format!(
                "of {} numbers {} are there twice",
                stored.len(),
                stored.len() - unique.len()
            ));
        }
        let lost: Vec<_> = seen.sold.difference(&unique).collect();
        if !lost.is_empty() {
            wrong.push(format!("acknowledged and lost: {lost:?}"));
        }
        wrong
    }
}

async fn stored(cluster: &Cluster<SqlNode>, node: rustydb_types::ids::NodeId) -> Result<Vec<i64>, String> {
    let mut connection = Connection::open(cluster, node, DATABASE).ok_or("the node is down")?;
    let asked = connection.ask(cluster, &Request::Simple("SELECT number FROM sold".to_owned())).await;
    match asked {
        Ok(Reply { failure: Some(failure), .. }) if failure.code == "42P01" => Ok(Vec::new()),
        Ok(Reply { failure: Some(failure), .. }) => Err(format!("{failure:?}")),
        Ok(reply) => Ok(numbers(&reply).collect()),
        Err(lost) => Err(format!("{lost:?}")),
    }
}
