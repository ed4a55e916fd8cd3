// SPDX-License-Identifier: MIT
//! GPU memory that is part of the system's memory: on Grace (GH200, GB200) the driver puts it online as a NUMA node
//! when a GPU is first opened, and takes it offline when the last user has closed the GPU. If the kernel cannot move
//! what lies there, that fails, and the close reports no error: the driver unloads all the same, and the kernel goes on
//! with memory of a GPU that has no driver.
//!
//! Names and states are those of NVIDIA's open kernel modules (nv-procfs.c, os-interface.c; read at 595.45.04).

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use step::Root;

use crate::watched::{NotRead, read_in_child};

/// Where the driver lists its GPUs.
const GPUS: &str = "/proc/driver/nvidia/gpus";

/// How `/proc/iomem` names such memory while the kernel has it.
const NAME: &str = "System RAM (NVIDIA)";

/// How long the driver may take to answer for all GPUs: it does not while it starts or stops one.
pub const ANSWER: Duration = Duration::from_secs(30);

/// How the memory of a GPU is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Onlined {
    /// The kernel does not use it.
    Offline,
    /// On its way from there.
    OnlineInProgress,
    /// It is a NUMA node.
    Online,
    /// The kernel did not take it; the driver does not start this GPU.
    OnlineFailed,
    /// On its way back.
    OfflineInProgress,
    /// The kernel still uses it, or a part of it.
    OfflineFailed,
    /// The driver does not say: it has a node for each MIG instance.
    NotTold,
    /// The driver did not answer in time.
    NoAnswer,
}

/// A GPU whose memory may be part of the system's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuMemory {
    /// Its PCI address.
    pub pci: String,
    /// The NUMA node, where the driver says which.
    pub node: Option<u32>,
    /// How it is.
    pub is: Onlined,
}

impl GpuMemory {
    /// Whether the kernel does not use it.
    pub fn is_offline(&self) -> bool {
        matches!(self.is, Onlined::Offline | Onlined::OnlineFailed)
    }
}

impl std::fmt::Display for GpuMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the memory of GPU {}", self.pci)?;
        self.node.map_or(Ok(()), |node| write!(f, " (NUMA node {node})"))
    }
}

/// The GPUs whose memory may be part of the system's; none where the driver manages its memory alone: PCIe cards, and
/// Grace with `NVreg_CoherentGPUMemoryMode=driver`. The driver has `time` to answer for all of them.
///
/// # Errors
/// The driver's list or a file there cannot be read, or says what is not known.
pub fn gpu_memory(root: &Root, time: Duration) -> Result<Vec<GpuMemory>> {
    let list = root.path(GPUS);
    let entries = match fs::read_dir(&list) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", list.display())),
    };
    let until = Instant::now() + time;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("read {}", list.display()))?;
        let pci = entry.file_name().to_string_lossy().into_owned();
        found.extend(of_gpu(pci, &entry.path().join("numa_status"), until)?);
    }
    found.sort_by(|one, other| one.pci.cmp(&other.pci));
    Ok(found)
}

/// Whether the kernel has memory of a GPU that is offline, which a driver has left there. None of `gpus` is online.
///
/// # Errors
/// `/proc/iomem` cannot be read.
pub fn is_left_behind(root: &Root, gpus: &[GpuMemory]) -> Result<bool> {
    Ok(gpus.iter().all(GpuMemory::is_offline) && is_used(root)?)
}

/// Why no driver can be loaded again until the machine is rebooted, a sentence each: the kernel uses memory of `gpus`
/// and did not give it up.
///
/// # Errors
/// `/proc/iomem` cannot be read.
pub fn only_a_reboot(root: &Root, gpus: &[GpuMemory]) -> Result<Vec<String>> {
    let kept = gpus.iter().filter(|gpu| gpu.is == Onlined::OfflineFailed);
    let mut why: Vec<String> =
        kept.map(|gpu| format!("{gpu} could not be taken offline: the kernel still uses it")).collect();
    if is_left_behind(root, gpus)? {
        why.push("no GPU has its memory online, and /proc/iomem lists System RAM (NVIDIA): the kernel still uses memory of a GPU that an earlier driver put online".to_owned());
    }
    Ok(why)
}

