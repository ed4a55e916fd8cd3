// SPDX-License-Identifier: MIT
use gpu::Library;

use super::*;

const A: &str = "0000:01:00.0";
const B: &str = "0000:02:00.0";

fn bound(addresses: &[&str]) -> Vec<(String, Gpu)> {
    let gpu = |name: &&str| ((*name).to_owned(), Gpu::at(name.parse().expect("an address")));
    addresses.iter().map(gpu).collect()
}

fn state(gpus: Vec<Reading>) -> State {
    State {
        library: Library::Absent { reason: String::new() },
        instead: None,
        nvml: Answer::Ok { driver_version: "1".into(), devices: gpus.len() as u32 },
        confidential_computing: None,
        gpus,
    }
}

fn well(index: u32, pci: &str) -> Reading {
    Reading::Ok(Box::new(ledger::Gpu {
        index,
        pci: pci.into(),
        uuid: format!("GPU-{index}"),
        name: "NVIDIA H100".into(),
        health: ledger::Health::default(),
        settings: Vec::new(),
        unread: Vec::new(),
    }))
}

fn bad(index: u32, pci: Option<&str>, trouble: Trouble) -> Reading {
    Reading::Trouble { index, pci: pci.map(Into::into), uuid: None, trouble }
}

fn failed(pci: &str) -> Message {
    let text = format!("NVRM: GPU {pci}: RmInitAdapter failed! (0x62:0x65:1859)");
    Message { usec: 1, event: xid::parse(&text).expect("is a message"), text }
}

/// What each is called and needs.
fn judged(gpus: &[&str], messages: &[Message], nvml: Option<State>, ignore: &[&str]) -> Vec<(String, Class)> {
    let ignore: Vec<Address> = ignore.iter().map(|pci| pci.parse().expect("an address")).collect();
    of(bound(gpus), messages, nvml.as_ref(), &ignore)
        .into_iter()
        .map(|health| (health.name.clone().unwrap_or_default(), health.class))
        .collect()
}

fn gpu(name: &str, class: Class) -> (String, Class) {
    (name.to_owned(), class)
}

#[test]
fn a_gpu_that_nvml_does_not_show_has_failed() {
    let one = || Some(state(vec![well(0, A)]));
    assert_eq!(
        judged(&[A, B], &[], one(), &[]),
        [gpu("GPU 0 (0000:01:00.0)", Class::Info), gpu("GPU 0000:02:00.0", Class::Failed)]
    );
    assert_eq!(judged(&[A], &[], Some(state(vec![])), &[]), [gpu("GPU 0000:01:00.0", Class::Failed)]);
    assert_eq!(judged(&[A, B], &[], one(), &[B])[1].1, Class::Info, "somebody knows");
    assert_eq!(judged(&[A], &[], None, &[]), [gpu("GPU 0000:01:00.0", Class::Info)], "NVML was not asked");
    let asleep = State { nvml: Answer::Asleep, ..state(vec![]) };
    assert_eq!(judged(&[A], &[], Some(asleep), &[])[0].1, Class::Info, "it was not asked of GPUs");
}

#[test]
fn a_gpu_that_did_not_start_has_failed_also_where_nvml_is_not_asked() {
    assert_eq!(judged(&[A], &[failed(A)], None, &[])[0].1, Class::Failed);
    assert_eq!(judged(&[A], &[failed(A)], Some(state(vec![])), &[])[0].1, Class::Failed);
    assert_eq!(
        judged(&[A], &[failed(A)], Some(state(vec![well(0, A)])), &[])[0].1,
        Class::Info,
        "a later try"
    );
    assert_eq!(judged(&[A], &[failed(A)], None, &[A])[0].1, Class::Info, "somebody knows");
}

#[test]
fn what_nvml_says_of_a_gpu_counts_wherever_it_sits() {
    for (trouble, class) in [
        (Trouble::Lost, Class::Reboot),
        (Trouble::ResetRequired, Class::Reset),
        (Trouble::Other("Unknown Error".into()), Class::Failed),
    ] {
        // With its address; by its index only, where one is left; and where it may be one of two.
        let told = judged(&[A, B], &[], Some(state(vec![well(0, A), bad(1, Some(B), trouble.clone())])), &[]);
        assert_eq!(told[1], gpu("GPU 1 (0000:02:00.0)", class));
        let left = judged(&[A, B], &[], Some(state(vec![well(0, A), bad(1, None, trouble.clone())])), &[]);
        assert_eq!(left[1], gpu("GPU 1 (0000:02:00.0)", class));
        let open = judged(&[A, B], &[], Some(state(vec![bad(0, None, trouble.clone())])), &[]);
        assert_eq!(open[2], gpu("GPU 0 (one of 0000:01:00.0, 0000:02:00.0)", class));
        let both = vec![bad(0, None, trouble.clone()), bad(1, None, trouble)];
        assert_eq!(
            judged(&[A, B], &[], Some(state(both)), &[]),
            [gpu("GPU 0 (0000:01:00.0)", class), gpu("GPU 1 (0000:02:00.0)", class)]
        );
    }
    let lost = judged(&[A], &[], Some(state(vec![bad(0, Some(A), Trouble::Lost)])), &[A]);
    assert_eq!(lost[0].1, Class::Reboot, "what NVML shows is judged in any case");
}

#[test]
fn the_driver_asks_for_a_recovery() {
    let mut asks = well(0, A);
    if let Reading::Ok(gpu) = &mut asks {
        gpu.health.recovery_action = Some(1);
    }
    let health = &of(bound(&[A]), &[], Some(&state(vec![asks])), &[])[0];
    assert_eq!((health.class, health.is_critical()), (Class::Reset, true));
    assert_eq!(
        health.says(&health.evidence[0]),
        "GPU 0 (0000:01:00.0): the driver asks for a recovery: GPU reset (NVML field 230 is 1)"
    );
}
