//! A package manager that began after preflight had looked: it may be writing the same files.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use request::{Busy, package_manager};
use step::{Context, Root};

/// Half of what the unit has (TimeoutStartSec=): the installer needs the rest.
const BEFORE: Duration = Duration::from_secs(15 * 60);

/// What the way back waits (TimeoutStopSec= has to last for the files as well): the workloads are out until it
/// is done.
const BACK: Duration = Duration::from_secs(2 * 60);

/// How often the locks are looked at.
const INTERVAL: Duration = Duration::from_millis(100);

/// Waits until no package manager is at work, before another driver is put on disk.
///
/// # Errors
/// One has been at work all the time: no file was touched.
pub(crate) fn wait(context: &Context) -> Result<()> {
    match until_free(&context.root, BEFORE, |busy| say(context, busy))? {
        None => Ok(()),
        Some(busy) => bail!(
            "a package manager has been at work for {} minutes: {busy}; let it finish, then start again",
            BEFORE.as_secs() / 60
        ),
    }
}

/// The same on the way back, which has to go on in any case.
pub(crate) fn wait_a_little(context: &Context) {
    let goes_on = "the driver's files are put back nevertheless";
    match until_free(&context.root, BACK, |busy| say(context, busy)) {
        Ok(None) => {}
        Ok(Some(busy)) => context.warn(format!("a package manager is still at work, {goes_on}: {busy}")),
        Err(error) => {
            context.warn(format!("whether a package manager is at work is not known, {goes_on}: {error:#}"));
        }
    }
}

fn say(context: &Context, busy: &Busy) {
    let waiting = format!("waiting for the package manager (process {})", busy.pid);
    context.info(&waiting);
    context.status(waiting);
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn it_is_waited_for_as_long_as_there_is_time() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let lock = root.path("/var/lib/dpkg/lock");
        fs::create_dir_all(lock.parent().expect("has a parent")).expect("creates");
        fs::write(&lock, "").expect("writes");
        let mut waited_for = Vec::new();
        let mut wait = |time| until_free(&root, time, |busy| waited_for.push(busy.pid)).expect("asks");
        assert_eq!(wait(Duration::ZERO), None);
        // A process does not see its own record locks. This one gives it back when it is told to.
        let mut child = Command::new("python3")
            .arg("-c")
            .arg("import fcntl,sys\nf=open(sys.argv[1],'w')\nfcntl.lockf(f,fcntl.LOCK_EX)\nprint(flush=True)\nsys.stdin.read()")
            .arg(&lock)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let pid = child.id() as i32;
        BufReader::new(child.stdout.as_mut().expect("is piped"))
            .read_line(&mut String::new())
            .expect("reads");
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
