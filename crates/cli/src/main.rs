//! `rustydb-cli`: what an operator types.
//!
//! Every command works from whichever node it is pointed at: requests that change the cluster are passed on to
//! its leader, and when the addressed node is down the next of `--host` is asked.
//!
//! Exit codes: 0 done; 1 the request was refused, failed, or ran out of time; 2 the command line is wrong;
//! 3 no node could be reached.

mod check;
mod client;
mod cluster;
mod error;
mod node;
mod output;
mod query;
mod raft;
mod script;
mod shell;
mod tls;
mod wire;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use client::Addresses;
use error::CliError;
use output::Form;

/// Looks after a RustyDB cluster and runs SQL on it.
#[derive(Debug, Parser)]
#[command(name = "rustydb-cli", version, after_help = EXIT_CODES)]
struct CommandLine {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes:\n  0  done\n  1  the request was refused, failed, or ran out of time\n  2  \
                          the command line is wrong\n  3  no node could be reached";

/// What every command takes.
#[derive(Debug, Args)]
struct Global {
    /// Node to ask: a host, host:port, or several separated by commas, tried in turn.
    #[arg(long, global = true, env = "RUSTYDB_HOST", default_value = "127.0.0.1")]
    host: String,
    /// Interconnect port of hosts that name none (a node's PostgreSQL port plus 100 in the usual layout).
    #[arg(long, global = true, env = "RUSTYDB_PORT", default_value_t = 5532)]
    port: u16,
    /// Print JSON instead of tables, and errors as JSON on standard error.
    #[arg(long, global = true)]
    json: bool,
    /// Longest wait for one answer, such as 5s.
    #[arg(long, global = true, default_value = "3s", value_parser = parse_duration)]
    connect_timeout: Duration,
    /// PEM file with the authority of the nodes' certificates, when the interconnect has TLS.
    #[arg(long, global = true, env = "RUSTYDB_CA_FILE")]
    ca_file: Option<std::path::PathBuf>,
    /// PEM file with the certificate to show to the nodes.
    #[arg(long, global = true, env = "RUSTYDB_CERTIFICATE_FILE", requires = "key_file")]
    certificate_file: Option<std::path::PathBuf>,
    /// PEM file with its private key.
    #[arg(long, global = true, env = "RUSTYDB_KEY_FILE")]
    key_file: Option<std::path::PathBuf>,
}

impl Global {
    fn form(&self) -> Form {
        if self.json { Form::Json } else { Form::Table }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The cluster as a whole.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// One node.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Consensus.
    #[command(subcommand)]
    Raft(RaftCommand),
    /// Looks for what is wrong.
    #[command(subcommand)]
    Check(CheckCommand),
    /// Runs SQL and prints what it returns. COPY FROM STDIN takes its rows from standard input.
    Query {
        #[command(flatten)]
        login: Login,
        /// The statements, separated by semicolons.
        sql: String,
    },
    /// Opens an interactive prompt, or runs the statements on standard input when that is no terminal.
    Sql {
        #[command(flatten)]
        login: Login,
    },
}

/// Who asks, and in which database.
#[derive(Debug, Args)]
struct Login {
    /// Role to log in as.
    #[arg(long, short = 'U', env = "PGUSER", default_value = "postgres")]
    user: String,
    /// Database to use.
    #[arg(long, short = 'd', env = "PGDATABASE", default_value = "postgres")]
    database: String,
    /// Password of the role; better given in the environment than typed on a command line.
    #[arg(long, env = "PGPASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// PEM file with the authority of the servers' certificates; the session then uses TLS, and checks that the
    /// certificate is of the host that it connects to.
    #[arg(long, env = "PGSSLROOTCERT")]
    tls_ca: Option<std::path::PathBuf>,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Members, their roles, and the databases' leaders.
    Status {
        /// Ask this node for its own view.
        #[arg(long)]
        node: Option<NodeName>,
        /// Add each node's version.
        #[arg(long)]
        show_versions: bool,
    },
    /// Forms a new cluster whose first member is the addressed node.
    Init {
        /// File with the password of the role `postgres`; without it the role has none and cannot log in where
        /// one is asked for.
        #[arg(long)]
        password_file: Option<std::path::PathBuf>,
    },
    /// Waits until there is a leader, or until the given node is the leader.
    WaitLeader {
        /// The node to wait for, such as 2 or node-2; any when left out.
        node: Option<NodeName>,
        /// Longest wait, such as 300s.
        #[arg(long, default_value = "300s", value_parser = parse_duration)]
        timeout: Duration,
    },
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Takes a node that runs and belongs to no cluster into this one.
    Add {
        /// Interconnect address of the node, host:port.
        address: String,
    },
    /// Removes a node from every group, for ever, whether it runs or is lost. It stops by itself if it runs. Asked again,
    /// it goes on where it was.
    Remove {
        /// The node, such as 2 or node-2.
        node: NodeName,
    },
    /// One node's own view of itself.
    Info {
        /// The node, such as 2 or node-2; the addressed one when left out.
        node: Option<NodeName>,
        /// Add term and commit index of its groups.
        #[arg(long)]
        show_term: bool,
    },
    /// Makes a node the leader of a database.
    Lead {
        /// The node to lead from now on.
        node: NodeName,
        /// The database; `system` for the cluster's own group.
        #[arg(long, short = 'd', default_value = "postgres")]
        database: String,
    },
}

#[derive(Debug, Subcommand)]
enum CheckCommand {
    /// Has every replica of each database read all that it stores at one common position, and compares. The exit code
    /// is 0 only if all agree.
    Consistency {
        /// Only this database; `system` for the cluster's own records.
        #[arg(long, short = 'd')]
        database: Option<String>,
        /// Longest time for one database, such as 10min.
        #[arg(long, default_value = "10min", value_parser = parse_duration)]
        timeout: Duration,
        /// Replace the state of replicas that are found wrong by that of the others, where a majority is right.
        #[arg(long)]
        repair: bool,
    },
}

#[derive(Debug, Subcommand)]
enum RaftCommand {
    /// Term, state and positions of the addressed node's groups.
    Status,
}

/// A node by its number, written `2` or `node-2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeName(pub(crate) u64);

impl std::str::FromStr for NodeName {
    type Err = String;

