// SPDX-License-Identifier: MIT
//! What the driver says beside Xids.

use super::xid::location;
use crate::scan::Scan;
use crate::{ApiMismatch, Event, GpuLost};

/// What comes behind `NVRM: `.
pub(super) fn parse(text: &str) -> Option<Event> {
    let text = joined(text);
    let text = text.as_str();
    of_address(text)
        .or_else(|| of_driver(text))
        .or_else(|| refused(text))
        .or_else(|| api_mismatch(text))
        .or_else(|| of_function(text))
}

/// A message of several lines as one: each of them begins with the driver's name.
fn joined(text: &str) -> String {
    let words = text.lines().flat_map(|line| {
        let line = line.trim_start();
        line.strip_prefix("NVRM:").unwrap_or(line).split_whitespace()
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Messages about one GPU, by its address.
fn of_address(text: &str) -> Option<Event> {
    let mut scan = Scan(text);
    if scan.tag("GPU at PCI:").is_some() {
        let pci = location(&mut scan)?.pci;
        scan.tag(": GPU-")?;
        let is_uuid =
            !scan.0.is_empty() && scan.0.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        return is_uuid.then(|| Event::GpuUuid { pci, uuid: format!("GPU-{}", scan.0) });
    }
    if scan.tag("Rate limiting GSP RPC error prints for GPU at PCI:").is_some() {
        let pci = location(&mut scan)?.pci;
        return scan.0.starts_with(" (").then_some(Event::GspRatelimit { pci });
    }
    if scan.tag("Attempting to remove device ").is_some() {
        let at = location(&mut scan)?;
        return (scan.0 == " with non-zero usage count!").then_some(Event::UnbindWait { at });
    }
    if scan.tag("Continuing with GPU removal for device ").is_some() {
        let at = location(&mut scan)?;
        return scan.0.is_empty().then_some(Event::UnbindDone { at });
    }
    scan.tag("GPU ")?;
    let at = location(&mut scan)?;
    scan.tag(": ")?;
    if scan.0 == "GPU has fallen off the bus." {
        return Some(Event::GpuLost(GpuLost { at, device_id: None, dedup_of: Some(79) }));
    }
    if scan.tag("GPU serial number is ").is_some() {
        return Some(Event::GpuSerial { pci: Some(at.pci), serial: scan.0.trim_end_matches('.').to_owned() });
    }
    scan.tag("RmInitAdapter failed! (")?;
    let code = scan.until(")")?.to_owned();
    Some(Event::RmInitFailed { at, code })
}

/// Messages about the driver as a whole.
fn of_driver(text: &str) -> Option<Event> {
    let mut scan = Scan(text);
    if scan.tag("GPU Board Serial Number: ").is_some() {
        return Some(Event::GpuSerial { pci: None, serial: scan.0.to_owned() });
    }
    if scan.tag("The NVIDIA probe routine failed for ").is_some() {
        let count = scan.number()?;
        return scan.0.starts_with(" device").then_some(Event::ProbeFailed { count });
    }
    scan.tag("loading NVIDIA UNIX ")?;
    Some(Event::DriverLoad { open: scan.0.starts_with("Open "), version: version(scan.0)? })
}

/// The first word that is a version.
pub(super) fn version(text: &str) -> Option<String> {
    text.split_whitespace().find(|word| is_version(word)).map(str::to_owned)
}

fn is_version(word: &str) -> bool {
    let mut parts = word.split('.');
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    parts.clone().count() >= 2 && parts.all(is_number)
}

/// `The NVIDIA GPU 0000:b3:00.0 (PCI ID: 10de:26b5) installed in this system …`
fn refused(text: &str) -> Option<Event> {
    let mut scan = Scan(text);
    scan.tag("The NVIDIA GPU ")?;
    let at = location(&mut scan)?;
    scan.tag(" (PCI ID: ")?;
    let (_, device_id) = scan.until(")")?.split_once(':')?;
    let device_id = device_id.to_owned();
    scan.tag(" installed in this system ")?;
    if scan.0.starts_with("has fallen off the bus") {
        return Some(Event::GpuLost(GpuLost { at, device_id: Some(device_id), dedup_of: None }));
    }
    scan.0
        .starts_with("requires use of the NVIDIA open kernel modules")
        .then_some(Event::NeedsOpenModule { at, device_id })
}

/// `API mismatch: the client 'comm' (pid N) has the version A, but this kernel module has the version B.`
fn api_mismatch(text: &str) -> Option<Event> {
    let mut scan = Scan(text);
    scan.tag("API mismatch: the client ")?;
    let (who, rest) = scan.0.split_once("has the version ")?;
    let (client, pid) = match who.trim_end().strip_prefix('\'') {
        // The name is the process's own choice: what the driver puts behind it is found from behind.
        Some(named) => {
            let (client, pid) = named.rsplit_once("' (pid ")?;
            (Some(client.to_owned()), pid.strip_suffix(')')?.parse().ok())
        }
        None => (None, None),
    };
    let (client_version, rest) = rest.split_once(',')?;
    let module_version = rest.split_once("has the version ")?.1;
    let module_version = module_version.split([' ', ',']).next()?.trim_end_matches('.');
    (is_version(client_version) && is_version(module_version)).then(|| {
        let (client_version, module_version) = (client_version.to_owned(), module_version.to_owned());
        Event::ApiMismatch(ApiMismatch { client, pid, client_version, module_version })
    })
}

/// `GPU6 _kgspBootGspRm: unexpected WPR2 already up, …`: a function of the driver speaks, of a GPU or not.
fn of_function(text: &str) -> Option<Event> {
    let mut scan = Scan(text);
    let gpu_instance = scan.tag("GPU").and_then(|()| scan.number());
    scan = if gpu_instance.is_some() { Scan(scan.0.trim_start()) } else { Scan(text) };
    let (function, says) = match scan.0.split_once(": ") {
        Some((function, says)) if !function.contains(' ') => (function, says),
        _ => ("", scan.0),
    };
    if says.starts_with("unexpected WPR2 already up") {
        return Some(Event::Wpr2Up { gpu_instance });
    }
    if function == "RmInitAdapter" && says.starts_with("Cannot initialize GSP firmware RM") {
        return Some(Event::GspInitFailed { gpu_instance });
    }
    if function.starts_with("knvlinkDiscoverPostRxDetLinks") && says.contains("postRxDetLinkMask failed") {
        return Some(Event::NvlinkRxdetFailed);
    }
    let mut scan = Scan(says);
    scan.tag("uvm encountered global fatal error ")?;
    let error = scan.hex()?.to_owned();
    scan.0.starts_with(", requiring os reboot").then_some(Event::UvmFatal { error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uvms_last_word_in_all_its_forms() {
        for text in [
            "nvGpuOpsReportFatalError: uvm encountered global fatal error 0x60, requiring os reboot to recover.",
            "GPU0 nvGpuOpsReportFatalError: uvm encountered global fatal error 0x60, requiring os reboot to recover.",
            "uvm encountered global fatal error 0x60, requiring os reboot to recover.",
        ] {
            assert_eq!(parse(text), Some(Event::UvmFatal { error: "0x60".into() }), "{text}");
        }
        assert_eq!(parse("a b: uvm encountered global fatal error 0x60, requiring os reboot"), None);
    }

    #[test]
    fn api_mismatches_before_and_after_575() {
        let old = "API mismatch: the client has the version 535.261.03, but\nNVRM: this kernel module has the version 550.163.01.  Please\nNVRM: make sure that this kernel module and all NVIDIA driver\nNVRM: components have the same version.";
        let expected = |client: Option<&str>, pid| {
            Some(Event::ApiMismatch(ApiMismatch {
                client: client.map(str::to_owned),
                pid,
                client_version: "535.261.03".into(),
                module_version: "550.163.01".into(),
            }))
        };
        assert_eq!(parse(old), expected(None, None));
        let new = "API mismatch: the client 'a' (pid 1' (pid 7)\nNVRM: has the version 535.261.03, but this kernel module has\nNVRM: the version 550.163.01.  Please";
        assert_eq!(parse(new), expected(Some("a' (pid 1"), Some(7)));
    }

    #[test]
    fn both_kinds_of_modules_say_when_they_are_loaded() {
        let open = "loading NVIDIA UNIX Open Kernel Module for x86_64  535.261.03  Release Build  (abc@def)  Thu Jul 10 2025";
        assert_eq!(parse(open), Some(Event::DriverLoad { version: "535.261.03".into(), open: true }));
        let closed = "loading NVIDIA UNIX x86_64 Kernel Module  470.256.02  Thu May  2 14:37:44 UTC 2024";
        assert_eq!(parse(closed), Some(Event::DriverLoad { version: "470.256.02".into(), open: false }));
        assert_eq!(parse("loading NVIDIA UNIX Kernel Module"), None);
    }
}
