// SPDX-License-Identifier: MIT
//! The user's manager.

use std::time::{Duration, Instant};

use as_user::{Dependents, Fault, Started, Stop, Stopped, Unit, is_unit_name};
use bus::{Manager, Up};

use crate::transient;

/// What a unit is.
pub(crate) fn unit(uid: u32, name: &str) -> Result<Unit, Fault> {
    let unit = manager(uid)?.unit(name).map_err(fault)?;
    Ok(Unit { name: unit.name, up: unit.active.is_up() })
}

/// What hangs on a unit.
pub(crate) fn dependents(uid: u32, name: &str) -> Result<Dependents, Fault> {
    let found = manager(uid)?.dependents(name).map_err(fault)?;
    let stopped_along = found.stopped_along().into_iter().map(str::to_owned).collect();
    Ok(Dependents { triggered_by: found.triggered_by, stopped_along })
}

/// Stops units; one that is transient is saved before.
pub(crate) fn stop(uid: u32, units: &[Stop], patience: Duration) -> Result<Vec<Stopped>, Fault> {
    let manager = manager(uid)?;
    for Stop { name, .. } in units {
        // One that cannot be saved is stopped all the same: its holder has to go. Its start says why.
        if let Ok(unit) = manager.unit(name)
            && let Err(error) = transient::save(uid, &unit.name, &unit.fragment)
        {
            eprintln!("{name} is not saved: {error}");
        }
    }
    let mut follower = manager.follow(&[]).map_err(fault)?;
    let orders: Vec<(&str, bool)> = units.iter().map(|unit| (unit.name.as_str(), unit.along)).collect();
    let mut results = vec![Stopped::Down; units.len()];
    bus::stop_each(&mut follower, &orders, Instant::now() + patience, |at, result| {
        results[at] = match result {
            Ok(()) => Stopped::Down,
            Err(bus::NotDown::Refused(why)) => Stopped::Refused(why),
            Err(bus::NotDown::Up(state)) => Stopped::Up(state),
        };
    });
    Ok(results)
}

/// Starts units; one that went when it stopped is put back before.
pub(crate) fn start(uid: u32, names: &[String], patience: Duration) -> Result<Vec<Started>, Fault> {
    let mut follower = manager(uid)?.follow(&[]).map_err(fault)?;
    let orders: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut results = vec![Started::Failed(String::new()); names.len()];
    let mut revive = |name: &str| match is_unit_name(name) {
        true => transient::restore(uid, name),
        false => Ok(false),
    };
    bus::start_each(&mut follower, &orders, patience, &mut revive, |at, result| {
        if result.is_ok() {
            transient::forget(uid, &names[at]);
        }
        results[at] = match result {
            Ok(Up::Already) => Started::Already,
            Ok(Up::Started) => Started::Started,
            Ok(Up::Queued) => Started::Queued,
            Err(why) => Started::Failed(why),
        };
    });
    Ok(results)
}

fn manager(uid: u32) -> Result<Manager, Fault> {
    Manager::user(uid).map_err(fault)
}

fn fault(error: bus::Error) -> Fault {
    match error {
        bus::Error::NoSuchUnit { .. } => Fault::Gone,
        bus::Error::Refused { .. } => Fault::Refused(0, error.to_string()),
        bus::Error::Unreachable { ref source, .. } => Fault::Unreachable(format!("{error}: {source}")),
        error => Fault::Other(error.to_string()),
    }
}
