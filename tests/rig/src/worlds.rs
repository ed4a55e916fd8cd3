// SPDX-License-Identifier: MIT
//! Other people's hosts, as roots: README's first command, typed there, ends well with a reload in a
//! machine that was booted there, and the host's packages are what they were.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt;
use crate::cache::Cache;
use crate::checks::quiet;
use crate::command::output_of;
use crate::machine::Spec;
use crate::room::enter;
use crate::stages::{self, Content, checkout, mmdebstrap, rust_folders};

/// A host to be tried.
pub struct World {
    /// The test's name.
    pub name: &'static str,
    suite: &'static str,
    /// A second suite, and what came from there before the rig did.
    backports: Option<(&'static str, &'static str)>,
}

/// All of them.
pub const WORLDS: &[World] = &[
    World { name: "rig-host-debian12", suite: "bookworm", backports: None },
    World {
        name: "rig-host-debian12-backports",
        suite: "bookworm",
        backports: Some(("bookworm-backports", "qemu-utils")),
    },
    World { name: "rig-host-debian13", suite: "trixie", backports: None },
];

/// What has nothing to do with the host is taken from this one's cache, so that the test is a matter of
/// minutes: not the tools, the workshop and what is built in it first, and no machine that has booted.
const FINISHED: &[&str] =
    &["kernel", "modules", "fakegpu", "userland", "base", "image", "package", "kubelet-sim", "nvml-sim"];

impl World {
    /// Tries it; the error has the output.
    pub fn run(&self, cache: &Cache) -> Result<()> {
        let spec = Spec::default();
        stages::provide(cache, &Content { with_package: true, with_stand_ins: true, spec: &spec })?;
        let scratch = cache.scratch()?;
        let root = scratch.path().join("root");
        self.make(cache, scratch.path(), &root)?;
        let cache_of_the_host = scratch.path().join("cache");
        lend(cache, &cache_of_the_host.join("nvidia-reload-rig"))?;

        let typed = first_command(&fs::read_to_string(checkout().join("README.md"))?)?;
        let before = packages(&root)?;
        let run = |line: &str| {
            let mut shell = self.shell(cache, &root, scratch.path(), &cache_of_the_host)?;
            quiet(shell.arg(line)).with_context(|| format!("`{line}` does not end well there"))
        };
        run(&typed)?;
        let after = packages(&root)?;
        let changes = [lost(&before, &after), gained(&before, &after)].concat();
        if !changes.is_empty() {
            bail!("after `{typed}` the host's packages are others:\n{}", changes.join("\n"));
        }
        // The checks compile on the host, and may ask for packages.
        run("cargo rig test fmt")?;
        let lost = lost(&before, &packages(&root)?);
        if !lost.is_empty() {
            bail!("the checks took packages from the host, or changed them:\n{}", lost.join("\n"));
        }
        Ok(())
    }

    /// A Debian with what cargo needs, and nothing else.
    fn make(&self, cache: &Cache, scratch: &Path, root: &Path) -> Result<()> {
        let sources = scratch.join("debian.sources");
        let suites: Vec<&str> =
            std::iter::once(self.suite).chain(self.backports.map(|(suite, _)| suite)).collect();
        apt::write_sources(&sources, &suites)?;
        let mut build = mmdebstrap(cache, &stages::tools(cache)?)?;
        build.args(["--format=directory", "--variant=apt", "--include=ca-certificates,gcc,libc6-dev"]);
        if let Some((suite, package)) = self.backports {
            build.arg(format!(
                "--customize-hook=chroot \"$1\" apt-get install --yes --no-install-recommends -t {suite} {package}"
            ));
        }
        build.arg("--skip=cleanup/apt/lists").arg(self.suite).arg(root).arg(&sources);
        quiet(&mut build).context("this host cannot be had")
    }

