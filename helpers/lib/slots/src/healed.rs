// SPDX-License-Identifier: MIT
//! The loaded driver's own libraries, found before those on disk: so new programs work while another driver is
//! installed and not loaded yet.
//!
//! No packaged file is touched. The libraries lie in a folder of ours, one file of the linker's configuration names
//! it, and the linker's cache, which `ldconfig` exchanges by a rename, is the switch. What is done is written down
//! before it is done, so that a power cut at any moment leaves what [`end`] can undo.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use files::{check_owner, replace_synced};
use serde::{Deserialize, Serialize};
use step::Root;

use crate::manifest::Entry;
use crate::{HEALED, Slot, linker, place, store};

/// What is written down.
const STATE: &str = "/var/lib/nvidia-reload/healed.json";

/// The linker's configuration: the first of its folder, so what it names is found first.
const LINKER: &str = "/etc/ld.so.conf.d/00-nvidia-reload.conf";

/// The format of [`STATE`].
const SCHEMA: &str = "nvidia-reload.healed/1";

/// The folder of [`HEALED`] for CDI specifications.
const CDI: &str = "cdi";

/// Libraries that every program needs which uses CUDA, or NVML.
const NEEDED: [&str; 2] = ["libcuda.so.", "libnvidia-ml.so."];

/// A driver whose libraries are found before those on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Healed {
    /// `nvidia-reload.healed/1`.
    pub schema: String,
    /// Its version, which is the loaded driver's.
    pub version: String,
    /// The version of the libraries that were found before.
    pub instead_of: Option<String>,
    /// When, in microseconds since 1970.
    pub made_usec: u64,
    /// Files of firmware that were put beside that of the driver on disk.
    pub firmware: Vec<String>,
    /// CDI specifications that are written again for these libraries; what they were lies in a folder of [`HEALED`],
    /// by their place in this list.
    #[serde(default)]
    pub cdi: Vec<String>,
}

