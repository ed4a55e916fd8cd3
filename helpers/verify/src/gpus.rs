// SPDX-License-Identifier: MIT
//! The GPUs, each compared with how it was.

use gpu::Reading;
use health::Health;
use ledger::Gpu;
use xid::{Address, Class, Evidence};

use step::{Check, Grade};

/// `NVML_GPU_FABRIC_STATE_COMPLETED`.
pub(crate) const COMPLETED: u8 = 3;

/// What is asked of the fabric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fabric {
    /// The fabric manager is there: every GPU that can be in the fabric is.
    Complete,
    /// The fabric manager may come back only later.
    NotBroken,
}

/// What is `judged`, as far as `counts` says that it counts against the driver; and a check of each GPU
/// against how it was: those of `before` have to be there.
pub(crate) fn check(
    before: &[Gpu],
    now: &[Reading],
    judged: &[Health],
    counts: impl Fn(&Evidence) -> bool,
    fabric: Fabric,
) -> Vec<Check> {
    let mut checks: Vec<Check> =
        judged.iter().filter_map(|health| judgement(before, health, &counts)).collect();
    let about = |pci: &str| {
        let pci: Option<Address> = pci.parse().ok();
        judged.iter().find(|health| health.pci.is_some() && health.pci == pci && health.is_critical())
    };
    for seen in now {
        let Reading::Ok(gpu) = seen else { continue };
        let check = one(before.iter().find(|was| is(seen, was)), gpu, fabric);
        if check.grade != Grade::Ok || about(&gpu.pci).is_none() {
            checks.push(check);
        }
    }
    for was in before {
        if !now.iter().any(|seen| is(seen, was)) && about(&was.pci).is_none() {
            let what = format!("{was} is not there any more");
            checks.push(Check::new(format!("GPU {}", was.index), Grade::Failed, what));
        }
    }
    checks
}

/// What is wrong with a GPU or the machine, if anything is.
fn judgement(before: &[Gpu], health: &Health, counts: impl Fn(&Evidence) -> bool) -> Option<Check> {
    // The worst comes first: what does not count, counts also where it is worse than what does.
    let bad = |evidence: &&Evidence| evidence.class >= Class::Support || evidence.by_nvml;
    let decisive = health.evidence.iter().filter(bad).find(|evidence| counts(evidence));
    let (evidence, is_old) = match decisive {
        Some(evidence) => (evidence, false),
        None => (health.evidence.iter().find(bad)?, true),
    };
    // It did not work before: that does not make this driver a bad one.
    let was_bad = || {
        evidence.class == Class::Failed
            && !before.is_empty()
            && health.pci.is_some()
            && !before.iter().any(|was| was.pci.parse().ok() == health.pci)
    };
    let grade = match evidence.class {
        _ if is_old || was_bad() => Grade::Note,
        Class::Support if !evidence.by_nvml => Grade::Note,
        Class::Reboot => Grade::RebootRequired,
        _ => Grade::Failed,
    };
    let about = health.name.clone().unwrap_or_else(|| "machine".to_owned());
    Some(Check::new(about, grade, health.says(evidence)))
}

/// Whether `seen` is the GPU that was `was`. One that is out of use tells what it still can.
pub(crate) fn is(seen: &Reading, was: &Gpu) -> bool {
    match seen {
        Reading::Ok(gpu) => gpu.uuid == was.uuid,
        Reading::Trouble { uuid, pci, .. } => {
            uuid.as_ref() == Some(&was.uuid) || pci.as_ref() == Some(&was.pci)
        }
    }
}

/// One GPU: the worst that there is to say about it, and all of that grade.
fn one(was: Option<&Gpu>, gpu: &Gpu, fabric: Fabric) -> Check {
    let mut found: Vec<(Grade, String)> = Vec::new();
    if let Some(was) = was.filter(|was| was.pci != gpu.pci) {
        found.push((Grade::Failed, format!("was at {}", was.pci)));
    }
    health(was.map(|was| &was.health), &gpu.health, fabric, &mut found);
    for what in &gpu.unread {
        found.push((Grade::Note, format!("NVML does not report: {what}")));
    }
    let worst = found.iter().map(|(grade, _)| *grade).max().unwrap_or(Grade::Ok);
    let mut text = match worst {
        Grade::Ok => format!("{} at {}, {}", gpu.name, gpu.pci, gpu.uuid),
        _ => gpu.to_string(),
    };
    let all: Vec<String> =
        found.into_iter().filter(|(grade, _)| *grade == worst).map(|(_, what)| what).collect();
    if !all.is_empty() {
        text = format!("{text}: {}", all.join("; "));
    }
    Check::new(format!("GPU {}", gpu.index), worst, text)
}

