// SPDX-License-Identifier: MIT
//! The plan: what would be done to whom, and why.

use ledger::Step;
use step::{Action, Plan, Reason, Verdict};

use super::settings::alike;
use super::text::{clean, count, pad, width, wrap};
use super::{Paint, Style};

/// The whole page.
pub fn plan(plan: &Plan, style: Style) -> String {
    let mut page = headline(plan, style);
    for (paint, reasons) in [(Paint::Bad, &plan.reasons), (Paint::Attention, &plan.warnings)] {
        for reason in reasons {
            page.push('\n');
            page.push_str(&self::reason(reason, paint, style));
        }
    }
    if plan.verdict == Verdict::Ready {
        page.push('\n');
        page.push_str(&actions(plan, style));
    }
    page
}

fn headline(plan: &Plan, style: Style) -> String {
    let way = match (&plan.driver.loaded, &plan.driver.on_disk) {
        (Some(loaded), Some(on_disk)) if loaded == on_disk => format!("{loaded}, the same again"),
        (Some(loaded), Some(on_disk)) => format!("{loaded} {} {on_disk}", style.glyph("→", "->")),
        (Some(loaded), None) => format!("{loaded}, and none on disk"),
        (None, Some(on_disk)) => format!("not loaded {} {on_disk}", style.glyph("→", "->")),
        (None, None) => "not loaded, and none on disk".to_owned(),
    };
    let verdict = match plan.verdict {
        Verdict::Ready => style.paint(Paint::Good, "ready"),
        Verdict::Refused => style.paint(Paint::Bad, "refused"),
        Verdict::RebootRequired => style.paint(Paint::Bad, "no reload can help now"),
    };
    if plan.reset {
        let driver = clean(plan.driver.loaded.as_deref().unwrap_or("not loaded"));
        return format!(
            "{} (driver {driver}): {verdict}\n",
            style.paint(Paint::Strong, "Reset of the NVIDIA GPUs")
        );
    }
    format!("{} {}: {verdict}\n", style.paint(Paint::Strong, "NVIDIA driver"), clean(&way))
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

fn actions(plan: &Plan, style: Style) -> String {
    let mut page = String::new();
    // The driver's own modules have a line of their own.
    let actions: Vec<&Action> = plan.actions.iter().filter(|action| action.step < Step::GpuReset).collect();
    if actions.is_empty() {
        page.push_str("Nobody has to stop.\n");
    } else {
        page.push_str("What would be stopped, in this order:\n");
    }
    let numbers = actions.len().to_string().len();
    for (at, action) in actions.iter().enumerate() {
        let back = match action.comes_back {
            true => ("comes back", Paint::Good),
            false => ("does not come back", Paint::Attention),
        };
        let mark = format!("  {:>numbers$}. ", at + 1);
        let object = clean(&action.object);
        // Beside the object where there is room, below it where there is not.
        let room = style.width.unwrap_or(100).saturating_sub(width(&mark) + 2 + width("does not come back"));
        if width(&object) <= room {
            let object = pad(&object, room.min(58));
            page.push_str(&format!("{mark}{object}  {}\n", style.paint(back.1, back.0)));
        } else {
            page.push_str(&wrap(&mark, &object, style.width));
            page.push_str(&format!("{}{}\n", " ".repeat(width(&mark)), style.paint(back.1, back.0)));
        }
        let indent = " ".repeat(width(&mark));
        page.push_str(&wrap(&indent, &clean(&action.what), style.width));
        if !action.why.is_empty() {
            page.push_str(&wrap(&format!("{indent}why: "), &clean(&action.why), style.width));
        }
    }
    for started in plan.actions.iter().filter(|action| action.step == Step::Restore) {
        let text = format!("{}: {}", clean(&started.object), clean(&started.why));
        page.push_str(&wrap("Started afterwards: ", &text, style.width));
    }
    if !plan.modules.is_empty() {
        let modules = clean(&plan.modules.join(", "));
        page.push_str(&wrap("Unloaded and loaded again: ", &modules, style.width));
    }
    page.push_str(&reset(plan, style));
    let set: Vec<(String, &[ledger::Setting])> =
        plan.settings.iter().map(|gpu| (format!("GPU {}", gpu.pci), gpu.settings.as_slice())).collect();
    for (gpus, settings) in alike(&set) {
        page.push_str(&wrap(&format!("Set again on {gpus}: "), &settings, style.width));
    }
    let lost = actions.iter().filter(|action| !action.comes_back).count();
    if lost > 0 {
        let text = format!("{} not come back by itself.", count(lost, "thing does", "things do"));
        page.push_str(&format!("{}\n", style.paint(Paint::Attention, &text)));
    }
    page
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
    use super::super::gallery::{ready_plan, refused_plan};
    use super::*;

    #[test]
    fn what_would_be_done_has_its_reasons() {
        insta::assert_snapshot!(plan(&ready_plan(), Style { width: Some(80), ..Style::PLAIN }));
    }

    #[test]
    fn a_refusal_has_its_remedies() {
        insta::assert_snapshot!(plan(&refused_plan(), Style { width: Some(60), ..Style::PLAIN }));
    }
}
