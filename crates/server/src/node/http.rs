//! HTTP for load balancers and monitoring: `/health`, `/ready`, `/metrics`.
//!
//! `/health` answers as long as the process lives. `/ready` is 503 with the reason until the node can serve SQL,
//! and names the state of every group. `/metrics` is Prometheus' text format. Nothing here changes anything.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustydb_env::sync::Signal;
use rustydb_proto::v1::{GroupStatus, NodeStatusResponse};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Most connections at a time; one more is closed at once. Far more than monitoring needs.
const CONNECTION_COUNT_MAX: usize = 256;
/// Longest time for the head of a request, and longest silence between two requests.
const HEAD_WAIT: Duration = Duration::from_secs(30);
/// Longest life of a connection, so that a client that does not read its answer gives its place up.
const CONNECTION_LIFE_MAX: Duration = Duration::from_secs(600);
/// How long connections may go on when the node stops.
const STOP_WAIT: Duration = Duration::from_secs(1);
/// Pause after a connection could not be accepted, as when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the pages show; asked for at each request.
pub trait StatusSource: Send + Sync + 'static {
    /// The node's own view of itself.
    fn status(&self) -> NodeStatusResponse;
    /// Further figures: name with unit, what it means, value.
    fn figures(&self) -> Vec<Figure>;
}

/// One figure of the node as a whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// `rustydb_<crate>_<noun>_<unit>`; a counter ends in `_total`.
    pub name: &'static str,
    /// What it means.
    pub help: &'static str,
    /// Its value now.
    pub value: f64,
}

