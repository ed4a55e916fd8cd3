# SPDX-License-Identifier: MIT
"""What nvidia-reload and nvidia-smi print, parsed and compared. Pure: no machine is needed."""
import json

# What the process that uses CUDA takes.
CUDA_BYTES = 512 << 20
INSTALLED = "/usr/libexec/nvidia-reload"
# What nvidia-smi is asked of each GPU.
FIELDS = """index uuid pci.bus_id name driver_version persistence_mode accounting.mode compute_mode power.limit
power.default_limit clocks.applications.graphics clocks.applications.memory clocks.default_applications.graphics
clocks.default_applications.memory mig.mode.current mig.mode.pending ecc.mode.current ecc.mode.pending""".split()


class Results:
    """One line a check."""

    def __init__(self, show=print):
        self.passed, self.failed, self.skipped, self.show = [], [], [], show

    def check(self, name, ours, theirs, of="nvidia-smi"):
        if ours == theirs:
            self.passed.append(name)
            self.show(f"ok    {name}: {shown(ours)}")
        else:
            self.failed.append(name)
            self.show(f"FAIL  {name}: nvidia-reload shows {shown(ours)}, {of} shows {shown(theirs)}")

    def true(self, name, holds, why):
        (self.passed if holds else self.failed).append(name)
        self.show(f"{'ok   ' if holds else 'FAIL '} {name}: {why}")

    def skip(self, name, why):
        self.skipped.append(name)
        self.show(f"skip  {name}: {why}")


def shown(value):
    text = json.dumps(value, sort_keys=True)
    return text if len(text) < 300 else text[:300] + "…"


# --- parsers

def rows(text):
    """The lines of a CSV answer; nvidia-smi quotes nothing."""
    return [[cell.strip() for cell in line.split(", ")] for line in text.splitlines() if line.strip()]


def number(cell):
    """None for [N/A], [Not Supported], [Unknown Error] and the like."""
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


def switch(cell):
    return {"Enabled": True, "Disabled": False}.get(cell)


def address(bus_id):
    """nvidia-smi's 00000000:3B:00.0 as the kernel writes it."""
    domain, _, rest = bus_id.partition(":")
    return f"{int(domain, 16):04x}:{rest.lower()}"


def smi_gpu(cells):
    """One GPU of nvidia-smi, in nvidia-reload's terms: what is set and not at its default."""
    field = dict(zip(FIELDS, cells))
    mode = lambda kind: (lambda now, later: None if now is None else {"current": now, "pending": later})(
        switch(field.get(f"{kind}.mode.current")), switch(field.get(f"{kind}.mode.pending")))
    settings = {
        "persistence": switch(field.get("persistence_mode")) is True,
        "accounting": switch(field.get("accounting.mode")) is True,
        "compute-mode": {"Exclusive_Thread": 1, "Prohibited": 2, "Exclusive_Process": 3}.get(field.get("compute_mode"), 0),
        "mig": switch(field.get("mig.mode.current")) is True,
        "power-limit": None,
        "application-clocks": None,
    }
    limit, default = number(field.get("power.limit")), number(field.get("power.default_limit"))
    if limit is not None and limit != default:
        settings["power-limit"] = round(limit * 100) * 10
    clocks, defaults = ([number(field.get(f"clocks.{of}applications.{what}")) for what in ("memory", "graphics")]
                        for of in ("", "default_"))
    if None not in clocks + defaults and clocks != defaults:
        settings["application-clocks"] = [round(clock) for clock in clocks]
    return {"index": int(field["index"]), "uuid": field["uuid"], "pci": address(field["pci.bus_id"]), "name": field["name"],
            "ecc": mode("ecc"), "mig": mode("mig"), "settings": settings}


