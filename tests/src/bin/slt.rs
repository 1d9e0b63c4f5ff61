//! Runs the SQL logic tests against a server, or records what it answers.
//!
//! ```text
//!   slt "host=127.0.0.1 port=5432 user=postgres" [--record] [FILE...]      default: every file of tests/slt
//! ```

use std::path::PathBuf;

use anyhow::{Result, bail};
use rustydb_tests::slt;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let record = arguments.iter().position(|argument| argument == "--record").map(|at| arguments.remove(at));
    if arguments.is_empty() {
        bail!("usage: slt CONNECTION [--record] [FILE...]");
    }
    let target = arguments.remove(0);
    let mut files: Vec<PathBuf> = arguments.into_iter().map(PathBuf::from).collect();
    if files.is_empty() {
        files = slt::files()?;
    }
    let mut failed = 0;
    for file in &files {
        let outcome =
            if record.is_some() { slt::record(&target, file).await } else { slt::run(&target, file).await };
        match outcome {
            Ok(()) => println!("{} ok", file.display()),
            Err(error) => {
                failed += 1;
                println!("{} FAILED\n{error:#}", file.display());
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {} files failed", files.len());
    }
    Ok(())
}
