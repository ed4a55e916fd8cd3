// SPDX-License-Identifier: MIT
//! The distributions that the machine can be made of.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};

use super::kernel::{self, Kernel};

/// A distribution: userland and kernel. But for one, the kernel is the same under each, so that what
/// differs between two runs is systemd and the container engines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Distro {
    /// systemd 252, Docker 20.10 (no CDI), Podman 4.3.
    #[default]
    Debian12,
    /// The same with systemd 254.
    Debian12Backports,
    /// systemd 257, Docker 26 (with CDI), Podman 5.4 (with quadlets).
    Debian13,
    /// The same with its own kernel, 6.12, and all modules compressed.
    Debian13Kernel,
    /// What Debian 14 is to be, and another thing each day: systemd 262, Docker 28, Podman 5.8.
    Forky,
}

/// What has the same name in all.
const PACKAGES: &[&str] = &[
    // Podman's networks, and what runs in its pods.
    "aardvark-dns",
    "netavark",
    "catatonit",
    "adduser",
    "apparmor",
    "apt",
    "ca-certificates",
    "busybox-static",
    "crun",
    "dbus",
    "dbus-user-session",
    "docker.io",
    // Makes an initramfs beside the one that the machine boots from.
    "dracut-core",
    "fuse-overlayfs",
    "initramfs-tools",
    "iproute2",
    "iptables",
    "iputils-ping",
    "jq",
    "kmod",
    "less",
    "libpam-systemd",
    "linux-base",
    "lsof",
    // Guests of another kind than the engines' containers.
    "lxc",
    // Slurm's credentials.
    "munge",
    "nano",
    // What restarts services behind an upgrade's back.
    "needrestart",
    "openssh-server",
    // NVIDIA's packages look with it for GPUs that a driver has left behind.
    "pciutils",
    "podman",
    "procps",
    "psmisc",
    "python3",
    "runc",
    "slirp4netns",
    // A cluster of one node.
    "slurm-client",
    "slurmctld",
    "slurmd",
    "strace",
    "time",
    "systemd",
    "systemd-sysv",
    "sudo",
    "tmux",
    "udev",
    "uidmap",
    "unattended-upgrades",
    "util-linux",
    "zstd",
];

impl Distro {
    /// All of them, the usual one first.
    pub const ALL: [Distro; 5] = [
        Distro::Debian12,
        Distro::Debian12Backports,
        Distro::Debian13,
        Distro::Debian13Kernel,
        Distro::Forky,
    ];

    /// The name on the command line and in a scenario's header.
    pub fn name(self) -> &'static str {
        match self {
            Distro::Debian12 => "debian12",
            Distro::Debian12Backports => "debian12-backports",
            Distro::Debian13 => "debian13",
            Distro::Debian13Kernel => "debian13-kernel",
            Distro::Forky => "forky",
        }
    }

    /// The suite of Debian's archive.
    pub fn suite(self) -> &'static str {
        match self {
            Distro::Debian12 | Distro::Debian12Backports => "bookworm",
            Distro::Debian13 | Distro::Debian13Kernel => "trixie",
            Distro::Forky => "forky",
        }
    }

    /// A second suite, and what is upgraded from there.
    pub fn backports(self) -> Option<(&'static str, &'static [&'static str])> {
        const SYSTEMD: &[&str] = &["libpam-systemd", "systemd", "systemd-sysv", "udev"];
        (self == Distro::Debian12Backports).then_some(("bookworm-backports", SYSTEMD))
    }

    /// Whether it is another one each day, and on some days none that can be installed.
    pub fn moves(self) -> bool {
        self == Distro::Forky
    }

    /// What runs under it.
    pub fn kernel(self) -> &'static Kernel {
        match self {
            Distro::Debian13Kernel => &kernel::TRIXIE,
            _ => &kernel::BOOKWORM,
        }
    }

    /// A server as one meets it: systemd, two container engines, and the tools of the people who
    /// look after it.
    pub fn packages(self) -> Vec<&'static str> {
        // Docker's client has a package of its own from Debian 13 on; passt is what rootless Podman 5 reaches
        // the network by, and nft is what netavark calls there.
        const NEWER: &[&str] = &["libtirpc3t64", "docker-cli", "passt", "nftables"];
        let own = match self {
            Distro::Debian12 | Distro::Debian12Backports => vec!["libtirpc3"],
            // DKMS compresses with it.
            Distro::Debian13Kernel => [NEWER, &["xz-utils"]].concat(),
            Distro::Debian13 | Distro::Forky => NEWER.to_vec(),
        };
        let mut all = [PACKAGES, &own].concat();
        all.sort_unstable();
        all
    }

    /// What its stages are called: the usual one's have plain names.
    pub fn stage(self, kind: &str) -> String {
        match self {
            Distro::Debian12 => kind.to_owned(),
            _ => format!("{kind}-{self}"),
        }
    }
}

impl fmt::Display for Distro {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Distro {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match Distro::ALL.into_iter().find(|distro| distro.name() == text) {
            Some(distro) => Ok(distro),
            None => bail!("no distribution {text}; there are: {}", Distro::ALL.map(Distro::name).join(" ")),
        }
    }
}
