//! `cluster status`, `cluster init`, `cluster wait-leader`.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustydb_proto::v1::{ClusterStatusResponse, GroupStatus, InitClusterRequest, Member, NodeStatusResponse};
use serde::Serialize;

use crate::NodeName;
use crate::client::Addresses;
use crate::error::CliError;
use crate::output::{self, Form};

/// The number of the group that holds the cluster's own records.
pub(crate) const SYSTEM_GROUP: u64 = 1;

#[derive(Debug, Serialize)]
struct StatusView {
    cluster_id: String,
    answered_by: u64,
    /// Leader of the system group; absent while there is none.
    leader: Option<u64>,
    /// Voters that must agree, and how many of them answered.
    quorum: usize,
    voters_up: usize,
    nodes: Vec<NodeView>,
    databases: Vec<DatabaseView>,
}

#[derive(Debug, Serialize)]
struct NodeView {
    node: u64,
    /// `leader`, `follower`, `candidate` or `learner` of the system group; `unknown` when it does not answer. A node
    /// that led and is answered by no majority any more is a candidate.
    role: String,
    /// Whether it is being removed.
    leaving: bool,
    /// `up`, `not ready` or `down`.
    health: String,
    reason: String,
    term: Option<u64>,
    postgres: String,
    interconnect: String,
    http: String,
    version: Option<String>,
}

#[derive(Debug, Serialize)]
struct DatabaseView {
    name: String,
    group: u64,
    state: String,
    leader: Option<u64>,
}

/// What must agree of `voters`.
fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

pub(crate) async fn status(
    addresses: &Addresses,
    form: Form,
    node: Option<NodeName>,
    show_versions: bool,
) -> Result<(), CliError> {
    let (mut admin, _) = addresses.node(node).await?;
    let cluster = addresses.cluster(&mut admin).await?;
    let answers = join_all(cluster.members.iter().map(|member| async move {
        let answer = addresses.member(member).await;
        answer.map(|(_, status)| status).map_err(|error| error.to_string())
    }))
    .await;
    let view = view(cluster, answers);
    if form == Form::Json {
        output::json(&view);
        return Ok(());
    }
    print(&view, show_versions);
    Ok(())
}

fn view(cluster: ClusterStatusResponse, answers: Vec<Result<NodeStatusResponse, String>>) -> StatusView {
    let voters = cluster.members.iter().filter(|member| member.role == "voter").count();
    let mut voters_up = 0;
    let mut nodes = Vec::new();
    for (member, answer) in cluster.members.iter().zip(answers) {
        if answer.is_ok() && member.role == "voter" {
            voters_up += 1;
        }
        nodes.push(node_view(member, answer));
    }
    let databases = cluster.databases.into_iter().map(|database| DatabaseView {
        name: database.name,
        group: database.group_id,
        state: database.state,
        leader: Some(database.leader_id).filter(|leader| *leader != 0),
    });
    StatusView {
        cluster_id: cluster.cluster_id,
        answered_by: cluster.answered_by,
        leader: Some(cluster.leader_id).filter(|leader| *leader != 0),
        quorum: quorum(voters),
        voters_up,
        nodes,
        databases: databases.collect(),
    }
}

fn node_view(member: &Member, answer: Result<NodeStatusResponse, String>) -> NodeView {
    let mut view = NodeView {
        node: member.node_id,
        role: "unknown".to_owned(),
        leaving: member.leaving,
        health: "down".to_owned(),
        reason: String::new(),
        term: None,
        postgres: member.postgres_address.clone(),
        interconnect: member.interconnect_address.clone(),
        http: member.http_address.clone(),
        version: None,
    };
    match answer {
        Ok(status) => {
            if let Some(system) = status.groups.iter().find(|group| group.group_id == SYSTEM_GROUP) {
                let leads = system.state != "leader" || system.leader_id == member.node_id;
                view.role = if leads { system.state.clone() } else { "candidate".to_owned() };
                view.term = Some(system.term);
            }
            view.health = if status.ready { "up" } else { "not ready" }.to_owned();
            view.reason = status.not_ready_reason;
            view.version = Some(status.version);
        }
        Err(reason) => view.reason = reason,
    }
    view
}

