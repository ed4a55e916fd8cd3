// SPDX-License-Identifier: MIT
//! Who has the driver's files and holds no GPU: guests of LXC, Incus, Proxmox and systemd-nspawn, whose nodes
//! and libraries were mounted when they started, and control daemons of MPS. No run stops them, and after it
//! they have another driver's files.
//!
//! A guest is known by its control group, which is root's; what is mounted in it is the guest's own word, and
//! so is the name of a program. Both are for the words of a warning and for nothing else.

use std::collections::BTreeSet;
use std::fmt;

use step::Root;

use crate::model::{Engine, Owner};
use crate::process::{Process, field_of};
use crate::text::escape;
use crate::walk::{open_dir, processes, walk};
use crate::{Result, cgroup};

/// As much of the table of a guest's mounts is read, in bytes: it mounts what it likes.
const MOST_MOUNTS: usize = 1 << 20;
/// More versions than this are not named.
const MOST_VERSIONS: usize = 4;

/// Those that have the driver's files and hold no GPU by that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bystanders {
    /// Guests that have nodes or libraries of the driver mounted, by name.
    pub guests: Vec<Guest>,
    /// Control daemons of MPS, by pid.
    pub mps: Vec<MpsControl>,
}

/// A guest that has files of the driver mounted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Guest {
    /// LXC, or a machine known to machined.
    pub engine: Engine,
    /// Its name, escaped.
    pub name: String,
    /// Its first process.
    pub pid: i32,
    /// Whether device nodes of the driver are mounted in it.
    pub nodes: bool,
    /// Whether libraries of the driver are.
    pub libraries: bool,
    /// The versions in the names of those.
    pub versions: BTreeSet<String>,
}

impl fmt::Display for Guest {
    /// `LXC guest web`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.engine == Engine::Lxc { "LXC guest" } else { "machine" };
        write!(f, "{kind} {}", self.name)
    }
}

impl Guest {
    /// What it has, such as `device nodes and libraries of driver 535.261.03`.
    pub fn has(&self) -> String {
        let what = match (self.nodes, self.libraries) {
            (true, true) => "device nodes and libraries",
            (true, false) => "device nodes",
            (false, _) => "libraries",
        };
        let versions: Vec<&str> = self.versions.iter().map(String::as_str).collect();
        match versions.is_empty() {
            true => format!("{what} of the driver"),
            false => format!("{what} of driver {}", versions.join(", ")),
        }
    }

    /// How it gets the new ones, as a command.
    pub fn remedy(&self) -> String {
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let name = if self.name.chars().all(is_word) { self.name.as_str() } else { "NAME" };
        match self.engine {
            Engine::Lxc => format!(
                "restart it (`incus restart {name}`, `pct reboot {name}`, or `lxc-stop --reboot --name {name}`); where it has NVIDIA's libraries of its own, install those of the new driver there"
            ),
            _ => format!(
                "restart it (`machinectl reboot {name}`); where it has NVIDIA's libraries of its own, install those of the new driver there"
            ),
        }
    }
}

/// A control daemon of MPS, by the name of its program.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MpsControl {
    /// The process.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Its owner.
    pub owner: Owner,
}

/// What of MPS a command line says that it is, for words only: anybody may call a program so.
pub fn mps(command: &[String]) -> Option<&'static str> {
    match command.first()?.rsplit('/').next()? {
        "nvidia-cuda-mps-control" => Some("MPS control daemon"),
        "nvidia-cuda-mps-server" => Some("MPS server"),
        _ => None,
    }
}

enum Found {
    Guest(Guest),
    Mps(MpsControl),
}

/// Looks at every process.
///
/// # Errors
/// `/proc` cannot be read.
pub fn bystanders(root: &Root) -> Result<Bystanders> {
    let proc = root.path("/proc");
    let groups = root.path("/sys/fs/cgroup");
    let pids = processes(&proc)?;
    let dir = open_dir(rustix::fs::CWD, &proc)
        .map_err(|error| crate::Error::Read { path: proc.clone(), source: error.into() })?;
    let walked = walk(pids, move |_, pid| {
        let process = Process::open(&dir, pid).ok()?;
        let group = process.read("cgroup", 64 << 10).ok()?;
        if is_guests(&group) {
            let owner = cgroup::owner_where(&group, |group| cgroup::is_roots(&groups, group));
            return guest(&process, pid, owner).map(Found::Guest);
        }
        let is_control = process.read("comm", 64).is_ok_and(|comm| comm.starts_with(b"nvidia-cuda-mps"))
            && mps(&process.command()) == Some("MPS control daemon");
        is_control.then_some(())?;
        let owner = cgroup::owner_where(&group, |group| cgroup::is_roots(&groups, group));
        Some(Found::Mps(MpsControl { pid, uid: process.uid()?, owner }))
    });
    let mut bystanders = Bystanders::default();
    for found in walked.found {
        match found {
            Found::Guest(guest) => bystanders.guests.push(guest),
            Found::Mps(control) => bystanders.mps.push(control),
        }
    }
    bystanders.guests.sort_by(|one, other| (&one.name, one.pid).cmp(&(&other.name, other.pid)));
    bystanders.mps.sort();
    Ok(bystanders)
}

