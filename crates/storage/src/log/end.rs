//! How far the log was durable at least, kept beside it: else an end that is gone without a trace, zeros where the
//! last frames were or no newest segment at all, would pass for the end that was written.
//!
//! ```text
//!   LOG-FOLDER/END   | slot | zeros to 4 KiB | slot | zeros to 4 KiB |      written in turns, the higher one counts
//! ```
//!
//! It is written beside the log thread, at most once in [`INTERVAL`] and only when the log has grown, and once more when the
//! log is closed. So it is never ahead of the disk; what is behind it, less than a second of writing, is not missed
//! when it is gone, unless the log was closed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustydb_env::{Disk, File, OpenMode};

use super::queue::Shared;
use super::segment::{SegmentHeader, SegmentId};

const FILE: &str = "END";
const MAGIC: [u8; 8] = *b"RDBEND\r\n";
/// One slot in each page, so that no write touches both.
const PAGE_BYTES: u64 = 4096;
const SLOT_BYTES: usize = 40;
/// Pause between two looks at whether the log has grown.
const INTERVAL: Duration = Duration::from_secs(1);

/// A place that all before was synced to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reached {
    /// The newest segment.
    segment: SegmentId,
    /// Where its next frame goes.
    end: u64,
    /// Of that segment.
    salt: u64,
}

impl Reached {
    pub(super) const fn new(header: &SegmentHeader, end: u64) -> Self {
        Self { segment: header.id, end, salt: header.salt }
    }

    /// Why a log that ends here is not the one that came so far, if it is not.
    pub(super) fn missing_from(self, found: Option<Reached>) -> Option<String> {
        let (segment, end) = (self.segment.0, self.end);
        match found {
            Some(found) if found.segment == self.segment && found.salt != self.salt => {
                Some(format!("segment {segment:x} is not the one that was written here"))
            }
            Some(found) if found >= self => None,
            _ => Some(format!("the log was written and synced up to byte {end} of segment {segment:x}")),
        }
    }

    fn encode(self) -> [u8; SLOT_BYTES] {
        let mut fields = MAGIC.to_vec();
        for number in [u64::from(self.segment.0), self.end, self.salt] {
            fields.extend_from_slice(&number.to_le_bytes());
        }
        fields.extend_from_slice(&u64::from(crc32fast::hash(&fields)).to_le_bytes());
        let mut slot = [0; SLOT_BYTES];
        for (byte, field) in slot.iter_mut().zip(fields) {
            *byte = field;
        }
        slot
    }

    fn decode(slot: &[u8]) -> Option<Self> {
        let word = |number: usize| {
            let field = slot.get(8 * number..8 * number + 8)?;
            Some(u64::from_le_bytes(field.try_into().ok()?))
        };
        let segment = SegmentId(u32::try_from(word(1)?).ok()?);
        let reached = Self { segment, end: word(2)?, salt: word(3)? };
        (reached.encode() == slot).then_some(reached)
    }
}

/// What the file says; [`None`] where nothing was written or it cannot be read, which proves nothing.
pub(super) fn read(disk: &dyn Disk, dir: &Path) -> Option<Reached> {
    let path = dir.join(FILE);
    let unreadable = |error: &io::Error| {
        tracing::warn!(?path, %error, "log: how far it was written cannot be read");
    };
    let file = match disk.open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                unreadable(&error);
            }
            return None;
        }
    };
    // Each by itself: where one cannot be read the other counts.
    slots(&*file).into_iter().filter_map(|slot| slot.inspect_err(unreadable).ok().flatten()).max()
}

fn slots(file: &dyn File) -> [io::Result<Option<Reached>>; 2] {
    [0, PAGE_BYTES].map(|offset| {
        let mut slot = [0; SLOT_BYTES];
        file.read_at(offset, &mut slot).map(|()| Reached::decode(&slot))
    })
}

/// How far the log is durable, and what the file says of that.
pub(super) struct EndMark {
    path: PathBuf,
    reached: Mutex<Reached>,
    state: Mutex<MarkState>,
}

