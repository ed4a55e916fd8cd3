// SPDX-License-Identifier: MIT
//! GPU memory that is part of the system's: whether the driver can be unloaded from under it.

use anyhow::Result;
use holders::Holder;
use ledger::{Gpu, Setting};
use modules::coherent::{ANSWER, GpuMemory, Onlined, gpu_memory, only_a_reboot};
use step::Root;

use crate::findings::Findings;

/// The daemon through which persistence mode is on where it is stopped with what uses the GPU.
const DAEMON: &str = "nvidia-persistenced";

/// Looks at it before a reload. That it is online is right: it goes offline when the last user of the GPU has closed
/// it, and rmmod-chain unloads nothing before it is.
///
/// # Errors
/// The driver does not say how it is, in words that are known.
pub(crate) fn assess(root: &Root, findings: &mut Findings) -> Result<Vec<GpuMemory>> {
    let gpus = gpu_memory(root, ANSWER)?;
    for gpu in &gpus {
        match gpu.is {
            Onlined::Offline | Onlined::Online | Onlined::NotTold | Onlined::OfflineFailed => {}
            Onlined::OnlineInProgress | Onlined::OfflineInProgress => findings.refuse(
                format!("{gpu} is just being put online, or taken offline"),
                "wait until that is done; if it does not end, reboot the machine",
            ),
            Onlined::OnlineFailed => findings.warn(
                format!("{gpu} could not be put online, and the driver does not start this GPU"),
                "`echo online_movable >/sys/devices/system/memory/auto_online_blocks`, then start what uses the GPU again",
            ),
            Onlined::NoAnswer => findings.refuse(
                format!(
                    "the driver does not report within {} seconds whether {gpu} is online",
                    ANSWER.as_secs()
                ),
                "`journalctl -k` may show why; if this remains, only a reboot helps",
            ),
        }
    }
    for why in only_a_reboot(root, &gpus)? {
        findings.reboot(why, "reboot the machine: until then no driver starts this GPU again");
    }
    Ok(gpus)
}

/// Looks for what keeps it online when nothing uses the GPU any more: persistence mode without the daemon, which is the
/// driver's own.
pub(crate) fn persistence(memory: &[GpuMemory], gpus: &[Gpu], holders: &[Holder], findings: &mut Findings) {
    if holders.iter().any(|holder| DAEMON.starts_with(&holder.comm) && !holder.comm.is_empty()) {
        return;
    }
    for gpu in memory.iter().filter(|gpu| !gpu.is_offline()) {
        let is_kept = |known: &&Gpu| known.pci == gpu.pci && known.settings.contains(&Setting::Persistence);
        if gpus.iter().any(|known| is_kept(&known)) {
            findings.refuse(
                format!(
                    "{gpu} stays online when nothing uses the GPU: persistence mode is on without {DAEMON}"
                ),
                format!("`nvidia-smi --id={} --persistence-mode=0`, or run {DAEMON} instead", gpu.pci),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use step::Verdict;

    use super::*;

    fn machine(status: &str, iomem: &str) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let gpu = root.path("/proc/driver/nvidia/gpus/0009:01:00.0");
        fs::create_dir_all(&gpu).expect("creates");
        fs::write(root.path("/proc/iomem"), iomem).expect("writes");
        fs::write(gpu.join("numa_status"), format!("Node:      1\nStatus:    {status}\n")).expect("writes");
        (directory, root)
    }

    #[test]
    fn a_run_begins_only_where_the_memory_can_go_offline() {
        let left = "2000000000-202fffffff : System RAM (NVIDIA)\n";
        for (status, iomem, expected, warnings) in [
            ("online", left, Verdict::Ready, 0),
            ("offline", "", Verdict::Ready, 0),
            ("online_failed", "", Verdict::Ready, 1),
            ("online_in_progress", left, Verdict::Refused, 0),
            ("offline_in_progress", left, Verdict::Refused, 0),
            ("offline_failed", left, Verdict::RebootRequired, 0),
            ("offline", left, Verdict::RebootRequired, 0),
            ("online_failed", left, Verdict::RebootRequired, 1),
        ] {
            let (_directory, root) = machine(status, iomem);
            let mut findings = Findings::default();
            assess(&root, &mut findings).expect("judges");
            let (verdict, reasons, warned) = findings.verdict();
            assert_eq!((verdict, warned.len()), (expected, warnings), "{status} {reasons:?}");
            let words = [reasons, warned].concat();
            assert!(words.iter().all(|reason| !reason.remedy.is_empty()), "{status}");
        }
    }

    #[test]
    fn persistence_mode_keeps_it_online_unless_the_daemon_has_it() {
        let gpu = |settings| Gpu {
            index: 0,
            pci: "0009:01:00.0".into(),
            uuid: "GPU-a".into(),
            name: String::new(),
            health: ledger::Health::default(),
            settings,
            unread: Vec::new(),
        };
        let holder = |comm: &str| Holder {
            pid: 7,
            start_ticks: 1,
            since: None,
            uid: 0,
            user: None,
            comm: comm.into(),
            command: Vec::new(),
            state: 'S',
            devices: Vec::new(),
            owner: holders::Owner::Process,
            screen: false,
            gpu_memory: None,
        };
        for (status, settings, comm, expected) in [
            ("online", vec![Setting::Persistence], "python3", Verdict::Refused),
            // The kernel's names have 15 characters.
            ("online", vec![Setting::Persistence], "nvidia-persiste", Verdict::Ready),
            ("online", vec![], "python3", Verdict::Ready),
            ("offline", vec![Setting::Persistence], "python3", Verdict::Ready),
        ] {
            let (_directory, root) = machine(status, "");
            let mut findings = Findings::default();
            let memory = assess(&root, &mut findings).expect("judges");
            persistence(&memory, &[gpu(settings)], &[holder(comm)], &mut findings);
            assert_eq!(findings.verdict().0, expected, "{status} {comm}");
        }
    }
}
