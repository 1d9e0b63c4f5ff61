//! What a node says about itself: to the CLI, to load balancers, to monitoring.

use std::sync::Arc;

use rustydb_pg::metrics::Metrics;
use rustydb_proto::v1::{ClusterStatusResponse, DatabaseInfo, GroupStatus, Member, NodeStatusResponse};
use rustydb_sql::system::{DatabaseState, SystemSnapshot};
use rustydb_types::ids::GroupId;
use tonic::Status;

use super::Inner;
use super::http::{Figure, StatusSource};
use super::reconcile::LocalGroup;

impl StatusSource for Inner {
    fn status(&self) -> NodeStatusResponse {
        let own = self.own_record();
        let recorded = self.system.latest();
        let not_ready_reason = self.not_ready(&recorded).unwrap_or_default();
        NodeStatusResponse {
            node_id: self.me.get(),
            cluster_id: self.cluster_id().unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.env.now().saturating_since(self.started).as_secs(),
            incarnation: self.starts,
            postgres_address: own.pg_address,
            interconnect_address: own.interconnect_address,
            http_address: own.http_address,
            ready: not_ready_reason.is_empty(),
            not_ready_reason,
            groups: self.group_statuses(&recorded),
            process_id: u64::from(std::process::id()),
            disk_full: self.log.is_full(),
        }
    }

    fn figures(&self) -> Vec<Figure> {
        let process = process_figures();
        let node = [
            Figure {
                name: "rustydb_server_memory_budget_bytes",
                help: "Memory that the node plans with.",
                value: self.memory.budget as f64,
            },
            Figure {
                name: "rustydb_server_databases",
                help: "Databases of the cluster.",
                value: self.system.latest().databases.len() as f64,
            },
            Figure {
                name: "rustydb_sql_sessions_with_temporary_objects",
                help: "Sessions with temporary objects in the databases that this node leads.",
                value: self.lives.get().map_or(0.0, |lives| lives.with_temporary() as f64),
            },
            Figure {
                name: "rustydb_sql_work_memory_bytes",
                help: "Kept by sorts, hash tables and materialisations of all statements.",
                value: self.work_memory.used_bytes() as f64,
            },
            Figure {
                name: "rustydb_sql_text_memory_bytes",
                help: "What is made of the texts of large and of prepared statements.",
                value: self.work_memory.texts().used_bytes() as f64,
            },
        ];
        let totals = self.databases.totals();
        let stores = [
            (
                "rustydb_txn_in_flight_bytes",
                "Commits numbered and not yet applied.",
                totals.in_flight_size_bytes as f64,
            ),
            (
                "rustydb_txn_unflushed_bytes",
                "Versions that only memory and the log have.",
                totals.unflushed_size_bytes as f64,
            ),
            (
                "rustydb_txn_retained_bytes",
                "Versions that old snapshots keep.",
                totals.retained_size_bytes as f64,
            ),
            ("rustydb_txn_locks", "Locks held and waited for.", totals.locks as f64),
            ("rustydb_storage_engine_bytes", "Size of the engines' files.", totals.file_size_bytes as f64),
        ];
        let stores = stores.map(|(name, help, value)| Figure { name, help, value });
        node.into_iter()
            .chain(stores)
            .chain(self.log_figures())
            .chain(self.front_figures())
            .chain(process)
            .collect()
    }
}

impl Inner {
    fn log_figures(&self) -> impl Iterator<Item = Figure> {
        let stats = self.log.stats();
        let free = self.env.disk().available_bytes(&self.config.node.data_dir);
        [
            (
                "rustydb_storage_log_full",
                "1 while less than log.disk_reserve is free: writes are refused with 53100.",
                f64::from(u8::from(stats.full)),
            ),
            ("rustydb_storage_log_bytes", "Size of the log's segments.", stats.segment_bytes as f64),
            (
                "rustydb_storage_log_queued_bytes",
                "Submitted to the log and not yet written.",
                stats.queued_bytes as f64,
            ),
            (
                "rustydb_storage_disk_free_bytes",
                "Free space where the data is.",
                free.map_or(f64::NAN, |free| free as f64),
            ),
        ]
        .into_iter()
        .map(|(name, help, value)| Figure { name, help, value })
    }

    fn front_figures(&self) -> impl Iterator<Item = Figure> {
        let figures = |counts: &Arc<Metrics>| {
            [
                ("rustydb_pg_connections", "Connections that are open.", &counts.connections),
                ("rustydb_pg_connections_total", "Connections accepted.", &counts.connections_total),
                (
                    "rustydb_pg_connections_refused_total",
                    "Connections refused because there were too many.",
                    &counts.connections_refused_total,
                ),
                (
                    "rustydb_pg_authentication_failures_total",
                    "Logins that failed.",
                    &counts.authentication_failures_total,
                ),
                (
                    "rustydb_pg_protocol_violations_total",
                    "Connections ended because the client broke the protocol.",
                    &counts.protocol_violations_total,
                ),
                (
                    "rustydb_pg_cancel_requests_total",
                    "Cancel requests with the right secret.",
                    &counts.cancel_requests_total,
                ),
                ("rustydb_pg_messages_total", "Messages received.", &counts.messages_total),
                ("rustydb_pg_received_bytes_total", "Bytes received.", &counts.received_bytes_total),
                ("rustydb_pg_sent_bytes_total", "Bytes sent.", &counts.sent_bytes_total),
            ]
            .map(|(name, help, counter)| Figure { name, help, value: counter.get() as f64 })
        };
        self.front_counts.get().map(figures).into_iter().flatten()
    }

