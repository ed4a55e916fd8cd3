// SPDX-License-Identifier: MIT
//! Which GPUs a reset is for, and which have to go with them.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use gpu::{HELPER, Links, Question, Reading, State, ask_helper};
use xid::Address;

use crate::findings::Findings;

/// NVML is awake by then.
const TIME: Duration = Duration::from_secs(30);

/// A GPU of the reset, and why it is.
pub(crate) struct Pick {
    /// The PCI address, as the kernel writes it.
    pub(crate) pci: String,
    /// Why.
    pub(crate) why: String,
}

/// The GPUs that `ids` name, as nvidia-smi takes them (PCI address, UUID, NVML's index), and those that
/// can only be reset together with them. Empty where `ids` is, for all.
///
/// # Errors
/// NVML cannot be asked how they are linked.
pub(crate) fn pick(
    ids: &[String],
    state: Option<&State>,
    bound: &[String],
    fabric_manager: bool,
    findings: &mut Findings,
) -> Result<Vec<Pick>> {
    let mut picked: Vec<Pick> = Vec::new();
    for id in ids {
        match resolve(id, state, bound) {
            Some(pci) if picked.iter().any(|pick| pick.pci == pci) => {}
            Some(pci) => picked.push(Pick { pci, why: "asked for".into() }),
            None => findings.refuse(
                format!("{id} is no GPU of the driver's; those are {}", bound.join(", ")),
                "name a GPU by its PCI address, by its UUID or by its index (`nvidia-smi -L` shows them)",
            ),
        }
    }
    if picked.is_empty() || picked.len() == bound.len() {
        return Ok(picked);
    }
    match ask_helper::<Vec<Links>>(Path::new(HELPER), Question::Links, TIME) {
        Ok(Some(links)) => add_linked(&mut picked, &links, fabric_manager),
        Ok(None) => unknown("NVML did not answer", findings),
        Err(error) => unknown(&format!("{error:#}"), findings),
    }
    Ok(picked)
}

/// nvidia-smi refuses to reset some and not all of those that go together: then nothing is lost.
fn unknown(why: &str, findings: &mut Findings) {
    findings.warn(
        format!("which GPUs are linked by NVLink is not known: {why}"),
        "should the reset be refused for that, reset all GPUs: `nvidia-reload reset`",
    );
}

fn resolve(id: &str, state: Option<&State>, bound: &[String]) -> Option<String> {
    let is_bound = |pci: &str| {
        let address: Address = pci.parse().ok()?;
        bound.iter().find(|known| known.parse() == Ok(address)).cloned()
    };
    if let Some(pci) = is_bound(id) {
        return Some(pci);
    }
    let index: Option<u32> = id.parse().ok();
    let pci = state?.gpus.iter().find_map(|seen| match seen {
        Reading::Ok(gpu) if Some(gpu.index) == index || gpu.uuid == id => Some(&gpu.pci),
        Reading::Trouble { index: of, uuid, pci: Some(pci), .. }
            if Some(*of) == index || uuid.as_deref() == Some(id) =>
        {
            Some(pci)
        }
        _ => None,
    })?;
    is_bound(pci)
}

/// Adds what can only be reset together with what is picked (nvidia-smi's manual page, --gpu-reset):
/// before Ampere all that are linked; Ampere behind an NVSwitch all that are there, unless Fabric
/// Manager runs; later ones by themselves.
fn add_linked(picked: &mut Vec<Pick>, links: &[Links], fabric_manager: bool) {
    let mut at = 0;
    while let Some(pick) = picked.get(at) {
        let pci = pick.pci.clone();
        at += 1;
        let Some(of) = links.iter().find(|links| links.pci == pci) else { continue };
        let by_switch = of.switched && !of.is_hopper_or_later() && (of.is_before_ampere() || !fabric_manager);
        for other in links {
            let is_peer = of.is_before_ampere() && of.peers.contains(&other.pci);
            let goes = is_peer || (by_switch && other.switched);
            if goes && !picked.iter().any(|known| known.pci == other.pci) {
                let why = match is_peer {
                    true => {
                        format!("linked to GPU {pci} by NVLink: before Ampere such GPUs are reset together")
                    }
                    false => format!(
                        "behind the same NVSwitches as GPU {pci}: without Fabric Manager such GPUs are reset together"
                    ),
                };
                picked.push(Pick { pci: other.pci.clone(), why });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(pci: &str, architecture: u32, peers: &[&str], switched: bool) -> Links {
        let peers = peers.iter().map(ToString::to_string).collect();
        Links { pci: pci.into(), architecture: Some(architecture), peers, switched }
    }

    fn with(first: &str, links: &[Links], fabric_manager: bool) -> Vec<String> {
        let mut picked = vec![Pick { pci: first.into(), why: String::new() }];
        add_linked(&mut picked, links, fabric_manager);
        picked.into_iter().map(|pick| pick.pci).collect()
    }

    const VOLTA: u32 = 5;
    const AMPERE: u32 = 7;
    const HOPPER: u32 = 9;

    #[test]
    fn what_goes_together_by_generation_and_switch() {
        let direct = |architecture| {
            [
                links("a", architecture, &["b"], false),
                links("b", architecture, &["a", "c"], false),
                links("c", architecture, &["b"], false),
                links("d", architecture, &[], false),
            ]
        };
        assert_eq!(with("a", &direct(VOLTA), true), ["a", "b", "c"], "and what those are linked to");
        assert_eq!(with("a", &direct(AMPERE), false), ["a"]);
        let switched = |architecture| {
            [
                links("a", architecture, &[], true),
                links("b", architecture, &[], true),
                links("c", architecture, &[], false),
            ]
        };
        assert_eq!(with("a", &switched(VOLTA), true), ["a", "b"]);
        assert_eq!(with("a", &switched(AMPERE), false), ["a", "b"]);
        assert_eq!(with("a", &switched(AMPERE), true), ["a"]);
        assert_eq!(with("a", &switched(HOPPER), false), ["a"]);
        assert_eq!(with("x", &switched(VOLTA), false), ["x"], "one that NVML does not show");
    }

    #[test]
    fn a_gpu_is_named_in_three_ways() {
        let bound = ["0000:01:00.0".to_owned(), "0001:00:00.0".to_owned()];
        let gpu = |index, pci: &str, uuid: &str| Reading::Trouble {
            index,
            pci: Some(pci.into()),
            uuid: Some(uuid.into()),
            trouble: gpu::Trouble::ResetRequired,
        };
        let state = State {
            library: gpu::Library::Absent { reason: String::new() },
            instead: None,
            nvml: gpu::Answer::Asleep,
            confidential_computing: None,
            gpus: vec![gpu(0, "0000:01:00.0", "GPU-a"), gpu(1, "0001:00:00.0", "GPU-b")],
        };
        let resolve = |id: &str| super::resolve(id, Some(&state), &bound);
        for id in ["1", "GPU-b", "0001:00:00.0", "0001:00:00", "00000001:00:00.0"] {
            assert_eq!(resolve(id).as_deref(), Some("0001:00:00.0"), "{id}");
        }
        for id in ["2", "GPU-c", "0002:00:00.0", "", "nvidia1"] {
            assert_eq!(resolve(id), None, "{id}");
        }
        assert_eq!(super::resolve("0000:01:00.0", None, &bound).as_deref(), Some("0000:01:00.0"));
    }
}
