// SPDX-License-Identifier: MIT
//! Writing the specifications again.
//!
//! Each is written as what it was: its vendor, its class, its mode and the names of its devices. What the
//! toolkit makes is looked at before it takes the place of the old file: where it is another kind, or has other
//! devices, the old one stays and is named.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use files::replace;
use ledger::{Object, Step};
use step::{Context, Order, Root, Undo, order_unit};

use super::spec::{Spec, conflicts, specs};

/// Whose work it is where the container toolkit is new enough (1.18).
const SERVICE: &str = "nvidia-cdi-refresh.service";

/// The container toolkit's program.
const CTK: &str = "nvidia-ctk";

/// How long it may take for all of them: it starts NVML.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a new one is written first, by its number: no engine looks there.
const DRAFTS: &str = "/run/nvidia-reload/cdi";

/// Notes which specifications there are: they describe a driver that is about to change.
///
/// # Errors
/// They cannot be looked for, or there is no open run.
pub(crate) fn note(context: &Context) -> Result<()> {
    let paths = paths(context)?;
    if !paths.is_empty() {
        context.ledger.act(Step::DrainContainers, Object::Cdi { paths }, || Ok(()))?;
    }
    Ok(())
}

/// Which specifications there are.
///
/// # Errors
/// They cannot be looked for.
pub(crate) fn paths(context: &Context) -> Result<Vec<String>> {
    let (specs, _) = specs(&context.root).context("look for CDI specifications")?;
    Ok(specs.into_iter().map(|spec| spec.path).collect())
}

/// Sees to it that the specifications fit the driver that is loaded now. What is still wrong with them
/// then is said and is no error: who needs them fails by name when it is started.
///
/// # Errors
/// They cannot be looked for.
pub(crate) fn refresh(undo: &Undo) -> Result<()> {
    let context = undo.context;
    let unloaded = |act: &ledger::Act| matches!(act.object, Object::Module(_));
    if !undo.run.acts.iter().any(unloaded) {
        return Ok(());
    }
    // In another boot the machine came up with what is on disk, and the service with it.
    rewrite_all(context, undo.is_of_this_boot())
}

/// Has all written again that do not fit the driver that is loaded; by the toolkit's own service first, where
/// `by_service` says so.
///
/// # Errors
/// They cannot be looked for.
pub(crate) fn rewrite_all(context: &Context, by_service: bool) -> Result<()> {
    if by_service {
        context.status(format!("waiting for {SERVICE}"));
        if let Err(error) = order_unit(Order::Start, SERVICE) {
            context.warn(format!("{SERVICE} did not do its work: {error}"));
        }
    }
    let (all, unread) = specs(&context.root).context("look for CDI specifications")?;
    for problem in unread {
        context.warn(format!(
            "whether it names more directories with CDI specifications is not known: {problem}"
        ));
    }
    let until = Instant::now() + PATIENCE;
    for (number, spec) in all.iter().enumerate() {
        let problems = spec.problems(&context.root);
        if problems.is_empty() {
            context.info(format!("{}: every path and number in it is right", spec.path));
            continue;
        }
        let others: Vec<&Spec> = all.iter().filter(|other| other.path != spec.path).collect();
        match rewrite(&context.root, CTK, number, spec, &others, until) {
            Ok(()) => context.info(format!("{}: every path and number in it is right now", spec.path)),
            Err(error) => context.warn(format!(
                "{} does not fit the driver: {}; it is left as it is: {error:#}; write it again as it was written{}",
                spec.path,
                problems.join("; "),
                remedy(spec)
            )),
        }
    }
    let (all, _) = specs(&context.root).context("look for CDI specifications")?;
    for conflict in conflicts(&all) {
        context.warn(format!("{conflict}: CDI uses neither; remove one of them"));
    }
    Ok(())
}

/// The command that writes it, where that is known.
fn remedy(spec: &Spec) -> String {
    arguments(spec).map_or_else(
        |_| String::new(),
        |arguments| format!(" (`{CTK} cdi generate --output={} {}`)", spec.path, arguments.join(" ")),
    )
}

