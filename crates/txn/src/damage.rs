//! Notes when the files of the engine in use turn out not to be what was written to them.
//!
//! Whoever reads or writes meets that: a transaction, apply, the flush, a snapshot. Each gets its error; and so that
//! none of them has to tell the others, the engine is wrapped by what notes it, once, for whoever can have the state
//! replaced. From then on the engine takes no batch and gives no new view: a batch over damaged pages could spoil what is
//! still sound of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustydb_env::sync::watch;
use rustydb_storage::engine::{
    BatchFiller, Direction, Durability, Engine, EngineError, EngineStats, EngineView, KeyRange, RowVisitor,
    Space,
};

/// What is known of the engine in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    /// The number of the engine in use.
    current: u64,
    /// What is wrong with it.
    reason: Option<String>,
}

/// Whether the engine in use is damaged. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Damage {
    known: Arc<watch::Sender<Known>>,
}

impl Damage {
    pub(crate) fn new() -> Damage {
        Damage { known: Arc::new(watch::channel(Known::default()).0) }
    }

    /// From here on another engine is in use, and nothing is known against it.
    pub(crate) fn begin(&self, number: u64) {
        self.known.send_replace(Known { current: number, reason: None });
    }

    /// What is wrong with the engine in use.
    pub(crate) fn reason(&self) -> Option<String> {
        self.known.borrow().reason.clone()
    }

    /// Ends when something is wrong with the engine in use, and says what.
    pub(crate) fn found(&self) -> impl Future<Output = String> + Send + use<> {
        let mut known = self.known.subscribe();
        async move {
            let _closed = known.wait_for(|known| known.reason.is_some()).await;
            let reason = known.borrow().reason.clone();
            match reason {
                Some(reason) => reason,
                // The store is gone, and nothing was found; or another engine is in use by now.
                None => std::future::pending().await,
            }
        }
    }

    /// Ends when nothing is known against the engine in use.
    pub(crate) async fn mended(&self) {
        let mut known = self.known.subscribe();
        let _closed = known.wait_for(|known| known.reason.is_none()).await;
    }

    /// An engine that is watched.
    pub(crate) fn watch(&self, number: u64, path: PathBuf, engine: Arc<dyn Engine>) -> Arc<dyn Engine> {
        Arc::new(Watched { engine, place: Place { number, path, damage: self.clone() } })
    }

    fn note(&self, number: u64, error: &EngineError) {
        self.known.send_if_modified(|known| {
            let is_first = known.current == number && known.reason.is_none();
            if is_first {
                known.reason = Some(error.to_string());
            }
            is_first
        });
    }
}

/// Which engine it is.
#[derive(Clone)]
struct Place {
    number: u64,
    path: PathBuf,
    damage: Damage,
}

impl Place {
    fn noting<T>(&self, result: Result<T, EngineError>) -> Result<T, EngineError> {
        if let Err(error) = &result
            && error.is_damage()
        {
            self.damage.note(self.number, error);
        }
        result
    }

    fn check(&self) -> Result<(), EngineError> {
        let known = self.damage.known.borrow();
        match &known.reason {
            Some(reason) if known.current == self.number => Err(damaged(&self.path, reason.clone())),
            _ => Ok(()),
        }
    }
}

fn damaged(path: &Path, reason: String) -> EngineError {
    EngineError::Damaged { path: path.to_path_buf(), source: format!("as was found before: {reason}").into() }
}

struct Watched {
    engine: Arc<dyn Engine>,
    place: Place,
}

impl Engine for Watched {
    fn view(&self) -> Result<Arc<dyn EngineView>, EngineError> {
        self.place.check()?;
        let view = self.place.noting(self.engine.view())?;
        Ok(Arc::new(WatchedView { view, place: self.place.clone() }))
    }

    fn write(&self, durability: Durability, fill: &mut BatchFiller<'_>) -> Result<(), EngineError> {
        self.place.check()?;
        self.place.noting(self.engine.write(durability, fill))
    }

    fn compact(&self) -> Result<bool, EngineError> {
        self.place.check()?;
        self.place.noting(self.engine.compact())
    }

    fn stats(&self) -> EngineStats {
        self.engine.stats()
    }
}

struct WatchedView {
    view: Arc<dyn EngineView>,
    place: Place,
}

impl EngineView for WatchedView {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.place.noting(self.view.get(space, key))
    }

    fn scan(
        &self,
        space: Space,
        range: KeyRange<'_>,
        direction: Direction,
        visit: &mut RowVisitor<'_>,
    ) -> Result<(), EngineError> {
        self.place.noting(self.view.scan(space, range, direction, visit))
    }
}
