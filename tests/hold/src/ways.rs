// SPDX-License-Identifier: MIT
//! The ways of holding a device.

#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{IoSlice, Read};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, unshare};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::{ForkResult, chdir, chroot, dup2_stderr, dup2_stdin, dup2_stdout, fork, getgid, getuid};

use crate::{Held, Options};

/// Opens all devices as the arguments say.
pub fn acquire(options: &Options) -> Result<Held> {
    let paths = prepare(options)?;
    if options.userns {
        enter_namespaces()?;
    }
    let mut flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    flags.set(OFlag::O_NONBLOCK, options.nonblock);
    if options.thread {
        return in_own_thread(flags, options, paths);
    }
    let fds = open_all(flags, options.unlinked, &paths)?;
    if options.in_flight {
        return send_away(fds);
    }
    if options.map {
        for (fd, path) in fds.iter().zip(&options.devices) {
            map(fd).with_context(|| format!("cannot map {}", path.display()))?;
        }
        return Ok(Held::Elsewhere);
    }
    if options.fdstore {
        give_to_systemd(&fds)?;
        return Ok(Held::Elsewhere);
    }
    Ok(Held::Fds(fds))
}

/// Makes the nodes to be opened, and returns their paths. Before namespaces
/// are entered: inside one, mknod is forbidden even to root.
fn prepare(options: &Options) -> Result<Vec<PathBuf>> {
    let mut paths = options.devices.clone();
    if let Some(root) = &options.chroot {
        for path in &mut paths {
            let inside = Path::new("/dev").join(path.file_name().context("a device has no name")?);
            let outside = root.join("dev").join(path.file_name().unwrap_or_default());
            fs::create_dir_all(root.join("dev"))
                .with_context(|| format!("cannot make {}/dev", root.display()))?;
            copy_node(path, &outside)?;
            *path = inside;
        }
        copy_node(Path::new("/dev/null"), &root.join("dev/null"))?;
        chroot(root).with_context(|| format!("cannot chroot to {}", root.display()))?;
        chdir("/").context("cannot change to the new root")?;
    }
    if options.mknod || options.unlinked {
        if options.chroot.is_some() {
            fs::create_dir_all("/tmp").context("cannot make /tmp")?;
        }
        for (n, path) in paths.iter_mut().enumerate() {
            let node = PathBuf::from(format!("/tmp/hold-{}-{n}", std::process::id()));
            copy_node(path, &node)?;
            *path = node;
        }
    }
    Ok(paths)
}

fn copy_node(device: &Path, node: &Path) -> Result<()> {
    let metadata = fs::metadata(device).with_context(|| format!("cannot look at {}", device.display()))?;
    if metadata.rdev() == 0 {
        bail!("{} is no device", device.display());
    }
    match fs::remove_file(node) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", node.display()));
        }
        _ => {}
    }
    let mode = Mode::from_bits_truncate(0o666);
    mknod(node, SFlag::S_IFCHR, mode, metadata.rdev())
        .with_context(|| format!("cannot make the node {}", node.display()))
}

fn open_all(flags: OFlag, unlink: bool, paths: &[PathBuf]) -> Result<Vec<OwnedFd>> {
    let mut fds = Vec::new();
    for path in paths {
        let fd =
            open(path, flags, Mode::empty()).with_context(|| format!("cannot open {}", path.display()))?;
        fds.push(fd);
        if unlink {
            fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(fds)
}

/// Opens in a thread whose file table is its own: /proc/PID/fd does not show
/// it, /proc/PID/task/TID/fd does. The thread lives as long as the process.
fn in_own_thread(flags: OFlag, options: &Options, paths: Vec<PathBuf>) -> Result<Held> {
    let (unlink, background) = (options.unlinked, options.fork);
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let opened = unshare(CloneFlags::CLONE_FILES)
            .context("cannot unshare the file table")
            // A table of its own has copies of the streams.
            .and_then(|()| if background { leave_streams() } else { Ok(()) })
            .and_then(|()| open_all(flags, unlink, &paths));
        match opened {
            Ok(_fds) => {
                let _ = sender.send(Ok(()));
                loop {
                    std::thread::park();
                }
            }
            Err(error) => {
                let _ = sender.send(Err(error));
            }
        }
    });
    receiver.recv().context("the thread died")??;
    Ok(Held::Elsewhere)
}

/// Leaves the descriptors in a socket: in nobody's table, and open.
fn send_away(fds: Vec<OwnedFd>) -> Result<Held> {
    let (sender, receiver) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
        .context("cannot make a socket pair")?;
    let raw: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    sendmsg::<()>(
        sender.as_raw_fd(),
        &[IoSlice::new(b"x")],
        &[ControlMessage::ScmRights(&raw)],
        MsgFlags::empty(),
        None,
    )
    .context("cannot send the descriptors")?;
    drop(fds);
    Ok(Held::Fds(vec![sender, receiver]))
}

