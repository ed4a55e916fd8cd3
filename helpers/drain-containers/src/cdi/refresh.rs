//! Making the specifications anew.

use std::io::{self, ErrorKind};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ledger::{Object, Run, Step};
use step::{Context, Order, order_unit};

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
        let act = context.ledger.intent(Step::DrainContainers, Object::Cdi { paths })?;
        context.ledger.done(act)?;
    }
    Ok(())
}

/// Sees to it that the specifications fit the driver that serves now. What is still wrong with them
/// then is said and is no error: who needs them fails by name when it is started.
///
/// # Errors
/// They cannot be looked for.
pub(crate) fn refresh(context: &Context, run: &Run) -> Result<()> {
    let unloaded = |act: &ledger::Act| matches!(act.object, Object::Module(_));
    if !run.acts.iter().any(unloaded) {
        return Ok(());
    }
    // In another boot the machine came up with what is on disk, and the service with it.
    if run.boot == context.ledger.boot() {
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
        match by_program(&spec) {
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
fn by_program(spec: &Spec) -> io::Result<bool> {
    let format = if spec.path.ends_with(".json") { "json" } else { "yaml" };
    let child = Command::new(CTK)
        .args(["cdi", "generate"])
        .arg(format!("--output={}", spec.path))
        .arg(format!("--format={format}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait()? {
            return if status.success() { Ok(true) } else { Err(io::Error::other(status.to_string())) };
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Err(ErrorKind::TimedOut.into());
        }
        sleep(Duration::from_millis(20));
    }
}
