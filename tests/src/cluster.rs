//! A `rustydb dev` cluster under test: real server processes on ports of their own.
//!
//! Every wait has a deadline, and dropping the cluster ends all of its processes.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio_postgres::{Client, NoTls};

/// Longest wait for a start, a leader, or a node that catches up, on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A program of this workspace, built before the tests run.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    // Tests lie in target/PROFILE/deps, programs in target/PROFILE.
    let found = own.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.exists());
    found.with_context(|| {
        format!("{name} is not built: run `cargo build -p rustydb-server -p rustydb-cli` first")
    })
}

/// A base port whose ports for seven nodes are free now. It lies below the range from which the system takes
/// ports for outgoing connections, so that none of these is in the way later.
pub fn free_base_port() -> Result<u16> {
    let mut candidate = 10_000 + u16::try_from(std::process::id() % 70)? * 300;
    for _ in 0..70 {
        let wanted = (1..=7).flat_map(|node| [node, 100 + node, 200 + node]);
        let bound: Vec<_> =
            wanted.map(|offset| TcpListener::bind(("127.0.0.1", candidate + offset))).collect();
        if bound.iter().all(Result::is_ok) {
            return Ok(candidate);
        }
        candidate = if candidate > 30_000 { 10_000 } else { candidate + 300 };
    }
    bail!("no 300 free ports between 10000 and 31000")
}

/// Lines that the `dev` process printed so far.
#[derive(Default)]
struct Lines {
    printed: Mutex<Vec<String>>,
    changed: Condvar,
}

/// A running cluster.
pub struct Cluster {
    data: PathBuf,
    base_port: u16,
    nodes: u16,
    dev: Option<Child>,
    lines: Arc<Lines>,
    /// Kept so that the folder goes with the cluster; absent when the folder is the caller's.
    _folder: Option<tempfile::TempDir>,
}

impl Cluster {
    /// Starts a fresh cluster in a folder of its own and waits until it is ready.
    pub fn start(nodes: u16) -> Result<Cluster> {
        let folder = tempfile::tempdir()?;
        let mut cluster = Cluster::at(folder.path(), nodes)?;
        cluster._folder = Some(folder);
        cluster.up()?;
        Ok(cluster)
    }

    /// A cluster in a folder, not started.
    pub fn at(data: &Path, nodes: u16) -> Result<Cluster> {
        Ok(Cluster {
            data: data.to_owned(),
            base_port: free_base_port()?,
            nodes,
            dev: None,
            lines: Arc::default(),
            _folder: None,
        })
    }

    /// Starts `rustydb dev` and waits for the line `ready`.
    pub fn up(&mut self) -> Result<()> {
        self.spawn_dev()?;
        self.wait_for_line(|line| line == "ready", PATIENCE)?;
        Ok(())
    }

