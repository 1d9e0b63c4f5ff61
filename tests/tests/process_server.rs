//! Servers started one by one from configuration files, as docs/operations.md says it, and what each refuses.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustydb_tests::cluster::{PATIENCE, connect, free_base_port, program, text};
use rustydb_tests::server::{Server, TRUST_LOOPBACK, finish, patiently};
use tokio_postgres::{Client, NoTls};

const PASSWORD: &str = "correct horse";

/// The blocks of docs/operations.md, section "A cluster on several machines", in a language.
fn documented(language: &str) -> Result<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let page = std::fs::read_to_string(path)?;
    let (_, section) =
        page.split_once("## A cluster on several machines\n").context("the section is gone")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let fence = format!("```{language}\n");
    let blocks = section.split(&fence).skip(1);
    Ok(blocks.filter_map(|block| Some(block.split_once("```")?.0.to_owned())).collect())
}

/// Three servers as the page has them, with this machine's folders and ports in place of the page's.
struct Page {
    folder: tempfile::TempDir,
    servers: Vec<Server>,
}

impl Page {
    fn new() -> Result<Page> {
        let folder = tempfile::tempdir()?;
        let base_port = free_base_port()?;
        let servers = (1..=3).map(|slot| {
            let name = format!("db{slot}");
            Server::new(folder.path(), &name, u64::from(slot), base_port, slot, "")
        });
        let page = Page { servers: servers.collect::<Result<_>>()?, folder };
        std::fs::write(page.folder.path().join("FILE"), format!("{PASSWORD}\n"))?;
        Ok(page)
    }

    /// The page's names, replaced.
    fn here(&self, text: &str) -> String {
        let mut text =
            text.replace("--password-file FILE", &format!("--password-file {}", self.file("FILE")));
        for (at, server) in self.servers.iter().enumerate() {
            let (name, place) =
                (format!("db{}.example", at + 1), format!("localhost:{}", server.interconnect));
            text = text.replace(&format!("{name}:5532"), &place).replace(&name, &place);
        }
        text
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Writes the page's configuration for a server, with `more` behind it.
    fn configure(&self, slot: usize, more: &str) -> Result<()> {
        let server = &self.servers[slot - 1];
        let text = documented("toml")?.first().context("the page has no configuration")?.clone();
        let mut own = text.clone();
        for (theirs, ours) in [
            ("id = 1 ", format!("id = {slot} ")),
            ("\"/var/lib/rustydb\"", format!("{:?}", server.data)),
            ("0.0.0.0:5432", format!("0.0.0.0:{}", server.postgres)),
            ("0.0.0.0:5532", format!("0.0.0.0:{}", server.interconnect)),
            ("127.0.0.1:5632", format!("127.0.0.1:{}", server.http)),
            ("db1.example", "localhost".to_owned()),
        ] {
            ensure!(own.contains(theirs), "`{theirs}` is not in the page's configuration:\n{text}");
            own = own.replace(theirs, &ours);
        }
        std::fs::write(&server.config, format!("{own}\n{}", self.here(more)))?;
        Ok(())
    }

    /// Runs the page's shell lines.
    fn run(&self, lines: &str) -> Result<String> {
        let mut said = String::new();
        for line in lines.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
            let line = self.here(line);
            let mut words = line.split_whitespace();
            let mut command = Command::new(program(words.next().context("an empty line")?)?);
            command.args(words);
            let output = finish(command, PATIENCE)?;
            ensure!(output.status.success(), "{line}: {}\n{}", text(&output), self.logs());
            said.push_str(&text(&output));
        }
        Ok(said)
    }

    fn logs(&self) -> String {
        self.servers.iter().map(|server| format!("--- {:?}\n{}", server.log, server.logged())).collect()
    }

    async fn connect(&self, slot: usize, password: &str) -> Result<Client> {
        let target = format!("{} password='{password}'", self.servers[slot - 1].target("postgres"));
        let (client, connection) =
            tokio::time::timeout(PATIENCE, tokio_postgres::connect(&target, NoTls)).await??;
        tokio::spawn(async move {
            // Its error reaches the statement that waits for it.
            let _ = connection.await;
        });
        Ok(client)
    }

