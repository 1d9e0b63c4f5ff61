//! Bad input and limits at the ports of running servers: a connection may end, a server may not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustydb_env::sim::Simulation;
use rustydb_tests::cluster::{connect, free_base_port};
use rustydb_tests::raw::{Raw, message, startup};
use rustydb_tests::server::{Server, TRUST_LOOPBACK, patiently};
use tokio_postgres::{Client, NoTls};

/// Two servers with small limits, a leader and a follower.
struct Pair {
    _folder: tempfile::TempDir,
    servers: Vec<Server>,
    /// Index of the one that leads the database.
    leader: usize,
}

impl Pair {
    fn start() -> Result<Pair> {
        let folder = tempfile::tempdir()?;
        let base_port = free_base_port()?;
        let more = format!(
            "[session]\nmax_connections = 12\nmax_message_size = \"64KiB\"\nauthentication_timeout = \"2s\"\n\
             {TRUST_LOOPBACK}"
        );
        let mut servers = Vec::new();
        for slot in 1..=2 {
            let name = format!("node{slot}");
            let mut server = Server::new(folder.path(), &name, u64::from(slot), base_port, slot, &more)?;
            server.start()?;
            servers.push(server);
        }
        servers[0].cli_json(&["cluster", "init"])?;
        servers[0].cli_json(&["node", "add", &format!("127.0.0.1:{}", servers[1].interconnect)])?;
        for server in &servers {
            server.wait_ready()?;
        }
        let status = servers[0].cli_json(&["cluster", "status"])?;
        let leader = status["databases"][0]["leader"].as_u64().context("nobody leads")?;
        Ok(Pair { _folder: folder, servers, leader: usize::try_from(leader)? - 1 })
    }

    fn leader(&self) -> &Server {
        &self.servers[self.leader]
    }

    fn follower(&self) -> &Server {
        &self.servers[1 - self.leader]
    }

    /// Both processes live, are the ones that were started, and answer.
    async fn check(&mut self, after: &str) -> Result<()> {
        for server in &mut self.servers {
            ensure!(server.is_alive()?, "a server ended after {after}:\n{}", server.logged());
            ensure!(!server.logged().contains("panicked"), "a panic after {after}:\n{}", server.logged());
            let client = connect(&server.target("postgres")).await.context(after.to_owned())?;
            let one: i32 = client.query_one("SELECT 1", &[]).await?.get(0);
            assert_eq!(one, 1);
        }
        Ok(())
    }
}

/// Packets with which no session begins.
fn bad_beginnings() -> Vec<Vec<u8>> {
    let packet = |code: u32, rest: &[u8]| {
        let length = u32::try_from(8 + rest.len()).unwrap_or(u32::MAX);
        [&length.to_be_bytes()[..], &code.to_be_bytes(), rest].concat()
    };
    let (tls, gss, cancel, version) = (80_877_103, 80_877_104, 80_877_102, 196_608);
    vec![
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0; 8],
        vec![0xff; 64],
        0x7fff_ffff_u32.to_be_bytes().to_vec(),
        [&4_u32.to_be_bytes()[..], b"xxxx"].concat(),
        packet(9 << 16, b"user\0a\0\0"),
        packet(version, b""),
        packet(version, b"user\0postgres"),
        packet(version, b"user\0postgres\0database\0\xff\xfe\0\0"),
        packet(version, b"\0"),
        packet(version, b"user\0nobody\0database\0postgres\0\0"),
        packet(version, b"user\0postgres\0database\0nowhere\0\0"),
        packet(cancel, b""),
        packet(cancel, b"\0\0\0\x01\0\0\0\x02"),
        packet(cancel, &[7; 300]),
        [packet(tls, b""), packet(gss, b""), packet(tls, b""), packet(gss, b"")].concat(),
        // Half a packet, and silence.
        startup("postgres", "postgres")[..20].to_vec(),
        Vec::new(),
    ]
}

