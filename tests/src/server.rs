//! A server process under test that was started by hand, as systemd starts it: from a configuration file.
//!
//! Every wait has a deadline, and dropping a server kills its process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::{PATIENCE, http_get, program, signal};

/// Pause between two looks at something that takes its time.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Where a server listens, and how its process is started.
#[derive(Debug, Clone)]
pub struct Place {
    /// Host of its addresses for PostgreSQL and HTTP.
    pub host: String,
    /// Host of its address for other nodes.
    pub interconnect_host: String,
    /// Ports: PostgreSQL, interconnect, HTTP.
    pub ports: [u16; 3],
    /// What stands before its command line, such as `ip netns exec NAME`; it must become the server, not start one.
    pub launcher: Vec<String>,
}

impl Place {
    /// On loopback, on the ports of a `dev` cluster's node `slot`.
    #[must_use]
    pub fn loopback(base_port: u16, slot: u16) -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            interconnect_host: "127.0.0.1".to_owned(),
            ports: [base_port + slot, base_port + 100 + slot, base_port + 200 + slot],
            launcher: Vec::new(),
        }
    }
}

/// One server, its configuration file and its data folder.
pub struct Server {
    /// Configuration file.
    pub config: PathBuf,
    /// Data folder.
    pub data: PathBuf,
    /// File with what it logged, over all its lives.
    pub log: PathBuf,
    /// For PostgreSQL clients.
    pub postgres: u16,
    /// For other nodes and the CLI.
    pub interconnect: u16,
    /// For health and metrics.
    pub http: u16,
    place: Place,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Server {
    /// A server that is not started: its configuration is `folder/NAME.toml`, its data folder `folder/NAME`, and it
    /// listens on loopback on the ports of a `dev` cluster's node `slot`. `more` is TOML that follows `[listen]`'s
    /// addresses, so that it may begin with keys of that section.
    pub fn new(folder: &Path, name: &str, id: u64, base_port: u16, slot: u16, more: &str) -> Result<Server> {
        Server::at(folder, name, id, Place::loopback(base_port, slot), more)
    }

    /// As [`Server::new`], at some other place.
    pub fn at(folder: &Path, name: &str, id: u64, place: Place, more: &str) -> Result<Server> {
        let [postgres, interconnect, http] = place.ports;
        let server = Server {
            config: folder.join(format!("{name}.toml")),
            data: folder.join(name),
            log: folder.join(format!("{name}.log")),
            postgres,
            interconnect,
            http,
            place,
            environment: Vec::new(),
            child: None,
        };
        let text = format!(
            "[node]\nid = {id}\ndata_dir = {:?}\nshutdown_timeout = \"10s\"\n\n[memory]\nbudget = \"256MiB\"\n\n[listen]\n\
             postgres = \"{}:{postgres}\"\ninterconnect = \"{}:{interconnect}\"\nhttp = \"{}:{http}\"\n{more}\n",
            server.data, server.place.host, server.place.interconnect_host, server.place.host
        );
        std::fs::write(&server.config, text)?;
        Ok(server)
    }

    /// Gives the process an environment variable at its next starts.
    #[must_use]
    pub fn with_environment(mut self, name: &str, value: &str) -> Server {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    fn command(&self) -> Result<Command> {
        let program = program("rustydb")?;
        let mut command = match self.place.launcher.split_first() {
            None => Command::new(program),
            Some((launcher, arguments)) => {
                let mut command = Command::new(launcher);
                command.args(arguments).arg(program);
                command
            }
        };
        command.args(["server", "--config"]).arg(&self.config).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    /// Keeps its data in another folder, such as one on a disk of its own, from its next start on.
    pub fn move_data(&mut self, data: &Path) -> Result<()> {
        let text = std::fs::read_to_string(&self.config)?;
        let (old, new) = (format!("data_dir = {:?}", self.data), format!("data_dir = {data:?}"));
        ensure!(text.contains(&old), "the configuration names another data folder");
        std::fs::write(&self.config, text.replace(&old, &new))?;
        self.data = data.to_owned();
        Ok(())
    }

    /// Starts it and waits until it answers over HTTP.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.wait_up()
    }

    /// Starts it and does not wait.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the server runs already");
        let log = File::options().create(true).append(true).open(&self.log)?;
        self.child = Some(self.command()?.stdout(log.try_clone()?).stderr(log).spawn()?);
        Ok(())
    }

    /// Waits until it answers over HTTP.
    pub fn wait_up(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.get("/health").is_err() {
            if let Some(status) = self.child.as_mut().context("it runs")?.try_wait()? {
                self.child = None;
                bail!("the server ended with {status}:\n{}", self.logged());
            }
            ensure!(Instant::now() < deadline, "the server does not answer:\n{}", self.logged());
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Starts it although it must refuse, and returns what it printed; fails if it still runs after a while.
    pub fn refusal(&self) -> Result<(Option<i32>, String)> {
        let output = finish(self.command()?, PATIENCE)?;
        ensure!(!output.status.success(), "the server did not refuse");
        Ok((output.status.code(), crate::cluster::text(&output)))
    }

    /// What it logged so far.
    pub fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The process, while it runs.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("the server does not run")?.id())
    }

    /// Whether the process lives.
    pub fn is_alive(&mut self) -> Result<bool> {
        Ok(match &mut self.child {
            Some(child) => child.try_wait()?.is_none(),
            None => false,
        })
    }

    /// SIGTERM, and the exit status.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        signal("TERM", self.pid()?)?;
        self.wait_for_end()
    }

