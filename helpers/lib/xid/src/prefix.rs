// SPDX-License-Identifier: MIT
//! What logs put before a kernel message, and whether it says that the message is the kernel's.
//!
//! Every form that is taken is written down here. What says nothing of its origin is the kernel's only
//! in a form that no log but the kernel's has: that of dmesg.

use crate::scan::Scan;
use crate::stamp::{Date, date, is_digits, is_stamp};

/// What the driver's messages begin with.
const BEGINNINGS: [&str; 3] = ["NVRM:", "nvidia-modeset:", "nvidia-nvswitch"];

/// Levels as dmesg, Talos and syslog write them.
const LEVELS: [&str; 11] =
    ["emerg", "alert", "crit", "err", "error", "warn", "warning", "notice", "info", "debug", "panic"];

/// Syslog's facilities beside the kernel's.
const OTHER_FACILITIES: [&str; 13] = [
    "user", "mail", "daemon", "auth", "authpriv", "security", "syslog", "lpr", "news", "uucp", "cron", "ftp",
    "ntp",
];

/// Whether a message of the driver begins here.
pub(crate) fn is_beginning(text: &str) -> bool {
    BEGINNINGS.iter().any(|beginning| text.starts_with(beginning))
}

/// The message without time, host and kernel's tag. None where that, or what else is before it, is
/// another program's, or where no message of the driver follows.
pub(crate) fn without_prefix(line: &str) -> Option<&str> {
    // Most lines of a log are somebody else's.
    if !BEGINNINGS.iter().any(|beginning| line.contains(beginning)) {
        return None;
    }
    let mut scan = Scan(line.trim_start_matches('\u{feff}').trim_start());
    grep(&mut scan);
    let written = priority(&mut scan)?;
    if written == Priority::Rfc5424 {
        return rfc5424(scan);
    }
    let facility = facility(&mut scan);
    let stamped = stamps(&mut scan, facility == Facility::Talos)?;
    let date = match stamped {
        true => Date::None,
        false => date(&mut scan),
    };
    // The kernel's own stamp behind the time of what wrote the log.
    if date == Date::Words {
        stamps(&mut scan, false)?;
    }
    if is_beginning(scan.0) {
        let says = written == Priority::Kernel || facility != Facility::None;
        return (says || matches!(date, Date::None | Date::Words | Date::Dmesg)).then_some(scan.0);
    }
    host_and_tag(&mut scan, date != Date::None)?;
    repeated(&mut scan);
    priority(&mut scan)?;
    stamps(&mut scan, false)?;
    is_beginning(scan.0).then_some(scan.0)
}

/// `message repeated 3 times: [ … ]`, which rsyslog writes instead of what it has written just before.
fn repeated(scan: &mut Scan<'_>) {
    let mut inside = *scan;
    if inside.tag("message repeated ").is_some()
        && inside.number::<u64>().is_some()
        && inside.tag(" times: [").is_some()
        && let Some(message) = inside.0.strip_suffix(']')
    {
        scan.0 = message.trim_start();
    }
}

