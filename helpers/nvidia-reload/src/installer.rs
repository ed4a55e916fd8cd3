// SPDX-License-Identifier: MIT
//! NVIDIA's installer file: whether it may be run, what it is, and modules for the running kernel in it.
//!
//! Such a file is a shell script with an archive behind it (makeself). What it says of itself it says by
//! running, so who owns it is looked at before anything else.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use files::{OwnerError, check_owner};
use step::{Exit, Root};

use crate::fault::{Fault, Result};

/// Where it is unpacked and built, by root alone.
const WORK: &str = "/var/lib/nvidia-reload/build";

/// The installer's log of a build: that of the install itself is the installer's own.
const LOG: &str = "build.log";

/// How long the file may take to check itself, half a gigabyte, or to say what it is.
const ANSWER: Duration = Duration::from_secs(5 * 60);

/// How long the modules may take to build.
const BUILD: Duration = Duration::from_secs(45 * 60);

/// The most that it may print.
const PRINTED: usize = 1 << 20;

/// How much of a log is shown.
const SHOWN: usize = 12;

/// What an installer file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installer {
    /// The file, without links on the way to it.
    pub path: PathBuf,
    /// The driver's version.
    pub version: String,
    /// What it has unpacked, in bytes.
    pub size: u64,
}

/// Looks at `file`, and runs nothing before it is sure whose it is.
///
/// # Errors
/// It cannot be used: nothing was touched.
pub fn check(file: &Path) -> Result<Installer> {
    let path = file.canonicalize().map_err(|error| {
        Fault::refused(format!("cannot find {}", file.display()), "give the path of NVIDIA's .run file")
            .because(&error)
    })?;
    is_safe(&path)?;
    is_archive(&path)?;
    let shown = path.display();
    ask(&path, "--check").map_err(|fault| Fault {
        error: format!("{shown} is damaged: its own check fails"),
        remedy: "download it again".into(),
        ..fault
    })?;
    let info = ask(&path, "--info")?;
    let (machine, version, size) = parse(&info).ok_or_else(|| {
        Fault::refused(format!("{shown} is no driver of NVIDIA: it says {:?}", info.trim()), "")
    })?;
    let here = machine_name()?;
    if machine != here {
        return Err(Fault::refused(
            format!("{shown} is for {machine}, and this machine is {here}"),
            "download the driver for this machine",
        ));
    }
    Ok(Installer { path, version, size })
}

fn machine_name() -> Result<String> {
    let name = rustix::system::uname();
    Ok(name.machine().to_string_lossy().into_owned())
}

/// Only root could have written the file, or put another in its place.
fn is_safe(path: &Path) -> Result<()> {
    match check_owner(path) {
        Ok(()) => {}
        Err(OwnerError::Untrusted(found)) => return Err(Fault::refused(found.what(), found.remedy())),
        Err(OwnerError::Unknown { path, source }) => {
            let error = format!("cannot look at {}", path.display());
            return Err(Fault::refused(error, "").because(&source));
        }
    }
    if !path.is_file() {
        return Err(Fault::refused(
            format!("{} is no regular file", path.display()),
            "give the path of NVIDIA's .run file",
        ));
    }
    Ok(())
}

/// What makeself writes at the start of an archive.
fn is_archive(path: &Path) -> Result<()> {
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(8192).read_to_end(&mut start))
        .map_err(|error| Fault::refused(format!("cannot read {}", path.display()), "").because(&error))?;
    let text = String::from_utf8_lossy(&start);
    if text.starts_with("#!") && text.lines().any(|line| line.starts_with("CRCsum=")) {
        return Ok(());
    }
    Err(Fault::refused(
        format!("{} is no self-extracting archive", path.display()),
        "give the path of NVIDIA's .run file",
    ))
}

/// What the file answers.
fn ask(path: &Path, question: &str) -> Result<String> {
    let refused = || Fault::refused(format!("{} {question} fails", path.display()), "download it again");
    let mut command = Command::new("sh");
    command.arg(path).arg(question).current_dir("/");
    let (status, output) = bounded::child_with_errors(&mut command, Instant::now() + ANSWER, PRINTED)
        .map_err(|error| refused().because(&error))?;
    let text = String::from_utf8_lossy(&output).into_owned();
    if status.success() {
        return Ok(text);
    }
    let mut fault = refused();
    fault.causes = text.lines().map(str::to_owned).collect();
    Err(fault)
}

/// Machine, version and unpacked size in what `--info` prints.
fn parse(info: &str) -> Option<(String, String, u64)> {
    let field = |name: &str| {
        info.lines()
            .find_map(|line| line.trim().strip_prefix(name)?.trim_start().strip_prefix(": ").map(str::trim))
    };
    // `NVIDIA Accelerated Graphics Driver for Linux-x86_64 575.57.08`
    let (_, named) = field("Identification")?.split_once(" for Linux-")?;
    let (machine, version) = named.split_once(' ')?;
    let version = version.split(' ').next()?;
    let is_version =
        |text: &str| text.contains('.') && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let size: u64 = field("Uncompressed size")?.strip_suffix("KB")?.trim().parse().ok()?;
    is_version(version).then(|| (machine.to_owned(), version.to_owned(), size.saturating_mul(1024)))
}

