//! A network of the run's own: one namespace per node, a bridge between them, and faults on it.
//!
//! ```text
//! clients, 10.77.0.254 ── hub ──┬── n1, 10.77.0.1
//!                               ├── n2, 10.77.0.2      each with a packet filter on what comes in
//!                               └── n3, 10.77.0.3
//! ```
//!
//! All of it lives in namespaces of network, mounts and processes that [`enter`] makes for the program itself and that
//! the kernel takes away with it, however it ends: nothing is left on the machine, and nothing else can be reached.
//! Partitions and losses are rules of nftables, slow links the token bucket of tc.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::text;
use crate::server::finish;

/// Longest time that one command of the system takes.
const COMMAND_PATIENCE: Duration = Duration::from_secs(20);

/// Address of the clients.
pub const CLIENTS: &str = "10.77.0.254";

/// Rules that let every role in from the run's own networks without a password.
pub const TRUST: &str = "[auth]\nrules = [{ from = \"10.77.0.0/24\", method = \"trust\" }]\n";

/// The option that tells the program that it runs in its namespaces already.
pub const INSIDE: &str = "--inside-namespaces";

/// Runs this program again, with the same arguments and [`INSIDE`], in namespaces that end with it. Gives its exit
/// code, or why that cannot be done here.
///
/// # Errors
/// The machine does not allow it, or a program that it needs is missing.
pub fn enter(arguments: &[String]) -> Result<u8, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let unshare = |program: &str, arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare"]);
        if !is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", program]);
        command.args(arguments);
        command
    };
    let trial = "mount -t tmpfs none /run && mkdir /run/netns && ip netns add trial && ip link add trial type bridge \
                 && ip netns exec trial nft add table inet trial && tc -V >/dev/null";
    let tried = finish(unshare("sh", &["-c", trial]), COMMAND_PATIENCE).map_err(|error| error.to_string())?;
    if !tried.status.success() {
        return Err(text(&tried).trim().lines().last().unwrap_or("refused").to_owned());
    }
    let own = own.display().to_string();
    let mut all: Vec<&str> = arguments.iter().map(String::as_str).collect();
    all.push(INSIDE);
    let status = unshare(&own, &all).status().map_err(|error| error.to_string())?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What a node's filter does with what comes from one other address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Number of the node that sends.
    pub from: u16,
    /// Percent of its packets that are dropped.
    pub loss_percent: u8,
}

/// The network, inside the namespaces.
#[derive(Debug)]
pub struct Network {
    nodes: u16,
}

impl Network {
    /// Lays it for some nodes, numbered from 1.
    ///
    /// # Errors
    /// A command fails.
    pub fn lay(nodes: u16) -> Result<Self> {
        shell("mount -t tmpfs none /run && mkdir -p /run/netns")?;
        let mut script = format!(
            "ip link set lo up; ip link add hub type bridge; ip addr add {CLIENTS}/24 dev hub; ip link set hub up\n"
        );
        for node in 1..=nodes {
            script += &format!(
                "ip netns add n{node}; ip link add v{node} type veth peer name eth0 netns n{node}\n\
                 ip link set v{node} master hub up; ip -n n{node} addr add {host}/24 dev eth0\n\
                 ip -n n{node} link set eth0 up; ip -n n{node} link set lo up\n",
                host = host(node)
            );
        }
        shell(&format!("set -e\n{script}"))?;
        Ok(Self { nodes })
    }

    /// How many nodes it has room for.
    #[must_use]
    pub fn nodes(&self) -> u16 {
        self.nodes
    }

    /// Replaces the filter of a node, at once.
    ///
    /// # Errors
    /// The rules are refused.
    pub fn filter(&self, node: u16, rules: &[Rule]) -> Result<()> {
        let mut lines = String::new();
        for Rule { from, loss_percent } in rules {
            let chance = if *loss_percent >= 100 {
                String::new()
            } else {
                format!("numgen random mod 100 < {loss_percent}")
            };
            lines += &format!("ip saddr {{ {}, {} }} {chance} drop\n", host(*from), link_host(*from));
        }
        let table = format!(
            "flush ruleset\ntable inet chaos {{\nchain input {{\ntype filter hook input priority 0;\n{lines}}}\n}}\n"
        );
        inside(node, &["nft", "-f", "-"], &table)
    }

    /// Lets everything through again, everywhere and as fast as it goes.
    ///
    /// # Errors
    /// A command fails.
    pub fn heal(&self) -> Result<()> {
        for node in 1..=self.nodes {
            inside(node, &["nft", "flush", "ruleset"], "")?;
            // There is nothing to delete where the link is not slow.
            let _fast = inside(node, &["tc", "qdisc", "del", "dev", "eth0", "root"], "");
        }
        Ok(())
    }

    /// What a node sends goes at this rate at most.
    ///
    /// # Errors
    /// The command fails.
    pub fn slow(&self, node: u16, kilobits_per_second: u32) -> Result<()> {
        let rate = format!("{kilobits_per_second}kbit");
        let queue = [
            "tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", &rate, "burst", "32kbit",
            "latency", "200ms",
        ];
        inside(node, &queue, "")
    }
}

/// Address of a node.
#[must_use]
pub fn host(node: u16) -> String {
    format!("10.77.0.{node}")
}

/// Address of a node behind the link emulator.
#[must_use]
pub fn link_host(node: u16) -> String {
    format!("10.78.0.{node}")
}

/// What starts a program in a node's namespace, and becomes it.
#[must_use]
pub fn launcher(node: u16) -> Vec<String> {
    ["ip", "netns", "exec"].map(str::to_owned).into_iter().chain([format!("n{node}")]).collect()
}

/// Runs a command in a node's namespace.
fn inside(node: u16, arguments: &[&str], input: &str) -> Result<()> {
    let launcher = launcher(node);
    let mut command = Command::new(&launcher[0]);
    command.args(&launcher[1..]).args(arguments);
    run(command, input).with_context(|| format!("{arguments:?} at node {node}"))
}

/// Runs a line of shell.
pub(super) fn shell(line: &str) -> Result<()> {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    run(command, "").with_context(|| line.to_owned())
}

fn run(mut command: Command, input: &str) -> Result<()> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    // A few hundred bytes at most, which the pipe takes at once.
    child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}", text(&output).trim());
    Ok(())
}

/// Whether a program that the run needs is there.
///
/// # Errors
/// It is not: its name.
pub fn needs(program: &str) -> Result<()> {
    let path = std::env::var("PATH").unwrap_or_default();
    if path.split(':').any(|folder| Path::new(folder).join(program).exists()) {
        return Ok(());
    }
    bail!("{program} is not installed")
}