/// How the toolkit makes a specification such as this one.
fn arguments(spec: &Spec) -> Result<Vec<String>> {
    let Some((vendor, class)) = spec.kind().and_then(|kind| kind.split_once('/')) else {
        bail!("what it was cannot be read");
    };
    let format = if spec.path.ends_with(".json") { "json" } else { "yaml" };
    let mut arguments = vec![format!("--format={format}")];
    let mode = match (vendor, class) {
        // It is rewritten by the device plugin at its start.
        ("k8s.device-plugin.nvidia.com", _) => bail!("it is the device plugin's: restart that"),
        ("management.nvidia.com", "gpu") => Some("management"),
        ("nvidia.com" | "runtime.nvidia.com", "gpu") => None,
        (_, "gds") => Some("gds"),
        (_, "mofed") => Some("mofed"),
        (_, "imex-channel") => Some("imex"),
        (vendor, class) => bail!("how {vendor}/{class} is written is not known"),
    };
    arguments.extend(mode.map(|mode| format!("--mode={mode}")));
    if (vendor, class) != ("nvidia.com", "gpu") {
        arguments.extend([format!("--vendor={vendor}"), format!("--class={class}")]);
    }
    if mode.is_none() {
        for strategy in strategies(spec)? {
            arguments.push(format!("--device-name-strategy={strategy}"));
        }
    }
    Ok(arguments)
}

/// How the devices are named.
fn strategies(spec: &Spec) -> Result<Vec<&'static str>> {
    let mut found = Vec::new();
    for name in spec.names() {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // MIG devices: `0:1`.
        let is_index = name.split(':').all(is_number);
        let strategy = match name {
            "all" => continue,
            _ if is_index => "index",
            name if name.starts_with("GPU-") || name.starts_with("MIG-") => "uuid",
            name if name
                .strip_prefix("gpu")
                .or(name.strip_prefix("mig"))
                .is_some_and(|rest| rest.split(':').all(is_number)) =>
            {
                "type-index"
            }
            name => bail!("how its device {name:?} got its name is not known"),
        };
        if !found.contains(&strategy) {
            found.push(strategy);
        }
    }
    Ok(found)
}

/// Has the toolkit's `program` write it, and puts it in its place if it is what the old one was.
fn rewrite(
    root: &Root,
    program: &str,
    number: usize,
    old: &Spec,
    others: &[&Spec],
    until: Instant,
) -> Result<()> {
    let arguments = arguments(old)?;
    let end = if old.path.ends_with(".json") { "json" } else { "yaml" };
    let draft = format!("{DRAFTS}/{number}.{end}");
    fs::create_dir_all(root.path(DRAFTS)).with_context(|| format!("make {DRAFTS}"))?;
    let by_program = by_program(program, &root.path(&draft).to_string_lossy(), &arguments, until);
    let result = by_program.map_err(Into::into).and_then(|there| match there {
        true => put_in_place(root, old, &Spec::read(root, draft.clone()), others),
        false => bail!("there is no {program}"),
    });
    result.and(files::remove(&root.path(&draft)).map(drop).with_context(|| format!("remove {draft}")))
}

fn put_in_place(root: &Root, old: &Spec, new: &Spec, others: &[&Spec]) -> Result<()> {
    let (was, is) = (old.kind().unwrap_or_default(), new.kind());
    if is != Some(was) {
        bail!("{CTK} made one of kind {} instead of {was}", is.unwrap_or("unknown"));
    }
    let names = new.names();
    if let Some(gone) = old.names().into_iter().find(|name| !names.contains(name)) {
        bail!("{CTK} made one without the device {gone}");
    }
    for other in others.iter().filter(|other| other.kind() == Some(was)) {
        // What both have had before is not for us to say.
        let both = other.names().into_iter().find(|name| names.contains(name) && !old.names().contains(name));
        if let Some(name) = both {
            bail!("{CTK} made one with the device {name}, which is defined in {}", other.path);
        }
    }
    let problems = new.problems(root);
    if !problems.is_empty() {
        bail!("{CTK} made one that does not fit either: {}", problems.join("; "));
    }
    // Through a link: the engine reads what it leads to.
    let place = fs::canonicalize(root.path(&old.path)).with_context(|| format!("look for {}", old.path))?;
    let mode = fs::metadata(&place).with_context(|| format!("look at {}", old.path))?.permissions().mode();
    let text = fs::read(root.path(&new.path)).with_context(|| format!("read {}", new.path))?;
    replace(&place, mode & 0o777, &text).with_context(|| format!("write {}", old.path))
}

/// Has a specification written by the toolkit's program; false where there is none.
fn by_program(program: &str, path: &str, arguments: &[String], until: Instant) -> io::Result<bool> {
    let mut command = Command::new(program);
    command
        .args(["cdi", "generate"])
        .arg(format!("--output={path}"))
        .args(arguments)
        .stdout(Stdio::null())
        .process_group(0);
    match bounded::run(&mut command, until) {
        Ok(status) if status.success() => Ok(true),
        Ok(status) => Err(io::Error::other(format!("{program} ended with {status}"))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[path = "refresh_tests.rs"]
mod tests;
