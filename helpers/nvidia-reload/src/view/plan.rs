// SPDX-License-Identifier: MIT
//! The plan: what would be done to what, and why.

use ledger::Step;
use step::{Action, Plan, Reason, Verdict};

use super::settings::alike;
use super::text::{clean, pad, seconds, width, wrap};
use super::{Paint, Style};
use crate::kind::Kind;
use crate::plan::Proposal;

/// What most of them have, and so is shown for none.
const USUAL: &str = "stop, start again afterwards";

/// The whole page.
pub fn plan(proposal: &Proposal, style: Style) -> String {
    let plan = &proposal.plan;
    let mut page = headline(proposal, style);
    for (paint, reasons) in [(Paint::Bad, &plan.reasons), (Paint::Attention, &plan.warnings)] {
        for reason in reasons {
            page.push('\n');
            let reason = Reason::new(proposal.users.named(&reason.what), reason.remedy.clone());
            page.push_str(&self::reason(&reason, paint, style));
        }
    }
    let actions = actions(proposal, style);
    // A refusal hides nothing of what it keeps from happening.
    match (plan.verdict, actions.as_str()) {
        (Verdict::Ready, _) => page.push_str(&format!("\n{actions}")),
        (_, "") => {}
        _ => page.push_str(&format!("\nIf it were not refused:\n\n{actions}")),
    }
    if plan.verdict == Verdict::Ready {
        page.push_str(&expected(proposal, style));
    }
    page
}

fn headline(proposal: &Proposal, style: Style) -> String {
    let plan = &proposal.plan;
    let verdict = match plan.verdict {
        Verdict::Ready => style.paint(Paint::Good, "ready"),
        Verdict::Refused => style.paint(Paint::Bad, "refused"),
        Verdict::RebootRequired => style.paint(Paint::Bad, "reboot required"),
    };
    let loaded = plan.driver.loaded.as_deref();
    let on_disk = plan.driver.on_disk.as_deref();
    let arrow = style.glyph("→", "->");
    let change = match (loaded, on_disk) {
        (Some(loaded), Some(on_disk)) if loaded == on_disk => format!("{loaded}, the same version"),
        (Some(loaded), Some(on_disk)) => format!("{loaded} {arrow} {on_disk}"),
        (Some(loaded), None) => format!("{loaded}; none is installed for this kernel"),
        (None, Some(on_disk)) => format!("not loaded {arrow} {on_disk}"),
        (None, None) => "not loaded, and none is installed for this kernel".to_owned(),
    };
    let driver = loaded.map_or("no driver is loaded".to_owned(), |loaded| format!("driver {loaded}"));
    let (what, rest) = match proposal.command {
        Kind::Reload => ("Reload NVIDIA driver", format!(" {change}")),
        Kind::Rollback => ("Roll back NVIDIA driver", format!(" {change}")),
        Kind::Install => ("Install and load NVIDIA driver", format!(" {change}")),
        Kind::Reset => ("Reset the NVIDIA GPUs", format!(" ({driver} stays loaded)")),
        Kind::Stop => ("Stop what uses the GPUs", format!(" ({driver} stays loaded)")),
        Kind::StopOffline => ("Stop what uses the GPUs and unload the driver", format!(" ({driver})")),
        Kind::Start if plan.modules.is_empty() => {
            ("Restart what was stopped", format!(" ({driver} stays loaded)"))
        }
        Kind::Start => ("Load the driver and restart what was stopped", {
            format!(
                " ({})",
                on_disk.map_or("none is installed".to_owned(), |on_disk| format!("driver {on_disk}"))
            )
        }),
        Kind::Recover => ("End the interrupted run and restart what it stopped", String::new()),
    };
    format!("{}{}: {verdict}\n", style.paint(Paint::Strong, what), clean(&rest))
}

