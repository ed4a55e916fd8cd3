// SPDX-License-Identifier: MIT
//! Whether the running kernel takes the files: what they were built for, and the symbols that they need.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File as Opened;
use std::io::{BufRead, BufReader, ErrorKind};

use anyhow::{Context as _, Result};
use modules::{Disk, Loaded};
use step::{Context, Root};

use super::Found;
use super::measure::{Measure, measure};
use crate::findings::Findings;

/// Symbols that no module has and the kernel does not look for: the first stands for the layout of its own
/// structures and only has a version, the others are the compiler's (ignore_undef_symbol()).
const NOBODYS: [&str; 3] = ["module_layout", "_GLOBAL_OFFSET_TABLE_", ".TOC."];

/// A kernel exports tens of thousands of symbols. Where its list has fewer, it does not have the exports.
const FEW: usize = 1000;

const REBUILD: &str = "build the driver's modules for the running kernel";

/// Judges `found` by what the kernel took before.
///
/// # Errors
/// What is loaded cannot be read.
pub(crate) fn assess(
    context: &Context,
    disk: &Disk,
    loaded: &[Loaded],
    found: &[Found],
    release: &str,
    findings: &mut Findings,
) -> Result<()> {
    let measure = measure(&context.root, disk, loaded, findings)?;
    for one in found {
        let wrong = other_versions(one, &measure, found);
        match (built_for(one, release, &measure), explain(one, &wrong, release)) {
            (Fit::No(why), _) => {
                findings.refuse(format!("{} {why}", one.file.path.display()), rebuild(one, release));
            }
            (_, Some((what, remedy))) => findings.refuse(what, remedy),
            (Fit::BySymbols(why), None) => findings.warn(
                format!("{} {why}", one.file.path.display()),
                "if it does not fit, the run is rolled back",
            ),
            (Fit::Yes, None) => {}
        }
    }
    missing(&context.root, disk, &measure, found, findings)
}

/// What brings a file that fits: the driver's is built, another one comes with its package.
fn rebuild(one: &Found, release: &str) -> String {
    match one.is_of_driver() {
        true => REBUILD.to_owned(),
        false => format!(
            "install the package of that file for the build of {release} that runs; or boot the kernel that is installed"
        ),
    }
}

/// Whether a file is built for the running kernel.
#[derive(Debug, PartialEq, Eq)]
enum Fit {
    Yes,
    /// For another one; but kernels that have versions of symbols go by those.
    BySymbols(String),
    No(String),
}

/// As the kernel's same_magic() compares: release and flags; only the flags where both sides have versions
/// of symbols, as for the modules that some distributions build once for several kernels.
fn built_for(one: &Found, release: &str, measure: &Measure) -> Fit {
    let Some(magic) = one.file.vermagic.as_deref() else {
        return Fit::BySymbols("does not have the kernel version that it was built for".into());
    };
    let (of, flags) = split(magic);
    let has_versions = one.declared.needs.iter().any(|symbol| symbol.crc != 0);
    if let Some((_, running)) = measure.vermagic.as_deref().map(split)
        && running != flags
    {
        return Fit::No(format!(
            "is built for a kernel of another kind: {of} ({flags}), and {release} ({running}) runs"
        ));
    }
    if of == release {
        return Fit::Yes;
    }
    let other = format!("is built for kernel {of}, and {release} runs");
    if !has_versions || !flags.split(' ').any(|flag| flag == "modversions") {
        return Fit::No(other);
    }
    let known = |name: &str| measure.versions.contains_key(name);
    match one.declared.needs.iter().filter(|symbol| !known(&symbol.name)).count() {
        0 => Fit::Yes,
        unknown => Fit::BySymbols(format!(
            "{other}: whether {unknown} of the {} symbols that it needs fit is not known",
            one.declared.needs.len()
        )),
    }
}

fn split(vermagic: &str) -> (&str, &str) {
    let (release, flags) = vermagic.split_once(' ').unwrap_or((vermagic, ""));
    (release, flags.trim_end())
}

/// The symbols that `one` needs in another version than they have, and whose they are: those of another
/// module on disk, or of the kernel and what comes with it.
fn other_versions<'a>(
    one: &'a Found,
    measure: &Measure,
    found: &'a [Found],
) -> Vec<(&'a str, Option<&'a Found>)> {
    let mut wrong = Vec::new();
    for symbol in one.declared.needs.iter().filter(|symbol| symbol.crc != 0) {
        let exported = found.iter().find_map(|other| {
            let symbol = other.declared.exports.iter().find(|exported| exported.name == symbol.name)?;
            Some((symbol.crc, Some(other)))
        });
        // That the driver's own modules are of several versions is reported by that.
        if exported.is_some_and(|(_, other)| {
            other.is_some_and(|other| {
                other.is_of_driver() && one.is_of_driver() && other.file.version != one.file.version
            })
        }) {
            continue;
        }
        let known = exported.or_else(|| Some((*measure.versions.get(&symbol.name)?, None)));
        if let Some((_, from)) = known.filter(|(crc, _)| *crc != 0 && *crc != symbol.crc) {
            wrong.push((symbol.name.as_str(), from));
        }
    }
    wrong
}

