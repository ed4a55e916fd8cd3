//! The driver: what is loaded, what is on disk, and whether the one can take the other's place.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use modules::{DRIVER, Disk, File, Loaded, State, slots};
use step::{Context, Versions};

use crate::findings::Findings;

pub(crate) fn assess(context: &Context, loaded: &[Loaded], findings: &mut Findings) -> Result<Versions> {
    for module in loaded {
        match module.state {
            State::Live => {}
            State::Going => findings.reboot(
                format!("{} is stuck on its way out of the kernel", module.module.name),
                "reboot the machine",
            ),
            State::Coming => findings.refuse(
                format!("{} is still being loaded", module.module.name),
                "wait until it is; if it never is, reboot the machine",
            ),
        }
    }
    let driver = loaded.iter().find(|module| module.module.name == DRIVER);
    if driver.is_none() {
        findings.refuse(
            "the NVIDIA driver is not loaded, there is nothing to reload",
            "`modprobe nvidia` loads it",
        );
    }
    if loaded.iter().any(|module| module.module.name == "nvidia_vgpu_vfio") {
        findings.refuse(
            "nvidia_vgpu_vfio is loaded: the virtual GPUs of this vGPU host would vanish under their machines",
            "move or shut down the virtual machines, and change the driver with a reboot",
        );
    }
    let disk = Disk::open(&context.root)?;
    let files = on_disk(&disk, loaded, findings)?;
    container_managed(context, findings)?;
    let versions = Versions {
        loaded: driver.and_then(|driver| driver.module.version.clone()),
        on_disk: match files.iter().find(|file| file.name == DRIVER) {
            Some(file) => file.version.clone(),
            None => disk.find(DRIVER)?.and_then(|file| file.version),
        },
    };
    way_back(context, &disk, loaded, &files, findings)?;
    Ok(versions)
}

/// The files for what is loaded: all there, for this kernel, of one version.
fn on_disk(disk: &Disk, loaded: &[Loaded], findings: &mut Findings) -> Result<Vec<File>> {
    let release = nix::sys::utsname::uname().context("ask the kernel for its release")?;
    let release = release.release().to_string_lossy();
    let mut files = Vec::new();
    for module in loaded {
        let name = &module.module.name;
        match disk.find(name) {
            Ok(Some(file)) => files.push(file),
            Ok(None) => findings.refuse(
                format!("there is no file on disk for {name} and kernel {release}"),
                "build or install the driver's modules for the running kernel",
            ),
            Err(error) => findings.refuse(
                format!("the file on disk for {name} cannot be used: {error:#}"),
                "install the driver's modules again",
            ),
        }
    }
    for file in &files {
        let built_for = file.vermagic.as_deref().and_then(|magic| magic.split(' ').next());
        if built_for != Some(&*release) {
            findings.refuse(
                format!(
                    "{} is built for kernel {}, and {release} runs",
                    file.path.display(),
                    built_for.unwrap_or("unknown")
                ),
                "build the driver's modules for the running kernel",
            );
        }
    }
    let nvidia = |file: &&File| file.name.starts_with(DRIVER) && file.version.is_some();
    let of_driver: BTreeSet<&str> =
        files.iter().filter(nvidia).filter_map(|file| file.version.as_deref()).collect();
    // Modules of other people that hang on the driver have versions of their own.
    let driver = files.iter().find(|file| file.name == DRIVER).and_then(|file| file.version.as_deref());
    for module in ["nvidia_modeset", "nvidia_uvm", "nvidia_drm", "nvidia_peermem"] {
        let Some(file) = files.iter().find(|file| file.name == module) else { continue };
        if file.version.as_deref() != driver {
            findings.refuse(
                format!(
                    "the modules on disk are of several versions: {}",
                    of_driver.iter().copied().collect::<Vec<_>>().join(", ")
                ),
                "finish the upgrade of the driver's packages",
            );
            break;
        }
    }
    Ok(files)
}

/// A driver that lives in a container is loaded and unloaded by that container.
fn container_managed(context: &Context, findings: &mut Findings) -> Result<()> {
    let path = context.root.path("/run/nvidia/driver");
    if path.try_exists().with_context(|| format!("look for {}", path.display()))? {
        findings.refuse(
            "/run/nvidia/driver is there: the driver is managed from a container",
            "let the GPU operator change it",
        );
    }
    Ok(())
}

/// Whether the loaded driver could serve again, should the one on disk not.
fn way_back(
    context: &Context,
    disk: &Disk,
    loaded: &[Loaded],
    files: &[File],
    findings: &mut Findings,
) -> Result<()> {
    let mut lost: Vec<&Loaded> =
        loaded.iter().filter(|module| !files.iter().any(|file| file.is(&module.module))).collect();
    if !lost.is_empty() {
        let kept = slots(&context.root, disk)?;
        lost.retain(|module| !kept.iter().any(|slot| slot.find(&module.module).is_some()));
    }
    if !lost.is_empty() {
        let lost: Vec<&str> = lost.iter().map(|module| module.module.name.as_str()).collect();
        findings.warn(
            format!("no copy of the loaded {} is kept: should the new driver fail, the old one cannot come back", lost.join(", ")),
            "install the old version again and run `systemctl start nvidia-reload-keep.service`, if that must not be",
        );
    }
    Ok(())
}