    /// Starts `rustydb dev` without waiting.
    pub fn spawn_dev(&mut self) -> Result<()> {
        ensure!(self.dev.is_none(), "the cluster runs already");
        let mut child = Command::new(program("rustydb")?)
            .args(["dev", "--nodes", &self.nodes.to_string(), "--base-port", &self.base_port.to_string()])
            .arg("--data")
            .arg(&self.data)
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("no standard output")?;
        let lines: Arc<Lines> = Arc::default();
        self.lines = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Ok(mut printed) = lines.printed.lock() {
                    printed.push(line);
                }
                lines.changed.notify_all();
            }
        });
        self.dev = Some(child);
        Ok(())
    }

    /// Waits until `dev` has printed a line that fits, and returns it.
    pub fn wait_for_line(&mut self, fits: impl Fn(&str) -> bool, patience: Duration) -> Result<String> {
        let deadline = Instant::now() + patience;
        loop {
            let lines = Arc::clone(&self.lines);
            let printed = lines.printed.lock().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
            if let Some(line) = printed.iter().find(|line| fits(line)) {
                return Ok(line.clone());
            }
            let so_far = printed.join("\n");
            drop(lines.changed.wait_timeout(printed, Duration::from_millis(50)));
            if let Some(status) = self.dev.as_mut().context("dev does not run")?.try_wait()? {
                bail!("dev ended with {status}; it printed:\n{so_far}\n{}", self.logs());
            }
            if Instant::now() > deadline {
                bail!("the line did not come in {patience:?}; dev printed:\n{so_far}\n{}", self.logs());
            }
        }
    }

    /// The last lines of every node's log, for a failure's message.
    pub fn logs(&self) -> String {
        let tail = |node: u16| {
            let text =
                std::fs::read_to_string(self.data.join(format!("node-{node}.log"))).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(15)..];
            format!("--- node {node}\n{}\n", last.join("\n"))
        };
        self.node_numbers().map(tail).collect()
    }

    /// Ctrl-C: stops everything cleanly.
    pub fn interrupt(&mut self) -> Result<()> {
        let Some(mut dev) = self.dev.take() else { return Ok(()) };
        signal("INT", dev.id())?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = dev.try_wait()? {
                ensure!(status.success(), "dev ended with {status}\n{}", self.logs());
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = dev.kill();
        bail!("dev did not stop after Ctrl-C\n{}", self.logs())
    }

    /// kill -9 of every node and of `dev` at once.
    pub fn kill_all(&mut self) -> Result<()> {
        let pids: Vec<u32> = self.node_numbers().filter_map(|node| self.pid(node).ok()).collect();
        // Some may be dead already; none may be left over because of that.
        let signalled: Vec<Result<()>> = pids.into_iter().map(|pid| signal("KILL", pid)).collect();
        self.kill_dev()?;
        signalled.into_iter().collect()
    }

    /// kill -9 of `dev` alone.
    pub fn kill_dev(&mut self) -> Result<()> {
        if let Some(mut dev) = self.dev.take() {
            dev.kill()?;
            dev.wait()?;
        }
        Ok(())
    }

    /// Waits until `dev` has ended by itself: how it did, and all that it printed.
    pub fn ended(&mut self) -> Result<(ExitStatus, Vec<String>)> {
        let mut dev = self.dev.take().context("dev does not run")?;
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = dev.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                let _ = dev.kill();
                bail!("dev did not end\n{}", self.logs());
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        // Its last lines are read when the reader, which is the other owner of them, has come to their end.
        while Arc::strong_count(&self.lines) > 1 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok((status, self.printed()))
    }

    /// All lines that `dev` has printed since it was started.
    pub fn printed(&self) -> Vec<String> {
        self.lines.printed.lock().map(|printed| printed.clone()).unwrap_or_default()
    }

    /// kill -9 of one node.
    pub fn kill(&self, node: u16) -> Result<()> {
        signal("KILL", self.pid(node)?)
    }

    /// Sends a signal to one node: `STOP`, `CONT`, ...
    pub fn signal(&self, node: u16, name: &str) -> Result<()> {
        signal(name, self.pid(node)?)
    }

    /// `rustydb dev --start-node`: starts a node that is down and waits until it serves.
    pub fn start_node(&self, node: u16) -> Result<()> {
        let output = Command::new(program("rustydb")?)
            .args(["dev", "--start-node", &node.to_string(), "--data"])
            .arg(&self.data)
            .output()?;
        ensure!(output.status.success(), "node {node} does not start: {}\n{}", text(&output), self.logs());
        Ok(())
    }

    /// The process of a node, from its pid file.
    pub fn pid(&self, node: u16) -> Result<u32> {
        let path = self.data.join(format!("node-{node}/rustydb.pid"));
        let text = std::fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
        Ok(text.trim().parse()?)
    }

    /// Folder of the cluster.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Numbers of the nodes.
    pub fn node_numbers(&self) -> std::ops::RangeInclusive<u16> {
        1..=self.nodes
    }

    /// Port of a node for PostgreSQL clients.
    pub fn postgres_port(&self, node: u16) -> u16 {
        self.base_port + node
    }

    /// Port of a node for HTTP.
    pub fn http_port(&self, node: u16) -> u16 {
        self.base_port + 200 + node
    }

    /// Connection string that names every node, as a client with several hosts has it.
    pub fn everywhere(&self, database: &str) -> String {
        let hosts: Vec<&str> = self.node_numbers().map(|_| "127.0.0.1").collect();
        let ports: Vec<String> =
            self.node_numbers().map(|node| self.postgres_port(node).to_string()).collect();
        format!(
            "host={} port={} user=postgres dbname={database} connect_timeout=2",
            hosts.join(","),
            ports.join(",")
        )
    }

    /// Connection string of one node.
    pub fn node(&self, node: u16, database: &str) -> String {
        format!(
            "host=127.0.0.1 port={} user=postgres dbname={database} connect_timeout=5",
            self.postgres_port(node)
        )
    }

    /// A client of one node.
    pub async fn connect(&self, node: u16, database: &str) -> Result<Client> {
        connect(&self.node(node, database)).await
    }

    /// Runs `rustydb-cli`, addressed to all nodes in turn, beginning with `node`.
    pub fn cli(&self, node: u16, arguments: &[&str]) -> Result<Output> {
        let ports = self.node_numbers().map(|offset| (node - 1 + offset - 1) % self.nodes + 1);
        let hosts: Vec<String> =
            ports.map(|node| format!("127.0.0.1:{}", self.base_port + 100 + node)).collect();
        let mut command = Command::new(program("rustydb-cli")?);
        command.args(["--host", &hosts.join(","), "--connect-timeout", "2s"]).args(arguments);
        Ok(command.output()?)
    }

    /// What `cluster status --json` says; asked of `node` or, when it is down, of the next.
    pub fn status(&self, node: u16) -> Result<Value> {
        let output = self.cli(node, &["cluster", "status", "--json"])?;
        ensure!(output.status.success(), "cluster status: {}", text(&output));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Who leads a database, waiting until a node that answers knows.
    pub fn leader(&self, database: &str) -> Result<u16> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = String::new();
        while Instant::now() < deadline {
            match self.status(1) {
                Ok(status) => {
                    let databases = status["databases"].as_array().cloned().unwrap_or_default();
                    let found = databases.iter().find(|row| row["name"] == database);
                    if let Some(leader) = found.and_then(|row| row["leader"].as_u64()) {
                        return Ok(u16::try_from(leader)?);
                    }
                    last = status.to_string();
                }
                Err(error) => last = error.to_string(),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("nobody leads {database}: {last}\n{}", self.logs())
    }

    /// One GET over plain HTTP: status code and body.
    pub fn http(&self, node: u16, path: &str) -> Result<(u16, String)> {
        http_get("127.0.0.1", self.http_port(node), path, Duration::from_secs(10))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.kill_all();
    }
}

/// What a program printed, both ways.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Connects; the connection's task ends with the client.
pub async fn connect(target: &str) -> Result<Client> {
    let (client, connection) =
        tokio::time::timeout(Duration::from_secs(10), tokio_postgres::connect(target, NoTls))
            .await
            .context("no connection within 10 s")??;
    tokio::spawn(async move {
        // Its error reaches the statement that waits for it.
        let _ = connection.await;
    });
    Ok(client)
}

/// One GET over plain HTTP: status code and body. `host` is an IP address; connecting and each wait take `patience`.
pub fn http_get(host: &str, port: u16, path: &str, patience: Duration) -> Result<(u16, String)> {
    use std::io::{Read, Write};
    let address = std::net::SocketAddr::new(host.parse()?, port);
    let mut stream = std::net::TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let code = answer.split(' ').nth(1).context("no status line")?.parse()?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((code, body.to_owned()))
}

/// Sends a signal to a process.
pub fn signal(name: &str, pid: u32) -> Result<()> {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status()?;
    ensure!(status.success(), "kill -{name} {pid} failed");
    Ok(())
}