/// What to say of symbols in other versions, and what to do about it.
fn explain(one: &Found, wrong: &[(&str, Option<&Found>)], release: &str) -> Option<(String, String)> {
    let (first, from) = wrong.first()?;
    let symbols = match wrong.len() {
        1 => format!("the symbol {first} in another version"),
        several => format!("{several} symbols ({first}, …) in other versions"),
    };
    let path = one.file.path.display();
    Some(match from {
        None => (
            format!("{path} is built for another build of the kernel: it needs {symbols} than {release} has"),
            rebuild(one, release),
        ),
        Some(other) => (
            format!(
                "{path} was built with another {}: it needs {symbols} than {} has",
                other.file.name,
                other.file.path.display()
            ),
            format!("build {} again with the driver's modules on disk", one.file.name),
        ),
    })
}

/// The symbols that nothing exports: the kernel refuses the module for one of them.
fn missing(
    root: &Root,
    disk: &Disk,
    measure: &Measure,
    found: &[Found],
    findings: &mut Findings,
) -> Result<()> {
    let exported: HashSet<&str> =
        found.iter().flat_map(|one| &one.declared.exports).map(|symbol| symbol.name.as_str()).collect();
    let mut open: BTreeMap<&str, &Found> = BTreeMap::new();
    for one in found {
        for symbol in &one.declared.needs {
            let name = symbol.name.as_str();
            if !measure.versions.contains_key(name)
                && !exported.contains(name)
                && !NOBODYS.contains(&name)
                && !disk.exports(name)?
            {
                open.entry(name).or_insert(one);
            }
        }
    }
    // The kernel's own list is long: it is read only for what is in no other.
    if open.is_empty() {
        return Ok(());
    }
    let path = root.path("/proc/kallsyms");
    let file = match Opened::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    let missing = not_in(BufReader::new(file), open.keys().copied())
        .with_context(|| format!("read {}", path.display()))?;
    for one in found {
        let of_this: Vec<&str> = missing
            .iter()
            .copied()
            .filter(|name| open.get(name).is_some_and(|needs| needs.file.path == one.file.path))
            .collect();
        if let Some(first) = of_this.first() {
            let symbols = match of_this.len() {
                1 => format!("the symbol {first}"),
                several => format!("{several} symbols ({first}, …)"),
            };
            findings.refuse(
                format!(
                    "{} needs {symbols}, and neither the kernel nor a module on disk has that",
                    one.file.path.display()
                ),
                REBUILD,
            );
        }
    }
    Ok(())
}

/// Those of `names` that the kernel for certain does not export, going by its list of all symbols. That has an
/// entry of its own for each export (`__ksymtab_NAME`), unless the kernel keeps no data in the list: then it
/// says nothing.
fn not_in<'a>(mut list: impl BufRead, names: impl Iterator<Item = &'a str>) -> Result<BTreeSet<&'a str>> {
    let mut missing: BTreeSet<&str> = names.collect();
    let mut exports = 0;
    let mut line = Vec::new();
    // As bytes: the kernel promises no encoding, and the lines are many.
    while list.read_until(b'\n', &mut line)? != 0 {
        let mut words = line.split(u8::is_ascii_whitespace).skip(2);
        if let Some(name) = words.next().and_then(|name| name.strip_prefix(b"__ksymtab_")) {
            // Behind the symbol of a module stands the module, in brackets.
            exports += usize::from(words.next().is_none_or(<[u8]>::is_empty));
            if let Ok(name) = str::from_utf8(name) {
                missing.remove(name);
            }
        }
        line.clear();
    }
    Ok(if exports < FEW { BTreeSet::new() } else { missing })
}

#[cfg(test)]
mod tests {
    use super::*;
    use modules::{Declared, File, Symbol};
    use std::rc::Rc;

    fn symbols(names: &[(&str, u64)]) -> Vec<Symbol> {
        names.iter().map(|(name, crc)| Symbol { name: (*name).into(), crc: *crc }).collect()
    }

