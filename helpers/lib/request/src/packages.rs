// SPDX-License-Identifier: MIT
//! Whether a package manager is at work.

use std::fmt;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use step::{Context, Root};

/// Who holds the lock that is a file: each package manager has its own way to lock.
type Holder = fn(&Root, &Path) -> Result<Option<i32>>;

/// What a package manager locks while it works, and how: see the functions.
const LOCKS: [(&str, Holder); 6] = [
    // apt and unattended-upgrades hold this from start to end, and the next one while dpkg runs: once a step.
    ("/var/lib/dpkg/lock-frontend", record_lock),
    ("/var/lib/dpkg/lock", record_lock),
    // zypper locks this from start to end, and rpm's once for each package.
    ("/run/zypp.pid", pid_file),
    ("/usr/lib/sysimage/rpm/.rpm.lock", record_lock),
    ("/var/lib/rpm/.rpm.lock", record_lock),
    ("/var/lib/pacman/db.lck", open_file),
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
    for (lock, holder) in LOCKS {
        let lock = root.path(lock);
        if let Some(pid) = holder(root, &lock)? {
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

/// What is still at work after `time`; nothing once none is. `said` is called for each that is waited for.
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

/// As dpkg and rpm do: the process that holds a write lock on `path`. A read lock means
/// nothing: each user can read rpm's lock file, and so can take one.
fn record_lock(_root: &Root, path: &Path) -> Result<Option<i32>> {
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

/// As libzypp does: the file names the process, and is stale where there is none. A process that is dead and not
/// waited for has no command line.
fn pid_file(root: &Root, path: &Path) -> Result<Option<i32>> {
    let mut text = String::new();
    match File::open(path) {
        // A number, and no more of what may be there.
        Ok(file) => {
            file.take(32).read_to_string(&mut text).with_context(|| format!("read {}", path.display()))?
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    let Some(pid) = text.trim().parse().ok().filter(|pid| *pid > 0) else { return Ok(None) };
    let alive = match fs::read(root.path(format!("/proc/{pid}/cmdline"))) {
        Ok(line) => !line.is_empty(),
        Err(error) if is_gone(&error) => false,
        Err(error) => return Err(error).with_context(|| format!("look at process {pid}")),
    };
    Ok(alive.then_some(pid))
}

/// As pacman does: the file is there, and pacman has it open. What a pacman that was killed has left is stale.
fn open_file(root: &Root, path: &Path) -> Result<Option<i32>> {
    let lock = match fs::metadata(path) {
        Ok(lock) => (lock.dev(), lock.ino()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("look at {}", path.display())),
    };
    let processes = root.path("/proc");
    for entry in fs::read_dir(&processes).with_context(|| format!("list {}", processes.display()))? {
        let entry = entry.with_context(|| format!("list {}", processes.display()))?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let files = entry.path().join("fd");
        let open = match fs::read_dir(&files) {
            Ok(open) => open,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error).with_context(|| format!("list {}", files.display())),
        };
        // One that was closed meanwhile is not the lock.
        let found = |file: fs::DirEntry| fs::metadata(file.path()).map(|file| (file.dev(), file.ino())).ok();
        if open.flatten().filter_map(found).any(|file| file == lock) {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

/// Whether a process has ended, by what its files in /proc say.
fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process that does `what` in Python with `path`, and then lives until its standard input is closed: record
    /// locks are a process's own and invisible to itself.
    fn process(what: &str, path: &Path) -> Child {
        let code =
            format!("import fcntl,os,sys\npath=sys.argv[1]\n{what}\nprint(flush=True)\nsys.stdin.read()");
        let mut child = Command::new("python3")
            .args(["-c", &code])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut output = BufReader::new(child.stdout.as_mut().expect("is piped"));
        output.read_line(&mut String::new()).expect("reads");
        child
    }

    fn end(mut child: Child) {
        drop(child.stdin.take());
        child.wait().expect("ends");
    }

    const WRITE_LOCK: &str = "f=open(path,'w');fcntl.lockf(f,fcntl.LOCK_EX)";

    /// Everything but the locks is the system's own.
    fn tree() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::os::unix::fs::symlink("/proc", directory.path().join("proc")).expect("links");
        let root = Root::at(directory.path());
        for (lock, _) in LOCKS {
            fs::create_dir_all(root.path(lock).parent().expect("has a parent")).expect("creates");
        }
        (directory, root)
    }

    #[test]
    fn each_package_manager_is_seen_by_its_own_kind_of_lock() {
        let (_directory, root) = tree();
        assert_eq!(package_manager(&root).expect("asks"), None);
        for (lock, _) in LOCKS {
            let path = root.path(lock);
            let what = match lock {
                "/run/zypp.pid" => "open(path,'w').write(f'{os.getpid()}\\n')",
                "/var/lib/pacman/db.lck" => "f=os.open(path,os.O_WRONLY|os.O_CREAT|os.O_EXCL,0)",
                _ => WRITE_LOCK,
            };
            let child = process(what, &path);
            let busy = Busy { pid: child.id() as i32, lock: path };
            assert_eq!(package_manager(&root).expect("asks"), Some(busy), "{lock}");
            end(child);
            // The file is left, and no package manager is at work.
            assert!(root.path(lock).exists());
            assert_eq!(package_manager(&root).expect("asks"), None, "{lock}");
        }
    }

    #[test]
    fn a_read_lock_is_no_package_manager() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let child = process("f=open(path);fcntl.lockf(f,fcntl.LOCK_SH)", file.path());
        assert_eq!(record_lock(&Root::system(), file.path()).expect("asks"), None);
        end(child);
    }

    #[test]
    fn a_file_that_names_no_process_is_no_package_manager() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let mut dead = Command::new("true").spawn().expect("starts");
        dead.wait().expect("ends");
        let gone = dead.id().to_string();
        let long = "1".repeat(100);
        for text in ["", "\n", "0", "-1", "zypper", &long, &gone] {
            fs::write(file.path(), text).expect("writes");
            assert_eq!(pid_file(&Root::system(), file.path()).expect("asks"), None, "{text}");
        }
        // Ended, and not waited for yet.
        let mut zombie = Command::new("true").spawn().expect("starts");
        fs::write(file.path(), zombie.id().to_string()).expect("writes");
        let end = Instant::now() + Duration::from_secs(60);
        while pid_file(&Root::system(), file.path()).expect("asks").is_some() {
            assert!(Instant::now() < end, "a dead process is at work");
            std::thread::sleep(INTERVAL);
        }
        zombie.wait().expect("ends");
    }

    #[test]
    fn it_is_waited_for_as_long_as_there_is_time() {
        let (_directory, root) = tree();
        let lock = root.path("/var/lib/dpkg/lock");
        let mut waited_for = Vec::new();
        let mut wait = |time| until_free(&root, time, |busy| waited_for.push(busy.pid)).expect("asks");
        assert_eq!(wait(Duration::ZERO), None);
        let child = process(WRITE_LOCK, &lock);
        let pid = child.id() as i32;
        assert_eq!(wait(3 * INTERVAL).map(|busy| busy.pid), Some(pid));
        let release = std::thread::spawn(move || {
            std::thread::sleep(3 * INTERVAL);
            end(child);
        });
        assert_eq!(wait(Duration::from_secs(60)), None);
        assert_eq!(waited_for, [pid, pid]);
        release.join().expect("ends");
    }
}
