# SPDX-License-Identifier: MIT
"""What can hold a GPU, each as something that starts, is asked who it is, and stops; and what only
looks like it."""
import contextlib
import glob
import os
import pwd
import shutil
import subprocess
import time

CTL = "/dev/nvidiactl"
HOLD = shutil.which("hold")
ALICE = pwd.getpwnam("alice").pw_uid
RUNTIME = f"/run/user/{ALICE}"
# Podman asks her manager over her bus for the group of a container.
BUS = f"DBUS_SESSION_BUS_ADDRESS=unix:path={RUNTIME}/bus"
AS_ALICE = ["runuser", "-u", "alice", "--", "env", "HOME=/home/alice", f"XDG_RUNTIME_DIR={RUNTIME}", BUS]


def run(*command):
    # A user cannot enter the folder of the scenario.
    to = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "cwd": "/"}
    done = subprocess.run(command, text=True, **to)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}")
    return done.stdout


def wait_for(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"after {seconds} s still not so: {what}")
        time.sleep(0.05)


def hold(*arguments, user=None):
    """A holder in the background: its pid."""
    before = ["runuser", "-u", user, "--"] if user else []
    word, pid = run(*before, "hold", "--fork", *arguments).split()
    assert word == "ready", word
    return int(pid)


def children(pid):
    return {int(child) for child in open(f"/proc/{pid}/task/{pid}/children").read().split()}


