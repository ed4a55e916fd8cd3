// SPDX-License-Identifier: MIT
//! What is said of processes, and how much.

use std::collections::BTreeMap;

use holders::{Disposition, Holder, Place};
use ledger::Process;

use crate::victim::user;

/// As much of a command line is kept in the ledger, in bytes.
const LONGEST_RECORDED: usize = 512;
/// More processes than this are counted in a message, and not named.
pub(crate) const MOST_NAMED: usize = 12;

pub(crate) fn why_not_killed(disposition: &Disposition) -> String {
    match disposition {
        Disposition::StopContainer => {
            "is in a container that was not stopped, or was started since".to_owned()
        }
        Disposition::StopUnit { unit, .. } => {
            format!("is in {unit}, which was not stopped, or was started since")
        }
        Disposition::Refuse { why, remedy } => format!("{why}: {remedy}"),
        Disposition::Release => "keeps it for a session: `loginctl` shows the sessions".to_owned(),
        Disposition::Kill => String::new(),
    }
}

pub(crate) fn record(holder: &Holder) -> Process {
    Process {
        pid: holder.pid,
        start_ticks: holder.start_ticks,
        uid: holder.uid,
        command: shortened(&holder.command_line()),
    }
}

/// At most so many bytes of it: a process writes what it likes there, and the ledger is read at each step.
fn shortened(line: &str) -> String {
    if line.len() <= LONGEST_RECORDED {
        return line.to_owned();
    }
    let longest = LONGEST_RECORDED - '…'.len_utf8();
    let whole = (0..=longest).rev().find(|at| line.is_char_boundary(*at)).unwrap_or_default();
    format!("{}…", &line[..whole])
}

/// The first few of these in words, and how many more there are of each user.
pub(crate) fn cut_short(named: Vec<(&Holder, String)>, between: &str) -> String {
    let mut more: BTreeMap<String, usize> = BTreeMap::new();
    for (holder, _) in named.iter().skip(MOST_NAMED) {
        *more.entry(user(holder)).or_default() += 1;
    }
    let more = more.into_iter().map(|(user, count)| match count {
        1 => format!("and 1 more process of user {user}"),
        count => format!("and {count} more processes of user {user}"),
    });
    let named = named.iter().take(MOST_NAMED).map(|(_, text)| text.clone());
    named.chain(more).collect::<Vec<_>>().join(between)
}

pub(crate) fn place(place: &Place) -> String {
    match place {
        Place::Socket { pid, comm, fd, in_flight, sender, .. } => {
            let sender = sender.map_or_else(String::new, |uid| format!(" by user {uid}"));
            format!(
                "{in_flight} descriptors sent{sender} to process {pid} ({comm}) and not received, in its socket {fd}"
            )
        }
        Place::IoUring { pid, comm, fd, files, .. } => {
            format!("{files} files registered with the io_uring {fd} of process {pid} ({comm})")
        }
        Place::DmaBuf { pid, comm, fd, .. } => {
            format!("the dma-buf {fd} of process {pid} ({comm})")
        }
        Place::Kernel { what } => what.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holders::Owner;

    fn holder() -> Holder {
        Holder {
            pid: 42,
            start_ticks: 1,
            since: None,
            uid: 0,
            user: None,
            comm: "x".into(),
            command: Vec::new(),
            state: 'S',
            devices: Vec::new(),
            owner: Owner::Process,
            screen: false,
            gpu_memory: None,
        }
    }

    #[test]
    fn a_short_command_line_is_kept_whole() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened(&"x".repeat(LONGEST_RECORDED)).len(), LONGEST_RECORDED);
        assert!(shortened(&"x".repeat(LONGEST_RECORDED + 1)).ends_with('…'));
    }

    #[test]
    fn thousands_are_counted_by_user() {
        let holder = holder();
        let alice = Holder { user: Some("alice".into()), ..holder.clone() };
        let mut all = vec![&alice; 4000];
        all.push(&holder);
        let text = cut_short(all.into_iter().map(|holder| (holder, "x".to_owned())).collect(), "; ");
        assert!(text.starts_with("x; x; "), "{text}");
        assert!(
            text.ends_with("and 1 more process of user 0; and 3988 more processes of user alice"),
            "{text}"
        );
    }
}