fn print(view: &StatusView, show_versions: bool) {
    let leader = view.leader.map_or_else(|| "none".to_owned(), |leader| format!("node {leader}"));
    output::line(&format!(
        "cluster {}, leader {leader}, as node {} sees it",
        view.cluster_id, view.answered_by
    ));
    let voters = view.nodes.len();
    output::line(&format!("{} of {voters} nodes answer, {} make a quorum\n", view.voters_up, view.quorum));
    let mut heading = vec!["NODE", "ROLE", "HEALTH", "TERM", "POSTGRES", "INTERCONNECT", "HTTP"];
    if show_versions {
        heading.push("VERSION");
    }
    let row = |node: &NodeView| {
        let health = match node.reason.as_str() {
            "" => node.health.clone(),
            reason => format!("{} ({reason})", node.health),
        };
        let mut row = vec![
            node.node.to_string(),
            if node.leaving { format!("{}, leaving", node.role) } else { node.role.clone() },
            health,
            node.term.map_or_else(|| "-".to_owned(), |term| term.to_string()),
            node.postgres.clone(),
            node.interconnect.clone(),
            node.http.clone(),
        ];
        if show_versions {
            row.push(node.version.clone().unwrap_or_else(|| "-".to_owned()));
        }
        row
    };
    output::table(&heading, view.nodes.iter().map(row).collect());
    output::line("");
    let row = |database: &DatabaseView| {
        vec![
            database.name.clone(),
            database.state.clone(),
            database.leader.map_or_else(|| "none".to_owned(), |leader| format!("node {leader}")),
            database.group.to_string(),
        ]
    };
    output::table(&["DATABASE", "STATE", "LEADER", "GROUP"], view.databases.iter().map(row).collect());
    if let Some(warning) = size_warning(view.nodes.len()) {
        output::line(&format!("\n{warning}"));
    }
}

/// What to say about a cluster size that costs more than it gives.
pub(crate) fn size_warning(nodes: usize) -> Option<String> {
    match nodes {
        1 => Some("warning: one node survives no failure; 3 is the least that survives one".to_owned()),
        2 | 4 | 6 => {
            let tolerated = nodes - quorum(nodes);
            let survives = match tolerated {
                0 => "no failure".to_owned(),
                1 => "one failure".to_owned(),
                more => format!("{more} failures"),
            };
            Some(format!(
                "warning: {nodes} nodes survive {survives}, as many as {} do; an odd number is better",
                nodes - 1
            ))
        }
        _ => None,
    }
}

pub(crate) async fn init(
    addresses: &Addresses,
    form: Form,
    password_file: Option<&Path>,
) -> Result<(), CliError> {
    let password = match password_file {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| CliError::Usage(format!("cannot read {}: {error}", path.display())))?
            .trim_end_matches(['\r', '\n'])
            .to_owned(),
        None => String::new(),
    };
    let (mut admin, status) = addresses.first().await?;
    let answer = admin.init_cluster(InitClusterRequest { superuser_password: password }).await?.into_inner();
    #[derive(Serialize)]
    struct View {
        cluster_id: String,
        node: u64,
    }
    let view = View { cluster_id: answer.cluster_id, node: status.node_id };
    match form {
        Form::Json => output::json(&view),
        Form::Table => output::line(&format!("cluster {} formed, node {}", view.cluster_id, view.node)),
    }
    Ok(())
}