    fn group_statuses(&self, recorded: &SystemSnapshot) -> Vec<GroupStatus> {
        let name = |group: GroupId| {
            let database = recorded.databases.values().find(|database| database.group == group);
            match database {
                _ if group == GroupId::SYSTEM => "system".to_owned(),
                Some(database) => database.name.clone(),
                None => format!("group {group}"),
            }
        };
        self.replicas
            .statuses()
            .into_iter()
            .map(|(group, status)| GroupStatus { name: name(group), ..status })
            .collect()
    }

    /// Why this node cannot serve SQL now, if so.
    fn not_ready(&self, recorded: &SystemSnapshot) -> Option<String> {
        if self.cluster_id().is_none() {
            return Some(match &*self.refused_by.lock() {
                Some(reason) => format!("belongs to no cluster and was not admitted by {reason}"),
                None => "belongs to no cluster: `rustydb-cli cluster init` or `node add`".to_owned(),
            });
        }
        let groups = self.replicas.view();
        let unfit = |name: &str, group: Option<&LocalGroup>| match group {
            None => Some(format!("{name} has no replica here yet")),
            Some(group) if group.diverged => {
                Some(format!("{name} is wrong or damaged here and is being repaired"))
            }
            Some(group) if group.leader.is_none() => Some(format!("{name} has no leader")),
            Some(group) if !group.voters.contains(&self.me) => Some(format!("{name} is catching up here")),
            Some(_) => None,
        };
        if let Some(reason) = unfit("the system group", groups.get(&GroupId::SYSTEM)) {
            return Some(reason);
        }
        if recorded.databases.is_empty() {
            return Some("the cluster's records have not arrived yet".to_owned());
        }
        for database in recorded.databases.values() {
            let name = format!("database {}", database.name);
            match database.state {
                DatabaseState::Ready if database.replicas.contains(&self.me) => {
                    if let Some(reason) = unfit(&name, groups.get(&database.group)) {
                        return Some(reason);
                    }
                }
                // The first database is made together with the cluster; later ones do not hold up the others.
                DatabaseState::Creating if recorded.databases.len() == 1 => {
                    return Some(format!("{name} is being created"));
                }
                // A new node gets its replicas once the leader has recorded them.
                DatabaseState::Ready if recorded.databases.len() == 1 => {
                    return Some(format!("{name} has no replica here yet"));
                }
                _ => {}
            }
        }
        None
    }

    /// The cluster as this node's replica of the system group has it.
    pub(crate) fn cluster_status(self: &Arc<Inner>) -> Result<ClusterStatusResponse, Status> {
        let Some(cluster_id) = self.cluster_id() else {
            return Err(Status::failed_precondition(
                "this node belongs to no cluster: run `rustydb-cli cluster init` or `rustydb-cli node add`",
            ));
        };
        let recorded = self.system.latest();
        let groups = self.replicas.view();
        let system = groups.get(&GroupId::SYSTEM);
        let leader = |group: Option<&LocalGroup>| {
            group.and_then(|group| group.leader).map_or(0, |leader| leader.get())
        };
        let members = recorded.nodes.values().map(|node| {
            let votes = system.is_some_and(|system| system.voters.contains(&node.id));
            Member {
                node_id: node.id.get(),
                postgres_address: node.pg_address.clone(),
                interconnect_address: node.interconnect_address.clone(),
                http_address: node.http_address.clone(),
                role: if votes { "voter" } else { "learner" }.to_owned(),
                leaving: node.leaving,
            }
        });
        let databases = recorded.databases.values().map(|database| DatabaseInfo {
            name: database.name.clone(),
            group_id: database.group.get(),
            state: match database.state {
                DatabaseState::Creating => "creating",
                DatabaseState::Ready => "ready",
                DatabaseState::Dropping => "dropping",
            }
            .to_owned(),
            leader_id: leader(groups.get(&database.group)),
        });
        Ok(ClusterStatusResponse {
            cluster_id,
            leader_id: leader(system),
            members: members.collect(),
            databases: databases.collect(),
            answered_by: self.me.get(),
            removed: recorded.removed.iter().map(|node| node.get()).collect(),
        })
    }
}

/// What the kernel says about this process.
fn process_figures() -> Vec<Figure> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| -> Option<f64> {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let mut figures = Vec::new();
    if let Some(kib) = field("VmRSS:") {
        figures.push(Figure {
            name: "rustydb_server_resident_bytes",
            help: "Memory of the process that is resident.",
            value: kib * 1024.0,
        });
    }
    if let Some(threads) = field("Threads:") {
        figures.push(Figure {
            name: "rustydb_server_threads",
            help: "Threads of the process.",
            value: threads,
        });
    }
    figures
}
