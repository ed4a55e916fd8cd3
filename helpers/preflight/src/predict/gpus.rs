// SPDX-License-Identifier: MIT
//! Whether the new driver supports the GPUs of this machine: open and proprietary modules each leave some out,
//! and so does every new branch.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use step::Root;

use super::firmware::is_open;
use super::unpack::{self, Content};
use super::{Found, driver};
use crate::findings::Findings;

/// The first device number of Turing: the open modules serve none before (their README), since they need the
/// processor that runs the firmware.
const TURING: u16 = 0x1e00;
/// The first device number of Blackwell: from there on there are only the open modules.
const BLACKWELL: u16 = 0x2900;
/// GH200: a GPU of Hopper that hangs on a Grace, and needs them too.
const GRACE_HOPPER: [u16; 2] = [0x2342, 0x2348];

/// A generation with which branches ended.
struct Ended {
    /// The first branch without what was before it.
    branch: u32,
    /// The last branch that has it.
    last: u32,
    /// The first device number that is still served, and the generation that it is of.
    first: u16,
    generation: &'static str,
}

/// From NVIDIA's release notes. Kepler went first; Maxwell, Pascal and Volta together.
const ENDED: [Ended; 2] = [
    Ended { branch: 495, last: 470, first: 0x1340, generation: "Maxwell" },
    Ended { branch: 590, last: 580, first: TURING, generation: "Turing" },
];

/// What decides of a driver which GPUs it supports.
#[derive(Debug, Clone, Copy, Default)]
struct Kind {
    /// Its modules are the open ones.
    is_open: bool,
    /// Such as 580; none where the version does not say it.
    branch: Option<u32>,
}

impl Kind {
    fn of(driver: &Found) -> Self {
        let branch =
            driver.file.version.as_deref().and_then(|version| version.split('.').next()?.parse().ok());
        Self { is_open: is_open(driver), branch }
    }
}

/// A GPU as PCI knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Gpu {
    address: String,
    device: u16,
}

/// NVIDIA's own list of what a driver supports, as it comes with the driver (`supported-gpus.json`).
#[derive(Debug, Default, Deserialize)]
struct List {
    chips: Vec<Chip>,
}

#[derive(Debug, Deserialize)]
struct Chip {
    /// Such as `0x1EB8`.
    devid: String,
    name: String,
    /// The branch that is the last to serve it, where this one does not.
    legacybranch: Option<String>,
    #[serde(default)]
    features: Vec<String>,
}

impl Chip {
    fn is(&self, device: u16) -> bool {
        let digits = self.devid.trim_start_matches("0x").trim_start_matches("0X");
        u16::from_str_radix(digits, 16).is_ok_and(|id| id == device)
    }

    fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|known| known == feature)
    }
}