#[derive(Default)]
struct MarkState {
    file: Option<Arc<dyn File>>,
    written: Option<Reached>,
    is_second_next: bool,
    is_closed: bool,
}

impl EndMark {
    pub(super) fn new(dir: &Path, reached: Reached) -> Self {
        Self { path: dir.join(FILE), reached: Mutex::new(reached), state: Mutex::default() }
    }

    /// All before this is durable.
    pub(super) fn reach(&self, reached: Reached) {
        *self.reached.lock() = reached;
    }

    /// Writes down how far the log is, if it is further than written.
    fn write(&self, disk: &dyn Disk, state: &mut MarkState) -> io::Result<()> {
        let reached = *self.reached.lock();
        if state.is_closed || state.written == Some(reached) {
            return Ok(());
        }
        let file = match &state.file {
            Some(file) => Arc::clone(file),
            None => {
                let file = self.create(disk)?;
                // The higher one stays until the other is written.
                let [first, second] = slots(&*file).map(|slot| slot.ok().flatten());
                state.is_second_next = first >= second && first.is_some();
                file
            }
        };
        let offset = if state.is_second_next { PAGE_BYTES } else { 0 };
        file.write_at(offset, &reached.encode())?;
        file.sync_data()?;
        state.file = Some(file);
        state.written = Some(reached);
        state.is_second_next = !state.is_second_next;
        Ok(())
    }

    /// The file with both of its pages, so that writing to them changes no metadata. What it said stays.
    fn create(&self, disk: &dyn Disk) -> io::Result<Arc<dyn File>> {
        let file = disk.open(&self.path, OpenMode::Create)?;
        if file.len()? != 2 * PAGE_BYTES {
            file.set_len(0)?;
            file.write_at(0, &vec![0; usize::try_from(2 * PAGE_BYTES).unwrap_or(0)])?;
            file.sync_all()?;
            if let Some(dir) = self.path.parent() {
                disk.sync_dir(dir)?;
            }
        }
        Ok(file)
    }

    /// Writes it down for the last time, if the log is sound, before another process may use the folder.
    pub(super) fn close(&self, disk: &dyn Disk, is_sound: bool) {
        let mut state = self.state.lock();
        if is_sound && let Err(error) = self.write(disk, &mut state) {
            tracing::warn!(path = ?self.path, %error, "log: how far it was written is not noted");
        }
        state.is_closed = true;
        state.file = None;
    }
}

/// Writes it down from time to time until the log is closed.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut told = false;
    loop {
        let written = shared.end.write(&**shared.env.disk(), &mut shared.end.state.lock());
        // Said once: while the disk is full it is tried again and again.
        match written {
            Ok(()) => told = false,
            Err(error) if !std::mem::replace(&mut told, true) => {
                tracing::warn!(path = ?shared.end.path, %error, "log: how far it was written is not noted");
            }
            Err(_) => {}
        }
        if shared.env.timeout(INTERVAL, shared.ended.wait()).await.is_ok() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(segment: u32, end: u64) -> Reached {
        Reached { segment: SegmentId(segment), end, salt: 7 }
    }

    #[test]
    fn what_is_further_counts_and_what_is_less_is_missed() {
        assert_eq!(reached(2, 64).missing_from(Some(reached(2, 64))), None);
        assert_eq!(reached(2, 640).missing_from(Some(reached(3, 64))), None);
        for found in
            [None, Some(reached(2, 56)), Some(reached(1, 99)), Some(Reached { salt: 8, ..reached(2, 64) })]
        {
            assert!(reached(2, 64).missing_from(found).is_some(), "{found:?}");
        }
    }

    #[test]
    fn a_changed_slot_says_nothing() {
        let slot = reached(9, 4096).encode();
        assert_eq!(Reached::decode(&slot), Some(reached(9, 4096)));
        for bit in 0..8 * SLOT_BYTES {
            let mut changed = slot;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Reached::decode(&changed), None, "bit {bit}");
        }
    }
}
