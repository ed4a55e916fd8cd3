// SPDX-License-Identifier: MIT
use proptest::prelude::*;

use super::*;

const A: &str = "0000:01:00";
const B: &str = "0000:02:00";
const LOAD: &str = "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.105.08  Wed Oct 29 23:15:11 UTC 2025";
const UVM: &str = "NVRM: nvGpuOpsReportFatalError: uvm encountered global fatal error 0x60, requiring os reboot to recover.";

fn xid(gpu: &str, code: u32) -> String {
    format!("NVRM: Xid (PCI:{gpu}): {code}, pid=7, name=a, text")
}

fn recovery(gpu: &str, action: u32) -> String {
    format!("NVRM: Xid (PCI:{gpu}): 154, GPU recovery action changed from 0x0 (None) to 0x{action:x} (x)")
}

/// Messages a second apart, beginning at 1 s.
fn messages(texts: &[String]) -> Vec<Message> {
    let message = |(at, text): (usize, &String)| Message {
        usec: (at as u64 + 1) * 1_000_000,
        text: text.clone(),
        event: crate::parse(text).unwrap_or_else(|| panic!("not recognised: {text}")),
    };
    texts.iter().enumerate().map(message).collect()
}

fn gpu(address: &str) -> Gpu {
    Gpu::at(address.parse().expect("an address"))
}

/// The verdict on the first GPU.
fn of(texts: &[String], gpu: Gpu) -> Verdict {
    let pci = Some(gpu.pci);
    let verdicts = verdicts(&messages(texts), &[gpu]);
    verdicts.into_iter().find(|verdict| verdict.pci == pci).expect("has a verdict")
}

fn class(texts: &[String]) -> Class {
    of(texts, gpu(A)).class
}

#[test]
fn nothing_said_is_healthy() {
    let verdict = of(&[], gpu(A));
    assert_eq!((verdict.class, verdict.lost, verdict.evidence), (Class::Info, false, vec![]));
    assert_eq!(class(&[xid(A, 43), xid(A, 63)]), Class::Info);
}

#[test]
fn a_gpu_that_did_not_start_has_failed_until_nvml_shows_it() {
    let failed = format!("NVRM: GPU {A}.0: RmInitAdapter failed! (0x62:0x65:1859)");
    let said = [LOAD.into(), failed.clone()];
    let with = |nvml| of(&said, Gpu { nvml: Some(nvml), ..gpu(A) });
    assert_eq!(class(&said), Class::Failed);
    assert_eq!(class(&[failed, LOAD.into()]), Class::Info, "the driver before");
    assert_eq!(with(NvmlState::default()).class, Class::Info);
    let absent = with(NvmlState { failed: Some("NVML does not show it".into()), ..NvmlState::default() });
    assert_eq!((absent.class, absent.evidence.len()), (Class::Failed, 2));
    assert!(absent.evidence[0].line.is_some(), "the message says more: {absent:?}");
}

#[test]
fn each_class_leads_to_itself_and_the_worst_counts() {
    for (code, expected) in [
        (31, Class::App),
        (163, Class::Reload),
        (999, Class::Support),
        (119, Class::Reset),
        (79, Class::Reboot),
    ] {
        let verdict = of(&[xid(A, code)], gpu(A));
        assert_eq!(verdict.class, expected);
        assert_eq!(verdict.evidence[0].line, Some(xid(A, code)));
        assert_eq!(verdict.evidence[0].usec, Some(1_000_000));
    }
    assert_eq!(class(&[xid(A, 119), xid(A, 31)]), Class::Reset);
}

#[test]
fn only_what_is_newer_than_reset_and_load_counts() {
    assert_eq!(class(&[xid(A, 95), LOAD.into()]), Class::Info);
    assert_eq!(class(&[LOAD.into(), xid(A, 95)]), Class::Reset);
    let reset_at = |usec| of(&[LOAD.into(), xid(A, 95)], Gpu { reset_usec: Some(usec), ..gpu(A) }).class;
    assert_eq!(reset_at(1_999_999), Class::Reset);
    assert_eq!(reset_at(2_000_000), Class::Info);
    assert_eq!(class(&[xid(B, 95)]), Class::Info, "another GPU's");
}