    async fn count(&self, slot: usize) -> Result<i64> {
        Ok(self.connect(slot, PASSWORD).await?.query_one("SELECT count(*) FROM t", &[]).await?.get(0))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_form_a_cluster_as_the_page_says_and_refuse_what_would_break_it() -> Result<()> {
    let mut page = Page::new()?;
    let join = documented("toml")?.get(1).context("the page has no cluster.join")?.clone();
    page.configure(1, "")?;
    page.configure(2, "")?;
    page.configure(3, &join)?;
    for server in &mut page.servers {
        let mut check = Command::new(program("rustydb")?);
        let output = finish(
            {
                check.arg("check-config").arg(&server.config);
                check
            },
            PATIENCE,
        )?;
        ensure!(output.status.success(), "check-config: {}", text(&output));
        server.start()?;
        let (code, body) = server.get("/ready")?;
        ensure!(code == 503 && body.contains("belongs to no cluster"), "/ready before: {code} {body}");
    }
    let shell = documented("sh")?;
    ensure!(shell.len() == 2, "the page has other shell lines than this test knows: {shell:?}");
    page.run(&shell[0])?;
    page.servers[2].wait_ready().context("the node that joins by itself")?;
    let status = page.run(&shell[1])?;
    ensure!(status.contains("3 of 3 nodes answer, 2 make a quorum"), "{status}");

    let client = page.connect(1, PASSWORD).await?;
    client.batch_execute("CREATE TABLE t (id bigint PRIMARY KEY)").await?;
    for slot in 1..=3 {
        page.servers[slot - 1].wait_ready()?;
        let client = page.connect(slot, PASSWORD).await?;
        client.execute("INSERT INTO t VALUES ($1)", &[&i64::try_from(slot)?]).await?;
        let refused = page.connect(slot, "wrong").await.err().context("a wrong password was taken")?;
        let refused = refused.downcast::<tokio_postgres::Error>()?;
        assert_eq!(refused.code().map(|code| code.code()), Some("28P01"));
    }
    for slot in 1..=3 {
        assert_eq!(page.count(slot).await?, 3);
    }
    // A cluster is formed once.
    let output = page.servers[1].cli(&["cluster", "init"])?;
    ensure!(
        output.status.code() == Some(1) && text(&output).contains("is already a member of cluster"),
        "{}",
        text(&output)
    );

    foreign_data_is_refused(&mut page).await?;
    a_lost_log_is_mended_and_without_a_state_refused(&mut page).await?;
    a_lost_folder_comes_back_only_under_a_new_number(&mut page).await?;
    for server in &mut page.servers {
        ensure!(server.stop()?.success(), "a server did not stop cleanly:\n{}", server.logged());
    }
    Ok(())
}

/// Waits until both groups of this cluster, the meta group and the one of its ranges, have been mended so often: a
/// node that stops before then mends the rest after its next start.
fn wait_mended(server: &Server, times: usize) -> Result<()> {
    let mended = |group: u64| {
        let of_group = format!("group={group} ");
        let logged = server.logged();
        logged
            .lines()
            .filter(|line| line.contains("the log is whole again") && line.contains(&of_group))
            .count()
    };
    patiently("the log of both groups to be whole again", || (1..=2).all(|group| mended(group) == times))
        .with_context(|| server.logged())
}

/// Its folder belongs to a cluster, so a node without a log has lost it, and its votes with it.
async fn a_lost_log_is_mended_and_without_a_state_refused(page: &mut Page) -> Result<()> {
    let lost = &mut page.servers[2];
    ensure!(lost.stop()?.success(), "{}", lost.logged());
    std::fs::remove_dir_all(lost.data.join("log"))?;
    lost.start()?;
    lost.wait_ready()?;
    wait_mended(lost, 1).context("a log that is gone")?;
    assert_eq!(page.count(3).await?, 3);
    let lost = &mut page.servers[2];
    ensure!(lost.stop()?.success(), "{}", lost.logged());
    lose_end_of_log(&lost.data.join("log-1"))?;
    lost.start()?;
    lost.wait_ready()?;
    lost.wait_logged("begun=\"log-2\"").context("an end of the log that is gone")?;
    wait_mended(lost, 2)?;
    assert_eq!(page.count(3).await?, 3);
    let lost = &mut page.servers[2];
    ensure!(lost.stop()?.success(), "{}", lost.logged());
    std::fs::remove_dir_all(lost.data.join("log-1"))?;
    std::fs::remove_dir_all(lost.data.join("log-2"))?;
    std::fs::remove_dir_all(lost.data.join("groups"))?;
    std::fs::remove_file(lost.data.join("LOG"))?;
    let (code, said) = lost.refusal()?;
    ensure!(code == Some(1) && said.contains("its votes are lost"), "{said}");
    Ok(())
}

/// Zeros behind the middle of what was written to the newest segment: the log itself does not tell.
fn lose_end_of_log(log: &Path) -> Result<()> {
    let paths = std::fs::read_dir(log)?.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
    let segments = paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == "log"));
    let newest = segments.max().context("there is no segment")?;
    let mut content = std::fs::read(&newest)?;
    let written = content.iter().rposition(|byte| *byte != 0).context("an empty segment")?;
    content[written / 2..].fill(0);
    Ok(std::fs::write(&newest, content)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_alone_whose_log_lacks_its_end_refuses_until_that_is_accepted() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut server = Server::new(folder.path(), "alone", 1, free_base_port()?, 1, TRUST_LOOPBACK)?;
    server.start()?;
    server.cli_json(&["cluster", "init"])?;
    server.wait_ready()?;
    let client = connect(&server.target("postgres")).await?;
    client.batch_execute("CREATE TABLE t (id bigint PRIMARY KEY)").await?;
    client.batch_execute("INSERT INTO t SELECT g FROM generate_series(1, 100) g").await?;
    drop(client);
    ensure!(server.stop()?.success(), "{}", server.logged());
    lose_end_of_log(&server.data.join("log"))?;
    for _ in 0..2 {
        let (code, said) = server.refusal()?;
        ensure!(code == Some(1) && said.contains("the log was written and synced up to byte"), "{said}");
    }
    ensure!(!server.data.join("LOG").exists() && !server.data.join("log-1").exists());
    // As the manual says for whoever has no copy.
    std::fs::remove_file(server.data.join("log").join("END"))?;
    server.start()?;
    server.wait_ready()?;
    connect(&server.target("postgres")).await?.batch_execute("INSERT INTO t VALUES (101)").await?;
    ensure!(server.stop()?.success(), "{}", server.logged());
    Ok(())
}

async fn a_lost_folder_comes_back_only_under_a_new_number(page: &mut Page) -> Result<()> {
    let lost = &mut page.servers[2];
    std::fs::remove_dir_all(&lost.data)?;
    lost.start()?;
    lost.wait_logged("comes back with an empty data folder")
        .context("a member's number with an empty folder asks to join")?;
    let (code, body) = lost.get("/ready")?;
    ensure!(code == 503 && body.contains("its votes are lost"), "/ready does not say why: {code} {body}");
    let place = format!("localhost:{}", lost.interconnect);
    let output = page.servers[0].cli(&["node", "add", &place])?;
    ensure!(
        output.status.code() == Some(1) && text(&output).contains("its votes are lost"),
        "{}",
        text(&output)
    );
    // The others go on without it.
    assert_eq!(page.count(1).await?, 3);

    let lost = &mut page.servers[2];
    ensure!(lost.stop()?.success(), "{}", lost.logged());
    let config = std::fs::read_to_string(&lost.config)?.replace("id = 3 ", "id = 4 ");
    std::fs::write(&lost.config, config)?;
    // The folder has the old number in it by now.
    let (code, said) = lost.refusal()?;
    ensure!(code == Some(1) && said.contains("belongs to node 3, but node.id is 4"), "{said}");
    std::fs::remove_dir_all(&lost.data)?;
    lost.start()?;
    lost.wait_ready()?;
    let status = page.servers[0].cli_json(&["cluster", "status"])?;
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    let role = |id: u64| nodes.iter().find(|node| node["node"] == id).map(|node| node["role"].clone());
    ensure!(role(4) == Some("follower".into()), "{status}");
    // What answers at the lost node's address is the other one, and nobody counts it twice.
    let lost = nodes.iter().find(|node| node["node"] == 3).context("node 3 is still a member")?;
    ensure!(lost["health"] == "down" && lost["role"] == "unknown", "{status}");
    ensure!(lost["reason"].as_str().is_some_and(|reason| reason.contains("node 4 answers")), "{status}");
    ensure!(status["voters_up"] == 3 && status["quorum"] == 3, "{status}");
    let logs = page.logs();
    let (learner, voter) =
        (logs.find("adding a learner group=1 learner=4"), logs.find("voter group=1 voter=4"));
    ensure!(learner.is_some() && voter.is_some(), "node 4 did not come as a learner first:\n{logs}");
    assert_eq!(page.count(3).await?, 3);
    Ok(())
}

async fn foreign_data_is_refused(page: &mut Page) -> Result<()> {
    let base_port = free_base_port()?;
    let mut foreign = Server::new(page.folder.path(), "foreign", 2, base_port, 1, "")?;
    foreign.start()?;
    foreign.cli_json(&["cluster", "init"])?;
    foreign.wait_ready()?;
    let output = page.servers[0].cli(&["node", "add", &format!("localhost:{}", foreign.interconnect)])?;
    ensure!(
        output.status.code() == Some(1) && text(&output).contains("belongs to cluster"),
        "{}",
        text(&output)
    );
    ensure!(foreign.stop()?.success(), "{}", foreign.logged());

    // Its data under the name of a member: a node that knows where members are refuses to serve it.
    let config = std::fs::read_to_string(&foreign.config)?;
    let known = format!("{config}\n[cluster]\npeers = [\"localhost:{}\"]\n", page.servers[0].interconnect);
    std::fs::write(&foreign.config, known)?;
    let (code, said) = foreign.refusal()?;
    ensure!(
        code == Some(1) && said.contains("belongs to cluster") && said.contains("but the node at"),
        "{said}"
    );
    // A node that does not know is heard by no member.
    let own = page.servers[1].data.clone();
    ensure!(page.servers[1].stop()?.success(), "{}", page.servers[1].logged());
    std::fs::rename(&own, page.folder.path().join("kept"))?;
    std::fs::rename(&foreign.data, &own)?;
    page.servers[1].start()?;
    page.servers[1].wait_ready()?;
    assert_eq!(page.count(1).await?, 3, "the others do not take part in the foreign cluster");
    ensure!(page.servers[1].stop()?.success(), "{}", page.servers[1].logged());
    std::fs::remove_dir_all(&own)?;
    std::fs::rename(page.folder.path().join("kept"), &own)?;
    page.servers[1].start()?;
    page.servers[1].wait_ready()?;
    assert_eq!(page.count(2).await?, 3);
    Ok(())
}

/// Makes a certificate that signs itself.
fn certificate(folder: &Path, name: &str) -> Result<(PathBuf, PathBuf)> {
    let (pem, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "30",
    ]);
    command.args([
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ]);
    let output = finish(
        {
            command.arg("-out").arg(&pem).arg("-keyout").arg(&key);
            command
        },
        PATIENCE,
    )?;
    ensure!(output.status.success(), "openssl: {}", text(&output));
    Ok((pem, key))
}

