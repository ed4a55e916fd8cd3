// SPDX-License-Identifier: MIT
//! The machine booted once and frozen: each run wakes it in seconds.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Result, bail};

use crate::accel::Accel;
use crate::cache::{Cache, Key, Stage};
use crate::disk::overlay;
use crate::machine::{self, Machine, Spec, disk_in};
use crate::progress::Work;

use super::package::{NVML_SIM, StandIns};

/// The bare machine, up and at rest.
pub fn booted(cache: &Cache, image: &Stage, spec: &Spec, accel: &Accel) -> Result<Stage> {
    let key = machine::key(Key::new("booted 1").on(image), spec, accel);
    let what = format!("the booted machine ({})", named(spec));
    cache.get(&kind("booted", spec), &what, key, &[image], |dir, work| {
        let disk = disk_in(dir);
        overlay(&accel.tools, &disk_in(image.folder()), &disk)?;
        let machine = Machine::boot(cache, image, &disk, spec, accel)?;
        settle(&machine, work)?;
        machine.freeze(dir)
    })
}

/// What the prepared machine is made of.
pub struct Parts<'a> {
    /// See [`super::image::image`].
    pub image: &'a Stage,
    /// See [`booted`].
    pub booted: &'a Stage,
    /// See [`super::package::hold`].
    pub hold: &'a Stage,
    /// Where scenarios are to run.
    pub stand_ins: Option<&'a StandIns>,
    /// See [`super::package::package`].
    pub product: Option<&'a Stage>,
}

/// The machine with `hold`, the stand-ins (not in the place of what they stand in for yet) and the product's
/// package, where they are asked for.
pub fn prepared(cache: &Cache, parts: &Parts<'_>, spec: &Spec, accel: &Accel) -> Result<Stage> {
    let Parts { image, booted, hold, stand_ins, product } = parts;
    let mut key = Key::new("prepared 2").on(image).on(booted).on(hold);
    if let Some(StandIns { kubelet_sim, nvml_sim }) = stand_ins {
        key = key.on(kubelet_sim).on(nvml_sim);
    }
    let mut key = machine::key(key, spec, accel);
    let mut what = format!("the machine with its tools ({})", named(spec));
    if let Some(product) = product {
        key = key.on(product);
        what = format!("the machine with nvidia-reload installed ({})", named(spec));
    }
    cache.get(&kind("prepared", spec), &what, key, &[image, booted], |dir, work| {
        let machine = Machine::resume(cache, image, booted, &disk_in(dir), spec, accel)?;
        let ssh = machine.ssh()?;
        ssh.send(&into(hold.folder(), "usr/local/bin", &["hold".into()]))?;
        if let Some(StandIns { kubelet_sim, nvml_sim }) = stand_ins {
            ssh.send(&into(kubelet_sim.folder(), "usr/local/bin", &["kubelet-sim".into()]))?;
            // The program looks for the library there.
            let [library, program] = NVML_SIM.map(OsString::from);
            ssh.send(&into(nvml_sim.folder(), "usr/local/lib/nvml-sim", &[library]))?;
            ssh.send(&into(nvml_sim.folder(), "usr/local/bin", &[program]))?;
        }
        if let Some(product) = product {
            let packages = super::package::installed_packages(product)?;
            ssh.send(&into(product.folder(), "root/package", &packages))?;
            work.detail("dpkg --install");
            // It saves the driver to a slot meanwhile; this waits for the end of that.
            ssh.output(
                "dpkg --install /root/package/*.deb && rm -r /root/package && systemctl start nvidia-reload-save-driver.service",
            )?;
        }
        settle(&machine, work)?;
        machine.freeze(dir)
    })
}

/// Waits until systemd has nothing more to do. A unit that failed is no start
/// for a test.
fn settle(machine: &Machine, work: &Work) -> Result<()> {
    work.detail("waiting until the machine is at rest");
    let ssh = machine.ssh()?;
    let state = ssh.output("systemctl is-system-running --wait || :")?;
    if state.trim() != "running" {
        let failed = ssh.output(
            "systemctl --failed --no-legend --plain; journalctl -b -p warning --no-pager | tail -30",
        )?;
        bail!("the machine came up {}:\n{failed}", state.trim());
    }
    Ok(())
}

/// Arguments for tar: these files of a folder, into a folder of the machine.
pub fn into(folder: &Path, target: &str, names: &[OsString]) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![
        "--owner=0".into(),
        "--group=0".into(),
        format!("--transform=s,^,{target}/,").into(),
        "-C".into(),
        folder.into(),
    ];
    arguments.extend_from_slice(names);
    arguments
}

fn kind(stage: &str, spec: &Spec) -> String {
    let kernel: String = spec.kernel.iter().map(|word| format!("-{}", word.replace('/', "_"))).collect();
    let lan = if spec.lan.is_some() { "-lan" } else { "" };
    format!("{}-{}gpu-{}{kernel}{lan}", spec.distro.stage(stage), spec.gpus, spec.driver)
}

fn named(spec: &Spec) -> String {
    let s = if spec.gpus == 1 { "" } else { "s" };
    let kernel: String = spec.kernel.iter().map(|word| format!(", {word}")).collect();
    let lan = if spec.lan.is_some() { ", on a network" } else { "" };
    format!("{}, {} GPU{s}, driver {}{kernel}{lan}", spec.distro, spec.gpus, spec.driver)
}