    /// A shell there, in this checkout, with cargo in its PATH; what it compiles stays in `scratch`.
    fn shell(&self, cache: &Cache, root: &Path, scratch: &Path, its_cache: &Path) -> Result<Command> {
        let [rust, crates] = rust_folders()?;
        let checkout = fs::canonicalize(checkout())?;
        let shared: [&Path; 6] = [
            // The mirror's name; keys and certificates are the other host's own.
            "/etc/hosts".as_ref(),
            "/etc/resolv.conf".as_ref(),
            cache.root(),
            &checkout,
            &rust,
            &crates,
        ];
        let mut command = enter(root, &shared, "/usr/bin/env".as_ref())?;
        command
            .env("XDG_CACHE_HOME", its_cache)
            .env("CARGO_HOME", &crates)
            .env("CARGO_TARGET_DIR", scratch.join("target"))
            .env("CARGO_NET_OFFLINE", "true")
            .env_remove("TMPDIR")
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", rust.join("bin").display()))
            .arg("--chdir")
            .arg(&checkout)
            .args(["sh", "-c"]);
        Ok(command)
    }
}

/// What a newcomer types first: README's first line with a root's prompt.
fn first_command(readme: &str) -> Result<String> {
    let command = readme.lines().find_map(|line| line.strip_prefix("# cargo "));
    Ok(format!("cargo {}", command.context("README has no `# cargo …`")?))
}

/// Links what is finished in `cache` into another.
fn lend(cache: &Cache, other: &Path) -> Result<()> {
    fs::create_dir_all(other)?;
    for entry in fs::read_dir(cache.root())? {
        let from = entry?.path();
        let name = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.rsplit_once('-').is_some_and(|(kind, _)| FINISHED.contains(&kind)) {
            output_of(Command::new("cp").args(["-al", "--"]).args([&from, &other.join(&name)]))?;
        }
    }
    Ok(())
}

/// Each package with its version and state.
fn packages(root: &Path) -> Result<Vec<String>> {
    let list = output_of(Command::new("chroot").arg(root).args([
        "/usr/bin/dpkg-query",
        "--show",
        "--showformat=${binary:Package} ${Version} ${db:Status-Abbrev}\\n",
    ]))?;
    Ok(list.lines().map(|line| line.trim().to_owned()).collect())
}

/// What was there and is not, in this version and state.
fn lost(before: &[String], after: &[String]) -> Vec<String> {
    before.iter().filter(|package| !after.contains(package)).map(|package| format!("- {package}")).collect()
}

/// What was not there.
fn gained(before: &[String], after: &[String]) -> Vec<String> {
    lost(after, before).iter().map(|package| package.replacen('-', "+", 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_newcomer_types_is_in_readme() {
        let readme = "# nvidia-reload\n\n```console\n# nvidia-reload reload\n```\n\n```console\n# cargo rig demo\n```\n";
        assert_eq!(first_command(readme).expect("a command"), "cargo rig demo");
        assert!(first_command("# nvidia-reload\n").is_err());
    }

    #[test]
    fn an_upgrade_is_a_loss_and_an_installation_is_none() {
        let before = ["gcc 12 ii", "qemu-utils 10 ii"].map(str::to_owned);
        let upgraded = ["gcc 12 ii", "qemu-utils 11 ii"].map(str::to_owned);
        let removed = ["gcc 12 ii", "qemu-utils 10 rc"].map(str::to_owned);
        let more = ["gcc 12 ii", "pkgconf 1 ii", "qemu-utils 10 ii"].map(str::to_owned);
        assert_eq!(lost(&before, &upgraded), ["- qemu-utils 10 ii"]);
        assert_eq!(gained(&before, &upgraded), ["+ qemu-utils 11 ii"]);
        assert_eq!(lost(&before, &removed), ["- qemu-utils 10 ii"]);
        assert!(lost(&before, &more).is_empty() && lost(&before, &before).is_empty());
        assert_eq!(gained(&before, &more), ["+ pkgconf 1 ii"]);
    }
}