#[test]
fn a_server_that_cannot_start_says_why() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let base_port = free_base_port()?;
    let mut first = Server::new(folder.path(), "first", 1, base_port, 1, "")?;
    first.start()?;

    // The same configuration again: its ports are taken.
    let (code, said) = first.refusal()?;
    let expected = format!("127.0.0.1:{} (listen.postgres): the port is in use", first.postgres);
    ensure!(code == Some(1) && said.contains(&expected), "{said}");
    // Another port for each in turn, as somebody does who starts the wrong file twice.
    let second = Server::new(folder.path(), "second", 1, base_port, 2, "")?;
    let config = std::fs::read_to_string(&second.config)?;
    std::fs::write(&second.config, config.replace(&second.http.to_string(), &first.http.to_string()))?;
    let (code, said) = second.refusal()?;
    ensure!(code == Some(1) && said.contains("(listen.http): the port is in use"), "{said}");
    // Other ports, but the same data.
    std::fs::write(
        &second.config,
        config.replace(&format!("{:?}", second.data), &format!("{:?}", first.data)),
    )?;
    let (code, said) = second.refusal()?;
    let expected = format!("is in use by another process (pid {})", first.pid()?);
    ensure!(code == Some(1) && said.contains(&expected), "{said}");
    ensure!(
        first.is_alive()? && first.get("/health")?.0 == 200,
        "the first one goes on:\n{}",
        first.logged()
    );

    let (pem, key) = certificate(folder.path(), "good")?;
    let (_, other_key) = certificate(folder.path(), "other")?;
    let garbled = folder.path().join("garbled.pem");
    let whole = std::fs::read_to_string(&pem)?;
    std::fs::write(&garbled, whole.replace("MII", "!!!"))?;
    std::fs::set_permissions(&garbled, Permissions::from_mode(0o600))?;
    let nowhere = folder.path().join("nowhere.pem");
    for (certificate, key, named, reason) in [
        (&nowhere, &key, "tls.certificate_file", "No such file"),
        (&pem, &nowhere, "tls.key_file", "No such file"),
        (&garbled, &key, "tls.certificate_file", ""),
        (&pem, &garbled, "tls.key_file", ""),
        (&pem, &other_key, "tls.", "key"),
    ] {
        let tls = format!("[tls]\ncertificate_file = {certificate:?}\nkey_file = {key:?}\n");
        let server = Server::new(folder.path(), "tls", 9, base_port, 3, &tls)?;
        let (code, said) = server.refusal()?;
        ensure!(code == Some(1) && said.contains(named) && said.contains(reason), "{tls}{said}");
        ensure!(said.lines().count() <= 2, "one clear line, not\n{said}");
        // The check says it before the start does, with the line.
        let mut check = Command::new(program("rustydb")?);
        check.arg("check-config").arg(&server.config);
        let output = finish(check, PATIENCE)?;
        let said = text(&output);
        ensure!(output.status.code() == Some(2) && said.contains(named), "{tls}{said}");
        ensure!(said.contains(": line ") || said.contains("  line "), "{said}");
    }
    // A private key that others may read is refused before anything starts, and by check-config.
    let exposed = folder.path().join("exposed.key");
    std::fs::copy(&key, &exposed)?;
    std::fs::set_permissions(&exposed, Permissions::from_mode(0o644))?;
    let tls = format!("[tls]\ncertificate_file = {pem:?}\nkey_file = {exposed:?}\n");
    let server = Server::new(folder.path(), "exposed", 9, base_port, 3, &tls)?;
    let (code, said) = server.refusal()?;
    ensure!(code == Some(2) && said.contains("tls.key_file") && said.contains("mode 0644"), "{said}");
    let mut check = Command::new(program("rustydb")?);
    check.arg("check-config").arg(&server.config);
    let output = finish(check, PATIENCE)?;
    ensure!(output.status.code() == Some(2) && text(&output).contains("tls.key_file"), "{}", text(&output));

    for (ca, certificate, key, named) in [
        (&nowhere, &pem, &key, "tls.interconnect_ca_file"),
        (&garbled, &pem, &key, "tls.interconnect_ca_file"),
        (&pem, &garbled, &key, "tls.interconnect_certificate_file"),
        (&pem, &pem, &garbled, "tls.interconnect_key_file"),
        (&pem, &pem, &other_key, "tls.interconnect_"),
    ] {
        let tls = format!(
            "[tls]\ninterconnect_ca_file = {ca:?}\ninterconnect_certificate_file = {certificate:?}\n\
             interconnect_key_file = {key:?}\n"
        );
        let (code, said) = Server::new(folder.path(), "tls", 9, base_port, 3, &tls)?.refusal()?;
        ensure!(code == Some(1) && said.contains(named), "{tls}{said}");
    }
    ensure!(first.stop()?.success(), "{}", first.logged());
    Ok(())
}