/// A reason and what to do about it.
pub fn reason(reason: &Reason, paint: Paint, style: Style) -> String {
    let mark = match paint {
        Paint::Bad => style.glyph("✗", "x"),
        _ => "!",
    };
    // The colour is put in last: it has no width.
    let text = wrap(&format!("  {mark} "), &clean(&reason.what), style.width);
    let text = text.replacen(mark, &style.paint(paint, mark), 1);
    match reason.remedy.as_str() {
        "" => text,
        remedy => text + &wrap("    ", &clean(remedy), style.width),
    }
}

/// What becomes of a thing, in few words.
fn outcome_of(proposal: &Proposal, action: &Action) -> (&'static str, Paint) {
    match (action.step, action.comes_back) {
        (Step::KillHolders, false) => ("killed, not restarted", Paint::Attention),
        (_, false) => ("stopped, not restarted", Paint::Attention),
        (Step::UnbindVt | Step::Settings, true) => ("restored", Paint::Good),
        (_, true) if proposal.command.holds() => ("stopped", Paint::Good),
        (_, true) => ("restarted", Paint::Good),
    }
}

/// The steps that act on what people own, with what that is.
const GROUPS: [(Step, &str); 5] = [
    (Step::DrainContainers, "Containers"),
    (Step::StopUnits, "Units"),
    (Step::KillHolders, "Processes"),
    (Step::UnbindVt, "Consoles"),
    (Step::Settings, "GPU settings"),
];

fn actions(proposal: &Proposal, style: Style) -> String {
    let plan = &proposal.plan;
    let mut page = String::new();
    // In the order of the steps, each of which acts on all of its own at once.
    for (step, title) in GROUPS {
        let group: Vec<&Action> = plan.actions.iter().filter(|action| action.step == step).collect();
        if group.is_empty() {
            continue;
        }
        page.push_str(&format!("{}\n", style.paint(Paint::Strong, title)));
        for action in group {
            page.push_str(&one(proposal, action, style));
        }
    }
    let nothing = page.is_empty();
    for started in plan.actions.iter().filter(|action| action.step == Step::Restore) {
        let text = format!("{}: {}", clean(&started.object), clean(&started.why));
        page.push_str(&wrap("Started afterwards: ", &text, style.width));
    }
    if !plan.modules.is_empty() {
        let label = match proposal.command {
            Kind::StopOffline => "Unloaded: ",
            Kind::Start | Kind::Recover => "Loaded: ",
            _ => "Unloaded and loaded again: ",
        };
        page.push_str(&wrap(label, &clean(&plan.modules.join(", ")), style.width));
    }
    page.push_str(&reset(plan, style));
    let set: Vec<(String, &[ledger::Setting])> =
        plan.settings.iter().map(|gpu| (format!("GPU {}", gpu.pci), gpu.settings.as_slice())).collect();
    for (gpus, settings) in alike(&set) {
        page.push_str(&wrap(&format!("Set again on {gpus}: "), &settings, style.width));
    }
    if nothing && plan.verdict == Verdict::Ready {
        let none = if proposal.command.restores() {
            "Nothing has to be restarted.\n"
        } else {
            "Nothing has to be stopped.\n"
        };
        page.insert_str(0, none);
    }
    page
}

fn one(proposal: &Proposal, action: &Action, style: Style) -> String {
    const MARK: &str = "  ";
    const LONGEST: &str = "stopped, not restarted";
    let (words, paint) = outcome_of(proposal, action);
    let object = clean(&proposal.users.named(&action.object));
    // Beside the object where there is room, below it where there is not.
    let room = style.width.unwrap_or(100).saturating_sub(width(MARK) + 2 + width(LONGEST));
    let mut text = if width(&object) <= room {
        format!("{MARK}{}  {}\n", pad(&object, room.min(54)), style.paint(paint, words))
    } else {
        format!("{}      {}\n", wrap(MARK, &object, style.width), style.paint(paint, words))
    };
    let what = if matches!(action.what.as_str(), USUAL | "restore") { "" } else { &action.what };
    let why: Vec<String> =
        [&action.why, what].into_iter().filter(|part| !part.is_empty()).map(clean).collect();
    if !why.is_empty() {
        text.push_str(&wrap("      ", &proposal.users.named(&why.join("; ")), style.width));
    }
    text
}