/// Whether the kernel has memory of any GPU.
///
/// # Errors
/// `/proc/iomem` cannot be read.
pub fn is_used(root: &Root) -> Result<bool> {
    let path = root.path("/proc/iomem");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().any(|line| line.split_once(" : ").is_some_and(|(_, name)| name == NAME))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn of_gpu(pci: String, path: &Path, until: Instant) -> Result<Option<GpuMemory>> {
    let text = match read_in_child(path, until)? {
        Ok(text) => text,
        // The driver has the file where it may put memory online.
        Err(NotRead::Failed(Errno::ENOENT)) => return Ok(None),
        Err(NotRead::Failed(Errno::EIO)) => {
            return Ok(Some(GpuMemory { pci, node: None, is: Onlined::NotTold }));
        }
        Err(NotRead::Stuck) => return Ok(Some(GpuMemory { pci, node: None, is: Onlined::NoAnswer })),
        Err(NotRead::Failed(errno)) => return Err(errno).with_context(|| format!("read {}", path.display())),
    };
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let is = match value("Status:") {
        Some("disabled") => return Ok(None),
        Some("offline") => Onlined::Offline,
        Some("online_in_progress") => Onlined::OnlineInProgress,
        Some("online") => Onlined::Online,
        Some("online_failed") => Onlined::OnlineFailed,
        Some("offline_in_progress") => Onlined::OfflineInProgress,
        Some("offline_failed") => Onlined::OfflineFailed,
        other => bail!("{}: unknown status {:?}", path.display(), other.unwrap_or_default()),
    };
    Ok(Some(GpuMemory { pci, node: value("Node:").and_then(|node| node.parse().ok()), is }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPU: &str = "/proc/driver/nvidia/gpus/0009:01:00.0";

    fn machine(status: Option<&str>, iomem: &str) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        fs::create_dir_all(root.path(GPU)).expect("creates");
        fs::write(root.path("/proc/iomem"), iomem).expect("writes");
        if let Some(status) = status {
            fs::write(root.path(GPU).join("numa_status"), status).expect("writes");
        }
        (directory, root)
    }

    #[test]
    fn each_state_of_the_driver_is_known() {
        for (text, expected) in [
            (
                "Node:      1\nStatus:    online\nAddress:   2000000000\nSize:      1800000000\n",
                Onlined::Online,
            ),
            ("Node:      1\nStatus:    offline\n", Onlined::Offline),
            ("Node:      1\nStatus:    online_in_progress\n", Onlined::OnlineInProgress),
            ("Node:      1\nStatus:    online_failed\n", Onlined::OnlineFailed),
            ("Node:      1\nStatus:    offline_in_progress\n", Onlined::OfflineInProgress),
            ("Node:      1\nStatus:    offline_failed\n", Onlined::OfflineFailed),
        ] {
            let (_directory, root) = machine(Some(text), "");
            let gpu = GpuMemory { pci: "0009:01:00.0".into(), node: Some(1), is: expected };
            assert_eq!(gpu_memory(&root, ANSWER).expect("reads"), [gpu], "{text}");
        }
        for text in ["", "Node:      1\n", "Node:      1\nStatus:    invalid\n"] {
            let (_directory, root) = machine(Some(text), "");
            let error = format!("{:#}", gpu_memory(&root, ANSWER).expect_err("is not known"));
            assert!(error.contains("numa_status: unknown status"), "{error}");
        }
    }

    #[test]
    fn a_gpu_without_such_memory_has_none() {
        for status in [None, Some("Node:      -1\nStatus:    disabled\n")] {
            let (_directory, root) = machine(status, "");
            assert_eq!(gpu_memory(&root, ANSWER).expect("reads"), []);
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(gpu_memory(&Root::at(directory.path()), ANSWER).expect("reads"), []);
    }

    #[test]
    fn what_a_driver_has_left_to_the_kernel_is_seen_where_none_is_online() {
        let iomem = "80000000-ffffffff : System RAM\n2000000000-202fffffff : System RAM (NVIDIA)\n";
        let offline = "Node:      1\nStatus:    offline\n";
        for (status, iomem, expected) in [
            (Some(offline), iomem, true),
            (None, iomem, true),
            (Some(offline), "80000000-ffffffff : System RAM\n", false),
            (Some("Node:      1\nStatus:    online\n"), iomem, false),
            (Some("Node:      1\nStatus:    offline_in_progress\n"), iomem, false),
        ] {
            let (_directory, root) = machine(status, iomem);
            let gpus = gpu_memory(&root, ANSWER).expect("reads");
            assert_eq!(is_left_behind(&root, &gpus).expect("reads"), expected, "{status:?}");
            assert_eq!(only_a_reboot(&root, &gpus).expect("reads").len(), usize::from(expected));
        }
    }
}
