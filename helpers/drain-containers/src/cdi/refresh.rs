//! Making the specifications anew.

use std::io::{self, ErrorKind};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ledger::{Object, Step};
use step::{Context, Order, Undo, order_unit};

use super::{Spec, specs};

/// Whose work it is where the container toolkit is new enough (1.18).
const SERVICE: &str = "nvidia-cdi-refresh.service";

/// The container toolkit's program.
const CTK: &str = "nvidia-ctk";

/// How long it may take: it starts NVML.
const PATIENCE: Duration = Duration::from_secs(60);

/// Notes which specifications there are: they describe a driver that is about to change.
///
/// # Errors
/// They cannot be looked for, or there is no open run.
pub(crate) fn note(context: &Context) -> Result<()> {
    let specs = specs(&context.root).context("look for CDI specifications")?;
    if !specs.is_empty() {
        let paths = specs.into_iter().map(|spec| spec.path).collect();
        context.ledger.act(Step::DrainContainers, Object::Cdi { paths }, || Ok(()))?;
    }
    Ok(())
}

/// Sees to it that the specifications fit the driver that serves now. What is still wrong with them
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
    if undo.is_of_this_boot() {
        context.status(format!("waiting for {SERVICE}"));
        if let Err(error) = order_unit(Order::Start, SERVICE) {
            context.warn(format!("{SERVICE} did not do its work: {error}"));
        }
    }
    let mut tried = false;
    for spec in specs(&context.root).context("look for CDI specifications")? {
        let problems = spec.problems(&context.root);
        if problems.is_empty() {
            context.info(format!("{}: every path and number in it is right", spec.path));
            continue;
        }
        match by_program(CTK, &spec.path, PATIENCE) {
            Ok(true) => tried = true,
            Ok(false) => say(context, &spec, &problems),
            Err(error) => {
                context.warn(format!("{CTK} did not write {}: {error}", spec.path));
                say(context, &spec, &problems);
            }
        }
    }
    if tried {
        for spec in specs(&context.root).context("look for CDI specifications")? {
            match spec.problems(&context.root).as_slice() {
                [] => context.info(format!("{}: every path and number in it is right now", spec.path)),
                problems => say(context, &spec, problems),
            }
        }
    }
    Ok(())
}

fn say(context: &Context, spec: &Spec, problems: &[String]) {
    context.warn(format!(
        "{} does not fit the driver: {}; write it anew as it was written, mostly by \
         `nvidia-ctk cdi generate --output={}`",
        spec.path,
        problems.join("; "),
        spec.path
    ));
}

/// Has the specification written anew by the toolkit's program; false where there is none.
fn by_program(program: &str, path: &str, time: Duration) -> io::Result<bool> {
    let format = if path.ends_with(".json") { "json" } else { "yaml" };
    let mut command = Command::new(program);
    command
        .args(["cdi", "generate"])
        .arg(format!("--output={path}"))
        .arg(format!("--format={format}"))
        .stdout(Stdio::null())
        .process_group(0);
    match bounded::run(&mut command, Instant::now() + time) {
        Ok(status) if status.success() => Ok(true),
        Ok(status) => Err(io::Error::other(format!("it ended with {status}"))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toolkit_that_hangs_is_killed_and_one_that_is_missing_is_no_error() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let program = directory.path().join("nvidia-ctk");
        let script = |text: &str| {
            let source = program.with_extension("text");
            std::fs::write(&source, format!("#!/bin/sh\n{text}\n")).expect("writes");
            std::fs::set_permissions(&source, std::fs::Permissions::from_mode(0o755)).expect("sets");
            // By another process: a child of a test beside this one may have our descriptor (ETXTBSY).
            let copied = Command::new("cp").arg(&source).arg(&program).status().expect("runs");
            assert!(copied.success());
            by_program(program.to_str().expect("is text"), "/etc/cdi/nvidia.yaml", Duration::from_millis(500))
        };
        let late = script("sleep 60 & wait").expect_err("hangs");
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        assert!(
            script("test \"$*\" = 'cdi generate --output=/etc/cdi/nvidia.yaml --format=yaml'").expect("ends")
        );
        assert!(script("exit 3").expect_err("fails").to_string().contains("exit status: 3"));
        assert!(!by_program("/no/such/nvidia-ctk", "a.json", Duration::from_secs(1)).expect("is missing"));
    }
}
