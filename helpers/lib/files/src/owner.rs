// SPDX-License-Identifier: MIT
//! Whether only root can have written a file, or put another in its place.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows.
const LINKS: usize = 40;

/// Write permission for group and others.
const OTHERS: u32 = 0o022;

const STICKY: u32 = 0o1000;

/// A file that another user than root can change or exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untrusted {
    /// The file that was to be believed.
    pub path: PathBuf,
    /// What is wrong with owner and mode: the file itself, or a directory or link on the way to it.
    pub culprit: PathBuf,
    /// The owner of the culprit.
    pub uid: u32,
    /// Its permission bits.
    pub mode: u32,
    /// Whether the owner is right and only the mode is not.
    is_writable: bool,
}

impl Untrusted {
    /// What is wrong, with owner and mode.
    pub fn what(&self) -> String {
        let (culprit, uid, mode) = (self.culprit.display(), self.uid, self.mode);
        let what = match self.is_writable {
            true => format!("{culprit} is writable by users other than root (owner {uid}, mode {mode:04o})"),
            false => format!("{culprit} belongs to user {uid}, not to root (mode {mode:04o})"),
        };
        match self.culprit == self.path {
            true => what,
            false => format!("{what}, so {} is not trusted", self.path.display()),
        }
    }

    /// The command that makes it right.
    pub fn remedy(&self) -> String {
        let verb = if self.is_writable { "chmod go-w" } else { "chown root:" };
        format!("`{verb} {}` after a look at what is in it", self.culprit.display())
    }
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what(), self.remedy())
    }
}

