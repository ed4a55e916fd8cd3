// SPDX-License-Identifier: MIT
//! What has to be done to a holder so that it lets go, and by which step: asked of the same code by
//! the plan that shows it and by the steps that do it.

use crate::guard::{covers, is_guarded};
use crate::line::Caller;
use crate::model::{Engine, Holder, Owner};
use crate::names::{is_core, is_host};
use crate::sessions::is_logind;
use crate::slurm::drain_command;
use serde::Serialize;
use step::Guard;

/// What a run does to a holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "fate")]
pub enum Disposition {
    /// Its engine stops the container.
    StopContainer,
    /// The unit that owns it is stopped by its manager.
    StopUnit {
        /// The user whose manager it is; none for the system's.
        user: Option<u32>,
        /// The unit.
        unit: String,
    },
    /// It has no owner and is killed.
    Kill,
    /// logind keeps it for a session without a display server: logind is asked to close it.
    Release,
    /// It is not touched: the run is refused.
    Refuse {
        /// Why, as the end of a sentence about the holder.
        why: String,
        /// What a person can do.
        remedy: String,
    },
}

/// What the one who asks can do where the run would end him.
const FROM_ELSEWHERE: &str = "start the run from another session";

/// What must not be touched.
#[derive(Debug, Clone, Default)]
pub struct Rules<'a> {
    /// Units that the configuration protects.
    pub units: &'a [Guard],
    /// Short names of processes that the configuration protects.
    pub processes: &'a [Guard],
    /// Who asks.
    pub caller: Option<&'a Caller>,
    /// Whether what drives a screen may be stopped like anything else.
    pub screens: bool,
    /// Units, with the user whose they are, that were dealt with already: what is left in them was
    /// not the unit's to stop (`KillMode=process`) and is a plain process now.
    pub dealt_with: &'a [(Option<u32>, String)],
    /// Whether containers and units were dealt with already: a process that is left in what a user calls a
    /// container, or in a user's unit, is a plain process.
    pub drained: bool,
}

impl Rules<'_> {
    /// What is to be done to `holder`.
    pub fn disposition(&self, holder: &Holder) -> Disposition {
        match self.disposition_of_any(holder) {
            // What is stopped as a whole would take the one who asks with it.
            Disposition::StopUnit { .. } | Disposition::StopContainer
                if self.caller.is_some_and(|caller| caller.runs_in(&holder.owner)) =>
            {
                let place = match &holder.owner {
                    Owner::SystemUnit { unit, .. } | Owner::UserUnit { unit, .. } => unit.as_str(),
                    _ => "the container",
                };
                refuse(&format!("runs in {place}, where this command runs"), FROM_ELSEWHERE)
            }
            disposition => disposition,
        }
    }

    fn disposition_of_any(&self, holder: &Holder) -> Disposition {
        if holder.pid == 1 && !is_logind(&holder.owner) {
            return refuse(
                "is PID 1, which keeps it in the file descriptor store of a service",
                "stop the service, `systemctl show -p Id,NFileDescriptorStore '*.service'` shows which",
            );
        }
        if self.caller.is_some_and(|caller| caller.is(holder.pid)) {
            return refuse("runs this command", FROM_ELSEWHERE);
        }
        if self.processes.iter().any(|guard| covers(guard, holder)) {
            return refuse("is protected by the configuration", "terminate it, or change processes.protect");
        }
        if is_logind(&holder.owner) {
            return match &holder.owner {
                Owner::SystemUnit { unit, .. } if is_guarded(self.units, None, unit) => refuse(
                    "keeps it for a session, and the configuration protects it",
                    "end the session, or lift units.protect",
                ),
                _ if holder.screen => {
                    refuse("keeps it for a graphical session", "end the session, or stop the display manager")
                }
                _ => Disposition::Release,
            };
        }
        if holder.screen && !self.screens {
            return refuse("drives a screen", "stop the display manager, or end the session");
        }
        match &holder.owner {
            Owner::Container(container) => match (&container.unit, container.engine) {
                (Some(unit), _) => self.unit(container.uid, unit),
                (None, _) if self.drained && container.uid.is_some() => Disposition::Kill,
                (None, Engine::Lxc | Engine::Machine) => {
                    refuse(&format!("runs in the machine {}", container.id), "stop it, or what it runs there")
                }
                (None, _) => Disposition::StopContainer,
            },
            Owner::SystemUnit { unit, .. } => self.unit(None, unit),
            Owner::UserUnit { uid, unit } => self.unit(Some(*uid), unit),
            Owner::SlurmStep { job, .. } => refuse(
                &format!("is of Slurm job {job}, whose processes are never killed"),
                &drain_command(None),
            ),
            Owner::Session { .. } | Owner::Process => Disposition::Kill,
        }
    }

    fn unit(&self, user: Option<u32>, unit: &str) -> Disposition {
        if self.dealt_with.iter().any(|(whose, name)| *whose == user && name == unit) {
            return Disposition::Kill;
        }
        if is_guarded(self.units, user, unit) {
            return refuse(
                &format!("runs in {unit}, which the configuration protects"),
                "stop it, or lift units.protect",
            );
        }
        // What a user calls his units says nothing about them.
        if user.is_none() && is_core(unit) {
            return refuse(&format!("runs in {unit}, which is never stopped"), "make it close the GPU");
        }
        // A scope cannot be started again, and a host of other people's processes is not their
        // owner: there the process itself is all there is.
        if !unit.ends_with(".service") || (user.is_none() && is_host(unit)) {
            return Disposition::Kill;
        }
        // Its manager did not answer, or starts others as fast as they are stopped: that fails no run.
        if self.drained && user.is_some() {
            return Disposition::Kill;
        }
        Disposition::StopUnit { user, unit: unit.to_owned() }
    }
}

