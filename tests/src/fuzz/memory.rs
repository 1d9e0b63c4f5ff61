//! How much memory a process has.

use anyhow::{Context, Result};

/// Resident memory of a process, in bytes; of this one without a number.
///
/// # Errors
/// The process is gone.
pub fn resident_bytes(pid: Option<u32>) -> Result<u64> {
    field(pid, "VmRSS:")
}

/// The most that it ever had.
///
/// # Errors
/// The process is gone.
pub fn peak_bytes(pid: Option<u32>) -> Result<u64> {
    field(pid, "VmHWM:")
}

fn field(pid: Option<u32>, name: &str) -> Result<u64> {
    let who = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let text = std::fs::read_to_string(format!("/proc/{who}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).context("no such field")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib << 10)
}

/// Bytes as whole mebibytes.
#[must_use]
pub const fn mib(bytes: u64) -> u64 {
    bytes >> 20
}