#[test]
fn the_drivers_own_word_beats_the_messages_before_it() {
    assert_eq!(class(&[xid(A, 95), recovery(A, 0)]), Class::Info);
    assert_eq!(class(&[xid(A, 31), recovery(A, 2)]), Class::Reboot);
    assert_eq!(class(&[xid(A, 31), recovery(A, 9)]), Class::Reboot, "an action from the future");
    assert_eq!(class(&[recovery(A, 1), recovery(A, 0)]), Class::Info);
    assert_eq!(class(&[recovery(A, 0), xid(A, 95)]), Class::Reset, "newer than its word");
}

#[test]
fn nvmls_word_is_newer_than_all_messages() {
    let with = |texts: &[String], action| {
        let nvml = Some(NvmlState { recovery_action: Some(action), ..NvmlState::default() });
        of(texts, Gpu { nvml, ..gpu(A) }).class
    };
    assert_eq!(with(&[xid(A, 119)], 0), Class::Info);
    assert_eq!(with(&[recovery(A, 2)], 0), Class::Info);
    assert_eq!(with(&[], 1), Class::Reset);
    assert_eq!(with(&[], 7), Class::Reboot);
    // A load clears the flag and not the reason.
    assert_eq!(with(&[recovery(A, 2), LOAD.into()], 0), Class::Reboot);
    assert_eq!(with(&[UVM.into(), LOAD.into()], 0), Class::Reboot);
}

#[test]
fn nvmls_errors_count_by_themselves() {
    let of = |nvml| of(&[], Gpu { nvml: Some(nvml), ..gpu(A) });
    let lost = of(NvmlState { lost: true, ..NvmlState::default() });
    assert_eq!((lost.class, lost.lost), (Class::Reboot, true));
    assert_eq!(of(NvmlState { reset_required: true, ..NvmlState::default() }).class, Class::Reset);
}

#[test]
fn uvms_fatal_error_is_the_whole_machines_and_outlives_the_driver() {
    for texts in [vec![UVM.to_owned()], vec![UVM.to_owned(), LOAD.to_owned()]] {
        let verdicts = verdicts(&messages(&texts), &[gpu(A), gpu(B)]);
        assert_eq!(verdicts.len(), 3);
        assert!(verdicts.iter().all(|verdict| verdict.class == Class::Reboot));
        assert!(verdicts.iter().all(|verdict| verdict.evidence[0].line.as_deref() == Some(UVM)));
    }
}

#[test]
fn a_cold_reset_is_needed_until_there_was_one() {
    let verdict = of(&[xid(A, 110), recovery(A, 0), LOAD.into()], gpu(A));
    assert_eq!((verdict.class, verdict.cold), (Class::Reboot, true));
}

#[test]
fn a_lost_gpu_is_lost_until_bus_and_driver_say_otherwise() {
    let of = |texts: &[String], on_bus| {
        let verdict = of(texts, Gpu { on_bus, ..gpu(A) });
        (verdict.class, verdict.lost)
    };
    let gone = [xid(A, 79), recovery(A, 1)];
    assert_eq!(of(&gone, None), (Class::Reboot, true));
    assert_eq!(of(&gone, Some(false)), (Class::Reboot, true));
    assert_eq!(of(&gone, Some(true)), (Class::Reset, false));
    assert_eq!(of(&[xid(A, 79)], Some(true)), (Class::Reboot, true), "the driver has not said what it needs");
    assert_eq!(of(&[], Some(false)), (Class::Reboot, true));
    assert_eq!(of(&[xid(A, 79), LOAD.into()], Some(true)), (Class::Info, false));
}

