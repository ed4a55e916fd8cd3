// SPDX-License-Identifier: MIT
//! Waits for a requested reload until the package manager has finished and the policy allows it, and starts it.
//!
//! It has no state of its own: a new request restarts it, and it continues with the request on disk and the state of the
//! machine.

#![forbid(unsafe_code)]

mod disk;
mod idle;
mod lease;
mod reload;
mod round;
mod wait;
mod window;

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use lease::Refusals;
use request::{State, UNIT, forget, read, update};
use round::{Next, is_late};
use slots::Healed;
use step::{
    Config, Heal, Order, Priority, Reason, Root, fix_path, log_as, monotonic_usec, open_ledger, order_unit,
    show_status,
};
use wait::Wait;

/// What lets programs that start find the loaded driver's libraries.
const HEAL: &str = "nvidia-reload-heal.service";

/// So many looks in a row may fail.
const FAILURES: u32 = 10;

/// And so much later it is looked at again.
const AGAIN: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    fix_path();
    let root = Root::system();
    let Err(error) = run(&root) else { return ExitCode::SUCCESS };
    say(Priority::Error, &format!("{error:#}"));
    let because = vec![Reason::new(format!("{error:#}"), format!("`journalctl -u {UNIT}` shows more"))];
    if let Err(error) = update(&root, State::Failed, because) {
        say(Priority::Error, &format!("the request does not have this: {error:#}"));
    }
    ExitCode::FAILURE
}

fn run(root: &Root) -> Result<()> {
    let mut failures = 0;
    // Once, whatever comes of it.
    let mut heals = false;
    // Why the last reload was refused, until it is known whether that was for what came in between.
    let mut refused: Option<Vec<Reason>> = None;
    let mut unfinished = None;
    let mut leases = Refusals::default();
    loop {
        let began = Instant::now();
        let Some(request) = read(root)? else {
            say(Priority::Info, "the request was dropped");
            return Ok(());
        };
        if request.state.is_final() {
            return Ok(());
        }
        let next = match round::next(root, &request, &mut unfinished) {
            Ok(next) => next,
            // Modules come and go, files are replaced, a helper is killed for want of memory: in a week of
            // looks one may fail, and the next one tells.
            Err(error) if failures < FAILURES => {
                failures += 1;
                say(Priority::Warning, &format!("the next try is in {} s: {error:#}", AGAIN.as_secs()));
                sleep(AGAIN);
                continue;
            }
            Err(error) => return Err(error),
        };
        failures = 0;
        // Also where only packages for this kernel help, or a reboot: programs that start fail until then.
        if let Next::Wait {
            state: State::WaitingForIdle | State::WaitingForWindow | State::WaitingForInhibitor,
            ..
        }
        | Next::Leave { state: State::Asking | State::NotInstalled | State::RebootRequired, .. } = &next
            && !heals
        {
            heals = heal(root)?;
        }
        match (next, refused.take()) {
            (Next::Drop(why), _) => {
                forget(root)?;
                say(Priority::Info, &format!("nothing is to be reloaded: {why}"));
                return Ok(());
            }
            // Somebody, or the package manager, came just before it began.
            (Next::Wait { state, because, wait }, _) => {
                leases.end();
                enter(root, &request, state, because)?;
                wait.pass(began)?;
            }
            (Next::Leave { .. } | Next::Go { .. }, Some(because)) => {
                return enter(root, &request, State::Refused, because);
            }
            (Next::Leave { state, because }, None) => return enter(root, &request, state, because),
            (Next::Go { if_idle }, None) => {
                if request.state == State::WaitingForLock && is_late(root, &request)? {
                    return enter(root, &request, State::GivenUp, request.because.clone());
                }
                enter(root, &request, State::Reloading, Vec::new())?;
                let asked = monotonic_usec();
                match reload::reload(if_idle)? {
                    None => {
                        forget(root)?;
                        say(Priority::Info, "the driver is reloaded");
                        return Ok(());
                    }
                    Some((State::Refused, because)) => match leases.again(root, asked) {
                        Some((reason, again)) => {
                            enter(root, &request, State::WaitingForLock, vec![reason])?;
                            heals = heals || heal(root)?;
                            Wait::new(Vec::new(), again).pass(began)?;
                        }
                        None => refused = Some(because),
                    },
                    Some((state, because)) => return enter(root, &request, state, because),
                }
            }
        }
    }
}

/// Lets programs that start find the loaded driver's libraries while the reload waits, where the configuration says
/// so. Whether that is settled: not while a run is open.
fn heal(root: &Root) -> Result<bool> {
    if Config::load(root)?.upgrade.heal != Heal::Always || Healed::read(root)?.is_some() {
        return Ok(true);
    }
    if open_ledger(root)?.read()?.is_some() {
        return Ok(false);
    }
    // What it cannot do it says itself, and the reload waits all the same.
    if let Err(error) = order_unit(Order::Queue, HEAL) {
        say(Priority::Warning, &format!("{HEAL} is not started: {error}"));
    }
    Ok(true)
}

/// Notes how far the request is, and says so where that is news.
fn enter(root: &Root, request: &request::Request, state: State, because: Vec<Reason>) -> Result<()> {
    let text = sentence(state, &because);
    let news = request.state != state;
    update(root, state, because)?;
    show_status(&text);
    if news {
        let trouble = state.is_final() && state != State::Asking;
        say(if trouble { Priority::Warning } else { Priority::Info }, &text);
    }
    Ok(())
}

fn sentence(state: State, because: &[Reason]) -> String {
    let because: Vec<&str> = because.iter().map(|reason| reason.what.as_str()).collect();
    if because.is_empty() {
        state.words().to_owned()
    } else {
        format!("{}: {}", state.words(), because.join("; "))
    }
}

fn say(priority: Priority, text: &str) {
    log_as("upgrade", UNIT, priority, text, &[]);
}
