//! What the initramfs of the running kernel holds of the driver, as it was seen last.
//!
//! Modules in there are loaded before the root file system is, so a copy that an upgrade left behind
//! brings the old driver back at the next boot. To read an archive takes seconds; so what is in it is
//! kept beside the file's own marks, and whoever wants to know reads that.

#![forbid(unsafe_code)]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use files::replace;
use modules::Disk;
use serde::{Deserialize, Serialize};
use step::Root;

/// Where it is kept.
const PATH: &str = "/var/lib/nvidia-reload/initramfs.json";

/// The name and version of the JSON there.
const SCHEMA: &str = "nvidia-reload.initramfs/1";

/// A module of the driver in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// The name that it has once it is loaded.
    pub name: String,
    /// Its path in the archive.
    pub path: String,
    /// `modinfo -F version`.
    pub version: Option<String>,
    /// `modinfo -F srcversion`.
    pub srcversion: Option<String>,
}

/// The marks of a file: another one in its place has others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Marks {
    /// Those of the file `path`.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn of(path: &Path) -> Result<Self> {
        let found = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
        Ok(Self { inode: found.ino(), size: found.size(), changed: (found.ctime(), found.ctime_nsec()) })
    }
}

/// What an archive holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    schema: String,
    /// The archive.
    pub archive: PathBuf,
    marks: Marks,
    /// The driver's modules in it.
    pub modules: Vec<Packed>,
}

impl Seen {
    /// What was seen in `archive` when it had these marks.
    pub fn new(archive: PathBuf, marks: Marks, modules: Vec<Packed>) -> Self {
        Self { schema: SCHEMA.into(), archive, marks, modules }
    }

    /// The modules that are not the ones on disk.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn stale(&self, disk: &Disk) -> Result<Vec<Packed>> {
        let mut stale = Vec::new();
        for packed in &self.modules {
            let same =
                |file: modules::File| file.version == packed.version && file.srcversion == packed.srcversion;
            if !disk.find(&packed.name)?.is_some_and(same) {
                stale.push(packed.clone());
            }
        }
        Ok(stale)
    }

    /// Keeps it, for whoever asks until the archive changes.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&self, root: &Root) -> Result<()> {
        let path = root.path(PATH);
        let text = serde_json::to_vec_pretty(self).context("encode what the initramfs holds")?;
        replace(&path, 0o644, &text).with_context(|| format!("write {}", path.display()))
    }
}

/// What was seen last of `archive`; none where it was never looked at, or has changed since.
///
/// # Errors
/// The archive cannot be looked at.
pub fn seen(root: &Root, archive: &Path) -> Result<Option<Seen>> {
    let path = root.path(PATH);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    // What another version wrote is as good as nothing: it is looked at again.
    let Ok(seen) = serde_json::from_slice::<Seen>(&text) else { return Ok(None) };
    let fits = seen.schema == SCHEMA && seen.archive == archive && seen.marks == Marks::of(archive)?;
    Ok(fits.then_some(seen))
}

/// There while the initramfs is known to be in step with the disk: a condition of the unit that would look
/// into it.
pub const IN_STEP: &str = "/run/nvidia-reload/initramfs-in-step";

/// Notes whether the initramfs is known to be in step with `disk`.
///
/// # Errors
/// It cannot be told, and is not noted as known then; or the note cannot be written.
pub fn note(root: &Root, disk: &Disk) -> Result<()> {
    let note = root.path(IN_STEP);
    match fs::remove_file(&note) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", note.display()));
        }
        _ => {}
    }
    let in_step = match archive(root, &release()?)? {
        // It may be somewhere else, or the machine may have none: that is not known.
        None => false,
        Some(archive) => match seen(root, &archive)? {
            Some(seen) => seen.stale(disk)?.is_empty(),
            None => false,
        },
    };
    if in_step {
        fs::write(&note, "").with_context(|| format!("write {}", note.display()))?;
    }
    Ok(())
}

