//! What has to be done to a holder so that it lets go, and by which step: asked of the same code by
//! the plan that shows it and by the steps that do it.

use crate::model::{Engine, Holder, Owner};
use crate::process::Stat;
use serde::Serialize;
use std::fs;
use step::Root;

/// What a run does to a holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "fate")]
pub enum Fate {
    /// Its engine stops the container.
    StopContainer,
    /// The unit that owns it is stopped by its manager.
    StopUnit {
        /// The user whose manager it is; none for the system's.
        user: Option<u32>,
        /// The unit.
        unit: String,
    },
    /// It belongs to nobody and is ended.
    Kill,
    /// Nobody touches it: the run is refused.
    Refuse {
        /// Why, as the end of a sentence about the holder.
        why: String,
        /// What a person can do.
        remedy: String,
    },
}

/// What must not be touched.
#[derive(Debug, Clone, Default)]
pub struct Rules<'a> {
    /// Units that the configuration protects.
    pub units: &'a [String],
    /// Short names of processes that the configuration protects.
    pub processes: &'a [String],
    /// This process and those above it, see [`ancestors`].
    pub ancestors: &'a [i32],
    /// Whether what drives a screen may be stopped like anything else.
    pub screens: bool,
    /// Units, with the user whose they are, that were dealt with already: what is left in them was
    /// not the unit's to stop (`KillMode=process`) and is a plain process now.
    pub dealt_with: &'a [(Option<u32>, String)],
}

impl Rules<'_> {
    /// What is to be done to `holder`.
    pub fn fate(&self, holder: &Holder) -> Fate {
        if holder.pid == 1 {
            return refuse(
                "is PID 1, which keeps it for a service in its store of descriptors",
                "stop the service, `systemctl show -p Id,NFileDescriptorStore '*.service'` shows which",
            );
        }
        if self.ancestors.contains(&holder.pid) {
            return refuse("runs this command", "start the run from another session");
        }
        if self.processes.contains(&holder.comm) {
            return refuse("is protected by the configuration", "end it, or lift processes.protect");
        }
        if let Owner::SystemUnit { unit, .. } = &holder.owner
            && unit == "systemd-logind.service"
        {
            return refuse(
                "keeps it for a graphical session",
                "end the session, or stop the display manager",
            );
        }
        if holder.screen && !self.screens {
            return refuse("drives a screen", "stop the display manager, or end the session");
        }
        match &holder.owner {
            Owner::Container(container) => match (&container.unit, container.engine) {
                (Some(unit), _) => self.unit(container.uid, unit),
                (None, Engine::Lxc | Engine::Machine) => {
                    refuse(&format!("runs in the machine {}", container.id), "stop it, or what it runs there")
                }
                (None, _) => Fate::StopContainer,
            },
            Owner::SystemUnit { unit, .. } => self.unit(None, unit),
            Owner::UserUnit { uid, unit } => self.unit(Some(*uid), unit),
            Owner::Session { .. } | Owner::SlurmStep { .. } | Owner::Process => Fate::Kill,
        }
    }

    fn unit(&self, user: Option<u32>, unit: &str) -> Fate {
        if self.dealt_with.iter().any(|(whose, name)| *whose == user && name == unit) {
            return Fate::Kill;
        }
        if self.units.iter().any(|name| name == unit) {
            return refuse(
                &format!("runs in {unit}, which the configuration protects"),
                "stop it, or lift units.protect",
            );
        }
        if is_core(unit) {
            return refuse(&format!("runs in {unit}, which is never stopped"), "make it let go of the GPU");
        }
        // A scope cannot be started again, and a host of other people's processes is not their
        // owner: there the process itself is all there is.
        if !unit.ends_with(".service") || is_host(unit) {
            return Fate::Kill;
        }
        Fate::StopUnit { user, unit: unit.to_owned() }
    }
}

fn refuse(why: &str, remedy: &str) -> Fate {
    Fate::Refuse { why: why.to_owned(), remedy: remedy.to_owned() }
}

/// Whether a unit is one that no run stops, neither itself nor along with another: what holds the
/// machine together, and the engines, whose containers are asked for one by one.
pub fn is_core(unit: &str) -> bool {
    const NAMES: [&str; 16] = [
        "init.scope",
        "dbus.service",
        "dbus.socket",
        "dbus-broker.service",
        "systemd-logind.service",
        "systemd-journald.service",
        "systemd-machined.service",
        "docker.service",
        "docker.socket",
        "containerd.service",
        "podman.service",
        "podman.socket",
        "crio.service",
        "kubelet.service",
        "k3s.service",
        "k3s-agent.service",
    ];
    NAMES.contains(&unit)
        || unit.starts_with("nvidia-reload")
        || unit.starts_with("rke2-")
        || (unit.starts_with("user@") && unit.ends_with(".service"))
        || unit.ends_with(".slice")
        || unit.ends_with(".target")
}

