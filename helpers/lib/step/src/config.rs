// SPDX-License-Identifier: MIT
//! The configuration: fragments, merged, validated with file and key named.

mod containers;
#[cfg(test)]
mod documented;
mod fleet;
mod fragments;
mod gpus;
#[cfg(test)]
mod owner_tests;
mod services;
mod units;
mod upgrade;
mod window;

use std::fs;

use anyhow::{Context, Result};
use files::check_owner;
use fragments::{fragments, in_a_line, merge};
use serde::{Deserialize, Serialize};

use crate::{Guard, Root};

pub use containers::{AutoRemove, Containers, Pods};
pub use fleet::Fleet;
pub use gpus::{Gpus, LockedClocks};
pub use services::Services;
pub use units::{Logind, Units};
pub use upgrade::{Heal, Initramfs, Policy, StaleInitramfs, Upgrade};
pub use window::{Window, zone_file};

/// Everything that can be set. The shipped `config.toml` explains each key and holds the defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// How containers are stopped.
    pub containers: Containers,
    /// How systemd units are stopped.
    pub units: Units,
    /// Which services are started that failed because of the old driver or the run.
    pub services: Services,
    /// How processes without an owner are ended.
    pub processes: Processes,
    /// What is to be known of the GPUs.
    pub gpus: Gpus,
    /// How the driver is verified.
    pub verify: Verify,
    /// What an upgrade of the driver's packages leads to.
    pub upgrade: Upgrade,
    /// What to do about the next boot.
    pub initramfs: Initramfs,
    /// Who else has a say in when the machine may be out of service.
    pub fleet: Fleet,
}

/// How processes without an owner are ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Processes {
    /// Time between SIGTERM and SIGKILL, in seconds.
    pub grace: u64,
    /// Process names (the kernel's `comm`, 15 bytes at most) that are never killed; a holder of
    /// such a name is a refusal. `NAME` for processes of root and of the system's units, `USER:NAME`
    /// for a user's.
    pub protect: Vec<String>,
}

impl Default for Processes {
    fn default() -> Self {
        Self { grace: 10, protect: Vec::new() }
    }
}

/// How the driver is verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Verify {
    /// A program and its arguments that succeeds when the GPUs compute; empty for none.
    pub smoke: Vec<String>,
    /// How long it may take, in seconds.
    pub smoke_timeout: u64,
}

impl Default for Verify {
    fn default() -> Self {
        Self { smoke: Vec::new(), smoke_timeout: 60 }
    }
}

impl Config {
    /// Reads `/usr/lib/nvidia-reload/config.toml`, `/etc/nvidia-reload/config.toml` and the
    /// fragments `conf.d/*.toml` in both; what comes later wins. A fragment in `/etc` replaces the
    /// one of the same name in `/usr/lib`.
    ///
    /// # Errors
    /// The file and the key that cannot be used, and why.
    pub fn load(root: &Root) -> Result<Self> {
        let mut merged = toml::Table::new();
        let mut last = None;
        for path in fragments(root)? {
            // What is in it is done by root.
            check_owner(&path)?;
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let config: Config = toml::from_str(&text).map_err(|error| in_a_line(&path, &text, &error))?;
            config.validate(root).with_context(|| format!("{}", path.display()))?;
            let table = toml::from_str(&text).map_err(|error| in_a_line(&path, &text, &error))?;
            merge(&mut merged, table);
            last = Some(path);
        }
        let config: Self = merged.try_into().with_context(|| {
            format!("merge the configuration up to {}", last.unwrap_or_default().display())
        })?;
        // What fits in each file may not fit together.
        config.upgrade.validate(root).context("the configuration files together")?;
        if let Some(program) = config.verify.smoke.first() {
            match check_owner(&root.path(program)) {
                // What runs it reports that it is not there.
                Err(error) if error.is_not_found() => {}
                checked => checked.context("verify.smoke is run by root")?,
            }
        }
        Ok(config)
    }

