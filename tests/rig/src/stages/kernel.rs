// SPDX-License-Identifier: MIT
//! The guest's kernel, and the modules built for it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{DRIVERS, checkout, recipe};
use crate::apt::{self, PrivateApt, SUITE};
use crate::cache::{Cache, Key, Stage, files_under};
use crate::command::run_logged;
use crate::host::require_root;
use crate::progress::Work;
use crate::room::Room;

/// A kernel of Debian's, and what modules are built with for it.
#[derive(Debug)]
pub struct Kernel {
    /// The suite that it is of.
    suite: &'static str,
    /// What the names of its stages end in.
    suffix: &'static str,
    /// What its headers cannot do without: the starts of the packages' names.
    headers: &'static [&'static str],
    /// What the throw-away Debian has to compile with.
    compiler: &'static str,
    /// Where the sources of each of [`DRIVERS`] come from.
    sources: [&'static str; DRIVERS.len()],
    /// Whether these are older than the kernel, and have to be fixed: see sources.sh.
    newer_than_sources: bool,
}

/// Debian 12's, 6.1.
pub const BOOKWORM: Kernel = Kernel {
    suite: SUITE,
    suffix: "",
    headers: &["linux-headers-", "linux-kbuild-", "linux-compiler-"],
    compiler: "gcc-12,libelf1,libssl3",
    sources: [DRIVERS[0].suite, DRIVERS[1].suite],
    newer_than_sources: false,
};

/// Debian 13's, 6.12.
pub const TRIXIE: Kernel = Kernel {
    suite: "trixie",
    suffix: "-trixie",
    headers: &["linux-headers-", "linux-kbuild-"],
    compiler: "gcc-14,libelf1t64,libssl3t64,zlib1g,pahole",
    sources: ["bookworm", "trixie-backports"],
    newer_than_sources: true,
};

impl Kernel {
    fn stage(&self, kind: &str) -> String {
        format!("{kind}{}", self.suffix)
    }
}

/// The packages of one kernel: image, headers, and what builds modules. Kept,
/// so that whatever is built later is built for the same kernel, also when the
/// archive has moved on.
pub fn packages(cache: &Cache, which: &Kernel) -> Result<Stage> {
    let key = Key::new("kernel 1").with(which.suite);
    let stage = which.stage("kernel");
    cache.get(&stage, "the kernel's packages", key, &[], |dir, work| {
        let log = cache.log(&stage);
        let apt_dir = cache.scratch()?;
        let apt = PrivateApt::set_up(apt_dir.path(), &[which.suite], work, &log)?;
        let image = apt.dependency("linux-image-amd64", "linux-image-")?;
        let abi = image.trim_start_matches("linux-image-").to_owned();
        let headers = format!("linux-headers-{abi}");
        let mut names = vec![image, headers.clone()];
        for start in which.headers {
            names.push(apt.dependency(&headers, start)?);
        }
        apt.download(&names, dir, work, &log)?;
        fs::write(dir.join("abi"), format!("{abi}\n"))?;
        Ok(())
    })
}

/// NVIDIA's open kernel modules, in every version of [`DRIVERS`].
pub fn nvidia_modules(cache: &Cache, tools: &Room, which: &Kernel, kernel: &Stage) -> Result<Stage> {
    let mut key = Key::new("modules 1").on(kernel).with_files(&recipe("modules.sh"))?;
    if which.newer_than_sources {
        key = key.with_files(&recipe("sources.sh"))?;
    }
    for (driver, suite) in DRIVERS.iter().zip(which.sources) {
        key = key.with(driver.version).with(suite);
    }
    let stage = which.stage("modules");
    let what = "NVIDIA's kernel modules, two versions (about 4 minutes)";
    cache.get(&stage, what, key, &[], |dir, work| {
        let log = cache.log(&stage);
        let scratch = cache.scratch()?;
        let apt = PrivateApt::set_up(&scratch.path().join("apt"), &which.sources, work, &log)?;
        let names: Vec<String> =
            DRIVERS.iter().map(|driver| format!("nvidia-open-kernel-dkms={}-*", driver.version)).collect();
        let input = scratch.path().join("in");
        apt.download(&names, &input, work, &log)
            .context("Debian's archive does not have these versions of NVIDIA's driver")?;
        if which.newer_than_sources {
            run_logged(Command::new("sh").arg(recipe("sources.sh")).arg(&input), work, &log)?;
        }
        let versions: Vec<&str> = DRIVERS.iter().map(|driver| driver.version).collect();
        let build = Build { tools, which, recipe: "modules.sh", arguments: &versions, input: &input };
        build.run(cache, kernel, dir, work, &log)
    })
}

