// SPDX-License-Identifier: MIT
//! `verify fabric`: waits for the fabric of the GPUs. Changes nothing.

use std::io::Write;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use gpu::{Answer, Reading};
use ledger::Gpu;
use step::{Context, text};

use crate::gpus::{COMPLETED, is};
use crate::nvml;

/// How long the fabric manager gets.
const TIME: Duration = Duration::from_secs(120);

/// How often it is looked.
const PAUSE: Duration = Duration::from_secs(1);

/// Waits until every GPU that can be in the fabric is, and prints as JSON which are not.
pub(crate) fn wait(context: &Context) -> Result<ExitCode> {
    let before = context.ledger.read()?.map(|run| run.snapshot.seen).unwrap_or_default();
    let until = Instant::now() + TIME;
    let late = loop {
        let state = nvml::ask()?.with_context(nvml::hung)?;
        if !matches!(state.nvml, Answer::Ok { .. }) {
            bail!("NVML does not report whether the GPUs are in the fabric");
        }
        let (late, may_come) = late(&before, &state.gpus);
        if !may_come || Instant::now() >= until {
            break late;
        }
        sleep(PAUSE);
    };
    writeln!(std::io::stdout().lock(), "{}", text::json(&late).context("print the GPUs")?)?;
    Ok(ExitCode::SUCCESS)
}

/// The GPUs that are not in the fabric and were, or of which it is not known what they were; and whether one of
/// them may come yet.
fn late(before: &[Gpu], now: &[Reading]) -> (Vec<String>, bool) {
    let (mut late, mut may_come) = (Vec::new(), false);
    for seen in now {
        let Reading::Ok(gpu) = seen else { continue };
        let Some(fabric) = gpu.health.fabric else { continue };
        let was = before.iter().find(|was| is(seen, was)).map(|was| was.health.fabric);
        // It was no better before the run.
        if was.is_some_and(|was| was.is_none_or(|was| was.state != COMPLETED || was.status != 0)) {
            continue;
        }
        match (fabric.state, fabric.status) {
            (COMPLETED, 0) => {}
            (COMPLETED, status) => {
                late.push(format!("{gpu} (its registration failed: nvmlReturn_t {status})"))
            }
            _ => {
                late.push(gpu.to_string());
                may_come = true;
            }
        }
    }
    (late, may_come)
}

#[cfg(test)]
mod tests {
    use ledger::Fabric;

    use super::*;

    #[test]
    fn a_gpu_is_late_that_was_in_the_fabric_or_may_have_been() {
        let gpu = |fabric: Option<(u8, u32)>| {
            let fabric = fabric.map(|(state, status)| Fabric { state, status });
            Gpu {
                index: 0,
                pci: "0000:01:00.0".into(),
                uuid: "GPU-a".into(),
                name: "NVIDIA H100".into(),
                health: ledger::Health { fabric, ..ledger::Health::default() },
                settings: Vec::new(),
                unread: Vec::new(),
            }
        };
        for (was, is, expected) in [
            (None, None, (0, false)),
            (None, Some((3, 0)), (0, false)),
            (None, Some((2, 0)), (1, true)),
            (None, Some((1, 0)), (1, true)),
            (None, Some((3, 999)), (1, false)),
            (Some(Some((3, 0))), Some((2, 0)), (1, true)),
            // As before.
            (Some(Some((2, 0))), Some((2, 0)), (0, false)),
            (Some(Some((3, 999))), Some((3, 999)), (0, false)),
        ] {
            let before: Vec<Gpu> = was.map(gpu).into_iter().collect();
            let (late, may_come) = late(&before, &[Reading::Ok(Box::new(gpu(is)))]);
            assert_eq!((late.len(), may_come), expected, "{was:?} {is:?}");
        }
    }
}
