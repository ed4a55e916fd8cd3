// SPDX-License-Identifier: MIT
//! Text consoles on the driver's framebuffers.

#![allow(unsafe_code)]

use crate::devices::framebuffers;
use crate::model::Console;
use crate::{Error, Result};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::path::Path;
use step::Root;

/// Virtual terminals that can have a framebuffer (MAX_NR_CONSOLES, linux/vt.h).
const TERMINALS: u32 = 63;

/// The consoles that draw on a framebuffer of the driver.
///
/// # Errors
/// The kernel does not tell: who may not open the framebuffer's device cannot ask on which one a
/// console is.
pub fn consoles(root: &Root) -> Result<Vec<Console>> {
    let framebuffers = framebuffers(root);
    if framebuffers.is_empty() {
        return Ok(Vec::new());
    }
    let bound = bound(root, &framebuffers)?;
    // A tree of fixtures has no device to ask.
    if bound.is_empty() || (root.is_system() && !shows(root, &framebuffers)?) {
        return Ok(Vec::new());
    }
    Ok(bound)
}

/// The framebuffer consoles that are bound, each with all of `framebuffers`: there is one at most,
/// for all of them.
pub(crate) fn bound(root: &Root, framebuffers: &[String]) -> Result<Vec<Console>> {
    let mut found = Vec::new();
    let directory = root.path("/sys/class/vtconsole");
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        // A kernel without virtual terminals.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        Err(source) => return Err(Error::Read { path: directory, source }),
    };
    for entry in entries {
        let path = entry.map_err(|source| Error::Read { path: directory.clone(), source })?.path();
        let driver = read(&path.join("name"))?;
        // `(S) dummy device`, `(M) frame buffer device`: the kernel's own name for fbcon
        // (drivers/tty/vt/vt.c); no other console draws on a framebuffer.
        if driver.contains("frame buffer device") && read(&path.join("bind"))? == "1" {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push(Console { name, driver, framebuffers: framebuffers.to_vec() });
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// `struct fb_con2fbmap` (linux/fb.h).
#[repr(C)]
struct Con2FbMap {
    console: u32,
    framebuffer: u32,
}

/// FBIOGET_CON2FBMAP (linux/fb.h): from before ioctl numbers were composed.
const GET_CON2FBMAP: libc::c_ulong = 0x460f;

/// Whether any virtual terminal shows on one of `framebuffers`.
fn shows(root: &Root, framebuffers: &[String]) -> Result<bool> {
    let Some(first) = framebuffers.first() else { return Ok(false) };
    let path = root.path("/dev").join(first);
    let error = |source| Error::Read { path: path.clone(), source };
    // The map is the kernel's, whichever framebuffer is asked.
    let device = File::open(&path).map_err(error)?;
    for console in 1..=TERMINALS {
        let mut map = Con2FbMap { console, framebuffer: u32::MAX };
        // SAFETY: the kernel fills in the structure, which is of its layout and outlives the call.
        if unsafe { libc::ioctl(device.as_raw_fd(), GET_CON2FBMAP, &mut map) } < 0 {
            return Err(error(std::io::Error::last_os_error()));
        }
        if framebuffers.contains(&format!("fb{}", map.framebuffer)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn read(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Ok(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        let file = |path: &str, text: &str| {
            let path = root.path(path);
            fs::create_dir_all(path.parent().expect("has a parent")).expect("creates");
            fs::write(path, text).expect("writes");
        };
        let link = |path: &str, target: &str| {
            let path = root.path(path);
            fs::create_dir_all(path.parent().expect("has a parent")).expect("creates");
            symlink(target, path).expect("links");
        };
        file("/sys/module/nvidia/refcnt", "0\n");
        file("/sys/module/nvidia/initstate", "live\n");
        fs::create_dir_all(root.path("/sys/module/nvidia/holders")).expect("creates");
        link("/sys/module/nvidia/drivers/pci:nvidia", "../../../bus/pci/drivers/nvidia");
        link("/sys/bus/pci/drivers/nvidia/0000:01:00.0", "../../../../devices/pci0000:00/0000:01:00.0");
        for (fb, device) in [("fb0", "0000:02:00.0"), ("fb1", "0000:01:00.0")] {
            let target = format!("../../devices/pci0000:00/{device}/graphics/{fb}");
            link(&format!("/sys/class/graphics/{fb}"), &target);
        }
        for (vtcon, name, bind) in
            [("vtcon0", "(S) dummy device\n", "0\n"), ("vtcon1", "(M) frame buffer device\n", "1\n")]
        {
            file(&format!("/sys/class/vtconsole/{vtcon}/name"), name);
            file(&format!("/sys/class/vtconsole/{vtcon}/bind"), bind);
        }
        (directory, root)
    }

    #[test]
    fn only_the_drivers_framebuffer_and_only_what_is_bound() {
        let (_directory, root) = tree();
        let expected = Console {
            name: "vtcon1".into(),
            driver: "(M) frame buffer device".into(),
            framebuffers: vec!["fb1".into()],
        };
        assert_eq!(consoles(&root).expect("reads"), [expected]);
        fs::write(root.path("/sys/class/vtconsole/vtcon1/bind"), "0\n").expect("writes");
        assert!(consoles(&root).expect("reads").is_empty());
    }

    #[test]
    fn a_machine_without_consoles_is_no_error() {
        let (_directory, root) = tree();
        fs::remove_dir_all(root.path("/sys/class/vtconsole")).expect("removes");
        assert!(consoles(&root).expect("reads").is_empty());
        fs::remove_dir_all(root.path("/sys/class/graphics")).expect("removes");
        assert!(consoles(&root).expect("reads").is_empty());
    }
}
