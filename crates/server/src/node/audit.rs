//! Audits of this node's replicas, and repairs that an operator asks for.

use std::sync::Arc;
use std::time::Duration;

use rustydb_proto::v1::audit_replica_event::Event;
use rustydb_proto::v1::{
    AuditFound, AuditReplicaEvent, AuditReplicaRequest, AuditWaiting, MarkAuditRequest, RepairReplicaRequest,
};
use rustydb_txn::{AuditId, AuditReport, KvStore, TxnError};
use rustydb_types::ids::GroupId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Inner;

/// The longest audit that may be asked for.
const AUDIT_TIMEOUT_MAX: Duration = Duration::from_secs(6 * 3600);
/// How long the leader tries to commit the entry of an audit.
const MARK_DEADLINE: Duration = Duration::from_secs(30);

/// The events of one audit: that it waits, then what it found.
pub(crate) type AuditEvents = ReceiverStream<Result<AuditReplicaEvent, Status>>;

fn event(event: Event) -> Result<AuditReplicaEvent, Status> {
    Ok(AuditReplicaEvent { event: Some(event) })
}

fn found(report: AuditReport) -> Event {
    let hash = |hash: u128| bytes::Bytes::copy_from_slice(&hash.to_le_bytes());
    Event::Found(AuditFound {
        term: report.position.term.get(),
        index: report.position.index.get(),
        kept: hash(report.kept),
        stored: hash(report.stored),
        rows: report.rows,
    })
}

fn refused(error: &TxnError) -> Status {
    match error {
        TxnError::NotLeader { .. } => Status::unavailable(error.to_string()),
        TxnError::Overloaded { .. } => Status::resource_exhausted(error.to_string()),
        _ => Status::internal(error.to_string()),
    }
}

fn with_source(error: &TxnError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl Inner {
    fn store_to_audit(&self, group: u64) -> Result<KvStore, Status> {
        self.databases
            .store(GroupId::new(group))
            .ok_or_else(|| Status::not_found(format!("group {group} has no replica at node {}", self.me)))
    }

    /// Takes part in an audit; it ends with its deadline, with the call, and with the node.
    pub(crate) fn audit_replica(
        self: &Arc<Inner>,
        request: &AuditReplicaRequest,
    ) -> Result<AuditEvents, Status> {
        let store = self.store_to_audit(request.group_id)?;
        let audit = store.begin_audit(AuditId::new(request.audit)).map_err(|error| refused(&error))?;
        let timeout = Duration::from_millis(request.timeout_ms).min(AUDIT_TIMEOUT_MAX);
        // Both events fit: nobody waits for a reader that went away.
        let (sender, events) = mpsc::channel(2);
        let waiting = sender.try_send(event(Event::Waiting(AuditWaiting {})));
        debug_assert!(waiting.is_ok(), "a new channel has room");
        let node = Arc::clone(self);
        drop(self.env.spawn("audit", async move {
            // Cancel-safe: what is read so far is dropped.
            let last = tokio::select! {
                biased;
                () = node.stopping.wait() => Event::Failed("the node stops".to_owned()),
                () = sender.closed() => return,
                report = node.env.timeout(timeout, audit.report()) => match report {
                    Ok(Ok(report)) => found(report),
                    Ok(Err(error)) => Event::Failed(with_source(&error)),
                    Err(_) => Event::Failed(format!("not done within {timeout:?}")),
                },
            };
            let _gone = sender.try_send(event(last));
        }));
        Ok(ReceiverStream::new(events))
    }

    /// Commits the entry of an audit; this node leads the group.
    pub(crate) async fn mark_audit(&self, request: &MarkAuditRequest) -> Result<(), Status> {
        let store = self.store_to_audit(request.group_id)?;
        let marking = store.mark_audit(AuditId::new(request.audit));
        match self.env.timeout(MARK_DEADLINE, marking).await {
            Ok(result) => result.map_err(|error| refused(&error)),
            Err(_) => Err(Status::deadline_exceeded(format!("not committed within {MARK_DEADLINE:?}"))),
        }
    }

    /// Replaces the state of a replica by that of another member.
    pub(crate) fn repair_replica(&self, request: &RepairReplicaRequest) -> Result<(), Status> {
        let group = GroupId::new(request.group_id);
        let Some(replica) = self.replicas.groups().get(group) else {
            return Err(Status::not_found(format!("group {group} has no replica at node {}", self.me)));
        };
        let status = replica.status();
        let others = status.voters.iter().filter(|voter| **voter != self.me).count();
        if others < status.quorum().size() {
            return Err(Status::failed_precondition(format!(
                "group {group} has too few other voters to say which state is right"
            )));
        }
        replica.distrust(&format!("an operator asks for its repair: {}", request.reason));
        Ok(())
    }
}
