// SPDX-License-Identifier: MIT
//! What is checked on the host: the code as such, and the package.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::arm64;
use crate::cache::{Cache, Stage};
use crate::command::{cargo, without_cargo};
use crate::distributions;
use crate::room::{NotHad, ROOT, Room, enter};
use crate::stages;

/// A check.
pub struct Check {
    /// Its name on the command line.
    pub name: &'static str,
    /// Whether it runs only where it is named, since it takes long.
    pub by_name: bool,
    run: fn(&Cache) -> Result<()>,
}

/// All of them, in the order in which they run: the quick ones first.
pub const CHECKS: &[Check] = &[
    Check { name: "fmt", by_name: false, run: |_| quiet(cargo().args(["fmt", "--all", "--check"])) },
    Check {
        name: "clippy",
        by_name: false,
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
        by_name: false,
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
    Check { name: "unit", by_name: false, run: |_| quiet(cargo().args(["test", "--quiet", "--workspace"])) },
    Check {
        name: "doc",
        by_name: false,
        run: |_| {
            quiet(
                cargo()
                    .args(["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"])
                    .env("RUSTDOCFLAGS", "--deny warnings"),
            )
        },
    },
    Check { name: "prometheus", by_name: false, run: alerts },
    Check { name: "package", by_name: false, run: |cache| product(cache).map(drop) },
    Check {
        name: "distributions",
        by_name: false,
        run: |cache| {
            let package = product(cache)?.file_like("nvidia-reload_", ".deb")?;
            distributions::check(cache, &package, object::elf::EM_X86_64)
        },
    },
    Check {
        name: "lintian",
        by_name: false,
        run: |cache| {
            let changes = product(cache)?.file_like("", ".changes")?;
            let lintian = Room::unpacked(cache, "lintian", "a room for lintian", &["lintian"])?;
            quiet(
                lintian
                    .inside(cache, &[], "lintian")?
                    .args(["--fail-on", "error,warning", "--info"])
                    .arg(changes),
            )
        },
    },
    Check {
        name: "rpmlint",
        by_name: false,
        run: |cache| {
            let package = product(cache)?.file_like("nvidia-reload-", ".rpm")?;
            let configuration =
                std::fs::canonicalize(stages::checkout().join("tests/packages/rpmlint.toml"))?;
            let rpmlint = Room::in_stage(stages::package_managers(cache)?);
            quiet(
                rpmlint
                    .inside(cache, &[], "rpmlint")?
                    .args(["--strict", "--config"])
                    .arg(configuration)
                    .arg(package),
            )
        },
    },
    Check { name: "package-managers", by_name: false, run: package_managers },
    Check { name: "ansible-lint", by_name: false, run: ansible_lint },
    Check { name: "manifests", by_name: false, run: manifests },
    Check { name: "arm64", by_name: true, run: arm64::check },
];

/// The alerts for Prometheus, by its own tool: as such, and whether each comes when it should.
fn alerts(cache: &Cache) -> Result<()> {
    let prometheus = Room::unpacked(cache, "prometheus", "promtool", &["prometheus"])?;
    let folder = std::fs::canonicalize(stages::checkout().join("fleet/prometheus"))?;
    for arguments in
        [["check", "rules", "nvidia-reload.rules.yml"], ["test", "rules", "nvidia-reload.test.yml"]]
    {
        let [verb, what, file] = arguments;
        quiet(prometheus.inside(cache, &[], "promtool")?.args([verb, what]).arg(folder.join(file)))?;
    }
    Ok(())
}

/// ansible-lint, and with it Python's readers of YAML and of schemas. What needs it is skipped where Debian's archive
/// does not have it today.
fn lint_room(cache: &Cache) -> Result<Room> {
    Room::unpacked(cache, "ansible-lint", "a room for ansible-lint", &["ansible-lint", "python3-jsonschema"])
        .context(NotHad("ansible-lint"))
}

/// The manifests of fleet/kubernetes, against the schemas of those that read them.
fn manifests(cache: &Cache) -> Result<()> {
    let checkout = std::fs::canonicalize(stages::checkout())?;
    quiet(
        lint_room(cache)?
            .inside(cache, &[], "python3")?
            .arg("-B")
            .arg(checkout.join("tests/kubernetes/check.py"))
            .arg(checkout.join("fleet")),
    )
}

/// The role and the playbooks of fleet/ansible.
fn ansible_lint(cache: &Cache) -> Result<()> {
    let room = lint_room(cache)?;
    let folder = std::fs::canonicalize(stages::checkout().join("fleet/ansible"))?;
    let scratch = cache.scratch()?;
    quiet(
        room.inside(cache, &[], "env")?
            // It writes beside what it looks at.
            .args(["sh", "-euc", "cp -R \"$1\" \"$2/ansible\" && cd \"$2/ansible\" && exec ansible-lint --offline --strict --profile production", "lint"])
            .arg(folder)
            .arg(scratch.path())
            .env("HOME", scratch.path()),
    )
}

fn product(cache: &Cache) -> Result<Stage> {
    stages::package(cache)?.context("this checkout has no debian/control")
}

/// The rpm and the hook of pacman in a root of their own: see the recipe.
fn package_managers(cache: &Cache) -> Result<()> {
    let package = product(cache)?.file_like("nvidia-reload-", ".rpm")?;
    let managers = stages::package_managers(cache)?;
    let scratch = cache.scratch()?;
    let root = scratch.path().join("root");
    quiet(Command::new("cp").args(["-a", "--reflink=auto"]).args([&managers.file(ROOT), &root]))?;
    let build = root.join("build");
    std::fs::create_dir(&build)?;
    let checkout = stages::checkout();
    let name = package.file_name().context("the package has no name")?;
    for (from, to) in [
        (package.clone(), build.join(name)),
        (checkout.join("rpm/nvidia-reload.spec"), build.join("spec")),
        (checkout.join("packaging/nvidia-reload.hook"), build.join("hook")),
        (stages::recipe("packages.sh"), build.join("packages.sh")),
    ] {
        std::fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    quiet(
        enter(&root, &[], Path::new("/bin/bash"))?
            .arg("/build/packages.sh")
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", "/root")
            .env_remove("TMPDIR"),
    )
}

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
