//! The sections of a run, in their order, with the share of the time that each may take.
//!
//! What a section leaves of its share goes to those behind it.

use std::fs::File;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::run::Run;
use super::{calibration, churn, clocks, components, overload, storm, weather};

/// What the folders of runs begin with, below the system's folder for temporary files.
const FOLDER: &str = "rustydb-chaos-";

/// A section: its name, the part of the time after which it ends at the latest in percent, and what it does.
type Section = (&'static str, u32, fn(&mut Run, Instant, bool) -> Result<()>);

const SECTIONS: &[Section] = &[
    ("calibration", 8, calibration::run_section),
    ("components", 20, components::run),
    ("links", 28, weather::run),
    ("clocks", 34, clocks::run),
    ("overload", 62, overload::run),
    ("churn", 72, churn::run),
    ("storm", 98, storm::run),
];

/// What the sections are called.
#[must_use]
pub fn names() -> Vec<&'static str> {
    SECTIONS.iter().map(|(name, ..)| *name).collect()
}

/// Runs the sections, or only one of them.
pub fn run_all(run: &mut Run, only: Option<&str>, is_soak: bool) {
    let (start, budget) = (Instant::now(), run.gate.left());
    for (name, percent, section) in SECTIONS {
        if only.is_some_and(|only| only != *name) {
            continue;
        }
        let share = if only.is_some() { budget } else { budget * *percent / 100 };
        let result = section(run, start + share, is_soak);
        run.settle_judged();
        run.end_section(name);
        if let Err(error) = result {
            run.gate.failed(name, format!("{error:#}"));
        }
    }
    run.judge_outages();
}

/// A folder for the data of this run. Folders that runs left behind which were killed are removed.
///
/// # Errors
/// It cannot be made.
pub fn data_folder() -> Result<Folder> {
    let parent = std::env::temp_dir();
    for entry in std::fs::read_dir(&parent)?.flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(FOLDER);
        // A run that lives holds the lock.
        let is_dead = || File::open(entry.path().join("lock")).is_ok_and(|lock| lock.try_lock().is_ok());
        let is_old = || {
            let changed = entry.metadata().and_then(|data| data.modified()).ok();
            changed
                .and_then(|changed| changed.elapsed().ok())
                .is_some_and(|age| age > Duration::from_secs(60))
        };
        if is_ours && is_old() && is_dead() {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    let folder = tempfile::Builder::new().prefix(FOLDER).tempdir_in(parent)?;
    let lock = File::create(folder.path().join("lock"))?;
    lock.try_lock()?;
    Ok(Folder { folder, _lock: lock })
}

/// A folder that goes with its value.
#[derive(Debug)]
pub struct Folder {
    folder: tempfile::TempDir,
    _lock: File,
}

impl Folder {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        self.folder.path()
    }
}
