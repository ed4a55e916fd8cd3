// SPDX-License-Identifier: MIT
//! What keeps NVML from changing the machine while it is only asked.
//!
//! NVML loads what it misses: as root it runs modprobe for nvidia and nvidia_uvm, as anybody else
//! nvidia-modprobe, which is set-user-id root; and both make device nodes or correct their modes. Opening
//! a node has the same effect where its driver is not loaded, for each process: then the kernel itself runs
//! modprobe. So NVML is started only while nvidia is loaded, and in a process that can neither run
//! a program nor load a module nor make, change or remove a file's name or mode.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Where the kernel says how far a module is.
const DRIVER: &str = "/sys/module/nvidia/initstate";

/// Takes from this process, for good, what would let NVML change the machine.
///
/// # Errors
/// The kernel does not take the filter: then NVML must not be asked.
pub fn only_look() -> Result<()> {
    let forbidden = [
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_mknodat,
        libc::SYS_unlinkat,
        libc::SYS_mkdirat,
        libc::SYS_fchmod,
        libc::SYS_fchmodat,
        libc::SYS_fchown,
        libc::SYS_fchownat,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_mknod,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_unlink,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_mkdir,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_chmod,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_chown,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_lchown,
    ];
    let rules: BTreeMap<i64, _> = forbidden.into_iter().map(|call| (call, Vec::new())).collect();
    let architecture = std::env::consts::ARCH.try_into().context("no filter for this architecture")?;
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture)
        .and_then(BpfProgram::try_from)
        .context("build the system call filter")?;
    // Sets no_new_privs too.
    seccompiler::apply_filter(&filter).context("set the system call filter")
}

/// Whether the driver is loaded, so that asking NVML loads nothing.
pub(crate) fn is_loaded() -> bool {
    is_live(Path::new(DRIVER))
}

fn is_live(state: &Path) -> bool {
    fs::read_to_string(state).is_ok_and(|state| state.trim_end() == "live")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use std::process::Command;

    #[test]
    fn who_only_looks_runs_no_program_and_changes_no_file() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("file");
        fs::write(&file, "x").expect("writes");
        // The filter is a thread's own.
        let looked = std::thread::spawn({
            let file = file.clone();
            move || {
                only_look().expect("takes the filter");
                let run = Command::new("/bin/true").status().map(|_| ());
                (run, fs::remove_file(&file), fs::create_dir(file.with_extension("d")), fs::read(&file))
            }
        });
        let (run, removed, made, read) = looked.join().expect("ends");
        for refused in [run, removed, made] {
            assert_eq!(refused.expect_err("must be refused").kind(), ErrorKind::PermissionDenied);
        }
        assert_eq!(read.expect("reads"), b"x");
        Command::new("/bin/true").status().expect("others go on");
    }

    #[test]
    fn only_a_live_module_is_loaded() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let state = directory.path().join("initstate");
        assert!(!is_live(&state));
        for (text, live) in [("live\n", true), ("coming\n", false), ("going\n", false)] {
            fs::write(&state, text).expect("writes");
            assert_eq!(is_live(&state), live);
        }
    }
}