fn health(
    was: Option<&ledger::Health>,
    now: &ledger::Health,
    fabric: Fabric,
    found: &mut Vec<(Grade, String)>,
) {
    // What was so before does not make this driver a bad one.
    let known = |old: bool| if old { Grade::Note } else { Grade::Failed };
    if let Some(rows) = now.remapped_rows {
        let old = was.and_then(|was| was.remapped_rows);
        if rows.pending {
            let grade = known(old.is_some_and(|old| old.pending));
            found.push((grade, "the remapping of a row of memory waits for a reset".into()));
        }
        if rows.failure {
            let grade = known(old.is_some_and(|old| old.failure));
            found.push((grade, "the remapping of a row of memory failed: replace the board".into()));
        }
    }
    if now.retired_pages_pending == Some(true) {
        let grade = known(was.and_then(|was| was.retired_pages_pending) == Some(true));
        found.push((grade, "retired pages of memory wait for a reset".into()));
    }
    if let Some(state) = now.fabric {
        if state.state == COMPLETED && state.status != 0 {
            found.push((
                Grade::Failed,
                format!("its registration with the fabric failed (nvmlReturn_t {})", state.status),
            ));
        } else if state.state != COMPLETED {
            let grade = match fabric {
                Fabric::Complete => Grade::Failed,
                Fabric::NotBroken => Grade::Note,
            };
            found.push((grade, "it is not in the fabric yet: that is the fabric manager's work".into()));
        }
    }
    for (what, mode) in [("ECC", now.ecc), ("MIG", now.mig)] {
        if mode.is_some_and(|mode| mode.current != mode.pending) {
            found.push((Grade::Note, format!("a change of {what} mode waits for the next load")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpu::{Answer, Library, State, Trouble};
    use ledger::RemappedRows;
    use messages::Log;
    use step::Root;
    use xid::Message;

    const A: &str = "0000:01:00.0";
    const B: &str = "0000:02:00.0";

    fn gpu(uuid: &str, pci: &str) -> Gpu {
        Gpu {
            index: 0,
            pci: pci.into(),
            uuid: uuid.into(),
            name: "NVIDIA H100".into(),
            health: ledger::Health::default(),
            settings: Vec::new(),
            unread: Vec::new(),
        }
    }

    /// The grades, on a machine whose driver has the GPUs `bound`, and after the kernel said `said`, a second
    /// apart. What is not newer than `news` seconds is old.
    fn graded(bound: &[&str], before: &[Gpu], now: &[Reading], said: &[&str], news: u64) -> Vec<Grade> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        for pci in bound {
            std::fs::create_dir_all(root.path(format!("/sys/bus/pci/drivers/nvidia/{pci}")))
                .expect("creates");
        }
        let message = |(at, text): (usize, &&str)| Message {
            usec: at as u64 + 1,
            text: (*text).to_owned(),
            event: xid::parse(text).expect("is a message"),
        };
        let mut log = Log::default();
        log.messages = said.iter().enumerate().map(message).collect();
        let state = State {
            library: Library::Absent { reason: String::new() },
            instead: None,
            nvml: Answer::Ok { driver_version: "1".into(), devices: now.len() as u32 },
            confidential_computing: None,
            gpus: now.to_vec(),
        };
        let judged = health::judge(&root, &log, Some(&state), &[]).expect("judges");
        let counts = |evidence: &Evidence| evidence.usec.is_none_or(|usec| usec > news);
        let checks = check(before, now, &judged, counts, Fabric::NotBroken);
        checks.into_iter().map(|check| check.grade).collect()
    }

    fn grades(before: &[Gpu], now: &[Gpu]) -> Vec<Grade> {
        let bound: Vec<&str> = now.iter().map(|gpu| gpu.pci.as_str()).collect();
        graded(&bound, before, &seen(now), &[], 0)
    }

    fn seen(gpus: &[Gpu]) -> Vec<Reading> {
        gpus.iter().map(|gpu| Reading::Ok(Box::new(gpu.clone()))).collect()
    }

    #[test]
    fn every_gpu_that_was_there_is_there_in_its_place() {
        let (a, b) = (gpu("GPU-a", A), gpu("GPU-b", B));
        assert_eq!(grades(&[a.clone(), b.clone()], &[a.clone(), b.clone()]), [Grade::Ok, Grade::Ok]);
        assert_eq!(grades(&[a.clone(), b.clone()], std::slice::from_ref(&a)), [Grade::Ok, Grade::Failed]);
        let moved = gpu("GPU-b", "0000:03:00.0");
        assert_eq!(grades(&[b], &[moved]), [Grade::Failed]);
        assert_eq!(grades(&[], &[a]), [Grade::Ok]);
    }

    #[test]
    fn every_gpu_on_the_bus_is_shown_also_where_nothing_is_known_from_before() {
        let (a, b) = (gpu("GPU-a", A), gpu("GPU-b", B));
        assert_eq!(graded(&[A], &[], &[], &[], 0), [Grade::Failed], "it was NVML with 0 devices");
        let one = seen(std::slice::from_ref(&a));
        assert_eq!(graded(&[A, B], &[], &one, &[], 0), [Grade::Failed, Grade::Ok]);
        assert_eq!(graded(&[A, B], &[a.clone(), b], &one, &[], 0), [Grade::Failed, Grade::Ok], "once");
        // It did not work before: the new driver is none the worse.
        assert_eq!(graded(&[A, B], &[a], &one, &[], 0), [Grade::Note, Grade::Ok]);
    }

    #[test]
    fn an_error_of_the_old_driver_does_not_condemn_the_new_one() {
        let a = [gpu("GPU-a", A)];
        let load = "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.163.01  Tue Apr  8 12:41:17 UTC 2025";
        let timeout = "NVRM: Xid (PCI:0000:01:00): 119, pid=7, name=a, Timeout after 6s of waiting for RPC";
        let uvm = "NVRM: uvm encountered global fatal error 0x60, requiring os reboot to recover.";
        assert_eq!(graded(&[A], &a, &seen(&a), &[timeout, load], 2), [Grade::Ok]);
        assert_eq!(graded(&[A], &a, &seen(&a), &[load, timeout], 1), [Grade::Failed]);
        // No load clears it, and it is not the new driver's.
        let grades = graded(&[A], &a, &seen(&a), &[uvm, load], 2);
        assert_eq!(grades, [Grade::Note, Grade::Note], "of the machine and its GPU");
        assert_eq!(graded(&[A], &a, &seen(&a), &[load, uvm], 1)[0], Grade::RebootRequired);
    }

    #[test]
    fn a_gpu_that_is_lost_is_reported_once() {
        let a = gpu("GPU-a", A);
        let lost =
            Reading::Trouble { index: 0, pci: Some(a.pci.clone()), uuid: None, trouble: Trouble::Lost };
        assert_eq!(graded(&[A], &[a], &[lost], &[], 0), [Grade::RebootRequired]);
    }

    #[test]
    fn only_what_is_new_fails() {
        let rows = RemappedRows { pending: true, ..RemappedRows::default() };
        let with = |rows| Gpu {
            health: ledger::Health { remapped_rows: Some(rows), ..ledger::Health::default() },
            ..gpu("GPU-a", A)
        };
        assert_eq!(grades(&[with(rows)], &[with(rows)]), [Grade::Note]);
        assert_eq!(grades(&[with(RemappedRows::default())], &[with(rows)]), [Grade::Failed]);
    }

    #[test]
    fn what_the_driver_asks_for_counts() {
        for (action, grade) in [
            (0, Grade::Ok),
            (1, Grade::Failed),
            (2, Grade::RebootRequired),
            (3, Grade::Failed),
            (5, Grade::Failed),
            (99, Grade::RebootRequired),
        ] {
            let mut now = gpu("GPU-a", A);
            now.health.recovery_action = Some(action);
            assert!(grades(&[], &[now]).contains(&grade), "{action}");
        }
    }

    #[test]
    fn the_fabric_may_be_late_only_while_a_run_is_under_way() {
        let mut now = gpu("GPU-a", A);
        now.health.fabric = Some(ledger::Fabric { state: 2, status: 0 });
        let seen = seen(&[now]);
        let grade = |fabric| check(&[], &seen, &[], |_| true, fabric)[0].grade;
        assert_eq!(grade(Fabric::NotBroken), Grade::Note);
        assert_eq!(grade(Fabric::Complete), Grade::Failed);
    }
}
