// SPDX-License-Identifier: MIT
//! Whether two tasks, or two descriptors, share one thing in the kernel.

#![allow(unsafe_code)]

use std::cmp::Ordering;

/// From `linux/kcmp.h`: compare two open files.
const KCMP_FILE: libc::c_long = 0;
/// From `linux/kcmp.h`: compare two tables of open files.
const KCMP_FILES: libc::c_long = 2;

/// Compares the file tables of two tasks. `None` where the kernel does not tell: built without
/// kcmp, forbidden by a seccomp filter, or a task that is gone.
pub(crate) fn same_file_table(one: i32, other: i32) -> Option<bool> {
    compare_file_tables(one, other).map(|order| order == Ordering::Equal)
}

/// Orders the file tables of two tasks, likewise.
pub(crate) fn compare_file_tables(one: i32, other: i32) -> Option<Ordering> {
    kcmp(one, other, KCMP_FILES, 0, 0)
}

/// Orders two descriptors by the open file behind them, in an order that means nothing but is
/// total; equal for `dup`ed and inherited ones.
pub(crate) fn compare_files(one: (i32, i32), other: (i32, i32)) -> Option<Ordering> {
    kcmp(one.0, other.0, KCMP_FILE, one.1, other.1)
}

fn kcmp(one: i32, other: i32, what: libc::c_long, first: i32, second: i32) -> Option<Ordering> {
    // SAFETY: kcmp takes five numbers, reads and writes no memory of ours.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kcmp,
            libc::c_long::from(one),
            libc::c_long::from(other),
            what,
            libc::c_long::from(first),
            libc::c_long::from(second),
        )
    };
    match result {
        0 => Some(Ordering::Equal),
        1 => Some(Ordering::Less),
        2 => Some(Ordering::Greater),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_shares_its_table_with_itself() {
        let me = rustix::process::getpid().as_raw_nonzero().get();
        // A kernel or a sandbox without kcmp is a kernel that does not tell.
        assert_ne!(same_file_table(me, me), Some(false));
        assert_ne!(compare_files((me, 0), (me, 0)), Some(Ordering::Less));
    }
}
