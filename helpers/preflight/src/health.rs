//! What the GPUs need, by all that is known of them together: the kernel's messages, the bus, NVML. What
//! NVML says by itself is told in `gpus`.

use anyhow::Result;
use gpu::{Seen, State, Trouble};
use messages::Heard;
use modules::{gpus, on_bus};
use step::{Context, Versions};
use xid::{Address, Class, Evidence, Gpu, NvmlState, Verdict, verdicts};

use crate::findings::Findings;
use crate::gpus::reset_remedy;

/// Judges each GPU, before a reload or a `reset`, by what was heard and by what NVML said, if it did.
///
/// # Errors
/// The driver's GPUs cannot be listed.
pub(crate) fn assess(
    context: &Context,
    heard: &Heard,
    nvml: Option<&State>,
    versions: &Versions,
    reset: bool,
    findings: &mut Findings,
) -> Result<()> {
    if let Some(usec) = heard.lost_before {
        findings.warn(
            format!(
                "what the kernel said before {} is forgotten, and no journal has it: a GPU may need more than is known here",
                stamp(usec)
            ),
            "let journald keep the kernel's messages",
        );
    }
    let mut known = Vec::new();
    for name in gpus(&context.root)? {
        let Ok(pci) = name.parse() else { continue };
        known.push(Gpu {
            pci,
            on_bus: on_bus(&context.root, &name)?,
            reset_usec: heard.resets.get(&pci).copied(),
            nvml: nvml.and_then(|state| said(state, pci)),
        });
    }
    judge_all(&verdicts(&heard.messages, &known), versions, reset, findings);
    Ok(())
}

/// What NVML says of the GPU at `pci`, where it tells the address.
fn said(state: &State, pci: Address) -> Option<NvmlState> {
    let is_it = |address: &str| address.parse() == Ok(pci);
    state.gpus.iter().find_map(|seen| match seen {
        Seen::Ok(gpu) if is_it(&gpu.pci) => {
            Some(NvmlState { recovery_action: gpu.health.recovery_action, ..NvmlState::default() })
        }
        Seen::Trouble { pci: Some(address), trouble, .. } if is_it(address) => Some(NvmlState {
            lost: *trouble == Trouble::Lost,
            reset_required: *trouble == Trouble::ResetRequired,
            recovery_action: None,
        }),
        _ => None,
    })
}

/// What the whole machine has is the first verdict's, and said once.
fn judge_all(verdicts: &[Verdict], versions: &Versions, reset: bool, findings: &mut Findings) {
    for (at, verdict) in verdicts.iter().enumerate() {
        let before = |decisive| verdicts[..at].iter().any(|before| self::decisive(before) == Some(decisive));
        if let Some(decisive) = decisive(verdict).filter(|decisive| !before(decisive)) {
            judge(verdict, decisive, versions, reset, findings);
        }
    }
}

/// What decides, of what NVML does not say itself. What counts for nothing beside NVML's word is not
/// among the evidence any more.
fn decisive(verdict: &Verdict) -> Option<&Evidence> {
    verdict.evidence.iter().find(|evidence| !evidence.by_nvml)
}

/// What a verdict means for a run.
fn judge(verdict: &Verdict, evidence: &Evidence, versions: &Versions, reset: bool, findings: &mut Findings) {
    let what = match verdict.pci {
        Some(pci) => format!("GPU {pci}: {}", told(evidence)),
        None => told(evidence),
    };
    match evidence.class {
        Class::Reboot if verdict.cold => {
            findings.reboot(what, "switch the machine off and on again: less does not clear it");
        }
        Class::Reboot => findings.reboot(
            what,
            "restart the machine: no reload cures that, and unloading the driver may never end",
        ),
        Class::Reset if reset => {}
        Class::Reset => findings.refuse(
            what,
            format!(
                "loading the driver anew is no cure for that: {}{}",
                reset_remedy(versions),
                reset_by_others(evidence)
            ),
        ),
        // Nothing that a reload makes worse, or better.
        Class::Support => findings.warn(what, format!("NVIDIA's advice: {}", evidence.action)),
        // The programs start anew with a reload, and a mismatch of versions ends with it.
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

/// The evidence with its time, as dmesg shows it.
fn told(evidence: &Evidence) -> String {
    match evidence.usec {
        Some(usec) => format!("{} ({})", evidence.what, stamp(usec)),
        None => evidence.what.clone(),
    }
}

/// `[  903.610907]`, to be found again in dmesg.
fn stamp(usec: u64) -> String {
    format!("[{:5}.{:06}]", usec / 1_000_000, usec % 1_000_000)
}

#[cfg(test)]
mod tests {
    use step::Verdict as Run;
    use xid::Message;

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
        let at = |gpu: &str| Gpu { nvml, ..Gpu::at(gpu.parse().expect("an address")) };
        let gpus = ["0000:01:00", "0000:02:00"].map(at);
        judge_all(&verdicts(&messages, &gpus), &Versions::default(), reset, &mut findings);
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
    fn the_drivers_own_verdict_beats_the_table_and_is_not_told_twice() {
        let text = "NVRM: Xid (PCI:0000:01:00): 119, pid=7, name=a, text";
        let says = |recovery_action| Some(NvmlState { recovery_action, ..NvmlState::default() });
        assert_eq!(found(false, &[text]).0, Run::Refused);
        assert_eq!(beside(says(None), false, &[text]).0, Run::Refused, "a driver without the field");
        assert_eq!(beside(says(Some(0)), false, &[text]), (Run::Ready, vec![], vec![]));
        // What NVML asks for is a finding of its own.
        assert_eq!(beside(says(Some(1)), false, &[text]), (Run::Ready, vec![], vec![]));
        let uvm = "NVRM: uvm encountered global fatal error 0x60, requiring os reboot to recover.";
        assert_eq!(beside(says(Some(0)), false, &[uvm]).0, Run::RebootRequired);
    }
}
