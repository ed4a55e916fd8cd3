//! Text consoles on the driver's framebuffers.

use crate::devices::framebuffers;
use crate::model::Console;
use std::fs;
use step::Root;

/// The consoles that are drawn on a framebuffer while the driver has one.
///
/// The kernel does not tell which framebuffer a console is on, so each bound framebuffer console
/// is named with all framebuffers of the driver.
pub(crate) fn consoles(root: &Root) -> Vec<Console> {
    let framebuffers = framebuffers(root);
    if framebuffers.is_empty() {
        return Vec::new();
    }
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let mut found: Vec<Console> = fs::read_dir(root.path("/sys/class/vtconsole"))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            // `(S) dummy device`, `(M) frame buffer device`: only the latter draws.
            read(entry.path().join("name")).contains("frame buffer device")
                && read(entry.path().join("bind")).trim() == "1"
        })
        .map(|entry| Console {
            name: entry.file_name().to_string_lossy().into_owned(),
            framebuffers: framebuffers.clone(),
        })
        .collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}
