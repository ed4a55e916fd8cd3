// SPDX-License-Identifier: MIT
//! The undo of a step: each act on its own, whatever becomes of the others, and one error that names all that is
//! not restored.

use std::cell::RefCell;
use std::fmt::Display;

use anyhow::{Result, bail};
use ledger::{Act, Run};

use crate::Context;

/// What becomes of the acts of the open run. A ledger that cannot be written is one more problem, and stops
/// nothing.
pub struct Undo<'a> {
    /// What the step works with.
    pub context: &'a Context,
    /// The run, as it was when the undo began.
    pub run: Run,
    problems: RefCell<Vec<String>>,
}

impl<'a> Undo<'a> {
    /// The undo of the open run; none where no run is open.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn begin(context: &'a Context) -> Result<Option<Self>> {
        Ok(context.ledger.read()?.map(|run| Undo { context, run, problems: RefCell::default() }))
    }

    /// Whether the run began in this boot.
    pub fn is_of_this_boot(&self) -> bool {
        self.run.boot == self.context.ledger.boot()
    }

    /// These acts, if they are of this boot. What those of another took went with that boot: they are noted as
    /// undone.
    pub fn of_this_boot(&self, mut acts: Vec<Act>) -> Vec<Act> {
        if !self.is_of_this_boot() {
            for act in acts.drain(..) {
                self.restored(act.id, &act.object);
            }
        }
        acts
    }

    /// Act `id` on `name` is undone.
    pub fn restored(&self, id: u64, name: impl Display) {
        self.written(name, self.context.ledger.undone(id));
    }

    /// What act `id` took of `name` cannot be restored. That is the machine's state, and no problem of this undo.
    pub fn lost(&self, id: u64, name: impl Display, why: impl Into<String>) {
        self.written(name, self.context.ledger.lost(id, why));
    }

    /// Act `id` on `name` could not be undone this time.
    pub fn failed(&self, id: u64, name: impl Display, why: impl Display) {
        self.problem(format!("{name}: {why:#}"));
        self.also_failed(id, name, why);
    }

    /// The same, for a reason that is among the problems already.
    pub fn also_failed(&self, id: u64, name: impl Display, why: impl Display) {
        self.written(name, self.context.ledger.undo_failed(id, format!("{why:#}")));
    }

    /// Notes what came of undoing `act`.
    pub fn note(&self, act: &Act, result: Result<()>) {
        match result {
            Ok(()) => self.restored(act.id, &act.object),
            Err(error) => self.failed(act.id, &act.object, error),
        }
    }

    /// Something about `name` was written to the ledger, or could not be.
    pub fn written(&self, name: impl Display, written: Result<()>) {
        if let Err(error) = written {
            self.problem(format!("{name}: the ledger does not have this: {error:#}"));
        }
    }

    /// Something else is not as it should be.
    pub fn problem(&self, what: impl Into<String>) {
        self.problems.borrow_mut().push(what.into());
    }

    /// The end.
    ///
    /// # Errors
    /// All problems, after `what`.
    pub fn end(self, what: &str) -> Result<()> {
        let problems = self.problems.into_inner();
        if !problems.is_empty() {
            bail!("{what}: {}", problems.join("; "));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use anyhow::anyhow;
    use ledger::{Console, Ledger, Object, Snapshot, State, Step};

    use super::*;
    use crate::Root;

    fn context(boot: &str) -> (tempfile::TempDir, Context) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let ledger = |boot| Ledger::new(root.path("/lib"), boot);
        ledger("then").open(Snapshot::default()).expect("opens");
        for vtcon in ["a", "b", "c"] {
            let console = Console { vtcon: vtcon.into(), driver: "d".into() };
            ledger("then").act(Step::UnbindVt, Object::Console(console), || Ok(())).expect("writes");
        }
        let ledger = ledger(boot);
        (directory, Context { step: Step::UnbindVt, root, ledger })
    }

    fn undo(context: &Context) -> Result<()> {
        let undo = Undo::begin(context)?.expect("is open");
        for act in undo.of_this_boot(undo.run.outstanding(Step::UnbindVt)) {
            let is_b = matches!(&act.object, Object::Console(console) if console.vtcon == "b");
            undo.note(&act, if is_b { Err(anyhow!("is stuck")) } else { Ok(()) });
        }
        undo.end("not all are back")
    }

    fn states(context: &Context) -> Vec<State> {
        context
            .ledger
            .read()
            .expect("reads")
            .expect("is open")
            .acts
            .into_iter()
            .map(|act| act.state)
            .collect()
    }

    #[test]
    fn each_act_is_tried_and_all_problems_are_named() {
        let (_directory, context) = context("then");
        let lock = context.root.path("/lib/ledger.lock");
        fs::remove_file(&lock).expect("removes");
        fs::create_dir(&lock).expect("is in the way");
        let error = undo(&context).expect_err("nothing can be written").to_string();
        assert!(error.starts_with("not all are back: "), "{error}");
        assert_eq!(error.matches("the ledger does not have this").count(), 3, "{error}");
        assert_eq!(states(&context), vec![State::Done; 3]);
        fs::remove_dir(&lock).expect("removes");
        let error = undo(&context).expect_err("one is stuck").to_string();
        assert_eq!(error, "not all are back: console b (d): is stuck");
        assert_eq!(states(&context), [State::Undone, State::UndoFailed("is stuck".into()), State::Undone]);
    }

    #[test]
    fn what_another_boot_took_went_with_it() {
        let (_directory, context) = context("now");
        undo(&context).expect("nothing is tried");
        assert_eq!(states(&context), vec![State::Undone; 3]);
    }
}