def our_gpu(seen):
    """The same of ask-nvml's answer."""
    of = {setting["kind"]: setting for setting in seen["settings"]}
    clocks = of.get("application-clocks")
    settings = {
        "persistence": "persistence" in of,
        "accounting": "accounting" in of,
        "compute-mode": of.get("compute-mode", {}).get("mode", 0),
        "mig": "mig" in of,
        # nvidia-smi shows hundredths of a watt.
        "power-limit": round(of["power-limit"]["milliwatts"] / 10) * 10 if "power-limit" in of else None,
        "application-clocks": clocks and [clocks["memory"], clocks["graphics"]],
    }
    health = seen["health"]
    return {**{key: seen[key] for key in ("index", "uuid", "pci", "name")}, "ecc": health["ecc"], "mig": health["mig"],
            "settings": settings}


def by_process(entries):
    """Memory in MiB by process; None where one GPU does not show it."""
    memory = {}
    for pid, mib in entries:
        before = memory.get(pid, 0)
        memory[pid] = None if mib is None or before is None else before + mib
    return memory


def metric(text, name):
    """The labels of each sample of a metric, with its value."""
    found = []
    for line in text.splitlines():
        if line.startswith(name + "{"):
            labels, _, value = line[len(name) + 1:].rpartition("} ")
            found.append((dict(part.split("=", 1) for part in labels.replace('"', "").split(",")), float(value)))
    return found


# --- comparisons: pure, over recorded outputs

def compare(seen, results):
    """Holds each fact against nvidia-smi's. `seen` has the raw outputs by name, and the status of those that
    failed; what could not be asked is not in there."""
    missing = lambda name: seen.get(name + ".why", "not asked")
    smi = [smi_gpu(cells) for cells in rows(seen["smi"])]
    version = rows(seen["smi"])[0][FIELDS.index("driver_version")]
    status = json.loads(seen["status"])
    check = json.loads(seen["check"])
    state = json.loads(seen["state"])
    results.check("version of the loaded driver, status", status["driver"]["loaded"], version)
    results.check("version of the loaded driver, check", check["driver"]["loaded"], version)
    results.check("version by NVML", state["nvml"].get("driver_version"), version)
    if "proc" in seen:
        results.true("version by the kernel", version in seen["proc"].splitlines()[0].split(), seen["proc"].splitlines()[0])
    results.check("version of the library", state["library"].get("version"), version)

    ours = [our_gpu(gpu) for gpu in state["gpus"] if gpu["state"] == "ok"]
    results.check("GPUs, count", len(state["gpus"]), len(smi))
    for gpu, theirs in zip(ours, smi):
        for what in ("index", "uuid", "pci", "name", "ecc", "mig"):
            results.check(f"GPU {theirs['index']}, {what}", gpu[what], theirs[what])
        for what, value in theirs["settings"].items():
            results.check(f"GPU {theirs['index']}, {what}", gpu["settings"][what], value)
    unread = [line for gpu in state["gpus"] for line in gpu.get("unread", [])]
    results.true("settings, all read", not unread, "; ".join(unread) or "yes")
    instances = sum(setting["kind"] == "gpu-instance" for gpu in state["gpus"] for setting in gpu.get("settings", []))
    if any(gpu["settings"]["mig"] for gpu in smi):
        listed = "MIG" in seen["list"]
        results.true("MIG, instances", (instances > 0) == listed, f"{instances} GPU instances, nvidia-smi -L lists MIG devices: {listed}")
    else:
        results.check("MIG, instances", instances, 0)

    compare_processes(seen, status, results)
    compare_check(seen, status, check, state, missing, results)


