// SPDX-License-Identifier: MIT
//! The status: the first screen, to be read at a glance.

use std::time::SystemTime;

use ledger::Object;
use step::Verdict;
use xid::Class;

use super::holders::{holders, unexplained};
use super::table::{Column, table};
use super::text::{ago, bytes, clean, seconds, wrap};
use super::verdict::{next, verdict};
use super::{Paint, Style, lease, request};
use crate::status::{Gpu, Initramfs, Refusal, RunInShort, State, Status};

/// Where the values begin.
const LABEL: usize = 13;

const GPUS: [Column; 6] = [
    Column { title: "GPU", right: true, least: 0, rank: 0 },
    Column { title: "MODEL", right: false, least: 12, rank: 0 },
    Column { title: "PCI", right: false, least: 0, rank: 0 },
    Column { title: "UUID", right: false, least: 0, rank: 0 },
    Column { title: "MEMORY", right: true, least: 0, rank: 0 },
    Column { title: "HEALTH", right: false, least: 0, rank: 0 },
];

/// The whole page.
pub fn status(status: &Status, style: Style, now: SystemTime) -> String {
    let mut page = verdict(status, style);
    page.push('\n');
    let mut row = |label: &str, value: String| page.push_str(&entry(label, &value, style));
    row("Driver", versions(status));
    if let Some(reason) = &status.driver.out_of_reach {
        row("", style.paint(Paint::Attention, &clean(&reason.what)));
        row("", clean(&reason.remedy));
    } else if let Some(healed) = &status.healed {
        row("", clean(&heals(&healed.version, status.driver.loaded.as_deref())));
    } else if status.driver.mismatch == Some(true) {
        row("", "programs that start now find libraries that do not match the loaded driver".to_owned());
    }
    if let Some(put_back) = &status.put_back {
        row("", style.paint(Paint::Attention, &clean(&put_back.sentence())));
        row("", clean(&put_back.remedy));
    }
    if !status.modules.is_empty() && style.verbose {
        row("References", modules(status));
    }
    row("Machine", machine(status, style));
    if status.gate.shut {
        row("Loading", style.paint(Paint::Attention, "module loading is blocked until the run ends"));
    }
    for (at, value) in
        status.request.iter().flat_map(|request| request::values(request, style, now)).enumerate()
    {
        row(if at == 0 { "Upgrade" } else { "" }, value);
    }
    for (at, value) in status.lease.iter().flat_map(|lease| lease::values(lease, style, now)).enumerate() {
        row(if at == 0 { "Fleet lock" } else { "" }, value);
    }
    for value in status.initramfs.iter().map(next_boot) {
        row("Next boot", style.paint(Paint::Attention, &value));
    }
    let open = status.runs.open.iter().flat_map(|run| open_run(run, status, style, now));
    for (at, value) in open.enumerate() {
        row(if at == 0 { "Open run" } else { "" }, value);
    }
    for (at, value) in status.runs.refused.iter().flat_map(|refused| refusal(refused, style, now)).enumerate()
    {
        row(if at == 0 { "Refused" } else { "" }, value);
    }
    for (at, value) in status.runs.last.iter().flat_map(|run| last_run(run, status, style, now)).enumerate() {
        row(if at == 0 { "Last run" } else { "" }, value);
    }
    page.push_str(&gpus(status, style));
    page.push('\n');
    page.push_str(&holders(status, style));
    if !status.consoles.is_empty() || !status.unexplained.is_empty() {
        page.push('\n');
    }
    for console in &status.consoles {
        let value = format!("{} is drawn on {}", console.name, console.framebuffers.join(", "));
        page.push_str(&entry("Console", &clean(&value), style));
    }
    for one in &status.unexplained {
        page.push_str(&entry("Unexplained", &clean(&unexplained(one)), style));
    }
    if !status.unseen.is_empty() {
        page.push_str(&format!("\n{}\n", style.paint(Paint::Strong, "Not seen")));
        for text in &status.unseen {
            page.push_str(&wrap("  - ", &clean(text), style.width));
        }
    }
    page.push('\n');
    for (at, next) in next(status).into_iter().enumerate() {
        page.push_str(&entry(if at == 0 { "Next" } else { "" }, next, style));
    }
    page
}

/// A label and its value, which goes on below its start.
fn entry(label: &str, value: &str, style: Style) -> String {
    let entry = wrap(&format!("{label:LABEL$}"), value, style.width);
    // Painted last, since paint has no width.
    entry.replacen(label, &style.paint(Paint::Faint, label), 1)
}

