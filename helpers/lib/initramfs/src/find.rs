// SPDX-License-Identifier: MIT
//! Where the initramfs of a kernel is: each distribution and boot loader has its own place for it.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use step::Root;

use crate::unified;

/// Where boot loaders read from: /boot, and the EFI system partition.
const BOOT: [&str; 3] = ["/boot", "/boot/efi", "/efi"];

/// What is looked for, and which folders could not be looked into.
#[derive(Default)]
struct Search {
    found: BTreeSet<PathBuf>,
    denied: Option<anyhow::Error>,
}

/// All files from which a boot loader may load an initramfs of the kernel `release`: where there are several,
/// it is not known which one.
///
/// # Errors
/// A place cannot be looked at; for who is not root, only where nothing is found elsewhere.
pub fn archives(root: &Root, release: &str) -> Result<Vec<PathBuf>> {
    let mut search = Search::default();
    let modules = modules::directory(root, release);
    // Images of ostree and bootc have it beside the modules.
    search.add_file(modules.join("initramfs.img"))?;
    // Arch and its relatives name it by the kernel's package.
    let package = fs::read_to_string(modules.join("pkgbase")).unwrap_or_default();
    let names = [format!("initramfs-{}", package.trim()), format!("initrd-{}", package.trim())];
    for top in BOOT.map(|top| root.path(top)) {
        for path in search.list(&top)? {
            let stem = stem(&path);
            if is_of(&stem, release) || (!package.is_empty() && names.contains(&stem)) {
                search.add_file(path)?;
            } else {
                // The Boot Loader Specification: a folder for the machine or the distribution, in it one for
                // the kernel. Where each snapshot has its own there, the newest is booted.
                let inside = search.list(&path.join(release))?;
                let written = |path: &PathBuf| fs::metadata(path).and_then(|data| data.modified()).ok();
                search.found.extend(inside.into_iter().filter(|path| is_initrd(path)).max_by_key(written));
            }
        }
        for folder in search.list(&top.join("EFI"))? {
            for path in search.list(&folder.join(release))?.into_iter().chain(search.list(&folder)?) {
                let is_unified = path.extension().is_some_and(|kind| kind == "efi");
                if is_unified && unified::release(&path).is_some_and(|of| of == release) {
                    search.found.insert(path);
                } else if is_copy(&path) || is_of(&stem(&path), release) {
                    search.add_file(path)?;
                }
            }
        }
    }
    match search.denied {
        Some(denied) if search.found.is_empty() => Err(denied),
        _ => Ok(search.found.into_iter().collect()),
    }
}

impl Search {
    fn add_file(&mut self, path: PathBuf) -> Result<()> {
        match fs::metadata(&path) {
            Ok(data) if data.is_file() => {
                // The same partition may be seen under two names.
                if !self.found.iter().any(|known| is_same(known, &path)) {
                    self.found.insert(path);
                }
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) if is_nothing(error.kind()) => Ok(()),
            Err(error) => self.deny(error, &path),
        }
    }

    /// What is in a directory, in the order of the names; nothing where there is none.
    fn list(&mut self, directory: &Path) -> Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if is_nothing(error.kind()) => return Ok(Vec::new()),
            Err(error) => return self.deny(error, directory).map(|()| Vec::new()),
        };
        let mut found = Vec::new();
        for entry in entries {
            found.push(entry.with_context(|| format!("read {}", directory.display()))?.path());
        }
        found.sort();
        Ok(found)
    }

    fn deny(&mut self, error: std::io::Error, path: &Path) -> Result<()> {
        let is_denied = error.kind() == ErrorKind::PermissionDenied;
        let error = Err(error).with_context(|| format!("look for an initramfs in {}", path.display()));
        match error {
            Err(error) if is_denied => {
                self.denied.get_or_insert(error);
                Ok(())
            }
            other => other,
        }
    }
}

fn is_nothing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn is_same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.strip_suffix(".img").unwrap_or(&name).to_owned()
}

fn is_initrd(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("initrd") || name.starts_with("initramfs")
}

/// Whether a file of this name, without `.img`, is the initramfs of the kernel `release`, whatever a distribution
/// has between: `initrd.img-6.1`, `initramfs-genkernel-x86_64-6.1`. Not one for a crash, nor an old one.
fn is_of(stem: &str, release: &str) -> bool {
    let begins = stem.starts_with("initrd") || stem.starts_with("initramfs");
    begins && stem.strip_suffix(release).is_some_and(|rest| rest.ends_with(['-', '_', '.']))
}

/// Whether this is a copy for a boot loader that reads the EFI system partition only, which names no kernel:
/// that of the latest (Pop!_OS, and other tools that copy `/initrd.img` there).
fn is_copy(path: &Path) -> bool {
    matches!(path.file_name().and_then(|name| name.to_str()), Some("initrd.img" | "initrd"))
}

/// Why it is not known what the next boot loads, where [`archives`] finds nothing.
pub fn not_found(release: &str) -> String {
    format!(
        "no initramfs of kernel {release} was found: it is not known whether the next boot loads the driver that is on disk"
    )
}

