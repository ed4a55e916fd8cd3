// SPDX-License-Identifier: MIT
//! What has to be of the driver's version beside its modules: libraries, Fabric Manager, IMEX.
//!
//! A refusal is for what works now and would not after the reload. What does not fit now either is no matter
//! of this reload, and a warning.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use modules::{Manager, is_driver_version};
use slots::HEALED;
use step::Root;

use super::{linker, packages};
use crate::findings::Findings;

/// It starts only with the driver of its own version (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH). NVML's library,
/// which is as particular, is judged by what it says itself.
const CUDA: &str = "libcuda.so.1";

/// How long RPM may take for one answer.
const RPM: Duration = Duration::from_secs(30);

/// Libraries that come with the driver, and belong together.
const LIBRARIES: [&str; 5] = [
    CUDA,
    "libnvidia-ptxjitcompiler.so.1",
    "libnvidia-opencl.so.1",
    "libnvcuvid.so.1",
    "libnvidia-encode.so.1",
];

/// Services that refuse a driver of another version than their own.
const SERVICES: [Service; 2] = [
    Service {
        name: "Fabric Manager",
        program: "/usr/bin/nv-fabricmanager",
        package: "fabricmanager",
        unit: "nvidia-fabricmanager.service",
    },
    Service { name: "IMEX", program: "/usr/bin/nvidia-imex", package: "imex", unit: "nvidia-imex.service" },
];

struct Service {
    name: &'static str,
    program: &'static str,
    /// What the names of its packages have in them.
    package: &'static str,
    unit: &'static str,
}

/// The driver's version now and after the reload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change<'a> {
    pub(crate) loaded: Option<&'a str>,
    pub(crate) on_disk: &'a str,
}

impl Change<'_> {
    /// Whether something of `version` works now, and would not any more.
    fn breaks(&self, version: &str) -> bool {
        version != self.on_disk && self.loaded == Some(version)
    }
}

/// Judges what is installed beside the modules.
///
/// # Errors
/// The linker's cache or the packages cannot be read.
pub(crate) fn assess(root: &Root, change: Change<'_>, findings: &mut Findings) -> Result<()> {
    libraries(root, change, findings)?;
    for service in &SERVICES {
        self::service(root, service, change, findings)?;
    }
    Ok(())
}

fn libraries(root: &Root, change: Change<'_>, findings: &mut Findings) -> Result<()> {
    let remedy =
        || format!("modules and libraries have to be of one version: {}", Manager::of(root).finish());
    let path = root.path("/etc/ld.so.cache");
    let cache = match fs::read(&path) {
        Ok(cache) => cache,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    for name in LIBRARIES {
        // What the linker takes is the first that is there.
        // The loaded driver's own, found before those on disk, are not found any more once that is unloaded.
        let mut paths = linker::paths(&cache, name).into_iter().filter(|path| !path.starts_with(HEALED));
        let Some(file) = paths.find_map(|path| fs::canonicalize(root.path(path)).ok()) else { continue };
        let Some(version) = version_of(&file) else { continue };
        // Made for drivers of other versions: CUDA's forward compatibility.
        let is_compatible =
            file.components().any(|part| part.as_os_str().to_string_lossy().starts_with("compat"));
        if version == change.on_disk || is_compatible {
            continue;
        }
        let what = format!(
            "{} is of version {version}, the modules on disk are of {}",
            file.display(),
            change.on_disk
        );
        match name == CUDA && change.breaks(&version) {
            true => findings.refuse(what, remedy()),
            false => findings.warn(what, remedy()),
        }
    }
    Ok(())
}

/// The version in the name of a library's file, such as `libcuda.so.550.163.01`.
fn version_of(file: &Path) -> Option<String> {
    let (_, version) = file.file_name()?.to_str()?.split_once(".so.")?;
    is_driver_version(version).then(|| version.to_owned())
}

fn service(root: &Root, service: &Service, change: Change<'_>, findings: &mut Findings) -> Result<()> {
    let program = root.path(service.program);
    if !program.try_exists().with_context(|| format!("look for {}", program.display()))? {
        return Ok(());
    }
    let Some(version) = packages::version(root, service.package)?.or_else(|| of_rpm(root, &program)) else {
        return Ok(());
    };
    if version == change.on_disk || !is_driver_version(&version) {
        return Ok(());
    }
    let what = format!(
        "{} is of version {version}, the modules on disk are of {}, and it works with its own only",
        service.name, change.on_disk
    );
    let remedy = format!("install {} of version {}", service.name, change.on_disk);
    match change.breaks(&version) && is_running(root, service.unit) {
        true => findings.refuse(what, remedy),
        false => findings.warn(what, remedy),
    }
    Ok(())
}

/// Whether the unit has processes: its control group is there then, in one hierarchy or the other.
fn is_running(root: &Root, unit: &str) -> bool {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd"].iter().any(|hierarchy| {
        let path = root.path(hierarchy).join("system.slice").join(unit).join("cgroup.procs");
        fs::read_to_string(path).is_ok_and(|processes| !processes.trim().is_empty())
    })
}

/// The version of the package that `program` belongs to, where packages are RPM's, whose data base only RPM
/// reads.
fn of_rpm(root: &Root, program: &Path) -> Option<String> {
    let rpm = root.path("/usr/bin/rpm");
    let mut command = Command::new(rpm);
    command.args(["--query", "--queryformat", "%{VERSION}", "--file"]).arg(program);
    command.env("LC_ALL", "C").stderr(Stdio::null());
    // Without RPM, or where the program is of no package, there is nothing to know; nor where a
    // transaction holds RPM's data base.
    let (status, output) = bounded::child(&mut command, Instant::now() + RPM, 4096).ok()?;
    String::from_utf8(output).ok().filter(|_| status.success()).filter(|version| is_driver_version(version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use step::Verdict;

    #[test]
    fn a_version_is_in_the_name_of_the_file() {
        for (name, version) in [
            ("libcuda.so.550.163.01", Some("550.163.01")),
            ("libcuda.so.595.58", Some("595.58")),
            ("libcuda.so.1", None),
            ("libnvidia-opencl.so.1.0.0", None),
            ("libcuda.so.550", None),
            ("libcuda.so.550.x", None),
            ("libcuda.so", None),
        ] {
            assert_eq!(version_of(&Path::new("/usr/lib").join(name)).as_deref(), version, "{name}");
        }
    }

    #[test]
    fn what_works_now_and_would_not_is_refused() {
        let change = Change { loaded: Some("535.1"), on_disk: "550.1" };
        let judge = |version: &str, is_running: bool| {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let root = Root::at(directory.path());
            let write = |path: &str, text: &str| golden::write(&root, path, text);
            write("/usr/bin/nv-fabricmanager", "");
            write(
                "/var/lib/dpkg/status",
                &format!(
                    "Package: nvidia-fabricmanager-1\nStatus: install ok installed\nVersion: {version}-1\n"
                ),
            );
            if is_running {
                write("/sys/fs/cgroup/system.slice/nvidia-fabricmanager.service/cgroup.procs", "7\n");
            }
            let mut findings = Findings::default();
            assess(&root, change, &mut findings).expect("looks");
            let (verdict, _, warnings) = findings.verdict();
            (verdict, warnings.len())
        };
        assert_eq!(judge("550.1", true), (Verdict::Ready, 0));
        assert_eq!(judge("535.1", true), (Verdict::Refused, 0));
        assert_eq!(judge("535.1", false), (Verdict::Ready, 1));
        assert_eq!(judge("525.1", true), (Verdict::Ready, 1));
    }
}
