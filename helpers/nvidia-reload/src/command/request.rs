// SPDX-License-Identifier: MIT
//! `nvidia-reload request`: quick, and harmless wherever a package may be installed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use bus::{Manager, Mode};
use request::{Request, UNIT, ask, forget, package_manager};
use step::{Config, Policy, Root};

use super::{guard, print};
use crate::cli;
use crate::fault::Result;
use crate::status::versions;
use crate::terminal::{Stream, Terminal};

/// The linker is asked in a moment.
const LIBRARY_TIME: Duration = Duration::from_secs(5);

/// Asks for a reload, or drops the request.
///
/// # Errors
/// This is not root, the request cannot be written, or systemd does not take it.
pub fn request(arguments: &cli::Request) -> Result<u8> {
    guard::root("request")?;
    let root = Root::system();
    let (request, text) = match arguments.cancel {
        true => (None, cancel(&root)?),
        false => queue(&root, &arguments.reason)?,
    };
    if arguments.output.json {
        print(&request);
    } else {
        Terminal::new(Stream::Out).write(&format!("{text}\n"));
    }
    Ok(0)
}

fn queue(root: &Root, reason: &str) -> Result<(Option<Request>, String)> {
    if let Some(why) = nothing_to_do(root)? {
        return Ok((None, format!("Nothing is queued: {why}.")));
    }
    let request = ask(root, reason)?;
    // Not a start: that would be lost on a service that is just about to end.
    Manager::system()?.restart(UNIT, Mode::Replace)?;
    let text = format!("A reload is queued; `nvidia-reload status` shows it ({UNIT}).");
    Ok((Some(request), text))
}

/// Drops the request. The run of a reload that has begun is not the service's.
fn cancel(root: &Root) -> Result<String> {
    let there_was = forget(root)?;
    Manager::system()?.stop(UNIT, Mode::Replace)?;
    Ok(match there_was {
        true => "The request is dropped.".to_owned(),
        false => "There is no request.".to_owned(),
    })
}

/// Why there is nothing to reload here, as the end of a sentence. In the order of what it costs.
fn nothing_to_do(root: &Root) -> Result<Option<String>> {
    // sd_booted(3).
    if !root.path("/run/systemd/system").is_dir() {
        return Ok(Some("this system was not booted by systemd".into()));
    }
    // systemd writes it where it runs in a container (systemd's CONTAINER_INTERFACE).
    if root.path("/run/systemd/container").exists() {
        return Ok(Some("this is a container".into()));
    }
    if is_chroot(root) {
        return Ok(Some("this is a chroot".into()));
    }
    if guard::is_switched_off(root)? {
        return Ok(Some("nvidia_reload=0 is on the kernel command line".into()));
    }
    if !root.path("/sys/module").join(modules::DRIVER).exists() {
        return Ok(Some("the driver is not loaded".into()));
    }
    // A configuration that cannot be used is the service's to tell: a package must not fail for it.
    if Config::load(root).is_ok_and(|config| config.upgrade.policy == Policy::Never) {
        return Ok(Some("the configuration says never".into()));
    }
    Ok(matches(root).map(|version| format!("driver {version} is loaded and installed: they match")))
}

/// The driver that is loaded and installed, modules and library, where that is sure to stay so: no package manager
/// is at work. What cannot be found out is left to the service.
fn matches(root: &Root) -> Option<String> {
    // One that waits is the service's to end.
    if !::request::read(root).is_ok_and(|waiting| waiting.is_none()) {
        return None;
    }
    let versions = versions(root).ok()?;
    let loaded = versions.loaded.filter(|loaded| versions.on_disk.as_ref() == Some(loaded))?;
    if !matches!(package_manager(root), Ok(None)) {
        return None;
    }
    // Each module of the driver, as it is loaded and as the file on disk declares it.
    let disk = modules::Disk::open(root).ok()?;
    let chain = modules::chain(root).ok()?;
    let is_same = |module: &modules::Loaded| match disk.find(&module.module.name) {
        Ok(Some(file)) => file.is(&module.module),
        // Somebody's own never was on disk.
        Ok(None) => !holders::is_of_driver(&module.module.name),
        Err(_) => false,
    };
    if !chain.iter().all(is_same) {
        return None;
    }
    let library = gpu::ask_helper(&root.path(gpu::HELPER), gpu::Question::Library, LIBRARY_TIME).ok()??;
    match library {
        gpu::Library::Found { version: Some(version), .. } if version != loaded => None,
        _ => Some(loaded),
    }
}

/// Whether PID 1 has another root than this process. Where /proc does not tell, it is not mounted as in
/// a system that runs.
fn is_chroot(root: &Root) -> bool {
    let place = |path: &str| fs::metadata(root.path(path)).map(|found| (found.dev(), found.ino()));
    match (place("/proc/1/root/"), place("/")) {
        (Ok(of_init), Ok(ours)) => of_init != ours,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        for path in ["/run/systemd/system", "/proc/1", "/sys/module/nvidia", "/etc/nvidia-reload"] {
            fs::create_dir_all(root.path(path)).expect("creates");
        }
        fs::write(root.path("/proc/cmdline"), "quiet\n").expect("writes");
        symlink(directory.path(), root.path("/proc/1/root")).expect("links");
        (directory, root)
    }

    #[test]
    fn where_nothing_can_be_reloaded_nothing_is_queued() {
        let why = |change: fn(&Root)| {
            let (_directory, root) = tree();
            change(&root);
            nothing_to_do(&root).expect("tells").unwrap_or_default()
        };
        assert_eq!(why(|_| ()), "");
        assert!(
            why(|root| fs::remove_dir(root.path("/run/systemd/system")).expect("removes"))
                .contains("systemd")
        );
        assert!(
            why(|root| fs::write(root.path("/run/systemd/container"), "lxc").expect("writes"))
                .contains("container")
        );
        assert!(
            why(|root| fs::write(root.path("/proc/cmdline"), "nvidia_reload=0").expect("writes"))
                .contains("=0")
        );
        assert!(
            why(|root| fs::remove_dir(root.path("/sys/module/nvidia")).expect("removes"))
                .contains("not loaded")
        );
        let config = |root: &Root, text: &str| {
            fs::write(root.path("/etc/nvidia-reload/config.toml"), text).expect("writes");
        };
        let (_directory, root) = tree();
        config(&root, "[upgrade]\npolicy = \"never\"");
        assert!(nothing_to_do(&root).expect("tells").is_some_and(|why| why.contains("never")));
        config(&root, "[upgrade]\npolicy = \"soon\"");
        assert_eq!(nothing_to_do(&root).expect("tells"), None, "the service tells what is wrong");
        fs::remove_file(root.path("/proc/1/root")).expect("removes");
        symlink("/", root.path("/proc/1/root")).expect("links");
        assert!(nothing_to_do(&root).expect("tells").is_some_and(|why| why.contains("chroot")));
    }
}
