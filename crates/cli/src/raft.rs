//! `raft status`.

use rustydb_proto::v1::GroupStatus;
use serde::Serialize;

use crate::client::Addresses;
use crate::error::CliError;
use crate::output::{self, Form};

/// One Raft group, as a node sees it.
#[derive(Debug, Serialize)]
pub(crate) struct GroupView {
    pub(crate) group: u64,
    pub(crate) name: String,
    pub(crate) term: u64,
    pub(crate) state: String,
    pub(crate) leader_id: Option<u64>,
    pub(crate) last_log_index: u64,
    pub(crate) commit_index: u64,
    pub(crate) last_applied: u64,
    pub(crate) uncommitted_entries: u64,
    pub(crate) voters: Vec<u64>,
    pub(crate) learners: Vec<u64>,
    pub(crate) members_changing: bool,
    pub(crate) health: String,
}

impl GroupView {
    pub(crate) fn new(group: &GroupStatus) -> GroupView {
        GroupView {
            group: group.group_id,
            name: group.name.clone(),
            term: group.term,
            state: group.state.clone(),
            leader_id: Some(group.leader_id).filter(|leader| *leader != 0),
            last_log_index: group.last_log_index,
            commit_index: group.commit_index,
            last_applied: group.last_applied,
            uncommitted_entries: group.uncommitted_entries,
            voters: group.voters.clone(),
            learners: group.learners.clone(),
            members_changing: group.members_changing,
            health: group.health.clone(),
        }
    }
}

#[derive(Debug, Serialize)]
struct StatusView {
    node: u64,
    groups: Vec<GroupView>,
}

pub(crate) async fn status(addresses: &Addresses, form: Form) -> Result<(), CliError> {
    let (_, status) = addresses.first().await?;
    let view =
        StatusView { node: status.node_id, groups: status.groups.iter().map(GroupView::new).collect() };
    if form == Form::Json {
        output::json(&view);
        return Ok(());
    }
    output::line(&format!("as node {} sees it\n", view.node));
    let row = |group: &GroupView| {
        vec![
            group.name.clone(),
            group.term.to_string(),
            group.state.clone(),
            group.leader_id.map_or_else(|| "none".to_owned(), |leader| format!("node {leader}")),
            group.last_log_index.to_string(),
            group.commit_index.to_string(),
            group.last_applied.to_string(),
            group.uncommitted_entries.to_string(),
            members(group),
            group.health.clone(),
        ]
    };
    let heading = [
        "GROUP",
        "TERM",
        "STATE",
        "LEADER",
        "LAST LOG INDEX",
        "COMMIT INDEX",
        "LAST APPLIED",
        "UNCOMMITTED",
        "VOTERS",
        "HEALTH",
    ];
    output::table(&heading, view.groups.iter().map(row).collect());
    Ok(())
}

/// The voters, and whether that is about to change.
fn members(group: &GroupView) -> String {
    let voters: Vec<String> = group.voters.iter().map(u64::to_string).collect();
    let changing = if group.members_changing { " (changing)" } else { "" };
    format!("{}{changing}", voters.join(" "))
}