    fn validate(&self, root: &Root) -> Result<()> {
        // The unit that runs the step gives up after 15 minutes, whatever is set here.
        for (key, seconds, most) in [
            ("containers.stop-timeout-max", self.containers.stop_timeout_max, 600),
            ("containers.pods-timeout", self.containers.pods_timeout, 600),
            ("units.stop-timeout", self.units.stop_timeout, 600),
            // Given twice: to what is found first, and to what comes up meanwhile.
            ("processes.grace", self.processes.grace, 400),
            ("verify.smoke-timeout", self.verify.smoke_timeout, 600),
        ] {
            if !(1..=most).contains(&seconds) {
                anyhow::bail!("{key} = {seconds}: must be between 1 and {most} seconds");
            }
        }
        if self.containers.health_timeout > 600 {
            anyhow::bail!(
                "containers.health-timeout = {}: must be 600 seconds at most",
                self.containers.health_timeout
            );
        }
        if self.containers.parallel > 256 {
            anyhow::bail!("containers.parallel = {}: must be 256 at most", self.containers.parallel);
        }
        for Guard { name, .. } in Guard::read(root, &self.processes.protect).context("processes.protect")? {
            if name.is_empty() || name.len() > 15 {
                anyhow::bail!(
                    "processes.protect: {name:?} matches no process: a process name has 1 to 15 bytes"
                );
            }
        }
        Guard::read(root, &self.units.protect).context("units.protect")?;
        self.gpus.validate()?;
        self.fleet.validate()?;
        self.upgrade.validate(root)?;
        if self.verify.smoke.first().is_some_and(|program| !program.starts_with('/')) {
            anyhow::bail!("verify.smoke = {:?}: the program needs its whole path", self.verify.smoke);
        }
        for (key, names) in [
            ("units.protect", &self.units.protect),
            ("upgrade.restartable", &self.upgrade.restartable),
            ("services.restart", &self.services.restart),
        ] {
            if let Some(name) = names.iter().find(|name| !name.contains('.')) {
                anyhow::bail!("{key}: {name:?} has no suffix such as .service");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        for (path, text) in files {
            let path = root.path(path);
            fs::create_dir_all(path.parent().expect("has a parent")).expect("creates");
            fs::write(path, text).expect("writes");
        }
        (directory, root)
    }

    #[test]
    fn an_error_is_one_line_with_file_line_and_what_stands_there() {
        for (text, expected) in [
            ("# a\n[upgrade]\npolcy = \"now\"\n", ":3: `polcy = \"now\"`: unknown field `polcy`"),
            ("[upgrade]\npolicy = \"never", ":2: `policy = \"never`: "),
            ("[processes]\ngrace = \"x\"\n", ":2: `grace = \"x\"`: invalid type: string \"x\""),
            ("[processes\n", ":1: `[processes`: "),
            ("[gpus]\nignore = [\n", ":2: `ignore = [`: "),
        ] {
            let (_directory, root) = tree(&[("/etc/nvidia-reload/config.toml", text)]);
            let error = format!("{:#}", Config::load(&root).expect_err("is not understood"));
            assert!(error.contains(&format!("/etc/nvidia-reload/config.toml{expected}")), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn without_files_the_defaults_hold() {
        let (_directory, root) = tree(&[]);
        assert_eq!(Config::load(&root).expect("loads"), Config::default());
    }

    #[test]
    fn later_fragments_win_key_by_key() {
        let (_directory, root) = tree(&[
            ("/usr/lib/nvidia-reload/config.toml", "[processes]\ngrace = 5\nprotect = [\"a\"]"),
            ("/usr/lib/nvidia-reload/conf.d/10-a.toml", "[processes]\ngrace = 6"),
            ("/etc/nvidia-reload/conf.d/10-a.toml", "[units]\nstop-timeout = 7"),
            ("/etc/nvidia-reload/config.toml", "[processes]\ngrace = 8"),
        ]);
        let config = Config::load(&root).expect("loads");
        assert_eq!(config.processes, Processes { grace: 8, protect: vec!["a".into()] });
        assert_eq!(config.units.stop_timeout, 7);
    }

    #[test]
    fn what_is_said_of_one_gpu_wins() {
        let text = "[gpus]\nlocked-gpu-clocks = [1, 2]\nlocked-memory-clocks = [3, 4]\n[gpus.by-uuid.GPU-a]\nlocked-gpu-clocks = [5, 6]";
        let (_directory, root) = tree(&[("/etc/nvidia-reload/config.toml", text)]);
        let gpus = Config::load(&root).expect("loads").gpus;
        let clocks = |uuid| {
            let locked = gpus.locked_clocks(uuid);
            (locked.locked_gpu_clocks, locked.locked_memory_clocks)
        };
        assert_eq!(clocks("GPU-a"), (Some((5, 6)), Some((3, 4))));
        assert_eq!(clocks("GPU-b"), (Some((1, 2)), Some((3, 4))));
    }

    #[test]
    fn a_bad_file_is_named_with_its_key() {
        for (text, key) in [
            ("[processes]\ngrace = \"x\"", "grace"),
            ("[processes]\ngrace = 0", "processes.grace"),
            ("[processes]\ngrace = 401", "processes.grace"),
            ("[proceses]\n", "proceses"),
            ("[containers]\nauto-remove = \"keep\"", "auto-remove"),
            ("[containers]\npods = \"none\"", "pods"),
            ("[units]\nprotect = [\"sshd\"]", "units.protect"),
            ("[units]\nlogind = \"stop\"", "logind"),
            ("[units]\nprotect = [\"nobody-here:x.service\"]", "units.protect"),
            ("[processes]\nprotect = [\"7:\"]", "processes.protect"),
            ("[processes]\nprotect = [\"nobody-here:x\"]", "processes.protect"),
            ("[processes", "processes"),
            ("[gpus]\nlocked-clocks = [1, 2]", "locked-clocks"),
            ("[gpus]\nignore = [\"GPU-0\"]", "gpus.ignore"),
            ("[gpus]\nignore = [\"0000:3b.00:0\"]", "gpus.ignore"),
            ("[gpus]\nlocked-gpu-clocks = [2, 1]", "locked-gpu-clocks"),
            ("[gpus.by-uuid.0]\nlocked-gpu-clocks = [1, 2]", "gpus.by-uuid"),
            ("[gpus.by-uuid.GPU-0]\nlocked = [1, 2]", "locked"),
            ("[verify]\nsmoke = [\"smoke\"]", "verify.smoke"),
            ("[upgrade]\npolicy = \"later\"", "policy"),
            ("[upgrade]\nrestartable = [\"dcgm\"]", "upgrade.restartable"),
            ("[services]\nrestart = [\"ollama\"]", "services.restart"),
            ("[upgrade]\nwindow = [\"Sat 2\"]", "upgrade.window"),
            ("[upgrade]\nwindow = \"Sat 02:00-03:00\"", "window"),
            ("[upgrade]\nwindow = [\"02:00-03:00\"]\njitter = 3600", "upgrade.jitter"),
            ("[upgrade]\njitter = 86401", "upgrade.jitter"),
            ("[upgrade]\nwindow-zone = \"Europe/Bärlin\"", "upgrade.window-zone"),
            ("[upgrade]\nwindow-zone = \"../../../etc/passwd\"", "upgrade.window-zone"),
            ("[upgrade]\nwindow-zone = \"Mars/Base\"", "timedatectl list-timezones"),
            ("[fleet]\nlock = \"lock.example\"", "fleet.lock"),
            ("[fleet]\nlock = \"https://\"", "fleet.lock"),
            ("[fleet]\nlock = \"https://root:secret@lock.example\"", "fleet.lock"),
            ("[fleet]\nlock = \"http://lock.example/?a=b\"", "fleet.lock"),
            ("[fleet]\ngroup = \"a b\"", "fleet.group"),
            ("[fleet]\ngroup = \"\"", "fleet.group"),
            ("[fleet]\nid = \"a\\nb\"", "fleet.id"),
        ] {
            let (_directory, root) = tree(&[("/etc/nvidia-reload/config.toml", text)]);
            let error = format!("{:#}", Config::load(&root).expect_err("must refuse"));
            assert!(error.contains("/etc/nvidia-reload/config.toml"), "{error}");
            assert!(error.contains(key), "{error}");
        }
    }
}