def has_open(pid, name):
    for fd in glob.glob(f"/proc/{pid}/fd/*"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(fd).endswith(name):
                return True
    return False


def start_time(pid):
    """With the pid, the identity of a process; None once it is gone."""
    try:
        stat = open(f"/proc/{pid}/stat").read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


class Plain:
    """A process that nobody owns."""

    owners = {"process", "session"}
    comes_back = False

    def __init__(self, n, *options, device=CTL, user=None, via="fd"):
        self.via = via
        pid = hold(*[option.format(n=n) for option in options], device, user=user)
        self.pids = {pid} | children(pid)
        self.born = {pid: start_time(pid) for pid in self.pids}

    def now(self):
        return {pid for pid in self.pids if start_time(pid) == self.born[pid]}

    def stop(self):
        for pid in self.now():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        wait_for("the holders are gone", lambda: not self.now())


class Mounted(Plain):
    """A process whose node is a bind mount under another name."""

    def __init__(self, n):
        self.node = f"/tmp/mounted-{n}"
        open(self.node, "w").close()
        run("mount", "--bind", CTL, self.node)
        super().__init__(n, device=self.node)

    def stop(self):
        super().stop()
        run("umount", self.node)
        os.unlink(self.node)


class Unit:
    """A service, made of the template `holder-KIND@`."""

    owners = {"system-unit"}
    comes_back = True
    via = "fd"

    def __init__(self, n, kind):
        self.kind = kind
        self.name = f"holder-{kind}@{n}.service"
        run("systemctl", "start", self.name)
        if kind == "store":
            # It says that it is ready before it closes its own.
            wait_for("PID 1 alone has it", lambda: not has_open(self.main(), "nvidiactl"))

    @property
    def pids(self):
        main = self.main()
        if self.kind == "store":
            return {1}
        return {main} | children(main) if main else set()

    def main(self):
        return int(run("systemctl", "show", "--property=MainPID", "--value", self.name))

    def now(self):
        active = run("systemctl", "show", "--property=ActiveState", "--value", self.name).strip() == "active"
        return self.pids if active else set()

    def stop(self):
        run("systemctl", "stop", self.name)


class UserUnit(Unit):
    """A service of alice's own manager."""

    owners = {"user-unit"}

    def __init__(self, n):
        self.kind = "plain"
        self.name = f"holder@{n}.service"
        self.systemctl("start")

    def systemctl(self, *words):
        return run(*AS_ALICE, "systemctl", "--user", *words, self.name)

    def main(self):
        return int(self.systemctl("show", "--property=MainPID", "--value"))

    def now(self):
        active = self.systemctl("show", "--property=ActiveState", "--value").strip() == "active"
        return self.pids if active else set()

    def stop(self):
        self.systemctl("stop")


class Monitor(Unit):
    """A service of NVIDIA's: it fails where driver and disk do not match, and is to run again after the reload."""

    def __init__(self, n):
        self.kind, self.name = "plain", "nvidia-dcgm.service"
        run("systemctl", "start", self.name)

    def after_upgrade(self):
        """As the packages of a new driver do."""
        subprocess.run(["systemctl", "restart", self.name], stderr=subprocess.DEVNULL, check=False)
        wait_for("the service has failed", lambda: not self.now())


class Container:
    """A container of root's."""

    owners = {"container"}
    comes_back = True
    via = "fd"

    def __init__(self, n, engine):
        self.engine = engine
        self.name = f"holder-{n}"
        run(engine, "run", "--detach", "--name", self.name, "--device", CTL, "gpu-job")
        wait_for(f"{engine}'s container holds the GPU", self.holds)

    @property
    def pids(self):
        """The shell that opened the device, and the sleep that has it from the shell."""
        main = int(run(self.engine, "inspect", "--format", "{{.State.Pid}}", self.name))
        return {main} | children(main) if main else set()

    def holds(self):
        try:
            return len([pid for pid in self.pids if has_open(pid, "nvidiactl")]) == 2
        except (FileNotFoundError, ProcessLookupError):
            return False

    def now(self):
        return self.pids if self.holds() else set()

    def stop(self):
        run(self.engine, "rm", "--force", "--time", "0", self.name) if self.engine == "podman" else run(
            self.engine, "rm", "--force", self.name
        )


class ContainerByCdi(Container):
    """A container of Podman that has the GPU by its CDI name."""

    def __init__(self, n):
        self.engine, self.name = "podman", f"holder-{n}"
        run("podman", "run", "--detach", "--name", self.name, "--device", "nvidia.com/gpu=all", "gpu-job")
        wait_for("the container by CDI holds the GPU", self.holds)


class ContainerOfUnit(Container):
    """A container that a service runs: it is new after each start of the service."""

    def __init__(self, n):
        self.engine, self.name, self.unit = "docker", f"holder-{n}", f"holder-docker@{n}.service"
        run("systemctl", "start", self.unit)
        wait_for("the service's container holds the GPU", self.holds)

    @property
    def pids(self):
        named = subprocess.run(["docker", "inspect", "-f", "{{.State.Pid}}", self.name], capture_output=True, text=True)
        main = int(named.stdout) if named.returncode == 0 else 0
        return {main} | children(main) if main else set()

    def stop(self):
        run("systemctl", "stop", self.unit)


class ContainerOfAlice:
    """A container of alice's own Podman."""

    owners = {"container"}
    comes_back = True
    via = "fd"

    def __init__(self, n):
        self.name = f"holder-{n}"
        # Not waiting for a child in the foreground: the first process of a container gets SIGTERM only if it asks.
        job = f'trap "exit 0" TERM; exec 3<{CTL}; while :; do sleep 3600 & wait $!; done'
        words = ["--name", self.name, "--net=none", "--device", CTL, "gpu-job", "sh", "-c", job]
        run(*AS_ALICE, "podman", "run", "--detach", *words)
        wait_for("alice's container holds the GPU", self.now)

    @property
    def pids(self):
        main = int(run(*AS_ALICE, "podman", "inspect", "--format", "{{.State.Pid}}", self.name))
        return {main} | children(main) if main else set()

    def now(self):
        try:
            pids = self.pids
            return pids if len([pid for pid in pids if has_open(pid, "nvidiactl")]) == 2 else set()
        except (FileNotFoundError, ProcessLookupError):
            return set()

    def stop(self):
        run(*AS_ALICE, "podman", "rm", "--force", "--time", "0", self.name)


# Name, how it is started, and how often it is drawn: a container takes a hundred times as long as
# a process.
KINDS = {
    "process": (lambda n: Plain(n), 3),
    "alice's": (lambda n: Plain(n, user="alice"), 3),
    "uvm": (lambda n: Plain(n, device="/dev/nvidia-uvm"), 3),
    "uvm-tools": (lambda n: Plain(n, device="/dev/nvidia-uvm-tools"), 3),
    "modeset": (lambda n: Plain(n, device="/dev/nvidia-modeset"), 3),
    "caps": (lambda n: Plain(n, device=capability()), 3),
    "drm card": (lambda n: Plain(n, device=of_driver("nvidia", "card")), 3),
    "render node": (lambda n: Plain(n, device=of_driver("nvidia", "renderD")), 3),
    "own node": (lambda n: Plain(n, "--mknod"), 3),
    "unlinked node": (lambda n: Plain(n, "--unlinked"), 3),
    "bind mount": (lambda n: Mounted(n), 3),
    "other root": (lambda n: Plain(n, "--chroot=/tmp/root-{n}"), 3),
    "user namespace": (lambda n: Plain(n, "--userns", user="alice"), 3),
    "thread": (lambda n: Plain(n, "--thread", via="thread-fd"), 3),
    "in flight": (lambda n: Plain(n, "--in-flight", via="in-flight"), 3),
    "mapping": (lambda n: Plain(n, "--map", device="/dev/nvidia-uvm", via="map"), 3),
    "children": (lambda n: Plain(n, "--children=3"), 3),
    "many descriptors": (lambda n: Plain(n, "--fds=300"), 3),
    "stopped": (lambda n: Plain(n, "--stopped"), 3),
    "ignores SIGTERM": (lambda n: Plain(n, "--ignore-term"), 3),
    "leaves heirs": (lambda n: Plain(n, "--forking"), 3),
    "innocent name": (lambda n: Plain(n, "--name=sshd: alice"), 3),
    "unit": (lambda n: Unit(n, "plain"), 2),
    "unit that restarts": (lambda n: Unit(n, "always"), 2),
    "unit with children": (lambda n: Unit(n, "children"), 2),
    "stored by PID 1": (lambda n: Unit(n, "store"), 1),
    "user's unit": (lambda n: UserUnit(n), 2),
    "a service of NVIDIA's": (Monitor, 2),
    "docker": (lambda n: Container(n, "docker"), 1),
    "podman": (lambda n: Container(n, "podman"), 1),
    "podman by CDI": (ContainerByCdi, 1),
    "a service's container": (ContainerOfUnit, 1),
    "alice's podman": (ContainerOfAlice, 1),
}

OPTIONS = {"plain": "", "always": "", "children": "--children=2", "store": "--fdstore"}


def of_driver(driver, kind):
    """The DRM node of this kind whose device has this driver."""
    for path in sorted(glob.glob(f"/sys/class/drm/{kind}[0-9]*")):
        if "-" not in os.path.basename(path):
            with contextlib.suppress(FileNotFoundError):
                found = os.path.basename(os.readlink(f"{path}/device/driver"))
                if found == driver:
                    return f"/dev/dri/{os.path.basename(path)}"
    raise SystemExit(f"there is no DRM node ({kind}) of {driver}")


def capability():
    """The node of a MIG capability; NVIDIA's own program makes it, with today's number."""
    run("nvidia-modprobe", "-f", "/proc/driver/nvidia/capabilities/mig/config")
    return "/dev/nvidia-caps/nvidia-cap1"


def prepare():
    """The templates, and alice's manager."""
    for kind, options in OPTIONS.items():
        with open(f"/run/systemd/system/holder-{kind}@.service", "w") as file:
            file.write(f"[Service]\nType=notify\nNotifyAccess=all\nExecStart={HOLD} {options} {CTL}\n")
            if kind == "always":
                file.write("Restart=always\nRestartSec=0\n")
            if kind == "store":
                file.write("FileDescriptorStoreMax=4\n")
    with open("/run/systemd/system/nvidia-dcgm.service", "w") as file:
        matches = 'test "$(cat /sys/module/nvidia/version)" = "$(modinfo --field version nvidia)"'
        file.write(
            "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=notify\nNotifyAccess=all\n"
            f"ExecStartPre=/bin/sh -c '{matches}'\nExecStart={HOLD} {CTL}\n"
        )
    # A boot starts it, so that it is wanted.
    run("systemctl", "add-wants", "--runtime", "multi-user.target", "nvidia-dcgm.service")
    with open("/run/systemd/system/holder-docker@.service", "w") as file:
        file.write(
            "[Unit]\nRequires=docker.service\nAfter=docker.service\n[Service]\n"
            f"ExecStart=docker run --rm --name holder-%i --device {CTL} gpu-job\nExecStop=docker stop holder-%i\n"
        )
    run("systemctl", "daemon-reload")
    os.makedirs("/etc/cdi", exist_ok=True)
    with open("/etc/cdi/nvidia.yaml", "w") as file:
        file.write(
            "---\ncdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n  - name: all\n    containerEdits:\n"
            f"      deviceNodes:\n        - path: {CTL}\n"
        )
    units = "/home/alice/.config/systemd/user"
    run("runuser", "-u", "alice", "--", "mkdir", "-p", units)
    with open(f"{units}/holder@.service", "w") as file:
        file.write(f"[Service]\nType=notify\nNotifyAccess=all\nExecStart={HOLD} {CTL}\n")
    run("loginctl", "enable-linger", "alice")
    for path in [f"{RUNTIME}/systemd/private", f"{RUNTIME}/bus"]:
        wait_for(path, lambda: os.path.exists(path))
    run(*AS_ALICE, "podman", "import", "--quiet", "/usr/share/rig/gpu-job.tar", "gpu-job")


def decoys():
    """What only looks like a holder: the pids with their start times."""
    run("modprobe", "vgem")
    wait_for("another driver's DRM node", lambda: glob.glob("/sys/bus/platform/drivers/vgem") or glob.glob("/sys/devices/platform/vgem"))
    os.makedirs("/tmp/nvidia-data", exist_ok=True)
    os.makedirs("/tmp/dev", exist_ok=True)
    files = ["/tmp/nvidia0.log", "/tmp/nvidia-data/model.bin", "/tmp/dev/nvidiactl", "/dev/nvidia7"]
    for path in files:
        open(path, "w").close()
    os.mknod("/tmp/dev/nvidia0", 0o020666, os.makedev(1, 3))
    pids = [hold(path) for path in files]
    pids.append(hold("/tmp/dev/nvidia0"))
    # A name that is gone: /proc shows it with " (deleted)".
    for path in ("/tmp/dev/nvidiactl", "/dev/nvidia7"):
        os.unlink(path)
    pids.append(hold("--name", "nvidia-smi", "/dev/null"))
    pids.append(hold("--in-flight", "/dev/null"))
    pids.append(hold("--thread", "/dev/zero"))
    for node in glob.glob("/sys/devices/platform/vgem/drm/*"):
        if os.path.exists(f"/dev/dri/{os.path.basename(node)}"):
            pids.append(hold(f"/dev/dri/{os.path.basename(node)}"))
    run("docker", "run", "--detach", "--name", "nvidia-decoy", "gpu-job")
    pids.append(int(run("docker", "inspect", "--format", "{{.State.Pid}}", "nvidia-decoy")))
    return {pid: start_time(pid) for pid in pids}
