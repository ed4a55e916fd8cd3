// SPDX-License-Identifier: MIT
//! Where the file system starts: `/` on a machine, a fixture tree in a test.

use std::path::{Path, PathBuf};

/// The root under which every absolute path of the system is looked up.
///
/// Everything that reads `/proc`, `/sys`, `/etc`, `/run` or `/var` takes its paths from here, so
/// that the pure logic can be tested on a whole tree of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    /// The machine itself.
    pub fn system() -> Self {
        Self(PathBuf::from("/"))
    }

    /// A tree of files that stands in for the machine.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// `absolute` below this root: `/proc/devices` becomes `ROOT/proc/devices`.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.0.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    /// Whether this is the running machine rather than a fixture.
    pub fn is_system(&self) -> bool {
        self.0 == Path::new("/")
    }
}

impl Default for Root {
    fn default() -> Self {
        Self::system()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_stay_below_the_root() {
        let root = Root::at("/tmp/tree");
        assert_eq!(root.path("/proc/devices"), Path::new("/tmp/tree/proc/devices"));
        assert_eq!(root.path("proc"), Path::new("/tmp/tree/proc"));
        assert_eq!(Root::system().path("/proc"), Path::new("/proc"));
    }
}
