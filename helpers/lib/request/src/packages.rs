//! Whether a package manager is at work.

use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use step::Root;

/// What a package manager locks while it works, with a record lock over the whole file: dpkg and
/// apt, rpm and dnf.
const LOCKS: [&str; 4] = [
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/lock",
    "/usr/lib/sysimage/rpm/.rpm.lock",
    "/var/lib/rpm/.rpm.lock",
];

/// A package manager at work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Busy {
    /// Its process.
    pub pid: i32,
    /// What it has locked.
    pub lock: PathBuf,
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} has locked {}", self.pid, self.lock.display())
    }
}

/// The package manager that is at work, if there is one. Asking changes nothing: to wait in the kernel
/// would take the lock, and fail an apt that looks in that moment.
///
/// # Errors
/// A lock cannot be asked for.
pub fn package_manager(root: &Root) -> Result<Option<Busy>> {
    for lock in LOCKS.map(|path| root.path(path)) {
        if let Some(pid) = holder(&lock)? {
            return Ok(Some(Busy { pid, lock }));
        }
    }
    Ok(None)
}

/// The process that holds a write lock on `path`.
fn holder(path: &Path) -> Result<Option<i32>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_GETLK(&mut lock))
        .with_context(|| format!("ask who has locked {} (fd {})", path.display(), file.as_raw_fd()))?;
    Ok((lock.l_type != libc::F_UNLCK as i16).then_some(lock.l_pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_nobody_holds_is_free() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        assert_eq!(holder(file.path()).expect("asks"), None);
        assert_eq!(holder(Path::new("/no/such/lock")).expect("asks"), None);
    }

    #[test]
    fn the_process_that_holds_a_lock_is_named() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        // A record lock is the process's own and invisible to itself: another one has to hold it.
        let mut child = std::process::Command::new("python3")
            .args(["-c", "import fcntl,sys,time\nf=open(sys.argv[1],'w')\nfcntl.lockf(f,fcntl.LOCK_EX)\nprint('locked',flush=True)\nsys.stdin.read()"])
            .arg(file.path())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("starts");
        let mut line = String::new();
        std::io::BufRead::read_line(
            &mut std::io::BufReader::new(child.stdout.as_mut().expect("is piped")),
            &mut line,
        )
        .expect("reads");
        assert_eq!(holder(file.path()).expect("asks"), Some(child.id() as i32));
        drop(child.stdin.take());
        child.wait().expect("ends");
        assert_eq!(holder(file.path()).expect("asks"), None);
    }
}
