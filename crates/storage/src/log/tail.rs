//! Where a log that was opened goes on: behind the mark of a good close, or in a segment of its own.
//!
//! ```text
//!   ... | entry | vote | closed |            ── the mark is written once more, and the segment goes on
//!   ... | entry | vo##   entry |             ── what is before the tear is written once more; the next segment says
//!                 └ end                         where that ends, so nobody ever reads or writes behind it
//! ```
//!
//! What is read may be in the page cache only, and count as written there although a sync has failed. So before
//! anything is built on it, it is written again and synced. Nothing is written to the place of a torn batch: whole
//! frames of it may lie there, on the disk if not in the cache, and one of them could come to continue what is written
//! later.
//!
//! All that may fail or be cut off at any point. Until the next segment has its name, durably, the next start finds the
//! same tail and decides again; no later batch was begun.

use std::io;
use std::path::{Path, PathBuf};

use rustydb_env::{Bug, Env};

use super::config::LogConfig;
use super::error::LogError;
use super::frame;
use super::ledger::Ledger;
use super::segment::SegmentId;
use super::space::{self, Spares};
use super::writer::{self, Current};

/// The first segment of a log, and those that begin at a start, are small, so that they can be zero-filled at once without
/// a start being slow, and a process that dies again and again does not fill the disk.
const SMALL_SEGMENT_BYTES: u64 = 4 << 20;

/// The last segment as it was found.
pub(super) struct Tail {
    /// With its end behind the last whole frame that continues the log.
    pub(super) current: Current,
    /// All its bytes.
    pub(super) bytes: Vec<u8>,
    /// No whole frame of a torn batch reaches beyond this.
    pub(super) leftovers_end: u64,
    /// The last frame says that the log was closed in good order.
    pub(super) is_closed: bool,
}

impl Tail {
    /// Whether all that may ever have been written to the segment ends here. The mark of a close is written only
    /// when all before it was synced, so that is durable even if the mark is not.
    pub(super) fn is_clean(&self) -> bool {
        self.is_closed && self.leftovers_end == self.current.end
    }

    /// Makes what was found durable, and gives the segment to go on in.
    pub(super) fn go_on(
        self,
        env: &Env,
        dir: &Path,
        config: &LogConfig,
        spares: &Spares,
        ledger: &Ledger,
    ) -> Result<Current, LogError> {
        if env.has_bug(Bug::TornTailKept) {
            self.write_again(env, 0, false)?;
            return Ok(self.current);
        }
        if self.is_clean() {
            let mark = self.current.end.saturating_sub(frame::frame_size(0) as u64);
            self.write_again(env, mark, false)?;
            return Ok(self.current);
        }
        let (path, end) = (&self.current.path, self.current.end);
        if self.leftovers_end > end {
            tracing::info!(?path, end, "log: the last batch was torn by a crash; the log ends before it");
        }
        let at_dir = |error| LogError::io(dir, error);
        let id = SegmentId(
            self.current
                .header
                .id
                .0
                .checked_add(1)
                .ok_or_else(|| at_dir(io::Error::other("segment numbers are exhausted")))?,
        );
        let file = small_file(env, dir, config, spares, ledger).map_err(at_dir)?;
        let Some(file) = file else {
            tracing::warn!(?path, "log: no room for a segment; what is behind the end is wiped");
            self.write_again(env, 0, true)?;
            return Ok(self.current);
        };
        self.write_again(env, 0, false)?;
        writer::begin(env, dir, &file, id, end, ledger).map_err(at_dir)
    }

    /// Writes the bytes from `start` to the end once more, zeros behind them if asked, and syncs.
    fn write_again(&self, env: &Env, start: u64, wipe: bool) -> Result<(), LogError> {
        let at_path = |error| LogError::io(&self.current.path, error);
        if env.has_bug(Bug::RecoveryNotSynced) {
            return Ok(());
        }
        let place = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        let (file, end) = (&self.current.file, self.current.end);
        let again = self.bytes.get(place(start)..place(end)).unwrap_or_default();
        file.write_at(start, again).map_err(at_path)?;
        if wipe {
            // All of it, whatever was read there: the disk may have what the page cache has not.
            let rest = self.current.header.size_bytes.saturating_sub(end);
            file.write_at(end, &vec![0; place(rest)]).map_err(at_path)?;
        }
        file.sync_data().map_err(at_path)
    }
}

/// Begins a log that has no segment yet.
pub(super) fn first_segment(
    env: &Env,
    dir: &Path,
    config: &LogConfig,
    spares: &Spares,
) -> io::Result<Current> {
    let ledger = Ledger::default();
    let path = zero_filled(env, dir, small_bytes(config, &ledger), spares)?;
    writer::begin(env, dir, &path, SegmentId(1), 0, &ledger)
}

fn small_bytes(config: &LogConfig, ledger: &Ledger) -> u64 {
    let full = u64::from(config.segment_bytes);
    let small = full.min(SMALL_SEGMENT_BYTES);
    if writer::opening_bytes(ledger) > small / 2 { full } else { small }
}

/// A file for a segment that begins at a start. [`None`] when there is no room for one.
fn small_file(
    env: &Env,
    dir: &Path,
    config: &LogConfig,
    spares: &Spares,
    ledger: &Ledger,
) -> io::Result<Option<PathBuf>> {
    match zero_filled(env, dir, small_bytes(config, ledger), spares) {
        Ok(path) => Ok(Some(path)),
        Err(error) if writer::is_out_of_space(&error) => Ok(spares.take()),
        Err(error) => Err(error),
    }
}

/// A spare of this size, made at once. Leaves nothing behind if that fails.
fn zero_filled(env: &Env, dir: &Path, size_bytes: u64, spares: &Spares) -> io::Result<PathBuf> {
    let path = spares.new_path(dir);
    let disk = env.disk();
    let file = space::create(&**disk, &path, size_bytes)?;
    if let Err(error) = space::fill_now(&*file, size_bytes) {
        drop(file);
        disk.remove_file(&path)?;
        return Err(error);
    }
    Ok(path)
}
