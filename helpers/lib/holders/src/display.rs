// SPDX-License-Identifier: MIT
//! Whether a process drives a screen: a display server or compositor, known by what it holds.
//!
//! A program that only renders may have the same nodes open, and any program that opens a card that has no
//! master becomes its master, wanted or not. One that drives a screen has a virtual terminal too,
//! or is the master of a card that shows something.

use crate::device::{Device, Kind, Rdev};
use crate::process::Process;
use crate::walk::{each_entry, is_opened, number, open_dir, stat};
use std::fs;
use std::mem::MaybeUninit;
use step::Root;

/// Virtual terminals: `/dev/tty0` to `/dev/tty63`.
const TTY: u32 = 4;
const LAST_TERMINAL: u32 = 63;
/// The DRM nodes' major.
const DRM: u32 = 226;

/// Whether process `pid` that holds `devices` drives a screen.
pub(crate) fn drives_screen(root: &Root, process: &Process, pid: i32, devices: &[Device]) -> bool {
    let cards: Vec<Rdev> =
        devices.iter().filter(|device| device.kind == Kind::DrmCard).filter_map(|d| d.rdev).collect();
    let modeset = devices.iter().any(|device| device.kind == Kind::Modeset);
    if modeset || !cards.is_empty() {
        return has_terminal(process)
            || cards.iter().any(|card| is_master(root, *card, pid) && shows_something(root, *card));
    }
    false
}

fn has_terminal(process: &Process) -> bool {
    let Ok(table) = open_dir(&process.dir, "fd") else { return false };
    let mut buffer = vec![MaybeUninit::uninit(); 8 << 10];
    let mut any = false;
    // What cannot be read is no terminal; the master of a card is found all the same.
    let _ = each_entry(&table, &mut buffer, |name| {
        any = stat(&table, name).is_ok_and(|found| {
            // Everybody may name a terminal (O_PATH); to open it takes the right to.
            found.is_char_device()
                && found.rdev.major == TTY
                && found.rdev.minor <= LAST_TERMINAL
                && number(name).is_some_and(|fd| is_opened(&table, fd))
        });
        !any
    });
    any
}

/// Whether debugfs calls the process the master of the card. The file of the card is opened and
/// made master by logind in most cases, and passed on: then it is logind that the kernel names.
fn is_master(root: &Root, card: Rdev, pid: i32) -> bool {
    if card.major != DRM {
        return false;
    }
    let path = root.path(format!("/sys/kernel/debug/dri/{}/clients", card.minor));
    // Names of processes are in it, of any bytes.
    fs::read(path).is_ok_and(|clients| masters(&String::from_utf8_lossy(&clients)).contains(&pid))
}

/// Whether a picture is scanned out on the card. A driver that does not tell shows nothing.
fn shows_something(root: &Root, card: Rdev) -> bool {
    let path = root.path(format!("/sys/kernel/debug/dri/{}/state", card.minor));
    fs::read(path)
        .is_ok_and(|state| String::from_utf8_lossy(&state).lines().any(|line| line.trim() == "active=1"))
}

/// The processes that `clients` lists as masters. Columns: command, tgid, dev, master,
/// authenticated, uid, magic, and since Linux 6.15 a name and an id; the command may have spaces,
/// so the two flags are looked for from the end.
///
/// The kernel writes the command as it is, of 15 bytes at most, and a process may have line ends in its name: a
/// line that could be of such a name is none of the kernel's, whose columns alone are longer.
pub(crate) fn masters(clients: &str) -> Vec<i32> {
    const COLUMNS: usize = 30;
    let is_flag = |field: &str| field == "y" || field == "n";
    clients
        .lines()
        .skip(1)
        .filter(|line| line.len() >= COLUMNS)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().rev().collect();
            let authenticated = fields.windows(2).position(|pair| is_flag(pair[0]) && is_flag(pair[1]))?;
            let pid = fields.get(authenticated + 3)?.parse().ok()?;
            (fields[authenticated + 1] == "y").then_some(pid)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLIENTS: &str = "\
             command  tgid dev master a   uid      magic
      systemd-logind   801   0   y    y     0          0
     Xorg with space   990   0   n    y  1000          1
              Xwayln  1200   0   y    y  1000          2               <unset>     7
";

    #[test]
    fn masters_of_a_card() {
        assert_eq!(masters(CLIENTS), [801, 1200]);
        assert!(masters("").is_empty());
    }

    #[test]
    fn a_process_is_known_by_the_card_it_masters() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(dir.path());
        for path in ["/proc/990/fd", "/proc/801/fd", "/sys/kernel/debug/dri/0"] {
            fs::create_dir_all(root.path(path)).expect("created");
        }
        fs::write(root.path("/sys/kernel/debug/dri/0/clients"), CLIENTS).expect("written");
        let device = |kind, major, minor| Device {
            rdev: Some(Rdev { major, minor }),
            kind,
            name: String::new(),
            module: String::new(),
            via: crate::device::Via::Fd,
            count: 1,
            path: String::new(),
        };
        let drives = |pid: i32, device: Device| {
            let proc = open_dir(rustix::fs::CWD, root.path("/proc")).expect("opens");
            drives_screen(&root, &Process::open(proc, pid).expect("opens"), pid, &[device])
        };
        assert!(!drives(801, device(Kind::DrmCard, 226, 0)), "master of a dark card");
        let state = "crtc[41]: head-0\n\tenable=1\n\tactive=1\n\tself_refresh_active=0\n";
        fs::write(root.path("/sys/kernel/debug/dri/0/state"), state).expect("written");
        assert!(drives(801, device(Kind::DrmCard, 226, 0)));
        assert!(!drives(990, device(Kind::DrmCard, 226, 0)), "a client of the card");
        assert!(!drives(801, device(Kind::DrmRender, 226, 128)));
        assert!(!drives(990, device(Kind::Modeset, 195, 254)), "renders without a screen");
        // A terminal beside the node: any will do that exists here.
        let terminal = ["/dev/tty0", "/dev/tty1"].iter().find(|path| std::path::Path::new(path).exists());
        if let Some(terminal) = terminal {
            std::os::unix::fs::symlink(terminal, root.path("/proc/990/fd/7")).expect("linked");
            assert!(drives(990, device(Kind::Modeset, 195, 254)));
        }
    }

    proptest! {
        #[test]
        fn any_list_is_read(text in "[yn0-9 \n]{0,80}") {
            masters(&text);
        }
    }
}
