//! Real clients against a cluster of three nodes: drivers and object mappers in their own languages, the tools of
//! PostgreSQL, and the drivers of Rust.
//!
//! Programs of other languages are in `tests/clients`. Each prints `ok NAME` or `FAIL NAME: reason` for each of its checks;
//! every check is a part of the run.

mod rust;
mod tools;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::cluster::{Cluster, text};
use crate::gate::Gate;
use crate::server::finish;

/// A program of checks must end within this.
const PROGRAM_PATIENCE: Duration = Duration::from_secs(240);

/// Where the clients are.
pub struct Clients {
    /// What `scripts/clients.sh` has installed: a Python environment, Node.js modules, Java classes.
    pub installed: PathBuf,
    /// pgjdbc.
    pub jdbc: PathBuf,
}

/// The names of the clients.
pub const NAMES: &[&str] = &[
    "psycopg",
    "asyncpg",
    "sqlalchemy",
    "sqlalchemy-psycopg2",
    "django",
    "node-postgres",
    "pgjdbc",
    "tokio-postgres",
    "sqlx",
    "psql",
    "pg_isready",
    "pgbench",
    "pg_dump",
];

/// Runs the checks of each client whose name fits.
///
/// # Errors
/// The cluster cannot be started.
pub fn run(gate: &mut Gate, clients: &Clients, only: Option<&str>) -> Result<()> {
    ensure!(
        only.is_none_or(|only| NAMES.contains(&only)),
        "there is no client of that name, but {}",
        NAMES.join(", ")
    );
    let cluster = Cluster::start(3)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for name in NAMES.iter().filter(|name| only.is_none_or(|only| only == **name)) {
        match *name {
            "tokio-postgres" => rust::tokio_postgres(gate, &cluster, &runtime),
            "sqlx" => rust::sqlx(gate, &cluster, &runtime),
            "psql" => tools::psql(gate, &cluster),
            "pg_isready" => tools::pg_isready(gate, &cluster),
            "pgbench" => tools::pgbench(gate, &cluster),
            "pg_dump" => tools::pg_dump(gate, &cluster),
            name => program(gate, &cluster, name, clients.command(name)),
        }
    }
    Ok(())
}

impl Clients {
    fn command(&self, name: &str) -> Command {
        let python = |arguments: &[&str]| {
            let mut command = Command::new(self.installed.join("python/bin/python"));
            command.env("PYTHONDONTWRITEBYTECODE", "1").args(arguments);
            command
        };
        match name {
            "psycopg" => python(&["psycopg3.py"]),
            "asyncpg" => python(&["asyncpg_client.py"]),
            "sqlalchemy" => python(&["sqlalchemy_client.py", "psycopg"]),
            "sqlalchemy-psycopg2" => python(&["sqlalchemy_client.py", "psycopg2"]),
            "django" => python(&["django_client.py"]),
            "node-postgres" => {
                let mut command = Command::new("node");
                command.env("NODE_PATH", self.installed.join("node/node_modules")).arg("node/client.js");
                command
            }
            _ => {
                let classes = format!("{}:{}", self.installed.join("java").display(), self.jdbc.display());
                let mut command = Command::new("java");
                command.args(["-XX:+UseSerialGC", "-cp", &classes, "Jdbc"]);
                command
            }
        }
    }
}

/// Runs a program of checks and counts them.
fn program(gate: &mut Gate, cluster: &Cluster, name: &str, mut command: Command) {
    let ports: Vec<String> =
        cluster.node_numbers().map(|node| cluster.postgres_port(node).to_string()).collect();
    command
        .current_dir(source_folder())
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", ports.first().map_or("", String::as_str))
        .env("PGUSER", "postgres")
        .env("PGDATABASE", "postgres")
        .env("CLIENT_PORTS", ports.join(","));
    let output = match finish(command, PROGRAM_PATIENCE) {
        Ok(output) => output,
        Err(error) => return gate.failed(name, format!("{error:#}")),
    };
    let said = text(&output);
    let (mut passed, mut failed) = (0, 0);
    for line in said.lines() {
        if let Some(check) = line.strip_prefix("ok ") {
            passed += 1;
            gate.passed_quietly(&format!("{name} {check}"), &json!({}));
        } else if let Some(failure) = line.strip_prefix("FAIL ") {
            failed += 1;
            let (check, why) = failure.split_once(": ").unwrap_or((failure, ""));
            gate.failed(&format!("{name} {check}"), why);
        }
    }
    println!("         {name}: {passed} passed, {failed} failed");
    if passed + failed == 0 || (failed == 0 && !output.status.success()) {
        gate.failed(name, format!("it ended with {}: {said}", output.status));
    }
}

/// `tests/clients`.
#[must_use]
pub fn source_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}