#[test]
fn check_config_names_line_and_reason() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("node.toml");
    let check = |command: &str, config: &str| -> Result<(Option<i32>, String)> {
        std::fs::write(&file, config)?;
        let mut program = Command::new(program("rustydb")?);
        program.args(command.split(' ')).arg(&file);
        let output = finish(program, Duration::from_secs(30))?;
        Ok((output.status.code(), text(&output)))
    };
    let (code, said) = check("check-config", "[node]\nid = 7\n")?;
    ensure!(code == Some(0) && said.contains("good"), "{said}");
    for (config, expected) in [
        ("[node]\nid = 7\ndata = \"/tmp\"\n", "line 3: unknown field `data`"),
        ("[node]\nid = 0\n", "line 2: node.id: 0 is outside 1 to 4294967295"),
        ("[node]\nid = \"one\"\n", "line 2: invalid type"),
        ("[raft]\n\nheartbeat_interval = \"50\"\n", "line 3: `50` needs one of the units"),
        ("[node\n", "line 1: "),
        (
            "[tls]\ncertificate_file = \"a.pem\"\n",
            "tls.key_file: is empty although tls.certificate_file is set",
        ),
    ] {
        // The server says the same, so that a unit file without the check is no trap.
        for command in ["check-config", "server --config"] {
            let (code, said) = check(command, config)?;
            ensure!(code == Some(2) && said.contains(expected), "{command} of\n{config}{said}");
        }
    }
    std::fs::remove_file(&file)?;
    let mut missing = Command::new(program("rustydb")?);
    let output = finish(
        {
            missing.arg("check-config").arg(&file);
            missing
        },
        Duration::from_secs(30),
    )?;
    ensure!(output.status.code() == Some(2) && text(&output).contains("No such file"), "{}", text(&output));
    Ok(())
}