/// Judges the driver in `found` by the GPUs that are bound to the loaded one.
///
/// # Errors
/// The GPUs are not known.
pub(crate) fn assess(root: &Root, found: &[Found], findings: &mut Findings) -> Result<()> {
    let Some(driver) = driver(found) else { return Ok(()) };
    let lists = lists(root)?;
    let kind = Kind::of(driver);
    for gpu in gpus(root)? {
        let said: Vec<Support> = match lists.as_slice() {
            [] => vec![by_number(&gpu, kind)],
            lists => lists.iter().map(|(path, list)| by_list(&gpu, list, path, kind)).collect(),
        };
        // Where there are several lists, one is of another driver: only what they agree on is certain.
        if said.iter().all(|said| matches!(said, Support::Unsupported(..))) {
            if let Some(Support::Unsupported(what, remedy)) = said.into_iter().next() {
                findings.refuse(format!("the GPU {} {what}", gpu.address), remedy);
            }
        } else if said.iter().all(|said| *said != Support::Supported) {
            for said in said {
                if let Support::Unknown(what) = said {
                    findings.warn(
                        format!("the GPU {} {what}", gpu.address),
                        "if the driver does not support it, the run is rolled back",
                    );
                }
            }
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Support {
    Supported,
    Unknown(String),
    Unsupported(String, String),
}

const OPEN: &str = "install the driver with the open modules";
const PROPRIETARY: &str = "install the driver with the proprietary modules";

fn by_number(gpu: &Gpu, kind: Kind) -> Support {
    let has_ended =
        |ended: &&Ended| kind.branch.is_some_and(|branch| branch >= ended.branch) && gpu.device < ended.first;
    if let Some(ended) = ENDED.iter().find(has_ended) {
        return Support::Unsupported(
            format!(
                "(10de:{:04x}) is older than {}, and drivers from {} on do not support it",
                gpu.device, ended.generation, ended.branch
            ),
            // Also there the open modules do not serve it.
            format!("install a driver of the branch {}, with the proprietary modules", ended.last),
        );
    }
    match (kind.is_open, gpu.device) {
        (true, ..TURING) => Support::Unsupported(
            format!("(10de:{:04x}) is older than Turing, and the open modules do not support it", gpu.device),
            PROPRIETARY.into(),
        ),
        (false, BLACKWELL..) => Support::Unsupported(
            format!("(10de:{:04x}) is Blackwell or newer, and only the open modules support it", gpu.device),
            OPEN.into(),
        ),
        (false, device) if GRACE_HOPPER.contains(&device) => Support::Unsupported(
            format!("(10de:{device:04x}) is Grace Hopper, and only the open modules support it"),
            OPEN.into(),
        ),
        _ => Support::Supported,
    }
}

fn by_list(gpu: &Gpu, list: &List, path: &Path, kind: Kind) -> Support {
    let chips: Vec<&Chip> = list.chips.iter().filter(|chip| chip.is(gpu.device)).collect();
    let Some(first) = chips.first() else {
        // Boards that are newer than the list, and some that NVIDIA lists nowhere.
        return match by_number(gpu, kind) {
            Support::Supported => {
                Support::Unknown(format!("(10de:{:04x}) is not in {}", gpu.device, path.display()))
            }
            refused => refused,
        };
    };
    let name = &first.name;
    if let Some(branch) = &first.legacybranch
        && chips.iter().all(|chip| chip.legacybranch.is_some())
    {
        return Support::Unsupported(
            format!("({name}) is no longer supported: {branch} was the last branch that did"),
            format!("install a driver of the branch {branch}"),
        );
    }
    let tells_proprietary = list.chips.iter().any(|chip| chip.has("gsp_proprietary_supported"));
    let is_only_open =
        chips.iter().all(|chip| chip.has("kernelopen") && !chip.has("gsp_proprietary_supported"));
    if !kind.is_open && tells_proprietary && is_only_open && gpu.device >= BLACKWELL {
        return Support::Unsupported(format!("({name}) is supported by the open modules only"), OPEN.into());
    }
    match by_number(gpu, kind) {
        // Early open modules served some GPUs only with NVreg_OpenRmEnableUnsupportedGpus.
        Support::Supported if kind.is_open && !chips.iter().any(|chip| chip.has("kernelopen")) => {
            Support::Unknown(format!("({name}) is not among those of the open modules in {}", path.display()))
        }
        said => said,
    }
}

fn gpus(root: &Root) -> Result<Vec<Gpu>> {
    let mut found = Vec::new();
    for address in modules::gpus(root)? {
        let directory = root.path("/sys/bus/pci/devices").join(&address);
        let number = |name: &str| -> Result<u32> {
            let path = directory.join(name);
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let digits = text.trim().trim_start_matches("0x");
            u32::from_str_radix(digits, 16).with_context(|| format!("{}: {text:?}", path.display()))
        };
        // Displays and 3D controllers: other things of NVIDIA's are in no list.
        if number("class")? >> 16 == 0x03 {
            let device = u16::try_from(number("device")?).context("a PCI device's number has 16 bits")?;
            found.push(Gpu { address, device });
        }
    }
    Ok(found)
}

/// Where a driver's documents are: each package has a folder there. Then one that the driver has by itself.
const DOCUMENTS: [&str; 3] = ["/usr/share/doc", "/usr/share/doc/packages", "/usr/share"];

/// The lists that are installed. One that cannot be read says nothing.
fn lists(root: &Root) -> Result<Vec<(PathBuf, List)>> {
    let mut found = Vec::new();
    for documents in DOCUMENTS.map(|documents| root.path(documents)) {
        let entries = match fs::read_dir(&documents) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("read {}", documents.display())),
        };
        for entry in entries {
            let entry = entry.with_context(|| format!("read {}", documents.display()))?;
            // nvidia-driver-550 and the like; NVIDIA's own installer has NVIDIA_GLX-1.0.
            if entry.file_name().to_string_lossy().to_lowercase().starts_with("nvidia") {
                found.extend(in_folder(&entry.path()));
            }
        }
    }
    Ok(found)
}

/// The lists in a package's folder. Debian compresses documents, others may.
fn in_folder(folder: &Path) -> Vec<(PathBuf, List)> {
    let mut found = Vec::new();
    for name in ["supported-gpus.json", "supported-gpus/supported-gpus.json"] {
        for suffix in ["", ".gz", ".xz", ".zst"] {
            let path = folder.join(format!("{name}{suffix}"));
            let text = match unpack::content(&path) {
                Ok(Content::Plain(..)) => fs::read(&path).ok(),
                Ok(Content::Unpacked(text)) => Some(text),
                Ok(Content::Damaged(_)) | Err(_) => None,
            };
            match text.map(|text| serde_json::from_slice(&text)) {
                Some(Ok(list)) => found.push((path, list)),
                Some(Err(error)) => step::say(&format!("{} does not list its GPUs: {error}", path.display())),
                None => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"chips": [
        {"devid": "0x1EB8", "name": "Tesla T4", "features": ["kernelopen", "gsp_proprietary_supported"]},
        {"devid": "0x1DB6", "name": "V100", "legacybranch": "580.xx", "features": ["vdpaufeaturesetI"]},
        {"devid": "0x2B85", "name": "RTX 5090", "features": ["kernelopen"]},
        {"devid": "0x1E04", "name": "RTX 2080 Ti", "features": []},
        {"devid": "junk", "name": "", "other": 1}
    ]}"#;

    fn gpu(device: u16) -> Gpu {
        Gpu { address: "0000:01:00.0".into(), device }
    }

    fn word(said: &Support) -> &'static str {
        match said {
            Support::Supported => "served",
            Support::Unknown(_) => "unknown",
            Support::Unsupported(..) => "refused",
        }
    }

    #[test]
    fn a_list_says_what_is_served() {
        let list: List = serde_json::from_str(LIST).expect("decodes");
        for (device, open, proprietary) in [
            (0x1eb8, "served", "served"),
            (0x1db6, "refused", "refused"),
            (0x2b85, "served", "refused"),
            (0x1e04, "unknown", "served"),
            (0x2330, "unknown", "unknown"),
            (0x1b80, "refused", "unknown"),
        ] {
            let said =
                |is_open| by_list(&gpu(device), &list, Path::new("list"), Kind { is_open, branch: None });
            assert_eq!((word(&said(true)), word(&said(false))), (open, proprietary), "{device:x}");
        }
    }

    #[test]
    fn without_a_list_the_number_tells_what_is_certain() {
        for (device, open, proprietary) in [
            (0x1db6, "refused", "served"),
            (0x1e02, "served", "served"),
            (0x2330, "served", "served"),
            (0x2901, "served", "refused"),
        ] {
            let said = |is_open| by_number(&gpu(device), Kind { is_open, branch: None });
            assert_eq!((word(&said(true)), word(&said(false))), (open, proprietary), "{device:x}");
        }
    }

    #[test]
    fn a_list_is_read_wherever_a_distribution_has_it() {
        for (path, form) in [
            ("/usr/share/doc/nvidia-driver/supported-gpus.json", None),
            ("/usr/share/doc/nvidia-driver/supported-gpus.json.gz", Some(golden::Form::Gzip)),
            ("/usr/share/doc/NVIDIA_GLX-1.0/supported-gpus/supported-gpus.json", None),
            (
                "/usr/share/doc/packages/nvidia-compute-G06/supported-gpus/supported-gpus.json.xz",
                Some(golden::Form::Xz),
            ),
            ("/usr/share/nvidia/supported-gpus/supported-gpus.json", None),
        ] {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let root = Root::at(directory.path());
            assert!(lists(&root).expect("looks").is_empty());
            let file = root.path(path);
            fs::create_dir_all(file.parent().expect("has a parent")).expect("creates");
            let content = form.map_or(LIST.into(), |form| golden::packed(form, LIST.as_bytes()));
            fs::write(&file, content).expect("writes");
            let found = lists(&root).expect("looks");
            assert_eq!(found.len(), 1, "{path}");
            assert_eq!((found[0].0.as_path(), found[0].1.chips.len()), (file.as_path(), 5));
        }
    }

    #[test]
    fn branches_end_with_generations() {
        for (device, branch, is_open, expected) in [
            // Kepler, Pascal, Volta, Turing.
            (0x102d, 470, false, "served"),
            (0x102d, 495, false, "refused: 470"),
            (0x102d, 595, true, "refused: 470"),
            (0x1b38, 580, false, "served"),
            (0x1b38, 590, false, "refused: 580"),
            (0x1db6, 580, true, "refused"),
            (0x1db6, 595, true, "refused: 580"),
            (0x1db6, 620, true, "refused: 580"),
            (0x1eb8, 620, true, "served"),
            (0x2342, 590, false, "refused"),
            (0x2342, 590, true, "served"),
        ] {
            let said = by_number(&gpu(device), Kind { is_open, branch: Some(branch) });
            let mut text = word(&said).to_owned();
            if let Support::Unsupported(_, remedy) = &said
                && let Some((_, rest)) = remedy.split_once("the branch ")
            {
                text += &format!(": {}", rest.split(',').next().unwrap_or_default());
            }
            assert_eq!(text, expected, "{device:x} {branch}");
        }
    }
}
