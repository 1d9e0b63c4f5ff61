//! The tools of PostgreSQL: psql, pg_isready, pgbench, pg_dump.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{Cluster, text};
use crate::gate::Gate;
use crate::server::finish;

/// A tool must end within this.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs a tool against a node and gives what it printed.
fn tool(cluster: &Cluster, node: u16, program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", cluster.postgres_port(node).to_string())
        .env("PGUSER", "postgres")
        .env("PGDATABASE", "postgres")
        .args(arguments);
    let output = finish(command, PATIENCE).with_context(|| format!("{program} cannot be run"))?;
    let said = text(&output);
    ensure!(output.status.success(), "{program} {arguments:?} ended with {}: {said}", output.status);
    Ok(said)
}

/// psql and its backslash commands, at every node.
pub(super) fn psql(gate: &mut Gate, cluster: &Cluster) {
    const MAKE: &str = "drop schema if exists shown cascade; create schema shown;
        create table shown.parent (id int generated always as identity primary key, name text not null unique check (name <> ''));
        create table shown.child (id serial primary key, parent int references shown.parent on delete cascade, j jsonb default '{}');
        create index on shown.child (parent desc); create sequence shown.numbers;
        comment on table shown.parent is 'a parent'; insert into shown.parent (name) values ('one');";
    let made = tool(cluster, 1, "psql", &["-q", "-v", "ON_ERROR_STOP=1", "-c", MAKE]);
    gate.settle("psql statements", made.map(|_| json!({})));
    let commands = [
        "\\l+",
        "\\dn+",
        "\\d",
        "\\dt+ *.*",
        "\\d+ shown.parent",
        "\\d+ shown.child",
        "\\di+ shown.*",
        "\\ds+ shown.*",
        "\\d shown.numbers",
        "\\dv *.*",
        "\\dm",
        "\\du+",
        "\\dg",
        "\\df now",
        "\\df+ json*",
        "\\da *",
        "\\do @>",
        "\\dT+ *json*",
        "\\dT",
        "\\dD",
        "\\dC json",
        "\\dd",
        "\\dp",
        "\\z shown.*",
        "\\ddp",
        "\\dx",
        "\\dy",
        "\\db+",
        "\\dc",
        "\\dO",
        "\\des",
        "\\dew",
        "\\det",
        "\\deu",
        "\\dF",
        "\\dFd",
        "\\dFp",
        "\\dFt",
        "\\dL+",
        "\\dA",
        "\\dAc",
        "\\dAf",
        "\\dAo",
        "\\dAp",
        "\\dP",
        "\\dRp",
        "\\dRs",
        "\\drds",
        "\\dconfig work_mem",
        "\\sf now",
        "\\encoding",
        "\\conninfo",
        "\\lo_list",
        "\\dX",
    ];
    for node in cluster.node_numbers() {
        let mut failures = Vec::new();
        for command in commands {
            match tool(cluster, node, "psql", &["-X", "-v", "ON_ERROR_STOP=1", "-c", command]) {
                // What is refused by name is refused; what the queries of a command stumble over is not.
                Err(error) => failures.push(format!("{command}: {error:#}")),
                Ok(said) if said.contains("ERROR") => failures.push(format!("{command}: {said}")),
                Ok(_) => {}
            }
        }
        let part = format!("psql backslash commands at node {node}");
        if failures.is_empty() {
            gate.passed(&part, &json!(commands.len()));
        } else {
            gate.failed(&part, failures.join("\n"));
        }
    }
    let copied = || -> Result<Value> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("rows");
        let file = file.to_str().context("a path")?;
        for format in ["text", "csv", "binary"] {
            let out = format!(
                "\\copy (select g, 'it''s ' || g from generate_series(1, 1000) g) to '{file}' (format {format})"
            );
            tool(cluster, 2, "psql", &["-q", "-c", &out])?;
            let back = format!("\\copy shown.copied from '{file}' (format {format})");
            let make = "drop table if exists shown.copied; create table shown.copied (n int, t text)";
            tool(cluster, 3, "psql", &["-q", "-c", make, "-c", &back])?;
            let sum = tool(
                cluster,
                1,
                "psql",
                &["-At", "-c", "select count(*), sum(n), max(t) from shown.copied"],
            )?;
            ensure!(sum.trim() == "1000|500500|it's 999", "{format}: {sum}");
        }
        Ok(json!({}))
    };
    gate.settle("psql copy", copied());
}