fn refuse(why: &str, remedy: &str) -> Disposition {
    Disposition::Refuse { why: why.to_owned(), remedy: remedy.to_owned() }
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
        Owner::Container(claim(engine, None, unit))
    }

    fn claim(engine: Engine, uid: Option<u32>, unit: Option<String>) -> Container {
        Container { engine, id: "c".into(), uid, unit, group: String::new(), pod: None }
    }

    fn bare(name: &str) -> Vec<Guard> {
        vec![Guard { user: None, name: name.into() }]
    }

    fn disposition(owner: Owner) -> Disposition {
        Rules::default().disposition(&holder(owner))
    }

    fn is_refused(disposition: &Disposition) -> bool {
        matches!(disposition, Disposition::Refuse { .. })
    }

    #[test]
    fn the_owner_is_asked() {
        let stop = |user, unit: &str| Disposition::StopUnit { user, unit: unit.into() };
        assert_eq!(disposition(unit("x.service")), stop(None, "x.service"));
        assert_eq!(
            disposition(Owner::UserUnit { uid: 7, unit: "x.service".into() }),
            stop(Some(7), "x.service")
        );
        assert_eq!(disposition(container(Engine::Docker, None)), Disposition::StopContainer);
        assert_eq!(disposition(container(Engine::Podman, Some("q.service"))), stop(None, "q.service"));
        assert!(is_refused(&disposition(container(Engine::Lxc, None))));
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
            unit("cron.service"),
            unit("sshd@3-10.0.0.1:22.service"),
            Owner::UserUnit { uid: 7, unit: "app-x.scope".into() },
        ] {
            assert_eq!(disposition(owner.clone()), Disposition::Kill, "{owner:?}");
        }
    }

    #[test]
    fn a_job_is_drained_and_not_killed() {
        let step = Owner::SlurmStep { job: "7".into(), step: "0".into() };
        // Also when everything else has been dealt with.
        for rules in [Rules::default(), Rules { drained: true, screens: true, ..Rules::default() }] {
            let Disposition::Refuse { why, remedy } = rules.disposition(&holder(step.clone())) else {
                panic!("refused")
            };
            assert!(why.contains("Slurm job 7") && remedy.contains("State=DRAIN"), "{why}: {remedy}");
        }
        // What starts the jobs is stopped and started as any unit; what of jobs is in its group is of a job.
        assert!(matches!(disposition(unit("slurmd.service")), Disposition::StopUnit { .. }));
    }

    #[test]
    fn what_holds_the_machine_together_is_not_touched() {
        for name in ["init.scope", "user@7.service", "docker.service"] {
            assert!(is_refused(&disposition(unit(name))), "{name}");
        }
        let logind = "systemd-logind.service";
        assert_eq!(disposition(unit(logind)), Disposition::Release);
        assert_eq!(
            Rules::default().disposition(&Holder { pid: 1, ..holder(unit(logind)) }),
            Disposition::Release
        );
        let server = Holder { screen: true, ..holder(unit(logind)) };
        assert!(is_refused(&Rules { screens: true, ..Rules::default() }.disposition(&server)));
        let protected = bare(logind);
        let rules = Rules { units: &protected, ..Rules::default() };
        assert!(is_refused(&rules.disposition(&holder(unit(logind)))));
        let first = Holder { pid: 1, ..holder(unit("init.scope")) };
        assert!(is_refused(&Rules::default().disposition(&first)));
    }

    #[test]
    fn what_the_configuration_protects_and_the_caller_are_not_killed() {
        let protected = bare("x.service");
        let rules = Rules { units: &protected, ..Rules::default() };
        assert!(is_refused(&rules.disposition(&holder(unit("x.service")))));
        let protected = bare("train");
        let rules = Rules { processes: &protected, ..Rules::default() };
        assert!(is_refused(&rules.disposition(&holder(Owner::Process))));
    }

    #[test]
    fn the_caller_is_protected_and_what_it_runs_in() {
        let caller = |line: &[i32], owner: &Owner| Caller::of(line, owner.clone());
        let with = |caller: &Caller, owner: Owner| {
            Rules { caller: Some(caller), ..Rules::default() }.disposition(&holder(owner))
        };
        assert!(is_refused(&with(&caller(&[42], &Owner::Process), Owner::Process)));
        assert_eq!(with(&caller(&[41], &Owner::Process), Owner::Process), Disposition::Kill);
        for owner in [unit("x.service"), container(Engine::Docker, None)] {
            assert!(is_refused(&with(&caller(&[], &owner), owner.clone())), "{owner:?}");
            assert!(!is_refused(&with(&caller(&[], &unit("y.service")), owner.clone())), "{owner:?}");
        }
        // A neighbour there is ended alone.
        for owner in [Owner::Session { id: "3".into(), uid: Some(7) }, unit("ssh.service")] {
            assert_eq!(with(&caller(&[], &owner), owner.clone()), Disposition::Kill, "{owner:?}");
        }
    }

    #[test]
    fn a_bare_name_guards_what_is_roots_or_the_systems() {
        let protected = bare("train");
        let rules = Rules { processes: &protected, ..Rules::default() };
        let of = |uid, owner| Holder { uid, ..holder(owner) };
        let session = Owner::Session { id: "3".into(), uid: Some(7) };
        for guarded in
            [of(0, session.clone()), of(7, unit("x.service")), of(7, container(Engine::Docker, None))]
        {
            assert!(is_refused(&rules.disposition(&guarded)), "{guarded:?}");
        }
        for users in [
            of(7, session.clone()),
            of(7, Owner::Process),
            // What cron or a server of logins hosts is the user's.
            of(7, unit("cron.service")),
            of(7, Owner::UserUnit { uid: 7, unit: "x.scope".into() }),
        ] {
            assert_eq!(rules.disposition(&users), Disposition::Kill, "{users:?}");
        }
        let protected = [Guard { user: Some(7), name: "train".into() }];
        let rules = Rules { processes: &protected, ..Rules::default() };
        assert!(is_refused(&rules.disposition(&of(7, session.clone()))));
        assert_eq!(rules.disposition(&of(8, session)), Disposition::Kill);
        assert_eq!(rules.disposition(&of(0, Owner::Process)), Disposition::Kill);
    }

    #[test]
    fn what_a_user_says_of_himself_does_not_protect_him() {
        let own = |unit: &str| Owner::UserUnit { uid: 7, unit: unit.into() };
        for name in ["docker.service", "nvidia-reload-x.service", "dbus.service", "ssh.service"] {
            let stop = Disposition::StopUnit { user: Some(7), unit: name.into() };
            assert_eq!(disposition(own(name)), stop);
            let protected = bare(name);
            let rules = Rules { units: &protected, ..Rules::default() };
            assert_eq!(rules.disposition(&holder(own(name))), stop, "a bare name is of the system");
            let protected = [Guard { user: Some(7), name: name.into() }];
            let rules = Rules { units: &protected, ..Rules::default() };
            assert!(is_refused(&rules.disposition(&holder(own(name)))));
        }
        assert_eq!(disposition(own("init.scope")), Disposition::Kill);
        assert_eq!(disposition(own("machine-x.scope")), Disposition::Kill);
        // A container that the user's engine does not know is found out when the engines were asked.
        let liar = holder(Owner::Container(claim(Engine::Docker, Some(7), None)));
        assert_eq!(Rules::default().disposition(&liar), Disposition::StopContainer);
        let drained = Rules { drained: true, ..Rules::default() };
        assert_eq!(drained.disposition(&liar), Disposition::Kill);
        assert_eq!(drained.disposition(&holder(container(Engine::Docker, None))), Disposition::StopContainer);
        // The same of a unit that is there when units were stopped, of a user's only.
        assert_eq!(drained.disposition(&holder(own("x.service"))), Disposition::Kill);
        let stop = Disposition::StopUnit { user: None, unit: "x.service".into() };
        assert_eq!(drained.disposition(&holder(unit("x.service"))), stop);
        let protected = [Guard { user: Some(7), name: "x.service".into() }];
        let drained = Rules { units: &protected, drained: true, ..Rules::default() };
        assert!(is_refused(&drained.disposition(&holder(own("x.service")))));
    }

    #[test]
    fn a_screen_is_not_taken_away_unasked() {
        let server = Holder { screen: true, ..holder(unit("display-manager.service")) };
        assert!(is_refused(&Rules::default().disposition(&server)));
        let rules = Rules { screens: true, ..Rules::default() };
        assert!(matches!(rules.disposition(&server), Disposition::StopUnit { .. }));
    }

    #[test]
    fn what_a_stopped_unit_left_behind_is_plain() {
        let stopped = [(None, "x.service".to_owned())];
        let rules = Rules { dealt_with: &stopped, ..Rules::default() };
        assert_eq!(rules.disposition(&holder(unit("x.service"))), Disposition::Kill);
        assert!(matches!(
            rules.disposition(&holder(Owner::UserUnit { uid: 7, unit: "x.service".into() })),
            Disposition::StopUnit { .. }
        ));
    }
}
