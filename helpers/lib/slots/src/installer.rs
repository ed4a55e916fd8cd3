// SPDX-License-Identifier: MIT
//! What NVIDIA's own installer noted of the files that it put on disk.
//!
//! `/var/lib/nvidia/log` (nvidia-installer's backup.c): the version in a line of the form
//! `1.0-53526103 (535.261.03)`, a description, and then an entry for each file. `0: PATH` is a link,
//! with its target in the next line; `1: PATH` a file, with its CRC in the next; `2: PATH` a link and a
//! number from 100 on a file that was there before and was put aside, with one or two lines about it.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context, Result};
use step::Root;

/// The installer's own record.
const LOG: &str = "/var/lib/nvidia/log";

/// The files and links that the installer put on disk for the driver's `version`, and its record itself;
/// none where the driver that it installed is another, or there is none.
///
/// # Errors
/// The record is there and cannot be read.
pub(crate) fn installed(root: &Root, version: &str) -> Result<Vec<PathBuf>> {
    let real = root.path(LOG);
    let text = match fs::read_to_string(&real) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", real.display())),
    };
    Ok(parse(&text, version))
}

fn parse(text: &str, version: &str) -> Vec<PathBuf> {
    let mut lines = text.lines();
    if !lines.next().is_some_and(|line| line.contains(&format!("({version})"))) {
        return Vec::new();
    }
    let mut found = vec![PathBuf::from(LOG), PathBuf::from("/var/lib/nvidia/dirs")];
    // A line about a file is never of an entry's form: it has no number with a colon behind it.
    for line in lines.skip(1) {
        if let Some(path) = ["0: ", "1: "].iter().find_map(|kind| line.strip_prefix(kind)) {
            found.push(PathBuf::from(path));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "1.0-53526103 (535.261.03)\nNVIDIA Accelerated Graphics Driver for Linux-x86_64\n\
        100: /usr/lib/libold.so\n1234 100644 0 0\n1: /usr/lib/libcuda.so.535.261.03\n4711\n\
        0: /usr/lib/libcuda.so.1\nlibcuda.so.535.261.03\n2: /usr/lib/libx.so\nliby.so\n120777 0 0\n";

    #[test]
    fn only_what_was_installed_counts_and_only_of_the_version() {
        let found = parse(LOG, "535.261.03");
        assert_eq!(
            found[2..],
            ["/usr/lib/libcuda.so.535.261.03", "/usr/lib/libcuda.so.1"].map(PathBuf::from)
        );
        assert_eq!(parse(LOG, "535.261"), Vec::<PathBuf>::new());
        assert_eq!(parse("", "535.261.03"), Vec::<PathBuf>::new());
    }
}
