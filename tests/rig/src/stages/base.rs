//! Debian's root file system, before anything of the rig's own.

use anyhow::Result;

use super::kernel::{mmdebstrap, quoted};
use super::recipe;
use crate::apt::{self, SUITE};
use crate::cache::{Cache, Key, Stage};
use crate::command::run_logged;
use crate::host::require_root;

/// The archive's name in the stage.
pub const ARCHIVE: &str = "root.tar.zst";

/// A server as one meets it: systemd, two container engines, and the tools of
/// the people who look after it.
const PACKAGES: &[&str] = &[
    "adduser",
    "apparmor",
    "apt",
    "ca-certificates",
    "busybox-static",
    "crun",
    "dbus",
    "dbus-user-session",
    "docker.io",
    "fuse-overlayfs",
    "initramfs-tools",
    "iproute2",
    "iptables",
    "iputils-ping",
    "jq",
    "kmod",
    "less",
    "libpam-systemd",
    "libtirpc3",
    "linux-base",
    "lsof",
    "nano",
    "openssh-server",
    "podman",
    "procps",
    "psmisc",
    "python3",
    "runc",
    "slirp4netns",
    "strace",
    "time",
    "systemd",
    "systemd-sysv",
    "sudo",
    "tmux",
    "udev",
    "uidmap",
    "util-linux",
    "zstd",
];

/// The root file system, with the kernel installed.
pub fn root(cache: &Cache, kernel: &Stage) -> Result<Stage> {
    let packages = PACKAGES.join(",");
    let key = Key::new("base 1").on(kernel).with(&packages).with_files(&recipe("base.sh"))?;
    cache.get("base", "Debian's root file system (about 2 minutes)", key, &[], |dir, work| {
        require_root()?;
        let scratch = cache.scratch()?;
        let sources = scratch.path().join("debian.sources");
        apt::write_sources(&sources, &[SUITE])?;
        let abi = kernel.read("abi")?;
        let mut build = mmdebstrap(cache)?;
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
            .arg(SUITE)
            .arg(dir.join(ARCHIVE))
            .arg(&sources);
        run_logged(&mut build, work, &cache.log("base"))
    })
}
