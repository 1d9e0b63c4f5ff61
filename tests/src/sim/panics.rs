//! Panics that are looked for: of a planted bug a panic is a find like any other, and needs no backtrace.

use std::{
    cell::{Cell, RefCell},
    panic::{self, UnwindSafe},
    sync::Once,
};

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Notes where a panic of this thread came about, and prints nothing, while something runs. Panics of other threads,
/// and of this one before and after, are told as ever.
pub fn quietly<T>(run: impl FnOnce() -> T) -> T {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let told = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if IS_QUIET.get() {
                PLACE.set(info.location().map(ToString::to_string));
            } else {
                told(info);
            }
        }));
    });
    /// Ends the quiet, also when what runs ends by a panic.
    struct Quiet;
    impl Drop for Quiet {
        fn drop(&mut self) {
            IS_QUIET.set(false);
        }
    }
    IS_QUIET.set(true);
    let _quiet = Quiet;
    run()
}

/// What something gives, or what it panicked with; and where, if nobody was told.
///
/// # Errors
/// The panic.
pub fn caught<T>(run: impl FnOnce() -> T + UnwindSafe) -> Result<T, String> {
    PLACE.set(None);
    panic::catch_unwind(run).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        PLACE.take().map_or_else(|| text.to_owned(), |place| format!("{text}, at {place}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_panic_is_told_with_its_place_by_whoever_catches_it() {
        let quiet = quietly(|| caught(|| -> () { panic!("planted") })).unwrap_err();
        assert!(quiet.starts_with("planted, at ") && quiet.contains("panics.rs:"), "{quiet}");
        assert!(!IS_QUIET.get(), "it is over");
        let told = caught(|| -> () { panic!("ordinary") }).unwrap_err();
        assert_eq!(told, "ordinary");
    }
}
