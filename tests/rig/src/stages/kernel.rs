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

/// The packages of one kernel: image, headers, and what builds modules. Kept,
/// so that whatever is built later is built for the same kernel, also when the
/// archive has moved on.
pub fn packages(cache: &Cache) -> Result<Stage> {
    let key = Key::new("kernel 1").with(SUITE);
    cache.get("kernel", "the kernel's packages", key, &[], |dir, work| {
        let log = cache.log("kernel");
        let apt_dir = cache.scratch()?;
        let apt = PrivateApt::set_up(apt_dir.path(), &[SUITE], work, &log)?;
        let image = apt.dependency("linux-image-amd64", "linux-image-")?;
        let abi = image.trim_start_matches("linux-image-").to_owned();
        let headers = format!("linux-headers-{abi}");
        let names = [
            image,
            apt.dependency(&headers, "linux-headers-")?,
            apt.dependency(&headers, "linux-kbuild-")?,
            apt.dependency(&headers, "linux-compiler-")?,
            headers,
        ];
        apt.download(&names, dir, work, &log)?;
        fs::write(dir.join("abi"), format!("{abi}\n"))?;
        Ok(())
    })
}

/// NVIDIA's open kernel modules, in every version of [`DRIVERS`].
pub fn nvidia_modules(cache: &Cache, tools: &Room, kernel: &Stage) -> Result<Stage> {
    let mut key = Key::new("modules 1").on(kernel).with_files(&recipe("modules.sh"))?;
    for driver in DRIVERS {
        key = key.with(driver.version).with(driver.suite);
    }
    let what = "NVIDIA's kernel modules, two versions (about 6 minutes)";
    cache.get("modules", what, key, &[], |dir, work| {
        let log = cache.log("modules");
        let scratch = cache.scratch()?;
        let suites: Vec<&str> = DRIVERS.iter().map(|driver| driver.suite).collect();
        let apt = PrivateApt::set_up(&scratch.path().join("apt"), &suites, work, &log)?;
        let names: Vec<String> =
            DRIVERS.iter().map(|driver| format!("nvidia-open-kernel-dkms={}-*", driver.version)).collect();
        let input = scratch.path().join("in");
        apt.download(&names, &input, work, &log)
            .context("Debian's archive does not have these versions of NVIDIA's driver")?;
        let versions: Vec<&str> = DRIVERS.iter().map(|driver| driver.version).collect();
        let build = Build { tools, recipe: "modules.sh", arguments: &versions, input: &input };
        build.run(cache, kernel, dir, work, &log)
    })
}

/// The module that shows NVIDIA's driver its GPUs, and those beside it.
pub fn fakegpu(cache: &Cache, tools: &Room, kernel: &Stage) -> Result<Stage> {
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
    cache.get("fakegpu", "the module fakegpu", key, &[], |dir, work| {
        let log = cache.log("fakegpu");
        let scratch = cache.scratch()?;
        let input = scratch.path().join("fakegpu");
        fs::create_dir(&input)?;
        for file in &files {
            fs::copy(file, input.join(file.file_name().unwrap_or_default()))?;
        }
        let build = Build { tools, recipe: "fakegpu.sh", arguments: &[], input: scratch.path() };
        build.run(cache, kernel, dir, work, &log)
    })
}

/// A build in a throw-away Debian that has the kernel's headers.
struct Build<'a> {
    tools: &'a Room,
    recipe: &'a str,
    arguments: &'a [&'a str],
    input: &'a Path,
}

impl Build<'_> {
    fn run(&self, cache: &Cache, kernel: &Stage, out: &Path, work: &Work, log: &Path) -> Result<()> {
        require_root()?;
        let scratch = cache.scratch()?;
        let sources = scratch.path().join("debian.sources");
        apt::write_sources(&sources, &[SUITE])?;
        let script = recipe(self.recipe);
        let arguments = self.arguments.join(" ");
        let recipe = self.recipe;
        let mut build = mmdebstrap(cache, self.tools)?;
        build
            .args(["--format=null", "--variant=apt"])
            .arg("--include=make,gcc-12,libc6-dev,libelf1,libssl3,binutils,bzip2,xz-utils,perl")
            .arg("--customize-hook=mkdir -p \"$1/build/kernel\" \"$1/build/in\" \"$1/build/out\"")
            .arg(format!("--customize-hook=sync-in {} /build/kernel", quoted(kernel.folder())?))
            .arg(format!("--customize-hook=sync-in {} /build/in", quoted(self.input)?))
            .arg(format!("--customize-hook=copy-in {} /build", quoted(&script)?))
            .arg(
                "--customize-hook=chroot \"$1\" sh -c 'cd /build/kernel && \
                 dpkg --install linux-headers-*.deb linux-kbuild-*.deb linux-compiler-*.deb'",
            )
            .arg(format!("--customize-hook=chroot \"$1\" sh /build/{recipe} {arguments}"))
            .arg(format!("--customize-hook=sync-out /build/out {}", quoted(out)?))
            .args([SUITE, "/dev/null"])
            .arg(&sources);
        run_logged(&mut build, work, log)
    }
}

/// mmdebstrap, told how to reach the mirror.
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
