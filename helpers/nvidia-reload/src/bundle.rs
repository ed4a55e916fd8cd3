// SPDX-License-Identifier: MIT
//! A run in one archive, for a bug report: what is known of it, without what might be secret.

use jiff::tz::TimeZone;
use ledger::{Object, Recorded};
use serde::Serialize;
use serde_json::Value;

use crate::fault::{Fault, Result};
use crate::redact;
use crate::runs::{self, Account};
use crate::view::{self, Style};

const README: &str = "\
A run of nvidia-reload, as its machine had it on record.

report.txt     what happened, as `nvidia-reload report` shows it
report.html    the same for a browser
report.json    the same as data, with the journal of the run and the kernel's
               messages about the driver (schema nvidia-reload.report/1)
ledger.jsonl   the record of the run, line by line
failure.json   where a step failed: plan, modules, versions, journal and
               kernel's messages of that moment (nvidia-reload.failure/1)

Left out: the arguments of programs (their names are there), what containers
are started with, the environment. There are: names of containers, units and
users, process ids, GPU UUIDs and PCI addresses, module parameters.
";

/// The files of an archive.
pub struct Bundle {
    folder: String,
    modified: u64,
    files: Vec<(&'static str, Vec<u8>)>,
}

/// The account of a run as it may be handed on.
#[derive(Debug, Clone, PartialEq)]
pub struct Public(Account);

impl Public {
    /// What is in it.
    pub fn account(&self) -> &Account {
        &self.0
    }
}

/// The account as it may be handed on.
///
/// # Errors
/// It cannot be encoded.
pub fn public(account: &Account, recorded: &Recorded) -> Result<Public> {
    let known = commands(account, recorded);
    let mut account = account.clone();
    let clean = |text: &mut String| *text = redact::text(text, &known);
    for process in &mut account.terminated {
        process.command = redact::program(&process.command);
    }
    account.failures.iter_mut().for_each(|failure| clean(&mut failure.reason));
    for missing in &mut account.not_restored {
        clean(&mut missing.name);
        clean(&mut missing.reason);
        if let Object::Process(process) = &mut missing.object {
            process.command = redact::program(&process.command);
        }
    }
    for workload in &mut account.workloads {
        workload.reason.iter_mut().for_each(clean);
    }
    for entry in account.journal.iter_mut().chain(&mut account.kernel_log) {
        clean(&mut entry.message);
    }
    account.unseen.iter_mut().for_each(clean);
    if let Some(failure) = &account.at_failure {
        let mut value = encode(failure)?;
        redact::json(&mut value, &known);
        account.at_failure = serde_json::from_value(value).map_err(|error| broken(&error))?;
    }
    Ok(Public(account))
}

impl Bundle {
    /// All of a run that may be handed on.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn of(account: &Account, recorded: &Recorded, zone: &TimeZone) -> Result<Self> {
        let known = commands(account, recorded);
        let public = public(account, recorded)?;
        let account = public.account();
        let mut lines = Vec::new();
        for record in &recorded.records {
            let mut value = encode(record)?;
            redact::json(&mut value, &known);
            lines.extend(value.to_string().into_bytes());
            lines.push(b'\n');
        }
        let mut ended = runs::as_report(recorded);
        for text in ended.ended.iter_mut().chain(&mut ended.restored).chain(&mut ended.staying) {
            *text = redact::text(text, &known);
        }
        ended.failures.clone_from(&account.failures);
        ended.missing.clone_from(&account.not_restored);
        let text = view::run::run(account, &ended, Style { width: Some(100), ..Style::PLAIN }, zone);
        let mut files = vec![
            ("README.txt", README.into()),
            ("report.txt", text.into_bytes()),
            ("report.html", view::html::html(&public, zone).into_bytes()),
            ("report.json", pretty(account)?),
            ("ledger.jsonl", lines),
        ];
        if let Some(failure) = &account.at_failure {
            files.push(("failure.json", pretty(failure)?));
        }
        let folder = format!("nvidia-reload-{}", view::history::short(&account.summary.run));
        let modified = account.summary.ended_usec.unwrap_or(account.summary.began_usec) / 1_000_000;
        Ok(Self { folder, modified, files })
    }

    /// The archive.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn archive(&self) -> Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, text) in &self.files {
            let mut header = tar::Header::new_ustar();
            header.set_size(text.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(self.modified);
            let path = format!("{}/{name}", self.folder);
            archive.append_data(&mut header, path, text.as_slice()).map_err(|error| broken(&error))?;
        }
        archive.into_inner().map_err(|error| broken(&error))
    }
}

/// The command lines that are known: wherever they are, the name of the program stands in their place.
fn commands(account: &Account, recorded: &Recorded) -> Vec<String> {
    let acts = recorded.run.acts.iter().filter_map(|act| match &act.object {
        Object::Process(process) => Some(process.command.clone()),
        _ => None,
    });
    acts.chain(account.terminated.iter().map(|process| process.command.clone())).collect()
}

fn encode<T: Serialize>(value: &T) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| broken(&error))
}

fn pretty<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut text = step::text::json(value).map_err(|error| broken(&error))?.into_bytes();
    text.push(b'\n');
    Ok(text)
}

fn broken(error: &dyn std::error::Error) -> Fault {
    Fault::new(step::Exit::Failed, "the report cannot be put together", "").because(error)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use step::{FAILURE_SCHEMA, Failure};

    use super::*;
    use crate::view::runs_gallery::{account, on_record, zone};

    fn failure() -> Failure {
        Failure {
            schema: FAILURE_SCHEMA.into(),
            run: "r".into(),
            step: ledger::Step::Verify,
            reason: "process 4711 (/usr/bin/python3 train.py --token=s3cret) is there".into(),
            at_usec: 1,
            loaded: Some("550.163.01".into()),
            kernel: None,
            distribution: None,
            nvidia_reload: "0".into(),
            modules: Vec::new(),
            plan: Some(serde_json::json!({"actions": [{"object": "process 9 (serve --key s3cret)"}]})),
            journal: Vec::new(),
            kernel_log: Vec::new(),
            unseen: Vec::new(),
        }
    }

    #[test]
    fn an_archive_has_all_of_a_run_and_no_command_line() {
        let history = on_record();
        let mut account = account();
        account.at_failure = Some(failure());
        account.journal[1].message =
            "terminated process 4711 of user alice (/usr/bin/python3 train.py --token=s3cret)".into();
        assert!(
            serde_json::to_string(&account).expect("encodes").contains("s3cret"),
            "or nothing is shown by this"
        );
        let bundle =
            Bundle::of(&account, &history.runs[0], &zone()).expect("is made").archive().expect("is made");
        let mut archive = tar::Archive::new(bundle.as_slice());
        let mut files = BTreeMap::new();
        for entry in archive.entries().expect("is an archive") {
            let mut entry = entry.expect("is whole");
            assert_eq!(entry.header().mode().expect("has one"), 0o600);
            let name = entry.path().expect("has one").display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("is text");
            files.insert(name.strip_prefix("nvidia-reload-3f2a91c0/").expect("in a folder").to_owned(), text);
        }
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        let expected =
            ["README.txt", "failure.json", "ledger.jsonl", "report.html", "report.json", "report.txt"];
        assert_eq!(names, expected);
        for (name, text) in &files {
            assert!(!text.contains("s3cret") && !text.contains("train.py"), "{name}: {text}");
        }
        for name in ["ledger.jsonl", "failure.json", "report.json", "report.txt"] {
            assert!(files[name].contains("python3"), "{name}: {}", files[name]);
        }
    }
}
