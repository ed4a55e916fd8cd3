//! Waiting for the package manager: a trigger fires a moment before its lock is free, and half an
//! upgrade is no driver.

use std::time::{Duration, Instant};

use anyhow::Result;
use request::package_manager;
use step::{Context, Reason, Stop};

/// An upgrade that builds modules takes minutes.
const TIME: Duration = Duration::from_secs(600);

/// Waits until no package manager is at work.
pub(crate) fn wait(context: &Context) -> Result<()> {
    let until = Instant::now() + TIME;
    let mut said = None;
    while let Some(busy) = package_manager(&context.root)? {
        if Instant::now() > until {
            let minutes = TIME.as_secs() / 60;
            return Err(Stop::Refused(vec![Reason::new(
                format!("a package manager has been at work for {minutes} minutes: {busy}"),
                "let the package manager finish, then start again",
            )])
            .into());
        }
        if said != Some(busy.pid) {
            let waiting = format!("waiting for the package manager (process {})", busy.pid);
            context.info(&waiting);
            context.status(waiting);
            said = Some(busy.pid);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
