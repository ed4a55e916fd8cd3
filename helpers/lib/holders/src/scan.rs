// SPDX-License-Identifier: MIT
//! The whole answer, put together.

use crate::account::{Account, account, fewest};
use crate::device::Rdev;
use crate::devices::{Table, framebuffers};
use crate::model::{Console, Holder, Module, Place, Scan, Unexplained, taken_by_name};
use crate::process::Process;
use crate::refcounts::refcounts;
use crate::search::{Found, Search};
use crate::walk::open_dir;
use crate::{Result, console, display, hidden, pod, process, sessions, unseen};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use step::Root;

/// Finds everything that keeps the driver loaded.
///
/// As root with CAP_SYS_PTRACE and CAP_SYS_ADMIN (or CAP_CHECKPOINT_RESTORE) the answer is
/// complete; without, [`Scan::unseen`] says what is missing. Where the reference counts show that
/// there is no holder, no process is looked at.
///
/// # Errors
/// When `/proc` or `/sys/module` cannot be read. One process never is an error.
pub fn scan(root: &Root) -> Result<Scan> {
    let before = refcounts(root)?;
    let mut scan = Scan::default();
    if !before.is_empty() {
        see_consoles(root, &mut scan)?;
    }
    if before.iter().all(Module::is_unused) {
        scan.modules = before;
        return Ok(scan);
    }
    let mut pass = one_pass(root, &before, false)?;
    if pass.account.in_doubt {
        // Somebody may hold nothing but a mapping. Or a process that opened the device and passed
        // it on while the tables were read looks like a hidden one; one that is hidden still is,
        // the second time.
        let mut again = one_pass(root, &pass.modules, true)?;
        if again.account.in_doubt {
            let suspects = std::mem::take(&mut pass.account.unexplained);
            scan.unexplained = look_deeper(root, &mut again, &suspects)?;
        }
        pass = again;
    }
    take_off(&mut scan.unexplained, &scan.consoles);
    take_off_hidden(&mut scan.unexplained, taken_by_name(&pass.modules));
    scan.searched = true;
    scan.modules = pass.modules;
    scan.holders = describe(root, pass.found);
    scan.unseen.extend(pass.unseen);
    Ok(scan)
}

/// The sockets in which devices of the driver are in flight that another user sent than has the socket,
/// although the holders of `scan` account for every reference: a sender that kept what it sent accounts for
/// it until it is ended. Asked for before a run; none where no user's process is a holder.
///
/// # Errors
/// When `/proc` or `/sys/module` cannot be read.
pub fn sent_by_others(root: &Root, scan: &Scan) -> Result<Vec<Place>> {
    if scan.holders.iter().all(Holder::is_systems) {
        return Ok(Vec::new());
    }
    let table = Table::load(root, &scan.modules)?;
    let hidden = hidden::look(root, &root.path("/proc"), root.is_system())?;
    let is_drivers = |devices: &BTreeMap<Rdev, u32>| devices.keys().any(|rdev| table.has(*rdev));
    Ok(hidden
        .of_others
        .into_iter()
        .filter(|(_, devices)| is_drivers(devices))
        .map(|(place, _)| place)
        .collect())
}

/// Adds the consoles. Who may not ask on which framebuffer a console is names it all the same.
fn see_consoles(root: &Root, scan: &mut Scan) -> Result<()> {
    match console::consoles(root) {
        Ok(consoles) => scan.consoles = consoles,
        Err(error) => {
            scan.consoles = console::bound(root, &framebuffers(root))?;
            scan.unseen.push(format!("on which framebuffer the console is: {}", chain(&error)));
        }
    }
    Ok(())
}

/// Takes what consoles account for off `unexplained`: one reference for each framebuffer drawn on,
/// to the module that made it. Which module that is the kernel does not tell; those here make none.
fn take_off(unexplained: &mut Vec<Unexplained>, consoles: &[Console]) {
    const DRAW_NOTHING: [&str; 4] = ["nvidia", "nvidia_modeset", "nvidia_uvm", "nvidia_peermem"];
    let mut left = consoles.iter().map(|console| console.framebuffers.len()).max().unwrap_or(0) as u64;
    for rest in unexplained.iter_mut().filter(|rest| !DRAW_NOTHING.contains(&rest.module.as_str())) {
        let taken = left.min(rest.references);
        rest.references -= taken;
        left -= taken;
    }
    unexplained.retain(|rest| rest.references > 0);
}

