//! The memory that all statements of a node share: for what they keep, and for what is made of their text.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{SqlError, SqlState};
use crate::exec::spill::SpillArea;

/// What all statements of a node may keep in memory together: sorts, hash tables and materialisations. What is made of
/// their text has half as much beside it, so that neither leaves the other without.
#[derive(Debug)]
pub struct WorkMemory {
    size_bytes: usize,
    used_bytes: AtomicUsize,
    texts: Arc<TextMemory>,
    spill: Option<Arc<SpillArea>>,
    /// From how many bytes on an operator writes to files, where `work_mem` does not say.
    spill_bytes: Option<usize>,
}

impl WorkMemory {
    /// A pool of `size_bytes`, and half as much for texts.
    #[must_use]
    pub fn new(size_bytes: usize) -> Self {
        let texts = Arc::new(TextMemory::new(size_bytes / 2));
        Self { size_bytes, used_bytes: AtomicUsize::new(0), texts, spill: None, spill_bytes: None }
    }

    /// The same with a folder for what statements cannot keep.
    #[must_use]
    pub fn with_spill(self, area: Arc<SpillArea>) -> Self {
        Self { spill: Some(area), ..self }
    }

    /// The same with files from so many bytes on, whatever `work_mem` is: for those who try what files do.
    #[must_use]
    pub fn spilling_at(self, size_bytes: usize) -> Self {
        Self { spill_bytes: Some(size_bytes), ..self }
    }

    /// From how many bytes on an operator writes to files, where `work_mem` does not say.
    #[must_use]
    pub const fn spill_bytes(&self) -> Option<usize> {
        self.spill_bytes
    }

    /// The folder for what statements cannot keep.
    #[must_use]
    pub const fn spill(&self) -> Option<&Arc<SpillArea>> {
        self.spill.as_ref()
    }

    /// Bytes in use now.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// For what is made of the text of statements.
    #[must_use]
    pub const fn texts(&self) -> &Arc<TextMemory> {
        &self.texts
    }

    /// Takes memory; it is to be given back.
    ///
    /// # Errors
    /// 53200 when there is not so much left.
    pub(crate) fn take(&self, size_bytes: usize) -> Result<(), SqlError> {
        let fits = |used: usize| used.checked_add(size_bytes).filter(|used| *used <= self.size_bytes);
        if self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok() {
            return Ok(());
        }
        Err(SqlError::new(SqlState::OUT_OF_MEMORY, "out of memory")
            .with_detail(format!(
                "All statements of the node together need to keep more than its work memory ({} kB).",
                self.size_bytes >> 10
            ))
            .with_hint("Try again when fewer statements run, or raise memory.budget."))
    }

    /// Gives back what was taken.
    pub(crate) fn give_back(&self, size_bytes: usize) {
        self.used_bytes.fetch_sub(size_bytes, Ordering::Relaxed);
    }
}

/// What may be made of the text of statements together.
#[derive(Debug)]
pub struct TextMemory {
    size_bytes: usize,
    used_bytes: AtomicUsize,
}

impl TextMemory {
    /// A pool of `size_bytes`.
    #[must_use]
    pub const fn new(size_bytes: usize) -> Self {
        Self { size_bytes, used_bytes: AtomicUsize::new(0) }
    }

    /// Bytes in use now.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Takes memory until the answer is dropped, if there is so much left.
    #[must_use]
    pub fn hold_within(self: &Arc<Self>, size_bytes: usize) -> Option<HeldMemory> {
        self.hold_if(size_bytes, |used| used.saturating_add(size_bytes) <= self.size_bytes)
    }

    /// Takes memory until the answer is dropped, unless the pool is used up. The last one may take more than is left, so
    /// that no statement is too large for a small pool, only too late for it.
    ///
    /// # Errors
    /// 53200.
    pub fn hold(self: &Arc<Self>, size_bytes: usize) -> Result<HeldMemory, SqlError> {
        self.hold_if(size_bytes, |used| used < self.size_bytes).ok_or_else(|| {
            SqlError::new(SqlState::OUT_OF_MEMORY, "out of memory")
                .with_detail(format!(
                    "The large and the prepared statements of all sessions of the node take {} kB already.",
                    self.size_bytes >> 10
                ))
                .with_hint("Try again later, deallocate prepared statements, or raise memory.budget.")
        })
    }

    fn hold_if(self: &Arc<Self>, size_bytes: usize, fits: impl Fn(usize) -> bool) -> Option<HeldMemory> {
        let more = |used: usize| fits(used).then(|| used.saturating_add(size_bytes));
        self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(HeldMemory { pool: Some(Arc::clone(self)), size_bytes })
    }
}

/// Memory of a [`TextMemory`] that is given back when this is dropped.
#[derive(Debug, Default)]
pub struct HeldMemory {
    pool: Option<Arc<TextMemory>>,
    size_bytes: usize,
}

impl Drop for HeldMemory {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.used_bytes.fetch_sub(self.size_bytes, Ordering::Relaxed);
        }
    }
}
