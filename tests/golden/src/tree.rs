// SPDX-License-Identifier: MIT
//! From the folder of a case to the files of a machine: module files and indexes as kmod reads them, from
//! the text that stands for them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

use crate::{Form, packed, unified};

/// Makes the machine of `case` in `to`.
pub(crate) fn make(case: &Path, to: &Path) {
    for entry in fs::read_dir(case).expect("reads a folder of a case") {
        let entry = entry.expect("reads an entry");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let name = entry.file_name().into_string().expect("names are UTF-8");
        let kind = entry.file_type().expect("has a type");
        if kind.is_symlink() {
            symlink(fs::read_link(&from).expect("reads a link"), &to).expect("makes a link");
        } else if kind.is_dir() {
            fs::create_dir(&to).expect("makes a folder");
            make(&from, &to);
        } else {
            let text = fs::read_to_string(&from).expect("reads a file");
            match name.as_str() {
                "modules.dep" => indexes(to.parent().expect("has a parent"), &text),
                ".note.gnu.build-id" => fs::write(&to, note(text.trim())).expect("writes a note"),
                _ if name.ends_with(".efi") => {
                    fs::write(&to, unified(text.trim(), b"")).expect("writes an image");
                }
                _ if name.contains(".ko") => {
                    fs::write(&to, module_file(&name, &text)).expect("writes a module");
                }
                _ => fs::write(&to, text).expect("writes a file"),
            }
        }
    }
}

/// A module file of which `text` has a line for each field of `modinfo`, and of the symbols.
fn module_file(name: &str, text: &str) -> Vec<u8> {
    if text.is_empty() {
        return Vec::new();
    }
    let (mut modinfo, mut versions) = (Vec::new(), Vec::new());
    let architecture = match cfg!(target_arch = "aarch64") {
        true => Architecture::Aarch64,
        false => Architecture::X86_64,
    };
    let mut elf = Object::new(BinaryFormat::Elf, architecture, Endianness::Little);
    let mut is_cut = false;
    for line in text.lines() {
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{name}: {line}"));
        match key {
            "needs" | "exports" => {
                let (symbol, crc) = value.split_once(' ').expect("a symbol has its version");
                let crc: u64 = crc.parse().expect("a version is a number");
                if key == "needs" {
                    versions.extend(crc.to_le_bytes());
                    versions.extend(symbol.bytes().chain([0; 56]).take(56));
                } else {
                    add_symbol(&mut elf, &format!("__crc_{symbol}"), crc, SymbolSection::Absolute);
                }
            }
            "build-id" => {
                let note = note(value);
                let id = elf.add_section(Vec::new(), b".note.gnu.build-id".to_vec(), SectionKind::Note);
                elf.append_section_data(id, &note, 4);
            }
            "cut" => is_cut = value == "half",
            _ => modinfo.extend(line.bytes().chain([0])),
        }
    }
    for (section, data) in [(".modinfo", modinfo), ("__versions", versions)] {
        if !data.is_empty() {
            let kind = SectionKind::ReadOnlyData;
            let id = elf.add_section(Vec::new(), section.as_bytes().to_vec(), kind);
            elf.append_section_data(id, &data, 8);
        }
    }
    let elf = elf.write().expect("writes ELF");
    let mut file = match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("xz") => packed(Form::Xz, &elf),
        Some("zst") => packed(Form::Zstd, &elf),
        Some("gz") => packed(Form::Gzip, &elf),
        _ => elf,
    };
    if is_cut {
        file.truncate(file.len() / 2);
    }
    file
}

fn add_symbol(elf: &mut Object<'_>, name: &str, value: u64, section: SymbolSection) {
    elf.add_symbol(Symbol {
        name: name.as_bytes().to_vec(),
        value,
        size: 0,
        kind: SymbolKind::Data,
        scope: SymbolScope::Linkage,
        weak: false,
        section,
        flags: SymbolFlags::None,
    });
}

/// A note of ELF with a build id of these hexadecimal digits.
fn note(digits: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("a build id is hexadecimal");
    let id: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
    let header = [4, id.len() as u32, 3];
    header.into_iter().flat_map(u32::to_ne_bytes).chain(*b"GNU\0").chain(id).collect()
}

/// What depmod makes of its list in text: libkmod reads only that.
fn indexes(directory: &Path, list: &str) {
    fs::write(directory.join("modules.dep"), list).expect("writes a list");
    let mut modules = BTreeMap::new();
    for line in list.lines() {
        let (path, _) = line.split_once(':').expect("a file and what it needs");
        let (_, file) = path.rsplit_once('/').unwrap_or(("", path));
        let (name, _) = file.split_once(".ko").expect("a module file");
        modules.insert(name.replace('-', "_").into_bytes(), line.to_owned());
    }
    fs::write(directory.join("modules.dep.bin"), index(&modules)).expect("writes an index");
    for other in ["alias", "symbols", "builtin", "builtin.alias"] {
        let path = directory.join(format!("modules.{other}.bin"));
        fs::write(path, index(&BTreeMap::new())).expect("writes an index");
    }
}

/// An index of kmod (libkmod-index.h): a tree of letters, whose leaves have the values.
fn index(values: &BTreeMap<Vec<u8>, String>) -> Vec<u8> {
    let mut bytes = [0xb007_f457_u32, 0x0002_0001, 0].into_iter().flat_map(u32::to_be_bytes).collect();
    let root = node(&mut bytes, values);
    bytes[8..12].copy_from_slice(&root.to_be_bytes());
    bytes
}

/// Writes the node that has `values` below it. Returns where it is, with the flags of what it has.
fn node(bytes: &mut Vec<u8>, values: &BTreeMap<Vec<u8>, String>) -> u32 {
    const CHILDREN: u32 = 0x2000_0000;
    const VALUES: u32 = 0x4000_0000;
    let mut below: BTreeMap<u8, BTreeMap<Vec<u8>, String>> = BTreeMap::new();
    for (name, value) in values {
        if let Some((first, rest)) = name.split_first() {
            below.entry(*first).or_default().insert(rest.to_vec(), value.clone());
        }
    }
    let children: BTreeMap<u8, u32> =
        below.iter().map(|(letter, values)| (*letter, node(bytes, values))).collect();
    let mut at = bytes.len() as u32;
    if let (Some((first, _)), Some((last, _))) = (children.first_key_value(), children.last_key_value()) {
        at |= CHILDREN;
        bytes.extend([*first, *last]);
        for letter in *first..=*last {
            bytes.extend(children.get(&letter).copied().unwrap_or(0).to_be_bytes());
        }
    }
    if let Some(value) = values.get(&Vec::new()) {
        at |= VALUES;
        bytes.extend(1u32.to_be_bytes());
        bytes.extend(0u32.to_be_bytes());
        bytes.extend(value.bytes().chain([0]));
    }
    at
}
