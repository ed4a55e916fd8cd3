// SPDX-License-Identifier: MIT
//! The whole plan: verdict, driver, and what would be done to whom.

use std::time::Instant;

use anyhow::Result;
use engines::Survey;
use holders::{Kind, Scan, Scope};
use ledger::{Chosen, Install, Step};
use messages::{Log, read_log};
use modules::{DRIVER, chain};
use step::{Action, Config, Context, OFF, Plan, RunRequest, ServicesDown};

use crate::choose::{Pick, pick};
use crate::findings::Findings;
use crate::sibling::SIBLING;
use crate::{bystanders, driver, failed_services, gpus, health, inhibited, memory, of_slurm, reset, users};

/// What was found.
pub(crate) struct Assessed {
    /// The verdict, and what would be done.
    pub(crate) plan: Plan,
    /// The units that look after a container with a GPU, or start what would want one.
    pub(crate) container_units: Vec<(Option<u32>, String)>,
    /// The containers that the run stops, and when their `dockerd` had started.
    pub(crate) containers: Vec<ledger::Container>,
    pub(crate) dockerd: Option<u64>,
    /// What the kernel said so far.
    pub(crate) log: Log,
    /// The GPUs as NVML shows them, with what is to be set again.
    pub(crate) seen: Vec<ledger::Gpu>,
    /// The GPUs of a reset that is not for all.
    pub(crate) chosen: Vec<Chosen>,
    /// NVIDIA's services that are down and that no unit wants.
    pub(crate) unwanted_services: Vec<String>,
}

/// Looks at everything that can be known beforehand of the run that is `asked` for. Touches nothing.
///
/// # Errors
/// Something that has to be known cannot be: then there is no plan.
pub(crate) fn assess(context: &Context, config: &Config, asked: &RunRequest) -> Result<Assessed> {
    // The engines and systemd take their time: they are asked beside everything else. Of a reset of some GPUs it
    // has to be known first which nodes those have.
    let of_some = asked.reset.as_ref().is_some_and(|ids| !ids.is_empty());
    // Also of a second look.
    let until = Instant::now() + SIBLING;
    std::thread::scope(|scope| {
        let survey = (!of_some).then(|| scope.spawn(|| users::survey(&[], until)));
        let failed = scope.spawn(|| failed_services::ask(context, config));
        let survey = |nodes: &[String]| match survey {
            Some(survey) => survey.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            None => users::survey(nodes, Instant::now() + SIBLING),
        };
        let failed = || failed.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assess_beside(context, config, asked, survey, failed, until)
    })
}

