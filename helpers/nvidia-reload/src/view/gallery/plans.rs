// SPDX-License-Identifier: MIT
//! Plans, for the tests of the views.

use ledger::Step;
use step::{Action, Plan, Reason, Root, Verdict, Versions};

use crate::expected::{Expected, Took};
use crate::kind::Kind as Command;
use crate::plan::Proposal;

/// A plan with a container, a process, and something to be warned of.
pub fn ready_plan() -> Plan {
    let action = |step, object: &str, what: &str, why: &str, pids: &[i32], comes_back| Action {
        step,
        object: object.into(),
        what: what.into(),
        why: why.into(),
        pids: pids.to_vec(),
        comes_back,
    };
    let set = |pci: &str| ledger::Settings {
        pci: pci.into(),
        uuid: format!("GPU-{pci}"),
        settings: vec![
            ledger::Setting::Persistence,
            ledger::Setting::Mig,
            ledger::Setting::PowerLimit { milliwatts: 250_000 },
        ],
    };
    Plan {
        settings: vec![set("0000:3b:00.0"), set("0000:af:00.0")],
        verdict: Verdict::Ready,
        warnings: vec![Reason::new(
            "the initramfs holds 535.261.03: the next boot loads it",
            "run `update-initramfs -u`",
        )],
        driver: Versions { loaded: Some("535.261.03".into()), on_disk: Some("550.163.01".into()) },
        modules: ["nvidia_drm", "nvidia_modeset", "nvidia_uvm", "nvidia"].map(Into::into).to_vec(),
        actions: vec![
            action(
                Step::DrainContainers,
                "docker container train (4f2a91c0b1de)",
                "stop, start again afterwards",
                "its process 4242 holds nvidia0, nvidiactl and nvidia-uvm",
                &[4242],
                true,
            ),
            action(
                Step::KillHolders,
                "process 5151 (sleep\n 1000)",
                "SIGTERM, after 10 s SIGKILL",
                "holds nvidiactl; no container or unit owns it",
                &[5151],
                false,
            ),
            action(
                Step::RmmodChain,
                "module nvidia",
                "unload, load again from disk",
                "part of the driver",
                &[],
                true,
            ),
            action(
                Step::Restore,
                "nvidia-fabricmanager.service",
                "start",
                "it failed (exit-code)",
                &[],
                true,
            ),
        ],
        ..Plan::refused(Vec::new())
    }
}

/// The plan of `command`, on a machine with a user and a run before.
pub fn proposed(command: Command, plan: Plan) -> Proposal {
    let mut proposal = Proposal::new(&Root::at("/no/such/root"), command, plan);
    let took = Took { seconds: 38.4, downtime_seconds: Some(31.2), ended_usec: 1_763_990_000_000_000 };
    let last = matches!(command, Command::Reload | Command::Install).then_some(took);
    proposal.expected = Expected { last, container_seconds: Some(60), process_seconds: Some(10) };
    proposal
}

/// What `start` finds in the ledger of an offline machine.
pub fn restoring_plan() -> Plan {
    let action = |step, object: &str| Action {
        step,
        object: object.into(),
        what: "restore".into(),
        why: String::new(),
        pids: Vec::new(),
        comes_back: true,
    };
    Plan {
        driver: Versions { loaded: None, on_disk: Some("550.163.01".into()) },
        warnings: vec![Reason::new(
            "process 5151 (sleep 1000) was killed and is not restarted",
            "start it again by hand",
        )],
        actions: vec![
            action(Step::DrainContainers, "docker container train (4f2a91c0b1de)"),
            action(Step::UnbindVt, "console vtcon1 ((M) frame buffer device)"),
        ],
        settings: Vec::new(),
        ..ready_plan()
    }
}

/// A plan that is none.
pub fn refused_plan() -> Plan {
    Plan {
        verdict: Verdict::Refused,
        reasons: vec![Reason::new(
            "Xorg (pid 812) draws on card0, and whoever sits before it would lose the session",
            "stop it: `systemctl stop display-manager.service`",
        )],
        ..ready_plan()
    }
}
