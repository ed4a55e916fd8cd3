// SPDX-License-Identifier: MIT
//! What the GPUs need, and what that means for a run.

use anyhow::Result;
use gpu::State;
use health::{Health, judge};
use messages::Log;
use step::{Config, Context, Versions};
use xid::{Class, Evidence};

use crate::findings::Findings;
use crate::gpus::reset_remedy;

/// Judges each GPU, before a reload or a `reset`, by what was heard and by what NVML said, if it did.
///
/// # Errors
/// The driver's GPUs cannot be listed.
pub(crate) fn assess(
    context: &Context,
    config: &Config,
    log: &Log,
    nvml: Option<&State>,
    versions: &Versions,
    reset: bool,
    findings: &mut Findings,
) -> Result<()> {
    if let Some(usec) = log.lost_before {
        findings.warn(
            format!(
                "kernel messages from before {} are lost, and the journal does not have them: a GPU may need more than a reload",
                stamp(usec)
            ),
            "let journald store kernel messages",
        );
    }
    let judged = judge(&context.root, log, nvml, &config.gpus.ignore)?;
    mean_all(&judged, versions, reset, findings);
    Ok(())
}

/// What the whole machine has is said once.
fn mean_all(judged: &[Health], versions: &Versions, reset: bool, findings: &mut Findings) {
    for (at, health) in judged.iter().enumerate() {
        let Some(decisive) = health.evidence.first() else { continue };
        let is_machines =
            |before: &Health| before.name.is_none() && before.evidence.first() == Some(decisive);
        if !judged[..at].iter().any(is_machines) {
            mean(health, decisive, versions, reset, findings);
        }
    }
}

/// What it means for a run.
fn mean(health: &Health, evidence: &Evidence, versions: &Versions, reset: bool, findings: &mut Findings) {
    let mut what = health.says(evidence);
    if let Some(usec) = evidence.usec {
        what = format!("{what} ({})", stamp(usec));
    }
    match evidence.class {
        Class::Reboot if health.cold => {
            findings.reboot(what, "switch the machine off and on again: less does not clear it");
        }
        Class::Reboot => findings.reboot(
            what,
            "restart the machine: no reload cures that, and unloading the driver may never end",
        ),
        Class::Reset if reset => {}
        Class::Reset => findings.refuse(
            what,
            format!("a reload does not fix that: {}{}", reset_remedy(versions), reset_by_others(evidence)),
        ),
        // The new driver may start it. Verify looks again.
        Class::Failed => findings.warn(what, evidence.action),
        Class::Support if evidence.by_nvml => {
            findings.refuse(what, "recover the IMEX domain: `systemctl restart nvidia-imex` on its nodes");
        }
        // Nothing that a reload makes worse, or better.
        Class::Support => findings.warn(what, format!("NVIDIA's advice: {}", evidence.action)),
        Class::App if evidence.by_nvml => {
            findings.warn(what, "the run terminates what uses it, and checks again")
        }
        // The programs are restarted by a reload, and a mismatch of versions ends with it.
        Class::App | Class::Reload | Class::Info => {}
    }
}

/// What makes a run go on where another tool has reset the GPU: the driver's own word, and no program's. A
/// driver before 565 says nothing of a reset, and no line of a log that a program wrote is taken for one.
fn reset_by_others(evidence: &Evidence) -> &'static str {
    match evidence.line.is_some() && !evidence.by_nvml {
        true => {
            ". Another tool's reset since that message counts where the driver reports it: by NVML's recovery action or by Xid 154 (driver 565 and later). An older driver reports none: run `nvidia-reload reset` again"
        }
        false => "",
    }
}

/// `[  903.610907]`, to be found again in dmesg.
fn stamp(usec: u64) -> String {
    format!("[{:5}.{:06}]", usec / 1_000_000, usec % 1_000_000)
}

#[cfg(test)]
mod tests {
    use step::Verdict as Run;
    use xid::{Gpu, Message, NvmlState, verdicts};

    use super::*;

    fn found(reset: bool, texts: &[&str]) -> (Run, Vec<String>, Vec<String>) {
        beside(None, reset, texts)
    }

    fn beside(nvml: Option<NvmlState>, reset: bool, texts: &[&str]) -> (Run, Vec<String>, Vec<String>) {
        let message = |text: &&str| Message {
            usec: 903_610_907,
            text: (*text).to_owned(),
            event: xid::parse(text).expect("is a message"),
        };
        let messages: Vec<Message> = texts.iter().map(message).collect();
        let mut findings = Findings::default();
        let at = |gpu: &str| Gpu { nvml: nvml.clone(), ..Gpu::at(gpu.parse().expect("an address")) };
        let gpus = ["0000:01:00", "0000:02:00"].map(at);
        let judged: Vec<Health> = verdicts(&messages, &gpus)
            .into_iter()
            .map(|verdict| Health {
                name: verdict.pci.map(|pci| format!("GPU {pci}")),
                pci: verdict.pci,
                class: verdict.class,
                cold: verdict.cold,
                evidence: verdict.evidence,
            })
            .collect();
        mean_all(&judged, &Versions::default(), reset, &mut findings);
        let (verdict, reasons, warnings) = findings.verdict();
        let told = |reasons: Vec<step::Reason>| reasons.iter().map(ToString::to_string).collect();
        (verdict, told(reasons), told(warnings))
    }