/// The running kernel's release.
///
/// # Errors
/// The kernel does not tell.
pub fn release() -> Result<String> {
    let name = nix::sys::utsname::uname().context("ask the kernel for its release")?;
    Ok(name.release().to_string_lossy().into_owned())
}

/// Where boot loaders read from, beside /boot: the EFI system partition.
const ESP: [&str; 3] = ["/boot/efi", "/efi", "/boot"];

/// The initramfs of the kernel `release`, where distributions put it; none where it is somewhere else,
/// as in a unified kernel image.
///
/// # Errors
/// It cannot be looked for.
pub fn archive(root: &Root, release: &str) -> Result<Option<PathBuf>> {
    let mut candidates = vec![
        // Debian and Ubuntu, of whichever tool.
        format!("/boot/initrd.img-{release}"),
        // Fedora and its relatives.
        format!("/boot/initramfs-{release}.img"),
        // openSUSE.
        format!("/boot/initrd-{release}"),
        // Images of ostree and bootc have it beside the modules.
        format!("/usr/lib/modules/{release}/initramfs.img"),
    ];
    // Arch and its relatives name it by the kernel's package.
    let package = fs::read_to_string(root.path(format!("/usr/lib/modules/{release}/pkgbase")));
    candidates.extend(package.map(|package| format!("/boot/initramfs-{}.img", package.trim())));
    for path in candidates.iter().map(|path| root.path(path)) {
        if path.try_exists().with_context(|| format!("look for {}", path.display()))? {
            return Ok(Some(path));
        }
    }
    // The Boot Loader Specification: a folder for the machine or the distribution, in it one for the kernel.
    for partition in ESP {
        for entry in listed(&root.path(partition))? {
            let inside = listed(&entry.join(release))?;
            let is_one = |path: &&PathBuf| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("initrd"))
            };
            if let Some(found) = inside.iter().find(is_one) {
                return Ok(Some(found.clone()));
            }
        }
    }
    Ok(None)
}

/// Why it is not known what the next boot loads, where [`archive`] finds nothing.
///
/// # Errors
/// It cannot be looked for.
pub fn not_found(root: &Root, release: &str) -> Result<String> {
    let mut image = None;
    for partition in ESP {
        let images = listed(&root.path(partition).join("EFI/Linux"))?;
        image = image.or(images.into_iter().find(|path| path.extension().is_some_and(|kind| kind == "efi")));
    }
    let where_ = match image {
        Some(image) => format!("; unified kernel images such as {} are not read", image.display()),
        None => String::new(),
    };
    Ok(format!(
        "no initramfs of kernel {release} was found{where_}: it is not known whether the next boot loads the driver that is on disk"
    ))
}

/// What is in a directory, in the order of the names; nothing where there is none.
fn listed(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error).with_context(|| format!("read {}", directory.display())),
    };
    let mut found = Vec::new();
    for entry in entries {
        found.push(entry.with_context(|| format!("read {}", directory.display()))?.path());
    }
    found.sort();
    Ok(found)
}