/// Takes what modules hold that do not stand in the driver's `holders` off `unexplained`.
fn take_off_hidden(unexplained: &mut Vec<Unexplained>, taken: u64) {
    for rest in unexplained.iter_mut().filter(|rest| rest.module == "nvidia") {
        rest.references = rest.references.saturating_sub(taken);
    }
    unexplained.retain(|rest| rest.references > 0);
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

struct Pass {
    modules: Vec<Module>,
    found: Vec<Found>,
    account: Account,
    unseen: Vec<String>,
}

/// One look at all processes, and how what it found compares with the references counted.
fn one_pass(root: &Root, before: &[Module], maps: bool) -> Result<Pass> {
    let proc = root.path("/proc");
    let table = Table::load(root, before)?;
    let searched = Search::run(&proc, table.clone(), root.is_system(), maps)?;
    let modules = refcounts(root)?;
    let found = searched.found;
    let account = account(&fewest(before, &modules), &table, &found, root.is_system());
    let mut unseen = unseen::limits(root);
    unseen.extend(unseen::blocked(&searched.blocked));
    unseen.extend(unseen::stuck(&searched.stuck));
    Ok(Pass { modules, found, account, unseen })
}

/// Looks where no table leads, adds what is found there to `pass`, and returns what remains of the
/// references of `suspects`: the modules that had some unexplained the first time as well.
fn look_deeper(root: &Root, pass: &mut Pass, suspects: &BTreeMap<String, u64>) -> Result<Vec<Unexplained>> {
    let (proc, live) = (root.path("/proc"), root.is_system());
    let hidden = hidden::look(root, &proc, live)?;
    let table = Table::load(root, &pass.modules)?;
    let search = Search::new(&proc, table.clone(), live, false)?;
    search.add_in_flight(&mut pass.found, &hidden.in_flight);
    let now = fewest(&pass.modules, &refcounts(root)?);
    let left = account(&now, &table, &pass.found, live).unexplained;
    Ok(left
        .into_iter()
        .filter(|(module, _)| suspects.contains_key(module))
        .map(|(module, references)| Unexplained {
            places: places_for(&module, &hidden.places, &pass.unseen),
            module,
            references,
        })
        .collect())
}

/// Where a module's references may be.
fn places_for(module: &str, places: &[Place], unseen: &[String]) -> Vec<Place> {
    let mut likely: Vec<Place> = Vec::new();
    if module == "nvidia_peermem" {
        likely.push(Place::Kernel { what: "memory registered for RDMA".to_owned() });
    }
    likely.extend(places.iter().cloned());
    if !unseen.is_empty() {
        likely.push(Place::Kernel { what: "what could not be looked at".to_owned() });
    }
    likely
}

/// Adds what is the same for all holders or comes from elsewhere than their directories.
pub(crate) fn describe(root: &Root, found: Vec<Found>) -> Vec<Holder> {
    if found.is_empty() {
        return Vec::new();
    }
    let boot = fs::read(root.path("/proc/stat")).ok().and_then(|text| process::boot_time(&text));
    // Users of a directory service are not here: a step must not wait for a network.
    let passwd = fs::read(root.path("/etc/passwd")).unwrap_or_default();
    let passwd = String::from_utf8_lossy(&passwd);
    let proc = open_dir(rustix::fs::CWD, root.path("/proc"));
    let mut holders: Vec<Holder> = found.into_iter().map(|found| found.holder).collect();
    let mut users: HashMap<u32, Option<String>> = HashMap::new();
    for holder in &mut holders {
        holder.since = boot.map(|boot| process::since_1970(boot, holder.start_ticks));
        let name = users.entry(holder.uid).or_insert_with(|| process::user_name(&passwd, holder.uid));
        holder.user = name.clone();
        pod::complete(root, &mut holder.owner);
        let process = proc.as_ref().ok().and_then(|proc| Process::open(proc, holder.pid).ok());
        holder.screen = process
            .is_some_and(|process| display::drives_screen(root, &process, holder.pid, &holder.devices));
    }
    holders.sort_by_key(|holder| holder.pid);
    sessions::attribute(&mut holders);
    holders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_by_name_accounts_for_so_many_references_to_the_driver_and_no_more() {
        let rest = |module: &str, references, taken| {
            let mut unexplained = vec![Unexplained { module: module.into(), references, places: Vec::new() }];
            take_off_hidden(&mut unexplained, taken);
            unexplained.first().map_or(0, |rest| rest.references)
        };
        assert_eq!((rest("nvidia", 6, 6), rest("nvidia", 9, 6), rest("nvidia", 3, 0)), (0, 3, 3));
        assert_eq!(rest("nvidia_uvm", 6, 6), 6);
    }

    #[test]
    fn a_console_accounts_for_one_reference_a_framebuffer() {
        let console = |framebuffers: &[&str]| Console {
            name: "vtcon1".into(),
            driver: "(M) frame buffer device".into(),
            framebuffers: framebuffers.iter().map(|&name| name.to_owned()).collect(),
        };
        let rest = |consoles: &[Console], counted: &[(&str, u64)]| -> Vec<(String, u64)> {
            let mut unexplained = counted
                .iter()
                .map(|&(module, references)| Unexplained {
                    module: module.into(),
                    references,
                    places: Vec::new(),
                })
                .collect();
            take_off(&mut unexplained, consoles);
            unexplained.into_iter().map(|rest| (rest.module, rest.references)).collect()
        };
        assert_eq!(rest(&[], &[("nvidia_drm", 1)]), [("nvidia_drm".to_owned(), 1)]);
        assert_eq!(rest(&[console(&["fb0"])], &[("nvidia_drm", 1)]), []);
        assert_eq!(rest(&[console(&["fb0"])], &[("nvidia_drm", 3)]), [("nvidia_drm".to_owned(), 2)]);
        assert_eq!(rest(&[console(&["fb0"])], &[("nvidia", 1)]), [("nvidia".to_owned(), 1)]);
        let two = console(&["fb0", "fb1"]);
        assert_eq!(rest(&[two], &[("nvidia_drm", 1), ("other", 2)]), [("other".to_owned(), 1)]);
    }
}