/// How long it may take.
fn expected(proposal: &Proposal, style: Style) -> String {
    let expected = &proposal.expected;
    let mut page = String::from("\n");
    if let Some(last) = &expected.last {
        let down = match last.downtime_seconds {
            Some(down) => format!("; workloads were stopped for {}", seconds(down)),
            None => String::new(),
        };
        let text = format!("the last run of this kind took {}{down}.", seconds(last.seconds));
        page.push_str(&wrap("Expected time: ", &text, style.width));
    } else if !proposal.command.holds() && !proposal.command.restores() {
        page.push_str(&wrap("Expected time: ", "no earlier run of this kind is recorded.", style.width));
    }
    let mut limits = Vec::new();
    for (step, seconds, what, key) in [
        (Step::DrainContainers, expected.container_seconds, "containers", "containers.stop-timeout-max"),
        (Step::KillHolders, expected.process_seconds, "processes", "processes.grace"),
    ] {
        if let Some(seconds) = seconds.filter(|_| proposal.stops(step)) {
            limits.push(format!("{what} get at most {seconds} s to stop ({key})"));
        }
    }
    if !limits.is_empty() {
        page.push_str(&wrap("Limits: ", &format!("{}.", limits.join(", ")), style.width));
    }
    if proposal.command.holds() {
        page.push_str("All this stays stopped until `nvidia-reload start`.\n");
    }
    if page == "\n" { String::new() } else { page }
}

/// What is reset; with the reasons where there are several.
fn reset(plan: &Plan, style: Style) -> String {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for action in plan.actions.iter().filter(|action| action.step == Step::GpuReset) {
        match groups.iter_mut().find(|(why, _)| *why == action.why) {
            Some((_, objects)) => objects.push(&action.object),
            None => groups.push((&action.why, vec![&action.object])),
        }
    }
    let several = groups.len() > 1;
    let line = |(why, objects): &(&str, Vec<&str>)| {
        let why = if several { format!(" ({})", clean(why)) } else { String::new() };
        wrap("Reset: ", &format!("{}{why}", clean(&objects.join(", "))), style.width)
    };
    groups.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::gallery::{proposed, ready_plan, refused_plan, restoring_plan};
    use super::*;

    #[test]
    fn what_would_be_done_has_its_reasons() {
        insta::assert_snapshot!(plan(
            &proposed(Kind::Reload, ready_plan()),
            Style { width: Some(80), ..Style::PLAIN }
        ));
    }

    #[test]
    fn a_refusal_has_its_remedies() {
        insta::assert_snapshot!(plan(
            &proposed(Kind::Reload, refused_plan()),
            Style { width: Some(80), ..Style::PLAIN }
        ));
    }

    #[test]
    fn every_command_has_its_plan() {
        let style = Style { width: Some(80), ..Style::PLAIN };
        let pages = [Kind::Stop, Kind::StopOffline, Kind::Rollback, Kind::Install]
            .map(|kind| plan(&proposed(kind, ready_plan()), style))
            .into_iter()
            .chain([Kind::Start, Kind::Recover].map(|kind| plan(&proposed(kind, restoring_plan()), style)));
        let pages: Vec<String> = pages.collect();
        assert!(pages.iter().flat_map(|page| page.lines()).all(|line| width(line) <= 80), "{pages:#?}");
        insta::assert_snapshot!(pages.join("--\n"));
    }

    #[test]
    fn a_plan_that_stops_nothing_says_so() {
        let mut idle = ready_plan();
        idle.actions.clear();
        assert!(plan(&proposed(Kind::Reload, idle), Style::PLAIN).contains("Nothing has to be stopped."));
    }
}
