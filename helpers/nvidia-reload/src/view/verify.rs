// SPDX-License-Identifier: MIT
//! What verifying the driver found.

use step::{Grade, Verified};

use super::settings::alike;
use super::text::{clean, count, pad, width, wrap};
use super::{Paint, Style};

/// The whole page.
pub fn verified(verified: &Verified, style: Style) -> String {
    let mut page = headline(verified, style);
    let about = verified.checks.iter().map(|check| width(&check.about)).max().unwrap_or(0);
    for check in &verified.checks {
        let (paint, mark) = mark(check.grade, style);
        let first = format!("  {mark} {}  ", pad(&check.about, about));
        // The colour is put in last: it has no width.
        let text = wrap(&first, &clean(&check.what), style.width);
        page.push_str(&text.replacen(mark, &style.paint(paint, mark), 1));
    }
    page.push_str(&settings(verified, style));
    let compared = match &verified.compared_with {
        Some(run) => format!("Compared with the machine as it was before run {run}."),
        None => "There was no run in this boot to compare with.".into(),
    };
    page.push('\n');
    page.push_str(&wrap("", &style.paint(Paint::Faint, &compared), style.width));
    page
}

fn headline(verified: &Verified, style: Style) -> String {
    let version = verified.driver.loaded.as_deref().map_or("is not loaded".to_owned(), clean);
    let (paint, words) = match verified.grade {
        Grade::Ok | Grade::Note => (Paint::Good, "works".to_owned()),
        grade => {
            let bad = verified.checks.iter().filter(|check| check.grade >= Grade::Failed).count();
            let things = count(bad, "thing is", "things are");
            match grade {
                Grade::RebootRequired => {
                    (Paint::Bad, format!("{things} not as it should be, and only a reboot helps"))
                }
                _ => (Paint::Bad, format!("{things} not as it should be")),
            }
        }
    };
    let words = if verified.grade >= Grade::Failed && !words.starts_with("1 ") {
        words.replace("it should be", "they should be")
    } else {
        words
    };
    format!("{} {version}: {}\n\n", style.paint(Paint::Strong, "NVIDIA driver"), style.paint(paint, &words))
}

fn mark(grade: Grade, style: Style) -> (Paint, &'static str) {
    match grade {
        Grade::Ok => (Paint::Good, style.glyph("✓", "+")),
        Grade::Note => (Paint::Attention, "!"),
        Grade::Failed | Grade::RebootRequired => (Paint::Bad, style.glyph("✗", "x")),
    }
}

/// What is set on the GPUs.
fn settings(verified: &Verified, style: Style) -> String {
    let set: Vec<(String, &[ledger::Setting])> =
        verified.gpus.iter().map(|gpu| (format!("GPU {}", gpu.index), gpu.settings.as_slice())).collect();
    let mut page = String::new();
    for (gpus, settings) in alike(&set) {
        page.push_str(&wrap(&format!("  {gpus}: "), &settings, style.width));
    }
    match page.as_str() {
        "" => page,
        _ => format!("\n{}\n{page}", style.paint(Paint::Strong, "Set, and not at its default")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::{Gpu, Health, Setting};
    use step::{Check, VERIFIED_SCHEMA, Versions};

    fn example(grade: Grade) -> Verified {
        let gpu = Gpu {
            index: 0,
            pci: "0000:3b:00.0".into(),
            uuid: "GPU-a".into(),
            name: "NVIDIA H100 80GB HBM3".into(),
            health: Health::default(),
            settings: vec![Setting::Persistence, Setting::PowerLimit { milliwatts: 500_000 }],
            unread: Vec::new(),
        };
        let mut checks = vec![
            Check::new(
                "modules",
                Grade::Ok,
                "nvidia_drm, nvidia_modeset, nvidia_uvm, nvidia serve as on disk",
            ),
            Check::new("device nodes", Grade::Ok, "as they were before the last run"),
            Check::new("library", Grade::Ok, "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.550.163.01"),
            Check::new("NVML", Grade::Ok, "driver 550.163.01, 2 devices"),
            Check::new("GPU 0", Grade::Ok, format!("{} at {}, {}", gpu.name, gpu.pci, gpu.uuid)),
        ];
        if grade > Grade::Ok {
            checks.push(Check::new(
                "GPU 1",
                Grade::Failed,
                "GPU 1 (0000:af:00.0, GPU-b) is not there any more",
            ));
            checks.push(Check::new(
                "GPU 2",
                Grade::Note,
                "GPU 2 (0000:b0:00.0, GPU-c): a change of ECC mode waits for the next load",
            ));
        }
        Verified {
            schema: VERIFIED_SCHEMA.into(),
            grade,
            driver: Versions { loaded: Some("550.163.01".into()), on_disk: Some("550.163.01".into()) },
            compared_with: (grade > Grade::Ok).then(|| "5c1c8c5e".into()),
            checks,
            gpus: vec![gpu],
        }
    }

    #[test]
    fn a_driver_that_works_says_what_was_looked_at() {
        insta::assert_snapshot!(verified(&example(Grade::Ok), Style { width: Some(80), ..Style::PLAIN }));
    }

    #[test]
    fn what_is_wrong_is_seen_at_once_on_a_narrow_terminal_without_unicode() {
        let style = Style { width: Some(56), unicode: false, ..Style::PLAIN };
        insta::assert_snapshot!(verified(&example(Grade::Failed), style));
    }
}
