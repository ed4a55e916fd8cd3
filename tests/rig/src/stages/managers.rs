// SPDX-License-Identifier: MIT
//! A Debian with the package managers of other distributions, which the packages are tried with.

use anyhow::Result;

use super::workshop::small_debian;
use crate::apt;
use crate::cache::{Cache, Key, Stage};

/// What is in it: the managers, what makes packages and repositories for them, and systemd, whose units they enable.
const PACKAGES: &str = "cpio,createrepo-c,dnf,file,pacman-package-manager,python3,rpm,rpmlint,systemd,zypper";

/// The root file system.
pub fn package_managers(cache: &Cache) -> Result<Stage> {
    let key = Key::new("package-managers 1").with(apt::SUITE).with(PACKAGES);
    cache.get("package-managers", "a Debian with rpm, dnf, zypper and pacman", key, &[], |dir, work| {
        small_debian(cache, "package-managers", &[], PACKAGES, dir, work)
    })
}