def compare_processes(seen, status, results):
    entries = lambda text: [(int(pid), number(memory)) for pid, _, memory in rows(text) if pid.isdigit()]
    apps = [by_process(entries(seen[name])) for name in ("apps", "apps-after")]
    usage = json.loads(seen["usage"])
    used = by_process((one["pid"], None if one["memory"] is None else one["memory"] / 2**20) for one in usage.get("processes", []))
    holders = {holder["pid"]: holder for holder in status["holders"]}
    # One that began or ended meanwhile is in one of the two only.
    steady = apps[0].keys() & apps[1].keys()
    visible = {pid for pid in steady if pid in seen["pids"]}
    if steady - visible:
        results.skip("other processes", f"nvidia-smi lists {sorted(steady - visible)}: of another PID namespace, or only root may look at them")
    results.check("processes by NVML", sorted(used.keys() & steady), sorted(steady))
    results.check("processes of nvidia-smi among the holders", sorted(holders.keys() & visible), sorted(visible))
    for pid in sorted(steady):
        near = any(used.get(pid) == of[pid] or None not in (used.get(pid), of[pid]) and abs(used[pid] - of[pid]) <= 1 for of in apps)
        results.true(f"memory of process {pid}", near, f"nvidia-reload shows {used.get(pid)} MiB, nvidia-smi {apps[0][pid]} MiB")
    cuda = seen.get("cuda")
    if cuda is None:
        results.skip("the CUDA process", seen.get("cuda.why", "not started"))
        return
    devices = {device["name"] for device in holders.get(cuda, {}).get("devices", [])}
    results.true("the CUDA process is a holder", {"nvidiactl", "nvidia-uvm"} <= devices, f"process {cuda} holds {sorted(devices)}")
    if cuda in steady:
        results.true("the CUDA process, its memory", apps[0][cuda] is None or apps[0][cuda] >= CUDA_BYTES >> 20, f"{apps[0][cuda]} MiB")
    shown_to_us = holders.get(cuda, {}).get("gpu_memory")
    if not seen["installed"]:
        results.skip("memory of the CUDA process in status", f"{INSTALLED}/ask-nvml is not there: install the package")
    elif cuda in used:
        results.check("memory of the CUDA process in status", shown_to_us and round(shown_to_us / 2**20), used[cuda] and round(used[cuda]), "NVML")
    results.true("the CUDA process is gone after its end", cuda not in {holder["pid"] for holder in json.loads(seen["status-after"])["holders"]}, "status once more")


def compare_check(seen, status, check, state, missing, results):
    results.check("versions in check", check["driver"]["on_disk"], status["driver"]["on_disk"], "status")
    exits = {"reload-needed": 1, "not-installed": 2, "gpu-failed": 2, "reset-needed": 2, "reboot-needed": 2, "unknown": 3}
    results.check("exit status of check", seen["check.exit"], exits.get(check["condition"], 0), "its condition")
    info = metric(seen["metrics"], "nvidia_reload_driver_info")
    results.check("version in metrics", info and info[0][0].get("loaded"), status["driver"]["loaded"], "status")
    holds = [labels["condition"] for labels, value in metric(seen["metrics"], "nvidia_reload_condition") if value == 1]
    results.check("condition in metrics", holds, [check["condition"]], "check")
    if "plan" in seen:
        plan = json.loads(seen["plan"])
        results.check("exit status of plan", seen["plan.exit"], {"ready": 0, "refused": 3, "reboot-required": 4}[plan["verdict"]], "its verdict")
        pids = {pid for action in plan["actions"] for pid in action["pids"]}
        if "cuda" in seen:
            results.true("plan names the CUDA process", seen["cuda"] in pids, f"plan: {plan['verdict']}; {[reason['what'] for reason in plan['reasons']]}")
    else:
        results.skip("plan", missing("plan"))
    if "verify" in seen:
        verify = json.loads(seen["verify"])
        results.check("exit status of verify", seen["verify.exit"], {"ok": 0, "note": 0, "failed": 1, "reboot-required": 4}[verify["grade"]], "its grade")
        ids = lambda gpus: sorted(gpu["uuid"] for gpu in gpus)
        results.check("GPUs in verify", ids(verify["gpus"]), ids(gpu for gpu in state["gpus"] if gpu["state"] == "ok"), "ask-nvml")
    else:
        results.skip("verify", missing("verify"))