/// Why a file is not believed.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// Another user can change it.
    #[error("{0}")]
    Untrusted(Untrusted),
    /// It cannot be looked at.
    #[error("look at {}: {source}", path.display())]
    Unknown {
        /// What cannot be looked at.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl OwnerError {
    /// Whether there is no such file.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Unknown { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Checks that only root could have written the file or directory `path`, or put another in its place: it,
/// every directory and every link on the way belong to root (or to the user that this process runs as, who
/// can believe himself), and no other user can write to them.
///
/// What was checked stays so: only root can change it.
///
/// # Errors
/// Another user can, or it is not there.
pub fn check_owner(path: &Path) -> Result<(), OwnerError> {
    let unknown = |path: &Path, source| OwnerError::Unknown { path: path.to_owned(), source };
    let whole = std::path::absolute(path).map_err(|error| unknown(path, error))?;
    // What is still to be walked, the next part last.
    let mut parts = parts(&whole);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    let look = |at: &Path, is_last: bool| {
        let data = fs::symlink_metadata(at).map_err(|error| unknown(at, error))?;
        judge(&whole, at, &data, is_last).map(|()| data)
    };
    look(&at, parts.is_empty())?;
    while let Some(part) = parts.pop() {
        // Without links in it, so that the directory above is the one that the kernel means.
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(part);
        let data = look(&next, parts.is_empty())?;
        if !data.is_symlink() {
            at = next;
            continue;
        }
        links += 1;
        if links > LINKS {
            return Err(unknown(&next, rustix::io::Errno::LOOP.into()));
        }
        let target = fs::read_link(&next).map_err(|error| unknown(&next, error))?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        parts.extend(self::parts(&target));
    }
    Ok(())
}

/// The names in `path`, the first one last.
fn parts(path: &Path) -> Vec<OsString> {
    let name = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().rev().filter_map(name).collect()
}

fn judge(path: &Path, at: &Path, data: &Metadata, is_last: bool) -> Result<(), OwnerError> {
    let (uid, mode) = (data.uid(), data.mode() & 0o7777);
    let is_owned = uid == 0 || uid == rustix::process::geteuid().as_raw();
    // The mode of a link means nothing. In a sticky directory only the owner of a file can exchange it, which
    // says nothing about files that are not there yet.
    let is_shared = data.is_dir() && mode & STICKY != 0 && !is_last;
    let is_writable = !data.is_symlink() && !is_shared && mode & OTHERS != 0;
    if is_owned && !is_writable {
        return Ok(());
    }
    let (path, culprit) = (path.to_owned(), at.to_owned());
    Err(OwnerError::Untrusted(Untrusted { path, culprit, uid, mode, is_writable: is_owned }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn tree() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        // Where the temporary directory is behind a link of its own.
        let path = directory.path().canonicalize().expect("is there");
        fs::create_dir_all(path.join("etc/conf.d")).expect("creates");
        fs::write(path.join("etc/conf.d/a.toml"), "").expect("writes");
        for place in ["etc", "etc/conf.d", "etc/conf.d/a.toml"] {
            mode(&path.join(place), 0o755);
        }
        (directory, path)
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("sets");
    }

    fn culprit(path: &Path) -> Untrusted {
        match check_owner(path).expect_err("must refuse") {
            OwnerError::Untrusted(found) => found,
            OwnerError::Unknown { path, source } => panic!("{}: {source}", path.display()),
        }
    }

    #[test]
    fn a_file_or_a_directory_above_that_others_write_is_named() {
        let (_directory, path) = tree();
        let file = path.join("etc/conf.d/a.toml");
        check_owner(&file).expect("is fine");
        for (place, bad) in [("etc", 0o775), ("etc/conf.d", 0o757), ("etc/conf.d/a.toml", 0o664)] {
            let place = path.join(place);
            mode(&place, bad);
            let found = culprit(&file);
            assert_eq!((found.culprit.as_path(), found.mode), (place.as_path(), bad));
            let text = found.to_string();
            assert!(text.contains(&format!("mode {bad:04o}")) && text.contains("`chmod go-w "), "{text}");
            assert!(text.contains(&*file.to_string_lossy()), "{text}");
            mode(&place, 0o755);
        }
    }

    #[test]
    fn a_sticky_directory_is_no_place_for_files_to_come() {
        let (_directory, path) = tree();
        mode(&path.join("etc"), 0o1777);
        check_owner(&path.join("etc/conf.d/a.toml")).expect("only root can exchange conf.d");
        assert_eq!(culprit(&path.join("etc")).mode, 0o1777);
    }

    #[test]
    fn links_are_followed_to_their_end_and_judged_on_the_way() {
        let (_directory, path) = tree();
        fs::create_dir(path.join("others")).expect("creates");
        symlink(path.join("others/hop"), path.join("etc/link.toml")).expect("links");
        symlink("../etc/conf.d/a.toml", path.join("others/hop")).expect("links");
        check_owner(&path.join("etc/link.toml")).expect("all of it is ours");
        mode(&path.join("others"), 0o777);
        assert_eq!(culprit(&path.join("etc/link.toml")).culprit, path.join("others"));
        symlink("round", path.join("etc/round")).expect("links");
        let error = check_owner(&path.join("etc/round")).expect_err("has no end").to_string();
        assert!(error.contains("etc/round"), "{error}");
        assert!(check_owner(&path.join("etc/none")).expect_err("is not there").is_not_found());
    }

    #[test]
    fn another_user_s_file_is_named_with_its_owner() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("only root can give a file away: not tried");
            return;
        }
        let (_directory, path) = tree();
        let file = path.join("etc/conf.d/a.toml");
        for place in [file.as_path(), &path.join("etc")] {
            std::os::unix::fs::chown(place, Some(65534), None).expect("gives away");
            let found = culprit(&file);
            assert_eq!((found.culprit.as_path(), found.uid), (place, 65534));
            assert!(found.to_string().contains("belongs to user 65534, not to root (mode 0755)"), "{found}");
            assert!(found.to_string().contains("`chown root: "), "{found}");
            std::os::unix::fs::chown(place, Some(0), None).expect("takes back");
        }
        std::os::unix::fs::symlink(&file, path.join("link")).expect("links");
        std::os::unix::fs::lchown(path.join("link"), Some(65534), None).expect("gives away");
        assert_eq!(culprit(&path.join("link")).culprit, path.join("link"));
    }
}