    fn file(name: &str, vermagic: &str, needs: &[(&str, u64)], exports: &[(&str, u64)]) -> Found {
        Found {
            file: File {
                name: name.into(),
                alias: name.into(),
                path: format!("/lib/{name}.ko").into(),
                version: None,
                srcversion: None,
                vermagic: Some(vermagic.into()),
                options: String::new(),
            },
            declared: Rc::new(Declared {
                needs: symbols(needs),
                exports: symbols(exports),
                ..Declared::default()
            }),
        }
    }

    fn measure(vermagic: Option<&str>, versions: &[(&str, u64)]) -> Measure {
        Measure {
            vermagic: vermagic.map(Into::into),
            versions: versions.iter().map(|(name, crc)| ((*name).to_owned(), *crc)).collect(),
        }
    }

    #[test]
    fn release_and_flags_are_compared_as_the_kernel_does() {
        const WITH: &str = "6.1 SMP modversions ";
        const WITHOUT: &str = "6.1 SMP ";
        let versions = [("module_layout", 1), ("printk", 2)];
        let fit = |magic: &str, needs: &[(&str, u64)], kernel: Option<&str>, known: &[(&str, u64)]| {
            match built_for(&file("nvidia", magic, needs, &[]), "6.1", &measure(kernel, known)) {
                Fit::Yes => "yes",
                Fit::BySymbols(_) => "by symbols",
                Fit::No(_) => "no",
            }
        };
        for (magic, needs, kernel, known, expected) in [
            (WITH, &versions[..], Some(WITH), &versions[..], "yes"),
            (WITH, &versions, None, &[], "yes"),
            // Another release: with versions of symbols on both sides, those count.
            ("6.2 SMP modversions ", &versions, Some(WITH), &versions, "yes"),
            ("6.2 SMP modversions ", &versions, Some(WITH), &versions[..1], "by symbols"),
            ("6.2 SMP modversions ", &versions, None, &[], "by symbols"),
            ("6.2 SMP modversions ", &[], Some(WITH), &[], "no"),
            ("6.2 SMP ", &[], Some(WITHOUT), &[], "no"),
            ("6.2 SMP ", &[], None, &[], "no"),
            // Other flags.
            ("6.1 SMP preempt modversions ", &versions, Some(WITH), &versions, "no"),
            (WITHOUT, &[], Some(WITH), &[], "no"),
            (WITHOUT, &[], None, &[], "yes"),
            ("6.1", &[], Some(WITHOUT), &[], "no"),
        ] {
            assert_eq!(fit(magic, needs, kernel, known), expected, "{magic} {needs:?} {kernel:?}");
        }
    }

    #[test]
    fn versions_of_symbols_are_those_of_who_has_them() {
        let measure = measure(None, &[("module_layout", 1), ("printk", 2), ("unversioned", 0)]);
        let nvidia = file("nvidia", "", &[("module_layout", 1)], &[("nv_ops", 7)]);
        let wrong = |needs: &[(&str, u64)]| {
            let one = file("nvidia_drm", "", needs, &[]);
            let found = [nvidia.clone(), one.clone()];
            let wrong = other_versions(&one, &measure, &found);
            explain(&one, &wrong, "6.1").map(|(what, _)| what)
        };
        assert_eq!(wrong(&[("module_layout", 1), ("nv_ops", 7), ("new", 9), ("unversioned", 3)]), None);
        assert_eq!(wrong(&[("module_layout", 0)]), None);
        let kernel = wrong(&[("module_layout", 5), ("printk", 3)]).expect("differs");
        assert!(kernel.contains("2 symbols (module_layout, …)"), "{kernel}");
        let beside = wrong(&[("nv_ops", 8)]).expect("differs");
        assert!(beside.contains("with another nvidia"), "{beside}");
    }

    #[test]
    fn what_the_kernel_exports_is_known_by_its_list() {
        let list = |text: &str| {
            let missing = not_in(text.as_bytes(), ["here", "local", "nowhere", "of_module"].into_iter());
            missing.expect("reads").into_iter().map(ToOwned::to_owned).collect::<Vec<_>>()
        };
        let few = "0 t local\n0 T here\n0 r __ksymtab_here\n\n0 X\n0 r __ksymtab_of_module\t[drm]\n";
        assert_eq!(list(few), [""; 0]);
        let many: String = (0..FEW).map(|number| format!("0 r __ksymtab_{number}\n")).collect();
        assert_eq!(list(&format!("{few}{many}")), ["local", "nowhere"]);
        // The exports of modules alone say nothing of the kernel's.
        let of_modules = many.replace('\n', "\t[drm]\n");
        assert_eq!(list(&format!("{few}{of_modules}")), [""; 0]);
    }
}
