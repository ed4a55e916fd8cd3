#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""usage: adversary.py SEED

Runs as a user without rights and does, at random moments and without end, what such a user can do to get in the
way of a reload, or to turn it against others. Each act is bounded in time, so that it meets runs at any moment.
"""
import ctypes
import fcntl
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

RUNTIME = Path(f"/run/user/{os.getuid()}")
GPU = "/dev/nvidiactl"
NAMES = ["dockerd", "containerd-shim", "conmon", "kubelet", "nvidia-persiste", "Xorg", "systemd", "sshd",
         "a\nMAINPID=1", "\x1b[2Jx", "x) R 1 1 1", "nvidia-reload"]
chance = random.Random(int(sys.argv[1]))
libc = ctypes.CDLL(None)


def lasting():
    """How long something stays."""
    return chance.uniform(2, 20)


def child(act):
    """A process that does `act` and ends, whatever happens."""
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(40)
    try:
        act()
    except OSError:
        pass
    os._exit(0)


def hold():
    return os.open(GPU, os.O_RDWR | os.O_CLOEXEC)


def named():
    """A process with the name of another, with the GPU or without."""
    name, with_gpu, seconds = chance.choice(NAMES), chance.random() < 0.7, lasting()

    def act():
        libc.prctl(15, name.encode(), 0, 0, 0)
        if with_gpu:
            hold()
        if chance.random() < 0.5:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(seconds)
    child(act)


def locks():
    """Locks on all that can be opened of what is the program's."""
    seconds = lasting()

    def act():
        kept = []
        for top in ["/var/lib/nvidia-reload", "/run/nvidia-reload", "/run/modprobe.d", "/etc/nvidia-reload",
                    "/usr/lib/nvidia-reload", "/run/lock", "/var/lib/dpkg", "/run/systemd"]:
            for folder, _, files in os.walk(top):
                for path in [folder, *(os.path.join(folder, name) for name in files)]:
                    try:
                        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        kept.append(file)
                    except OSError:
                        pass
        time.sleep(seconds)
    child(act)


def links():
    """The sockets of her manager lead to those of the system for a while."""
    name, target = chance.choice([("systemd/private", "/run/systemd/private"), ("bus", "/run/dbus/system_bus_socket")])
    path, away = RUNTIME / name, RUNTIME / f"{name}.away"
    if away.exists():
        return
    try:
        path.rename(away)
        path.symlink_to(chance.choice([target, "/run/docker.sock", "/dev/zero", str(path)]))
        time.sleep(chance.uniform(0.5, 4))
        path.unlink()
    finally:
        if away.exists():
            away.rename(path)


def user_units():
    """A transient unit that has the GPU, called as one of the system, its file a link."""
    unit = chance.choice(["docker", "ssh", "innocent", "holder", "nvidia-persistenced", "x" * 200, f"job{time.time_ns()}"])
    words = ["systemd-run", "--user", "--quiet", "--collect", f"--unit={unit}", "timeout", "20", "hold", GPU]
    subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20, check=False)
    file = RUNTIME / f"systemd/transient/{unit}.service"
    if file.exists() and chance.random() < 0.5:
        file.unlink()
        file.symlink_to(chance.choice(["/etc/shadow", "/etc/cron.d/pwned", "/dev/zero"]))


def bundle():
    """A conmon whose bundle never ends, or is a link."""
    seconds = lasting()

    def act():
        folder = Path(f"/tmp/bundle-{os.getpid()}")
        folder.mkdir()
        config = folder / "config.json"
        chance.choice([lambda: os.mkfifo(config), lambda: config.symlink_to("/dev/zero"),
                       lambda: config.symlink_to("/etc/shadow"),
                       lambda: config.write_text('{"mounts":' + "[" * 100000)])()
        libc.prctl(15, b"conmon", 0, 0, 0)
        hold()
        # The words that conmon is started with, in a process that is called so.
        os.execv("/usr/bin/python3", ["conmon", "-c", f"import ctypes,time;ctypes.CDLL(None).prctl(15,b'conmon',0,0,0);"
                                      f"time.sleep({seconds})", "-b", str(folder), "-u", "ab" * 32])
    child(act)