/// The file and the line's number that grep puts before a line, without a blank behind them.
fn grep(scan: &mut Scan<'_>) {
    const LOGS: [&str; 4] = ["kern.log", "syslog", "messages", "dmesg"];
    if let Some((file, rest)) = scan.0.split_once(':')
        && !file.contains(char::is_whitespace)
        && (file.starts_with(['/', '.']) || LOGS.iter().any(|log| file.starts_with(log)))
        && !rest.starts_with(' ')
    {
        scan.0 = rest;
    }
    if let Some((number, rest)) = scan.0.split_once(':')
        && is_digits(number)
        && rest.starts_with(|first: char| !first.is_ascii_digit() && first != ' ')
    {
        scan.0 = rest;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Priority {
    None,
    Kernel,
    Rfc5424,
}

/// `<4>`, `<4>1 ` or the numbers of /dev/kmsg before a message. None where the facility is not the
/// kernel's: syslog(3) has the level in the three lowest bits and the facility above them, the kernel's
/// is 0.
fn priority(scan: &mut Scan<'_>) -> Option<Priority> {
    // The length, where messages are counted and not ended by a line end.
    if let Some((count, rest)) = scan.0.split_once(' ')
        && is_digits(count)
        && rest.starts_with('<')
    {
        scan.0 = rest;
    }
    let (number, rest, form) = if let Some(rest) = scan.0.strip_prefix('<') {
        let (number, rest) = rest.split_once('>')?;
        match rest.strip_prefix("1 ") {
            Some(rest) => (number, rest, Priority::Rfc5424),
            None => (number, rest, Priority::Kernel),
        }
    } else if let Some((numbers, rest)) = scan.0.split_once(';')
        && let Some(number) = kmsg(numbers)
    {
        (number, rest, Priority::Kernel)
    } else {
        return Some(Priority::None);
    };
    let number: u32 = number.parse().ok()?;
    scan.0 = rest.trim_start();
    (number >> 3 == 0).then_some(form)
}

/// The priority in `4,1234,567890,-`, which netconsole may put the kernel's release before.
fn kmsg(fields: &str) -> Option<&str> {
    let fields: Vec<&str> = fields.split(',').collect();
    let fields = match fields.as_slice() {
        [release, rest @ ..] if release.contains('.') && is_host(release) => rest,
        fields => fields,
    };
    match fields {
        [number, sequence, usec, _, ..] => {
            [number, sequence, usec].iter().all(|field| is_digits(field)).then_some(*number)
        }
        _ => None,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Facility {
    None,
    Dmesg,
    Talos,
}

/// `kern  :warn  : `, as `dmesg --decode` has it, or `NODE: kern: warning: ` and a time, as Talos has it.
fn facility(scan: &mut Scan<'_>) -> Facility {
    let level = |text: &str| LEVELS.contains(&text.trim());
    if let Some(rest) = scan.0.strip_prefix("kern")
        && let Some(rest) = rest.trim_start().strip_prefix(':')
        && let Some((word, rest)) = rest.split_once(':')
        && level(word)
    {
        scan.0 = rest.trim_start();
        // One node's: nothing before it.
        return if word.starts_with(' ') { Facility::Talos } else { Facility::Dmesg };
    }
    if let Some((node, rest)) = scan.0.split_once(": kern: ")
        && is_host(node)
        && let Some((word, rest)) = rest.split_once(": [")
        && level(word)
    {
        scan.0 = &scan.0[scan.0.len() - rest.len() - 1..];
        return Facility::Talos;
    }
    Facility::None
}

/// Steps over `[   12.345678]`, `[ T1946]`, `[Sun Feb 23 16:24:18 2025]` and their like, and says whether
/// there was one. None where something else is in brackets.
fn stamps(scan: &mut Scan<'_>, talos: bool) -> Option<bool> {
    let mut found = false;
    while let Some(rest) = scan.0.strip_prefix('[') {
        let (inside, rest) = rest.split_once(']')?;
        if inside == "kernel" {
            break;
        }
        // The Fabric Manager's own log has the switches' messages behind such a time.
        let is_managers = rest.trim_start().starts_with("nvidia-nvswitch") && inside.contains('.');
        if !is_stamp(inside, talos || is_managers) {
            return None;
        }
        let rest = rest.strip_prefix(':').filter(|_| talos).unwrap_or(rest);
        scan.0 = rest.trim_start();
        found = true;
    }
    Some(found)
}

/// A zone and a host, the facility, and the kernel's tag.
fn host_and_tag(scan: &mut Scan<'_>, dated: bool) -> Option<()> {
    let mut words: Vec<&str> = Vec::new();
    loop {
        for tag in ["kernel:", "[kernel]"] {
            if scan.tag(tag).is_some() {
                scan.spaces();
                return is_origin(&words, dated).then_some(());
            }
        }
        let end = scan.0.find(char::is_whitespace)?;
        let word = &scan.0[..end];
        scan.0 = scan.0[end..].trim_start();
        if word == "kernel" {
            structured(scan)?;
            return is_origin(&words, dated).then_some(());
        }
        if words.len() == 3 {
            return None;
        }
        words.push(word);
    }
}

/// Whether `words` are a zone, a host and the kernel's facility, each where it is one.
fn is_origin(words: &[&str], dated: bool) -> bool {
    let mut rest = Vec::new();
    for word in words {
        // BSD's syslogd puts it in brackets, before the host.
        let bare = word.strip_prefix('<').and_then(|word| word.strip_suffix('>')).unwrap_or(word);
        match bare.split_once('.') {
            Some(("kern", level)) if LEVELS.contains(&level) => {}
            Some((facility, level)) if LEVELS.contains(&level) && is_other_facility(facility) => {
                return false;
            }
            _ => rest.push(*word),
        }
    }
    match rest.as_slice() {
        [] => true,
        [host] => is_host(host),
        [zone, host] => dated && is_zone(zone) && is_host(host),
        _ => false,
    }
}

/// RFC 5424 behind priority and version: time, host, name, process, message id, data.
fn rfc5424(mut scan: Scan<'_>) -> Option<&str> {
    let mut field = || {
        let word = scan.until(" ")?;
        scan.spaces();
        Some(word)
    };
    let (_time, _host, name) = (field()?, field()?, field()?);
    if name != "kernel" {
        return None;
    }
    structured(&mut scan)?;
    stamps(&mut scan, false)?;
    is_beginning(scan.0).then_some(scan.0)
}

/// Steps over process, message id and data of RFC 5424. The kernel is no process.
fn structured(scan: &mut Scan<'_>) -> Option<()> {
    scan.tag("- ")?;
    scan.spaces();
    let id = scan.until(" ")?;
    if id.contains(['[', ']', ':']) {
        return None;
    }
    scan.spaces();
    if scan.tag("-").is_none() {
        if !scan.0.starts_with('[') {
            return None;
        }
        while scan.tag("[").is_some() {
            element(scan)?;
        }
    }
    if !scan.0.starts_with([' ', '\u{feff}']) {
        return None;
    }
    scan.spaces();
    // A message in UTF-8 says so first.
    let _ = scan.tag("\u{feff}");
    scan.spaces();
    Some(())
}

/// `timeQuality tzKnown="1"]`: within quotes a bracket ends nothing.
fn element(scan: &mut Scan<'_>) -> Option<()> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in scan.0.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ']' if !quoted => {
                scan.0 = &scan.0[at + 1..];
                return Some(());
            }
            _ => {}
        }
    }
    None
}

fn is_zone(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).map(|zone| zone.replacen(':', "", 1));
    match digits {
        Some(digits) => is_digits(&digits) && digits.len() <= 4,
        None => (2..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_uppercase()),
    }
}

/// A host's name or address. A program's tag ends in a colon, and a level is no host.
fn is_host(text: &str) -> bool {
    !text.is_empty()
        && !text.ends_with(':')
        && !LEVELS.contains(&text.to_ascii_lowercase().as_str())
        && text.chars().all(|c| c.is_alphanumeric() || ".-_:/@%".contains(c))
}

fn is_other_facility(text: &str) -> bool {
    OTHER_FACILITIES.contains(&text) || text.strip_prefix("local").is_some_and(is_digits)
}