    #[test]
    fn each_class_has_its_end() {
        let before = |reset, code: u32| {
            found(reset, &[&format!("NVRM: Xid (PCI:0000:01:00): {code}, pid=7, name=a, text")])
        };
        let of = |code| before(false, code);
        assert_eq!(of(31), (Run::Ready, vec![], vec![]));
        assert_eq!(of(163), (Run::Ready, vec![], vec![]));
        let (verdict, reasons, _) = of(119);
        assert_eq!(verdict, Run::Refused);
        assert!(
            reasons[0].contains("Xid 119 GSP RPC Timeout, process 7 (a): text ([  903.610907])"),
            "{reasons:?}"
        );
        assert!(reasons[0].contains("`nvidia-reload reset`"), "{reasons:?}");
        assert!(reasons[0].contains("Another tool's reset"), "what else makes the run go on: {reasons:?}");
        assert_eq!(before(true, 119), (Run::Ready, vec![], vec![]));
        assert_eq!(before(true, 79).0, Run::RebootRequired);
        let (verdict, reasons, _) = of(79);
        assert_eq!((verdict, reasons.len()), (Run::RebootRequired, 1));
        let (verdict, reasons, _) = of(110);
        assert_eq!(verdict, Run::RebootRequired);
        assert!(reasons[0].contains("off and on"), "{reasons:?}");
        let uvm = "NVRM: uvm encountered global fatal error 0x60, requiring os reboot to recover.";
        let (verdict, reasons, _) = found(false, &[uvm]);
        assert_eq!((verdict, reasons.len()), (Run::RebootRequired, 1), "once for all GPUs");
        let (verdict, _, warnings) = of(999);
        assert_eq!(verdict, Run::Ready);
        assert!(warnings[0].contains("contact support"), "{warnings:?}");
    }

    #[test]
    fn a_reset_by_another_tool_counts_where_the_driver_reports_it() {
        let text = "NVRM: Xid (PCI:0000:01:00): 119, pid=7, name=a, text";
        let says = |from, to| {
            format!(
                "NVRM: Xid (PCI:0000:01:00): 154, GPU recovery action changed from 0x{from} (a) to 0x{to} (b)"
            )
        };
        assert_eq!(found(false, &[text, &says(0, 1)]).0, Run::Refused);
        assert_eq!(found(false, &[text, &says(0, 1), &says(1, 0)]), (Run::Ready, vec![], vec![]));
        assert_eq!(found(false, &[text, &says(1, 0), text]).0, Run::Refused, "newer than the reset");
    }

    #[test]
    fn the_drivers_own_verdict_beats_the_table() {
        let text = "NVRM: Xid (PCI:0000:01:00): 119, pid=7, name=a, text";
        let says = |recovery_action| Some(NvmlState { recovery_action, ..NvmlState::default() });
        assert_eq!(found(false, &[text]).0, Run::Refused);
        assert_eq!(beside(says(None), false, &[text]).0, Run::Refused, "a driver without the field");
        assert_eq!(beside(says(Some(0)), false, &[text]), (Run::Ready, vec![], vec![]));
        let uvm = "NVRM: uvm encountered global fatal error 0x60, requiring os reboot to recover.";
        assert_eq!(beside(says(Some(0)), false, &[uvm]).0, Run::RebootRequired);
    }

    #[test]
    fn the_drivers_word_on_recovery_decides() {
        use Run::{Ready, RebootRequired, Refused};
        for (action, reload, reset) in [
            (0, (Ready, 0), (Ready, 0)),
            (1, (Refused, 0), (Ready, 0)),
            (2, (RebootRequired, 0), (RebootRequired, 0)),
            (3, (Ready, 2), (Ready, 2)),
            (4, (Refused, 0), (Ready, 0)),
            (5, (Refused, 0), (Refused, 0)),
            (6, (Refused, 0), (Ready, 0)),
            (7, (RebootRequired, 0), (RebootRequired, 0)),
            (8, (RebootRequired, 0), (RebootRequired, 0)),
        ] {
            let nvml = NvmlState { recovery_action: Some(action), ..NvmlState::default() };
            let of = |reset| {
                let (verdict, _, warnings) = beside(Some(nvml.clone()), reset, &[]);
                (verdict, warnings.len())
            };
            assert_eq!((of(false), of(true)), (reload, reset), "{action}");
        }
    }

    #[test]
    fn what_does_not_work_is_no_reason_against_a_reload() {
        let of = |nvml: NvmlState, reset| beside(Some(nvml), reset, &[]).0;
        let failed = || NvmlState { failed: Some("NVML does not show it".into()), ..NvmlState::default() };
        assert_eq!((of(failed(), false), of(failed(), true)), (Run::Ready, Run::Ready));
        let reset = || NvmlState { reset_required: true, ..NvmlState::default() };
        assert_eq!((of(reset(), false), of(reset(), true)), (Run::Refused, Run::Ready));
        let (_, _, warnings) = beside(Some(failed()), false, &[]);
        assert_eq!(warnings.len(), 2, "one for each GPU: {warnings:?}");
    }
}