/// Whether it may be a guest's at all: most processes are in no such group.
fn is_guests(group: &[u8]) -> bool {
    let has = |word: &[u8]| group.windows(word.len()).any(|window| window == word);
    has(b"/lxc") || has(b"/machine-") || has(b"/systemd-nspawn@")
}

/// The guest whose first process this is, if it has files of the driver.
fn guest(process: &Process, pid: i32, owner: Owner) -> Option<Guest> {
    let Owner::Container(container) = owner else { return None };
    if !matches!(container.engine, Engine::Lxc | Engine::Machine) || !is_first(process) {
        return None;
    }
    let mounts = process.read("mountinfo", MOST_MOUNTS).ok()?;
    let mut guest = Guest {
        engine: container.engine,
        name: container.id,
        pid,
        nodes: false,
        libraries: false,
        versions: BTreeSet::new(),
    };
    for line in mounts.split(|byte| *byte == b'\n') {
        match file_of(line) {
            Some(File::Node) => guest.nodes = true,
            Some(File::Library(version)) => {
                guest.libraries = true;
                if guest.versions.len() < MOST_VERSIONS {
                    guest.versions.extend(version);
                }
            }
            None => {}
        }
    }
    (guest.nodes || guest.libraries).then_some(guest)
}

/// Whether it is number 1 in a pid namespace right below this one. Guests of guests are those guests' own.
fn is_first(process: &Process) -> bool {
    let status = process.read("status", 8192).unwrap_or_default();
    let numbers = field_of(&status, "NSpid").unwrap_or_default();
    let numbers: Vec<&str> = numbers.split_ascii_whitespace().collect();
    matches!(numbers.as_slice(), [_, "1"])
}

/// A file of the driver that is mounted.
#[derive(Debug, PartialEq, Eq)]
enum File {
    Node,
    /// With the version in its name.
    Library(Option<String>),
}

