//! A Debian with the package managers of other distributions, which the packages are tried with.

use anyhow::Result;

use super::kernel::mmdebstrap;
use super::tools;
use crate::apt;
use crate::cache::{Cache, Key, Stage};
use crate::command::run_logged;
use crate::room::ROOT;

/// What is in it: the managers, what makes packages and repositories for them, and systemd, whose units they enable.
const PACKAGES: &str = "cpio,createrepo-c,dnf,file,pacman-package-manager,python3,rpm,rpmlint,systemd,zypper";

/// The root file system.
pub fn package_managers(cache: &Cache) -> Result<Stage> {
    let key = Key::new("package-managers 1").with(apt::SUITE).with(PACKAGES);
    cache.get("package-managers", "a Debian with rpm, dnf, zypper and pacman", key, &[], |dir, work| {
        let scratch = cache.scratch()?;
        let sources = scratch.path().join("debian.sources");
        apt::write_sources(&sources, &[apt::SUITE])?;
        let mut build = mmdebstrap(cache, &tools(cache)?)?;
        build.args(["--format=directory", "--variant=essential"]).arg(format!("--include={PACKAGES}"));
        for folder in ["man", "locale", "doc"] {
            build.arg(format!("--dpkgopt=path-exclude=/usr/share/{folder}/*"));
        }
        build.arg(apt::SUITE).arg(dir.join(ROOT)).arg(&sources);
        run_logged(&mut build, work, &cache.log("package-managers"))
    })
}
