// SPDX-License-Identifier: MIT
//! A reload that waits until the GPUs are idle.

use std::time::SystemTime;

use request::{Request, State};

use super::text::{ago, clean, wrap};
use super::{Paint, Style};

/// How far it is, why, and what can be done, a line each.
pub fn values(request: &Request, style: Style, now: SystemTime) -> Vec<String> {
    let paint = match request.state {
        State::GivenUp | State::Refused | State::NotInstalled | State::RebootRequired | State::Failed => {
            Paint::Bad
        }
        _ => Paint::Attention,
    };
    let mut values = vec![style.paint(paint, request.state.words())];
    for reason in &request.because {
        values.push(match reason.remedy.as_str() {
            "" => clean(&reason.what),
            remedy => clean(&format!("{}: {remedy}", reason.what)),
        });
    }
    let reasons = clean(&request.reasons.join("; "));
    values.push(format!("requested {}: {reasons}", ago(request.asked_usec, now)));
    values.extend(remedy(request.state).map(str::to_owned));
    values
}

/// The same in one line, below a plan.
pub fn note(request: &Request, style: Style) -> String {
    let remedy = remedy(request.state).map(|remedy| format!("; {remedy}")).unwrap_or_default();
    let text = format!("After an upgrade {}{remedy}.", request.state.words());
    format!("\n{}", wrap("", &text, style.width))
}

fn remedy(state: State) -> Option<&'static str> {
    match state {
        // What helps is with the reason.
        State::Queued | State::Reloading | State::NotInstalled => None,
        State::WaitingForPackages | State::WaitingForLock => {
            Some("`nvidia-reload request --cancel` cancels it")
        }
        State::RebootRequired => Some("a reboot loads the driver that is on disk"),
        State::Refused | State::Failed => {
            Some("`nvidia-reload request` tries it again when the GPUs are idle")
        }
        State::WaitingForIdle
        | State::WaitingForWindow
        | State::WaitingForInhibitor
        | State::Asking
        | State::GivenUp => {
            Some("`nvidia-reload reload` does it now, `nvidia-reload request --cancel` cancels it")
        }
    }
}