/// The file of the driver that a line of `mountinfo` mounts.
fn file_of(line: &[u8]) -> Option<File> {
    let line = escape(line);
    let (mount, kind) = line.split_once(" - ")?;
    let mut fields = mount.split(' ');
    // What was deleted since says so.
    let source = fields.nth(3)?.trim_end_matches("//deleted");
    let target = fields.next()?;
    // There is one devtmpfs, whose nodes are the host's.
    let is_hosts_node = kind.starts_with("devtmpfs ") && source.starts_with("/nvidia");
    if is_hosts_node || target.starts_with("/dev/nvidia") {
        return Some(File::Node);
    }
    [source, target].into_iter().find_map(|path| {
        let name = path.rsplit('/').next()?;
        let is_drivers =
            name.starts_with("libnvidia-") || name.starts_with("libcuda.so") || name.contains("_nvidia.so");
        let version = name.split_once(".so.").map(|(_, version)| version).filter(|version| {
            version.contains('.') && version.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit())
        });
        is_drivers.then(|| File::Library(version.map(str::to_owned)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    const NODE: &str = "901 880 0:6 /nvidia0 /dev/nvidia0 rw,nosuid - devtmpfs udev rw,size=1k\n";
    const LIBRARY: &str =
        "902 880 8:1 /usr/lib/libcuda.so.535.261.03 /usr/lib/libcuda.so.535.261.03 ro - ext4 /dev/sda1 rw\n";

    fn file(line: &str) -> Option<File> {
        file_of(line.trim_end().as_bytes())
    }

    #[test]
    fn files_of_the_driver_are_known_where_they_are_mounted() {
        let of_535 = || Some(File::Library(Some("535.261.03".into())));
        assert_eq!(file(NODE), Some(File::Node));
        assert_eq!(
            file(&NODE.replace("/dev/nvidia0", "/srv/gpu")),
            Some(File::Node),
            "the host's, by another name"
        );
        let incus = "903 880 0:50 /devices/web/unix.dev-nvidia--uvm /dev/nvidia-uvm rw - tmpfs tmpfs rw\n";
        assert_eq!(file(incus), Some(File::Node));
        assert_eq!(file(LIBRARY), of_535());
        assert_eq!(file(&LIBRARY.replace("261.03 /", "261.03//deleted /")), of_535());
        assert_eq!(file(&LIBRARY.replace(" /usr/lib/libcuda.so.535.261.03 ro", " /opt/cuda ro")), of_535());
        assert_eq!(file(&LIBRARY.replace(".so.535.261.03", ".so.1")), Some(File::Library(None)));
        assert_eq!(file(&LIBRARY.replace("libcuda", "libGLX_nvidia")), of_535());
        for other in [
            "904 880 0:6 / /dev rw - devtmpfs udev rw\n",
            "905 880 8:1 /usr/lib/libc.so.6 /usr/lib/libc.so.6 ro - ext4 /dev/sda1 rw\n",
            "906 880 8:1 /srv/nvidia0 /srv/nvidia0 rw - ext4 /dev/nvidia0 rw\n",
            "odd\n",
            "",
        ] {
            assert_eq!(file(other), None, "{other}");
        }
        let shell = file(&LIBRARY.replace("535.261.03", "535.`x`"));
        assert_eq!(shell, Some(File::Library(None)), "no version");
    }

    fn process(root: &Root, pid: i32, group: &str, nspid: &str, mounts: &str, command: &str) {
        let write = |name: &str, text: &str| {
            let path = root.path(format!("/proc/{pid}/{name}"));
            fs::create_dir_all(path.parent().expect("has a parent")).expect("creates");
            fs::write(path, text).expect("writes");
        };
        write("cgroup", &format!("0::{group}\n"));
        write("status", &format!("Name:\tx\nUid:\t0\t0\t0\t0\nNSpid:\t{nspid}\n"));
        write("mountinfo", mounts);
        write("cmdline", command);
        write("comm", &command.rsplit('/').next().unwrap_or_default().chars().take(15).collect::<String>());
    }

    #[test]
    fn guests_and_control_daemons_are_found_and_nothing_else_is() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let both = format!("{NODE}{LIBRARY}");
        process(&root, 10, "/lxc.payload.web/init.scope", "10\t1", &both, "/sbin/init");
        process(&root, 11, "/lxc.payload.web/system.slice/x.service", "11\t40", &both, "train");
        process(&root, 12, "/lxc.payload.web/lxc.payload.inner", "12\t41\t1", &both, "/sbin/init");
        process(&root, 13, "/lxc.payload.plain", "13\t1", "", "/sbin/init");
        process(&root, 14, "/machine.slice/systemd-nspawn@db.service/payload", "14\t1", NODE, "/sbin/init");
        process(
            &root,
            15,
            "/machine.slice/systemd-nspawn@db.service/supervisor",
            "15",
            NODE,
            "systemd-nspawn",
        );
        let docker = format!("/system.slice/docker-{}.scope", "0a".repeat(32));
        process(&root, 16, &docker, "16\t1", &both, "sleep");
        process(&root, 17, "/user.slice/user-7.slice/user@7.service/lxc.payload.me", "17\t1", &both, "x");
        process(&root, 20, "/system.slice/mps.service", "20", "", "/usr/bin/nvidia-cuda-mps-control");
        process(&root, 21, "/system.slice/mps.service", "21", "", "/usr/bin/nvidia-cuda-mps-server");
        process(&root, 22, "/", "22", "", "vi");
        let found = bystanders(&root).expect("looks");
        let guests: Vec<String> =
            found.guests.iter().map(|guest| format!("{guest} ({}): {}", guest.pid, guest.has())).collect();
        assert_eq!(
            guests,
            [
                "machine db (14): device nodes of the driver",
                "LXC guest web (10): device nodes and libraries of driver 535.261.03"
            ]
        );
        assert!(found.guests[1].remedy().contains("`incus restart web`"));
        assert_eq!(found.mps.iter().map(|control| control.pid).collect::<Vec<_>>(), [20]);
        assert!(matches!(&found.mps[0].owner, Owner::SystemUnit { unit, .. } if unit == "mps.service"));
    }

    #[test]
    fn a_name_goes_into_a_command_only_where_it_is_one_word() {
        let guest = |name: &str| Guest {
            engine: Engine::Machine,
            name: name.into(),
            pid: 1,
            nodes: true,
            libraries: false,
            versions: BTreeSet::new(),
        };
        assert!(guest("a-1_b.c").remedy().contains("`machinectl reboot a-1_b.c`"));
        assert!(guest("a b;c").remedy().contains("`machinectl reboot NAME`"));
    }

    proptest! {
        #[test]
        fn any_line_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            file_of(&bytes);
            is_guests(&bytes);
        }
    }
}