/// The command that regenerates `archive`, as a program and its arguments; none where no tool is known, or where
/// only another image of the whole system has another.
pub fn maker(root: &Root, archive: &Path, release: &str) -> Option<Vec<String>> {
    let words = |words: &[&str]| Some(words.iter().map(|&word| word.to_owned()).collect());
    let has = |path: &str| root.path(path).exists();
    if archive.starts_with(modules::directory(root, release)) {
        return None;
    }
    // Debian's dracut has it too.
    if has("/usr/sbin/update-initramfs") {
        return words(&["update-initramfs", "-u", "-k", release]);
    }
    if has("/usr/bin/sdbootutil") && !archive.starts_with(root.path("/boot/initrd")) {
        return words(&["sdbootutil", "mkinitrd"]);
    }
    if has("/usr/bin/mkinitcpio") {
        return words(&["mkinitcpio", "-P"]);
    }
    // What is not named by the kernel in /boot has been put there for a boot loader.
    let is_plain = archive.parent() == Some(&root.path("/boot"));
    if has("/usr/bin/kernel-install") && !is_plain {
        let kernel = modules::directory(root, release).join("vmlinuz");
        return words(&["kernel-install", "add", release, &kernel.to_string_lossy()]);
    }
    if has("/usr/bin/dracut") {
        return words(&["dracut", "--force", &archive.to_string_lossy(), release]);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Root, path: &str, content: &[u8]) {
        let path = root.path(path);
        fs::create_dir_all(path.parent().expect("has a parent")).expect("creates");
        fs::write(path, content).expect("writes");
    }

    #[test]
    fn it_is_found_where_distributions_put_it() {
        for path in [
            "/boot/initrd.img-6.1",
            "/boot/initramfs-6.1.img",
            "/boot/initrd-6.1",
            "/boot/initramfs-genkernel-x86_64-6.1",
            "/boot/initramfs-x86_64-6.1.img",
            "/usr/lib/modules/6.1/initramfs.img",
            "/boot/initramfs-linux-lts.img",
            "/efi/initramfs-linux-lts.img",
            "/boot/0123456789abcdef0123456789abcdef/6.1/initrd",
            "/boot/efi/0123456789abcdef0123456789abcdef/6.1/initrd",
            "/boot/efi/opensuse-tumbleweed/6.1/initrd-0a1b2c",
            "/efi/fedora/6.1/initrd",
            "/boot/efi/EFI/Pop_OS-0123/initrd.img",
            "/efi/EFI/proxmox/6.1/initrd.img-6.1",
        ] {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let root = Root::at(directory.path());
            put(&root, "/usr/lib/modules/6.1/pkgbase", b"linux-lts\n");
            for other in [
                "/boot/vmlinuz-6.1",
                // Of another kernel, for a crash, what was before, and what a menu offers beside it.
                "/boot/initrd.img-6.2",
                "/boot/initrd.img-16.1",
                "/boot/initramfs-6.1.1.img",
                "/efi/fedora/6.2/initrd",
                "/boot/initramfs-6.1kdump.img",
                "/boot/initrd-6.1-kdump",
                "/boot/initrd.img-6.1.old-dkms",
                "/boot/initramfs-linux-lts-fallback.img",
                "/boot/efi/EFI/Pop_OS-0123/initrd.img-previous",
            ] {
                put(&root, other, b"");
            }
            assert_eq!(archives(&root, "6.1").expect("looks"), [""; 0].map(PathBuf::from), "{path}");
            put(&root, path, b"");
            assert_eq!(archives(&root, "6.1").expect("looks"), [root.path(path)]);
        }
    }

    #[test]
    fn a_unified_image_says_for_which_kernel_it_is() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        put(&root, "/efi/EFI/Linux/arch-linux.efi", &golden::unified("6.1", b"a"));
        put(&root, "/efi/EFI/Linux/other.efi", &golden::unified("6.2", b"a"));
        put(&root, "/efi/EFI/BOOT/BOOTX64.EFI", b"MZ");
        put(&root, "/efi/EFI/systemd/systemd-bootx64.efi", &golden::unified("", b""));
        assert_eq!(archives(&root, "6.1").expect("looks"), [root.path("/efi/EFI/Linux/arch-linux.efi")]);
    }

    #[test]
    fn of_several_for_one_kernel_the_newest_is_booted_and_all_places_count() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let (old, new) = ("/boot/efi/opensuse/6.1/initrd-2", "/boot/efi/opensuse/6.1/initrd-1");
        put(&root, old, b"");
        put(&root, new, b"");
        let file = fs::File::open(root.path(old)).expect("opens");
        file.set_modified(std::time::UNIX_EPOCH).expect("sets");
        put(&root, "/boot/initrd-6.1", b"");
        assert_eq!(
            archives(&root, "6.1").expect("looks"),
            [root.path("/boot/efi/opensuse/6.1/initrd-1"), root.path("/boot/initrd-6.1")]
        );
    }

    #[test]
    fn each_place_has_its_tool() {
        for (tools, archive, command) in [
            (
                &["/usr/sbin/update-initramfs", "/usr/bin/dracut"][..],
                "/boot/initrd.img-6.1",
                "update-initramfs -u -k 6.1",
            ),
            (
                &["/usr/bin/dracut", "/usr/bin/kernel-install"],
                "/boot/initramfs-6.1.img",
                "dracut --force /boot/initramfs-6.1.img 6.1",
            ),
            (
                &["/usr/bin/dracut", "/usr/bin/kernel-install"],
                "/efi/EFI/Linux/a.efi",
                "kernel-install add 6.1 /lib/modules/6.1/vmlinuz",
            ),
            (&["/usr/bin/mkinitcpio"], "/boot/initramfs-linux.img", "mkinitcpio -P"),
            (
                &["/usr/bin/dracut", "/usr/bin/sdbootutil"],
                "/boot/efi/opensuse/6.1/initrd-1",
                "sdbootutil mkinitrd",
            ),
            (&["/usr/bin/dracut"], "/lib/modules/6.1/initramfs.img", ""),
            (&[], "/boot/initrd.img-6.1", ""),
        ] {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let root = Root::at(directory.path());
            tools.iter().for_each(|tool| put(&root, tool, b""));
            let made = maker(&root, &root.path(archive), "6.1").unwrap_or_default().join(" ");
            assert_eq!(made.replace(&*directory.path().to_string_lossy(), ""), command, "{archive}");
        }
    }
}
