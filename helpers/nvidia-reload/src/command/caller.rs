// SPDX-License-Identifier: MIT
//! What this command runs in, which no run may end: the steps are systemd's, and cannot know who asked.

use holders::{Caller, Disposition, Rules, Scan, Scope};
use ledger::Step;
use modules::nodes;
use step::{Plan, Root};

use crate::fault::{Fault, Result};

/// The GPUs that `plan` resets.
///
/// # Errors
/// The kernel does not tell their device nodes.
pub fn scope(plan: &Plan, root: &Root) -> Result<Scope> {
    let resets = plan.actions.iter().filter(|action| action.step == Step::GpuReset);
    let mut nodes = Vec::new();
    for pci in resets.filter_map(|action| action.object.strip_prefix("GPU ")) {
        nodes.extend(nodes::of_gpu(root, pci)?);
    }
    Ok(nodes.into_iter().collect())
}

/// Refuses to begin where a run on the GPUs of `scope` would end what this command runs in.
///
/// # Errors
/// It would, or that is not known: nothing was begun.
pub fn protect(scope: &Scope, root: &Root) -> Result<()> {
    let scan = holders::scan(root).map_err(|error| {
        let remedy = "`nvidia-reload status` shows what can be read";
        Fault::refused("it is not known who holds the GPU; nothing was begun", remedy).because(&error)
    })?;
    check(&scan.within(scope), &Caller::this(root))
}

fn check(scan: &Scan, caller: &Caller) -> Result<()> {
    let rules = Rules { caller: Some(caller), screens: true, ..Rules::default() };
    for holder in &scan.holders {
        if !caller.is(holder.pid) && !caller.runs_in(&holder.owner) {
            continue;
        }
        if let Disposition::Refuse { why, remedy } = rules.disposition(holder) {
            let who = format!("process {} ({})", holder.pid, holder.command_line());
            return Err(Fault::refused(format!("{who} {why}; nothing was begun"), remedy));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use holders::{Device, Holder, Kind, Owner, Via};
    use step::Action;

    use super::*;

    /// The shell of this command has `/dev/nvidia1` open.
    fn shell() -> Scan {
        let device = Device {
            rdev: None,
            kind: Kind::Gpu,
            name: "nvidia1".into(),
            module: "nvidia".into(),
            via: Via::Fd,
            count: 1,
            path: "/dev/nvidia1".into(),
        };
        let holder = Holder {
            pid: i32::try_from(std::os::unix::process::parent_id()).expect("a pid"),
            start_ticks: 0,
            since: None,
            uid: 0,
            user: None,
            comm: "bash".into(),
            command: vec!["-bash".into()],
            state: 'S',
            devices: vec![device],
            owner: Owner::Process,
            screen: false,
            gpu_memory: None,
        };
        Scan { holders: vec![holder], searched: true, ..Scan::default() }
    }

    fn reset_of(pci: &str) -> Plan {
        let action = Action {
            step: Step::GpuReset,
            object: format!("GPU {pci}"),
            what: "reset".into(),
            why: "asked for".into(),
            pids: Vec::new(),
            comes_back: true,
        };
        Plan { actions: vec![action], ..Plan::refused(Vec::new()) }
    }

    #[test]
    fn a_shell_that_uses_another_gpu_is_in_the_way_of_no_reset_of_one() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        for (pci, minor) in [("0000:01:00.0", 0), ("0000:02:00.0", 1)] {
            let folder = root.path(format!("/proc/driver/nvidia/gpus/{pci}"));
            fs::create_dir_all(&folder).expect("creates");
            fs::write(folder.join("information"), format!("Device Minor: \t {minor}\n")).expect("writes");
        }
        let caller = Caller::this(&Root::system());
        let check_reset =
            |pci| check(&shell().within(&scope(&reset_of(pci), &root).expect("reads")), &caller);
        assert!(check_reset("0000:01:00.0").is_ok());
        let fault = check_reset("0000:02:00.0").expect_err("would be killed");
        assert!(fault.error.contains("(-bash) runs this command"), "{fault:?}");
        check(&shell().within(&Scope::default()), &caller).expect_err("a reset of all would end it");
        scope(&reset_of("0000:03:00.0"), &root).expect_err("its nodes are not known");
    }
}