#[test]
fn a_server_that_demands_tls_is_reached_with_it_only() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (pem, key) = certificate(folder.path(), "server")?;
    let (other, _) = certificate(folder.path(), "other")?;
    let more = format!(
        "[tls]\ncertificate_file = {pem:?}\nkey_file = {key:?}\n\
         [auth]\nrules = [{{ from = \"127.0.0.0/8\", tls = true, method = \"trust\" }}]\n"
    );
    let mut server = Server::new(folder.path(), "node", 1, free_base_port()?, 1, &more)?;
    server.start()?;
    server.cli_json(&["cluster", "init"])?;
    server.wait_ready()?;
    let (authority, stranger) = (pem.display().to_string(), other.display().to_string());
    let output = server.cli(&["query", "--tls-ca", &authority, "SELECT 41 + 1 AS answer"])?;
    ensure!(
        output.status.success() && text(&output).contains("42"),
        "{}\n{}",
        text(&output),
        server.logged()
    );
    for refused in [&["query", "SELECT 1"][..], &["query", "--tls-ca", &stranger, "SELECT 1"]] {
        let output = server.cli(refused)?;
        ensure!(output.status.code() == Some(1), "{refused:?}: {}", text(&output));
    }
    let target = format!("{} sslmode=verify-full sslrootcert={authority}", server.target("postgres"));
    let mut psql = Command::new("psql");
    psql.args(["-X", "-A", "-t", "-c", "SELECT 40 + 2", &target.replace("127.0.0.1", "localhost")]);
    let output = finish(psql, PATIENCE)?;
    ensure!(output.status.success() && text(&output).contains("42"), "{}", text(&output));
    ensure!(server.stop()?.success(), "{}", server.logged());
    Ok(())
}
