//! What the kernel said since the run began.

use anyhow::{Result, bail};
use messages::hear;
use step::Context;
use xid::Class;

/// Whether the kernel said nothing since preflight that makes a GPU unfit for use.
///
/// # Errors
/// It did; or what it said cannot be read.
pub(crate) fn check(context: &Context) -> Result<()> {
    let heard = hear(&context.root)?;
    let mut fatal = Vec::new();
    for message in heard.since_remembered() {
        let what = match message.event.address() {
            Some(pci) => format!("GPU {pci}: {}", message.event),
            None => message.event.to_string(),
        };
        match message.event.class() {
            Some(Class::Reset | Class::Reboot) => fatal.push(what),
            Some(Class::Support) => context.warn(what),
            _ => {}
        }
    }
    if !fatal.is_empty() {
        bail!("the driver reports an error since the run began: {}", fatal.join("; "));
    }
    Ok(())
}