/// Serves the pages until told to stop. A request that hangs is dropped at the stop after one second.
pub async fn run(listener: TcpListener, source: Arc<dyn StatusSource>, stopping: Signal) {
    let router = Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(source);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopping.wait() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) if connections.len() < CONNECTION_COUNT_MAX => {
                connections.spawn(converse(stream, router.clone(), stopping.clone()));
            }
            Ok(_) => tracing::debug!("an HTTP connection too many was closed"),
            Err(error) => {
                tracing::warn!(%error, "an HTTP connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    // What is left is aborted with the set.
    let _late = tokio::time::timeout(STOP_WAIT, ended).await;
}

/// Answers the requests of one connection. A client may close its sending side before it has its answer.
async fn converse(stream: TcpStream, router: Router, stopping: Signal) {
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let served = tokio::time::timeout(CONNECTION_LIFE_MAX, async {
        tokio::select! {
            biased;
            served = connection.as_mut() => return served,
            () = stopping.wait() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    });
    match served.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP connection ended"),
        Err(_) => tracing::debug!("an HTTP connection was open too long"),
    }
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    uptime_seconds: u64,
    version: String,
}

async fn health(State(source): State<Arc<dyn StatusSource>>) -> Json<Health> {
    let status = source.status();
    Json(Health { status: "ok", uptime_seconds: status.uptime_seconds, version: status.version })
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    node: u64,
    groups: Vec<ReadyGroup>,
}

#[derive(Serialize)]
struct ReadyGroup {
    name: String,
    state: String,
    leader: Option<u64>,
    last_applied: u64,
    commit_index: u64,
}

async fn ready(State(source): State<Arc<dyn StatusSource>>) -> Response {
    let status = source.status();
    let code = if status.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let group = |group: GroupStatus| ReadyGroup {
        name: group.name,
        state: group.state,
        leader: Some(group.leader_id).filter(|leader| *leader != 0),
        last_applied: group.last_applied,
        commit_index: group.commit_index,
    };
    let body = Ready {
        ready: status.ready,
        reason: status.not_ready_reason,
        node: status.node_id,
        groups: status.groups.into_iter().map(group).collect(),
    };
    (code, Json(body)).into_response()
}

async fn metrics(State(source): State<Arc<dyn StatusSource>>) -> Response {
    let text = prometheus(&source.status(), &source.figures());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// A figure of a group: name, what it means, and where it is.
type GroupFigure = (&'static str, &'static str, fn(&GroupStatus) -> u64);

const GROUP_FIGURES: &[GroupFigure] = &[
    ("rustydb_consensus_term", "Term of the group.", |group| group.term),
    ("rustydb_consensus_leader", "1 on the node that leads the group.", |group| {
        u64::from(group.state == "leader")
    }),
    ("rustydb_consensus_leader_known", "1 while the node knows who leads the group.", |group| {
        u64::from(group.leader_id != 0)
    }),
    ("rustydb_consensus_last_log_index", "Last entry in the node's log.", |group| group.last_log_index),
    ("rustydb_consensus_commit_index", "Last entry known to be committed.", |group| group.commit_index),
    ("rustydb_consensus_last_applied_index", "Last entry applied here.", |group| group.last_applied),
    ("rustydb_consensus_uncommitted_entries", "Entries proposed and not yet committed.", |group| {
        group.uncommitted_entries
    }),
    ("rustydb_consensus_mending", "1 while the log was lost and the member does not vote yet.", |group| {
        u64::from(group.health == "mending")
    }),
    (
        "rustydb_consensus_diverged",
        "1 while the state differs from that of a majority and is withheld.",
        |group| u64::from(group.health == "diverged"),
    ),
    ("rustydb_consensus_disputed", "1 while replicas differ and no majority holds one state.", |group| {
        u64::from(group.health == "disputed")
    }),
    ("rustydb_consensus_agreed_index", "Last entry after which a majority held this state.", |group| {
        group.agreed_index
    }),
    ("rustydb_consensus_comparisons_total", "Comparisons of the state with the other members'.", |group| {
        group.comparisons
    }),
    ("rustydb_consensus_suspicions_total", "Rows that were not what an entry overwrote.", |group| {
        group.suspicions
    }),
    ("rustydb_consensus_divergences_total", "How often the state was found wrong.", |group| {
        group.divergences
    }),
    ("rustydb_consensus_repairs_total", "How often the state was replaced by another member's.", |group| {
        group.repairs
    }),
    ("rustydb_consensus_voters", "Voters of the group.", |group| {
        u64::try_from(group.voters.len()).unwrap_or(u64::MAX)
    }),
];

/// The page in Prometheus' text format.
fn prometheus(status: &NodeStatusResponse, figures: &[Figure]) -> String {
    let mut text = String::new();
    let own = [
        Figure {
            name: "rustydb_server_ready",
            help: "1 while the node serves SQL.",
            value: f64::from(u8::from(status.ready)),
        },
        Figure {
            name: "rustydb_server_uptime_seconds",
            help: "Time since the process started.",
            value: status.uptime_seconds as f64,
        },
    ];
    for figure in own.iter().chain(figures) {
        heading(&mut text, figure.name, figure.help);
        let _ = writeln!(text, "{} {}", figure.name, figure.value);
    }
    for (name, help, value) in GROUP_FIGURES {
        heading(&mut text, name, help);
        for group in &status.groups {
            let _ = writeln!(text, "{name}{{database=\"{}\"}} {}", escape(&group.name), value(group));
        }
    }
    text
}

fn heading(text: &mut String, name: &str, help: &str) {
    let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// A label's value: a database's name may hold anything.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Fixed(bool);

    impl StatusSource for Fixed {
        fn status(&self) -> NodeStatusResponse {
            let group = GroupStatus {
                group_id: 2,
                name: "a\"b".to_owned(),
                state: "leader".to_owned(),
                leader_id: 1,
                term: 3,
                ..GroupStatus::default()
            };
            NodeStatusResponse {
                node_id: 1,
                version: "1.2.3".to_owned(),
                uptime_seconds: 7,
                ready: self.0,
                not_ready_reason: if self.0 { "" } else { "no leader" }.to_owned(),
                groups: vec![group],
                ..NodeStatusResponse::default()
            }
        }

        fn figures(&self) -> Vec<Figure> {
            vec![Figure { name: "rustydb_pg_connections", help: "Open connections.", value: 4.0 }]
        }
    }

    struct Running {
        address: std::net::SocketAddr,
        stop: Signal,
        server: tokio::task::JoinHandle<()>,
    }

    async fn start(ready: bool) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Signal::default();
        let server = tokio::spawn(run(listener, Arc::new(Fixed(ready)), stop.clone()));
        Running { address, stop, server }
    }

    async fn fetch(ready: bool, path: &str) -> String {
        let running = start(ready).await;
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        running.stop.set();
        running.server.await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_client_that_has_said_all_still_gets_its_answer() {
        let running = start(true).await;
        for _ in 0..100 {
            let mut stream = TcpStream::connect(running.address).await.unwrap();
            stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    }

    #[tokio::test]
    async fn one_connection_too_many_is_closed_and_a_free_place_is_taken_again() {
        let running = start(true).await;
        let mut open = Vec::new();
        for _ in 0..CONNECTION_COUNT_MAX {
            open.push(TcpStream::connect(running.address).await.unwrap());
        }
        let mut refused = TcpStream::connect(running.address).await.unwrap();
        let mut answer = String::new();
        // It may be closed before it has said anything, or with what it said unread.
        let _closed =
            refused.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        let _reset = refused.read_to_string(&mut answer).await;
        assert_eq!(answer, "", "a connection too many is served");
        drop(open);
        loop {
            let mut stream = TcpStream::connect(running.address).await.unwrap();
            let request = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            let mut answer = String::new();
            if stream.write_all(request).await.is_ok()
                && stream.read_to_string(&mut answer).await.is_ok()
                && answer.starts_with("HTTP/1.1 200")
            {
                break;
            }
        }
    }

    #[tokio::test]
    async fn health_has_its_three_fields() {
        let answer = fetch(false, "/health").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.ends_with(r#"{"status":"ok","uptime_seconds":7,"version":"1.2.3"}"#), "{answer}");
    }

    #[tokio::test]
    async fn ready_is_503_with_the_reason_until_the_node_serves() {
        let answer = fetch(false, "/ready").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains(r#""reason":"no leader""#), "{answer}");
        let answer = fetch(true, "/ready").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn metrics_are_prometheus_text() {
        let answer = fetch(true, "/metrics").await;
        assert!(
            answer.contains("# TYPE rustydb_pg_connections gauge\nrustydb_pg_connections 4\n"),
            "{answer}"
        );
        assert!(answer.contains("rustydb_consensus_term{database=\"a\\\"b\"} 3\n"), "{answer}");
        assert!(answer.contains("rustydb_server_ready 1\n"), "{answer}");
    }
}