/// Builds modules for the running kernel and returns the file that has them: a second archive, made by the
/// first, which has only to link them when it is run. So what can fail for want of a compiler, headers or a
/// kernel that the driver knows fails here.
///
/// # Errors
/// They cannot be built: nothing was touched.
pub fn build(root: &Root, installer: &Installer, arguments: &[String]) -> Result<PathBuf> {
    let work = root.path(WORK);
    clear(root)?;
    fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(&work)
        .map_err(|error| Fault::refused(format!("cannot create {}", work.display()), "").because(&error))?;
    // Unpacked, and packed again.
    has_room(&work, installer.size.saturating_mul(2))?;
    // The old files and the new ones, side by side for a moment.
    has_room(&root.path("/usr/lib"), installer.size)?;
    let mut command = Command::new("sh");
    command
        .arg(&installer.path)
        .args(["--add-this-kernel", "--silent", "--tmpdir"])
        .arg(&work)
        .arg("--log-file-name")
        .arg(work.join(LOG))
        .args(arguments)
        .current_dir(&work);
    let (status, output) = bounded::child_with_errors(&mut command, Instant::now() + BUILD, PRINTED)
        .map_err(|error| {
            let log = work.join(LOG);
            Fault::refused(
                format!(
                    "{} --add-this-kernel: no modules were built; nothing was touched",
                    installer.path.display()
                ),
                format!("{} shows how far it came", log.display()),
            )
            .because(&error)
        })?;
    if !status.success() {
        let log = fs::read_to_string(work.join(LOG)).unwrap_or_default();
        let said = String::from_utf8_lossy(&output).into_owned();
        let mut fault = Fault::refused(
            format!("no modules could be built for the running kernel ({status}); nothing was touched"),
            format!("{} has the whole story", work.join(LOG).display()),
        );
        fault.causes = end(if log.trim().is_empty() { &said } else { &log });
        return Err(fault);
    }
    built(&work)
}

/// The one archive in `work`.
fn built(work: &Path) -> Result<PathBuf> {
    let refused = |error: String| Fault::refused(format!("{error}; nothing was touched"), "");
    let entries = fs::read_dir(work)
        .map_err(|error| refused(format!("cannot read {}", work.display())).because(&error))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "run"))
        .collect();
    match (found.pop(), found.is_empty()) {
        (Some(path), true) => Ok(path),
        _ => Err(refused(format!("the build left no single .run file in {}", work.display()))),
    }
}

/// Removes what was built.
///
/// # Errors
/// It cannot be removed.
pub fn clear(root: &Root) -> Result<()> {
    let work = root.path(WORK);
    match fs::remove_dir_all(&work) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Fault::new(Exit::Failed, format!("cannot remove {}", work.display()), "").because(&error))
        }
        _ => Ok(()),
    }
}

fn has_room(path: &Path, bytes: u64) -> Result<()> {
    let free = rustix::fs::statvfs(path)
        .map_err(|error| Fault::refused(format!("cannot look at {}", path.display()), "").because(&error))
        .map(|data| data.f_bavail.saturating_mul(data.f_frsize))?;
    if free >= bytes {
        return Ok(());
    }
    Err(Fault::refused(
        format!("{} has {} MiB free, and {} are needed", path.display(), free >> 20, bytes >> 20),
        "make room there; nothing was touched",
    ))
}

/// The end of a log.
pub fn end(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(SHOWN)..].iter().map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_says_of_itself() {
        let info = "\n  Identification    : NVIDIA Accelerated Graphics Driver for Linux-x86_64 575.57.08\n  Target directory  : NVIDIA-Linux-x86_64-575.57.08\n  Uncompressed size : 1522661 KB\n";
        assert_eq!(parse(info), Some(("x86_64".into(), "575.57.08".into(), 1_522_661 * 1024)));
        let arm64 = info.replace("x86_64", "aarch64");
        assert_eq!(parse(&arm64).map(|(machine, ..)| machine).as_deref(), Some("aarch64"));
        for bad in [
            info.replace("575.57.08", "../x"),
            info.replace(" for Linux-", " "),
            info.replace("1522661", "many"),
            String::new(),
        ] {
            assert_eq!(parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_file_that_others_can_write_is_never_run() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("a.run");
        let proof = directory.path().join("ran");
        fs::write(&path, format!("#!/bin/sh\nCRCsum=1\ntouch {}\n", proof.display())).expect("writes");
        let mode = |mode| {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("sets");
        };
        for bad in [0o666, 0o775, 0o757] {
            mode(bad);
            let fault = check(&path).expect_err("is refused");
            assert_eq!(fault.exit, 3);
            assert!(!proof.exists(), "{bad:o}");
        }
        mode(0o755);
        fs::write(&path, "#!/bin/sh\ntouch ran\n").expect("writes");
        assert!(check(&path).is_err());
        assert!(check(directory.path()).is_err());
        assert!(check(&directory.path().join("none")).is_err());
        assert!(!proof.exists());
    }

    #[test]
    fn room_is_asked_for_before_it_is_used() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        has_room(directory.path(), 1).expect("has one byte");
        assert_eq!(has_room(directory.path(), u64::MAX).expect_err("has not").exit, 3);
    }
}