pub(crate) async fn wait_leader(
    addresses: &Addresses,
    form: Form,
    node: Option<NodeName>,
    timeout: Duration,
) -> Result<(), CliError> {
    let deadline = Instant::now() + timeout;
    loop {
        let led = leader(addresses).await;
        if let Some(Led { leader, term, .. }) = led
            && node.is_none_or(|node| node.0 == leader)
        {
            #[derive(Serialize)]
            struct View {
                leader: u64,
                term: u64,
            }
            match form {
                Form::Json => output::json(&View { leader, term }),
                Form::Table => output::line(&format!("node {leader} leads in term {term}")),
            }
            return Ok(());
        }
        if let (Some(led), Some(node)) = (&led, node)
            && !led.members.contains(&node.0)
        {
            return Err(CliError::Refused(format!("node {} is not a member of this cluster", node.0)));
        }
        if Instant::now() >= deadline {
            return Err(CliError::TimedOut(too_late(node, led.map(|led| led.leader), timeout)));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn too_late(wanted: Option<NodeName>, leader: Option<u64>, waited: Duration) -> String {
    match (wanted, leader) {
        (Some(wanted), Some(leader)) => {
            format!("node {} is not the leader after {waited:?}: node {leader} is", wanted.0)
        }
        (Some(wanted), None) => {
            format!("node {} is not the leader after {waited:?}: there is no leader", wanted.0)
        }
        (None, _) => format!("there is no leader after {waited:?}"),
    }
}

/// What a leader says.
struct Led {
    leader: u64,
    term: u64,
    /// Numbers of the members.
    members: Vec<u64>,
}

/// The leader that a node which answers knows of. A leader counts only when it says so itself, because a follower may
/// still believe in one that died.
async fn leader(addresses: &Addresses) -> Option<Led> {
    let (mut admin, mut status) = addresses.first().await.ok()?;
    let system = |status: &NodeStatusResponse| {
        status.groups.iter().find(|group| group.group_id == SYSTEM_GROUP).cloned()
    };
    let leads = |group: &GroupStatus, node: u64| group.state == "leader" && group.leader_id == node;
    let mut own = system(&status)?;
    let mut cluster = addresses.cluster(&mut admin).await.ok()?;
    if !leads(&own, status.node_id) {
        let member = cluster.members.iter().find(|member| member.node_id == own.leader_id)?;
        (admin, status) = addresses.member(member).await.ok()?;
        own = system(&status).filter(|group| leads(group, status.node_id))?;
        cluster = addresses.cluster(&mut admin).await.ok()?;
    }
    let members = cluster.members.iter().map(|member| member.node_id).collect();
    Some(Led { leader: status.node_id, term: own.term, members })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quorum_and_tolerated_failures_for_each_size() {
        let table: Vec<(usize, usize)> =
            (1..=7).map(|nodes| (quorum(nodes), nodes - quorum(nodes))).collect();
        assert_eq!(table, [(1, 0), (2, 0), (2, 1), (3, 1), (3, 2), (4, 2), (4, 3)]);
    }

    #[test]
    fn even_sizes_are_warned_about() {
        let warned: Vec<usize> = (1..=7).filter(|nodes| size_warning(*nodes).is_some()).collect();
        assert_eq!(warned, [1, 2, 4, 6]);
        assert_eq!(
            size_warning(4).unwrap(),
            "warning: 4 nodes survive one failure, as many as 3 do; an odd number is better"
        );
    }

    #[test]
    fn a_node_that_does_not_answer_is_down() {
        let member = |node_id| Member { node_id, role: "voter".to_owned(), ..Member::default() };
        let cluster =
            ClusterStatusResponse { members: vec![member(1), member(2)], leader_id: 1, ..Default::default() };
        let up = NodeStatusResponse { node_id: 1, ready: true, ..Default::default() };
        let view = view(cluster, vec![Ok(up), Err("connection refused".to_owned())]);
        assert_eq!((view.nodes[0].health.as_str(), view.nodes[1].health.as_str()), ("up", "down"));
        assert_eq!((view.quorum, view.voters_up, view.leader), (2, 1, Some(1)));
    }

    #[test]
    fn a_leader_without_a_majority_is_none() {
        let member = Member { node_id: 1, role: "voter".to_owned(), ..Member::default() };
        let role = |leader_id| {
            let group = GroupStatus {
                group_id: SYSTEM_GROUP,
                state: "leader".to_owned(),
                leader_id,
                ..GroupStatus::default()
            };
            let status = NodeStatusResponse { node_id: 1, groups: vec![group], ..Default::default() };
            node_view(&member, Ok(status)).role
        };
        assert_eq!((role(1).as_str(), role(0).as_str()), ("leader", "candidate"));
    }

    #[test]
    fn a_wait_that_is_over_says_who_leads() {
        let waited = Duration::from_secs(300);
        assert_eq!(too_late(None, None, waited), "there is no leader after 300s");
        let wanted = Some(NodeName(2));
        assert_eq!(too_late(wanted, Some(1), waited), "node 2 is not the leader after 300s: node 1 is");
        assert_eq!(too_late(wanted, None, waited), "node 2 is not the leader after 300s: there is no leader");
    }
}
