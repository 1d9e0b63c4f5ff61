//! `check consistency`: do all replicas store the same, and what their hashes say?
//!
//! One database after the other: every replica is told to wait for the audit's entry, the leader commits it, and each
//! replica reads all that it had stored at that position. Nothing is locked, writers go on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use rustydb_proto::v1::audit_replica_event::Event;
use rustydb_proto::v1::{
    AuditFound, AuditReplicaEvent, AuditReplicaRequest, ClusterStatusResponse, MarkAuditRequest, Member,
    NodeStatusResponse, RepairReplicaRequest,
};
use serde::Serialize;

use crate::client::{Addresses, Admin};
use crate::cluster::SYSTEM_GROUP;
use crate::error::CliError;
use crate::output::{self, Form};

/// What is checked, and what follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Only this database; all and the cluster's own records when absent.
    pub(crate) database: Option<String>,
    /// The longest that one database may take.
    pub(crate) timeout: Duration,
    /// Whether replicas that are found wrong are repaired.
    pub(crate) repair: bool,
}

/// What is said of one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// It stores what its hash says, and the others hold the same.
    Ok,
    /// It does not store what its hash says.
    Damaged,
    /// A majority holds another state.
    Diverged,
    /// Others hold another state, and no majority holds one.
    Disputed,
    /// It has no result.
    Failed,
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Damaged => "damaged",
            Verdict::Diverged => "diverged",
            Verdict::Disputed => "disputed",
            Verdict::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ReplicaView {
    node: u64,
    verdict: Verdict,
    /// Why there is no result, or what else there is to say.
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    term: Option<u64>,
    index: Option<u64>,
    /// The state hash of what is stored, and as it was kept.
    stored: Option<String>,
    kept: Option<String>,
    rows: Option<u64>,
    /// Whether its repair was asked for.
    repairing: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct DatabaseView {
    name: String,
    group: u64,
    agreed: bool,
    replicas: Vec<ReplicaView>,
}

#[derive(Debug, Serialize)]
struct CheckView {
    agreed: bool,
    databases: Vec<DatabaseView>,
}

/// What a replica found, or why it did not.
type Found = Result<AuditFound, String>;

/// A node as it answered, or why it did not.
type Answer = (Member, Result<(Admin, NodeStatusResponse), String>);

pub(crate) async fn consistency(addresses: &Addresses, form: Form, wanted: &Wanted) -> Result<(), CliError> {
    let (mut admin, _) = addresses.first().await?;
    let cluster = addresses.cluster(&mut admin).await?;
    let groups = groups(&cluster, wanted.database.as_deref())?;
    let answers: Vec<Answer> = join_all(cluster.members.into_iter().map(|member| async move {
        let answer = addresses.member(&member).await.map_err(|error| error.to_string());
        (member, answer)
    }))
    .await;
    let mut databases = Vec::new();
    for (group, name) in groups {
        let voters = voters(&answers, group);
        let found = audit(addresses, &answers, &admin, group, wanted.timeout).await;
        let mut replicas = judge(&found, &voters);
        if wanted.repair {
            repair(&answers, group, &mut replicas).await;
        }
        let agreed = !replicas.is_empty() && replicas.iter().all(|replica| replica.verdict == Verdict::Ok);
        databases.push(DatabaseView { name, group, agreed, replicas });
    }
    let view = CheckView { agreed: databases.iter().all(|database| database.agreed), databases };
    match form {
        Form::Json => output::json(&view),
        Form::Table => print(&view),
    }
    if view.agreed { Ok(()) } else { Err(CliError::Refused(failure(&view))) }
}

/// The groups to look at, with their names.
fn groups(cluster: &ClusterStatusResponse, wanted: Option<&str>) -> Result<Vec<(u64, String)>, CliError> {
    let databases = cluster.databases.iter().filter(|database| database.state == "ready");
    let all = std::iter::once((SYSTEM_GROUP, "system".to_owned()))
        .chain(databases.map(|database| (database.group_id, database.name.clone())));
    let groups: Vec<_> = all.filter(|(_, name)| wanted.is_none_or(|wanted| wanted == name)).collect();
    match wanted {
        Some(wanted) if groups.is_empty() => {
            Err(CliError::Refused(format!("there is no database \"{wanted}\" that is ready")))
        }
        _ => Ok(groups),
    }
}

/// Who votes in a group, as far as those know that answer.
fn voters(answers: &[Answer], group: u64) -> BTreeSet<u64> {
    let seen = |(_, answer): &Answer| {
        let (_, status) = answer.as_ref().ok()?;
        let group = status.groups.iter().find(|seen| seen.group_id == group)?;
        Some((group.term, group.voters.iter().chain(&group.learners).copied().collect::<BTreeSet<u64>>()))
    };
    answers
        .iter()
        .filter_map(seen)
        .max_by_key(|(term, _)| *term)
        .map(|(_, members)| members)
        .unwrap_or_default()
}

/// Lets all replicas of a group take part in one audit.
async fn audit(
    addresses: &Addresses,
    answers: &[Answer],
    marker: &Admin,
    group: u64,
    timeout: Duration,
) -> BTreeMap<u64, Found> {
    let members = voters(answers, group);
    let audit = u64::from_le_bytes(uuid::Uuid::new_v4().into_bytes()[..8].try_into().unwrap_or_default());
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let request = AuditReplicaRequest { group_id: group, audit, timeout_ms };
    let replicas = answers.iter().filter(|(member, _)| members.contains(&member.node_id));
    // First all of them wait, then the entry is committed.
    let waiting =
        join_all(replicas.map(|(member, answer)| async move {
            (member.node_id, begin(addresses, answer, request).await)
        }))
        .await;
    let mut marker = marker.clone();
    let marked = marker.mark_audit(MarkAuditRequest { group_id: group, audit }).await;
    let marked =
        marked.map_err(|status| format!("the audit's entry was not committed: {}", status.message()));
    let ended = waiting.into_iter().map(|(node, events)| {
        let marked = marked.as_ref().map(|_| ()).map_err(Clone::clone);
        async move {
            let found = match (events, marked) {
                (Err(reason), _) | (_, Err(reason)) => Err(reason),
                (Ok(events), Ok(())) => end(events, timeout).await,
            };
            (node, found)
        }
    });
    join_all(ended).await.into_iter().collect()
}

type Events = tonic::Streaming<AuditReplicaEvent>;

/// Has a replica wait for the audit's entry.
async fn begin(
    addresses: &Addresses,
    answer: &Result<(Admin, NodeStatusResponse), String>,
    request: AuditReplicaRequest,
) -> Result<Events, String> {
    let (admin, _) = answer.as_ref().map_err(|reason| format!("does not answer: {reason}"))?;
    let mut admin = admin.clone();
    let begun = async {
        let mut events = admin.audit_replica(request).await?.into_inner();
        events.message().await.map(|first| (first, events))
    };
    match tokio::time::timeout(addresses.timeout(), begun).await {
        Ok(Ok((Some(AuditReplicaEvent { event: Some(Event::Waiting(_)) }), events))) => Ok(events),
        Ok(Ok(_)) => Err("did not take part".to_owned()),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err("does not answer in time".to_owned()),
    }
}

/// What a replica found.
async fn end(mut events: Events, timeout: Duration) -> Found {
    // The replica keeps the deadline itself; this is for one that has died meanwhile.
    match tokio::time::timeout(timeout + Duration::from_secs(5), events.message()).await {
        Ok(Ok(Some(AuditReplicaEvent { event: Some(Event::Found(found)) }))) => Ok(found),
        Ok(Ok(Some(AuditReplicaEvent { event: Some(Event::Failed(reason)) }))) => Err(reason),
        Ok(Ok(_)) => Err("ended without a result".to_owned()),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err(format!("no result within {timeout:?}")),
    }
}

/// What is stored, and where.
fn state(found: &AuditFound) -> (u64, u64, &[u8]) {
    (found.term, found.index, &found.stored)
}

fn judge(found: &BTreeMap<u64, Found>, members: &BTreeSet<u64>) -> Vec<ReplicaView> {
    let mut holders: BTreeMap<(u64, u64, &[u8]), usize> = BTreeMap::new();
    for found in found.values().flatten() {
        *holders.entry(state(found)).or_default() += 1;
    }
    let majority = holders.iter().find(|(_, count)| **count > members.len() / 2).map(|(state, _)| *state);
    let view = |node: &u64| {
        let mut view = ReplicaView {
            node: *node,
            verdict: Verdict::Failed,
            reason: String::new(),
            term: None,
            index: None,
            stored: None,
            kept: None,
            rows: None,
            repairing: false,
        };
        match found.get(node) {
            None => view.reason = "is no member that the cluster knows".to_owned(),
            Some(Err(reason)) => view.reason = reason.clone(),
            Some(Ok(found)) => {
                view.verdict = match majority {
                    Some(majority) if majority != state(found) && found.stored == found.kept => {
                        Verdict::Diverged
                    }
                    _ if found.stored != found.kept => Verdict::Damaged,
                    None if holders.len() > 1 => Verdict::Disputed,
                    _ => Verdict::Ok,
                };
                if view.verdict == Verdict::Damaged && majority == Some(state(found)) {
                    view.reason =
                        "a majority stores the same; only the hash that was kept is another".to_owned();
                }
                (view.term, view.index, view.rows) = (Some(found.term), Some(found.index), Some(found.rows));
                (view.stored, view.kept) = (Some(hex(&found.stored)), Some(hex(&found.kept)));
            }
        }
        view
    };
    members.iter().map(view).collect()
}

/// A hash as one number.
fn hex(hash: &[u8]) -> String {
    hash.iter().rev().map(|byte| format!("{byte:02x}")).collect()
}

/// Asks for the repair of what is wrong, as long as a majority is right.
async fn repair(answers: &[Answer], group: u64, replicas: &mut [ReplicaView]) {
    let right = replicas.iter().filter(|replica| replica.verdict == Verdict::Ok).count();
    if right <= replicas.len() / 2 {
        return;
    }
    let wrong = |replica: &&mut ReplicaView| matches!(replica.verdict, Verdict::Damaged | Verdict::Diverged);
    for replica in replicas.iter_mut().filter(wrong) {
        let answer = answers.iter().find(|(member, _)| member.node_id == replica.node);
        let Some((_, Ok((admin, _)))) = answer else { continue };
        let reason = format!("found {} by check consistency", replica.verdict.name());
        match admin.clone().repair_replica(RepairReplicaRequest { group_id: group, reason }).await {
            Ok(_) => replica.repairing = true,
            Err(status) => replica.reason = format!("not repaired: {}", status.message()),
        }
    }
}

fn failure(view: &CheckView) -> String {
    let wrong = view.databases.iter().filter(|database| !database.agreed).map(|database| {
        let replicas = database.replicas.iter().filter(|replica| replica.verdict != Verdict::Ok);
        let replicas: Vec<String> =
            replicas.map(|replica| format!("node {} {}", replica.node, replica.verdict.name())).collect();
        let replicas =
            if replicas.is_empty() { "no replica is known".to_owned() } else { replicas.join(", ") };
        format!("{}: {replicas}", database.name)
    });
    format!("not all replicas agree: {}", wrong.collect::<Vec<_>>().join("; "))
}

fn print(view: &CheckView) {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mut rows = Vec::new();
    for database in &view.databases {
        for replica in &database.replicas {
            let mut verdict = replica.verdict.name().to_owned();
            if !replica.reason.is_empty() {
                verdict = format!("{verdict} ({})", replica.reason);
            }
            if replica.repairing {
                verdict.push_str(", is being repaired");
            }
            rows.push(vec![
                database.name.clone(),
                replica.node.to_string(),
                or_dash(replica.index.map(|index| format!("{index}@{}", replica.term.unwrap_or_default()))),
                or_dash(replica.rows.map(|rows| rows.to_string())),
                or_dash(replica.stored.clone()),
                or_dash(replica.kept.clone()),
                verdict,
            ]);
        }
    }
    output::table(&["DATABASE", "NODE", "POSITION", "ROWS", "STORED HASH", "KEPT HASH", "VERDICT"], rows);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(index: u64, stored: u8, kept: u8) -> Found {
        let hash = |byte| bytes::Bytes::from(vec![byte; 16]);
        Ok(AuditFound { term: 1, index, stored: hash(stored), kept: hash(kept), rows: 3 })
    }

    fn verdicts(found: Vec<Found>) -> Vec<&'static str> {
        let found: BTreeMap<u64, Found> = (1..).zip(found).collect();
        let members = found.keys().copied().collect();
        judge(&found, &members).iter().map(|replica| replica.verdict.name()).collect()
    }

    #[test]
    fn who_is_wrong_is_told_from_who_is_right() {
        assert_eq!(verdicts(vec![found(7, 1, 1), found(7, 1, 1), found(7, 1, 1)]), ["ok", "ok", "ok"]);
        assert_eq!(verdicts(vec![found(7, 1, 1), found(7, 2, 1), found(7, 1, 1)]), ["ok", "damaged", "ok"]);
        assert_eq!(verdicts(vec![found(7, 2, 2), found(7, 1, 1), found(7, 1, 1)]), ["diverged", "ok", "ok"]);
        assert_eq!(verdicts(vec![found(7, 1, 1), found(7, 2, 2)]), ["disputed", "disputed"]);
        assert_eq!(
            verdicts(vec![found(7, 1, 1), Err("down".to_owned()), found(7, 1, 1)]),
            ["ok", "failed", "ok"]
        );
        assert_eq!(verdicts(vec![found(7, 1, 2), found(7, 1, 2), found(7, 1, 2)]), ["damaged"; 3]);
        assert_eq!(verdicts(vec![found(7, 1, 1)]), ["ok"]);
    }

    #[test]
    fn a_member_that_nobody_knows_is_not_passed_over() {
        let found = [(1, found(7, 1, 1)), (2, found(7, 1, 1))].into();
        let views = judge(&found, &[1, 2, 3].into());
        assert_eq!((views[2].node, views[2].verdict), (3, Verdict::Failed));
        assert_eq!(views[0].stored.as_deref(), Some("01010101010101010101010101010101"));
    }
}