def podman():
    """A Podman that answers slowly, without end, or not at all."""
    kind, seconds = chance.choice(["slow", "endless", "silent", "ids"]), lasting()

    def act():
        libc.prctl(15, b"conmon", 0, 0, 0)
        path = RUNTIME / "podman/podman.sock"
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.listen(0 if kind == "silent" else 20)
        end = time.monotonic() + seconds
        server.settimeout(1)
        while time.monotonic() < end:
            try:
                peer, _ = server.accept()
            except TimeoutError:
                continue
            if kind == "silent":
                time.sleep(seconds)
            peer.recv(65536)
            peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            if kind == "ids":
                body = b'[{"Id": "../containers/prune#", "Names": ["a\\nMAINPID=1"]}]'
                peer.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
            while kind in ("slow", "endless") and time.monotonic() < end:
                peer.sendall(b"1\r\n \r\n" if kind == "slow" else b"10000\r\n" + b" " * 65536 + b"\r\n")
                if kind == "slow":
                    time.sleep(0.5)
            peer.close()
        path.unlink(missing_ok=True)
    child(act)


def forks():
    """Processes that have the GPU and start others like them, for a while."""
    end = time.monotonic() + chance.uniform(1, 6)

    def breed():
        hold()
        while time.monotonic() < end:
            if os.fork():
                os._exit(0)
            time.sleep(0.01)
    for _ in range(20):
        child(breed)


def in_flight():
    """Descriptors of the GPU on their way to sockets of the system."""
    seconds = lasting()

    def act():
        kept = []
        for path, kind in [("/run/systemd/journal/socket", socket.SOCK_DGRAM), ("/run/systemd/notify", socket.SOCK_DGRAM),
                           ("/run/dbus/system_bus_socket", socket.SOCK_STREAM)]:
            try:
                to = socket.socket(socket.AF_UNIX, kind)
                to.settimeout(2)
                to.connect(path)
                gpu = hold()
                socket.send_fds(to, [b"x=1\n"], [gpu])
                os.close(gpu)
                kept.append(to)
            except OSError:
                pass
        # And to herself, where nobody reads.
        one, other = socket.socketpair()
        socket.send_fds(one, [b"x"], [hold()])
        time.sleep(seconds)
    child(act)


def groups():
    """A group below her own that is called like a container's, with a holder in it."""
    own = Path("/proc/self/cgroup").read_text().split("::")[-1].strip()
    top = Path("/sys/fs/cgroup" + own)
    name = chance.choice(["docker-" + "ab" * 32 + ".scope", "libpod-" + "cd" * 32 + ".scope", "job_7", "kubepods"])
    folder = top.parent / name
    folder.mkdir(exist_ok=True)
    seconds = lasting()

    def act():
        (folder / "cgroup.procs").write_text(str(os.getpid()))
        hold()
        time.sleep(seconds)
    child(act)


def signals():
    """Floods of signals on her own bus."""
    end = time.monotonic() + chance.uniform(1, 5)
    while time.monotonic() < end:
        words = ["busctl", "--user", "emit", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "JobRemoved",
                 "uoss", "1", "/org/freedesktop/systemd1/job/1", "x.service", "done"]
        subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20, check=False)


ACTS = [named, locks, links, user_units, bundle, podman, forks, in_flight, groups, signals]


def main():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        act = chance.choice(ACTS)
        print(act.__name__, flush=True)
        # Each on a thread, so that one that waits keeps nobody: there are never many.
        if threading.active_count() < 20:
            threading.Thread(target=quietly, args=(act,), daemon=True).start()
        time.sleep(chance.uniform(0.1, 1))


def quietly(act):
    try:
        act()
    except (OSError, subprocess.SubprocessError) as error:
        print(act.__name__, error, flush=True)


main()
