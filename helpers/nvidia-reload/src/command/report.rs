// SPDX-License-Identifier: MIT
//! `report`: everything that is known of a run.

use std::path::Path;

use jiff::tz::TimeZone;
use ledger::Recorded;
use step::{Exit, Of, Root};

use super::logs::of_run;
use super::{guard, print};
use crate::bundle::{self, Bundle};
use crate::cli::Report;
use crate::fault::{Fault, Result};
use crate::runs::{self, Account};
use crate::terminal::{Stream, Terminal};
use crate::view;

/// Shows it, or writes it to files.
pub fn report(arguments: &Report) -> Result<u8> {
    guard::root("report")?;
    let root = Root::system();
    let history = runs::on_record(&root)?;
    let recorded = runs::choose(&history, arguments.run.as_deref())?;
    let account = whole(&root, recorded)?;
    let zone = TimeZone::system();
    let mut written = Vec::new();
    if let Some(path) = &arguments.html {
        let public = bundle::public(&account, recorded)?;
        write(path, view::html::html(&public, &zone).as_bytes())?;
        written.push(path);
    }
    if let Some(path) = &arguments.bundle {
        let archive = Bundle::of(&account, recorded, &zone)?.archive()?;
        write(path, &archive)?;
        written.push(path);
    }
    let mut terminal = Terminal::new(Stream::Out);
    if arguments.output.json {
        print(&account);
    } else if written.is_empty() {
        let ended = runs::as_report(recorded);
        let text = view::run::run(&account, &ended, terminal.style(), &zone);
        terminal.write(&text);
    } else {
        for path in written {
            terminal.write(&format!("written: {}\n", view::text::clean(&path.display().to_string())));
        }
    }
    Ok(0)
}

/// With the journal and what was saved at a failure. What cannot be read is said, and the rest is there.
fn whole(root: &Root, recorded: &Recorded) -> Result<Account> {
    let mut account = runs::account(root, recorded);
    for (of, what) in [(Of::OurUnits, "The journal"), (Of::Kernel, "The kernel's messages")] {
        match of_run(root, recorded, of) {
            Ok(entries) if of == Of::OurUnits => account.journal = entries,
            // The rest of what the kernel says is not about a GPU.
            Ok(entries) => {
                account.kernel_log =
                    entries.into_iter().filter(|entry| is_of_driver(&entry.message)).collect();
            }
            Err(error) => account.unseen.push(format!("{what}: {error:#}.")),
        }
    }
    let failure = step::open_ledger(root)?.failure(&recorded.run).and_then(|text| {
        text.map(|text| serde_json::from_slice(&text).map_err(anyhow::Error::from)).transpose()
    });
    match failure {
        Ok(failure) => account.at_failure = failure,
        Err(error) => account.unseen.push(format!("What was kept at the failure: {error:#}.")),
    }
    Ok(account)
}

/// Whether the kernel speaks of the driver.
fn is_of_driver(message: &str) -> bool {
    let lower = message.to_ascii_lowercase();
    ["nvrm", "nvidia", "nvswitch", "nvlink"].iter().any(|word| lower.contains(word))
}

/// The file is root's alone: names of workloads are in it. A link in its place is replaced, not followed.
fn write(path: &Path, text: &[u8]) -> Result<()> {
    files::replace(path, 0o600, text).map_err(|error| {
        let what = format!("cannot write {}", path.display());
        Fault::new(Exit::Failed, what, "is it a file in a folder that is there and writable?").because(&error)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn a_link_that_somebody_put_in_the_way_is_replaced() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (victim, path) = (directory.path().join("victim"), directory.path().join("run.html"));
        fs::write(&victim, "precious").expect("writes");
        symlink(&victim, &path).expect("links");
        write(&path, b"page").expect("writes");
        assert_eq!(fs::read_to_string(&victim).expect("reads"), "precious");
        let data = fs::symlink_metadata(&path).expect("is there");
        assert!(data.is_file() && data.mode() & 0o7777 == 0o600);
        let fault = write(Path::new("/no/such/folder/x"), b"").expect_err("must fail");
        assert!(fault.error.contains("/no/such/folder/x"), "{fault:?}");
    }

    #[test]
    fn of_the_kernel_s_messages_those_of_the_driver_count() {
        assert!(is_of_driver("NVRM: Xid (PCI:0000:3b:00): 79") && is_of_driver("nvidia-uvm: Loaded"));
        assert!(!is_of_driver("EXT4-fs (sda1): mounted"));
    }
}