/// pg_isready, at every node.
pub(super) fn pg_isready(gate: &mut Gate, cluster: &Cluster) {
    for node in cluster.node_numbers() {
        let ready = tool(cluster, node, "pg_isready", &[]).and_then(|said| {
            ensure!(said.contains("accepting connections"), "{said}");
            Ok(json!({}))
        });
        gate.settle(&format!("pg_isready at node {node}"), ready);
    }
}

/// pgbench: its tables with every step, its three scripts in every query mode.
pub(super) fn pgbench(gate: &mut Gate, cluster: &Cluster) {
    let made = tool(cluster, 1, "pgbench", &["-i", "-I", "dtgvpf", "-q"]);
    gate.settle("pgbench tables, generated by the client", made.map(|_| json!({})));
    let made = tool(cluster, 2, "pgbench", &["-i", "-I", "dtGvp", "-q"]);
    gate.settle("pgbench tables, generated by the server", made.map(|_| json!({})));
    for mode in ["simple", "extended", "prepared"] {
        for (script, count) in [("tpcb-like", "20"), ("simple-update", "20"), ("select-only", "100")] {
            let arguments =
                ["-n", "-b", script, "-M", mode, "-c", "4", "-j", "2", "-t", count, "--max-tries", "100"];
            let ran = tool(cluster, 3, "pgbench", &arguments).and_then(|said| {
                ensure!(said.contains("number of failed transactions: 0 (0.000%)"), "{said}");
                Ok(json!({}))
            });
            gate.settle(&format!("pgbench {script} {mode}"), ran);
        }
    }
    let sums =
        "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history),
        (select sum(tbalance) from pgbench_tellers) >= -1000000000";
    let held = tool(cluster, 1, "psql", &["-At", "-c", sums]).and_then(|said| {
        ensure!(said.trim() == "t|t", "accounts and history differ: {said}");
        Ok(json!({}))
    });
    gate.settle("pgbench sums", held);
}

/// pg_dump of all that the other clients have left, which must give the same dump again once it is restored.
pub(super) fn pg_dump(gate: &mut Gate, cluster: &Cluster) {
    let databases =
        tool(cluster, 1, "psql", &["-At", "-c", "select datname from pg_database where not datistemplate"]);
    let databases = match databases {
        Ok(said) => said
            .lines()
            .map(str::to_owned)
            .filter(|name| name == "postgres" || name == "django")
            .collect::<Vec<_>>(),
        Err(error) => return gate.failed("pg_dump", format!("{error:#}")),
    };
    for database in databases {
        let restored = || -> Result<Value> {
            let folder = tempfile::tempdir()?;
            let dump = |node: u16, database: &str| -> Result<Vec<String>> {
                let said = tool(cluster, node, "pg_dump", &["-d", database])?;
                // Rows of a table have no order of their own.
                let mut lines: Vec<String> = said
                    .lines()
                    .filter(|line| !line.starts_with("-- ") && !line.starts_with('\\'))
                    .map(str::to_owned)
                    .collect();
                lines.sort();
                Ok(lines)
            };
            let plain = tool(cluster, 1, "pg_dump", &["-d", &database])?;
            let file = folder.path().join("dump.sql");
            std::fs::write(&file, plain)?;
            let copy = format!("{database}_copy");
            tool(cluster, 1, "psql", &["-q", "-c", &format!("create database {copy}")])?;
            let file = file.to_str().context("a path")?;
            tool(cluster, 2, "psql", &["-q", "-X", "-v", "ON_ERROR_STOP=1", "-d", &copy, "-f", file])?;
            let (first, second) = (dump(3, &database)?, dump(3, &copy)?);
            let differing: Vec<_> = first.iter().zip(&second).filter(|(a, b)| a != b).take(3).collect();
            ensure!(first == second, "{} and {} lines; {differing:?}", first.len(), second.len());
            Ok(json!({ "lines": first.len() }))
        };
        gate.settle(&format!("pg_dump of {database}, restored"), restored());
    }
}
