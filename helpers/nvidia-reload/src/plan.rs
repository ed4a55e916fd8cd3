// SPDX-License-Identifier: MIT
//! What a reload would do, as preflight finds it.

use std::io::ErrorKind;
use std::process::Command;
use std::time::{Duration, Instant};

use step::{PLAN_SCHEMA, Plan, Root};

use crate::fault::{Fault, Result};

/// The helper that knows. It asks the container engines, so that this command holds no HTTP.
const HELPER: &str = "/usr/libexec/nvidia-reload/preflight";

/// It reads, and asks engines with deadlines of their own.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a plan is made of.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// A reset of these GPUs, or where none is named of all; else a reload.
    pub reset: Option<&'a [String]>,
    /// The version that the reload puts on disk first.
    pub exchange: Option<&'a str>,
    /// Only if nobody loses work by it.
    pub if_idle: bool,
}

/// The plan of what is wanted, as things stand.
///
/// # Errors
/// The helper is missing, fails, or says what this version does not understand.
pub fn plan(root: &Root, wanted: Wanted<'_>) -> Result<Plan> {
    let Wanted { reset, exchange, if_idle } = wanted;
    let helper = root.path(HELPER);
    let fault = |what: String| Fault::refused(what, "is the package nvidia-reload installed completely?");
    let name = helper.display();
    let mut command = Command::new(&helper);
    command
        .arg("plan")
        .args(reset.map(|_| "--reset"))
        .args(reset.into_iter().flatten().map(|id| format!("--gpu={id}")))
        .args(exchange.map(|version| format!("--exchange={version}")))
        .args(if_idle.then_some("--if-idle"));
    let (status, text) = match bounded::child(&mut command, Instant::now() + PATIENCE, bounded::BODY) {
        Ok(answer) => answer,
        Err(error) if error.kind() == ErrorKind::TimedOut => {
            return Err(Fault::refused(format!("{name} plan: {error}"), "`ps` shows what it waits for"));
        }
        Err(error) => return Err(fault(format!("cannot run {name}")).because(&error)),
    };
    let plan: Plan = match serde_json::from_slice(&text) {
        Ok(plan) => plan,
        // What it could not do it has said on our standard error.
        Err(_) if text.is_empty() => return Err(fault(format!("{name} plan has no answer: {status}"))),
        Err(error) => return Err(fault(format!("{name} plan is not understood")).because(&error)),
    };
    if plan.schema != PLAN_SCHEMA {
        let error = format!("{name} plan has schema {:?}, not {PLAN_SCHEMA:?}", plan.schema);
        return Err(Fault::refused(error, "install command and helpers of one version"));
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use step::Exit;

    fn helper(script: &str) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let path = root.path(HELPER);
        std::fs::create_dir_all(path.parent().expect("has a parent")).expect("creates");
        let text = path.with_extension("text");
        std::fs::write(&text, format!("#!/bin/sh\n{script}\n")).expect("writes");
        std::fs::set_permissions(&text, std::fs::Permissions::from_mode(0o755)).expect("sets");
        // Copied by another process: a test beside this one that starts a child would hand it our descriptor,
        // and a program that is open for writing does not start (ETXTBSY).
        assert!(std::process::Command::new("cp").arg(&text).arg(&path).status().expect("runs").success());
        (directory, root)
    }

    const READY: &str = r#"{"schema":"nvidia-reload.plan/1","verdict":"refused","reasons":[],"warnings":[],
        "driver":{"loaded":"535","on_disk":"550"},"modules":[],"actions":[]}"#;

    #[test]
    fn the_helpers_words_are_the_plan() {
        let (_directory, root) = helper(&format!("test \"$1\" = plan || exit 9\necho '{READY}'\nexit 3"));
        let plan = plan(&root, Wanted::default()).expect("understands");
        assert_eq!(plan.driver.on_disk.as_deref(), Some("550"));
        assert_eq!(plan.verdict.exit(), Exit::Refused);
    }

    #[test]
    fn what_is_no_plan_is_a_refusal() {
        for (script, word) in [
            ("exit 1", "no answer"),
            ("echo '{\"schema\":1}'", "not understood"),
            (
                "echo '{\"schema\":\"x/9\",\"verdict\":\"ready\",\"reasons\":[],\"warnings\":[],\"driver\":{\"loaded\":null,\"on_disk\":null},\"modules\":[],\"actions\":[]}'",
                "x/9",
            ),
        ] {
            let (_directory, root) = helper(script);
            let fault = plan(&root, Wanted::default()).expect_err("must refuse");
            assert!(fault.error.contains(word), "{fault:?}");
            assert_eq!(fault.exit, 3);
        }
        let fault = plan(&Root::at("/no/such/root"), Wanted::default()).expect_err("must refuse");
        assert!(fault.error.starts_with("cannot run /no/such/root/usr/libexec"), "{fault:?}");
    }
}
