// SPDX-License-Identifier: MIT
//! The owner of the user namespace of a process.

#![allow(unsafe_code)]

use crate::process::Process;
use crate::walk::open_dir;
use rustix::fd::AsRawFd;
use rustix::fs::{Mode, OFlags, openat};
use step::Root;

/// `NS_GET_OWNER_UID` of the kernel's `linux/nsfs.h`.
const NS_GET_OWNER_UID: libc::Ioctl = 0xb704;

/// Whether process `pid` is a user's: run by that user, or in a user namespace that the user made, as the
/// processes of containers of a user's own engine are.
pub fn is_of_user(root: &Root, pid: i32, uid: u32) -> bool {
    let process = open_dir(rustix::fs::CWD, root.path("/proc")).and_then(|proc| Process::open(proc, pid));
    let Ok(process) = process else { return false };
    process.uid() == Some(uid) || owner(&process) == Some(uid)
}

fn owner(process: &Process) -> Option<u32> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = openat(&process.dir, "ns/user", flags, Mode::empty()).ok()?;
    let mut uid: libc::uid_t = 0;
    // SAFETY: this request writes one uid_t to where the argument points, which lives here. On a file
    // that is no namespace it is unknown, and writes nothing.
    let result = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_OWNER_UID, &raw mut uid) };
    (result == 0).then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_of_its_user() {
        let me = i32::try_from(std::process::id()).expect("a pid");
        let root = Root::system();
        assert!(is_of_user(&root, me, rustix::process::geteuid().as_raw()));
        assert!(!is_of_user(&root, me, 54_321));
        assert!(!is_of_user(&root, 0, 54_321));
    }
}
