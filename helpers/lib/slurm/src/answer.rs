// SPDX-License-Identifier: MIT
//! What Slurm's programs print, read. No column that is asked for holds text of a user's own, such as a job's name.

use serde::{Deserialize, Serialize};

/// The names under which Slurm's GPU plugins give out GPUs, or parts of them.
const GPUS: [&str; 3] = ["gpu", "mps", "shard"];

/// What is asked of each job, by the names that squeue has for it; the requests last, which are longest.
pub(crate) const COLUMNS: [&str; 9] = [
    "JobID",
    "UserName",
    "State",
    "OverSubscribe",
    "tres-per-job",
    "tres-per-node",
    "tres-per-socket",
    "tres-per-task",
    "tres-alloc",
];

/// What stands between two columns.
pub(crate) const BETWEEN: char = '|';

/// What Slurm says of this node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// When it was written, in microseconds of CLOCK_MONOTONIC.
    pub(crate) written_usec: u64,
    /// The node's name in Slurm.
    pub(crate) node: Option<String>,
    /// Why it says nothing more.
    pub(crate) error: Option<String>,
    /// Whether no job is started here.
    pub(crate) is_closed: bool,
    /// The jobs that have something of this node.
    pub(crate) jobs: Vec<Listed>,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) user: String,
    pub(crate) has_gpu: bool,
}

/// A node, as Slurm describes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Node {
    /// Whether no job is started there.
    pub(crate) is_closed: bool,
    /// Whether Slurm waits until the node has booted, or has done what was asked for in place of a boot: then no
    /// job is started there either, and one that was given the node waits, too.
    pub(crate) boots: bool,
    /// Whether Slurm gives out GPUs of it.
    pub(crate) gives_gpus: bool,
}

/// A node, as `sinfo --format=%T|%G` prints it, a line for each of its partitions.
pub(crate) fn node(text: &str) -> Node {
    let lines: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(BETWEEN)).collect();
    let all = |is: &dyn Fn(&str) -> bool| {
        !lines.is_empty() && lines.iter().all(|(state, _)| is(&state.trim().to_lowercase()))
    };
    // The sign after the state: ^ for a boot that was ordered, # for one that is waited for.
    let boots = all(&|state| state.ends_with(['^', '#']));
    let is_closed =
        all(&|state| ["drain", "drng", "down", "fail"].iter().any(|word| state.starts_with(word)));
    let gives_gpus = lines.iter().any(|(_, resources)| names_gpu(resources));
    Node { is_closed: is_closed || boots, boots, gives_gpus }
}

/// The jobs in what squeue prints with [`COLUMNS`]. Where Slurm gives out no GPUs of the node, any job may use
/// them. One that has the node for itself has its GPUs.
pub(crate) fn jobs(text: &str, node: Node) -> Vec<Listed> {
    text.lines()
        .filter_map(|line| {
            let mut columns = line.split(BETWEEN).map(str::trim);
            let (id, user, state, shared) =
                (columns.next()?, columns.next()?, columns.next()?, columns.next()?);
            // One that waits has nothing yet.
            if id.is_empty() || state == "PENDING" || (state == "CONFIGURING" && node.boots) {
                return None;
            }
            let has_gpu = !node.gives_gpus || shared == "NO" || columns.any(names_gpu);
            Some(Listed { id: id.to_owned(), user: user.to_owned(), has_gpu })
        })
        .collect()
}

/// Whether a list of resources has GPUs: `gpu:a100:4(S:0-1),nvme:1`, `gres/gpu:1`, `gres:gpu:1`, `cpu=1,gres/gpu=1`.
fn names_gpu(resources: &str) -> bool {
    resources.split(',').any(|resource| {
        let name = resource.trim().trim_start_matches("gres/").trim_start_matches("gres:");
        let name = name.split([':', '=', '(']).next().unwrap_or_default();
        GPUS.contains(&name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn resources_by_their_names() {
        for gpu in [
            "gpu:1",
            "gres:gpu:1",
            "gres/gpu:tesla:2",
            "cpu=1,mem=10M,gres/gpu=1",
            "nic:1,gpu:a:4(S:0,1)",
            "mps:50",
            "gres/shard:2",
        ] {
            assert!(names_gpu(gpu), "{gpu}");
        }
        for other in ["(null)", "N/A", "", "cpu=1,node=1", "gpus", "nic:gpu:1", "gres/nvme:1"] {
            assert!(!names_gpu(other), "{other}");
        }
    }

    #[test]
    fn a_node_is_closed_where_slurm_starts_nothing() {
        for state in ["drained", "draining*", "drng", "down*", "fail"] {
            let expected = Node { is_closed: true, boots: false, gives_gpus: true };
            assert_eq!(node(&format!("{state}|gpu:2\n")), expected, "{state}");
        }
        for state in ["allocated#", "mixed#", "idle^", "down^", "reboot^"] {
            let expected = Node { is_closed: true, boots: true, gives_gpus: true };
            assert_eq!(node(&format!("{state}|gpu:2\n")), expected, "{state}");
        }
        for state in ["idle", "idle*", "idle~", "mixed@", "mixed", "allocated", "maint", "planned", "unknown"]
        {
            assert_eq!(node(&format!("{state}|(null)\n")), Node::default(), "{state}");
        }
        assert_eq!(node(""), Node::default());
        assert_eq!(node("idle^|(null)\nidle|(null)\n"), Node::default());
    }

    #[test]
    fn a_job_has_a_gpu_by_what_it_was_given() {
        let text = "7  |ada  |RUNNING|OK|N/A|gres:gpu:1|N/A|N/A|N/A\n\
            8|bob|RUNNING|OK|N/A|N/A|N/A|N/A|cpu=1,node=1\n\
            9|bob|COMPLETING|NO|N/A|N/A|N/A|N/A|N/A\n\
            10|bob|SUSPENDED|OK|gres/gpu:1|N/A|N/A|N/A|N/A\n\
            11|bob|PENDING|OK|gres/gpu:1|N/A|N/A|N/A|N/A\n\
            12|ada|CONFIGURING|OK|gres/gpu:1|N/A|N/A|N/A|N/A\n\nodd\n";
        let of = |gives_gpus| {
            jobs(text, Node { gives_gpus, ..Node::default() })
                .into_iter()
                .map(|job| (job.id, job.user, job.has_gpu))
                .collect::<Vec<_>>()
        };
        let job = |id: &str, user: &str, has_gpu| (id.to_owned(), user.to_owned(), has_gpu);
        let expected = [
            job("7", "ada", true),
            job("8", "bob", false),
            job("9", "bob", true),
            job("10", "bob", true),
            job("12", "ada", true),
        ];
        assert_eq!(of(true), expected);
        let boots = Node { is_closed: true, boots: true, gives_gpus: true };
        let ids: Vec<String> = jobs(text, boots).into_iter().map(|job| job.id).collect();
        assert_eq!(ids, ["7", "8", "9", "10"], "the one that waits for the node has nothing yet");
        assert!(
            of(false).iter().all(|(_, _, has_gpu)| *has_gpu),
            "any job may use what Slurm does not give out"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[0-9a-zA-Z|:,=() \n]{0,200}") {
            node(&text);
            jobs(&text, node(&text));
        }
    }
}
