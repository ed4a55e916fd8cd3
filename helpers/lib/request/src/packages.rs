//! Whether a package manager is at work.

use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use step::{Context, Root};

/// What a package manager locks while it works, with a record lock over the whole file: dpkg and
/// apt, rpm and dnf.
const LOCKS: [&str; 4] = [
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/lock",
    "/usr/lib/sysimage/rpm/.rpm.lock",
    "/var/lib/rpm/.rpm.lock",
];

/// How often the locks are looked at.
const INTERVAL: Duration = Duration::from_millis(50);

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

/// Waits until no package manager is at work, and says for whom it waits. Who is still at work after `time`.
///
/// # Errors
/// A lock cannot be asked for.
pub fn wait_for_packages(context: &Context, time: Duration) -> Result<Option<Busy>> {
    until_free(&context.root, time, |busy| {
        let waiting = format!("waiting for the package manager (process {})", busy.pid);
        context.info(&waiting);
        context.status(waiting);
    })
}

/// Who is still at work after `time`; nobody once nobody is. `said` is called for each that is waited for.
fn until_free(root: &Root, time: Duration, mut said: impl FnMut(&Busy)) -> Result<Option<Busy>> {
    let end = Instant::now() + time;
    let mut known = None;
    loop {
        let Some(busy) = package_manager(root)? else { return Ok(None) };
        if Instant::now() >= end {
            return Ok(Some(busy));
        }
        if known != Some(busy.pid) {
            said(&busy);
            known = Some(busy.pid);
        }
        std::thread::sleep(INTERVAL);
    }
}

/// The process that holds a write lock on `path`. A read lock means nothing: whoever can read rpm's lock file, as
/// every user can, can take one.
fn holder(path: &Path) -> Result<Option<i32>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    let mut lock = libc::flock {
        // What a write lock of somebody else would be in the way of, and a read lock not.
        l_type: libc::F_RDLCK as i16,
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
    fn a_read_lock_is_no_package_manager() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let mut child = std::process::Command::new("python3")
            .args(["-c", "import fcntl,sys\nf=open(sys.argv[1])\nfcntl.lockf(f,fcntl.LOCK_SH)\nprint(flush=True)\nsys.stdin.read()"])
            .arg(file.path())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("starts");
        let output = child.stdout.as_mut().expect("is piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut String::new()).expect("reads");
        assert_eq!(holder(file.path()).expect("asks"), None);
        drop(child.stdin.take());
        child.wait().expect("ends");
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

    #[test]
    fn it_is_waited_for_as_long_as_there_is_time() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let lock = root.path("/var/lib/dpkg/lock");
        std::fs::create_dir_all(lock.parent().expect("has a parent")).expect("creates");
        std::fs::write(&lock, "").expect("writes");
        let mut waited_for = Vec::new();
        let mut wait = |time| until_free(&root, time, |busy| waited_for.push(busy.pid)).expect("asks");
        assert_eq!(wait(Duration::ZERO), None);
        // A process does not see its own record locks. This one gives it back when it is told to.
        let mut child = std::process::Command::new("python3")
            .arg("-c")
            .arg("import fcntl,sys\nf=open(sys.argv[1],'w')\nfcntl.lockf(f,fcntl.LOCK_EX)\nprint(flush=True)\nsys.stdin.read()")
            .arg(&lock)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("starts");
        let pid = child.id() as i32;
        let output = child.stdout.as_mut().expect("is piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut String::new()).expect("reads");
        assert_eq!(wait(3 * INTERVAL).map(|busy| busy.pid), Some(pid));
        let stdin = child.stdin.take();
        let release = std::thread::spawn(move || {
            std::thread::sleep(3 * INTERVAL);
            drop(stdin);
        });
        assert_eq!(wait(Duration::from_secs(60)), None);
        assert_eq!(waited_for, [pid, pid]);
        release.join().expect("ends");
        child.wait().expect("ends");
    }
}
