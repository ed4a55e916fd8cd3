//! Deals with a reload that packages asked for: waits until the package manager is through and the
//! policy's moment has come, and has the reload done.
//!
//! It has no state of its own: a new request starts it anew, and it goes on from the request on disk
//! and from what it sees.

mod disk;
mod idle;
mod reload;
mod round;
mod wait;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use request::{State, UNIT, forget, read, update};
use round::Next;
use step::{Priority, Reason, Root, log_as, show_status};

fn main() -> ExitCode {
    let root = Root::system();
    let Err(error) = run(&root) else { return ExitCode::SUCCESS };
    say(Priority::Error, &format!("{error:#}"));
    let because = vec![Reason::new(format!("{error:#}"), format!("`journalctl -u {UNIT}` tells more"))];
    if let Err(error) = update(&root, State::Failed, because) {
        say(Priority::Error, &format!("the request does not have this: {error:#}"));
    }
    ExitCode::FAILURE
}

fn run(root: &Root) -> Result<()> {
    loop {
        let began = Instant::now();
        let Some(request) = read(root)? else {
            say(Priority::Info, "the request was dropped");
            return Ok(());
        };
        if request.state.is_final() {
            return Ok(());
        }
        match round::next(root, &request)? {
            Next::Drop(why) => {
                forget(root)?;
                say(Priority::Info, &format!("nothing is to be reloaded: {why}"));
                return Ok(());
            }
            Next::Wait { state, because, wait } => {
                enter(root, &request, state, because)?;
                wait.pass(began)?;
            }
            Next::Leave { state, because } => return enter(root, &request, state, because),
            Next::Go => {
                enter(root, &request, State::Reloading, Vec::new())?;
                match reload::reload()? {
                    None => {
                        forget(root)?;
                        say(Priority::Info, "the driver is reloaded");
                        return Ok(());
                    }
                    Some((state, because)) => return enter(root, &request, state, because),
                }
            }
        }
    }
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