fn versions(status: &Status) -> String {
    let driver = &status.driver;
    let loaded = match (&driver.loaded, driver.present) {
        (Some(loaded), _) => format!("{loaded} loaded"),
        (None, true) => "loaded, of unknown version".to_owned(),
        (None, false) => "not loaded".to_owned(),
    };
    let on_disk = match &driver.on_disk {
        Some(on_disk) => format!("{on_disk} installed"),
        None => "none installed for this kernel".to_owned(),
    };
    let library = driver.library.as_ref().map(|library| format!(", libraries {library}")).unwrap_or_default();
    clean(&format!("{loaded}, {on_disk}{library}"))
}

/// Which libraries programs get.
fn heals(version: &str, loaded: Option<&str>) -> String {
    match loaded == Some(version) {
        true => format!("healed: programs that start find the libraries of {version}, until the reload"),
        false => format!(
            "programs find the libraries of {version}, which is not loaded: `nvidia-reload heal --end`"
        ),
    }
}

fn next_boot(initramfs: &Initramfs) -> String {
    let one = |module: &initramfs::Packed| match &module.version {
        Some(version) => format!("{} {version}", module.name),
        None => module.name.clone(),
    };
    let stale = initramfs.stale.iter().map(one).collect::<Vec<_>>().join(", ");
    let remedy = match &initramfs.remedy {
        Some(command) => format!("`{command}` regenerates it"),
        None => "regenerate it".to_owned(),
    };
    clean(&format!("would load {stale} from {}: {remedy}", initramfs.archive))
}

