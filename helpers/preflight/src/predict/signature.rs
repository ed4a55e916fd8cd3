// SPDX-License-Identifier: MIT
//! Whether the kernel loads modules only with a signature, and the files have one that it knows.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result};
use modules::{Disk, Loaded, Signature};
use slots::slots;
use step::{Context, Root};

use super::Found;
use crate::findings::Findings;

/// Why a kernel asks for signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Demand {
    /// `module.sig_enforce`, on the command line or set later.
    Enforced,
    /// Lockdown, which comes with Secure Boot on most distributions.
    Lockdown,
}

/// Judges the signatures of `found`.
///
/// # Errors
/// What the kernel asks for cannot be read.
pub(crate) fn assess(
    context: &Context,
    disk: &Disk,
    loaded: &[Loaded],
    found: &[Found],
    findings: &mut Findings,
) -> Result<()> {
    let Some(demand) = demand(&context.root)? else { return Ok(()) };
    let why = match demand {
        Demand::Enforced => "the kernel loads signed modules only (module.sig_enforce)",
        Demand::Lockdown => "the kernel is locked down (Secure Boot) and loads signed modules only",
    };
    let known = known(context, disk, loaded)?;
    let keys = keys(&context.root)?;
    let mut unsigned = Vec::new();
    let mut unsure: BTreeMap<&str, Vec<&Path>> = BTreeMap::new();
    for one in found {
        match &one.declared.signature {
            None => unsigned.push(one.file.path.as_path()),
            Some(signature) if is_known(signature, &known, &keys) => {}
            Some(signature) => unsure
                .entry(signature.signer.as_deref().unwrap_or("an unnamed signer"))
                .or_default()
                .push(&one.file.path),
        }
    }
    // They are signed together, or not at all: reported once.
    if let Some(files) = named(&unsigned) {
        findings.refuse(
            format!("{files}: not signed, and {why}"),
            "sign the modules with a key that is enrolled (`mokutil --import`), or install signed ones",
        );
    }
    for (signer, files) in unsure {
        let files = named(&files).unwrap_or_default();
        findings.warn(
            format!("{files}: it is not known whether the kernel has the key of {signer}, and {why}"),
            "`mokutil --list-enrolled` shows the keys; if it is missing, the run is rolled back",
        );
    }
    Ok(())
}

/// The first of some files, and how many more there are; none for none.
fn named(files: &[&Path]) -> Option<String> {
    let first = files.first()?.display();
    Some(match files.len() - 1 {
        0 => first.to_string(),
        more => format!("{first} and {more} more"),
    })
}

fn demand(root: &Root) -> Result<Option<Demand>> {
    // A kernel without it knows no signatures, whatever it locks down.
    match text(&root.path("/sys/module/module/parameters/sig_enforce"))?.as_deref().map(str::trim) {
        None => return Ok(None),
        Some("Y") => return Ok(Some(Demand::Enforced)),
        Some(_) => {}
    }
    let lockdown = text(&root.path("/sys/kernel/security/lockdown"))?;
    // Such as `none [integrity] confidentiality`.
    let is_on = lockdown.is_some_and(|modes| modes.contains('[') && !modes.contains("[none]"));
    Ok(is_on.then_some(Demand::Lockdown))
}

/// The signatures that the kernel has accepted: those of loaded modules whose files are in a slot. Without what
/// taints it (E): with it, the signature was not looked at.
fn known(context: &Context, disk: &Disk, loaded: &[Loaded]) -> Result<Vec<Signature>> {
    let mut known = Vec::new();
    for slot in slots(&context.root)? {
        for module in loaded {
            let taint = context.root.path("/sys/module").join(&module.module.name).join("taint");
            if let Some(file) = slot.find(&module.module)
                && text(&taint)?.is_some_and(|taint| !taint.contains('E'))
                // One that cannot be read is reported where it is taken for a measure.
                && let Ok(declared) = disk.declared(&file.path)
                && let Some(signature) = declared.signature.clone()
            {
                known.push(signature);
            }
        }
    }
    Ok(known)
}

/// The kernel's keys, as it lists them to root. A signature names its key by a number that is not in there,
/// but the name of the signer is.
fn keys(root: &Root) -> Result<String> {
    let keys = text(&root.path("/proc/keys"))?.unwrap_or_default();
    Ok(keys.lines().filter(|line| line.contains(" asymmetri")).collect::<Vec<_>>().join("\n"))
}

fn is_known(signature: &Signature, known: &[Signature], keys: &str) -> bool {
    (signature.key.is_some() && known.contains(signature))
        || signature.signer.as_deref().is_some_and(|signer| keys.contains(&format!(" {signer}: ")))
}

fn text(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        // A list of keys that the sandbox or the kernel keeps to itself is one that tells nothing.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_what_it_asks_for() {
        let demand = |files: &[(&str, &str)]| {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let root = Root::at(directory.path());
            for (path, text) in files {
                let path = root.path(path);
                fs::create_dir_all(path.parent().expect("has a parent")).expect("creates");
                fs::write(path, text).expect("writes");
            }
            demand(&root).expect("reads")
        };
        let enforce = |value| ("/sys/module/module/parameters/sig_enforce", value);
        let lockdown = |value| ("/sys/kernel/security/lockdown", value);
        assert_eq!(demand(&[lockdown("none [integrity] confidentiality\n")]), None);
        assert_eq!(demand(&[enforce("N\n")]), None);
        assert_eq!(demand(&[enforce("N\n"), lockdown("[none] integrity confidentiality\n")]), None);
        assert_eq!(
            demand(&[enforce("N\n"), lockdown("none [integrity] confidentiality\n")]),
            Some(Demand::Lockdown)
        );
        assert_eq!(demand(&[enforce("Y\n")]), Some(Demand::Enforced));
    }

    #[test]
    fn files_are_named_once() {
        let paths = ["/a.ko", "/b.ko", "/c.ko"].map(Path::new);
        let named = |count| named(&paths[..count]);
        assert_eq!(named(0), None);
        assert_eq!(named(1).as_deref(), Some("/a.ko"));
        assert_eq!(named(3).as_deref(), Some("/a.ko and 2 more"));
    }

    #[test]
    fn a_key_is_known_by_who_used_it_before_or_by_its_name() {
        let signature = |signer: Option<&str>, key: Option<&str>| Signature {
            signer: signer.map(Into::into),
            key: key.map(Into::into),
        };
        let keys = "1234abcd I------     1 perm 1f030000     0     0 asymmetri Server 7 module key: 6ccece7e: X509.rsa 4bb419ea []";
        let before = [signature(Some("DKMS"), Some("0A:0B"))];
        for (signer, key, expected) in [
            (Some("Server 7 module key"), Some("77"), true),
            (Some("Server 7"), Some("77"), false),
            (Some("DKMS"), Some("0A:0B"), true),
            (Some("DKMS"), Some("0A:0C"), false),
            (None, None, false),
        ] {
            assert_eq!(is_known(&signature(signer, key), &before, keys), expected, "{signer:?} {key:?}");
        }
        assert!(!is_known(&signature(None, None), &[signature(None, None)], ""));
    }
}
