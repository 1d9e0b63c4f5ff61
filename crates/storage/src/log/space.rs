//! Empty segments kept ready, and full ones taken back: all that is slow and can be done beside the log thread.
//!
//! A spare is zero-filled once, so that writing into it later changes no metadata and `fdatasync` has nothing but
//! the data to write. A retired segment becomes a spare as it is: the seed of the next use makes its old frames
//! invalid. Segments are retired oldest first, each durably before the next, so that a crash leaves no gap.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;
use rustydb_env::{Disk, Env, File, OpenMode};

use super::queue::Shared;

const SPARE_PREFIX: &str = "spare-";
/// How much is zero-filled and synced at a time, so that the log's own syncs never wait long behind it.
const FILL_BYTES: u64 = 1 << 20;

/// Spares that are ready and segments that wait to become some.
#[derive(Default)]
pub(super) struct Spares {
    state: Mutex<SparesState>,
}

#[derive(Default)]
struct SparesState {
    ready: VecDeque<PathBuf>,
    retired: VecDeque<PathBuf>,
    next_number: u64,
    /// Set when a spare could not be made; tried again at the next call.
    stalled: bool,
    waker: Option<Waker>,
    closed: bool,
}

/// What to do next.
enum Work {
    Retire(PathBuf),
    Make(PathBuf),
}

/// Whether a path is that of a spare.
pub(super) fn is_spare(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(SPARE_PREFIX))
}

impl Spares {
    /// Begins with those found on disk.
    pub(super) fn new(ready: VecDeque<PathBuf>) -> Self {
        let number = |path: &PathBuf| {
            let name = path.file_name()?.to_str()?.strip_prefix(SPARE_PREFIX)?;
            u64::from_str_radix(name, 16).ok()
        };
        let next_number = ready.iter().filter_map(number).max().map_or(0, |number| number + 1);
        Self { state: Mutex::new(SparesState { ready, next_number, ..SparesState::default() }) }
    }

    /// A spare, if one is ready.
    pub(super) fn take(&self) -> Option<PathBuf> {
        let spare = self.state.lock().ready.pop_front();
        self.poke();
        spare
    }

    /// A name that no spare has.
    pub(super) fn new_path(&self, dir: &Path) -> PathBuf {
        self.state.lock().new_path(dir)
    }

    /// Hands over a segment that is not needed any more.
    pub(super) fn retire(&self, segment: PathBuf) {
        self.state.lock().retired.push_back(segment);
        self.poke();
    }

    /// Makes the helper look for work, and try again what failed.
    pub(super) fn poke(&self) {
        let waker = {
            let mut state = self.state.lock();
            state.stalled = false;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether another spare is wanted.
    pub(super) fn is_short(&self) -> bool {
        self.state.lock().ready.is_empty()
    }

    /// Ends the helper.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.poke();
    }

    async fn next(&self, dir: &Path, spare_count: usize) -> Option<Work> {
        poll_fn(|cx| {
            let mut state = self.state.lock();
            if state.closed {
                return Poll::Ready(None);
            }
            if let Some(segment) = state.retired.pop_front() {
                return Poll::Ready(Some(Work::Retire(segment)));
            }
            if state.ready.len() < spare_count && !state.stalled {
                let path = state.new_path(dir);
                return Poll::Ready(Some(Work::Make(path)));
            }
            state.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl SparesState {
    fn new_path(&mut self, dir: &Path) -> PathBuf {
        let path = dir.join(format!("{SPARE_PREFIX}{:016x}", self.next_number));
        self.next_number += 1;
        path
    }
}

/// Keeps spares ready until the log is closed.
pub(super) async fn run(shared: Arc<Shared>) {
    let spare_count = shared.config.spare_count.max(1);
    let mut told = false;
    while let Some(work) = shared.spares.next(&shared.dir, spare_count).await {
        match work {
            Work::Retire(segment) => {
                if let Err(error) = retire(&shared, &segment, spare_count) {
                    // The segment stays until the next start, which finds that nothing needs it. Those behind it
                    // must stay too, or a gap would open.
                    tracing::warn!(?segment, %error, "log: cannot retire a segment");
                    return;
                }
            }
            Work::Make(path) => {
                let made = make(&shared.env, &path, u64::from(shared.config.segment_bytes)).await;
                let mut state = shared.spares.state.lock();
                match made {
                    Ok(()) => {
                        state.ready.push_back(path);
                        told = false;
                    }
                    Err(error) => {
                        state.stalled = true;
                        drop(state);
                        // Said once: while the disk is full it is tried again and again.
                        if !std::mem::replace(&mut told, true) {
                            tracing::warn!(%error, "log: cannot make a spare segment");
                        }
                        shared.check_space();
                    }
                }
            }
        }
        shared.env.io_pause().await;
    }
}

/// Makes a segment a spare, or removes it if there are enough or it is of another size.
fn retire(shared: &Shared, segment: &Path, spare_count: usize) -> io::Result<()> {
    let disk = shared.env.disk();
    let fits = disk.open(segment, OpenMode::Read)?.len()? == u64::from(shared.config.segment_bytes);
    let wanted = shared.spares.state.lock().ready.len() < spare_count;
    let spare = (fits && wanted).then(|| shared.spares.new_path(&shared.dir));
    match &spare {
        Some(spare) => disk.rename(segment, spare)?,
        None => disk.remove_file(segment)?,
    }
    disk.sync_dir(&shared.dir)?;
    if let Some(spare) = spare {
        shared.spares.state.lock().ready.push_back(spare);
    }
    Ok(())
}

/// Creates a file of a segment's size with its space reserved. Leaves nothing behind if that fails.
pub(super) fn create(disk: &dyn Disk, path: &Path, size_bytes: u64) -> io::Result<Arc<dyn File>> {
    let file = disk.open(path, OpenMode::CreateNew)?;
    if let Err(error) = file.allocate(0, size_bytes) {
        drop(file);
        disk.remove_file(path)?;
        return Err(error);
    }
    Ok(file)
}

/// Creates a zero-filled spare.
async fn make(env: &Env, path: &Path, size_bytes: u64) -> io::Result<()> {
    let disk = env.disk();
    let file = create(&**disk, path, size_bytes)?;
    let filled = fill(env, &*file, size_bytes).await;
    if filled.is_err() {
        drop(file);
        disk.remove_file(path)?;
    }
    filled
}

/// Writes zeros over the whole file, a piece and a sync at a time.
async fn fill(env: &Env, file: &dyn File, size_bytes: u64) -> io::Result<()> {
    let piece = size_bytes.min(FILL_BYTES);
    let zeros = vec![0u8; usize::try_from(piece).unwrap_or(0)];
    let mut offset = 0;
    while offset < size_bytes {
        let count = usize::try_from(size_bytes - offset).unwrap_or(usize::MAX).min(zeros.len());
        file.write_at(offset, zeros.get(..count).unwrap_or_default())?;
        file.sync_data()?;
        offset += count as u64;
        env.io_pause().await;
    }
    file.sync_all()
}

/// Zero-fills a small file at once.
pub(super) fn fill_now(file: &dyn File, size_bytes: u64) -> io::Result<()> {
    let zeros = vec![0u8; usize::try_from(size_bytes).unwrap_or(0)];
    file.write_at(0, &zeros)?;
    file.sync_all()
}
