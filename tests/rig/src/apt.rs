// SPDX-License-Identifier: MIT
//! Debian packages of any suite and component, without a change to the host's
//! apt sources: a configuration of its own, in a folder of its own, that takes
//! the mirror and the key from the source that this host already trusts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{output_of, run_logged};
use crate::host;
use crate::progress::Work;

/// The suite of the machine.
pub const SUITE: &str = "bookworm";

/// The host's architecture, as Debian calls it.
const NATIVE: &str = "amd64";

/// By these a source of the host is known to be Debian's archive, which has all of them.
const SUITES: &[&str] = &["bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing", "unstable"];

/// A source of Debian's archive, as the host has it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Source {
    uri: String,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Option<String>,
    trusted: Option<String>,
}

/// An apt of its own.
pub struct PrivateApt {
    dir: PathBuf,
}

impl PrivateApt {
    /// Sets it up in `dir` for all components of these suites, and fetches
    /// their package lists.
    pub fn set_up(dir: &Path, suites: &[&str], work: &Work, log: &Path) -> Result<Self> {
        Self::set_up_for(dir, suites, &[], work, log)
    }

    /// The same for packages of these architectures beside the host's own: `name:arm64`.
    pub fn set_up_for(
        dir: &Path,
        suites: &[&str],
        foreign: &[&str],
        work: &Work,
        log: &Path,
    ) -> Result<Self> {
        for folder in [
            "etc/sources.list.d",
            "etc/preferences.d",
            "etc/apt.conf.d",
            "state/lists/partial",
            "cache/archives/partial",
        ] {
            fs::create_dir_all(dir.join(folder))?;
        }
        if host::which("apt-get").is_none() {
            bail!("there is no apt-get here: the rig takes Debian's packages by it, and needs a Debian host");
        }
        fs::write(dir.join("state/status"), "")?;
        let source = host_source()?;
        fs::write(dir.join("etc/sources.list.d/debian.sources"), source.for_suites(suites))?;
        fs::write(dir.join("apt.conf"), configuration(dir, foreign)?)?;
        let apt = PrivateApt { dir: dir.to_owned() };
        run_logged(apt.command("apt-get").args(["--quiet", "--error-on=any", "update"]), work, log)
            .context("cannot fetch Debian's package lists")?;
        Ok(apt)
    }

    /// Downloads packages into `target`; `names` may pin a version or a suite
    /// as apt writes it (`name=1.2-*`, `name/trixie`).
    pub fn download(&self, names: &[String], target: &Path, work: &Work, log: &Path) -> Result<()> {
        fs::create_dir_all(target)?;
        run_logged(
            self.command("apt-get").args(["--quiet", "download"]).args(names).current_dir(target),
            work,
            log,
        )
        .with_context(|| format!("cannot download {}", names.join(" ")))
    }

    /// Downloads packages with all that they depend on, as onto a machine that has nothing; the
    /// files.
    pub fn download_with_dependencies(
        &self,
        names: &[String],
        work: &Work,
        log: &Path,
    ) -> Result<Vec<PathBuf>> {
        let mut install = self.command("apt-get");
        install.args(["--quiet", "--yes", "--no-install-recommends", "--download-only", "install"]);
        run_logged(install.args(names), work, log)
            .with_context(|| format!("cannot download {}", names.join(" ")))?;
        let mut packages: Vec<PathBuf> = fs::read_dir(self.dir.join("cache/archives"))?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        packages.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
        packages.sort();
        Ok(packages)
    }

    /// The package that a meta package stands for: the first dependency whose
    /// name starts with `prefix`.
    pub fn dependency(&self, package: &str, prefix: &str) -> Result<String> {
        let shown = output_of(self.command("apt-cache").args(["depends", "--important", package]))?;
        shown
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| name.starts_with(prefix))
            .map(str::to_owned)
            .with_context(|| format!("{package} depends on nothing called {prefix}…:\n{shown}"))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.dir.join("apt.conf"));
        command
    }
}

/// A mirror in the words of mmdebstrap: a deb822 source on standard input's
/// place, written to `file`.
pub fn write_sources(file: &Path, suites: &[&str]) -> Result<()> {
    fs::write(file, host_source()?.for_suites(suites))
        .with_context(|| format!("cannot write {}", file.display()))
}

/// How this host reaches mirrors (proxies, and the like): handed on to every
/// apt that the rig starts.
pub fn host_transport() -> Result<Vec<String>> {
    const KEPT: &[&str] = &[
        "Acquire::http",
        "Acquire::https",
        "Acquire::Retries",
        "Acquire::ForceIPv",
        "Acquire::Check-Valid-Until",
        "Acquire::Check-Date",
    ];
    let all = output_of(Command::new("apt-config").arg("dump"))?;
    Ok(all
        .lines()
        .filter(|line| KEPT.iter().any(|kept| line.starts_with(kept)))
        // A bare group such as `Acquire::http "";` says nothing.
        .filter(|line| !line.ends_with(" \"\";"))
        .map(str::to_owned)
        .collect())
}