/// Messages that no client sends, with the SQLSTATE of the answer if it is always the same.
fn bad_messages() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let with_length = |tag: u8, length: u32| [&[tag][..], &length.to_be_bytes()].concat();
    vec![
        (with_length(b'Q', 0), Some("08P01")),
        (with_length(b'Q', 3), Some("08P01")),
        (with_length(b'Q', 0x7fff_ffff), Some("08P01")),
        (with_length(b'Q', 0xffff_ffff), Some("08P01")),
        (message(b'Q', &vec![b' '; 100_000]), Some("08P01")),
        (message(b'~', b""), Some("08P01")),
        (message(0, b"abc"), Some("08P01")),
        (message(b'Q', b"SELECT 1"), Some("08P01")),
        (message(b'Q', b"SELECT '\xff\xfe'\0"), None),
        (message(b'P', b"a"), None),
        (message(b'P', b"a\0SELECT 1\0\x7f\xff"), None),
        (message(b'B', b"\0\0\x7f\xff"), None),
        (message(b'B', b"\0nothing\0\0\0\0\0\0\0"), None),
        (message(b'D', b"X\0"), None),
        (message(b'E', b"\0"), None),
        (message(b'C', b""), None),
        (message(b'F', b""), None),
        (message(b'p', b"x\0"), None),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_frames_end_the_connection_and_never_the_server() -> Result<()> {
    let mut pair = Pair::start()?;
    for at in 0..2 {
        let port = pair.servers[at].postgres;
        // All at once, since each may take the authentication timeout.
        let mut open = Vec::new();
        for bytes in bad_beginnings() {
            let mut raw = Raw::connect(port)?;
            raw.say(&bytes);
            open.push((raw, bytes));
        }
        for (mut raw, bytes) in open {
            raw.wait_for_end().with_context(|| format!("after {bytes:?}"))?;
        }
        for (bytes, expected) in bad_messages() {
            let mut raw = Raw::session(port)?;
            raw.say(&bytes);
            raw.say(&message(b'S', b""));
            let heard = raw.error();
            if let Some(expected) = expected {
                let (state, is_fatal) = heard.with_context(|| format!("after {bytes:?}"))?;
                ensure!(state == expected && is_fatal, "{state} after {:?}", &bytes[..bytes.len().min(20)]);
                raw.wait_for_end()?;
            } else {
                let (state, _) = heard.with_context(|| format!("after {bytes:?}"))?;
                ensure!(state != "XX000", "an internal error after {bytes:?}");
            }
        }
    }
    pair.check("bad messages").await?;
    random_bytes(&pair)?;
    pair.check("random bytes").await?;
    bad_http2(&pair)?;
    pair.check("bad frames at the interconnect").await?;
    bad_http(&pair)?;
    pair.check("bad requests over HTTP").await?;
    let (_, page) = pair.leader().get("/metrics")?;
    let violations = samples(&page)?["rustydb_pg_protocol_violations_total"];
    ensure!(violations >= 10.0, "only {violations} violations are counted");
    Ok(())
}

/// Conversations that are right at first and then damaged, the same in every run.
fn random_bytes(pair: &Pair) -> Result<()> {
    let simulation = Simulation::new(7);
    let mut rng = simulation.env(simulation.add_node()).rng();
    let talk = [
        message(b'Q', b"SELECT 1; SELECT 2\0"),
        message(b'P', b"s\0SELECT $1::int + 1\0\0\x01\0\0\0\x17"),
        message(b'B', b"p\0s\0\0\0\0\x01\0\0\0\x011\0\0"),
        message(b'D', b"Pp\0"),
        message(b'E', b"p\0\0\0\0\0"),
        message(b'S', b""),
        message(b'Q', b"CREATE TEMP TABLE x (a int); COPY x FROM STDIN\0"),
        message(b'd', b"1\n"),
        message(b'c', b""),
    ]
    .concat();
    for turn in 0..120_usize {
        let mut bytes = talk.clone();
        for _ in 0..=rng.range(0..6) {
            let at = usize::try_from(rng.range(0..bytes.len() as u64))?;
            bytes[at] = u8::try_from(rng.range(0..256))?;
        }
        bytes.truncate(usize::try_from(rng.range(1..bytes.len() as u64 + 1))?);
        let mut raw =
            Raw::session(pair.servers[turn % 2].postgres).context("a session between the damaged ones")?;
        raw.say(&bytes);
        raw.hang_up();
        raw.wait_for_end().with_context(|| format!("turn {turn}: {bytes:?}"))?;
    }
    Ok(())
}

fn bad_http2(pair: &Pair) -> Result<()> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let frame = |length: u32, kind: u8, flags: u8, stream: u32, body: &[u8]| {
        [&length.to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), body].concat()
    };
    let settings = frame(0, 4, 0, 0, b"");
    let conversations = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0; 200],
        vec![0xff; 200],
        startup("postgres", "postgres"),
        [PREFACE, &[0xff; 100]].concat(),
        // Larger than any frame may be.
        [PREFACE, &settings, &frame(0x00ff_ffff, 0, 0, 1, &[0; 100])].concat(),
        // Headers that do not decompress, on a stream that a client may not open.
        [PREFACE, &settings, &frame(8, 1, 4, 2, &[0xff; 8])].concat(),
        [PREFACE, &settings, &frame(8, 1, 4, 1, &[0xff; 8])].concat(),
        // Data before headers.
        [PREFACE, &settings, &frame(4, 0, 1, 1, b"data")].concat(),
    ];
    for server in &pair.servers {
        for bytes in &conversations {
            let mut raw = Raw::connect(server.interconnect)?;
            raw.say(bytes);
            raw.hang_up();
            raw.wait_for_end().with_context(|| format!("after {bytes:?}"))?;
        }
    }
    Ok(())
}

