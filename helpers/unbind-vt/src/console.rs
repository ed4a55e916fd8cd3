//! Consoles and framebuffers, as sysfs and the framebuffer device tell.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use step::Root;

/// Virtual terminals that can have a framebuffer (MAX_NR_CONSOLES, linux/vt.h).
const TERMINALS: u32 = 63;

/// The numbers of the framebuffers whose device is driven by NVIDIA's driver.
pub(crate) fn nvidia_framebuffers(root: &Root) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for name in names(&root.path("/sys/class/graphics"))? {
        let Some(number) = name.strip_prefix("fb").and_then(|number| number.parse().ok()) else { continue };
        let driver = root.path("/sys/class/graphics").join(&name).join("device/driver");
        match fs::read_link(&driver) {
            Ok(target) if target.file_name().is_some_and(|name| name == "nvidia") => found.push(number),
            Ok(_) => {}
            // A framebuffer of the firmware has no device.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", driver.display())),
        }
    }
    Ok(found)
}

/// The framebuffer consoles that are bound, with the kernel's name for each.
pub(crate) fn bound_framebuffer_consoles(root: &Root) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for vtcon in names(&root.path("/sys/class/vtconsole"))? {
        let path = root.path("/sys/class/vtconsole").join(&vtcon).join("name");
        let name = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        // The kernel's own name for fbcon (drivers/video/fbdev/core/fbcon.c, vt.c); no other
        // console driver shows a framebuffer.
        if name.contains("frame buffer") && is_bound(root, &vtcon)? {
            found.push((vtcon, name.trim_end().to_owned()));
        }
    }
    Ok(found)
}

/// Whether `vtcon` is bound.
pub(crate) fn is_bound(root: &Root, vtcon: &str) -> Result<bool> {
    let path = root.path("/sys/class/vtconsole").join(vtcon).join("bind");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim_end() == "1")
}

/// Binds or unbinds `vtcon`, and reads back that it is so.
pub(crate) fn bind(root: &Root, vtcon: &str, bound: bool) -> Result<()> {
    let path = root.path("/sys/class/vtconsole").join(vtcon).join("bind");
    fs::write(&path, if bound { "1" } else { "0" }).with_context(|| format!("write {}", path.display()))?;
    if is_bound(root, vtcon)? != bound {
        bail!("{} was written and has not changed", path.display());
    }
    Ok(())
}

/// `struct fb_con2fbmap` (linux/fb.h).
#[repr(C)]
struct Con2FbMap {
    console: u32,
    framebuffer: u32,
}

// FBIOGET_CON2FBMAP (linux/fb.h): from before ioctl numbers were composed.
nix::ioctl_read_bad!(get_con2fbmap, 0x460f, Con2FbMap);

/// Whether any virtual terminal shows on one of `framebuffers`.
pub(crate) fn shows(root: &Root, framebuffers: &[u32]) -> Result<bool> {
    let Some(first) = framebuffers.first() else { return Ok(false) };
    // The map is the kernel's, whichever framebuffer is asked.
    let path = root.path(format!("/dev/fb{first}"));
    let device = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    for console in 1..=TERMINALS {
        let mut map = Con2FbMap { console, framebuffer: u32::MAX };
        // SAFETY: the kernel fills in the structure, which is of its layout and outlives the call.
        unsafe { get_con2fbmap(device.as_raw_fd(), &mut map) }
            .with_context(|| format!("ask {} for terminal {console}", path.display()))?;
        if framebuffers.contains(&map.framebuffer) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        // A kernel without framebuffers or virtual terminals.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", directory.display())),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("read {}", directory.display()))?;
        found.push(entry.file_name().to_string_lossy().into_owned());
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        for (fb, driver) in [("fb0", "ast"), ("fb1", "nvidia")] {
            let device = root.path("/sys/class/graphics").join(fb).join("device");
            fs::create_dir_all(&device).expect("creates");
            symlink(format!("../../../../bus/pci/drivers/{driver}"), device.join("driver")).expect("links");
        }
        fs::create_dir_all(root.path("/sys/class/graphics/fb2")).expect("creates");
        for (vtcon, name, bound) in
            [("vtcon0", "(S) dummy device\n", "0\n"), ("vtcon1", "(M) frame buffer device\n", "1\n")]
        {
            let directory = root.path("/sys/class/vtconsole").join(vtcon);
            fs::create_dir_all(&directory).expect("creates");
            fs::write(directory.join("name"), name).expect("writes");
            fs::write(directory.join("bind"), bound).expect("writes");
        }
        (directory, root)
    }

    #[test]
    fn only_nvidias_framebuffer_counts() {
        let (_directory, root) = tree();
        assert_eq!(nvidia_framebuffers(&root).expect("reads"), [1]);
    }

    #[test]
    fn unbinding_and_binding_are_inverses() {
        let (_directory, root) = tree();
        let bound = bound_framebuffer_consoles(&root).expect("reads");
        assert_eq!(bound, [("vtcon1".to_owned(), "(M) frame buffer device".to_owned())]);
        bind(&root, "vtcon1", false).expect("unbinds");
        assert!(bound_framebuffer_consoles(&root).expect("reads").is_empty());
        bind(&root, "vtcon1", true).expect("binds");
        assert_eq!(bound_framebuffer_consoles(&root).expect("reads"), bound);
    }

    #[test]
    fn a_machine_without_consoles_is_no_error() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        assert!(nvidia_framebuffers(&root).expect("reads").is_empty());
        assert!(bound_framebuffer_consoles(&root).expect("reads").is_empty());
        assert!(!shows(&root, &[]).expect("looks"));
    }
}
