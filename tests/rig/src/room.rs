// SPDX-License-Identifier: MIT
//! Debian's programs without a change to the host: packages of the machine's own suite, unpacked
//! into a folder with all that they depend on. A program runs from there by the folder's own
//! dynamic loader, and is a process of the host as any other (`/dev/kvm`, paths, rights); what looks
//! for its files under fixed names runs with the folder as its root.

#![allow(unsafe_code)]

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, chroot};

use crate::apt::{self, PrivateApt};
use crate::cache::{Cache, Key, Stage};
use crate::command::run_logged;
use crate::host::require_root;
use crate::stages::{Distro, NotToday, checkout, recipe};

/// The stage's folder with the files.
pub const ROOT: &str = "root";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// What a shell script expects anywhere, and no package depends on.
const ESSENTIAL: &[&str] = &[
    "base-files",
    "base-passwd",
    "bash",
    "coreutils",
    "dash",
    "diffutils",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "libc-bin",
    "mount",
    "sed",
    "tar",
    "util-linux",
    "xz-utils",
];
/// How the host reaches mirrors by name, and whom it trusts: the same inside.
const OF_THE_HOST: &[&str] = &[
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/ssl",
    "/etc/apt/auth.conf.d",
    "/etc/apt/keyrings",
    "/etc/apt/trusted.gpg.d",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/usr/share/keyrings",
];

/// What could not be had from Debian's archive: what needs it is skipped, by name.
#[derive(Debug)]
pub struct NotHad(pub &'static str);

impl std::fmt::Display for NotHad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} cannot be had from Debian's archive", self.0)
    }
}

/// A folder of Debian's files.
#[derive(Debug, Clone)]
pub struct Room(Stage);

impl Room {
    /// These packages, unpacked: no script of theirs has run.
    pub fn unpacked(cache: &Cache, kind: &str, what: &str, packages: &[&str]) -> Result<Room> {
        Room::of_suite(apt::SUITE, &[], cache, kind, what, packages)
    }

    /// The same of Debian testing, with packages of arm64 among them (`name:arm64`); [`NotToday`] is in the error
    /// where they cannot be had.
    pub fn of_testing(cache: &Cache, kind: &str, what: &str, packages: &[&str]) -> Result<Room> {
        Room::of_suite(Distro::Forky.suite(), &["arm64"], cache, kind, what, packages)
    }

    fn of_suite(
        suite: &str,
        foreign: &[&str],
        cache: &Cache,
        kind: &str,
        what: &str,
        packages: &[&str],
    ) -> Result<Room> {
        let names: Vec<String> = [packages, ESSENTIAL].concat().into_iter().map(str::to_owned).collect();
        let key = Key::new("room 1").with(suite).with(names.join(" ")).with_files(&recipe("unpack.sh"))?;
        let stage = cache.get(kind, what, key, &[], |dir, work| {
            require_root()?;
            let log = cache.log(kind);
            let scratch = cache.scratch()?;
            let packages = PrivateApt::set_up_for(scratch.path(), &[suite], foreign, work, &log)
                .and_then(|apt| apt.download_with_dependencies(&names, work, &log));
            let packages =
                if suite == apt::SUITE { packages? } else { packages.context(NotToday(Distro::Forky))? };
            let mut unpack = Command::new("bash");
            run_logged(unpack.arg(recipe("unpack.sh")).arg(dir.join(ROOT)).args(packages), work, &log)
        })?;
        Ok(Room(stage))
    }

    /// A root file system that is one already.
    pub fn in_stage(stage: Stage) -> Room {
        Room(stage)
    }

    /// Where its files are.
    pub fn root(&self) -> PathBuf {
        self.0.file(ROOT)
    }

    /// A program, by the room's own loader and libraries.
    pub fn command(&self, program: &str) -> Command {
        let [loader, arguments @ ..] = self.words(program);
        let mut command = Command::new(loader);
        command.args(arguments);
        command
    }

    /// The same for a shell.
    pub fn shell(&self, program: &str) -> Result<String> {
        let words = self.words(program).map(PathBuf::into_os_string).map(|word| word.into_string().ok());
        let words: Option<Vec<String>> = words.into_iter().collect();
        let words = words.context("the cache's path is not UTF-8")?;
        Ok(shlex::try_join(words.iter().map(String::as_str))?)
    }

    fn words(&self, program: &str) -> [PathBuf; 4] {
        let root = self.root();
        let program = ["usr/bin", "usr/sbin"].map(|folder| root.join(folder).join(program));
        let program = program.iter().find(|path| path.exists()).unwrap_or(&program[0]).clone();
        // Not by lib64, a link that leads to the host's own loader, which is of another libc.
        let loader = root.join(LIBRARIES).join("ld-linux-x86-64.so.2");
        [loader, "--library-path".into(), root.join(LIBRARIES), program]
    }

    /// QEMU, with its firmware and its modules.
    pub fn qemu(&self) -> Command {
        let mut command = self.command("qemu-system-x86_64");
        for firmware in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(self.root().join(firmware));
        }
        command.env("QEMU_MODULE_DIR", self.root().join(LIBRARIES).join("qemu"));
        command
    }

    /// A program with the room as its root, where the cache, this checkout and `shared` have their
    /// own places.
    pub fn inside(&self, cache: &Cache, shared: &[&Path], program: &str) -> Result<Command> {
        let checkout = fs::canonicalize(checkout())?;
        let mut places: Vec<&Path> = OF_THE_HOST.iter().map(Path::new).collect();
        places.extend([cache.root(), &checkout]);
        places.extend(shared);
        let mut command = enter(&self.root(), &places, program.as_ref())?;
        command
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            // Of their own accord some would fill /tmp, which may be small.
            .env("TMPDIR", cache.scratch_root()?);
        Ok(command)
    }
}

/// A program with another root, where `shared` have the places that they have here: in a mount namespace
/// of its own, and with no command of a host that may not have it.
pub fn enter(root: &Path, shared: &[&Path], program: &Path) -> Result<Command> {
    require_root()?;
    let mut places = Vec::new();
    for from in ["/dev", "/proc", "/sys"].iter().map(Path::new).chain(shared.iter().copied()) {
        if from.exists() {
            places.push((from.to_owned(), place(root, from)?));
        }
    }
    let root = root.to_owned();
    let mut command = Command::new(program);
    // SAFETY: system calls only, on paths that were made before; nix copies them to the stack.
    unsafe { command.pre_exec(move || change_root(&root, &places).map_err(Into::into)) };
    Ok(command)
}

/// Where something is mounted.
fn place(root: &Path, from: &Path) -> Result<PathBuf> {
    let to = root.join(from.strip_prefix("/").context("not an absolute path")?);
    let made = if from.is_dir() {
        fs::create_dir_all(&to)
    } else {
        // A link, as resolv.conf often is one, would lead elsewhere inside.
        if to.is_symlink() {
            fs::remove_file(&to)?;
        }
        to.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| File::options().create(true).append(true).open(&to).map(drop))
    };
    made.with_context(|| format!("cannot make {}", to.display()))?;
    Ok(to)
}

fn change_root(root: &Path, places: &[(PathBuf, PathBuf)]) -> nix::Result<()> {
    let none = None::<&Path>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Nothing of this is seen outside.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    // A mount of its own, so that who is inside can do the same again.
    mount(Some(root), root, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
    for (from, to) in places {
        mount(Some(from.as_path()), to.as_path(), none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
    }
    chroot(root)?;
    chdir("/")
}