fn modules(status: &Status) -> String {
    let one = |module: &holders::Module| {
        let whose = if module.of_driver { "" } else { " (not NVIDIA's driver)" };
        let count = module.refcount.map_or_else(|| "not counted".to_owned(), |count| count.to_string());
        format!("{} {count}{whose}", clean(&module.name))
    };
    status.modules.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn machine(status: &Status, style: Style) -> String {
    let (paint, text) = match status.state {
        State::InService => (Paint::Good, "in service"),
        State::Busy => (Paint::Attention, "a run is under way"),
        State::Restoring => (Paint::Attention, "a run restores what it stopped"),
        State::Drained => (Paint::Attention, "drained until `nvidia-reload start`"),
        State::Offline => (Paint::Attention, "offline until `nvidia-reload start`"),
        State::Unknown => (Paint::Faint, "unknown: systemd does not answer"),
    };
    match status.at_work.as_ref().and_then(|work| work.target) {
        Some(target) => style.paint(paint, &format!("{text} ({target})")),
        None => style.paint(paint, text),
    }
}

/// The GPUs, and below them why those that do not work do not.
fn gpus(status: &Status, style: Style) -> String {
    if status.gpus.is_empty() {
        return String::new();
    }
    let known = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let row = |gpu: &Gpu| {
        let detail = &gpu.detail;
        let uuid = detail.uuid.as_deref().map(|uuid| match style.verbose {
            true => uuid.to_owned(),
            // Enough to tell them apart, and what `nvidia-smi -i` takes.
            false => uuid.chars().take(12).collect(),
        });
        let memory = detail.memory.as_ref().map(|memory| {
            let (used, total) = (bytes(memory.used), bytes(memory.total));
            match (used.strip_suffix(" GiB"), total.strip_suffix(" GiB")) {
                (Some(used), Some(total)) => format!("{used}/{total} GiB"),
                _ => format!("{used}/{total}"),
            }
        });
        vec![
            known(detail.index.map(|index| index.to_string())),
            known(detail.name.clone()),
            known(gpu.need.pci.clone()),
            known(uuid),
            known(memory),
            health(gpu.need.class).to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = status.gpus.iter().map(row).collect();
    let mut page = format!("\n{}", table(style, &GPUS, &rows));
    for gpu in status.gpus.iter().filter(|gpu| gpu.need.class >= Class::Failed) {
        for why in gpu.need.why.iter().take(if style.verbose { usize::MAX } else { 1 }) {
            let mark = style.glyph("✗", "x");
            let text = wrap(&format!("  {mark} "), &clean(why), style.width);
            page.push_str(&text.replacen(mark, &style.paint(Paint::Bad, mark), 1));
        }
    }
    page
}

fn health(class: Class) -> &'static str {
    match class {
        Class::Info | Class::App => "ok",
        Class::Reload => "reload",
        Class::Support => "warning",
        Class::Failed => "failed",
        Class::Reset => "reset",
        Class::Reboot => "reboot",
    }
}

/// A run that is not over: what it is about, and what it has stopped.
fn open_run(run: &RunInShort, status: &Status, style: Style, now: SystemTime) -> Vec<String> {
    let (paint, word) = match status.state {
        State::Drained => (Paint::Attention, "keeps the machine drained"),
        State::Offline => (Paint::Attention, "keeps the machine offline"),
        State::Busy | State::Restoring => (Paint::Attention, "under way"),
        State::InService => (Paint::Bad, "interrupted"),
        State::Unknown => (Paint::Attention, "open"),
    };
    let mut values = vec![format!("{}, since {}", style.paint(paint, word), ago(run.opened_usec, now))];
    values[0] = values[0].replace(" ago", "");
    // Of a machine that is held on purpose, only what people own; that the driver is out is said above.
    let held = matches!(status.state, State::Drained | State::Offline);
    let mut shown = run.clone();
    shown.missing.retain(|act| match act.object {
        Object::Gate { .. } => false,
        Object::Module(_) => !held,
        _ => true,
    });
    values.extend(details(&shown, if held { "stopped" } else { "not restored" }, status));
    values
}

fn refusal(refused: &Refusal, style: Style, now: SystemTime) -> Vec<String> {
    let what = if refused.reset { "a reset" } else { "a reload or stop" };
    let word = match refused.verdict {
        Verdict::RebootRequired => "a reboot is required",
        _ => "refused",
    };
    let mut values = vec![format!(
        "{what} was {}, {}; nothing was touched",
        style.paint(Paint::Bad, word),
        ago(refused.usec, now)
    )];
    if refused.verdict == Verdict::RebootRequired {
        values[0] =
            format!("{}: {what} was refused, {}", style.paint(Paint::Bad, word), ago(refused.usec, now));
    }
    for reason in &refused.reasons {
        values.push(clean(&reason.what));
        if !reason.remedy.is_empty() {
            values.push(clean(&reason.remedy));
        }
    }
    values
}

/// How the last run went, then a line for each thing that is to be known about it.
fn last_run(run: &RunInShort, status: &Status, style: Style, now: SystemTime) -> Vec<String> {
    use ledger::Outcome::{Degraded, Done, RolledBack};
    let (paint, word) = match run.outcome {
        None => (Paint::Attention, "open"),
        Some(Done) => (Paint::Good, "done"),
        Some(RolledBack) if run.cancelled => (Paint::Attention, "cancelled and rolled back"),
        Some(RolledBack) => (Paint::Attention, "rolled back"),
        Some(Degraded) => (Paint::Bad, "degraded"),
    };
    let mut values =
        vec![format!("{}, {}{}", style.paint(paint, word), ago(run.last_usec, now), change(run, style))];
    if let Some(took) = &run.took {
        let down =
            took.downtime_seconds.map(|down| format!("; workloads were stopped for {}", seconds(down)));
        values.push(format!("it took {}{}", seconds(took.seconds), down.unwrap_or_default()));
    }
    values.extend(details(run, "not restored", status));
    values
}

fn change(run: &RunInShort, style: Style) -> String {
    let arrow = style.glyph("→", "->");
    let done = run.outcome == Some(ledger::Outcome::Done);
    match (&run.before, &run.after) {
        (Some(before), _) if run.reset => clean(&format!(": GPUs reset under driver {before}")),
        (Some(before), Some(after)) if done && before != after => {
            clean(&format!(": {before} {arrow} {after}"))
        }
        (Some(before), Some(_)) if done => clean(&format!(": {before} reloaded")),
        _ => String::new(),
    }
}

fn details(run: &RunInShort, missing: &str, status: &Status) -> Vec<String> {
    let starter = run.started_by.iter().map(|starter| {
        let by = match (starter.login, &starter.unit) {
            (Some(uid), _) => format!(" by {}", status.users.name(uid)),
            (None, Some(unit)) => format!(" by {unit}"),
            (None, None) => String::new(),
        };
        clean(&format!("started{by} with `nvidia-reload {}`", starter.command))
    });
    let named = |text: String| clean(&status.users.named(&text));
    let mut values: Vec<String> = starter.collect();
    values.extend(run.failures.iter().map(|(step, reason)| format!("{step} failed: {}", clean(reason))));
    values.extend(run.missing.iter().map(|act| format!("{missing}: {}", named(act.object.to_string()))));
    values.extend(
        run.ended
            .iter()
            .map(|process| format!("killed: process {} ({})", process.pid, clean(&process.command))),
    );
    values
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
