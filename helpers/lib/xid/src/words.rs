// SPDX-License-Identifier: MIT
//! Messages in a few words, for people.

use std::fmt;

use crate::{Detail, Event, Location, Severity, Xid, catalogue};

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.function {
            Some(function) => write!(f, "{}.{function}", self.pci),
            None => write!(f, "{}", self.pci),
        }
    }
}

impl fmt::Display for Event {
    /// What it is, without the address of the GPU.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_gpu =
            |gpu: &Option<u32>| gpu.map_or(String::new(), |gpu| format!(" of the driver's GPU {gpu}"));
        match self {
            Event::Xid(xid) => self::xid(xid, f),
            Event::Sxid(sxid) => {
                let severity = match sxid.severity {
                    Severity::Fatal if sxid.always_fatal => "fatal for all switches",
                    Severity::Fatal => "fatal",
                    Severity::Nonfatal => "not fatal",
                    Severity::Correctable => "corrected",
                };
                write!(f, "SXid {} of switch {}, {severity}: {}", sxid.sxid, sxid.switch, sxid.msg)
            }
            Event::SxidData { switch, sxid, .. } => write!(f, "registers of SXid {sxid} of switch {switch}"),
            Event::GpuLost(lost) if lost.dedup_of.is_none() => {
                f.write_str("the GPU was not on the bus when the driver looked for it")
            }
            Event::GpuLost(_) => f.write_str("the GPU has fallen off the bus"),
            Event::GpuSerial { serial, .. } => write!(f, "serial number {serial}"),
            Event::GpuUuid { uuid, .. } => f.write_str(uuid),
            Event::RmInitFailed { code, .. } => write!(f, "the GPU did not start ({code})"),
            Event::GspInitFailed { gpu_instance } => {
                write!(f, "the firmware{} did not start", of_gpu(gpu_instance))
            }
            Event::Wpr2Up { gpu_instance } => write!(
                f,
                "the protected memory{} is still set up from before; a reload of the driver does not clear it",
                of_gpu(gpu_instance)
            ),
            Event::GspRatelimit { .. } => f.write_str("the GPU's firmware repeatedly fails to answer"),
            Event::ProbeFailed { count } => {
                write!(f, "the driver could not take {count} device{}", if *count == 1 { "" } else { "s" })
            }
            Event::NeedsOpenModule { .. } => f.write_str("only the open kernel modules support this GPU"),
            Event::ApiMismatch(mismatch) => {
                f.write_str("version mismatch: ")?;
                match (&mismatch.client, mismatch.pid) {
                    (Some(client), Some(pid)) => write!(f, "process {pid} ({client})")?,
                    _ => f.write_str("a program")?,
                }
                write!(f, " has {}, the driver is {}", mismatch.client_version, mismatch.module_version)
            }
            Event::DriverLoad { version, open } => {
                write!(
                    f,
                    "driver {version} was loaded{}",
                    if *open { ", the open kernel modules" } else { "" }
                )
            }
            Event::UvmFatal { error } => {
                write!(f, "UVM met a fatal error ({error}) that only a reboot clears, for every GPU")
            }
            Event::UnbindWait { .. } => f.write_str("the GPU is being removed while it is in use"),
            Event::UnbindDone { .. } => f.write_str("the GPU is no longer in use, its removal continues"),
            Event::ModesetLoad { version } => write!(f, "nvidia-modeset {version} was loaded"),
            Event::ModesetUnload => f.write_str("nvidia-modeset is being unloaded"),
            Event::ModesetError(error) if error.stuck => {
                write!(f, "nvidia-modeset waits for its GPU {}, which does not move", error.gpu_index)
            }
            Event::ModesetError(error) => {
                write!(f, "nvidia-modeset has an error on its GPU {}: {}", error.gpu_index, error.msg)
            }
            Event::ModesetWarning { gpu_index } => {
                write!(f, "nvidia-modeset warns of its GPU {gpu_index}")
            }
            Event::NvlinkRxdetFailed => f.write_str("the NVLinks to the other GPUs were not found"),
        }
    }
}

fn xid(xid: &Xid, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "Xid {}", xid.xid)?;
    if let Some(entry) = catalogue::entry(xid.xid)
        && entry.title != catalogue::UNUSED
        && !xid.msg.starts_with(entry.title)
    {
        write!(f, " {}", entry.title)?;
    }
    match (xid.gi, xid.ci) {
        (Some(gi), Some(ci)) => write!(f, " in MIG instance {gi}/{ci}")?,
        (Some(gi), None) => write!(f, " in MIG instance {gi}")?,
        _ => {}
    }
    match (xid.pid, &xid.name) {
        (Some(pid), Some(name)) => write!(f, ", process {pid} ({name})")?,
        (Some(pid), None) => write!(f, ", process {pid}")?,
        _ => {}
    }
    match &xid.detail {
        Detail::Recovery { action_from, action_to } => {
            let (from, to) =
                (catalogue::recovery_action(*action_from), catalogue::recovery_action(*action_to));
            write!(f, ": from {from} to {to}")
        }
        _ if xid.msg.is_empty() => Ok(()),
        _ => write!(f, ": {}", xid.msg),
    }
}
