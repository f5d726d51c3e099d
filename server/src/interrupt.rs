//! Ctrl-C: while a run is on its way, the first cancels it, so that it saves and stops; the second
//! stops at once. Everywhere else there is nothing to save, and the first stops at once.

use seedling_core::cancel::CancelToken;
use std::sync::{Mutex, PoisonError};

static RUN: Mutex<Option<CancelToken>> = Mutex::new(None);

/// Starts to listen.
pub fn watch() {
    let heard = ctrlc::set_handler(|| {
        let run = RUN.lock().unwrap_or_else(PoisonError::into_inner);
        match &*run {
            Some(cancel) if !cancel.is_canceled() => {
                eprintln!("stopping and saving; Ctrl-C again stops at once");
                cancel.cancel();
            }
            _ => {
                eprintln!("interrupted");
                std::process::exit(130);
            }
        }
    });
    if let Err(error) = heard {
        eprintln!("warning: Ctrl-C will not save ({error})");
    }
}

/// Says what the next Ctrl-C cancels.
pub fn cancels(run: Option<CancelToken>) {
    *RUN.lock().unwrap_or_else(PoisonError::into_inner) = run;
}
