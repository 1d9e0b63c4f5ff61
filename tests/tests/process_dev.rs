//! `rustydb dev` and `rustydb-cli` when nodes die: what they print, what they exit with, what they leave behind.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use rustydb_tests::cluster::{Cluster, PATIENCE, program, text};
use rustydb_tests::server::{finish, patiently};
use serde_json::Value;

fn start_node(cluster: &Cluster, node: u16) -> Result<Output> {
    let mut command = Command::new(program("rustydb")?);
    command.args(["dev", "--start-node", &node.to_string(), "--data"]).arg(cluster.data());
    finish(command, PATIENCE)
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_starts_again_with_its_data_and_is_not_started_twice() -> Result<()> {
    let mut cluster = Cluster::start(1)?;
    let client = cluster.connect(1, "postgres").await?;
    client.batch_execute("CREATE TABLE t (id bigint PRIMARY KEY)").await?;
    client.execute("INSERT INTO t VALUES (1)", &[]).await?;
    let pid = cluster.pid(1)?;

    let mut again = Command::new(program("rustydb")?);
    again.arg("dev").arg("--data").arg(cluster.data());
    let output = finish(again, PATIENCE)?;
    ensure!(output.status.code() == Some(1), "{}", text(&output));
    ensure!(text(&output).contains(&format!("node 1 runs already as process {pid}")), "{}", text(&output));
    let output = start_node(&cluster, 1)?;
    ensure!(output.status.code() == Some(1) && text(&output).contains("runs already"), "{}", text(&output));
    let output = start_node(&cluster, 2)?;
    ensure!(
        output.status.code() == Some(1) && text(&output).contains("there is no node 2"),
        "{}",
        text(&output)
    );
    ensure!(is_alive(pid), "the first start goes on");

    cluster.interrupt()?;
    ensure!(!is_alive(pid), "Ctrl-C left the node");
    cluster.up()?;
    let client = cluster.connect(1, "postgres").await?;
    let count: i64 = client.query_one("SELECT count(*) FROM t", &[]).await?.get(0);
    assert_eq!(count, 1);
    // Whoever starts the cluster holds it: when that process is killed, the node stops by itself.
    let pid = cluster.pid(1)?;
    cluster.kill_dev()?;
    patiently("the node of a killed dev to stop", || !is_alive(pid))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_die_and_come_back_and_the_cli_tells() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    cli_on_every_node(&cluster)?;

    // Two of three die: one line each, and one that says what it means.
    cluster.kill(2)?;
    cluster.wait_for_line(|line| line.contains("node 2 died, killed (signal 9)"), PATIENCE)?;
    cli_with_a_dead_node(&cluster)?;
    cluster.kill(3)?;
    cluster.wait_for_line(|line| line.contains("node 3 died, killed (signal 9)"), PATIENCE)?;
    cluster.wait_for_line(|line| line.contains("1 of 3 nodes live, 2 must agree"), PATIENCE)?;
    patiently("the last node to notice that nobody answers it", || {
        cluster.status(1).is_ok_and(|status| status["leader"].is_null())
    })?;
    let status = cluster.status(1)?;
    ensure!(status["nodes"][0]["role"] != "leader", "nobody leads, and the last node says {status}");
    cluster.kill(1)?;
    let (status, lines) = cluster.ended()?;
    let last = lines.last().map(String::as_str).unwrap_or_default();
    ensure!(status.code() == Some(1) && last.contains("--start-node 1"), "{status}: {lines:#?}");
    ensure!(!lines.iter().any(|line| line.contains("0 of 3")), "{lines:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_majority_says_so_and_serves_when_there_is_one() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    for node in [2, 3] {
        cluster.kill(node)?;
        cluster.wait_for_line(|line| line.contains(&format!("node {node} died")), PATIENCE)?;
    }
    // Node 1 stopped too, by SIGSTOP: then nobody else answers node 2.
    cluster.signal(1, "STOP")?;
    let output = start_node(&cluster, 2)?;
    cluster.signal(1, "CONT")?;
    let said = text(&output);
    ensure!(output.status.code() == Some(1), "{said}");
    ensure!(
        said.contains("does not serve yet: 1 of 3 nodes answer, 2 must agree; start another with"),
        "{said}"
    );
    // It was left running, and with the other it is a majority.
    ensure!(is_alive(cluster.pid(2)?), "node 2 was not left running");
    cluster.wait_for_line(|line| line.contains("node 2 is back"), PATIENCE)?;
    cluster
        .wait_for_line(|line| line.contains("2 of 3 nodes live, 2 must agree: that is enough"), PATIENCE)?;
    let output = start_node(&cluster, 3)?;
    ensure!(output.status.success() && text(&output).contains("node 3 is up"), "{}", text(&output));
    cluster.wait_for_line(|line| line.contains("node 3 is back"), PATIENCE)?;
    let client = cluster.connect(3, "postgres").await?;
    client.batch_execute("CREATE TABLE t (id bigint PRIMARY KEY)").await?;

    // One line per death, however it came.
    let lines = cluster.printed();
    for node in [2, 3] {
        let count = lines.iter().filter(|line| line.contains(&format!("node {node} died"))).count();
        ensure!(count == 1, "{count} lines about the end of node {node}: {lines:#?}");
    }
    let pids: Vec<u32> = cluster.node_numbers().map(|node| cluster.pid(node)).collect::<Result<_>>()?;
    cluster.interrupt()?;
    for pid in pids {
        ensure!(!is_alive(pid), "Ctrl-C left process {pid}");
    }
    Ok(())
}

/// Runs the CLI; its exit code and what it printed.
fn cli(cluster: &Cluster, hosts: &str, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(program("rustydb-cli")?);
    command.args(["--host", hosts, "--connect-timeout", "3s"]).args(arguments);
    let output = finish(command, PATIENCE)?;
    let _ = cluster;
    Ok((output.status.code(), text(&output)))
}

fn host(cluster: &Cluster, node: u16) -> String {
    format!("127.0.0.1:{}", cluster.postgres_port(node) + 100)
}

fn cli_on_every_node(cluster: &Cluster) -> Result<()> {
    let leader = cluster.status(1)?["leader"].as_u64().context("nobody leads")?;
    for node in cluster.node_numbers() {
        let hosts = host(cluster, node);
        for arguments in [
            &["cluster", "status"][..],
            &["cluster", "status", "--show-versions"],
            &["cluster", "status", "--node", "node-2"],
            &["cluster", "wait-leader", "--timeout", "10s"],
            &["node", "info", "3", "--show-term"],
            &["node", "info"],
            &["raft", "status"],
            &["query", "SELECT 1 AS one"],
        ] {
            let (code, said) = cli(cluster, &hosts, arguments)?;
            ensure!(
                code == Some(0) && !said.trim().is_empty(),
                "{arguments:?} on node {node}: {code:?} {said}"
            );
            let (code, said) = cli(cluster, &hosts, &[&["--json"], arguments].concat())?;
            ensure!(code == Some(0), "{arguments:?} --json on node {node}: {said}");
            serde_json::from_str::<Value>(&said).with_context(|| format!("{arguments:?}: {said}"))?;
        }
    }
    let other = cluster.node_numbers().find(|node| u64::from(*node) != leader).context("no follower")?;
    let hosts = host(cluster, other);
    // A change goes to the leader, wherever it is asked for.
    let (code, said) = cli(cluster, &hosts, &["node", "lead", &other.to_string(), "--database", "system"])?;
    ensure!(code == Some(0), "{said}");
    let (code, said) =
        cli(cluster, &hosts, &["cluster", "wait-leader", &other.to_string(), "--timeout", "20s"])?;
    ensure!(code == Some(0), "{said}");
    for (arguments, expected, reason) in [
        (
            &["cluster", "wait-leader", &leader.to_string(), "--timeout", "200ms"][..],
            1,
            "is not the leader after 200ms: node",
        ),
        (&["node", "lead", "9"], 1, "no voter"),
        (&["node", "info", "9"], 1, "not a member"),
        (&["node", "lead", "1", "--database", "nowhere"], 1, "does not exist"),
        (&["cluster", "init"], 1, "is already a member of cluster"),
        (&["cluster", "wait-leader", "9"], 1, "node 9 is not a member of this cluster"),
        (&["node", "add", "127.0.0.1:1"], 3, "does not answer"),
        (&["query", "SELECT nothing"], 1, "42703"),
        (&["query", "--database", "nowhere", "SELECT 1"], 1, "3D000"),
        (&["query", "--tls-ca", "/nowhere.pem", "SELECT 1"], 2, "No such file"),
        (&["query"], 2, "Usage"),
        (&["node", "info", "zero"], 2, "not a node"),
    ] {
        let (code, said) = cli(cluster, &hosts, arguments)?;
        ensure!(code == Some(expected) && said.contains(reason), "{arguments:?}: {code:?} {said}");
    }
    errors_and_outcomes(&hosts)?;
    prompt(&hosts)
}

/// What `query` prints, on which output, for people and for programs.
fn errors_and_outcomes(hosts: &str) -> Result<()> {
    let run = |arguments: &[&str], input: &str| -> Result<(Option<i32>, String, String)> {
        let mut child = Command::new(program("rustydb-cli")?)
            .args(["--host", hosts])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("no input")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        let said = |bytes| String::from_utf8(bytes);
        Ok((output.status.code(), said(output.stdout)?, said(output.stderr)?))
    };
    let document = |text: &str| serde_json::from_str::<Value>(text).with_context(|| text.to_owned());

    let (code, out, err) = run(&["query", "CREATE TABLE outcome (id int PRIMARY KEY, t text)"], "")?;
    ensure!(code == Some(0) && out == "CREATE TABLE\n", "{out}{err}");
    let (code, out, err) = run(&["query", "INSERT INTO outcome VALUES (1, 'one')"], "")?;
    ensure!(code == Some(0) && out == "INSERT 0 1\n", "{out}{err}");
    // What ran before a failure is shown.
    let failing = "SELECT 'before' AS shown; SELECT nothing";
    let (code, out, err) = run(&["query", failing], "")?;
    ensure!(code == Some(1) && out.contains("before") && err.contains("SQLSTATE 42703"), "{out}{err}");
    let (code, out, err) = run(&["--json", "query", failing], "")?;
    ensure!(code == Some(1), "{out}{err}");
    let expected = serde_json::json!([{ "tag": "SELECT 1", "columns": ["shown"], "rows": [["before"]] }]);
    assert_eq!(document(&out)?, expected);
    let error = &document(&err)?["error"];
    assert_eq!((&error["sqlstate"], &error["kind"]), (&Value::from("42703"), &Value::from("sql")));
    assert_eq!(error["position"], 34);

    for (arguments, kind, expected) in [
        (&["--json", "cluster", "wait-leader", "9"][..], "refused", 1),
        (&["--json", "cluster", "init"], "refused", 1),
        (&["--json", "node", "add", "127.0.0.1:1"], "unreachable", 3),
        (&["--json", "query"], "usage", 2),
    ] {
        let (code, out, err) = run(arguments, "")?;
        ensure!(code == Some(expected) && out.is_empty(), "{arguments:?}: {out}{err}");
        assert_eq!(document(&err)?["error"]["kind"], kind, "{arguments:?}");
    }

    let (code, out, err) = run(&["query", "COPY outcome FROM STDIN"], "2\ttwo\n3\tthree\n")?;
    ensure!(code == Some(0) && out == "COPY 2\n", "{out}{err}");
    let (code, out, err) = run(&["query", "COPY (SELECT * FROM outcome ORDER BY id) TO STDOUT"], "")?;
    ensure!(code == Some(0) && out == "1\tone\n2\ttwo\n3\tthree\n", "{out}{err}");
    let (code, out, err) = run(&["--json", "query", "COPY (SELECT 1) TO STDOUT; DELETE FROM outcome"], "")?;
    ensure!(code == Some(0), "{out}{err}");
    let expected = serde_json::json!([
        { "tag": "COPY 1", "count": 1, "copy": "1\n" },
        { "tag": "DELETE 3", "count": 3 },
    ]);
    assert_eq!(document(&out)?, expected);

    // A script goes on after what fails, the last statement needs no semicolon, and nothing is left out.
    let script = "SELECT 'one';\nSELECT nothing; SELECT 'a;b';\nCOPY outcome FROM stdin;\nSELECT 'last'";
    let (code, out, err) = run(&["sql"], script)?;
    ensure!(code == Some(1) && err.contains("42703") && err.contains("2 statements failed"), "{out}{err}");
    ensure!(err.contains("COPY FROM STDIN is for `rustydb-cli query`"), "{err}");
    ensure!(["one", "a;b", "last"].iter().all(|shown| out.contains(shown)), "{out}");
    let (code, out, err) = run(&["sql"], "SELECT 1;\n-- nothing more\n")?;
    ensure!(code == Some(0) && err.is_empty(), "{out}{err}");
    Ok(())
}

/// The prompt, with a script in place of a person.
fn prompt(hosts: &str) -> Result<()> {
    let mut child = Command::new(program("rustydb-cli")?)
        .args(["--host", hosts, "sql"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env("HOME", "/nonexistent")
        .spawn()?;
    let mut input = child.stdin.take().context("no input")?;
    input.write_all(b"CREATE TABLE shown (id int PRIMARY KEY);\nSELECT 40\n + 2 AS answer;\nSELECT wrong;\n\\dt\n\\d shown\n\\q\n")?;
    drop(input);
    let output = child.wait_with_output()?;
    let said = text(&output);
    for expected in ["42", "42703", "shown", "not null"] {
        ensure!(said.contains(expected), "`{expected}` is not in\n{said}");
    }
    // It goes on after an error and fails at the end.
    ensure!(output.status.code() == Some(1) && said.contains("1 statement failed"), "{said}");
    Ok(())
}

fn cli_with_a_dead_node(cluster: &Cluster) -> Result<()> {
    let dead = host(cluster, 2);
    let alive = host(cluster, 3);
    let (code, said) = cli(cluster, &dead, &["cluster", "status"])?;
    ensure!(code == Some(3) && said.contains("no node answers"), "{code:?} {said}");
    let (code, said) = cli(cluster, &alive, &["node", "info", "2"])?;
    ensure!(code == Some(3) && said.contains("does not answer"), "{code:?} {said}");
    let (code, said) = cli(cluster, &alive, &["cluster", "status", "--node", "2"])?;
    ensure!(code == Some(3), "{code:?} {said}");
    // The next of several hosts is asked, and a new leader is there before long.
    let hosts = format!("{dead},{alive}");
    let (code, said) = cli(cluster, &hosts, &["cluster", "wait-leader", "--timeout", "30s"])?;
    ensure!(code == Some(0), "{said}");
    for arguments in
        [&["cluster", "status"][..], &["node", "info"], &["raft", "status"], &["query", "SELECT 1"]]
    {
        for json in [&[][..], &["--json"]] {
            let (code, said) = cli(cluster, &hosts, &[json, arguments].concat())?;
            ensure!(code == Some(0), "{arguments:?} with a dead node: {said}");
        }
    }
    let (_, said) = cli(cluster, &alive, &["cluster", "status"])?;
    ensure!(said.contains("2 of 3 nodes answer") && said.contains("down"), "{said}");
    Ok(())
}
