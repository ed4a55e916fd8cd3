// SPDX-License-Identifier: MIT
//! Machines side by side on a network of their own. They wake from one state, and become others before they meet.

use std::ffi::OsString;
use std::fs;
use std::net::UdpSocket;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::machine::Machine;
use crate::progress::note;
use crate::room::Room;
use crate::scenario::Scenario;
use crate::stages::{self, Content};

/// A network of the rig's machines, and of nothing else: frames travel as multicast packets within this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lan {
    /// How many machines are on it.
    pub machines: u32,
    /// Its port: what tells it from others.
    port: u16,
}

impl Lan {
    /// A network for so many machines.
    pub fn of(machines: u32) -> Result<Self> {
        let free = UdpSocket::bind(("127.0.0.1", 0)).context("cannot find a free port")?;
        Ok(Lan { machines, port: free.local_addr()?.port() })
    }

    /// What QEMU calls `lan`.
    pub fn netdev(&self) -> String {
        format!("socket,id=lan,mcast=230.0.0.1:{},localaddr=127.0.0.1", self.port)
    }
}

/// Makes the machine the one of this number: its name, its address, and those of the others.
const BECOME: &str = r#"
number=$1 machines=$2
hostnamectl set-hostname "node$number"
printf '127.0.0.1 localhost\n127.0.1.1 node%s\n' "$number" >/etc/hosts
for other in $(seq "$machines"); do
	echo "10.9.0.$other node$other" >>/etc/hosts
	echo "node$other $(cut -d ' ' -f 1,2 /etc/ssh/ssh_host_ed25519_key.pub)" >>/root/.ssh/known_hosts
done
cat >/etc/systemd/network/05-lan.network <<END
[Match]
Name=enp0s16
[Link]
MACAddress=52:54:00:00:09:0$number
[Network]
Address=10.9.0.$number/24
LinkLocalAddressing=no
IPv6AcceptRA=no
END
networkctl reload
"#;

/// Root's key on the first machine: what it prints is the other half.
const KEY: &str =
    "ssh-keygen -q -t ed25519 -N '' -C node1 -f /root/.ssh/id_ed25519 && cat /root/.ssh/id_ed25519.pub";

/// The machines; the first is the one that scenarios run in.
pub struct Fleet(Vec<Machine>);

impl Fleet {
    /// Starts what the scenario asks for: one machine, or as many as are on its network.
    pub fn start(cache: &Cache, content: &Content<'_>, scenario: Option<&Scenario>) -> Result<Self> {
        let spec = content.spec;
        let built = stages::provide(cache, content).context("there is no machine to run it in")?;
        let mut fleet = Fleet(vec![Machine::throw_away(cache, &built, spec)?]);
        if let Some(lan) = &spec.lan {
            for number in 2..=lan.machines {
                note(format!("waking machine {number} of {}", lan.machines));
                fleet.0.push(Machine::throw_away(cache, &built, spec)?);
            }
            fleet.connect(lan, scenario)?;
        }
        if scenario.is_some_and(|scenario| scenario.header().with_ansible) {
            fleet.0[0].ssh()?.send(&ansible(cache)?)?;
        }
        if scenario.is_some_and(|scenario| scenario.header().with_rpm) {
            fleet.0[0].ssh()?.send(&rpm(cache)?)?;
        }
        Ok(fleet)
    }

    /// The machine that scenarios run in.
    pub fn first(&mut self) -> &mut Machine {
        &mut self.0[0]
    }

    fn connect(&mut self, lan: &Lan, scenario: Option<&Scenario>) -> Result<()> {
        let mut key = String::new();
        for (machine, number) in self.0.iter_mut().zip(1..) {
            let ssh = machine.ssh()?;
            if let Some(scenario) = scenario {
                // With the library, and the clock is set.
                scenario.copy_into(ssh)?;
            }
            let quoted = shlex::try_quote(BECOME)?;
            ssh.output(&format!("sh -euc {quoted} become {number} {}", lan.machines))?;
            if number == 1 {
                key = ssh.output(KEY)?;
            }
            let key = shlex::try_quote(key.trim())?;
            ssh.output(&format!("echo {key} >>/root/.ssh/authorized_keys"))?;
            machine.link_up()?;
        }
        for number in 2..=lan.machines {
            let until = "end=$(($(date +%s) + 120)); until ssh -o BatchMode=yes -o ConnectTimeout=10 \
                HOST true; do [ $(date +%s) -lt $end ] || exit 1; sleep 0.5; done";
            let reach = until.replace("HOST", &format!("node{number}"));
            self.0[0].ssh()?.output(&reach).context("the machines do not reach each other")?;
        }
        Ok(())
    }
}

/// Arguments for tar: Ansible of the machine's own suite, which is Python's files and nothing else.
fn ansible(cache: &Cache) -> Result<Vec<OsString>> {
    let room = Room::unpacked(cache, "ansible", "Ansible for the machine", &["ansible-core"])?;
    let mut arguments: Vec<OsString> =
        ["--owner=0", "--group=0", "--exclude=ansible_test"].map(Into::into).into();
    arguments.extend(["-C".into(), room.root().into(), "usr/lib/python3/dist-packages".into()]);
    arguments.extend(starting(&room.root(), &[("usr/bin", "ansible"), (LIBRARIES, "libyaml-0.so")])?);
    Ok(arguments)
}

/// Arguments for tar: rpm of the machine's own suite, with what builds packages, and the product's package for it.
fn rpm(cache: &Cache) -> Result<Vec<OsString>> {
    const OWN: [&str; 8] =
        ["librpm", "liblua5.3.", "libpopt.", "libgomp.", "libmagic.", "libdw", "libelf", "libsqlite3."];
    let room = Room::unpacked(cache, "rpm", "rpm for the machine", &["rpm"])?;
    let product = stages::package(cache)?.context("this checkout has no package")?;
    let package = product.file_like("nvidia-reload-", ".rpm")?;
    let name = package.file_name().context("the package has no name")?;
    let mut arguments: Vec<OsString> = ["--owner=0", "--group=0"].map(Into::into).into();
    arguments.push("--transform=s,^nvidia-reload-.*\\.rpm$,usr/share/rig/nvidia-reload.rpm,".into());
    arguments.extend(["-C".into(), room.root().into()]);
    arguments.extend(["usr/lib/rpm", "usr/lib/file", "usr/share/file", "usr/share/misc"].map(Into::into));
    let libraries = OWN.map(|start| (LIBRARIES, start));
    arguments.extend(starting(&room.root(), &[&[("usr/bin", "rpm")], &libraries[..]].concat())?);
    arguments.extend(["-C".into(), product.folder().into(), name.to_owned()]);
    Ok(arguments)
}

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// What begins so in these folders of `root`.
fn starting(root: &Path, wanted: &[(&str, &str)]) -> Result<Vec<OsString>> {
    let mut found = Vec::new();
    for (folder, start) in wanted {
        for entry in fs::read_dir(root.join(folder)).with_context(|| format!("there is no {folder}"))? {
            let name = entry?.file_name();
            if name.to_string_lossy().starts_with(start) {
                found.push(format!("{folder}/{}", name.to_string_lossy()).into());
            }
        }
    }
    Ok(found)
}
