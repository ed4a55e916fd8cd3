//! Debian's root file system, before anything of the rig's own.

use anyhow::Result;

use super::kernel::{mmdebstrap, quoted};
use super::{Distro, recipe};
use crate::apt;
use crate::cache::{Cache, Key, Stage};
use crate::command::run_logged;
use crate::host::require_root;
use crate::room::Room;

/// The archive's name in the stage.
pub const ARCHIVE: &str = "root.tar.zst";

/// The root file system, with the kernel installed.
pub fn root(cache: &Cache, tools: &Room, kernel: &Stage, distro: Distro) -> Result<Stage> {
    let packages = distro.packages().join(",");
    let suite = distro.suite();
    let key = Key::new("base 2").on(kernel).with(suite).with(&packages).with_files(&recipe("base.sh"))?;
    let what = format!("the root file system of {distro} (about 2 minutes)");
    cache.get(&distro.stage("base"), &what, key, &[], |dir, work| {
        require_root()?;
        let scratch = cache.scratch()?;
        let sources = scratch.path().join("debian.sources");
        apt::write_sources(&sources, &[suite])?;
        let abi = kernel.read("abi")?;
        let mut build = mmdebstrap(cache, tools)?;
        build
            .args(["--format=tar", "--variant=minbase"])
            .arg(format!("--include={packages}"))
            // Nobody reads manuals there.
            .args(["--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*"])
            .args([
                "--dpkgopt=path-exclude=/usr/share/doc/*",
                "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            ])
            .arg("--customize-hook=mkdir \"$1/build\"")
            .arg(format!(
                "--customize-hook=upload {} /build/linux-image-{abi}.deb",
                quoted(&kernel.file_like("linux-image-", ".deb")?)?
            ))
            .arg(format!("--customize-hook=upload {} /build/base.sh", quoted(&recipe("base.sh"))?))
            .arg("--customize-hook=chroot \"$1\" sh /build/base.sh")
            .arg(suite)
            .arg(dir.join(ARCHIVE))
            .arg(&sources);
        run_logged(&mut build, work, &cache.log(&distro.stage("base")))
    })
}
