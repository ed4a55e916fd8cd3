// SPDX-License-Identifier: MIT
//! Devices that logind keeps for sessions in which no display server has them.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bus::{Manager, Mode};
use holders::{Disposition, Holder, Rules, Scope, is_logind, sessions_of};
use ledger::{Object, Session, Step};
use step::{Config, Context, Guard, Logind};

const LOGIND: &str = "systemd-logind.service";

/// How long logind, and PID 1 beside it, may take to close what was released.
const CLOSING: Duration = Duration::from_secs(10);

/// How often it is looked whether they have.
const PAUSE: Duration = Duration::from_millis(50);

/// Why a session does not have its devices again.
const LOST: &str = "what had taken them has to ask logind again";

/// Has logind let go of what it keeps for sessions, if no display server uses that.
pub(crate) fn release(context: &Context, config: &Config, scope: &Scope) -> Result<()> {
    let units = Guard::read(&context.root, &config.units.protect)?;
    let rules = Rules { units: &units, ..Rules::default() };
    let scan = holders::scan(&context.root)?.within(scope);
    let keeper = |holder: &&Holder| holder.pid != 1 && rules.disposition(holder) == Disposition::Release;
    let Some(logind) = scan.holders.iter().find(keeper) else { return Ok(()) };
    let mut acts = Vec::new();
    for session in sessions_of(&context.root, logind)?.unwrap_or_default() {
        let object = Object::Session(Session { id: session.id.clone(), user: session.uid });
        acts.push((context.ledger.intent(Step::StopUnits, object)?, session.id));
    }
    let mut is_closed = false;
    if config.units.logind == Logind::Restart {
        context.status(format!("restarting {LOGIND}"));
        Manager::system()?.restart(LOGIND, Mode::Replace).with_context(|| format!("restart {LOGIND}"))?;
        is_closed = is_let_go(context, logind)?;
    }
    for (act, id) in acts {
        match if is_closed { Ok(()) } else { bus::release_session(&id) } {
            Ok(()) => act.lost(LOST)?,
            Err(error) => {
                context.warn(format!("{:#}", anyhow::Error::from(error)));
                act.failed("logind did not release them")?;
            }
        }
    }
    if !is_closed && !is_let_go(context, logind)? {
        bail!("systemd-logind keeps devices of the driver open; `loginctl` shows its sessions");
    }
    context.info("systemd-logind has closed the devices of the driver");
    Ok(())
}

/// Whether neither logind nor PID 1 has any more what `logind` had.
fn is_let_go(context: &Context, logind: &Holder) -> Result<bool> {
    let until = Instant::now() + CLOSING;
    let had = |holder: &Holder| {
        let mut devices = holder.devices.iter();
        devices.any(|device| logind.devices.iter().any(|had| had.rdev == device.rdev))
    };
    let keeps = |holder: &Holder| (holder.pid == 1 || is_logind(&holder.owner)) && had(holder);
    while holders::scan(&context.root)?.holders.iter().any(keeps) {
        if Instant::now() >= until {
            return Ok(false);
        }
        // Neither tells when it closes a descriptor: ask again.
        sleep(PAUSE);
    }
    Ok(true)
}