/// Whether a service only hosts what others start in it, and would take them all along.
fn is_host(unit: &str) -> bool {
    const NAMES: [&str; 9] = [
        "ssh.service",
        "sshd.service",
        "cron.service",
        "crond.service",
        "atd.service",
        "getty@.service",
        "systemd-udevd.service",
        "slurmd.service",
        "rc-local.service",
    ];
    let template = unit.split_once('@').map(|(name, _)| format!("{name}@.service"));
    NAMES.contains(&unit)
        || template.is_some_and(|name| NAMES.contains(&name.as_str()) || name == "ssh@.service")
}

/// The process `pid` and all above it, itself first; PID 1 is left out.
pub fn ancestors(root: &Root, pid: i32) -> Vec<i32> {
    let mut line = vec![pid];
    let mut at = pid;
    // A tree that is no tree must end too.
    while line.len() < 1000 {
        let stat = fs::read(root.path(format!("/proc/{at}/stat"))).ok();
        match stat.and_then(|text| Stat::parse(&text)) {
            Some(stat) if stat.ppid > 1 => {
                at = stat.ppid;
                line.push(at);
            }
            _ => break,
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Container;

    fn holder(owner: Owner) -> Holder {
        Holder {
            pid: 42,
            start_ticks: 1,
            since: None,
            uid: 0,
            user: None,
            comm: "train".into(),
            command: vec!["train".into()],
            state: 'S',
            devices: Vec::new(),
            owner,
            screen: false,
            gpu_memory: None,
        }
    }

    fn unit(name: &str) -> Owner {
        Owner::SystemUnit { unit: name.into(), slice: "system.slice".into() }
    }

    fn container(engine: Engine, unit: Option<&str>) -> Owner {
        let unit = unit.map(str::to_owned);
        Owner::Container(Container { engine, id: "c".into(), uid: None, unit, pod: None })
    }

    fn fate(owner: Owner) -> Fate {
        Rules::default().fate(&holder(owner))
    }

    fn is_refused(fate: &Fate) -> bool {
        matches!(fate, Fate::Refuse { .. })
    }

    #[test]
    fn the_owner_is_asked() {
        let stop = |user, unit: &str| Fate::StopUnit { user, unit: unit.into() };
        assert_eq!(fate(unit("x.service")), stop(None, "x.service"));
        assert_eq!(fate(Owner::UserUnit { uid: 7, unit: "x.service".into() }), stop(Some(7), "x.service"));
        assert_eq!(fate(container(Engine::Docker, None)), Fate::StopContainer);
        assert_eq!(fate(container(Engine::Podman, Some("q.service"))), stop(None, "q.service"));
        assert!(is_refused(&fate(container(Engine::Lxc, None))));
    }

    #[test]
    fn who_has_no_owner_that_could_bring_it_back_is_killed() {
        for owner in [
            Owner::Process,
            Owner::Session { id: "3".into(), uid: Some(7) },
            unit("run-r1.scope"),
            unit("ssh.service"),
            unit("ssh@0-10.0.0.1:22.service"),
            unit("getty@tty1.service"),
            Owner::UserUnit { uid: 7, unit: "app-x.scope".into() },
        ] {
            assert_eq!(fate(owner.clone()), Fate::Kill, "{owner:?}");
        }
    }

    #[test]
    fn what_holds_the_machine_together_is_not_touched() {
        for name in ["init.scope", "user@7.service", "docker.service", "systemd-logind.service"] {
            assert!(is_refused(&fate(unit(name))), "{name}");
        }
        let first = Holder { pid: 1, ..holder(unit("init.scope")) };
        assert!(is_refused(&Rules::default().fate(&first)));
    }

    #[test]
    fn the_configuration_and_the_caller_are_spared() {
        let protected = ["x.service".to_owned()];
        let rules = Rules { units: &protected, ..Rules::default() };
        assert!(is_refused(&rules.fate(&holder(unit("x.service")))));
        let protected = ["train".to_owned()];
        let rules = Rules { processes: &protected, ..Rules::default() };
        assert!(is_refused(&rules.fate(&holder(Owner::Process))));
        let rules = Rules { ancestors: &[42], ..Rules::default() };
        assert!(is_refused(&rules.fate(&holder(Owner::Process))));
    }

    #[test]
    fn a_screen_is_not_taken_away_unasked() {
        let server = Holder { screen: true, ..holder(unit("display-manager.service")) };
        assert!(is_refused(&Rules::default().fate(&server)));
        let rules = Rules { screens: true, ..Rules::default() };
        assert!(matches!(rules.fate(&server), Fate::StopUnit { .. }));
    }

    #[test]
    fn what_a_stopped_unit_left_behind_is_plain() {
        let stopped = [(None, "x.service".to_owned())];
        let rules = Rules { dealt_with: &stopped, ..Rules::default() };
        assert_eq!(rules.fate(&holder(unit("x.service"))), Fate::Kill);
        assert!(matches!(
            rules.fate(&holder(Owner::UserUnit { uid: 7, unit: "x.service".into() })),
            Fate::StopUnit { .. }
        ));
    }

    #[test]
    fn our_own_line() {
        let me = i32::try_from(std::process::id()).expect("a pid");
        let line = ancestors(&Root::system(), me);
        assert_eq!(line[0], me);
        assert_eq!(u32::try_from(line[1]), Ok(std::os::unix::process::parent_id()));
        assert!(!line.contains(&1));
    }
}
