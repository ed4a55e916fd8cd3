//! The distributions that the machine can be made of.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};

/// A distribution's userland. The kernel and the drivers are the same under each, so that what
/// differs between two runs is systemd and the container engines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Distro {
    /// systemd 252, Docker 20.10 (no CDI), Podman 4.3.
    #[default]
    Debian12,
    /// systemd 257, Docker 26 (with CDI), Podman 5.4 (with quadlets).
    Debian13,
}

/// What has the same name in both.
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
    "nano",
    "openssh-server",
    // NVIDIA's packages look with it for GPUs that a driver has left behind.
    "pciutils",
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

impl Distro {
    /// All of them, the usual one first.
    pub const ALL: [Distro; 2] = [Distro::Debian12, Distro::Debian13];

    /// The name on the command line and in a scenario's header.
    pub fn name(self) -> &'static str {
        match self {
            Distro::Debian12 => "debian12",
            Distro::Debian13 => "debian13",
        }
    }

    /// The suite of Debian's archive.
    pub fn suite(self) -> &'static str {
        match self {
            Distro::Debian12 => "bookworm",
            Distro::Debian13 => "trixie",
        }
    }

    /// A server as one meets it: systemd, two container engines, and the tools of the people who
    /// look after it.
    pub fn packages(self) -> Vec<&'static str> {
        let own: &[&str] = match self {
            Distro::Debian12 => &["libtirpc3"],
            // Docker's client has a package of its own here; passt is what rootless Podman 5 reaches
            // the network by, and nft is what netavark calls there.
            Distro::Debian13 => &["libtirpc3t64", "docker-cli", "passt", "nftables"],
        };
        let mut all = [PACKAGES, own].concat();
        all.sort_unstable();
        all
    }

    /// What its stages are called: the usual one's have plain names.
    pub fn stage(self, kind: &str) -> String {
        match self {
            Distro::Debian12 => kind.to_owned(),
            Distro::Debian13 => format!("{kind}-{self}"),
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
