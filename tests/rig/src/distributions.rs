// SPDX-License-Identifier: MIT
//! What the packages have to run on, by the table in `tests/packages`: whether the programs that were built, and the
//! units, ask for no more than the oldest of those distributions has.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use object::elf;
use object::read::elf::{Dyn, ElfFile64};
use serde::Deserialize;

use crate::cache::{Cache, files_under};
use crate::command::output_of;
use crate::stages::checkout;

/// The libraries that a program may ask for, and whose they are.
const LIBRARIES: &[(&str, Of)] = &[
    ("libc.so.6", Of::Glibc),
    ("libm.so.6", Of::Glibc),
    ("ld-linux-x86-64.so.2", Of::Glibc),
    ("ld-linux-aarch64.so.1", Of::Glibc),
    ("libgcc_s.so.1", Of::Libgcc),
    ("libkmod.so.2", Of::Libkmod),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Glibc,
    Libgcc,
    Libkmod,
}

/// `distributions.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    distribution: Vec<Distribution>,
}

/// A distribution, with what is said of each there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(not(test), allow(dead_code, reason = "the tests look at all of it"))]
struct Distribution {
    name: String,
    package: String,
    glibc: String,
    libkmod: u32,
    libgcc: u32,
    systemd: u32,
    seen: String,
    source: String,
}

/// What a program needs of a library: a version of its symbols; none where the library is all.
type Need = (String, Option<String>);

/// Whether each program of the Debian package, which the rpm has as well, starts on each distribution of the table;
/// the error names those that do not, and what is not of this machine (`elf::EM_…`).
pub fn check(cache: &Cache, package: &Path, machine: elf::Machine) -> Result<()> {
    let table = table()?;
    let scratch = cache.scratch()?;
    output_of(Command::new("dpkg-deb").arg("--extract").arg(package).arg(scratch.path()))?;
    let mut lacks = BTreeSet::new();
    let mut programs = 0;
    for folder in ["usr/sbin", "usr/libexec/nvidia-reload"] {
        for path in files_under(&scratch.path().join(folder))? {
            let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            if !content.starts_with(b"\x7fELF") {
                continue;
            }
            programs += 1;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            lacks.extend(unfit(&content, machine)?.map(|why| format!("{name} {why}")));
            let needs = needs(&content).with_context(|| format!("cannot read {name}"))?;
            for distribution in &table.distribution {
                let missing = needs.iter().filter_map(|need| lack(need, distribution));
                lacks.extend(
                    missing.map(|lack| format!("{name} does not start on {}: {lack}", distribution.name)),
                );
            }
        }
    }
    if programs == 0 {
        bail!("{} has no programs", package.display());
    }
    if !lacks.is_empty() {
        bail!("{}", lacks.into_iter().collect::<Vec<_>>().join("\n"));
    }
    Ok(())
}

fn table() -> Result<Table> {
    let path = checkout().join("tests/packages/distributions.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is no table", path.display()))
}

/// Why the kernel of such a machine does not start an ELF file.
fn unfit(content: &[u8], machine: elf::Machine) -> Result<Option<String>> {
    let file = ElfFile64::<object::Endianness>::parse(content)?;
    let endian = file.endian();
    let its = file.elf_header().e_machine.get(endian);
    if its != machine {
        return Ok(Some(format!("is of machine {}, and not of {} (e_machine)", its.0, machine.0)));
    }
    // Kernels of arm64 may have pages of 64 KiB, as those for Grace do.
    let page = if machine == elf::EM_AARCH64 { 64 << 10 } else { 4 << 10 };
    let mut segments = file.elf_program_headers().iter().filter(|one| one.p_type.get(endian) == elf::PT_LOAD);
    let small = segments.find(|segment| segment.p_align.get(endian) % page != 0);
    Ok(small.map(|segment| {
        format!("is aligned to {} bytes, which is no page of {page}", segment.p_align.get(endian))
    }))
}