impl Healed {
    /// What is written down; none where nothing is healed.
    ///
    /// # Errors
    /// It cannot be read, or others than root can write to it.
    pub fn read(root: &Root) -> Result<Option<Self>> {
        let path = root.path(STATE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        check_owner(&path)?;
        let healed: Self =
            serde_json::from_slice(&text).with_context(|| format!("understand {}", path.display()))?;
        if healed.schema != SCHEMA {
            bail!("{} is of the format {}, not {SCHEMA}", path.display(), healed.schema);
        }
        Ok(Some(healed))
    }

    fn write(&self, root: &Root) -> Result<()> {
        let path = root.path(STATE);
        replace_synced(&path, 0o644, &serde_json::to_vec(self)?)
            .with_context(|| format!("write {}", path.display()))
    }

    /// Saves what the CDI specifications `paths` are, before they are written again.
    ///
    /// # Errors
    /// They cannot be read or saved.
    pub fn save_cdi(&mut self, root: &Root, paths: Vec<String>) -> Result<()> {
        let folder = root.path(HEALED).join(CDI);
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        for (at, path) in paths.iter().enumerate() {
            let (from, to) = (root.path(path), folder.join(at.to_string()));
            fs::copy(&from, &to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
        }
        store::sync(&folder)?;
        self.cdi = paths;
        self.write(root)
    }
}

/// What the linker would be given of a slot.
#[derive(Debug, Default, PartialEq, Eq)]
struct Libraries {
    /// The folder and the name of each, with the file in the slot.
    files: BTreeMap<(&'static str, String), PathBuf>,
    /// Links in the same folders, with what they say.
    links: BTreeMap<(&'static str, String), String>,
}

/// Why the libraries of `slot` do not suffice for a program, if they do not.
///
/// # Errors
/// One of its files, or the linker's configuration, cannot be read.
pub fn lacks(root: &Root, slot: &Slot) -> Result<Option<String>> {
    let libraries = libraries(slot)?;
    let is_on_disk = linker::names(root)?;
    for start in NEEDED {
        let has = libraries.files.keys().any(|(_, name)| name.starts_with(start));
        // A machine that only draws has no CUDA.
        if !has && is_on_disk.iter().any(|name| name.starts_with(start)) {
            return Ok(Some(format!(
                "the slot of driver {} has no {start}*, and the driver on disk has",
                slot.manifest.version
            )));
        }
    }
    if libraries.files.is_empty() {
        return Ok(Some(format!("the slot of driver {} has no libraries", slot.manifest.version)));
    }
    Ok(None)
}

/// The libraries that carry the driver's version in their names, and the links to them by other names.
fn libraries(slot: &Slot) -> Result<Libraries> {
    let version = &slot.manifest.version;
    let (mut found, mut names) = (Libraries::default(), BTreeMap::new());
    for file in slot.manifest.regular() {
        let path = Path::new(&file.path);
        let name = name_of(path);
        if !name.starts_with("lib") || !linker::is_of(path, version) {
            continue;
        }
        let saved = slot.directory.join(file.stored_as());
        if let Some(folder) = folder(&saved)? {
            names.insert(path.to_owned(), (folder, name.clone()));
            found.files.insert((folder, name), saved);
        }
    }
    // A link leads to a library by way of others.
    let targets: BTreeMap<&Path, PathBuf> = slot
        .manifest
        .files
        .iter()
        .filter_map(|entry| match entry {
            Entry::Link(link) => {
                let path = Path::new(&link.path);
                Some((path, path.parent().unwrap_or(Path::new("/")).join(&link.target)))
            }
            Entry::File(_) => None,
        })
        .collect();
    for path in targets.keys().filter(|path| name_of(path).starts_with("lib")) {
        let mut at = path.to_path_buf();
        for _ in 0..targets.len() {
            match targets.get(at.as_path()) {
                Some(next) => at = plain(next),
                None => break,
            }
        }
        if let Some((folder, name)) = names.get(&at) {
            let link = (*folder, name_of(path));
            if !found.files.contains_key(&link) {
                found.links.insert(link, name.clone());
            }
        }
    }
    Ok(found)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Without `.` and `..`: what a manifest says has no links in its directories.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(plain.pop()),
            std::path::Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

/// The folder for a library, by its word size (EI_CLASS of elf(5)); none for what is no ELF file.
fn folder(path: &Path) -> Result<Option<&'static str>> {
    let mut head = [0; 5];
    let mut file = fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    if file.read_exact(&mut head).is_err() || head[..4] != *b"\x7fELF" {
        return Ok(None);
    }
    Ok(match head[4] {
        1 => Some("32"),
        2 => Some("64"),
        _ => None,
    })
}

/// Has the libraries of `slot`, which is whole, found before those on disk, `instead_of`; and puts firmware beside
/// that on disk, which a GPU reads when it is started again.
///
/// # Errors
/// Something cannot be written. What was done is written down: [`end`] undoes it.
pub fn heal(root: &Root, slot: &Slot, instead_of: Option<String>) -> Result<Healed> {
    let libraries = libraries(slot)?;
    let before = Healed::read(root)?.filter(|before| before.version == slot.manifest.version);
    if before.is_none() {
        // Another driver's, or half of it.
        end(root)?;
    }
    let (placed, cdi) = before.map_or_else(Default::default, |before| (before.firmware, before.cdi));
    let is_ours = |path: &String| placed.contains(path) || !root.path(path).exists();
    let firmware: Vec<String> = slot
        .manifest
        .regular()
        .map(|file| &file.path)
        .filter(|path| path.contains("/firmware/nvidia/") && is_ours(path))
        .cloned()
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let healed = Healed {
        schema: SCHEMA.to_owned(),
        version: slot.manifest.version.clone(),
        instead_of,
        made_usec: u64::try_from(now.as_micros()).unwrap_or(u64::MAX),
        firmware,
        cdi,
    };
    healed.write(root)?;
    let folders = put(root, &libraries)?;
    for file in slot.manifest.regular().filter(|file| healed.firmware.contains(&file.path)) {
        place::put_file(root, slot, file)?;
    }
    // The libraries before what names them.
    store::sync(&root.path(HEALED))?;
    let text: String = folders.iter().map(|folder| format!("{HEALED}/{folder}\n")).collect();
    let text = format!(
        "# Libraries of NVIDIA driver {}, which is loaded, instead of those of the driver that is\n# installed. Made by `nvidia-reload heal`, ended by `nvidia-reload heal --end` or the next reload.\n{text}",
        healed.version
    );
    let conf = root.path(LINKER);
    replace_synced(&conf, 0o644, text.as_bytes()).with_context(|| format!("write {}", conf.display()))?;
    index(root)?;
    Ok(healed)
}

/// Puts the libraries into our folder. Which folders there are then.
fn put(root: &Root, libraries: &Libraries) -> Result<BTreeSet<&'static str>> {
    let base = root.path(HEALED);
    let mut folders = BTreeSet::new();
    for ((folder, name), saved) in &libraries.files {
        if folders.insert(*folder) {
            let folder = base.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let to = base.join(folder).join(name);
        place::remove(&to)?;
        // Only root writes to either; what is pruned meanwhile stays here.
        fs::hard_link(saved, &to).with_context(|| format!("link {} to {}", saved.display(), to.display()))?;
    }
    for ((folder, name), target) in &libraries.links {
        let link = base.join(folder).join(name);
        place::remove(&link)?;
        std::os::unix::fs::symlink(target, &link).with_context(|| format!("link {}", link.display()))?;
    }
    Ok(folders)
}

fn index(root: &Root) -> Result<()> {
    // Below another root there are no libraries for this machine's linker.
    if root.is_system() { place::run("ldconfig", &[]) } else { Ok(()) }
}

/// Has the libraries on disk found again. Whether anything was healed.
///
/// # Errors
/// Something cannot be removed, or the linker's cache not be made: then it is still written down, and the same again
/// goes on.
pub fn end(root: &Root) -> Result<bool> {
    // What is written may be half of it, or not be there: the linker's file alone counts, too.
    let healed = Healed::read(root);
    let conf = root.path(LINKER);
    let is_named = place::remove(&conf)?;
    let is_written = !matches!(healed, Ok(None));
    if !is_named && !is_written {
        return Ok(false);
    }
    // While the cache names them the libraries stay.
    index(root)?;
    let mut problems = Vec::new();
    if let Ok(Some(healed)) = &healed {
        for path in &healed.firmware {
            if let Err(error) = take_firmware(root, path, &healed.version) {
                problems.push(format!("{error:#}"));
            }
        }
        for (at, path) in healed.cdi.iter().enumerate() {
            if let Err(error) = put_cdi_back(root, path, at) {
                problems.push(format!("{error:#}"));
            }
        }
    }
    // What specifications were stays until it is back.
    if !problems.is_empty() {
        bail!("{}", problems.join("; "));
    }
    clear(root)?;
    place::remove(&root.path(STATE))?;
    Ok(true)
}

/// Removes a file of firmware that was put there, and its folder where that is empty then. A name that is none of
/// that driver's firmware is not touched.
fn take_firmware(root: &Root, path: &str, version: &str) -> Result<()> {
    let folder = Path::new(path).parent().unwrap_or(Path::new("/"));
    if plain(Path::new(path)) != Path::new(path)
        || !folder.ends_with(Path::new("firmware/nvidia").join(version))
    {
        return Ok(());
    }
    place::remove(&root.path(path))?;
    match fs::remove_dir(root.path(folder)) {
        Err(error) if !matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound) => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// A specification that names our folder would be good for no container: it becomes what it was. Another has been
/// written again by somebody since.
fn put_cdi_back(root: &Root, path: &str, at: usize) -> Result<()> {
    let (place, saved) = (root.path(path), root.path(HEALED).join(CDI).join(at.to_string()));
    let act = || format!("put {path} back as it was");
    match fs::read_to_string(&place) {
        Ok(text) if text.contains(HEALED) => {}
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(act),
    }
    let text = fs::read(&saved).with_context(act)?;
    // Through a link: the engine reads what it leads to.
    let place = fs::canonicalize(&place).with_context(act)?;
    let mode = fs::metadata(&place).with_context(act)?.permissions().mode();
    replace_synced(&place, mode & 0o777, &text).with_context(act)
}

fn clear(root: &Root) -> Result<()> {
    let base = root.path(HEALED);
    match fs::remove_dir_all(&base) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", base.display()))
        }
        _ => Ok(()),
    }
}