/// Looks at everything else, and asks for the survey and the failed services where they are needed.
fn assess_beside(
    context: &Context,
    config: &Config,
    asked: &RunRequest,
    survey: impl FnOnce(&[String]) -> Result<Survey>,
    failed: impl FnOnce() -> Result<ServicesDown>,
    until: Instant,
) -> Result<Assessed> {
    let reset = asked.reset.is_some();
    let exchange = asked.install.as_ref().map(Install::version);
    let mut findings = Findings::default();
    switched_off(context, &mut findings)?;
    earlier_run(context, &mut findings)?;
    let mut loaded = chain(&context.root)?;
    // Before NVML is asked: what the kernel says of that is not what a run is judged by.
    let log = read_log(&context.root)?;
    // NVML takes its time, and so do Slurm and files of many megabytes. What asks NVML holds the driver, and is
    // gone before holders are looked for.
    let is_of_some = asked.reset.as_ref().is_some_and(|ids| !ids.is_empty());
    let (versions, slurm, state, inhibitors) = std::thread::scope(|scope| {
        let slurm = scope.spawn(|| match is_of_some {
            false => slurm::look(&context.root),
            true => slurm::look_at_processes(&context.root),
        });
        let state = scope.spawn(|| gpus::ask(context, &loaded));
        let inhibitors = scope.spawn(|| step::inhibitors(&context.root));
        let driver = driver::assess(context, &loaded, exchange, &mut findings);
        (driver, slurm.join(), state.join(), inhibitors.join())
    });
    let versions = versions?;
    let slurm = slurm.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let state = state.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let inhibitors = inhibitors.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    inhibited::assess(inhibitors, asked.if_idle, &mut findings);
    health::assess(context, config, &log, state.as_ref(), &versions, reset, &mut findings)?;
    let mut scan = holders::scan(&context.root)?;
    // A reset unloads no driver.
    let memory = if reset { Vec::new() } else { memory::assess(&context.root, &mut findings)? };
    let (mut picked, mut chosen) = (Vec::new(), Vec::new());
    if let Some(ids) = &asked.reset {
        let bound = modules::gpus(&context.root)?;
        picked = pick(ids, state.as_ref(), &bound, has_fabric_manager(&scan), &mut findings)?;
        if ids.is_empty() {
            picked = bound.into_iter().map(|pci| Pick { pci, why: "asked for".into() }).collect();
        } else {
            for Pick { pci, .. } in &picked {
                chosen.push(Chosen { pci: pci.clone(), nodes: modules::nodes::of_gpu(&context.root, pci)? });
            }
        }
    }
    if exchange.is_none() {
        driver::reach(&context.root, state.as_ref(), &mut findings)?;
        if let Some(state) = &state {
            gpus::library(&context.root, state, &versions, &mut findings)?;
        }
    }
    let seen = gpus::assess(&config.gpus, state, &mut findings);
    memory::persistence(&memory, &seen, &scan.holders, &mut findings);
    let nodes: Vec<String> = chosen.iter().flat_map(|gpu| gpu.nodes.iter().cloned()).collect();
    let mut survey = survey(&nodes)?;
    let scope: Scope = nodes.iter().cloned().collect();
    // dockerd that is started answers late, and has ended by then what it left behind when it died: what was seen
    // of that is looked at once more, before a run is refused for it.
    if nodes.is_empty() && users::is_unanswered(&survey, &scan) {
        survey = users::survey(&nodes, until)?;
        scan = holders::scan(&context.root)?;
    }
    let stay = used_by_others(&scan, &scope);
    let scan = scan.within(&scope);
    let mut actions = users::assess(context, config, &survey, &scan, &nodes, &mut findings)?;
    let held = of_slurm::held(&context.root, &survey, &scan.holders);
    let slurmd = of_slurm::assess(slurm.as_ref(), held, &mut actions, &mut findings);
    let unwanted_services = failed_services::add(failed(), &mut actions, &mut findings);
    // A reset of some GPUs leaves the modules of the others as they are.
    if nodes.is_empty() {
        bystanders::assess(context, &scan.holders, &actions, &mut findings)?;
    }
    if reset {
        actions.extend(reset::assess(&versions, &picked, &mut findings));
        // All but nvidia itself count as users of the GPUs.
        loaded.retain(|module| module.module.name != DRIVER && !stay.contains(&module.module.name));
    }
    actions.extend(loaded.iter().map(|module| Action {
        step: Step::RmmodChain,
        object: format!("module {}", module.module.name),
        what: "unload, load again from disk".into(),
        why: why_unloaded(&module.module.name).into(),
        pids: Vec::new(),
        comes_back: true,
    }));
    // As the steps come; what a step does with its own it does side by side, or in an order of its own.
    actions.sort_by_key(|action| action.step);
    let mut plan = Plan {
        reset,
        driver: versions,
        modules: loaded.into_iter().map(|module| module.module.name).collect(),
        actions,
        settings: seen.iter().filter(|gpu| !gpu.settings.is_empty()).map(gpus::settings).collect(),
        unknown: users::unknown(&survey, &scan, slurm.as_ref()),
        // The verdict comes last.
        ..Plan::refused(Vec::new())
    };
    if asked.if_idle {
        for (who, _) in plan.users(&config.upgrade.restartable) {
            findings.refuse(
                format!("work would be lost: {who}"),
                "wait until it has ended, or do it without --if-idle",
            );
        }
    }
    (plan.verdict, plan.reasons, plan.warnings) = findings.verdict();
    Ok(Assessed {
        plan,
        container_units: users::container_units(&survey)
            .into_iter()
            .chain(slurmd.map(|unit| (None, unit)))
            .collect(),
        containers: users::to_drain(config, &survey),
        dockerd: survey.dockerd,
        log,
        seen,
        chosen,
        unwanted_services,
    })
}

/// The modules that stay loaded since who is not of `scope` uses them, with what those stand on.
fn used_by_others(scan: &Scan, scope: &Scope) -> Vec<String> {
    let others = scan.holders.iter().filter(|holder| !scope.has(holder));
    let mut used: Vec<String> =
        others.flat_map(|holder| &holder.devices).map(|device| device.module.clone()).collect();
    // Dependents come first.
    for module in &scan.modules {
        if module.dependents.iter().any(|dependent| used.contains(dependent)) {
            used.push(module.name.clone());
        }
    }
    used
}

/// Whether somebody has the switches of the fabric, as Fabric Manager has while it runs.
fn has_fabric_manager(scan: &Scan) -> bool {
    scan.holders.iter().any(|holder| holder.devices.iter().any(|device| device.kind == Kind::Nvswitch))
}

/// Why a module of the graph has to go.
fn why_unloaded(module: &str) -> &'static str {
    match holders::is_of_driver(module) {
        true => "part of the driver",
        false => "it uses the driver from inside the kernel",
    }
}

/// The kill switch: a target that asserts it would look at it after all its steps.
fn switched_off(context: &Context, findings: &mut Findings) -> Result<()> {
    if step::is_switched_off(&context.root)? {
        findings.refuse(format!("{OFF} is on the kernel command line"), format!("boot without {OFF}"));
    }
    Ok(())
}

fn earlier_run(context: &Context, findings: &mut Findings) -> Result<()> {
    match context.ledger.read() {
        Ok(None) => {}
        Ok(Some(run)) if run.boot == context.ledger.boot() => findings.refuse(
            format!("run {} is still open", run.id),
            "`nvidia-reload start` ends a drained or offline machine, `nvidia-reload recover` an interrupted run",
        ),
        Ok(Some(run)) => findings.refuse(
            format!("run {} was interrupted by a reboot and is still open", run.id),
            "`nvidia-reload recover` ends it",
        ),
        Err(error) => findings.refuse(format!("{error:#}"), "see above"),
    }
    // A rollback would not use what is in there, and by then it is late.
    if let Some(found) = slots::untrusted(&context.root) {
        findings.refuse(found.what(), found.remedy());
    }
    Ok(())
}