    /// kill -9.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Waits until the process ends by itself.
    pub fn wait_for_end(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("the server does not run")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("the server did not end:\n{}", self.logged());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// One GET over plain HTTP: status code and body.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        http_get(&self.place.host, self.http, path, Duration::from_secs(10))
    }

    /// What `/ready` says, whether the node is ready or not; nothing if it does not say so within `patience`.
    pub fn readiness(&self, patience: Duration) -> Option<serde_json::Value> {
        let (_, body) = http_get(&self.place.host, self.http, "/ready", patience).ok()?;
        serde_json::from_str(&body).ok()
    }

    /// Its address for other nodes and the CLI.
    pub fn interconnect_address(&self) -> String {
        format!("{}:{}", self.place.interconnect_host, self.interconnect)
    }

    /// Waits until `/ready` says yes.
    pub fn wait_ready(&self) -> Result<()> {
        let mut last = String::new();
        patiently("the server to be ready", || {
            if let Ok((code, body)) = self.get("/ready") {
                last = body;
                return code == 200;
            }
            false
        })
        .with_context(|| format!("{last}\n{}", self.logged()))
    }

    /// Waits until it has logged a text.
    pub fn wait_logged(&self, text: &str) -> Result<()> {
        patiently("a line in the log", || self.logged().contains(text))
            .with_context(|| format!("`{text}` is not in\n{}", self.logged()))
    }

    /// Runs `rustydb-cli` addressed to this server.
    pub fn cli(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(program("rustydb-cli")?);
        command.args(["--host", &self.interconnect_address()]).args(arguments);
        finish(command, PATIENCE)
    }

    /// As [`Server::cli`] with `--json`; its answer.
    pub fn cli_json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let output = self.cli(&[&["--json"], arguments].concat())?;
        ensure!(
            output.status.success(),
            "{arguments:?}: {}\n{}",
            crate::cluster::text(&output),
            self.logged()
        );
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// A connection string for the superuser.
    pub fn target(&self, database: &str) -> String {
        let (host, port) = (&self.place.host, self.postgres);
        format!("host={host} port={port} user=postgres dbname={database} connect_timeout=5")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Runs a program to its end, which must come in time; else it is killed and that is an error.
pub fn finish(mut command: Command, patience: Duration) -> Result<Output> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pid = child.id();
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let _ = sender.send(child.wait_with_output());
    });
    match receiver.recv_timeout(patience) {
        Ok(output) => Ok(output?),
        Err(_) => {
            signal("KILL", pid)?;
            let output = receiver.recv_timeout(PATIENCE)??;
            bail!("{command:?} did not end in {patience:?}: {}", crate::cluster::text(&output))
        }
    }
}

/// Waits until something holds, looking again often.
pub fn patiently(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        ensure!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// Configuration that lets every role in from loopback without a password, as `rustydb dev` has it.
pub const TRUST_LOOPBACK: &str = "[auth]\nrules = [{ from = \"127.0.0.0/8\", method = \"trust\" }]\n";
