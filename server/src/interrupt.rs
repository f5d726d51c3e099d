//! Ctrl-C: the first asks the run to save and stop, the second stops at once.

use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Starts to listen.
pub fn watch() {
    let heard = ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!("stopping after this step and saving; Ctrl-C again stops at once");
    });
    if let Err(error) = heard {
        eprintln!("warning: Ctrl-C will not save ({error})");
    }
}

/// Whether someone has asked to stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}
