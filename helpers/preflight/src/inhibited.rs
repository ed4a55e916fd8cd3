// SPDX-License-Identifier: MIT
//! Who asks that the machine not be shut down. A reload is no shutdown; a plan has a warning, and one that
//! comes by itself waits.

use anyhow::Result;
use step::Inhibitor;

use crate::findings::Findings;

/// So many are named.
const NAMED: usize = 5;

/// Judges what logind says, for a run that is to begin only if it harms nothing.
pub(crate) fn assess(said: Result<Vec<Inhibitor>>, if_idle: bool, findings: &mut Findings) {
    let found = match said {
        Ok(found) => found,
        Err(error) => {
            let what = format!("it is not known whether something blocks a shutdown: {error:#}");
            findings.warn(what, "`systemd-inhibit --list` asks again");
            return;
        }
    };
    for inhibitor in found.iter().take(NAMED) {
        match if_idle {
            true => findings.refuse(inhibitor.to_string(), Inhibitor::REMEDY),
            false => findings.warn(inhibitor.to_string(), Inhibitor::REMEDY),
        }
    }
}

#[cfg(test)]
mod tests {
    use step::Verdict;

    use super::*;

    #[test]
    fn a_run_by_hand_is_warned_and_one_that_comes_by_itself_waits() {
        let backup = Inhibitor { who: "backup".into(), why: "nightly".into(), uid: 0, pid: 7 };
        let of = |said: Result<Vec<Inhibitor>>, if_idle| {
            let mut findings = Findings::default();
            assess(said, if_idle, &mut findings);
            let (verdict, reasons, warnings) = findings.verdict();
            (verdict, reasons.len(), warnings.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let (verdict, _, said) = of(Ok(vec![backup.clone()]), false);
        assert_eq!(verdict, Verdict::Ready);
        assert!(
            said[0].starts_with("backup (process 7 of user 0) inhibits a shutdown: nightly: wait"),
            "{said:?}"
        );
        assert_eq!(of(Ok(vec![backup; 9]), true), (Verdict::Refused, 5, vec![]));
        assert_eq!(of(Ok(vec![]), true), (Verdict::Ready, 0, vec![]));
        let (verdict, _, said) = of(Err(anyhow::anyhow!("no answer")), true);
        assert_eq!(verdict, Verdict::Ready);
        assert!(said[0].contains("not known whether") && said[0].contains("no answer"), "{said:?}");
    }
}
