# SPDX-License-Identifier: MIT
"""What runs on a machine: each workload can be made, stopped and started, and tells whether it runs."""
import subprocess
import time
from pathlib import Path

GPU = "/dev/nvidiactl"


class Wrong(Exception):
    """What does not hold."""


class NotApplied(Exception):
    """Why the fault could not be put there."""


def sh(*words, check=True, timeout=120):
    # A user cannot enter the folder of the scenario.
    done = subprocess.run(words, text=True, capture_output=True, timeout=timeout, cwd="/")
    if check and done.returncode:
        raise Wrong(f"{' '.join(words)}: exit {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()


def until(seconds, what, holds):
    end = time.monotonic() + seconds
    while not (result := holds()):
        if time.monotonic() > end:
            raise Wrong(f"not within {seconds} s: {what}")
        time.sleep(0.1)
    return result


def show(unit, key):
    return sh("systemctl", "show", "--property", key, "--value", unit)


UNIT = f"[Service]\nType=notify\nNotifyAccess=all\nExecStart=/usr/local/bin/hold {GPU}\n"


def as_alice(*words, check=True):
    uid = sh("id", "-u", "alice")
    # Podman asks her manager over her bus for the group of a container.
    bus = f"DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{uid}/bus"
    env = ["env", "HOME=/home/alice", f"XDG_RUNTIME_DIR=/run/user/{uid}", bus]
    as_her = ["runuser", "-u", "alice", "--", *env]
    return sh(*as_her, *words, check=check)


def lingers():
    """Her manager runs, from the boot on."""
    sh("loginctl", "enable-linger", "alice")
    uid = sh("id", "-u", "alice")
    until(60, "alice's manager", Path(f"/run/user/{uid}/systemd/private").exists)
    until(60, "alice's bus", Path(f"/run/user/{uid}/bus").exists)


class Container:
    """A container of an engine, which has the GPU, or has not."""
    stopped_by = "drain-containers"

    def __init__(self, name, engine="docker", gpu=True, policy="no"):
        self.name, self.engine, self.gpu, self.policy = f"{engine}-{name}", engine, gpu, policy

    def make(self):
        device = ["--device", GPU] if self.gpu else []
        sh(self.engine, "run", "-d", "--name", self.name, f"--restart={self.policy}", *device, "gpu-job")

    def runs(self):
        return sh(self.engine, "inspect", "--format", "{{.State.Running}}", self.name, check=False) == "true"

    def start(self):
        sh(self.engine, "start", self.name)

    def stop(self):
        sh(self.engine, "stop", "--time", "2", self.name)


class Unit:
    """A service that has the GPU."""
    gpu, stopped_by = True, "stop-units"

    def __init__(self, name):
        self.name = f"{name}.service"

    def make(self):
        Path("/etc/systemd/system", self.name).write_text(UNIT)
        sh("systemctl", "daemon-reload")
        self.start()

    def runs(self):
        return show(self.name, "ActiveState") == "active"

    def start(self):
        sh("systemctl", "start", self.name)

    def stop(self):
        sh("systemctl", "stop", self.name)


class UnitOfAlice(Unit):
    """A service of a user's own manager that has the GPU."""

    def make(self):
        lingers()
        home = Path("/home/alice/.config/systemd/user")
        sh("runuser", "-u", "alice", "--", "mkdir", "-p", str(home))
        (home / self.name).write_text(UNIT)
        as_alice("systemctl", "--user", "daemon-reload")
        self.start()

    def runs(self):
        return as_alice("systemctl", "--user", "is-active", self.name, check=False) == "active"

    def start(self):
        as_alice("systemctl", "--user", "start", self.name)

    def stop(self):
        as_alice("systemctl", "--user", "stop", self.name)


class UnitOfContainer(Unit):
    """A service that runs a container: the engine's part of it is not restarted, the service is."""
    stopped_by = "drain-containers"

    def make(self):
        text = (f"[Unit]\nRequires=docker.service\nAfter=docker.service\n[Service]\nRestart=on-failure\nRestartSec=1\n"
                f"ExecStartPre=-docker rm --force of-unit\n"
                f"ExecStart=docker run --rm --name of-unit --device {GPU} gpu-job\nExecStop=docker stop of-unit\n")
        Path("/etc/systemd/system", self.name).write_text(text)
        sh("systemctl", "daemon-reload")
        self.start()

    def runs(self):
        return super().runs() and sh("docker", "inspect", "-f", "{{.State.Running}}", "of-unit", check=False) == "true"


class ContainerOfAlice:
    """A container of a user's own Podman that has the GPU."""
    gpu, name, stopped_by = True, "alice-pod", "drain-containers"

    def make(self):
        lingers()
        as_alice("podman", "import", "--quiet", "/usr/share/rig/gpu-job.tar", "gpu-job")
        # The first process of a container gets SIGTERM only if it asks, and the shell handles it only in `wait`.
        job = f'trap "exit 0" TERM; exec 3<{GPU}; while :; do sleep 3600 & wait $!; done'
        words = ["--name", self.name, "--net=none", "--device", GPU, "gpu-job", "sh", "-c", job]
        self.podman("run", "--detach", *words)

    def podman(self, *words):
        """Started by her manager: to move a process of another's group into a scope it needs the system's bus, to
        which it does not connect again once that was killed."""
        # Without that Podman leaves the container's monitor in this service, and it ends with it.
        out_of_service = ["env", "--unset=INVOCATION_ID", "podman", *words]
        as_alice("systemd-run", "--user", "--quiet", "--wait", "--collect", "--pipe", *out_of_service)

    def runs(self):
        return as_alice("podman", "inspect", "--format", "{{.State.Running}}", self.name, check=False) == "true"

    def start(self):
        self.podman("start", self.name)

    def stop(self):
        self.podman("stop", self.name)


class Console:
    """The text console, on a framebuffer that a module of others has through the driver: a stand-in."""
    gpu, name, stopped_by = True, "console", "unbind-vt"
    module, bound = "fb_standin", Path("/sys/class/vtconsole/vtcon1/bind")

    def make(self):
        # Not by modules-load.d: the rig's GPUs come later in a boot.
        text = (f"[Unit]\nAfter=rig-gpus.service\n[Service]\nType=oneshot\nExecStart=/sbin/modprobe {self.module}\n"
                f"[Install]\nWantedBy=multi-user.target\n")
        Path("/etc/systemd/system/console.service").write_text(text)
        sh("systemctl", "daemon-reload")
        sh("systemctl", "enable", "console.service")
        self.start()

    def runs(self):
        return self.bound.exists() and self.bound.read_text() == "1\n"

    def start(self):
        sh("modprobe", self.module)
        if self.bound.exists() and not self.runs():
            self.bound.write_text("1")

    def stop(self):
        if self.runs():
            self.bound.write_text("0")
        sh("modprobe", "--remove", self.module)


def kinds():
    """What there can be, in a fixed order."""
    return [Container("job"), Unit("holder"), UnitOfAlice("mine"),
            # It comes back after a reboot as well: nobody else would start it then.
            Container("no-gpu", gpu=False, policy="always"),
            Container("always", policy="always"), Container("unless", policy="unless-stopped"),
            Container("pod", engine="podman"), Unit("second"), UnitOfAlice("hers"),
            UnitOfContainer("of-container"), ContainerOfAlice(), Console()]


def workloads(names):
    return [kind for kind in kinds() if kind.name in names]


def missing(running):
    """The workloads that do not run."""
    return [workload.name for workload in running if not workload.runs()]


def plain_process():
    """One without an owner: it is terminated, and not restarted."""
    sh("hold", "--fork", GPU)