/// The command that makes `archive` anew, as a program and its arguments; none where no tool is known.
pub fn maker(root: &Root, archive: &Path, release: &str) -> Option<Vec<String>> {
    let words = |words: &[&str]| Some(words.iter().map(|&word| word.to_owned()).collect());
    // Debian's dracut has it too.
    if root.path("/usr/sbin/update-initramfs").exists() {
        return words(&["update-initramfs", "-u", "-k", release]);
    }
    if root.path("/usr/bin/dracut").exists() {
        return words(&["dracut", "--force", &archive.to_string_lossy(), release]);
    }
    if root.path("/usr/bin/mkinitcpio").exists() {
        return words(&["mkinitcpio", "-P"]);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_not_noted_as_in_step() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let release = release().expect("runs");
        for path in ["/boot", "/var/lib/nvidia-reload", "/run/nvidia-reload"] {
            fs::create_dir_all(root.path(path)).expect("creates");
        }
        let disk = Disk::open(&root).expect("opens");
        let noted = || {
            note(&root, &disk).expect("notes");
            root.path(IN_STEP).exists()
        };
        assert!(!noted(), "none was found");
        let archive = root.path("/boot").join(format!("initrd.img-{release}"));
        fs::write(&archive, "a").expect("writes");
        assert!(!noted(), "nobody has looked into it");
        let seen = |modules| Seen::new(archive.clone(), Marks::of(&archive).expect("looks"), modules);
        seen(Vec::new()).keep(&root).expect("writes");
        assert!(noted(), "it holds nothing of the driver");
        let packed =
            Packed { name: "nvidia".into(), path: "a".into(), version: Some("1".into()), srcversion: None };
        seen(vec![packed]).keep(&root).expect("writes");
        assert!(!noted(), "the disk has no such module");
    }

    #[test]
    fn it_is_found_where_distributions_put_it() {
        for path in [
            "/boot/initrd.img-6.1",
            "/boot/initramfs-6.1.img",
            "/boot/initrd-6.1",
            "/usr/lib/modules/6.1/initramfs.img",
            "/boot/initramfs-linux-lts.img",
            "/boot/0123456789abcdef0123456789abcdef/6.1/initrd",
            "/boot/efi/0123456789abcdef0123456789abcdef/6.1/initrd",
            "/boot/efi/opensuse-tumbleweed/6.1/initrd-0a1b2c",
            "/efi/fedora/6.1/initrd",
        ] {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let root = Root::at(directory.path());
            let put = |path: &str, text: &str| {
                let path = root.path(path);
                fs::create_dir_all(path.parent().expect("has a parent")).expect("creates");
                fs::write(path, text).expect("writes");
            };
            put("/usr/lib/modules/6.1/pkgbase", "linux-lts\n");
            put("/boot/vmlinuz-6.1", "");
            // Of another kernel.
            put("/boot/initrd.img-6.2", "");
            put("/efi/fedora/6.2/initrd", "");
            assert_eq!(archive(&root, "6.1").expect("looks"), None, "{path}");
            put(path, "");
            assert_eq!(archive(&root, "6.1").expect("looks"), Some(root.path(path)));
        }
    }

    #[test]
    fn what_is_not_found_is_said() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let said = || not_found(&root, "6.1").expect("looks");
        assert!(said().starts_with("no initramfs of kernel 6.1 was found: it is not known"), "{}", said());
        fs::create_dir_all(root.path("/boot/efi/EFI/Linux")).expect("creates");
        fs::write(root.path("/boot/efi/EFI/Linux/arch-6.1.efi"), "").expect("writes");
        assert!(said().contains("/boot/efi/EFI/Linux/arch-6.1.efi are not read"), "{}", said());
    }

    #[test]
    fn what_was_seen_holds_until_the_archive_changes() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        for path in ["/boot", "/var/lib/nvidia-reload", "/usr/sbin"] {
            fs::create_dir_all(root.path(path)).expect("creates");
        }
        assert_eq!(archive(&root, "6.1").expect("looks"), None);
        fs::write(root.path("/boot/initrd.img-6.1"), "a").expect("writes");
        let path = archive(&root, "6.1").expect("looks").expect("is there");
        assert_eq!(seen(&root, &path).expect("reads"), None);
        let first = Seen::new(path.clone(), Marks::of(&path).expect("looks"), Vec::new());
        first.keep(&root).expect("writes");
        assert_eq!(seen(&root, &path).expect("reads"), Some(first));
        fs::write(&path, "ab").expect("writes");
        assert_eq!(seen(&root, &path).expect("reads"), None);
        assert_eq!(maker(&root, &path, "6.1"), None);
        fs::write(root.path("/usr/sbin/update-initramfs"), "").expect("writes");
        assert_eq!(maker(&root, &path, "6.1").expect("knows"), ["update-initramfs", "-u", "-k", "6.1"]);
    }
}
