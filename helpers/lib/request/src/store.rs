// SPDX-License-Identifier: MIT
//! The file: replaced as a whole, by one writer at a time.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use files::replace;
use step::{Reason, Root, now_usec};

use crate::{Request, SCHEMA, State};

/// Where it is.
pub const PATH: &str = "/run/nvidia-reload/request.json";

/// A lock on this is held while the request is changed.
const LOCK: &str = "/run/nvidia-reload/request.lock";

/// It is held for as long as a small file is written.
const LOCK_TIME: Duration = Duration::from_secs(10);

/// The request, if there is one. Only root may read it.
///
/// # Errors
/// It cannot be read, or another version wrote it.
pub fn read(root: &Root) -> Result<Option<Request>> {
    let path = root.path(PATH);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let request: Request =
        serde_json::from_slice(&text).with_context(|| format!("{} is no request", path.display()))?;
    if request.schema != SCHEMA {
        bail!("{} has schema {:?}, not {SCHEMA:?}: remove it", path.display(), request.schema);
    }
    Ok(Some(request))
}

/// Asks for a reload; a request that is there already is joined.
///
/// # Errors
/// It cannot be written.
pub fn ask(root: &Root, reason: &str) -> Result<Request> {
    let directory = root.path("/run/nvidia-reload");
    // The package may have been installed a moment ago, and by a tool that makes no tmpfiles.
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let _lock = lock(root)?;
    // One of another version belongs to no one: it is replaced.
    let request = match read(root) {
        Ok(Some(mut request)) => {
            request.join(reason, now_usec());
            request
        }
        _ => Request::new(reason, now_usec()),
    };
    write(root, &request)?;
    Ok(request)
}

/// Says how far the request is. None where it is gone: somebody dropped it.
///
/// # Errors
/// It cannot be read or written.
pub fn update(root: &Root, state: State, because: Vec<Reason>) -> Result<Option<Request>> {
    let _lock = lock(root)?;
    let Some(mut request) = read(root)? else { return Ok(None) };
    if request.enter(state, because, now_usec()) {
        write(root, &request)?;
    }
    Ok(Some(request))
}

/// Drops the request; whether there was one.
///
/// # Errors
/// It is still there.
pub fn forget(root: &Root) -> Result<bool> {
    let path = root.path(PATH);
    // Also where there is no place for a lock.
    if !path.try_exists().with_context(|| format!("look for {}", path.display()))? {
        return Ok(false);
    }
    // Else who updates it at this moment would put it back.
    let _lock = lock(root)?;
    files::remove(&path).with_context(|| format!("remove {}", path.display()))
}

fn lock(root: &Root) -> Result<File> {
    Ok(files::lock(&root.path(LOCK), LOCK_TIME, |_| ())?)
}

/// Root's alone to read: it names processes of others, with their command lines. Not synced: a request does not
/// outlive the boot.
fn write(root: &Root, request: &Request) -> Result<()> {
    let path = root.path(PATH);
    let text = serde_json::to_vec_pretty(request).context("encode the request")?;
    replace(&path, 0o600, &text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_asked_for_joined_and_dropped() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        assert_eq!(read(&root).expect("reads"), None);
        assert!(!forget(&root).expect("looks"));
        ask(&root, "package a").expect("writes");
        let request = ask(&root, "package b").expect("writes");
        assert_eq!(request.reasons, ["package a", "package b"]);
        for path in [PATH, LOCK] {
            let mode =
                std::os::unix::fs::MetadataExt::mode(&fs::metadata(root.path(path)).expect("is there"));
            assert_eq!(mode & 0o777, 0o600, "{path}");
        }
        let updated = update(&root, State::Refused, vec![Reason::new("x", "y")]).expect("writes");
        assert_eq!(updated, read(&root).expect("reads"));
        assert!(forget(&root).expect("removes"));
        assert_eq!(update(&root, State::Asking, Vec::new()).expect("looks"), None, "it stays dropped");
        assert_eq!(read(&root).expect("reads"), None);
    }

    #[test]
    fn it_is_not_dropped_while_somebody_updates_it() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        ask(&root, "a").expect("writes");
        let updating = lock(&root).expect("locks");
        let read = read(&root).expect("reads").expect("is there");
        std::thread::scope(|scope| {
            let dropped = scope.spawn(|| forget(&root));
            // Time enough for one that does not wait.
            std::thread::sleep(std::time::Duration::from_millis(100));
            write(&root, &read).expect("writes");
            drop(updating);
            assert!(dropped.join().expect("ends").expect("removes"));
        });
        assert_eq!(super::read(&root).expect("reads"), None, "it stays dropped");
    }

    #[test]
    fn what_another_version_wrote_is_named_and_replaced() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        ask(&root, "a").expect("writes");
        let text = fs::read_to_string(root.path(PATH)).expect("reads").replace("request/1", "request/9");
        fs::write(root.path(PATH), text).expect("writes");
        let error = format!("{:#}", read(&root).expect_err("must refuse"));
        assert!(error.contains("request/9") && error.contains(PATH), "{error}");
        assert_eq!(ask(&root, "b").expect("writes").reasons, ["b"]);
    }
}
