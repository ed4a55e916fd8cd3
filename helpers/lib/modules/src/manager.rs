// SPDX-License-Identifier: MIT
//! The machine's package manager, for remedies that can be pasted.

use std::fs;

use step::Root;

/// What installs packages on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// Debian, Ubuntu and their relatives.
    Apt,
    /// Fedora, RHEL, Amazon Linux and their relatives.
    Dnf,
    /// SLES and openSUSE.
    Zypper,
    /// Arch and its relatives.
    Pacman,
    /// Gentoo.
    Portage,
    /// The system is replaced as a whole, and boots to change: bootc, ostree, transactional-update, Flatcar,
    /// Ubuntu Core, NixOS.
    Image,
    /// It is not known.
    Unknown,
}

/// Distributions that are replaced as a whole, as `ID` in os-release(5) names them.
const IMAGES: [&str; 11] = [
    "bottlerocket",
    "cos",
    "fedora-coreos",
    "flatcar",
    "nixos",
    "opensuse-microos",
    "sl-micro",
    "sle-micro",
    "sle-micro-rancher",
    "ubuntu-core",
    "talos",
];

/// `ID` and `ID_LIKE`, and the package manager that comes with them.
const FAMILIES: [(&str, Manager); 12] = [
    ("debian", Manager::Apt),
    ("ubuntu", Manager::Apt),
    ("fedora", Manager::Dnf),
    ("rhel", Manager::Dnf),
    ("centos", Manager::Dnf),
    ("amzn", Manager::Dnf),
    ("mariner", Manager::Dnf),
    ("azurelinux", Manager::Dnf),
    ("suse", Manager::Zypper),
    ("sles", Manager::Zypper),
    ("arch", Manager::Pacman),
    ("gentoo", Manager::Portage),
];

/// Databases, for a machine that does not say what it is. Other package managers may be installed as tools.
const DATABASES: [(&str, Manager); 6] = [
    ("/var/lib/dpkg/status", Manager::Apt),
    ("/usr/bin/zypper", Manager::Zypper),
    ("/usr/lib/sysimage/rpm", Manager::Dnf),
    ("/var/lib/rpm", Manager::Dnf),
    ("/var/lib/pacman/local", Manager::Pacman),
    ("/var/db/pkg", Manager::Portage),
];

impl Manager {
    /// That of the machine.
    pub fn of(root: &Root) -> Self {
        // What ostree and bootc boot has this, whatever the distribution is called.
        if root.path("/run/ostree-booted").exists() {
            return Self::Image;
        }
        let words = identity(root);
        if words.iter().any(|word| IMAGES.contains(&word.as_str())) {
            return Self::Image;
        }
        let family = words.iter().find_map(|word| {
            FAMILIES
                .iter()
                .find(|(name, _)| word == name || (word.starts_with("opensuse") && *name == "suse"))
        });
        let database = || DATABASES.iter().find(|(path, _)| root.path(path).exists());
        family.or_else(database).map_or(Self::Unknown, |(_, manager)| *manager)
    }

    /// What shows which of NVIDIA's packages are installed, in which versions.
    pub fn shows(self) -> Option<&'static str> {
        match self {
            Self::Apt => Some("`dpkg --list '*nvidia*'`"),
            Self::Dnf | Self::Zypper => Some("`rpm --query --all '*nvidia*'`"),
            Self::Pacman => Some("`pacman --query --search nvidia`"),
            Self::Portage => Some("`qlist --installed --verbose nvidia`"),
            Self::Image | Self::Unknown => None,
        }
    }

    /// What ends an upgrade that is not at its end, as a sentence without its end.
    pub fn finish(self) -> String {
        let first = match self {
            Self::Apt => "finish the upgrade: `dpkg --configure --pending && apt install --fix-broken`",
            Self::Dnf => "finish the upgrade: `dnf distro-sync '*nvidia*'`",
            Self::Zypper => "finish the upgrade: `zypper verify`",
            Self::Image => "update the image",
            Self::Pacman | Self::Portage | Self::Unknown => "finish the upgrade",
        };
        match self.shows() {
            Some(shows) => format!("{first}; {shows} shows what is installed"),
            None => first.to_owned(),
        }
    }
}

/// The names in `ID` and `ID_LIKE`, the closest first.
pub(crate) fn identity(root: &Root) -> Vec<String> {
    let text = ["/etc/os-release", "/usr/lib/os-release"]
        .iter()
        .find_map(|path| fs::read_to_string(root.path(path)).ok())
        .unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
    };
    format!("{} {}", value("ID"), value("ID_LIKE")).split_whitespace().map(str::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[(&str, &str)]) -> Manager {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        for (path, text) in files {
            let path = root.path(path);
            fs::create_dir_all(path.parent().expect("has a parent")).expect("creates");
            fs::write(path, text).expect("writes");
        }
        Manager::of(&root)
    }

    #[test]
    fn a_distribution_says_what_it_is() {
        for (release, manager) in [
            ("ID=debian\n", Manager::Apt),
            ("NAME=\"Pop!_OS\"\nID=pop\nID_LIKE=\"ubuntu debian\"\n", Manager::Apt),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", Manager::Dnf),
            ("ID=\"amzn\"\nID_LIKE=\"fedora\"\n", Manager::Dnf),
            ("ID=\"sles\"\nID_LIKE=\"suse\"\n", Manager::Zypper),
            ("ID=\"opensuse-tumbleweed\"\nID_LIKE=\"opensuse suse\"\n", Manager::Zypper),
            ("ID=\"opensuse-leap\"\n", Manager::Zypper),
            ("ID=endeavouros\nID_LIKE=arch\n", Manager::Pacman),
            ("ID=gentoo\n", Manager::Portage),
            ("ID=flatcar\nID_LIKE=coreos\n", Manager::Image),
            ("ID=nixos\n", Manager::Image),
            ("ID=ubuntu-core\nID_LIKE=debian\n", Manager::Image),
            ("ID=other\n", Manager::Unknown),
        ] {
            assert_eq!(of(&[("/etc/os-release", release)]), manager, "{release}");
        }
        assert_eq!(of(&[("/usr/lib/os-release", "ID=debian\n")]), Manager::Apt);
    }

    #[test]
    fn tools_of_another_family_are_no_package_manager() {
        let rpm = ("/var/lib/rpm/rpmdb.sqlite", "");
        assert_eq!(of(&[rpm]), Manager::Dnf);
        assert_eq!(of(&[("/etc/os-release", "ID=debian\n"), rpm, ("/usr/bin/zypper", "")]), Manager::Apt);
        assert_eq!(of(&[rpm, ("/var/lib/dpkg/status", "")]), Manager::Apt);
        assert_eq!(of(&[]), Manager::Unknown);
    }

    #[test]
    fn what_boots_to_change_is_an_image() {
        let fedora = ("/etc/os-release", "ID=fedora\n");
        assert_eq!(of(&[fedora, ("/run/ostree-booted", "")]), Manager::Image);
    }
}
