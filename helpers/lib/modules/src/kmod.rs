// SPDX-License-Identifier: MIT
//! The few calls of libkmod that are needed, made safe.
//!
//! libkmod is what modprobe and udev are made of: it knows module indexes, compression, aliases and
//! modprobe.d, and answers with an errno. The crates that bind it date from before Rust 2018 and
//! need clang to build; twenty declarations of a stable interface (soname 2 since 2012) do not.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::ptr;

use anyhow::{Context, Result};
use nix::errno::Errno;

#[link(name = "kmod")]
unsafe extern "C" {
    fn kmod_new(dirname: *const c_char, config_paths: *const *const c_char) -> *mut c_void;
    fn kmod_set_log_priority(ctx: *mut c_void, priority: c_int);
    fn kmod_unref(ctx: *mut c_void) -> *mut c_void;
    fn kmod_list_next(list: *const c_void, entry: *const c_void) -> *mut c_void;
    fn kmod_module_new_from_name(ctx: *mut c_void, name: *const c_char, module: *mut *mut c_void) -> c_int;
    fn kmod_module_new_from_path(ctx: *mut c_void, path: *const c_char, module: *mut *mut c_void) -> c_int;
    fn kmod_module_unref(module: *mut c_void) -> *mut c_void;
    fn kmod_module_unref_list(list: *mut c_void) -> c_int;
    fn kmod_module_get_module(entry: *const c_void) -> *mut c_void;
    fn kmod_module_insert_module(module: *mut c_void, flags: c_uint, options: *const c_char) -> c_int;
    fn kmod_module_get_name(module: *const c_void) -> *const c_char;
    fn kmod_module_get_path(module: *const c_void) -> *const c_char;
    fn kmod_module_get_options(module: *const c_void) -> *const c_char;
    fn kmod_module_get_install_commands(module: *const c_void) -> *const c_char;
    fn kmod_module_get_dependencies(module: *const c_void) -> *mut c_void;
    fn kmod_module_get_info(module: *const c_void, list: *mut *mut c_void) -> c_int;
    fn kmod_module_info_get_key(entry: *const c_void) -> *const c_char;
    fn kmod_module_info_get_value(entry: *const c_void) -> *const c_char;
    fn kmod_module_info_free_list(list: *mut c_void);
    fn kmod_module_new_from_lookup(ctx: *mut c_void, alias: *const c_char, list: *mut *mut c_void) -> c_int;
    fn kmod_module_get_symbols(module: *const c_void, list: *mut *mut c_void) -> c_int;
    fn kmod_module_symbol_get_symbol(entry: *const c_void) -> *const c_char;
    fn kmod_module_symbol_get_crc(entry: *const c_void) -> u64;
    fn kmod_module_symbols_free_list(list: *mut c_void);
    fn kmod_module_get_dependency_symbols(module: *const c_void, list: *mut *mut c_void) -> c_int;
    fn kmod_module_dependency_symbol_get_symbol(entry: *const c_void) -> *const c_char;
    fn kmod_module_dependency_symbol_get_bind(entry: *const c_void) -> c_int;
    fn kmod_module_dependency_symbol_get_crc(entry: *const c_void) -> u64;
    fn kmod_module_dependency_symbols_free_list(list: *mut c_void);
}

/// `KMOD_SYMBOL_WEAK`: the kernel loads a module without it.
const WEAK: c_int = 'W' as c_int;

/// A symbol that a module has or needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    /// The name.
    pub name: String,
    /// The version, which is a checksum over its type; 0 where there is none.
    pub crc: u64,
}

/// A view of one directory of modules and one set of modprobe.d files.
pub(crate) struct Kmod {
    context: *mut c_void,
}

impl Kmod {
    /// `modules`: such as `/lib/modules/6.1.0-50-amd64`; `configuration`: files and directories as
    /// in modprobe.d(5), what comes first wins.
    pub(crate) fn new(modules: &Path, configuration: &[PathBuf]) -> Result<Self> {
        let directory = c_string(modules)?;
        let paths = configuration.iter().map(|path| c_string(path)).collect::<Result<Vec<_>>>()?;
        let mut pointers: Vec<*const c_char> = paths.iter().map(|path| path.as_ptr()).collect();
        pointers.push(ptr::null());
        // SAFETY: both arguments outlive the call; libkmod copies what it keeps.
        let context = unsafe { kmod_new(directory.as_ptr(), pointers.as_ptr()) };
        if context.is_null() {
            return Err(Errno::last())
                .with_context(|| format!("read the module configuration of {}", modules.display()));
        }
        // What it says on standard error comes back as an errno, too. LOG_CRIT is left to it.
        // SAFETY: the context is alive.
        unsafe { kmod_set_log_priority(context, 2) };
        Ok(Self { context })
    }

