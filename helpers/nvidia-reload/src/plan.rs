// SPDX-License-Identifier: MIT
//! What a command would do, as preflight or the ledger have it, and how long it took before.

use std::process::Command;
use std::time::Duration;

use ledger::Step;
use serde::Serialize;
use step::{Exit, PLAN_SCHEMA, Plan, Root};

use crate::expected::{Expected, expected};
use crate::fault::{Fault, Result};
use crate::helper;
use crate::kind::Kind;
use crate::users::Users;

/// The helper that knows. It asks the container engines, so that this command holds no HTTP.
const HELPER: &str = "/usr/libexec/nvidia-reload/preflight";

/// It reads, and asks engines with deadlines of their own.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a command would do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proposal {
    /// Which command.
    pub command: Kind,
    /// What it would do to what.
    #[serde(flatten)]
    pub plan: Plan,
    /// How long it may take.
    pub expected: Expected,
    /// The names of users.
    #[serde(skip)]
    pub users: Users,
}

impl Proposal {
    /// What `command` would do of `plan`, which is that of a whole run.
    pub fn new(root: &Root, command: Kind, mut plan: Plan) -> Self {
        if command.holds() {
            let steps = command.target().steps();
            plan.actions.retain(|action| steps.contains(&action.step));
            plan.settings.clear();
            if command == Kind::Stop {
                plan.modules.clear();
            }
        }
        Self { command, plan, expected: expected(root, command), users: Users::read(root) }
    }

    /// Whether something is stopped that has a limit of its own.
    pub fn stops(&self, step: Step) -> bool {
        !self.command.restores() && self.plan.actions.iter().any(|action| action.step == step)
    }
}

/// What a plan is made of.
#[derive(Debug, Clone, Copy, Default)]
pub struct Question<'a> {
    /// A reset of these GPUs, or where none is named of all; else a reload.
    pub reset: Option<&'a [String]>,
    /// The version that the reload puts on disk first.
    pub exchange: Option<&'a str>,
    /// Only if no work is lost by it.
    pub if_idle: bool,
}

/// The plan of what is wanted, as things stand.
///
/// # Errors
/// The helper is missing, fails, or says what this version does not understand.
pub fn plan(root: &Root, wanted: Question<'_>) -> Result<Plan> {
    let Question { reset, exchange, if_idle } = wanted;
    let helper = root.path(HELPER);
    let mut command = Command::new(&helper);
    command
        .arg("plan")
        .args(reset.map(|_| "--reset"))
        .args(reset.into_iter().flatten().map(|id| format!("--gpu={id}")))
        .args(exchange.map(|version| format!("--exchange={version}")))
        .args(if_idle.then_some("--if-idle"));
    let plan: Plan = helper::ask(&mut command, PATIENCE, Exit::Refused)?;
    if plan.schema != PLAN_SCHEMA {
        let error = format!("{} plan has schema {:?}, not {PLAN_SCHEMA:?}", helper.display(), plan.schema);
        return Err(Fault::refused(error, "install command and helpers of one version"));
    }
    Ok(plan)
}
#[cfg(test)]
mod tests {
    use super::*;
    use step::Exit;

    fn helper(script: &str) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        golden::script(&root.path(HELPER), script);
        (directory, root)
    }

    const READY: &str = r#"{"schema":"nvidia-reload.plan/1","verdict":"refused","reasons":[],"warnings":[],
        "driver":{"loaded":"535","on_disk":"550"},"modules":[],"actions":[]}"#;

    #[test]
    fn the_helpers_words_are_the_plan() {
        let (_directory, root) = helper(&format!("test \"$1\" = plan || exit 9\necho '{READY}'\nexit 3"));
        let plan = plan(&root, Question::default()).expect("understands");
        assert_eq!(plan.driver.on_disk.as_deref(), Some("550"));
        assert_eq!(plan.verdict.exit(), Exit::Refused);
    }

    #[test]
    fn what_is_no_plan_is_a_refusal() {
        for (script, word) in [
            ("exit 1", "no answer"),
            ("echo 'the configuration cannot be used' >&2; exit 3", "the configuration cannot be used"),
            ("echo '{\"schema\":1}'", "not understood"),
            (
                "echo '{\"schema\":\"x/9\",\"verdict\":\"ready\",\"reasons\":[],\"warnings\":[],\"driver\":{\"loaded\":null,\"on_disk\":null},\"modules\":[],\"actions\":[]}'",
                "x/9",
            ),
        ] {
            let (_directory, root) = helper(script);
            let fault = plan(&root, Question::default()).expect_err("must refuse");
            assert!(fault.error.contains(word), "{fault:?}");
            assert_eq!(fault.exit, 3);
        }
        let fault = plan(&Root::at("/no/such/root"), Question::default()).expect_err("must refuse");
        assert!(fault.error.starts_with("cannot run /no/such/root/usr/libexec"), "{fault:?}");
    }
}
