// SPDX-License-Identifier: MIT
//! A file that may not be there is removed.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Removes the file. Whether there was one.
///
/// # Errors
/// It is there and cannot be removed.
pub fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_removed_once_and_a_folder_is_not() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("file");
        fs::write(&path, "").expect("writes");
        assert_eq!((remove(&path).expect("removes"), remove(&path).expect("is gone")), (true, false));
        remove(directory.path()).expect_err("is a folder");
    }
}