#[test]
fn what_has_no_address_is_the_machines() {
    let texts = ["NVRM: GPU6 _kgspBootGspRm: unexpected WPR2 already up, cannot proceed".to_owned()];
    let verdicts = verdicts(&messages(&texts), &[gpu(A)]);
    assert_eq!(verdicts[0].pci, None);
    assert_eq!(verdicts[0].class, Class::Reset);
    assert_eq!(verdicts[1].class, Class::Info);
}

#[test]
fn a_message_said_often_is_said_once() {
    let verdict = of(&[xid(A, 31), xid(A, 31), xid(A, 31)], gpu(A));
    assert_eq!(verdict.evidence.len(), 1);
    assert_eq!(verdict.evidence[0].usec, Some(3_000_000));
}

fn any_text() -> impl Strategy<Value = String> {
    let gpu = || prop::sample::select(vec![A, B]);
    prop_oneof![
        4 => (gpu(), prop::sample::select(vec![13, 31, 43, 79, 95, 110, 119, 151, 163, 999])).prop_map(|(gpu, code)| xid(gpu, code)),
        2 => (gpu(), 0u32..9).prop_map(|(gpu, action)| recovery(gpu, action)),
        1 => Just(LOAD.to_owned()),
        1 => prop::sample::select(vec![UVM, "NVRM: GPU 0000:01:00.0: GPU has fallen off the bus.", "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 23001, Fatal, Link 12 x", "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 12 x", "NVRM: GPU6 f: unexpected WPR2 already up, x"]).prop_map(str::to_owned),
    ]
}

fn any_gpu(address: &'static str) -> impl Strategy<Value = Gpu> {
    let nvml = (prop::option::of(0u32..9), any::<bool>(), any::<bool>()).prop_map(
        |(recovery_action, lost, reset_required)| NvmlState {
            recovery_action,
            lost,
            reset_required,
            failed: None,
        },
    );
    (any::<Option<bool>>(), prop::option::of(0u64..12_000_000), prop::option::of(nvml))
        .prop_map(move |(on_bus, reset_usec, nvml)| Gpu { on_bus, reset_usec, nvml, ..gpu(address) })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn condensing_changes_no_verdict(texts in prop::collection::vec(any_text(), 0..12), a in any_gpu(A), b in any_gpu(B)) {
        let gpus = [a, b];
        let all = messages(&texts);
        let said = |verdicts: Vec<Verdict>| verdicts
            .into_iter()
            .filter(|verdict| verdict.class > Class::Info)
            .map(|verdict| (verdict.pci, verdict.class, verdict.lost, verdict.cold, verdict.evidence[0].what.clone()))
            .collect::<Vec<_>>();
        let condensed = condensed(&all);
        prop_assert_eq!(said(verdicts(&condensed, &gpus)), said(verdicts(&all, &gpus)));
    }

    #[test]
    fn the_class_is_that_of_the_decisive_evidence(texts in prop::collection::vec(any_text(), 0..12), a in any_gpu(A)) {
        for verdict in verdicts(&messages(&texts), std::slice::from_ref(&a)) {
            let worst = verdict.evidence.iter().map(|evidence| evidence.class).max();
            prop_assert_eq!(verdict.class, worst.unwrap_or(Class::Info));
            prop_assert_eq!(Some(verdict.class), verdict.evidence.first().map(|evidence| evidence.class).or(Some(Class::Info)));
            prop_assert!(!verdict.lost || verdict.class == Class::Reboot);
        }
    }

    #[test]
    fn one_gpus_messages_are_not_anothers(texts in prop::collection::vec((prop::sample::select(vec![13, 31, 79, 95, 119]), 0u32..9), 0..12)) {
        let texts: Vec<String> = texts.into_iter().flat_map(|(code, action)| [xid(B, code), recovery(B, action)]).collect();
        prop_assert_eq!(class(&texts), Class::Info);
    }

    #[test]
    fn an_error_never_makes_it_better(texts in prop::collection::vec(any_text(), 0..12), code in prop::sample::select(vec![13, 31, 79, 95, 119, 999])) {
        let before = class(&texts);
        let mut texts = texts;
        texts.push(xid(A, code));
        prop_assert!(class(&texts) >= before);
    }
}