fn configuration(dir: &Path, foreign: &[&str]) -> Result<String> {
    let at = dir.display();
    let mut text = format!(
        "Dir::Etc \"{at}/etc\";\n\
         Dir::Etc::parts \"{at}/etc/apt.conf.d\";\n\
         Dir::State \"{at}/state\";\n\
         Dir::State::status \"{at}/state/status\";\n\
         Dir::Cache \"{at}/cache\";\n\
         Acquire::Languages \"none\";\n\
         APT::Sandbox::User \"root\";\n"
    );
    if !foreign.is_empty() {
        for architecture in [NATIVE].iter().chain(foreign) {
            text.push_str(&format!("APT::Architectures:: \"{architecture}\";\n"));
        }
    }
    for line in host_transport()? {
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}

fn host_source() -> Result<Source> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.sort();
    for file in &files {
        let Ok(text) = fs::read_to_string(file) else {
            continue;
        };
        let sources = match file.extension().and_then(|e| e.to_str()) {
            Some("sources") => parse_deb822(&text),
            Some("list") => parse_one_line(&text),
            _ => continue,
        };
        if let Some(found) = sources.into_iter().find(Source::is_the_archive) {
            return Ok(found);
        }
    }
    bail!(
        "no apt source of this host is Debian's archive (a URI that ends in /debian, component main)\n\
         The rig takes Debian's mirror and key from there: it needs a Debian host with such a source."
    )
}

impl Source {
    fn is_the_archive(&self) -> bool {
        // Others' repositories have such names too, and seldom a `main`.
        self.suites.iter().any(|suite| SUITES.contains(&suite.as_str()))
            && self.components.iter().any(|component| component == "main")
            && self.uri.trim_end_matches('/').ends_with("/debian")
    }

    fn for_suites(&self, suites: &[&str]) -> String {
        let mut text = format!(
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: main contrib non-free non-free-firmware\n",
            self.uri,
            suites.join(" ")
        );
        // Without one, apt would look among the host's trusted keys, which a
        // chroot does not have.
        let key = self.signed_by.as_deref().unwrap_or("/usr/share/keyrings/debian-archive-keyring.gpg");
        text.push_str(&format!("Signed-By: {key}\n"));
        if let Some(trusted) = &self.trusted {
            text.push_str(&format!("Trusted: {trusted}\n"));
        }
        text
    }
}

/// One-line format: `deb [signed-by=KEY] URI SUITE COMPONENT…`.
fn parse_one_line(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = line.strip_prefix("deb").filter(|r| r.starts_with([' ', '\t'])) else {
            continue;
        };
        let mut source = Source::default();
        let mut rest = rest.trim();
        if let Some((options, after)) = rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
            for option in options.split_whitespace() {
                match option.split_once('=') {
                    Some(("signed-by", key)) => source.signed_by = Some(key.replace(',', " ")),
                    Some(("trusted", value)) => source.trusted = Some(value.to_owned()),
                    _ => {}
                }
            }
            rest = after.trim();
        }
        let mut words = rest.split_whitespace();
        if let (Some(uri), Some(suite)) = (words.next(), words.next()) {
            source.uri = uri.to_owned();
            source.suites = vec![suite.to_owned()];
            source.components = words.map(str::to_owned).collect();
            sources.push(source);
        }
    }
    sources
}

/// deb822 format: stanzas of `Key: value`, with continuation lines (a key may
/// be embedded in Signed-By).
fn parse_deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in lines.split(|line| line.trim().is_empty()) {
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in stanza {
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = fields.last_mut() {
                    value.push('\n');
                    value.push_str(line);
                }
            } else if let Some((key, value)) = line.split_once(':') {
                fields.push((key.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        let get = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let (Some(types), Some(uris), Some(suites)) = (get("types"), get("uris"), get("suites")) else {
            continue;
        };
        let off = get("enabled").is_some_and(|value| matches!(value.as_str(), "no" | "false"));
        if off || !types.split_whitespace().any(|kind| kind == "deb") {
            continue;
        }
        for uri in uris.split_whitespace() {
            sources.push(Source {
                uri: uri.to_owned(),
                suites: suites.split_whitespace().map(str::to_owned).collect(),
                components: get("components")
                    .iter()
                    .flat_map(|c| c.split_whitespace())
                    .map(str::to_owned)
                    .collect(),
                signed_by: get("signed-by"),
                trusted: get("trusted"),
            });
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deb822_sources_are_found() {
        let text = "# ours\nTypes: deb\n# was: elsewhere\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n\
                    Components: main\nSigned-By: /usr/share/keyrings/k.gpg\n\nTypes: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\n";
        let found: Vec<Source> = parse_deb822(text).into_iter().filter(Source::is_the_archive).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].uri, "http://mirror.example/debian");
        assert_eq!(
            found[0].for_suites(&["bookworm", "trixie"]),
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm trixie\n\
             Components: main contrib non-free non-free-firmware\nSigned-By: /usr/share/keyrings/k.gpg\n"
        );
    }

    #[test]
    fn embedded_keys_and_disabled_stanzas_are_understood() {
        let text = "Types: deb\nEnabled: no\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\n\n\
                    Types: deb deb-src\nURIs: http://on.example/debian/\nSuites: trixie\nComponents: main\nSigned-By:\n -----BEGIN\n .\n -----END\n";
        let found: Vec<Source> = parse_deb822(text).into_iter().filter(Source::is_the_archive).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].signed_by.as_deref(), Some("\n -----BEGIN\n .\n -----END"));
    }

    #[test]
    fn one_line_sources_are_found() {
        let text = "#deb http://a.example/debian bookworm main\n\
                    deb-src http://b.example/debian bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://c.example/debian/ bookworm main contrib # ours\n\
                    deb http://d.example/debian bookworm-updates main\n\
                    deb http://docker.example/linux/debian bookworm stable\n";
        let found: Vec<Source> = parse_one_line(text).into_iter().filter(Source::is_the_archive).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].uri, "http://c.example/debian/");
        assert_eq!(found[0].signed_by.as_deref(), Some("/k.gpg"));
    }
}