/// What an ELF file asks the dynamic linker for.
fn needs(content: &[u8]) -> Result<BTreeSet<Need>> {
    let file = ElfFile64::<object::Endianness>::parse(content)?;
    let endian = file.endian();
    let sections = file.elf_section_table();
    let mut found = BTreeSet::new();
    let (dynamic, link) = sections.dynamic(endian, content)?.context("it is not dynamically linked")?;
    let strings = sections.strings(endian, content, link)?;
    for entry in dynamic.iter().filter(|entry| entry.tag(endian) == elf::DT_NEEDED) {
        found.insert((text(entry.string(endian, strings)?)?, None));
    }
    if let Some((mut libraries, link)) = sections.gnu_verneed(endian, content)? {
        let strings = sections.strings(endian, content, link)?;
        while let Some((library, mut versions)) = libraries.next()? {
            let name = text(library.file(endian, strings)?)?;
            while let Some(version) = versions.next()? {
                found.insert((name.clone(), Some(text(version.name(endian, strings)?)?)));
            }
        }
    }
    Ok(found)
}

fn text(bytes: &[u8]) -> Result<String> {
    Ok(std::str::from_utf8(bytes).context("a name is not UTF-8")?.to_owned())
}

/// What of that a distribution does not have.
fn lack((library, version): &Need, distribution: &Distribution) -> Option<String> {
    let Some((_, of)) = LIBRARIES.iter().find(|(name, _)| name == library) else {
        return Some(format!("{library} is not among the libraries that each distribution has"));
    };
    let version = version.as_deref()?;
    let (start, has) = match of {
        Of::Glibc => ("GLIBC_", distribution.glibc.clone()),
        Of::Libgcc => ("GCC_", distribution.libgcc.to_string()),
        Of::Libkmod => ("LIBKMOD_", distribution.libkmod.to_string()),
    };
    // GLIBC_PRIVATE and GLIBC_ABI_… are no numbers: nothing tells who has them.
    let wanted = version.strip_prefix(start).and_then(numbers);
    match (wanted, numbers(&has)) {
        (Some(wanted), Some(has)) if wanted <= has => None,
        _ => Some(format!("it needs {version} of {library}, which is of version {has} there")),
    }
}