/// The module that shows NVIDIA's driver its GPUs, and those beside it.
pub fn fakegpu(cache: &Cache, tools: &Room, which: &Kernel, kernel: &Stage) -> Result<Stage> {
    let source = checkout().join("tests/fakegpu");
    // Not what a build by hand left there.
    let mut files = vec![source.join("Makefile")];
    files.extend(files_under(&source)?.into_iter().filter(|file| {
        file.extension().is_some_and(|extension| extension == "c")
            && !file.to_string_lossy().ends_with(".mod.c")
    }));
    let mut key = Key::new("fakegpu 2").on(kernel).with_files(&recipe("fakegpu.sh"))?;
    for file in &files {
        key = key.with(file.file_name().unwrap_or_default().as_encoded_bytes()).with_files(file)?;
    }
    let stage = which.stage("fakegpu");
    cache.get(&stage, "the module fakegpu", key, &[], |dir, work| {
        let log = cache.log(&stage);
        let scratch = cache.scratch()?;
        let input = scratch.path().join("fakegpu");
        fs::create_dir(&input)?;
        for file in &files {
            fs::copy(file, input.join(file.file_name().unwrap_or_default()))?;
        }
        let build = Build { tools, which, recipe: "fakegpu.sh", arguments: &[], input: scratch.path() };
        build.run(cache, kernel, dir, work, &log)
    })
}

/// A build in a throw-away Debian that has the kernel's headers.
struct Build<'a> {
    tools: &'a Room,
    which: &'a Kernel,
    recipe: &'a str,
    arguments: &'a [&'a str],
    input: &'a Path,
}

impl Build<'_> {
    fn run(&self, cache: &Cache, kernel: &Stage, out: &Path, work: &Work, log: &Path) -> Result<()> {
        require_root()?;
        let scratch = cache.scratch()?;
        let sources = scratch.path().join("debian.sources");
        apt::write_sources(&sources, &[self.which.suite])?;
        let script = recipe(self.recipe);
        let arguments = self.arguments.join(" ");
        let recipe = self.recipe;
        let mut build = mmdebstrap(cache, self.tools)?;
        build
            .args(["--format=null", "--variant=apt"])
            .arg(format!("--include=make,libc6-dev,binutils,bzip2,xz-utils,perl,{}", self.which.compiler))
            .arg("--customize-hook=mkdir -p \"$1/build/kernel\" \"$1/build/in\" \"$1/build/out\"")
            .arg(format!("--customize-hook=sync-in {} /build/kernel", quoted(kernel.folder())?))
            .arg(format!("--customize-hook=sync-in {} /build/in", quoted(self.input)?))
            .arg(format!("--customize-hook=copy-in {} /build", quoted(&script)?))
            // Debian 13's want the image beside them, and modules are built without.
            .arg(
                "--customize-hook=chroot \"$1\" sh -c 'cd /build/kernel && rm linux-image-*.deb && \
                 dpkg --unpack *.deb'",
            )
            .arg(format!("--customize-hook=chroot \"$1\" sh /build/{recipe} {arguments}"))
            .arg(format!("--customize-hook=sync-out /build/out {}", quoted(out)?))
            .args([self.which.suite, "/dev/null"])
            .arg(&sources);
        run_logged(&mut build, work, log)
    }
}

/// mmdebstrap, with the way to the mirror.
pub fn mmdebstrap(cache: &Cache, tools: &Room) -> Result<Command> {
    let mut command = tools.inside(cache, &[], "mmdebstrap")?;
    command.arg("--mode=root");
    for line in apt::host_transport()? {
        command.arg(format!("--aptopt={line}"));
    }
    Ok(command)
}

/// A path in a hook of mmdebstrap, which a shell reads.
pub fn quoted(path: &Path) -> Result<String> {
    let path = path.to_str().context("a path is not UTF-8")?;
    Ok(shlex::try_quote(path).context("a path has a zero byte")?.into_owned())
}