/// Maps a page for as long as the process lives.
fn map(fd: &OwnedFd) -> Result<()> {
    match map_at(fd, None) {
        // nvidia-uvm's answer to a client that has not said which features it knows.
        Err(Errno::EBADFD) => map_uvm(fd),
        result => Ok(result?),
    }
}

/// What a CUDA program does first: UVM_INITIALIZE, then managed memory, whose
/// offset in the file is its address. Numbers from NVIDIA's open modules,
/// kernel-open/nvidia-uvm/uvm_linux_ioctl.h; the same from 470 on.
fn map_uvm(fd: &OwnedFd) -> Result<()> {
    const UVM_INITIALIZE: u64 = 0x3000_0001;
    const ADDRESS: NonZeroUsize = NonZeroUsize::new(1 << 40).expect("not zero");
    #[repr(C)]
    struct Parameters {
        flags: u64,
        status: u32,
    }
    nix::ioctl_readwrite_bad!(uvm_initialize, UVM_INITIALIZE, Parameters);
    let mut parameters = Parameters { flags: 0, status: 0 };
    // SAFETY: the structure is the one that this number stands for.
    unsafe { uvm_initialize(fd.as_raw_fd(), &raw mut parameters) }.context("UVM_INITIALIZE")?;
    if parameters.status != 0 {
        bail!("UVM_INITIALIZE: status {:#x}", parameters.status);
    }
    Ok(map_at(fd, Some(ADDRESS))?)
}

fn map_at(fd: &OwnedFd, address: Option<NonZeroUsize>) -> nix::Result<()> {
    const LENGTH: NonZeroUsize = NonZeroUsize::new(2 << 20).expect("not zero");
    let offset = address.map_or(0, NonZeroUsize::get).cast_signed() as i64;
    let (mut protection, mut flags) = (ProtFlags::PROT_READ, MapFlags::MAP_SHARED);
    protection.set(ProtFlags::PROT_WRITE, address.is_some());
    flags.set(MapFlags::MAP_FIXED_NOREPLACE, address.is_some());
    // SAFETY: a new mapping where there is none, that nothing reads or writes.
    unsafe { mmap(address, LENGTH, protection, flags, fd, offset) }?;
    Ok(())
}

fn give_to_systemd(fds: &[OwnedFd]) -> Result<()> {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        bail!("--fdstore needs NOTIFY_SOCKET: run it as a service with FileDescriptorStoreMax=");
    }
    let fds: Vec<BorrowedFd> = fds.iter().map(AsFd::as_fd).collect();
    let states = [sd_notify::NotifyState::FdStore, sd_notify::NotifyState::Ready];
    sd_notify::notify_with_fds(&states, &fds).context("cannot give the descriptors to systemd")
}

/// A user namespace in which we are root, and a mount namespace.
fn enter_namespaces() -> Result<()> {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).context("cannot make the namespaces")?;
    fs::write("/proc/self/setgroups", "deny").context("cannot write setgroups")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).context("cannot write uid_map")?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).context("cannot write gid_map")
}

/// Other descriptors, for scans to look through.
pub fn open_noise(count: u64) -> Result<Vec<File>> {
    if count > 0 {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let wanted = count + 64;
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted))
            .with_context(|| format!("cannot have {wanted} descriptors"))?;
    }
    (0..count).map(|_| File::open("/dev/null").context("cannot open /dev/null")).collect()
}

/// Starts over under another `argv[0]`; the second time, sets comm.
pub fn take_name(name: &OsStr) -> Result<()> {
    const DONE: &str = "HOLD_NAMED";
    if std::env::var_os(DONE).is_none() {
        let error =
            Command::new("/proc/self/exe").arg0(name).args(std::env::args_os().skip(1)).env(DONE, "1").exec();
        return Err(error).context("cannot start over under another name");
    }
    let comm = std::ffi::CString::new(name.as_bytes()).context("the name has a zero byte")?;
    nix::sys::prctl::set_name(&comm).context("cannot set the name")
}

/// The parent that waits in the foreground.
pub struct Parent(std::io::PipeWriter);

/// Goes on in a child; the parent ends with success once it is released, and
/// with failure when the child dies before.
pub fn into_background() -> Result<Parent> {
    let (mut reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    // SAFETY: no thread was started yet.
    match unsafe { fork() }.context("cannot fork")? {
        ForkResult::Child => {
            drop(reader);
            nix::unistd::setsid().context("cannot make a session")?;
            Ok(Parent(writer))
        }
        ForkResult::Parent { .. } => {
            drop(writer);
            let mut word = [0];
            exit(i32::from(reader.read_exact(&mut word).is_err()))
        }
    }
}

impl Parent {
    /// Lets it go, and lets go of the streams it had.
    pub fn release(mut self) -> Result<()> {
        leave_streams()?;
        std::io::Write::write_all(&mut self.0, b"r").context("the parent is gone")
    }
}

/// Lets go of the standard streams: whoever reads them sees the end.
pub fn leave_streams() -> Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null").context("cannot open /dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
}
