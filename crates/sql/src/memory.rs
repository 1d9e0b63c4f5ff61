//! The memory that all statements of a node share, for what they keep and for what is made of their text.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{SqlError, SqlState};

/// What all statements of a node may keep in memory together: sorts, hash tables and materialisations, and the trees and
/// plans of large and of prepared statements.
#[derive(Debug)]
pub struct WorkMemory {
    size_bytes: usize,
    used_bytes: AtomicUsize,
}

impl WorkMemory {
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

    /// Takes memory that is given back when the answer is dropped.
    ///
    /// # Errors
    /// 53200 when there is not so much left.
    pub fn hold(self: &Arc<Self>, size_bytes: usize) -> Result<HeldMemory, SqlError> {
        self.take(size_bytes)?;
        Ok(HeldMemory { pool: Some(Arc::clone(self)), size_bytes })
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
            .with_hint("Try again when fewer statements run or are prepared, or raise memory.budget."))
    }

    /// Gives back what was taken.
    pub(crate) fn give_back(&self, size_bytes: usize) {
        self.used_bytes.fetch_sub(size_bytes, Ordering::Relaxed);
    }
}

/// Memory of a [`WorkMemory`] that is given back when this is dropped.
#[derive(Debug, Default)]
pub struct HeldMemory {
    pool: Option<Arc<WorkMemory>>,
    size_bytes: usize,
}

impl Drop for HeldMemory {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.give_back(self.size_bytes);
        }
    }
}