fn bad_http(pair: &Pair) -> Result<()> {
    let long_header = format!("GET /health HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(2 << 20));
    for (bytes, expected) in [
        (&b"\x16\x03\x01\x02\x00\x01"[..], ""),
        (b"GET\r\n\r\n", "HTTP/1.1 400"),
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 404"),
        (
            b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
            "HTTP/1.1 405",
        ),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 400"),
        (long_header.as_bytes(), ""),
        (b"GET /metr", ""),
    ] {
        let mut raw = Raw::connect(pair.leader().http)?;
        raw.say(bytes);
        raw.hang_up();
        let said = String::from_utf8_lossy(&raw.wait_for_end()?).into_owned();
        ensure!(said.starts_with(expected) && !said.starts_with("HTTP/1.1 200"), "{said}");
    }
    Ok(())
}

/// The samples of a page in Prometheus' text format, by name with labels.
///
/// # Errors
/// The page is not in that format, or a sample has no help, no type, or a value that is not its type's.
fn samples(page: &str) -> Result<BTreeMap<String, f64>> {
    let mut found = BTreeMap::new();
    let (mut helped, mut types) = (BTreeSet::new(), BTreeMap::new());
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').context("no help")?;
            ensure!(!help.is_empty() && helped.insert(name), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').context("no type")?;
            ensure!(matches!(kind, "counter" | "gauge") && types.insert(name, kind).is_none(), "{line}");
            ensure!((kind == "counter") == name.ends_with("_total"), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').context("no value")?;
            let name = series.split('{').next().unwrap_or_default();
            ensure!(helped.contains(name) && types.contains_key(name), "{line}");
            let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            ensure!(name.starts_with("rustydb_") && plain(name), "{line}");
            if let Some(labels) = series.strip_prefix(name).filter(|labels| !labels.is_empty()) {
                let inside =
                    labels.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).context("labels")?;
                let (label, text) = inside.split_once('=').context("a label")?;
                ensure!(plain(label) && text.starts_with('"') && text.ends_with('"'), "{line}");
            }
            ensure!(found.insert(series.to_owned(), value.parse()?).is_none(), "twice: {line}");
        }
    }
    Ok(found)
}