    /// The module called `name`, whether or not there is a file for it.
    pub(crate) fn by_name(&self, name: &str) -> Result<KmodModule<'_>> {
        let argument = CString::new(name).context("a module's name holds a zero byte")?;
        let mut module = ptr::null_mut();
        // SAFETY: the context is alive, the name is a C string, the result goes to our pointer.
        let result = unsafe { kmod_module_new_from_name(self.context, argument.as_ptr(), &mut module) };
        check(result).with_context(|| format!("look up module {name}"))?;
        Ok(KmodModule { module, context: PhantomData })
    }

    /// Whether the index has a module that exports the symbol `name`.
    pub(crate) fn exports(&self, name: &str) -> Result<bool> {
        let alias = CString::new(format!("symbol:{name}")).context("a symbol's name holds a zero byte")?;
        let mut list = ptr::null_mut();
        // SAFETY: the context is alive, the alias is a C string, the result goes to our pointer.
        let result = unsafe { kmod_module_new_from_lookup(self.context, alias.as_ptr(), &mut list) };
        // Nothing of that name is an empty list, or in later versions an error.
        if result != -(Errno::ENOENT as c_int) {
            check(result).with_context(|| format!("look up symbol {name}"))?;
        }
        let found = !list.is_null();
        // SAFETY: the list and its modules are ours.
        unsafe { kmod_module_unref_list(list) };
        Ok(found)
    }

    /// The module in the file `path`.
    pub(crate) fn by_path(&self, path: &Path) -> Result<KmodModule<'_>> {
        let argument = c_string(path)?;
        let mut module = ptr::null_mut();
        // SAFETY: as in `by_name`.
        let result = unsafe { kmod_module_new_from_path(self.context, argument.as_ptr(), &mut module) };
        check(result).with_context(|| format!("look at module file {}", path.display()))?;
        Ok(KmodModule { module, context: PhantomData })
    }
}

impl Drop for Kmod {
    fn drop(&mut self) {
        // SAFETY: ours, and no module outlives us.
        unsafe { kmod_unref(self.context) };
    }
}

/// A module as libkmod sees it.
pub(crate) struct KmodModule<'a> {
    module: *mut c_void,
    context: PhantomData<&'a Kmod>,
}

impl<'a> KmodModule<'a> {
    /// The name that the file's name gives, with underscores.
    pub(crate) fn name(&self) -> String {
        // SAFETY: the module is alive; the string is copied at once.
        unsafe { text(kmod_module_get_name(self.module)) }.unwrap_or_default()
    }

