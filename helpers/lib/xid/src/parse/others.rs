// SPDX-License-Identifier: MIT
//! The modules beside the driver itself: the switches', and nvidia-modeset.

use super::nvrm::version;
use super::xid::location;
use crate::scan::{Scan, number_after};
use crate::{Event, ModesetError, Severity, Sxid};

/// What comes behind `nvidia-modeset: `.
pub(super) fn modeset(text: &str) -> Option<Event> {
    if text == "Unloading" {
        return Some(Event::ModesetUnload);
    }
    if let Some(rest) = text.strip_prefix("Loading ") {
        return Some(Event::ModesetLoad { version: version(rest)? });
    }
    let mut scan = Scan(text);
    let is_error = scan.tag("ERROR: ").is_some();
    if !is_error {
        scan.tag("WARNING: ")?;
    }
    scan.tag("GPU:")?;
    let gpu_index = scan.number()?;
    scan.tag(": ")?;
    if !is_error {
        return Some(Event::ModesetWarning { gpu_index });
    }
    let stuck = scan.0.starts_with("Error while waiting for GPU progress");
    Some(Event::ModesetError(ModesetError { gpu_index, stuck, msg: scan.0.to_owned() }))
}

/// What comes behind `nvidia-nvswitch`: `3: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32 …`
pub(super) fn nvswitch(text: &str) -> Option<Event> {
    let mut scan = Scan(text);
    let switch = scan.number()?;
    scan.tag(": SXid (PCI:")?;
    let at = location(&mut scan)?;
    scan.tag("): ")?;
    let sxid = scan.number()?;
    scan.tag(", ")?;
    if scan.0.starts_with("Data {") {
        return Some(Event::SxidData { switch, at, sxid });
    }
    let (severity, msg) = scan.0.split_once(", ").unwrap_or((scan.0, ""));
    let severity = match severity {
        "Fatal" => Severity::Fatal,
        "Non-fatal" => Severity::Nonfatal,
        "Correctable" => Severity::Correctable,
        _ => return None,
    };
    let link = msg.starts_with("Link ").then(|| number_after(msg, "Link ")).flatten();
    let always_fatal = severity == Severity::Fatal && is_always_fatal(sxid);
    Some(Event::Sxid(Sxid { switch, at, sxid, severity, link, always_fatal, msg: msg.to_owned() }))
}

/// Those that need a restart of the host, or a reset of all switches and GPUs at once. Source: the Fabric
/// Manager user guide, appendix on NVSwitch errors. What the message itself says comes first.
fn is_always_fatal(sxid: u32) -> bool {
    matches!(sxid, 12020 | 22003 | 22011 | 23001..=23017)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_severity_in_the_message_beats_the_list() {
        let of = |severity: &str| match nvswitch(&format!(
            "0: SXid (PCI:0000:59:00.0): 23001, {severity}, Link 12 x"
        )) {
            Some(Event::Sxid(sxid)) => Some((sxid.always_fatal, sxid.link)),
            _ => None,
        };
        assert_eq!(of("Fatal"), Some((true, Some(12))));
        assert_eq!(of("Non-fatal"), Some((false, Some(12))));
        assert_eq!(of("Terrible"), None);
    }

    #[test]
    fn modeset_says_when_it_comes_and_goes() {
        let load =
            "Loading NVIDIA Kernel Mode Setting Driver for UNIX platforms  535.261.03  Thu Jul 10 2025";
        assert_eq!(modeset(load), Some(Event::ModesetLoad { version: "535.261.03".into() }));
        assert_eq!(modeset("Unloading"), Some(Event::ModesetUnload));
        assert_eq!(modeset("Allocated GPU:0 (GPU-…) @ PCI:0000:01:00.0"), None);
    }
}
