//! What is checked on the host: the code as such, and the package.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::command::{cargo, without_cargo};
use crate::room::Room;
use crate::stages;

/// A check.
pub struct Check {
    /// Its name on the command line.
    pub name: &'static str,
    run: fn(&Cache) -> Result<()>,
}

/// All of them, in the order in which they run: the quick ones first.
pub const CHECKS: &[Check] = &[
    Check { name: "fmt", run: |_| quiet(cargo().args(["fmt", "--all", "--check"])) },
    Check {
        name: "clippy",
        run: |_| {
            quiet(cargo().args([
                "clippy",
                "--quiet",
                "--workspace",
                "--all-targets",
                "--",
                "--deny",
                "warnings",
            ]))
        },
    },
    Check {
        name: "deny",
        run: |cache| {
            let deny = stages::deny(cache)?;
            quiet(Command::new(deny.file("bin/cargo-deny")).args([
                "--locked",
                "check",
                "--hide-inclusion-graph",
                "licenses",
                "bans",
                "sources",
            ]))
        },
    },
    Check { name: "unit", run: |_| quiet(cargo().args(["test", "--quiet", "--workspace"])) },
    Check {
        name: "doc",
        run: |_| {
            quiet(
                cargo()
                    .args(["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"])
                    .env("RUSTDOCFLAGS", "--deny warnings"),
            )
        },
    },
    Check {
        name: "package",
        run: |cache| match stages::package(cache)? {
            Some(_) => Ok(()),
            None => bail!("this checkout has no debian/control"),
        },
    },
    Check {
        name: "lintian",
        run: |cache| {
            let package = stages::package(cache)?.context("this checkout has no debian/control")?;
            let changes = package.file_like("", ".changes")?;
            let lintian = Room::unpacked(cache, "lintian", "a room for lintian", &["lintian"])?;
            quiet(lintian.inside(cache, &[], "lintian")?.args(["--fail-on", "error", "--info"]).arg(changes))
        },
    },
];

impl Check {
    /// Runs it; the error has the output.
    pub fn run(&self, cache: &Cache) -> Result<()> {
        (self.run)(cache)
    }
}

/// Runs a command in the checkout; what it printed is the error when it fails.
pub fn quiet(command: &mut Command) -> Result<()> {
    let what = crate::command::shown(command);
    let (mut reader, writer) = std::io::pipe()?;
    without_cargo(command).current_dir(stages::checkout()).stdout(writer.try_clone()?).stderr(writer);
    crate::command::tie(command, nix::sys::signal::Signal::SIGTERM);
    let mut child = command.spawn().with_context(|| format!("cannot run {what}"))?;
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut output = Vec::new();
    std::io::Read::read_to_end(&mut reader, &mut output)?;
    let status = child.wait()?;
    if !status.success() {
        bail!("{}\n{what}: {status}", String::from_utf8_lossy(&output).trim_end());
    }
    Ok(())
}
