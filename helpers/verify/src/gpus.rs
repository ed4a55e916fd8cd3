//! The GPUs, each compared with how it was.

use gpu::{Recovery, Seen, Trouble};
use ledger::{Gpu, Health};

use crate::check::{Check, Grade};

/// `NVML_GPU_FABRIC_STATE_COMPLETED`.
const COMPLETED: u8 = 3;

/// What is asked of the fabric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fabric {
    /// The fabric manager is there: every GPU that can be in the fabric is.
    Complete,
    /// The fabric manager may come back only later.
    NotBroken,
}

/// A check of each GPU: those of `before` have to be there, and all have to be well.
pub(crate) fn check(before: &[Gpu], now: &[Seen], fabric: Fabric) -> Vec<Check> {
    let mut checks = Vec::new();
    for seen in now {
        let was = before.iter().find(|was| is(seen, was));
        match seen {
            Seen::Ok(gpu) => checks.push(one(was, gpu, fabric)),
            Seen::Trouble { trouble, .. } => {
                let (grade, why) = match trouble {
                    Trouble::Lost => (Grade::RebootRequired, "is lost: it fell off the bus".to_owned()),
                    Trouble::ResetRequired => (Grade::Failed, "requires a reset".to_owned()),
                    Trouble::Other(why) => (Grade::Failed, format!("cannot be used: {why}")),
                };
                checks.push(Check::new(about(seen), grade, format!("{seen} {why}")));
            }
        }
    }
    for was in before {
        if !now.iter().any(|seen| is(seen, was)) {
            let what = format!("{was} is not there any more");
            checks.push(Check::new(format!("GPU {}", was.index), Grade::Failed, what));
        }
    }
    checks
}

/// Whether `seen` is the GPU that was `was`. One that is out of use tells what it still can.
fn is(seen: &Seen, was: &Gpu) -> bool {
    match seen {
        Seen::Ok(gpu) => gpu.uuid == was.uuid,
        Seen::Trouble { uuid, pci, .. } => uuid.as_ref() == Some(&was.uuid) || pci.as_ref() == Some(&was.pci),
    }
}

fn about(seen: &Seen) -> String {
    match seen {
        Seen::Ok(gpu) => format!("GPU {}", gpu.index),
        Seen::Trouble { index, .. } => format!("GPU {index}"),
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
        found.push((Grade::Note, format!("NVML does not tell: {what}")));
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

fn health(was: Option<&Health>, now: &Health, fabric: Fabric, found: &mut Vec<(Grade, String)>) {
    if let Some(action) = now.recovery_action.map(Recovery::from) {
        let grade = match action {
            Recovery::None => Grade::Ok,
            Recovery::NodeReboot | Recovery::SystemReboot | Recovery::Unknown(_) => Grade::RebootRequired,
            _ => Grade::Failed,
        };
        if grade != Grade::Ok {
            found.push((grade, format!("the driver asks for a recovery: {action}")));
        }
    }
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
    use ledger::RemappedRows;

    fn gpu(uuid: &str, pci: &str) -> Gpu {
        Gpu {
            index: 0,
            pci: pci.into(),
            uuid: uuid.into(),
            name: "NVIDIA H100".into(),
            health: Health::default(),
            settings: Vec::new(),
            unread: Vec::new(),
        }
    }

    fn grades(before: &[Gpu], now: &[Gpu]) -> Vec<Grade> {
        let now: Vec<Seen> = now.iter().map(|gpu| Seen::Ok(Box::new(gpu.clone()))).collect();
        check(before, &now, Fabric::NotBroken).into_iter().map(|check| check.grade).collect()
    }

    #[test]
    fn every_gpu_that_was_there_is_there_in_its_place() {
        let (a, b) = (gpu("GPU-a", "0000:01:00.0"), gpu("GPU-b", "0000:02:00.0"));
        assert_eq!(grades(&[a.clone(), b.clone()], &[a.clone(), b.clone()]), [Grade::Ok, Grade::Ok]);
        assert_eq!(grades(&[a.clone(), b.clone()], std::slice::from_ref(&a)), [Grade::Ok, Grade::Failed]);
        let moved = gpu("GPU-b", "0000:03:00.0");
        assert_eq!(grades(&[b], &[moved]), [Grade::Failed]);
        assert_eq!(grades(&[], &[a]), [Grade::Ok]);
    }

    #[test]
    fn a_gpu_that_is_lost_is_told_of_once() {
        let a = gpu("GPU-a", "0000:01:00.0");
        let lost = Seen::Trouble { index: 0, pci: Some(a.pci.clone()), uuid: None, trouble: Trouble::Lost };
        let checks = check(&[a], &[lost], Fabric::NotBroken);
        assert_eq!(checks.len(), 1);
        assert_eq!(checks[0].grade, Grade::RebootRequired);
    }

    #[test]
    fn only_what_is_new_fails() {
        let rows = RemappedRows { pending: true, ..RemappedRows::default() };
        let with = |rows| Gpu {
            health: Health { remapped_rows: Some(rows), ..Health::default() },
            ..gpu("GPU-a", "0000:01:00.0")
        };
        assert_eq!(grades(&[with(rows)], &[with(rows)]), [Grade::Note]);
        assert_eq!(grades(&[with(RemappedRows::default())], &[with(rows)]), [Grade::Failed]);
    }

    #[test]
    fn what_the_driver_asks_for_counts() {
        for (action, grade) in
            [(0, Grade::Ok), (1, Grade::Failed), (2, Grade::RebootRequired), (99, Grade::RebootRequired)]
        {
            let mut now = gpu("GPU-a", "0000:01:00.0");
            now.health.recovery_action = Some(action);
            assert_eq!(grades(&[], &[now]), [grade]);
        }
    }

    #[test]
    fn the_fabric_may_be_late_only_while_a_run_is_under_way() {
        let mut now = gpu("GPU-a", "0000:01:00.0");
        now.health.fabric = Some(ledger::Fabric { state: 2, status: 0 });
        let seen = [Seen::Ok(Box::new(now))];
        assert_eq!(check(&[], &seen, Fabric::NotBroken)[0].grade, Grade::Note);
        assert_eq!(check(&[], &seen, Fabric::Complete)[0].grade, Grade::Failed);
    }
}
