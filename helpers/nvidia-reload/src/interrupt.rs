// SPDX-License-Identifier: MIT
//! Ctrl-C, noticed without a signal handler.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::{SigSet, Signal};

/// What an interrupted command exits with, as shells do: 128 and SIGINT.
pub const INTERRUPTED: u8 = 130;

/// Whether somebody asked this command to end.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    running: Arc<AtomicBool>,
    happened: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes SIGINT and SIGTERM from now on. To be called before any thread is started: they
    /// inherit what is blocked.
    pub fn watch() -> Self {
        let interrupt = Self::default();
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        // If they cannot be taken they end the command at once, which is harmless: a run goes on.
        if signals.thread_block().is_ok() {
            let watched = interrupt.clone();
            thread::spawn(move || {
                while signals.wait().is_ok() {
                    // Before a run there is nothing to tell; a second signal means it.
                    if !watched.running.load(Ordering::SeqCst)
                        || watched.happened.swap(true, Ordering::SeqCst)
                    {
                        std::process::exit(INTERRUPTED.into());
                    }
                }
            });
        }
        interrupt
    }

    /// A run begins: from now on the first signal is noted, and the run's end is still shown.
    pub fn run_begins(&self) {
        self.running.store(true, Ordering::SeqCst);
    }

    /// Whether a signal came since the run began.
    pub fn happened(&self) -> bool {
        self.happened.load(Ordering::SeqCst)
    }
}
