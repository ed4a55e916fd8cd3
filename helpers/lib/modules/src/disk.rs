// SPDX-License-Identifier: MIT
//! What is on disk for the running kernel: which file would be loaded for a module, and what it
//! declares of itself.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};
use step::Root;

use crate::declared::Declared;
use crate::gate;
use crate::kmod::{Kmod, KmodModule};
use crate::loaded::loaded;
use crate::{DRIVER, kernels, release};

/// Where modprobe looks for its configuration, first match first (modprobe.d(5)).
const CONFIGURATION: [&str; 5] = [
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
];

/// A module file and what it declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The name that the module has once it is loaded.
    pub name: String,
    /// The name that modprobe knows it by: Debian ships `nvidia` as `nvidia-current-open.ko`.
    pub alias: String,
    /// The file, compressed or not.
    pub path: PathBuf,
    /// `modinfo -F version`.
    pub version: Option<String>,
    /// `modinfo -F srcversion`.
    pub srcversion: Option<String>,
    /// `modinfo -F vermagic`.
    pub vermagic: Option<String>,
    /// The `options` lines for both names.
    pub options: String,
}

impl File {
    /// Whether this file is the very module that `loaded` was loaded from.
    pub fn is(&self, loaded: &ledger::Module) -> bool {
        self.name == loaded.name && self.version == loaded.version && self.srcversion == loaded.srcversion
    }
}

/// Why a search for a module came to nothing: the file in which it ended, to be found in the error by
/// `downcast_ref`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable(
    /// The file.
    pub PathBuf,
);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read what {} declares", self.0.display())
    }
}

/// The module files of the running kernel and the modprobe.d configuration, as if the gate were
/// open.
///
/// It is one look: what was read once is not read again. Who changes the disk, or waits for that,
/// opens another.
pub struct Disk {
    kmod: Kmod,
    directory: PathBuf,
    candidates: OnceCell<Vec<(String, PathBuf)>>,
    /// By path, since a renamed module can only be found by looking into all of the driver's files.
    files: RefCell<HashMap<PathBuf, File>>,
    /// Whether all of a file is taken in as soon as it is opened.
    thorough: bool,
    declared: RefCell<HashMap<PathBuf, Rc<Declared>>>,
}

impl Disk {
    /// Looks at the folder of the running kernel, mostly in `/lib/modules`.
    ///
    /// # Errors
    /// The kernel's release or the configuration cannot be read.
    pub fn open(root: &Root) -> Result<Self> {
        Self::of_kernel(root, &release(root)?)
    }

    /// Looks at the folder of the kernel `release`.
    pub(crate) fn of_kernel(root: &Root, release: &str) -> Result<Self> {
        let directory = kernels::directory(root, release);
        Ok(Self {
            kmod: Kmod::new(&directory, &configuration(root)?)?,
            directory,
            candidates: OnceCell::new(),
            files: RefCell::default(),
            thorough: false,
            declared: RefCell::default(),
        })
    }

    /// The same, with all that the files declare: a compressed file is unpacked once.
    ///
    /// # Errors
    /// As [`Disk::open`].
    pub fn open_thoroughly(root: &Root) -> Result<Self> {
        Ok(Self { thorough: true, ..Self::open(root)? })
    }

    /// The modules of the running kernel.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// All that the file `path` declares.
    ///
    /// # Errors
    /// The file cannot be read or is no module.
    pub fn declared(&self, path: &Path) -> Result<Rc<Declared>> {
        let known = self.declared.borrow().get(path).cloned();
        match known {
            Some(known) => Ok(known),
            None => {
                let module = self.kmod.by_path(path)?;
                let info = module.info().with_context(|| Unreadable(path.to_owned()))?;
                self.take_in(&module, path, &info)
            }
        }
    }

