//! Ctrl-C: while a run trains, the first asks it to save and stop, the second stops at once.
//! Everywhere else there is nothing to save, and the first stops at once.

use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);
static SAVES: AtomicBool = AtomicBool::new(false);

/// Starts to listen.
pub fn watch() {
    let heard = ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::SeqCst) || !SAVES.load(Ordering::SeqCst) {
            eprintln!("interrupted");
            std::process::exit(130);
        }
        eprintln!("stopping after this step and saving; Ctrl-C again stops at once");
    });
    if let Err(error) = heard {
        eprintln!("warning: Ctrl-C will not save ({error})");
    }
}

/// Says whether what is computed from now on looks at [`asked`] and saves.
pub fn saves(yes: bool) {
    SAVES.store(yes, Ordering::SeqCst);
}

/// Whether someone has asked to stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}
