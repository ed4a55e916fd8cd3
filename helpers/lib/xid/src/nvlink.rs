// SPDX-License-Identifier: MIT
//! Xids 144 to 150: what unit, intrinfo and error status say together.

use std::sync::OnceLock;

use serde::Serialize;

use crate::catalogue::rows;
use crate::scan::hex_value;
use crate::{Class, Reported, Severity};

const DATA: &str = include_str!("../data/nvlink5.tsv");

/// The first number of the driver's version: 535, 575, 580.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Branch(pub u32);

impl Branch {
    /// The layout of intrinfo changed here.
    const NEW_LAYOUT: Branch = Branch(575);

    /// The branch of a version: `580.105.08` is of 580.
    pub fn of_version(version: &str) -> Option<Self> {
        version.split('.').next()?.parse().ok().map(Self)
    }
}

/// NVIDIA's action for an NVLink 5 error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    /// Nothing.
    Ignore,
    /// What the Xid 154 beside it says.
    #[serde(rename = "XID_154_EVAL")]
    Xid154Eval,
    /// A reset.
    ResetGpu,
}

impl Resolution {
    /// What it means for a reload. Where Xid 154 has the word it speaks for itself; the process that
    /// is hit has to start again in any case.
    pub(crate) fn class(self) -> Class {
        match self {
            Resolution::Ignore => Class::Info,
            Resolution::Xid154Eval => Class::App,
            Resolution::ResetGpu => Class::Reset,
        }
    }

    /// Its name in NVIDIA's catalogue.
    pub fn name(self) -> &'static str {
        match self {
            Resolution::Ignore => "IGNORE",
            Resolution::Xid154Eval => "XID_154_EVAL",
            Resolution::ResetGpu => "RESET_GPU",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Resolution::Ignore, Resolution::Xid154Eval, Resolution::ResetGpu]
            .into_iter()
            .find(|resolution| resolution.name() == name)
    }
}

struct Rule {
    xid: u32,
    units: &'static str,
    /// Before branch 575, and from there on.
    layouts: [Bits; 2],
    status: u32,
    resolution: Resolution,
    where_fatal: Option<Resolution>,
}

/// 32 bits, of which some matter.
struct Bits {
    mask: u32,
    value: u32,
}

impl Bits {
    fn read(text: &str) -> Option<Self> {
        let mut bits = Bits { mask: 0, value: 0 };
        for c in text.chars() {
            bits.mask = bits.mask << 1 | u32::from(c != '-');
            bits.value = bits.value << 1 | u32::from(c == '1');
        }
        (text.len() == 32).then_some(bits)
    }

    fn matches(&self, value: u32) -> bool {
        value & self.mask == self.value
    }
}

fn rules() -> &'static [Rule] {
    static RULES: OnceLock<Vec<Rule>> = OnceLock::new();
    RULES.get_or_init(|| rows(DATA).filter_map(|row| rule_of(&row)).collect())
}

fn rule_of(row: &[&'static str]) -> Option<Rule> {
    let [xid, units, old, new, status, resolution, _, _, where_fatal] = *row else { return None };
    Some(Rule {
        xid: xid.parse().ok()?,
        units,
        layouts: [Bits::read(old)?, Bits::read(new)?],
        status: hex_value(status)?,
        resolution: Resolution::named(resolution)?,
        where_fatal: Resolution::named(where_fatal),
    })
}

/// NVIDIA's action for what `reported` says under Xid `xid`; none where no rule of the catalogue is for
/// it. Without a branch either layout of intrinfo counts.
pub fn resolution(xid: u32, reported: &Reported, branch: Option<Branch>) -> Option<Resolution> {
    let (intrinfo, status) = (hex_value(&reported.intrinfo)?, hex_value(&reported.status)?);
    let layouts = match branch {
        Some(branch) if branch < Branch::NEW_LAYOUT => 0..=0,
        Some(_) => 1..=1,
        None => 0..=1,
    };
    let of_unit: Vec<&Rule> = rules()
        .iter()
        .filter(|rule| rule.xid == xid && rule.units.split('/').any(|unit| unit == reported.sub))
        .filter(|rule| rule.layouts[layouts.clone()].iter().any(|bits| bits.matches(intrinfo)))
        .collect();
    let says = |rule: &&Rule| match (reported.severity, rule.where_fatal) {
        (Severity::Fatal, Some(worse)) => worse,
        _ => rule.resolution,
    };
    let exact = of_unit.iter().filter(|rule| rule.status == status).map(says).max();
    // Several errors at once are several bits; the firmware of the links numbers its errors instead.
    let bits = || of_unit.iter().filter(|rule| rule.status & status != 0).map(says).max();
    exact.or_else(|| if xid == 149 { None } else { bits() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_read() {
        assert_eq!(rules().len(), rows(DATA).count());
        assert_eq!(rules().len(), 94);
    }

    fn reported(sub: &str, severity: Severity, intrinfo: &str, status: &str) -> Reported {
        let (sub, intrinfo, status) = (sub.into(), intrinfo.into(), status.into());
        Reported { sub, severity, xc: 0, injected: 0, link: 3, intrinfo, status }
    }

    #[test]
    fn the_layout_is_that_of_the_branch() {
        // RLW_SRC_TRACK is 0011100010 in the low bits before 575, and 0000111 from there on.
        let old = reported("RLW_SRC_TRACK", Severity::Fatal, "0x000000e2", "0x00000001");
        let new = reported("RLW_SRC_TRACK", Severity::Fatal, "0x00000007", "0x00000001");
        let reset = Some(Resolution::ResetGpu);
        assert_eq!(
            [None, Some(570), Some(575)].map(|branch| resolution(145, &old, branch.map(Branch))),
            [reset, reset, None]
        );
        assert_eq!(
            [None, Some(570), Some(580)].map(|branch| resolution(145, &new, branch.map(Branch))),
            [reset, None, reset]
        );
    }

    #[test]
    fn of_several_errors_the_worst_counts() {
        let both = reported("SAW_MVB", Severity::Fatal, "0x00000021", "0x00000003");
        assert_eq!(resolution(144, &both, None), Some(Resolution::ResetGpu));
        let unknown = reported("SAW_MVB", Severity::Fatal, "0x00000021", "0x00000100");
        assert_eq!(resolution(144, &unknown, None), None);
        // Not bits: MFDE events 1 and 4 would be a reset.
        let number = reported("NETIR_MFDE_EVENT", Severity::Fatal, "0x00000246", "0x0000000d");
        assert_eq!(resolution(149, &number, None), None);
    }

    #[test]
    fn a_rule_may_depend_on_the_severity_in_the_message() {
        let of =
            |severity| resolution(145, &reported("RLW_RXPIPE", severity, "0x000000c2", "0x00000001"), None);
        assert_eq!(of(Severity::Nonfatal), Some(Resolution::Ignore));
        assert_eq!(of(Severity::Fatal), Some(Resolution::ResetGpu));
    }
}
