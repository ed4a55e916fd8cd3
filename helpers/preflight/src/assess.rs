//! The whole plan: verdict, driver, and what would be done to whom.

use std::fs;

use anyhow::{Context as _, Result};
use ledger::Step;
use messages::Heard;
use modules::{DRIVER, chain};
use step::{Action, Config, Context, PLAN_SCHEMA, Plan};

use crate::findings::Findings;
use crate::{driver, gpus, health, reset, users};

/// What was found.
pub(crate) struct Assessed {
    /// The verdict, and what would be done.
    pub(crate) plan: Plan,
    /// The units that look after a container with a GPU.
    pub(crate) container_units: Vec<(Option<u32>, String)>,
    /// What the kernel said so far.
    pub(crate) heard: Heard,
    /// The GPUs as NVML shows them, with what is to be set again.
    pub(crate) seen: Vec<ledger::Gpu>,
}

/// Looks at everything that can be known beforehand of a reload, or of a reset. Touches nothing.
///
/// # Errors
/// Something that has to be known cannot be: then there is no plan.
pub(crate) fn assess(context: &Context, config: &Config, reset: bool) -> Result<Assessed> {
    let mut findings = Findings::default();
    switched_off(context, &mut findings)?;
    earlier_run(context, &mut findings)?;
    let mut loaded = chain(&context.root)?;
    let heard = health::assess(context, reset, &mut findings)?;
    // The engines take their time, and so do NVML and files of many megabytes. Whoever asks NVML holds
    // the driver, and is gone before holders are looked for.
    let (versions, survey, state) = std::thread::scope(|scope| {
        let survey = scope.spawn(users::survey);
        let state = scope.spawn(|| gpus::ask(context, &loaded));
        (driver::assess(context, &loaded, &mut findings), survey.join(), state.join())
    });
    let versions = versions?;
    let survey = survey.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let state = state.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let seen = gpus::assess(context, &config.gpus, &versions, state, reset, &mut findings)?;
    let mut actions = users::assess(context, config, &survey, &mut findings)?;
    if reset {
        actions.extend(reset::assess(&versions, &modules::gpus(&context.root)?, &mut findings));
        // All but nvidia itself count as users of the GPUs.
        loaded.retain(|module| module.module.name != DRIVER);
    }
    actions.extend(loaded.iter().map(|module| Action {
        step: Step::RmmodChain,
        object: format!("module {}", module.module.name),
        what: "unload, load again from disk".into(),
        why: why_unloaded(&module.module.name).into(),
        pids: Vec::new(),
        comes_back: true,
    }));
    let (verdict, reasons, warnings) = findings.verdict();
    let plan = Plan {
        schema: PLAN_SCHEMA.into(),
        reset,
        verdict,
        reasons,
        warnings,
        driver: versions,
        modules: loaded.into_iter().map(|module| module.module.name).collect(),
        actions,
        settings: seen.iter().filter(|gpu| !gpu.settings.is_empty()).map(gpus::settings).collect(),
    };
    Ok(Assessed { plan, container_units: users::container_units(&survey), heard, seen })
}

/// Why a module of the graph has to go.
fn why_unloaded(module: &str) -> &'static str {
    match holders::is_of_driver(module) {
        true => "part of the driver",
        false => "it uses the driver from inside the kernel",
    }
}

/// The kill switch. The targets assert it too; this also covers `nvidia-reload plan`.
fn switched_off(context: &Context, findings: &mut Findings) -> Result<()> {
    let path = context.root.path("/proc/cmdline");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    if text.split_whitespace().any(|word| word == "nvidia_reload=0") {
        findings.refuse("nvidia_reload=0 is on the kernel command line", "boot without it");
    }
    Ok(())
}

fn earlier_run(context: &Context, findings: &mut Findings) -> Result<()> {
    match context.ledger.read() {
        Ok(None) => {}
        Ok(Some(run)) if run.boot == context.ledger.boot() => findings.refuse(
            format!("run {} is still open", run.id),
            "`nvidia-reload start` ends a drained or offline machine, `nvidia-reload rollback` a run that was cut off",
        ),
        Ok(Some(run)) => findings.refuse(
            format!("run {} was cut off by a reboot and is still open", run.id),
            "`systemctl start nvidia-reload-recover.service` gives back what it took",
        ),
        Err(error) => findings.refuse(format!("{error:#}"), "see above"),
    }
    Ok(())
}
