// SPDX-License-Identifier: MIT
//! Units in whose control group something stays as long as their container: an engine's command line
//! client, or Podman's monitor.
//!
//! The container itself has a control group of its own, so that does not tell of the unit. The client
//! does: it runs in the unit's, and names the container in its arguments. A unit whose client gives
//! its container no name (`--name`) cannot be known from it. Podman leaves its monitor, conmon, where a
//! unit started it (seen in the units that `podman generate systemd` writes).
//!
//! Anybody can call a process `docker` and give it any arguments: it speaks of an engine's containers
//! only where it may give that engine orders.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use step::Root;

use crate::ids::Ids;
use crate::{Inspect, Kind};

/// What starts a container and stays with it.
const STAYS: [&[u8]; 3] = [b"run", b"start", b"attach"];

/// How much of an id is a name of its own; the clients print as much.
const SHORT_ID: usize = 12;

/// A client in a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Attached {
    engine: Kind,
    /// The user of the engine that it orders; none for root's.
    user: Option<u32>,
    unit: String,
    arguments: Vec<Vec<u8>>,
}

/// The clients that run in units.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clients(Vec<Attached>);

impl Clients {
    /// Looks through `/proc`.
    pub(crate) fn look(root: &Root) -> io::Result<Self> {
        let mut found = Vec::new();
        // Who may connect to that is as good as root to Docker.
        let group = fs::metadata(root.path("/run/docker.sock")).ok().map(|socket| socket.gid());
        for entry in fs::read_dir(root.path("/proc"))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(|first: char| first.is_ascii_digit()) {
                found.extend(attached(&entry.path(), group));
            }
        }
        Ok(Self(found))
    }

    /// The unit whose client stays with `container` of the engine of `user`, or of root.
    pub(crate) fn unit(&self, engine: Kind, user: Option<u32>, container: &Inspect) -> Option<&str> {
        let is_its = |client: &&Attached| client.engine == engine && client.user == user;
        let client = self.0.iter().filter(is_its).find(|client| client.means(container))?;
        Some(&client.unit)
    }
}

impl Attached {
    fn means(&self, container: &Inspect) -> bool {
        let Some(verb) = self.arguments.iter().position(|word| STAYS.contains(&word.as_slice())) else {
            return false;
        };
        let words = &self.arguments[verb + 1..];
        let name = container.name().as_bytes();
        if self.arguments[verb] != b"run" {
            let id = container.id().as_bytes();
            return words.iter().any(|word| word == name || (word.len() >= SHORT_ID && id.starts_with(word)));
        }
        words.iter().any(|word| word.strip_prefix(b"--name=") == Some(name))
            || words.windows(2).any(|pair| pair[0] == b"--name" && pair[1] == name)
    }
}

/// The client that this process is, if it is one. A process that ended meanwhile has nothing to say.
fn attached(process: &Path, docker_group: Option<u32>) -> Option<Attached> {
    let comm = fs::read(process.join("comm")).ok()?;
    let (engine, is_monitor) = match comm.trim_ascii_end() {
        b"docker" => (Kind::Docker, false),
        b"podman" => (Kind::Podman, false),
        b"conmon" => (Kind::Podman, true),
        _ => return None,
    };
    let ids = Ids::of(process)?;
    let user = match engine {
        Kind::Docker if ids.user == 0 || docker_group.is_some_and(|group| ids.groups.contains(&group)) => {
            None
        }
        Kind::Docker => return None,
        _ => (ids.user != 0).then_some(ids.user),
    };
    let unit = unit_of(&fs::read_to_string(process.join("cgroup")).ok()?)?;
    let text = fs::read(process.join("cmdline")).ok()?;
    let mut arguments: Vec<Vec<u8>> = text.split(|byte| *byte == 0).skip(1).map(<[u8]>::to_vec).collect();
    if is_monitor {
        // conmon -c ID: as if it were `podman start ID`.
        let id = arguments.iter().position(|word| word == b"-c" || word == b"--cid")? + 1;
        arguments = vec![b"start".to_vec(), arguments.get(id)?.clone()];
    }
    Some(Attached { engine, user, unit, arguments })
}

