// SPDX-License-Identifier: MIT
//! `NVRM: Xid (PCI:0000:91:00): 79, pid=1234, name=python3, GPU has fallen off the bus.`

use crate::scan::{Scan, number_after};
use crate::{Address, Detail, Event, Location, Reported, Severity, Xid};

/// What comes behind `NVRM: `.
pub(super) fn parse(text: &str) -> Option<Event> {
    let mut scan = Scan(text);
    scan.tag("Xid (")?;
    let (at, gi, ci) = place(&mut scan)?;
    scan.tag("): ")?;
    let xid = scan.number()?;
    let (pid, name, msg) = match scan.0.trim_start() {
        "" => (None, None, ""),
        rest => process(rest.strip_prefix(',')?.trim_start()),
    };
    let detail = detail(xid, msg);
    Some(Event::Xid(Xid { at, gi, ci, xid, pid, name: name.map(str::to_owned), msg: msg.to_owned(), detail }))
}

/// `PCI:0000:91:00 GPU-I:05 GPU-CI:00`, where drivers before 470 leave out `PCI:`.
fn place(scan: &mut Scan<'_>) -> Option<(Location, Option<u32>, Option<u32>)> {
    let _ = scan.tag("PCI:");
    let at = location(scan)?;
    let mut instance = |tag| match scan.tag(tag) {
        Some(()) => scan.number().map(Some),
        None => Some(None),
    };
    Some((at, instance(" GPU-I:")?, instance(" GPU-CI:")?))
}

/// `0000:91:00` or `0000:91:00.0`.
pub(super) fn location(scan: &mut Scan<'_>) -> Option<Location> {
    let (pci, rest) = Address::take(scan.0)?;
    scan.0 = rest;
    let function = match rest.as_bytes() {
        [b'.', digit @ b'0'..=b'7', ..] => {
            scan.0 = &rest[2..];
            Some(digit - b'0')
        }
        _ => None,
    };
    Some(Location { pci, function })
}

/// Process, its name, and the rest. Drivers before 525 leave out the name, some all of it, and 610 the
/// number alone; until 565 what is not known is `'<unknown>'`.
fn process(text: &str) -> (Option<u32>, Option<&str>, &str) {
    let (pid, rest) = match text.strip_prefix("pid=") {
        Some(text) => {
            let (pid, rest) = text.split_once(',').unwrap_or((text, ""));
            // Anything else than a number is a process that the driver does not know.
            (pid.trim().parse().ok(), rest.trim_start())
        }
        None => (None, text),
    };
    let Some(named) = rest.strip_prefix("name=") else { return (pid, None, rest) };
    let (name, msg) = named.split_once(", ").unwrap_or((named, ""));
    (pid, Some(name.trim_end_matches(',')).filter(|name| *name != "<unknown>"), msg.trim_start())
}

/// What the text says beyond the code.
fn detail(xid: u32, msg: &str) -> Detail {
    let understood = match xid {
        13 => part(msg),
        45 => number_after(msg, "caused by previous Xid ").map(|caused_by| Detail::CausedBy { caused_by }),
        48 => memory(msg),
        63 => {
            Some(Detail::Remap { reset_pending: msg.to_ascii_lowercase().contains("reset gpu to activate") })
        }
        74 => Some(Detail::NvLink { link: number_after(msg, " link "), regs: registers(msg) }),
        94 | 95 => contained(msg),
        119 => rpc(msg),
        144..=150 => reported(msg).map(Detail::NvLink5),
        154 => recovery(msg),
        _ => None,
    };
    understood.unwrap_or(Detail::None {})
}

/// `Graphics SM Warp Exception on (GPC 1, TPC 0, SM 1): …`
fn part(msg: &str) -> Option<Detail> {
    let mut scan = Scan(msg.split_once("(GPC ")?.1);
    let gpc = scan.number()?;
    scan.tag(", TPC ")?;
    let tpc = scan.number()?;
    let sm = scan.tag(", SM ").and_then(|()| scan.number());
    Some(Detail::Part { gpc, tpc, sm })
}

/// `… has been detected on GPU in the framebuffer at physAddr …`
fn memory(msg: &str) -> Option<Detail> {
    let rest = msg.split_once(" on GPU in the ")?.1;
    let unit = rest.split_once(" at ").map_or(rest, |(unit, _)| unit).trim_end_matches('.');
    Some(Detail::Memory { unit: unit.to_owned() })
}

/// `(0x0, 0x0, 0x10000, 0x0, 0x0, 0x0, 0x0)`
fn registers(msg: &str) -> Option<Vec<String>> {
    let (inside, _) = msg.split_once('(')?.1.split_once(')')?;
    let is_register = |text: &str| Scan(text).hex().is_some_and(|hex| hex.len() == text.len());
    let registers: Vec<&str> = inside.split(',').map(str::trim).collect();
    registers.iter().all(|text| is_register(text)).then(|| registers.into_iter().map(str::to_owned).collect())
}

