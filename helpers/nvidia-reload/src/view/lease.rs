// SPDX-License-Identifier: MIT
//! The lease that this machine has from the fleet's lock.

use std::time::SystemTime;

use fleetlock::{Lease, STEADY, State};

use super::text::{ago, clean};
use super::{Paint, Style};

/// How far it is, and what can be done, a line each.
pub fn values(lease: &Lease, style: Style, now: SystemTime) -> Vec<String> {
    let server = clean(&format!("{} (group {}, id {})", lease.server, lease.group, lease.id));
    let since = ago(lease.since_usec, now);
    let mut values = Vec::new();
    match lease.state {
        State::Asking => values.push(format!("a lease of {server} is asked for")),
        State::Held => {
            values.push(style.paint(Paint::Attention, &format!("this machine holds a lease of {server}")));
            let run = lease.run.as_deref().map(|run| format!(" by run {}", clean(run))).unwrap_or_default();
            values.push(format!("taken {since}{run}; no other machine of the group may begin meanwhile"));
            values.push(format!(
                "after a run that failed: when the GPUs work, `systemctl start {STEADY}` releases it"
            ));
        }
        State::Releasing => {
            values.push(format!("the lease of {server} is about to be released"));
            if let Some(trouble) = &lease.trouble {
                let text = format!(
                    "the server has not taken that so far: {}; it is tried each minute",
                    clean(trouble)
                );
                values.push(style.paint(Paint::Attention, &text));
            }
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_lease_has_its_lines_and_what_ends_it() {
        let of = |state: &str, trouble: Option<&str>| {
            let lease = serde_json::json!({
                "schema": "nvidia-reload.lease/1", "server": "http://lock/base", "group": "gpus", "id": "n1",
                "state": state, "since_usec": 0, "run": "r1", "trouble": trouble,
            });
            let lease = serde_json::from_value(lease).expect("is a lease");
            values(&lease, Style::PLAIN, UNIX_EPOCH + Duration::from_secs(7200)).join("\n")
        };
        insta::assert_snapshot!(
            [
                of("asking", None),
                of("held", None),
                of("releasing", None),
                of("releasing", Some("503\x1b[2J"))
            ]
            .join("\n\n")
        );
    }
}