/// A version as numbers, to be compared.
fn numbers(version: &str) -> Option<Vec<u32>> {
    version.split('.').map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// `directives.toml`.
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Directives {
        directives: BTreeMap<String, u32>,
        newer: BTreeMap<String, String>,
    }

    fn read(path: &str) -> String {
        fs::read_to_string(checkout().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn oldest_systemd() -> u32 {
        let systemd = table().expect("a table").distribution.iter().map(|row| row.systemd).min();
        systemd.expect("a distribution")
    }

    /// The directives in a unit or drop-in.
    fn directives(unit: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut continued = false;
        for line in unit.lines() {
            if !continued
                && !line.starts_with(['#', ';', '['])
                && let Some((name, _)) = line.split_once('=')
            {
                found.insert(name.trim().to_owned());
            }
            continued = line.ends_with('\\');
        }
        found
    }

    fn used() -> BTreeSet<String> {
        let files: Vec<_> = ["units", "targets"]
            .iter()
            .flat_map(|folder| files_under(&checkout().join(folder)).expect("lists"))
            .filter(|path| {
                let of = path.extension().unwrap_or_default().to_string_lossy().into_owned();
                matches!(of.as_str(), "service" | "target" | "conf")
            })
            .collect();
        assert!(files.len() > 30, "{files:?}");
        files.iter().flat_map(|path| directives(&fs::read_to_string(path).expect("reads"))).collect()
    }

    #[test]
    fn the_oldest_systemd_knows_each_directive() {
        let table: Directives = toml::from_str(&read("tests/packages/directives.toml")).expect("a table");
        let used = used();
        let listed: BTreeSet<String> = table.directives.keys().cloned().collect();
        assert_eq!(used, listed, "on the left what the units use");
        let oldest = oldest_systemd();
        let newer: BTreeSet<_> = table.directives.iter().filter(|(_, since)| **since > oldest).collect();
        let excused: BTreeSet<_> = table.newer.keys().collect();
        let names: BTreeSet<_> = newer.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, excused, "on the left what systemd {oldest} does not know: {newer:?}");
        assert!(table.newer.values().all(|reason| !reason.is_empty()));
    }

    #[test]
    fn what_a_directive_looks_like() {
        let unit = "[Unit]\n# Not=this\n;Nor=this\nAfter=a \\\n  B=c\n[Service]\nExecStart=/bin/x --y=z\n";
        assert_eq!(directives(unit), ["After", "ExecStart"].map(str::to_owned).into());
    }

    #[test]
    fn each_distribution_is_described() {
        let table = table().expect("a table");
        for row in &table.distribution {
            assert!(numbers(&row.glibc).is_some(), "{row:?}");
            assert!(["deb", "rpm"].contains(&row.package.as_str()), "{row:?}");
            assert!(["rig", "no"].contains(&row.seen.as_str()) && !row.source.is_empty(), "{row:?}");
        }
        let packages: BTreeSet<&str> = table.distribution.iter().map(|row| row.package.as_str()).collect();
        assert_eq!(packages.len(), 2);
    }

    #[test]
    fn a_program_that_asks_for_more_is_found() {
        // Cargo has built this for this host.
        let mut program = fs::read(std::env::current_exe().expect("has a name")).expect("reads");
        let needs = needs(&program).expect("is ELF");
        assert!(needs.contains(&("libc.so.6".to_owned(), None)), "{needs:?}");
        assert_eq!(unfit(&program, elf::EM_X86_64).expect("is ELF"), None);
        let unfit = |program: &[u8]| unfit(program, elf::EM_AARCH64).expect("is ELF").unwrap_or_default();
        assert!(unfit(&program).contains("machine 62, and not of 183"), "{}", unfit(&program));
        // Said to be of arm64: aligned to pages of 4 KiB.
        program[18..20].copy_from_slice(&elf::EM_AARCH64.0.to_le_bytes());
        assert!(unfit(&program).contains("4096"), "{}", unfit(&program));
        let mut row = table().expect("a table").distribution.swap_remove(0);
        row.glibc = "2.2".to_owned();
        assert!(needs.iter().any(|need| lack(need, &row).is_some()), "{needs:?}");
        row.glibc = "2.34".to_owned();
        let lack = |library: &str, version: &str| lack(&(library.to_owned(), Some(version.to_owned())), &row);
        assert_eq!(lack("libc.so.6", "GLIBC_2.34"), None);
        assert_eq!(lack("libc.so.6", "GLIBC_2.4"), None);
        assert!(lack("libc.so.6", "GLIBC_2.35").is_some_and(|lack| lack.contains("2.35")));
        assert!(lack("libc.so.6", "GLIBC_PRIVATE").is_some() && lack("libz.so.1", "ZLIB_1.2").is_some());
    }

    #[test]
    fn the_packages_say_the_same() {
        let version = env!("CARGO_PKG_VERSION");
        let spec = read("rpm/nvidia-reload.spec");
        let field = |name: &str| {
            let line = spec.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_else(|| panic!("no {name}")).trim().to_owned()
        };
        assert_eq!(field("Version"), version);
        assert!(spec.contains(&format!("> - {version}-{}\n", field("Release"))), "the spec's changelog");
        assert!(read("debian/changelog").starts_with(&format!("nvidia-reload ({version})")));
        let oldest = oldest_systemd();
        assert!(spec.contains(&format!("systemd >= {oldest}\n")), "the spec asks for another systemd");
        assert!(read("debian/control").contains(&format!("systemd (>= {oldest})")));
    }
}
