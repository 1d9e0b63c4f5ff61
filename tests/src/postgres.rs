//! PostgreSQL itself, beside which RustyDB is held.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cluster::{PATIENCE, text};
use crate::server::finish;

/// A PostgreSQL server, which ends with this.
pub struct Postgres {
    programs: PathBuf,
    data: PathBuf,
    /// How to connect to it.
    pub target: String,
}

impl Postgres {
    /// Where its programs are, if they are.
    fn programs() -> Option<PathBuf> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
        versions
            .flatten()
            .map(|version| version.path().join("bin"))
            .find(|folder| folder.join("initdb").exists())
    }

    /// Why it cannot be started here, if it cannot.
    #[must_use]
    pub fn is_missing() -> Option<&'static str> {
        match (Self::programs(), rustix::process::geteuid().is_root()) {
            (None, _) => Some("PostgreSQL is not installed"),
            (_, false) => Some("only root can start PostgreSQL as another user"),
            _ => None,
        }
    }

    /// Makes a database cluster in a folder and starts it with these settings beside its own, as the user `postgres`: it
    /// does not run as root.
    ///
    /// # Errors
    /// It is missing, or does not start.
    pub fn start(folder: &Path, more: &str) -> Result<Self> {
        let programs = Self::programs().context("PostgreSQL is not installed")?;
        let folder = folder.join("postgresql");
        std::fs::create_dir(&folder)?;
        let data = folder.join("data");
        // The folders of a run are the owner's alone; this user must reach its own below them.
        for above in folder.ancestors().skip(1).take(1) {
            let mut command = Command::new("chmod");
            command.arg("a+x").arg(above);
            run(command)?;
        }
        let mut command = Command::new("chown");
        command.arg("postgres").arg(&folder);
        run(command)?;
        let port = 15_990;
        let server = Self {
            programs,
            data,
            target: format!("host=127.0.0.1 port={port} user=postgres dbname=postgres connect_timeout=5"),
        };
        server.run("initdb", &["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-N"])?;
        let settings = format!(
            "port={port}\nlisten_addresses='127.0.0.1'\nunix_socket_directories=''\nfsync=off\nshared_buffers=32MB\n{more}"
        );
        let file = server.data.join("postgresql.conf");
        std::fs::write(&file, std::fs::read_to_string(&file)? + &settings)?;
        let log = folder.join("log").display().to_string();
        server.run("pg_ctl", &["-w", "-l", &log, "start"])?;
        Ok(server)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
        command.arg(self.programs.join(program)).arg("-D").arg(&self.data).args(arguments).current_dir("/");
        run(command)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // If it does not stop, it ends with the run's processes.
        let _stopped = self.run("pg_ctl", &["-w", "-m", "immediate", "stop"]);
    }
}

fn run(command: Command) -> Result<()> {
    let said = format!("{command:?}");
    let output = finish(command, PATIENCE)?;
    ensure!(output.status.success(), "{said}: {}", text(&output));
    Ok(())
}