    fn from_str(text: &str) -> Result<NodeName, String> {
        let number = text.strip_prefix("node-").unwrap_or(text);
        match number.parse() {
            Ok(0) | Err(_) => Err(format!("`{text}` is not a node: write 2 or node-2")),
            Ok(number) => Ok(NodeName(number)),
        }
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = &text[..text.len() - digits.len()];
    let unit = match digits {
        "ms" => 1,
        "s" => 1_000,
        "min" | "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("`{text}` needs a number and one of the units ms, s, min, h")),
    };
    let number: u64 = number.parse().map_err(|_| format!("`{text}` does not start with a number"))?;
    number.checked_mul(unit).map(Duration::from_millis).ok_or_else(|| format!("`{text}` is too long"))
}

fn main() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => return wrong_line(&error),
    };
    let form = line.global.form();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("rustydb-cli: cannot start: {error}");
            return ExitCode::from(1);
        }
    };
    match runtime.block_on(run(line)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.report(form);
            ExitCode::from(error.exit_code())
        }
    }
}

/// The line asks for help, or cannot be understood. Whether JSON is wanted is then known only by the word itself.
fn wrong_line(error: &clap::Error) -> ExitCode {
    let wants_json = std::env::args_os().any(|word| word == "--json");
    if error.use_stderr() && wants_json {
        let error = CliError::Usage(error.to_string().trim_end().to_owned());
        error.report(Form::Json);
        return ExitCode::from(error.exit_code());
    }
    // A reader that went away is no error.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

async fn run(line: CommandLine) -> Result<(), CliError> {
    let global = line.global;
    let addresses = Addresses::new(&global)?;
    let form = global.form();
    match line.command {
        Command::Cluster(ClusterCommand::Status { node, show_versions }) => {
            cluster::status(&addresses, form, node, show_versions).await
        }
        Command::Cluster(ClusterCommand::Init { password_file }) => {
            cluster::init(&addresses, form, password_file.as_deref()).await
        }
        Command::Cluster(ClusterCommand::WaitLeader { node, timeout }) => {
            cluster::wait_leader(&addresses, form, node, timeout).await
        }
        Command::Node(NodeCommand::Add { address }) => node::add(&addresses, form, &address).await,
        Command::Node(NodeCommand::Remove { node }) => node::remove(&addresses, form, node).await,
        Command::Node(NodeCommand::Info { node, show_term }) => {
            node::info(&addresses, form, node, show_term).await
        }
        Command::Node(NodeCommand::Lead { node, database }) => {
            node::lead(&addresses, form, node, &database).await
        }
        Command::Raft(RaftCommand::Status) => raft::status(&addresses, form).await,
        Command::Check(CheckCommand::Consistency { database, timeout, repair }) => {
            check::consistency(&addresses, form, &check::Wanted { database, timeout, repair }).await
        }
        Command::Query { login, sql } => query::run(&addresses, form, &login, &sql).await,
        Command::Sql { login } => shell::run(&addresses, form, &login).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn documented_forms_are_accepted() {
        for line in [
            "cluster status",
            "cluster status --node node-1 --json",
            "cluster status --show-versions",
            "cluster wait-leader node-2 --timeout 300s",
            "cluster wait-leader",
            "cluster init",
            "node add 127.0.0.1:5533",
            "node remove node-4",
            "node remove 4 --json",
            "node info node-1 --show-term",
            "node info 1",
            "raft status --json",
            "check consistency",
            "check consistency --database app --timeout 1h --repair --json",
            "--host dr-standby query SELECT",
            "--host a:1,b:2 --port 15501 sql",
        ] {
            let words = std::iter::once("rustydb-cli").chain(line.split(' '));
            CommandLine::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("300s"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(parse_duration("300").is_err());
        assert!(parse_duration("s").is_err());
    }

    #[test]
    fn nodes_are_named_by_number() {
        assert_eq!("node-3".parse(), Ok(NodeName(3)));
        assert_eq!("3".parse(), Ok(NodeName(3)));
        assert!("node-0".parse::<NodeName>().is_err());
        assert!("leader".parse::<NodeName>().is_err());
    }
}