/// The service whose own control group the container runs in: then the unit was started with the
/// container in it, and not beside it in a scope of the engine's.
pub(crate) fn unit_of(cgroup: &str) -> Option<String> {
    // The unified hierarchy, or systemd's own where there are several.
    let path = cgroup.lines().find_map(|line| {
        let (_, line) = line.split_once(':')?;
        line.strip_prefix(':').or_else(|| line.strip_prefix("name=systemd:"))
    })?;
    let unit = path.split('/').rfind(|part| part.ends_with(".service") || part.ends_with(".scope"))?;
    // Engines that keep their containers below themselves.
    let engine = ["docker.service", "containerd.service", "podman.service"];
    // Where an engine runs inside another's container, its paths start with the outer one's.
    // A user's units are not the system's.
    let ours = !engine.contains(&unit) && !unit.starts_with("nvidia-reload-") && !path.contains("/user@");
    // What cron or a server of logins hosts is not its own.
    (unit.ends_with(".service") && ours && !holders::is_host(unit)).then(|| unit.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(engine: Kind, comm: &str, cgroup: &str, cmdline: &str) -> Option<String> {
        unit_of_user(engine, None, "Uid:\t0\t0\t0\t0\nGroups:\t0", comm, cgroup, cmdline)
    }

    fn unit_of_user(
        engine: Kind,
        user: Option<u32>,
        status: &str,
        comm: &str,
        cgroup: &str,
        cmdline: &str,
    ) -> Option<String> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let process = root.path("/proc/7");
        fs::create_dir_all(&process).expect("creates");
        let cmdline = cmdline.replace(' ', "\0");
        fs::create_dir_all(root.path("/run")).expect("creates");
        fs::write(root.path("/run/docker.sock"), "").expect("writes");
        for (file, text) in [("comm", comm), ("cgroup", cgroup), ("cmdline", &cmdline), ("status", status)] {
            fs::write(process.join(file), format!("{text}\n")).expect("writes");
        }
        let id = "0123456789abcdef";
        let job = Inspect { id: Some(id.into()), name: Some("/job".into()), ..Inspect::default() };
        Clients::look(&root).expect("looks").unit(engine, user, &job).map(str::to_owned)
    }

    #[test]
    fn a_client_in_a_unit_names_its_container() {
        let service = "0::/system.slice/job.service";
        for (comm, cgroup, cmdline, found) in [
            ("docker", service, "/usr/bin/docker run --rm --name job image ", true),
            ("docker", service, "/usr/bin/docker container run --name=job image sleep 1 ", true),
            ("docker", service, "/usr/bin/docker -l debug start -a job ", true),
            ("docker", service, "/usr/bin/docker start -a 0123456789ab ", true),
            ("docker", service, "/usr/bin/docker start -a 01234 ", false),
            ("docker", service, "/usr/bin/docker run --name jobs image ", false),
            ("docker", service, "/usr/bin/docker run image job ", false),
            ("docker", service, "/usr/bin/docker logs -f job ", false),
            ("podman", service, "/usr/bin/podman run --name job image ", false),
            ("sh", service, "/usr/bin/docker run --name job image ", false),
            ("docker", "0::/user.slice/user-0.slice/session-1.scope", "docker run --name job image ", false),
        ] {
            let expected = found.then(|| "job.service".to_owned());
            assert_eq!(unit(Kind::Docker, comm, cgroup, cmdline), expected, "{comm} {cmdline}");
        }
    }

    #[test]
    fn a_monitor_in_a_unit_names_its_container() {
        let monitor = |cgroup, cid| {
            let cmdline = format!("/usr/bin/conmon --api-version 1 -c {cid} -u {cid} -r /usr/bin/crun ");
            unit(Kind::Podman, "conmon", cgroup, &cmdline)
        };
        let id = "0123456789abcdef";
        assert_eq!(monitor("0::/system.slice/job.service", id).as_deref(), Some("job.service"));
        assert_eq!(monitor("0::/system.slice/job.service", "fedcba9876543210"), None);
        assert_eq!(monitor("0::/machine.slice/libpod-conmon-0123456789abcdef.scope", id), None);
    }

    #[test]
    fn who_may_not_order_the_engine_says_nothing_of_its_containers() {
        let socket = tempfile::NamedTempFile::new().expect("a file");
        let group = fs::metadata(socket.path()).expect("is there").gid();
        let of = |engine, user, status: &str, service: &str| {
            let comm = if engine == Kind::Docker { "docker" } else { "podman" };
            let cgroup = format!("0::/system.slice/{service}");
            unit_of_user(engine, user, status, comm, &cgroup, &format!("{comm} run --name job image "))
        };
        let alice = format!("Uid:\t7\t7\t7\t7\nGroups:\t{}", group + 1);
        assert_eq!(of(Kind::Docker, None, &alice, "job.service"), None);
        assert_eq!(of(Kind::Podman, None, &alice, "job.service"), None);
        assert!(of(Kind::Podman, Some(7), &alice, "job.service").is_some());
        assert_eq!(of(Kind::Podman, Some(8), &alice, "job.service"), None);
        let member = format!("Uid:\t7\t7\t7\t7\nGroups:\t1 {group}");
        assert!(of(Kind::Docker, None, &member, "job.service").is_some());
        // A set-uid program under another name is still alice's.
        assert_eq!(of(Kind::Docker, None, "Uid:\t7\t0\t0\t0\nGroups:\t999999", "job.service"), None);
        let root = "Uid:\t0\t0\t0\t0\nGroups:\t0";
        assert!(of(Kind::Docker, None, root, "job.service").is_some());
        for host in ["cron.service", "ssh.service"] {
            assert_eq!(of(Kind::Docker, None, root, host), None, "{host} only hosts it");
        }
    }
}