async fn code_of(client: &Client, sql: &str) -> Result<String> {
    match client.batch_execute(sql).await {
        Ok(()) => bail!("`{sql}` worked"),
        Err(error) => Ok(error.code().with_context(|| format!("`{sql}`: {error}"))?.code().to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_timeouts_cancels_and_figures_hold_on_leader_and_follower() -> Result<()> {
    let mut pair = Pair::start()?;
    let holder = connect(&pair.leader().target("postgres")).await?;
    holder.batch_execute("CREATE TABLE t (id bigint PRIMARY KEY, n bigint)").await?;
    holder.batch_execute("INSERT INTO t VALUES (1, 0)").await?;
    holder.batch_execute("CREATE ROLE plain LOGIN").await?;
    let before = samples(&pair.leader().get("/metrics")?.1)?;

    holder.batch_execute("BEGIN; UPDATE t SET n = 1 WHERE id = 1").await?;
    for server in [pair.leader(), pair.follower()] {
        // What is asked for with the connection holds too.
        let asked = format!("{} options='-c lock_timeout=70ms -c work_mem=3MB'", server.target("postgres"));
        let client = connect(&asked).await?;
        let held: String = client
            .query_one("SELECT current_setting('lock_timeout') || current_setting('work_mem')", &[])
            .await?
            .get(0);
        assert_eq!(held, "70ms3MB");
        assert_eq!(code_of(&client, "UPDATE t SET n = 2 WHERE id = 1").await?, "55P03");
        let client = connect(&server.target("postgres")).await?;
        let wait = "UPDATE t SET n = 2 WHERE id = 1";
        assert_eq!(code_of(&client, &format!("SET lock_timeout = '100ms'; {wait}")).await?, "55P03");
        client.batch_execute("SET lock_timeout = 0; SET statement_timeout = '100ms'").await?;
        assert_eq!(code_of(&client, wait).await?, "57014");
        client.batch_execute("SET statement_timeout = 0").await?;
        // A cancel request goes to the node that the client is connected to, wherever the statement runs.
        let token = client.cancel_token();
        let waits = async { code_of(&client, wait).await };
        let cancels = async {
            loop {
                token.cancel_query(NoTls).await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            code = waits => assert_eq!(code?, "57014"),
            failed = cancels => { let error: Result<(), tokio_postgres::Error> = failed; error? }
        }
        client.batch_execute("SELECT 1").await.context("the session goes on after a cancel")?;
        let mut idle = Raw::session(server.postgres)?;
        idle.say(&message(b'Q', b"SET idle_session_timeout = '100ms'\0"));
        assert_eq!(idle.error()?, ("57P05".to_owned(), true));
        idle.wait_for_end()?;
        let mut idle = Raw::session(server.postgres)?;
        idle.say(&message(b'Q', b"SET idle_in_transaction_session_timeout = '100ms'; BEGIN\0"));
        assert_eq!(idle.error()?, ("25P03".to_owned(), true));
        idle.wait_for_end()?;
    }
    holder.batch_execute("COMMIT").await?;
    computing_is_ended_and_holds_nobody_up(&pair).await?;

    too_many_connections(pair.follower()).await?;
    pair.check("too many connections").await?;

    let after = samples(&pair.leader().get("/metrics")?.1)?;
    for name in [
        "rustydb_pg_connections_total",
        "rustydb_pg_messages_total",
        "rustydb_pg_received_bytes_total",
        "rustydb_pg_sent_bytes_total",
        "rustydb_pg_cancel_requests_total",
        "rustydb_consensus_commit_index{database=\"postgres\"}",
        "rustydb_consensus_last_applied_index{database=\"postgres\"}",
    ] {
        ensure!(after[name] > before[name], "{name} was {} and is {}", before[name], after[name]);
    }
    let follower = samples(&pair.follower().get("/metrics")?.1)?;
    ensure!(follower["rustydb_pg_connections_refused_total"] >= 1.0);
    assert_eq!(after["rustydb_consensus_leader{database=\"postgres\"}"], 1.0);
    assert_eq!(follower["rustydb_consensus_leader{database=\"postgres\"}"], 0.0);

    // Without a majority: alive, not ready, and it says why.
    let follower = 1 - pair.leader;
    pair.servers[pair.leader].kill()?;
    let left = &mut pair.servers[follower];
    let mut body = String::new();
    patiently("503 at /ready", || {
        left.get("/ready").is_ok_and(|(code, said)| {
            body = said;
            code == 503 && body.contains("has no leader")
        })
    })
    .with_context(|| body.clone())?;
    assert_eq!(left.get("/health")?.0, 200);
    patiently("the figures to say so too", || {
        left.get("/metrics")
            .is_ok_and(|(_, page)| samples(&page).is_ok_and(|samples| samples["rustydb_server_ready"] == 0.0))
    })
}

/// A statement that only computes, for longer than any test, is ended by its timeout and by cancel requests; and while
/// more of them compute than the node has threads for sessions, others are served.
async fn computing_is_ended_and_holds_nobody_up(pair: &Pair) -> Result<()> {
    const COMPUTES: &str = "(SELECT count(*) FROM generate_series(1, 1000000000000) g)";
    let statements = [
        COMPUTES.to_owned(),
        format!("SELECT {COMPUTES}"),
        format!("SELECT n FROM t WHERE id = 1 AND {COMPUTES} > n"),
        format!("UPDATE t SET n = {COMPUTES} WHERE id = 2"),
        format!("INSERT INTO t VALUES (-1, 0) RETURNING {COMPUTES}"),
    ];
    connect(&pair.leader().target("postgres")).await?.batch_execute("INSERT INTO t VALUES (2, 0)").await?;
    for server in [pair.leader(), pair.follower()] {
        let client = connect(&server.target("postgres")).await?;
        client.batch_execute("SET statement_timeout = '100ms'").await?;
        for statement in &statements {
            assert_eq!(code_of(&client, statement).await?, "57014", "{statement}");
        }
        client.batch_execute("SELECT 1").await.context("the session goes on after its timeout")?;
    }
    let mut computing = Vec::new();
    for statement in statements {
        let client = connect(&pair.leader().target("postgres")).await?;
        let token = client.cancel_token();
        let asked = statement.clone();
        computing.push((token, statement, tokio::spawn(async move { code_of(&client, &asked).await })));
    }
    for server in [pair.leader(), pair.follower()] {
        let client = connect(&server.target("postgres")).await?;
        client.batch_execute("UPDATE t SET n = n + 1 WHERE id = 1").await?;
    }
    let other = connect(&pair.follower().target("postgres")).await?;
    for (index, (token, statement, task)) in computing.into_iter().enumerate() {
        ensure!(!task.is_finished(), "it cannot have counted so far");
        while !task.is_finished() {
            if index % 2 == 0 {
                token.cancel_query(NoTls).await?;
            } else {
                // From another session, which any node takes.
                let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query =";
                other.batch_execute(&format!("{cancel} '{statement}'")).await?;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(task.await??, "57014");
    }
    Ok(())
}

/// Twelve connections, three of them for superusers.
async fn too_many_connections(server: &Server) -> Result<()> {
    let plain = server.target("postgres").replace("user=postgres", "user=plain");
    // Connections of the tests before may still be going away.
    let mut open = Vec::new();
    let mut refusal = None;
    patiently_async(async || {
        match connect(&plain).await {
            Ok(client) => open.push(client),
            Err(error) => refusal = Some(error),
        }
        Ok(refusal.is_some())
    })
    .await?;
    let refusal = refusal.context("no refusal")?.downcast::<tokio_postgres::Error>()?;
    assert_eq!(refusal.code().map(|code| code.code()), Some("53300"), "{refusal:?}");
    ensure!(open.len() <= 9, "{} plain connections", open.len());
    // An operator still gets in.
    let operator = connect(&server.target("postgres")).await.context("the reserve for superusers")?;
    operator.batch_execute("SELECT 1").await?;
    drop(operator);
    open.pop();
    patiently_async(async || Ok(connect(&plain).await.is_ok())).await.context("a place that became free")
}

async fn patiently_async(mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = std::time::Instant::now() + rustydb_tests::cluster::PATIENCE;
    while !holds().await? {
        ensure!(std::time::Instant::now() < deadline, "waited in vain");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
