// SPDX-License-Identifier: MIT
//! One message for an input that fails, not one for each of hundreds that lead to its smallest form.

use std::cell::Cell;
use std::panic;
use std::sync::Once;

thread_local! {
    static MUTATES: Cell<bool> = const { Cell::new(false) };
}

/// While this thread mutates, a panic of it is not shown where it happens: it is in the result.
pub(crate) fn while_mutating(mutates: bool) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let shown = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !MUTATES.get() {
                shown(info);
            }
        }));
    });
    MUTATES.set(mutates);
}