/// `Uncontained: LTC TAG (0x2, 0x1). RST: Yes, D-RST: No`
fn contained(msg: &str) -> Option<Detail> {
    // From behind: the same letters are in `D-RST`.
    let (before, drst) = msg.rsplit_once("D-RST: ")?;
    let (_, rst) = before.rsplit_once("RST: ")?;
    let yes = |text: &str| text.starts_with("Yes");
    Some(Detail::Contained { rst: yes(rst), drst: yes(drst) })
}

/// `Timeout after 6s of waiting for RPC response from GPU4 GSP! Expected function 103 (…) sequence 8 (…).`
fn rpc(msg: &str) -> Option<Detail> {
    Some(Detail::Rpc {
        timeout_s: number_after(msg, "Timeout after "),
        rpc: number_after(msg, "Expected function "),
        sequence: number_after(msg, ") sequence "),
    })
}

/// `GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)`. The words change from
/// driver to driver, the numbers do not.
fn recovery(msg: &str) -> Option<Detail> {
    let mut scan = Scan(msg);
    scan.until("changed from ")?;
    let action_from = crate::scan::hex_value(scan.hex()?)?;
    scan.until(" to ")?;
    let action_to = crate::scan::hex_value(scan.hex()?)?;
    Some(Detail::Recovery { action_from, action_to })
}

/// `RLW_SRC_TRACK Nonfatal XC1 i0 Link 03 (0x040868e2 0x00000008 …)`
fn reported(msg: &str) -> Option<Reported> {
    let mut scan = Scan(msg);
    let sub = scan.while_(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')?.to_owned();
    scan.spaces();
    let severity = match scan.while_(|c| c.is_ascii_alphabetic() || c == '-')? {
        "Fatal" => Severity::Fatal,
        "Nonfatal" | "Non-fatal" => Severity::Nonfatal,
        "Correctable" => Severity::Correctable,
        _ => return None,
    };
    scan.spaces();
    scan.tag("XC")?;
    let xc = scan.number()?;
    scan.spaces();
    scan.tag("i")?;
    let injected = scan.number()?;
    scan.spaces();
    scan.tag("Link")?;
    scan.spaces();
    let sign = if scan.tag("-").is_some() { -1 } else { 1 };
    let link = sign * scan.number::<i32>()?;
    scan.spaces();
    scan.tag("(")?;
    let intrinfo = scan.hex()?.to_owned();
    scan.spaces();
    let status = scan.hex()?.to_owned();
    Some(Reported { sub, severity, xc, injected, link, intrinfo, status })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Xid> {
        match parse(text) {
            Some(Event::Xid(xid)) => Some(xid),
            _ => None,
        }
    }

    #[test]
    fn addresses_of_all_forms() {
        for (text, expected) in [
            ("Xid (PCI:0000:01:00): 62", (None, None, None)),
            ("Xid (0000:01:00): 62, 22e5(2d10)", (None, None, None)),
            ("Xid (PCI:0000:01:00.3): 62", (Some(3), None, None)),
            ("Xid (PCI:0000:01:00 GPU-I:05): 62", (None, Some(5), None)),
            ("Xid (PCI:0000:01:00 GPU-I:05 GPU-CI:00): 62", (None, Some(5), Some(0))),
        ] {
            let xid = read(text).expect(text);
            assert_eq!(
                (xid.at.function, xid.gi, xid.ci, xid.xid),
                (expected.0, expected.1, expected.2, 62),
                "{text}"
            );
        }
    }

    #[test]
    fn half_a_message_is_none() {
        for text in [
            "Xid (PCI:0000:01:00): ",
            "Xid (PCI:0000:01:00): 99999999999",
            "Xid (PCI:0000:01:00): 79x",
            "Xid (PCI:0000:01:00 GPU-I:): 79",
            "Xid (PCI:0000:01:00) 79",
            "Xid (PCI:0000:01): 79",
            "SXid (PCI:0000:01:00): 79",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_process_may_be_unknown_or_nameless() {
        let of = |text: &str| {
            let xid = read(&format!("Xid (PCI:0000:01:00): 31, {text}")).expect(text);
            (xid.pid, xid.name, xid.msg)
        };
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(of("pid='<unknown>', name=<unknown>, Ch 8"), (None, None, "Ch 8".into()));
        assert_eq!(of("pid=<unknown>, Ch 8"), (None, None, "Ch 8".into()));
        assert_eq!(of("pid=12, Ch 8"), (Some(12), None, "Ch 8".into()));
        assert_eq!(of("pid=12, name=a:b c.d"), (Some(12), name("a:b c.d"), String::new()));
        assert_eq!(of("pid=12, name=a, pid=13, name=b"), (Some(12), name("a"), "pid=13, name=b".into()));
        assert_eq!(of("name=a.exe, channel 8"), (None, name("a.exe"), "channel 8".into()));
        assert_eq!(of("Ch 8, pid=12"), (None, None, "Ch 8, pid=12".into()));
    }
}