    /// Whether the index has a module that exports the symbol `name`.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn exports(&self, name: &str) -> Result<bool> {
        self.kmod.exports(name)
    }

    /// The file that the index has for module `name`, if there is one.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn indexed(&self, name: &str) -> Result<Option<PathBuf>> {
        Ok(self.kmod.by_name(name)?.path())
    }

    /// The file that would serve as module `name`; none when there is none for this kernel.
    ///
    /// # Errors
    /// A file is there and cannot be read, or the module index cannot.
    pub fn find(&self, name: &str) -> Result<Option<File>> {
        let module = self.kmod.by_name(name)?;
        // An `install` line that names one of the renamed files decides, as it would for modprobe.
        if let Some(command) = module.install_command() {
            for file in self.renamed(name)? {
                if command.split_whitespace().any(|word| underscored(word) == file.alias) {
                    return Ok(Some(file));
                }
            }
        }
        // Who removes a file may leave the index as it was.
        if let Some(path) = module.path().filter(|path| path.try_exists().unwrap_or(true)) {
            return self.file(&module, &path).map(Some);
        }
        Ok(self.renamed(name)?.into_iter().next())
    }

    /// What the file `path` declares; `alias` is the file's own name.
    ///
    /// # Errors
    /// The file cannot be read or is no module.
    pub fn inspect(&self, path: &Path) -> Result<File> {
        match self.known(path) {
            Some(file) => Ok(file),
            None => self.file(&self.kmod.by_path(path)?, path),
        }
    }

    /// All names under which the driver's modules could be loaded from this disk: for the gate.
    ///
    /// # Errors
    /// The module index cannot be read.
    pub fn names(&self) -> Result<BTreeSet<String>> {
        Ok(self.candidates()?.iter().map(|(alias, _)| alias.clone()).collect())
    }

    /// All module files whose names begin with the driver's, as far as they can be read, and those that
    /// cannot: an install that was cut off may leave files of zeros.
    ///
    /// # Errors
    /// The module index cannot be read.
    pub fn files(&self) -> Result<(Vec<File>, Vec<Unreadable>)> {
        let (mut found, mut unreadable) = (Vec::new(), Vec::new());
        for (_, path) in self.candidates()? {
            match self.inspect(path) {
                Ok(file) => found.push(file),
                Err(error) => unreadable.push(error.downcast::<Unreadable>()?),
            }
        }
        Ok((found, unreadable))
    }

    /// Whether the index has a file whose name begins with the driver's, and that is gone.
    ///
    /// # Errors
    /// The module index cannot be read.
    pub fn misses_files(&self) -> Result<bool> {
        Ok(self.listed()?.iter().any(|(_, path)| !path.exists()))
    }

    /// The files that `file` needs and whose modules are not loaded, first needed first.
    ///
    /// # Errors
    /// The module index, a file or `/sys/module` cannot be read.
    pub fn needs(&self, root: &Root, file: &File) -> Result<Vec<File>> {
        let module = self.kmod.by_name(&file.alias)?;
        let mut found = Vec::new();
        for needed in module.dependencies() {
            // Most are there, under the name of their file: no need to look into that.
            if loaded(root, &needed.name())?.is_none()
                && let Some(path) = needed.path()
            {
                found.push(self.file(&needed, &path)?);
            }
        }
        Ok(found)
    }

    pub(crate) fn insert(&self, path: &Path, options: &str) -> Result<(), nix::errno::Errno> {
        match self.kmod.by_path(path) {
            Ok(module) => module.insert(options),
            Err(error) => Err(error.downcast_ref().copied().unwrap_or(nix::errno::Errno::EIO)),
        }
    }

    fn file(&self, module: &KmodModule<'_>, path: &Path) -> Result<File> {
        if let Some(file) = self.known(path) {
            return Ok(file);
        }
        let file = self.read(module, path)?;
        self.files.borrow_mut().insert(path.to_owned(), file.clone());
        Ok(file)
    }

    fn known(&self, path: &Path) -> Option<File> {
        self.files.borrow().get(path).cloned()
    }

    fn read(&self, module: &KmodModule<'_>, path: &Path) -> Result<File> {
        let info = module.info().with_context(|| Unreadable(path.to_owned()))?;
        if self.thorough {
            self.take_in(module, path, &info)?;
        }
        let field = |key: &str| info.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
        let alias = module.name();
        let name = field("name").map_or_else(|| alias.clone(), |name| underscored(&name));
        let mut options: Vec<String> = module.options().into_iter().collect();
        if name != alias {
            options.extend(self.kmod.by_name(&name)?.options());
        }
        Ok(File {
            name,
            alias,
            path: path.to_owned(),
            version: field("version"),
            srcversion: field("srcversion"),
            vermagic: field("vermagic"),
            options: options.join(" "),
        })
    }

    fn take_in(
        &self,
        module: &KmodModule<'_>,
        path: &Path,
        info: &[(String, String)],
    ) -> Result<Rc<Declared>> {
        let declared = Rc::new(Declared::read(module, info).with_context(|| Unreadable(path.to_owned()))?);
        self.declared.borrow_mut().insert(path.to_owned(), declared.clone());
        Ok(declared)
    }

    /// Files of another name that declare themselves to be `name`.
    fn renamed(&self, name: &str) -> Result<Vec<File>> {
        let mut found = Vec::new();
        for (alias, path) in self.candidates()? {
            // Opening hundreds of unrelated modules for one name would be slow, and NVIDIA's are
            // the only ones that a distribution ships under another name.
            if alias == name || !name.starts_with(DRIVER) {
                continue;
            }
            let file = self.inspect(path)?;
            if file.name == name {
                found.push(file);
            }
        }
        Ok(found)
    }

    /// The index's files whose names begin with the driver's, as name and path.
    fn candidates(&self) -> Result<&[(String, PathBuf)]> {
        if let Some(known) = self.candidates.get() {
            return Ok(known);
        }
        let mut found = self.listed()?;
        found.retain(|(_, path)| path.exists());
        Ok(self.candidates.get_or_init(|| found))
    }

    /// The same, whether they are there or not.
    fn listed(&self) -> Result<Vec<(String, PathBuf)>> {
        let index = self.directory.join("modules.dep");
        let text = match fs::read_to_string(&index) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("read {}", index.display())),
        };
        let mut found = Vec::new();
        for line in text.lines() {
            let Some((path, _)) = line.split_once(':') else { continue };
            let file = path.rsplit_once('/').map_or(path, |(_, file)| file);
            // In-tree drivers that only share the prefix (nvidiafb) do no harm in this list.
            let Some((alias, _)) = file.split_once(".ko").filter(|_| file.starts_with(DRIVER)) else {
                continue;
            };
            found.push((underscored(alias), self.directory.join(path)));
        }
        Ok(found)
    }
}

/// The files and directories that libkmod is to read: all but the gate's own file.
fn configuration(root: &Root) -> Result<Vec<PathBuf>> {
    let gate = root.path(gate::FILE);
    let mut found = Vec::new();
    for directory in CONFIGURATION.map(|directory| root.path(directory)) {
        if gate.parent() != Some(&directory) {
            found.push(directory);
            continue;
        }
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("read {}", directory.display())),
        };
        for entry in entries {
            let path = entry.with_context(|| format!("read {}", directory.display()))?.path();
            if path != gate {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// Module names are the same with `-` and `_`.
fn underscored(name: &str) -> String {
    name.replace('-', "_")
}
