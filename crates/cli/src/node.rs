//! `node add`, `node remove`, `node info`, `node lead`.

use std::time::{Duration, Instant};

use rustydb_proto::v1::{AddNodeRequest, RemoveNodeRequest, TransferLeaderRequest};
use serde::Serialize;
use tonic::Code;

use crate::NodeName;
use crate::client::Addresses;
use crate::cluster::{SYSTEM_GROUP, size_warning};
use crate::error::CliError;
use crate::output::{self, Form};
use crate::raft::GroupView;

pub(crate) async fn add(addresses: &Addresses, form: Form, address: &str) -> Result<(), CliError> {
    let (_, joining) = addresses.at(address).await?;
    let (mut admin, _) = addresses.first().await?;
    let request = AddNodeRequest {
        interconnect_address: joining.interconnect_address,
        expected_node_id: joining.node_id,
    };
    let answer = admin.add_node(request).await?.into_inner();
    #[derive(Serialize)]
    struct View {
        node: u64,
    }
    match form {
        Form::Json => output::json(&View { node: answer.node_id }),
        Form::Table => output::line(&format!("node {} is a member", answer.node_id)),
    }
    Ok(())
}

/// Longest wait for a leader that carries the removal out: the present one may be the node that goes.
const LEADER_WAIT: Duration = Duration::from_secs(15);

pub(crate) async fn remove(addresses: &Addresses, form: Form, node: NodeName) -> Result<(), CliError> {
    const PAUSE: Duration = Duration::from_millis(300);
    let deadline = Instant::now() + LEADER_WAIT;
    let members = loop {
        let (mut admin, _) = addresses.first().await?;
        match admin.remove_node(RemoveNodeRequest { node_id: node.0 }).await {
            Ok(answer) => break answer.into_inner().members,
            // Asking again is safe: a removal that was begun goes on.
            Err(status) if status.code() == Code::Unavailable && Instant::now() < deadline => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(status) if status.code() == Code::Unavailable => {
                return Err(CliError::TimedOut(format!(
                    "{} after {LEADER_WAIT:?}; a node can be removed while a majority of the voters runs",
                    status.message()
                )));
            }
            Err(status) => return Err(status.into()),
        }
    };
    #[derive(Serialize)]
    struct View {
        node: u64,
        members: u32,
    }
    match form {
        Form::Json => output::json(&View { node: node.0, members }),
        Form::Table => {
            output::line(&format!("node {} is no member any more", node.0));
            if let Some(warning) = size_warning(usize::try_from(members).unwrap_or(usize::MAX)) {
                output::line(&warning);
            }
        }
    }
    Ok(())
}

#[derive(Debug, Serialize)]
struct InfoView {
    node: u64,
    cluster_id: String,
    version: String,
    uptime_seconds: u64,
    incarnation: u64,
    process_id: u64,
    ready: bool,
    reason: String,
    postgres: String,
    interconnect: String,
    http: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<GroupView>,
}

pub(crate) async fn info(
    addresses: &Addresses,
    form: Form,
    node: Option<NodeName>,
    show_term: bool,
) -> Result<(), CliError> {
    let (_, status) = addresses.node(node).await?;
    let groups = if show_term { status.groups.iter().map(GroupView::new).collect() } else { Vec::new() };
    let view = InfoView {
        node: status.node_id,
        cluster_id: status.cluster_id,
        version: status.version,
        uptime_seconds: status.uptime_seconds,
        incarnation: status.incarnation,
        process_id: status.process_id,
        ready: status.ready,
        reason: status.not_ready_reason,
        postgres: status.postgres_address,
        interconnect: status.interconnect_address,
        http: status.http_address,
        groups,
    };
    if form == Form::Json {
        output::json(&view);
        return Ok(());
    }
    let cluster = if view.cluster_id.is_empty() { "none".to_owned() } else { view.cluster_id.clone() };
    let ready = if view.ready { "yes".to_owned() } else { format!("no: {}", view.reason) };
    let rows = [
        ("node", view.node.to_string()),
        ("cluster", cluster),
        ("version", view.version.clone()),
        ("ready", ready),
        ("uptime", format!("{} s", view.uptime_seconds)),
        ("starts", view.incarnation.to_string()),
        ("process", view.process_id.to_string()),
        ("postgres", view.postgres.clone()),
        ("interconnect", view.interconnect.clone()),
        ("http", view.http.clone()),
    ];
    for (name, value) in rows {
        output::line(&format!("{name:<13} {value}"));
    }
    for group in &view.groups {
        output::line(&format!(
            "{:<13} term {}, {}, commit index {}",
            group.name, group.term, group.state, group.commit_index
        ));
    }
    Ok(())
}

pub(crate) async fn lead(
    addresses: &Addresses,
    form: Form,
    node: NodeName,
    database: &str,
) -> Result<(), CliError> {
    let (mut admin, _) = addresses.first().await?;
    let cluster = addresses.cluster(&mut admin).await?;
    let group_id = if database == "system" {
        SYSTEM_GROUP
    } else {
        let found = cluster.databases.iter().find(|candidate| candidate.name == database);
        found.ok_or_else(|| CliError::Refused(format!("database \"{database}\" does not exist")))?.group_id
    };
    admin.transfer_leader(TransferLeaderRequest { group_id, to: node.0 }).await?;
    #[derive(Serialize)]
    struct View<'a> {
        database: &'a str,
        leader: u64,
    }
    match form {
        Form::Json => output::json(&View { database, leader: node.0 }),
        Form::Table => output::line(&format!("node {} leads {database}", node.0)),
    }
    Ok(())
}