    /// The file, if the index has one.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        // SAFETY: as in `name`.
        unsafe { text(kmod_module_get_path(self.module)) }.map(PathBuf::from)
    }

    /// The `options` lines for this name, joined.
    pub(crate) fn options(&self) -> Option<String> {
        // SAFETY: as in `name`.
        unsafe { text(kmod_module_get_options(self.module)) }
    }

    /// The `install` line for this name.
    pub(crate) fn install_command(&self) -> Option<String> {
        // SAFETY: as in `name`.
        unsafe { text(kmod_module_get_install_commands(self.module)) }
    }

    /// The modules that the index says this one needs, first needed first.
    pub(crate) fn dependencies(&self) -> Vec<KmodModule<'a>> {
        // SAFETY: the list is ours until it is freed below.
        let list = unsafe { kmod_module_get_dependencies(self.module) };
        let mut found = Vec::new();
        for entry in entries(list) {
            // SAFETY: the entry belongs to the list; get_module gives us a reference of our own.
            let module = unsafe { kmod_module_get_module(entry) };
            found.push(KmodModule { module, context: PhantomData });
        }
        // SAFETY: frees the list, not the modules we hold references to.
        unsafe { kmod_module_unref_list(list) };
        found
    }

    /// What the file's `.modinfo` section declares, in order.
    pub(crate) fn info(&self) -> Result<Vec<(String, String)>> {
        let mut list = ptr::null_mut();
        // SAFETY: the module is alive, the list goes to our pointer.
        check(unsafe { kmod_module_get_info(self.module, &mut list) })?;
        let found = entries(list)
            .into_iter()
            .filter_map(|entry| {
                // SAFETY: each entry belongs to the list; the strings are copied at once.
                let (key, value) = unsafe {
                    (text(kmod_module_info_get_key(entry)), text(kmod_module_info_get_value(entry)))
                };
                Some((key?, value?))
            })
            .collect();
        // SAFETY: the list is ours.
        unsafe { kmod_module_info_free_list(list) };
        Ok(found)
    }

    /// The symbols that the file exports.
    pub(crate) fn symbols(&self) -> Result<Vec<Symbol>, Errno> {
        let mut list = ptr::null_mut();
        // SAFETY: the module is alive, the list goes to our pointer.
        let result = unsafe { kmod_module_get_symbols(self.module, &mut list) };
        // A module may export nothing.
        if matches!(check(result), Err(Errno::ENODATA | Errno::ENOENT)) {
            return Ok(Vec::new());
        }
        check(result)?;
        let found = entries(list).into_iter().filter_map(|entry| {
            // SAFETY: each entry belongs to the list; the string is copied at once.
            let (name, crc) =
                unsafe { (text(kmod_module_symbol_get_symbol(entry)), kmod_module_symbol_get_crc(entry)) };
            Some(Symbol { name: name?, crc })
        });
        let found = found.collect();
        // SAFETY: the list is ours.
        unsafe { kmod_module_symbols_free_list(list) };
        Ok(found)
    }

    /// The symbols that the file cannot do without, with the versions that it was built for.
    pub(crate) fn needed_symbols(&self) -> Result<Vec<Symbol>, Errno> {
        let mut list = ptr::null_mut();
        // SAFETY: the module is alive, the list goes to our pointer.
        let result = unsafe { kmod_module_get_dependency_symbols(self.module, &mut list) };
        if matches!(check(result), Err(Errno::ENODATA | Errno::ENOENT)) {
            return Ok(Vec::new());
        }
        check(result)?;
        let found = entries(list).into_iter().filter_map(|entry| {
            // SAFETY: each entry belongs to the list; the string is copied at once.
            let (name, bind, crc) = unsafe {
                (
                    text(kmod_module_dependency_symbol_get_symbol(entry)),
                    kmod_module_dependency_symbol_get_bind(entry),
                    kmod_module_dependency_symbol_get_crc(entry),
                )
            };
            Some(Symbol { name: name.filter(|_| bind != WEAK)?, crc })
        });
        let found = found.collect();
        // SAFETY: the list is ours.
        unsafe { kmod_module_dependency_symbols_free_list(list) };
        Ok(found)
    }

    /// Loads the file into the kernel. No `install` line is looked at, no dependency is loaded.
    pub(crate) fn insert(&self, options: &str) -> Result<(), Errno> {
        let Ok(options) = CString::new(options) else { return Err(Errno::EINVAL) };
        // SAFETY: the module is alive, the options are a C string.
        check(unsafe { kmod_module_insert_module(self.module, 0, options.as_ptr()) })
    }
}

impl Drop for KmodModule<'_> {
    fn drop(&mut self) {
        // SAFETY: the reference is ours.
        unsafe { kmod_module_unref(self.module) };
    }
}

fn entries(list: *mut c_void) -> Vec<*const c_void> {
    let mut found = Vec::new();
    let mut entry = list.cast_const();
    while !entry.is_null() {
        found.push(entry);
        // SAFETY: the entry belongs to the list, which is alive.
        entry = unsafe { kmod_list_next(list, entry) };
    }
    found
}

fn check(result: c_int) -> Result<(), Errno> {
    if result < 0 { Err(Errno::from_raw(-result)) } else { Ok(()) }
}

fn c_string(path: &Path) -> Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).with_context(|| format!("{} holds a zero byte", path.display()))
}

/// # Safety
/// `string` is null or a C string that lives until this returns.
unsafe fn text(string: *const c_char) -> Option<String> {
    if string.is_null() {
        return None;
    }
    // SAFETY: not null, the rest is the caller's promise.
    Some(unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned())
}
