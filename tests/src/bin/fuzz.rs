//! Malformed input for everything that decodes, and a server that is talked to without manners.
//!
//! `fuzz [--seconds N] [--report FILE] [--seed N] [--part NAME] [--clients N] [--peers N]`, and to replay one input
//! `fuzz --target NAME --input HEX`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustydb_tests::fuzz::{parts, targets};
use rustydb_tests::gate::{Gate, exit_code, help, nothing_left, take_option};

const USAGE: &str = "\
fuzz [--seconds N] [--report FILE] [--seed N] [--part NAME] [--clients N] [--peers N]
fuzz --target NAME --input HEX";

/// What the names of parts begin with.
const PARTS: &[&str] = &[
    "decode",
    "members",
    "server messages",
    "server peers",
    "server slow readers",
    "server giant messages",
    "server connections",
    "server deep nesting",
];

const KNOWN: &str = "--seconds, --report, --seed, --part, --clients, --peers, --target, --input";

fn main() -> ExitCode {
    exit_code("fuzz", run())
}

fn run() -> Result<ExitCode> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    help(&arguments, USAGE);
    parts::count_panics();
    if let Some(name) = take_option(&mut arguments, "--target")? {
        let target = targets::target(&name).context("no such target")?;
        let hex = take_option(&mut arguments, "--input")?.context("--input is missing")?;
        ensure!(hex.len() % 2 == 0, "--input has half a byte too much");
        let digits: Vec<char> = hex.chars().collect();
        let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16);
        let input: Vec<u8> =
            digits.chunks(2).map(byte).collect::<Result<_, _>>().context("--input is not hexadecimal")?;
        println!("{} frames", (target.run)(&input));
        return Ok(ExitCode::SUCCESS);
    }
    let mut gate = Gate::from_arguments("fuzz", Duration::from_secs(110), &mut arguments)?;
    let number = |text: Option<String>, default: u64| -> Result<u64> {
        text.map_or(Ok(default), |text| text.parse().with_context(|| format!("{text} is no number")))
    };
    let plan = parts::Plan {
        seed: number(take_option(&mut arguments, "--seed")?, 1)?,
        clients: number(take_option(&mut arguments, "--clients")?, 1_000_000)?,
        peers: number(take_option(&mut arguments, "--peers")?, 200_000)?,
        only: take_option(&mut arguments, "--part")?,
    };
    nothing_left(&arguments, KNOWN)?;
    gate.can_require(&[])?;
    if let Some(only) = plan.only.as_deref() {
        let is_one = PARTS.iter().any(|part| part.starts_with(only) || only.starts_with(part));
        ensure!(is_one, "no part is called {only}; their names begin with {}", PARTS.join(", "));
    }
    let figures = parts::run(&mut gate, &plan)?;
    Ok(gate.finish(&figures, &[]))
}
