//! The binary `rustydb`: a node (`server`), a cluster for development (`dev`), and tools for files.
//!
//! Exit codes: 0 ended as asked; 1 failed; 2 the command line or the configuration is wrong.

mod allocator;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use rustydb_server::config::{Config, ConfigError, EngineChoice};
use rustydb_server::dev::{self, DevOptions, Wanted};
use rustydb_server::serve::{self, Parent};

/// A Raft-replicated SQL database that speaks PostgreSQL's protocol.
#[derive(Debug, Parser)]
#[command(
    name = "rustydb",
    version,
    after_help = "Exit codes:\n  0  ended as asked\n  1  failed\n  2  the command line or the configuration is wrong"
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts a cluster of real server processes on loopback and stays in the foreground.
    Dev(Dev),
    /// Runs one node.
    Server {
        /// Configuration file.
        #[arg(long)]
        config: PathBuf,
        /// Stop when standard input ends, which it does when the process that holds its other end ends.
        #[arg(long, hide = true)]
        exit_with_parent: bool,
    },
    /// Says what is wrong in a configuration file, with line and reason.
    CheckConfig {
        /// Configuration file.
        file: PathBuf,
    },
    /// The write-ahead log, for people.
    #[command(subcommand)]
    Log(LogCommand),
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// Prints the records of a segment file; the log may be in use.
    Dump {
        /// A file under DATA/log.
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Dev {
    /// Folder of the cluster; a later start continues what is in it.
    #[arg(long, default_value = "./rustydb-data")]
    data: PathBuf,
    /// Number of nodes [default: 3, or as many as the folder has].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=i64::from(dev::NODES_MAX)))]
    nodes: Option<u16>,
    /// Node K listens on this plus K for Postgres, plus 100 + K for the interconnect, plus 200 + K for HTTP
    /// [default: 15400, or what the folder had last].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1024..=65_000))]
    base_port: Option<u16>,
    /// Engine of a new cluster [default: redb].
    #[arg(long)]
    engine: Option<Engine>,
    /// Start this one node, which is down, wait until it serves, and return.
    #[arg(long, conflicts_with_all = ["nodes", "base_port", "engine"])]
    start_node: Option<u16>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Engine {
    Redb,
    Sled,
    Memory,
}

impl From<Engine> for EngineChoice {
    fn from(engine: Engine) -> EngineChoice {
        match engine {
            Engine::Redb => EngineChoice::Redb,
            Engine::Sled => EngineChoice::Sled,
            Engine::Memory => EngineChoice::Memory,
        }
    }
}

const FAILED: u8 = 1;
const WRONG: u8 = 2;

fn main() -> ExitCode {
    allocator::set_up();
    match CommandLine::parse().command {
        Command::Dev(dev) => run_dev(dev),
        Command::Server { config, exit_with_parent } => {
            let parent = if exit_with_parent { Parent::Watched } else { Parent::Ignored };
            match load(&config).map(|config| serve::run(config, parent)) {
                Ok(Ok(())) => ExitCode::SUCCESS,
                Ok(Err(error)) => {
                    eprintln!("rustydb: {error}");
                    ExitCode::from(FAILED)
                }
                Err(code) => code,
            }
        }
        Command::CheckConfig { file } => match rustydb_server::check_config(&file) {
            Ok(()) => {
                println!("{}: good", file.display());
                ExitCode::SUCCESS
            }
            Err(error) => refused(&error),
        },
        Command::Log(LogCommand::Dump { file }) => dump(&file),
    }
}

fn dump(file: &std::path::Path) -> ExitCode {
    use std::io::Write;
    match rustydb_storage::log::dump(&rustydb_env::Env::os(), file) {
        Ok(lines) => {
            let mut out = std::io::stdout().lock();
            for line in lines {
                // A reader that has seen enough is no failure.
                if writeln!(out, "{line}").is_err() {
                    break;
                }
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("rustydb: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn load(file: &std::path::Path) -> Result<Config, ExitCode> {
    Config::load(file).map_err(|error| refused(&error))
}

fn refused(error: &ConfigError) -> ExitCode {
    match error {
        ConfigError::Read { source, .. } => eprintln!("rustydb: {error}: {source}"),
        _ => eprintln!("rustydb: {error}"),
    }
    ExitCode::from(WRONG)
}

fn run_dev(dev: Dev) -> ExitCode {
    let options = DevOptions {
        data: dev.data,
        wanted: Wanted { nodes: dev.nodes, base_port: dev.base_port, engine: dev.engine.map(Into::into) },
        start_node: dev.start_node,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("rustydb: cannot start: {error}");
            return ExitCode::from(FAILED);
        }
    };
    match runtime.block_on(dev::run(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rustydb: {error}");
            ExitCode::from(FAILED)
        }
    }
}
