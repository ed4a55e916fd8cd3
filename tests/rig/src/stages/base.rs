// SPDX-License-Identifier: MIT
//! Debian's root file system, before anything of the rig's own.

use anyhow::{Context, Result};

use super::kernel::{mmdebstrap, quoted};
use super::{Distro, recipe};
use crate::apt;
use crate::cache::{Cache, Key, Stage};
use crate::command::run_logged;
use crate::host::require_root;
use crate::room::Room;

/// The archive's name in the stage.
pub const ARCHIVE: &str = "root.tar.zst";

/// Why there is no root file system of a suite that is another one each day.
#[derive(Debug)]
pub struct NotToday(pub Distro);

impl std::fmt::Display for NotToday {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} cannot be installed today", self.0)
    }
}

/// The root file system, with the kernel installed; [`NotToday`] is in the error where a suite that moves
/// is to blame.
pub fn root(cache: &Cache, tools: &Room, kernel: &Stage, distro: Distro) -> Result<Stage> {
    let packages = distro.packages().join(",");
    let mut suites = vec![distro.suite()];
    let mut key = Key::new("base 2").on(kernel).with(distro.suite()).with(&packages);
    if let Some((suite, packages)) = distro.backports() {
        key = key.with(suite).with(packages.join(" "));
        suites.push(suite);
    }
    let key = key.with_files(&recipe("base.sh"))?;
    let what = format!("the root file system of {distro} (about 2 minutes)");
    cache.get(&distro.stage("base"), &what, key, &[], |dir, work| {
        require_root()?;
        let scratch = cache.scratch()?;
        let sources = scratch.path().join("debian.sources");
        apt::write_sources(&sources, &suites)?;
        let abi = kernel.read("abi")?;
        // There as soon as Debian's own packages are installed.
        let installed = scratch.path().join("installed");
        let mut build = mmdebstrap(cache, tools)?;
        build
            .args(["--format=tar", "--variant=minbase"])
            .arg(format!("--include={packages}"))
            // Manuals are not read there.
            .args(["--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*"])
            .args([
                "--dpkgopt=path-exclude=/usr/share/doc/*",
                "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            ]);
        if let Some((suite, packages)) = distro.backports() {
            build.arg(format!(
                "--customize-hook=chroot \"$1\" apt-get install --yes --no-install-recommends -t {suite} {}",
                packages.join(" ")
            ));
        }
        build
            .arg(format!("--customize-hook=touch {}", quoted(&installed)?))
            .arg("--customize-hook=mkdir \"$1/build\"")
            .arg(format!(
                "--customize-hook=upload {} /build/linux-image-{abi}.deb",
                quoted(&kernel.file_like("linux-image-", ".deb")?)?
            ))
            .arg(format!("--customize-hook=upload {} /build/base.sh", quoted(&recipe("base.sh"))?))
            .arg("--customize-hook=chroot \"$1\" sh /build/base.sh")
            .arg(distro.suite())
            .arg(dir.join(ARCHIVE))
            .arg(&sources);
        let made = run_logged(&mut build, work, &cache.log(&distro.stage("base")));
        if distro.moves() && !installed.exists() { made.context(NotToday(distro)) } else { made }
    })
}
