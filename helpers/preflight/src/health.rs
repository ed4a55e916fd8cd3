//! What the GPUs need, by the kernel's messages and by the bus; what NVML says of them is in `gpus`.

use anyhow::Result;
use messages::{Heard, hear};
use modules::{gpus, on_bus};
use step::Context;
use xid::{Class, Evidence, Gpu, Verdict, verdicts};

use crate::findings::Findings;

/// Judges each GPU, before a reload or a `reset`.
///
/// # Errors
/// The kernel's messages cannot be read, or the driver's GPUs not be listed.
pub(crate) fn assess(context: &Context, reset: bool, findings: &mut Findings) -> Result<Heard> {
    let heard = hear(&context.root)?;
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
            nvml: None,
        });
    }
    judge_all(&verdicts(&heard.messages, &known), reset, findings);
    Ok(heard)
}

/// What the whole machine has is the first verdict's, and said once.
fn judge_all(verdicts: &[Verdict], reset: bool, findings: &mut Findings) {
    for (at, verdict) in verdicts.iter().enumerate() {
        let decisive = |verdict: &Verdict| verdict.evidence.first().cloned();
        if !verdicts[..at].iter().any(|before| decisive(before) == decisive(verdict)) {
            judge(verdict, reset, findings);
        }
    }
}

/// What a verdict means for a run.
fn judge(verdict: &Verdict, reset: bool, findings: &mut Findings) {
    let Some(evidence) = verdict.evidence.first() else { return };
    let what = match verdict.pci {
        Some(pci) => format!("GPU {pci}: {}", told(evidence)),
        None => told(evidence),
    };
    match verdict.class {
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
            "`nvidia-reload reset` resets the GPUs; loading the driver anew is no cure for that",
        ),
        // Nothing that a reload makes worse, or better.
        Class::Support => findings.warn(what, format!("NVIDIA's advice: {}", evidence.action)),
        // The programs start anew with a reload, and a mismatch of versions ends with it.
        Class::App | Class::Reload | Class::Info => {}
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
        let message = |text: &&str| Message {
            usec: 903_610_907,
            text: (*text).to_owned(),
            event: xid::parse(text).expect("is a message"),
        };
        let messages: Vec<Message> = texts.iter().map(message).collect();
        let mut findings = Findings::default();
        let gpus = ["0000:01:00", "0000:02:00"].map(|gpu| Gpu::at(gpu.parse().expect("an address")));
        judge_all(&verdicts(&messages, &gpus), reset, &mut findings);
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
}
